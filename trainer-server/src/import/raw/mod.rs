//! Raw files: purchases as a shop's books have them, in Parquet, cleaned on the way into a log or a dataset.
//!
//! The whole file is cleaned before anything is sent, since a return can be far behind its purchase. A line
//! that is a candidate takes 48 bytes meanwhile; the limits of `parquet_file` bound how many there are.
//! Not here: the rules (`purchases`), flags and printing (`cli::import`).

mod parquet_file;
mod purchases;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use parquet_file::RawFileError;
pub(super) use parquet_file::{check_ends, check_sizes};
pub use purchases::{BoughtItem, Cleaned, Counts, Fate, Purchase, TooMany};

use parquet_file::{Cell, Kind, RawFile, Wanted};
use purchases::{Purchases, Row};

use super::Record;
use crate::config::ImportConfig;

/// Rows after which progress is told.
const PROGRESS_ROWS: u64 = 8192;

/// Why a raw file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The file was refused.
    #[error(transparent)]
    File(#[from] RawFileError),
    /// It holds more than is kept in memory.
    #[error("{source}: {}", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// Of what.
        source: TooMany,
    },
    /// There is a dataset already.
    #[error("will not write over a dataset; name a folder without it: {}", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The dataset could not be written.
    #[error("cannot write the dataset: {source}: {}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Reads and cleans a Parquet file of purchases; `advance` hears of rows read and of all there are.
///
/// # Errors
/// The file was refused, or holds too much; see [`RawFileError`].
pub fn read(
    path: &Path,
    rules: &ImportConfig,
    mut advance: impl FnMut(u64, u64),
) -> Result<Cleaned, RawError> {
    let wanted = [
        (&rules.user_column, Kind::Name),
        (&rules.item_column, Kind::Name),
        (&rules.quantity_column, Kind::Number),
        (&rules.price_column, Kind::Number),
        (&rules.time_column, Kind::Time),
    ]
    .map(|(name, kind)| Wanted { name, kind });
    let file = RawFile::open(path, &wanted)?;
    let mut purchases = Purchases::new(rules);
    file.for_each_row(|row_number, cells| {
        if row_number.is_multiple_of(PROGRESS_ROWS) {
            advance(row_number, file.num_rows());
        }
        let pushed = purchases.push(row_number, row_of(cells));
        pushed.map_err(|source| RawError::TooMany {
            path: path.to_owned(),
            source,
        })
    })?;
    Ok(purchases.finish())
}

/// From cells in the order of [`read`].
fn row_of(cells: Vec<Cell>) -> Row {
    let mut row = Row::default();
    for (idx, cell) in cells.into_iter().enumerate() {
        match (idx, cell) {
            (0, Cell::Name(user)) => row.user = user,
            (_, Cell::Name(item)) => row.item = item,
            (2, Cell::Number(quantity)) => row.quantity = quantity,
            (_, Cell::Number(price)) => row.price = price,
            (_, Cell::Time(occurred_at)) => row.occurred_at = occurred_at,
        }
    }
    row
}

impl Cleaned {
    /// Items in HTTP shape. The title is the id, since such files have no other that stays.
    pub fn item_records(&self) -> impl Iterator<Item = Record> {
        (1..).zip(&self.items).map(|(line, item)| Record {
            line,
            value: json!({
                "item_id": item.title,
                "title": item.title,
                "attributes": { "median_price": item.median_price.to_string() },
            }),
        })
    }

    /// Purchases in HTTP shape, by time. Ids are hashes of user, item, time and how many there were of the same,
    /// so importing a file again adds nothing; what a later file takes back stays in a log that has it already.
    pub fn event_records(&self) -> impl Iterator<Item = Record> {
        let mut seen: HashMap<(u32, u32), (i64, u32)> = HashMap::new();
        self.purchases.iter().map(move |purchase| {
            let Purchase {
                user_idx,
                item_idx,
                occurred_at,
                ..
            } = *purchase;
            let ordinal = match seen.get(&(user_idx, item_idx)) {
                Some((at, ordinal)) if *at == occurred_at => ordinal + 1,
                _ => 0,
            };
            seen.insert((user_idx, item_idx), (occurred_at, ordinal));
            let (user, item) = self.names(purchase);
            Record {
                line: usize::try_from(purchase.row).unwrap_or(usize::MAX), // only named in reports
                value: json!({
                    "event_id": event_id(user, item, occurred_at, ordinal),
                    "kind": "purchase",
                    "user_id": user,
                    "item_id": item,
                    "occurred_at": occurred_at,
                    "value": purchase.quantity,
                }),
            }
        })
    }

