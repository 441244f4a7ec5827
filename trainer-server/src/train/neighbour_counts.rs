//! Counts behind the neighbours: how many users had an item, and how many had both of two.
//!
//! `cos(i, j) = c_ij / √(n_i·n_j)` (Deshpande & Karypis 2004); see `shared_model::model::neighbours`.
//! Kept up to date event by event and rebuilt from the log at every start. Memory is bounded: per user
//! the newest distinct items (4 bytes each), per item the partners met most often (at most about 37 kB).
//! The price: an item that has left a user's newest ones counts again when it is taken again, and of a
//! pair one side may be forgotten while the other is kept.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

/// Distinct items of a user that a new one is counted with.
const ITEMS_PER_USER_MAX: usize = 200;
/// Partners of an item beyond which the rarer half is forgotten.
const PARTNERS_MAX: usize = 2048;

/// An item's neighbour: the item and the cosine.
pub type Neighbour = (u32, f32);

/// Counts over the whole stream so far.
#[derive(Debug, Clone, Default)]
pub struct NeighbourCounts {
    /// Newest distinct items, by user.
    of_users: Vec<VecDeque<u32>>,
    /// Users who had the item, by item.
    num_users: Vec<u32>,
    /// Users who had both, by item and partner.
    together: Vec<HashMap<u32, u32>>,
}

impl NeighbourCounts {
    /// Makes room for `num_items` items.
    pub fn grow(&mut self, num_items: usize) {
        self.num_users.resize(num_items, 0);
        self.together.resize_with(num_items, HashMap::new);
    }

    /// A user took an item; nothing happens where it is among those the user had lately.
    pub fn add(&mut self, user_idx: u32, item_idx: u32) {
        let user_idx = user_idx as usize;
        if self.of_users.len() <= user_idx {
            self.of_users.resize_with(user_idx + 1, VecDeque::new);
        }
        let had = &mut self.of_users[user_idx];
        if had.contains(&item_idx) {
            return;
        }
        self.num_users[item_idx as usize] += 1;
        for other in had.iter() {
            for (item, partner) in [(item_idx, *other), (*other, item_idx)] {
                let partners = &mut self.together[item as usize];
                *partners.entry(partner).or_insert(0) += 1;
                if partners.len() > PARTNERS_MAX {
                    forget_rarest(partners);
                }
            }
        }
        if had.len() == ITEMS_PER_USER_MAX {
            had.pop_front();
        }
        had.push_back(item_idx);
    }

    /// Forgets what a user had; what was counted stays counted.
    pub fn forget(&mut self, user_idx: u32) {
        if let Some(had) = self.of_users.get_mut(user_idx as usize) {
            *had = VecDeque::new();
        }
    }

    /// The `len_max` nearest items, nearest first, ties by lower index.
    #[must_use]
    pub fn nearest(&self, item_idx: u32, len_max: usize) -> Vec<Neighbour> {
        let num_users = f64::from(self.num_users[item_idx as usize]);
        let partners = self.together[item_idx as usize].iter();
        let mut all: Vec<Neighbour> = partners
            .map(|(partner, count)| {
                let norm = (num_users * f64::from(self.num_users[*partner as usize])).sqrt();
                let cosine = (f64::from(*count) / norm) as f32;
                (*partner, cosine.min(1.0))
            })
            .collect();
        let order = |a: &Neighbour, b: &Neighbour| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if all.len() > len_max {
            all.select_nth_unstable_by(len_max, order);
            all.truncate(len_max);
        }
        all.sort_unstable_by(order);
        all
    }
}

/// Halves the partners; of equally rare ones the newer items stay. The same ones go whatever the order of the table.
fn forget_rarest(partners: &mut HashMap<u32, u32>) {
    let mut all: Vec<(u32, u32)> = partners.drain().collect();
    all.sort_unstable_by_key(|(partner, count)| (Reverse(*count), Reverse(*partner)));
    all.truncate(PARTNERS_MAX / 2);
    partners.extend(all);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Users 0 and 1 had items 0 and 1, user 2 had 0 and 2, user 3 had 3 alone.
    fn counts() -> NeighbourCounts {
        let mut counts = NeighbourCounts::default();
        counts.grow(4);
        let events = [
            (0, 0),
            (0, 1),
            (1, 1),
            (1, 0),
            (2, 0),
            (2, 2),
            (3, 3),
            (3, 3),
        ];
        for (user_idx, item_idx) in events {
            counts.add(user_idx, item_idx);
        }
        counts
    }

    #[test]
    fn nearness_is_the_cosine_of_users_in_common() {
        let counts = counts();
        let expected = [(1, 2.0 / 6.0_f32.sqrt()), (2, 1.0 / 3.0_f32.sqrt())];
        let nearest = counts.nearest(0, 10);
        assert_eq!(nearest.len(), 2);
        for ((item_idx, cosine), (expected_idx, expected)) in nearest.iter().zip(expected) {
            assert_eq!(*item_idx, expected_idx);
            assert!((cosine - expected).abs() < 1e-6);
        }
        assert_eq!(counts.nearest(0, 1).len(), 1);
        assert_eq!(counts.nearest(3, 10), vec![]);
    }

    #[test]
    fn a_repeat_counts_once() {
        assert_eq!(counts().num_users, vec![3, 2, 1, 1]);
    }

    #[test]
    fn memory_stays_bounded_and_the_frequent_partners_stay() {
        let mut counts = NeighbourCounts::default();
        let num_items = 3 * PARTNERS_MAX as u32;
        counts.grow(num_items as usize);
        for user_idx in 0..3 {
            counts.add(user_idx, 0);
            counts.add(user_idx, 1);
        }
        for item_idx in 2..num_items {
            let user_idx = 3 + item_idx;
            counts.add(user_idx, 0);
            counts.add(user_idx, item_idx);
        }
        assert!(counts.together[0].len() <= PARTNERS_MAX);
        assert_eq!(counts.nearest(0, 1)[0].0, 1);
        for item_idx in 0..num_items {
            counts.add(0, item_idx);
        }
        assert!(counts.of_users[0].len() <= ITEMS_PER_USER_MAX);
    }

    #[test]
    fn an_item_that_counts_again_does_not_make_a_cosine_above_one() {
        let mut counts = NeighbourCounts::default();
        let num_items = ITEMS_PER_USER_MAX as u32 + 1;
        counts.grow(num_items as usize);
        for item_idx in (0..num_items).chain(0..num_items).chain(0..num_items) {
            counts.add(0, item_idx);
        }
        let nearest = counts.nearest(0, num_items as usize);
        assert!(
            nearest
                .iter()
                .all(|(_, cosine)| *cosine > 0.0 && *cosine <= 1.0)
        );
    }
}
