//! Manifest: what a version is, signed, and the plan and announcement that carry it.
//!
//! ```text
//! signed manifest = {"payload": "<manifest as JSON text>", "key_id": "<16 hex digits>", "signature": "<base64>"}
//! ```
//! The payload is a JSON *string*, so the signed bytes are exactly the bytes of that text, whatever happens to the
//! envelope on its way. Field order and spacing inside it are free.
//! Everything that is parsed here came from outside: each length and number is checked before it is used.
//! Not here: which manifests are newer than what one has (`edge::sync`), where they are kept (the server's `publish`).

mod envelope;
mod key_set;
mod keys;
mod moderation;
mod plan;
mod text_encoder;

pub use envelope::{Envelope, sign, verify, verify_signer};
pub use key_set::{
    KEY_SET_BYTES_MAX, KEY_SET_FORMAT_VERSION, KEY_SETS_MAX, KeySet, KeySetError, ONLINE_KEYS_MAX,
    OnlineKey, ROOTS_MAX, RootTrust, Stamp, online_key, sign_key_set, verify_key_set,
};
pub use keys::{
    KEY_LIST_BYTES_MAX, KeyList, PublicKey, key_id, parse_key_list, parse_key_sets,
    parse_public_key, public_key_text,
};
pub use moderation::{
    ItemPoints, MODERATION_NOTE_BYTES_MAX, MODERATION_PINS_MAX, ModerationNote, ModerationRules,
    POINTS_MAX, PinnedItem,
};
pub use plan::{Announcement, PlanStep, PlanStepKind, UpdatePlan, parse_announcement, parse_plan};

pub use text_encoder::{
    TEXT_CHANGE_BYTES_MAX, TEXT_ENCODER_BYTES_MAX, TEXT_ENCODER_NOTE_BYTES_MAX, TextEncoderKind,
    TextEncoderNote,
};

use serde::{Deserialize, Serialize};

use crate::event::HistoryEvent;
use crate::ids::{BlobId, IdError, ItemId, LogOffset, Version, check_id};

/// Version of the layout of manifests, plans and announcements.
pub const FORMAT_VERSION: u32 = 1;

/// Largest signed manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 256 << 10;

/// Largest plan, in bytes; it holds a manifest.
pub const PLAN_BYTES_MAX: usize = 1 << 20;

/// Largest announcement, in bytes; it holds a manifest and perhaps a delta.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 1 << 20;

/// Largest delta that rides inside an announcement, in bytes before base64.
pub const INLINE_DELTA_BYTES_MAX: usize = 64 << 10;

/// Largest blob of a plan, in bytes.
pub const BLOB_BYTES_MAX: u64 = crate::codec::BLOB_BYTES_MAX as u64; // widening

/// Most steps of a plan.
pub const PLAN_STEPS_MAX: usize = 256;

/// Most events in the history of a self-test.
pub const SELF_TEST_HISTORY_LEN_MAX: usize = 512;

/// Most items scored by a self-test.
pub const SELF_TEST_ITEMS_MAX: usize = 1024;

/// Why a manifest, plan, announcement or key was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than its limit.
    #[error("{what} has {actual} bytes, at most {max} are allowed")]
    TooLong {
        /// Which text.
        what: &'static str,
        /// Its length.
        actual: usize,
        /// The limit.
        max: usize,
    },
    /// Not the JSON that was expected.
    #[error("{what} is not valid: {detail}")]
    Json {
        /// Which text.
        what: &'static str,
        /// What the parser said.
        detail: String,
    },
    /// Signed with a key that is not trusted.
    #[error("signed with the unknown key {key_id}")]
    UnknownKey {
        /// The key named by the envelope.
        key_id: String,
    },
    /// The signature is not that of the payload.
    #[error("the signature by key {key_id} does not match")]
    Signature {
        /// The key named by the envelope.
        key_id: String,
    },
    /// Written by another format version.
    #[error("manifest format version {actual} is not supported, expected {FORMAT_VERSION}")]
    FormatVersion {
        /// The version found.
        actual: u32,
    },
    /// The model's name is none.
    #[error("model name: {0}")]
    ModelName(#[from] IdError),
    /// A field that breaks a rule.
    #[error("{field} is {actual}, expected {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        actual: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// Past its expiry.
    #[error("manifest of version {version} expired at {expires_at}, it is {now_millis}")]
    Expired {
        /// Its version.
        version: Version,
        /// When it expired.
        expires_at: i64,
        /// The time passed in.
        now_millis: i64,
    },
    /// Not a public key.
    #[error("not an ed25519 public key in base64")]
    PublicKey,
}

/// How a version came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum VersionKind {
    /// Small sparse change within the second.
    Fast,
    /// Whole evaluated change.
    Release,
}

/// Who a version is for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Every page.
    #[default]
    Stable,
    /// The cohort that tries a release before the others.
    Canary,
}

impl Channel {
    /// Keeps the JSON of a manifest for everyone as it was before there were channels.
    fn is_stable(&self) -> bool {
        *self == Self::Stable
    }
}

/// Buckets that pages draw from, once each: 0 to 99.
pub const NUM_BUCKETS: u8 = 100;

/// A blob and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BlobRef {
    /// BLAKE3 of its bytes.
    pub id: BlobId,
    /// Its length.
    pub bytes: u64,
}

/// The delta that leads to a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaRef {
    /// Version it starts from.
    pub base_version: Version,
    /// Its bytes.
    pub blob: BlobRef,
}

