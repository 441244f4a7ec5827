//! Views of texts: what visitors type is shorter and in another order than titles, so a student sees that too.
//!
//! ```text
//! query    one to three words in their order
//! span     a stretch of at least half of the words
//! dropped  a quarter of the words left out             (random deletion, Wei & Zou 2019)
//! swapped  two words exchanged                         (random swap, likewise)
//! joined   the first half of one text and the second of another
//! ```

use std::collections::BTreeSet;

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index;

use crate::train::text_views::drop_words;

const DROPPED_SHARE: f32 = 0.25;
const QUERY_WORDS_MAX: usize = 3;

/// The distinct ones of `texts`, and up to `num_views` views of each behind them.
pub(super) fn with_views(texts: &[&String], num_views: usize, seed: u64) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut known = BTreeSet::new();
    let mut all: Vec<String> = Vec::new();
    for text in texts {
        if known.insert((*text).clone()) {
            all.push((*text).clone());
        }
    }
    for text in texts {
        for _ in 0..num_views {
            let other = texts[rng.random_range(0..texts.len())];
            let view = view(text, other, &mut rng);
            if !view.is_empty() && known.insert(view.clone()) {
                all.push(view);
            }
        }
    }
    all
}

/// `num_words` words of `text` by chance, in their order; fewer where it has fewer.
#[must_use]
pub(super) fn query_of(text: &str, num_words: usize, rng: &mut StdRng) -> String {
    let words = words_of(text);
    let mut chosen = index::sample(rng, words.len(), num_words.min(words.len())).into_vec();
    chosen.sort_unstable();
    let chosen: Vec<&str> = chosen.into_iter().map(|idx| words[idx]).collect();
    chosen.join(" ")
}

fn words_of(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// One view of `text`; `other` is what it may be joined with. Every third one is a query.
fn view(text: &str, other: &str, rng: &mut StdRng) -> String {
    match rng.random_range(0..6) {
        0 | 1 => {
            let num_words = rng.random_range(1..=QUERY_WORDS_MAX);
            query_of(text, num_words, rng)
        }
        2 => span(text, rng),
        3 => drop_words(text, DROPPED_SHARE, rng),
        4 => swapped(text, rng),
        _ => joined(text, other),
    }
}

fn span(text: &str, rng: &mut StdRng) -> String {
    let words = words_of(text);
    let len = rng.random_range(words.len().div_ceil(2)..=words.len());
    let first = rng.random_range(0..=words.len() - len);
    words[first..first + len].join(" ")
}

fn swapped(text: &str, rng: &mut StdRng) -> String {
    let mut words = words_of(text);
    if words.len() >= 2 {
        let pair = index::sample(rng, words.len(), 2);
        words.swap(pair.index(0), pair.index(1));
    }
    words.join(" ")
}

fn joined(text: &str, other: &str) -> String {
    let (words, others) = (words_of(text), words_of(other));
    let first = &words[..words.len().div_ceil(2)];
    [first, &others[others.len() / 2..]].concat().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<String> {
        [
            "red retro spot mug",
            "",
            "lamp",
            "set of six glass plates",
            "lamp",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn views_are_distinct_made_of_the_words_given_and_the_same_for_a_seed() {
        let texts = texts();
        let texts: Vec<&String> = texts.iter().collect();
        let all = with_views(&texts, 20, 3);
        assert_eq!(all, with_views(&texts, 20, 3));
        assert_ne!(all, with_views(&texts, 20, 4));
        assert_eq!(
            all[..4],
            ["red retro spot mug", "", "lamp", "set of six glass plates"]
        );
        let distinct: BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        let known: Vec<&str> = texts.iter().flat_map(|text| words_of(text)).collect();
        let views = &all[4..];
        assert!(
            views
                .iter()
                .all(|view| words_of(view).iter().all(|word| known.contains(word)))
        );
        let is_query = |view: &&String| (1..=3).contains(&words_of(view).len());
        let num_queries = views.iter().filter(is_query).count();
        assert!(num_queries >= 6, "{views:?}");
        assert_eq!(
            joined("red retro spot", "set of glass plates"),
            "red retro glass plates"
        );
    }

    #[test]
    fn queries_have_the_words_asked_for_in_their_order() {
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..20 {
            let query = query_of("a b c d e", 2, &mut rng);
            assert!(
                query.len() == 3 && query.as_bytes()[0] < query.as_bytes()[2],
                "{query}"
            );
        }
        assert_eq!(query_of("a b", 3, &mut rng), "a b");
        assert_eq!(query_of(" ", 3, &mut rng), "");
    }
}
