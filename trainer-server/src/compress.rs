//! Compress: from trained f32 parameters to the next integer codes.
//!
//! Error feedback: the residual `trained − published` is never stored, it is what remains between the
//! two. A code moves when the accumulated change has earned it: `|value/2^e − code| > dead_zone`.
//! Rows, or blocks of them, compete for the byte budget by gain (squared residual removed) per estimated byte;
//! those that lose stay dirty and compete again ([`offers`]). What a second may cost is [`allowance`].
//!
//! Input: the live code state, the parameters, the exact counts. Output: the candidate code state.

use std::collections::BTreeSet;

use shared_model::codec::quantize::{dequantize, exponent_for, quantize, rescale_code};
use shared_model::codec::state::{
    CodeState, ItemEntry, NEIGHBOUR_WEIGHTS_TENSOR, NEIGHBOURS_TENSOR,
};
use shared_model::ids::ItemId;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::{ModelSpec, TASTE_WEIGHT, TensorGroup};

use crate::train::counts::DecayedCounts;
use crate::train::neighbour_counts::NeighbourCounts;

pub mod allowance;
mod neighbours;
mod offers;
pub(crate) mod scales;

use neighbours::write_neighbours;
use offers::send_best_rows;

/// Bounds of a fast version.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompressConfig {
    /// Target size of a fast delta.
    pub bytes_budget: usize,
    /// In code steps; at least 0.5.
    pub dead_zone: f32,
    /// Codes of a row that compete for the budget together; 0 for the whole row.
    pub block_len: usize,
}

/// What is counted rather than trained.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    /// Behind the item prior.
    pub counts: &'a DecayedCounts,
    /// Behind the neighbours.
    pub neighbours: &'a NeighbourCounts,
}

/// What the items of a state are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemView {
    /// Id.
    pub item_id: ItemId,
    /// Whether it may be recommended.
    pub available: bool,
}

/// Rows that differ, or may differ, from what is published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirtyRows {
    /// Id rows and biases.
    pub learned: BTreeSet<u32>,
    /// Counts.
    pub counted: BTreeSet<u32>,
    /// Texts and features.
    pub content: BTreeSet<u32>,
}

/// The first state of a model: everything quantized at the exponents that suit it best.
#[must_use]
pub fn first_state(
    parameters: &ParameterSet,
    counted: Counted<'_>,
    items: &[ItemView],
) -> CodeState {
    let mut state = without_neighbours(parameters, counted.counts, items);
    write_neighbours(&mut state, counted.neighbours);
    state
}

/// The same with the neighbours of `live`, whose items come first in `items`: what fast versions would be if they owed
/// nothing to the codes before them.
#[must_use]
pub fn anew_state(
    live: &CodeState,
    parameters: &ParameterSet,
    counts: &DecayedCounts,
    items: &[ItemView],
) -> CodeState {
    let mut state = without_neighbours(parameters, counts, items);
    for name in [NEIGHBOURS_TENSOR, NEIGHBOUR_WEIGHTS_TENSOR] {
        if let (Some(kept), Some(tensor)) = (live.tensor(name), state.tensor_mut(name)) {
            tensor.exponents[..kept.num_rows].copy_from_slice(&kept.exponents);
            tensor.codes[..kept.codes.len()].copy_from_slice(&kept.codes);
        }
    }
    state
}

fn without_neighbours(
    parameters: &ParameterSet,
    counts: &DecayedCounts,
    items: &[ItemView],
) -> CodeState {
    let mut state = CodeState::empty(parameters.spec.clone());
    state.landmark_millis = counts.landmark_millis;
    append_items(&mut state, items);
    for (shape, values) in parameters.shapes().iter().zip(&parameters.tensors) {
        if shape.name == "item.counts" || shape.group == TensorGroup::Neighbours {
            continue;
        }
        for row_idx in 0..shape.num_rows {
            let row = &values[row_idx * shape.num_cols..(row_idx + 1) * shape.num_cols];
            let exponent = match shape.group {
                TensorGroup::Content => exponent_for(max_abs(row), shape.code_bits),
                TensorGroup::Fast | TensorGroup::Slow | TensorGroup::Neighbours => {
                    scales::exponent_of(None, row, shape.code_bits)
                }
            };
            write_row(&mut state, &shape.name, row_idx, exponent, row);
        }
    }
    for item_idx in 0..items.len() {
        write_counts(&mut state, item_idx, counts);
    }
    state
}

