//! Exploration: an order drawn by chance over the best items, with the propensity of every choice.
//!
//! The first `pool` items by score are candidates; each place is filled by a draw among those not placed yet:
//!
//! ```text
//! temperature T   p(i at place j | places before) = e^(s_i/T) / Σ_(r not placed) e^(s_r/T)
//! epsilon ε       p(i at place j | places before) = ε/|not placed| + (1 − ε)·[i is the best not placed]
//! ```
//!
//! The first is the Plackett–Luce model (Plackett 1975; Luce 1959), drawn in one sort by adding Gumbel noise
//! to `s_i/T` (Yellott 1977; Kool, van Hoof & Welling 2019, "Stochastic Beams and Where to Find Them").
//! The propensity of an item is this conditional probability at the place where it stands. At the first place it is
//! the plain probability of being there; the product over the places is the probability of the whole list.
//! It is *not* the probability of being at that place whatever stands before, which has no closed form.
//!
//! Items behind the pool have no chance above those in it: a list longer than the pool goes on in the order of
//! scores, with propensity 1. Not here: scores (`model::scorer`) and seeds, which come from outside;
//! the same seed draws the same list, so whoever explores passes a new one for every ranking.

use serde::Deserialize;

use super::engine::top_k;

/// Largest pool.
pub const POOL_MAX: usize = 1000;
/// Pool where none is given.
pub const POOL_DEFAULT: usize = 100;
/// Temperatures outside of 1/1000 to 1000 are no different from the order of scores, or from dice.
const TEMPERATURE_RANGE: std::ops::RangeInclusive<f64> = 1e-3..=1e3;

/// How places are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ExplorePolicy {
    /// In proportion to `e^(score/temperature)`.
    Temperature(f64),
    /// Uniformly in this share of the draws, else the best.
    Epsilon(f64),
}

/// Draws places by chance among the first `pool` items; exactly one of `temperature` and `epsilon` says how. Checked.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(with = "ExplorationForm")
)]
#[serde(try_from = "ExplorationForm")]
pub struct Exploration {
    policy: ExplorePolicy,
    pool: usize,
    seed: u64,
}

/// Why a wish to explore was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("exploration field {field} is {actual}, expected {expected}")]
pub struct ExplorationError {
    /// Field name.
    pub field: &'static str,
    /// Its value.
    pub actual: String,
    /// What is allowed.
    pub expected: &'static str,
}

/// Draws places by chance among the first `pool` items; exactly one of `temperature` and `epsilon` says how.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(extend("additionalProperties" = true)) // of the server, which leaves others alone
)]
#[serde(deny_unknown_fields)]
struct ExplorationForm {
    /// Draws in proportion to e^(score/temperature), place by place.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 0.001, max = 1000.0)))]
    temperature: Option<f64>,
    /// Share of places that are drawn uniformly; the others go to the best item left.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 0.0, max = 1.0)))]
    epsilon: Option<f64>,
    /// How many of the best items are drawn from; 100 unless given.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = POOL_MAX)))]
    pool: Option<u64>,
    /// The same seed draws the same list, so pass a new one for every ranking.
    seed: u64,
}

impl TryFrom<ExplorationForm> for Exploration {
    type Error = ExplorationError;
    fn try_from(form: ExplorationForm) -> Result<Self, ExplorationError> {
        Self::from_fields(form.temperature, form.epsilon, form.pool, form.seed)
    }
}

