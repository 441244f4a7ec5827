//! Item vectors as tensors on the ranker's device.

use burn::tensor::{Device, Tensor};

#[cfg(feature = "wgpu")]
use super::gpu;
use super::{content_values, read};
use crate::codec::state::CodeState;
use crate::model::parameters::ParameterSet;
use crate::model::ranker::{Dropout, Ranker, ints, item_vectors, matrix};
use crate::model::scorer::{Padding, Query, ScoreError, named};
use crate::model::sequence::{Sequence, SequenceBatch};

/// A version's weights and item vectors on a device.
#[derive(Debug, Clone)]
pub struct OnDevice {
    ranker: Ranker,
    num_items: usize,
    padding: Padding,
    /// `[num_rows, embedding_dim]`, with rows behind those of the items where the padding asks for it
    content: Option<Tensor<2>>,
    /// `[num_rows, embedding_dim]`, likewise
    item_vectors: Tensor<2>,
}

impl OnDevice {
    /// Of codes.
    pub(super) fn new(
        parameters: &ParameterSet,
        state: &CodeState,
        device: &Device,
        padding: Padding,
    ) -> Self {
        Self::of(Ranker::init(parameters, device), state, padding, None)
    }

    /// All of `target`, from whose codes ours differ in id rows and in items behind ours alone.
    pub(super) fn updated(&self, target: &CodeState) -> Self {
        Self::of(self.ranker.clone(), target, self.padding, Some(self))
    }

    /// Of other codes altogether.
    pub(super) fn renewed(&self, parameters: &ParameterSet, target: &CodeState) -> Self {
        Self::new(parameters, target, self.ranker.device(), self.padding)
    }

    /// Of the codes of `target`; content that is known from an earlier version, all else being equal, is kept.
    fn of(ranker: Ranker, target: &CodeState, padding: Padding, known: Option<&Self>) -> Self {
        let (content, id_rows) = match padding {
            #[cfg(feature = "wgpu")]
            Padding::Full => {
                let num_known = known.map_or(0, |known| known.num_items);
                let known = known.and_then(|known| known.content.as_ref());
                let content = gpu::content(&ranker, target, known, num_known);
                (content, gpu::id_rows(target, ranker.device()))
            }
            Padding::Longest => {
                let id_rows = named(target, "item.id_rows").dequantize();
                let id_rows = matrix(&id_rows, target.items.len(), ranker.dim(), ranker.device());
                let content = match known {
                    Some(known) => known.grown_content(target),
                    None => content_tensor(&ranker, target, 0),
                };
                (content, id_rows)
            }
        };
        Self {
            num_items: target.items.len(),
            padding,
            item_vectors: item_vectors(content.clone(), id_rows),
            content,
            ranker,
        }
    }

    /// The content vectors known so far and those of the items of `target` behind them.
    fn grown_content(&self, target: &CodeState) -> Option<Tensor<2>> {
        if target.items.len() == self.num_items {
            return self.content.clone();
        }
        match (
            &self.content,
            content_tensor(&self.ranker, target, self.num_items),
        ) {
            (Some(known), Some(appended)) => Some(Tensor::cat(vec![known.clone(), appended], 0)),
            (known, appended) => known.clone().or(appended),
        }
    }

    /// With other id rows, as f32.
    pub(super) fn with_id_rows(&self, id_rows: &[f32]) -> Self {
        let (dim, device) = (self.ranker.dim(), self.ranker.device());
        let id_rows = matrix(id_rows, self.num_items, dim, device);
        Self {
            item_vectors: item_vectors(self.content.clone(), self.padded(id_rows)),
            ..self.clone()
        }
    }

    /// With other slow weights and the content they make; the item vectors stay.
    pub(super) fn with_slow_weights(&self, parameters: &ParameterSet) -> Self {
        let ranker = Ranker::init(parameters, self.ranker.device());
        let rows = |name: &str| {
            let values = parameters.tensor(name);
            let num_cols = values.len() / parameters.num_items.max(1);
            let tensor = || matrix(values, parameters.num_items, num_cols, ranker.device());
            (!values.is_empty()).then(tensor)
        };
        let content = ranker.content_vectors(rows("item.text"), rows("item.features"));
        Self {
            content: content.map(|content| self.padded(content)),
            ranker,
            ..self.clone()
        }
    }

    /// Whether shapes are the same whatever is asked.
    pub(super) fn has_fixed_shapes(&self) -> bool {
        self.padding.is_fixed()
    }

    /// User vectors at the queries.
    ///
    /// # Shapes
    /// → `[queries.len(), embedding_dim]`
    #[must_use]
    pub fn user_vectors(&self, sequences: &[Sequence], queries: &[Query]) -> Tensor<2> {
        let ranker = &self.ranker;
        let num_events_min = if self.padding.is_fixed() {
            ranker.history_len()
        } else {
            0
        };
        let batch = SequenceBatch::new(sequences, num_events_min);
        let hidden = ranker.forward(&self.item_vectors, &batch, Dropout::NONE);
        let [num_sequences, num_positions, dim] = hidden.dims();
        let rows: Vec<i32> = queries
            .iter()
            .map(|query| (query.sequence_idx * num_positions + query.num_known) as i32) // fits: a batch is small
            .collect();
        hidden
            .reshape([num_sequences * num_positions, dim])
            .select(0, ints(&rows, ranker.device()))
    }

