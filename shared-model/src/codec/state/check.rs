//! What a state must satisfy, whoever made it.

use std::collections::HashSet;

use super::{
    COUNT_EXPONENT, COUNTS_TENSOR, CodeState, CodeTensor, NEIGHBOUR_WEIGHTS_TENSOR,
    NEIGHBOURS_TENSOR, NEVER_CODE, NUM_CODES_MAX,
};
use crate::codec::quantize::{EXPONENT_MAX, EXPONENT_MIN, EXPONENT_ZERO, code_max};
use crate::ids::ItemId;
use crate::spec::{ModelSpec, NUM_ITEMS_MAX, SpecError, TensorShape};

/// Why a state was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Its spec is out of bounds.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// More items than allowed.
    #[error("{actual} items, at most {NUM_ITEMS_MAX} are allowed")]
    NumItems {
        /// Their number.
        actual: usize,
    },
    /// More codes than allowed.
    #[error("{actual} codes in all tensors, at most {NUM_CODES_MAX} are allowed")]
    NumCodes {
        /// Their number.
        actual: usize,
    },
    /// Two rows for one item.
    #[error("item {item_id} is listed twice")]
    DuplicateItem {
        /// The item.
        item_id: ItemId,
    },
    /// Not one tensor per shape of the spec.
    #[error("{actual} tensors, the spec has {expected}")]
    NumTensors {
        /// By the spec.
        expected: usize,
        /// In the state.
        actual: usize,
    },
    /// A tensor that does not have the shape of the spec.
    #[error("tensor {tensor} has shape {actual:?}, expected {expected:?} (rows, columns, bits)")]
    Shape {
        /// Its name.
        tensor: String,
        /// By the spec.
        expected: (usize, usize, u8),
        /// Of the tensor.
        actual: (usize, usize, u8),
    },
    /// A tensor whose arrays do not have the length of its shape.
    #[error(
        "tensor {tensor} holds {num_exponents} exponents and {num_codes} codes, which is not its shape"
    )]
    Length {
        /// Its name.
        tensor: String,
        /// Length of `exponents`.
        num_exponents: usize,
        /// Length of `codes`.
        num_codes: usize,
    },
    /// An exponent out of range.
    #[error("tensor {tensor} row {row_idx} has exponent {actual}")]
    Exponent {
        /// Its name.
        tensor: String,
        /// The row.
        row_idx: usize,
        /// The exponent.
        actual: i8,
    },
    /// A code out of range.
    #[error("tensor {tensor} row {row_idx} holds the code {actual}")]
    Code {
        /// Its name.
        tensor: String,
        /// The row.
        row_idx: usize,
        /// The code.
        actual: i16,
    },
}

impl CodeState {
    /// Checks spec, limits, shapes, exponents, codes, and that no item is listed twice.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), StateError> {
        self.check_shapes()?;
        for (shape, tensor) in self.shapes().iter().zip(&self.tensors) {
            check_tensor_values(shape, tensor)?;
        }
        let mut seen = HashSet::with_capacity(self.items.len());
        for item in &self.items {
            if !seen.insert(&item.item_id) {
                return Err(StateError::DuplicateItem {
                    item_id: item.item_id.clone(),
                });
            }
        }
        Ok(())
    }

    /// The part of [`Self::check`] that looks at lengths only.
    pub(in crate::codec) fn check_shapes(&self) -> Result<(), StateError> {
        check_size(&self.spec, self.items.len())?;
        check_tensor_shapes(&self.shapes(), &self.tensors)
    }
}

/// Checks that there is one tensor per shape, and that each has it.
pub(in crate::codec) fn check_tensor_shapes(
    shapes: &[TensorShape],
    tensors: &[CodeTensor],
) -> Result<(), StateError> {
    if shapes.len() != tensors.len() {
        return Err(StateError::NumTensors {
            expected: shapes.len(),
            actual: tensors.len(),
        });
    }
    for (shape, tensor) in shapes.iter().zip(tensors) {
        let expected = (shape.num_rows, shape.num_cols, shape.code_bits);
        let actual = (tensor.num_rows, tensor.num_cols, tensor.code_bits);
        if expected != actual {
            return Err(StateError::Shape {
                tensor: shape.name.clone(),
                expected,
                actual,
            });
        }
        let (num_exponents, num_codes) = (tensor.exponents.len(), tensor.codes.len());
        if num_exponents != shape.num_rows || num_codes != shape.num_rows * shape.num_cols {
            return Err(StateError::Length {
                tensor: shape.name.clone(),
                num_exponents,
                num_codes,
            });
        }
    }
    Ok(())
}

/// Checks that a model of this spec with this many items stays within the limits.
///
/// # Errors
/// The spec is out of bounds, or there are too many items or codes.
pub(in crate::codec) fn check_size(spec: &ModelSpec, num_items: usize) -> Result<(), StateError> {
    spec.check()?;
    if num_items > NUM_ITEMS_MAX {
        return Err(StateError::NumItems { actual: num_items });
    }
    let num_codes = spec
        .tensor_shapes(num_items)
        .iter()
        .fold(0_usize, |sum, shape| {
            sum.saturating_add(shape.num_rows.saturating_mul(shape.num_cols))
        });
    if num_codes > NUM_CODES_MAX {
        return Err(StateError::NumCodes { actual: num_codes });
    }
    Ok(())
}

/// Whether a row of this tensor may have this exponent.
pub(in crate::codec) fn is_exponent_valid(shape: &TensorShape, exponent: i8) -> bool {
    if shape.name == COUNTS_TENSOR {
        return exponent == COUNT_EXPONENT;
    }
    if shape.num_cols == 0 || shape.name == NEIGHBOURS_TENSOR {
        return exponent == EXPONENT_ZERO; // there is nothing to scale, so nothing travels
    }
    (EXPONENT_MIN..=EXPONENT_MAX).contains(&exponent)
}

/// Smallest and largest code of a tensor.
pub(in crate::codec) fn code_range(shape: &TensorShape) -> (i16, i16) {
    let max = code_max(shape.code_bits);
    match shape.name.as_str() {
        COUNTS_TENSOR => (NEVER_CODE, max),
        // An index beyond the catalogue would be no item; the table has one row per item.
        NEIGHBOURS_TENSOR => (0, i16::try_from(shape.num_rows).unwrap_or(max)),
        NEIGHBOUR_WEIGHTS_TENSOR => (0, max),
        _ => (-max, max),
    }
}

/// Checks exponents and codes of one tensor.
pub(in crate::codec) fn check_tensor_values(
    shape: &TensorShape,
    tensor: &CodeTensor,
) -> Result<(), StateError> {
    let bad_exponent = tensor
        .exponents
        .iter()
        .position(|exponent| !is_exponent_valid(shape, *exponent));
    if let Some(row_idx) = bad_exponent {
        let actual = tensor.exponents[row_idx];
        return Err(StateError::Exponent {
            tensor: shape.name.clone(),
            row_idx,
            actual,
        });
    }
    let (min, max) = code_range(shape);
    match tensor
        .codes
        .iter()
        .position(|code| *code < min || *code > max)
    {
        Some(code_idx) => {
            let (row_idx, actual) = (code_idx / shape.num_cols, tensor.codes[code_idx]);
            Err(StateError::Code {
                tensor: shape.name.clone(),
                row_idx,
                actual,
            })
        }
        None => Ok(()),
    }
}
