//! What a server signs about the text encoder of a generation: which file a page may embed texts with.
//!
//! ```text
//! signed note = {"payload": "<note as JSON text>", "key_id": "<16 hex digits>", "signature": "<base64>"}
//! note        = {"format_version": 1, "model", "encoder_generation", "created_at", "key_set"?, "text_encoder"}
//! ```
//! It is signed when it is asked for and never expires: the generation of the version that ranks says which one is right,
//! and a page believes none that was signed before that version, nor one of a key outside its time.
//! Its payload has a field that a manifest lacks and lacks those of a manifest, so neither can be taken for the other.

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::envelope::{seal, unseal_note};
use super::{BlobRef, ManifestError, Stamp, field};
use crate::ids::check_id;

/// Largest signed note, in bytes.
pub const TEXT_ENCODER_NOTE_BYTES_MAX: usize = 4 << 10;

/// Largest file that a note may name, in bytes: as much a page is ready to download.
pub const TEXT_ENCODER_BYTES_MAX: u64 = 256 << 20;

/// Largest change of such a file, in bytes: factors of the largest rank for a network of 24 wide layers.
pub const TEXT_CHANGE_BYTES_MAX: u64 = 8 << 20;

/// The text encoder of one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextEncoderNote {
    /// [`super::FORMAT_VERSION`].
    pub format_version: u32,
    /// Name of the model.
    pub model: String,
    /// Generation of the texts in its versions.
    pub encoder_generation: u32,
    /// When it was signed, milliseconds since 1970-01-01 UTC.
    pub created_at: i64,
    /// Number of the key set that it was signed under, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_set: Option<u64>,
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
    /// Such a file, made for this generation or one before, and what the encoder has learned since, as `LowRankChange::to_packed_bytes`
    /// writes it.
    Changed {
        /// The file.
        base: BlobRef,
        /// The change.
        change: BlobRef,
    },
}

impl TextEncoderKind {
    /// The files that it names, each with the most bytes that it may have.
    fn files(&self) -> impl Iterator<Item = (&BlobRef, &'static str, u64)> {
        const FILE: (&str, u64) = ("1 to TEXT_ENCODER_BYTES_MAX", TEXT_ENCODER_BYTES_MAX);
        const CHANGE: (&str, u64) = ("1 to TEXT_CHANGE_BYTES_MAX", TEXT_CHANGE_BYTES_MAX);
        let (file, change) = match self {
            Self::Small => (None, None),
            Self::Packed(file) => (Some(file), None),
            Self::Changed { base, change } => (Some(base), Some(change)),
        };
        let file = file.map(|blob| (blob, FILE.0, FILE.1));
        let change = change.map(|blob| (blob, CHANGE.0, CHANGE.1));
        file.into_iter().chain(change)
    }
}

