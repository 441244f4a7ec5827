//! Private rounds: when one is due, that it is paid for before it begins, and how it becomes a version.
//!
//! A round is due by the server's clock, and where the number of events is another than at the last one; neither says
//! what anybody did. Its cost is on the disk before its first step. One that a crash or a rollback cut short stays
//! paid, and the next is due no earlier for it. Where the budget would not hold another round none begins, ever, and
//! the server goes on with what it has. Not here: steps (`learner::private`), accounting (`privacy`).

use std::sync::{Arc, PoisonError};

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use shared_model::manifest::VersionKind;

use super::Worker;
use crate::clock::now_millis;
use crate::config::{Config, PrivacyConfig};
use crate::learner::PrivateRound;
use crate::ledger::Provenance;
use crate::privacy::Spend;
use crate::trainer::TrainerError;

/// What private training needs beside the learner.
pub(super) struct Private {
    spend: Spend,
    /// Of noise and of who takes part: seeded by the system and by nothing else, so that nobody can draw the same again.
    rng: StdRng,
    round: Option<PrivateRound>,
    is_exhausted: bool,
}

/// What `/v1/status` says of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::trainer) struct PrivacyStatus {
    /// What all rounds begun so far have told of any one client, at most.
    epsilon: f64,
    /// Chance that this does not hold.
    delta: f64,
    /// The budget.
    epsilon_max: f64,
    /// Whether no further round fits into it.
    is_exhausted: bool,
    /// Rounds begun.
    rounds: u64,
    /// Their steps, paid for whole when a round begins.
    steps: u64,
    /// Of the round under way; 0 of 0 where there is none.
    round_steps: u32,
    round_steps_total: u32,
}

impl Private {
    /// `None` where privacy is off. `has_versions`: whether the folder has published any.
    pub(super) fn open(config: &Config, has_versions: bool) -> Result<Option<Self>, TrainerError> {
        let (data_dir, privacy) = (&config.server.data_dir, &config.privacy);
        let spend = Spend::open(data_dir, privacy, has_versions, now_millis())?;
        Ok(spend.map(|spend| Self {
            is_exhausted: spend.is_exhausted(privacy),
            spend,
            rng: StdRng::from_os_rng(),
            round: None,
        }))
    }

    pub(super) fn status(&self, config: &PrivacyConfig) -> PrivacyStatus {
        let round = self.round.as_ref();
        PrivacyStatus {
            epsilon: self.spend.epsilon(config),
            delta: config.delta,
            epsilon_max: config.epsilon_max,
            is_exhausted: self.is_exhausted,
            rounds: self.spend.num_rounds(),
            steps: self.spend.num_steps(),
            round_steps: round.map_or(0, PrivateRound::num_steps),
            round_steps_total: round.map_or(0, PrivateRound::num_steps_total),
        }
    }

    /// Whether a round is to begin now. `num_first`: events before the first.
    fn is_due(&self, interval_secs: u64, num_events: u64, num_first: u64, now: i64) -> bool {
        if self.is_exhausted {
            return false;
        }
        match self.spend.last_round() {
            None => num_events >= num_first,
            Some((at, num_before)) => {
                let interval_millis = i64::try_from(interval_secs * 1000).unwrap_or(i64::MAX); // checked: at most 2^32 s
                now.saturating_sub(at) >= interval_millis && num_events != num_before
            }
        }
    }
}

impl Worker {
    /// A step of a private round where one is due; whether anything was done.
    pub(super) fn private_slice(&mut self) -> Result<bool, TrainerError> {
        self.begin_private_round()?;
        let Some(private) = &mut self.private else {
            return Ok(false);
        };
        let Some(round) = &mut private.round else {
            return Ok(false);
        };
        if !round.is_complete() {
            let serving = Arc::clone(&self.serving);
            let preprocessor = serving
                .preprocessor
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            self.learner
                .private_step(round, &preprocessor, &mut private.rng);
            drop(preprocessor);
            self.share_privacy();
            return Ok(true);
        }
        self.publish_private_round()?;
        Ok(true)
    }

    /// Pays for a round and begins it, where one is due.
    fn begin_private_round(&mut self) -> Result<(), TrainerError> {
        let (num_events, now) = (self.backlog.num_events(), now_millis());
        let Some(private) = &mut self.private else {
            return Ok(());
        };
        let config = &self.config.privacy;
        let num_first = self.config.train.warm_fit_min_events as u64; // widening
        let is_due = private.is_due(config.interval_secs, num_events, num_first, now);
        if private.round.is_some() || !is_due {
            return Ok(());
        }
        private.spend.begin_round(config, now, num_events)?; // on the disk before any noise is drawn
        private.round = Some(self.learner.start_private_round());
        private.is_exhausted = private.spend.is_exhausted(config);
        let (epsilon, delta) = (private.spend.epsilon(config), config.delta);
        tracing::info!(epsilon, delta, "a private round begins");
        if private.is_exhausted {
            let epsilon_max = config.epsilon_max;
            tracing::warn!(
                epsilon,
                epsilon_max,
                "this is the last private round: another would exceed privacy.epsilon_max"
            );
        }
        self.share_privacy();
        Ok(())
    }

    fn publish_private_round(&mut self) -> Result<(), TrainerError> {
        let private = self.private.as_mut();
        let Some(mut round) = private.and_then(|private| private.round.take()) else {
            return Ok(()); // one is complete
        };
        match self.learner.finish_private_round(&mut round) {
            Ok((state, ready)) => {
                let trained = Provenance::automatic(None); // no event is asked about it
                let published = self.publish(VersionKind::Release, trained, state, ready);
                if let Err(error) = published {
                    if let Some(private) = self.private.as_mut().filter(|_| error.may_pass()) {
                        private.round = Some(round); // it comes out as soon as it can be written
                    }
                    return Err(error);
                }
                self.learner.private_round_went_live(&round);
                self.serving.update(|status| status.releases += 1);
                tracing::info!("a private round is live");
            }
            Err(error) => {
                tracing::warn!(%error, "the codes of a private round are refused; what it cost stays spent");
                self.note_refusal(VersionKind::Release, &error);
            }
        }
        self.share_privacy();
        Ok(())
    }

    /// A round under way is of weights that are gone; it stays paid.
    pub(super) fn drop_private_round(&mut self) {
        if let Some(private) = &mut self.private {
            private.round = None;
        }
        self.share_privacy();
    }

    /// Tells HTTP what was spent.
    pub(super) fn share_privacy(&self) {
        let private = self.private.as_ref();
        let privacy = private.map(|private| private.status(&self.config.privacy));
        self.serving.update(|status| status.privacy = privacy);
    }
}
