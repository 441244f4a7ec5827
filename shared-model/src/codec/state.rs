//! Code state: one model version as integers, its checks and its hash.
//!
//! Comes from a decoder (edge, recovery) or from `compress` (server). The hash covers these canonical bytes,
//! numbers little-endian:
//!
//! ```text
//! "freshet state 1" (15 bytes)
//! spec_len u32 · spec as JSON · encoder_generation u32 · landmark_millis i64
//! num_items u32 · per item: id_len u8 · id · available u8
//! per tensor in the order of the spec: num_rows u32 · num_cols u32 · code_bits u8
//!                                      · exponents i8 × num_rows
//!                                      · codes (i8, or i16 where code_bits is 16) × num_rows × num_cols, row-major
//! ```

mod check;

pub use check::StateError;
pub(super) use check::{
    check_size, check_tensor_shapes, check_tensor_values, code_range, is_exponent_valid,
};

use super::quantize::{EXPONENT_ZERO, dequantize};
use crate::ids::{BlobId, ItemId};
use crate::spec::{ModelSpec, TensorGroup, TensorShape};

/// Most codes of all tensors of a state together: half a gigabyte in memory.
pub const NUM_CODES_MAX: usize = 1 << 28;

/// Decayed counts: their exponent is fixed, and one code means "never".
pub const COUNTS_TENSOR: &str = "item.counts";

/// Item indices: of 16-bit codes, so that catalogues of up to 32,767 items can have neighbours.
pub const NEIGHBOURS_TENSOR: &str = "item.neighbours";

/// Cosines beside [`NEIGHBOURS_TENSOR`], slot by slot.
pub const NEIGHBOUR_WEIGHTS_TENSOR: &str = "item.neighbour_weights";

/// Exponent of every row of [`COUNTS_TENSOR`].
pub const COUNT_EXPONENT: i8 = -5;

/// Code in [`COUNTS_TENSOR`] of an item that was never touched; the minimum of `i16`, used nowhere else.
pub const NEVER_CODE: i16 = i16::MIN;

/// Codes converted and hashed in one go.
const HASH_CHUNK_CODES: usize = 1 << 16;

const HASH_DOMAIN: &[u8; 15] = b"freshet state 1";

/// One catalogue item of a state; its position is its row in every per-item tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemEntry {
    /// Its id, unique within the state.
    pub item_id: ItemId,
    /// Whether it may be recommended.
    pub available: bool,
}

/// Integer codes of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeTensor {
    /// Number of rows.
    pub num_rows: usize,
    /// Row length.
    pub num_cols: usize,
    /// 4, 8 or 16.
    pub code_bits: u8,
    /// `[num_rows]`, powers of two.
    pub exponents: Vec<i8>,
    /// `[num_rows, num_cols]`, row-major, within ± [`code_max`](super::quantize::code_max).
    pub codes: Vec<i16>,
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct CodeState {
    /// Sizes of the model.
    pub spec: ModelSpec,
    /// Which text encoder the content tensors come from.
    pub encoder_generation: u32,
    /// Landmark of the forward-decayed counts.
    pub landmark_millis: i64,
    /// The catalogue, in row order.
    pub items: Vec<ItemEntry>,
    /// In the order of `spec.tensor_shapes(items.len())`.
    pub tensors: Vec<CodeTensor>,
}

impl CodeTensor {
    /// All rows blank; see [`blank_row`].
    #[must_use]
    pub fn blank(shape: &TensorShape) -> Self {
        let (exponent, code) = blank_row(shape);
        Self {
            num_rows: shape.num_rows,
            num_cols: shape.num_cols,
            code_bits: shape.code_bits,
            exponents: vec![exponent; shape.num_rows],
            codes: vec![code; shape.num_rows * shape.num_cols],
        }
    }

    /// Codes of one row, `[num_cols]`.
    #[must_use]
    pub fn row(&self, row_idx: usize) -> &[i16] {
        &self.codes[row_idx * self.num_cols..(row_idx + 1) * self.num_cols]
    }

    /// Mutable twin of [`Self::row`].
    pub fn row_mut(&mut self, row_idx: usize) -> &mut [i16] {
        &mut self.codes[row_idx * self.num_cols..(row_idx + 1) * self.num_cols]
    }

    /// All values, `[num_rows, num_cols]`, row-major.
    #[must_use]
    pub fn dequantize(&self) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.codes.len());
        for row_idx in 0..self.num_rows {
            let exponent = self.exponents[row_idx];
            values.extend(
                self.row(row_idx)
                    .iter()
                    .map(|code| dequantize(*code, exponent)),
            );
        }
        values
    }

    /// Values of one row, `[num_cols]`.
    #[must_use]
    pub fn dequantize_row(&self, row_idx: usize) -> Vec<f32> {
        let exponent = self.exponents[row_idx];
        self.row(row_idx)
            .iter()
            .map(|code| dequantize(*code, exponent))
            .collect()
    }

    /// Appends blank rows until the tensor has the rows of `shape`.
    fn grow(&mut self, shape: &TensorShape) {
        let (exponent, code) = blank_row(shape);
        self.num_rows = shape.num_rows;
        self.exponents.resize(shape.num_rows, exponent);
        self.codes.resize(shape.num_rows * shape.num_cols, code);
    }
}

