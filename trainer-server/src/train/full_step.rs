//! Full step: one optimizer update of slow weights and (in the warm fit) rows on a batch of windows.
//!
//! Loss = next item, softmax over all items of a small catalogue or over uniform negatives of a large
//! one, with the logQ correction `+ ln(num_items / num_negatives)` on the negatives (Bengio & Senécal 2008),
//! plus binary cross-entropy of the click head and squared error of the rating head where labelled.

use std::sync::Arc;

use burn::tensor::{Device, Gradients, Tensor};
use rand::rngs::StdRng;
use shared_model::model::parameters::ParameterSet;

use super::TrainError;
use super::adversarial::{Adversarial, Moved};
use super::count_history::CountHistory;
use super::full_batch::Batch;
use super::full_optimizer::FullOptimizer;
use super::gradient_sum::GradientSum;
use super::host;
use super::losses::{Leaves, batch_loss};
use super::objective::Objective;
use super::optimizer::clip_global_norm;
use super::teacher::{Lesson, Teacher};
use super::windows::Window;

/// How a full step learns.
#[derive(Debug, Clone, PartialEq)]
pub struct FullStepConfig {
    /// Of the slow weights.
    pub learning_rate: f32,
    /// Of id rows; 0 leaves them, the biases and the prior weights alone.
    pub row_learning_rate: f32,
    /// Of biases.
    pub bias_learning_rate: f32,
    /// Of the weights of the item prior.
    pub prior_learning_rate: f32,
    /// Share of id rows left out of a step, so that content learns to stand alone (DropoutNet, Volkovs et al. 2017).
    pub id_dropout: f64,
    /// Decoupled, on matrices only.
    pub weight_decay: f32,
    /// Share of activations zeroed.
    pub dropout: f64,
    /// Uniform negatives per batch; at least the catalogue's size means the full softmax.
    pub num_negatives: usize,
    /// Bound of the global gradient norm.
    pub gradient_norm_max: f32,
    /// Weight of the click loss.
    pub click_weight: f32,
    /// Weight of the rating loss.
    pub rating_weight: f32,
    /// Moves of id rows that the step also learns against.
    pub adversarial: Adversarial,
    /// Parts of the windows that are differentiated one after the other; gradients are averaged by targets.
    pub num_parts: usize,
    /// Whose next-item probabilities the step stays near, too.
    pub distillation: Option<Distillation>,
    /// What popularity and harm do to the next-item loss.
    pub objective: Arc<Objective>,
}

/// A teacher: its softmax over candidates is a target beside what happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Distillation {
    /// Who.
    pub teacher: Teacher,
    /// Weight of its loss beside the next-item loss.
    pub weight: f32,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean loss of the batch before the step.
    pub loss: f32,
    /// Targets in the batch.
    pub num_targets: usize,
    /// Global gradient norm before clipping.
    pub gradient_norm: f32,
}

impl FullStepConfig {
    /// Moves nothing: what other configurations are written against.
    #[must_use]
    pub fn still() -> Self {
        Self {
            learning_rate: 0.0,
            row_learning_rate: 0.0,
            bias_learning_rate: 0.0,
            prior_learning_rate: 0.0,
            id_dropout: 0.0,
            weight_decay: 0.0,
            dropout: 0.0,
            num_negatives: usize::MAX,
            gradient_norm_max: f32::INFINITY,
            click_weight: 0.0,
            rating_weight: 0.0,
            adversarial: Adversarial::None,
            num_parts: 1,
            distillation: None,
            objective: Arc::default(),
        }
    }

    /// The same with every learning rate at `share` of its size.
    #[must_use]
    pub fn slowed(&self, share: f32) -> Self {
        Self {
            learning_rate: self.learning_rate * share,
            row_learning_rate: self.row_learning_rate * share,
            bias_learning_rate: self.bias_learning_rate * share,
            prior_learning_rate: self.prior_learning_rate * share,
            ..self.clone()
        }
    }
}

