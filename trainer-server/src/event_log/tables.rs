//! The tables of the log and what is read from and written to them.
//!
//! ```text
//! records  offset u64              → JSON of LogRecord
//! ids      first 16 bytes of BLAKE3(event id) → (offset u64, received_at i64)
//! items    item id                 → offset u64 of its last put
//! erasures offset u64              → user hash, of the erasures in `records`
//! meta     "format", "pruned_through", "erased_through", "expired_through", "rewrites" → u64
//! ```
//! A log has the lowest format that can hold what is in it: 2 once there is a tombstone or an erasure, else 1.
//!
//!
//! Ids are hashed so that every key has 16 bytes: two of a billion ids collide with probability 1e-21.
//! They are forgotten in log order, a few per transaction, so that no commit ever pauses for it.

use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition,
    TableError, WriteTransaction,
};
use shared_model::event::Item;
use shared_model::ids::LogOffset;

use super::tombstone::{IdHash, RememberedId};
use super::{AppendOutcome, EventLogError, LogRecord};

pub(super) const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
const IDS: TableDefinition<[u8; 16], (u64, i64)> = TableDefinition::new("ids");
const ITEMS: TableDefinition<&str, u64> = TableDefinition::new("items");
pub(super) const ERASURES: TableDefinition<u64, [u8; 16]> = TableDefinition::new("erasures");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Newest format that this build reads.
pub const FORMAT: u64 = 2;
/// Format without tombstones and erasures.
pub(super) const FORMAT_PLAIN: u64 = 1;
pub(super) const FORMAT_KEY: &str = "format";
/// One past the last record whose id is forgotten.
pub(super) const PRUNED_KEY: &str = "pruned_through";
/// One past the last erasure that was carried out.
pub(super) const ERASED_KEY: &str = "erased_through";
/// One past the last record before which retention has left no event.
pub(super) const EXPIRED_KEY: &str = "expired_through";
/// Names all rewrites so far.
pub(super) const REWRITES_KEY: &str = "rewrites";

/// Ids forgotten per transaction beyond twice the records it adds.
const PRUNE_RECORDS_MIN: u64 = 64;

/// A record ready to be written.
pub(super) struct EncodedRecord {
    pub(super) bytes: Vec<u8>,
    key: RecordKey,
}

enum RecordKey {
    Event { id_hash: IdHash, received_at: i64 },
    ItemPut(String),
    ItemDelete(String),
    Tombstone(Option<RememberedId>),
    UserErased(IdHash),
}

impl EncodedRecord {
    pub(super) fn new(record: &LogRecord) -> Self {
        let bytes = serde_json::to_vec(record).expect("records are plain values with text keys");
        Self::of(record, bytes)
    }

    /// Of a record with the bytes that it was decoded from.
    pub(super) fn of(record: &LogRecord, bytes: Vec<u8>) -> Self {
        let key = match record {
            LogRecord::Event(stored) => RecordKey::Event {
                id_hash: IdHash::of(stored.event.event_id.as_str()),
                received_at: stored.received_at,
            },
            LogRecord::ItemPut(item) => RecordKey::ItemPut(item.item_id.as_str().to_owned()),
            LogRecord::ItemDelete(item_id) => RecordKey::ItemDelete(item_id.as_str().to_owned()),
            LogRecord::Tombstone(id) => RecordKey::Tombstone(*id),
            LogRecord::UserErased(erasure) => RecordKey::UserErased(erasure.user_hash),
        };
        Self { bytes, key }
    }

    /// Whether format 1 lacks it.
    fn needs_format_2(&self) -> bool {
        matches!(self.key, RecordKey::Tombstone(_) | RecordKey::UserErased(_))
    }
}

pub(super) fn storage(error: impl Into<redb::Error>) -> EventLogError {
    EventLogError::Storage(Arc::new(error.into()))
}

/// Opens or creates the file and all tables.
pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Database, EventLogError> {
    let database = Database::builder()
        .set_cache_size(cache_bytes)
        .create(path)
        .map_err(storage)?;
    let format = create_tables(&database).map_err(EventLogError::from)?;
    if !(FORMAT_PLAIN..=FORMAT).contains(&format) {
        return Err(EventLogError::Format {
            actual: format,
            expected: FORMAT,
        });
    }
    Ok(database)
}

fn create_tables(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let format = {
        transaction.open_table(RECORDS)?;
        transaction.open_table(IDS)?;
        transaction.open_table(ITEMS)?;
        transaction.open_table(ERASURES)?;
        let mut meta = transaction.open_table(META)?;
        let stored = meta.get(FORMAT_KEY)?.map(|guard| guard.value());
        if stored.is_none() {
            meta.insert(FORMAT_KEY, FORMAT_PLAIN)?;
        }
        stored.unwrap_or(FORMAT_PLAIN)
    };
    transaction.commit()?;
    Ok(format)
}

