//! Off-policy estimates: what a strategy would have earned on decisions that another one took by chance.
//!
//! A decision showed one item with logged probability `p`; the strategy would have shown it with probability `π`, and
//! `r` is 1 where the item was answered. With `w = min(π/p, clip)` and a reward model `q`,
//!
//! ```text
//! IPS    mean of w·r                                  Horvitz and Thompson 1952
//! SNIPS  Σ w·r / Σ w                                  Swaminathan and Joachims 2015
//! DR     mean of Σ_i π(i)·q(i) + w·(r − q(shown))     Dudík, Langford and Li 2011
//! ESS    (Σ w)² / Σ w²                                decisions that the estimate rests on
//! ```
//!
//! Intervals are 95 % of a normal distribution over sums per user, since decisions of one user are no independent ones.
//! `w` has the mean 1 where the log could have shown all that the strategy shows; where it is below, the estimate leaves
//! a part of the strategy out. Plain mathematics; decisions come from `replayed`.

use std::collections::HashMap;
use std::hash::Hash;

use schemars::JsonSchema;
use serde::Serialize;

/// Of the normal distribution, at 97.5 %.
const Z: f64 = 1.959_964;

/// One decision of the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision<U> {
    /// Whose it was.
    pub user: U,
    /// Probability with which the item was shown, above 0.
    pub logged: f64,
    /// Probability with which the strategy shows it.
    pub target: f64,
    /// 1 where it was answered, else 0.
    pub reward: f64,
    /// `q` of the item.
    pub modelled: f64,
    /// Mean of `q` over what the strategy shows.
    pub modelled_target: f64,
}

/// A value with an interval around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Value {
    /// Answers per decision.
    pub value: f64,
    /// Low end, 95 %.
    pub lower: f64,
    /// High end.
    pub upper: f64,
}

/// What a strategy would have earned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Estimate {
    /// Decisions.
    pub num_decisions: usize,
    /// Users whose they were.
    pub num_users: usize,
    /// What was earned.
    pub logged: Value,
    /// Inverse propensity scores.
    pub ips: Value,
    /// The same, normalized by themselves.
    pub snips: Value,
    /// Doubly robust.
    pub dr: Value,
    /// Decisions that the estimate rests on.
    pub effective_decisions: f64,
    /// Mean of the weights; 1 where the log covers the strategy and nothing is clipped.
    pub mean_weight: Value,
    /// Share of the decisions whose weight was clipped.
    pub share_clipped: f64,
}

/// Estimates from `decisions`, of which there is at least one.
#[must_use]
pub fn estimate<U: Eq + Hash + Copy>(decisions: &[Decision<U>], clip: f64) -> Estimate {
    let weight = |decision: &Decision<U>| (decision.target / decision.logged).min(clip);
    let mean = |of: &dyn Fn(&Decision<U>) -> f64| value(decisions, of);
    let mean_weight = mean(&weight);
    let (sum, squares) = decisions
        .iter()
        .fold((0.0, 0.0), |(sum, squares), decision| {
            let weight = weight(decision);
            (sum + weight, squares + weight * weight)
        });
    let ips = mean(&|decision| weight(decision) * decision.reward);
    let ratio = if sum > 0.0 {
        ips.value / mean_weight.value
    } else {
        0.0
    };
    // A ratio varies as its linear part does (delta method).
    let around = mean(&|decision| weight(decision) * (decision.reward - ratio));
    let half = (around.upper - around.lower) / 2.0 / mean_weight.value.max(f64::MIN_POSITIVE);
    let num_clipped = decisions
        .iter()
        .filter(|one| one.target / one.logged > clip);
    let users: std::collections::HashSet<U> = decisions.iter().map(|one| one.user).collect();
    Estimate {
        num_decisions: decisions.len(),
        num_users: users.len(),
        logged: mean(&|decision| decision.reward),
        ips,
        snips: Value {
            value: ratio,
            lower: ratio - half,
            upper: ratio + half,
        },
        dr: mean(&|decision| {
            let surprise = decision.reward - decision.modelled;
            decision.modelled_target + weight(decision) * surprise
        }),
        effective_decisions: if squares > 0.0 {
            sum * sum / squares
        } else {
            0.0
        },
        mean_weight,
        share_clipped: num_clipped.count() as f64 / decisions.len() as f64, // exact below 2^53
    }
}

