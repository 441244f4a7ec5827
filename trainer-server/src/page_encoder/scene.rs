//! What the gate compares encoders on: the newest events of the log, and the titles of the items in them.

use std::collections::HashMap;

use shared_model::event::{Event, EventKind, Item};
use shared_model::ids::{ItemId, LogOffset, UserId};

use crate::catalogue::Catalogue;
use crate::config::LabelsConfig;
use crate::dataset::{Dataset, DatasetEvent};
use crate::event_log::{EventLog, EventLogError, LogRecord};

/// Records that are looked at.
const NUM_RECORDS_MAX: u64 = 400_000;
/// Items whose titles are embedded by both encoders: a minute of one core for MiniLM.
const NUM_ITEMS_MAX: usize = 4_000;

/// Events that say that somebody likes an item, by time, with the items that were taken last.
///
/// # Errors
/// The log cannot be read.
pub(super) fn dataset(
    log: &EventLog,
    catalogue: &Catalogue,
    labels: &LabelsConfig,
) -> Result<Dataset, EventLogError> {
    let from = LogOffset(log.end().0.saturating_sub(NUM_RECORDS_MAX));
    let mut liked = Vec::new();
    log.view()?.walk::<EventLogError>(from, |_, record| {
        if let LogRecord::Event(stored) = record
            && is_liked(&stored.event, labels)
        {
            let Event {
                user_id,
                item_id,
                occurred_at,
                ..
            } = stored.event;
            liked.push((occurred_at, user_id, item_id));
        }
        Ok(())
    })?;
    liked.sort_by_key(|(occurred_at, ..)| *occurred_at); // stable: the order of the log is kept
    let mut rows = Rows::default();
    for (_, _, item_id) in liked.iter().rev() {
        rows.add_item(item_id, catalogue);
    }
    let events = liked.into_iter().filter_map(|liked| rows.event(liked));
    let events = events.collect();
    Ok(Dataset {
        name: "the log".to_owned(),
        kind: EventKind::Click,
        items: rows.items,
        users: rows.users,
        events,
        tie_seed: 0,
    })
}

fn is_liked(event: &Event, labels: &LabelsConfig) -> bool {
    let is_good = event.kind != EventKind::Rating
        || event
            .value
            .is_some_and(|value| value >= labels.rating_positive_min);
    is_good && labels.next_item_weight.of(event.kind) > 0.0
}

#[derive(Default)]
struct Rows {
    items: Vec<Item>,
    item_rows: HashMap<ItemId, u32>,
    users: Vec<UserId>,
    user_rows: HashMap<UserId, u32>,
}

impl Rows {
    /// One of the catalogue that is not here yet, while there is room.
    fn add_item(&mut self, item_id: &ItemId, catalogue: &Catalogue) {
        if self.items.len() >= NUM_ITEMS_MAX || self.item_rows.contains_key(item_id) {
            return;
        }
        if let Some(item) = catalogue.get(item_id) {
            self.item_rows
                .insert(item_id.clone(), self.items.len() as u32); // below NUM_ITEMS_MAX
            self.items.push((*item).clone());
        }
    }

    /// With rows in place of ids; nothing where the item is not here.
    fn event(&mut self, liked: (i64, UserId, ItemId)) -> Option<DatasetEvent> {
        let (occurred_at, user_id, item_id) = liked;
        let item_idx = *self.item_rows.get(&item_id)?;
        let next = self.users.len() as u32; // at most one per record
        let user_idx = *self.user_rows.entry(user_id).or_insert_with_key(|user_id| {
            self.users.push(user_id.clone());
            next
        });
        Some(DatasetEvent {
            user_idx,
            item_idx,
            occurred_at,
            value: None,
        })
    }
}
