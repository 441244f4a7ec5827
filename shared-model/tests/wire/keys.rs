//! A page that has pinned a root, against forged, stale, revoked and expired keys, and against wrong clocks.

use ed25519_dalek::SigningKey;
use shared_model::edge::sync::{
    EDGE_STATE_BYTES_MAX, EdgeClock, EdgeRequest, EdgeSync, KEY_SET_TRIES_MAX, Trust,
};
use shared_model::ids::Version;
use shared_model::manifest::{
    FORMAT_VERSION, KEY_SET_BYTES_MAX, KEY_SET_FORMAT_VERSION, KEY_SETS_MAX, KeyList, KeySet,
    KeySetError, Manifest, ONLINE_KEYS_MAX, TextEncoderKind, TextEncoderNote, online_key,
    public_key_text, sign, sign_key_set, verify_key_set,
};

use crate::fixtures::{MODEL, Publisher, announcement_of, rng};

/// When the fixtures' manifests are made and when they expire.
const CREATED_AT: i64 = 1_700_000_001_000;
const EXPIRES_AT: i64 = 1_700_000_061_000;
const YEAR: i64 = 365 * 86_400_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn root() -> SigningKey {
    key(100)
}

fn set_of(number: u64, keys: &[&SigningKey], roots: &[&SigningKey]) -> KeySet {
    let online = |key: &&SigningKey| online_key(&key.verifying_key(), None, CREATED_AT + YEAR);
    KeySet {
        format_version: KEY_SET_FORMAT_VERSION,
        number,
        created_at: CREATED_AT - 1000,
        expires_at: CREATED_AT + YEAR,
        keys: keys.iter().map(online).collect(),
        roots: roots
            .iter()
            .map(|root| public_key_text(&root.verifying_key()))
            .collect(),
    }
}

fn signed(set: &KeySet, roots: &[&SigningKey]) -> String {
    sign_key_set(set, roots).expect("a sound set")
}

fn answer(key_sets: Vec<String>) -> Vec<u8> {
    let keys = Vec::new();
    serde_json::to_vec(&KeyList { keys, key_sets }).expect("serializes")
}

/// The answer with one set of the publisher's key.
fn plain_answer(number: u64, publisher: &Publisher) -> Vec<u8> {
    let set = set_of(number, &[&publisher.key], &[&root()]);
    answer(vec![signed(&set, &[&root()])])
}

fn code(outcome: Result<(), shared_model::edge::sync::EdgeError>) -> &'static str {
    outcome.map_or_else(|error| error.code(), |()| "believed")
}

/// Serves requests until there are none; accepts candidates.
fn follow(sync: &mut EdgeSync, publisher: &Publisher, key_sets: &[u8]) {
    loop {
        match sync.next_request() {
            Some(EdgeRequest::KeySet) => sync.on_key_set(key_sets).expect("an honest set"),
            Some(EdgeRequest::Plan { base }) => {
                sync.on_plan(&publisher.plan(base)).expect("an honest plan");
            }
            Some(EdgeRequest::Blob { blob }) => sync
                .on_blob(blob.id, publisher.blob(blob.id))
                .expect("an honest blob"),
            None if sync.candidate().is_some() => sync.accept(),
            None => return,
        }
    }
}

fn fresh() -> EdgeSync {
    EdgeSync::new(MODEL, Trust::Root(root().verifying_key()))
}

/// A page that is live with version 1 under key set 2.
fn up_to_date(seed: u64) -> (EdgeSync, Publisher) {
    let publisher = Publisher::new(seed);
    let mut sync = fresh();
    follow(&mut sync, &publisher, &plain_answer(2, &publisher));
    assert_eq!(live(&sync), Some(Version(1)));
    (sync, publisher)
}

fn live(sync: &EdgeSync) -> Option<Version> {
    sync.live().map(|live| live.manifest.version)
}

/// What the page says of one more key set.
fn offer(sync: &mut EdgeSync, json: &[u8]) -> &'static str {
    sync.refresh_key_set();
    assert_eq!(sync.next_request(), Some(EdgeRequest::KeySet));
    code(sync.on_key_set(json))
}

