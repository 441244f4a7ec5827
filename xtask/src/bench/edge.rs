//! Ranking and encoding in the page beside onnxruntime-web in the same Chromium, one thread each, call by call in turn.
//!
//! Both sides, the clock and the comparison of what they answer are those of the example `edge_speed` of the tests
//! crate. Here its folder is put together: the built modules, onnxruntime-web from npm, and the ONNX graphs that
//! `xtask/bench/edge_*.py` write in an environment of their own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::inputs::Environment;
use super::sizes;
use crate::process::{cargo, find_program, run_to_end, step};
use crate::setup;
use crate::site;
use crate::wasm::{self, Profile};
use crate::workspace::Workspace;

const ONNX: Environment = Environment {
    name: "bench-onnx",
    packages: &[
        "onnx==1.23.2",
        "onnxruntime==1.32.0",
        "numpy>=2,<3",
        "safetensors>=0.6,<1",
    ],
    check: "import numpy, onnx, onnxruntime, safetensors; assert onnx.__version__ == '1.23.2'",
};
const ORT_WEB: &str = "onnxruntime-web@1.30.0";
const ORT_FILES: [&str; 3] = [
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
];
const PAGE: &str = "<!doctype html><title>edge</title>\n";

/// Builds what is missing and measures both comparisons and the sizes.
///
/// # Errors
/// A part cannot be built, installed or run, or the two sides do not compute the same.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Value> {
    setup::for_tests(workspace)?;
    // Others on the machine make all sides slower, and not alike; the file says so.
    let load_average = fs::read_to_string("/proc/loadavg").unwrap_or_default(); // elsewhere it is not known
    wasm::build_all(workspace, Profile::Wasm, wasm::modules(false))?;
    step("building the example that drives the browser", || {
        let mut command = cargo();
        command.args(["build", "--workspace", "--example", "edge_speed"]);
        run_to_end(command.current_dir(workspace.root()))
    })?;
    let python = step("preparing onnx", || ONNX.python(workspace))?;
    let dir = workspace.target_dir().join("bench-edge");
    fs::create_dir_all(dir.join("ort"))?;
    fs::write(dir.join("page.html"), PAGE)?;
    step("preparing onnxruntime-web", || ort_web(&dir))?;
    site::copy_dir(&Profile::Wasm.dist_dir(workspace), &dir.join("dist"))?;
    site::copy_dir(&workspace.npm_dir().join("lib"), &dir.join("lib"))?;
    let example = workspace.target_dir().join("debug/examples/edge_speed");
    step("writing the graphs", || {
        run_to_end(Command::new(&example).arg("prepare").arg(&dir))?;
        let python = |script: &str| {
            let mut command = Command::new(&python);
            command.arg(workspace.path("xtask/bench").join(script));
            command
        };
        run_to_end(python("edge_rank_onnx.py").arg(&dir))?;
        run_to_end(python("edge_encoder_onnx.py").arg(&dir).arg(&dir))
    })?;
    let output = step("measuring in Chromium", || {
        let mut command = Command::new(&example);
        command.arg("measure").arg(&dir).stderr(Stdio::inherit());
        command
            .output()
            .context("cannot start the example edge_speed")
    })?;
    ensure!(output.status.success(), "edge_speed: {}", output.status);
    let measured: Vec<serde_json::Map<String, Value>> = serde_json::from_slice(&output.stdout)?;
    let mut numbers = Value::Object(measured.into_iter().flatten().collect());
    let sizes = sizes::measure(workspace)?;
    numbers["cpu_bytes_brotli"] = sizes["freshet_cpu"]["total_brotli_with_package_js"].clone();
    numbers["webgpu_bytes_brotli"] =
        sizes["freshet_webgpu"]["total_brotli_with_package_js"].clone();
    numbers["sizes_profile"] = sizes["profile"].clone();
    numbers["peer"] = json!(ORT_WEB);
    numbers["load_average_before"] = json!(load_average.split(' ').next());
    Ok(numbers)
}

/// Its files beside the page, from npm.
fn ort_web(dir: &Path) -> anyhow::Result<()> {
    let is_there = ORT_FILES
        .iter()
        .all(|file| dir.join("ort").join(file).is_file());
    if is_there {
        return Ok(());
    }
    ensure!(
        find_program("npm").is_some(),
        "npm is missing; it brings onnxruntime-web"
    );
    let npm_dir = dir.join("npm");
    fs::create_dir_all(&npm_dir)?;
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
    ]);
    run_to_end(npm.arg(&npm_dir).arg(ORT_WEB))?;
    for file in ORT_FILES {
        let installed = npm_dir.join("node_modules/onnxruntime-web/dist").join(file);
        site::copy_file(&installed, &dir.join("ort").join(file))?;
    }
    Ok(())
}
