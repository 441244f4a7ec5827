//! The list of online signing keys, signed by a root key that stays offline.
//!
//! ```text
//! signed key set = {"payload": "<key set as JSON text>",
//!                   "signatures": [{"key_id": "<16 hex digits>", "signature": "<base64>"}, …]}
//! key set        = {"format_version": 1, "number": 3, "created_at": …, "expires_at": …,
//!                   "keys": [{"key_id", "public_key", "not_before"?, "expires_at"}, …], "roots": ["<base64>", …]}
//! ```
//! It is the root role of The Update Framework (theupdateframework.io, specification 1.0, sections 5.3 and 6.1),
//! kept small: one signature of any root is enough, and a set that changes the roots is signed by one of the
//! roots before it and by one of its own. A key that is not in the set is revoked.
//! What is signed cannot be read as a manifest, nor a manifest as a set: each refuses the other's fields.
//! Times are milliseconds since 1970-01-01 UTC; nothing here reads a clock.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::keys::{KEY_ID_LEN, key_id, parse_public_key, public_key_text};
use super::{ManifestError, check_len, parse_json};

/// Version of the layout of key sets.
pub const KEY_SET_FORMAT_VERSION: u32 = 1;

/// Largest signed key set, in bytes.
pub const KEY_SET_BYTES_MAX: usize = 6 << 10;

/// Most online keys of a set.
pub const ONLINE_KEYS_MAX: usize = 8;

/// Most roots of a set.
pub const ROOTS_MAX: usize = 4;

/// Most sets in one answer: changes of the root, and the newest set.
pub const KEY_SETS_MAX: usize = 8;

/// Most signatures under one set: of a root before and of a root after.
const SIGNATURES_MAX: usize = 2;

/// Why a key set, or a manifest under it, was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum KeySetError {
    /// Malformed or out of bounds.
    #[error("key set: {0}")]
    Malformed(#[from] ManifestError),
    /// Written by another format version.
    #[error("key set format version {actual} is not supported, expected {KEY_SET_FORMAT_VERSION}")]
    FormatVersion {
        /// The version found.
        actual: u32,
    },
    /// A field that breaks a rule.
    #[error("key set: {field} is {actual}, expected {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        actual: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// No signature is by a root that is trusted here.
    #[error("key set {number} is not signed by a trusted root")]
    UnknownRoot {
        /// The number it claims.
        number: u64,
    },
    /// A signature by a trusted root that is not that of the payload.
    #[error("the signature of root {key_id} under the key set does not match")]
    Signature {
        /// The root.
        key_id: String,
    },
    /// The roots change, and none of the new ones has signed.
    #[error("key set {number} changes the root without a signature of the new one")]
    RootChange {
        /// Its number.
        number: u64,
    },
    /// Older than the set that is known.
    #[error("key set {actual} is older than the known set {known}")]
    Older {
        /// Number of the known set.
        known: u64,
        /// Number that arrived.
        actual: u64,
    },
    /// One number with two contents.
    #[error("key set {number} has two contents")]
    Equivocation {
        /// The number.
        number: u64,
    },
    /// Past its expiry.
    #[error("key set {number} expired at {expires_at}, it is {now_millis}")]
    Expired {
        /// Its number.
        number: u64,
        /// When it expired.
        expires_at: i64,
        /// The time passed in.
        now_millis: i64,
    },
    /// Signed by a key of the set outside the time of that key.
    #[error("key {key_id} signs from {not_before} to {expires_at}, what it signed is of {at}")]
    KeyOutsideTime {
        /// The key.
        key_id: String,
        /// From when it may sign.
        not_before: i64,
        /// Until when it may sign.
        expires_at: i64,
        /// When it was signed, or the time passed in.
        at: i64,
    },
}

/// An online key and the time in which it may sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnlineKey {
    /// See [`key_id`].
    pub key_id: String,
    /// 32 bytes in base64.
    pub public_key: String,
    /// From when it signs; absent: from ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    /// Until when it signs.
    pub expires_at: i64,
}

impl OnlineKey {
    /// Whether the key may sign at this time.
    #[must_use]
    pub fn is_valid_at(&self, at: i64) -> bool {
        self.not_before.is_none_or(|from| from <= at) && at <= self.expires_at
    }
}

