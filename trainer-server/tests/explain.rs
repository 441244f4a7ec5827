//! Claims about explanations on real purchases: they are faithful, and their parts are the score.
//!
//! Needs `$FRESHET_DATA/online-retail` (default `../shared/data` beside the workspace), else the tests skip and say so.
//! A version is fitted quickly on the first events; figures for the record come from `examples/faithfulness.rs`.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use shared_model::edge::engine::ExplainRequest;
use shared_model::event::HistoryEvent;
use shared_model::ids::Version;
use trainer_server::config::load::{Sources, load};
use trainer_server::dataset::Dataset;
use trainer_server::evaluate::offline::Offline;
use trainer_server::faithfulness::comprehensiveness;

/// Sums in another order, in f32, of scores around ten.
const TOLERANCE: f32 = 1e-5;
const NUM_EVENTS: usize = 20_000;
const NUM_USERS: usize = 120;

fn dataset() -> Option<Dataset> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("FRESHET_DATA").map_or(beside, PathBuf::from);
    let dir = folder.join("online-retail");
    if !dir.is_dir() {
        println!("skipped: {} is not there (set FRESHET_DATA)", dir.display());
        return None;
    }
    let mut dataset = Dataset::load(&dir, 1).expect("the dataset is sound");
    dataset.events.truncate(NUM_EVENTS);
    Some(dataset)
}

#[test]
fn forgetting_what_an_explanation_names_costs_more_than_random_or_the_newest() {
    let Some(dataset) = dataset() else { return };
    let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let flags = vec![
        flag("clock.mode", "event_time"),
        flag("model.text_encoder", "small"),
        flag("train.warm_epochs", "2"),
    ];
    let sources = Sources {
        file: None,
        env: Vec::new(),
        flags,
        ..Sources::default()
    };
    let offline = Offline::new(load(&sources).expect("valid settings")).expect("temp dir");
    let version = offline
        .fit(&dataset, &dataset.events, &ProgressBar::hidden())
        .expect("fits");

    let history: Vec<HistoryEvent> = dataset.events[..80]
        .iter()
        .map(|event| dataset.to_history(event))
        .collect();
    let now_millis = dataset.events[NUM_EVENTS - 1].occurred_at;
    let ready = &version.ready;
    let scores = pollster::block_on(ready.score_all(&version.state, &history, now_millis));
    let scores = scores.expect("finite");
    for item_idx in [0, 7, 400] {
        let request = ExplainRequest {
            history: &history,
            item_id: &version.state.items[item_idx].item_id,
            k: 5,
            now_millis,
        };
        let explained = ready.explain(&version.state, Version(1), &request);
        let explained = pollster::block_on(explained).expect("a known item");
        let error = (explained.parts.sum() - scores[item_idx]).abs();
        assert!(error <= TOLERANCE, "item {item_idx}: off by {error}");
    }

    let asked = comprehensiveness((ready, &version.state), &dataset, NUM_EVENTS, NUM_USERS, 1);
    let (num_users, figures) = pollster::block_on(asked).expect("finite");
    println!("{num_users} users: {figures:#?}");
    assert_eq!(num_users, NUM_USERS);
    for figure in figures {
        assert!(figure.over_random[0] > 0.0, "{figure:?}");
        assert!(figure.over_newest[0] > 0.0, "{figure:?}");
        assert!(figure.rank[0] > figure.rank[1], "{figure:?}");
    }
}
