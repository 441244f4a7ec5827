//! Ranker: item vectors and the user vector by causal attention over a history.
//!
//! ```text
//! v_i   = norm(P·t_i + F·x_i + e_i)                       t text, x features, e id row
//! x_0   = start + position_0
//! x_j   = √dim·v_(item j) + kind_j + gap_j + position_j    j = 1 … num_events
//! layer : x += attention(LN(x)), x += W₂·gelu(W₁·LN(x))    pre-norm, causal (Vaswani et al. 2017; Xiong et al. 2020)
//!         x += U·gelu(D·x)                                 where the spec has adapters (Houlsby et al. 2019)
//! u_j   = LN(x_j)
//! score = τ·u_j·v_i + b_i + prior_i(now)                  τ learned along the stream, 1 where the spec has none
//! ```
//! The next-item view of a history follows SASRec (Kang & McAuley 2018).
//! Weights are plain burn tensors on one device; whoever trains asks for gradients on them.

use burn::tensor::activation::{gelu, softmax};
use burn::tensor::module::layer_norm;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};

use super::parameters::ParameterSet;
use super::sequence::SequenceBatch;
use crate::spec::{ModelSpec, TensorGroup};

pub(super) const LAYER_NORM_EPSILON: f64 = 1e-5;
/// Added under the root of a vector's squared length, so that a zero vector stays finite.
pub(crate) const NORM_EPSILON: f64 = 1e-12;
/// Attention score of a future position; finite, so that softmax has no NaN on any backend.
const MASKED_SCORE: f32 = -1.0e9;
const TENSORS_PER_LAYER: usize = 11;
const TENSORS_PER_ADAPTER: usize = 3;
/// Final norm and the two heads stand between layers and adapters.
const TENSORS_AFTER_LAYERS: usize = 3;

/// The slow weights on a device. Item tensors are passed in, since only some rows may be wanted.
#[derive(Debug, Clone)]
pub struct Ranker {
    spec: ModelSpec,
    device: Device,
    /// Slow tensors in spec order, each `[num_rows, num_cols]`; those with no rows are absent.
    weights: Vec<Option<Tensor<2>>>,
}

/// Where the slow tensors stand in [`Ranker::weights`], as the spec orders them.
mod slot {
    pub(super) const TEXT_PROJECTION: usize = 0;
    pub(super) const FEATURE_PROJECTION: usize = 1;
    pub(super) const START: usize = 2;
    pub(super) const KIND: usize = 3;
    pub(super) const GAP: usize = 4;
    pub(super) const POSITION: usize = 5;
    pub(super) const LAYERS: usize = 6;
    pub(super) const NORM_1: usize = 0;
    pub(super) const QUERY: usize = 1;
    pub(super) const KEY: usize = 2;
    pub(super) const VALUE: usize = 3;
    pub(super) const OUTPUT: usize = 4;
    pub(super) const ATTENTION_BIAS: usize = 5;
    pub(super) const NORM_2: usize = 6;
    pub(super) const FF_IN: usize = 7;
    pub(super) const FF_IN_BIAS: usize = 8;
    pub(super) const FF_OUT: usize = 9;
    pub(super) const FF_OUT_BIAS: usize = 10;
}

/// Which positions' outputs dropout may touch; 0 at inference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout(pub f64);

impl Dropout {
    /// No dropout.
    pub const NONE: Self = Self(0.0);

    fn apply<const D: usize>(self, input: Tensor<D>) -> Tensor<D> {
        if self.0 <= 0.0 {
            return input;
        }
        let keep = 1.0 - self.0;
        let mask = input.random_like(Distribution::Bernoulli(keep));
        input * mask / keep
    }
}

impl Ranker {
    /// Puts the slow weights of `parameters` on `device`.
    #[must_use]
    pub fn init(parameters: &ParameterSet, device: &Device) -> Self {
        let shapes = parameters.shapes();
        let slow = shapes
            .iter()
            .zip(&parameters.tensors)
            .filter(|(shape, _)| shape.group == TensorGroup::Slow);
        let weights = slow
            .map(|(shape, values)| {
                (shape.num_rows > 0).then(|| matrix(values, shape.num_rows, shape.num_cols, device))
            })
            .collect();
        Self {
            spec: parameters.spec.clone(),
            device: device.clone(),
            weights,
        }
    }

    /// The same model with every weight a leaf that keeps its gradient.
    #[must_use]
    pub fn require_grad(mut self) -> Self {
        for weight in &mut self.weights {
            *weight = weight.take().map(Tensor::require_grad);
        }
        self
    }

    /// Slow weights in spec order.
    #[must_use]
    pub fn weights(&self) -> &[Option<Tensor<2>>] {
        &self.weights
    }

