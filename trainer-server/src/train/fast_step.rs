//! Fast step: the rows, biases and prior weights that the newest events speak of, learned in milliseconds.
//!
//! The user vectors come from the *published* version, so that rows are fitted to the slow weights
//! that the pages really have. Only rows of next-item targets move; every other item is a fixed
//! competitor in the softmax, so a fast version changes few rows.
//!
//! With `L` the log-sum-exp of the published scores of all untouched items (a constant),
//! `loss_p = ln(e^L + Σ_r e^{s_pr}) − s_p,target`, `s_pr = u_p·v_r + b_r + prior_r`.

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use shared_model::model::parameters::ParameterSet;
use shared_model::model::ranker::{item_vectors, matrix};

use super::TrainError;
use super::full_step::{gather, log_sum_exp, read};
use super::optimizer::{AdamW, RowAdam, clip_global_norm};

/// How a fast step learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FastStepConfig {
    /// Of id rows and biases.
    pub learning_rate: f32,
    /// Of the prior weights.
    pub prior_learning_rate: f32,
    /// Gradient passes over the same events.
    pub num_passes: u32,
    /// Bound of the global gradient norm.
    pub gradient_norm_max: f32,
}

/// Optimizer state of fast steps; part of the checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FastOptimizer {
    /// Of `item.id_rows`.
    pub id_rows: RowAdam,
    /// Of `item.bias`.
    pub bias: RowAdam,
    /// Of `prior.weights`.
    pub prior: AdamW,
    /// Fast steps so far.
    pub num_steps: u64,
}

