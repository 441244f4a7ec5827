//! Backlog: events that were passed over under overload and that no refit has learned yet; when a refit is due for them.
//!
//! A refit is due once more events wait than `release.refit_skipped_share` of those that were learned, and again once
//! as many more do, whatever became of the one before. All of it can be had from the log and `skipped.jsonl`, so it is
//! the same after a restart; only a refit that was refused, or that the restart cut short, is due once more.

use std::io;
use std::path::Path;

use shared_model::ids::{LogOffset, Version};

use super::skipped::{self, Line, Refit, Span};
use crate::event_log::LogRecord;
use crate::learner::RefitExtent;
use crate::rollout::RolloutState;

/// What waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Passed over and not learned since; ascending, and apart from each other.
    spans: Vec<Span>,
    /// Events taken in, without those that a rollback set aside.
    num_events: u64,
    /// Those of them that wait.
    num_waiting: u64,
    /// Those of the waiting that a refit went over which was refused or taken back, or which is in training.
    num_tried: u64,
    /// One past the last offset that the newest refit goes over.
    tried_through: LogOffset,
}

impl Backlog {
    /// What is kept of it; events are counted as the log is read.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn open(data_dir: &Path, rollout: &RolloutState) -> io::Result<Self> {
        let mut backlog = Self::default();
        for line in skipped::lines(data_dir)? {
            match line {
                Line::PassedOver(span) => backlog.pass_over(span),
                Line::Refitted(refit) if rollout.undid(refit.version) => {
                    backlog.tried_through = refit.through;
                }
                Line::Refitted(refit) => backlog.drop_spans(refit.through),
            }
        }
        Ok(backlog)
    }

    /// A span is about to be passed over. After a crash it may lie over the end of the one before.
    pub(super) fn pass_over(&mut self, span: Span) {
        while self.spans.pop_if(|last| last.from >= span.from).is_some() {}
        if let Some(last) = self.spans.last_mut() {
            last.through = last.through.min(span.from);
        }
        self.spans.push(span);
    }

    /// Counts records that are taken in.
    pub(super) fn count(&mut self, read: &[(LogOffset, LogRecord)], rollout: &RolloutState) {
        for (offset, record) in read {
            let is_event = matches!(record, LogRecord::Event(_));
            if !is_event || rollout.set_aside_by(*offset).is_some() {
                continue;
            }
            self.num_events += 1;
            let num_before = self.spans.partition_point(|span| span.from <= *offset);
            let is_waiting = num_before > 0 && self.spans[num_before - 1].covers(*offset);
            self.num_waiting += u64::from(is_waiting);
            self.num_tried += u64::from(is_waiting && *offset < self.tried_through);
        }
    }

    /// Events taken in.
    pub(super) fn num_events(&self) -> u64 {
        self.num_events
    }

    /// Events that wait.
    pub(super) fn num_waiting(&self) -> u64 {
        self.num_waiting
    }

    /// Whether so many wait that a refit is worth it, tried or not.
    pub(super) fn is_large(&self, share: f32) -> bool {
        share > 0.0 && self.num_waiting > self.num_tolerated(share)
    }

    /// Whether a refit is to start.
    pub(super) fn is_due(&self, share: f32) -> bool {
        share > 0.0 && self.num_waiting > self.num_without_refit(share)
    }

    /// Most events that wait without a refit being started.
    pub(super) fn num_without_refit(&self, share: f32) -> u64 {
        self.num_tried + self.num_tolerated(share)
    }

    fn num_tolerated(&self, share: f32) -> u64 {
        let num_learned = self.num_events - self.num_waiting;
        (f64::from(share) * num_learned as f64) as u64 // exact below 2^53; a share is bounded
    }

    /// What a refit is to make of it.
    pub(super) fn extent(&self) -> RefitExtent {
        if self.num_waiting > self.num_events - self.num_waiting {
            RefitExtent::WarmFit
        } else {
            RefitExtent::Renewal
        }
    }

    /// A refit starts that goes over everything before `position`.
    pub(super) fn begin_refit(&mut self, position: LogOffset) {
        self.num_tried = self.num_waiting;
        self.tried_through = position;
    }

    /// The refit was given up before anything could judge it.
    pub(super) fn drop_refit(&mut self) {
        self.num_tried = 0;
        self.tried_through = LogOffset(0);
    }

    /// The refit is live; what to note of it.
    pub(super) fn end_refit(&mut self, version: Version) -> Line {
        let through = self.tried_through;
        self.drop_spans(through);
        self.num_waiting -= self.num_tried;
        self.drop_refit();
        Line::Refitted(Refit { version, through })
    }

    fn drop_spans(&mut self, through: LogOffset) {
        self.spans.retain(|span| span.through > through);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event_log::StoredEvent;

    const SHARE: f32 = 0.5;

    fn read(offsets: std::ops::Range<u64>) -> Vec<(LogOffset, LogRecord)> {
        let record = |offset: u64| {
            let event = json!({
                "event_id": offset.to_string(), "kind": "click", "user_id": "u", "item_id": "i", "occurred_at": 1,
            });
            let event = serde_json::from_value(event).expect("an event");
            let stored = StoredEvent {
                event,
                received_at: 1,
                is_vouched: false,
                arm_phase: None,
            };
            (LogOffset(offset), LogRecord::Event(stored))
        };
        offsets.map(record).collect()
    }

    fn span(from: u64, through: u64) -> Span {
        Span {
            from: LogOffset(from),
            through: LogOffset(through),
        }
    }

    /// Ten events learned, then twenty passed over.
    fn overloaded(rollout: &RolloutState) -> Backlog {
        let mut backlog = Backlog::default();
        backlog.count(&read(0..10), rollout);
        backlog.pass_over(span(10, 30));
        backlog.count(&read(10..30), rollout);
        backlog
    }

    #[test]
    fn a_refit_is_due_once_and_again_after_as_much_again_was_passed_over() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let rollout = RolloutState::open(dir.path()).expect("nothing is there yet");
        let mut backlog = overloaded(&rollout);
        assert_eq!((backlog.num_waiting(), backlog.is_due(SHARE)), (20, true));
        assert_eq!(
            backlog.extent(),
            RefitExtent::WarmFit,
            "most was passed over"
        );
        assert!(!backlog.is_due(0.0), "0 is never");

        backlog.begin_refit(LogOffset(30));
        assert!(!backlog.is_due(SHARE) && backlog.is_large(SHARE));
        backlog.pass_over(span(30, 35));
        backlog.count(&read(30..35), &rollout);
        assert!(!backlog.is_due(SHARE), "5 are not more than half of 10");
        backlog.pass_over(span(35, 36));
        backlog.count(&read(35..36), &rollout);
        assert!(backlog.is_due(SHARE), "a refused one is tried again at 6");

        backlog.end_refit(Version(3));
        assert_eq!((backlog.num_waiting(), backlog.is_due(SHARE)), (6, false));
        assert_eq!(backlog.extent(), RefitExtent::Renewal);
        assert_eq!(backlog.spans, [span(30, 35), span(35, 36)]);
    }

    #[test]
    fn it_is_the_same_after_a_restart() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let rollout = RolloutState::open(dir.path()).expect("nothing is there yet");
        let restarted = |end: u64| {
            let mut backlog = Backlog::open(dir.path(), &rollout).expect("readable");
            backlog.count(&read(0..end), &rollout);
            backlog
        };
        skipped::note(dir.path(), Line::PassedOver(span(10, 30))).expect("noted");
        let mut backlog = overloaded(&rollout);
        assert_eq!(restarted(30), backlog);
        backlog.begin_refit(LogOffset(30));
        skipped::note(dir.path(), backlog.end_refit(Version(3))).expect("noted");
        assert_eq!(restarted(30), backlog);
        assert_eq!(backlog.num_waiting(), 0);
    }

    #[test]
    fn spans_that_a_crash_laid_over_each_other_count_once() {
        let mut backlog = Backlog::default();
        backlog.pass_over(span(10, 30));
        backlog.pass_over(span(20, 50));
        assert_eq!(backlog.spans, [span(10, 20), span(20, 50)]);
        backlog.pass_over(span(10, 60));
        assert_eq!(backlog.spans, [span(10, 60)]);
    }
}
