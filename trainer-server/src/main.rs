//! `freshet`: the server and its tools, in one binary.

use std::process::ExitCode;

use clap::Parser;
use trainer_server::cli::{Cli, end_with_reader_of_output, in_words, run};

fn main() -> ExitCode {
    end_with_reader_of_output();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", in_words(&error));
            ExitCode::FAILURE
        }
    }
}
