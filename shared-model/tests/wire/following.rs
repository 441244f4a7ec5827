//! The sync machine against a publisher that is honest, slow, broken or hostile.

use ed25519_dalek::SigningKey;
use shared_model::codec::snapshot::encode_snapshot;
use shared_model::edge::sync::{BLOB_TRIES_MAX, EdgeError, EdgeRequest, EdgeSync, Trust};
use shared_model::ids::{BlobId, LogOffset, Version};
use shared_model::manifest::{PlanStep, PlanStepKind, sign};

use crate::fixtures::{
    MODEL, Published, Publisher, announcement_of, blob_ref, manifest_of, nudge, plan_of,
    random_state, rng, tiny_spec,
};

fn follower(publisher: &Publisher) -> EdgeSync {
    EdgeSync::new(MODEL, Trust::Keys(vec![publisher.key.verifying_key()]))
}

/// Serves requests until there are none, accepting candidates; returns how many blobs were fetched.
fn follow(sync: &mut EdgeSync, publisher: &Publisher) -> usize {
    let mut num_blobs = 0;
    loop {
        match sync.next_request() {
            Some(EdgeRequest::KeySet) => unreachable!("no root is pinned here"),
            Some(EdgeRequest::Plan { base }) => {
                sync.on_plan(&publisher.plan(base)).expect("an honest plan")
            }
            Some(EdgeRequest::Blob { blob }) => {
                num_blobs += 1;
                sync.on_blob(blob.id, publisher.blob(blob.id))
                    .expect("an honest blob");
            }
            None if sync.candidate().is_some() => sync.accept(),
            None => return num_blobs,
        }
    }
}

fn live_version(sync: &EdgeSync) -> Option<u64> {
    sync.live().map(|live| live.manifest.version.0)
}

/// A follower that is live with the first version, and its publisher.
fn up_to_date(seed: u64) -> (EdgeSync, Publisher) {
    let publisher = Publisher::new(seed);
    let mut sync = follower(&publisher);
    follow(&mut sync, &publisher);
    assert_eq!(live_version(&sync), Some(1));
    (sync, publisher)
}

/// A version signed by the publisher's key but not published, with its manifest changed.
fn unpublished(publisher: &Publisher, change: impl Fn(&mut Published)) -> Published {
    let newest = publisher.newest();
    let mut version = Published {
        state: newest.state.clone(),
        manifest: newest.manifest.clone(),
        signed: Vec::new(),
        delta: newest.delta.clone(),
        snapshot: newest.snapshot.clone(),
    };
    change(&mut version);
    version.signed = sign(&version.manifest, &publisher.key);
    version
}

#[test]
fn starts_from_a_snapshot_and_is_then_satisfied() {
    let publisher = Publisher::new(1);
    let mut sync = follower(&publisher);
    assert_eq!(sync.next_request(), Some(EdgeRequest::Plan { base: None }));
    assert_eq!(sync.next_request(), None, "each request is handed out once");
    sync.on_plan(&publisher.plan(None)).expect("an honest plan");
    follow(&mut sync, &publisher);
    assert_eq!(
        sync.live().map(|live| &live.state),
        Some(&publisher.newest().state)
    );
    assert_eq!(sync.next_request(), None);
}

#[test]
fn state_hash_is_equal_after_100_inline_deltas() {
    let (mut sync, mut publisher) = up_to_date(2);
    let rng = &mut rng(2);
    for _ in 0..100 {
        publisher.advance(rng);
        sync.on_announcement(&publisher.announcement(true))
            .expect("an honest announcement");
        assert_eq!(sync.next_request(), None, "the inline delta is enough");
        sync.accept();
    }
    assert_eq!(live_version(&sync), Some(101));
    assert_eq!(
        sync.live().map(|live| live.state.hash()),
        Some(publisher.newest().state.hash())
    );
}

