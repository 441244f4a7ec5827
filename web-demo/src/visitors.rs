//! Simulated visitors: they look at things, put some into the basket and buy a few, while their taste drifts.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::dataset::read_items;
use crate::shop::Shop;
use crate::taste::{Taste, Values};
use crate::trends::Trends;

/// Whom to visit and how busily.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Address of the server.
    #[arg(long, default_value = "http://127.0.0.1:7878")]
    server: String,
    /// Dataset folder with the catalogue.
    #[arg(long)]
    dataset: PathBuf,
    /// Events per second of all visitors together.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// People who are in the shop at the same time.
    #[arg(long, default_value_t = 60)]
    people: usize,
}

const TICK: Duration = Duration::from_millis(100);
const REPORT_EVERY: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const RATE_MAX: f64 = 100_000.0;
/// Events of one request; the server's own limit is not lower.
const BATCH_EVENTS_MAX: usize = 1000;
/// In the live shop fashions last minutes, so that a watcher sees them come and go.
const TREND_SECS: i64 = 240;
const TRENDS_AHEAD_SECS: i64 = 24 * 3600;
const DRIFT_CHANCE: f64 = 0.02;
/// Chance that someone leaves after an event and another person comes.
const LEAVE_CHANCE: f64 = 0.08;

/// What someone does with an item, and how likely.
const KINDS: [(&str, f64); 5] = [
    ("view", 0.40),
    ("click", 0.30),
    ("like", 0.08),
    ("add_to_cart", 0.14),
    ("purchase", 0.08),
];

struct Person {
    user_id: String,
    taste: Taste,
    last: Option<usize>,
}

struct World {
    shop: Shop,
    values: Values,
    trends: Trends,
    people: Vec<Person>,
    rng: StdRng,
    run_id: u64,
    num_events: u64,
    num_people: u64,
}

#[derive(Debug, Default, Deserialize)]
struct Answer {
    accepted: u64,
    duplicates: u64,
    #[serde(default)]
    rejected: Vec<Value>,
}

#[derive(Debug, Default)]
struct Totals {
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    failed: u64,
    request_millis: Vec<f64>,
}

/// Visits until the process is ended. A server that does not answer is asked again.
///
/// # Errors
/// The catalogue cannot be read.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    anyhow::ensure!(
        options.rate > 0.0 && options.rate <= RATE_MAX,
        "the rate has to be above 0 and at most {RATE_MAX}"
    );
    anyhow::ensure!(options.people > 0, "a shop needs people");
    let shop = Shop::new(read_items(&options.dataset)?, options.seed);
    let mut world = World::new(shop, options, now_millis()?);
    let http = reqwest::Client::builder()
        .timeout(REQUEST_TIMEOUT)
        .build()?;
    let url = format!("{}/v1/events", options.server.trim_end_matches('/'));

    let mut totals = Totals::default();
    let mut owed = 0.0;
    let mut reported_at = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = tokio::signal::ctrl_c() => return Ok(ended?),
            _ = ticks.tick() => {}
        }
        owed = (owed + options.rate * TICK.as_secs_f64()).min(BATCH_EVENTS_MAX as f64);
        let due = owed as usize; // at least 0 and at most the batch limit
        owed -= due as f64;
        if due > 0 {
            let at_millis = now_millis()?;
            let events: Vec<Value> = (0..due).map(|_| world.next_event(at_millis)).collect();
            totals.add(post(&http, &url, at_millis, events).await, due);
        }
        if reported_at.elapsed() >= REPORT_EVERY {
            println!("{}", totals.report(&world, now_millis()? / 1000));
            totals = Totals::default();
            reported_at = Instant::now();
        }
    }
}

fn now_millis() -> anyhow::Result<i64> {
    Ok(i64::try_from(
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis(),
    )?)
}

async fn post(
    http: &reqwest::Client,
    url: &str,
    sent_at: i64,
    events: Vec<Value>,
) -> Option<(Answer, Duration)> {
    let started_at = Instant::now();
    let request = http
        .post(url)
        .json(&json!({ "sent_at": sent_at, "events": events }));
    let response = request
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .ok()?; // counted as failed
    let answer = response.json().await.ok()?; // counted as failed
    Some((answer, started_at.elapsed()))
}

