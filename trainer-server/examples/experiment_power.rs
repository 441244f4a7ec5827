//! How often experiments without a difference are decided all the same, and how many users a difference takes.
//!
//! `cargo run --example experiment_power`
//!
//! Users come one by one and are looked at after every one. Beside the bounds that hold at any time: a z-test at the same
//! level, which is made for one look, looked at as often, and the users that it needs with one look and a power of 80 %.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trainer_server::experiment::sequential::Comparison;

const ALPHA: f64 = 0.05;
const BASE_RATE: f64 = 0.1;
/// Of the normal distribution, at 97.5 % and at 80 %.
const Z: f64 = 1.959_964;
const Z_POWER: f64 = 0.841_621;

/// Users after which an experiment is decided by the bounds, and after which by a z-test; and whether rightly.
#[derive(Debug, Clone, Copy, Default)]
struct Decided {
    by_bounds: Option<(usize, bool)>,
    by_z_test: Option<usize>,
}

fn run(seed: u64, num_users: usize, rates: [f64; 2], odds: f64) -> Decided {
    let mut random = StdRng::seed_from_u64(seed);
    let mut comparison = Comparison::new(ALPHA);
    let (mut num, mut sum) = ([0.0; 2], [0.0; 2]);
    let mut decided = Decided::default();
    for user in 1..=num_users {
        let is_in_arm = random.random_bool(odds);
        let arm = usize::from(is_in_arm);
        let outcome = f64::from(u8::from(random.random_bool(rates[arm])));
        num[arm] += 1.0;
        sum[arm] += outcome;
        if decided.by_bounds.is_none() {
            comparison.observe(is_in_arm, odds, outcome);
            decided.by_bounds = comparison.decision().map(|is_better| (user, is_better));
        }
        if decided.by_z_test.is_none() && user >= 100 && z(num, sum).abs() > Z {
            decided.by_z_test = Some(user);
        }
    }
    decided
}

fn z(num: [f64; 2], sum: [f64; 2]) -> f64 {
    let pooled = (sum[0] + sum[1]) / (num[0] + num[1]);
    let variance = pooled * (1.0 - pooled) * (num[0].recip() + num[1].recip());
    (sum[1] / num[1] - sum[0] / num[0]) / variance.sqrt().max(f64::MIN_POSITIVE)
}

fn main() {
    println!(
        "no difference, rate {BASE_RATE}, 1000 experiments of 20,000 users, looked at after every user"
    );
    for odds in [0.5, 0.1] {
        let runs: Vec<Decided> = (0..1000)
            .map(|seed| run(seed, 20_000, [BASE_RATE; 2], odds))
            .collect();
        let by_bounds = runs.iter().filter(|run| run.by_bounds.is_some()).count();
        let by_z_test = runs.iter().filter(|run| run.by_z_test.is_some()).count();
        println!(
            "  arm {odds}: decided wrongly by the bounds {by_bounds}, by a z-test {by_z_test}"
        );
    }
    println!("a difference, both arms 0.5, 200 experiments of up to 200,000 users");
    for rate in [0.15, 0.13, 0.12, 0.11] {
        let runs = (0..200).map(|seed| run(seed, 200_000, [BASE_RATE, rate], 0.5).by_bounds);
        let (mut users, mut num_wrong) = (Vec::new(), 0);
        for (num_users, is_better) in runs.flatten() {
            users.push(num_users);
            num_wrong += usize::from(!is_better);
        }
        users.sort_unstable();
        let at = |share: usize| {
            users
                .get(users.len() * share / 100)
                .copied()
                .unwrap_or_default()
        };
        let variance = BASE_RATE * (1.0 - BASE_RATE) + rate * (1.0 - rate);
        let fixed = 2.0 * (Z + Z_POWER).powi(2) * variance / (rate - BASE_RATE).powi(2);
        println!(
            "  {BASE_RATE} against {rate}: decided {} of 200, {num_wrong} wrongly; users: median {}, 80 % {}; one look {fixed:.0}",
            users.len(),
            at(50),
            at(80)
        );
    }
}
