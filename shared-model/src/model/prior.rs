//! Item prior: learned weights over decayed item counts at several half-lives.
//!
//! Forward decay from a landmark (Cormode et al. 2009, "Forward Decay"): an event at `t` adds
//! `2^((t − landmark) / half_life)` to the sum `S` of its item, so that only touched items change;
//! the decayed count at `now` is `S · 2^(−(now − landmark) / half_life)`.
//! `S` is kept as `log2 S`, since it grows without bound.
//!
//! `prior_i(now) = Σ_h w_h · log2(1 + count_ih(now))`

/// `log2 S` of an item that was never touched.
pub const NEVER: f32 = f32::NEG_INFINITY;

pub use crate::codec::state::{COUNT_EXPONENT, NEVER_CODE};

/// Code of `log2_sum`, saturated, rounded half to even.
#[must_use]
pub fn count_code(log2_sum: f64) -> i16 {
    if log2_sum == f64::NEG_INFINITY {
        return NEVER_CODE;
    }
    let code = (log2_sum * 32.0).round_ties_even();
    code.clamp(-32_767.0, 32_767.0) as i16 // in range by the clamp
}

/// `log2 S` of a code.
#[must_use]
pub fn log2_sum_from_code(code: i16) -> f32 {
    if code == NEVER_CODE {
        NEVER
    } else {
        f32::from(code) / 32.0
    }
}

/// `log2(2^log2_sum + 2^((at − landmark) / half_life))`: one more event.
#[must_use]
pub fn add_event(log2_sum: f64, at_millis: i64, landmark_millis: i64, half_life_secs: u32) -> f64 {
    let added = age_in_half_lives(at_millis, landmark_millis, half_life_secs);
    if log2_sum == f64::NEG_INFINITY {
        return added;
    }
    let (high, low) = if log2_sum > added {
        (log2_sum, added)
    } else {
        (added, log2_sum)
    };
    high + (low - high).exp2().ln_1p() * std::f64::consts::LOG2_E
}

/// `(at − landmark) / half_life`, signed.
#[must_use]
pub fn age_in_half_lives(at_millis: i64, landmark_millis: i64, half_life_secs: u32) -> f64 {
    let secs = (at_millis - landmark_millis) as f64 / 1000.0; // milliseconds of centuries fit f64
    secs / f64::from(half_life_secs)
}

/// Features `log2(1 + count_ih(now))` of all items.
///
/// # Shapes
/// `log2_sums`: `[num_items, num_half_lives]` → same, row-major.
#[must_use]
pub fn features(
    log2_sums: &[f32],
    half_lives_secs: &[u32],
    landmark_millis: i64,
    now_millis: i64,
) -> Vec<f32> {
    let ages: Vec<f32> = half_lives_secs
        .iter()
        .map(|half_life| age_in_half_lives(now_millis, landmark_millis, *half_life) as f32)
        .collect();
    let mut features = Vec::with_capacity(log2_sums.len());
    for row in log2_sums.chunks_exact(ages.len()) {
        for (log2_sum, age) in row.iter().zip(&ages) {
            features.push(log2_one_plus_exp2(log2_sum - age));
        }
    }
    features
}

/// [`features`] of codes, each code's feature computed once: few of them differ where many items are.
///
/// # Shapes
/// `codes`: `[num_items, num_half_lives]` → same, row-major.
#[must_use]
pub fn features_of_codes(
    codes: &[i16],
    half_lives_secs: &[u32],
    landmark_millis: i64,
    now_millis: i64,
) -> Vec<f32> {
    let num_half_lives = half_lives_secs.len();
    let mut features = vec![0.0; codes.len()];
    let mut known = Vec::new();
    for (column, half_life) in half_lives_secs.iter().enumerate() {
        let age = age_in_half_lives(now_millis, landmark_millis, *half_life) as f32;
        let of_items = codes.iter().skip(column).step_by(num_half_lives);
        let counted = of_items.clone().filter(|code| **code != NEVER_CODE);
        let (Some(lowest), Some(highest)) = (counted.clone().min(), counted.max()) else {
            continue; // log2(1 + 0) is 0
        };
        let place = |code: i16| (i32::from(code) - i32::from(*lowest)) as usize; // not below the lowest
        known.clear();
        known.resize(place(*highest) + 1, f32::NAN);
        let cells = features.iter_mut().skip(column).step_by(num_half_lives);
        for (feature, code) in cells.zip(of_items) {
            if *code == NEVER_CODE {
                continue;
            }
            let known = &mut known[place(*code)];
            if known.is_nan() {
                *known = log2_one_plus_exp2(log2_sum_from_code(*code) - age);
            }
            *feature = *known;
        }
    }
    features
}

