//! Item vectors on a GPU: rows in buckets, and codes that travel as codes.
//!
//! A GPU compiles kernels for shapes, and the browser's runtime keeps a buffer for every size that it has seen.
//! So rows are padded with zeros to a bucket: a catalogue that grows by an item keeps its shapes.
//!
//! ```text
//! item.text     i8, a block of rows ─┐ 4 codes in a word   on the device: · 2^exponent, · P
//!                                    ├──────────────────▶  content  f32 [num_rows, dim] ─┐
//! item.id_rows  i8, all rows        ─┘                     e        f32 [num_rows, dim] ─┴▶ v = norm(content + e)
//! ```
//! Of a text the device keeps what it was projected to, `dim` numbers; its row is there for the time of its block.

use std::ops::Range;

use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::super::named;
use crate::codec::quantize::dequantize;
use crate::codec::state::{CodeState, CodeTensor};
use crate::model::ranker::{Ranker, matrix};

/// Rows of texts on the device at a time; every bucket is a multiple.
const BLOCK_ROWS: usize = 256;
/// Buckets between a power of two and the next, so that an eighth at most is padding.
const BUCKETS_PER_DOUBLING: usize = 8;
/// A shader reads words of 32 bits.
const CODES_PER_WORD: usize = 4;
/// Fewest rows that are read at once.
const PICKED_ROWS_MIN: usize = 16;

/// Rows on the device for so many items.
pub(super) fn num_rows(num_items: usize) -> usize {
    let power = num_items.max(1).next_power_of_two() / 2;
    let step = (power / BUCKETS_PER_DOUBLING).max(BLOCK_ROWS);
    num_items.max(1).next_multiple_of(step)
}

/// Rows that are read for so many.
pub(super) fn num_picked(num_rows: usize) -> usize {
    num_rows.next_power_of_two().max(PICKED_ROWS_MIN)
}

/// Row indices of a pick, with row 0 behind them up to a bucket.
pub(super) fn picked(item_idxs: &[u32]) -> Vec<i32> {
    let mut rows: Vec<i32> = item_idxs.iter().map(|idx| *idx as i32).collect(); // fits: NUM_ITEMS_MAX is 2^20
    rows.resize(num_picked(rows.len()), 0);
    rows
}

/// `rows` with zeros behind them, `[num_rows, dim]`.
pub(super) fn padded(rows: Tensor<2>, num_rows: usize) -> Tensor<2> {
    let [num_known, dim] = rows.dims();
    if num_known == num_rows {
        return rows;
    }
    let blank = Tensor::zeros([num_rows, dim], &rows.device());
    blank.slice_assign([0..num_known, 0..dim], rows)
}

/// Content vectors of all items, `[num_rows, dim]`; those of the first `num_known` are in `known`.
pub(super) fn content(
    ranker: &Ranker,
    state: &CodeState,
    known: Option<&Tensor<2>>,
    num_known: usize,
) -> Option<Tensor<2>> {
    let (text, features) = (named(state, "item.text"), named(state, "item.features"));
    if text.num_cols + features.num_cols == 0 {
        return None;
    }
    if num_known == state.items.len() {
        return known.cloned();
    }
    let (num_rows, dim, device) = (num_rows(state.items.len()), ranker.dim(), ranker.device());
    let known = match known {
        Some(known) => padded(known.clone(), num_rows),
        None => Tensor::zeros([num_rows, dim], device),
    };
    // Held until the end, so that blocks are written into a copy when a version is new as when a catalogue grows:
    // copying is a kernel too, compiled the first time.
    let mut content = known.clone();
    let first_block = num_known / BLOCK_ROWS * BLOCK_ROWS;
    for first in (first_block..state.items.len()).step_by(BLOCK_ROWS) {
        let items = first..state.items.len().min(first + BLOCK_ROWS);
        let rows = |tensor| code_rows(tensor, items.clone(), BLOCK_ROWS, device);
        let block = ranker.content_vectors(rows(text), rows(features))?;
        content = content.slice_assign([first..first + BLOCK_ROWS, 0..dim], block);
    }
    Some(content)
}

/// Id rows of all items, `[num_rows, dim]`.
pub(super) fn id_rows(state: &CodeState, device: &Device) -> Tensor<2> {
    let (tensor, num_items) = (named(state, "item.id_rows"), state.items.len());
    code_rows(tensor, 0..num_items, num_rows(num_items), device).expect("vectors have a width")
}

/// Some rows as numbers with zeros behind them; absent where the tensor has no columns.
///
/// # Shapes
/// → `[num_rows, num_cols]`
fn code_rows(
    tensor: &CodeTensor,
    rows: Range<usize>,
    num_rows: usize,
    device: &Device,
) -> Option<Tensor<2>> {
    let num_cols = tensor.num_cols;
    if num_cols == 0 {
        return None;
    }
    // A row that ends inside of a word is padded too; the columns are cut off again.
    let stride = num_cols.next_multiple_of(CODES_PER_WORD);
    let mut codes = vec![0_i8; num_rows * stride];
    let mut scales = vec![0.0_f32; num_rows];
    for (row, row_idx) in rows.enumerate() {
        scales[row] = dequantize(1, tensor.exponents[row_idx]);
        for (to, code) in codes[row * stride..].iter_mut().zip(tensor.row(row_idx)) {
            *to = *code as i8; // ±127 where codes have 4 or 8 bits
        }
    }
    let scheme = QuantScheme::default()
        .with_value(QuantValue::Q8S)
        .with_store(QuantStore::PackedU32(0))
        .per_tensor(ScaleDtype::F32);
    let codes = TensorData::quantized(codes, [num_rows, stride], scheme, &[1.0], None);
    let codes = Tensor::<2>::from_data(codes, (device, DType::QFloat(scheme))).dequantize();
    let values = codes * matrix(&scales, num_rows, 1, device);
    Some(if stride == num_cols {
        values
    } else {
        values.slice([0..num_rows, 0..num_cols])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_all_items_and_little_more() {
        for num_items in [
            0,
            1,
            255,
            256,
            257,
            2048,
            2049,
            4000,
            10_000,
            100_001,
            1 << 20,
        ] {
            let rows = num_rows(num_items);
            assert!(rows >= num_items, "{num_items} items in {rows} rows");
            assert_eq!(rows % BLOCK_ROWS, 0);
            let padding_max = BLOCK_ROWS.max(num_items / BUCKETS_PER_DOUBLING);
            assert!(
                rows - num_items <= padding_max,
                "{rows} rows for {num_items}"
            );
        }
        assert_eq!(
            num_rows(10_000),
            num_rows(10_001),
            "an item more keeps the shape"
        );
    }

    #[test]
    fn a_pick_has_few_lengths() {
        assert_eq!(picked(&[7]).len(), picked(&[1, 2, 3]).len());
        assert_eq!(picked(&[7])[..2], [7, 0]);
        assert_eq!(picked(&[1; 17]).len(), 32);
    }
}
