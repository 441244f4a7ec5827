//! Movement: what is different between the codes of two versions, for people.
//!
//! Input: two code states. Rows are compared as codes; how far a row moved is the Euclidean distance of its values, in
//! the units of embeddings, where a whole item vector has a length of about 1. Not here: encoded differences (`codec`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::codec::state::{CodeState, CodeTensor};
use shared_model::ids::ItemId;
use shared_model::spec::{TensorGroup, TensorShape};

/// Items named as moved most.
pub const MOVED_MOST_LEN: usize = 10;

const ID_ROWS_TENSOR: &str = "item.id_rows";

/// An item and how far its id row moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MovedItem {
    /// The item.
    pub item_id: ItemId,
    /// Euclidean distance of the values of its id row, in embedding units.
    pub distance: f32,
}

/// What moved among the items of two versions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Movement {
    /// Id rows with another code or exponent, of items that both versions have.
    pub num_rows: u64,
    /// Items that the base did not have.
    pub num_new_items: u64,
    /// Those that moved most, farthest first; of equals in the order of items.
    pub moved_most: Vec<MovedItem>,
}

/// What changed in one tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TensorChange {
    /// Its name.
    pub name: String,
    /// When it may change.
    pub group: TensorGroup,
    /// Rows that both have with another code or exponent.
    pub rows_changed: u64,
    /// Rows that only the target has.
    pub rows_new: u64,
    /// Rows that only the base has; 0 unless the target is of fewer items.
    pub rows_gone: u64,
    /// Codes that differ in rows that both have.
    pub codes_changed: u64,
}

/// Compares two states; from `base` to `target`.
#[must_use]
pub fn movement(base: &CodeState, target: &CodeState) -> Movement {
    let num_common = num_common_items(base, target);
    let mut found = Movement {
        num_new_items: (target.items.len() - num_common) as u64, // usize fits u64
        ..Movement::default()
    };
    let (Some(before), Some(after)) = (base.tensor(ID_ROWS_TENSOR), target.tensor(ID_ROWS_TENSOR))
    else {
        return found;
    };
    if before.num_cols != after.num_cols {
        return found; // of another model: no row has an earlier self
    }
    let mut moved: Vec<(usize, f32)> = Vec::new();
    for row_idx in 0..num_common {
        if is_changed(before, after, row_idx) {
            moved.push((row_idx, distance(before, after, row_idx)));
        }
    }
    found.num_rows = moved.len() as u64; // usize fits u64
    moved.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let named = moved.iter().take(MOVED_MOST_LEN);
    found.moved_most = named
        .map(|(row_idx, distance)| MovedItem {
            item_id: target.items[*row_idx].item_id.clone(),
            distance: *distance,
        })
        .collect();
    found
}

/// What changed per tensor, in the order of the target's spec; tensors that the base does not have are all new.
#[must_use]
pub fn tensor_changes(base: &CodeState, target: &CodeState) -> Vec<TensorChange> {
    let shapes = target.shapes();
    let pairs = shapes.into_iter().zip(&target.tensors);
    let change = |(shape, after): (TensorShape, &CodeTensor)| {
        let before = base.tensor(&shape.name);
        let before = before.filter(|before| before.num_cols == after.num_cols);
        let num_before = before.map_or(0, |before| before.num_rows);
        let num_common = num_before.min(after.num_rows);
        let mut change = TensorChange {
            name: shape.name,
            group: shape.group,
            rows_changed: 0,
            rows_new: (after.num_rows - num_common) as u64, // usize fits u64
            rows_gone: (num_before - num_common) as u64,    // likewise
            codes_changed: 0,
        };
        let Some(before) = before else { return change };
        for row_idx in (0..num_common).filter(|row_idx| is_changed(before, after, *row_idx)) {
            let codes = before.row(row_idx).iter().zip(after.row(row_idx));
            change.rows_changed += 1;
            change.codes_changed += codes.filter(|(a, b)| a != b).count() as u64; // usize fits u64
        }
        change
    };
    pairs.map(change).collect()
}