    /// Width of item and user vectors.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.spec.embedding_dim as usize
    }

    /// Events that it attends to.
    #[must_use]
    pub fn history_len(&self) -> usize {
        self.spec.history_len as usize
    }

    /// The device the weights live on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Content part of the item vectors: `P·t + F·x`.
    ///
    /// # Shapes
    /// `text`: `[num_rows, text_dim]`, `features`: `[num_rows, feature_dim]`; absent where the width is 0.
    /// → `[num_rows, embedding_dim]`, absent where there is neither.
    #[must_use]
    pub fn content_vectors(
        &self,
        text: Option<Tensor<2>>,
        features: Option<Tensor<2>>,
    ) -> Option<Tensor<2>> {
        let text = project(text, self.weights[slot::TEXT_PROJECTION].as_ref());
        let features = project(features, self.weights[slot::FEATURE_PROJECTION].as_ref());
        match (text, features) {
            (Some(text), Some(features)) => Some(text + features),
            (text, features) => text.or(features),
        }
    }

    /// User vectors at every position.
    ///
    /// # Shapes
    /// `item_vectors`: `[num_rows, embedding_dim]`, indexed by `batch.item_rows`.
    /// → `[num_sequences, num_positions, embedding_dim]`; a padded position is meaningless.
    #[must_use]
    pub fn forward(
        &self,
        item_vectors: &Tensor<2>,
        batch: &SequenceBatch,
        dropout: Dropout,
    ) -> Tensor<3> {
        let mut hidden = dropout.apply(self.embed(item_vectors, batch));
        let mask = self.causal_mask(batch.num_positions());
        for layer in 0..self.spec.num_layers as usize {
            hidden = self.attend(hidden, layer, &mask, dropout);
            hidden = self.feed_forward(hidden, layer, dropout);
            if self.spec.adapter_dim > 0 {
                hidden = self.adapt(hidden, layer);
            }
        }
        self.norm(hidden, self.final_norm_slot())
    }

    /// Weights of the click head `[1, embedding_dim + 2]` and the rating head `[1, embedding_dim + 1]`.
    #[must_use]
    pub fn heads(&self) -> (Tensor<2>, Tensor<2>) {
        let first = self.final_norm_slot() + 1;
        (self.weight(first), self.weight(first + 1))
    }

    fn final_norm_slot(&self) -> usize {
        slot::LAYERS + TENSORS_PER_LAYER * self.spec.num_layers as usize
    }

    fn weight(&self, slot: usize) -> Tensor<2> {
        self.weights[slot]
            .clone()
            .expect("only content projections can be absent")
    }

    fn layer_weight(&self, layer: usize, slot: usize) -> Tensor<2> {
        self.weight(slot::LAYERS + TENSORS_PER_LAYER * layer + slot)
    }

    fn embed(&self, item_vectors: &Tensor<2>, batch: &SequenceBatch) -> Tensor<3> {
        let dim = self.spec.embedding_dim as usize;
        let (num_sequences, num_events) = (batch.num_sequences, batch.num_events);
        let start = self
            .weight(slot::START)
            .reshape([1, 1, dim])
            .expand([num_sequences, 1, dim]);
        let positions = self
            .weight(slot::POSITION)
            .slice([0..batch.num_positions(), 0..dim]);
        let positions = positions.reshape([1, batch.num_positions(), dim]);
        if num_events == 0 {
            return start + positions;
        }
        let items = item_vectors
            .clone()
            .select(0, ints(&batch.item_rows, &self.device));
        let kinds = self
            .weight(slot::KIND)
            .select(0, ints(&batch.kinds, &self.device));
        let gaps = self
            .weight(slot::GAP)
            .select(0, ints(&batch.gaps, &self.device));
        let events = items * (dim as f64).sqrt() + kinds + gaps;
        let events = events.reshape([num_sequences, num_events, dim]);
        Tensor::cat(vec![start, events], 1) + positions
    }

    /// Multi-head causal attention with its residual.
    fn attend(
        &self,
        hidden: Tensor<3>,
        layer: usize,
        mask: &Tensor<4>,
        dropout: Dropout,
    ) -> Tensor<3> {
        let [num_sequences, num_positions, dim] = hidden.dims();
        let num_heads = self.spec.num_heads as usize;
        let head_dim = dim / num_heads;
        let bias = self.layer_weight(layer, slot::ATTENTION_BIAS);
        let normed = self.norm(
            hidden.clone(),
            slot::LAYERS + TENSORS_PER_LAYER * layer + slot::NORM_1,
        );
        let project = |slot: usize, bias_row: usize| {
            let row = bias.clone().slice([bias_row..bias_row + 1, 0..dim]);
            let flat = linear(normed.clone(), self.layer_weight(layer, slot), row);
            flat.reshape([num_sequences, num_positions, num_heads, head_dim])
                .swap_dims(1, 2)
        };
        let query = project(slot::QUERY, 0);
        let key = project(slot::KEY, 1);
        let value = project(slot::VALUE, 2);

        let scores = query.matmul(key.swap_dims(2, 3)) / (head_dim as f64).sqrt();
        let attention = dropout.apply(softmax(scores + mask.clone(), 3));
        let mixed =
            attention
                .matmul(value)
                .swap_dims(1, 2)
                .reshape([num_sequences, num_positions, dim]);
        let output = linear(
            mixed,
            self.layer_weight(layer, slot::OUTPUT),
            bias.slice([3..4, 0..dim]),
        );
        hidden + dropout.apply(output)
    }

    /// Position-wise feed-forward layer with its residual.
    fn feed_forward(&self, hidden: Tensor<3>, layer: usize, dropout: Dropout) -> Tensor<3> {
        let normed = self.norm(
            hidden.clone(),
            slot::LAYERS + TENSORS_PER_LAYER * layer + slot::NORM_2,
        );
        let weight = |slot| self.layer_weight(layer, slot);
        let inner = gelu(linear(
            normed,
            weight(slot::FF_IN),
            weight(slot::FF_IN_BIAS),
        ));
        let output = linear(inner, weight(slot::FF_OUT), weight(slot::FF_OUT_BIAS));
        hidden + dropout.apply(output)
    }

    /// Bottleneck with its residual; nothing while its second matrix is zero, as it starts.
    fn adapt(&self, hidden: Tensor<3>, layer: usize) -> Tensor<3> {
        let first = self.final_norm_slot() + TENSORS_AFTER_LAYERS + TENSORS_PER_ADAPTER * layer;
        let inner = linear(hidden.clone(), self.weight(first), self.weight(first + 1));
        let [num_sequences, num_positions, dim] = hidden.dims();
        let inner_dim = self.spec.adapter_dim as usize;
        let flat = gelu(inner).reshape([num_sequences * num_positions, inner_dim]);
        let output = flat.matmul(self.weight(first + 2));
        hidden + output.reshape([num_sequences, num_positions, dim])
    }

    fn norm(&self, hidden: Tensor<3>, slot: usize) -> Tensor<3> {
        let dim = self.spec.embedding_dim as usize;
        let weight = self.weight(slot);
        let gamma = weight.clone().slice([0..1, 0..dim]).reshape([dim]);
        let beta = weight.slice([1..2, 0..dim]).reshape([dim]);
        layer_norm(hidden, gamma, Some(beta), LAYER_NORM_EPSILON)
    }

    /// `[1, 1, num_positions, num_positions]`: 0 where a position may look, else [`MASKED_SCORE`].
    fn causal_mask(&self, num_positions: usize) -> Tensor<4> {
        let mut values = vec![0.0_f32; num_positions * num_positions];
        for row in 0..num_positions {
            values[row * num_positions + row + 1..(row + 1) * num_positions].fill(MASKED_SCORE);
        }
        Tensor::from_data(
            TensorData::new(values, [1, 1, num_positions, num_positions]),
            &self.device,
        )
    }
}

