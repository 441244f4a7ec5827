//! The folder that the demo's server serves: the shop page, the package as a page developer would deploy it,
//! and the catalogue.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::npm_package;
use crate::workspace::Workspace;

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
    let package_dir = site_dir.join("freshet");
    npm_package::copy_sources(workspace, &package_dir)?;
    copy_dir(&workspace.dist_dir(), &package_dir.join("dist"))?;
    copy_file(items_json, &site_dir.join("items.json"))
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
