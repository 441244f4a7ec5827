//! The host against burn: the same codes, the same scores.

use burn::tensor::{Device, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::codec::state::{COUNTS_TENSOR, CodeState, ItemEntry, NEIGHBOURS_TENSOR};
use crate::event::EventKind;
use crate::ids::ItemId;
use crate::model::parameters::ParameterSet;
use crate::model::scorer::{FastWeights, Padding, Query, Scorer};
use crate::model::sequence::{Sequence, Token};
use crate::spec::ModelSpec;

/// Of the largest score: f32 sums of some hundred terms in another order, and other exponentials to the last digits.
const TOLERANCE: f32 = 1e-5;
const NOW_MILLIS: i64 = 1_000_000_000;

fn specs() -> Vec<ModelSpec> {
    let small = ModelSpec {
        embedding_dim: 12,
        text_dim: 7,
        history_len: 9,
        num_heads: 3,
        ff_dim: 20,
        ..ModelSpec::default()
    };
    let deep = ModelSpec {
        num_layers: 3,
        feature_dim: 5,
        adapter_dim: 6,
        has_taste_weight: true,
        ..small.clone()
    };
    let bare = ModelSpec {
        text_dim: 0,
        ..small.clone()
    };
    vec![ModelSpec::default(), small, deep, bare]
}

/// Codes by chance, with norms around 1.
fn state(spec: &ModelSpec, num_items: usize) -> CodeState {
    let rng = &mut StdRng::seed_from_u64(5);
    let mut state = CodeState::empty(spec.clone());
    append(&mut state, num_items);
    draw(&mut state, 0, rng);
    state
}

fn append(state: &mut CodeState, num_new: usize) {
    let first = state.items.len();
    state.append_items((first..first + num_new).map(|idx| ItemEntry {
        item_id: ItemId::new(format!("i{idx}")).expect("short"),
        available: true,
    }));
}

/// Draws shared tensors, where `first_item` is 0, and the rows of items from there on.
fn draw(state: &mut CodeState, first_item: usize, rng: &mut StdRng) {
    let shapes = state.shapes();
    for (shape, tensor) in shapes.iter().zip(&mut state.tensors) {
        let is_kept = shape.name == NEIGHBOURS_TENSOR || shape.num_cols == 0;
        if is_kept || (first_item > 0 && !shape.per_item) {
            continue;
        }
        for row_idx in if shape.per_item { first_item } else { 0 }..tensor.num_rows {
            if shape.name != COUNTS_TENSOR {
                tensor.exponents[row_idx] = if shape.code_bits == 16 { -14 } else { -8 };
            }
            for code in tensor.row_mut(row_idx) {
                *code = rng.random_range(-100..=100);
            }
        }
        if shape.name.contains("norm") {
            tensor.row_mut(0).fill(1 << 14);
        }
    }
    assert_eq!(state.check(), Ok(()));
}

fn sequences(spec: &ModelSpec, num_items: usize) -> Vec<Sequence> {
    let rng = &mut StdRng::seed_from_u64(6);
    let lens = [0, 1, 4, spec.history_len as usize];
    lens.map(|len| Sequence {
        tokens: (0..len)
            .map(|idx| Token {
                item_idx: rng.random_range(0..num_items as u32),
                kind: EventKind::ALL[1 + idx % 9],
                occurred_at: NOW_MILLIS - 70_000 * (len - idx) as i64,
            })
            .collect(),
        now_millis: NOW_MILLIS,
    })
    .to_vec()
}

/// Every end, and some positions before it, out of order.
fn queries(sequences: &[Sequence]) -> Vec<Query> {
    let mut queries = Vec::new();
    for (sequence_idx, sequence) in sequences.iter().enumerate().rev() {
        let len = sequence.tokens.len();
        for num_known in [len, len / 2, 0] {
            queries.push(Query {
                sequence_idx,
                num_known,
                now_millis: NOW_MILLIS,
            });
        }
    }
    queries
}

fn scorers(state: &CodeState) -> (Scorer, Scorer) {
    let device = Device::flex();
    let burn = Scorer::new(state, &device, Padding::Longest);
    (burn, Scorer::new(state, &device, Padding::None))
}

fn scores(scorer: &Scorer, spec: &ModelSpec) -> Vec<f32> {
    let sequences = sequences(spec, 13);
    now(scorer.score(&sequences, &queries(&sequences))).expect("finite")
}

/// Runs a future that never waits: flex and the host compute at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("neither waits"),
    }
}

