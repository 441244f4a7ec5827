//! What the log knows of pseudonyms: that its user ids are some, and of which key; and how they come into it.
//!
//! Not here: the key and how a pseudonym is made of it (`crate::pseudonyms`).

use shared_model::ids::LogOffset;

use super::copy::{pseudonyms_meta, set_meta};
use super::rewrite::{find_event, fingerprint};
use super::tables::{self, ERASED_KEY, EXPIRED_KEY, EncodedRecord, REWRITES_KEY};
use super::{EventLog, EventLogError, LogRecord, StoredEvent};

impl EventLog {
    /// Whether there is any event in it.
    ///
    /// # Errors
    /// The store failed.
    pub fn has_events(&self) -> Result<bool, EventLogError> {
        let mut has_any = false;
        find_event(&self.view()?, |_, _| {
            has_any = true;
            true
        })?;
        Ok(has_any)
    }

    /// Says that user ids are pseudonyms, of the key with that name. Synced when it returns.
    ///
    /// # Errors
    /// The store failed.
    pub fn mark_pseudonyms(&self, key_name: u64) -> Result<(), EventLogError> {
        let store = &self.shared.store;
        let _held = store.hold();
        set_meta(&*store.wait_for_database()?, &pseudonyms_meta(key_name))
    }

    /// Writes the log anew with other events in place of those that it has, and says of which key their pseudonyms are;
    /// both or nothing. How many events there were.
    ///
    /// # Errors
    /// The store failed, as on a full disk; the log is as it was.
    pub fn rename_users(
        &self,
        key_name: u64,
        mut renamed: impl FnMut(LogOffset, StoredEvent) -> StoredEvent,
    ) -> Result<u64, EventLogError> {
        self.rewrite(None)?; // an erasure that was ordered names its user by the id of before
        let rewriting = self.shared.rewriting.lock();
        let _one_at_a_time = rewriting.unwrap_or_else(std::sync::PoisonError::into_inner);
        let view = self.view()?;
        let [format, pseudonyms] = pseudonyms_meta(key_name);
        let meta = [
            format,
            pseudonyms,
            (REWRITES_KEY, fingerprint(&view, &[], None)?),
            (ERASED_KEY, view.end().0),
            (EXPIRED_KEY, view.expired_through()?),
        ];
        drop(view);
        let mut num_events = 0;
        let mut pass = |offset: u64, bytes: Vec<u8>| -> Result<EncodedRecord, EventLogError> {
            let record = match tables::decode(LogOffset(offset), &bytes)? {
                LogRecord::Event(stored) => {
                    num_events += 1;
                    return Ok(EncodedRecord::new(&LogRecord::Event(renamed(
                        LogOffset(offset),
                        stored,
                    ))));
                }
                other @ (LogRecord::ItemPut(_)
                | LogRecord::ItemDelete(_)
                | LogRecord::Tombstone(_)
                | LogRecord::UserErased(_)) => other,
            };
            Ok(EncodedRecord::of(&record, bytes))
        };
        self.copy_and_swap(i64::MIN, &mut pass, &meta)?;
        Ok(num_events)
    }
}
