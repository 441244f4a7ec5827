//! How soon a server answers on a long log, and what memory it takes.
//!
//! The log is filled directly after a first version was published. The first start then takes in what was not learned;
//! the second one goes on from a version that has learned through the end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use shared_model::event::Event;
use trainer_server::clock::now_millis;
use trainer_server::config::Config;
use trainer_server::event_log::{EventLog, EventLogConfig, LogRecord, StoredEvent};

use crate::batches::Batches;
use crate::server::Server;

/// Events in one transaction while the log is filled.
const FILL_LEN: usize = 8192;
/// Longest wait for a version, and for the trainer to take in the whole log.
const PATIENCE: Duration = Duration::from_secs(600);

/// Fills a log with so many events and starts on it twice.
pub(crate) fn measure(
    freshet: &Path,
    batches: &Batches,
    num_events: usize,
) -> anyhow::Result<Value> {
    let dir = tempfile::tempdir()?;
    let server = Server::start(freshet, dir.path())?;
    server.put_items(batches)?;
    server.wait_for_version(PATIENCE)?;
    let empty_bytes = server.memory_bytes()?;
    server.stop()?;
    fill(dir.path(), batches, num_events)?;
    let (server, behind_secs) = timed_start(freshet, dir.path())?;
    server.wait_until_learned(PATIENCE)?;
    let memory_bytes = server.memory_bytes()?;
    server.stop()?;
    let (server, ready_secs) = timed_start(freshet, dir.path())?;
    server.stop()?;
    Ok(json!({
        "events": num_events,
        "ready_secs": ready_secs,
        "ready_secs_with_all_unlearned": behind_secs,
        "memory_bytes_without_events": empty_bytes,
        "memory_bytes": memory_bytes,
        "log_bytes": std::fs::metadata(dir.path().join("events.redb"))?.len(),
    }))
}

fn fill(data_dir: &Path, batches: &Batches, num_events: usize) -> anyhow::Result<()> {
    let log = EventLog::open(data_dir, &EventLogConfig::from(&Config::default()))?;
    let received_at = now_millis();
    for (batch_idx, first) in (0..num_events).step_by(FILL_LEN).enumerate() {
        let len = FILL_LEN.min(num_events - first);
        let body: Value = serde_json::from_str(&batches.body("fill", batch_idx, len))?;
        let events: Vec<Event> = serde_json::from_value(body["events"].clone())?;
        let record = |event| {
            LogRecord::Event(StoredEvent {
                event,
                received_at,
                is_vouched: false,
                arm_phase: None,
            })
        };
        let records: Vec<_> = events.into_iter().map(record).collect();
        let outcomes = log.append_blocking(&records)?;
        ensure!(outcomes.len() == len, "a batch was not written");
    }
    log.shutdown();
    Ok(())
}

/// A start and the seconds until `/readyz` says yes.
fn timed_start(freshet: &Path, data_dir: &Path) -> anyhow::Result<(Server, f64)> {
    let started = Instant::now();
    let server = Server::start(freshet, data_dir)?;
    while !server.is_ready() {
        ensure!(started.elapsed() < PATIENCE, "the server is never ready");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((server, started.elapsed().as_secs_f64()))
}

/// Bytes that a line of `/proc/PID/status` tells in kB.
pub(crate) fn resident_bytes(status: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let line = line.context("the system does not tell the memory of a process")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
