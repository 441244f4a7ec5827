//! The signed envelope of manifests and of what else the online keys sign.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::keys::{KEY_ID_LEN, key_id};
use super::{FORMAT_VERSION, MANIFEST_BYTES_MAX, Manifest, ManifestError, check_len, parse_json};

/// What is signed, as text, beside its signature.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// JSON as text; these very bytes are signed.
    payload: String,
    /// First 16 hexadecimal digits of the BLAKE3 hash of the public key.
    key_id: String,
    /// Of ed25519, in base64.
    signature: String,
}

/// A later format may lack fields of this one, so its number is read first.
#[derive(Deserialize)]
struct FormatProbe {
    format_version: u32,
}

impl FormatProbe {
    fn check(&self) -> Result<(), ManifestError> {
        if self.format_version != FORMAT_VERSION {
            return Err(ManifestError::FormatVersion {
                actual: self.format_version,
            });
        }
        Ok(())
    }
}

/// Signs a manifest; the result is JSON text.
///
/// # Panics
/// If the manifest breaks its own rules, such as a score that is not finite: the gate must have caught that.
#[must_use]
pub fn sign(manifest: &Manifest, key: &SigningKey) -> Vec<u8> {
    let checked = manifest.check();
    assert!(
        checked.is_ok(),
        "a manifest to be signed must be valid: {checked:?}"
    );
    seal(manifest, key)
}

/// Signs the JSON text of a document.
pub(super) fn seal(document: &impl Serialize, key: &SigningKey) -> Vec<u8> {
    let payload = serde_json::to_string(document).expect("what is signed has text keys only");
    let signature = STANDARD.encode(key.sign(payload.as_bytes()).to_bytes());
    let envelope = Envelope {
        payload,
        key_id: key_id(&key.verifying_key()),
        signature,
    };
    serde_json::to_vec(&envelope).expect("three texts always serialize")
}

/// Checks signature, format version and every length and number of a signed manifest.
/// Expiry needs a clock: [`Manifest::check_expiry`].
///
/// # Errors
/// Not signed by one of `trusted`, or out of bounds.
pub fn verify(bytes: &[u8], trusted: &[VerifyingKey]) -> Result<Manifest, ManifestError> {
    verify_signer(bytes, trusted).map(|(manifest, _)| manifest)
}

/// As [`verify`], and says which of the keys has signed.
///
/// # Errors
/// As [`verify`].
pub fn verify_signer<'a>(
    bytes: &[u8],
    trusted: &'a [VerifyingKey],
) -> Result<(Manifest, &'a VerifyingKey), ManifestError> {
    check_len("signed manifest", bytes.len(), MANIFEST_BYTES_MAX)?;
    let (payload, key) = unseal("signed manifest", bytes, trusted)?;
    let payload = payload.as_bytes();
    let probe: FormatProbe = parse_json("manifest", payload)?;
    probe.check()?;
    let manifest: Manifest = parse_json("manifest", payload)?;
    manifest.check()?;
    Ok((manifest, key))
}

/// A signed note of at most so many bytes, of a format that is known, and which of the keys has signed it.
pub(super) fn unseal_note<'a, T: DeserializeOwned>(
    what: &'static str,
    bytes_max: usize,
    bytes: &[u8],
    trusted: &'a [VerifyingKey],
) -> Result<(T, &'a VerifyingKey), ManifestError> {
    check_len(what, bytes.len(), bytes_max)?;
    let (payload, signer) = unseal(what, bytes, trusted)?;
    let probe: FormatProbe = parse_json(what, payload.as_bytes())?;
    probe.check()?;
    Ok((parse_json(what, payload.as_bytes())?, signer))
}

/// The payload of an envelope, and which of the keys has signed it.
fn unseal<'a>(
    what: &'static str,
    bytes: &[u8],
    trusted: &'a [VerifyingKey],
) -> Result<(String, &'a VerifyingKey), ManifestError> {
    let envelope: Envelope = parse_json(what, bytes)?;
    check_len("key_id", envelope.key_id.len(), KEY_ID_LEN)?;
    let Some(key) = trusted.iter().find(|key| key_id(key) == envelope.key_id) else {
        return Err(ManifestError::UnknownKey {
            key_id: envelope.key_id,
        });
    };
    let signature = STANDARD
        .decode(&envelope.signature)
        .ok()
        .and_then(|bytes| Signature::from_slice(&bytes).ok());
    let is_signed = signature.is_some_and(|signature| {
        key.verify_strict(envelope.payload.as_bytes(), &signature)
            .is_ok()
    });
    if !is_signed {
        return Err(ManifestError::Signature {
            key_id: envelope.key_id,
        });
    }
    Ok((envelope.payload, key))
}
