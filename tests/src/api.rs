//! The HTTP requests of tests: raw ones for bad input, typed ones for everything else.
//!
//! Nothing is retried, so that a test sees what a sender would see.

use std::time::Duration;

use anyhow::{Context, ensure};
use ed25519_dalek::VerifyingKey;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared_model::codec::delta::apply_delta;
use shared_model::codec::snapshot::decode_snapshot;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::Ranking;
use shared_model::event::{Event, HistoryEvent, Item};
use shared_model::ids::{BlobId, LogOffset, Version};
use shared_model::manifest::{
    BlobRef, KeyList, Manifest, PlanStepKind, TextEncoderKind, TextEncoderNote, UpdatePlan,
    parse_public_key, verify,
};
use trainer_server::page_client::ServerAddress;
use trainer_server::replay::api::Receipt;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Items or events in one request of [`Api::put_items`] and [`Api::post_events`].
const BATCH_LEN_MAX: usize = 500;

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `content-type`, empty where there is none.
    pub content_type: String,
    /// The body, `null` where it is not JSON.
    pub body: Value,
}

/// Where the loop stands, from `/v1/status`.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// One past the last record of the log.
    pub log_offset: LogOffset,
    /// What the newest version has learned; nothing before the first.
    pub learned_through: Option<LogOffset>,
    /// The newest version.
    pub version: Option<Version>,
    /// What the trainer does and has done.
    pub trainer: Value,
}

/// A connection to one server.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    address: ServerAddress,
}