impl Exploration {
    /// Of the fields of a request; exactly one of `temperature` and `epsilon` says how.
    ///
    /// # Errors
    /// Names the field that is out of range.
    pub fn from_fields(
        temperature: Option<f64>,
        epsilon: Option<f64>,
        pool: Option<u64>,
        seed: u64,
    ) -> Result<Self, ExplorationError> {
        let refused = |field, actual, expected| ExplorationError {
            field,
            actual,
            expected,
        };
        let policy = match (temperature, epsilon) {
            (Some(temperature), None) if TEMPERATURE_RANGE.contains(&temperature) => {
                ExplorePolicy::Temperature(temperature)
            }
            (None, Some(epsilon)) if (0.0..=1.0).contains(&epsilon) => {
                ExplorePolicy::Epsilon(epsilon)
            }
            (Some(temperature), None) => {
                let actual = temperature.to_string();
                return Err(refused("temperature", actual, "0.001 to 1000"));
            }
            (None, Some(epsilon)) => {
                return Err(refused("epsilon", epsilon.to_string(), "0 to 1"));
            }
            (None, None) => {
                let expected = "a number, or epsilon in its place";
                return Err(refused("temperature", "not given".to_owned(), expected));
            }
            (Some(_), Some(epsilon)) => {
                let expected = "not to be given beside temperature";
                return Err(refused("epsilon", epsilon.to_string(), expected));
            }
        };
        let pool = match pool.map(|pool| (pool, usize::try_from(pool))) {
            None => POOL_DEFAULT,
            Some((_, Ok(pool))) if (1..=POOL_MAX).contains(&pool) => pool,
            Some((pool, _)) => return Err(refused("pool", pool.to_string(), "1 to 1000")),
        };
        Ok(Self { policy, pool, seed })
    }

    /// How many of the best items take part.
    #[must_use]
    pub fn pool(&self) -> usize {
        self.pool
    }

    /// How places are drawn.
    #[must_use]
    pub fn policy(&self) -> ExplorePolicy {
        self.policy
    }

    /// Begins to draw place by place.
    #[must_use]
    pub fn draws(&self) -> Draws {
        Draws {
            policy: self.policy,
            random: SplitMix64(self.seed),
        }
    }

    /// Fills `k` places with items of `eligible`.
    #[must_use]
    pub fn draw(&self, eligible: Vec<u32>, scores: &[f32], k: usize) -> Vec<Placed> {
        let mut pool = top_k(eligible, scores, self.pool.max(k));
        let behind = pool.split_off(self.pool.min(pool.len()));
        let mut random = SplitMix64(self.seed);
        let mut placed = match self.policy {
            ExplorePolicy::Temperature(temperature) => {
                plackett_luce(&pool, scores, temperature, &mut random)
            }
            ExplorePolicy::Epsilon(epsilon) => epsilon_greedy(pool, k, epsilon, &mut random),
        };
        let certain = |item_idx| Placed {
            item_idx,
            propensity: 1.0,
        };
        placed.extend(behind.into_iter().map(certain));
        placed.truncate(k);
        placed
    }
}

/// Draws one place after another, where values change with every place.
#[derive(Debug)]
pub struct Draws {
    policy: ExplorePolicy,
    random: SplitMix64,
}

impl Draws {
    /// Which of `values` takes the place, and the probability of that; the first of equal ones counts as the best.
    /// `values` are scores, at least one.
    #[must_use]
    pub fn choose(&mut self, values: &[f64]) -> (usize, f64) {
        let weights = self.probabilities(values);
        let mut left = self.random.open_unit();
        let mut chosen = 0;
        for (value_idx, probability) in weights.iter().enumerate() {
            if *probability > 0.0 {
                chosen = value_idx; // also the last of them, where rounding leaves something over
            }
            left -= probability;
            if left < 0.0 {
                break;
            }
        }
        (chosen, weights[chosen].clamp(f64::MIN_POSITIVE, 1.0))
    }

    fn probabilities(&self, values: &[f64]) -> Vec<f64> {
        let (mut best, mut max) = (0, f64::NEG_INFINITY);
        for (value_idx, value) in values.iter().enumerate() {
            if *value > max {
                (best, max) = (value_idx, *value);
            }
        }
        match self.policy {
            ExplorePolicy::Temperature(temperature) => {
                let weight = |value: &f64| ((value - max) / temperature).exp();
                let sum: f64 = values.iter().map(weight).sum();
                values.iter().map(|value| weight(value) / sum).collect()
            }
            ExplorePolicy::Epsilon(epsilon) => {
                let mut probabilities = vec![epsilon / values.len() as f64; values.len()]; // at most POOL_MAX
                probabilities[best] += 1.0 - epsilon;
                probabilities
            }
        }
    }
}

