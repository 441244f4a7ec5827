//! The fuzz targets of the formats that travel. What each claims stands beside the tests of those formats.

use std::path::Path;

#[path = "../../shared-model/tests/wire/fixtures.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod fixtures;
#[path = "../../shared-model/tests/wire/fuzzing.rs"]
mod fuzzing;

use fuzzing::{TARGETS, Target};

/// Names the folder to which sound inputs are written before a fuzzer reads its corpus.
const SEEDS_VARIABLE: &str = "FRESHET_FUZZ_SEEDS";

/// Runs a target by its name.
///
/// # Panics
/// A promise of the formats is broken.
pub fn run(name: &str, bytes: &[u8]) {
    (find(name).run)(bytes);
}

/// Writes sound inputs of a target to the folder that `FRESHET_FUZZ_SEEDS` names, if it does.
///
/// # Panics
/// They cannot be written.
pub fn write_seeds(name: &str) {
    let Some(folder) = std::env::var_os(SEEDS_VARIABLE) else {
        return;
    };
    for (idx, seed) in (find(name).seeds)().iter().enumerate() {
        let file = Path::new(&folder).join(format!("seed-{idx}"));
        std::fs::write(file, seed).expect("the folder of seeds can be written");
    }
}

fn find(name: &str) -> &'static Target {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.expect("a target for each file in fuzz_targets")
}