#[test]
fn a_chain_of_many_versions_is_applied_step_by_step() {
    let (mut sync, mut publisher) = up_to_date(3);
    let rng = &mut rng(3);
    (0..30).for_each(|_| publisher.advance(rng));
    sync.on_announcement(&publisher.announcement(false))
        .expect("an honest announcement");
    assert_eq!(follow(&mut sync, &publisher), 30);
    assert_eq!(live_version(&sync), Some(31));
}

#[test]
fn an_inline_delta_from_another_state_makes_it_ask_for_a_plan() {
    let (mut sync, mut publisher) = up_to_date(4);
    let rng = &mut rng(4);
    (0..2).for_each(|_| publisher.advance(rng));
    sync.on_announcement(&publisher.announcement(true))
        .expect("an honest announcement");
    assert!(sync.candidate().is_none());
    assert_eq!(
        sync.next_request(),
        Some(EdgeRequest::Plan {
            base: Some(Version(1))
        })
    );
}

#[test]
fn versions_announced_while_busy_are_caught_up_with_after_the_swap() {
    let (mut sync, mut publisher) = up_to_date(5);
    let rng = &mut rng(5);
    publisher.advance(rng);
    sync.on_announcement(&publisher.announcement(true))
        .expect("an honest announcement");
    assert!(sync.candidate().is_some());
    publisher.advance(rng);
    sync.on_announcement(&publisher.announcement(true))
        .expect("an honest announcement");
    assert_eq!(
        sync.candidate().map(|candidate| candidate.manifest.version),
        Some(Version(2))
    );
    assert_eq!(sync.newest_version(), Some(Version(3)));
    sync.accept();
    assert_eq!(
        sync.next_request(),
        Some(EdgeRequest::Plan {
            base: Some(Version(2))
        })
    );
    sync.on_plan(&publisher.plan(Some(Version(2))))
        .expect("an honest plan");
    follow(&mut sync, &publisher);
    assert_eq!(live_version(&sync), Some(3));
}

#[test]
fn a_refused_version_is_not_tried_again_until_a_newer_one_is_announced() {
    let (mut sync, mut publisher) = up_to_date(6);
    let rng = &mut rng(6);
    publisher.advance(rng);
    sync.on_announcement(&publisher.announcement(true))
        .expect("an honest announcement");
    sync.refuse();
    sync.on_announcement(&publisher.announcement(true))
        .expect("no error, but no interest");
    assert_eq!((sync.next_request(), sync.candidate()), (None, None));
    assert_eq!(live_version(&sync), Some(1));
    publisher.advance(rng);
    sync.on_announcement(&publisher.announcement(true))
        .expect("an honest announcement");
    follow(&mut sync, &publisher);
    assert_eq!(live_version(&sync), Some(3));
}

#[test]
fn a_disappearing_server_is_asked_again_and_then_for_a_new_plan() {
    let (mut sync, mut publisher) = up_to_date(7);
    publisher.advance(&mut rng(7));
    sync.on_announcement(&publisher.announcement(false))
        .expect("an honest announcement");
    let plan = sync.next_request().expect("a plan");
    sync.on_failure(&plan);
    assert_eq!(sync.next_request(), Some(plan));
    sync.on_plan(&publisher.plan(Some(Version(1))))
        .expect("an honest plan");
    for _ in 0..BLOB_TRIES_MAX {
        let blob = sync.next_request().expect("a blob");
        assert!(matches!(blob, EdgeRequest::Blob { .. }));
        assert_eq!(sync.next_request(), None);
        sync.on_failure(&blob);
    }
    assert_eq!(
        sync.next_request(),
        Some(plan),
        "the blob may be gone for good"
    );
    sync.on_plan(&publisher.plan(Some(Version(1))))
        .expect("an honest plan");
    follow(&mut sync, &publisher);
    assert_eq!(live_version(&sync), Some(2));
}

