//! Ledger: one row per version and per refusal, for people who ask what an update did.
//!
//! JSON Lines in `ledger.jsonl`, each row synced right after the manifest of its version. The manifests are the
//! truth: at the start, versions that a crash left without a row get one from their manifest, and a torn last line
//! is dropped. A version has one row, whoever adds it how often. Bounded by `rollout.ledger_rows_max`, oldest first.
//! Rows that cannot be written, as on a full disk, stay in memory; the first that can be written brings them along.
//! Not here: what is published (`publish`), who asks (`http`), how codes are compared ([`movement`]).

pub mod difference;
pub mod movement;

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::ids::{LogOffset, Version};
use shared_model::manifest::{Channel, Manifest, VersionKind};

use crate::canary::{Evidence, Outcome, Reason};
use crate::gate::GateFigures;
use crate::publish::files::write_whole;
use movement::Movement;

const FILE_NAME: &str = "ledger.jsonl";
/// Longest line that is read: a row names few items and a bounded reason.
const ROW_BYTES_MAX: usize = 16 << 10;
/// Characters kept of a reason.
const REASON_LEN_MAX: usize = 500;

/// Who let a version out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The gate, and for a release its trial.
    Automatic,
    /// As before, a release that an operator had ordered to begin.
    Ordered,
    /// An operator, before the trial had ended.
    Promoted,
    /// An operator, who gave codes from a file.
    Uploaded,
    /// An operator, who went back.
    Rollback {
        /// The version whose codes it has.
        restored: Version,
    },
    /// The clock: the same codes under a manifest that expires later.
    Renewed,
    /// The end of a canary: the codes that everyone has, for its cohort too.
    TakenBack,
}

/// What is known of a version beyond its manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Provenance {
    /// Who let it out.
    pub origin: Origin,
    /// The name that the operator gave, where one gave the order.
    pub by: Option<String>,
    /// What the gate measured; `None` where it was not asked.
    pub gate: Option<GateFigures>,
}

impl Provenance {
    /// Let out without an operator.
    #[must_use]
    pub fn automatic(gate: Option<GateFigures>) -> Self {
        Self {
            origin: Origin::Automatic,
            by: None,
            gate,
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "row", rename_all = "snake_case")]
pub enum LedgerRow {
    /// A version that is out.
    Published(PublishedRow),
    /// A candidate that the gate refused.
    Refused {
        /// The newest version then.
        newest: Version,
        /// What it would have been.
        kind: VersionKind,
        /// Milliseconds since 1970-01-01 UTC.
        at: i64,
        /// What the gate said.
        reason: String,
        /// What it measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gate: Option<GateFigures>,
    },
    /// A canary that has ended.
    Canary {
        /// Its first version.
        first: Version,
        /// Its last version.
        newest: Version,
        /// Milliseconds since 1970-01-01 UTC.
        at: i64,
        /// Promoted or taken back.
        outcome: Outcome,
        /// Why.
        reason: Reason,
        /// The name that the operator gave who decided.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// What was known.
        evidence: Evidence,
    },
}

/// The row of a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PublishedRow {
    /// Its number.
    pub version: Version,
    /// Fast or release.
    pub kind: VersionKind,
    /// Who it is for.
    #[serde(default)]
    pub channel: Channel,
    /// Who let it out; unknown where a crash took the row.
    pub origin: Option<Origin>,
    /// The name that the operator gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What the gate measured; unknown where a crash took the row.
    pub gate: Option<GateFigures>,
    /// First log offset learned.
    pub learned_from: LogOffset,
    /// One past the last.
    pub learned_through: LogOffset,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at: i64,
    /// Size of its delta.
    pub delta_bytes: Option<u64>,
    /// Size of its snapshot.
    pub snapshot_bytes: Option<u64>,
    /// What moved; unknown where a crash took the row, and of the first version.
    pub movement: Option<Movement>,
}

