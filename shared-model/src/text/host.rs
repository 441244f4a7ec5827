//! The BERT network on the host, for the page's CPU: int8 weights, everything between the products in f32.
//!
//! The network is that of `bert`, one text at a time and so without padding. Weights of linear layers have a scale per
//! output and word embeddings one per word; activations are quantized row by row when they meet weights
//! (`kernels::int8`). Attention itself, norms and gelu stay in f32. The tests hold the embeddings to burn's by cosine.
//! Weights come as numbers, or as codes of a packed file (`packed`), which are taken exactly.
//! Not here: tokenizing, and changes that the server teaches (they are merged before weights come here).

use std::collections::BTreeMap;

use super::TextError;
use super::batch::TokenizedText;
use super::config::BertConfig;
use super::encoder::check_tokens;
use super::packed::{CodedMatrix, POSITIONS, PackedTensor, WORDS};
use super::parameters::{NamedTensor, by_name};
use crate::kernels::elementwise::dot;
use crate::kernels::{Form, Int8Panels, Int8Rows, Norm, Panels, gelu, softmax};
use crate::model::ranker::NORM_EPSILON;

/// Network with quantized weights.
#[derive(Debug, Clone)]
pub struct HostTextEncoder {
    config: BertConfig,
    words: Int8Rows,
    /// Position and type 0 together, `[max_position_embeddings, hidden_size]`.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
struct Layer {
    head_size: usize,
    /// Queries, keys and values, side by side.
    projection: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    intermediate: Linear,
    output: Linear,
    output_norm: Norm,
}

#[derive(Debug, Clone)]
struct Linear {
    weights: Int8Panels,
    bias: Vec<f32>,
}

/// What a linear layer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// Queries, keys and values.
    Projection,
    /// The output of attention.
    AttentionOutput,
    /// The first feed-forward layer.
    Intermediate,
    /// The second one.
    Output,
}

/// Memory that layers use one after another: outputs wider than hidden states, and outputs as wide as these.
#[derive(Debug, Default)]
struct Scratch {
    wide: Vec<f32>,
    narrow: Vec<f32>,
}

impl HostTextEncoder {
    /// Quantizes the tensors of a weights file for the instructions that this is built for.
    ///
    /// # Errors
    /// As [`super::TextEncoder::from_named`].
    pub fn from_named(config: BertConfig, tensors: Vec<NamedTensor>) -> Result<Self, TextError> {
        Self::in_form(Form::OF_TARGET, config, tensors)
    }

    /// The same with activations in a form of the caller's choice.
    ///
    /// # Errors
    /// As [`super::TextEncoder::from_named`].
    pub fn in_form(
        form: Form,
        config: BertConfig,
        tensors: Vec<NamedTensor>,
    ) -> Result<Self, TextError> {
        config.check()?;
        let tensors = by_name(tensors)?;
        let mut weights = Named { form, tensors };
        let dim = config.hidden_size;
        let words = weights.take(WORDS, &[config.vocab_size, dim])?;
        let words = Int8Rows::new(&words, dim);
        let mut positions = weights.take(POSITIONS, &[config.max_position_embeddings, dim])?;
        let types = [config.type_vocab_size, dim];
        let types = weights.take("embeddings.token_type_embeddings.weight", &types)?;
        for position in positions.chunks_exact_mut(dim) {
            add(position, &types[..dim]);
        }
        let encoder = Self::build(&mut weights, config, words, positions)?;
        none_left(weights.tensors)?;
        Ok(encoder)
    }

    /// Takes the codes of a packed file.
    ///
    /// # Errors
    /// A weight is missing, unexpected or of another shape.
    pub fn from_packed(
        form: Form,
        config: BertConfig,
        tensors: BTreeMap<String, PackedTensor>,
    ) -> Result<Self, TextError> {
        config.check()?;
        let mut weights = Packed { form, tensors };
        let dim = config.hidden_size;
        let words = weights.matrix(WORDS, config.vocab_size, dim)?;
        let words = Int8Rows::from_codes(dim, words.scales(), words.codes);
        let positions = weights.matrix(POSITIONS, config.max_position_embeddings, dim)?;
        let encoder = Self::build(&mut weights, config, words, positions.values())?;
        none_left(weights.tensors)?;
        Ok(encoder)
    }

    fn build(
        weights: &mut impl Weights,
        config: BertConfig,
        words: Int8Rows,
        positions: Vec<f32>,
    ) -> Result<Self, TextError> {
        let norm = weights.norm("embeddings.LayerNorm", &config)?;
        let layers =
            (0..config.num_hidden_layers).map(|layer| Layer::take(weights, layer, &config));
        let layers = layers.collect::<Result<_, _>>()?;
        Ok(Self {
            config,
            words,
            positions,
            norm,
            layers,
        })
    }

