//! `cargo xtask fuzz`: the targets of `fuzz/` under libFuzzer, with the toolchain that everything else is built with.
//!
//! `cargo fuzz` wants a nightly toolchain for its sanitizers; code without `unsafe` has little use for them, and the flags
//! that guide by coverage are stable. It works in that folder too, for who has it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

use crate::process::{cargo, find_program, run_to_end, step};
use crate::workspace::Workspace;

/// What `cargo fuzz` passes, without a sanitizer.
const COVERAGE_FLAGS: [&str; 8] = [
    "--cfg fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebuginfo=1",
];
/// A decoder that takes more memory than this for a small input has believed a length.
const MEGABYTES_MAX: u32 = 1024;
const INPUT_BYTES_MAX: u32 = 16 * 1024;
/// A slower input is a find as well.
const INPUT_SECS_MAX: u32 = 10;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// One of the files in fuzz/fuzz_targets; all of them, one after the other, where none is named.
    target: Option<String>,
    /// How long each runs.
    #[arg(long, default_value_t = 60)]
    secs: u32,
}

/// # Errors
/// There is no such target, it cannot be built, or it found an input that breaks a promise.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let known = known_targets(workspace)?;
    let chosen = match &options.target {
        None => known,
        Some(name) if known.contains(name) => vec![name.clone()],
        Some(name) => bail!("there is no target {name}; there are {}", known.join(", ")),
    };
    if find_program("c++").is_none() {
        bail!("libFuzzer is built by a C++ compiler, and there is no `c++`");
    }
    let target_dir = workspace.target_dir().join("fuzz");
    let triple = host_triple()?;
    step("building the fuzz targets", || {
        build(workspace, &target_dir, &triple)
    })?;
    let binaries = target_dir.join(&triple).join("debug");
    for name in chosen {
        let title = format!("fuzzing {name} for {} s", options.secs);
        step(&title, || {
            fuzz(&binaries.join(&name), &target_dir, &name, options.secs)
        })?;
    }
    Ok(())
}

fn known_targets(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let folder = workspace.root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

fn build(workspace: &Workspace, target_dir: &Path, triple: &str) -> anyhow::Result<()> {
    run_to_end(
        cargo()
            .current_dir(workspace.root().join("fuzz"))
            .env("RUSTFLAGS", COVERAGE_FLAGS.join(" "))
            .env("CARGO_TARGET_DIR", target_dir)
            // With a target named, build scripts and macros are compiled without the flags.
            .args(["build", "--locked", "--bins", "--target", triple]),
    )
}

fn fuzz(binary: &Path, target_dir: &Path, name: &str, secs: u32) -> anyhow::Result<()> {
    let corpus = folder(target_dir.join("corpus").join(name))?;
    let finds = folder(target_dir.join("finds").join(name))?;
    let log = target_dir.join(format!("{name}.log"));
    let ended = run_to_end(
        Command::new(binary)
            .env("FRESHET_FUZZ_SEEDS", &corpus)
            .arg(&corpus)
            .arg(format!("-max_total_time={secs}"))
            .arg(format!("-rss_limit_mb={MEGABYTES_MAX}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-timeout={INPUT_SECS_MAX}"))
            .arg(format!("-artifact_prefix={}/", finds.display()))
            .stderr(File::create(&log).with_context(|| log.display().to_string())?),
    );
    ended.with_context(|| {
        let (log, finds) = (log.display(), finds.display());
        format!("{name}: what it said is in {log}, the input in {finds}")
    })?;
    // Inputs, coverage and corpus at the end.
    let said = std::fs::read_to_string(&log).with_context(|| log.display().to_string())?;
    eprintln!(
        "  {}",
        said.lines()
            .find(|line| line.contains("DONE"))
            .unwrap_or_default()
    );
    Ok(())
}

fn folder(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn host_triple() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output();
    let text = String::from_utf8(output.context("cannot start rustc")?.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