/// The next fast state. Rows that were sent leave `dirty`.
#[must_use]
pub fn fast_state(
    live: &CodeState,
    parameters: &ParameterSet,
    counts: &DecayedCounts,
    items: &[ItemView],
    dirty: &mut DirtyRows,
    config: &CompressConfig,
) -> CodeState {
    let mut state = live.clone();
    state.landmark_millis = counts.landmark_millis;
    append_items(&mut state, items);
    for item_idx in std::mem::take(&mut dirty.content) {
        write_content(&mut state, item_idx as usize, parameters);
    }
    for item_idx in std::mem::take(&mut dirty.counted) {
        write_counts(&mut state, item_idx as usize, counts);
    }
    move_codes(
        &mut state,
        "prior.weights",
        0,
        parameters.tensor("prior.weights"),
        config.dead_zone,
    );
    if parameters.spec.has_taste_weight {
        let weight = parameters.tensor(TASTE_WEIGHT);
        move_codes(&mut state, TASTE_WEIGHT, 0, weight, config.dead_zone);
    }
    if parameters.spec.num_neighbours > 0 {
        let weight = parameters.tensor("neighbour.weight");
        move_codes(&mut state, "neighbour.weight", 0, weight, config.dead_zone);
    }
    send_best_rows(&mut state, parameters, dirty, config);
    state
}

/// The next release state: the slow group and the neighbours whole, and every dirty row.
#[must_use]
pub fn release_state(
    live: &CodeState,
    parameters: &ParameterSet,
    counted: Counted<'_>,
    items: &[ItemView],
    dirty: &mut DirtyRows,
) -> CodeState {
    let everything = CompressConfig {
        bytes_budget: usize::MAX,
        dead_zone: 0.5,
        block_len: 0,
    };
    let mut state = fast_state(live, parameters, counted.counts, items, dirty, &everything);
    write_neighbours(&mut state, counted.neighbours);
    for (shape, values) in parameters.shapes().iter().zip(&parameters.tensors) {
        if shape.group != TensorGroup::Slow {
            continue;
        }
        for row_idx in 0..shape.num_rows {
            let row = &values[row_idx * shape.num_cols..(row_idx + 1) * shape.num_cols];
            move_codes(&mut state, &shape.name, row_idx, row, everything.dead_zone);
        }
    }
    state
}

/// Appends new items and copies availability.
fn append_items(state: &mut CodeState, items: &[ItemView]) {
    let num_known = state.items.len();
    for (entry, item) in state.items.iter_mut().zip(items) {
        entry.available = item.available;
    }
    let appended = items.iter().skip(num_known);
    state.append_items(appended.map(|item| ItemEntry {
        item_id: item.item_id.clone(),
        available: item.available,
    }));
}

/// A row after the codes that earned it have moved.
struct MovedRow {
    exponent: i8,
    codes: Vec<i16>,
    /// `[num_cols]`: steps that each code moved from where the base, rescaled, has it.
    steps: Vec<u16>,
    /// `[num_cols]`: squared residual removed.
    gains: Vec<f32>,
}

fn moved(
    state: &CodeState,
    name: &str,
    row_idx: usize,
    values: &[f32],
    dead_zone: f32,
) -> MovedRow {
    let tensor = state.tensor(name).expect("names are the spec's");
    let bits = tensor.code_bits;
    let base_exponent = tensor.exponents[row_idx];
    let dead_zone = scales::dead_zone(dead_zone, bits);
    let exponent = scales::exponent_of(Some(base_exponent), values, bits);
    let shift = exponent - base_exponent; // both within ±40
    let step = dequantize(1, exponent);
    let mut row = MovedRow {
        exponent,
        codes: Vec::with_capacity(values.len()),
        steps: vec![0; values.len()],
        gains: vec![0.0; values.len()],
    };
    for (col_idx, (value, base_code)) in values.iter().zip(tensor.row(row_idx)).enumerate() {
        let code = rescale_code(*base_code, shift, bits);
        let residual = value / step - f32::from(code);
        if residual.abs() <= dead_zone {
            row.codes.push(code);
            continue;
        }
        let target = quantize(*value, exponent, bits);
        let left = value / step - f32::from(target);
        row.gains[col_idx] = (residual * residual - left * left) * step * step;
        row.steps[col_idx] = target.abs_diff(code);
        row.codes.push(target);
    }
    row
}

