//! Taking events out for good: the log is written anew beside itself, with tombstones in their place, then swapped.
//!
//! ```text
//! read view ──copy, 16,384 records at a time──► .unfinished-events.redb     the writer goes on meanwhile
//!     again with what was appended since, until little is left
//! hold the writer ──copy the rest──► sync ──rename over events.redb──► the store goes on with the copy
//! ```
//!
//! A store that reuses pages would keep what was erased in pages that are free; a new file never had it.
//! A crash leaves the log as it was: what is half-written is removed at the next start, and what was to be erased is
//! still listed in the log. Needs room for a second log.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use serde::Serialize;
use shared_model::ids::{ItemId, LogOffset};

use super::copy::{LogCopy, pseudonyms_meta};
use super::tables::{
    self, ERASED_KEY, EXPIRED_KEY, EncodedRecord, FORMAT_KEY, FORMAT_PLAIN, REWRITES_KEY, storage,
};
use super::tombstone::{IdHash, RememberedId, Rewritten};
use super::view::LogView;
use super::{EventLog, EventLogConfig, EventLogError, LOG_FILE_NAME, LogRecord, StoredEvent};

/// Records per step of the copy.
const STEP_RECORDS: usize = 16_384;
const STEP_BYTES: usize = 16 << 20;
/// Records that may be left for the time in which the writer waits.
const REST_RECORDS_MAX: u64 = 4096;
/// Events go by retention once the oldest is this much over it, so that a log is not rewritten for a few.
const EXPIRY_SLACK_MILLIS: i64 = 86_400_000;
/// Rounds of the copy before the writer waits all the same, where events come faster than they are copied.
const ROUNDS_MAX: usize = 16;
/// Stands for a tombstone in format 1.
const PLACEHOLDER_ITEM: &str = "freshet-tombstone";

fn unfinished(data_dir: &Path) -> PathBuf {
    data_dir.join(format!(".unfinished-{LOG_FILE_NAME}"))
}

/// Removes what a crash left of a copy.
pub(super) fn remove_unfinished(data_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(unfinished(data_dir)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()), // there was none
    }
}

/// What becomes of the record at an offset on its way into a copy.
pub(super) type Pass<'a> = dyn FnMut(u64, Vec<u8>) -> Result<EncodedRecord, EventLogError> + 'a;

/// What becomes of records on their way into the copy.
struct Forgetting {
    /// One past the last event of the user that goes.
    through: HashMap<IdHash, u64>,
    /// Events taken in before this go.
    received_before: i64,
    /// Ids of what was taken in before this need not be known again.
    id_cutoff: i64,
    done: Rewritten,
}

impl Forgetting {
    fn pass(&mut self, offset: u64, bytes: Vec<u8>) -> Result<EncodedRecord, EventLogError> {
        let id = match tables::decode(LogOffset(offset), &bytes)? {
            LogRecord::Event(stored) if self.is_forgotten(offset, &stored) => RememberedId {
                id_hash: IdHash::of(stored.event.event_id.as_str()),
                received_at: stored.received_at,
            },
            LogRecord::Tombstone(Some(id)) => id,
            kept @ (LogRecord::Event(_)
            | LogRecord::ItemPut(_)
            | LogRecord::ItemDelete(_)
            | LogRecord::Tombstone(None)
            | LogRecord::UserErased(_)) => return Ok(EncodedRecord::of(&kept, bytes)),
        };
        let remembered = Some(id).filter(|id| id.received_at >= self.id_cutoff);
        Ok(EncodedRecord::new(&LogRecord::Tombstone(remembered)))
    }

    fn is_forgotten(&mut self, offset: u64, stored: &StoredEvent) -> bool {
        let is_erased = !self.through.is_empty() && {
            let through = self.through.get(&IdHash::of_user(&stored.event.user_id));
            through.is_some_and(|through| offset < *through)
        };
        let is_expired = !is_erased && stored.received_at < self.received_before;
        self.done.num_erased += u64::from(is_erased);
        self.done.num_expired += u64::from(is_expired);
        is_erased || is_expired
    }
}

