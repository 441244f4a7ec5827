//! Rows with a base, as differences to a prediction; see the parent module.

use super::moved::MovedRows;
use super::{NARROW_COLS_MAX, RowMut, Traits};
use crate::codec::CodecError;
use crate::codec::quantize::rescale_code;
use crate::codec::range_coder::{BinaryCoder, Prob};
use crate::codec::state::{CodeTensor, NEVER_CODE};
use crate::codec::symbols::Number;

/// Model of rows that differ from their base.
#[derive(Debug)]
pub(in crate::codec) struct ChangedRows {
    traits: Traits,
    has_new_exponent: Prob,
    exponent_sign: Prob,
    exponent_step: Number,
    /// Without and with a new exponent.
    elements: [Elements; 2],
    /// `[num_cols]`: how often the column has changed in the rows coded before.
    activity: Vec<Activity>,
    /// `[num_cols]`, counts only: smallest code seen.
    smallest: Vec<i16>,
    /// Instead of all that, but the exponents, where rows move whole.
    moved: Option<MovedRows>,
}

/// Contexts of the differences.
#[derive(Debug, Clone)]
struct Elements {
    is_changed: [Prob; NUM_FLAG_CONTEXTS],
    is_negative: [Prob; NARROW_COLS_MAX + 3],
    magnitude: Vec<Magnitude>,
}

/// Magnitudes in one context: the bit length in unary, the two bits after the leading one learned, the rest plain.
#[derive(Debug, Clone)]
struct Magnitude {
    /// Whether the magnitude is longer than so many bits, less one.
    is_longer: [Prob; MAGNITUDE_BITS_MAX as usize],
    /// By length and by the bits before.
    second: [[Prob; 4]; MAGNITUDE_BITS_MAX as usize],
}

/// A difference of 16-bit codes and their prediction.
const MAGNITUDE_BITS_MAX: u32 = 17;

/// Contexts of tensors that are not narrow: by the mean magnitude of the row so far, in bit lengths.
const NUM_MAGNITUDE_CONTEXTS: usize = 10;

impl Magnitude {
    fn new() -> Self {
        Self {
            is_longer: [Prob::new(1, 4, 1); MAGNITUDE_BITS_MAX as usize],
            second: [[Prob::HALF; 4]; MAGNITUDE_BITS_MAX as usize],
        }
    }

    fn relax(&mut self) {
        self.is_longer.iter_mut().for_each(Prob::relax);
        self.second.iter_mut().flatten().for_each(Prob::relax);
    }

    /// At least 1; a decoder's is below `2^17`.
    fn code<C: BinaryCoder>(&mut self, coder: &mut C, magnitude: u32) -> u32 {
        let given_len = u32::BITS - magnitude.leading_zeros();
        let mut len = 1;
        while len < MAGNITUDE_BITS_MAX
            && coder.bit(&mut self.is_longer[len as usize - 1], given_len > len)
        {
            len += 1;
        }
        let mut decoded = 1_u32;
        let mut num_left = len - 1;
        let probs = &mut self.second[len as usize - 1];
        for _ in 0..num_left.min(2) {
            num_left -= 1;
            let bit = coder.bit(&mut probs[decoded as usize], magnitude >> num_left & 1 == 1); // 1 to 3
            decoded = decoded << 1 | u32::from(bit);
        }
        let rest = coder.raw_bits(magnitude & ((1 << num_left) - 1), num_left);
        decoded << num_left | rest
    }
}

/// Observations of flags that still count in the next tensor: rare changes take long to learn.
const RELAXED_FLAG_COUNT: u32 = 511;

/// Columns left, in bit lengths.
const NUM_LEFT_CONTEXTS: usize = 13;
const NUM_DENSITY_CONTEXTS: usize = DENSITY_EDGES.len() + 1;
/// Shares of changed columns at which the next context begins, in 1/64.
const DENSITY_EDGES: [usize; 5] = [1, 2, 4, 8, 24];
const NUM_FLAG_CONTEXTS: usize =
    NUM_ACTIVITY_LEVELS * (NUM_LEFT_CONTEXTS + 3 * NUM_DENSITY_CONTEXTS);
