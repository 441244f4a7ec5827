//! Set-up: what must be there before something is built or tested, and how it comes there.
//!
//! Installs only what the system's own package manager or rustup serves, and says so first.

use std::process::Command;

use anyhow::{Context, bail};

use crate::process::{cargo, find_program, run_to_end, step};
use crate::workspace::Workspace;

const WASM_TARGET: &str = "wasm32-unknown-unknown";
/// Names under which a Chromium goes, and the driver that belongs to it.
const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];
const DRIVER: &str = "chromedriver";
const BROWSER_PACKAGES: [&str; 2] = ["chromium", "chromium-driver"];
/// A Vulkan that computes on the CPU, for tests of the GPU backend on machines without one.
const VULKAN_PACKAGES: [&str; 2] = ["libvulkan1", "mesa-vulkan-drivers"];
const VULKAN_LIBRARY_DIRS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];

/// Everything that `cargo xtask test` needs.
///
/// # Errors
/// Something is missing and cannot be installed from here; the message says what to install.
pub(crate) fn for_tests(workspace: &Workspace) -> anyhow::Result<()> {
    wasm_target(workspace)?;
    let mut missing = Vec::new();
    if !has_browser() {
        missing.extend(BROWSER_PACKAGES);
    }
    if !has_vulkan() {
        missing.extend(VULKAN_PACKAGES);
    }
    if missing.is_empty() {
        eprintln!("✔ wasm target, Chromium, chromedriver and Vulkan are there");
        return Ok(());
    }
    install(&missing)?;
    if !has_browser() {
        bail!(
            "Chromium and chromedriver are still not on PATH; install a Chromium and the chromedriver of the same version"
        );
    }
    Ok(())
}

/// The standard library for wasm.
///
/// # Errors
/// It is missing and there is no rustup to add it.
pub(crate) fn wasm_target(workspace: &Workspace) -> anyhow::Result<()> {
    if has_wasm_target(workspace)? {
        return Ok(());
    }
    if find_program("rustup").is_none() {
        bail!(
            "the standard library for {WASM_TARGET} is missing; install it with your distribution's package manager, or use rustup"
        );
    }
    let title = format!("adding the target {WASM_TARGET}");
    step(&title, || {
        run_to_end(
            Command::new("rustup")
                .args(["target", "add", WASM_TARGET])
                .current_dir(workspace.root()),
        )
    })
}

fn has_wasm_target(workspace: &Workspace) -> anyhow::Result<bool> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", WASM_TARGET])
        .current_dir(workspace.root())
        .output();
    let output = output.context("cannot run rustc")?;
    let library_dir = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && std::path::Path::new(library_dir.trim()).is_dir())
}

/// Builds the server, the demo and what loads servers. With an example of the tests crate cargo unifies the features that
/// the tests have; the programs alone would build burn a second time.
///
/// # Errors
/// The build fails.
pub(crate) fn build_programs(workspace: &Workspace) -> anyhow::Result<()> {
    let targets = ["build", "--workspace", "--bins", "--example", "ingest_load"];
    step("building the programs", || {
        run_to_end(cargo().args(targets).current_dir(workspace.root()))
    })
}

fn has_browser() -> bool {
    let has_chromium = BROWSERS.iter().any(|name| find_program(name).is_some());
    has_chromium && find_program(DRIVER).is_some()
}

/// Only Linux needs a package; macOS and Windows bring their own graphics interface.
fn has_vulkan() -> bool {
    let is_installed = |dir: &&str| std::path::Path::new(dir).join("libvulkan.so.1").exists();
    !cfg!(target_os = "linux") || VULKAN_LIBRARY_DIRS.iter().any(|dir| is_installed(dir))
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    let wanted = packages.join(" ");
    if find_program("apt-get").is_none() {
        bail!(
            "missing: {wanted} (Debian's names); install them with your package manager and run this again"
        );
    }
    let Some(prefix) = root_prefix() else {
        bail!(
            "missing: {wanted}; install them with `sudo apt-get install {wanted}` and run this again"
        );
    };
    step(&format!("installing {wanted}"), || {
        run_to_end(apt_get(prefix).args(["update", "-qq"]))?;
        run_to_end(
            apt_get(prefix)
                .args(["install", "-y", "-qq", "--no-install-recommends"])
                .args(packages),
        )
    })
}

/// How to become root without a question: not at all, or through `sudo -n`.
fn root_prefix() -> Option<&'static [&'static str]> {
    let user = Command::new("id").arg("-u").output().ok()?; // no `id`: no known way to become root
    if user.stdout.starts_with(b"0\n") {
        return Some(&[]);
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).status();
    sudo.is_ok_and(|status| status.success())
        .then_some(&["sudo", "-n"])
}

fn apt_get(prefix: &[&str]) -> Command {
    let mut command = match prefix.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg("apt-get");
            command
        }
        None => Command::new("apt-get"),
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
