//! The database of the log, which can be opened again.
//!
//! After a failed write or sync redb refuses everything until it is closed and opened anew: what it holds in memory
//! may be more than what is on disk. Opening reads what is, so a batch that was not acknowledged may turn out to be
//! there, and is a duplicate when it is sent again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redb::Database;

use super::{EventLogError, tables};

/// Readers let go within milliseconds; one that does not is tried again with the next batch.
const READERS_PATIENCE: Duration = Duration::from_secs(2);
const READERS_POLL: Duration = Duration::from_millis(1);

pub(super) struct Store {
    path: PathBuf,
    cache_bytes: usize,
    /// Absent while it is opened again.
    database: RwLock<Option<Arc<Database>>>,
    /// Held while something is written, and while the file is swapped.
    writing: Mutex<()>,
}

impl Store {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Self, EventLogError> {
        let database = tables::open(path, cache_bytes)?;
        Ok(Self {
            path: path.to_owned(),
            cache_bytes,
            database: RwLock::new(Some(Arc::new(database))),
            writing: Mutex::new(()),
        })
    }

    /// As [`Self::database`], for a thread that may wait until the database is open again.
    pub(super) fn wait_for_database(&self) -> Result<Arc<Database>, EventLogError> {
        let deadline = Instant::now() + READERS_PATIENCE;
        loop {
            match self.database() {
                Err(EventLogError::Reopening) if Instant::now() < deadline => {
                    std::thread::sleep(READERS_POLL);
                }
                opened => return opened,
            }
        }
    }

    /// The database, for one transaction.
    pub(super) fn database(&self) -> Result<Arc<Database>, EventLogError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.clone().ok_or(EventLogError::Reopening)
    }

    /// Keeps writers away for as long as it lives.
    pub(super) fn hold(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with another database, whose file has taken the name of the one before. Who reads that one ends there.
    /// The caller holds [`Self::hold`].
    pub(super) fn swap(&self, database: Database) {
        *self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(database));
    }

    /// Closes and opens it. Only the writer may, between two transactions.
    pub(super) fn reopen(&self) -> Result<(), EventLogError> {
        let closing = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut database) = closing {
            let deadline = Instant::now() + READERS_PATIENCE;
            loop {
                match Arc::try_unwrap(database) {
                    Ok(alone) => {
                        drop(alone);
                        break;
                    }
                    Err(shared) => database = shared,
                }
                if Instant::now() > deadline {
                    *self
                        .database
                        .write()
                        .unwrap_or_else(PoisonError::into_inner) = Some(database);
                    return Err(EventLogError::Reopening);
                }
                std::thread::sleep(READERS_POLL);
            }
        }
        let opened = Arc::new(tables::open(&self.path, self.cache_bytes)?);
        *self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(())
    }
}
