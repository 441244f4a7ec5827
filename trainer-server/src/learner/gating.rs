//! Gating: what the events so far say about a candidate, and how to take learning back.
//!
//! Input: a candidate and what `learn` remembered. Not here: the bounds and their checks (`gate`).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::manifest::VersionKind;
use shared_model::model::parameters::ParameterSet;
use shared_model::model::scorer::{FastWeights, Query, ScoreError, Scorer};
use shared_model::model::sequence::Sequence;

use super::asked::Asked;
use super::{Learner, LiveModel};
use crate::gate::codes::{self, CodesError, Origin};
use crate::gate::{self, GateBounds, GateError, GateFigures, PairedLoss, Probe, Twins};
use crate::train::fast_step::FastOptimizer;

/// Newest events that the gate looks at.
const PROBE_EVENTS_MAX: usize = 64;
/// Events of the batches before.
const EARLIER_EVENTS_MAX: usize = 64;
/// Of these, at most so many of one batch: events of one moment are alike, and a batch that is an attack must not
/// be all that the next one is judged by.
const EARLIER_PER_BATCH_MAX: usize = 16;

/// An event with what the model knew before it.
type PastEvent = (Sequence, Query, u32);

/// Events and what the live version says of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Questions {
    sequences: Vec<Sequence>,
    queries: Vec<Query>,
    targets: Vec<u32>,
    /// `[num_queries, num_items_live]`.
    live_scores: Vec<f32>,
    /// Queries of which there is one for each user.
    votes: Vec<usize>,
}

impl Questions {
    async fn of<'a>(
        events: impl Iterator<Item = &'a PastEvent>,
        live: &Scorer,
    ) -> Result<Self, ScoreError> {
        let mut questions = Self::default();
        for (sequence_idx, (sequence, query, target)) in events.enumerate() {
            questions.sequences.push(sequence.clone());
            questions.queries.push(Query {
                sequence_idx,
                ..*query
            });
            questions.targets.push(*target);
        }
        questions.votes = (0..questions.queries.len()).collect();
        questions.live_scores = live.score(&questions.sequences, &questions.queries).await?;
        Ok(questions)
    }

    fn probe(&self) -> Probe<'_> {
        Probe {
            sequences: &self.sequences,
            queries: &self.queries,
            targets: &self.targets,
            live_scores: &self.live_scores,
            votes: &self.votes,
        }
    }
}

/// Events that were learned before the newest batch, one of each user and batch, oldest first; those of the newest
/// batch wait beside them for the next.
#[derive(Debug, Clone, Default)]
pub(super) struct EarlierEvents {
    known: VecDeque<PastEvent>,
    newest: Vec<PastEvent>,
}

impl EarlierEvents {
    fn turn_over(&mut self, newest: Vec<PastEvent>) {
        self.known
            .extend(std::mem::replace(&mut self.newest, newest));
        let num_old = self.known.len().saturating_sub(EARLIER_EVENTS_MAX);
        self.known.drain(..num_old);
    }
}

/// The last event of each user of a batch, of at most so many users as are wanted, spread evenly over it; as
/// positions in its queries, ascending.
pub(super) fn one_per_user(asked: &Asked) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let newest_first = asked.queries.iter().enumerate().rev();
    let mut lasts: Vec<usize> = newest_first
        .filter(|(_, query)| seen.insert(asked.users[query.sequence_idx]))
        .map(|(query_idx, _)| query_idx)
        .collect();
    lasts.reverse();
    let stride = lasts.len().div_ceil(EARLIER_PER_BATCH_MAX).max(1);
    lasts.into_iter().step_by(stride).collect()
}

/// What a candidate is compressed from.
pub(super) struct Source<'a> {
    pub(super) kind: VersionKind,
    pub(super) parameters: &'a ParameterSet,
    pub(super) encoder_generation: u32,
}

impl Learner {
    /// Keeps what the gate will want to know of a batch.
    pub(super) fn remember(&mut self, asked: Asked, live_scores: &[f32], num_items: usize) {
        let picked = one_per_user(&asked);
        let past = picked.iter().map(|query_idx| {
            let query = asked.queries[*query_idx];
            let sequence = asked.sequences[query.sequence_idx].clone();
            (sequence, query, asked.targets[*query_idx])
        });
        self.earlier.turn_over(past.collect());
        let first = asked.queries.len().saturating_sub(PROBE_EVENTS_MAX);
        let votes = picked
            .iter()
            .filter_map(|query_idx| query_idx.checked_sub(first));
        self.last.questions = Questions {
            votes: votes.collect(),
            live_scores: live_scores[first * num_items..].to_vec(),
            queries: asked.queries[first..].to_vec(),
            targets: asked.targets[first..].to_vec(),
            sequences: asked.sequences,
        };
    }

