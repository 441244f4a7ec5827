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
    let options = RankOptions {
        k: NUM_ITEMS,
        exclude_seen: false,
    };
    let rank = RankRequest {
        history,
        candidates: None,
        options: &options,
        now_millis: NOW_MILLIS,
    };
    let request = ShelfRequest {
        rank,
        rules: &Rules::default(),
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
