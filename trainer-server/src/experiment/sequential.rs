//! Statistics that may be looked at after every user: the difference of two arms, and whether arms have the users that
//! their shares promise.
//!
//! Users come one after another with outcome `y ∈ [0, 1]`; the arm is drawn with a known probability `p`, so
//!
//! ```text
//! x_t = (A_t/p − (1 − A_t)/(1 − p)) · (y_t − m_{t−1})      A_t: 1 in the arm, 0 in the control
//! ```
//!
//! has the mean `E[y | arm] − E[y | control]` whatever was seen before, and lies within `±max(1/p, 1/(1 − p))`.
//! `m`, the mean outcome so far, only makes it vary less (inverse propensities with a predictable baseline; Horvitz and
//! Thompson 1952, Waudby-Smith et al. 2024, "Anytime-valid off-policy inference"). Bets on its mean (`betting`) give
//! bounds that hold at all times at once.
//!
//! Shares: with counts `n_i` of `n` users and expected shares `p_i`,
//!
//! ```text
//! E_t = Π ((k·p_i + n_i) / (k + n)) / p_i      over the users, i the arm of each, counts of those before
//! ```
//!
//! is what a gambler has who bets on the shares seen so far; while shares are as promised it ever reaches `1/α` with a
//! probability of at most `α` (Lindon and Malek 2022, "Anytime-valid inference for multinomial count data").

use crate::betting::Betting;

/// Means between 0 and the largest difference that bounds can name, closer together near 0.
const STEPS: i32 = 200;
/// Weight of the promised shares in the bets, in users.
const PRIOR_USERS: f64 = 100.0;
/// Chance that arms with the right shares are ever called wrong.
pub const SHARE_ALPHA: f64 = 0.01;

/// Mean difference of two arms.
#[derive(Debug, Clone)]
pub struct Comparison {
    bound: f64,
    betting: Betting,
    num_users: u64,
    sum: f64,
}

impl Comparison {
    /// No users. Both bounds together fail with a probability of at most `alpha`; `odds` are all the probabilities of the
    /// arm, against its control, that users will come with.
    pub fn new(alpha: f64, odds: &[f64]) -> Self {
        let step = |step| 0.5 + 0.5 * (f64::from(step) / f64::from(STEPS)).powi(3);
        let means: Vec<f64> = (-STEPS..=STEPS).map(step).collect();
        Self::with_means(alpha, odds, &means)
    }

    /// That can be told from 0, and no more; for simulations of many.
    pub fn of_zero(alpha: f64, odds: &[f64]) -> Self {
        Self::with_means(alpha, odds, &[0.5])
    }

    fn with_means(alpha: f64, odds: &[f64], means: &[f64]) -> Self {
        let largest = |p: &f64| p.recip().max((1.0 - p).recip());
        Self {
            bound: odds.iter().map(largest).fold(1.0, f64::max),
            betting: Betting::new(alpha / 2.0, 1, means),
            num_users: 0,
            sum: 0.0,
        }
    }

    /// A user with an outcome in `[0, 1]`, who had the arm with probability `odds`.
    pub fn observe(&mut self, is_in_arm: bool, odds: f64, outcome: f64) {
        let baseline = match self.num_users {
            0 => 0.0,
            num_users => self.sum / num_users as f64, // exact below 2^53
        };
        let weight = if is_in_arm {
            odds.recip()
        } else {
            -(1.0 - odds).recip()
        };
        self.observe_difference(weight * (outcome - baseline));
        self.num_users += 1;
        self.sum += outcome;
    }

    /// A difference itself, within the bound.
    pub fn observe_difference(&mut self, difference: f64) {
        let x = (difference / self.bound + 1.0) / 2.0;
        self.betting.observe(x.clamp(0.0, 1.0)); // rounding alone can lead outside
    }

    /// Users so far.
    pub fn num_observed(&self) -> u64 {
        self.betting.num_observed()
    }

    /// Estimate; `None` before the first user.
    pub fn mean(&self) -> Option<f64> {
        self.betting.mean().map(|x| self.difference(x))
    }

    /// Between these the difference lies, at all times at once.
    pub fn bounds(&self) -> [f64; 2] {
        [self.betting.lower(), self.betting.upper()].map(|x| self.difference(x))
    }

    /// Whether the arm is better (`Some(true)`), worse, or neither can be told.
    pub fn decision(&self) -> Option<bool> {
        if self.betting.lower() >= 0.5 {
            return Some(true);
        }
        (self.betting.upper() <= 0.5).then_some(false)
    }

