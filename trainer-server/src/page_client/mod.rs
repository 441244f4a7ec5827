//! A native page: the edge engine of a browser page, driven over real HTTP without a browser.
//!
//! It does what a page does: pins the server's keys, asks for an update plan, fetches blobs, watches
//! the event stream, comes back after the server was away, and counts what it downloaded.
//! Used by `replay` and `evaluate`. Not here: what is measured with it.
//!
//! [`PageClient::next_version`] may be cancelled at any await point: a request that was handed out
//! by the sync machine is kept until it is answered.

mod http;
pub mod sse;

use std::time::{Duration, Instant};

use burn::tensor::Device;
use ed25519_dalek::VerifyingKey;
use shared_model::edge::engine::EdgeEngine;
use shared_model::edge::report::{FaultCode, FaultReport};
use shared_model::edge::sync::{EdgeRequest, EdgeSync, Live, Trust};
use shared_model::ids::{LogOffset, Version};
use shared_model::manifest::{VersionKind, parse_announcement};
use shared_model::model::scorer::Padding;

pub use http::{PageError, ServerAddress};
use sse::SseParser;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// A stream that is silent for so long is taken for dead; the server comments every 15 s.
const WATCH_IDLE_MAX: Duration = Duration::from_secs(60);

/// Whether a page ranks, or only keeps its version up to date.
#[derive(Debug, Clone)]
pub enum PageKind {
    /// Applies and verifies codes; builds no scorer.
    Following,
    /// Also builds a scorer on the device and runs the self-test before every swap.
    Ranking(Device),
}

enum PageModel {
    Following(Box<EdgeSync>),
    Ranking(Box<EdgeEngine>),
}

/// What a page downloaded, in bytes of bodies, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Downloads {
    /// Everything that came over the watch stream, comments and inline deltas included.
    pub watch_bytes: u64,
    /// Update plans and keys.
    pub plan_bytes: u64,
    /// Blobs: snapshots and deltas too large to ride inline.
    pub blob_bytes: u64,
}

impl Downloads {
    /// All of it.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.watch_bytes + self.plan_bytes + self.blob_bytes
    }
}

/// What went wrong on the way; none of it stops a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Troubles {
    /// The stream ended or could not be opened.
    pub num_disconnects: u64,
    /// A fetch failed.
    pub num_fetch_failures: u64,
    /// Something that arrived was refused by the engine.
    pub num_refusals: u64,
    /// The last of them in words.
    pub last: Option<String>,
}

/// A version that has just become live in a page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Applied {
    /// Its number.
    pub version: Version,
    /// Fast or release.
    pub kind: VersionKind,
    /// What it has learned.
    pub learned_through: LogOffset,
    /// Encoded size of its delta, where it has one.
    pub delta_bytes: Option<u64>,
    /// Size of that delta as it came down the wire: in base64 where it rode inline.
    pub delta_bytes_downloaded: Option<u64>,
    /// Size of the announcement of this version, where it was announced and not only planned.
    pub announcement_bytes: Option<u64>,
    /// When it became live.
    pub at: Instant,
    /// Whether the hash of the state is the one that the manifest names.
    pub hash_matches: bool,
}

/// The last announcement heard.
#[derive(Debug, Clone, Copy)]
struct Heard {
    version: Version,
    inline_delta_bytes: Option<u64>,
    announcement_bytes: u64,
}

struct WatchStream {
    response: reqwest::Response,
    parser: SseParser,
    heard_at: tokio::time::Instant,
}

/// One page.
pub struct PageClient {
    address: ServerAddress,
    http: reqwest::Client,
    model: PageModel,
    stream: Option<WatchStream>,
    in_flight: Option<EdgeRequest>,
    backoff: Duration,
    heard: Option<Heard>,
    downloads: Downloads,
    troubles: Troubles,
    /// Drawn once by a page in a browser; without one it hears what everyone hears.
    bucket: Option<u8>,
    /// Newest version that the server was told of as not to be taken.
    reported: Option<Version>,
}

impl PageClient {
    /// Opens a page: fetches and pins the server's keys. No version is live yet.
    ///
    /// # Errors
    /// The server does not answer, or its keys cannot be read.
    pub async fn connect(address: &ServerAddress, kind: PageKind) -> Result<Self, PageError> {
        let http = http::client()?;
        let (keys, plan_bytes) = http::fetch_keys(&http, address).await?;
        Ok(Self::open(
            address,
            kind,
            Trust::Keys(keys),
            http,
            plan_bytes,
        ))
    }

