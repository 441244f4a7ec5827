//! How many events a second a server takes in durably, how long an acknowledgement takes, and how soon it learns.
//!
//! `ingest_load FRESHET [DATASET]` starts the program FRESHET with default settings on a fresh folder, posts real
//! events of the dataset folder, else drawn ones, from the same machine, stops it, and reads its log: an event counts
//! when it was acknowledged and is there. It writes one line of JSON. Run by `cargo xtask bench ingest`.
//!
//! `ingest_load FRESHET DATASET NUM_EVENTS` measures starts on a log of so many events instead.

mod batches;
mod connection;
mod load;
mod server;
mod start;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use batches::Batches;
use load::{Acked, Load};
use serde_json::{Value, json};
use server::Server;
use shared_model::ids::LogOffset;
use trainer_server::config::Config;
use trainer_server::event_log::{EventLog, EventLogConfig, LogRecord};
use trainer_server::replay::quality::quantile;

/// Events in one request.
const BATCH_LEN: usize = 100;
/// Kept-alive connections with one request under way each.
const NUM_CONNECTIONS: usize = 16;
/// What is thrown away before the first measurement.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long each rate is held.
const HELD: Duration = Duration::from_secs(15);
/// Events per second while freshness is measured, and their number in one request.
const CALM_RATE: f64 = 200.0;
const CALM_BATCH_LEN: usize = 10;
/// Longest wait for the trainer.
const TRAINER_PATIENCE: Duration = Duration::from_secs(180);
/// Records read from the log at once.
const READ_LEN: usize = 8192;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let freshet = arguments
        .next()
        .context("expected FRESHET [DATASET [NUM_EVENTS]]")?;
    let dataset = arguments.next();
    let batches = Batches::new(dataset.as_deref().map(Path::new))?;
    if let Some(num_events) = arguments.next() {
        let num_events = num_events.to_string_lossy().parse()?;
        let started = start::measure(Path::new(&freshet), &batches, num_events)?;
        println!("{started}");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let server = Server::start(Path::new(&freshet), dir.path())?;
    server.put_items(&batches)?;
    server.wait_for_version(TRAINER_PATIENCE)?;
    let mut load = Load::new(&server.address, &batches);

    load.closed("warm", BATCH_LEN, NUM_CONNECTIONS, WARM_UP)?;
    let before = server.status()?;
    let cpu_before = server.cpu_secs();
    let highest = load.closed("high", BATCH_LEN, NUM_CONNECTIONS, HELD)?;
    let cpu_secs = server.cpu_secs() - cpu_before;
    let meanwhile = training_between(&before, &server.status()?);
    let highest_rate = (highest.len() * BATCH_LEN) as f64 / HELD.as_secs_f64();
    let half_rate = highest_rate / 2.0;
    let before = server.status()?;
    let half = load.open("half", BATCH_LEN, NUM_CONNECTIONS, half_rate, HELD)?;
    let meanwhile_half = training_between(&before, &server.status()?);
    server.wait_until_learned(TRAINER_PATIENCE)?;
    let calm = load.with_learned(&server, |load| {
        load.open("calm", CALM_BATCH_LEN, 4, CALM_RATE, HELD)
    })?;
    server.stop()?;

    let stored = stored_batches(dir.path())?;
    for (phase, len, acked) in [
        ("high", BATCH_LEN, &highest),
        ("half", BATCH_LEN, &half),
        ("calm", CALM_BATCH_LEN, &calm.acked),
    ] {
        ensure_stored(&stored, phase, len, acked)?;
    }
    let report = json!({
        "events_per_sec": highest_rate.round(),
        "closed_loop_ack_ms": spread(highest.iter().map(|acked| acked.latency)),
        "server_cpu_micros_per_event": cpu_secs * 1e6 / (highest.len() * BATCH_LEN) as f64,
        "training_meanwhile": meanwhile,
        "ack_ms": spread(half.iter().map(|acked| acked.latency)),
        "ack_events_per_sec": half_rate.round(),
        "training_meanwhile_at_half": meanwhile_half,
        "freshness_ms": spread(calm.freshness.iter().copied()),
        "freshness_events_per_sec": CALM_RATE,
        "num_connections": NUM_CONNECTIONS,
        "batch_events": BATCH_LEN,
        "num_items": batches.items().len(),
        "source": batches.source(),
        "held_secs": HELD.as_secs(),
        "acked_events_in_log": (highest.len() + half.len()) * BATCH_LEN + calm.acked.len() * CALM_BATCH_LEN,
    });
    println!("{report}");
    Ok(())
}

/// What the trainer did between two answers of `/v1/status`.
fn training_between(before: &Value, after: &Value) -> Value {
    let difference = |pointer: &str| {
        let of = |status: &Value| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        of(after).saturating_sub(of(before))
    };
    json!({
        "events_trained": difference("/trainer/events_trained"),
        "events_skipped": difference("/trainer/events_skipped"),
        "versions": difference("/publish/num_versions"),
        "log_records_behind": after["log_offset"].as_u64().unwrap_or(0)
            .saturating_sub(after["learned_through"].as_u64().unwrap_or(0)),
    })
}

/// Events in the log by batch, where each id is there once.
fn stored_batches(data_dir: &Path) -> anyhow::Result<HashMap<(String, usize), usize>> {
    let log = EventLog::open(data_dir, &EventLogConfig::from(&Config::default()))?;
    let mut stored = HashMap::new();
    let mut offset = LogOffset(0);
    loop {
        let records = log.read(offset, READ_LEN)?;
        let Some((last, _)) = records.last() else {
            return Ok(stored);
        };
        offset = last.next();
        for (_, record) in &records {
            if let LogRecord::Event(event) = record {
                let batch = batches::batch_of(event.event.event_id.as_str())?;
                *stored.entry(batch).or_default() += 1;
            }
        }
    }
}

fn ensure_stored(
    stored: &HashMap<(String, usize), usize>,
    phase: &str,
    batch_len: usize,
    acked: &[Acked],
) -> anyhow::Result<()> {
    for batch in acked {
        let num_stored = stored.get(&(phase.to_owned(), batch.batch_idx));
        ensure!(
            num_stored == Some(&batch_len),
            "batch {} of {phase} was acknowledged, but the log has {num_stored:?} of its {batch_len} events",
            batch.batch_idx
        );
    }
    Ok(())
}

/// In milliseconds.
fn spread(durations: impl Iterator<Item = Duration>) -> Value {
    let mut sorted: Vec<_> = durations.collect();
    sorted.sort_unstable();
    let at = |share: f64| {
        quantile(&sorted, share).map(|duration| (duration.as_secs_f64() * 1e5).round() / 100.0)
    };
    json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) })
}

/// Sleeps until then, where that lies ahead.
fn sleep_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}
