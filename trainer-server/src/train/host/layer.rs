//! One transformer layer over a chunk of packed positions, forward and backward.
//!
//! ```text
//! h += mask∘(attention(LN(h))·W_o + b_o)     h += mask∘(gelu(LN(h)·W₁ + b₁)·W₂ + b₂)
//! ```
//!
//! The same layer as `shared_model::model::ranker`, which is the reference.

use super::attention::{Attention, AttentionScratch};
use super::dropout::{Site, draw};
use super::elementwise::{add_masked, add_rows, gelu, masked, scale_by};
use super::matmul::{Rows, RowsMut, Start, add_transposed_product, multiply};
use super::norm::Norm;
use super::sequences::Chunk;
use super::weights::{LayerGradients, LayerWeights, Weights};

/// Share of activations zeroed, and the seed of which.
#[derive(Debug, Clone, Copy)]
pub(super) struct DropoutSeed {
    pub(super) share: f64,
    pub(super) seed: u64,
}

/// What the way back needs of one layer; all `[num_tokens, …]`.
#[derive(Default)]
pub(super) struct LayerState {
    norm_1: Norm,
    normed_1: Vec<f32>,
    projected: Vec<f32>,
    attention: Attention,
    mixed: Vec<f32>,
    mask_1: Vec<f32>,
    norm_2: Norm,
    normed_2: Vec<f32>,
    inner: Vec<f32>,
    slopes: Vec<f32>,
    mask_2: Vec<f32>,
}

/// Memory that one layer needs at a time.
#[derive(Default)]
pub(super) struct LayerScratch {
    attention: AttentionScratch,
    /// `[num_tokens, dim]`
    narrow: Vec<f32>,
    /// `[num_tokens, dim]`
    other: Vec<f32>,
    /// `[num_tokens, max(3·dim, ff_dim)]`
    wide: Vec<f32>,
}

/// The place of a layer in the model, and its weights.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) number: usize,
    pub(super) model: &'a Weights<'a>,
}