/// Exponent and code of a row that nothing is known about: zeros, or "never" for the counts.
#[must_use]
pub fn blank_row(shape: &TensorShape) -> (i8, i16) {
    if shape.name == COUNTS_TENSOR {
        (COUNT_EXPONENT, NEVER_CODE)
    } else {
        (EXPONENT_ZERO, 0)
    }
}

impl CodeState {
    /// No items, all codes 0, exponents [`EXPONENT_ZERO`].
    #[must_use]
    pub fn empty(spec: ModelSpec) -> Self {
        let tensors = spec
            .tensor_shapes(0)
            .iter()
            .map(CodeTensor::blank)
            .collect();
        Self {
            spec,
            encoder_generation: 0,
            landmark_millis: 0,
            items: Vec::new(),
            tensors,
        }
    }

    /// Appends items with blank rows. Duplicates are found by [`Self::check`].
    pub fn append_items(&mut self, items: impl IntoIterator<Item = ItemEntry>) {
        self.items.extend(items);
        self.grow_tensors();
    }

    /// Appends blank rows to the per-item tensors until there is one per item.
    pub(super) fn grow_tensors(&mut self) {
        let shapes = self.spec.tensor_shapes(self.items.len());
        for (shape, tensor) in shapes.iter().zip(&mut self.tensors) {
            if tensor.num_rows < shape.num_rows {
                tensor.grow(shape);
            }
        }
    }

    /// Names and shapes, parallel to `tensors`.
    #[must_use]
    pub fn shapes(&self) -> Vec<TensorShape> {
        self.spec.tensor_shapes(self.items.len())
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&CodeTensor> {
        self.tensors.get(self.spec.tensor_idx(name)?)
    }

    /// Mutable twin of [`Self::tensor`].
    pub fn tensor_mut(&mut self, name: &str) -> Option<&mut CodeTensor> {
        let tensor_idx = self.spec.tensor_idx(name)?;
        self.tensors.get_mut(tensor_idx)
    }

    /// Bytes of the codes of fast and slow tensors; what a plain copy of the learned part would need, two 4-bit codes in a byte.
    #[must_use]
    pub fn learned_code_bytes(&self) -> usize {
        let pairs = self.shapes().into_iter().zip(&self.tensors);
        let learned = pairs.filter(|(shape, _)| match shape.group {
            TensorGroup::Fast | TensorGroup::Slow => true,
            TensorGroup::Content | TensorGroup::Neighbours => false,
        });
        learned
            .map(|(_, tensor)| (tensor.codes.len() * usize::from(tensor.code_bits)).div_ceil(8))
            .sum()
    }

    /// BLAKE3 of the canonical bytes; see the module documentation.
    #[must_use]
    pub fn hash(&self) -> BlobId {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = Vec::with_capacity(2 * HASH_CHUNK_CODES);
        let spec = serde_json::to_vec(&self.spec).expect("a struct of numbers always serializes");
        bytes.extend_from_slice(HASH_DOMAIN);
        push_len(&mut bytes, spec.len());
        bytes.extend_from_slice(&spec);
        bytes.extend_from_slice(&self.encoder_generation.to_le_bytes());
        bytes.extend_from_slice(&self.landmark_millis.to_le_bytes());
        push_len(&mut bytes, self.items.len());
        for item in &self.items {
            let id = item.item_id.as_str().as_bytes();
            bytes.push(id.len() as u8); // at most ID_BYTES_MAX = 128, fits
            bytes.extend_from_slice(id);
            bytes.push(u8::from(item.available));
            flush_if_large(&mut hasher, &mut bytes);
        }
        for tensor in &self.tensors {
            push_len(&mut bytes, tensor.num_rows);
            push_len(&mut bytes, tensor.num_cols);
            bytes.push(tensor.code_bits);
            bytes.extend(tensor.exponents.iter().map(|exponent| *exponent as u8)); // two's complement
            flush_if_large(&mut hasher, &mut bytes);
            hash_codes(&mut hasher, &mut bytes, tensor);
        }
        hasher.update(&bytes);
        BlobId(*hasher.finalize().as_bytes())
    }
}

fn push_len(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend_from_slice(&(len as u32).to_le_bytes()); // every length of a state is below NUM_CODES_MAX = 2^28
}

/// BLAKE3 is fast on large slices only.
fn flush_if_large(hasher: &mut blake3::Hasher, bytes: &mut Vec<u8>) {
    if bytes.len() >= HASH_CHUNK_CODES {
        hasher.update(bytes);
        bytes.clear();
    }
}

fn hash_codes(hasher: &mut blake3::Hasher, bytes: &mut Vec<u8>, tensor: &CodeTensor) {
    for codes in tensor.codes.chunks(HASH_CHUNK_CODES) {
        if tensor.code_bits == 16 {
            bytes.extend(codes.iter().flat_map(|code| code.to_le_bytes()));
        } else {
            bytes.extend(codes.iter().map(|code| *code as u8)); // −127 to 127: the low byte is the code
        }
        flush_if_large(hasher, bytes);
    }
}

#[cfg(test)]
mod tests;
