//! The demo: builds what it needs, makes a shop, starts server and visitors, and cleans up at Ctrl-C.
//!
//! Needs a Rust toolchain and a browser. Everything it makes lies in `target/demo`.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::process::{Background, elapsed_text, run_to_end, step};
use crate::setup;
use crate::site;
use crate::wasm::{self, Profile};
use crate::workspace::Workspace;

/// What the demo shows.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A dataset folder with items.tsv and events.tsv in place of the generated shop.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Port of the shop on this machine.
    #[arg(long, default_value_t = 7878)]
    port: u16,
    /// Events per second that simulated visitors send.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Seed of the generated shop and of its visitors.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Builds the WebGPU module too; the page takes it where a graphics adapter is found.
    #[arg(long)]
    webgpu: bool,
    /// Forgets what earlier demos have learned.
    #[arg(long)]
    fresh: bool,
}

/// More of an answer is not read.
const ANSWER_BYTES_MAX: u64 = 1 << 16;

/// The paths of one demo.
struct Layout {
    dataset_dir: PathBuf,
    site_dir: PathBuf,
    data_dir: PathBuf,
    items_json: PathBuf,
}

/// Runs until Ctrl-C, or until the server ends.
///
/// # Errors
/// A build fails, the port is taken, or the server ends by itself.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    let is_taken = TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok();
    ensure!(
        !is_taken,
        "something answers on {address} already; choose another port with --port"
    );

    if let Some(dir) = &options.data {
        let is_dataset = dir.join("items.tsv").is_file() && dir.join("events.tsv").is_file();
        ensure!(
            is_dataset,
            "items.tsv and events.tsv are not both in {}",
            dir.display()
        );
    }

    setup::wasm_target(workspace)?;
    wasm::build_all(workspace, Profile::Wasm, wasm::modules(!options.webgpu))?;
    setup::build_programs(workspace)?;
    let layout = prepare(workspace, options)?;

    let server = Background::start(
        "the server",
        &mut server_command(workspace, &layout, address),
    )?;
    wait_and_serve(workspace, options, &layout, address, server)
}

fn program(workspace: &Workspace, name: &str) -> Command {
    let file_name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let mut command = Command::new(workspace.target_dir().join("debug").join(file_name));
    command.current_dir(workspace.root());
    command
}

/// Data, site and event log; each is made once and kept.
fn prepare(workspace: &Workspace, options: &Options) -> anyhow::Result<Layout> {
    let name = match &options.data {
        Some(dir) => dir
            .file_name()
            .map_or_else(|| "data".into(), |name| name.to_string_lossy().into_owned()),
        None => format!("shop-{}", options.seed),
    };
    let demo_dir = site::demo_dir(workspace, &name);
    let layout = Layout {
        dataset_dir: options
            .data
            .clone()
            .unwrap_or_else(|| demo_dir.join("dataset")),
        site_dir: demo_dir.join("site"),
        data_dir: demo_dir.join("freshet-data"),
        items_json: demo_dir.join("items.json"),
    };
    fs::create_dir_all(&demo_dir).with_context(|| format!("cannot make {}", demo_dir.display()))?;
    if options.fresh && layout.data_dir.exists() {
        fs::remove_dir_all(&layout.data_dir)
            .with_context(|| format!("cannot remove {}", layout.data_dir.display()))?;
    }
    if options.data.is_none() && !layout.dataset_dir.join("events.tsv").is_file() {
        let mut generate = program(workspace, "web-demo");
        generate
            .arg("generate")
            .arg("--out")
            .arg(&layout.dataset_dir)
            .args(["--seed", &options.seed.to_string()]);
        step("making up a shop", || run_to_end(&mut generate))?;
    }
    let mut catalogue = program(workspace, "web-demo");
    catalogue
        .arg("catalogue")
        .arg("--dataset")
        .arg(&layout.dataset_dir)
        .arg("--out")
        .arg(&layout.items_json);
    run_to_end(&mut catalogue)?;
    site::assemble(workspace, &layout.site_dir, &layout.items_json)?;
    import_once(workspace, &layout)?;
    Ok(layout)
}

/// Fills the event log; a mark remembers that it was filled to the end.
fn import_once(workspace: &Workspace, layout: &Layout) -> anyhow::Result<()> {
    let mark = layout.data_dir.join("imported");
    if mark.is_file() {
        return Ok(());
    }
    let mut import = program(workspace, "freshet");
    import
        .arg("import")
        .arg("--items")
        .arg(layout.dataset_dir.join("items.tsv"));
    import
        .arg("--events")
        .arg(layout.dataset_dir.join("events.tsv"))
        .arg("--data-dir")
        .arg(&layout.data_dir);
    step("importing its history", || run_to_end(&mut import))?;
    fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))
}

