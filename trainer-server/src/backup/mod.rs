//! Backups: one consistent copy of what cannot be made anew, taken while the server runs or from its folder.
//!
//! ```text
//! backup.json                  what is in it: path, size and BLAKE3 hash of every file, and where the log ends
//! log/OFFSET.jsonl             records from OFFSET on, a line each, as they are stored
//! blobs/…  manifests/…         versions
//! privacy.json, rollout.json, moderation.json, experiments.json, ledger.jsonl, erasures.jsonl, checkpoint.safetensors, …   as in the data folder
//! ```
//! As an archive (tar) the files follow one another, `backup.json` last, so an archive that was cut off has none.
//! As a folder every file lies in `objects/` under its hash and `backup.json` is replaced when all are there; the next
//! backup into that folder writes only what is new.
//!
//! `pack` writes, `unpack` reads, `restore` makes a data folder of it, `verify` checks one of either.
//! Secret keys are in it only where they are asked for. Not in it: caches, which are made anew.

mod folder;
pub mod pack;
pub mod restore;
pub mod unpack;
pub mod verify;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::ids::{BlobId, LogOffset, Version};

use crate::event_log::EventLogError;

pub use folder::Folder;

/// Layout of backups.
pub const FORMAT: u32 = 1;
/// Name of what says what is in a backup.
pub const CONTENTS_NAME: &str = "backup.json";
/// Largest [`Contents`] as JSON, in bytes; 200,000 files need about 40 MB.
pub const CONTENTS_BYTES_MAX: u64 = 64 << 20;
/// Largest segment of the log, in bytes: those of [`pack`] and one more record.
const SEGMENT_BYTES_MAX: u64 = 24 << 20;

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of Freshet that wrote it.
    pub freshet: String,
    /// When it was begun, in milliseconds since 1970-01-01 UTC.
    pub created_at: i64,
    /// Whether the secret keys are in it.
    pub has_keys: bool,
    /// Newest version in it.
    pub model_version: Option<Version>,
    /// The log.
    pub log: LogContents,
    /// All files, in the order in which they are restored.
    pub files: Vec<FileContents>,
    /// BLAKE3 hash of all this as compact JSON without this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<BlobId>,
}

/// Of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogContents {
    /// Format of its records.
    pub format: u64,
    /// One past its last record: what was accepted below it is in the backup.
    pub end: LogOffset,
    /// One past the last erasure that was carried out.
    pub erased_through: u64,
    /// Names its rewrites.
    pub rewrites: u64,
    /// Names the key of the pseudonyms that it holds in place of user ids; left out where ids are as they were sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pseudonyms: u64,
}

fn is_zero(name: &u64) -> bool {
    *name == 0
}

/// Of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileContents {
    /// Relative to the data folder.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 hash of its bytes.
    pub blake3: BlobId,
    /// Of a segment of the log: one past its last record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<LogOffset>,
}

impl Contents {
    /// As JSON, with its checksum.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut summed = self.clone();
        summed.checksum = Some(self.sum());
        serde_json::to_vec(&summed).expect("plain values always serialize")
    }

    fn sum(&self) -> BlobId {
        let mut plain = self.clone();
        plain.checksum = None;
        let json = serde_json::to_vec(&plain).expect("plain values always serialize");
        BlobId::of(&json)
    }

    /// Reads and checks.
    ///
    /// # Errors
    /// No contents, of another format, or with a path that leads elsewhere.
    pub fn parse(bytes: &[u8]) -> Result<Self, BackupError> {
        let malformed = |detail: String| BackupError::Malformed {
            path: CONTENTS_NAME.to_owned(),
            detail,
        };
        let contents: Self =
            serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if contents.format != FORMAT {
            let actual = contents.format;
            return Err(malformed(format!(
                "format {actual}, this build reads {FORMAT}"
            )));
        }
        if contents.checksum != Some(contents.sum()) {
            return Err(malformed("it does not have its checksum".to_owned()));
        }
        for file in &contents.files {
            check_path(&file.path)?;
        }
        Ok(contents)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn num_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A path in a backup: at most one folder, and never a way out.
fn check_path(path: &str) -> Result<(), BackupError> {
    let mut parts = path.split('/');
    let is_sound = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=200).contains(&part.len()) && !part.starts_with('.') && part.bytes().all(is_plain)
    };
    if parts.clone().count() <= 2 && parts.all(is_sound) {
        return Ok(());
    }
    Err(BackupError::Malformed {
        path: path.escape_default().to_string(),
        detail: "no path of a backup".to_owned(),
    })
}

