//! `audit.jsonl`: who ordered or deleted what, and which keys were refused; one line each, synced.
//!
//! At its largest size the file becomes `audit.older.jsonl`, in place of the one before, and a new one begins.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::access::Role;
use crate::publish::files::sync_dir;

/// Largest file, in bytes; there are two at most.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Refused keys that are told per minute; the others are counted.
const REFUSALS_PER_MINUTE_MAX: u64 = 60;
const MINUTE_MILLIS: i64 = 60_000;

/// A line.
#[derive(Debug, Clone, Serialize)]
pub struct AuditRow {
    /// Milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// Of the key that was shown; `None` without one, or with one that is not known.
    pub role: Option<Role>,
    /// Address of the client; `None` where the server did it by itself.
    pub client: Option<IpAddr>,
    /// What was asked for.
    pub what: String,
    /// `done`, or why not.
    pub outcome: String,
    /// Refused keys that were not told since the last one that was.
    #[serde(skip_serializing_if = "is_zero")]
    pub untold: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The file; cheap to clone.
#[derive(Clone)]
pub struct AuditLog {
    state: Arc<Mutex<State>>,
}

struct State {
    dir: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    /// Minute, and refusals told in it.
    told: (i64, u64),
    untold: u64,
}

impl AuditLog {
    /// Opens or makes it in a data directory.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        Self::open_bounded(data_dir, FILE_BYTES_MAX)
    }

    fn open_bounded(data_dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = open_file(data_dir)?;
        let bytes = file.metadata()?.len();
        let state = State {
            dir: data_dir.to_owned(),
            file,
            bytes,
            bytes_max,
            told: (0, 0),
            untold: 0,
        };
        Ok(Self {
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Adds a line. What was done stands even where it cannot be written, which is an error in the server's log.
    pub async fn add(&self, row: AuditRow) {
        self.write(move |state| state.append(&row)).await;
    }

    /// Adds a line about a key that was refused, or counts it where there are too many.
    pub async fn add_refusal(&self, mut row: AuditRow) {
        let write = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.is_told(row.at).then(|| {
                row.untold = std::mem::take(&mut state.untold);
                move |state: &mut State| state.append(&row)
            })
        };
        if let Some(write) = write {
            self.write(write).await;
        }
    }

    async fn write(&self, write: impl FnOnce(&mut State) -> io::Result<()> + Send + 'static) {
        let state = Arc::clone(&self.state);
        let written = tokio::task::spawn_blocking(move || {
            write(&mut state.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a line of audit.jsonl cannot be written"),
            Err(error) => tracing::error!(%error, "writing audit.jsonl panicked"),
        }
    }
}

impl State {
    fn is_told(&mut self, at: i64) -> bool {
        let minute = at.div_euclid(MINUTE_MILLIS);
        if self.told.0 != minute {
            self.told = (minute, 0);
        }
        if self.told.1 == REFUSALS_PER_MINUTE_MAX {
            self.untold += 1;
            return false;
        }
        self.told.1 += 1;
        true
    }

    fn append(&mut self, row: &AuditRow) -> io::Result<()> {
        let mut line = serde_json::to_vec(row)?;
        line.push(b'\n');
        let num_bytes = line.len() as u64; // widening
        if self.bytes + num_bytes > self.bytes_max && self.bytes > 0 {
            let current = self.dir.join("audit.jsonl");
            std::fs::rename(current, self.dir.join("audit.older.jsonl"))?;
            self.file = open_file(&self.dir)?;
            self.bytes = 0;
        }
        self.file.write_all(&line)?;
        self.bytes += num_bytes;
        self.file.sync_data()
    }
}

fn open_file(dir: &Path) -> io::Result<File> {
    let path = dir.join("audit.jsonl");
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    sync_dir(dir)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at: i64, what: &str) -> AuditRow {
        AuditRow {
            at,
            role: Some(Role::Admin),
            client: Some(IpAddr::from([127, 0, 0, 1])),
            what: what.to_owned(),
            outcome: "done".to_owned(),
            untold: 0,
        }
    }

    fn lines(dir: &Path, name: &str) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(dir.join(name)).expect("there");
        let parsed = text.lines().map(serde_json::from_str);
        parsed.collect::<Result<_, _>>().expect("JSON Lines")
    }

    #[tokio::test]
    async fn lines_stay_over_a_restart_and_one_older_file_is_kept() {
        let dir = tempfile::tempdir().expect("temp dir");
        for number in 0..20 {
            let log = AuditLog::open_bounded(dir.path(), 500).expect("opens");
            log.add(row(number, "rollback to version 4")).await;
        }
        let (older, newer) = (
            lines(dir.path(), "audit.older.jsonl"),
            lines(dir.path(), "audit.jsonl"),
        );
        assert_eq!(newer.last().expect("a line")["at"], 19);
        assert_eq!(
            newer[0]["at"].as_i64(),
            older.last().and_then(|row| Some(row["at"].as_i64()? + 1))
        );
        assert_eq!(
            (&newer[0]["role"], &newer[0]["client"]),
            (&"admin".into(), &"127.0.0.1".into())
        );
        for name in ["audit.jsonl", "audit.older.jsonl"] {
            let bytes = std::fs::metadata(dir.path().join(name))
                .expect("there")
                .len();
            assert!(bytes <= 500, "{name} has {bytes} bytes");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 2);
    }

    #[tokio::test]
    async fn of_many_refused_keys_some_are_told_and_the_others_counted() {
        let dir = tempfile::tempdir().expect("temp dir");
        let log = AuditLog::open(dir.path()).expect("opens");
        for _ in 0..REFUSALS_PER_MINUTE_MAX + 7 {
            log.add_refusal(row(1000, "GET /v1/status")).await;
        }
        log.add_refusal(row(1000 + MINUTE_MILLIS, "GET /v1/status"))
            .await;
        let lines = lines(dir.path(), "audit.jsonl");
        assert_eq!(lines.len() as u64, REFUSALS_PER_MINUTE_MAX + 1);
        assert_eq!(lines.last().expect("a line")["untold"], 7);
    }
}
