//! The rows of the fault matrix, and how each is played.

mod rows;

use std::time::Duration;

use harness::browser::{Browser, BrowserPage};
use harness::network::{EVERYTHING, Network, Place, Trouble};
use harness::proxy::{Fault, Proxy};
use harness::scene::Scene;
use harness::wait;
use serde::Deserialize;
use serde_json::json;

pub(crate) use rows::ROWS;

/// Time for a damaged version to be published and refused.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time for a backend to be decided on.
const PATIENCE_MILLIS: u64 = 60_000;

/// One fault.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) when: When,
    pub(crate) what: What,
    /// Further parts of the page's query.
    pub(crate) query: &'static [(&'static str, &'static str)],
    /// `ranking`, or the code of an error.
    pub(crate) ends: &'static str,
    /// How many loads the row stands for: its limit is so many times that of one.
    pub(crate) times: u32,
}

/// When the fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Before a first visit: nothing is in a cache.
    First,
    /// Before a second visit: the model is in the cache.
    Again,
    /// While the page ranks.
    Later,
}

impl When {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Again => "again",
            Self::Later => "later",
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    /// Something of the browser, in the page and in its worker; the name of the row is that of the fault.
    Browser,
    /// Something of the browser, in the page alone.
    InPage,
    /// Something of the browser, in the worker alone.
    InWorker,
    /// The parts of the query that stand in the row.
    Query,
    /// The network before the files of the package.
    Files(Place, Trouble),
    /// The network before the server.
    Server(Place, Trouble),
    /// The server has gone: streams end, and nothing answers.
    ServerGone,
    /// Another server stands there, with keys and data of its own.
    OtherServer,
    /// The next version comes damaged.
    NextVersion(Fault),
    /// The cached version was overwritten by this script.
    Cache(&'static str),
    /// The page does what it should not; the name of the row is that of the misuse.
    Page,
    /// The function of the test page that brings it.
    Call(&'static str),
    /// The browser freezes the page for a moment.
    Frozen,
}

impl What {
    /// Where the fault is.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Self::Browser => "page and worker",
            Self::InPage | Self::Page | Self::Frozen => "page",
            Self::InWorker | Self::Query | Self::Call(_) => "worker",
            Self::Files(..) => "files",
            Self::Server(..) | Self::ServerGone | Self::OtherServer | Self::NextVersion(_) => {
                "server"
            }
            Self::Cache(_) => "storage",
        }
    }
}

/// How something ended.
#[derive(Debug, Deserialize)]
pub(crate) struct Ending {
    pub(crate) ends: String,
    pub(crate) millis: f64,
    /// Of the error, if it ended by one.
    pub(crate) message: Option<String>,
}

/// What rows share.
pub(crate) struct Stage<'a> {
    browser: &'a Browser,
    /// What a page waits for its first ranking.
    pub(crate) patience_millis: f64,
    scene: Scene,
    other: Scene,
}

/// One page with an origin and a network of its own.
pub(crate) struct Visit {
    pub(crate) page: BrowserPage,
    files: Network,
    server: Network,
}

impl<'a> Stage<'a> {
    /// # Errors
    /// A server does not start.
    pub(crate) async fn build(browser: &'a Browser) -> anyhow::Result<Self> {
        Ok(Self {
            browser,
            patience_millis: 20_000.0,
            scene: Scene::start(41, &[]).await?,
            other: Scene::start(42, &[]).await?,
        })
    }

    /// # Errors
    /// No port is free, or the driver refuses.
    pub(crate) async fn visit(&self) -> anyhow::Result<Visit> {
        let files = Network::start(self.browser.site().url("").trim_end_matches('/')).await?;
        let server = Network::start(&self.scene.server.address().url).await?;
        Ok(Visit {
            page: self.browser.open_url("about:blank").await?,
            files,
            server,
        })
    }
}

type Query<'q> = &'q [(&'q str, &'q str)];

impl Visit {
    /// Goes to the page and loads; `query` beside what every page has.
    ///
    /// # Errors
    /// The driver refuses.
    pub(crate) async fn load(&self, stage: &Stage<'_>, query: Query<'_>) -> anyhow::Result<Ending> {
        self.go(stage, query).await?;
        self.ending("load", json!([])).await
    }

    async fn go(&self, stage: &Stage<'_>, query: Query<'_>) -> anyhow::Result<()> {
        let patience = stage.patience_millis.to_string();
        let always = [
            ("server", self.server.url()),
            ("connect", "0"),
            ("timeout", &patience),
        ];
        let mut url = reqwest::Url::parse(self.files.url())?.join("test/page.html")?;
        url.query_pairs_mut()
            .extend_pairs(query.iter().chain(&always));
        self.page.load(url.as_str()).await?;
        self.page.first_outcome().await?; // the page's own script runs
        Ok(())
    }

