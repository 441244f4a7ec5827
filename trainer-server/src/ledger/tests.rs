//! Tests of the ledger: what a restart, a crash and its bound leave of the rows.

use super::*;

const ROWS_MAX: usize = 20;

fn refusal(newest: u64) -> LedgerRow {
    let gate = Some(GateFigures {
        log_loss: Some(5.5),
        live_log_loss: Some(5.0),
        ..GateFigures::default()
    });
    LedgerRow::refused(
        Version(newest),
        VersionKind::Fast,
        5,
        "it would be worse",
        gate,
    )
}

fn published(version: u64) -> LedgerRow {
    LedgerRow::Published(PublishedRow::new(&manifest(version), None, None))
}

fn manifest(version: u64) -> Manifest {
    let text = serde_json::json!({
        "format_version": 1, "model": "main", "version": version, "kind": "fast",
        "state": "0".repeat(64), "spec_hash": "0".repeat(64), "encoder_generation": 0,
        "learned_from": version, "learned_through": version + 1, "event_time_millis": 0,
        "created_at": 7, "expires_at": 8, "learned_code_bytes": 1,
        "self_test": {
            "history": [], "now_millis": 0, "item_ids": [], "scores": [], "tolerance": 0.1,
        },
    });
    serde_json::from_value(text).expect("a manifest")
}

/// The newest rows without their numbers.
fn newest(ledger: &Ledger, limit: usize) -> Vec<LedgerRow> {
    let rows = ledger.newest(limit, None).into_iter();
    rows.map(|numbered| numbered.row).collect()
}

fn open(dir: &Path, manifests: &[Manifest]) -> Ledger {
    Ledger::open(dir, ROWS_MAX, manifests).expect("opens")
}

#[test]
fn rows_survive_a_restart_newest_first_and_a_torn_line_is_dropped() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ledger = open(dir.path(), &[]);
    for newest in 1..=3 {
        ledger.add(refusal(newest)).expect("written");
    }
    let path = dir.path().join(FILE_NAME);
    let whole = fs::read(&path).expect("readable");
    fs::write(&path, &whole[..whole.len() - 9]).expect("torn");

    let again = open(dir.path(), &[]);

    assert_eq!(newest(&again, 9), [refusal(2), refusal(1)]);
    assert_eq!(newest(&again, 1), [refusal(2)]);
    again.add(refusal(4)).expect("written after the torn line");
    let again = open(dir.path(), &[]);
    assert_eq!(newest(&again, 1), [refusal(4)]);
}

#[test]
fn a_ledger_torn_at_any_byte_opens_and_loses_only_its_last_rows() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ledger = open(dir.path(), &[]);
    for version in 1..=3 {
        ledger.add(published(version)).expect("written");
    }
    let path = dir.path().join(FILE_NAME);
    let whole = fs::read(&path).expect("readable");
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).expect("torn");
        let num_whole = whole[..=len].iter().filter(|byte| **byte == b'\n').count();
        let again = open(dir.path(), &[]);
        assert_eq!(newest(&again, 9).len(), num_whole, "torn at {len}");
    }
}

#[test]
fn versions_without_a_row_get_one_from_their_manifest_where_they_belong() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ledger = open(dir.path(), &[]);
    ledger.add(published(1)).expect("written");
    ledger.add(refusal(2)).expect("written");
    ledger.add(published(3)).expect("written");
    let manifests = [1, 2, 3, 4].map(manifest);

    let again = open(dir.path(), &manifests);

    let rows = [
        published(4),
        published(3),
        refusal(2),
        published(2),
        published(1),
    ];
    let found = newest(&again, 9);
    assert_eq!(found.len(), rows.len());
    assert_eq!(found[0], rows[0]);
    let versions = |rows: &[LedgerRow]| rows.iter().map(LedgerRow::version).collect::<Vec<_>>();
    let mut versions = versions(&found);
    versions.retain(Option::is_some);
    assert_eq!(versions, [4, 3, 2, 1].map(|version| Some(Version(version))));
}

#[test]
fn a_version_has_one_row_however_often_it_is_added() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ledger = open(dir.path(), &[]);
    ledger.add(published(1)).expect("written");
    ledger.add(published(1)).expect("nothing to write");
    assert_eq!(newest(&open(dir.path(), &[manifest(1)]), 9).len(), 1);
}

#[test]
fn pages_of_rows_follow_each_other_without_a_gap() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ledger = open(dir.path(), &[]);
    for version in 1..=7 {
        ledger.add(published(version)).expect("written");
    }
    ledger.add(refusal(7)).expect("written");
    ledger
        .add(refusal(7))
        .expect("a refusal is no version: each has its row");
    let mut all = Vec::new();
    let mut before = None;
    loop {
        let rows = ledger.newest(4, before);
        let Some(last) = rows.last() else { break };
        before = Some(last.number);
        all.extend(rows.into_iter().map(|numbered| numbered.row));
    }
    let mut expected = vec![refusal(7), refusal(7)];
    expected.extend((1..=7).rev().map(published));
    assert_eq!(all, expected);
    assert_eq!(
        ledger.of(Version(3)).map(LedgerRow::Published),
        Some(published(3))
    );
    assert_eq!(ledger.of(Version(9)), None);
}

#[test]
fn the_oldest_rows_go() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ledger = open(dir.path(), &[]);
    for newest in 0..2 * ROWS_MAX as u64 {
        ledger.add(refusal(newest)).expect("written");
    }
    let again = open(dir.path(), &[]);
    assert_eq!(newest(&again, usize::MAX).len(), ROWS_MAX);
    assert_eq!(newest(&ledger, 1), newest(&again, 1));
    assert_eq!(newest(&again, 1), [refusal(2 * ROWS_MAX as u64 - 1)]);
}

#[test]
fn rows_that_could_not_be_written_come_with_the_first_that_can() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ledger = open(dir.path(), &[]);
    ledger.add(published(1)).expect("written");
    let path = dir.path().join(FILE_NAME);
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("in the way");
    for version in [2, 3] {
        ledger.add(published(version)).expect_err("no file");
    }
    assert_eq!(newest(&ledger, 9).len(), 3, "they are shown all the same");
    fs::remove_dir(&path).expect("out of the way");

    ledger.add(published(4)).expect("written");

    let again = open(dir.path(), &[]);
    assert_eq!(newest(&again, 9), [4, 3, 2, 1].map(published));
}

#[test]
fn a_ledger_that_cannot_be_written_opens_and_is_written_later() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let in_the_way = dir.path().join(format!(".unfinished-{FILE_NAME}"));
    fs::create_dir(&in_the_way).expect("made");
    let ledger = open(dir.path(), &[manifest(1), manifest(2)]);
    assert_eq!(newest(&ledger, 9), [2, 1].map(published));
    fs::remove_dir(&in_the_way).expect("removed");

    ledger.add(published(3)).expect("written");

    let again = open(dir.path(), &[]);
    assert_eq!(newest(&again, 9), [3, 2, 1].map(published));
}
