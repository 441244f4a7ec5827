//! Rows of a Parquet file, a few thousand at a time, as cells of the kinds that are asked for.
//!
//! Flat columns alone, with or without empty cells, compressed by nothing, Snappy or Zstandard. The footer is
//! checked against limits before a column is opened; pages are read one after the other, so that of each
//! column one page and one batch of cells are in memory. A page announces its own size, of at most 2 GiB.
//! Not here: what the columns mean (`purchases`).

mod cells;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};

use cells::{Value, cell};

/// What every Parquet file begins and ends with.
const MAGIC: &[u8; 4] = b"PAR1";
/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Most rows of a file.
pub(super) const ROWS_MAX: u64 = 20_000_000;
/// Most columns, asked for or not: the footer describes each of them for every row group.
const COLUMNS_MAX: usize = 1000;
/// Most row groups.
const ROW_GROUPS_MAX: usize = 65_536;
/// Largest part of a column in one row group, before compression.
const CHUNK_BYTES_MAX: i64 = 1 << 30;

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum RawFileError {
    /// It cannot be read.
    #[error("{source}: {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It does not begin as Parquet does.
    #[error("not a Parquet file, which begins with `PAR1`: {}", path.display())]
    NotParquet {
        /// The file.
        path: PathBuf,
    },
    /// It begins as Parquet does and does not end so.
    #[error("the Parquet file is cut off, `PAR1` is missing at its end: {}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// Its footer contradicts itself or is of a kind that is not read.
    #[error("the footer cannot be read: {source}: {}", path.display())]
    Footer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ParquetError,
    },
    /// A count or size is beyond what is read.
    #[error("{what} is {actual}, at most {max} is read: {}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Of what.
        what: String,
        /// What the file says.
        actual: i64,
        /// The limit.
        max: i64,
    },
    /// A column is not there.
    #[error("no column `{column}`, there are {}: {}", present.join(", "), path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Those that are there.
        present: Vec<String>,
    },
    /// A column of another type.
    #[error("column `{column}` is {actual}, expected {expected}: {}", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type.
        actual: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Damaged in the middle.
    #[error("column `{column}` cannot be read from row {row} on: {reason}: {}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// First row of the batch, from 1.
        row: u64,
        /// What is wrong.
        reason: String,
    },
    /// A cell that cannot be what its column says.
    #[error("column `{column}`, row {row}: {value:?} is refused, {reason}: {}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The row, from 1.
        row: u64,
        /// The cell, shortened.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// What the cells of a column are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name: a text or a whole number, which files of spreadsheets keep as a fraction.
    Name,
    /// A finite number.
    Number,
    /// A moment.
    Time,
}

impl Kind {
    fn expected(self) -> &'static str {
        match self {
            Self::Name => "a text or a number",
            Self::Number => "a number",
            Self::Time => "a timestamp of 64 bits",
        }
    }
}

/// One cell; `None` where it is empty.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// Of a name, without white space around it and with single spaces within.
    Name(Option<String>),
    /// Of a number.
    Number(Option<f64>),
    /// Of a moment, milliseconds since 1970-01-01; a local time is read as UTC.
    Time(Option<i64>),
}

/// A column that is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// What it holds.
    pub(super) kind: Kind,
}

/// Where a column lies, and how its cells are read.
struct Column<'a> {
    wanted: Wanted<'a>,
    idx: usize,
    is_optional: bool,
    /// Units of a timestamp in a second; 1 elsewhere.
    units_per_sec: i64,
}

/// An opened file.
pub(super) struct RawFile<'a> {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    columns: Vec<Column<'a>>,
    num_rows: u64,
}

