//! Texts as people and cheats write them: the same title with something wrong about it.
//!
//! An encoder that was made smaller for clean titles may be thrown off more than its parent was.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// Words that are appended to stuff a title.
const NUM_STUFFED: usize = 5;

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// Two letters of every third word are swapped.
    Typos,
    /// Two words of it, as somebody types them.
    Query,
    /// Its words in another order.
    Shuffled,
    /// The most common words of the catalogue behind it, as a cheat writes them.
    Stuffed,
    /// Ten times over.
    Long,
}

impl Noise {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Typos,
        Self::Query,
        Self::Shuffled,
        Self::Stuffed,
        Self::Long,
    ];

    /// For people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Typos => "texts with typing errors",
            Self::Query => "queries of two words",
            Self::Shuffled => "texts in another order",
            Self::Stuffed => "texts stuffed with common words",
            Self::Long => "texts ten times over",
        }
    }

    /// The texts with this wrong about each. `common` are the words of the catalogue, the most common first.
    #[must_use]
    pub fn spoil(self, texts: &[String], common: &[String], seed: u64) -> Vec<String> {
        let mut rng = StdRng::seed_from_u64(seed);
        let stuffing = common.iter().take(NUM_STUFFED).map(String::as_str);
        let stuffing = stuffing.collect::<Vec<_>>().join(" ");
        let mut spoil = |text: &String| {
            let mut words: Vec<&str> = text.split_whitespace().collect();
            match self {
                Self::Typos => typos(&words, &mut rng),
                Self::Query => {
                    let chosen: Vec<&str> = words.choose_multiple(&mut rng, 2).copied().collect();
                    chosen.join(" ")
                }
                Self::Shuffled => {
                    words.shuffle(&mut rng);
                    words.join(" ")
                }
                Self::Stuffed => format!("{text} {stuffing}"),
                Self::Long => vec![text.as_str(); 10].join(" "),
            }
        };
        texts.iter().map(&mut spoil).collect()
    }
}

fn typos(words: &[&str], rng: &mut StdRng) -> String {
    let spoiled = words.iter().enumerate().map(|(idx, word)| {
        let mut letters: Vec<char> = word.chars().collect();
        if idx % 3 == 0 && letters.len() > 2 {
            let at = rng.random_range(1..letters.len() - 1);
            letters.swap(at, at + 1);
        }
        letters.into_iter().collect::<String>()
    });
    spoiled.collect::<Vec<_>>().join(" ")
}
