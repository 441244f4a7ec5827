//! Spans of the log that were taken in without being learned, and the refits that learned them since: a line each, kept
//! and bounded.
//!
//! ```text
//! {"from":500,"through":33339}       passed over under overload
//! {"version":61,"through":33851}     learned by the refit that version 61 is, as all before that offset
//! ```
//! A refit behind which a rollback went back has learned nothing. Not here: when a refit is due (`backlog`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use shared_model::ids::{LogOffset, Version};

use crate::publish::files::sync_dir;
use crate::rollout::RolloutState;
use crate::trainer::TrainerError;

const FILE_NAME: &str = "skipped.jsonl";
/// Where the lines before the newest are, once there are many.
const OLDER_NAME: &str = "skipped.older.jsonl";
/// Of one file; some 20,000 lines.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Offsets that were passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    pub(super) from: LogOffset,
    /// One past the last.
    pub(super) through: LogOffset,
}

impl Span {
    pub(super) fn covers(self, offset: LogOffset) -> bool {
        self.from <= offset && offset < self.through
    }
}

/// A refit that is live, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refit {
    pub(super) version: Version,
    /// One past the last offset that it learned.
    pub(super) through: LogOffset,
}

/// One line of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    PassedOver(Span),
    Refitted(Refit),
}

/// Adds a line, durably.
///
/// # Errors
/// The file cannot be written.
pub(super) fn note(data_dir: &Path, line: Line) -> Result<(), TrainerError> {
    let text = serde_json::to_string(&line).expect("plain values always serialize");
    append(data_dir, &format!("{text}\n")).map_err(|source| {
        let path = data_dir.join(FILE_NAME);
        TrainerError::Skipped { source, path }
    })
}

/// The lines that are kept, oldest first.
///
/// # Errors
/// A file cannot be read.
pub(super) fn lines(data_dir: &Path) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for name in [OLDER_NAME, FILE_NAME] {
        let file = match File::open(data_dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        for line in BufReader::new(file.take(2 * FILE_BYTES_MAX)).lines() {
            // A line that a crash has torn tells nothing.
            lines.extend(serde_json::from_str::<Line>(&line?));
        }
    }
    Ok(lines)
}

/// What became of what lies at `offset`, where that was passed over: the version of the refit that learned it since,
/// if there is one; `None` where it was not passed over.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn passed_over(
    data_dir: &Path,
    offset: LogOffset,
    rollout: &RolloutState,
) -> io::Result<Option<Option<Version>>> {
    let (mut is_passed_over, mut learned_by) = (false, None);
    for line in lines(data_dir)? {
        match line {
            Line::PassedOver(span) => is_passed_over |= span.covers(offset),
            Line::Refitted(refit) if offset < refit.through && !rollout.undid(refit.version) => {
                learned_by = learned_by.or(Some(refit.version));
            }
            Line::Refitted(_) => {}
        }
    }
    Ok(is_passed_over.then_some(learned_by))
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
    use crate::rollout::Rollback;

    fn span(from: u64, through: u64) -> Line {
        Line::PassedOver(Span {
            from: LogOffset(from),
            through: LogOffset(through),
        })
    }

    #[test]
    fn the_newest_spans_are_kept_and_the_files_do_not_grow_for_ever() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let rollout = RolloutState::open(dir.path()).expect("nothing is there yet");
        let whole = vec![b'\n'; FILE_BYTES_MAX as usize];
        for round in 0..3 {
            fs::write(dir.path().join(FILE_NAME), &whole).expect("written");
            note(dir.path(), span(round, round + 5)).expect("noted");
        }
        let newest = fs::read_to_string(dir.path().join(FILE_NAME)).expect("readable");
        assert_eq!(newest, "{\"from\":2,\"through\":7}\n");
        let is_in = |offset| {
            let found = passed_over(dir.path(), LogOffset(offset), &rollout);
            found.expect("readable").is_some()
        };
        assert_eq!([1, 2, 6, 7].map(is_in), [false, true, true, false]);
        let older = fs::metadata(dir.path().join(OLDER_NAME)).expect("it was kept");
        assert_eq!(older.len(), FILE_BYTES_MAX);
    }

    #[test]
    fn a_refit_learns_what_was_passed_over_before_it_unless_a_rollback_went_back_behind_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut rollout = RolloutState::open(dir.path()).expect("nothing is there yet");
        let refit = Refit {
            version: Version(9),
            through: LogOffset(30),
        };
        for line in [span(10, 20), Line::Refitted(refit), span(30, 40)] {
            note(dir.path(), line).expect("noted");
        }
        let fates = |rollout: &RolloutState| {
            [5, 15, 35].map(|offset| {
                passed_over(dir.path(), LogOffset(offset), rollout).expect("readable")
            })
        };
        assert_eq!(fates(&rollout), [None, Some(Some(Version(9))), Some(None)]);
        let rollback = Rollback {
            version: Version(12),
            restored: Version(8),
            from: LogOffset(28),
            through: LogOffset(45),
        };
        rollout.begin(rollback).expect("written");
        assert_eq!(fates(&rollout), [None, Some(None), Some(None)]);
    }
}
