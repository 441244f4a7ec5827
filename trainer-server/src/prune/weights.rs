//! The tensors of a network by name, and rows and columns of them left out.

use std::collections::BTreeMap;

use shared_model::text::{NamedTensor, TextError};

/// Tensors of a network that is known to be complete.
pub(super) struct Weights {
    tensors: BTreeMap<String, NamedTensor>,
}

impl Weights {
    /// Names lose the `bert.` that some files have in front.
    pub(super) fn new(tensors: Vec<NamedTensor>) -> Self {
        let named = tensors.into_iter().map(|mut tensor| {
            if let Some(name) = tensor.name.strip_prefix("bert.") {
                tensor.name = name.to_owned();
            }
            (tensor.name.clone(), tensor)
        });
        Self {
            tensors: named.collect(),
        }
    }

    pub(super) fn to_named(&self) -> Vec<NamedTensor> {
        self.tensors.values().cloned().collect()
    }

    pub(super) fn into_named(self) -> Vec<NamedTensor> {
        self.tensors.into_values().collect()
    }

    /// Whether a tensor is there and has a shape.
    ///
    /// # Errors
    /// It is missing or of another shape.
    pub(super) fn check(&self, name: &str, expected: &[usize]) -> Result<(), TextError> {
        let tensor = self.tensors.get(name);
        let tensor = tensor.ok_or_else(|| TextError::TensorMissing {
            tensor: name.to_owned(),
        })?;
        if tensor.shape == expected && tensor.values.len() == expected.iter().product::<usize>() {
            return Ok(());
        }
        Err(TextError::ShapeMismatch {
            tensor: name.to_owned(),
            expected: expected.to_vec(),
            actual: tensor.shape.clone(),
        })
    }

    /// Row-major values.
    pub(super) fn values(&mut self, name: &str) -> &mut Vec<f32> {
        &mut self.tensor(name).values
    }

    /// Leaves those rows of a matrix, or values of a vector, that are named.
    pub(super) fn keep_rows(&mut self, name: &str, kept: &[usize]) {
        let tensor = self.tensor(name);
        let num_cols: usize = tensor.shape[1..].iter().product();
        let rows = kept
            .iter()
            .map(|row| &tensor.values[row * num_cols..][..num_cols]);
        tensor.values = rows.flatten().copied().collect();
        tensor.shape[0] = kept.len();
    }

    /// Leaves those columns of a matrix that are named.
    pub(super) fn keep_cols(&mut self, name: &str, kept: &[usize]) {
        let tensor = self.tensor(name);
        let rows = tensor.values.chunks_exact(tensor.shape[1]);
        let values = rows.flat_map(|row| kept.iter().map(|col| row[*col]));
        tensor.values = values.collect();
        tensor.shape[1] = kept.len();
    }

    fn tensor(&mut self, name: &str) -> &mut NamedTensor {
        let tensor = self.tensors.get_mut(name);
        tensor.expect("a network was built of these tensors")
    }
}
