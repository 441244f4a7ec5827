//! Bodies of events under ids of their own, cheap to make: all but the id is rendered once.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use shared_model::event::Item;
use trainer_server::clock::now_millis;
use trainer_server::dataset::Dataset;

/// Of drawn events.
const NUM_DRAWN_ITEMS: usize = 4000;
const NUM_DRAWN_USERS: usize = 20_000;
const NUM_DRAWN_EVENTS: usize = 100_000;
const SEED: u64 = 1;

pub(crate) struct Batches {
    items: Vec<Item>,
    /// Everything behind the id of an event, in the order of the stream.
    tails: Vec<String>,
    source: String,
}

impl Batches {
    pub(crate) fn new(dataset: Option<&Path>) -> anyhow::Result<Self> {
        match dataset {
            Some(dir) => Self::read(dir),
            None => Self::drawn(),
        }
    }

    fn read(dir: &Path) -> anyhow::Result<Self> {
        let dataset = Dataset::load(dir, SEED)?;
        let now_millis = now_millis();
        let tail = |event| {
            let id = "x".to_owned().try_into().expect("a valid id");
            let mut event = dataset.to_event(event, id);
            event.occurred_at = now_millis;
            let text = serde_json::to_string(&event)?;
            let tail = text.strip_prefix(r#"{"event_id":"x"#);
            Ok(tail.context("the id of an event comes first")?.to_owned())
        };
        let tails = dataset
            .events
            .iter()
            .map(tail)
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            tails,
            source: dataset.name,
            items: dataset.items,
        })
    }

    fn drawn() -> anyhow::Result<Self> {
        let mut rng = StdRng::seed_from_u64(SEED);
        let item = |idx: usize| json!({ "item_id": format!("item-{idx}"), "title": format!("Item {idx}") });
        let items = (0..NUM_DRAWN_ITEMS).map(|idx| serde_json::from_value(item(idx)));
        let now_millis = now_millis();
        let mut tail = |_| {
            // The square makes some items popular.
            let item_idx = (rng.random::<f64>().powi(2) * NUM_DRAWN_ITEMS as f64) as usize;
            let user_idx = rng.random_range(0..NUM_DRAWN_USERS);
            format!(
                r#"","kind":"click","user_id":"user-{user_idx}","item_id":"item-{item_idx}","occurred_at":{now_millis}}}"#
            )
        };
        Ok(Self {
            items: items.collect::<Result<_, _>>()?,
            tails: (0..NUM_DRAWN_EVENTS).map(&mut tail).collect(),
            source: "drawn".to_owned(),
        })
    }

    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Name of the dataset.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The body of a batch.
    pub(crate) fn body(&self, phase: &str, batch_idx: usize, batch_len: usize) -> String {
        let mut body = String::with_capacity(200 * batch_len);
        body.push_str(r#"{"events":["#);
        for event_idx in 0..batch_len {
            let tail = &self.tails[(batch_idx * batch_len + event_idx) % self.tails.len()];
            let comma = if event_idx > 0 { "," } else { "" };
            write!(
                body,
                r#"{comma}{{"event_id":"{phase}/{batch_idx}/{event_idx}{tail}"#
            )
            .expect("writing to a String cannot fail");
        }
        body.push_str("]}");
        body
    }
}

/// Phase and batch of an event, by its id.
pub(crate) fn batch_of(event_id: &str) -> anyhow::Result<(String, usize)> {
    let mut parts = event_id.split('/');
    let (phase, batch_idx) = (parts.next(), parts.next());
    let (phase, batch_idx) = phase.zip(batch_idx).context("an id of another run")?;
    Ok((phase.to_owned(), batch_idx.parse()?))
}