fn move_codes(state: &mut CodeState, name: &str, row_idx: usize, values: &[f32], dead_zone: f32) {
    let row = moved(state, name, row_idx, values, dead_zone);
    let tensor = state.tensor_mut(name).expect("names are the spec's");
    tensor.exponents[row_idx] = row.exponent;
    tensor.row_mut(row_idx).copy_from_slice(&row.codes);
}

fn write_row(state: &mut CodeState, name: &str, row_idx: usize, exponent: i8, values: &[f32]) {
    let tensor = state.tensor_mut(name).expect("names are the spec's");
    let bits = tensor.code_bits;
    tensor.exponents[row_idx] = exponent;
    for (code, value) in tensor.row_mut(row_idx).iter_mut().zip(values) {
        *code = quantize(*value, exponent, bits);
    }
}

fn write_content(state: &mut CodeState, item_idx: usize, parameters: &ParameterSet) {
    let spec: &ModelSpec = &parameters.spec;
    for (name, num_cols) in [
        ("item.text", spec.text_dim),
        ("item.features", spec.feature_dim),
    ] {
        let num_cols = num_cols as usize;
        let row = &parameters.tensor(name)[item_idx * num_cols..(item_idx + 1) * num_cols];
        let bits = state.tensor(name).expect("names are the spec's").code_bits;
        let exponent = exponent_for(max_abs(row), bits);
        write_row(state, name, item_idx, exponent, row);
    }
}

fn write_counts(state: &mut CodeState, item_idx: usize, counts: &DecayedCounts) {
    let tensor = state
        .tensor_mut("item.counts")
        .expect("names are the spec's");
    tensor
        .row_mut(item_idx)
        .copy_from_slice(&counts.codes(item_idx));
}

