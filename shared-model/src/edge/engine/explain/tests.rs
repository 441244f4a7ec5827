//! Claims about explanations, on made-up codes of a model with texts, features and neighbours.
//!
//! Not here: how faithful they are on real data (`trainer-server/tests/explain.rs`).

use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::codec::state::{COUNTS_TENSOR, ItemEntry, NEIGHBOUR_WEIGHTS_TENSOR, NEIGHBOURS_TENSOR};
use crate::model::scorer::Padding;
use crate::spec::ModelSpec;

/// Sums of some dozen terms of order one in another order, in f32.
const TOLERANCE: f32 = 1e-5;
const NUM_ITEMS: usize = 30;
const HISTORY_LEN: usize = 6;
const NOW_MILLIS: i64 = 500_000;

fn spec() -> ModelSpec {
    ModelSpec {
        embedding_dim: 8,
        text_dim: 5,
        feature_dim: 3,
        history_len: HISTORY_LEN as u32, // 6
        num_layers: 2,
        num_heads: 2,
        ff_dim: 16,
        half_lives_secs: vec![60, 3600],
        num_neighbours: 4,
        adapter_dim: 0,
        has_taste_weight: true,
        ..ModelSpec::default()
    }
}

fn made_up_state(seed: u64) -> CodeState {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut state = CodeState::empty(spec());
    state.append_items((0..NUM_ITEMS).map(|idx| ItemEntry {
        item_id: ItemId::new(format!("i{idx}")).expect("short"),
        available: true,
    }));
    for (shape, tensor) in state.shapes().iter().zip(&mut state.tensors) {
        for row_idx in 0..tensor.num_rows {
            let is_gamma = shape.name.contains("norm") && row_idx == 0;
            let is_free = shape.name != COUNTS_TENSOR && shape.name != NEIGHBOURS_TENSOR;
            if is_free && tensor.num_cols > 0 {
                tensor.exponents[row_idx] = if tensor.code_bits == 8 { -8 } else { -14 };
            }
            for code in tensor.row_mut(row_idx) {
                *code = match shape.name.as_str() {
                    NEIGHBOURS_TENSOR => rng.random_range(0..=NUM_ITEMS as i16), // 30
                    NEIGHBOUR_WEIGHTS_TENSOR => rng.random_range(0..=127),
                    COUNTS_TENSOR => rng.random_range(0..200),
                    _ if is_gamma => 1 << 14,
                    _ if shape.code_bits == 8 => rng.random_range(-127..=127),
                    _ => rng.random_range(-8000..=8000),
                };
            }
        }
    }
    assert_eq!(state.check(), Ok(()));
    state
}

fn event(item_idx: usize, occurred_at: i64) -> HistoryEvent {
    HistoryEvent {
        item_id: ItemId::new(format!("i{item_idx}")).expect("short"),
        kind: EventKind::Click,
        occurred_at,
    }
}

fn history(len: usize, seed: u64) -> Vec<HistoryEvent> {
    let mut rng = StdRng::seed_from_u64(seed);
    let at = |idx: usize| 7_000 * idx as i64; // a handful
    (0..len)
        .map(|idx| event(rng.random_range(0..NUM_ITEMS), at(idx)))
        .collect()
}

fn ready(state: &CodeState, padding: Padding) -> ReadyVersion {
    ReadyVersion::new(state, &Device::flex(), padding)
}

fn explained(
    ready: &ReadyVersion,
    state: &CodeState,
    history: &[HistoryEvent],
    item_idx: usize,
) -> ItemExplanation {
    let request = ExplainRequest {
        history,
        item_id: &state.items[item_idx].item_id,
        k: 100,
        now_millis: NOW_MILLIS,
    };
    pollster(ready.explain(state, Version(3), &request)).expect("the item is known")
}

fn scores(ready: &ReadyVersion, state: &CodeState, history: &[HistoryEvent]) -> Vec<f32> {
    pollster(ready.score_all(state, history, NOW_MILLIS)).expect("finite")
}

/// Runs a future that never waits: flex computes at once.
fn pollster<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("flex never waits"),
    }
}

#[test]
fn parts_add_up_to_the_score_that_ranking_gives() {
    let state = made_up_state(1);
    let ready = ready(&state, Padding::Longest);
    for len in [0, 1, HISTORY_LEN, HISTORY_LEN + 4] {
        let history = history(len, 5);
        let scores = scores(&ready, &state, &history);
        for (item_idx, expected) in scores.iter().enumerate() {
            let explanation = explained(&ready, &state, &history, item_idx);
            assert!((explanation.parts.sum() - expected).abs() <= TOLERANCE);
            assert_eq!(explanation.score, explanation.parts.sum());
            assert_eq!(explanation.events.len(), len.min(HISTORY_LEN));
        }
        let explanations = (0..NUM_ITEMS).map(|idx| explained(&ready, &state, &history, idx));
        let (mut mean, num_items) = (0.0, NUM_ITEMS as f32); // 30
        let average = explained(&ready, &state, &history, 0).average;
        for explanation in explanations {
            mean += explanation.score / num_items;
            assert_eq!(explanation.average, average);
        }
        let sum = average.taste + average.prior + average.neighbours + average.bias;
        assert!((sum - mean).abs() <= TOLERANCE, "{sum} {mean}");
    }
}

