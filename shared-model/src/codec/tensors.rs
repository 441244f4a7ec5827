//! Tensors of codes against those of another state of the same shapes.
//!
//! ```text
//! per tensor:
//!   changed rows: number of those whose item moved in no tensor before
//!                 · per item that did: changed here too? · row
//!                 · per row of the others: gap to the row before · row
//!                 a row: exponent change · differences
//!   rows beyond those of the base: as in a snapshot
//! ```
//! "Before" counts the fast tensors of items alone: an event moves an item's id row, bias and counts together.
//!
//! A delta holds this behind its header and its items; [`encode_tensors`] and [`apply_tensors`] are it alone, for
//! weights that are no Ranker, such as those of a text encoder.

use std::collections::BTreeSet;

use super::range_coder::{BinaryCoder, Decoder, Encoder, Prob};
use super::rows::{ChangedRows, FreshRows, PerClass, RowMut};
use super::state::{CodeTensor, check_tensor_shapes, check_tensor_values};
use super::symbols::{Number, Positions};
use super::{CodecError, check_limit};
use crate::spec::{TensorGroup, TensorShape};

/// Encodes how `target` differs from `base`, without header and without hash: whoever stores the bytes keeps both.
///
/// # Errors
/// Tensors that do not have these shapes.
pub fn encode_tensors(
    shapes: &[TensorShape],
    base: &[CodeTensor],
    target: &[CodeTensor],
) -> Result<Vec<u8>, CodecError> {
    check_tensor_shapes(shapes, base)?;
    check_tensor_shapes(shapes, target)?;
    for (shape, tensor) in shapes.iter().zip(target) {
        check_tensor_values(shape, tensor)?;
    }
    let mut encoder = Encoder::new(Vec::new());
    code_tensors(&mut encoder, shapes, base, &mut target.to_vec())?;
    Ok(encoder.finish())
}

/// What [`encode_tensors`] was given as `target`. The caller compares the hash of the result with the one it trusts.
///
/// # Errors
/// Tensors that do not have these shapes, or bytes that no encoder wrote.
pub fn apply_tensors(
    shapes: &[TensorShape],
    base: &[CodeTensor],
    bytes: &[u8],
) -> Result<Vec<CodeTensor>, CodecError> {
    check_tensor_shapes(shapes, base)?;
    let mut target = base.to_vec();
    let mut decoder = Decoder::new(bytes);
    code_tensors(&mut decoder, shapes, base, &mut target)?;
    decoder.finish()?;
    Ok(target)
}

/// Both directions. An encoder's `target` is complete; a decoder's starts as the base, with blank rows where the
/// target has more, and becomes the target.
pub(super) fn code_tensors<C: BinaryCoder>(
    coder: &mut C,
    shapes: &[TensorShape],
    base: &[CodeTensor],
    target: &mut [CodeTensor],
) -> Result<(), CodecError> {
    let mut num_others = Number::new();
    let (mut changed, mut fresh) = (PerClass::<ChangedRows>::new(), PerClass::<FreshRows>::new());
    let mut moved_items = BTreeSet::new();
    for ((shape, base_tensor), target_tensor) in shapes.iter().zip(base).zip(target) {
        if shape.num_cols == 0 {
            continue;
        }
        let is_of_items = shape.per_item && shape.group == TensorGroup::Fast;
        let companions = if is_of_items {
            std::mem::take(&mut moved_items)
        } else {
            BTreeSet::new()
        };
        let (others, too): (Vec<usize>, Vec<usize>) = changed_positions(base_tensor, target_tensor)
            .into_iter()
            .partition(|row_idx| !companions.contains(row_idx));
        let num_others = num_others.code(coder, others.len() as u32) as usize; // below NUM_CODES_MAX, fits
        check_limit("number of changed rows", num_others, base_tensor.num_rows)?;
        let mut seen = BTreeSet::new();
        if num_others > 0 || !companions.is_empty() {
            let mut rows = TensorRows {
                rows: changed.enter(shape, base_tensor),
                base: base_tensor,
                target: target_tensor,
                seen: &mut seen,
            };
            rows.code_companions(coder, &companions, &too)?;
            rows.code_others(coder, &mut Positions::new(&others, num_others))?;
        }
        if is_of_items {
            moved_items = companions;
            moved_items.append(&mut seen);
        }
        if base_tensor.num_rows == target_tensor.num_rows {
            continue;
        }
        let rows = fresh.enter(shape);
        for row_idx in base_tensor.num_rows..target_tensor.num_rows {
            rows.code(coder, row_mut(target_tensor, row_idx))?;
        }
    }
    Ok(())
}

/// Rows of the base that are others in the target; what a decoder holds has none yet.
fn changed_positions(base: &CodeTensor, target: &CodeTensor) -> Vec<usize> {
    let is_changed = |row_idx: &usize| {
        base.exponents[*row_idx] != target.exponents[*row_idx]
            || base.row(*row_idx) != target.row(*row_idx)
    };
    (0..base.num_rows).filter(is_changed).collect()
}

/// The rows of one tensor that a base has.
struct TensorRows<'a> {
    rows: &'a mut ChangedRows,
    base: &'a CodeTensor,
    target: &'a mut CodeTensor,
    /// Rows that were coded.
    seen: &'a mut BTreeSet<usize>,
}

impl TensorRows<'_> {
    /// Of the rows that changed in a tensor before, `given` change here too.
    fn code_companions<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        companions: &BTreeSet<usize>,
        given: &[usize],
    ) -> Result<(), CodecError> {
        let mut is_changed_too = Prob::HALF;
        // Items are as many in each of their tensors; where a caller's are not, the rest has no row here.
        for row_idx in companions.range(..self.base.num_rows) {
            let is_given = given.binary_search(row_idx).is_ok();
            if coder.bit(&mut is_changed_too, is_given) {
                self.code_row(coder, *row_idx)?;
            }
        }
        coder.check()
    }

    fn code_others<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        positions: &mut Positions<'_>,
    ) -> Result<(), CodecError> {
        while let Some(row_idx) = positions.code(coder, self.base.num_rows)? {
            self.code_row(coder, row_idx)?;
        }
        Ok(())
    }

    fn code_row<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        row_idx: usize,
    ) -> Result<(), CodecError> {
        let base_row = (self.base.exponents[row_idx], self.base.row(row_idx));
        self.rows
            .code(coder, base_row, row_mut(self.target, row_idx))?;
        self.seen.insert(row_idx);
        Ok(())
    }
}

fn row_mut(tensor: &mut CodeTensor, row_idx: usize) -> RowMut<'_> {
    let codes = row_idx * tensor.num_cols..(row_idx + 1) * tensor.num_cols;
    RowMut {
        exponent: &mut tensor.exponents[row_idx],
        codes: &mut tensor.codes[codes],
    }
}
