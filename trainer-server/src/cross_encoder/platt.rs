//! Platt scaling: a score made into a probability by `σ(a·x + b)`, fitted by Newton's method
//! (Platt 1999), so that baselines without probabilities have a log loss and a threshold too.

const NUM_ROUNDS: usize = 50;
/// Keeps the curvature above zero where a score separates the labels.
const RIDGE: f64 = 1e-4;

/// Slope and offset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Platt {
    slope: f64,
    offset: f64,
}

impl Platt {
    /// Fits scores to labels; without examples everything is even.
    pub(super) fn fit(examples: &[(f64, bool)]) -> Self {
        let mut fitted = Self {
            slope: 0.0,
            offset: 0.0,
        };
        for _ in 0..NUM_ROUNDS {
            let (mut g_a, mut g_b) = (RIDGE * fitted.slope, RIDGE * fitted.offset);
            let (mut h_aa, mut h_ab, mut h_bb) = (RIDGE, 0.0, RIDGE);
            for &(score, label) in examples {
                let p = fitted.probability(score);
                let error = p - f64::from(u8::from(label));
                g_a += error * score;
                g_b += error;
                let w = p * (1.0 - p);
                h_aa += w * score * score;
                h_ab += w * score;
                h_bb += w;
            }
            let determinant = h_aa * h_bb - h_ab * h_ab;
            fitted.slope -= (h_bb * g_a - h_ab * g_b) / determinant;
            fitted.offset -= (h_aa * g_b - h_ab * g_a) / determinant;
        }
        fitted
    }

    pub(super) fn probability(self, score: f64) -> f64 {
        1.0 / (1.0 + (-(self.slope * score + self.offset)).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fitted_curve_gives_the_shares_of_two_scores() {
        let at =
            |score: f64, num_positive: usize| (0..10).map(move |idx| (score, idx < num_positive));
        let examples: Vec<(f64, bool)> = at(0.0, 2).chain(at(3.0, 9)).collect();
        let fitted = Platt::fit(&examples);
        assert!((fitted.probability(0.0) - 0.2).abs() < 1e-3);
        assert!((fitted.probability(3.0) - 0.9).abs() < 1e-3);
        assert_eq!(Platt::fit(&[]).probability(5.0), 0.5);
    }
}