    /// Width of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.config.hidden_size
    }

    /// Embeddings of token sequences, as unit vectors in the order given.
    ///
    /// # Shapes
    /// → `[texts.len(), dim]`, row-major.
    ///
    /// # Errors
    /// A sequence is too long, a token unknown, or an embedding is not finite.
    pub fn encode(&self, texts: &[TokenizedText]) -> Result<Vec<f32>, TextError> {
        check_tokens(texts, &self.config)?;
        let mut embeddings = Vec::with_capacity(texts.len() * self.dim());
        for (text_idx, text) in texts.iter().enumerate() {
            let hidden = self.forward(&text.token_ids, |_, _, _| {});
            let embedding = unit_mean(&hidden, self.dim());
            if embedding.iter().any(|value| !value.is_finite()) {
                return Err(TextError::EmbeddingNotFinite { text_idx });
            }
            embeddings.extend(embedding);
        }
        Ok(embeddings)
    }

    /// Tells what the linear layers get while a text is embedded: layer, which of its inputs, and the rows
    /// `[token_ids.len(), width]`.
    ///
    /// # Errors
    /// The sequence is too long, or a token unknown.
    pub fn observe(
        &self,
        text: &TokenizedText,
        tell: impl FnMut(usize, Input, &[f32]),
    ) -> Result<(), TextError> {
        check_tokens(std::slice::from_ref(text), &self.config)?;
        self.forward(&text.token_ids, tell);
        Ok(())
    }

    /// Hidden states of the last layer, `[token_ids.len(), hidden_size]`.
    fn forward(&self, token_ids: &[u32], mut tell: impl FnMut(usize, Input, &[f32])) -> Vec<f32> {
        let dim = self.dim();
        let mut hidden = self.positions[..token_ids.len() * dim].to_vec();
        for (token_id, place) in token_ids.iter().zip(hidden.chunks_exact_mut(dim)) {
            self.words.add_row(*token_id as usize, place);
        }
        self.norm.apply(&mut hidden);
        let mut scratch = Scratch::default();
        for (layer_idx, layer) in self.layers.iter().enumerate() {
            layer.forward(&mut hidden, &mut scratch, |input, rows| {
                tell(layer_idx, input, rows);
            });
        }
        hidden
    }
}

impl Layer {
    fn take(
        weights: &mut impl Weights,
        layer: usize,
        config: &BertConfig,
    ) -> Result<Self, TextError> {
        let (dim, inner_dim) = (config.hidden_size, config.intermediate_size);
        let attention_size = config.attention_size();
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let parts = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        Ok(Self {
            head_size: config.head_size(),
            projection: weights.linear(&parts, dim, attention_size)?,
            attention_output: weights.linear(
                &[name("attention.output.dense")],
                attention_size,
                dim,
            )?,
            attention_norm: weights.norm(&name("attention.output.LayerNorm"), config)?,
            intermediate: weights.linear(&[name("intermediate.dense")], dim, inner_dim)?,
            output: weights.linear(&[name("output.dense")], inner_dim, dim)?,
            output_norm: weights.norm(&name("output.LayerNorm"), config)?,
        })
    }

    /// # Shapes
    /// `hidden`: `[len, hidden_size]`, in place.
    fn forward(
        &self,
        hidden: &mut [f32],
        scratch: &mut Scratch,
        mut tell: impl FnMut(Input, &[f32]),
    ) {
        let Scratch { wide, narrow } = scratch;
        tell(Input::Projection, hidden);
        self.projection.forward(hidden, wide);
        let mixed = self.attention(wide);
        tell(Input::AttentionOutput, &mixed);
        self.attention_output.forward(&mixed, narrow);
        add(hidden, narrow);
        self.attention_norm.apply(hidden);

        tell(Input::Intermediate, hidden);
        self.intermediate.forward(hidden, wide);
        gelu(wide);
        tell(Input::Output, wide);
        self.output.forward(wide, narrow);
        add(hidden, narrow);
        self.output_norm.apply(hidden);
    }

    /// Every token looks at every one; a head at a time.
    ///
    /// # Shapes
    /// `projected`: `[len, 3 · attention_size]`, queries, keys, values → `[len, attention_size]`.
    fn attention(&self, projected: &[f32]) -> Vec<f32> {
        let (width, head_dim) = (self.projection.bias.len() / 3, self.head_size);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let rows = || projected.chunks_exact(3 * width);
        let len = rows().len();
        let mut mixed = vec![0.0; len * width];
        let (mut queries, mut values) = (Vec::new(), Vec::new());
        for first in (0..width).step_by(head_dim) {
            queries.clear();
            values.clear();
            let mut keys = Panels::zeros(head_dim, len);
            for (position, row) in rows().enumerate() {
                queries.extend(row[first..][..head_dim].iter().map(|x| x * scale));
                keys.set_column(position, &row[width + first..][..head_dim]);
                values.extend_from_slice(&row[2 * width + first..][..head_dim]);
            }
            let mut attention = keys.product(&queries, None);
            for row in attention.chunks_exact_mut(len) {
                softmax(row);
            }
            let head = Panels::new(len, &[&values]).product(&attention, None);
            let rows = head.chunks_exact(head_dim);
            for (row, mixed) in rows.zip(mixed.chunks_exact_mut(width)) {
                mixed[first..][..head_dim].copy_from_slice(row);
            }
        }
        mixed
    }
}

