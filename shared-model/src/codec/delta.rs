//! Delta: the lossless difference between the code states of two versions.
//!
//! ```text
//! offset  bytes
//!      0      4  magic "FRDL"
//!      4      1  FORMAT_VERSION
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
//!                    changed rows: number · per row: gap to the row before · exponent change · differences
//!                    rows of new items: as in a snapshot
//! ```
//! Numbers, ids and rows are coded as `symbols` and `rows` say. Spec, encoder generation and the items of the base
//! stay: where they change, a snapshot is due.
//! Not here: which codes change (`compress`), which deltas are offered (`publish`).

use std::collections::HashSet;

use super::range_coder::{BinaryCoder, Decoder, Encoder, Prob};
use super::rows::{ChangedRows, FreshRows, PerClass, RowMut};
use super::state::{CodeState, CodeTensor, ItemEntry, StateError, check_size};
use super::symbols::{ItemIds, Number, code_i64};
use super::{BLOB_BYTES_MAX, CodecError, FORMAT_VERSION, check_limit, check_seal, seal};
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
    if format_version != FORMAT_VERSION {
        return Err(CodecError::FormatVersion {
            actual: format_version,
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
    bytes.push(FORMAT_VERSION);
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

    let mut num_changed = Number::new();
    let (mut changed, mut fresh) = (PerClass::<ChangedRows>::new(), PerClass::<FreshRows>::new());
    for (tensor_idx, shape) in target.shapes().iter().enumerate() {
        let (base_tensor, target_tensor) =
            (&base.tensors[tensor_idx], &mut target.tensors[tensor_idx]);
        if shape.num_cols == 0 {
            continue;
        }
        let changed_rows = changed_positions(base_tensor, target_tensor);
        let num_changed = num_changed.code(coder, changed_rows.len() as u32) as usize; // below NUM_CODES_MAX, fits
        check_limit("number of changed rows", num_changed, base_tensor.num_rows)?;
        if num_changed > 0 {
            let mut positions = Positions::new(&changed_rows, num_changed);
            code_changed_rows(
                coder,
                &mut positions,
                changed.enter(shape),
                base_tensor,
                target_tensor,
            )?;
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

/// Ascending positions as gaps. An encoder is given all of them, a decoder none, but their number.
struct Positions<'a> {
    given: &'a [usize],
    num_left: usize,
    gap: Number,
    next: usize,
}

impl<'a> Positions<'a> {
    fn new(given: &'a [usize], num_positions: usize) -> Self {
        Self {
            given,
            num_left: num_positions,
            gap: Number::new(),
            next: 0,
        }
    }

    /// The next position, below `len`; `None` after the last.
    fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        len: usize,
    ) -> Result<Option<usize>, CodecError> {
        if self.num_left == 0 {
            return Ok(None);
        }
        self.num_left -= 1;
        let mut gap = 0;
        if let Some((position, rest)) = self.given.split_first() {
            gap = position - self.next;
            self.given = rest;
        }
        let gap = self.gap.code(coder, gap as u32) as usize; // below NUM_CODES_MAX, fits
        let position = self.next.saturating_add(gap);
        if position >= len {
            return Err(CodecError::Corrupt {
                what: "position beyond the end",
            });
        }
        self.next = position + 1;
        coder.check()?;
        Ok(Some(position))
    }
}
