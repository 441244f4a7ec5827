//! Benchmarks by name, each written as JSON beside the command, commit and machine that made it.

mod delta;
mod edge;
mod inputs;
mod leave_one_out;
mod page;
mod train;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::wasm::{self, Profile};
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
    /// The training step beside the same model in PyTorch, which is installed under target.
    Train,
    /// Leave-one-out beside RecBole's SASRec, which is installed under target; for hours.
    LeaveOneOut,
}

/// Brotli as a server with precompressed files sends it.
const BROTLI_QUALITY: i32 = 11;
const BROTLI_WINDOW_BITS: i32 = 24;

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
        Name::Sizes => sizes(workspace)?,
        Name::Delta => delta::measure(workspace)?,
        Name::Page => page::measure(workspace)?,
        Name::Edge => edge::measure(workspace)?,
        Name::Train => train::measure(workspace)?,
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

/// Of the package where it was built, else of the modules of tests and demo.
fn sizes(workspace: &Workspace) -> anyhow::Result<Value> {
    let is_packed = wasm::modules(false).iter().all(|module| {
        module
            .wasm_path(&Profile::Npm.dist_dir(workspace))
            .is_file()
    });
    let profile = if is_packed {
        Profile::Npm
    } else {
        Profile::Wasm
    };
    let dist_dir = profile.dist_dir(workspace);
    let mut numbers = serde_json::Map::new();
    numbers.insert("profile".into(), json!(profile.name()));
    let package_js = package_js_bytes(workspace)?;
    numbers.insert("package_js".into(), measured(&package_js)?);
    for module in wasm::modules(false) {
        let wasm_path = module.wasm_path(&dist_dir);
        if !wasm_path.is_file() {
            eprintln!(
                "{} is not built; `cargo xtask wasm` builds it",
                module.out_name
            );
            continue;
        }
        let wasm_bytes = read(&wasm_path)?;
        let js_bytes = read(&module.js_path(&dist_dir))?;
        let wasm_size = measured(&wasm_bytes)?;
        let js_size = measured(&js_bytes)?;
        let total =
            brotli_bytes(&wasm_bytes)? + brotli_bytes(&js_bytes)? + brotli_bytes(&package_js)?;
        let module_sizes =
            json!({ "wasm": wasm_size, "js": js_size, "total_brotli_with_package_js": total });
        numbers.insert(module.out_name.into(), module_sizes);
    }
    Ok(Value::Object(numbers))
}

/// All scripts that a page loads beside a module, one after another.
fn package_js_bytes(workspace: &Workspace) -> anyhow::Result<Vec<u8>> {
    let npm_dir = workspace.npm_dir();
    let mut bytes = read(&npm_dir.join("index.js"))?;
    bytes.extend(read(&npm_dir.join("worker.js"))?);
    let mut paths = Vec::new();
    for entry in fs::read_dir(npm_dir.join("lib"))? {
        paths.push(entry?.path());
    }
    paths.sort();
    for path in paths {
        bytes.extend(read(&path)?);
    }
    Ok(bytes)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn measured(bytes: &[u8]) -> anyhow::Result<Value> {
    Ok(json!({ "raw_bytes": bytes.len(), "brotli_bytes": brotli_bytes(bytes)? }))
}

fn brotli_bytes(mut bytes: &[u8]) -> anyhow::Result<usize> {
    let mut compressed = Vec::new();
    let params = brotli::enc::BrotliEncoderParams {
        quality: BROTLI_QUALITY,
        lgwin: BROTLI_WINDOW_BITS,
        ..Default::default()
    };
    brotli::BrotliCompress(&mut bytes, &mut compressed, &params)?;
    Ok(compressed.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_bytes_compress() -> anyhow::Result<()> {
        assert!(brotli_bytes(&[7; 10_000])? < 100);
        Ok(())
    }
}
