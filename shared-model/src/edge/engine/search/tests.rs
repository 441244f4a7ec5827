//! Claims about items by a text, on made-up codes.

use super::*;
use crate::edge::engine::RankOptions;
use crate::edge::engine::ReadyVersion;
use crate::edge::engine::made_up::{made_up_state, pollster, ready};
use crate::event::EventKind;
use crate::model::scorer::Padding;

const NOW_MILLIS: i64 = 1_700_000_100_000;

fn text_of(state: &CodeState, item_idx: usize) -> Vec<f32> {
    state
        .tensor("item.text")
        .expect("texts")
        .dequantize_row(item_idx)
}

fn history(state: &CodeState) -> Vec<HistoryEvent> {
    let event = |item_idx: usize, secs: i64| HistoryEvent {
        item_id: state.items[item_idx].item_id.clone(),
        kind: EventKind::Click,
        occurred_at: NOW_MILLIS - 1000 * secs,
    };
    vec![event(4, 300), event(9, 200), event(12, 100)]
}

fn search(
    state: &CodeState,
    text: &[f32],
    taste: f64,
    k: usize,
) -> Result<Vec<FoundItem>, EngineError> {
    let history = history(state);
    let options = RankOptions {
        k,
        exclude_seen: false,
    };
    let rank = RankRequest {
        history: &history,
        candidates: None,
        options: &options,
        now_millis: NOW_MILLIS,
        moderation: None,
    };
    let request = SearchRequest { text, taste, rank };
    pollster(ReadyVersion::on_host(state).search(state, &request))
}

fn ids(found: &[FoundItem]) -> Vec<&ItemId> {
    found.iter().map(|item| &item.item_id).collect()
}

#[test]
fn the_item_with_that_text_comes_first_with_similarity_one() {
    let mut state = made_up_state(3);
    let text: Vec<f32> = text_of(&state, 7).iter().map(|value| 3.5 * value).collect();
    let found = search(&state, &text, 0.0, 5).expect("texts");
    assert_eq!(found.len(), 5);
    assert_eq!(found[0].item_id, state.items[7].item_id);
    assert!((found[0].similarity - 1.0).abs() < 1e-5, "{found:?}");
    assert!(found.is_sorted_by(|a, b| a.similarity >= b.similarity));
    assert!(found.iter().all(|item| item.score == item.similarity));
    state.items[7].available = false;
    let found = search(&state, &text, 0.0, 5).expect("texts");
    assert_ne!(found[0].item_id, state.items[7].item_id);
}

#[test]
fn an_item_without_a_text_is_like_nothing() {
    let mut state = made_up_state(3);
    let text = text_of(&state, 7);
    state
        .tensor_mut("item.text")
        .expect("texts")
        .row_mut(2)
        .fill(0);
    let found = search(&state, &text, 0.0, 100).expect("texts");
    let blank = found
        .iter()
        .find(|item| item.item_id == state.items[2].item_id);
    assert_eq!(blank.map(|item| item.similarity), Some(0.0));
    let nothing = search(&state, &vec![0.0; text.len()], 0.0, 100).expect("texts");
    assert!(nothing.iter().all(|item| item.similarity == 0.0));
}

#[test]
fn taste_has_as_much_say_as_it_is_given() {
    let state = made_up_state(6);
    let text = text_of(&state, 1);
    let plain = search(&state, &text, 0.0, 100).expect("texts");
    let barely = search(&state, &text, 1e-9, 100).expect("texts");
    assert_eq!(ids(&plain), ids(&barely));
    let by_taste = search(&state, &text, 1.0, 100).expect("texts");
    let (history, options) = (
        history(&state),
        RankOptions {
            k: 100,
            exclude_seen: false,
        },
    );
    let rank = RankRequest {
        history: &history,
        candidates: None,
        options: &options,
        now_millis: NOW_MILLIS,
        moderation: None,
    };
    let ranked = pollster(ReadyVersion::on_host(&state).rank(&state, &rank)).expect("finite");
    let ranked: Vec<&ItemId> = ranked.iter().map(|item| &item.item_id).collect();
    assert_eq!(ids(&by_taste), ranked);
    let half = search(&state, &text, 0.5, 100).expect("texts");
    assert!(ids(&half) != ids(&plain) && ids(&half) != ids(&by_taste));
    let mean: f32 = half.iter().map(|item| item.score).sum::<f32>() / half.len() as f32;
    assert!(mean.abs() < 1e-5, "z-scores have mean 0, not {mean}");
}

