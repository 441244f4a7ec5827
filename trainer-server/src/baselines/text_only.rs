//! Text alone: cosine between the mean text embedding of a user's last events and every item.
//!
//! Embeddings are those that pages have: the `item.text` codes of a version, dequantized.
//! Nothing is learned here.

use burn::tensor::{Device, Tensor};
use shared_model::model::ranker::{matrix, normalize_rows};

use super::QUERY_EVENTS;
use super::ranked::{Ranked, Scores};
use super::timelines::{Query, Timelines};

/// Text embeddings of all items.
#[derive(Debug, Clone)]
pub struct TextOnly {
    num_items: usize,
    text_dim: usize,
    /// `[num_items, text_dim]` of unit rows, row-major.
    embeddings: Vec<f32>,
    /// The same, transposed, on the device that multiplies.
    transposed: Tensor<2>,
    device: Device,
}

impl TextOnly {
    /// Takes embeddings `[num_items, text_dim]`, row-major; `None` where there are none or the sizes disagree.
    #[must_use]
    pub fn new(embeddings: &[f32], num_items: usize, device: &Device) -> Option<Self> {
        if num_items == 0 || embeddings.is_empty() || !embeddings.len().is_multiple_of(num_items) {
            return None;
        }
        let text_dim = embeddings.len() / num_items;
        let unit_rows = normalize_rows(matrix(embeddings, num_items, text_dim, device));
        let embeddings = unit_rows.clone().into_data().try_into_vec::<f32>().ok()?; // only another dtype fails, and these are f32
        Some(Self {
            num_items,
            text_dim,
            embeddings,
            transposed: unit_rows.transpose(),
            device: device.clone(),
        })
    }

    /// Ranks the queried items; nothing is ranked without a history.
    #[must_use]
    pub fn ranked(&self, queries: &[Query], timelines: &Timelines) -> Vec<Ranked> {
        if queries.is_empty() {
            return Vec::new();
        }
        let means: Vec<f32> = queries
            .iter()
            .flat_map(|query| self.mean_of_last(query, timelines))
            .collect();
        let means = matrix(&means, queries.len(), self.text_dim, &self.device);
        let scores = means
            .matmul(self.transposed.clone())
            .into_data()
            .try_into_vec::<f32>();
        let scores = scores.expect("a product of f32 matrices is f32");
        let rows = scores.chunks_exact(self.num_items);
        queries
            .iter()
            .zip(rows)
            .map(|(query, row)| {
                if query.num_known == 0 {
                    return Ranked::NOTHING;
                }
                let removed = timelines.removed(query).iter().copied();
                Ranked::of(row, Some(query.item_idx), removed, Scores::Ordinal)
            })
            .collect()
    }

    /// Sum in place of the mean: the length of the query does not change the order.
    fn mean_of_last(&self, query: &Query, timelines: &Timelines) -> Vec<f32> {
        let mut sum = vec![0.0; self.text_dim];
        for seen in timelines.history(query).iter().rev().take(QUERY_EVENTS) {
            let first = seen.item_idx as usize * self.text_dim;
            for (total, value) in sum
                .iter_mut()
                .zip(&self.embeddings[first..first + self.text_dim])
            {
                *total += value;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DatasetEvent;

    #[test]
    fn the_item_with_the_nearest_text_comes_first() {
        let embeddings = [1.0, 0.0, 0.9, 0.1, 0.0, 5.0];
        let text_only = TextOnly::new(&embeddings, 3, &Device::flex()).expect("sizes agree");
        let mut timelines = Timelines::new(2);
        let cold = timelines.push(&DatasetEvent {
            user_idx: 0,
            item_idx: 0,
            occurred_at: 0,
            value: None,
        });
        let near = timelines.push(&DatasetEvent {
            user_idx: 0,
            item_idx: 1,
            occurred_at: 1,
            value: None,
        });
        let far = timelines.push(&DatasetEvent {
            user_idx: 1,
            item_idx: 0,
            occurred_at: 2,
            value: None,
        });
        let far_next = timelines.push(&DatasetEvent {
            user_idx: 1,
            item_idx: 2,
            occurred_at: 3,
            value: None,
        });
        let ranked = text_only.ranked(&[cold, near, far, far_next], &timelines);
        let ranks: Vec<Option<u32>> = ranked.iter().map(|one| one.rank).collect();
        assert_eq!(ranks, vec![None, Some(1), None, Some(2)]);
    }

    #[test]
    fn sizes_that_disagree_are_refused() {
        assert!(TextOnly::new(&[1.0; 7], 3, &Device::flex()).is_none());
        assert!(TextOnly::new(&[], 3, &Device::flex()).is_none());
    }
}
