//! Import: catalogue and events from files into a log, directly or over HTTP.
//!
//! Two formats, told apart by the first character of the file: tab-separated columns with a header
//! ([`sheet`]), or one JSON object of the HTTP shapes per line. Purchases of a shop's books come in
//! Parquet and are cleaned first ([`raw`]). Lines are refused by the same rules and codes as over HTTP.
//! Not here: flags and printing (`cli::import`).

pub mod raw;
pub mod sheet;
pub mod sink;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::event_log::EventLogError;
use sheet::{Columns, EventIds};
use sink::Sink;

/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Refused lines that a report names; beyond them only counts are kept.
const NAMED_REFUSALS_MAX: usize = 20;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Catalogue items.
    Items,
    /// Feedback.
    Events,
}

/// Why an import stopped.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file could not be read.
    #[error("line {line}: {source}: {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Lines read before.
        line: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The header lacks a column.
    #[error("the header has no column `{column}`: {}", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
    /// The log failed.
    #[error(transparent)]
    Log(#[from] EventLogError),
    /// The server could not be reached.
    #[error("the server did not answer: {0}")]
    Transport(#[from] reqwest::Error),
    /// The server refused a whole batch.
    #[error("the server answered {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its answer.
        body: String,
    },
}

/// A line that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Line number, from 1.
    pub line: usize,
    /// The reason's code.
    pub code: String,
    /// The reason in words.
    pub detail: String,
}

/// What became of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// New lines.
    pub accepted: u64,
    /// Lines that the log had already.
    pub duplicates: u64,
    /// Refused lines, by code.
    pub refused: BTreeMap<String, u64>,
    /// The first refused lines.
    pub named: Vec<Refusal>,
}

impl Report {
    /// Number of refused lines.
    #[must_use]
    pub fn num_refused(&self) -> u64 {
        self.refused.values().sum()
    }

    fn refuse(&mut self, refusal: Refusal) {
        *self.refused.entry(refusal.code.clone()).or_default() += 1;
        if self.named.len() < NAMED_REFUSALS_MAX {
            self.named.push(refusal);
        }
    }
}

/// A line in HTTP shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Line number, from 1.
    pub line: usize,
    /// The event or item.
    pub value: Value,
}

/// Sends every line of a file; `advance` hears of the bytes that were read.
///
/// # Errors
/// The file or the sink failed; refused lines are no error.
pub async fn import(
    path: &Path,
    content: Content,
    sink: &mut Sink,
    mut advance: impl FnMut(u64),
) -> Result<Report, ImportError> {
    let mut lines = Lines::open(path)?;
    let mut format = None;
    let mut report = Report::default();
    let mut batch = Vec::new();
    while let Some((line, text)) = lines.next_line()? {
        advance(text.len() as u64 + 1); // widening; the line end is not in the text
        if text.trim().is_empty() {
            continue;
        }
        let format = match &mut format {
            Some(format) => format,
            None => match Format::of(path, content, &text)? {
                Format::Json => format.insert(Format::Json),
                header => {
                    format = Some(header);
                    continue;
                }
            },
        };
        match format.record(&text) {
            Ok(value) => batch.push(Record { line, value }),
            Err(detail) => {
                report.refuse(Refusal {
                    line,
                    code: "malformed".to_owned(),
                    detail,
                });
            }
        }
        if batch.len() >= sink.batch_len_max() {
            sink.send(content, std::mem::take(&mut batch), &mut report)
                .await?;
        }
    }
    if !batch.is_empty() {
        sink.send(content, batch, &mut report).await?;
    }
    Ok(report)
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
        sink.send(content, batch, &mut report).await?;
        advance(num_sent);
    }
    Ok(report)
}

enum Format {
    Json,
    Items(Columns),
    Events(Columns, EventIds),
}

impl Format {
    fn of(path: &Path, content: Content, first_line: &str) -> Result<Self, ImportError> {
        if first_line.trim_start().starts_with('{') {
            return Ok(Self::Json);
        }
        let columns = Columns::new(first_line);
        let required: &[&'static str] = match content {
            Content::Items => &["item_id", "title"],
            Content::Events => &["user_id", "item_id", "timestamp"],
        };
        for column in required {
            if !columns.has(column) {
                return Err(ImportError::MissingColumn {
                    path: path.to_owned(),
                    column,
                });
            }
        }
        Ok(match content {
            Content::Items => Self::Items(columns),
            Content::Events => Self::Events(columns, EventIds::default()),
        })
    }

    fn record(&mut self, text: &str) -> Result<Value, String> {
        match self {
            Self::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
            Self::Items(columns) => columns.item(text),
            Self::Events(columns, ids) => columns.event(text, ids),
        }
    }
}

/// Lines of a file, each at most [`LINE_BYTES_MAX`] long.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    num_read: usize,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, ImportError> {
        let file = File::open(path).map_err(|source| ImportError::Unreadable {
            path: path.to_owned(),
            line: 0,
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            num_read: 0,
        })
    }

    fn next_line(&mut self) -> Result<Option<(usize, String)>, ImportError> {
        let mut bytes = Vec::new();
        let limit = LINE_BYTES_MAX as u64 + 1; // widening
        let read = self
            .reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut bytes);
        self.num_read += 1;
        let failed = |source| ImportError::Unreadable {
            path: self.path.clone(),
            line: self.num_read,
            source,
        };
        if read.map_err(failed)? == 0 {
            return Ok(None);
        }
        if bytes.len() > LINE_BYTES_MAX {
            return Err(failed(std::io::Error::other("the line is too long")));
        }
        let text =
            String::from_utf8(bytes).map_err(|error| failed(std::io::Error::other(error)))?;
        let text = text.trim_end_matches(['\n', '\r']);
        let text = if self.num_read == 1 {
            text.trim_start_matches('\u{feff}')
        } else {
            text
        };
        Ok(Some((self.num_read, text.to_owned())))
    }
}

#[cfg(test)]
mod tests;
