//! Release training: the slow group on replayed windows, one step at a time in idle slices.
//!
//! A shadow of the slow weights is trained against the rows as they are now; the live version is
//! untouched until the whole change has passed the gate.

use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::manifest::VersionKind;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::TensorGroup;

use super::gating::Source;
use super::pseudo::PseudoLabels;
use super::refit::{Refit, RefitExtent};
use super::trial::Trial;
use super::{LastBatch, Learner, step_config};
use crate::betting::MeanDifference;
use crate::compress;
use crate::config::ReplayChoice;
use crate::gate::{GateError, GateFigures};
use crate::preprocess::Preprocessor;
use crate::train::TrainError;
use crate::train::count_history::CountHistory;
use crate::train::fast_step::SharedWeights;
use crate::train::full_optimizer::{Anchor, FullOptimizer, slow_tensors};
use crate::train::full_step::{FullStepConfig, full_step, gradients};
use crate::train::objective::Objective;
use crate::train::schedule::share;
use crate::train::teacher::Teacher;
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
    teacher: Option<Teacher>,
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
    /// Share of the weights before that the release keeps, once that is chosen.
    share_kept: f32,
    /// Present where the next events are to judge it.
    pub(super) trial: Option<Trial>,
    /// Whether it brings rows of texts from a new generation of the encoder.
    carries_texts: bool,
    /// What the gate measured when it let it pass.
    figures: Option<GateFigures>,
    /// Present while a part of the pages tries it: the rise of log loss above what is live.
    pub(super) rise: Option<MeanDifference>,
}

impl ReleaseTraining {
    /// Steps taken so far.
    #[must_use]
    pub fn num_steps(&self) -> u32 {
        self.num_steps
    }

    /// Steps in all.
    #[must_use]
    pub fn num_steps_total(&self) -> u32 {
        self.num_steps_total
    }

