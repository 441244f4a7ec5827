//! Snapshot: the whole code state of one version, from which the model is built without anything else.
//!
//! ```text
//! offset  bytes
//!      0      4  magic "FRSN"
//!      4      1  SNAPSHOT_FORMAT_VERSION
//!      5      4  checksum of everything else
//!      9      8  version, u64 little-endian
//!     17     32  hash of the state
//!     49      4  encoder generation, u32 little-endian
//!     53      8  landmark in milliseconds, i64 little-endian
//!     61      4  number of items, u32 little-endian
//!     65      2  length of the spec, u16 little-endian
//!     67      n  spec as JSON
//!   67+n         range-coded body to the end:
//!                  per item: id · available?
//!                  per tensor of the spec: its rows
//! ```
//! Ids and rows are coded as `symbols` and `rows` say. Layout 1, in which no row is predicted, is read too: servers and
//! pages hold what an earlier release wrote.

use super::range_coder::{BinaryCoder, Decoder, Encoder, Prob};
use super::rows::{FreshRows, PerClass, PredictedRows, RowMut};
use super::state::{CodeState, CodeTensor, ItemEntry, check_size};
use super::symbols::ItemIds;
use super::{BLOB_BYTES_MAX, CodecError, SNAPSHOT_FORMAT_VERSION, check_limit, check_seal, seal};
use crate::ids::{BlobId, Version};
use crate::spec::ModelSpec;

/// Longest spec accepted, as JSON.
pub const SPEC_BYTES_MAX: usize = 1024;

const MAGIC: &[u8; 4] = b"FRSN";
const FIXED_BYTES: usize = 67;
/// The layout before rows were predicted.
const UNPREDICTED: u8 = 1;

const _: () = assert!(FIXED_BYTES == MAGIC.len() + 1 + 4 + 8 + 32 + 4 + 8 + 4 + 2);

/// Encodes a state as small as it gets; looking for what foretells its texts takes up to a second.
///
/// # Errors
/// The state breaks a rule; see [`CodeState::check`].
pub fn encode_snapshot(state: &CodeState, version: Version) -> Result<Vec<u8>, CodecError> {
    encode(state, version, PredictedRows::encode)
}

/// Encodes a state at once, some percent larger: for pages, which keep it and send it to nobody.
///
/// # Errors
/// See [`encode_snapshot`].
pub fn encode_snapshot_at_once(state: &CodeState, version: Version) -> Result<Vec<u8>, CodecError> {
    encode(state, version, PredictedRows::encode_at_once)
}

fn encode(
    state: &CodeState,
    version: Version,
    encode_predicted: fn(&mut PredictedRows, &mut Encoder, &CodeTensor) -> Result<(), CodecError>,
) -> Result<Vec<u8>, CodecError> {
    state.check()?;
    let spec = serde_json::to_vec(&state.spec).expect("a struct of numbers always serializes");
    check_limit("spec bytes", spec.len(), SPEC_BYTES_MAX)?;
    let mut bytes = Vec::with_capacity(FIXED_BYTES + spec.len() + state.learned_code_bytes());
    bytes.extend_from_slice(MAGIC);
    bytes.push(SNAPSHOT_FORMAT_VERSION);
    bytes.extend_from_slice(&[0; 4]); // see `seal`
    bytes.extend_from_slice(&version.0.to_le_bytes());
    bytes.extend_from_slice(&state.hash().0);
    bytes.extend_from_slice(&state.encoder_generation.to_le_bytes());
    bytes.extend_from_slice(&state.landmark_millis.to_le_bytes());
    bytes.extend_from_slice(&(state.items.len() as u32).to_le_bytes()); // at most NUM_ITEMS_MAX, fits
    bytes.extend_from_slice(&(spec.len() as u16).to_le_bytes()); // at most SPEC_BYTES_MAX, fits
    bytes.extend_from_slice(&spec);

    let mut encoder = Encoder::new(bytes);
    code_items(&mut encoder, state.items.len(), &mut state.items.clone())?;
    let mut models = PerClass::<FreshRows>::new();
    for (shape, tensor) in state.shapes().iter().zip(&state.tensors) {
        if let Some(mut rows) = PredictedRows::new(shape) {
            encode_predicted(&mut rows, &mut encoder, tensor)?;
            continue;
        }
        let rows = models.enter(shape);
        let mut codes = vec![0; shape.num_cols];
        for (row_idx, exponent) in tensor.exponents.iter().enumerate() {
            let mut exponent = *exponent;
            codes.copy_from_slice(tensor.row(row_idx));
            code_row(&mut encoder, rows, &mut exponent, &mut codes)?;
        }
    }
    Ok(seal(encoder.finish()))
}

