//! Bets on a mean: how sure one may be of it after any number of observations, looked at after every one.
//!
//! Observations lie in `[0, 1]`. Against the claim that their mean is at most `m`, a gambler who starts with 1 bets
//! the share `λ_t` of what he has, chosen before he sees `x_t`:
//!
//! ```text
//! K_t(m) = Π_i (1 + min(λ_i, c/m) · (x_i − m))
//! λ_t    = sqrt(2 ln(1/α) / (σ²_{t−1} · t · ln(1 + t)))
//! μ_t    = (1/2 + Σ x_i) / (t + 1),   σ²_t = (1/4 + Σ (x_i − μ_i)²) / (t + 1)
//! ```
//!
//! While the claim is true he cannot win on average, whatever he bets, so that `K` ever reaches `1/α` with a
//! probability of at most `α` (Ville 1939): one may look after every observation and stop when one likes. What he
//! bets decides only how soon a false claim is found out. The bets are those of Waudby-Smith and Ramdas 2024,
//! "Estimating means of bounded random variables by betting", equation 26 and section 4.1, one side at a time.
//! `K(m)` falls as `m` grows, so the claims that are refuted reach from 0 to a bound.
//!
//! A claim about the mean is one about every step: that the expectation of the next observation, given those before,
//! is never above `m`. Observations may depend on each other and drift below it.
//!
//! Plain mathematics: no IO, no clock, no chance. Not here: what is observed, and what is done about it.

/// Largest share `c` of the wealth that a single observation may cost.
const LOSS_MAX: f64 = 0.75;

/// Means that bounds of a difference can name: fine enough for a report; the thresholds that decide are kept beside.
const STEPS_OF_DIFFERENCE: u16 = 256;

/// Both bounds of a mean, each wrong at any time with a probability of at most `α`.
#[derive(Debug, Clone)]
pub struct Betting {
    alpha: f64,
    /// By the mean, from 0 to 1.
    claims: Vec<Claim>,
    num_observed: u64,
    sum: f64,
    /// `Σ (x_i − μ_i)²`.
    squares: f64,
    lower: f64,
    upper: f64,
}

/// What was won against a mean, from both sides.
#[derive(Debug, Clone)]
struct Claim {
    mean: f64,
    /// Against "at most this mean".
    against_at_most: f64,
    /// Against "at least this mean".
    against_at_least: f64,
}

impl Betting {
    /// No observations. `alpha` is the probability with which a bound may be wrong; `num_steps` equal steps from 0 to
    /// 1 are the means that bounds can name, and so are the `means` that matter to the caller.
    ///
    /// # Panics
    /// `alpha` is not between 0 and 1, `num_steps` is 0, or one of `means` is not within 0 and 1.
    #[must_use]
    pub fn new(alpha: f64, num_steps: u16, means: &[f64]) -> Self {
        assert!(
            alpha > 0.0 && alpha < 1.0,
            "alpha {alpha} is no probability"
        );
        assert!(num_steps > 0, "bounds need means to name");
        let steps = (0..=num_steps).map(|step| f64::from(step) / f64::from(num_steps));
        let mut means: Vec<f64> = steps.chain(means.iter().copied()).collect();
        assert!(
            means.iter().all(|mean| (0.0..=1.0).contains(mean)),
            "a mean of observations in [0, 1] lies there too"
        );
        means.sort_by(f64::total_cmp);
        means.dedup();
        let claim = |mean| Claim {
            mean,
            against_at_most: 1.0,
            against_at_least: 1.0,
        };
        Self {
            alpha,
            claims: means.into_iter().map(claim).collect(),
            num_observed: 0,
            sum: 0.0,
            squares: 0.0,
            lower: 0.0,
            upper: 1.0,
        }
    }

    /// Takes one observation in.
    ///
    /// # Panics
    /// It does not lie in `[0, 1]`.
    pub fn observe(&mut self, x: f64) {
        assert!((0.0..=1.0).contains(&x), "observation {x} is not in [0, 1]");
        let bet = self.next_bet();
        for claim in &mut self.claims {
            let up = bet.min(LOSS_MAX / claim.mean); // no limit at 0, where nothing can be lost
            let down = bet.min(LOSS_MAX / (1.0 - claim.mean));
            let gain = x - claim.mean;
            claim.against_at_most = capped(claim.against_at_most * (1.0 + up * gain));
            claim.against_at_least = capped(claim.against_at_least * (1.0 - down * gain));
        }
        self.num_observed += 1;
        self.sum += x;
        self.squares += (x - self.shrunk_mean()).powi(2);
        self.narrow();
    }

    /// The mean is at least this: 0 before anything is known. Never falls.
    #[must_use]
    pub fn lower(&self) -> f64 {
        self.lower
    }

    /// The mean is at most this: 1 before anything is known. Never rises.
    #[must_use]
    pub fn upper(&self) -> f64 {
        self.upper
    }