const NUM_ACTIVITY_LEVELS: usize = 5;

/// Fading share of the rows in which a column changed, in units of 2^−16.
#[derive(Debug, Clone, Copy, Default)]
struct Activity(u16);

impl Activity {
    fn see(&mut self, is_changed: bool) {
        self.0 -= self.0 >> 4;
        if is_changed {
            self.0 += 1 << 12; // at most 2^16 − 1 after the loss above
        }
    }

    /// Never, and then four levels, a factor of four apart.
    fn level(self) -> usize {
        match self.0 {
            0..256 => 0,
            256..1024 => 1,
            1024..4096 => 2,
            4096..16384 => 3,
            16384.. => 4,
        }
    }
}

impl Elements {
    fn new() -> Self {
        Self {
            is_changed: [Prob::new(1, 4, 1); NUM_FLAG_CONTEXTS],
            is_negative: [Prob::HALF; NARROW_COLS_MAX + 3],
            magnitude: vec![Magnitude::new(); NUM_MAGNITUDE_CONTEXTS],
        }
    }

    fn relax(&mut self) {
        for prob in &mut self.is_changed {
            prob.relax_to(RELAXED_FLAG_COUNT);
        }
        self.is_negative.iter_mut().for_each(Prob::relax);
        self.magnitude.iter_mut().for_each(Magnitude::relax);
    }
}

/// What was seen so far in the row that is being coded.
#[derive(Debug, Default)]
struct RowHistory {
    num_changed: usize,
    last_two: [bool; 2],
    sum_of_magnitudes: u32,
}

impl RowHistory {
    fn flag_context(&self, col_idx: usize, num_cols: usize, activity: Activity) -> usize {
        let context = if self.num_changed == 0 {
            let num_left = num_cols - col_idx;
            ((usize::BITS - num_left.leading_zeros()) as usize).min(NUM_LEFT_CONTEXTS - 1) // at most 64
        } else {
            let num_of_64 = 64 * self.num_changed;
            let num_seen = col_idx + 1;
            // Compared, not divided: this is decided for every code.
            let density = DENSITY_EDGES
                .iter()
                .filter(|edge| num_of_64 >= **edge * num_seen)
                .count();
            let num_last = usize::from(self.last_two[0]) + usize::from(self.last_two[1]);
            NUM_LEFT_CONTEXTS + 3 * density + num_last
        };
        NUM_ACTIVITY_LEVELS * context + activity.level()
    }

    /// Bit length of one and a half times the mean magnitude; 0 at the first change, which is counted already.
    fn magnitude_level(&self) -> usize {
        let num_before = self.num_changed as u64 - 1; // usize fits; called at a change
        if num_before == 0 {
            return 0;
        }
        let mean = 3 * u64::from(self.sum_of_magnitudes) / (2 * num_before);
        ((u64::BITS - mean.leading_zeros()) as usize).min(NUM_MAGNITUDE_CONTEXTS - 1) // at most 64
    }

    fn see_flag(&mut self, is_changed: bool) {
        self.num_changed += usize::from(is_changed);
        self.last_two = [is_changed, self.last_two[0]];
    }

    fn see_magnitude(&mut self, magnitude: u32) {
        self.sum_of_magnitudes = self.sum_of_magnitudes.saturating_add(magnitude);
    }
}

impl ChangedRows {
    pub(super) fn new(traits: Traits) -> Self {
        let num_cols = traits.shape.num_cols;
        let num_smallest = if traits.is_counts { num_cols } else { 0 };
        Self {
            traits,
            has_new_exponent: Prob::new(1, 32, 4),
            exponent_sign: Prob::HALF,
            exponent_step: Number::new(),
            elements: [Elements::new(), Elements::new()],
            activity: vec![Activity::default(); num_cols],
            smallest: vec![NEVER_CODE; num_smallest],
            moved: None,
        }
    }