/// The online keys, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySet {
    /// [`KEY_SET_FORMAT_VERSION`].
    pub format_version: u32,
    /// Rises by one with each set.
    pub number: u64,
    /// When it was signed.
    pub created_at: i64,
    /// When it must not be trusted any more.
    pub expires_at: i64,
    /// At least one and at most [`ONLINE_KEYS_MAX`] keys; the last that is valid signs.
    pub keys: Vec<OnlineKey>,
    /// Public keys in base64, at most [`ROOTS_MAX`]; one of them signs the next set.
    pub roots: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: String,
    signatures: Vec<RootSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootSignature {
    key_id: String,
    signature: String,
}

#[derive(Deserialize)]
struct Probe {
    format_version: u32,
    number: u64,
}

impl KeySet {
    /// Checks every length and number.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), KeySetError> {
        if self.format_version != KEY_SET_FORMAT_VERSION {
            let actual = self.format_version;
            return Err(KeySetError::FormatVersion { actual });
        }
        if self.number == 0 {
            return Err(field("number", 0, "at least 1"));
        }
        if self.expires_at <= self.created_at {
            return Err(field("expires_at", self.expires_at, "after created_at"));
        }
        check_count("keys", self.keys.len(), ONLINE_KEYS_MAX, "1 to 8 keys")?;
        check_count("roots", self.roots.len(), ROOTS_MAX, "1 to 4 roots")?;
        for (idx, key) in self.keys.iter().enumerate() {
            check_len("key_id", key.key_id.len(), KEY_ID_LEN)?;
            if key_id(&parse_public_key(&key.public_key)?) != key.key_id {
                return Err(field("key_id", &key.key_id, "the id of its public_key"));
            }
            if key.not_before.is_some_and(|from| from > key.expires_at) {
                return Err(field("not_before", key.expires_at, "at most expires_at"));
            }
            if self.keys[..idx]
                .iter()
                .any(|other| other.key_id == key.key_id)
            {
                return Err(field("key_id", &key.key_id, "each key once"));
            }
        }
        if let Some(key) = self
            .keys
            .iter()
            .find(|key| self.roots.contains(&key.public_key))
        {
            return Err(field("roots", &key.key_id, "no key that signs online"));
        }
        self.root_keys().map(drop)
    }

    /// The roots.
    ///
    /// # Errors
    /// One is no key.
    pub fn root_keys(&self) -> Result<Vec<VerifyingKey>, KeySetError> {
        let keys: Result<Vec<_>, _> = self
            .roots
            .iter()
            .map(|text| parse_public_key(text))
            .collect();
        Ok(keys?)
    }

    /// The online keys.
    ///
    /// # Errors
    /// One is no key.
    pub fn online_keys(&self) -> Result<Vec<VerifyingKey>, KeySetError> {
        let texts = self
            .keys
            .iter()
            .map(|key| parse_public_key(&key.public_key));
        Ok(texts.collect::<Result<Vec<_>, _>>()?)
    }

    /// Checks that the set may still be trusted at `now_millis`.
    ///
    /// # Errors
    /// [`KeySetError::Expired`].
    pub fn check_expiry(&self, now_millis: i64) -> Result<(), KeySetError> {
        if now_millis <= self.expires_at {
            return Ok(());
        }
        let (number, expires_at) = (self.number, self.expires_at);
        Err(KeySetError::Expired {
            number,
            expires_at,
            now_millis,
        })
    }

    /// Checks that the key of this id may sign at `at`. An id that the set does not hold passes: it signs nothing.
    ///
    /// # Errors
    /// [`KeySetError::KeyOutsideTime`].
    pub fn check_key_time(&self, id: &str, at: i64) -> Result<(), KeySetError> {
        let Some(key) = self.keys.iter().find(|key| key.key_id == id) else {
            return Ok(());
        };
        if key.is_valid_at(at) {
            return Ok(());
        }
        Err(KeySetError::KeyOutsideTime {
            key_id: key.key_id.clone(),
            not_before: key.not_before.unwrap_or(0),
            expires_at: key.expires_at,
            at,
        })
    }
}

