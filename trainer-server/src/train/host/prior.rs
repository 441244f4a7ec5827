//! The item prior inside the next-item loss: scores of candidates at a target's moment, and ∂ of its weights.
//!
//! `prior_c(t) = Σ_h w_h·x_tch`, with the features `x` that `full_batch` has read from the count history.

use super::vector::vectorized;
use crate::train::full_batch::PriorFeatures;

/// Features and weights of the item prior.
pub(super) struct Prior<'a> {
    features: &'a PriorFeatures,
    weights: &'a [f32],
    /// Values of one moment: candidates × half-lives.
    moment_len: usize,
    /// Whether any candidate had events before the moment, `[num_moments]`.
    is_counted: Vec<bool>,
}

impl<'a> Prior<'a> {
    pub(super) fn new(features: &'a PriorFeatures, weights: &'a [f32]) -> Self {
        let moment_len = features.of_candidates.len() / features.num_moments.max(1);
        let moments = features.of_candidates.chunks_exact(moment_len.max(1));
        Self {
            features,
            weights,
            moment_len,
            is_counted: moments
                .map(|moment| moment.iter().any(|feature| *feature != 0.0))
                .collect(),
        }
    }

    /// Features of the candidates at the moment of a target, where any is not 0.
    fn moment(&self, target_idx: usize) -> Option<&[f32]> {
        let moment = self.features.moments[target_idx] as usize; // never negative
        let first = moment * self.moment_len;
        self.is_counted[moment]
            .then(|| &self.features.of_candidates[first..first + self.moment_len])
    }

    fn of_target(&self, target_idx: usize) -> &[f32] {
        let num_half_lives = self.weights.len();
        &self.features.of_targets[target_idx * num_half_lives..(target_idx + 1) * num_half_lives]
    }

    /// Adds the prior of every candidate to its score.
    pub(super) fn add_scores(&self, target_idx: usize, scores: &mut [f32]) {
        let Some(moment) = self.moment(target_idx) else {
            return;
        };
        match self.weights {
            [a] => add_weighted(scores, moment, [*a]),
            [a, b] => add_weighted(scores, moment, [*a, *b]),
            [a, b, c] => add_weighted(scores, moment, [*a, *b, *c]),
            weights => {
                let rows = moment.chunks_exact(weights.len());
                for (score, features) in scores.iter_mut().zip(rows) {
                    *score += product(features, weights);
                }
            }
        }
    }

    /// Prior of the target at its moment.
    pub(super) fn target_score(&self, target_idx: usize) -> f32 {
        product(self.of_target(target_idx), self.weights)
    }

    /// Adds `factor·Σ_c e_c·x_c + at_target·x_target`.
    pub(super) fn add_gradient(
        &self,
        target_idx: usize,
        exponentials: &[f32],
        factor: f32,
        at_target: f32,
        gradient: &mut [f32],
    ) {
        for (sum, feature) in gradient.iter_mut().zip(self.of_target(target_idx)) {
            *sum += at_target * feature;
        }
        let Some(moment) = self.moment(target_idx) else {
            return;
        };
        let mut means = vec![0.0; gradient.len()];
        match means.as_mut_slice() {
            [a] => [*a] = weighted_sums(exponentials, moment),
            [a, b] => [*a, *b] = weighted_sums(exponentials, moment),
            [a, b, c] => [*a, *b, *c] = weighted_sums(exponentials, moment),
            means => {
                for (value, features) in exponentials.iter().zip(moment.chunks_exact(means.len())) {
                    for (mean, feature) in means.iter_mut().zip(features) {
                        *mean += value * feature;
                    }
                }
            }
        }
        for (sum, mean) in gradient.iter_mut().zip(means) {
            *sum += factor * mean;
        }
    }
}

fn product(features: &[f32], weights: &[f32]) -> f32 {
    features.iter().zip(weights).map(|(x, w)| x * w).sum()
}

/// `score_c += Σ_h w_h·x_ch`.
fn add_weighted<const H: usize>(scores: &mut [f32], features: &[f32], weights: [f32; H]) {
    vectorized!({
        let (features, _) = features.as_chunks::<H>();
        for (score, features) in scores.iter_mut().zip(features) {
            for h in 0..H {
                *score += features[h] * weights[h];
            }
        }
    });
}

/// `Σ_c e_c·x_ch` for every `h`, in 8 lanes.
fn weighted_sums<const H: usize>(values: &[f32], features: &[f32]) -> [f32; H] {
    const NUM_LANES: usize = 8;
    vectorized!({
        let mut lanes = [[0.0_f32; NUM_LANES]; H];
        let (features, _) = features.as_chunks::<H>();
        let (values, features) = (values.chunks(NUM_LANES), features.chunks(NUM_LANES));
        for (values, features) in values.zip(features) {
            for (lane, (value, features)) in values.iter().zip(features).enumerate() {
                for h in 0..H {
                    lanes[h][lane] += value * features[h];
                }
            }
        }
        lanes.map(|lanes| lanes.iter().sum())
    })
}
