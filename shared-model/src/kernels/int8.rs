//! Products of activations with int8 weights, `out = a·b + bias`, summed in i32.
//!
//! A weight matrix has one scale per output; activations get one scale per row when the product is asked for
//! (dynamic quantization, Jacob et al. 2018). Before that, inputs with large weights are made smaller and the others
//! larger, `a_k·√r_k` against `b_kj/√r_k` with the root mean square `r_k` of the input's weights, which halves the error
//! of eight-bit weights (as SmoothQuant, Xiao et al. 2023, does it for activations). Integers do not depend on the order
//! of addition, so a product has the same bits on every machine.
//!
//! ```text
//! pairs  a ≈ s·q,       |q| ≤ min(32767, (2^31 − 1)/(127·k))   two products per lane   i32x4.dot_i16x8_s
//! fours  a ≈ s·(q − z), 0 ≤ q < 2^14, q = 128·high + low       four products per lane  i32x4.relaxed_dot_i8x16_i7x16_add_s
//! out[i, j] = s_i·w_j·(Σ_k q[i, k]·b[k, j] − z_i·Σ_k b[k, j]) + bias[j]
//! panel p holds columns 8·p … 8·p + 7: for every group of k, the group's weights column by column
//! ```
//! Seven bits of activations are too few for embeddings (a cosine of 0.99 for MiniLM), so fours multiply twice; where
//! the processor has the instruction that is still the faster way. A module says that it has by being built with
//! the feature `relaxed-simd`.

mod lanes;

use super::elementwise::max;
use super::panels::put;
use lanes::{COLS, Sums};

/// Rows of a block: sums of four rows and one group of weights fit the registers.
const BLOCK_ROWS: usize = 4;
const CODE_MAX: f32 = 127.0;
/// The upper half of a code counts so much.
const PART_BASE: f32 = 128.0;
const PART_BITS: u32 = 7;
const FOURS_MAX: f32 = PART_BASE * PART_BASE - 1.0;
/// Adding 1.5·2^23 puts the nearest integer into the low bits of an f32, for integers below 2^22.
const ROUND: f32 = 12_582_912.0;

/// How activations become integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// 16 bits or what does not overflow, two products at a time.
    Pairs,
    /// 14 bits, four products of their upper and of their lower half at a time.
    Fours,
}

impl Form {
    /// The faster one of the target that this is built for.
    pub const OF_TARGET: Self = if cfg!(feature = "relaxed-simd") {
        Self::Fours
    } else {
        Self::Pairs
    };

    /// Products per lane.
    const fn group(self) -> usize {
        match self {
            Self::Pairs => 2,
            Self::Fours => 4,
        }
    }
}

/// The right-hand side of products.
#[derive(Debug, Clone)]
pub struct Int8Panels {
    form: Form,
    num_rows: usize,
    num_cols: usize,
    /// What each input is multiplied with, `[num_rows]`.
    balance: Vec<f32>,
    /// Per column, panel by panel.
    scales: Vec<[f32; COLS]>,
    /// Per column, of its codes: what a zero point is multiplied with.
    code_sums: Vec<[f32; COLS]>,
    /// `[num_cols / 8, num_rows / group, 8, group]`, both rounded up and padded with zeros.
    codes: Vec<i8>,
}

/// Activations of some rows as integers.
struct Quantized {
    /// `[num_rows · num_parts, num_groups]`, a group in the bytes of each number; the upper half first.
    groups: Vec<i32>,
    scales: Vec<f32>,
    zero_points: Vec<f32>,
}

impl Int8Panels {
    /// Quantizes weights as files of linear layers hold them.
    ///
    /// # Shapes
    /// `parts`: each `[outputs of this part, num_rows]`, row-major; the outputs follow one another as columns.
    ///
    /// # Panics
    /// If a part does not consist of whole rows.
    #[must_use]
    pub fn new(form: Form, num_rows: usize, parts: &[&[f32]]) -> Self {
        assert!(
            parts.iter().all(|part| part.len().is_multiple_of(num_rows)),
            "whole rows"
        );
        let num_values = parts.iter().map(|part| part.len()).sum::<usize>();
        let balance = balance(num_rows, parts);
        let mut panels = Self::zeros(form, num_rows, num_values / num_rows);
        let columns = parts.iter().flat_map(|part| part.chunks_exact(num_rows));
        for (col_idx, column) in columns.enumerate() {
            let balanced = column.iter().zip(&balance);
            let column: Vec<f32> = balanced.map(|(weight, factor)| weight / factor).collect();
            let scale = scale_of(&column, CODE_MAX);
            let code = |weight: &f32| (weight / scale).round_ties_even() as i8; // within ±127 by the scale
            panels.put_column(col_idx, scale, column.iter().map(code));
        }
        panels.balance = balance;
        panels
    }

