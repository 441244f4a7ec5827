//! Trial of a release: what it would have said of the next events, before it or the live version learned them.
//!
//! A release has no events of its own to be judged by: those before it were learned by what is live, row by row,
//! and those it replayed were learned by itself. So it is asked beside the weights as they are about the events
//! that come next (prequential, after Dawid 1984), each scored before anyone learns it. Its candidates differ by
//! the share `β` of the weights before it that they keep, `θ = (1 − β)·θ_release + β·θ_now`, and the smallest
//! mean log loss chooses; `β = 1` leaves the weights as they are.
//! All candidates are compared as f32, so that rounding favours none; what rounding does is the gate's question.

use shared_model::edge::engine::ReadyVersion;
use shared_model::model::parameters::ParameterSet;
use shared_model::model::scorer::{FastWeights, ScoreError, Scorer};

use super::Learner;
use super::asked::Asked;
use super::release::ReleaseTraining;
use crate::betting::MeanDifference;
use crate::gate::{PairedLoss, log_losses, mean_log_loss};

/// Events below which a trial that ran out of time says nothing: the gate's old comparison stands then.
const EVENTS_MIN: u64 = 64;

/// Events from which on the bound of the rise over the live versions holds as it is.
const EVENTS_FULL: f64 = 512.0;

/// What the events so far say.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    candidates: Vec<Candidate>,
    /// Sum of log losses of the live versions that met these events.
    live_loss: f64,
    num_events: u64,
    num_events_wanted: u64,
}

#[derive(Debug, Clone)]
struct Candidate {
    /// Share of the weights before the release that it keeps.
    blend: f32,
    /// Sum of log losses.
    loss: f64,
}

impl Trial {
    /// Candidates that keep these shares; the weights as they are, are always one.
    pub(super) fn new(blends: &[f32], num_events_wanted: u64) -> Self {
        let mut candidates = vec![1.0];
        for blend in blends {
            if !candidates.contains(blend) {
                candidates.push(*blend);
            }
        }
        let candidate = |blend| Candidate { blend, loss: 0.0 };
        Self {
            candidates: candidates.into_iter().map(candidate).collect(),
            live_loss: 0.0,
            num_events: 0,
            num_events_wanted,
        }
    }

    /// Whether it has been asked about enough.
    pub(super) fn is_complete(&self) -> bool {
        self.num_events >= self.num_events_wanted
    }

    /// Events asked about so far.
    pub(super) fn num_events(&self) -> u64 {
        self.num_events
    }

    /// Share of the weights before that the best candidate keeps; of equals the one that keeps most. `None` where too
    /// few events were asked about.
    pub(super) fn chosen(&self) -> Option<f32> {
        let keeps_most = |a: &&Candidate, b: &&Candidate| b.blend.total_cmp(&a.blend);
        let best = self
            .candidates
            .iter()
            .min_by(|a, b| a.loss.total_cmp(&b.loss).then(keeps_most(a, b)));
        let is_enough = self.num_events >= EVENTS_MIN.min(self.num_events_wanted);
        best.filter(|_| is_enough && self.num_events > 0)
            .map(|best| best.blend)
    }

    /// Mean log loss of the candidate that keeps this share, and of the live versions; `None` where no event was asked
    /// about.
    pub(super) fn paired(&self, blend: f32) -> Option<PairedLoss> {
        let candidate = self.candidates.iter().find(|known| known.blend == blend)?;
        let num_events = self.num_events as f64; // exact below 2^53
        (self.num_events > 0).then(|| PairedLoss {
            candidate: (candidate.loss / num_events) as f32, // a loss of some nats
            live: (self.live_loss / num_events) as f32,      // likewise
        })
    }

    /// How much wider a mean over its events spreads than one over as many as [`EVENTS_FULL`]; at least 1.
    pub(super) fn spread(&self) -> f32 {
        let share = EVENTS_FULL / self.num_events.max(1) as f64; // exact below 2^53
        share.sqrt().max(1.0) as f32 // at most some dozen
    }

    /// Mean log loss of every candidate, by the share that it keeps, for the log.
    pub(super) fn losses(&self) -> Vec<(f32, f64)> {
        let num_events = self.num_events.max(1) as f64; // exact below 2^53
        let candidates = self.candidates.iter();
        candidates
            .map(|candidate| (candidate.blend, candidate.loss / num_events))
            .collect()
    }
}

impl Learner {
    /// A trial of candidates that keep these shares, where the configuration wants one.
    pub(super) fn trial(&self, blends: &[f32]) -> Option<Trial> {
        let num_events = self.config.release.trial_events;
        (num_events > 0).then(|| Trial::new(blends, num_events))
    }

    /// A candidate with all weights as they were trained, not as they are published: what compression is measured
    /// against.
    #[must_use]
    pub fn uncompressed(&self, mut ready: ReadyVersion) -> ReadyVersion {
        ready.scorer = with_weights(&ready.scorer, &self.parameters);
        ready
    }

