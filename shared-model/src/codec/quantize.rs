//! Quantizer: real numbers to integer codes with power-of-two scales and back.
//!
//! ```text
//! code  = saturate(round(value · 2^−exponent)), ties to even, zero point 0
//! value = code · 2^exponent
//! ```
//! Symmetric per-row quantization as in ONNX `QuantizeLinear`; since every scale is a power of two, scaling is exact
//! and the result has the same bits on native and wasm.
//! Not here: which codes are published (the server's `compress`).

/// Smallest exponent of any row.
pub const EXPONENT_MIN: i8 = -40;

/// Largest exponent of any row.
pub const EXPONENT_MAX: i8 = 40;

/// Exponent of a row of zeros, and the floor of [`exponent_for`] for 4-bit and 8-bit codes:
/// steps of 1/4096 are finer than what a unit vector of some tens of entries can show.
pub const EXPONENT_ZERO: i8 = -12;

/// Floor of [`exponent_for`] for 16-bit codes, of the same largest value as [`EXPONENT_ZERO`] has for 8 bits.
pub const EXPONENT_FLOOR_16: i8 = -20;

/// Largest code of this width; the smallest is its negative.
#[must_use]
pub fn code_max(code_bits: u8) -> i16 {
    match code_bits {
        4 => 7,
        8 => 127,
        _ => 32_767,
    }
}

/// The smallest exponent at which `max_abs` does not saturate, not below the floor for this width.
///
/// Values beyond the largest exponent saturate; a value that is not finite is the caller's fault and gets that exponent.
#[must_use]
pub fn exponent_for(max_abs: f32, code_bits: u8) -> i8 {
    let floor = if code_bits == 16 {
        EXPONENT_FLOOR_16
    } else {
        EXPONENT_ZERO
    };
    let log2_floor = ((max_abs.abs().to_bits() >> 23) as i32) - 127; // 8 bits after the sign, fit
    let tightest = log2_floor - (i32::from(code_bits) - 2);
    let exponent = tightest.clamp(i32::from(floor), i32::from(EXPONENT_MAX)) as i8; // in range by the clamp
    let saturates = max_abs.abs() * power_of_two(-exponent) >= f32::from(code_max(code_bits)) + 0.5;
    if saturates && exponent < EXPONENT_MAX {
        exponent + 1
    } else {
        exponent
    }
}

/// The exponent that a row at `current` moves to when its largest absolute value is `max_abs`.
///
/// Hysteresis, since a rescale moves every code of the row: up as soon as it would saturate,
/// down only when less than a quarter of the range is used, and then to where half of it is.
#[must_use]
pub fn next_exponent(current: i8, max_abs: f32, code_bits: u8) -> i8 {
    let needed = exponent_for(max_abs, code_bits);
    if needed > current {
        return needed;
    }
    let uses_less_than_a_quarter = i32::from(needed) + 2 <= i32::from(current);
    if uses_less_than_a_quarter {
        needed + 1
    } else {
        current
    }
}

/// The code of `value` at `exponent`: round half to even, saturate; NaN gives 0.
#[must_use]
pub fn quantize(value: f32, exponent: i8, code_bits: u8) -> i16 {
    let max = f32::from(code_max(code_bits));
    let scaled = (value * power_of_two(-exponent)).round_ties_even();
    scaled.clamp(-max, max) as i16 // in range by the clamp
}

/// The value of `code` at `exponent`; exact.
#[must_use]
pub fn dequantize(code: i16, exponent: i8) -> f32 {
    f32::from(code) * power_of_two(exponent)
}

/// The code at an exponent larger by `shift` that is nearest to `code`, ties to even, saturated.
///
/// This predicts the codes of a row after its exponent changed.
#[must_use]
pub fn rescale_code(code: i16, shift: i8, code_bits: u8) -> i16 {
    let max = i32::from(code_max(code_bits));
    let code = i32::from(code);
    let rescaled = match shift {
        0 => code,
        17.. => 0,
        1..=16 => {
            let floor = code >> shift;
            let remainder = code - (floor << shift);
            let half = 1 << (shift - 1);
            let rounds_up = remainder > half || (remainder == half && floor & 1 == 1);
            floor + i32::from(rounds_up)
        }
        -15..=-1 => code << -shift,
        ..=-16 => code.signum() * max,
    };
    rescaled.clamp(-max, max) as i16 // in range by the clamp
}

