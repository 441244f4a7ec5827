//! Claims about streams that no recipe expects, and settings that diverge: the learner learns, skips or is refused,
//! and never publishes garbage. Without HTTP; what the border refuses is in `bad_input`.

use std::sync::Arc;

use burn::tensor::Device;
use serde_json::json;
use shared_model::edge::engine::ReadyVersion;
use shared_model::model::parameters::ParameterSet;
use shared_model::model::scorer::Query;
use shared_model::model::sequence::Sequence;
use shared_model::text::{AnyTextEncoder, SmallTextEncoder};
use trainer_server::config::load::{Sources, load};
use trainer_server::event_log::{LogRecord, StoredEvent};
use trainer_server::learner::Learner;
use trainer_server::preprocess::Preprocessor;
use trainer_server::text_source::CachedTextEncoder;

const START_MILLIS: i64 = 1_700_000_000_000;
const NUM_ITEMS: usize = 40;

/// One event: user, item, minutes after the start, rating where it is one.
type Seen = (usize, usize, i64, Option<f64>);

fn records(events: &[Seen], prefix: &str) -> anyhow::Result<Vec<LogRecord>> {
    let record = |(idx, (user, item, minute, rating)): (usize, &Seen)| {
        let event = json!({
            "event_id": format!("{prefix}{idx}"),
            "kind": if rating.is_some() { "rating" } else { "click" },
            "user_id": format!("u{user}"),
            "item_id": format!("i{item}"),
            "occurred_at": START_MILLIS + minute * 60_000,
            "value": rating,
        });
        Ok(LogRecord::Event(StoredEvent {
            event: serde_json::from_value(event)?,
            received_at: START_MILLIS,
            is_vouched: false,
            arm_phase: None,
        }))
    };
    events.iter().enumerate().map(record).collect()
}

fn catalogue(num_items: usize, title: impl Fn(usize) -> String) -> anyhow::Result<Vec<LogRecord>> {
    let item = |idx: usize| json!({"item_id": format!("i{idx}"), "title": title(idx)});
    let items = (0..num_items).map(|idx| serde_json::from_value(item(idx)));
    Ok(items
        .map(|item| item.map(LogRecord::ItemPut))
        .collect::<Result<_, _>>()?)
}

/// What came of a stream.
struct Course {
    num_published: usize,
    num_refused: usize,
    num_skipped: usize,
}

/// A small learner that has learned nothing.
fn learner(settings: &[(&str, &str)]) -> anyhow::Result<(Learner, Preprocessor)> {
    let mut flags = vec![
        ("model.embedding_dim", "16"),
        ("model.ff_dim", "16"),
        ("model.history_len", "8"),
        ("train.warm_epochs", "3"),
        ("train.warm_batch_size", "8"),
        ("release.steps", "6"),
        ("clock.mode", "event_time"),
    ];
    flags.extend(settings);
    let flags = flags.into_iter();
    let config = Arc::new(load(&Sources {
        flags: flags
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        ..Sources::default()
    })?);
    let encoder = CachedTextEncoder::new(AnyTextEncoder::Small(SmallTextEncoder), None);
    let preprocessor = Preprocessor::new(&config);
    let learner = Learner::new(Arc::clone(&config), Device::flex(), encoder);
    Ok((learner, preprocessor))
}

/// Warm fit on the first half, the rest in fast versions, then two releases; every published version is looked at.
async fn course(
    items: &[LogRecord],
    events: &[Seen],
    settings: &[(&str, &str)],
) -> anyhow::Result<Course> {
    let (mut learner, mut preprocessor) = learner(settings)?;
    let mut course = Course {
        num_published: 0,
        num_refused: 0,
        num_skipped: 0,
    };
    learner.ingest(&mut preprocessor, items)?;
    let (past, stream) = events.split_at(events.len() / 2);
    learner.ingest(&mut preprocessor, &records(past, "p")?)?;
    if learner.warm_fit(&preprocessor, |_| true).is_err() {
        course.num_skipped += 1; // it gave up; what it had before is published
    }
    let first = learner.candidate();
    let ready = learner.ready(&first);
    learner.went_live(Arc::new(first), ready);
    look_at(&learner).await?;
    for (idx, part) in stream.chunks(stream.len().div_ceil(6).max(1)).enumerate() {
        let batch = learner.ingest(&mut preprocessor, &records(part, &format!("s{idx}-"))?)?;
        let report = learner.learn(&preprocessor, &batch, None).await?;
        course.num_skipped += usize::from(report.skipped.is_some());
        if publish_fast(&mut learner).await {
            course.num_published += 1;
        } else {
            course.num_refused += 1;
        }
        look_at(&learner).await?;
    }
    for _ in 0..2 {
        let mut release = learner.start_release(&preprocessor);
        while !release.is_complete() {
            if learner.release_step(&mut release, &preprocessor).is_err() {
                course.num_skipped += 1;
            }
        }
        match learner.finish_release(&mut release).await {
            Ok((state, ready)) => {
                learner.forgetting(&preprocessor, &ready).await?;
                learner.went_live(Arc::new(state), ready);
                learner.release_went_live(&release);
                course.num_published += 1;
            }
            Err(_refused) => course.num_refused += 1,
        }
        look_at(&learner).await?;
    }
    Ok(course)
}

