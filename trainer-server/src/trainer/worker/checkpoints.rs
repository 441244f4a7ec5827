//! Checkpoints of the trainer: written now and then, where its weights change at once, and at the end.

use std::time::{Duration, Instant};

use shared_model::ids::Version;

use super::Worker;
use crate::checkpoint;
use crate::trainer::TrainerError;

/// Time between checkpoints, at least.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(20);

impl Worker {
    pub(super) fn checkpoint_if_due(&mut self) {
        let Some(version) = self.published_version() else {
            return;
        };
        if self.last_checkpoint.elapsed() >= CHECKPOINT_INTERVAL {
            self.save_checkpoint(version);
            self.last_checkpoint = Instant::now();
        }
    }

    /// One that cannot be written stops nothing: the one before it is intact, and a restart loses residuals alone.
    pub(super) fn save_checkpoint(&self, version: Version) {
        if let Err(error) = self.try_save(version) {
            tracing::warn!(%error, "no checkpoint");
        }
    }

    fn try_save(&self, version: Version) -> Result<(), TrainerError> {
        let learner = &self.learner;
        let data_dir = &self.config.server.data_dir;
        checkpoint::save(data_dir, version, learner.parameters(), learner.optimizer())?;
        self.save_text_tuner()
    }
}
