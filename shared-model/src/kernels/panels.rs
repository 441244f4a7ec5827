//! Products of f32 matrices, `out = a·b + bias`, with `b` packed once into panels that are read in order.
//!
//! ```text
//! b [k, n] → panel p holds columns 8·p … 8·p + 7, row by row; the last panel is padded with zeros
//! out[i, j] = bias[j] + Σ_k a[i, k]·b[k, j]     block of 4 rows and one panel in registers (Goto & van de Geijn 2008)
//! ```

/// Columns of a panel: two vectors of SIMD128.
pub const PANEL_COLS: usize = 8;
/// Rows of a block: with two vectors per row, sums, one row of the panel and one broadcast value fit 16 registers.
const BLOCK_ROWS: usize = 4;

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
        let num_a_rows = a.len() / self.num_rows;
        let mut out = vec![0.0; num_a_rows * self.num_cols];
        for panel_idx in 0..self.num_cols.div_ceil(PANEL_COLS) {
            let first_col = panel_idx * PANEL_COLS;
            let width = PANEL_COLS.min(self.num_cols - first_col);
            let mut start = [0.0; PANEL_COLS];
            if let Some(bias) = bias {
                start[..width].copy_from_slice(&bias[first_col..][..width]);
            }
            let panel = self.panel(panel_idx);
            let mut write = |row_idx: usize, sums: [f32; PANEL_COLS]| {
                put(&mut out[row_idx * self.num_cols + first_col..], sums, width);
            };
            let blocks = a.chunks_exact(BLOCK_ROWS * self.num_rows);
            let num_rest = blocks.remainder().len() / self.num_rows;
            for (block_idx, block) in blocks.enumerate() {
                let sums = block_product::<BLOCK_ROWS>(block, panel, start);
                for (row, sums) in sums.into_iter().enumerate() {
                    write(block_idx * BLOCK_ROWS + row, sums);
                }
            }
            for row_idx in num_a_rows - num_rest..num_a_rows {
                let row = &a[row_idx * self.num_rows..][..self.num_rows];
                write(row_idx, block_product::<1>(row, panel, start)[0]);
            }
        }
        out
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

/// Writes the first `width` values to the front of `out`; whole panels without a call to copy memory.
#[inline]
pub(super) fn put<const COLS: usize>(out: &mut [f32], values: [f32; COLS], width: usize) {
    match out.first_chunk_mut::<COLS>() {
        Some(whole) if width == COLS => *whole = values,
        Some(_) | None => out[..width].copy_from_slice(&values[..width]),
    }
}

/// `ROWS` rows of `a` times one panel.
#[inline]
fn block_product<const ROWS: usize>(
    a: &[f32],
    panel: &[[f32; PANEL_COLS]],
    start: [f32; PANEL_COLS],
) -> [[f32; PANEL_COLS]; ROWS] {
    let len = panel.len();
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &a[row * len..][..len]);
    let mut sums = [start; ROWS];
    for (idx, b) in panel.iter().enumerate() {
        for row in 0..ROWS {
            let factor = rows[row][idx];
            for col in 0..PANEL_COLS {
                sums[row][col] += factor * b[col];
            }
        }
    }
    sums
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
