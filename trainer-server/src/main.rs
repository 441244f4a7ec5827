//! `freshet`: the server and its tools, in one binary.

use std::process::ExitCode;

use clap::Parser;
use trainer_server::cli::{Cli, run};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
