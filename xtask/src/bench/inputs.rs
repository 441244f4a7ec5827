//! What benchmarks need: environments of Python programs, real streams, and the pretrained encoder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::process::run_to_end;
use crate::workspace::Workspace;

/// A virtual environment under `target`.
pub(super) struct Environment {
    pub(super) name: &'static str,
    /// What pip installs, with versions.
    pub(super) packages: &'static [&'static str],
    /// Python that fails where they are missing.
    pub(super) check: &'static str,
}

impl Environment {
    /// Its interpreter; the first call installs.
    ///
    /// # Errors
    /// There is no Python, or pip cannot install.
    pub(super) fn python(&self, workspace: &Workspace) -> anyhow::Result<PathBuf> {
        let dir = workspace.target_dir().join(self.name);
        let python = dir.join("bin/python");
        if self.is_complete(&python) {
            return Ok(python);
        }
        run_to_end(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
        run_to_end(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet"])
                .args(self.packages),
        )?;
        ensure!(
            self.is_complete(&python),
            "{} were installed but cannot be used by {}",
            self.packages.join(", "),
            python.display()
        );
        Ok(python)
    }

    fn is_complete(&self, python: &Path) -> bool {
        Command::new(python)
            .args(["-c", self.check])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// A dataset folder.
pub(super) struct Stream {
    pub(super) name: String,
    pub(super) dir: PathBuf,
}

/// Every folder with events in the one that `FRESHET_DATA` names, by name; none, and a word about it, where it is
/// not set.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn streams() -> anyhow::Result<Vec<Stream>> {
    let Some(data_dir) = std::env::var_os("FRESHET_DATA") else {
        eprintln!("FRESHET_DATA is not set, so no real stream is measured");
        return Ok(Vec::new());
    };
    let data_dir = PathBuf::from(data_dir);
    let entries = std::fs::read_dir(&data_dir)
        .with_context(|| format!("cannot read FRESHET_DATA, {}", data_dir.display()))?;
    let mut dirs: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    dirs.retain(|dir| dir.join("events.tsv").is_file());
    dirs.sort();
    let name = |dir: &Path| {
        dir.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    Ok(dirs
        .into_iter()
        .map(|dir| Stream {
            name: name(&dir),
            dir,
        })
        .collect())
}

/// Folder of the pretrained encoder, which is fetched where it is not there yet; `freshet` is built.
///
/// # Errors
/// It cannot be fetched.
pub(super) fn pretrained_encoder(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let output = Command::new(workspace.target_dir().join("debug/freshet"))
        .args(["text", "fetch"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start freshet")?;
    ensure!(
        output.status.success(),
        "freshet text fetch: {}",
        output.status
    );
    let text = String::from_utf8(output.stdout)?;
    let mut named = text.split_whitespace().map(PathBuf::from);
    named
        .find(|path| path.join("model.safetensors").is_file())
        .with_context(|| format!("freshet text fetch named no folder: {text}"))
}