#[test]
fn refuses_stale_versions() {
    let (mut sync, mut publisher) = up_to_date(8);
    publisher.advance(&mut rng(8));
    follow(&mut sync, &publisher);
    sync.on_announcement(&publisher.announcement(true))
        .expect("an honest announcement");
    sync.accept();
    let stale = EdgeError::Stale {
        live: Version(2),
        actual: Version(1),
    };
    assert_eq!(
        sync.on_announcement(&announcement_of(&publisher.versions[0], false)),
        Err(stale.clone())
    );
    assert_eq!(stale.code(), "stale");
    assert_eq!(live_version(&sync), Some(2));
}

#[test]
fn refuses_one_version_with_two_contents() {
    let (mut sync, mut publisher) = up_to_date(9);
    let equivocates = |version: &mut Published| version.manifest.state = BlobId([1; 32]);
    let other = unpublished(&publisher, equivocates);
    let error = sync
        .on_announcement(&announcement_of(&other, false))
        .expect_err("the live version");
    assert_eq!(error.code(), "equivocation");
    publisher.advance(&mut rng(9));
    sync.on_announcement(&publisher.announcement(false))
        .expect("an honest announcement");
    let other = unpublished(&publisher, equivocates);
    let error = sync
        .on_announcement(&announcement_of(&other, false))
        .expect_err("the newest known version");
    assert_eq!(error.code(), "equivocation");
}

#[test]
fn refuses_forged_manifests() {
    let (mut sync, mut publisher) = up_to_date(10);
    publisher.advance(&mut rng(10));
    let honest = publisher.announcement(true);
    publisher.key = SigningKey::from_bytes(&[9; 32]);
    let forged = unpublished(&publisher, |_| {});
    let error = sync
        .on_announcement(&announcement_of(&forged, true))
        .expect_err("unknown key");
    assert_eq!(error.code(), "unknown_key");
    assert!(sync.candidate().is_none());
    sync.on_announcement(&honest)
        .expect("an honest announcement");
    assert!(sync.candidate().is_some());
}

#[test]
fn refuses_manifests_of_other_models_and_less_learning() {
    let (mut sync, publisher) = up_to_date(11);
    let next = |change: fn(&mut Published)| {
        unpublished(&publisher, |version| {
            version.manifest.version = Version(2);
            change(version);
        })
    };
    let other_model = next(|version| version.manifest.model = "other".to_owned());
    let error = sync
        .on_announcement(&announcement_of(&other_model, false))
        .expect_err("other model");
    assert_eq!(error.code(), "wrong_model");
    let learned_less = next(|version| version.manifest.learned_through = LogOffset(9));
    let error = sync
        .on_announcement(&announcement_of(&learned_less, false))
        .expect_err("learned less");
    assert_eq!(error.code(), "learned_backward");
}

#[test]
fn a_bad_inline_delta_is_reported_and_replaced_by_a_plan() {
    let (mut sync, mut publisher) = up_to_date(12);
    publisher.advance(&mut rng(12));
    let mut damaged = unpublished(&publisher, |_| {});
    damaged.delta.pop();
    let error = sync
        .on_announcement(&announcement_of(&damaged, true))
        .expect_err("truncated delta");
    assert_eq!(error.code(), "corrupt_blob");
    assert_eq!(live_version(&sync), Some(1));
    assert_eq!(
        sync.next_request(),
        Some(EdgeRequest::Plan {
            base: Some(Version(1))
        })
    );
}

#[test]
fn bad_blobs_lead_to_a_snapshot_and_then_to_waiting() {
    let (mut sync, mut publisher) = up_to_date(13);
    publisher.advance(&mut rng(13));
    sync.on_announcement(&publisher.announcement(false))
        .expect("an honest announcement");
    for expected_base in [Some(Version(1)), Some(Version(1)), None] {
        assert_eq!(
            sync.next_request(),
            Some(EdgeRequest::Plan {
                base: expected_base
            })
        );
        sync.on_plan(&publisher.plan(expected_base))
            .expect("an honest plan");
        let Some(EdgeRequest::Blob { blob }) = sync.next_request() else {
            panic!("a blob is wanted")
        };
        let mut bytes = publisher.blob(blob.id).to_vec();
        bytes[20] ^= 1;
        let error = sync.on_blob(blob.id, &bytes).expect_err("damaged blob");
        assert_eq!(error.code(), "corrupt_blob");
    }
    assert_eq!(sync.next_request(), None, "waits for the next version");
    publisher.advance(&mut rng(14));
    sync.on_announcement(&publisher.announcement(false))
        .expect("an honest announcement");
    follow(&mut sync, &publisher);
    assert_eq!(live_version(&sync), Some(3));
}

