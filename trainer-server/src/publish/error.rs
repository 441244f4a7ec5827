//! Why publishing fails.

use std::io;
use std::path::PathBuf;

use shared_model::codec::CodecError;
use shared_model::ids::{BlobId, LogOffset, Version};
use shared_model::manifest::ManifestError;

use super::BlobError;
use super::keyring::KeyringError;

/// Why a version could not be published or opened.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The file system failed.
    #[error("{action}: {source}: {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The keys cannot be read or must not sign.
    #[error(transparent)]
    Keys(#[from] KeyringError),
    /// A blob failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// What is published takes as much as it may.
    #[error(
        "blobs and manifests take {used_bytes} bytes, {needed_bytes} more are needed and store.disk_bytes_max is {bytes_max}"
    )]
    DiskLimit {
        /// By blobs and manifests now.
        used_bytes: u64,
        /// By the version.
        needed_bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The log needed the room that is kept free for it.
    #[error("the disk has no room for the reserve that the event log needed: {source}")]
    NoReserve {
        /// What the system said.
        source: io::Error,
    },
    /// A state could not be encoded.
    #[error("cannot encode version {version}: {source}")]
    Encode {
        /// The version.
        version: Version,
        /// Why not.
        source: CodecError,
    },
    /// An encoded delta does not lead to the state it was made from.
    #[error("the delta to version {version} decodes to {actual}, expected {expected}")]
    NotReproduced {
        /// The version.
        version: Version,
        /// The state that was encoded.
        expected: BlobId,
        /// The state that came out.
        actual: BlobId,
    },
    /// The manifest breaks its own rules, for example by a score that is not finite.
    #[error("the manifest of version {version} is not valid: {source}")]
    Manifest {
        /// The version.
        version: Version,
        /// Which rule.
        source: ManifestError,
    },
    /// The offsets run backwards.
    #[error(
        "version {version} would have learned {learned_from} to {learned_through}, the one before it {published_through}"
    )]
    LearnedBackwards {
        /// The version.
        version: Version,
        /// Its first offset.
        learned_from: LogOffset,
        /// One past its last offset.
        learned_through: LogOffset,
        /// One past the last offset already published.
        published_through: LogOffset,
    },
    /// The blobs do not lead to the state of a version that is kept.
    #[error("the state of version {version} cannot be had from its blobs: {detail}")]
    NoState {
        /// The version.
        version: Version,
        /// What is in the way.
        detail: String,
    },
    /// The data directory belongs to a model of another name.
    #[error("the data directory holds the model `{actual}`, the configuration names `{expected}`")]
    OtherModel {
        /// Name in the manifests.
        actual: String,
        /// Name in the configuration.
        expected: String,
    },
}

impl PublishError {
    /// Whether the same version may go out later: room, a disk or a key is missing, and no rule is broken.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Io { .. }
            | Self::Keys(_)
            | Self::Blob(_)
            | Self::DiskLimit { .. }
            | Self::NoReserve { .. } => true,
            Self::Encode { .. }
            | Self::NotReproduced { .. }
            | Self::Manifest { .. }
            | Self::LearnedBackwards { .. }
            | Self::NoState { .. }
            | Self::OtherModel { .. } => false,
        }
    }
}
