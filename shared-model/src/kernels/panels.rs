//! Products of f32 matrices, `out = a·b + bias`, with `b` packed once into panels that are read in order.
//!
//! ```text
//! b [k, n] → panel p holds columns 8·p … 8·p + 7, row by row; the last panel is padded with zeros
//! out[i, j] = bias[j] + Σ_k a[i, k]·b[k, j]     block of 4 rows and one panel in registers (Goto & van de Geijn 2008)
//! ```
//! Rows that do not fill a block are taken one by one, each with four panels: with one panel an addition would wait
//! for the one before. Every sum adds in the order of `k`, whatever is beside it.

use std::ops::Range;

/// Columns of a panel: two vectors of SIMD128.
pub const PANEL_COLS: usize = 8;
/// Rows of a block: with two vectors per row, sums, one row of the panel and one broadcast value fit 16 registers.
const BLOCK_ROWS: usize = 4;
/// Panels of a block of one row.
const BLOCK_PANELS: usize = 4;

/// The right-hand side of products.
#[derive(Debug, Clone, PartialEq)]
pub struct Panels {
    num_rows: usize,
    num_cols: usize,
    /// `[num_cols / 8, num_rows]`, rounded up.
    values: Vec<[f32; PANEL_COLS]>,
}

impl Panels {
    /// Packs matrices that stand side by side.
    ///
    /// # Shapes
    /// `parts`: each `[num_rows, num_cols of this part]`, row-major.
    ///
    /// # Panics
    /// If a part does not consist of `num_rows` rows, or `num_rows` is 0.
    #[must_use]
    pub fn new(num_rows: usize, parts: &[&[f32]]) -> Self {
        let widths: Vec<usize> = parts.iter().map(|part| part.len() / num_rows).collect();
        let mut panels = Self::zeros(num_rows, widths.iter().sum());
        let mut first_col = 0;
        for (part, width) in parts.iter().zip(widths) {
            assert_eq!(part.len(), num_rows * width, "whole rows");
            for (row_idx, row) in part.chunks_exact(width.max(1)).enumerate() {
                panels.put_row(row_idx, first_col, row);
            }
            first_col += width;
        }
        panels
    }

    /// All zeros.
    #[must_use]
    pub fn zeros(num_rows: usize, num_cols: usize) -> Self {
        let num_panels = num_cols.div_ceil(PANEL_COLS);
        Self {
            num_rows,
            num_cols,
            values: vec![[0.0; PANEL_COLS]; num_panels * num_rows],
        }
    }

    /// Rows of the right-hand side: columns of the left one.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// Columns of the right-hand side and of the product.
    #[must_use]
    pub fn num_cols(&self) -> usize {
        self.num_cols
    }

