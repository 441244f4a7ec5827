//! Causal multi-head attention of packed sequences, forward and backward (Vaswani et al. 2017).
//!
//! ```text
//! A = softmax(Q·Kᵀ/√d)     O = (A∘mask)·V
//! ∂V = (A∘mask)ᵀ·∂O     ∂A = mask∘(∂O·Vᵀ)     ∂S = A∘(∂A − Σ ∂A∘A)/√d     ∂Q = ∂S·K     ∂K = ∂Sᵀ·Q
//! ```
//!
//! Query, key and value lie side by side in one matrix `[num_tokens, 3·dim]`; a head is a range of its columns.
//! Not here: the projections before and after (`layer`).

use super::elementwise::{dot, exponentials_here, masked, scale_by};
use super::matmul::{Panels, Rows, RowsMut, Start, add_transposed_product, multiply};
use super::sequences::Chunk;
use super::vector::vectorized;

/// Sizes of the heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) num_heads: usize,
    pub(super) head_dim: usize,
}

impl Heads {
    fn dim(self) -> usize {
        self.num_heads * self.head_dim
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt() // a small integer
    }
}

/// Attention weights of a chunk: per sequence and head a square of `len` rows, zero above the diagonal.
#[derive(Default)]
pub(super) struct Attention {
    /// Before dropout.
    weights: Vec<f32>,
    /// Empty without dropout, else parallel to `weights`.
    pub(super) mask: Vec<f32>,
}

/// Memory that one sequence needs at a time.
#[derive(Default)]
pub(super) struct AttentionScratch {
    right: Panels,
    dropped: Vec<f32>,
    gradient: Vec<f32>,
}

/// One head of one sequence of the chunk.
#[derive(Clone, Copy)]
struct Head {
    head: usize,
    first_token: usize,
    len: usize,
    /// Where its weights begin.
    first_weight: usize,
}

impl Attention {
    /// `mixed ← (A∘mask)·V`.
    ///
    /// # Shapes
    /// `projected`: `[num_tokens, 3·dim]`, `mixed`: `[num_tokens, dim]`.
    pub(super) fn forward(
        &mut self,
        chunk: Chunk,
        heads: Heads,
        projected: &[f32],
        mixed: &mut [f32],
        scratch: &mut AttentionScratch,
    ) {
        let dim = heads.dim();
        self.weights
            .resize(chunk.num_weights() * heads.num_heads, 0.0);
        for head in heads_of(chunk, heads) {
            let query = part(projected, heads, head, 0);
            let square = head.first_weight..head.first_weight + head.len * head.len;
            let weights = &mut self.weights[square.clone()];
            scratch
                .right
                .pack_transposed(part(projected, heads, head, 1));
            multiply(
                query,
                &scratch.right,
                RowsMut::dense(weights, head.len),
                Start::Zero,
            );
            causal_softmax(weights, head.len, heads.scale());
            let weights: &[f32] = match self.mask.get(square) {
                Some(mask) => {
                    scratch.dropped.resize(mask.len(), 0.0);
                    masked(&mut scratch.dropped, weights, mask);
                    &scratch.dropped
                }
                None => weights,
            };
            scratch.right.pack(part(projected, heads, head, 2));
            let out = RowsMut {
                values: &mut mixed[head.first_token * dim + head.head * heads.head_dim..],
                num_cols: heads.head_dim,
                stride: dim,
            };
            multiply(
                Rows::dense(weights, head.len),
                &scratch.right,
                out,
                Start::Zero,
            );
        }
    }

    /// `projected_gradient ← ∂[Q K V]`.
    ///
    /// # Shapes
    /// As in [`Self::forward`], gradients like values.
    pub(super) fn backward(
        &self,
        chunk: Chunk,
        heads: Heads,
        projected: &[f32],
        mixed_gradient: &[f32],
        projected_gradient: &mut [f32],
        scratch: &mut AttentionScratch,
    ) {
        projected_gradient.fill(0.0);
        for head in heads_of(chunk, heads) {
            self.backward_head(
                head,
                heads,
                projected,
                mixed_gradient,
                projected_gradient,
                scratch,
            );
        }
    }

