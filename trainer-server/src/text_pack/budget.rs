//! How coarse the steps are for a file of a given size.
//!
//! Every matrix has a step that is the same share of its deviation: at equal steps the codes of trained weights cost
//! the fewest bits for their error. Or a multiple of that share, where it is known what rounding a matrix does to
//! embeddings (`sensitivity`). Words that the catalogue does not use get steps that are coarser still.
//! What codes will cost is told by their entropy, which the range coder reaches within a percent.

use shared_model::text::packed::{CODE_MAX, POSITIONS, TensorKind, WORDS};

use super::Weights;
use super::rounding::{NEAREST, code_of};
use super::sensitivity::Factors;

/// Steps of unused words beside those of used ones: a query may still hold such a word, an item has none.
const UNUSED_WORDS: f32 = 3.0;
/// Positions are never coarser: every token has one, and there are few.
const POSITIONS_MAX: f32 = 0.1;
/// At this share hardly a code is cut off: 127 of them reach ten deviations.
const SHARE_MIN: f32 = 0.08;
/// Beyond it most codes are 0 and nothing is left of the network.
const SHARE_MAX: f32 = 2.0;
const NUM_BISECTIONS: usize = 12;
/// Compensation makes codes a little less even, and sections begin with nothing learned.
const ENTROPY_EXCESS: f64 = 1.015;
/// Share of a tokenizer's bytes that is left of it when it is deflated, generously.
const DEFLATED_SHARE: f64 = 0.4;
/// From one try to the next where an estimate was too low.
const COARSER: f32 = 1.03;

/// Steps as a share of each matrix's deviation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Steps {
    share: f32,
    factors: Factors,
    /// Share of a step below which a weight becomes 0.
    pub(super) zero: f32,
}

impl Steps {
    /// The same share of every matrix's deviation.
    pub(crate) fn of_share(share: f32) -> Self {
        Self {
            share,
            factors: Factors::default(),
            zero: NEAREST,
        }
    }

    /// By these factors beside each other, and with more zeros.
    pub(super) fn with(self, factors: Factors, zero: f32) -> Self {
        Self {
            factors,
            zero,
            ..self
        }
    }

    /// The finest steps of this kind that are expected to fit.
    pub(super) fn for_budget(
        &self,
        weights: &Weights,
        tokenizer_bytes: usize,
        bytes_max: usize,
    ) -> Self {
        let fixed_bytes = DEFLATED_SHARE * tokenizer_bytes as f64; // far below 2^52
        let of_share = |share: f32| Self {
            share,
            ..self.clone()
        };
        let fits = |share: f32| {
            let steps = of_share(share);
            fixed_bytes + ENTROPY_EXCESS * weights.estimated_bytes(&steps) <= bytes_max as f64
        };
        let (mut fine, mut coarse) = (SHARE_MIN, SHARE_MAX);
        if fits(fine) {
            return of_share(fine);
        }
        for _ in 0..NUM_BISECTIONS {
            let middle = (fine * coarse).sqrt();
            if fits(middle) {
                coarse = middle;
            } else {
                fine = middle;
            }
        }
        of_share(coarse)
    }

    /// A little coarser; nothing where that would leave nothing.
    pub(super) fn coarser(mut self) -> Option<Self> {
        self.share *= COARSER;
        (self.share <= SHARE_MAX).then_some(self)
    }

    /// The common share.
    pub(super) fn share(&self) -> f32 {
        self.share
    }

    /// Share of the deviation of the weights of one matrix.
    fn share_of(&self, name: &str) -> f32 {
        (self.share * self.factors.of(name)).max(SHARE_MIN)
    }

    /// The step of a matrix with one step.
    pub(crate) fn of_matrix(&self, name: &str, values: &[f32]) -> f32 {
        let share = if name == POSITIONS {
            self.share.min(POSITIONS_MAX)
        } else {
            self.share_of(name)
        };
        share * deviation(values)
    }

    /// The steps of used and of unused words.
    pub(crate) fn of_words(&self, values: &[f32]) -> [f32; 2] {
        let fine = self.share_of(WORDS) * deviation(values);
        [fine, UNUSED_WORDS * fine]
    }
}

impl Weights {
    /// Bytes of all weights by the entropy of their nearest codes.
    fn estimated_bytes(&self, steps: &Steps) -> f64 {
        let bytes = self.layout.iter().map(|(name, kind)| {
            let values = &self.values[name];
            match *kind {
                TensorKind::Vector { len } => 2.0 * len as f64, // far below 2^52
                TensorKind::Matrix { num_cols, .. } if name == WORDS => {
                    let rows = || values.chunks_exact(num_cols).zip(&self.is_used);
                    let of = |wanted: bool| {
                        rows()
                            .filter(move |(_, used)| **used == wanted)
                            .flat_map(|(row, _)| row)
                    };
                    let [fine, coarse] = steps.of_words(values);
                    entropy_bytes(of(true), fine, steps.zero)
                        + entropy_bytes(of(false), coarse, steps.zero)
                }
                TensorKind::Matrix { .. } => {
                    entropy_bytes(values.iter(), steps.of_matrix(name, values), steps.zero)
                }
            }
        });
        bytes.sum()
    }
}

fn entropy_bytes<'a>(values: impl Iterator<Item = &'a f32>, step: f32, zero: f32) -> f64 {
    let mut counts = [0_u64; 2 * CODE_MAX as usize + 1];
    for value in values {
        let code = i16::from(code_of(*value, step, zero)) + i16::from(CODE_MAX);
        counts[usize::try_from(code).expect("codes are within ±CODE_MAX")] += 1;
    }
    let total = counts.iter().sum::<u64>() as f64; // far below 2^52
    let bits = |count: u64| -(count as f64) * (count as f64 / total).log2();
    counts
        .into_iter()
        .filter(|count| *count > 0)
        .map(bits)
        .sum::<f64>()
        / 8.0
}

/// Root mean square; 1 for zeros, whose codes are 0 at any step.
fn deviation(values: &[f32]) -> f32 {
    let squares: f64 = values.iter().map(|value| f64::from(value * value)).sum();
    let deviation = (squares / values.len() as f64).sqrt() as f32; // of f32 values
    if deviation > 0.0 { deviation } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_codes_cost_their_logarithm() {
        let values: Vec<f32> = (0..800).map(|idx| (idx % 8) as f32).collect();
        assert!((entropy_bytes(values.iter(), 1.0, NEAREST) - 300.0).abs() < 1e-9);
        assert_eq!(entropy_bytes([0.0; 5].iter(), 1.0, NEAREST), 0.0);
    }
}
