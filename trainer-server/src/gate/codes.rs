//! Codes of a candidate: every row is the live version's or the one that was trained.
//!
//! ```text
//! learned row    live row, to the bit      or  |value / 2^e − code| ≤ dead zone in every column, or cut off (4 bits)
//! counted row    live row                  or  the codes of the exact counts
//! text, feature  live row                  or  the quantized row of now
//! slow tensors   live rows                 or, in a release, as learned rows
//! neighbours     live rows                 or, in a release, any that `CodeState::check` lets pass
//! ```
//! A row that is neither was mixed up or damaged on its way out of training: a base that is stale, rows that moved
//! place, exponents of other rows, texts of another encoder. Nothing is scored here, so nothing depends on which
//! events came by. Not here: whether what was trained is any good (`gate`).

use shared_model::codec::quantize::{dequantize, exponent_for, quantize};
use shared_model::codec::state::{COUNTS_TENSOR, CodeState, CodeTensor, StateError, blank_row};
use shared_model::manifest::VersionKind;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::{TensorGroup, TensorShape};

use crate::compress::scales::is_cut_off;
use crate::compress::{ItemView, max_abs};
use crate::train::counts::DecayedCounts;

/// What a value may be beyond the dead zone of its code, in code steps: f32 divides by a power of two exactly, but
/// the bound itself is rounded.
const STEP_SLACK: f32 = 1e-3;

/// Largest weight: scores are sums of some hundred products, and e^100 is where a softmax ends.
const VALUE_MAX: f32 = 65_536.0;

/// Why the codes are not what was trained.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CodesError {
    /// The state breaks its own rules.
    #[error(transparent)]
    State(#[from] StateError),
    /// A trained value is no number, or one that no sound weight is near.
    #[error("tensor {tensor} was trained to {value} in row {row_idx}")]
    Value {
        /// Its name.
        tensor: String,
        /// The row.
        row_idx: usize,
        /// What stands there.
        value: f32,
    },
    /// Another model than what is live.
    #[error("the sizes of the model are others than those of the live version")]
    Spec,
    /// Texts that another encoder has embedded.
    #[error("the texts are of encoder generation {actual:08x}, expected {expected:08x}")]
    EncoderGeneration {
        /// In the candidate.
        actual: u32,
        /// That the trainer reads texts with.
        expected: u32,
    },
    /// Another catalogue than that of the log.
    #[error(
        "{actual} items, the catalogue has {expected}; the first that differs is in row {row_idx}"
    )]
    Items {
        /// In the candidate.
        actual: usize,
        /// In the catalogue.
        expected: usize,
        /// First row that differs.
        row_idx: usize,
    },
    /// Counts from another moment.
    #[error("counts are of the landmark {actual}, expected {expected}")]
    Landmark {
        /// In the candidate.
        actual: i64,
        /// Of the counts.
        expected: i64,
    },
    /// A row from elsewhere.
    #[error("row {row_idx} of tensor {tensor} is neither the live version's nor what was trained")]
    Row {
        /// Name of the tensor.
        tensor: String,
        /// The row.
        row_idx: usize,
    },
}

/// What a candidate must have come from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// What pages have.
    pub live: &'a CodeState,
    /// Fast or release.
    pub kind: VersionKind,
    /// Trained weights, texts and features.
    pub parameters: &'a ParameterSet,
    /// Exact counts.
    pub counts: &'a DecayedCounts,
    /// The catalogue of the log.
    pub items: &'a [ItemView],
    /// Of the texts in `parameters`.
    pub encoder_generation: u32,
    /// Code steps that a trained value may be away from its code.
    pub dead_zone: f32,
}

/// Lets the codes of a candidate pass or names the first that is from elsewhere.
///
/// # Errors
/// The first rule that is broken.
pub fn check(candidate: &CodeState, origin: &Origin<'_>) -> Result<(), CodesError> {
    candidate.check()?;
    check_frame(candidate, origin)?;
    let shapes = candidate.shapes();
    for (tensor_idx, shape) in shapes.iter().enumerate() {
        let trained = &origin.parameters.tensors[tensor_idx];
        if shape.is_trained() {
            check_values(shape, trained)?;
        }
        let tensors = Compared {
            shape,
            candidate: &candidate.tensors[tensor_idx],
            live: &origin.live.tensors[tensor_idx],
            trained,
        };
        if let Some(row_idx) = tensors.first_stranger(origin) {
            let tensor = shape.name.clone();
            return Err(CodesError::Row { tensor, row_idx });
        }
    }
    Ok(())
}