impl<'a> RawFile<'a> {
    /// Opens a file and finds its columns; no cell is read yet.
    ///
    /// # Errors
    /// It is no whole Parquet file, too large, or a column is missing or of another type.
    pub(super) fn open(path: &Path, wanted: &[Wanted<'a>]) -> Result<Self, RawFileError> {
        let (file, num_bytes) = check_ends(path)?;
        let reader = SerializedFileReader::new(file).map_err(|source| RawFileError::Footer {
            path: path.to_owned(),
            source,
        })?;
        let num_rows = check_sizes(path, num_bytes, reader.metadata())?;
        let columns = wanted
            .iter()
            .map(|wanted| find_column(path, reader.metadata(), *wanted))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            columns,
            num_rows,
        })
    }

    /// Rows of all row groups.
    #[must_use]
    pub(super) fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// Gives every row in order, numbered from 1, its cells in the order that was asked for.
    ///
    /// # Errors
    /// The file is damaged, or a cell cannot be what its column says, or `visit` failed.
    pub(super) fn for_each_row<E: From<RawFileError>>(
        &self,
        mut visit: impl FnMut(u64, Vec<Cell>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut first_row = 1;
        for group_idx in 0..self.reader.num_row_groups() {
            let mut readers = self.column_readers(group_idx, first_row)?;
            let num_rows = self.reader.metadata().row_group(group_idx).num_rows();
            let mut rows_left = usize::try_from(num_rows).unwrap_or(0); // checked in `open`
            while rows_left > 0 {
                let num_rows = rows_left.min(BATCH_ROWS);
                rows_left -= num_rows;
                let mut cells = Vec::with_capacity(self.columns.len());
                for (column, reader) in self.columns.iter().zip(&mut readers) {
                    cells.push(self.batch(column, reader, num_rows, first_row)?.into_iter());
                }
                for _ in 0..num_rows {
                    let row = cells.iter_mut().filter_map(Iterator::next).collect();
                    visit(first_row, row)?;
                    first_row += 1;
                }
            }
        }
        Ok(())
    }

    fn column_readers(
        &self,
        group_idx: usize,
        first_row: u64,
    ) -> Result<Vec<ColumnReader>, RawFileError> {
        let group = self.reader.get_row_group(group_idx);
        let group = group.map_err(|source| RawFileError::Footer {
            path: self.path.clone(),
            source,
        })?;
        let columns = self.columns.iter();
        columns
            .map(|column| {
                let reader = group.get_column_reader(column.idx);
                reader.map_err(|error| self.damaged(column, first_row, &error.to_string()))
            })
            .collect()
    }

    fn damaged(&self, column: &Column, row: u64, reason: &str) -> RawFileError {
        RawFileError::Damaged {
            path: self.path.clone(),
            column: column.wanted.name.to_owned(),
            row,
            reason: reason.to_owned(),
        }
    }

    /// The next cells of a column.
    fn batch(
        &self,
        column: &Column,
        reader: &mut ColumnReader,
        num_rows: usize,
        first_row: u64,
    ) -> Result<Vec<Cell>, RawFileError> {
        let is_optional = column.is_optional;
        let values = match reader {
            ColumnReader::Int32ColumnReader(reader) => {
                next_values(reader, num_rows, is_optional, Value::from_i32)
            }
            ColumnReader::Int64ColumnReader(reader) => {
                next_values(reader, num_rows, is_optional, Value::Whole)
            }
            ColumnReader::FloatColumnReader(reader) => {
                next_values(reader, num_rows, is_optional, Value::from_f32)
            }
            ColumnReader::DoubleColumnReader(reader) => {
                next_values(reader, num_rows, is_optional, Value::Fraction)
            }
            ColumnReader::ByteArrayColumnReader(reader) => {
                next_values(reader, num_rows, is_optional, Value::Bytes)
            }
            ColumnReader::BoolColumnReader(_)
            | ColumnReader::Int96ColumnReader(_)
            | ColumnReader::FixedLenByteArrayColumnReader(_) => {
                Err("the column changed its type".to_owned())
            }
        };
        let values = values.map_err(|reason| self.damaged(column, first_row, &reason))?;
        let rows = (first_row..).zip(values);
        rows.map(|(row, value)| {
            let shown = value.as_ref().map(Value::shown).unwrap_or_default();
            cell(column, value).map_err(|reason| RawFileError::Value {
                path: self.path.clone(),
                column: column.wanted.name.to_owned(),
                row,
                value: shown,
                reason,
            })
        })
        .collect()
    }
}

/// The file, whose first and last bytes are right, and its length.
pub(in crate::import) fn check_ends(path: &Path) -> Result<(File, i64), RawFileError> {
    let unreadable = |source| RawFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let num_bytes = file.metadata().map_err(unreadable)?.len();
    let mut ends = [[0; 4]; 2];
    if num_bytes >= 4 {
        file.read_exact(&mut ends[0]).map_err(unreadable)?;
        file.seek(SeekFrom::End(-4)).map_err(unreadable)?;
        file.read_exact(&mut ends[1]).map_err(unreadable)?;
    }
    if ends[0] != *MAGIC {
        return Err(RawFileError::NotParquet {
            path: path.to_owned(),
        });
    }
    // The magic twice, and the length of the footer between them.
    if ends[1] != *MAGIC || num_bytes < 12 {
        return Err(RawFileError::Truncated {
            path: path.to_owned(),
        });
    }
    Ok((file, i64::try_from(num_bytes).unwrap_or(i64::MAX)))
}

