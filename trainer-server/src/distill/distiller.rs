//! A student that learns: lessons in batches of one length, one AdamW update each.
//!
//! Word embeddings lie on the host: a batch has few of the words, and AdamW over all of them would take longer than the
//! network. The rows of a batch are gathered, and those alone are moved (`train::optimizer::RowAdam`).
//! Every batch counts by its tokens, so that texts of rare lengths, which fill no batch, are not learned more than others.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use shared_model::text::batch::{TokenBatch, plan_batches};
use shared_model::text::bert::BertModel;
use shared_model::text::packed::WORDS;
use shared_model::text::{
    BatchLimits, BertConfig, BertTextEncoder, TextEncoder, TextError, TextTokenizer, TokenizedText,
};

use super::lessons::{Lesson, Lessons};
use super::losses::{Losses, Targets};
use super::rounding::{Rounder, round_to};
use super::{DistillError, DistillOptions};
use crate::config::Schedule;
use crate::text_pack::PackSource;
use crate::train::module_gradients::{adam_w, gradient_norm, read_values, scale_gradients};
use crate::train::optimizer::RowAdam;
use crate::train::schedule::share;

/// The rate rises for one step in so many.
const STEPS_PER_WARMUP_STEP: usize = 20;

/// A student that learns.
pub struct Distiller {
    options: DistillOptions,
    config: BertConfig,
    tokenizer_json: Vec<u8>,
    len_max: usize,
    tokenizer: TextTokenizer,
    /// On `device`; its own word embeddings are not used.
    network: BertModel,
    /// `[vocab_size, hidden_size]`, row-major.
    words: Vec<f32>,
    optimizer: ModuleOptimizer,
    word_optimizer: RowAdam,
    /// With autodiff.
    device: Device,
}

/// What a step did; losses are of its batch, before the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// From 0.
    pub step: usize,
    /// Steps of the whole fit.
    pub num_steps: usize,
    /// Mean cosine of the student's embeddings with the teacher's.
    pub cosine: f32,
    /// Divergence of the similarities within the batch.
    pub score_loss: f32,
    /// Relative squared error of the hidden states.
    pub hidden_loss: f32,
    /// Norm of the gradient before it was bounded.
    pub gradient_norm: f32,
}

/// Gradients of the words of a batch, by token.
type WordGradients = BTreeMap<u32, Vec<f32>>;

/// What a batch says of all weights.
struct StudentGradients {
    of_network: GradientsParams,
    of_words: WordGradients,
    /// Of both together, not bounded.
    norm: f32,
}

/// Share of the highest rate: it rises, then falls by a cosine.
pub(super) fn warmed_share(step: usize, num_steps: usize) -> f32 {
    let num_warmup = u32::try_from(num_steps / STEPS_PER_WARMUP_STEP).unwrap_or(u32::MAX);
    share(Schedule::Cosine, num_warmup, step, num_steps)
}

impl Distiller {
    /// A student from its parts: pruned ones, or those that an earlier distillation gave.
    ///
    /// # Errors
    /// A setting is out of bounds, or the parts do not make an encoder.
    pub fn new(
        student: PackSource,
        options: &DistillOptions,
        device: &Device,
    ) -> Result<Self, DistillError> {
        options.check()?;
        let PackSource {
            config,
            tokenizer_json,
            tensors,
            len_max,
        } = student;
        let tokenizer = TextTokenizer::from_bytes(&tokenizer_json, len_max)?;
        let encoder = TextEncoder::from_named(config.clone(), tensors, device)?;
        let encoder = BertTextEncoder::new(tokenizer, encoder)?;
        let tensors = encoder.encoder().to_named()?;
        let words = tensors.into_iter().find(|tensor| tensor.name == WORDS);
        let words = words.expect("a network has words").values;
        let network = encoder.encoder().network().clone();
        Ok(Self {
            options: *options,
            tokenizer: TextTokenizer::from_bytes(&tokenizer_json, len_max)?,
            tokenizer_json,
            len_max,
            network: network.train().set_require_grad(true),
            optimizer: adam_w(options.weight_decay),
            word_optimizer: RowAdam::new(config.vocab_size, config.hidden_size),
            words,
            device: device.clone().autodiff(),
            config,
        })
    }