    /// Takes weights that are codes already, exactly; nothing is balanced.
    ///
    /// # Shapes
    /// `parts`: the codes of each `[outputs of this part, num_rows]`, row-major, and per output what a code of 1 stands for.
    ///
    /// # Panics
    /// If a part does not consist of whole rows with a scale each.
    #[must_use]
    pub fn from_codes(form: Form, num_rows: usize, parts: &[(&[i8], Vec<f32>)]) -> Self {
        let num_values = parts.iter().map(|(codes, _)| codes.len()).sum::<usize>();
        let mut panels = Self::zeros(form, num_rows, num_values / num_rows);
        let mut col_idx = 0;
        for (codes, scales) in parts {
            assert_eq!(
                codes.len(),
                scales.len() * num_rows,
                "whole rows with a scale each"
            );
            for (column, scale) in codes.chunks_exact(num_rows).zip(scales) {
                panels.put_column(col_idx, *scale, column.iter().copied());
                col_idx += 1;
            }
        }
        panels
    }

    fn zeros(form: Form, num_rows: usize, num_cols: usize) -> Self {
        let (num_groups, num_panels) = (num_rows.div_ceil(form.group()), num_cols.div_ceil(COLS));
        Self {
            form,
            num_rows,
            num_cols,
            balance: vec![1.0; num_rows],
            scales: vec![[0.0; COLS]; num_panels],
            code_sums: vec![[0.0; COLS]; num_panels],
            codes: vec![0; num_panels * num_groups * COLS * form.group()],
        }
    }

    fn put_column(&mut self, col_idx: usize, scale: f32, codes: impl Iterator<Item = i8>) {
        let group = self.form.group();
        let (panel_idx, lane) = (col_idx / COLS, col_idx % COLS);
        let num_groups = self.num_rows.div_ceil(group);
        let first = panel_idx * num_groups * COLS * group + lane * group;
        let mut sum = 0.0;
        for (row_idx, code) in codes.enumerate() {
            self.codes[first + row_idx / group * COLS * group + row_idx % group] = code;
            sum += f32::from(code);
        }
        self.scales[panel_idx][lane] = scale;
        self.code_sums[panel_idx][lane] = sum;
    }

    /// Columns of the right-hand side and of the product.
    #[must_use]
    pub fn num_cols(&self) -> usize {
        self.num_cols
    }

    /// `out = a·b + bias`; `out` keeps its memory from one product to the next.
    ///
    /// # Shapes
    /// `a`: `[num_a_rows, num_rows]`, row-major; `bias`: `[num_cols]`; `out` becomes `[num_a_rows, num_cols]`, row-major.
    ///
    /// # Panics
    /// If `a` does not consist of whole rows, or there are more or fewer biases than columns.
    pub fn product(&self, a: &[f32], bias: &[f32], out: &mut Vec<f32>) {
        assert!(a.len().is_multiple_of(self.num_rows), "whole rows");
        assert_eq!(bias.len(), self.num_cols, "a bias per column");
        match self.form {
            Form::Pairs => {
                self.multiply::<1, _>(&pairs(a, &self.balance), bias, out, Sums::add_pairs)
            }
            Form::Fours => self.multiply_fours(&fours(a, &self.balance), bias, out),
        }
    }

