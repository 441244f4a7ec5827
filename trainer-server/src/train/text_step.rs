//! Text step: one update of the text encoder by what followed on histories of the log.
//!
//! ```text
//! t_i  = encoder(text_i; A, B)            of the targets and of the negatives alone
//! v_i  = norm(P·t_i + F·x_i + e_i)        all but t as the Ranker has it
//! loss = next item: each target against the negatives, with the logQ correction of a full step
//! ```
//! The gradient reaches nothing but the change of low rank (`A`, `B` of `shared_model::text::low_rank`).
//! Targets do not compete with each other: what is drawn by what was taken would need another correction than
//! uniform negatives do.
//! Not here: which windows are learned, and what becomes of the texts (`learner::text_tuning`).

use burn::tensor::Device;
use rand::rngs::StdRng;
use shared_model::model::parameters::ParameterSet;
use shared_model::text::{BertTextEncoder, LowRankChange, TextError};

use super::TrainError;
use super::count_history::CountHistory;
use super::full_batch::Batch;
use super::full_step::{StepReport, read};
use super::init::standard_normal;
use super::losses::text_loss;
use super::optimizer::{AdamW, clip_global_norm};
use super::windows::Window;

/// Why a step was not taken. The change is as before it.
#[derive(Debug, thiserror::Error)]
pub enum TextStepError {
    /// Loss or gradient is not finite, or the device failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A text was refused.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// How a step learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextStepConfig {
    /// Of all factors.
    pub learning_rate: f32,
    /// Uniform negatives per batch.
    pub num_negatives: usize,
    /// Bound of the norm of the whole gradient.
    pub gradient_norm_max: f32,
}

/// What a step works with and leaves as it is.
#[derive(Clone, Copy)]
pub struct TextStepInputs<'a> {
    /// Its weights as they were loaded; a change that is merged into it plays no part.
    pub encoder: &'a BertTextEncoder,
    /// The Ranker, with the texts as they are now.
    pub parameters: &'a ParameterSet,
    /// Counts behind the item prior.
    pub history: &'a CountHistory,
    /// The text of an item by its row.
    pub text_of: &'a dyn Fn(u32) -> String,
}

/// What a batch says of a change.
#[derive(Debug, Clone, PartialEq)]
pub struct TextGradient {
    /// Mean over the targets.
    pub loss: f32,
    /// Of all factors, laid out as [`LowRankChange::to_flat`]; the norm is not bounded.
    pub values: Vec<f32>,
    /// Next items in the batch.
    pub num_targets: usize,
}

/// A change of low rank that learns.
#[derive(Debug, Clone, PartialEq)]
pub struct TextTuner {
    change: LowRankChange,
    optimizer: AdamW,
}

impl TextTuner {
    /// A new change of `encoder`, drawn by `rng`.
    ///
    /// # Errors
    /// The rank is out of bounds.
    pub fn new(
        encoder: &BertTextEncoder,
        rank: usize,
        rng: &mut StdRng,
    ) -> Result<Self, TextError> {
        let config = encoder.encoder().config();
        let change = LowRankChange::new(config, rank, || standard_normal(rng))?;
        Ok(Self::from_change(change))
    }

    /// Goes on from `change`, with the optimizer's memory empty.
    #[must_use]
    pub fn from_change(change: LowRankChange) -> Self {
        Self {
            optimizer: AdamW::new(change.num_values()),
            change,
        }
    }

    /// Goes on as if it had never stopped; `None` where the memory belongs to another number of values.
    #[must_use]
    pub fn resumed(change: LowRankChange, optimizer: AdamW) -> Option<Self> {
        let fits = optimizer.moments()[0].len() == change.num_values();
        fits.then_some(Self { change, optimizer })
    }

    /// The change as it is now.
    #[must_use]
    pub fn change(&self) -> &LowRankChange {
        &self.change
    }

    /// Its optimizer.
    #[must_use]
    pub fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }

    /// Mean loss over the targets of `windows`, and its gradient; nothing is changed. `None` where they hold none.
    ///
    /// # Errors
    /// The loss is not finite, a text cannot be tokenized, or the device failed.
    pub fn gradient(
        &self,
        inputs: TextStepInputs<'_>,
        windows: &[Window],
        num_negatives: usize,
        rng: &mut StdRng,
    ) -> Result<Option<TextGradient>, TextStepError> {
        let num_items = inputs.parameters.num_items;
        let batch = Batch::new(windows, inputs.history, num_items, num_negatives, rng);
        let targets = batch.targets.iter();
        let num_targets = targets.filter(|target| target.target_weight > 0.0).count();
        if num_targets == 0 {
            return Ok(None);
        }
        let step = u64::from(self.optimizer.num_steps());
        let (loss, values) = differentiate(&self.change, inputs, &batch, step)?;
        Ok(Some(TextGradient {
            loss,
            values,
            num_targets,
        }))
    }

    /// Moves all factors by a gradient laid out as [`LowRankChange::to_flat`], the norm of which is bounded first; gives
    /// the norm before that. Where it is not finite, nothing moves.
    pub(crate) fn apply(&mut self, gradient: &mut [f32], learning_rate: f32, norm_max: f32) -> f32 {
        let norm = clip_global_norm(&mut [gradient], norm_max);
        if norm.is_finite() {
            let mut values = self.change.to_flat();
            self.optimizer
                .step(&mut values, gradient, learning_rate, 0.0);
            self.change.set_flat(&values);
        }
        norm
    }

    /// One update on the targets of `windows`. Where they hold none, nothing happens.
    ///
    /// # Errors
    /// As [`Self::gradient`], or the gradient is not finite.
    pub fn step(
        &mut self,
        inputs: TextStepInputs<'_>,
        windows: &[Window],
        config: &TextStepConfig,
        rng: &mut StdRng,
    ) -> Result<StepReport, TextStepError> {
        let gradient = self.gradient(inputs, windows, config.num_negatives, rng)?;
        let Some(mut gradient) = gradient else {
            return Ok(StepReport {
                loss: 0.0,
                num_targets: 0,
                gradient_norm: 0.0,
            });
        };
        let step = u64::from(self.optimizer.num_steps());
        let (rate, norm_max) = (config.learning_rate, config.gradient_norm_max);
        let norm = self.apply(&mut gradient.values, rate, norm_max);
        if !norm.is_finite() {
            return Err(TrainError::GradientNotFinite { norm, step }.into());
        }
        Ok(StepReport {
            loss: gradient.loss,
            num_targets: gradient.num_targets,
            gradient_norm: norm,
        })
    }
}

/// Loss and gradient of all factors.
fn differentiate(
    change: &LowRankChange,
    inputs: TextStepInputs<'_>,
    batch: &Batch,
    step: u64,
) -> Result<(f32, Vec<f32>), TextStepError> {
    let mut rows: Vec<i32> = batch.targets.iter().map(|target| target.row).collect();
    rows.extend(&batch.candidates);
    rows.sort_unstable();
    rows.dedup();
    let items = rows.iter().map(|row| batch.rows[*row as usize]); // a local row is not negative
    let texts: Vec<String> = items.map(inputs.text_of).collect();
    let tokens = inputs.encoder.tokenize(&texts)?;
    let learning = inputs.encoder.encoder().learning(change);
    let device: &Device = learning.device();
    let loss = text_loss(
        inputs.parameters,
        batch,
        &rows,
        learning.forward(&tokens)?,
        device,
    );
    let value = read(loss.clone().reshape([1]), step)?[0];
    if !value.is_finite() {
        return Err(TrainError::LossNotFinite { loss: value, step }.into());
    }
    Ok((value, learning.gradients(&loss.backward())?))
}