/// Publishes a next version, its manifest changed, and announces it.
fn announce(
    sync: &mut EdgeSync,
    publisher: &mut Publisher,
    change: impl Fn(&mut Manifest),
) -> &'static str {
    publisher.advance(&mut rng(77));
    let key = publisher.key.clone();
    let newest = publisher.versions.last_mut().expect("just published");
    change(&mut newest.manifest);
    newest.signed = sign(&newest.manifest, &key);
    code(sync.on_announcement(&announcement_of(newest, true)))
}

/// What the page says of a note on the text encoder of its version.
fn offer_note(
    sync: &mut EdgeSync,
    signer: &SigningKey,
    change: impl Fn(&mut TextEncoderNote),
) -> &'static str {
    let live = &sync.live().expect("a version is live").manifest;
    let mut note = TextEncoderNote {
        format_version: FORMAT_VERSION,
        model: MODEL.to_owned(),
        encoder_generation: live.encoder_generation,
        created_at: live.created_at + 1,
        key_set: Some(2),
        text_encoder: TextEncoderKind::Small,
    };
    change(&mut note);
    let kind = sync.text_encoder(&note.sign(signer));
    code(kind.map(|kind| assert_eq!(kind, Some(TextEncoderKind::Small))))
}

#[test]
fn nothing_is_believed_before_a_key_set() {
    let publisher = Publisher::new(1);
    let mut sync = fresh();
    assert_eq!(
        code(sync.on_announcement(&publisher.announcement(true))),
        "no_key"
    );
    assert_eq!(sync.next_request(), Some(EdgeRequest::KeySet));
    assert_eq!(sync.next_request(), None);
    assert_eq!(code(sync.on_key_set(&answer(Vec::new()))), "no_key_set");
    assert_eq!(
        sync.next_request(),
        Some(EdgeRequest::KeySet),
        "asked again"
    );
    sync.on_failure(&EdgeRequest::KeySet);
    follow(&mut sync, &publisher, &plain_answer(1, &publisher));
    assert_eq!(live(&sync), Some(Version(1)));
}

#[test]
fn a_forged_key_set_is_refused() {
    let (mut sync, publisher) = up_to_date(2);
    let set = set_of(3, &[&publisher.key], &[&key(9)]);
    assert_eq!(
        offer(&mut sync, &answer(vec![signed(&set, &[&key(9)])])),
        "unknown_root"
    );
    let set = set_of(3, &[&publisher.key], &[&root()]);
    let honest = signed(&set, &[&root()]);
    let changed = honest.replace("\\\"number\\\":3", "\\\"number\\\":4");
    assert_ne!(changed, honest);
    assert_eq!(offer(&mut sync, &answer(vec![changed])), "bad_signature");
    assert_eq!(offer(&mut sync, &answer(vec![honest])), "believed");
}

#[test]
fn a_stale_key_set_is_refused() {
    let (mut sync, publisher) = up_to_date(3);
    assert_eq!(
        offer(&mut sync, &plain_answer(1, &publisher)),
        "stale_key_set"
    );
    assert_eq!(offer(&mut sync, &plain_answer(2, &publisher)), "believed");
    let other = set_of(2, &[&publisher.key, &key(9)], &[&root()]);
    assert_eq!(
        offer(&mut sync, &answer(vec![signed(&other, &[&root()])])),
        "equivocation"
    );
}

#[test]
fn a_manifest_under_a_newer_key_set_waits_for_it() {
    let (mut sync, mut publisher) = up_to_date(4);
    let needs_three = |manifest: &mut Manifest| manifest.key_set = Some(3);
    assert_eq!(
        announce(&mut sync, &mut publisher, needs_three),
        "stale_key_set"
    );
    assert!(sync.candidate().is_none());
    follow(&mut sync, &publisher, &plain_answer(3, &publisher));
    assert_eq!(live(&sync), Some(Version(2)));
}

#[test]
fn a_rotated_key_is_followed_by_fetching_the_newer_set() {
    let (mut sync, mut publisher) = up_to_date(5);
    publisher.key = key(8);
    assert_eq!(announce(&mut sync, &mut publisher, |_| {}), "unknown_key");
    follow(&mut sync, &publisher, &plain_answer(3, &publisher));
    assert_eq!(live(&sync), Some(Version(2)));
}

