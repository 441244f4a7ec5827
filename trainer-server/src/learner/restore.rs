//! Restore: a learner as it was at the newest published version.
//!
//! The manifest is the commit point: what it learned through is never trained again. The log up to
//! there gives histories, counts and texts; the codes give the weights; a checkpoint, which may be
//! older, gives back the residual where it still fits between two codes, and the optimizer state.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use shared_model::codec::quantize::dequantize;
use shared_model::codec::state::CodeState;
use shared_model::ids::ItemId;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::{ModelSpec, TensorGroup};

use super::gating::EarlierEvents;
use super::text_tuning::TextTuning;
use super::uncounted::Uncounted;
use super::{LastBatch, Learner, padding_of};
use crate::checkpoint::Checkpoint;
use crate::compress::DirtyRows;
use crate::train::counts::DecayedCounts;
use crate::train::fast_step::FastOptimizer;
use crate::train::init::init_parameters;
use crate::train::neighbour_counts::NeighbourCounts;
use shared_model::edge::engine::ReadyVersion;

/// Why a learner could not be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Log and published state name different items.
    #[error("item {item_idx} is {log:?} in the log and {published:?} in the published version")]
    Items {
        /// Row of the item.
        item_idx: usize,
        /// In the log, if it has so many.
        log: Option<ItemId>,
        /// In the published version.
        published: ItemId,
    },
    /// The texts of the published version were embedded by another encoder.
    #[error(
        "the published version has the text encoder {published:08x}, this start loaded {loaded:08x}; \
         set model.text_encoder to what it was, put text-encoder-{published:08x}.safetensors back into data_dir \
         where the encoder had learned, or start with a new data_dir"
    )]
    Encoder {
        /// Generation of the encoder loaded now.
        loaded: u32,
        /// Generation in the published version.
        published: u32,
    },
    /// The configuration asks for another model than the published one.
    #[error(
        "the configuration asks for another model than the published version has: {}; set these back, or start with a new data_dir",
        differences.join(", ")
    )]
    Spec {
        /// One per key: its name and both values.
        differences: Vec<String>,
    },
}

impl Learner {
    /// Continues from `state` after the log up to its `learned_through` has been ingested.
    ///
    /// # Errors
    /// The log or the configuration does not belong to this version.
    pub fn restore(
        &mut self,
        state: Arc<CodeState>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<(), RestoreError> {
        if self.parameters.spec != state.spec {
            let differences = differences(&self.parameters.spec, &state.spec);
            return Err(RestoreError::Spec { differences });
        }
        let (loaded, published) = (self.encoder_generation(), state.encoder_generation);
        if loaded != published {
            return Err(RestoreError::Encoder { loaded, published });
        }
        for (item_idx, entry) in state.items.iter().enumerate() {
            let log = self.items.get(item_idx).map(|item| item.item_id.clone());
            if log.as_ref() != Some(&entry.item_id) {
                return Err(RestoreError::Items {
                    item_idx,
                    log,
                    published: entry.item_id.clone(),
                });
            }
        }
        if let Some(checkpoint) = &checkpoint {
            self.optimizer = checkpoint.optimizer.clone();
        }
        self.take_weights(&state, checkpoint.as_ref());
        let (num_published, num_items) = (state.items.len() as u32, self.items.len() as u32); // fit: NUM_ITEMS_MAX is 2^20
        let ready = ReadyVersion::new(&state, &self.device, padding_of(&self.device));
        self.went_live(state, ready);
        self.dirty.learned.extend(0..num_published);
        self.dirty.counted.extend(0..num_items);
        self.dirty.content.extend(num_published..num_items);
        Ok(())
    }

    /// Goes on from weights that an operator has published: without residuals, and without what the version before
    /// said of the last events.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn adopt(&mut self, state: Arc<CodeState>) -> Result<(), RestoreError> {
        self.last = LastBatch::default();
        self.restore(state, None)
    }

    /// Forgets everything but the settings, the device and the text encoder, as before the first record.
    pub fn forget(&mut self) {
        let spec = &self.parameters.spec;
        self.counts = DecayedCounts::new(spec.half_lives_secs.clone(), 0);
        self.parameters = init_parameters(spec, 0, self.config.train.seed);
        self.neighbours = NeighbourCounts::default();
        self.uncounted = Uncounted::default();
        self.optimizer = FastOptimizer::default();
        self.text_tuning = TextTuning::new(&self.config, &self.encoder);
        self.dirty = DirtyRows::default();
        self.dirty_after = DirtyRows::default();
        self.items = Vec::new();
        self.live = None;
        self.content = Vec::new();
        self.last = LastBatch::default();
        self.earlier = EarlierEvents::default();
        self.watch = None;
    }

