//! Claims about publishing and about opening what an earlier run left, whole or not.

use std::path::Path;

use shared_model::ids::{BlobId, LogOffset, Version};
use shared_model::manifest::{PlanStepKind, VersionKind};
use trainer_server::config::PublishConfig;
use trainer_server::publish::{PublishError, Publisher};

use crate::harness::{NOW_MILLIS, config, new_version, state};

fn settings(flags: &[(&str, &str)]) -> PublishConfig {
    config(flags).publish
}

fn open(dir: &Path) -> Publisher {
    Publisher::open(dir, "main", &settings(&[])).expect("opens")
}

/// Publishes a release and then fast versions up to `last`.
fn publish_up_to(publisher: &Publisher, last: i16) {
    let next = publisher
        .latest()
        .map_or(1, |latest| latest.manifest.version.0 + 1);
    for step in i16::try_from(next).expect("small")..=last {
        let kind = if step == 1 {
            VersionKind::Release
        } else {
            VersionKind::Fast
        };
        publisher
            .publish(new_version(kind, step))
            .expect("published");
    }
}

fn version(publisher: &Publisher) -> Option<u64> {
    publisher.latest().map(|latest| latest.manifest.version.0)
}

fn blob_path(dir: &Path, id: BlobId) -> std::path::PathBuf {
    dir.join("blobs").join(id.to_hex())
}

#[test]
fn versions_survive_a_restart_with_their_state_and_their_offsets() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path());
    publish_up_to(&publisher, 5);
    let before = publisher.latest().expect("published");
    drop(publisher);

    let publisher = open(dir.path());
    let after = publisher.latest().expect("restored");
    assert_eq!(
        (&after.signed, &after.state),
        (&before.signed, &before.state)
    );
    assert_eq!(after.manifest.learned_through, LogOffset(5));
    publish_up_to(&publisher, 6);
    let sixth = publisher.latest().expect("published");
    assert_eq!(
        sixth.manifest.previous,
        Some(BlobId::of(before.signed.as_bytes()))
    );
    assert_eq!(
        sixth.manifest.delta.map(|delta| delta.base_version),
        Some(Version(5))
    );
}

#[test]
fn half_written_files_and_orphans_are_removed_and_change_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    publish_up_to(&open(dir.path()), 3);
    let torn_blob = dir
        .path()
        .join("blobs")
        .join(format!(".unfinished-{}", BlobId::of(b"x")));
    let torn_manifest = dir
        .path()
        .join("manifests")
        .join(format!(".unfinished-{:020}.json", 4));
    let orphan = blob_path(dir.path(), BlobId::of(b"orphan"));
    std::fs::write(&torn_blob, b"half").expect("written");
    std::fs::write(&torn_manifest, b"{\"payl").expect("written");
    std::fs::write(&orphan, b"orphan").expect("written");

    let publisher = open(dir.path());
    assert_eq!(version(&publisher), Some(3));
    assert!(!torn_blob.exists() && !torn_manifest.exists() && !orphan.exists());
}

#[test]
fn a_missing_blob_brings_back_the_version_before_and_its_number_is_not_given_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path());
    publish_up_to(&publisher, 4);
    let delta = publisher
        .latest()
        .and_then(|latest| latest.manifest.delta)
        .expect("a delta");
    drop(publisher);
    std::fs::remove_file(blob_path(dir.path(), delta.blob.id)).expect("removed");

    let publisher = open(dir.path());
    assert_eq!(version(&publisher), Some(3));
    let fifth = publisher
        .publish(new_version(VersionKind::Fast, 5))
        .expect("published");
    assert_eq!(fifth.manifest.version, Version(5));
    assert_eq!(
        fifth.manifest.delta.map(|delta| delta.base_version),
        Some(Version(3))
    );
    drop(publisher);
    assert_eq!(version(&open(dir.path())), Some(5));
}

#[test]
fn a_damaged_snapshot_is_replaced_by_an_older_way() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path());
    publish_up_to(&publisher, 3);
    let release = publisher
        .publish(new_version(VersionKind::Release, 4))
        .expect("published");
    let id = release.manifest.snapshot.expect("a release has one").id;
    drop(publisher);
    let path = blob_path(dir.path(), id);
    let mut bytes = std::fs::read(&path).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("written");

    let publisher = open(dir.path());
    let latest = publisher.latest().expect("restored");
    assert_eq!(
        (latest.manifest.version, &latest.state),
        (Version(4), &release.state)
    );
    let plan = publisher.plan(None).expect("a plan");
    assert!(plan.steps.iter().all(|step| step.blob.id != id));
}

