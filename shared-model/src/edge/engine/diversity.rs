//! Diversity: a list whose items are unlike each other, by maximal marginal relevance.
//!
//! Place by place, of the best `pool` items by score, the one with the largest marginal relevance is taken
//! (Carbonell & Goldstein 1998, "The Use of MMR, Diversity-Based Reranking"), `S` being what stands before:
//!
//! ```text
//! MMR_i = λ·r_i − (1 − λ)·max_(j in S) cos(v_i, v_j)        the maximum is 0 while S is empty
//! r_i   = (s_i − s_min) / (s_max − s_min)                   over the pool; 0 where all scores are equal
//! ```
//!
//! λ = 1 is the order of scores, λ = 0 asks for unlike items alone. `v` are the item vectors that the model ranks with.
//! Required items count among what stands before. Behind the pool the order is that of scores.
//!
//! With exploration each place is drawn over `(s_max − s_min)·MMR_i` in the place of scores, so a temperature means
//! what it means without diversity, and at λ = 1 the same. That is again a probability given the places before, and
//! so an honest propensity. The pool is then the smaller of the two pools.

use serde::Deserialize;

use crate::edge::explore::{Draws, Placed};

/// Largest pool.
const POOL_MAX: usize = 1000;
/// Pool where none is given.
const POOL_DEFAULT: usize = 100;

/// A wish for diversity; checked.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "DiversityForm")]
pub struct Diversity {
    lambda: f64,
    pool: usize,
}

/// Why a wish for diversity was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("diversity field {field} is {actual}, expected {expected}")]
pub struct DiversityError {
    /// Field name.
    pub field: &'static str,
    /// Its value.
    pub actual: String,
    /// What is allowed.
    pub expected: &'static str,
}

/// `{"lambda": 0.7}`, with `"pool": 100` if wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiversityForm {
    lambda: f64,
    #[serde(default)]
    pool: Option<u64>,
}

impl TryFrom<DiversityForm> for Diversity {
    type Error = DiversityError;
    fn try_from(form: DiversityForm) -> Result<Self, DiversityError> {
        Self::new(form.lambda, form.pool)
    }
}

impl Diversity {
    /// `lambda` from 0 (unlike items) to 1 (the order of scores) over the best `pool` items.
    ///
    /// # Errors
    /// Names the field that is out of range.
    pub fn new(lambda: f64, pool: Option<u64>) -> Result<Self, DiversityError> {
        if !(0.0..=1.0).contains(&lambda) {
            return Err(DiversityError {
                field: "lambda",
                actual: lambda.to_string(),
                expected: "0 to 1",
            });
        }
        let pool = match pool.map(|pool| (pool, usize::try_from(pool))) {
            None => POOL_DEFAULT,
            Some((_, Ok(pool))) if (1..=POOL_MAX).contains(&pool) => pool,
            Some((pool, _)) => {
                return Err(DiversityError {
                    field: "pool",
                    actual: pool.to_string(),
                    expected: "1 to 1000",
                });
            }
        };
        Ok(Self { lambda, pool })
    }

    /// How many of the best items take part.
    #[must_use]
    pub fn pool(&self) -> usize {
        self.pool
    }
}

/// What is left of a pool while a list grows.
pub(super) struct MarginalRelevance<'a> {
    lambda: f64,
    /// `s_max − s_min` of the pool.
    range: f64,
    vectors: Vectors<'a>,
    left: Vec<Candidate>,
    /// Places of the list that are in every candidate's maximum.
    num_compared: usize,
}

/// Vectors of some rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vectors<'a> {
    /// Which rows; those of the pool first, in its order.
    pub(super) item_idxs: &'a [u32],
    /// `[item_idxs.len(), embedding_dim]`, each of length 1 or 0.
    pub(super) values: &'a [f32],
    /// Width.
    pub(super) dim: usize,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    item_idx: u32,
    /// Where its vector stands.
    vector_idx: usize,
    relevance: f64,
    /// To what stands before; `None` while nothing does.
    max_similarity: Option<f64>,
}

