//! Benchmarks by name, each written as JSON beside the command, commit and machine that made it.

mod api;
mod compress;
mod delta;
mod edge;
mod ingest;
mod inputs;
mod leave_one_out;
mod page;
mod poison;
pub(crate) mod sizes;
mod slow;
mod train;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::workspace::Workspace;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Raw and brotli bytes of the built browser modules and of the package's JavaScript.
    Sizes,
    /// The delta codec beside zstd, RFC 9842 and bsdiff, on real streams and on a text encoder that is tuned first.
    Delta,
    /// Applying and verifying deltas in a page of Chromium, on a code state of 10 MB.
    Page,
    /// Ranking and encoding in a page of Chromium beside onnxruntime-web, which is installed under target.
    Edge,
    /// Durable events per second beside PostgreSQL, where that is installed, and how soon they are learned.
    Ingest,
    /// The training step beside the same model in PyTorch, which is installed under target.
    Train,
    /// Smaller text encoders: quality and robustness on real streams, bytes, and speed in a page of Chromium; for an hour.
    Compress,
    /// What attackers do to lists and quality, with and without `[influence]`, on real streams; for half an hour.
    Poison,
    /// Honest traffic beside 10,000 silent and slow connections; Linux.
    Slow,
    /// Schemathesis, which is installed under target, against the document of the server's API.
    Api,
    /// Leave-one-out beside RecBole's SASRec, which is installed under target; for hours.
    LeaveOneOut,
}

/// Measures, prints, and writes to `json_path`.
///
/// # Errors
/// Nothing is built yet, or the file cannot be written.
pub(crate) fn run(
    workspace: &Workspace,
    name: Name,
    json_path: Option<&Path>,
) -> anyhow::Result<()> {
    let numbers = match name {
        Name::Sizes => sizes::measure(workspace)?,
        Name::Delta => delta::measure(workspace)?,
        Name::Page => page::measure(workspace)?,
        Name::Edge => edge::measure(workspace)?,
        Name::Ingest => ingest::measure(workspace)?,
        Name::Train => train::measure(workspace)?,
        Name::Compress => compress::measure(workspace)?,
        Name::Poison => poison::measure(workspace)?,
        Name::Slow => slow::measure(workspace)?,
        Name::Api => api::measure(workspace)?,
        Name::LeaveOneOut => leave_one_out::measure(workspace)?,
    };
    let report = json!({
        "benchmark": format!("{name:?}").to_lowercase(),
        "commit": commit(workspace),
        "machine": machine(),
        "numbers": numbers,
    });
    let text = serde_json::to_string_pretty(&report)?;
    println!("{text}");
    if let Some(path) = json_path {
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn commit(workspace: &Workspace) -> Value {
    let output = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .current_dir(workspace.root())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            json!(String::from_utf8_lossy(&output.stdout).trim())
        }
        Ok(_) | Err(_) => Value::Null, // not in a git checkout
    }
}

/// Operating system, architecture, and the processor where the system names it.
fn machine() -> String {
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default(); // elsewhere there is no such file
    let models = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name"));
    let Some(model) = models.clone().next() else {
        return system;
    };
    let model = model.trim_start_matches([' ', '\t', ':']);
    format!("{system}, {} cores of {model}", models.count())
}
