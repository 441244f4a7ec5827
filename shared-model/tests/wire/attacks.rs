//! Attacks on the update channel that sign nothing: what was signed once, mixed, reordered, replayed and damaged.
//! The table of all attacks is `docs/attacks.md`; the last test holds it to the tests that exist.

use std::collections::BTreeMap;
use std::path::Path;

use shared_model::edge::sync::{EdgeError, EdgeRequest, EdgeSync, Trust};
use shared_model::ids::{BlobId, Version};
use shared_model::manifest::{PlanStep, PlanStepKind, sign};

use crate::fixtures::{MODEL, Publisher, announcement_of, blob_ref, plan_of, rng};

fn code(outcome: Result<(), EdgeError>) -> &'static str {
    outcome.map_or_else(|error| error.code(), |()| "believed")
}

/// A page that is live with version 1, and the versions 2 and 3 that it has not seen.
fn scene(seed: u64) -> (EdgeSync, Publisher) {
    let mut publisher = Publisher::new(seed);
    let mut sync = EdgeSync::new(MODEL, Trust::Keys(vec![publisher.key.verifying_key()]));
    let first = &publisher.versions[0];
    sync.restore(&first.signed, &first.snapshot)
        .expect("an honest cache");
    let rng = &mut rng(seed);
    (0..2).for_each(|_| publisher.advance(rng));
    (sync, publisher)
}

/// Gives the page a plan of these deltas to the newest version, and answers what it says of them.
fn carry_out(sync: &mut EdgeSync, publisher: &Publisher, versions: &[usize]) -> &'static str {
    let step = |version: &usize| {
        let version = &publisher.versions[version - 1];
        PlanStep {
            kind: PlanStepKind::Delta,
            blob: blob_ref(&version.delta),
            target_version: version.manifest.version,
        }
    };
    let steps = versions.iter().map(step).collect();
    while !matches!(sync.next_request(), Some(EdgeRequest::Plan { .. })) {}
    let planned = code(sync.on_plan(&plan_of(publisher.newest(), steps)));
    if planned != "believed" {
        return planned;
    }
    while let Some(EdgeRequest::Blob { blob }) = sync.next_request() {
        let answered = code(sync.on_blob(blob.id, publisher.blob(blob.id)));
        if answered != "believed" {
            return answered;
        }
    }
    "believed"
}

#[test]
fn reordered_steps_are_refused() {
    let (mut sync, publisher) = scene(1);
    assert_eq!(carry_out(&mut sync, &publisher, &[3, 2]), "malformed");
    assert_eq!(
        sync.live().map(|live| live.manifest.version),
        Some(Version(1))
    );
}

#[test]
fn a_plan_without_its_first_or_last_step_is_refused() {
    let (mut sync, publisher) = scene(2);
    assert_eq!(carry_out(&mut sync, &publisher, &[3]), "wrong_base");
    let (mut sync, publisher) = scene(3);
    assert_eq!(carry_out(&mut sync, &publisher, &[2]), "malformed");
    assert_eq!(carry_out(&mut sync, &publisher, &[2, 3]), "believed");
    assert!(sync.candidate().is_some());
}

#[test]
fn a_delta_beside_the_manifest_of_another_version_is_refused() {
    let (mut sync, mut publisher) = scene(4);
    let second = publisher.versions[1].delta.clone();
    publisher.versions[2].delta = second;
    let mixed = publisher.announcement(true);
    assert_eq!(code(sync.on_announcement(&mixed)), "inconsistent");
    assert!(sync.candidate().is_none());
}

#[test]
fn an_inline_delta_is_refused_truncated_anywhere_and_changed_at_every_byte() {
    let (_, publisher) = scene(5);
    let first = &publisher.versions[0];
    let honest = publisher.versions[1].delta.clone();
    let mut damaged: Vec<Vec<u8>> = (0..honest.len())
        .map(|len| honest[..len].to_vec())
        .collect();
    for idx in 0..honest.len() {
        let mut changed = honest.clone();
        changed[idx] ^= 1 << (idx % 8);
        damaged.push(changed);
    }
    for delta in damaged {
        let mut sync = EdgeSync::new(MODEL, Trust::Keys(vec![publisher.key.verifying_key()]));
        sync.restore(&first.signed, &first.snapshot)
            .expect("an honest cache");
        let mut version = Publisher::new(5);
        version.versions[0].delta = delta;
        version.versions[0].manifest = publisher.versions[1].manifest.clone();
        version.versions[0].signed = publisher.versions[1].signed.clone();
        let outcome = sync.on_announcement(&announcement_of(version.newest(), true));
        assert!(
            outcome.is_err() || sync.candidate().is_none(),
            "a damaged delta was taken"
        );
        assert_eq!(
            sync.live().map(|live| live.state.hash()),
            Some(first.manifest.state)
        );
    }
}

#[test]
fn a_plan_from_before_is_refused_when_it_is_replayed() {
    let (mut sync, publisher) = scene(6);
    let replayed = plan_of(&publisher.versions[0], Vec::new());
    assert_eq!(carry_out(&mut sync, &publisher, &[2, 3]), "believed");
    sync.accept();
    let mut ahead = publisher;
    ahead.advance(&mut rng(60));
    sync.on_announcement(&ahead.announcement(false))
        .expect("an honest announcement");
    assert!(matches!(
        sync.next_request(),
        Some(EdgeRequest::Plan { .. })
    ));
    assert_eq!(code(sync.on_plan(&replayed)), "stale");
}

#[test]
fn a_manifest_that_names_another_spec_than_its_state_has_is_refused() {
    let (mut sync, mut publisher) = scene(7);
    let key = publisher.key.clone();
    let newest = publisher.versions.last_mut().expect("published");
    newest.manifest.spec_hash = BlobId([9; 32]);
    newest.signed = sign(&newest.manifest, &key);
    assert_eq!(carry_out(&mut sync, &publisher, &[2, 3]), "inconsistent");
    assert!(sync.candidate().is_none());
}

/// Rows are `| attack | file: test | code | sentence |`.
#[test]
fn every_attack_in_the_table_names_a_test_and_a_code_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read =
        |path: &str| std::fs::read_to_string(root.join(path)).expect("a file of the checkout");
    let errors = read("shared-model/src/edge/sync/error.rs");
    let table = read("docs/attacks.md");
    let mut files = BTreeMap::new();
    let mut num_rows = 0;
    for row in table
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains(".rs"))
    {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        for claim in cells[1].split("<br>") {
            let (file, test) = claim.trim_matches('`').split_once(": ").expect(row);
            let text = files.entry(file.to_owned()).or_insert_with(|| read(file));
            assert!(
                text.contains(&format!("fn {test}()")),
                "{file} has no test {test}"
            );
        }
        for code in cells[2].split(", ") {
            let quoted = format!("\"{}\"", code.trim_matches('`'));
            assert!(
                errors.contains(&quoted),
                "no error has the code {code}: {row}"
            );
        }
        num_rows += 1;
    }
    assert!(num_rows >= 25, "{num_rows} rows were read");
}