#[test]
fn refuses_truncated_blobs_and_blobs_nobody_asked_for() {
    let publisher = Publisher::new(15);
    let mut sync = follower(&publisher);
    let snapshot = &publisher.newest().snapshot;
    let id = BlobId::of(snapshot);
    assert_eq!(
        sync.on_blob(id, snapshot).map_err(|error| error.code()),
        Err("unexpected")
    );
    assert_eq!(
        sync.on_plan(&publisher.plan(None))
            .map_err(|error| error.code()),
        Err("unexpected")
    );
    sync.next_request();
    sync.on_plan(&publisher.plan(None)).expect("an honest plan");
    assert_eq!(
        sync.on_blob(id, snapshot).map_err(|error| error.code()),
        Err("unexpected"),
        "not handed out yet"
    );
    sync.next_request();
    assert_eq!(
        sync.on_blob(BlobId([3; 32]), snapshot)
            .map_err(|error| error.code()),
        Err("unexpected")
    );
    let truncated = &snapshot[..snapshot.len() - 1];
    assert!(matches!(
        sync.on_blob(id, truncated),
        Err(EdgeError::BlobLength { .. })
    ));
    assert!(sync.live().is_none() && sync.candidate().is_none());
}

#[test]
fn refuses_a_plan_whose_blobs_lead_to_another_state() {
    let (mut sync, publisher) = up_to_date(16);
    let rng = &mut rng(16);
    let mut other_state = publisher.newest().state.clone();
    nudge(&mut other_state, 9, rng);
    let promised = unpublished(&publisher, |version| {
        version.manifest.version = Version(2);
        version.manifest.state = other_state.hash();
    });
    let snapshot = encode_snapshot(&publisher.newest().state, Version(2)).expect("valid state");
    let step = PlanStep {
        kind: PlanStepKind::Snapshot,
        blob: blob_ref(&snapshot),
        target_version: Version(2),
    };
    sync.on_announcement(&announcement_of(&promised, false))
        .expect("signed");
    sync.next_request();
    sync.on_plan(&plan_of(&promised, vec![step]))
        .expect("well-formed");
    sync.next_request();
    let error = sync
        .on_blob(step.blob.id, &snapshot)
        .expect_err("not the promised state");
    assert_eq!(error.code(), "wrong_state");
    assert_eq!(live_version(&sync), Some(1));
}

#[test]
fn a_delta_with_another_base_does_not_apply() {
    let (mut sync, mut publisher) = up_to_date(17);
    let rng = &mut rng(17);
    (0..2).for_each(|_| publisher.advance(rng));
    sync.on_announcement(&publisher.announcement(false))
        .expect("an honest announcement");
    sync.next_request();
    let skipping = publisher.plan(Some(Version(2)));
    sync.on_plan(&skipping).expect("well-formed");
    let Some(EdgeRequest::Blob { blob }) = sync.next_request() else {
        panic!("a blob is wanted")
    };
    let error = sync
        .on_blob(blob.id, publisher.blob(blob.id))
        .expect_err("starts from version 2");
    assert_eq!(error.code(), "wrong_base");
    follow(&mut sync, &publisher);
    assert_eq!(live_version(&sync), Some(3));
}

#[test]
fn restores_from_a_cache_and_catches_up() {
    let mut publisher = Publisher::new(18);
    publisher.advance(&mut rng(18));
    let cached = &publisher.versions[0];
    let mut sync = follower(&publisher);
    sync.restore(&cached.signed, &cached.snapshot)
        .expect("an honest cache");
    assert_eq!(live_version(&sync), Some(1));
    assert_eq!(follow(&mut sync, &publisher), 1, "one delta is enough");
    assert_eq!(live_version(&sync), Some(2));
    let error = sync
        .restore(&cached.signed, &cached.snapshot)
        .expect_err("older than live");
    assert_eq!(error.code(), "stale");
}

