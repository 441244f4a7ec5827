//! Layer norm over the last axis, forward and backward (Ba, Kiros & Hinton 2016).
//!
//! ```text
//! x̂ = (x − mean)·r     r = 1/√(variance + ε)     y = γ∘x̂ + β
//! ∂x = r·(g − mean(g) − x̂·mean(g∘x̂))             g = γ∘∂y
//! ```

use super::elementwise::dot;
use super::vector::vectorized;

/// As in `shared_model::model::ranker`.
const EPSILON: f32 = 1e-5;

/// What the way back needs.
#[derive(Default)]
pub(super) struct Norm {
    /// x̂, `[num_tokens, dim]`.
    centred: Vec<f32>,
    /// r, `[num_tokens]`.
    scales: Vec<f32>,
}

impl Norm {
    /// `out ← γ∘x̂ + β` of every row of `input`.
    ///
    /// # Shapes
    /// `input`, `out`: `[num_tokens, dim]`; `weight`: `[2, dim]`, γ then β.
    pub(super) fn forward(&mut self, input: &[f32], weight: &[f32], out: &mut Vec<f32>) {
        let dim = weight.len() / 2;
        out.resize(input.len(), 0.0);
        self.centred.resize(input.len(), 0.0);
        self.scales.resize(input.len() / dim, 0.0);
        let (centred, scales) = (&mut self.centred, &mut self.scales);
        vectorized!({
            let (gamma, beta) = weight.split_at(dim);
            let rows = input.chunks_exact(dim).zip(out.chunks_exact_mut(dim));
            let states = centred.chunks_exact_mut(dim).zip(scales);
            for ((row, out), (centred, scale)) in rows.zip(states) {
                let mean = sum(row) / dim as f32;
                for (centred, value) in centred.iter_mut().zip(row) {
                    *centred = value - mean;
                }
                let variance = dot(centred, centred) / dim as f32;
                *scale = 1.0 / (variance + EPSILON).sqrt();
                for (idx, out) in out.iter_mut().enumerate() {
                    centred[idx] *= *scale;
                    *out = gamma[idx] * centred[idx] + beta[idx];
                }
            }
        });
    }

    /// Adds the gradient of the input to `input_gradient` and that of the weight to `weight_gradient`;
    /// `out_gradient` is used up.
    pub(super) fn backward(
        &self,
        out_gradient: &mut [f32],
        weight: &[f32],
        input_gradient: &mut [f32],
        weight_gradient: &mut [f32],
    ) {
        let dim = weight.len() / 2;
        vectorized!({
            let gamma = &weight[..dim];
            let (gamma_gradient, beta_gradient) = weight_gradient.split_at_mut(dim);
            let rows = out_gradient
                .chunks_exact_mut(dim)
                .zip(input_gradient.chunks_exact_mut(dim));
            let states = self.centred.chunks_exact(dim).zip(&self.scales);
            for ((g, input), (centred, scale)) in rows.zip(states) {
                for idx in 0..dim {
                    gamma_gradient[idx] += g[idx] * centred[idx];
                    beta_gradient[idx] += g[idx];
                    g[idx] *= gamma[idx];
                }
                let mean = sum(g) / dim as f32;
                let along = dot(g, centred) / dim as f32;
                for idx in 0..dim {
                    input[idx] += scale * (g[idx] - mean - centred[idx] * along);
                }
            }
        });
    }
}

#[inline(always)]
fn sum(row: &[f32]) -> f32 {
    const NUM_LANES: usize = 16;
    let mut lanes = [0.0_f32; NUM_LANES];
    let chunks = row.chunks_exact(NUM_LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for lane in 0..NUM_LANES {
            lanes[lane] += chunk[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}
