//! Claims about how much of the disk versions take, and about versions that cannot be written.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use shared_model::ids::Version;
use shared_model::manifest::VersionKind;
use trainer_server::ledger::Ledger;
use trainer_server::publish::{PublishError, Publisher, StoreLimits};
use trainer_server::reserve::Reserve;

use crate::harness::{NOW_MILLIS, config, new_version};

/// Settings under which all but a few versions go as soon as their time is over.
const SHORT_LIVED: [(&str, &str); 4] = [
    ("publish.keep_versions_min", "5"),
    ("publish.keep_secs_min", "30"),
    ("publish.handed_out_grace_secs", "100"),
    ("publish.snapshot_every_versions", "4"),
];
/// Room for some dozen versions.
const BYTES_MAX: u64 = 200_000;
const MANY: i16 = 2000;

fn open(dir: &Path, limits: StoreLimits) -> Publisher {
    let config = config(&SHORT_LIVED).publish;
    Publisher::open_within(dir, "main", &config, limits).expect("opens")
}

fn publish(publisher: &Publisher, step: i16, created_at: i64) -> Result<Version, PublishError> {
    let mut new = new_version(VersionKind::Fast, step);
    new.created_at = created_at;
    let published = publisher.publish(new)?;
    Ok(published.manifest.version)
}

/// Names and sizes of the files of versions.
fn files(dir: &Path) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    for folder in ["blobs", "manifests"] {
        for entry in std::fs::read_dir(dir.join(folder)).expect("there") {
            let entry = entry.expect("readable");
            let bytes = entry.metadata().expect("readable").len();
            files.push((entry.file_name().to_string_lossy().into_owned(), bytes));
        }
    }
    files.sort();
    files
}

fn bytes(files: &[(String, u64)]) -> u64 {
    files.iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn at_the_limit_nothing_is_published_until_retention_has_made_room() {
    let dir = tempfile::tempdir().expect("temp dir");
    let limits = StoreLimits {
        disk_bytes_max: BYTES_MAX,
        reserve: None,
    };
    let publisher = open(dir.path(), limits.clone());
    let mut steps = 1..MANY;
    let refused = steps.find_map(|step| publish(&publisher, step, NOW_MILLIS).err());
    assert!(
        matches!(
            refused,
            Some(PublishError::DiskLimit {
                bytes_max: BYTES_MAX,
                ..
            })
        ),
        "{refused:?}"
    );
    let newest = publisher.latest().expect("published").manifest.version;
    let before = files(dir.path());
    assert_eq!(publisher.store_use().used_bytes, bytes(&before));
    assert!(bytes(&before) <= BYTES_MAX, "{} bytes", bytes(&before));
    let step = steps.next().expect("more");
    assert!(
        publish(&publisher, step, NOW_MILLIS + 29_000).is_err(),
        "all are young still"
    );
    assert_eq!(files(dir.path()), before, "nothing of what failed is left");

    let step = steps.next().expect("more");
    let after = publish(&publisher, step, NOW_MILLIS + 31_000).expect("the old ones are gone");

    assert_eq!(after, newest.next());
    assert!(files(dir.path()).len() < before.len());
    assert_eq!(publisher.store_use().used_bytes, bytes(&files(dir.path())));
    drop(publisher);
    let again = open(dir.path(), limits);
    assert_eq!(again.store_use().used_bytes, bytes(&files(dir.path())));
    assert_eq!(again.latest().expect("restored").manifest.version, after);
}

#[test]
fn a_version_that_could_not_be_written_leaves_nothing_and_its_number_is_not_given_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path(), StoreLimits::default());
    publish(&publisher, 1, NOW_MILLIS).expect("published");
    let before = files(dir.path());
    let (manifests, elsewhere) = (dir.path().join("manifests"), dir.path().join("elsewhere"));
    std::fs::rename(&manifests, &elsewhere).expect("moved");
    let refused = publish(&publisher, 2, NOW_MILLIS).expect_err("there is no folder");
    assert!(refused.may_pass(), "{refused}");
    // Without the folder it is not known whether the manifest was written, so nothing goes out.
    assert!(publish(&publisher, 3, NOW_MILLIS).is_err());
    std::fs::rename(&elsewhere, &manifests).expect("moved back");
    assert_eq!(files(dir.path()), before);
    assert_eq!(
        publisher.latest().expect("published").manifest.version,
        Version(1)
    );

    let healed = publish(&publisher, 4, NOW_MILLIS).expect("published");

    assert_eq!(healed, Version(3), "2 may have been on disk");
    let previous = publisher.latest().expect("published").manifest.delta;
    assert_eq!(previous.map(|delta| delta.base_version), Some(Version(1)));
}