impl PublishedRow {
    /// The row of a version.
    #[must_use]
    pub fn new(
        manifest: &Manifest,
        provenance: Option<Provenance>,
        movement: Option<Movement>,
    ) -> Self {
        let (origin, by, gate) = match provenance {
            Some(known) => (Some(known.origin), known.by, known.gate),
            None => (None, None, None),
        };
        Self {
            version: manifest.version,
            kind: manifest.kind,
            channel: manifest.channel,
            origin,
            by,
            gate,
            learned_from: manifest.learned_from,
            learned_through: manifest.learned_through,
            created_at: manifest.created_at,
            delta_bytes: manifest.delta.as_ref().map(|delta| delta.blob.bytes),
            snapshot_bytes: manifest.snapshot.as_ref().map(|blob| blob.bytes),
            movement,
        }
    }
}

impl LedgerRow {
    /// The row of a refusal.
    #[must_use]
    pub fn refused(
        newest: Version,
        kind: VersionKind,
        at: i64,
        reason: &str,
        gate: Option<GateFigures>,
    ) -> Self {
        Self::Refused {
            newest,
            kind,
            at,
            reason: reason.chars().take(REASON_LEN_MAX).collect(),
            gate,
        }
    }

    /// The version that is out.
    fn version(&self) -> Option<Version> {
        match self {
            Self::Published(row) => Some(row.version),
            Self::Refused { .. } | Self::Canary { .. } => None,
        }
    }

    /// The newest version when it was written: rows are in this order.
    fn newest(&self) -> Version {
        match self {
            Self::Published(row) => row.version,
            Self::Refused { newest, .. } | Self::Canary { newest, .. } => *newest,
        }
    }
}

/// A row and its number: rows are counted from the oldest that this start found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NumberedRow {
    /// Larger for newer rows; another one after a restart.
    pub number: u64,
    /// The row.
    #[serde(flatten)]
    pub row: LedgerRow,
}

/// Rows on disk and in memory; clones share them.
#[derive(Debug, Clone)]
pub struct Ledger {
    dir: PathBuf,
    rows_max: usize,
    rows: Arc<Mutex<Rows>>,
}

#[derive(Debug)]
struct Rows {
    /// Number of the first row.
    first: u64,
    /// Oldest first.
    rows: VecDeque<LedgerRow>,
    /// Whether the file lacks some of them, or ends within one.
    is_file_behind: bool,
}

impl Ledger {
    /// Reads the rows of `data_dir` and adds those of `manifests` that are missing; keeps the newest `rows_max`.
    ///
    /// # Errors
    /// The file cannot be read. That it cannot be written now is no reason not to start.
    pub fn open(data_dir: &Path, rows_max: usize, manifests: &[Manifest]) -> io::Result<Self> {
        let mut rows = read_rows(&data_dir.join(FILE_NAME), rows_max)?;
        let known: BTreeSet<Version> = rows.iter().filter_map(LedgerRow::version).collect();
        let missing = manifests.iter().filter(|one| !known.contains(&one.version));
        let row = |manifest| LedgerRow::Published(PublishedRow::new(manifest, None, None));
        rows.extend(missing.map(row));
        rows.sort_by_key(LedgerRow::newest); // stable, so refusals stay behind the version that they followed
        let ledger = Self {
            dir: data_dir.to_owned(),
            rows_max,
            rows: Arc::new(Mutex::new(Rows {
                first: 0,
                rows: rows.into(),
                is_file_behind: false,
            })),
        };
        if let Err(error) = ledger.rewrite(&mut ledger.lock()) {
            tracing::warn!(%error, "the ledger cannot be written now");
        }
        Ok(ledger)
    }