/// Largest magnitude; 0 for none.
pub(crate) fn max_abs(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, value| value.abs().max(max))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::train::init::init_parameters;

    fn counted<'a>(counts: &'a DecayedCounts, neighbours: &'a NeighbourCounts) -> Counted<'a> {
        Counted { counts, neighbours }
    }

    pub(crate) fn fixture() -> (ParameterSet, DecayedCounts, Vec<ItemView>) {
        let spec = ModelSpec {
            embedding_dim: 8,
            num_heads: 1,
            text_dim: 4,
            ..ModelSpec::default()
        };
        let mut parameters = init_parameters(&spec, 6, 1);
        for (idx, value) in parameters.tensor_mut("item.id_rows").iter_mut().enumerate() {
            *value = ((idx % 13) as f32 - 6.0) / 10.0;
        }
        let mut counts = DecayedCounts::new(spec.half_lives_secs.clone(), 0);
        counts.grow(6);
        let item = |idx| ItemView {
            item_id: ItemId::new(format!("i{idx}")).expect("valid"),
            available: true,
        };
        (parameters, counts, (0..6).map(item).collect())
    }

    #[test]
    fn small_changes_wait_in_the_residual_until_they_have_earned_a_code() {
        let (mut parameters, counts, items) = fixture();
        let none = NeighbourCounts::default();
        let live = first_state(&parameters, counted(&counts, &none), &items);
        let step = dequantize(
            1,
            live.tensor("item.id_rows").expect("in spec").exponents[0],
        );
        let config = CompressConfig {
            bytes_budget: 1000,
            dead_zone: 0.75,
            block_len: 0,
        };
        let mut sent = Vec::new();
        for _ in 0..4 {
            parameters.tensor_mut("item.id_rows")[0] += 0.4 * step;
            let mut dirty = DirtyRows {
                learned: BTreeSet::from([0]),
                ..DirtyRows::default()
            };
            let next = fast_state(&live, &parameters, &counts, &items, &mut dirty, &config);
            sent.push(next.hash() != live.hash());
        }
        assert!(!sent[0] && sent[3], "{sent:?}");
    }

    #[test]
    fn rows_beyond_the_budget_stay_dirty_and_are_sent_later() {
        let (mut parameters, counts, items) = fixture();
        let none = NeighbourCounts::default();
        let live = first_state(&parameters, counted(&counts, &none), &items);
        for value in parameters.tensor_mut("item.id_rows") {
            *value += 0.05;
        }
        let mut dirty = DirtyRows {
            learned: (0..6).collect(),
            ..DirtyRows::default()
        };
        let config = CompressConfig {
            bytes_budget: 20,
            dead_zone: 0.75,
            block_len: 0,
        };
        let mut state = fast_state(&live, &parameters, &counts, &items, &mut dirty, &config);
        assert!(!dirty.learned.is_empty() && dirty.learned.len() < 6);
        while !dirty.learned.is_empty() {
            state = fast_state(&state, &parameters, &counts, &items, &mut dirty, &config);
        }
        let reconstructed = ParameterSet::from_state(&state);
        let worst = reconstructed
            .tensor("item.id_rows")
            .iter()
            .zip(parameters.tensor("item.id_rows"));
        let worst = worst.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let step = dequantize(
            1,
            state.tensor("item.id_rows").expect("in spec").exponents[0],
        );
        assert!(worst <= 0.75 * step, "{worst} against a step of {step}");
    }

    #[test]
    fn new_items_and_availability_reach_the_state() {
        let (mut parameters, mut counts, mut items) = fixture();
        let none = NeighbourCounts::default();
        let live = first_state(&parameters, counted(&counts, &none), &items);
        parameters.grow_items(1);
        counts.grow(7);
        items[2].available = false;
        items.push(ItemView {
            item_id: ItemId::new("new").expect("valid"),
            available: true,
        });
        let mut dirty = DirtyRows {
            content: BTreeSet::from([6]),
            ..DirtyRows::default()
        };
        let config = CompressConfig {
            bytes_budget: 1000,
            dead_zone: 0.75,
            block_len: 0,
        };
        let state = fast_state(&live, &parameters, &counts, &items, &mut dirty, &config);
        assert_eq!(state.check(), Ok(()));
        assert_eq!((state.items.len(), state.items[2].available), (7, false));
    }

    #[test]
    fn texts_of_new_items_are_whole_at_every_width() {
        for (text_code_bits, error_max) in [(4, 0.07), (8, 0.004)] {
            let (parameters, counts, items) = fixture();
            let spec = ModelSpec {
                text_dim: 3,
                text_code_bits,
                ..parameters.spec.clone()
            };
            let mut parameters = init_parameters(&spec, 6, 1);
            let none = NeighbourCounts::default();
            let live = first_state(&parameters, counted(&counts, &none), &items);
            let text = [0.9, -0.5, 0.2];
            parameters.tensor_mut("item.text")[3..6].copy_from_slice(&text);
            let mut dirty = DirtyRows {
                content: BTreeSet::from([1]),
                ..DirtyRows::default()
            };
            let config = CompressConfig {
                bytes_budget: 1000,
                dead_zone: 0.75,
                block_len: 0,
            };
            let state = fast_state(&live, &parameters, &counts, &items, &mut dirty, &config);
            let row = state
                .tensor("item.text")
                .expect("in the spec")
                .dequantize_row(1);
            for (value, code) in text.iter().zip(&row) {
                assert!(
                    (value - code).abs() <= error_max,
                    "{text_code_bits}: {row:?}"
                );
            }
        }
    }

    #[test]
    fn what_users_had_together_reaches_the_state_with_a_release_only() {
        let (mut parameters, counts, items) = fixture();
        parameters = init_parameters(
            &ModelSpec {
                num_neighbours: 2,
                ..parameters.spec.clone()
            },
            6,
            1,
        );
        let mut neighbours = NeighbourCounts::default();
        neighbours.grow(6);
        neighbours.add(0, 5);
        let live = first_state(&parameters, counted(&counts, &neighbours), &items);
        neighbours.add(0, 2);
        let config = CompressConfig {
            bytes_budget: 1000,
            dead_zone: 0.75,
            block_len: 0,
        };
        let mut dirty = DirtyRows::default();
        let fast = fast_state(&live, &parameters, &counts, &items, &mut dirty, &config);
        let table = |state: &CodeState| {
            state
                .tensor(NEIGHBOURS_TENSOR)
                .expect("in the spec")
                .clone()
        };
        assert_eq!(table(&fast), table(&live));

        let counted = counted(&counts, &neighbours);
        let release = release_state(&fast, &parameters, counted, &items, &mut dirty);

        assert_eq!(release.check(), Ok(()));
        assert_eq!(table(&release).row(5), [3, 0]);
        let weights = release
            .tensor(NEIGHBOUR_WEIGHTS_TENSOR)
            .expect("in the spec");
        assert!(
            (weights.dequantize_row(5)[0] - 1.0).abs() < 0.01,
            "one user had both and nothing else"
        );
    }
}
