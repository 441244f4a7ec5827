//! A page without a browser: the edge engine over real HTTP, as `freshet replay` uses it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use ed25519_dalek::VerifyingKey;
use shared_model::edge::engine::{RankOptions, RankRequest, Ranking};
use shared_model::edge::sync::Live;
use shared_model::event::HistoryEvent;
use shared_model::ids::{LogOffset, Version};
use trainer_server::page_client::{PageClient, PageKind, ServerAddress};

/// Time for a version to reach a page.
const ARRIVE_PATIENCE: Duration = Duration::from_secs(60);

/// A page that ranks on the CPU.
pub struct NativePage {
    client: PageClient,
    /// Versions that became live, in order.
    versions: Vec<Version>,
}

impl NativePage {
    /// # Errors
    /// The server does not answer.
    pub async fn open(address: &ServerAddress) -> anyhow::Result<Self> {
        let client = PageClient::connect(address, PageKind::Ranking(Device::flex())).await?;
        Ok(Self {
            client,
            versions: Vec::new(),
        })
    }

    /// A page that has pinned a root and believes nobody else.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn with_root(address: &ServerAddress, root: VerifyingKey) -> anyhow::Result<Self> {
        let kind = PageKind::Ranking(Device::flex());
        Ok(Self {
            client: PageClient::with_root(address, kind, root)?,
            versions: Vec::new(),
        })
    }

    /// Follows the server until this page has learned up to `offset`.
    ///
    /// # Errors
    /// It does not come to that, or a version is not what its manifest names.
    pub async fn has_learned(&mut self, offset: LogOffset) -> anyhow::Result<()> {
        let deadline = Instant::now() + ARRIVE_PATIENCE;
        while self
            .client
            .live()
            .is_none_or(|live| live.manifest.learned_through < offset)
        {
            let left = deadline.saturating_duration_since(Instant::now());
            let arrived = tokio::time::timeout(left, self.client.next_version()).await;
            let applied = arrived.with_context(|| {
                let (live, troubles) = (self.versions.last(), self.client.troubles());
                format!(
                    "offset {offset} did not arrive; live is {live:?}, troubles are {troubles:?}"
                )
            })?;
            ensure!(
                applied.hash_matches,
                "version {} has another hash than its manifest names",
                applied.version
            );
            self.versions.push(applied.version);
        }
        Ok(())
    }

    /// Ranks, seen items included.
    ///
    /// # Errors
    /// Nothing is live yet.
    pub async fn rank(
        &mut self,
        history: &[HistoryEvent],
        k: usize,
        now_millis: i64,
    ) -> anyhow::Result<Ranking> {
        let engine = self.client.engine_mut().context("this page ranks")?;
        let options = RankOptions {
            k,
            exclude_seen: false,
        };
        let request = RankRequest {
            history,
            candidates: None,
            options: &options,
            now_millis,
            moderation: None,
        };
        Ok(engine.rank(&request).await?)
    }

    /// What ranks now.
    ///
    /// # Errors
    /// Nothing is live yet.
    pub fn live(&self) -> anyhow::Result<&Live> {
        self.client.live().context("nothing is live yet")
    }

    /// Versions that became live here, in order.
    #[must_use]
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }
}