impl TextEncoderNote {
    /// Signs it; the result is JSON text.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        seal(self, key)
    }

    /// When and under which key set it was signed.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp {
            key_set: self.key_set,
            created_at: self.created_at,
        }
    }

    /// Checks signature, format version, every length, and that it is about this model and generation; says who signed.
    ///
    /// # Errors
    /// Not signed by one of `trusted`, malformed, or about another model or generation.
    pub fn verify(
        bytes: &[u8],
        trusted: &[VerifyingKey],
        model: &str,
        encoder_generation: u32,
    ) -> Result<(Self, VerifyingKey), ManifestError> {
        let what = "note on the text encoder";
        let (note, signer): (Self, _) =
            unseal_note(what, TEXT_ENCODER_NOTE_BYTES_MAX, bytes, trusted)?;
        check_id(&note.model)?;
        let of_another = |name, actual| field(name, actual, "that of the version that ranks");
        if note.model != model {
            return Err(of_another("model", note.model));
        }
        if note.encoder_generation != encoder_generation {
            let actual = format!("{:08x}", note.encoder_generation);
            return Err(of_another("encoder_generation", actual));
        }
        for (blob, expected, bytes_max) in note.text_encoder.files() {
            if !(1..=bytes_max).contains(&blob.bytes) {
                return Err(field("bytes", blob.bytes, expected));
            }
        }
        Ok((note, *signer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BlobId;
    use crate::manifest::{self, FORMAT_VERSION};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn note() -> TextEncoderNote {
        TextEncoderNote {
            format_version: FORMAT_VERSION,
            model: "shop".to_owned(),
            encoder_generation: 7,
            created_at: 1_700_000_001_000,
            key_set: None,
            text_encoder: TextEncoderKind::Packed(BlobRef {
                id: BlobId::of(b"file"),
                bytes: 4,
            }),
        }
    }

    fn signed(text_encoder: TextEncoderKind) -> Vec<u8> {
        let note = TextEncoderNote {
            text_encoder,
            ..note()
        };
        note.sign(&key(1))
    }

    fn verify(signed: &[u8]) -> Result<TextEncoderNote, ManifestError> {
        let trusted = [key(1).verifying_key()];
        TextEncoderNote::verify(signed, &trusted, "shop", 7).map(|(note, _)| note)
    }

    #[test]
    fn a_signed_note_is_believed_for_its_model_and_generation_alone() {
        let trusted = [key(1).verifying_key()];
        let signed = note().sign(&key(1));
        assert_eq!(
            TextEncoderNote::verify(&signed, &trusted, "shop", 7),
            Ok((note(), trusted[0]))
        );
        for (model, generation, field) in [("other", 7, "model"), ("shop", 8, "encoder_generation")]
        {
            let error = TextEncoderNote::verify(&signed, &trusted, model, generation);
            assert!(error.expect_err("another").to_string().starts_with(field));
        }
        let error = verify(&note().sign(&key(2)));
        assert!(matches!(error, Err(ManifestError::UnknownKey { .. })));
        let text = String::from_utf8(signed).expect("JSON");
        let changed = text.replace("generation\\\":7", "generation\\\":8");
        assert_ne!(changed, text);
        let error = TextEncoderNote::verify(changed.as_bytes(), &trusted, "shop", 8);
        assert!(matches!(error, Err(ManifestError::Signature { .. })));
        let error = verify(&vec![b' '; TEXT_ENCODER_NOTE_BYTES_MAX + 1]);
        assert!(matches!(error, Err(ManifestError::TooLong { .. })));
    }

    #[test]
    fn other_formats_and_files_out_of_bounds_are_refused_by_name() {
        let later = TextEncoderNote {
            format_version: FORMAT_VERSION + 1,
            ..note()
        };
        let error = verify(&later.sign(&key(1)));
        assert_eq!(
            error,
            Err(ManifestError::FormatVersion {
                actual: FORMAT_VERSION + 1
            })
        );
        for (bytes, is_sound) in [
            (0, false),
            (1, true),
            (TEXT_ENCODER_BYTES_MAX, true),
            (TEXT_ENCODER_BYTES_MAX + 1, false),
        ] {
            let id = BlobId::of(b"file");
            let text_encoder = TextEncoderKind::Packed(BlobRef { id, bytes });
            assert_eq!(verify(&signed(text_encoder)).is_ok(), is_sound, "{bytes}");
        }
        let blob = |bytes| BlobRef {
            id: BlobId::of(b"file"),
            bytes,
        };
        for (base, change, is_sound) in [
            (1, 1, true),
            (0, 1, false),
            (1, 0, false),
            (TEXT_ENCODER_BYTES_MAX, TEXT_CHANGE_BYTES_MAX, true),
            (1, TEXT_CHANGE_BYTES_MAX + 1, false),
        ] {
            let text_encoder = TextEncoderKind::Changed {
                base: blob(base),
                change: blob(change),
            };
            assert_eq!(
                verify(&signed(text_encoder)).is_ok(),
                is_sound,
                "{base} {change}"
            );
        }
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
