//! The host, and what is padded for GPUs, against burn: the same codes, the same scores.

use burn::tensor::Device;
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
    (burn, Scorer::on_host(state))
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
fn vectors_on_the_host_are_what_burn_has() {
    for spec in specs() {
        let (burn, host) = scorers(&state(&spec, 29));
        let all: Vec<u32> = (0..29).collect();
        let rows = |scorer: &Scorer| now(scorer.item_rows(&all)).expect("no device fails");
        assert_near(&rows(&burn), &rows(&host), "item vectors");
        let sequences = sequences(&spec, 13);
        let users = |scorer: &Scorer| {
            now(scorer.user_rows(&sequences, &queries(&sequences))).expect("no device fails")
        };
        assert_near(&users(&burn), &users(&host), "user vectors");
        let row = |len: u32| {
            let values = (0..len).map(|idx| (idx as f32 * 0.3).cos());
            (len > 0).then(|| values.collect::<Vec<f32>>())
        };
        let (text, features) = (row(spec.text_dim), row(spec.feature_dim));
        for (text, features) in [(&text, &None), (&None, &features), (&text, &features)] {
            let content = |scorer: &Scorer| {
                let content = scorer.content_of(text.as_deref(), features.as_deref());
                now(content).expect("no device fails")
            };
            let (expected, actual) = (content(&burn), content(&host));
            assert_eq!(expected.is_some(), text.is_some() || features.is_some());
            assert_near(
                &expected.unwrap_or_default(),
                &actual.unwrap_or_default(),
                "content",
            );
        }
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

#[test]
fn the_mean_of_some_items_has_the_same_products_on_the_host() {
    for spec in specs() {
        let (burn, host) = scorers(&state(&spec, 29));
        for item_idxs in [&[5][..], &[0, 28, 4, 9, 11]] {
            let products = |scorer: &Scorer| now(scorer.mean_products(item_idxs)).expect("finite");
            assert_near(&products(&burn), &products(&host), "mean products");
        }
    }
}

#[cfg(feature = "wgpu")]
mod padded {
    use burn::tensor::Tensor;

    use super::*;
    use crate::model::scorer::OnDevice;

    fn full(state: &CodeState) -> Scorer {
        Scorer::new(state, &Device::flex(), Padding::Full)
    }

    fn on_device(scorer: &Scorer) -> &OnDevice {
        scorer.device().expect("built for a device")
    }

    fn values(tensor: &Tensor<2>) -> Vec<f32> {
        let data = tensor.clone().into_data();
        data.try_into_vec::<f32>().expect("f32")
    }

    fn assert_same(longest: &Scorer, full: &Scorer, spec: &ModelSpec, what: &str) {
        assert_near(&scores(longest, spec), &scores(full, spec), what);
        let (on_longest, on_full) = (on_device(longest), on_device(full));
        let (expected, actual) = (on_longest.item_vectors(), on_full.item_vectors());
        assert_near(&values(&expected), &values(&actual), what);
        let (expected, actual) = (on_longest.content(), on_full.content());
        assert_eq!(expected.is_some(), actual.is_some());
        if let (Some(longest), Some(full)) = (expected, actual) {
            assert_near(&values(&longest), &values(&full), what);
        }
        let picked = [3, 0, 28, 3];
        let rows = |scorer: &Scorer| now(scorer.item_rows(&picked)).expect("no device fails");
        assert_near(&rows(longest), &rows(full), what);
        let vector: Vec<f32> = rows(longest)[..spec.embedding_dim as usize].to_vec();
        let products = |scorer: &Scorer| now(scorer.products_of(&vector)).expect("finite");
        assert_near(&products(longest), &products(full), what);
        let means = |scorer: &Scorer| now(scorer.mean_products(&picked)).expect("finite");
        assert_near(&means(longest), &means(full), what);
    }

    #[test]
    fn rows_in_buckets_change_nothing_for_any_spec() {
        for spec in specs() {
            for num_items in [29, 256, 257] {
                let state = state(&spec, num_items);
                let what = format!("{num_items} items of {spec:?}");
                assert_same(&scorers(&state).0, &full(&state), &spec, &what);
            }
        }
    }

    #[test]
    fn a_catalogue_grows_inside_of_its_bucket_and_into_the_next() {
        for spec in specs() {
            let mut base = state(&spec, 250);
            let mut updated = full(&base);
            for (num_new, seed) in [(0, 8), (3, 9), (3, 10), (300, 11)] {
                let mut target = base.clone();
                let id_rows = target.tensor_mut("item.id_rows").expect("in every spec");
                id_rows.row_mut(3).fill(seed as i16);
                let num_known = target.items.len();
                append(&mut target, num_new);
                if num_new > 0 {
                    draw(&mut target, num_known, &mut StdRng::seed_from_u64(seed));
                }
                updated = updated.updated(&base, &target);
                let what = format!("{num_new} more than {num_known}");
                assert_same(&scorers(&target).0, &updated, &spec, &what);
                base = target;
            }
        }
    }

    #[test]
    fn other_weights_reach_padded_rows_too() {
        for spec in specs() {
            let state = state(&spec, 29);
            let mut parameters = ParameterSet::from_state(&state);
            for value in parameters.tensors.iter_mut().flatten() {
                *value *= 1.25;
            }
            let weights = FastWeights {
                id_rows: parameters.tensor("item.id_rows"),
                bias: parameters.tensor("item.bias"),
                prior: parameters.tensor("prior.weights"),
                neighbour_weight: parameters.neighbour_weight(),
                taste_weight: parameters.taste_weight(),
            };
            let changed = |scorer: &Scorer| {
                let slow = scorer.with_slow_weights(&parameters);
                slow.with_fast_weights(weights)
            };
            let (longest, full) = (changed(&scorers(&state).0), changed(&full(&state)));
            assert_same(&longest, &full, &spec, "other weights");
        }
    }
}
