//! Preprocess: from log records to labelled examples and the timelines of users.
//!
//! Validation at the border (ids, finite numbers, known items, the future) is `ingest`'s, duplicates are
//! the log's. Here: the two clocks, the label of each kind, the join of impressions with their
//! answers, and the item index, whose order is the order of the log and so the same after a restart.
//!
//! Input: records in log order. Output: [`Batch`].

mod erasure;
mod noise;
mod propensity;

use std::collections::{BTreeSet, HashMap, VecDeque};

use shared_model::event::{EventKind, HistoryEvent, Item};
use shared_model::ids::{ItemId, UserId};

use crate::config::{ClockMode, Config, LabelsConfig};
use crate::event_log::tombstone::IdHash;
use crate::event_log::{LogRecord, StoredEvent};
use crate::influence::{Crowd, Influence, SetAside, Standing};
use crate::train::windows::Example;

use propensity::Propensities;

/// Events of one user that are kept for windows of a refit.
pub const TIMELINE_LEN_MAX: usize = 1000;
/// Impressions that may wait for their answer; the oldest count as unanswered when there are more.
const PENDING_IMPRESSIONS_MAX: usize = 100_000;

/// Newest events of a user among which the answer to an impression is looked for.
const ANSWER_EVENTS_MAX: usize = 256;

/// Newest events whose users count as recent.
const RECENT_EVENTS_MAX: usize = 4096;

/// Position of a user in [`Preprocessor::timelines`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserIdx(pub u32);

/// What a stretch of the log gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// New events in log order, with the position in the timeline of their user.
    pub examples: Vec<(UserIdx, Example)>,
    /// Items whose text, features or availability are new or changed.
    pub changed_items: Vec<u32>,
    /// Users who are forgotten: their places in the timelines are empty, and stay so.
    pub erased_users: Vec<UserIdx>,
    /// Newest event time in it.
    pub newest_millis: Option<i64>,
    /// Events from which nothing is learned, by why.
    pub set_aside: SetAside,
}

/// An item as the learner needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownItem {
    /// Its id.
    pub item_id: ItemId,
    /// What the encoder reads.
    pub text: String,
    /// Operator's dense features, all names in order, one after another.
    pub features: Vec<f32>,
    /// Whether it may be recommended.
    pub available: bool,
    /// What the operator says of its harm, 0 to 1.
    pub harm: f32,
}

struct PendingImpression {
    user: UserIdx,
    item_idx: u32,
    occurred_at: i64,
}

/// The state that records are read against; rebuilt from the log at every start.
pub struct Preprocessor {
    clock: ClockMode,
    /// Whether one user's events must not change what another's teach.
    is_private: bool,
    labels: LabelsConfig,
    items: Vec<KnownItem>,
    item_idx: HashMap<ItemId, u32>,
    /// By hashes, so that a user can be forgotten who is known by theirs alone.
    user_idx: HashMap<IdHash, UserIdx>,
    timelines: Vec<Vec<Example>>,
    pending: VecDeque<PendingImpression>,
    propensities: Propensities,
    influence: Influence,
    /// Users of the newest events, oldest first, one entry per event.
    recent: VecDeque<UserIdx>,
    watermark_millis: i64,
}

