//! A log that is written record by record beside the one in use, or from a backup.
//!
//! Offsets are those of the source. Not here: what is copied (`rewrite`, `backup`).

use std::path::Path;

use redb::{Database, Durability};
use shared_model::ids::LogOffset;

use super::tables::{
    self, ERASED_KEY, EncodedRecord, FORMAT, FORMAT_KEY, FORMAT_PSEUDONYMS, IDS_THROUGH_KEY, META,
    PSEUDONYMS_KEY, REWRITES_KEY, Tables, storage,
};
use super::{EventLogError, LOG_FILE_NAME, RECORD_BYTES_MAX};

/// What is written at once. Ids lie at random, so a small transaction touches nearly as many pages as a large one.
const COMMIT_RECORDS: usize = 131_072;
const COMMIT_BYTES: usize = 64 << 20;

/// Page cache while copying.
const CACHE_BYTES: usize = 64 << 20;

/// A log in the making.
pub struct LogCopy {
    database: Database,
    end: LogOffset,
    /// Ids of what was taken in before this, in milliseconds since 1970-01-01 UTC, are forgotten.
    id_cutoff: i64,
    /// Not written yet.
    waiting: Vec<EncodedRecord>,
    waiting_bytes: usize,
}

impl LogCopy {
    /// A new log in a folder that has none. It knows all ids again; those that are old enough are forgotten with the
    /// next events.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn create(data_dir: &Path) -> Result<Self, EventLogError> {
        Self::create_at(&data_dir.join(LOG_FILE_NAME), i64::MIN)
    }

    pub(super) fn create_at(path: &Path, id_cutoff: i64) -> Result<Self, EventLogError> {
        if path.exists() {
            return Err(EventLogError::Directory {
                path: path.to_owned(),
                detail: "there is a log already".to_owned(),
            });
        }
        let database = tables::open(path, CACHE_BYTES)?;
        Ok(Self {
            database,
            end: LogOffset(0),
            id_cutoff,
            waiting: Vec::new(),
            waiting_bytes: 0,
        })
    }

    /// One past the last record.
    #[must_use]
    pub fn end(&self) -> LogOffset {
        self.end
    }

    /// Adds records as they are stored, one after another; they are safe once [`Self::finish`] returns.
    ///
    /// # Errors
    /// A record is too large or malformed, or the file cannot be written.
    pub fn add(&mut self, records: impl Iterator<Item = Vec<u8>>) -> Result<(), EventLogError> {
        let mut encoded = Vec::new();
        for (bytes, offset) in records.zip(self.end.0..) {
            let actual = bytes.len();
            if actual > RECORD_BYTES_MAX {
                let record_idx = encoded.len();
                return Err(EventLogError::RecordTooLarge { record_idx, actual });
            }
            let record = tables::decode(LogOffset(offset), &bytes)?;
            encoded.push(EncodedRecord::of(&record, bytes));
        }
        self.put(encoded).map_err(EventLogError::from)
    }

    /// Takes records, which are written once they are many.
    pub(super) fn put(&mut self, records: Vec<EncodedRecord>) -> Result<(), redb::Error> {
        self.end.0 += records.len() as u64; // widening
        self.waiting_bytes += records
            .iter()
            .map(|record| record.bytes.len())
            .sum::<usize>();
        self.waiting.extend(records);
        if self.waiting.len() >= COMMIT_RECORDS || self.waiting_bytes >= COMMIT_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what waits, in one synced transaction.
    pub(super) fn flush(&mut self) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut tables = Tables::open(&transaction)?;
            for record in &self.waiting {
                if let Some((id, seen)) = tables.put(record)?
                    && seen.1 >= self.id_cutoff
                {
                    tables.remember(id, seen)?;
                }
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert(IDS_THROUGH_KEY, self.end.0)?;
        }
        transaction.commit()?;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }

    /// Closes it with what a view of its source says of erasures, rewrites and pseudonyms; returns its end.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn finish(
        self,
        erased_through: u64,
        rewrites: u64,
        pseudonyms: u64,
    ) -> Result<LogOffset, EventLogError> {
        let end = self.end;
        let [format, pseudonyms] = pseudonyms_meta(pseudonyms);
        let meta = [
            format,
            pseudonyms,
            (ERASED_KEY, erased_through),
            (REWRITES_KEY, rewrites),
        ];
        drop(self.into_database(&meta)?);
        Ok(end)
    }

    pub(super) fn into_database(mut self, meta: &[(&str, u64)]) -> Result<Database, EventLogError> {
        self.flush().map_err(EventLogError::from)?;
        set_meta(&self.database, meta)?;
        Ok(self.database)
    }
}

/// What says that user ids are pseudonyms of the key with that name; 0 for none.
pub(super) fn pseudonyms_meta(key_name: u64) -> [(&'static str, u64); 2] {
    let format = match key_name {
        0 => FORMAT,
        _ => FORMAT_PSEUDONYMS,
    };
    [(FORMAT_KEY, format), (PSEUDONYMS_KEY, key_name)]
}

pub(super) fn set_meta(database: &Database, values: &[(&str, u64)]) -> Result<(), EventLogError> {
    let transaction = database.begin_write().map_err(storage)?;
    {
        let mut meta = transaction.open_table(META).map_err(storage)?;
        for (key, value) in values {
            meta.insert(*key, *value).map_err(storage)?;
        }
    }
    transaction.commit().map_err(storage)
}
