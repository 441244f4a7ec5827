//! Durable events per second beside PostgreSQL with the same promise, on the same disk in the same run.
//!
//! The load and all figures of Freshet are those of the example `ingest_load` of the tests crate. The baseline is a
//! table with a unique event id, `synchronous_commit` on, filled by `pgbench` with as many connections and events per
//! statement: all of a statement but a number is prepared, so nothing is parsed again. Its server lives in a temporary
//! folder on a unix socket; where PostgreSQL is not installed there is no baseline.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::inputs::streams;
use crate::process::{run_to_end, step};
use crate::setup;
use crate::workspace::Workspace;

/// Where Debian and others put the programs of each version.
const VERSIONS_DIR: &str = "/usr/lib/postgresql";
/// Root may not run the server; the packages make this user.
const SERVER_USER: &str = "postgres";
const SCHEMA: &str = "CREATE TABLE events (event_id text PRIMARY KEY, kind text NOT NULL, user_id text NOT NULL, \
                      item_id text NOT NULL, occurred_at bigint NOT NULL, received_at timestamptz DEFAULT now())";

/// Measures both.
///
/// # Errors
/// A part cannot be built or run, or an acknowledged event is missing.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Value> {
    setup::build_programs(workspace)?;
    // Others on the machine make both slower; the file says so.
    let load_average = fs::read_to_string("/proc/loadavg").unwrap_or_default(); // elsewhere it is not known
    let mut command = Command::new(workspace.target_dir().join("debug/examples/ingest_load"));
    command.arg(workspace.target_dir().join("debug/freshet"));
    if let Some(stream) = streams()?.last() {
        command.arg(&stream.dir);
    }
    let output = step("loading Freshet", || {
        let output = command.stderr(Stdio::inherit()).output();
        output.context("cannot start the example ingest_load")
    })?;
    ensure!(output.status.success(), "ingest_load: {}", output.status);
    let mut numbers: Value = serde_json::from_slice(&output.stdout)?;
    numbers["load_average_before"] = json!(load_average.split(' ').next());
    match bin_dir() {
        Some(bin_dir) => {
            let shape = Shape::of(&numbers).context("ingest_load told no shape")?;
            numbers["baseline"] =
                step("loading PostgreSQL", || Baseline::measure(bin_dir, &shape))?;
        }
        None => {
            eprintln!("PostgreSQL is not installed below {VERSIONS_DIR}, so there is no baseline")
        }
    }
    Ok(numbers)
}

/// Of the newest version that is installed.
fn bin_dir() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS_DIR).ok()?; // no such folder, no PostgreSQL
    let dirs = versions.flatten().map(|version| version.path().join("bin"));
    dirs.filter(|dir| dir.join("pgbench").is_file()).max()
}

/// Of the load, the same for both.
struct Shape {
    num_connections: u64,
    batch_events: u64,
    held_secs: u64,
}

impl Shape {
    fn of(numbers: &Value) -> Option<Self> {
        Some(Self {
            num_connections: numbers["num_connections"].as_u64()?,
            batch_events: numbers["batch_events"].as_u64()?,
            held_secs: numbers["held_secs"].as_u64()?,
        })
    }

    /// One statement of a batch; `n` is drawn for each.
    fn script(&self) -> String {
        let mut script =
            "\\set n random(1, 9000000000000000)\nINSERT INTO events VALUES ".to_owned();
        for event_idx in 0..self.batch_events {
            let (comma, item) = (if event_idx > 0 { ", " } else { "" }, event_idx * 37);
            let row = format!(
                "{comma}(:n::text || '/{event_idx}', 'click', 'user-{event_idx}', 'item-{item}', 1800000000000)"
            );
            script.push_str(&row);
        }
        script.push_str(" ON CONFLICT DO NOTHING;\n");
        script
    }
}

/// A running PostgreSQL; stopped when dropped.
struct Baseline {
    bin_dir: PathBuf,
    dir: tempfile::TempDir,
}