impl Linear {
    fn forward(&self, input: &[f32], output: &mut Vec<f32>) {
        self.weights.product(input, &self.bias, output);
    }
}

/// Where a network's weights come from, each to be taken once.
trait Weights {
    /// # Errors
    /// There is no such vector, or it has another length.
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, TextError>;

    /// Linear layers of the same input, their outputs side by side.
    ///
    /// # Errors
    /// One of them is missing or of another shape.
    fn linear(&mut self, names: &[String], d_in: usize, d_out: usize) -> Result<Linear, TextError>;

    fn norm(&mut self, name: &str, config: &BertConfig) -> Result<Norm, TextError> {
        Ok(Norm {
            gamma: self.vector(&format!("{name}.weight"), config.hidden_size)?,
            beta: self.vector(&format!("{name}.bias"), config.hidden_size)?,
            epsilon: config.layer_norm_eps as f32, // what a config holds has a near f32
        })
    }

    fn biases(&mut self, names: &[String], d_out: usize) -> Result<Vec<f32>, TextError> {
        let mut biases = Vec::new();
        for name in names {
            biases.extend(self.vector(&format!("{name}.bias"), d_out)?);
        }
        Ok(biases)
    }
}

/// Numbers of a weights file.
struct Named {
    form: Form,
    tensors: BTreeMap<String, NamedTensor>,
}

impl Named {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TextError> {
        let tensor = take_named(&mut self.tensors, name)?;
        if tensor.shape != shape {
            return Err(TextError::ShapeMismatch {
                tensor: tensor.name,
                expected: shape.to_vec(),
                actual: tensor.shape,
            });
        }
        Ok(tensor.values)
    }
}

impl Weights for Named {
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, TextError> {
        self.take(name, &[len])
    }

    fn linear(&mut self, names: &[String], d_in: usize, d_out: usize) -> Result<Linear, TextError> {
        let mut parts = Vec::new();
        for name in names {
            parts.push(self.take(&format!("{name}.weight"), &[d_out, d_in])?);
        }
        let parts: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
        Ok(Linear {
            weights: Int8Panels::new(self.form, d_in, &parts),
            bias: self.biases(names, d_out)?,
        })
    }
}

/// Codes of a packed file.
struct Packed {
    form: Form,
    tensors: BTreeMap<String, PackedTensor>,
}

impl Packed {
    fn matrix(
        &mut self,
        name: &str,
        num_rows: usize,
        num_cols: usize,
    ) -> Result<CodedMatrix, TextError> {
        take_named(&mut self.tensors, name)?.into_matrix(name, num_rows, num_cols)
    }
}

impl Weights for Packed {
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, TextError> {
        take_named(&mut self.tensors, name)?.into_vector(name, len)
    }

    fn linear(&mut self, names: &[String], d_in: usize, d_out: usize) -> Result<Linear, TextError> {
        let mut parts = Vec::new();
        for name in names {
            parts.push(self.matrix(&format!("{name}.weight"), d_out, d_in)?);
        }
        let parts = parts
            .iter()
            .map(|part| (part.codes.as_slice(), part.scales()));
        Ok(Linear {
            weights: Int8Panels::from_codes(self.form, d_in, &parts.collect::<Vec<_>>()),
            bias: self.biases(names, d_out)?,
        })
    }
}

fn take_named<T>(tensors: &mut BTreeMap<String, T>, name: &str) -> Result<T, TextError> {
    tensors
        .remove(name)
        .ok_or_else(|| TextError::TensorMissing {
            tensor: name.to_owned(),
        })
}

fn none_left<T>(tensors: BTreeMap<String, T>) -> Result<(), TextError> {
    match tensors.into_keys().next() {
        Some(tensor) => Err(TextError::TensorUnexpected { tensor }),
        None => Ok(()),
    }
}

/// Mean of rows, scaled to length 1 as burn does it.
///
/// # Shapes
/// `hidden`: `[len, dim]` → `[dim]`.
fn unit_mean(hidden: &[f32], dim: usize) -> Vec<f32> {
    let mut mean = vec![0.0; dim];
    for row in hidden.chunks_exact(dim) {
        add(&mut mean, row);
    }
    let len = (hidden.len() / dim) as f32;
    mean.iter_mut().for_each(|x| *x /= len);
    let length = (dot(&mean, &mean) + NORM_EPSILON as f32).sqrt(); // 1e-12 has a near f32
    mean.iter_mut().for_each(|x| *x /= length);
    mean
}

fn add(sums: &mut [f32], values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}
