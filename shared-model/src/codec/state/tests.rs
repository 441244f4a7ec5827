//! Claims about states, their checks and their hash.

use super::*;
use crate::model::prior;
use crate::spec::NUM_ITEMS_MAX;

fn state_with(ids: &[&str]) -> CodeState {
    let spec = ModelSpec {
        embedding_dim: 4,
        text_dim: 3,
        ff_dim: 4,
        history_len: 2,
        ..ModelSpec::default()
    };
    let mut state = CodeState::empty(spec);
    let entry = |id: &&str| ItemEntry {
        item_id: ItemId::new(*id).expect("valid"),
        available: true,
    };
    state.append_items(ids.iter().map(entry));
    state
}

#[test]
fn counts_constants_agree_with_the_item_prior() {
    assert_eq!(COUNT_EXPONENT, prior::COUNT_EXPONENT);
    assert_eq!(NEVER_CODE, prior::NEVER_CODE);
}

#[test]
fn empty_and_grown_states_are_valid() {
    assert_eq!(state_with(&[]).check(), Ok(()));
    let state = state_with(&["a", "b"]);
    assert_eq!(state.check(), Ok(()));
    assert_eq!(
        state
            .tensor("item.id_rows")
            .map(|tensor| tensor.codes.len()),
        Some(8)
    );
    assert_eq!(
        state.tensor(COUNTS_TENSOR).map(|tensor| tensor.codes[0]),
        Some(NEVER_CODE)
    );
}

#[test]
fn refuses_duplicate_items() {
    let error = state_with(&["a", "b", "a"]).check();
    assert_eq!(
        error,
        Err(StateError::DuplicateItem {
            item_id: ItemId::new("a").expect("valid")
        })
    );
}

#[test]
fn refuses_shapes_that_are_not_the_specs() {
    let mut state = state_with(&["a"]);
    state.tensors.pop();
    assert!(matches!(state.check(), Err(StateError::NumTensors { .. })));
    let mut state = state_with(&["a"]);
    state.tensors[0].num_cols = 5;
    assert!(matches!(state.check(), Err(StateError::Shape { .. })));
    let mut state = state_with(&["a"]);
    state.tensors[0].codes.push(0);
    assert!(matches!(state.check(), Err(StateError::Length { .. })));
    let mut state = state_with(&["a"]);
    state.spec.embedding_dim = 0;
    assert!(matches!(state.check(), Err(StateError::Spec(_))));
}

#[test]
fn refuses_codes_and_exponents_out_of_range() {
    let mut state = state_with(&["a"]);
    state.tensors[0].codes[1] = -128;
    assert!(matches!(
        state.check(),
        Err(StateError::Code { actual: -128, .. })
    ));
    let mut state = state_with(&["a"]);
    state
        .tensor_mut("prior.weights")
        .expect("in the spec")
        .codes[0] = NEVER_CODE;
    assert!(matches!(
        state.check(),
        Err(StateError::Code {
            actual: NEVER_CODE,
            ..
        })
    ));
    let mut state = state_with(&["a"]);
    state
        .tensor_mut(COUNTS_TENSOR)
        .expect("in the spec")
        .exponents[0] = 0;
    assert!(matches!(
        state.check(),
        Err(StateError::Exponent { actual: 0, .. })
    ));
    let mut state = state_with(&["a"]);
    state.tensors[0].exponents[0] = 41;
    assert!(matches!(
        state.check(),
        Err(StateError::Exponent { actual: 41, .. })
    ));
}

#[test]
fn refuses_more_codes_than_allowed() {
    let spec = ModelSpec {
        embedding_dim: 512,
        text_dim: 2048,
        ..ModelSpec::default()
    };
    assert!(matches!(
        check_size(&spec, NUM_ITEMS_MAX),
        Err(StateError::NumCodes { .. })
    ));
    assert!(matches!(
        check_size(&spec, NUM_ITEMS_MAX + 1),
        Err(StateError::NumItems { .. })
    ));
}

#[test]
fn hash_sees_every_part_of_the_state() {
    let state = state_with(&["a", "b"]);
    let changes: [fn(&mut CodeState); 6] = [
        |state| state.encoder_generation = 1,
        |state| state.landmark_millis = 1,
        |state| state.items[1].available = false,
        |state| state.items.swap(0, 1),
        |state| state.tensors[0].codes[7] = 1,
        |state| state.tensors[0].exponents[0] += 1,
    ];
    for change in changes {
        let mut changed = state.clone();
        change(&mut changed);
        assert_ne!(changed.hash(), state.hash());
    }
    assert_eq!(state.clone().hash(), state.hash());
}

#[test]
fn rows_dequantize_by_their_own_exponent() {
    let mut state = state_with(&["a", "b"]);
    let tensor = &mut state.tensors[0];
    tensor.row_mut(1).copy_from_slice(&[1, -2, 0, 127]);
    tensor.exponents[1] = -1;
    assert_eq!(tensor.dequantize_row(1), [0.5, -1.0, 0.0, 63.5]);
    assert_eq!(tensor.dequantize()[4..], [0.5, -1.0, 0.0, 63.5]);
}
