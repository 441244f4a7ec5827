//! Headless Chromium with pages that run the built npm package, driven through `chromedriver`.
//!
//! WebGPU runs on a software adapter, which proves that it is right and says nothing about its speed; with
//! `FRESHET_BROWSER_GPU=1` it runs on the graphics card, over Vulkan.
//! The script side is `edge-wasm/npm/test/page.js`.

mod devtools;
mod page;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use fantoccini::wd::TimeoutConfiguration;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, MutexGuard};

use crate::site::Site;
use crate::workspace;
pub use page::{BrowserPage, CachedVersion, PageStatus, for_page};

/// `chromedriver` says on which port it listens within a second.
const DRIVER_PATIENCE: Duration = Duration::from_secs(20);
/// Longest script: opening the WebGPU module on a software adapter.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);

const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];
/// Set to `1`: WebGPU on the graphics card.
const GPU_VARIABLE: &str = "FRESHET_BROWSER_GPU";
/// As root in a container, without talking to anyone, with WebGPU and no throttling of hidden tabs.
const ARGUMENTS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--enable-unsafe-webgpu",
];
/// WebGPU in software.
const SOFTWARE_ARGUMENTS: [&str; 1] = ["--use-webgpu-adapter=swiftshader"];
/// WebGPU on the card, where there is no screen.
const GPU_ARGUMENTS: [&str; 4] = [
    "--ignore-gpu-blocklist",
    "--use-angle=vulkan",
    "--enable-features=Vulkan",
    "--disable-vulkan-surface",
];

/// One browser at a time: several on two cores would only wait for each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// A running browser; ends when dropped.
pub struct Browser {
    client: Client,
    site: Site,
    // Dropped last: driver and profile outlive the client that uses them.
    driver: Child,
    _profile: tempfile::TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Browser {
    /// Starts a browser. `None` where this machine cannot run one and CI does not require it; the reason is printed.
    ///
    /// # Errors
    /// It is required and missing, or does not start.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        Self::started(Some(TURN.lock().await)).await
    }

    /// Two that take one turn together, for a test that mostly waits. The first one has the turn.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub async fn start_two() -> anyhow::Result<Option<[Self; 2]>> {
        let Some(first) = Self::start().await? else {
            return Ok(None);
        };
        let second = Self::started(None).await?;
        Ok(second.map(|second| [first, second]))
    }

    async fn started(turn: Option<MutexGuard<'static, ()>>) -> anyhow::Result<Option<Self>> {
        let program = BROWSERS
            .iter()
            .find_map(|name| workspace::find_program(name));
        let driver = workspace::find_program("chromedriver");
        let (Some(program), Some(driver)) = (program, driver) else {
            workspace::skip("Chromium and chromedriver are not both on PATH")?;
            return Ok(None);
        };
        if let Some(missing) = missing_module() {
            workspace::skip(&format!(
                "{} is not built; `cargo xtask wasm` builds it",
                missing.display()
            ))?;
            return Ok(None);
        }
        let profile = tempfile::Builder::new()
            .prefix("freshet-chromium-")
            .tempdir()?;
        let (driver, port) = start_driver(&driver).await?;
        let client = connect(&program, profile.path(), port).await?;
        let site = Site::start().await?;
        Ok(Some(Self {
            client,
            site,
            driver,
            _profile: profile,
            _turn: turn,
        }))
    }

    /// Opens a page in a new tab and waits until it has connected, or has said why it cannot.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn open(&self, server: &str, query: &[(&str, &str)]) -> anyhow::Result<BrowserPage> {
        self.open_url(&self.site.page_url(server, query)).await
    }

    /// Opens a page that ranks on its CPU, and waits until it does.
    ///
    /// # Errors
    /// The driver refuses, or the page says why it cannot connect.
    pub async fn open_on_cpu(&self, server: &str) -> anyhow::Result<BrowserPage> {
        let page = self.open(server, &[("backend", "cpu")]).await?;
        page.is_connected().await?;
        Ok(page)
    }

    /// Opens the page of any address in a new tab.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn open_url(&self, url: &str) -> anyhow::Result<BrowserPage> {
        let window = self.client.new_window(true).await?.handle;
        let page = BrowserPage::new(self.client.clone(), window);
        page.load(url).await?;
        Ok(page)
    }

    /// Where it serves the package from.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Opens a page of the package's origin that runs nothing of its own.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn open_blank(&self) -> anyhow::Result<BrowserPage> {
        self.open_url(&self.site.url("package.json")).await
    }

    /// Closes the browser in order, which writes nothing over a half-removed profile.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.client.clone().close().await?;
        self.driver.kill().await?;
        Ok(())
    }
}

/// A module of the package that is not built.
fn missing_module() -> Option<PathBuf> {
    let dist = workspace::root().join("edge-wasm/npm/dist");
    let modules = ["freshet_cpu_bg.wasm", "freshet_webgpu_bg.wasm"].map(|name| dist.join(name));
    modules.into_iter().find(|path| !path.is_file())
}

async fn start_driver(program: &Path) -> anyhow::Result<(Child, u16)> {
    let mut command = Command::new(program);
    command
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut driver = command.spawn().context("chromedriver cannot be started")?;
    let stdout = driver
        .stdout
        .take()
        .context("the pipe was asked for above")?;
    let mut lines = BufReader::new(stdout).lines();
    let port = tokio::time::timeout(DRIVER_PATIENCE, port_of(&mut lines)).await;
    let port = port.context("chromedriver did not say on which port it listens")??;
    // Read on, so that the driver never writes into a closed pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((driver, port))
}

/// Reads `ChromeDriver was started successfully on port 40393.`
async fn port_of(lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>) -> anyhow::Result<u16> {
    while let Some(line) = lines.next_line().await? {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return Ok(port.trim_end_matches('.').parse()?);
        }
    }
    bail!("chromedriver ended before it listened")
}

async fn connect(program: &Path, profile: &Path, port: u16) -> anyhow::Result<Client> {
    let has_gpu = std::env::var_os(GPU_VARIABLE).is_some_and(|value| value == "1");
    let adapter: &[&str] = if has_gpu {
        &GPU_ARGUMENTS
    } else {
        &SOFTWARE_ARGUMENTS
    };
    let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).to_vec();
    arguments.extend(adapter.iter().map(|argument| (*argument).to_owned()));
    arguments.push(format!("--user-data-dir={}", profile.display()));
    let options = json!({ "binary": program, "args": arguments });
    let mut capabilities = serde_json::Map::new();
    capabilities.insert(
        "goog:loggingPrefs".to_owned(),
        json!({ "browser": "SEVERE" }),
    );
    capabilities.insert("browserName".to_owned(), json!("chrome"));
    capabilities.insert("goog:chromeOptions".to_owned(), options);
    let mut builder = ClientBuilder::new(HttpConnector::new());
    builder.capabilities(capabilities);
    let client = builder
        .connect(&format!("http://127.0.0.1:{port}"))
        .await
        .context("Chromium does not start")?;
    client
        .update_timeouts(TimeoutConfiguration::new(Some(SCRIPT_TIMEOUT), None, None))
        .await?;
    Ok(client)
}
