//! What is context and no target: bursts of bots, double clicks, and what is beyond a client's influence.
//!
//! Input: the timeline of a user before the event. Not here: duplicates of one event, which are the log's.

use shared_model::event::EventKind;

use super::{ANSWER_EVENTS_MAX, Preprocessor, UserIdx, millis};
use crate::event_log::StoredEvent;
use crate::influence::{Act, Reason};
use crate::train::windows::Example;

impl Preprocessor {
    /// How much of the event counts, 0 to 1.
    ///
    /// # Errors
    /// Why nothing is learned from it.
    pub(super) fn judge(
        &mut self,
        user: UserIdx,
        example: &Example,
        stored: &StoredEvent,
    ) -> Result<f32, Reason> {
        if self.is_burst(user, example.occurred_at) || self.is_repeat(user, example) {
            return Err(Reason::Noise);
        }
        let could_teach =
            example.target_weight > 0.0 || example.click.is_some() || example.rating.is_some();
        if !could_teach {
            return Ok(1.0);
        }
        self.influence.judge(Act {
            user_idx: user.0,
            item_idx: example.item_idx,
            kind: example.kind,
            // The newest event, which no client moves back, nor beyond the clock by more than events may be early: what is
            // imported counts for the time in which it happened.
            arrived_at: self.watermark_millis,
            is_vouched: stored.is_vouched,
        })
    }

    /// Whether the user has done more within the window than people do.
    fn is_burst(&self, user: UserIdx, occurred_at: i64) -> bool {
        let events_max = self.labels.burst_events_max;
        if events_max == 0 {
            return false;
        }
        let oldest = self.acts(user).nth(events_max - 1);
        oldest.is_some_and(|oldest| {
            occurred_at.abs_diff(oldest.occurred_at) < millis(self.labels.burst_window_secs)
        })
    }

    /// What a user did, newest first as it came in. Unanswered impressions join a timeline late and are no acts.
    fn acts(&self, user: UserIdx) -> impl Iterator<Item = &Example> {
        let timeline = self.timelines[user.0 as usize].iter().rev();
        timeline.filter(|example| example.kind != EventKind::Impression)
    }

    /// Whether the user has just done the same with the same item.
    fn is_repeat(&self, user: UserIdx, example: &Example) -> bool {
        let window_millis = millis(self.labels.repeat_secs);
        if window_millis == 0 {
            return false;
        }
        self.acts(user).take(ANSWER_EVENTS_MAX).any(|before| {
            before.item_idx == example.item_idx
                && before.kind == example.kind
                && example.occurred_at.abs_diff(before.occurred_at) < window_millis
        })
    }
}
