//! Bytes of a file, unpacked, as lines and as cells of CSV.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Error, Read, Result, Seek};
use std::path::Path;
use std::rc::Rc;

use super::CELLS_MAX;
use crate::import::ImportError;

/// Longest row, in bytes.
pub(super) const ROW_BYTES_MAX: usize = 1 << 20;
/// Largest window of zstd, as a power of two: what its own program unpacks without being asked.
const WINDOW_LOG_MAX: u32 = 27;

/// What some programs write at the start of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The next of something with the number of its line, which an error has, too.
type Numbered<T> = std::result::Result<Option<(usize, T)>, (usize, Error)>;

/// A reader that counts.
struct Counted {
    file: File,
    num_read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let num_bytes = self.file.read(buffer)?;
        self.num_read.set(self.num_read.get() + num_bytes as u64); // widening
        Ok(num_bytes)
    }
}

/// The unpacked bytes of a file.
struct Source {
    reader: BufReader<Box<dyn Read>>,
    /// Packed bytes.
    num_read: Rc<Cell<u64>>,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let mut magic = Vec::new();
        file.by_ref().take(4).read_to_end(&mut magic)?;
        file.rewind()?;
        let num_read = Rc::default();
        let counted = Counted {
            file,
            num_read: Rc::clone(&num_read),
        };
        let reader: Box<dyn Read> = match magic.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(counted)),
            [0x28, 0xb5, 0x2f, 0xfd] => {
                let mut unpacked = zstd::stream::read::Decoder::new(counted)?;
                unpacked.window_log_max(WINDOW_LOG_MAX)?;
                Box::new(unpacked)
            }
            b"PK\x03\x04" => {
                let reason = "a zip archive: unpack it, and name the folder or the files in it";
                return Err(Error::other(reason));
            }
            _ => Box::new(counted),
        };
        Ok(Self {
            reader: BufReader::with_capacity(1 << 16, reader),
            num_read,
        })
    }
}

/// How a file begins.
#[derive(Debug, Default, Clone)]
pub(in crate::import) struct Peeked {
    pub(in crate::import) is_parquet: bool,
    /// The first line that is not blank.
    pub(in crate::import) first_line: String,
}

/// Looks at the beginning of a file.
pub(in crate::import) fn peek(path: &Path) -> std::result::Result<Peeked, ImportError> {
    let failed = |(line, source)| ImportError::Unreadable {
        path: path.to_owned(),
        line,
        source,
    };
    let mut lines = Lines::open(path).map_err(|source| failed((0, source)))?;
    let first = lines.source.reader.fill_buf();
    if first
        .map_err(|source| failed((0, source)))?
        .starts_with(b"PAR1")
    {
        return Ok(Peeked {
            is_parquet: true,
            ..Peeked::default()
        });
    }
    let (_, first_line) = lines.next_line().map_err(failed)?.unwrap_or_default();
    Ok(Peeked {
        first_line: String::from_utf8_lossy(&first_line).into_owned(),
        is_parquet: false,
    })
}

/// Lines of a file that are not blank.
pub(super) struct Lines {
    source: Source,
    num_lines: usize,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            source: Source::open(path)?,
            num_lines: 0,
        })
    }

    pub(super) fn num_bytes_read(&self) -> u64 {
        self.source.num_read.get()
    }

    /// The next line.
    pub(super) fn next_line(&mut self) -> Numbered<Vec<u8>> {
        let limit = ROW_BYTES_MAX as u64 + 1; // widening
        loop {
            self.num_lines += 1;
            let mut bytes = Vec::new();
            let limited = &mut self.source.reader.by_ref().take(limit);
            let read = limited.read_until(b'\n', &mut bytes);
            if read.map_err(|error| (self.num_lines, error))? == 0 {
                return Ok(None);
            }
            if bytes.len() > ROW_BYTES_MAX {
                let reason = format!("the line is longer than {ROW_BYTES_MAX} bytes");
                return Err((self.num_lines, Error::other(reason)));
            }
            while bytes.last().is_some_and(|byte| b"\r\n".contains(byte)) {
                bytes.pop();
            }
            if self.num_lines == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some((self.num_lines, bytes)));
            }
        }
    }
}

/// Rows of a CSV file.
pub(super) struct CsvCells {
    source: Source,
    reader: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl CsvCells {
    pub(super) fn open(path: &Path, delimiter: u8) -> Result<Self> {
        Ok(Self {
            source: Source::open(path)?,
            reader: csv_core::ReaderBuilder::new().delimiter(delimiter).build(),
            text: vec![0; ROW_BYTES_MAX],
            ends: vec![0; CELLS_MAX],
        })
    }

    pub(super) fn num_bytes_read(&self) -> u64 {
        self.source.num_read.get()
    }

    /// The cells of the next row, which may be several lines.
    pub(super) fn next_cells(&mut self) -> Numbered<Vec<Vec<u8>>> {
        use csv_core::ReadRecordResult::{End, InputEmpty, OutputEndsFull, OutputFull, Record};
        let line = usize::try_from(self.reader.line()).unwrap_or(usize::MAX); // only told
        let failed = |reason: String| Err((line, Error::other(reason)));
        let (mut num_bytes, mut num_cells) = (0, 0);
        loop {
            let input = self
                .source
                .reader
                .fill_buf()
                .map_err(|error| (line, error))?;
            let (result, taken, written, ended) = self.reader.read_record(
                input,
                &mut self.text[num_bytes..],
                &mut self.ends[num_cells..],
            );
            self.source.reader.consume(taken);
            num_bytes += written;
            num_cells += ended;
            match result {
                InputEmpty => {}
                OutputFull => {
                    return failed(format!(
                        "the row is longer than {ROW_BYTES_MAX} bytes; a quote may be left open"
                    ));
                }
                OutputEndsFull => {
                    return failed(format!("the row has more than {CELLS_MAX} cells"));
                }
                Record => break,
                End => return Ok(None),
            }
        }
        let mut start = 0;
        let cells = self.ends[..num_cells].iter().map(|end| {
            let cell = self.text[start..*end].to_vec();
            start = *end;
            cell
        });
        Ok(Some((line, cells.collect())))
    }
}
