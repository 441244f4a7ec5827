//! Sudden death of the server during the stream, and the audit of what is on disk afterwards.
//!
//! [`Kills`] sends `SIGKILL` to our own server at random moments after a chunk was sent, and starts it
//! again on the same folder. [`audit`] opens that folder once the server is gone for good: every event
//! that was acknowledged must be in the log exactly once, and the versions must have learned the log
//! piece by piece, without a gap and without an overlap, by what the manifests that are kept say.
//!
//! It is the process that dies, not the machine: what was written but not synced survives here and would
//! not survive a power cut. Events of the steady phase are not looked at.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use shared_model::ids::{EventId, LogOffset, Version};
use shared_model::manifest::Manifest;

use super::ReplayError;
use super::server_process::{ServerProcess, ServerProcessError};
use crate::config::Config;
use crate::event_log::{EventLog, EventLogConfig, LogRecord};
use crate::publish::Publisher;

/// A kill falls within this time after a chunk was sent: on its way, acknowledged, learned or published.
const KILL_WITHIN: Duration = Duration::from_millis(1200);
/// Records read from the log at once.
const READ_LEN: usize = 8192;

/// When to kill the server, and how long it was gone.
#[derive(Debug)]
pub struct Kills<'a> {
    process: &'a mut ServerProcess,
    chunks: BTreeSet<usize>,
    rng: StdRng,
    /// Seconds from each kill to the first answer of the server after it.
    pub restart_secs: Vec<f64>,
}

impl<'a> Kills<'a> {
    /// `num_kills` of them over `num_chunks` chunks, at most one per chunk.
    pub fn new(
        process: &'a mut ServerProcess,
        num_kills: usize,
        num_chunks: usize,
        seed: u64,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let num_kills = num_kills.min(num_chunks);
        let chunks = rand::seq::index::sample(&mut rng, num_chunks, num_kills);
        Self {
            process,
            chunks: chunks.into_iter().collect(),
            rng,
            restart_secs: Vec::new(),
        }
    }

    /// Kills and restarts, if it is time; runs while the chunk is posted.
    ///
    /// # Errors
    /// The server does not come back.
    pub async fn strike(&mut self, chunk_idx: usize) -> Result<(), ServerProcessError> {
        if !self.chunks.remove(&chunk_idx) {
            return Ok(());
        }
        tokio::time::sleep(KILL_WITHIN.mul_f64(self.rng.random())).await;
        let killed_at = Instant::now();
        self.process.kill()?;
        self.process.restart()?;
        self.process.wait_until_healthy().await?;
        self.restart_secs.push(killed_at.elapsed().as_secs_f64());
        Ok(())
    }
}

/// What is on disk after everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Events before and of the stream that were acknowledged.
    pub num_acked: usize,
    /// Of these, how many are not in the log.
    pub num_missing: usize,
    /// Event ids that are in the log more than once, whoever sent them.
    pub num_stored_twice: usize,
    /// Versions whose manifests are there.
    pub num_versions: usize,
    /// Records of the log that more than one version learned.
    pub num_learned_twice: u64,
    /// Records of the log before the end of the last version that none learned.
    pub num_not_learned: u64,
}

impl Audit {
    /// Whether anything was lost, stored twice or learned twice.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.num_missing == 0 && self.num_stored_twice == 0 && self.num_learned_twice == 0
    }

    /// For the report.
    #[must_use]
    pub fn figures(&self) -> Value {
        json!({
            "is_clean": self.is_clean(),
            "acked_events": self.num_acked,
            "acked_events_missing_in_log": self.num_missing,
            "event_ids_stored_twice": self.num_stored_twice,
            "versions": self.num_versions,
            "records_learned_twice": self.num_learned_twice,
            "records_never_learned": self.num_not_learned,
        })
    }
}