#[test]
fn without_the_reserve_of_the_log_nothing_is_published_and_it_is_taken_again_first() {
    let dir = tempfile::tempdir().expect("temp dir");
    let reserve = Arc::new(Reserve::open(dir.path(), 100_000));
    let limits = StoreLimits {
        disk_bytes_max: 0,
        reserve: Some(Arc::clone(&reserve)),
    };
    let publisher = open(dir.path(), limits);
    assert!(reserve.give_up());
    let in_the_way = dir.path().join(".unfinished-reserve");
    std::fs::create_dir(&in_the_way).expect("made");
    let refused = publish(&publisher, 1, NOW_MILLIS);
    assert!(
        matches!(refused, Err(PublishError::NoReserve { .. })),
        "{refused:?}"
    );
    assert!(!publisher.store_use().is_reserve_held);
    std::fs::remove_dir(&in_the_way).expect("removed");

    publish(&publisher, 1, NOW_MILLIS).expect("there is room again");

    assert!(publisher.store_use().is_reserve_held);
}

#[test]
fn broken_manifests_below_all_that_is_kept_are_gone_after_a_start_and_no_number_comes_back() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path(), StoreLimits::default());
    for step in 1..=3 {
        publish(&publisher, step, NOW_MILLIS).expect("published");
    }
    drop(publisher);
    let path = |version: u64, suffix: &str| {
        let name = format!("{version:020}.json{suffix}");
        dir.path().join("manifests").join(name)
    };
    std::fs::write(path(2, ""), b"{}").expect("written");
    std::fs::write(path(9, ".broken"), b"{}").expect("written");
    let publisher = open(dir.path(), StoreLimits::default());
    assert!(path(2, ".broken").exists(), "put aside");
    for step in 4..=80 {
        publish(&publisher, step, NOW_MILLIS + i64::from(step) * 10_000).expect("published");
    }
    assert_eq!(
        publisher.latest().expect("published").manifest.version,
        Version(86)
    );
    drop(publisher);

    let started = Instant::now();
    let publisher = open(dir.path(), StoreLimits::default());
    println!("opened in {:?}", started.elapsed());

    assert!(!path(2, ".broken").exists() && !path(9, ".broken").exists());
    assert_eq!(
        publish(&publisher, 81, NOW_MILLIS + 900_000).expect("published"),
        Version(87)
    );
}

#[test]
fn ten_thousand_versions_are_kept_found_again_at_the_start_and_gone_when_their_time_is_over() {
    const NUM_VERSIONS: u64 = 10_000;
    let dir = tempfile::tempdir().expect("temp dir");
    let mut settings = config(&SHORT_LIVED).publish;
    settings.snapshot_every_versions = 200;
    let open = || Publisher::open(dir.path(), "main", &settings).expect("opens");
    let publisher = open();
    let started = Instant::now();
    for number in 1..=NUM_VERSIONS {
        let step = i16::try_from(number).expect("fits");
        publish(&publisher, step, NOW_MILLIS).expect("published");
    }
    println!("published in {:?}", started.elapsed());
    drop(publisher);
    let found = files(dir.path());
    println!("{} files of {} bytes", found.len(), bytes(&found));

    let started = Instant::now();
    let publisher = open();
    println!("opened in {:?}", started.elapsed());

    let newest = publisher.latest().expect("restored").manifest.version;
    assert_eq!(newest, Version(NUM_VERSIONS));
    let started = Instant::now();
    let manifests = publisher.manifests().expect("readable");
    println!("manifests read in {:?}", started.elapsed());
    assert_eq!(manifests.len() as u64, NUM_VERSIONS);
    let ledger = Ledger::open(dir.path(), 10_000, &manifests).expect("opens");
    assert!(ledger.of(newest).is_some());
    println!("ledger opened in {:?}", started.elapsed());

    publish(&publisher, 10_001, NOW_MILLIS + 31_000).expect("published");

    let kept = publisher.manifests().expect("readable");
    assert!(kept.len() <= 402, "{} manifests", kept.len()); // back to the last snapshot but one
    assert!(files(dir.path()).len() < found.len() / 20);
    assert!(ledger.of(Version(1)).is_some(), "the ledger remembers");
    assert_eq!(publisher.store_use().used_bytes, bytes(&files(dir.path())));
}
