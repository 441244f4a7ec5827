//! Import: catalogue and events from files into a log, directly or over HTTP.
//!
//! ```text
//! file → rows (lines, CSV, Parquet, unpacked) → mapper (sheet, formats) → records in HTTP shape → sink
//! ```
//!
//! Our own columns and shapes are told apart by how a file begins ([`Part::generic`]); files of other systems have
//! importers by name ([`formats`]). Purchases of a shop's books come in Parquet and are cleaned first ([`raw`]).
//! Rows are refused by the same rules and codes as over HTTP.
//! Not here: flags and printing (`cli::import`).

pub mod formats;
mod moment;
pub mod raw;
mod report;
mod rows;
mod sheet;
pub mod sink;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::access;
use crate::event_log::EventLogError;
pub(crate) use moment::from_text as moment_from_text;
use raw::RawFileError;
pub use report::{Refusal, Report};
use rows::{Peeked, Rows, peek};
pub use rows::{Row, Shape};
use sheet::{EVENT_COLUMNS, EventIds, ITEM_COLUMNS};
use sink::Sink;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// Catalogue items.
    Items,
    /// Feedback.
    Events,
}

impl Content {
    /// As in routes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Events => "events",
        }
    }
}

/// Why an import stopped.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file could not be read.
    #[error("cannot read {}{}: {source}", path.display(), at(*line))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The line, or 0 where none was read.
        line: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The header lacks a column.
    #[error(
        "no column `{column}`, there are {}: {}\n{hint}",
        present.join(", "), path.display()
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Those that are there.
        present: Vec<String>,
        /// What may help.
        hint: String,
    },
    /// A file that the importer does not know.
    #[error("nothing of {importer} is in {}: expected {expected}; {fits}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The importer's name.
        importer: &'static str,
        /// What it reads.
        expected: &'static str,
        /// What would read it.
        fits: String,
    },
    /// A `--map` of no field.
    #[error(
        "no field `{field}`; events have {}, items have {}",
        EVENT_COLUMNS.join(", "), ITEM_COLUMNS.join(", ")
    )]
    NoField {
        /// What was named.
        field: String,
    },
    /// A Parquet file was refused.
    #[error(transparent)]
    Parquet(#[from] RawFileError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] EventLogError),
    /// The server could not be reached.
    #[error("the server did not answer: {0}")]
    Transport(#[from] reqwest::Error),
    /// The server refused a whole batch.
    #[error("the server answered {status}: {detail}{}", access::advice(*status))]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        detail: String,
    },
}

fn at(line: usize) -> String {
    match line {
        0 => String::new(),
        line => format!(", line {line}"),
    }
}

/// A record in HTTP shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Line number, from 1.
    pub line: usize,
    /// The event or item.
    pub value: Value,
}

/// Makes records of rows.
pub trait Mapper {
    /// Adds the records of a row, which may be none.
    ///
    /// # Errors
    /// What is wrong with the row, with column and value.
    fn map(&mut self, row: Row, records: &mut Vec<Value>) -> Result<(), String>;

    /// Adds what is left at the end of the file.
    fn finish(&mut self, _records: &mut Vec<Value>) {}
}

impl<F: FnMut(Row, &mut Vec<Value>) -> Result<(), String>> Mapper for F {
    fn map(&mut self, row: Row, records: &mut Vec<Value>) -> Result<(), String> {
        self(row, records)
    }
}

/// Names that files use in place of ours.
#[derive(Debug, Clone, Default)]
pub struct Mapping {
    /// Field and column.
    pub columns: Vec<(String, String)>,
    /// Kind of events and its name in the file.
    pub kinds: Vec<(String, String)>,
}

impl Mapping {
    /// Those of the columns that are of such a file.
    fn columns_of(&self, content: Content) -> Result<Vec<(String, String)>, ImportError> {
        let fields: &[&str] = match content {
            Content::Items => &ITEM_COLUMNS,
            Content::Events => &EVENT_COLUMNS,
        };
        let mut columns = Vec::new();
        for (field, column) in &self.columns {
            let is_field = |fields: &[&str]| fields.contains(&field.as_str());
            if is_field(fields) {
                columns.push((field.clone(), column.clone()));
            } else if !is_field(&EVENT_COLUMNS) && !is_field(&ITEM_COLUMNS) {
                let field = field.clone();
                return Err(ImportError::NoField { field });
            }
        }
        Ok(columns)
    }

    /// Our kind for one of the file, or the same.
    fn kind(&self, theirs: &str) -> Value {
        let found = self.kinds.iter().find(|(_, name)| name == theirs);
        found.map_or(theirs, |(ours, _)| ours).into()
    }
}

/// A file and how it is read.
pub struct Part {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub content: Content,
    /// How it is cut.
    pub shape: Shape,
    /// Columns, where the file does not name them.
    pub header: Option<&'static [&'static str]>,
    /// Field for column.
    pub renames: Vec<(String, String)>,
    /// What rows mean.
    pub mapper: Box<dyn Mapper>,
}

