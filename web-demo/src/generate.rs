//! Makes up a shop and its past.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::dataset::{self, Purchase};
use crate::shop::{Shop, make_items};
use crate::taste::{Taste, Values};
use crate::trends::Trends;

/// How large the shop and its past are.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folder to write to.
    #[arg(long)]
    out: PathBuf,
    #[arg(long, default_value_t = 1200)]
    items: usize,
    #[arg(long, default_value_t = 800)]
    users: usize,
    #[arg(long, default_value_t = 20_000)]
    events: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Length of the past.
    #[arg(long, default_value_t = 45)]
    days: u32,
    /// End of the past in unix seconds; now if it is left out.
    #[arg(long)]
    until_secs: Option<i64>,
}

const DAY_SECS: i64 = 86_400;
const TREND_DAYS: i64 = 6;
const DRIFT_CHANCE: f64 = 0.25;
const SESSION_EVENTS_MAX: usize = 9;

/// # Errors
/// The shop is too large for its words, or the folder cannot be written.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    anyhow::ensure!(
        options.users > 0 && options.items > 0,
        "a shop needs items and users"
    );
    let until_secs = match options.until_secs {
        Some(secs) => secs,
        None => i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?,
    };
    let shop = Shop::new(make_items(options.items, options.seed)?, options.seed);
    let purchases = make_purchases(&shop, options, until_secs);
    dataset::write(&options.out, &shop.items, &purchases)?;
    println!(
        "{} items and {} events in {}",
        shop.items.len(),
        purchases.len(),
        options.out.display()
    );
    Ok(())
}

/// The past in time order: sessions of people whose taste drifts between them.
fn make_purchases(shop: &Shop, options: &Options, until_secs: i64) -> Vec<Purchase> {
    let mut rng = StdRng::seed_from_u64(options.seed ^ 0x5eed_0002);
    let starts_at_secs = until_secs - i64::from(options.days) * DAY_SECS;
    let values = Values::of(shop);
    let trends = Trends::new(
        &values,
        starts_at_secs,
        until_secs,
        TREND_DAYS * DAY_SECS,
        &mut rng,
    );
    let mut tastes: Vec<Taste> = (0..options.users)
        .map(|_| Taste::new(&values, &mut rng))
        .collect();

    let mean_session = 1 + SESSION_EVENTS_MAX / 2;
    let mut session_starts: Vec<i64> = (0..=options.events / mean_session * 2)
        .map(|_| rng.random_range(starts_at_secs..until_secs.max(starts_at_secs + 1)))
        .collect();
    session_starts.sort_unstable();

    let mut purchases = Vec::with_capacity(options.events);
    let step = session_starts.len().max(1);
    for (session_idx, session_start) in session_starts.iter().enumerate() {
        // Spread over the whole past, although sessions differ in length.
        let due = options.events * (session_idx + 1) / step;
        if purchases.len() >= due {
            continue;
        }
        let user_idx = active_user(options.users, &mut rng);
        if rng.random_bool(DRIFT_CHANCE) {
            tastes[user_idx].drift(&values, &mut rng);
        }
        let mut at_secs = *session_start;
        let mut last = None;
        for _ in 0..rng.random_range(1..=SESSION_EVENTS_MAX) {
            let item_idx = shop.choose(&tastes[user_idx], &trends, last, at_secs, &mut rng);
            let user_id = format!("user-{:04}", user_idx + 1);
            purchases.push(Purchase {
                user_id,
                item_idx,
                quantity: rng.random_range(1..=3),
                at_secs,
            });
            last = Some(item_idx);
            at_secs += rng.random_range(15..120);
        }
    }
    purchases.truncate(options.events);
    purchases.sort_by_key(|purchase| purchase.at_secs);
    purchases
}

/// Few people come often, many come rarely.
fn active_user(num_users: usize, rng: &mut StdRng) -> usize {
    let lot: f64 = rng.random_range(0.0_f64..1.0).powi(2);
    // Below `num_users` because `lot` is below 1.
    ((lot * num_users as f64) as usize).min(num_users - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_has_the_events_asked_for_in_time_order_and_is_reproducible() -> anyhow::Result<()> {
        let options = Options {
            out: PathBuf::new(),
            items: 200,
            users: 50,
            events: 1000,
            seed: 3,
            days: 10,
            until_secs: None,
        };
        let shop = Shop::new(make_items(options.items, options.seed)?, options.seed);
        let purchases = make_purchases(&shop, &options, 1_700_000_000);
        assert!(
            (900..=1000).contains(&purchases.len()),
            "{}",
            purchases.len()
        );
        assert!(purchases.is_sorted_by_key(|purchase| purchase.at_secs));
        assert_eq!(purchases, make_purchases(&shop, &options, 1_700_000_000));
        Ok(())
    }
}
