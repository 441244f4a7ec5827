//! Claims about what a learner makes of the settings of its objective, on a small world.

use std::sync::Arc;

use burn::tensor::Device;
use serde_json::json;
use shared_model::event::{Event, EventKind, Item};
use shared_model::ids::{EventId, ItemId, UserId};
use shared_model::text::{AnyTextEncoder, SmallTextEncoder};

use super::Learner;
use crate::config::Config;
use crate::config::load::{Sources, load};
use crate::event_log::{LogRecord, StoredEvent};
use crate::preprocess::Preprocessor;
use crate::text_source::CachedTextEncoder;

const NUM_ITEMS: usize = 12;

fn config(settings: &[(&str, &str)]) -> Arc<Config> {
    let small = [
        ("model.embedding_dim", "8"),
        ("model.ff_dim", "8"),
        ("model.history_len", "8"),
        ("train.warm_epochs", "6"),
        ("train.warm_batch_size", "8"),
        ("train.warmup_steps", "0"),
        ("release.steps", "3"),
        ("clock.mode", "event_time"),
    ];
    let all = small.iter().chain(settings);
    let flags = all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let sources = Sources {
        flags: flags.collect(),
        ..Sources::default()
    };
    Arc::new(load(&sources).expect("valid settings"))
}

/// Users walk through the items in order; every third has only two events.
fn log() -> Vec<LogRecord> {
    let item = |item: usize| Item {
        item_id: ItemId::new(item.to_string()).expect("an id"),
        title: format!("thing number {item} of shelf {}", item / 3),
        text: None,
        attributes: match item {
            0 => serde_json::Map::from_iter([("penalized".to_owned(), json!(true))]),
            _ => serde_json::Map::new(),
        },
        vectors: Default::default(),
        available: true,
    };
    let mut log: Vec<LogRecord> = (0..NUM_ITEMS).map(item).map(LogRecord::ItemPut).collect();
    for user in 0..30_usize {
        for step in 0..if user % 3 == 0 { 2 } else { 7 } {
            let event = Event {
                event_id: EventId::new(format!("{user}-{step}")).expect("an id"),
                kind: EventKind::Click,
                user_id: UserId::new(user.to_string()).expect("an id"),
                item_id: ItemId::new(((user + step) % NUM_ITEMS).to_string()).expect("an id"),
                occurred_at: 1_700_000_000_000 + (step * 60_000 + user * 1000) as i64, // small
                value: None,
                model_version: None,
                impression_id: None,
                position: None,
                propensity: None,
                arm: None,
            };
            log.push(LogRecord::Event(StoredEvent {
                received_at: event.occurred_at,
                event,
                is_vouched: false,
                arm_phase: None,
            }));
        }
    }
    log
}

/// A learner whose first version is live.
fn live(settings: &[(&str, &str)]) -> (Learner, Preprocessor) {
    let config = config(settings);
    let encoder = CachedTextEncoder::new(AnyTextEncoder::Small(SmallTextEncoder), None);
    let mut preprocessor = Preprocessor::new(&config);
    let mut learner = Learner::new(config, Device::flex(), encoder);
    learner.ingest(&mut preprocessor, &log()).expect("taken in");
    learner.warm_fit(&preprocessor, |_| true).expect("fitted");
    let state = learner.candidate();
    let ready = learner.ready(&state);
    learner.went_live(Arc::new(state), ready);
    (learner, preprocessor)
}

#[test]
fn every_setting_of_the_objective_changes_a_warm_fit_and_no_published_text() {
    let plain = live(&[]).0;
    for (key, value) in [
        ("train.popularity_correction", "0.5"),
        ("train.harm_penalty", "2.0"),
        ("train.contrast_epochs", "1"),
        ("train.text_drop", "0.3"),
    ] {
        let (learner, _) = live(&[(key, value)]);
        let weights = |learner: &Learner| learner.parameters().tensor("layers.0.query").to_vec();
        assert_ne!(weights(&learner), weights(&plain), "{key}");
        let texts = |learner: &Learner| learner.parameters().tensor("item.text").to_vec();
        assert_eq!(texts(&learner), texts(&plain), "{key}");
    }
}

#[test]
fn a_penalised_item_is_exposed_less() {
    let score = |penalty: &str| {
        let (learner, _) = live(&[("train.harm_penalty", penalty)]);
        learner.parameters().tensor("item.bias")[0]
    };
    let (free, penalised) = (score("0.0"), score("20.0"));
    assert!(
        penalised < free - 0.05,
        "{penalised} penalised, {free} free"
    );
}

#[test]
fn pseudo_labels_are_of_users_with_few_events_and_items_new_to_them() {
    let settings = [
        ("release.pseudo_weight", "0.1"),
        ("release.pseudo_confidence_min", "0.0"),
        ("release.pseudo_events_max", "3"),
    ];
    let (mut learner, preprocessor) = live(&settings);
    let labels = learner.pseudo_labels(&preprocessor);
    assert_eq!(labels.windows().len(), 10, "every third of thirty users");
    for window in labels.windows() {
        let (guess, seen) = window.examples.split_last().expect("a guess");
        assert_eq!((seen.len(), window.first_target), (2, 2));
        assert!(
            seen.iter()
                .all(|example| example.item_idx != guess.item_idx)
        );
        assert!(guess.occurred_at >= seen[1].occurred_at);
    }
    let (mut unsure, preprocessor) = live(&[
        ("release.pseudo_weight", "0.1"),
        ("release.pseudo_confidence_min", "0.99"),
    ]);
    assert!(unsure.pseudo_labels(&preprocessor).windows().is_empty());
    let (mut off, preprocessor) = live(&[("release.pseudo_confidence_min", "0.0")]);
    assert!(off.pseudo_labels(&preprocessor).windows().is_empty());
}

#[test]
fn releases_and_refits_learn_from_pseudo_labels() {
    for every in ["0", "1"] {
        let released = |weight: &str| {
            let (mut learner, preprocessor) = live(&[
                ("release.strategy", "full"),
                ("release.refit_every_releases", every),
                ("release.pseudo_weight", weight),
                ("release.pseudo_confidence_min", "0.0"),
            ]);
            let mut release = learner.start_release(&preprocessor);
            while !release.is_complete() {
                let stepped = learner.release_step(&mut release, &preprocessor);
                stepped.expect("a step on a small world");
            }
            release.parameters.tensor("layers.0.query").to_vec()
        };
        assert_ne!(released("0.5"), released("0.0"), "refit at every {every}");
    }
}
