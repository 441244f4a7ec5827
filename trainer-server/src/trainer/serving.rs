//! What the trainer shares with HTTP: the live version to rank with, histories, counters.
//!
//! Readers take an immutable `Arc`; nothing here is held across a training step.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::Serialize;
use serde_json::{Value, json};
use shared_model::edge::engine::{RankOptions, RankRequest};
use shared_model::ids::{LogOffset, Version};

use crate::config::{ClockMode, Config};
use crate::http::{RecommendError, RecommendRequest, RecommendResponse, Recommender, ScoredItem};
use crate::learner::{LearnReport, LiveModel};
use crate::preprocess::Preprocessor;

/// Share of the newest batch in the smoothed figures.
const SMOOTHING: f32 = 0.05;

/// Counters of the loop, for `/v1/status`.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct TrainerStatus {
    pub(super) device: String,
    pub(super) text_encoder: String,
    pub(super) phase: String,
    pub(super) error: Option<String>,
    pub(super) learned_through: u64,
    pub(super) events_trained: u64,
    pub(super) events_skipped: u64,
    /// Of bursts and repeats, which teach nothing.
    pub(super) events_set_aside: u64,
    pub(super) fast_steps: u64,
    pub(super) steps_refused: u64,
    pub(super) versions_refused: u64,
    pub(super) releases: u64,
    /// Rise of log loss by the last release for users not seen lately.
    pub(super) last_release_forgetting: Option<f32>,
    pub(super) log_loss: Option<f32>,
    pub(super) hit_rate_at_10: Option<f32>,
    pub(super) warm_fit_steps: u64,
    pub(super) warm_fit_steps_total: u64,
    pub(super) round_millis: u64,
}

/// The live version with its number.
pub(super) struct Serveable {
    pub(super) version: Version,
    pub(super) model: LiveModel,
}

pub(super) struct Serving {
    history_len: usize,
    live: RwLock<Option<Arc<Serveable>>>,
    pub(super) preprocessor: RwLock<Preprocessor>,
    status: Mutex<TrainerStatus>,
}

impl Serving {
    pub(super) fn new(config: &Config) -> Self {
        let clock: ClockMode = config.clock.mode;
        Self {
            history_len: config.model.history_len as usize,
            live: RwLock::new(None),
            preprocessor: RwLock::new(Preprocessor::new(clock, config.labels.clone())),
            status: Mutex::new(TrainerStatus {
                phase: "starting".to_owned(),
                ..TrainerStatus::default()
            }),
        }
    }

    pub(super) fn set_live(&self, version: Version, model: LiveModel) {
        let serveable = Some(Arc::new(Serveable { version, model }));
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = serveable;
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut TrainerStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn phase(&self, phase: &str) {
        self.update(|status| phase.clone_into(&mut status.phase));
    }

    pub(super) fn failed(&self, error: &str) {
        self.update(|status| {
            "stopped".clone_into(&mut status.phase);
            status.error = Some(error.to_owned());
        });
    }

    pub(super) fn learned(&self, report: &LearnReport, learned_through: LogOffset) {
        self.update(|status| {
            status.learned_through = learned_through.0;
            status.fast_steps += u64::from(report.num_learned > 0);
            status.steps_refused += u64::from(report.skipped.is_some());
            if report.skipped.is_none() {
                status.events_trained += report.num_learned as u64;
            }
            smooth(&mut status.log_loss, report.log_loss);
            smooth(&mut status.hit_rate_at_10, report.hit_rate_at_10);
        });
    }
}

impl Recommender for Serving {
    fn recommend(&self, request: RecommendRequest) -> Result<RecommendResponse, RecommendError> {
        let live = self
            .live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let live = live.ok_or(RecommendError::NotReady)?;
        let (history, watermark) = {
            let preprocessor = self
                .preprocessor
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let history = match (request.history, &request.user_id) {
                (Some(history), _) => history,
                (None, Some(user_id)) => preprocessor.history(user_id, self.history_len),
                (None, None) => Vec::new(),
            };
            (history, preprocessor.watermark_millis())
        };
        let options = RankOptions {
            k: request.k,
            exclude_seen: request.exclude_seen,
        };
        let rank_request = RankRequest {
            history: &history,
            candidates: request.candidates.as_deref(),
            options: &options,
            now_millis: request.now_millis.or(watermark).unwrap_or(0),
        };
        let ranked = pollster::block_on(live.model.ready.rank(&live.model.state, &rank_request));
        let ranked = ranked.map_err(|error| RecommendError::Failed(error.to_string()))?;
        let items = ranked.into_iter().map(|item| ScoredItem {
            item_id: item.item_id,
            score: item.score,
        });
        Ok(RecommendResponse {
            model_version: live.version,
            items: items.collect(),
        })
    }

    fn status(&self) -> Value {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_value(&*status).unwrap_or_else(|error| json!({ "error": error.to_string() }))
    }
}

fn smooth(figure: &mut Option<f32>, newest: Option<f32>) {
    if let Some(newest) = newest {
        let before = figure.unwrap_or(newest);
        *figure = Some(before + SMOOTHING * (newest - before));
    }
}
