//! Release training: the slow group on replayed windows, one step at a time in idle slices.
//!
//! A shadow of the slow weights is trained against the rows as they are now; the live version is
//! untouched until the whole change has passed the gate.

use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::TensorGroup;

use super::pseudo::PseudoLabels;
use super::refit::Refit;
use super::{Learner, step_config};
use crate::compress;
use crate::config::ReplayChoice;
use crate::gate::GateError;
use crate::preprocess::Preprocessor;
use crate::train::TrainError;
use crate::train::count_history::CountHistory;
use crate::train::full_optimizer::{Anchor, FullOptimizer, slow_tensors};
use crate::train::full_step::{FullStepConfig, full_step, gradients};
use crate::train::objective::Objective;
use crate::train::schedule::share;
use crate::train::windows::{Example, Window};

/// Windows in one step: small, since events wait while it runs.
const WINDOWS_PER_STEP: usize = 16;
/// Batches of old windows from which EWC takes how much the loss cares.
const FISHER_BATCHES: usize = 8;
/// Users from whose newest events half of the windows are taken.
const RECENT_USERS: usize = 512;

/// A release in the making.
#[derive(Debug, Clone)]
pub struct ReleaseTraining {
    pub(super) parameters: ParameterSet,
    pub(super) optimizer: FullOptimizer,
    /// The version before, with the items of `parameters`, where the steps are to stay near what it says.
    teacher: Option<Arc<ParameterSet>>,
    /// Moving average of the slow weights over the steps, where that is released.
    average: Option<Vec<Vec<f32>>>,
    /// Counts of all times up to its start.
    pub(super) history: CountHistory,
    /// What popularity and harm were at its start.
    pub(super) objective: Arc<Objective>,
    pub(super) pseudo_labels: PseudoLabels,
    pub(super) num_steps: u32,
    num_steps_total: u32,
    /// Present where it goes over the whole log.
    refit: Option<Refit>,
}

impl ReleaseTraining {
    /// Steps taken so far.
    #[must_use]
    pub fn num_steps(&self) -> u32 {
        self.num_steps
    }

    /// Whether all steps are taken.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.num_steps >= self.num_steps_total
    }

    /// Whether it goes over the whole log.
    #[must_use]
    pub fn is_refit(&self) -> bool {
        self.refit.is_some()
    }
}

impl Learner {
    /// Starts training a shadow of the slow group, or, at every so many releases, of everything.
    #[must_use]
    pub fn start_release(&mut self, preprocessor: &Preprocessor) -> ReleaseTraining {
        self.num_releases += 1;
        let history = self.count_history(preprocessor);
        let objective = self.objective(preprocessor, &history);
        let pseudo_labels = self.pseudo_labels(preprocessor);
        let every = self.config.release.refit_every_releases;
        if every > 0 && self.num_releases.is_multiple_of(every) {
            let refit = Refit::new(self, preprocessor);
            return ReleaseTraining {
                parameters: self.parameters.clone(),
                optimizer: FullOptimizer::new(&self.parameters),
                teacher: None,
                average: None,
                history,
                objective,
                pseudo_labels,
                num_steps: 0,
                num_steps_total: refit.num_steps_total,
                refit: Some(refit),
            };
        }
        let parameters = self.parameters.clone();
        let release = &self.config.release;
        let strategy = step_config::strategy(&self.config);
        let seed = self.config.train.seed ^ self.optimizer.num_steps; // another change of low rank each time
        ReleaseTraining {
            optimizer: FullOptimizer::with_strategy(&parameters, strategy, seed),
            teacher: (release.distillation > 0.0).then(|| Arc::new(parameters.clone())),
            average: (release.averaging > 0.0).then(|| slow_tensors(&parameters)),
            parameters,
            history,
            objective,
            pseudo_labels,
            num_steps: 0,
            num_steps_total: release.steps,
            refit: None,
        }
    }

