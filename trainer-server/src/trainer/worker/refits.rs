//! Refits that make up for what was passed over: their start, their end, and what is said of them.

use super::Worker;
use super::backlog::Backlog;
use super::skipped;
use crate::preprocess::Preprocessor;
use crate::trainer::TrainerError;

impl Worker {
    /// The backlog as it is kept, before the log is read.
    pub(super) fn open_backlog(&self) -> Result<Backlog, TrainerError> {
        let data_dir = &self.config.server.data_dir;
        Backlog::open(data_dir, &self.rollout).map_err(|source| {
            let path = data_dir.clone();
            TrainerError::Skipped { source, path }
        })
    }

    /// Starts a release: a refit where enough was passed over, or where an operator orders one that was tried in vain.
    pub(super) fn start_release(&mut self, preprocessor: &Preprocessor) {
        let share = self.config.release.refit_skipped_share;
        let is_ordered = self.is_release_ordered && self.backlog.is_large(share);
        let release = if is_ordered || self.backlog.is_due(share) {
            let extent = self.backlog.extent();
            self.learner.start_refit(preprocessor, extent)
        } else {
            self.learner.start_release(preprocessor)
        };
        if release.is_refit() {
            self.backlog.begin_refit(self.position);
            let (num_waiting, num_steps) = (self.backlog.num_waiting(), release.num_steps_total());
            tracing::info!(num_waiting, num_steps, "a refit starts");
        }
        self.release = Some(release);
    }

    /// A refit is live. Where that cannot be kept, the next start does it again.
    pub(super) fn note_refit(&mut self) {
        let line = self
            .backlog
            .end_refit(self.published_version().unwrap_or_default());
        if let Err(error) = skipped::note(&self.config.server.data_dir, line) {
            tracing::warn!(%error, "a refit is live and could not be noted");
        }
        self.share_backlog();
    }

    /// What becomes of the events that wait, in words.
    pub(super) fn outlook(&self) -> String {
        let share = self.config.release.refit_skipped_share;
        let num_waiting = self.backlog.num_waiting();
        if share == 0.0 {
            return format!(
                "{num_waiting} events wait, and release.refit_skipped_share is 0: no refit is due for them"
            );
        }
        if self.backlog.is_due(share) {
            return format!("{num_waiting} events wait for a refit, which is due");
        }
        let num_without_refit = self.backlog.num_without_refit(share);
        format!("{num_waiting} events wait; a refit is due once more than {num_without_refit} do")
    }

    /// Tells HTTP how many events wait.
    pub(super) fn share_backlog(&self) {
        let num_waiting = self.backlog.num_waiting();
        self.serving
            .update(|status| status.events_to_refit = num_waiting);
    }

    /// Tells HTTP how far the refit in training is; zeros where there is none.
    pub(super) fn share_refit(&self) {
        let refit = self.release.as_ref().filter(|release| release.is_refit());
        let (done, total) =
            refit.map_or((0, 0), |refit| (refit.num_steps(), refit.num_steps_total()));
        self.serving.update(|status| {
            status.refit_steps = u64::from(done);
            status.refit_steps_total = u64::from(total);
        });
    }
}
