//! `freshet import`: items first, then events, with a bar and a report; raw purchases are cleaned before.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::ConfigArgs;
use super::rollout::TokenArg;
use crate::catalogue::Catalogue;
use crate::clock::now_millis;
use crate::event_log::{EventLog, EventLogConfig};
use crate::import::raw::{self, Cleaned};
use crate::import::sink::{LogSink, ServerSink, Sink};
use crate::import::{Content, Report, import, send_all};
use crate::replay::{check_can_write, write_json};

/// Flags of `freshet import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Catalogue: TSV with item_id and title, or JSON Lines as in PUT /v1/items
    #[arg(long, value_name = "FILE", required_unless_present_any = ["events", "purchases"])]
    pub items: Option<PathBuf>,
    /// Events: TSV with user_id, item_id and timestamp (seconds), or JSON Lines as in POST /v1/events
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Raw purchases in Parquet, cleaned as [import] of the settings says; see --preset shop
    #[arg(long, value_name = "FILE", conflicts_with_all = ["items", "events"])]
    pub purchases: Option<PathBuf>,
    /// Write what is left of them as a dataset, events.tsv and items.tsv, and touch no log
    #[arg(
        long,
        value_name = "DIR",
        requires = "purchases",
        conflicts_with = "server"
    )]
    pub to_dataset: Option<PathBuf>,
    /// Where to write what became of their lines, as JSON
    #[arg(long, value_name = "FILE", requires = "purchases")]
    pub json: Option<PathBuf>,
    /// Server to post to; without it, the data directory is written to directly
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    pub server: Option<String>,
    /// Its key.
    #[command(flatten)]
    pub token: TokenArg,
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Runs the command.
///
/// # Errors
/// A file, the log or the server failed. Refused lines are reported and no error, unless all are.
pub fn run(args: ImportArgs) -> anyhow::Result<()> {
    check_flags(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let cleaned = match &args.purchases {
        Some(path) => Some(read_purchases(path, &args)?),
        None => None,
    };
    if let (Some(cleaned), Some(dir)) = (&cleaned, &args.to_dataset) {
        cleaned.write_dataset(dir)?;
        println!("{:<34} {}", "dataset", dir.display());
        return Ok(());
    }
    let mut sink = open_sink(&args)?;
    if let (Some(cleaned), Some(path)) = (&cleaned, &args.purchases) {
        runtime.block_on(send_purchases(path, cleaned, &mut sink))?;
    }
    let files = [
        (Content::Items, &args.items),
        (Content::Events, &args.events),
    ];
    for (content, path) in files {
        let Some(path) = path else { continue };
        let report = runtime.block_on(import_file(path, content, &mut sink))?;
        tell(path, &report)?;
    }
    if let Sink::Log(sink) = &sink {
        sink.log.shutdown();
    }
    Ok(())
}

/// clap leaves out `requires` where another flag of the line conflicts with what is required.
fn check_flags(args: &ImportArgs) -> anyhow::Result<()> {
    let given = [
        ("--to-dataset", args.to_dataset.is_some()),
        ("--json", args.json.is_some()),
    ];
    for (flag, is_given) in given {
        if is_given && args.purchases.is_none() {
            bail!("{flag} goes with --purchases alone; items and events are imported as they are");
        }
    }
    Ok(())
}

fn open_sink(args: &ImportArgs) -> anyhow::Result<Sink> {
    if let Some(url) = &args.server {
        let client = args.token.client()?;
        let url = url.trim_end_matches('/').to_owned();
        return Ok(Sink::Server(ServerSink { client, url }));
    }
    let config = args.config.load(Vec::new())?;
    let data_dir = &config.server.data_dir;
    let log = EventLog::open(data_dir, &EventLogConfig::from(&config)).with_context(|| {
        let dir = data_dir.display();
        format!("cannot open the log in {dir}; give --server URL where a server runs on it")
    })?;
    let catalogue = Catalogue::from_log(&log)?;
    let future_millis_max = config.clock.future_millis_max();
    Ok(Sink::Log(LogSink {
        log,
        catalogue,
        future_millis_max,
        clock: now_millis,
    }))
}

/// Reads and cleans a raw file, prints what became of its lines, and writes it where `--json` says.
fn read_purchases(path: &Path, args: &ImportArgs) -> anyhow::Result<Cleaned> {
    let config = args.config.load(Vec::new())?;
    if let Some(path) = &args.json {
        check_can_write(path)?;
    }
    let style = ProgressStyle::with_template("rows   {wide_bar} {pos}/{len} {eta}")?;
    let bar = ProgressBar::new(0).with_style(style);
    let cleaned = raw::read(path, &config.import, |num_read, num_rows| {
        bar.set_length(num_rows);
        bar.set_position(num_read);
    });
    bar.finish_and_clear();
    let cleaned = cleaned?;
    println!("{}", path.display());
    print!("{}", cleaned.table());
    if let Some(path) = &args.json {
        write_json(path, &cleaned.document())?;
        println!("{:<34} {}", "counts", path.display());
    }
    Ok(cleaned)
}

async fn send_purchases(path: &Path, cleaned: &Cleaned, sink: &mut Sink) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}")?;
    let num_items = cleaned.items.len() as u64; // widening
    let bar = ProgressBar::new(num_items).with_style(style);
    bar.set_message("items ");
    let items = cleaned.item_records();
    let report = send_all(Content::Items, items, sink, |count| bar.inc(count)).await?;
    tell(path, &report)?;
    bar.set_message("events");
    bar.set_position(0);
    bar.set_length(cleaned.counts.num_events);
    let events = cleaned.event_records();
    let report = send_all(Content::Events, events, sink, |count| bar.inc(count)).await?;
    bar.finish_and_clear();
    tell(path, &report)
}

async fn import_file(path: &Path, content: Content, sink: &mut Sink) -> anyhow::Result<Report> {
    let num_bytes = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    let style = ProgressStyle::with_template(
        "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    )?;
    let bar = ProgressBar::new(num_bytes)
        .with_style(style)
        .with_message(match content {
            Content::Items => "items ",
            Content::Events => "events",
        });
    let report = import(path, content, sink, |num_bytes| bar.inc(num_bytes)).await;
    bar.finish_and_clear();
    Ok(report?)
}

/// Prints a report; that everything was refused is an error.
fn tell(path: &Path, report: &Report) -> anyhow::Result<()> {
    print_report(path, report);
    let is_all_refused = report.accepted + report.duplicates == 0 && report.num_refused() > 0;
    if is_all_refused {
        bail!("every line of {} was refused", path.display());
    }
    Ok(())
}

fn print_report(path: &Path, report: &Report) {
    println!(
        "{}: {} accepted, {} known already, {} refused",
        path.display(),
        report.accepted,
        report.duplicates,
        report.num_refused()
    );
    for (code, count) in &report.refused {
        println!("  {count} × {code}");
    }
    for refusal in &report.named {
        println!(
            "  line {}: {}: {}",
            refusal.line, refusal.code, refusal.detail
        );
    }
    let num_named = report.named.len() as u64; // widening
    if report.num_refused() > num_named {
        println!("  … and {} more", report.num_refused() - num_named);
    }
}