impl Vectors<'_> {
    /// Nothing for items behind the pool: they are placed when nobody compares any more.
    fn position(&self, item_idx: u32) -> Option<usize> {
        self.item_idxs.iter().position(|idx| *idx == item_idx)
    }

    fn row(&self, vector_idx: usize) -> &[f32] {
        &self.values[vector_idx * self.dim..(vector_idx + 1) * self.dim]
    }
}

impl<'a> MarginalRelevance<'a> {
    /// Over `pool`, rows best first by `scores`. `vectors` holds these and the required ones.
    pub(super) fn new(
        diversity: Diversity,
        pool: &[u32],
        scores: &[f32],
        vectors: Vectors<'a>,
    ) -> Self {
        let score = |item_idx: &u32| f64::from(scores[*item_idx as usize]);
        let (first, last) = (pool.first().map(score), pool.last().map(score));
        let (max, min) = (first.unwrap_or(0.0), last.unwrap_or(0.0));
        let range = max - min;
        let relevance = |score: f64| {
            if range > 0.0 {
                (score - min) / range
            } else {
                0.0
            }
        };
        let candidate = |(vector_idx, item_idx): (usize, &u32)| Candidate {
            item_idx: *item_idx,
            vector_idx,
            relevance: relevance(score(item_idx)),
            max_similarity: None,
        };
        Self {
            lambda: diversity.lambda,
            range,
            vectors,
            left: pool.iter().enumerate().map(candidate).collect(),
            num_compared: 0,
        }
    }

    /// The item for the place behind `list`: the best, or drawn. Nothing where the pool is used up.
    pub(super) fn next(&mut self, list: &[Placed], draws: Option<&mut Draws>) -> Option<Placed> {
        self.compare(&list[self.num_compared..]);
        self.num_compared = list.len();
        if self.left.is_empty() {
            return None;
        }
        let values = self.left.iter().map(|candidate| {
            let similarity = candidate.max_similarity.unwrap_or(0.0);
            self.lambda * candidate.relevance - (1.0 - self.lambda) * similarity
        });
        let (chosen, propensity) = match draws {
            None => (best_of(values), 1.0),
            Some(draws) => {
                let values: Vec<f64> = values.map(|value| value * self.range).collect();
                draws.choose(&values)
            }
        };
        let item_idx = self.left.remove(chosen).item_idx;
        Some(Placed {
            item_idx,
            propensity,
        })
    }

    /// Takes what was placed since into every maximum.
    fn compare(&mut self, placed: &[Placed]) {
        for placed in placed {
            let Some(vector_idx) = self.vectors.position(placed.item_idx) else {
                continue;
            };
            let other = self.vectors.row(vector_idx);
            for candidate in &mut self.left {
                let similarity = cosine(self.vectors.row(candidate.vector_idx), other);
                let before = candidate.max_similarity.unwrap_or(f64::NEG_INFINITY);
                candidate.max_similarity = Some(similarity.max(before));
            }
        }
    }
}

/// Cosine of two vectors of length 1; 0 where one has length 0.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

