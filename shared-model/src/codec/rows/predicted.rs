//! Rows without a base that other codes of the same tensor foretell: texts and neighbours in snapshots.
//!
//! ```text
//! texts      code ≈ Σ_r k_r/8 · code of row r · 2^(exponent of r − own exponent)     r: up to two rows before, k_r: −8 to 8
//! weights    code ≈ the code before in the row, since lists of neighbours begin with the strongest
//! neighbours code is one of those that came often, since popular items are in many lists
//! ```
//! A row of texts names its rows `r` and factors `k_r`, as a picture names what it moves from another (motion
//! compensation); an encoder finds them by matching pursuit (Mallat & Zhang 1993) among the rows before. Then each code
//! comes as its difference to the nearest whole prediction, in the context of how far the row is from what foretells it
//! and in which quarter of a step the prediction lies.

use super::head::RowHead;
use super::{RowMut, Traits};
use crate::codec::CodecError;
use crate::codec::check_limit;
use crate::codec::quantize::power_of_two;
use crate::codec::range_coder::{BinaryCoder, Decoder, Encoder};
use crate::codec::state::{CodeTensor, NEIGHBOUR_WEIGHTS_TENSOR, NEIGHBOURS_TENSOR};
use crate::codec::symbols::{BitTree, Number};
use crate::kernels::elementwise::sum;
use crate::spec::{TensorGroup, TensorShape};

/// Rows that one row may name.
const REFERENCES_MAX: usize = 2;
/// Steps of a factor: eighths.
const FACTOR_STEPS: i32 = 8;
/// Exponents differ by at most this much, so that predictions stay whole numbers of 32 bits.
const SHIFT_MAX: i32 = 8;
/// Predictions are in `2^-11` of a step: eighths by factor, `2^-8` by exponents.
const FRACTION_BITS: u32 = 3 + SHIFT_MAX as u32;
/// Levels of how far a row is from its prediction.
const NUM_LEVELS: usize = 16;
/// Places of a prediction between two codes.
const NUM_QUARTERS: usize = 4;
/// Share of what is left of a row that a reference must explain to be worth its bytes.
const SHARE_MIN: f32 = 0.07;
/// Products that an encoder computes to find references in one tensor: a second's work.
const PRODUCTS_MAX: usize = 2_000_000_000;
/// Rows before that are looked at whatever that costs.
const WINDOW_MIN: usize = 64;

/// A row before and by what it is multiplied, in eighths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reference {
    row_idx: usize,
    factor: i32,
}

/// What foretells a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    RowsBefore,
    CodeBefore,
    /// How often each came.
    Frequency,
}

/// Model of such a tensor.
#[derive(Debug)]
pub(in crate::codec) struct PredictedRows {
    traits: Traits,
    source: Source,
    head: RowHead,
    num_references: BitTree,
    distance: Number,
    factor: BitTree,
    level: BitTree,
    /// By level and quarter.
    differences: Vec<BitTree>,
    /// Whole codes, none of which is below 0.
    whole: BitTree,
}

impl PredictedRows {
    /// For the tensors that have something to foretell them.
    pub(in crate::codec) fn new(shape: &TensorShape) -> Option<Self> {
        let source = match shape.group {
            _ if shape.num_cols == 0 => return None,
            TensorGroup::Content if shape.code_bits < 16 => Source::RowsBefore,
            TensorGroup::Neighbours if shape.name == NEIGHBOUR_WEIGHTS_TENSOR => Source::CodeBefore,
            TensorGroup::Neighbours if shape.name == NEIGHBOURS_TENSOR => Source::Frequency,
            _ => return None,
        };
        let num_bits = u32::from(shape.code_bits);
        let (num_contexts, num_whole_bits) = match source {
            Source::RowsBefore => (NUM_LEVELS * NUM_QUARTERS, 0),
            Source::CodeBefore => (1, 0),
            Source::Frequency => (0, num_bits - 1),
        };
        Some(Self {
            traits: Traits::new(shape),
            source,
            head: RowHead::new(),
            num_references: BitTree::new(2),
            distance: Number::new(),
            factor: BitTree::new(5),
            level: BitTree::new(4),
            differences: vec![BitTree::new(num_bits); num_contexts],
            whole: BitTree::new(num_whole_bits),
        })
    }

    /// All rows of an encoder's tensor.
    pub(in crate::codec) fn encode(
        &mut self,
        encoder: &mut Encoder,
        tensor: &CodeTensor,
    ) -> Result<(), CodecError> {
        let rows = Rows::new(tensor);
        self.code(encoder, &mut tensor.clone(), |row_idx| {
            rows.references_of(row_idx)
        })
    }

