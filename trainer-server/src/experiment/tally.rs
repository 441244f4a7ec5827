//! What the log says of an experiment: its users in the order of their first impression, with arm and outcome.
//!
//! A user enters with the first impression that carries an arm which the hash gives to that user; outcomes are events
//! within the window after it, by the server's clock. Interleaved, an event counts for the arm whose item it was.
//! One user is one unit: hashes of ids, no ids. Where user ids are pseudonyms, of which the hash gives other arms, the
//! event says what it gave for the id that was sent. Not here: what follows from it (`verdict`).

use std::collections::HashMap;

use shared_model::event::Event;
use shared_model::ids::LogOffset;

use super::{Design, Experiment};
use crate::event_log::tombstone::IdHash;
use crate::event_log::view::LogView;
use crate::event_log::{EventLogError, LogRecord, StoredEvent};

/// Users of one experiment; each takes about 150 bytes.
pub const UNITS_MAX: usize = 5_000_000;
/// Items of an interleaved list that are remembered per user; the oldest go first.
const SHOWN_MAX: usize = 64;

/// One user.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// Position of the arm; 0 where lists are interleaved.
    pub arm_idx: usize,
    /// Phase under whose shares the arm was given.
    pub phase_idx: usize,
    /// First impression, milliseconds since 1970-01-01 UTC.
    pub entered_at: i64,
    /// Events that count, by arm whose item it was; all of a split are its own arm's.
    pub counts: [u32; 2],
    /// Interleaved: hash of the item, and whose it was.
    shown: Vec<(u64, usize)>,
}

impl Unit {
    /// A user to whom nothing is shown by both arms.
    #[must_use]
    pub fn new(arm_idx: usize, phase_idx: usize, entered_at: i64, counts: [u32; 2]) -> Self {
        Self {
            arm_idx,
            phase_idx,
            entered_at,
            counts,
            shown: Vec::new(),
        }
    }
}

/// All users.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tally {
    /// In the order of their first impression.
    pub units: Vec<Unit>,
    /// Impressions whose arm the hash does not give to their user.
    pub num_misassigned: u64,
    /// Impressions of users who came after there were [`UNITS_MAX`].
    pub num_left_out: u64,
}

impl Tally {
    /// Reads the log from the beginning of the experiment on.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn of(view: &LogView, experiment: &Experiment) -> Result<Self, EventLogError> {
        let mut counting = Counting::new(experiment);
        counting.has_pseudonyms = view.pseudonyms()? != 0;
        view.walk(experiment.began().from, |offset, record| {
            if let LogRecord::Event(stored) = record {
                counting.observe(offset, &stored);
            }
            Ok::<_, EventLogError>(())
        })?;
        Ok(counting.tally)
    }
}

struct Counting<'a> {
    experiment: &'a Experiment,
    /// What labels of its arms begin with.
    prefix: String,
    unit_idx: HashMap<IdHash, usize>,
    has_pseudonyms: bool,
    tally: Tally,
}

impl<'a> Counting<'a> {
    fn new(experiment: &'a Experiment) -> Self {
        Self {
            experiment,
            prefix: format!("{}/", experiment.asked.name),
            unit_idx: HashMap::new(),
            has_pseudonyms: false,
            tally: Tally::default(),
        }
    }

    fn observe(&mut self, offset: LogOffset, stored: &StoredEvent) {
        let (event, received_at) = (&stored.event, stored.received_at);
        let user = IdHash::of_user(&event.user_id);
        let arm = event.arm.as_ref().map(|arm| arm.as_str());
        if !event.kind.is_history() {
            if let Some(name) = arm.and_then(|arm| arm.strip_prefix(&*self.prefix)) {
                self.saw(offset, user, stored, name);
            }
            return;
        }
        let metric = &self.experiment.asked.metric;
        let Some(unit_idx) = self.unit_idx.get(&user) else {
            return;
        };
        let unit = &mut self.tally.units[*unit_idx];
        let age_millis = received_at.saturating_sub(unit.entered_at);
        if !metric.kinds.contains(&event.kind) || age_millis > metric.window_millis() {
            return;
        }
        match self.experiment.asked.design {
            Design::Split => unit.counts[0] = unit.counts[0].saturating_add(1),
            Design::Interleave => {
                let item = item_hash(event);
                let newest = unit.shown.iter().rev().find(|(shown, _)| *shown == item);
                if let Some((_, arm_idx)) = newest {
                    unit.counts[*arm_idx] = unit.counts[*arm_idx].saturating_add(1);
                }
            }
        }
    }

    fn saw(&mut self, offset: LogOffset, user: IdHash, stored: &StoredEvent, name: &str) {
        let (event, at) = (&stored.event, stored.received_at);
        let arms = &self.experiment.asked.arms;
        let Some(arm_idx) = arms.iter().position(|arm| arm.name == name) else {
            self.tally.num_misassigned += 1;
            return;
        };
        let is_interleaved = self.experiment.asked.design == Design::Interleave;
        if let Some(unit_idx) = self.unit_idx.get(&user) {
            let unit = &mut self.tally.units[*unit_idx];
            let window_millis = self.experiment.asked.metric.window_millis();
            if is_interleaved && at.saturating_sub(unit.entered_at) <= window_millis {
                show(unit, item_hash(event), arm_idx);
            }
            return;
        }
        if self
            .experiment
            .stopped
            .is_some_and(|stop| offset >= stop.through)
        {
            return; // nobody enters any more
        }
        let phase_idx = if is_interleaved {
            Some(0)
        } else if self.has_pseudonyms {
            self.phase_at_door(stored)
        } else {
            let unit = event.user_id.as_str();
            self.experiment.phase_with(offset, unit, arm_idx)
        };
        let Some(phase_idx) = phase_idx else {
            self.tally.num_misassigned += 1;
            return;
        };
        if self.tally.units.len() >= UNITS_MAX {
            self.tally.num_left_out += 1;
            return;
        }
        let mut unit = Unit::new(
            if is_interleaved { 0 } else { arm_idx },
            phase_idx,
            at,
            [0, 0],
        );
        if is_interleaved {
            show(&mut unit, item_hash(event), arm_idx);
        }
        self.unit_idx.insert(user, self.tally.units.len());
        self.tally.units.push(unit);
    }

