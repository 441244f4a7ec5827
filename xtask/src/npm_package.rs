//! The npm package: both modules with link-time optimisation and wasm-opt, put together in `target/npm` and packed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::bench;
use crate::process::{find_program, run_to_end, step};
use crate::setup;
use crate::site;
use crate::wasm::{self, Module, Profile};
use crate::workspace::Workspace;

/// Debian's wasm-opt is too old for what rustc emits; this one is served by npm.
const BINARYEN: &str = "binaryen@132";
/// Higher levels make the modules smaller raw but larger compressed, and it is the compressed bytes that travel:
/// the CPU module of 1,336,751 bytes (253,040 in brotli) becomes 251,972 with `-O1` and 275,147 with `-Oz`.
const OPTIMIZATION: &str = "-O1";
/// Endings of what is published beside the modules and `lib`.
const SOURCE_ENDINGS: [&str; 3] = [".js", ".d.ts", "package.json"];
const README: &str = "README.md";
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
    wasm::glue::finish(&Profile::Npm.dist_dir(workspace), wasm::modules(false))?;
    let package_dir = workspace.package_dir();
    copy_sources(workspace, &package_dir)?;
    let mut npm_pack = Command::new("npm");
    npm_pack
        .args(["pack", "--pack-destination", ".."])
        .current_dir(&package_dir);
    step("packing the package", || run_to_end(&mut npm_pack))?;
    tell_hashes(&package_dir.join("dist"))?;
    bench::run(workspace, bench::Name::Sizes, None)?;
    bench::sizes::hold(workspace, Profile::Npm)
}

/// Prints what a script tag names as `integrity`, for the notes of a release.
fn tell_hashes(dist_dir: &Path) -> anyhow::Result<()> {
    for entry in
        fs::read_dir(dist_dir).with_context(|| format!("cannot list {}", dist_dir.display()))?
    {
        let path = entry?.path();
        let is_served = path
            .extension()
            .is_some_and(|ending| ending == "js" || ending == "wasm");
        if is_served {
            let name = path.file_name().unwrap_or_default().display();
            println!("{name}: {}", wasm::glue::integrity_of(&path)?);
        }
    }
    Ok(())
}

/// Copies what the package has beside its modules.
///
/// # Errors
/// A file cannot be copied.
pub(crate) fn copy_sources(workspace: &Workspace, package_dir: &Path) -> anyhow::Result<()> {
    let npm_dir = workspace.npm_dir();
    fs::create_dir_all(package_dir)
        .with_context(|| format!("cannot make {}", package_dir.display()))?;
    let entries =
        fs::read_dir(&npm_dir).with_context(|| format!("cannot list {}", npm_dir.display()))?;
    for entry in entries {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        let is_source = SOURCE_ENDINGS.iter().any(|ending| text.ends_with(ending));
        if is_source || text == README {
            site::copy_file(&npm_dir.join(&name), &package_dir.join(&name))?;
        }
    }
    site::copy_dir(&npm_dir.join("lib"), &package_dir.join("lib"))
}

/// Runs wasm-opt on a module once; a mark beside the module remembers its size afterwards.
fn optimize(workspace: &Workspace, module: Module) -> anyhow::Result<()> {
    let dist_dir = Profile::Npm.dist_dir(workspace);
    let path = module.wasm_path(&dist_dir);
    let mark = dist_dir.join(format!(".{}.optimized", module.out_name));
    if fs::read_to_string(&mark)
        .is_ok_and(|marked| size_text(&path).is_ok_and(|size| size == marked))
    {
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
        OPTIMIZATION,
    ]);
    wasm_opt
        .args(WASM_FEATURES)
        .args(["--strip-debug", "--strip-producers"]);
    wasm_opt
        .arg(&path)
        .arg("-o")
        .arg(&optimized)
        .current_dir(&dist_dir);
    step(&format!("optimizing {}", module.out_name), || {
        run_to_end(&mut wasm_opt)
    })?;
    fs::rename(&optimized, &path).with_context(|| format!("cannot replace {}", path.display()))?;
    fs::write(&mark, size_text(&path)?).with_context(|| format!("cannot write {}", mark.display()))
}

fn size_text(path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    Ok(size.to_string())
}
