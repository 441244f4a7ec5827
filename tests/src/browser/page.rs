//! One tab with the test page of the npm package.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fantoccini::Client;
use fantoccini::wd::WindowHandle;
use serde::Deserialize;
use serde_json::{Value, json};
use shared_model::codec::snapshot::decode_snapshot;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::{RankedItem, Ranking};
use shared_model::event::HistoryEvent;
use shared_model::ids::{ItemId, LogOffset, Version};

use super::devtools::Extra;
use crate::wait;

/// Time for something to reach a page, a reconnect with its longest pause included.
const PATIENCE: Duration = Duration::from_secs(60);

/// Calls a function of `window.freshetTest`.
const CALL_SCRIPT: &str = r"
const [name, args, done] = arguments;
const outcome = (async () => window.freshetTest[name](...args))();
outcome.then((value) => done({ value: value ?? null }), (error) => done({ error: String(error) }));
";

/// Calls a function of `window.freshetTest`, and leaves the page in the same turn.
const LEAVE_SCRIPT: &str = r"
const [name, args] = arguments;
window.freshetTest[name](...args);
location.href = 'about:blank';
";

/// A renderer that dies says nothing; by then it has.
const CRASH_PATIENCE: Duration = Duration::from_secs(1);

/// Waits for the first connection of the page.
const READY_SCRIPT: &str = r"
const [done] = arguments;
const look = () => (window.freshetReady ? window.freshetReady.then((value) => done({ value })) : setTimeout(look, 10));
look();
";

/// Lets the page believe that its tab is hidden, upon which it writes its version to the cache.
const HIDE_SCRIPT: &str = r"
Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
document.dispatchEvent(new Event('visibilitychange'));
";

/// Reads the cached version out of IndexedDB.
const CACHED_SCRIPT: &str = r"
const [done] = arguments;
const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
const read = async () => {
  if (!(await indexedDB.databases()).some(({ name }) => name === 'freshet')) return null;
  const settled = (request) =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  const database = await settled(indexedDB.open('freshet'));
  const kept = await settled(database.transaction('versions').objectStore('versions').getAll());
  const cached = kept.find(({ snapshot }) => snapshot); // the rules of operators are kept beside it
  database.close();
  return cached ? { version: cached.version, snapshot: base64(cached.snapshot) } : null;
};
read().then((value) => done({ value }), (error) => done({ error: String(error) }));
";

/// What the page says about itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageStatus {
    /// Live version; `None` before the first.
    pub version: Option<Version>,
    /// `cpu` or `webgpu`.
    pub backend: Option<String>,
    /// Why this backend.
    pub backend_reason: String,
    /// Whether its stream is open.
    pub is_online: bool,
    /// What it has learned.
    pub learned_through: Option<LogOffset>,
    /// Hash of its codes, in hexadecimal.
    pub state_hash: Option<String>,
}

/// What a page keeps over a reload.
#[derive(Debug)]
pub struct CachedVersion {
    /// Its number.
    pub version: Version,
    /// Its codes, decoded here.
    pub state: CodeState,
}

/// One tab.
#[derive(Debug, Clone)]
pub struct BrowserPage {
    client: Client,
    window: WindowHandle,
}

/// Events of a history as a page takes them.
#[must_use]
pub fn for_page(history: &[HistoryEvent]) -> Value {
    let event = |event: &HistoryEvent| json!({ "itemId": event.item_id, "kind": event.kind, "occurredAt": event.occurred_at });
    history.iter().map(event).collect()
}

impl BrowserPage {
    pub(super) fn new(client: Client, window: WindowHandle) -> Self {
        Self { client, window }
    }

