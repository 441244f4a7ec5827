//! Matrix products of f32 host arrays, for the shapes of a training step.
//!
//! Inner sizes are a few dozen and everything lies in a cache, so the right-hand side is repacked once into
//! panels that the register block reads in order, and the left-hand side is read where it lies:
//!
//! ```text
//! out[i, j] = Σ_k a[i, k]·b[k, j]     block of 6 rows and one panel, two vectors wide (Goto & van de Geijn 2008)
//! ```
//!
//! Vector width is chosen at run time by `pulp`; a product is the same to the bit on one machine.
//! Not here: threads. A product runs on the thread that asks for it.

use pulp::{Arch, Simd, WithSimd};

/// Rows of one register block: 12 sums, two of `b` and one of `a` fill the 16 vector registers of AVX2.
const BLOCK_ROWS: usize = 6;
/// Widest panel of any instruction set: two vectors of 16.
const WIDTH_MAX: usize = 32;

/// A matrix that is read: rows of `num_cols` values, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) num_rows: usize,
    pub(super) num_cols: usize,
    pub(super) stride: usize,
}

/// A matrix that is written: rows of `num_cols` values, `stride` apart.
pub(super) struct RowsMut<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) num_cols: usize,
    pub(super) stride: usize,
}

impl<'a> Rows<'a> {
    /// Rows one behind the other.
    pub(super) fn dense(values: &'a [f32], num_cols: usize) -> Self {
        Self {
            values,
            num_rows: values.len() / num_cols,
            num_cols,
            stride: num_cols,
        }
    }
}

impl<'a> RowsMut<'a> {
    /// Rows one behind the other.
    pub(super) fn dense(values: &'a mut [f32], num_cols: usize) -> Self {
        Self {
            values,
            num_cols,
            stride: num_cols,
        }
    }
}

/// What a product starts from.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// `out = a·b`
    Zero,
    /// `out = a·b + bias`, the same in every row.
    Bias(&'a [f32]),
    /// `out += a·b`
    Out,
}

/// The right-hand side of products: panels of `width` columns, each row by row, the last padded with zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Panels {
    num_rows: usize,
    num_cols: usize,
    width: usize,
    values: Vec<f32>,
}

impl Panels {
    /// Of `b` itself.
    pub(super) fn of(b: Rows) -> Self {
        let mut panels = Self::default();
        panels.pack(b);
        panels
    }

    /// Of `b` transposed.
    pub(super) fn of_transposed(b: Rows) -> Self {
        let mut panels = Self::default();
        panels.pack_transposed(b);
        panels
    }

    /// As [`Self::of`], in the memory that is there.
    pub(super) fn pack(&mut self, b: Rows) {
        self.resize(b.num_rows, b.num_cols);
        let (num_rows, width) = (self.num_rows, self.width);
        for (panel_idx, panel) in self.values.chunks_exact_mut(num_rows * width).enumerate() {
            let first = panel_idx * width;
            let len = width.min(b.num_cols - first);
            for (target, row) in panel.chunks_exact_mut(width).zip(b.values.chunks(b.stride)) {
                target[..len].copy_from_slice(&row[first..first + len]);
                target[len..].fill(0.0);
            }
        }
    }

    /// As [`Self::of_transposed`], in the memory that is there.
    pub(super) fn pack_transposed(&mut self, b: Rows) {
        self.resize(b.num_cols, b.num_rows);
        let (num_rows, width) = (self.num_rows, self.width);
        for (panel_idx, panel) in self.values.chunks_exact_mut(num_rows * width).enumerate() {
            let first = panel_idx * width;
            let len = width.min(b.num_rows - first);
            panel.fill(0.0);
            for col in 0..len {
                let source = &b.values[(first + col) * b.stride..][..num_rows];
                for (target, value) in panel.chunks_exact_mut(width).zip(source) {
                    target[col] = *value;
                }
            }
        }
    }

    fn resize(&mut self, num_rows: usize, num_cols: usize) {
        assert!(num_rows > 0, "a product over nothing");
        self.num_rows = num_rows;
        self.num_cols = num_cols;
        self.width = Arch::new().dispatch(PanelWidth);
        self.values
            .resize(num_cols.div_ceil(self.width) * self.width * num_rows, 0.0);
    }
}

struct PanelWidth;

impl WithSimd for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        2 * S::F32_LANES
    }
}

/// `out = start + a·b`.
///
/// # Shapes
/// `a`: `[m, k]`, `b`: `[k, n]`, `out`: `[m, n]`.
pub(super) fn multiply(a: Rows, b: &Panels, out: RowsMut, start: Start) {
    assert_eq!(a.num_cols, b.num_rows, "inner sizes of a product");
    assert_eq!(b.num_cols, out.num_cols, "columns of a product");
    Arch::new().dispatch(Product { a, b, out, start });
}