    /// A function of its own, since only what is inlined into one with the instruction has the instruction inlined.
    #[cfg_attr(
        all(target_arch = "wasm32", feature = "relaxed-simd"),
        target_feature(enable = "relaxed-simd")
    )]
    fn multiply_fours(&self, a: &Quantized, bias: &[f32], out: &mut Vec<f32>) {
        let add = |sums: &mut Sums, four, weights: &_| sums.add_fours(four, weights);
        self.multiply::<2, _>(a, bias, out, add);
    }

    /// `PARTS` rows of integers stand for one row of activations; `GROUP_BYTES` are the weights of a group in a panel.
    #[inline(always)]
    fn multiply<const PARTS: usize, const GROUP_BYTES: usize>(
        &self,
        a: &Quantized,
        bias: &[f32],
        out: &mut Vec<f32>,
        add: impl Fn(&mut Sums, i32, &[i8; GROUP_BYTES]) + Copy,
    ) {
        let num_groups = self.num_rows.div_ceil(self.form.group());
        out.resize(a.scales.len() * self.num_cols, 0.0); // every value is written below
        let (groups, _) = self.codes.as_chunks::<GROUP_BYTES>();
        for (panel_idx, panel) in groups.chunks_exact(num_groups).enumerate() {
            let first_col = panel_idx * COLS;
            let width = COLS.min(self.num_cols - first_col);
            let (scales, code_sums) = (self.scales[panel_idx], self.code_sums[panel_idx]);
            let mut biases = [0.0; COLS];
            biases[..width].copy_from_slice(&bias[first_col..][..width]);
            let mut write = |row_idx: usize, parts: &[[i32; COLS]; PARTS]| {
                let (scale, zero_point) = (a.scales[row_idx], a.zero_points[row_idx]);
                let value = |col: usize| {
                    let mut sum = 0.0;
                    for part in parts {
                        sum = sum * PART_BASE + part[col] as f32;
                    }
                    scale * scales[col] * (sum - zero_point * code_sums[col]) + biases[col]
                };
                let values: [f32; COLS] = std::array::from_fn(value);
                let first = row_idx * self.num_cols + first_col;
                put(&mut out[first..first + width], values);
            };
            let blocks = a.groups.chunks_exact(BLOCK_ROWS * num_groups);
            let rest = blocks.remainder().chunks_exact(PARTS * num_groups);
            let num_whole = blocks.len() * BLOCK_ROWS / PARTS;
            for (block_idx, block) in blocks.enumerate() {
                let sums = block_product::<BLOCK_ROWS, GROUP_BYTES>(block, panel, add);
                for (row, parts) in sums.as_chunks::<PARTS>().0.iter().enumerate() {
                    write(block_idx * BLOCK_ROWS / PARTS + row, parts);
                }
            }
            for (row, block) in rest.enumerate() {
                let parts = block_product::<PARTS, GROUP_BYTES>(block, panel, add);
                write(num_whole + row, &parts);
            }
        }
    }
}

/// `ROWS` rows of activations times one panel.
#[inline(always)]
fn block_product<const ROWS: usize, const GROUP_BYTES: usize>(
    a: &[i32],
    panel: &[[i8; GROUP_BYTES]],
    add: impl Fn(&mut Sums, i32, &[i8; GROUP_BYTES]),
) -> [[i32; COLS]; ROWS] {
    let len = panel.len();
    let rows: [&[i32]; ROWS] = std::array::from_fn(|row| &a[row * len..][..len]);
    let mut sums = [Sums::ZERO; ROWS];
    for (idx, weights) in panel.iter().enumerate() {
        for row in 0..ROWS {
            add(&mut sums[row], rows[row][idx], weights);
        }
    }
    sums.map(Sums::to_array)
}

/// Rows of vectors in int8 with a scale each, to be looked up one at a time.
#[derive(Debug, Clone)]
pub struct Int8Rows {
    dim: usize,
    scales: Vec<f32>,
    codes: Vec<i8>,
}

impl Int8Rows {
    /// # Shapes
    /// `values`: `[num_rows, dim]`, row-major.
    #[must_use]
    pub fn new(values: &[f32], dim: usize) -> Self {
        let mut rows = Self {
            dim,
            scales: Vec::with_capacity(values.len() / dim),
            codes: Vec::with_capacity(values.len()),
        };
        for row in values.chunks_exact(dim) {
            let scale = scale_of(row, CODE_MAX);
            rows.scales.push(scale);
            let code = |value: &f32| (value / scale).round_ties_even() as i8; // within ±127 by the scale
            rows.codes.extend(row.iter().map(code));
        }
        rows
    }

    /// Takes codes with a scale per row.
    ///
    /// # Panics
    /// If there are not `dim` codes per scale.
    #[must_use]
    pub fn from_codes(dim: usize, scales: Vec<f32>, codes: Vec<i8>) -> Self {
        assert_eq!(codes.len(), scales.len() * dim, "a scale per row");
        Self { dim, scales, codes }
    }

    /// Adds a row to `sums`, `[dim]`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn add_row(&self, row_idx: usize, sums: &mut [f32]) {
        let codes = &self.codes[row_idx * self.dim..][..self.dim];
        for (sum, code) in sums.iter_mut().zip(codes) {
            *sum += self.scales[row_idx] * f32::from(*code);
        }
    }
}

/// The scale at which the largest value has the largest code; 1 for zeros, whose codes are 0 at any scale.
fn scale_of(values: &[f32], code_max: f32) -> f32 {
    let max = max(values, f32::abs).max(0.0);
    if max > 0.0 { max / code_max } else { 1.0 }
}

