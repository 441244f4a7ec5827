//! Rows of codes as symbols: what a row is predicted from and in which context each decision is taken.
//!
//! Three models, each serving both directions. Tensors of one class (group, code width, narrow or not) follow each other
//! in the same model, which [`FreshRows::enter`] and [`ChangedRows::enter`] make readier to learn: a release changes
//! dozens of tensors alike, and learning each of them anew would cost some 20 bytes per tensor.
//!
//! * [`PredictedRows`]: texts and the weights of neighbours in snapshots, each code by its difference to a prediction.
//! * [`FreshRows`]: other rows without a base (snapshots, new items). Per row a flag "blank" and the exponent;
//!   per 4-bit or 8-bit code a bit tree of 8 decisions, which learns the distribution of the tensor;
//!   per 16-bit code its bit length as a bit tree, the sign, the bits after the leading one.
//! * [`ChangedRows`]: rows with a base. Per row the exponent change; per code the difference to its prediction as
//!   zero flag, sign, magnitude. Contexts of the zero flag: before the first change of a row, how many columns are
//!   left (the row was sent because something changed); after it, the share of columns changed so far and the last
//!   two flags; in both, how often the same column has changed in the rows coded before, a fading share. Context of the magnitude:
//!   the mean magnitude in the row so far. Id rows of items, which move whole and far, have a model of their own
//!   in place of these contexts ([`moved`]): the columns before predict the difference and its size.
//!
//! The prediction is the base code, rescaled if the exponent changed. In `item.counts` it is at least the smallest
//! code seen so far in the column: an item touched now has the count of one event now, or more.

mod changed;
mod fresh;
mod head;
mod moved;
mod predicted;

pub(super) use changed::ChangedRows;
pub(super) use fresh::FreshRows;
pub(super) use predicted::PredictedRows;

use super::CodecError;
use super::state::{COUNTS_TENSOR, CodeTensor, blank_row, code_range, is_exponent_valid};
use crate::spec::{TensorGroup, TensorShape};

/// Tensors of at most this many columns get contexts per column, since their columns differ in meaning.
const NARROW_COLS_MAX: usize = 8;

/// Exponent and codes of one row.
pub(super) struct RowMut<'a> {
    pub(super) exponent: &'a mut i8,
    pub(super) codes: &'a mut [i16],
}

/// Tensors that behave alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    group: TensorGroup,
    code_bits: u8,
    is_narrow: bool,
    is_counts: bool,
}

/// One model per class met so far.
#[derive(Debug)]
pub(super) struct PerClass<M> {
    models: Vec<(Class, M)>,
}

impl<M> PerClass<M> {
    pub(super) fn new() -> Self {
        Self { models: Vec::new() }
    }

    /// The model for a tensor; made by `first` where no tensor of its class was met, else told by `enter`.
    fn of(&mut self, traits: Traits, first: fn(Traits) -> M, enter: fn(&mut M, Traits)) -> &mut M {
        let class = traits.class();
        let model_idx = match self.models.iter().position(|(other, _)| *other == class) {
            Some(model_idx) => {
                enter(&mut self.models[model_idx].1, traits);
                model_idx
            }
            None => {
                self.models.push((class, first(traits)));
                self.models.len() - 1
            }
        };
        &mut self.models[model_idx].1
    }
}

impl PerClass<FreshRows> {
    pub(super) fn enter(&mut self, shape: &TensorShape) -> &mut FreshRows {
        self.of(Traits::new(shape), FreshRows::new, FreshRows::enter)
    }
}

impl PerClass<ChangedRows> {
    /// For a tensor whose rows of the base are known to both sides.
    pub(super) fn enter(&mut self, shape: &TensorShape, base: &CodeTensor) -> &mut ChangedRows {
        let rows = self.of(Traits::new(shape), ChangedRows::new, ChangedRows::enter);
        rows.meet(base);
        rows
    }
}

/// What both models know about their tensor.
#[derive(Debug, Clone)]
struct Traits {
    shape: TensorShape,
    blank: (i8, i16),
    range: (i16, i16),
    is_counts: bool,
    is_narrow: bool,
}

impl Traits {
    fn new(shape: &TensorShape) -> Self {
        Self {
            blank: blank_row(shape),
            range: code_range(shape),
            is_counts: shape.name == COUNTS_TENSOR,
            is_narrow: shape.num_cols <= NARROW_COLS_MAX,
            shape: shape.clone(),
        }
    }

    fn class(&self) -> Class {
        let (is_narrow, is_counts) = (self.is_narrow, self.is_counts);
        Class {
            group: self.shape.group,
            code_bits: self.shape.code_bits,
            is_narrow,
            is_counts,
        }
    }

    fn checked_exponent(&self, exponent: i32) -> Result<i8, CodecError> {
        let exponent = i8::try_from(exponent)
            .ok()
            .filter(|exponent| is_exponent_valid(&self.shape, *exponent));
        exponent.ok_or(CodecError::Corrupt {
            what: "exponent out of range",
        })
    }

    fn checked_code(&self, code: i32) -> Result<i16, CodecError> {
        let (min, max) = self.range;
        let code = i16::try_from(code)
            .ok()
            .filter(|code| (min..=max).contains(code));
        code.ok_or(CodecError::Corrupt {
            what: "code out of range",
        })
    }

    fn column_context(&self, col_idx: usize) -> usize {
        if self.is_narrow { col_idx } else { 0 }
    }

    fn sign_context(&self, col_idx: usize, predicted: i32) -> usize {
        if self.is_narrow {
            col_idx
        } else {
            NARROW_COLS_MAX + (predicted.signum() + 1) as usize
        } // 0 to 2
    }

    fn magnitude_context(&self, col_idx: usize, magnitude_level: usize) -> usize {
        if self.is_narrow {
            col_idx
        } else {
            magnitude_level
        }
    }
}
