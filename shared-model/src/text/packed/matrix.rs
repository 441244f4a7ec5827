//! A matrix of small codes as bytes and back.
//!
//! ```text
//! matrix : number of steps u2, each step as the bits of an f32, then row by row: which step, its codes
//! code   : magnitude in unary with learned decisions up to UNARY_MAX, the rest as a learned bit tree; sign as a bit
//! ```
//! Every step has decisions of its own, so rows with fine and with coarse steps do not disturb each other.
//! Weights of a trained network are nearly independent, so there is no context to be had: the entropy of the codes
//! is what they cost.

use crate::codec::CodecError;
use crate::codec::range_coder::{BinaryCoder, Decoder, Encoder, Prob};
use crate::text::TextError;

/// Most steps of a matrix.
const STEPS_MAX: usize = 4;

/// Largest magnitude of a code.
pub const CODE_MAX: i8 = 127;

/// Magnitudes from here on are rare where steps are coarse.
const UNARY_MAX: u32 = 12;

/// Decisions of a magnitude after the unary ones: enough for [`CODE_MAX`].
const REST_BITS: u32 = 7;

/// Codes with a step per row: the value is `steps[row_steps[row]] · code`.
#[derive(Debug, Clone, PartialEq)]
pub struct CodedMatrix {
    /// Values per row.
    pub num_cols: usize,
    /// What a code of 1 stands for, 1 to 4 of them, finite and not negative.
    pub steps: Vec<f32>,
    /// Which step each row has.
    pub row_steps: Vec<u8>,
    /// `[row_steps.len(), num_cols]`, row-major, each at most [`CODE_MAX`] either way.
    pub codes: Vec<i8>,
}

impl CodedMatrix {
    /// Rounds every value to the nearest multiple of its row's step.
    ///
    /// # Shapes
    /// `values`: `[row_steps.len(), num_cols]`, row-major.
    #[must_use]
    pub fn nearest(values: &[f32], num_cols: usize, steps: Vec<f32>, row_steps: Vec<u8>) -> Self {
        let rows = values.chunks_exact(num_cols).zip(&row_steps);
        let codes = rows.flat_map(|(row, step_idx)| {
            let step = steps[usize::from(*step_idx)];
            row.iter().map(move |value| code_at(*value, step))
        });
        let codes = codes.collect();
        Self {
            num_cols,
            steps,
            row_steps,
            codes,
        }
    }

    /// The step of each row.
    #[must_use]
    pub fn scales(&self) -> Vec<f32> {
        let step = |step_idx: &u8| self.steps[usize::from(*step_idx)];
        self.row_steps.iter().map(step).collect()
    }

