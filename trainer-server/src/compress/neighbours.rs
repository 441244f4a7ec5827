//! Neighbours as codes: counts of users in common become lists whose slots keep their place.
//!
//! Input: the counts and the lists of the live version. Output: the lists of a release.
//! Not here: how a list ranks (`shared_model::model::neighbours`).

use shared_model::codec::state::{CodeState, NEIGHBOUR_WEIGHTS_TENSOR, NEIGHBOURS_TENSOR};
use shared_model::model::neighbours::NEIGHBOUR_ITEMS_MAX;

use super::move_codes;
use crate::train::neighbour_counts::{Neighbour, NeighbourCounts};

/// A neighbour keeps its slot while it is among this many times as many nearest items as there are slots,
/// so that two that take turns at the edge of the list do not travel each time.
const NEIGHBOUR_HYSTERESIS: f32 = 1.25;

/// Lists the nearest items of every item; empty lists where the catalogue is too large for their codes.
pub(super) fn write_neighbours(state: &mut CodeState, neighbours: &NeighbourCounts) {
    let num_slots = state.spec.num_neighbours as usize;
    let num_items = state.items.len();
    if num_slots == 0 {
        return;
    }
    if num_items > NEIGHBOUR_ITEMS_MAX {
        for name in [NEIGHBOURS_TENSOR, NEIGHBOUR_WEIGHTS_TENSOR] {
            state.tensor_mut(name).expect("in the spec").codes.fill(0);
        }
        return;
    }
    let num_kept = (num_slots as f32 * NEIGHBOUR_HYSTERESIS) as usize; // a few hundred at most
    for item_idx in 0..num_items {
        let nearest = neighbours.nearest(item_idx as u32, num_kept); // fits: 15 bits
        let tensor = state.tensor_mut(NEIGHBOURS_TENSOR).expect("in the spec");
        let slots = fill_slots(tensor.row(item_idx), &nearest);
        let codes = slots
            .iter()
            .map(|slot| slot.map_or(0, |(item_idx, _)| item_idx as i16 + 1)); // fits: 15 bits
        for (cell, code) in tensor.row_mut(item_idx).iter_mut().zip(codes) {
            *cell = code;
        }
        let cosines: Vec<f32> = slots
            .iter()
            .map(|slot| slot.map_or(0.0, |(_, cosine)| cosine))
            .collect();
        move_codes(state, NEIGHBOUR_WEIGHTS_TENSOR, item_idx, &cosines, 0.5);
    }
}

/// Keeps those that are near still where they are, and puts the nearest of the others into the free slots.
fn fill_slots(codes: &[i16], nearest: &[Neighbour]) -> Vec<Option<Neighbour>> {
    let stays = |code: &i16| {
        let known = nearest
            .iter()
            .find(|(item_idx, _)| *item_idx as i16 + 1 == *code); // fits: 15 bits
        known.copied()
    };
    let mut slots: Vec<Option<Neighbour>> = codes.iter().map(stays).collect();
    let kept: Vec<u32> = slots
        .iter()
        .flatten()
        .map(|(item_idx, _)| *item_idx)
        .collect();
    let mut others = nearest
        .iter()
        .filter(|(item_idx, _)| !kept.contains(item_idx));
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = others.next().copied();
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_model::codec::state::ItemEntry;
    use shared_model::ids::ItemId;
    use shared_model::spec::ModelSpec;

    #[test]
    fn neighbours_keep_their_slots_and_the_nearest_newcomer_takes_a_free_one() {
        let nearest = [(4, 0.9), (1, 0.8), (2, 0.7), (3, 0.1)];
        let slots = fill_slots(&[3, 9, 2], &nearest);
        assert_eq!(slots, vec![Some((2, 0.7)), Some((4, 0.9)), Some((1, 0.8))]);
        assert_eq!(
            fill_slots(&[0, 0], &nearest[..1]),
            vec![Some((4, 0.9)), None]
        );
    }

    #[test]
    fn a_catalogue_that_outgrew_its_codes_loses_its_lists() {
        let spec = ModelSpec {
            embedding_dim: 4,
            num_heads: 1,
            text_dim: 0,
            num_neighbours: 1,
            ..ModelSpec::default()
        };
        let mut counts = NeighbourCounts::default();
        counts.grow(NEIGHBOUR_ITEMS_MAX + 1);
        counts.add(0, 0);
        counts.add(0, 1);
        let mut state = CodeState::empty(spec);
        let item = |idx: usize| ItemEntry {
            item_id: ItemId::new(format!("i{idx}")).expect("short"),
            available: true,
        };
        state.append_items((0..NEIGHBOUR_ITEMS_MAX).map(item));
        write_neighbours(&mut state, &counts);
        let first =
            |state: &CodeState| state.tensor(NEIGHBOURS_TENSOR).expect("in the spec").codes[0];
        assert_eq!(first(&state), 2);
        assert_eq!(state.check(), Ok(()));

        state.append_items([item(NEIGHBOUR_ITEMS_MAX)]);
        write_neighbours(&mut state, &counts);

        assert_eq!(first(&state), 0);
        assert_eq!(state.check(), Ok(()));
    }
}
