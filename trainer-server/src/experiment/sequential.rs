//! Statistics that may be looked at after every user: the difference of two arms, and whether arms have the users that
//! their shares promise.
//!
//! Users come one after another with outcome `y ∈ [0, 1]`; the arm is drawn with a known probability `p`, so
//!
//! ```text
//! x_t = (A_t/p − (1 − A_t)/(1 − p)) · (y_t − m_{t−1})      A_t: 1 in the arm, 0 in the control
//! ```
//!
//! has the mean `δ = E[y | arm] − E[y | control]` whatever was seen before, and lies within `±b`, `b = max(1/p, 1/(1 − p))`.
//! `m`, the mean outcome so far, only makes it vary less (Horvitz and Thompson 1952; Waudby-Smith et al. 2024,
//! "Anytime-valid off-policy inference for contextual bandits"). With `r_t = 2·b_t`, the mean `x̂` of those before, and
//!
//! ```text
//! K_t(δ) = mean over λ of exp( λ·Σ (x_i − δ)/r_i − ψ(λ)·Σ ((x_i − x̂_{i−1})/r_i)² ),   ψ(λ) = −ln(1 − λ) − λ
//! ```
//!
//! `K` begins at 1 and cannot rise on average where `δ` is the mean, so that it ever reaches `1/α` with a probability of at
//! most `α` (Fan, Grama and Liu 2015, equation 4.11; Howard et al. 2021; Waudby-Smith and Ramdas 2024, theorem 2). The
//! differences that are not refuted lie between two bounds, which hold after every user at once. Unlike the bets of
//! `betting`, which narrow soonest over some hundred observations, a mixture over `λ` goes on to narrow as
//! `√(ln t / t)`, and it needs three sums only.
//!
//! Shares: with counts `n_i` of `n` users and expected shares `p_i`,
//!
//! ```text
//! E_t = Π ((k·p_i + n_i) / (k + n)) / p_i      over the users, i the arm of each, counts of those before
//! ```
//!
//! is what a gambler has who bets on the shares seen so far; while shares are as promised it ever reaches `1/α` with a
//! probability of at most `α` (Lindon and Malek 2022, "Anytime-valid inference for multinomial count data").

/// Values of `λ`, each √2 below the one before; the least is best for some ten million users.
const NUM_LAMBDAS: i32 = 16;
const LAMBDA_MAX: f64 = 0.7;
/// Halvings of the range of differences when a bound is looked for.
const NUM_HALVINGS: u32 = 40;
/// Weight of the promised shares in the bets, in users.
const PRIOR_USERS: f64 = 100.0;
/// Chance that arms with the right shares are ever called wrong.
pub const SHARE_ALPHA: f64 = 0.01;

/// Mean difference of two arms.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// `ln(2/α)`: each bound has half of it.
    log_wanted: f64,
    num_observed: u64,
    /// `Σ y`.
    outcomes: f64,
    /// `Σ x`.
    differences: f64,
    /// `Σ x/r`, `Σ 1/r` and `Σ ((x − x̂)/r)²`.
    sum: f64,
    weight: f64,
    spread: f64,
    decision: Option<bool>,
}

