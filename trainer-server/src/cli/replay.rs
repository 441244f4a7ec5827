//! `freshet replay`: stream a dataset through a real server into real pages and report what came of it.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use crate::replay::{ReplayOptions, check_can_write, replay, write_json};

/// Flags of `freshet replay`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayArgs {
    /// Folder with events.tsv and items.tsv
    #[arg(long, value_name = "DIR")]
    pub dataset: PathBuf,
    /// Where to write the report, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: PathBuf,
    /// Feed a server that runs already, instead of starting one
    #[arg(long, value_name = "URL", value_parser = super::http_url)]
    pub server: Option<String>,
    /// Model to follow on that server
    #[arg(long, default_value = "main")]
    pub model: String,
    /// Configuration of the server that is started
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub config: Option<PathBuf>,
    /// Events per second of the stream; as fast as they are learned if left out
    #[arg(long, value_name = "EVENTS_PER_SEC")]
    pub rate: Option<f64>,
    /// Native pages that follow the server in the steady phase
    #[arg(long, default_value_t = 10)]
    pub pages: usize,
    /// How many of these pages also rank
    #[arg(long, default_value_t = 3)]
    pub ranking_pages: usize,
    /// Also open real Chromium pages, one if no number is given; needs chromedriver and the built npm package
    #[arg(long, value_name = "PAGES", num_args = 0..=1, default_missing_value = "1", default_value_t = 0)]
    pub browser: usize,
    /// Folder of the built npm package, served to these pages
    #[arg(long, value_name = "DIR", default_value = "edge-wasm/npm")]
    pub package: PathBuf,
    /// Length of the steady phase at 200 events per second, in seconds
    #[arg(long, default_value_t = 60)]
    pub steady_secs: u64,
    /// Events that are ranked and posted together
    #[arg(long, default_value_t = 128)]
    pub chunk: usize,
    /// Cut the stream so that everything ends within so many seconds
    #[arg(long, default_value_t = 840)]
    pub time_budget_secs: u64,
    /// Seed of tie-breaking and of the planted events
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Kill the server without warning (SIGKILL) this many times during the stream, and start it again;
    /// the report then says whether anything acknowledged was lost or learned twice
    #[arg(
        long,
        value_name = "KILLS",
        default_value_t = 0,
        conflicts_with = "server"
    )]
    pub kills: usize,
    /// Take only the first so many events of the dataset
    #[arg(long, value_name = "COUNT")]
    pub events_max: Option<usize>,
}

/// Runs the command.
///
/// # Errors
/// Bad flags, or what went wrong on the way.
pub fn run(args: ReplayArgs) -> anyhow::Result<()> {
    if let Some(rate) = args.rate {
        ensure!(
            rate.is_finite() && rate > 0.0,
            "--rate is {rate}, expected a number above 0"
        );
    }
    ensure!(
        (1..=10_000).contains(&args.chunk),
        "--chunk is {}, expected 1 to 10000",
        args.chunk
    );
    if args.pages > 1000 {
        bail!("--pages is {}, at most 1000 are allowed", args.pages);
    }
    let (report_path, num_kills) = (args.report.clone(), args.kills);
    check_can_write(&report_path)?;
    let report = block_on(replay(options(args)))?;
    write_json(&report_path, &report)?;
    println!("{:<34} {}", "report", report_path.display());
    ensure!(
        num_kills == 0 || report["durability"]["is_clean"] == true,
        "the audit after {num_kills} kills found something lost, doubled or unreadable: {}",
        report["durability"]
    );
    Ok(())
}

fn options(args: ReplayArgs) -> ReplayOptions {
    ReplayOptions {
        dataset_dir: args.dataset,
        server_url: args.server,
        model: args.model,
        config_file: args.config,
        rate: args.rate,
        num_pages: args.pages,
        num_ranking_pages: args.ranking_pages.min(args.pages),
        num_browser_pages: args.browser,
        package_dir: args.package,
        steady_secs: args.steady_secs,
        chunk_len: args.chunk,
        time_budget_secs: args.time_budget_secs,
        seed: args.seed,
        num_kills: args.kills,
        num_events_max: args.events_max,
    }
}

/// Runs on a runtime of two threads: one for the pages that follow, one for everything else.
pub(super) fn block_on<T, E: Into<anyhow::Error>>(
    work: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(work).map_err(Into::into)
}