fn assert_near(expected: &[f32], actual: &[f32], what: &str) {
    assert_eq!(expected.len(), actual.len(), "{what}");
    let largest = expected.iter().fold(1.0_f32, |max, x| max.max(x.abs()));
    for (idx, (expected, actual)) in expected.iter().zip(actual).enumerate() {
        let difference = (expected - actual).abs() / largest;
        assert!(
            difference <= TOLERANCE,
            "{what} {idx}: {actual} is not {expected}"
        );
    }
}

fn values(tensor: &Tensor<2>) -> Vec<f32> {
    let data = tensor.clone().into_data();
    data.try_into_vec::<f32>().expect("f32")
}

#[test]
fn the_host_scores_as_burn_does_for_every_kind_of_spec() {
    for spec in specs() {
        let (burn, host) = scorers(&state(&spec, 29));
        assert_near(
            &scores(&burn, &spec),
            &scores(&host, &spec),
            &format!("{spec:?}"),
        );
    }
}

#[test]
fn what_the_host_gives_as_tensors_is_what_burn_has() {
    for spec in specs() {
        let (burn, host) = scorers(&state(&spec, 29));
        assert_near(
            &values(burn.item_vectors()),
            &values(host.item_vectors()),
            "item vectors",
        );
        assert_eq!(burn.content().is_some(), host.content().is_some());
        if let (Some(burn), Some(host)) = (burn.content(), host.content()) {
            assert_near(&values(burn), &values(host), "content");
        }
        let sequences = sequences(&spec, 13);
        let users =
            |scorer: &Scorer| values(&scorer.user_vectors(&sequences, &queries(&sequences)));
        assert_near(&users(&burn), &users(&host), "user vectors");
    }
}

#[test]
fn an_updated_host_scores_as_a_new_one_to_the_bit() {
    for spec in specs() {
        let base = state(&spec, 29);
        let (_, before) = scorers(&base);
        let mut target = base.clone();
        target
            .tensor_mut("item.id_rows")
            .expect("in every spec")
            .row_mut(3)
            .fill(55);
        append(&mut target, 300);
        draw(&mut target, 29, &mut StdRng::seed_from_u64(9));
        let (burn, new) = scorers(&target);
        let updated = before.updated(&base, &target);
        assert_eq!(scores(&updated, &spec), scores(&new, &spec));
        assert_near(
            &scores(&burn, &spec),
            &scores(&updated, &spec),
            "after the update",
        );
    }
}

#[test]
fn other_weights_reach_the_host_too() {
    for spec in specs() {
        let base = state(&spec, 29);
        let mut parameters = ParameterSet::from_state(&base);
        for tensor in &mut parameters.tensors {
            for value in tensor.iter_mut() {
                *value *= 1.25;
            }
        }
        let weights = FastWeights {
            id_rows: parameters.tensor("item.id_rows"),
            bias: parameters.tensor("item.bias"),
            prior: parameters.tensor("prior.weights"),
            neighbour_weight: parameters.neighbour_weight(),
            taste_weight: parameters.taste_weight(),
        };
        let (burn, host) = scorers(&base);
        let changed = |scorer: Scorer| {
            let slow = scorer.with_slow_weights(&parameters);
            scores(&slow.with_fast_weights(weights), &spec)
        };
        let unchanged = scores(&burn, &spec);
        let expected = changed(burn);
        assert_ne!(expected, unchanged);
        assert_near(&expected, &changed(host), "other weights");
    }
}

#[test]
fn explanations_ask_the_host_for_products_of_one_vector() {
    let spec = ModelSpec::default();
    let (burn, host) = scorers(&state(&spec, 29));
    let vector: Vec<f32> = (0..64).map(|idx| (idx as f32 * 0.7).sin()).collect();
    let products = |scorer: &Scorer| now(scorer.products_of(&vector)).expect("no device fails");
    assert_near(&products(&burn), &products(&host), "products");
}