impl World {
    fn new(shop: Shop, options: &Options, at_millis: i64) -> Self {
        let mut rng = StdRng::seed_from_u64(options.seed ^ 0x5eed_0003);
        let values = Values::of(&shop);
        let at_secs = at_millis / 1000;
        let trends = Trends::new(
            &values,
            at_secs,
            at_secs + TRENDS_AHEAD_SECS,
            TREND_SECS,
            &mut rng,
        );
        let run_id = at_millis.unsigned_abs();
        let mut world = Self {
            shop,
            values,
            trends,
            people: Vec::new(),
            rng,
            run_id,
            num_events: 0,
            num_people: 0,
        };
        for _ in 0..options.people {
            let person = world.next_person();
            world.people.push(person);
        }
        world
    }

    fn next_person(&mut self) -> Person {
        self.num_people += 1;
        let user_id = format!("visitor-{}-{}", self.run_id, self.num_people);
        Person {
            user_id,
            taste: Taste::new(&self.values, &mut self.rng),
            last: None,
        }
    }

    fn next_event(&mut self, at_millis: i64) -> Value {
        let person_idx = self.rng.random_range(0..self.people.len());
        if self.rng.random_bool(LEAVE_CHANCE) {
            self.people[person_idx] = self.next_person();
        }
        let person = &mut self.people[person_idx];
        if self.rng.random_bool(DRIFT_CHANCE) {
            person.taste.drift(&self.values, &mut self.rng);
        }
        let item_idx = self.shop.choose(
            &person.taste,
            &self.trends,
            person.last,
            at_millis / 1000,
            &mut self.rng,
        );
        person.last = Some(item_idx);
        self.num_events += 1;
        json!({
            "event_id": format!("sim-{}-{}", self.run_id, self.num_events),
            "kind": draw_kind(&mut self.rng),
            "user_id": person.user_id,
            "item_id": self.shop.items[item_idx].item_id,
            "occurred_at": at_millis,
        })
    }
}

fn draw_kind(rng: &mut StdRng) -> &'static str {
    let weights = KINDS.map(|(_, weight)| weight);
    KINDS[crate::shop::draw(&weights, rng)].0
}

impl Totals {
    fn add(&mut self, outcome: Option<(Answer, Duration)>, num_posted: usize) {
        match outcome {
            Some((answer, elapsed)) => {
                self.accepted += answer.accepted;
                self.duplicates += answer.duplicates;
                self.rejected += answer.rejected.len() as u64;
                self.request_millis.push(elapsed.as_secs_f64() * 1000.0);
            }
            None => self.failed += num_posted as u64,
        }
    }

    fn report(&mut self, world: &World, at_secs: i64) -> String {
        self.request_millis.sort_by(f64::total_cmp);
        let median = self
            .request_millis
            .get(self.request_millis.len() / 2)
            .copied()
            .unwrap_or_default();
        let fashion = world.trends.current(at_secs);
        let fashion = if fashion.is_empty() {
            "nothing".to_owned()
        } else {
            fashion.join(", ")
        };
        format!(
            "visitors: {} accepted, {} duplicates, {} rejected, {} failed; p50 {median:.1} ms; in fashion: {fashion}",
            self.accepted, self.duplicates, self.rejected, self.failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shop::make_items;

    #[test]
    fn events_are_distinct_and_carry_the_time_passed_in() -> anyhow::Result<()> {
        let options = Options {
            server: String::new(),
            dataset: PathBuf::new(),
            rate: 1.0,
            seed: 1,
            people: 5,
        };
        let mut world = World::new(
            Shop::new(make_items(100, 1)?, 1),
            &options,
            1_700_000_000_000,
        );
        let first = world.next_event(1_700_000_000_500);
        let second = world.next_event(1_700_000_000_500);
        assert_eq!(first["occurred_at"], 1_700_000_000_500_i64);
        assert_ne!(first["event_id"], second["event_id"]);
        Ok(())
    }
}
