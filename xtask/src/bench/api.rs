//! Schemathesis against the document of the API: a real server with keys and a small catalogue that it has learned.
//!
//! Both addresses are asked, with the admin token and without a key, in all phases. What it must know beyond the document
//! stands in `xtask/bench/api.toml` and `api_hooks.py`. The server must answer to the end and never panic.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::inputs::Environment;
use crate::process::{Background, run_to_end, step};
use crate::setup;
use crate::workspace::Workspace;

const SCHEMATHESIS: Environment = Environment {
    name: "bench-schemathesis",
    packages: &["schemathesis==4.32.5"],
    check: "import importlib.metadata as packages; assert packages.version('schemathesis') == '4.32.5'",
};
/// Keys of the server, as it reads them and as `api.toml` names them.
const KEYS: [(&str, &str, &str); 3] = [
    (
        "FRESHET__ACCESS__INGEST_KEY",
        "FRESHET_INGEST_KEY",
        "ingest-key-of-the-benchmark",
    ),
    (
        "FRESHET__ACCESS__READ_KEY",
        "FRESHET_READ_KEY",
        "read-key-of-the-benchmark",
    ),
    (
        "FRESHET__ACCESS__ADMIN_TOKEN",
        "FRESHET_ADMIN_TOKEN",
        "admin-token-of-the-benchmark",
    ),
];
const NUM_ITEMS: u64 = 40;
const NUM_EVENTS: u64 = 600;
const FIRST_EVENT_MILLIS: u64 = 1_767_225_600_000;
/// The server looks once a second for what queries are to be embedded with; the small encoder takes no time.
const ENCODER_MAX: Duration = Duration::from_secs(3);
const FIRST_VERSION_MAX: Duration = Duration::from_secs(60);
/// The same inputs in every run.
const SEED: &str = "1";

/// Builds, starts and asks.
///
/// # Errors
/// Something cannot be built, installed or started, or the server has ended or panicked.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Value> {
    setup::build_programs(workspace)?;
    let python = step("preparing Schemathesis", || SCHEMATHESIS.python(workspace))?;
    let dir = workspace.target_dir().join("bench-api");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let mut server = Server::start(workspace, &dir)?;
    step("filling the catalogue", || server.fill())?;
    let mut runs = Vec::new();
    for (address, url) in [
        ("public", server.public.clone()),
        ("admin", server.admin.clone()),
    ] {
        for with_key in [true, false] {
            let name = format!(
                "{address}-{}",
                if with_key { "admin-token" } else { "no-key" }
            );
            let tester = Tester {
                workspace,
                python: &python,
                dir: &dir,
                name: &name,
            };
            runs.push(step(&name, || tester.run(&url, with_key))?);
        }
    }
    ensure!(!server.process.has_ended()?, "the server has ended");
    let log = fs::read_to_string(&server.log)?;
    let num_panics = log.matches("panicked").count();
    ensure!(
        num_panics == 0,
        "the server panicked {num_panics} times, see {}",
        server.log.display()
    );
    Ok(json!({ "schemathesis": "4.32.5", "seed": SEED, "server_panics": num_panics, "runs": runs }))
}

struct Server {
    process: Background,
    program: PathBuf,
    dir: PathBuf,
    log: PathBuf,
    public: String,
    admin: String,
}