impl EventLog {
    /// Carries out erasures that were ordered, and takes out events taken in before `received_before`, in milliseconds
    /// since 1970-01-01 UTC. Does nothing where there is nothing to do; the writer waits for the last few records only.
    ///
    /// # Errors
    /// The store failed, as on a full disk; the log is as it was.
    pub fn rewrite(&self, received_before: Option<i64>) -> Result<Rewritten, EventLogError> {
        let rewriting = self.shared.rewriting.lock();
        let _one_at_a_time = rewriting.unwrap_or_else(PoisonError::into_inner);
        let view = self.view()?;
        let pending = view.pending_erasures()?;
        let expired = match received_before {
            Some(cutoff)
                if oldest_received_at(&view)? < cutoff.saturating_sub(EXPIRY_SLACK_MILLIS) =>
            {
                received_before
            }
            Some(_) | None => None,
        };
        if pending.is_empty() && expired.is_none() {
            return Ok(Rewritten {
                end: view.end(),
                ..Rewritten::default()
            });
        }
        let expired_through = match expired {
            Some(cutoff) => first_event_since(&view, cutoff)?,
            None => view.expired_through()?,
        };
        let [format, pseudonyms] = pseudonyms_meta(view.pseudonyms()?);
        let meta = [
            format,
            pseudonyms,
            (REWRITES_KEY, fingerprint(&view, &pending, expired)?),
            (ERASED_KEY, view.end().0),
            (EXPIRED_KEY, expired_through),
        ];
        let mut forgetting = Forgetting {
            through: HashMap::new(),
            received_before: expired.unwrap_or(i64::MIN),
            id_cutoff: newest_received_at(&view)?.saturating_sub(self.shared.id_memory_millis),
            done: Rewritten::default(),
        };
        for (offset, user_hash) in pending {
            forgetting.through.insert(user_hash, offset); // the last one counts
        }
        drop(view);
        let id_cutoff = forgetting.id_cutoff;
        let mut pass = |offset, bytes| forgetting.pass(offset, bytes);
        let end = self.copy_and_swap(id_cutoff, &mut pass, &meta)?;
        forgetting.done.end = end;
        Ok(forgetting.done)
    }

    /// Copies all records as `pass` gives them on, and goes on with the copy; its end. The caller holds `rewriting`.
    pub(super) fn copy_and_swap(
        &self,
        id_cutoff: i64,
        pass: &mut Pass<'_>,
        meta: &[(&str, u64)],
    ) -> Result<LogOffset, EventLogError> {
        let path = unfinished(self.shared.store.path().parent().unwrap_or(Path::new(".")));
        let copied = self.copy_to(&path, id_cutoff, pass, meta);
        if copied.is_err() {
            std::fs::remove_file(&path).ok(); // the error that is told is the first one
        }
        copied
    }

    fn copy_to(
        &self,
        path: &Path,
        id_cutoff: i64,
        pass: &mut Pass<'_>,
        meta: &[(&str, u64)],
    ) -> Result<LogOffset, EventLogError> {
        let store = &self.shared.store;
        let mut copy = LogCopy::create_at(path, id_cutoff)?;
        for _ in 0..ROUNDS_MAX {
            append(&mut copy, self, pass)?;
            if self.end().0.saturating_sub(copy.end().0) <= REST_RECORDS_MAX {
                break;
            }
        }
        copy.flush()?;
        let held = store.hold();
        append(&mut copy, self, pass)?;
        let end = copy.end();
        let database = copy.into_database(meta)?;
        let io = |error: std::io::Error| storage(redb::Error::Io(error));
        std::fs::rename(path, store.path()).map_err(io)?;
        store.swap(database);
        drop(held);
        let dir = path.parent().unwrap_or(Path::new("."));
        crate::publish::files::sync_dir(dir).map_err(io)?;
        Ok(end)
    }
}

/// Copies what the log has beyond the copy. A view for each step, since one that lives for long would keep the store from
/// being opened again.
fn append(copy: &mut LogCopy, log: &EventLog, pass: &mut Pass<'_>) -> Result<(), EventLogError> {
    let end = log.view()?.end();
    while copy.end() < end {
        let raw = log.view()?.raw(copy.end(), STEP_RECORDS, STEP_BYTES)?;
        let mut passed = Vec::with_capacity(raw.len());
        for (bytes, offset) in raw.into_iter().zip(copy.end().0..) {
            passed.push(pass(offset, bytes)?);
        }
        copy.put(passed)?;
    }
    Ok(())
}

/// Names all rewrites so far, of which two logs that began alike may have had different ones.
pub(super) fn fingerprint(
    view: &LogView,
    pending: &[(u64, IdHash)],
    received_before: Option<i64>,
) -> Result<u64, EventLogError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&view.rewrites()?.to_le_bytes());
    hasher.update(&received_before.unwrap_or(i64::MIN).to_le_bytes());
    for (offset, user_hash) in pending {
        hasher.update(&offset.to_le_bytes()).update(&user_hash.0);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Ok(u64::from_le_bytes(first))
}

