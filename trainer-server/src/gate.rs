//! Publish gate, the cheap part: what every version passes before a page sees it.
//!
//! Finite scores; paired log loss against the live version on the events just scored, among the items that both
//! know, since more items alone make every loss larger; agreement of the compressed with the f32 model in the top 10; the self-test, run again on an engine built from the
//! codes alone. Not here: wasm run and canary of releases.

use serde::{Deserialize, Serialize};
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::{ReadyVersion, self_test, top_k};
use shared_model::event::HistoryEvent;
use shared_model::ids::Version;
use shared_model::manifest::SelfTest;
use shared_model::model::scorer::{Query, ScoreError, Scorer};
use shared_model::model::sequence::Sequence;

use crate::train::host_log_sum_exp;

/// Items compared for agreement.
const AGREEMENT_K: usize = 10;
/// Items in a self-test.
const SELF_TEST_ITEMS: usize = 10;
/// Largest difference of a self-test score between devices: f32 sums of a few hundred terms of order one
/// differ by about 1e-4 between backends; 0.01 keeps a wide margin and is far below score gaps that matter.
pub const SELF_TEST_TOLERANCE: f32 = 0.01;

/// Why a candidate was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GateError {
    /// A score is NaN or infinite, or the device failed.
    #[error("the candidate does not score: {0}")]
    Score(#[from] ScoreError),
    /// It is worse than the live version on the events just seen.
    #[error(
        "log loss is {candidate} where the live version has {live}, a rise of more than {rise_max}"
    )]
    LogLoss {
        /// Of the candidate.
        candidate: f32,
        /// Of the live version.
        live: f32,
        /// Allowed rise, as a share.
        rise_max: f32,
    },
    /// Compression changed the ranking.
    #[error(
        "compressed and trained model agree in {agreement} of the top 10, at least {agreement_min} is wanted"
    )]
    Agreement {
        /// Share of common items.
        agreement: f32,
        /// Wanted share.
        agreement_min: f32,
    },
    /// The candidate does not reproduce its own self-test.
    #[error("self-test failed: {0}")]
    SelfTest(String),
}

/// What the gate measured of a candidate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GateFigures {
    /// Mean log loss of the candidate, in nats per event, where events could be compared.
    pub log_loss: Option<f32>,
    /// Of the live version on the same events.
    pub live_log_loss: Option<f32>,
    /// Share of common top-10 items of compressed and trained model.
    pub agreement: Option<f32>,
}

impl GateError {
    /// What was measured before the refusal, as far as that is known.
    #[must_use]
    pub fn figures(&self) -> Option<GateFigures> {
        match self {
            Self::LogLoss {
                candidate, live, ..
            } => Some(GateFigures {
                log_loss: Some(*candidate),
                live_log_loss: Some(*live),
                agreement: None,
            }),
            Self::Agreement { agreement, .. } => Some(GateFigures {
                agreement: Some(*agreement),
                ..GateFigures::default()
            }),
            Self::Score(_) | Self::SelfTest(_) => None,
        }
    }
}

/// Events that the live version has scored.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// Histories.
    pub sequences: &'a [Sequence],
    /// Where in them a next item is known.
    pub queries: &'a [Query],
    /// The item that came next at each query.
    pub targets: &'a [u32],
    /// Scores of the live version, `[num_queries, num_items_live]`.
    pub live_scores: &'a [f32],
}

/// Bounds of the gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateBounds {
    /// Rise of log loss, as a share.
    pub log_loss_rise_max: f32,
    /// Share of common top-10 items.
    pub agreement_min: f32,
}

/// Lets a candidate pass, with what was measured, or says why not.
///
/// # Errors
/// The first check that fails.
pub async fn check(
    candidate: &Scorer,
    trained: &Scorer,
    probe: Probe<'_>,
    bounds: GateBounds,
) -> Result<GateFigures, GateError> {
    if probe.queries.is_empty() {
        return Ok(GateFigures::default());
    }
    let scores = candidate.score(probe.sequences, probe.queries).await?;
    let num_items = candidate.num_items();
    let num_live_items = probe.live_scores.len() / probe.queries.len();
    let num_common = num_items.min(num_live_items);
    let loss = |scores, num_items| mean_log_loss(scores, num_items, num_common, probe.targets);
    let candidate_loss = loss(&scores, num_items);
    let live_loss = loss(probe.live_scores, num_live_items);
    let rise_max = bounds.log_loss_rise_max;
    if let (Some(candidate), Some(live)) = (candidate_loss, live_loss)
        && candidate > live * (1.0 + rise_max)
    {
        return Err(GateError::LogLoss {
            candidate,
            live,
            rise_max,
        });
    }
    let trained_scores = trained.score(probe.sequences, probe.queries).await?;
    let agreement = mean_agreement(&scores, &trained_scores, num_items);
    if agreement < bounds.agreement_min {
        return Err(GateError::Agreement {
            agreement,
            agreement_min: bounds.agreement_min,
        });
    }
    Ok(GateFigures {
        log_loss: candidate_loss,
        live_log_loss: live_loss,
        agreement: Some(agreement),
    })
}

