//! Golden file of the rules of operators, as a server signs them for pages.

use ed25519_dalek::SigningKey;
use shared_model::manifest::{FORMAT_VERSION, ModerationNote};

use crate::fixtures::{MODEL, moderation_note};
use crate::golden::assert_golden;

#[test]
fn the_note_on_moderation_is_golden() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let signed = moderation_note().sign(&key);
    assert_golden(&format!("moderation-note.v{FORMAT_VERSION}.json"), &signed);
    let trusted = [key.verifying_key()];
    let verified = ModerationNote::verify(&signed, &trusted, MODEL);
    assert_eq!(verified, Ok((moderation_note(), trusted[0])));
}
