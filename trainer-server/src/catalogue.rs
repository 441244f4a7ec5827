//! The catalogue as an index in memory: which items exist right now.
//!
//! The truth is the event log; this is rebuilt from it at start and follows what is appended.
//! Not here: the model's item rows (`trainer`), which keep the rows of deleted items.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use shared_model::event::Item;
use shared_model::ids::{ItemId, LogOffset};

use crate::event_log::{EventLog, EventLogError};

/// Handle of the index; clones share it.
#[derive(Clone, Default)]
pub struct Catalogue {
    entries: Arc<RwLock<HashMap<ItemId, Entry>>>,
    num_changes: Arc<AtomicU64>,
}

/// The newest put or delete of one item. Deletes are kept until restart, so that an older put
/// that is applied late cannot bring the item back.
struct Entry {
    offset: LogOffset,
    item: Option<Arc<Item>>,
}

impl Catalogue {
    /// Rebuilds the index.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn from_log(log: &EventLog) -> Result<Self, EventLogError> {
        let catalogue = Self::default();
        for (offset, item) in log.items()? {
            catalogue.put(offset, item);
        }
        Ok(catalogue)
    }

    /// Takes in an item that the log holds at `offset`.
    pub fn put(&self, offset: LogOffset, item: Item) {
        let item_id = item.item_id.clone();
        self.set(
            item_id,
            Entry {
                offset,
                item: Some(Arc::new(item)),
            },
        );
    }

    /// Takes an item away, as the log says at `offset`.
    pub fn delete(&self, offset: LogOffset, item_id: ItemId) {
        self.set(item_id, Entry { offset, item: None });
    }

    /// Whether the item exists.
    #[must_use]
    pub fn contains(&self, item_id: &ItemId) -> bool {
        self.get(item_id).is_some()
    }

    /// The item, where it exists.
    #[must_use]
    pub fn get(&self, item_id: &ItemId) -> Option<Arc<Item>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(item_id)?.item.clone()
    }

    /// The items that exist, in the order of their ids.
    #[must_use]
    pub fn items(&self) -> Vec<Arc<Item>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut items: Vec<_> = entries
            .values()
            .filter_map(|entry| entry.item.clone())
            .collect();
        drop(entries);
        items.sort_unstable_by(|a, b| a.item_id.cmp(&b.item_id));
        items
    }

    /// Number of ids ever seen, deleted ones included: each holds a row of the model.
    #[must_use]
    pub fn num_ids(&self) -> usize {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Number of items that exist.
    #[must_use]
    pub fn num_items(&self) -> usize {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .values()
            .filter(|entry| entry.item.is_some())
            .count()
    }

    /// Rises with every put and delete.
    #[must_use]
    pub fn num_changes(&self) -> u64 {
        self.num_changes.load(Ordering::Relaxed)
    }

    fn set(&self, item_id: ItemId, entry: Entry) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        match entries.get(&item_id) {
            Some(present) if present.offset > entry.offset => {}
            _ => {
                entries.insert(item_id, entry);
            }
        }
        // Counted while the lock is held, so that whoever sees the count and then reads sees the change.
        self.num_changes.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(title: &str) -> Item {
        serde_json::from_value(serde_json::json!({ "item_id": "i", "title": title }))
            .expect("valid")
    }

    #[test]
    fn the_higher_offset_wins_in_any_order_of_arrival() {
        let id = ItemId::new("i").expect("valid");
        let catalogue = Catalogue::default();
        catalogue.put(LogOffset(5), item("newer"));
        catalogue.put(LogOffset(4), item("older"));
        assert_eq!(
            catalogue.get(&id).map(|item| item.title.clone()).as_deref(),
            Some("newer")
        );
        catalogue.delete(LogOffset(7), id.clone());
        catalogue.put(LogOffset(6), item("late"));
        assert!(!catalogue.contains(&id));
        assert_eq!((catalogue.num_items(), catalogue.num_ids()), (0, 1));
    }
}