impl Server {
    fn start(workspace: &Workspace, dir: &Path) -> anyhow::Result<Self> {
        let program = workspace.target_dir().join("debug/freshet");
        let (said, log) = (dir.join("said"), dir.join("log"));
        let mut command = Command::new(&program);
        command.args([
            "serve",
            "--bind",
            "127.0.0.1:0",
            "--admin-bind",
            "127.0.0.1:0",
        ]);
        for setting in ["model.text_encoder=small", "train.device=flex"] {
            command.args(["--set", setting]);
        }
        command.arg("--data-dir").arg(dir.join("data"));
        command.envs(KEYS.map(|(variable, _, key)| (variable, key)));
        command
            .stdout(File::create(&said)?)
            .stderr(File::create(&log)?);
        let mut process = Background::start("the server", &mut command)?;
        let started = Instant::now();
        let addresses = loop {
            ensure!(
                !process.has_ended()?,
                "the server ended at once; see {}",
                log.display()
            );
            ensure!(
                started.elapsed() < FIRST_VERSION_MAX,
                "the server says no address"
            );
            let lines = BufReader::new(File::open(&said)?).lines();
            let lines: Vec<String> = lines.collect::<std::io::Result<_>>()?;
            if let [public, admin, ..] = &lines[..] {
                break [public, admin]
                    .map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let [public, admin] = addresses;
        Ok(Self {
            process,
            program,
            dir: dir.to_owned(),
            log,
            public,
            admin,
        })
    }

    /// Puts items and events in, and waits for the first version.
    fn fill(&mut self) -> anyhow::Result<()> {
        let (mut items, mut events) = (String::new(), String::new());
        for item in 1..=NUM_ITEMS {
            writeln!(
                items,
                "{}",
                json!({ "item_id": format!("i-{item}"), "title": format!("Tea pot {item}") })
            )?;
        }
        for event in 0..NUM_EVENTS {
            let item = 1 + event * event % NUM_ITEMS;
            let event = json!({
                "event_id": format!("e-{event}"), "kind": "click", "user_id": format!("u-{}", event % 50),
                "item_id": format!("i-{item}"), "occurred_at": FIRST_EVENT_MILLIS + event * 1000,
            });
            writeln!(events, "{event}")?;
        }
        let (items_path, events_path) =
            (self.dir.join("items.jsonl"), self.dir.join("events.jsonl"));
        fs::write(&items_path, items)?;
        fs::write(&events_path, events)?;
        let mut import = Command::new(&self.program);
        import.args(["import", "--server", &self.public, "--token", KEYS[2].2]);
        run_to_end(
            import
                .arg("--items")
                .arg(items_path)
                .arg("--events")
                .arg(events_path),
        )?;
        let started = Instant::now();
        let is_ready = || {
            let mut health = Command::new(&self.program);
            health.args(["health", "--ready", "--server", &self.public]);
            health.stdout(Stdio::null()).stderr(Stdio::null());
            health.status().is_ok_and(|status| status.success())
        };
        while !is_ready() {
            ensure!(
                started.elapsed() < FIRST_VERSION_MAX,
                "no version is published"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        // Until then searches are answered 503 with `Retry-After`, as documented.
        std::thread::sleep(ENCODER_MAX);
        Ok(())
    }
}

/// One run of Schemathesis.
struct Tester<'a> {
    workspace: &'a Workspace,
    python: &'a Path,
    dir: &'a Path,
    name: &'a str,
}

impl Tester<'_> {
    fn run(&self, url: &str, with_key: bool) -> anyhow::Result<Value> {
        let report = self.dir.join(format!("{}.json", self.name));
        let program = self.python.with_file_name("st");
        let config = fs::read_to_string(self.workspace.path("xtask/bench/api.toml"))?;
        // Without a key nothing is to be shown, so those of the file are left out.
        let config = if with_key {
            config
        } else {
            without_keys(&config)
        };
        let config_path = self.dir.join(format!("{}.toml", self.name));
        fs::write(&config_path, config)?;
        let mut command = Command::new(program);
        command.arg("--config-file").arg(&config_path);
        command.args([
            "run",
            &format!("{url}/openapi.json"),
            "--seed",
            SEED,
            "--no-color",
        ]);
        command
            .args(["--report", "json", "--report-json-path"])
            .arg(&report);
        command.args(["--generation-database", "none"]);
        command.current_dir(self.dir);
        command.env("PYTHONPATH", self.workspace.path("xtask/bench"));
        command.envs(KEYS.map(|(_, variable, key)| (variable, key)));
        let log = File::create(self.dir.join(format!("{}.txt", self.name)))?;
        // It fails where it finds something, which the report tells.
        command
            .stdout(log)
            .status()
            .context("cannot start Schemathesis")?;
        let report = fs::read(&report)
            .with_context(|| format!("Schemathesis wrote no report, see {}", self.dir.display()))?;
        let report: Value = serde_json::from_slice(&report)?;
        Ok(summary(self.name, &report))
    }
}

fn without_keys(config: &str) -> String {
    let Some((before, after)) = config.split_once("[auth.openapi]") else {
        return config.to_owned();
    };
    let after = after.split_once("\n\n").map_or("", |(_, after)| after);
    format!("{before}{after}")
}

/// Counts of one run, and what was found by the operations it was found in.
fn summary(name: &str, report: &Value) -> Value {
    json!({
        "name": name,
        "running_secs": report["running_time"],
        "operations": report["operations"],
        "phases": report["phases"],
        "test_cases": report["test_cases"],
        "failures": report["failures"],
        "errors": report["errors"],
    })
}