    /// Ties the shadow to where it starts, as the configuration says. A batch that cannot be measured is left out:
    /// what remains of the pull is never less than `l2_sp`.
    fn anchor(&mut self, training: &mut ReleaseTraining, preprocessor: &Preprocessor) {
        let (even, fisher) = (self.config.release.l2_sp, self.config.release.ewc);
        if even == 0.0 && fisher == 0.0 {
            return;
        }
        let mut anchor = Anchor::even(&training.parameters, even);
        if fisher > 0.0 {
            let config = FullStepConfig {
                dropout: 0.0,
                id_dropout: 0.0,
                ..step_config::release_step(&self.config, None)
            };
            let device = self.device.clone().autodiff();
            let mut seen = Vec::with_capacity(FISHER_BATCHES);
            for _ in 0..FISHER_BATCHES {
                let windows = self.old_windows(preprocessor, WINDOWS_PER_STEP);
                let (parameters, history) = (&training.parameters, &training.history);
                let rng = &mut self.rng;
                match gradients(parameters, &windows, history, &config, &device, rng) {
                    Ok(Some((_, gradients))) => seen.push(gradients),
                    Ok(None) => {} // nothing to predict in these windows
                    Err(error) => tracing::warn!(%error, "a batch says nothing about EWC"),
                }
            }
            anchor.add_fisher(&seen, fisher);
        }
        training.optimizer.anchor(anchor);
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
        if let Some(mut refit) = training.refit.take() {
            let stepped = self.refit_step(training, &mut refit);
            training.refit = Some(refit);
            training.num_steps += 1; // refused or not
            return stepped;
        }
        if !training.optimizer.moves_slow() {
            training.num_steps = training.num_steps_total; // nothing to do
            return Ok(());
        }
        copy_items(&self.parameters, &mut training.parameters);
        if let Some(teacher) = &mut training.teacher {
            copy_items(&self.parameters, Arc::make_mut(teacher));
        }
        training.optimizer.grow(self.parameters.num_items);
        let done = training.num_steps as usize; // u32 fits
        training.num_steps += 1; // refused or not: a release ends
        if done == 0 {
            self.anchor(training, preprocessor);
        }
        let mut windows = self.replay_windows(preprocessor);
        training.pseudo_labels.add_to(&mut windows, &mut self.rng);
        let release = &self.config.release;
        let num_steps = training.num_steps_total as usize; // u32 fits
        let share = share(release.schedule, release.warmup_steps, done, num_steps);
        let mut config =
            step_config::release_step(&self.config, training.teacher.as_ref()).slowed(share);
        config.objective = Arc::clone(&training.objective);
        let device = self.device.clone().autodiff();
        full_step(
            &mut training.parameters,
            &mut training.optimizer,
            &windows,
            &training.history,
            &config,
            &device,
            &mut self.rng,
        )?;
        training.follow_average(self.config.release.averaging);
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
        let mut dirty = self.dirty.clone();
        if let Some(refit) = &training.refit {
            let blend = self.config.release.refit_blend;
            refit.hand_over(&self.parameters, &mut training.parameters, blend);
            dirty.learned.extend(0..self.parameters.num_items as u32); // fits: NUM_ITEMS_MAX is 2^20
        } else {
            copy_items(&self.parameters, &mut training.parameters);
            training.take_average();
        }
        let Some(live) = &self.live else {
            return Err(GateError::SelfTest("nothing is live yet".to_owned()));
        };
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

    /// Takes over what a release has trained that was published.
    pub fn release_went_live(&mut self, training: &ReleaseTraining) {
        let shapes = self.parameters.shapes();
        if training.is_refit() {
            self.optimizer.restart(&self.parameters);
            self.last.undo = None;
        }
        for (idx, shape) in shapes.iter().enumerate() {
            let is_taken =
                shape.group == TensorGroup::Slow || (training.is_refit() && shape.is_trained());
            if is_taken {
                self.parameters.tensors[idx].clone_from(&training.parameters.tensors[idx]);
            }
        }
    }

    /// Newest windows of recent users and any windows of the log, in the shares of the configuration.
    fn replay_windows(&mut self, preprocessor: &Preprocessor) -> Vec<Window> {
        let recent = preprocessor.recent_users(RECENT_USERS);
        let share = if recent.is_empty() {
            0.0
        } else {
            self.config.release.recent_share
        };
        let num_recent = (share * WINDOWS_PER_STEP as f32).round() as usize; // at most 16
        let mut windows = Vec::with_capacity(WINDOWS_PER_STEP);
        for _ in 0..num_recent {
            let user_idx = recent[self.rng.random_range(0..recent.len())].0 as usize; // u32 fits
            let timeline = &preprocessor.timelines()[user_idx];
            windows.extend(self.window_until(timeline, timeline.len()));
        }
        windows.extend(self.old_windows(preprocessor, WINDOWS_PER_STEP - num_recent));
        let augmentation = step_config::augmentation(&self.config);
        for window in &mut windows {
            augmentation.apply(window, &mut self.rng);
        }
        windows
    }

    /// At most `num_windows` windows of the whole log.
    fn old_windows(&mut self, preprocessor: &Preprocessor, num_windows: usize) -> Vec<Window> {
        let timelines = preprocessor.timelines();
        let mut windows = Vec::with_capacity(num_windows);
        for _ in 0..num_windows {
            let user_idx = match self.config.release.replay {
                ReplayChoice::Users if timelines.is_empty() => None,
                ReplayChoice::Users => Some(self.rng.random_range(0..timelines.len())),
                ReplayChoice::Events => owner_of_any_event(timelines, &mut self.rng),
            };
            let Some(timeline) = user_idx.map(|user_idx| &timelines[user_idx]) else {
                break;
            };
            if !timeline.is_empty() {
                let end = self.rng.random_range(1..=timeline.len());
                windows.extend(self.window_until(timeline, end));
            }
        }
        windows
    }

    /// The window that ends before `end`.
    pub(super) fn window_until(&self, timeline: &[Example], end: usize) -> Option<Window> {
        let start = end.saturating_sub(self.parameters.spec.history_len as usize + 1);
        let examples = timeline[start..end].to_vec();
        (!examples.is_empty()).then_some(Window {
            examples,
            first_target: 0,
        })
    }
}

/// Whose an event is that is drawn from all of them; `None` where there is none.
fn owner_of_any_event(timelines: &[Vec<Example>], rng: &mut StdRng) -> Option<usize> {
    let num_events: usize = timelines.iter().map(Vec::len).sum();
    if num_events == 0 {
        return None;
    }
    let mut drawn = rng.random_range(0..num_events);
    timelines.iter().position(|timeline| {
        let is_owner = drawn < timeline.len();
        drawn = drawn.saturating_sub(timeline.len());
        is_owner
    })
}

impl ReleaseTraining {
    fn follow_average(&mut self, decay: f32) {
        let Some(average) = &mut self.average else {
            return;
        };
        for (mean, values) in average.iter_mut().zip(slow_tensors(&self.parameters)) {
            for (mean, value) in mean.iter_mut().zip(values) {
                *mean += (1.0 - decay) * (value - *mean); // to the bit where nothing moves
            }
        }
    }

    /// The average in place of the last step.
    fn take_average(&mut self) {
        let Some(average) = self.average.take() else {
            return;
        };
        let shapes = self.parameters.shapes();
        let tensors = shapes.iter().zip(&mut self.parameters.tensors);
        let slow = tensors.filter(|(shape, _)| shape.group == TensorGroup::Slow);
        for ((_, values), mean) in slow.zip(average) {
            *values = mean;
        }
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
