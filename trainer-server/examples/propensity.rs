//! Whether inverse-propensity weights help: simulated people with known taste, shelves drawn by a biased policy.
//!
//! `cargo run --example propensity -- [num_worlds] [bias]`
//!
//! ```text
//! shelf    5 of 60 items by Plackett–Luce over scores that have nothing to do with taste, spread by `bias`
//! click    on each shown item with a probability that the simulation knows
//! learn    the same events with labels.propensity_cap = 0 and with caps above it
//! measure  the mean known click probability of each person's best 5 by the fitted version
//! ```
//!
//! Differences are paired by world; the interval resamples worlds. Not here: how weights are computed (`preprocess`).

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use shared_model::edge::engine::top_k;
use shared_model::edge::explore::Exploration;
use shared_model::event::HistoryEvent;
use shared_model::ids::ItemId;
use trainer_server::config::Config;
use trainer_server::config::load::{Sources, load};
use trainer_server::event_log::{LogRecord, StoredEvent};
use trainer_server::faithfulness::interval;
use trainer_server::learner::Learner;
use trainer_server::preprocess::Preprocessor;
use trainer_server::text_source::{self, CachedTextEncoder};

const TOPICS: [&str; 6] = ["kettle", "lantern", "scarf", "violin", "kite", "atlas"];
const NUM_ITEMS: usize = 60;
const NUM_PEOPLE: usize = 200;
const NUM_ROUNDS: usize = 25;
const SHELF_LEN: usize = 5;
/// Default spread of the policy's scores: some items are shown a hundred times as often as others. 0 is dice.
const BIAS: f32 = 1.5;
const HOUR_MILLIS: i64 = 3_600_000;
const START_MILLIS: i64 = 1_700_000_000_000;
const CAPS: [&str; 5] = ["0.0", "5.0", "20.0", "100.0", "1000.0"];

struct World {
    items: Vec<LogRecord>,
    log: Vec<LogRecord>,
    /// Items clicked by each person, oldest first.
    histories: Vec<Vec<HistoryEvent>>,
    topics: Vec<usize>,
    quality: Vec<f64>,
    /// Mean click probability of what the policy showed.
    policy: f64,
}

impl World {
    fn simulate(seed: u64, bias: f32) -> anyhow::Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut item = |idx: usize| -> anyhow::Result<LogRecord> {
            let title = format!("{} number {idx}", TOPICS[idx % TOPICS.len()]);
            Ok(LogRecord::ItemPut(serde_json::from_value(
                json!({ "item_id": format!("i{idx}"), "title": title }),
            )?))
        };
        let items = (0..NUM_ITEMS)
            .map(&mut item)
            .collect::<anyhow::Result<_>>()?;
        let normal = |rng: &mut StdRng| (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        let shown_scores: Vec<f32> = (0..NUM_ITEMS).map(|_| bias * normal(&mut rng)).collect();
        let mut world = Self {
            items,
            log: Vec::new(),
            histories: vec![Vec::new(); NUM_PEOPLE],
            topics: (0..NUM_PEOPLE)
                .map(|_| rng.random_range(0..TOPICS.len()))
                .collect(),
            quality: (0..NUM_ITEMS).map(|_| rng.random_range(0.1..1.0)).collect(),
            policy: 0.0,
        };
        for round in 0..NUM_ROUNDS {
            for person in 0..NUM_PEOPLE {
                world.visit(person, round, &shown_scores, &mut rng)?;
            }
        }
        world.policy /= (NUM_ROUNDS * NUM_PEOPLE * SHELF_LEN) as f64;
        Ok(world)
    }

    fn click_probability(&self, person: usize, item_idx: usize) -> f64 {
        let is_theirs = item_idx % TOPICS.len() == self.topics[person];
        self.quality[item_idx] * if is_theirs { 0.6 } else { 0.05 }
    }

    fn visit(
        &mut self,
        person: usize,
        round: usize,
        shown_scores: &[f32],
        rng: &mut StdRng,
    ) -> anyhow::Result<()> {
        let seed = rng.random();
        let exploration = Exploration::from_fields(Some(1.0), None, None, seed)?;
        let shelf = exploration.draw((0..NUM_ITEMS as u32).collect(), shown_scores, SHELF_LEN);
        let shown_at = START_MILLIS + (round * NUM_PEOPLE + person) as i64 * HOUR_MILLIS / 50;
        for (position, placed) in shelf.iter().enumerate() {
            let item_idx = placed.item_idx as usize;
            let impression_id = format!("s{round}-{person}-{position}");
            let mut event = json!({
                "event_id": impression_id, "kind": "impression", "user_id": format!("u{person}"),
                "item_id": format!("i{item_idx}"), "occurred_at": shown_at, "position": position,
                "propensity": placed.propensity,
            });
            self.push(event.clone())?;
            let probability = self.click_probability(person, item_idx);
            self.policy += probability;
            if !rng.random_bool(probability) {
                continue;
            }
            let clicked_at = shown_at + 1000 * (position as i64 + 1);
            event["event_id"] = json!(format!("c{round}-{person}-{position}"));
            event["kind"] = json!("click");
            event["impression_id"] = json!(impression_id);
            event["occurred_at"] = json!(clicked_at);
            self.histories[person].push(HistoryEvent {
                item_id: ItemId::new(format!("i{item_idx}"))?,
                kind: shared_model::event::EventKind::Click,
                occurred_at: clicked_at,
            });
            self.push(event)?;
        }
        Ok(())
    }

