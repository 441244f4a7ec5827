//! `freshet export`: the events and the catalogue of a data directory as files.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use shared_model::ids::UserId;

use super::ConfigArgs;
use crate::event_log::{EventLog, EventLogConfig};
use crate::export::{self, Filter, Format};
use crate::import::moment_from_text;
use crate::pseudonyms::Pseudonyms;

/// Flags of `freshet export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Where to write the events, in the order of the log
    #[arg(long, value_name = "FILE", required_unless_present = "items")]
    pub events: Option<PathBuf>,
    /// Where to write the catalogue as it is
    #[arg(long, value_name = "FILE")]
    pub items: Option<PathBuf>,
    /// Format of both files
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "jsonl")]
    pub format: Format,
    /// Events that occurred then or later: a moment like 2024-05-01T12:00:00Z, or a day
    #[arg(long, value_name = "MOMENT", value_parser = moment, requires = "events")]
    pub since: Option<i64>,
    /// Events that occurred before such a moment
    #[arg(long, value_name = "MOMENT", value_parser = moment, requires = "events")]
    pub until: Option<i64>,
    /// Events of this user alone
    #[arg(long, value_name = "ID", value_parser = user, requires = "events")]
    pub user: Option<UserId>,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

fn moment(text: &str) -> Result<i64, String> {
    let expected =
        || "expected a moment like 2024-05-01T12:00:00Z, or a day like 2024-05-01".to_owned();
    moment_from_text(text).ok_or_else(expected)
}

fn user(text: &str) -> Result<UserId, String> {
    UserId::new(text).map_err(|error| error.to_string())
}

/// Writes the files.
///
/// # Errors
/// The log cannot be opened, because a server runs on it for example, or a file cannot be written.
pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let config = args.config.load(Vec::new())?;
    let data_dir = &config.server.data_dir;
    let has_log = data_dir.join(crate::event_log::LOG_FILE_NAME).exists();
    anyhow::ensure!(has_log, "there is no log in {}", data_dir.display());
    let log = EventLog::open(data_dir, &EventLogConfig::from(&config)).with_context(|| {
        let dir = data_dir.display();
        format!("cannot open the log in {dir}; of a server that runs, export a restored backup")
    })?;
    let pseudonyms = Pseudonyms::of_log(data_dir, &log);
    let mut written = json!({});
    if let Some(path) = &args.items {
        let num_items = export::items(&log, path, args.format)?;
        written["items"] = json!({ "file": path, "rows": num_items });
    }
    if let Some(path) = &args.events {
        let filter = Filter {
            since_millis: args.since,
            until_millis: args.until,
            user_id: match &args.user {
                Some(user_id) => Some(pseudonyms?.of(user_id.clone())),
                None => None, // a log is written as it is, with or without its key
            },
        };
        let style = ProgressStyle::with_template("records {wide_bar} {pos}/{len} {eta}")?;
        let bar = ProgressBar::new(log.end().0).with_style(style);
        let num_events = export::events(&log, &filter, path, args.format, |offset| {
            bar.set_position(offset.0);
        });
        bar.finish_and_clear();
        written["events"] = json!({ "file": path, "rows": num_events? });
    }
    log.shutdown();
    if args.json {
        println!("{written}");
        return Ok(());
    }
    for (content, file) in written.as_object().into_iter().flatten() {
        println!("{content}: {} rows in {}", file["rows"], file["file"]);
    }
    Ok(())
}