    /// Goes on with another tensor of the class. There is only one tensor of counts, so `smallest` stays.
    pub(super) fn enter(&mut self, traits: Traits) {
        self.activity.clear();
        self.activity
            .resize(traits.shape.num_cols, Activity::default());
        self.traits = traits;
        self.has_new_exponent.relax();
        self.elements.iter_mut().for_each(Elements::relax);
    }

    /// Takes from the base of the tensor entered what its rows are like.
    pub(super) fn meet(&mut self, base: &CodeTensor) {
        self.moved = MovedRows::of(&self.traits, base);
    }

    /// Codes one row against its base. A decoder's row holds the base and becomes the target.
    pub(in crate::codec) fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        base: (i8, &[i16]),
        target: RowMut<'_>,
    ) -> Result<(), CodecError> {
        let (base_exponent, base_codes) = base;
        if !self.traits.is_counts {
            *target.exponent = self.exponent(coder, base_exponent, *target.exponent)?;
        }
        let shift = *target.exponent - base_exponent; // both within EXPONENT_MIN to EXPONENT_MAX, fits
        if let Some(moved) = &mut self.moved {
            return moved.code(coder, &self.traits, (base_codes, shift), target.codes);
        }
        let elements_idx = usize::from(shift != 0);
        let mut history = RowHistory::default();
        for (col_idx, (base_code, target_code)) in base_codes.iter().zip(target.codes).enumerate() {
            let predicted = self.predicted(col_idx, *base_code, shift);
            let given = i32::from(*target_code) - predicted;
            let context = history.flag_context(col_idx, base_codes.len(), self.activity[col_idx]);
            let flag = &mut self.elements[elements_idx].is_changed[context];
            let is_changed = coder.bit(flag, given != 0);
            self.activity[col_idx].see(is_changed);
            history.see_flag(is_changed);
            let mut difference = 0;
            if is_changed {
                let elements = &mut self.elements[elements_idx];
                let context = self.traits.sign_context(col_idx, predicted);
                let is_negative = coder.bit(&mut elements.is_negative[context], given < 0);
                let context = self
                    .traits
                    .magnitude_context(col_idx, history.magnitude_level());
                let magnitude = elements.magnitude[context].code(coder, given.unsigned_abs()); // below 2^17
                history.see_magnitude(magnitude);
                difference = if is_negative {
                    -(magnitude as i32)
                } else {
                    magnitude as i32
                };
            }
            *target_code = self
                .traits
                .checked_code(predicted.saturating_add(difference))?;
            self.see(col_idx, *target_code);
        }
        coder.check()
    }

    fn exponent<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        base: i8,
        target: i8,
    ) -> Result<i8, CodecError> {
        let given = i32::from(target) - i32::from(base);
        if !coder.bit(&mut self.has_new_exponent, given != 0) {
            return Ok(base);
        }
        let is_negative = coder.bit(&mut self.exponent_sign, given < 0);
        let step = self
            .exponent_step
            .code(coder, given.unsigned_abs().saturating_sub(1));
        let step = step.min(255) as i32 + 1; // more is out of range anyway
        self.traits
            .checked_exponent(i32::from(base) + if is_negative { -step } else { step })
    }

    fn predicted(&self, col_idx: usize, base_code: i16, shift: i8) -> i32 {
        let predicted = match self.smallest.get(col_idx) {
            Some(smallest) => base_code.max(*smallest),
            None if shift == 0 => base_code,
            None => rescale_code(base_code, shift, self.traits.shape.code_bits),
        };
        if predicted == NEVER_CODE {
            0
        } else {
            i32::from(predicted)
        }
    }

    fn see(&mut self, col_idx: usize, target_code: i16) {
        if let Some(smallest) = self.smallest.get_mut(col_idx) {
            let is_smaller = *smallest == NEVER_CODE || target_code < *smallest;
            if is_smaller && target_code != NEVER_CODE {
                *smallest = target_code;
            }
        }
    }
}
