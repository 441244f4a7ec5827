//! Forgetting a user: everything that is kept of them in memory.

use super::{Batch, Preprocessor};
use crate::event_log::tombstone::IdHash;

impl Preprocessor {
    /// A user who comes back is a new one.
    pub(super) fn forget(&mut self, user_hash: &IdHash, batch: &mut Batch) {
        let Some(user) = self.user_idx.remove(user_hash) else {
            return;
        };
        self.timelines[user.0 as usize] = Vec::new();
        self.pending.retain(|impression| impression.user != user);
        self.recent.retain(|recent| *recent != user);
        self.propensities.forget(user);
        self.influence.forget(user.0);
        batch.examples.retain(|(owner, _)| *owner != user);
        batch.erased_users.push(user);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared_model::ids::UserId;

    use super::*;
    use crate::config::Config;
    use crate::event_log::LogRecord;
    use crate::event_log::tombstone::UserErasure;
    use crate::preprocess::UserIdx;

    fn click(user: &str, at: i64) -> LogRecord {
        let event = json!({ "event_id": format!("{user}{at}"), "kind": "click", "user_id": user, "item_id": "a",
            "occurred_at": at });
        let record = json!({ "event": { "event": event, "received_at": at } });
        serde_json::from_value(record).expect("a record")
    }

    #[test]
    fn an_erased_user_is_in_no_timeline_and_no_batch_and_comes_back_as_a_new_one() {
        let mut preprocessor = Preprocessor::new(&Config::default());
        let item = json!({ "item_put": { "item_id": "a", "title": "Tea pot" } });
        let gone = UserId::new("gone").expect("valid");
        let erased = LogRecord::UserErased(UserErasure {
            user_hash: IdHash::of_user(&gone),
            erased_at: 3,
        });
        let item = serde_json::from_value(item).expect("a record");
        let records = [item, click("kept", 1), click("gone", 2), erased];
        let batch = preprocessor.ingest(&records);
        assert_eq!(batch.erased_users, [UserIdx(1)]);
        assert_eq!(batch.examples.len(), 1);
        assert_eq!(preprocessor.history(&gone, 10), []);
        assert_eq!(preprocessor.recent_users(10), [UserIdx(0)]);

        let batch = preprocessor.ingest(&[click("gone", 4), LogRecord::Tombstone(None)]);
        assert_eq!(batch.examples[0].0, UserIdx(2));
        assert_eq!(preprocessor.history(&gone, 10).len(), 1);
        assert_eq!(preprocessor.timelines()[1], []);
    }
}
