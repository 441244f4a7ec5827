//! A root key and its ceremonies, through `freshet keys` as an operator runs it.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ed25519_dalek::VerifyingKey;
use shared_model::manifest::parse_public_key;

use crate::server::freshet_program;

/// A root key in a folder that is not the server's.
#[derive(Debug)]
pub struct Root {
    dir: tempfile::TempDir,
    /// What pages pin, in base64.
    pub public_key: String,
}

impl Root {
    /// # Errors
    /// The command fails, or names no key.
    pub fn make() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("freshet-root-").tempdir()?;
        let secret = dir.path().join("root.key");
        let said = run(&["new-root".as_ref(), "--out".as_ref(), secret.as_os_str()])?;
        let public_key = said
            .split_whitespace()
            .find(|word| parse_public_key(word).is_ok())
            .with_context(|| format!("no public key in {said:?}"))?
            .to_owned();
        Ok(Self { dir, public_key })
    }

    /// The public key as the engine takes it.
    ///
    /// # Errors
    /// None: it was parsed before.
    pub fn verifying_key(&self) -> anyhow::Result<VerifyingKey> {
        Ok(parse_public_key(&self.public_key)?)
    }

    fn secret(&self) -> PathBuf {
        self.dir.path().join("root.key")
    }

    /// Runs `freshet keys WORDS… --root … --data-dir …`.
    ///
    /// # Errors
    /// What the command prints.
    pub fn ceremony(&self, words: &[&str], data_dir: &Path) -> anyhow::Result<String> {
        let secret = self.secret();
        let mut all: Vec<&std::ffi::OsStr> = words.iter().map(AsRef::as_ref).collect();
        all.extend(["--root".as_ref(), secret.as_os_str()]);
        all.extend(["--data-dir".as_ref(), data_dir.as_os_str()]);
        run(&all)
    }
}

fn run(words: &[&std::ffi::OsStr]) -> anyhow::Result<String> {
    let mut command = std::process::Command::new(freshet_program()?);
    let output = command.arg("keys").args(words).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "keys {words:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}
