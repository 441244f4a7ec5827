//! Host tensors into a network and back, by path, with every name and shape checked.
//!
//! Names and layouts are those of a Hugging Face BERT checkpoint, with or without `bert.` in front:
//!
//! ```text
//! path in the module              name in the weights file
//! embeddings.word.weight          embeddings.word_embeddings.weight
//! embeddings.norm.gamma           embeddings.LayerNorm.weight
//! layers.3.query.weight           encoder.layer.3.attention.self.query.weight    transposed: [out, in]
//! layers.3.attention_norm.beta    encoder.layer.3.attention.output.LayerNorm.bias
//! encoder.layers.3.query.bias     bert.encoder.layer.3.attention.self.query.bias  inside a cross-encoder
//! click.weight                    click.weight                                    likewise
//! ```
//! The pooler, the prediction heads and the stored position ids of such a file are not used.
//! Not here: parsing the file.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use super::{TextError, device_error};

/// One weight in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Name in the weights file.
    pub name: String,
    /// Shape in the weights file.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// Whether a tensor of a weights file plays no part in embedding a text.
#[must_use]
pub fn is_unused(name: &str) -> bool {
    let name = short_name(name);
    name == "embeddings.position_ids" || name.starts_with("pooler.") || name.starts_with("cls.")
}

/// Tensors by the name that [`load`] looks for; unused ones are left out.
pub(super) fn by_name(
    tensors: Vec<NamedTensor>,
) -> Result<BTreeMap<String, NamedTensor>, TextError> {
    let mut map = BTreeMap::new();
    for tensor in tensors {
        if is_unused(&tensor.name) {
            continue;
        }
        check_values(&tensor)?;
        let name = short_name(&tensor.name).to_owned();
        if let Some(twice) = map.insert(name, tensor) {
            return Err(TextError::TensorTwice { tensor: twice.name });
        }
    }
    Ok(map)
}

/// Tensors by their whole name; none is left out.
pub(super) fn by_whole_name(
    tensors: Vec<NamedTensor>,
) -> Result<BTreeMap<String, NamedTensor>, TextError> {
    let mut map = BTreeMap::new();
    for tensor in tensors {
        check_values(&tensor)?;
        if let Some(twice) = map.insert(tensor.name.clone(), tensor) {
            return Err(TextError::TensorTwice { tensor: twice.name });
        }
    }
    Ok(map)
}

/// Puts every tensor into its place of `model`; all places must be filled and none be left over.
pub(super) fn load<M: Module>(
    model: M,
    tensors: BTreeMap<String, NamedTensor>,
) -> Result<M, TextError> {
    let mut loader = Loader {
        path: Vec::new(),
        tensors,
        error: None,
    };
    let model = model.map(&mut loader);
    if let Some(error) = loader.error {
        return Err(error);
    }
    match loader.tensors.into_values().next() {
        Some(tensor) => Err(TextError::TensorUnexpected {
            tensor: tensor.name,
        }),
        None => Ok(model),
    }
}

/// Every weight of `model`, named and laid out as [`load`] takes it.
///
/// # Errors
/// The device failed to give a weight back.
pub(super) fn store<M: Module>(model: &M) -> Result<Vec<NamedTensor>, TextError> {
    let mut storer = Storer {
        path: Vec::new(),
        tensors: Vec::new(),
        error: None,
    };
    model.visit(&mut storer);
    match storer.error {
        Some(error) => Err(error),
        None => Ok(storer.tensors),
    }
}

fn short_name(name: &str) -> &str {
    name.strip_prefix("bert.").unwrap_or(name)
}

/// As many values as the shape says, all finite.
pub(super) fn check_values(tensor: &NamedTensor) -> Result<(), TextError> {
    let num_values = tensor
        .shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size));
    if num_values != Some(tensor.values.len()) {
        let (shape, actual) = (tensor.shape.clone(), tensor.values.len());
        return Err(TextError::LengthMismatch {
            tensor: tensor.name.clone(),
            shape,
            actual,
        });
    }
    if tensor.values.iter().any(|value| !value.is_finite()) {
        return Err(TextError::TensorNotFinite {
            tensor: tensor.name.clone(),
        });
    }
    Ok(())
}

