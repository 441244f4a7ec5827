//! Edge engine: the sync machine and the scorer of the live version, and the swap between versions.
//!
//! A candidate becomes live only after it has reproduced the self-test of its manifest on this very
//! device; until then, and if it fails, the last good version goes on ranking.

mod best;
mod diversity;
mod error;
mod explain;
#[cfg(all(test, feature = "flex"))]
mod made_up;
mod moderation;
mod personal;
mod rules;
mod search;
mod shelf;
mod similar;

use std::collections::HashMap;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::sync::{EdgeSync, Trust};
use crate::codec::state::CodeState;
use crate::event::HistoryEvent;
use crate::ids::{ItemId, Version};
use crate::manifest::{ModerationRules, SelfTest};
use crate::model::scorer::{Padding, Query, ScoreError, Scorer};
use crate::model::sequence::{Sequence, Token};

pub use best::top_k;
pub use diversity::{Diversity, DiversityError};
pub use error::EngineError;
pub use explain::{EventEffect, ExplainRequest, ItemExplanation};
pub use personal::{PERSONAL_EVENTS_MAX, Personal, PersonalStatus};
pub use rules::{POINTS_MAX, REQUIRED_MAX, RULE_ITEMS_MAX, RULES_MAX};
pub use rules::{PointRule, Requirement, RuleError, Rules, RulesForm};
pub use search::{Found, FoundItem, NEW_ITEMS_MAX, NewItemsRequest, SearchRequest};
pub use shelf::{Shelf, ShelfItem, ShelfRequest};
pub use similar::{SIMILAR_TO_MAX, SimilarRequest};

/// Most items one call may ask for.
pub const K_MAX: usize = 10_000;

/// What to rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RankOptions {
    /// How many items to return, at most [`K_MAX`].
    pub k: usize,
    /// Whether items of the history are left out.
    pub exclude_seen: bool,
}

impl Default for RankOptions {
    fn default() -> Self {
        Self {
            k: 10,
            exclude_seen: true,
        }
    }
}

/// One ranked item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankedItem {
    /// The item.
    pub item_id: ItemId,
    /// Its score; higher is better.
    pub score: f32,
}

/// An ordering by one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// The version that scored.
    pub model_version: Version,
    /// Best first.
    pub items: Vec<RankedItem>,
}

/// A version made ready: its scorer and the index of its items.
#[derive(Debug, Clone)]
pub struct ReadyVersion {
    /// Scores on the device.
    pub scorer: Scorer,
    item_idx: HashMap<ItemId, u32>,
}

impl ReadyVersion {
    /// Builds it from codes alone.
    #[must_use]
    pub fn new(state: &CodeState, device: &Device, padding: Padding) -> Self {
        let scorer = Scorer::new(state, device, padding);
        Self {
            scorer,
            item_idx: index_of(state),
        }
    }

    /// Builds it from codes alone, to score on the host: for the page's CPU.
    #[must_use]
    pub fn on_host(state: &CodeState) -> Self {
        Self {
            scorer: Scorer::on_host(state),
            item_idx: index_of(state),
        }
    }

    /// Builds `target` from `self`, which was built from `base`.
    #[must_use]
    pub fn updated(&self, base: &CodeState, target: &CodeState) -> Self {
        let scorer = self.scorer.updated(base, target);
        let mut item_idx = self.item_idx.clone();
        if target.items.len() != base.items.len() {
            item_idx = index_of(target);
        }
        Self { scorer, item_idx }
    }

    /// Row of an item.
    #[must_use]
    pub fn item_idx(&self, item_id: &ItemId) -> Option<u32> {
        self.item_idx.get(item_id).copied()
    }

    /// The last `history_len` known events of a history as the model reads them; unknown items are skipped.
    #[must_use]
    pub fn sequence(
        &self,
        state: &CodeState,
        history: &[HistoryEvent],
        now_millis: i64,
    ) -> Sequence {
        let known = self.known_tokens(history, state.spec.history_len as usize);
        Sequence {
            tokens: known.into_iter().map(|(_, token)| token).collect(),
            now_millis,
        }
    }

