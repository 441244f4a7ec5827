//! Accountant: from steps with noise to (ε, δ), by Rényi divergences of the subsampled Gaussian mechanism.
//!
//! For one step in which every client takes part by itself with probability `q`, at noise multiplier `σ`
//! (Mironov, Talwar & Zhang 2019, sections 3.2 and 3.3), for whole orders `α`:
//!
//! ```text
//! (α − 1)·ε_α = ln A_α,   A_α = Σ_{k=0..α} C(α,k)·(1−q)^{α−k}·q^k·e^{(k² − k)/(2σ²)}        ε_α = α/(2σ²) where q = 1
//! ```
//! `ln A_α` is convex in `α`, as any cumulant generating function is, with `ln A_1 = 0`; between whole orders the line
//! between them is therefore an upper bound (Wang, Balle & Kasiviswanathan 2019, section 3.3).
//! Steps add up at every order, also where each is chosen by what the ones before gave (Mironov 2017, proposition 1).
//! Then, for the best of all orders (Balle et al. 2020, theorem 21; Canonne, Kamath & Steinke 2020):
//!
//! ```text
//! ε = ε_α + ln((α − 1)/α) − (ln δ + ln α)/(α − 1)
//! ```
//! Neighbouring logs differ in one client's events being there or not. Nothing here is read from events.

use serde::{Deserialize, Serialize};

/// Largest order with fractions, in tenths: optimal orders below it are told apart.
const TENTHS_MAX: u32 = 110;
/// Largest whole order of which every one is tried.
const WHOLE_MAX: u32 = 256;
/// Orders beyond, for noise that tells next to nothing.
const LARGE: [u32; 3] = [512, 1024, 2048];

/// How one step hides a client.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mechanism {
    /// Standard deviation of the noise, in clip norms: `σ`, above 0.
    pub noise_multiplier: f64,
    /// Probability with which a client takes part in a step: `q`, above 0 and at most 1.
    pub sampling_rate: f64,
}

/// The smallest ε at `delta` that so many steps of each mechanism together are proven to keep; 0 for none.
#[must_use]
pub fn epsilon(steps: impl Iterator<Item = (Mechanism, u64)>, delta: f64) -> f64 {
    let orders = orders();
    let mut divergences = vec![0.0; orders.len()];
    let mut num_steps = 0;
    for (mechanism, count) in steps {
        num_steps += count;
        for (sum, order) in divergences.iter_mut().zip(&orders) {
            *sum += count as f64 * mechanism.divergence(*order); // exact below 2^53
        }
    }
    if num_steps == 0 {
        return 0.0;
    }
    let at_delta = orders.iter().zip(&divergences).map(|(order, divergence)| {
        let order = order.value();
        divergence + ((order - 1.0) / order).ln() - (delta.ln() + order.ln()) / (order - 1.0)
    });
    at_delta.fold(f64::INFINITY, f64::min).max(0.0)
}

/// An order: a whole one and how far it is to the next, in tenths.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Order {
    whole: u32,
    tenths: u32,
}

impl Order {
    fn value(self) -> f64 {
        f64::from(self.whole) + f64::from(self.tenths) / 10.0
    }
}

fn orders() -> Vec<Order> {
    let fractions = (20..TENTHS_MAX).map(|tenths| Order {
        whole: tenths / 10,
        tenths: tenths % 10,
    });
    let whole = (TENTHS_MAX / 10..=WHOLE_MAX).chain(LARGE);
    fractions
        .chain(whole.map(|whole| Order { whole, tenths: 0 }))
        .collect()
}

impl Mechanism {
    /// `ε_α` of one step.
    fn divergence(self, order: Order) -> f64 {
        let alpha = order.value();
        let variance = self.noise_multiplier * self.noise_multiplier;
        if self.sampling_rate == 1.0 {
            return alpha / (2.0 * variance);
        }
        let at_whole = self.log_moment(order.whole);
        if order.tenths == 0 {
            return at_whole / (alpha - 1.0);
        }
        let share = f64::from(order.tenths) / 10.0;
        let between = (1.0 - share) * at_whole + share * self.log_moment(order.whole + 1);
        between / (alpha - 1.0)
    }