struct Product<'a> {
    a: Rows<'a>,
    b: &'a Panels,
    out: RowsMut<'a>,
    start: Start<'a>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (panels, num_rows) = (self.b, self.a.num_rows);
        let panel_len = panels.num_rows * panels.width;
        for (panel_idx, panel) in panels.values.chunks_exact(panel_len).enumerate() {
            let first_col = panel_idx * panels.width;
            let mut row = 0;
            while row + BLOCK_ROWS <= num_rows {
                self.block::<S, BLOCK_ROWS>(simd, row, first_col, panel);
                row += BLOCK_ROWS;
            }
            match num_rows - row {
                0 => {}
                1 => self.block::<S, 1>(simd, row, first_col, panel),
                2 => self.block::<S, 2>(simd, row, first_col, panel),
                3 => self.block::<S, 3>(simd, row, first_col, panel),
                4 => self.block::<S, 4>(simd, row, first_col, panel),
                _ => self.block::<S, 5>(simd, row, first_col, panel),
            }
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn block<S: Simd, const R: usize>(
        &mut self,
        simd: S,
        first_row: usize,
        first_col: usize,
        panel: &[f32],
    ) {
        let a = self.a;
        let inner = a.num_cols;
        let rows: [&[f32]; R] =
            std::array::from_fn(|row| &a.values[(first_row + row) * a.stride..][..inner]);
        let mut sums = [self.first_sums(simd, first_col); R];
        let (panel, _) = S::as_simd_f32s(panel);
        let panel = &panel[..2 * inner];
        for k in 0..inner {
            let (left, right) = (panel[2 * k], panel[2 * k + 1]);
            for row in 0..R {
                let factor = simd.splat_f32s(rows[row][k]);
                sums[row][0] = simd.mul_add_e_f32s(factor, left, sums[row][0]);
                sums[row][1] = simd.mul_add_e_f32s(factor, right, sums[row][1]);
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            self.write(simd, first_row + row, first_col, sums);
        }
    }

    #[inline(always)]
    fn first_sums<S: Simd>(&self, simd: S, first_col: usize) -> [S::f32s; 2] {
        let zero = simd.splat_f32s(0.0);
        let Start::Bias(bias) = self.start else {
            return [zero; 2];
        };
        let mut padded = [0.0; WIDTH_MAX];
        let len = (2 * S::F32_LANES).min(bias.len() - first_col);
        padded[..len].copy_from_slice(&bias[first_col..first_col + len]);
        let (vectors, _) = S::as_simd_f32s(&padded);
        [vectors[0], vectors[1]]
    }

    #[inline(always)]
    fn write<S: Simd>(&mut self, simd: S, row: usize, first_col: usize, sums: [S::f32s; 2]) {
        let width = 2 * S::F32_LANES;
        let len = width.min(self.out.num_cols - first_col);
        let out = &mut self.out.values[row * self.out.stride + first_col..][..len];
        let is_added = matches!(self.start, Start::Out);
        if len == width {
            let (out, _) = S::as_mut_simd_f32s(out);
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = if is_added {
                    simd.add_f32s(*out, sum)
                } else {
                    sum
                };
            }
            return;
        }
        let mut padded = [0.0; WIDTH_MAX];
        let (vectors, _) = S::as_mut_simd_f32s(&mut padded);
        vectors[..2].copy_from_slice(&sums);
        for (out, sum) in out.iter_mut().zip(padded) {
            *out = if is_added { *out + sum } else { sum };
        }
    }
}

/// `out += aᵀ·b`: the gradient of a weight from inputs and gradients of outputs.
///
/// # Shapes
/// `a`: `[k, m]`, `b`: `[k, n]`, `out`: `[m, n]`.
pub(super) fn add_transposed_product(a: Rows, b: Rows, out: RowsMut) {
    assert_eq!(a.num_rows, b.num_rows, "inner sizes of a product");
    assert_eq!(b.num_cols, out.num_cols, "columns of a product");
    Arch::new().dispatch(TransposedProduct { a, b, out });
}

struct TransposedProduct<'a> {
    a: Rows<'a>,
    b: Rows<'a>,
    out: RowsMut<'a>,
}

impl WithSimd for TransposedProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let width = 2 * S::F32_LANES;
        let num_rows = self.a.num_cols;
        let whole_cols = self.b.num_cols / width * width;
        let mut row = 0;
        while row + BLOCK_ROWS <= num_rows {
            self.strip::<S, BLOCK_ROWS>(simd, row, whole_cols);
            row += BLOCK_ROWS;
        }
        while row < num_rows {
            self.strip::<S, 1>(simd, row, whole_cols);
            row += 1;
        }
    }
}

