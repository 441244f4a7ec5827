//! What is fuzzed: each target takes any bytes, and panics where a promise of the formats is broken.
//!
//! `fuzz/` runs them under libFuzzer, see `docs/fuzzing.md`; the test below runs each over its seeds, whole and damaged.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::json;
use shared_model::codec::delta::{
    DELTA_HEADER_BYTES, apply_delta, encode_delta, read_delta_header,
};
use shared_model::codec::snapshot::{decode_snapshot, encode_snapshot};
use shared_model::codec::state::CodeState;
use shared_model::edge::sync::{EdgeClock, EdgeRequest, EdgeSync, Trust};
use shared_model::ids::{BlobId, Version};
use shared_model::manifest::{
    BlobRef, FORMAT_VERSION, KEY_SET_FORMAT_VERSION, KeyList, KeySet, ModerationNote,
    TextEncoderKind, TextEncoderNote, key_id, online_key, parse_announcement, parse_key_list,
    parse_key_sets, parse_plan, public_key_text, sign, sign_key_set, verify, verify_key_set,
};

use super::fixtures::{
    MODEL, Publisher, append_random_items, moderation_note, random_spec, random_state,
    random_successor, reseal, rng,
};

/// A target, and inputs from which a fuzzer starts.
pub(crate) struct Target {
    /// Of the file in `fuzz/fuzz_targets`.
    pub(crate) name: &'static str,
    /// Takes any bytes.
    pub(crate) run: fn(&[u8]),
    /// Sound inputs.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub(crate) const TARGETS: [Target; 6] = [
    target("delta", delta, delta_seeds),
    target("snapshot", snapshot, snapshot_seeds),
    target("edits", edits, edit_seeds),
    target("manifest", manifest, manifest_seeds),
    target("key_sets", key_sets, key_set_seeds),
    target("sync", sync, sync_seeds),
];

const NUM_PAIRS: usize = 4;
/// Of the fixtures' manifests.
const CREATED_AT: i64 = 1_700_000_001_000;
const YEAR_MILLIS: i64 = 365 * 86_400_000;

static PAIRS: LazyLock<Vec<Pair>> =
    LazyLock::new(|| (0..NUM_PAIRS as u64).map(Pair::random).collect());

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

/// A state, one that follows it, and the delta between them.
struct Pair {
    base: CodeState,
    target: CodeState,
    delta: Vec<u8>,
}

impl Pair {
    fn random(seed: u64) -> Self {
        let rng = &mut rng(seed);
        let base = random_state(random_spec(rng), 8, rng);
        let target = random_successor(&base, rng);
        let delta = encode_delta(&base, Version(1), &target, Version(2)).expect("a successor");
        Self {
            base,
            target,
            delta,
        }
    }
}

/// The first byte picks a pair of states, the rest is a delta's body behind a sound header.
fn delta(bytes: &[u8]) {
    if let Ok(header) = read_delta_header(bytes) {
        assert!(bytes.len() >= DELTA_HEADER_BYTES, "{header:?}");
    }
    let Some((first, body)) = bytes.split_first() else {
        return;
    };
    let pair = &PAIRS[usize::from(*first) % NUM_PAIRS];
    let mut framed = [&pair.delta[..DELTA_HEADER_BYTES], body].concat();
    reseal(&mut framed);
    if let Ok(state) = apply_delta(&pair.base, &framed) {
        assert_eq!(state, pair.target, "another state with the same hash");
    }
    let unframed = apply_delta(&pair.base, bytes);
    assert!(unframed.is_err() || bytes == pair.delta);
}

fn delta_seeds() -> Vec<Vec<u8>> {
    let body = |(pair_idx, pair): (usize, &Pair)| {
        [&[pair_idx as u8], &pair.delta[DELTA_HEADER_BYTES..]].concat() // four pairs
    };
    PAIRS.iter().enumerate().map(body).collect()
}

