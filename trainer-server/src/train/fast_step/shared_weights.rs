//! The few weights that all items share: of taste, of the item prior, of the gain by neighbours.
//!
//! ```text
//! s_pi = b_i + Σ_k θ_k·φ_pik      φ = (u_p·v_i, gain_pi, f_pi1 … f_piH)      loss_p = ln Σ_i e^{s_pi} − s_p,target
//! A ← e^{−n/N}·A + Σ_p weight_p Cov_softmax(φ_p)      θ ← θ − A⁻¹ Σ_p weight_p (E_softmax φ_p − φ_p,target)
//! ```
//! Online Newton steps (Hazan, Agarwal & Kale 2007) with a fading memory of `N` events, so that each weight finds a
//! step size of its own: a long one where events say much and little is known, a short one later.
//! The published version had not seen these events, so what it said of them tells how far each part of the score
//! can be trusted; a fit cannot, since it has seen all it is asked about.

use serde::{Deserialize, Serialize};
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::TASTE_WEIGHT;

use super::ScoredEvents;
use crate::train::losses::host_log_sum_exp;

/// Bounds of the weight of taste: no stream makes a page rank against it, or by it alone.
const TASTE_WEIGHT_MIN: f32 = 0.05;
const TASTE_WEIGHT_MAX: f32 = 5.0;
/// As how many events of the first batch the weights count that there were before it.
const NUM_EVENTS_BEFORE: f64 = 256.0;
/// Longest move of one weight in one step: a bound on what a burst can do.
const MOVE_MAX: f64 = 0.1;
/// Added to the diagonal of `A`, as a share of its mean, so that parts which never tell items apart stay solvable.
const RIDGE: f64 = 1e-6;

/// What is known about the shared weights: part of the checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SharedWeights {
    /// `A`, `[num_weights, num_weights]`; empty before the first step.
    information: Vec<f64>,
}

/// Which weights there are, in the order of `φ`.
#[derive(Debug, Clone, Copy)]
struct Parts {
    has_taste: bool,
    has_neighbours: bool,
    num_half_lives: usize,
}

/// `Σ weight·gradient` and `Σ weight·covariance` over the events of a batch.
struct Sums {
    gradient: Vec<f64>,
    covariance: Vec<f64>,
    num_events: f64,
}

impl SharedWeights {
    /// One step. Numbers that are not finite move nothing.
    pub(super) fn step(
        &mut self,
        parameters: &mut ParameterSet,
        events: &ScoredEvents,
        memory_events: f64,
    ) {
        let parts = Parts::of(parameters);
        let sums = parts.sums(events);
        let all = sums.gradient.iter().chain(&sums.covariance);
        if sums.num_events == 0.0 || !all.clone().all(|value| value.is_finite()) {
            return;
        }
        if self.information.len() != sums.covariance.len() {
            let scale = NUM_EVENTS_BEFORE / sums.num_events;
            self.information = sums.covariance.iter().map(|value| scale * value).collect();
        }
        let kept = (-sums.num_events / memory_events).exp();
        for (known, new) in self.information.iter_mut().zip(&sums.covariance) {
            *known = kept * *known + new;
        }
        if let Some(moves) = solve(&self.information, &sums.gradient) {
            parts.apply(parameters, &moves);
        }
    }
}

impl Parts {
    fn of(parameters: &ParameterSet) -> Self {
        let spec = &parameters.spec;
        Self {
            has_taste: spec.has_taste_weight,
            has_neighbours: spec.num_neighbours > 0,
            num_half_lives: spec.half_lives_secs.len(),
        }
    }

    fn num_weights(self) -> usize {
        usize::from(self.has_taste) + usize::from(self.has_neighbours) + self.num_half_lives
    }

    /// Subtracts the moves, each cut to its bound.
    fn apply(self, parameters: &mut ParameterSet, moves: &[f64]) {
        let mut moves = moves
            .iter()
            .map(|value| value.clamp(-MOVE_MAX, MOVE_MAX) as f32);
        let mut descend = |weights: &mut [f32]| {
            for (weight, step) in weights.iter_mut().zip(&mut moves) {
                *weight -= step;
            }
        };
        if self.has_taste {
            let weight = parameters.tensor_mut(TASTE_WEIGHT);
            descend(weight);
            weight[0] = weight[0].clamp(TASTE_WEIGHT_MIN, TASTE_WEIGHT_MAX);
        }
        if self.has_neighbours {
            descend(parameters.tensor_mut("neighbour.weight"));
        }
        descend(parameters.tensor_mut("prior.weights"));
    }