/// What is not a tensor: sizes, encoder, catalogue, landmark.
fn check_frame(candidate: &CodeState, origin: &Origin<'_>) -> Result<(), CodesError> {
    let trained = origin.parameters;
    if candidate.spec != origin.live.spec || candidate.spec != trained.spec {
        return Err(CodesError::Spec);
    }
    let (actual, expected) = (candidate.encoder_generation, origin.encoder_generation);
    if actual != expected {
        return Err(CodesError::EncoderGeneration { actual, expected });
    }
    let catalogue = origin.items.iter();
    let mut pairs = candidate.items.iter().zip(catalogue);
    let differs = pairs.position(|(entry, item)| {
        entry.item_id != item.item_id || entry.available != item.available
    });
    let (actual, expected) = (candidate.items.len(), origin.items.len());
    if differs.is_some() || actual != expected || actual != trained.num_items {
        let row_idx = differs.unwrap_or(actual.min(expected));
        return Err(CodesError::Items {
            actual,
            expected,
            row_idx,
        });
    }
    let (actual, expected) = (candidate.landmark_millis, origin.counts.landmark_millis);
    if actual != expected {
        return Err(CodesError::Landmark { actual, expected });
    }
    Ok(())
}

fn check_values(shape: &TensorShape, trained: &[f32]) -> Result<(), CodesError> {
    let is_sound = |value: &f32| value.abs() <= VALUE_MAX; // not so for NaN
    match trained.iter().position(|value| !is_sound(value)) {
        Some(cell) => Err(CodesError::Value {
            tensor: shape.name.clone(),
            row_idx: cell / shape.num_cols,
            value: trained[cell],
        }),
        None => Ok(()),
    }
}

/// One tensor as it is to be, as pages have it, and as it was trained.
struct Compared<'a> {
    shape: &'a TensorShape,
    candidate: &'a CodeTensor,
    live: &'a CodeTensor,
    trained: &'a [f32],
}

