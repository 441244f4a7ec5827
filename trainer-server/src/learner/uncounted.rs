//! Neighbours of events that were passed over: counted a few at a time in idle slices, since that costs ten times the
//! rest of taking an event in.

use std::collections::VecDeque;

use super::Learner;
use crate::preprocess::{Batch, UserIdx};

/// Events that wait to be counted, at most: 32 MB. Those beyond are counted at the next start.
const WAITING_MAX: usize = 1 << 22;
/// Events counted in one slice: some ten milliseconds.
const SLICE_EVENTS: usize = 1000;

/// User and item of each, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Uncounted(VecDeque<(u32, u32)>);

impl Uncounted {
    /// Leaves the targets of a batch for later.
    pub(super) fn add(&mut self, batch: &Batch) {
        let room = WAITING_MAX - self.0.len();
        let targets = batch.examples.iter();
        let targets = targets.filter(|(_, example)| example.target_weight > 0.0);
        let pairs = targets.map(|(user, example)| (user.0, example.item_idx));
        self.0.extend(pairs.take(room));
    }

    /// Users who are forgotten count nowhere.
    pub(super) fn forget(&mut self, users: &[UserIdx]) {
        if !users.is_empty() {
            self.0.retain(|(user, _)| !users.contains(&UserIdx(*user)));
        }
    }
}

impl Learner {
    /// Counts some of the neighbours that were passed over; whether there were any.
    pub fn count_passed_over(&mut self) -> bool {
        if !self.counts_neighbours() {
            self.uncounted = Uncounted::default();
        }
        let num_now = self.uncounted.0.len().min(SLICE_EVENTS);
        for (user, item_idx) in self.uncounted.0.drain(..num_now) {
            self.neighbours.add(user, item_idx);
        }
        num_now > 0
    }
}
