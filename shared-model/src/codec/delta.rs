//! Delta: the lossless difference between the code states of two versions.
//!
//! ```text
//! offset  bytes
//!      0      4  magic "FRDL"
//!      4      1  DELTA_FORMAT_VERSION
//!      5      4  checksum of everything else
//!      9      8  base version, u64 little-endian
//!     17      8  target version, u64 little-endian
//!     25     32  hash of the base state
//!     57     32  hash of the target state
//!     89         range-coded body to the end:
//!                  landmark: changed? · i64
//!                  new items: number · per item: id · available?
//!                  availability flips: number · gaps between the rows flipped
//!                  per tensor of the spec:
//!                    changed rows: as `tensors` says; per row: exponent change · differences
//!                    rows of new items: as in a snapshot
//! ```
//! Numbers, ids and rows are coded as `symbols` and `rows` say. Spec, encoder generation and the items of the base
//! stay: where they change, a snapshot is due.
//! Not here: which codes change (`compress`), which deltas are offered (`publish`).

use std::collections::HashSet;

use super::range_coder::{BinaryCoder, Decoder, Encoder, Prob};
use super::state::{CodeState, ItemEntry, StateError, check_size};
use super::symbols::{ItemIds, Number, Positions, code_i64};
use super::tensors::code_tensors;
use super::{BLOB_BYTES_MAX, CodecError, DELTA_FORMAT_VERSION, check_limit, check_seal, seal};
use crate::ids::{BlobId, Version};
use crate::spec::NUM_ITEMS_MAX;

/// Length of the header in clear.
pub const DELTA_HEADER_BYTES: usize = 89;

const MAGIC: &[u8; 4] = b"FRDL";

const _: () = assert!(DELTA_HEADER_BYTES == MAGIC.len() + 1 + 4 + 2 * 8 + 2 * 32);

/// What a delta leads from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaHeader {
    /// Version it starts from.
    pub base_version: Version,
    /// Version it leads to.
    pub target_version: Version,
    /// Hash of the base state.
    pub base: BlobId,
    /// Hash of the target state.
    pub target: BlobId,
}

/// Encodes how `target` differs from `base`.
///
/// # Errors
/// The target breaks a rule of states, or a delta cannot say the change and a snapshot is due.
pub fn encode_delta(
    base: &CodeState,
    base_version: Version,
    target: &CodeState,
    target_version: Version,
) -> Result<Vec<u8>, CodecError> {
    if target_version <= base_version {
        return Err(CodecError::VersionOrder {
            base: base_version,
            target: target_version,
        });
    }
    base.check_shapes()?;
    target.check()?;
    check_same_model(base, target)?;
    let header = DeltaHeader {
        base_version,
        target_version,
        base: base.hash(),
        target: target.hash(),
    };
    let mut encoder = Encoder::new(header_bytes(&header));
    let mut copy = target.clone();
    code_body(&mut encoder, base, &mut copy)?;
    Ok(seal(encoder.finish()))
}

/// Reads the header alone, without checking the rest.
///
/// # Errors
/// These bytes are no delta of this format version.
pub fn read_delta_header(bytes: &[u8]) -> Result<DeltaHeader, CodecError> {
    let magic = bytes.first_chunk::<4>().ok_or(CodecError::Truncated)?;
    if magic != MAGIC {
        return Err(CodecError::Magic { expected: "delta" });
    }
    let format_version = bytes
        .get(MAGIC.len())
        .copied()
        .ok_or(CodecError::Truncated)?;
    if format_version != DELTA_FORMAT_VERSION {
        return Err(CodecError::FormatVersion {
            actual: format_version,
            expected: DELTA_FORMAT_VERSION,
        });
    }
    let header = bytes
        .first_chunk::<DELTA_HEADER_BYTES>()
        .ok_or(CodecError::Truncated)?;
    let version_at = |offset: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[offset..offset + 8]);
        Version(u64::from_le_bytes(bytes))
    };
    let hash_at = |offset: usize| {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&header[offset..offset + 32]);
        BlobId(bytes)
    };
    let header = DeltaHeader {
        base_version: version_at(9),
        target_version: version_at(17),
        base: hash_at(25),
        target: hash_at(57),
    };
    if header.target_version <= header.base_version {
        return Err(CodecError::VersionOrder {
            base: header.base_version,
            target: header.target_version,
        });
    }
    Ok(header)
}

/// The target of a delta from `base`. The hash of the base is checked first, that of the target last.
///
/// # Errors
/// Another base, or bytes that no encoder wrote; nothing is returned then.
pub fn apply_delta(base: &CodeState, bytes: &[u8]) -> Result<CodeState, CodecError> {
    read_delta_header(bytes)?;
    apply_delta_to(base, base.hash(), bytes)
}

