//! Drives a learner over the last 20 % of a dataset without HTTP, for tuning: quality per setting in minutes.
//!
//! `cargo run -p trainer-server --example simulate -- DIR [warm.safetensors] [section.key=value …]`
//! Not a measurement for the record: that is `freshet replay`, over HTTP and with pages.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use shared_model::event::EventKind;
use shared_model::ids::EventId;
use trainer_server::baselines::timelines::Timelines;
use trainer_server::checkpoint;
use trainer_server::config::{ClockMode, Config};
use trainer_server::dataset::Dataset;
use trainer_server::event_log::{LogRecord, StoredEvent};
use trainer_server::learner::{Learner, LiveModel};
use trainer_server::preprocess::Preprocessor;
use trainer_server::replay::quality::Quality;
use trainer_server::replay::scoring::{ItemRows, RankModel, score_chunk};
use trainer_server::text_source::{self, CachedTextEncoder};

const CHUNK: usize = 128;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().context("a dataset folder is wanted")?);
    let warm_dir = PathBuf::from(
        args.next()
            .context("a folder for the warm weights is wanted")?,
    );
    let mut table: toml::Table = toml::from_str(trainer_server::config::DEFAULT_TOML)?;
    for setting in args {
        let (key, value) = setting
            .split_once('=')
            .context("settings are section.key=value")?;
        let (section, key) = key
            .split_once('.')
            .context("settings are section.key=value")?;
        let value: toml::Table = toml::from_str(&format!("v = {value}"))?;
        table[section]
            .as_table_mut()
            .context("no such section")?
            .insert(key.to_owned(), value["v"].clone());
    }
    let mut config: Config = table.try_into()?;
    config.clock.mode = ClockMode::EventTime;
    let config = Arc::new(config);

    let dataset = Dataset::load(&dir, 1)?;
    let device = burn::tensor::Device::flex();
    let cache_dir = std::env::temp_dir().join("freshet-simulate");
    std::fs::create_dir_all(&cache_dir)?;
    // Another run may hold the cache; then the texts are embedded anew.
    let cache = text_source::EmbeddingCache::open(&cache_dir).ok();
    let encoder = CachedTextEncoder::new(text_source::from_config(&config, &device)?, cache);
    let mut learner = Learner::new(Arc::clone(&config), device, encoder);
    let mut preprocessor = Preprocessor::new(config.clock.mode, config.labels.clone());
    let items: Vec<LogRecord> = dataset
        .items
        .iter()
        .cloned()
        .map(LogRecord::ItemPut)
        .collect();
    learner.ingest(&mut preprocessor, &items)?;

    let split = dataset.split_at(0.8);
    let record = |idx: usize| -> anyhow::Result<LogRecord> {
        let event = dataset.to_event(&dataset.events[idx], EventId::new(format!("e{idx}"))?);
        Ok(LogRecord::Event(StoredEvent {
            received_at: event.occurred_at,
            event,
        }))
    };
    let mut timelines = Timelines::new(dataset.users.len());
    let warm: Vec<LogRecord> = (0..split).map(record).collect::<anyhow::Result<_>>()?;
    learner.ingest(&mut preprocessor, &warm)?;
    for event in &dataset.events[..split] {
        timelines.push(event);
    }
    warm_up(&mut learner, &preprocessor, &warm_dir)?;
    go_live(&mut learner);

    let started = Instant::now();
    let (mut quality, mut steps, mut bytes) = (Quality::default(), 0, Vec::new());
    let mut release = None;
    let mut since_release = 0;
    let live = learner.live().context("live")?;
    let mut rows = ItemRows::new(&dataset, &live.ready);
    for (chunk_idx, first) in (split..dataset.events.len()).step_by(CHUNK).enumerate() {
        let end = (first + CHUNK).min(dataset.events.len());
        let queries: Vec<_> = dataset.events[first..end]
            .iter()
            .map(|event| timelines.push(event))
            .collect();
        let LiveModel { state, ready } = learner.live().context("live")?;
        rows.refresh(&dataset, ready);
        let model = RankModel {
            ready,
            state,
            rows: &rows,
            kind: EventKind::Purchase,
        };
        let answers = pollster::block_on(score_chunk(model, &queries, &timelines))?;
        for (query, ranked) in queries.iter().zip(&answers) {
            quality.add(query, ranked.rank);
        }
        let records: Vec<LogRecord> = (first..end).map(record).collect::<anyhow::Result<_>>()?;
        let batch = learner.ingest(&mut preprocessor, &records)?;
        let base = Arc::clone(&learner.live().context("live")?.state);
        pollster::block_on(learner.learn(&preprocessor, &batch))?;
        let target = go_live(&mut learner);
        let delta = shared_model::codec::delta::encode_delta(
            &base,
            shared_model::ids::Version(1),
            &target,
            shared_model::ids::Version(2),
        )?;
        bytes.push(delta.len());
        since_release += end - first;
        if since_release as u64 >= config.release.interval_events {
            since_release = 0;
            let mut training = learner.start_release(&preprocessor);
            for _ in 0..config.release.steps {
                learner.release_step(&mut training, &preprocessor)?;
                steps += 1;
            }
            match pollster::block_on(learner.finish_release(&mut training)) {
                Ok((state, ready)) => {
                    learner.went_live(Arc::new(state), ready);
                    learner.release_went_live(&training);
                    release = Some(chunk_idx);
                }
                Err(error) => println!("release refused: {error}"),
            }
        }
        if chunk_idx % 100 == 99 || end == dataset.events.len() {
            bytes.sort_unstable();
            println!(
                "chunk {chunk_idx}: new {:?} | prior {:?}, neighbours {} | median delta {} | release steps {steps} (last {release:?}) | {:.0} s",
                quality.new.figures(),
                learner.parameters().tensor("prior.weights"),
                learner.parameters().neighbour_weight(),
                bytes[bytes.len() / 2],
                started.elapsed().as_secs_f32(),
            );
        }
    }
    Ok(())
}

fn go_live(learner: &mut Learner) -> Arc<shared_model::codec::state::CodeState> {
    let state = learner.candidate();
    let ready = learner.ready(&state);
    let state = Arc::new(state);
    learner.went_live(Arc::clone(&state), ready);
    state
}

/// Fits, or takes the weights of an earlier fit from `warm_dir`.
fn warm_up(
    learner: &mut Learner,
    preprocessor: &Preprocessor,
    warm_dir: &std::path::Path,
) -> anyhow::Result<()> {
    if let Some(saved) = checkpoint::load(warm_dir)? {
        return learner
            .load_weights(&saved)
            .context("the saved weights are of another model");
    }
    let started = Instant::now();
    learner.warm_fit(preprocessor, |progress| {
        if progress.num_steps % 100 == 0 {
            println!(
                "warm fit {} of {}: loss {}",
                progress.num_steps, progress.num_steps_total, progress.loss
            );
        }
        true
    })?;
    println!("warm fit took {:.0} s", started.elapsed().as_secs_f32());
    std::fs::create_dir_all(warm_dir)?;
    checkpoint::save(
        warm_dir,
        shared_model::ids::Version(1),
        learner.parameters(),
        learner.optimizer(),
    )?;
    Ok(())
}
