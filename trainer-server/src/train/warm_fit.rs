//! Warm fit: several epochs over all windows of the log, everything trained.

use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use shared_model::model::parameters::ParameterSet;

use super::TrainError;
use super::count_history::CountHistory;
use super::full_step::{FullOptimizer, FullStepConfig, full_step};
use super::windows::Window;

/// How a warm fit learns.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmFitConfig {
    /// Of one step at full learning rate.
    pub step: FullStepConfig,
    /// Passes over the windows.
    pub num_epochs: u32,
    /// Windows in one step.
    pub batch_size: usize,
    /// Of shuffling, negatives and dropout.
    pub seed: u64,
}

/// Where a warm fit stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmFitProgress {
    /// Steps done.
    pub num_steps: usize,
    /// Steps in all.
    pub num_steps_total: usize,
    /// Loss of the last step.
    pub loss: f32,
}

/// Steps over which the learning rate rises.
const WARMUP_STEPS: f32 = 50.0;
/// Share of the learning rate left at the end of the cosine.
const FINAL_SHARE: f32 = 0.05;
/// Consecutive refused steps after which the fit gives up.
const REFUSED_STEPS_MAX: u32 = 10;

/// Trains `parameters` on `windows`, with the counts that `history` had at their times. `keep_going` is asked after every step; `false` ends the fit early.
///
/// # Errors
/// Ten steps in a row were refused; the parameters are those of the last good step.
pub fn warm_fit(
    parameters: &mut ParameterSet,
    windows: &[Window],
    history: &CountHistory,
    config: &WarmFitConfig,
    device: &Device,
    mut keep_going: impl FnMut(WarmFitProgress) -> bool,
) -> Result<(), TrainError> {
    let mut rng = StdRng::seed_from_u64(config.seed);
    device.seed(config.seed);
    let mut optimizer = FullOptimizer::new(parameters);
    let mut order: Vec<&Window> = windows.iter().collect();
    let num_steps_total = config.num_epochs as usize * windows.len().div_ceil(config.batch_size);
    let mut num_steps = 0;
    let mut num_refused = 0;
    for _ in 0..config.num_epochs {
        order.shuffle(&mut rng);
        for batch in order.chunks(config.batch_size) {
            let batch: Vec<Window> = batch.iter().map(|window| (*window).clone()).collect();
            let step = scheduled(&config.step, num_steps, num_steps_total);
            num_steps += 1;
            let stepped = full_step(
                parameters,
                &mut optimizer,
                &batch,
                history,
                &step,
                device,
                &mut rng,
            );
            match stepped {
                Ok(report) => {
                    num_refused = 0;
                    if !keep_going(WarmFitProgress {
                        num_steps,
                        num_steps_total,
                        loss: report.loss,
                    }) {
                        return Ok(());
                    }
                }
                Err(error) => {
                    num_refused += 1;
                    tracing::warn!(%error, "a step of the warm fit was skipped");
                    if num_refused == REFUSED_STEPS_MAX {
                        return Err(error);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Linear warm-up, then cosine.
fn scheduled(step: &FullStepConfig, num_steps: usize, num_steps_total: usize) -> FullStepConfig {
    let rise = ((num_steps + 1) as f32 / WARMUP_STEPS).min(1.0);
    let done = num_steps as f32 / num_steps_total.max(1) as f32;
    let fall = (0.5 * (1.0 + (std::f32::consts::PI * done).cos())).max(FINAL_SHARE);
    let share = rise * fall;
    FullStepConfig {
        learning_rate: step.learning_rate * share,
        row_learning_rate: step.row_learning_rate * share,
        bias_learning_rate: step.bias_learning_rate * share,
        prior_learning_rate: step.prior_learning_rate * share,
        ..step.clone()
    }
}