    fn backward_head(
        &self,
        head: Head,
        heads: Heads,
        projected: &[f32],
        mixed_gradient: &[f32],
        projected_gradient: &mut [f32],
        scratch: &mut AttentionScratch,
    ) {
        let dim = heads.dim();
        let square = head.first_weight..head.first_weight + head.len * head.len;
        let weights = &self.weights[square.clone()];
        let AttentionScratch {
            right,
            dropped,
            gradient,
        } = scratch;
        let out_gradient = Rows {
            values: &mixed_gradient[head.first_token * dim + head.head * heads.head_dim..],
            num_rows: head.len,
            num_cols: heads.head_dim,
            stride: dim,
        };
        gradient.resize(weights.len(), 0.0);
        right.pack_transposed(part(projected, heads, head, 2));
        multiply(
            out_gradient,
            right,
            RowsMut::dense(gradient, head.len),
            Start::Zero,
        );
        let used: &[f32] = match self.mask.get(square) {
            Some(mask) => {
                scale_by(gradient, mask);
                dropped.resize(mask.len(), 0.0);
                masked(dropped, weights, mask);
                dropped
            }
            None => weights,
        };
        add_transposed_product(
            Rows::dense(used, head.len),
            out_gradient,
            part_mut(projected_gradient, heads, head, 2),
        );
        softmax_gradient(gradient, weights, head.len, heads.scale());
        let gradient = Rows::dense(gradient, head.len);
        right.pack(part(projected, heads, head, 1));
        multiply(
            gradient,
            right,
            part_mut(projected_gradient, heads, head, 0),
            Start::Zero,
        );
        add_transposed_product(
            gradient,
            part(projected, heads, head, 0),
            part_mut(projected_gradient, heads, head, 1),
        );
    }
}

/// Every head of every sequence, in the order of their weights.
fn heads_of(chunk: Chunk, heads: Heads) -> impl Iterator<Item = Head> {
    let (first_token, first_weight) = (chunk.first_token(), chunk.first_weight());
    chunk.0.iter().flat_map(move |sequence| {
        let before = (sequence.first_weight - first_weight) * heads.num_heads;
        (0..heads.num_heads).map(move |head| Head {
            head,
            first_token: sequence.first_token - first_token,
            len: sequence.len,
            first_weight: before + head * sequence.len * sequence.len,
        })
    })
}

/// Query (0), key (1) or value (2) of one head: `[len, head_dim]`.
fn part(projected: &[f32], heads: Heads, head: Head, which: usize) -> Rows<'_> {
    let (dim, head_dim) = (heads.dim(), heads.head_dim);
    Rows {
        values: &projected[head.first_token * 3 * dim + which * dim + head.head * head_dim..],
        num_rows: head.len,
        num_cols: head_dim,
        stride: 3 * dim,
    }
}

/// Mutable twin of [`part`].
fn part_mut(projected: &mut [f32], heads: Heads, head: Head, which: usize) -> RowsMut<'_> {
    let (dim, head_dim) = (heads.dim(), heads.head_dim);
    RowsMut {
        values: &mut projected[head.first_token * 3 * dim + which * dim + head.head * head_dim..],
        num_cols: head_dim,
        stride: 3 * dim,
    }
}

/// Softmax of `scale·scores` over the positions up to each row's own; 0 behind.
fn causal_softmax(scores: &mut [f32], len: usize, scale: f32) {
    vectorized!({
        for (position, row) in scores.chunks_exact_mut(len).enumerate() {
            let (seen, future) = row.split_at_mut(position + 1);
            for score in seen.iter_mut() {
                *score *= scale;
            }
            let (_, sum) = exponentials_here(seen, f32::MIN);
            let inverse = 1.0 / sum;
            for weight in seen.iter_mut() {
                *weight *= inverse;
            }
            future.fill(0.0);
        }
    });
}

/// `gradient ← A∘(gradient − Σ gradient∘A)·scale` in every row.
fn softmax_gradient(gradient: &mut [f32], weights: &[f32], len: usize, scale: f32) {
    vectorized!({
        let rows = gradient
            .chunks_exact_mut(len)
            .zip(weights.chunks_exact(len));
        for (gradient, weights) in rows {
            let along = dot(gradient, weights);
            for (gradient, weight) in gradient.iter_mut().zip(weights) {
                *gradient = weight * (*gradient - along) * scale;
            }
        }
    });
}