/// An item at its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// Row of the item.
    pub item_idx: u32,
    /// Probability of being at this place, given the places before; above 0, at most 1.
    pub propensity: f64,
}

/// Draws all places at once, first place first.
fn plackett_luce(
    pool: &[u32],
    scores: &[f32],
    temperature: f64,
    random: &mut SplitMix64,
) -> Vec<Placed> {
    let mut drawn: Vec<(f64, f64, u32)> = pool
        .iter()
        .map(|item_idx| {
            let log_weight = f64::from(scores[*item_idx as usize]) / temperature;
            let gumbel = -(-random.open_unit().ln()).ln();
            (log_weight + gumbel, log_weight, *item_idx)
        })
        .collect();
    drawn.sort_unstable_by(|(a, _, a_idx), (b, _, b_idx)| b.total_cmp(a).then(a_idx.cmp(b_idx)));
    // From the last place on, so that the log of the sum over what is not placed yet only grows.
    let mut log_sum = f64::NEG_INFINITY;
    let mut placed: Vec<Placed> = Vec::with_capacity(drawn.len());
    for (_, log_weight, item_idx) in drawn.into_iter().rev() {
        log_sum = log_add_exp(log_sum, log_weight);
        let propensity = (log_weight - log_sum).exp().clamp(f64::MIN_POSITIVE, 1.0);
        placed.push(Placed {
            item_idx,
            propensity,
        });
    }
    placed.reverse();
    placed
}

/// Draws the first `k` places, first place first; `pool` comes best first.
fn epsilon_greedy(
    mut pool: Vec<u32>,
    k: usize,
    epsilon: f64,
    random: &mut SplitMix64,
) -> Vec<Placed> {
    let mut placed = Vec::with_capacity(k.min(pool.len()));
    while placed.len() < k && !pool.is_empty() {
        let of_chance = epsilon / pool.len() as f64; // at most POOL_MAX
        let is_chance = random.open_unit() < epsilon;
        let pool_idx = if is_chance {
            // Below the length, since the draw is below 1; rounding down loses nothing else.
            (random.open_unit() * pool.len() as f64) as usize
        } else {
            0
        };
        let of_best = if pool_idx == 0 { 1.0 - epsilon } else { 0.0 };
        placed.push(Placed {
            item_idx: pool.remove(pool_idx),
            propensity: (of_chance + of_best).clamp(f64::MIN_POSITIVE, 1.0),
        });
    }
    placed
}

/// `ln(e^a + e^b)`
fn log_add_exp(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    high + (low - high).exp().ln_1p()
}

/// Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators": a seed, a counter and a mixer,
/// and so a hundred bytes in the page, where a generator for secrets would be kilobytes.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// In (0, 1), never an end of it.
    fn open_unit(&mut self) -> f64 {
        let bits = self.next() >> 12; // 52 bits and a half fit the mantissa exactly
        (bits as f64 + 0.5) / (1_u64 << 52) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SCORES: [f32; 5] = [0.5, 2.0, 1.0, -0.5, 1.5];
    const NUM_DRAWS: u64 = 40_000;
    /// 99.9 % quantile of chi-square with 23 degrees of freedom: 24 lists of three out of four.
    const CHI_SQUARE_MAX: f64 = 49.73;

    fn of(temperature: Option<f64>, epsilon: Option<f64>, seed: u64) -> Exploration {
        Exploration::from_fields(temperature, epsilon, Some(4), seed).expect("in range")
    }

    /// Counts every list that is drawn, and compares with the product of its propensities.
    fn chi_square(temperature: Option<f64>, epsilon: Option<f64>) -> (f64, usize) {
        let mut lists: BTreeMap<Vec<u32>, (f64, f64)> = BTreeMap::new();
        for seed in 0..NUM_DRAWS {
            let placed = of(temperature, epsilon, seed).draw((0..5).collect(), &SCORES, 3);
            let list = placed.iter().map(|placed| placed.item_idx).collect();
            let probability: f64 = placed.iter().map(|placed| placed.propensity).product();
            let (count, known) = lists.entry(list).or_insert((0.0, probability));
            *count += 1.0;
            assert!(
                (*known - probability).abs() < 1e-12,
                "a list has one probability"
            );
        }
        let all: f64 = lists.values().map(|(_, probability)| probability).sum();
        assert!((all - 1.0).abs() < 1e-9, "all lists together have {all}");
        let cell = |(count, probability): &(f64, f64)| {
            let expected = probability * NUM_DRAWS as f64;
            (count - expected).powi(2) / expected
        };
        (lists.values().map(cell).sum(), lists.len())
    }

    #[test]
    fn lists_are_as_frequent_as_their_propensities_say() {
        for (temperature, epsilon) in [(Some(0.8), None), (Some(3.0), None), (None, Some(0.4))] {
            let (statistic, num_lists) = chi_square(temperature, epsilon);
            assert_eq!(num_lists, 24, "item 3 is behind the pool of four");
            assert!(
                statistic < CHI_SQUARE_MAX,
                "{temperature:?} {epsilon:?}: chi-square {statistic}"
            );
        }
    }

    #[test]
    fn the_first_place_has_the_softmax_of_the_pool() {
        let weights: Vec<f64> = [2.0_f64, 1.5, 1.0, 0.5].iter().map(|s| s.exp()).collect();
        let sum: f64 = weights.iter().sum();
        let by_item = BTreeMap::from([(1, 0), (4, 1), (2, 2), (0, 3)]);
        for seed in 0..50 {
            let first = of(Some(1.0), None, seed).draw((0..5).collect(), &SCORES, 1)[0];
            let expected = weights[by_item[&first.item_idx]] / sum;
            assert!((first.propensity - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn cold_and_greedy_ends_keep_the_order_of_scores_and_places_behind_the_pool_are_certain() {
        let order = |exploration: Exploration| {
            let placed = exploration.draw((0..5).collect(), &SCORES, 9);
            let items: Vec<u32> = placed.iter().map(|placed| placed.item_idx).collect();
            (items, placed[4].propensity)
        };
        let by_score = (vec![1, 4, 2, 0, 3], 1.0);
        assert_eq!(order(of(Some(1e-3), None, 7)), by_score);
        assert_eq!(order(of(None, Some(0.0), 7)), by_score);
        assert_eq!(of(Some(1.0), None, 7).draw(vec![], &SCORES, 3), vec![]);
    }

    #[test]
    fn the_same_seed_draws_the_same_list() {
        let draw = |seed| of(Some(2.0), None, seed).draw((0..5).collect(), &SCORES, 5);
        assert_eq!(draw(11), draw(11));
        assert!((0..20).any(|seed| draw(seed) != draw(11)));
    }

    #[test]
    fn an_impossible_choice_still_has_a_propensity_above_zero() {
        let scores = [0.0, 5000.0];
        let exploration = Exploration::from_fields(Some(1e-3), None, None, 3).expect("in range");
        let placed = exploration.draw(vec![0, 1], &scores, 2);
        assert_eq!(placed[0].item_idx, 1);
        assert!(
            placed
                .iter()
                .all(|placed| placed.propensity > 0.0 && placed.propensity <= 1.0)
        );
    }

    #[test]
    fn bad_fields_are_named() {
        let field = |text: &str| {
            let refused = serde_json::from_str::<Exploration>(text).map_err(|e| e.to_string());
            refused.expect_err("refused")
        };
        for (text, part) in [
            (r#"{"temperature": 0, "seed": 1}"#, "temperature is 0"),
            (r#"{"epsilon": 1.5, "seed": 1}"#, "epsilon is 1.5"),
            (r#"{"seed": 1}"#, "temperature is not given"),
            (
                r#"{"temperature": 1, "epsilon": 0.5, "seed": 1}"#,
                "epsilon is 0.5",
            ),
            (
                r#"{"temperature": 1, "seed": 1, "pool": 1001}"#,
                "pool is 1001",
            ),
            (r#"{"temperature": 1}"#, "seed"),
            (
                r#"{"temperature": 1, "seed": 1, "sead": 2}"#,
                "unknown field",
            ),
        ] {
            assert!(field(text).contains(part), "{text}: {}", field(text));
        }
    }
}
