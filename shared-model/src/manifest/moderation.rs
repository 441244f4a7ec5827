//! What a server signs about the rules of its operators: which items no page shows, and which have a place or points.
//!
//! ```text
//! signed note = {"payload": "<note as JSON text>", "key_id": "<16 hex digits>", "signature": "<base64>"}
//! note        = {"format_version": 1, "model", "revision", "created_at", "key_set"?,
//!                "rules": {"block": ["item", …], "pin": [{"item_id", "position"}, …],
//!                          "points": [{"item_ids": […], "points"}, …]}}
//! ```
//! It is signed when it is asked for and never expires. The revision only grows, and a page refuses one below that of the
//! rules it has (`edge::engine::moderation`).
//! Its payload has fields that other signed texts lack and lacks some of theirs, so none can be taken for another.

use std::collections::BTreeSet;

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::envelope::{seal, unseal_note};
use super::{ManifestError, Stamp, field};
use crate::ids::{ItemId, check_id};

/// Largest signed note, in bytes.
pub const MODERATION_NOTE_BYTES_MAX: usize = 256 << 10;

/// Most items with a place of their own.
pub const MODERATION_PINS_MAX: usize = 300;

/// Most points of a rule, of a page or an operator, and of all on one item: further apart than any two scores, and small
/// enough that f32 still tells scores apart.
pub const POINTS_MAX: f64 = 100.0;

/// Rules of operators, by item.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModerationRules {
    /// Items without any place.
    pub block: Vec<ItemId>,
    /// Items with a place of their own; no item and no place twice.
    pub pin: Vec<PinnedItem>,
    /// Points for, or below 0 against, some items.
    pub points: Vec<ItemPoints>,
}

/// An item and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedItem {
    /// Which item.
    pub item_id: ItemId,
    /// Zero-based.
    pub position: u32,
}

/// Points of some items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemPoints {
    /// Which items.
    pub item_ids: Vec<ItemId>,
    /// Added to the score, at most [`POINTS_MAX`] either way.
    pub points: f64,
}

/// The rules that hold, as they are signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModerationNote {
    /// [`super::FORMAT_VERSION`].
    pub format_version: u32,
    /// Name of the model.
    pub model: String,
    /// Rises with every change.
    pub revision: u64,
    /// When it was signed, milliseconds since 1970-01-01 UTC.
    pub created_at: i64,
    /// Number of the key set that it was signed under, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_set: Option<u64>,
    /// What holds.
    pub rules: ModerationRules,
}

impl ModerationRules {
    /// Checks every number.
    ///
    /// # Errors
    /// The first that is out of bounds.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.pin.len() > MODERATION_PINS_MAX {
            return Err(field("pin", self.pin.len(), "at most 300 items"));
        }
        let (mut items, mut positions) = (BTreeSet::new(), BTreeSet::new());
        for pin in &self.pin {
            if !items.insert(&pin.item_id) {
                return Err(field("pin.item_id", &pin.item_id, "each item once"));
            }
            if !positions.insert(pin.position) {
                return Err(field("pin.position", pin.position, "each position once"));
            }
        }
        let mut points = self.points.iter().map(|rule| rule.points);
        match points.find(|points| !(-POINTS_MAX..=POINTS_MAX).contains(points)) {
            Some(points) => Err(field("points.points", points, "-100 to 100")),
            None => Ok(()),
        }
    }
}

impl ModerationNote {
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

