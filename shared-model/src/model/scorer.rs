//! Scorer: one version made ready to rank on one device.
//!
//! Built from a code state and, after a delta, from the previous scorer, so that only what changed
//! is computed again: a fast version keeps the content vectors and the slow weights.
//! Scores leave the device; choosing the best of them is the engine's work on the host.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use super::neighbours::Neighbours;
use super::parameters::ParameterSet;
use super::prior;
use super::ranker::{Dropout, Ranker, ints, item_vectors, matrix};
use super::sequence::{Sequence, SequenceBatch};
use crate::codec::state::{CodeState, CodeTensor};
use crate::spec::{ModelSpec, TASTE_WEIGHT, TensorGroup};

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

/// Whether sequences are padded to one length, so that a GPU compiles its kernels once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// As short as the longest sequence allows: for CPUs.
    Longest,
    /// Always `history_len` events: for GPUs.
    Full,
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

/// One version on one device.
#[derive(Debug, Clone)]
pub struct Scorer {
    spec: ModelSpec,
    padding: Padding,
    num_items: usize,
    ranker: Ranker,
    content: Option<Tensor<2>>,
    item_vectors: Tensor<2>,
    bias: Vec<f32>,
    count_codes: Vec<i16>,
    prior_weights: Vec<f32>,
    neighbours: Option<Arc<Neighbours>>,
    neighbour_weight: f32,
    taste_weight: f32,
    landmark_millis: i64,
}

