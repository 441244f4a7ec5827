//! The Ranker on the host: the model of `ranker` computed with `kernels`, for the page's CPU.
//!
//! What burn computes for every position of a padded batch is computed here for one sequence and, in the last layer,
//! for the asked positions alone. Scores are f32 as burn's are: in the page 10,000 products of 64 numbers take less than
//! the rest of a ranking, and integers would cost exactness.
//! The specification stays `ranker`; the tests below hold both together. Input: parameters, and item vectors of
//! [`items`].

pub mod items;
mod layer;

#[cfg(all(test, feature = "flex"))]
mod tests;

use super::parameters::ParameterSet;
use super::ranker::LAYER_NORM_EPSILON;
use super::sequence::{Sequence, SequenceBatch};
use crate::kernels::{Norm, Panels};
use items::ItemVectors;
use layer::Layer;

/// The slow weights.
#[derive(Debug, Clone)]
pub struct HostRanker {
    dim: usize,
    start: Vec<f32>,
    /// `[num_kinds, dim]`
    kinds: Vec<f32>,
    /// `[num_buckets, dim]`
    gaps: Vec<f32>,
    /// `[history_len + 1, dim]`
    positions: Vec<f32>,
    layers: Vec<Layer>,
    final_norm: Norm,
    text_projection: Option<Panels>,
    feature_projection: Option<Panels>,
}

impl HostRanker {
    /// Takes the slow weights of `parameters`.
    #[must_use]
    pub fn new(parameters: &ParameterSet) -> Self {
        let spec = &parameters.spec;
        let copied = |name: &str| parameters.tensor(name).to_vec();
        let projection = |name: &str, num_rows: u32| {
            (num_rows > 0).then(|| Panels::new(num_rows as usize, &[parameters.tensor(name)]))
        };
        Self {
            dim: spec.embedding_dim as usize,
            start: copied("start"),
            kinds: copied("kind.embedding"),
            gaps: copied("gap.embedding"),
            positions: copied("position.embedding"),
            layers: (0..spec.num_layers)
                .map(|layer| Layer::new(parameters, layer))
                .collect(),
            final_norm: norm(parameters.tensor("final_norm")),
            text_projection: projection("text.projection", spec.text_dim),
            feature_projection: projection("feature.projection", spec.feature_dim),
        }
    }

    /// Width of item and user vectors.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Content part of the item vectors: `P·t + F·x`.
    ///
    /// # Shapes
    /// `text`: `[num_rows, text_dim]`, `features`: `[num_rows, feature_dim]`; absent where the width is 0.
    /// → `[num_rows, embedding_dim]`, absent where there is neither.
    #[must_use]
    pub fn content_vectors(
        &self,
        text: Option<&[f32]>,
        features: Option<&[f32]>,
    ) -> Option<Vec<f32>> {
        let project = |rows: Option<&[f32]>, projection: Option<&Panels>| {
            Some(projection?.product(rows?, None))
        };
        let text = project(text, self.text_projection.as_ref());
        let features = project(features, self.feature_projection.as_ref());
        match (text, features) {
            (Some(mut text), Some(features)) => {
                add(&mut text, &features);
                Some(text)
            }
            (text, features) => text.or(features),
        }
    }

    /// User vectors of one sequence after some numbers of its events.
    ///
    /// # Shapes
    /// `nums_known`: each at most the events of the sequence → `[nums_known.len(), embedding_dim]`, row-major.
    #[must_use]
    pub fn user_vectors(
        &self,
        items: &ItemVectors,
        sequence: &Sequence,
        nums_known: &[usize],
    ) -> Vec<f32> {
        let Some(num_events) = nums_known.iter().max() else {
            return Vec::new();
        };
        let mut hidden = self.embed(items, sequence, *num_events);
        let all: Vec<usize> = (0..=*num_events).collect();
        for (layer_idx, layer) in self.layers.iter().enumerate() {
            let is_last = layer_idx + 1 == self.layers.len();
            let wanted = if is_last { nums_known } else { &all };
            hidden = layer.forward(hidden, wanted);
        }
        self.final_norm.apply(&mut hidden);
        hidden
    }

    /// # Shapes
    /// → `[num_events + 1, dim]`
    fn embed(&self, items: &ItemVectors, sequence: &Sequence, num_events: usize) -> Vec<f32> {
        let batch = SequenceBatch::new(std::slice::from_ref(sequence), 0);
        let dim = self.dim;
        let scale = (dim as f32).sqrt();
        let mut hidden = self.positions[..(num_events + 1) * dim].to_vec();
        add(&mut hidden[..dim], &self.start);
        // The indices come from tokens of this very version.
        let row = |idx: i32| idx as usize * dim..(idx as usize + 1) * dim;
        for (event_idx, event) in hidden[dim..].chunks_exact_mut(dim).enumerate() {
            for (x, value) in event
                .iter_mut()
                .zip(items.row(batch.item_rows[event_idx] as usize))
            {
                *x += scale * value;
            }
            add(event, &self.kinds[row(batch.kinds[event_idx])]);
            add(event, &self.gaps[row(batch.gaps[event_idx])]);
        }
        hidden
    }
}

/// `[2, dim]`, scale and shift, as a norm.
fn norm(weights: &[f32]) -> Norm {
    let (gamma, beta) = weights.split_at(weights.len() / 2);
    Norm {
        gamma: gamma.to_vec(),
        beta: beta.to_vec(),
        epsilon: LAYER_NORM_EPSILON as f32, // 1e-5 has a near f32
    }
}

fn add(sums: &mut [f32], values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}
