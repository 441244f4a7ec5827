//! A network whose change of low rank keeps gradients: texts in, unit vectors out, gradients of the factors back.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};

use super::LowRankChange;
use crate::model::ranker::ints;
use crate::text::batch::{BatchLimits, TokenizedText, plan_batches};
use crate::text::bert::BertModel;
use crate::text::config::BertConfig;
use crate::text::encoder::{check_tokens, forward};
use crate::text::{TextError, device_error};

/// A step has few texts of many lengths: some padding is cheaper than a pass for each length.
const LIMITS: BatchLimits = BatchLimits {
    num_tokens_max: 4096,
    len_multiple: 8,
};

/// A network with a change of low rank beside it; nothing else in it learns.
#[derive(Debug)]
pub struct LearningEncoder {
    config: BertConfig,
    model: BertModel,
    /// With autodiff.
    device: Device,
    /// Of the change, in its order.
    factor_names: Vec<String>,
}

impl LearningEncoder {
    /// Lends `change` to a copy of `model`, which lies on `device`.
    pub(in crate::text) fn new(
        config: &BertConfig,
        model: &BertModel,
        change: &LowRankChange,
        device: &Device,
    ) -> Self {
        Self {
            config: config.clone(),
            model: change.lent_to(model.clone().train()),
            device: device.clone().autodiff(),
            factor_names: change
                .factors
                .iter()
                .map(|factor| factor.name.clone())
                .collect(),
        }
    }

    /// Where it runs, with autodiff.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Embeddings of token sequences, as unit vectors in the order given, with gradients.
    ///
    /// # Shapes
    /// → `[texts.len(), dim]`; at least one text.
    ///
    /// # Errors
    /// A sequence is empty or too long, or a token unknown.
    pub fn forward(&self, texts: &[TokenizedText]) -> Result<Tensor<2>, TextError> {
        check_tokens(texts, &self.config)?;
        let mut rows = Vec::new();
        let mut places = vec![0; texts.len()];
        for batch in plan_batches(texts, LIMITS, self.config.max_position_embeddings) {
            let first: usize = rows.iter().map(|rows: &Tensor<2>| rows.dims()[0]).sum();
            for (offset, text_idx) in batch.text_idxs.iter().enumerate() {
                places[*text_idx] = (first + offset) as i32; // fits: a step has few texts
            }
            rows.push(forward(&self.model, &batch, &self.device));
        }
        Ok(Tensor::cat(rows, 0).select(0, ints(&places, &self.device)))
    }

    /// Gradients of all factors, laid out as [`LowRankChange::to_flat`].
    ///
    /// # Errors
    /// The device failed, or the loss does not reach a factor.
    pub fn gradients(&self, gradients: &Gradients) -> Result<Vec<f32>, TextError> {
        let mut reader = Reader {
            path: Vec::new(),
            gradients,
            found: BTreeMap::new(),
            error: None,
        };
        self.model.visit(&mut reader);
        if let Some(error) = reader.error {
            return Err(error);
        }
        let mut flat = Vec::new();
        for name in &self.factor_names {
            let Some(values) = reader.found.get(name) else {
                let tensor = name.clone();
                return Err(TextError::TensorMissing { tensor });
            };
            flat.extend_from_slice(values);
        }
        Ok(flat)
    }
}

/// Reads gradients of factors by the name of the factor.
struct Reader<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: BTreeMap<String, Vec<f32>>,
    /// The first error; the rest is skipped.
    error: Option<TextError>,
}

impl ModuleVisitor for Reader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // The path of a factor is that of its matrix, "lora", and its side.
        let [matrix @ .., marker, side] = self.path.as_slice() else {
            return;
        };
        if marker != "lora" || self.error.is_some() {
            return;
        }
        let Some(gradient) = param.val().grad(self.gradients) else {
            return;
        };
        let values = gradient.try_into_data().map_err(device_error);
        match values.and_then(|data| data.try_into_vec::<f32>().map_err(device_error)) {
            Ok(values) => {
                let name = format!("{}.{side}", matrix.join("."));
                self.found.insert(name, values);
            }
            Err(error) => self.error = Some(error),
        }
    }
}
