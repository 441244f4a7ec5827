//! Neighbours: which items go together, counted over users rather than trained.
//!
//! Item-kNN (Deshpande & Karypis 2004) as a part of the model: every item lists the items most often had
//! by the same users, with the cosine `c_ij / √(n_i·n_j)`. A history adds
//!
//! ```text
//! s_j = Σ_(q in the last items) cosine(q, j)          gain_j = ln(1 + s_j / ε)
//! score_j += w · gain_j                               w learned, one number
//! ```
//!
//! Attention generalises over items, a table remembers pairs: what one cannot hold in `embedding_dim`
//! numbers the other has written down. An item that is nobody's neighbour gains nothing, so ranking
//! touches some hundred items, not the catalogue.
//!
//! Full steps train without it: today's lists would tell old windows their future.
//!
//! As codes: `item.neighbours` holds item index + 1, 0 for an empty slot; `item.neighbour_weights` the
//! cosines. Slots keep their place from version to version, so that one new neighbour changes one code.

use crate::codec::state::CodeState;

pub use crate::codec::state::{NEIGHBOUR_WEIGHTS_TENSOR, NEIGHBOURS_TENSOR};

/// Largest catalogue that can have neighbours: indices are 15 bits.
pub const NEIGHBOUR_ITEMS_MAX: usize = i16::MAX as usize; // 32,767

/// Distinct items of a history, the newest first, that are looked up.
pub const NUM_RECENT_ITEMS: usize = 10;
/// Where `ln(1 + s/ε)` turns from linear to logarithmic: one weak neighbour counts, ten do not count tenfold.
const EPSILON: f32 = 0.01;

/// The tables of one version.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    num_slots: usize,
    num_items: usize,
    /// Item index + 1, `[num_items, num_slots]`.
    codes: Vec<i16>,
    /// `[num_items, num_slots]`.
    cosines: Vec<f32>,
}

impl Neighbours {
    /// Of a checked state; `None` where its spec has no neighbours.
    #[must_use]
    pub fn from_state(state: &CodeState) -> Option<Self> {
        let table = state.tensor(NEIGHBOURS_TENSOR)?;
        let weights = state.tensor(NEIGHBOUR_WEIGHTS_TENSOR)?;
        Some(Self {
            num_slots: table.num_cols,
            num_items: table.num_rows,
            codes: table.codes.clone(),
            cosines: weights.dequantize(),
        })
    }

    /// Items that gain from a history and how much, ascending by item.
    ///
    /// `history` is oldest first; items that this version lacks are passed over.
    #[must_use]
    pub fn gains(&self, history: impl DoubleEndedIterator<Item = u32>) -> Vec<(u32, f32)> {
        let mut recent: Vec<u32> = Vec::with_capacity(NUM_RECENT_ITEMS);
        for item_idx in history.rev() {
            if !recent.contains(&item_idx) && (item_idx as usize) < self.num_items {
                recent.push(item_idx);
            }
            if recent.len() == NUM_RECENT_ITEMS {
                break;
            }
        }
        let mut cosines: Vec<(u32, f32)> = Vec::with_capacity(recent.len() * self.num_slots);
        for item_idx in recent {
            let first = item_idx as usize * self.num_slots;
            let slots = first..first + self.num_slots;
            let listed = self.codes[slots.clone()].iter().zip(&self.cosines[slots]);
            let taken = listed.filter(|(code, _)| **code > 0);
            cosines.extend(taken.map(|(code, cosine)| (*code as u32 - 1, *cosine))); // above 0, fits
        }
        // Stable, so that whoever adds them up gets the same bits every time.
        cosines.sort_by_key(|(item_idx, _)| *item_idx);
        let of_items = cosines.chunk_by(|(a, _), (b, _)| a == b);
        let gain = |cosines: &[(u32, f32)]| {
            let sum: f32 = cosines.iter().map(|(_, cosine)| cosine).sum();
            (cosines[0].0, (1.0 + sum / EPSILON).ln())
        };
        of_items.map(gain).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::state::ItemEntry;
    use crate::ids::ItemId;
    use crate::spec::ModelSpec;

    /// A table in which `lists[i]` are the neighbours of item `i` and their codes, in steps of 1/128.
    fn table(lists: &[&[(i16, i16)]]) -> Neighbours {
        let spec = ModelSpec {
            num_neighbours: 2,
            ..ModelSpec::default()
        };
        let mut state = CodeState::empty(spec);
        state.append_items((0..lists.len()).map(|idx| ItemEntry {
            item_id: ItemId::new(format!("i{idx}")).expect("short"),
            available: true,
        }));
        for (row_idx, list) in lists.iter().enumerate() {
            for (slot, (item_idx, weight)) in list.iter().enumerate() {
                let table = state.tensor_mut(NEIGHBOURS_TENSOR).expect("in the spec");
                table.row_mut(row_idx)[slot] = item_idx + 1;
                let table = state
                    .tensor_mut(NEIGHBOUR_WEIGHTS_TENSOR)
                    .expect("in the spec");
                table.exponents[row_idx] = -7;
                table.row_mut(row_idx)[slot] = *weight;
            }
        }
        assert_eq!(state.check(), Ok(()));
        Neighbours::from_state(&state).expect("the spec has neighbours")
    }

    #[test]
    fn cosines_of_the_recent_items_add_up_and_repeats_count_once() {
        let gain = |sum: f32| (1.0 + sum / EPSILON).ln();
        let expected = vec![(1, gain(0.5)), (2, gain(0.25 + 0.125))];
        let table = table(&[&[(1, 64), (2, 32)], &[(2, 16)], &[]]);
        assert_eq!(table.gains([0, 1].into_iter()), expected);
        assert_eq!(table.gains([1, 0, 1, 1, 9].into_iter()), expected);
        assert_eq!(table.gains([2].into_iter()), vec![]);
        assert_eq!(table.gains([].into_iter()), vec![]);
    }

    #[test]
    fn only_the_newest_distinct_items_are_asked_and_gains_come_in_order() {
        let num_items = NUM_RECENT_ITEMS as i16 + 2; // 12
        let own: Vec<[(i16, i16); 1]> = (0..num_items)
            .map(|idx| [(num_items - 1 - idx, 64)])
            .collect();
        let lists: Vec<&[(i16, i16)]> = own.iter().map(|list| &list[..]).collect();
        let gains = table(&lists).gains(0..num_items as u32); // 12
        let asked: Vec<u32> = gains.iter().map(|(item_idx, _)| *item_idx).collect();
        assert_eq!(asked, (0..NUM_RECENT_ITEMS as u32).collect::<Vec<_>>());
    }

    #[test]
    fn a_spec_without_neighbours_has_no_table() {
        let state = CodeState::empty(ModelSpec::default());
        assert_eq!(Neighbours::from_state(&state), None);
    }
}
