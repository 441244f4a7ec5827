//! Which columns move together: the linear prediction of a column from those before it.
//!
//! `A = Σ x xᵀ` over rows `x` of equal length, starting from a sample of the base's rows, to which each coded row of
//! differences is added. With `A = L D Lᵀ` (`L` unit lower triangular; Golub and Van Loan, "Matrix Computations" § 4.1)
//! the deviations `e = L⁻¹ x` do not hang together, so `x[j]` is predicted as `Σ_{k<j} L[j,k] e[k]`, and `√D[j]` is how
//! far it deviates. Factored anew each time the sum has grown by a quarter.
//!
//! Fixed point throughout; every bound holds for any codes, so bytes that no encoder wrote predict badly, not wildly.

use crate::codec::state::CodeTensor;

/// Length of the rows summed.
const ROW_LENGTH: i32 = 1 << 10;

/// Most rows of the base that are summed, evenly spread.
const BASE_ROWS_MAX: usize = 1024;

/// For how many rows of differences those of the base count.
const BASE_WEIGHT: usize = 128;

/// Rows without any direction that are summed too, so that few rows do not predict too much.
const PLAIN_WEIGHT: usize = 2;

/// The sum is halved when it holds so many rows: [`ROW_LENGTH`]² times this is 2^30.
const WEIGHT_MAX: usize = 1024;

/// Rows after which it is factored anew, at most.
const REFRESH_ROWS_MAX: usize = 128;

/// Bits after the point of the factors.
const FACTOR_BITS: u32 = 12;

/// Largest prediction, in 1/32 of a code: a little more than the largest difference.
const PREDICTION_MAX: i32 = 1 << 13;

#[derive(Debug)]
pub(super) struct Covariance {
    num_cols: usize,
    /// `[num_cols, num_cols]`, lower triangle.
    sum: Vec<i32>,
    /// Rows summed.
    weight: usize,
    num_rows_until_refresh: usize,
    /// `[num_cols, num_cols]`, strictly lower triangle of `L`, in 2^−12.
    factors: Vec<i16>,
    /// `[num_cols]`: expected deviation over the mean of all columns, and the reverse; in 2^−8.
    shares: Vec<(u32, u32)>,
}

impl Covariance {
    /// That of a sample of the rows of `base`.
    pub(super) fn of_rows(base: &CodeTensor) -> Self {
        let num_cols = base.num_cols;
        let mut covariance = Self {
            num_cols,
            sum: vec![0; num_cols * num_cols],
            weight: 0,
            num_rows_until_refresh: 0,
            factors: vec![0; num_cols * num_cols],
            shares: vec![(1 << 8, 1 << 8); num_cols],
        };
        let stride = base.num_rows.div_ceil(BASE_ROWS_MAX).max(1);
        for row_idx in (0..base.num_rows).step_by(stride) {
            covariance.add(base.row(row_idx));
        }
        covariance.lighten();
        covariance
    }

    /// Brings base rows down to their weight.
    fn lighten(&mut self) {
        let (num_rows, weight) = (self.weight.max(1), self.weight.min(BASE_WEIGHT));
        for sum in &mut self.sum {
            *sum = (i64::from(*sum) * weight as i64 / num_rows as i64) as i32; // no larger than before
        }
        self.weight = weight + PLAIN_WEIGHT;
        let plain = PLAIN_WEIGHT as i32 * ROW_LENGTH * ROW_LENGTH / self.num_cols as i32; // a row is not empty
        for col_idx in 0..self.num_cols {
            self.sum[col_idx * self.num_cols + col_idx] += plain;
        }
    }

    /// Learns a row of differences.
    pub(super) fn see(&mut self, differences: &[i16]) {
        self.add(differences);
        self.num_rows_until_refresh = self.num_rows_until_refresh.saturating_sub(1);
        if self.weight >= WEIGHT_MAX {
            self.weight /= 2;
            self.sum.iter_mut().for_each(|sum| *sum /= 2);
        }
    }

    /// Adds a row, scaled to [`ROW_LENGTH`]; a row of zeros has no direction.
    fn add(&mut self, row: &[i16]) {
        let square: u32 = row.iter().map(|x| u32::from(x.unsigned_abs()).pow(2)).sum(); // at most 128 · 2^16
        if square == 0 {
            return;
        }
        let length = (square << 8).isqrt() as i32; // in 1/16; at most 2^16
        let mut scaled = [0_i16; super::COLS_MAX];
        for (scaled, x) in scaled.iter_mut().zip(row) {
            *scaled = ((i32::from(*x) << 14) / length) as i16; // at most ROW_LENGTH
        }
        for (row_idx, sums) in self.sum.chunks_exact_mut(self.num_cols).enumerate() {
            let factor = i32::from(scaled[row_idx]);
            for (sum, x) in sums[..=row_idx].iter_mut().zip(&scaled) {
                *sum += factor * i32::from(*x);
            }
        }
        self.weight += 1;
    }