impl From<redb::Error> for EventLogError {
    fn from(error: redb::Error) -> Self {
        Self::Storage(Arc::new(error))
    }
}

/// One past the last record.
pub(super) fn end(database: &Database) -> Result<LogOffset, EventLogError> {
    let transaction = database.begin_read().map_err(storage)?;
    let records = open_records(&transaction)?;
    end_of(&records).map(LogOffset).map_err(storage)
}

/// One past the last record.
pub(super) fn end_of(
    records: &impl ReadableTable<u64, &'static [u8]>,
) -> Result<u64, redb::StorageError> {
    let last = records.last()?;
    Ok(last.map_or(0, |(offset, _)| offset.value() + 1))
}

pub(super) fn open_records(
    transaction: &ReadTransaction,
) -> Result<redb::ReadOnlyTable<u64, &'static [u8]>, EventLogError> {
    transaction
        .open_table(RECORDS)
        .map_err(|error: TableError| storage(error))
}

/// See [`super::EventLog::read`].
pub(super) fn read(
    database: &Database,
    from: LogOffset,
    limit: usize,
) -> Result<Vec<(LogOffset, LogRecord)>, EventLogError> {
    let transaction = database.begin_read().map_err(storage)?;
    let records = open_records(&transaction)?;
    let mut list = Vec::new();
    for entry in records.range(from.0..).map_err(storage)?.take(limit) {
        let (offset, bytes) = entry.map_err(storage)?;
        let offset = LogOffset(offset.value());
        list.push((offset, decode(offset, bytes.value())?));
    }
    Ok(list)
}

pub(super) fn decode(offset: LogOffset, bytes: &[u8]) -> Result<LogRecord, EventLogError> {
    serde_json::from_slice(bytes).map_err(|error| EventLogError::Malformed {
        offset,
        detail: error.to_string(),
    })
}

/// See [`super::EventLog::items`].
pub(super) fn items(database: &Database) -> Result<Vec<(LogOffset, Item)>, EventLogError> {
    let transaction = database.begin_read().map_err(storage)?;
    let table = transaction.open_table(ITEMS).map_err(storage)?;
    let records = open_records(&transaction)?;
    let mut offsets = Vec::new();
    for entry in table.iter().map_err(storage)? {
        offsets.push(entry.map_err(storage)?.1.value());
    }
    offsets.sort_unstable();
    let mut list = Vec::with_capacity(offsets.len());
    for offset in offsets {
        let bytes = records.get(offset).map_err(storage)?;
        let offset = LogOffset(offset);
        let record = bytes
            .map(|bytes| decode(offset, bytes.value()))
            .transpose()?;
        let Some(LogRecord::ItemPut(item)) = record else {
            let detail = "the items table points at a record that puts no item".to_owned();
            return Err(EventLogError::Malformed { offset, detail });
        };
        list.push((offset, item));
    }
    Ok(list)
}

/// Writes all batches in one synced transaction; outcomes per batch, and the new end. Where the log ends before is
/// read from the table itself: what a writer remembers may be behind what a failed sync has left on disk.
pub(super) fn commit(
    database: &Database,
    batches: &[&[EncodedRecord]],
    id_memory_millis: i64,
) -> Result<(Vec<Vec<AppendOutcome>>, LogOffset), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let mut outcomes = Vec::with_capacity(batches.len());
    let (start, end) = {
        let records = transaction.open_table(RECORDS)?;
        let start = end_of(&records)?;
        let mut group = Group::open(&transaction, records, start)?;
        for batch in batches {
            let batch: Result<Vec<_>, _> = batch.iter().map(|record| group.add(record)).collect();
            outcomes.push(batch?);
        }
        if group.end > start {
            let mut meta = transaction.open_table(META)?;
            let pruned = meta.get(PRUNED_KEY)?.map_or(0, |guard| guard.value());
            let budget = PRUNE_RECORDS_MIN + 2 * (group.end - start);
            let cutoff = group.newest_received_at.saturating_sub(id_memory_millis);
            if group.needs_format_2 {
                meta.insert(FORMAT_KEY, FORMAT)?;
            }
            let pruned_through = group.prune(pruned, budget, cutoff)?;
            if pruned_through != pruned {
                meta.insert(PRUNED_KEY, pruned_through)?;
            }
        }
        (start, group.end)
    };
    if end == start {
        transaction.abort()?; // all duplicates: nothing changed, so no sync is needed
    } else {
        transaction.commit()?;
    }
    Ok((outcomes, LogOffset(end)))
}

