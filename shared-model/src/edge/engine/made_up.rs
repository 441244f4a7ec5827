//! Made-up codes of a model with texts, features and neighbours, and made-up histories: for the tests of this room.

use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::ReadyVersion;
use crate::codec::state::{
    COUNTS_TENSOR, CodeState, ItemEntry, NEIGHBOUR_WEIGHTS_TENSOR, NEIGHBOURS_TENSOR,
};
use crate::event::{EventKind, HistoryEvent};
use crate::ids::ItemId;
use crate::model::scorer::Padding;
use crate::spec::ModelSpec;

pub(super) const NUM_ITEMS: usize = 30;
pub(super) const HISTORY_LEN: usize = 6;
pub(super) const NOW_MILLIS: i64 = 500_000;

pub(super) fn spec() -> ModelSpec {
    ModelSpec {
        embedding_dim: 8,
        text_dim: 5,
        feature_dim: 3,
        history_len: HISTORY_LEN as u32, // 6
        num_layers: 2,
        num_heads: 2,
        ff_dim: 16,
        half_lives_secs: vec![60, 3600],
        num_neighbours: 4,
        adapter_dim: 0,
        has_taste_weight: true,
        ..ModelSpec::default()
    }
}

pub(super) fn made_up_state(seed: u64) -> CodeState {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut state = CodeState::empty(spec());
    state.append_items((0..NUM_ITEMS).map(|idx| ItemEntry {
        item_id: ItemId::new(format!("i{idx}")).expect("short"),
        available: true,
    }));
    for (shape, tensor) in state.shapes().iter().zip(&mut state.tensors) {
        for row_idx in 0..tensor.num_rows {
            let is_gamma = shape.name.contains("norm") && row_idx == 0;
            let is_free = shape.name != COUNTS_TENSOR && shape.name != NEIGHBOURS_TENSOR;
            if is_free && tensor.num_cols > 0 {
                tensor.exponents[row_idx] = if tensor.code_bits == 8 { -8 } else { -14 };
            }
            for code in tensor.row_mut(row_idx) {
                *code = match shape.name.as_str() {
                    NEIGHBOURS_TENSOR => rng.random_range(0..=NUM_ITEMS as i16), // 30
                    NEIGHBOUR_WEIGHTS_TENSOR => rng.random_range(0..=127),
                    COUNTS_TENSOR => rng.random_range(0..200),
                    _ if is_gamma => 1 << 14,
                    _ if shape.code_bits == 8 => rng.random_range(-127..=127),
                    _ => rng.random_range(-8000..=8000),
                };
            }
        }
    }
    assert_eq!(state.check(), Ok(()));
    state
}

pub(super) fn event(item_idx: usize, occurred_at: i64) -> HistoryEvent {
    HistoryEvent {
        item_id: ItemId::new(format!("i{item_idx}")).expect("short"),
        kind: EventKind::Click,
        occurred_at,
    }
}

pub(super) fn history(len: usize, seed: u64) -> Vec<HistoryEvent> {
    let mut rng = StdRng::seed_from_u64(seed);
    let at = |idx: usize| 7_000 * idx as i64; // a handful
    (0..len)
        .map(|idx| event(rng.random_range(0..NUM_ITEMS), at(idx)))
        .collect()
}

pub(super) fn ready(state: &CodeState, padding: Padding) -> ReadyVersion {
    ReadyVersion::new(state, &Device::flex(), padding)
}

/// Runs a future that never waits: flex computes at once.
pub(super) fn pollster<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("flex never waits"),
    }
}