/// Signs a set with a root, or with the roots before and after a change; the result is JSON text.
///
/// # Errors
/// The set breaks its own rules.
pub fn sign_key_set(set: &KeySet, roots: &[&SigningKey]) -> Result<String, KeySetError> {
    set.check()?;
    let payload = serde_json::to_string(set).expect("a key set has text keys only");
    let sign = |root: &&SigningKey| RootSignature {
        key_id: key_id(&root.verifying_key()),
        signature: STANDARD.encode(root.sign(payload.as_bytes()).to_bytes()),
    };
    let signatures = roots.iter().map(sign).collect();
    let envelope = Envelope {
        payload,
        signatures,
    };
    Ok(serde_json::to_string(&envelope).expect("texts always serialize"))
}

/// Checks signatures, format version and every length and number of a signed key set.
///
/// # Errors
/// Not signed by one of `trusted`, changing the roots without a signature of the new ones, or out of bounds.
pub fn verify_key_set(bytes: &[u8], trusted: &[VerifyingKey]) -> Result<KeySet, KeySetError> {
    check_len("signed key set", bytes.len(), KEY_SET_BYTES_MAX)?;
    let envelope: Envelope = parse_json("signed key set", bytes)?;
    check_count(
        "signatures",
        envelope.signatures.len(),
        SIGNATURES_MAX,
        "1 or 2",
    )?;
    let payload = envelope.payload.as_bytes();
    // A later format may lack fields of this one, so its number is read first; it is believed by signature only.
    let probe: Probe = parse_json("key set", payload)?;
    if !is_signed_by(&envelope, trusted)? {
        return Err(KeySetError::UnknownRoot {
            number: probe.number,
        });
    }
    if probe.format_version != KEY_SET_FORMAT_VERSION {
        let actual = probe.format_version;
        return Err(KeySetError::FormatVersion { actual });
    }
    let set: KeySet = parse_json("key set", payload)?;
    set.check()?;
    if !is_signed_by(&envelope, &set.root_keys()?)? {
        return Err(KeySetError::RootChange { number: set.number });
    }
    Ok(set)
}

/// Whether one of `keys` has signed; a wrong signature in the name of one of them is an error.
fn is_signed_by(envelope: &Envelope, keys: &[VerifyingKey]) -> Result<bool, KeySetError> {
    let mut is_signed = false;
    for signature in &envelope.signatures {
        check_len("key_id", signature.key_id.len(), KEY_ID_LEN)?;
        let Some(key) = keys.iter().find(|key| key_id(key) == signature.key_id) else {
            continue;
        };
        let parsed = STANDARD
            .decode(&signature.signature)
            .ok()
            .and_then(|bytes| Signature::from_slice(&bytes).ok()); // no signature is a wrong one
        let payload = envelope.payload.as_bytes();
        if !parsed.is_some_and(|parsed| key.verify_strict(payload, &parsed).is_ok()) {
            let key_id = signature.key_id.clone();
            return Err(KeySetError::Signature { key_id });
        }
        is_signed = true;
    }
    Ok(is_signed)
}

/// When and under which key set something was signed, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the set, where there is one.
    pub key_set: Option<u64>,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at: i64,
}

/// What a page that has pinned a root believes: the roots, the newest set, and what was signed last.
#[derive(Debug, Clone, PartialEq)]
pub struct RootTrust {
    pinned: VerifyingKey,
    roots: Vec<VerifyingKey>,
    known: Option<(KeySet, String)>,
}

impl RootTrust {
    /// Trusts a root and knows no set yet.
    #[must_use]
    pub fn new(root: VerifyingKey) -> Self {
        let (roots, known) = (vec![root], None);
        Self {
            pinned: root,
            roots,
            known,
        }
    }

    /// What the keeper of the sets itself starts from: its first set, believed by the roots that it names.
    ///
    /// # Errors
    /// It is malformed, or not signed by its own roots.
    pub fn of_own(signed: &str) -> Result<Self, KeySetError> {
        let root = own_roots(signed)?.into_iter().next();
        let mut trust = Self::new(root.ok_or(ManifestError::PublicKey)?);
        trust.resume(signed)?;
        Ok(trust)
    }

