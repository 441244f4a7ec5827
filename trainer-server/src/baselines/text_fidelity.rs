//! How near one text encoder comes to another on the titles of a dataset: cosines, neighbours kept, ranking by text alone.
//!
//! NDCG@10 is that of `text_only` over the last fifth of the stream, items new to the user, not sampled.

use burn::tensor::Device;
use serde::Serialize;
use shared_model::metrics::ndcg_at_k;

use super::ranked::{Ranked, TOP_LEN};
use super::text_only::TextOnly;
use super::timelines::{Query, Timelines};
use crate::dataset::{Dataset, DatasetEvent};

/// Nearest titles that are compared, and places that count.
const NUM_NEIGHBOURS: usize = 10;
/// Titles whose neighbours are looked at.
const NUM_ASKED_ITEMS: usize = 300;
const NUM_QUERIES_AT_ONCE: usize = 512;

/// The part of a stream that is asked about.
pub struct TextQuestions {
    timelines: Timelines,
    queries: Vec<Query>,
    num_items: usize,
}

/// What one encoder's embeddings of all titles are beside another's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fidelity {
    /// Cosines of the two embeddings of a title.
    pub cosine: Cosines,
    /// Share of the ten nearest titles that both have.
    pub neighbours_kept: f64,
    /// Of ranking by text alone.
    pub ndcg_at_10: f64,
    /// Events it is measured on.
    pub num_queries: usize,
}

/// Cosines of pairs of embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cosines {
    /// Their mean.
    pub mean: f32,
    /// One in twenty is below.
    pub p5: f32,
    /// The smallest.
    pub min: f32,
}

impl TextQuestions {
    /// Queries of the last fifth whose item is new to the user.
    #[must_use]
    pub fn of(dataset: &Dataset) -> Self {
        let first = first_asked(dataset);
        let mut timelines = Timelines::new(dataset.users.len());
        let mut queries = Vec::new();
        for (idx, event) in dataset.events.iter().enumerate() {
            let query = timelines.push(event);
            if idx >= first && query.is_new {
                queries.push(query);
            }
        }
        let num_items = dataset.items.len();
        Self {
            timelines,
            queries,
            num_items,
        }
    }

    /// The events before what is asked.
    #[must_use]
    pub fn past<'a>(&self, dataset: &'a Dataset) -> &'a [DatasetEvent] {
        &dataset.events[..first_asked(dataset)]
    }

    /// What is asked, in the order of the stream.
    #[must_use]
    pub fn queries(&self) -> &[Query] {
        &self.queries
    }

    /// Answers by these embeddings of all items; `None` where there are none or the sizes disagree.
    ///
    /// # Shapes
    /// `embeddings`: `[num_items, dim]`, row-major. → `[queries]`.
    #[must_use]
    pub fn ranked(&self, embeddings: &[f32]) -> Option<Vec<Ranked>> {
        let text_only = TextOnly::new(embeddings, self.num_items, &Device::flex())?;
        let chunks = self.queries.chunks(NUM_QUERIES_AT_ONCE);
        let ranked = chunks.flat_map(|queries| text_only.ranked(queries, &self.timelines));
        Some(ranked.collect())
    }

    /// NDCG@10 by these embeddings of all items; `None` where there are none or the sizes disagree.
    ///
    /// # Shapes
    /// `embeddings`: `[num_items, dim]`, row-major.
    #[must_use]
    pub fn ndcg_at_10(&self, embeddings: &[f32]) -> Option<f64> {
        self.ranked(embeddings).map(|ranked| mean_gain(&ranked))
    }

    /// What `actual` is beside `expected`; `None` where there are none or the sizes disagree.
    ///
    /// # Shapes
    /// Both `[num_items, dim]` of unit rows, row-major.
    #[must_use]
    pub fn fidelity(&self, expected: &[f32], actual: &[f32]) -> Option<Fidelity> {
        let dim = actual.len() / self.num_items.max(1);
        Some(Fidelity {
            cosine: cosines(expected, actual, dim)?,
            ndcg_at_10: self.ndcg_at_10(actual)?,
            neighbours_kept: neighbours_kept(expected, actual, dim),
            num_queries: self.queries.len(),
        })
    }
}

