//! `freshet evaluate`: quality of what pages run on a dataset, beside the baselines.

use std::path::PathBuf;

use serde_json::Value;

use crate::evaluate::prequential;
use crate::replay::{ReplayOptions, write_json};

/// How events are held out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// The last 20 % by time, each ranked before it is learned
    Prequential,
}

/// Flags of `freshet evaluate`.
#[derive(Debug, Clone, clap::Args)]
pub struct EvaluateArgs {
    /// Folder with events.tsv and items.tsv
    #[arg(long, value_name = "DIR")]
    pub dataset: PathBuf,
    /// How events are held out
    #[arg(long, value_enum, default_value_t = Protocol::Prequential)]
    pub protocol: Protocol,
    /// Where to write the figures, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: PathBuf,
    /// Configuration of the server that is started
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Events that are ranked and posted together
    #[arg(long, default_value_t = 128)]
    pub chunk: usize,
    /// Cut the stream so that everything ends within so many seconds
    #[arg(long, default_value_t = 3600)]
    pub time_budget_secs: u64,
    /// Seed of tie-breaking
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Take only the first so many events of the dataset
    #[arg(long, value_name = "COUNT")]
    pub events_max: Option<usize>,
}

/// Runs the command.
///
/// # Errors
/// Bad flags, or what went wrong on the way.
pub fn run(args: EvaluateArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        (1..=10_000).contains(&args.chunk),
        "--chunk is {}, expected 1 to 10000",
        args.chunk
    );
    let Protocol::Prequential = args.protocol;
    let options = ReplayOptions {
        dataset_dir: args.dataset,
        server_url: None,
        model: "main".to_owned(),
        config_file: args.config,
        rate: None,
        num_pages: 0,
        num_ranking_pages: 0,
        num_browser_pages: 0,
        package_dir: PathBuf::new(),
        steady_secs: 0,
        chunk_len: args.chunk,
        time_budget_secs: args.time_budget_secs,
        seed: args.seed,
        num_kills: 0,
        num_events_max: args.events_max,
    };
    let evaluation = super::replay::block_on(prequential::run(options))?;
    write_json(&args.json, &Value::Object(evaluation.document.clone()))?;
    println!("{:<34} {}", "figures", args.json.display());
    Ok(())
}
