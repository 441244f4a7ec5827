//! Baselines that run beside the learner in every evaluation: what a learner must beat.
//!
//! | name | ranks by |
//! | --- | --- |
//! | `popularity` | number of all events so far |
//! | `popularity_7d` | number of events of the last 7 days of event time |
//! | `item_knn` | cosine of users in common with the user's last 10 items |
//! | `text_only` | cosine with the mean text embedding of the user's last 10 events |
//!
//! The counting ones learn each event as soon as it was ranked, one by one, so they are never behind
//! the live version. A frozen model is not here but in `replay`, since it needs an edge engine.

pub mod timelines;

pub mod item_knn;
pub mod popularity;
pub mod text_only;

use shared_model::metrics::position_of;

use item_knn::ItemKnn;
use popularity::{Popularity, PopularityWindow};
use text_only::TextOnly;
use timelines::{Query, Timelines};

/// Events of a history that are asked with.
pub const QUERY_EVENTS: usize = 10;

/// Rank of an item, from 1; `None` where a system has nothing to rank by, which counts as a miss.
pub type Rank = Option<u32>;

/// Ranks of one system, parallel to the queries.
pub type SystemRanks = (&'static str, Vec<Rank>);

/// All baselines over one stream.
pub struct Baselines {
    popularity: Popularity,
    popularity_7d: PopularityWindow,
    item_knn: Option<ItemKnn>,
    text_only: Option<TextOnly>,
}

impl Baselines {
    /// Baselines over `num_items` items; `text_only` is absent where there are no text embeddings.
    #[must_use]
    pub fn new(num_items: usize, text_only: Option<TextOnly>) -> Self {
        let popularity_7d = PopularityWindow::new(num_items, popularity::WEEK_MILLIS);
        Self {
            popularity: Popularity::new(num_items),
            popularity_7d,
            item_knn: ItemKnn::new(num_items),
            text_only,
        }
    }

    /// Learns an event without ranking it.
    pub fn learn(&mut self, query: &Query, timelines: &Timelines) {
        self.popularity.learn(query);
        self.popularity_7d.learn(query);
        if let Some(item_knn) = &mut self.item_knn {
            item_knn.learn(query, timelines);
        }
    }

    /// Ranks every query before learning it, in order.
    #[must_use]
    pub fn rank_then_learn(
        &mut self,
        queries: &[Query],
        timelines: &Timelines,
    ) -> Vec<SystemRanks> {
        let mut popularity = Vec::with_capacity(queries.len());
        let mut popularity_7d = Vec::with_capacity(queries.len());
        let mut item_knn = Vec::with_capacity(queries.len());
        for query in queries {
            popularity.push(Some(self.popularity.rank(query, timelines)));
            popularity_7d.push(Some(self.popularity_7d.rank(query, timelines)));
            if let Some(knn) = &mut self.item_knn {
                item_knn.push(knn.rank(query, timelines));
            }
            self.learn(query, timelines);
        }
        let mut ranks = vec![("popularity", popularity), ("popularity_7d", popularity_7d)];
        if self.item_knn.is_some() {
            ranks.push(("item_knn", item_knn));
        }
        if let Some(text_only) = &self.text_only {
            ranks.push(("text_only", text_only.ranks(queries, timelines)));
        }
        ranks
    }
}

/// Rank of `target` among all items but `removed`, from 1; ties go to the lower index.
///
/// `removed` holds each item once and never the target.
#[must_use]
pub fn rank_of(scores: &[f32], target: u32, removed: impl IntoIterator<Item = u32>) -> u32 {
    let target_score = scores[target as usize];
    let position =
        position_of(scores, target as usize).expect("scores are finite and hold the target");
    let is_ahead = |idx: &u32| {
        let score = scores[*idx as usize];
        score > target_score || (score == target_score && *idx < target)
    };
    let num_removed = removed.into_iter().filter(is_ahead).count();
    let rank = 1 + position - num_removed;
    rank as u32 // fits: NUM_ITEMS_MAX is 2^20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_breaks_ties_by_index_and_skips_removed_items() {
        let scores = [2.0, 5.0, 2.0, 2.0, 9.0];
        assert_eq!(
            rank_of(&scores, 2, []),
            4,
            "5, 9 and the 2 at index 0 are ahead"
        );
        assert_eq!(rank_of(&scores, 2, [0, 4]), 2);
        assert_eq!(
            rank_of(&scores, 2, [3]),
            4,
            "a removed item behind changes nothing"
        );
        assert_eq!(rank_of(&scores, 4, []), 1);
    }
}
