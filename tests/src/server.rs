//! The real `freshet` process on a free port, with a temporary folder of data.
//!
//! It can be killed at any moment as a power loss would end it, and started again on the same port and data.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use shared_model::event::{Event, Item};
use shared_model::manifest::{Manifest, parse_public_key, verify};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use trainer_server::config::Config;
use trainer_server::config::load::ENV_PREFIX;
use trainer_server::event_log::{EventLog, EventLogConfig, LogRecord, StoredEvent};
use trainer_server::page_client::ServerAddress;

use crate::api::{Api, Status};
use crate::root::Root;
use crate::{wait, workspace};

/// A server that has not said where it listens by then will not.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Time for a warm fit of the small model, or for what was posted to be learned.
const LEARN_PATIENCE: Duration = Duration::from_secs(90);
/// Records in one transaction while a log is filled.
const FILL_BATCH_LEN: usize = 8192;
/// Characters of the server's log that an error shows.
const LOG_TAIL_LEN: usize = 3000;

/// A model that learns in milliseconds on one core, and versions as fast as they come.
const SETTINGS: [(&str, &str); 9] = [
    ("model.text_encoder", "small"),
    ("model.embedding_dim", "16"),
    ("model.ff_dim", "32"),
    ("model.history_len", "16"),
    ("train.device", "flex"),
    ("train.fast_interval_millis", "50"),
    ("train.warm_epochs", "2"),
    ("train.warm_batch_size", "16"),
    ("train.warm_fit_min_events", "100"),
];

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct Setup<'a> {
    parent: Option<PathBuf>,
    settings: Vec<(String, String)>,
    root: Option<&'a Root>,
    items: Vec<Item>,
    events: Vec<Event>,
}

impl<'a> Setup<'a> {
    /// Lets a root sign the first key set before the start.
    #[must_use]
    pub fn with_root(mut self, root: &'a Root) -> Self {
        self.root = Some(root);
        self
    }

    /// Changes a setting, for example `train.seed`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Keeps its folder below `parent`, for example on a disk of its own.
    #[must_use]
    pub fn in_dir(mut self, parent: &Path) -> Self {
        self.parent = Some(parent.to_owned());
        self
    }

    /// Fills the log before the start, so that the first version comes from a warm fit.
    #[must_use]
    pub fn with_log(mut self, items: &[Item], events: &[Event]) -> Self {
        self.items = items.to_vec();
        self.events = events.to_vec();
        self
    }
}

/// A server process; killed when dropped.
#[derive(Debug)]
pub struct Server {
    /// Requests to it.
    pub api: Api,
    child: Option<Child>,
    dir: tempfile::TempDir,
    settings: Vec<(String, String)>,
    address: ServerAddress,
}

impl Server {
    /// Starts a server and waits until it answers; its first version may come later.
    ///
    /// # Errors
    /// It does not start; the error shows the end of its log.
    pub async fn start(setup: Setup<'_>) -> anyhow::Result<Self> {
        let mut named = tempfile::Builder::new();
        let named = named.prefix("freshet-test-");
        let dir = match &setup.parent {
            Some(parent) => named.tempdir_in(parent)?,
            None => named.tempdir()?,
        };
        if !setup.items.is_empty() {
            fill_log(&data_dir_in(dir.path()), &setup.items, &setup.events).await?;
        }
        if let Some(root) = setup.root {
            root.ceremony(&["init"], &data_dir_in(dir.path()))?;
        }
        let defaults = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings: Vec<_> = defaults.into_iter().chain(setup.settings).collect();
        let (child, url) = spawn(dir.path(), &settings, "127.0.0.1:0").await?;
        let address = ServerAddress::new(&url, "main");
        let server = Self {
            api: Api::new(&address)?,
            child: Some(child),
            dir,
            settings,
            address,
        };
        server.answers().await?;
        Ok(server)
    }

