//! Decayed item counts of the trainer, exact in f64; what is published of them are codes.

use serde::{Deserialize, Serialize};
use shared_model::model::prior;

/// `log2 S` per item and half-life; see `shared_model::model::prior`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecayedCounts {
    /// Half-lives in seconds.
    pub half_lives_secs: Vec<u32>,
    /// Moment at which one event weighs 1.
    pub landmark_millis: i64,
    /// `[num_items, num_half_lives]`; −∞ for never, stored as `None` because JSON has no infinity.
    log2_sums: Vec<Option<f64>>,
}

impl DecayedCounts {
    /// No items yet.
    #[must_use]
    pub fn new(half_lives_secs: Vec<u32>, landmark_millis: i64) -> Self {
        Self {
            half_lives_secs,
            landmark_millis,
            log2_sums: Vec::new(),
        }
    }

    /// Makes room for `num_items` items.
    pub fn grow(&mut self, num_items: usize) {
        self.log2_sums
            .resize(num_items * self.half_lives_secs.len(), None);
    }

    /// One event of an item, which counts as `weight` of one.
    pub fn add(&mut self, item_idx: u32, at_millis: i64, weight: f32) {
        if weight <= 0.0 {
            return; // an item without a count stays without
        }
        let num_half_lives = self.half_lives_secs.len();
        let first = item_idx as usize * num_half_lives;
        for (offset, half_life) in self.half_lives_secs.iter().enumerate() {
            let cell = &mut self.log2_sums[first + offset];
            let log2_sum = cell.unwrap_or(f64::NEG_INFINITY);
            *cell = Some(prior::add_event(
                log2_sum,
                f64::from(weight),
                at_millis,
                self.landmark_millis,
                *half_life,
            ));
        }
    }

    /// `log2 S` as f32, −∞ for never: `[num_items, num_half_lives]`.
    #[must_use]
    pub fn log2_sums(&self) -> Vec<f32> {
        self.log2_sums
            .iter()
            .map(|sum| sum.map_or(prior::NEVER, |sum| sum as f32))
            .collect()
    }

    /// Codes of one item's row.
    #[must_use]
    pub fn codes(&self, item_idx: usize) -> Vec<i16> {
        let num_half_lives = self.half_lives_secs.len();
        let row = &self.log2_sums[item_idx * num_half_lives..(item_idx + 1) * num_half_lives];
        row.iter()
            .map(|sum| prior::count_code(sum.unwrap_or(f64::NEG_INFINITY)))
            .collect()
    }
}