#[test]
fn an_unknown_key_makes_it_ask_for_sets_a_bounded_number_of_times() {
    let (mut sync, mut publisher) = up_to_date(6);
    let honest = plain_answer(2, &publisher);
    publisher.key = key(9);
    let mut num_asked = 0;
    for _ in 0..KEY_SET_TRIES_MAX + 5 {
        assert_eq!(announce(&mut sync, &mut publisher, |_| {}), "unknown_key");
        if sync.next_request() == Some(EdgeRequest::KeySet) {
            num_asked += 1;
            sync.on_key_set(&honest).expect("an honest set");
        }
    }
    assert_eq!(num_asked, KEY_SET_TRIES_MAX);
    assert_eq!(live(&sync), Some(Version(1)));
}

#[test]
fn a_revoked_key_is_refused() {
    let (mut sync, mut publisher) = up_to_date(7);
    let set = set_of(3, &[&key(8)], &[&root()]);
    assert_eq!(
        offer(&mut sync, &answer(vec![signed(&set, &[&root()])])),
        "believed"
    );
    assert_eq!(announce(&mut sync, &mut publisher, |_| {}), "unknown_key");
    assert_eq!(live(&sync), Some(Version(1)), "it ranks on");
}

#[test]
fn a_key_outside_its_time_is_refused() {
    let (mut sync, mut publisher) = up_to_date(8);
    let mut set = set_of(3, &[&publisher.key], &[&root()]);
    set.keys[0].expires_at = CREATED_AT - 1;
    assert_eq!(
        offer(&mut sync, &answer(vec![signed(&set, &[&root()])])),
        "believed"
    );
    assert_eq!(announce(&mut sync, &mut publisher, |_| {}), "key_expired");
    set.number = 4;
    set.keys[0].expires_at = CREATED_AT + YEAR;
    set.keys[0].not_before = Some(CREATED_AT + 1);
    assert_eq!(
        offer(&mut sync, &answer(vec![signed(&set, &[&root()])])),
        "believed"
    );
    assert_eq!(announce(&mut sync, &mut publisher, |_| {}), "key_expired");
    let later = |manifest: &mut Manifest| manifest.created_at = CREATED_AT + 1;
    assert_eq!(announce(&mut sync, &mut publisher, later), "believed");
}

#[test]
fn a_note_on_the_text_encoder_outside_the_time_of_its_key_is_refused() {
    let (mut sync, publisher) = up_to_date(18);
    assert_eq!(offer_note(&mut sync, &publisher.key, |_| {}), "believed");
    let ended = CREATED_AT - YEAR / 2;
    let mut set = set_of(3, &[&publisher.key, &key(8)], &[&root()]);
    set.keys[0].expires_at = ended;
    let json = answer(vec![signed(&set, &[&root()])]);
    assert_eq!(offer(&mut sync, &json), "believed");
    assert_eq!(offer_note(&mut sync, &publisher.key, |_| {}), "key_expired");
    let dated_back = |note: &mut TextEncoderNote| note.created_at = ended;
    assert_eq!(
        offer_note(&mut sync, &publisher.key, dated_back),
        "inconsistent",
        "the version is younger than the key"
    );
    assert_eq!(offer_note(&mut sync, &key(8), |_| {}), "believed");
}

#[test]
fn a_note_on_the_text_encoder_under_a_newer_key_set_makes_it_ask_for_that() {
    let (mut sync, publisher) = up_to_date(19);
    let needs_three = |note: &mut TextEncoderNote| note.key_set = Some(3);
    let refused = offer_note(&mut sync, &publisher.key, needs_three);
    assert_eq!(refused, "stale_key_set");
    follow(&mut sync, &publisher, &plain_answer(3, &publisher));
    let believed = offer_note(&mut sync, &publisher.key, needs_three);
    assert_eq!(believed, "believed");

    assert_eq!(offer_note(&mut sync, &key(8), |_| {}), "unknown_key");
    let set = set_of(4, &[&publisher.key, &key(8)], &[&root()]);
    let json = answer(vec![signed(&set, &[&root()])]);
    follow(&mut sync, &publisher, &json);
    assert_eq!(offer_note(&mut sync, &key(8), |_| {}), "believed");
}

