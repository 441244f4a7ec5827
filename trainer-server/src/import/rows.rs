//! Rows of a file by name: lines of JSON, cells between tabs or other texts, CSV, and Parquet.
//!
//! Files may be compressed with gzip or zstd, told apart by their first bytes. A row is at most
//! 1 MiB long and has at most [`CELLS_MAX`] cells, whatever it is compressed to.
//! Not here: what columns mean (`sheet`, `formats`).

mod parquet;
mod source;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ImportError;
use parquet::ParquetRows;
use source::{CsvCells, Lines};
pub(super) use source::{Peeked, peek};

/// Values of a row by column; cells of texts are texts.
pub type Row = Map<String, Value>;

/// Most cells of a row.
const CELLS_MAX: usize = 1024;

/// How a file is cut into rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A JSON object a line.
    JsonLines,
    /// Cells between a text, without quotes.
    Split(&'static str),
    /// Cells between a character, with quotes as in RFC 4180.
    Csv(u8),
    /// Flat columns.
    Parquet,
}

impl Shape {
    /// What the beginning of a file looks like.
    pub(super) fn of(peeked: &Peeked) -> Self {
        let line = &peeked.first_line;
        if peeked.is_parquet {
            Self::Parquet
        } else if line.starts_with('{') {
            Self::JsonLines
        } else if line.contains('\t') {
            Self::Split("\t")
        } else if line.contains(';') && !line.contains(',') {
            Self::Csv(b';')
        } else {
            Self::Csv(b',')
        }
    }
}

impl Peeked {
    /// Fields of the first line, where it is JSON.
    pub(super) fn fields(&self, renames: &[(String, String)]) -> Vec<String> {
        let row = json_row(self.first_line.as_bytes(), renames).unwrap_or_default();
        row.into_iter().map(|(name, _)| name).collect()
    }

    /// Cells of the first line.
    pub(super) fn cells(&self, separator: &str) -> Vec<&str> {
        let cells = self.first_line.split(separator);
        cells.map(|cell| cell.trim_matches('"')).collect()
    }
}

/// A row and where it is.
pub(super) struct NumberedRow {
    /// Line, or row of a Parquet file, from 1.
    pub(super) line: usize,
    /// What is in it, or why nothing can be read of it.
    pub(super) row: Result<Row, String>,
}

/// The rows of a file.
pub(super) struct Rows {
    path: PathBuf,
    reader: Reader,
    /// Names of the cells; empty where rows name their values themselves.
    header: Vec<String>,
    renames: Vec<(String, String)>,
    /// Whether what is no UTF-8 is Latin-1, as in files of the days before headers.
    is_latin1: bool,
}

/// Cells as bytes, and the line that they begin at.
type NumberedCells = (usize, Vec<Vec<u8>>);

enum Reader {
    Json(Lines),
    Split(Lines, &'static str),
    /// Its tables are large.
    Csv(Box<CsvCells>),
    Parquet(ParquetRows),
}

impl Rows {
    /// Opens a file; `header` names the columns of one that does not, and each of `renames` a field for a column.
    ///
    /// # Errors
    /// The file cannot be read, or is no Parquet where it should be.
    pub(super) fn open(
        path: &Path,
        shape: Shape,
        header: Option<&[&str]>,
        renames: &[(String, String)],
    ) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Unreadable {
            path: path.to_owned(),
            line: 0,
            source,
        };
        let reader = match shape {
            Shape::JsonLines => Reader::Json(Lines::open(path).map_err(failed)?),
            Shape::Split(separator) => Reader::Split(Lines::open(path).map_err(failed)?, separator),
            Shape::Csv(delimiter) => {
                Reader::Csv(Box::new(CsvCells::open(path, delimiter).map_err(failed)?))
            }
            Shape::Parquet => Reader::Parquet(ParquetRows::open(path, renames)?),
        };
        let mut rows = Self {
            path: path.to_owned(),
            reader,
            header: Vec::new(),
            renames: renames.to_vec(),
            is_latin1: header.is_some(),
        };
        rows.header = match (header, &rows.reader) {
            (_, Reader::Json(_)) => Vec::new(),
            (_, Reader::Parquet(parquet)) => parquet.header().to_vec(),
            (Some(names), _) => names.iter().map(|name| (*name).to_owned()).collect(),
            (None, _) => rows.read_header()?,
        };
        Ok(rows)
    }

