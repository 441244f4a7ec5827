//! The BERT network in burn: embeddings, bidirectional attention layers, mean pooling.
//!
//! ```text
//! x_0   = LN(word + position + type)
//! layer : x = LN(x + attention(x)), x = LN(x + W₂·gelu(W₁·x))     post-norm (Devlin et al. 2018)
//! text  = norm(mean over the tokens of x)                          (Reimers & Gurevych 2019)
//! ```
//! LayerNorm takes its epsilon from the config and gelu is the exact one with erf.
//! Hidden states are kept as one matrix of tokens, so that every linear layer is one product.
//! A single text is of type 0; of a pair, the second text is of type 1.
//! Dropout, where a caller trains, falls on `x_0` and on the output of both halves of a layer; attention
//! probabilities are left whole, since the fused attention has no place for it.

use burn::module::Module;
use burn::nn::{
    Dropout, Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig, Linear,
    LinearConfig,
};
use burn::tensor::activation::gelu;
use burn::tensor::module::attention;
use burn::tensor::{Device, Int, Tensor};

use super::TextError;
use super::config::BertConfig;
use super::parameters::{NamedTensor, store};
use crate::model::ranker::normalize_rows;

/// Added to the attention score of padding; finite, so that softmax has no NaN on any backend.
const MASKED_SCORE: f32 = -1.0e9;

/// Devlin et al. 2018: every matrix starts normal with this deviation.
const WEIGHT_INITIALIZER: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.02,
};

/// A linear layer that starts as BERT's do.
pub(super) fn linear(d_in: usize, d_out: usize, device: &Device) -> Linear {
    LinearConfig::new(d_in, d_out)
        .with_initializer(WEIGHT_INITIALIZER)
        .init(device)
}

/// Token ids to hidden states.
#[derive(Module, Debug)]
pub struct BertModel {
    embeddings: BertEmbeddings,
    layers: Vec<BertLayer>,
}

#[derive(Module, Debug)]
struct BertEmbeddings {
    word: Embedding,
    position: Embedding,
    token_type: Embedding,
    norm: LayerNorm,
}

#[derive(Module, Debug)]
struct BertLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    num_heads: usize,
    head_size: usize,
}

/// Shape of a batch, since hidden states are kept flat.
#[derive(Debug, Clone, Copy)]
struct BatchShape {
    num_texts: usize,
    len: usize,
}

impl BertConfig {
    /// The network on `device`; weights take no memory before they are loaded or used.
    /// Until they are loaded they are normal with the deviation of the original BERT.
    #[must_use]
    pub fn init(&self, device: &Device) -> BertModel {
        let (dim, attention_size) = (self.hidden_size, self.attention_size());
        let norm = || {
            LayerNormConfig::new(dim)
                .with_epsilon(self.layer_norm_eps)
                .init(device)
        };
        let embedding = |num_rows| {
            EmbeddingConfig::new(num_rows, dim)
                .with_initializer(WEIGHT_INITIALIZER)
                .init(device)
        };
        let linear = |d_in, d_out| linear(d_in, d_out, device);
        let embeddings = BertEmbeddings {
            word: embedding(self.vocab_size),
            position: embedding(self.max_position_embeddings),
            token_type: embedding(self.type_vocab_size),
            norm: norm(),
        };
        let layer = |_| BertLayer {
            query: linear(dim, attention_size),
            key: linear(dim, attention_size),
            value: linear(dim, attention_size),
            attention_output: linear(attention_size, dim),
            attention_norm: norm(),
            intermediate: linear(dim, self.intermediate_size),
            output: linear(self.intermediate_size, dim),
            output_norm: norm(),
            num_heads: self.num_attention_heads,
            head_size: self.head_size(),
        };
        BertModel {
            embeddings,
            layers: (0..self.num_hidden_layers).map(layer).collect(),
        }
    }
}

impl BertModel {
    /// Hidden states of the last layer for single texts, without dropout.
    ///
    /// # Shapes
    /// `token_ids`: `[num_texts, len]`; `mask`: `[num_texts, len]`, 1 at a token and 0 at padding,
    /// absent where nothing is padded. → `[num_texts, len, hidden_size]`.
    #[must_use]
    pub fn forward(&self, token_ids: Tensor<2, Int>, mask: Option<Tensor<2>>) -> Tensor<3> {
        self.run(self.embeddings.word.forward(token_ids), None, mask, None)
    }

    /// Hidden states of the last layer for single texts whose words the caller has looked up: a table of many words
    /// that learns is then not differentiated as a whole. Nothing is padded.
    ///
    /// # Shapes
    /// `words`: `[num_texts, len, hidden_size]`, rows of the word embeddings → same.
    #[must_use]
    pub fn forward_words(&self, words: Tensor<3>) -> Tensor<3> {
        self.run(words, None, None, None)
    }

