//! `freshet`: the server and its tools, in one binary.

use clap::Parser;
use trainer_server::cli::{Cli, run};

fn main() -> anyhow::Result<()> {
    run(Cli::parse())
}