    /// Whether its embeddings are as wide as those of a teacher.
    ///
    /// # Errors
    /// They are not.
    pub fn check_width(&self, teacher: usize) -> Result<(), DistillError> {
        let student = self.config.hidden_size;
        if student != teacher {
            return Err(DistillError::OtherWidth { student, teacher });
        }
        Ok(())
    }

    /// Takes the steps of the options, passing over all lessons in a random order again and again. `on_step` hears of
    /// every step and ends it by `false`.
    ///
    /// # Errors
    /// The widths differ, there are no lessons, a text has a token without an embedding, or loss or gradient is not
    /// finite; steps before it were taken.
    pub fn learn(
        &mut self,
        lessons: &Lessons,
        mut on_step: impl FnMut(StepReport) -> bool,
    ) -> Result<(), DistillError> {
        self.check_width(lessons.dim)?;
        if lessons.lessons.is_empty() {
            return Err(DistillError::NoTexts);
        }
        let tokens = self.tokenize(lessons)?;
        let mut rng = StdRng::seed_from_u64(self.options.seed);
        let num_steps = self.options.num_steps;
        let mut batches = Vec::new();
        for step in 0..num_steps {
            if batches.is_empty() {
                batches = self.shuffled_batches(&tokens, &mut rng);
            }
            let batch: TokenBatch = batches.pop().expect("there are lessons");
            let of_batch = batch.text_idxs.iter();
            let of_batch: Vec<&Lesson> = of_batch.map(|idx| &lessons.lessons[*idx]).collect();
            let rate = self.options.learning_rate * f64::from(warmed_share(step, num_steps));
            if !on_step(self.step(&batch, &of_batch, step, rate)?) {
                break;
            }
        }
        Ok(())
    }

    /// The student as it is now.
    ///
    /// # Errors
    /// The device failed to give a weight back.
    pub fn parts(&self) -> Result<PackSource, DistillError> {
        let mut tensors = self.network.valid().to_named()?;
        let words = tensors.iter_mut().find(|tensor| tensor.name == WORDS);
        words.expect("a network has words").values = self.words.clone();
        Ok(PackSource {
            config: self.config.clone(),
            tokenizer_json: self.tokenizer_json.clone(),
            tensors,
            len_max: self.len_max,
        })
    }

    fn tokenize(&self, lessons: &Lessons) -> Result<Vec<TokenizedText>, TextError> {
        let vocab_size = self.config.vocab_size;
        let mut tokens = Vec::with_capacity(lessons.lessons.len());
        for lesson in &lessons.lessons {
            let text = self.tokenizer.tokenize(&lesson.text)?;
            let unknown = text.token_ids.iter().find(|id| **id as usize >= vocab_size);
            if let Some(&token_id) = unknown {
                return Err(TextError::TokenUnknown {
                    token_id,
                    vocab_size,
                });
            }
            tokens.push(text);
        }
        Ok(tokens)
    }

    /// Every text once, in batches of exactly one length.
    fn shuffled_batches(&self, tokens: &[TokenizedText], rng: &mut StdRng) -> Vec<TokenBatch> {
        let limits = BatchLimits {
            num_tokens_max: self.options.num_tokens,
            len_multiple: 1,
        };
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.shuffle(rng);
        let shuffled: Vec<TokenizedText> = order.iter().map(|idx| tokens[*idx].clone()).collect();
        let mut batches = plan_batches(&shuffled, limits, self.config.max_position_embeddings);
        for batch in &mut batches {
            for text_idx in &mut batch.text_idxs {
                *text_idx = order[*text_idx];
            }
        }
        batches.shuffle(rng);
        batches
    }

