//! Why something that arrived was refused.

use crate::codec::CodecError;
use crate::ids::{BlobId, LogOffset, Version};
use crate::manifest::{KeySetError, ManifestError};

/// Why something that arrived was refused. The live version is untouched by any of these.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EdgeError {
    /// A manifest, plan, announcement or key that is malformed, out of bounds or not signed by a trusted key.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A delta or snapshot that does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A key set that is not believed, or a manifest outside the time of its key.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
    /// A root is pinned here, and the server names no key set.
    #[error("the server names no key set, so nothing signed by the pinned root")]
    NoKeySet,
    /// A manifest made under a newer key set than the one at hand.
    #[error("the manifest was signed under key set {needed}, known is {known}")]
    StaleKeySet {
        /// Number of the set at hand; 0: none.
        known: u64,
        /// Number that the manifest names.
        needed: u64,
    },
    /// The page's clock is wrong, so expiry cannot be judged by it.
    #[error("the clock of this device is wrong: it says {page_millis}, it is about {true_millis}")]
    ClockSkew {
        /// By the page.
        page_millis: i64,
        /// By the server's `Date`, or by the newest signed time.
        true_millis: i64,
    },
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
    /// Older than what this page has seen before its reload.
    #[error("version {actual} is older than version {seen}, which this page has seen before")]
    OlderThanSeen {
        /// The newest version seen.
        seen: Version,
        /// The version that arrived.
        actual: Version,
    },
    /// Rules of operators that are older than those at hand.
    #[error("revision {actual} of the rules is older than the known {known}")]
    OlderRules {
        /// Revision of the rules at hand.
        known: u64,
        /// Revision that arrived.
        actual: u64,
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
            Self::KeySet(error) => match error {
                KeySetError::Malformed(_) | KeySetError::Field { .. } => "malformed",
                KeySetError::FormatVersion { .. } => "unsupported_format",
                KeySetError::UnknownRoot { .. } | KeySetError::RootChange { .. } => "unknown_root",
                KeySetError::Signature { .. } => "bad_signature",
                KeySetError::Older { .. } => "stale_key_set",
                KeySetError::Equivocation { .. } => "equivocation",
                KeySetError::Expired { .. } => "key_set_expired",
                KeySetError::KeyOutsideTime { .. } => "key_expired",
            },
            Self::NoKeySet => "no_key_set",
            Self::StaleKeySet { .. } => "stale_key_set",
            Self::ClockSkew { .. } => "clock_skew",
            Self::NoKey => "no_key",
            Self::UntrustedKey { .. } => "unknown_key",
            Self::WrongModel { .. } => "wrong_model",
            Self::Stale { .. } | Self::OlderThanSeen { .. } | Self::OlderRules { .. } => "stale",
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
