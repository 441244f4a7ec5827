//! The logistic distribution in integers: `above(z) = 1 / (1 + e^z)`, and its inverse for probabilities.
//!
//! Both tables are computed when a model is made, by multiplication and division alone.

use crate::codec::range_coder::Prob;

/// Probability 1 as [`Logistic::above`] says it.
pub(super) const ONE: u32 = 1 << 30;

/// Learned probabilities, a half apart in `ln(p / (1 − p))` from −8 to 8.
pub(super) const NUM_KNOTS: usize = 33;

/// Steps between two of them.
pub(super) const PLACES_PER_KNOT: usize = 16;

/// Places per unit of `z`.
const PLACES_PER_UNIT: usize = 128;

/// `z` ends at 16.
const NUM_PLACES: usize = 16 * PLACES_PER_UNIT;

/// `e^(−1/128)`, times `2^24`.
const STEP_FACTOR: u64 = 16_646_655;

/// A mean deviation of 1 is that of a logistic of scale 1 / 1.7; in places of `z` per unit, times `2^16`.
const STEEPNESS: u32 = 14_260_633;

/// Probabilities have so many steps where they are turned into places between knots.
const NUM_SHARES: usize = 4096;

/// Weight of an expectation against observations.
const EXPECTED_COUNT: u32 = 16;

#[derive(Debug)]
pub(super) struct Logistic {
    /// `[NUM_PLACES]`: `2^30 / (1 + e^z)` for `z` from 0.
    above: Vec<u32>,
    /// `[NUM_SHARES]`: place between knots of a probability.
    knot_places: Vec<u16>,
}

/// Places of `z` per step of the deviation's unit, times `2^16`.
pub(super) fn steepness(deviation: u32) -> i64 {
    i64::from(STEEPNESS / deviation)
}

impl Logistic {
    pub(super) fn new() -> Self {
        let mut above = Vec::with_capacity(NUM_PLACES);
        let one = 1_u64 << 38;
        let mut exponential = one;
        for _ in 0..NUM_PLACES {
            above.push(((exponential << 22) / ((one + exponential) >> 8)) as u32); // at most 2^29
            exponential = (exponential * STEP_FACTOR) >> 24;
        }
        let knot_places = knot_places(&above);
        Self { above, knot_places }
    }

    /// Probability of more than `place / 128`, of [`ONE`].
    pub(super) fn above(&self, place: i64) -> u32 {
        let nearest = place.unsigned_abs().min(NUM_PLACES as u64 - 1) as usize; // fits
        if place < 0 {
            ONE - self.above[nearest]
        } else {
            self.above[nearest]
        }
    }

    /// Where the probability `part / whole` is between knots, below `PLACES_PER_KNOT · (NUM_KNOTS − 1)`.
    pub(super) fn knot_place(&self, part: u32, whole: u32) -> usize {
        let share = u64::from(part) * NUM_SHARES as u64 / u64::from(whole.max(1));
        usize::from(self.knot_places[share.min(NUM_SHARES as u64 - 1) as usize]) // fits
    }

    /// The probabilities of the knots themselves.
    pub(super) fn knots(&self) -> [Prob; NUM_KNOTS] {
        let middle = NUM_KNOTS / 2;
        std::array::from_fn(|knot_idx| {
            let place = (middle as i64 - knot_idx as i64) * PLACES_PER_UNIT as i64 / 2;
            let of_1024 = (self.above(place) >> 20).clamp(1, 1023);
            Prob::new(of_1024, 1024, EXPECTED_COUNT)
        })
    }
}

fn knot_places(above: &[u32]) -> Vec<u16> {
    let middle = PLACES_PER_KNOT * (NUM_KNOTS - 1) / 2;
    let places_per_step = PLACES_PER_UNIT / 2 / PLACES_PER_KNOT;
    let mut places = vec![0; NUM_SHARES];
    let mut place = 0;
    for share in (1..=NUM_SHARES / 2).rev() {
        let wanted = (share as u32) << 18; // below ONE
        while place + 1 < above.len() && above[place] > wanted {
            place += 1;
        }
        let distance = (place / places_per_step).min(middle - 1);
        places[share] = (middle - distance) as u16; // below 2^9
        places[NUM_SHARES - share] = (middle + distance) as u16; // likewise
    }
    places[0] = places[1];
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_logistic_function_within_a_percent() {
        let logistic = Logistic::new();
        for place in -2_047_i32..2_048 {
            let expected = 1.0 / (1.0 + (f64::from(place) / 128.0).exp());
            let actual = f64::from(logistic.above(i64::from(place))) / f64::from(ONE);
            assert!(
                (actual / expected - 1.0).abs() < 0.01,
                "{actual} at {place}, expected {expected}"
            );
        }
    }

    #[test]
    fn a_probability_lies_at_the_knots_of_that_probability() {
        let logistic = Logistic::new();
        for share in 8..NUM_SHARES - 8 {
            let place = logistic.knot_place(share as u32, NUM_SHARES as u32) as f64;
            let logit = (place / PLACES_PER_KNOT as f64 - 16.0) / 2.0;
            let probability = 1.0 / (1.0 + (-logit).exp());
            let expected = share as f64 / NUM_SHARES as f64;
            assert!(
                (probability - expected).abs() < 0.04 * expected.min(1.0 - expected),
                "{probability} at {share}, expected {expected}"
            );
        }
    }

    #[test]
    fn places_stay_below_the_last_knot_for_any_parts() {
        let logistic = Logistic::new();
        for (part, whole) in [(0, 0), (0, ONE), (ONE, ONE), (u32::MAX, 1), (1, u32::MAX)] {
            let place = logistic.knot_place(part, whole);
            assert!(place < PLACES_PER_KNOT * (NUM_KNOTS - 1), "{place}");
        }
    }
}
