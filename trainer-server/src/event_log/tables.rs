//! The tables of the log and what is read from and written to them.
//!
//! ```text
//! records  offset u64              → JSON of LogRecord
//! ids      first 16 bytes of BLAKE3(event id) → (offset u64, received_at i64), without those of late (`ids`)
//! items    item id                 → offset u64 of its last put
//! erasures offset u64              → user hash, of the erasures in `records`
//! meta     "format", "ids_through", "erased_through", "expired_through", "rewrites", "pseudonyms" → u64; records before
//!          `ids_through` have their ids in the table
//! ```
//!
//! Ids are hashed so that every key has 16 bytes: two of a billion ids collide with probability 1e-21.
//! Format 1, in which every id was in the table at once, is made format 2 when it is opened. Format 3 is format 2 with
//! pseudonyms in place of user ids, so that a build that would not make them refuses it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, Table,
    TableDefinition, TableError, WriteTransaction,
};
use shared_model::event::Item;
use shared_model::ids::{EventId, LogOffset};

use super::ids::{self, IdKey, IdsTable, RecentIds, Seen, id_key};
use super::tombstone::{IdHash, RememberedId};
use super::{AppendOutcome, EventLogError, LogRecord};

pub(super) const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
const IDS: TableDefinition<[u8; 16], Seen> = TableDefinition::new("ids");
const ITEMS: TableDefinition<&str, u64> = TableDefinition::new("items");
pub(super) const ERASURES: TableDefinition<u64, [u8; 16]> = TableDefinition::new("erasures");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The format that this build writes.
pub const FORMAT: u64 = 2;
/// The same, with pseudonyms in place of user ids.
pub(super) const FORMAT_PSEUDONYMS: u64 = 3;
/// Without tombstones and erasures, and with every id in the table.
pub(super) const FORMAT_PLAIN: u64 = 1;
pub(super) const FORMAT_KEY: &str = "format";
/// One past the last record before which all ids are in the table.
pub(super) const IDS_THROUGH_KEY: &str = "ids_through";
/// One past the last erasure that was carried out.
pub(super) const ERASED_KEY: &str = "erased_through";
/// One past the last record before which retention has left no event.
pub(super) const EXPIRED_KEY: &str = "expired_through";
/// Names the key of the pseudonyms.
pub(super) const PSEUDONYMS_KEY: &str = "pseudonyms";
/// Names all rewrites so far.
pub(super) const REWRITES_KEY: &str = "rewrites";

/// A record ready to be written.
pub(super) struct EncodedRecord {
    pub(super) bytes: Vec<u8>,
    key: RecordKey,
}

/// What one sender wants in one transaction.
pub(super) struct Batch<'a> {
    pub(super) records: &'a [EncodedRecord],
    /// Whether only the outcomes are wanted.
    pub(super) is_dry_run: bool,
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

    /// Nothing to write: what asks whether an event is there already.
    pub(super) fn asking_for(event_id: &EventId, now_millis: i64) -> Self {
        let key = RecordKey::Event {
            id_hash: IdHash::of(event_id.as_str()),
            received_at: now_millis,
        };
        Self {
            bytes: Vec::new(),
            key,
        }
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
}

pub(super) fn storage(error: impl Into<redb::Error>) -> EventLogError {
    EventLogError::Storage(Arc::new(error.into()))
}

/// Opens or creates the file and all tables.
pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Database, EventLogError> {
    let database = Database::builder()
        .set_cache_size(cache_bytes)
        .create(path)
        .map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => EventLogError::InUse,
            other => storage(other),
        })?;
    let format = create_tables(&database).map_err(EventLogError::from)?;
    if format != FORMAT && format != FORMAT_PSEUDONYMS {
        return Err(EventLogError::Format {
            actual: format,
            expected: FORMAT_PSEUDONYMS,
        });
    }
    Ok(database)
}