    /// The last known events of a history, oldest first, each with its position in the history.
    fn known_tokens(&self, history: &[HistoryEvent], len_max: usize) -> Vec<(usize, Token)> {
        let mut tokens: Vec<(usize, Token)> = Vec::with_capacity(len_max);
        let events = history.iter().enumerate().rev();
        for (history_idx, event) in events.filter(|(_, event)| event.kind.is_history()) {
            if tokens.len() == len_max {
                break;
            }
            if let Some(item_idx) = self.item_idx(&event.item_id) {
                let token = Token {
                    item_idx,
                    kind: event.kind,
                    occurred_at: event.occurred_at,
                };
                tokens.push((history_idx, token));
            }
        }
        tokens.reverse();
        tokens
    }

    /// Scores of all items for one history.
    ///
    /// # Errors
    /// See [`Scorer::score`].
    pub async fn score_all(
        &self,
        state: &CodeState,
        history: &[HistoryEvent],
        now_millis: i64,
    ) -> Result<Vec<f32>, ScoreError> {
        let sequence = self.sequence(state, history, now_millis);
        let query = Query {
            sequence_idx: 0,
            num_known: sequence.tokens.len(),
            now_millis,
        };
        self.scorer.score(&[sequence], &[query]).await
    }

    /// Ranks `candidates` (all available items where `None`) for a history.
    ///
    /// # Errors
    /// See [`Scorer::score`].
    pub async fn rank(
        &self,
        state: &CodeState,
        request: &RankRequest<'_>,
    ) -> Result<Vec<RankedItem>, ScoreError> {
        let scores = self
            .score_all(state, request.history, request.now_millis)
            .await?;
        let eligible = self.eligible(state, request);
        let best = top_k(eligible, &scores, request.options.k.min(K_MAX));
        let ranked = |idx: u32| RankedItem {
            item_id: state.items[idx as usize].item_id.clone(),
            score: scores[idx as usize],
        };
        Ok(best.into_iter().map(ranked).collect())
    }

    /// Rows that may be ranked, ascending.
    fn eligible(&self, state: &CodeState, request: &RankRequest<'_>) -> Vec<u32> {
        let mut is_out: Vec<bool> = state.items.iter().map(|item| !item.available).collect();
        if request.options.exclude_seen {
            let seen = request.history.iter();
            for item_idx in seen.filter_map(|event| self.item_idx(&event.item_id)) {
                is_out[item_idx as usize] = true;
            }
        }
        for item_idx in self.blocked(request.moderation) {
            is_out[item_idx as usize] = true;
        }
        let is_in = |item_idx: &u32| !is_out[*item_idx as usize];
        let Some(candidates) = request.candidates else {
            return (0..is_out.len() as u32).filter(is_in).collect(); // fits: NUM_ITEMS_MAX is 2^20
        };
        let known = candidates.iter();
        let known = known.filter_map(|item_id| self.item_idx(item_id));
        let mut eligible: Vec<u32> = known.filter(is_in).collect();
        eligible.sort_unstable();
        eligible.dedup();
        eligible
    }
}

/// One ranking wanted.
#[derive(Debug, Clone, Copy)]
pub struct RankRequest<'a> {
    /// Events of the user, oldest first.
    pub history: &'a [HistoryEvent],
    /// What may be ranked; everything available where `None`.
    pub candidates: Option<&'a [ItemId]>,
    /// How many, and which are left out.
    pub options: &'a RankOptions,
    /// The moment of ranking, milliseconds since 1970-01-01 UTC.
    pub now_millis: i64,
    /// What the operators say of it. An [`EdgeEngine`] goes by the rules that it was told, whatever stands here.
    pub moderation: Option<&'a ModerationRules>,
}

/// What scores.
#[derive(Debug, Clone)]
enum Executor {
    Host,
    Device(Device, Padding),
}

impl Executor {
    fn ready(&self, state: &CodeState) -> ReadyVersion {
        match self {
            Self::Host => ReadyVersion::on_host(state),
            Self::Device(device, padding) => ReadyVersion::new(state, device, *padding),
        }
    }
}

/// Sync machine and scorer of one page.
pub struct EdgeEngine {
    sync: EdgeSync,
    executor: Executor,
    /// What ranks, with the version it was built from.
    ready: Option<(Version, ReadyVersion)>,
    /// What was last learned of the visitor, where that was wanted.
    personal: Option<personal::Learned>,
    /// The rules of the operators, where they are known, with their revision.
    moderation: Option<(u64, ModerationRules)>,
}

