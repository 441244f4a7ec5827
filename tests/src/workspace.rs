//! Where things lie in the checkout, and which programs this machine has.

use std::path::PathBuf;

/// Set by CI: what a test needs must be there, so a missing browser or adapter fails instead of being skipped.
const REQUIRE_VARIABLE: &str = "FRESHET_REQUIRE_BROWSER";

/// Root of the checkout: the one that cargo runs the test in, which may have been moved since the build.
#[must_use]
pub fn root() -> PathBuf {
    let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let parent = crate_dir.parent();
    parent
        .expect("this crate lies in a folder of the checkout")
        .to_path_buf()
}

/// The folder that cargo builds into.
#[must_use]
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The program of this name on `PATH`.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let file_name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&path)
        .map(|dir| dir.join(&file_name))
        .find(|program| program.is_file())
}

/// Says why a test is left out, past the capture of the test runner; where CI requires it, the reason is an error.
///
/// # Errors
/// [`REQUIRE_VARIABLE`] is set to `1`.
pub fn skip(reason: &str) -> anyhow::Result<()> {
    use std::io::Write;
    if std::env::var_os(REQUIRE_VARIABLE).is_some_and(|value| value == "1") {
        anyhow::bail!("{REQUIRE_VARIABLE} is set, but {reason}");
    }
    writeln!(std::io::stderr(), "skipped: {reason}")?;
    Ok(())
}
