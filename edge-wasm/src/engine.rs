//! The class that the script drives.
//!
//! The script calls one method at a time and waits for the asynchronous ones:
//! two calls at once throw, because both would need the engine for themselves.

use shared_model::codec::snapshot::encode_snapshot_at_once;
use shared_model::edge::engine::{
    EdgeEngine, EngineError, ExplainRequest, NewItemsRequest, RankRequest, RankedItem, Ranking,
    SearchRequest, ShelfRequest, SimilarRequest,
};
use shared_model::edge::sync::{EdgeClock, EdgeError, EdgeRequest, EdgeSync, Live, Trust};
use shared_model::ids::BlobId;
use wasm_bindgen::prelude::*;

use crate::error::ShellError;
use crate::wire::{
    ExplainCall, RankCall, RankNewCall, RequestForm, SearchCall, SimilarCall, Status, read_trust,
};

/// Sync machine and scorer of one page.
#[wasm_bindgen]
pub struct Engine {
    inner: EdgeEngine,
}

#[wasm_bindgen]
impl Engine {
    /// Opens an engine for `model` that scores on `backend` (`cpu` or `webgpu`).
    ///
    /// # Errors
    /// The trust is malformed, or the backend cannot be started.
    pub async fn open(model: String, trust: String, backend: String) -> Result<Engine, ShellError> {
        let trust: Trust = read_trust(&trust)?;
        let inner = open_engine(&model, trust, &backend).await?;
        Ok(Self { inner })
    }

    /// What to fetch next, as JSON; nothing if nothing is wanted. Each request is handed out once.
    pub fn next_request(&mut self) -> Option<String> {
        let request = self.inner.sync_mut().next_request()?;
        Some(to_json(&RequestForm::from(&request)))
    }

    /// The announcement stream said something.
    ///
    /// # Errors
    /// It is malformed, badly signed, or older than what is live.
    pub fn on_announcement(&mut self, json: &[u8]) -> Result<(), ShellError> {
        let sync = self.inner.sync_mut();
        let heard = sync.on_announcement(json);
        heard.map_err(|error| ShellError::of_version(error, sync.version_under_way()))
    }

    /// The key sets that were asked for, where a root is pinned.
    ///
    /// # Errors
    /// The newest is not believed.
    pub fn on_key_set(&mut self, json: &[u8]) -> Result<(), ShellError> {
        Ok(self.inner.sync_mut().on_key_set(json)?)
    }

    /// Asks for the key sets again, for example after the stream was away; nothing where no root is pinned.
    pub fn refresh_key_set(&mut self) {
        self.inner.sync_mut().refresh_key_set();
    }

    /// Tells the time by the page and, where it is known, by the server: milliseconds since 1970-01-01 UTC.
    pub fn tell_time(&mut self, page_millis: f64, server_millis: Option<f64>) {
        // Saturating; a clock is far inside, and NaN becomes 0, a clock that is behind.
        let millis = |number: f64| number as i64;
        self.inner.sync_mut().tell_time(EdgeClock {
            page_millis: millis(page_millis),
            server_millis: server_millis.map(millis),
        });
    }

    /// Throws where what ranks, which ranks on, must not be trusted any more, or the page's clock is wrong.
    ///
    /// # Errors
    /// `expired`, `key_set_expired` or `clock_skew`.
    pub fn check_freshness(&self) -> Result<(), ShellError> {
        Ok(self.inner.sync().check_freshness()?)
    }

    /// What has been seen, for the page's cache; nothing where no root is pinned.
    pub fn edge_state(&self) -> Option<Vec<u8>> {
        self.inner.sync().edge_state()
    }

    /// Takes over what `edge_state` gave before a reload; before `restore`.
    ///
    /// # Errors
    /// It is damaged, or of another root.
    pub fn resume(&mut self, state: &[u8]) -> Result<(), ShellError> {
        Ok(self.inner.sync_mut().resume(state)?)
    }

    /// The plan that was asked for.
    ///
    /// # Errors
    /// It is malformed or badly signed.
    pub fn on_plan(&mut self, json: &[u8]) -> Result<(), ShellError> {
        self.under_way(|sync| sync.on_plan(json))
    }

    /// The blob that was asked for, `id` in hexadecimal.
    ///
    /// # Errors
    /// The bytes are not what `id` names, or cannot be applied.
    pub fn on_blob(&mut self, id: &str, bytes: &[u8]) -> Result<(), ShellError> {
        let id = BlobId::from_hex(id)
            .ok_or_else(|| ShellError::argument("id", "expected 64 hexadecimal digits"))?;
        self.under_way(|sync| sync.on_blob(id, bytes))
    }

