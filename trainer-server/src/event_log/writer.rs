//! The one thread that writes the log: drains what waits into one transaction, syncs, replies.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use redb::Database;
use shared_model::ids::LogOffset;
use tokio::sync::oneshot;

use super::tables::{self, EncodedRecord};
use super::{AppendOutcome, EventLogError, Progress};

/// A batch and where its outcomes go.
pub(super) struct AppendRequest {
    pub(super) records: Vec<EncodedRecord>,
    pub(super) reply: oneshot::Sender<Result<Vec<AppendOutcome>, EventLogError>>,
}

pub(super) struct Writer {
    pub(super) database: Arc<Database>,
    pub(super) progress: Arc<Progress>,
    pub(super) receiver: Receiver<AppendRequest>,
    pub(super) commit_records_max: usize,
    pub(super) id_memory_millis: i64,
}

impl Writer {
    /// Runs until every sender is gone and the queue is empty.
    pub(super) fn run(self) {
        let mut end = *self.progress.end.borrow();
        while let Ok(first) = self.receiver.recv() {
            end = self.commit(self.drain(first), end);
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

    fn commit(&self, group: Vec<AppendRequest>, start: LogOffset) -> LogOffset {
        let batches: Vec<_> = group
            .iter()
            .map(|request| request.records.as_slice())
            .collect();
        match tables::commit(&self.database, &batches, start, self.id_memory_millis) {
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
                let error = EventLogError::from(error);
                for request in group {
                    reply(request, Err(error.clone()));
                }
                start
            }
        }
    }
}

fn reply(request: AppendRequest, outcomes: Result<Vec<AppendOutcome>, EventLogError>) {
    // A sender that hung up no longer wants the outcome; its records are safe all the same.
    drop(request.reply.send(outcomes));
}
