//! One attention layer on the host; the formulas stand in `model::ranker`.
//!
//! Where few positions are wanted, the keys and values of all positions would be made for a handful of products. There
//! the weights go to the other side of these, per head, with `x` the normed states (as in the latent attention of
//! DeepSeek-V2, 2024):
//!
//! ```text
//! q·(W_k x_j + b_k)         = (W_kᵀ q)·x_j + q·b_k         q·b_k is the same for all j, so softmax takes it away
//! Σ_j p_j (W_v x_j + b_v)   = W_v (Σ_j p_j x_j) + b_v      since Σ_j p_j = 1
//! ```

use super::{add, norm};
use crate::kernels::elementwise::dot;
use crate::kernels::{Norm, Panels, gelu, softmax};
use crate::model::parameters::ParameterSet;

/// Weights of one layer.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    norm_1: Norm,
    query: Linear,
    /// Keys, then values, side by side.
    key_value: Linear,
    heads: Vec<Head>,
    output: Linear,
    norm_2: Norm,
    ff_in: Linear,
    ff_out: Linear,
    adapter: Option<Adapter>,
}

#[derive(Debug, Clone)]
struct Linear {
    weights: Panels,
    bias: Vec<f32>,
}

/// The weights of one head as few positions want them.
#[derive(Debug, Clone)]
struct Head {
    /// `W_kᵀ`, `[head_dim, dim]`
    key: Panels,
    /// `[dim, head_dim]`
    value: Linear,
}

#[derive(Debug, Clone)]
struct Adapter {
    down: Linear,
    up: Panels,
}

impl Linear {
    fn forward(&self, input: &[f32]) -> Vec<f32> {
        self.weights.product(input, Some(&self.bias))
    }
}

impl Layer {
    pub(super) fn new(parameters: &ParameterSet, layer: u32) -> Self {
        let spec = &parameters.spec;
        let (dim, ff_dim) = (spec.embedding_dim as usize, spec.ff_dim as usize);
        let named = |name: &str| parameters.tensor(&format!("layers.{layer}.{name}"));
        let biases: Vec<&[f32]> = named("attention_bias").chunks_exact(dim).collect();
        let linear = |num_rows: usize, parts: &[&[f32]], bias: &[&[f32]]| Linear {
            weights: Panels::new(num_rows, parts),
            bias: bias.concat(),
        };
        let head = |first: usize| {
            let columns = first..first + dim / spec.num_heads as usize;
            let key = columns.clone().flat_map(|column| {
                let rows = named("key").chunks_exact(dim);
                rows.map(move |row| row[column])
            });
            let value = named("value").chunks_exact(dim);
            let value: Vec<f32> = value
                .flat_map(|row| &row[columns.clone()])
                .copied()
                .collect();
            Head {
                key: Panels::new(columns.len(), &[&key.collect::<Vec<f32>>()]),
                value: linear(dim, &[&value], &[&biases[2][columns]]),
            }
        };
        let adapter = |name: &str| parameters.tensor(&format!("adapters.{layer}.{name}"));
        Self {
            norm_1: norm(named("norm_1")),
            query: linear(dim, &[named("query")], &biases[..1]),
            key_value: linear(dim, &[named("key"), named("value")], &biases[1..3]),
            heads: (0..dim)
                .step_by(dim / spec.num_heads as usize)
                .map(head)
                .collect(),
            output: linear(dim, &[named("output")], &biases[3..]),
            norm_2: norm(named("norm_2")),
            ff_in: linear(dim, &[named("ff_in")], &[named("ff_in_bias")]),
            ff_out: linear(ff_dim, &[named("ff_out")], &[named("ff_out_bias")]),
            adapter: (spec.adapter_dim > 0).then(|| Adapter {
                down: linear(dim, &[adapter("down")], &[adapter("down_bias")]),
                up: Panels::new(spec.adapter_dim as usize, &[adapter("up")]),
            }),
        }
    }

    /// Hidden states at the wanted positions, each of which looks at itself and those before it.
    ///
    /// # Shapes
    /// `hidden`: `[num_positions, dim]` → `[wanted.len(), dim]`.
    pub(super) fn forward(&self, hidden: Vec<f32>, wanted: &[usize]) -> Vec<f32> {
        let dim = self.norm_1.gamma.len();
        let mut normed = hidden.clone();
        self.norm_1.apply(&mut normed);
        let mut hidden = rows_at(&hidden, wanted, dim);

        let mixed = self.attention(&normed, wanted);
        add(&mut hidden, &self.output.forward(&mixed));

        let mut normed = hidden.clone();
        self.norm_2.apply(&mut normed);
        let mut inner = self.ff_in.forward(&normed);
        gelu(&mut inner);
        add(&mut hidden, &self.ff_out.forward(&inner));

        if let Some(adapter) = &self.adapter {
            let mut inner = adapter.down.forward(&hidden);
            gelu(&mut inner);
            add(&mut hidden, &adapter.up.product(&inner, None));
        }
        hidden
    }

    /// # Shapes
    /// `normed`: `[num_positions, dim]` → `[wanted.len(), dim]`.
    fn attention(&self, normed: &[f32], wanted: &[usize]) -> Vec<f32> {
        let dim = self.norm_1.gamma.len();
        let head_dim = dim / self.heads.len();
        let scale = 1.0 / (head_dim as f32).sqrt();
        let queries = self.query.forward(&rows_at(normed, wanted, dim));
        let is_few = wanted.len() * self.heads.len() < normed.len() / dim;
        let key_value = (!is_few).then(|| self.key_value.forward(normed));
        let mut mixed = Vec::with_capacity(queries.len());
        for (query, position) in queries.chunks_exact(dim).zip(wanted) {
            let num_seen = position + 1;
            for (head_idx, head) in self.heads.iter().enumerate() {
                let own = head_idx * head_dim..(head_idx + 1) * head_dim;
                let query = &query[own.clone()];
                if let Some(key_value) = &key_value {
                    let seen = key_value.chunks_exact(2 * dim).take(num_seen);
                    let pairs = seen.map(|row| (&row[own.clone()], &row[dim..][own.clone()]));
                    mixed.extend(attended(query, scale, pairs));
                } else {
                    let seen = normed.chunks_exact(dim).take(num_seen);
                    let query = head.key.product(query, None);
                    let state = attended(&query, scale, seen.map(|state| (state, state)));
                    mixed.extend(head.value.forward(&state));
                }
            }
        }
        mixed
    }
}

/// Values in the mixture that a query makes by their keys, of which there is one at least.
fn attended<'a>(
    query: &[f32],
    scale: f32,
    seen: impl Iterator<Item = (&'a [f32], &'a [f32])> + Clone,
) -> Vec<f32> {
    let scores = seen.clone().map(|(key, _)| scale * dot(query, key));
    let mut weights: Vec<f32> = scores.collect();
    softmax(&mut weights);
    let mut mixed = vec![0.0; query.len()];
    for ((_, value), weight) in seen.zip(weights) {
        for (mixed, value) in mixed.iter_mut().zip(value) {
            *mixed += weight * value;
        }
    }
    mixed
}

/// Some rows, in the order asked for.
fn rows_at(rows: &[f32], wanted: &[usize], dim: usize) -> Vec<f32> {
    let mut chosen = Vec::with_capacity(wanted.len() * dim);
    for row_idx in wanted {
        chosen.extend_from_slice(&rows[row_idx * dim..][..dim]);
    }
    chosen
}
