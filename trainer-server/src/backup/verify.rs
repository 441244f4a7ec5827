//! Checking a backup or a data folder: every hash, every record, and that versions tile the log.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use shared_model::ids::{BlobId, LogOffset, UserId, Version};
use shared_model::manifest::{MANIFEST_BYTES_MAX, Manifest};

use super::restore::read_segment;
use super::unpack::unpack;
use super::{BackupError, Hashed};
use crate::event_log::{EventLog, EventLogConfig, EventLogError, LogRecord};

/// What was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files whose hashes hold.
    pub num_files: u64,
    /// Their bytes.
    pub num_bytes: u64,
    /// One past the last record of the log.
    pub log_end: LogOffset,
    /// Events in it.
    pub num_events: u64,
    /// Events that were taken out of it.
    pub num_tombstones: u64,
    /// Manifests that tile it.
    pub num_versions: u64,
    /// The newest of them.
    pub model_version: Option<Version>,
}

/// Checks the backup at `path`, folder or archive. `progress` hears of bytes.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify_backup(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<Verified, BackupError> {
    let mut verified = Verified::default();
    let mut tiling = Tiling::default();
    let contents = unpack(path, &mut |path, file| {
        progress(file.num_bytes());
        verified.num_files += 1;
        verified.num_bytes += file.num_bytes();
        if path.starts_with("log/") {
            return verified.add_segment(path, file);
        }
        if let Some(version) = version_of(path) {
            tiling.add(version, path, file)?;
        }
        Ok(())
    })?;
    verified.finish(&tiling)?;
    if verified.log_end != contents.log.end {
        let (actual, expected) = (verified.log_end, contents.log.end);
        return Err(malformed(
            "log",
            format!("it ends at {actual}, expected {expected}"),
        ));
    }
    Ok(verified)
}

/// Checks a data folder that no server uses.
///
/// # Errors
/// The first thing that is wrong, or the log is in use.
pub fn verify_data_dir(dir: &Path, config: &EventLogConfig) -> Result<Verified, BackupError> {
    let mut verified = Verified::default();
    let log = EventLog::open(dir, config)?;
    log.view()?.walk(LogOffset(0), |_, record| {
        verified.add(&record);
        Ok::<_, EventLogError>(())
    })?;
    log.shutdown();
    drop(log);
    let mut tiling = Tiling::default();
    for name in ["blobs", "manifests"] {
        for path in files_below(&dir.join(name))? {
            let name = format!(
                "{name}/{}",
                path.file_name().unwrap_or_default().to_string_lossy()
            );
            let cannot_read = |error| BackupError::io("cannot read", &path)(error);
            let mut file = File::open(&path).map_err(cannot_read)?;
            let bytes = file.metadata().map_err(cannot_read)?.len();
            let mut file = Hashed::new(&mut file, bytes);
            if let Some(version) = version_of(&name) {
                tiling.add(version, &name, &mut file)?;
            }
            let (bytes, hash) = file.finish().map_err(cannot_read)?;
            let expected = name.strip_prefix("blobs/").and_then(BlobId::from_hex);
            if let Some(expected) = expected.filter(|expected| *expected != hash) {
                return Err(malformed(
                    &name,
                    format!("its bytes hash to {hash}, expected {expected}"),
                ));
            }
            verified.num_files += 1;
            verified.num_bytes += bytes;
        }
    }
    verified.finish(&tiling)?;
    Ok(verified)
}

impl Verified {
    fn add(&mut self, record: &LogRecord) {
        self.log_end.0 += 1;
        match record {
            LogRecord::Event(_) => self.num_events += 1,
            LogRecord::Tombstone(_) => self.num_tombstones += 1,
            LogRecord::ItemPut(_) | LogRecord::ItemDelete(_) | LogRecord::UserErased(_) => {}
        }
    }

    fn add_segment(&mut self, path: &str, file: &mut Hashed<'_>) -> Result<(), BackupError> {
        for line in read_segment(path, file)? {
            let record: LogRecord = serde_json::from_slice(&line)
                .map_err(|error| malformed(path, format!("record {}: {error}", self.log_end)))?;
            self.add(&record);
        }
        Ok(())
    }

