//! The compression ladder on every stream that `FRESHET_DATA` holds: `freshet compress`, how fast what it makes is in a
//! page, and the Ranker in codes of all widths (`freshet evaluate --sweep widths`).
//!
//! Quality and robustness are those of the commands; milliseconds are those of the example `encoder_speed` of the tests
//! crate, all encoders in one page of Chromium, taking turns; the choice is by those.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::inputs::{Stream, pretrained_encoder, streams};
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
/// Events of the last fifth that the Ranker is tried on: 156 versions.
const RANKER_EVENTS_MAX: &str = "20000";

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
    step("the pretrained encoder", || pretrained_encoder(workspace))?;
    let dir = workspace.target_dir().join("bench-compress");
    site::copy_dir(&Profile::Wasm.dist_dir(workspace), &dir.join("dist"))?;
    site::copy_dir(&workspace.npm_dir().join("lib"), &dir.join("lib"))?;
    fs::write(dir.join("page.html"), PAGE)?;
    let mut numbers = serde_json::Map::new();
    for stream in streams {
        let mut found = ladder(workspace, &stream, &dir)?;
        found["ranker"] = ranker(workspace, &stream, &dir)?;
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
    let targets = TARGETS.map(|bytes| {
        let chosen = chosen(&candidates, bytes);
        json!({ "bytes": bytes, "time_share": TIME_SHARE, "chosen": chosen })
    });
    Ok(json!({
        "candidates": candidates,
        "targets": targets,
        "parent_ndcg_at_10": found["parent_ndcg_at_10"],
        "module": speeds["module"],
    }))
}

/// Name of the best one that is small and fast enough in the page and passes the gate. The first candidate is the
/// encoder that is only packed.
fn chosen(candidates: &[Value], bytes_max: usize) -> Option<&str> {
    let number = |candidate: &Value, name: &str| candidate[name].as_f64().unwrap_or(f64::INFINITY);
    let ms_max = TIME_SHARE * number(candidates.first()?, "ms");
    let fits = |candidate: &&Value| {
        number(candidate, "bytes") <= bytes_max as f64 // exact below 2^53
            && number(candidate, "ms") <= ms_max
            && candidate["passes"] == true
    };
    let fitting = candidates.iter().filter(fits);
    let by_quality =
        |a: &&Value, b: &&Value| number(a, "relative_ndcg").total_cmp(&number(b, "relative_ndcg"));
    fitting.max_by(by_quality)?["name"].as_str()
}

/// The Ranker in codes of all widths, beside every weight as f32, and its drift over a hundred versions.
fn ranker(workspace: &Workspace, stream: &Stream, dir: &Path) -> anyhow::Result<Value> {
    let json_path = dir.join(format!("{}-widths.json", stream.name));
    step("the Ranker in codes of all widths", || {
        let mut command = Command::new(workspace.target_dir().join("debug/freshet"));
        command.args(["evaluate", "--sweep", "widths", "--dataset"]);
        command
            .arg(&stream.dir)
            .args(["--events-max", RANKER_EVENTS_MAX]);
        command.arg("--json").arg(&json_path);
        command.arg("--svg").arg(json_path.with_extension("svg"));
        run_to_end(&mut command)
    })?;
    let text = fs::read_to_string(&json_path).context("the figures of freshet evaluate")?;
    Ok(serde_json::from_str(&text)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_that_is_small_fast_and_sound_is_chosen() {
        let candidate = |name: &str, bytes: usize, ms: f64, relative_ndcg: f64, passes: bool| json!({ "name": name, "bytes": bytes, "ms": ms, "relative_ndcg": relative_ndcg, "passes": passes });
        let all = [
            candidate("whole", 8, 9.0, 1.0, true),
            candidate("slow", 3, 4.0, 0.99, true),
            candidate("fast", 3, 2.9, 0.97, true),
            candidate("worse", 3, 2.0, 0.96, true),
            candidate("refused", 3, 2.0, 0.98, false),
            candidate("large", 5, 2.0, 0.98, true),
        ];
        assert_eq!(chosen(&all, 4), Some("fast"));
        assert_eq!(chosen(&all, 5), Some("large"));
        assert_eq!(chosen(&all, 2), None);
        assert_eq!(chosen(&[], 2), None);
    }
}
