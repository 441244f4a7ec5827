//! Claims about changes of low rank, with a tiny network of made-up weights.

use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::text::TextEncoder;
use crate::text::batch::TokenizedText;
use crate::text::config::tests::{tiny, tiny_with_pruned_heads};
use crate::text::tests::checkpoint;

const RANK: usize = 2;
/// Padding and merging change the order of f32 sums and nothing else.
const REORDER_TOLERANCE: f32 = 1e-5;
/// Central differences of a loss in f32 with this step keep about three digits.
const DIFFERENCE_STEP: f32 = 1e-2;
const GRADIENT_TOLERANCE: f32 = 2e-3;

fn encoder() -> TextEncoder {
    encoder_of(tiny())
}

fn encoder_of(config: BertConfig) -> TextEncoder {
    let mut rng = StdRng::seed_from_u64(11);
    let mut tensors = checkpoint(&config);
    for tensor in &mut tensors {
        // Norms are about one: they must not take what the attention says away.
        let center = if tensor.name.ends_with("LayerNorm.weight") {
            1.0
        } else {
            0.0
        };
        for value in &mut tensor.values {
            *value = center + rng.random_range(-0.7..0.7);
        }
    }
    TextEncoder::from_named(config, tensors, &Device::flex()).expect("complete")
}

/// A change whose factors are all away from zero.
fn change() -> LowRankChange {
    change_of(&tiny())
}

fn change_of(config: &BertConfig) -> LowRankChange {
    let mut rng = StdRng::seed_from_u64(12);
    let mut change = LowRankChange::new(config, RANK, || 0.0).expect("in bounds");
    let values = (0..change.num_values()).map(|_| rng.random_range(-0.5..0.5));
    change.set_flat(&values.collect::<Vec<f32>>());
    change
}

fn texts() -> Vec<TokenizedText> {
    let text = |token_ids: &[u32]| TokenizedText {
        token_ids: token_ids.to_vec(),
    };
    vec![
        text(&[1, 2, 3]),
        text(&[1, 5, 6, 7, 8, 9, 10, 11, 4]),
        text(&[4]),
    ]
}

/// What the loss multiplies each embedding with.
fn probe(dim: usize) -> Vec<f32> {
    (0..texts().len() * dim)
        .map(|idx| ((idx * 3 + 2) as f32).cos())
        .collect()
}

fn loss_of(encoder: &TextEncoder, change: LowRankChange) -> f32 {
    let changed = encoder.changed_by(change).expect("of this network");
    let rows = changed.encode(&texts()).expect("encodes");
    let weighted = rows.iter().zip(probe(encoder.dim()));
    weighted.map(|(value, weight)| value * weight).sum()
}

#[test]
fn gradients_of_the_factors_equal_differences_of_the_loss() {
    let (encoder, change) = (encoder(), change());
    let learning = encoder.learning(&change);
    let rows = learning.forward(&texts()).expect("known tokens");
    let probe = TensorData::new(probe(encoder.dim()), rows.dims());
    let loss = (rows * Tensor::<2>::from_data(probe, learning.device())).sum();
    let gradients = learning.gradients(&loss.backward()).expect("all reached");
    assert_eq!(gradients.len(), change.num_values());

    let flat = change.to_flat();
    for idx in (0..flat.len()).step_by(7) {
        let moved = |by: f32| {
            let (mut change, mut flat) = (change.clone(), flat.clone());
            flat[idx] += by;
            change.set_flat(&flat);
            loss_of(&encoder, change)
        };
        let difference =
            (moved(DIFFERENCE_STEP) - moved(-DIFFERENCE_STEP)) / (2.0 * DIFFERENCE_STEP);
        let gradient = gradients[idx];
        assert!(
            (difference - gradient).abs() < GRADIENT_TOLERANCE * (1.0 + difference.abs()),
            "value {idx}: {difference} and {gradient}"
        );
    }
    let largest = gradients.iter().fold(0.0_f32, |max, g| g.abs().max(max));
    assert!(largest > 10.0 * GRADIENT_TOLERANCE, "{largest} says little");
}