    /// Opens a page that has pinned a root; it fetches the key set by itself. No version is live yet.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn with_root(
        address: &ServerAddress,
        kind: PageKind,
        root: VerifyingKey,
    ) -> Result<Self, PageError> {
        let http = http::client()?;
        Ok(Self::open(address, kind, Trust::Root(root), http, 0))
    }

    fn open(
        address: &ServerAddress,
        kind: PageKind,
        trust: Trust,
        http: reqwest::Client,
        plan_bytes: u64,
    ) -> Self {
        let model = match kind {
            PageKind::Following => {
                PageModel::Following(Box::new(EdgeSync::new(&address.model, trust)))
            }
            PageKind::Ranking(device) => {
                let engine = EdgeEngine::new(&address.model, trust, device, Padding::Longest);
                PageModel::Ranking(Box::new(engine))
            }
        };
        Self {
            address: address.clone(),
            http,
            model,
            stream: None,
            in_flight: None,
            backoff: BACKOFF_MIN,
            heard: None,
            downloads: Downloads {
                plan_bytes,
                ..Downloads::default()
            },
            troubles: Troubles::default(),
            bucket: None,
            reported: None,
        }
    }

    /// The page says this bucket, 0 to 99: pages with a low one have releases before the others.
    #[must_use]
    pub fn with_bucket(mut self, bucket: u8) -> Self {
        self.bucket = Some(bucket);
        self
    }

    /// Follows the server until another version is live here. Never gives up: put a deadline around it.
    pub async fn next_version(&mut self) -> Applied {
        loop {
            if let Some(applied) = self.settle().await {
                return applied;
            }
            if self.in_flight.is_none() {
                self.in_flight = self.sync_mut().next_request();
            }
            match self.in_flight {
                Some(request) => self.fetch(&request).await,
                None => self.listen().await,
            }
        }
    }

    /// The version that is live here.
    #[must_use]
    pub fn live(&self) -> Option<&Live> {
        match &self.model {
            PageModel::Following(sync) => sync.live(),
            PageModel::Ranking(engine) => engine.sync().live(),
        }
    }

    /// The engine of a ranking page.
    pub fn engine_mut(&mut self) -> Option<&mut EdgeEngine> {
        match &mut self.model {
            PageModel::Following(_) => None,
            PageModel::Ranking(engine) => Some(engine),
        }
    }

    /// What it downloaded so far.
    #[must_use]
    pub fn downloads(&self) -> &Downloads {
        &self.downloads
    }

    /// What went wrong so far.
    #[must_use]
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    fn sync_mut(&mut self) -> &mut EdgeSync {
        match &mut self.model {
            PageModel::Following(sync) => sync,
            PageModel::Ranking(engine) => engine.sync_mut(),
        }
    }

    /// Makes a verified candidate live, if there is one and it passes.
    async fn settle(&mut self) -> Option<Applied> {
        let is_live = match &mut self.model {
            PageModel::Following(sync) => {
                let has_candidate = sync.candidate().is_some();
                sync.accept();
                has_candidate
            }
            PageModel::Ranking(engine) => {
                let version = engine.sync().version_under_way();
                match engine.settle().await {
                    Ok(is_live) => is_live,
                    Err(error) => {
                        self.refused(error.to_string());
                        self.report(version, error.fault()).await;
                        false
                    }
                }
            }
        };
        if !is_live {
            return None;
        }
        self.backoff = BACKOFF_MIN;
        let live = self.live().expect("a version that was accepted is live");
        let manifest = &live.manifest;
        let delta_bytes = manifest.delta.as_ref().map(|delta| delta.blob.bytes);
        let heard = self.heard.filter(|heard| heard.version == manifest.version);
        Some(Applied {
            version: manifest.version,
            kind: manifest.kind,
            learned_through: manifest.learned_through,
            delta_bytes,
            delta_bytes_downloaded: heard
                .and_then(|heard| heard.inline_delta_bytes)
                .or(delta_bytes),
            announcement_bytes: heard.map(|heard| heard.announcement_bytes),
            at: Instant::now(),
            hash_matches: live.state.hash() == manifest.state,
        })
    }

    async fn fetch(&mut self, request: &EdgeRequest) {
        let answer = http::fetch(&self.http, &self.address, request, self.bucket).await;
        self.in_flight = None;
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(error) => {
                self.troubles.num_fetch_failures += 1;
                self.troubles.last = Some(error.to_string());
                self.sync_mut().on_failure(request);
                self.back_off().await;
                return;
            }
        };
        let num_bytes = bytes.len() as u64; // usize fits u64
        let version = self.sync_mut().version_under_way();
        let outcome = match request {
            EdgeRequest::KeySet => {
                self.downloads.plan_bytes += num_bytes;
                self.sync_mut().on_key_set(&bytes)
            }
            EdgeRequest::Plan { .. } => {
                self.downloads.plan_bytes += num_bytes;
                self.sync_mut().on_plan(&bytes)
            }
            EdgeRequest::Blob { blob } => {
                self.downloads.blob_bytes += num_bytes;
                self.sync_mut().on_blob(blob.id, &bytes)
            }
        };
        if let Err(error) = outcome {
            self.refused(error.to_string());
            self.report(version, error.fault()).await;
            self.back_off().await;
        }
    }

    /// Opens the stream, or waits for its next piece.
    async fn listen(&mut self) {
        let Some(stream) = &mut self.stream else {
            self.open_stream().await;
            return;
        };
        let silent_until = stream.heard_at + WATCH_IDLE_MAX;
        let piece = match tokio::time::timeout_at(silent_until, stream.response.chunk()).await {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => return self.disconnected("the watch stream ended").await,
            Ok(Err(error)) => return self.disconnected(&error.to_string()).await,
            Err(_elapsed) => return self.disconnected("the watch stream fell silent").await,
        };
        stream.heard_at = tokio::time::Instant::now();
        let events = match stream.parser.push(&piece) {
            Ok(events) => events,
            Err(error) => return self.disconnected(&error.to_string()).await,
        };
        self.backoff = BACKOFF_MIN;
        self.downloads.watch_bytes += piece.len() as u64; // usize fits u64
        for event in events.iter().filter(|event| event.name == "version") {
            self.hear(&event.data);
            if let Err(error) = self.sync_mut().on_announcement(&event.data) {
                let version = self.sync_mut().version_under_way();
                self.refused(error.to_string());
                self.report(version, error.fault()).await;
            }
        }
    }

    /// Opens the stream, which begins with the newest version: what was missed meanwhile shows then.
    async fn open_stream(&mut self) {
        match http::watch(&self.http, &self.address, self.bucket).await {
            Ok(response) => {
                let (parser, heard_at) = (SseParser::default(), tokio::time::Instant::now());
                self.stream = Some(WatchStream {
                    response,
                    parser,
                    heard_at,
                });
            }
            Err(error) => self.disconnected(&error.to_string()).await,
        }
    }

    fn hear(&mut self, json: &[u8]) {
        let Ok(announcement) = parse_announcement(json) else {
            return; // the sync machine refuses it aloud
        };
        self.heard = Some(Heard {
            version: announcement.version,
            inline_delta_bytes: announcement.delta.map(|delta| delta.len() as u64), // usize fits u64
            announcement_bytes: json.len() as u64, // usize fits u64
        });
    }

    fn refused(&mut self, reason: String) {
        self.troubles.num_refusals += 1;
        self.troubles.last = Some(reason);
    }

    /// Tells the server of a version that cannot be taken here, once; whether it hears of it is no matter of this page.
    async fn report(&mut self, version: Option<Version>, fault: Option<FaultCode>) {
        let (Some(version), Some(code)) = (version, fault) else {
            return;
        };
        if self.reported >= Some(version) {
            return;
        }
        self.reported = Some(version);
        let bucket = self.bucket;
        let report = FaultReport {
            version,
            code,
            bucket,
        };
        if let Err(error) = http::report(&self.http, &self.address, &report).await {
            tracing::debug!(%error, "a fault could not be reported");
        }
    }

    async fn disconnected(&mut self, reason: &str) {
        self.stream = None;
        self.troubles.num_disconnects += 1;
        self.troubles.last = Some(reason.to_owned());
        self.back_off().await;
    }

    async fn back_off(&mut self) {
        let pause = self.backoff;
        self.backoff = (pause * 2).min(BACKOFF_MAX);
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