    /// What the codes stand for, row-major.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        let rows = self.codes.chunks_exact(self.num_cols).zip(self.scales());
        rows.flat_map(|(row, scale)| row.iter().map(move |code| scale * f32::from(*code)))
            .collect()
    }

    /// Rows and columns; nothing where it does not consist of whole rows.
    pub(super) fn shape(&self) -> Vec<usize> {
        let (num_rows, num_cols) = (self.row_steps.len(), self.num_cols);
        let is_whole = num_rows.checked_mul(num_cols) == Some(self.codes.len());
        if is_whole {
            vec![num_rows, num_cols]
        } else {
            Vec::new()
        }
    }

    /// Some rows with the same steps.
    pub(super) fn rows(&self, rows: std::ops::Range<usize>) -> Self {
        Self {
            num_cols: self.num_cols,
            steps: self.steps.clone(),
            row_steps: self.row_steps[rows.clone()].to_vec(),
            codes: self.codes[rows.start * self.num_cols..rows.end * self.num_cols].to_vec(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut coder = Encoder::new(Vec::new());
        coder.raw_bits(self.steps.len() as u32 - 1, 2); // 1 to STEPS_MAX
        for step in &self.steps {
            coder.raw_bits(step.to_bits(), 32);
        }
        let mut model = CodeModel::new();
        for (row, step_idx) in self.codes.chunks_exact(self.num_cols).zip(&self.row_steps) {
            let step_idx = model.step_idx(&mut coder, *step_idx);
            for code in row {
                model.code(&mut coder, step_idx, *code);
            }
        }
        coder.finish()
    }

    /// # Errors
    /// The bytes are not such a matrix.
    pub(super) fn decode(
        bytes: &[u8],
        num_rows: usize,
        num_cols: usize,
    ) -> Result<Self, TextError> {
        let mut coder = Decoder::new(bytes);
        let num_steps = coder.raw_bits(0, 2) + 1;
        let steps: Vec<f32> = (0..num_steps)
            .map(|_| f32::from_bits(coder.raw_bits(0, 32)))
            .collect();
        if steps.iter().any(|step| !(step.is_finite() && *step >= 0.0)) {
            return Err(damaged("a step that is not finite"));
        }
        let mut model = CodeModel::new();
        let (mut row_steps, mut codes) = (Vec::new(), Vec::new());
        for _ in 0..num_rows {
            let step_idx = model.step_idx(&mut coder, 0);
            if usize::from(step_idx) >= steps.len() {
                return Err(damaged("a row of an unknown step"));
            }
            row_steps.push(step_idx);
            for _ in 0..num_cols {
                codes.push(model.code(&mut coder, step_idx, 0));
            }
            coder.check().map_err(codec_error)?; // before memory is taken for the next row
        }
        coder.finish().map_err(codec_error)?;
        Ok(Self {
            num_cols,
            steps,
            row_steps,
            codes,
        })
    }
}

/// The code nearest to a value.
#[must_use]
pub fn code_at(value: f32, step: f32) -> i8 {
    let max = f32::from(CODE_MAX);
    (value / step).round_ties_even().clamp(-max, max) as i8 // in range by the clamp; NaN of 0 / 0 becomes 0
}

pub(super) fn damaged(what: &str) -> TextError {
    TextError::Packed {
        reason: what.to_owned(),
    }
}

fn codec_error(error: CodecError) -> TextError {
    damaged(&error.to_string())
}

/// What has been learned of the codes so far.
struct CodeModel {
    step_bits: [Prob; STEPS_MAX],
    by_step: Vec<Magnitudes>,
}

struct Magnitudes {
    unary: [Prob; UNARY_MAX as usize],
    rest: [Prob; 1 << REST_BITS],
}

impl CodeModel {
    fn new() -> Self {
        let magnitudes = || Magnitudes {
            unary: [Prob::HALF; UNARY_MAX as usize],
            rest: [Prob::HALF; 1 << REST_BITS],
        };
        Self {
            step_bits: [Prob::HALF; STEPS_MAX],
            by_step: (0..STEPS_MAX).map(|_| magnitudes()).collect(),
        }
    }

    fn step_idx<C: BinaryCoder>(&mut self, coder: &mut C, step_idx: u8) -> u8 {
        let high = coder.bit(&mut self.step_bits[1], step_idx >> 1 == 1);
        let low = &mut self.step_bits[2 + usize::from(high)];
        let low = coder.bit(low, step_idx & 1 == 1);
        u8::from(high) << 1 | u8::from(low)
    }

    fn code<C: BinaryCoder>(&mut self, coder: &mut C, step_idx: u8, code: i8) -> i8 {
        let Magnitudes { unary, rest } = &mut self.by_step[usize::from(step_idx)];
        let given = u32::from(code.unsigned_abs());
        let mut magnitude = 0;
        for prob in unary {
            if !coder.bit(prob, given > magnitude) {
                break;
            }
            magnitude += 1;
        }
        if magnitude == 0 {
            return 0;
        }
        if magnitude == UNARY_MAX {
            let above = given.saturating_sub(UNARY_MAX);
            let mut node = 1_u32;
            for shift in (0..REST_BITS).rev() {
                let bit = coder.bit(&mut rest[node as usize], above >> shift & 1 == 1);
                node = node << 1 | u32::from(bit);
            }
            magnitude += node - (1 << REST_BITS);
        }
        let is_negative = coder.raw_bits(u32::from(code < 0), 1) == 1;
        let magnitude = magnitude.min(u32::from(CODE_MAX.unsigned_abs())) as i8; // at most CODE_MAX
        if is_negative { -magnitude } else { magnitude }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> CodedMatrix {
        let codes: Vec<i8> = (0..40_i32)
            .map(|idx| (idx * idx * 7 % 255 - 127) as i8) // within ±127
            .collect();
        CodedMatrix {
            num_cols: 5,
            steps: vec![0.5, 0.0, 2.0],
            row_steps: vec![0, 2, 1, 0, 0, 2, 2, 1],
            codes,
        }
    }

    #[test]
    fn a_matrix_comes_back_as_it_was() {
        let matrix = matrix();
        let bytes = matrix.encode();
        assert_eq!(CodedMatrix::decode(&bytes, 8, 5), Ok(matrix));
    }

    #[test]
    fn what_is_cut_or_too_long_is_refused() {
        let bytes = matrix().encode();
        for len in 0..bytes.len().saturating_sub(4) {
            assert!(CodedMatrix::decode(&bytes[..len], 8, 5).is_err(), "{len}");
        }
        assert!(CodedMatrix::decode(&bytes, 7, 5).is_err());
        // A claim of many rows takes no memory for them.
        assert!(CodedMatrix::decode(&bytes, usize::MAX, 5).is_err());
    }

    #[test]
    fn values_become_the_nearest_codes_and_come_back_within_half_a_step() {
        let values: Vec<f32> = (0..60).map(|idx| (idx as f32 * 0.37).sin()).collect();
        let row_steps = vec![0, 1, 1, 0, 1, 0];
        let coded = CodedMatrix::nearest(&values, 10, vec![0.01, 0.2], row_steps.clone());
        for (idx, (value, back)) in values.iter().zip(coded.values()).enumerate() {
            let step = [0.01, 0.2][usize::from(row_steps[idx / 10])];
            assert!((value - back).abs() <= step / 2.0 + 1e-6, "{value} {back}");
        }
        assert_eq!(code_at(0.0, 0.0), 0);
    }

    #[test]
    fn coarse_codes_cost_about_their_entropy() {
        let mut seed = 1_u32;
        let mut uniform = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(seed >> 8) / f64::from(1 << 24)
        };
        // Sums of uniform numbers are about normal, with a deviation of 1.
        let mut normal = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        let codes: Vec<i8> = (0..200_000)
            .map(|_| code_at(normal() as f32, 0.5))
            .collect();
        let mut counts = [0_usize; 256];
        for code in &codes {
            counts[usize::from(code.cast_unsigned())] += 1;
        }
        let total = codes.len() as f64;
        let bits = |count: usize| -(count as f64) * (count as f64 / total).log2();
        let entropy: f64 = counts.into_iter().filter(|c| *c > 0).map(bits).sum();
        let matrix = CodedMatrix {
            num_cols: 100,
            steps: vec![0.5],
            row_steps: vec![0; codes.len() / 100],
            codes,
        };
        let bytes = matrix.encode();
        let excess = bytes.len() as f64 * 8.0 / entropy;
        assert!((0.999..1.01).contains(&excess), "{excess}");
    }
}
