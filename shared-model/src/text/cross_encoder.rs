//! CrossEncoder: reads a user's text and an item's text together and says how well they go together.
//!
//! ```text
//! h      = BERT([CLS] user [SEP] item [SEP])                 [num_pairs, len, hidden_size]
//! pooled = tanh(W·pool(h) + b)
//! click  = w_c·pooled + b_c     a logit
//! rating = w_r·pooled + b_r     in units of rating_scale around rating_center
//! ```
//! After Nogueira & Cho 2019, "Passage Re-ranking with BERT", and Devlin et al. 2018, who pool the first token.
//! The default pools means: all-MiniLM was trained so, and its first token stands for nothing until it is
//! trained to. Beside the mean of all tokens stands the product of the means of both texts, the summands of
//! their cosine: a network that has only their sum must first find out how to multiply, and in the few
//! thousand steps of a warm fit it does not (`docs/cross-encoder.md`).
//! Not here: optimizers, data and files (the server's `cross_encoder`).

use std::collections::BTreeMap;

use burn::module::{Lora, Module, ModuleVisitor, ParamGroup};
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::batch::BatchLimits;
use super::bert::{BertModel, linear};
use super::config::BertConfig;
use super::low_rank::changed_group;
use super::pairs::{PAIR_LEN_MIN, PairBatch, TokenizedPair, plan_pair_batches};
use super::parameters::{NamedTensor, by_name, by_whole_name, load, store};
use super::{TextError, device_error};
use crate::model::ranker::normalize_rows;

/// What stands for the whole sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The hidden state of the first token.
    First,
    /// The mean of all hidden states.
    Mean,
    /// That mean, and the product of the means of both texts, each scaled to the length `√hidden_size`.
    Segments,
}

impl Pooling {
    /// Width of what is pooled from hidden states of width `dim`.
    fn width(self, dim: usize) -> usize {
        match self {
            Self::First | Self::Mean => dim,
            Self::Segments => 2 * dim,
        }
    }
}

/// Sizes and constants: a BERT `config.json` with a few keys more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CrossEncoderConfig {
    /// Sizes of the network.
    #[serde(flatten)]
    pub bert: BertConfig,
    /// What stands for the sequence.
    pub pooling: Pooling,
    /// Share of activations zeroed while training.
    pub dropout: f64,
    /// Most tokens of a pair.
    pub tokens_max: usize,
    /// The rating that the rating head gives as 0.
    pub rating_center: f32,
    /// Grades per unit of the rating head.
    pub rating_scale: f32,
}

/// Which weights learn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TrainedPart {
    /// All but the word embeddings.
    Full,
    /// All, word embeddings too: for a network that starts from nothing.
    FullWithWords,
    /// Heads, and adapters of this rank on queries and values (Hu et al. 2021).
    Lora {
        /// Inner size of `A·B`.
        rank: usize,
        /// The product counts `alpha / rank`.
        alpha: f64,
    },
    /// Heads, biases and the shifts of the norms (Ben Zaken et al. 2021).
    Bitfit,
    /// Heads alone.
    Head,
}

/// The network with both heads.
#[derive(Module, Debug)]
pub struct CrossEncoder {
    encoder: BertModel,
    pooler: Linear,
    click: Linear,
    rating: Linear,
    dropout: Dropout,
    #[module(skip)]
    pooling: Pooling,
}

/// What the heads say of the pairs of a batch.
#[derive(Debug, Clone)]
pub struct CrossOutput {
    /// Logits of a click, `[num_pairs]`.
    pub click: Tensor<1>,
    /// Ratings in units of `rating_scale` around `rating_center`, `[num_pairs]`.
    pub rating: Tensor<1>,
}

/// What the heads say of one pair, on the scale of the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairScore {
    /// Logit of a click: the log odds.
    pub click_logit: f32,
    /// Probability of a click, by the logit.
    pub click_probability: f32,
    /// Expected rating.
    pub rating: f32,
}

