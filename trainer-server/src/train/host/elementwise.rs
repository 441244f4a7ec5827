//! Arithmetic element by element and row by row, in loops that the compiler turns into vectors.
//!
//! Every public function runs inside `pulp`'s dispatch, so that its loops use the widest instructions of
//! this machine; sums are kept in 16 lanes, since the order of a float sum is part of its result.
//! Not here: matrix products (`matmul`).

use super::vector::vectorized;

const NUM_LANES: usize = 16;
/// `exp` below this is nothing beside the largest term of a softmax.
const EXPONENT_MIN: f32 = -87.0;

/// `eˣ` for `x ≤ 0`, relative error 2e-7: `2ⁿ·eʳ` with `|r| ≤ ln 2 / 2` and a polynomial (Cephes, `expf`).
/// Below [`EXPONENT_MIN`] it is that of the bound; NaN stays NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, which then lies in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < EXPONENT_MIN { EXPONENT_MIN } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4_f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    p * f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23)
}

/// `Σ f(aᵢ, bᵢ)`.
#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; NUM_LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(NUM_LANES), b.chunks_exact(NUM_LANES));
    let rest: f32 = a_chunks
        .remainder()
        .iter()
        .zip(b_chunks.remainder())
        .map(|(a, b)| f(*a, *b))
        .sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..NUM_LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// `Σ aᵢ·bᵢ`, for use inside a dispatch.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_of(a, b, |a, b| a * b)
}

/// `a += factor·b`, for use inside a dispatch.
#[inline(always)]
pub(super) fn add_scaled(a: &mut [f32], factor: f32, b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += factor * b;
    }
}

/// Largest of `values` and `first`; NaN is passed over.
#[inline(always)]
fn largest(values: &[f32], first: f32) -> f32 {
    let mut lanes = [first; NUM_LANES];
    let chunks = values.chunks_exact(NUM_LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..NUM_LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] {
                chunk[lane]
            } else {
                lanes[lane]
            };
        }
    }
    lanes.iter().chain(rest).copied().fold(first, f32::max)
}

/// Replaces `values` by `exp(values − max)`, where `max` is the largest of them and `first`.
/// Returns `max` and the sum of the results.
pub(super) fn exponentials(values: &mut [f32], first: f32) -> (f32, f32) {
    vectorized!({ exponentials_here(values, first) })
}

/// As [`exponentials`], for use inside a dispatch.
#[inline(always)]
pub(super) fn exponentials_here(values: &mut [f32], first: f32) -> (f32, f32) {
    let max = largest(values, first);
    let mut lanes = [0.0_f32; NUM_LANES];
    let mut chunks = values.chunks_exact_mut(NUM_LANES);
    for chunk in &mut chunks {
        for lane in 0..NUM_LANES {
            chunk[lane] = exp(chunk[lane] - max);
            lanes[lane] += chunk[lane];
        }
    }
    let mut sum = lanes.iter().sum::<f32>();
    for value in chunks.into_remainder() {
        *value = exp(*value - max);
        sum += *value;
    }
    (max, sum)
}

/// `a += b`.
pub(super) fn add(a: &mut [f32], b: &[f32]) {
    vectorized!({ add_scaled(a, 1.0, b) });
}

/// `a += factor·b`.
pub(super) fn add_multiple(a: &mut [f32], factor: f32, b: &[f32]) {
    vectorized!({ add_scaled(a, factor, b) });
}

/// `sums += Σ rows`: gradient of a bias.
///
/// # Shapes
/// `rows`: `[num_rows, sums.len()]`.
pub(super) fn add_rows(sums: &mut [f32], rows: &[f32]) {
    vectorized!({
        for row in rows.chunks_exact(sums.len()) {
            add_scaled(sums, 1.0, row);
        }
    });
}