impl Baseline {
    fn measure(bin_dir: PathBuf, shape: &Shape) -> anyhow::Result<Value> {
        let dir = tempfile::tempdir()?;
        let server = Self { bin_dir, dir };
        server.start()?;
        fs::write(server.path("batch.sql"), shape.script())?;
        server.run("psql", &["-qc", SCHEMA])?;
        let highest = server.load(shape, None)?;
        let stored = server.run("psql", &["-Atc", "SELECT count(*) FROM events"])?;
        let stored: u64 = stored.trim().parse()?;
        let half = server.load(shape, Some(highest.rate / 2.0))?;
        ensure!(
            stored == highest.latencies.len() as u64 * shape.batch_events,
            "{stored} rows, but {} statements were answered",
            highest.latencies.len()
        );
        let version = server.run("postgres", &["--version"])?;
        Ok(json!({
            "name": version.trim(),
            "settings": "defaults: fsync, synchronous_commit and full_page_writes on",
            "events_per_sec": (highest.rate * shape.batch_events as f64).round(),
            "ack_ms": half.spread(),
            "closed_loop_ack_ms": highest.spread(),
        }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self) -> anyhow::Result<()> {
        if is_root()? {
            run_to_end(Command::new("chown").arg(SERVER_USER).arg(self.dir.path()))?;
        }
        let data = self.path("data").display().to_string();
        self.run("initdb", &["-D", &data, "-A", "trust", "--no-instructions"])?;
        let socket = self.dir.path().display().to_string();
        let options = format!("-c listen_addresses= -c unix_socket_directories={socket}");
        let log = self.path("log").display().to_string();
        self.run(
            "pg_ctl",
            &["-w", "-D", &data, "-l", &log, "-o", &options, "start"],
        )?;
        Ok(())
    }

    /// Statements for as long as the shape says: as many as there can be, or so many per second, at planned times.
    fn load(&self, shape: &Shape, rate: Option<f64>) -> anyhow::Result<Loaded> {
        let prefix = self.path(if rate.is_some() { "half" } else { "high" });
        let (clients, secs) = (
            shape.num_connections.to_string(),
            shape.held_secs.to_string(),
        );
        let (prefix, script) = (prefix.display().to_string(), self.path("batch.sql"));
        let (script, rate) = (
            script.display().to_string(),
            rate.map(|rate| rate.to_string()),
        );
        let mut arguments = vec![
            "-n", "-M", "prepared", "-c", &clients, "-j", "2", "-T", &secs,
        ];
        arguments.extend(["-l", "--log-prefix", &prefix, "-f", &script]);
        if let Some(rate) = &rate {
            arguments.extend(["-R", rate]);
        }
        arguments.push("postgres");
        self.run("pgbench", &arguments)?;
        let mut latencies = Vec::new();
        for entry in fs::read_dir(self.dir.path())? {
            let path = entry?.path();
            if path
                .display()
                .to_string()
                .starts_with(&format!("{prefix}."))
            {
                latencies.extend(latencies_in(&path)?);
            }
        }
        latencies.sort_unstable();
        Ok(Loaded {
            rate: latencies.len() as f64 / shape.held_secs as f64,
            latencies,
        })
    }

    /// Runs one of its programs; what it says.
    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let path = self.bin_dir.join(program);
        let mut command = if is_root()? {
            let mut command = Command::new("runuser");
            command.args(["-u", SERVER_USER, "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        let command = command.args(arguments).current_dir(self.dir.path());
        let command = command
            .env("PGHOST", self.dir.path())
            .env("PGDATABASE", "postgres");
        // What is started in the background must not hold a pipe open.
        let output_path = self.path("output");
        let output = fs::File::create(&output_path)?;
        let status = command.stdout(output.try_clone()?).stderr(output).status();
        let status = status.with_context(|| format!("cannot start {program}"))?;
        let text = fs::read_to_string(output_path)?;
        ensure!(status.success(), "{program} ended with {status}: {text}");
        Ok(text)
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        let data = self.path("data").display().to_string();
        if let Err(error) = self.run("pg_ctl", &["-w", "-m", "fast", "-D", &data, "stop"]) {
            eprintln!("PostgreSQL was not stopped: {error:#}");
        }
    }
}

/// Statements that were answered.
struct Loaded {
    /// Per second.
    rate: f64,
    /// In microseconds, ascending.
    latencies: Vec<u64>,
}

impl Loaded {
    fn spread(&self) -> Value {
        let at = |share: f64| {
            let nearest = (self.latencies.len() as f64 * share).ceil() as usize; // share is in [0, 1]
            let micros = self.latencies.get(nearest.max(1) - 1);
            micros.map(|micros| *micros as f64 / 1000.0)
        };
        json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) })
    }
}

/// The third column of the log of `pgbench`; with a rate it counts from the planned time.
fn latencies_in(path: &Path) -> anyhow::Result<Vec<u64>> {
    let text = fs::read_to_string(path)?;
    let latency = |line: &str| Some(line.split(' ').nth(2)?.parse().ok()?);
    let read = |line: &str| latency(line).with_context(|| format!("pgbench logged {line}"));
    text.lines().map(read).collect()
}

fn is_root() -> anyhow::Result<bool> {
    let output = Command::new("id").arg("-u").output()?;
    Ok(String::from_utf8(output.stdout)?.trim() == "0")
}
