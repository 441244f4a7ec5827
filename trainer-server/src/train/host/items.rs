//! Item vectors of a batch, and from their gradients those of id rows and content projections.
//!
//! ```text
//! c = P·t + F·x + kept∘e     v = c/√(|c|² + ε)     ∂c = (∂v − v·(v·∂v))/√(|c|² + ε)
//! ```
//!
//! The same as `shared_model::model::ranker::item_vectors`.

use rayon::prelude::*;
use shared_model::model::parameters::ParameterSet;

use super::dropout::{Site, draw};
use super::elementwise::{add, add_scaled, dot};
use super::layer::DropoutSeed;
use super::matmul::{Panels, Rows, RowsMut, Start, add_transposed_product, multiply};
use super::vector::vectorized;
use crate::train::full_step::gather;

/// As in `shared_model::model::ranker`.
const NORM_EPSILON: f32 = 1e-12;
/// Rows that one thread takes at a time; part of the result, since sums over rows are kept per part.
const PART_ROWS: usize = 256;

/// Content of items that is projected into their vectors: texts or operator's features.
struct Content<'a> {
    table: &'a [f32],
    width: usize,
    projection: Panels,
}

impl<'a> Content<'a> {
    fn new(parameters: &'a ParameterSet, table: &str, projection: &str) -> Option<Self> {
        let dim = parameters.spec.embedding_dim as usize; // u32 fits
        let weight = parameters.tensor(projection);
        (!weight.is_empty()).then(|| Self {
            table: parameters.tensor(table),
            width: weight.len() / dim,
            projection: Panels::of(Rows::dense(weight, dim)),
        })
    }
}

/// Vectors of the items of a batch.
pub(super) struct Items<'a> {
    rows: &'a [u32],
    dim: usize,
    /// Texts, then features.
    content: [Option<Content<'a>>; 2],
    /// Whether an id row takes part, `[num_rows]` of 0 or 1; empty if all do.
    kept: Vec<f32>,
    /// `[num_rows, dim]`
    pub(super) vectors: Vec<f32>,
    /// 1/√(|c|² + ε), `[num_rows]`
    inverse_lengths: Vec<f32>,
}

/// Gradients of what item vectors are made of.
pub(super) struct ItemGradients {
    /// `[num_rows, dim]`
    pub(super) id_rows: Vec<f32>,
    /// Of the text projection, then of the feature projection.
    pub(super) projections: [Option<Vec<f32>>; 2],
}

impl<'a> Items<'a> {
    pub(super) fn new(
        parameters: &'a ParameterSet,
        rows: &'a [u32],
        id_dropout: DropoutSeed,
    ) -> Self {
        let dim = parameters.spec.embedding_dim as usize; // u32 fits
        let content = [
            Content::new(parameters, "item.text", "text.projection"),
            Content::new(parameters, "item.features", "feature.projection"),
        ];
        let mut kept = Vec::new();
        if content.iter().any(Option::is_some) {
            let DropoutSeed { share, seed } = id_dropout;
            draw(&mut kept, rows.len(), share, seed, Site::IdRows, 0);
            for kept in &mut kept {
                *kept = f32::from(u8::from(*kept > 0.0));
            }
        }
        let mut items = Self {
            rows,
            dim,
            content,
            kept,
            vectors: vec![0.0; rows.len() * dim],
            inverse_lengths: vec![0.0; rows.len()],
        };
        items.forward(parameters.tensor("item.id_rows"));
        items
    }