/// Decodes a state; its hash is checked last.
///
/// # Errors
/// Bytes that no encoder wrote.
pub fn decode_snapshot(bytes: &[u8]) -> Result<(Version, CodeState), CodecError> {
    check_limit("snapshot bytes", bytes.len(), BLOB_BYTES_MAX)?;
    let header = read_header(bytes)?;
    check_size(&header.spec, header.num_items)?;
    let mut decoder = Decoder::new(header.body);
    let mut items = Vec::new();
    code_items(&mut decoder, header.num_items, &mut items)?;
    let shapes = header.spec.tensor_shapes(header.num_items);
    let mut models = PerClass::<FreshRows>::new();
    let mut tensors = Vec::with_capacity(shapes.len());
    for shape in &shapes {
        let mut tensor = CodeTensor::blank(shape);
        let predicted = PredictedRows::new(shape).filter(|_| header.layout != UNPREDICTED);
        if let Some(mut rows) = predicted {
            rows.decode(&mut decoder, &mut tensor)?;
        } else {
            let rows = models.enter(shape);
            for row_idx in 0..shape.num_rows {
                let mut exponent = tensor.exponents[row_idx];
                code_row(&mut decoder, rows, &mut exponent, tensor.row_mut(row_idx))?;
                tensor.exponents[row_idx] = exponent;
            }
        }
        tensors.push(tensor);
    }
    decoder.finish()?;
    let state = CodeState {
        spec: header.spec,
        encoder_generation: header.encoder_generation,
        landmark_millis: header.landmark_millis,
        items,
        tensors,
    };
    state.check()?;
    let actual = state.hash();
    if actual != header.state {
        return Err(CodecError::WrongTarget {
            expected: header.state,
            actual,
        });
    }
    Ok((header.version, state))
}

struct Header<'a> {
    layout: u8,
    version: Version,
    state: BlobId,
    encoder_generation: u32,
    landmark_millis: i64,
    num_items: usize,
    spec: ModelSpec,
    body: &'a [u8],
}

fn read_header(bytes: &[u8]) -> Result<Header<'_>, CodecError> {
    let mut rest = bytes;
    if take::<4>(&mut rest)? != *MAGIC {
        return Err(CodecError::Magic {
            expected: "snapshot",
        });
    }
    let [layout] = take(&mut rest)?;
    if layout != SNAPSHOT_FORMAT_VERSION && layout != UNPREDICTED {
        return Err(CodecError::FormatVersion {
            actual: layout,
            expected: SNAPSHOT_FORMAT_VERSION,
        });
    }
    check_seal(bytes)?;
    let _checksum: [u8; 4] = take(&mut rest)?;
    let version = Version(u64::from_le_bytes(take(&mut rest)?));
    let state = BlobId(take(&mut rest)?);
    let encoder_generation = u32::from_le_bytes(take(&mut rest)?);
    let landmark_millis = i64::from_le_bytes(take(&mut rest)?);
    let num_items = u32::from_le_bytes(take(&mut rest)?) as usize; // 32 bits fit usize on wasm32 and above
    let spec_len = usize::from(u16::from_le_bytes(take(&mut rest)?));
    check_limit("spec bytes", spec_len, SPEC_BYTES_MAX)?;
    let (spec, body) = rest
        .split_at_checked(spec_len)
        .ok_or(CodecError::Truncated)?;
    let spec: ModelSpec = serde_json::from_slice(spec).map_err(|_| CodecError::Corrupt {
        what: "spec is not the JSON of one",
    })?;
    Ok(Header {
        layout,
        version,
        state,
        encoder_generation,
        landmark_millis,
        num_items,
        spec,
        body,
    })
}

fn take<const LEN: usize>(rest: &mut &[u8]) -> Result<[u8; LEN], CodecError> {
    let (chunk, left) = rest
        .split_first_chunk::<LEN>()
        .ok_or(CodecError::Truncated)?;
    *rest = left;
    Ok(*chunk)
}

/// An encoder is given all items, a decoder none.
fn code_items<C: BinaryCoder>(
    coder: &mut C,
    num_items: usize,
    items: &mut Vec<ItemEntry>,
) -> Result<(), CodecError> {
    let mut ids = ItemIds::new();
    let mut is_available = Prob::new(31, 32, 4);
    for item_idx in 0..num_items {
        let given = items.get(item_idx);
        let item_id = ids.code(coder, given.map(|item| &item.item_id))?;
        let available = coder.bit(&mut is_available, given.is_some_and(|item| item.available));
        coder.check()?;
        if item_idx == items.len() {
            items.push(ItemEntry { item_id, available });
        }
    }
    Ok(())
}

fn code_row<C: BinaryCoder>(
    coder: &mut C,
    rows: &mut FreshRows,
    exponent: &mut i8,
    codes: &mut [i16],
) -> Result<(), CodecError> {
    if codes.is_empty() {
        return Ok(());
    }
    rows.code(coder, RowMut { exponent, codes })
}
