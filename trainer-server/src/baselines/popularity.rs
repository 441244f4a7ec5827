//! Counters: of all time, and over a sliding window of event time.
//!
//! Ties go to the lower item index, so that a count of zero ranks by the order of the catalogue.

use std::collections::VecDeque;

use super::ranked::{Ranked, Scores};
use super::timelines::{Query, Timelines};

/// Seven days.
pub const WEEK_MILLIS: i64 = 7 * 86_400_000;

/// Number of events per item so far.
#[derive(Debug, Clone)]
pub struct Popularity {
    counts: Vec<f32>,
}

impl Popularity {
    /// All counts zero.
    #[must_use]
    pub fn new(num_items: usize) -> Self {
        Self {
            counts: vec![0.0; num_items],
        }
    }

    /// Ranks the queried item.
    #[must_use]
    pub fn rank(&self, query: &Query, timelines: &Timelines) -> Ranked {
        Ranked::of(
            &self.counts,
            Some(query.item_idx),
            timelines.removed(query).iter().copied(),
            Scores::Ordinal,
        )
    }

    /// Counts an event.
    pub fn learn(&mut self, query: &Query) {
        self.counts[query.item_idx as usize] += 1.0; // exact up to 2^24
    }
}

/// Number of events per item in the last `window_millis` before the moment of ranking.
#[derive(Debug, Clone)]
pub struct PopularityWindow {
    window_millis: i64,
    popularity: Popularity,
    inside: VecDeque<(i64, u32)>,
}

impl PopularityWindow {
    /// An empty window.
    #[must_use]
    pub fn new(num_items: usize, window_millis: i64) -> Self {
        Self {
            window_millis,
            popularity: Popularity::new(num_items),
            inside: VecDeque::new(),
        }
    }

    /// Ranks the queried item by the events that are in the window as it stands.
    #[must_use]
    pub fn rank(&self, query: &Query, timelines: &Timelines) -> Ranked {
        self.popularity.rank(query, timelines)
    }

    /// Events of an item in the window as it stands.
    #[must_use]
    pub fn count(&self, item_idx: u32) -> f32 {
        self.popularity.counts[item_idx as usize]
    }

    /// Counts an event. Events come in time order.
    pub fn learn(&mut self, query: &Query) {
        self.expire(query.occurred_at);
        self.inside.push_back((query.occurred_at, query.item_idx));
        self.popularity.learn(query);
    }

    /// Moves the window: events as old as its length at `now_millis` leave it.
    pub fn expire(&mut self, now_millis: i64) {
        while let Some((occurred_at, item_idx)) = self.inside.front().copied() {
            if now_millis - occurred_at < self.window_millis {
                break;
            }
            self.popularity.counts[item_idx as usize] -= 1.0;
            self.inside.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DatasetEvent;

    fn query(timelines: &mut Timelines, user_idx: u32, item_idx: u32, occurred_at: i64) -> Query {
        timelines.push(&DatasetEvent {
            user_idx,
            item_idx,
            occurred_at,
            value: None,
        })
    }

    #[test]
    fn an_event_leaves_the_window_after_exactly_its_length() {
        let mut timelines = Timelines::new(9);
        let mut window = PopularityWindow::new(3, 1000);
        window.learn(&query(&mut timelines, 0, 2, 0));
        let just_inside = query(&mut timelines, 1, 2, 999);
        window.expire(just_inside.occurred_at);
        assert_eq!(
            window.rank(&just_inside, &timelines).rank,
            Some(1),
            "one event beats none"
        );
        let outside = query(&mut timelines, 2, 2, 1000);
        window.expire(outside.occurred_at);
        assert_eq!(
            window.rank(&outside, &timelines).rank,
            Some(3),
            "all counts are zero, the index decides"
        );
        assert_eq!(window.popularity.counts, vec![0.0; 3]);
    }

    #[test]
    fn items_had_already_are_not_ranked_against() {
        let mut timelines = Timelines::new(2);
        let mut popularity = Popularity::new(3);
        for occurred_at in 0..3 {
            popularity.learn(&query(&mut timelines, 0, 0, occurred_at));
        }
        let other_user = query(&mut timelines, 1, 1, 4);
        assert_eq!(popularity.rank(&other_user, &timelines).rank, Some(2));
        let same_user = query(&mut timelines, 0, 1, 5);
        assert_eq!(popularity.rank(&same_user, &timelines).rank, Some(1));
    }
}
