//! Erasing users: from the order to a data folder that does not hold them.
//!
//! ```text
//! order ──log: `user_erased`, synced──► the trainer forgets the user when it reads it
//!   └──► erasures.jsonl, a line    └──► `EventLog::rewrite`: tombstones, the file is swapped
//! ```
//! What was ordered is carried out again after a crash, and by a restore from an older backup that is given the list.
//! The list and the log hold the hash of the user's id. Events that the user sends later are taken in again.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use shared_model::ids::{LogOffset, UserId};
use tokio::sync::watch;

use crate::backup::BackupError;
use crate::event_log::tombstone::{IdHash, UserErasure};
use crate::event_log::{AppendOutcome, EventLog, EventLogError, LogRecord};
use crate::publish::files::sync_dir;

/// Every erasure, a line of JSON each.
pub const LIST_NAME: &str = "erasures.jsonl";
/// Largest list that is read; some 10 million erasures.
const LIST_BYTES_MAX: u64 = 1 << 30;
/// Time between looks for events beyond their retention, and for erasures that failed.
const KEEP_INTERVAL: Duration = Duration::from_secs(3600);
const DAY_MILLIS: i64 = 86_400_000;

/// An erasure that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Erased {
    /// Of the user's id.
    pub user_hash: IdHash,
    /// When it was ordered, in milliseconds since 1970-01-01 UTC.
    pub erased_at: i64,
    /// Where the log has the order: no event of the user before it is left.
    pub log_offset: LogOffset,
    /// Events that were taken out of the log; 0 for a user who was not known. Those of other users whose erasure was
    /// ordered in the same moment, or had failed before, are among them.
    pub num_events: u64,
}

/// Erases a user. Blocks until the log is rewritten.
///
/// # Errors
/// The order could not be kept, or could not be carried out yet: it stays ordered then.
pub fn erase(
    log: &EventLog,
    data_dir: &Path,
    user_id: &UserId,
    now_millis: i64,
) -> Result<Erased, BackupError> {
    let erasure = UserErasure {
        user_hash: IdHash::of_user(user_id),
        erased_at: now_millis,
    };
    let log_offset = order(log, data_dir, erasure)?;
    let rewritten = log.rewrite(None)?;
    let UserErasure {
        user_hash,
        erased_at,
    } = erasure;
    Ok(Erased {
        user_hash,
        erased_at,
        log_offset,
        num_events: rewritten.num_erased,
    })
}

/// Keeps the order to erase a user; [`EventLog::rewrite`] carries it out.
///
/// # Errors
/// It cannot be written.
pub fn order(
    log: &EventLog,
    data_dir: &Path,
    erasure: UserErasure,
) -> Result<LogOffset, BackupError> {
    let outcomes = log.append_blocking(&[LogRecord::UserErased(erasure)])?;
    let Some(AppendOutcome::Accepted(offset) | AppendOutcome::Duplicate(offset)) = outcomes.first()
    else {
        return Err(EventLogError::Closed.into());
    };
    let path = data_dir.join(LIST_NAME);
    let line = serde_json::to_string(&erasure).expect("plain values always serialize") + "\n";
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file: File| {
            file.write_all(line.as_bytes())?;
            file.sync_all()?;
            sync_dir(data_dir)
        });
    written.map_err(BackupError::io("cannot list the erasure", &path))?;
    Ok(*offset)
}

/// Reads a list of erasures.
///
/// # Errors
/// It cannot be read, or has a line that is none.
pub fn read_list(path: &Path) -> Result<Vec<UserErasure>, BackupError> {
    let cannot_read = |error| BackupError::io("cannot read", path)(error);
    let malformed = |detail: String| BackupError::Malformed {
        path: path.display().to_string(),
        detail,
    };
    let bytes = fs::metadata(path).map_err(cannot_read)?.len();
    if bytes > LIST_BYTES_MAX {
        return Err(malformed(format!(
            "{bytes} bytes, at most {LIST_BYTES_MAX}"
        )));
    }
    let text = fs::read_to_string(path).map_err(cannot_read)?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.is_empty());
    lines
        .map(|(line, number)| {
            serde_json::from_str(line).map_err(|error| malformed(format!("line {number}: {error}")))
        })
        .collect()
}

/// Carries out what a crash left ordered, then once an hour, and drops events older than `retention_days`; 0 for never.
pub async fn keep(
    log: EventLog,
    retention_days: u32,
    clock: fn() -> i64,
    mut stopping: watch::Receiver<bool>,
) {
    let retention_millis = i64::from(retention_days) * DAY_MILLIS;
    while !*stopping.borrow() {
        let log = log.clone();
        let received_before = (retention_days > 0).then(|| clock() - retention_millis);
        let rewriting = tokio::task::spawn_blocking(move || log.rewrite(received_before));
        let rewritten = tokio::select! {
            rewritten = rewriting => rewritten,
            _ = stopping.changed() => return, // what was not swapped is removed at the next start
        };
        match rewritten {
            Ok(Ok(done)) if done.num_erased + done.num_expired > 0 => tracing::info!(
                num_erased = done.num_erased,
                num_expired = done.num_expired,
                "events were taken out of the log"
            ),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "events that are to go could not be taken out of the log")
            }
            Err(error) => tracing::error!(%error, "rewriting the log panicked"),
        }
        tokio::select! {
            () = tokio::time::sleep(KEEP_INTERVAL) => {}
            _ = stopping.changed() => return,
        }
    }
}
