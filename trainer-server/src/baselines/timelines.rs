//! Histories of all users over a stream, so that every system ranks from the same past.
//!
//! Timelines only grow, and a [`Query`] remembers how much of its user's timeline was known,
//! so that a chunk can be appended first and ranked by several systems afterwards.

use std::collections::HashSet;

use crate::dataset::DatasetEvent;

/// One event of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Index of the item.
    pub item_idx: u32,
    /// Milliseconds since 1970-01-01 UTC.
    pub occurred_at: i64,
}

/// An event to be predicted from what its user had done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Index of the user.
    pub user_idx: u32,
    /// The item that was taken.
    pub item_idx: u32,
    /// When: also the moment of ranking.
    pub occurred_at: i64,
    /// Events of the user before this one.
    pub num_known: usize,
    /// Distinct items among them.
    pub num_distinct: usize,
    /// Whether the item is new to the user.
    pub is_new: bool,
}

#[derive(Debug, Clone, Default)]
struct Timeline {
    events: Vec<Seen>,
    distinct: Vec<u32>,
    seen: HashSet<u32>,
}

/// Timelines of all users.
#[derive(Debug, Clone)]
pub struct Timelines {
    users: Vec<Timeline>,
}

impl Timelines {
    /// Empty timelines.
    #[must_use]
    pub fn new(num_users: usize) -> Self {
        Self {
            users: vec![Timeline::default(); num_users],
        }
    }

    /// Appends an event and returns what was known before it.
    pub fn push(&mut self, event: &DatasetEvent) -> Query {
        let timeline = &mut self.users[event.user_idx as usize];
        let (num_known, num_distinct) = (timeline.events.len(), timeline.distinct.len());
        let is_new = timeline.seen.insert(event.item_idx);
        if is_new {
            timeline.distinct.push(event.item_idx);
        }
        timeline.events.push(Seen {
            item_idx: event.item_idx,
            occurred_at: event.occurred_at,
        });
        let (user_idx, item_idx, occurred_at) = (event.user_idx, event.item_idx, event.occurred_at);
        Query {
            user_idx,
            item_idx,
            occurred_at,
            num_known,
            num_distinct,
            is_new,
        }
    }

    /// The same with all events at one moment, for systems that know order alone.
    #[must_use]
    pub fn without_times(&self) -> Self {
        let mut timeless = self.clone();
        for event in timeless.users.iter_mut().flat_map(|user| &mut user.events) {
            event.occurred_at = 0;
        }
        timeless
    }

    /// What the user had done before, oldest first.
    #[must_use]
    pub fn history(&self, query: &Query) -> &[Seen] {
        &self.users[query.user_idx as usize].events[..query.num_known]
    }

    /// Distinct items of the history, in the order in which they were met.
    #[must_use]
    pub fn distinct(&self, query: &Query) -> &[u32] {
        &self.users[query.user_idx as usize].distinct[..query.num_distinct]
    }

    /// Items left out of the ranking: those had already, if a new one was taken; none for a repeat.
    #[must_use]
    pub fn removed(&self, query: &Query) -> &[u32] {
        if query.is_new {
            self.distinct(query)
        } else {
            &[]
        }
    }

    /// All events of a user so far, oldest first.
    #[must_use]
    pub fn of_user(&self, user_idx: u32) -> &[Seen] {
        &self.users[user_idx as usize].events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_sees_only_what_came_before_it() {
        let mut timelines = Timelines::new(1);
        let event = |item_idx, occurred_at| DatasetEvent {
            user_idx: 0,
            item_idx,
            occurred_at,
            value: None,
        };
        timelines.push(&event(7, 1));
        let repeat = timelines.push(&event(7, 2));
        let fresh = timelines.push(&event(8, 3));
        timelines.push(&event(9, 4));
        assert!(!repeat.is_new && fresh.is_new);
        assert_eq!(timelines.history(&fresh).len(), 2);
        assert_eq!(timelines.removed(&fresh), &[7]);
        assert_eq!(timelines.removed(&repeat), &[] as &[u32]);
    }
}
