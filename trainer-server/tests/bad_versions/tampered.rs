//! Versions whose codes were damaged or mixed up between training and the gate.

use shared_model::codec::state::{CodeState, CodeTensor};

use crate::report::Report;
use crate::scene::{CHUNK_LEN, Scene};

fn tensor<'a>(state: &'a mut CodeState, name: &str) -> &'a mut CodeTensor {
    state.tensor_mut(name).expect("in the spec")
}

/// Every row gets the codes and the exponent of the next.
fn rotate_rows(tensor: &mut CodeTensor) {
    tensor.codes.rotate_left(tensor.num_cols);
    tensor.exponents.rotate_left(1);
}

fn negate(tensor: &mut CodeTensor) {
    for code in &mut tensor.codes {
        *code = -*code;
    }
}

fn truncate_items(state: &mut CodeState) {
    let num_items = state.items.len() - 100;
    state.items.truncate(num_items);
    let shapes = state.shapes();
    for (shape, tensor) in shapes.iter().zip(&mut state.tensors) {
        if shape.per_item {
            tensor.num_rows = num_items;
            tensor.exponents.truncate(num_items);
            tensor.codes.truncate(num_items * tensor.num_cols);
        }
    }
}

fn rotate_vocabulary(state: &mut CodeState) {
    let shapes = state.shapes();
    for (shape, tensor) in shapes.iter().zip(&mut state.tensors) {
        if shape.per_item && shape.num_cols > 0 {
            rotate_rows(tensor);
        }
    }
}

type Kind = (&'static str, fn(&mut CodeState));

const KINDS: [Kind; 17] = [
    (
        "vocabulary swapped: all tables one row on",
        rotate_vocabulary,
    ),
    ("vocabulary swapped: the ids one row on", |state| {
        state.items.rotate_left(1)
    }),
    ("item rows one row on", |state| {
        rotate_rows(tensor(state, "item.id_rows"))
    }),
    ("item rows: exponents one too high", |state| {
        for exponent in &mut tensor(state, "item.id_rows").exponents {
            *exponent += 1;
        }
    }),
    ("item rows: codes saturated", |state| {
        for code in &mut tensor(state, "item.id_rows").codes[..32 * 40] {
            *code = 127 * code.signum();
        }
    }),
    ("item rows: every other one zeroed", |state| {
        for row in tensor(state, "item.id_rows").codes.chunks_exact_mut(64) {
            row[..32].fill(0);
        }
    }),
    ("bias of one item inflated", |state| {
        let bias = tensor(state, "item.bias");
        (bias.exponents[17], bias.codes[17]) = (0, 20);
    }),
    ("counts doubled", |state| {
        for code in &mut tensor(state, "item.counts").codes {
            *code = code.saturating_add(if *code == i16::MIN { 0 } else { 32 });
        }
    }),
    ("counts of the next item", |state| {
        rotate_rows(tensor(state, "item.counts"))
    }),
    ("counts of another landmark", |state| {
        state.landmark_millis += 86_400_000
    }),
    ("prior weights negated", |state| {
        negate(tensor(state, "prior.weights"))
    }),
    ("weight of taste negated", |state| {
        negate(tensor(state, "taste.weight"))
    }),
    ("neighbours of the next item", |state| {
        rotate_rows(tensor(state, "item.neighbours"))
    }),
    ("text projection with its sign flipped", |state| {
        negate(tensor(state, "text.projection"))
    }),
    ("attention: rows of the queries one on", |state| {
        rotate_rows(tensor(state, "layers.0.query"));
    }),
    ("texts of another encoder", |state| {
        state.encoder_generation ^= 1;
        negate(tensor(state, "item.text"));
    }),
    ("texts of another encoder under the old number", |state| {
        rotate_rows(tensor(state, "item.text"));
    }),
];

#[test]
fn a_version_whose_codes_are_not_what_was_trained_is_refused() {
    let Some(scene) = Scene::get() else { return };
    let mut run = scene.settled(&[]);
    let stale = CodeState::clone(&run.learner.live().expect("live").state);
    for _ in 0..3 {
        let chunk = run.next_chunk(CHUNK_LEN);
        run.learn(&chunk);
        let version = run.judge().expect("a good version");
        run.publish(version);
    }
    let chunk = run.next_chunk(CHUNK_LEN);
    run.learn(&chunk);
    let mut report = Report::default();
    for (kind, change) in KINDS {
        let judged = run.judge_changed(change);
        report.add(kind, judged.map(|passed| passed.figures));
    }
    let judged = run.judge_changed(|state| *state = stale);
    report.add(
        "a base that is three versions old",
        judged.map(|passed| passed.figures),
    );
    // Fewer items than the live version would be no error of a device, so nothing is made ready for it.
    let mut cut = run.learner.candidate();
    truncate_items(&mut cut);
    let ready = run.learner.ready(&cut);
    let judged = pollster::block_on(run.learner.check(&cut, &ready));
    report.add("items truncated", judged);
    report.expect_all_refused(KINDS.len() + 2);
    run.judge().expect("what was trained passes as it is");
}
