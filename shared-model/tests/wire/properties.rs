//! Whatever states are: what was encoded is what is decoded.

use proptest::prelude::*;
use rand::Rng;
use rand::seq::IndexedRandom;
use shared_model::codec::CodecError;
use shared_model::codec::delta::{
    DELTA_HEADER_BYTES, apply_delta, encode_delta, read_delta_header,
};
use shared_model::codec::quantize::quantize;
use shared_model::codec::snapshot::{decode_snapshot, encode_snapshot};
use shared_model::codec::state::{CodeState, ItemEntry, NEVER_CODE};
use shared_model::ids::{ItemId, Version};
use shared_model::spec::ModelSpec;

use crate::fixtures::{random_spec, random_state, random_successor, rng, tiny_spec};

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn snapshots_survive(seed: u64, num_items in 0_usize..12) {
        let rng = &mut rng(seed);
        let spec = random_spec(rng);
        let state = random_state(spec, num_items, rng);
        let bytes = encode_snapshot(&state, Version(seed)).expect("valid state");
        prop_assert_eq!(decode_snapshot(&bytes), Ok((Version(seed), state)));
    }

    #[test]
    fn deltas_survive(seed: u64, num_items in 0_usize..40) {
        let rng = &mut rng(seed);
        let spec = random_spec(rng);
        let base = random_state(spec, num_items, rng);
        let target = random_successor(&base, rng);
        let bytes = encode_delta(&base, Version(3), &target, Version(9)).expect("a successor");
        let header = read_delta_header(&bytes).expect("just written");
        prop_assert_eq!((header.base_version, header.target_version), (Version(3), Version(9)));
        prop_assert_eq!((header.base, header.target), (base.hash(), target.hash()));
        prop_assert_eq!(apply_delta(&base, &bytes), Ok(target));
    }

    #[test]
    fn a_chain_of_deltas_leads_to_the_same_state_as_one_delta(seed: u64) {
        let rng = &mut rng(seed);
        let first = random_state(tiny_spec(), 5, rng);
        let second = random_successor(&first, rng);
        let third = random_successor(&second, rng);
        let by_step = |base: &CodeState, target, version| {
            let bytes = encode_delta(base, Version(version), target, Version(version + 1)).expect("a successor");
            apply_delta(base, &bytes).expect("its base")
        };
        let chained = by_step(&by_step(&first, &second, 1), &third, 2);
        prop_assert_eq!(chained, by_step(&first, &third, 1));
    }
}

/// The catalogue of the movie set in the design: 3,851 items in 64 dimensions.
fn large_state() -> CodeState {
    let rng = &mut rng(5);
    let spec = ModelSpec {
        text_dim: 0,
        ..ModelSpec::default()
    };
    let mut state = CodeState::empty(spec);
    let item = |item_idx| ItemEntry {
        item_id: ItemId::new(format!("{item_idx}")).expect("short"),
        available: true,
    };
    state.append_items((0..3_851).map(item));
    for code in &mut state.tensors[0].codes {
        *code = gaussian_code(rng);
    }
    state
}

/// A normal deviate with standard deviation 30 as a code: Box and Muller 1958.
fn gaussian_code(rng: &mut impl Rng) -> i16 {
    let radius = (-2.0 * rng.random_range(1e-12..1.0_f64).ln()).sqrt();
    let deviate = radius * (std::f64::consts::TAU * rng.random::<f64>()).cos();
    quantize((deviate * 30.0) as f32, 0, 8)
}

/// Moves about `num_changed` codes of one id row by ±1.
fn step_row(state: &mut CodeState, row_idx: usize, num_changed: usize, rng: &mut impl Rng) {
    for code in state.tensors[0].row_mut(row_idx) {
        if rng.random_bool(num_changed as f64 / 64.0) {
            *code = (*code + *[-1, 1].choose(rng).expect("two")).clamp(-127, 127);
        }
    }
}

