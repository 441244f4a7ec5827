//! Running hit rate and NDCG over a stream, for loops that print as they go.
//!
//! Not here: the figures of a report (`evaluate`), which keep every answer.

use serde::Serialize;
use shared_model::metrics::{hit_rate_at_k, ndcg_at_k};

use crate::baselines::timelines::Query;

/// Cut-off of both metrics.
pub const K: usize = 10;

/// HR@10 and NDCG@10 over some events.
///
/// Means of [`hit_rate_at_k`] and [`ndcg_at_k`]; one relevant item per event.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    num_scored: u64,
    num_hits: f64,
    gain: f64,
}

/// A tally as it is reported; `None` where nothing was scored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Share of events whose item was among the first ten.
    pub hr_at_10: Option<f64>,
    /// Mean discounted gain.
    pub ndcg_at_10: Option<f64>,
    /// Events behind both.
    pub num_scored: u64,
}

impl Tally {
    /// Takes in one event.
    pub fn add(&mut self, rank: Option<u32>) {
        let position = rank.map(|rank| rank as usize - 1); // ranks count from 1
        self.num_scored += 1;
        self.num_hits += hit_rate_at_k(position, K);
        self.gain += ndcg_at_k(position, K);
    }

    /// Means.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mean = |sum: f64| (self.num_scored > 0).then(|| sum / self.num_scored as f64); // counts fit f64
        Figures {
            hr_at_10: mean(self.num_hits),
            ndcg_at_10: mean(self.gain),
            num_scored: self.num_scored,
        }
    }
}

/// Quality of one system.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quality {
    /// Items new to the user: the headline.
    pub new: Tally,
    /// Of these, users with at least one event before.
    pub new_of_known_users: Tally,
    /// Items the user had before.
    pub repeat: Tally,
}

impl Quality {
    /// Takes in one event.
    pub fn add(&mut self, query: &Query, rank: Option<u32>) {
        if !query.is_new {
            self.repeat.add(rank);
            return;
        }
        self.new.add(rank);
        if query.num_known > 0 {
            self.new_of_known_users.add(rank);
        }
    }
}

/// The value below which a share of `sorted` lies, by the nearest rank; `None` for no values.
#[must_use]
pub fn quantile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let nearest = (sorted.len() as f64 * share).ceil() as usize; // share is in [0, 1]
    sorted.get(nearest.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(is_new: bool, num_known: usize) -> Query {
        Query {
            user_idx: 0,
            item_idx: 0,
            occurred_at: 0,
            num_known,
            num_distinct: 0,
            is_new,
        }
    }

    #[test]
    fn one_hit_at_the_top_and_one_miss_average_to_a_half() {
        let mut tally = Tally::default();
        tally.add(Some(1));
        tally.add(Some(11));
        assert_eq!(
            tally.figures(),
            Figures {
                hr_at_10: Some(0.5),
                ndcg_at_10: Some(0.5),
                num_scored: 2
            }
        );
        tally.add(Some(3));
        tally.add(None);
        assert_eq!(tally.figures().hr_at_10, Some(0.5));
        assert_eq!(
            tally.figures().ndcg_at_10,
            Some(1.5 / 4.0),
            "rank 3 gains 1 / log2(4)"
        );
    }

    #[test]
    fn nothing_scored_gives_no_figure_rather_than_zero() {
        assert_eq!(
            Tally::default().figures(),
            Figures {
                hr_at_10: None,
                ndcg_at_10: None,
                num_scored: 0
            }
        );
    }

    #[test]
    fn repeats_and_cold_users_are_kept_apart() {
        let mut quality = Quality::default();
        let queries = [query(true, 0), query(true, 3), query(false, 3)];
        for (query, rank) in queries.iter().zip([Some(1), None, Some(2)]) {
            quality.add(query, rank);
        }
        assert_eq!(quality.new.figures().num_scored, 2);
        assert_eq!(quality.new_of_known_users.figures().hr_at_10, Some(0.0));
        assert_eq!(quality.repeat.figures().hr_at_10, Some(1.0));
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let sorted: Vec<u32> = (1..=20).collect();
        assert_eq!(
            (
                quantile(&sorted, 0.5),
                quantile(&sorted, 0.95),
                quantile(&sorted, 1.0)
            ),
            (Some(10), Some(19), Some(20))
        );
        assert_eq!(quantile(&sorted, 0.0), Some(1));
        assert_eq!(quantile::<u32>(&[], 0.5), None);
    }
}
