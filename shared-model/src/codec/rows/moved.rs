//! Rows that move whole and far, as the id rows of items do; see the parent module.
//!
//! A fast step moves such a row along the vector of the user who acted, and those vectors do not fill all directions
//! alike: the columns of a difference hang together much as the columns of the rows themselves do. So each difference
//! `d[j]` is expected at a linear prediction from the columns before it ([`covariance`]), and the size of its deviation
//! at the mean deviation of the row so far times the share of the column. A logistic distribution there ([`logistic`])
//! gives the probability of each decision, and what was learned at that probability corrects it:
//!
//! ```text
//! per code: changed? · negative? · longer than 1, 2, … bits? · bits after the leading one
//! decision: probability under the distribution → two neighbours of 33 learned probabilities, a half apart in
//!           ln(p / (1 − p)), mixed by nearness; the nearer one learns
//! ```
//! All numbers are integers, so that both sides expect the same. Not here: exponents, and rows that move in few places.

mod covariance;
mod logistic;

use covariance::Covariance;
use logistic::{Logistic, NUM_KNOTS, PLACES_PER_KNOT};

use super::Traits;
use crate::codec::CodecError;
use crate::codec::quantize::rescale_code;
use crate::codec::range_coder::{BinaryCoder, Prob};
use crate::codec::state::CodeTensor;
use crate::spec::TensorGroup;

/// Longest row that is predicted so: the work per row grows with the square of its length.
const COLS_MAX: usize = 128;

/// Steps of expectations and deviations per code step.
const STEPS_PER_CODE: i32 = 32;

/// Where "unchanged" ends and "changed by one" begins, in 1/32 of a code: the dead zone keeps more than a half.
const UNCHANGED_MAX: i32 = 19;

/// A difference of codes of −127 to 127 has at most 8 bits.
const LEN_MAX: u32 = 8;

/// Columns for which the mean deviation of the rows before speaks at the beginning of a row.
const PRIOR_COLS: usize = 4;

/// Mean deviation before the first row: one code, in 1/512 of it.
const FIRST_MEAN_DEVIATION: u32 = 512;

/// Smallest expected deviation, in 1/32 of a code.
const DEVIATION_MIN: u32 = 2;

/// Whether the last two columns changed.
const NUM_CHANGED_CONTEXTS: usize = 4;

/// Model of one tensor.
#[derive(Debug)]
pub(super) struct MovedRows {
    covariance: Covariance,
    logistic: Logistic,
    /// Mean deviation in the rows before, in 1/512 of a code; `None` before the first.
    mean_deviation: Option<u32>,
    is_changed: [Learned; NUM_CHANGED_CONTEXTS],
    is_negative: Learned,
    /// Whether the difference is longer than so many bits, less one.
    is_longer: [Learned; LEN_MAX as usize],
    /// By the bits that follow.
    next_bit: [Learned; LEN_MAX as usize],
}

/// What decisions turned out to be, by the probability they were expected with.
#[derive(Debug, Clone)]
struct Learned([Prob; NUM_KNOTS]);

/// What the next difference is expected to be.
#[derive(Debug, Clone, Copy)]
struct Expected {
    /// In 1/32 of a code.
    center: i32,
    /// Places of the logistic per 1/32 of a code, times 2^16.
    steepness: i64,
}

/// What was seen so far in the row that is being coded.
#[derive(Debug, Default)]
struct Seen {
    last_two_changed: [bool; 2],
    /// Sum of the deviations, each over the share of its column.
    sum_of_deviations: u32,
}

impl MovedRows {
    /// The model for rows of this kind, with the covariance of the base; `None` for other tensors.
    pub(super) fn of(traits: &Traits, base: &CodeTensor) -> Option<Self> {
        let is_moved_whole = traits.shape.group == TensorGroup::Fast
            && traits.shape.code_bits <= 8
            && !traits.is_narrow
            && traits.shape.num_cols <= COLS_MAX;
        is_moved_whole.then(|| {
            let logistic = Logistic::new();
            let learned = Learned::new(&logistic);
            Self {
                covariance: Covariance::of_rows(base),
                logistic,
                mean_deviation: None,
                is_changed: std::array::from_fn(|_| learned.clone()),
                is_negative: learned.clone(),
                is_longer: std::array::from_fn(|_| learned.clone()),
                next_bit: std::array::from_fn(|_| learned.clone()),
            }
        })
    }