    fn names(&self, purchase: &Purchase) -> (&str, &str) {
        let user = &self.users[purchase.user_idx as usize]; // u32 fits
        (user, &self.items[purchase.item_idx as usize].title) // likewise
    }

    /// Writes `events.tsv` and `items.tsv` into a folder, which is made: what `evaluate` and `ablate` read.
    /// Items are numbered from 1 in the order of their titles.
    ///
    /// # Errors
    /// The folder holds one of them already, or a file cannot be written.
    pub fn write_dataset(&self, dir: &Path) -> Result<(), RawError> {
        let mut items = String::from("item_id\ttitle\tmedian_price\n");
        for (number, item) in (1..).zip(&self.items) {
            let BoughtItem {
                title,
                median_price,
            } = item;
            writeln!(items, "{number}\t{title}\t{median_price}").expect("a text takes all");
        }
        let mut events = String::from("user_id\titem_id\tquantity\ttimestamp\n");
        for purchase in &self.purchases {
            let (user, _) = self.names(purchase);
            let (number, quantity) = (purchase.item_idx + 1, purchase.quantity);
            let secs = purchase.occurred_at / 1000;
            writeln!(events, "{user}\t{number}\t{quantity}\t{secs}").expect("a text takes all");
        }
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |source| RawError::Unwritable { path, source }
        };
        std::fs::create_dir_all(dir).map_err(unwritable(dir))?;
        let files = [("items.tsv", items), ("events.tsv", events)];
        // The numbers of one file mean nothing beside the other file of an older dataset.
        for (name, _) in &files {
            let path = dir.join(name);
            if path.exists() {
                return Err(RawError::Exists { path });
            }
        }
        for (name, text) in files {
            let (path, partial) = (dir.join(name), dir.join(format!("{name}.partial")));
            std::fs::write(&partial, text)
                .and_then(|()| std::fs::File::open(&partial)?.sync_all())
                .and_then(|()| std::fs::rename(&partial, &path))
                .map_err(unwritable(&path))?;
        }
        Ok(())
    }

    /// What became of all lines, as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let counts = &self.counts;
        let mut table = format!("{:>10}  lines read\n", counts.num_lines);
        for fate in Fate::ALL {
            let count = counts.of(fate);
            if count > 0 {
                let (_, words) = fate.names();
                writeln!(table, "{count:>10}  {words}").expect("a text takes all");
            }
        }
        let Counts {
            num_reduced,
            num_events,
            ..
        } = counts;
        let (num_users, num_items) = (self.num_users(), self.items.len());
        writeln!(
            table,
            "{num_events:>10}  events left, of {num_users} users and {num_items} items, {num_reduced} of them with fewer pieces"
        )
        .expect("a text takes all");
        table
    }

    /// The same as a document.
    #[must_use]
    pub fn document(&self) -> Value {
        let fates = Fate::ALL.map(|fate| (fate.names().0.to_owned(), self.counts.of(fate).into()));
        json!({
            "lines": self.counts.num_lines,
            "set_aside": serde_json::Map::from_iter(fates),
            "reduced": self.counts.num_reduced,
            "events": self.counts.num_events,
            "users": self.num_users(),
            "items": self.items.len(),
        })
    }

    fn num_users(&self) -> usize {
        let users = self.purchases.iter().map(|purchase| purchase.user_idx);
        users.collect::<std::collections::BTreeSet<u32>>().len()
    }
}

fn event_id(user: &str, item: &str, occurred_at: i64, ordinal: u32) -> String {
    let text = format!("{user}\t{item}\t{occurred_at}\t{ordinal}"); // names hold no tab
    let mut id = blake3::hash(text.as_bytes()).to_hex().to_string();
    id.truncate(32);
    id
}

#[cfg(test)]
mod tests;
