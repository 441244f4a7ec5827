//! The command line: flags, progress, printing. What the commands do lies in the modules they call.

pub mod ablate;
pub mod backup;
pub mod compress;
pub mod cross_encoder;
pub mod evaluate;
pub mod experiment;
pub mod export;
pub mod health;
pub mod import;
pub mod inspect;
pub mod keys;
pub mod openapi;
pub mod pseudonymize;
pub mod replay;
pub mod rollout;
pub mod rules;
pub mod serve;
pub mod status;
pub mod text;
pub mod tune;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::load::{Sources, load};
use crate::config::{Config, Preset};
use crate::rollout::Order;

const AFTER_HELP: &str = "\
Start here:
  freshet serve                                         listens on http://127.0.0.1:7878
  freshet import --items items.tsv --events events.tsv --server http://127.0.0.1:7878
  curl http://127.0.0.1:7878/v1/status                  where the loop stands

Post feedback:
  curl http://127.0.0.1:7878/v1/events --json '{\"events\": [{\"event_id\": \"e1\", \"kind\": \"click\",
    \"user_id\": \"u1\", \"item_id\": \"i1\", \"occurred_at\": 1767225600000}]}'

Settings come from defaults, then --config FILE, then FRESHET__SECTION__KEY variables, then flags;
`freshet serve --print-config` shows what results. Everything is kept in one folder (--data-dir).";

/// As a shell says of a process that SIGPIPE ended.
const EXIT_OF_BROKEN_PIPE: i32 = 128 + 13;

/// A recommender that keeps learning on a server and ranks on the visitor's own device
#[derive(Debug, Parser)]
#[command(name = "freshet", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take in events, learn from them, publish what was learned
    Serve(serve::ServeArgs),
    /// Say where a running server stands
    Status(rollout::AdminArgs),
    /// List versions and refusals, newest first
    Versions(status::VersionsArgs),
    /// Return pages and trainer to an earlier version, and set aside what was learned since
    Rollback(rollout::RollbackArgs),
    /// Say what a version moved and who let it out, or what a file of a version holds
    Inspect(inspect::InspectArgs),
    /// Say what is different between two versions
    Diff(inspect::DiffArgs),
    /// Stop learning and publishing; events are still taken in
    Pin(rollout::OrderArgs),
    /// Go on after `pin`
    Unpin(rollout::OrderArgs),
    /// Begin a release now, or publish the codes of a snapshot file
    Publish(rollout::PublishArgs),
    /// Publish the release that is on trial
    Promote(rollout::OrderArgs),
    /// List, propose, approve and withdraw rules: items that are blocked, pinned, boosted or buried
    Rules(rules::RulesArgs),
    /// Try strategies of ranking beside each other on users, and say what the log knows of one that was not tried
    #[command(subcommand)]
    Experiment(experiment::ExperimentCommand),
    /// Put a catalogue and past events into a log: CSV, TSV, JSON Lines, Parquet, or files of other systems
    Import(import::ImportArgs),
    /// Write the events and the catalogue of a log as JSON Lines, CSV or Parquet
    Export(export::ExportArgs),
    /// Copy what cannot be made anew, while the server runs
    Backup(backup::BackupArgs),
    /// Check every hash and record of a backup or a data folder, or that a user is not in it
    Verify(backup::VerifyArgs),
    /// Make a data folder of a backup
    Restore(backup::RestoreArgs),
    /// Take all events of a user out of the log for good
    Erase(backup::EraseArgs),
    /// Replace the user ids of a log by pseudonyms for good, for `log.pseudonymous_ids`
    Pseudonymize(pseudonymize::PseudonymizeArgs),
    /// Write the log in a format that the version before reads
    Downgrade(backup::DowngradeArgs),
    /// Ask a server whether it is well
    Health(health::HealthArgs),
    /// Make, rotate and revoke the keys that versions are signed with
    Keys(keys::KeysArgs),
    /// Stream a dataset through a real server into real pages and report what came of it
    Replay(replay::ReplayArgs),
    /// Score a dataset offline against the baselines
    Evaluate(evaluate::EvaluateArgs),
    /// Measure what each technique adds on a dataset, offline
    Ablate(ablate::AblateArgs),
    /// Look for better settings on a dataset, offline
    Tune(tune::TuneArgs),
    /// Tune a CrossEncoder along a dataset and report what it is worth
    CrossEncoder(cross_encoder::CrossEncoderArgs),
    /// Make the text encoder smaller in several ways and keep the best that fits
    Compress(compress::CompressArgs),
    /// Fetch the pretrained text encoder
    Text(text::TextArgs),
    /// Print the OpenAPI document of a server's API
    Openapi(openapi::OpenapiArgs),
    /// Print a script that completes commands and flags in a shell
    Completions {
        /// The shell, for example: freshet completions bash > /etc/bash_completion.d/freshet
        shell: clap_complete::Shell,
    },
}