    /// Codes one row whose exponent grows by `shift`. A decoder's row holds the base and becomes the target.
    pub(super) fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        traits: &Traits,
        (base_codes, shift): (&[i16], i8),
        target_codes: &mut [i16],
    ) -> Result<(), CodecError> {
        self.covariance.refresh();
        let num_cols = base_codes.len();
        let (mut differences, mut deviations) = ([0_i16; COLS_MAX], [0_i16; COLS_MAX]);
        let mut seen = Seen::default();
        for (col_idx, (base_code, target_code)) in base_codes.iter().zip(target_codes).enumerate() {
            let predicted = i32::from(rescale_code(*base_code, shift, traits.shape.code_bits));
            let center = self.covariance.predict(col_idx, &deviations);
            let expected = self.expect(col_idx, center, &seen);
            let given = i32::from(*target_code) - predicted;
            let difference = self.difference(coder, expected, &mut seen, given);
            *target_code = traits.checked_code(predicted + difference)?;
            differences[col_idx] = difference as i16; // below 2^LEN_MAX, fits
            let deviation = STEPS_PER_CODE * difference - center; // at most 2^13 + 2^14
            deviations[col_idx] = deviation as i16; // fits
            let of_256 = deviation.unsigned_abs() * self.covariance.inverse_share(col_idx);
            seen.sum_of_deviations += of_256 >> 8; // at most 128 · 2^15 · 2^4
        }
        self.covariance.see(&differences[..num_cols]);
        let mean = 16 * seen.sum_of_deviations / num_cols as u32; // at most 2^23
        let before = self.mean_deviation.unwrap_or(mean);
        self.mean_deviation = Some((7 * before + mean) / 8);
        coder.check()
    }

    fn expect(&self, col_idx: usize, center: i32, seen: &Seen) -> Expected {
        let before = self.mean_deviation.unwrap_or(FIRST_MEAN_DEVIATION);
        let prior = PRIOR_COLS as u32 * before / 16;
        let mean = (seen.sum_of_deviations + prior) / (col_idx + PRIOR_COLS) as u32; // at most 132
        let share = u64::from(self.covariance.share(col_idx));
        let deviation = ((u64::from(mean) * share) >> 8) as u32; // at most 2^19 · 2^4
        Expected {
            center,
            steepness: logistic::steepness(deviation.max(DEVIATION_MIN)),
        }
    }

    fn difference<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        expected: Expected,
        seen: &mut Seen,
        given: i32,
    ) -> i32 {
        let above = |edge: i32| self.logistic.above(expected.place(edge));
        let positive = above(UNCHANGED_MAX);
        let negative = logistic::ONE - above(-UNCHANGED_MAX);
        let either = positive + negative;
        let context = seen.context();
        let place = self.logistic.knot_place(either, logistic::ONE);
        let is_changed = self.is_changed[context].bit(coder, place, given != 0);
        seen.last_two_changed = [is_changed, seen.last_two_changed[0]];
        if !is_changed {
            return 0;
        }
        let place = self.logistic.knot_place(negative, either);
        if self.is_negative.bit(coder, place, given < 0) {
            -self.magnitude(coder, expected.mirrored(), -given)
        } else {
            self.magnitude(coder, expected, given)
        }
    }

    /// At least 1 and below `2^LEN_MAX`. Where an encoder's value has the other sign, its bits are not used.
    fn magnitude<C: BinaryCoder>(&mut self, coder: &mut C, expected: Expected, given: i32) -> i32 {
        let above = |edge: i32| self.logistic.above(expected.place(edge));
        let given_len = (i32::BITS - given.leading_zeros()).min(LEN_MAX);
        let mut len = 1;
        let mut rest = above(UNCHANGED_MAX);
        while len < LEN_MAX {
            let beyond = above(lower_edge(1 << len));
            let place = self.logistic.knot_place(beyond, rest);
            if !self.is_longer[len as usize - 1].bit(coder, place, given_len > len) {
                break;
            }
            rest = beyond;
            len += 1;
        }
        let mut value = 1 << (len - 1);
        let (mut from, mut to) = (above(lower_edge(value)), above(lower_edge(2 * value)));
        for bit_idx in (0..len - 1).rev() {
            let middle = above(lower_edge(value + (1 << bit_idx)));
            let place = self.logistic.knot_place(middle - to, from - to);
            let next_bit = &mut self.next_bit[bit_idx as usize];
            if next_bit.bit(coder, place, given >> bit_idx & 1 == 1) {
                value += 1 << bit_idx;
                from = middle;
            } else {
                to = middle;
            }
        }
        value
    }
}

/// Where the differences that round to `value` begin, in 1/32 of a code.
fn lower_edge(value: i32) -> i32 {
    STEPS_PER_CODE * value - STEPS_PER_CODE / 2
}

impl Expected {
    fn place(self, edge: i32) -> i64 {
        (i64::from(edge - self.center) * self.steepness) >> 16
    }

    fn mirrored(self) -> Self {
        Self {
            center: -self.center,
            ..self
        }
    }
}

impl Seen {
    fn context(&self) -> usize {
        let [last, before] = self.last_two_changed.map(usize::from);
        2 * last + before
    }
}

impl Learned {
    /// Nothing yet: every decision is as probable as expected, with the weight of a few observations.
    fn new(logistic: &Logistic) -> Self {
        Self(logistic.knots())
    }

    fn bit<C: BinaryCoder>(&mut self, coder: &mut C, place: usize, bit: bool) -> bool {
        let (knot_idx, part) = (place / PLACES_PER_KNOT, (place % PLACES_PER_KNOT) as u32);
        let parts = PLACES_PER_KNOT as u32;
        let (lower, upper) = (self.0[knot_idx].p16(), self.0[knot_idx + 1].p16());
        let bit = coder.decide((lower * (parts - part) + upper * part) / parts, bit);
        let nearer_idx = knot_idx + usize::from(2 * part >= parts);
        self.0[nearer_idx].update(bit);
        bit
    }
}
