//! How honest traffic fares while 10,000 connections are silent or slow, and what memory they take.
//!
//! A real server process on loopback; the slow ones come from 40 addresses, so that the cap of each client hides nothing.
//! The honest ones send at a steady pace and are measured from when a request was due, on a thread of their own.

mod attack;
mod honest;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use self::attack::Attack;
use crate::setup;
use crate::workspace::Workspace;

const NUM_CONNECTIONS: usize = 10_000;
/// File handles of this process for the connections and everything else.
const FILE_HANDLES: u64 = 12_000;
/// How long each of before, during and after is measured.
const MEASURED: Duration = Duration::from_secs(30);
/// Honest traffic before anything is measured.
const WARM_UP: Duration = Duration::from_secs(10);
/// How long the connections may take to be open.
const OPENING_MAX: Duration = Duration::from_secs(60);
const MEMORY_PERIOD: Duration = Duration::from_millis(250);

/// Builds the server and measures.
///
/// # Errors
/// It cannot be built or started, or does not answer.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Value> {
    setup::build_programs(workspace)?;
    let allowed = rlimit::increase_nofile_limit(FILE_HANDLES)?;
    ensure!(
        allowed >= FILE_HANDLES,
        "this needs {FILE_HANDLES} file handles, the system allows {allowed} (ulimit -n)"
    );
    let dir = workspace.target_dir().join("bench-slow");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure_with(
        &workspace.target_dir().join("debug/freshet"),
        &dir,
    ))
}

async fn measure_with(program: &Path, dir: &Path) -> anyhow::Result<Value> {
    let (server, address) = start(program, dir).await?;
    let pid = server.id().context("the server has ended")?;
    let memory = || resident_bytes(pid);
    honest::put_items(&address).await?;
    honest::wait_for_version(&address).await?;
    honest::run(&address, WARM_UP).await?;
    let before = honest::run(&address, MEASURED).await?;
    let idle_bytes = memory()?;

    let attack = Attack::start(&address, NUM_CONNECTIONS);
    let opened = Instant::now();
    while attack.num_open() < NUM_CONNECTIONS * 99 / 100 {
        ensure!(
            opened.elapsed() < OPENING_MAX,
            "only {} connections are open",
            attack.num_open()
        );
        sleep(MEMORY_PERIOD).await;
    }
    let opening_secs = opened.elapsed().as_secs_f64();
    let (mut peak_bytes, mut open_min) = (memory()?, NUM_CONNECTIONS);
    let during = {
        let mut honest = std::pin::pin!(honest::run(&address, MEASURED));
        loop {
            tokio::select! {
                measured = &mut honest => break measured?,
                () = sleep(MEMORY_PERIOD) => {
                    peak_bytes = peak_bytes.max(memory()?);
                    open_min = open_min.min(attack.num_open());
                }
            }
        }
    };
    let num_opened = attack.num_opened();
    drop(attack);
    let after = honest::run(&address, MEASURED).await?;
    let beside = before.p99_millis.min(after.p99_millis);
    Ok(json!({
        "connections": NUM_CONNECTIONS,
        "connections_open_min": open_min,
        "connections_opened": num_opened,
        "opening_secs": opening_secs,
        "before": before.to_json(),
        "during": during.to_json(),
        "after": after.to_json(),
        "p99_ratio": during.p99_millis / beside,
        "memory_bytes": { "idle": idle_bytes, "peak": peak_bytes, "above_idle": peak_bytes.saturating_sub(idle_bytes) },
    }))
}

/// A server with the settings that it has by default, but for the port and a text encoder that needs no files.
async fn start(program: &Path, dir: &Path) -> anyhow::Result<(Child, String)> {
    let mut command = Command::new(program);
    command.args(["serve", "--bind", "127.0.0.1:0"]);
    for setting in [
        "server.admin_bind=",
        "model.text_encoder=small",
        "train.device=flex",
    ] {
        command.args(["--set", setting]);
    }
    command.arg("--data-dir").arg(dir);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut server = command.spawn().context("cannot start the server")?;
    let stdout = server
        .stdout
        .take()
        .context("the pipe was asked for above")?;
    let line = BufReader::new(stdout).lines().next_line().await?;
    let line = line.context("the server ended at once")?;
    let address = line.strip_prefix("freshet listens on http://");
    let address = address.with_context(|| format!("the server said {line}"))?;
    Ok((server, address.to_owned()))
}

fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(1024 * kilobytes.context("the system does not tell the memory of a process")?)
}