impl TransposedProduct<'_> {
    /// All columns of `R` rows of the result.
    #[inline(always)]
    fn strip<S: Simd, const R: usize>(&mut self, simd: S, first_row: usize, whole_cols: usize) {
        for first_col in (0..whole_cols).step_by(2 * S::F32_LANES) {
            self.block::<S, R>(simd, first_row, first_col);
        }
        for row in first_row..first_row + R {
            for col in whole_cols..self.b.num_cols {
                let a = self.a.values.chunks(self.a.stride);
                let pairs = a.zip(self.b.values.chunks(self.b.stride));
                let sum: f32 = pairs
                    .take(self.a.num_rows)
                    .map(|(a, b)| a[row] * b[col])
                    .sum();
                self.out.values[row * self.out.stride + col] += sum;
            }
        }
    }

    #[inline(always)]
    fn block<S: Simd, const R: usize>(&mut self, simd: S, first_row: usize, first_col: usize) {
        let width = 2 * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); 2]; R];
        let a = self.a.values.chunks(self.a.stride);
        let pairs = a.zip(self.b.values.chunks(self.b.stride));
        for (a, b) in pairs.take(self.a.num_rows) {
            let a = &a[first_row..first_row + R];
            let (b, _) = S::as_simd_f32s(&b[first_col..first_col + width]);
            let (left, right) = (b[0], b[1]);
            for row in 0..R {
                let factor = simd.splat_f32s(a[row]);
                sums[row][0] = simd.mul_add_e_f32s(factor, left, sums[row][0]);
                sums[row][1] = simd.mul_add_e_f32s(factor, right, sums[row][1]);
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            let first = (first_row + row) * self.out.stride + first_col;
            let (out, _) = S::as_mut_simd_f32s(&mut self.out.values[first..first + width]);
            out[0] = simd.add_f32s(out[0], sums[0]);
            out[1] = simd.add_f32s(out[1], sums[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len)
            .map(|idx| ((idx * 7919 + seed * 104_729) % 1013) as f32 / 506.0 - 1.0)
            .collect()
    }

    proptest! {
        #[test]
        fn products_are_those_of_three_loops(m in 1_usize..20, k in 1_usize..20, n in 1_usize..70, pad in 0_usize..3) {
            let (stride_a, stride_out) = (k + pad, n + pad);
            let (a, b) = (numbers(m * stride_a, 1), numbers(k * n, 2));
            let transposed: Vec<f32> = (0..n * k).map(|idx| b[idx % k * n + idx / k]).collect();
            let bias = numbers(n, 3);
            let before = numbers(m * stride_out, 4);
            let rows = Rows { values: &a, num_rows: m, num_cols: k, stride: stride_a };
            let expected = |row: usize, col: usize| -> f32 {
                (0..k).map(|inner| a[row * stride_a + inner] * b[inner * n + col]).sum()
            };
            for (start, panels) in [
                (Start::Zero, Panels::of(Rows::dense(&b, n))),
                (Start::Bias(&bias), Panels::of_transposed(Rows::dense(&transposed, k))),
                (Start::Out, Panels::of(Rows::dense(&b, n))),
            ] {
                let mut out = before.clone();
                multiply(rows, &panels, RowsMut { values: &mut out, num_cols: n, stride: stride_out }, start);
                for row in 0..m {
                    for col in 0..stride_out {
                        let idx = row * stride_out + col;
                        let first = match start {
                            _ if col >= n => before[idx],
                            Start::Zero => 0.0,
                            Start::Bias(bias) => bias[col],
                            Start::Out => before[idx],
                        };
                        let wanted = if col < n { first + expected(row, col) } else { first };
                        prop_assert!((out[idx] - wanted).abs() < 1e-4);
                    }
                }
            }
        }

        #[test]
        fn transposed_products_are_those_of_three_loops(m in 1_usize..20, k in 1_usize..20, n in 1_usize..70, pad in 0_usize..3) {
            let (stride_a, stride_b) = (m + pad, n + pad);
            let (a, b) = (numbers(k * stride_a, 1), numbers(k * stride_b, 2));
            let before = numbers(m * n, 3);
            let mut out = before.clone();
            add_transposed_product(
                Rows { values: &a, num_rows: k, num_cols: m, stride: stride_a },
                Rows { values: &b, num_rows: k, num_cols: n, stride: stride_b },
                RowsMut::dense(&mut out, n),
            );
            for row in 0..m {
                for col in 0..n {
                    let sum: f32 = (0..k).map(|inner| a[inner * stride_a + row] * b[inner * stride_b + col]).sum();
                    prop_assert!((out[row * n + col] - before[row * n + col] - sum).abs() < 1e-4);
                }
            }
        }
    }
}