    /// A request (as `next_request` gave it) could not be fetched; it will be asked for again.
    ///
    /// # Errors
    /// `request` is malformed.
    pub fn on_failure(&mut self, request: &str) -> Result<(), ShellError> {
        let form: RequestForm = serde_json::from_str(request)
            .map_err(|error| ShellError::argument("request", error))?;
        self.inner.sync_mut().on_failure(&EdgeRequest::from(form));
        Ok(())
    }

    /// Makes a verified candidate live, if there is one and it passes its self-test. Answers whether it did.
    ///
    /// # Errors
    /// The candidate is refused; the last good version stays live.
    pub async fn settle(&mut self) -> Result<bool, ShellError> {
        let version = self.inner.sync().version_under_way();
        let settled = self.inner.settle().await;
        settled.map_err(|error| ShellError::of_version(error, version))
    }

    /// Ranks under rules, best first, or unlike each other, or with places drawn by chance; takes and answers JSON.
    ///
    /// # Errors
    /// `call` is malformed, no version is live yet, or the device failed.
    pub async fn rank(&mut self, call: String) -> Result<String, ShellError> {
        let call = RankCall::read(&call)?;
        let rank = RankRequest {
            history: &call.history,
            candidates: call.candidates.as_deref(),
            options: &call.options,
            now_millis: call.now_millis,
            moderation: None,
        };
        let personal = if call.personal {
            Some(self.inner.personal(&call.history, call.now_millis).await?)
        } else {
            None
        };
        let request = ShelfRequest {
            rank,
            rules: &call.rules,
            diversity: call.diversity.as_ref(),
            exploration: call.exploration.as_ref(),
            personal: personal.as_ref(),
        };
        Ok(to_json(&self.inner.shelf(&request).await?))
    }

    /// The items nearest to some items; takes and answers JSON.
    ///
    /// # Errors
    /// `call` is malformed, no version is live yet, none of the items is known to it, or the device failed.
    pub async fn similar(&mut self, call: String) -> Result<String, ShellError> {
        let call = SimilarCall::read(&call)?;
        let request = SimilarRequest {
            item_ids: &call.item_ids,
            candidates: call.candidates.as_deref(),
            history: &call.history,
            options: &call.options,
            moderation: None,
        };
        Ok(to_json(&self.inner.similar(&request).await?))
    }

    /// Items by a text, embedded as the live version's texts are; takes and answers JSON.
    ///
    /// # Errors
    /// `call` is malformed, no version is live yet, its texts have another width, or the device failed.
    pub async fn search(&mut self, call: String, text: Vec<f32>) -> Result<String, ShellError> {
        let call = SearchCall::read(&call)?;
        let rank = RankRequest {
            history: &call.history,
            candidates: call.candidates.as_deref(),
            options: &call.options,
            now_millis: call.now_millis,
            moderation: None,
        };
        let request = SearchRequest {
            text: &text,
            taste: call.taste,
            rank,
        };
        Ok(to_json(&self.inner.search(&request).await?))
    }

    /// Ranks items that no version holds by their embedded texts, row by row in the order of their ids; takes and answers
    /// JSON.
    ///
    /// # Errors
    /// `call` is malformed, no version is live yet, its texts have another width, or the device failed.
    pub async fn rank_new(&mut self, call: String, texts: Vec<f32>) -> Result<String, ShellError> {
        let call = RankNewCall::read(&call)?;
        let request = NewItemsRequest {
            num_items: call.item_ids.len(),
            texts: &texts,
            history: &call.history,
            now_millis: call.now_millis,
        };
        let (model_version, scores) = self.inner.score_new(&request).await?;
        let items = call.item_ids.into_iter().zip(scores);
        let items = items.filter(|(item_id, _)| !self.inner.is_blocked(item_id));
        let mut items: Vec<RankedItem> = items
            .map(|(item_id, score)| RankedItem { item_id, score })
            .collect();
        items.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(to_json(&Ranking {
            model_version,
            items,
        }))
    }

    /// What the server says of the text encoder of the live version: `"small"`, `{"packed": {"id": …, "bytes": …}}` or
    /// `{"changed": {"base": {…}, "change": {…}}}`.
    ///
    /// # Errors
    /// No version is live yet, or the note is not believed; where a newer key set may help, it is the next request.
    pub fn text_encoder(&mut self, note: &[u8]) -> Result<String, ShellError> {
        let kind = self.inner.sync_mut().text_encoder(note)?;
        Ok(to_json(&kind.ok_or(EngineError::NoModel)?))
    }

