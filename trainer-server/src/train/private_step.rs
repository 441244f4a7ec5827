//! Private step: one update from gradients of single clients, clipped, summed and noised.
//!
//! ```text
//! g̃ = ( Σ_{u ∈ S} g_u · min(1, C/‖g_u‖₂)  +  N(0, σ²C²·I) ) / L
//! ```
//! (Abadi et al. 2016, per client as in McMahan et al. 2018.) `g_u` is the gradient of one window of client `u` over
//! everything that is trained, `‖·‖₂` its norm over all of that together. `L` is a constant and not the number of
//! clients in `S`, which would tell of them. The noise lies on every weight that is trained, those of items that no
//! client of the step has touched included: which rows move tells nothing.
//! `g_u` may depend on that client's events, on weights that are public, and on coins: nothing else of the log is read,
//! so counts and the item prior are no part of it.
//!
//! Sums, norms and noise are f64. Norms are held below `C` by [`CLIP_MARGIN`], so that rounding cannot lift a sum over
//! it. Not here: who takes part (`learner::private`) and what that costs (`privacy`).

use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::TensorGroup;

use super::count_history::CountHistory;
use super::full_batch::Batch;
use super::full_optimizer::FullOptimizer;
use super::full_step::{FullStepConfig, HostGradients, differentiate};
use super::windows::Window;

/// Clients whose gradients are in memory at the same time.
const CHUNK_CLIENTS: usize = 64;
/// Share by which a clipped norm stays below the clip norm: far above the rounding of f64 sums, far below the noise.
const CLIP_MARGIN: f64 = 1e-9;

/// How a private step learns.
#[derive(Debug, Clone, PartialEq)]
pub struct PrivateStepConfig {
    /// Rates, losses and dropout; what has the rate 0 is not trained. Its own bound of the norm is not used.
    pub step: FullStepConfig,
    /// `C`.
    pub clip_norm: f64,
    /// `σ`.
    pub noise_multiplier: f64,
    /// `L`.
    pub clients_per_step: f64,
}

/// One update of `parameters` by the windows of the clients of a step, one each. `device` must have autodiff, but for
/// flex. `rng` must be a generator that nobody can foretell.
///
/// A client whose gradient is not finite, or cannot be computed, has no part in the step.
pub fn private_step(
    parameters: &mut ParameterSet,
    optimizer: &mut FullOptimizer,
    clients: impl Iterator<Item = Window>,
    config: &PrivateStepConfig,
    device: &Device,
    rng: &mut StdRng,
) {
    let mut sum = ClippedSum::new(parameters);
    let mut clients = clients;
    loop {
        let chunk: Vec<Window> = clients.by_ref().take(CHUNK_CLIENTS).collect();
        if chunk.is_empty() {
            break;
        }
        sum.add(parameters, &chunk, config, device, rng);
    }
    let gradients = sum.noised(config, rng);
    let rows: Vec<u32> = (0..parameters.num_items as u32).collect(); // fits: NUM_ITEMS_MAX is 2^20
    optimizer.apply(parameters, &gradients, &rows, &config.step);
}

/// `Σ_u g_u · min(1, C/‖g_u‖₂)` over all that can be trained.
#[derive(Debug, Clone)]
struct ClippedSum {
    /// Slow tensors in spec order.
    slow: Vec<Vec<f64>>,
    /// `[num_items, embedding_dim]`.
    id_rows: Vec<f64>,
    /// `[num_items]`.
    bias: Vec<f64>,
    num_half_lives: usize,
}

impl ClippedSum {
    fn new(parameters: &ParameterSet) -> Self {
        let shapes = parameters.shapes().into_iter();
        let slow = shapes.filter(|shape| shape.group == TensorGroup::Slow);
        Self {
            slow: slow
                .map(|shape| vec![0.0; shape.num_rows * shape.num_cols])
                .collect(),
            id_rows: vec![0.0; parameters.tensor("item.id_rows").len()],
            bias: vec![0.0; parameters.num_items],
            num_half_lives: parameters.spec.half_lives_secs.len(),
        }
    }

    /// Adds one clipped gradient of each client.
    fn add(
        &mut self,
        parameters: &ParameterSet,
        clients: &[Window],
        config: &PrivateStepConfig,
        device: &Device,
        rng: &mut StdRng,
    ) {
        let nothing_counted = no_counts(parameters);
        let drawn: Vec<(&Window, u64)> = clients
            .iter()
            .map(|window| (window, rng.random()))
            .collect();
        let gradients: Vec<Option<(Vec<u32>, HostGradients)>> = drawn
            .into_par_iter()
            .map(|(window, seed)| {
                of_client(parameters, window, &nothing_counted, config, device, seed)
            })
            .collect();
        for (rows, gradients) in gradients.into_iter().flatten() {
            self.add_clipped(&rows, &gradients, config.clip_norm);
        }
    }