    /// Whether all steps are taken.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.num_steps >= self.num_steps_total
    }

    /// Whether as many events have judged it as the configuration wants.
    #[must_use]
    pub fn is_tried(&self) -> bool {
        self.trial.as_ref().is_none_or(Trial::is_complete)
    }

    /// Share of the weights before that it keeps; 1 where its trial went against it.
    #[must_use]
    pub fn share_kept(&self) -> f32 {
        self.share_kept
    }

    /// From now on every event is a bet on the rise of log loss with this share of the weights before kept.
    pub fn begin_canary(&mut self, share_kept: f32, bets: MeanDifference) {
        self.share_kept = share_kept;
        self.rise = Some(bets);
    }

    /// The rise of log loss above what is live, while a part of the pages tries it.
    #[must_use]
    pub fn rise(&self) -> Option<&MeanDifference> {
        self.rise.as_ref()
    }

    /// What the gate measured when it let it pass.
    #[must_use]
    pub fn gate_figures(&self) -> Option<GateFigures> {
        self.figures
    }

    /// Whether it brings rows of texts from a new generation of the encoder.
    #[must_use]
    pub fn carries_texts(&self) -> bool {
        self.carries_texts
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
        let every = self.config.release.refit_every_releases;
        if every > 0 && self.num_releases.is_multiple_of(every) {
            return self.start_refit(preprocessor, RefitExtent::Renewal);
        }
        let history = self.count_history(preprocessor);
        let objective = self.objective(preprocessor, &history);
        let pseudo_labels = self.pseudo_labels(preprocessor);
        let (parameters, carries_texts) = self.shadow();
        let release = &self.config.release;
        let strategy = step_config::strategy(&self.config);
        let seed = self.config.train.seed ^ self.optimizer.num_steps; // another change of low rank each time
        let optimizer = FullOptimizer::with_strategy(&parameters, strategy, seed);
        let moves = optimizer.moves_slow();
        ReleaseTraining {
            optimizer,
            teacher: (release.distillation > 0.0).then(|| self.teacher(preprocessor)),
            average: (release.averaging > 0.0).then(|| slow_tensors(&parameters)),
            parameters,
            history,
            objective,
            pseudo_labels,
            num_steps: 0,
            num_steps_total: release.steps,
            refit: None,
            share_kept: 0.0,
            trial: self
                .trial(&[release.soup_share, 0.0])
                .filter(|_| moves || carries_texts),
            carries_texts,
            figures: None,
            rise: None,
        }
    }

    /// Starts training everything over the whole log.
    #[must_use]
    pub fn start_refit(
        &mut self,
        preprocessor: &Preprocessor,
        extent: RefitExtent,
    ) -> ReleaseTraining {
        let history = self.count_history(preprocessor);
        let objective = self.objective(preprocessor, &history);
        let pseudo_labels = self.pseudo_labels(preprocessor);
        let refit = Refit::new(self, preprocessor, extent);
        let (parameters, carries_texts) = self.shadow();
        ReleaseTraining {
            parameters,
            carries_texts,
            optimizer: FullOptimizer::new(&self.parameters),
            teacher: None,
            average: None,
            history,
            objective,
            pseudo_labels,
            num_steps: 0,
            num_steps_total: refit.num_steps_total,
            refit: Some(refit),
            share_kept: 0.0,
            trial: self.trial(&[self.config.release.refit_blend, 0.0]),
            figures: None,
            rise: None,
        }
    }

    /// A copy of the weights to train, with the rows of a new generation where these are complete.
    fn shadow(&self) -> (ParameterSet, bool) {
        let mut parameters = self.parameters.clone();
        let carries_texts = self.has_fresh_texts();
        if carries_texts {
            self.lay_fresh_texts(&mut parameters);
        }
        (parameters, carries_texts)
    }

    /// What would go live now if the release kept this share of the weights before it; 1 keeps their texts, too.
    pub(super) fn released(&self, training: &ReleaseTraining, blend: f32) -> ParameterSet {
        let mut parameters = training.blended(&self.parameters, blend);
        if training.carries_texts && blend < 1.0 {
            self.lay_fresh_texts(&mut parameters);
        }
        parameters
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
        if training.carries_texts {
            self.lay_fresh_texts(&mut training.parameters);
        }
        if let Some(Teacher::Versions(versions)) = &mut training.teacher {
            for version in versions {
                copy_items(&self.parameters, Arc::make_mut(version));
            }
        }
        training.optimizer.grow(self.parameters.num_items);
        let done = training.num_steps as usize; // u32 fits
        training.num_steps += 1; // refused or not: a release ends
        if done == 0 {
            self.anchor(training, preprocessor);
        }
        let mut windows = self.replay_windows(preprocessor, WINDOWS_PER_STEP);
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
        training.figures = None;
        let mut dirty = self.dirty.clone();
        if training.refit.is_some() {
            dirty.learned.extend(0..self.parameters.num_items as u32); // fits: NUM_ITEMS_MAX is 2^20
        }
        training.take_average();
        let untried = match &training.refit {
            Some(refit) => refit.blend,
            None => self.config.release.soup_share,
        };
        let chosen = training.trial.as_ref().and_then(Trial::chosen);
        if let Some(trial) = &training.trial {
            let (num_events, losses) = (trial.num_events(), trial.losses());
            let live = trial.paired(1.0).map(|paired| paired.live);
            tracing::info!(num_events, chosen, live, ?losses, "a release was tried");
        }
        training.share_kept = chosen.unwrap_or(untried);
        training.parameters = self.released(training, training.share_kept);
        let mut fresh_generation = None;
        if training.carries_texts && training.share_kept == 1.0 {
            training.carries_texts = false;
            self.take_back_texts();
        } else if training.carries_texts {
            fresh_generation = self.lay_fresh_texts(&mut training.parameters);
            dirty.content.extend(0..self.parameters.num_items as u32); // likewise
        }
        let Some(live) = &self.live else {
            return Err(GateError::SelfTest("nothing is live yet".to_owned()));
        };
        let encoder_generation = fresh_generation.unwrap_or(live.state.encoder_generation);
        let (trained, items) = (&training.parameters, &self.items);
        let mut state =
            compress::release_state(&live.state, trained, self.counted(), items, &mut dirty);
        state.encoder_generation = encoder_generation;
        self.dirty_after = dirty;
        let ready = self.ready(&state);
        let slow = ready.scorer.with_slow_weights(&training.parameters);
        let trained = self.trained_twin(&state, &slow, &training.parameters);
        let source = Source {
            kind: VersionKind::Release,
            parameters: &training.parameters,
            encoder_generation,
        };
        let spread = training.trial.as_ref().map_or(1.0, Trial::spread);
        let rise_max = spread * self.config.gate.trial_rise_max;
        let tried = |share| {
            training
                .trial
                .as_ref()
                .and_then(|trial| trial.paired(share))
        };
        let judged = chosen.and_then(tried).map(|loss| (loss, rise_max));
        let checked = self
            .check_release((&state, &ready), &trained, &source, judged)
            .await;
        if checked.is_err() && training.carries_texts {
            self.take_back_texts();
        }
        if checked.is_err() && tried(1.0).is_some_and(|as_is| as_is.rise() > rise_max) {
            tracing::warn!("the trained weights lose to the live version and are taken back");
            self.return_to_live();
        }
        training.figures = Some(checked?);
        Ok((state, ready))
    }

    /// Goes on without a release that could not be published.
    pub fn release_was_dropped(&mut self, training: &ReleaseTraining) {
        if training.carries_texts {
            self.take_back_texts();
        }
    }

    /// Takes over what a release has trained that was published.
    pub fn release_went_live(&mut self, training: &ReleaseTraining) {
        self.last = LastBatch::default(); // what the version before said of it is no measure for the next
        let shapes = self.parameters.shapes();
        self.remember_for_ensemble();
        if training.carries_texts {
            self.take_over_texts();
        }
        if training.is_refit() && training.share_kept < 1.0 {
            self.optimizer.shared = SharedWeights::default(); // what was known was about other weights
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
    pub(super) fn replay_windows(
        &mut self,
        preprocessor: &Preprocessor,
        num_windows: usize,
    ) -> Vec<Window> {
        let recent = preprocessor.recent_users(RECENT_USERS);
        let share = if recent.is_empty() {
            0.0
        } else {
            self.config.release.recent_share
        };
        let num_recent = (share * num_windows as f32).round() as usize; // at most a step's few
        let mut windows = Vec::with_capacity(num_windows);
        for _ in 0..num_recent {
            let user_idx = recent[self.rng.random_range(0..recent.len())].0 as usize; // u32 fits
            let timeline = &preprocessor.timelines()[user_idx];
            windows.extend(self.window_until(timeline, timeline.len()));
        }
        windows.extend(self.old_windows(preprocessor, num_windows - num_recent));
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

    /// What would be released now if this share of the weights as they are, `now`, were kept.
    fn blended(&self, now: &ParameterSet, blend: f32) -> ParameterSet {
        let mut blended = self.parameters.clone();
        if let Some(refit) = &self.refit {
            refit.hand_over(now, &mut blended, blend);
            return blended;
        }
        copy_items(now, &mut blended);
        let shapes = now.shapes();
        let tensors = shapes.iter().zip(&now.tensors).zip(&mut blended.tensors);
        for ((_, now), values) in tensors.filter(|((shape, _), _)| shape.group == TensorGroup::Slow)
        {
            for (value, now) in values.iter_mut().zip(now) {
                *value = (1.0 - blend) * *value + blend * now;
            }
        }
        blended
    }

    /// The average in place of the last step.
    pub(super) fn take_average(&mut self) {
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
