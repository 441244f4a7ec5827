//! The event log: everything that was accepted, in one order, on disk before it is acknowledged.
//!
//! ```text
//! append ──encode──► bounded channel ──► writer thread: drain, one transaction, fsync ──► reply
//!                     full: Backpressure                                   │
//!                                          watch / condvar: new end ◄──────┘
//! read, items ◄── read transactions, never blocked by the writer
//! ```
//!
//! Invariants: offsets are dense and rise by one per accepted record; an outcome is sent only after
//! the transaction that holds the record is synced; an event id is accepted once within
//! [`EventLogConfig::id_memory_secs`]. On a full disk the writer gives up the reserve (`reserve`) and tries once more;
//! what cannot be synced all the same is not acknowledged, and the log takes events again once there is room.
//! What is forgotten becomes a tombstone, so that offsets stay dense (`rewrite`).
//! Not here: whether an event makes sense (`http`, `preprocess`).

mod copy;
mod find;
mod ids;
mod pseudonyms;
mod rewrite;
mod store;
mod tables;
pub mod tombstone;
pub mod view;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::event::{Event, Item};
use shared_model::ids::{ItemId, LogOffset};
use tokio::sync::{oneshot, watch};

use crate::config::Config;
use crate::reserve::Reserve;
pub use copy::LogCopy;
pub use rewrite::{Downgraded, downgrade};
use store::Store;
use tables::EncodedRecord;
pub use tables::FORMAT;
use tombstone::{RememberedId, UserErasure};
use writer::AppendRequest;

/// Name of the log's file in the data directory.
pub const LOG_FILE_NAME: &str = "events.redb";

/// Largest encoded record, in bytes.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// An event with the time at which this server took it in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoredEvent {
    /// As posted, but for a pseudonym in place of the user id where `log.pseudonymous_ids` is set.
    pub event: Event,
    /// Milliseconds since 1970-01-01 UTC, by this server's clock.
    pub received_at: i64,
    /// Whether it came with a valid visit token of its user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_vouched: bool,
    /// Where user ids are pseudonyms, of an impression with an arm: the phase of the experiment in which the hash of the
    /// id that was sent gives that arm. Elsewhere it is found from the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm_phase: Option<u32>,
}

/// One entry of the log. Items are in it too, so that the trainer sees one order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogRecord {
    /// Feedback.
    Event(StoredEvent),
    /// A catalogue item, new or replaced.
    ItemPut(Item),
    /// A catalogue item taken away.
    ItemDelete(ItemId),
    /// An event that was taken out; its id is known for as long as ids are remembered. Since format 2.
    Tombstone(Option<RememberedId>),
    /// All events of a user before this are to be forgotten. Since format 2.
    UserErased(UserErasure),
}

/// What became of an appended record; both mean that it is safe on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Written at this offset.
    Accepted(LogOffset),
    /// An event whose id was accepted before, at this offset.
    Duplicate(LogOffset),
}

/// Why the log refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EventLogError {
    /// The queue is full; the sender should come back later.
    #[error("the log's queue is full at {queue_batches_max} batches")]
    Backpressure {
        /// Its capacity.
        queue_batches_max: usize,
    },
    /// The log is shutting down.
    #[error("the log is closed")]
    Closed,
    /// A record over [`RECORD_BYTES_MAX`].
    #[error(
        "record {record_idx} of the batch has {actual} bytes, at most {RECORD_BYTES_MAX} are allowed"
    )]
    RecordTooLarge {
        /// Position in the batch.
        record_idx: usize,
        /// Its size.
        actual: usize,
    },
    /// A stored record that cannot be read.
    #[error("record {offset} is malformed: {detail}")]
    Malformed {
        /// Its offset.
        offset: LogOffset,
        /// What is wrong.
        detail: String,
    },
    /// Written by another version of Freshet.
    #[error("the log has format {actual}, this build reads 1 to {expected}")]
    Format {
        /// Format of the file.
        actual: u64,
        /// Newest format that this build reads.
        expected: u64,
    },
    /// The directory could not be made.
    #[error("cannot use the data directory: {detail}: {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// Another process has it open.
    #[error("another freshet process uses this folder; stop it or choose another --data-dir")]
    InUse,
    /// Format 1 cannot say that user ids are pseudonyms.
    #[error("the log holds pseudonyms in place of user ids, of which format 1 knows nothing")]
    Pseudonyms,
    /// The store failed a moment ago and is opened again.
    #[error("the log's store is being opened again after a failure")]
    Reopening,
    /// The store failed; shared by all senders of a group.
    #[error("the log's store failed: {0}")]
    Storage(Arc<redb::Error>),
}

/// Sizes of the log.
#[derive(Debug, Clone)]
pub struct EventLogConfig {
    /// Batches that may wait.
    pub queue_batches_max: usize,
    /// Most records in one transaction (one batch may exceed it on its own).
    pub commit_records_max: usize,
    /// How long event ids are remembered.
    pub id_memory_secs: u64,
    /// Page cache.
    pub cache_bytes: usize,
}