/// When the oldest event that is kept was taken in; `i64::MAX` where there is none.
fn oldest_received_at(view: &LogView) -> Result<i64, EventLogError> {
    let mut oldest = i64::MAX;
    find_event(view, |_, received_at| {
        oldest = received_at;
        true
    })?;
    Ok(oldest)
}

/// When the newest of the last events was taken in; `i64::MIN` where there is none, so that no id is old.
fn newest_received_at(view: &LogView) -> Result<i64, EventLogError> {
    let from = view.end().0.saturating_sub(STEP_RECORDS as u64);
    let mut newest = i64::MIN;
    view.walk(LogOffset(from), |_, record| {
        if let LogRecord::Event(stored) = record {
            newest = newest.max(stored.received_at);
        }
        Ok::<_, EventLogError>(())
    })?;
    Ok(newest)
}

/// Offset of the first event that retention leaves.
fn first_event_since(view: &LogView, cutoff: i64) -> Result<u64, EventLogError> {
    let mut first = view.end().0;
    find_event(view, |offset, received_at| {
        let is_kept = received_at >= cutoff;
        if is_kept {
            first = offset;
        }
        is_kept
    })?;
    Ok(first)
}

/// Offers events in order until one is taken.
pub(super) fn find_event(
    view: &LogView,
    mut is_found: impl FnMut(u64, i64) -> bool,
) -> Result<(), EventLogError> {
    let mut at = view.expired_through()?;
    while at < view.end().0 {
        let raw = view.raw(LogOffset(at), STEP_RECORDS, STEP_BYTES)?;
        for bytes in raw {
            if let LogRecord::Event(stored) = tables::decode(LogOffset(at), &bytes)?
                && is_found(at, stored.received_at)
            {
                return Ok(());
            }
            at += 1;
        }
    }
    Ok(())
}

/// What a log lost by going back to format 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Downgraded {
    /// Tombstones that became deletions of an item that never was; their events count as new when they are sent again.
    pub num_tombstones: u64,
    /// Erasures that were carried out, and are no longer listed.
    pub num_erasures: u64,
    /// One past the last record.
    pub end: LogOffset,
}

/// Writes the log of a folder that no server uses in format 1, which the version before reads. Offsets stay.
///
/// # Errors
/// The log is in use or damaged, or the disk is full; the log is as it was.
pub fn downgrade(data_dir: &Path, config: &EventLogConfig) -> Result<Downgraded, EventLogError> {
    let log = EventLog::open(data_dir, config)?;
    log.rewrite(None)?; // format 1 cannot hold an erasure that is not carried out
    let view = log.view()?;
    if view.pseudonyms()? != 0 {
        return Err(EventLogError::Pseudonyms);
    }
    let mut copy = LogCopy::create_at(&unfinished(data_dir), i64::MIN)?;
    let mut lost = Downgraded::default();
    while copy.end() < view.end() {
        let raw = view.raw(copy.end(), STEP_RECORDS, STEP_BYTES)?;
        let mut plain = Vec::with_capacity(raw.len());
        for (bytes, offset) in raw.into_iter().zip(copy.end().0..) {
            plain.push(plain_record(LogOffset(offset), bytes, &mut lost)?);
        }
        copy.put(plain)?;
    }
    lost.end = copy.end();
    let meta = [
        (FORMAT_KEY, FORMAT_PLAIN),
        (REWRITES_KEY, fingerprint(&view, &[], None)?),
        (ERASED_KEY, view.end().0),
        (EXPIRED_KEY, view.expired_through()?),
    ];
    drop(copy.into_database(&meta)?);
    drop(view);
    log.shutdown();
    drop(log);
    let io = |error: std::io::Error| storage(redb::Error::Io(error));
    std::fs::rename(unfinished(data_dir), data_dir.join(LOG_FILE_NAME)).map_err(io)?;
    crate::publish::files::sync_dir(data_dir).map_err(io)?;
    Ok(lost)
}

fn plain_record(
    offset: LogOffset,
    bytes: Vec<u8>,
    lost: &mut Downgraded,
) -> Result<EncodedRecord, EventLogError> {
    let record = tables::decode(offset, &bytes)?;
    match record {
        LogRecord::Tombstone(_) => lost.num_tombstones += 1,
        LogRecord::UserErased(_) => lost.num_erasures += 1,
        LogRecord::Event(_) | LogRecord::ItemPut(_) | LogRecord::ItemDelete(_) => {
            return Ok(EncodedRecord::of(&record, bytes));
        }
    }
    let placeholder = ItemId::new(PLACEHOLDER_ITEM).expect("within the limits of ids");
    Ok(EncodedRecord::new(&LogRecord::ItemDelete(placeholder)))
}