impl Comparison {
    /// No users. Both bounds together ever fail with a probability of at most `alpha`.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        Self {
            log_wanted: (2.0 / alpha).ln(),
            num_observed: 0,
            outcomes: 0.0,
            differences: 0.0,
            sum: 0.0,
            weight: 0.0,
            spread: 0.0,
            decision: None,
        }
    }

    /// A user with an outcome in `[0, 1]`, who had the arm with probability `odds`, above 0 and below 1.
    pub fn observe(&mut self, is_in_arm: bool, odds: f64, outcome: f64) {
        let baseline = self.outcomes / self.num_observed.max(1) as f64; // exact below 2^53
        let weight = if is_in_arm {
            odds.recip()
        } else {
            -(1.0 - odds).recip()
        };
        let bound = odds.recip().max((1.0 - odds).recip());
        self.outcomes += outcome;
        self.observe_difference(weight * (outcome - baseline), bound);
    }

    /// A difference itself, within `±bound`, which is known beforehand.
    pub fn observe_difference(&mut self, difference: f64, bound: f64) {
        let range = 2.0 * bound;
        let foretold = self.differences / self.num_observed.max(1) as f64; // exact below 2^53
        let surprise = (difference - foretold.clamp(-bound, bound)) / range;
        self.num_observed += 1;
        self.differences += difference;
        self.sum += difference / range;
        self.weight += range.recip();
        self.spread += surprise * surprise;
        if self.decision.is_none() {
            self.decision = match self.sum > 0.0 {
                true => self.is_refuted(self.sum).then_some(true),
                false => self.is_refuted(-self.sum).then_some(false),
            };
        }
    }

    /// Users so far.
    #[must_use]
    pub fn num_observed(&self) -> u64 {
        self.num_observed
    }

    /// Estimate, in which users count by `1/r`; `None` before the first.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.num_observed > 0).then(|| self.sum / self.weight)
    }

    /// Between these the difference lies, after every user at once; within −1 and 1, as outcomes do.
    #[must_use]
    pub fn bounds(&self) -> [f64; 2] {
        [-self.upper(-self.sum), self.upper(self.sum)]
    }

    /// Whether the arm is better (`Some(true)`) or worse; once it was told it stays so.
    #[must_use]
    pub fn decision(&self) -> Option<bool> {
        self.decision
    }

    /// The least `δ` of which "at least `δ`" is refuted by `sum`.
    fn upper(&self, sum: f64) -> f64 {
        let (mut low, mut high) = (-1.0, 1.0);
        for _ in 0..NUM_HALVINGS {
            let middle = (low + high) / 2.0;
            if self.is_refuted(middle * self.weight - sum) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }

    /// Whether `K` has reached `1/α` where `Σ (x − δ)/r` is `gain`, or `−gain` for the other side.
    fn is_refuted(&self, gain: f64) -> bool {
        let exponent = |step: i32| {
            let lambda = LAMBDA_MAX * (-0.5 * f64::from(step)).exp2();
            let psi = -(-lambda).ln_1p() - lambda;
            lambda * gain - psi * self.spread
        };
        let exponents: [f64; NUM_LAMBDAS as usize] =
            std::array::from_fn(|step| exponent(step as i32)); // below NUM_LAMBDAS
        let largest = exponents.into_iter().fold(f64::NEG_INFINITY, f64::max);
        if largest < self.log_wanted {
            return false; // and so is their mean
        }
        let sum: f64 = exponents.iter().map(|one| (one - largest).exp()).sum();
        largest + (sum / f64::from(NUM_LAMBDAS)).ln() >= self.log_wanted
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
        mut look: impl FnMut(&Comparison) -> bool,
    ) -> bool {
        let mut comparison = Comparison::new(0.05);
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
            let look = |comparison: &Comparison| comparison.decision().is_some();
            simulate(*seed, 1000, [0.1, 0.1], 0.5, look)
        };
        let num_wrong = (0..1000).filter(is_decided).count();
        assert!(num_wrong <= 50, "{num_wrong} of 1000");
    }

    #[test]
    fn a_difference_is_found_and_bounds_that_ever_miss_it_are_few() {
        let (mut num_found, mut num_missed) = (0, 0);
        for seed in 0..20 {
            let mut is_missed = false;
            let found = simulate(seed, 3000, [0.1, 0.25], 0.2, |comparison| {
                let [lower, upper] = comparison.bounds();
                is_missed |= !(lower <= 0.15 && 0.15 <= upper);
                comparison.decision() == Some(true)
            });
            num_found += usize::from(found);
            num_missed += usize::from(is_missed);
        }
        assert!(num_found >= 19, "{num_found} of 20");
        assert!(num_missed <= 3, "{num_missed} of 20, one is due");
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
