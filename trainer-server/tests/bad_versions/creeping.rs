//! What creeps: each version passes the gate, and all of them together are worse than where they began.
//!
//! The watch over versions must find that out, and must not take it for drift: along a good stream it stays silent.

use trainer_server::dataset::DatasetEvent;
use trainer_server::learner::WatchFigures;

use crate::scene::{CHUNK_LEN, Run, Scene, weights};

/// Rounds along the good stream.
const NUM_GOOD_ROUNDS: usize = 200;
/// Rounds within which creeping poison must be found.
const NUM_ROUNDS_MAX: usize = 150;
/// Events asked about after which a server makes the newest version the anchor.
const WATCH_EVENTS: u64 = 5000;

/// Learns a chunk and publishes what the gate lets through; whether it was the first candidate.
fn round(run: &mut Run<'_>, chunk: &[DatasetEvent]) -> bool {
    run.learn(chunk);
    for attempt in 0..2 {
        if let Ok(passed) = run.judge() {
            run.publish(passed);
            return attempt == 0;
        }
        run.learner.undo_last();
    }
    false
}

fn watched(run: &Run<'_>) -> WatchFigures {
    run.learner.watched().expect("it is on")
}

#[test]
fn along_a_good_stream_no_version_is_taken_for_worse_than_one_before() {
    let Some(scene) = Scene::get() else { return };
    let mut run = scene.run(&[]);
    run.learner.watch_from_here();
    let mut highest = f64::NEG_INFINITY;
    for round_idx in 0..NUM_GOOD_ROUNDS {
        let chunk = run.next_chunk(CHUNK_LEN);
        round(&mut run, &chunk);
        let figures = watched(&run);
        highest = highest.max(figures.lower);
        assert!(!figures.is_worse, "after {round_idx} rounds: {figures:?}");
        if figures.num_events >= WATCH_EVENTS {
            run.learner.watch_from_here();
        }
    }
    let figures = watched(&run);
    println!("good stream: at the end {figures:?}; highest bound on the way {highest:.3}");
    assert!(
        figures.mean < 0.0,
        "who learns is better than who does not: {figures:?}"
    );
}

#[test]
fn a_learner_that_goes_wrong_a_little_with_each_version_is_found_out() {
    let Some(scene) = Scene::get() else { return };
    let mut run = scene.settled(&[]);
    run.learner.watch_from_here();
    let mut num_passed = 0;
    for round_idx in 0..NUM_ROUNDS_MAX {
        let mut weights = weights(&run.learner);
        let bias = weights.get_mut("item.bias").expect("in the spec");
        for (idx, value) in bias.iter_mut().enumerate() {
            *value += 0.02 * ((idx % 7) as f32 - 3.0);
        }
        run.take_weights(weights);
        let chunk = run.next_chunk(CHUNK_LEN);
        num_passed += usize::from(round(&mut run, &chunk));
        let figures = watched(&run);
        if figures.is_worse {
            println!(
                "biases that drift: found after {round_idx} rounds, {num_passed} passed the gate, {figures:?}"
            );
            assert!(
                num_passed > round_idx / 2,
                "what the gate refuses does not creep"
            );
            return;
        }
    }
    panic!(
        "not found, {num_passed} passed the gate, {:?}",
        watched(&run)
    );
}