    fn add_clipped(&mut self, rows: &[u32], gradients: &HostGradients, clip_norm: f64) {
        let norm = norm_of(gradients);
        if !norm.is_finite() {
            return;
        }
        let bound = clip_norm * (1.0 - CLIP_MARGIN);
        let factor = if norm > bound { bound / norm } else { 1.0 };
        for (sum, gradient) in self.slow.iter_mut().zip(&gradients.slow) {
            add_scaled(sum, gradient.as_deref().unwrap_or_default(), factor);
        }
        let dim = self.id_rows.len() / self.bias.len().max(1);
        let of_rows = gradients.id_rows.chunks_exact(dim.max(1));
        for (row, gradient) in rows.iter().zip(of_rows) {
            let first = *row as usize * dim;
            add_scaled(&mut self.id_rows[first..first + dim], gradient, factor);
        }
        for (row, gradient) in rows.iter().zip(&gradients.bias) {
            self.bias[*row as usize] += factor * f64::from(*gradient);
        }
    }

    /// The sum with noise on all that is trained, over the constant number of clients.
    fn noised(mut self, config: &PrivateStepConfig, rng: &mut StdRng) -> HostGradients {
        let deviation = if config.noise_multiplier == 0.0 {
            0.0 // also where nothing is clipped
        } else {
            config.noise_multiplier * config.clip_norm
        };
        let mut noised = |values: &mut Vec<f64>, rate: f32| {
            if rate > 0.0 {
                add_noise(values, deviation, rng);
            }
            let means = values.iter().map(|sum| sum / config.clients_per_step);
            means.map(|mean| mean as f32).collect::<Vec<f32>>() // what is far beyond f32 was clipped before
        };
        let step = &config.step;
        let slow = self.slow.iter_mut();
        HostGradients {
            slow: slow
                .map(|values| Some(noised(values, step.learning_rate)))
                .collect(),
            id_rows: noised(&mut self.id_rows, step.row_learning_rate),
            bias: noised(&mut self.bias, step.bias_learning_rate),
            prior: vec![0.0; self.num_half_lives],
        }
    }
}

/// A history in which nothing was counted: what others did is no part of a client's gradient.
fn no_counts(parameters: &ParameterSet) -> CountHistory {
    let half_lives_secs = &parameters.spec.half_lives_secs;
    CountHistory::of(std::iter::empty(), parameters.num_items, half_lives_secs, 0)
}

/// What one client says of what is trained, before clipping, with the items of its rows; `None` where that is nothing.
fn of_client(
    parameters: &ParameterSet,
    window: &Window,
    nothing_counted: &CountHistory,
    config: &PrivateStepConfig,
    device: &Device,
    seed: u64,
) -> Option<(Vec<u32>, HostGradients)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let num_negatives = config.step.num_negatives;
    let windows = std::slice::from_ref(window);
    let num_items = parameters.num_items;
    let batch = Batch::new(windows, nothing_counted, num_items, num_negatives, &mut rng);
    if batch.targets.is_empty() {
        return None;
    }
    let (_, mut gradients) = differentiate(parameters, &batch, &config.step, device, 0).ok()?; // not finite: no part in it
    gradients.prior.fill(0.0);
    if config.step.learning_rate == 0.0 {
        gradients.slow.fill(None);
    }
    if config.step.row_learning_rate == 0.0 {
        gradients.id_rows.fill(0.0);
    }
    if config.step.bias_learning_rate == 0.0 {
        gradients.bias.fill(0.0);
    }
    Some((batch.rows, gradients))
}

fn norm_of(gradients: &HostGradients) -> f64 {
    let slow = gradients.slow.iter().flatten().flatten();
    let all = slow.chain(&gradients.id_rows).chain(&gradients.bias);
    let squared: f64 = all.map(|g| f64::from(*g) * f64::from(*g)).sum();
    squared.sqrt()
}

fn add_scaled(sum: &mut [f64], values: &[f32], factor: f64) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += factor * f64::from(*value);
    }
}

/// Adds independent draws of `N(0, deviation²)`, by the Box–Muller transform.
fn add_noise(values: &mut [f64], deviation: f64, rng: &mut StdRng) {
    for pair in values.chunks_mut(2) {
        let radius = deviation * (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        for (value, direction) in pair.iter_mut().zip([cosine, sine]) {
            *value += radius * direction;
        }
    }
}

#[cfg(test)]
mod tests;