impl EdgeEngine {
    /// An engine without a version yet, scoring on `device`.
    #[must_use]
    pub fn new(model: &str, trust: Trust, device: Device, padding: Padding) -> Self {
        Self::with(model, trust, Executor::Device(device, padding))
    }

    /// An engine without a version yet, scoring on the host.
    #[must_use]
    pub fn on_host(model: &str, trust: Trust) -> Self {
        Self::with(model, trust, Executor::Host)
    }

    fn with(model: &str, trust: Trust, executor: Executor) -> Self {
        Self {
            sync: EdgeSync::new(model, trust),
            executor,
            ready: None,
            personal: None,
            moderation: None,
        }
    }

    /// The machine that says what to fetch.
    #[must_use]
    pub fn sync(&self) -> &EdgeSync {
        &self.sync
    }

    /// The machine, to be told what arrived.
    pub fn sync_mut(&mut self) -> &mut EdgeSync {
        &mut self.sync
    }

    /// The version that ranks now.
    #[must_use]
    pub fn ready(&self) -> Option<&ReadyVersion> {
        self.ready.as_ref().map(|(_, ready)| ready)
    }

    /// Makes a verified candidate live if it passes its self-test on this device.
    /// Returns whether a swap happened.
    ///
    /// # Errors
    /// The candidate is refused and the last good version stays live.
    pub async fn settle(&mut self) -> Result<bool, EngineError> {
        self.revive();
        let Some(candidate) = self.sync.candidate() else {
            return Ok(false);
        };
        let target = &candidate.state;
        let ready = match (&self.ready, self.sync.live()) {
            (Some((_, ready)), Some(live)) => ready.updated(&live.state, target),
            (_, _) => self.executor.ready(target),
        };
        let version = candidate.manifest.version;
        let outcome = self_test(&ready, target, version, &candidate.manifest.self_test).await;
        match outcome {
            Ok(()) => {
                self.sync.accept();
                self.ready = Some((version, ready));
                Ok(true)
            }
            Err(error) => {
                self.sync.refuse();
                Err(error)
            }
        }
    }

    /// Ranks with the live version.
    ///
    /// # Errors
    /// Nothing is live yet, or the device failed.
    pub async fn rank(&mut self, request: &RankRequest<'_>) -> Result<Ranking, EngineError> {
        self.revive();
        let (Some((_, ready)), Some(live)) = (&self.ready, self.sync.live()) else {
            return Err(EngineError::NoModel);
        };
        let request = request.moderated(self.moderation.as_ref());
        let items = ready.rank(&live.state, &request).await?;
        Ok(Ranking {
            model_version: live.manifest.version,
            items,
        })
    }

    /// A version restored from the cache is live in the sync machine before it has a scorer.
    fn revive(&mut self) {
        let Some(live) = self.sync.live() else {
            return;
        };
        let version = live.manifest.version;
        if self
            .ready
            .as_ref()
            .is_some_and(|(ready, _)| *ready == version)
        {
            return;
        }
        let ready = self.executor.ready(&live.state);
        self.ready = Some((version, ready));
    }
}

/// Scores the manifest's probe and compares.
///
/// # Errors
/// Names the first item that differs by more than the tolerance.
pub async fn self_test(
    ready: &ReadyVersion,
    state: &CodeState,
    version: Version,
    expected: &SelfTest,
) -> Result<(), EngineError> {
    let scores = ready
        .score_all(state, &expected.history, expected.now_millis)
        .await?;
    for (item_id, expected_score) in expected.item_ids.iter().zip(&expected.scores) {
        let Some(item_idx) = ready.item_idx(item_id) else {
            return Err(EngineError::SelfTestItem {
                version,
                item_id: item_id.clone(),
            });
        };
        let actual = scores[item_idx as usize];
        let (expected, tolerance) = (*expected_score, expected.tolerance);
        if (actual - expected).abs() > tolerance {
            return Err(EngineError::SelfTest {
                version,
                item_id: item_id.clone(),
                actual,
                expected,
                tolerance,
            });
        }
    }
    Ok(())
}

fn index_of(state: &CodeState) -> HashMap<ItemId, u32> {
    let pairs = state.items.iter().enumerate();
    pairs
        .map(|(idx, item)| (item.item_id.clone(), idx as u32))
        .collect() // fits: NUM_ITEMS_MAX is 2^20
}