    /// Names of the columns, as renamed; empty for lines of JSON.
    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// Bytes of the file that were read so far.
    pub(super) fn num_bytes_read(&self) -> u64 {
        match &self.reader {
            Reader::Json(lines) | Reader::Split(lines, _) => lines.num_bytes_read(),
            Reader::Csv(cells) => cells.num_bytes_read(),
            Reader::Parquet(rows) => rows.num_bytes_read(),
        }
    }

    /// The next row that is not blank.
    pub(super) fn next_row(&mut self) -> Result<Option<NumberedRow>, ImportError> {
        if let Reader::Parquet(rows) = &mut self.reader {
            return Ok(rows.next_row());
        }
        if let Reader::Json(lines) = &mut self.reader {
            let Some((line, bytes)) = lines.next_line().map_err(self.path_of())? else {
                return Ok(None);
            };
            let row = json_row(&bytes, &self.renames);
            return Ok(Some(NumberedRow { line, row }));
        }
        let Some((line, cells)) = self.next_cells()? else {
            return Ok(None);
        };
        let row = self.row_of(cells);
        Ok(Some(NumberedRow { line, row }))
    }

    fn row_of(&self, cells: Vec<Vec<u8>>) -> Result<Row, String> {
        if cells.len() != self.header.len() {
            let (actual, expected) = (cells.len(), self.header.len());
            let names = self.header.join(", ");
            return Err(format!("{actual} cells, expected {expected}: {names}"));
        }
        let mut row = Row::new();
        for (name, cell) in self.header.iter().zip(cells) {
            let text = match String::from_utf8(cell) {
                Ok(text) => text,
                Err(error) if self.is_latin1 => {
                    error.as_bytes().iter().copied().map(char::from).collect()
                }
                Err(_not_utf8) => return Err(format!("{name} is no UTF-8")),
            };
            row.insert(name.clone(), text.into());
        }
        Ok(row)
    }

    fn read_header(&mut self) -> Result<Vec<String>, ImportError> {
        let (_, names) = self.next_cells()?.unwrap_or_default();
        let names = names.iter().map(|name| String::from_utf8_lossy(name));
        Ok(names
            .map(|name| renamed(name.trim(), &self.renames))
            .collect())
    }

    fn next_cells(&mut self) -> Result<Option<NumberedCells>, ImportError> {
        let failed = self.path_of();
        match &mut self.reader {
            Reader::Split(lines, separator) => {
                let line = lines.next_line().map_err(failed)?;
                Ok(line.map(|(number, bytes)| (number, split(&bytes, separator.as_bytes()))))
            }
            Reader::Csv(cells) => cells.next_cells().map_err(failed),
            Reader::Json(_) | Reader::Parquet(_) => Ok(None),
        }
    }

    /// Turns what went wrong at a line into an error with the file's name.
    fn path_of(&self) -> impl Fn((usize, std::io::Error)) -> ImportError + use<> {
        let path = self.path.clone();
        move |(line, source)| ImportError::Unreadable {
            path: path.clone(),
            line,
            source,
        }
    }
}

/// The field that a column is to be. One that has the name of such a field itself makes way.
fn renamed(column: &str, renames: &[(String, String)]) -> String {
    if let Some((field, _)) = renames.iter().find(|(_, theirs)| theirs == column) {
        field.clone()
    } else if renames.iter().any(|(field, _)| field == column) {
        format!("file's {column}")
    } else {
        column.to_owned()
    }
}

/// Parts of a line between a text.
fn split(line: &[u8], separator: &[u8]) -> Vec<Vec<u8>> {
    let mut cells = vec![Vec::new()];
    let mut rest = line;
    while let Some((byte, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(separator) {
            cells.push(Vec::new());
            rest = behind;
        } else {
            cells
                .last_mut()
                .expect("there is one from the start")
                .push(*byte);
            rest = behind;
        }
    }
    cells
}

fn json_row(line: &[u8], renames: &[(String, String)]) -> Result<Row, String> {
    let mut row: Row = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    for (field, column) in renames {
        if let Some(value) = row.remove(column) {
            row.insert(field.clone(), value);
        }
    }
    Ok(row)
}
