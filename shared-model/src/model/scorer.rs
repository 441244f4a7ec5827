//! Scorer: one version made ready to rank on one device.
//!
//! Built from a code state and, after a delta, from the previous scorer, so that only what changed
//! is computed again: a fast version keeps the content vectors and the slow weights.
//! Scores leave the device; choosing the best of them is the engine's work on the host.

mod taste;

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::Device;

use super::neighbours::Neighbours;
use super::parameters::ParameterSet;
use super::prior::ItemCounts;
use super::sequence::Sequence;
use crate::codec::state::{COUNTS_TENSOR, CodeState, CodeTensor};
use crate::spec::{ModelSpec, TASTE_WEIGHT, TensorGroup};
use taste::Taste;

pub use taste::OnDevice;

/// Why scores could not be read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// The device failed; the text is the backend's.
    #[error("the device failed while scoring: {0}")]
    Device(String),
    /// A score is NaN or infinite, so the weights or the device are broken.
    #[error("score {score_idx} is not finite")]
    NotFinite {
        /// Its position in the output.
        score_idx: usize,
    },
}

/// Passes values on.
///
/// # Errors
/// One is NaN or infinite.
pub(crate) fn all_finite(values: Vec<f32>) -> Result<Vec<f32>, ScoreError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(score_idx) => Err(ScoreError::NotFinite { score_idx }),
        None => Ok(values),
    }
}

/// How sequences become batches of one length on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// As short as the longest sequence allows: for burn on CPUs.
    Longest,
    /// Always `history_len` events, and rows of items in buckets, so that kernels and buffers are those of shapes seen
    /// before: for GPUs.
    #[cfg(feature = "wgpu")]
    Full,
}

impl Padding {
    /// Whether shapes are the same whatever is asked.
    #[must_use]
    pub fn is_fixed(self) -> bool {
        match self {
            Self::Longest => false,
            #[cfg(feature = "wgpu")]
            Self::Full => true,
        }
    }
}

/// A position whose next item is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Which of the sequences.
    pub sequence_idx: usize,
    /// How many of its events are known: 0 is the start token alone.
    pub num_known: usize,
    /// When, for the item prior: milliseconds since 1970-01-01 UTC.
    pub now_millis: i64,
}

/// Fast weights as f32.
#[derive(Debug, Clone, Copy)]
pub struct FastWeights<'a> {
    /// `[num_items, embedding_dim]`.
    pub id_rows: &'a [f32],
    /// `[num_items]`.
    pub bias: &'a [f32],
    /// `[num_half_lives]`.
    pub prior: &'a [f32],
    /// Of the gain by neighbours; 0 where the spec has none.
    pub neighbour_weight: f32,
    /// Of taste; 1 where the spec has none.
    pub taste_weight: f32,
}

/// One version on one device, or on the host.
#[derive(Debug, Clone)]
pub struct Scorer {
    spec: ModelSpec,
    num_items: usize,
    taste: Taste,
    bias: Vec<f32>,
    counts: ItemCounts,
    prior_weights: Vec<f32>,
    neighbours: Option<Arc<Neighbours>>,
    neighbour_weight: f32,
    taste_weight: f32,
}

impl Scorer {
    /// Builds everything from codes, to be computed on a device.
    #[must_use]
    pub fn new(state: &CodeState, device: &Device, padding: Padding) -> Self {
        let parameters = ParameterSet::shared_from_state(state);
        let taste = Taste::on_device(&parameters, state, device, padding);
        Self::assemble(state, taste, Neighbours::from_state(state).map(Arc::new))
    }

    /// Builds everything from codes, to be computed on the host (`model::host`): for the page's CPU.
    #[must_use]
    pub fn on_host(state: &CodeState) -> Self {
        let taste = Taste::on_host(&ParameterSet::shared_from_state(state), state);
        Self::assemble(state, taste, Neighbours::from_state(state).map(Arc::new))
    }

    /// The scorer of `target`, reusing what `self`, built from `base`, has in common with it.
    #[must_use]
    pub fn updated(&self, base: &CodeState, target: &CodeState) -> Self {
        let same_slow = groups_equal(base, target, TensorGroup::Slow, base.items.len());
        let same_content = groups_equal(base, target, TensorGroup::Content, base.items.len());
        if !same_slow
            || !same_content
            || base.spec != target.spec
            || target.items.len() < base.items.len()
        {
            let parameters = ParameterSet::shared_from_state(target);
            let taste = self.taste.renewed(&parameters, target);
            return Self::assemble(target, taste, Neighbours::from_state(target).map(Arc::new));
        }
        let num_known = base.items.len();
        let has_same_neighbours = target.items.len() == num_known
            && groups_equal(base, target, TensorGroup::Neighbours, num_known);
        let neighbours = if has_same_neighbours {
            self.neighbours.clone()
        } else {
            Neighbours::from_state(target).map(Arc::new)
        };
        Self::assemble(target, self.taste.updated(target), neighbours)
    }

