//! Full step: one optimizer update of slow weights and (in the warm fit) rows on a batch of windows.
//!
//! Loss = next item, softmax over all items of a small catalogue or over uniform negatives of a large
//! one, with the logQ correction `+ ln(num_items / num_negatives)` on the negatives (Bengio & Senécal 2008),
//! plus binary cross-entropy of the click head and squared error of the rating head where labelled.

use burn::tensor::activation::softplus;
use burn::tensor::{Device, Gradients, Tensor};
use rand::Rng;
use rand::rngs::StdRng;
use shared_model::model::parameters::ParameterSet;
use shared_model::model::ranker::{Dropout, Ranker, ints, item_vectors, matrix};
use shared_model::model::sequence::{Sequence, SequenceBatch};
use shared_model::spec::TensorGroup;

use super::TrainError;
use super::optimizer::{AdamW, RowAdam, clip_global_norm};
use super::windows::Window;

/// How a full step learns.
#[derive(Debug, Clone, PartialEq)]
pub struct FullStepConfig {
    /// Of the slow weights.
    pub learning_rate: f32,
    /// Of id rows and biases; 0 leaves them alone.
    pub row_learning_rate: f32,
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

/// Momentum of the rows in full steps.
const ROW_MOMENTUM: f32 = 0.9;

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
            id_rows: RowAdam::new(parameters.num_items, dim, ROW_MOMENTUM),
            bias: RowAdam::new(parameters.num_items, 1, ROW_MOMENTUM),
            num_steps: 0,
        }
    }

    /// Makes room for new items.
    pub fn grow(&mut self, num_items: usize) {
        self.id_rows.grow(num_items);
        self.bias.grow(num_items);
    }
}

/// One update of `parameters` on `windows`. `device` must have autodiff.
///
/// # Errors
/// Loss or gradient is not finite, or the device failed; then nothing was changed.
pub fn full_step(
    parameters: &mut ParameterSet,
    optimizer: &mut FullOptimizer,
    windows: &[Window],
    config: &FullStepConfig,
    device: &Device,
    rng: &mut StdRng,
) -> Result<StepReport, TrainError> {
    let step = optimizer.num_steps;
    let batch = Batch::new(windows, parameters.num_items, config.num_negatives, rng);
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
    config: &FullStepConfig,
    device: &Device,
    rng: &mut StdRng,
) -> Result<(f32, HostGradients), TrainError> {
    let batch = Batch::new(windows, parameters.num_items, config.num_negatives, rng);
    differentiate(parameters, &batch, config, device, 0)
}

fn differentiate(
    parameters: &ParameterSet,
    batch: &Batch,
    config: &FullStepConfig,
    device: &Device,
    step: u64,
) -> Result<(f32, HostGradients), TrainError> {
    let leaves = Leaves::new(parameters, batch, device);
    let loss = batch_loss(&leaves, batch, config, device);
    let value = read(loss.clone().reshape([1]), step)?[0];
    if !value.is_finite() {
        return Err(TrainError::LossNotFinite { loss: value, step });
    }
    Ok((value, HostGradients::read(&leaves, &loss.backward(), step)?))
}

/// Integer view of the windows: which rows, which positions, which targets.
struct Batch {
    /// Items of the batch, ascending; local index = position here.
    rows: Vec<u32>,
    sequences: SequenceBatch,
    targets: Vec<Target>,
    /// Local rows that every target competes with.
    candidates: Vec<i32>,
    /// Whether the candidates are the whole catalogue.
    is_full_softmax: bool,
    /// ln(num_items / num_candidates).
    log_q: f32,
    /// One random local row per target, the negative of the click head.
    click_negatives: Vec<i32>,
}

struct Target {
    position: i32,
    row: i32,
    target_weight: f32,
    click: Option<bool>,
    rating: Option<f32>,
}

impl Batch {
    fn new(windows: &[Window], num_items: usize, num_negatives: usize, rng: &mut StdRng) -> Self {
        let is_full_softmax = num_negatives >= num_items;
        let negatives: Vec<u32> = if is_full_softmax {
            (0..num_items as u32).collect() // fits: NUM_ITEMS_MAX is 2^20
        } else {
            (0..num_negatives)
                .map(|_| rng.random_range(0..num_items as u32))
                .collect()
        };
        let mut rows: Vec<u32> = windows
            .iter()
            .flat_map(|window| &window.examples)
            .map(|e| e.item_idx)
            .collect();
        rows.extend(&negatives);
        rows.sort_unstable();
        rows.dedup();
        let mut local = vec![0_i32; num_items];
        for (local_idx, row) in rows.iter().enumerate() {
            local[*row as usize] = local_idx as i32; // fits like the rows
        }
        let inputs: Vec<Sequence> = windows.iter().map(Window::sequence).collect();
        let mut sequences = SequenceBatch::new(&inputs, 0);
        sequences.map_rows(|row| local[row as usize]);
        let targets = targets_of(windows, sequences.num_positions(), &local);
        let candidates: Vec<i32> = negatives.iter().map(|row| local[*row as usize]).collect();
        let click_negatives = targets
            .iter()
            .map(|_| candidates[rng.random_range(0..candidates.len())])
            .collect();
        let log_q = (num_items as f32 / candidates.len() as f32).ln();
        Self {
            rows,
            sequences,
            targets,
            candidates,
            is_full_softmax,
            log_q,
            click_negatives,
        }
    }
}

