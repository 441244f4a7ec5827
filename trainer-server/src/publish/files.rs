//! Writing a file so that a crash leaves the whole of it or nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Start of the names of files that are not finished.
const TEMP_PREFIX: &str = ".unfinished-";

/// Writes `dir/name`: temporary file, sync, rename, sync of the directory.
pub(crate) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temp = dir.join(format!("{TEMP_PREFIX}{name}"));
    let mut file = File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temp, dir.join(name))?;
    sync_dir(dir)
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
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
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

/// Removes `dir/name`; a file that is not there is fine.
pub(super) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
