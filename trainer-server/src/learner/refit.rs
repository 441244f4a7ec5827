//! Refit: a release that goes over the whole log again, rows and all, in idle slices like any other.
//!
//! It continues from the weights as they are. What fast steps moved while it ran is added at the hand-over,
//! `θ ← (1 − β)·(θ_refit + θ_now − θ_start) + β·θ_now`, so nothing learned meanwhile is lost, and nothing is
//! trained twice by the fast path; `β` averages long-term and short-term weights (Wortsman et al. 2022).

use std::sync::Arc;

use rand::seq::SliceRandom;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::TensorGroup;

use super::release::ReleaseTraining;
use super::{Learner, step_config};
use crate::preprocess::Preprocessor;
use crate::train::TrainError;
use crate::train::full_step::full_step;
use crate::train::schedule::share;
use crate::train::windows::{Window, cut};

/// What a refit is to make of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefitExtent {
    /// Weights that have learned most of the log go over it again: `release.refit_passes`, averaged by
    /// `release.refit_blend` where no trial says otherwise.
    Renewal,
    /// Weights that have not learned most of it are fitted as before a first version: `train.warm_epochs`, and nothing
    /// of them is kept where no trial says otherwise.
    WarmFit,
}

/// The part of a release in the making that only a refit has.
#[derive(Debug, Clone)]
pub(super) struct Refit {
    /// Weights when it began.
    start: ParameterSet,
    /// The whole log, in the order of the current pass.
    windows: Vec<Window>,
    next: usize,
    passes_left: u32,
    pub(super) num_steps_total: u32,
    /// Share of the weights as they are that it keeps where no trial says otherwise.
    pub(super) blend: f32,
}

impl Refit {
    pub(super) fn new(
        learner: &mut Learner,
        preprocessor: &Preprocessor,
        extent: RefitExtent,
    ) -> Self {
        let history_len = learner.parameters.spec.history_len as usize;
        let timelines = preprocessor.timelines().iter();
        let mut windows: Vec<Window> = timelines
            .flat_map(|timeline| cut(timeline, history_len))
            .collect();
        let (train, release) = (&learner.config.train, &learner.config.release);
        let (num_passes, blend) = match extent {
            RefitExtent::Renewal => (release.refit_passes, release.refit_blend),
            RefitExtent::WarmFit => (train.warm_epochs, 0.0),
        };
        if windows.len() > release.refit_windows_max {
            windows.shuffle(&mut learner.rng);
            windows.truncate(release.refit_windows_max);
        }
        let batch_size = train.warm_batch_size;
        let steps_per_pass = windows.len().div_ceil(batch_size) as u32; // fits: windows are bounded
        Self {
            start: learner.parameters.clone(),
            next: windows.len(),
            windows,
            passes_left: num_passes,
            num_steps_total: steps_per_pass.saturating_mul(num_passes),
            blend,
        }
    }

    /// Weights to release: those of the refit, with what fast steps moved meanwhile.
    pub(super) fn hand_over(&self, now: &ParameterSet, refit: &mut ParameterSet, blend: f32) {
        let num_new = now.num_items - refit.num_items;
        refit.grow_items(num_new);
        for (idx, shape) in now.shapes().iter().enumerate() {
            let (now, refit) = (&now.tensors[idx], &mut refit.tensors[idx]);
            if !shape.is_trained() {
                refit.clone_from(now);
                continue;
            }
            let start = &self.start.tensors[idx];
            for (cell, (value, now)) in refit.iter_mut().zip(now).enumerate() {
                let start = start.get(cell).copied().unwrap_or(0.0); // an item that is newer began at zero
                let moved = if shape.group == TensorGroup::Fast {
                    now - start
                } else {
                    0.0
                };
                *value = (1.0 - blend) * (*value + moved) + blend * now;
            }
        }
    }
}

impl Learner {
    /// The next batch of the pass.
    pub(super) fn refit_step(
        &mut self,
        training: &mut ReleaseTraining,
        refit: &mut Refit,
    ) -> Result<(), TrainError> {
        if refit.next >= refit.windows.len() {
            if refit.passes_left == 0 {
                return Ok(());
            }
            refit.passes_left -= 1;
            refit.next = 0;
            refit.windows.shuffle(&mut self.rng);
        }
        let mut config = step_config::warm_fit(&self.config);
        config.step.objective = Arc::clone(&training.objective);
        let end = (refit.next + config.batch_size).min(refit.windows.len());
        let mut batch = refit.windows[refit.next..end].to_vec();
        refit.next = end;
        for window in &mut batch {
            config.augmentation.apply(window, &mut self.rng);
        }
        training.pseudo_labels.add_to(&mut batch, &mut self.rng);
        let (done, total) = (training.num_steps as usize, refit.num_steps_total as usize); // u32 fits
        let share = share(config.schedule, config.num_warmup_steps, done, total);
        let step = config.step.slowed(share * self.config.release.refit_rate);
        let device = self.device.clone().autodiff();
        full_step(
            &mut training.parameters,
            &mut training.optimizer,
            &batch,
            &training.history,
            &step,
            &device,
            &mut self.rng,
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::init::init_parameters;
    use shared_model::spec::ModelSpec;

    fn set(value: f32, num_items: usize) -> ParameterSet {
        let mut parameters = init_parameters(&ModelSpec::default(), num_items, 1);
        parameters.tensor_mut("item.bias").fill(value);
        parameters.tensor_mut("start").fill(value);
        parameters
    }

    fn handed_over(blend: f32) -> (Vec<f32>, f32) {
        let refit = Refit {
            start: set(1.0, 2),
            windows: Vec::new(),
            next: 0,
            passes_left: 0,
            num_steps_total: 0,
            blend,
        };
        // Refit moved 1 → 5; meanwhile fast steps moved 1 → 2, and an item came with 2.
        let mut trained = set(5.0, 2);
        refit.hand_over(&set(2.0, 3), &mut trained, blend);
        (
            trained.tensor("item.bias").to_vec(),
            trained.tensor("start")[0],
        )
    }

    #[test]
    fn what_was_learned_meanwhile_is_added_and_new_items_are_kept() {
        assert_eq!(handed_over(0.0), (vec![6.0, 6.0, 2.0], 5.0));
        assert_eq!(handed_over(1.0), (vec![2.0, 2.0, 2.0], 2.0));
        assert_eq!(handed_over(0.5), (vec![4.0, 4.0, 2.0], 3.5));
    }
}
