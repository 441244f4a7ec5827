//! Where things lie in the checkout.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The checkout that this binary was built from.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The folder above this crate.
    ///
    /// # Errors
    /// The checkout was moved or deleted after the build.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let crate_dir = crate_dir.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        let root = crate_dir
            .parent()
            .context("xtask lies in the root of a file system")?
            .to_path_buf();
        let is_checkout = root.join("edge-wasm/npm/package.json").is_file();
        anyhow::ensure!(
            is_checkout,
            "this is not a checkout of Freshet: {}",
            root.display()
        );
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The folder that cargo builds into.
    pub(crate) fn target_dir(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => self.root.join(dir),
            None => self.root.join("target"),
        }
    }

    /// The npm package's folder.
    pub(crate) fn npm_dir(&self) -> PathBuf {
        self.path("edge-wasm/npm")
    }

    /// Where the package is put together for publishing, so that a build for it disturbs nobody's tests.
    pub(crate) fn package_dir(&self) -> PathBuf {
        self.target_dir().join("npm/package")
    }

    /// Where the browser modules of tests and demo go.
    pub(crate) fn dist_dir(&self) -> PathBuf {
        self.npm_dir().join("dist")
    }
}
