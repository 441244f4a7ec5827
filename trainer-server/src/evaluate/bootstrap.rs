//! Bootstrap: how far the figures would move with other users of the same kind.
//!
//! Users are drawn with replacement, as many as there are, since events of one user are no independent
//! draws (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", percentile intervals; a cluster
//! bootstrap as in Field & Welsh 2007). All systems are summed over the same draws, so that differences are
//! paired. Events are summed per user first: a resample costs one addition per user, system and metric.
//!
//! Input: `outcomes`. The seed comes from outside.

use std::collections::{BTreeMap, HashMap};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use shared_model::metrics::{hit_rate_at_k, ndcg_at_k};

use super::figures::position_of;
use super::outcomes::Outcomes;
use crate::baselines::ranked::TOP_LEN;

/// Resamples.
pub const NUM_RESAMPLES: usize = 1000;
/// Share of the resamples below an interval, and above it.
const TAIL: f64 = 0.025;

/// Low and high end; 95 % of the resamples lie between.
pub type Interval = [f64; 2];

/// Intervals of one system over the items new to the user.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SystemIntervals {
    /// Of HR@10.
    pub hr_at_10_interval: Interval,
    /// Of NDCG@10.
    pub ndcg_at_10_interval: Interval,
    /// Of this system minus the reference on the same resamples; absent for the reference itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minus_freshet: Option<Difference>,
}

/// A system minus the reference, which is `freshet`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Difference of HR@10 over all users.
    pub hr_at_10: f64,
    /// Its interval.
    pub hr_at_10_interval: Interval,
    /// Difference of NDCG@10 over all users.
    pub ndcg_at_10: f64,
    /// Its interval.
    pub ndcg_at_10_interval: Interval,
}

/// Hits and gain per system, for one user or one resample: `[num_systems × 2]`.
type Totals = Vec<f64>;

struct UserTotals {
    num_events: f64,
    totals: Totals,
}