impl CrossEncoderConfig {
    /// The pretrained encoder of `bert` with fresh heads.
    #[must_use]
    pub fn pretrained(bert: BertConfig, tokens_max: usize) -> Self {
        Self {
            bert,
            pooling: Pooling::Segments,
            dropout: 0.1,
            tokens_max,
            rating_center: 0.0,
            rating_scale: 1.0,
        }
    }

    /// A network small enough to learn from nothing: 2 layers, width 64.
    #[must_use]
    pub fn small(vocab_size: usize, tokens_max: usize) -> Self {
        let bert = BertConfig {
            vocab_size,
            hidden_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            attention_head_size: None,
            intermediate_size: 128,
            max_position_embeddings: tokens_max.max(8),
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_act: "gelu".to_owned(),
            position_embedding_type: "absolute".to_owned(),
        };
        Self::pretrained(bert, tokens_max)
    }

    /// Checks every value, so that a file from outside cannot ask for absurd memory.
    ///
    /// # Errors
    /// Names the field, its value and what is supported.
    pub fn check(&self) -> Result<(), TextError> {
        self.bert.check()?;
        let refuse = |field, actual: String, expected| {
            Err(TextError::ConfigField {
                field,
                actual,
                expected,
            })
        };
        if self.bert.type_vocab_size < 2 {
            let actual = self.bert.type_vocab_size.to_string();
            return refuse("type_vocab_size", actual, "2 to 16 for pairs of texts");
        }
        if !(PAIR_LEN_MIN..=self.bert.max_position_embeddings).contains(&self.tokens_max) {
            let expected = "5 to max_position_embeddings";
            return refuse("tokens_max", self.tokens_max.to_string(), expected);
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", self.dropout.to_string(), "from 0 to below 1");
        }
        if !self.rating_center.is_finite() {
            let actual = self.rating_center.to_string();
            return refuse("rating_center", actual, "a finite number");
        }
        if !(self.rating_scale > 0.0 && self.rating_scale.is_finite()) {
            let actual = self.rating_scale.to_string();
            return refuse("rating_scale", actual, "above 0");
        }
        Ok(())
    }

    /// Reads `config.json` and checks it.
    ///
    /// # Errors
    /// Not JSON, a key missing, or a value out of bounds.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TextError> {
        let config: Self = serde_json::from_slice(bytes).map_err(|error| TextError::Config {
            reason: error.to_string(),
        })?;
        config.check()?;
        Ok(config)
    }

    /// The network on `device` with random weights, drawn from the device's generator.
    #[must_use]
    pub fn init(&self, device: &Device) -> CrossEncoder {
        let dim = self.bert.hidden_size;
        CrossEncoder {
            encoder: self.bert.init(device),
            pooler: linear(self.pooling.width(dim), dim, device),
            click: linear(dim, 1, device),
            rating: linear(dim, 1, device),
            dropout: DropoutConfig::new(self.dropout).init(),
            pooling: self.pooling,
        }
    }

    /// The network with the encoder weights of a pretrained checkpoint; the heads stay random.
    ///
    /// # Errors
    /// As `TextEncoder::from_named`, or the config is out of bounds.
    pub fn init_pretrained(
        &self,
        tensors: Vec<NamedTensor>,
        device: &Device,
    ) -> Result<CrossEncoder, TextError> {
        self.check()?;
        let mut model = self.init(device);
        model.encoder = load(model.encoder, by_name(tensors)?)?;
        Ok(model)
    }

    /// The network with all weights as [`CrossEncoder::to_named`] gave them.
    ///
    /// # Errors
    /// A tensor is missing, unexpected, there twice, not finite or of another shape, or the config is out of bounds.
    pub fn init_named(
        &self,
        tensors: Vec<NamedTensor>,
        device: &Device,
    ) -> Result<CrossEncoder, TextError> {
        self.check()?;
        let tensors: BTreeMap<String, NamedTensor> = by_whole_name(tensors)?;
        load(self.init(device), tensors)
    }
}