impl Api {
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(address: &ServerAddress) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build()?;
        Ok(Self {
            http,
            address: address.clone(),
        })
    }

    /// Sends a body as it is, with a content type of JSON.
    ///
    /// # Errors
    /// No answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<Answer> {
        let request = self.http.request(method, self.address.path(path));
        let response = request
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await?;
        let status = response.status().as_u16();
        let content_type = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok()); // else none
        let content_type = content_type.unwrap_or_default().to_owned();
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer {
            status,
            content_type,
            body,
        })
    }

    /// Whether the server answers at all.
    pub async fn is_healthy(&self) -> bool {
        self.get("/healthz").await.is_ok()
    }

    /// # Errors
    /// No answer, or an item is refused.
    pub async fn put_items(&self, items: &[Item]) -> anyhow::Result<()> {
        for batch in items.chunks(BATCH_LEN_MAX) {
            let body = json!({ "items": batch }).to_string();
            let answer = self.send(Method::PUT, "/v1/items", body).await?;
            let is_whole = answer.status == 200 && answer.body["rejected"] == json!([]);
            ensure!(is_whole, "putting items: {answer:?}");
        }
        Ok(())
    }

    /// Posts events as one batch.
    ///
    /// # Errors
    /// No answer, or not 200.
    pub async fn post_events(&self, events: &[Event]) -> anyhow::Result<Receipt> {
        let body = json!({ "events": events }).to_string();
        let answer = self.send(Method::POST, "/v1/events", body).await?;
        ensure!(answer.status == 200, "posting events: {answer:?}");
        Ok(serde_json::from_value(answer.body)?)
    }

    /// The plan from a version, or from nothing.
    ///
    /// # Errors
    /// No answer, or nothing is published.
    pub async fn plan(&self, base: Option<Version>) -> anyhow::Result<UpdatePlan> {
        let query = base.map_or_else(String::new, |base| format!("?base={base}"));
        self.get_json(&self.model_path(&format!("plan{query}")))
            .await
    }

    /// # Errors
    /// No answer, or no such blob.
    pub async fn blob(&self, id: BlobId) -> anyhow::Result<Vec<u8>> {
        self.get(&format!("/v1/blobs/{id}")).await
    }

    /// Ranks on the server, seen items included.
    ///
    /// # Errors
    /// No answer, or nothing is published.
    pub async fn recommend(
        &self,
        history: &[HistoryEvent],
        k: usize,
        now_millis: i64,
    ) -> anyhow::Result<Ranking> {
        let body = json!({ "history": history, "k": k, "exclude_seen": false, "now": now_millis })
            .to_string();
        let answer = self.send(Method::POST, "/v1/recommend", body).await?;
        ensure!(answer.status == 200, "recommending: {answer:?}");
        Ok(serde_json::from_value(answer.body)?)
    }

    /// # Errors
    /// No answer.
    pub async fn status(&self) -> anyhow::Result<Status> {
        self.get_json("/v1/status").await
    }

    /// The newest version, fetched as a page without anything at hand would, its hash checked at the end.
    ///
    /// # Errors
    /// No answer, nothing is published, or what is published does not decode to what its manifest names.
    pub async fn newest_version(&self) -> anyhow::Result<(Manifest, CodeState)> {
        let trusted = self.trusted().await?;
        let plan = self.plan(None).await?;
        let manifest = verify(plan.manifest.as_bytes(), &trusted)?;
        let mut state = None;
        for step in &plan.steps {
            let bytes = self.blob(step.blob.id).await?;
            state = Some(match (step.kind, &state) {
                (PlanStepKind::Snapshot, _) => decode_snapshot(&bytes)?.1,
                (PlanStepKind::Delta, Some(base)) => apply_delta(base, &bytes)?,
                (PlanStepKind::Delta, None) => {
                    anyhow::bail!("a plan from nothing starts with a delta")
                }
            });
        }
        let state = state.context("a plan from nothing has no steps")?;
        ensure!(
            state.hash() == manifest.state,
            "the state of version {} has another hash",
            manifest.version
        );
        Ok((manifest, state))
    }

    /// The one file that pages get to embed texts with, as a page hears of it; nothing while it is being made.
    ///
    /// # Errors
    /// As for [`Self::text_encoder_kind`]; or it is not a single file.
    pub async fn text_encoder(&self, generation: u32) -> anyhow::Result<Option<BlobRef>> {
        match self.text_encoder_kind(generation).await? {
            None => Ok(None),
            Some(TextEncoderKind::Packed(blob)) => Ok(Some(blob)),
            Some(other) => anyhow::bail!("not a packed encoder: {other:?}"),
        }
    }

    /// What pages get to embed texts with; nothing while it is being made.
    ///
    /// # Errors
    /// There is none, or the note is not signed as it should be.
    pub async fn text_encoder_kind(
        &self,
        generation: u32,
    ) -> anyhow::Result<Option<TextEncoderKind>> {
        let path = self.model_path(&format!("text-encoder?generation={generation}"));
        let note = self.send(Method::GET, &path, "").await?;
        if note.status == 503 {
            return Ok(None);
        }
        ensure!(note.status == 200, "{}: {}", note.status, note.body);
        let trusted = self.trusted().await?;
        let (model, note) = (&self.address.model, note.body.to_string());
        let (note, _) = TextEncoderNote::verify(note.as_bytes(), &trusted, model, generation)?;
        Ok(Some(note.text_encoder))
    }

    /// Keys that versions may be signed with.
    async fn trusted(&self) -> anyhow::Result<Vec<VerifyingKey>> {
        let keys: KeyList = self.get_json(&self.model_path("keys")).await?;
        let keys = keys.keys.iter();
        let trusted = keys.map(|key| parse_public_key(&key.public_key));
        Ok(trusted.collect::<Result<Vec<_>, _>>()?)
    }

    fn model_path(&self, rest: &str) -> String {
        format!("/v1/models/{}/{rest}", self.address.model)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let response = self.http.get(self.address.path(path)).send().await?;
        let status = response.status();
        ensure!(status == 200, "{path} answered {status}");
        Ok(response.bytes().await?.to_vec())
    }

    async fn get_json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let bytes = self.get(path).await?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{path} answered something else than expected"))
    }
}