    fn finish(&mut self, tiling: &Tiling) -> Result<(), BackupError> {
        self.num_versions = tiling.num_versions;
        self.model_version = tiling.last.as_ref().map(|last| last.version);
        match &tiling.last {
            Some(last) if last.learned_through > self.log_end => {
                let (through, end) = (last.learned_through, self.log_end);
                let detail = format!(
                    "version {} has learned through {through}, the log ends at {end}",
                    last.version
                );
                Err(malformed("manifests", detail))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn malformed(path: &str, detail: String) -> BackupError {
    BackupError::Malformed {
        path: path.to_owned(),
        detail,
    }
}

/// The number of a manifest's name; `None` for what is beside manifests.
fn version_of(path: &str) -> Option<Version> {
    let digits = path.strip_prefix("manifests/")?.strip_suffix(".json")?;
    digits.parse().ok().map(Version)
}

/// Manifests in order, each beginning where the one before ends.
#[derive(Default)]
struct Tiling {
    num_versions: u64,
    last: Option<Manifest>,
}

/// Signatures need keys, which a start has and checks.
#[derive(Deserialize)]
struct Envelope {
    payload: String,
}

impl Tiling {
    fn add(
        &mut self,
        version: Version,
        path: &str,
        file: &mut Hashed<'_>,
    ) -> Result<(), BackupError> {
        let mut bytes = Vec::new();
        let read = file
            .by_ref()
            .take(MANIFEST_BYTES_MAX as u64)
            .read_to_end(&mut bytes); // widening
        read.map_err(BackupError::io("cannot read", Path::new(path)))?;
        let parsed = serde_json::from_slice(&bytes)
            .and_then(|envelope: Envelope| serde_json::from_str::<Manifest>(&envelope.payload));
        let manifest = parsed.map_err(|error| malformed(path, error.to_string()))?;
        if manifest.version != version {
            return Err(malformed(
                path,
                format!("it names version {}", manifest.version),
            ));
        }
        let before = self
            .last
            .as_ref()
            .filter(|last| last.version.next() == version);
        if let Some(before) =
            before.filter(|before| before.learned_through != manifest.learned_from)
        {
            let (from, through) = (manifest.learned_from, before.learned_through);
            return Err(malformed(
                path,
                format!("it has learned from {from} on, the one before it through {through}"),
            ));
        }
        self.num_versions += 1;
        self.last = Some(manifest);
        Ok(())
    }
}

/// Files of a folder and of those in it, sorted; none where it is not there.
fn files_below(dir: &Path) -> Result<Vec<std::path::PathBuf>, BackupError> {
    let cannot_list = |error| BackupError::io("cannot list", dir)(error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(cannot_list)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(cannot_list)?;
        if entry.file_type().map_err(cannot_list)?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Read at once while looking for bytes.
const SCAN_BYTES: usize = 1 << 20;

/// Files of a folder, of whatever kind, whose bytes hold the id of a user, as it is or as JSON writes it, and not as a
/// part of a longer word: `user-7` is not in `user-77`.
///
/// # Errors
/// A file cannot be read.
pub fn files_with(dir: &Path, user_id: &UserId) -> Result<Vec<String>, BackupError> {
    let quoted = serde_json::to_string(user_id.as_str()).expect("texts always serialize");
    let needles = [
        user_id.as_str().as_bytes(),
        &quoted.as_bytes()[1..quoted.len() - 1],
    ];
    let mut found = Vec::new();
    for path in files_below(dir)? {
        let has = File::open(&path).and_then(|file| has_any(file, &needles));
        if has.map_err(BackupError::io("cannot read", &path))? {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

fn has_any(mut file: impl Read, needles: &[&[u8]]) -> io::Result<bool> {
    let longest = needles.iter().map(|needle| needle.len()).max().unwrap_or(0);
    let mut window = vec![0]; // beginning and end of a file end a word
    loop {
        let mut piece = file.by_ref().take(SCAN_BYTES as u64); // widening
        let is_last = piece.read_to_end(&mut window)? == 0;
        if is_last {
            window.push(0);
        }
        if needles.iter().any(|needle| contains_word(&window, needle)) {
            return Ok(true);
        }
        if is_last {
            return Ok(false);
        }
        // One may lie across, with the bytes on both sides of it.
        window.drain(..window.len().saturating_sub(longest + 2));
    }
}

/// Whether `needle` is in it with a byte on either side that belongs to no word.
fn contains_word(bytes: &[u8], needle: &[u8]) -> bool {
    let ends_word = |byte: &u8| !byte.is_ascii_alphanumeric() && !b"-_".contains(byte);
    let Some(first) = needle.first() else {
        return false;
    };
    let starts = bytes.iter().enumerate().filter(|(_, byte)| *byte == first);
    for (at, _) in starts {
        let (before, rest) = bytes.split_at(at);
        let behind = rest.strip_prefix(needle).and_then(<[u8]>::first);
        if behind.is_some_and(ends_word) && before.last().is_some_and(ends_word) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_across_the_pieces_that_are_read_and_as_json_writes_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let user_id = UserId::new("anna\"1").expect("valid");
        fs::create_dir(dir.path().join("sub")).expect("made");
        let mut bytes = vec![b' '; SCAN_BYTES - 3];
        bytes.extend_from_slice(b"anna\\\"1");
        fs::write(dir.path().join("sub/file"), &bytes).expect("written");
        fs::write(dir.path().join("other"), b"anna\"12 joanna\"1").expect("written");
        let found = files_with(dir.path(), &user_id).expect("readable");
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("sub/file"));
    }
}
