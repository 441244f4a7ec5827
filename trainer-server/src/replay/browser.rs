//! Chromium pages in the steady phase: the built npm package in a real browser, driven by WebDriver.
//!
//! The server of the replay serves the package at `/`; the page imports it, follows the server and,
//! after every new version, ranks the probe. Both clocks are of one machine, so the moment at which a
//! page saw an effect can be compared with the moment of the acknowledgement.
//!
//! WebDriver is four JSON requests here, sent with the HTTP client that is there anyway.
//! Needs `chromedriver` and Chromium on the path.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared_model::edge::engine::K_MAX;
use shared_model::event::HistoryEvent;
use shared_model::ids::{ItemId, LogOffset};

use super::effect::PEER_SHARE_MAX;
use crate::page_client::ServerAddress;

const START_SECS_MAX: u64 = 20;
const SCRIPT_SECS_MAX: u64 = 60;
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);
/// As the readme of the package says for headless Chromium in containers.
const CHROMIUM_ARGUMENTS: [&str; 8] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];

/// Connects, and keeps what is being waited for in `window.probe`: the control of
/// [`Before`](super::effect::Before), in the page.
const CONNECT_SCRIPT: &str = r"
const [url, model, k, peerShareMax, done] = arguments;
(async () => {
  const { Freshet } = await import('/index.js');
  const freshet = await Freshet.connect({ url, model, cache: false, consent: 'denied', backend: 'cpu' });
  window.positionsOf = async ({ history, nowMillis, armedAt }) => {
    const now = nowMillis + (Date.now() - armedAt);
    const { items } = await freshet.rank({ history, k, excludeSeen: true, nowMillis: now });
    return new Map(items.map((item, index) => [item.itemId, index + 1]));
  };
  window.look = async () => {
    const probe = window.probe;
    const { learnedThrough } = freshet.status();
    if (!probe || probe.seenAt || !(learnedThrough > probe.firstPlanted)) return;
    const positions = await window.positionsOf(probe);
    const rise = probe.position - (positions.get(probe.itemId) ?? positions.size + 1);
    if (rise <= 0) return;
    const asFar = probe.farDown.filter(([itemId, before]) =>
      itemId !== probe.itemId && before - (positions.get(itemId) ?? Infinity) >= rise);
    if (asFar.length <= peerShareMax * probe.farDown.length) probe.seenAt = Date.now();
  };
  freshet.on('update', window.look);
  return { version: freshet.status().version, bytesReceived: freshet.status().bytesReceived };
})().then((value) => done({ value }), (error) => done({ error: String(error) }));
";

const ARM_SCRIPT: &str = r"
const [probe, farDown, done] = arguments;
(async () => {
  probe.armedAt = Date.now();
  const positions = await window.positionsOf(probe);
  probe.position = positions.get(probe.itemId) ?? positions.size + 1;
  probe.farDown = [...positions].slice(Math.min(farDown, Math.floor(positions.size / 2)));
  window.probe = probe;
  return probe.position;
})().then((value) => done({ value }), (error) => done({ error: String(error) }));
";

/// What the planted events are is known once they are acknowledged; a version may have come before.
const ACKED_SCRIPT: &str = r"
const [firstPlanted, done] = arguments;
window.probe.firstPlanted = firstPlanted;
window.look().then((value) => done({ value: null }), (error) => done({ error: String(error) }));
";

const SEEN_SCRIPT: &str = r"
const done = arguments[arguments.length - 1];
done({ value: (window.probe && window.probe.seenAt) || null });
";