/// Runs a command.
///
/// # Errors
/// Whatever stopped it, in words for a person.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Status(args) => status::status(&args),
        Command::Versions(args) => status::versions(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "freshet", &mut script);
            print!("{}", String::from_utf8(script)?);
            Ok(())
        }
        Command::Openapi(args) => openapi::run(&args),
        Command::Rollback(args) => rollout::roll_back(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Diff(args) => inspect::diff(&args),
        Command::Pin(args) => rollout::run(Order::Pin, &args),
        Command::Unpin(args) => rollout::run(Order::Unpin, &args),
        Command::Publish(args) => rollout::publish(&args),
        Command::Promote(args) => rollout::run(Order::Promote, &args),
        Command::Rules(args) => rules::run(&args),
        Command::Experiment(command) => experiment::run(&command),
        Command::Import(args) => import::run(args),
        Command::Export(args) => export::run(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Verify(args) => backup::verify(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Erase(args) => backup::erase(&args),
        Command::Pseudonymize(args) => pseudonymize::run(&args),
        Command::Downgrade(args) => backup::downgrade(&args),
        Command::Health(args) => health::run(&args),
        Command::Keys(args) => keys::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Ablate(args) => ablate::run(args),
        Command::Tune(args) => tune::run(args),
        Command::CrossEncoder(args) => cross_encoder::run(args),
        Command::Compress(args) => compress::run(&args),
        Command::Text(args) => text::run(args),
    }
}

/// What went wrong and why, for a person; a cause that the words before it tell is left out.
#[must_use]
pub fn in_words(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// Ends the process in silence where nobody reads its output any more, as after `freshet versions | head`.
///
/// Not by the signal of the system, which would end it as well where a server closes a connection.
pub fn end_with_reader_of_output() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(EXIT_OF_BROKEN_PIPE);
        }
        tell(panic);
    }));
}

/// Why nothing came back, without the layers in between: `Connection refused`.
fn last_cause(error: reqwest::Error) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    anyhow::anyhow!("{}", error.root_cause())
}

/// The value of a flag that names a server.
fn http_url(text: &str) -> Result<String, String> {
    let is_http = ["http://", "https://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    match is_http {
        true => Ok(text.to_owned()),
        false => Err(format!("expected http:// or https:// before `{text}`")),
    }
}

/// Key and value of a `--set`.
fn parse_setting(setting: &str) -> anyhow::Result<(String, String)> {
    let Some((key, value)) = setting.split_once('=') else {
        bail!("--set {setting}: expected SECTION.KEY=VALUE");
    };
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Flags about settings, shared by all commands that open a data directory.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// Settings for a kind of application, under those of --config
    #[arg(long, value_enum, value_name = "NAME")]
    pub preset: Option<Preset>,
    /// TOML file with the settings that differ from the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the log, the versions and the signing key [default: ./freshet-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Any setting, for example --set train.seed=7; texts need no quotes; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// The effective configuration; `flags` are those of the command itself.
    ///
    /// # Errors
    /// See [`load`], or a `--set` without `=`.
    pub fn load(&self, mut flags: Vec<(String, String)>) -> anyhow::Result<Config> {
        for setting in &self.set {
            flags.push(parse_setting(setting)?);
        }
        if let Some(dir) = &self.data_dir {
            flags.push(("server.data_dir".to_owned(), dir.display().to_string()));
        }
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))) // not text: not ours
            .collect();
        load(&Sources {
            preset: self.preset,
            file: self.config.as_deref(),
            env,
            flags,
        })
        .context("the configuration is not usable")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let missing = std::io::Error::other("no such file");
        let error = anyhow::Error::new(missing)
            .context("cannot read: no such file: a.tsv")
            .context("the import failed");
        let expected = "the import failed: cannot read: no such file: a.tsv";
        assert_eq!(in_words(&error), expected);
    }

    #[test]
    fn a_server_is_named_with_its_scheme() {
        assert!(http_url("http://127.0.0.1:7878").is_ok());
        let said = http_url("127.0.0.1:7878").expect_err("no scheme");
        assert_eq!(said, "expected http:// or https:// before `127.0.0.1:7878`");
    }
}