impl EventLogError {
    /// Whether the disk was full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Storage(error) => matches!(&**error, redb::Error::Io(error) if is_full(error)),
            Self::Backpressure { .. }
            | Self::Closed
            | Self::RecordTooLarge { .. }
            | Self::Malformed { .. }
            | Self::Format { .. }
            | Self::Directory { .. }
            | Self::InUse
            | Self::Pseudonyms
            | Self::Reopening => false,
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

impl From<&Config> for EventLogConfig {
    fn from(config: &Config) -> Self {
        Self {
            queue_batches_max: config.server.queue_batches_max,
            commit_records_max: config.log.commit_records_max,
            id_memory_secs: config.log.id_memory_secs,
            cache_bytes: config.log.cache_bytes,
        }
    }
}

/// A batch in the queue.
#[must_use = "the batch is safe only once its outcomes are known"]
pub struct Pending {
    reply: Reply,
}

impl Pending {
    /// Waits until the batch is synced; one outcome per record in order.
    ///
    /// # Errors
    /// The transaction failed.
    pub async fn outcomes(self) -> Result<Vec<AppendOutcome>, EventLogError> {
        self.reply.await.unwrap_or(Err(EventLogError::Closed))
    }
}

/// Handle of the log; clones share it.
#[derive(Clone)]
pub struct EventLog {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<Store>,
    progress: Arc<Progress>,
    queue_batches_max: usize,
    id_memory_millis: i64,
    sender: RwLock<Option<SyncSender<AppendRequest>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// One rewrite at a time.
    rewriting: Mutex<()>,
}

/// What the writer tells the world.
struct Progress {
    end: watch::Sender<LogOffset>,
    blocking_end: Mutex<LogOffset>,
    moved: Condvar,
    is_writable: AtomicBool,
}

impl Progress {
    fn new(end: LogOffset) -> Self {
        Self {
            end: watch::Sender::new(end),
            blocking_end: Mutex::new(end),
            moved: Condvar::new(),
            is_writable: AtomicBool::new(true),
        }
    }

    fn advance(&self, end: LogOffset) {
        *self
            .blocking_end
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = end;
        self.moved.notify_all();
        self.end.send_replace(end);
    }
}

impl EventLog {
    /// Opens or creates the log in `data_dir` and starts its writer.
    ///
    /// # Errors
    /// The directory cannot be made, the file is in use, damaged, or of another format.
    pub fn open(data_dir: &Path, config: &EventLogConfig) -> Result<Self, EventLogError> {
        Self::open_with(data_dir, config, None)
    }

    /// [`Self::open`] with a reserve to fall back on when the disk is full.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        data_dir: &Path,
        config: &EventLogConfig,
        reserve: Option<Arc<Reserve>>,
    ) -> Result<Self, EventLogError> {
        let directory = |error: std::io::Error| EventLogError::Directory {
            path: data_dir.to_owned(),
            detail: error.to_string(),
        };
        std::fs::create_dir_all(data_dir).map_err(directory)?;
        rewrite::remove_unfinished(data_dir).map_err(directory)?;
        let path = data_dir.join(LOG_FILE_NAME);
        let opened = Store::open(&path, config.cache_bytes);
        let store = match opened {
            // What a kill left is put in order first, and that takes room, too.
            Err(error)
                if error.is_disk_full() && reserve.as_ref().is_some_and(|one| one.give_up()) =>
            {
                Store::open(&path, config.cache_bytes)
            }
            opened => opened,
        };
        let store = Arc::new(store?);
        // The name of a new file must survive a power loss as well as its bytes.
        std::fs::File::open(data_dir)
            .and_then(|dir| dir.sync_all())
            .map_err(directory)?;
        let progress = Arc::new(Progress::new(tables::end(&*store.database()?)?));
        let ids = tables::recent_ids(&*store.database()?)?;
        let (sender, receiver) = sync_channel(config.queue_batches_max);
        let id_memory_millis = i64::try_from(config.id_memory_secs)
            .unwrap_or(i64::MAX)
            .saturating_mul(1000);
        let writer = writer::Writer {
            store: Arc::clone(&store),
            reserve,
            progress: Arc::clone(&progress),
            receiver,
            ids: Some(ids),
            commit_records_max: config.commit_records_max,
            id_memory_millis,
        };
        let thread = std::thread::Builder::new()
            .name("event-log".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| EventLogError::Storage(Arc::new(redb::Error::Io(error))))?;
        let shared = Shared {
            store,
            progress,
            queue_batches_max: config.queue_batches_max,
            sender: RwLock::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            id_memory_millis,
            rewriting: Mutex::new(()),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Appends a batch; returns once it is synced, with one outcome per record in order.
    ///
    /// # Errors
    /// `Backpressure` at once when the queue is full; a failed transaction fails the whole batch.
    pub async fn append(
        &self,
        records: Vec<LogRecord>,
    ) -> Result<Vec<AppendOutcome>, EventLogError> {
        self.enqueue(&records)?.outcomes().await
    }

    /// The first half of [`Self::append`], for a thread that may be busy for some milliseconds:
    /// encodes the batch and puts it into the queue.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn enqueue(&self, records: &[LogRecord]) -> Result<Pending, EventLogError> {
        self.try_send(request(records)?)
    }

    /// As [`Self::enqueue`], but nothing is written: outcomes are what would become of the batch now, at the log's end.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn try_out(&self, records: &[LogRecord]) -> Result<Pending, EventLogError> {
        let (mut request, reply) = request(records)?;
        request.is_dry_run = true;
        self.try_send((request, reply))
    }