#[test]
fn a_root_change_needs_both_roots_and_is_walked_through() {
    let (mut sync, publisher) = up_to_date(9);
    let (former, latter) = (root(), key(101));
    let change = set_of(3, &[&publisher.key], &[&latter]);
    let one_sided = answer(vec![signed(&change, &[&former])]);
    assert_eq!(offer(&mut sync, &one_sided), "unknown_root");
    let change = signed(&change, &[&former, &latter]);
    let newest = signed(&set_of(4, &[&publisher.key], &[&latter]), &[&latter]);
    assert_eq!(
        offer(&mut sync, &answer(vec![newest.clone()])),
        "unknown_root"
    );
    assert_eq!(offer(&mut sync, &answer(vec![change, newest])), "believed");
    let by_former = signed(&set_of(5, &[&publisher.key], &[&former]), &[&former]);
    assert_eq!(offer(&mut sync, &answer(vec![by_former])), "unknown_root");
}

#[test]
fn an_expired_key_set_is_refused_and_the_live_version_stays() {
    let (mut sync, publisher) = up_to_date(10);
    let mut set = set_of(3, &[&publisher.key], &[&root()]);
    set.expires_at = CREATED_AT;
    sync.tell_time(EdgeClock {
        page_millis: CREATED_AT + 1,
        server_millis: None,
    });
    assert_eq!(
        offer(&mut sync, &answer(vec![signed(&set, &[&root()])])),
        "key_set_expired"
    );
    assert_eq!(live(&sync), Some(Version(1)));
}

#[test]
fn a_frozen_manifest_is_refused_and_told() {
    let (mut sync, mut publisher) = up_to_date(11);
    let late = EXPIRES_AT + 1;
    sync.tell_time(EdgeClock {
        page_millis: late,
        server_millis: Some(late),
    });
    assert_eq!(code(sync.check_freshness()), "expired");
    assert_eq!(announce(&mut sync, &mut publisher, |_| {}), "expired");
    assert_eq!((live(&sync), sync.candidate()), (Some(Version(1)), None));
}

#[test]
fn a_clock_far_ahead_is_told_from_a_freeze_by_the_date_of_the_server() {
    let (mut sync, mut publisher) = up_to_date(12);
    let (page_millis, now) = (CREATED_AT + 10 * YEAR, CREATED_AT + 1000);
    sync.tell_time(EdgeClock {
        page_millis,
        server_millis: Some(now),
    });
    assert_eq!(code(sync.check_freshness()), "clock_skew");
    assert_eq!(announce(&mut sync, &mut publisher, |_| {}), "clock_skew");
    assert_eq!(live(&sync), Some(Version(1)), "it ranks on");
    sync.tell_time(EdgeClock {
        page_millis,
        server_millis: None,
    });
    assert_eq!(
        code(sync.check_freshness()),
        "expired",
        "nobody vouches for another time"
    );
}

#[test]
fn a_clock_far_behind_is_told_and_does_not_stop_updates() {
    let (mut sync, mut publisher) = up_to_date(13);
    sync.tell_time(EdgeClock {
        page_millis: 0,
        server_millis: None,
    });
    assert_eq!(announce(&mut sync, &mut publisher, |_| {}), "believed");
    sync.accept();
    assert_eq!(live(&sync), Some(Version(2)));
    assert_eq!(code(sync.check_freshness()), "clock_skew");
    let far_later = |manifest: &mut Manifest| {
        manifest.created_at = CREATED_AT + YEAR / 2;
        manifest.expires_at = CREATED_AT + YEAR;
    };
    assert_eq!(announce(&mut sync, &mut publisher, far_later), "believed");
    assert_eq!(code(sync.check_freshness()), "clock_skew");
}

#[test]
fn a_signed_time_is_a_lower_bound_for_a_clock_that_is_behind() {
    let (mut sync, mut publisher) = up_to_date(14);
    sync.tell_time(EdgeClock {
        page_millis: 0,
        server_millis: None,
    });
    let far_later = |manifest: &mut Manifest| {
        manifest.created_at = EXPIRES_AT + 10;
        manifest.expires_at = CREATED_AT + YEAR;
    };
    assert_eq!(announce(&mut sync, &mut publisher, far_later), "believed");
    assert_eq!(announce(&mut sync, &mut publisher, |_| {}), "expired");
}