impl Preprocessor {
    /// Before the first record.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let labels = config.labels.clone();
        let is_private = config.privacy.enabled;
        let mut influence = config.influence.clone();
        if is_private {
            influence.clients_min = 0; // it judges one client by the others
        }
        Self {
            clock: config.clock.mode,
            is_private,
            propensities: Propensities::new(labels.propensity_cap, labels.join_window_secs),
            influence: Influence::new(influence),
            labels,
            items: Vec::new(),
            item_idx: HashMap::new(),
            user_idx: HashMap::new(),
            timelines: Vec::new(),
            pending: VecDeque::new(),
            recent: VecDeque::new(),
            watermark_millis: i64::MIN,
        }
    }

    /// Items in index order.
    #[must_use]
    pub fn items(&self) -> &[KnownItem] {
        &self.items
    }

    /// Timelines, by [`UserIdx`].
    #[must_use]
    pub fn timelines(&self) -> &[Vec<Example>] {
        &self.timelines
    }

    /// Newest event time seen; `None` before the first event.
    #[must_use]
    pub fn watermark_millis(&self) -> Option<i64> {
        (self.watermark_millis != i64::MIN).then_some(self.watermark_millis)
    }

    /// The `len_max` users who were seen last, each once, ascending.
    #[must_use]
    pub fn recent_users(&self, len_max: usize) -> Vec<UserIdx> {
        let mut users = BTreeSet::new();
        for user in self.recent.iter().rev() {
            if users.len() == len_max {
                break;
            }
            users.insert(*user);
        }
        users.into_iter().collect()
    }

    /// The user's kept history as a page would hold it, oldest first.
    #[must_use]
    pub fn history(&self, user_id: &UserId, len_max: usize) -> Vec<HistoryEvent> {
        let user = self.user_idx.get(&IdHash::of_user(user_id));
        user.map_or_else(Vec::new, |user| self.history_of(*user, len_max))
    }

    /// The same by index.
    #[must_use]
    pub fn history_of(&self, user: UserIdx, len_max: usize) -> Vec<HistoryEvent> {
        let timeline = &self.timelines[user.0 as usize];
        let seen = timeline.iter().filter(|example| example.kind.is_history());
        let mut newest: Vec<HistoryEvent> = seen
            .rev()
            .take(len_max)
            .map(|example| HistoryEvent {
                item_id: self.items[example.item_idx as usize].item_id.clone(),
                kind: example.kind,
                occurred_at: example.occurred_at,
            })
            .collect();
        newest.reverse();
        newest
    }

    /// How much the user has taught; `None` where that is not known.
    #[must_use]
    pub fn standing(&self, user_id: &UserId) -> Option<Standing> {
        let user = self.user_idx.get(&IdHash::of_user(user_id))?;
        self.influence.standing(user.0)
    }

    /// How much all users teach.
    #[must_use]
    pub fn crowd(&self) -> Crowd {
        self.influence.crowd()
    }

    /// Takes in the next records of the log.
    pub fn ingest<'a>(&mut self, records: impl IntoIterator<Item = &'a LogRecord>) -> Batch {
        let mut batch = Batch::default();
        for record in records {
            match record {
                LogRecord::Event(stored) => self.event(stored, &mut batch),
                LogRecord::ItemPut(item) => self.put_item(item, &mut batch),
                LogRecord::ItemDelete(item_id) => {
                    if let Some(item_idx) = self.item_idx.get(item_id) {
                        self.items[*item_idx as usize].available = false;
                        batch.changed_items.push(*item_idx);
                    }
                }
                LogRecord::Tombstone(_) => {}
                LogRecord::UserErased(erasure) => self.forget(&erasure.user_hash, &mut batch),
            }
        }
        batch.changed_items.sort_unstable();
        batch.changed_items.dedup();
        batch
    }

    fn put_item(&mut self, item: &Item, batch: &mut Batch) {
        let known = KnownItem {
            item_id: item.item_id.clone(),
            text: item.full_text(),
            features: item.vectors.values().flatten().copied().collect(),
            available: item.available,
            harm: crate::ingest::harm(&item.attributes).unwrap_or(0.0), // what is neither was refused at the border
        };
        let next_idx = self.items.len() as u32; // fits: ingest bounds the catalogue by NUM_ITEMS_MAX
        let item_idx = *self
            .item_idx
            .entry(item.item_id.clone())
            .or_insert(next_idx);
        if item_idx == next_idx {
            self.items.push(known);
        } else {
            self.items[item_idx as usize] = known;
        }
        batch.changed_items.push(item_idx);
    }

    fn event(&mut self, stored: &StoredEvent, batch: &mut Batch) {
        let event = &stored.event;
        // The border refuses unknown items; one can still be met in a log that lost its catalogue.
        let Some(item_idx) = self.item_idx.get(&event.item_id).copied() else {
            return;
        };
        let occurred_at = match self.clock {
            ClockMode::Live => event.occurred_at.min(stored.received_at),
            ClockMode::EventTime => event.occurred_at,
        };
        self.watermark_millis = self.watermark_millis.max(occurred_at);
        batch.newest_millis = batch.newest_millis.max(Some(occurred_at));
        let next_user = UserIdx(self.timelines.len() as u32); // fits: four billion users do not fit in memory
        let user = *self
            .user_idx
            .entry(IdHash::of_user(&event.user_id))
            .or_insert(next_user);
        if user == next_user {
            self.timelines.push(Vec::new());
        }
        if self.is_private && event.kind == EventKind::Impression {
            return; // when one counts as unanswered goes by the events of all
        }
        self.expire_impressions(batch);
        if event.kind == EventKind::Impression {
            self.propensities.saw(event, user, item_idx, occurred_at);
            self.pending.push_back(PendingImpression {
                user,
                item_idx,
                occurred_at,
            });
            return;
        }
        let mut example = self.label(event.kind, item_idx, occurred_at, event.value);
        match self.judge(user, &example, stored) {
            Ok(share) => example.share = share,
            Err(reason) => {
                *batch.set_aside.entry(reason).or_default() += 1;
                example = Example {
                    target_weight: 0.0,
                    click: None,
                    rating: None,
                    ..example
                };
            }
        }
        if example.target_weight > 0.0 {
            let propensities = &mut self.propensities;
            example.target_weight *= propensities.factor(event, user, item_idx, occurred_at);
        }
        self.push(user, example, batch);
    }

    fn label(
        &self,
        kind: EventKind,
        item_idx: u32,
        occurred_at: i64,
        value: Option<f64>,
    ) -> Example {
        let rating = (kind == EventKind::Rating).then_some(value).flatten();
        let is_liked = rating.is_none_or(|rating| rating >= self.labels.rating_positive_min);
        let target_weight = if is_liked {
            self.labels.next_item_weight.of(kind)
        } else {
            0.0
        };
        let click = match kind {
            EventKind::Dislike | EventKind::Skip => Some(false),
            EventKind::Impression | EventKind::Rating => None,
            EventKind::View
            | EventKind::Click
            | EventKind::AddToCart
            | EventKind::Purchase
            | EventKind::Like
            | EventKind::Watch => Some(true),
        };
        let rating = rating.map(|rating| rating as f32); // the border bounds ratings to f32's range
        Example {
            item_idx,
            kind,
            occurred_at,
            target_weight,
            share: 1.0,
            click,
            rating,
        }
    }

    /// Impressions whose join window has passed become examples that were not clicked.
    fn expire_impressions(&mut self, batch: &mut Batch) {
        let window_millis = i64::try_from(millis(self.labels.join_window_secs)).unwrap_or(i64::MAX); // longer than any log
        while let Some(first) = self.pending.front() {
            let is_due = first.occurred_at.saturating_add(window_millis) < self.watermark_millis;
            if !is_due && self.pending.len() <= PENDING_IMPRESSIONS_MAX {
                return;
            }
            let (user, item_idx, occurred_at) = (first.user, first.item_idx, first.occurred_at);
            self.pending.pop_front();
            if self.is_answered(user, item_idx, occurred_at, window_millis) {
                continue;
            }
            let kind = EventKind::Impression;
            let example = Example {
                item_idx,
                kind,
                occurred_at,
                target_weight: 0.0,
                share: 1.0,
                click: Some(false),
                rating: None,
            };
            self.push(user, example, batch);
        }
    }

    /// Whether the user did something with the item within the join window after seeing it.
    fn is_answered(&self, user: UserIdx, item_idx: u32, shown_at: i64, window_millis: i64) -> bool {
        let timeline = self.timelines[user.0 as usize]
            .iter()
            .rev()
            .take(ANSWER_EVENTS_MAX);
        timeline
            .filter(|example| example.kind.is_history() && example.item_idx == item_idx)
            .any(|example| {
                example.occurred_at >= shown_at
                    && example.occurred_at <= shown_at.saturating_add(window_millis)
            })
    }

    fn push(&mut self, user: UserIdx, example: Example, batch: &mut Batch) {
        let timeline = &mut self.timelines[user.0 as usize];
        if timeline.len() == 2 * TIMELINE_LEN_MAX {
            timeline.drain(..TIMELINE_LEN_MAX);
        }
        timeline.push(example);
        self.recent.push_back(user);
        if self.recent.len() > RECENT_EVENTS_MAX {
            self.recent.pop_front();
        }
        batch.examples.push((user, example));
    }
}

/// Seconds as milliseconds of event time.
fn millis(secs: u64) -> u64 {
    secs.saturating_mul(1000)
}

#[cfg(test)]
mod tests;