    fn difference(&self, x: f64) -> f64 {
        (2.0 * x - 1.0) * self.bound
    }
}

/// Whether arms have their shares of the users.
#[derive(Debug, Clone)]
pub struct ShareCheck {
    counts: Vec<f64>,
    expected: Vec<f64>,
    log_wealth: f64,
    log_wealth_max: f64,
}

impl ShareCheck {
    /// No users yet.
    pub fn new(num_arms: usize) -> Self {
        Self {
            counts: vec![0.0; num_arms],
            expected: Vec::new(),
            log_wealth: 0.0,
            log_wealth_max: 0.0,
        }
    }

    /// A user in an arm, who came in one with these probabilities. Where they change, what was seen before is no guide
    /// any more.
    pub fn observe(&mut self, arm_idx: usize, expected: &[f64]) {
        if self.expected != expected {
            self.expected = expected.to_vec();
            self.counts.fill(0.0);
        }
        let num_users: f64 = self.counts.iter().sum();
        let promised = expected[arm_idx];
        let foretold = (PRIOR_USERS * promised + self.counts[arm_idx]) / (PRIOR_USERS + num_users);
        self.log_wealth += (foretold / promised).ln();
        self.log_wealth_max = self.log_wealth_max.max(self.log_wealth);
        self.counts[arm_idx] += 1.0;
    }

    /// Whether nothing speaks against the shares.
    pub fn is_sound(&self) -> bool {
        self.log_wealth_max < -SHARE_ALPHA.ln()
    }

    /// Factor by which what was seen speaks against them at most; `1/α` settles it.
    pub fn evidence(&self) -> f64 {
        self.log_wealth_max.exp().min(f64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// Users of an experiment with the rates of control and arm; the comparison after each is shown to `look`.
    fn simulate(
        seed: u64,
        num_users: usize,
        rates: [f64; 2],
        odds: f64,
        mut comparison: Comparison,
        mut look: impl FnMut(&Comparison) -> bool,
    ) -> bool {
        let mut random = StdRng::seed_from_u64(seed);
        (0..num_users).any(|_| {
            let is_in_arm = random.random_bool(odds);
            let outcome = random.random_bool(rates[usize::from(is_in_arm)]);
            comparison.observe(is_in_arm, odds, f64::from(u8::from(outcome)));
            look(&comparison)
        })
    }

    #[test]
    fn of_a_thousand_experiments_without_a_difference_few_are_ever_decided() {
        let is_decided = |seed: &u64| {
            let comparison = Comparison::of_zero(0.05, &[0.5]);
            let look = |comparison: &Comparison| comparison.decision().is_some();
            simulate(*seed, 1000, [0.1, 0.1], 0.5, comparison, look)
        };
        let num_wrong = (0..1000).filter(is_decided).count();
        assert!(num_wrong <= 50, "{num_wrong} of 1000");
    }

    #[test]
    fn a_difference_is_found_and_lies_within_the_bounds_at_every_look() {
        let (mut num_found, mut num_missed) = (0, 0);
        for seed in 0..20 {
            let comparison = Comparison::new(0.05, &[0.2]);
            let found = simulate(seed, 3000, [0.1, 0.25], 0.2, comparison, |comparison| {
                let [lower, upper] = comparison.bounds();
                if !(lower <= 0.15 && 0.15 <= upper) {
                    num_missed += 1;
                }
                comparison.decision() == Some(true)
            });
            num_found += usize::from(found);
        }
        assert!(num_found >= 19, "{num_found} of 20");
        assert_eq!(num_missed, 0);
    }

    #[test]
    fn shares_that_are_kept_are_sound_and_lost_users_are_noticed() {
        let check = |seed: u64, lost: f64| {
            let mut random = StdRng::seed_from_u64(seed);
            let mut check = ShareCheck::new(2);
            for user in 0..5000 {
                let shares = if user < 1000 { [0.5, 0.5] } else { [0.2, 0.8] };
                let arm_idx = usize::from(random.random_bool(shares[1]));
                if arm_idx == 0 || !random.random_bool(lost) {
                    check.observe(arm_idx, &shares);
                }
            }
            check.is_sound()
        };
        let num_wrong = (0..300).filter(|seed| !check(*seed, 0.0)).count();
        assert!(num_wrong <= 6, "{num_wrong} of 300");
        let num_noticed = (0..20).filter(|seed| !check(*seed, 0.2)).count();
        assert_eq!(num_noticed, 20);
    }
}