    /// Asks the candidates of a release, whose steps are all taken, about a batch that nobody has learned and of which
    /// the live version says `live_scores`.
    ///
    /// # Errors
    /// The device failed; nothing of the batch is counted then.
    pub(super) async fn try_release(
        &self,
        training: &mut ReleaseTraining,
        asked: &Asked,
        live_scores: &[f32],
    ) -> Result<(), ScoreError> {
        let Some(live) = &self.live else {
            return Ok(());
        };
        let (scorer, num_items) = (&live.ready.scorer, live.ready.scorer.num_items());
        if self.parameters.num_items != num_items {
            return Ok(()); // items that are not live yet: the next batch will do
        }
        training.take_average();
        if let Some(mut rise) = training.rise.take() {
            let observed = self.observe_rise(training, asked, &mut rise).await;
            training.rise = Some(rise);
            return observed; // its trial is over
        }
        let Some(mut trial) = training.trial.take() else {
            return Ok(());
        };
        let num_events = asked.targets.len();
        let mean_loss = |scores: &[f32]| {
            mean_log_loss(scores, num_items, num_items, &asked.targets).map_or(0.0, f64::from)
        };
        let mut losses = Vec::with_capacity(trial.candidates.len());
        for candidate in &trial.candidates {
            let parameters = self.released(training, candidate.blend);
            let scorer = with_weights(scorer, &parameters);
            let loss = match scorer.score(&asked.sequences, &asked.queries).await {
                Ok(scores) => mean_loss(&scores),
                Err(ScoreError::NotFinite { .. }) => f64::INFINITY, // never chosen
                Err(error) => {
                    training.trial = Some(trial);
                    return Err(error);
                }
            };
            losses.push(loss * num_events as f64); // a batch is small
        }
        for (candidate, loss) in trial.candidates.iter_mut().zip(losses) {
            candidate.loss += loss;
        }
        trial.live_loss += mean_loss(live_scores) * num_events as f64; // likewise
        trial.num_events += num_events as u64; // usize fits u64
        training.trial = Some(trial);
        Ok(())
    }
}

impl Learner {
    /// Bets on what the release adds to the log loss of each event, beside the weights as they are, both as f32.
    async fn observe_rise(
        &self,
        training: &ReleaseTraining,
        asked: &Asked,
        rise: &mut MeanDifference,
    ) -> Result<(), ScoreError> {
        let Some(live) = &self.live else {
            return Ok(());
        };
        let scorer = &live.ready.scorer;
        let num_items = scorer.num_items();
        let mut losses = Vec::with_capacity(2);
        for blend in [training.share_kept(), 1.0] {
            let scorer = with_weights(scorer, &self.released(training, blend));
            losses.push(match scorer.score(&asked.sequences, &asked.queries).await {
                Ok(scores) => log_losses(&scores, num_items, num_items, &asked.targets),
                // Whatever it was asked, it has no answer; the bets take that for the largest loss.
                Err(ScoreError::NotFinite { .. }) => vec![f32::NAN; asked.targets.len()],
                Err(error) => return Err(error),
            });
        }
        for (released, now) in losses[0].iter().zip(&losses[1]) {
            rise.observe(f64::from(*released) - f64::from(*now));
        }
        Ok(())
    }
}

/// The live version with other weights, as f32.
fn with_weights(live: &Scorer, parameters: &ParameterSet) -> Scorer {
    let fast = FastWeights {
        id_rows: parameters.tensor("item.id_rows"),
        bias: parameters.tensor("item.bias"),
        prior: parameters.tensor("prior.weights"),
        neighbour_weight: parameters.neighbour_weight(),
        taste_weight: parameters.taste_weight(),
    };
    live.with_slow_weights(parameters).with_fast_weights(fast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_loss_chooses_and_of_equals_the_one_that_keeps_most() {
        let mut trial = Trial::new(&[0.3, 0.0, 0.3], 10);
        assert_eq!(trial.candidates.len(), 3, "1, 0.3 and 0");
        assert_eq!(trial.chosen(), None);
        trial.num_events = 9;
        assert!(!trial.is_complete());
        assert_eq!(trial.chosen(), None, "9 of 10 events are too few");
        trial.num_events = 10;
        assert_eq!(trial.chosen(), Some(1.0));
        trial.candidates[0].loss = 2.0;
        assert_eq!(trial.chosen(), Some(0.3));
        trial.candidates[1].loss = f64::INFINITY;
        assert_eq!(trial.chosen(), Some(0.0));
        assert!(trial.is_complete());
        assert_eq!(trial.losses()[0], (1.0, 0.2));
        assert!((trial.spread() - 51.2_f32.sqrt()).abs() < 1e-5);
        trial.live_loss = 4.0;
        let paired = trial.paired(1.0).expect("asked about");
        assert_eq!(
            (paired.candidate, paired.live, paired.rise()),
            (0.2, 0.4, -0.5)
        );
    }
}
