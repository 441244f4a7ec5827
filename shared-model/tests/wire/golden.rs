//! Golden files: fixed tiny inputs give these very bytes for ever.
//!
//! A layout change needs a new format version, hence new file names, and `FRESHET_WRITE_GOLDEN=1 cargo test golden`.
//! Files of earlier versions stay and must be refused with their version named.

use std::fs;
use std::path::PathBuf;

use shared_model::codec::delta::{apply_delta, encode_delta};
use shared_model::codec::snapshot::{decode_snapshot, encode_snapshot};
use shared_model::codec::state::{
    CodeState, ItemEntry, NEIGHBOUR_WEIGHTS_TENSOR, NEIGHBOURS_TENSOR, NEVER_CODE, StateError,
};
use shared_model::codec::{self, CodecError, quantize::rescale_code};
use shared_model::ids::{ItemId, Version};
use shared_model::manifest::{self, verify};
use shared_model::spec::ModelSpec;

use crate::fixtures::{Published, Publisher, announcement_of, manifest_of, tiny_spec};
use ed25519_dalek::SigningKey;

/// A committed file.
pub(crate) fn golden(name: &str) -> Vec<u8> {
    let path = golden_path(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{error}: {}", path.display()))
}

fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Compares with the committed file; writes it only where there is none and it was asked for.
pub(crate) fn assert_golden(name: &str, actual: &[u8]) {
    let path = golden_path(name);
    let is_asked_to_write = std::env::var_os("FRESHET_WRITE_GOLDEN").is_some();
    if is_asked_to_write && !path.exists() {
        fs::write(&path, actual).expect("golden folder is writable");
    }
    let expected = golden(name);
    let first_difference = expected
        .iter()
        .zip(actual)
        .position(|(expected, actual)| expected != actual);
    assert!(
        expected == actual,
        "{name} changed at byte {first_difference:?} ({} bytes, now {}): a layout change needs a new format version",
        expected.len(),
        actual.len(),
    );
}

fn item(id: &str, available: bool) -> ItemEntry {
    ItemEntry {
        item_id: ItemId::new(id).expect("valid"),
        available,
    }
}

/// Three items, every tensor filled with a fixed pattern.
fn base_state() -> CodeState {
    let mut state = CodeState::empty(tiny_spec());
    state.encoder_generation = 1;
    state.landmark_millis = 1_700_000_000_000;
    state.append_items([
        item("apple", true),
        item("apricot", false),
        item("größe", true),
    ]);
    for (tensor_idx, tensor) in state.tensors.iter_mut().enumerate() {
        for (code_idx, code) in tensor.codes.iter_mut().enumerate() {
            *code = ((37 * code_idx + 11 * tensor_idx) % 255) as i16 - 127; // 0 to 254
        }
    }
    state.tensor_mut("item.counts").expect("in the spec").codes[2] = NEVER_CODE;
    state
        .tensor_mut("item.id_rows")
        .expect("in the spec")
        .exponents[1] = -9;
    state
}

/// One of everything that a delta can say.
fn target_state() -> CodeState {
    let mut state = base_state();
    state.landmark_millis += 1;
    state.items[1].available = true;
    state.append_items([item("banana", true)]);
    let id_rows = state.tensor_mut("item.id_rows").expect("in the spec");
    id_rows.codes[0] += 1;
    id_rows.exponents[1] = -8;
    for code in id_rows.row_mut(1) {
        *code = rescale_code(*code, 1, 8);
    }
    id_rows.row_mut(3).copy_from_slice(&[1, -2, 0, 127]);
    let counts = state.tensor_mut("item.counts").expect("in the spec");
    counts.row_mut(0).copy_from_slice(&[320, 40]);
    counts.row_mut(1).copy_from_slice(&[321, 43]);
    counts.row_mut(3).copy_from_slice(&[320, NEVER_CODE]);
    state.tensor_mut("final_norm").expect("in the spec").codes[3] = 16_384;
    state
}

#[test]
fn state_hashes_are_golden() {
    let hashes = format!("{}\n{}\n", base_state().hash(), target_state().hash());
    assert_golden("state-hashes.v1.txt", hashes.as_bytes());
}

#[test]
fn delta_is_golden() {
    let (base, target) = (base_state(), target_state());
    let bytes = encode_delta(&base, Version(41), &target, Version(42)).expect("a successor");
    assert_golden(
        &format!("delta.v{}.bin", codec::DELTA_FORMAT_VERSION),
        &bytes,
    );
    assert_eq!(apply_delta(&base, &bytes), Ok(target));
}

#[test]
fn deltas_of_earlier_layouts_are_refused_by_name() {
    for (actual, name) in [
        (1, "delta.v1.bin"),
        (1, "delta-neighbours.v1.bin"),
        (2, "delta.v2.bin"),
        (2, "delta-neighbours.v2.bin"),
    ] {
        let refused = apply_delta(&base_state(), &golden(name));
        let expected = codec::DELTA_FORMAT_VERSION;
        assert_eq!(refused, Err(CodecError::FormatVersion { actual, expected }));
    }
}

/// Id rows of twelve columns that hang together, and a version in which most of them moved whole.
fn moved_states() -> (CodeState, CodeState) {
    let mut base = CodeState::empty(ModelSpec {
        embedding_dim: 12,
        ..tiny_spec()
    });
    base.append_items((0..24).map(|item_idx| item(&format!("item-{item_idx}"), true)));
    let step = |row_idx: usize, col_idx: usize| {
        let common = (5 * row_idx % 23) as i16 - 11;
        let own = ((7 * row_idx + 3 * col_idx) % 5) as i16 - 2;
        common * (col_idx % 3 + 1) as i16 + own
    };
    let id_rows = base.tensor_mut("item.id_rows").expect("in the spec");
    for row_idx in 0..24 {
        for (col_idx, code) in id_rows.row_mut(row_idx).iter_mut().enumerate() {
            *code = step(row_idx + 9, col_idx);
        }
    }
    let mut target = base.clone();
    let id_rows = target.tensor_mut("item.id_rows").expect("in the spec");
    id_rows.exponents[3] += 1;
    for row_idx in 1..22 {
        for (col_idx, code) in id_rows.row_mut(row_idx).iter_mut().enumerate() {
            *code = (*code + step(row_idx, col_idx)).clamp(-127, 127);
        }
    }
    id_rows.row_mut(22).fill(127);
    id_rows.row_mut(23).fill(-127);
    (base, target)
}

#[test]
fn rows_that_move_whole_are_golden() {
    let (base, target) = moved_states();
    let bytes = encode_delta(&base, Version(1), &target, Version(2)).expect("a successor");
    let version = codec::DELTA_FORMAT_VERSION;
    assert_golden(&format!("delta-moved.v{version}.bin"), &bytes);
    assert_eq!(apply_delta(&base, &bytes), Ok(target));
}

#[test]
fn snapshot_is_golden() {
    let state = target_state();
    let bytes = encode_snapshot(&state, Version(42)).expect("valid state");
    assert_golden(
        &format!("snapshot.v{}.bin", codec::SNAPSHOT_FORMAT_VERSION),
        &bytes,
    );
    assert_eq!(decode_snapshot(&bytes), Ok((Version(42), state)));
}

#[test]
fn snapshots_of_the_layout_before_are_read() {
    assert_eq!(
        decode_snapshot(&golden("snapshot.v1.bin")),
        Ok((Version(42), target_state()))
    );
    assert_eq!(
        decode_snapshot(&golden("snapshot-neighbours.v1.bin")),
        Ok((Version(7), neighbour_states().0))
    );
}

/// A state whose items list neighbours, and one in which a list has changed.
fn neighbour_states() -> (CodeState, CodeState) {
    let mut base = CodeState::empty(ModelSpec {
        num_neighbours: 2,
        ..tiny_spec()
    });
    base.append_items([
        item("apple", true),
        item("apricot", true),
        item("fig", true),
    ]);
    let write = |state: &mut CodeState, row_idx: usize, codes: [i16; 2], weights: [i16; 2]| {
        let lists = state.tensor_mut(NEIGHBOURS_TENSOR).expect("in the spec");
        lists.row_mut(row_idx).copy_from_slice(&codes);
        let table = state
            .tensor_mut(NEIGHBOUR_WEIGHTS_TENSOR)
            .expect("in the spec");
        table.exponents[row_idx] = -7;
        table.row_mut(row_idx).copy_from_slice(&weights);
    };
    write(&mut base, 0, [2, 3], [90, 17]);
    write(&mut base, 1, [1, 0], [90, 0]);
    let mut target = base.clone();
    write(&mut target, 1, [1, 3], [88, 64]);
    (base, target)
}

#[test]
fn neighbours_are_golden() {
    let (base, target) = neighbour_states();
    let snapshot = encode_snapshot(&base, Version(7)).expect("valid state");
    let delta = encode_delta(&base, Version(7), &target, Version(8)).expect("a successor");
    let version = codec::SNAPSHOT_FORMAT_VERSION;
    assert_golden(&format!("snapshot-neighbours.v{version}.bin"), &snapshot);
    let version = codec::DELTA_FORMAT_VERSION;
    assert_golden(&format!("delta-neighbours.v{version}.bin"), &delta);
    assert_eq!(decode_snapshot(&snapshot), Ok((Version(7), base.clone())));
    assert_eq!(apply_delta(&base, &delta), Ok(target));
}

#[test]
fn a_neighbour_that_is_no_item_of_the_catalogue_is_refused() {
    let (_, mut state) = neighbour_states();
    state
        .tensor_mut(NEIGHBOURS_TENSOR)
        .expect("in the spec")
        .codes[1] = 4;
    assert!(matches!(
        state.check(),
        Err(StateError::Code {
            row_idx: 0,
            actual: 4,
            ..
        })
    ));
    assert!(encode_snapshot(&state, Version(7)).is_err());
}

#[test]
fn signed_manifest_and_its_carriers_are_golden() {
    let target = target_state();
    let delta = golden("delta.v1.bin"); // any bytes: a manifest only names them
    let snapshot = golden("snapshot.v1.bin");
    let manifest = manifest_of(&target, Version(42), &delta, &snapshot);
    let key = SigningKey::from_bytes(&[7; 32]);
    let signed = manifest::sign(&manifest, &key);
    assert_golden(
        &format!("manifest.v{}.json", manifest::FORMAT_VERSION),
        &signed,
    );
    assert_eq!(
        verify(&signed, &[key.verifying_key()]),
        Ok(manifest.clone())
    );

    let published = Published {
        state: target,
        manifest,
        signed,
        delta,
        snapshot,
    };
    let announcement = announcement_of(&published, true);
    assert_golden(
        &format!("announcement.v{}.json", manifest::FORMAT_VERSION),
        &announcement,
    );
    let publisher = Publisher {
        key,
        versions: vec![published],
    };
    assert_golden(
        &format!("plan.v{}.json", manifest::FORMAT_VERSION),
        &publisher.plan(None),
    );
}