/// Items at the front that both have in the same order.
fn num_common_items(base: &CodeState, target: &CodeState) -> usize {
    let pairs = base.items.iter().zip(&target.items);
    pairs
        .take_while(|(before, after)| before.item_id == after.item_id)
        .count()
}

fn is_changed(before: &CodeTensor, after: &CodeTensor, row_idx: usize) -> bool {
    before.exponents[row_idx] != after.exponents[row_idx]
        || before.row(row_idx) != after.row(row_idx)
}

fn distance(before: &CodeTensor, after: &CodeTensor, row_idx: usize) -> f32 {
    let (before, after) = (
        before.dequantize_row(row_idx),
        after.dequantize_row(row_idx),
    );
    let pairs = before.iter().zip(&after);
    let squared: f32 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
    squared.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_model::codec::state::ItemEntry;
    use shared_model::spec::ModelSpec;

    fn state(num_items: usize) -> CodeState {
        let mut state = CodeState::empty(ModelSpec::default());
        state.append_items((0..num_items).map(|idx| ItemEntry {
            item_id: ItemId::new(format!("item{idx}")).expect("short"),
            available: true,
        }));
        let rows = state.tensor_mut(ID_ROWS_TENSOR).expect("in the spec");
        rows.exponents.fill(-7);
        state
    }

    #[test]
    fn rows_that_moved_are_counted_and_the_farthest_are_named_first() {
        let base = state(30);
        let mut target = state(32);
        let rows = target.tensor_mut(ID_ROWS_TENSOR).expect("in the spec");
        for row_idx in 3..20 {
            rows.row_mut(row_idx)[0] = row_idx as i16 * 2; // small
        }
        rows.row_mut(25)[1] = -128 + 1;

        let found = movement(&base, &target);

        assert_eq!((found.num_rows, found.num_new_items), (18, 2));
        assert_eq!(found.moved_most.len(), MOVED_MOST_LEN);
        let first = &found.moved_most[0];
        assert_eq!(first.item_id.as_str(), "item25");
        assert!((first.distance - 127.0 / 128.0).abs() < 1e-6);
        assert_eq!(found.moved_most[1].item_id.as_str(), "item19");
    }

    #[test]
    fn equal_states_move_nothing_and_every_tensor_is_listed() {
        let state = state(5);
        assert_eq!(movement(&state, &state), Movement::default());
        let changes = tensor_changes(&state, &state);
        assert_eq!(changes.len(), state.tensors.len());
        assert!(
            changes
                .iter()
                .all(|change| change.rows_changed == 0 && change.rows_new == 0)
        );
    }

    #[test]
    fn changed_codes_exponents_and_new_rows_are_counted_apart() {
        let base = state(5);
        let mut target = state(7);
        let rows = target.tensor_mut(ID_ROWS_TENSOR).expect("in the spec");
        rows.row_mut(0)[..3].fill(9);
        rows.exponents[1] = -6; // all codes are 0: the row says the same with another exponent

        let changes = tensor_changes(&base, &target);
        let mut named = changes
            .iter()
            .filter(|change| change.name == ID_ROWS_TENSOR);
        let rows = named.next().expect("listed");
        assert_eq!(
            (rows.rows_changed, rows.codes_changed, rows.rows_new),
            (2, 3, 2)
        );
        let back = tensor_changes(&target, &base);
        let mut named = back.iter().filter(|change| change.name == ID_ROWS_TENSOR);
        assert_eq!(named.next().map(|rows| rows.rows_gone), Some(2));
    }

    #[test]
    fn an_item_that_took_the_place_of_another_did_not_move() {
        let base = state(4);
        let mut target = state(4);
        target.items[2].item_id = ItemId::new("other").expect("short");
        let rows = target.tensor_mut(ID_ROWS_TENSOR).expect("in the spec");
        rows.row_mut(3)[0] = 5;
        let found = movement(&base, &target);
        assert_eq!((found.num_rows, found.num_new_items), (0, 2));
    }
}
