//! Signed manifests on disk: `manifests/<version, 20 digits>.json`, and beside each the list of
//! merged deltas that end in its version (`….skips.json`).
//!
//! A manifest that cannot be used is renamed to `….broken`: its number must never be given to
//! another state, because a page may have seen it. Not here: what a manifest says.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use shared_model::ids::Version;
use shared_model::manifest::DeltaRef;

use super::files;

const MANIFEST_SUFFIX: &str = ".json";
const SKIPS_SUFFIX: &str = ".skips.json";
const BROKEN_SUFFIX: &str = ".broken";

#[derive(Debug)]
pub(super) struct ManifestStore {
    dir: PathBuf,
    /// Bytes of all files.
    bytes: AtomicU64,
}

impl ManifestStore {
    /// Opens or creates the folder and removes half-written files.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        files::prepare_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            bytes: AtomicU64::new(files::sum_of_lens(dir)?),
        })
    }

    /// Versions with a manifest, ascending, and the highest number ever used, broken ones included.
    pub(super) fn list(&self) -> io::Result<(Vec<Version>, Version)> {
        let mut versions = Vec::new();
        let mut highest = Version(0);
        for name in files::list_names(&self.dir)? {
            let Some((digits, suffix)) = name.split_at_checked(20) else {
                continue;
            };
            let Ok(number) = digits.parse() else { continue };
            highest = highest.max(Version(number));
            if suffix == MANIFEST_SUFFIX {
                versions.push(Version(number));
            }
        }
        Ok((versions, highest))
    }

    /// The signed manifest of a version.
    pub(super) fn read(&self, version: Version) -> io::Result<String> {
        std::fs::read_to_string(self.dir.join(file_name(version, MANIFEST_SUFFIX)))
    }

    /// Stores a signed manifest durably: the commit point of its version.
    pub(super) fn write(&self, version: Version, signed: &str) -> io::Result<()> {
        self.write_file(&file_name(version, MANIFEST_SUFFIX), signed.as_bytes())
    }

    /// Bytes of all manifests and lists.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        files::write_whole(&self.dir, name, bytes)?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed); // widening
        Ok(())
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        let bytes = files::remove(&self.dir, name)?;
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// The merged deltas that end in a version; losing the list costs bytes, never correctness.
    pub(super) fn read_skips(&self, version: Version) -> Vec<DeltaRef> {
        let path = self.dir.join(file_name(version, SKIPS_SUFFIX));
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => Vec::new(), // most versions have none
        }
    }

    pub(super) fn write_skips(&self, version: Version, skips: &[DeltaRef]) -> io::Result<()> {
        let bytes = serde_json::to_vec(skips).expect("plain values always serialize");
        self.write_file(&file_name(version, SKIPS_SUFFIX), &bytes)
    }

    /// Puts a manifest aside and keeps its number used.
    pub(super) fn set_aside(&self, version: Version) -> io::Result<()> {
        let name = file_name(version, MANIFEST_SUFFIX);
        std::fs::rename(
            self.dir.join(&name),
            self.dir.join(format!("{name}{BROKEN_SUFFIX}")),
        )?;
        files::sync_dir(&self.dir)
    }

    /// Removes a manifest whose write failed, wherever it came to, and makes that last.
    pub(super) fn remove_unclear(&self, version: Version) -> io::Result<()> {
        // It was not counted, so nothing is taken off.
        files::remove(&self.dir, &file_name(version, MANIFEST_SUFFIX))?;
        files::sync_dir(&self.dir)
    }

    /// Removes what is left below `floor`, the oldest version that is kept: manifests that were put aside, and lists
    /// of merged deltas whose manifest is gone. Higher numbers are in use, so theirs are never given again.
    pub(super) fn prune(&self, floor: Version) -> io::Result<()> {
        for name in files::list_names(&self.dir)? {
            let Some((digits, suffix)) = name.split_at_checked(20) else {
                continue;
            };
            let is_below = digits.parse().is_ok_and(|number| Version(number) < floor);
            if is_below && (suffix == SKIPS_SUFFIX || suffix.ends_with(BROKEN_SUFFIX)) {
                self.remove_file(&name)?;
            }
        }
        Ok(())
    }

    /// Removes everything about a version.
    pub(super) fn remove(&self, version: Version) -> io::Result<()> {
        self.remove_file(&file_name(version, SKIPS_SUFFIX))?;
        self.remove_file(&file_name(version, MANIFEST_SUFFIX))
    }
}

/// Keeps a number used in a folder of manifests that nobody has open, so that versions go on above it.
pub(crate) fn keep_used(dir: &Path, version: Version) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let name = file_name(version, MANIFEST_SUFFIX);
    files::write_whole(dir, &format!("{name}{BROKEN_SUFFIX}"), b"")
}

fn file_name(version: Version, suffix: &str) -> String {
    format!("{:020}{suffix}", version.0)
}