/// Visits the parameters of the module with their path.
struct Loader {
    path: Vec<Segment>,
    tensors: BTreeMap<String, NamedTensor>,
    /// The first error; visiting cannot be stopped, so the rest is skipped.
    error: Option<TextError>,
}

/// Visits the parameters of the module and reads them back.
struct Storer {
    path: Vec<Segment>,
    tensors: Vec<NamedTensor>,
    /// The first error; the rest is skipped.
    error: Option<TextError>,
}

struct Segment {
    name: String,
    is_in_linear: bool,
}

impl Segment {
    fn new(name: &str, container_type: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_in_linear: container_type == "Struct:Linear",
        }
    }
}

/// Whether the parameter at `path` lies transposed in the file: the matrices of linear layers do.
fn is_transposed(path: &[Segment], num_dims: usize) -> bool {
    path.last().is_some_and(|leaf| leaf.is_in_linear) && num_dims == 2
}

impl ModuleVisitor for Storer {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push(Segment::new(name, container_type));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let mut shape = param.lazy_shape().dims::<D>().to_vec();
        let data = param.val().try_into_data().map_err(device_error);
        let values = data.and_then(|data| data.try_into_vec::<f32>().map_err(device_error));
        let mut values = match values {
            Ok(values) => values,
            Err(error) => {
                self.error.get_or_insert(error);
                return;
            }
        };
        if is_transposed(&self.path, D) {
            values = transpose(&values, shape[0], shape[1]);
            shape.reverse();
        }
        self.tensors.push(NamedTensor {
            name: file_name(&self.path),
            shape,
            values,
        });
    }
}

impl ModuleMapper for Loader {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push(Segment::new(name, container_type));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        match self.take(&param.lazy_shape().dims::<D>()) {
            Ok(values) => {
                let tensor = Tensor::from_data(values, &param.lazy_device());
                let id = param.id;
                param.transform_for_load(tensor, id)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

impl Loader {
    /// The tensor of the current path, in the layout of the module.
    fn take(&mut self, module_shape: &[usize]) -> Result<TensorData, TextError> {
        let name = file_name(&self.path);
        let Some(tensor) = self.tensors.remove(&name) else {
            return Err(TextError::TensorMissing { tensor: name });
        };
        let is_transposed = is_transposed(&self.path, module_shape.len());
        let mut expected = module_shape.to_vec();
        if is_transposed {
            expected.reverse();
        }
        if tensor.shape != expected {
            return Err(TextError::ShapeMismatch {
                tensor: tensor.name,
                expected,
                actual: tensor.shape,
            });
        }
        let values = if is_transposed {
            transpose(&tensor.values, expected[0], expected[1])
        } else {
            tensor.values
        };
        Ok(TensorData::new(values, module_shape.to_vec()))
    }
}

/// Name in the weights file of the parameter at `path`.
fn file_name(path: &[Segment]) -> String {
    let names: Vec<&str> = path
        .iter()
        .map(|segment| file_segment(&segment.name))
        .collect();
    names.join(".")
}

fn file_segment(name: &str) -> &str {
    match name {
        "encoder" => "bert",
        "word" => "word_embeddings",
        "position" => "position_embeddings",
        "token_type" => "token_type_embeddings",
        "norm" => "LayerNorm",
        "layers" => "encoder.layer",
        "query" => "attention.self.query",
        "key" => "attention.self.key",
        "value" => "attention.self.value",
        "attention_output" => "attention.output.dense",
        "attention_norm" => "attention.output.LayerNorm",
        "intermediate" => "intermediate.dense",
        "output" => "output.dense",
        "output_norm" => "output.LayerNorm",
        "gamma" => "weight",
        "beta" => "bias",
        same => same,
    }
}

/// # Shapes
/// `[num_rows, num_cols]` → `[num_cols, num_rows]`, both row-major.
fn transpose(values: &[f32], num_rows: usize, num_cols: usize) -> Vec<f32> {
    let mut transposed = Vec::with_capacity(values.len());
    for col in 0..num_cols {
        transposed.extend((0..num_rows).map(|row| values[row * num_cols + col]));
    }
    transposed
}