impl Scorer {
    /// Builds everything from codes.
    #[must_use]
    pub fn new(state: &CodeState, device: &Device, padding: Padding) -> Self {
        let parameters = ParameterSet::from_state(state);
        let ranker = Ranker::init(&parameters, device);
        let content = content_rows(&ranker, state, 0);
        let neighbours = Neighbours::from_state(state).map(Arc::new);
        Self::assemble(state, ranker, content, neighbours, padding)
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
            return Self::new(target, self.ranker.device(), self.padding);
        }
        let num_known = base.items.len();
        let content = if target.items.len() == num_known {
            self.content.clone()
        } else {
            let appended = content_rows(&self.ranker, target, num_known);
            match (self.content.clone(), appended) {
                (Some(known), Some(appended)) => Some(Tensor::cat(vec![known, appended], 0)),
                (known, appended) => known.or(appended),
            }
        };
        let has_same_neighbours = target.items.len() == num_known
            && groups_equal(base, target, TensorGroup::Neighbours, num_known);
        let neighbours = if has_same_neighbours {
            self.neighbours.clone()
        } else {
            Neighbours::from_state(target).map(Arc::new)
        };
        Self::assemble(
            target,
            self.ranker.clone(),
            content,
            neighbours,
            self.padding,
        )
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
        let users = self.user_vectors(sequences, queries);
        let scores = users.matmul(self.item_vectors.clone().transpose());
        let scores = scores
            .into_data_async()
            .await
            .map_err(|error| ScoreError::Device(format!("{error:?}")))?;
        let mut scores = scores
            .try_into_vec::<f32>()
            .map_err(|error| ScoreError::Device(format!("{error:?}")))?;
        self.add_bias_and_prior(&mut scores, queries);
        self.add_neighbours(&mut scores, sequences, queries);
        match scores.iter().position(|score| !score.is_finite()) {
            Some(score_idx) => Err(ScoreError::NotFinite { score_idx }),
            None => Ok(scores),
        }
    }

    /// User vectors at the queries, still on the device.
    ///
    /// # Shapes
    /// → `[queries.len(), embedding_dim]`
    #[must_use]
    pub fn user_vectors(&self, sequences: &[Sequence], queries: &[Query]) -> Tensor<2> {
        let num_events_min = match self.padding {
            Padding::Longest => 0,
            Padding::Full => self.spec.history_len as usize,
        };
        let batch = SequenceBatch::new(sequences, num_events_min);
        let hidden = self
            .ranker
            .forward(&self.item_vectors, &batch, Dropout::NONE);
        let [num_sequences, num_positions, dim] = hidden.dims();
        let rows: Vec<i32> = queries
            .iter()
            .map(|query| (query.sequence_idx * num_positions + query.num_known) as i32) // fits: a batch is small
            .collect();
        hidden
            .reshape([num_sequences * num_positions, dim])
            .select(0, ints(&rows, self.ranker.device()))
    }

    /// Item vectors `[num_items, embedding_dim]` on the device.
    #[must_use]
    pub fn item_vectors(&self) -> &Tensor<2> {
        &self.item_vectors
    }

    /// Content part of the item vectors `[num_items, embedding_dim]`, absent without texts and features.
    #[must_use]
    pub fn content(&self) -> Option<&Tensor<2>> {
        self.content.as_ref()
    }

    /// Weight of taste in its scores.
    #[must_use]
    pub fn taste_weight(&self) -> f32 {
        self.taste_weight
    }

    /// The weights behind it.
    #[must_use]
    pub fn ranker(&self) -> &Ranker {
        &self.ranker
    }

    /// How it pads sequences.
    #[must_use]
    pub fn padding(&self) -> Padding {
        self.padding
    }

    /// Number of items it scores.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.num_items
    }

    /// Item prior and bias of all items at `now`: what does not depend on the user.
    #[must_use]
    pub fn base_scores(&self, now_millis: i64) -> Vec<f32> {
        let mut scores = prior::scores(&self.prior_features(now_millis), &self.prior_weights);
        for (score, bias) in scores.iter_mut().zip(&self.bias) {
            *score += bias;
        }
        scores
    }

    fn assemble(
        state: &CodeState,
        ranker: Ranker,
        content: Option<Tensor<2>>,
        neighbours: Option<Arc<Neighbours>>,
        padding: Padding,
    ) -> Self {
        let num_items = state.items.len();
        let dim = state.spec.embedding_dim as usize;
        let id_rows = matrix(
            &named(state, "item.id_rows").dequantize(),
            num_items,
            dim,
            ranker.device(),
        );
        Self {
            spec: state.spec.clone(),
            padding,
            num_items,
            item_vectors: item_vectors(content.clone(), id_rows),
            ranker,
            content,
            bias: named(state, "item.bias").dequantize(),
            count_codes: named(state, "item.counts").codes.clone(),
            prior_weights: named(state, "prior.weights").dequantize(),
            neighbour_weight: state
                .tensor("neighbour.weight")
                .map_or(0.0, |tensor| tensor.dequantize_row(0)[0]),
            taste_weight: state
                .tensor(TASTE_WEIGHT)
                .map_or(1.0, |tensor| tensor.dequantize_row(0)[0]),
            neighbours,
            landmark_millis: state.landmark_millis,
        }
    }

    /// The same version with other fast weights, as f32 before any code: what the trainer holds.
    #[must_use]
    pub fn with_fast_weights(&self, weights: FastWeights<'_>) -> Self {
        let dim = self.spec.embedding_dim as usize;
        let id_rows = matrix(weights.id_rows, self.num_items, dim, self.ranker.device());
        Self {
            item_vectors: item_vectors(self.content.clone(), id_rows),
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
    pub fn with_counts(&self, codes: Vec<i16>) -> Self {
        debug_assert_eq!(codes.len(), self.count_codes.len());
        Self {
            count_codes: codes,
            ..self.clone()
        }
    }

    /// The same version with the slow weights of `parameters` as f32.
    #[must_use]
    pub fn with_slow_weights(&self, parameters: &ParameterSet) -> Self {
        let device = self.ranker.device().clone();
        let ranker = Ranker::init(parameters, &device);
        let rows = |name: &str, num_cols: u32| {
            let num_cols = num_cols as usize;
            (num_cols > 0)
                .then(|| matrix(parameters.tensor(name), self.num_items, num_cols, &device))
        };
        let content = ranker.content_vectors(
            rows("item.text", self.spec.text_dim),
            rows("item.features", self.spec.feature_dim),
        );
        Self {
            ranker,
            content,
            ..self.clone()
        }
    }

    /// Prior features of all items at `now`: `[num_items, num_half_lives]`.
    #[must_use]
    pub fn prior_features(&self, now_millis: i64) -> Vec<f32> {
        prior::features_of_codes(
            &self.count_codes,
            &self.spec.half_lives_secs,
            self.landmark_millis,
            now_millis,
        )
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

/// Content vectors of the items from `first_item` on.
fn content_rows(ranker: &Ranker, state: &CodeState, first_item: usize) -> Option<Tensor<2>> {
    let num_rows = state.items.len() - first_item;
    let rows = |name| {
        let tensor = named(state, name);
        if tensor.num_cols == 0 || num_rows == 0 {
            return None;
        }
        let mut values = Vec::with_capacity(num_rows * tensor.num_cols);
        for row_idx in first_item..state.items.len() {
            values.extend(tensor.dequantize_row(row_idx));
        }
        Some(matrix(&values, num_rows, tensor.num_cols, ranker.device()))
    };
    ranker.content_vectors(rows("item.text"), rows("item.features"))
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