    /// Goes by the rules of the server's operators, a signed note, from now on. Answers whether anything is different.
    ///
    /// # Errors
    /// The note is not believed or is older than that at hand; where a newer key set may help, it is the next request.
    pub fn moderate(&mut self, note: &[u8]) -> Result<bool, ShellError> {
        Ok(self.inner.moderate(note)?)
    }

    /// Ids of all items of the live version, as JSON; an empty list before the first.
    pub fn item_ids(&self) -> String {
        let live = self.inner.sync().live();
        let items = live.map_or(&[][..], |live| &live.state.items);
        to_json(&items.iter().map(|item| &item.item_id).collect::<Vec<_>>())
    }

    /// Explains the score of one item; takes and answers JSON.
    ///
    /// # Errors
    /// `call` is malformed, no version is live yet, the item is unknown to it, or the device failed.
    pub async fn explain(&mut self, call: String) -> Result<String, ShellError> {
        let call = ExplainCall::read(&call)?;
        let request = ExplainRequest {
            history: &call.history,
            item_id: &call.item_id,
            k: call.k,
            now_millis: call.now_millis,
        };
        Ok(to_json(&self.inner.explain(&request).await?))
    }

    /// What ranks now, as JSON.
    pub fn status(&self) -> String {
        let revision = self.inner.moderation_revision();
        to_json(&Status::of(self.inner.sync().live(), revision))
    }

    /// Takes a version from the page's cache, verified as if it came from the network.
    ///
    /// # Errors
    /// It is damaged, or signed by nobody trusted.
    pub fn restore(&mut self, manifest: &[u8], snapshot: &[u8]) -> Result<(), ShellError> {
        Ok(self.inner.sync_mut().restore(manifest, snapshot)?)
    }

    /// The live version as a snapshot, for the page's cache.
    ///
    /// # Errors
    /// Nothing is live yet.
    pub fn export_snapshot(&self) -> Result<Vec<u8>, ShellError> {
        let live = self.live()?;
        encode_snapshot_at_once(&live.state, live.manifest.version).map_err(|error| {
            ShellError::Export {
                reason: error.to_string(),
            }
        })
    }

    /// The signed manifest of the live version, for the page's cache.
    ///
    /// # Errors
    /// Nothing is live yet.
    pub fn signed_manifest(&self) -> Result<Vec<u8>, ShellError> {
        Ok(self.live()?.signed_manifest.clone())
    }

    /// Runs what may fail on the way to a version. Which one that was is asked before: a failure ends it.
    fn under_way(
        &mut self,
        call: impl FnOnce(&mut EdgeSync) -> Result<(), EdgeError>,
    ) -> Result<(), ShellError> {
        let sync = self.inner.sync_mut();
        let version = sync.version_under_way();
        call(sync).map_err(|error| ShellError::of_version(error, version))
    }

    fn live(&self) -> Result<&Live, ShellError> {
        let nothing = ShellError::Export {
            reason: "nothing is live yet".to_owned(),
        };
        self.inner.sync().live().ok_or(nothing)
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain structs with text keys always serialize")
}

/// # Errors
/// The name is unknown, or the backend cannot be had.
async fn open_engine(model: &str, trust: Trust, backend: &str) -> Result<EdgeEngine, ShellError> {
    match backend {
        "cpu" if cfg!(feature = "cpu") => Ok(EdgeEngine::on_host(model, trust)),
        "webgpu" if cfg!(feature = "webgpu") => on_webgpu(model, trust).await,
        "cpu" => Err(not_built("cpu")),
        "webgpu" => Err(not_built("webgpu")),
        _ => Err(ShellError::argument(
            "backend",
            "expected `cpu` or `webgpu`",
        )),
    }
}

/// Once per page: a second start of the same adapter fails, so the script keeps the engine.
#[cfg(feature = "webgpu")]
async fn on_webgpu(model: &str, trust: Trust) -> Result<EdgeEngine, ShellError> {
    use shared_model::model::scorer::Padding;
    let opened = burn::tensor::Device::wgpu_options().init_async().await;
    let device = opened.map_err(|error| ShellError::Backend {
        backend: "webgpu",
        reason: error.to_string(),
    })?;
    Ok(EdgeEngine::new(model, trust, device, Padding::Full))
}

#[cfg(not(feature = "webgpu"))]
#[expect(
    clippy::unused_async,
    reason = "the twin with WebGPU waits for the device"
)]
async fn on_webgpu(_model: &str, _trust: Trust) -> Result<EdgeEngine, ShellError> {
    Err(not_built("webgpu"))
}

fn not_built(backend: &'static str) -> ShellError {
    let reason = "this module was built without it".to_owned();
    ShellError::Backend { backend, reason }
}
