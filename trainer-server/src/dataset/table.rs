//! A table on disk: a header line, then tab-separated fields, one bounded line at a time.
//!
//! Not here: what the columns mean.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::DatasetError;

/// Longest line accepted, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;

/// Reads a file with a header line and tab-separated fields, one bounded line at a time.
pub(super) struct Table {
    path: PathBuf,
    reader: BufReader<File>,
    pub(super) header: Vec<String>,
    line: usize,
    num_rows_max: usize,
}

/// One line after the header, with as many fields as the header.
pub(super) struct Row {
    pub(super) line: usize,
    fields: Vec<String>,
}

impl Row {
    pub(super) fn text(&self, column: usize) -> &str {
        &self.fields[column] // columns come from the header, and the count was compared with it
    }
}

impl Table {
    pub(super) fn open(path: &Path, num_rows_max: usize) -> Result<Self, DatasetError> {
        let file = File::open(path).map_err(|source| DatasetError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let reader = BufReader::new(file);
        let mut table = Self {
            path: path.to_owned(),
            reader,
            header: Vec::new(),
            line: 0,
            num_rows_max,
        };
        let Some(header) = table.next_line()? else {
            return Err(DatasetError::Empty {
                path: path.to_owned(),
            });
        };
        table.header = split_fields(header.trim_start_matches('\u{feff}'));
        for (idx, name) in table.header.iter().enumerate() {
            if table.header[..idx].contains(name) {
                return Err(DatasetError::DuplicateColumn {
                    path: path.to_owned(),
                    column: name.clone(),
                });
            }
        }
        Ok(table)
    }

    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    pub(super) fn required(&self, name: &'static str) -> Result<usize, DatasetError> {
        self.column(name)
            .ok_or_else(|| DatasetError::MissingColumn {
                path: self.path.clone(),
                column: name,
            })
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, DatasetError> {
        let Some(text) = self.next_line()? else {
            return Ok(None);
        };
        if self.line > self.num_rows_max + 1 {
            return Err(DatasetError::TooManyLines {
                path: self.path.clone(),
                max: self.num_rows_max,
            });
        }
        let fields = split_fields(&text);
        let (expected, actual) = (self.header.len(), fields.len());
        if actual != expected {
            return Err(DatasetError::FieldCount {
                path: self.path.clone(),
                line: self.line,
                expected,
                actual,
            });
        }
        Ok(Some(Row {
            line: self.line,
            fields,
        }))
    }

    fn next_line(&mut self) -> Result<Option<String>, DatasetError> {
        let unreadable = |path: &Path, source| DatasetError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX as u64 + 1); // usize fits u64
        bounded
            .read_until(b'\n', &mut bytes)
            .map_err(|source| unreadable(&self.path, source))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if bytes.len() > LINE_BYTES_MAX {
            return Err(DatasetError::LineTooLong {
                path: self.path.clone(),
                line: self.line,
            });
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            unreadable(
                &self.path,
                std::io::Error::new(std::io::ErrorKind::InvalidData, error),
            )
        })?;
        Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
    }

    pub(super) fn field_error(
        &self,
        row: &Row,
        column: &'static str,
        idx: usize,
        reason: String,
    ) -> DatasetError {
        let value = row.text(idx).chars().take(80).collect();
        DatasetError::Field {
            path: self.path.clone(),
            line: row.line,
            column,
            value,
            reason,
        }
    }
}

fn split_fields(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}
