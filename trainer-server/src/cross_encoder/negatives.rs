//! Negatives: items that a user had not taken, drawn by popularity to the power of 0.75
//! (Mikolov et al. 2013's choice between the unigram and the uniform distribution).
//!
//! Counts are of events so far, so a draw at a moment knows nothing of what comes later.

use rand::Rng;
use rand::rngs::StdRng;

const EXPONENT: f64 = 0.75;
/// Events after which the table of sums is made anew; between, draws are by slightly older counts.
const REBUILD_EVENTS: usize = 1024;
/// Draws before a negative is given up: only where a user has had nearly everything.
const TRIES_MAX: usize = 200;

/// Counts, and their running sums as of the last time they were made.
pub(super) struct NegativeSampler {
    counts: Vec<f64>,
    sums: Vec<f64>,
    num_since: usize,
}

impl NegativeSampler {
    pub(super) fn new(num_items: usize) -> Self {
        Self {
            counts: vec![0.0; num_items],
            sums: vec![0.0; num_items],
            num_since: REBUILD_EVENTS,
        }
    }

    /// Counts an event.
    pub(super) fn learn(&mut self, item_idx: u32) {
        self.counts[item_idx as usize] += 1.0;
        self.num_since += 1;
    }

    /// Up to `num` distinct items that are neither `had` nor `taken`; fewer where there are no more to be found.
    pub(super) fn draw(
        &mut self,
        num: usize,
        had: &[u32],
        taken: u32,
        rng: &mut StdRng,
    ) -> Vec<u32> {
        if self.num_since >= REBUILD_EVENTS {
            self.rebuild();
        }
        let total = self.sums.last().copied().unwrap_or(0.0);
        let mut drawn = Vec::with_capacity(num);
        for _ in 0..TRIES_MAX * num {
            if drawn.len() == num || total <= 0.0 {
                break;
            }
            let at = rng.random::<f64>() * total;
            let item_idx = self.sums.partition_point(|sum| *sum <= at) as u32; // fits: NUM_ITEMS_MAX is 2^20
            let is_item = (item_idx as usize) < self.counts.len(); // rounding may end one behind
            if is_item
                && item_idx != taken
                && !had.contains(&item_idx)
                && !drawn.contains(&item_idx)
            {
                drawn.push(item_idx);
            }
        }
        drawn
    }

    fn rebuild(&mut self) {
        let mut sum = 0.0;
        for (count, place) in self.counts.iter().zip(&mut self.sums) {
            sum += count.powf(EXPONENT);
            *place = sum;
        }
        self.num_since = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn draws_follow_the_power_of_the_counts_and_leave_out_what_was_had() {
        let mut sampler = NegativeSampler::new(4);
        for (item_idx, count) in [(0, 160), (1, 10), (2, 10), (3, 500)] {
            for _ in 0..count {
                sampler.learn(item_idx);
            }
        }
        let mut rng = StdRng::seed_from_u64(1);
        let mut drawn = [0_usize; 4];
        for _ in 0..20_000 {
            for item_idx in sampler.draw(1, &[3], 2, &mut rng) {
                drawn[item_idx as usize] += 1;
            }
        }
        assert_eq!((drawn[2], drawn[3]), (0, 0));
        let ratio = drawn[0] as f64 / drawn[1] as f64;
        assert!((ratio - 8.0).abs() < 0.5, "16^0.75 is 8, not {ratio}");
    }

    #[test]
    fn where_nothing_is_left_there_is_no_negative() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut sampler = NegativeSampler::new(2);
        assert!(sampler.draw(1, &[], 0, &mut rng).is_empty(), "no counts");
        sampler.learn(0);
        sampler.learn(1);
        sampler.rebuild();
        assert!(sampler.draw(2, &[0], 1, &mut rng).is_empty());
        assert_eq!(sampler.draw(2, &[], 1, &mut rng), vec![0]);
    }
}