/// A probe and what it must score, to be computed before a version goes live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// The history that is ranked for.
    pub history: Vec<HistoryEvent>,
    /// The moment of ranking.
    pub now_millis: i64,
    /// Items that are scored.
    pub item_ids: Vec<ItemId>,
    /// `[item_ids.len()]`, by the server.
    pub scores: Vec<f32>,
    /// Largest absolute difference allowed per score.
    pub tolerance: f32,
}

/// One published version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Name of the model.
    pub model: String,
    /// The version.
    pub version: Version,
    /// How it came about.
    pub kind: VersionKind,
    /// Who it is for.
    #[serde(default, skip_serializing_if = "Channel::is_stable")]
    pub channel: Channel,
    /// Hash of its code state.
    pub state: BlobId,
    /// Hash of its spec.
    pub spec_hash: BlobId,
    /// Text encoder of its content tensors.
    pub encoder_generation: u32,
    /// First record of the event log learned by this version.
    pub learned_from: LogOffset,
    /// Records below this are learned.
    pub learned_through: LogOffset,
    /// Time of the newest event learned, milliseconds since 1970-01-01 UTC.
    pub event_time_millis: i64,
    /// When it was published, milliseconds since 1970-01-01 UTC.
    pub created_at: i64,
    /// When it must not be trusted any more, milliseconds since 1970-01-01 UTC.
    pub expires_at: i64,
    /// Hash of the signed manifest before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<BlobId>,
    /// The delta from the version before, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<DeltaRef>,
    /// The whole state, where it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<BlobRef>,
    /// Number of the key set that it was signed under, where there is one; a page with an older one fetches it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_set: Option<u64>,
    /// Bytes of the learned codes, what a delta is compared with.
    pub learned_code_bytes: u64,
    /// What it must score.
    pub self_test: SelfTest,
}

impl Manifest {
    /// Checks every length and number.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.format_version != FORMAT_VERSION {
            return Err(ManifestError::FormatVersion {
                actual: self.format_version,
            });
        }
        check_id(&self.model)?;
        if self.learned_from > self.learned_through {
            return Err(field(
                "learned_from",
                self.learned_from,
                "at most learned_through",
            ));
        }
        if self.expires_at < self.created_at {
            return Err(field("expires_at", self.expires_at, "at least created_at"));
        }
        if let Some(delta) = &self.delta {
            if delta.base_version >= self.version {
                return Err(field(
                    "delta.base_version",
                    delta.base_version,
                    "less than version",
                ));
            }
            check_blob("delta.blob.bytes", &delta.blob)?;
        }
        if let Some(snapshot) = &self.snapshot {
            check_blob("snapshot.bytes", snapshot)?;
        }
        self.self_test.check()
    }

    /// When and under which key set it was signed.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp {
            key_set: self.key_set,
            created_at: self.created_at,
        }
    }

    /// Checks that the manifest may still be trusted at `now_millis`.
    ///
    /// # Errors
    /// [`ManifestError::Expired`].
    pub fn check_expiry(&self, now_millis: i64) -> Result<(), ManifestError> {
        if now_millis > self.expires_at {
            let (version, expires_at) = (self.version, self.expires_at);
            return Err(ManifestError::Expired {
                version,
                expires_at,
                now_millis,
            });
        }
        Ok(())
    }
}

impl SelfTest {
    fn check(&self) -> Result<(), ManifestError> {
        let (history_len, num_items) = (self.history.len(), self.item_ids.len());
        if history_len > SELF_TEST_HISTORY_LEN_MAX {
            return Err(field(
                "self_test.history",
                history_len,
                "at most 512 events",
            ));
        }
        if num_items > SELF_TEST_ITEMS_MAX {
            return Err(field("self_test.item_ids", num_items, "at most 1024 items"));
        }
        if self.scores.len() != num_items {
            return Err(field(
                "self_test.scores",
                self.scores.len(),
                "one score per item",
            ));
        }
        if !self.scores.iter().all(|score| score.is_finite()) {
            return Err(field("self_test.scores", "not finite", "finite scores"));
        }
        if !(self.tolerance.is_finite() && self.tolerance >= 0.0) {
            return Err(field(
                "self_test.tolerance",
                self.tolerance,
                "finite and not negative",
            ));
        }
        Ok(())
    }
}

fn field(field: &'static str, actual: impl ToString, expected: &'static str) -> ManifestError {
    ManifestError::Field {
        field,
        actual: actual.to_string(),
        expected,
    }
}

fn check_blob(name: &'static str, blob: &BlobRef) -> Result<(), ManifestError> {
    if blob.bytes == 0 || blob.bytes > BLOB_BYTES_MAX {
        return Err(field(name, blob.bytes, "1 to BLOB_BYTES_MAX"));
    }
    Ok(())
}

fn check_len(what: &'static str, actual: usize, max: usize) -> Result<(), ManifestError> {
    if actual > max {
        return Err(ManifestError::TooLong { what, actual, max });
    }
    Ok(())
}

/// Parses JSON of at most `max` bytes.
pub(crate) fn parse_bounded<'a, T: Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
    max: usize,
) -> Result<T, ManifestError> {
    check_len(what, bytes.len(), max)?;
    parse_json(what, bytes)
}

/// Parses JSON after its length was checked.
fn parse_json<'a, T: Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|error| ManifestError::Json {
        what,
        detail: error.to_string(),
    })
}