/// `round(value · inverse + zero_point)`, ties to even; below 2^22.
#[inline]
fn rounded(value: f32, inverse: f32, zero_point: f32) -> i32 {
    let shifted = value * inverse + (zero_point + ROUND);
    (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32) // both are bits of numbers near 2^23
}

/// Square roots of the inputs' root mean square weights; 1 for an input without weights.
fn balance(num_rows: usize, parts: &[&[f32]]) -> Vec<f32> {
    let mut squares = vec![0.0_f32; num_rows];
    let mut num_cols = 0.0_f32;
    for column in parts.iter().flat_map(|part| part.chunks_exact(num_rows)) {
        num_cols += 1.0;
        for (sum, weight) in squares.iter_mut().zip(column) {
            *sum += weight * weight;
        }
    }
    let factor = |square: f32| (square / num_cols).sqrt().sqrt();
    let factors = squares.into_iter().map(factor);
    factors
        .map(|factor| if factor > 0.0 { factor } else { 1.0 })
        .collect()
}

/// `row · balance`, in `balanced`.
fn put_balanced(balanced: &mut [f32], row: &[f32], balance: &[f32]) {
    for (value, (x, factor)) in balanced.iter_mut().zip(row.iter().zip(balance)) {
        *value = x * factor;
    }
}

fn pairs(a: &[f32], balance: &[f32]) -> Quantized {
    let num_cols = balance.len();
    let sum_max = (i32::MAX / 127) as usize / num_cols; // a size, not negative
    let code_max = sum_max.min(i16::MAX as usize) as f32; // 15 bits are exact
    let mut quantized = Quantized::with_capacity(a.len() / num_cols, num_cols.div_ceil(2));
    let mut balanced = vec![0.0; num_cols];
    let mut codes = vec![0_i16; num_cols.next_multiple_of(2)];
    for row in a.chunks_exact(num_cols) {
        put_balanced(&mut balanced, row, balance);
        let scale = scale_of(&balanced, code_max);
        let inverse = 1.0 / scale;
        for (code, value) in codes.iter_mut().zip(&balanced) {
            *code = rounded(*value, inverse, 0.0) as i16; // within ±code_max by the scale
        }
        let (pairs, _) = codes.as_chunks::<2>();
        let pair = |[low, high]: &[i16; 2]| i32::from(*low) & 0xffff | i32::from(*high) << 16;
        quantized.groups.extend(pairs.iter().map(pair));
        quantized.push_scale(scale, 0.0);
    }
    quantized
}

fn fours(a: &[f32], balance: &[f32]) -> Quantized {
    let num_cols = balance.len();
    let mut quantized = Quantized::with_capacity(a.len() / num_cols, 2 * num_cols.div_ceil(4));
    let mut balanced = vec![0.0; num_cols];
    let padded = num_cols.next_multiple_of(4);
    let (mut high, mut low) = (vec![0_u8; padded], vec![0_u8; padded]);
    for row in a.chunks_exact(num_cols) {
        put_balanced(&mut balanced, row, balance);
        let (min, max) = (
            -max(&balanced, |x| -x).max(0.0),
            max(&balanced, |x| x).max(0.0),
        );
        let range = max - min;
        let scale = if range > 0.0 { range / FOURS_MAX } else { 1.0 };
        let zero_point = (-min / scale).round_ties_even();
        let inverse = 1.0 / scale;
        for ((high, low), value) in high.iter_mut().zip(&mut low).zip(&balanced) {
            let code = rounded(*value, inverse, zero_point).clamp(0, FOURS_MAX as i32); // a whole number
            *high = (code >> PART_BITS) as u8; // 7 bits by the clamp
            *low = (code & 0x7f) as u8; // likewise
        }
        for part in [&high, &low] {
            let (fours, _) = part.as_chunks::<4>();
            quantized
                .groups
                .extend(fours.iter().map(|four| i32::from_le_bytes(*four)));
        }
        quantized.push_scale(scale, zero_point);
    }
    quantized
}

impl Quantized {
    fn with_capacity(num_rows: usize, num_groups: usize) -> Self {
        Self {
            groups: Vec::with_capacity(num_rows * num_groups),
            scales: Vec::with_capacity(num_rows),
            zero_points: Vec::with_capacity(num_rows),
        }
    }