    /// Scores of all items at every query.
    ///
    /// # Shapes
    /// → `[queries.len(), num_items]`, row-major.
    ///
    /// # Errors
    /// The device failed or produced a non-finite score.
    pub async fn score(
        &self,
        sequences: &[Sequence],
        queries: &[Query],
    ) -> Result<Vec<f32>, ScoreError> {
        if queries.is_empty() || self.num_items == 0 {
            return Ok(Vec::new());
        }
        let mut scores = self.taste.products(sequences, queries).await?;
        self.add_bias_and_prior(&mut scores, queries);
        self.add_neighbours(&mut scores, sequences, queries);
        all_finite(scores)
    }

    /// Scores of items that the version does not hold, as if they were put now: by their texts, without counts.
    ///
    /// # Shapes
    /// `texts`: `[num_items, text_dim]`, row-major → `[num_items]`.
    ///
    /// # Errors
    /// The device failed or produced a non-finite score.
    pub async fn score_new(
        &self,
        sequence: Sequence,
        query: Query,
        texts: &[f32],
    ) -> Result<Vec<f32>, ScoreError> {
        let num_items = texts.len() / (self.spec.text_dim as usize).max(1);
        if num_items == 0 {
            return Ok(Vec::new());
        }
        let (sequences, queries) = ([sequence], [query]);
        let products = self
            .taste
            .products_with_new(&sequences, &queries, texts, num_items);
        let mut scores = products.await?;
        for score in &mut scores {
            *score *= self.taste_weight; // without counts the prior is 0
        }
        all_finite(scores)
    }

    /// User vectors at the queries.
    ///
    /// # Shapes
    /// → `[queries.len(), embedding_dim]`, row-major.
    ///
    /// # Errors
    /// The device failed.
    pub async fn user_rows(
        &self,
        sequences: &[Sequence],
        queries: &[Query],
    ) -> Result<Vec<f32>, ScoreError> {
        self.taste.user_rows(sequences, queries).await
    }

    /// Content vector `P·t + F·x` of one item, `[embedding_dim]`; absent without a text and features.
    ///
    /// # Errors
    /// The device failed.
    pub async fn content_of(
        &self,
        text: Option<&[f32]>,
        features: Option<&[f32]>,
    ) -> Result<Option<Vec<f32>>, ScoreError> {
        self.taste.content_of(text, features).await
    }

    /// Products of one vector with all item vectors: taste, before its weight.
    ///
    /// # Shapes
    /// `vector`: `[embedding_dim]` → `[num_items]`.
    ///
    /// # Errors
    /// The device failed.
    pub async fn products_of(&self, vector: &[f32]) -> Result<Vec<f32>, ScoreError> {
        self.taste.products_of(vector).await
    }

    /// Mean products of some items' vectors, one at least, with those of all items: `[num_items]`.
    ///
    /// # Errors
    /// The device failed.
    pub async fn mean_products(&self, item_idxs: &[u32]) -> Result<Vec<f32>, ScoreError> {
        self.taste.mean_products(item_idxs).await
    }

    /// Vectors of some items, `[item_idxs.len(), embedding_dim]`, row-major.
    ///
    /// # Errors
    /// The device failed.
    pub async fn item_rows(&self, item_idxs: &[u32]) -> Result<Vec<f32>, ScoreError> {
        self.taste.item_rows(item_idxs).await
    }

    /// What is on the device; `None` where the host computes.
    #[must_use]
    pub fn device(&self) -> Option<&OnDevice> {
        match &self.taste {
            Taste::Device(taste) => Some(taste),
            Taste::Host(_) => None,
        }
    }

    /// Weight of taste in its scores.
    #[must_use]
    pub fn taste_weight(&self) -> f32 {
        self.taste_weight
    }

    /// Whether shapes are the same whatever is asked, as GPUs want it.
    #[must_use]
    pub fn has_fixed_shapes(&self) -> bool {
        self.taste.has_fixed_shapes()
    }

