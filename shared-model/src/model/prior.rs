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
use crate::kernels::elementwise::log2_one_plus_exp2;

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

/// `log2(2^log2_sum + weight·2^((at − landmark) / half_life))`: one more event, which counts as `weight` of one.
#[must_use]
pub fn add_event(
    log2_sum: f64,
    weight: f64,
    at_millis: i64,
    landmark_millis: i64,
    half_life_secs: u32,
) -> f64 {
    if weight <= 0.0 {
        return log2_sum;
    }
    let added = weight.log2() + age_in_half_lives(at_millis, landmark_millis, half_life_secs);
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

/// Counts of all items, laid out for scoring at any moment.
///
/// Of many items few sums differ, so the feature of each is computed once per moment and then looked up.
#[derive(Debug, Clone)]
pub struct ItemCounts {
    num_items: usize,
    landmark_millis: i64,
    columns: Vec<CountColumn>,
}

/// The sums of one half-life.
#[derive(Debug, Clone)]
struct CountColumn {
    half_life_secs: u32,
    /// `log2 S`, each one once.
    log2_sums: Vec<f32>,
    /// Which of them each item has, `[num_items]`.
    places: Vec<u16>,
}

impl ItemCounts {
    /// Of codes.
    ///
    /// # Shapes
    /// `codes`: `[num_items, num_half_lives]`, row-major.
    #[must_use]
    pub fn new(codes: &[i16], half_lives_secs: &[u32], landmark_millis: i64) -> Self {
        let num_half_lives = half_lives_secs.len();
        let columns = half_lives_secs.iter().enumerate();
        let column = |(column_idx, half_life_secs): (usize, &u32)| {
            let of_items = codes.iter().skip(column_idx).step_by(num_half_lives);
            CountColumn::new(of_items, *half_life_secs)
        };
        Self {
            num_items: codes.len() / num_half_lives,
            landmark_millis,
            columns: columns.map(column).collect(),
        }
    }

    /// The same half-lives and landmark with other codes.
    #[must_use]
    pub fn with_codes(&self, codes: &[i16]) -> Self {
        let half_lives = self.columns.iter().map(|column| column.half_life_secs);
        Self::new(
            codes,
            &half_lives.collect::<Vec<u32>>(),
            self.landmark_millis,
        )
    }

    /// [`features`] of all items.
    ///
    /// # Shapes
    /// → `[num_items, num_half_lives]`, row-major.
    #[must_use]
    pub fn features(&self, now_millis: i64) -> Vec<f32> {
        let num_half_lives = self.columns.len();
        let mut features = vec![0.0; self.num_items * num_half_lives];
        for (column_idx, column) in self.columns.iter().enumerate() {
            let of_sums = column.features(self.landmark_millis, now_millis);
            let cells = features.iter_mut().skip(column_idx);
            for (cell, place) in cells.step_by(num_half_lives).zip(&column.places) {
                *cell = of_sums[usize::from(*place)];
            }
        }
        features
    }

    /// [`scores`] of [`Self::features`].
    ///
    /// # Shapes
    /// `weights`: `[num_half_lives]` → `[num_items]`.
    #[must_use]
    pub fn scores(&self, weights: &[f32], now_millis: i64) -> Vec<f32> {
        let mut scores = vec![0.0; self.num_items];
        for (column, weight) in self.columns.iter().zip(weights) {
            let mut of_sums = column.features(self.landmark_millis, now_millis);
            for value in &mut of_sums {
                *value *= weight;
            }
            for (score, place) in scores.iter_mut().zip(&column.places) {
                *score += of_sums[usize::from(*place)];
            }
        }
        scores
    }
}

impl CountColumn {
    fn new<'a>(codes: impl Iterator<Item = &'a i16>, half_life_secs: u32) -> Self {
        let mut log2_sums = Vec::new();
        let mut known: Vec<Option<u16>> = vec![None; 1 << 16];
        let place = |code: &i16| {
            *known[usize::from(code.cast_unsigned())].get_or_insert_with(|| {
                log2_sums.push(log2_sum_from_code(*code));
                (log2_sums.len() - 1) as u16 // there are as many codes as places
            })
        };
        let places = codes.map(place).collect();
        Self {
            half_life_secs,
            log2_sums,
            places,
        }
    }

    /// Of each sum.
    fn features(&self, landmark_millis: i64, now_millis: i64) -> Vec<f32> {
        let age = age_in_half_lives(now_millis, landmark_millis, self.half_life_secs) as f32;
        let sums = self.log2_sums.iter();
        sums.map(|log2_sum| log2_one_plus_exp2(log2_sum - age))
            .collect()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_halves_after_one_half_life() {
        let day = 86_400;
        let mut log2_sum = f64::NEG_INFINITY;
        for _ in 0..8 {
            log2_sum = add_event(log2_sum, 1.0, 0, 0, day);
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
                let expected = features(&sums, &half_lives, 1_000, now_millis);
                let counts = ItemCounts::new(codes, &half_lives, 1_000);
                assert_eq!(counts.features(now_millis), expected);
                let weights = [0.7, -1.3];
                assert_eq!(
                    counts.scores(&weights, now_millis),
                    scores(&expected, &weights)
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
        let log2_sum = add_event(f64::NEG_INFINITY, 1.0, -60_000, 0, 60);
        assert_eq!(log2_sum, -1.0);
        assert_eq!(count_code(1.0e9), 32_767);
    }
}