    fn push_scale(&mut self, scale: f32, zero_point: f32) {
        self.scales.push(scale);
        self.zero_points.push(zero_point);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(panels: &Int8Panels, a: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut out = vec![f32::NAN; 3]; // memory of an earlier product
        panels.product(a, bias, &mut out);
        out
    }

    fn values(len: usize, step: usize) -> Vec<f32> {
        (0..len)
            .map(|idx| ((idx * step) % 101) as f32 / 50.0 - 0.7)
            .collect()
    }

    /// What the formula gives, and the largest product of a row's and a column's length.
    fn exact(a: &[f32], weights: &[f32], bias: &[f32], k: usize) -> Vec<f64> {
        let mut products = Vec::new();
        for row in a.chunks_exact(k) {
            for (column, bias) in weights.chunks_exact(k).zip(bias) {
                let sum: f64 = row
                    .iter()
                    .zip(column)
                    .map(|(x, w)| f64::from(*x) * f64::from(*w))
                    .sum();
                products.push(sum + f64::from(*bias));
            }
        }
        products
    }

    #[test]
    fn products_of_all_small_sizes_are_near_what_the_formula_gives() {
        for form in [Form::Pairs, Form::Fours] {
            for (m, k, n) in [(1, 1, 1), (3, 7, 8), (4, 6, 9), (5, 64, 16), (9, 33, 17)] {
                let (a, weights, bias) = (values(m * k, 7), values(n * k, 5), values(n, 3));
                let panels = Int8Panels::new(form, k, &[&weights]);
                let product = product(&panels, &a, &bias);
                for (actual, expected) in product.iter().zip(exact(&a, &weights, &bias, k)) {
                    let error = (f64::from(*actual) - expected).abs() / (k as f64);
                    assert!(
                        error < 0.006,
                        "{form:?} {m} {k} {n}: {actual} is not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn codes_are_taken_as_they_are() {
        for form in [Form::Pairs, Form::Fours] {
            let panels = Int8Panels::from_codes(
                form,
                3,
                &[
                    (&[1, -2, 127], vec![0.5]),
                    (&[0, 3, -5, 7, 0, 1], vec![2.0, 2.0]),
                ],
            );
            let product = product(&panels, &[1.0, 1.0, 1.0, 0.0, 0.0, -1.0], &[0.0, 1.0, 0.0]);
            for (actual, expected) in product.iter().zip([63.0, -3.0, 16.0, -63.5, 11.0, -2.0]) {
                assert!((actual - expected).abs() < 0.01, "{form:?}: {product:?}");
            }
        }
        let rows = Int8Rows::from_codes(2, vec![0.5, 2.0], vec![1, 2, -3, 4]);
        let mut sums = [1.0; 2];
        rows.add_row(1, &mut sums);
        assert_eq!(sums, [-5.0, 9.0]);
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        for form in [Form::Pairs, Form::Fours] {
            for (k, sign) in [(1536, 1.0), (1536, -1.0), (16_384, 1.0)] {
                let panels = Int8Panels::new(form, k, &[&vec![sign; k]]);
                let product = product(&panels, &vec![1.0; k], &[0.0])[0];
                assert!(
                    (product - sign * k as f32).abs() < 1e-3 * k as f32,
                    "{form:?}: {product}"
                );
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_parts_follow_one_another() {
        for form in [Form::Pairs, Form::Fours] {
            let panels = Int8Panels::new(form, 3, &[&[1.0, 0.0, 0.0], &[0.0; 3], &[0.0, 0.0, 2.0]]);
            assert_eq!(panels.num_cols(), 3);
            assert_eq!(
                product(&panels, &[0.0; 3], &[1.0, 2.0, 3.0]),
                [1.0, 2.0, 3.0]
            );
            let product = product(&panels, &[1.0, 0.0, -1.0], &[0.0; 3]);
            for (actual, expected) in product.iter().zip([1.0, 0.0, -2.0]) {
                assert!((actual - expected).abs() < 0.03, "{form:?}: {product:?}");
            }
        }
    }

    #[test]
    fn a_row_that_is_looked_up_is_near_what_was_put_in() {
        let rows = Int8Rows::new(&[0.5, -1.0, 0.25, 0.0, 0.0, 0.0], 3);
        let mut sums = [1.0; 3];
        rows.add_row(0, &mut sums);
        for (actual, expected) in sums.iter().zip([1.5, 0.0, 1.25]) {
            assert!((actual - expected).abs() < 0.005, "{sums:?}");
        }
        rows.add_row(1, &mut sums[..]);
        assert!((sums[1]).abs() < 0.005);
    }
}
