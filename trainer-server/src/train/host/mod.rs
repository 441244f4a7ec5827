//! The full step on the CPU: loss and gradients of a batch on host arrays, without a tape.
//!
//! One specification, two executors: `losses` writes the model and its losses in burn, which differentiates
//! them on any device and is the reference; this module computes the same forward and backward by hand.
//! It is faster on the CPU because sequences are packed, everything a chunk of them needs stays in a core's
//! cache, the softmax is taken tile by tile, and no table has a dense gradient.
//!
//! The batch is cut into lanes, runs of sequences with about the same work. A thread takes a lane through the
//! whole model, forward and back, and sums gradients for it; the sums are added in the order of the lanes. How
//! many lanes there are depends on the batch alone, so a result is the same to the bit with any number of threads.
//! Not here: what a batch is (`full_batch`) and what is done with gradients (`full_step`).

mod attention;
mod dropout;
mod elementwise;
mod embedding;
mod heads;
mod items;
mod layer;
mod matmul;
mod norm;
mod prior;
mod sequences;
mod softmax_loss;
#[cfg(test)]
mod tests;
mod vector;
mod weights;

use rayon::prelude::*;
use shared_model::model::parameters::ParameterSet;

use self::dropout::{Site, draw};
use self::elementwise::scale_by;
use self::heads::LabelWeights;
use self::items::Items;
use self::layer::{DropoutSeed, Layer, LayerScratch, LayerState};
use self::norm::Norm;
use self::sequences::{Chunk, PackedSequence, chunks, lanes, pack};
use self::softmax_loss::{CandidateSums, Candidates, ItemView, TileScratch, Users};
use self::weights::{Gradients, Reached, Weights, slow_in_spec_order};
use super::full_batch::Batch;
use super::full_step::{FullStepConfig, HostGradients, gather};

/// Positions that one thread takes through the model at a time; their activations fit its cache.
const CHUNK_TOKENS: usize = 256;
/// Positions that are worth a lane: sums of its own over all items of the batch.
const LANE_TOKENS: usize = 512;
/// Most lanes, and so threads that have something to do.
const NUM_LANES_MAX: usize = 16;

/// Loss of the batch and its gradients, before clipping. The batch must hold a target.
pub(super) fn differentiate(
    parameters: &ParameterSet,
    batch: &Batch,
    config: &FullStepConfig,
) -> (f32, HostGradients) {
    let dropout = |share: f64| DropoutSeed {
        share,
        seed: batch.dropout_seed,
    };
    let weights = Weights::new(parameters);
    let items = Items::new(parameters, &batch.rows, dropout(config.id_dropout));
    let bias = gather(parameters.tensor("item.bias"), 1, &batch.rows);
    let view = ItemView {
        vectors: &items.vectors,
        bias: &bias,
    };
    let reached = reached(batch, config);
    let step = Step {
        batch,
        weights: &weights,
        items: view,
        candidates: Candidates::new(batch, view, weights.prior, &config.objective),
        label_weights: LabelWeights::new(batch, config, reached),
        dropout: dropout(config.dropout),
    };
    let sequences = pack(batch);
    let lanes: Vec<Gradients> = lanes(&sequences, num_lanes(&sequences))
        .into_par_iter()
        .map(|sequences| step.lane(sequences))
        .collect();
    let vectors: Vec<&[f32]> = lanes.iter().map(|lane| lane.vectors.as_slice()).collect();
    let item_gradients = items.backward(&vectors);
    let mut total = Gradients::zeros(&weights, 0);
    total.bias = vec![0.0; bias.len()];
    for lane in &lanes {
        total.add_all_but_vectors(lane);
    }
    let (loss, bias) = (total.loss as f32, std::mem::take(&mut total.bias)); // a loss beyond f32 is refused
    let prior = std::mem::take(&mut total.prior);
    let projections = item_gradients.projections;
    let gradients = HostGradients {
        slow: slow_in_spec_order(&parameters.spec, total, projections, reached),
        id_rows: item_gradients.id_rows,
        bias,
        prior,
    };
    (loss, gradients)
}

/// A power of two, which any usual number of threads shares evenly.
fn num_lanes(sequences: &[PackedSequence]) -> usize {
    let wanted = Chunk(sequences).num_tokens() / LANE_TOKENS;
    let at_most = wanted.clamp(1, NUM_LANES_MAX);
    1 << at_most.ilog2()
}

fn reached(batch: &Batch, config: &FullStepConfig) -> Reached {
    Reached {
        events: batch.sequences.num_events > 0,
        click: config.click_weight > 0.0
            && batch.targets.iter().any(|target| target.click.is_some()),
        rating: config.rating_weight > 0.0
            && batch.targets.iter().any(|target| target.rating.is_some()),
    }
}

/// What all threads read.
struct Step<'a> {
    batch: &'a Batch,
    weights: &'a Weights<'a>,
    items: ItemView<'a>,
    candidates: Candidates<'a>,
    label_weights: LabelWeights,
    dropout: DropoutSeed,
}