/// Reads the log and the manifests of a server that is gone.
///
/// # Errors
/// Either cannot be opened or read.
pub fn audit(
    config: &Config,
    acked: impl IntoIterator<Item = EventId>,
) -> Result<Audit, ReplayError> {
    let data_dir = &config.server.data_dir;
    let log = EventLog::open(data_dir, &EventLogConfig::from(config))
        .map_err(ServerProcessError::from)?;
    let stored = stored_ids(&log);
    log.shutdown();
    let stored = stored?;
    let publisher = Publisher::open(data_dir, &config.model.name, &config.publish)?;
    let manifests = publisher.manifests()?;
    let mut audit = Audit {
        num_stored_twice: stored.values().filter(|count| **count > 1).count(),
        num_versions: manifests.len(),
        ..Audit::default()
    };
    for event_id in acked {
        audit.num_acked += 1;
        audit.num_missing += usize::from(!stored.contains_key(&event_id));
    }
    (audit.num_learned_twice, audit.num_not_learned) = learned_twice_and_never(&manifests);
    Ok(audit)
}

fn stored_ids(log: &EventLog) -> Result<HashMap<EventId, u32>, ReplayError> {
    let mut stored = HashMap::new();
    let mut offset = LogOffset(0);
    loop {
        let records = log
            .read(offset, READ_LEN)
            .map_err(ServerProcessError::from)?;
        let Some((last, _)) = records.last() else {
            return Ok(stored);
        };
        offset = LogOffset(last.0 + 1);
        for (_, record) in records {
            if let LogRecord::Event(event) = record {
                *stored.entry(event.event.event_id).or_default() += 1;
            }
        }
    }
}

/// Overlaps and gaps between each version and the one before, in records.
fn learned_twice_and_never(manifests: &[Manifest]) -> (u64, u64) {
    let starts_late = manifests
        .first()
        .filter(|first| first.version == Version(1));
    let missed = starts_late.map_or(0, |first| first.learned_from.0);
    let spans: Vec<(u64, u64)> = manifests
        .iter()
        .map(|manifest| (manifest.learned_from.0, manifest.learned_through.0))
        .collect();
    let (twice, never) = overlaps_and_gaps(&spans);
    (twice, missed + never)
}

/// Records in more than one of neighbouring spans, and records between them.
fn overlaps_and_gaps(spans: &[(u64, u64)]) -> (u64, u64) {
    let (mut overlaps, mut gaps) = (0, 0);
    for pair in spans.windows(2) {
        let (end, start) = (pair[0].1, pair[1].0);
        overlaps += end.saturating_sub(start);
        gaps += start.saturating_sub(end);
    }
    (overlaps, gaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::StoredEvent;
    use shared_model::event::{Event, EventKind};
    use shared_model::ids::{ItemId, UserId};

    #[test]
    fn overlaps_and_gaps_between_spans_are_counted_in_records() {
        assert_eq!(overlaps_and_gaps(&[]), (0, 0));
        assert_eq!(overlaps_and_gaps(&[(3, 9)]), (0, 0));
        assert_eq!(overlaps_and_gaps(&[(0, 4), (4, 4), (4, 9)]), (0, 0));
        assert_eq!(overlaps_and_gaps(&[(0, 4), (2, 6), (9, 10)]), (2, 3));
    }

    fn event_id(idx: usize) -> EventId {
        EventId::new(format!("e{idx}")).expect("short")
    }

    #[test]
    fn an_acknowledged_event_that_is_not_in_the_log_is_found() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut config = Config::default();
        config.server.data_dir = dir.path().to_owned();
        let log = EventLog::open(dir.path(), &EventLogConfig::from(&config)).expect("opens");
        let record = |idx| {
            LogRecord::Event(StoredEvent {
                event: Event {
                    event_id: event_id(idx),
                    kind: EventKind::Click,
                    user_id: UserId::new("u").expect("short"),
                    item_id: ItemId::new("i").expect("short"),
                    occurred_at: 1,
                    value: None,
                    model_version: None,
                    impression_id: None,
                    position: None,
                    propensity: None,
                    arm: None,
                },
                received_at: 1,
                is_vouched: false,
                arm_phase: None,
            })
        };
        log.append_blocking(&[record(0), record(1)])
            .expect("appends");
        log.shutdown();
        drop(log);

        let all = audit(&config, (0..2).map(event_id)).expect("reads");
        assert_eq!(
            (all.num_acked, all.num_missing, all.is_clean()),
            (2, 0, true)
        );

        let one_lost = audit(&config, (0..3).map(event_id)).expect("reads");
        assert_eq!((one_lost.num_missing, one_lost.is_clean()), (1, false));
    }
}
