//! The stream of a trial: every chunk is ranked by the live version, then learned, then a new version is live.
//!
//! What a server does with the same settings, but without HTTP, without a clock and without waiting: releases
//! come by count of events alone. CPU seconds are those of learning, compressing and encoding; ranking the
//! stream is measurement and costs nothing here.

use std::ops::Range;
use std::sync::Arc;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use shared_model::codec::delta::encode_delta;
use shared_model::codec::snapshot::encode_snapshot;
use shared_model::codec::state::{CodeState, CodeTensor};
use shared_model::ids::Version;

use super::StudyError;
use crate::baselines::ranked::Ranked;
use crate::baselines::timelines::{Query, Timelines};
use crate::compress::allowance::ByteAllowance;
use crate::dataset::{Dataset, DatasetEvent};
use crate::evaluate::cpu;
use crate::evaluate::offline::records;
use crate::learner::{Learner, LiveModel, ReleaseTraining};
use crate::preprocess::Preprocessor;
use crate::replay::ReplayError;
use crate::replay::scoring::{ItemRows, RankModel, score_chunk};

/// As many in every study, so that figures compare.
pub const CHUNK_LEN: usize = 128;

/// In what form weights are published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Published {
    /// As integer codes, within the configured budget: what a server does.
    #[default]
    Codes,
    /// As they were trained, every changed row in each version: what compression is measured against.
    Float32,
    /// As integer codes that owe nothing to the version before, each at its tightest exponents: what versions that
    /// change little by little may drift from.
    Recompressed,
}

/// How a stream is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkOptions {
    /// In what form.
    pub published: Published,
    /// Events between releases.
    pub interval_events: u64,
    /// Events that are ranked and learned together.
    pub chunk_len: usize,
}

/// What a stream gave.
#[derive(Debug, Clone)]
pub struct Streamed {
    /// What was answered, by event.
    pub ranked: Vec<Ranked>,
    /// Spent on learning and publishing; the words say why it is not known.
    pub cpu_secs: Result<f64, String>,
    /// Bytes of each fast delta.
    pub fast_bytes: Vec<usize>,
    /// Bytes of each release delta.
    pub release_bytes: Vec<usize>,
    /// Share of the weights before it that each release kept.
    pub shares_kept: Vec<f32>,
    /// Releases that the gate did not let through.
    pub num_refused: usize,
    /// Steps that were skipped.
    pub num_skipped: usize,
    /// Forgetting of each release, where users were there to ask about.
    pub forgetting: Vec<f32>,
}

/// Seconds of one section added to a sum.
fn add_secs(sum: &mut Result<f64, String>, before: Result<f64, String>) {
    let spent = before.and_then(|before| Ok(cpu::own_secs()? - before));
    match (&mut *sum, spent) {
        (Ok(total), Ok(spent)) => *total += spent,
        (Ok(_), Err(why)) => *sum = Err(why),
        (Err(_), _) => {}
    }
}

/// Walks through `range` with a learner that has a live version and has learned everything before it.
///
/// # Errors
/// Scoring or embedding failed, or a delta cannot be encoded.
pub fn walk(
    dataset: &Dataset,
    range: Range<usize>,
    (learner, preprocessor): (&mut Learner, &mut Preprocessor),
    options: WalkOptions,
    progress: &ProgressBar,
) -> Result<Streamed, StudyError> {
    let mut streamed = Streamed {
        ranked: Vec::new(),
        cpu_secs: Ok(0.0),
        fast_bytes: Vec::new(),
        release_bytes: Vec::new(),
        shares_kept: Vec::new(),
        num_refused: 0,
        num_skipped: 0,
        forgetting: Vec::new(),
    };
    let mut timelines = Timelines::new(dataset.users.len());
    for event in &dataset.events[..range.start] {
        timelines.push(event);
    }
    let mut rows = ItemRows::new(dataset, &live(learner)?.ready);
    let WalkOptions {
        published,
        interval_events,
        chunk_len,
    } = options;
    let mut allowance = allowance(learner, dataset.events[range.clone()].first());
    let mut since_release = 0;
    let mut training: Option<ReleaseTraining> = None;
    let mut is_round_due = true;
    for first in range.clone().step_by(chunk_len) {
        let chunk = &dataset.events[first..(first + chunk_len).min(range.end)];
        let queries: Vec<Query> = chunk.iter().map(|event| timelines.push(event)).collect();
        let LiveModel { state, ready } = live(learner)?;
        rows.refresh(dataset, ready);
        let model = RankModel {
            ready,
            state,
            rows: &rows,
            kind: dataset.kind,
        };
        let ranked = pollster::block_on(score_chunk(model, &queries, &timelines))
            .map_err(ReplayError::from)?;
        streamed.ranked.extend(ranked);

        let before = cpu::own_secs();
        if std::mem::take(&mut is_round_due) {
            text_round(learner, preprocessor)?;
        }
        let records = records(dataset, chunk, first)?;
        let batch = learner
            .ingest(preprocessor, &records)
            .map_err(ReplayError::from)?;
        let report = pollster::block_on(learner.learn(preprocessor, &batch, training.as_mut()));
        let report = report.map_err(ReplayError::from)?;
        streamed.num_skipped += usize::from(report.skipped.is_some());
        let now_millis = chunk.last().map_or(0, |event| event.occurred_at);
        let bytes_max = learner.config().publish.delta_bytes_budget;
        if let Some(bytes_budget) = allowance.grant(now_millis, bytes_max) {
            let bytes = go_live(learner, published, bytes_budget)?;
            allowance.spend(bytes.unwrap_or(0) as u64); // usize fits u64
            streamed.fast_bytes.extend(bytes);
        }
        since_release += chunk.len() as u64; // usize fits u64
        if training.is_none() && since_release >= interval_events {
            since_release = 0;
            training = Some(train(learner, preprocessor, &mut streamed));
        }
        if let Some(tried) = training.take_if(|training| training.is_tried()) {
            release((learner, preprocessor), tried, published, &mut streamed)?;
            is_round_due = true;
        }
        add_secs(&mut streamed.cpu_secs, before);
        progress.inc(chunk.len() as u64); // usize fits u64
    }
    Ok(streamed)
}

