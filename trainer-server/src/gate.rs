//! Publish gate, the cheap part: what every version passes before a page sees it.
//!
//! ```text
//! codes       every row is the live version's or what was trained               `codes`
//! newest      paired log loss on the events just learned                        LogLoss
//! earlier     the same on one event of each user, with the batches before       Earlier
//! trained     all that was trained, sent or not, on those                       Trained
//! lists       no item enters most lists that hardly anybody took                `intruder`
//! agreement   compressed and trained model rank alike                           Agreement
//! ```
//! Scores are finite in all of them. Losses are compared among the items that both versions know, since more items
//! alone make every loss larger. The newest events cannot judge alone: the candidate has just learned them, so a
//! batch that teaches nonsense is what it is best at. Earlier events alone cannot either, since tastes move: every user
//! of this batch and of those before has one vote, so that a fashion is outvoted by nobody and a burst of few by all.
//! What waits for a later version is judged too, because nothing
//! would stop it later: a few rows at a time, no version would be much worse than the one before.
//! The self-test of a manifest is made and run here as well. Not here: wasm run and canary of releases, and what
//! creeps over many versions.

pub mod codes;
pub mod intruder;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use shared_model::codec::state::CodeState;
use shared_model::edge::engine::{ReadyVersion, self_test, top_k};
use shared_model::event::HistoryEvent;
use shared_model::ids::Version;
use shared_model::manifest::SelfTest;
use shared_model::model::scorer::{Query, ScoreError, Scorer};
use shared_model::model::sequence::Sequence;

use crate::train::host_log_sum_exp;
use codes::CodesError;
use intruder::{Entrant, Lists};

/// Items compared for agreement.
const AGREEMENT_K: usize = 10;
/// Items in a self-test.
const SELF_TEST_ITEMS: usize = 10;
/// Votes from which on the bound of their rise holds as it is: the rise of a good version is the mean of so many, and
/// spreads by one over the root of their number.
const VOTES_FULL: usize = 64;
/// Largest difference of a self-test score between devices: f32 sums of a few hundred terms of order one
/// differ by about 1e-4 between backends; 0.01 keeps a wide margin and is far below score gaps that matter.
pub const SELF_TEST_TOLERANCE: f32 = 0.01;

/// Why a candidate was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GateError {
    /// A score is NaN or infinite, or the device failed.
    #[error("the candidate does not score: {0}")]
    Score(#[from] ScoreError),
    /// Its codes are not what was trained.
    #[error(transparent)]
    Codes(#[from] CodesError),
    /// It is worse than the live version on the events just seen.
    #[error("log loss is {} where the live version has {}, a rise of more than {rise_max}", loss.candidate, loss.live)]
    LogLoss {
        /// Of candidate and live version.
        loss: PairedLoss,
        /// Allowed rise, as a share.
        rise_max: f32,
    },
    /// It is worse than the live version for the users of this batch and of those before.
    #[error(
        "log loss with earlier events is {} where the live version has {}, a rise of more than {rise_max}",
        loss.candidate, loss.live
    )]
    Earlier {
        /// Of candidate and live version.
        loss: PairedLoss,
        /// Allowed rise, as a share.
        rise_max: f32,
    },
    /// What is trained, and would go out over the next versions, is worse than the live version.
    #[error(
        "log loss of all that is trained is {} where the live version has {}, a rise of more than {rise_max}",
        loss.candidate, loss.live
    )]
    Trained {
        /// Of the trained weights and the live version.
        loss: PairedLoss,
        /// Allowed rise, as a share.
        rise_max: f32,
    },
    /// An item that nobody asked for is in most lists at once.
    #[error("item {} enters {:.1} % of the lists with one version, and {:.1} % of the events took it", entrant.item_idx, 100.0 * entrant.entered, 100.0 * entrant.asked)]
    Intruder {
        /// The item.
        entrant: Entrant,
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

/// Mean log loss of two versions on the same events.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PairedLoss {
    /// Of the candidate.
    pub candidate: f32,
    /// Of the live version.
    pub live: f32,
}

impl PairedLoss {
    /// What the candidate adds to the loss, as a share of it; below 0 where it is better.
    #[must_use]
    pub fn rise(&self) -> f32 {
        (self.candidate - self.live) / self.live.max(f32::MIN_POSITIVE)
    }

