//! The slow weights as the host executor reads them, and sums of gradients in the same shapes.
//!
//! Matrices are repacked once per step, for the way forward and, transposed, for the way back.
//! Comes from a parameter set; the names are those of `ModelSpec::tensor_shapes`.

use shared_model::model::parameters::ParameterSet;
use shared_model::spec::ModelSpec;

use super::attention::Heads;
use super::elementwise::add;
use super::matmul::{Panels, Rows};

/// One matrix in both directions.
pub(super) struct Matrix {
    pub(super) forward: Panels,
    pub(super) backward: Panels,
}

impl Matrix {
    fn new(values: &[f32], num_cols: usize) -> Self {
        let rows = Rows::dense(values, num_cols);
        Self {
            forward: Panels::of(rows),
            backward: Panels::of_transposed(rows),
        }
    }
}

/// Of one transformer layer.
pub(super) struct LayerWeights<'a> {
    pub(super) norm_1: &'a [f32],
    /// Query, key and value side by side, `[dim, 3·dim]`.
    pub(super) projection: Matrix,
    pub(super) output: Matrix,
    pub(super) attention_bias: &'a [f32],
    pub(super) norm_2: &'a [f32],
    pub(super) ff_in: Matrix,
    pub(super) ff_in_bias: &'a [f32],
    pub(super) ff_out: Matrix,
    pub(super) ff_out_bias: &'a [f32],
}

/// All of them.
pub(super) struct Weights<'a> {
    pub(super) dim: usize,
    pub(super) ff_dim: usize,
    pub(super) heads: Heads,
    pub(super) start: &'a [f32],
    pub(super) kind: &'a [f32],
    pub(super) gap: &'a [f32],
    pub(super) position: &'a [f32],
    pub(super) layers: Vec<LayerWeights<'a>>,
    pub(super) final_norm: &'a [f32],
    pub(super) click: &'a [f32],
    pub(super) rating: &'a [f32],
    pub(super) prior: &'a [f32],
}

impl<'a> Weights<'a> {
    pub(super) fn new(parameters: &'a ParameterSet) -> Self {
        let spec = &parameters.spec;
        let dim = spec.embedding_dim as usize; // u32 fits
        let num_heads = spec.num_heads as usize; // likewise
        Self {
            dim,
            ff_dim: spec.ff_dim as usize, // likewise
            heads: Heads {
                num_heads,
                head_dim: dim / num_heads,
            },
            start: parameters.tensor("start"),
            kind: parameters.tensor("kind.embedding"),
            gap: parameters.tensor("gap.embedding"),
            position: parameters.tensor("position.embedding"),
            layers: (0..spec.num_layers)
                .map(|layer| LayerWeights::new(parameters, layer))
                .collect(),
            final_norm: parameters.tensor("final_norm"),
            click: parameters.tensor("head.click"),
            rating: parameters.tensor("head.rating"),
            prior: parameters.tensor("prior.weights"),
        }
    }
}

impl<'a> LayerWeights<'a> {
    fn new(parameters: &'a ParameterSet, layer: u32) -> Self {
        let dim = parameters.spec.embedding_dim as usize; // u32 fits
        let tensor = |name: &str| parameters.tensor(&format!("layers.{layer}.{name}"));
        let parts = [tensor("query"), tensor("key"), tensor("value")];
        let mut projection = Vec::with_capacity(3 * dim * dim);
        for row in 0..dim {
            for part in parts {
                projection.extend_from_slice(&part[row * dim..(row + 1) * dim]);
            }
        }
        Self {
            norm_1: tensor("norm_1"),
            projection: Matrix::new(&projection, 3 * dim),
            output: Matrix::new(tensor("output"), dim),
            attention_bias: tensor("attention_bias"),
            norm_2: tensor("norm_2"),
            ff_in: Matrix::new(tensor("ff_in"), tensor("ff_in_bias").len()),
            ff_in_bias: tensor("ff_in_bias"),
            ff_out: Matrix::new(tensor("ff_out"), dim),
            ff_out_bias: tensor("ff_out_bias"),
        }
    }
}

/// Sums over what one lane has seen.
pub(super) struct Gradients {
    pub(super) loss: f64,
    pub(super) start: Vec<f32>,
    pub(super) kind: Vec<f32>,
    pub(super) gap: Vec<f32>,
    pub(super) position: Vec<f32>,
    pub(super) layers: Vec<LayerGradients>,
    pub(super) final_norm: Vec<f32>,
    pub(super) click: Vec<f32>,
    pub(super) rating: Vec<f32>,
    pub(super) prior: Vec<f32>,
    /// Of the item vectors of the batch, `[num_rows, dim]`.
    pub(super) vectors: Vec<f32>,
    /// Of the biases of the batch, `[num_rows]`.
    pub(super) bias: Vec<f32>,
}