/// Host values as a matrix on `device`.
#[must_use]
pub fn matrix(values: &[f32], num_rows: usize, num_cols: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), [num_rows, num_cols]),
        device,
    )
}

/// Host integers as an index tensor on `device`.
#[must_use]
pub fn ints(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// Rows scaled to length 1.
///
/// # Shapes
/// `[num_rows, dim]` → same.
#[must_use]
pub fn normalize_rows(rows: Tensor<2>) -> Tensor<2> {
    let squared = rows.clone().powi_scalar(2).sum_dim(1);
    rows / (squared + NORM_EPSILON).sqrt()
}

/// `content + id_rows`, normalized: the item vectors.
#[must_use]
pub fn item_vectors(content: Option<Tensor<2>>, id_rows: Tensor<2>) -> Tensor<2> {
    match content {
        Some(content) => normalize_rows(content + id_rows),
        None => normalize_rows(id_rows),
    }
}

fn project(input: Option<Tensor<2>>, weight: Option<&Tensor<2>>) -> Option<Tensor<2>> {
    Some(input?.matmul(weight?.clone()))
}

/// `input·weight + bias` over the last axis, as one flat matrix product.
fn linear(input: Tensor<3>, weight: Tensor<2>, bias: Tensor<2>) -> Tensor<3> {
    let [num_sequences, num_positions, d_in] = input.dims();
    let d_out = weight.dims()[1];
    let flat = input
        .reshape([num_sequences * num_positions, d_in])
        .matmul(weight)
        + bias;
    flat.reshape([num_sequences, num_positions, d_out])
}