    /// All rows of an encoder's tensor, texts without looking for rows before.
    pub(in crate::codec) fn encode_at_once(
        &mut self,
        encoder: &mut Encoder,
        tensor: &CodeTensor,
    ) -> Result<(), CodecError> {
        self.code(encoder, &mut tensor.clone(), |_| Vec::new())
    }

    /// All rows of a blank tensor.
    pub(in crate::codec) fn decode(
        &mut self,
        decoder: &mut Decoder<'_>,
        tensor: &mut CodeTensor,
    ) -> Result<(), CodecError> {
        self.code(decoder, tensor, |_| Vec::new())
    }

    fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        tensor: &mut CodeTensor,
        references_of: impl Fn(usize) -> Vec<Reference>,
    ) -> Result<(), CodecError> {
        let num_cols = tensor.num_cols;
        for row_idx in 0..tensor.num_rows {
            let (codes_before, codes) = tensor.codes.split_at_mut(row_idx * num_cols);
            let (exponents_before, exponents) = tensor.exponents.split_at_mut(row_idx);
            let mut row = RowMut {
                exponent: &mut exponents[0],
                codes: &mut codes[..num_cols],
            };
            if self.head.code(coder, &self.traits, &mut row)? {
                continue;
            }
            match self.source {
                Source::CodeBefore => self.code_by_code_before(coder, row.codes)?,
                Source::Frequency => self.code_by_frequency(coder, row.codes)?,
                Source::RowsBefore => {
                    let references =
                        self.code_references(coder, &references_of(row_idx), row_idx)?;
                    let mut predictions = vec![0; num_cols];
                    for Reference { row_idx, factor } in references {
                        let shift = i32::from(exponents_before[row_idx]) - i32::from(*row.exponent);
                        let factor = factor << (shift.clamp(-SHIFT_MAX, SHIFT_MAX) + SHIFT_MAX);
                        let codes = &codes_before[row_idx * num_cols..][..num_cols];
                        for (prediction, code) in predictions.iter_mut().zip(codes) {
                            *prediction += factor * i32::from(*code);
                        }
                    }
                    self.code_by_predictions(coder, &predictions, row.codes)?;
                }
            }
            coder.check()?;
        }
        Ok(())
    }

    fn code_by_code_before<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        codes: &mut [i16],
    ) -> Result<(), CodecError> {
        let mut before = 0;
        for code in codes {
            *code = self.code_difference(coder, 0, before, *code)?;
            before = i32::from(*code);
        }
        Ok(())
    }

    fn code_by_frequency<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        codes: &mut [i16],
    ) -> Result<(), CodecError> {
        for code in codes {
            let symbol = u32::from(code.unsigned_abs()) & (i16::MAX as u32);
            let symbol = self.whole.code(coder, symbol) as i32; // 15 bits
            *code = self.traits.checked_code(symbol)?;
        }
        Ok(())
    }

    /// # Shapes
    /// `predictions`: `[num_cols]`, in `2^-FRACTION_BITS` of a step.
    fn code_by_predictions<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        predictions: &[i32],
        codes: &mut [i16],
    ) -> Result<(), CodecError> {
        let rounded = |prediction: i32| (prediction + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS;
        let pairs = predictions.iter().zip(codes.iter());
        let distances =
            pairs.map(|(prediction, code)| rounded(*prediction).abs_diff(i32::from(*code)));
        let level = level_of(distances.sum(), codes.len());
        let level = self.level.code(coder, level) as usize; // 4 bits
        for (prediction, code) in predictions.iter().zip(codes) {
            let nearest = rounded(*prediction);
            let fraction = prediction - (nearest << FRACTION_BITS) + (1 << (FRACTION_BITS - 1));
            let quarter = (fraction >> (FRACTION_BITS - 2)) as usize; // 0 to 3
            let context = level * NUM_QUARTERS + quarter;
            *code = self.code_difference(coder, context, nearest, *code)?;
        }
        Ok(())
    }

    /// A code as its difference to `nearest`, which wraps around as codes of this width do.
    fn code_difference<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        context: usize,
        nearest: i32,
        code: i16,
    ) -> Result<i16, CodecError> {
        let (min, max) = self.traits.range;
        let nearest = nearest.clamp(i32::from(min), i32::from(max));
        let mask = (1 << self.traits.shape.code_bits) - 1;
        let half = 1 << (self.traits.shape.code_bits - 1);
        let difference = (i32::from(code) - nearest + half) & mask;
        let difference = self.differences[context].code(coder, difference as u32) as i32; // masked
        let wrapped = (nearest + difference) & mask; // the code, plus a half, wrapped
        self.traits.checked_code(wrapped - half)
    }

    fn code_references<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        given: &[Reference],
        row_idx: usize,
    ) -> Result<Vec<Reference>, CodecError> {
        let num_references = self.num_references.code(coder, given.len() as u32) as usize; // REFERENCES_MAX at most
        check_limit("number of references", num_references, REFERENCES_MAX)?;
        let mut references = Vec::with_capacity(num_references);
        for reference_idx in 0..num_references {
            let given = given.get(reference_idx);
            let distance = given.map_or(0, |given| row_idx - given.row_idx - 1);
            let distance = self.distance.code(coder, distance as u32) as usize; // below NUM_ITEMS_MAX, fits
            check_limit(
                "distance of a reference",
                distance.saturating_add(1),
                row_idx,
            )?;
            let factor = given.map_or(0, |given| given.factor + FACTOR_STEPS);
            let factor = self.factor.code(coder, factor as u32) as i32 - FACTOR_STEPS; // 5 bits
            check_limit(
                "factor of a reference",
                factor.unsigned_abs() as usize,
                FACTOR_STEPS as usize,
            )?;
            references.push(Reference {
                row_idx: row_idx - distance - 1,
                factor,
            });
        }
        Ok(references)
    }
}

