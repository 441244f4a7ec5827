//! Which matrices may be rounded more coarsely: by what rounding each alone does to embeddings of texts.
//!
//! With a step of a share `s` of its deviation a matrix of `n` weights costs about `n·log₂(1/s)` bits and moves embeddings
//! by about `a·s²`. For so many bits in all the least movement is where `s² ∝ n/a` (bit allocation: Shoham & Gersho
//! 1988). `a` is measured matrix by matrix at the steps that an even file of the size would have, by the codes that the
//! matrix has then: rounding that makes up for itself does far less to embeddings than the nearest codes do, where it
//! can, and words of the catalogue have finer steps than others anyway.

use std::collections::BTreeMap;

use burn::tensor::Device;
use shared_model::text::packed::{POSITIONS, PackedTensor};
use shared_model::text::{BertConfig, NamedTensor, TextEncoder, TextError, TokenizedText};

use super::moments::Moments;
use super::{Steps, Weights};

/// Texts that are embedded for every matrix: a mean over them is steady.
const NUM_TEXTS: usize = 48;
/// Beyond these a single measurement is believed too much.
const FACTOR_MAX: f64 = 2.0;

/// Below it a movement is rounding of the cosines.
const MOVEMENT_MIN: f64 = 1e-9;

/// Multiples of the common share, by name of the matrix; 1 where there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Factors(BTreeMap<String, f32>);

impl Factors {
    pub(super) fn of(&self, name: &str) -> f32 {
        self.0.get(name).copied().unwrap_or(1.0)
    }

    /// Measured on some of these texts, each matrix with the codes that it has at `steps`. Positions are left out: they
    /// are few, and always fine.
    ///
    /// # Errors
    /// The encoder is not sound.
    pub(super) fn measured(
        config: &BertConfig,
        weights: &Weights,
        moments: &Moments,
        texts: &[TokenizedText],
        steps: &Steps,
    ) -> Result<Self, TextError> {
        let stride = texts.len().div_ceil(NUM_TEXTS).max(1);
        let texts: Vec<TokenizedText> = texts.iter().step_by(stride).cloned().collect();
        let embed = |tensors: Vec<NamedTensor>| {
            TextEncoder::from_named(config.clone(), tensors, &Device::flex())?.encode(&texts)
        };
        let tensors = weights.to_named(config);
        let exact = embed(tensors.clone())?;
        let mut measured = Vec::new();
        for (place, (name, kind)) in weights.layout.iter().enumerate() {
            if name == POSITIONS {
                continue;
            }
            let PackedTensor::Matrix(matrix) = weights.rounded_one(name, *kind, moments, steps)
            else {
                continue;
            };
            let mut rounded = tensors.clone();
            rounded[place].values = matrix.values();
            let movement = movement(&exact, &embed(rounded)?, config.hidden_size);
            measured.push((name.clone(), matrix.codes.len(), movement));
        }
        Ok(Self::allotted(&measured))
    }

    /// From names, weights and movements: `√(n/a)`, with a mean of logarithms of 0 over all weights.
    fn allotted(measured: &[(String, usize, f64)]) -> Self {
        let logs = measured.iter().map(|(_, num_weights, movement)| {
            let ratio = *num_weights as f64 / movement.max(MOVEMENT_MIN); // far below 2^52
            0.5 * ratio.ln()
        });
        let logs: Vec<f64> = logs.collect();
        let total: f64 = measured.iter().map(|(_, num, _)| *num as f64).sum();
        let weighted = measured.iter().zip(&logs);
        let mean: f64 = weighted
            .map(|((_, num, _), log)| *num as f64 * log)
            .sum::<f64>()
            / total;
        let bound = FACTOR_MAX.ln();
        let factors = measured.iter().zip(logs).map(|((name, ..), log)| {
            let factor = (log - mean).clamp(-bound, bound).exp() as f32; // between a half and two
            (name.clone(), factor)
        });
        Self(factors.collect())
    }
}

/// Mean of 1 − cosine.
///
/// # Shapes
/// Both `[texts, dim]` of unit rows, row-major.
fn movement(exact: &[f32], rounded: &[f32], dim: usize) -> f64 {
    let pairs = exact.chunks_exact(dim).zip(rounded.chunks_exact(dim));
    let num_texts = pairs.len().max(1) as f64; // some dozen
    let moved = pairs.map(|(a, b)| {
        let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        1.0 - f64::from(cosine)
    });
    moved.sum::<f64>() / num_texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_embeddings_most_for_its_weights_has_the_finest_steps() {
        let row = |name: &str, num: usize, movement: f64| (name.to_owned(), num, movement);
        let even = Factors::allotted(&[row("a", 100, 0.01), row("b", 300, 0.03)]);
        assert!((even.of("a") - 1.0).abs() < 1e-6 && (even.of("b") - 1.0).abs() < 1e-6);
        let uneven = Factors::allotted(&[row("a", 100, 0.02), row("b", 100, 0.01)]);
        let ratio = uneven.of("b") / uneven.of("a");
        assert!((ratio - 2.0_f32.sqrt()).abs() < 1e-5, "{uneven:?}");
        // Bits in all stay: factors of equally many weights multiply to 1.
        assert!((uneven.of("a") * uneven.of("b") - 1.0).abs() < 1e-5);
        assert_eq!(uneven.of("c"), 1.0);
        let without = Factors::allotted(&[row("a", 100, 0.0), row("b", 100, 0.01)]);
        assert_eq!((without.of("a"), without.of("b")), (2.0, 0.5));
    }
}
