//! Claims about the personal model, on made-up codes and visitors.
//!
//! Not here: whether it helps real visitors (`docs/personal.md`).

use super::*;
use crate::edge::engine::made_up::{
    HISTORY_LEN, NOW_MILLIS, NUM_ITEMS, event, history, made_up_state, pollster,
};
use crate::edge::engine::{RankOptions, RankRequest, Rules, Shelf, ShelfRequest};

fn learned(state: &CodeState, history: &[HistoryEvent]) -> Personal {
    let ready = ReadyVersion::on_host(state);
    pollster(ready.personal(state, history, NOW_MILLIS)).expect("finite")
}

/// All items, by the version alone or with the personal model.
fn shelf(state: &CodeState, history: &[HistoryEvent], personal: Option<&Personal>) -> Shelf {
    shelf_with(state, history, personal, &Rules::default())
}

fn shelf_with(
    state: &CodeState,
    history: &[HistoryEvent],
    personal: Option<&Personal>,
    rules: &Rules,
) -> Shelf {
    let options = RankOptions {
        k: NUM_ITEMS,
        exclude_seen: false,
    };
    let rank = RankRequest {
        history,
        candidates: None,
        options: &options,
        now_millis: NOW_MILLIS,
        moderation: None,
    };
    let request = ShelfRequest {
        rank,
        rules,
        diversity: None,
        exploration: None,
        personal,
    };
    let ready = ReadyVersion::on_host(state);
    pollster(ready.shelf(state, Version(1), &request)).expect("finite")
}

fn place_of(shelf: &Shelf, item_idx: usize) -> usize {
    let item_id = event(item_idx, 0).item_id;
    let place = shelf.items.iter().position(|item| item.item_id == item_id);
    place.expect("every item is ranked")
}

#[test]
fn a_visitor_with_one_event_gets_the_order_of_the_version() {
    let state = made_up_state(5);
    for history in [history(0, 1), history(1, 1)] {
        let personal = learned(&state, &history);
        assert!(!personal.status().is_on);
        assert_eq!(personal.status().events_learned, history.len());
        let actual = shelf(&state, &history, Some(&personal));
        assert_eq!(actual.items, shelf(&state, &history, None).items);
    }
}

#[test]
fn a_visitor_who_repeats_sees_what_was_had_rise_and_new_items_keep_their_order() {
    let state = made_up_state(5);
    // Items 1, 2 and 3 over and over, two hours apart.
    let at = |idx: usize| NOW_MILLIS - 7_200_000 * (12 - idx as i64); // a handful
    let history: Vec<_> = (0..12).map(|idx| event(1 + idx % 3, at(idx))).collect();
    let personal = learned(&state, &history);
    let status = personal.status();
    assert!(status.is_on && status.gain > 1.0, "{status:?}");
    assert_eq!(status.events_learned, HISTORY_LEN);
    let (before, after) = (
        shelf(&state, &history, None),
        shelf(&state, &history, Some(&personal)),
    );
    assert_eq!(after.personal, Some(status));
    let sum = |shelf: &Shelf| (1..=3).map(|idx| place_of(shelf, idx)).sum::<usize>();
    assert!(sum(&after) < sum(&before));
    let new = |shelf: &Shelf| -> Vec<usize> {
        let mut new: Vec<usize> = (0..NUM_ITEMS)
            .filter(|idx| !(1..=3).contains(idx))
            .collect();
        new.sort_by_key(|idx| place_of(shelf, *idx));
        new
    };
    assert_eq!(new(&after), new(&before));
    for (item, points) in after.items.iter().map(|item| (item, item.points)) {
        let was_had = history.iter().any(|event| event.item_id == item.item_id);
        assert_eq!(points != 0.0, was_had, "{}", item.item_id);
    }
}

#[test]
fn a_visitor_who_never_repeats_sees_what_was_had_sink() {
    let state = made_up_state(5);
    let history: Vec<_> = (0..12).map(|idx| event(idx, 40_000 * idx as i64)).collect(); // a handful
    let personal = learned(&state, &history);
    assert!(personal.status().is_on);
    let (before, after) = (
        shelf(&state, &history, None),
        shelf(&state, &history, Some(&personal)),
    );
    let sum = |shelf: &Shelf| (0..12).map(|idx| place_of(shelf, idx)).sum::<usize>();
    assert!(sum(&after) > sum(&before));
}

