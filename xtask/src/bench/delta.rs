//! The delta codec beside zstd, RFC 9842 and bsdiff, on versions of both streams and on a text encoder.
//!
//! The pairs of versions are made and measured by the example `delta_codec` of the server crate; the encoder is
//! tuned before by `freshet cross-encoder`, on the first stream, and kept under `target`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::inputs::{pretrained_encoder, streams};
use crate::process::{cargo, run_to_end, step};
use crate::workspace::Workspace;

/// Enough steps that more than the largest wanted share of codes would move.
const TUNING: [&str; 16] = [
    "--encoder",
    "pretrained",
    "--strategy",
    "full",
    "--learning-rate",
    "1e-4",
    "--warm-max",
    "400",
    "--events-max",
    "20",
    "--lists-max",
    "2",
    "--time-budget-secs",
    "1200",
    "--seed",
    "1",
];

/// Measures every pair.
///
/// # Errors
/// `FRESHET_DATA` names no streams, or a part cannot be built or run.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Value> {
    let streams = streams()?;
    let first = streams
        .first()
        .context("the pairs come from real streams: set FRESHET_DATA to their folder")?;
    step("building the codec's example and the server", || {
        let build = ["build", "--workspace", "--bin", "freshet"];
        let mut command = cargo();
        command.args(build).args(["--example", "delta_codec"]);
        run_to_end(command.current_dir(workspace.root()))
    })?;
    let encoder = step("tuning the encoder", || {
        Encoder::prepare(workspace, &first.dir)
    })?;
    let mut cases = Vec::new();
    for stream in &streams {
        let cache_dir = workspace
            .target_dir()
            .join("bench-delta")
            .join(&stream.name);
        let arguments = ["stream".into(), stream.dir.clone(), cache_dir];
        cases.extend(step(&stream.name, || run(workspace, &arguments))?);
    }
    let arguments = ["encoder".into(), encoder.base_dir, encoder.tuned_dir];
    cases.extend(step("encoder", || run(workspace, &arguments))?);
    Ok(json!({ "cases": cases }))
}

/// Folders with the weights before and after.
struct Encoder {
    base_dir: PathBuf,
    tuned_dir: PathBuf,
}

impl Encoder {
    /// Fetches and tunes; what an earlier run has tuned is taken as it is.
    fn prepare(workspace: &Workspace, dataset_dir: &Path) -> anyhow::Result<Self> {
        let freshet = workspace.target_dir().join("debug/freshet");
        let base_dir = pretrained_encoder(workspace)?;
        let tuned_dir = workspace.target_dir().join("bench-delta/tuned");
        if !tuned_dir.join("model.safetensors").is_file() {
            let mut command = Command::new(&freshet);
            command
                .arg("cross-encoder")
                .arg("--dataset")
                .arg(dataset_dir)
                .args(TUNING)
                .arg("--save")
                .arg(&tuned_dir);
            run_to_end(&mut command)?;
        }
        Ok(Self {
            base_dir,
            tuned_dir,
        })
    }
}

/// The cases that the example writes, one per line.
fn run(workspace: &Workspace, arguments: &[PathBuf]) -> anyhow::Result<Vec<Value>> {
    let output = Command::new(workspace.target_dir().join("debug/examples/delta_codec"))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the example delta_codec")?;
    ensure!(output.status.success(), "delta_codec: {}", output.status);
    let lines = String::from_utf8(output.stdout)?;
    let cases = lines.lines().map(serde_json::from_str);
    Ok(cases.collect::<Result<_, _>>()?)
}