fn targets_of(windows: &[Window], num_positions: usize, local: &[i32]) -> Vec<Target> {
    let mut targets = Vec::new();
    for (window_idx, window) in windows.iter().enumerate() {
        for (position, example) in window.targets() {
            if example.target_weight > 0.0 || example.click.is_some() || example.rating.is_some() {
                targets.push(Target {
                    position: (window_idx * num_positions + position) as i32, // fits: a batch is small
                    row: local[example.item_idx as usize],
                    target_weight: example.target_weight,
                    click: example.click,
                    rating: example.rating,
                });
            }
        }
    }
    targets
}

/// Weights and rows of the batch on the device, as leaves with gradients.
struct Leaves {
    ranker: Ranker,
    id_rows: Tensor<2>,
    bias: Tensor<2>,
    vectors: Tensor<2>,
}

impl Leaves {
    fn new(parameters: &ParameterSet, batch: &Batch, device: &Device) -> Self {
        let ranker = Ranker::init(parameters, device).require_grad();
        let gathered = |name: &str, num_cols: usize| {
            let table = parameters.tensor(name);
            (num_cols > 0).then(|| {
                matrix(
                    &gather(table, num_cols, &batch.rows),
                    batch.rows.len(),
                    num_cols,
                    device,
                )
            })
        };
        let spec = &parameters.spec;
        let text = gathered("item.text", spec.text_dim as usize);
        let features = gathered("item.features", spec.feature_dim as usize);
        let id_rows = gathered("item.id_rows", spec.embedding_dim as usize)
            .expect("dim is at least 4")
            .require_grad();
        let bias = gathered("item.bias", 1).expect("one column").require_grad();
        let content = ranker.content_vectors(text, features);
        let vectors = item_vectors(content, id_rows.clone());
        Self {
            ranker,
            id_rows,
            bias,
            vectors,
        }
    }
}

fn batch_loss(
    leaves: &Leaves,
    batch: &Batch,
    config: &FullStepConfig,
    device: &Device,
) -> Tensor<1> {
    let hidden = leaves
        .ranker
        .forward(&leaves.vectors, &batch.sequences, Dropout(config.dropout));
    let [num_sequences, num_positions, dim] = hidden.dims();
    let positions: Vec<i32> = batch.targets.iter().map(|target| target.position).collect();
    let rows: Vec<i32> = batch.targets.iter().map(|target| target.row).collect();
    let users = hidden
        .reshape([num_sequences * num_positions, dim])
        .select(0, ints(&positions, device));
    let rows = ints(&rows, device);
    let products = users.clone() * leaves.vectors.clone().select(0, rows.clone());
    let scores = products.clone().sum_dim(1) + leaves.bias.clone().select(0, rows);

    let mut loss = next_item_loss(leaves, batch, &users, &scores, device);
    let (click_head, rating_head) = leaves.ranker.heads();
    if config.click_weight > 0.0 && batch.targets.iter().any(|target| target.click.is_some()) {
        let click = click_loss(
            leaves,
            batch,
            &users,
            &products,
            &scores,
            &click_head,
            device,
        );
        loss = loss + click * config.click_weight;
    }
    if config.rating_weight > 0.0 && batch.targets.iter().any(|target| target.rating.is_some()) {
        loss = loss + rating_loss(batch, &products, &rating_head, device) * config.rating_weight;
    }
    loss
}

