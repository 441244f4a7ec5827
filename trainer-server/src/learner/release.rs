//! Release training: the slow group on replayed windows, one step at a time in idle slices.
//!
//! A shadow of the slow weights is trained against the rows as they are now; the live version is
//! untouched until the whole change has passed the gate.

use rand::Rng;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::TensorGroup;

use super::{Learner, full_step_config};
use crate::compress;
use crate::gate::GateError;
use crate::preprocess::Preprocessor;
use crate::train::TrainError;
use crate::train::count_history::CountHistory;
use crate::train::full_step::{FullOptimizer, FullStepConfig, full_step};
use crate::train::windows::Window;

/// Windows in one step: small, since events wait while it runs.
const WINDOWS_PER_STEP: usize = 16;
/// Users from whose newest events half of the windows are taken.
const RECENT_USERS: usize = 512;

/// A release in the making.
#[derive(Debug, Clone)]
pub struct ReleaseTraining {
    parameters: ParameterSet,
    optimizer: FullOptimizer,
    /// Counts of all times up to its start.
    history: CountHistory,
    num_steps: u32,
}

impl ReleaseTraining {
    /// Steps taken so far.
    #[must_use]
    pub fn num_steps(&self) -> u32 {
        self.num_steps
    }
}

impl Learner {
    /// Starts training a shadow of the slow group.
    #[must_use]
    pub fn start_release(&self, preprocessor: &Preprocessor) -> ReleaseTraining {
        let parameters = self.parameters.clone();
        ReleaseTraining {
            optimizer: FullOptimizer::new(&parameters),
            parameters,
            history: self.count_history(preprocessor),
            num_steps: 0,
        }
    }

    /// One step of release training.
    ///
    /// # Errors
    /// The step was refused; the shadow is as before it.
    pub fn release_step(
        &mut self,
        training: &mut ReleaseTraining,
        preprocessor: &Preprocessor,
    ) -> Result<(), TrainError> {
        copy_items(&self.parameters, &mut training.parameters);
        training.optimizer.grow(self.parameters.num_items);
        let windows = self.replay_windows(preprocessor);
        let config = FullStepConfig {
            learning_rate: self.config.train.release_learning_rate,
            ..full_step_config(&self.config)
        };
        let device = self.device.clone().autodiff();
        training.num_steps += 1;
        full_step(
            &mut training.parameters,
            &mut training.optimizer,
            &windows,
            &training.history,
            &config,
            &device,
            &mut self.rng,
        )?;
        Ok(())
    }

    /// Compresses the shadow and lets the gate judge it. The learner keeps its slow weights until `release_went_live`.
    ///
    /// # Errors
    /// The gate refused it.
    pub async fn finish_release(
        &mut self,
        training: &mut ReleaseTraining,
    ) -> Result<(CodeState, ReadyVersion), GateError> {
        copy_items(&self.parameters, &mut training.parameters);
        let Some(live) = &self.live else {
            return Err(GateError::SelfTest("nothing is live yet".to_owned()));
        };
        let mut dirty = self.dirty.clone();
        let (trained, items) = (&training.parameters, &self.items);
        let state =
            compress::release_state(&live.state, trained, self.counted(), items, &mut dirty);
        self.dirty_after = dirty;
        let ready = self.ready(&state);
        let slow = ready.scorer.with_slow_weights(&training.parameters);
        let trained = self.trained_twin(&state, &slow, &training.parameters);
        self.check_release(&ready, &trained, &live.ready.scorer)
            .await?;
        Ok((state, ready))
    }

    /// Takes over the slow weights of a release that was published.
    pub fn release_went_live(&mut self, training: &ReleaseTraining) {
        let shapes = self.parameters.shapes();
        for (idx, shape) in shapes.iter().enumerate() {
            if shape.group == TensorGroup::Slow {
                self.parameters.tensors[idx].clone_from(&training.parameters.tensors[idx]);
            }
        }
    }

    /// Half the newest windows of recent users, half any window of any user.
    fn replay_windows(&mut self, preprocessor: &Preprocessor) -> Vec<Window> {
        let timelines = preprocessor.timelines();
        let window_len = self.parameters.spec.history_len as usize + 1;
        let recent = preprocessor.recent_users(RECENT_USERS);
        let mut windows = Vec::with_capacity(WINDOWS_PER_STEP);
        for window_idx in 0..WINDOWS_PER_STEP {
            let is_recent = window_idx % 2 == 0 && !recent.is_empty();
            let user_idx = if is_recent {
                recent[self.rng.random_range(0..recent.len())].0 as usize
            } else if timelines.is_empty() {
                continue;
            } else {
                self.rng.random_range(0..timelines.len())
            };
            let timeline = &timelines[user_idx];
            if timeline.is_empty() {
                continue;
            }
            let end = if is_recent {
                timeline.len()
            } else {
                self.rng.random_range(1..=timeline.len())
            };
            let start = end.saturating_sub(window_len);
            windows.push(Window {
                examples: timeline[start..end].to_vec(),
                first_target: 0,
            });
        }
        windows
    }
}

/// Brings the per-item and fast tensors of the shadow up to date.
fn copy_items(source: &ParameterSet, target: &mut ParameterSet) {
    let num_new = source.num_items - target.num_items;
    target.grow_items(num_new);
    for (idx, shape) in source.shapes().iter().enumerate() {
        if shape.group != TensorGroup::Slow {
            target.tensors[idx].clone_from(&source.tensors[idx]);
        }
    }
}
