//! The few states of earlier versions that merged deltas start from, bounded in bytes.

use std::sync::{Arc, Mutex, PoisonError};

use shared_model::codec::state::CodeState;
use shared_model::ids::{BlobId, Version};

/// A state and its hash, which costs a pass over all codes.
#[derive(Debug, Clone)]
pub(super) struct HashedState {
    pub(super) state: Arc<CodeState>,
    pub(super) hash: BlobId,
}

/// Most recently used last.
pub(super) struct StateCache {
    bytes_max: usize,
    states: Mutex<Vec<(Version, HashedState)>>,
}

impl StateCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            states: Mutex::default(),
        }
    }

    /// Keeps a state as the most recently used and drops the others as far as room is short.
    pub(super) fn insert(&self, version: Version, state: HashedState) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|(known, _)| *known != version);
        states.push((version, state));
        let mut bytes: usize = states.iter().map(|(_, state)| bytes_of(&state.state)).sum();
        while bytes > self.bytes_max && !states.is_empty() {
            let (_, dropped) = states.remove(0);
            bytes -= bytes_of(&dropped.state);
        }
    }

    pub(super) fn all(&self) -> Vec<(Version, HashedState)> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.clone()
    }
}

/// Memory of a state: its codes, exponents and item ids, allocations rounded up.
fn bytes_of(state: &CodeState) -> usize {
    let tensors = state
        .tensors
        .iter()
        .map(|tensor| 2 * tensor.codes.len() + tensor.exponents.len());
    tensors.sum::<usize>() + 64 * state.items.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_model::codec::state::ItemEntry;
    use shared_model::ids::ItemId;
    use shared_model::spec::ModelSpec;

    #[test]
    fn the_least_recently_used_state_goes_first_and_one_that_is_too_large_is_not_kept() {
        let mut state = CodeState::empty(ModelSpec::default());
        state.append_items([ItemEntry {
            item_id: ItemId::new("a").expect("short"),
            available: true,
        }]);
        let state = HashedState {
            hash: state.hash(),
            state: Arc::new(state),
        };
        let bytes = bytes_of(&state.state);
        let cache = StateCache::new(2 * bytes);
        for version in [1, 2, 1, 3] {
            cache.insert(Version(version), state.clone());
        }
        let kept: Vec<u64> = cache.all().iter().map(|(version, _)| version.0).collect();
        assert_eq!(kept, [1, 3]);
        let small = StateCache::new(bytes - 1);
        small.insert(Version(1), state);
        assert!(small.all().is_empty());
    }
}
