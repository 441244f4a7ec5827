//! Broken bytes give a typed error, never a panic and never a state.

use proptest::prelude::*;
use rand::Rng;
use shared_model::codec::delta::{apply_delta, encode_delta, read_delta_header};
use shared_model::codec::snapshot::{decode_snapshot, encode_snapshot};
use shared_model::codec::state::CodeState;
use shared_model::codec::{CodecError, DELTA_FORMAT_VERSION, SNAPSHOT_FORMAT_VERSION};
use shared_model::ids::Version;
use shared_model::spec::ModelSpec;

use crate::fixtures::{random_spec, random_state, random_successor, reseal, rng, tiny_spec};

fn base_target_and_delta(seed: u64) -> (CodeState, CodeState, Vec<u8>) {
    let rng = &mut rng(seed);
    // Wide enough for id rows to be coded as rows that move whole.
    let spec = ModelSpec {
        embedding_dim: 12,
        ..tiny_spec()
    };
    let base = random_state(spec, 8, rng);
    let target = random_successor(&base, rng);
    let bytes = encode_delta(&base, Version(1), &target, Version(2)).expect("a successor");
    (base, target, bytes)
}

/// One random act of damage.
fn damage(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    let byte_idx = rng.random_range(0..bytes.len());
    match rng.random_range(0..5) {
        0 => bytes[byte_idx] ^= 1 << rng.random_range(0..8),
        1 => bytes[byte_idx] = rng.random(),
        2 => bytes.truncate(byte_idx),
        3 => bytes.insert(byte_idx, rng.random()),
        _ => bytes.extend_from_within(byte_idx..),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_deltas_are_refused_behind_the_checksum_too(seed: u64) {
        let (base, target, mut bytes) = base_target_and_delta(seed);
        damage(&mut bytes, &mut rng(seed));
        reseal(&mut bytes);
        match apply_delta(&base, &bytes) {
            Ok(state) => prop_assert_eq!(state, target), // other versions in the header, or nothing was changed
            Err(_) => {}
        }
    }

    #[test]
    fn damaged_snapshots_are_refused_behind_the_checksum_too(seed: u64) {
        let rng = &mut rng(seed);
        let spec = random_spec(rng);
        let state = random_state(spec, 5, rng);
        let mut bytes = encode_snapshot(&state, Version(1)).expect("valid state");
        damage(&mut bytes, rng);
        reseal(&mut bytes);
        if let Ok((_, decoded)) = decode_snapshot(&bytes) {
            prop_assert_eq!(decoded, state);
        }
    }

    #[test]
    fn noise_behind_a_valid_header_is_refused(seed: u64, noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (base, target, mut bytes) = base_target_and_delta(seed);
        bytes.truncate(89);
        bytes.extend(noise);
        reseal(&mut bytes);
        if let Ok(state) = apply_delta(&base, &bytes) {
            prop_assert_eq!(state, target);
        }
    }
}

#[test]
fn every_truncation_of_a_delta_is_refused() {
    let (base, _, bytes) = base_target_and_delta(1);
    for len in 0..bytes.len() {
        assert!(apply_delta(&base, &bytes[..len]).is_err(), "{len} bytes");
        let mut resealed = bytes[..len].to_vec();
        reseal(&mut resealed);
        assert!(
            apply_delta(&base, &resealed).is_err(),
            "{len} bytes resealed"
        );
    }
}

#[test]
fn every_truncation_of_a_snapshot_is_refused() {
    let state = random_state(tiny_spec(), 4, &mut rng(2));
    let bytes = encode_snapshot(&state, Version(1)).expect("valid state");
    for len in 0..bytes.len() {
        assert!(decode_snapshot(&bytes[..len]).is_err(), "{len} bytes");
        let mut resealed = bytes[..len].to_vec();
        reseal(&mut resealed);
        assert!(decode_snapshot(&resealed).is_err(), "{len} bytes resealed");
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let (base, _, delta) = base_target_and_delta(3);
    let snapshot = encode_snapshot(&base, Version(1)).expect("valid state");
    for bit_idx in 0..8 * delta.len() {
        let mut flipped = delta.clone();
        flipped[bit_idx / 8] ^= 1 << (bit_idx % 8);
        assert!(
            apply_delta(&base, &flipped).is_err(),
            "bit {bit_idx} of the delta"
        );
    }
    for bit_idx in 0..8 * snapshot.len() {
        let mut flipped = snapshot.clone();
        flipped[bit_idx / 8] ^= 1 << (bit_idx % 8);
        assert!(
            decode_snapshot(&flipped).is_err(),
            "bit {bit_idx} of the snapshot"
        );
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let (base, _, delta) = base_target_and_delta(4);
    let snapshot = encode_snapshot(&base, Version(1)).expect("valid state");
    for num_trailing in 1..9 {
        let longer = [&delta[..], &[0; 8][..num_trailing]].concat();
        assert_eq!(apply_delta(&base, &longer), Err(CodecError::Checksum));
        let longer = [&snapshot[..], &[0; 8][..num_trailing]].concat();
        assert_eq!(decode_snapshot(&longer), Err(CodecError::Checksum));
    }
    for trailing in [&[0; 5][..], &[7; 100]] {
        let mut longer = [&delta[..], trailing].concat();
        reseal(&mut longer);
        assert_eq!(apply_delta(&base, &longer), Err(CodecError::TrailingBytes));
        let mut longer = [&snapshot[..], trailing].concat();
        reseal(&mut longer);
        assert_eq!(decode_snapshot(&longer), Err(CodecError::TrailingBytes));
    }
}

#[test]
fn another_base_is_named_in_the_refusal() {
    let (base, target, bytes) = base_target_and_delta(5);
    let refusal = apply_delta(&target, &bytes);
    assert_eq!(
        refusal,
        Err(CodecError::WrongBase {
            expected: base.hash(),
            actual: target.hash()
        })
    );
}

#[test]
fn other_formats_and_versions_are_named_in_the_refusal() {
    let (base, _, mut delta) = base_target_and_delta(6);
    let mut snapshot = encode_snapshot(&base, Version(1)).expect("valid state");
    assert_eq!(
        apply_delta(&base, &snapshot),
        Err(CodecError::Magic { expected: "delta" })
    );
    assert_eq!(
        decode_snapshot(&delta),
        Err(CodecError::Magic {
            expected: "snapshot"
        })
    );
    let next_version = DELTA_FORMAT_VERSION + 1;
    delta[4] = next_version;
    snapshot[4] = 0;
    assert_eq!(
        read_delta_header(&delta),
        Err(CodecError::FormatVersion {
            actual: next_version,
            expected: DELTA_FORMAT_VERSION
        })
    );
    assert_eq!(
        decode_snapshot(&snapshot),
        Err(CodecError::FormatVersion {
            actual: 0,
            expected: SNAPSHOT_FORMAT_VERSION
        })
    );
}

#[test]
fn length_bombs_are_refused_before_memory_is_taken() {
    let state = random_state(tiny_spec(), 4, &mut rng(7));
    let snapshot = encode_snapshot(&state, Version(1)).expect("valid state");
    let mut many_items = snapshot.clone();
    many_items[61..65].copy_from_slice(&u32::MAX.to_le_bytes());
    reseal(&mut many_items);
    assert!(matches!(
        decode_snapshot(&many_items),
        Err(CodecError::State(_))
    ));
    let mut long_spec = snapshot.clone();
    long_spec[65..67].copy_from_slice(&u16::MAX.to_le_bytes());
    reseal(&mut long_spec);
    assert!(matches!(
        decode_snapshot(&long_spec),
        Err(CodecError::Limit { .. })
    ));
    let claimed = 1_u32 << 20;
    let mut missing_items = snapshot;
    missing_items[61..65].copy_from_slice(&claimed.to_le_bytes());
    reseal(&mut missing_items);
    assert!(decode_snapshot(&missing_items).is_err());
}
