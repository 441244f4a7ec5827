//! Item vectors on the host, with the kernels of `model::host`.

use std::sync::Arc;

use super::content_values;
use crate::codec::state::CodeState;
use crate::model::host::HostRanker;
use crate::model::host::items::ItemVectors;
use crate::model::parameters::ParameterSet;
use crate::model::scorer::{Query, named};
use crate::model::sequence::Sequence;

/// Rows of texts and features that are numbers at a time: what is kept of them is six times narrower.
const CONTENT_ROWS: usize = 256;

/// A version's weights and item vectors on the host.
#[derive(Debug, Clone)]
pub(in crate::model::scorer) struct OnHost {
    ranker: Arc<HostRanker>,
    /// `[num_items, embedding_dim]`
    content: Option<Arc<Vec<f32>>>,
    items: Arc<ItemVectors>,
}

impl OnHost {
    /// Of codes.
    pub(super) fn new(parameters: &ParameterSet, state: &CodeState) -> Self {
        let ranker = HostRanker::new(parameters);
        let content = content_rows(&ranker, state, 0).map(Arc::new);
        let id_rows = named(state, "item.id_rows").dequantize();
        Self::of(Arc::new(ranker), content, &id_rows)
    }

    fn of(ranker: Arc<HostRanker>, content: Option<Arc<Vec<f32>>>, id_rows: &[f32]) -> Self {
        let content_rows = content.as_ref().map(|content| content.as_slice());
        Self {
            items: Arc::new(ItemVectors::new(content_rows, id_rows, ranker.dim())),
            ranker,
            content,
        }
    }

    /// All of `target`, from whose codes ours differ in id rows and in items behind ours alone.
    pub(super) fn updated(&self, target: &CodeState) -> Self {
        let id_rows = named(target, "item.id_rows").dequantize();
        Self::of(
            Arc::clone(&self.ranker),
            self.grown_content(target),
            &id_rows,
        )
    }

    /// With other id rows, as f32.
    pub(super) fn with_id_rows(&self, id_rows: &[f32]) -> Self {
        Self::of(Arc::clone(&self.ranker), self.content.clone(), id_rows)
    }

    /// With other slow weights and the content they make; the item vectors stay.
    pub(super) fn with_slow_weights(&self, parameters: &ParameterSet) -> Self {
        let rows = |name: &str| {
            let values = parameters.tensor(name);
            (!values.is_empty()).then_some(values)
        };
        let ranker = HostRanker::new(parameters);
        let content = ranker.content_vectors(rows("item.text"), rows("item.features"));
        Self {
            content: content.map(Arc::new),
            ranker: Arc::new(ranker),
            items: Arc::clone(&self.items),
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

    /// User vectors at the queries.
    ///
    /// # Shapes
    /// → `[queries.len(), embedding_dim]`, row-major.
    pub(super) fn user_rows(&self, sequences: &[Sequence], queries: &[Query]) -> Vec<f32> {
        let dim = self.ranker.dim();
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

    /// Products of vectors with all items, row-major.
    pub(super) fn products(&self, vectors: &[f32]) -> Vec<f32> {
        self.items.products(vectors)
    }

    /// Products of vectors with those made of texts alone, `[num_items, text_dim]` row-major.
    pub(super) fn products_with_new(
        &self,
        vectors: &[f32],
        texts: &[f32],
        num_items: usize,
    ) -> Vec<f32> {
        let dim = self.ranker.dim();
        let content = self.ranker.content_vectors(Some(texts), None);
        let id_rows = vec![0.0; num_items * dim];
        ItemVectors::new(content.as_deref(), &id_rows, dim).products(vectors)
    }

    /// Content vector of one item, `[embedding_dim]`; absent without a text and features.
    pub(super) fn content_of(
        &self,
        text: Option<&[f32]>,
        features: Option<&[f32]>,
    ) -> Option<Vec<f32>> {
        self.ranker.content_vectors(text, features)
    }

    /// Vectors of some items, row-major.
    pub(super) fn rows(&self, item_idxs: &[u32]) -> Vec<f32> {
        let rows = item_idxs.iter().map(|idx| self.items.row(*idx as usize));
        rows.flatten().collect()
    }

    /// Mean vector of some items, `[embedding_dim]`.
    pub(super) fn mean(&self, item_idxs: &[u32]) -> Vec<f32> {
        let mut mean = vec![0.0_f32; self.ranker.dim()];
        for item_idx in item_idxs {
            for (mean, value) in mean.iter_mut().zip(self.items.row(*item_idx as usize)) {
                *mean += value / item_idxs.len() as f32; // as many as a call may name
            }
        }
        mean
    }
}

/// Content vectors of the items from `first_item` on, some rows at a time.
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