    fn is_above(&self, rise_max: f32) -> bool {
        self.candidate > self.live * (1.0 + rise_max)
    }
}

/// What the gate measured of a candidate; `None` where there were no events to ask about, or where it was refused
/// before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GateFigures {
    /// Mean log loss of the candidate on the events just learned, in nats per event.
    pub log_loss: Option<f32>,
    /// Of the live version on the same events.
    pub live_log_loss: Option<f32>,
    /// On one event of each user, of this batch and of those before.
    pub earlier: Option<PairedLoss>,
    /// Of all that is trained, on those.
    pub trained: Option<PairedLoss>,
    /// Largest share of lists that an item entered which hardly anybody took.
    pub entered: Option<f32>,
    /// Share of common top-10 items of compressed and trained model.
    pub agreement: Option<f32>,
}

impl GateFigures {
    /// On the events just learned.
    #[must_use]
    pub fn newest(&self) -> Option<PairedLoss> {
        let (candidate, live) = self.log_loss.zip(self.live_log_loss)?;
        Some(PairedLoss { candidate, live })
    }

    fn set_newest(&mut self, loss: Option<PairedLoss>) {
        self.log_loss = loss.map(|loss| loss.candidate);
        self.live_log_loss = loss.map(|loss| loss.live);
    }
}

impl GateError {
    /// What was measured before the refusal, as far as that is known.
    #[must_use]
    pub fn figures(&self) -> Option<GateFigures> {
        let mut figures = GateFigures::default();
        match self {
            Self::LogLoss { loss, .. } => figures.set_newest(Some(*loss)),
            Self::Earlier { loss, .. } => figures.earlier = Some(*loss),
            Self::Trained { loss, .. } => figures.trained = Some(*loss),
            Self::Intruder { entrant } => figures.entered = Some(entrant.entered),
            Self::Agreement { agreement, .. } => figures.agreement = Some(*agreement),
            Self::Score(_) | Self::Codes(_) | Self::SelfTest(_) => return None,
        }
        Some(figures)
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
    /// Queries whose lists are compared: one of each user.
    pub votes: &'a [usize],
}

/// The trained weights behind a candidate, as f32.
#[derive(Debug, Clone, Copy)]
pub struct Twins<'a> {
    /// What the candidate was compressed from: without the rows that wait for a later version.
    pub sent: &'a Scorer,
    /// With them.
    pub whole: &'a Scorer,
}

/// Bounds of the gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateBounds {
    /// Rise of log loss on the newest events, as a share.
    pub log_loss_rise_max: f32,
    /// The same on one event of each user, with earlier ones.
    pub earlier_rise_max: f32,
    /// Share of common top-10 items.
    pub agreement_min: f32,
}

/// Lets a candidate pass, with what was measured, or says why not. Its codes have been looked at.
///
/// # Errors
/// The first check that fails.
pub async fn check(
    candidate: &Scorer,
    twins: Twins<'_>,
    newest: Probe<'_>,
    earlier: Probe<'_>,
    bounds: GateBounds,
) -> Result<GateFigures, GateError> {
    let mut figures = GateFigures::default();
    let mut lists = Lists::default();
    let (mut sent_votes, mut whole_votes) = (Votes::default(), Votes::default());
    let num_items = candidate.num_items();
    if !newest.queries.is_empty() {
        let scores = candidate.score(newest.sequences, newest.queries).await?;
        let loss = newest.paired(&scores, num_items);
        figures.set_newest(loss);
        newest.add_to(&mut lists, &scores, num_items);
        let rise_max = bounds.log_loss_rise_max;
        if let Some(loss) = loss.filter(|loss| loss.is_above(rise_max)) {
            return Err(GateError::LogLoss { loss, rise_max });
        }
        let trained = twins.sent.score(newest.sequences, newest.queries).await?;
        let agreement = mean_agreement(&scores, &trained, num_items);
        figures.agreement = Some(agreement);
        let agreement_min = bounds.agreement_min;
        if agreement < agreement_min {
            return Err(GateError::Agreement {
                agreement,
                agreement_min,
            });
        }
        newest.vote(&mut sent_votes, &scores, num_items);
        newest.vote(&mut whole_votes, &trained, num_items);
    }
    if !earlier.queries.is_empty() {
        let scores = candidate.score(earlier.sequences, earlier.queries).await?;
        earlier.add_to(&mut lists, &scores, num_items);
        earlier.vote(&mut sent_votes, &scores, num_items);
        figures.earlier = sent_votes.mean();
        let share = VOTES_FULL as f32 / sent_votes.num_votes.max(1) as f32; // some dozens
        let rise_max = bounds.earlier_rise_max * share.sqrt().max(1.0);
        if let Some(loss) = figures.earlier.filter(|loss| loss.is_above(rise_max)) {
            return Err(GateError::Earlier { loss, rise_max });
        }
        let whole = twins
            .whole
            .score(earlier.sequences, earlier.queries)
            .await?;
        earlier.vote(&mut whole_votes, &whole, num_items);
        figures.trained = whole_votes.mean();
        if let Some(loss) = figures.trained.filter(|loss| loss.is_above(rise_max)) {
            return Err(GateError::Trained { loss, rise_max });
        }
    }
    let entrant = lists.most_forward();
    figures.entered = entrant.map(|entrant| entrant.entered);
    match entrant.filter(Entrant::is_intruder) {
        Some(entrant) => Err(GateError::Intruder { entrant }),
        None => Ok(figures),
    }
}