/// `out = a∘mask`, a copy where there is no mask.
pub(super) fn masked(out: &mut [f32], a: &[f32], mask: &[f32]) {
    if mask.is_empty() {
        out.copy_from_slice(a);
        return;
    }
    vectorized!({
        for ((out, a), mask) in out.iter_mut().zip(a).zip(mask) {
            *out = a * mask;
        }
    });
}

/// `out += a∘mask`, or `out += a` where there is no mask.
pub(super) fn add_masked(out: &mut [f32], a: &[f32], mask: &[f32]) {
    if mask.is_empty() {
        return add(out, a);
    }
    vectorized!({
        for ((out, a), mask) in out.iter_mut().zip(a).zip(mask) {
            *out += a * mask;
        }
    });
}

/// `a ← a∘b`.
pub(super) fn scale_by(a: &mut [f32], b: &[f32]) {
    vectorized!({
        for (a, b) in a.iter_mut().zip(b) {
            *a *= b;
        }
    });
}

/// `values ← gelu(values)`, `slopes ← gelu'(values)`, with `gelu(x) = x·Φ(x)` (Hendrycks & Gimpel 2016).
///
/// `Φ` by Abramowitz & Stegun 7.1.26, absolute error 1.5e-7.
pub(super) fn gelu(values: &mut [f32], slopes: &mut [f32]) {
    vectorized!({
        for (value, slope) in values.iter_mut().zip(slopes) {
            let x = *value;
            let bell = exp(-0.5 * x * x);
            let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
            let t = 1.0 / (1.0 + 0.327_591_1 * z);
            let mut p = 1.061_405_4_f32;
            p = p * t - 1.453_152;
            p = p * t + 1.421_413_7;
            p = p * t - 0.284_496_72;
            p = p * t + 0.254_829_6;
            let tail = 0.5 * p * t * bell;
            let below = if x < 0.0 { tail } else { 1.0 - tail };
            /// 1/√(2π)
            const BELL_TOP: f32 = 0.398_942_3;
            *value = x * below;
            *slope = below + x * BELL_TOP * bell;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_sum_to_what_f64_says() {
        let values: Vec<f32> = (0..1003).map(|idx| idx as f32 * 0.08 - 11.0).collect();
        let mut actual = values.clone();
        let (max, sum) = exponentials(&mut actual, f32::MIN);
        assert_eq!(max, values[1002]);
        let wanted: Vec<f64> = values
            .iter()
            .map(|value| f64::from(value - max).exp())
            .collect();
        for (actual, wanted) in actual.iter().zip(&wanted) {
            assert!((f64::from(*actual) / wanted - 1.0).abs() < 1e-6);
        }
        assert!((f64::from(sum) / wanted.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_first_value_above_all_others_is_the_maximum_and_nan_is_kept() {
        let mut values = [1.0, f32::NAN, -200.0];
        let (max, sum) = exponentials(&mut values, 3.0);
        assert_eq!(max, 3.0);
        assert!(sum.is_nan() && values[1].is_nan());
        assert!((values[0] - (-2.0_f32).exp()).abs() < 1e-6 && values[2] < 1e-30);
    }

    #[test]
    fn the_slope_of_gelu_is_its_derivative() {
        let points: Vec<f32> = (-40..=40).map(|idx| idx as f32 / 8.0).collect();
        let at = |shift: f32| {
            let mut values: Vec<f32> = points.iter().map(|x| x + shift).collect();
            let mut slopes = values.clone();
            gelu(&mut values, &mut slopes);
            (values, slopes)
        };
        let (values, slopes) = at(0.0);
        assert!((values[48] - 0.841_344_7).abs() < 1e-6, "gelu(1)");
        assert!((values[32] + 0.158_655_3).abs() < 1e-6, "gelu(-1)");
        let (above, below) = (at(1e-2).0, at(-1e-2).0);
        for idx in 0..points.len() {
            let difference = (above[idx] - below[idx]) / 2e-2;
            assert!(
                (difference - slopes[idx]).abs() < 1e-4,
                "at {}",
                points[idx]
            );
        }
    }
}