/// Why a browser page does not work.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// `chromedriver` cannot be started.
    #[error("chromedriver cannot be started")]
    Start(#[from] std::io::Error),
    /// It does not answer.
    #[error(transparent)]
    Transport(#[from] reqwest::Error),
    /// It refuses a command.
    #[error("chromedriver refused {command}: {message}")]
    Refused {
        /// Which command.
        command: &'static str,
        /// Its words.
        message: String,
    },
    /// The script in the page failed.
    #[error("the page failed: {0}")]
    Page(String),
}

/// One Chromium with one page.
#[derive(Debug)]
pub struct BrowserPage {
    driver: Child,
    http: reqwest::Client,
    session_url: String,
}

impl BrowserPage {
    /// Starts a browser and waits until its page ranks.
    ///
    /// # Errors
    /// See [`BrowserError`].
    pub async fn open(address: &ServerAddress) -> Result<Self, BrowserError> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        // Owns the process from here on, so that it ends on every way out.
        let mut page = Self {
            driver,
            http,
            session_url: format!("http://127.0.0.1:{port}/session"),
        };
        let session = page.new_session().await?;
        page.session_url = format!("{}/{session}", page.session_url);
        let timeouts = json!({ "script": SCRIPT_SECS_MAX * 1000 });
        page.command("timeouts", "timeouts", &timeouts).await?;
        page.command("url", "url", &json!({ "url": address.path("/healthz") }))
            .await?;
        page.run(
            CONNECT_SCRIPT,
            &json!([address.url, address.model, K_MAX, PEER_SHARE_MAX]),
        )
        .await?;
        Ok(page)
    }

    /// Sets what to wait for; returns the position of the item now. Items beyond the first
    /// `far_down`, or the second half of a shorter list, are its control.
    ///
    /// # Errors
    /// The page failed.
    pub async fn arm(
        &self,
        history: &[HistoryEvent],
        item_id: &ItemId,
        far_down: usize,
        now_millis: i64,
    ) -> Result<Option<u64>, BrowserError> {
        let history: Vec<Value> = history
            .iter()
            .map(|event| json!({ "itemId": event.item_id, "kind": event.kind, "occurredAt": event.occurred_at }))
            .collect();
        let probe = json!({ "history": history, "itemId": item_id, "nowMillis": now_millis });
        Ok(self
            .run(ARM_SCRIPT, &json!([probe, far_down]))
            .await?
            .as_u64())
    }

    /// Tells where the planted events lie in the log: only a version that learned one of them can show their effect.
    ///
    /// # Errors
    /// The page failed.
    pub async fn acked(&self, first_planted: LogOffset) -> Result<(), BrowserError> {
        self.run(ACKED_SCRIPT, &json!([first_planted])).await?;
        Ok(())
    }

    /// When the item was first seen risen further than its control, milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// The page failed.
    pub async fn seen_at_millis(&self) -> Result<Option<i64>, BrowserError> {
        Ok(self.run(SEEN_SCRIPT, &json!([])).await?.as_i64())
    }

    /// Asks again and again, since the driver needs a moment to listen.
    async fn new_session(&self) -> Result<String, BrowserError> {
        let options = json!({ "args": CHROMIUM_ARGUMENTS });
        let capabilities = json!({ "browserName": "chrome", "goog:chromeOptions": options });
        let body = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let deadline = Instant::now() + Duration::from_secs(START_SECS_MAX);
        loop {
            match self.post("new session", &self.session_url, &body).await {
                Ok(value) => {
                    let session = value["sessionId"].as_str().map(str::to_owned);
                    let message = "it gave no session id".to_owned();
                    return session.ok_or(BrowserError::Refused {
                        command: "new session",
                        message,
                    });
                }
                Err(BrowserError::Transport(error))
                    if error.is_connect() && Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn run(&self, script: &str, arguments: &Value) -> Result<Value, BrowserError> {
        let body = json!({ "script": script, "args": arguments });
        let outcome = self.command("a script", "execute/async", &body).await?;
        match outcome.get("error").and_then(Value::as_str) {
            Some(error) => Err(BrowserError::Page(error.to_owned())),
            None => Ok(outcome["value"].clone()),
        }
    }

    async fn command(
        &self,
        name: &'static str,
        path: &str,
        body: &Value,
    ) -> Result<Value, BrowserError> {
        self.post(name, &format!("{}/{path}", self.session_url), body)
            .await
    }

    async fn post(
        &self,
        command: &'static str,
        url: &str,
        body: &Value,
    ) -> Result<Value, BrowserError> {
        let response = self.http.post(url).json(body).send().await?;
        let is_success = response.status().is_success();
        let value = response.json::<Value>().await?["value"].take();
        if is_success {
            return Ok(value);
        }
        let message = value["message"]
            .as_str()
            .unwrap_or("no reason given")
            .chars()
            .take(500)
            .collect();
        Err(BrowserError::Refused { command, message })
    }

    /// Asks the driver to close the browser, which it does not do when it is killed.
    fn quit(&self) -> std::io::Result<()> {
        let Some((host, path)) = self
            .session_url
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'))
        else {
            return Ok(());
        };
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(QUIT_TIMEOUT))?;
        let request =
            format!("DELETE /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = [0; 64];
        stream.read(&mut answer).map(|_| ())
    }
}

impl Drop for BrowserPage {
    fn drop(&mut self) {
        // All three fail only if the process is gone already, which is what is wanted.
        drop(self.quit());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
