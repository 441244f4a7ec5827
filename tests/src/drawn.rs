//! A version as the server makes it, with codes drawn by chance: speed does not depend on what they mean.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::codec::state::{
    COUNTS_TENSOR, CodeState, CodeTensor, ItemEntry, NEIGHBOUR_WEIGHTS_TENSOR, NEIGHBOURS_TENSOR,
    NEVER_CODE,
};
use shared_model::ids::ItemId;
use shared_model::spec::ModelSpec;
use trainer_server::config::Config;

/// The moment of ranking.
pub const NOW_MILLIS: i64 = 1_790_000_000_000;
const LANDMARK_AGE_MILLIS: i64 = 10 * 86_400_000;
const SEED: u64 = 20_261_126;
/// Exponent of 8-bit rows: codes around 40 are weights around 0.1.
const EXPONENT_8: i8 = -9;
/// Exponent of 4-bit rows: unit vectors of some hundred numbers.
const EXPONENT_4: i8 = -5;
/// Exponent of 16-bit rows, and the code of 1 in them.
const EXPONENT_16: i8 = -12;
const ONE_16: i16 = 1 << 12;
/// Of items that nobody has touched.
const NEVER_SHARE: f64 = 0.2;

/// The spec of the default configuration with MiniLM's texts.
#[must_use]
pub fn spec() -> ModelSpec {
    Config::default().model.spec(384)
}

/// `num_items` items of [`spec`], all available.
#[must_use]
pub fn draw(num_items: usize) -> CodeState {
    draw_of(spec(), num_items)
}

/// The same of another spec; one with neighbours takes as many items as neighbours can name.
#[must_use]
pub fn draw_of(spec: ModelSpec, num_items: usize) -> CodeState {
    let rng = &mut StdRng::seed_from_u64(SEED);
    let mut state = CodeState::empty(spec);
    state.landmark_millis = NOW_MILLIS - LANDMARK_AGE_MILLIS;
    state.append_items((0..num_items).map(|item_idx| ItemEntry {
        item_id: ItemId::new(format!("item-{item_idx}")).expect("short"),
        available: true,
    }));
    let shapes = state.shapes();
    for (shape, tensor) in shapes.iter().zip(&mut state.tensors) {
        if shape.num_cols == 0 {
            continue;
        }
        match (shape.name.as_str(), shape.code_bits) {
            (COUNTS_TENSOR, _) => draw_counts(tensor, rng),
            (NEIGHBOURS_TENSOR, _) => draw_neighbours(tensor, num_items, rng),
            (NEIGHBOUR_WEIGHTS_TENSOR, _) => fill(tensor, EXPONENT_8, || rng.random_range(1..=120)),
            (_, 4) => fill(tensor, EXPONENT_4, || rng.random_range(-4..=4)),
            (_, 16) => fill(tensor, EXPONENT_16, || rng.random_range(-400..=400)),
            (_, _) => fill(tensor, EXPONENT_8, || {
                (0..4).map(|_| rng.random_range(-25..=25_i16)).sum() // near a normal deviate
            }),
        }
        if shape.name.contains("norm") {
            tensor.row_mut(0).fill(ONE_16);
        }
        if shape.name == "prior.weights" || shape.name == "neighbour.weight" {
            tensor.row_mut(0).fill(800);
        }
    }
    assert_eq!(state.check(), Ok(()));
    state
}

/// `state` with `num_rows` id rows moved, as a fast version moves them.
#[must_use]
pub fn moved(state: &CodeState, num_rows: usize) -> CodeState {
    let rng = &mut StdRng::seed_from_u64(SEED + 1);
    let mut target = state.clone();
    let num_items = target.items.len();
    let id_rows = target.tensor_mut("item.id_rows").expect("in every spec");
    for _ in 0..num_rows {
        let row_idx = rng.random_range(0..num_items);
        for code in id_rows.row_mut(row_idx) {
            *code = (*code + rng.random_range(-3..=3)).clamp(-127, 127);
        }
    }
    target
}

/// `state` with a slow weight moved, so that nothing of the last version can be kept.
#[must_use]
pub fn released(state: &CodeState) -> CodeState {
    let mut target = state.clone();
    let weights = target.tensor_mut("layers.0.query").expect("in every spec");
    let code = &mut weights.row_mut(0)[0];
    *code = if *code > 0 { *code - 1 } else { *code + 1 };
    target
}

fn fill(tensor: &mut CodeTensor, exponent: i8, mut draw: impl FnMut() -> i16) {
    tensor.exponents.fill(exponent);
    tensor.codes.fill_with(&mut draw);
}

fn draw_counts(tensor: &mut CodeTensor, rng: &mut StdRng) {
    for row_idx in 0..tensor.num_rows {
        let is_touched = !rng.random_bool(NEVER_SHARE);
        for code in tensor.row_mut(row_idx) {
            *code = if is_touched {
                rng.random_range(-160..=320)
            } else {
                NEVER_CODE
            };
        }
    }
}

fn draw_neighbours(tensor: &mut CodeTensor, num_items: usize, rng: &mut StdRng) {
    for row_idx in 0..tensor.num_rows {
        let first = rng.random_range(0..num_items);
        for (slot, code) in tensor.row_mut(row_idx).iter_mut().enumerate() {
            let item_idx = (first + 1 + slot * 17) % num_items;
            *code = item_idx as i16 + 1; // below NEIGHBOUR_ITEMS_MAX
        }
    }
}