/// Losses of one event of each user, added up.
#[derive(Debug, Clone, Copy, Default)]
struct Votes {
    candidate: f32,
    live: f32,
    num_votes: usize,
}

impl Votes {
    fn mean(&self) -> Option<PairedLoss> {
        let num_votes = self.num_votes as f32; // some dozens
        (self.num_votes > 0).then(|| PairedLoss {
            candidate: self.candidate / num_votes,
            live: self.live / num_votes,
        })
    }
}

impl Probe<'_> {
    /// Adds the losses of one event of each user.
    fn vote(&self, votes: &mut Votes, scores: &[f32], num_items: usize) {
        let num_live_items = self.num_live_items();
        let num_common = num_items.min(num_live_items);
        for vote in self.votes {
            let row = &scores[vote * num_items..(vote + 1) * num_items];
            let live_row = &self.live_scores[vote * num_live_items..(vote + 1) * num_live_items];
            let target = &self.targets[*vote..=*vote];
            let candidate = mean_log_loss(row, num_items, num_common, target);
            let live = mean_log_loss(live_row, num_live_items, num_common, target);
            if let (Some(candidate), Some(live)) = (candidate, live) {
                votes.candidate += candidate;
                votes.live += live;
                votes.num_votes += 1;
            }
        }
    }

    fn num_live_items(&self) -> usize {
        self.live_scores.len() / self.queries.len()
    }

    /// Losses among the items that both versions know; `None` where no target is among them.
    fn paired(&self, scores: &[f32], num_items: usize) -> Option<PairedLoss> {
        let num_live_items = self.num_live_items();
        let num_common = num_items.min(num_live_items);
        let loss = |scores, num_items| mean_log_loss(scores, num_items, num_common, self.targets);
        Some(PairedLoss {
            candidate: loss(scores, num_items)?,
            live: loss(self.live_scores, num_live_items)?,
        })
    }

    fn add_to(&self, lists: &mut Lists, scores: &[f32], num_items: usize) {
        let num_live_items = self.num_live_items();
        for vote in self.votes {
            let row = &scores[vote * num_items..(vote + 1) * num_items];
            let live_row = &self.live_scores[vote * num_live_items..(vote + 1) * num_live_items];
            lists.add(row, live_row, self.targets[*vote]);
        }
    }
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

/// `ln Σ exp(scores) − score_target` over the first `num_compared` items of each row of `num_items`, of the rows whose
/// target is among them, in order.
pub(crate) fn log_losses(
    scores: &[f32],
    num_items: usize,
    num_compared: usize,
    targets: &[u32],
) -> Vec<f32> {
    let mut losses = Vec::new();
    for (row, target) in scores.chunks_exact(num_items).zip(targets) {
        let row = &row[..num_compared];
        let Some(target_score) = row.get(*target as usize) else {
            continue;
        };
        losses.push(host_log_sum_exp(row) - target_score);
    }
    losses
}

/// Mean of `ln Σ exp(scores) − score_target` over the first `num_compared` items of each row of `num_items`; `None`
/// where no target is among them.
pub(crate) fn mean_log_loss(
    scores: &[f32],
    num_items: usize,
    num_compared: usize,
    targets: &[u32],
) -> Option<f32> {
    let losses = log_losses(scores, num_items, num_compared, targets);
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
