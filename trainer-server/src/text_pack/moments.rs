//! Second moments of what linear layers get, and how a rounding error of one weight is made up for by others.
//! Pruning makes up for inputs that are left out by the same moments (`prune`).
//!
//! The squared error that rounding `W` to `Ŵ` causes in a layer's output is `tr((Ŵ − W)·H·(Ŵ − W)ᵀ)` with
//! `H = Σ x·xᵀ` over its inputs. With `H = L·D·Lᵀ`, `L` lower triangular with ones on the diagonal, column `k` is best
//! rounded after all columns behind it, at `W_k + Σ_{j>k} (W_j − Ŵ_j)·L_jk` (GPTQ, Frantar et al. 2023, in the form of
//! LDLQ, Chee et al. 2023). Inputs are put in the order of their squares, so that the largest are rounded first, and
//! all others make up for their errors.

use std::collections::BTreeMap;

use shared_model::text::host::Input;
use shared_model::text::{HostTextEncoder, TextError, TokenizedText};

/// Added to the diagonal, as a share of its mean: what the texts did not show may still come.
const DAMPING: f64 = 0.05;

/// Inputs that were told, and what they mean for rounding.
#[derive(Debug)]
pub(super) struct Moments {
    compensations: BTreeMap<(usize, Input), Compensation>,
}

/// What the columns behind each one tell it.
#[derive(Debug)]
pub(super) struct Compensation {
    /// Inputs by their squares, the largest last.
    order: Vec<usize>,
    /// Row `k` holds `L_jk` for `j = k + 1, …`.
    rows: Vec<Vec<f32>>,
}

/// `Σ x·xᵀ`, the lower triangle.
#[derive(Debug, Clone)]
pub(crate) struct SecondMoments {
    rows: Vec<Vec<f64>>,
}

impl Moments {
    /// Watches a network while it embeds texts.
    ///
    /// # Errors
    /// A text has too many tokens, or an unknown one.
    pub(super) fn of(
        network: &HostTextEncoder,
        texts: &[TokenizedText],
    ) -> Result<Self, TextError> {
        let mut sums: BTreeMap<(usize, Input), SecondMoments> = BTreeMap::new();
        for text in texts {
            let num_tokens = text.token_ids.len();
            network.observe(text, |layer, input, rows| {
                let dim = rows.len() / num_tokens;
                let sum = sums.entry((layer, input));
                let sum = sum.or_insert_with(|| SecondMoments::new(dim));
                sum.add(rows);
            })?;
        }
        let compensations = sums
            .into_iter()
            .map(|(input, sum)| (input, sum.compensation()));
        Ok(Self {
            compensations: compensations.collect(),
        })
    }

    /// For the weights of a linear layer, by their name; nothing for other weights and where no text was seen.
    pub(super) fn compensation(&self, name: &str) -> Option<&Compensation> {
        let (layer, part) = name.strip_prefix("encoder.layer.")?.split_once('.')?;
        let input = match part.strip_suffix(".weight")? {
            "attention.self.query" | "attention.self.key" | "attention.self.value" => {
                Input::Projection
            }
            "attention.output.dense" => Input::AttentionOutput,
            "intermediate.dense" => Input::Intermediate,
            "output.dense" => Input::Output,
            _ => return None,
        };
        self.compensations.get(&(layer.parse().ok()?, input)) // a layer without a number has no inputs
    }
}

impl Compensation {
    pub(super) fn num_inputs(&self) -> usize {
        self.rows.len()
    }

    /// The input that stands there in the order.
    pub(super) fn input_at(&self, place: usize) -> usize {
        self.order[place]
    }

    /// `Σ_{j>k} errors_j·L_jk`, places by order.
    pub(super) fn at(&self, k: usize, errors: &[f32]) -> f32 {
        dot(&self.rows[k], &errors[k + 1..])
    }
}