/// The open tables of one transaction.
pub(super) struct Group<'txn> {
    records: Table<'txn, u64, &'static [u8]>,
    ids: Table<'txn, [u8; 16], (u64, i64)>,
    items: Table<'txn, &'static str, u64>,
    erasures: Table<'txn, u64, [u8; 16]>,
    pub(super) end: u64,
    newest_received_at: i64,
    /// Whether something was added that format 1 lacks.
    pub(super) needs_format_2: bool,
}

impl<'txn> Group<'txn> {
    /// The tables of a transaction that continues at `end`.
    pub(super) fn open(
        transaction: &'txn WriteTransaction,
        records: Table<'txn, u64, &'static [u8]>,
        end: u64,
    ) -> Result<Self, redb::Error> {
        Ok(Self {
            records,
            ids: transaction.open_table(IDS)?,
            items: transaction.open_table(ITEMS)?,
            erasures: transaction.open_table(ERASURES)?,
            end,
            newest_received_at: i64::MIN,
            needs_format_2: false,
        })
    }

    fn add(&mut self, record: &EncodedRecord) -> Result<AppendOutcome, redb::Error> {
        if let RecordKey::Event { id_hash, .. } = &record.key {
            let known = self.ids.get(&id_hash.0)?.map(|guard| guard.value().0);
            if let Some(first) = known {
                return Ok(AppendOutcome::Duplicate(LogOffset(first)));
            }
        }
        let offset = self.end;
        self.put(record, true)?;
        Ok(AppendOutcome::Accepted(LogOffset(offset)))
    }

    /// Writes the next record, known before or not; `is_id_remembered` says whether its id is still to be known.
    pub(super) fn put(
        &mut self,
        record: &EncodedRecord,
        is_id_remembered: bool,
    ) -> Result<(), redb::Error> {
        let offset = self.end;
        match &record.key {
            RecordKey::Event {
                id_hash,
                received_at,
            }
            | RecordKey::Tombstone(Some(RememberedId {
                id_hash,
                received_at,
            })) => {
                if is_id_remembered {
                    self.ids.insert(id_hash.0, (offset, *received_at))?;
                }
                self.newest_received_at = self.newest_received_at.max(*received_at);
            }
            RecordKey::ItemPut(item_id) => {
                self.items.insert(item_id.as_str(), offset)?;
            }
            RecordKey::ItemDelete(item_id) => {
                self.items.remove(item_id.as_str())?;
            }
            RecordKey::Tombstone(None) => {}
            RecordKey::UserErased(user_hash) => {
                self.erasures.insert(offset, user_hash.0)?;
            }
        }
        self.records.insert(offset, record.bytes.as_slice())?;
        self.needs_format_2 |= record.needs_format_2();
        self.end += 1;
        Ok(())
    }

    /// Forgets the ids of up to `budget` records from `pruned` on that came before `cutoff`.
    fn prune(&mut self, pruned: u64, budget: u64, cutoff: i64) -> Result<u64, redb::Error> {
        let mut offset = pruned;
        let last = self.end.min(pruned.saturating_add(budget));
        while offset < last {
            let Some(id_hash) = self.expired_id(offset, cutoff)? else {
                break;
            };
            if let Some(id_hash) = id_hash {
                self.ids.remove(id_hash)?;
            }
            offset += 1;
        }
        Ok(offset)
    }

    /// `None`: stop here; `Some(None)`: no id to forget at this offset.
    fn expired_id(
        &self,
        offset: u64,
        cutoff: i64,
    ) -> Result<Option<Option<[u8; 16]>>, redb::Error> {
        let Some(bytes) = self.records.get(offset)? else {
            return Ok(Some(None));
        };
        let (id_hash, received_at) = match decode(LogOffset(offset), bytes.value()) {
            Ok(LogRecord::Event(stored)) => {
                let id_hash = IdHash::of(stored.event.event_id.as_str());
                (id_hash.0, stored.received_at)
            }
            Ok(LogRecord::Tombstone(Some(id))) => (id.id_hash.0, id.received_at),
            // The others have no id, and a damaged record is reported by readers.
            Ok(
                LogRecord::ItemPut(_)
                | LogRecord::ItemDelete(_)
                | LogRecord::Tombstone(None)
                | LogRecord::UserErased(_),
            )
            | Err(_) => return Ok(Some(None)),
        };
        if received_at >= cutoff {
            return Ok(None);
        }
        let known = self.ids.get(&id_hash)?.map(|guard| guard.value().0);
        Ok(Some((known == Some(offset)).then_some(id_hash)))
    }
}
