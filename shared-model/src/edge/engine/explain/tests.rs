//! Claims about explanations, on made-up codes of a model with texts, features and neighbours.
//!
//! Not here: how faithful they are on real data (`trainer-server/tests/explain.rs`).

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::edge::engine::made_up::*;
use crate::model::scorer::Padding;

/// Sums of some dozen terms of order one in another order, in f32.
const TOLERANCE: f32 = 1e-5;

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

#[cfg(feature = "wgpu")]
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