#[test]
fn manifests_of_another_key_are_put_aside() {
    let dir = tempfile::tempdir().expect("temp dir");
    publish_up_to(&open(dir.path()), 2);
    std::fs::remove_file(dir.path().join("signing.key")).expect("removed");
    let publisher = open(dir.path());
    assert_eq!(version(&publisher), None);
    let third = publisher
        .publish(new_version(VersionKind::Fast, 3))
        .expect("published");
    assert_eq!(third.manifest.version, Version(3));
    assert!(third.manifest.snapshot.is_some());
}

#[test]
fn the_directory_of_another_model_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    publish_up_to(&open(dir.path()), 1);
    let error = Publisher::open(dir.path(), "other", &settings(&[]))
        .err()
        .expect("refused");
    assert!(matches!(error, PublishError::OtherModel { .. }), "{error}");
    assert_eq!(version(&open(dir.path())), Some(1));
}

#[test]
fn offsets_never_run_backwards() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path());
    publish_up_to(&publisher, 3);
    let error = publisher
        .publish(new_version(VersionKind::Fast, 2))
        .expect_err("backwards");
    assert!(
        matches!(error, PublishError::LearnedBackwards { .. }),
        "{error}"
    );
    assert_eq!(version(&publisher), Some(3));
}

#[test]
fn a_score_that_is_not_finite_is_refused_and_the_next_version_is_not_hurt() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path());
    publish_up_to(&publisher, 1);
    let mut new = new_version(VersionKind::Fast, 2);
    new.self_test.item_ids = vec![state(0).items[0].item_id.clone()];
    new.self_test.scores = vec![f32::NAN];
    let error = publisher.publish(new).expect_err("not finite");
    assert!(matches!(error, PublishError::Manifest { .. }), "{error}");
    assert_eq!(version(&publisher), Some(1));
    publisher
        .publish(new_version(VersionKind::Fast, 2))
        .expect("published");
    drop(publisher);
    assert_eq!(open(dir.path()).latest().expect("restored").state, state(2));
}

#[test]
fn plans_take_the_chain_when_it_is_cheap_and_stay_short_when_it_is_long() {
    let dir = tempfile::tempdir().expect("temp dir");
    let flags = [
        ("publish.skip_strides", "[8, 32]"),
        ("publish.chain_len_max", "12"),
        ("publish.snapshot_every_versions", "1000"),
    ];
    let publisher = Publisher::open(dir.path(), "main", &settings(&flags)).expect("opens");
    publish_up_to(&publisher, 70);
    let near = publisher.plan(Some(Version(69))).expect("a plan");
    assert_eq!(near.steps.len(), 1);
    assert_eq!(near.steps[0].kind, PlanStepKind::Delta);
    for base in 1..=70 {
        let plan = publisher.plan(Some(Version(base))).expect("a plan");
        assert!(
            plan.steps.len() <= 12,
            "{} steps from {base}",
            plan.steps.len()
        );
        let sum: u64 = plan.steps.iter().map(|step| step.blob.bytes).sum();
        assert_eq!((plan.total_bytes, plan.target_version), (sum, Version(70)));
    }
    let cold = publisher.plan(None).expect("a plan");
    assert_eq!(cold.steps[0].kind, PlanStepKind::Snapshot);
    assert!(cold.steps.len() <= 12);
    let beyond = publisher.plan(Some(Version(500))).expect("a plan");
    assert_eq!(beyond.steps[0].kind, PlanStepKind::Snapshot);
}

#[test]
fn old_versions_are_removed_with_their_blobs_and_a_restart_still_works() {
    let dir = tempfile::tempdir().expect("temp dir");
    let flags = [
        ("publish.keep_versions_min", "5"),
        ("publish.keep_secs_min", "0"),
        ("publish.snapshot_every_versions", "4"),
    ];
    let publisher = Publisher::open(dir.path(), "main", &settings(&flags)).expect("opens");
    publish_up_to(&publisher, 90);
    let count = |name: &str| {
        std::fs::read_dir(dir.path().join(name))
            .expect("there")
            .count()
    };
    assert!(count("manifests") < 30, "{} manifests", count("manifests"));
    assert!(count("blobs") < 40, "{} blobs", count("blobs"));
    let before = publisher.latest().expect("published");
    drop(publisher);
    let after = open(dir.path()).latest().expect("restored");
    assert_eq!(after.state, before.state);
}

/// Settings under which all but a few versions go as soon as their time is over.
const SHORT_LIVED: [(&str, &str); 4] = [
    ("publish.keep_versions_min", "5"),
    ("publish.keep_secs_min", "30"),
    ("publish.handed_out_grace_secs", "100"),
    ("publish.snapshot_every_versions", "4"),
];