/// A snapshot behind a checksum that fits.
fn snapshot(bytes: &[u8]) {
    let mut sealed = bytes.to_vec();
    reseal(&mut sealed);
    let Ok((version, state)) = decode_snapshot(&sealed) else {
        return;
    };
    assert_eq!(state.check(), Ok(()));
    let again = encode_snapshot(&state, version).expect("it was decoded");
    assert_eq!(decode_snapshot(&again), Ok((version, state)));
}

fn snapshot_seeds() -> Vec<Vec<u8>> {
    let encoded = |pair: &Pair| encode_snapshot(&pair.base, Version(1)).expect("a sound state");
    PAIRS.iter().map(encoded).collect()
}

/// Four bytes each make an edit of one code; whatever state that gives, a delta leads there.
fn edits(bytes: &[u8]) {
    let Some((first, script)) = bytes.split_first() else {
        return;
    };
    let base = &PAIRS[usize::from(*first) % NUM_PAIRS].base;
    let mut target = base.clone();
    for edit in script.chunks_exact(4) {
        apply_edit(&mut target, [edit[0], edit[1], edit[2], edit[3]]);
    }
    if target.check().is_err() {
        return;
    }
    let bytes = encode_delta(base, Version(1), &target, Version(2)).expect("a sound successor");
    assert_eq!(apply_delta(base, &bytes), Ok(target));
}

fn apply_edit(state: &mut CodeState, [tensor, row, col, value]: [u8; 4]) {
    let item_idx = usize::from(row) % state.items.len().max(1);
    match tensor {
        250 => append_random_items(state, 1, &mut rng(u64::from(value))),
        251 => state.landmark_millis = i64::from(value) << row.min(48),
        252 => state.items[item_idx].available ^= true,
        _ => {
            let tensor_idx = usize::from(tensor) % state.tensors.len();
            let tensor = &mut state.tensors[tensor_idx];
            if tensor.codes.is_empty() {
                return;
            }
            let row_idx = usize::from(row) % tensor.num_rows;
            let col_idx = usize::from(col & 0x7f) % tensor.num_cols;
            if col & 0x80 == 0 {
                tensor.row_mut(row_idx)[col_idx] = i16::from(value as i8);
            } else {
                tensor.exponents[row_idx] = value as i8;
            }
        }
    }
}

fn edit_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 0, 1, 2, 3, 0, 1, 130, 250, 1, 4, 0, 9],
        vec![1, 250, 0, 0, 1, 252, 2, 0, 0, 251, 9, 0, 7, 0, 8, 1, 5],
    ]
}

/// A manifest, note, plan or announcement as it comes; and as a payload that a trusted key has signed.
fn manifest(bytes: &[u8]) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let trusted = [key.verifying_key()];
    let _: Result<_, _> = parse_plan(bytes); // must not panic, and nothing more
    let _: Result<_, _> = parse_announcement(bytes); // likewise
    let payload = String::from_utf8_lossy(bytes);
    let signed = envelope(&payload, &key);
    for bytes in [bytes, &signed] {
        let note = |bytes: &[u8]| TextEncoderNote::verify(bytes, &trusted, MODEL, 7);
        if let Ok((sound, signer)) = note(bytes) {
            assert!(verify(bytes, &trusted).is_err(), "a note is no manifest");
            assert_eq!(note(&sound.sign(&key)), Ok((sound, signer)));
        }
        let rules = |bytes: &[u8]| ModerationNote::verify(bytes, &trusted, MODEL);
        if let Ok((sound, signer)) = rules(bytes) {
            assert!(verify(bytes, &trusted).is_err() && note(bytes).is_err());
            assert_eq!(sound.rules.check(), Ok(()));
            assert_eq!(rules(&sound.sign(&key)), Ok((sound, signer)));
        }
        let Ok(manifest) = verify(bytes, &trusted) else {
            continue;
        };
        assert_eq!(manifest.check(), Ok(()));
        assert_eq!(verify(&sign(&manifest, &key), &trusted), Ok(manifest));
    }
}

