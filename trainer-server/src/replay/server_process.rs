//! A server of our own: another process of this very program, on a free port, with a log that is
//! filled before it starts, so that it begins with a warm fit.
//!
//! Everything it writes lies in a temporary folder; it is killed and the folder removed on drop.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use shared_model::event::{Event, Item};
use shared_model::ids::LogOffset;

use super::api::{ApiError, ServerApi};
use crate::config::load::{Sources, load};
use crate::config::{Config, ConfigError};
use crate::event_log::{EventLog, EventLogConfig, EventLogError, LogRecord, StoredEvent};
use crate::page_client::ServerAddress;

/// A server that does not even answer `/healthz` by then will not.
const START_SECS_MAX: u64 = 60;
/// Records per transaction while the log is filled.
const IMPORT_BATCH_LEN: usize = 8192;
/// How much of the server's own log an error shows.
const LOG_TAIL_BYTES: u64 = 2000;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerProcessError {
    /// The system refused something.
    #[error("{action} failed")]
    System {
        /// What was tried.
        action: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration cannot be written down.
    #[error("cannot write the configuration as TOML: {0}")]
    ConfigText(#[from] toml::ser::Error),
    /// The log could not be filled.
    #[error(transparent)]
    Log(#[from] EventLogError),
    /// The HTTP client could not be built.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The process ended or is silent.
    #[error("the server process {what}; the end of its log:\n{log_tail}")]
    NotServing {
        /// Ended or silent.
        what: String,
        /// Its last words.
        log_tail: String,
    },
}

/// How the server is set up.
#[derive(Debug, Clone, Default)]
pub struct ServerSetup {
    /// The operator's file; defaults hold for the rest.
    pub config_file: Option<PathBuf>,
    /// Folder served at `/`, for browser pages.
    pub static_dir: Option<PathBuf>,
}

/// A running server.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    dir: tempfile::TempDir,
    config: Config,
}

impl ServerProcess {
    /// Prepares a folder and a configuration, fills the log, and starts the process.
    ///
    /// Returns it with the end of its log.
    ///
    /// # Errors
    /// See [`ServerProcessError`].
    pub async fn start(
        setup: &ServerSetup,
        items: &[Item],
        events: impl Iterator<Item = Event>,
        progress: &indicatif::ProgressBar,
    ) -> Result<(Self, LogOffset), ServerProcessError> {
        let dir = tempfile::Builder::new()
            .prefix("freshet-replay-")
            .tempdir()
            .map_err(|source| ServerProcessError::System {
                action: "making a temporary folder",
                source,
            })?;
        let config = effective_config(setup, dir.path())?;
        let log = EventLog::open(&config.server.data_dir, &EventLogConfig::from(&config))?;
        let filled = fill_log(&log, items, events, progress).await;
        let end = log.end();
        log.shutdown();
        drop(log);
        filled?;
        let child = spawn(&config, dir.path())?;
        Ok((Self { child, dir, config }, end))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> ServerAddress {
        ServerAddress::new(
            &format!("http://{}", self.config.server.bind),
            &self.config.model.name,
        )
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it runs with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Kills it with `SIGKILL`, which it cannot prepare for, and waits until it is gone.
    ///
    /// # Errors
    /// The system refused.
    pub fn kill(&mut self) -> Result<(), ServerProcessError> {
        self.child
            .kill()
            .and_then(|()| self.child.wait().map(|_status| ()))
            .map_err(|source| ServerProcessError::System {
                action: "killing the server process",
                source,
            })
    }

    /// Starts it again on the same folder and port, after [`kill`](Self::kill).
    ///
    /// # Errors
    /// The system refused.
    pub fn restart(&mut self) -> Result<(), ServerProcessError> {
        self.child = spawn(&self.config, self.dir.path())?;
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// It ended, or is silent for a minute.
    pub async fn wait_until_healthy(&mut self) -> Result<(), ServerProcessError> {
        let api = ServerApi::new(&self.address())?;
        let deadline = Instant::now() + Duration::from_secs(START_SECS_MAX);
        while !api.is_healthy().await {
            self.check_alive()?;
            if Instant::now() > deadline {
                return Err(self.not_serving(format!("gave no answer within {START_SECS_MAX} s")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// # Errors
    /// The process has ended.
    pub fn check_alive(&mut self) -> Result<(), ServerProcessError> {
        let status = self
            .child
            .try_wait()
            .map_err(|source| ServerProcessError::System {
                action: "looking at the server process",
                source,
            })?;
        match status {
            Some(status) => Err(self.not_serving(format!("ended with {status}"))),
            None => Ok(()),
        }
    }

    fn not_serving(&self, what: String) -> ServerProcessError {
        let log_tail = tail(&log_path(self.dir.path()))
            .unwrap_or_else(|error| format!("(unreadable: {error})"));
        ServerProcessError::NotServing { what, log_tail }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Both fail only if the process is gone already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Writes items and events to a log, as `freshet import` does.
///
/// # Errors
/// The log refused a record or failed.
async fn fill_log(
    log: &EventLog,
    items: &[Item],
    events: impl Iterator<Item = Event>,
    progress: &indicatif::ProgressBar,
) -> Result<(), EventLogError> {
    let now_millis = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let received_at = i64::try_from(now_millis).unwrap_or(i64::MAX); // milliseconds fit for ages
    let records = items
        .iter()
        .map(|item| LogRecord::ItemPut(item.clone()))
        .chain(events.map(|event| {
            LogRecord::Event(StoredEvent {
                event,
                received_at,
                is_vouched: false,
                arm_phase: None,
            })
        }));
    let mut batch = Vec::with_capacity(IMPORT_BATCH_LEN);
    for record in records {
        batch.push(record);
        if batch.len() == IMPORT_BATCH_LEN {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(IMPORT_BATCH_LEN));
            log.append(full).await?;
            progress.inc(IMPORT_BATCH_LEN as u64); // usize fits u64
        }
    }
    progress.inc(batch.len() as u64); // usize fits u64
    log.append(batch).await?;
    Ok(())
}

fn effective_config(setup: &ServerSetup, dir: &Path) -> Result<Config, ServerProcessError> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|source| ServerProcessError::System {
            action: "looking for a free port",
            source,
        })?;
    let mut flags = vec![
        ("server.bind".to_owned(), listener.to_string()),
        ("server.admin_bind".to_owned(), String::new()),
        // It is started and asked by this process alone.
        ("access.ingest_key".to_owned(), String::new()),
        ("access.ingest_key_file".to_owned(), String::new()),
        ("access.read_key".to_owned(), String::new()),
        ("access.read_key_file".to_owned(), String::new()),
        ("access.admin_token".to_owned(), String::new()),
        ("access.admin_token_file".to_owned(), String::new()),
        (
            "server.data_dir".to_owned(),
            dir.join("data").display().to_string(),
        ),
        ("clock.mode".to_owned(), "event_time".to_owned()),
    ];
    if let Some(static_dir) = &setup.static_dir {
        flags.push((
            "server.static_dir".to_owned(),
            static_dir.display().to_string(),
        ));
    }
    let env = std::env::vars().collect();
    Ok(load(&Sources {
        file: setup.config_file.as_deref(),
        env,
        flags,
        ..Sources::default()
    })?)
}

fn spawn(config: &Config, dir: &Path) -> Result<Child, ServerProcessError> {
    let system = |action| move |source| ServerProcessError::System { action, source };
    let config_path = dir.join("freshet.toml");
    std::fs::write(&config_path, toml::to_string(config)?)
        .map_err(system("writing the configuration"))?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_path(dir))
        .map_err(system("making the server's log file"))?;
    let log_too = log
        .try_clone()
        .map_err(system("making the server's log file"))?;
    let program = std::env::current_exe().map_err(system("finding this program"))?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--config").arg(&config_path);
    // The file holds the effective configuration; a variable on top of it would move the port.
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with(crate::config::load::ENV_PREFIX))
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(log).stderr(log_too);
    command
        .spawn()
        .map_err(system("starting the server process"))
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("server.log")
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
