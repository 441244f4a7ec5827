//! Spans of the log that were taken in without being learned, a line each: for people, and bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use serde::Deserialize;
use shared_model::ids::LogOffset;

use crate::publish::files::sync_dir;
use crate::trainer::TrainerError;

const FILE_NAME: &str = "skipped.jsonl";
/// Where the lines before the newest are, once there are many.
const OLDER_NAME: &str = "skipped.older.jsonl";
/// Of one file; some 20,000 lines.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Notes a span, durably.
///
/// # Errors
/// The file cannot be written.
pub(super) fn note(
    data_dir: &Path,
    from: LogOffset,
    through: LogOffset,
) -> Result<(), TrainerError> {
    append(
        data_dir,
        &format!("{{\"from\":{from},\"through\":{through}}}\n"),
    )
    .map_err(|source| {
        let path = data_dir.join(FILE_NAME);
        TrainerError::Skipped { source, path }
    })
}

#[derive(Deserialize)]
struct Span {
    from: LogOffset,
    through: LogOffset,
}

/// Whether what lies at `offset` is in one of the spans that are kept.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn covers(data_dir: &Path, offset: LogOffset) -> io::Result<bool> {
    for name in [FILE_NAME, OLDER_NAME] {
        let file = match File::open(data_dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        for line in BufReader::new(file).lines() {
            let span = serde_json::from_str::<Span>(&line?);
            // A line that a crash has torn tells nothing.
            if span.is_ok_and(|span| span.from <= offset && offset < span.through) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn append(data_dir: &Path, line: &str) -> io::Result<()> {
    let path = data_dir.join(FILE_NAME);
    if fs::metadata(&path).is_ok_and(|file| file.len() >= FILE_BYTES_MAX) {
        fs::rename(&path, data_dir.join(OLDER_NAME))?;
    }
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    // The name of a new file is durable once its folder is.
    if is_new { sync_dir(data_dir) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_spans_are_kept_and_the_files_do_not_grow_for_ever() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let whole = vec![b'\n'; FILE_BYTES_MAX as usize];
        for round in 0..3 {
            fs::write(dir.path().join(FILE_NAME), &whole).expect("written");
            note(dir.path(), LogOffset(round), LogOffset(round + 5)).expect("noted");
        }
        let newest = fs::read_to_string(dir.path().join(FILE_NAME)).expect("readable");
        assert_eq!(newest, "{\"from\":2,\"through\":7}\n");
        let is_in = |offset| covers(dir.path(), LogOffset(offset)).expect("readable");
        assert_eq!([1, 2, 6, 7].map(is_in), [false, true, true, false]);
        let older = fs::metadata(dir.path().join(OLDER_NAME)).expect("it was kept");
        assert_eq!(older.len(), FILE_BYTES_MAX);
    }
}
