//! Claims about labels, clocks and what is set aside.

use super::*;
use crate::influence::Reason;
use serde_json::json;

fn record(kind: &str, item: &str, occurred_at: i64, received_at: i64) -> LogRecord {
    let event = json!({"event_id": format!("{kind}{item}{occurred_at}"), "kind": kind, "user_id": "u",
                       "item_id": item, "occurred_at": occurred_at});
    LogRecord::Event(StoredEvent {
        event: serde_json::from_value(event).expect("valid"),
        received_at,
        is_vouched: false,
        arm_phase: None,
    })
}

fn put(item: &str) -> LogRecord {
    LogRecord::ItemPut(
        serde_json::from_value(json!({"item_id": item, "title": item})).expect("valid"),
    )
}

fn preprocessor(clock: ClockMode) -> Preprocessor {
    let mut config = Config::default();
    config.clock.mode = clock;
    let mut preprocessor = Preprocessor::new(&config);
    preprocessor.ingest(&[put("a"), put("b")]);
    preprocessor
}

#[test]
fn a_late_event_is_learned_where_nothing_is_set_aside_and_impressions_do_not_hide_a_burst() {
    let mut preprocessor = preprocessor(ClockMode::EventTime);
    preprocessor.ingest(&[put("a"), put("b")]);
    let late = [
        record("click", "a", 1000, 1000),
        record("click", "a", 900, 1001),
    ];
    let weights = |batch: &Batch| -> Vec<f32> {
        let examples = batch.examples.iter();
        examples.map(|(_, example)| example.target_weight).collect()
    };
    assert_eq!(weights(&preprocessor.ingest(&late)), [1.0, 1.0]);

    preprocessor.labels.burst_events_max = 2;
    preprocessor.labels.burst_window_secs = 3600;
    let hour = 3_600_000;
    // The impression waits for its answer until the second click comes, and then stands between the clicks.
    let burst = [
        record("impression", "b", 10 * hour, 0),
        record("click", "a", 11 * hour, 0),
        record("click", "b", 11 * hour + 1, 0),
        record("click", "a", 11 * hour + 2, 0),
    ];
    let batch = preprocessor.ingest(&burst);
    let clicks = batch.examples.iter();
    let clicks = clicks.filter(|(_, example)| example.kind == EventKind::Click);
    let weights: Vec<f32> = clicks.map(|(_, example)| example.target_weight).collect();
    assert_eq!(weights, [1.0, 1.0, 0.0]);
}

#[test]
fn recent_users_are_the_newest_not_the_first() {
    let mut preprocessor = preprocessor(ClockMode::EventTime);
    preprocessor.ingest(&[put("a")]);
    for user in ["x", "y", "z", "x"] {
        let LogRecord::Event(mut stored) = record("click", "a", 1000, 1000) else {
            unreachable!("record makes events");
        };
        stored.event.user_id = UserId::new(user).expect("valid");
        preprocessor.ingest(&[LogRecord::Event(stored)]);
    }
    assert_eq!(preprocessor.recent_users(2), [UserIdx(0), UserIdx(2)]);
    assert_eq!(preprocessor.recent_users(9).len(), 3);
}

