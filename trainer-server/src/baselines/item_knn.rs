//! Item-kNN: cosine of users in common (Deshpande & Karypis 2004), kept up to date event by event.
//!
//! `cos(i, j) = c_ij / √(n_i · n_j)`, with `n_i` users who had item `i` and `c_ij` who had both;
//! `score_j = Σ_(q in the last items) cos(q, j)` over the nearest neighbours of each `q`.
//! Co-occurrence is a dense square of 16-bit counts, hence the limit on the catalogue.

use super::QUERY_EVENTS;
use super::ranked::{Ranked, Scores};
use super::timelines::{Query, Timelines};

/// Largest catalogue: 16,384² counts of 2 bytes are 512 MiB.
pub const ITEM_KNN_ITEMS_MAX: usize = 16_384;
/// Neighbours that each item of the query brings in.
const NUM_NEIGHBOURS: usize = 100;

/// Co-occurrence counts and working memory.
#[derive(Debug, Clone)]
pub struct ItemKnn {
    num_items: usize,
    /// `[num_items, num_items]`, symmetric, diagonal zero; saturates at 65,535.
    together: Vec<u16>,
    /// `1 / √n_i`, 0 for an item nobody had.
    inverse_norms: Vec<f32>,
    num_users: Vec<u32>,
    scores: Vec<f32>,
    neighbours: Vec<(f32, u32)>,
}

impl ItemKnn {
    /// `None` for a catalogue larger than [`ITEM_KNN_ITEMS_MAX`].
    #[must_use]
    pub fn new(num_items: usize) -> Option<Self> {
        if num_items > ITEM_KNN_ITEMS_MAX {
            return None;
        }
        Some(Self {
            num_items,
            together: vec![0; num_items * num_items],
            inverse_norms: vec![0.0; num_items],
            num_users: vec![0; num_items],
            scores: vec![0.0; num_items],
            neighbours: Vec::new(),
        })
    }

    /// Ranks the queried item; nothing is ranked without a history.
    #[must_use]
    pub fn rank(&mut self, query: &Query, timelines: &Timelines) -> Ranked {
        let Some(scores) = self.scores(query, timelines) else {
            return Ranked::NOTHING;
        };
        Ranked::of(
            scores,
            Some(query.item_idx),
            timelines.removed(query).iter().copied(),
            Scores::Ordinal,
        )
    }

    /// Scores of all items, those had already among them; `None` without a history.
    #[must_use]
    pub fn scores(&mut self, query: &Query, timelines: &Timelines) -> Option<&[f32]> {
        let history = timelines.history(query);
        if history.is_empty() {
            return None;
        }
        let mut asked: Vec<u32> = history
            .iter()
            .rev()
            .take(QUERY_EVENTS)
            .map(|seen| seen.item_idx)
            .collect();
        asked.sort_unstable();
        asked.dedup();
        self.scores.fill(0.0);
        for item_idx in asked {
            self.add_neighbours(item_idx);
        }
        Some(&self.scores)
    }

    /// Counts the event if its item is new to the user.
    pub fn learn(&mut self, query: &Query, timelines: &Timelines) {
        if !query.is_new {
            return;
        }
        let item_idx = query.item_idx as usize;
        self.num_users[item_idx] += 1;
        self.inverse_norms[item_idx] = 1.0 / (self.num_users[item_idx] as f32).sqrt();
        for other in timelines.distinct(query) {
            let other = *other as usize;
            for cell in [
                item_idx * self.num_items + other,
                other * self.num_items + item_idx,
            ] {
                self.together[cell] = self.together[cell].saturating_add(1);
            }
        }
    }

    fn add_neighbours(&mut self, item_idx: u32) {
        let first = item_idx as usize * self.num_items;
        let row = &self.together[first..first + self.num_items];
        let inverse_norm = self.inverse_norms[item_idx as usize];
        self.neighbours.clear();
        for (other, count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
            let cosine = f32::from(*count) * inverse_norm * self.inverse_norms[other];
            self.neighbours.push((cosine, other as u32)); // fits: ITEM_KNN_ITEMS_MAX
        }
        if self.neighbours.len() > NUM_NEIGHBOURS {
            let nearest_first =
                |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
            self.neighbours
                .select_nth_unstable_by(NUM_NEIGHBOURS, nearest_first);
            self.neighbours.truncate(NUM_NEIGHBOURS);
        }
        for (cosine, other) in &self.neighbours {
            self.scores[*other as usize] += cosine;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DatasetEvent;

    /// Users 0 and 1 had items 0 and 1, user 2 had 0 and 2, user 3 had 3 alone.
    fn toy() -> (ItemKnn, Timelines) {
        let mut timelines = Timelines::new(6);
        let mut knn = ItemKnn::new(4).expect("small");
        for (user_idx, item_idx) in [
            (0, 0),
            (0, 1),
            (1, 1),
            (1, 0),
            (2, 0),
            (2, 2),
            (3, 3),
            (3, 3),
        ] {
            let query = timelines.push(&DatasetEvent {
                user_idx,
                item_idx,
                occurred_at: 0,
                value: None,
            });
            knn.learn(&query, &timelines);
        }
        (knn, timelines)
    }

    #[test]
    fn ranks_by_cosine_of_users_in_common() {
        let (mut knn, mut timelines) = toy();
        timelines.push(&DatasetEvent {
            user_idx: 4,
            item_idx: 0,
            occurred_at: 1,
            value: None,
        });
        let query = timelines.push(&DatasetEvent {
            user_idx: 4,
            item_idx: 2,
            occurred_at: 2,
            value: None,
        });
        assert_eq!(
            knn.rank(&query, &timelines).rank,
            Some(2),
            "item 1 is nearer to item 0"
        );
        let expected = [0.0, 2.0 / 6.0_f32.sqrt(), 1.0 / 3.0_f32.sqrt(), 0.0];
        for (actual, expected) in knn.scores.iter().zip(expected) {
            assert!(
                (actual - expected).abs() < 1e-6,
                "{actual} is not {expected}"
            );
        }
    }

    #[test]
    fn repeats_do_not_count_twice_and_no_history_ranks_nothing() {
        let (mut knn, mut timelines) = toy();
        assert_eq!(knn.num_users, vec![3, 2, 1, 1]);
        let cold = timelines.push(&DatasetEvent {
            user_idx: 5,
            item_idx: 0,
            occurred_at: 1,
            value: None,
        });
        assert_eq!(knn.rank(&cold, &timelines).rank, None);
    }

    #[test]
    fn a_catalogue_beyond_the_limit_is_refused() {
        assert!(ItemKnn::new(ITEM_KNN_ITEMS_MAX + 1).is_none());
    }
}
