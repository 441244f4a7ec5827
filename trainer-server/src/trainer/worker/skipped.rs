//! Spans of the log that were taken in without being learned, a line each: for people, and bounded.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

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
        let older = fs::metadata(dir.path().join(OLDER_NAME)).expect("it was kept");
        assert_eq!(older.len(), FILE_BYTES_MAX);
    }
}
