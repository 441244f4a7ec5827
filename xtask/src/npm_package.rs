//! The npm package: both modules with full link-time optimisation and wasm-opt, then `npm pack`.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail};

use crate::bench;
use crate::process::{find_program, run_to_end, step};
use crate::setup;
use crate::wasm::{self, Module, Profile};
use crate::workspace::Workspace;

/// Debian's wasm-opt is too old for what rustc emits; this one is served by npm.
const BINARYEN: &str = "binaryen@132";
/// Named one by one: `--all-features` lets wasm-opt emit what browsers refuse.
const WASM_FEATURES: [&str; 7] = [
    "--enable-simd",
    "--enable-bulk-memory",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-reference-types",
    "--enable-multivalue",
];

/// Builds and packs the package; prints what it weighs.
///
/// # Errors
/// A build fails, or npm is missing.
pub(crate) fn pack(workspace: &Workspace) -> anyhow::Result<()> {
    setup::wasm_target(workspace)?;
    if find_program("npm").is_none() {
        bail!("npm is missing; it brings wasm-opt and packs the package");
    }
    wasm::build_all(workspace, Profile::Npm, wasm::modules(false))?;
    for module in wasm::modules(false) {
        optimize(workspace, *module)?;
    }
    let out_dir = workspace.target_dir().join("npm");
    fs::create_dir_all(&out_dir).with_context(|| format!("cannot make {}", out_dir.display()))?;
    let mut npm_pack = Command::new("npm");
    npm_pack
        .arg("pack")
        .arg("--pack-destination")
        .arg(&out_dir)
        .current_dir(workspace.npm_dir());
    step("packing the package", || run_to_end(&mut npm_pack))?;
    bench::run(workspace, bench::Name::Sizes, None)
}

/// Runs wasm-opt on a module once; a mark beside the module remembers it.
fn optimize(workspace: &Workspace, module: Module) -> anyhow::Result<()> {
    let path = module.wasm_path(workspace);
    let mark = workspace
        .dist_dir()
        .join(format!(".{}.optimized", module.out_name));
    let size = fs::metadata(&path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len()
        .to_string();
    if fs::read_to_string(&mark).is_ok_and(|marked| marked == size) {
        eprintln!("✔ {} is optimized", module.out_name);
        return Ok(());
    }
    let optimized = path.with_extension("wasm.optimized");
    let mut wasm_opt = Command::new("npm");
    wasm_opt.args([
        "exec",
        "--yes",
        &format!("--package={BINARYEN}"),
        "--",
        "wasm-opt",
        "-Oz",
    ]);
    wasm_opt
        .args(WASM_FEATURES)
        .args(["--strip-debug", "--strip-producers"]);
    wasm_opt
        .arg(&path)
        .arg("-o")
        .arg(&optimized)
        .current_dir(workspace.npm_dir());
    step(
        &format!("optimizing {} (1 to 5 minutes)", module.out_name),
        || run_to_end(&mut wasm_opt),
    )?;
    fs::rename(&optimized, &path).with_context(|| format!("cannot replace {}", path.display()))?;
    let size = fs::metadata(&path)?.len().to_string();
    fs::write(&mark, size).with_context(|| format!("cannot write {}", mark.display()))
}