/// Of one layer, in the shapes of its weights.
pub(super) struct LayerGradients {
    pub(super) norm_1: Vec<f32>,
    pub(super) projection: Vec<f32>,
    pub(super) output: Vec<f32>,
    pub(super) attention_bias: Vec<f32>,
    pub(super) norm_2: Vec<f32>,
    pub(super) ff_in: Vec<f32>,
    pub(super) ff_in_bias: Vec<f32>,
    pub(super) ff_out: Vec<f32>,
    pub(super) ff_out_bias: Vec<f32>,
}

impl Gradients {
    /// Zeros for `num_rows` items.
    pub(super) fn zeros(weights: &Weights, num_rows: usize) -> Self {
        let like = |values: &[f32]| vec![0.0; values.len()];
        Self {
            loss: 0.0,
            start: like(weights.start),
            kind: like(weights.kind),
            gap: like(weights.gap),
            position: like(weights.position),
            layers: (0..weights.layers.len())
                .map(|_| LayerGradients::zeros(weights))
                .collect(),
            final_norm: like(weights.final_norm),
            click: like(weights.click),
            rating: like(weights.rating),
            prior: like(weights.prior),
            vectors: vec![0.0; num_rows * weights.dim],
            bias: vec![0.0; num_rows],
        }
    }

    /// Adds all but `vectors`, which are many.
    pub(super) fn add_all_but_vectors(&mut self, other: &Self) {
        self.loss += other.loss;
        let pairs = [
            (&mut self.start, &other.start),
            (&mut self.kind, &other.kind),
            (&mut self.gap, &other.gap),
            (&mut self.position, &other.position),
            (&mut self.final_norm, &other.final_norm),
            (&mut self.click, &other.click),
            (&mut self.rating, &other.rating),
            (&mut self.prior, &other.prior),
            (&mut self.bias, &other.bias),
        ];
        for (sum, values) in pairs {
            add(sum, values);
        }
        for (sum, values) in self.layers.iter_mut().zip(&other.layers) {
            for (sum, values) in sum.tensors_mut().into_iter().zip(values.tensors()) {
                add(sum, values);
            }
        }
    }
}

impl LayerGradients {
    fn zeros(weights: &Weights) -> Self {
        let (dim, ff_dim) = (weights.dim, weights.ff_dim);
        Self {
            norm_1: vec![0.0; 2 * dim],
            projection: vec![0.0; 3 * dim * dim],
            output: vec![0.0; dim * dim],
            attention_bias: vec![0.0; 4 * dim],
            norm_2: vec![0.0; 2 * dim],
            ff_in: vec![0.0; dim * ff_dim],
            ff_in_bias: vec![0.0; ff_dim],
            ff_out: vec![0.0; ff_dim * dim],
            ff_out_bias: vec![0.0; dim],
        }
    }

    fn tensors(&self) -> [&Vec<f32>; 9] {
        [
            &self.norm_1,
            &self.projection,
            &self.output,
            &self.attention_bias,
            &self.norm_2,
            &self.ff_in,
            &self.ff_in_bias,
            &self.ff_out,
            &self.ff_out_bias,
        ]
    }

    fn tensors_mut(&mut self) -> [&mut Vec<f32>; 9] {
        [
            &mut self.norm_1,
            &mut self.projection,
            &mut self.output,
            &mut self.attention_bias,
            &mut self.norm_2,
            &mut self.ff_in,
            &mut self.ff_in_bias,
            &mut self.ff_out,
            &mut self.ff_out_bias,
        ]
    }

    /// In the order of the spec: norm_1, query, key, value, output, attention_bias, norm_2, ff_in, …
    fn into_spec_order(self, dim: usize) -> Vec<Vec<f32>> {
        let part = |which: usize| -> Vec<f32> {
            let rows = self.projection.chunks_exact(3 * dim);
            rows.flat_map(|row| row[which * dim..(which + 1) * dim].iter().copied())
                .collect()
        };
        let (query, key, value) = (part(0), part(1), part(2));
        vec![
            self.norm_1,
            query,
            key,
            value,
            self.output,
            self.attention_bias,
            self.norm_2,
            self.ff_in,
            self.ff_in_bias,
            self.ff_out,
            self.ff_out_bias,
        ]
    }
}

/// Which parts of the model the loss of a batch reaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    pub(super) events: bool,
    pub(super) click: bool,
    pub(super) rating: bool,
}

/// Gradients of the slow tensors in spec order; `None` where the loss does not reach one.
pub(super) fn slow_in_spec_order(
    spec: &ModelSpec,
    gradients: Gradients,
    projections: [Option<Vec<f32>>; 2],
    reached: Reached,
) -> Vec<Option<Vec<f32>>> {
    let dim = spec.embedding_dim as usize; // u32 fits
    let mut slow = Vec::from(projections);
    slow.push(Some(gradients.start));
    slow.push(reached.events.then_some(gradients.kind));
    slow.push(reached.events.then_some(gradients.gap));
    slow.push(Some(gradients.position));
    for layer in gradients.layers {
        slow.extend(layer.into_spec_order(dim).into_iter().map(Some));
    }
    slow.push(Some(gradients.final_norm));
    slow.push(reached.click.then_some(gradients.click));
    slow.push(reached.rating.then_some(gradients.rating));
    slow
}
