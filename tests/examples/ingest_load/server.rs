//! The server under load: another process with default settings, on a free port.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::batches::Batches;
use crate::connection::Connection;
use crate::start::resident_bytes;

/// Of processor time in `/proc`, on every Linux.
const TICKS_PER_SEC: f64 = 100.0;
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Killed when dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    child: Child,
}

impl Server {
    /// Starts it; its log goes to a file beside the data. The small encoder takes the place of a download.
    pub(crate) fn start(freshet: &Path, data_dir: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(freshet)
            .args(["serve", "--bind", "127.0.0.1:0"])
            .args(["--set", "model.text_encoder=small"])
            // All senders come from one address here, and another server may have the admin's.
            .args(["--set", "limits.client_events_per_sec=0"])
            .args(["--set", "server.admin_bind=", "--data-dir"])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .stderr(File::create(data_dir.join("server.log"))?)
            .spawn()
            .context("cannot start freshet")?;
        let stdout = child.stdout.take().context("the pipe was asked for")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("freshet listens on http://");
        let address = address.with_context(|| format!("no address: {line}"))?;
        Ok(Self {
            address: address.to_owned(),
            child,
        })
    }

    pub(crate) fn put_items(&self, batches: &Batches) -> anyhow::Result<()> {
        let mut connection = Connection::open(&self.address)?;
        for items in batches.items().chunks(500) {
            let body = json!({ "items": items }).to_string();
            let answer = connection.send("PUT", "/v1/items", &body)?;
            ensure!(answer["accepted"] == items.len(), "{answer}");
        }
        Ok(())
    }

    pub(crate) fn status(&self) -> anyhow::Result<Value> {
        Connection::open(&self.address)?.send("GET", "/v1/status", "")
    }

    pub(crate) fn wait_for_version(&self, patience: Duration) -> anyhow::Result<()> {
        self.wait("a version", patience, |status| status["version"].is_u64())
    }

    /// Until the newest version has learned from the whole log.
    pub(crate) fn wait_until_learned(&self, patience: Duration) -> anyhow::Result<()> {
        self.wait("the log is learned", patience, |status| {
            status["learned_through"] == status["log_offset"]
        })
    }

    fn wait(
        &self,
        what: &str,
        patience: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.status()?;
            if holds(&status) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{what}: not yet: {status}");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Processor time so far, all threads; 0 where the system does not tell.
    pub(crate) fn cpu_secs(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default(); // elsewhere there is no such file
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks = fields.skip(11).take(2).flat_map(str::parse::<f64>);
        ticks.sum::<f64>() / TICKS_PER_SEC
    }

    pub(crate) fn memory_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        resident_bytes(&status)
    }

    pub(crate) fn is_ready(&self) -> bool {
        let answer = Connection::open(&self.address)
            .and_then(|mut connection| connection.ask("GET", "/readyz", ""));
        answer.is_ok()
    }

    /// Asks it to end as a service manager would, and waits.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        let asked = Command::new("kill").arg(id).status()?;
        ensure!(asked.success(), "the server cannot be asked to end");
        let status = self.child.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
