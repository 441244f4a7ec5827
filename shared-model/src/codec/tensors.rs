//! Tensors of codes against those of another state of the same shapes.
//!
//! ```text
//! per tensor:
//!   changed rows: number · per row: gap to the row before · exponent change · differences
//!   rows beyond those of the base: as in a snapshot
//! ```
//! A delta holds this behind its header and its items; [`encode_tensors`] and [`apply_tensors`] are it alone, for
//! weights that are no Ranker, such as those of a text encoder.

use super::range_coder::{BinaryCoder, Decoder, Encoder};
use super::rows::{ChangedRows, FreshRows, PerClass, RowMut};
use super::state::{CodeTensor, check_tensor_shapes, check_tensor_values};
use super::symbols::{Number, Positions};
use super::{CodecError, check_limit};
use crate::spec::TensorShape;

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
    let mut num_changed = Number::new();
    let (mut changed, mut fresh) = (PerClass::<ChangedRows>::new(), PerClass::<FreshRows>::new());
    for ((shape, base_tensor), target_tensor) in shapes.iter().zip(base).zip(target) {
        if shape.num_cols == 0 {
            continue;
        }
        let changed_rows = changed_positions(base_tensor, target_tensor);
        let num_changed = num_changed.code(coder, changed_rows.len() as u32) as usize; // below NUM_CODES_MAX, fits
        check_limit("number of changed rows", num_changed, base_tensor.num_rows)?;
        if num_changed > 0 {
            let mut positions = Positions::new(&changed_rows, num_changed);
            let rows = changed.enter(shape, base_tensor);
            code_changed_rows(coder, &mut positions, rows, base_tensor, target_tensor)?;
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

fn code_changed_rows<C: BinaryCoder>(
    coder: &mut C,
    positions: &mut Positions<'_>,
    rows: &mut ChangedRows,
    base: &CodeTensor,
    target: &mut CodeTensor,
) -> Result<(), CodecError> {
    while let Some(row_idx) = positions.code(coder, base.num_rows)? {
        let base_row = (base.exponents[row_idx], base.row(row_idx));
        rows.code(coder, base_row, row_mut(target, row_idx))?;
    }
    Ok(())
}

fn row_mut(tensor: &mut CodeTensor, row_idx: usize) -> RowMut<'_> {
    let codes = row_idx * tensor.num_cols..(row_idx + 1) * tensor.num_cols;
    RowMut {
        exponent: &mut tensor.exponents[row_idx],
        codes: &mut tensor.codes[codes],
    }
}