#[test]
fn a_delta_of_one_row_stays_below_150_bytes() {
    let rng = &mut rng(6);
    let base = large_state();
    let mut target = base.clone();
    step_row(&mut target, 1_234, 20, rng);
    target.tensor_mut("item.bias").expect("in the spec").codes[1_234] += 1;
    target
        .tensor_mut("item.counts")
        .expect("in the spec")
        .row_mut(1_234)
        .copy_from_slice(&[2_000, 300, 70]);
    let bytes = encode_delta(&base, Version(1), &target, Version(2)).expect("a successor");
    println!("delta of one row: {} bytes", bytes.len());
    assert!(bytes.len() < 150, "{} bytes", bytes.len());
}

#[test]
fn a_delta_of_100_rows_without_any_pattern_comes_close_to_its_entropy() {
    let rng = &mut rng(7);
    let base = large_state();
    let mut target = base.clone();
    for row_idx in rand::seq::index::sample(rng, 3_851, 100) {
        step_row(&mut target, row_idx, 20, rng);
    }
    let pairs = base.tensors[0].codes.iter().zip(&target.tensors[0].codes);
    let num_changed = pairs.filter(|(base, target)| base != target).count() as f64;
    let share = num_changed / 6_400.0;
    let flag_bits = 6_400.0 * -(share * share.log2() + (1.0 - share) * (1.0 - share).log2());
    let row_share: f64 = 100.0 / 3_851.0;
    let row_bits =
        3_851.0 * -(row_share * row_share.log2() + (1.0 - row_share) * (1.0 - row_share).log2());
    let entropy_bytes = (flag_bits + num_changed + row_bits) / 8.0;
    let bytes = encode_delta(&base, Version(1), &target, Version(2)).expect("a successor");
    let body_bytes = (bytes.len() - DELTA_HEADER_BYTES) as f64;
    println!(
        "delta of 100 rows: {} bytes, entropy {entropy_bytes:.0}, changed {num_changed}",
        bytes.len()
    );
    assert!(
        body_bytes < 1.06 * entropy_bytes,
        "{body_bytes} bytes for an entropy of {entropy_bytes}"
    );
}

/// A row of 64 codes along four directions that all rows share, with the given weights, and a little of its own.
fn along_directions(weights: [f64; 4], rng: &mut impl Rng) -> Vec<f64> {
    let direction = |col_idx: usize, idx: usize| ((col_idx * (idx + 1)) as f64 * 0.7).sin();
    (0..64)
        .map(|col_idx| {
            let along = (0..4).map(|idx| weights[idx] * direction(col_idx, idx));
            along.sum::<f64>() + rng.random_range(-1.0..1.0)
        })
        .collect()
}

#[test]
fn rows_that_move_along_few_directions_cost_half_of_their_entropy() {
    let rng = &mut rng(11);
    let mut base = large_state();
    let weights = |length: f64, rng: &mut rand::rngs::StdRng| {
        [(); 4].map(|()| rng.random_range(-length..length))
    };
    for row_idx in 0..3_851 {
        let row = along_directions(weights(30.0, rng), rng);
        for (code, value) in base.tensors[0].row_mut(row_idx).iter_mut().zip(row) {
            *code = quantize(value as f32, 0, 8);
        }
    }
    let mut target = base.clone();
    let mut occurrences = std::collections::BTreeMap::<i16, u32>::new();
    for row_idx in rand::seq::index::sample(rng, 3_851, 100) {
        let step = along_directions(weights(6.0, rng), rng);
        for (code, value) in target.tensors[0].row_mut(row_idx).iter_mut().zip(step) {
            let moved = (*code + value.round() as i16).clamp(-127, 127);
            *occurrences.entry(moved - *code).or_default() += 1;
            *code = moved;
        }
    }
    let entropy_bits: f64 = occurrences
        .values()
        .map(|count| f64::from(*count) * (6_400.0 / f64::from(*count)).log2())
        .sum();
    let bytes = encode_delta(&base, Version(1), &target, Version(2)).expect("a successor");
    let share = (bytes.len() - DELTA_HEADER_BYTES) as f64 / (entropy_bits / 8.0);
    println!("rows along four directions: {share:.3} of the entropy of their differences");
    assert!(share < 0.5, "{share}");
    assert_eq!(apply_delta(&base, &bytes), Ok(target));
}

