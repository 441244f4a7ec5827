//! Fine-tuning: labelled pairs in batches of about one length, one AdamW update each.
//!
//! ```text
//! loss = mean over clicks of BCE(logit, click) + rating_weight · mean over ratings of (r̂ − r)²
//! ```
//! Ratings are in units of the config's scale, so that both terms are of one size.
//! The norm of the whole gradient is bounded; biases and norms do not decay.
//! Not here: which pairs (`scene`), and scores (`scorer`).

use burn::module::{ModuleVisitor, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Device, Tensor};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use shared_model::text::cross_encoder::{
    CrossEncoder, CrossEncoderConfig, CrossOutput, TrainedPart, check_pairs,
};
use shared_model::text::pairs::{PairBatch, TokenizedPair};

use super::{CrossEncoderError, Schedule};
use crate::train::module_gradients::{adam_w, gradient_norm, read_values, scale_gradients};

/// Batches that are cut from one stretch of sorted lengths: pairs of one batch are of about one length, and
/// still come from everywhere.
const BATCHES_PER_STRETCH: usize = 16;

/// A pair and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledPair {
    /// The pair.
    pub tokens: TokenizedPair,
    /// Whether the item was taken, where that is known.
    pub click: Option<bool>,
    /// The grade it was given, on the scale of the data.
    pub rating: Option<f32>,
}

/// How to tune.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TuneOptions {
    /// Which weights learn.
    pub part: TrainedPart,
    /// Pairs per step.
    pub batch_size: usize,
    /// Decoupled, on matrices only.
    pub weight_decay: f32,
    /// Bound of the norm of the whole gradient.
    pub gradient_norm_max: f32,
    /// Weight of the rating loss beside the click loss.
    pub rating_weight: f32,
    /// Learning rate of the heads beside that of the rest: they start from nothing
    /// (discriminative rates, Howard & Ruder 2018).
    pub head_factor: f64,
}

impl TuneOptions {
    /// The classic recipe.
    #[must_use]
    pub fn classic(part: TrainedPart) -> Self {
        Self {
            part,
            batch_size: 16,
            weight_decay: 0.01,
            gradient_norm_max: 1.0,
            rating_weight: 1.0,
            head_factor: 1.0,
        }
    }
}

/// A network that learns.
pub struct Tuner {
    config: CrossEncoderConfig,
    options: TuneOptions,
    /// On `device`, which has autodiff.
    model: CrossEncoder,
    optimizer: ModuleOptimizer,
    device: Device,
    num_steps: usize,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TuneReport {
    /// Loss of the batch before the step.
    pub loss: f32,
    /// Norm of the gradient before it was bounded.
    pub gradient_norm: f32,
}

impl Tuner {
    /// Makes `model`, whose weights are on `device`, ready to learn.
    #[must_use]
    pub fn new(
        model: CrossEncoder,
        config: CrossEncoderConfig,
        options: TuneOptions,
        device: &Device,
    ) -> Self {
        Self {
            model: model.trained_in(options.part),
            optimizer: adam_w(options.weight_decay),
            device: device.clone().autodiff(),
            num_steps: 0,
            config,
            options,
        }
    }

    /// The network as it is now, for scoring.
    #[must_use]
    pub fn merged(&self) -> CrossEncoder {
        self.model.merged()
    }

    /// Steps taken so far.
    #[must_use]
    pub fn num_steps(&self) -> usize {
        self.num_steps
    }

    /// Goes once over `pairs` in a random order, with rates by `schedule` from its step `first_step` on.
    /// `on_step` hears of every step and ends the pass by `false`. Gives the mean loss; `None` where there
    /// are no pairs.
    ///
    /// # Errors
    /// A pair is out of bounds, or a loss or gradient is not finite; steps before it were taken.
    pub fn pass(
        &mut self,
        pairs: &[LabelledPair],
        schedule: &Schedule,
        first_step: usize,
        rng: &mut StdRng,
        mut on_step: impl FnMut(TuneReport) -> bool,
    ) -> Result<Option<f32>, CrossEncoderError> {
        let lens: Vec<usize> = pairs
            .iter()
            .map(|pair| pair.tokens.token_ids.len())
            .collect();
        let batches = training_batches(&lens, self.options.batch_size, rng);
        let (mut sum, mut num_taken) = (0.0, 0);
        for (batch_idx, pair_idxs) in batches.into_iter().enumerate() {
            let batch: Vec<&LabelledPair> = pair_idxs.iter().map(|&idx| &pairs[idx]).collect();
            let report = self.step(&batch, schedule.rate(first_step + batch_idx))?;
            sum += report.loss;
            num_taken += 1;
            if !on_step(report) {
                break;
            }
        }
        Ok((num_taken > 0).then(|| sum / num_taken as f32)) // far below 2^24
    }

