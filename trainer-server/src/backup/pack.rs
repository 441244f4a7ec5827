//! Writing a backup: versions first, then what is beside them, the log last.
//!
//! Why this is consistent: a blob is written before its manifest and removed after it, so a manifest that was there
//! before the blobs were read and is there afterwards has all of them. What is read after the versions is newer than
//! they are, and a start drops what a rollback or a ledger says of versions that never came out. The log ends
//! at a moment that is later than all of it, so it holds what every version has learned; it only grows, and where it is
//! rewritten meanwhile the backup is given up.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use shared_model::ids::{BlobId, LogOffset, Version};

use super::{
    BackupError, CONTENTS_NAME, Contents, FORMAT, FileContents, Hashed, LogContents, Sink,
};
use crate::event_log::EventLog;
use crate::event_log::view::LogView;
use crate::pseudonyms;

/// Records and bytes after which a segment of the log ends. A segment that has ended never changes.
const SEGMENT_RECORDS: usize = 16_384;
const SEGMENT_BYTES: usize = 16 << 20;

/// Files beside versions and log, where they are there.
const SINGLE_FILES: [&str; 10] = [
    "privacy.json",
    "rollout.json",
    "moderation.json",
    "experiments.json",
    "ledger.jsonl",
    "skipped.older.jsonl",
    "skipped.jsonl",
    "erasures.jsonl",
    "checkpoint.safetensors",
    "text-tuner.safetensors",
];
/// Start of the names of what the text encoder has learned.
const TEXT_ENCODER_PREFIX: &str = "text-encoder-";
const SECRET_KEY_SUFFIX: &str = ".key";

/// What is backed up.
pub struct Source<'a> {
    /// The data folder.
    pub data_dir: &'a Path,
    /// Its log.
    pub log: &'a EventLog,
    /// Whether secret keys go with it.
    pub with_keys: bool,
    /// Now, in milliseconds since 1970-01-01 UTC.
    pub now_millis: i64,
    /// A backup that the receiver has; what has not changed since is not sent again.
    pub base: Option<&'a Contents>,
}

/// Writes all files into `sink`; what is in the backup is the caller's to write last. `progress` hears of bytes.
///
/// # Errors
/// A file cannot be read, or the sink does not take it.
pub fn pack(
    source: &Source<'_>,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64),
) -> Result<Contents, BackupError> {
    let mut packer = Packer {
        source,
        sink,
        progress,
        known: HashMap::new(),
        files: Vec::new(),
    };
    for file in source.base.iter().flat_map(|base| &base.files) {
        packer.known.insert(&file.path, file);
    }
    let model_version = packer.versions()?;
    packer.single_files()?;
    packer.keys()?;
    let log = packer.log()?;
    Ok(Contents {
        format: FORMAT,
        freshet: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: source.now_millis,
        has_keys: source.with_keys,
        model_version,
        log,
        files: packer.files,
        checksum: None,
    })
}

struct Packer<'a> {
    source: &'a Source<'a>,
    sink: &'a mut dyn Sink,
    progress: &'a mut dyn FnMut(u64),
    /// Files that the receiver has.
    known: HashMap<&'a str, &'a FileContents>,
    files: Vec<FileContents>,
}

