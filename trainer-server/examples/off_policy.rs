//! Off-policy estimates against the truth, on real choices: each event of the second half of a dataset is a decision.
//!
//! `cargo run --example off_policy -- DATASET_DIR`
//!
//! ```text
//! pool     the 20 items taken most in the first half
//! context  the item that the user took before
//! reward   1 where the item shown is the one that the user then took
//! logged   drawn in proportion to the square root of the counts of the first half
//! target   the follower of the item before that was most frequent in the first half, in 9 of 10 draws, else by chance
//! ```
//!
//! All choices are known, so the value of the target is, too. The log is drawn 500 times.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trainer_server::dataset::Dataset;
use trainer_server::experiment::estimate::{Decision, Estimate, Value, estimate};

const POOL_LEN: usize = 20;
const EPSILON: f64 = 0.1;
const NUM_LOGS: u64 = 500;
const CLIP: f64 = 20.0;

struct Choice {
    user_idx: u32,
    /// Place of what was taken, in the pool.
    taken: usize,
    /// Place of what the target shows most.
    followed: usize,
}

fn main() -> anyhow::Result<()> {
    let dir = std::env::args().nth(1).context("expected DATASET_DIR")?;
    let dataset = Dataset::load(&PathBuf::from(dir), 1)?;
    let (counts, choices) = choices(&dataset);
    let roots: Vec<f64> = counts.iter().map(|count| count.sqrt()).collect();
    let sum: f64 = roots.iter().sum();
    let logged: Vec<f64> = roots.iter().map(|root| root / sum).collect();
    let target = |choice: &Choice, item: usize| {
        let rest = EPSILON / POOL_LEN as f64;
        if item == choice.followed {
            1.0 - EPSILON + rest
        } else {
            rest
        }
    };
    let num = choices.len() as f64;
    let truth = choices
        .iter()
        .map(|choice| target(choice, choice.taken))
        .sum::<f64>()
        / num;
    let by_log = choices
        .iter()
        .map(|choice| logged[choice.taken])
        .sum::<f64>()
        / num;
    println!(
        "{} decisions; value of the logging policy {by_log:.4}, of the target {truth:.4}",
        choices.len()
    );
    let found: Vec<Estimate> = (0..NUM_LOGS)
        .map(|seed| estimate(&drawn(seed, &choices, &logged, &target), CLIP))
        .collect();
    type Pick = fn(&Estimate) -> Value;
    let picks: [(&str, Pick); 3] = [("ips", |e| e.ips), ("snips", |e| e.snips), ("dr", |e| e.dr)];
    for (name, pick) in picks {
        let values: Vec<Value> = found.iter().map(pick).collect();
        let mean = values.iter().map(|value| value.value).sum::<f64>() / NUM_LOGS as f64;
        let squares = values
            .iter()
            .map(|value| (value.value - truth).powi(2))
            .sum::<f64>();
        let covered = values
            .iter()
            .filter(|v| v.lower <= truth && truth <= v.upper)
            .count();
        println!(
            "{name:<6} mean {mean:.4}, root mean square error {:.4}, truth within the interval in {covered} of {NUM_LOGS}",
            (squares / NUM_LOGS as f64).sqrt()
        );
    }
    let effective = found.iter().map(|e| e.effective_decisions).sum::<f64>() / NUM_LOGS as f64;
    println!("effective decisions {effective:.0}");
    Ok(())
}

/// Counts of the pool in the first half, and the choices of the second.
fn choices(dataset: &Dataset) -> (Vec<f64>, Vec<Choice>) {
    let (first, second) = dataset.events.split_at(dataset.events.len() / 2);
    let mut counts = vec![0_u32; dataset.items.len()];
    for event in first {
        counts[event.item_idx as usize] += 1;
    }
    let mut by_count: Vec<u32> = (0..dataset.items.len() as u32).collect();
    by_count.sort_by_key(|idx| std::cmp::Reverse(counts[*idx as usize]));
    by_count.truncate(POOL_LEN);
    let place: HashMap<u32, usize> = by_count.iter().copied().zip(0..).collect();
    let mut before: HashMap<u32, u32> = HashMap::new();
    let mut followers: HashMap<u32, [u32; POOL_LEN]> = HashMap::new();
    for event in first {
        if let (Some(last), Some(taken)) = (
            before.insert(event.user_idx, event.item_idx),
            place.get(&event.item_idx),
        ) {
            followers.entry(last).or_default()[*taken] += 1;
        }
    }
    let mut choices = Vec::new();
    for event in second {
        let last = before.insert(event.user_idx, event.item_idx);
        let Some(taken) = place.get(&event.item_idx) else {
            continue;
        };
        let seen = last.and_then(|last| followers.get(&last));
        let most = seen.and_then(|seen| (0..POOL_LEN).rev().max_by_key(|item| seen[*item]));
        choices.push(Choice {
            user_idx: event.user_idx,
            taken: *taken,
            followed: most.unwrap_or(0),
        });
    }
    let counts = by_count.iter().map(|idx| f64::from(counts[*idx as usize]));
    (counts.collect(), choices)
}

/// A log of the logging policy, with means of items before as the reward model.
fn drawn(
    seed: u64,
    choices: &[Choice],
    logged: &[f64],
    target: &dyn Fn(&Choice, usize) -> f64,
) -> Vec<Decision<u32>> {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut num, mut earned) = ([1.0; POOL_LEN], [0.0; POOL_LEN]);
    let decision = |choice: &Choice| {
        let mut left: f64 = random.random();
        let shown = logged.iter().position(|share| {
            left -= share;
            left < 0.0
        });
        let shown = shown.unwrap_or(POOL_LEN - 1);
        let mean = |item: usize| earned[item] / num[item];
        let reward = f64::from(u8::from(shown == choice.taken));
        let decision = Decision {
            user: choice.user_idx,
            logged: logged[shown],
            target: target(choice, shown),
            reward,
            modelled: mean(shown),
            modelled_target: (0..POOL_LEN)
                .map(|item| target(choice, item) * mean(item))
                .sum(),
        };
        num[shown] += 1.0;
        earned[shown] += reward;
        decision
    };
    choices.iter().map(decision).collect()
}