    /// Factors anew where that is due.
    pub(super) fn refresh(&mut self) {
        if self.num_rows_until_refresh > 0 {
            return;
        }
        self.num_rows_until_refresh = (self.weight / 4).clamp(1, REFRESH_ROWS_MAX);
        let deviations = self.factor();
        let mean = (deviations.iter().sum::<u32>() / self.num_cols as u32).max(1); // at most 128
        for (share, deviation) in self.shares.iter_mut().zip(deviations) {
            let of_256 = ((deviation << 8) / mean).clamp(16, 4096); // deviations are below 2^16
            *share = (of_256, (1 << 16) / of_256);
        }
    }

    /// Fills in `factors`, column by column, and returns `√D`, `[num_cols]`.
    fn factor(&mut self) -> Vec<u32> {
        let num_cols = self.num_cols;
        let floor = (1_i64 << 20) / num_cols as i64; // a thousandth of the mean of D
        // `D` times the factors, in the unit of a mean row of squared length 2^30.
        let mut products = vec![0_i64; num_cols * num_cols];
        let mut deviations = Vec::with_capacity(num_cols);
        for col_idx in 0..num_cols {
            let above = &products[col_idx * num_cols..col_idx * num_cols + col_idx].to_vec();
            let mut inverse = 0;
            for row_idx in col_idx..num_cols {
                let first = row_idx * num_cols;
                let explained: i64 = self.factors[first..first + col_idx]
                    .iter()
                    .zip(above)
                    .map(|(factor, product)| i64::from(*factor) * product)
                    .sum(); // at most 128 · 2^15 · 2^31
                let whole = (i64::from(self.sum[first + col_idx]) << 10) / self.weight as i64;
                let rest = (whole - (explained >> FACTOR_BITS)).clamp(-(1 << 31), 1 << 31);
                if row_idx == col_idx {
                    inverse = rest.max(floor);
                    deviations.push((inverse as u32).isqrt()); // at most 2^31
                } else {
                    products[first + col_idx] = rest;
                    let factor = (rest << FACTOR_BITS) / inverse;
                    self.factors[first + col_idx] = factor.clamp(-32_767, 32_767) as i16; // fits
                }
            }
        }
        deviations
    }

    /// Expected difference in a column, in 1/32 of a code, from the deviations in the columns before, in the same unit.
    pub(super) fn predict(&self, col_idx: usize, deviations: &[i16]) -> i32 {
        let factors = &self.factors[col_idx * self.num_cols..][..col_idx];
        let mut sum = 0_i32;
        for (factor, deviation) in factors.iter().zip(deviations) {
            // An overflow would need deviations that no prediction explains; both sides wrap alike.
            sum = sum.wrapping_add(i32::from(*factor) * i32::from(*deviation));
        }
        (sum >> FACTOR_BITS).clamp(-PREDICTION_MAX, PREDICTION_MAX)
    }

    /// How far a column deviates over the mean of all, in 2^−8.
    pub(super) fn share(&self, col_idx: usize) -> u32 {
        self.shares[col_idx].0
    }

    /// `2^16 / share`.
    pub(super) fn inverse_share(&self, col_idx: usize) -> u32 {
        self.shares[col_idx].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(rows: &[[i16; 9]]) -> CodeTensor {
        CodeTensor {
            num_rows: rows.len(),
            num_cols: 9,
            code_bits: 8,
            exponents: vec![0; rows.len()],
            codes: rows.concat(),
        }
    }

    #[test]
    fn predicts_a_column_that_always_follows_another() {
        let rows: Vec<[i16; 9]> = (0..200)
            .map(|row_idx| {
                let x = (row_idx * 37 % 101) - 50;
                [x, (row_idx * 53 % 97) - 48, x / 2, 0, 0, 0, 0, 0, 1]
            })
            .collect();
        let mut covariance = Covariance::of_rows(&tensor(&rows));
        covariance.refresh();
        assert_eq!(covariance.predict(0, &[]), 0, "nothing comes before");
        let follower = covariance.predict(2, &[32 * 40, 0]);
        assert!(
            (32 * 18..=32 * 22).contains(&follower),
            "half of 40 is expected, not {follower}/32"
        );
        assert!(covariance.share(2) < covariance.share(1) / 3);
    }

    #[test]
    fn rows_of_differences_outweigh_the_base_in_time() {
        let mut covariance = Covariance::of_rows(&tensor(&[[9, 9, 0, 0, 0, 0, 0, 0, 0]; 300]));
        for _ in 0..3_000 {
            covariance.see(&[9, -9, 0, 0, 0, 0, 0, 0, 0]);
        }
        covariance.refresh();
        assert!(covariance.predict(1, &[320]) < -250);
    }

    #[test]
    fn extreme_rows_keep_every_bound() {
        for rows in [
            vec![],
            vec![[0; 9]; 5],
            vec![[127; 9]; 5_000],
            vec![[-127, 127, -127, 127, -127, 127, -127, 127, -127]; 3],
        ] {
            let mut covariance = Covariance::of_rows(&tensor(&rows));
            for step in 0..3_000 {
                covariance.refresh();
                covariance.see(&[254, -254, 1, 0, (step % 254) as i16, 0, 254, 254, -1]);
            }
            covariance.refresh();
            for col_idx in 0..9 {
                let predicted = covariance.predict(col_idx, &[i16::MAX; 9]);
                assert!(predicted.abs() <= PREDICTION_MAX);
                assert!((16..=4096).contains(&covariance.share(col_idx)));
            }
        }
    }
}
