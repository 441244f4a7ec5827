//! Taste: what of a version needs the weights, and the one place that knows which executor computes it.
//!
//! Burn and the host compute the same (`model::host` has the tests); the scorer above does not see which it is.

#[cfg(feature = "wgpu")]
mod gpu;
mod on_device;

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};

use super::{Padding, Query, ScoreError, named};
use crate::codec::state::{CodeState, CodeTensor};
use crate::model::host::HostRanker;
use crate::model::host::items::ItemVectors;
use crate::model::parameters::ParameterSet;
use crate::model::ranker::{Dropout, Ranker, ints, matrix};
use crate::model::sequence::{Sequence, SequenceBatch};
use on_device::BurnTaste;

/// Rows of texts and features that are numbers at a time: what is kept of them is six times narrower.
const CONTENT_ROWS: usize = 256;

/// Item vectors and what computes with them.
#[derive(Debug, Clone)]
pub(super) enum Taste {
    Burn(BurnTaste),
    Host(HostTaste),
}

/// Everything on the host.
#[derive(Debug, Clone)]
pub(super) struct HostTaste {
    ranker: Arc<HostRanker>,
    /// `[num_items, embedding_dim]`
    content: Option<Arc<Vec<f32>>>,
    items: Arc<ItemVectors>,
    device: Device,
    /// For the few who want tensors; made when first asked for.
    copies: OnceLock<BurnTaste>,
}

impl HostTaste {
    fn new(
        ranker: Arc<HostRanker>,
        content: Option<Arc<Vec<f32>>>,
        id_rows: &[f32],
        at: &Ranker,
    ) -> Self {
        let content_rows = content.as_ref().map(|content| content.as_slice());
        Self {
            items: Arc::new(ItemVectors::new(content_rows, id_rows, at.dim())),
            ranker,
            content,
            device: at.device().clone(),
            copies: OnceLock::new(),
        }
    }

    fn grown_content(&self, target: &CodeState) -> Option<Arc<Vec<f32>>> {
        let num_known = self.items.num_items();
        if target.items.len() == num_known {
            return self.content.clone();
        }
        let appended = content_rows(&self.ranker, target, num_known)?;
        let mut all = self.content.as_deref().cloned().unwrap_or_default();
        all.extend(appended);
        Some(Arc::new(all))
    }

    /// # Shapes
    /// → `[queries.len(), embedding_dim]`
    fn user_rows(&self, sequences: &[Sequence], queries: &[Query], dim: usize) -> Vec<f32> {
        let mut rows = vec![0.0; queries.len() * dim];
        for (sequence_idx, sequence) in sequences.iter().enumerate() {
            let asked: Vec<usize> = (0..queries.len())
                .filter(|query_idx| queries[*query_idx].sequence_idx == sequence_idx)
                .collect();
            let nums_known: Vec<usize> = asked.iter().map(|idx| queries[*idx].num_known).collect();
            let users = self.ranker.user_vectors(&self.items, sequence, &nums_known);
            for (query_idx, user) in asked.into_iter().zip(users.chunks_exact(dim)) {
                rows[query_idx * dim..][..dim].copy_from_slice(user);
            }
        }
        rows
    }

    fn copies(&self) -> &BurnTaste {
        self.copies.get_or_init(|| {
            let rows = |values: &[f32]| {
                let num_items = self.items.num_items();
                matrix(
                    values,
                    num_items,
                    values.len() / num_items.max(1),
                    &self.device,
                )
            };
            BurnTaste {
                num_items: self.items.num_items(),
                padding: Padding::None,
                content: self.content.as_ref().map(|content| rows(content)),
                item_vectors: rows(&self.items.rows()),
            }
        })
    }
}

impl Taste {
    /// Of codes, on the ranker's device.
    pub(super) fn on_device(ranker: &Ranker, state: &CodeState, padding: Padding) -> Self {
        Self::Burn(BurnTaste::new(ranker, state, padding, None))
    }

    /// Of codes, on the host.
    pub(super) fn on_host(ranker: &Ranker, parameters: &ParameterSet, state: &CodeState) -> Self {
        let host = HostRanker::new(parameters);
        let content = content_rows(&host, state, 0).map(Arc::new);
        let id_rows = named(state, "item.id_rows").dequantize();
        Self::Host(HostTaste::new(Arc::new(host), content, &id_rows, ranker))
    }