/// Makes what is missing; the format that the file has then.
fn create_tables(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let format = {
        let records = transaction.open_table(RECORDS)?;
        transaction.open_table(IDS)?;
        transaction.open_table(ITEMS)?;
        transaction.open_table(ERASURES)?;
        let mut meta = transaction.open_table(META)?;
        let stored = meta.get(FORMAT_KEY)?.map(|guard| guard.value());
        match stored {
            Some(FORMAT_PLAIN) => {
                meta.insert(IDS_THROUGH_KEY, end_of(&records)?)?;
                meta.insert(FORMAT_KEY, FORMAT)?;
                FORMAT
            }
            Some(format) => format,
            None => {
                meta.insert(FORMAT_KEY, FORMAT)?;
                FORMAT
            }
        }
    };
    transaction.commit()?;
    Ok(format)
}

/// The ids that are not in their table yet.
pub(super) fn recent_ids(database: &Database) -> Result<RecentIds, EventLogError> {
    let transaction = database.begin_read().map_err(storage)?;
    let meta = transaction.open_table(META).map_err(storage)?;
    let through = meta.get(IDS_THROUGH_KEY).map_err(storage)?;
    let records = open_records(&transaction)?;
    let from = through.map_or(0, |guard| guard.value());
    let waiting = ids::ids_from(&records, from).map_err(storage)?;
    Ok(RecentIds::new(waiting, end_of(&records).map_err(storage)?))
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
    batches: &[Batch<'_>],
    recent: &mut RecentIds,
    id_memory_millis: i64,
) -> Result<(Vec<Vec<AppendOutcome>>, LogOffset), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let mut outcomes = Vec::with_capacity(batches.len());
    let tables = Tables::open(&transaction)?;
    let start = tables.end;
    let mut group = Group {
        tables,
        recent: &*recent,
        new_ids: BTreeMap::new(),
        newest_received_at: i64::MIN,
        id_memory_millis,
    };
    for batch in batches {
        outcomes.push(if batch.is_dry_run {
            group.try_out(batch.records)?
        } else {
            let added = batch.records.iter().map(|record| group.add(record));
            added.collect::<Result<_, _>>()?
        });
    }
    let end = group.tables.end;
    if end == start {
        drop(group);
        transaction.abort()?; // duplicates or dry runs alone: nothing changed, so no sync is needed
        return Ok((outcomes, LogOffset(end)));
    }
    let stretch = group.recent.stretch(group.new_ids.len());
    if let Some(stretch) = &stretch {
        let cutoff = group.newest_received_at.saturating_sub(id_memory_millis);
        stretch.merge(&mut group.tables.ids, cutoff)?;
        if let Some(through) = group.recent.complete_through(stretch) {
            transaction
                .open_table(META)?
                .insert(IDS_THROUGH_KEY, through)?;
        }
    }
    let new_ids = std::mem::take(&mut group.new_ids);
    drop(group);
    transaction.commit()?;
    recent.committed(new_ids, stretch, end);
    Ok((outcomes, LogOffset(end)))
}

/// The open tables of one transaction.
pub(super) struct Tables<'txn> {
    records: Table<'txn, u64, &'static [u8]>,
    ids: IdsTable<'txn>,
    items: Table<'txn, &'static str, u64>,
    erasures: Table<'txn, u64, [u8; 16]>,
    /// One past the last record.
    pub(super) end: u64,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        let records = transaction.open_table(RECORDS)?;
        Ok(Self {
            end: end_of(&records)?,
            records,
            ids: transaction.open_table(IDS)?,
            items: transaction.open_table(ITEMS)?,
            erasures: transaction.open_table(ERASURES)?,
        })
    }

    /// Writes the next record, known before or not; the id that is to be known from now on, which is not written yet.
    pub(super) fn put(
        &mut self,
        record: &EncodedRecord,
    ) -> Result<Option<(IdKey, Seen)>, redb::Error> {
        let offset = self.end;
        let mut id = None;
        match &record.key {
            RecordKey::Event {
                id_hash,
                received_at,
            }
            | RecordKey::Tombstone(Some(RememberedId {
                id_hash,
                received_at,
            })) => id = Some((id_key(*id_hash), (offset, *received_at))),
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
        self.end += 1;
        Ok(id)
    }

    /// Writes an id into its table.
    pub(super) fn remember(&mut self, id: IdKey, seen: Seen) -> Result<(), redb::Error> {
        self.ids.insert(id.to_be_bytes(), seen)?;
        Ok(())
    }
}