impl Layer<'_> {
    fn weights(&self) -> &LayerWeights<'_> {
        &self.model.layers[self.number]
    }

    /// `hidden` ← what the layer makes of it.
    ///
    /// # Shapes
    /// `hidden`: `[num_tokens, dim]`.
    pub(super) fn forward(
        &self,
        chunk: Chunk,
        hidden: &mut [f32],
        dropout: DropoutSeed,
        state: &mut LayerState,
        scratch: &mut LayerScratch,
    ) {
        let (dim, ff_dim, weights) = (self.model.dim, self.model.ff_dim, self.weights());
        let num_tokens = hidden.len() / dim;
        self.draw_masks(chunk, dropout, state);
        scratch.narrow.resize(hidden.len(), 0.0);
        let narrow = &mut scratch.narrow;

        state
            .norm_1
            .forward(hidden, weights.norm_1, &mut state.normed_1);
        state.projected.resize(num_tokens * 3 * dim, 0.0);
        multiply(
            Rows::dense(&state.normed_1, dim),
            &weights.projection.forward,
            RowsMut::dense(&mut state.projected, 3 * dim),
            Start::Bias(&weights.attention_bias[..3 * dim]),
        );
        state.mixed.resize(hidden.len(), 0.0);
        state.attention.forward(
            chunk,
            self.model.heads,
            &state.projected,
            &mut state.mixed,
            &mut scratch.attention,
        );
        multiply(
            Rows::dense(&state.mixed, dim),
            &weights.output.forward,
            RowsMut::dense(narrow, dim),
            Start::Bias(&weights.attention_bias[3 * dim..]),
        );
        add_masked(hidden, narrow, &state.mask_1);

        state
            .norm_2
            .forward(hidden, weights.norm_2, &mut state.normed_2);
        state.inner.resize(num_tokens * ff_dim, 0.0);
        state.slopes.resize(num_tokens * ff_dim, 0.0);
        multiply(
            Rows::dense(&state.normed_2, dim),
            &weights.ff_in.forward,
            RowsMut::dense(&mut state.inner, ff_dim),
            Start::Bias(weights.ff_in_bias),
        );
        gelu(&mut state.inner, &mut state.slopes);
        multiply(
            Rows::dense(&state.inner, ff_dim),
            &weights.ff_out.forward,
            RowsMut::dense(narrow, dim),
            Start::Bias(weights.ff_out_bias),
        );
        add_masked(hidden, narrow, &state.mask_2);
    }

    /// `gradient` of the layer's output ← that of its input; those of its weights are added to `sums`.
    ///
    /// # Shapes
    /// `gradient`: `[num_tokens, dim]`.
    pub(super) fn backward(
        &self,
        chunk: Chunk,
        gradient: &mut [f32],
        state: &LayerState,
        sums: &mut LayerGradients,
        scratch: &mut LayerScratch,
    ) {
        scratch.narrow.resize(gradient.len(), 0.0);
        scratch.other.resize(gradient.len(), 0.0);
        self.feed_forward_backward(gradient, state, sums, scratch);
        self.attention_backward(chunk, gradient, state, sums, scratch);
    }

    fn feed_forward_backward(
        &self,
        gradient: &mut [f32],
        state: &LayerState,
        sums: &mut LayerGradients,
        scratch: &mut LayerScratch,
    ) {
        let (dim, ff_dim, weights) = (self.model.dim, self.model.ff_dim, self.weights());
        let LayerScratch { narrow, wide, .. } = scratch;
        masked(narrow, gradient, &state.mask_2);
        let out_gradient = Rows::dense(narrow, dim);
        add_transposed_product(
            Rows::dense(&state.inner, ff_dim),
            out_gradient,
            RowsMut::dense(&mut sums.ff_out, dim),
        );
        add_rows(&mut sums.ff_out_bias, narrow);
        wide.resize(state.inner.len(), 0.0);
        multiply(
            out_gradient,
            &weights.ff_out.backward,
            RowsMut::dense(wide, ff_dim),
            Start::Zero,
        );
        scale_by(wide, &state.slopes);
        let inner_gradient = Rows::dense(wide, ff_dim);
        add_transposed_product(
            Rows::dense(&state.normed_2, dim),
            inner_gradient,
            RowsMut::dense(&mut sums.ff_in, ff_dim),
        );
        add_rows(&mut sums.ff_in_bias, wide);
        multiply(
            inner_gradient,
            &weights.ff_in.backward,
            RowsMut::dense(narrow, dim),
            Start::Zero,
        );
        state
            .norm_2
            .backward(narrow, weights.norm_2, gradient, &mut sums.norm_2);
    }

    fn attention_backward(
        &self,
        chunk: Chunk,
        gradient: &mut [f32],
        state: &LayerState,
        sums: &mut LayerGradients,
        scratch: &mut LayerScratch,
    ) {
        let (dim, weights) = (self.model.dim, self.weights());
        let LayerScratch {
            narrow,
            other,
            wide,
            attention,
        } = scratch;
        masked(narrow, gradient, &state.mask_1);
        let out_gradient = Rows::dense(narrow, dim);
        let (projection_bias, output_bias) = sums.attention_bias.split_at_mut(3 * dim);
        add_transposed_product(
            Rows::dense(&state.mixed, dim),
            out_gradient,
            RowsMut::dense(&mut sums.output, dim),
        );
        add_rows(output_bias, narrow);
        multiply(
            out_gradient,
            &weights.output.backward,
            RowsMut::dense(other, dim),
            Start::Zero,
        );
        wide.resize(state.projected.len(), 0.0);
        state.attention.backward(
            chunk,
            self.model.heads,
            &state.projected,
            other,
            wide,
            attention,
        );
        let projected_gradient = Rows::dense(wide, 3 * dim);
        add_transposed_product(
            Rows::dense(&state.normed_1, dim),
            projected_gradient,
            RowsMut::dense(&mut sums.projection, 3 * dim),
        );
        add_rows(projection_bias, wide);
        multiply(
            projected_gradient,
            &weights.projection.backward,
            RowsMut::dense(narrow, dim),
            Start::Zero,
        );
        state
            .norm_1
            .backward(narrow, weights.norm_1, gradient, &mut sums.norm_1);
    }

    fn draw_masks(&self, chunk: Chunk, dropout: DropoutSeed, state: &mut LayerState) {
        let DropoutSeed { share, seed } = dropout;
        let (dim, num_heads) = (self.model.dim, self.model.heads.num_heads);
        let (len, first) = (chunk.num_tokens() * dim, chunk.first_token() * dim);
        draw(
            &mut state.mask_1,
            len,
            share,
            seed,
            Site::AttentionOutput(self.number),
            first,
        );
        draw(
            &mut state.mask_2,
            len,
            share,
            seed,
            Site::FeedForward(self.number),
            first,
        );
        draw(
            &mut state.attention.mask,
            chunk.num_weights() * num_heads,
            share,
            seed,
            Site::Attention(self.number),
            chunk.first_weight() * num_heads,
        );
    }
}