    /// Hidden states of the last layer for pairs of texts.
    ///
    /// # Shapes
    /// `token_ids`, `mask` as in [`Self::forward`]; `token_types`: `[num_texts, len]`, 0 in the first text
    /// and 1 in the second. → `[num_texts, len, hidden_size]`.
    #[must_use]
    pub fn forward_pairs(
        &self,
        token_ids: Tensor<2, Int>,
        token_types: Tensor<2, Int>,
        mask: Option<Tensor<2>>,
        dropout: &Dropout,
    ) -> Tensor<3> {
        let words = self.embeddings.word.forward(token_ids);
        self.run(words, Some(token_types), mask, Some(dropout))
    }

    /// Every weight, named and laid out as a weights file has them.
    ///
    /// # Errors
    /// The device failed to give a weight back.
    pub fn to_named(&self) -> Result<Vec<NamedTensor>, TextError> {
        store(self)
    }

    fn run(
        &self,
        words: Tensor<3>,
        token_types: Option<Tensor<2, Int>>,
        mask: Option<Tensor<2>>,
        dropout: Option<&Dropout>,
    ) -> Tensor<3> {
        let [num_texts, len, dim] = words.dims();
        let shape = BatchShape { num_texts, len };
        let scores = mask.map(|mask| attention_bias(mask, shape));
        let mut hidden = drop_some(dropout, self.embeddings.forward(words, token_types));
        for layer in &self.layers {
            hidden = layer.attend(hidden, shape, scores.as_ref(), dropout);
            hidden = layer.feed_forward(hidden, dropout);
        }
        hidden.reshape([num_texts, len, dim])
    }
}

fn drop_some(dropout: Option<&Dropout>, values: Tensor<2>) -> Tensor<2> {
    match dropout {
        None => values,
        Some(dropout) => dropout.forward(values),
    }
}

impl BertEmbeddings {
    /// # Shapes
    /// `words`: `[num_texts, len, hidden_size]`, types: `[num_texts, len]` or none for type 0
    /// → `[num_texts · len, hidden_size]`.
    fn forward(&self, words: Tensor<3>, token_types: Option<Tensor<2, Int>>) -> Tensor<2> {
        let [num_texts, len, dim] = words.dims();
        let positions = self.position.weight.val().slice([0..len, 0..dim]);
        let places = match token_types {
            None => {
                let token_type = self.token_type.weight.val().slice([0..1, 0..dim]);
                words + (positions + token_type).reshape([1, len, dim])
            }
            Some(types) => {
                words + positions.reshape([1, len, dim]) + self.token_type.forward(types)
            }
        };
        self.norm.forward(places.reshape([num_texts * len, dim]))
    }
}

impl BertLayer {
    /// Multi-head attention with its residual.
    ///
    /// # Shapes
    /// `hidden`: `[num_texts · len, hidden_size]` → same.
    fn attend(
        &self,
        hidden: Tensor<2>,
        shape: BatchShape,
        bias: Option<&Tensor<4>>,
        dropout: Option<&Dropout>,
    ) -> Tensor<2> {
        let BatchShape { num_texts, len } = shape;
        let heads = |linear: &Linear| {
            let flat = linear.forward(hidden.clone());
            flat.reshape([num_texts, len, self.num_heads, self.head_size])
                .swap_dims(1, 2)
        };
        let (query, key, value) = (heads(&self.query), heads(&self.key), heads(&self.value));
        let mixed = attention(query, key, value, None, bias.cloned(), Default::default());
        let mixed = mixed
            .swap_dims(1, 2)
            .reshape([num_texts * len, self.num_heads * self.head_size]);
        let output = drop_some(dropout, self.attention_output.forward(mixed));
        self.attention_norm.forward(hidden + output)
    }

    /// Position-wise feed-forward layer with its residual.
    ///
    /// # Shapes
    /// `[num_texts · len, hidden_size]` → same.
    fn feed_forward(&self, hidden: Tensor<2>, dropout: Option<&Dropout>) -> Tensor<2> {
        let inner = gelu(self.intermediate.forward(hidden.clone()));
        let output = drop_some(dropout, self.output.forward(inner));
        self.output_norm.forward(hidden + output)
    }
}

/// # Shapes
/// `mask`: `[num_texts, len]` → `[num_texts, 1, len, len]`, 0 or [`MASKED_SCORE`] by column.
fn attention_bias(mask: Tensor<2>, shape: BatchShape) -> Tensor<4> {
    let BatchShape { num_texts, len } = shape;
    let bias = (mask - 1.0) * -MASKED_SCORE;
    bias.reshape([num_texts, 1, 1, len])
        .expand([num_texts, 1, len, len])
}

/// Mean of the tokens' hidden states, scaled to length 1.
///
/// # Shapes
/// `hidden`: `[num_texts, len, hidden_size]`, `mask` as in [`BertModel::forward`].
/// → `[num_texts, hidden_size]`.
#[must_use]
pub fn mean_pool(hidden: Tensor<3>, mask: Option<Tensor<2>>) -> Tensor<2> {
    let [num_texts, len, dim] = hidden.dims();
    let mean = match mask {
        None => hidden.mean_dim(1),
        Some(mask) => {
            let counts = mask.clone().sum_dim(1).reshape([num_texts, 1, 1]);
            (hidden * mask.reshape([num_texts, len, 1])).sum_dim(1) / counts
        }
    };
    normalize_rows(mean.reshape([num_texts, dim]))
}
