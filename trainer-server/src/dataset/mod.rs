//! Datasets on disk: a folder with `events.tsv` and `items.tsv`, read whole and put in time order.
//!
//! Header names decide what a file means, in any order of columns:
//!
//! ```text
//! events.tsv   user_id  item_id  timestamp (unix seconds)  [quantity → purchase | rating → rating with value]
//! items.tsv    item_id  title  [year]  [genres, split at "|"]  [anything else → attribute]
//! ```
//!
//! Neither column given means clicks. Events of the same second have no order in such files;
//! they are put in a seeded random one, which every report says.
//! Not here: what is done with the events (`replay`), and validation of posted ones (`preprocess`).

mod table;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use shared_model::event::{Event, EventKind, HistoryEvent, Item};
use shared_model::ids::{EventId, ItemId, UserId};
use shared_model::spec::NUM_ITEMS_MAX;

use table::{LINE_BYTES_MAX, Table};

/// Most events accepted: indices are 32 bits wide, and all of them are held in memory.
const NUM_EVENTS_MAX: usize = 100_000_000;

/// Why a dataset was refused.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file could not be opened or read.
    #[error("cannot read the dataset file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The header lacks a column.
    #[error("the header has no column {column}: {}", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The missing name.
        column: &'static str,
    },
    /// The header names a column twice.
    #[error("the header names column {column} twice: {}", path.display())]
    DuplicateColumn {
        /// The file.
        path: PathBuf,
        /// The repeated name.
        column: String,
    },
    /// A line longer than [`LINE_BYTES_MAX`].
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes: {}", path.display())]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// One-based.
        line: usize,
    },
    /// A line with too few or too many fields.
    #[error("line {line} has {actual} fields, the header has {expected}: {}", path.display())]
    FieldCount {
        /// The file.
        path: PathBuf,
        /// One-based.
        line: usize,
        /// Fields in the header.
        expected: usize,
        /// Fields in the line.
        actual: usize,
    },
    /// A field that cannot be what its column says.
    #[error("line {line}, field {column}: {value:?} is refused, {reason}: {}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// One-based.
        line: usize,
        /// Name of the column.
        column: &'static str,
        /// The text, shortened.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More lines than can be held.
    #[error("more than {max} lines: {}", path.display())]
    TooManyLines {
        /// The file.
        path: PathBuf,
        /// The limit.
        max: usize,
    },
    /// No line after the header.
    #[error("no line after the header: {}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// One event of a dataset, with indices in place of ids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DatasetEvent {
    /// Index into [`Dataset::users`].
    pub user_idx: u32,
    /// Index into [`Dataset::items`].
    pub item_idx: u32,
    /// Milliseconds since 1970-01-01 UTC.
    pub occurred_at: i64,
    /// Grade or amount, where the file has one.
    pub value: Option<f64>,
}

/// A whole dataset in time order.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Name of the folder.
    pub name: String,
    /// What every event of it is.
    pub kind: EventKind,
    /// The catalogue, in the order of the file.
    pub items: Vec<Item>,
    /// Users, in the order of their first line.
    pub users: Vec<UserId>,
    /// Events by time, ties in a seeded random order.
    pub events: Vec<DatasetEvent>,
    /// Seed of that order.
    pub tie_seed: u64,
}

impl Dataset {
    /// Reads `dir/events.tsv` and `dir/items.tsv`.
    ///
    /// # Errors
    /// Names the file, the line and the field that was refused.
    pub fn load(dir: &Path, tie_seed: u64) -> Result<Self, DatasetError> {
        let items = read_items(&dir.join("items.tsv"))?;
        let item_idx: HashMap<&str, u32> = items
            .iter()
            .enumerate()
            .map(|(idx, item)| (item.item_id.as_str(), idx as u32))
            .collect(); // fits: NUM_ITEMS_MAX
        let (kind, users, mut events) = read_events(&dir.join("events.tsv"), &item_idx)?;
        sort_by_time(&mut events, tie_seed);
        let name = dir.file_name().map_or_else(
            || dir.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        );
        Ok(Self {
            name,
            kind,
            items,
            users,
            events,
            tie_seed,
        })
    }

    /// Index of the first event of the last `1 − share` of all events by time.
    #[must_use]
    pub fn split_at(&self, share: f64) -> usize {
        let split = (self.events.len() as f64 * share).floor() as usize; // share is at most 1
        split.min(self.events.len())
    }

    /// An event as it is posted.
    #[must_use]
    pub fn to_event(&self, event: &DatasetEvent, event_id: EventId) -> Event {
        Event {
            event_id,
            kind: self.kind,
            user_id: self.users[event.user_idx as usize].clone(),
            item_id: self.items[event.item_idx as usize].item_id.clone(),
            occurred_at: event.occurred_at,
            value: event.value,
            model_version: None,
            impression_id: None,
            position: None,
            propensity: None,
            arm: None,
        }
    }

    /// An event as a page keeps it in its history.
    #[must_use]
    pub fn to_history(&self, event: &DatasetEvent) -> HistoryEvent {
        let item_id = self.items[event.item_idx as usize].item_id.clone();
        HistoryEvent {
            item_id,
            kind: self.kind,
            occurred_at: event.occurred_at,
        }
    }
}