fn envelope(payload: &str, key: &SigningKey) -> Vec<u8> {
    let signature = STANDARD.encode(key.sign(payload.as_bytes()).to_bytes());
    let key_id = key_id(&key.verifying_key());
    let envelope = json!({ "payload": payload, "key_id": key_id, "signature": signature });
    serde_json::to_vec(&envelope).expect("three texts")
}

fn manifest_seeds() -> Vec<Vec<u8>> {
    let publisher = two_versions();
    let newest = publisher.newest();
    let note = TextEncoderNote {
        format_version: FORMAT_VERSION,
        model: MODEL.to_owned(),
        encoder_generation: 7,
        created_at: CREATED_AT,
        key_set: Some(2),
        text_encoder: TextEncoderKind::Packed(BlobRef {
            id: BlobId([5; 32]),
            bytes: 9,
        }),
    };
    vec![
        serde_json::to_vec(&note).expect("plain values"),
        serde_json::to_vec(&moderation_note()).expect("plain values"),
        newest.signed.clone(),
        serde_json::to_vec(&newest.manifest).expect("plain values"),
        publisher.plan(Some(Version(1))),
        publisher.announcement(true),
    ]
}

/// A list of keys or a signed key set as it comes; and a set that the root has signed.
fn key_sets(bytes: &[u8]) {
    let root = SigningKey::from_bytes(&[100; 32]);
    let trusted = [root.verifying_key()];
    let _: Result<_, _> = parse_key_list(bytes); // must not panic, and nothing more
    for text in parse_key_sets(bytes).unwrap_or_default() {
        let _: Result<_, _> = verify_key_set(text.as_bytes(), &trusted); // likewise
    }
    let believed = verify_key_set(bytes, &trusted).ok();
    let offered = serde_json::from_slice::<KeySet>(bytes).ok();
    for set in believed.into_iter().chain(offered) {
        let Ok(signed) = sign_key_set(&set, &[&root]) else {
            assert!(set.check().is_err(), "a sound set can be signed");
            continue;
        };
        let is_own_root = set.root_keys().is_ok_and(|roots| roots == trusted);
        let verified = verify_key_set(signed.as_bytes(), &trusted);
        assert!(!is_own_root || verified == Ok(set));
    }
}

fn key_set_seeds() -> Vec<Vec<u8>> {
    let set = sound_set();
    let root = SigningKey::from_bytes(&[100; 32]);
    let signed = sign_key_set(&set, &[&root]).expect("a sound set");
    vec![
        serde_json::to_vec(&set).expect("plain values"),
        signed.clone().into_bytes(),
        key_answer(signed),
    ]
}

fn sound_set() -> KeySet {
    let online = SigningKey::from_bytes(&[7; 32]);
    let root = SigningKey::from_bytes(&[100; 32]);
    KeySet {
        format_version: KEY_SET_FORMAT_VERSION,
        number: 2,
        created_at: CREATED_AT - 1000,
        expires_at: CREATED_AT + YEAR_MILLIS,
        keys: vec![online_key(
            &online.verifying_key(),
            None,
            CREATED_AT + YEAR_MILLIS,
        )],
        roots: vec![public_key_text(&root.verifying_key())],
    }
}

fn key_answer(signed: String) -> Vec<u8> {
    let list = KeyList {
        keys: Vec::new(),
        key_sets: vec![signed],
    };
    serde_json::to_vec(&list).expect("plain values")
}

/// What a page may hear and in which order. The first byte says whom it trusts; then messages of a kind, a length of two
/// bytes and that many bytes. Whatever comes, only what the publisher has made goes live.
fn sync(bytes: &[u8]) {
    follow(bytes);
}

