//! Which event ids were seen: those of late in memory, the others in the table `ids`.
//!
//! Keys are hashes, so the ids of one transaction lie on as many pages of the table, and writing them at once would
//! cost a page of 4 KiB for each event. They wait here instead, sorted, and every transaction merges the next stretch
//! of the key space, whose ids share pages (the rolling merge of O'Neil et al., "The Log-Structured Merge-Tree", 1996).
//!
//! Nothing is lost with the process: all that waits is in the records from `ids_through` on, and is read from there
//! when the log is opened. An id is forgotten once it is older than the memory; the merge takes it from the table when
//! it passes. Not here: what happens to a duplicate (`tables`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use redb::{ReadableTable, Table};
use serde::Deserialize;

use super::tombstone::{IdHash, RememberedId};

/// Ids that wait before the merge begins, 48 bytes each and more. Beyond twice as many events, the table holds them.
const RECENT_IDS_MAX: usize = 131_072;

/// Ids merged per transaction beyond twice the records it adds.
const MERGE_IDS_MIN: usize = 64;

/// First 16 bytes of BLAKE3(event id), big-endian.
pub(super) type IdKey = u128;

/// Offset and arrival of an event.
pub(super) type Seen = (u64, i64);

pub(super) type IdsTable<'txn> = Table<'txn, [u8; 16], Seen>;

pub(super) fn id_key(id_hash: IdHash) -> IdKey {
    IdKey::from_be_bytes(id_hash.0)
}

/// What waits, and how far the merge has come.
pub(super) struct RecentIds {
    ids: BTreeMap<IdKey, Seen>,
    /// Where the next stretch begins.
    next: IdKey,
    /// Where the log ended when this pass over the key space began.
    pass_start: u64,
    recent_ids_max: usize,
}

/// The next part of the key space and the ids in it.
pub(super) struct Stretch {
    keys: RangeInclusive<IdKey>,
    ids: Vec<(IdKey, Seen)>,
}

impl RecentIds {
    /// With all ids of the records from the last whole pass to `end`.
    pub(super) fn new(ids: BTreeMap<IdKey, Seen>, end: u64) -> Self {
        Self {
            ids,
            next: 0,
            pass_start: end,
            recent_ids_max: RECENT_IDS_MAX,
        }
    }

    /// As [`Self::new`] with another bound, for tests of the merge.
    #[cfg(test)]
    pub(super) fn with_max(self, recent_ids_max: usize) -> Self {
        Self {
            recent_ids_max,
            ..self
        }
    }

    /// All that waits, as a stretch.
    #[cfg(test)]
    pub(super) fn stretch_of_all(&self) -> Stretch {
        Stretch {
            keys: 0..=IdKey::MAX,
            ids: self
                .ids
                .iter()
                .map(|(id_hash, seen)| (*id_hash, *seen))
                .collect(),
        }
    }

    pub(super) fn get(&self, id: IdKey) -> Option<Seen> {
        self.ids.get(&id).copied()
    }

    /// What a transaction that adds `num_new` ids merges; `None` while there is room.
    pub(super) fn stretch(&self, num_new: usize) -> Option<Stretch> {
        if self.ids.len() + num_new <= self.recent_ids_max {
            return None;
        }
        let len_max = MERGE_IDS_MIN + 2 * num_new;
        let waiting = self.ids.range(self.next..).take(len_max);
        let ids: Vec<_> = waiting.map(|(id_hash, seen)| (*id_hash, *seen)).collect();
        let last = ids.last().filter(|_| ids.len() == len_max);
        let through = last.map_or(IdKey::MAX, |(id_hash, _)| *id_hash);
        Some(Stretch {
            keys: self.next..=through,
            ids,
        })
    }

    /// Up to which offset the table holds all ids once this stretch is merged, where that ends a pass.
    pub(super) fn complete_through(&self, stretch: &Stretch) -> Option<u64> {
        (*stretch.keys.end() == IdKey::MAX).then_some(self.pass_start)
    }

    /// Takes over what a transaction has committed; the log ends at `end` now.
    pub(super) fn committed(
        &mut self,
        new: BTreeMap<IdKey, Seen>,
        merged: Option<Stretch>,
        end: u64,
    ) {
        if let Some(stretch) = merged {
            if self.complete_through(&stretch).is_some() {
                self.pass_start = end;
            }
            self.next = stretch.keys.end().wrapping_add(1);
            for (id_hash, _) in &stretch.ids {
                self.ids.remove(id_hash);
            }
        }
        self.ids.extend(new);
    }
}

impl Stretch {
    /// Puts its ids into the table and takes out what lies there since before `cutoff`.
    pub(super) fn merge(&self, table: &mut IdsTable<'_>, cutoff: i64) -> Result<(), redb::Error> {
        let keys = self.keys.start().to_be_bytes()..=self.keys.end().to_be_bytes();
        table.retain_in(keys, |_, (_, received_at)| received_at >= cutoff)?;
        for (id_hash, seen) in &self.ids {
            if seen.1 >= cutoff {
                table.insert(id_hash.to_be_bytes(), *seen)?;
            }
        }
        Ok(())
    }
}

/// The ids of the records from `from` on. A damaged record is left out: readers report it.
pub(super) fn ids_from(
    records: &impl ReadableTable<u64, &'static [u8]>,
    from: u64,
) -> Result<BTreeMap<IdKey, Seen>, redb::StorageError> {
    let mut ids = Vec::new();
    for entry in records.range(from..)? {
        let (offset, bytes) = entry?;
        let record = serde_json::from_slice::<RecordId<'_>>(bytes.value());
        if let Some((id_hash, received_at)) = record.ok().and_then(|record| record.id()) {
            ids.push((id_key(id_hash), (offset.value(), received_at)));
        }
    }
    Ok(ids.into_iter().collect()) // of an id that was forgotten meanwhile, the later record
}

/// As much of a [`super::LogRecord`] as is needed here.
#[derive(Deserialize)]
struct RecordId<'a> {
    #[serde(borrow)]
    event: Option<StoredId<'a>>,
    tombstone: Option<RememberedId>,
}

impl RecordId<'_> {
    /// Hash and arrival.
    fn id(self) -> Option<(IdHash, i64)> {
        let of_event = self.event.map(|stored| {
            let id_hash = IdHash::of(&stored.event.event_id);
            (id_hash, stored.received_at)
        });
        of_event.or(self.tombstone.map(|id| (id.id_hash, id.received_at)))
    }
}

#[derive(Deserialize)]
struct StoredId<'a> {
    #[serde(borrow)]
    event: EventIdOf<'a>,
    received_at: i64,
}

#[derive(Deserialize)]
struct EventIdOf<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
}
