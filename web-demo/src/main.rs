//! The demo shop's world: a catalogue, people with drifting taste, their past events and their live ones.
//!
//! The page itself is in `page/`; it sees only the built package and HTTP. `cargo xtask demo` puts all together.
//! Not here: anything of the recommender. The events are made up, so nothing measured on them is a quality claim.

mod catalogue;
mod dataset;
mod facets;
mod generate;
mod shop;
mod taste;
mod trends;
mod visitors;
mod vocabulary;

use clap::{Parser, Subcommand};

/// Makes the demo shop's data, and visits it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes up a shop and its past: items.tsv and events.tsv.
    Generate(generate::Options),
    /// Writes the catalogue of a dataset as the page reads it.
    Catalogue(catalogue::Options),
    /// Simulated visitors who post events to a running server until they are ended.
    Visitors(visitors::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Generate(options) => generate::run(&options),
        Command::Catalogue(options) => catalogue::run(&options),
        Command::Visitors(options) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(visitors::run(&options)),
    }
}
