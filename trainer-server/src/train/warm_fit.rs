//! Warm fit: several epochs over all windows of the log, everything trained.

use std::sync::Arc;

use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use shared_model::model::parameters::ParameterSet;

use super::TrainError;
use super::augment::Augmentation;
use super::contrast::{ContrastConfig, pretrain};
use super::count_history::CountHistory;
use super::full_optimizer::FullOptimizer;
use super::full_step::{FullStepConfig, full_step};
use super::schedule::share;
use super::text_views::TextViews;
use super::windows::Window;
use crate::config::Schedule;

/// How a warm fit learns.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmFitConfig {
    /// Of one step at full learning rate.
    pub step: FullStepConfig,
    /// Passes over the windows.
    pub num_epochs: u32,
    /// Windows in one step.
    pub batch_size: usize,
    /// Step size over all steps.
    pub schedule: Schedule,
    /// Steps over which it rises first.
    pub num_warmup_steps: u32,
    /// What is done to windows before a step.
    pub augmentation: Augmentation,
    /// What is done to the encoder before the first pass.
    pub contrast: ContrastConfig,
    /// Item texts with words left out, which passes read beside the whole ones.
    pub texts: Arc<TextViews>,
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

/// Consecutive refused steps after which the fit gives up.
const REFUSED_STEPS_MAX: u32 = 10;

/// Trains `parameters` on `windows`, with the counts that `history` had at their times. `keep_going` is asked after
/// every step, those of the pretraining as step 0; `false` ends the fit early.
///
/// # Errors
/// Ten steps in a row were refused, or one of the pretraining; the parameters are those of the last good step.
pub fn warm_fit(
    parameters: &mut ParameterSet,
    windows: &[Window],
    history: &CountHistory,
    config: &WarmFitConfig,
    device: &Device,
    mut keep_going: impl FnMut(WarmFitProgress) -> bool,
) -> Result<(), TrainError> {
    if config.contrast.num_epochs > 0 {
        let mut before_the_first_step = |loss| {
            keep_going(WarmFitProgress {
                num_steps: 0,
                num_steps_total: 0,
                loss,
            })
        };
        let losses = pretrain(
            parameters,
            windows,
            history,
            &config.contrast,
            device,
            &mut before_the_first_step,
        )?;
        tracing::info!(?losses, "the sequence encoder was pretrained");
    }
    let whole = config.texts.whole(parameters);
    let fitted = passes(
        parameters,
        windows,
        history,
        config,
        whole.as_deref(),
        device,
        keep_going,
    );
    if let Some(whole) = whole {
        parameters.tensor_mut("item.text").copy_from_slice(&whole);
    }
    fitted
}

/// All passes; `whole` are the texts that `config.texts` are views of.
fn passes(
    parameters: &mut ParameterSet,
    windows: &[Window],
    history: &CountHistory,
    config: &WarmFitConfig,
    whole: Option<&[f32]>,
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
        if let Some(whole) = whole {
            config.texts.draw(parameters, whole, &mut rng);
        }
        for batch in order.chunks(config.batch_size) {
            let mut batch: Vec<Window> = batch.iter().map(|window| (*window).clone()).collect();
            for window in &mut batch {
                config.augmentation.apply(window, &mut rng);
            }
            let share = share(
                config.schedule,
                config.num_warmup_steps,
                num_steps,
                num_steps_total,
            );
            let step = config.step.slowed(share);
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
