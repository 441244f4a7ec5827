//! What a server signs about the text encoder of a generation: which file a page may embed texts with.
//!
//! It is signed when it is asked for and never expires: the generation of the version that ranks says which one is right.
//! Its payload has a field that a manifest lacks and lacks those of a manifest, so neither can be taken for the other.

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::envelope::{seal, unseal};
use super::{BlobRef, FORMAT_VERSION, ManifestError, check_len, parse_json};
use crate::ids::check_id;

/// Largest signed note, in bytes.
pub const TEXT_ENCODER_NOTE_BYTES_MAX: usize = 4 << 10;

/// The text encoder of one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextEncoderNote {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Name of the model.
    pub model: String,
    /// Generation of the texts in its versions.
    pub encoder_generation: u32,
    /// What embeds such texts.
    pub text_encoder: TextEncoderKind,
}

/// What embeds a text in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextEncoderKind {
    /// `text::SmallTextEncoder`, which has no file.
    Small,
    /// A file as `text::packed` writes it.
    Packed(BlobRef),
}

impl TextEncoderNote {
    /// Signs it; the result is JSON text.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        seal(self, key)
    }

    /// Checks signature, format version and that it is about this model and generation.
    ///
    /// # Errors
    /// Not signed by one of `trusted`, malformed, or about another model or generation.
    pub fn verify(
        bytes: &[u8],
        trusted: &[VerifyingKey],
        model: &str,
        encoder_generation: u32,
    ) -> Result<Self, ManifestError> {
        let what = "note on the text encoder";
        check_len(what, bytes.len(), TEXT_ENCODER_NOTE_BYTES_MAX)?;
        let (payload, _) = unseal(what, bytes, trusted)?;
        let note: Self = parse_json(what, payload.as_bytes())?;
        if note.format_version != FORMAT_VERSION {
            return Err(ManifestError::FormatVersion {
                actual: note.format_version,
            });
        }
        check_id(&note.model)?;
        let of_another = |field, actual| ManifestError::Field {
            field,
            actual,
            expected: "that of the version that ranks",
        };
        if note.model != model {
            return Err(of_another("model", note.model));
        }
        if note.encoder_generation != encoder_generation {
            let actual = format!("{:08x}", note.encoder_generation);
            return Err(of_another("encoder_generation", actual));
        }
        Ok(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BlobId;
    use crate::manifest;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn note() -> TextEncoderNote {
        TextEncoderNote {
            format_version: FORMAT_VERSION,
            model: "shop".to_owned(),
            encoder_generation: 7,
            text_encoder: TextEncoderKind::Packed(BlobRef {
                id: BlobId::of(b"file"),
                bytes: 4,
            }),
        }
    }

    #[test]
    fn a_signed_note_is_believed_for_its_model_and_generation_alone() {
        let trusted = [key(1).verifying_key()];
        let signed = note().sign(&key(1));
        assert_eq!(
            TextEncoderNote::verify(&signed, &trusted, "shop", 7),
            Ok(note())
        );
        for (model, generation, field) in [("other", 7, "model"), ("shop", 8, "encoder_generation")]
        {
            let error = TextEncoderNote::verify(&signed, &trusted, model, generation);
            assert!(error.expect_err("another").to_string().starts_with(field));
        }
        let by_another = note().sign(&key(2));
        let error = TextEncoderNote::verify(&by_another, &trusted, "shop", 7);
        assert!(matches!(error, Err(ManifestError::UnknownKey { .. })));
        let mut damaged = signed.clone();
        let idx = damaged
            .iter()
            .position(|byte| *byte == b'7')
            .expect("the generation");
        damaged[idx] = b'8';
        assert!(TextEncoderNote::verify(&damaged, &trusted, "shop", 8).is_err());
        let long = vec![b' '; TEXT_ENCODER_NOTE_BYTES_MAX + 1];
        let error = TextEncoderNote::verify(&long, &trusted, "shop", 7);
        assert!(matches!(error, Err(ManifestError::TooLong { .. })));
    }

    #[test]
    fn notes_and_manifests_are_not_taken_for_each_other() {
        let trusted = [key(1).verifying_key()];
        let signed = note().sign(&key(1));
        let error = manifest::verify(&signed, &trusted);
        assert!(
            matches!(error, Err(ManifestError::Json { .. })),
            "{error:?}"
        );
        let golden = include_bytes!("../../tests/golden/manifest.v1.json");
        let manifest: serde_json::Value = serde_json::from_slice(golden).expect("JSON");
        let payload = manifest["payload"].as_str().expect("a text");
        assert!(serde_json::from_str::<TextEncoderNote>(payload).is_err());
    }
}
