//! Versions that learned what nobody meant: events of few users who want to be seen everywhere, and true events whose
//! items were mixed up on their way into training.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trainer_server::dataset::DatasetEvent;
use trainer_server::gate::{GateError, GateFigures};

use crate::report::Report;
use crate::scene::{CHUNK_LEN, Scene, weights};

/// As many as one round takes.
const BATCH_LEN: usize = 512;
/// Batches of a burst.
const NUM_BATCHES: usize = 8;
/// Batches that were learned with items mixed up before anybody looked.
const NUM_MIXED_UP: usize = 40;

type Kind = (&'static str, fn(&mut [DatasetEvent]));

const BURSTS: [Kind; 2] = [
    ("a burst of one user on one item", |events| {
        let user_idx = events[0].user_idx;
        for event in events {
            (event.user_idx, event.item_idx) = (user_idx, 1234);
        }
    }),
    ("a burst of three users on two items", |events| {
        for (idx, event) in events.iter_mut().enumerate() {
            event.user_idx = (idx % 3) as u32; // small
            event.item_idx = 1234 + (idx % 2) as u32; // likewise
        }
    }),
];

fn judged(scene: &Scene, change: fn(&mut [DatasetEvent])) -> Result<GateFigures, GateError> {
    // The gate alone: bounds on influence would teach next to nothing of it.
    let mut run = scene.settled(&[("influence.clients_min", "0")]);
    for _ in 0..NUM_BATCHES {
        let mut batch = run.next_chunk(BATCH_LEN);
        change(&mut batch);
        run.learn(&batch);
    }
    run.judge().map(|passed| passed.figures)
}

/// A learner that learned the items of others, judged by true events.
fn mixed_up(scene: &Scene) -> Result<GateFigures, GateError> {
    let mut rng = StdRng::seed_from_u64(3);
    let num_items = scene.dataset.items.len() as u32; // fits: NUM_ITEMS_MAX is 2^20
    let mut rogue = scene.settled(&[]);
    for _ in 0..NUM_MIXED_UP {
        let mut chunk = rogue.next_chunk(CHUNK_LEN);
        for event in &mut chunk {
            event.item_idx = rng.random_range(0..num_items);
        }
        rogue.learn(&chunk);
    }
    let learned = weights(&rogue.learner);
    let mut run = scene.settled(&[]);
    let chunk = run.next_chunk(CHUNK_LEN);
    run.learn(&chunk);
    let judged = run.judge_mistrained(|weights| *weights = learned);
    judged.map(|passed| passed.figures)
}

#[test]
fn a_version_that_learned_what_nobody_meant_is_refused() {
    let Some(scene) = Scene::get() else { return };
    let mut report = Report::default();
    for (kind, change) in BURSTS {
        report.add(kind, judged(scene, change));
    }
    report.add("forty batches with labels flipped", mixed_up(scene));
    report.expect_all_refused(BURSTS.len() + 1);
    judged(scene, |_| ()).expect("the same batch as it was");
}
