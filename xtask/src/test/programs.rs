//! The crates' test programs, two at a time: a test with a browser or with real files waits more than it computes.
//!
//! Cargo would run them one after another. Programs that start browsers share a lane, because a browser
//! takes both cores while it starts; what measures a page's pauses and memory runs last, alone.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::Context;
use serde_json::Value;

use super::{Tally, cargo_result};
use crate::process::{cargo, elapsed_text};
use crate::workspace::Workspace;

/// The package whose tests drive browsers.
const BROWSER_PACKAGE: &str = "tests";
/// Programs that measure how long a page waits and what it keeps.
const ALONE: [&str; 1] = ["leaks"];

/// A built test program.
#[derive(Debug)]
pub(super) struct Program {
    /// Folder of its package, in which it runs.
    package_dir: PathBuf,
    /// Name of its target.
    name: String,
    executable: PathBuf,
}

impl Program {
    /// From a message of `cargo test --message-format json`; `None` for messages about other things.
    fn from_message(message: &Value) -> Option<Self> {
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let manifest = Path::new(message["manifest_path"].as_str()?);
        Some(Self {
            package_dir: manifest.parent()?.to_path_buf(),
            name: message["target"]["name"].as_str()?.to_owned(),
            executable: PathBuf::from(message["executable"].as_str()?),
        })
    }

    fn package(&self) -> &str {
        let name = self.package_dir.file_name().unwrap_or_default();
        name.to_str().unwrap_or_default()
    }

    /// Runs it to its end, prints what it said, and answers what became of its tests and whether it succeeded.
    fn run(&self) -> anyhow::Result<(Tally, bool)> {
        let title = format!("{}::{}", self.package(), self.name);
        let started_at = Instant::now();
        let output = Command::new(&self.executable)
            .current_dir(&self.package_dir)
            .env("CARGO_MANIFEST_DIR", &self.package_dir)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start {}", self.executable.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let elapsed = elapsed_text(started_at.elapsed());
        println!("     Ran {title} in {elapsed}\n{said}");
        let mut tally = Tally::default();
        said.lines()
            .filter_map(cargo_result)
            .for_each(|counted| tally.add(counted));
        let mark = if output.status.success() {
            "✔"
        } else {
            "✘"
        };
        eprintln!("{mark} {title} ({elapsed}): {} passed", tally.passed);
        Ok((tally, output.status.success()))
    }
}

/// What became of some programs.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    /// Names of the programs that failed.
    pub(super) failed: Vec<String>,
}

impl Outcome {
    fn of(programs: &[Program]) -> anyhow::Result<Self> {
        let mut outcome = Self::default();
        for program in programs {
            let (tally, has_succeeded) = program.run()?;
            outcome.tally.add(tally);
            if !has_succeeded {
                outcome.failed.push(program.name.clone());
            }
        }
        Ok(outcome)
    }

    fn add(&mut self, other: Self) {
        self.tally.add(other.tally);
        self.failed.extend(other.failed);
    }
}

/// Builds the test programs of all crates. Examples are not among them: `cargo xtask ci` builds those with its lints.
///
/// # Errors
/// One cannot be built; the compiler's words are on the terminal.
pub(super) fn build(workspace: &Workspace) -> anyhow::Result<Vec<Program>> {
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--no-run"])
        .args(["--lib", "--bins", "--tests"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(workspace.root());
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    anyhow::ensure!(output.status.success(), "a test could not be built");
    let mut programs = Vec::new();
    for line in output.stdout.lines() {
        let message: Value = serde_json::from_str(&line?).context("cargo speaks JSON")?;
        programs.extend(Program::from_message(&message));
    }
    Ok(programs)
}

/// Runs all of them.
///
/// # Errors
/// One cannot be started.
pub(super) fn run(programs: Vec<Program>) -> anyhow::Result<Outcome> {
    let (alone, together): (Vec<_>, Vec<_>) = programs
        .into_iter()
        .partition(|program| ALONE.contains(&program.name.as_str()));
    let (browsers, others): (Vec<_>, Vec<_>) = together
        .into_iter()
        .partition(|program| program.package() == BROWSER_PACKAGE);
    let mut outcome = thread::scope(|scope| {
        let browsers = scope.spawn(|| Outcome::of(&browsers));
        let mut outcome = Outcome::of(&others)?;
        outcome.add(browsers.join().expect("running programs does not panic")?);
        anyhow::Ok(outcome)
    })?;
    outcome.add(Outcome::of(&alone)?);
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_about_a_test_program_is_told_from_others() {
        let mut message = json!({
            "reason": "compiler-artifact",
            "manifest_path": "/project/tests/Cargo.toml",
            "target": { "name": "leaks", "kind": ["test"] },
            "profile": { "test": true },
            "executable": "/project/target/debug/deps/leaks-1",
        });
        let program = Program::from_message(&message).expect("it is one");
        assert_eq!(
            (program.package(), program.name.as_str()),
            ("tests", "leaks")
        );
        message["profile"]["test"] = json!(false);
        assert!(Program::from_message(&message).is_none());
        assert!(Program::from_message(&json!({ "reason": "build-finished" })).is_none());
    }
}