    /// The gate over events of many batches, for a release: it changes every score a little, so that one event says
    /// nothing about it. Both versions score anew. The live version has learned these events, so its log loss on them
    /// flatters it; where newer ones have tried the release, `tried` is what they have said, with the rise that is allowed.
    ///
    /// # Errors
    /// The candidate must not be published.
    pub(super) async fn check_release(
        &self,
        (state, candidate): (&CodeState, &ReadyVersion),
        trained: &Scorer,
        source: &Source<'_>,
        tried: Option<(PairedLoss, f32)>,
    ) -> Result<GateFigures, GateError> {
        let Some(live) = &self.live else {
            return Err(GateError::SelfTest("nothing is live yet".to_owned()));
        };
        self.check_codes(state, live, source)?;
        self.check_whole(candidate, trained, live, tried).await
    }

    /// The gate over events of many batches, for codes that an operator gave: they are what was trained.
    ///
    /// # Errors
    /// They must not be published.
    pub async fn check_given(&self, given: &ReadyVersion) -> Result<GateFigures, GateError> {
        let Some(live) = &self.live else {
            return Err(GateError::SelfTest("nothing is live yet".to_owned()));
        };
        self.check_whole(given, &given.scorer, live, None).await
    }

    async fn check_whole(
        &self,
        candidate: &ReadyVersion,
        trained: &Scorer,
        live: &LiveModel,
        tried: Option<(PairedLoss, f32)>,
    ) -> Result<GateFigures, GateError> {
        let mut bounds = self.bounds();
        if let Some((loss, rise_max)) = tried {
            if loss.rise() > rise_max {
                return Err(GateError::LogLoss { loss, rise_max });
            }
            bounds.log_loss_rise_max = f32::INFINITY;
        }
        bounds.earlier_rise_max = f32::INFINITY; // all of its events are earlier ones
        let events = self.earlier.known.iter().chain(&self.earlier.newest);
        let questions = Questions::of(events, &live.ready.scorer).await?;
        let twins = Twins {
            sent: trained,
            whole: trained,
        };
        let nothing = Questions::default();
        let probes = (questions.probe(), nothing.probe());
        gate::check(&candidate.scorer, twins, probes.0, probes.1, bounds).await
    }

    /// The gate over the events of the last batch and those before, for the state that `candidate` gave last.
    ///
    /// # Errors
    /// The candidate must not be published.
    pub async fn check(
        &self,
        state: &CodeState,
        candidate: &ReadyVersion,
    ) -> Result<GateFigures, GateError> {
        let Some(live) = &self.live else {
            return Ok(GateFigures::default()); // there is nothing to compare the first version with
        };
        let source = Source {
            kind: VersionKind::Fast,
            parameters: &self.parameters,
            encoder_generation: self.encoder_generation(),
        };
        self.check_codes(state, live, &source)?;
        let sent = self.trained_twin(state, &candidate.scorer, &self.parameters);
        let whole = candidate
            .scorer
            .with_fast_weights(fast_weights(&self.parameters));
        let twins = Twins {
            sent: &sent,
            whole: &whole,
        };
        let earlier = Questions::of(self.earlier.known.iter(), &live.ready.scorer).await?;
        let (newest, earlier) = (self.last.questions.probe(), earlier.probe());
        gate::check(&candidate.scorer, twins, newest, earlier, self.bounds()).await
    }

    pub(super) fn check_codes(
        &self,
        state: &CodeState,
        live: &LiveModel,
        source: &Source<'_>,
    ) -> Result<(), CodesError> {
        let origin = Origin {
            live: &live.state,
            kind: source.kind,
            parameters: source.parameters,
            counts: &self.counts,
            items: &self.items,
            encoder_generation: source.encoder_generation,
            dead_zone: self.config.publish.dead_zone,
        };
        codes::check(state, &origin)
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
        candidate.with_fast_weights(FastWeights {
            id_rows: &id_rows,
            bias: &bias,
            ..fast_weights(parameters)
        })
    }

    fn bounds(&self) -> GateBounds {
        GateBounds {
            log_loss_rise_max: self.config.gate.log_loss_rise_max,
            earlier_rise_max: self.config.gate.earlier_rise_max,
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

    /// Takes back everything that is trained and not published, after the gate refused even what there was before the
    /// last batch: the weights are those of the live version again. Counts and histories stay.
    pub fn return_to_live(&mut self) {
        let Some(state) = self.live.as_ref().map(|live| Arc::clone(&live.state)) else {
            return;
        };
        self.last.undo = None;
        let shapes = self.parameters.shapes();
        for (shape, values) in shapes.iter().zip(&mut self.parameters.tensors) {
            if shape.is_trained() {
                values.fill(0.0); // rows of items that are not live yet
            }
        }
        self.take_weights(&state, None);
        self.optimizer = FastOptimizer::default();
    }
}

fn fast_weights(parameters: &ParameterSet) -> FastWeights<'_> {
    FastWeights {
        id_rows: parameters.tensor("item.id_rows"),
        bias: parameters.tensor("item.bias"),
        prior: parameters.tensor("prior.weights"),
        neighbour_weight: parameters.neighbour_weight(),
        taste_weight: parameters.taste_weight(),
    }
}
