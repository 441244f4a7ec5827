//! The reference of the npm package: its declarations through typedoc, as HTML in `target/docs/reference`.
//!
//! What typedoc is told lies in `edge-wasm/fixtures/reference`, where a test runs it too: a name without a doc comment
//! is an error.

use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::npm_package;
use crate::process::{find_program, run_to_end, step};
use crate::site;
use crate::workspace::Workspace;

/// Installs typedoc below `target` and writes the pages.
///
/// # Errors
/// npm is missing, or a name is not documented.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<()> {
    ensure!(
        find_program("npm").is_some(),
        "npm is missing; it brings typedoc"
    );
    let docs_dir = workspace.target_dir().join("docs");
    let typedoc_dir = docs_dir.join("typedoc");
    site::copy_dir(
        &workspace.path("edge-wasm/fixtures/reference"),
        &typedoc_dir,
    )?;
    let npm = |arguments: &[&str]| {
        run_to_end(
            Command::new("npm")
                .args(arguments)
                .current_dir(&typedoc_dir),
        )
    };
    step("installing typedoc", || {
        npm(&["ci", "--prefer-offline", "--silent"])
    })?;
    npm_package::copy_sources(workspace, &typedoc_dir.join("node_modules/freshet"))?;
    step("writing the reference", || npm(&["run", "build"]))?;
    let reference_dir = docs_dir.join("reference");
    if reference_dir.exists() {
        fs::remove_dir_all(&reference_dir)
            .with_context(|| format!("cannot empty {}", reference_dir.display()))?;
    }
    site::copy_dir(&typedoc_dir.join("site"), &reference_dir)?;
    println!("{}", reference_dir.join("index.html").display());
    Ok(())
}