/// A file on its way, hashed as it is read; exactly as long as it was said to be.
pub struct Hashed<'a> {
    reader: io::Take<&'a mut dyn Read>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<'a> Hashed<'a> {
    /// The first `bytes` of `reader`.
    pub fn new(reader: &'a mut dyn Read, bytes: u64) -> Self {
        Self {
            reader: reader.take(bytes),
            hasher: blake3::Hasher::new(),
            bytes,
        }
    }

    /// Its size.
    #[must_use]
    pub fn num_bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads what is left; size and hash of the whole.
    ///
    /// # Errors
    /// It cannot be read, or is shorter than was said.
    pub fn finish(&mut self) -> io::Result<(u64, BlobId)> {
        io::copy(self, &mut io::sink())?;
        let left = self.reader.limit();
        if left > 0 {
            let detail = format!("{left} of {} bytes are missing", self.bytes);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, detail));
        }
        let hex = self.hasher.finalize().to_hex();
        let hash = BlobId::from_hex(&hex).expect("a BLAKE3 hash has 64 hexadecimal digits");
        Ok((self.bytes, hash))
    }
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let num_read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..num_read]);
        Ok(num_read)
    }
}

/// Where the files of a backup go.
pub trait Sink {
    /// The next file; `reader` need not be read to its end.
    ///
    /// # Errors
    /// It cannot be read or written.
    fn file(&mut self, path: &str, reader: &mut Hashed<'_>) -> io::Result<()>;
}

/// Why a backup could not be written, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system failed.
    #[error("{action}: {source}: {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of a backup or a data folder is not what it should be.
    #[error("{path}: {detail}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// The bytes are not those that were written.
    #[error(
        "{path} is damaged: {actual_bytes} bytes with hash {actual}, expected {expected_bytes} with {expected}"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Size found.
        actual_bytes: u64,
        /// Hash found.
        actual: BlobId,
        /// Size that was written.
        expected_bytes: u64,
        /// Hash that was written.
        expected: BlobId,
    },
    /// A file that is listed is not there.
    #[error("{path} is missing")]
    Missing {
        /// The file.
        path: String,
    },
    /// There is something where the restored folder is to be.
    #[error("a backup is restored into a folder that is empty or not there: {}", .0.display())]
    NotEmpty(PathBuf),
    /// An erasure or retention came in between.
    #[error("events were taken out of the log during the backup; take it again")]
    Rewritten,
    /// The log failed.
    #[error(transparent)]
    Log(#[from] EventLogError),
}

impl BackupError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_leads_out_of_the_folder() {
        for sound in [
            "rollout.json",
            "blobs/00ff",
            "log/00000000000000000000.jsonl",
        ] {
            assert!(check_path(sound).is_ok(), "{sound}");
        }
        let bad = [
            "",
            "/etc/passwd",
            "../x",
            "blobs/../x",
            "a/b/c",
            "a//b",
            ".unfinished-x",
            "a\\b",
            "a/",
        ];
        for path in bad {
            assert!(check_path(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_file_that_is_shorter_than_was_said_is_an_error() {
        let mut bytes = &b"freshet"[..];
        let mut whole = Hashed::new(&mut bytes, 7);
        assert_eq!(whole.finish().expect("whole"), (7, BlobId::of(b"freshet")));
        let mut bytes = &b"fresh"[..];
        assert!(Hashed::new(&mut bytes, 7).finish().is_err());
    }
}
