//! Weights to codes: each to the nearest, or so that a layer's weights make up for each other's errors.

use shared_model::text::packed::code_at;

use super::moments::Feedback;

/// Every weight to the nearest code.
pub(super) fn nearest(values: &[f32], step: f32) -> Vec<i8> {
    values.iter().map(|value| code_at(*value, step)).collect()
}

/// From the last input to the first, each weight moved by what rounding those behind it has left.
///
/// # Shapes
/// `values`: `[outputs, inputs]`, row-major → the same.
pub(super) fn with_feedback(values: &[f32], step: f32, feedback: &Feedback) -> Vec<i8> {
    let num_inputs = feedback.num_inputs();
    let mut codes = vec![0; values.len()];
    let mut errors = vec![0.0; num_inputs];
    let outputs = values
        .chunks_exact(num_inputs)
        .zip(codes.chunks_exact_mut(num_inputs));
    for (weights, codes) in outputs {
        for k in (0..num_inputs).rev() {
            let code = code_at(weights[k] + feedback.at(k, &errors), step);
            errors[k] = weights[k] - step * f32::from(code);
            codes[k] = code;
        }
    }
    codes
}
