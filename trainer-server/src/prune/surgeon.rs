//! Inputs of one linear layer left out group by group, while the weights that stay make up for them.
//!
//! With weights `W`, inputs `x` and `H = Σ x·xᵀ`, leaving the inputs `S` out costs at least
//! `tr(W_S·([H⁻¹]_SS)⁻¹·W_Sᵀ)` of squared error in the outputs, and costs no more where the other weights move by
//! `−W_S·([H⁻¹]_SS)⁻¹·[H⁻¹]_S:` (OBS, Hassibi & Stork 1993; for groups ZipLM, Kurtic et al. 2023). `H⁻¹` loses `S` by
//! the same elimination, so that the next group is judged by what is left. An input that is always 1 is never left
//! out: its weight is the bias.

use std::ops::Range;

use crate::text_pack::moments::cholesky;

/// A layer under the knife.
pub(super) struct Surgeon {
    /// `[inputs, outputs]`.
    weights: Vec<Vec<f64>>,
    /// `H⁻¹`, `[inputs, inputs]`.
    inverse: Vec<Vec<f64>>,
    /// Inputs of a group, which follow one another.
    group_len: usize,
    is_left: Vec<bool>,
    /// Groups that are still there, ascending.
    groups: Vec<usize>,
}

impl Surgeon {
    /// # Shapes
    /// `weights`: `[inputs, outputs]`, `inverse`: `[inputs, inputs]`; inputs behind the `num_groups · group_len` first
    /// ones stay.
    pub(super) fn new(
        weights: Vec<Vec<f64>>,
        inverse: Vec<Vec<f64>>,
        group_len: usize,
        num_groups: usize,
    ) -> Self {
        Self {
            is_left: vec![true; weights.len()],
            weights,
            inverse,
            group_len,
            groups: (0..num_groups).collect(),
        }
    }

    /// Leaves the cheapest groups out, until `num` are left.
    pub(super) fn keep(&mut self, num: usize) {
        while self.groups.len() > num {
            let mut cheapest = (f64::INFINITY, 0);
            for (place, group) in self.groups.iter().enumerate() {
                let cost = self.cost(*group);
                if cost < cheapest.0 {
                    cheapest = (cost, place);
                }
            }
            let group = self.groups.remove(cheapest.1);
            self.remove(group);
        }
    }

    /// Inputs that are left of the groups, ascending.
    pub(super) fn inputs(&self) -> Vec<usize> {
        let inputs = self.groups.iter().flat_map(|group| self.members(*group));
        inputs.collect()
    }

    /// Weights by input, `[inputs, outputs]`: zeros where one was left out.
    pub(super) fn weights(&self) -> &[Vec<f64>] {
        &self.weights
    }

    fn members(&self, group: usize) -> Range<usize> {
        group * self.group_len..(group + 1) * self.group_len
    }

    /// Squared error that leaving a group out adds at least.
    fn cost(&self, group: usize) -> f64 {
        let members = self.members(group);
        let factor = self.factor(members.clone());
        let mut solved: Vec<Vec<f64>> = self.weights[members].to_vec();
        solve_lower(&factor, &mut solved);
        solved.iter().flatten().map(|value| value * value).sum()
    }

    fn remove(&mut self, group: usize) {
        let members = self.members(group);
        let factor = self.factor(members.clone());
        let mut shares: Vec<Vec<f64>> = self.inverse[members.clone()].to_vec();
        solve_lower(&factor, &mut shares);
        solve_upper(&factor, &mut shares);
        let gone: Vec<Vec<f64>> = self.weights[members.clone()].to_vec();
        for input in members.clone() {
            self.is_left[input] = false;
            self.weights[input].fill(0.0);
        }
        for input in (0..self.is_left.len()).filter(|input| self.is_left[*input]) {
            let inverse = &mut self.inverse[input];
            let with_members = inverse[members.clone()].to_vec();
            for (place, shares) in shares.iter().enumerate() {
                subtract(&mut self.weights[input], shares[input], &gone[place]);
                subtract(inverse, with_members[place], shares);
            }
        }
    }

    /// `C`, lower triangular, with `C·Cᵀ = [H⁻¹]_SS`.
    fn factor(&self, members: Range<usize>) -> Vec<Vec<f64>> {
        let rows = self.inverse[members.clone()].iter();
        let mut factor: Vec<Vec<f64>> = rows.map(|row| row[members.clone()].to_vec()).collect();
        cholesky(&mut factor, f64::MIN_POSITIVE);
        factor
    }
}

/// `C⁻¹·rows`, in place.
fn solve_lower(factor: &[Vec<f64>], rows: &mut [Vec<f64>]) {
    for i in 0..rows.len() {
        let (done, rest) = rows.split_at_mut(i);
        for (j, done) in done.iter().enumerate() {
            subtract(&mut rest[0], factor[i][j], done);
        }
        rest[0].iter_mut().for_each(|value| *value /= factor[i][i]);
    }
}

/// `C⁻ᵀ·rows`, in place.
fn solve_upper(factor: &[Vec<f64>], rows: &mut [Vec<f64>]) {
    for i in (0..rows.len()).rev() {
        let (rest, done) = rows.split_at_mut(i + 1);
        for (j, done) in done.iter().enumerate() {
            subtract(&mut rest[i], factor[i + 1 + j][i], done);
        }
        rest[i].iter_mut().for_each(|value| *value /= factor[i][i]);
    }
}

fn subtract(row: &mut [f64], times: f64, other: &[f64]) {
    for (value, other) in row.iter_mut().zip(other) {
        *value -= times * other;
    }
}
