//! How the trainer begins: where the newest version left off, or with a first one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use shared_model::ids::LogOffset;
use shared_model::manifest::VersionKind;

use super::{IDLE_WAIT, Worker};
use crate::checkpoint;
use crate::ledger::Provenance;
use crate::trainer::TrainerError;

/// Steps between log lines of a warm fit.
const WARM_FIT_LOG_STEPS: usize = 100;

impl Worker {
    /// Takes in the log up to the newest version without training, then takes its weights.
    pub(super) fn restore(&mut self) -> Result<(), TrainerError> {
        let Some(latest) = self.publisher.latest() else {
            return Ok(());
        };
        self.serving.phase("restoring");
        let manifest = &latest.manifest;
        if self.position == LogOffset(0) {
            self.backlog = self.open_backlog()?; // not again where reading is tried again
        }
        self.catch_up(manifest.learned_through)?;
        self.share_backlog();
        if self.is_stopped() {
            return Ok(()); // nothing is live, so nothing will be written either
        }
        let saved = match checkpoint::load(&self.config.server.data_dir) {
            Ok(saved) => saved,
            Err(error) => {
                tracing::warn!(%error, "going on without the checkpoint; residuals since the last version are lost");
                None
            }
        };
        let rolled_back = self.rollout.newest().map(|newest| newest.version);
        let saved = saved.filter(|saved| rolled_back.is_none_or(|at| saved.version >= at)); // no residuals from before
        self.learner.restore(Arc::clone(&latest.state), saved)?;
        self.resume_texts();
        self.committed = manifest.learned_through;
        self.share_live(manifest.version);
        self.watch_from(manifest.version);
        tracing::info!(
            "restored version {} at log offset {}",
            manifest.version,
            manifest.learned_through
        );
        Ok(())
    }

    /// Publishes the first version: after a warm fit where the log is long enough, else untrained.
    pub(super) fn first_version(&mut self) -> Result<(), TrainerError> {
        self.serving.phase("waiting for items");
        let end = self.log.wait_beyond(self.position, IDLE_WAIT);
        let batches = self.catch_up(end)?;
        let num_items = self.learner.parameters().num_items;
        if num_items == 0 || (batches.is_empty() && self.position < end) {
            return Ok(());
        }
        let serving = Arc::clone(&self.serving);
        let preprocessor = serving
            .preprocessor
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let num_events: usize = preprocessor.timelines().iter().map(Vec::len).sum();
        let is_long = num_events >= self.config.train.warm_fit_min_events;
        if is_long && !self.is_fitted && self.private.is_none() {
            self.serving.phase("warm fit");
            tracing::info!(num_events, num_items, "warm fit starts");
            let (stop, started) = (Arc::clone(&self.stop), Instant::now());
            let status = Arc::clone(&self.serving);
            self.learner.warm_fit(&preprocessor, |progress| {
                status.update(|status| {
                    status.warm_fit_steps = progress.num_steps as u64;
                    status.warm_fit_steps_total = progress.num_steps_total as u64;
                });
                if progress.num_steps % WARM_FIT_LOG_STEPS == 0 {
                    let (done, total) = (progress.num_steps, progress.num_steps_total);
                    tracing::info!(loss = progress.loss, "warm fit: step {done} of {total}");
                }
                !stop.load(Ordering::Relaxed)
            })?;
            tracing::info!(
                duration_secs = started.elapsed().as_secs_f32(),
                "warm fit is done"
            );
            self.is_fitted = true;
        }
        drop(preprocessor);
        if self.is_stopped() {
            return Ok(());
        }
        let state = self.learner.candidate();
        let ready = self.learner.ready(&state);
        let first = Provenance::automatic(None);
        self.publish(VersionKind::Release, first, state, ready)?;
        self.last_release = Instant::now();
        self.start_text_round();
        Ok(())
    }
}
