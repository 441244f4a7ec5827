//! `freshet import`: items first, then events, with a bar and a report; raw purchases are cleaned before.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use chrono::DateTime;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::ConfigArgs;
use super::rollout::TokenArg;
use crate::catalogue::Catalogue;
use crate::clock::now_millis;
use crate::event_log::{EventLog, EventLogConfig, LOG_FILE_NAME};
use crate::experiment::store::Experiments;
use crate::import::formats::Importer;
use crate::import::raw::{self, Cleaned};
use crate::import::sink::{LogSink, ServerSink, Sink, Target};
use crate::import::{Content, Mapping, Part, Report, import, send_all};
use crate::pseudonyms::Pseudonyms;
use crate::replay::{check_can_write, write_json};

const AFTER_HELP: &str = "\
Columns of --events: user_id, item_id, timestamp (seconds or a moment) or occurred_at (milliseconds), and, if there are,
kind, rating, quantity, value, event_id, impression_id, position, propensity, model_version.
Columns of --items: item_id, title, and, if there are, text, year, genres, available, attributes, vectors.

  freshet import --from movielens ml-latest-small --dry-run
  freshet import --items goods.csv --events orders.csv.gz --map user_id=customer --map timestamp=ordered_at
  freshet import --from gorse export --kind like=favourite --server http://127.0.0.1:7878

Importing a file again adds nothing twice. docs/data.md says more.";