    /// The phase that was found of the id that was sent.
    fn phase_at_door(&self, stored: &StoredEvent) -> Option<usize> {
        let phase_idx = usize::try_from(stored.arm_phase?).ok()?; // as few as phases
        (phase_idx < self.experiment.phases.len()).then_some(phase_idx)
    }
}

fn show(unit: &mut Unit, item: u64, arm_idx: usize) {
    if unit.shown.len() == SHOWN_MAX {
        unit.shown.remove(0);
    }
    unit.shown.push((item, arm_idx));
}

/// Two of the 64 items that are remembered collide with a probability of 1e-16.
fn item_hash(event: &Event) -> u64 {
    let mut short = [0; 8];
    short.copy_from_slice(&IdHash::of(event.item_id.as_str()).0[..8]);
    u64::from_le_bytes(short)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::experiment::NewExperiment;
    use crate::experiment::store::Experiments;
    use serde_json::{Value, json};

    /// An experiment with a window of a second.
    pub(crate) fn experiment(design: &str) -> Experiment {
        let dir = tempfile::tempdir().expect("temp dir");
        let asked = json!({ "name": "e", "place": "home", "design": design, "metric": { "window_secs": 1 }, "arms": [
            { "name": "a", "share": 50, "strategy": "model" }, { "name": "b", "share": 50, "strategy": "popularity" },
        ]});
        let asked: NewExperiment = serde_json::from_value(asked).expect("sound");
        let experiments = Experiments::open(dir.path()).expect("opens");
        let begun = experiments.begin(asked, LogOffset(0), 0).expect("begins");
        Experiment::clone(&begun)
    }

    fn tally(experiment: &Experiment, events: &[(i64, Value)]) -> Tally {
        let mut counting = Counting::new(experiment);
        for (idx, (received_at, event)) in events.iter().enumerate() {
            let mut posted = json!({ "event_id": idx.to_string(), "kind": "click", "user_id": "u", "item_id": "i", "occurred_at": 0 });
            let fields = posted.as_object_mut().expect("an object");
            fields.extend(event.as_object().expect("an object").clone());
            let event = serde_json::from_value(posted).expect("valid");
            let stored = StoredEvent {
                event,
                received_at: *received_at,
                is_vouched: false,
                arm_phase: None,
            };
            counting.observe(LogOffset(idx as u64), &stored);
        }
        counting.tally
    }

    fn arm_of(experiment: &Experiment, user: &str) -> String {
        let arm_idx = experiment.arm_of(user, experiment.shares());
        experiment.label(arm_idx.expect("shares sum to 100"))
    }

    #[test]
    fn a_user_enters_with_an_impression_of_the_own_arm_and_counts_within_the_window() {
        let experiment = experiment("split");
        let own = arm_of(&experiment, "u");
        let other = if own == "e/a" { "e/b" } else { "e/a" };
        let seen = |arm: &str| json!({ "kind": "impression", "arm": arm });
        let tally = tally(
            &experiment,
            &[
                (10, json!({})),         // before it has entered
                (20, seen(other)),       // not by the hash
                (30, seen("another/a")), // of another experiment
                (100, seen(&own)),
                (200, json!({})),
                (300, json!({ "kind": "view" })), // does not count
                (1100, json!({})),
                (1101, json!({})),                 // too late
                (1200, json!({ "user_id": "v" })), // never entered
            ],
        );
        assert_eq!(tally.num_misassigned, 1);
        let [unit] = &tally.units[..] else {
            panic!("{tally:?}")
        };
        assert_eq!((unit.entered_at, unit.counts), (100, [2, 0]));
    }

    #[test]
    fn interleaved_an_event_is_credited_to_the_arm_that_showed_the_item_last() {
        let experiment = experiment("interleave");
        let seen =
            |item: &str, arm: &str| json!({ "kind": "impression", "item_id": item, "arm": arm });
        let clicked = |item: &str| json!({ "item_id": item });
        let tally = tally(
            &experiment,
            &[
                (0, seen("x", "e/a")),
                (1, seen("y", "e/b")),
                (2, clicked("y")),
                (3, clicked("z")), // not of the list
                (4, seen("y", "e/a")),
                (5, clicked("y")),
                (6, clicked("x")),
            ],
        );
        assert_eq!(tally.units[0].counts, [2, 1]);
    }

    #[test]
    fn nobody_enters_after_the_stop_and_who_is_in_still_counts() {
        let mut experiment = experiment("split");
        experiment.stopped = Some(crate::experiment::Stop {
            through: LogOffset(1),
            at: 0,
        });
        let seen = |user: &str| json!({ "user_id": user, "kind": "impression", "arm": arm_of(&experiment, user) });
        let events = [(0, seen("u")), (1, seen("v")), (2, json!({}))];
        let tally = tally(&experiment, &events);
        assert_eq!(tally.units.len(), 1);
        assert_eq!(tally.units[0].counts, [1, 0]);
    }
}
