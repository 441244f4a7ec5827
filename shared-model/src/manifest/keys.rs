//! Public keys as text, and their ids.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::{ManifestError, check_len, parse_json};
use crate::ids::BlobId;

/// Hexadecimal digits of a key id.
pub(super) const KEY_ID_LEN: usize = 16;

/// Largest key list, in bytes.
pub const KEY_LIST_BYTES_MAX: usize = 128 << 10;

/// Most keys of a key list.
const KEYS_MAX: usize = 32;

/// Keys that a server signs with: `{"keys": [{"key_id": "…", "public_key": "<base64>"}], "key_sets": ["…"]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyList {
    /// The keys.
    pub keys: Vec<PublicKey>,
    /// Signed key sets, ascending: those that changed the root, and the newest. Empty where there is no root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_sets: Vec<String>,
}

/// One public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PublicKey {
    /// See [`key_id`].
    pub key_id: String,
    /// 32 bytes in base64.
    pub public_key: String,
}

impl From<&VerifyingKey> for PublicKey {
    fn from(key: &VerifyingKey) -> Self {
        Self {
            key_id: key_id(key),
            public_key: public_key_text(key),
        }
    }
}

/// The first 16 hexadecimal digits of the BLAKE3 hash of the public key.
#[must_use]
pub fn key_id(key: &VerifyingKey) -> String {
    let mut id = BlobId::of(key.as_bytes()).to_hex();
    id.truncate(KEY_ID_LEN);
    id
}

/// A public key in base64.
#[must_use]
pub fn public_key_text(key: &VerifyingKey) -> String {
    STANDARD.encode(key.as_bytes())
}

/// Reads what [`public_key_text`] wrote; weak keys are refused.
///
/// # Errors
/// [`ManifestError::PublicKey`].
pub fn parse_public_key(text: &str) -> Result<VerifyingKey, ManifestError> {
    check_len("public key", text.len(), 64)?;
    let bytes = STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let key = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
    key.filter(|key| !key.is_weak())
        .ok_or(ManifestError::PublicKey)
}

/// Reads the keys of a [`KeyList`].
///
/// # Errors
/// Too long, malformed, or a key whose id is not its own.
pub fn parse_key_list(bytes: &[u8]) -> Result<Vec<VerifyingKey>, ManifestError> {
    check_len("key list", bytes.len(), KEY_LIST_BYTES_MAX)?;
    let list: KeyList = parse_json("key list", bytes)?;
    if list.keys.len() > KEYS_MAX {
        return Err(super::field("keys", list.keys.len(), "at most 32"));
    }
    let mut keys = Vec::with_capacity(list.keys.len());
    for entry in list.keys {
        let key = parse_public_key(&entry.public_key)?;
        if key_id(&key) != entry.key_id {
            return Err(ManifestError::UnknownKey {
                key_id: entry.key_id,
            });
        }
        keys.push(key);
    }
    Ok(keys)
}

/// Reads the signed key sets of a [`KeyList`], as text: who believes them verifies them.
///
/// # Errors
/// Too long or malformed.
pub fn parse_key_sets(bytes: &[u8]) -> Result<Vec<String>, ManifestError> {
    check_len("key list", bytes.len(), KEY_LIST_BYTES_MAX)?;
    let list: KeyList = parse_json("key list", bytes)?;
    Ok(list.key_sets)
}