/// Number of rows, after every count and size of the footer was compared with its limit.
/// The file has `num_bytes`.
pub(in crate::import) fn check_sizes(
    path: &Path,
    num_bytes: i64,
    footer: &ParquetMetaData,
) -> Result<u64, RawFileError> {
    let check = |what: &dyn Fn() -> String, actual: i64, max: i64| {
        if (0..=max).contains(&actual) {
            return Ok(());
        }
        Err(RawFileError::TooLarge {
            path: path.to_owned(),
            what: what(),
            actual,
            max,
        })
    };
    let count = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
    let num_columns = footer.file_metadata().schema_descr().num_columns();
    let names = [
        ("the number of columns", count(num_columns), COLUMNS_MAX),
        (
            "the number of row groups",
            count(footer.num_row_groups()),
            ROW_GROUPS_MAX,
        ),
    ];
    for (what, actual, max) in names {
        check(&|| what.to_owned(), actual, count(max))?;
    }
    let rows_max = ROWS_MAX.cast_signed(); // far below 2^63
    let mut num_rows = 0_i64;
    for (idx, group) in footer.row_groups().iter().enumerate() {
        check(
            &|| format!("the number of rows of row group {idx}"),
            group.num_rows(),
            rows_max,
        )?;
        num_rows += group.num_rows(); // each is below 2^25, and there are at most 2^16
        for column in group.columns() {
            let of = |what: &str| {
                let name = column.column_path().string();
                format!("the {what} of column `{name}` in row group {idx}")
            };
            let sizes = [
                ("uncompressed size", column.uncompressed_size()),
                ("compressed size", column.compressed_size()),
            ];
            for (what, actual) in sizes {
                check(&|| of(what), actual, CHUNK_BYTES_MAX)?;
            }
            let pages = [
                Some(column.data_page_offset()),
                column.dictionary_page_offset(),
            ];
            for actual in pages.into_iter().flatten() {
                check(&|| of("first page"), actual, num_bytes)?;
            }
        }
    }
    check(&|| "the number of rows".to_owned(), num_rows, rows_max)?;
    Ok(num_rows.cast_unsigned()) // not negative
}

fn find_column<'a>(
    path: &Path,
    footer: &ParquetMetaData,
    wanted: Wanted<'a>,
) -> Result<Column<'a>, RawFileError> {
    let columns = footer.file_metadata().schema_descr().columns();
    let found = columns
        .iter()
        .position(|column| column.path().string() == wanted.name);
    let Some(idx) = found else {
        let present = columns.iter().map(|column| column.path().string());
        return Err(RawFileError::MissingColumn {
            path: path.to_owned(),
            column: wanted.name.to_owned(),
            present: present.collect(),
        });
    };
    let column = &columns[idx];
    let is_flat = column.max_rep_level() == 0 && column.max_def_level() <= 1;
    let units_per_sec = match (column.logical_type_ref(), column.converted_type()) {
        (Some(LogicalType::Timestamp(time)), _) => Some(match time.unit {
            TimeUnit::MILLIS => 1_000,
            TimeUnit::MICROS => 1_000_000,
            TimeUnit::NANOS => 1_000_000_000,
        }),
        (_, ConvertedType::TIMESTAMP_MILLIS) => Some(1_000),
        (_, ConvertedType::TIMESTAMP_MICROS) => Some(1_000_000),
        _ => None,
    };
    // A decimal is a whole number of another unit, and a time is no amount.
    let is_plain = units_per_sec.is_none() && column.converted_type() != ConvertedType::DECIMAL;
    let is_fit = match (wanted.kind, column.physical_type()) {
        (Kind::Time, Type::INT64) => units_per_sec.is_some(),
        (Kind::Name, Type::BYTE_ARRAY) => is_plain,
        (Kind::Name | Kind::Number, Type::INT32 | Type::INT64 | Type::FLOAT | Type::DOUBLE) => {
            is_plain
        }
        (Kind::Name | Kind::Number | Kind::Time, _) => false,
    };
    if !is_flat || !is_fit {
        let logical = column.logical_type_ref();
        let logical = logical.map(|logical| format!(" as {logical:?}"));
        let nested = if is_flat { "" } else { "nested " };
        return Err(RawFileError::WrongType {
            path: path.to_owned(),
            column: wanted.name.to_owned(),
            actual: format!(
                "{nested}{}{}",
                column.physical_type(),
                logical.unwrap_or_default()
            ),
            expected: wanted.kind.expected(),
        });
    }
    Ok(Column {
        wanted,
        idx,
        is_optional: column.max_def_level() == 1,
        units_per_sec: units_per_sec.unwrap_or(1),
    })
}

/// The next `num_rows` values, `None` where a cell is empty.
fn next_values<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    num_rows: usize,
    is_optional: bool,
    value_of: fn(T::T) -> Value,
) -> Result<Vec<Option<Value>>, String> {
    let mut cells = Vec::with_capacity(num_rows);
    while cells.len() < num_rows {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let num_left = num_rows - cells.len();
        // The library panics where a page names a dictionary that is not there; the reader is not used after that.
        let read = std::panic::catch_unwind(AssertUnwindSafe(|| {
            reader.read_records(num_left, Some(&mut levels), None, &mut values)
        }));
        let read = read.map_err(|_panic| "a page makes no sense".to_owned())?;
        let (num_records, _, _) = read.map_err(|error| error.to_string())?;
        if num_records == 0 {
            return Err("it ends before its row group does".to_owned());
        }
        let mut values = values.into_iter();
        if is_optional {
            for level in levels {
                let value = if level == 0 {
                    None
                } else {
                    Some(values.next().ok_or("a value is missing")?)
                };
                cells.push(value.map(value_of));
            }
        } else {
            cells.extend(values.map(|value| Some(value_of(value))));
        }
    }
    Ok(cells)
}

#[cfg(test)]
mod tests;
