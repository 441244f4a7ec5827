//! What CI runs, in the order in which it fails fastest.

use crate::process::{cargo, run_to_end, step};
use crate::test;
use crate::workspace::Workspace;

/// Formatting, lints, then all tests.
///
/// # Errors
/// The first of them that fails.
pub(crate) fn run_all(workspace: &Workspace) -> anyhow::Result<()> {
    step("checking the formatting", || {
        run_to_end(
            cargo()
                .args(["fmt", "--all", "--check"])
                .current_dir(workspace.root()),
        )
    })?;
    step("checking the lints", || {
        let arguments = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ];
        run_to_end(cargo().args(arguments).current_dir(workspace.root()))
    })?;
    test::run(workspace)
}
