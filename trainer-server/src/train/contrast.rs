//! Contrastive pretraining of the sequence encoder: two views of a window are to be alike, and unlike all others.
//!
//! CL4SRec (Xie et al. 2022, "Contrastive learning for sequential recommendation"): of every window two views are
//! made by crop, mask or reorder, each with one of the three by chance. The user vectors behind their last events,
//! normed, `z`, are compared by InfoNCE within the batch of `2N` views (Chen et al. 2020, SimCLR, NT-Xent):
//!
//! ```text
//! loss = mean over views a of  ln Σ_{b ≠ a} exp(z_a·z_b / T) − z_a·z_a' / T      a' is the other view of a's window
//! ```
//!
//! Runs before a warm fit, by burn on any device, since it is no part of a full step; there is no host form.
//! Here `T` is the temperature. Not here: what comes after it (`warm_fit`).

use burn::tensor::{Device, Tensor};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use shared_model::model::parameters::ParameterSet;
use shared_model::model::ranker::{Dropout, ints, matrix};

use super::TrainError;
use super::augment::Augmentation;
use super::count_history::CountHistory;
use super::full_batch::Batch;
use super::full_optimizer::FullOptimizer;
use super::full_step::{FullStepConfig, HostGradients, read};
use super::losses::{Leaves, log_sum_exp};
use super::windows::Window;

/// Shorter windows have no two views.
const EVENTS_MIN: usize = 4;
/// Share of events that the view "mask" leaves out.
const MASKED_SHARE: f32 = 0.3;
/// Keeps the length of a vector from zero.
const NORM_EPSILON: f32 = 1e-12;

/// How an encoder is pretrained.
#[derive(Debug, Clone, PartialEq)]
pub struct ContrastConfig {
    /// Step sizes, weight decay, dropout and clipping; its losses are not used.
    pub step: FullStepConfig,
    /// Passes over the windows; 0 for none.
    pub num_epochs: u32,
    /// Windows in one step, at least 2.
    pub batch_size: usize,
    /// T.
    pub temperature: f32,
    /// Of views, order and dropout.
    pub seed: u64,
}

/// Trains `parameters` so that views of one window are alike. Returns the mean loss of every pass.
/// `device` must have autodiff. `keep_going` is asked after every step; `false` ends it early.
///
/// # Errors
/// A loss or gradient is not finite, or the device failed; the parameters are those of the last good step.
pub fn pretrain(
    parameters: &mut ParameterSet,
    windows: &[Window],
    history: &CountHistory,
    config: &ContrastConfig,
    device: &Device,
    mut keep_going: impl FnMut(f32) -> bool,
) -> Result<Vec<f32>, TrainError> {
    let mut rng = StdRng::seed_from_u64(config.seed);
    device.seed(config.seed);
    let mut optimizer = FullOptimizer::new(parameters);
    let long = windows.iter();
    let mut order: Vec<&Window> = long
        .filter(|window| window.examples.len() >= EVENTS_MIN)
        .collect();
    let mut losses = Vec::new();
    for _ in 0..config.num_epochs {
        order.shuffle(&mut rng);
        let (mut sum, mut num_steps) = (0.0, 0);
        for windows in order.chunks(config.batch_size.max(2)) {
            if windows.len() < 2 {
                continue; // one window has nothing to be unlike
            }
            let loss = step(
                parameters,
                &mut optimizer,
                windows,
                history,
                config,
                device,
                &mut rng,
            )?;
            if !keep_going(loss) {
                return Ok(losses);
            }
            sum += loss;
            num_steps += 1;
        }
        if num_steps > 0 {
            losses.push(sum / num_steps as f32); // a mean
        }
    }
    Ok(losses)
}