    fn try_send(&self, (request, reply): (AppendRequest, Reply)) -> Result<Pending, EventLogError> {
        match self.sender()?.try_send(request) {
            Ok(()) => Ok(Pending { reply }),
            Err(TrySendError::Full(_)) => Err(self.backpressure()),
            Err(TrySendError::Disconnected(_)) => Err(EventLogError::Closed),
        }
    }

    /// Like [`Self::append`] for threads that may block; waits for room in the queue.
    ///
    /// # Errors
    /// As [`Self::append`], without `Backpressure`.
    pub fn append_blocking(
        &self,
        records: &[LogRecord],
    ) -> Result<Vec<AppendOutcome>, EventLogError> {
        let (request, reply) = request(records)?;
        if self.sender()?.send(request).is_err() {
            return Err(EventLogError::Closed);
        }
        reply.blocking_recv().unwrap_or(Err(EventLogError::Closed))
    }

    /// Up to `limit` records from `from` on, in order.
    ///
    /// # Errors
    /// The store failed or a record is malformed.
    pub fn read(
        &self,
        from: LogOffset,
        limit: usize,
    ) -> Result<Vec<(LogOffset, LogRecord)>, EventLogError> {
        tables::read(&*self.shared.store.wait_for_database()?, from, limit)
    }

    /// The items in the catalogue with the offset of their last put, in log order.
    ///
    /// # Errors
    /// The store failed or a record is malformed.
    pub fn items(&self) -> Result<Vec<(LogOffset, Item)>, EventLogError> {
        tables::items(&*self.shared.store.database()?)
    }

    /// One past the last synced record.
    #[must_use]
    pub fn end(&self) -> LogOffset {
        *self.shared.progress.end.borrow()
    }

    /// Follows [`Self::end`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LogOffset> {
        self.shared.progress.end.subscribe()
    }

    /// Blocks until [`Self::end`] is beyond `offset` or `timeout` has passed; returns the end.
    #[must_use]
    pub fn wait_beyond(&self, offset: LogOffset, timeout: Duration) -> LogOffset {
        let progress = &self.shared.progress;
        let deadline = Instant::now() + timeout;
        let mut end = progress
            .blocking_end
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while *end <= offset {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let (guard, _) = progress
                .moved
                .wait_timeout(end, left)
                .unwrap_or_else(PoisonError::into_inner);
            end = guard;
        }
        *end
    }

    /// Whether the last transaction succeeded and the log is open.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.shared.progress.is_writable.load(Ordering::Relaxed) && self.sender().is_ok()
    }

    /// Takes no more appends, syncs what waits, and ends the writer. Reads go on working.
    pub fn shutdown(&self) {
        self.shared.close();
    }

    fn sender(&self) -> Result<SyncSender<AppendRequest>, EventLogError> {
        let sender = self
            .shared
            .sender
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        sender.clone().ok_or(EventLogError::Closed)
    }

    fn backpressure(&self) -> EventLogError {
        EventLogError::Backpressure {
            queue_batches_max: self.shared.queue_batches_max,
        }
    }
}

impl Shared {
    fn close(&self) {
        drop(
            self.sender
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the log's writer panicked");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

type Reply = oneshot::Receiver<Result<Vec<AppendOutcome>, EventLogError>>;

/// Encodes on the caller's thread, so that the writer only writes.
fn request(records: &[LogRecord]) -> Result<(AppendRequest, Reply), EventLogError> {
    let mut encoded = Vec::with_capacity(records.len());
    for (record_idx, record) in records.iter().enumerate() {
        let record = EncodedRecord::new(record);
        let actual = record.bytes.len();
        if actual > RECORD_BYTES_MAX {
            return Err(EventLogError::RecordTooLarge { record_idx, actual });
        }
        encoded.push(record);
    }
    Ok(request_of(encoded))
}

fn request_of(records: Vec<EncodedRecord>) -> (AppendRequest, Reply) {
    let (reply, receiver) = oneshot::channel();
    let request = AppendRequest {
        records,
        is_dry_run: false,
        reply,
    };
    (request, receiver)
}

#[cfg(test)]
mod tests;
