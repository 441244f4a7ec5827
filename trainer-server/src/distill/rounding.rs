//! Learning with rounded weights, so that what is packed afterwards was learned with (quantization-aware training).
//!
//! ```text
//! ŵ = step·round(w / step)      forward and backward by ŵ; its gradient moves w     (straight through, Bengio et al. 2013)
//! ```
//! Steps are those of `text_pack`: the same share of every matrix's deviation. Codes are not cut off here.

use burn::module::{ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use shared_model::text::packed::POSITIONS;

use crate::text_pack::Steps;
use crate::train::module_gradients::read_values;

/// How weights are rounded while they learn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rounding {
    /// Step of a matrix as a share of its deviation.
    pub step_share: f32,
    /// The last part of the steps, for which weights are rounded.
    pub last_share: f32,
}

impl Rounding {
    /// Whether weights are rounded in step `step` of `num_steps`.
    pub(super) fn is_on(&self, step: usize, num_steps: usize) -> bool {
        let num_rounded = (self.last_share * num_steps as f32).round() as usize; // a share of a count
        step + num_rounded >= num_steps
    }

    /// Of all words.
    pub(super) fn word_step(&self, words: &[f32]) -> f32 {
        Steps::of_share(self.step_share).of_words(words)[0]
    }
}

pub(super) fn round_to(value: f32, step: f32) -> f32 {
    (value / step).round_ties_even() * step
}

/// Rounds the matrices of a network and leaves their ids, so that their gradients are those of the weights they stand for.
pub(super) struct Rounder {
    pub(super) steps: Steps,
    /// Where in the network it is.
    path: Vec<String>,
}

impl Rounder {
    pub(super) fn new(rounding: &Rounding) -> Self {
        Self {
            steps: Steps::of_share(rounding.step_share),
            path: Vec::new(),
        }
    }

    /// The step of a matrix here; `None` for words, which are rounded row by row, and for token types, which the file has
    /// within the positions.
    fn step(&self, values: &[f32]) -> Option<f32> {
        let has = |wanted: &str| self.path.iter().any(|name| name == wanted);
        if has("word") || has("token_type") {
            return None;
        }
        let name = if has("position") { POSITIONS } else { "" };
        Some(self.steps.of_matrix(name, values))
    }
}

impl ModuleMapper for Rounder {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 2 || self.path.iter().any(|name| name == "word") {
            return param;
        }
        let Ok(mut values) = read_values(param.val()) else {
            return param; // the device has failed; the loss will not come back either
        };
        let Some(step) = self.step(&values) else {
            return param;
        };
        for value in &mut values {
            *value = round_to(*value, step);
        }
        param.map(|tensor| {
            let data = TensorData::new(values, tensor.shape());
            Tensor::from_data(data, &tensor.device()).require_grad()
        })
    }
}