impl SecondMoments {
    pub(crate) fn new(dim: usize) -> Self {
        Self {
            rows: (1..=dim).map(|len| vec![0.0; len]).collect(),
        }
    }

    /// # Shapes
    /// `inputs`: `[num_inputs, dim]`, row-major.
    pub(crate) fn add(&mut self, inputs: &[f32]) {
        let dim = self.rows.len();
        for (i, row) in self.rows.iter_mut().enumerate() {
            for input in inputs.chunks_exact(dim) {
                let x = f64::from(input[i]);
                for (sum, y) in row.iter_mut().zip(input) {
                    *sum += x * f64::from(*y);
                }
            }
        }
    }

    /// Inverse of the sum, with `damping` times the mean of its diagonal added to that.
    ///
    /// # Shapes
    /// → `[dim, dim]`, by rows.
    pub(crate) fn inverse(self, damping: f64) -> Vec<Vec<f64>> {
        let factor = self.factor(damping);
        let dim = factor.len();
        // Columns of C⁻¹ from the diagonal on; H⁻¹ = C⁻ᵀ·C⁻¹ is made of their products.
        let column = |k: usize| {
            let mut column = vec![1.0 / factor[k][k]];
            for (i, row) in factor.iter().enumerate().skip(k + 1) {
                column.push(-dot(&row[k..i], &column) / row[i]);
            }
            column
        };
        let columns: Vec<Vec<f64>> = (0..dim).map(column).collect();
        let product = |i: usize, j: usize| {
            let (first, last) = (i.min(j), i.max(j));
            dot(&columns[first][last - first..], &columns[last])
        };
        let row = |i: usize| (0..dim).map(|j| product(i, j)).collect();
        (0..dim).map(row).collect()
    }

    /// With rows and columns in another order.
    fn in_order(&self, order: &[usize]) -> Self {
        let at = |i: usize, j: usize| self.rows[i.max(j)][i.min(j)];
        let row = |i: usize| order[..=i].iter().map(|j| at(order[i], *j)).collect();
        Self {
            rows: (0..order.len()).map(row).collect(),
        }
    }

    /// Decomposes the damped sum.
    pub(super) fn compensation(self) -> Compensation {
        let dim = self.rows.len();
        let mut order: Vec<usize> = (0..dim).collect();
        order.sort_by(|i, j| self.rows[*i][*i].total_cmp(&self.rows[*j][*j]));
        let rows = self.in_order(&order).columns();
        Compensation { order, rows }
    }

    /// Column `k` of `L` below the diagonal, for each `k`.
    fn columns(self) -> Vec<Vec<f32>> {
        let factor = self.factor(DAMPING);
        let column = |k: usize| {
            let pivot = factor[k][k];
            let below = factor[k + 1..].iter();
            below.map(|row| (row[k] / pivot) as f32).collect() // a factor needs no more
        };
        (0..factor.len()).map(column).collect()
    }

    /// `C`, lower triangular, with `C·Cᵀ` the sum and `damping` times the mean of its diagonal added to that.
    fn factor(mut self, damping: f64) -> Vec<Vec<f64>> {
        let dim = self.rows.len();
        let diagonal: f64 = self.rows.iter().filter_map(|row| row.last()).sum();
        let damping = (damping * diagonal / dim as f64).max(f64::MIN_POSITIVE); // sizes are far below 2^52
        for (i, row) in self.rows.iter_mut().enumerate() {
            row[i] += damping;
        }
        cholesky(&mut self.rows, damping * f64::EPSILON);
        self.rows
    }
}

/// Replaces a positive definite matrix by `C`, lower triangular, with `C·Cᵀ` the matrix; what lies above the diagonal
/// is not touched. Pivots below `least` are rounding errors.
pub(crate) fn cholesky(rows: &mut [Vec<f64>], least: f64) {
    for i in 0..rows.len() {
        let (done, rest) = rows.split_at_mut(i);
        let row = &mut rest[0];
        for j in 0..i {
            let known: f64 = dot(&row[..j], &done[j][..j]);
            row[j] = (row[j] - known) / done[j][j];
        }
        let known: f64 = dot(&row[..i], &row[..i]);
        row[i] = (row[i] - known).max(least).sqrt();
    }
}

