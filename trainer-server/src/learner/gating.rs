//! Gating: what the last batch says about a candidate, and how to take the batch back.
//!
//! Input: a candidate and what `learn` remembered. Not here: the bounds and their checks (`gate`).

use std::collections::VecDeque;

use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::model::parameters::ParameterSet;
use shared_model::model::scorer::{FastWeights, Query, Scorer};
use shared_model::model::sequence::Sequence;

use super::asked::Asked;
use super::{LastBatch, Learner};
use crate::gate::{self, GateBounds, GateError, GateFigures, Probe};

/// Events that the gate looks at.
const PROBE_EVENTS_MAX: usize = 64;

/// The newest events over all batches, each with what the model knew before it.
pub(super) type RecentEvents = VecDeque<(Sequence, Query, u32)>;

impl Learner {
    /// Keeps what the gate will want to know of a batch.
    pub(super) fn remember(&mut self, asked: Asked, live_scores: &[f32], num_items: usize) {
        let first = asked.queries.len().saturating_sub(PROBE_EVENTS_MAX);
        for (query, target) in asked.queries[first..].iter().zip(&asked.targets[first..]) {
            let sequence = asked.sequences[query.sequence_idx].clone();
            self.recent.push_back((sequence, *query, *target));
        }
        let num_old = self.recent.len().saturating_sub(PROBE_EVENTS_MAX);
        self.recent.drain(..num_old);
        self.last.live_scores = live_scores[first * num_items..].to_vec();
        self.last.queries = asked.queries[first..].to_vec();
        self.last.targets = asked.targets[first..].to_vec();
        self.last.sequences = asked.sequences;
    }

    /// The gate over the newest events of all batches, for a release: it changes every score a little, so
    /// that one event says nothing about it. Both versions score anew. The live version has learned these events,
    /// so its log loss on them flatters it; where newer ones have tried the release, they have said what there is to say.
    ///
    /// # Errors
    /// The candidate must not be published.
    pub(super) async fn check_release(
        &self,
        candidate: &ReadyVersion,
        trained: &Scorer,
        live: &Scorer,
        is_tried: bool,
    ) -> Result<GateFigures, GateError> {
        let mut last = LastBatch::default();
        for (sequence_idx, (sequence, query, target)) in self.recent.iter().enumerate() {
            last.sequences.push(sequence.clone());
            last.queries.push(Query {
                sequence_idx,
                ..*query
            });
            last.targets.push(*target);
        }
        last.live_scores = live.score(&last.sequences, &last.queries).await?;
        let mut bounds = self.bounds();
        if is_tried {
            bounds.log_loss_rise_max = f32::INFINITY;
        }
        check_against(candidate, trained, &last, bounds).await
    }

    /// The gate over the events of the last batch, for the state that `candidate` gave last.
    ///
    /// # Errors
    /// The candidate must not be published.
    pub async fn check(
        &self,
        state: &CodeState,
        candidate: &ReadyVersion,
    ) -> Result<GateFigures, GateError> {
        let trained = self.trained_twin(state, &candidate.scorer, &self.parameters);
        check_against(candidate, &trained, &self.last, self.bounds()).await
    }

    /// The gate over the newest events of all batches, for codes that an operator gave: they are what was trained.
    ///
    /// # Errors
    /// They must not be published.
    pub async fn check_given(&self, given: &ReadyVersion) -> Result<GateFigures, GateError> {
        let Some(live) = &self.live else {
            return Err(GateError::SelfTest("nothing is live yet".to_owned()));
        };
        let live = &live.ready.scorer;
        self.check_release(given, &given.scorer, live, false).await
    }

    /// The candidate with f32 weights in place of codes, but without the rows that wait for a later version:
    /// what the gate wants to know is what rounding did, not what the byte budget held back.
    pub(super) fn trained_twin(
        &self,
        state: &CodeState,
        candidate: &Scorer,
        parameters: &ParameterSet,
    ) -> Scorer {
        let dim = parameters.spec.embedding_dim as usize;
        let mut id_rows = parameters.tensor("item.id_rows").to_vec();
        let mut bias = parameters.tensor("item.bias").to_vec();
        let published = |name: &str, row_idx: usize| {
            state
                .tensor(name)
                .map(|tensor| tensor.dequantize_row(row_idx))
        };
        for item_idx in &self.dirty_after.learned {
            let row_idx = *item_idx as usize;
            if let (Some(row), Some(bias_row)) = (
                published("item.id_rows", row_idx),
                published("item.bias", row_idx),
            ) {
                id_rows[row_idx * dim..(row_idx + 1) * dim].copy_from_slice(&row);
                bias[row_idx] = bias_row[0];
            }
        }
        let prior = parameters.tensor("prior.weights");
        candidate.with_fast_weights(FastWeights {
            id_rows: &id_rows,
            bias: &bias,
            prior,
            neighbour_weight: parameters.neighbour_weight(),
            taste_weight: parameters.taste_weight(),
        })
    }

    fn bounds(&self) -> GateBounds {
        GateBounds {
            log_loss_rise_max: self.config.gate.log_loss_rise_max,
            agreement_min: self.config.gate.agreement_min,
        }
    }

    /// Takes back what the last batch taught, after the gate refused it.
    pub fn undo_last(&mut self) {
        let Some(undo) = self.last.undo.take() else {
            return;
        };
        for (name, values) in undo.weights {
            *self.parameters.tensor_mut(&name) = values;
        }
        self.optimizer = undo.optimizer;
    }
}

async fn check_against(
    candidate: &ReadyVersion,
    trained: &Scorer,
    last: &LastBatch,
    bounds: GateBounds,
) -> Result<GateFigures, GateError> {
    let probe = Probe {
        sequences: &last.sequences,
        queries: &last.queries,
        targets: &last.targets,
        live_scores: &last.live_scores,
    };
    gate::check(&candidate.scorer, trained, probe, bounds).await
}