/// Mean of a figure over the decisions, and how far it would move with other users.
fn value<U: Eq + Hash + Copy>(
    decisions: &[Decision<U>],
    of: &dyn Fn(&Decision<U>) -> f64,
) -> Value {
    let num_decisions = decisions.len() as f64; // exact below 2^53
    let mean = decisions.iter().map(of).sum::<f64>() / num_decisions;
    let mut by_user: HashMap<U, f64> = HashMap::new();
    for decision in decisions {
        *by_user.entry(decision.user).or_insert(0.0) += of(decision) - mean;
    }
    let num_users = by_user.len() as f64;
    // In a fixed order, so that the same log gives the same figure to the last bit.
    let mut squares: Vec<f64> = by_user.into_values().map(|sum| sum * sum).collect();
    squares.sort_by(f64::total_cmp);
    let squares: f64 = squares.into_iter().sum();
    let correction = num_users / (num_users - 1.0).max(1.0);
    let half = Z * (squares * correction).sqrt() / num_decisions;
    Value {
        value: mean,
        lower: mean - half,
        upper: mean + half,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    const RATES: [f64; 4] = [0.05, 0.1, 0.2, 0.4];
    const LOGGED: [f64; 4] = [0.4, 0.3, 0.2, 0.1];
    const TARGET: [f64; 4] = [0.1, 0.1, 0.1, 0.7];
    /// Σ TARGET · RATES.
    const TRUTH: f64 = 0.315;

    /// A log of 400 users with five decisions each, and a reward model that is off by `bias`.
    fn decisions(seed: u64, bias: f64) -> Vec<Decision<u32>> {
        let mut random = StdRng::seed_from_u64(seed);
        let modelled = RATES.map(|rate| rate + bias);
        let modelled_target = modelled.iter().zip(TARGET).map(|(q, p)| q * p).sum();
        let mut decision = |user| {
            let mut left: f64 = random.random();
            let item = LOGGED.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            let item = item.unwrap_or(3);
            Decision {
                user,
                logged: LOGGED[item],
                target: TARGET[item],
                reward: f64::from(u8::from(random.random_bool(RATES[item]))),
                modelled: modelled[item],
                modelled_target,
            }
        };
        (0..2000).map(|idx| decision(idx / 5)).collect()
    }

    #[test]
    fn estimates_cover_the_truth_of_a_simulated_log_and_a_model_narrows_them() {
        let mut covered = [0; 3];
        let (mut width_ips, mut width_dr) = (0.0, 0.0);
        for seed in 0..200 {
            let found = estimate(&decisions(seed, 0.03), f64::INFINITY);
            let values = [found.ips, found.snips, found.dr];
            for (covered, value) in covered.iter_mut().zip(values) {
                *covered += u32::from(value.lower <= TRUTH && TRUTH <= value.upper);
            }
            width_ips += found.ips.upper - found.ips.lower;
            width_dr += found.dr.upper - found.dr.lower;
            assert!((found.mean_weight.value - 1.0).abs() < 0.25);
        }
        // 190 of 200 are due; fewer than 180 have a probability below 0.001.
        assert!(covered.iter().all(|covered| *covered >= 180), "{covered:?}");
        assert!(width_dr < 0.85 * width_ips, "{width_dr} {width_ips}");
    }

    #[test]
    fn what_was_logged_by_the_strategy_itself_is_what_was_earned() {
        let mut own = decisions(1, 0.0);
        for decision in &mut own {
            decision.target = decision.logged;
        }
        let found = estimate(&own, 10.0);
        assert_eq!(found.ips, found.logged);
        assert!((found.snips.value - found.logged.value).abs() < 1e-12);
        assert_eq!(found.effective_decisions, 2000.0);
        assert_eq!((found.share_clipped, found.num_users), (0.0, 400));
    }

    #[test]
    fn clipping_lowers_weights_and_says_how_often() {
        let found = estimate(&decisions(2, 0.0), 2.0);
        assert!(found.mean_weight.value < 0.6 && found.share_clipped > 0.05);
        assert!(
            found.ips.value < TRUTH - 0.1,
            "clipped estimates are too low: {found:?}"
        );
    }

    #[test]
    fn a_strategy_that_the_log_never_shows_has_no_weight() {
        let mut none = decisions(3, 0.0);
        for decision in &mut none {
            decision.target = 0.0;
        }
        let found = estimate(&none, 10.0);
        assert_eq!((found.ips.value, found.snips.value), (0.0, 0.0));
        assert_eq!(found.effective_decisions, 0.0);
    }
}