#[test]
fn what_was_disliked_or_skipped_alone_was_not_had() {
    let state = made_up_state(5);
    let at = |idx: usize| NOW_MILLIS - 7_200_000 * (13 - idx as i64); // a handful
    let mut history: Vec<_> = (0..12).map(|idx| event(1 + idx % 3, at(idx))).collect();
    let answered = |item_idx, kind| HistoryEvent {
        kind,
        ..event(item_idx, NOW_MILLIS - 60_000)
    };
    history.push(answered(1, EventKind::Dislike));
    history.push(answered(4, EventKind::Skip));
    let personal = learned(&state, &history);
    assert!(personal.status().is_on);
    assert_eq!(personal.status().events_learned, HISTORY_LEN - 2);
    let ready = ReadyVersion::on_host(&state);
    let points = ready.personal_points(&personal, &history, NOW_MILLIS);
    let with_points: Vec<u32> = points.iter().map(|(item_idx, _)| *item_idx).collect();
    assert_eq!(with_points, [2, 3]);
    let skips: Vec<_> = (0..6).map(|_| answered(4, EventKind::Skip)).collect();
    assert_eq!(learned(&state, &skips), Personal::default());
}

#[test]
fn points_of_one_event_stay_within_bounds_and_rules_outweigh_them() {
    let (often, mut scores) = (151.0_f64.ln(), vec![7.0; 1000]);
    scores[0] = 0.0;
    let features = [1.0, often, 1.0, often];
    let had = [Had {
        item_idx: 0,
        features,
    }];
    let mut personal = Personal::default();
    personal.learn(&had, &scores, 0);
    assert_eq!(personal.points_of(&features), PERSONAL_POINTS_MAX);
    personal.gain = 1.0;

    let state = made_up_state(5);
    let history = vec![event(1, NOW_MILLIS); 150];
    let points = |rules: &str| {
        let rules = serde_json::from_str(rules).expect("sound");
        let shelf = shelf_with(&state, &history, Some(&personal), &rules);
        shelf.items[place_of(&shelf, 1)].points
    };
    assert_eq!(points("{}"), 10.0);
    assert_eq!(
        points(r#"{"bury": [{"itemIds": ["i1"], "points": 100}]}"#),
        -90.0
    );
    assert_eq!(
        points(r#"{"boost": [{"itemIds": ["i1"], "points": 100}]}"#),
        100.0
    );
}

#[test]
fn one_item_far_above_all_others_breaks_no_figure() {
    let mut scores = vec![0.0; 50];
    scores[0] = 90.0;
    let mut personal = Personal::default();
    for _ in 0..40 {
        let features = [1.0, 5.0, 1.0, 5.0];
        personal.learn(
            &[Had {
                item_idx: 0,
                features,
            }],
            &scores,
            1,
        );
    }
    assert!(personal.weights.iter().all(|weight| weight.is_finite()));
    let status = personal.status();
    assert!(status.is_on && status.gain.is_finite(), "{status:?}");
}

#[test]
fn every_event_is_foretold_from_events_before_it() {
    let state = made_up_state(5);
    let history = history(40, 4);
    // Another kind is the same to the features and something else to the version.
    let with_purchase_at = |idx: usize| {
        let mut history = history.clone();
        history[idx].kind = EventKind::Purchase;
        learned(&state, &history)
    };
    let first_foretold = 40 - HISTORY_LEN;
    let before = with_purchase_at(first_foretold - 1);
    assert_ne!(before, learned(&state, &history));
    let long_before = with_purchase_at(first_foretold - HISTORY_LEN);
    assert_eq!(long_before, learned(&state, &history));
}

#[test]
fn the_same_history_teaches_the_same_and_another_version_something_else() {
    let (state, other) = (made_up_state(5), made_up_state(6));
    let history = history(20, 2);
    assert_eq!(learned(&state, &history), learned(&state, &history));
    assert_ne!(learned(&state, &history), learned(&other, &history));
}

#[test]
fn a_step_goes_where_the_covariance_says() {
    let symmetric = [
        [4.0, 1.0, 0.0, 0.5],
        [1.0, 3.0, 0.5, 0.0],
        [0.0, 0.5, 2.0, 0.25],
        [0.5, 0.0, 0.25, 1.0],
    ];
    let expected = [1.0, -2.0, 0.5, 3.0];
    let product = symmetric.map(|row| {
        let terms = row.iter().zip(expected);
        terms.map(|(a, x)| a * x).sum::<f64>()
    });
    for (actual, expected) in solved(symmetric, product).iter().zip(expected) {
        assert!((actual - expected).abs() < 1e-12);
    }
}
