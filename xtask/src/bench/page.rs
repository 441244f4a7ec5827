//! How fast a page applies and verifies deltas: the built CPU module in Chromium.
//!
//! The states, the page and the clock are those of the example `apply_in_page` of the tests crate.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::process::{cargo, run_to_end, step};
use crate::setup;
use crate::wasm::{self, Profile};
use crate::workspace::Workspace;

/// Builds what is missing and measures every case.
///
/// # Errors
/// A part cannot be built or run.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Value> {
    setup::for_tests(workspace)?;
    wasm::build_all(workspace, Profile::Wasm, wasm::modules(false))?;
    step("building the example that drives the browser", || {
        let mut command = cargo();
        command.args(["build", "--workspace", "--example", "apply_in_page"]);
        run_to_end(command.current_dir(workspace.root()))
    })?;
    let output = step("measuring in Chromium", || {
        let program = workspace.target_dir().join("debug/examples/apply_in_page");
        let mut command = Command::new(program);
        command.stderr(Stdio::inherit());
        command
            .output()
            .context("cannot start the example apply_in_page")
    })?;
    ensure!(output.status.success(), "apply_in_page: {}", output.status);
    let lines = String::from_utf8(output.stdout)?;
    let cases: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let empty = cases.first().and_then(|case| case["apply_millis"].as_f64());
    let empty = empty.context("the example measured nothing")?;
    let cases: Vec<Value> = cases
        .into_iter()
        .map(|case| with_rate(case, empty))
        .collect();
    Ok(json!({ "cases": cases }))
}

/// With the rate at which codes are decoded, beyond copy and hash of the whole state.
fn with_rate(mut case: Value, empty_millis: f64) -> Value {
    let bytes = case["code_bytes"].as_f64();
    let millis = case["apply_millis"]
        .as_f64()
        .map(|millis| millis - empty_millis);
    if let (Some(bytes), Some(millis)) = (bytes, millis.filter(|millis| *millis > 0.0)) {
        case["decode_megabytes_per_sec"] = json!(bytes / millis / 1000.0);
    }
    case
}
