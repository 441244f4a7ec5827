//! Optimizers on host arrays: AdamW for dense tensors, a row-wise one for tables.
//!
//! On the host because only the rows of a batch have gradients, and because the state must be
//! written to a checkpoint bit by bit.
//!
//! AdamW (Loshchilov & Hutter 2019): `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`,
//! `θ ← θ − η(m̂ / (√v̂ + ε) + λθ)`.
//! The row-wise twin keeps one `v` per row (the mean of `g²` over the row) and moves touched rows only.

use serde::{Deserialize, Serialize};

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// State of one dense tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    first: Vec<f32>,
    second: Vec<f32>,
    num_steps: u32,
}

impl AdamW {
    /// For a tensor of `len` elements.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self {
            first: vec![0.0; len],
            second: vec![0.0; len],
            num_steps: 0,
        }
    }

    /// From what [`Self::moments`] and [`Self::num_steps`] gave; `None` where the moments differ in length.
    #[must_use]
    pub fn from_moments(first: Vec<f32>, second: Vec<f32>, num_steps: u32) -> Option<Self> {
        (first.len() == second.len()).then_some(Self {
            first,
            second,
            num_steps,
        })
    }

    /// First and second moment, one value per element.
    #[must_use]
    pub fn moments(&self) -> [&[f32]; 2] {
        [&self.first, &self.second]
    }

    /// Updates so far.
    #[must_use]
    pub fn num_steps(&self) -> u32 {
        self.num_steps
    }

    /// One update of `values` by `gradient`.
    pub fn step(
        &mut self,
        values: &mut [f32],
        gradient: &[f32],
        learning_rate: f32,
        weight_decay: f32,
    ) {
        self.num_steps += 1;
        let (first_correction, second_correction) = corrections(self.num_steps);
        for (idx, value) in values.iter_mut().enumerate() {
            let g = gradient[idx];
            self.first[idx] = BETA_1 * self.first[idx] + (1.0 - BETA_1) * g;
            self.second[idx] = BETA_2 * self.second[idx] + (1.0 - BETA_2) * g * g;
            let direction = (self.first[idx] / first_correction)
                / ((self.second[idx] / second_correction).sqrt() + EPSILON);
            *value -= learning_rate * (direction + weight_decay * *value);
        }
    }
}

/// State of one table: momentum per element, one second moment per row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowAdam {
    num_cols: usize,
    first: Vec<f32>,
    second: Vec<f32>,
    num_steps: Vec<u32>,
}

impl RowAdam {
    /// For a table with rows of `num_cols`.
    #[must_use]
    pub fn new(num_rows: usize, num_cols: usize) -> Self {
        let mut state = Self {
            num_cols,
            first: Vec::new(),
            second: Vec::new(),
            num_steps: Vec::new(),
        };
        state.grow(num_rows);
        state
    }

    /// Appends state for rows up to `num_rows`.
    pub fn grow(&mut self, num_rows: usize) {
        self.second.resize(num_rows, 0.0);
        self.num_steps.resize(num_rows, 0);
        self.first.resize(num_rows * self.num_cols, 0.0);
    }

    /// Moves one row of `table` by its gradient.
    pub fn step_row(
        &mut self,
        table: &mut [f32],
        row_idx: usize,
        gradient: &[f32],
        learning_rate: f32,
        weight_decay: f32,
    ) {
        let mean_square = gradient.iter().map(|g| g * g).sum::<f32>() / gradient.len() as f32;
        if mean_square == 0.0 {
            return;
        }
        self.num_steps[row_idx] += 1;
        let (first_correction, second_correction) = corrections(self.num_steps[row_idx]);
        self.second[row_idx] = BETA_2 * self.second[row_idx] + (1.0 - BETA_2) * mean_square;
        let scale = learning_rate / ((self.second[row_idx] / second_correction).sqrt() + EPSILON);
        let first_row = row_idx * self.num_cols;
        for (col_idx, g) in gradient.iter().enumerate() {
            let idx = first_row + col_idx;
            self.first[idx] = BETA_1 * self.first[idx] + (1.0 - BETA_1) * g;
            table[idx] -= scale * (self.first[idx] / first_correction)
                + learning_rate * weight_decay * table[idx];
        }
    }
}

/// Scales all gradients so that their global norm is at most `norm_max`; returns the norm before.
pub fn clip_global_norm(gradients: &mut [&mut [f32]], norm_max: f32) -> f32 {
    let squared: f64 = gradients
        .iter()
        .flat_map(|gradient| gradient.iter())
        .map(|g| f64::from(*g) * f64::from(*g))
        .sum();
    let norm = squared.sqrt() as f32; // a norm beyond f32 is infinite, and refused by the caller
    if norm > norm_max {
        for gradient in gradients {
            for g in gradient.iter_mut() {
                *g *= norm_max / norm;
            }
        }
    }
    norm
}

/// Bias corrections `1 − βᵗ` of both moments.
fn corrections(num_steps: u32) -> (f32, f32) {
    let power = num_steps.min(100_000) as i32; // beyond that both are 1
    (1.0 - BETA_1.powi(power), 1.0 - BETA_2.powi(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_adamw_step_moves_by_the_learning_rate() {
        let mut values = [1.0, -1.0];
        AdamW::new(2).step(&mut values, &[0.5, -20.0], 0.1, 0.0);
        assert!((values[0] - 0.9).abs() < 1e-4 && (values[1] + 0.9).abs() < 1e-4);
    }

    #[test]
    fn row_step_leaves_other_rows_alone() {
        let mut table = vec![1.0; 6];
        let mut optimizer = RowAdam::new(3, 2);
        optimizer.step_row(&mut table, 1, &[1.0, 1.0], 0.1, 0.0);
        assert_eq!(table[..2], [1.0, 1.0]);
        assert_eq!(table[4..], [1.0, 1.0]);
        assert!((table[2] - 0.9).abs() < 1e-4);
    }

    #[test]
    fn clipping_scales_to_the_global_norm() {
        let (mut a, mut b) = ([3.0], [4.0]);
        assert_eq!(clip_global_norm(&mut [&mut a, &mut b], 1.0), 5.0);
        assert!((a[0] - 0.6).abs() < 1e-6 && (b[0] - 0.8).abs() < 1e-6);
    }
}
