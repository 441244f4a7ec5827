//! Codes of the versions that running experiments rank by, `experiment-versions/N.snapshot`: retention would take them long
//! before an experiment ends.
//!
//! Not in backups: after a restore such an arm shows what there is without an experiment, and the log says so.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use shared_model::codec::BLOB_BYTES_MAX;
use shared_model::codec::snapshot::{decode_snapshot, encode_snapshot_at_once};
use shared_model::codec::state::CodeState;
use shared_model::ids::Version;

use crate::publish::files::write_whole;

const DIR_NAME: &str = "experiment-versions";

/// The folder.
#[derive(Debug, Clone)]
pub struct HeldVersions {
    dir: PathBuf,
}

impl HeldVersions {
    /// That of a data directory; made when something is held.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self {
            dir: data_dir.join(DIR_NAME),
        }
    }

    /// Keeps a version, durably.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn hold(&self, version: Version, state: &CodeState) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let bytes = encode_snapshot_at_once(state, version).map_err(io::Error::other)?;
        write_whole(&self.dir, &file_name(version), &bytes)
    }

    /// The codes of a version that is held.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn read(&self, version: Version) -> io::Result<Option<CodeState>> {
        let path = self.dir.join(file_name(version));
        match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(file) if file.len() > BLOB_BYTES_MAX as u64 => {
                let detail = format!("{} bytes, at most {BLOB_BYTES_MAX} are read", file.len());
                return Err(io::Error::new(ErrorKind::InvalidData, detail));
            }
            Ok(_) => {}
        }
        let (_, state) = decode_snapshot(&fs::read(&path)?).map_err(io::Error::other)?;
        Ok(Some(state))
    }

    /// Lets go of all versions but these.
    ///
    /// # Errors
    /// The folder cannot be read, or a file not removed.
    pub fn keep_only(&self, versions: &[Version]) -> io::Result<()> {
        let kept: Vec<String> = versions.iter().map(|version| file_name(*version)).collect();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if !kept.iter().any(|one| name == **one) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn file_name(version: Version) -> String {
    format!("{version}.snapshot")
}

#[cfg(test)]
mod tests {
    use shared_model::spec::ModelSpec;

    use super::*;

    #[test]
    fn a_held_version_is_read_again_until_nothing_wants_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let held = HeldVersions::of(dir.path());
        held.keep_only(&[]).expect("there is nothing");
        assert_eq!(held.read(Version(7)).expect("readable"), None);
        let state = CodeState::empty(ModelSpec::default());
        for version in [7, 8] {
            held.hold(Version(version), &state).expect("written");
        }
        assert_eq!(held.read(Version(7)).expect("readable"), Some(state));
        held.keep_only(&[Version(8)]).expect("removed");
        assert_eq!(held.read(Version(7)).expect("readable"), None);
        assert!(held.read(Version(8)).expect("readable").is_some());
    }
}