    /// One update on a batch.
    fn step(
        &mut self,
        batch: &TokenBatch,
        lessons: &[&Lesson],
        step: usize,
        learning_rate: f64,
    ) -> Result<StepReport, DistillError> {
        let num_steps = self.options.num_steps;
        let rounding = self.options.rounding;
        let rounding = rounding.filter(|rounding| rounding.is_on(step, num_steps));
        let network = match &rounding {
            None => self.network.clone(), // shares the weights
            Some(rounding) => self.network.clone().map(&mut Rounder::new(rounding)),
        };
        let word_step = rounding.map(|rounding| rounding.word_step(&self.words));
        let words = self.gather(batch, word_step);
        let targets = Targets::of(lessons, batch.padded_len, &self.device);
        let states = network.forward_words(words.clone());
        let losses = Losses::of(states, &targets, self.options.temperature);
        let fullness = batch.token_ids.len() as f64 / self.options.num_tokens as f64; // far below 2^52
        let loss = losses.weighted(&self.options.weights) * fullness;
        let values = vec![loss.clone(), losses.cosine, losses.score, losses.hidden];
        let values = read_values(Tensor::cat(values, 0))?;
        if !values[0].is_finite() {
            let loss = values[0];
            return Err(DistillError::LossNotFinite { loss, step });
        }
        let gradients = self.gradients(&network, loss.backward(), &words, batch)?;
        let gradient_norm = gradients.norm;
        if !gradient_norm.is_finite() {
            let norm = gradient_norm;
            return Err(DistillError::GradientNotFinite { norm, step });
        }
        self.apply(&network, gradients, learning_rate);
        Ok(StepReport {
            step,
            num_steps,
            cosine: 1.0 - values[1],
            score_loss: values[2],
            hidden_loss: values[3],
            gradient_norm,
        })
    }

    /// The word embeddings of a batch, with gradients, rounded to multiples of a step where there is one.
    ///
    /// # Shapes
    /// → `[num_texts, len, hidden_size]`.
    fn gather(&self, batch: &TokenBatch, step: Option<f32>) -> Tensor<3> {
        let dim = self.config.hidden_size;
        let mut words = Vec::with_capacity(batch.token_ids.len() * dim);
        for token_id in &batch.token_ids {
            let first = *token_id as usize * dim; // ids are not negative
            words.extend_from_slice(&self.words[first..first + dim]);
        }
        if let Some(step) = step {
            words
                .iter_mut()
                .for_each(|value| *value = round_to(*value, step));
        }
        let shape = [batch.text_idxs.len(), batch.padded_len, dim];
        Tensor::from_data(TensorData::new(words, shape), &self.device).require_grad()
    }

    /// Gradients of all weights, as `network` and `words` have them.
    fn gradients(
        &self,
        network: &BertModel,
        mut gradients: Gradients,
        words: &Tensor<3>,
        batch: &TokenBatch,
    ) -> Result<StudentGradients, DistillError> {
        let of_words = words.grad_remove(&mut gradients);
        let of_words = read_values(of_words.expect("words reach every loss"))?;
        let of_words = self.by_word(&of_words, batch);
        let of_network = GradientsParams::from_grads(gradients, network);
        let norm = gradient_norm(network, &of_network)?;
        let squares = of_words.values().flatten().map(|value| value * value);
        Ok(StudentGradients {
            norm: (norm * norm + squares.sum::<f32>()).sqrt(),
            of_network,
            of_words,
        })
    }

    /// Moves all weights by their gradients, the norm of which is bounded first.
    fn apply(&mut self, network: &BertModel, gradients: StudentGradients, learning_rate: f64) {
        let StudentGradients {
            mut of_network,
            of_words,
            norm,
        } = gradients;
        let by = (self.options.gradient_norm_max / norm).min(1.0); // a norm of 0 gives 1
        if by < 1.0 {
            scale_gradients(network, &mut of_network, by);
        }
        let before = self.network.clone(); // shares the weights
        self.network = self.optimizer.step(learning_rate, before, of_network);
        let (words, rate) = (&mut self.words, learning_rate as f32); // at most 1
        for (token_id, mut gradient) in of_words {
            gradient.iter_mut().for_each(|value| *value *= by);
            let row_idx = token_id as usize; // fits: usize has at least 32 bits here
            self.word_optimizer
                .step_row(words, row_idx, &gradient, rate, 0.0);
        }
    }

    /// Sums the gradients of a batch's tokens by word.
    fn by_word(&self, gradients: &[f32], batch: &TokenBatch) -> WordGradients {
        let mut by_word = WordGradients::new();
        let dim = self.config.hidden_size;
        for (gradient, token_id) in gradients.chunks_exact(dim).zip(&batch.token_ids) {
            let sum = by_word
                .entry(token_id.unsigned_abs())
                .or_insert_with(|| vec![0.0; dim]);
            sum.iter_mut()
                .zip(gradient)
                .for_each(|(sum, value)| *sum += value);
        }
        by_word
    }
}
