//! The browser modules: cargo, then wasm-bindgen through its library, so that no tool has to be installed.
//!
//! A module is rebuilt when something it is built from has changed. Cargo alone cannot tell, because both
//! modules are one crate with different features and share one output file.

pub(crate) mod glue;

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use wasm_bindgen_cli_support::Bindgen;

use crate::process::{cargo, run_to_end, step};
use crate::workspace::Workspace;

/// What a browser module is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Quick to build.
    Wasm,
    /// As small as it gets.
    Npm,
}

impl Profile {
    /// Its word on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Npm => "npm",
        }
    }

    /// Where its modules go.
    pub(crate) fn dist_dir(self, workspace: &Workspace) -> PathBuf {
        match self {
            Self::Wasm => workspace.dist_dir(),
            Self::Npm => workspace.package_dir().join("dist"),
        }
    }
}

/// One of the browser modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Module {
    /// Name of the files, without ending.
    pub(crate) out_name: &'static str,
    /// Its name in the page.
    pub(crate) backend: &'static str,
    features: &'static [&'static str],
    /// Cargo profile of the published module.
    npm_profile: &'static str,
    /// What to tell someone who waits for the first build.
    first_build: &'static str,
}

/// Another one makes modules out of date that were built before.
const GLUE_LAYOUT: &[u8] = b"factory";

const CPU: Module = Module {
    out_name: "freshet_cpu",
    backend: "cpu",
    features: &["cpu"],
    npm_profile: "npm",
    first_build: "about 4 minutes",
};
const WEBGPU: Module = Module {
    out_name: "freshet_webgpu",
    backend: "webgpu",
    features: &["webgpu"],
    npm_profile: "npm-webgpu",
    first_build: "about 8 minutes",
};

/// The text encoder.
const TEXT: Module = Module {
    out_name: "freshet_text",
    backend: "text",
    features: &["text"],
    npm_profile: "npm",
    first_build: "about 2 minutes",
};
/// The same for browsers with relaxed SIMD; the others refuse it.
const TEXT_RELAXED: Module = Module {
    out_name: "freshet_text_relaxed",
    backend: "text_relaxed",
    features: &["text-relaxed"],
    npm_profile: "npm",
    first_build: "about a minute",
};

/// All modules that are published, the CPU module first; or those that every browser takes.
pub(crate) fn modules(is_cpu_only: bool) -> &'static [Module] {
    if is_cpu_only {
        &[CPU, TEXT]
    } else {
        &[CPU, TEXT, WEBGPU, TEXT_RELAXED]
    }
}

impl Module {
    /// The wasm file in the folder of modules.
    pub(crate) fn wasm_path(self, dist_dir: &Path) -> PathBuf {
        dist_dir.join(format!("{}_bg.wasm", self.out_name))
    }

    /// Its JavaScript glue.
    pub(crate) fn js_path(self, dist_dir: &Path) -> PathBuf {
        dist_dir.join(format!("{}.js", self.out_name))
    }

    fn cargo_profile(self, profile: Profile) -> &'static str {
        match profile {
            Profile::Wasm => "wasm",
            Profile::Npm => self.npm_profile,
        }
    }

    fn stamp_path(self, dist_dir: &Path) -> PathBuf {
        dist_dir.join(format!(".{}.stamp", self.out_name))
    }
}

/// Builds `modules` into the profile's folder where they are out of date.
///
/// # Errors
/// The build fails.
pub(crate) fn build_all(
    workspace: &Workspace,
    profile: Profile,
    modules: &[Module],
) -> anyhow::Result<()> {
    let dist_dir = profile.dist_dir(workspace);
    for module in modules {
        let inputs = inputs_stamp(workspace, profile, *module)?;
        let stamp_path = module.stamp_path(&dist_dir);
        let is_fresh = module.wasm_path(&dist_dir).is_file()
            && module.js_path(&dist_dir).is_file()
            && fs::read_to_string(&stamp_path).is_ok_and(|stamp| stamp == inputs);
        if is_fresh {
            eprintln!("✔ {} is up to date", module.out_name);
            continue;
        }
        let title = format!(
            "building {} (the first time {})",
            module.out_name, module.first_build
        );
        step(&title, || build(workspace, profile, *module))?;
        fs::write(&stamp_path, inputs)
            .with_context(|| format!("cannot write {}", stamp_path.display()))?;
    }
    glue::finish(&dist_dir, self::modules(false))
}

fn build(workspace: &Workspace, profile: Profile, module: Module) -> anyhow::Result<()> {
    let mut command = cargo();
    command.args([
        "build",
        "--package",
        "edge-wasm",
        "--lib",
        "--target",
        "wasm32-unknown-unknown",
    ]);
    command
        .args(["--profile", module.cargo_profile(profile)])
        .current_dir(workspace.root());
    command.args([
        "--no-default-features",
        "--features",
        &module.features.join(","),
    ]);
    // The native compiler's flags do not belong into the browser.
    run_to_end(command.env_remove("RUSTFLAGS"))?;

    let built = workspace
        .target_dir()
        .join("wasm32-unknown-unknown")
        .join(module.cargo_profile(profile))
        .join("edge_wasm.wasm");
    let dist_dir = profile.dist_dir(workspace);
    fs::create_dir_all(&dist_dir).with_context(|| format!("cannot make {}", dist_dir.display()))?;
    Bindgen::new()
        .input_path(&built)
        .out_name(module.out_name)
        .web(true)?
        .typescript(false)
        .omit_default_module_path(true)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(&dist_dir)
        .with_context(|| format!("wasm-bindgen refused {}", built.display()))?;
    glue::make_factory(&module.js_path(&dist_dir))
}

/// A fingerprint of everything that a module is built from.
fn inputs_stamp(workspace: &Workspace, profile: Profile, module: Module) -> anyhow::Result<String> {
    let mut hasher = DefaultHasher::new();
    hasher.write(module.cargo_profile(profile).as_bytes());
    hasher.write(module.features.join(",").as_bytes());
    hasher.write(GLUE_LAYOUT);
    let files = [
        "Cargo.toml",
        "Cargo.lock",
        ".cargo/config.toml",
        "rust-toolchain.toml",
    ];
    for relative in files {
        hash_file(&workspace.path(relative), &mut hasher)?;
    }
    for relative in ["shared-model/Cargo.toml", "edge-wasm/Cargo.toml"] {
        hash_file(&workspace.path(relative), &mut hasher)?;
    }
    for relative in ["shared-model/src", "edge-wasm/src"] {
        hash_dir(&workspace.path(relative), &mut hasher)?;
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}

fn hash_dir(dir: &Path, hasher: &mut DefaultHasher) -> anyhow::Result<()> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        paths.push(entry?.path());
    }
    paths.sort();
    for path in paths {
        if path.is_dir() {
            hash_dir(&path, hasher)?;
        } else {
            hash_file(&path, hasher)?;
        }
    }
    Ok(())
}

fn hash_file(path: &Path, hasher: &mut DefaultHasher) -> anyhow::Result<()> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    hasher.write(path.to_string_lossy().as_bytes());
    hasher.write(&bytes);
    Ok(())
}
