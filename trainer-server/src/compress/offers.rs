//! Offers: which changed rows, or blocks of them, go into a version of so many bytes.
//!
//! Every part that has earned a move offers its gain (squared residual removed) for its estimated bytes. The best
//! gain per byte goes first; what no longer fits stays dirty and competes again in the next version.
//! A row whose exponent changes goes whole: all its codes are on the new scale.

use std::ops::Range;

use shared_model::codec::state::CodeState;
use shared_model::model::parameters::ParameterSet;

use super::{CompressConfig, DirtyRows, MovedRow, moved};

/// Estimated bytes of naming a changed row.
const ROW_BYTES: f32 = 2.0;
/// Estimated bytes of one changed code.
const CODE_BYTES: f32 = 0.75;

/// A part of a row that could be sent, and what that would do.
struct Offer {
    item_idx: u32,
    /// Of the id row; the whole row where `is_whole`.
    cols: Range<usize>,
    /// Whether bias and exponent go along.
    is_whole: bool,
    gain: f32,
    bytes: f32,
}

/// Moves the codes of the best offers within the budget; rows of which nothing is left to send leave `dirty`.
pub(super) fn send_best_rows(
    state: &mut CodeState,
    parameters: &ParameterSet,
    dirty: &mut DirtyRows,
    config: &CompressConfig,
) {
    let learned = Learned::of(parameters, config);
    let mut offers = Vec::new();
    for item_idx in &dirty.learned {
        learned.offer(state, *item_idx, &mut offers);
    }
    offers.sort_by(|a, b| {
        (b.gain / b.bytes)
            .total_cmp(&(a.gain / a.bytes))
            .then(a.item_idx.cmp(&b.item_idx))
            .then(a.cols.start.cmp(&b.cols.start))
    });
    let mut bytes_left = config.bytes_budget as f32;
    let mut waiting = std::collections::BTreeSet::new();
    for offer in offers {
        if offer.bytes > bytes_left {
            waiting.insert(offer.item_idx);
            continue;
        }
        bytes_left -= offer.bytes;
        learned.send(state, &offer);
    }
    // What is within the dead zone goes, too: the next step on it makes it dirty again.
    dirty.learned = waiting;
}

/// The trained id rows and biases.
struct Learned<'a> {
    id_rows: &'a [f32],
    bias: &'a [f32],
    dim: usize,
    config: &'a CompressConfig,
}

impl<'a> Learned<'a> {
    fn of(parameters: &'a ParameterSet, config: &'a CompressConfig) -> Self {
        Self {
            id_rows: parameters.tensor("item.id_rows"),
            bias: parameters.tensor("item.bias"),
            dim: parameters.spec.embedding_dim as usize,
            config,
        }
    }

    /// The id row and the bias as they would be sent.
    fn moved(&self, state: &CodeState, item_idx: u32) -> (MovedRow, MovedRow) {
        let row_idx = item_idx as usize;
        let dead_zone = self.config.dead_zone;
        let values = &self.id_rows[row_idx * self.dim..(row_idx + 1) * self.dim];
        let row = moved(state, "item.id_rows", row_idx, values, dead_zone);
        let bias = &self.bias[row_idx..=row_idx];
        (row, moved(state, "item.bias", row_idx, bias, dead_zone))
    }

    /// What there is to send of one item.
    fn offer(&self, state: &CodeState, item_idx: u32, offers: &mut Vec<Offer>) {
        let (row, bias) = self.moved(state, item_idx);
        let base_exponent = state
            .tensor("item.id_rows")
            .map(|tensor| tensor.exponents[item_idx as usize]);
        let is_whole = self.config.block_len == 0 || base_exponent != Some(row.exponent);
        let block_len = if is_whole {
            self.dim
        } else {
            self.config.block_len
        };
        for start in (0..self.dim).step_by(block_len) {
            let cols = start..(start + block_len).min(self.dim);
            let mut gain: f32 = row.gains[cols.clone()].iter().sum();
            let mut bytes = ROW_BYTES + bytes_of(&row.steps[cols.clone()]);
            if start == 0 {
                gain += bias.gains[0];
                bytes += bytes_of(&bias.steps);
            }
            if gain > 0.0 {
                offers.push(Offer {
                    item_idx,
                    cols,
                    is_whole,
                    gain,
                    bytes,
                });
            }
        }
    }

    fn send(&self, state: &mut CodeState, offer: &Offer) {
        let (row, bias) = self.moved(state, offer.item_idx);
        let row_idx = offer.item_idx as usize;
        let tensor = state.tensor_mut("item.id_rows").expect("in every spec");
        if offer.is_whole {
            tensor.exponents[row_idx] = row.exponent;
        }
        let cols = offer.cols.clone();
        tensor.row_mut(row_idx)[cols.clone()].copy_from_slice(&row.codes[cols.clone()]);
        if cols.start == 0 {
            let tensor = state.tensor_mut("item.bias").expect("in every spec");
            tensor.exponents[row_idx] = bias.exponent;
            tensor.row_mut(row_idx).copy_from_slice(&bias.codes);
        }
    }
}

/// Estimated bytes of codes that move by so many steps each.
fn bytes_of(steps: &[u16]) -> f32 {
    let num_moved = steps.iter().filter(|steps| **steps > 0).count();
    CODE_BYTES * num_moved as f32
}