/// The self-test of a candidate: its own scores of the best items for one history.
///
/// # Errors
/// The device failed or a score is not finite.
pub async fn make_self_test(
    candidate: &ReadyVersion,
    state: &CodeState,
    history: Vec<HistoryEvent>,
    now_millis: i64,
) -> Result<SelfTest, ScoreError> {
    let scores = candidate.score_all(state, &history, now_millis).await?;
    let best = top_k((0..scores.len() as u32).collect(), &scores, SELF_TEST_ITEMS); // fits: NUM_ITEMS_MAX is 2^20
    Ok(SelfTest {
        item_ids: best
            .iter()
            .map(|idx| state.items[*idx as usize].item_id.clone())
            .collect(),
        scores: best.iter().map(|idx| scores[*idx as usize]).collect(),
        history,
        now_millis,
        tolerance: SELF_TEST_TOLERANCE,
    })
}

/// Runs the self-test on an engine that was built from the codes alone.
///
/// # Errors
/// It computes other scores.
pub async fn run_self_test(
    rebuilt: &ReadyVersion,
    state: &CodeState,
    version: Version,
    test: &SelfTest,
) -> Result<(), GateError> {
    self_test(rebuilt, state, version, test)
        .await
        .map_err(|error| GateError::SelfTest(error.to_string()))
}

/// Mean of `ln Σ exp(scores) − score_target` over the first `num_compared` items of each row of `num_items`; `None`
/// where no target is among them.
pub(crate) fn mean_log_loss(
    scores: &[f32],
    num_items: usize,
    num_compared: usize,
    targets: &[u32],
) -> Option<f32> {
    let mut losses = Vec::new();
    for (row, target) in scores.chunks_exact(num_items).zip(targets) {
        let row = &row[..num_compared];
        let Some(target_score) = row.get(*target as usize) else {
            continue;
        };
        losses.push(host_log_sum_exp(row) - target_score);
    }
    (!losses.is_empty()).then(|| losses.iter().sum::<f32>() / losses.len() as f32)
}

fn mean_agreement(scores: &[f32], trained_scores: &[f32], num_items: usize) -> f32 {
    let k = AGREEMENT_K.min(num_items);
    let mut total = 0.0;
    let mut num_rows = 0.0_f32;
    for (row, trained) in scores
        .chunks_exact(num_items)
        .zip(trained_scores.chunks_exact(num_items))
    {
        let all = || (0..num_items as u32).collect(); // fits: NUM_ITEMS_MAX is 2^20
        let best = top_k(all(), row, k);
        let common = top_k(all(), trained, k)
            .iter()
            .filter(|idx| best.contains(idx))
            .count();
        total += common as f32 / k as f32;
        num_rows += 1.0;
    }
    total / num_rows.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_loss_of_uniform_scores_is_the_log_of_the_catalogue() {
        let loss = mean_log_loss(&[0.0; 8], 4, 4, &[1, 3]).expect("targets are known");
        assert!((loss - 4.0_f32.ln()).abs() < 1e-6);
        assert_eq!(mean_log_loss(&[0.0; 4], 4, 4, &[9]), None);
    }

    #[test]
    fn items_that_only_one_version_knows_are_in_no_loss() {
        let grown = [1.0, 2.0, 9.0, 9.0, 2.0, 1.0, 9.0, 9.0];
        let live = [1.0, 2.0, 2.0, 1.0];
        let targets = [1, 0];
        assert_eq!(
            mean_log_loss(&grown, 4, 2, &targets),
            mean_log_loss(&live, 2, 2, &targets)
        );
        assert_eq!(mean_log_loss(&grown, 4, 2, &[2, 3]), None);
    }

    #[test]
    fn agreement_is_one_for_equal_rankings_and_zero_for_disjoint_ones() {
        let up: Vec<f32> = (0..20).map(|idx| idx as f32).collect();
        let down: Vec<f32> = up.iter().map(|score| -score).collect();
        assert_eq!(mean_agreement(&up, &up, 20), 1.0);
        assert_eq!(mean_agreement(&up, &down, 20), 0.0);
    }
}