/// `2^exponent` for every `i8` but −128 and −127, which are subnormal; exact.
#[must_use]
pub fn power_of_two(exponent: i8) -> f32 {
    let biased = (i32::from(exponent) + 127).max(1);
    f32::from_bits((biased as u32) << 23) // 1 to 254, fits the exponent field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponent_is_the_smallest_that_does_not_saturate() {
        for code_bits in [4, 8, 16] {
            let max = f32::from(code_max(code_bits));
            for max_abs in [
                0.05, 0.5, 0.99, 0.9999, 1.0, 1.9, 127.0, 127.4, 127.5, 128.0, 32_767.5, 1e6,
            ] {
                let exponent = exponent_for(max_abs, code_bits);
                let scaled =
                    |exponent: i8| (max_abs * 2f32.powi(-i32::from(exponent))).round_ties_even();
                assert!(scaled(exponent) <= max, "{max_abs} at {exponent}");
                assert!(scaled(exponent - 1) > max, "{max_abs} at {exponent}");
            }
        }
    }

    #[test]
    fn exponent_has_floor_and_ceiling() {
        assert_eq!(exponent_for(0.0, 8), EXPONENT_ZERO);
        assert_eq!(exponent_for(1e-30, 16), EXPONENT_FLOOR_16);
        assert_eq!(exponent_for(f32::MAX, 8), EXPONENT_MAX);
        assert_eq!(exponent_for(f32::INFINITY, 8), EXPONENT_MAX);
        assert_eq!(exponent_for(f32::NAN, 16), EXPONENT_MAX);
    }

    #[test]
    fn exponent_moves_up_at_once_and_down_late() {
        let current = exponent_for(1.0, 8);
        assert_eq!(next_exponent(current, 1.0, 8), current);
        assert_eq!(next_exponent(current, 2.1, 8), current + 1);
        assert_eq!(
            next_exponent(current, 0.5, 8),
            current,
            "more than a quarter is used"
        );
        assert_eq!(
            next_exponent(current, 0.2, 8),
            current - 2,
            "then half of the range is used"
        );
        assert_eq!(next_exponent(EXPONENT_ZERO, 0.0, 8), EXPONENT_ZERO);
    }

    #[test]
    fn rounds_half_to_even_and_saturates() {
        let codes: Vec<i16> = [
            0.5,
            1.5,
            2.5,
            -0.5,
            -1.5,
            126.5,
            127.5,
            -1e9,
            f32::INFINITY,
            f32::NAN,
        ]
        .iter()
        .map(|value| quantize(*value, 0, 8))
        .collect();
        assert_eq!(codes, [0, 2, 2, 0, -2, 126, 127, -127, 127, 0]);
        assert_eq!(quantize(-1e9, 0, 16), -32_767);
    }

    #[test]
    fn every_code_survives_dequantize_and_quantize() {
        for exponent in [EXPONENT_MIN, -12, 0, 7, EXPONENT_MAX] {
            for code in -127..=127 {
                assert_eq!(quantize(dequantize(code, exponent), exponent, 8), code);
            }
            for code in -7..=7 {
                assert_eq!(quantize(dequantize(code, exponent), exponent, 4), code);
            }
            for code in [-32_767, -1, 0, 12_345, 32_767] {
                assert_eq!(quantize(dequantize(code, exponent), exponent, 16), code);
            }
        }
    }

    #[test]
    fn rescaling_equals_quantizing_the_value_anew() {
        for shift in -20..=20_i8 {
            for code in -127..=127 {
                let anew = quantize(dequantize(code, 0), shift, 8);
                assert_eq!(
                    rescale_code(code, shift, 8),
                    anew,
                    "code {code} shift {shift}"
                );
            }
            for code in [-32_767, -16_384, -3, 0, 5, 24_576, 32_767] {
                let anew = quantize(dequantize(code, 0), shift, 16);
                assert_eq!(
                    rescale_code(code, shift, 16),
                    anew,
                    "code {code} shift {shift}"
                );
            }
        }
    }
}
