//! Where an event lies whose id alone is known.

use shared_model::ids::{EventId, LogOffset};

use super::tables::EncodedRecord;
use super::{AppendOutcome, EventLog, EventLogError, request_of};

impl EventLog {
    /// Where the event with this id lies, as its duplicate would be told at `now_millis`; `None` where it was never
    /// accepted, or so long ago that its id is forgotten.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn find(
        &self,
        event_id: &EventId,
        now_millis: i64,
    ) -> Result<Option<LogOffset>, EventLogError> {
        let asked = EncodedRecord::asking_for(event_id, now_millis);
        let (mut request, reply) = request_of(vec![asked]);
        request.is_dry_run = true;
        let outcomes = self.try_send((request, reply))?.outcomes().await?;
        Ok(match outcomes.first() {
            Some(AppendOutcome::Duplicate(offset)) => Some(*offset),
            Some(AppendOutcome::Accepted(_)) | None => None,
        })
    }
}
