//! Item vectors as tensors on the ranker's device.

use burn::tensor::Tensor;

#[cfg(feature = "wgpu")]
use super::gpu;
use super::{content_values, read};
use crate::codec::state::CodeState;
use crate::model::ranker::{Ranker, ints, item_vectors, matrix};
use crate::model::scorer::{Padding, ScoreError, named};

/// Everything on the ranker's device.
#[derive(Debug, Clone)]
pub(in crate::model::scorer) struct BurnTaste {
    pub(super) num_items: usize,
    pub(super) padding: Padding,
    /// `[num_rows, embedding_dim]`, with rows behind those of the items where the padding asks for it
    pub(super) content: Option<Tensor<2>>,
    /// `[num_rows, embedding_dim]`, likewise
    pub(super) item_vectors: Tensor<2>,
}

impl BurnTaste {
    /// Of the codes of `target`; content that is known from an earlier version, all else being equal, is kept.
    pub(super) fn new(
        ranker: &Ranker,
        target: &CodeState,
        padding: Padding,
        known: Option<&Self>,
    ) -> Self {
        let (content, id_rows) = match padding {
            #[cfg(feature = "wgpu")]
            Padding::Full => {
                let num_known = known.map_or(0, |known| known.num_items);
                let known = known.and_then(|known| known.content.as_ref());
                let content = gpu::content(ranker, target, known, num_known);
                (content, gpu::id_rows(target, ranker.device()))
            }
            Padding::None | Padding::Longest => {
                let id_rows = named(target, "item.id_rows").dequantize();
                let id_rows = matrix(&id_rows, target.items.len(), ranker.dim(), ranker.device());
                let content = match known {
                    Some(known) => known.grown_content(ranker, target),
                    None => content_tensor(ranker, target, 0),
                };
                (content, id_rows)
            }
        };
        Self {
            num_items: target.items.len(),
            padding,
            item_vectors: item_vectors(content.clone(), id_rows),
            content,
        }
    }

    /// The content vectors known so far and those of the items of `target` behind them.
    fn grown_content(&self, ranker: &Ranker, target: &CodeState) -> Option<Tensor<2>> {
        if target.items.len() == self.num_items {
            return self.content.clone();
        }
        match (
            &self.content,
            content_tensor(ranker, target, self.num_items),
        ) {
            (Some(known), Some(appended)) => Some(Tensor::cat(vec![known.clone(), appended], 0)),
            (known, appended) => known.clone().or(appended),
        }
    }

    pub(super) fn with_id_rows(&self, ranker: &Ranker, id_rows: &[f32]) -> Self {
        let id_rows = matrix(id_rows, self.num_items, ranker.dim(), ranker.device());
        Self {
            item_vectors: item_vectors(self.content.clone(), self.padded(id_rows)),
            ..self.clone()
        }
    }

    /// Content vectors, `[num_items, embedding_dim]`.
    pub(in crate::model::scorer) fn content(&self) -> Option<Tensor<2>> {
        self.content.as_ref().map(|content| self.of_items(content))
    }

    /// `[num_items, embedding_dim]`
    pub(in crate::model::scorer) fn item_vectors(&self) -> Tensor<2> {
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
    pub(super) fn padded(&self, rows: Tensor<2>) -> Tensor<2> {
        match self.padding {
            #[cfg(feature = "wgpu")]
            Padding::Full => gpu::padded(rows, gpu::num_rows(self.num_items)),
            Padding::None | Padding::Longest => rows,
        }
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
    fn picked(&self, ranker: &Ranker, item_idxs: &[u32]) -> Tensor<2> {
        let picked: Vec<i32> = match self.padding {
            #[cfg(feature = "wgpu")]
            Padding::Full => gpu::picked(item_idxs),
            Padding::None | Padding::Longest => item_idxs.iter().map(|idx| *idx as i32).collect(), // fits: NUM_ITEMS_MAX is 2^20
        };
        let picked = ints(&picked, ranker.device());
        self.item_vectors.clone().select(0, picked)
    }

    /// Vectors of some items, row-major.
    pub(super) async fn rows(
        &self,
        ranker: &Ranker,
        item_idxs: &[u32],
    ) -> Result<Vec<f32>, ScoreError> {
        if item_idxs.is_empty() {
            return Ok(Vec::new());
        }
        let mut values = read(self.picked(ranker, item_idxs)).await?;
        values.truncate(item_idxs.len() * ranker.dim());
        Ok(values)
    }

    /// Mean vector of some items, `[1, embedding_dim]`.
    pub(super) fn mean(&self, ranker: &Ranker, item_idxs: &[u32]) -> Tensor<2> {
        let rows = self.picked(ranker, item_idxs);
        let [num_rows, _] = rows.dims();
        let mut weights = vec![0.0; num_rows];
        weights[..item_idxs.len()].fill(1.0 / item_idxs.len() as f32); // as many as a call may name
        matrix(&weights, 1, num_rows, ranker.device()).matmul(rows)
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