/// One update of `parameters` on `windows`, with the counts that `history` had at their times.
/// `device` must have autodiff, but for flex, where gradients are computed on the host.
///
/// # Errors
/// Loss or gradient is not finite, or the device failed; then nothing was changed.
pub fn full_step(
    parameters: &mut ParameterSet,
    optimizer: &mut FullOptimizer,
    windows: &[Window],
    history: &CountHistory,
    config: &FullStepConfig,
    device: &Device,
    rng: &mut StdRng,
) -> Result<StepReport, TrainError> {
    let step = optimizer.num_steps;
    let num_items = parameters.num_items;
    let mut sum = GradientSum::default();
    let part_len = windows.len().div_ceil(config.num_parts.max(1)).max(1);
    for part in windows.chunks(part_len) {
        let batch = Batch::new(part, history, num_items, config.num_negatives, rng);
        if batch.targets.is_empty() {
            continue;
        }
        let (loss, gradients) = differentiate_moved(parameters, &batch, config, device, step)?;
        sum.add(loss, gradients, batch);
    }
    let Some(mut mean) = sum.mean() else {
        return Ok(StepReport {
            loss: 0.0,
            num_targets: 0,
            gradient_norm: 0.0,
        });
    };
    optimizer.pull(parameters, &mut mean.gradients);
    let gradient_norm = mean.gradients.clip(config.gradient_norm_max);
    if !gradient_norm.is_finite() {
        return Err(TrainError::GradientNotFinite {
            norm: gradient_norm,
            step,
        });
    }
    optimizer.apply(parameters, &mean.gradients, &mean.rows, config);
    Ok(StepReport {
        loss: mean.loss,
        num_targets: mean.num_targets,
        gradient_norm,
    })
}

/// Clean gradients, averaged with those at moved id rows where the configuration asks for it.
/// `parameters` are put back before it returns, also where it fails.
fn differentiate_moved(
    parameters: &mut ParameterSet,
    batch: &Batch,
    config: &FullStepConfig,
    device: &Device,
    step: u64,
) -> Result<(f32, HostGradients), TrainError> {
    let (loss, mut clean) = differentiate(parameters, batch, config, device, step)?;
    let (length, length_max, num_moves) = config.adversarial.moves();
    if num_moves == 0 {
        return Ok((loss, clean));
    }
    let moved = Moved::new(parameters, &batch.rows);
    let mut latest = Ok(clean.clone());
    for _ in 0..num_moves {
        let Ok(gradients) = &latest else { break };
        moved.push(parameters, &gradients.id_rows, length, length_max);
        latest = differentiate(parameters, batch, config, device, step).map(|(_, moved)| moved);
    }
    moved.restore(parameters);
    clean.scale(0.5);
    clean.add_scaled(&latest?, 0.5);
    Ok((loss, clean))
}

/// Loss and gradients of one whole clean batch, before clipping; nothing is changed. `None` where the windows
/// hold no target.
///
/// # Errors
/// The loss is not finite, or the device failed.
pub fn gradients(
    parameters: &ParameterSet,
    windows: &[Window],
    history: &CountHistory,
    config: &FullStepConfig,
    device: &Device,
    rng: &mut StdRng,
) -> Result<Option<(f32, HostGradients)>, TrainError> {
    let num_items = parameters.num_items;
    let batch = Batch::new(windows, history, num_items, config.num_negatives, rng);
    if batch.targets.is_empty() {
        return Ok(None);
    }
    differentiate(parameters, &batch, config, device, 0).map(Some)
}

/// On the CPU by hand, elsewhere, and for adapters and teachers, by burn; both compute the same.
pub(super) fn differentiate(
    parameters: &ParameterSet,
    batch: &Batch,
    config: &FullStepConfig,
    device: &Device,
    step: u64,
) -> Result<(f32, HostGradients), TrainError> {
    let has_host_form = parameters.spec.adapter_dim == 0 && config.distillation.is_none();
    if *device != Device::flex() || !has_host_form {
        return differentiate_on_device(parameters, batch, config, device, step);
    }
    let (loss, gradients) = host::differentiate(parameters, batch, config);
    if !loss.is_finite() {
        return Err(TrainError::LossNotFinite { loss, step });
    }
    Ok((loss, gradients))
}