/// Lets the gate judge what was learned last, and takes it back where it refuses it; whether it is live.
async fn publish_fast(learner: &mut Learner) -> bool {
    let state = learner.candidate();
    let ready = learner.ready(&state);
    let is_passed = learner.check(&state, &ready).await.is_ok();
    if is_passed {
        learner.went_live(Arc::new(state), ready);
    } else {
        learner.undo_last();
    }
    is_passed
}

/// Whatever is live is finite: codes as weights, and scores of everybody's next item.
async fn look_at(learner: &Learner) -> anyhow::Result<()> {
    let live = learner
        .live()
        .ok_or_else(|| anyhow::anyhow!("nothing is live"))?;
    let weights = ParameterSet::from_state(&live.state);
    let shapes = weights.shapes();
    for (shape, values) in shapes.iter().zip(&weights.tensors) {
        let is_finite = values.iter().all(|value| value.is_finite());
        anyhow::ensure!(is_finite, "{} holds what is no number", shape.name);
    }
    let ReadyVersion { scorer, .. } = &live.ready;
    let nobody = Sequence {
        tokens: Vec::new(),
        now_millis: START_MILLIS,
    };
    let query = Query {
        sequence_idx: 0,
        num_known: 0,
        now_millis: START_MILLIS,
    };
    let scores = scorer.score(&[nobody], &[query]).await?;
    anyhow::ensure!(scores.len() == live.state.items.len());
    anyhow::ensure!(scores.iter().all(|score| score.is_finite()), "{scores:?}");
    Ok(())
}

/// Twenty users with a taste for every second item, round after round.
fn plain() -> Vec<Seen> {
    let event = |idx: usize| (idx % 20, (idx * 7 + idx % 20) % NUM_ITEMS, idx as i64, None);
    (0..400).map(event).collect()
}

#[tokio::test]
async fn odd_streams_are_learned_or_refused_and_what_is_live_is_sound() -> anyhow::Result<()> {
    let title = |idx: usize| format!("thing number {idx}");
    let items = catalogue(NUM_ITEMS, title)?;
    let streams: [(&str, Vec<LogRecord>, Vec<Seen>); 7] = [
        (
            "no titles",
            catalogue(NUM_ITEMS, |_| String::new())?,
            plain(),
        ),
        (
            "all titles alike",
            catalogue(NUM_ITEMS, |_| "thing".to_owned())?,
            plain(),
        ),
        (
            "one user",
            items.clone(),
            plain()
                .into_iter()
                .map(|(_, i, at, r)| (0, i, at, r))
                .collect(),
        ),
        (
            "one item",
            catalogue(1, title)?,
            plain()
                .into_iter()
                .map(|(u, _, at, r)| (u, 0, at, r))
                .collect(),
        ),
        (
            "constant ratings",
            items.clone(),
            plain()
                .into_iter()
                .map(|(u, i, at, _)| (u, i, at, Some(3.0)))
                .collect(),
        ),
        (
            "clock jumps by decades, to and fro",
            items.clone(),
            plain()
                .into_iter()
                .map(|(u, i, at, r)| (u, i, if i % 3 == 0 { at - 20_000_000 } else { at }, r))
                .collect(),
        ),
        (
            "everything in one second",
            items.clone(),
            plain()
                .into_iter()
                .map(|(u, i, _, r)| (u, i, 0, r))
                .collect(),
        ),
    ];
    for (name, items, events) in &streams {
        let course = course(items, events, &[]).await;
        let course = course.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        assert!(course.num_published > 0, "{name}: nothing was published");
        assert_eq!(course.num_skipped, 0, "{name}");
    }
    // Items that the log no longer holds are passed over.
    let mut unknown = plain();
    for (idx, event) in unknown.iter_mut().enumerate() {
        if idx % 5 == 0 {
            event.1 += 1000;
        }
    }
    assert!(course(&items, &unknown, &[]).await?.num_published > 0);
    Ok(())
}

