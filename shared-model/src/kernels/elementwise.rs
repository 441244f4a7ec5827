//! What stands between products: layer norm, softmax, gelu, and the exponential and error functions they need.
//!
//! ```text
//! exp(x)  = 2^n · p(r),  n = round(x / ln 2),  r = x − n·ln 2,  p of degree 6 on |r| ≤ ln 2 / 2   (Cephes, `expf`)
//! erf(x)  = x · a(x²) / b(x²)  on |x| ≤ 4                                                         (Eigen, `erf_float`)
//! gelu(x) = x/2 · (1 + erf(x / √2))                                                   (Hendrycks & Gimpel 2016)
//! ln(m)   = f − f²/2 + f³·q(f),  f = m − 1,  q of degree 8 on √½ ≤ m < √2                  (Cephes, `logf`)
//! ln(1+z) = ln(u) + (z − (u − 1))/u,  u = 1 + z as rounded                             (Kahan; Goldberg 1991)
//! ```
//! Branch-free, so that a loop over them becomes vector instructions.

/// Lanes in which sums run: the order of addition is the same everywhere.
const LANES: usize = 8;

/// Layer norm over rows (Ba et al. 2016): `γ·(x − mean)/√(variance + ε) + β`.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// `[dim]`
    pub gamma: Vec<f32>,
    /// `[dim]`
    pub beta: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

impl Norm {
    /// Normalizes every row in place.
    ///
    /// # Shapes
    /// `rows`: `[num_rows, dim]`, row-major.
    pub fn apply(&self, rows: &mut [f32]) {
        let dim = self.gamma.len();
        for row in rows.chunks_exact_mut(dim) {
            let mean = sum(row, |x| x) / dim as f32;
            let variance = sum(row, |x| (x - mean) * (x - mean)) / dim as f32;
            let scale = 1.0 / (variance + self.epsilon).sqrt();
            let weights = self.gamma.iter().zip(&self.beta);
            for (x, (gamma, beta)) in row.iter_mut().zip(weights) {
                *x = (*x - mean) * scale * gamma + beta;
            }
        }
    }
}

/// Exponentials of one row, scaled so that they add up to 1. An empty row stays empty.
pub fn softmax(row: &mut [f32]) {
    let max = max(row, |x| x);
    for x in row.iter_mut() {
        *x = exp(*x - max);
    }
    let scale = 1.0 / sum(row, |x| x);
    for x in row.iter_mut() {
        *x *= scale;
    }
}

/// Every value replaced by its gelu.
pub fn gelu(values: &mut [f32]) {
    for x in values {
        *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// The largest `f(x)` of numbers; −∞ of none.
pub fn max(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (groups, rest) = values.as_chunks::<LANES>();
    for group in groups {
        for lane in 0..LANES {
            maxima[lane] = larger(maxima[lane], f(group[lane]));
        }
    }
    let rest = rest.iter().map(|x| f(*x));
    maxima
        .into_iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, larger)
}

/// `Σ f(x)` in eight partial sums.
pub fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (groups, rest) = values.as_chunks::<LANES>();
    for group in groups {
        for lane in 0..LANES {
            sums[lane] += f(group[lane]);
        }
    }
    let rest: f32 = rest.iter().map(|x| f(*x)).sum();
    sums.iter().sum::<f32>() + rest
}

/// `a·b` in eight partial sums, over the shorter of both.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let ((a_groups, a_rest), (b_groups, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_groups.iter().zip(b_groups) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// `e^x`, to 2 units in the last place from −87.3 to 88, and the value at the nearer end beyond: a normal number for
/// every `x` that is one.
#[inline]
#[must_use]
pub fn exp(x: f32) -> f32 {
    /// ln 2 in two parts, of which the first has few enough digits for `n·LN_2_HIGH` to be exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.0); // normal numbers: 2^-126 to 2^127
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    power_of_two(n) * exp_near_zero(r)
}

/// `log2(1 + 2^x)`, to 3e-7 of it; 0 below −126, where it is less than a normal number.
#[inline]
#[must_use]
pub fn log2_one_plus_exp2(x: f32) -> f32 {
    let near = x.clamp(-126.0, 30.0);
    let n = (near + ROUND) - ROUND;
    let z = power_of_two(n) * exp_near_zero((near - n) * std::f32::consts::LN_2);
    let log2 = log2_one_plus(z);
    let log2 = if x < -126.0 { 0.0 } else { log2 };
    if x > 30.0 { x } else { log2 } // 2^-30 is below half an ulp of 30
}