#[test]
fn another_width_is_refused_with_both_widths() {
    let state = made_up_state(3);
    let error = search(&state, &[1.0; 3], 0.0, 5).expect_err("another encoder");
    let expected = state.spec.text_dim as usize;
    assert_eq!(
        error,
        EngineError::TextWidth {
            actual: 3,
            expected
        }
    );
}

#[test]
fn a_new_item_scores_as_one_that_was_put_and_nobody_has_touched() {
    let mut num_compared = 0;
    for seed in 1..4 {
        let mut state = made_up_state(seed);
        // Item 5 as it would be the moment it is put.
        for name in ["item.id_rows", "item.bias", "item.features"] {
            state
                .tensor_mut(name)
                .expect("of the spec")
                .row_mut(5)
                .fill(0);
        }
        let counts = state.tensor_mut("item.counts").expect("of the spec");
        counts.row_mut(5).fill(crate::codec::state::NEVER_CODE);
        let texts = [text_of(&state, 5), text_of(&state, 8)].concat();
        let history = vec![history(&state).remove(0)];
        let executors = [
            ReadyVersion::on_host(&state),
            ready(&state, Padding::Longest),
            #[cfg(feature = "wgpu")]
            ready(&state, Padding::Full),
        ];
        for ready in executors {
            let request = NewItemsRequest {
                num_items: 2,
                texts: &texts,
                history: &history,
                now_millis: NOW_MILLIS,
            };
            let new = pollster(ready.score_new(&state, &request)).expect("finite");
            let sequence = ready.sequence(&state, &history, NOW_MILLIS);
            let query = Query {
                sequence_idx: 0,
                num_known: sequence.tokens.len(),
                now_millis: NOW_MILLIS,
            };
            let gains = ready
                .scorer
                .neighbour_gains(std::slice::from_ref(&sequence), &[query]);
            let is_neighbour = gains[0].iter().any(|(item_idx, _)| *item_idx == 5);
            let all = pollster(ready.score_all(&state, &history, NOW_MILLIS)).expect("finite");
            assert_eq!(new.len(), 2);
            if !is_neighbour {
                assert!((new[0] - all[5]).abs() < 1e-4, "{} {}", new[0], all[5]);
                num_compared += 1;
            }
        }
    }
    assert!(num_compared > 0, "item 5 was always a neighbour");
}

#[test]
fn too_many_texts_are_refused_and_none_are_nothing() {
    let state = made_up_state(3);
    let text_dim = state.spec.text_dim as usize;
    let score = |num_items: usize| {
        let texts = vec![0.5; num_items * text_dim];
        let request = NewItemsRequest {
            num_items,
            texts: &texts,
            history: &[],
            now_millis: NOW_MILLIS,
        };
        pollster(ReadyVersion::on_host(&state).score_new(&state, &request))
    };
    let error = score(NEW_ITEMS_MAX + 1).expect_err("too many");
    assert!(matches!(
        error,
        EngineError::TooLong {
            max: NEW_ITEMS_MAX,
            ..
        }
    ));
    for num_items in [0, NEW_ITEMS_MAX] {
        let scores = score(num_items).expect("as many as allowed");
        assert_eq!(scores.len(), num_items);
    }
}

#[test]
fn texts_of_another_width_are_refused_even_where_their_values_make_whole_texts() {
    let state = made_up_state(3);
    let expected = state.spec.text_dim as usize;
    let score = |num_items: usize, num_values: usize| {
        let request = NewItemsRequest {
            num_items,
            texts: &vec![0.5; num_values],
            history: &[],
            now_millis: NOW_MILLIS,
        };
        pollster(ReadyVersion::on_host(&state).score_new(&state, &request))
    };
    assert_eq!(score(6, 6 * expected).expect("as wide").len(), 6);
    for (num_items, num_values) in [(2, 4 * expected), (4, 2 * expected), (3, 3 * expected + 1)] {
        let actual = num_values / num_items;
        let error = EngineError::TextWidth { actual, expected };
        assert_eq!(score(num_items, num_values), Err(error));
    }
}
