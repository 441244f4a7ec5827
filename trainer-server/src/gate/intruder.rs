//! Intruders: an item that one version brings into the lists of most users although hardly anybody took it.
//!
//! One bias that is far too high costs little log loss, since it takes a few percent from each of many items, but
//! it takes a place in every list. A fashion gets there too, only that it comes with its events.

use std::collections::BTreeMap;

use shared_model::edge::engine::top_k;

/// Length of the lists that are compared.
const LIST_LEN: usize = 10;
/// An item enters a list when it was no nearer to it than this: where popularity decides, lists are alike, and the
/// tenth place changes hands in most of them at once.
const FAR_LEN: usize = 100;
/// Lists below which nothing is said.
const LISTS_MIN: usize = 16;
/// Share of the lists that an item may enter with one version.
const ENTERED_SHARE_MAX: f32 = 0.5;
/// Share of the events from which on an item may enter as many lists as it likes.
const ASKED_SHARE_MIN: f32 = 0.02;

/// An item that entered lists.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entrant {
    /// Its row.
    pub item_idx: u32,
    /// Share of the lists that have it now and had it far behind.
    pub entered: f32,
    /// Share of the events that took it.
    pub asked: f32,
}

impl Entrant {
    /// Whether it has no business in so many lists.
    #[must_use]
    pub fn is_intruder(&self) -> bool {
        self.entered > ENTERED_SHARE_MAX
    }
}

/// Lists of two versions for the same questions.
#[derive(Debug, Clone, Default)]
pub(super) struct Lists {
    num_lists: usize,
    entered: BTreeMap<u32, usize>,
    asked: BTreeMap<u32, usize>,
}

impl Lists {
    /// Adds the lists of candidate and live version for one question, and what was taken.
    ///
    /// # Shapes
    /// `candidate`: scores `[num_items]`; `live` likewise, with fewer items or as many.
    pub(super) fn add(&mut self, candidate: &[f32], live: &[f32], target: u32) {
        let list = |row: &[f32], len| top_k((0..row.len() as u32).collect(), row, len); // fits: NUM_ITEMS_MAX is 2^20
        let near = list(live, FAR_LEN);
        for item_idx in list(candidate, LIST_LEN) {
            if !near.contains(&item_idx) {
                *self.entered.entry(item_idx).or_default() += 1;
            }
        }
        self.num_lists += 1;
        *self.asked.entry(target).or_default() += 1;
    }

    /// The item that entered most lists of those that hardly anybody took; `None` where too few lists were compared.
    pub(super) fn most_forward(&self) -> Option<Entrant> {
        if self.num_lists < LISTS_MIN {
            return None;
        }
        let num_events: usize = self.asked.values().sum();
        let share = |count: usize, of: usize| count as f32 / of.max(1) as f32; // counts of a probe fit f32
        let entrants = self.entered.iter().map(|(item_idx, count)| Entrant {
            item_idx: *item_idx,
            entered: share(*count, self.num_lists),
            asked: share(self.asked.get(item_idx).copied().unwrap_or(0), num_events),
        });
        let unasked = entrants.filter(|entrant| entrant.asked < ASKED_SHARE_MIN);
        unasked.max_by(|a, b| a.entered.total_cmp(&b.entered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists of so many users before and after item 130 has come to the front.
    fn lists(targets: &[u32]) -> Lists {
        let scores = |best: Option<u32>| -> Vec<f32> {
            let score = |item| {
                if best == Some(item) {
                    9.0
                } else {
                    -(item as f32)
                }
            };
            (0..200).map(score).collect()
        };
        let (live, candidate) = (scores(None), scores(Some(130)));
        let mut lists = Lists::default();
        for target in targets {
            lists.add(&candidate, &live, *target);
        }
        lists
    }

    #[test]
    fn an_item_in_every_list_that_nobody_took_is_an_intruder_and_a_fashion_is_not() {
        let mut targets = [1; 20];
        let found = lists(&targets).most_forward().expect("item 130 entered");
        assert_eq!(
            (found.item_idx, found.entered, found.asked),
            (130, 1.0, 0.0)
        );
        assert!(found.is_intruder());
        targets[3] = 130;
        assert_eq!(lists(&targets).most_forward(), None);
    }

    #[test]
    fn an_item_that_was_near_takes_the_last_place_as_it_likes() {
        let scores = |best: u32| -> Vec<f32> {
            let score = |item| if best == item { 9.0 } else { -(item as f32) };
            (0..200).map(score).collect()
        };
        let mut lists = Lists::default();
        for _ in 0..20 {
            lists.add(&scores(30), &scores(0), 1);
        }
        assert_eq!(lists.most_forward(), None);
    }

    #[test]
    fn a_few_lists_say_nothing() {
        assert_eq!(lists(&[1; LISTS_MIN - 1]).most_forward(), None);
    }
}
