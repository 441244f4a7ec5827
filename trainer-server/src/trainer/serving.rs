//! What the trainer shares with HTTP: the live version to rank with, histories, counters.
//!
//! Readers take an immutable `Arc`; nothing here is held across a training step.

mod kept;
pub(crate) use kept::MODELS_MAX;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::Serialize;
use serde_json::{Value, json};
use shared_model::edge::engine::{
    EngineError, ExplainRequest, Found, ItemExplanation, RankOptions, RankRequest, ReadyVersion,
    Rules, SearchRequest, ShelfRequest,
};
use shared_model::event::HistoryEvent;
use shared_model::ids::{ItemId, LogOffset, UserId, Version};
use shared_model::manifest::ModerationRules;
use shared_model::model::sequence::{Sequence, Token};

use crate::config::Config;
use crate::coverage::{self, CoverageReport};
use crate::experiment::held::HeldVersions;
use crate::explore;
use crate::gate::GateError;
use crate::http::{
    ExplainOrder, ExploreResponse, RankedBy, RecommendError, RecommendRequest, RecommendResponse,
    Recommender, ScoredItem, SearchOrder,
};
use crate::influence::{Crowd, SetAside, Standing};
use crate::learner::{LearnReport, LiveModel, TextTuningReport, WatchFigures};
use crate::moderation::{self, Preview};
use crate::preprocess::{Preprocessor, UserIdx};
use crate::publish::Publisher;
use crate::train::windows::Example;
use crate::trainer::worker::PrivacyStatus;
use kept::{KeptModels, most_popular};

/// Share of the newest batch in the smoothed figures.
const SMOOTHING: f32 = 0.05;

/// Counters of the loop, for `/v1/status`.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct TrainerStatus {
    pub(super) device: String,
    pub(super) text_encoder: String,
    pub(super) phase: String,
    pub(super) error: Option<String>,
    /// Why nothing is published at the moment.
    pub(super) paused: Option<String>,
    /// Times that publishing paused.
    pub(super) pauses: u64,
    pub(super) learned_through: u64,
    pub(super) events_trained: u64,
    pub(super) events_skipped: u64,
    /// Of those passed over since the server has its data folder: what no refit has learned yet.
    pub(super) events_to_refit: u64,
    /// Of the refit in training or on trial; 0 of 0 where there is none.
    pub(super) refit_steps: u64,
    pub(super) refit_steps_total: u64,
    /// What private training has told so far, where training is private.
    pub(super) privacy: Option<PrivacyStatus>,
    /// They teach nothing.
    pub(super) events_set_aside: u64,
    /// The same by why.
    pub(super) set_aside: SetAside,
    /// How much clients teach.
    pub(super) crowd: Crowd,
    pub(super) fast_steps: u64,
    pub(super) steps_refused: u64,
    pub(super) versions_refused: u64,
    /// Why the last of them was.
    pub(super) last_refusal: Option<String>,
    /// Times that all learning since the live version was taken back, since even without the last batch the gate
    /// refused it.
    pub(super) learner_resets: u64,
    pub(super) releases: u64,
    /// Releases that a part of the pages tried, and then everyone had.
    pub(super) canaries_promoted: u64,
    /// Likewise, and then nobody.
    pub(super) canaries_taken_back: u64,
    /// Ordered by an operator or by the watch.
    pub(super) rollbacks: u64,
    /// Newest version against the anchor.
    pub(super) watch: Option<WatchFigures>,
    /// Times that the newest version was found worse.
    pub(super) alarms: u64,
    /// What the last of them said.
    pub(super) last_alarm: Option<String>,
    /// Rise of log loss by the last release for users not seen lately.
    pub(super) last_release_forgetting: Option<f32>,
    /// Share of the weights before it that the last release kept; 1 where its trial went against it.
    pub(super) last_release_share_kept: Option<f32>,
    /// Learning of the text encoder, where it learns.
    pub(super) text_tuning: Option<TextTuningReport>,
    pub(super) log_loss: Option<f32>,
    pub(super) hit_rate_at_10: Option<f32>,
    /// The same of the 10 most popular items.
    pub(super) popularity_hit_rate_at_10: Option<f32>,
    pub(super) warm_fit_steps: u64,
    pub(super) warm_fit_steps_total: u64,
    pub(super) round_millis: u64,
}

