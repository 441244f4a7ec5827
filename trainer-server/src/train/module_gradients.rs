//! Gradients of a burn module as a whole: their norm, their scaling, and the optimizer that follows them.
//!
//! Used where a text network learns all its weights (`cross_encoder::tuner`, `distill`); the Ranker has its own on host
//! arrays (`optimizer`).

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use shared_model::text::TextError;
use shared_model::text::cross_encoder::undecayed;

/// AdamW; biases and norms do not decay.
pub(crate) fn adam_w(weight_decay: f32) -> ModuleOptimizer {
    let adam = |weight_decay| {
        AdamWConfig::new()
            .with_epsilon(1e-8)
            .with_weight_decay(weight_decay)
    };
    adam(weight_decay)
        .init()
        .with_group(undecayed(), adam(0.0).build(), None)
}

/// Norm of all gradients together.
///
/// # Errors
/// The device failed to give it back.
pub(crate) fn gradient_norm(
    model: &impl Module,
    gradients: &GradientsParams,
) -> Result<f32, TextError> {
    let mut squares = Squares {
        gradients,
        sums: Vec::new(),
    };
    model.visit(&mut squares);
    if squares.sums.is_empty() {
        return Ok(0.0);
    }
    Ok(read_values(Tensor::cat(squares.sums, 0).sum().sqrt())?[0])
}

/// Multiplies all gradients by `by`.
pub(crate) fn scale_gradients(model: &impl Module, gradients: &mut GradientsParams, by: f32) {
    model.visit(&mut Scaler { gradients, by });
}

/// Values of a tensor, row-major.
///
/// # Errors
/// The device failed to give them back.
pub(crate) fn read_values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TextError> {
    let failed = |reason| TextError::Device { reason };
    let data = tensor.try_into_data();
    let data = data.map_err(|error| failed(format!("{error:?}")))?;
    let values = data.try_into_vec::<f32>();
    values.map_err(|error| failed(format!("{error:?}")))
}

/// Sums of squares of every gradient.
struct Squares<'a> {
    gradients: &'a GradientsParams,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.sums.push(gradient.powi_scalar(2).sum());
        }
    }
}

struct Scaler<'a> {
    gradients: &'a mut GradientsParams,
    by: f32,
}

impl ModuleVisitor for Scaler<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient * self.by);
        }
    }
}