    /// Checks signature, format version, every length and number, and that it is about this model; says who signed.
    ///
    /// # Errors
    /// Not signed by one of `trusted`, malformed, or about another model.
    pub fn verify(
        bytes: &[u8],
        trusted: &[VerifyingKey],
        model: &str,
    ) -> Result<(Self, VerifyingKey), ManifestError> {
        let what = "note on moderation";
        let (note, signer): (Self, _) =
            unseal_note(what, MODERATION_NOTE_BYTES_MAX, bytes, trusted)?;
        check_id(&note.model)?;
        if note.model != model {
            return Err(field("model", note.model, "the model that is followed"));
        }
        note.rules.check()?;
        Ok((note, *signer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{self, FORMAT_VERSION};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn item(id: &str) -> ItemId {
        ItemId::new(id).expect("short")
    }

    fn pin(id: &str, position: u32) -> PinnedItem {
        let item_id = item(id);
        PinnedItem { item_id, position }
    }

    fn note() -> ModerationNote {
        ModerationNote {
            format_version: FORMAT_VERSION,
            model: "shop".to_owned(),
            revision: 3,
            created_at: 1_700_000_001_000,
            key_set: None,
            rules: ModerationRules {
                block: vec![item("a")],
                pin: vec![pin("b", 0)],
                points: vec![ItemPoints {
                    item_ids: vec![item("c")],
                    points: -2.5,
                }],
            },
        }
    }

    fn verify(signed: &[u8]) -> Result<ModerationNote, ManifestError> {
        let trusted = [key(1).verifying_key()];
        ModerationNote::verify(signed, &trusted, "shop").map(|(note, _)| note)
    }

    #[test]
    fn a_signed_note_is_believed_for_its_model_alone_and_as_it_was_signed() {
        let signed = note().sign(&key(1));
        assert_eq!(verify(&signed), Ok(note()));
        let trusted = [key(1).verifying_key()];
        let error = ModerationNote::verify(&signed, &trusted, "other").expect_err("another");
        assert_eq!(
            error.to_string(),
            "model is shop, expected the model that is followed"
        );
        let error = verify(&note().sign(&key(2)));
        assert!(matches!(error, Err(ManifestError::UnknownKey { .. })));
        let text = String::from_utf8(signed).expect("JSON");
        let changed = text.replace("revision\\\":3", "revision\\\":4");
        assert_ne!(changed, text);
        let error = verify(changed.as_bytes());
        assert!(matches!(error, Err(ManifestError::Signature { .. })));
        let error = verify(&vec![b' '; MODERATION_NOTE_BYTES_MAX + 1]);
        assert!(matches!(error, Err(ManifestError::TooLong { .. })));
    }

    #[test]
    fn rules_out_of_bounds_are_refused_by_name_and_those_at_the_bounds_are_not() {
        let refusal = |change: fn(&mut ModerationNote)| {
            let mut note = note();
            change(&mut note);
            let verified = verify(&note.sign(&key(1)));
            verified.map_err(|error| error.to_string()).err()
        };
        let most = |note: &mut ModerationNote| {
            let pins = 0..300;
            note.rules.pin = pins.map(|at| pin(&format!("i{at}"), at)).collect();
            note.rules.points[0].points = POINTS_MAX;
        };
        assert_eq!(refusal(most), None);
        for (change, expected) in [
            (
                (|note| note.format_version += 1) as fn(&mut ModerationNote),
                "manifest format version 2 is not supported, expected 1",
            ),
            (
                |note| note.rules.points[0].points = -100.5,
                "points.points is -100.5, expected -100 to 100",
            ),
            (
                |note| note.rules.pin.push(pin("c", 0)),
                "pin.position is 0, expected each position once",
            ),
            (
                |note| note.rules.pin.push(pin("b", 1)),
                "pin.item_id is b, expected each item once",
            ),
            (
                |note| note.rules.pin = vec![pin("b", 1); 301],
                "pin is 301, expected at most 300 items",
            ),
        ] {
            assert_eq!(refusal(change).as_deref(), Some(expected));
        }
    }

    #[test]
    fn notes_and_manifests_are_not_taken_for_each_other() {
        let trusted = [key(1).verifying_key()];
        let error = manifest::verify(&note().sign(&key(1)), &trusted);
        assert!(
            matches!(error, Err(ManifestError::Json { .. })),
            "{error:?}"
        );
        let golden = include_bytes!("../../tests/golden/manifest.v1.json");
        let manifest: serde_json::Value = serde_json::from_slice(golden).expect("JSON");
        let payload = manifest["payload"].as_str().expect("a text");
        assert!(serde_json::from_str::<ModerationNote>(payload).is_err());
    }
}
