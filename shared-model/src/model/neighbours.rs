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
//! As codes: `item.neighbours` holds item index + 1, 0 for an empty slot; `item.neighbour_weights` the
//! cosines. Slots keep their place from version to version, so that one new neighbour changes one code.

use std::collections::HashMap;

use crate::codec::state::CodeState;

pub use crate::codec::state::{NEIGHBOUR_WEIGHTS_TENSOR, NEIGHBOURS_TENSOR};

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

    /// Items that gain from a history and how much, in no particular order.
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
        let mut sums: HashMap<u32, f32> = HashMap::new();
        for item_idx in recent {
            let first = item_idx as usize * self.num_slots;
            let slots = first..first + self.num_slots;
            for (code, cosine) in self.codes[slots.clone()].iter().zip(&self.cosines[slots]) {
                if *code > 0 {
                    *sums.entry(*code as u32 - 1).or_default() += cosine; // above 0, fits
                }
            }
        }
        let gain = |(item_idx, sum): (u32, f32)| (item_idx, (1.0 + sum / EPSILON).ln());
        sums.into_iter().map(gain).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::state::ItemEntry;
    use crate::ids::ItemId;
    use crate::spec::ModelSpec;

    /// Item 0 has the neighbours 1 and 2, item 1 has 2, item 2 none.
    fn table() -> Neighbours {
        let spec = ModelSpec {
            num_neighbours: 2,
            ..ModelSpec::default()
        };
        let mut state = CodeState::empty(spec);
        state.append_items((0..3).map(|idx| ItemEntry {
            item_id: ItemId::new(format!("i{idx}")).expect("short"),
            available: true,
        }));
        let rows = [(0, [2, 3], [64, 32]), (1, [3, 0], [16, 0])];
        for (row_idx, codes, weights) in rows {
            let table = state.tensor_mut(NEIGHBOURS_TENSOR).expect("in the spec");
            table.row_mut(row_idx).copy_from_slice(&codes);
            let table = state
                .tensor_mut(NEIGHBOUR_WEIGHTS_TENSOR)
                .expect("in the spec");
            table.exponents[row_idx] = -7;
            table.row_mut(row_idx).copy_from_slice(&weights);
        }
        assert_eq!(state.check(), Ok(()));
        Neighbours::from_state(&state).expect("the spec has neighbours")
    }

    fn sorted(mut gains: Vec<(u32, f32)>) -> Vec<(u32, f32)> {
        gains.sort_by_key(|(item_idx, _)| *item_idx);
        gains
    }

    #[test]
    fn cosines_of_the_recent_items_add_up_and_repeats_count_once() {
        let gain = |sum: f32| (1.0 + sum / EPSILON).ln();
        let expected = vec![(1, gain(0.5)), (2, gain(0.25 + 0.125))];
        let table = table();
        assert_eq!(sorted(table.gains([0, 1].into_iter())), expected);
        assert_eq!(sorted(table.gains([1, 0, 1, 1, 9].into_iter())), expected);
        assert_eq!(table.gains([2].into_iter()), vec![]);
        assert_eq!(table.gains([].into_iter()), vec![]);
    }

    #[test]
    fn only_the_newest_distinct_items_are_asked() {
        let mut history = vec![0];
        history.extend(std::iter::repeat_n(1, 3));
        assert_eq!(table().gains(history.iter().copied()).len(), 2);
        let spec = ModelSpec::default();
        assert_eq!(Neighbours::from_state(&CodeState::empty(spec)), None);
    }
}