#[test]
fn a_cache_with_another_snapshot_is_refused() {
    let mut publisher = Publisher::new(19);
    publisher.advance(&mut rng(19));
    let [first, second] = &publisher.versions[..] else {
        panic!("two versions")
    };
    let mut sync = follower(&publisher);
    assert!(matches!(
        sync.restore(&first.signed, &second.snapshot),
        Err(EdgeError::Inconsistent { .. })
    ));
    let other = encode_snapshot(&second.state, Version(1)).expect("valid state");
    assert!(matches!(
        sync.restore(&first.signed, &other),
        Err(EdgeError::WrongState { .. })
    ));
    assert!(sync.live().is_none());
}

#[test]
fn trusts_nothing_before_a_key_and_then_the_first_one_only() {
    let publisher = Publisher::new(20);
    let mut sync = EdgeSync::new(MODEL, Trust::OnFirstUse);
    assert_eq!(sync.next_request(), None);
    assert_eq!(
        sync.on_announcement(&publisher.announcement(false)),
        Err(EdgeError::NoKey)
    );
    let key = publisher.key.verifying_key();
    sync.trust_key(key).expect("the first");
    sync.trust_key(key).expect("the same again");
    let other = SigningKey::from_bytes(&[1; 32]).verifying_key();
    assert!(matches!(
        sync.trust_key(other),
        Err(EdgeError::UntrustedKey { .. })
    ));
    follow(&mut sync, &publisher);
    assert_eq!(live_version(&sync), Some(1));
}

#[test]
fn a_manifest_signed_again_prolongs_the_live_version() {
    let (mut sync, publisher) = up_to_date(21);
    let renewed = unpublished(&publisher, |version| version.manifest.expires_at += 60_000);
    sync.on_announcement(&announcement_of(&renewed, false))
        .expect("same version, same state");
    assert_eq!(
        sync.live().map(|live| live.manifest.expires_at),
        Some(renewed.manifest.expires_at)
    );
    assert_eq!(sync.next_request(), None);
}

#[test]
fn a_plan_may_replace_the_model_by_one_of_another_spec() {
    let (mut sync, mut publisher) = up_to_date(22);
    let spec = shared_model::spec::ModelSpec {
        ff_dim: 8,
        ..tiny_spec()
    };
    let state = random_state(spec, 9, &mut rng(22));
    let version = Version(2);
    let snapshot = encode_snapshot(&state, version).expect("valid state");
    let manifest = manifest_of(&state, version, &[], &snapshot);
    let signed = sign(&manifest, &publisher.key);
    publisher.versions.push(Published {
        state,
        manifest,
        signed,
        delta: Vec::new(),
        snapshot,
    });
    sync.on_announcement(&publisher.announcement(false))
        .expect("an honest announcement");
    sync.next_request();
    sync.on_plan(&publisher.plan(None)).expect("an honest plan");
    follow(&mut sync, &publisher);
    assert_eq!(live_version(&sync), Some(2));
}

#[test]
fn malformed_messages_change_nothing() {
    let (mut sync, mut publisher) = up_to_date(23);
    publisher.advance(&mut rng(23));
    for json in [&b""[..], b"{", b"[]", b"null", b"{\"version\":2}"] {
        assert_eq!(
            sync.on_announcement(json).map_err(|error| error.code()),
            Err("malformed")
        );
    }
    sync.on_announcement(&publisher.announcement(false))
        .expect("an honest announcement");
    sync.next_request();
    assert_eq!(
        sync.on_plan(b"{}").map_err(|error| error.code()),
        Err("malformed")
    );
    follow(&mut sync, &publisher);
    assert_eq!(live_version(&sync), Some(2));
}
