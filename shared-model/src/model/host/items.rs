//! Item vectors on the host, kept as the right-hand side of the products that score all items.

use crate::kernels::Panels;
use crate::kernels::elementwise::sum;
use crate::model::ranker::NORM_EPSILON;

/// `norm(content + id_row)` of every item.
#[derive(Debug, Clone)]
pub struct ItemVectors {
    dim: usize,
    /// `[dim, num_items]`
    panels: Panels,
}

impl ItemVectors {
    /// Of id rows, with the content part where there is one.
    ///
    /// # Shapes
    /// Both `[num_items, dim]`, row-major.
    #[must_use]
    pub fn new(content: Option<&[f32]>, id_rows: &[f32], dim: usize) -> Self {
        let mut panels = Panels::zeros(dim, id_rows.len() / dim);
        let mut vector = vec![0.0; dim];
        for (item_idx, id_row) in id_rows.chunks_exact(dim).enumerate() {
            vector.copy_from_slice(id_row);
            if let Some(content) = content {
                super::add(&mut vector, &content[item_idx * dim..][..dim]);
            }
            let length = (sum(&vector, |x| x * x) + NORM_EPSILON as f32).sqrt(); // 1e-12 has a near f32
            let scale = 1.0 / length;
            for x in &mut vector {
                *x *= scale;
            }
            panels.set_column(item_idx, &vector);
        }
        Self { dim, panels }
    }

    /// How many there are.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.panels.num_cols()
    }

    /// One of them, `[dim]`.
    pub fn row(&self, item_idx: usize) -> impl Iterator<Item = f32> + '_ {
        self.panels.column(item_idx)
    }

    /// All of them, `[num_items, dim]`, row-major.
    #[must_use]
    pub fn rows(&self) -> Vec<f32> {
        let mut rows = Vec::with_capacity(self.num_items() * self.dim);
        for item_idx in 0..self.num_items() {
            rows.extend(self.row(item_idx));
        }
        rows
    }

    /// Products of vectors with every item: taste, before its weight.
    ///
    /// # Shapes
    /// `vectors`: `[num_vectors, dim]` → `[num_vectors, num_items]`, row-major.
    #[must_use]
    pub fn products(&self, vectors: &[f32]) -> Vec<f32> {
        self.panels.product(vectors, None)
    }
}
