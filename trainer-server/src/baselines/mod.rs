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

pub mod ranked;
pub mod timelines;

pub mod item_knn;
pub mod popularity;
pub mod text_fidelity;
pub mod text_only;

use item_knn::ItemKnn;
use popularity::{Popularity, PopularityWindow};
use ranked::Ranked;
use text_only::TextOnly;
use timelines::{Query, Timelines};

/// Events of a history that are asked with.
pub const QUERY_EVENTS: usize = 10;

/// Answers of one system, parallel to the queries.
pub type SystemRanked = (&'static str, Vec<Ranked>);

/// Whether a baseline goes on learning while it ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learning {
    /// Each event is learned as soon as it was ranked.
    EventByEvent,
    /// What was learned before is all there is, windows of time included.
    Stopped,
}

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

    /// Ranks every query in order, and learns each afterwards if it is to.
    #[must_use]
    pub fn rank(
        &mut self,
        queries: &[Query],
        timelines: &Timelines,
        learning: Learning,
    ) -> Vec<SystemRanked> {
        let mut popularity = Vec::with_capacity(queries.len());
        let mut popularity_7d = Vec::with_capacity(queries.len());
        let mut item_knn = Vec::with_capacity(queries.len());
        for query in queries {
            popularity.push(self.popularity.rank(query, timelines));
            if learning == Learning::EventByEvent {
                self.popularity_7d.expire(query.occurred_at);
            }
            popularity_7d.push(self.popularity_7d.rank(query, timelines));
            if let Some(knn) = &mut self.item_knn {
                item_knn.push(knn.rank(query, timelines));
            }
            if learning == Learning::EventByEvent {
                self.learn(query, timelines);
            }
        }
        let mut ranked = vec![("popularity", popularity), ("popularity_7d", popularity_7d)];
        if self.item_knn.is_some() {
            ranked.push(("item_knn", item_knn));
        }
        if let Some(text_only) = &self.text_only {
            ranked.push(("text_only", text_only.ranked(queries, timelines)));
        }
        ranked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DatasetEvent;

    #[test]
    fn a_stopped_baseline_ranks_as_before_and_a_learning_one_does_not() {
        let event = |user_idx, item_idx, occurred_at| DatasetEvent {
            user_idx,
            item_idx,
            occurred_at,
            value: None,
        };
        let mut timelines = Timelines::new(4);
        let mut baselines = Baselines::new(3, None);
        baselines.learn(&timelines.push(&event(0, 0, 0)), &timelines);
        let later = popularity::WEEK_MILLIS + 1;
        let queries = [1, 2, 3].map(|user| timelines.push(&event(user, 2, later)));
        let ranks = |ranked: &[SystemRanked], name: &str| -> Vec<Option<u32>> {
            let of_name = ranked.iter().find(|(known, _)| *known == name);
            let (_, answers) = of_name.expect("a baseline of this name");
            answers.iter().map(|one| one.rank).collect()
        };
        let frozen = baselines.rank(&queries, &timelines, Learning::Stopped);
        assert_eq!(ranks(&frozen, "popularity"), [Some(3); 3]);
        assert_eq!(ranks(&frozen, "popularity_7d"), [Some(3); 3]);
        let learning = baselines.rank(&queries, &timelines, Learning::EventByEvent);
        assert_eq!(ranks(&learning, "popularity"), [Some(3), Some(2), Some(1)]);
        assert_eq!(
            ranks(&learning, "popularity_7d"),
            [Some(3), Some(1), Some(1)]
        );
    }
}