    /// Number of items it scores.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.num_items
    }

    /// Item prior and bias of all items at `now`: what does not depend on the user.
    #[must_use]
    pub fn base_scores(&self, now_millis: i64) -> Vec<f32> {
        let mut scores = self.counts.scores(&self.prior_weights, now_millis);
        for (score, bias) in scores.iter_mut().zip(&self.bias) {
            *score += bias;
        }
        scores
    }

    fn assemble(state: &CodeState, taste: Taste, neighbours: Option<Arc<Neighbours>>) -> Self {
        Self {
            spec: state.spec.clone(),
            num_items: state.items.len(),
            taste,
            bias: named(state, "item.bias").dequantize(),
            counts: ItemCounts::new(
                &named(state, COUNTS_TENSOR).codes,
                &state.spec.half_lives_secs,
                state.landmark_millis,
            ),
            prior_weights: named(state, "prior.weights").dequantize(),
            neighbour_weight: state
                .tensor("neighbour.weight")
                .map_or(0.0, |tensor| tensor.dequantize_row(0)[0]),
            taste_weight: state
                .tensor(TASTE_WEIGHT)
                .map_or(1.0, |tensor| tensor.dequantize_row(0)[0]),
            neighbours,
        }
    }

    /// The same version with other fast weights, as f32 before any code: what the trainer holds.
    #[must_use]
    pub fn with_fast_weights(&self, weights: FastWeights<'_>) -> Self {
        Self {
            taste: self.taste.with_id_rows(weights.id_rows),
            bias: weights.bias.to_vec(),
            prior_weights: weights.prior.to_vec(),
            neighbour_weight: weights.neighbour_weight,
            taste_weight: weights.taste_weight,
            ..self.clone()
        }
    }

    /// The same version with the item counts of another moment.
    ///
    /// # Shapes
    /// `codes`: `[num_items, num_half_lives]`, row-major.
    #[must_use]
    pub fn with_counts(&self, codes: &[i16]) -> Self {
        Self {
            counts: self.counts.with_codes(codes),
            ..self.clone()
        }
    }

    /// The same version with the slow weights of `parameters` as f32.
    #[must_use]
    pub fn with_slow_weights(&self, parameters: &ParameterSet) -> Self {
        Self {
            taste: self.taste.with_slow_weights(parameters),
            ..self.clone()
        }
    }

    /// Prior features of all items at `now`: `[num_items, num_half_lives]`.
    #[must_use]
    pub fn prior_features(&self, now_millis: i64) -> Vec<f32> {
        self.counts.features(now_millis)
    }

    /// What each query's history gains by neighbours, before the weight: item and gain, ascending by item.
    #[must_use]
    pub fn neighbour_gains(
        &self,
        sequences: &[Sequence],
        queries: &[Query],
    ) -> Vec<Vec<(u32, f32)>> {
        let gains = |query: &Query| match &self.neighbours {
            Some(neighbours) => {
                let known = &sequences[query.sequence_idx].tokens[..query.num_known];
                neighbours.gains(known.iter().map(|token| token.item_idx))
            }
            None => Vec::new(),
        };
        queries.iter().map(gains).collect()
    }

    fn add_neighbours(&self, scores: &mut [f32], sequences: &[Sequence], queries: &[Query]) {
        let gains = self.neighbour_gains(sequences, queries);
        for (row, gains) in scores.chunks_exact_mut(self.num_items).zip(gains) {
            for (item_idx, gain) in gains {
                row[item_idx as usize] += self.neighbour_weight * gain;
            }
        }
    }

    fn add_bias_and_prior(&self, scores: &mut [f32], queries: &[Query]) {
        let mut by_now: HashMap<i64, Vec<f32>> = HashMap::new();
        for (row, query) in scores.chunks_exact_mut(self.num_items).zip(queries) {
            let base = by_now
                .entry(query.now_millis)
                .or_insert_with(|| self.base_scores(query.now_millis));
            for (score, base) in row.iter_mut().zip(base.iter()) {
                *score = self.taste_weight * *score + base;
            }
        }
    }
}

/// Whether all tensors of a group agree in the rows that `base` has.
fn groups_equal(
    base: &CodeState,
    target: &CodeState,
    group: TensorGroup,
    num_items: usize,
) -> bool {
    let shapes = base.spec.tensor_shapes(num_items);
    let pairs = base.tensors.iter().zip(&target.tensors);
    shapes
        .iter()
        .zip(pairs)
        .filter(|(shape, _)| shape.group == group)
        .all(|(_, (base, target))| {
            let num_codes = base.codes.len();
            target.codes.len() >= num_codes
                && base.codes[..] == target.codes[..num_codes]
                && target.exponents.len() >= base.exponents.len()
                && base.exponents[..] == target.exponents[..base.exponents.len()]
        })
}

fn named<'a>(state: &'a CodeState, name: &str) -> &'a CodeTensor {
    state
        .tensor(name)
        .expect("a checked state holds every tensor of its spec")
}