#[tokio::test]
async fn every_strategy_and_regulariser_publishes_sound_versions() -> anyhow::Result<()> {
    let items = catalogue(NUM_ITEMS, |idx| format!("thing number {idx}"))?;
    let settings: [&[(&str, &str)]; 11] = [
        &[("release.strategy", "lora"), ("release.schedule", "cosine")],
        &[("release.strategy", "adapter"), ("model.adapter_dim", "4")],
        &[("release.strategy", "bitfit"), ("release.averaging", "0.9")],
        &[("release.strategy", "head")],
        &[("release.strategy", "tables")],
        &[("release.l2_sp", "0.1"), ("release.ewc", "10.0")],
        &[
            ("release.distillation", "1.0"),
            ("release.replay", "events"),
        ],
        &[
            ("train.adversarial", "fgm"),
            ("train.accumulation_steps", "2"),
        ],
        &[("train.adversarial", "pgd"), ("train.augment_crop", "0.5")],
        &[
            ("train.augment_mask", "0.3"),
            ("train.augment_reorder", "0.5"),
        ],
        &[
            ("release.refit_every_releases", "2"),
            ("release.refit_blend", "0.5"),
        ],
    ];
    for settings in settings {
        let course = course(&items, &plain(), settings).await;
        let course = course.map_err(|error| anyhow::anyhow!("{settings:?}: {error}"))?;
        assert!(
            course.num_published >= 2,
            "{settings:?}: {} published",
            course.num_published
        );
        assert_eq!(course.num_skipped, 0, "{settings:?}");
    }
    Ok(())
}

#[tokio::test]
async fn rates_that_diverge_are_skipped_or_refused() -> anyhow::Result<()> {
    let items = catalogue(NUM_ITEMS, |idx| format!("thing number {idx}"))?;
    for settings in [
        [("release.learning_rate", "10.0"), ("train.dropout", "0.0")],
        [
            ("train.fast_learning_rate", "10.0"),
            ("train.fast_bias_learning_rate", "10.0"),
        ],
        [
            ("train.warm_learning_rate", "10.0"),
            ("train.warm_row_learning_rate", "10.0"),
        ],
    ] {
        // Soundness of whatever is live is looked at inside.
        let course = course(&items, &plain(), &settings).await?;
        let is_wild_fit = settings[0].0 == "train.warm_learning_rate";
        assert!(
            is_wild_fit || course.num_refused + course.num_skipped > 0,
            "{settings:?}: everything was published"
        );
    }
    Ok(())
}

/// Share of the weights before it that a release keeps which the second half of the events has judged.
async fn share_kept(settings: &[(&str, &str)]) -> anyhow::Result<f32> {
    let (mut learner, mut preprocessor) = learner(settings)?;
    let items = catalogue(NUM_ITEMS, |idx| format!("thing number {idx}"))?;
    learner.ingest(&mut preprocessor, &items)?;
    let events = plain();
    let (past, next) = events.split_at(events.len() / 2);
    learner.ingest(&mut preprocessor, &records(past, "p")?)?;
    learner.warm_fit(&preprocessor, |_| true)?;
    let first = learner.candidate();
    let ready = learner.ready(&first);
    learner.went_live(Arc::new(first), ready);
    let mut release = learner.start_release(&preprocessor);
    while !release.is_complete() {
        learner.release_step(&mut release, &preprocessor)?;
    }
    anyhow::ensure!(!release.is_tried(), "nobody has judged it yet");
    let before = learner.parameters().tensor("start").to_vec();
    for (idx, part) in next.chunks(50).enumerate() {
        let batch = learner.ingest(&mut preprocessor, &records(part, &format!("n{idx}-"))?)?;
        let release = Some(&mut release);
        learner.learn(&preprocessor, &batch, release).await?;
        publish_fast(&mut learner).await;
    }
    anyhow::ensure!(release.is_tried());
    let (state, ready) = learner.finish_release(&mut release).await?;
    learner.went_live(Arc::new(state), ready);
    learner.release_went_live(&release);
    look_at(&learner).await?;
    let is_as_before = learner.parameters().tensor("start") == before;
    anyhow::ensure!(is_as_before == (release.share_kept() == 1.0));
    Ok(release.share_kept())
}

#[tokio::test]
async fn the_next_events_take_a_release_that_learned_and_leave_one_that_went_astray()
-> anyhow::Result<()> {
    let trial = ("release.trial_events", "150");
    let all = ("release.strategy", "full");
    let steps = ("release.steps", "40");
    let refit = ("release.refit_every_releases", "1");
    let learned = share_kept(&[all, trial, steps, ("release.learning_rate", "0.01")]).await?;
    let leap = [("release.steps", "1"), ("release.learning_rate", "10")];
    let astray = share_kept(&[all, trial, leap[0], leap[1]]).await?;
    let refitted = share_kept(&[trial, refit]).await?;
    assert_eq!((learned, astray), (0.0, 1.0));
    assert!(refitted < 1.0, "{refitted}");
    Ok(())
}
