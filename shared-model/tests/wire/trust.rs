//! Signatures, limits and expiry of what is signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::Value;
use shared_model::ids::Version;
use shared_model::manifest::{
    ANNOUNCEMENT_BYTES_MAX, KeyList, MANIFEST_BYTES_MAX, Manifest, ManifestError, PLAN_BYTES_MAX,
    PublicKey, key_id, parse_announcement, parse_key_list, parse_plan, parse_public_key,
    public_key_text, sign, verify,
};

use crate::fixtures::Publisher;

fn signed() -> (SigningKey, Manifest, Vec<u8>) {
    let publisher = Publisher::new(1);
    let newest = publisher.newest();
    (
        publisher.key.clone(),
        newest.manifest.clone(),
        newest.signed.clone(),
    )
}

/// The envelope with its payload changed and signed anew, as a careless server would.
fn resigned(key: &SigningKey, manifest: &Manifest, change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut payload = serde_json::to_value(manifest).expect("serializes");
    change(&mut payload);
    let payload = payload.to_string();
    let signature = STANDARD.encode(key.sign(payload.as_bytes()).to_bytes());
    let envelope = serde_json::json!({"payload": payload, "key_id": key_id(&key.verifying_key()), "signature": signature});
    envelope.to_string().into_bytes()
}

#[test]
fn a_signed_manifest_survives() {
    let (key, manifest, signed) = signed();
    assert_eq!(verify(&signed, &[key.verifying_key()]), Ok(manifest));
}

#[test]
fn refuses_unknown_keys_and_other_signatures() {
    let (key, manifest, signed) = signed();
    let other = SigningKey::from_bytes(&[8; 32]);
    assert!(matches!(
        verify(&signed, &[other.verifying_key()]),
        Err(ManifestError::UnknownKey { .. })
    ));
    assert!(matches!(
        verify(&signed, &[]),
        Err(ManifestError::UnknownKey { .. })
    ));

    let forged = String::from_utf8(sign(&manifest, &other)).expect("text");
    let forged = forged.replace(
        &key_id(&other.verifying_key()),
        &key_id(&key.verifying_key()),
    );
    assert!(matches!(
        verify(forged.as_bytes(), &[key.verifying_key()]),
        Err(ManifestError::Signature { .. })
    ));
}

#[test]
fn every_flipped_bit_of_a_signed_manifest_is_refused() {
    let (key, manifest, signed) = signed();
    for bit_idx in 0..8 * signed.len() {
        let mut flipped = signed.clone();
        flipped[bit_idx / 8] ^= 1 << (bit_idx % 8);
        if let Ok(verified) = verify(&flipped, &[key.verifying_key()]) {
            assert_eq!(verified, manifest, "bit {bit_idx}");
        }
    }
}

#[test]
fn every_truncation_of_a_signed_manifest_is_refused() {
    let (key, _, signed) = signed();
    for len in 0..signed.len() {
        assert!(
            verify(&signed[..len], &[key.verifying_key()]).is_err(),
            "{len} bytes"
        );
    }
}

#[test]
fn refuses_signed_nonsense() {
    let (key, manifest, _) = signed();
    let refusal = |change: fn(&mut Value)| {
        verify(&resigned(&key, &manifest, change), &[key.verifying_key()])
            .expect_err("must be refused")
    };
    let format = refusal(|payload| payload["format_version"] = 2.into());
    assert_eq!(format, ManifestError::FormatVersion { actual: 2 });
    let nonsense: [fn(&mut Value); 9] = [
        |payload| payload["model"] = "".into(),
        |payload| payload["self_test"]["scores"] = serde_json::json!([1e39]),
        |payload| payload["self_test"]["scores"] = serde_json::json!([1.0, 2.0]),
        |payload| payload["self_test"]["tolerance"] = (-1.0).into(),
        |payload| payload["learned_from"] = 11.into(),
        |payload| payload["expires_at"] = 0.into(),
        |payload| payload["snapshot"]["bytes"] = u64::MAX.into(),
        |payload| payload["state"] = "00".into(),
        |payload| payload["self_test"]["item_ids"] = vec!["x"; 1025].into(),
    ];
    for change in nonsense {
        let error = refusal(change);
        let is_typed = matches!(
            error,
            ManifestError::Field { .. } | ManifestError::Json { .. } | ManifestError::ModelName(_)
        );
        assert!(is_typed, "{error}");
    }
}

#[test]
fn refuses_texts_beyond_their_limits_unread() {
    let long = |len: usize| vec![b' '; len + 1];
    let is_too_long =
        |error: Option<ManifestError>| matches!(error, Some(ManifestError::TooLong { .. }));
    assert!(is_too_long(verify(&long(MANIFEST_BYTES_MAX), &[]).err()));
    assert!(is_too_long(parse_plan(&long(PLAN_BYTES_MAX)).err()));
    assert!(is_too_long(
        parse_announcement(&long(ANNOUNCEMENT_BYTES_MAX)).err()
    ));
}

#[test]
fn expiry_is_a_matter_of_the_clock_passed_in() {
    let (_, manifest, _) = signed();
    assert_eq!(manifest.check_expiry(manifest.expires_at), Ok(()));
    let late = manifest.check_expiry(manifest.expires_at + 1);
    assert!(matches!(
        late,
        Err(ManifestError::Expired {
            version: Version(1),
            ..
        })
    ));
}

#[test]
fn keys_survive_as_text_and_lists() {
    let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
    assert_eq!(parse_public_key(&public_key_text(&key)), Ok(key));
    assert_eq!(key_id(&key).len(), 16);
    let mut list = KeyList {
        keys: vec![PublicKey::from(&key)],
        key_sets: Vec::new(),
    };
    let json = serde_json::to_vec(&list).expect("serializes");
    assert_eq!(parse_key_list(&json), Ok(vec![key]));
    list.keys[0].key_id = "0123456789abcdef".to_owned();
    let json = serde_json::to_vec(&list).expect("serializes");
    assert!(matches!(
        parse_key_list(&json),
        Err(ManifestError::UnknownKey { .. })
    ));
    for text in ["", "AAAA", "not base64", &"A".repeat(65)] {
        assert!(parse_public_key(text).is_err(), "{text}");
    }
    let mut identity_point = [0; 32];
    identity_point[0] = 1;
    let weak = STANDARD.encode(identity_point);
    assert_eq!(parse_public_key(&weak), Err(ManifestError::PublicKey));
}
