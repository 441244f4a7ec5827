//! Taste: what of a version needs the weights, and the one place that knows which executor computes it.
//!
//! Burn and the host compute the same (`model::host` has the tests); the scorer above does not see which it is.
//! Where no backend is built in, burn's devices and tensors cannot exist, and nothing of them is in the module.

#[cfg(feature = "wgpu")]
mod gpu;
mod on_device;
mod on_host;

use burn::tensor::{Device, Tensor};

use super::{Padding, Query, ScoreError};
use crate::codec::state::{CodeState, CodeTensor};
use crate::model::parameters::ParameterSet;
use crate::model::sequence::Sequence;
pub use on_device::OnDevice;
use on_host::OnHost;

/// Item vectors and what computes with them.
#[derive(Debug, Clone)]
pub(super) enum Taste {
    Device(Box<OnDevice>),
    Host(OnHost),
}

impl Taste {
    /// Of codes, on a device.
    pub(super) fn on_device(
        parameters: &ParameterSet,
        state: &CodeState,
        device: &Device,
        padding: Padding,
    ) -> Self {
        Self::Device(Box::new(OnDevice::new(parameters, state, device, padding)))
    }

    /// Of codes, on the host.
    pub(super) fn on_host(parameters: &ParameterSet, state: &CodeState) -> Self {
        Self::Host(OnHost::new(parameters, state))
    }

    /// Of other codes, by the same executor.
    pub(super) fn renewed(&self, parameters: &ParameterSet, target: &CodeState) -> Self {
        match self {
            Self::Device(taste) => Self::Device(Box::new(taste.renewed(parameters, target))),
            Self::Host(_) => Self::on_host(parameters, target),
        }
    }

    /// With the id rows of `target` and the content of items that it has behind ours; all else is equal.
    pub(super) fn updated(&self, target: &CodeState) -> Self {
        match self {
            Self::Device(taste) => Self::Device(Box::new(taste.updated(target))),
            Self::Host(taste) => Self::Host(taste.updated(target)),
        }
    }

    /// With other id rows, as f32.
    pub(super) fn with_id_rows(&self, id_rows: &[f32]) -> Self {
        match self {
            Self::Device(taste) => Self::Device(Box::new(taste.with_id_rows(id_rows))),
            Self::Host(taste) => Self::Host(taste.with_id_rows(id_rows)),
        }
    }

    /// With other slow weights and the content they make; the item vectors stay.
    pub(super) fn with_slow_weights(&self, parameters: &ParameterSet) -> Self {
        match self {
            Self::Device(taste) => Self::Device(Box::new(taste.with_slow_weights(parameters))),
            Self::Host(taste) => Self::Host(taste.with_slow_weights(parameters)),
        }
    }

    /// Whether shapes are the same whatever is asked.
    pub(super) fn has_fixed_shapes(&self) -> bool {
        match self {
            Self::Device(taste) => taste.has_fixed_shapes(),
            Self::Host(_) => false,
        }
    }

    /// User vectors at the queries.
    ///
    /// # Shapes
    /// → `[queries.len(), embedding_dim]`, row-major.
    pub(super) async fn user_rows(
        &self,
        sequences: &[Sequence],
        queries: &[Query],
    ) -> Result<Vec<f32>, ScoreError> {
        match self {
            Self::Device(taste) => read(taste.user_vectors(sequences, queries)).await,
            Self::Host(taste) => Ok(taste.user_rows(sequences, queries)),
        }
    }

    /// Products of the queries' user vectors with all item vectors.
    ///
    /// # Shapes
    /// → `[queries.len(), num_items]`, row-major.
    pub(super) async fn products(
        &self,
        sequences: &[Sequence],
        queries: &[Query],
    ) -> Result<Vec<f32>, ScoreError> {
        match self {
            Self::Device(taste) => {
                let users = taste.user_vectors(sequences, queries);
                taste.products(users).await
            }
            Self::Host(taste) => Ok(taste.products(&taste.user_rows(sequences, queries))),
        }
    }

    /// Products of the one query's user vector with vectors made of texts alone.
    ///
    /// # Shapes
    /// `texts`: `[num_items, text_dim]`, row-major, one at least → `[num_items]`.
    pub(super) async fn products_with_new(
        &self,
        sequences: &[Sequence],
        queries: &[Query],
        texts: &[f32],
        num_items: usize,
    ) -> Result<Vec<f32>, ScoreError> {
        match self {
            Self::Device(taste) => {
                let products = taste.products_with_new(sequences, queries, texts, num_items);
                products.await
            }
            Self::Host(taste) => {
                let users = taste.user_rows(sequences, queries);
                Ok(taste.products_with_new(&users, texts, num_items))
            }
        }
    }

    /// Content vector of one item, `[embedding_dim]`; absent without a text and features.
    pub(super) async fn content_of(
        &self,
        text: Option<&[f32]>,
        features: Option<&[f32]>,
    ) -> Result<Option<Vec<f32>>, ScoreError> {
        match self {
            Self::Device(taste) => taste.content_of(text, features).await,
            Self::Host(taste) => Ok(taste.content_of(text, features)),
        }
    }

    /// Vectors of some items, row-major.
    pub(super) async fn item_rows(&self, item_idxs: &[u32]) -> Result<Vec<f32>, ScoreError> {
        match self {
            Self::Device(taste) => taste.rows(item_idxs).await,
            Self::Host(taste) => Ok(taste.rows(item_idxs)),
        }
    }

    /// Mean products of some items, one at least, with all items, `[num_items]`.
    pub(super) async fn mean_products(&self, item_idxs: &[u32]) -> Result<Vec<f32>, ScoreError> {
        match self {
            Self::Device(taste) => taste.products(taste.mean(item_idxs)).await,
            Self::Host(taste) => Ok(taste.products(&taste.mean(item_idxs))),
        }
    }

    /// Products of one vector with all item vectors, `[num_items]`.
    pub(super) async fn products_of(&self, vector: &[f32]) -> Result<Vec<f32>, ScoreError> {
        match self {
            Self::Device(taste) => taste.products_of(vector).await,
            Self::Host(taste) => Ok(taste.products(vector)),
        }
    }
}

/// Values of a tensor, when the device has them.
///
/// # Errors
/// The device failed.
async fn read(tensor: Tensor<2>) -> Result<Vec<f32>, ScoreError> {
    let values = tensor.into_data_async().await;
    let values = values.map_err(|error| ScoreError::Device(format!("{error:?}")))?;
    values
        .try_into_vec::<f32>()
        .map_err(|error| ScoreError::Device(format!("{error:?}")))
}

/// Texts and features of some items as numbers; absent where the spec has none.
fn content_values(tensor: &CodeTensor, items: std::ops::Range<usize>) -> Option<Vec<f32>> {
    if tensor.num_cols == 0 || items.is_empty() {
        return None;
    }
    let mut values = Vec::with_capacity(items.len() * tensor.num_cols);
    for row_idx in items {
        values.extend(tensor.dequantize_row(row_idx));
    }
    Some(values)
}
