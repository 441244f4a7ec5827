//! Canary: when a release that a part of the pages tries goes to all of them, and when it is taken back.
//!
//! Two kinds of evidence. Every event that comes in is asked about by the weights of the release and by those that are
//! live, before either learns it; the mean rise of log loss is bounded by bets that may be looked at after every event
//! (`betting`). And pages of the cohort report versions that they could not take ([`reports`]).
//!
//! ```text
//!                       faults above their bounds, or lower bound above rise_max
//!                      ┌─────────────────────────────────────────────────────────► taken back
//!  begun ──► running ──┤ time is up: the mean decides ─────────────────────────┬─► taken back
//!                      └─────────────────────────────────────────────────────┐ └─► promoted
//!                       upper bound below rise_max ──────────────────────────┴───► promoted
//! ```
//! Pure: no IO, no clock. Not here: how versions reach the cohort (`publish`), who carries the verdict out (`trainer`).

pub mod composition;
pub mod reports;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::betting::MeanDifference;
use crate::config::RolloutConfig;

/// What is known of a canary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// Events that both were asked about.
    pub num_events: u64,
    /// Mean log loss of the release above that of what is live, each difference clipped, in nats per event.
    pub mean_rise: Option<f64>,
    /// It is at least this, but for a chance of `rollout.alpha`.
    pub rise_lower: f64,
    /// It is at most this, but for a chance of `rollout.alpha`.
    pub rise_upper: f64,
    /// Reports about its versions.
    pub num_faults: u64,
    /// Pages of the cohort that watch.
    pub num_pages: u64,
}

impl Evidence {
    /// Reads what the bets say.
    #[must_use]
    pub fn of(rise: &MeanDifference, num_faults: u64, num_pages: u64) -> Self {
        Self {
            num_events: rise.num_observed(),
            mean_rise: rise.mean(),
            rise_lower: rise.lower(),
            rise_upper: rise.upper(),
            num_faults,
            num_pages,
        }
    }
}

/// How a canary ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everyone has it.
    Promoted,
    /// Nobody has it any more.
    TakenBack,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The rise is below `rollout.rise_max`, as good as certain.
    NoRise,
    /// The rise is above `rollout.rise_max`, as good as certain.
    Rise,
    /// Too many pages could not take it.
    Faults,
    /// `rollout.max_secs` have passed; the mean decided.
    TimeIsUp,
    /// An operator decided, or gave another order that it stood in the way of.
    Operator,
    /// The watch over everyone's versions raised an alarm and nothing is published until an operator has looked.
    Watch,
    /// The gate refused what was to be published of it.
    Gate,
}

/// What to do with a canary now; `None` to go on.
#[must_use]
pub fn judge(
    rise: &MeanDifference,
    evidence: &Evidence,
    elapsed_secs: f64,
    config: &RolloutConfig,
) -> Option<(Outcome, Reason)> {
    let rise_max = f64::from(config.rise_max);
    let num_faults = evidence.num_faults;
    let faults_of_pages = f64::from(config.fault_share_max) * evidence.num_pages as f64; // exact below 2^53
    if num_faults > config.faults_max && num_faults as f64 > faults_of_pages {
        return Some((Outcome::TakenBack, Reason::Faults));
    }
    if rise.is_above(rise_max) {
        return Some((Outcome::TakenBack, Reason::Rise));
    }
    if rise.is_below(rise_max) {
        return Some((Outcome::Promoted, Reason::NoRise));
    }
    if elapsed_secs < config.max_secs as f64 {
        return None;
    }
    // Without a single event there is nothing against it: it has passed trial and gate.
    let is_risen = rise.mean().is_some_and(|mean| mean > rise_max);
    let outcome = if is_risen {
        Outcome::TakenBack
    } else {
        Outcome::Promoted
    };
    Some((outcome, Reason::TimeIsUp))
}

/// Bets on the rise of a release, as the configuration says.
#[must_use]
pub fn bets(config: &RolloutConfig) -> MeanDifference {
    let bound = f64::from(config.difference_max);
    MeanDifference::new(
        f64::from(config.alpha),
        bound,
        &[f64::from(config.rise_max)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Sources, load};

    fn config() -> RolloutConfig {
        RolloutConfig {
            rise_max: 0.02,
            faults_max: 2,
            fault_share_max: 0.1,
            max_secs: 60,
            ..load(&Sources::default())
                .expect("the defaults are valid")
                .rollout
        }
    }

    fn verdict(
        differences: &[f64],
        faults: u64,
        pages: u64,
        secs: f64,
    ) -> Option<(Outcome, Reason)> {
        let mut rise = bets(&config());
        for difference in differences {
            rise.observe(*difference);
        }
        judge(&rise, &Evidence::of(&rise, faults, pages), secs, &config())
    }

    #[test]
    fn certain_evidence_decides_before_time_is_up() {
        let (better, worse) = (vec![-0.3; 400], vec![0.5; 400]);
        assert_eq!(
            verdict(&better, 0, 9, 1.0),
            Some((Outcome::Promoted, Reason::NoRise))
        );
        assert_eq!(
            verdict(&worse, 0, 9, 1.0),
            Some((Outcome::TakenBack, Reason::Rise))
        );
        assert_eq!(verdict(&[0.0; 3], 0, 9, 59.9), None);
    }

    #[test]
    fn when_time_is_up_the_mean_decides_and_nothing_speaks_against_no_event() {
        let end = 60.0;
        assert_eq!(
            verdict(&[0.01; 3], 0, 9, end),
            Some((Outcome::Promoted, Reason::TimeIsUp))
        );
        assert_eq!(
            verdict(&[0.03; 3], 0, 9, end),
            Some((Outcome::TakenBack, Reason::TimeIsUp))
        );
        assert_eq!(
            verdict(&[], 0, 9, end),
            Some((Outcome::Promoted, Reason::TimeIsUp))
        );
    }

    #[test]
    fn faults_take_it_back_above_both_their_number_and_their_share() {
        let back = Some((Outcome::TakenBack, Reason::Faults));
        assert_eq!(verdict(&[], 2, 3, 0.0), None, "no more than faults_max");
        assert_eq!(verdict(&[], 3, 3, 0.0), back);
        assert_eq!(
            verdict(&[], 3, 30, 0.0),
            None,
            "a tenth of the pages is no more than it"
        );
        assert_eq!(verdict(&[], 4, 30, 0.0), back);
        let better = vec![-0.3; 400];
        assert_eq!(verdict(&better, 4, 30, 0.0), back, "faults come first");
    }
}
