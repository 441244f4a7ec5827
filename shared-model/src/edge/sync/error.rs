//! Why something that arrived was refused.

use crate::codec::CodecError;
use crate::ids::{BlobId, LogOffset, Version};
use crate::manifest::ManifestError;

/// Why something that arrived was refused. The live version is untouched by any of these.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EdgeError {
    /// A manifest, plan, announcement or key that is malformed, out of bounds or not signed by a trusted key.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A delta or snapshot that does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Nothing can be believed before a key is known.
    #[error("no public key is known yet")]
    NoKey,
    /// Another key is already trusted.
    #[error("public key {key_id} is not among the trusted ones")]
    UntrustedKey {
        /// Id of the key offered.
        key_id: String,
    },
    /// A manifest of another model.
    #[error("manifest is of model {actual}, expected {expected}")]
    WrongModel {
        /// The model followed here.
        expected: String,
        /// The model of the manifest.
        actual: String,
    },
    /// Older than what is live.
    #[error("version {actual} is older than the live version {live}")]
    Stale {
        /// The live version.
        live: Version,
        /// The version that arrived.
        actual: Version,
    },
    /// One version with two contents.
    #[error("version {version} is state {expected} and also state {actual}")]
    Equivocation {
        /// The version.
        version: Version,
        /// The state known for it.
        expected: BlobId,
        /// The state that arrived.
        actual: BlobId,
    },
    /// A newer version that has learned less.
    #[error("learned_through {actual} lies before the live {live}")]
    LearnedBackward {
        /// Of the live version.
        live: LogOffset,
        /// Of the version that arrived.
        actual: LogOffset,
    },
    /// Parts of one message that do not fit together.
    #[error("inconsistent message: {what}")]
    Inconsistent {
        /// Which parts.
        what: &'static str,
    },
    /// Nobody asked for it.
    #[error("{what} was not asked for")]
    Unexpected {
        /// What arrived.
        what: &'static str,
    },
    /// The inline delta is not base64.
    #[error("the inline delta is not base64")]
    InlineDelta,
    /// A blob of another length than the plan says.
    #[error("blob has {actual} bytes, expected {expected}")]
    BlobLength {
        /// By the plan.
        expected: u64,
        /// That arrived.
        actual: u64,
    },
    /// A blob with other bytes than its id says.
    #[error("blob has hash {actual}, expected {expected}")]
    BlobHash {
        /// Its id.
        expected: BlobId,
        /// Of the bytes.
        actual: BlobId,
    },
    /// All steps applied, but the result is not what the manifest says.
    #[error("state is {actual}, the manifest says {expected}")]
    WrongState {
        /// By the manifest.
        expected: BlobId,
        /// Reached.
        actual: BlobId,
    },
}

impl EdgeError {
    /// Stable code for callers that act on it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Manifest(error) => match error {
                ManifestError::UnknownKey { .. } => "unknown_key",
                ManifestError::Signature { .. } => "bad_signature",
                ManifestError::FormatVersion { .. } => "unsupported_format",
                ManifestError::Expired { .. } => "expired",
                ManifestError::TooLong { .. }
                | ManifestError::Json { .. }
                | ManifestError::ModelName(_)
                | ManifestError::Field { .. }
                | ManifestError::PublicKey => "malformed",
            },
            Self::Codec(CodecError::FormatVersion { .. }) => "unsupported_format",
            Self::Codec(CodecError::WrongBase { .. }) => "wrong_base",
            Self::Codec(_) => "corrupt_blob",
            Self::NoKey => "no_key",
            Self::UntrustedKey { .. } => "unknown_key",
            Self::WrongModel { .. } => "wrong_model",
            Self::Stale { .. } => "stale",
            Self::Equivocation { .. } => "equivocation",
            Self::LearnedBackward { .. } => "learned_backward",
            Self::Inconsistent { .. } => "inconsistent",
            Self::Unexpected { .. } => "unexpected",
            Self::InlineDelta => "malformed",
            Self::BlobLength { .. } | Self::BlobHash { .. } => "corrupt_blob",
            Self::WrongState { .. } => "wrong_state",
        }
    }
}
