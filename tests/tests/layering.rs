//! Claims about the arrows between crates and modules, read from `cargo metadata` and from the sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use harness::workspace;
use serde_json::Value;

/// Crates, and the workspace crates that each may use outside of its tests.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("shared-model", &[]),
    ("trainer-server", &["shared-model"]),
    ("edge-wasm", &["shared-model"]),
    ("web-demo", &[]),
    ("tests", &["shared-model", "trainer-server"]),
    ("xtask", &[]),
];
/// Lines of a file from which on it is to be split.
const FILE_LINES_MAX: usize = 550;

/// Workspace crates by name, each with those it depends on, tests included.
fn arrows() -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(workspace::root());
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let mut arrows = BTreeMap::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let name = package["name"].as_str().context("a name")?.to_owned();
        let dependencies = package["dependencies"].as_array().context("dependencies")?;
        // A dependency inside the workspace has a path.
        let inside = dependencies
            .iter()
            .filter(|dependency| dependency["path"].is_string());
        let inside = inside.filter_map(|dependency| Some(dependency["name"].as_str()?.to_owned()));
        arrows.insert(name, inside.collect());
    }
    Ok(arrows)
}

/// Every Rust file below a folder of the checkout, with its text.
fn sources(folder: &str) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut folders = vec![workspace::root().join(folder)];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path)?;
                sources.push((path, text));
            }
        }
    }
    ensure!(!sources.is_empty(), "there is no Rust file in {folder}");
    Ok(sources)
}

/// Lines of code that hold one of `words`, comments left aside.
fn lines_with(sources: &[(PathBuf, String)], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        for (line_idx, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", shown(path), line_idx + 1, line.trim()));
            }
        }
    }
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace::root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[test]
fn crates_depend_on_each_other_only_as_the_architecture_says() -> anyhow::Result<()> {
    let arrows = arrows()?;
    assert_eq!(
        arrows.len(),
        ALLOWED.len(),
        "a crate without a place in the architecture: {arrows:?}"
    );
    for (name, allowed) in ALLOWED {
        let actual = arrows
            .get(name)
            .with_context(|| format!("there is no crate {name}"))?;
        for dependency in actual {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
    Ok(())
}

#[test]
fn the_codec_and_the_manifest_do_not_see_burn() -> anyhow::Result<()> {
    let mut files = sources("shared-model/src/codec")?;
    files.extend(sources("shared-model/src/manifest")?);
    files.extend(sources("shared-model/src/edge/sync")?);
    files.retain(|(path, _)| !path.ends_with("tests.rs"));
    assert_eq!(
        lines_with(&files, &["use burn", "burn::", "crate::model"]),
        Vec::<String>::new()
    );
    Ok(())
}

#[test]
fn the_kernels_see_arrays_only_and_need_no_unsafe() -> anyhow::Result<()> {
    let files = sources("shared-model/src/kernels")?;
    assert_eq!(
        lines_with(&files, &["burn::", "crate::", "unsafe"]),
        Vec::<String>::new()
    );
    Ok(())
}

#[test]
fn what_both_sides_share_has_no_io_no_clock_and_no_thread() -> anyhow::Result<()> {
    let forbidden = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::time",
        "SystemTime",
        "Instant::now",
        "tokio",
        "axum",
        "web_sys",
        "js_sys",
    ];
    assert_eq!(
        lines_with(&sources("shared-model/src")?, &forbidden),
        Vec::<String>::new()
    );
    Ok(())
}

#[test]
fn the_learner_below_the_trainer_thread_has_no_clock_and_does_not_see_http() -> anyhow::Result<()> {
    let mut files = sources("trainer-server/src/learner")?;
    files.extend(sources("trainer-server/src/train")?);
    let single = ["learner.rs", "compress.rs", "gate.rs", "preprocess.rs"]
        .map(|name| format!("trainer-server/src/{name}"));
    for relative in single {
        let path = workspace::root().join(relative);
        let text = std::fs::read_to_string(&path)?;
        files.push((path, text));
    }
    let forbidden = [
        "SystemTime",
        "Instant",
        "clock::now_millis",
        "crate::http",
        "axum",
        "std::fs",
    ];
    assert_eq!(lines_with(&files, &forbidden), Vec::<String>::new());
    Ok(())
}

#[test]
fn every_file_says_what_it_is_and_stays_readable_in_one_sitting() -> anyhow::Result<()> {
    for (name, _) in ALLOWED {
        for (path, text) in sources(name)? {
            assert!(
                text.starts_with("//!"),
                "{} does not open with //!",
                shown(&path)
            );
            let num_lines = text.lines().count();
            assert!(
                num_lines <= FILE_LINES_MAX,
                "{} has {num_lines} lines, split it by meaning",
                shown(&path)
            );
        }
    }
    Ok(())
}
