//! The end of a release: through the gate, then to a part of the pages first or to all of them.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::manifest::VersionKind;

use super::Worker;
use crate::learner::ReleaseTraining;
use crate::ledger::{Origin, Provenance};
use crate::trainer::TrainerError;

/// What became of a release that was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everyone has it.
    Live,
    /// A part of the pages tries it first.
    OnTrial,
    /// The gate refused it, or there was none.
    Refused,
}

impl Worker {
    /// Ends the release in training, if there is one. `by`: who promotes it, else who ordered it.
    pub(super) fn publish_release(
        &mut self,
        origin: Origin,
        by: Option<String>,
    ) -> Result<Ended, TrainerError> {
        let Some(release) = self.release.take() else {
            return Ok(Ended::Refused);
        };
        let due = (
            self.last_release,
            self.events_since_release,
            self.is_release_ordered,
        );
        let ordered_by = self.release_by.take();
        self.share_refit();
        self.last_release = Instant::now();
        self.events_since_release = 0;
        self.is_release_ordered = false;
        let tries_canary = origin != Origin::Promoted && self.can_try(&release);
        // What it was to give to the texts cannot be given twice.
        let untouched = (!release.carries_texts()).then(|| release.clone());
        let tried = untouched.as_ref().filter(|_| tries_canary);
        let by = by.or_else(|| ordered_by.clone());
        let ended = self.end_release(release, origin, by, tried);
        if ended.as_ref().is_err_and(TrainerError::may_pass) {
            // It comes out as soon as it can be written, by the weights of then.
            (
                self.last_release,
                self.events_since_release,
                self.is_release_ordered,
            ) = due;
            (self.release, self.release_by) = (untouched, ordered_by);
        }
        ended
    }

    /// Lets the gate judge a release as it is now, and publishes it: to the cohort alone where it is given once more,
    /// `tried`, as it was before it was judged.
    pub(super) fn end_release(
        &mut self,
        mut release: ReleaseTraining,
        origin: Origin,
        by: Option<String>,
        tried: Option<&ReleaseTraining>,
    ) -> Result<Ended, TrainerError> {
        let ended = match pollster::block_on(self.learner.finish_release(&mut release)) {
            Ok((state, ready)) => {
                let gate = release.gate_figures();
                let passed = Provenance { origin, by, gate };
                let share_kept = release.share_kept();
                // One that keeps all weights moves nothing that a part of the pages could find out about.
                if let Some(tried) = tried.filter(|_| share_kept < 1.0) {
                    self.begin_canary(tried.clone(), share_kept, passed, state, ready)?;
                    Ended::OnTrial
                } else {
                    self.go_live(&release, passed, state, ready)?;
                    Ended::Live
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the gate refused a release; the slow weights stay as they are");
                self.note_refusal(VersionKind::Release, &error);
                Ended::Refused
            }
        };
        self.start_text_round();
        Ok(ended)
    }

    fn go_live(
        &mut self,
        release: &ReleaseTraining,
        passed: Provenance,
        state: CodeState,
        ready: ReadyVersion,
    ) -> Result<(), TrainerError> {
        let forgetting = self.forgetting(&ready);
        let generation = self.learner.encoder_generation();
        let written = self
            .save_carried_texts(release)
            .and_then(|()| self.publish(VersionKind::Release, passed, state, ready));
        if let Err(error) = written {
            self.learner.release_was_dropped(release);
            return Err(error);
        }
        self.learner.release_went_live(release);
        if release.is_refit() {
            self.note_refit();
        }
        self.forget_old_texts(generation);
        tracing::info!(
            is_refit = release.is_refit(),
            share_kept = release.share_kept(),
            forgetting,
            "a release is live"
        );
        self.serving.update(|status| {
            status.releases += 1;
            status.last_release_forgetting = forgetting;
            status.last_release_share_kept = Some(release.share_kept());
        });
        Ok(())
    }

    /// What a release costs users not seen lately; a failure to measure it stops nothing.
    fn forgetting(&mut self, release: &ReadyVersion) -> Option<f32> {
        let serving = Arc::clone(&self.serving);
        let preprocessor = serving
            .preprocessor
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        match pollster::block_on(self.learner.forgetting(&preprocessor, release)) {
            Ok(forgetting) => forgetting,
            Err(error) => {
                tracing::warn!(%error, "the forgetting of a release could not be measured");
                None
            }
        }
    }
}