/// The heads and the layer before them.
fn heads() -> ParamGroup {
    ParamGroup::from_any_predicates(vec!["pooler.", "click.", "rating."])
}

/// What is not drawn towards zero by weight decay: biases and norms.
#[must_use]
pub fn undecayed() -> ParamGroup {
    ParamGroup::from_any_predicates(vec!["bias", "gamma", "beta"])
}

impl CrossEncoder {
    /// Both heads.
    ///
    /// # Shapes
    /// `token_ids`, `token_types`, `mask`: `[num_pairs, len]` as in [`BertModel::forward_pairs`].
    /// → two times `[num_pairs]`.
    #[must_use]
    pub fn forward(
        &self,
        token_ids: Tensor<2, Int>,
        token_types: Tensor<2, Int>,
        mask: Option<Tensor<2>>,
    ) -> CrossOutput {
        let is_second = token_types.clone().float();
        let hidden =
            self.encoder
                .forward_pairs(token_ids, token_types, mask.clone(), &self.dropout);
        let is_token = mask.unwrap_or_else(|| is_second.ones_like());
        let pooled = self.dropout.forward(self.pool(hidden, is_token, is_second));
        let pooled = self.dropout.forward(self.pooler.forward(pooled).tanh());
        CrossOutput {
            click: self.click.forward(pooled.clone()).squeeze_dim(1),
            rating: self.rating.forward(pooled).squeeze_dim(1),
        }
    }

    /// Both heads over a batch; `device` is where the weights are.
    ///
    /// # Shapes
    /// → two times `[num_pairs]`, in the order of the batch.
    #[must_use]
    pub fn forward_batch(&self, batch: &PairBatch, device: &Device) -> CrossOutput {
        let tokens = &batch.tokens;
        let dims = [tokens.text_idxs.len(), tokens.padded_len];
        let ints = |values: &[i32]| {
            Tensor::<2, Int>::from_data(TensorData::new(values.to_vec(), dims), device)
        };
        let mask = tokens
            .is_padded()
            .then(|| Tensor::<2>::from_data(TensorData::new(tokens.mask(), dims), device));
        self.forward(ints(&tokens.token_ids), ints(&batch.token_types), mask)
    }

    /// # Shapes
    /// `hidden`: `[num_pairs, len, hidden_size]`; `is_token`, `is_second`: `[num_pairs, len]`, 1 or 0.
    /// → `[num_pairs, width]`.
    fn pool(&self, hidden: Tensor<3>, is_token: Tensor<2>, is_second: Tensor<2>) -> Tensor<2> {
        let [num_pairs, _, dim] = hidden.dims();
        match self.pooling {
            Pooling::First => hidden
                .slice([0..num_pairs, 0..1, 0..dim])
                .reshape([num_pairs, dim]),
            Pooling::Mean => mean_of(hidden, is_token),
            Pooling::Segments => {
                let first = mean_of(hidden.clone(), is_token.clone() - is_second.clone());
                let second = mean_of(hidden.clone(), is_second);
                let product = normalize_rows(first) * normalize_rows(second) * dim as f64; // at most 2048
                Tensor::cat(vec![mean_of(hidden, is_token), product], 1)
            }
        }
    }

    /// The network made ready for training: on the device's autodiff twin, with gradients for `part` alone.
    #[must_use]
    pub fn trained_in(self, part: TrainedPart) -> Self {
        let words = || ParamGroup::from_predicate("embeddings.word.");
        let model = self.train();
        match part {
            TrainedPart::FullWithWords => model.set_require_grad(true),
            TrainedPart::Full => model
                .set_require_grad(true)
                .set_require_grad_group(words(), false),
            TrainedPart::Lora { rank, alpha } => model
                .apply_lora(Lora::new(rank, alpha).set_param_group(changed_group()))
                .set_require_grad_group(heads(), true),
            TrainedPart::Bitfit => {
                let shifts = ParamGroup::from_any_predicates(vec!["bias", "beta"]);
                model
                    .set_require_grad(false)
                    .set_require_grad_group(shifts.fuse(&heads()), true)
            }
            TrainedPart::Head => model
                .set_require_grad(false)
                .set_require_grad_group(heads(), true),
        }
    }

