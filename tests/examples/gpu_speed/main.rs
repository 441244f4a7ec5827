//! How long a ranking takes on the CPU and on the graphics card: natively, and by the two modules of the npm package
//! in one page of Chromium, which also says what `backend: 'auto'` would take.
//!
//! `gpu_speed native|page NUM_ITEMS…` writes one line of JSON for each size. The page uses the card where
//! `FRESHET_BROWSER_GPU=1`, and a software adapter otherwise. Both sides rank with one version and must score alike.
//! Catalogues that are too large for neighbours have none, and no texts either: neither takes part in what is timed.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use ed25519_dalek::SigningKey;
use harness::browser::Browser;
use harness::drawn::{self, NOW_MILLIS};
use harness::signed::{manifest, signed_text};
use harness::site::Site;
use harness::workspace;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use shared_model::codec::snapshot::encode_snapshot;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::{RankOptions, RankRequest, RankedItem, ReadyVersion};
use shared_model::event::{EventKind, HistoryEvent};
use shared_model::ids::Version;
use shared_model::manifest::public_key_text;
use shared_model::model::neighbours::NEIGHBOUR_ITEMS_MAX;
use shared_model::spec::ModelSpec;
use trainer_server::config::DeviceChoice;
use trainer_server::device;
use trainer_server::learner::padding_of;

const NUM_EVENTS: usize = 50;
/// Histories that take turns.
const NUM_HISTORIES: usize = 10;
/// Rankings of each side that are counted, and those before them that are not.
const NUM_CALLS: usize = 60;
const NUM_WARM_UP_CALLS: usize = 10;
/// On a GPU exponentials and roots come from another library.
const SCORE_TOLERANCE: f32 = 1e-4;
const SCRIPT: &str = include_str!("page.js");

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((what, sizes)) = arguments.split_first() else {
        bail!("expected `native NUM_ITEMS…` or `page NUM_ITEMS…`");
    };
    for size in sizes {
        let num_items: usize = size.parse().context("a number of items")?;
        let state = drawn::draw_of(spec(num_items), num_items);
        let numbers = match what.as_str() {
            "native" => native(&state).await?,
            "page" => page(&state).await?,
            other => bail!("expected `native` or `page`, not {other}"),
        };
        println!("{}", json!({ "num_items": num_items, what: numbers }));
    }
    Ok(())
}

fn spec(num_items: usize) -> ModelSpec {
    let spec = drawn::spec();
    if num_items <= NEIGHBOUR_ITEMS_MAX {
        return spec;
    }
    ModelSpec {
        text_dim: 0,
        num_neighbours: 0,
        ..spec
    }
}

/// Events some hours apart, of random items, oldest first.
fn histories(state: &CodeState) -> Vec<Vec<HistoryEvent>> {
    let rng = &mut StdRng::seed_from_u64(7);
    let kinds = [EventKind::View, EventKind::Click, EventKind::Purchase];
    let mut histories = Vec::new();
    for _ in 0..NUM_HISTORIES {
        let mut occurred_at = NOW_MILLIS;
        let mut history: Vec<HistoryEvent> = (0..NUM_EVENTS)
            .map(|_| {
                occurred_at -= rng.random_range(60_000..20_000_000);
                let item = &state.items[rng.random_range(0..state.items.len())];
                HistoryEvent {
                    item_id: item.item_id.clone(),
                    kind: kinds[rng.random_range(0..kinds.len())],
                    occurred_at,
                }
            })
            .collect();
        history.reverse();
        histories.push(history);
    }
    histories
}