    /// What was won against the claim that the mean is at most `m`: at `1/α` it is refuted. Between two means that are
    /// kept, the smaller win of both.
    #[must_use]
    pub fn wealth_against_at_most(&self, m: f64) -> f64 {
        let first = self.claims.partition_point(|claim| claim.mean < m);
        self.claims
            .get(first)
            .map_or(1.0, |claim| claim.against_at_most)
    }

    /// What was won against the claim that the mean is at least `m`; as [`wealth_against_at_most`].
    ///
    /// [`wealth_against_at_most`]: Self::wealth_against_at_most
    #[must_use]
    pub fn wealth_against_at_least(&self, m: f64) -> f64 {
        let behind = self.claims.partition_point(|claim| claim.mean <= m);
        let last = behind.checked_sub(1).and_then(|idx| self.claims.get(idx));
        last.map_or(1.0, |claim| claim.against_at_least)
    }

    /// Mean of what was observed; `None` before the first.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.num_observed > 0).then(|| self.sum / self.num_observed as f64) // exact below 2^53
    }

    /// Observations so far.
    #[must_use]
    pub fn num_observed(&self) -> u64 {
        self.num_observed
    }

    /// `λ` of the next observation, from those before it.
    fn next_bet(&self) -> f64 {
        let before = self.num_observed as f64; // exact below 2^53
        let variance = (0.25 + self.squares) / (before + 1.0);
        let t = before + 1.0;
        (2.0 * (1.0 / self.alpha).ln() / (variance * t * t.ln_1p())).sqrt()
    }

    /// `μ_t`.
    fn shrunk_mean(&self) -> f64 {
        (0.5 + self.sum) / (self.num_observed as f64 + 1.0) // exact below 2^53
    }

    /// Moves the bounds over the claims that are refuted now; one that was refuted once stays so.
    fn narrow(&mut self) {
        let wanted = 1.0 / self.alpha;
        let mut at_most = self.claims.iter().rev();
        if let Some(claim) = at_most.find(|claim| claim.against_at_most >= wanted) {
            self.lower = self.lower.max(claim.mean);
        }
        let mut at_least = self.claims.iter();
        if let Some(claim) = at_least.find(|claim| claim.against_at_least >= wanted) {
            self.upper = self.upper.min(claim.mean);
        }
    }
}

/// Wealth that stays a number: what is never lost again needs no more than this.
fn capped(wealth: f64) -> f64 {
    wealth.min(1e300)
}

/// Bets on the mean of differences, such as of two log losses for the same event, clipped to a bound.
///
/// Clipping keeps one event from deciding; the mean that is spoken of is that of the clipped differences.
#[derive(Debug, Clone)]
pub struct MeanDifference {
    bound: f64,
    betting: Betting,
}

impl MeanDifference {
    /// No differences. They are clipped to `bound` on both sides; `thresholds`, in the same unit, are means that the
    /// caller asks about; `alpha` as in [`Betting::new`].
    ///
    /// # Panics
    /// As [`Betting::new`]; `bound` is not above 0.
    #[must_use]
    pub fn new(alpha: f64, bound: f64, thresholds: &[f64]) -> Self {
        assert!(
            bound > 0.0 && bound.is_finite(),
            "bound {bound} is not above 0"
        );
        let means: Vec<f64> = thresholds.iter().map(|at| within(*at, bound)).collect();
        let betting = Betting::new(alpha, STEPS_OF_DIFFERENCE, &means);
        Self { bound, betting }
    }

    /// Takes one difference in. One that is no number counts as the largest.
    pub fn observe(&mut self, difference: f64) {
        self.betting.observe(within(difference, self.bound));
    }

    /// The mean is at least this.
    #[must_use]
    pub fn lower(&self) -> f64 {
        self.difference(self.betting.lower())
    }

    /// The mean is at most this.
    #[must_use]
    pub fn upper(&self) -> f64 {
        self.difference(self.betting.upper())
    }

    /// Whether "the mean is at most this" is refuted.
    #[must_use]
    pub fn is_above(&self, threshold: f64) -> bool {
        within(threshold, self.bound) <= self.betting.lower()
    }

    /// Whether "the mean is at least this" is refuted.
    #[must_use]
    pub fn is_below(&self, threshold: f64) -> bool {
        within(threshold, self.bound) >= self.betting.upper()
    }

    /// Mean of the clipped differences; `None` before the first.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        self.betting.mean().map(|mean| self.difference(mean))
    }

    /// Differences so far.
    #[must_use]
    pub fn num_observed(&self) -> u64 {
        self.betting.num_observed()
    }

    fn difference(&self, x: f64) -> f64 {
        (2.0 * x - 1.0) * self.bound
    }
}

/// A difference as an observation in `[0, 1]`.
fn within(difference: f64, bound: f64) -> f64 {
    if difference.is_nan() {
        return 1.0;
    }
    let x = (difference / bound + 1.0) / 2.0;
    x.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests;