/// Mean discounted gain of the first ten places; 0 where nothing was asked.
#[must_use]
pub fn mean_gain(ranked: &[Ranked]) -> f64 {
    let gains = ranked.iter().map(|ranked| {
        let position = ranked.rank.map(|rank| rank as usize - 1); // ranks count from 1
        ndcg_at_k(position, TOP_LEN)
    });
    gains.sum::<f64>() / ranked.len().max(1) as f64 // far below 2^52
}

/// Where the last fifth begins.
fn first_asked(dataset: &Dataset) -> usize {
    dataset.split_at(0.8)
}

/// Cosines of rows with each other; `None` where there are none or the sizes disagree.
///
/// # Shapes
/// Both `[num_rows, dim]` of unit rows, row-major.
#[must_use]
pub fn cosines(expected: &[f32], actual: &[f32], dim: usize) -> Option<Cosines> {
    if actual.is_empty() || expected.len() != actual.len() || dim == 0 {
        return None;
    }
    let rows = expected.chunks_exact(dim).zip(actual.chunks_exact(dim));
    let mut cosines: Vec<f32> = rows.map(|(a, b)| dot(a, b)).collect();
    cosines.sort_by(f32::total_cmp);
    Some(Cosines {
        mean: cosines.iter().sum::<f32>() / cosines.len() as f32, // far below 2^24
        p5: cosines[cosines.len() / 20],
        min: cosines[0],
    })
}

/// Share of the nearest titles that are the same, over titles evenly spread.
fn neighbours_kept(expected: &[f32], actual: &[f32], dim: usize) -> f64 {
    let num_items = actual.len() / dim;
    let asked = (0..num_items).step_by(num_items.div_ceil(NUM_ASKED_ITEMS));
    let num_asked = asked.len() as f64; // a few hundred
    let kept = asked.map(|item_idx| {
        let before = nearest(expected, dim, item_idx);
        let after = nearest(actual, dim, item_idx);
        before.iter().filter(|item| after.contains(item)).count()
    });
    kept.sum::<usize>() as f64 / (NUM_NEIGHBOURS as f64 * num_asked) // likewise
}

/// The items with the nearest texts, the item itself left out.
fn nearest(rows: &[f32], dim: usize, item_idx: usize) -> Vec<usize> {
    let of = |idx: usize| &rows[idx * dim..][..dim];
    let mut others: Vec<(usize, f32)> = (0..rows.len() / dim)
        .filter(|idx| *idx != item_idx)
        .map(|idx| (idx, dot(of(item_idx), of(idx))))
        .collect();
    others.sort_by(|a, b| b.1.total_cmp(&a.1));
    others.truncate(NUM_NEIGHBOURS);
    others.into_iter().map(|(idx, _)| idx).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_sorted_out_and_sizes_that_disagree_refused() {
        let expected = [1.0, 0.0, 0.0, 1.0];
        let found = cosines(&expected, &[1.0, 0.0, 0.6, 0.8], 2).expect("sizes agree");
        assert!((found.mean - 0.9).abs() < 1e-6);
        assert_eq!((found.p5, found.min), (0.8, 0.8));
        assert!(cosines(&expected, &[1.0, 0.0], 2).is_none());
        assert!(cosines(&[], &[], 2).is_none());
    }

    #[test]
    fn neighbours_that_change_places_are_not_kept() {
        let near = |angles: &[f32]| -> Vec<f32> {
            angles
                .iter()
                .flat_map(|angle| [angle.cos(), angle.sin()])
                .collect()
        };
        let angles: Vec<f32> = (0..24).map(|idx| idx as f32 * 0.05).collect();
        let rows = near(&angles);
        assert_eq!(neighbours_kept(&rows, &rows, 2), 1.0);
        let mixed: Vec<f32> = (0..24).map(|idx| (idx * 7 % 24) as f32 * 0.05).collect();
        assert!(neighbours_kept(&rows, &near(&mixed), 2) < 0.8);
    }
}