/// Intervals of `names`; the first of them is the reference of the differences.
///
/// # Errors
/// In words, why there can be no interval.
pub fn intervals(
    outcomes: &Outcomes,
    names: &[&str],
    seed: u64,
) -> Result<BTreeMap<String, SystemIntervals>, String> {
    let users = per_user(outcomes, names);
    if users.len() < 2 {
        return Err(format!(
            "resampling users needs two who took something new, there are {}",
            users.len()
        ));
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let all = means(&users, 0..users.len(), names.len());
    let resamples: Vec<Totals> = (0..NUM_RESAMPLES)
        .map(|_| {
            let drawn = (0..users.len()).map(|_| rng.random_range(0..users.len()));
            means(&users, drawn.collect::<Vec<_>>(), names.len())
        })
        .collect();
    let over = |figure: &dyn Fn(&Totals) -> f64| percentiles(resamples.iter().map(figure));
    let system = |system_idx: usize| {
        let (hits, gain) = (2 * system_idx, 2 * system_idx + 1);
        SystemIntervals {
            hr_at_10_interval: over(&|means| means[hits]),
            ndcg_at_10_interval: over(&|means| means[gain]),
            minus_freshet: (system_idx > 0).then(|| Difference {
                hr_at_10: all[hits] - all[0],
                hr_at_10_interval: over(&|means| means[hits] - means[0]),
                ndcg_at_10: all[gain] - all[1],
                ndcg_at_10_interval: over(&|means| means[gain] - means[1]),
            }),
        }
    };
    Ok(names
        .iter()
        .enumerate()
        .map(|(system_idx, name)| ((*name).to_owned(), system(system_idx)))
        .collect())
}

/// Sums of the users who took something new, in the order in which they first did.
fn per_user(outcomes: &Outcomes, names: &[&str]) -> Vec<UserTotals> {
    let answers: Vec<_> = names
        .iter()
        .map(|name| outcomes.answers(name).map(|answers| &answers.ranked))
        .collect();
    let mut users: Vec<UserTotals> = Vec::new();
    let mut row_of: HashMap<u32, usize> = HashMap::new();
    for (event_idx, asked) in outcomes.asked().iter().enumerate() {
        if !asked.is_new {
            continue;
        }
        let row = *row_of.entry(asked.user_idx).or_insert_with(|| {
            users.push(UserTotals {
                num_events: 0.0,
                totals: vec![0.0; 2 * names.len()],
            });
            users.len() - 1
        });
        users[row].num_events += 1.0;
        for (pair, ranked) in users[row].totals.chunks_exact_mut(2).zip(&answers) {
            let position = ranked.and_then(|ranked| position_of(&ranked[event_idx]));
            pair[0] += hit_rate_at_k(position, TOP_LEN);
            pair[1] += ndcg_at_k(position, TOP_LEN);
        }
    }
    users
}

/// Means per event over the users `drawn`, each as often as it occurs.
fn means(
    users: &[UserTotals],
    drawn: impl IntoIterator<Item = usize>,
    num_systems: usize,
) -> Totals {
    let mut num_events = 0.0;
    let mut sums = vec![0.0; 2 * num_systems];
    for user_idx in drawn {
        let user = &users[user_idx];
        num_events += user.num_events;
        for (sum, total) in sums.iter_mut().zip(&user.totals) {
            *sum += total;
        }
    }
    for sum in &mut sums {
        *sum /= num_events; // every user has an event, and somebody is drawn
    }
    sums
}

/// Ends of the middle 95 %, by the nearest rank from either side.
pub(crate) fn percentiles(values: impl Iterator<Item = f64>) -> Interval {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let num_below = (sorted.len() as f64 * TAIL) as usize; // 25 of 1,000
    [sorted[num_below], sorted[sorted.len() - 1 - num_below]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baselines::ranked::Ranked;
    use crate::baselines::timelines::Timelines;
    use crate::evaluate::figures::tests::event;

    /// Every user takes item 0 once; `is_hit` says for whom each system finds it.
    fn outcomes(num_users: u32, is_hit: impl Fn(&str, u32) -> bool) -> Outcomes {
        let mut outcomes = Outcomes::new(1, []);
        let mut timelines = Timelines::new(num_users as usize);
        let queries: Vec<_> = (0..num_users)
            .map(|user_idx| timelines.push(&event(user_idx, 0)))
            .collect();
        outcomes.ask(&queries);
        for name in ["freshet", "frozen"] {
            let ranked: Vec<Ranked> = (0..num_users)
                .map(|user_idx| Ranked {
                    rank: is_hit(name, user_idx).then_some(1),
                    ..Ranked::NOTHING
                })
                .collect();
            outcomes.answer(name, &ranked);
        }
        outcomes
    }

    #[test]
    fn the_interval_of_a_share_is_that_of_its_normal_limit() {
        let outcomes = outcomes(400, |_, user_idx| user_idx % 4 == 0);
        let found = intervals(&outcomes, &["freshet", "frozen"], 7).expect("many users");
        let [low, high] = found["freshet"].hr_at_10_interval;
        let half = 1.96 * (0.25_f64 * 0.75 / 400.0).sqrt();
        assert!((low - (0.25 - half)).abs() < 0.008, "{low} of {half}");
        assert!((high - (0.25 + half)).abs() < 0.008, "{high} of {half}");
        let same = found["frozen"].minus_freshet.expect("not the reference");
        assert_eq!(same.hr_at_10_interval, [0.0, 0.0], "paired, so no spread");
        assert_eq!(found["freshet"].minus_freshet, None);
    }

    #[test]
    fn a_difference_for_every_tenth_user_excludes_zero_and_the_seed_decides() {
        let outcomes = outcomes(400, |name, user_idx| {
            name == "freshet" && user_idx % 10 == 0
        });
        let found = intervals(&outcomes, &["freshet", "frozen"], 7).expect("many users");
        let difference = found["frozen"].minus_freshet.expect("not the reference");
        assert!((difference.hr_at_10 + 0.1).abs() < 1e-12);
        assert!(difference.hr_at_10_interval[1] < 0.0);
        let again = intervals(&outcomes, &["freshet", "frozen"], 7).expect("many users");
        assert_eq!(found, again);
        let other = intervals(&outcomes, &["freshet", "frozen"], 8).expect("many users");
        assert_ne!(found, other);
    }

    #[test]
    fn one_user_gives_a_reason_in_place_of_an_interval() {
        let outcomes = outcomes(1, |_, _| true);
        let why = intervals(&outcomes, &["freshet", "frozen"], 7).expect_err("one user");
        assert!(why.ends_with("there are 1"), "{why}");
    }
}
