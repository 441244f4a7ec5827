//! Weights to codes: each to the nearest, or so that a layer's weights make up for each other's errors.

use shared_model::text::packed::code_at;

use super::moments::Compensation;

/// Every weight to the nearest code.
pub(super) fn nearest(values: &[f32], step: f32) -> Vec<i8> {
    values.iter().map(|value| code_at(*value, step)).collect()
}

/// From the last input to the first, each weight moved by what rounding those behind it has left.
///
/// # Shapes
/// `values`: `[outputs, inputs]`, row-major → the same.
pub(super) fn with_compensation(values: &[f32], step: f32, compensation: &Compensation) -> Vec<i8> {
    let num_inputs = compensation.num_inputs();
    let mut codes = vec![0; values.len()];
    let mut errors = vec![0.0; num_inputs];
    let outputs = values
        .chunks_exact(num_inputs)
        .zip(codes.chunks_exact_mut(num_inputs));
    for (weights, codes) in outputs {
        for k in (0..num_inputs).rev() {
            let code = code_at(weights[k] + compensation.at(k, &errors), step);
            errors[k] = weights[k] - step * f32::from(code);
            codes[k] = code;
        }
    }
    codes
}
