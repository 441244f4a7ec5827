//! What a page has to load: bytes of modules and scripts, raw and in brotli, and what they may weigh at most.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::wasm::{self, Module, Profile};
use crate::workspace::Workspace;

/// Brotli as a server with precompressed files sends it.
const BROTLI_QUALITY: i32 = 11;
const BROTLI_WINDOW_BITS: i32 = 24;

/// Most bytes of a published module, its glue and the package's scripts together, in brotli.
const BUDGETS: [(&str, usize); 4] = [
    ("freshet_cpu", 350_000),
    ("freshet_webgpu", 1_500_000),
    ("freshet_text", 600_000),
    ("freshet_text_relaxed", 600_000),
];
/// The quick profile of tests and demo has no link-time optimisation, without which the CPU module is a quarter larger.
const QUICK_PROFILE_PERCENT: usize = 125;

/// Of the package where it was built, else of the modules of tests and demo.
///
/// # Errors
/// Something cannot be read.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Value> {
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
    for module in wasm::modules(false) {
        let wasm_path = module.wasm_path(&dist_dir);
        if !wasm_path.is_file() {
            eprintln!(
                "{} is not built; `cargo xtask wasm` builds it",
                module.out_name
            );
            continue;
        }
        let weight = Weight::of(workspace, *module, &dist_dir)?;
        let module_sizes = json!({
            "wasm": weight.wasm.json(),
            "js": weight.js.json(),
            "package_js": weight.package_js.json(),
            "total_brotli_with_package_js": weight.brotli_bytes(),
            "budget": budget_bytes(*module, profile),
        });
        numbers.insert(module.out_name.into(), module_sizes);
    }
    Ok(Value::Object(numbers))
}

/// Refuses modules that outgrew their budget; all must be built.
///
/// # Errors
/// One is too large, or something cannot be read.
pub(crate) fn hold(workspace: &Workspace, profile: Profile) -> anyhow::Result<()> {
    let dist_dir = profile.dist_dir(workspace);
    for module in wasm::modules(false) {
        let Some(budget) = budget_bytes(*module, profile) else {
            continue;
        };
        let actual = Weight::of(workspace, *module, &dist_dir)?.brotli_bytes();
        ensure!(
            actual <= budget,
            "{} with its scripts is {actual} bytes in brotli, at most {budget} are allowed",
            module.out_name
        );
        eprintln!("✔ {}: {actual} of {budget} bytes", module.out_name);
    }
    Ok(())
}

fn budget_bytes(module: Module, profile: Profile) -> Option<usize> {
    let (_, published) = BUDGETS
        .into_iter()
        .find(|(name, _)| *name == module.out_name)?;
    Some(match profile {
        Profile::Npm => published,
        Profile::Wasm => published * QUICK_PROFILE_PERCENT / 100,
    })
}

/// A module, its glue and the package's scripts: what a page loads before it ranks.
struct Weight {
    wasm: Size,
    js: Size,
    package_js: Size,
}

impl Weight {
    fn of(workspace: &Workspace, module: Module, dist_dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            wasm: Size::of(&read(&module.wasm_path(dist_dir))?)?,
            js: Size::of(&read(&module.js_path(dist_dir))?)?,
            package_js: Size::of(&package_js_bytes(workspace, module)?)?,
        })
    }

    fn brotli_bytes(&self) -> usize {
        self.wasm.brotli_bytes + self.js.brotli_bytes + self.package_js.brotli_bytes
    }
}

struct Size {
    raw_bytes: usize,
    brotli_bytes: usize,
}

impl Size {
    fn of(bytes: &[u8]) -> anyhow::Result<Self> {
        Ok(Self {
            raw_bytes: bytes.len(),
            brotli_bytes: brotli_bytes(bytes)?,
        })
    }

    fn json(&self) -> Value {
        json!({ "raw_bytes": self.raw_bytes, "brotli_bytes": self.brotli_bytes })
    }
}

/// All scripts that a page loads beside a module, one after another: what its entry and its worker import, and what
/// these import. Bindings of frameworks, and what the other entry brings, are not among them.
fn package_js_bytes(workspace: &Workspace, module: Module) -> anyhow::Result<Vec<u8>> {
    let entries: &[&str] = match module.out_name {
        "freshet_cpu" => &["cpu.js", "worker-cpu.js"],
        "freshet_webgpu" => &["index.js", "worker.js"],
        _ => &["lib/text.js", "lib/runtime-text.js"],
    };
    let npm_dir = workspace.npm_dir();
    let mut waiting: Vec<PathBuf> = entries.iter().map(|name| npm_dir.join(name)).collect();
    let mut loaded = BTreeSet::new();
    let mut bytes = Vec::new();
    while let Some(path) = waiting.pop() {
        if !loaded.insert(path.clone()) {
            continue;
        }
        let script =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        waiting.extend(imported(&script, &path));
        bytes.extend(script.into_bytes());
    }
    Ok(bytes)
}

/// The scripts of the package that a script names by their place: `'./x.js'` and `'../x.js'`. Modules and their glue,
/// in `dist`, are weighed by themselves; what is imported by a call, `import('./x.js')`, is loaded when it is wanted.
fn imported(script: &str, path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(path);
    let texts: Vec<&str> = script.split('\'').collect();
    let names = texts.windows(2).filter_map(|pair| {
        let &[before, text] = pair else { return None };
        let is_place = text.starts_with("./") || text.starts_with("../");
        let is_script = is_place && text.ends_with(".js") && !text.contains("dist/");
        (is_script && !before.ends_with("import(")).then_some(text)
    });
    let place = |name: &str| match name.strip_prefix("../") {
        Some(rest) => folder.parent().unwrap_or(folder).join(rest),
        None => folder.join(name.trim_start_matches("./")),
    };
    names.map(place).collect()
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

pub(super) fn brotli_bytes(mut bytes: &[u8]) -> anyhow::Result<usize> {
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

    #[test]
    fn every_published_module_has_a_budget_and_the_quick_profile_a_larger_one() {
        for module in wasm::modules(false) {
            let published = budget_bytes(*module, Profile::Npm).expect("a budget");
            assert!(budget_bytes(*module, Profile::Wasm) > Some(published));
        }
    }
}
