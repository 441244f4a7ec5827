//! What is made of a module beside its bytes: glue that can be instantiated again, hashes, and a copy as text.
//!
//! The generator's glue keeps one instance for as long as the script lives. A panic poisons an instance, so ours is a
//! function that makes a fresh one at each call; nothing has to be imported anew, which no bundler would understand.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha384};

use super::Module;

/// The last line of the generator's glue.
const EXPORTS: &str = "export { initSync, __wbg_init as default };";
const INTEGRITY_FILE: &str = "integrity.js";

/// Turns the glue of a module into a function that makes instances.
///
/// # Errors
/// It does not look as the generator writes it.
pub(super) fn make_factory(js_path: &Path) -> anyhow::Result<()> {
    let glue = fs::read_to_string(js_path)
        .with_context(|| format!("cannot read {}", js_path.display()))?;
    let factory = factory(&glue).with_context(|| js_path.display().to_string())?;
    fs::write(js_path, factory).with_context(|| format!("cannot write {}", js_path.display()))
}

fn factory(glue: &str) -> anyhow::Result<String> {
    let Some((body, _)) = glue.split_once(EXPORTS) else {
        bail!("the glue does not end as expected: {EXPORTS}");
    };
    let mut names = Vec::new();
    let mut lines = Vec::new();
    for line in body.lines() {
        if line.starts_with("import ") || line.contains("import.meta") {
            bail!("the glue depends on where it lies: {line}");
        }
        let inner = line.strip_prefix("export ").unwrap_or(line);
        if inner.len() < line.len() {
            names.push(exported_name(inner).with_context(|| line.to_owned())?);
        }
        lines.push(inner);
    }
    Ok(format!(
        "export default function createModule() {{\n{}\nreturn {{ {}, init: __wbg_init }};\n}}\n",
        lines.join("\n"),
        names.join(", "),
    ))
}

fn exported_name(declaration: &str) -> anyhow::Result<&str> {
    let named = ["class ", "function "];
    let rest = named
        .iter()
        .find_map(|keyword| declaration.strip_prefix(keyword))
        .context("neither class nor function is exported")?;
    let end = rest.find([' ', '(', '{']).unwrap_or(rest.len());
    Ok(&rest[..end])
}

/// Writes the hashes of those modules that are there, and the text copy of the CPU module.
///
/// # Errors
/// A file cannot be read or written.
pub(crate) fn finish(dist_dir: &Path, modules: &[Module]) -> anyhow::Result<()> {
    let mut hashes = String::from(
        "//! Hashes of the modules, as `fetch` and script tags take them: another file is refused.\n\n",
    );
    for module in modules {
        let path = module.wasm_path(dist_dir);
        let integrity = if path.is_file() {
            integrity_of(&path)?
        } else {
            String::new() // not built: no hash is looked at
        };
        hashes += &format!("export const {} = '{integrity}';\n", module.backend);
    }
    write(&dist_dir.join(INTEGRITY_FILE), &hashes)?;
    let Some(first) = modules.first() else {
        return Ok(());
    };
    let bytes = fs::read(first.wasm_path(dist_dir)).context("the CPU module is built first")?;
    let text = format!(
        "//! The CPU module as text, for pages whose bundler copies no files.\n\nexport default '{}';\n",
        STANDARD.encode(bytes)
    );
    write(
        &dist_dir.join(format!("{}_inline.js", first.out_name)),
        &text,
    )
}

/// `sha384-…`, as the integrity attribute and `fetch` take it.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn integrity_of(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(format!("sha384-{}", STANDARD.encode(Sha384::digest(bytes))))
}

/// Only where it says something new: what has not changed keeps its time.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glue_becomes_a_function_that_gives_what_was_exported() {
        let glue = "export class Engine {\n}\nexport function on_panic(listener) {\n}\nlet wasm;\n\
                    async function __wbg_init(path) {}\nexport { initSync, __wbg_init as default };\n";
        let factory = factory(glue).expect("as the generator writes it");
        assert!(factory.starts_with("export default function createModule() {\nclass Engine {"));
        assert!(factory.contains("\nfunction on_panic(listener) {"));
        assert!(factory.ends_with("return { Engine, on_panic, init: __wbg_init };\n}\n"));
    }

    #[test]
    fn glue_that_depends_on_its_place_is_refused() {
        let end = EXPORTS;
        for line in [
            "import * as env from 'env';",
            "let url = new URL('x', import.meta.url);",
        ] {
            let refusal = factory(&format!("{line}\n{end}")).expect_err("refused");
            assert!(refusal.to_string().contains(line), "{refusal}");
        }
        assert!(factory("export const CONSTANT = 1;\n").is_err());
        assert!(factory(&format!("export const CONSTANT = 1;\n{end}")).is_err());
    }
}