    /// With the id rows of `target` and the content of items that it has behind ours; all else is equal.
    pub(super) fn updated(&self, ranker: &Ranker, target: &CodeState) -> Self {
        match self {
            Self::Burn(taste) => {
                let padding = taste.padding;
                Self::Burn(BurnTaste::new(ranker, target, padding, Some(taste)))
            }
            Self::Host(taste) => {
                let id_rows = named(target, "item.id_rows").dequantize();
                let content = taste.grown_content(target);
                Self::Host(HostTaste::new(
                    Arc::clone(&taste.ranker),
                    content,
                    &id_rows,
                    ranker,
                ))
            }
        }
    }

    /// With other id rows, as f32.
    pub(super) fn with_id_rows(&self, ranker: &Ranker, id_rows: &[f32]) -> Self {
        match self {
            Self::Burn(taste) => Self::Burn(taste.with_id_rows(ranker, id_rows)),
            Self::Host(taste) => {
                let (host, content) = (Arc::clone(&taste.ranker), taste.content.clone());
                Self::Host(HostTaste::new(host, content, id_rows, ranker))
            }
        }
    }

    /// With other slow weights and the content they make; the item vectors stay.
    pub(super) fn with_slow_weights(&self, ranker: &Ranker, parameters: &ParameterSet) -> Self {
        let rows = |name: &str| {
            let values = parameters.tensor(name);
            (!values.is_empty()).then_some(values)
        };
        let (text, features) = (rows("item.text"), rows("item.features"));
        match self {
            Self::Burn(taste) => {
                let (num_items, device) = (parameters.num_items, ranker.device());
                let tensor =
                    |values: &[f32]| matrix(values, num_items, values.len() / num_items, device);
                let content = ranker.content_vectors(text.map(tensor), features.map(tensor));
                Self::Burn(BurnTaste {
                    content: content.map(|content| taste.padded(content)),
                    ..taste.clone()
                })
            }
            Self::Host(taste) => {
                let host = HostRanker::new(parameters);
                Self::Host(HostTaste {
                    content: host.content_vectors(text, features).map(Arc::new),
                    ranker: Arc::new(host),
                    items: Arc::clone(&taste.items),
                    device: ranker.device().clone(),
                    copies: OnceLock::new(),
                })
            }
        }
    }

    /// As tensors on the ranker's device.
    pub(super) fn tensors(&self) -> &BurnTaste {
        match self {
            Self::Burn(taste) => taste,
            Self::Host(taste) => taste.copies(),
        }
    }

    /// # Shapes
    /// → `[queries.len(), embedding_dim]`
    pub(super) fn user_vectors(
        &self,
        ranker: &Ranker,
        sequences: &[Sequence],
        queries: &[Query],
        num_events_min: usize,
    ) -> Tensor<2> {
        let taste = match self {
            Self::Burn(taste) => taste,
            Self::Host(taste) => {
                let users = taste.user_rows(sequences, queries, ranker.dim());
                return matrix(&users, queries.len(), ranker.dim(), ranker.device());
            }
        };
        let batch = SequenceBatch::new(sequences, num_events_min);
        let hidden = ranker.forward(&taste.item_vectors, &batch, Dropout::NONE);
        let [num_sequences, num_positions, dim] = hidden.dims();
        let rows: Vec<i32> = queries
            .iter()
            .map(|query| (query.sequence_idx * num_positions + query.num_known) as i32) // fits: a batch is small
            .collect();
        hidden
            .reshape([num_sequences * num_positions, dim])
            .select(0, ints(&rows, ranker.device()))
    }

    /// Products of the queries' user vectors with all item vectors.
    ///
    /// # Shapes
    /// → `[queries.len(), num_items]`, row-major.
    pub(super) async fn products(
        &self,
        ranker: &Ranker,
        sequences: &[Sequence],
        queries: &[Query],
        num_events_min: usize,
    ) -> Result<Vec<f32>, ScoreError> {
        match self {
            Self::Burn(taste) => {
                let users = self.user_vectors(ranker, sequences, queries, num_events_min);
                taste.products(users).await
            }
            Self::Host(taste) => {
                let users = taste.user_rows(sequences, queries, ranker.dim());
                Ok(taste.items.products(&users))
            }
        }
    }