/// [`apply_delta`] for a caller who already knows the hash of `base`.
///
/// # Errors
/// See [`apply_delta`].
pub fn apply_delta_to(
    base: &CodeState,
    base_hash: BlobId,
    bytes: &[u8],
) -> Result<CodeState, CodecError> {
    check_limit("delta bytes", bytes.len(), BLOB_BYTES_MAX)?;
    let header = read_delta_header(bytes)?;
    check_seal(bytes)?;
    if header.base != base_hash {
        return Err(CodecError::WrongBase {
            expected: header.base,
            actual: base_hash,
        });
    }
    base.check_shapes()?;
    let mut target = base.clone();
    let mut decoder = Decoder::new(&bytes[DELTA_HEADER_BYTES..]); // the header was read
    code_body(&mut decoder, base, &mut target)?;
    decoder.finish()?;
    let actual = target.hash();
    if actual != header.target {
        return Err(CodecError::WrongTarget {
            expected: header.target,
            actual,
        });
    }
    Ok(target)
}

fn header_bytes(header: &DeltaHeader) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(MAGIC);
    bytes.push(DELTA_FORMAT_VERSION);
    bytes.extend_from_slice(&[0; 4]); // see `seal`
    bytes.extend_from_slice(&header.base_version.0.to_le_bytes());
    bytes.extend_from_slice(&header.target_version.0.to_le_bytes());
    bytes.extend_from_slice(&header.base.0);
    bytes.extend_from_slice(&header.target.0);
    bytes
}

fn check_same_model(base: &CodeState, target: &CodeState) -> Result<(), CodecError> {
    if base.spec != target.spec {
        return Err(CodecError::SpecChanged {
            base: base.spec.spec_hash(),
            target: target.spec.spec_hash(),
        });
    }
    if base.encoder_generation != target.encoder_generation {
        let (base, target) = (base.encoder_generation, target.encoder_generation);
        return Err(CodecError::EncoderGenerationChanged { base, target });
    }
    for (item_idx, item) in base.items.iter().enumerate() {
        let is_same = target
            .items
            .get(item_idx)
            .is_some_and(|target| target.item_id == item.item_id);
        if !is_same {
            return Err(CodecError::ItemsChanged { item_idx });
        }
    }
    Ok(())
}

/// Both directions. An encoder's `target` is complete; a decoder's starts as the base and becomes the target.
fn code_body<C: BinaryCoder>(
    coder: &mut C,
    base: &CodeState,
    target: &mut CodeState,
) -> Result<(), CodecError> {
    let is_moved = base.landmark_millis != target.landmark_millis;
    if coder.bit(&mut Prob::new(1, 16, 0), is_moved) {
        target.landmark_millis = code_i64(coder, target.landmark_millis);
    }
    code_new_items(coder, base, target)?;
    code_flips(coder, base, target)?;
    target.grow_tensors();

    let shapes = target.shapes();
    code_tensors(coder, &shapes, &base.tensors, &mut target.tensors)
}

fn code_new_items<C: BinaryCoder>(
    coder: &mut C,
    base: &CodeState,
    target: &mut CodeState,
) -> Result<(), CodecError> {
    let num_base = base.items.len();
    let num_new = target.items.len() - num_base;
    let num_new = Number::new().code(coder, num_new as u32) as usize; // at most NUM_ITEMS_MAX, fits
    check_limit(
        "number of new items",
        num_new,
        NUM_ITEMS_MAX - num_base.min(NUM_ITEMS_MAX),
    )?;
    if num_new == 0 {
        return Ok(());
    }
    check_size(&base.spec, num_base + num_new)?;
    let mut ids = ItemIds::new();
    let mut is_available = Prob::new(31, 32, 4);
    let mut seen: HashSet<_> = base.items.iter().map(|item| item.item_id.clone()).collect();
    for item_idx in num_base..num_base + num_new {
        let given = target.items.get(item_idx);
        let item_id = ids.code(coder, given.map(|item| &item.item_id))?;
        let available = coder.bit(&mut is_available, given.is_some_and(|item| item.available));
        coder.check()?;
        if !seen.insert(item_id.clone()) {
            return Err(CodecError::State(StateError::DuplicateItem { item_id }));
        }
        if item_idx == target.items.len() {
            target.items.push(ItemEntry { item_id, available });
        }
    }
    Ok(())
}

fn code_flips<C: BinaryCoder>(
    coder: &mut C,
    base: &CodeState,
    target: &mut CodeState,
) -> Result<(), CodecError> {
    let pairs = base.items.iter().zip(&target.items).enumerate();
    let flips = pairs
        .filter(|(_, (base, target))| base.available != target.available)
        .map(|(idx, _)| idx);
    let flips: Vec<usize> = flips.collect();
    let num_flips = Number::new().code(coder, flips.len() as u32) as usize; // at most NUM_ITEMS_MAX, fits
    check_limit("number of availability flips", num_flips, base.items.len())?;
    let mut positions = Positions::new(&flips, num_flips);
    while let Some(item_idx) = positions.code(coder, base.items.len())? {
        target.items[item_idx].available = !base.items[item_idx].available;
    }
    Ok(())
}