/// Memory that one thread uses for chunk after chunk.
#[derive(Default)]
struct Scratch {
    /// `[num_tokens, dim]`
    hidden: Vec<f32>,
    /// `[num_tokens, dim]`
    gradient: Vec<f32>,
    embedding_mask: Vec<f32>,
    layers: Vec<LayerState>,
    layer: LayerScratch,
    final_norm: Norm,
    /// `[num_tokens, dim]`
    normed: Vec<f32>,
    /// `[num_targets, dim]`
    users: Vec<f32>,
    /// `[num_targets, dim]`
    user_gradients: Vec<f32>,
    tile: TileScratch,
}

impl Step<'_> {
    /// Loss and gradients of a run of sequences.
    fn lane(&self, sequences: &[PackedSequence]) -> Gradients {
        let mut sums = Gradients::zeros(self.weights, self.batch.rows.len());
        let mut candidate_sums = self.candidates.sums();
        let mut scratch = Scratch::default();
        scratch
            .layers
            .resize_with(self.weights.layers.len(), LayerState::default);
        for chunk in chunks(sequences, CHUNK_TOKENS) {
            self.forward(chunk, &mut scratch);
            self.learn(chunk, &mut sums, &mut candidate_sums, &mut scratch);
            self.backward(chunk, &mut sums, &mut scratch);
        }
        candidate_sums.add_to(&self.batch.candidates, self.weights.dim, &mut sums);
        sums
    }

    fn forward(&self, chunk: Chunk, scratch: &mut Scratch) {
        let dim = self.weights.dim;
        let len = chunk.num_tokens() * dim;
        let DropoutSeed { share, seed } = self.dropout;
        let first = chunk.first_token() * dim;
        let mask = &mut scratch.embedding_mask;
        draw(mask, len, share, seed, Site::Embedding, first);
        let hidden = &mut scratch.hidden;
        hidden.resize(len, 0.0);
        embedding::forward(chunk, self.batch, self.weights, self.items.vectors, hidden);
        if !mask.is_empty() {
            scale_by(hidden, mask);
        }
        for (number, state) in scratch.layers.iter_mut().enumerate() {
            let layer = self.layer(number);
            layer.forward(chunk, hidden, self.dropout, state, &mut scratch.layer);
        }
        scratch
            .final_norm
            .forward(hidden, self.weights.final_norm, &mut scratch.normed);
    }

    /// Losses at the targets; `scratch.gradient` ← that of the hidden values behind the last layer.
    fn learn(
        &self,
        chunk: Chunk,
        sums: &mut Gradients,
        candidate_sums: &mut CandidateSums,
        scratch: &mut Scratch,
    ) {
        let dim = self.weights.dim;
        let targets = chunk.targets();
        let tokens = self.tokens_of_targets(chunk);
        scratch.users.clear();
        for token in &tokens {
            let user = &scratch.normed[token * dim..(token + 1) * dim];
            scratch.users.extend_from_slice(user);
        }
        scratch.user_gradients.clear();
        scratch.user_gradients.resize(scratch.users.len(), 0.0);
        let mut users = Users {
            values: &scratch.users,
            gradient: &mut scratch.user_gradients,
        };
        self.candidates.learn(
            targets.start,
            users.reborrow(),
            self.items,
            sums,
            candidate_sums,
            &mut scratch.tile,
        );
        heads::learn(
            targets.start,
            users,
            self.batch,
            self.items,
            self.weights,
            self.label_weights,
            sums,
        );
        let normed_gradient = &mut scratch.normed;
        normed_gradient.fill(0.0);
        let user_gradients = scratch.user_gradients.chunks_exact(dim);
        for (token, gradient) in tokens.iter().zip(user_gradients) {
            let sum = &mut normed_gradient[token * dim..(token + 1) * dim];
            elementwise::add(sum, gradient);
        }
        scratch.gradient.clear();
        scratch.gradient.resize(normed_gradient.len(), 0.0);
        scratch.final_norm.backward(
            normed_gradient,
            self.weights.final_norm,
            &mut scratch.gradient,
            &mut sums.final_norm,
        );
    }

    fn backward(&self, chunk: Chunk, sums: &mut Gradients, scratch: &mut Scratch) {
        let gradient = &mut scratch.gradient;
        for (number, state) in scratch.layers.iter().enumerate().rev() {
            let layer_sums = &mut sums.layers[number];
            self.layer(number)
                .backward(chunk, gradient, state, layer_sums, &mut scratch.layer);
        }
        if !scratch.embedding_mask.is_empty() {
            scale_by(gradient, &scratch.embedding_mask);
        }
        embedding::backward(chunk, self.batch, self.weights, gradient, sums);
    }

    fn layer(&self, number: usize) -> Layer<'_> {
        Layer {
            number,
            model: self.weights,
        }
    }

    /// For every target of the chunk, the token whose output predicts it.
    fn tokens_of_targets(&self, chunk: Chunk) -> Vec<usize> {
        let num_positions = self.batch.sequences.num_positions();
        let first = chunk.first_token();
        let mut tokens = Vec::with_capacity(chunk.targets().len());
        for sequence in chunk.0 {
            for target in &self.batch.targets[sequence.targets.clone()] {
                let position = target.position as usize % num_positions; // never negative
                tokens.push(sequence.first_token - first + position);
            }
        }
        tokens
    }
}