fn read_items(path: &Path) -> Result<Vec<Item>, DatasetError> {
    let mut table = Table::open(path, NUM_ITEMS_MAX)?;
    let (id_column, title_column) = (table.required("item_id")?, table.required("title")?);
    let (year_column, genres_column) = (table.column("year"), table.column("genres"));
    let mut items = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    while let Some(row) = table.next_row()? {
        let item_id = ItemId::new(row.text(id_column))
            .map_err(|error| table.field_error(&row, "item_id", id_column, error.to_string()))?;
        if let Some(first_line) = seen.insert(item_id.as_str().to_owned(), row.line) {
            let reason = format!("line {first_line} has the same id");
            return Err(table.field_error(&row, "item_id", id_column, reason));
        }
        let used = [
            Some(id_column),
            Some(title_column),
            year_column,
            genres_column,
        ];
        let mut attributes = serde_json::Map::new();
        for (column, name) in table
            .header
            .iter()
            .enumerate()
            .filter(|(column, _)| !used.contains(&Some(*column)))
        {
            attributes.insert(name.clone(), row.text(column).into());
        }
        items.push(Item {
            item_id,
            title: row.text(title_column).to_owned(),
            text: item_text(
                year_column.map(|column| row.text(column)),
                genres_column.map(|column| row.text(column)),
            ),
            attributes,
            vectors: std::collections::BTreeMap::new(),
            available: true,
        });
    }
    if items.is_empty() {
        Err(DatasetError::Empty {
            path: path.to_owned(),
        })
    } else {
        Ok(items)
    }
}

/// Year and genres as a sentence for the text encoder.
fn item_text(year: Option<&str>, genres: Option<&str>) -> Option<String> {
    let genres = genres.into_iter().flat_map(|genres| genres.split('|'));
    let parts: Vec<&str> = year
        .into_iter()
        .chain(genres)
        .filter(|part| !part.is_empty())
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

type ReadEvents = (EventKind, Vec<UserId>, Vec<DatasetEvent>);

fn read_events(path: &Path, item_idx: &HashMap<&str, u32>) -> Result<ReadEvents, DatasetError> {
    let mut table = Table::open(path, NUM_EVENTS_MAX)?;
    let (user_column, item_column) = (table.required("user_id")?, table.required("item_id")?);
    let time_column = table.required("timestamp")?;
    let (kind, value_column) = match (table.column("rating"), table.column("quantity")) {
        (Some(rating), _) => (EventKind::Rating, Some(("rating", rating))),
        (None, Some(quantity)) => (EventKind::Purchase, Some(("quantity", quantity))),
        (None, None) => (EventKind::Click, None),
    };
    let mut users = Vec::new();
    let mut user_idx: HashMap<String, u32> = HashMap::new();
    let mut events = Vec::new();
    while let Some(row) = table.next_row()? {
        let user_text = row.text(user_column);
        let user = match user_idx.get(user_text) {
            Some(known) => *known,
            None => {
                let user_id = UserId::new(user_text).map_err(|error| {
                    table.field_error(&row, "user_id", user_column, error.to_string())
                })?;
                let next = users.len() as u32; // fits: NUM_EVENTS_MAX is below 2^32
                users.push(user_id);
                user_idx.insert(user_text.to_owned(), next);
                next
            }
        };
        let Some(item) = item_idx.get(row.text(item_column)) else {
            return Err(table.field_error(
                &row,
                "item_id",
                item_column,
                "items.tsv has no such item".to_owned(),
            ));
        };
        let occurred_at = parse_seconds(row.text(time_column))
            .map_err(|reason| table.field_error(&row, "timestamp", time_column, reason))?;
        let value = match value_column {
            Some((name, column)) => Some(
                parse_finite(row.text(column))
                    .map_err(|reason| table.field_error(&row, name, column, reason))?,
            ),
            None => None,
        };
        events.push(DatasetEvent {
            user_idx: user,
            item_idx: *item,
            occurred_at,
            value,
        });
    }
    if events.is_empty() {
        return Err(DatasetError::Empty {
            path: path.to_owned(),
        });
    }
    Ok((kind, users, events))
}

fn parse_seconds(text: &str) -> Result<i64, String> {
    let secs = text.parse::<i64>().ok().filter(|secs| *secs >= 0); // the text is quoted in the error
    let millis = secs.and_then(|secs| secs.checked_mul(1000));
    millis.ok_or_else(|| "expected unix seconds, zero or more".to_owned())
}

fn parse_finite(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok(); // the text is quoted in the error
    let finite = value.filter(|value| value.is_finite());
    finite.ok_or_else(|| "expected a finite number".to_owned())
}

/// By time, then by a random key that depends only on the seed and the order of the file.
fn sort_by_time(events: &mut Vec<DatasetEvent>, tie_seed: u64) {
    let mut rng = StdRng::seed_from_u64(tie_seed);
    let mut keyed: Vec<(i64, u64, DatasetEvent)> = events
        .iter()
        .map(|event| (event.occurred_at, rng.next_u64(), *event))
        .collect();
    keyed.sort_by_key(|(occurred_at, key, _)| (*occurred_at, *key));
    *events = keyed.into_iter().map(|(_, _, event)| event).collect();
}

#[cfg(test)]
mod tests;
