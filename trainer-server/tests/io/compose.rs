//! Claims about deltas that are merged when a page asks for them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::codec::delta::{apply_delta, encode_delta};
use shared_model::codec::snapshot::decode_snapshot;
use shared_model::codec::state::{CodeState, ItemEntry};
use shared_model::ids::{ItemId, Version};
use shared_model::manifest::{PlanStepKind, UpdatePlan, VersionKind};
use shared_model::spec::ModelSpec;
use trainer_server::publish::{NewVersion, Publisher};

use crate::harness::{NOW_MILLIS, TestServer, config, new_version};

/// Waits long enough for any merged delta, and merges without a rest.
const PATIENT: [(&str, &str); 2] = [
    ("publish.compose_wait_millis", "10000"),
    ("publish.compose_share_max", "1.0"),
];

fn open(dir: &Path, flags: &[(&str, &str)]) -> Publisher {
    let flags: Vec<_> = PATIENT.iter().chain(flags).copied().collect();
    Publisher::open(dir, "main", &config(&flags).publish).expect("opens")
}

/// A catalogue of `num_items` whose rows are drawn by chance.
fn first_state(rng: &mut StdRng, num_items: usize) -> CodeState {
    let spec = ModelSpec {
        embedding_dim: 16,
        text_dim: 0,
        num_neighbours: 0,
        ..ModelSpec::default()
    };
    let mut state = CodeState::empty(spec);
    state.append_items((0..num_items).map(|item_idx| ItemEntry {
        item_id: ItemId::new(format!("item {item_idx}")).expect("short"),
        available: true,
    }));
    let rows = state.tensor_mut("item.id_rows").expect("in every spec");
    rows.codes.fill_with(|| rng.random_range(-60..=60));
    state
}

/// Moves codes of some rows by one or two, the same rows more often than others.
fn moved(state: &CodeState, rng: &mut StdRng, num_rows: usize) -> CodeState {
    let mut state = state.clone();
    let num_items = state.items.len();
    let rows = state.tensor_mut("item.id_rows").expect("in every spec");
    for _ in 0..num_rows {
        let row_idx = rng
            .random_range(0..num_items)
            .min(rng.random_range(0..num_items));
        for code in rows.row_mut(row_idx) {
            *code = (*code + rng.random_range(-2..=2)).clamp(-127, 127);
        }
    }
    state
}

fn publish(publisher: &Publisher, kind: VersionKind, state: CodeState) {
    let step = publisher
        .latest()
        .map_or(1, |latest| latest.manifest.version.0 + 1);
    let step = i16::try_from(step).expect("few versions");
    let new = NewVersion {
        state: Arc::new(state),
        ..new_version(kind, step)
    };
    publisher.publish(new).expect("published");
}

/// Publishes `num_versions` and returns their states, version 1 first.
fn stream(publisher: &Publisher, seed: u64, num_versions: usize) -> Vec<CodeState> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut states = vec![first_state(&mut rng, 400)];
    publish(publisher, VersionKind::Release, states[0].clone());
    while states.len() < num_versions {
        let next = moved(&states[states.len() - 1], &mut rng, 12);
        publish(publisher, VersionKind::Fast, next.clone());
        states.push(next);
    }
    states
}

/// What a page holds after the plan.
fn carried_out(publisher: &Publisher, base: Option<CodeState>, plan: &UpdatePlan) -> CodeState {
    let mut state = base;
    for step in &plan.steps {
        let blob = publisher.blobs().get(step.blob.id).expect("sound");
        let bytes = blob.expect("there");
        state = Some(match step.kind {
            PlanStepKind::Snapshot => decode_snapshot(&bytes).expect("a snapshot").1,
            PlanStepKind::Delta => {
                apply_delta(&state.expect("a base"), &bytes).expect("a delta of it")
            }
        });
    }
    state.expect("a state")
}

#[tokio::test]
async fn pages_at_any_base_get_what_is_within_a_tenth_of_the_best_possible() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path(), &[]);
    let states = stream(&publisher, 7, 120);
    let newest = states.last().expect("some");
    let (mut planned, mut best, mut chain) = (0, 0, 0);
    let started = Instant::now();
    for base in 1..120_u64 {
        let held = &states[usize::try_from(base).expect("small") - 1];
        let before = publisher.plan(Some(Version(base))).expect("a plan");
        let plan = publisher
            .plan_for_page(Some(Version(base)), NOW_MILLIS)
            .await;
        let plan = plan.expect("a plan");
        assert_eq!(&carried_out(&publisher, Some(held.clone()), &plan), newest);
        let direct = encode_delta(held, Version(base), newest, Version(120)).expect("a delta");
        planned += plan.total_bytes;
        best += before.total_bytes.min(direct.len() as u64);
        chain += before.total_bytes;
    }
    println!(
        "119 bases: planned {planned}, best possible {best}, without merging {chain} bytes, {} ms",
        started.elapsed().as_millis()
    );
    assert!(
        planned as f64 <= 1.1 * best as f64,
        "{planned} against {best}"
    );
    assert!(planned < chain, "{planned} against {chain}");
    assert!(publisher.counters().num_composed > 60);
}

