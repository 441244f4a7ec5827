//! The integer truth: code states, their quantizer, and the wire formats of deltas and snapshots.
//!
//! Nothing here sees burn, floats enter and leave only in `quantize` and `state`.
//!
//! ```text
//! delta, snapshot   layouts of the two blobs, limits, hashes
//!   tensors         what differs between the tensors of two states
//!   rows            what a row of codes looks like: contexts and predictors
//!     symbols       numbers, bit trees and identifiers as binary decisions
//!       range_coder binary decisions as bytes
//! ```

pub mod quantize;
pub mod state;

pub mod range_coder;
mod rows;
mod symbols;

pub mod delta;
pub mod snapshot;
pub mod tensors;

use crate::ids::{BlobId, IdError, Version};
use state::StateError;

/// Version of the layout of deltas; a layout change needs a new number and new golden files.
pub const DELTA_FORMAT_VERSION: u8 = 3;

/// Version of the layout of snapshots, likewise; the one before is read too.
pub const SNAPSHOT_FORMAT_VERSION: u8 = 2;

/// Largest delta or snapshot that is decoded, in bytes.
pub const BLOB_BYTES_MAX: usize = 1 << 29;

/// Why bytes were not encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The first bytes name neither format, or the other one.
    #[error("not a freshet {expected}")]
    Magic {
        /// What was to be read.
        expected: &'static str,
    },
    /// Written by another format version.
    #[error("format version {actual} is not supported, expected {expected}")]
    FormatVersion {
        /// The version found.
        actual: u8,
        /// The version that is read and written.
        expected: u8,
    },
    /// Damaged on the way.
    #[error("the checksum does not match")]
    Checksum,
    /// The bytes end too early.
    #[error("the bytes end too early")]
    Truncated,
    /// The bytes go on after the end.
    #[error("bytes follow after the end")]
    TrailingBytes,
    /// A count or length above its limit.
    #[error("{what} is {actual}, at most {max} is allowed")]
    Limit {
        /// Which count.
        what: &'static str,
        /// Its value.
        actual: u64,
        /// The limit.
        max: u64,
    },
    /// A decoded value that no encoder writes.
    #[error("corrupt bytes: {what}")]
    Corrupt {
        /// Which value.
        what: &'static str,
    },
    /// A decoded item id that is none.
    #[error("corrupt bytes: item id: {0}")]
    ItemId(#[from] IdError),
    /// The delta starts from another state.
    #[error("the delta starts from state {expected}, the base is {actual}")]
    WrongBase {
        /// Base named by the delta.
        expected: BlobId,
        /// Base at hand.
        actual: BlobId,
    },
    /// Decoding gave another state than the one named in the header.
    #[error("decoding gave state {actual}, expected {expected}")]
    WrongTarget {
        /// State named in the header.
        expected: BlobId,
        /// State decoded.
        actual: BlobId,
    },
    /// A state that breaks its own rules.
    #[error(transparent)]
    State(#[from] StateError),
    /// Base and target have different specs: publish a snapshot.
    #[error("base has spec {base}, target has spec {target}: a snapshot is due")]
    SpecChanged {
        /// Spec hash of the base.
        base: BlobId,
        /// Spec hash of the target.
        target: BlobId,
    },
    /// Base and target have different encoder generations: publish a snapshot.
    #[error("base has encoder generation {base}, target has {target}: a snapshot is due")]
    EncoderGenerationChanged {
        /// Generation of the base.
        base: u32,
        /// Generation of the target.
        target: u32,
    },
    /// Items may only be appended between base and target.
    #[error("item {item_idx} of the base is another item in the target, or missing")]
    ItemsChanged {
        /// First position that differs.
        item_idx: usize,
    },
    /// A delta leads to a later version.
    #[error("a delta from version {base} to version {target} does not lead forward")]
    VersionOrder {
        /// Base version.
        base: Version,
        /// Target version.
        target: Version,
    },
}

/// Refuses a count above its limit.
fn check_limit(what: &'static str, actual: usize, max: usize) -> Result<(), CodecError> {
    if actual > max {
        return Err(CodecError::Limit {
            what,
            actual: actual as u64,
            max: max as u64,
        }); // usize fits u64 on every target
    }
    Ok(())
}

/// Where both layouts keep their checksum: after magic and format version.
const CHECKSUM_RANGE: std::ops::Range<usize> = 5..9;

/// First bytes of the BLAKE3 hash of everything but the checksum itself; `None` where there is no room for one.
///
/// State hashes catch every change of codes; this also guards the versions in the headers, and it is checked before
/// anything is decoded.
fn checksum(bytes: &[u8]) -> Option<[u8; 4]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes.get(..CHECKSUM_RANGE.start)?);
    hasher.update(bytes.get(CHECKSUM_RANGE.end..)?);
    hasher.finalize().as_bytes().first_chunk().copied()
}

/// Fills in the checksum of a finished layout.
fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(&bytes).expect("a header is longer than its checksum");
    bytes[CHECKSUM_RANGE].copy_from_slice(&checksum);
    bytes
}

fn check_seal(bytes: &[u8]) -> Result<(), CodecError> {
    let expected = checksum(bytes).ok_or(CodecError::Truncated)?;
    if bytes[CHECKSUM_RANGE] != expected {
        return Err(CodecError::Checksum);
    }
    Ok(())
}
