//! Rows of a Parquet file; its footer is held against the limits of `raw` before a column is opened.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use serde_json::Value;

use super::{NumberedRow, Row, renamed};
use crate::import::ImportError;
use crate::import::raw::{RawFileError, check_ends, check_sizes};

/// Rows, one after the other.
pub(super) struct ParquetRows {
    rows: RowIter<'static>,
    header: Vec<String>,
    num_rows: u64,
    num_bytes: u64,
    num_read: u64,
}

impl ParquetRows {
    pub(super) fn open(path: &Path, renames: &[(String, String)]) -> Result<Self, ImportError> {
        let (file, num_bytes) = check_ends(path)?;
        let footer = |source| RawFileError::Footer {
            path: PathBuf::from(path),
            source,
        };
        let reader = SerializedFileReader::new(file).map_err(footer)?;
        let num_rows = check_sizes(path, num_bytes, reader.metadata())?;
        let columns = reader.metadata().file_metadata().schema_descr();
        let columns = columns.root_schema().get_fields().iter();
        Ok(Self {
            header: columns
                .map(|column| renamed(column.name(), renames))
                .collect(),
            rows: reader.into_iter(),
            num_rows,
            num_bytes: num_bytes.unsigned_abs(),
            num_read: 0,
        })
    }

    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// In proportion to the rows.
    pub(super) fn num_bytes_read(&self) -> u64 {
        self.num_bytes * self.num_read / self.num_rows.max(1)
    }

    /// After a row that cannot be read there is no other.
    pub(super) fn next_row(&mut self) -> Option<NumberedRow> {
        if self.num_read == self.num_rows {
            return None;
        }
        self.num_read += 1;
        let line = usize::try_from(self.num_read).unwrap_or(usize::MAX); // only told
        // The library panics at some pages that make no sense; it is not asked again after that.
        let read = std::panic::catch_unwind(AssertUnwindSafe(|| self.rows.next()));
        let row = match read {
            Ok(Some(Ok(row))) => {
                let fields = row.get_column_iter().map(|(_, field)| field);
                let values = self.header.iter().zip(fields);
                let values = values.map(|(name, field)| (name.clone(), value_of(name, field)));
                return Some(NumberedRow {
                    line,
                    row: Ok(values.collect::<Row>()),
                });
            }
            Ok(Some(Err(error))) => error.to_string(),
            Ok(None) => "it ends before its row group does".to_owned(),
            Err(_panic) => "a page makes no sense".to_owned(),
        };
        let num_left = self.num_rows - self.num_read;
        self.num_read = self.num_rows;
        let reason = format!("the file is damaged, {num_left} rows behind are not read: {row}");
        Some(NumberedRow {
            line,
            row: Err(reason),
        })
    }
}

/// A moment is in milliseconds where the column is to be `occurred_at`, and in seconds elsewhere.
fn value_of(name: &str, field: &Field) -> Value {
    let moment = |millis: i64| match name {
        "occurred_at" => Value::from(millis),
        _ => Value::from(millis as f64 / 1000.0), // exact for 280,000 years
    };
    match field {
        Field::Null | Field::Group(_) | Field::MapInternal(_) => Value::Null,
        Field::ListInternal(list) => {
            let elements = list.elements().iter();
            elements.map(|element| value_of("", element)).collect()
        }
        Field::Bool(value) => Value::from(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Date(days) => moment(i64::from(*days) * 86_400_000),
        Field::Int(value) | Field::TimeMillis(value) => Value::from(*value),
        Field::Long(value) | Field::TimeMicros(value) => Value::from(*value),
        Field::UByte(value) => Value::from(*value),
        Field::UShort(value) => Value::from(*value),
        Field::UInt(value) => Value::from(*value),
        Field::ULong(value) => Value::from(*value),
        Field::Float(value) => Value::from(*value),
        Field::Double(value) => Value::from(*value),
        Field::Str(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => Value::from(String::from_utf8_lossy(bytes.data())),
        Field::TimestampMillis(millis) => moment(*millis),
        Field::TimestampMicros(micros) => moment(micros / 1000),
        Field::Float16(_) | Field::Decimal(_) => Value::from(field.to_string()),
    }
}