/// Flags of `freshet import`.
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ImportArgs {
    /// Files of --from, or folders with them
    #[arg(value_name = "PATH", requires = "from")]
    pub paths: Vec<PathBuf>,
    /// System that wrote the files
    #[arg(
        long,
        value_enum,
        value_name = "NAME",
        requires = "paths",
        conflicts_with_all = ["items", "events", "purchases", "map"]
    )]
    pub from: Option<Importer>,
    /// Catalogue: CSV, TSV or Parquet with item_id and title, or JSON Lines as in PUT /v1/items; may be .gz or .zst
    #[arg(long, value_name = "FILE", required_unless_present_any = ["events", "purchases", "from"])]
    pub items: Option<PathBuf>,
    /// Events: CSV, TSV or Parquet with user_id, item_id and timestamp, or JSON Lines as in POST /v1/events; likewise
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// A field and the column that has it, for example user_id=visitor; may be repeated
    #[arg(long, value_name = "FIELD=COLUMN", value_parser = pair)]
    pub map: Vec<(String, String)>,
    /// A kind of events and its name in the file, for example like=favourite; may be repeated
    #[arg(long, value_name = "OURS=THEIRS", value_parser = pair)]
    pub kind: Vec<(String, String)>,
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
    /// Keep nothing, and say what would become of every row
    #[arg(long)]
    pub dry_run: bool,
    /// Where to write the report as JSON; `-` prints it in place of the words
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Server to post to; without it, the data directory is written to directly
    #[arg(long, value_name = "URL", value_parser = super::http_url, conflicts_with = "data_dir")]
    pub server: Option<String>,
    /// Its key.
    #[command(flatten)]
    pub token: TokenArg,
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((ours, theirs)) if !ours.is_empty() && !theirs.is_empty() => {
            Ok((ours.to_owned(), theirs.to_owned()))
        }
        _ => Err("expected two names with = between them".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// A file, the log or the server failed. Refused rows are reported and no error, unless all are.
pub fn run(args: ImportArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if args.purchases.is_some() {
        return runtime.block_on(import_purchases(&args));
    }
    if args.to_dataset.is_some() {
        // clap leaves out `requires` where another flag of the line conflicts with what is required.
        bail!(
            "--to-dataset goes with --purchases alone; items and events are imported as they are"
        );
    }
    let (parts, skipped) = find(&args)?;
    if let Some(path) = json_file(&args) {
        check_can_write(path)?;
    }
    let mut opened = open_sink(&args)?;
    let mut documents = Vec::new();
    let mut all_refused = None;
    for mut part in parts {
        let report = runtime.block_on(import_part(&mut part, &mut opened.sink))?;
        if report.accepted + report.duplicates == 0 && report.num_refused() > 0 {
            all_refused = Some(part.path.clone());
        }
        let file = part.path.display().to_string();
        if !is_json_alone(&args) {
            print_report(&file, &report, args.dry_run);
        }
        documents.push(report.document(&file, part.content, args.dry_run));
    }
    opened.sink.close();
    let skipped: Vec<String> = skipped
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    if !skipped.is_empty() && !is_json_alone(&args) {
        println!("not read: {}", skipped.join(", "));
    }
    write_report(&args, &json!({ "files": documents, "skipped": skipped }))?;
    match all_refused {
        Some(path) => bail!("every row of {} was refused", path.display()),
        None => Ok(()),
    }
}

/// Files in the order in which they are read, and those that are not.
fn find(args: &ImportArgs) -> anyhow::Result<(Vec<Part>, Vec<PathBuf>)> {
    let mapping = Mapping {
        columns: args.map.clone(),
        kinds: args.kind.clone(),
    };
    if let Some(importer) = args.from {
        let found = importer.find(&args.paths, &mapping)?;
        return Ok((found.parts, found.skipped));
    }
    let mut parts = Vec::new();
    let files = [
        (Content::Items, &args.items),
        (Content::Events, &args.events),
    ];
    for (content, path) in files {
        if let Some(path) = path {
            parts.push(Part::generic(path, content, &mapping)?);
        }
    }
    Ok((parts, Vec::new()))
}

/// The file of `--json`, unless it is the output.
fn json_file(args: &ImportArgs) -> Option<&Path> {
    args.json.as_deref().filter(|path| *path != Path::new("-"))
}

fn is_json_alone(args: &ImportArgs) -> bool {
    args.json.is_some() && json_file(args).is_none()
}

fn write_report(args: &ImportArgs, document: &Value) -> anyhow::Result<()> {
    if is_json_alone(args) {
        println!("{document}");
    } else if let Some(path) = json_file(args) {
        write_json(path, document)?;
        println!("{:<34} {}", "report", path.display());
    }
    Ok(())
}

/// A sink, and the folder that a dry run without a log has in the place of one.
struct Opened {
    sink: Sink,
    _scratch: Option<tempfile::TempDir>,
}

fn open_sink(args: &ImportArgs) -> anyhow::Result<Opened> {
    if let Some(url) = &args.server {
        let client = args.token.client()?;
        let url = url.trim_end_matches('/').to_owned();
        let target = Target::Server(ServerSink { client, url });
        return Ok(Opened {
            sink: Sink::new(target, args.dry_run),
            _scratch: None,
        });
    }
    let config = args.config.load(Vec::new())?;
    let has_log = config.server.data_dir.join(LOG_FILE_NAME).exists();
    let scratch = match args.dry_run && !has_log {
        true => Some(tempfile::tempdir()?),
        false => None,
    };
    let data_dir = scratch
        .as_ref()
        .map_or(&*config.server.data_dir, |dir| dir.path());
    let log = EventLog::open(data_dir, &EventLogConfig::from(&config)).with_context(|| {
        let dir = data_dir.display();
        format!("cannot open the log in {dir}; give --server URL where a server runs on it")
    })?;
    let pseudonyms = match args.dry_run {
        true => Pseudonyms::default(), // whoever users are, nothing is kept
        false => Pseudonyms::open(data_dir, config.log.pseudonymous_ids, &log)?,
    };
    let target = Target::Log(LogSink {
        catalogue: Catalogue::from_log(&log)?,
        log,
        pseudonyms,
        experiments: Experiments::open(data_dir)?,
        future_millis_max: config.clock.future_millis_max(),
        clock: now_millis,
    });
    Ok(Opened {
        sink: Sink::new(target, args.dry_run),
        _scratch: scratch,
    })
}

async fn import_purchases(args: &ImportArgs) -> anyhow::Result<()> {
    let path = args.purchases.as_deref().expect("the caller has looked");
    let cleaned = read_purchases(path, args)?;
    if let Some(dir) = &args.to_dataset {
        cleaned.write_dataset(dir)?;
        println!("{:<34} {}", "dataset", dir.display());
        return Ok(());
    }
    let mut opened = open_sink(args)?;
    let sent = send_purchases(path, &cleaned, &mut opened.sink, args.dry_run).await;
    opened.sink.close();
    sent
}

/// Reads and cleans a raw file, prints what became of its lines, and writes it where `--json` says.
fn read_purchases(path: &Path, args: &ImportArgs) -> anyhow::Result<Cleaned> {
    let config = args.config.load(Vec::new())?;
    if let Some(path) = json_file(args) {
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
    if !is_json_alone(args) {
        println!("{}", path.display());
        print!("{}", cleaned.table());
    }
    write_report(args, &cleaned.document())?;
    Ok(cleaned)
}

async fn send_purchases(
    path: &Path,
    cleaned: &Cleaned,
    sink: &mut Sink,
    is_dry_run: bool,
) -> anyhow::Result<()> {
    let path = path.display().to_string();
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}")?;
    let num_items = cleaned.items.len() as u64; // widening
    let bar = ProgressBar::new(num_items).with_style(style);
    bar.set_message("items ");
    let items = cleaned.item_records();
    let report = send_all(Content::Items, items, sink, |count| bar.inc(count)).await?;
    print_report(&path, &report, is_dry_run);
    bar.set_message("events");
    bar.set_position(0);
    bar.set_length(cleaned.counts.num_events);
    let events = cleaned.event_records();
    let report = send_all(Content::Events, events, sink, |count| bar.inc(count)).await?;
    bar.finish_and_clear();
    print_report(&path, &report, is_dry_run);
    Ok(())
}

async fn import_part(part: &mut Part, sink: &mut Sink) -> anyhow::Result<Report> {
    let num_bytes = std::fs::metadata(&part.path)
        .with_context(|| format!("cannot read {}", part.path.display()))?
        .len();
    let style = ProgressStyle::with_template(
        "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    )?;
    let bar = ProgressBar::new(num_bytes)
        .with_style(style)
        .with_message(part.content.as_str());
    let report = import(part, sink, |num_bytes| bar.set_position(num_bytes)).await;
    bar.finish_and_clear();
    Ok(report?)
}

fn print_report(file: &str, report: &Report, is_dry_run: bool) {
    println!(
        "{file}: {} accepted, {} known already, {} refused{}",
        report.accepted,
        report.duplicates,
        report.num_refused(),
        if is_dry_run {
            " (dry run, nothing is kept)"
        } else {
            ""
        }
    );
    let [num_users, num_items, num_unknown] = report.num_distinct();
    print!("  {} rows, {num_items} items", report.rows);
    if num_users > 0 {
        print!(" ({num_unknown} in no catalogue), {num_users} users");
    }
    if let Some((first, last)) = report.span_millis {
        print!(", {} to {}", moment(first), moment(last));
    }
    for (kind, count) in &report.kinds {
        print!(", {count} × {kind}");
    }
    println!();
    for (code, count) in &report.refused {
        println!("  {count} × {code}");
        let mut named: Vec<_> = report
            .named
            .iter()
            .filter(|named| named.code == *code)
            .collect();
        named.sort_by_key(|refusal| refusal.line); // what a server refuses is heard of later
        for refusal in &named {
            println!(
                "    line {}: {}: {}",
                refusal.line, refusal.code, refusal.detail
            );
        }
        let num_named = named.len() as u64; // widening
        if *count > num_named {
            println!("    … and {} more", count - num_named);
        }
    }
    for advice in report.advice() {
        println!("  to do: {advice}");
    }
}

/// A day and time, in UTC.
fn moment(millis: i64) -> String {
    let moment = DateTime::from_timestamp_millis(millis);
    moment.map_or_else(
        || millis.to_string(),
        |moment| moment.format("%F %R").to_string(),
    )
}