impl Packer<'_> {
    fn versions(&mut self) -> Result<Option<Version>, BackupError> {
        let listed = self.names("manifests")?;
        for name in self.names("blobs")? {
            let path = format!("blobs/{name}");
            match self.known.get(path.as_str()) {
                Some(known) => self.files.push((*known).clone()),
                None => self.copy(&path)?,
            }
        }
        let mut newest = None;
        for name in listed {
            let is_taken = self.copy_if_there(&format!("manifests/{name}"))?;
            let number = name
                .strip_suffix(".json")
                .and_then(|digits| digits.parse().ok());
            if is_taken && let Some(number) = number {
                newest = Some(Version(number)); // names are in order
            }
        }
        Ok(newest)
    }

    fn single_files(&mut self) -> Result<(), BackupError> {
        for name in SINGLE_FILES {
            self.copy_if_there(name)?;
        }
        for name in self.names("")? {
            if name.starts_with(TEXT_ENCODER_PREFIX) {
                self.copy_if_there(&name)?;
            }
        }
        Ok(())
    }

    /// Key sets are public and always go; secrets only where asked for.
    fn keys(&mut self) -> Result<(), BackupError> {
        if self.source.with_keys {
            self.copy_if_there("signing.key")?;
            self.copy_if_there(pseudonyms::KEY_FILE_NAME)?;
        }
        for name in self.names("keys")? {
            if self.source.with_keys || !name.ends_with(SECRET_KEY_SUFFIX) {
                self.copy_if_there(&format!("keys/{name}"))?;
            }
        }
        Ok(())
    }

    fn log(&mut self) -> Result<LogContents, BackupError> {
        let view = self.source.log.view()?;
        let contents = LogContents {
            format: view.format()?,
            end: view.end(),
            erased_through: view.erased_through()?,
            rewrites: view.rewrites()?,
            pseudonyms: view.pseudonyms()?,
        };
        let mut at = self.known_segments(&view)?;
        drop(view); // one that lives as long as a slow receiver takes would keep the log from being opened again
        while at < contents.end {
            let view = self.source.log.view()?;
            if view.rewrites()? != contents.rewrites {
                return Err(BackupError::Rewritten);
            }
            let (bytes, through) = segment(&view, at, contents.end)?;
            let path = segment_path(at);
            let num_bytes = bytes.len() as u64; // widening
            self.send(&path, num_bytes, &mut bytes.as_slice(), Some(through))?;
            at = through;
        }
        Ok(contents)
    }

    /// Takes over the segments that the receiver has and that are the same here; one past them.
    fn known_segments(&mut self, view: &LogView) -> Result<LogOffset, BackupError> {
        let mut at = LogOffset(0);
        let Some(base) = self.source.base else {
            return Ok(at);
        };
        let mut segments: Vec<_> = base
            .files
            .iter()
            .filter(|file| file.through.is_some())
            .collect();
        segments.pop(); // the last one may have gone on
        let Some(last) = segments.last() else {
            return Ok(at);
        };
        let from = segments[..segments.len() - 1]
            .last()
            .and_then(|file| file.through);
        let (bytes, through) = segment(view, from.unwrap_or_default(), view.end())?;
        let is_same = base.log.rewrites == view.rewrites()?
            && last.through == Some(through)
            && last.blake3 == BlobId::of(&bytes);
        if is_same {
            self.files.extend(segments.into_iter().cloned());
            at = through;
        }
        Ok(at)
    }

    /// Finished files of a folder, sorted; none where there is no folder.
    fn names(&self, dir: &str) -> Result<Vec<String>, BackupError> {
        let dir = self.source.data_dir.join(dir);
        let cannot_list = |error| BackupError::io("cannot list", &dir)(error);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(cannot_list)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(cannot_list)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && entry.file_type().map_err(cannot_list)?.is_file() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// A file that retention may have removed since it was listed.
    fn copy(&mut self, path: &str) -> Result<(), BackupError> {
        self.copy_if_there(path).map(|_| ())
    }

    fn copy_if_there(&mut self, path: &str) -> Result<bool, BackupError> {
        let full = self.source.data_dir.join(path);
        let cannot_read = |error| BackupError::io("cannot read", &full)(error);
        let mut file = match File::open(&full) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file.map_err(cannot_read)?,
        };
        let bytes = file.metadata().map_err(cannot_read)?.len();
        self.send(path, bytes, &mut file, None)?;
        Ok(true)
    }

    fn send(
        &mut self,
        path: &str,
        bytes: u64,
        reader: &mut dyn Read,
        through: Option<LogOffset>,
    ) -> Result<(), BackupError> {
        let mut hashed = Hashed::new(reader, bytes);
        let sent = self
            .sink
            .file(path, &mut hashed)
            .and_then(|()| hashed.finish());
        let (bytes, blake3) = sent.map_err(BackupError::io(
            "cannot copy into the backup",
            Path::new(path),
        ))?;
        self.files.push(FileContents {
            path: path.to_owned(),
            bytes,
            blake3,
            through,
        });
        (self.progress)(bytes);
        Ok(())
    }
}

/// Lines of the segment that begins at `from`, in a log that ends at `end`, and one past its last record.
fn segment(
    view: &LogView,
    from: LogOffset,
    end: LogOffset,
) -> Result<(Vec<u8>, LogOffset), BackupError> {
    let left = end.0.saturating_sub(from.0).min(SEGMENT_RECORDS as u64) as usize; // fits by the min
    let records = view.raw(from, left, SEGMENT_BYTES)?;
    let through = LogOffset(from.0 + records.len() as u64); // widening
    let mut lines = Vec::with_capacity(records.iter().map(|record| record.len() + 1).sum());
    for record in records {
        lines.extend_from_slice(&record);
        lines.push(b'\n');
    }
    Ok((lines, through))
}

pub(super) fn segment_path(from: LogOffset) -> String {
    format!("log/{:020}.jsonl", from.0)
}

/// A backup as an archive (tar).
pub struct Archive<W: Write> {
    builder: tar::Builder<W>,
}

impl<W: Write> Archive<W> {
    /// Into a writer.
    pub fn new(writer: W) -> Self {
        Self {
            builder: tar::Builder::new(writer),
        }
    }

    /// Writes what is in it as its last file.
    ///
    /// # Errors
    /// The writer failed.
    pub fn finish(mut self, contents: &Contents) -> io::Result<W> {
        let bytes = contents.to_json();
        self.add(CONTENTS_NAME, bytes.len() as u64, &mut bytes.as_slice())?; // widening
        self.builder.into_inner()
    }

    fn add(&mut self, path: &str, bytes: u64, reader: &mut dyn Read) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o600);
        self.builder.append_data(&mut header, path, reader)
    }
}

impl<W: Write> Sink for Archive<W> {
    fn file(&mut self, path: &str, reader: &mut Hashed<'_>) -> io::Result<()> {
        self.add(path, reader.num_bytes(), reader)
    }
}