/// How far a row is from its prediction: the root of eight times the mean distance.
fn level_of(total: u32, num_codes: usize) -> u32 {
    let mean = 8 * total as usize / num_codes; // distances are below 2^8, codes fewer than 2^20
    (mean.isqrt() as u32).min(NUM_LEVELS as u32 - 1)
}

/// The rows of a whole tensor, among which an encoder looks for references.
struct Rows<'a> {
    tensor: &'a CodeTensor,
    /// Sums of squared codes, `[num_rows]`.
    squares: Vec<f32>,
    window: usize,
}

/// The row before that explains most of another one.
struct Match {
    row_idx: usize,
    /// With how many times its codes.
    factor: f32,
    /// Squares that it takes away.
    explained: f32,
}

impl<'a> Rows<'a> {
    fn new(tensor: &'a CodeTensor) -> Self {
        let rows = tensor.codes.chunks_exact(tensor.num_cols);
        Self {
            squares: rows.map(|row| product(row, row) as f32).collect(),
            window: WINDOW_MIN.max(PRODUCTS_MAX / tensor.codes.len().max(1)),
            tensor,
        }
    }

    /// The rows before that explain most of a row, each what the ones before it have left.
    fn references_of(&self, row_idx: usize) -> Vec<Reference> {
        let mut references = Vec::new();
        let codes = self.tensor.row(row_idx).iter();
        let mut left: Vec<f32> = codes.map(|code| f32::from(*code)).collect();
        while references.len() < REFERENCES_MAX {
            let Some(best) = self.best_for(&left, row_idx) else {
                break;
            };
            let exponent = |row_idx: usize| self.tensor.exponents[row_idx];
            let step = power_of_two(exponent(best.row_idx).saturating_sub(exponent(row_idx)));
            let eighths = (best.factor / step * FACTOR_STEPS as f32).round();
            let eighths = eighths.clamp(-(FACTOR_STEPS as f32), FACTOR_STEPS as f32);
            if best.explained < SHARE_MIN * sum(&left, |x| x * x) || eighths == 0.0 {
                break;
            }
            let factor = eighths / FACTOR_STEPS as f32 * step;
            for (left, code) in left.iter_mut().zip(self.tensor.row(best.row_idx)) {
                *left -= factor * f32::from(*code);
            }
            references.push(Reference {
                row_idx: best.row_idx,
                factor: eighths as i32, // clamped
            });
        }
        references
    }

    /// By products of whole numbers, which are fast; `left` is taken in 16ths for them.
    fn best_for(&self, left: &[f32], row_idx: usize) -> Option<Match> {
        let sixteenths = left.iter().map(|x| (x * 16.0).round() as i16); // saturates
        let sixteenths: Vec<i16> = sixteenths.collect();
        let first = row_idx.saturating_sub(self.window);
        let candidates = (first..row_idx).filter(|candidate| self.squares[*candidate] > 0.0);
        let matches = candidates.map(|candidate| {
            let product = product(&sixteenths, self.tensor.row(candidate)) as f32 / 16.0;
            Match {
                row_idx: candidate,
                factor: product / self.squares[candidate],
                explained: product * product / self.squares[candidate],
            }
        });
        matches.max_by(|a, b| a.explained.total_cmp(&b.explained))
    }
}

/// `a·b`; of sixteenths and codes of 8 bits it fits for rows of 8,000 codes, beyond that it wraps.
fn product(a: &[i16], b: &[i16]) -> i32 {
    let products = a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b));
    products.fold(0, i32::wrapping_add)
}

#[cfg(test)]
mod tests;