/// In eight sums side by side, which the compiler makes vectors of.
fn dot<T: Copy + Default + std::ops::Mul<Output = T> + std::ops::AddAssign + std::iter::Sum>(
    a: &[T],
    b: &[T],
) -> T {
    const LANES: usize = 8;
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [T::default(); LANES];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += *a * *b;
    }
    sums.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decomposition_is_that_of_the_sum() {
        let inputs: Vec<Vec<f32>> = (0..30)
            .map(|row| {
                (0..11)
                    .map(|col| ((row * 7 + col * 3) as f32).sin())
                    .collect()
            })
            .collect();
        let mut sum = SecondMoments::new(11);
        inputs.iter().for_each(|input| sum.add(input));
        let diagonal: f64 = (0..11).map(|k| sum.rows[k][k]).sum();
        let expected = |i: usize, j: usize| {
            let product = inputs.iter().map(|x| f64::from(x[i]) * f64::from(x[j]));
            product.sum::<f64>()
                + if i == j {
                    DAMPING * diagonal / 11.0
                } else {
                    0.0
                }
        };
        let columns = sum.columns();
        let l = |i: usize, k: usize| match i.cmp(&k) {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => 1.0,
            std::cmp::Ordering::Greater => f64::from(columns[k][i - k - 1]),
        };
        // D follows from the diagonal, H_ii = Σ_k L_ik²·D_k; the rest must then be right.
        let mut d = [0.0; 11];
        for i in 0..11 {
            d[i] = expected(i, i) - (0..i).map(|k| l(i, k).powi(2) * d[k]).sum::<f64>();
        }
        for i in 0..11 {
            for j in 0..i {
                let actual: f64 = (0..=j).map(|k| l(i, k) * d[k] * l(j, k)).sum();
                assert!((actual - expected(i, j)).abs() < 1e-3, "{i} {j}: {actual}");
            }
        }
    }

    #[test]
    fn the_inverse_times_the_sum_is_one() {
        let inputs: Vec<f32> = (0..9 * 40).map(|idx| ((idx * 13) as f32).sin()).collect();
        let mut sum = SecondMoments::new(9);
        sum.add(&inputs);
        let at = |i: usize, j: usize| {
            let rows = inputs.chunks_exact(9);
            let sum: f64 = rows.map(|x| f64::from(x[i]) * f64::from(x[j])).sum();
            sum
        };
        let damping = 0.1 * (0..9).map(|k| at(k, k)).sum::<f64>() / 9.0;
        let inverse = sum.inverse(0.1);
        for (i, row) in inverse.iter().enumerate() {
            for j in 0..9 {
                let terms =
                    (0..9).map(|k| row[k] * (at(k, j) + if k == j { damping } else { 0.0 }));
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((terms.sum::<f64>() - expected).abs() < 1e-9, "{i} {j}");
            }
        }
    }

    #[test]
    fn inputs_belong_to_layers_by_name() {
        let mut sum = SecondMoments::new(2);
        sum.add(&[1.0, 2.0]);
        let moments = Moments {
            compensations: [((1, Input::Projection), sum.compensation())].into(),
        };
        assert!(
            moments
                .compensation("encoder.layer.1.attention.self.key.weight")
                .is_some()
        );
        for other in [
            "encoder.layer.0.attention.self.key.weight",
            "encoder.layer.1.output.dense.weight",
            "encoder.layer.1.attention.self.key.bias",
            "embeddings.word_embeddings.weight",
        ] {
            assert!(moments.compensation(other).is_none(), "{other}");
        }
    }
}