    fn sums(self, events: &ScoredEvents) -> Sums {
        let num_weights = self.num_weights();
        let mut sums = Sums {
            gradient: vec![0.0; num_weights],
            covariance: vec![0.0; num_weights * num_weights],
            num_events: events.weights.iter().map(|weight| f64::from(*weight)).sum(),
        };
        let mut features = vec![0.0; events.num_items * num_weights];
        for event_idx in 0..events.targets.len() {
            self.write_features(events, event_idx, &mut features);
            sums.add(events, event_idx, &features);
        }
        sums
    }

    /// `φ_p` of every item, `[num_items, num_weights]`.
    fn write_features(self, events: &ScoredEvents, event_idx: usize, features: &mut [f32]) {
        let (num_weights, num_items) = (self.num_weights(), events.num_items);
        let first_prior = num_weights - self.num_half_lives;
        let counted = &events.prior_features[events.moments[event_idx] as usize];
        let rows = features.chunks_exact_mut(num_weights);
        for (row, counted) in rows.zip(counted.chunks_exact(self.num_half_lives)) {
            row[..first_prior].fill(0.0);
            row[first_prior..].copy_from_slice(counted);
        }
        if self.has_taste {
            let tastes = &events.tastes[event_idx * num_items..][..num_items];
            for (row, taste) in features.chunks_exact_mut(num_weights).zip(tastes) {
                row[0] = *taste;
            }
        }
        if self.has_neighbours {
            for (item_idx, gain) in &events.neighbour_gains[event_idx] {
                features[*item_idx as usize * num_weights + first_prior - 1] = *gain;
            }
        }
    }
}

impl Sums {
    /// Adds one event, whose items have these features.
    fn add(&mut self, events: &ScoredEvents, event_idx: usize, features: &[f32]) {
        let num_weights = self.gradient.len();
        let scores = &events.scores[event_idx * events.num_items..][..events.num_items];
        let normalizer = host_log_sum_exp(scores);
        let mut mean = vec![0.0_f64; num_weights];
        let mut second = vec![0.0_f64; num_weights * num_weights];
        for (score, row) in scores.iter().zip(features.chunks_exact(num_weights)) {
            let share = f64::from((score - normalizer).exp());
            for (k, value) in row.iter().enumerate() {
                let weighted = share * f64::from(*value);
                mean[k] += weighted;
                for (l, other) in row[..=k].iter().enumerate() {
                    second[k * num_weights + l] += weighted * f64::from(*other);
                }
            }
        }
        let weight = f64::from(events.weights[event_idx]);
        let target = events.targets[event_idx] as usize;
        let target = &features[target * num_weights..][..num_weights];
        for k in 0..num_weights {
            self.gradient[k] += weight * (mean[k] - f64::from(target[k]));
            for l in 0..num_weights {
                let product = second[k.max(l) * num_weights + k.min(l)];
                self.covariance[k * num_weights + l] += weight * (product - mean[k] * mean[l]);
            }
        }
    }
}