    fn push(&mut self, event: serde_json::Value) -> anyhow::Result<()> {
        let event: shared_model::event::Event = serde_json::from_value(event)?;
        let received_at = event.occurred_at;
        self.log.push(LogRecord::Event(StoredEvent {
            event,
            received_at,
            is_vouched: false,
            arm_phase: None,
        }));
        Ok(())
    }

    /// Mean click probability of the best shelf that there is.
    fn oracle(&self) -> f64 {
        let shelf = |person: usize| {
            let mut all: Vec<f64> = (0..NUM_ITEMS)
                .map(|item_idx| self.click_probability(person, item_idx))
                .collect();
            all.sort_unstable_by(|a, b| b.total_cmp(a));
            all[..SHELF_LEN].iter().sum::<f64>()
        };
        (0..NUM_PEOPLE).map(shelf).sum::<f64>() / (NUM_PEOPLE * SHELF_LEN) as f64
    }

    /// Fits a version on the log and answers with the mean click probability of everyone's best five.
    fn fitted(&self, cap: &str, seed: u64) -> anyhow::Result<f64> {
        let config = Arc::new(config(cap, seed)?);
        let device = burn::tensor::Device::flex();
        let encoder = CachedTextEncoder::new(text_source::from_config(&config, &device)?, None);
        let mut learner = Learner::new(Arc::clone(&config), device, encoder);
        let mut preprocessor = Preprocessor::new(&config);
        learner.ingest(&mut preprocessor, &self.items)?;
        learner.ingest(&mut preprocessor, &self.log)?;
        learner.warm_fit(&preprocessor, |_| true)?;
        let state = learner.candidate();
        let ready = learner.ready(&state);
        let now_millis = preprocessor.watermark_millis().unwrap_or(START_MILLIS);
        let mut value = 0.0;
        for (person, history) in self.histories.iter().enumerate() {
            let scores = pollster::block_on(ready.score_all(&state, history, now_millis))?;
            let best = top_k((0..NUM_ITEMS as u32).collect(), &scores, SHELF_LEN);
            value += best
                .iter()
                .map(|item_idx| self.click_probability(person, *item_idx as usize))
                .sum::<f64>();
        }
        Ok(value / (NUM_PEOPLE * SHELF_LEN) as f64)
    }
}

fn config(cap: &str, seed: u64) -> anyhow::Result<Config> {
    let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let flags = vec![
        flag("clock.mode", "event_time"),
        flag("model.text_encoder", "small"),
        flag("labels.propensity_cap", cap),
        flag("train.seed", &seed.to_string()),
    ];
    Ok(load(&Sources {
        file: None,
        env: Vec::new(),
        flags,
        ..Sources::default()
    })?)
}

fn main() -> anyhow::Result<()> {
    let num_worlds: u64 = std::env::args()
        .nth(1)
        .map_or(Ok(10), |text| text.parse())?;
    let bias: f32 = std::env::args()
        .nth(2)
        .map_or(Ok(BIAS), |text| text.parse())?;
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); CAPS.len()];
    let (mut policy, mut oracle) = (0.0, 0.0);
    for seed in 0..num_worlds {
        let world = World::simulate(seed, bias)?;
        policy += world.policy / num_worlds as f64;
        oracle += world.oracle() / num_worlds as f64;
        for (cap, values) in CAPS.iter().zip(&mut values) {
            values.push(world.fitted(cap, seed)?);
        }
        let of_world: Vec<_> = values.iter().map(|values| values.last()).collect();
        println!("world {seed}, {} records: {of_world:.4?}", world.log.len());
    }
    println!("the policy {policy:.4}, the best shelf there is {oracle:.4}");
    let mut rng = StdRng::seed_from_u64(1);
    for (cap, of_cap) in CAPS.iter().zip(&values) {
        let mean = of_cap.iter().sum::<f64>() / of_cap.len() as f64;
        let differences: Vec<f64> = of_cap.iter().zip(&values[0]).map(|(a, b)| a - b).collect();
        let difference = differences.iter().sum::<f64>() / differences.len() as f64;
        let [low, high] = interval(&differences, &mut rng);
        println!("cap {cap:>6}: {mean:.4}, minus cap 0: {difference:+.4} [{low:+.4}, {high:+.4}]");
    }
    Ok(())
}