    /// Where it listens, also while it is down.
    #[must_use]
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// Its folder.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        data_dir_in(self.dir.path())
    }

    /// Ends the process at once, as `kill -9` or a power loss does.
    ///
    /// # Errors
    /// It has ended before.
    pub async fn kill9(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the server is down already")?;
        if let Some(status) = child.try_wait()? {
            bail!(
                "the server ended by itself with {status}; the end of its log:\n{}",
                self.log_tail()
            );
        }
        child.kill().await?;
        Ok(())
    }

    /// Starts the process again on its port and its data.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "the server is still running");
        let bind = self.address.url.trim_start_matches("http://").to_owned();
        let (child, _) = spawn(self.dir.path(), &self.settings, &bind).await?;
        self.child = Some(child);
        self.answers().await
    }

    /// Waits until a version has learned everything in the log.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn has_learned_all(&self) -> anyhow::Result<Status> {
        let learned = wait::until(
            "the newest version has learned the whole log",
            LEARN_PATIENCE,
            async || {
                let status = self.api.status().await?;
                let is_stopped = status.trainer["phase"] == "stopped";
                ensure!(!is_stopped, "the trainer stopped: {}", status.trainer);
                Ok((status.learned_through == Some(status.log_offset)).then_some(status))
            },
        );
        learned
            .await
            .with_context(|| format!("the end of the server's log:\n{}", self.log_tail()))
    }

    /// All manifests on disk, oldest first, their signatures checked.
    ///
    /// # Errors
    /// One cannot be read or is not signed by this server.
    pub async fn manifests(&self) -> anyhow::Result<Vec<Manifest>> {
        let trusted = self.trusted_keys().await?;
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(self.data_dir().join("manifests"))? {
            let path = entry?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let is_manifest = name
                .strip_suffix(".json")
                .is_some_and(|stem| stem.len() == 20);
            if is_manifest {
                paths.push(path);
            }
        }
        paths.sort();
        let mut manifests = Vec::with_capacity(paths.len());
        for path in paths {
            let signed = std::fs::read(&path)?;
            manifests.push(verify(&signed, &trusted).with_context(|| path.display().to_string())?);
        }
        Ok(manifests)
    }

    /// The records of the log; the server must be down, since it alone may open it.
    ///
    /// # Errors
    /// The server runs, or the log is damaged.
    pub fn log_records(&self) -> anyhow::Result<Vec<LogRecord>> {
        ensure!(
            self.child.is_none(),
            "the log is in use while the server runs"
        );
        let log = EventLog::open(&self.data_dir(), &EventLogConfig::from(&Config::default()))?;
        let records = log.read(shared_model::ids::LogOffset(0), usize::MAX)?;
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }

    /// What the process wrote to its log, over all its starts.
    #[must_use]
    pub fn log_text(&self) -> String {
        log_text(self.dir.path())
    }

    fn log_tail(&self) -> String {
        log_tail(self.dir.path())
    }

    async fn trusted_keys(&self) -> anyhow::Result<Vec<ed25519_dalek::VerifyingKey>> {
        let path = format!("{}/v1/models/{}/keys", self.address.url, self.address.model);
        let keys: shared_model::manifest::KeyList = reqwest::get(path).await?.json().await?;
        let keys = keys
            .keys
            .iter()
            .map(|key| parse_public_key(&key.public_key));
        Ok(keys.collect::<Result<Vec<_>, _>>()?)
    }

    async fn answers(&self) -> anyhow::Result<()> {
        let healthy = wait::until("the server answers", START_PATIENCE, async || {
            Ok(self.api.is_healthy().await.then_some(()))
        });
        healthy
            .await
            .with_context(|| format!("the end of the server's log:\n{}", self.log_tail()))
    }
}

fn data_dir_in(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("server.log")
}

fn log_text(dir: &Path) -> String {
    std::fs::read_to_string(log_path(dir)).unwrap_or_else(|error| format!("(unreadable: {error})"))
}

fn log_tail(dir: &Path) -> String {
    let text = log_text(dir);
    let start = text
        .char_indices()
        .rev()
        .nth(LOG_TAIL_LEN)
        .map_or(0, |(start, _)| start);
    text[start..].to_owned()
}

/// The program as `cargo test --workspace` has built it; built here where it is missing.
///
/// # Errors
/// It cannot be built.
pub fn freshet_program() -> anyhow::Result<PathBuf> {
    let program = workspace::target_dir()
        .join("debug")
        .join(format!("freshet{}", std::env::consts::EXE_SUFFIX));
    if !program.is_file() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = std::process::Command::new(cargo);
        build
            .args(["build", "--workspace", "--bins"])
            .current_dir(workspace::root());
        ensure!(build.status()?.success(), "the server cannot be built");
    }
    Ok(program)
}

/// Starts the process; answers with it and its URL once it has said where it listens.
async fn spawn(
    dir: &Path,
    settings: &[(String, String)],
    bind: &str,
) -> anyhow::Result<(Child, String)> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_path(dir))?;
    let mut command = Command::new(freshet_program()?);
    command
        .args(["serve", "--bind", bind, "--set", "server.admin_bind="])
        .arg("--data-dir")
        .arg(data_dir_in(dir));
    for (key, value) in settings {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    // The settings of a test are all there is: variables of the shell would change them.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with(ENV_PREFIX)) {
        command.env_remove(name);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true);
    let mut child = command.spawn().context("the server cannot be started")?;
    let stdout = child
        .stdout
        .take()
        .context("the pipe was asked for above")?;
    let mut line = String::new();
    let mut reader = BufReader::new(stdout);
    let read = tokio::time::timeout(START_PATIENCE, reader.read_line(&mut line)).await;
    let url = line.trim().strip_prefix("freshet listens on ");
    match (read, url) {
        (Ok(Ok(_)), Some(url)) => Ok((child, url.to_owned())),
        _ => bail!(
            "the server said {line:?} instead of where it listens; the end of its log:\n{}",
            log_tail(dir)
        ),
    }
}

/// Writes items and events to a log as `freshet import` does.
async fn fill_log(data_dir: &Path, items: &[Item], events: &[Event]) -> anyhow::Result<()> {
    let log = EventLog::open(data_dir, &EventLogConfig::from(&Config::default()))?;
    let items = items.iter().cloned().map(LogRecord::ItemPut);
    let stored = |event: &Event| StoredEvent {
        received_at: event.occurred_at,
        event: event.clone(),
        is_vouched: false,
        arm_phase: None,
    };
    let records: Vec<_> = items
        .chain(events.iter().map(|event| LogRecord::Event(stored(event))))
        .collect();
    for batch in records.chunks(FILL_BATCH_LEN) {
        log.append(batch.to_vec()).await?;
    }
    log.shutdown();
    Ok(())
}
