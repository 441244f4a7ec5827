//! Parameter set: all weights of one version as f32, in the order of the spec.
//!
//! Comes from a code state (edge, recovery) or from initialisation and training (server).

use crate::codec::state::CodeState;
use crate::spec::{ModelSpec, TASTE_WEIGHT, TensorShape};

/// All weights of one version. `item.counts` holds base-2 logarithms; see [`super::prior`].
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSet {
    /// Sizes of the model.
    pub spec: ModelSpec,
    /// Number of items, the rows of every per-item tensor.
    pub num_items: usize,
    /// One row-major array per entry of `spec.tensor_shapes(num_items)`.
    pub tensors: Vec<Vec<f32>>,
}

impl ParameterSet {
    /// All zeros.
    #[must_use]
    pub fn zeros(spec: &ModelSpec, num_items: usize) -> Self {
        let shapes = spec.tensor_shapes(num_items);
        let tensors = shapes
            .iter()
            .map(|shape| vec![0.0; shape.num_rows * shape.num_cols])
            .collect();
        Self {
            spec: spec.clone(),
            num_items,
            tensors,
        }
    }

    /// What the edge reconstructs from integer codes.
    #[must_use]
    pub fn from_state(state: &CodeState) -> Self {
        let tensors = state
            .tensors
            .iter()
            .map(|tensor| tensor.dequantize())
            .collect();
        Self {
            spec: state.spec.clone(),
            num_items: state.items.len(),
            tensors,
        }
    }

    /// The same without items: a set for `num_items` 0, for whoever wants the weights that all items share.
    #[must_use]
    pub fn shared_from_state(state: &CodeState) -> Self {
        let shapes = state.spec.tensor_shapes(0);
        let pairs = shapes.iter().zip(&state.tensors);
        let tensors = pairs.map(|(shape, tensor)| match shape.per_item {
            true => Vec::new(),
            false => tensor.dequantize(),
        });
        Self {
            spec: state.spec.clone(),
            num_items: 0,
            tensors: tensors.collect(),
        }
    }

    /// Names and shapes, parallel to `tensors`.
    #[must_use]
    pub fn shapes(&self) -> Vec<TensorShape> {
        self.spec.tensor_shapes(self.num_items)
    }

    /// The tensor called `name`.
    ///
    /// # Panics
    /// If the spec has no such tensor: names are ours, so that is our bug.
    #[must_use]
    pub fn tensor(&self, name: &str) -> &[f32] {
        &self.tensors[self.idx(name)]
    }

    /// Mutable twin of [`Self::tensor`].
    ///
    /// # Panics
    /// If the spec has no such tensor.
    pub fn tensor_mut(&mut self, name: &str) -> &mut Vec<f32> {
        let idx = self.idx(name);
        &mut self.tensors[idx]
    }

    /// Weight of taste; 1 where the spec has none.
    #[must_use]
    pub fn taste_weight(&self) -> f32 {
        if self.spec.has_taste_weight {
            self.tensor(TASTE_WEIGHT)[0]
        } else {
            1.0
        }
    }

    /// Weight of the gain by neighbours; 0 where the spec has none.
    #[must_use]
    pub fn neighbour_weight(&self) -> f32 {
        match self.spec.num_neighbours {
            0 => 0.0,
            _ => self.tensor("neighbour.weight")[0],
        }
    }

    /// Appends `num_new` zero rows to every per-item tensor.
    pub fn grow_items(&mut self, num_new: usize) {
        let shapes = self.shapes();
        self.num_items += num_new;
        for (shape, tensor) in shapes.iter().zip(&mut self.tensors) {
            if shape.per_item {
                tensor.resize(self.num_items * shape.num_cols, 0.0);
            }
        }
    }

    fn idx(&self, name: &str) -> usize {
        let idx = self.spec.tensor_idx(name);
        idx.unwrap_or_else(|| panic!("the spec has no tensor {name}"))
    }
}
