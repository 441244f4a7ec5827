//! Leave-one-out beside RecBole's SASRec, on every stream that `FRESHET_DATA` holds.
//!
//! The example `leave_one_out` writes the events in our order; `xtask/bench/leave_one_out_recbole.py`, in an
//! environment of its own under `target`, trains and ranks; `freshet evaluate --protocol leave-one-out` does the
//! same here. Both rank the last event of every user who had an event before and had not had the item, among all
//! items new to the user. RecBole sets the last but one aside to choose its epoch, Freshet learns it.
//! Not here: what either side computes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::inputs::{Environment, Stream, streams};
use crate::process::{cargo, run_to_end, step};
use crate::workspace::Workspace;

/// Later numpy and pandas have dropped what RecBole 1.2 calls.
const RECBOLE: Environment = Environment {
    name: "bench-recbole",
    packages: &["torch==2.15.0", "recbole==1.2.1", "numpy<2", "pandas<2.3"],
    check: "import torch, recbole; assert recbole.__version__ == '1.2.1'",
};
const NUM_SEEDS: u64 = 3;
/// Seconds for which RecBole may train, per stream and seed, where `FRESHET_RECBOLE_SECS` says nothing else.
/// Early stopping comes sooner on a machine with many cores.
const TRAIN_SECS: u64 = 3600;
/// Seed of the order of events of the same second, on both sides.
const TIE_SEED: u64 = 1;

/// Both sides on all streams.
///
/// # Errors
/// No stream is there, or a side cannot be built, installed or run.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Value> {
    let train_secs = match std::env::var("FRESHET_RECBOLE_SECS") {
        Ok(text) => text
            .parse()
            .with_context(|| format!("FRESHET_RECBOLE_SECS is {text:?}, expected whole seconds"))?,
        Err(_) => TRAIN_SECS,
    };
    let streams = streams()?;
    ensure!(
        !streams.is_empty(),
        "FRESHET_DATA holds no folder with events.tsv"
    );
    let python = step("preparing RecBole", || RECBOLE.python(workspace))?;
    step("building", || {
        run_to_end(
            cargo()
                .args([
                    "build",
                    "--workspace",
                    "--bins",
                    "--example",
                    "leave_one_out",
                ])
                .current_dir(workspace.root()),
        )
    })?;
    let mut numbers = serde_json::Map::new();
    for stream in streams {
        let work_dir = workspace.target_dir().join("bench-leave-one-out");
        let runs = Runs {
            workspace,
            stream: &stream,
            work_dir,
        };
        let ours = step(&format!("{}, Freshet", stream.name), || runs.ours())?;
        let mut theirs = Vec::new();
        for seed in 1..=NUM_SEEDS {
            let title = format!("{}, RecBole, seed {seed}", stream.name);
            theirs.push(step(&title, || runs.theirs(&python, seed, train_secs))?);
        }
        numbers.insert(
            stream.name.clone(),
            json!({ "freshet": ours, "recbole_sasrec": theirs }),
        );
    }
    numbers.insert("recbole_seconds_at_most".to_owned(), json!(train_secs));
    Ok(Value::Object(numbers))
}

struct Runs<'a> {
    workspace: &'a Workspace,
    stream: &'a Stream,
    work_dir: PathBuf,
}

impl Runs<'_> {
    /// Figures of each seed's model.
    fn ours(&self) -> anyhow::Result<Vec<Value>> {
        std::fs::create_dir_all(&self.work_dir)
            .with_context(|| format!("cannot make {}", self.work_dir.display()))?;
        let mut figures = Vec::new();
        for seed in 1..=NUM_SEEDS {
            let json_path = self
                .work_dir
                .join(format!("{}-{seed}.json", self.stream.name));
            run_to_end(
                Command::new(self.workspace.target_dir().join("debug/freshet"))
                    .args(["evaluate", "--protocol", "leave-one-out", "--dataset"])
                    .arg(&self.stream.dir)
                    .args(["--seed", &TIE_SEED.to_string(), "--json"])
                    .arg(&json_path)
                    .env("FRESHET__TRAIN__SEED", seed.to_string()),
            )?;
            let text = std::fs::read_to_string(&json_path)
                .with_context(|| format!("cannot read {}", json_path.display()))?;
            let document: Value = serde_json::from_str(&text)?;
            let systems = document["systems"].as_object().context("systems")?;
            let known_users = systems
                .iter()
                .map(|(name, system)| (name.clone(), system["slices"]["known_user"].clone()));
            let known_users: serde_json::Map<String, Value> = known_users.collect();
            figures.push(json!({ "seed": seed, "known_user": known_users }));
        }
        Ok(figures)
    }

    fn theirs(&self, python: &Path, seed: u64, train_secs: u64) -> anyhow::Result<Value> {
        let stream_dir = self.work_dir.join(&self.stream.name);
        std::fs::create_dir_all(&stream_dir)
            .with_context(|| format!("cannot make {}", stream_dir.display()))?;
        let inter_path = stream_dir.join(format!("{}.inter", self.stream.name));
        run_to_end(
            Command::new(
                self.workspace
                    .target_dir()
                    .join("debug/examples/leave_one_out"),
            )
            .arg(&self.stream.dir)
            .arg(TIE_SEED.to_string())
            .arg(&inter_path),
        )?;
        let num_threads = std::thread::available_parallelism()?.get().to_string();
        let output = Command::new(python)
            .arg(self.workspace.path("xtask/bench/leave_one_out_recbole.py"))
            .args([&inter_path, &self.work_dir])
            .args([&seed.to_string(), &train_secs.to_string(), &num_threads])
            .current_dir(&self.work_dir) // RecBole writes its logs where it stands
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start RecBole")?;
        ensure!(
            output.status.success(),
            "RecBole ended with {}",
            output.status
        );
        let text = String::from_utf8(output.stdout)?;
        let line = text.lines().last().context("RecBole answered nothing")?;
        serde_json::from_str(line).with_context(|| format!("no figures: {line:?}"))
    }
}
