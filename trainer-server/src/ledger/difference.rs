//! Difference: what leads from one version to another, and what it would cost to send.
//!
//! Input: two states and their numbers. The delta is made for its size alone and thrown away.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::codec::delta::encode_delta;
use shared_model::codec::state::{CodeState, ItemEntry};
use shared_model::ids::Version;

use super::movement::{Movement, TensorChange, movement, tensor_changes};

/// What is different between two versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The version that is compared with.
    pub base_version: Version,
    /// The version that is asked about.
    pub target_version: Version,
    /// Size of the delta from base to target; `None` where none leads there.
    pub delta_bytes: Option<u64>,
    /// Why no delta leads there: a snapshot does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_delta: Option<String>,
    /// Items of both that became available or no longer are.
    pub availability_flips: u64,
    /// In the order of the target's spec.
    pub tensors: Vec<TensorChange>,
    /// What moved among the items.
    pub movement: Movement,
}

/// A version and its codes.
pub type Numbered<'a> = (Version, &'a CodeState);

/// Compares two versions, whichever is the newer.
#[must_use]
pub fn difference(
    (base_version, base): Numbered<'_>,
    (target_version, target): Numbered<'_>,
) -> Difference {
    // The numbers take the same bytes whatever they are, and those of files need not ascend.
    let encoded = encode_delta(base, Version(1), target, Version(2));
    let (delta_bytes, no_delta) = match encoded {
        Ok(bytes) => (Some(bytes.len() as u64), None), // usize fits u64
        Err(error) => (None, Some(error.to_string())),
    };
    let pairs = base.items.iter().zip(&target.items);
    let is_flip = |(base, target): &(&_, &_)| is_flipped(base, target);
    Difference {
        base_version,
        target_version,
        delta_bytes,
        no_delta,
        availability_flips: pairs.filter(is_flip).count() as u64, // usize fits u64
        tensors: tensor_changes(base, target),
        movement: movement(base, target),
    }
}

fn is_flipped(base: &ItemEntry, target: &ItemEntry) -> bool {
    base.item_id == target.item_id && base.available != target.available
}

#[cfg(test)]
mod tests {
    use super::*;

    use shared_model::ids::ItemId;
    use shared_model::spec::ModelSpec;

    fn state(ids: &[&str]) -> CodeState {
        let mut state = CodeState::empty(ModelSpec::default());
        state.append_items(ids.iter().map(|id| ItemEntry {
            item_id: ItemId::new(*id).expect("short"),
            available: true,
        }));
        state
    }

    #[test]
    fn a_delta_is_measured_in_either_direction_and_where_none_leads_the_reason_is_given() {
        let (base, mut target) = (state(&["a", "b"]), state(&["a", "b"]));
        target.items[1].available = false;
        for pair in [(4, 9), (9, 4)] {
            let found = difference((Version(pair.0), &base), (Version(pair.1), &target));
            assert!(found.delta_bytes.is_some_and(|bytes| bytes >= 89));
            assert_eq!((found.availability_flips, found.no_delta), (1, None));
        }
        let found = difference((Version(1), &base), (Version(2), &state(&["b", "a"])));
        assert_eq!(found.delta_bytes, None);
        assert!(found.no_delta.is_some_and(|why| why.contains("item")));
    }
}
