//! Outcomes: what every system said of every event of a stream, kept whole in 56 bytes each.
//!
//! Filled event by event by whoever walks; `figures` and `bootstrap` read them afterwards.
//! Not here: any mean.

use std::collections::{BTreeMap, HashSet};

use crate::baselines::ranked::{Ranked, TOP_LEN};
use crate::baselines::timelines::Query;
use crate::dataset::DatasetEvent;

/// One event that was predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Asked {
    /// Index of the user.
    pub user_idx: u32,
    /// The item that was taken.
    pub item_idx: u32,
    /// When.
    pub occurred_at: i64,
    /// Whether the item is new to the user.
    pub is_new: bool,
    /// Whether the first part of the dataset, learned before the stream, has no event of the item.
    pub is_cold_item: bool,
    /// Whether the user had done nothing before.
    pub is_cold_user: bool,
    /// `log2(1 + events so far)` of the taken item.
    pub popularity: f32,
}

/// Answers of one system, parallel to the events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    /// By event.
    pub ranked: Vec<Ranked>,
    /// Mean `log2(1 + events so far)` of the recommended items; NaN where none was recommended.
    pub popularity: Vec<f32>,
}

/// All events with the answers of all systems.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcomes {
    asked: Vec<Asked>,
    systems: BTreeMap<String, Answers>,
    num_items: usize,
    /// Events per item before the stream.
    warm_counts: Vec<u32>,
    /// Events per item so far, for the events whose queries were added.
    counts: Vec<u32>,
    /// Per system: events per item as they were when its next answer was given.
    counts_of: BTreeMap<String, Vec<u32>>,
}

impl Outcomes {
    /// Nothing predicted yet; `warm` is what was learned before.
    #[must_use]
    pub fn new<'a>(num_items: usize, warm: impl IntoIterator<Item = &'a DatasetEvent>) -> Self {
        let mut counts = vec![0_u32; num_items];
        for event in warm {
            counts[event.item_idx as usize] += 1;
        }
        Self {
            num_items,
            warm_counts: counts.clone(),
            counts,
            ..Self::default()
        }
    }

    /// Takes in the next events, which every system is then asked about.
    pub fn ask(&mut self, queries: &[Query]) {
        for query in queries {
            let item_idx = query.item_idx as usize;
            self.asked.push(Asked {
                user_idx: query.user_idx,
                item_idx: query.item_idx,
                occurred_at: query.occurred_at,
                is_new: query.is_new,
                is_cold_item: self.warm_counts[item_idx] == 0,
                is_cold_user: query.num_known == 0,
                popularity: popularity(self.counts[item_idx]),
            });
            self.counts[item_idx] += 1;
        }
    }

    /// Takes in the next answers of a system; answers come in the order of the events.
    pub fn answer(&mut self, name: &str, ranked: &[Ranked]) {
        let counts = self
            .counts_of
            .entry(name.to_owned())
            .or_insert_with(|| self.warm_counts.clone());
        let answers = self.systems.entry(name.to_owned()).or_default();
        for one in ranked {
            let asked = self.asked[answers.ranked.len()];
            let recommended = one.top.iter().filter(|idx| (**idx as usize) < counts.len());
            let (mut sum, mut num) = (0.0, 0.0);
            for item_idx in recommended {
                sum += popularity(counts[*item_idx as usize]);
                num += 1.0;
            }
            answers.ranked.push(*one);
            answers.popularity.push(sum / num); // NaN for none
            counts[asked.item_idx as usize] += 1;
        }
    }

    /// All events in order.
    #[must_use]
    pub fn asked(&self) -> &[Asked] {
        &self.asked
    }

    /// Answers of a system, if it was asked about every event.
    #[must_use]
    pub fn answers(&self, name: &str) -> Option<&Answers> {
        self.systems
            .get(name)
            .filter(|answers| answers.ranked.len() == self.asked.len() && !self.asked.is_empty())
    }

    /// Size of the catalogue.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.num_items
    }

    /// Users with an event among those asked.
    #[must_use]
    pub fn num_users(&self) -> usize {
        let users: HashSet<u32> = self.asked.iter().map(|asked| asked.user_idx).collect();
        users.len()
    }
}

/// `log2(1 + count)`.
fn popularity(count: u32) -> f32 {
    (1.0 + count as f32).log2() // a logarithm: seven digits are plenty
}

const _: () = assert!(size_of::<Ranked>() <= 56 && TOP_LEN == 10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baselines::ranked::Scores;
    use crate::baselines::timelines::Timelines;

    fn event(user_idx: u32, item_idx: u32, occurred_at: i64) -> DatasetEvent {
        DatasetEvent {
            user_idx,
            item_idx,
            occurred_at,
            value: None,
        }
    }

    #[test]
    fn popularity_is_that_of_the_moment_for_late_answers_too() {
        let warm = [event(0, 0, 0), event(0, 0, 1), event(0, 0, 2)];
        let mut outcomes = Outcomes::new(3, &warm);
        let mut timelines = Timelines::new(2);
        let queries: Vec<Query> = [event(1, 1, 3), event(1, 1, 4)]
            .iter()
            .map(|event| timelines.push(event))
            .collect();
        outcomes.ask(&queries);
        let ranked = Ranked::of(&[0.0, 1.0, 2.0], Some(1), [0, 2], Scores::Ordinal);
        outcomes.answer("one", &[ranked, ranked]);
        let asked = outcomes.asked();
        assert!(asked[0].is_cold_item && asked[0].is_cold_user && asked[0].is_new);
        assert!(asked[1].is_cold_item && !asked[1].is_cold_user && !asked[1].is_new);
        assert_eq!((asked[0].popularity, asked[1].popularity), (0.0, 1.0));
        let answers = outcomes.answers("one").expect("every event answered");
        assert_eq!(answers.popularity, vec![0.0, 1.0], "only item 1 is listed");
        assert_eq!(outcomes.answers("two"), None);
    }

    #[test]
    fn a_system_with_an_event_unanswered_is_not_reported() {
        let mut outcomes = Outcomes::new(2, []);
        let mut timelines = Timelines::new(1);
        outcomes.ask(&[
            timelines.push(&event(0, 0, 0)),
            timelines.push(&event(0, 1, 1)),
        ]);
        outcomes.answer("one", &[Ranked::NOTHING]);
        assert_eq!(outcomes.answers("one"), None);
        outcomes.answer("one", &[Ranked::NOTHING]);
        let answers = outcomes.answers("one").expect("complete");
        assert!(answers.popularity[0].is_nan());
        assert_eq!(
            Outcomes::new(2, []).answers("one"),
            None,
            "nothing was asked"
        );
    }
}
