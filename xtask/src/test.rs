//! All tests: set-up, browser modules, every crate's tests, the package's script tests.
//!
//! The last line is `N passed, N failed, N skipped`, summed over all of them.

mod programs;

use std::process::Command;

use anyhow::ensure;
use programs::Program;

use crate::bench::sizes;
use crate::process::{cargo, find_program, run_lines, step};
use crate::setup;
use crate::wasm::{self, Profile};
use crate::workspace::Workspace;

/// What became of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs everything; an error means that something failed.
///
/// # Errors
/// Set-up or build fails, or a test does.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    setup::for_tests(workspace)?;
    let programs = build(workspace)?;
    step("weighing the browser modules", || {
        sizes::hold(workspace, Profile::Wasm)
    })?;

    let mut tally = Tally::default();
    let scripts_ok = step("testing the package's scripts", || {
        script_tests(workspace, &mut tally)
    })?;
    let outcome = step("testing all crates", || programs::run(programs))?;
    tally.add(outcome.tally);
    let examples_ok = step("testing the examples of the documentation", || {
        doc_tests(workspace, &mut tally)
    })?;

    println!(
        "{} passed, {} failed, {} skipped",
        tally.passed, tally.failed, tally.skipped
    );
    ensure!(
        outcome.failed.is_empty(),
        "test programs that did not come to a good end: {}",
        outcome.failed.join(", ")
    );
    ensure!(
        scripts_ok && examples_ok,
        "the script tests or the examples could not be run to their end"
    );
    Ok(())
}

/// Builds the browser modules and the tests at the same time: each alone leaves cores idle where one crate holds up all.
fn build(workspace: &Workspace) -> anyhow::Result<Vec<Program>> {
    std::thread::scope(|scope| {
        let tests =
            scope.spawn(|| step("building all crates' tests", || programs::build(workspace)));
        let modules = wasm::build_all(workspace, Profile::Wasm, wasm::modules(false));
        let tests = tests.join().expect("building does not panic");
        modules.and(tests)
    })
}

fn doc_tests(workspace: &Workspace, tally: &mut Tally) -> anyhow::Result<bool> {
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--doc"])
        .current_dir(workspace.root());
    run_lines(&mut command, |line| {
        if let Some(counted) = cargo_result(line) {
            tally.add(counted);
        }
    })
}

/// The scripts need no browser; where there is no node they are skipped as one.
fn script_tests(workspace: &Workspace, tally: &mut Tally) -> anyhow::Result<bool> {
    if find_program("node").is_none() {
        println!("skipped: the script tests of the package, because there is no node");
        tally.skipped += 1;
        return Ok(true);
    }
    let test_dir = workspace.npm_dir().join("test");
    let mut command = Command::new("node");
    command.args(["--test", "--test-reporter=tap"]);
    for entry in std::fs::read_dir(&test_dir)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".test.js") {
            command.arg(path);
        }
    }
    command.current_dir(test_dir);
    run_lines(&mut command, |line| tally.add(node_result(line)))
}

/// Reads `test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured; …`.
fn cargo_result(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for part in counts.split("; ") {
        let Some((number, what)) = part.split_once(' ') else {
            continue;
        };
        let Ok(number) = number.parse::<u64>() else {
            continue;
        };
        match what {
            "passed" => tally.passed = number,
            "failed" => tally.failed = number,
            "ignored" => tally.skipped = number,
            _ => {}
        }
    }
    Some(tally)
}

/// Reads the closing lines of node's runner: `# pass 5`.
fn node_result(line: &str) -> Tally {
    let count = |prefix| {
        line.strip_prefix(prefix)
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    };
    Tally {
        passed: count("# pass "),
        failed: count("# fail "),
        skipped: count("# skipped "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_result_line_of_cargo() {
        let line = "test result: FAILED. 5 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(
            cargo_result(line),
            Some(Tally {
                passed: 5,
                failed: 1,
                skipped: 2
            })
        );
        assert_eq!(cargo_result("test ids::tests::refuses ... ok"), None);
    }

    #[test]
    fn reads_the_closing_lines_of_node() {
        assert_eq!(
            node_result("# pass 12"),
            Tally {
                passed: 12,
                failed: 0,
                skipped: 0
            }
        );
        assert_eq!(node_result("# duration_ms 12"), Tally::default());
    }
}
