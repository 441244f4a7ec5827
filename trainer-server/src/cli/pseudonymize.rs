//! `freshet pseudonymize`: replaces the user ids of a log by pseudonyms, or gives up a key that is lost.

use clap::Args;

use super::ConfigArgs;
use super::backup::{open_log, rewriting_bar, tell};
use crate::event_log::EventLogConfig;
use crate::pseudonyms::{self, KEY_FILE_NAME};

/// Flags of `freshet pseudonymize`.
#[derive(Debug, Clone, Args)]
pub struct PseudonymizeArgs {
    /// The key of the pseudonyms is lost: make another, with which everyone goes on as somebody new
    #[arg(long)]
    pub new_key: bool,
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Works on a folder that no server uses.
///
/// # Errors
/// The folder is in use, there is nothing to replace, or the log cannot be rewritten.
pub fn run(args: &PseudonymizeArgs) -> anyhow::Result<()> {
    let config = args.config.load(Vec::new())?;
    let data_dir = &config.server.data_dir;
    let log = open_log(data_dir, &EventLogConfig::from(&config))?;
    let bar = rewriting_bar();
    let done = match args.new_key {
        true => pseudonyms::give_up_key(data_dir, &log),
        false => pseudonyms::migrate(data_dir, &log),
    };
    bar.finish_and_clear();
    log.shutdown();
    let done = done?;
    eprintln!(
        "keep {} as safe as a backup and apart from it: without it nobody of this log is known again",
        data_dir.join(KEY_FILE_NAME).display()
    );
    if !args.new_key {
        eprintln!("backups taken before hold the ids that were sent: take another and remove them");
    }
    if !config.log.pseudonymous_ids {
        eprintln!("set log.pseudonymous_ids = true, without which the server does not start now");
    }
    tell(&done, args.json)
}