    /// One column, `[num_rows]`.
    pub fn column(&self, col_idx: usize) -> impl Iterator<Item = f32> + '_ {
        let lane = col_idx % PANEL_COLS;
        self.panel(col_idx / PANEL_COLS)
            .iter()
            .map(move |row| row[lane])
    }

    /// Replaces one column.
    pub fn set_column(&mut self, col_idx: usize, column: &[f32]) {
        let (first, lane) = (col_idx / PANEL_COLS * self.num_rows, col_idx % PANEL_COLS);
        for (row, value) in self.values[first..][..self.num_rows].iter_mut().zip(column) {
            row[lane] = *value;
        }
    }

    /// `a·b + bias`; without a bias it is 0.
    ///
    /// # Shapes
    /// `a`: `[num_a_rows, num_rows]`, row-major; `bias`: `[num_cols]` → `[num_a_rows, num_cols]`, row-major.
    ///
    /// # Panics
    /// If `a` does not consist of whole rows, or there are more or fewer biases than columns.
    #[must_use]
    pub fn product(&self, a: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        assert!(a.len().is_multiple_of(self.num_rows), "whole rows");
        assert!(
            bias.is_none_or(|bias| bias.len() == self.num_cols),
            "a bias per column"
        );
        let mut out = vec![0.0; a.len() / self.num_rows * self.num_cols];
        if out.is_empty() {
            return out;
        }
        if let Some(bias) = bias {
            for row in out.chunks_exact_mut(self.num_cols) {
                row.copy_from_slice(bias);
            }
        }
        let blocks = a.chunks_exact(BLOCK_ROWS * self.num_rows);
        let rest = blocks.remainder();
        let num_in_blocks = (a.len() - rest.len()) / self.num_rows * self.num_cols;
        let (out_of_blocks, out_of_rest) = out.split_at_mut(num_in_blocks);
        for panel_idx in 0..self.num_cols.div_ceil(PANEL_COLS) {
            let out_blocks = out_of_blocks.chunks_exact_mut(BLOCK_ROWS * self.num_cols);
            for (block, out) in blocks.clone().zip(out_blocks) {
                self.add_block(block, panel_idx, out);
            }
        }
        let out_rows = out_of_rest.chunks_exact_mut(self.num_cols);
        for (row, out) in rest.chunks_exact(self.num_rows).zip(out_rows) {
            self.add_row(row, out);
        }
        out
    }

    /// [`BLOCK_ROWS`] rows times one panel.
    fn add_block(&self, rows: &[f32], panel_idx: usize, out: &mut [f32]) {
        let panel = self.panel(panel_idx);
        let cols = self.cols(panel_idx);
        let rows: [&[f32]; BLOCK_ROWS] =
            std::array::from_fn(|row| &rows[row * panel.len()..][..panel.len()]);
        let mut sums: [_; BLOCK_ROWS] =
            std::array::from_fn(|row| taken(&out[row * self.num_cols..][cols.clone()]));
        for (idx, b) in panel.iter().enumerate() {
            for row in 0..BLOCK_ROWS {
                add_scaled(&mut sums[row], rows[row][idx], b);
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            put(&mut out[row * self.num_cols..][cols.clone()], sums);
        }
    }

    /// One row times all panels.
    fn add_row(&self, row: &[f32], out: &mut [f32]) {
        let num_panels = self.num_cols.div_ceil(PANEL_COLS);
        let num_in_blocks = num_panels - num_panels % BLOCK_PANELS;
        for first in (0..num_in_blocks).step_by(BLOCK_PANELS) {
            self.add_row_to::<BLOCK_PANELS>(row, first, out);
        }
        for panel_idx in num_in_blocks..num_panels {
            self.add_row_to::<1>(row, panel_idx, out);
        }
    }

    /// One row times `PANELS` panels.
    #[inline]
    fn add_row_to<const PANELS: usize>(&self, row: &[f32], first: usize, out: &mut [f32]) {
        let panels: [_; PANELS] =
            std::array::from_fn(|panel| &self.panel(first + panel)[..row.len()]);
        let mut sums: [_; PANELS] =
            std::array::from_fn(|panel| taken(&out[self.cols(first + panel)]));
        for (idx, factor) in row.iter().enumerate() {
            for panel in 0..PANELS {
                add_scaled(&mut sums[panel], *factor, &panels[panel][idx]);
            }
        }
        for (panel, sums) in sums.into_iter().enumerate() {
            put(&mut out[self.cols(first + panel)], sums);
        }
    }

    /// Columns of a panel in the product.
    fn cols(&self, panel_idx: usize) -> Range<usize> {
        let first = panel_idx * PANEL_COLS;
        first..self.num_cols.min(first + PANEL_COLS)
    }

    fn panel(&self, panel_idx: usize) -> &[[f32; PANEL_COLS]] {
        &self.values[panel_idx * self.num_rows..][..self.num_rows]
    }

    /// Writes values of one row from a column on, a panel at a time.
    fn put_row(&mut self, row_idx: usize, first_col: usize, row: &[f32]) {
        let lane = first_col % PANEL_COLS;
        let num_before = (PANEL_COLS - lane) % PANEL_COLS; // values that fill up a panel begun
        let (before, rest) = row.split_at(num_before.min(row.len()));
        let mut at = first_col / PANEL_COLS * self.num_rows + row_idx;
        if !before.is_empty() {
            self.values[at][lane..][..before.len()].copy_from_slice(before);
            at += self.num_rows;
        }
        let (whole, after) = rest.as_chunks::<PANEL_COLS>();
        for values in whole {
            self.values[at] = *values;
            at += self.num_rows;
        }
        if !after.is_empty() {
            self.values[at][..after.len()].copy_from_slice(after);
        }
    }
}

/// As many values as there are, zeros behind them; whole panels without a call to copy memory.
#[inline]
fn taken(values: &[f32]) -> [f32; PANEL_COLS] {
    values.first_chunk().copied().unwrap_or_else(|| {
        let mut padded = [0.0; PANEL_COLS];
        padded[..values.len()].copy_from_slice(values);
        padded
    })
}

/// Fills `out` from the front of `values`; whole panels without a call to copy memory.
#[inline]
pub(super) fn put<const COLS: usize>(out: &mut [f32], values: [f32; COLS]) {
    match out.first_chunk_mut::<COLS>() {
        Some(whole) => *whole = values,
        None => out.copy_from_slice(&values[..out.len()]),
    }
}

#[inline]
fn add_scaled(sums: &mut [f32; PANEL_COLS], factor: f32, values: &[f32; PANEL_COLS]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += factor * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers, so that every order of addition gives the same.
    fn values(len: usize, step: usize) -> Vec<f32> {
        (0..len)
            .map(|idx| ((idx * step) % 13) as f32 - 6.0)
            .collect()
    }

    #[test]
    fn products_of_all_small_sizes_are_what_the_formula_gives() {
        for (m, k, n) in [
            (0, 3, 5),
            (1, 1, 1),
            (3, 7, 8),
            (4, 5, 9),
            (5, 64, 16),
            (9, 2, 17),
            (7, 3, 75),
        ] {
            let (a, b, bias) = (values(m * k, 7), values(k * n, 5), values(n, 3));
            let mut expected = Vec::new();
            for row in 0..m {
                for col in 0..n {
                    let sum: f32 = (0..k).map(|idx| a[row * k + idx] * b[idx * n + col]).sum();
                    expected.push(bias[col] + sum);
                }
            }
            assert_eq!(
                Panels::new(k, &[&b]).product(&a, Some(&bias)),
                expected,
                "{m} {k} {n}"
            );
        }
    }

    #[test]
    fn parts_stand_side_by_side_and_columns_come_back() {
        let (left, right) = (values(2 * 3, 5), values(2 * 9, 7));
        let mut panels = Panels::new(2, &[&left, &right]);
        assert_eq!(panels.num_cols(), 12);
        assert_eq!(panels.column(2).collect::<Vec<_>>(), [left[2], left[5]]);
        assert_eq!(panels.column(11).collect::<Vec<_>>(), [right[8], right[17]]);
        panels.set_column(11, &[40.0, 41.0]);
        assert_eq!(panels.column(11).collect::<Vec<_>>(), [40.0, 41.0]);
        assert_eq!(panels.column(10).collect::<Vec<_>>(), [right[7], right[16]]);
    }
}