/// The live version with its number.
pub(super) struct Serveable {
    pub(super) version: Version,
    pub(super) model: LiveModel,
}

impl Serveable {
    /// The first `k` items for each history.
    fn lists(
        &self,
        histories: &[Vec<HistoryEvent>],
        now_millis: i64,
        k: usize,
        moderation: &ModerationRules,
    ) -> Result<Vec<Vec<ItemId>>, RecommendError> {
        let options = RankOptions {
            k,
            exclude_seen: true,
        };
        let LiveModel { state, ready } = &self.model;
        let list = |history: &Vec<HistoryEvent>| {
            let request = ShelfRequest {
                rank: RankRequest {
                    history,
                    candidates: None,
                    options: &options,
                    now_millis,
                    moderation: Some(moderation),
                },
                rules: &Rules::default(),
                diversity: None,
                exploration: None,
                personal: None,
            };
            let shelf = pollster::block_on(ready.shelf(state, self.version, &request));
            let shelf = shelf.map_err(|error| RecommendError::Failed(error.to_string()))?;
            Ok(shelf.items.into_iter().map(|item| item.item_id).collect())
        };
        histories.iter().map(list).collect()
    }
}

pub(super) struct Serving {
    history_len: usize,
    kept: KeptModels,
    live: RwLock<Option<Arc<Serveable>>>,
    pub(super) preprocessor: RwLock<Preprocessor>,
    status: Mutex<TrainerStatus>,
}

impl Serving {
    pub(super) fn new(config: &Config, publisher: Publisher) -> Self {
        Self {
            history_len: config.model.history_len as usize,
            kept: KeptModels::new(publisher, HeldVersions::of(&config.server.data_dir)),
            live: RwLock::new(None),
            preprocessor: RwLock::new(Preprocessor::new(config)),
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

    pub(super) fn paused(&self, why: &str) {
        self.update(|status| {
            "paused".clone_into(&mut status.phase);
            status.pauses += u64::from(status.paused.is_none());
            status.paused = Some(why.to_owned());
        });
    }

    pub(super) fn resumed(&self) {
        self.update(|status| {
            "learning".clone_into(&mut status.phase);
            status.paused = None;
        });
    }

    pub(super) fn refused(&self, why: &GateError) {
        self.update(|status| {
            status.versions_refused += 1;
            status.last_refusal = Some(why.to_string());
        });
    }

    /// What of a batch teaches nothing, and how much clients teach by now.
    pub(super) fn set_aside(&self, set_aside: &SetAside) {
        let preprocessor = self.preprocessor.read();
        let crowd = preprocessor.unwrap_or_else(PoisonError::into_inner).crowd();
        self.update(|status| {
            status.crowd = crowd;
            for (reason, count) in set_aside {
                *status.set_aside.entry(*reason).or_default() += count;
                status.events_set_aside += count;
            }
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
            smooth(
                &mut status.popularity_hit_rate_at_10,
                report.popularity_hit_rate_at_10,
            );
        });
    }
}

impl Serving {
    fn live(&self) -> Result<Arc<Serveable>, RecommendError> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.clone().ok_or(RecommendError::NotReady)
    }

    /// The history given, else the kept one of the user; and the moment given, else the newest event's.
    fn history_at(
        &self,
        given: Option<Vec<HistoryEvent>>,
        user_id: Option<&UserId>,
        len_max: usize,
        now_millis: Option<i64>,
    ) -> (Vec<HistoryEvent>, i64) {
        let preprocessor = self
            .preprocessor
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let history = match (given, user_id) {
            (Some(history), _) => history,
            (None, Some(user_id)) => preprocessor.history(user_id, len_max),
            (None, None) => Vec::new(),
        };
        let now_millis = now_millis.or(preprocessor.watermark_millis());
        (history, now_millis.unwrap_or(0))
    }
}

impl Serving {
    /// Of the users seen last, with the moment of the newest event.
    fn recent_histories(&self, num_users: usize) -> (Vec<Vec<HistoryEvent>>, i64) {
        let preprocessor = self
            .preprocessor
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let users = preprocessor.recent_users(num_users).into_iter();
        let histories = users.map(|user| preprocessor.history_of(user, self.history_len));
        let now_millis = preprocessor.watermark_millis().unwrap_or(0);
        (histories.collect(), now_millis)
    }

