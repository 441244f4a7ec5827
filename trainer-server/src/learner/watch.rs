//! Watch: whether the versions of late are worse than one that went out before them, the anchor.
//!
//! One version changes little and one batch says little, so what creeps passes every gate. Live version and anchor are
//! therefore asked about the same events, each before anyone learns it, and what they say adds up:
//!
//! ```text
//! d_t = loss_live(e_t) − loss_anchor(e_t)       one event e_t of each user and batch, clipped to ± 1 nat
//! worse, once bets against "E[d_t | past] ≤ margin" have won 1/α                              (`betting`)
//! ```
//! The live version has learned what happened since the anchor went out. As tastes drift it is the better one, so
//! drift is no alarm: worse than an old version is only who has learned something wrong. One vote for each user and
//! batch, and no vote counts for more than a nat, so that who sends many events has no more to say than others.
//! Not here: which version is the anchor and what is done when the live one is worse (`trainer::worker::watch`).

use serde::Serialize;
use shared_model::model::scorer::{Query, ScoreError, Scorer};

use super::Learner;
use super::asked::Asked;
use super::gating::one_per_user;
use crate::betting::MeanDifference;
use crate::gate::mean_log_loss;

/// Largest difference of two losses that counts, in nats.
const NATS_MAX: f64 = 1.0;

/// The anchor, and what was said so far.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    anchor: Scorer,
    margin: f64,
    bets: MeanDifference,
}

/// What the watch has to say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WatchFigures {
    /// Events that both versions were asked about.
    pub num_events: u64,
    /// Mean of what the live version adds to the loss of the anchor, in nats, clipped; below 0 where it is better.
    pub mean: f64,
    /// What that is at least, wrong at any time with probability α.
    pub lower: f64,
    /// Whether it is more than the margin.
    pub is_worse: bool,
}

impl Watch {
    fn new(anchor: Scorer, alpha: f64, margin: f64) -> Self {
        Self {
            anchor,
            margin,
            bets: MeanDifference::new(alpha, NATS_MAX, &[margin]),
        }
    }

    fn figures(&self) -> WatchFigures {
        WatchFigures {
            num_events: self.bets.num_observed(),
            mean: self.bets.mean().unwrap_or(0.0),
            lower: self.bets.lower(),
            is_worse: self.bets.is_above(self.margin),
        }
    }

    /// Asks the anchor what the live version has been asked, whose scores are `[num_queries, num_items]`.
    async fn ask(
        &mut self,
        asked: &Asked,
        live_scores: &[f32],
        num_items: usize,
    ) -> Result<(), ScoreError> {
        let num_anchor_items = self.anchor.num_items();
        let mut picked = one_per_user(asked);
        picked.retain(|query_idx| {
            // The anchor cannot read a history with items that came after it.
            let sequence = &asked.sequences[asked.queries[*query_idx].sequence_idx];
            let mut tokens = sequence.tokens.iter();
            tokens.all(|token| (token.item_idx as usize) < num_anchor_items)
        });
        if picked.is_empty() {
            return Ok(());
        }
        let mut sequences = Vec::with_capacity(picked.len());
        let mut queries = Vec::with_capacity(picked.len());
        for (sequence_idx, query_idx) in picked.iter().enumerate() {
            let query = asked.queries[*query_idx];
            sequences.push(asked.sequences[query.sequence_idx].clone());
            queries.push(Query {
                sequence_idx,
                ..query
            });
        }
        let scores = self.anchor.score(&sequences, &queries).await?;
        let num_common = num_items.min(num_anchor_items);
        for (row, query_idx) in scores.chunks_exact(num_anchor_items).zip(picked) {
            let live_row = &live_scores[query_idx * num_items..(query_idx + 1) * num_items];
            let target = &asked.targets[query_idx..=query_idx];
            let live = mean_log_loss(live_row, num_items, num_common, target);
            let anchor = mean_log_loss(row, num_anchor_items, num_common, target);
            if let (Some(live), Some(anchor)) = (live, anchor) {
                self.bets.observe(f64::from(live - anchor));
            }
        }
        Ok(())
    }
}

impl Learner {
    /// Makes the live version the anchor; what was said so far is forgotten.
    pub fn watch_from_here(&mut self) {
        let gate = &self.config.gate;
        let live = self.live.as_ref();
        let is_on = gate.on_worse.is_watching() && !self.is_private(); // it acts by what events say
        self.watch = live.filter(|_| is_on).map(|live| {
            let anchor = live.ready.scorer.clone();
            Watch::new(anchor, gate.watch_alpha, gate.watch_margin)
        });
    }

    /// What the watch has to say; `None` where nothing is watched.
    #[must_use]
    pub fn watched(&self) -> Option<WatchFigures> {
        self.watch.as_ref().map(Watch::figures)
    }

    /// Asks the anchor about a batch that nobody has learned.
    pub(super) async fn watch(&mut self, asked: &Asked, live_scores: &[f32], num_items: usize) {
        let Some(watch) = &mut self.watch else { return };
        if let Err(error) = watch.ask(asked, live_scores, num_items).await {
            tracing::warn!(%error, "the anchor of the watch could not be asked");
        }
    }
}
