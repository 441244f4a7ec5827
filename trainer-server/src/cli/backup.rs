//! `freshet backup|verify|restore|erase|downgrade`: the life cycle of a data folder.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::DateTime;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};
use shared_model::ids::UserId;

use super::ConfigArgs;
use super::rollout::{AdminArgs, delete, post};
use crate::backup::pack::{Archive, Source, pack};
use crate::backup::unpack::unpack_archive;
use crate::backup::verify::{files_with, verify_backup, verify_data_dir};
use crate::backup::{CONTENTS_NAME, Contents, Folder, Sink, restore};
use crate::clock::now_millis;
use crate::erasure;
use crate::event_log::{self, EventLog, EventLogConfig, LOG_FILE_NAME};
use crate::pseudonyms::Pseudonyms;
use crate::publish::files::TEMP_PREFIX;

/// Flags of `freshet backup`.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// Folder, which the next backup continues with what is new; or an archive that ends in .tar
    #[arg(long, value_name = "DIR|FILE.tar")]
    pub to: PathBuf,
    /// Read the folder of --data-dir itself, which no server uses, instead of asking a server
    #[arg(long)]
    pub offline: bool,
    /// Put the secret keys in, too: whoever has the backup can then sign versions and tell whose pseudonyms it holds. Goes
    /// with --offline
    #[arg(long, requires = "offline")]
    pub with_keys: bool,
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The server.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Flags of `freshet verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// A backup, or the data folder of a server that does not run
    #[arg(value_name = "BACKUP|DATA_DIR")]
    pub path: PathBuf,
    /// Instead, look for this user in every byte of every file, and fail where one is found
    #[arg(long, value_name = "USER_ID")]
    pub absent: Option<String>,
    /// Look for the id alone as senders say it, and not for its pseudonym, which is looked for where users.key is there
    #[arg(long, requires = "absent")]
    pub as_sent: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `freshet restore`.
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// The backup, folder or archive
    pub backup: PathBuf,
    /// A newer erasures.jsonl: what it lists beyond the backup is erased again
    #[arg(long, value_name = "FILE")]
    pub erasures: Option<PathBuf>,
    /// Settings; --data-dir is a folder that is empty or not there.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `freshet erase`.
#[derive(Debug, Clone, Args)]
pub struct EraseArgs {
    /// The user whose events go
    pub user_id: String,
    /// Change the folder of --data-dir itself, which no server uses, instead of asking a server
    #[arg(long)]
    pub offline: bool,
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The server.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Flags of `freshet downgrade`.
#[derive(Debug, Clone, Args)]
pub struct DowngradeArgs {
    /// Format that the log is to have, 1
    #[arg(long, value_name = "FORMAT", value_parser = clap::value_parser!(u64).range(1..=1))]
    pub to: u64,
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Takes a backup.
///
/// # Errors
/// The server does not answer, the folder is in use, or something cannot be read or written.
pub fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    let bar = bytes_bar("backup")?;
    let contents = if args.offline {
        back_up_folder(args, &bar)?
    } else {
        super::replay::block_on(back_up_server(args, &bar))?
    };
    bar.finish_and_clear();
    if contents.has_keys {
        eprintln!(
            "the secret keys are in it: whoever reads this backup can sign versions for your pages"
        );
    }
    let summary = json!({
        "to": args.to,
        "created_at": contents.created_at,
        "log_end": contents.log.end,
        "model_version": contents.model_version,
        "num_files": contents.files.len(),
        "num_bytes": contents.num_bytes(),
        "has_keys": contents.has_keys,
    });
    tell(&summary, args.admin.json)
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar")
}

fn back_up_folder(args: &BackupArgs, bar: &ProgressBar) -> anyhow::Result<Contents> {
    let config = args.config.load(Vec::new())?;
    let data_dir = &config.server.data_dir;
    let log = open_log(data_dir, &EventLogConfig::from(&config))?;
    let folder = (!is_archive(&args.to))
        .then(|| Folder::open(&args.to))
        .transpose()?;
    let base = folder.as_ref().map(Folder::contents).transpose()?.flatten();
    let source = Source {
        data_dir,
        log: &log,
        with_keys: args.with_keys,
        now_millis: now_millis(),
        base: base.as_ref(),
    };
    let mut progress = |bytes| bar.inc(bytes);
    if let Some(mut folder) = folder {
        let contents = pack(&source, &mut folder, &mut progress)?;
        folder.finish(&contents)?;
        return Ok(contents);
    }
    let unfinished = unfinished(&args.to);
    let mut archive = Archive::new(BufWriter::new(create(&unfinished)?));
    let contents = pack(&source, &mut archive, &mut progress)?;
    let file = archive
        .finish(&contents)?
        .into_inner()
        .map_err(|error| error.into_error())?;
    file.sync_all()?;
    fs::rename(&unfinished, &args.to)?;
    Ok(contents)
}

/// The archive comes piece by piece; a thread unpacks it, or keeps it and reads it again.
async fn back_up_server(args: &BackupArgs, bar: &ProgressBar) -> anyhow::Result<Contents> {
    let folder = (!is_archive(&args.to))
        .then(|| Folder::open(&args.to))
        .transpose()?;
    let base = folder.as_ref().map(Folder::contents).transpose()?.flatten();
    let mut response = post(&args.admin, "/v1/backup", &json!({ "base": base })).await?;
    let (reader, mut writer) = io::pipe()?;
    let to = args.to.clone();
    let taking = tokio::task::spawn_blocking(move || take(reader, folder, &to));
    while let Some(piece) = response.chunk().await.context("the backup was cut off")? {
        bar.inc(piece.len() as u64); // widening
        let written = tokio::task::block_in_place(|| writer.write_all(&piece));
        if written.is_err() {
            break; // the reader has failed, and says why
        }
    }
    drop(writer);
    taking.await?
}

fn take(reader: impl Read, folder: Option<Folder>, to: &Path) -> anyhow::Result<Contents> {
    if let Some(mut folder) = folder {
        let (contents, _) = unpack_archive(reader, to, &mut |path, file| {
            folder
                .file(path, file)
                .map_err(|source| crate::backup::BackupError::Io {
                    action: "cannot copy into the backup",
                    path: path.into(),
                    source,
                })
        })?;
        folder.finish(&contents)?;
        return Ok(contents);
    }
    let unfinished = unfinished(to);
    let mut file = create(&unfinished)?;
    let mut kept = Kept {
        reader,
        file: &mut file,
    };
    let (contents, _) = unpack_archive(&mut kept, to, &mut |_, _| Ok(()))?;
    io::copy(&mut kept, &mut io::sink())?; // what fills the last block
    file.sync_all()?;
    fs::rename(&unfinished, to)?;
    Ok(contents)
}

/// Writes down what is read.
struct Kept<'a, R> {
    reader: R,
    file: &'a mut File,
}

impl<R: Read> Read for Kept<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let num_read = self.reader.read(buffer)?;
        self.file.write_all(&buffer[..num_read])?;
        Ok(num_read)
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{TEMP_PREFIX}{name}"))
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn open_log(data_dir: &Path, config: &EventLogConfig) -> anyhow::Result<EventLog> {
    let dir = data_dir.display();
    if !data_dir.join(LOG_FILE_NAME).exists() {
        bail!("there is no log in {dir}");
    }
    EventLog::open(data_dir, config).with_context(|| format!("cannot open the log in {dir}"))
}

/// Checks a backup or a data folder.
///
/// # Errors
/// The first thing that is wrong, or a file that holds the user.
pub fn verify(args: &VerifyArgs) -> anyhow::Result<()> {
    let path = &args.path;
    if let Some(user_id) = &args.absent {
        let user_id = UserId::new(user_id.clone()).context("--absent")?;
        let mut found = files_with(path, &user_id)?;
        if let Some(pseudonyms) = Pseudonyms::in_folder(path)?.filter(|_| !args.as_sent) {
            found.extend(files_with(path, &pseudonyms.of(user_id))?);
        }
        if !found.is_empty() {
            bail!("the user is still in {}", found.join(", "));
        }
        return tell(&json!({ "absent": true }), args.json);
    }
    let bar = bytes_bar("verify")?;
    let verified = if path.join(CONTENTS_NAME).exists() || path.is_file() {
        verify_backup(path, &mut |bytes| bar.inc(bytes))
    } else {
        let config = EventLogConfig::from(&crate::config::Config::default());
        drop(open_log(path, &config)?);
        verify_data_dir(path, &config)
    };
    bar.finish_and_clear();
    let verified = verified?;
    if !args.json {
        println!("{} is sound", path.display());
    }
    tell(&verified, args.json)
}

/// Restores a backup.
///
/// # Errors
/// The folder is in use, or the backup is damaged.
pub fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let config = args.config.load(Vec::new())?;
    let data_dir = &config.server.data_dir;
    let bar = bytes_bar("restore")?;
    let log_config = EventLogConfig::from(&config);
    let mut progress = |bytes| bar.inc(bytes);
    let erasures = args.erasures.as_deref();
    let restored = restore::restore(&args.backup, data_dir, &log_config, erasures, &mut progress)?;
    bar.finish_and_clear();
    if !restored.has_keys && restored.model_version.is_some() {
        eprintln!(
            "the backup holds no secret keys: copy signing.key, keys/*.key and, where there is one, users.key into {} before \
             `freshet serve`, which otherwise makes a key that your pages do not know and puts the versions aside",
            data_dir.display()
        );
    }
    tell(&restored, args.json)
}

/// Erases a user.
///
/// # Errors
/// The server does not answer, the folder is in use, or the log cannot be rewritten.
pub fn erase(args: &EraseArgs) -> anyhow::Result<()> {
    let user_id = UserId::new(args.user_id.clone()).context("USER_ID")?;
    if !args.offline {
        let path = format!(
            "/v1/users/{}",
            super::rollout::percent_encoded(user_id.as_str())
        );
        let erased = super::replay::block_on(delete(&args.admin, &path))?;
        return tell(&erased, args.admin.json);
    }
    let config = args.config.load(Vec::new())?;
    let data_dir = &config.server.data_dir;
    let log = open_log(data_dir, &EventLogConfig::from(&config))?;
    let user_id = Pseudonyms::of_log(data_dir, &log)?.of(user_id);
    let bar = rewriting_bar();
    let erased = erasure::erase(&log, data_dir, &user_id, now_millis());
    bar.finish_and_clear();
    log.shutdown();
    tell(&erased?, args.admin.json)
}

/// Writes the log in the format of the version before.
///
/// # Errors
/// The folder is in use, or the log cannot be rewritten.
pub fn downgrade(args: &DowngradeArgs) -> anyhow::Result<()> {
    let config = args.config.load(Vec::new())?;
    let data_dir = &config.server.data_dir;
    let log_config = EventLogConfig::from(&config);
    drop(open_log(data_dir, &log_config)?);
    let lost = event_log::downgrade(data_dir, &log_config)?;
    if lost.num_tombstones > 0 {
        eprintln!(
            "{} events that were taken out are no longer known: sent once more, they count as new",
            lost.num_tombstones
        );
    }
    tell(&lost, args.json)
}

/// Prints what was done: JSON on one line, or a line for each figure.
pub(super) fn tell(done: &impl Serialize, as_json: bool) -> anyhow::Result<()> {
    let done = serde_json::to_value(done)?;
    if as_json {
        println!("{done}");
        return Ok(());
    }
    for (name, value) in done.as_object().into_iter().flatten() {
        let value = match value {
            Value::String(text) => text.clone(),
            other if name.ends_with("_at") => moment(other),
            other => other.to_string(),
        };
        println!("{:<16} {value}", name.replace('_', " "));
    }
    Ok(())
}

/// Day and time in UTC of milliseconds since 1970.
fn moment(millis: &Value) -> String {
    let moment = millis.as_i64().and_then(DateTime::from_timestamp_millis);
    moment.map_or_else(
        || millis.to_string(),
        |moment| moment.format("%F %T UTC").to_string(),
    )
}

pub(super) fn rewriting_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message("rewriting the log");
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn bytes_bar(name: &'static str) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} {spinner} {bytes} {bytes_per_sec}")?;
    Ok(ProgressBar::new_spinner()
        .with_style(style)
        .with_message(name))
}
