//! Fast step: item rows, biases and prior weights, learned from the newest events in milliseconds.
//!
//! The user vectors `u_p` come from the *published* version and are constants, so that rows are fitted
//! to the slow weights that pages really have. With `s_pi = u_p·v_i + b_i + prior_i + w·gain_pi`,
//!
//! ```text
//! loss = Σ_p weight_p (ln Σ_i e^{s_pi} − s_p,target)     plain SGD on id rows and biases
//! ```
//!
//! with a step size per row, `η_i = η (1 + boost / (1 + count_i))`, `count_i` the item's decayed count at the
//! longest half-life: a row that has hardly been seen has everything to learn.
//! The few weights that all items share, of taste, item prior and neighbours, have steps of their own:
//! `shared_weights`. Rows are learned as in full steps, with taste at weight 1.
//! The softmax is over all items of a small catalogue, over targets and uniform negatives of a large one.
//! Negatives move too, by little each time: were they left alone, every row that is touched would only
//! ever rise. Which of these changes are published is the choice of `compress`, by gain per byte.

mod shared_weights;

use burn::tensor::{Device, Tensor};
use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use shared_model::model::parameters::ParameterSet;
use shared_model::model::ranker::{ints, item_vectors, matrix};

use super::TrainError;
use super::full_step::{gather, read};
use super::losses::log_sum_exp;

pub use shared_weights::SharedWeights;

/// Largest catalogue over which the softmax is full.
const FULL_SOFTMAX_ITEMS_MAX: usize = 16_384;
/// Longest move of one row in one step: a bound on what a burst of equal events can do at once.
const ROW_STEP_MAX: f32 = 0.5;

/// How a fast step learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FastStepConfig {
    /// Of id rows, per event.
    pub learning_rate: f32,
    /// Of biases, per event.
    pub bias_learning_rate: f32,
    /// How many times faster a row without events learns, beyond once.
    pub cold_boost: f32,
    /// Events after which the weights that all items share have forgotten most of what they were told.
    pub shared_memory_events: f64,
    /// Negatives of a large catalogue.
    pub num_negatives: usize,
}

/// Optimizer state of fast steps; part of the checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FastOptimizer {
    /// Of the weights that all items share.
    pub shared: SharedWeights,
    /// Fast steps so far.
    pub num_steps: u64,
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
    /// Products of user and item vector in them, `[num_events, num_items]`.
    pub tastes: Vec<f32>,
    /// Target item of each event.
    pub targets: Vec<u32>,
    /// Weight of each event as a target.
    pub weights: Vec<f32>,
    /// Row of `prior_features` of each event.
    pub moments: Vec<u32>,
    /// Prior features per distinct moment, each `[num_items, num_half_lives]`.
    pub prior_features: Vec<Vec<f32>>,
    /// Items that gain by neighbours and how much, by event.
    pub neighbour_gains: Vec<Vec<(u32, f32)>>,
}

/// What a fast step did.
#[derive(Debug, Clone, PartialEq)]
pub struct FastReport {
    /// Mean loss before the step.
    pub loss: f32,
    /// Rows that moved, ascending.
    pub rows: Vec<u32>,
}

/// Moves the rows of the competing items.
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
    rng: &mut StdRng,
) -> Result<FastReport, TrainError> {
    let step = optimizer.num_steps;
    let rows = competing_rows(events, config.num_negatives, rng);
    let (loss, id_gradient, bias_gradient) =
        gradients(parameters, events, &rows, content, device, step)?;
    if !loss.is_finite() {
        return Err(TrainError::LossNotFinite { loss, step });
    }
    let squared: f32 = id_gradient
        .iter()
        .chain(&bias_gradient)
        .map(|g| g * g)
        .sum();
    if !squared.is_finite() {
        return Err(TrainError::GradientNotFinite {
            norm: squared.sqrt(),
            step,
        });
    }
    let dim = parameters.spec.embedding_dim as usize;
    let boosts = cold_boosts(events, &rows, config.cold_boost);
    let id_rows = parameters.tensor_mut("item.id_rows");
    for ((gradient, row), boost) in id_gradient.chunks_exact(dim).zip(&rows).zip(&boosts) {
        let first = *row as usize * dim;
        descend(
            &mut id_rows[first..first + dim],
            gradient,
            config.learning_rate * boost,
        );
    }
    let bias = parameters.tensor_mut("item.bias");
    for ((gradient, row), boost) in bias_gradient.chunks_exact(1).zip(&rows).zip(&boosts) {
        descend(
            &mut bias[*row as usize..=*row as usize],
            gradient,
            config.bias_learning_rate * boost,
        );
    }
    let memory_events = config.shared_memory_events;
    optimizer.shared.step(parameters, events, memory_events);
    optimizer.num_steps += 1;
    let weight_sum = events.weights.iter().sum::<f32>().max(f32::MIN_POSITIVE);
    Ok(FastReport {
        loss: loss / weight_sum,
        rows,
    })
}