/// The server's own scoring, side by side.
async fn native(state: &CodeState) -> anyhow::Result<Value> {
    let wgpu = device::choose(DeviceChoice::Wgpu)?.device;
    let histories = histories(state);
    let mut numbers = json!({});
    let mut answers: Vec<Vec<Vec<RankedItem>>> = Vec::new();
    for (name, device) in [("flex", Device::flex()), ("wgpu", wgpu)] {
        let started_at = Instant::now();
        let ready = ReadyVersion::new(state, &device, padding_of(&device));
        let mut first = Vec::new();
        let mut times = Vec::new();
        for call_idx in 0..NUM_WARM_UP_CALLS + NUM_CALLS {
            let history = &histories[call_idx % NUM_HISTORIES];
            let asked_at = Instant::now();
            let items = rank(&ready, state, history).await?;
            let millis = asked_at.elapsed().as_secs_f64() * 1e3;
            if call_idx == 0 {
                let opened = started_at.elapsed().as_secs_f64() * 1e3;
                numbers[format!("{name}_first_ms")] = json!(opened);
            }
            if call_idx < NUM_HISTORIES {
                first.push(items);
            }
            if call_idx >= NUM_WARM_UP_CALLS {
                times.push(millis);
            }
        }
        answers.push(first);
        numbers[format!("{name}_ms")] = spread(times)?;
    }
    let difference = largest_difference(&answers[0], &answers[1]);
    ensure!(
        difference <= SCORE_TOLERANCE,
        "the devices do not score alike: {difference}"
    );
    numbers["max_difference"] = json!(difference);
    Ok(numbers)
}

async fn rank(
    ready: &ReadyVersion,
    state: &CodeState,
    history: &[HistoryEvent],
) -> anyhow::Result<Vec<RankedItem>> {
    let options = RankOptions {
        k: 10,
        exclude_seen: false,
    };
    let request = RankRequest {
        history,
        candidates: None,
        options: &options,
        now_millis: NOW_MILLIS,
        moderation: None,
    };
    Ok(ready.rank(state, &request).await?)
}

/// Of the scores, place by place: two items that are all but equal may be in either order.
fn largest_difference(expected: &[Vec<RankedItem>], actual: &[Vec<RankedItem>]) -> f32 {
    let pairs = expected.iter().flatten().zip(actual.iter().flatten());
    pairs
        .map(|(expected, actual)| (expected.score - actual.score).abs())
        .fold(0.0, f32::max)
}

/// Both modules in one page.
async fn page(state: &CodeState) -> anyhow::Result<Value> {
    let key = SigningKey::from_bytes(&[9; 32]);
    let manifest = manifest(state, None, NOW_MILLIS).await?;
    let folder = tempfile::tempdir()?;
    let package = workspace::root().join("edge-wasm/npm");
    for part in ["dist", "lib"] {
        copy_files(&package.join(part), &folder.path().join(part))?;
    }
    fs::write(folder.path().join("page.html"), "<!doctype html>")?;
    fs::write(
        folder.path().join("snapshot.bin"),
        encode_snapshot(state, Version(1))?,
    )?;
    let calls: Vec<String> = histories(state)
        .iter()
        .map(|history| {
            json!({ "history": history, "k": 10, "excludeSeen": false, "nowMillis": NOW_MILLIS })
                .to_string()
        })
        .collect();
    let input = json!({
        "trust": json!([public_key_text(&key.verifying_key())]).to_string(),
        "manifest": signed_text(&manifest, &key)?,
        "calls": calls,
        "num_calls": NUM_CALLS,
        "num_warm_up_calls": NUM_WARM_UP_CALLS,
    });
    let browser = Browser::start().await?;
    let browser = browser.context("nothing is measured without Chromium and the built modules")?;
    let site = Site::isolated(folder.path()).await?;
    let page = browser.open_url(&site.url("page.html")).await?;
    let mut measured = page.run(SCRIPT, vec![input]).await?;
    browser.close().await?;
    for side in ["cpu", "webgpu"] {
        let times: Vec<f64> = serde_json::from_value(measured[side].take())?;
        measured[side] = if times.is_empty() {
            Value::Null
        } else {
            spread(times)?
        };
    }
    measured["snapshot_bytes"] = json!(folder.path().join("snapshot.bin").metadata()?.len());
    Ok(measured)
}

fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Least, median, 95th percentile and largest of some times.
fn spread(mut times: Vec<f64>) -> anyhow::Result<Value> {
    ensure!(!times.is_empty(), "nothing was timed");
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize]; // a place in the list
    Ok(json!({ "min": at(0.0), "p50": at(0.5), "p95": at(0.95), "max": at(1.0) }))
}