#[test]
fn an_effect_is_what_the_score_loses_when_the_event_is_forgotten() {
    let state = made_up_state(2);
    let ready = ready(&state, Padding::Longest);
    let history = history(HISTORY_LEN + 3, 6);
    let with = scores(&ready, &state, &history);
    for (item_idx, with) in with.iter().enumerate() {
        for effect in explained(&ready, &state, &history, item_idx).events {
            let mut without = history.clone();
            without.retain(|event| event.occurred_at != effect.occurred_at);
            assert_eq!(without.len() + 1, history.len());
            let without = scores(&ready, &state, &without)[item_idx];
            assert!((with - without - effect.effect).abs() <= TOLERANCE);
            assert_eq!(effect.effect, effect.taste + effect.neighbours);
        }
    }
}

#[test]
fn the_effect_of_the_text_is_the_score_lost_by_an_item_without_it() {
    let state = made_up_state(3);
    let history = history(4, 7);
    let is_seen = |idx: usize| {
        history
            .iter()
            .any(|event| event.item_id == state.items[idx].item_id)
    };
    let item_idx = (0..NUM_ITEMS)
        .find(|idx| !is_seen(*idx))
        .expect("4 of 30 are seen");
    let mut textless = state.clone();
    let text = textless.tensor_mut("item.text").expect("in every spec");
    text.row_mut(item_idx).fill(0);
    let ready_textless = ready(&textless, Padding::Longest);
    let ready = ready(&state, Padding::Longest);
    let lost = scores(&ready, &state, &history)[item_idx]
        - scores(&ready_textless, &textless, &history)[item_idx];
    let explanation = explained(&ready, &state, &history, item_idx);
    assert!((explanation.text_effect - lost).abs() <= TOLERANCE);
    assert!(lost.abs() > 0.01, "the text matters here: {lost}");
}

#[test]
fn forgetting_the_two_strongest_events_costs_more_than_forgetting_two_at_random() {
    let state = made_up_state(4);
    let ready = ready(&state, Padding::Longest);
    let mut rng = StdRng::seed_from_u64(4);
    let (mut lost_by_strongest, mut lost_by_random, mut num_asked) = (0.0, 0.0, 0.0);
    for seed in 0..5 {
        let history = history(HISTORY_LEN, 10 + seed);
        for item_idx in 0..NUM_ITEMS {
            let mut events = explained(&ready, &state, &history, item_idx).events;
            events.sort_by(|a, b| b.effect.total_cmp(&a.effect));
            let lost = |forgotten: [i64; 2]| {
                let mut rest = history.clone();
                rest.retain(|event| !forgotten.contains(&event.occurred_at));
                scores(&ready, &state, &history)[item_idx] - scores(&ready, &state, &rest)[item_idx]
            };
            lost_by_strongest += lost([events[0].occurred_at, events[1].occurred_at]);
            let first = rng.random_range(0..HISTORY_LEN);
            let second = (first + rng.random_range(1..HISTORY_LEN)) % HISTORY_LEN;
            lost_by_random += lost([history[first].occurred_at, history[second].occurred_at]);
            num_asked += 1.0;
        }
    }
    let (strongest, random) = (lost_by_strongest / num_asked, lost_by_random / num_asked);
    assert!(
        strongest > random + 0.05,
        "strongest {strongest}, random {random}"
    );
}

#[test]
fn two_calls_agree_and_the_largest_effects_come_first() {
    let state = made_up_state(5);
    let ready = ready(&state, Padding::Longest);
    let history = history(HISTORY_LEN, 8);
    let explanation = explained(&ready, &state, &history, 3);
    assert_eq!(explanation, explained(&ready, &state, &history, 3));
    let sizes: Vec<f32> = explanation
        .events
        .iter()
        .map(|event| event.effect.abs())
        .collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    let request = ExplainRequest {
        history: &history,
        item_id: &state.items[3].item_id,
        k: 2,
        now_millis: NOW_MILLIS,
    };
    let short = pollster(ready.explain(&state, Version(3), &request)).expect("known");
    assert_eq!(short.events, explanation.events[..2]);
}

#[test]
fn what_the_model_does_not_read_is_not_named() {
    let state = made_up_state(6);
    let ready = ready(&state, Padding::Longest);
    let mut history = history(3, 9);
    let known = explained(&ready, &state, &history, 4);
    history.insert(1, event(NUM_ITEMS + 1, 1));
    let mut shown = event(2, 2);
    shown.kind = EventKind::Impression;
    history.insert(2, shown);
    assert_eq!(explained(&ready, &state, &history, 4), known);
}

#[test]
fn padding_for_a_gpu_changes_nothing() {
    let state = made_up_state(7);
    let (longest, full) = (
        ready(&state, Padding::Longest),
        ready(&state, Padding::Full),
    );
    for len in [0, 2, HISTORY_LEN + 1] {
        let history = history(len, 4);
        let expected = explained(&longest, &state, &history, 5);
        let actual = explained(&full, &state, &history, 5);
        assert!((expected.score - actual.score).abs() <= TOLERANCE);
        for (expected, actual) in expected.events.iter().zip(&actual.events) {
            assert!((expected.effect - actual.effect).abs() <= TOLERANCE);
        }
    }
}

#[test]
fn an_unknown_item_is_an_error_that_names_it() {
    let state = made_up_state(8);
    let ready = ready(&state, Padding::Longest);
    let item_id = ItemId::new("nowhere").expect("short");
    let request = ExplainRequest {
        history: &[],
        item_id: &item_id,
        k: 3,
        now_millis: NOW_MILLIS,
    };
    let error = pollster(ready.explain(&state, Version(3), &request)).expect_err("unknown");
    assert_eq!(error.code(), "unknown_item");
    assert!(error.to_string().contains("nowhere"), "{error}");
}