/// `1 + boost / (1 + count)` per row, from the newest moment's feature `log2(1 + count)` at the longest half-life.
fn cold_boosts(events: &ScoredEvents, rows: &[u32], cold_boost: f32) -> Vec<f32> {
    let Some(features) = events.prior_features.last() else {
        return vec![1.0; rows.len()];
    };
    let num_half_lives = features.len() / events.num_items;
    let longest = |row: &u32| features[(*row as usize + 1) * num_half_lives - 1];
    rows.iter()
        .map(|row| 1.0 + cold_boost * (-longest(row)).exp2())
        .collect()
}

/// One SGD step on a row, no longer than [`ROW_STEP_MAX`].
fn descend(row: &mut [f32], gradient: &[f32], learning_rate: f32) {
    let length = learning_rate * gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
    let scale = if length > ROW_STEP_MAX {
        learning_rate * ROW_STEP_MAX / length
    } else {
        learning_rate
    };
    for (value, g) in row.iter_mut().zip(gradient) {
        *value -= scale * g;
    }
}

/// Rows in the softmax, ascending: all of a small catalogue, else targets and uniform negatives.
fn competing_rows(events: &ScoredEvents, num_negatives: usize, rng: &mut StdRng) -> Vec<u32> {
    let num_items = events.num_items as u32; // fits: NUM_ITEMS_MAX is 2^20
    if events.num_items <= FULL_SOFTMAX_ITEMS_MAX {
        return (0..num_items).collect();
    }
    let mut rows = events.targets.clone();
    rows.extend((0..num_negatives).map(|_| rng.random_range(0..num_items)));
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Summed loss and the gradients of id rows `[num_rows, dim]` and biases `[num_rows, 1]`.
fn gradients(
    parameters: &ParameterSet,
    events: &ScoredEvents,
    rows: &[u32],
    content: &[f32],
    device: &Device,
    step: u64,
) -> Result<(f32, Vec<f32>, Vec<f32>), TrainError> {
    let dim = parameters.spec.embedding_dim as usize;
    let num_events = events.targets.len();
    let gathered = |table: &[f32], num_cols| {
        matrix(&gather(table, num_cols, rows), rows.len(), num_cols, device)
    };
    let id_rows = gathered(parameters.tensor("item.id_rows"), dim).require_grad();
    let bias = gathered(parameters.tensor("item.bias"), 1).require_grad();
    let content = (!content.is_empty()).then(|| gathered(content, dim));
    let vectors = item_vectors(content, id_rows.clone());
    let users = matrix(&events.users, num_events, dim, device);
    let constants = matrix(
        &constant_scores(parameters, events, rows),
        num_events,
        rows.len(),
        device,
    );
    let scores =
        users.clone().matmul(vectors.clone().transpose()) + bias.clone().transpose() + constants;
    let targets: Vec<i32> = events
        .targets
        .iter()
        .map(|target| rows.partition_point(|row| row < target) as i32)
        .collect(); // fits like rows
    let (targets, weights) = (
        ints(&targets, device),
        matrix(&events.weights, num_events, 1, device),
    );
    let target_vectors = vectors.select(0, targets.clone());
    // The target's prior and gain are constants of the gradient and of no interest in the loss.
    let target_scores = (users * target_vectors).sum_dim(1) + bias.clone().select(0, targets);
    let loss = ((log_sum_exp(scores) - target_scores) * weights).sum();
    let value = read(loss.clone().reshape([1]), step)?[0];
    let gradients = loss.backward();
    let host = |leaf: &Tensor<2>| match leaf.grad(&gradients) {
        Some(gradient) => read(gradient, step),
        None => Ok(vec![0.0; leaf.dims().iter().product()]),
    };
    Ok((value, host(&id_rows)?, host(&bias)?))
}

/// Prior and gain by neighbours of every competing row at every event, and the logQ correction of sampled
/// negatives: `[num_events, num_rows]`.
fn constant_scores(parameters: &ParameterSet, events: &ScoredEvents, rows: &[u32]) -> Vec<f32> {
    let weights = parameters.tensor("prior.weights");
    let is_sampled = rows.len() < events.num_items;
    let log_q = if is_sampled {
        (events.num_items as f32 / rows.len() as f32).ln()
    } else {
        0.0
    };
    let mut is_target = vec![false; events.num_items];
    for target in &events.targets {
        is_target[*target as usize] = true;
    }
    let by_moment: Vec<Vec<f32>> = events
        .prior_features
        .iter()
        .map(|features| {
            let prior = |row: &u32| {
                let row_idx = *row as usize;
                let row = &features[row_idx * weights.len()..][..weights.len()];
                let correction = if is_target[row_idx] { 0.0 } else { log_q };
                row.iter()
                    .zip(weights)
                    .map(|(feature, weight)| feature * weight)
                    .sum::<f32>()
                    + correction
            };
            rows.iter().map(prior).collect()
        })
        .collect();
    let mut constants: Vec<f32> = events
        .moments
        .iter()
        .flat_map(|moment| by_moment[*moment as usize].iter().copied())
        .collect();
    let weight = parameters.neighbour_weight();
    for (row, gains) in constants
        .chunks_exact_mut(rows.len())
        .zip(&events.neighbour_gains)
    {
        for (item_idx, gain) in gains {
            if let Ok(local) = rows.binary_search(item_idx) {
                row[local] += weight * gain;
            }
        }
    }
    constants
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::init::init_parameters;
    use rand::SeedableRng;
    use shared_model::spec::ModelSpec;

    pub(super) fn tiny() -> (ParameterSet, ScoredEvents) {
        let spec = ModelSpec {
            embedding_dim: 4,
            num_heads: 1,
            text_dim: 0,
            half_lives_secs: vec![60],
            num_neighbours: 1,
            ..Default::default()
        };
        let mut parameters = init_parameters(&spec, 5, 1);
        parameters.tensor_mut("item.id_rows").fill(0.1);
        let events = ScoredEvents {
            num_items: 5,
            users: vec![1.0, -2.0, 0.5, 0.0, 1.0, -2.0, 0.5, 0.0],
            scores: vec![0.0; 10],
            tastes: vec![0.0; 10],
            targets: vec![3, 3],
            weights: vec![1.0, 1.0],
            moments: vec![0, 0],
            prior_features: vec![vec![0.0; 5]],
            neighbour_gains: vec![vec![(3, 2.0), (1, 1.0)], Vec::new()],
        };
        (parameters, events)
    }

    pub(super) fn step(
        parameters: &mut ParameterSet,
        events: &ScoredEvents,
    ) -> Result<FastReport, TrainError> {
        let mut optimizer = FastOptimizer::default();
        let config = FastStepConfig {
            learning_rate: 0.01,
            bias_learning_rate: 0.01,
            cold_boost: 0.0,
            shared_memory_events: 1000.0,
            num_negatives: 8,
        };
        let mut rng = StdRng::seed_from_u64(1);
        fast_step(
            parameters,
            &mut optimizer,
            events,
            &[],
            &config,
            &Device::flex().autodiff(),
            &mut rng,
        )
    }

    #[test]
    fn the_target_rises_and_its_competitors_fall() {
        let (mut parameters, events) = tiny();
        let before = parameters.clone();
        let first = step(&mut parameters, &events).expect("finite").loss;
        let (bias, bias_before) = (parameters.tensor("item.bias"), before.tensor("item.bias"));
        assert!(bias[3] > bias_before[3] && bias[0] < bias_before[0]);
        let sum: f32 = bias.iter().zip(bias_before).map(|(a, b)| a - b).sum();
        assert!(sum.abs() < 1e-6, "what the target gains the others lose");
        assert!(step(&mut parameters, &events).expect("finite").loss < first);
    }

    #[test]
    fn a_burst_cannot_move_a_row_further_than_the_bound() {
        let (mut parameters, mut events) = tiny();
        events.weights = vec![1.0e6, 1.0e6];
        let before = parameters.clone();
        step(&mut parameters, &events).expect("finite");
        let rows = parameters
            .tensor("item.id_rows")
            .chunks(4)
            .zip(before.tensor("item.id_rows").chunks(4));
        for (row, row_before) in rows {
            let moved: f32 = row
                .iter()
                .zip(row_before)
                .map(|(a, b)| (a - b) * (a - b))
                .sum::<f32>()
                .sqrt();
            assert!(moved <= ROW_STEP_MAX * 1.001);
        }
    }

    #[test]
    fn a_non_finite_user_vector_skips_the_step() {
        let (mut parameters, mut events) = tiny();
        events.users[0] = f32::NAN;
        let before = parameters.clone();
        assert!(matches!(
            step(&mut parameters, &events),
            Err(TrainError::LossNotFinite { .. })
        ));
        assert_eq!(parameters, before);
    }
}
