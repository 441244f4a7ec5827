//! Full step: one optimizer update of slow weights and (in the warm fit) rows on a batch of windows.
//!
//! Loss = next item, softmax over all items of a small catalogue or over uniform negatives of a large
//! one, with the logQ correction `+ ln(num_items / num_negatives)` on the negatives (Bengio & Senécal 2008),
//! plus binary cross-entropy of the click head and squared error of the rating head where labelled.

use burn::tensor::{Device, Gradients, Tensor};
use rand::rngs::StdRng;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::TensorGroup;

use super::TrainError;
use super::count_history::CountHistory;
use super::full_batch::Batch;
use super::host;
use super::losses::{Leaves, batch_loss};
use super::optimizer::{AdamW, RowAdam, clip_global_norm};
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
}

/// Optimizer state of a full step.
#[derive(Debug, Clone)]
pub struct FullOptimizer {
    dense: Vec<Option<AdamW>>,
    id_rows: RowAdam,
    bias: RowAdam,
    prior: AdamW,
    num_steps: u64,
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

impl FullOptimizer {
    /// Fresh state for `parameters`.
    #[must_use]
    pub fn new(parameters: &ParameterSet) -> Self {
        let shapes = parameters.shapes();
        let dense = shapes
            .iter()
            .map(|shape| {
                (shape.group == TensorGroup::Slow)
                    .then(|| AdamW::new(shape.num_rows * shape.num_cols))
            })
            .collect();
        let dim = parameters.spec.embedding_dim as usize;
        Self {
            dense,
            id_rows: RowAdam::new(parameters.num_items, dim),
            bias: RowAdam::new(parameters.num_items, 1),
            prior: AdamW::new(parameters.spec.half_lives_secs.len()),
            num_steps: 0,
        }
    }

    /// Makes room for new items.
    pub fn grow(&mut self, num_items: usize) {
        self.id_rows.grow(num_items);
        self.bias.grow(num_items);
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
    let batch = Batch::new(windows, history, num_items, config.num_negatives, rng);
    if batch.targets.is_empty() {
        return Ok(StepReport {
            loss: 0.0,
            num_targets: 0,
            gradient_norm: 0.0,
        });
    }
    let (loss, mut gradients) = differentiate(parameters, &batch, config, device, step)?;
    let gradient_norm = gradients.clip(config.gradient_norm_max);
    if !gradient_norm.is_finite() {
        return Err(TrainError::GradientNotFinite {
            norm: gradient_norm,
            step,
        });
    }
    optimizer.apply(parameters, &gradients, &batch.rows, config);
    Ok(StepReport {
        loss,
        num_targets: batch.targets.len(),
        gradient_norm,
    })
}

/// Loss and gradients of the batch that a full step would take, before clipping; nothing is changed.
/// The windows must hold a target.
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
) -> Result<(f32, HostGradients), TrainError> {
    let num_items = parameters.num_items;
    let batch = Batch::new(windows, history, num_items, config.num_negatives, rng);
    differentiate(parameters, &batch, config, device, 0)
}

/// On the CPU by hand, elsewhere by burn; both compute the same.
fn differentiate(
    parameters: &ParameterSet,
    batch: &Batch,
    config: &FullStepConfig,
    device: &Device,
    step: u64,
) -> Result<(f32, HostGradients), TrainError> {
    if *device != Device::flex() {
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
    let loss = batch_loss(&leaves, batch, config, device);
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
    fn read(leaves: &Leaves, gradients: &Gradients, step: u64) -> Result<Self, TrainError> {
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

    fn clip(&mut self, norm_max: f32) -> f32 {
        let mut all: Vec<&mut [f32]> = self
            .slow
            .iter_mut()
            .flatten()
            .map(Vec::as_mut_slice)
            .collect();
        all.push(&mut self.id_rows);
        all.push(&mut self.bias);
        all.push(&mut self.prior);
        clip_global_norm(&mut all, norm_max)
    }
}

impl FullOptimizer {
    fn apply(
        &mut self,
        parameters: &mut ParameterSet,
        gradients: &HostGradients,
        rows: &[u32],
        config: &FullStepConfig,
    ) {
        self.num_steps += 1;
        let shapes = parameters.shapes();
        let mut slow = gradients.slow.iter();
        for ((shape, tensor), state) in shapes
            .iter()
            .zip(&mut parameters.tensors)
            .zip(&mut self.dense)
        {
            let Some(state) = state else { continue };
            let Some(Some(gradient)) = slow.next() else {
                continue;
            };
            let is_matrix =
                shape.num_rows > 1 && !shape.name.contains("norm") && !shape.name.ends_with("bias");
            let weight_decay = if is_matrix { config.weight_decay } else { 0.0 };
            state.step(tensor, gradient, config.learning_rate, weight_decay);
        }
        if config.row_learning_rate == 0.0 {
            return;
        }
        let dim = parameters.spec.embedding_dim as usize;
        let id_rows = parameters.tensor_mut("item.id_rows");
        for (gradient, row) in gradients.id_rows.chunks_exact(dim).zip(rows) {
            self.id_rows.step_row(
                id_rows,
                *row as usize,
                gradient,
                config.row_learning_rate,
                config.weight_decay,
            );
        }
        let bias = parameters.tensor_mut("item.bias");
        for (gradient, row) in gradients.bias.chunks_exact(1).zip(rows) {
            self.bias.step_row(
                bias,
                *row as usize,
                gradient,
                config.bias_learning_rate,
                0.0,
            );
        }
        let prior = parameters.tensor_mut("prior.weights");
        self.prior
            .step(prior, &gradients.prior, config.prior_learning_rate, 0.0);
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
pub(super) fn read<const D: usize>(tensor: Tensor<D>, step: u64) -> Result<Vec<f32>, TrainError> {
    let device_error = |reason: String| TrainError::Device { step, reason };
    tensor
        .into_data()
        .try_into_vec::<f32>()
        .map_err(|error| device_error(format!("{error:?}")))
}