    fn forward(&mut self, id_rows: &[f32]) {
        let (dim, content, kept) = (self.dim, &self.content, &self.kept);
        let parts = self
            .vectors
            .par_chunks_mut(PART_ROWS * dim)
            .zip(self.inverse_lengths.par_chunks_mut(PART_ROWS));
        parts
            .zip(self.rows.par_chunks(PART_ROWS))
            .enumerate()
            .for_each(|(part_idx, ((vectors, inverse_lengths), rows))| {
                vectors.copy_from_slice(&gather(id_rows, dim, rows));
                if let Some(kept) = kept.get(part_idx * PART_ROWS..) {
                    scale_rows(vectors, kept, dim);
                }
                for content in content.iter().flatten() {
                    multiply(
                        Rows::dense(&gather(content.table, content.width, rows), content.width),
                        &content.projection,
                        RowsMut::dense(vectors, dim),
                        Start::Out,
                    );
                }
                normalize(vectors, inverse_lengths, dim);
            });
    }

    /// From the gradients of the vectors, one sum per lane.
    ///
    /// # Shapes
    /// `sums`: each `[num_rows, dim]`.
    pub(super) fn backward(&self, sums: &[&[f32]]) -> ItemGradients {
        let dim = self.dim;
        let mut id_rows = vec![0.0; self.vectors.len()];
        let projections: Vec<[Option<Vec<f32>>; 2]> = id_rows
            .par_chunks_mut(PART_ROWS * dim)
            .enumerate()
            .map(|(part_idx, gradient)| self.backward_part(part_idx * PART_ROWS, sums, gradient))
            .collect();
        let total = projections.into_iter().reduce(|mut total, part| {
            for (total, part) in total.iter_mut().flatten().zip(part.iter().flatten()) {
                add(total, part);
            }
            total
        });
        ItemGradients {
            id_rows,
            projections: total.unwrap_or([None, None]),
        }
    }

    fn backward_part(
        &self,
        first_row: usize,
        sums: &[&[f32]],
        gradient: &mut [f32],
    ) -> [Option<Vec<f32>>; 2] {
        let dim = self.dim;
        let num_rows = gradient.len() / dim;
        let values = first_row * dim..(first_row + num_rows) * dim;
        for sum in sums {
            add(gradient, &sum[values.clone()]);
        }
        let vectors = &self.vectors[values];
        let inverse_lengths = &self.inverse_lengths[first_row..first_row + num_rows];
        normalize_gradient(gradient, vectors, inverse_lengths, dim);
        let rows = &self.rows[first_row..first_row + num_rows];
        let projection = |content: &Content| {
            let mut sum = vec![0.0; content.width * dim];
            add_transposed_product(
                Rows::dense(&gather(content.table, content.width, rows), content.width),
                Rows::dense(gradient, dim),
                RowsMut::dense(&mut sum, dim),
            );
            sum
        };
        let projections = [0, 1].map(|which| self.content[which].as_ref().map(projection));
        if let Some(kept) = self.kept.get(first_row..) {
            scale_rows(gradient, kept, dim);
        }
        projections
    }
}

/// `row_i ← factor_i·row_i`; nothing where there are no factors.
fn scale_rows(rows: &mut [f32], factors: &[f32], dim: usize) {
    for (row, factor) in rows.chunks_exact_mut(dim).zip(factors) {
        for value in row {
            *value *= factor;
        }
    }
}

fn normalize(rows: &mut [f32], inverse_lengths: &mut [f32], dim: usize) {
    vectorized!({
        for (row, inverse) in rows.chunks_exact_mut(dim).zip(inverse_lengths) {
            *inverse = 1.0 / (dot(row, row) + NORM_EPSILON).sqrt();
            for value in row.iter_mut() {
                *value *= *inverse;
            }
        }
    });
}

fn normalize_gradient(gradient: &mut [f32], vectors: &[f32], inverse_lengths: &[f32], dim: usize) {
    vectorized!({
        let rows = gradient
            .chunks_exact_mut(dim)
            .zip(vectors.chunks_exact(dim));
        for ((gradient, vector), inverse) in rows.zip(inverse_lengths) {
            let along = dot(gradient, vector);
            add_scaled(gradient, -along, vector);
            for value in gradient.iter_mut() {
                *value *= inverse;
            }
        }
    });
}