fn server_command(workspace: &Workspace, layout: &Layout, address: SocketAddr) -> Command {
    let mut serve = program(workspace, "freshet");
    serve
        .arg("serve")
        .arg("--config")
        .arg(workspace.path("web-demo/demo.toml"));
    serve
        .arg("--data-dir")
        .arg(&layout.data_dir)
        .arg("--static-dir")
        .arg(&layout.site_dir);
    serve.args(["--bind", &address.to_string()]);
    serve.args(["--admin-bind", &admin_of(address).to_string()]);
    serve
}

/// Where the dashboard is: the next port.
fn admin_of(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port().saturating_add(1))
}

fn visitors_command(
    workspace: &Workspace,
    options: &Options,
    layout: &Layout,
    address: SocketAddr,
) -> Command {
    let mut visitors = program(workspace, "web-demo");
    visitors
        .arg("visitors")
        .args(["--server", &format!("http://{address}")]);
    visitors.arg("--dataset").arg(&layout.dataset_dir);
    visitors.args([
        "--rate",
        &options.rate.to_string(),
        "--seed",
        &options.seed.to_string(),
    ]);
    visitors
}

/// What to do next, looked at a few times per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Warming,
    Open,
}

fn wait_and_serve(
    workspace: &Workspace,
    options: &Options,
    layout: &Layout,
    address: SocketAddr,
    server: Background,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut running = vec![server];
        let mut phase = Phase::Starting;
        let started_at = Instant::now();
        let mut told_at = Instant::now();
        let mut stop = std::pin::pin!(stop_asked());
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(Duration::from_millis(250)) => {}
            }
            for program in &mut running {
                if program.has_ended()? {
                    bail!("{} ended by itself; its last lines above say why", program.name());
                }
            }
            ensure!(
                !has_stopped_learning(address),
                "the trainer stopped; the line above says why. If the shop was made by an earlier version of \
                 Freshet, `cargo xtask demo --fresh` forgets it and begins anew"
            );
            phase = match phase {
                Phase::Starting if status_of(address, "/healthz") == Some(200) => {
                    eprintln!("✔ the server is up; it learns the history of the shop before its first version");
                    Phase::Warming
                }
                Phase::Warming if status_of(address, "/v1/models/main/manifest") == Some(200) => {
                    let mut visitors = visitors_command(workspace, options, layout, address);
                    running.push(Background::start("the visitors", &mut visitors)?);
                    welcome(address, started_at.elapsed());
                    Phase::Open
                }
                Phase::Starting | Phase::Warming | Phase::Open => phase,
            };
            if phase == Phase::Warming && told_at.elapsed() > Duration::from_secs(10) {
                eprintln!("  still learning the history ({})", elapsed_text(started_at.elapsed()));
                told_at = Instant::now();
            }
        }
        eprintln!("\n▸ closing the shop …");
        // Visitors first, so that the server drains what they sent.
        while let Some(program) = running.pop() {
            drop(program);
        }
        Ok(())
    })
}

fn welcome(address: SocketAddr, elapsed: Duration) {
    eprintln!("✔ the first version is live ({})", elapsed_text(elapsed));
    let admin = admin_of(address);
    println!(
        "\n  The shop is open: http://{address}/\n  Its dashboard: http://{admin}/\n  Ctrl-C closes it.\n"
    );
}

/// Ctrl-C, or the signal of a service manager.
async fn stop_asked() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("cannot listen for Ctrl-C: {error}");
    }
}

/// Whether the server is there but its trainer has given up.
fn has_stopped_learning(address: SocketAddr) -> bool {
    answer_of(address, "/v1/status").is_some_and(|answer| answer.contains("\"phase\":\"stopped\""))
}

/// Status that a GET of `path` answers with; nothing while the server is not there.
fn status_of(address: SocketAddr, path: &str) -> Option<u16> {
    let answer = answer_of(address, path)?;
    answer.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The beginning of the answer to a GET of `path`; nothing while the server is not there.
fn answer_of(address: SocketAddr, path: &str) -> Option<String> {
    let wait = Duration::from_millis(500);
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, wait)?;
        stream.set_read_timeout(Some(wait))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut bytes = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    ask().ok() // not up yet: the caller asks again
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_not_there_has_no_status() {
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert_eq!(status_of(nobody, "/healthz"), None);
    }
}
