//! From a backup to a data folder: written beside it, checked, then renamed into place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use shared_model::ids::{LogOffset, Version};

use super::pack::segment_path;
use super::unpack::unpack;
use super::verify::verify_data_dir;
use super::{BackupError, Contents, Hashed, SEGMENT_BYTES_MAX};
use crate::erasure;
use crate::event_log::{EventLog, EventLogConfig, LogCopy, LogRecord};
use crate::privacy::spend;
use crate::publish::files::{TEMP_PREFIX, sync_dir};
use crate::publish::keep_used;

/// Version numbers left free: pages may have versions that were published after the backup, whose numbers must not be
/// given to others. The first start publishes the newest version again above them, which all pages take.
const VERSIONS_SKIPPED: u64 = 10_000_000;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// One past the last record of the log.
    pub log_end: LogOffset,
    /// Newest version.
    pub model_version: Option<Version>,
    /// Files of the backup.
    pub num_files: u64,
    /// Bytes of the backup.
    pub num_bytes: u64,
    /// Whether secret keys were in it.
    pub has_keys: bool,
    /// Erasures that came after the backup, and were carried out again.
    pub num_erasures: u64,
}

/// Restores the backup at `backup` as `data_dir`, which is empty or not there. Erasures listed in the file `erasures`
/// that the backup does not know are carried out before anyone can read the log. `progress` hears of bytes.
///
/// # Errors
/// The backup is damaged, or cannot be written; `data_dir` is as it was.
pub fn restore(
    backup: &Path,
    data_dir: &Path,
    config: &EventLogConfig,
    erasures: Option<&Path>,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, BackupError> {
    check_empty(data_dir)?;
    let unfinished = unfinished(data_dir);
    remove_dir(&unfinished)?;
    fs::create_dir_all(&unfinished)
        .map_err(BackupError::io("cannot make the folder", &unfinished))?;
    let contents = copy(backup, &unfinished, progress)?;
    if let Some(Version(newest)) = contents.model_version {
        let manifests = unfinished.join("manifests");
        keep_used(&manifests, Version(newest + VERSIONS_SKIPPED))
            .map_err(BackupError::io("cannot write", &manifests))?;
    }
    let num_erasures = match erasures {
        Some(path) => replay_erasures(path, &unfinished, config)?,
        None => 0,
    };
    spend::mark_restored(&unfinished).map_err(BackupError::io(
        "cannot note the restoration in",
        &unfinished,
    ))?;
    verify_data_dir(&unfinished, config)?;
    let io = BackupError::io;
    if data_dir.exists() {
        fs::remove_dir(data_dir).map_err(io("cannot replace", data_dir))?;
    }
    fs::rename(&unfinished, data_dir).map_err(io("cannot rename into place", data_dir))?;
    let parent = parent(data_dir);
    sync_dir(&parent).map_err(io("cannot sync", &parent))?;
    Ok(Restored {
        log_end: LogOffset(contents.log.end.0 + num_erasures),
        model_version: contents.model_version,
        num_files: contents.files.len() as u64, // widening
        num_bytes: contents.num_bytes(),
        has_keys: contents.has_keys,
        num_erasures,
    })
}

fn check_empty(data_dir: &Path) -> Result<(), BackupError> {
    match fs::read_dir(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BackupError::io("cannot list", data_dir)(error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::NotEmpty(data_dir.to_owned())),
        },
    }
}

fn parent(data_dir: &Path) -> PathBuf {
    let parent = data_dir
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

fn unfinished(data_dir: &Path) -> PathBuf {
    let name = data_dir.file_name().unwrap_or_default().to_string_lossy();
    parent(data_dir).join(format!("{TEMP_PREFIX}{name}"))
}

fn remove_dir(dir: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BackupError::io(
            "cannot remove what an earlier try left",
            dir,
        )(error)),
        Ok(()) | Err(_) => Ok(()), // there was none
    }
}

/// Copies all files; the log is made anew from its records.
fn copy(
    backup: &Path,
    into: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Contents, BackupError> {
    let mut log = LogCopy::create(into)?;
    let contents = unpack(backup, &mut |path, file| {
        progress(file.num_bytes());
        if path.starts_with("log/") {
            return add_segment(&mut log, path, file);
        }
        write_file(&into.join(path), file)
            .map_err(BackupError::io("cannot restore", Path::new(path)))
    })?;
    let of_log = &contents.log;
    let end = log.finish(of_log.erased_through, of_log.rewrites, of_log.pseudonyms)?;
    if end != contents.log.end {
        let detail = format!("it ends at {end}, expected {}", contents.log.end);
        let path = "log".to_owned();
        return Err(BackupError::Malformed { path, detail });
    }
    Ok(contents)
}

fn add_segment(log: &mut LogCopy, path: &str, file: &mut Hashed<'_>) -> Result<(), BackupError> {
    let malformed = |detail: String| BackupError::Malformed {
        path: path.to_owned(),
        detail,
    };
    let expected = segment_path(log.end());
    if path != expected {
        return Err(malformed(format!("expected {expected} here")));
    }
    let lines = read_segment(path, file)?;
    log.add(lines.into_iter())?;
    Ok(())
}

/// Records of a segment.
pub(super) fn read_segment(path: &str, file: &mut Hashed<'_>) -> Result<Vec<Vec<u8>>, BackupError> {
    if file.num_bytes() > SEGMENT_BYTES_MAX {
        return Err(BackupError::Malformed {
            path: path.to_owned(),
            detail: format!("{} bytes, at most {SEGMENT_BYTES_MAX}", file.num_bytes()),
        });
    }
    let mut bytes = Vec::new();
    let read = file.read_to_end(&mut bytes);
    read.map_err(BackupError::io("cannot read", Path::new(path)))?;
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

/// Writes a file, readable by its owner only.
fn write_file(path: &Path, file: &mut Hashed<'_>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut out: File = options.open(path)?;
    io::copy(file, &mut out)?;
    out.sync_all()
}

/// Carries out the erasures of the file that the log does not have; how many.
fn replay_erasures(
    path: &Path,
    data_dir: &Path,
    config: &EventLogConfig,
) -> Result<u64, BackupError> {
    let listed = erasure::read_list(path)?;
    let log = EventLog::open(data_dir, config)?;
    let mut known = std::collections::HashSet::new();
    log.view()?.walk(LogOffset(0), |_, record| {
        if let LogRecord::UserErased(erasure) = record {
            known.insert((erasure.user_hash, erasure.erased_at));
        }
        Ok::<_, BackupError>(())
    })?;
    let mut missing = listed;
    missing.retain(|erasure| !known.contains(&(erasure.user_hash, erasure.erased_at)));
    for erasure in &missing {
        erasure::order(&log, data_dir, *erasure)?;
    }
    log.rewrite(None)?;
    log.shutdown();
    Ok(missing.len() as u64) // widening
}
