//! First weights of a Ranker, drawn from a seed.
//!
//! Id rows, biases and prior weights start at zero, so that an item without events is its text alone.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::model::parameters::ParameterSet;
use shared_model::model::prior::NEVER;
use shared_model::spec::{ModelSpec, TASTE_WEIGHT, TensorGroup};

/// Standard deviation of embeddings, as in BERT (Devlin et al. 2019).
const EMBEDDING_STD: f32 = 0.02;

/// First weight of the gain by neighbours; the fast steps find the right one.
const NEIGHBOUR_WEIGHT: f32 = 0.5;

/// Random slow weights, zero rows for `num_items` items. Same seed, same weights.
#[must_use]
pub fn init_parameters(spec: &ModelSpec, num_items: usize, seed: u64) -> ParameterSet {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut parameters = ParameterSet::zeros(spec, num_items);
    let shapes = parameters.shapes();
    for (shape, tensor) in shapes.iter().zip(&mut parameters.tensors) {
        let is_norm = shape.name.contains("norm");
        let is_bias = shape.name.ends_with("bias");
        let is_head = shape.name.starts_with("head.");
        if shape.name == "item.counts" {
            tensor.fill(NEVER);
        }
        if shape.name == TASTE_WEIGHT {
            tensor.fill(1.0);
        }
        if shape.name == "neighbour.weight" {
            tensor.fill(NEIGHBOUR_WEIGHT);
        }
        let is_silent = shape.name.starts_with("adapters.") && shape.name.ends_with("up"); // so that adapters begin as nothing
        if shape.group != TensorGroup::Slow || is_bias || is_head || is_silent {
            continue;
        }
        if is_norm {
            tensor[..shape.num_cols].fill(1.0); // row 0 is gamma, row 1 is beta
            continue;
        }
        let is_matrix = shape.name.starts_with("layers.")
            || shape.name.starts_with("adapters.")
            || shape.name.ends_with("projection");
        // Glorot & Bengio 2010 for matrices.
        let std = if is_matrix {
            (2.0 / (shape.num_rows + shape.num_cols) as f32).sqrt()
        } else {
            EMBEDDING_STD
        };
        for value in tensor.iter_mut() {
            *value = std * standard_normal(&mut rng);
        }
    }
    parameters
}

/// One draw by the Box–Muller transform.
pub(super) fn standard_normal(rng: &mut StdRng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_same_weights_and_id_rows_start_at_zero() {
        let spec = ModelSpec::default();
        let first = init_parameters(&spec, 3, 7);
        assert_eq!(first, init_parameters(&spec, 3, 7));
        assert_ne!(first, init_parameters(&spec, 3, 8));
        assert!(
            first
                .tensor("item.id_rows")
                .iter()
                .all(|value| *value == 0.0)
        );
        assert!(
            first
                .tensor("text.projection")
                .iter()
                .any(|value| *value != 0.0)
        );
    }
}