/// `A⁻¹·b` by Cholesky's decomposition; `None` where `A` has no room for it.
fn solve(matrix: &[f64], right: &[f64]) -> Option<Vec<f64>> {
    let len = right.len();
    let trace: f64 = (0..len).map(|k| matrix[k * len + k]).sum();
    let ridge = RIDGE * trace / len as f64;
    let mut lower = vec![0.0_f64; len * len];
    for row in 0..len {
        for col in 0..=row {
            let known: f64 = (0..col)
                .map(|k| lower[row * len + k] * lower[col * len + k])
                .sum();
            let rest = matrix[row * len + col] - known;
            lower[row * len + col] = if row == col {
                let pivot = rest + ridge;
                if pivot.is_nan() || pivot <= 0.0 {
                    return None;
                }
                pivot.sqrt()
            } else {
                rest / lower[col * len + col]
            };
        }
    }
    let mut values = right.to_vec();
    for row in 0..len {
        let known: f64 = (0..row).map(|k| lower[row * len + k] * values[k]).sum();
        values[row] = (values[row] - known) / lower[row * len + row];
    }
    for row in (0..len).rev() {
        let known: f64 = (row + 1..len)
            .map(|k| lower[k * len + row] * values[k])
            .sum();
        values[row] = (values[row] - known) / lower[row * len + row];
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{step as fast_step, tiny};
    use super::*;
    use crate::train::init::init_parameters;

    fn with_taste() -> (ParameterSet, ScoredEvents) {
        let (parameters, mut events) = tiny();
        let mut spec = parameters.spec;
        spec.has_taste_weight = true;
        let mut parameters = init_parameters(&spec, 5, 1);
        parameters.tensor_mut("item.id_rows").fill(0.1);
        events.tastes = (0..10).map(|idx| (idx as f32 * 1.7).sin() * 2.0).collect();
        events.prior_features = vec![(0..5).map(|idx| (idx as f32).cos() + 1.0).collect()];
        (parameters, events)
    }

    /// Sum of the events' losses where their scores are `Σ_k θ_k·φ_k`.
    fn loss(parts: Parts, events: &mut ScoredEvents, theta: &[f64]) -> f64 {
        let num_weights = theta.len();
        let mut features = vec![0.0; events.num_items * num_weights];
        let mut sum = 0.0;
        for event_idx in 0..events.targets.len() {
            parts.write_features(events, event_idx, &mut features);
            let rows = features.chunks_exact(num_weights);
            let score = |row: &[f32]| -> f32 {
                let terms = row.iter().zip(theta);
                terms
                    .map(|(value, theta)| f64::from(*value) * theta)
                    .sum::<f64>() as f32
            };
            let scores: Vec<f32> = rows.map(score).collect();
            let target = events.targets[event_idx] as usize;
            let weight = f64::from(events.weights[event_idx]);
            sum += weight * f64::from(host_log_sum_exp(&scores) - scores[target]);
            events.scores[event_idx * events.num_items..][..events.num_items]
                .copy_from_slice(&scores);
        }
        sum
    }

    #[test]
    fn gradient_and_covariance_are_the_derivatives_of_the_loss() {
        let (parameters, mut events) = with_taste();
        events.weights = vec![1.0, 0.5];
        let parts = Parts::of(&parameters);
        let theta = [0.8, 0.3, -0.4];
        let moved = |k: usize, by: f64| {
            let mut theta = theta;
            theta[k] += by;
            theta
        };
        for k in 0..3 {
            let up = loss(parts, &mut events, &moved(k, 0.01));
            let gradient_up = parts.sums(&events).gradient;
            let down = loss(parts, &mut events, &moved(k, -0.01));
            let gradient_down = parts.sums(&events).gradient;
            loss(parts, &mut events, &theta);
            let sums = parts.sums(&events);
            assert!((sums.gradient[k] - (up - down) / 0.02).abs() < 1e-3);
            for l in 0..3 {
                let expected = (gradient_up[l] - gradient_down[l]) / 0.02;
                assert!((sums.covariance[l * 3 + k] - expected).abs() < 1e-3);
            }
        }
    }

    #[test]
    fn taste_that_misleads_loses_weight_down_to_its_bound_and_taste_that_tells_gains() {
        for (taste_of_target, rises) in [(-2.0, false), (2.0, true)] {
            let (mut parameters, mut events) = with_taste();
            events.tastes = vec![0.0; 10];
            (events.tastes[3], events.tastes[8]) = (taste_of_target, taste_of_target);
            for _ in 0..200 {
                fast_step(&mut parameters, &events).expect("finite");
            }
            let weight = parameters.taste_weight();
            if rises {
                assert!(weight > 1.05, "{weight}");
            } else {
                assert!((TASTE_WEIGHT_MIN..0.95).contains(&weight), "{weight}");
            }
        }
    }

    #[test]
    fn neighbours_that_were_taken_gain_weight_and_wrong_ones_lose() {
        for (target, rises) in [(3, true), (0, false)] {
            let (mut parameters, mut events) = with_taste();
            events.targets = vec![target; 2];
            let before = parameters.neighbour_weight();
            fast_step(&mut parameters, &events).expect("finite");
            assert_eq!(parameters.neighbour_weight() > before, rises);
        }
    }

    #[test]
    fn steps_get_shorter_as_more_is_known_and_none_is_longer_than_its_bound() {
        let (parameters, events) = with_taste();
        let moved = |shared: &mut SharedWeights, events: &ScoredEvents| {
            let mut stepped = parameters.clone();
            shared.step(&mut stepped, events, 1e9);
            (stepped.tensor("prior.weights")[0] - parameters.tensor("prior.weights")[0]).abs()
        };
        let mut shared = SharedWeights::default();
        let first = moved(&mut shared, &events);
        for _ in 0..500 {
            moved(&mut shared, &events);
        }
        let last = moved(&mut shared, &events);
        assert!(last < 0.5 * first, "{first}, {last}");
        let mut burst = events.clone();
        burst.weights = vec![1e6; 2];
        assert!(moved(&mut shared, &burst) <= MOVE_MAX as f32 * 1.001);
    }

    #[test]
    fn solving_gives_back_the_right_side() {
        let matrix = [4.0, 1.0, 1.0, 3.0];
        let found = solve(&matrix, &[1.0, 2.0]).expect("positive definite");
        assert!((4.0 * found[0] + found[1] - 1.0).abs() < 1e-4);
        assert!((found[0] + 3.0 * found[1] - 2.0).abs() < 1e-4);
        assert_eq!(solve(&[0.0; 4], &[1.0, 2.0]), None);
    }
}