    /// Products of the one query's user vector with vectors made of texts alone.
    ///
    /// # Shapes
    /// `texts`: `[num_items, text_dim]`, row-major → `[num_items]`.
    pub(super) async fn products_with_new(
        &self,
        ranker: &Ranker,
        sequences: &[Sequence],
        queries: &[Query],
        num_events_min: usize,
        texts: &[f32],
    ) -> Result<Vec<f32>, ScoreError> {
        let text_dim = ranker.text_dim();
        let num_items = texts.len() / text_dim.max(1);
        if num_items == 0 {
            return Ok(Vec::new());
        }
        let id_rows = vec![0.0; num_items * ranker.dim()];
        match self {
            Self::Burn(_) => {
                let users = self.user_vectors(ranker, sequences, queries, num_events_min);
                let texts = matrix(texts, num_items, text_dim, ranker.device());
                let content = ranker.content_vectors(Some(texts), None);
                let vectors = BurnTaste::new(ranker, content, &id_rows).item_vectors;
                read(users.matmul(vectors.transpose())).await
            }
            Self::Host(taste) => {
                let users = taste.user_rows(sequences, queries, ranker.dim());
                let content = taste.ranker.content_vectors(Some(texts), None);
                let vectors = ItemVectors::new(content.as_deref(), &id_rows, ranker.dim());
                Ok(vectors.products(&users))
            }
        }
    }

    /// Vectors of some items, row-major.
    pub(super) async fn item_rows(
        &self,
        ranker: &Ranker,
        item_idxs: &[u32],
    ) -> Result<Vec<f32>, ScoreError> {
        match self {
            Self::Burn(taste) => taste.rows(ranker, item_idxs).await,
            Self::Host(taste) => {
                let rows = item_idxs.iter().map(|idx| taste.items.row(*idx as usize));
                Ok(rows.flatten().collect())
            }
        }
    }

    /// Mean products of some items, one at least, with all items, `[num_items]`.
    pub(super) async fn mean_products(
        &self,
        ranker: &Ranker,
        item_idxs: &[u32],
    ) -> Result<Vec<f32>, ScoreError> {
        match self {
            Self::Burn(taste) => taste.products(taste.mean(ranker, item_idxs)).await,
            Self::Host(taste) => {
                let mut mean = vec![0.0_f32; ranker.dim()];
                for item_idx in item_idxs {
                    for (mean, value) in mean.iter_mut().zip(taste.items.row(*item_idx as usize)) {
                        *mean += value / item_idxs.len() as f32; // as many as a call may name
                    }
                }
                Ok(taste.items.products(&mean))
            }
        }
    }

    /// Products of one vector with all item vectors, `[num_items]`.
    pub(super) async fn products_of(
        &self,
        ranker: &Ranker,
        vector: &[f32],
    ) -> Result<Vec<f32>, ScoreError> {
        match self {
            Self::Burn(taste) => {
                // A product that ranking computes too: another form would be another kernel in the page's module.
                let vector = matrix(vector, 1, vector.len(), ranker.device());
                taste.products(vector).await
            }
            Self::Host(taste) => Ok(taste.items.products(vector)),
        }
    }
}

/// Values of a tensor, when the device has them.
///
/// # Errors
/// The device failed.
pub(crate) async fn read(tensor: Tensor<2>) -> Result<Vec<f32>, ScoreError> {
    let values = tensor.into_data_async().await;
    let values = values.map_err(|error| ScoreError::Device(format!("{error:?}")))?;
    values
        .try_into_vec::<f32>()
        .map_err(|error| ScoreError::Device(format!("{error:?}")))
}

/// Texts and features of some items as numbers; absent where the spec has none.
fn content_values(tensor: &CodeTensor, items: std::ops::Range<usize>) -> Option<Vec<f32>> {
    if tensor.num_cols == 0 || items.is_empty() {
        return None;
    }
    let mut values = Vec::with_capacity(items.len() * tensor.num_cols);
    for row_idx in items {
        values.extend(tensor.dequantize_row(row_idx));
    }
    Some(values)
}

/// Content vectors on the host of the items from `first_item` on, some rows at a time.
fn content_rows(ranker: &HostRanker, state: &CodeState, first_item: usize) -> Option<Vec<f32>> {
    let (text, features) = (named(state, "item.text"), named(state, "item.features"));
    let mut all: Option<Vec<f32>> = None;
    for first in (first_item..state.items.len()).step_by(CONTENT_ROWS) {
        let items = first..state.items.len().min(first + CONTENT_ROWS);
        let text = content_values(text, items.clone());
        let features = content_values(features, items);
        let rows = ranker.content_vectors(text.as_deref(), features.as_deref())?;
        all.get_or_insert_default().extend(rows);
    }
    all
}