    async fn ending(&self, name: &str, arguments: serde_json::Value) -> anyhow::Result<Ending> {
        Ok(serde_json::from_value(
            self.page.call(name, arguments).await?,
        )?)
    }
}

impl Row {
    /// Plays it to its end.
    ///
    /// # Errors
    /// The test itself fails.
    pub(crate) async fn play(
        &self,
        stage: &mut Stage<'_>,
        visit: &Visit,
    ) -> anyhow::Result<Ending> {
        match self.when {
            When::First => self.play_first(stage, visit).await,
            When::Again => {
                visit.load(stage, self.query).await?;
                visit.page.cached_version().await?;
                self.strike(stage, visit).await?;
                visit.load(stage, &self.faulty_query()).await
            }
            When::Later => self.play_later(stage, visit).await,
        }
    }

    async fn play_first(&self, stage: &mut Stage<'_>, visit: &Visit) -> anyhow::Result<Ending> {
        self.strike(stage, visit).await?;
        let query = self.faulty_query();
        if matches!(self.what, What::Page) {
            visit.go(stage, &query).await?;
            return visit.ending("misuse", json!([self.name])).await;
        }
        let first = visit.load(stage, &query).await?;
        if !self.is_on_webgpu() || first.ends != self.ends {
            return Ok(first);
        }
        // It ranks on the CPU meanwhile, and goes on once it is decided where.
        let patience = json!([PATIENCE_MILLIS]);
        visit.page.call("untilDecided", patience).await?;
        let mut later = visit.ending("timedRank", json!([])).await?;
        later.millis = later.millis.max(first.millis);
        Ok(later)
    }

    async fn play_later(&self, stage: &mut Stage<'_>, visit: &Visit) -> anyhow::Result<Ending> {
        visit.load(stage, self.query).await?;
        if self.is_on_webgpu() {
            let arguments = json!(["webgpu", PATIENCE_MILLIS]);
            visit.page.call("untilBackend", arguments).await?;
        }
        self.strike(stage, visit).await?;
        if matches!(self.what, What::Page) {
            return visit.ending("misuse", json!([self.name])).await;
        }
        visit.ending("timedRank", json!([])).await
    }

    /// The query of a page that has the fault from the beginning.
    fn faulty_query(&self) -> Vec<(&'static str, &'static str)> {
        let mut query = self.query.to_vec();
        if matches!(self.what, What::Browser | What::InPage) {
            query.push(("fault", self.name));
        }
        if matches!(self.what, What::Browser | What::InWorker) {
            query.push(("workerFault", self.name));
        }
        query
    }

    fn is_on_webgpu(&self) -> bool {
        self.query.contains(&("backend", "webgpu"))
    }

    /// Brings the fault, unless it stands in the query.
    async fn strike(&self, stage: &mut Stage<'_>, visit: &Visit) -> anyhow::Result<()> {
        let page = &visit.page;
        match self.what {
            What::Files(place, trouble) => visit.files.set(place, trouble),
            What::Server(place, trouble) => visit.server.set(place, trouble),
            What::ServerGone => {
                visit.server.set(EVERYTHING, Trouble::Cut);
                visit.server.end_streams();
            }
            What::OtherServer => {
                visit.server.lead_to(&stage.other.server.address().url);
                visit.server.end_streams();
            }
            What::Cache(script) => {
                page.run(script, Vec::new()).await?;
            }
            What::NextVersion(fault) => next_version(stage, visit, fault).await?,
            What::Call(name) => {
                page.call(name, json!([])).await?;
            }
            What::Frozen => {
                for state in ["frozen", "active"] {
                    let parameters = json!({ "state": state });
                    page.devtools("Page.setWebLifecycleState", parameters)
                        .await?;
                }
            }
            What::Browser | What::InPage | What::InWorker if self.when == When::Later => {
                if !matches!(self.what, What::InWorker) {
                    page.call("breakNow", json!([self.name])).await?;
                }
                if !matches!(self.what, What::InPage) {
                    page.call("breakWorkerNow", json!([self.name])).await?;
                }
            }
            What::Browser | What::InPage | What::InWorker | What::Query | What::Page => {}
        }
        Ok(())
    }
}

/// Lets the server publish a version that comes damaged, and waits until the page has refused it.
async fn next_version(stage: &mut Stage<'_>, visit: &Visit, fault: Fault) -> anyhow::Result<()> {
    let proxy = Proxy::start(stage.scene.server.address()).await?;
    proxy.set(fault);
    visit.server.lead_to(proxy.url());
    visit.server.end_streams();
    stage.scene.clicks(3).await?;
    let refused = wait::until("the damage is refused", PATIENCE, async || {
        let errors = visit.page.log("error").await?;
        Ok((!errors.is_empty()).then_some(()))
    });
    refused.await
}