/// What one transaction adds.
struct Group<'a, 'txn> {
    tables: Tables<'txn>,
    recent: &'a RecentIds,
    new_ids: BTreeMap<IdKey, Seen>,
    newest_received_at: i64,
    id_memory_millis: i64,
}

impl Group<'_, '_> {
    fn add(&mut self, record: &EncodedRecord) -> Result<AppendOutcome, redb::Error> {
        if let RecordKey::Event {
            id_hash,
            received_at,
        } = &record.key
            && let Some(first) = self.seen(id_key(*id_hash), *received_at)?
        {
            return Ok(AppendOutcome::Duplicate(LogOffset(first)));
        }
        let offset = self.tables.end;
        if let Some((id, seen)) = self.tables.put(record)? {
            self.new_ids.insert(id, seen);
            self.newest_received_at = self.newest_received_at.max(seen.1);
        }
        Ok(AppendOutcome::Accepted(LogOffset(offset)))
    }

    /// What would become of these records if they came now.
    fn try_out(&self, records: &[EncodedRecord]) -> Result<Vec<AppendOutcome>, redb::Error> {
        let end = LogOffset(self.tables.end);
        let mut in_batch = BTreeSet::new();
        let mut outcomes = Vec::with_capacity(records.len());
        for record in records {
            let first = match &record.key {
                RecordKey::Event {
                    id_hash,
                    received_at,
                } => match self.seen(id_key(*id_hash), *received_at)? {
                    None if !in_batch.insert(*id_hash) => Some(end),
                    seen => seen.map(LogOffset),
                },
                RecordKey::ItemPut(_)
                | RecordKey::ItemDelete(_)
                | RecordKey::Tombstone(_)
                | RecordKey::UserErased(_) => None,
            };
            outcomes.push(first.map_or(AppendOutcome::Accepted(end), AppendOutcome::Duplicate));
        }
        Ok(outcomes)
    }

    /// Where the id was accepted before, unless that is forgotten by `now`.
    fn seen(&self, id: IdKey, now: i64) -> Result<Option<u64>, redb::Error> {
        let in_memory = self.new_ids.get(&id).copied();
        let seen = match in_memory.or_else(|| self.recent.get(id)) {
            Some(seen) => Some(seen),
            None => self
                .tables
                .ids
                .get(id.to_be_bytes())?
                .map(|guard| guard.value()),
        };
        let cutoff = now.saturating_sub(self.id_memory_millis);
        let remembered = seen.filter(|(_, received_at)| *received_at >= cutoff);
        Ok(remembered.map(|(offset, _)| offset))
    }
}

#[cfg(test)]
pub(super) fn num_ids_in_table(database: &Database) -> Result<u64, EventLogError> {
    use redb::ReadableTableMetadata;
    let transaction = database.begin_read().map_err(storage)?;
    let table = transaction.open_table(IDS).map_err(storage)?;
    table.len().map_err(storage)
}

/// Turns a log whose ids all wait into what builds before format 2 wrote.
#[cfg(test)]
pub(super) fn make_format_1(database: &Database, recent: &RecentIds) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(IDS)?;
        recent.stretch_of_all().merge(&mut table, i64::MIN)?;
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_KEY, 1)?;
        meta.insert("pruned_through", 3)?;
        meta.remove(IDS_THROUGH_KEY)?;
    }
    transaction.commit()?;
    Ok(())
}