    /// `ln A_α` of a whole order.
    fn log_moment(self, alpha: u32) -> f64 {
        let (q, variance) = (
            self.sampling_rate,
            self.noise_multiplier * self.noise_multiplier,
        );
        let mut log_choose = 0.0; // ln C(α, k)
        let mut terms = Vec::with_capacity(alpha as usize + 1);
        for k in 0..=alpha {
            if k > 0 {
                log_choose += (f64::from(alpha - k + 1) / f64::from(k)).ln();
            }
            let k_value = f64::from(k);
            terms.push(
                log_choose
                    + f64::from(alpha - k) * (-q).ln_1p()
                    + k_value * q.ln()
                    + (k_value * k_value - k_value) / (2.0 * variance),
            );
        }
        let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = terms.iter().map(|term| (term - largest).exp()).sum();
        (largest + sum.ln()).max(0.0) // A_α ≥ 1; rounding may fall below it
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mechanism(sampling_rate: f64, noise_multiplier: f64) -> Mechanism {
        Mechanism {
            noise_multiplier,
            sampling_rate,
        }
    }

    /// Google's `dp-accounting` gives these for Poisson-sampled Gaussian events (its `RdpAccountant` with default
    /// orders); the first is the MNIST example of TensorFlow Privacy. Ours may be above them by the lines between whole
    /// orders, never below.
    #[test]
    fn epsilon_is_that_of_an_established_accountant() {
        let expected = [
            (256.0 / 60_000.0, 1.1, 14_040, 1e-5, 2.594_363),
            (0.01, 1.0, 1000, 1e-5, 2.101_367),
            (0.01, 4.0, 10_000, 1e-5, 1.035_490),
            (1.0, 2.0, 1, 1e-5, 2.165_716),
            (1.0, 10.0, 100, 1e-6, 5.221_540),
            (0.2, 4.0, 100, 1e-6, 2.578_657),
            (0.2, 4.0, 3000, 1e-6, 17.669_074),
            (0.25, 4.0, 100, 1e-5, 2.935_380),
            (0.1, 2.0, 200, 1e-5, 3.679_746),
            (0.001, 0.8, 20_000, 1e-6, 1.897_196),
        ];
        for (q, sigma, num_steps, delta, expected) in expected {
            let actual = epsilon([(mechanism(q, sigma), num_steps)].into_iter(), delta);
            let ratio = actual / expected;
            assert!(
                (1.0 - 1e-6..1.005).contains(&ratio),
                "q {q}, σ {sigma}, {num_steps} steps: {actual}, expected {expected}"
            );
        }
    }

    #[test]
    fn divergences_of_single_steps_are_those_of_an_established_accountant() {
        let whole = |whole| Order { whole, tenths: 0 };
        let expected = [
            (0.01, 1.0, 2, 1.718_134e-4),
            (0.01, 1.0, 8, 8.936_439e-4),
            (0.01, 1.0, 64, 27.321_732),
            (0.2, 4.0, 3, 3.905_36e-3),
            (0.2, 4.0, 32, 6.329_991e-2),
        ];
        for (q, sigma, order, expected) in expected {
            let actual = mechanism(q, sigma).divergence(whole(order));
            assert!(
                (actual / expected - 1.0).abs() < 2e-5,
                "q {q}, σ {sigma}, order {order}: {actual}, expected {expected}"
            );
        }
        // dp-accounting has 3.40843e-3 at 2.5: the line lies above it, and not far.
        let between = mechanism(0.2, 4.0).divergence(Order {
            whole: 2,
            tenths: 5,
        });
        assert!((3.408_43e-3..3.6e-3).contains(&between), "{between}");
    }

    #[test]
    fn more_steps_more_clients_and_less_noise_cost_more() {
        let of =
            |q, sigma, num_steps| epsilon([(mechanism(q, sigma), num_steps)].into_iter(), 1e-6);
        assert_eq!(of(0.1, 2.0, 0), 0.0);
        assert!(of(0.1, 2.0, 200) > of(0.1, 2.0, 100));
        assert!(of(0.2, 2.0, 100) > of(0.1, 2.0, 100));
        assert!(of(0.1, 1.0, 100) > of(0.1, 2.0, 100));
        assert!(of(0.9, 2.0, 10) < of(1.0, 2.0, 10));
        let both = [(mechanism(0.1, 2.0), 60), (mechanism(0.1, 2.0), 40)];
        let apart = epsilon(both.into_iter(), 1e-6);
        assert!((apart - of(0.1, 2.0, 100)).abs() < 1e-12, "steps add up");
    }

    #[test]
    fn extreme_settings_give_a_number_and_no_nan() {
        for (q, sigma) in [(1e-9, 0.1), (1.0, 0.1), (0.5, 0.1), (1e-9, 1e4), (1.0, 1e4)] {
            let epsilon = epsilon([(mechanism(q, sigma), 1_000_000)].into_iter(), 1e-9);
            assert!(
                epsilon.is_finite() && epsilon >= 0.0,
                "{q} {sigma}: {epsilon}"
            );
        }
    }
}
