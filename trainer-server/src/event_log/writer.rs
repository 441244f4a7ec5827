//! The one thread that writes the log: drains what waits into one transaction, syncs, replies.
//!
//! A transaction that failed is tried once more, after the reserve was given up and the store opened again: what it
//! had written may be on disk, and then its events are found as duplicates.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use shared_model::ids::LogOffset;
use tokio::sync::oneshot;

use super::ids::RecentIds;
use super::store::Store;
use super::tables::{self, Batch, EncodedRecord};
use super::{AppendOutcome, EventLogError, Progress};
use crate::reserve::Reserve;

/// A batch and where its outcomes go.
pub(super) struct AppendRequest {
    pub(super) records: Vec<EncodedRecord>,
    /// Whether only the outcomes are wanted.
    pub(super) is_dry_run: bool,
    pub(super) reply: oneshot::Sender<Result<Vec<AppendOutcome>, EventLogError>>,
}

pub(super) struct Writer {
    pub(super) store: Arc<Store>,
    pub(super) reserve: Option<Arc<Reserve>>,
    pub(super) progress: Arc<Progress>,
    pub(super) receiver: Receiver<AppendRequest>,
    /// Absent after a failure: what is on disk may be more than what was acknowledged.
    pub(super) ids: Option<RecentIds>,
    pub(super) commit_records_max: usize,
    pub(super) id_memory_millis: i64,
}

impl Writer {
    /// Runs until every sender is gone and the queue is empty.
    pub(super) fn run(mut self) {
        let mut end = *self.progress.end.borrow();
        while let Ok(first) = self.receiver.recv() {
            let group = self.drain(first);
            end = self.commit(group, end);
        }
    }

    /// What waits behind `first`, as long as the group stays under its cap.
    fn drain(&self, first: AppendRequest) -> Vec<AppendRequest> {
        let mut num_records = first.records.len();
        let mut group = vec![first];
        while num_records < self.commit_records_max {
            let Ok(request) = self.receiver.try_recv() else {
                break;
            };
            num_records += request.records.len();
            group.push(request);
        }
        group
    }

    fn commit(&mut self, group: Vec<AppendRequest>, start: LogOffset) -> LogOffset {
        let batches: Vec<_> = group
            .iter()
            .map(|request| Batch {
                records: &request.records,
                is_dry_run: request.is_dry_run,
            })
            .collect();
        let store = Arc::clone(&self.store);
        let held = store.hold();
        let written = self.write(&batches);
        drop(held);
        match written {
            Ok((outcomes, end)) => {
                self.progress.is_writable.store(true, Ordering::Relaxed);
                if end > start {
                    self.progress.advance(end);
                }
                for (request, outcomes) in group.into_iter().zip(outcomes) {
                    reply(request, Ok(outcomes));
                }
                end
            }
            Err(error) => {
                self.progress.is_writable.store(false, Ordering::Relaxed);
                tracing::error!(%error, "the log cannot be written");
                for request in group {
                    reply(request, Err(error.clone()));
                }
                self.end_on_disk(start)
            }
        }
    }

    /// The end after a failure: what was written without being acknowledged counts, once it is there.
    fn end_on_disk(&self, known: LogOffset) -> LogOffset {
        let read = self
            .store
            .database()
            .and_then(|database| tables::end(&database));
        let end = read.unwrap_or(known); // cannot be read: the next batch opens the store again
        if end > known {
            self.progress.advance(end);
        }
        end
    }

    fn write(&mut self, batches: &[Batch<'_>]) -> Result<Written, EventLogError> {
        let error = match self.try_write(batches) {
            Ok(written) => return Ok(written),
            Err(error) => error,
        };
        let mut has_made_room = self.makes_room_after(&error);
        // Without a store that is open again nothing more could be written or read.
        if let Err(error) = self.store.reopen() {
            if !self.makes_room_after(&error) {
                return Err(error);
            }
            has_made_room = true;
            self.store.reopen()?;
        }
        let was_broken_before = matches!(&error, EventLogError::Reopening)
            || matches!(&error, EventLogError::Storage(error) if matches!(&**error, redb::Error::PreviousIo));
        if has_made_room || was_broken_before {
            return self.try_write(batches);
        }
        Err(error)
    }

    /// Gives up the reserve where the disk was full; whether that made room.
    fn makes_room_after(&self, error: &EventLogError) -> bool {
        let reserve = self.reserve.as_ref().filter(|_| error.is_disk_full());
        let has_made_room = reserve.is_some_and(|reserve| reserve.give_up());
        if has_made_room {
            tracing::warn!(
                "the disk is full: the log goes on with its reserve, nothing is published"
            );
        }
        has_made_room
    }

    fn try_write(&mut self, batches: &[Batch<'_>]) -> Result<Written, EventLogError> {
        let database = self.store.database()?;
        let mut ids = match self.ids.take() {
            Some(ids) => ids,
            None => tables::recent_ids(&database)?,
        };
        let written = tables::commit(&database, batches, &mut ids, self.id_memory_millis)?;
        self.ids = Some(ids);
        Ok(written)
    }
}

/// Outcomes per batch, and the new end.
type Written = (Vec<Vec<AppendOutcome>>, LogOffset);

fn reply(request: AppendRequest, outcomes: Result<Vec<AppendOutcome>, EventLogError>) {
    // A sender that hung up no longer wants the outcome; its records are safe all the same.
    drop(request.reply.send(outcomes));
}