    /// The end of a timeline as the model reads it; the index of items is that of the version, which may lack new ones.
    fn read(&self, timeline: &[Example], ready: &ReadyVersion, now_millis: i64) -> Sequence {
        let num_items = ready.scorer.num_items();
        let known = timeline
            .iter()
            .filter(|example| example.kind.is_history() && (example.item_idx as usize) < num_items);
        let newest = known.rev().take(self.history_len).map(Example::token);
        let mut tokens: Vec<Token> = newest.collect();
        tokens.reverse();
        Sequence { tokens, now_millis }
    }
}

impl Serving {
    /// Of these items, or of all, those that the live version has and that are available.
    fn of_the_live(&self, candidates: Option<Vec<ItemId>>) -> Result<Vec<ItemId>, RecommendError> {
        let live = self.live()?;
        let LiveModel { state, ready } = &live.model;
        let is_there = |id: &ItemId| {
            let item_idx = ready.item_idx(id);
            item_idx.is_some_and(|idx| state.items[idx as usize].available)
        };
        let all = || {
            state
                .items
                .iter()
                .map(|item| item.item_id.clone())
                .collect()
        };
        let mut wanted: Vec<ItemId> = candidates.unwrap_or_else(all);
        wanted.retain(is_there);
        Ok(wanted)
    }
}

impl Recommender for Serving {
    fn recommend(&self, request: RecommendRequest) -> Result<RecommendResponse, RecommendError> {
        let live = match request.version {
            None => self.live()?,
            Some(version) => self.kept.model(version)?,
        };
        let (history, now_millis) = self.history_at(
            request.history,
            request.user_id.as_ref(),
            self.history_len,
            request.now_millis,
        );
        let options = RankOptions {
            k: request.k,
            exclude_seen: request.exclude_seen,
        };
        let candidates = if request.version.is_some() && request.is_for_show {
            Some(self.of_the_live(request.candidates)?)
        } else {
            request.candidates
        };
        let rank_request = RankRequest {
            history: &history,
            candidates: candidates.as_deref(),
            options: &options,
            now_millis,
            moderation: Some(&request.moderation.rules),
        };
        let LiveModel { state, ready } = &live.model;
        if request.ranked_by == RankedBy::Popularity {
            return Ok(RecommendResponse {
                model_version: live.version,
                arm: None,
                items: most_popular(state, &rank_request),
            });
        }
        let shelf_request = ShelfRequest {
            rank: rank_request,
            rules: &Rules::default(),
            diversity: None,
            exploration: request.exploration.as_ref(),
            personal: None,
        };
        let shelf = pollster::block_on(ready.shelf(state, live.version, &shelf_request));
        let shelf = shelf.map_err(|error| RecommendError::Failed(error.to_string()))?;
        let is_drawn = request.exploration.is_some();
        let scored = shelf.items.into_iter().map(|item| ScoredItem {
            item_id: item.item_id,
            score: item.score,
            propensity: is_drawn.then_some(item.propensity),
            points: item.points,
            is_pinned: item.required,
            arm: None,
        });
        Ok(RecommendResponse {
            model_version: shelf.model_version,
            arm: None,
            items: scored.collect(),
        })
    }

