//! Composition: what the cohort of a release ranks with while everyone's rows go on learning.
//!
//! ```text
//! stable now   = fast rows of now      + slow weights before the release
//! release      = fast rows of its time + slow weights of the release
//! composed     = fast rows of now      + slow weights of the release
//! ```
//! A pure function of two code states: nothing is trained or rounded again, so what the cohort gets is made of codes that
//! passed the gate. Neighbours are counted at releases only, and go with them.

use shared_model::codec::state::CodeState;
use shared_model::spec::{TensorGroup, TensorShape};

/// The codes of `stable` with what the release moved in place. Where it was a refit, which trained every row anew, the
/// rows of the release's items are its own, and only counts, items and availability are of now.
///
/// Both are of one spec and one encoder generation, and the items of `release` are the first of `stable`.
#[must_use]
pub fn composed(stable: &CodeState, release: &CodeState, is_refit: bool) -> CodeState {
    let mut state = stable.clone();
    let shapes = release.shapes();
    let pairs = state.tensors.iter_mut().zip(&release.tensors);
    for (shape, (tensor, released)) in shapes.iter().zip(pairs) {
        if !is_of_release(shape, is_refit) {
            continue;
        }
        // Items that came after the release keep the rows of now.
        let num_rows = released.num_rows.min(tensor.num_rows);
        let num_codes = num_rows * released.num_cols;
        tensor.exponents[..num_rows].copy_from_slice(&released.exponents[..num_rows]);
        tensor.codes[..num_codes].copy_from_slice(&released.codes[..num_codes]);
    }
    state
}

fn is_of_release(shape: &TensorShape, is_refit: bool) -> bool {
    match shape.group {
        TensorGroup::Slow | TensorGroup::Neighbours => true,
        TensorGroup::Fast => is_refit && shape.is_trained(),
        TensorGroup::Content => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_model::codec::state::ItemEntry;
    use shared_model::ids::ItemId;
    use shared_model::spec::ModelSpec;

    /// Every code is `code`, within the range of its tensor.
    fn state(num_items: usize, code: i16) -> CodeState {
        let spec = ModelSpec {
            num_neighbours: 2,
            ..ModelSpec::default()
        };
        let mut state = CodeState::empty(spec);
        state.append_items((0..num_items).map(|idx| ItemEntry {
            item_id: ItemId::new(format!("item{idx}")).expect("short"),
            available: true,
        }));
        for tensor in &mut state.tensors {
            tensor.codes.fill(code);
        }
        state
    }

    /// First and last code of each tensor of a group.
    fn ends(state: &CodeState, group: TensorGroup) -> Vec<(i16, i16)> {
        let shapes = state.shapes();
        let pairs = shapes.iter().zip(&state.tensors);
        let of_group =
            pairs.filter(|(shape, tensor)| shape.group == group && !tensor.codes.is_empty());
        of_group
            .map(|(_, tensor)| (tensor.codes[0], tensor.codes[tensor.codes.len() - 1]))
            .collect()
    }

    #[test]
    fn fast_rows_and_texts_are_of_now_and_slow_weights_of_the_release() {
        let (stable, release) = (state(5, 1), state(3, 2));
        let composed = composed(&stable, &release, false);
        assert_eq!(composed.items, stable.items);
        assert!(
            ends(&composed, TensorGroup::Fast)
                .iter()
                .all(|ends| *ends == (1, 1))
        );
        assert!(
            ends(&composed, TensorGroup::Content)
                .iter()
                .all(|ends| *ends == (1, 1))
        );
        assert!(
            ends(&composed, TensorGroup::Slow)
                .iter()
                .all(|ends| *ends == (2, 2))
        );
        // The last rows are of items that the release did not know.
        assert!(
            ends(&composed, TensorGroup::Neighbours)
                .iter()
                .all(|ends| *ends == (2, 1))
        );
        assert!(!ends(&composed, TensorGroup::Slow).is_empty());
        assert!(!ends(&composed, TensorGroup::Neighbours).is_empty());
    }

    #[test]
    fn a_refit_brings_its_trained_rows_and_counts_stay_those_of_now() {
        let (stable, release) = (state(5, 1), state(3, 2));
        let composed = composed(&stable, &release, true);
        let tensor = |name: &str| composed.tensor(name).expect("in the spec");
        assert_eq!(tensor("item.id_rows").row(2)[0], 2);
        assert_eq!(tensor("item.id_rows").row(3)[0], 1);
        assert_eq!(tensor("item.counts").row(0)[0], 1);
    }

    #[test]
    fn composing_with_oneself_changes_nothing() {
        let stable = state(4, 3);
        for is_refit in [false, true] {
            assert_eq!(composed(&stable, &stable, is_refit), stable);
        }
    }
}