impl Compared<'_> {
    /// The first row that is neither the live one nor what it may have become.
    fn first_stranger(&self, origin: &Origin<'_>) -> Option<usize> {
        (0..self.shape.num_rows).find(|row_idx| {
            !self.is_live(*row_idx)
                && match (self.shape.group, origin.kind) {
                    (TensorGroup::Fast, _) if self.shape.name == COUNTS_TENSOR => {
                        self.candidate.row(*row_idx) != origin.counts.codes(*row_idx)
                    }
                    (TensorGroup::Fast, _) | (TensorGroup::Slow, VersionKind::Release) => {
                        !self.is_trained(*row_idx, origin.dead_zone)
                    }
                    (TensorGroup::Content, _) => !self.is_content(*row_idx),
                    (TensorGroup::Slow | TensorGroup::Neighbours, VersionKind::Fast) => true,
                    (TensorGroup::Neighbours, VersionKind::Release) => false,
                }
        })
    }

    fn is_live(&self, row_idx: usize) -> bool {
        let (exponent, row) = (
            self.candidate.exponents[row_idx],
            self.candidate.row(row_idx),
        );
        if row_idx < self.live.num_rows {
            return exponent == self.live.exponents[row_idx] && row == self.live.row(row_idx);
        }
        let (blank_exponent, blank) = blank_row(self.shape);
        exponent == blank_exponent && row.iter().all(|code| *code == blank)
    }

    fn trained_row(&self, row_idx: usize) -> &[f32] {
        let num_cols = self.shape.num_cols;
        &self.trained[row_idx * num_cols..(row_idx + 1) * num_cols]
    }

    fn is_trained(&self, row_idx: usize, dead_zone: f32) -> bool {
        let step = dequantize(1, self.candidate.exponents[row_idx]);
        let mut cells = self
            .trained_row(row_idx)
            .iter()
            .zip(self.candidate.row(row_idx));
        let bits = self.shape.code_bits;
        cells.all(|(value, code)| {
            let value = value / step;
            let is_near = (value - f32::from(*code)).abs() <= dead_zone + STEP_SLACK;
            is_near || is_cut_off(value, *code, bits)
        })
    }

    fn is_content(&self, row_idx: usize) -> bool {
        let row = self.trained_row(row_idx);
        let bits = self.shape.code_bits;
        let exponent = exponent_for(max_abs(row), bits);
        let mut cells = row.iter().zip(self.candidate.row(row_idx));
        exponent == self.candidate.exponents[row_idx]
            && cells.all(|(value, code)| quantize(*value, exponent, bits) == *code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::tests::fixture;
    use crate::compress::{Counted, first_state};
    use crate::train::neighbour_counts::NeighbourCounts;

    struct World {
        parameters: ParameterSet,
        counts: DecayedCounts,
        items: Vec<ItemView>,
        live: CodeState,
    }

    fn world() -> World {
        let (parameters, counts, items) = fixture();
        let counted = Counted {
            counts: &counts,
            neighbours: &NeighbourCounts::default(),
        };
        let live = first_state(&parameters, counted, &items);
        World {
            parameters,
            counts,
            items,
            live,
        }
    }

    impl World {
        fn check(&self, candidate: &CodeState, kind: VersionKind) -> Result<(), CodesError> {
            let origin = Origin {
                live: &self.live,
                kind,
                parameters: &self.parameters,
                counts: &self.counts,
                items: &self.items,
                encoder_generation: 0,
                dead_zone: 0.75,
            };
            check(candidate, &origin)
        }
    }

    #[test]
    fn live_rows_and_trained_rows_pass_and_rows_of_others_do_not() {
        let mut world = world();
        let live = world.live.clone();
        assert_eq!(world.check(&live, VersionKind::Fast), Ok(()));
        for value in &mut world.parameters.tensor_mut("item.id_rows")[..8] {
            *value += 0.25;
        }
        let mut candidate = live.clone();
        let tensor = candidate.tensor_mut("item.id_rows").expect("in the spec");
        let exponent = tensor.exponents[0];
        let row = world.parameters.tensor("item.id_rows")[..8].to_vec();
        for (code, value) in tensor.row_mut(0).iter_mut().zip(&row) {
            *code = quantize(*value, exponent, 8);
        }
        assert_eq!(world.check(&candidate, VersionKind::Fast), Ok(()));

        let tensor = candidate.tensor_mut("item.id_rows").expect("in the spec");
        let other = live
            .tensor("item.id_rows")
            .expect("in the spec")
            .row(3)
            .to_vec();
        tensor.row_mut(4).copy_from_slice(&other);

        let refused = world.check(&candidate, VersionKind::Fast);
        assert!(
            matches!(refused, Err(CodesError::Row { row_idx: 4, .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn slow_rows_move_in_releases_alone() {
        let mut world = world();
        let live = world.live.clone();
        let value = &mut world.parameters.tensor_mut("layers.0.query")[0];
        *value += 0.1;
        let value = *value;
        let mut candidate = live.clone();
        let tensor = candidate.tensor_mut("layers.0.query").expect("in the spec");
        tensor.codes[0] = quantize(value, tensor.exponents[0], 8);
        assert_ne!(candidate, live);
        assert_eq!(world.check(&candidate, VersionKind::Release), Ok(()));
        let refused = world.check(&candidate, VersionKind::Fast);
        assert!(
            matches!(refused, Err(CodesError::Row { row_idx: 0, .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn a_trained_value_that_is_no_weight_is_found_although_its_code_never_moves() {
        let mut world = world();
        for value in [f32::NAN, f32::INFINITY, -1e30] {
            world.parameters.tensor_mut("item.bias")[2] = value;
            let refused = world.check(&world.live.clone(), VersionKind::Fast);
            assert!(
                matches!(refused, Err(CodesError::Value { row_idx: 2, .. })),
                "{refused:?}"
            );
        }
    }
}