fn step(
    parameters: &mut ParameterSet,
    optimizer: &mut FullOptimizer,
    windows: &[&Window],
    history: &CountHistory,
    config: &ContrastConfig,
    device: &Device,
    rng: &mut StdRng,
) -> Result<f32, TrainError> {
    let step = optimizer.num_steps;
    let batch = batch_of_views(windows, history, parameters.num_items, rng);
    let (loss, mut gradients) = differentiate(parameters, &batch, config, device, step)?;
    let norm = gradients.clip(config.step.gradient_norm_max);
    if !norm.is_finite() {
        return Err(TrainError::GradientNotFinite { norm, step });
    }
    optimizer.apply(parameters, &gradients, &batch.rows, &config.step);
    Ok(loss)
}

/// One view of every window, then the other of every window.
fn batch_of_views(
    windows: &[&Window],
    history: &CountHistory,
    num_items: usize,
    rng: &mut StdRng,
) -> Batch {
    let mut views = Vec::with_capacity(2 * windows.len());
    for _ in 0..2 {
        for window in windows {
            views.push(view(window, rng));
        }
    }
    // One candidate, since the next-item softmax is not asked for.
    Batch::new(&views, history, num_items, 1, rng)
}

/// A window changed by one of the three ways.
fn view(window: &Window, rng: &mut StdRng) -> Window {
    let augmentation = match rng.random_range(0..3) {
        0 => Augmentation {
            crop: 1.0,
            ..Augmentation::default()
        },
        1 => Augmentation {
            mask: MASKED_SHARE,
            ..Augmentation::default()
        },
        _ => Augmentation {
            reorder: 1.0,
            ..Augmentation::default()
        },
    };
    let mut view = Window {
        examples: window.examples.clone(),
        first_target: 0,
    };
    augmentation.apply(&mut view, rng);
    view
}

fn differentiate(
    parameters: &ParameterSet,
    batch: &Batch,
    config: &ContrastConfig,
    device: &Device,
    step: u64,
) -> Result<(f32, HostGradients), TrainError> {
    let leaves = Leaves::new(parameters, batch, config.step.id_dropout, device);
    let users = last_users(&leaves, batch, Dropout(config.step.dropout), device);
    let loss = info_nce(users, config.temperature, device);
    let value = read(loss.clone().reshape([1]), step)?[0];
    if !value.is_finite() {
        return Err(TrainError::LossNotFinite { loss: value, step });
    }
    Ok((value, HostGradients::read(&leaves, &loss.backward(), step)?))
}

/// User vectors behind the last event of every sequence, `[num_sequences, embedding_dim]`.
fn last_users(leaves: &Leaves, batch: &Batch, dropout: Dropout, device: &Device) -> Tensor<2> {
    let hidden = leaves.hidden(&batch.sequences, dropout);
    let [num_sequences, num_positions, dim] = hidden.dims();
    let lengths = batch.lengths.iter().enumerate();
    let positions: Vec<i32> = lengths
        .map(|(sequence, len)| (sequence * num_positions + len) as i32) // fits: a batch is small
        .collect();
    hidden
        .reshape([num_sequences * num_positions, dim])
        .select(0, ints(&positions, device))
}

/// Mean InfoNCE of `[2N, dim]` vectors of which row `a` and row `a ± N` belong together.
fn info_nce(users: Tensor<2>, temperature: f32, device: &Device) -> Tensor<1> {
    let [num_views, _] = users.dims();
    let lengths = (users.clone().powi_scalar(2).sum_dim(1) + NORM_EPSILON).sqrt();
    let normed = users / lengths;
    let mut itself = vec![0.0; num_views * num_views];
    for view in 0..num_views {
        itself[view * num_views + view] = -1.0e9;
    }
    let others: Vec<i32> = (0..num_views)
        .map(|view| ((view + num_views / 2) % num_views) as i32) // fits: a batch is small
        .collect();
    let others = normed.clone().select(0, ints(&others, device));
    let alike = (normed.clone() * others).sum_dim(1) / temperature;
    let logits = normed.clone().matmul(normed.transpose()) / temperature;
    let losses = log_sum_exp(logits + matrix(&itself, num_views, num_views, device)) - alike;
    losses.mean()
}

#[cfg(test)]
mod tests;