    /// Goes to another address in the same tab.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn load(&self, url: &str) -> anyhow::Result<()> {
        self.client.switch_to_window(self.window.clone()).await?;
        self.client.goto(url).await?;
        Ok(())
    }

    /// Calls a method of the DevTools protocol for this tab.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn devtools(&self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        self.client.switch_to_window(self.window.clone()).await?;
        let called = self.client.issue_cmd(Extra::devtools(method, parameters));
        called.await.with_context(|| method.to_owned())
    }

    /// Uncaught exceptions that came to the console of this tab or its workers since this was asked last.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn uncaught_in_console(&self) -> anyhow::Result<Vec<String>> {
        self.client.switch_to_window(self.window.clone()).await?;
        let entries: Vec<Value> =
            serde_json::from_value(self.client.issue_cmd(Extra::console()).await?)?;
        let texts = entries.iter().filter_map(|entry| entry["message"].as_str());
        let uncaught = texts.filter(|text| text.contains("Uncaught"));
        Ok(uncaught.map(str::to_owned).collect())
    }

    /// Loads the page again.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn reload(&self) -> anyhow::Result<()> {
        self.client.switch_to_window(self.window.clone()).await?;
        self.client.refresh().await?;
        Ok(())
    }

    /// Waits until the page has connected.
    ///
    /// # Errors
    /// It could not; the error holds its code.
    pub async fn is_connected(&self) -> anyhow::Result<()> {
        let outcome = self.first_outcome().await?;
        ensure!(outcome["ok"] == true, "the page did not connect: {outcome}");
        Ok(())
    }

    /// What became of the page's first try to connect: `{ok, …}`.
    ///
    /// # Errors
    /// The script fails.
    pub async fn first_outcome(&self) -> anyhow::Result<Value> {
        self.run(READY_SCRIPT, Vec::new()).await
    }

    /// Calls a function of the test page.
    ///
    /// # Errors
    /// It throws.
    pub async fn call(&self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        self.run(CALL_SCRIPT, vec![json!(name), arguments])
            .await
            .with_context(|| format!("calling {name}"))
    }

    /// The same, for a function that is to succeed.
    ///
    /// # Errors
    /// It does not.
    pub async fn called(&self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        let outcome = self.call(name, arguments).await?;
        ensure!(outcome["ok"] == true, "{name}: {outcome}");
        Ok(outcome)
    }

    /// Calls a function of the test page and navigates away before it can do anything else.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn call_and_leave(&self, name: &str, arguments: Value) -> anyhow::Result<()> {
        self.client.switch_to_window(self.window.clone()).await?;
        let arguments = vec![json!(name), arguments];
        self.client.execute(LEAVE_SCRIPT, arguments).await?;
        Ok(())
    }

    /// Closes the tab as its visitor does.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn close(self) -> anyhow::Result<()> {
        self.client.switch_to_window(self.window.clone()).await?;
        self.client.close_window().await?;
        self.look_elsewhere().await
    }

    /// Ends the tab's process at once: none of its scripts hears of it.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn crash(self) -> anyhow::Result<()> {
        self.client.switch_to_window(self.window.clone()).await?;
        let crashed = self.devtools("Page.crash", json!({}));
        // The driver answers with an error, or waits for a page that is no more.
        drop(tokio::time::timeout(CRASH_PATIENCE, crashed).await);
        self.look_elsewhere().await
    }

    /// The driver looks at a tab that is there: the first, which no test uses.
    async fn look_elsewhere(&self) -> anyhow::Result<()> {
        let windows = self.client.windows().await?.into_iter();
        let other = windows.into_iter().find(|window| *window != self.window);
        let other = other.context("the first tab stays open")?;
        Ok(self.client.switch_to_window(other).await?)
    }

    /// Takes the network away from this tab, or gives it back.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn set_offline(&self, is_offline: bool) -> anyhow::Result<()> {
        let conditions = json!({ "offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        self.devtools("Network.enable", json!({})).await?;
        self.devtools("Network.emulateNetworkConditions", conditions)
            .await?;
        Ok(())
    }

    /// Makes this the tab that its visitor looks at.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn bring_to_front(&self) -> anyhow::Result<()> {
        self.devtools("Page.bringToFront", json!({})).await?;
        Ok(())
    }

    /// # Errors
    /// Nothing has connected yet.
    pub async fn status(&self) -> anyhow::Result<PageStatus> {
        Ok(serde_json::from_value(
            self.call("status", json!([])).await?,
        )?)
    }

    /// Waits until the status satisfies `holds`.
    ///
    /// # Errors
    /// It does not; the error shows status and errors of the page.
    pub async fn status_when(
        &self,
        what: &str,
        holds: impl Fn(&PageStatus) -> bool,
    ) -> anyhow::Result<PageStatus> {
        let waited = wait::until(what, PATIENCE, async || {
            let status = self.status().await?;
            Ok(holds(&status).then_some(status))
        });
        match waited.await {
            Ok(status) => Ok(status),
            Err(error) => {
                let (status, errors) = (self.status().await, self.log("error").await);
                Err(error.context(format!(
                    "the page is at {status:?}, its errors are {errors:?}"
                )))
            }
        }
    }

    /// Waits until the page ranks with `version` or a newer one.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn has_version(&self, version: Version) -> anyhow::Result<PageStatus> {
        self.status_when(&format!("the page has version {version}"), |status| {
            status.version >= Some(version)
        })
        .await
    }

    /// Ranks, seen items included.
    ///
    /// # Errors
    /// The page refuses.
    pub async fn rank(
        &self,
        history: &[HistoryEvent],
        k: usize,
        now_millis: i64,
    ) -> anyhow::Result<Ranking> {
        let options = json!({ "history": for_page(history), "k": k, "excludeSeen": false, "nowMillis": now_millis });
        let outcome = self.call("rank", json!([options])).await?;
        ensure!(outcome["ok"] == true, "the page did not rank: {outcome}");
        let PageRanking {
            model_version,
            items,
        } = serde_json::from_value(outcome)?;
        let items = items
            .into_iter()
            .map(|item| RankedItem {
                item_id: item.item_id,
                score: item.score,
            })
            .collect();
        Ok(Ranking {
            model_version,
            items,
        })
    }

    /// What the package told the page under this name, oldest first.
    ///
    /// # Errors
    /// The script fails.
    pub async fn log(&self, name: &str) -> anyhow::Result<Vec<Value>> {
        let entries: Vec<Value> = serde_json::from_value(self.call("log", json!([name])).await?)?;
        Ok(entries
            .into_iter()
            .map(|mut entry| entry["detail"].take())
            .collect())
    }

    /// What reached the page uncaught.
    ///
    /// # Errors
    /// The script fails.
    pub async fn uncaught(&self) -> anyhow::Result<Vec<String>> {
        Ok(serde_json::from_value(
            self.call("uncaught", json!([])).await?,
        )?)
    }

    /// Lets the page write its live version to its cache and reads it back.
    ///
    /// # Errors
    /// It is not written, or does not decode.
    pub async fn cached_version(&self) -> anyhow::Result<CachedVersion> {
        let live = self.status().await?.version;
        self.client.execute(HIDE_SCRIPT, Vec::new()).await?;
        let cached = wait::until("the page has cached its version", PATIENCE, async || {
            let cached = self.run(CACHED_SCRIPT, Vec::new()).await?;
            let version = cached["version"].as_u64().map(Version);
            Ok((version >= live && version.is_some()).then_some(cached))
        });
        let snapshot = STANDARD.decode(
            cached.await?["snapshot"]
                .as_str()
                .context("the cache has no snapshot")?,
        )?;
        let (version, state) = decode_snapshot(&snapshot)?;
        Ok(CachedVersion { version, state })
    }

    /// Runs a script whose last argument takes `{value}` or `{error}`; gives the value.
    ///
    /// # Errors
    /// The driver refuses, or the script says so.
    pub async fn run(&self, script: &str, arguments: Vec<Value>) -> anyhow::Result<Value> {
        self.client.switch_to_window(self.window.clone()).await?;
        let mut outcome = self.client.execute_async(script, arguments).await?;
        match outcome.get("error").and_then(Value::as_str) {
            Some(error) => bail!("the script failed: {error}"),
            None => Ok(outcome["value"].take()),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageRanking {
    model_version: Version,
    items: Vec<PageItem>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageItem {
    item_id: ItemId,
    score: f32,
}