#[tokio::test]
async fn many_pages_at_one_base_make_one_merged_delta() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path(), &[]);
    stream(&publisher, 8, 40);
    let pages = (0..200).map(|_| publisher.plan_for_page(Some(Version(23)), NOW_MILLIS));
    let plans = futures_util::future::join_all(pages).await;
    for plan in &plans {
        let plan = plan.as_ref().expect("a plan");
        assert_eq!((plan.steps.len(), plan.target_version), (1, Version(40)));
    }
    assert_eq!(publisher.counters().num_composed, 1);
}

#[tokio::test]
async fn nobody_waits_where_waiting_is_off_and_the_chain_is_the_answer() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path(), &[("publish.compose_wait_millis", "0")]);
    stream(&publisher, 9, 12);
    let plan = publisher.plan_for_page(Some(Version(3)), NOW_MILLIS).await;
    let plan = plan.expect("a plan");
    assert_eq!(plan.target_version, Version(12));
    assert!(!plan.steps.is_empty());
}

#[tokio::test]
async fn a_merged_delta_serves_later_versions_together_with_the_chain() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path(), &[("publish.compose_saving_min", "0.5")]);
    let states = stream(&publisher, 10, 30);
    let base = Some(Version(4));
    let first = publisher
        .plan_for_page(base, NOW_MILLIS)
        .await
        .expect("one");
    assert_eq!(first.steps.len(), 1);
    let mut rng = StdRng::seed_from_u64(11);
    let next = moved(&states[29], &mut rng, 3);
    publish(&publisher, VersionKind::Fast, next.clone());
    let plan = publisher
        .plan_for_page(base, NOW_MILLIS)
        .await
        .expect("one");
    assert_eq!(plan.steps[0], first.steps[0]);
    assert_eq!(plan.steps.len(), 2);
    assert_eq!(
        carried_out(&publisher, Some(states[3].clone()), &plan),
        next
    );
    assert_eq!(publisher.counters().num_composed, 1);
}

#[tokio::test]
async fn merged_deltas_stay_for_the_grace_time_and_then_make_room() {
    let dir = tempfile::tempdir().expect("temp dir");
    let flags = [
        ("publish.composed_bytes_max", "8000"),
        ("publish.handed_out_grace_secs", "60"),
    ];
    let publisher = open(dir.path(), &flags);
    stream(&publisher, 12, 40);
    let mut named = Vec::new();
    for base in 20..30 {
        let plan = publisher
            .plan_for_page(Some(Version(base)), NOW_MILLIS)
            .await;
        named.extend(plan.expect("a plan").steps);
    }
    let early = publisher.counters().num_composed;
    assert!(early >= 1, "at least one fits");
    for step in &named {
        assert!(publisher.blobs().contains(&step.blob), "named to a page");
    }
    let later = NOW_MILLIS + 61_000;
    for base in 30..38 {
        let plan = publisher.plan_for_page(Some(Version(base)), later).await;
        named.extend(plan.expect("a plan").steps);
    }
    assert!(publisher.counters().num_composed > early);
    let is_gone =
        |step: &&shared_model::manifest::PlanStep| !publisher.blobs().contains(&step.blob);
    assert!(named.iter().filter(is_gone).count() > 0);
    for base in 1..40 {
        let plan = publisher.plan(Some(Version(base))).expect("a plan");
        let is_there =
            |step: &shared_model::manifest::PlanStep| publisher.blobs().contains(&step.blob);
        assert!(plan.steps.iter().all(is_there), "from {base}");
    }
}

#[tokio::test]
async fn merged_deltas_are_gone_after_a_restart_and_are_made_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path(), &[]);
    let states = stream(&publisher, 13, 25);
    let base = Some(Version(2));
    let before = publisher
        .plan_for_page(base, NOW_MILLIS)
        .await
        .expect("one");
    assert_eq!(before.steps.len(), 1);
    drop(publisher);
    let publisher = open(dir.path(), &[]);
    assert!(!publisher.blobs().contains(&before.steps[0].blob));
    let after = publisher
        .plan_for_page(base, NOW_MILLIS)
        .await
        .expect("one");
    assert_eq!(after.steps, before.steps);
    let reached = carried_out(&publisher, Some(states[1].clone()), &after);
    assert_eq!(reached, states[24]);
}

#[tokio::test]
async fn where_no_delta_leads_the_snapshot_is_the_answer() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open(dir.path(), &[]);
    let mut states = stream(&publisher, 14, 6);
    let mut next = states.pop().expect("some");
    next.encoder_generation += 1;
    publish(&publisher, VersionKind::Release, next.clone());
    for _ in 0..2 {
        let plan = publisher.plan_for_page(Some(Version(3)), NOW_MILLIS).await;
        let plan = plan.expect("a plan");
        assert_eq!(plan.steps[0].kind, PlanStepKind::Snapshot);
        assert_eq!(carried_out(&publisher, None, &plan), next);
    }
    assert_eq!(publisher.counters().num_composed, 0);
}

#[tokio::test]
async fn plans_over_http_are_merged() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &PATIENT).await;
    stream(&server.publisher, 15, 30);
    let response = server.get("/v1/models/main/plan?base=5").await;
    let body = response.bytes().await.expect("a body");
    let plan = shared_model::manifest::parse_plan(&body).expect("a plan");
    assert_eq!((plan.steps.len(), plan.target_version), (1, Version(30)));
    let blob = server
        .get(&format!("/v1/blobs/{}", plan.steps[0].blob.id))
        .await;
    assert_eq!(blob.status(), 200);
    server.stop().await;
}