/// `log2(1 + z)` for `z` from 0 to 2^126, to 2 units in the last place.
#[inline]
fn log2_one_plus(z: f32) -> f32 {
    /// Bits of √½, from which the mantissa runs to √2.
    const SQRT_HALF: u32 = 0x3f35_04f3;
    let u = 1.0 + z;
    let lost = (z - (u - 1.0)) / u;
    let bits = u.to_bits() - SQRT_HALF; // u is 1 at least
    let exponent = (bits >> 23) as f32; // below 256
    let f = f32::from_bits((bits & 0x007f_ffff) + SQRT_HALF) - 1.0;
    let mut q = 7.037_683_6e-2;
    for coefficient in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333_1e-1,
    ] {
        q = q * f + coefficient;
    }
    let square = f * f;
    let ln = f + (square * (f * q - 0.5) + lost);
    exponent + ln * std::f32::consts::LOG2_E
}

/// Adding and taking away 1.5·2^23 leaves the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// `e^r` for `|r| ≤ ln 2 / 2`.
#[inline]
fn exp_near_zero(r: f32) -> f32 {
    let mut p = 1.987_569_1e-4;
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = p * r + coefficient;
    }
    p * r * r + r + 1.0
}

/// `2^n` of a whole number from −126 to 127.
#[inline]
fn power_of_two(n: f32) -> f32 {
    f32::from_bits(((n as i32 + 127) as u32) << 23) // 1 to 254
}

/// The error function, to 4e-7 absolutely.
#[inline]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut a = -2.726_142_3e-10;
    for coefficient in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_599_8e-3,
        -1.609_603_3e-2,
    ] {
        a = a * square + coefficient;
    }
    let mut b = -1.456_607_2e-5;
    for coefficient in [
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_473_9e-2,
    ] {
        b = b * square + coefficient;
    }
    x * a / b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_the_standard_library() {
        for idx in -8_700..=8_800 {
            let x = idx as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.5e-7, "e^{x} is off by {error}");
        }
        assert!(exp(-1.0e9) < 1.5e-38, "what is masked weighs nothing");
        assert!(exp(f32::MAX).is_finite());
    }

    #[test]
    fn logarithms_of_one_plus_powers_are_what_the_formula_gives() {
        for idx in -1_300..=4_000 {
            let x = idx as f32 / 10.0;
            let expected = f64::from(x).exp2().ln_1p() * std::f64::consts::LOG2_E;
            let expected = if x < -126.0 { 0.0 } else { expected };
            let actual = f64::from(log2_one_plus_exp2(x));
            let error = (actual - expected).abs();
            assert!(error <= 3e-7 * expected, "{x}: {actual} is not {expected}");
        }
        assert_eq!(log2_one_plus_exp2(f32::NEG_INFINITY), 0.0);
        assert_eq!(log2_one_plus_exp2(1_000.0), 1_000.0);
    }

    /// `2/√π · Σ (−1)^n x^(2n+1) / (n!·(2n+1))`, which converges everywhere, in f64 below 4 to 1e-9.
    fn erf_series(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        2.0 / std::f64::consts::PI.sqrt() * sum
    }

    #[test]
    fn gelu_is_the_exact_one() {
        for idx in -800..=800 {
            let x = idx as f32 / 100.0;
            let arg = (f64::from(x) / std::f64::consts::SQRT_2).clamp(-4.0, 4.0);
            let expected = 0.5 * f64::from(x) * (1.0 + erf_series(arg));
            let mut actual = [x];
            gelu(&mut actual);
            let error = (f64::from(actual[0]) - expected).abs();
            assert!(error < 1.5e-6, "gelu({x}) is off by {error}");
        }
    }

    #[test]
    fn softmax_adds_up_to_one_and_norm_has_mean_and_deviation() {
        let mut row: Vec<f32> = (0..19).map(|idx| idx as f32 * 0.7 - 40.0).collect();
        softmax(&mut row);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((row[18] / row[17] - 0.7_f32.exp()).abs() < 1e-5);
        softmax(&mut []);
        let norm = Norm {
            gamma: vec![2.0; 5],
            beta: vec![1.0; 5],
            epsilon: 0.0,
        };
        let mut rows = vec![1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0, 0.0, 5.0];
        norm.apply(&mut rows);
        for row in rows.chunks(5) {
            let mean = row.iter().sum::<f32>() / 5.0;
            let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / 5.0;
            assert!((mean - 1.0).abs() < 1e-6 && (variance - 4.0).abs() < 1e-5);
        }
    }
}