impl FastOptimizer {
    /// Fresh state.
    #[must_use]
    pub fn new(parameters: &ParameterSet) -> Self {
        Self {
            id_rows: RowAdam::new(parameters.num_items, parameters.spec.embedding_dim as usize, 0.0),
            bias: RowAdam::new(parameters.num_items, 1, 0.0),
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

/// Events to learn from, already scored by the published version.
#[derive(Debug, Clone)]
pub struct ScoredEvents {
    /// Items of the published version.
    pub num_items: usize,
    /// User vectors, `[num_events, embedding_dim]`.
    pub users: Vec<f32>,
    /// Published scores, `[num_events, num_items]`.
    pub scores: Vec<f32>,
    /// Target item of each event.
    pub targets: Vec<u32>,
    /// Weight of each event as a target.
    pub weights: Vec<f32>,
    /// Row of `prior_features` of each event.
    pub moments: Vec<u32>,
    /// Prior features per distinct moment, each `[num_items, num_half_lives]`.
    pub prior_features: Vec<Vec<f32>>,
}

impl ScoredEvents {
    /// Distinct targets, ascending: the rows that may move.
    #[must_use]
    pub fn rows(&self) -> Vec<u32> {
        let mut rows = self.targets.clone();
        rows.sort_unstable();
        rows.dedup();
        rows
    }
}

/// Moves the rows of the targets; returns the mean loss before the step.
///
/// `content` are the content vectors of the published slow weights, `[num_items, embedding_dim]`, empty
/// where there are neither texts nor features. `device` must have autodiff.
///
/// # Errors
/// Loss or gradient is not finite, or the device failed; then nothing was changed.
pub fn fast_step(
    parameters: &mut ParameterSet,
    optimizer: &mut FastOptimizer,
    events: &ScoredEvents,
    content: &[f32],
    config: &FastStepConfig,
    device: &Device,
) -> Result<f32, TrainError> {
    let step = optimizer.num_steps;
    let rows = events.rows();
    let fixed = FixedTerms::new(events, &rows, parameters, content, device);
    let mut first_loss = None;
    for _ in 0..config.num_passes {
        let (loss, mut id_gradient, mut bias_gradient) = fixed.gradients(parameters, &rows, device, step)?;
        if !loss.is_finite() {
            return Err(TrainError::LossNotFinite { loss, step });
        }
        let norm = clip_global_norm(&mut [&mut id_gradient, &mut bias_gradient], config.gradient_norm_max);
        if !norm.is_finite() {
            return Err(TrainError::GradientNotFinite { norm, step });
        }
        first_loss.get_or_insert(loss);
        let dim = parameters.spec.embedding_dim as usize;
        let id_rows = parameters.tensor_mut("item.id_rows");
        for (gradient, row) in id_gradient.chunks_exact(dim).zip(&rows) {
            optimizer.id_rows.step_row(id_rows, *row as usize, gradient, config.learning_rate, 0.0);
        }
        let bias = parameters.tensor_mut("item.bias");
        for (gradient, row) in bias_gradient.chunks_exact(1).zip(&rows) {
            optimizer.bias.step_row(bias, *row as usize, gradient, config.learning_rate, 0.0);
        }
    }
    let prior_gradient = prior_gradient(events);
    if prior_gradient.iter().all(|g| g.is_finite()) {
        let weights = parameters.tensor_mut("prior.weights");
        optimizer.prior.step(weights, &prior_gradient, config.prior_learning_rate, 0.0);
    }
    optimizer.num_steps += 1;
    Ok(first_loss.unwrap_or(0.0))
}

/// What does not change between the passes over one batch.
struct FixedTerms {
    users: Tensor<2>,
    content: Option<Tensor<2>>,
    /// Prior of the moving rows, `[num_events, num_rows]`.
    priors: Tensor<2>,
    /// Log-sum-exp of all other items, `[num_events, 1]`.
    rest: Tensor<2>,
    /// 1 at the target, `[num_events, num_rows]`.
    one_hot: Tensor<2>,
    weights: Tensor<2>,
    weight_sum: f32,
}

impl FixedTerms {
    fn new(events: &ScoredEvents, rows: &[u32], parameters: &ParameterSet, content: &[f32], device: &Device) -> Self {
        let num_events = events.targets.len();
        let dim = parameters.spec.embedding_dim as usize;
        let weights = parameters.tensor("prior.weights");
        let mut priors = Vec::with_capacity(num_events * rows.len());
        let mut one_hot = vec![0.0_f32; num_events * rows.len()];
        let mut rest = Vec::with_capacity(num_events);
        for event_idx in 0..num_events {
            let features = &events.prior_features[events.moments[event_idx] as usize];
            priors.extend(rows.iter().map(|row| dot(&features[*row as usize * weights.len()..][..weights.len()], weights)));
            let target_row = rows.binary_search(&events.targets[event_idx]).expect("rows hold every target");
            one_hot[event_idx * rows.len() + target_row] = 1.0;
            let scores = &events.scores[event_idx * events.num_items..][..events.num_items];
            rest.push(log_sum_exp_without(scores, rows));
        }
        let content = (!content.is_empty()).then(|| matrix(&gather(content, dim, rows), rows.len(), dim, device));
        Self {
            users: matrix(&events.users, num_events, dim, device),
            content,
            priors: matrix(&priors, num_events, rows.len(), device),
            rest: matrix(&rest, num_events, 1, device),
            one_hot: matrix(&one_hot, num_events, rows.len(), device),
            weights: matrix(&events.weights, num_events, 1, device),
            weight_sum: events.weights.iter().sum::<f32>().max(1.0),
        }
    }

    /// Loss and the gradients of id rows `[num_rows, dim]` and biases `[num_rows, 1]`.
    fn gradients(
        &self,
        parameters: &ParameterSet,
        rows: &[u32],
        device: &Device,
        step: u64,
    ) -> Result<(f32, Vec<f32>, Vec<f32>), TrainError> {
        let dim = parameters.spec.embedding_dim as usize;
        let leaf = |name: &str, num_cols: usize| {
            matrix(&gather(parameters.tensor(name), num_cols, rows), rows.len(), num_cols, device).require_grad()
        };
        let id_rows = leaf("item.id_rows", dim);
        let bias = leaf("item.bias", 1);
        let vectors = item_vectors(self.content.clone(), id_rows.clone());
        let scores = self.users.clone().matmul(vectors.transpose()) + bias.clone().transpose() + self.priors.clone();
        let normalizer = log_sum_exp(Tensor::cat(vec![scores.clone(), self.rest.clone()], 1));
        let target_scores = (scores * self.one_hot.clone()).sum_dim(1);
        let loss = ((normalizer - target_scores) * self.weights.clone()).sum() / self.weight_sum;
        let value = read(loss.clone().reshape([1]), step)?[0];
        let gradients = loss.backward();
        let host = |leaf: &Tensor<2>| match leaf.grad(&gradients) {
            Some(gradient) => read(gradient, step),
            None => Ok(vec![0.0; leaf.dims().iter().product()]),
        };
        Ok((value, host(&id_rows)?, host(&bias)?))
    }
}

/// Gradient of the mean loss to the prior weights, from the published scores:
/// `∂/∂w_h = Σ_p weight_p (Σ_i softmax_pi f_ih − f_target,h)`.
fn prior_gradient(events: &ScoredEvents) -> Vec<f32> {
    let num_items = events.num_items;
    let num_half_lives = events.prior_features.first().map_or(0, |features| features.len() / num_items);
    let mut gradient = vec![0.0_f32; num_half_lives];
    let weight_sum = events.weights.iter().sum::<f32>().max(1.0);
    for (event_idx, target) in events.targets.iter().enumerate() {
        let scores = &events.scores[event_idx * num_items..][..num_items];
        let features = &events.prior_features[events.moments[event_idx] as usize];
        let normalizer = log_sum_exp_without(scores, &[]);
        let weight = events.weights[event_idx] / weight_sum;
        for (score, row) in scores.iter().zip(features.chunks_exact(num_half_lives)) {
            let share = (score - normalizer).exp() * weight;
            for (cell, feature) in gradient.iter_mut().zip(row) {
                *cell += share * feature;
            }
        }
        let target_row = &features[*target as usize * num_half_lives..][..num_half_lives];
        for (cell, feature) in gradient.iter_mut().zip(target_row) {
            *cell -= weight * feature;
        }
    }
    gradient
}

/// `ln Σ exp(scores)` over all but the `excluded` (ascending) indices; very small where nothing is left.
fn log_sum_exp_without(scores: &[f32], excluded: &[u32]) -> f32 {
    let max = scores.iter().copied().fold(f32::MIN, f32::max);
    let total: f32 = scores.iter().map(|score| (score - max).exp()).sum();
    let taken: f32 = excluded.iter().map(|idx| (scores[*idx as usize] - max).exp()).sum();
    (total - taken).max(f32::MIN_POSITIVE).ln() + max
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::init::init_parameters;
    use shared_model::spec::ModelSpec;

    fn tiny() -> (ParameterSet, ScoredEvents) {
        let spec = ModelSpec { embedding_dim: 4, num_heads: 1, text_dim: 0, half_lives_secs: vec![60], ..Default::default() };
        let mut parameters = init_parameters(&spec, 5, 1);
        parameters.tensor_mut("item.id_rows").fill(0.1);
        let events = ScoredEvents {
            num_items: 5,
            users: vec![1.0, -2.0, 0.5, 0.0, 1.0, -2.0, 0.5, 0.0],
            scores: vec![0.0; 10],
            targets: vec![3, 3],
            weights: vec![1.0, 1.0],
            moments: vec![0, 0],
            prior_features: vec![vec![0.0; 5]],
        };
        (parameters, events)
    }

    #[test]
    fn only_target_rows_move_and_the_loss_falls() {
        let (mut parameters, events) = tiny();
        let before = parameters.clone();
        let mut optimizer = FastOptimizer::new(&parameters);
        let config =
            FastStepConfig { learning_rate: 0.05, prior_learning_rate: 0.0, num_passes: 1, gradient_norm_max: 5.0 };
        let device = Device::flex().autodiff();
        let first = fast_step(&mut parameters, &mut optimizer, &events, &[], &config, &device).expect("finite");
        let second = fast_step(&mut parameters, &mut optimizer, &events, &[], &config, &device).expect("finite");
        assert!(second < first);
        let (id_rows, id_rows_before) = (parameters.tensor("item.id_rows"), before.tensor("item.id_rows"));
        assert_eq!(id_rows[..12], id_rows_before[..12]);
        assert_ne!(id_rows[12..16], id_rows_before[12..16]);
        assert_eq!(id_rows[16..], id_rows_before[16..]);
    }

    #[test]
    fn a_non_finite_user_vector_skips_the_step() {
        let (mut parameters, mut events) = tiny();
        events.users[0] = f32::NAN;
        let before = parameters.clone();
        let mut optimizer = FastOptimizer::new(&parameters);
        let config =
            FastStepConfig { learning_rate: 0.05, prior_learning_rate: 0.1, num_passes: 2, gradient_norm_max: 5.0 };
        let outcome =
            fast_step(&mut parameters, &mut optimizer, &events, &[], &config, &Device::flex().autodiff());
        assert!(matches!(outcome, Err(TrainError::LossNotFinite { .. })));
        assert_eq!(parameters, before);
    }
}