impl Part {
    /// A file with columns of ours ([`sheet`]), or with objects of the HTTP shapes in its lines.
    ///
    /// # Errors
    /// It cannot be read, the mapping names no field, or a column is missing.
    pub fn generic(path: &Path, content: Content, mapping: &Mapping) -> Result<Self, ImportError> {
        let peeked = peek(path)?;
        let shape = Shape::of(&peeked);
        let kinds = mapping.clone();
        let mapper = move |row: Row, records: &mut Vec<Value>| {
            // Lines of JSON are taken as over HTTP, unless they have the time of a table.
            let is_posted = shape == Shape::JsonLines && !row.contains_key("timestamp");
            let mut value = match content {
                _ if is_posted => Value::Object(row),
                Content::Items => sheet::item(&row)?,
                Content::Events => sheet::event(&row)?,
            };
            if content == Content::Events
                && let Some(theirs) = value["kind"].as_str()
            {
                value["kind"] = kinds.kind(theirs);
            }
            records.push(value);
            Ok(())
        };
        let part = Self {
            path: path.to_owned(),
            content,
            shape,
            header: None,
            renames: mapping.columns_of(content)?,
            mapper: Box::new(mapper),
        };
        part.check_columns(&peeked)?;
        Ok(part)
    }

    fn open(&self) -> Result<Rows, ImportError> {
        Rows::open(&self.path, self.shape, self.header, &self.renames)
    }

    /// Holds columns, or the fields of the first line, against what rows cannot do without.
    fn check_columns(&self, peeked: &Peeked) -> Result<(), ImportError> {
        let present = match self.shape {
            Shape::JsonLines => peeked.fields(&self.renames),
            Shape::Split(_) | Shape::Csv(_) | Shape::Parquet => self.open()?.header().to_vec(),
        };
        let has = |column: &str| present.iter().any(|name| name == column);
        let missing = |column: &str, hint: String| {
            Err(ImportError::MissingColumn {
                path: self.path.clone(),
                column: column.to_owned(),
                present: present.clone(),
                hint,
            })
        };
        // A column that is named and not there would be left out in silence.
        for (field, column) in &self.renames {
            if self.shape != Shape::JsonLines && !has(field) {
                return missing(column, format!("--map {field}={column} names it"));
            }
        }
        for names in required(self.content) {
            if names.iter().any(|name| has(name)) {
                continue;
            }
            if let Some(importer) = formats::fitting(&self.path, peeked).first() {
                let hint = format!("--from {} reads such files", importer.as_str());
                return missing(names[0], hint);
            }
            if self.shape != Shape::JsonLines {
                let hint = format!("--map {}=COLUMN says which it is", names[0]);
                return missing(names[0], hint);
            }
        }
        Ok(())
    }
}

/// One of each must be there.
fn required(content: Content) -> &'static [&'static [&'static str]] {
    match content {
        Content::Items => &[&["item_id"], &["title"]],
        Content::Events => &[&["user_id"], &["item_id"], &["timestamp", "occurred_at"]],
    }
}

/// Sends every row of a file; `advance` hears of how many bytes of it have been read.
///
/// # Errors
/// The file or the sink failed; refused rows are no error.
pub async fn import(
    part: &mut Part,
    sink: &mut Sink,
    mut advance: impl FnMut(u64),
) -> Result<Report, ImportError> {
    let mut rows = part.open()?;
    let mut report = Report::default();
    let mut ids = EventIds::default();
    let (mut values, mut batch) = (Vec::new(), Vec::new());
    let (mut line, mut batch_bytes) = (0, 0);
    loop {
        let row = rows.next_row()?;
        let is_end = row.is_none();
        if let Some(numbered) = row {
            line = numbered.line;
            report.rows += 1;
            let mapped = numbered
                .row
                .and_then(|row| part.mapper.map(row, &mut values));
            if let Err(detail) = mapped {
                let code = "malformed".to_owned();
                report.refuse(Refusal { line, code, detail });
                values.clear();
            }
        } else {
            part.mapper.finish(&mut values);
        }
        for mut value in values.drain(..) {
            if part.content == Content::Events {
                ids.name(&mut value);
            }
            batch_bytes += value.to_string().len();
            batch.push(Record { line, value });
            if batch.len() >= sink.batch_len_max() || batch_bytes >= sink.batch_bytes_max() {
                let full = std::mem::take(&mut batch);
                sink.send(part.content, full, &mut report).await?;
                batch_bytes = 0;
                advance(rows.num_bytes_read());
            }
        }
        if is_end {
            if !batch.is_empty() {
                sink.send(part.content, batch, &mut report).await?;
                advance(rows.num_bytes_read());
            }
            return Ok(report);
        }
    }
}

/// Sends records that are in memory; `advance` hears of how many were sent.
///
/// # Errors
/// The sink failed; refused records are no error.
pub async fn send_all(
    content: Content,
    records: impl Iterator<Item = Record>,
    sink: &mut Sink,
    mut advance: impl FnMut(u64),
) -> Result<Report, ImportError> {
    let mut records = records.peekable();
    let mut report = Report::default();
    while records.peek().is_some() {
        let batch: Vec<Record> = records.by_ref().take(sink.batch_len_max()).collect();
        let num_sent = batch.len() as u64; // widening
        report.rows += num_sent;
        sink.send(content, batch, &mut report).await?;
        advance(num_sent);
    }
    Ok(report)
}

#[cfg(test)]
mod tests;
