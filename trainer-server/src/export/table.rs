//! A file of rows in the making, in one of three formats.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Value};

use super::{ExportError, Format};

/// Rows of a row group of Parquet, which are in memory at once,
const GROUP_ROWS: usize = 65_536;
/// and their bytes as JSON; what makes a group full first counts.
const GROUP_BYTES: usize = 64 << 20;

/// Name and kind of a column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column(pub(super) &'static str, pub(super) Kind);

/// What the cells of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A text that is JSON.
    Json,
    Whole,
    Fraction,
    Truth,
    /// Milliseconds since 1970-01-01 UTC.
    Moment,
}

impl Kind {
    /// In the language of Parquet's schemas.
    fn schema(self, name: &str) -> String {
        match self {
            Self::Text => format!("optional binary {name} (string);"),
            Self::Json => format!("optional binary {name} (json);"),
            Self::Whole => format!("optional int64 {name};"),
            Self::Fraction => format!("optional double {name};"),
            Self::Truth => format!("optional boolean {name};"),
            Self::Moment => format!("optional int64 {name} (timestamp(millis,true));"),
        }
    }
}

/// A file that is being written.
pub(super) struct Table {
    path: PathBuf,
    columns: &'static [Column],
    writer: Writer,
    num_rows: u64,
}

/// Rows that wait, and their bytes.
#[derive(Default)]
struct Group {
    rows: Vec<Map<String, Value>>,
    num_bytes: usize,
}

enum Writer {
    Jsonl(BufWriter<File>),
    Csv(BufWriter<File>),
    Parquet(SerializedFileWriter<File>, Group),
}

impl Table {
    pub(super) fn create(
        path: &Path,
        format: Format,
        columns: &'static [Column],
    ) -> Result<Self, ExportError> {
        let file = File::create(partial(path)).map_err(unwritable(path))?;
        let writer = match format {
            Format::Jsonl => Writer::Jsonl(BufWriter::new(file)),
            Format::Csv => {
                let mut file = BufWriter::new(file);
                let names: Vec<&str> = columns.iter().map(|column| column.0).collect();
                writeln!(file, "{}", names.join(",")).map_err(unwritable(path))?;
                Writer::Csv(file)
            }
            Format::Parquet => {
                let writer = parquet_writer(file, columns).map_err(failed(path))?;
                Writer::Parquet(writer, Group::default())
            }
        };
        Ok(Self {
            path: path.to_owned(),
            columns,
            writer,
            num_rows: 0,
        })
    }

    pub(super) fn write(&mut self, row: Map<String, Value>) -> Result<(), ExportError> {
        self.num_rows += 1;
        match &mut self.writer {
            Writer::Jsonl(file) => {
                writeln!(file, "{}", Value::Object(row)).map_err(unwritable(&self.path))
            }
            Writer::Csv(file) => {
                let cells: Vec<String> = self
                    .columns
                    .iter()
                    .map(|column| csv_cell(row.get(column.0)))
                    .collect();
                writeln!(file, "{}", cells.join(",")).map_err(unwritable(&self.path))
            }
            Writer::Parquet(writer, group) => {
                let row = Value::Object(row);
                group.num_bytes += row.to_string().len();
                if let Value::Object(row) = row {
                    group.rows.push(row);
                }
                if group.rows.len() < GROUP_ROWS && group.num_bytes < GROUP_BYTES {
                    return Ok(());
                }
                group.num_bytes = 0;
                let written = write_group(writer, self.columns, &mut group.rows);
                written.map_err(failed(&self.path))
            }
        }
    }

    /// Brings the file to its place; returns the number of its rows.
    pub(super) fn finish(self) -> Result<u64, ExportError> {
        let path = &self.path;
        let file = match self.writer {
            Writer::Jsonl(file) | Writer::Csv(file) => {
                let file = file
                    .into_inner()
                    .map_err(std::io::IntoInnerError::into_error);
                file.map_err(unwritable(path))?
            }
            Writer::Parquet(mut writer, Group { mut rows, .. }) => {
                if !rows.is_empty() {
                    write_group(&mut writer, self.columns, &mut rows).map_err(failed(path))?;
                }
                writer.into_inner().map_err(failed(path))?
            }
        };
        file.sync_all().map_err(unwritable(path))?;
        std::fs::rename(partial(path), path).map_err(unwritable(path))?;
        Ok(self.num_rows)
    }
}

/// Where the file is until it is whole.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn unwritable(path: &Path) -> impl FnOnce(std::io::Error) -> ExportError {
    let path = path.to_owned();
    |source| ExportError::Unwritable { path, source }
}

fn failed(path: &Path) -> impl FnOnce(ParquetError) -> ExportError {
    let path = path.to_owned();
    |source| ExportError::Parquet { path, source }
}

/// A text without quotes around it, or anything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A cell after RFC 4180.
fn csv_cell(value: Option<&Value>) -> String {
    let text = value.map(plain).unwrap_or_default();
    if text.contains(['"', ',', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

fn parquet_writer(
    file: File,
    columns: &[Column],
) -> Result<SerializedFileWriter<File>, ParquetError> {
    let fields: String = columns
        .iter()
        .map(|Column(name, kind)| kind.schema(name))
        .collect();
    let schema = parse_message_type(&format!("message freshet {{ {fields} }}"))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))
}

/// Writes rows, and empties the list of them.
fn write_group(
    writer: &mut SerializedFileWriter<File>,
    columns: &[Column],
    rows: &mut Vec<Map<String, Value>>,
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for Column(name, kind) in columns {
        let cells = rows.iter().map(|row| row.get(*name));
        match kind {
            Kind::Text | Kind::Json => {
                let text = |value: &Value| Some(ByteArray::from(plain(value).as_str()));
                write_column::<ByteArrayType>(&mut group, cells.map(|cell| cell.and_then(text)))?;
            }
            Kind::Whole | Kind::Moment => {
                write_column::<Int64Type>(
                    &mut group,
                    cells.map(|cell| cell.and_then(Value::as_i64)),
                )?;
            }
            Kind::Fraction => {
                write_column::<DoubleType>(
                    &mut group,
                    cells.map(|cell| cell.and_then(Value::as_f64)),
                )?;
            }
            Kind::Truth => {
                write_column::<BoolType>(
                    &mut group,
                    cells.map(|cell| cell.and_then(Value::as_bool)),
                )?;
            }
        }
    }
    group.close()?;
    rows.clear();
    Ok(())
}

fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    cells: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for cell in cells {
        levels.push(i16::from(cell.is_some()));
        values.extend(cell);
    }
    let mut column = group.next_column()?.expect("as many as the schema has");
    column
        .typed::<T>()
        .write_batch(&values, Some(&levels), None)?;
    column.close()
}