fn live(learner: &Learner) -> Result<&LiveModel, ReplayError> {
    learner.live().ok_or(ReplayError::NoVersion)
}

/// Event time takes the place of the clock, as everywhere in a study.
fn allowance(learner: &Learner, first: Option<&DatasetEvent>) -> ByteAllowance {
    let publish = &learner.config().publish;
    let now_millis = first.map_or(0, |event| event.occurred_at);
    ByteAllowance::new(
        publish.bytes_per_sec_max,
        publish.delta_bytes_budget,
        now_millis,
    )
}

/// Makes the candidate within so many bytes live; bytes of its delta, where there was a version before.
///
/// # Errors
/// The delta cannot be encoded.
pub fn go_live(
    learner: &mut Learner,
    published: Published,
    bytes_budget: usize,
) -> Result<Option<usize>, StudyError> {
    let base = learner.live().map(|live| Arc::clone(&live.state));
    let state = match published {
        Published::Codes | Published::Float32 => learner.candidate_within(bytes_budget),
        Published::Recompressed => learner.candidate_anew(),
    };
    let ready = learner.ready(&state);
    let (ready, bytes) = match published {
        Published::Codes | Published::Recompressed => {
            let bytes = base.map(|base| delta_len(&base, &state)).transpose()?;
            (ready, bytes)
        }
        Published::Float32 => {
            let bytes = base.map(|base| float32_len(&base, &state));
            (learner.uncompressed(ready), bytes)
        }
    };
    learner.went_live(Arc::new(state), ready);
    Ok(bytes)
}

/// Bytes of the rows that differ, as f32 with their index as u32: what a server without codes would send.
fn float32_len(base: &CodeState, target: &CodeState) -> usize {
    let pairs = base.tensors.iter().zip(&target.tensors);
    let changed_len = |(base, target): (&CodeTensor, &CodeTensor)| {
        let is_changed = |row_idx: &usize| {
            *row_idx >= base.num_rows
                || base.exponents[*row_idx] != target.exponents[*row_idx]
                || base.row(*row_idx) != target.row(*row_idx)
        };
        let num_changed = (0..target.num_rows).filter(is_changed).count();
        num_changed * (size_of::<u32>() + target.num_cols * size_of::<f32>())
    };
    pairs.map(changed_len).sum()
}

/// Bytes of a delta; of a snapshot, where a new generation of the text encoder has none.
fn delta_len(base: &CodeState, target: &CodeState) -> Result<usize, StudyError> {
    let bytes = if base.encoder_generation == target.encoder_generation {
        encode_delta(base, Version(1), target, Version(2))
    } else {
        encode_snapshot(target, Version(2))
    };
    let bytes = bytes.map_err(|error| StudyError::Delta(error.to_string()))?;
    Ok(bytes.len())
}

/// A whole round of the text encoder, where it learns: what a server does in idle slices after a release.
///
/// # Errors
/// Texts could not be embedded.
fn text_round(learner: &mut Learner, preprocessor: &Preprocessor) -> Result<(), ReplayError> {
    learner.start_text_round(preprocessor);
    while learner.text_slice(preprocessor)? {}
    Ok(())
}

/// All steps of a release.
fn train(
    learner: &mut Learner,
    preprocessor: &Preprocessor,
    streamed: &mut Streamed,
) -> ReleaseTraining {
    let mut training = learner.start_release(preprocessor);
    while !training.is_complete() {
        if learner.release_step(&mut training, preprocessor).is_err() {
            streamed.num_skipped += 1;
        }
    }
    training
}

/// Publishes a release, or counts that the gate refused it.
fn release(
    (learner, preprocessor): (&mut Learner, &Preprocessor),
    mut training: ReleaseTraining,
    published: Published,
    streamed: &mut Streamed,
) -> Result<(), StudyError> {
    let base = Arc::clone(&live(learner)?.state);
    match pollster::block_on(learner.finish_release(&mut training)) {
        Ok((state, ready)) => {
            let forgetting = pollster::block_on(learner.forgetting(preprocessor, &ready));
            streamed
                .forgetting
                .extend(forgetting.map_err(ReplayError::from)?);
            streamed.release_bytes.push(delta_len(&base, &state)?);
            streamed.shares_kept.push(training.share_kept());
            learner.went_live(Arc::new(state), ready);
            learner.release_went_live(&training);
            if published != Published::Codes {
                go_live(learner, published, usize::MAX)?;
            }
        }
        Err(error) => {
            tracing::debug!(%error, "a release was refused");
            streamed.num_refused += 1;
        }
    }
    Ok(())
}