    /// One update on a batch.
    ///
    /// # Errors
    /// As [`Self::pass`]; then the weights are as before.
    pub fn step(
        &mut self,
        batch: &[&LabelledPair],
        learning_rate: f64,
    ) -> Result<TuneReport, CrossEncoderError> {
        let tokens: Vec<TokenizedPair> = batch.iter().map(|pair| pair.tokens.clone()).collect();
        check_pairs(&tokens, &self.config)?;
        let order: Vec<usize> = (0..tokens.len()).collect();
        let output = self
            .model
            .forward_batch(&PairBatch::of(&tokens, &order), &self.device);
        let Some(loss) = self.loss(output, batch) else {
            let num_pairs = batch.len();
            return Err(CrossEncoderError::NoLabels { num_pairs });
        };
        let step = self.num_steps;
        let loss_value = read_values(loss.clone())?[0];
        if !loss_value.is_finite() {
            let loss = loss_value;
            return Err(CrossEncoderError::LossNotFinite { loss, step });
        }
        let mut gradients = GradientsParams::from_grads(loss.backward(), &self.model);
        let norm = gradient_norm(&self.model, &gradients)?;
        if !norm.is_finite() {
            return Err(CrossEncoderError::GradientNotFinite { norm, step });
        }
        if norm > self.options.gradient_norm_max {
            scale_gradients(
                &self.model,
                &mut gradients,
                self.options.gradient_norm_max / norm,
            );
        }
        self.num_steps += 1;
        if learning_rate > 0.0 {
            self.update(gradients, learning_rate);
        }
        Ok(TuneReport {
            loss: loss_value,
            gradient_norm: norm,
        })
    }

    /// Moves the heads by their rate and the rest by its own; weights without a gradient stay.
    fn update(&mut self, mut gradients: GradientsParams, learning_rate: f64) {
        let mut mover = Mover {
            from: &mut gradients,
            to: GradientsParams::new(),
        };
        self.model.visit_heads(&mut mover);
        let of_heads = mover.to;
        let head_rate = (learning_rate * self.options.head_factor).min(1.0);
        // A clone shares the weights, so it costs nothing.
        let model = self.model.clone();
        let model = self.optimizer.step(head_rate, model, of_heads);
        self.model = self.optimizer.step(learning_rate, model, gradients);
    }

    /// `None` where nothing is labelled.
    fn loss(&self, output: CrossOutput, batch: &[&LabelledPair]) -> Option<Tensor<1>> {
        let clicks: Vec<(f32, f32)> = batch
            .iter()
            .map(|pair| match pair.click {
                Some(click) => (f32::from(u8::from(click)), 1.0),
                None => (0.0, 0.0),
            })
            .collect();
        let grades: Vec<(f32, f32)> = batch
            .iter()
            .map(|pair| match pair.rating {
                Some(rating) => {
                    let units = (rating - self.config.rating_center) / self.config.rating_scale;
                    (units, 1.0)
                }
                None => (0.0, 0.0),
            })
            .collect();
        let click_loss = weighted(&clicks, &self.device).map(|(targets, weights)| {
            let positive = targets.clone() * log_sigmoid(output.click.clone());
            let negative = (-targets + 1.0) * log_sigmoid(-output.click);
            -((positive + negative) * weights).sum()
        });
        let rating_loss = weighted(&grades, &self.device).map(|(targets, weights)| {
            let errors = (output.rating - targets).powi_scalar(2);
            (errors * weights).sum() * self.options.rating_weight
        });
        match (click_loss, rating_loss) {
            (Some(click), Some(rating)) => Some(click + rating),
            (click, rating) => click.or(rating),
        }
    }
}

/// Targets, and weights that sum to one; `None` where all weights are zero.
fn weighted(pairs: &[(f32, f32)], device: &Device) -> Option<(Tensor<1>, Tensor<1>)> {
    let total: f32 = pairs.iter().map(|(_, weight)| weight).sum();
    if total <= 0.0 {
        return None;
    }
    let targets: Vec<f32> = pairs.iter().map(|(target, _)| *target).collect();
    let weights: Vec<f32> = pairs.iter().map(|(_, weight)| weight / total).collect();
    Some((
        Tensor::from_data(targets.as_slice(), device),
        Tensor::from_data(weights.as_slice(), device),
    ))
}

/// Indices in batches of about one length, in a random order.
fn training_batches(lens: &[usize], batch_size: usize, rng: &mut impl Rng) -> Vec<Vec<usize>> {
    let batch_size = batch_size.max(1);
    let mut order: Vec<usize> = (0..lens.len()).collect();
    order.shuffle(rng);
    let mut batches = Vec::new();
    for stretch in order.chunks_mut(batch_size * BATCHES_PER_STRETCH) {
        stretch.sort_by_key(|&idx| lens[idx]);
        batches.extend(stretch.chunks(batch_size).map(<[usize]>::to_vec));
    }
    batches.shuffle(rng);
    batches
}

/// Takes the gradients of what it visits from one set to another.
struct Mover<'a> {
    from: &'a mut GradientsParams,
    to: GradientsParams,
}

impl ModuleVisitor for Mover<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.from.remove::<D>(param.id) {
            self.to.register(param.id, gradient);
        }
    }
}
