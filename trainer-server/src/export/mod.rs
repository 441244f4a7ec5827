//! Export: the catalogue and the events of a log as files that `freshet import` reads, and other programs.
//!
//! Events keep their ids and come in the order of the log, so importing them into an empty log stores the same ones
//! once. Items are those of the catalogue as it is. A file is written beside its place and moved there once it is whole.
//! Not here: flags and printing (`cli::export`), and copies of a whole data directory (`backup`).

mod table;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use shared_model::event::{Event, Item};
use shared_model::ids::{LogOffset, UserId};

use crate::event_log::{EventLog, EventLogError, LogRecord};
use table::{Column, Kind, Table};

const EVENT_COLUMNS: [Column; 11] = [
    Column("event_id", Kind::Text),
    Column("kind", Kind::Text),
    Column("user_id", Kind::Text),
    Column("item_id", Kind::Text),
    Column("occurred_at", Kind::Moment),
    Column("value", Kind::Fraction),
    Column("model_version", Kind::Whole),
    Column("impression_id", Kind::Text),
    Column("position", Kind::Whole),
    Column("propensity", Kind::Fraction),
    Column("arm", Kind::Text),
];

const ITEM_COLUMNS: [Column; 6] = [
    Column("item_id", Kind::Text),
    Column("title", Kind::Text),
    Column("text", Kind::Text),
    Column("attributes", Kind::Json),
    Column("vectors", Kind::Json),
    Column("available", Kind::Truth),
];

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// An object of the HTTP shape a line
    Jsonl,
    /// Columns by name; attributes and vectors of items as JSON
    Csv,
    /// The same columns with their types, compressed with Zstandard
    Parquet,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// `occurred_at` is not before it, in milliseconds since 1970-01-01 UTC.
    pub since_millis: Option<i64>,
    /// `occurred_at` is before it.
    pub until_millis: Option<i64>,
    /// Of this user alone.
    pub user_id: Option<UserId>,
}

impl Filter {
    fn takes(&self, event: &Event) -> bool {
        self.since_millis
            .is_none_or(|since| event.occurred_at >= since)
            && self
                .until_millis
                .is_none_or(|until| event.occurred_at < until)
            && self
                .user_id
                .as_ref()
                .is_none_or(|user_id| event.user_id == *user_id)
    }
}

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] EventLogError),
    /// The file could not be written.
    #[error("cannot write: {source}: {}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The Parquet writer failed.
    #[error("cannot write: {source}: {}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: parquet::errors::ParquetError,
    },
}

/// Writes the events that the filter takes, in the order of the log; `advance` hears of the records looked at.
/// Returns how many were written.
///
/// # Errors
/// The log or the file failed; nothing is at the path then that was not before.
pub fn events(
    log: &EventLog,
    filter: &Filter,
    path: &Path,
    format: Format,
    mut advance: impl FnMut(LogOffset),
) -> Result<u64, ExportError> {
    let mut table = Table::create(path, format, &EVENT_COLUMNS)?;
    log.view()?.walk(LogOffset(0), |offset, record| {
        advance(offset);
        match record {
            LogRecord::Event(stored) if filter.takes(&stored.event) => {
                table.write(event_row(&stored.event))
            }
            LogRecord::Event(_)
            | LogRecord::ItemPut(_)
            | LogRecord::ItemDelete(_)
            | LogRecord::Tombstone(_)
            | LogRecord::UserErased(_) => Ok(()),
        }
    })?;
    table.finish()
}

/// Writes the catalogue; returns how many items it has.
///
/// # Errors
/// As [`events`].
pub fn items(log: &EventLog, path: &Path, format: Format) -> Result<u64, ExportError> {
    let mut table = Table::create(path, format, &ITEM_COLUMNS)?;
    for (_, item) in log.items()? {
        table.write(item_row(&item))?;
    }
    table.finish()
}

fn event_row(event: &Event) -> Map<String, Value> {
    row_of(serde_json::to_value(event))
}

fn item_row(item: &Item) -> Map<String, Value> {
    row_of(serde_json::to_value(item))
}

/// What is in a log has finite numbers and text keys, so it can be written as JSON.
fn row_of(value: serde_json::Result<Value>) -> Map<String, Value> {
    match value.expect("records are JSON") {
        Value::Object(mut row) => {
            row.retain(|_, value| !value.is_null());
            row
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("events and items are objects")
        }
    }
}

#[cfg(test)]
mod tests;