#[test]
fn the_rest_of_a_burst_and_a_double_click_teach_nothing_and_later_events_do_again() {
    let mut config = Config::default();
    config.clock.mode = ClockMode::EventTime;
    config.labels.burst_events_max = 3;
    config.labels.burst_window_secs = 10;
    config.labels.repeat_secs = 2;
    let mut preprocessor = Preprocessor::new(&config);
    let items = ["a", "b", "c", "d"];
    preprocessor.ingest(&items.map(put));
    let clicks = [
        ("a", 0),
        ("a", 1_500), // a double click
        ("b", 3_000),
        ("c", 4_000),  // the fourth within ten seconds
        ("d", 13_500), // b, c and a are behind: the third before it is 12 s old
        ("a", 30_000), // the same as long ago is no double click
    ];
    let records = clicks.map(|(item, at)| record("click", item, at, at));
    let batch = preprocessor.ingest(&records);
    let weights: Vec<f32> = batch
        .examples
        .iter()
        .map(|(_, example)| example.target_weight)
        .collect();
    assert_eq!(weights, [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
    assert_eq!(batch.set_aside, SetAside::from([(Reason::Noise, 2)]));
    let set_aside: Vec<_> = batch
        .examples
        .iter()
        .filter(|(_, e)| e.click.is_none())
        .collect();
    assert_eq!(
        set_aside.len(),
        2,
        "the click head learns nothing from them either"
    );
}

#[test]
fn live_clock_clamps_to_arrival_and_event_time_does_not() {
    let late = record("click", "a", 9_000, 1_000);
    let batch = preprocessor(ClockMode::Live).ingest(&[late.clone()]);
    assert_eq!(batch.examples[0].1.occurred_at, 1_000);
    let batch = preprocessor(ClockMode::EventTime).ingest(&[late]);
    assert_eq!(batch.examples[0].1.occurred_at, 9_000);
}

#[test]
fn an_impression_is_a_negative_only_when_nothing_answers_it() {
    let mut preprocessor = preprocessor(ClockMode::EventTime);
    let hour = 3_600_000;
    let batch = preprocessor.ingest(&[
        record("impression", "a", 0, 0),
        record("impression", "b", 0, 0),
        record("click", "a", 1_000, 1_000),
        record("click", "a", hour, hour),
    ]);
    let negatives: Vec<u32> = batch
        .examples
        .iter()
        .filter(|(_, e)| e.click == Some(false))
        .map(|(_, e)| e.item_idx)
        .collect();
    assert_eq!(negatives, vec![1]);
    assert_eq!(
        preprocessor
            .history(&UserId::new("u").expect("valid"), 10)
            .len(),
        2,
        "impressions are no history"
    );
}

#[test]
fn a_target_that_was_shown_seldom_weighs_more_however_the_log_is_cut() {
    let click = |item: &str, at: i64, propensity: f64| {
        let LogRecord::Event(mut stored) = record("click", item, at, at) else {
            unreachable!("record() makes events");
        };
        stored.event.propensity = Some(propensity);
        LogRecord::Event(stored)
    };
    let log = [
        click("a", 0, 1.0),
        click("b", 1, 0.5),
        click("a", 2, 0.01),
        record("click", "b", 3, 3),
    ];
    let weights = |cap: f32, batch_len: usize| -> Vec<f32> {
        let mut preprocessor = preprocessor(ClockMode::EventTime);
        preprocessor.propensities = Propensities::new(cap, 60);
        let batches = log
            .chunks(batch_len)
            .map(|batch| preprocessor.ingest(batch));
        let examples: Vec<_> = batches.flat_map(|batch| batch.examples).collect();
        examples
            .iter()
            .map(|(_, example)| example.target_weight)
            .collect()
    };
    assert_eq!(weights(0.0, 4), vec![1.0; 4]);
    assert_eq!(weights(9.0, 4), vec![1.0, 2.0 / 1.5, 9.0 / 4.0, 1.0]);
    assert_eq!(weights(9.0, 1), weights(9.0, 4));
}

#[test]
fn a_deleted_item_keeps_its_row_and_a_put_brings_it_back() {
    let mut preprocessor = preprocessor(ClockMode::Live);
    preprocessor.ingest(&[LogRecord::ItemDelete(ItemId::new("a").expect("valid"))]);
    assert!(!preprocessor.items()[0].available);
    let batch = preprocessor.ingest(&[put("a")]);
    assert_eq!(batch.changed_items, vec![0]);
    assert!(preprocessor.items()[0].available && preprocessor.items().len() == 2);
}

#[test]
fn what_teaches_is_the_same_however_the_log_is_cut_and_whenever_senders_say_it_was() {
    let now = 1_700_000_000_000;
    let (hour, month) = (3_600_000, 31 * 86_400_000);
    let of_user = |user: i64, occurred_at: i64, received_at: i64| {
        let LogRecord::Event(mut stored) = record("click", "a", occurred_at, received_at) else {
            unreachable!("record makes events");
        };
        stored.event.user_id = UserId::new(format!("u{user}")).expect("valid");
        LogRecord::Event(stored)
    };
    let honest = (0..30).map(|user| of_user(user, now, now));
    // One of them goes on, and says of each click that it was a month before the last.
    let flood = (1..=10).map(|n| of_user(0, now - n * month, now + n * hour));
    let log: Vec<LogRecord> = honest.chain(flood).collect();
    for batch_len in [1, 7, 40] {
        let mut config = Config::default();
        config.influence.clients_min = 20; // of 30 here
        let mut preprocessor = Preprocessor::new(&config);
        preprocessor.ingest(&[put("a"), put("b")]);
        let batches = log.chunks(batch_len).map(|part| preprocessor.ingest(part));
        let batches: Vec<Batch> = batches.collect();
        let examples = batches.iter().flat_map(|batch| &batch.examples);
        let weights: Vec<f32> = examples.map(|(_, e)| e.target_weight).collect();
        assert_eq!(weights, [vec![1.0; 30], vec![0.0; 10]].concat());
        let set_aside = batches.iter().flat_map(|batch| &batch.set_aside);
        assert!(
            set_aside
                .clone()
                .all(|(reason, _)| *reason == Reason::Repeat)
        );
        assert_eq!(set_aside.map(|(_, count)| count).sum::<u64>(), 10);
    }
}

/// What user "u" teaches after users with eager fingers, or without them; impressions of "u" run out by others' clocks.
fn taught_beside_others(is_private: bool, num_others: usize) -> Vec<Example> {
    let mut config = Config::default();
    config.clock.mode = ClockMode::EventTime;
    config.privacy.enabled = is_private;
    config.influence.clients_min = 1;
    let mut preprocessor = Preprocessor::new(&config);
    preprocessor.ingest(&[put("a"), put("b")]);
    let mut records = vec![record("impression", "b", 500, 500)];
    for number in 0..num_others {
        let at = 10_000_000 + number as i64;
        let LogRecord::Event(mut stored) = record("click", "a", at, at) else {
            unreachable!("record makes events");
        };
        stored.event.user_id = UserId::new(format!("other{number}")).expect("valid");
        records.push(LogRecord::Event(stored));
    }
    records.extend((0..60).map(|number| record("click", "a", 1000 + number, 1000)));
    preprocessor.ingest(&records);
    let own = preprocessor.user_idx[&IdHash::of_user(&UserId::new("u").expect("valid"))];
    preprocessor.timelines[own.0 as usize].clone()
}

#[test]
fn where_training_is_private_others_do_not_change_what_a_user_teaches() {
    let alone = taught_beside_others(true, 0);
    assert_eq!(alone.len(), 60);
    assert!(alone.iter().all(|example| example.target_weight == 1.0));
    assert_eq!(taught_beside_others(true, 200), alone);
    assert_ne!(
        taught_beside_others(false, 200),
        taught_beside_others(false, 0)
    );
}