    /// Adds a row, durably; a version that has one keeps it.
    ///
    /// # Errors
    /// The file system failed; the row is in memory alone then, until one can be written.
    pub fn add(&self, row: LedgerRow) -> io::Result<()> {
        let mut kept = self.lock();
        let version = row.version();
        if version.is_some_and(|version| find(&kept.rows, version).is_some()) {
            return Ok(());
        }
        let mut line = serde_json::to_vec(&row).expect("plain values always serialize");
        line.push(b'\n');
        kept.rows.push_back(row);
        if kept.is_file_behind || kept.rows.len() >= 2 * self.rows_max {
            return self.rewrite(&mut kept);
        }
        let appended = self.append(&line);
        kept.is_file_behind = appended.is_err();
        appended
    }

    fn append(&self, line: &[u8]) -> io::Result<()> {
        let path = self.dir.join(FILE_NAME);
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(line)?;
        file.sync_all()
    }

    /// The newest rows with numbers below `before`, newest first.
    #[must_use]
    pub fn newest(&self, limit: usize, before: Option<u64>) -> Vec<NumberedRow> {
        let kept = self.lock();
        let numbered = (kept.first..).zip(&kept.rows);
        let mut found: Vec<(u64, &LedgerRow)> = numbered
            .take_while(|(number, _)| before.is_none_or(|before| *number < before))
            .collect();
        let num_older = found.len().saturating_sub(limit);
        let newest = found.split_off(num_older).into_iter().rev();
        newest
            .map(|(number, row)| NumberedRow {
                number,
                row: row.clone(),
            })
            .collect()
    }

    /// The row of a version.
    #[must_use]
    pub fn of(&self, version: Version) -> Option<PublishedRow> {
        find(&self.lock().rows, version).cloned()
    }

    /// The row of the version that was the first to learn what lies at `offset`; `None` where it is no longer kept.
    #[must_use]
    pub fn first_to_learn(&self, offset: LogOffset) -> Option<PublishedRow> {
        let kept = self.lock();
        let mut versions = kept.rows.iter().filter_map(|row| match row {
            LedgerRow::Published(row) => Some(row),
            LedgerRow::Refused { .. } | LedgerRow::Canary { .. } => None,
        });
        let found = versions.find(|row| row.learned_from <= offset && offset < row.learned_through);
        found.cloned()
    }

    fn rewrite(&self, kept: &mut Rows) -> io::Result<()> {
        let num_old = kept.rows.len().saturating_sub(self.rows_max);
        kept.rows.drain(..num_old);
        kept.first += num_old as u64; // usize fits u64
        let mut bytes = Vec::new();
        for row in &kept.rows {
            serde_json::to_writer(&mut bytes, row)?;
            bytes.push(b'\n');
        }
        let written = write_whole(&self.dir, FILE_NAME, &bytes);
        kept.is_file_behind = written.is_err();
        written
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows of a file; a line that is no row was torn by a crash, and is left out.
fn read_rows(path: &Path, rows_max: usize) -> io::Result<Vec<LedgerRow>> {
    let bytes_max = 2 * rows_max as u64 * ROW_BYTES_MAX as u64; // far below 2^63, see `config::check`
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
        Ok(found) if found.len() > bytes_max => {
            tracing::warn!(
                bytes = found.len(),
                "the ledger is not ours and begins anew"
            );
            return Ok(Vec::new()); // what the manifests tell is left
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path)?;
    let mut rows = Vec::new();
    let mut num_torn = 0_u32;
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(row) if line.len() <= ROW_BYTES_MAX => rows.push(row),
            Ok(_) | Err(_) => num_torn += 1,
        }
    }
    if num_torn > 0 {
        tracing::warn!(num_torn, "lines of the ledger are damaged and left out");
    }
    Ok(rows)
}

/// Looks from the newest on.
fn find(rows: &VecDeque<LedgerRow>, version: Version) -> Option<&PublishedRow> {
    rows.iter().rev().find_map(|row| match row {
        LedgerRow::Published(row) if row.version == version => Some(row),
        LedgerRow::Published(_) | LedgerRow::Refused { .. } | LedgerRow::Canary { .. } => None,
    })
}

#[cfg(test)]
mod tests;