    /// The root that was pinned at the start.
    #[must_use]
    pub fn pinned(&self) -> &VerifyingKey {
        &self.pinned
    }

    /// The newest set.
    #[must_use]
    pub fn key_set(&self) -> Option<&KeySet> {
        self.known.as_ref().map(|(set, _)| set)
    }

    /// The newest set as it was signed.
    #[must_use]
    pub fn signed_key_set(&self) -> Option<&str> {
        self.known.as_ref().map(|(_, signed)| signed.as_str())
    }

    /// Walks through sets in ascending order: changes of the root since ever, and the newest set.
    /// Sets that are older than the known one, or of roots long gone, lead nowhere and are passed over, as long
    /// as the last set is believed. Nothing is taken over unless the last is. Answers whether the set is a newer one.
    ///
    /// # Errors
    /// Why the last set is not believed.
    pub fn adopt(&mut self, signed_sets: &[String]) -> Result<bool, KeySetError> {
        check_count("key_sets", signed_sets.len(), KEY_SETS_MAX, "1 to 8 sets")?;
        let mut walked = self.clone();
        let mut outcome = Ok(());
        for signed in signed_sets {
            outcome = walked.take(signed);
        }
        outcome?;
        let is_newer = walked.number() > self.number();
        *self = walked;
        Ok(is_newer)
    }

    fn number(&self) -> u64 {
        self.key_set().map_or(0, |set| set.number)
    }

    fn take(&mut self, signed: &str) -> Result<(), KeySetError> {
        let set = verify_key_set(signed.as_bytes(), &self.roots)?;
        if let Some((known, _)) = &self.known {
            if set.number < known.number {
                let (known, actual) = (known.number, set.number);
                return Err(KeySetError::Older { known, actual });
            }
            if set.number == known.number && set != *known {
                return Err(KeySetError::Equivocation { number: set.number });
            }
        }
        self.roots = set.root_keys()?;
        self.known = Some((set, signed.to_owned()));
        Ok(())
    }

    /// Takes over a set that this page had verified before its reload, although its roots may have changed since
    /// the pinned one: the state is kept where only the page itself writes.
    ///
    /// # Errors
    /// It is malformed, or not signed by its own roots.
    pub fn resume(&mut self, signed: &str) -> Result<(), KeySetError> {
        self.roots = own_roots(signed)?;
        self.take(signed)
    }

    /// Checks what one of the newest set's keys has signed: the number of the set that it asks for, and the time of
    /// the key. `Ok(false)`: a newer set is needed first.
    ///
    /// # Errors
    /// [`KeySetError::KeyOutsideTime`].
    pub fn covers(&self, stamp: Stamp, signer: &VerifyingKey) -> Result<bool, KeySetError> {
        let Some(set) = self.key_set() else {
            return Ok(false);
        };
        if stamp.key_set.is_some_and(|needed| needed > set.number) {
            return Ok(false);
        }
        set.check_key_time(&key_id(signer), stamp.created_at)?;
        Ok(true)
    }
}

/// The roots that a set names, before anything is believed.
fn own_roots(signed: &str) -> Result<Vec<VerifyingKey>, KeySetError> {
    check_len("signed key set", signed.len(), KEY_SET_BYTES_MAX)?;
    let envelope: Envelope = parse_json("signed key set", signed.as_bytes())?;
    let set: KeySet = parse_json("key set", envelope.payload.as_bytes())?;
    set.check()?;
    set.root_keys()
}

/// The entry of a key in a set.
#[must_use]
pub fn online_key(key: &VerifyingKey, not_before: Option<i64>, expires_at: i64) -> OnlineKey {
    OnlineKey {
        key_id: key_id(key),
        public_key: public_key_text(key),
        not_before,
        expires_at,
    }
}

fn check_count(
    name: &'static str,
    actual: usize,
    max: usize,
    expected: &'static str,
) -> Result<(), KeySetError> {
    if actual == 0 || actual > max {
        return Err(field(name, actual, expected));
    }
    Ok(())
}

fn field(field: &'static str, actual: impl ToString, expected: &'static str) -> KeySetError {
    KeySetError::Field {
        field,
        actual: actual.to_string(),
        expected,
    }
}
