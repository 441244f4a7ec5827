//! Pages of other people: `edge-wasm/fixtures`, each installed from the packed package, built by its own bundler, served.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::site::Site;
use crate::{wait, workspace};

/// Vite and Next ask for it.
const NODE_MAJOR_MIN: u32 = 20;
const INSTALL_PATIENCE: Duration = Duration::from_secs(240);
const BUILD_PATIENCE: Duration = Duration::from_secs(240);
const START_PATIENCE: Duration = Duration::from_secs(60);
const TARBALL: &str = "package.tgz";
/// As strict as a page of Freshet may be.
const PAGE_POLICY: &str =
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src *";

/// The packed package; one for all fixtures of a test run.
static PACKED: OnceCell<PathBuf> = OnceCell::const_new();

/// A fixture with the package installed.
#[derive(Debug)]
pub struct Fixture {
    dir: PathBuf,
}

/// A served page; ends when dropped.
#[derive(Debug)]
pub struct Served {
    address: SocketAddr,
    _site: Option<Site>,
    _server: Option<Child>,
}

impl Fixture {
    /// Installs a fixture beside the build outputs, where a later run finds it again. `None`, with the reason printed,
    /// where this machine cannot.
    ///
    /// # Errors
    /// Something else fails than what this machine lacks.
    pub async fn install(name: &str) -> anyhow::Result<Option<Self>> {
        if let Some(reason) = lacks().await {
            eprintln!("skipped: {reason}");
            return Ok(None);
        }
        let tarball = PACKED.get_or_try_init(pack).await?;
        let source = workspace::root().join("edge-wasm/fixtures").join(name);
        let dir = fixtures_dir().join(name);
        let lock = std::fs::read(source.join("package-lock.json"))?;
        let installed = dir.join(".installed-lock.json");
        let is_installed = std::fs::read(&installed).is_ok_and(|before| before == lock);
        copy_dir(&source, &dir)?;
        std::fs::copy(tarball, dir.join(TARBALL))?;
        if !is_installed {
            npm(&dir, &["ci"], INSTALL_PATIENCE).await?;
        }
        let tarball = format!("./{TARBALL}");
        // Saved, as people do: plugins of bundlers look at what the page depends on.
        let ask = ["install", "--no-package-lock", &tarball];
        npm(&dir, &ask, INSTALL_PATIENCE).await?;
        std::fs::write(&installed, &lock)?;
        Ok(Some(Self { dir }))
    }

    /// Runs its build.
    ///
    /// # Errors
    /// It fails; the error holds what it said.
    pub async fn build(&self) -> anyhow::Result<()> {
        npm(&self.dir, &["run", "build"], BUILD_PATIENCE).await
    }

    /// Serves `folder` as plain files, after adding `page` where there is no `index.html`.
    ///
    /// # Errors
    /// No port is free, or the folder cannot be written.
    pub async fn serve_files(&self, folder: &str, page: &str) -> anyhow::Result<Served> {
        let folder = self.dir.join(folder);
        let index = folder.join("index.html");
        if !index.is_file() {
            std::fs::write(&index, page)?;
        }
        let site = Site::of(&folder, Some(PAGE_POLICY)).await?;
        Ok(Served {
            address: site.address(),
            _site: Some(site),
            _server: None,
        })
    }

    /// Serves by a server of its own: a script run by node, with `PORT` among its arguments replaced.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn serve_by(&self, script: &str, arguments: &[&str]) -> anyhow::Result<Served> {
        let address = StdListener::bind("127.0.0.1:0")?.local_addr()?; // free a moment ago
        let port = address.port().to_string();
        let mut command = program("node", &self.dir)?;
        command.arg(script);
        for argument in arguments {
            command.arg(if *argument == "PORT" {
                port.as_str()
            } else {
                *argument
            });
        }
        let server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{script} cannot be started"))?;
        let served = Served {
            address,
            _site: None,
            _server: Some(server),
        };
        wait::until("the fixture's server answers", START_PATIENCE, async || {
            Ok(reqwest::get(served.url("")).await.ok().map(|_| ()))
        })
        .await?;
        Ok(served)
    }
}

impl Served {
    /// Address of the page, with a query.
    #[must_use]
    pub fn url(&self, query: &str) -> String {
        format!("http://{}/{query}", self.address)
    }
}

/// What this machine would need and has not.
async fn lacks() -> Option<String> {
    if ["node", "npm"]
        .iter()
        .any(|name| workspace::find_program(name).is_none())
    {
        return Some("node and npm are not both on PATH".to_owned());
    }
    let version = Command::new("node").arg("--version").output().await.ok()?;
    let text = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let major = text.trim_start_matches('v').split('.').next()?.parse();
    if major.is_ok_and(|major: u32| major < NODE_MAJOR_MIN) {
        return Some(format!(
            "node is {text}, the bundlers want {NODE_MAJOR_MIN}"
        ));
    }
    let ping = Command::new("npm").args(["ping"]).output().await;
    let is_reached = ping.is_ok_and(|ping| ping.status.success());
    (!is_reached).then(|| "the npm registry does not answer".to_owned())
}

/// Packs the package as it is built now.
async fn pack() -> anyhow::Result<PathBuf> {
    let dir = fixtures_dir();
    std::fs::create_dir_all(&dir)?;
    let ask = [
        "pack",
        "--json",
        "--pack-destination",
        dir.to_str().context("a path in UTF-8")?,
    ];
    let mut command = program("npm", &workspace::root().join("edge-wasm/npm"))?;
    let packed = command.args(ask).output().await?;
    let text = String::from_utf8_lossy(&packed.stdout);
    let answer: serde_json::Value = serde_json::from_str(&text).with_context(|| {
        format!(
            "npm pack: {text} {}",
            String::from_utf8_lossy(&packed.stderr)
        )
    })?;
    let name = &answer[0]["filename"];
    Ok(dir.join(name.as_str().context("npm pack names the file")?))
}

async fn npm(dir: &Path, arguments: &[&str], patience: Duration) -> anyhow::Result<()> {
    let mut command = program("npm", dir)?;
    let running = command.args(arguments).kill_on_drop(true).output();
    let ended = tokio::time::timeout(patience, running).await;
    let ended =
        ended.with_context(|| format!("npm {arguments:?} takes longer than {patience:?}"))??;
    if !ended.status.success() {
        let (out, err) = (&ended.stdout, &ended.stderr);
        let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
        bail!(
            "npm {arguments:?} in {} failed:\n{out}\n{err}",
            dir.display()
        );
    }
    Ok(())
}

fn program(name: &str, dir: &Path) -> anyhow::Result<Command> {
    let path = workspace::find_program(name).with_context(|| format!("{name} is not on PATH"))?;
    let mut command = Command::new(path);
    command.current_dir(dir).env("NEXT_TELEMETRY_DISABLED", "1");
    Ok(command)
}

fn fixtures_dir() -> PathBuf {
    workspace::target_dir().join("fixtures")
}

fn copy_dir(source: &Path, target: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(target)?;
    for entry in std::fs::read_dir(source)? {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        if from.is_dir() {
            copy_dir(&from, &to)?;
        } else {
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