/// By burn, on any device with autodiff; the reference.
pub(super) fn differentiate_on_device(
    parameters: &ParameterSet,
    batch: &Batch,
    config: &FullStepConfig,
    device: &Device,
    step: u64,
) -> Result<(f32, HostGradients), TrainError> {
    let leaves = Leaves::new(parameters, batch, config.id_dropout, device);
    let lesson = match config.distillation.as_ref().map(|taught| &taught.teacher) {
        Some(Teacher::Texts(teacher)) => Lesson::of(&**teacher, batch, step)?,
        Some(Teacher::Versions(_)) | None => None,
    };
    let loss = batch_loss(&leaves, batch, config, lesson.as_ref(), device);
    let value = read(loss.clone().reshape([1]), step)?[0];
    if !value.is_finite() {
        return Err(TrainError::LossNotFinite { loss: value, step });
    }
    Ok((value, HostGradients::read(&leaves, &loss.backward(), step)?))
}

/// Gradients read back to the host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostGradients {
    /// Slow tensors in spec order; `None` where the loss does not reach one.
    pub slow: Vec<Option<Vec<f32>>>,
    /// Of the id rows of the batch, `[num_rows, embedding_dim]`.
    pub id_rows: Vec<f32>,
    /// Of the biases of the batch, `[num_rows]`.
    pub bias: Vec<f32>,
    /// Of the prior weights, `[num_half_lives]`.
    pub prior: Vec<f32>,
}

impl HostGradients {
    pub(super) fn read(
        leaves: &Leaves,
        gradients: &Gradients,
        step: u64,
    ) -> Result<Self, TrainError> {
        let mut slow = Vec::new();
        for weight in leaves.ranker.weights() {
            let gradient = weight.as_ref().and_then(|weight| weight.grad(gradients));
            slow.push(gradient.map(|gradient| read(gradient, step)).transpose()?);
        }
        let rows = |leaf: &Tensor<2>| match leaf.grad(gradients) {
            Some(gradient) => read(gradient, step),
            None => Ok(vec![0.0; leaf.dims().iter().product()]),
        };
        Ok(Self {
            slow,
            id_rows: rows(&leaves.id_rows)?,
            bias: rows(&leaves.bias)?,
            prior: rows(&leaves.prior)?,
        })
    }

    pub(super) fn scale(&mut self, factor: f32) {
        for value in self.all_mut().into_iter().flatten() {
            *value *= factor;
        }
    }

    /// Adds gradients of the same tensors and rows.
    pub(super) fn add_scaled(&mut self, other: &Self, factor: f32) {
        for (own, other) in self.slow.iter_mut().zip(&other.slow) {
            let Some(other) = other else { continue };
            let own = own.get_or_insert_with(|| vec![0.0; other.len()]);
            add_scaled(own, other, factor);
        }
        add_scaled(&mut self.id_rows, &other.id_rows, factor);
        add_scaled(&mut self.bias, &other.bias, factor);
        add_scaled(&mut self.prior, &other.prior, factor);
    }

    fn all_mut(&mut self) -> Vec<&mut [f32]> {
        let slow = self.slow.iter_mut().flatten().map(Vec::as_mut_slice);
        let mut all: Vec<&mut [f32]> = slow.collect();
        all.push(&mut self.id_rows);
        all.push(&mut self.bias);
        all.push(&mut self.prior);
        all
    }

    pub(super) fn clip(&mut self, norm_max: f32) -> f32 {
        clip_global_norm(&mut self.all_mut(), norm_max)
    }
}

fn add_scaled(into: &mut [f32], values: &[f32], factor: f32) {
    for (sum, value) in into.iter_mut().zip(values) {
        *sum += factor * value;
    }
}

/// Selected rows of a row-major table.
#[must_use]
pub(super) fn gather(table: &[f32], num_cols: usize, rows: &[u32]) -> Vec<f32> {
    let mut gathered = Vec::with_capacity(rows.len() * num_cols);
    for row in rows {
        let first = *row as usize * num_cols;
        gathered.extend_from_slice(&table[first..first + num_cols]);
    }
    gathered
}

/// Values of a tensor on the host.
pub(crate) fn read<const D: usize>(tensor: Tensor<D>, step: u64) -> Result<Vec<f32>, TrainError> {
    let device_error = |reason: String| TrainError::Device { step, reason };
    tensor
        .into_data()
        .try_into_vec::<f32>()
        .map_err(|error| device_error(format!("{error:?}")))
}

#[cfg(test)]
mod tests;