    fn explain(&self, order: ExplainOrder) -> Result<ItemExplanation, RecommendError> {
        let live = self.live()?;
        // One more than the model reads: it moves up when another is left out.
        let (history, now_millis) = self.history_at(
            order.history,
            order.user_id.as_ref(),
            self.history_len + 1,
            order.now_millis,
        );
        let request = ExplainRequest {
            history: &history,
            item_id: &order.item_id,
            k: order.k,
            now_millis,
        };
        let LiveModel { state, ready } = &live.model;
        let explained = pollster::block_on(ready.explain(state, live.version, &request));
        explained.map_err(|error| match error {
            EngineError::UnknownItem { item_id } => RecommendError::NotYetHeld(item_id),
            error @ (EngineError::Sync(_)
            | EngineError::NoModel
            | EngineError::Score(_)
            | EngineError::TooLong { .. }
            | EngineError::TextWidth { .. }
            | EngineError::SelfTest { .. }
            | EngineError::SelfTestItem { .. }) => RecommendError::Failed(error.to_string()),
        })
    }

    fn search(&self, order: SearchOrder) -> Result<Found, RecommendError> {
        let live = self.live()?;
        let (history, now_millis) = self.history_at(
            order.history,
            order.user_id.as_ref(),
            self.history_len,
            order.now_millis,
        );
        let options = RankOptions {
            k: order.k,
            exclude_seen: order.exclude_seen,
        };
        let request = SearchRequest {
            text: &order.text,
            taste: order.taste,
            rank: RankRequest {
                history: &history,
                candidates: order.candidates.as_deref(),
                options: &options,
                now_millis,
                moderation: Some(&order.moderation.rules),
            },
        };
        let LiveModel { state, ready } = &live.model;
        let items = pollster::block_on(ready.search(state, &request));
        Ok(Found {
            model_version: live.version,
            items: items.map_err(|error| RecommendError::Failed(error.to_string()))?,
        })
    }

    fn explore(&self, k: usize) -> Result<ExploreResponse, RecommendError> {
        let live = self.live()?;
        let LiveModel { state, ready } = &live.model;
        let (sequences, now_millis) = {
            let preprocessor = self
                .preprocessor
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let now_millis = preprocessor.watermark_millis().unwrap_or(0);
            let users = preprocessor.recent_users(explore::NUM_USERS);
            let timelines = preprocessor.timelines();
            let read = |user: &UserIdx| self.read(&timelines[user.0 as usize], ready, now_millis);
            (users.iter().map(read).collect::<Vec<_>>(), now_millis)
        };
        let uncertain = explore::most_uncertain(&ready.scorer, state, &sequences, now_millis, k);
        let items = pollster::block_on(uncertain);
        Ok(ExploreResponse {
            model_version: live.version,
            items: items.map_err(|error| RecommendError::Failed(error.to_string()))?,
        })
    }

    fn coverage(&self, moderation: &ModerationRules) -> Result<CoverageReport, RecommendError> {
        let live = self.live()?;
        let (histories, now_millis) = self.recent_histories(coverage::NUM_USERS);
        let candidates = explore::candidates(&live.model.state, now_millis);
        let index: HashMap<&ItemId, usize> = candidates
            .iter()
            .enumerate()
            .map(|(idx, item)| (&item.item_id, idx))
            .collect();
        let lists = live.lists(&histories, now_millis, coverage::NUM_PLACES, moderation)?;
        let rows = |list: &Vec<ItemId>| -> Vec<usize> {
            let known = list.iter().filter_map(|item_id| index.get(item_id));
            known.copied().collect()
        };
        let lists: Vec<Vec<usize>> = lists.iter().map(rows).collect();
        Ok(coverage::report(live.version, &candidates, &lists))
    }

    fn preview(
        &self,
        before: &ModerationRules,
        after: &ModerationRules,
    ) -> Result<Preview, RecommendError> {
        let live = self.live()?;
        let (histories, now_millis) = self.recent_histories(moderation::NUM_USERS);
        let lists = |rules| live.lists(&histories, now_millis, moderation::NUM_PLACES, rules);
        Ok(Preview::of(live.version, lists(before)?, lists(after)?))
    }

    fn history(&self, user_id: &UserId) -> Vec<HistoryEvent> {
        self.preprocessor
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .history(user_id, usize::MAX)
    }

    fn standing(&self, user_id: &UserId) -> Option<Standing> {
        self.preprocessor
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .standing(user_id)
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