/// How many of the messages found something live.
fn follow(bytes: &[u8]) -> usize {
    static PUBLISHER: LazyLock<Publisher> = LazyLock::new(two_versions);
    let Some((first, mut rest)) = bytes.split_first() else {
        return 0;
    };
    let mut num_live = 0;
    let root = SigningKey::from_bytes(&[100; 32]).verifying_key();
    let trust = match first % 2 {
        0 => Trust::Keys(vec![PUBLISHER.key.verifying_key()]),
        _ => Trust::Root(root),
    };
    let mut sync = EdgeSync::new(MODEL, trust);
    let mut asked = None;
    while let Some((kind, message, after)) = next_message(rest) {
        rest = after;
        asked = sync.next_request().or(asked);
        // Refusals are what is expected of noise.
        let _: Result<(), _> = match kind % 8 {
            0 => sync.on_plan(message),
            1 => sync.on_announcement(message),
            2 => match &asked {
                Some(EdgeRequest::Blob { blob }) => sync.on_blob(blob.id, message),
                _ => Ok(()),
            },
            3 => sync.on_key_set(message),
            4 => sync.resume(message),
            5 => {
                if let Some(request) = asked.take() {
                    sync.on_failure(&request);
                }
                Ok(())
            }
            6 => {
                sync.tell_time(EdgeClock {
                    page_millis: CREATED_AT + message.len() as i64, // at most 65,535
                    server_millis: None,
                });
                sync.check_freshness()
            }
            _ => {
                if sync.candidate().is_some() {
                    sync.accept();
                }
                Ok(())
            }
        };
        if let Some(live) = sync.live() {
            let made = PUBLISHER.versions.iter().map(|made| &made.state);
            assert!(made.into_iter().any(|state| *state == live.state));
            assert_eq!(live.state.hash(), live.manifest.state);
            num_live += 1;
        }
    }
    num_live
}

fn next_message(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(3)?;
    let len = usize::from(u16::from_le_bytes([head[1], head[2]])).min(rest.len());
    let (message, after) = rest.split_at(len);
    Some((head[0], message, after))
}

fn sync_seeds() -> Vec<Vec<u8>> {
    let publisher = two_versions();
    let root = SigningKey::from_bytes(&[100; 32]);
    let set = sign_key_set(&sound_set(), &[&root]).expect("a sound set");
    let first = &publisher.versions[0];
    let mut one = Publisher::new(1);
    one.versions.truncate(1);
    let following = [
        (0, one.plan(None)),
        (2, first.snapshot.clone()),
        (7, Vec::new()),
        (1, publisher.announcement(true)),
        (7, Vec::new()),
    ];
    let joining = [
        (3, key_answer(set)),
        (0, publisher.plan(None)),
        (2, publisher.newest().snapshot.clone()),
        (7, Vec::new()),
        (6, Vec::new()),
    ];
    vec![script(0, &following), script(1, &joining)]
}

fn script(trust: u8, messages: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![trust];
    for (kind, message) in messages {
        let len = u16::try_from(message.len()).expect("states of six items");
        bytes.push(*kind);
        bytes.extend(len.to_le_bytes());
        bytes.extend(message);
    }
    bytes
}

fn two_versions() -> Publisher {
    let mut publisher = Publisher::new(1);
    publisher.advance(&mut rng(2));
    publisher
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    const NUM_DAMAGED: u64 = 400;

    #[test]
    fn every_target_stands_its_seeds_whole_and_damaged() {
        for target in &TARGETS {
            println!("{}", target.name);
            for (seed_idx, seed) in (target.seeds)().iter().enumerate() {
                (target.run)(seed);
                for damage in 0..NUM_DAMAGED {
                    let mut rng = rng(damage * 100 + seed_idx as u64); // a handful of seeds
                    (target.run)(&damaged(seed, &mut rng));
                }
            }
            (target.run)(&[]);
        }
    }

    /// One to four bytes changed, and at times the end cut off.
    fn damaged(seed: &[u8], rng: &mut impl Rng) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..rng.random_range(1..=4) {
            let byte_idx = rng.random_range(0..bytes.len());
            bytes[byte_idx] = rng.random();
        }
        if rng.random_bool(0.2) {
            bytes.truncate(rng.random_range(0..bytes.len()));
        }
        bytes
    }

    #[test]
    fn the_sound_scripts_of_the_machine_go_live() {
        for seed in sync_seeds() {
            assert!(follow(&seed) > 0);
        }
    }
}