    /// Products of the queries' user vectors with vectors made of texts alone, `[num_items, text_dim]` row-major.
    pub(super) async fn products_with_new(
        &self,
        sequences: &[Sequence],
        queries: &[Query],
        texts: &[f32],
        num_items: usize,
    ) -> Result<Vec<f32>, ScoreError> {
        let (dim, device) = (self.ranker.dim(), self.ranker.device());
        let num_rows = match self.padding {
            #[cfg(feature = "wgpu")]
            Padding::Full => gpu::num_picked(num_items),
            Padding::Longest => num_items,
        };
        let mut rows = texts.to_vec();
        rows.resize(num_rows * (texts.len() / num_items), 0.0);
        let texts = matrix(&rows, num_rows, rows.len() / num_rows, device);
        let content = self.ranker.content_vectors(Some(texts), None);
        let vectors = item_vectors(content, Tensor::zeros([num_rows, dim], device));
        let users = self.user_vectors(sequences, queries);
        let mut products = read(users.matmul(vectors.transpose())).await?;
        products.truncate(num_items);
        Ok(products)
    }

    /// Content vector of one item, `[embedding_dim]`; absent without a text and features.
    pub(super) async fn content_of(
        &self,
        text: Option<&[f32]>,
        features: Option<&[f32]>,
    ) -> Result<Option<Vec<f32>>, ScoreError> {
        let row = |values: &[f32]| matrix(values, 1, values.len(), self.ranker.device());
        match self
            .ranker
            .content_vectors(text.map(row), features.map(row))
        {
            Some(content) => read(content).await.map(Some),
            None => Ok(None),
        }
    }

    /// Content vectors, `[num_items, embedding_dim]`, absent without texts and features.
    #[must_use]
    pub fn content(&self) -> Option<Tensor<2>> {
        self.content.as_ref().map(|content| self.of_items(content))
    }

    /// Item vectors, `[num_items, embedding_dim]`.
    #[must_use]
    pub fn item_vectors(&self) -> Tensor<2> {
        self.of_items(&self.item_vectors)
    }

    fn of_items(&self, rows: &Tensor<2>) -> Tensor<2> {
        let [num_rows, dim] = rows.dims();
        if num_rows == self.num_items {
            return rows.clone();
        }
        rows.clone().slice([0..self.num_items, 0..dim])
    }

    /// One row for every item, as the padding has them.
    fn padded(&self, rows: Tensor<2>) -> Tensor<2> {
        match self.padding {
            #[cfg(feature = "wgpu")]
            Padding::Full => gpu::padded(rows, gpu::num_rows(self.num_items)),
            Padding::Longest => rows,
        }
    }

    /// Products of one vector with all items.
    pub(super) async fn products_of(&self, vector: &[f32]) -> Result<Vec<f32>, ScoreError> {
        // A product that ranking computes too: another form would be another kernel in the page's module.
        let vector = matrix(vector, 1, vector.len(), self.ranker.device());
        self.products(vector).await
    }

    /// Products of vectors with all items, row-major, and nothing else, is read back.
    pub(super) async fn products(&self, vectors: Tensor<2>) -> Result<Vec<f32>, ScoreError> {
        let [num_rows, _] = self.item_vectors.dims();
        let mut products = read(vectors.matmul(self.item_vectors.clone().transpose())).await?;
        if num_rows > self.num_items {
            let rows = products.chunks_exact(num_rows);
            products = rows
                .flat_map(|row| &row[..self.num_items])
                .copied()
                .collect();
        }
        Ok(products)
    }

    /// Vectors of some items, `[item_idxs.len(), embedding_dim]`, with more rows behind them where the padding asks for it.
    fn picked(&self, item_idxs: &[u32]) -> Tensor<2> {
        let picked: Vec<i32> = match self.padding {
            #[cfg(feature = "wgpu")]
            Padding::Full => gpu::picked(item_idxs),
            Padding::Longest => item_idxs.iter().map(|idx| *idx as i32).collect(), // fits: NUM_ITEMS_MAX is 2^20
        };
        let picked = ints(&picked, self.ranker.device());
        self.item_vectors.clone().select(0, picked)
    }

    /// Vectors of some items, row-major.
    pub(super) async fn rows(&self, item_idxs: &[u32]) -> Result<Vec<f32>, ScoreError> {
        if item_idxs.is_empty() {
            return Ok(Vec::new());
        }
        let mut values = read(self.picked(item_idxs)).await?;
        values.truncate(item_idxs.len() * self.ranker.dim());
        Ok(values)
    }

    /// Mean vector of some items, `[1, embedding_dim]`.
    pub(super) fn mean(&self, item_idxs: &[u32]) -> Tensor<2> {
        let rows = self.picked(item_idxs);
        let [num_rows, _] = rows.dims();
        let mut weights = vec![0.0; num_rows];
        weights[..item_idxs.len()].fill(1.0 / item_idxs.len() as f32); // as many as a call may name
        matrix(&weights, 1, num_rows, self.ranker.device()).matmul(rows)
    }
}

/// Content vectors of the items from `first_item` on.
fn content_tensor(ranker: &Ranker, state: &CodeState, first_item: usize) -> Option<Tensor<2>> {
    let items = first_item..state.items.len();
    let rows = |name| {
        let tensor = named(state, name);
        let values = content_values(tensor, items.clone())?;
        Some(matrix(
            &values,
            items.len(),
            tensor.num_cols,
            ranker.device(),
        ))
    };
    ranker.content_vectors(rows("item.text"), rows("item.features"))
}