/// Publishes fast versions up to `last`, all at `now_millis`.
fn publish_at(publisher: &Publisher, last: i16, now_millis: i64) {
    let next = publisher
        .latest()
        .map_or(1, |latest| latest.manifest.version.0 + 1);
    for step in i16::try_from(next).expect("small")..=last {
        let mut new = new_version(VersionKind::Fast, step);
        new.created_at = now_millis;
        publisher.publish(new).expect("published");
    }
}

#[test]
fn young_versions_are_kept_and_go_when_they_are_old_and_after_a_restart_too() {
    let dir = tempfile::tempdir().expect("temp dir");
    let open = || Publisher::open(dir.path(), "main", &settings(&SHORT_LIVED)).expect("opens");
    let publisher = open();
    publish_at(&publisher, 60, NOW_MILLIS);
    let oldest = |publisher: &Publisher| publisher.manifests().expect("readable")[0].version.0;
    publish_at(&publisher, 61, NOW_MILLIS + 29_999);
    assert_eq!(oldest(&publisher), 1);
    drop(publisher);
    let publisher = open();
    publish_at(&publisher, 62, NOW_MILLIS + 30_000);
    assert!(oldest(&publisher) > 50, "{} is kept", oldest(&publisher));
}

#[tokio::test]
async fn what_a_plan_has_named_stays_until_its_grace_is_over() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = Publisher::open(dir.path(), "main", &settings(&SHORT_LIVED)).expect("opens");
    publish_at(&publisher, 3, NOW_MILLIS);
    let plan = publisher.plan_for_page(None, NOW_MILLIS).await;
    let steps = plan.expect("a plan").steps;
    let named = |publisher: &Publisher| {
        let there = steps
            .iter()
            .filter(|step| publisher.blobs().contains(&step.blob));
        there.count()
    };
    publish_at(&publisher, 60, NOW_MILLIS + 100_000);
    publish_at(&publisher, 61, NOW_MILLIS + 100_000);
    assert_eq!(named(&publisher), steps.len());
    publish_at(&publisher, 90, NOW_MILLIS + 200_000);
    assert_eq!(named(&publisher), 0);
    assert!(publisher.manifests().expect("readable")[0].version > Version(50));
}

#[test]
fn a_manifest_is_renewed_in_time_and_not_before() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path());
    assert!(
        publisher
            .renew(NOW_MILLIS)
            .expect("nothing to do")
            .is_none()
    );
    publish_up_to(&publisher, 1);
    let day = 86_400_000;
    assert!(
        publisher
            .renew(NOW_MILLIS + day)
            .expect("too early")
            .is_none()
    );
    let renewed = publisher
        .renew(NOW_MILLIS + 4 * day)
        .expect("renewed")
        .expect("a version");
    assert_eq!(renewed.manifest.version, Version(2));
    assert_eq!(renewed.manifest.learned_through, LogOffset(1));
    assert!(renewed.manifest.expires_at > NOW_MILLIS + 10 * day);
    assert_eq!(renewed.state, state(1));
}

#[test]
fn a_number_that_was_told_is_not_taken_by_a_renewal_meanwhile() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path());
    publish_up_to(&publisher, 1);
    let (started, has_started) = std::sync::mpsc::channel();
    let held = publisher.hold_renewals();
    let told = publisher.next_version();
    let renewal = std::thread::spawn({
        let publisher = publisher.clone();
        move || {
            started.send(()).expect("heard");
            publisher.renew(NOW_MILLIS + 4 * 86_400_000)
        }
    });
    has_started.recv().expect("it has begun");
    std::thread::sleep(std::time::Duration::from_millis(20)); // so that a renewal that does not wait is there first
    let published = publisher.publish(new_version(VersionKind::Fast, 2));
    assert_eq!(published.expect("published").manifest.version, told);
    drop(held);
    let renewed = renewal.join().expect("no panic").expect("renewed");
    let renewed = renewed.map(|renewed| renewed.manifest.version);
    assert_eq!(
        renewed,
        Some(told.next()),
        "it waited, and goes on from what is there now"
    );
}

#[test]
fn followers_see_only_the_newest_version() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path());
    let mut follower = publisher.subscribe();
    publish_up_to(&publisher, 3);
    assert!(follower.has_changed().expect("open"));
    let seen = follower
        .borrow_and_update()
        .as_ref()
        .map(|published| published.manifest.version);
    assert_eq!(seen, Some(Version(3)));
    assert!(!follower.has_changed().expect("open"));
}
