//! One attention layer on the host; the formulas stand in `model::ranker`.

use super::{add, norm};
use crate::kernels::elementwise::dot;
use crate::kernels::{Norm, Panels, gelu, softmax};
use crate::model::parameters::ParameterSet;

/// Weights of one layer.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    num_heads: usize,
    norm_1: Norm,
    query: Linear,
    /// Keys, then values, side by side.
    key_value: Linear,
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
        let adapter = |name: &str| parameters.tensor(&format!("adapters.{layer}.{name}"));
        Self {
            num_heads: spec.num_heads as usize,
            norm_1: norm(named("norm_1")),
            query: linear(dim, &[named("query")], &biases[..1]),
            key_value: linear(dim, &[named("key"), named("value")], &biases[1..3]),
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
        let key_value = self.key_value.forward(&normed);
        let query = self.query.forward(&rows_at(&normed, wanted, dim));
        let mut hidden = rows_at(&hidden, wanted, dim);

        let mixed = self.attention(&query, &key_value, wanted);
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
    /// `query`: `[wanted.len(), dim]`, `key_value`: `[num_positions, 2 · dim]` → `[wanted.len(), dim]`.
    fn attention(&self, query: &[f32], key_value: &[f32], wanted: &[usize]) -> Vec<f32> {
        let dim = self.norm_1.gamma.len();
        let head_dim = dim / self.num_heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let mut mixed = vec![0.0; query.len()];
        let mut weights = Vec::new();
        for (row_idx, position) in wanted.iter().enumerate() {
            for first in (0..dim).step_by(head_dim) {
                let at = row_idx * dim + first..row_idx * dim + first + head_dim;
                let seen = key_value.chunks_exact(2 * dim).take(position + 1);
                let score =
                    |row: &[f32]| scale * dot(&query[at.clone()], &row[first..][..head_dim]);
                weights.clear();
                weights.extend(seen.clone().map(score));
                softmax(&mut weights);
                let out = &mut mixed[at.clone()];
                for (row, weight) in seen.zip(&weights) {
                    let value = &row[dim + first..][..head_dim];
                    for (out, value) in out.iter_mut().zip(value) {
                        *out += weight * value;
                    }
                }
            }
        }
        mixed
    }
}

/// Some rows, in the order asked for.
fn rows_at(rows: &[f32], wanted: &[usize], dim: usize) -> Vec<f32> {
    let mut chosen = Vec::with_capacity(wanted.len() * dim);
    for row_idx in wanted {
        chosen.extend_from_slice(&rows[row_idx * dim..][..dim]);
    }
    chosen
}
