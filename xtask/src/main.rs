//! `cargo xtask …`: set-up, browser modules, demo, tests, benchmarks.
//!
//! Everything that a contributor runs starts here; nothing here is shipped.
//! Not here: what the demo shows (`web-demo`) and what the tests claim (each crate, and `tests`).

mod api_changes;
mod badges;
mod bench;
mod ci;
mod demo;
mod fuzz;
mod npm_package;
mod process;
mod reference;
mod setup;
mod site;
mod test;
mod wasm;
mod workspace;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds, runs and measures Freshet.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks that the tools are there, and installs what is missing where it may.
    Setup,
    /// Builds the browser modules: for tests and demo into edge-wasm/npm/dist, for publishing into target/npm.
    Wasm {
        /// `wasm` is quick to build, `npm` is what is published.
        #[arg(long, default_value = "wasm")]
        profile: wasm::Profile,
        /// Only the CPU module, which takes half the time.
        #[arg(long)]
        cpu_only: bool,
    },
    /// Builds the npm package with the smallest modules, and packs it.
    Package,
    /// Writes the reference of the package's types into target/docs/reference, by typedoc, which is installed under target.
    Docs,
    /// Writes docs/badges from reports that `bench sizes` and `bench edge` wrote.
    Badges {
        /// Files of `--json`.
        #[arg(required = true)]
        reports: Vec<PathBuf>,
    },
    /// Runs the demo shop: server, generated catalogue, simulated visitors, and a page to open.
    Demo(demo::Options),
    /// Runs all tests.
    Test,
    /// Runs what CI runs: formatting, lints, all tests.
    Ci,
    /// Feeds the formats that travel with inputs made to reach all of their code (libFuzzer); see docs/fuzzing.md.
    Fuzz(fuzz::Options),
    /// Says which changes of docs/openapi break clients of an earlier commit, and fails where any does.
    ApiChanges {
        /// The commit, for example `main` or a tag.
        revision: String,
    },
    /// Measures something and writes it as JSON.
    Bench {
        /// What to measure.
        name: bench::Name,
        /// Where the numbers go; standard output gets them too.
        #[arg(long)]
        json: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let workspace = Workspace::find()?;
    match arguments.command {
        Command::Setup => setup::for_tests(&workspace),
        Command::Wasm { profile, cpu_only } => {
            setup::wasm_target(&workspace)?;
            wasm::build_all(&workspace, profile, wasm::modules(cpu_only))
        }
        Command::Package => npm_package::pack(&workspace),
        Command::Docs => reference::build(&workspace),
        Command::Badges { reports } => badges::write(&workspace, &reports),
        Command::Demo(options) => demo::run(&workspace, &options),
        Command::Test => test::run(&workspace),
        Command::Ci => ci::run_all(&workspace),
        Command::Fuzz(options) => fuzz::run(&workspace, &options),
        Command::ApiChanges { revision } => api_changes::check(&workspace, &revision),
        Command::Bench { name, json } => bench::run(&workspace, name, json.as_deref()),
    }
}
