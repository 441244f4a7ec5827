//! One consistent view of the log: what was synced when it was opened, whatever is written or rewritten meanwhile.
//!
//! Pages that the view holds are not used again before it ends, so it should not live for long.

use std::sync::Arc;

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};
use shared_model::ids::{LogOffset, UserId};

use super::tables::{self, ERASED_KEY, ERASURES, EXPIRED_KEY, META, PSEUDONYMS_KEY, storage};
use super::tombstone::IdHash;
use super::{EventLog, EventLogError, LogRecord, StoredEvent};

/// A view.
pub struct LogView {
    transaction: ReadTransaction,
    records: ReadOnlyTable<u64, &'static [u8]>,
    meta: ReadOnlyTable<&'static str, u64>,
    end: LogOffset,
    /// Keeps the file open.
    _database: Arc<Database>,
}

impl EventLog {
    /// A view of what is synced now.
    ///
    /// # Errors
    /// The store failed.
    pub fn view(&self) -> Result<LogView, EventLogError> {
        LogView::of(self.shared.store.wait_for_database()?)
    }
}

impl LogView {
    pub(super) fn of(database: Arc<Database>) -> Result<Self, EventLogError> {
        let transaction = database.begin_read().map_err(storage)?;
        let records = tables::open_records(&transaction)?;
        let end = LogOffset(tables::end_of(&records).map_err(storage)?);
        let meta = transaction.open_table(META).map_err(storage)?;
        Ok(Self {
            transaction,
            records,
            meta,
            end,
            _database: database,
        })
    }

    /// One past the last record.
    #[must_use]
    pub fn end(&self) -> LogOffset {
        self.end
    }

    /// Format of what is in it.
    ///
    /// # Errors
    /// The store failed.
    pub fn format(&self) -> Result<u64, EventLogError> {
        self.number(tables::FORMAT_KEY)
    }

    /// Names all rewrites of the log so far; 0 before the first.
    ///
    /// # Errors
    /// The store failed.
    pub fn rewrites(&self) -> Result<u64, EventLogError> {
        self.number(tables::REWRITES_KEY)
    }

    /// Names the key of the pseudonyms that it holds in place of user ids; 0 where ids are as they were sent.
    ///
    /// # Errors
    /// The store failed.
    pub fn pseudonyms(&self) -> Result<u64, EventLogError> {
        self.number(PSEUDONYMS_KEY)
    }

    /// One past the last erasure that was carried out.
    ///
    /// # Errors
    /// The store failed.
    pub fn erased_through(&self) -> Result<u64, EventLogError> {
        self.number(ERASED_KEY)
    }

    pub(super) fn expired_through(&self) -> Result<u64, EventLogError> {
        self.number(EXPIRED_KEY)
    }

    fn number(&self, key: &str) -> Result<u64, EventLogError> {
        let stored = self.meta.get(key).map_err(storage)?;
        Ok(stored.map_or(0, |guard| guard.value()))
    }

    /// Users who are to be erased and the offset up to which, ascending.
    pub(super) fn pending_erasures(&self) -> Result<Vec<(u64, IdHash)>, EventLogError> {
        let table = self.transaction.open_table(ERASURES).map_err(storage)?;
        let mut pending = Vec::new();
        for entry in table.range(self.erased_through()?..).map_err(storage)? {
            let (offset, user_hash) = entry.map_err(storage)?;
            pending.push((offset.value(), IdHash(user_hash.value())));
        }
        Ok(pending)
    }

    /// Records as they are stored, from `from` on: up to `records_max`, and no more once they have `bytes_max` bytes.
    ///
    /// # Errors
    /// The store failed.
    pub fn raw(
        &self,
        from: LogOffset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Vec<u8>>, EventLogError> {
        let (mut list, mut num_bytes) = (Vec::new(), 0);
        for entry in self.records.range(from.0..).map_err(storage)? {
            if list.len() == records_max || num_bytes >= bytes_max {
                break;
            }
            let bytes = entry.map_err(storage)?.1.value().to_vec();
            num_bytes += bytes.len();
            list.push(bytes);
        }
        Ok(list)
    }

    /// Reads every record from `from` on, in order.
    ///
    /// # Errors
    /// A record is malformed, an offset is missing, the store failed, or `visit` did.
    pub fn walk<E: From<EventLogError>>(
        &self,
        from: LogOffset,
        mut visit: impl FnMut(LogOffset, LogRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        let range = self.records.range(from.0..).map_err(storage)?;
        for (entry, expected) in range.zip(from.0..) {
            let (offset, bytes) = entry.map_err(storage)?;
            let offset = LogOffset(offset.value());
            if offset.0 != expected {
                let detail = format!("the record before it is {expected} or missing");
                return Err(EventLogError::Malformed { offset, detail }.into());
            }
            visit(offset, tables::decode(offset, bytes.value())?)?;
        }
        Ok(())
    }

    /// Up to `limit` events of a user from `from` on, and where to go on where there may be more.
    ///
    /// # Errors
    /// See [`Self::walk`].
    pub fn events_of(
        &self,
        user_id: &UserId,
        from: LogOffset,
        limit: usize,
    ) -> Result<(Vec<(LogOffset, StoredEvent)>, Option<LogOffset>), EventLogError> {
        let mut events = Vec::new();
        let mut next = None;
        self.walk(from, |offset, record| {
            match record {
                LogRecord::Event(stored) if stored.event.user_id == *user_id => {
                    if events.len() < limit {
                        events.push((offset, stored));
                    } else {
                        next = next.or(Some(offset));
                    }
                }
                // Not carried out yet, but ordered: what came before is no longer told.
                LogRecord::UserErased(erasure) if erasure.user_hash == IdHash::of_user(user_id) => {
                    events.clear();
                    next = None;
                }
                LogRecord::Event(_)
                | LogRecord::ItemPut(_)
                | LogRecord::ItemDelete(_)
                | LogRecord::Tombstone(_)
                | LogRecord::UserErased(_) => {}
            }
            Ok::<_, EventLogError>(())
        })?;
        Ok((events, next))
    }
}