#[test]
fn a_snapshot_comes_close_to_the_order_0_entropy_of_its_codes() {
    let state = large_state();
    let mut occurrences = [0_u32; 256];
    for code in &state.tensors[0].codes {
        occurrences[(*code + 128) as usize] += 1;
    }
    let num_codes = state.tensors[0].codes.len() as f64;
    let bits_of = |count: u32| f64::from(count) * -(f64::from(count) / num_codes).log2();
    let entropy_bits: f64 = occurrences
        .into_iter()
        .filter(|count| *count > 0)
        .map(bits_of)
        .sum();
    let entropy_bytes = entropy_bits / 8.0;
    let bytes = encode_snapshot(&state, Version(1)).expect("valid state");
    let mut without_codes = state.clone();
    without_codes.tensors[0].codes.fill(0);
    let other_bytes = encode_snapshot(&without_codes, Version(1))
        .expect("valid state")
        .len();
    let code_bytes = (bytes.len() - other_bytes) as f64;
    println!(
        "snapshot: {} bytes, {code_bytes} of codes, entropy {entropy_bytes:.0}",
        bytes.len()
    );
    assert!(
        code_bytes < 1.01 * entropy_bytes,
        "{code_bytes} bytes for an entropy of {entropy_bytes}"
    );
}

#[test]
fn equal_states_give_a_delta_of_little_more_than_a_header() {
    let state = random_state(tiny_spec(), 3, &mut rng(8));
    let bytes = encode_delta(&state, Version(1), &state, Version(2)).expect("a successor");
    assert!(
        bytes.len() <= DELTA_HEADER_BYTES + 2,
        "{} bytes",
        bytes.len()
    );
    assert_eq!(apply_delta(&state, &bytes), Ok(state));
}

#[test]
fn counts_survive_between_never_and_the_extremes() {
    let base = random_state(tiny_spec(), 6, &mut rng(9));
    let mut target = base.clone();
    let codes = [
        NEVER_CODE, 32_767, -32_767, 0, NEVER_CODE, 1, 32_767, NEVER_CODE, 5, 5, -32_767,
        NEVER_CODE,
    ];
    target
        .tensor_mut("item.counts")
        .expect("in the spec")
        .codes
        .copy_from_slice(&codes);
    let there = encode_delta(&base, Version(1), &target, Version(2)).expect("a successor");
    assert_eq!(apply_delta(&base, &there).as_ref(), Ok(&target));
    let back = encode_delta(&target, Version(2), &base, Version(3)).expect("a successor");
    assert_eq!(apply_delta(&target, &back), Ok(base));
}

#[test]
fn refuses_to_encode_what_needs_a_snapshot() {
    let base = random_state(tiny_spec(), 3, &mut rng(10));
    let refusal = |target: &CodeState| {
        encode_delta(&base, Version(1), target, Version(2)).expect_err("must refuse")
    };

    let other_spec = random_state(
        ModelSpec {
            ff_dim: 5,
            ..tiny_spec()
        },
        3,
        &mut rng(10),
    );
    assert!(matches!(
        refusal(&other_spec),
        CodecError::SpecChanged { .. }
    ));
    let mut other_encoder = base.clone();
    other_encoder.encoder_generation += 1;
    assert!(matches!(
        refusal(&other_encoder),
        CodecError::EncoderGenerationChanged { .. }
    ));
    let mut swapped = base.clone();
    swapped.items.swap(1, 2);
    assert_eq!(refusal(&swapped), CodecError::ItemsChanged { item_idx: 1 });
    let shorter = random_state(tiny_spec(), 2, &mut rng(10));
    assert!(matches!(
        refusal(&shorter),
        CodecError::EncoderGenerationChanged { .. } | CodecError::ItemsChanged { .. }
    ));
    let mut duplicate = base.clone();
    duplicate.append_items([base.items[0].clone()]);
    assert!(matches!(refusal(&duplicate), CodecError::State(_)));
    let order = encode_delta(&base, Version(2), &base, Version(2));
    assert!(matches!(order, Err(CodecError::VersionOrder { .. })));
}