/// Mean over next-item targets of `logsumexp(candidates ∪ target) − target`.
fn next_item_loss(
    leaves: &Leaves,
    batch: &Batch,
    users: &Tensor<2>,
    scores: &Tensor<2>,
    device: &Device,
) -> Tensor<1> {
    let num_targets = batch.targets.len();
    let weights: Vec<f32> = batch
        .targets
        .iter()
        .map(|target| target.target_weight)
        .collect();
    let num_next = weights.iter().sum::<f32>().max(1.0);
    let candidates = ints(&batch.candidates, device);
    let vectors = if batch.is_full_softmax {
        leaves.vectors.clone()
    } else {
        leaves.vectors.clone().select(0, candidates.clone())
    };
    let bias = if batch.is_full_softmax {
        leaves.bias.clone()
    } else {
        leaves.bias.clone().select(0, candidates)
    };
    let mut logits = users.clone().matmul(vectors.transpose()) + bias.transpose();
    if !batch.is_full_softmax {
        let hits = accidental_hits(batch, device);
        logits = Tensor::cat(vec![logits + hits + batch.log_q, scores.clone()], 1);
    }
    let losses = log_sum_exp(logits) - scores.clone();
    (losses * matrix(&weights, num_targets, 1, device)).sum() / num_next
}

/// −∞ (as a large finite number) where a negative is the target itself.
fn accidental_hits(batch: &Batch, device: &Device) -> Tensor<2> {
    let num_candidates = batch.candidates.len();
    let mut mask = vec![0.0_f32; batch.targets.len() * num_candidates];
    for (row, target) in mask.chunks_exact_mut(num_candidates).zip(&batch.targets) {
        for (cell, candidate) in row.iter_mut().zip(&batch.candidates) {
            if *candidate == target.row {
                *cell = -1.0e9;
            }
        }
    }
    matrix(&mask, batch.targets.len(), num_candidates, device)
}

/// `ln Σ exp` over the last axis, `[n, m]` → `[n, 1]`.
pub(super) fn log_sum_exp(logits: Tensor<2>) -> Tensor<2> {
    let max = logits.clone().detach().max_dim(1);
    (logits - max.clone()).exp().sum_dim(1).log() + max
}

fn click_loss(
    leaves: &Leaves,
    batch: &Batch,
    users: &Tensor<2>,
    products: &Tensor<2>,
    scores: &Tensor<2>,
    head: &Tensor<2>,
    device: &Device,
) -> Tensor<1> {
    let negatives = ints(&batch.click_negatives, device);
    let negative_products = users.clone() * leaves.vectors.clone().select(0, negatives.clone());
    let negative_scores =
        negative_products.clone().sum_dim(1) + leaves.bias.clone().select(0, negatives);
    let labels: Vec<f32> = batch
        .targets
        .iter()
        .map(|target| f32::from(u8::from(target.click == Some(true))))
        .collect();
    let labelled: Vec<f32> = batch
        .targets
        .iter()
        .map(|target| f32::from(u8::from(target.click.is_some())))
        .collect();
    let positives: Vec<f32> = labels.clone();
    let num_labelled = labelled.iter().sum::<f32>() + positives.iter().sum::<f32>();
    let column = |values: &[f32]| matrix(values, values.len(), 1, device);
    let logits = click_logits(products.clone(), scores.clone(), head);
    let losses = (softplus(logits.clone(), 1.0) - logits * column(&labels)) * column(&labelled);
    let negative_logits = click_logits(negative_products, negative_scores, head);
    let negative_losses = softplus(negative_logits, 1.0) * column(&positives);
    (losses.sum() + negative_losses.sum()) / num_labelled.max(1.0)
}

/// `m·(u∘v) + a·score + b` with `head = [m, a, b]`.
fn click_logits(products: Tensor<2>, scores: Tensor<2>, head: &Tensor<2>) -> Tensor<2> {
    let dim = products.dims()[1];
    let direction = head.clone().slice([0..1, 0..dim]).transpose();
    let slope = head.clone().slice([0..1, dim..dim + 1]);
    let intercept = head.clone().slice([0..1, dim + 1..dim + 2]);
    products.matmul(direction) + scores * slope + intercept
}

fn rating_loss(
    batch: &Batch,
    products: &Tensor<2>,
    head: &Tensor<2>,
    device: &Device,
) -> Tensor<1> {
    let dim = products.dims()[1];
    let ratings: Vec<f32> = batch
        .targets
        .iter()
        .map(|target| target.rating.unwrap_or(0.0))
        .collect();
    let labelled: Vec<f32> = batch
        .targets
        .iter()
        .map(|target| f32::from(u8::from(target.rating.is_some())))
        .collect();
    let direction = head.clone().slice([0..1, 0..dim]).transpose();
    let predicted = products.clone().matmul(direction) + head.clone().slice([0..1, dim..dim + 1]);
    let errors = (predicted - matrix(&ratings, ratings.len(), 1, device)).powi_scalar(2);
    let num_labelled = labelled.iter().sum::<f32>().max(1.0);
    (errors * matrix(&labelled, labelled.len(), 1, device)).sum() / num_labelled
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
            self.bias
                .step_row(bias, *row as usize, gradient, config.row_learning_rate, 0.0);
        }
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