#[test]
fn what_was_seen_before_a_reload_is_not_undercut_after_it() {
    let (mut sync, mut publisher) = up_to_date(15);
    let older = publisher.plan(None);
    let (cached_manifest, cached_snapshot) = (
        publisher.newest().signed.clone(),
        publisher.newest().snapshot.clone(),
    );
    assert_eq!(announce(&mut sync, &mut publisher, |_| {}), "believed");
    let state = sync.edge_state().expect("a root is pinned");
    assert!(state.len() < EDGE_STATE_BYTES_MAX);

    let mut sync = fresh();
    sync.resume(&state).expect("our own state");
    sync.restore(&cached_manifest, &cached_snapshot)
        .expect("the cache may be older than what was seen");
    assert_eq!(
        offer(&mut sync, &plain_answer(1, &publisher)),
        "stale_key_set"
    );
    assert_eq!(
        sync.next_request(),
        Some(EdgeRequest::Plan {
            base: Some(Version(1))
        })
    );
    assert_eq!(code(sync.on_plan(&older)), "stale");
    follow(&mut sync, &publisher, &plain_answer(2, &publisher));
    assert_eq!(live(&sync), Some(Version(2)));
}

#[test]
fn a_state_of_another_root_or_damaged_is_refused() {
    let (sync, _) = up_to_date(16);
    let state = sync.edge_state().expect("a root is pinned");
    let mut other = EdgeSync::new(MODEL, Trust::Root(key(101).verifying_key()));
    assert_eq!(code(other.resume(&state)), "inconsistent");
    for len in 0..state.len() {
        assert_eq!(
            code(fresh().resume(&state[..len])),
            "malformed",
            "{len} bytes"
        );
    }
    assert_eq!(
        code(fresh().resume(&vec![b' '; EDGE_STATE_BYTES_MAX + 1])),
        "malformed"
    );
    let text = String::from_utf8(state).expect("JSON");
    let raised = text.replace("\\\\\\\"number\\\\\\\":2", "\\\\\\\"number\\\\\\\":1");
    assert_ne!(raised, text);
    assert_eq!(code(fresh().resume(raised.as_bytes())), "bad_signature");
}

#[test]
fn key_sets_refuse_every_truncation_and_every_changed_byte() {
    let set = set_of(1, &[&key(7)], &[&root()]);
    let signed = signed(&set, &[&root()]).into_bytes();
    let trusted = [root().verifying_key()];
    assert_eq!(verify_key_set(&signed, &trusted), Ok(set));
    for idx in 0..signed.len() {
        assert!(
            verify_key_set(&signed[..idx], &trusted).is_err(),
            "{idx} bytes"
        );
        let mut changed = signed.clone();
        changed[idx] ^= 1;
        assert!(verify_key_set(&changed, &trusted).is_err(), "byte {idx}");
    }
    let too_long = vec![b' '; KEY_SET_BYTES_MAX + 1];
    let error = verify_key_set(&too_long, &trusted).expect_err("too long");
    assert!(error.to_string().contains("at most 6144"), "{error}");
}

#[test]
fn key_sets_keep_their_rules() {
    let sound = set_of(1, &[&key(7)], &[&root()]);
    let changes: [fn(&mut KeySet); 8] = [
        |set| set.number = 0,
        |set| set.expires_at = set.created_at,
        |set| set.keys.clear(),
        |set| set.roots.clear(),
        |set| set.keys.push(set.keys[0].clone()),
        |set| set.keys[0].key_id = "0123456789abcdef".to_owned(),
        |set| set.roots.push(set.keys[0].public_key.clone()),
        |set| {
            set.keys = (1..=ONLINE_KEYS_MAX + 1)
                .map(|seed| online_key(&key(seed as u8).verifying_key(), None, 1))
                .collect();
        },
    ];
    for change in changes {
        let mut set = sound.clone();
        change(&mut set);
        assert!(
            matches!(set.check(), Err(KeySetError::Field { .. })),
            "{set:?}"
        );
    }
}

#[test]
fn too_many_key_sets_in_one_answer_are_refused() {
    let (mut sync, publisher) = up_to_date(17);
    let set = signed(&set_of(3, &[&publisher.key], &[&root()]), &[&root()]);
    assert_eq!(
        offer(&mut sync, &answer(vec![set; KEY_SETS_MAX + 1])),
        "malformed"
    );
    assert_eq!(offer(&mut sync, &[b' '; 200_000]), "malformed");
}