    /// Visits the heads and the layer before them, which no pretrained file fills.
    pub fn visit_heads(&self, visitor: &mut impl ModuleVisitor) {
        self.pooler.visit(visitor);
        self.click.visit(visitor);
        self.rating.visit(visitor);
    }

    /// A copy for scoring: without autodiff and dropout, adapters merged into the weights.
    #[must_use]
    pub fn merged(&self) -> Self {
        self.valid().materialize()
    }

    /// Every weight by name; of a network with adapters, [`Self::merged`] first.
    ///
    /// # Errors
    /// The device failed to give a weight back.
    pub fn to_named(&self) -> Result<Vec<NamedTensor>, TextError> {
        store(self)
    }

    /// Scores pairs in the order given, on `device`, where the weights are. Blocks.
    ///
    /// # Errors
    /// A sequence is too long, a token unknown, the device failed, or a score is not finite.
    pub fn score(
        &self,
        pairs: &[TokenizedPair],
        config: &CrossEncoderConfig,
        device: &Device,
    ) -> Result<Vec<PairScore>, TextError> {
        check_pairs(pairs, config)?;
        let mut scores = vec![None; pairs.len()];
        for batch in plan_pair_batches(pairs, BatchLimits::EXACT, config.tokens_max) {
            let output = self.forward_batch(&batch, device);
            let probabilities = read_back(sigmoid(output.click.clone()))?;
            let (logits, ratings) = (read_back(output.click)?, read_back(output.rating)?);
            for (row, &pair_idx) in batch.tokens.text_idxs.iter().enumerate() {
                let rating = config.rating_center + config.rating_scale * ratings[row];
                if !logits[row].is_finite() || !rating.is_finite() {
                    return Err(TextError::EmbeddingNotFinite { text_idx: pair_idx });
                }
                scores[pair_idx] = Some(PairScore {
                    click_logit: logits[row],
                    click_probability: probabilities[row],
                    rating,
                });
            }
        }
        let scores: Option<Vec<PairScore>> = scores.into_iter().collect();
        Ok(scores.expect("the plan holds every pair once"))
    }
}

/// Mean of the hidden states that are marked; a text of no tokens has no length to speak of and gives zeros.
///
/// # Shapes
/// `[num_pairs, len, dim]`, `[num_pairs, len]` → `[num_pairs, dim]`.
fn mean_of(hidden: Tensor<3>, marks: Tensor<2>) -> Tensor<2> {
    let [num_pairs, len, dim] = hidden.dims();
    let counts = marks.clone().sum_dim(1).clamp_min(1.0);
    let sums = (hidden * marks.reshape([num_pairs, len, 1])).sum_dim(1);
    sums.reshape([num_pairs, dim]) / counts
}

/// Checks every sequence against the network before a device sees it.
///
/// # Errors
/// A sequence is empty or too long, or a token has no embedding.
pub fn check_pairs(pairs: &[TokenizedPair], config: &CrossEncoderConfig) -> Result<(), TextError> {
    let (vocab_size, len_max) = (config.bert.vocab_size, config.tokens_max);
    for pair in pairs {
        let actual = pair.token_ids.len();
        if !(1..=len_max).contains(&actual) {
            return Err(TextError::SequenceLen { actual, len_max });
        }
        let unknown = pair.token_ids.iter().find(|&&id| id as usize >= vocab_size); // fits: usize has at least 32 bits here
        if let Some(&token_id) = unknown {
            return Err(TextError::TokenUnknown {
                token_id,
                vocab_size,
            });
        }
    }
    Ok(())
}

fn read_back(tensor: Tensor<1>) -> Result<Vec<f32>, TextError> {
    let data = tensor.try_into_data().map_err(device_error)?;
    data.try_into_vec::<f32>().map_err(device_error)
}

#[cfg(all(test, feature = "train"))]
mod tests;
