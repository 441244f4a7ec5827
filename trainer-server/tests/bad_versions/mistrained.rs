//! Versions whose codes are what was trained, but training went wrong.

use std::collections::BTreeMap;

use trainer_server::gate::{GateError, GateFigures};

use crate::report::Report;
use crate::scene::{CHUNK_LEN, NUM_ROUNDS_BEFORE, Scene, weights};

type Weights = BTreeMap<String, Vec<f32>>;
type Kind = (&'static str, fn(&mut Weights));

/// Width of an item row in the scene.
const DIM: usize = 32;
/// An item that is somewhere in the middle.
const ITEM: usize = 1234;

fn tensor<'a>(weights: &'a mut Weights, name: &str) -> &'a mut Vec<f32> {
    weights.get_mut(name).expect("a trained tensor")
}

fn scale(values: &mut [f32], factor: f32) {
    for value in values {
        *value *= factor;
    }
}

const FAST: [Kind; 14] = [
    ("NaN in an item row", |weights| {
        tensor(weights, "item.id_rows")[ITEM * DIM] = f32::NAN
    }),
    ("an infinite bias", |weights| {
        tensor(weights, "item.bias")[ITEM] = f32::INFINITY
    }),
    ("NaN in a prior weight", |weights| {
        tensor(weights, "prior.weights")[0] = f32::NAN
    }),
    ("NaN in the slow group", |weights| {
        tensor(weights, "layers.0.ff_in")[5] = f32::NAN
    }),
    ("a huge bias", |weights| {
        tensor(weights, "item.bias")[ITEM] = 1e9
    }),
    ("huge prior weights", |weights| {
        scale(tensor(weights, "prior.weights"), 1e4)
    }),
    ("a huge weight of taste", |weights| {
        tensor(weights, "taste.weight")[0] = 1e4
    }),
    ("a huge weight of neighbours", |weights| {
        tensor(weights, "neighbour.weight")[0] = 1e4
    }),
    ("prior weights negated", |weights| {
        scale(tensor(weights, "prior.weights"), -1.0)
    }),
    ("weight of taste negated", |weights| {
        scale(tensor(weights, "taste.weight"), -1.0)
    }),
    ("bias of one item inflated by 8", |weights| {
        tensor(weights, "item.bias")[ITEM] += 8.0;
    }),
    ("a huge item row", |weights| {
        tensor(weights, "item.id_rows")[ITEM * DIM] = 1e30;
    }),
    ("item rows zeroed", |weights| {
        tensor(weights, "item.id_rows").fill(0.0)
    }),
    ("item rows one row on", |weights| {
        tensor(weights, "item.id_rows").rotate_left(DIM)
    }),
];

const RELEASES: [Kind; 5] = [
    (
        "release: text projection with its sign flipped",
        |weights| {
            scale(tensor(weights, "text.projection"), -1.0);
        },
    ),
    ("release: attention rows permuted", |weights| {
        tensor(weights, "layers.0.value").rotate_left(DIM);
        tensor(weights, "layers.0.ff_out").rotate_left(DIM);
    }),
    ("release: final norm negated", |weights| {
        scale(tensor(weights, "final_norm"), -1.0);
    }),
    ("release: huge weights of attention", |weights| {
        scale(tensor(weights, "layers.0.output"), 1e7)
    }),
    ("release: NaN in the slow group", |weights| {
        tensor(weights, "layers.0.norm_1")[3] = f32::NAN;
    }),
];

#[test]
fn a_version_that_was_trained_to_nonsense_is_refused() {
    let Some(scene) = Scene::get() else { return };
    let mut run = scene.settled(&[]);
    let chunk = run.next_chunk(CHUNK_LEN);
    run.learn(&chunk);
    let mut report = Report::default();
    for (kind, change) in FAST {
        let judged = run.judge_mistrained(change);
        report.add(kind, judged.map(|passed| passed.figures));
    }
    run.judge().expect("what was trained passes as it is");
    report.add("learning rate × 1,000 for three batches", too_fast(scene));
    report.expect_all_refused(FAST.len() + 1);
}

fn too_fast(scene: &Scene) -> Result<GateFigures, GateError> {
    // The gate alone: bounds on influence leave less of a batch to learn too fast.
    let mut run = scene.run(&[
        ("train.fast_learning_rate", "10.0"),
        ("influence.clients_min", "0"),
    ]);
    for _ in 0..NUM_ROUNDS_BEFORE {
        let chunk = run.next_chunk(CHUNK_LEN);
        run.learn(&chunk); // so that there are events before; what it learned is taken back
        run.learner.return_to_live();
    }
    for _ in 0..3 {
        let chunk = run.next_chunk(CHUNK_LEN);
        run.learn(&chunk);
    }
    run.judge().map(|passed| passed.figures)
}

#[test]
fn a_release_that_was_trained_to_nonsense_is_refused() {
    let Some(scene) = Scene::get() else { return };
    let mut run = scene.settled(&[]);
    let sound = weights(&run.learner);
    let mut report = Report::default();
    for (kind, change) in RELEASES {
        let mut changed = sound.clone();
        change(&mut changed);
        run.take_weights(changed);
        let judged = run.judge_release().map(|_| Default::default());
        report.add(kind, judged);
        run.take_weights(sound.clone());
    }
    report.expect_all_refused(RELEASES.len());
    run.judge_release()
        .expect("what was trained passes as it is");
}