    /// Weights as published, with the residual of the checkpoint wherever it is below one code step.
    pub(super) fn take_weights(&mut self, state: &CodeState, checkpoint: Option<&Checkpoint>) {
        let published = ParameterSet::from_state(state);
        for (idx, shape) in self.parameters.shapes().iter().enumerate() {
            let is_weight = shape.is_trained();
            if !is_weight {
                continue;
            }
            let values = &mut self.parameters.tensors[idx];
            let published = &published.tensors[idx];
            values[..published.len()].copy_from_slice(published);
            let Some(saved) = checkpoint.and_then(|checkpoint| checkpoint.tensors.get(&shape.name))
            else {
                continue;
            };
            let exponents = &state.tensors[idx].exponents;
            for (cell, (value, saved)) in
                values[..published.len()].iter_mut().zip(saved).enumerate()
            {
                let step = dequantize(1, exponents[cell / shape.num_cols]);
                if (*saved - *value).abs() <= step {
                    *value = *saved;
                }
            }
        }
    }
}

/// The learned codes of `earlier` under the catalogue of `live`: its items, their availability, texts and features.
///
/// Items are only ever appended, so those of `earlier` are the first of `live`; both have one spec.
#[must_use]
pub fn with_items_of(mut earlier: CodeState, live: &CodeState) -> CodeState {
    let num_earlier = earlier.items.len();
    earlier.append_items(live.items.iter().skip(num_earlier).cloned());
    for (entry, now) in earlier.items.iter_mut().zip(&live.items) {
        entry.available = now.available;
    }
    let shapes = earlier.spec.tensor_shapes(live.items.len());
    let pairs = earlier.tensors.iter_mut().zip(&live.tensors);
    for (shape, (tensor, now)) in shapes.iter().zip(pairs) {
        if shape.group == TensorGroup::Content {
            tensor.clone_from(now);
        }
    }
    earlier
}

/// The trained codes of `given` under what is not trained in `live`: its items, texts, features, counts and neighbours.
///
/// The items of `given` are the first of `live`, and both have one spec. Items that it does not know start anew, from
/// their texts.
#[must_use]
pub fn with_weights_of(given: CodeState, live: &CodeState) -> CodeState {
    let mut state = with_items_of(given, live);
    state.landmark_millis = live.landmark_millis; // of the counts
    let shapes = state.shapes();
    let pairs = state.tensors.iter_mut().zip(&live.tensors);
    for (shape, (tensor, now)) in shapes.iter().zip(pairs) {
        if !shape.is_trained() {
            tensor.clone_from(now);
        }
    }
    state
}

/// The keys in which two specs differ, for people: `model.num_neighbours is 32, published 0`.
fn differences(configured: &ModelSpec, published: &ModelSpec) -> Vec<String> {
    let fields = |spec| match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => serde_json::Map::new(), // a struct of numbers is always an object
    };
    let (configured, published) = (fields(configured), fields(published));
    let keys: BTreeSet<&String> = configured.keys().chain(published.keys()).collect();
    let mut lines = Vec::new();
    for key in keys {
        let (name, left_out) = match key.as_str() {
            "has_taste_weight" => ("taste_weight", Value::from(false)),
            "id_code_bits" | "text_code_bits" | "matrix_code_bits" => {
                (key.as_str(), Value::from(8))
            }
            _ => (key.as_str(), Value::from(0)),
        };
        let (configured, published) = (
            configured.get(key).unwrap_or(&left_out),
            published.get(key).unwrap_or(&left_out),
        );
        if configured != published {
            lines.push(format!(
                "model.{name} is {configured}, published {published}"
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_keys_that_differ_and_both_values() {
        let published = ModelSpec::default();
        let configured = ModelSpec {
            num_neighbours: 32,
            num_layers: 2,
            ..ModelSpec::default()
        };
        assert_eq!(
            differences(&configured, &published),
            [
                "model.num_layers is 2, published 1",
                "model.num_neighbours is 32, published 0"
            ]
        );
        assert!(differences(&published, &published).is_empty());
    }
}