/// Position of the largest value, the first where equal; 0 where there is none.
fn best_of(values: impl Iterator<Item = f64>) -> usize {
    let (mut best, mut best_value) = (0, f64::NEG_INFINITY);
    for (position, value) in values.enumerate() {
        if value > best_value {
            (best, best_value) = (position, value);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::edge::engine::rules::Applied;
    use crate::edge::explore::Exploration;

    const NUM_DRAWS: u64 = 40_000;
    /// 99.9 % quantile of chi-square with 23 degrees of freedom: 24 lists of three out of four.
    const CHI_SQUARE_MAX: f64 = 49.73;
    const SCORES: [f32; 5] = [1.0, 0.5, 2.0, 1.5, -3.0];
    /// Rows 2, 3, 0, 1 (the pool) and 4 (required), in two dimensions.
    const VECTORS: [f32; 10] = [1.0, 0.0, 0.8, 0.6, 0.0, 1.0, -0.6, 0.8, 0.6, 0.8];

    /// Three drawn items around a required one.
    fn drawn(exploration: &Exploration, lambda: f64) -> Vec<Placed> {
        let pool = [2, 3, 0, 1];
        let vectors = Vectors {
            item_idxs: &[2, 3, 0, 1, 4],
            values: &VECTORS,
            dim: 2,
        };
        let diversity = Diversity::new(lambda, None).expect("in range");
        let mut marginal = MarginalRelevance::new(diversity, &pool, &SCORES, vectors);
        let mut draws = exploration.draws();
        let applied = Applied {
            required: vec![(1, 4)],
            ..Applied::default()
        };
        applied.fill(4, |list| marginal.next(list, Some(&mut draws)))
    }

    #[test]
    fn unlike_lists_are_as_frequent_as_their_propensities_say() {
        for (temperature, epsilon) in [(Some(0.8), None), (Some(3.0), None), (None, Some(0.4))] {
            let mut lists: BTreeMap<Vec<u32>, (f64, f64)> = BTreeMap::new();
            for seed in 0..NUM_DRAWS {
                let exploration = Exploration::from_fields(temperature, epsilon, None, seed);
                let list = drawn(&exploration.expect("in range"), 0.5);
                assert_eq!((list[1].item_idx, list[1].propensity), (4, 1.0));
                let probability: f64 = list.iter().map(|placed| placed.propensity).product();
                let item_idxs = list.iter().map(|placed| placed.item_idx).collect();
                let (count, known) = lists.entry(item_idxs).or_insert((0.0, probability));
                *count += 1.0;
                assert!(
                    (*known - probability).abs() < 1e-12,
                    "one list, one probability"
                );
            }
            assert_eq!(lists.len(), 24);
            let all: f64 = lists.values().map(|(_, probability)| probability).sum();
            assert!((all - 1.0).abs() < 1e-9, "all lists together have {all}");
            let cell = |(count, probability): &(f64, f64)| {
                let expected = probability * NUM_DRAWS as f64;
                (count - expected).powi(2) / expected
            };
            let statistic: f64 = lists.values().map(cell).sum();
            let wish = (temperature, epsilon);
            assert!(
                statistic < CHI_SQUARE_MAX,
                "{wish:?}: chi-square {statistic}"
            );
        }
    }

    #[test]
    fn equal_scores_leave_the_choice_to_unlikeness_and_to_dice() {
        let vectors = Vectors {
            item_idxs: &[0, 1, 2],
            values: &[1.0, 0.0, 1.0, 0.0, 0.0, 1.0],
            dim: 2,
        };
        let diversity = Diversity::new(0.5, None).expect("in range");
        let new = || MarginalRelevance::new(diversity, &[0, 1, 2], &[7.0; 3], vectors);
        let mut marginal = new();
        let list = Applied::default().fill(3, |list| marginal.next(list, None));
        let order: Vec<u32> = list.iter().map(|placed| placed.item_idx).collect();
        assert_eq!(order, [0, 2, 1]);
        let exploration = Exploration::from_fields(Some(1.0), None, None, 3).expect("in range");
        let (mut marginal, mut draws) = (new(), exploration.draws());
        let first = marginal
            .next(&[], Some(&mut draws))
            .expect("three are left");
        assert!((first.propensity - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn bad_fields_are_named() {
        for (text, part) in [
            (r#"{"lambda": 1.01}"#, "lambda is 1.01, expected 0 to 1"),
            (r#"{"lambda": -0.5}"#, "lambda is -0.5"),
            (r#"{"lambda": 0.5, "pool": 0}"#, "pool is 0"),
            (r#"{"lambda": 0.5, "pool": 1001}"#, "pool is 1001"),
            (r#"{"pool": 10}"#, "missing field `lambda`"),
            (r#"{"lambda": 0.5, "k": 10}"#, "unknown field `k`"),
        ] {
            let refused = serde_json::from_str::<Diversity>(text).map_err(|e| e.to_string());
            let message = refused.expect_err("refused");
            assert!(message.contains(part), "{text}: {message}");
        }
        assert_eq!(Diversity::new(0.5, None).map(|d| d.pool()), Ok(100));
        assert!(Diversity::new(f64::NAN, None).is_err());
    }
}
