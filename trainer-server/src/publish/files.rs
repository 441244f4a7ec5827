//! Writing a file so that a crash leaves the whole of it or nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Start of the names of files that are not finished.
pub(crate) const TEMP_PREFIX: &str = ".unfinished-";

/// Writes `dir/name`: temporary file, sync, rename, sync of the directory. Where the temporary file cannot be
/// finished it is removed: on a full disk half a file would keep room from what is smaller.
pub(crate) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temp = dir.join(format!("{TEMP_PREFIX}{name}"));
    let written = write_synced(&temp, bytes).and_then(|()| fs::rename(&temp, dir.join(name)));
    if written.is_err() {
        fs::remove_file(&temp).ok(); // the error that is told is the first one
    }
    written?;
    sync_dir(dir)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes `dir/name` whole, where `is_secret` readable by its owner only; fails where it exists.
pub(super) fn write_new(dir: &Path, name: &str, bytes: &[u8], is_secret: bool) -> io::Result<()> {
    remove(dir, &format!("{TEMP_PREFIX}{name}"))?; // of a crash
    let temp = dir.join(format!("{TEMP_PREFIX}{name}"));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if is_secret {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // A rename would overwrite; a link does not.
    let linked = fs::hard_link(&temp, dir.join(name));
    fs::remove_file(&temp)?;
    linked?;
    sync_dir(dir)
}

/// Makes renames and removals in `dir` survive a power loss.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes `dir` and removes what a crash left half-written in it.
pub(super) fn prepare_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent)?;
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Names of the finished files in `dir`, sorted.
pub(super) fn list_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with(TEMP_PREFIX) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes `dir/name` and answers how large it was; a file that is not there is fine, and of 0 bytes.
pub(super) fn remove(dir: &Path, name: &str) -> io::Result<u64> {
    let path = dir.join(name);
    let bytes = len(&path);
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
        Ok(()) => Ok(bytes),
    }
}

/// Bytes of a file; 0 where there is none.
pub(super) fn len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

/// Bytes of all finished files in `dir`.
pub(super) fn sum_of_lens(dir: &Path) -> io::Result<u64> {
    let names = list_names(dir)?;
    Ok(names.iter().map(|name| len(&dir.join(name))).sum())
}