#[test]
fn a_merged_change_embeds_as_the_factors_beside_the_weights() {
    for config in [tiny(), tiny_with_pruned_heads()] {
        let change = change_of(&config);
        assert_merges(&encoder_of(config), change);
    }
}

fn assert_merges(encoder: &TextEncoder, change: LowRankChange) {
    let beside = encoder.learning(&change).forward(&texts());
    let beside = beside.expect("known tokens").into_data();
    let beside = beside.try_into_vec::<f32>().expect("f32");
    let merged = encoder.changed_by(change).expect("of this network");
    let merged = merged.encode(&texts()).expect("encodes");
    let plain = encoder.encode(&texts()).expect("encodes");
    for (beside, merged) in beside.iter().zip(&merged) {
        assert!((beside - merged).abs() < REORDER_TOLERANCE);
    }
    assert!(merged.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 1e-2));
}

#[test]
fn a_new_change_changes_nothing_and_a_second_one_starts_from_the_loaded_weights() {
    let encoder = encoder();
    let new = LowRankChange::new(&tiny(), RANK, || 0.7).expect("in bounds");
    let plain = encoder.encode(&texts()).expect("encodes");
    let changed = encoder.changed_by(new.clone()).expect("of this network");
    assert_eq!(changed.encode(&texts()), Ok(plain.clone()));

    let there = encoder.changed_by(change()).expect("of this network");
    assert_ne!(there.encode(&texts()), Ok(plain.clone()));
    let back = there.changed_by(new).expect("of this network");
    assert_eq!(back.encode(&texts()), Ok(plain));
}

#[test]
fn the_fingerprint_names_the_weights_and_the_change() {
    let encoder = encoder();
    let changed = |change| encoder.changed_by(change).expect("of this network");
    let mut other = change();
    let mut flat = other.to_flat();
    flat[3] += 1.0;
    other.set_flat(&flat);
    let prints = [
        encoder.fingerprint(),
        changed(change()).fingerprint(),
        changed(other).fingerprint(),
    ];
    assert_eq!(prints[1], changed(change()).fingerprint());
    assert!(prints[0] != prints[1] && prints[1] != prints[2] && prints[0] != prints[2]);
    assert_eq!(
        changed(change()).base_fingerprint(),
        encoder.base_fingerprint()
    );
}

#[test]
fn factors_that_do_not_fit_are_refused_by_name() {
    let read = |rank, factors| LowRankChange::from_factors(&tiny(), rank, factors);
    let whole = change().factors().to_vec();
    let mut reversed = whole.clone();
    reversed.reverse();
    assert_eq!(read(RANK, reversed), Ok(change()), "the order is ours");

    let tensor = "layers.1.value.weight.b".to_owned();
    let without = whole.iter().filter(|factor| factor.name != tensor);
    let missing = without.cloned().collect();
    assert_eq!(
        read(RANK, missing),
        Err(TextError::TensorMissing { tensor })
    );
    assert!(matches!(
        read(RANK + 1, whole.clone()),
        Err(TextError::ShapeMismatch { .. })
    ));
    let mut broken = whole.clone();
    broken[0].values[0] = f32::NAN;
    assert!(matches!(
        read(RANK, broken),
        Err(TextError::TensorNotFinite { .. })
    ));
    let mut twice = whole;
    twice.push(twice[0].clone());
    assert!(matches!(
        read(RANK, twice),
        Err(TextError::TensorTwice { .. })
    ));
    for rank in [0, RANK_MAX + 1] {
        let refused = LowRankChange::new(&tiny(), rank, || 0.0);
        let Err(TextError::ConfigField { field, actual, .. }) = refused else {
            panic!("rank {rank} is out of bounds")
        };
        assert_eq!((field, actual), ("rank", rank.to_string()));
    }
}
