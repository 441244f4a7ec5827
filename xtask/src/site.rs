//! The folder that the demo's server serves: the shop page, the package as a page developer would deploy it,
//! and the catalogue.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::workspace::Workspace;

/// What the package publishes; its tests and type declarations are not served.
const PACKAGE_FILES: [&str; 2] = ["index.js", "worker.js"];
const PACKAGE_DIRS: [&str; 2] = ["lib", "dist"];

/// Fills `site_dir` anew.
///
/// # Errors
/// A file cannot be copied.
pub(crate) fn assemble(
    workspace: &Workspace,
    site_dir: &Path,
    items_json: &Path,
) -> anyhow::Result<()> {
    if site_dir.exists() {
        fs::remove_dir_all(site_dir)
            .with_context(|| format!("cannot empty {}", site_dir.display()))?;
    }
    copy_dir(&workspace.path("web-demo/page"), site_dir)?;
    copy_package(workspace, &site_dir.join("freshet"))?;
    copy_file(items_json, &site_dir.join("items.json"))
}

/// Copies the built package to `package_dir`.
fn copy_package(workspace: &Workspace, package_dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(package_dir)
        .with_context(|| format!("cannot make {}", package_dir.display()))?;
    let npm_dir = workspace.npm_dir();
    for name in PACKAGE_FILES {
        copy_file(&npm_dir.join(name), &package_dir.join(name))?;
    }
    for name in PACKAGE_DIRS {
        copy_dir(&npm_dir.join(name), &package_dir.join(name))?;
    }
    Ok(())
}

/// Copies a folder with all that is in it.
///
/// # Errors
/// Something cannot be read or written.
pub(crate) fn copy_dir(source: &Path, target: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
    for entry in
        fs::read_dir(source).with_context(|| format!("cannot list {}", source.display()))?
    {
        let entry = entry?;
        let path = entry.path();
        if path.is_dir() {
            copy_dir(&path, &target.join(entry.file_name()))?;
        } else {
            copy_file(&path, &target.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// # Errors
/// The file cannot be read or written.
pub(crate) fn copy_file(source: &Path, target: &Path) -> anyhow::Result<()> {
    fs::copy(source, target)
        .with_context(|| format!("cannot copy {} to {}", source.display(), target.display()))?;
    Ok(())
}

/// The folder of one demo, by the name of its data.
pub(crate) fn demo_dir(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.target_dir().join("demo").join(name)
}