/// [`scores`] of [`features_of_codes`] in one pass, which is what ranking asks for.
///
/// # Shapes
/// `codes`: `[num_items, num_half_lives]`, row-major → `[num_items]`.
#[must_use]
pub fn scores_of_codes(
    codes: &[i16],
    half_lives_secs: &[u32],
    weights: &[f32],
    landmark_millis: i64,
    now_millis: i64,
) -> Vec<f32> {
    let num_half_lives = half_lives_secs.len();
    let ages: Vec<f32> = half_lives_secs
        .iter()
        .map(|half_life| age_in_half_lives(now_millis, landmark_millis, *half_life) as f32)
        .collect();
    let highest = codes.iter().max().copied().unwrap_or(NEVER_CODE);
    // One below "never" is the largest of all codes, so that it is not the lowest.
    let below_lowest = codes.iter().map(|code| code.wrapping_sub(1)).min();
    let lowest = i32::from(below_lowest.unwrap_or_default()) + 1;
    let num_codes = usize::try_from(i32::from(highest) - lowest + 1).unwrap_or(0); // none was counted
    let mut known = vec![f32::NAN; num_codes * num_half_lives];
    let mut scores = Vec::with_capacity(codes.len() / num_half_lives);
    for row in codes.chunks_exact(num_half_lives) {
        let mut score = 0.0;
        for (column, code) in row.iter().enumerate() {
            if *code == NEVER_CODE {
                continue; // log2(1 + 0) is 0
            }
            let place = (i32::from(*code) - lowest) as usize; // not below the lowest
            let known = &mut known[place * num_half_lives + column];
            if known.is_nan() {
                let feature = log2_one_plus_exp2(log2_sum_from_code(*code) - ages[column]);
                *known = feature * weights[column];
            }
            score += *known;
        }
        scores.push(score);
    }
    scores
}

/// `Σ_h w_h · feature_ih` for all items: `[num_items]`.
#[must_use]
pub fn scores(features: &[f32], weights: &[f32]) -> Vec<f32> {
    let rows = features.chunks_exact(weights.len());
    rows.map(|row| {
        row.iter()
            .zip(weights)
            .map(|(feature, weight)| feature * weight)
            .sum()
    })
    .collect()
}

/// `log2(1 + 2^x)` without overflow; 0 for −∞.
fn log2_one_plus_exp2(x: f32) -> f32 {
    if x > 30.0 {
        return x; // 2^-30 is below half an ulp of 30
    }
    if x < -24.0 {
        return x.exp2() * std::f32::consts::LOG2_E; // ln(1 + z) is z to half an ulp, and most counts have faded
    }
    x.exp2().ln_1p() * std::f32::consts::LOG2_E
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faded_counts_are_what_the_formula_gives() {
        for idx in -1600..=40 {
            let x = idx as f32 / 8.0;
            let expected = f64::from(x).exp2().ln_1p() * std::f64::consts::LOG2_E;
            let actual = f64::from(log2_one_plus_exp2(x));
            let error = (actual - expected).abs();
            let smallest_steps = 2.0 * f64::from(f32::from_bits(1)); // below 2^-126 f32 has no more than these
            assert!(
                error <= 3e-7 * expected + smallest_steps,
                "{x}: {actual} is not {expected}"
            );
        }
        assert_eq!(log2_one_plus_exp2(NEVER), 0.0);
    }

    #[test]
    fn a_count_halves_after_one_half_life() {
        let day = 86_400;
        let mut log2_sum = f64::NEG_INFINITY;
        for _ in 0..8 {
            log2_sum = add_event(log2_sum, 0, 0, day);
        }
        let later = i64::from(day) * 1000;
        let feature = features(&[log2_sum as f32], &[day], 0, later)[0];
        assert!(
            (feature - 5.0_f32.log2()).abs() < 1e-5,
            "8 events are 4 after one half-life, log2(1 + 4)"
        );
    }

    #[test]
    fn codes_have_the_features_of_their_sums() {
        let half_lives = [60, 3_600];
        let extremes = [
            NEVER_CODE, -32_767, 32_767, 0, -1, 17, NEVER_CODE, 1_000, 17, 17,
        ];
        for codes in [
            &extremes[..],
            &extremes[6..8],
            &[NEVER_CODE, 5],
            &[NEVER_CODE; 2],
            &[],
        ] {
            for now_millis in [-90_000, 0, 86_400_000] {
                let sums: Vec<f32> = codes.iter().map(|code| log2_sum_from_code(*code)).collect();
                let features = features(&sums, &half_lives, 1_000, now_millis);
                assert_eq!(
                    features_of_codes(codes, &half_lives, 1_000, now_millis),
                    features
                );
                let weights = [0.7, -1.3];
                assert_eq!(
                    scores_of_codes(codes, &half_lives, &weights, 1_000, now_millis),
                    scores(&features, &weights)
                );
            }
        }
    }

    #[test]
    fn untouched_items_have_prior_zero() {
        assert_eq!(features(&[NEVER], &[60], 0, 1_000_000), vec![0.0]);
        assert_eq!(log2_sum_from_code(count_code(f64::NEG_INFINITY)), NEVER);
    }

    #[test]
    fn a_late_event_before_the_landmark_still_counts() {
        let log2_sum = add_event(f64::NEG_INFINITY, -60_000, 0, 60);
        assert_eq!(log2_sum, -1.0);
        assert_eq!(count_code(1.0e9), 32_767);
    }
}
