//! The compression ladder on every stream that `FRESHET_DATA` holds: `freshet compress`, and how fast what it makes is in
//! a page.
//!
//! Quality, robustness and the choice are those of the command; milliseconds are those of the example `encoder_speed`
//! of the tests crate, all encoders in one page of Chromium, taking turns.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::inputs::{Stream, streams};
use super::sizes::brotli_bytes;
use crate::process::{cargo, run_to_end, step};
use crate::setup;
use crate::site;
use crate::wasm::{self, Profile};
use crate::workspace::Workspace;

const PAGE: &str = "<!doctype html><title>encoders</title>\n";
/// Bytes of the larger file that pages may be given, and of the smaller one.
const TARGETS: [usize; 2] = [8_000_000, 4_000_000];
/// Three times as fast as the encoder that is only packed.
const TIME_SHARE: f64 = 1.0 / 3.0;

/// All streams.
///
/// # Errors
/// No stream or encoder is there, a part cannot be built or run, or none of the encoders fits.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Value> {
    let streams = streams()?;
    ensure!(
        !streams.is_empty(),
        "FRESHET_DATA holds no folder with events.tsv"
    );
    setup::for_tests(workspace)?;
    wasm::build_all(workspace, Profile::Wasm, wasm::modules(false))?;
    step("building", || {
        let mut command = cargo();
        command.args([
            "build",
            "--workspace",
            "--bins",
            "--example",
            "encoder_speed",
        ]);
        run_to_end(command.current_dir(workspace.root()))
    })?;
    let dir = workspace.target_dir().join("bench-compress");
    site::copy_dir(&Profile::Wasm.dist_dir(workspace), &dir.join("dist"))?;
    site::copy_dir(&workspace.npm_dir().join("lib"), &dir.join("lib"))?;
    fs::write(dir.join("page.html"), PAGE)?;
    let mut numbers = serde_json::Map::new();
    for stream in streams {
        let found = ladder(workspace, &stream, &dir)?;
        numbers.insert(stream.name, found);
    }
    Ok(Value::Object(numbers))
}

/// The ladder of one stream.
fn ladder(workspace: &Workspace, stream: &Stream, dir: &Path) -> anyhow::Result<Value> {
    let name = &stream.name;
    let encoders = dir.join(name);
    let (json_path, svg_path) = (
        dir.join(format!("{name}.json")),
        dir.join(format!("{name}.svg")),
    );
    step(name, || {
        let mut command = Command::new(workspace.target_dir().join("debug/freshet"));
        command.args(["compress", "--dataset"]).arg(&stream.dir);
        for target in TARGETS {
            command.arg("--target-bytes").arg(target.to_string());
        }
        command.arg("--target-time").arg(TIME_SHARE.to_string());
        command.arg("--encoders-dir").arg(&encoders);
        command.arg("--json").arg(&json_path);
        command.arg("--svg").arg(&svg_path);
        let status = command.status().context("cannot start freshet compress")?;
        // It fails where no encoder fits, with the figures written.
        ensure!(json_path.is_file(), "freshet compress: {status}");
        Ok(())
    })?;
    let text = fs::read_to_string(&json_path).context("the figures of freshet compress")?;
    let found: Value = serde_json::from_str(&text)?;
    let rungs = found["rungs"].as_array().context("no rungs")?;
    let files: Vec<String> = (0..rungs.len())
        .map(|place| format!("{name}/{place}.ftxt"))
        .collect();
    let speeds = step("in Chromium", || speeds(workspace, dir, &files))?;
    let rows = speeds["encoders"].as_array().context("no times")?;
    let mut candidates = Vec::new();
    for ((rung, file), row) in rungs.iter().zip(&files).zip(rows) {
        let mut candidate = rung.clone();
        candidate["bytes_brotli"] = json!(brotli_bytes(&fs::read(dir.join(file))?)?);
        candidate["ms"] = row["text_ms"]["p50"].clone();
        candidate["text_ms"] = row["text_ms"].clone();
        candidate["query_ms"] = row["query_ms"].clone();
        candidate["ready_ms"] = row["ready_ms"].clone();
        candidates.push(candidate);
    }
    Ok(json!({
        "candidates": candidates,
        "targets": found["targets"],
        "parent_ndcg_at_10": found["parent_ndcg_at_10"],
        "module": speeds["module"],
    }))
}

fn speeds(workspace: &Workspace, dir: &Path, files: &[String]) -> anyhow::Result<Value> {
    let mut command = Command::new(workspace.target_dir().join("debug/examples/encoder_speed"));
    command.arg(dir).args(files).stderr(Stdio::inherit());
    let output = command
        .output()
        .context("cannot start the example encoder_speed")?;
    ensure!(output.status.success(), "encoder_speed: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}
