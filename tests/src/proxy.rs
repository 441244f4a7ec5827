//! A network that damages what it carries: a proxy between page and server whose fault can be switched.
//!
//! It stands for a broken cache, a truncating middlebox, or someone hostile on the way.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use trainer_server::page_client::ServerAddress;
use trainer_server::page_client::sse::{SseEvent, SseParser};

/// Largest body that passes.
const BODY_BYTES_MAX: usize = 16 << 20;

/// What the network does to what it carries. Those about blobs and plans also take the inline deltas out of
/// announcements, so that pages have to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Blobs end in the middle.
    TruncatedBlobs,
    /// Blobs have one other bit.
    FlippedBlobs,
    /// Inline deltas have one other bit.
    FlippedInlineDeltas,
    /// Plans start from the version before the one that was asked from.
    PlansOfAnotherBase,
    /// The manifests of announcements say something else than what was signed.
    ForgedManifests,
    /// The rules of operators say something else than what was signed.
    ForgedRules,
    /// The rules of operators are the first that were ever carried.
    OlderRules,
    /// Feedback is turned away with 503, to come back after a second.
    BusyForFeedback,
}

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    fault: Arc<Mutex<Fault>>,
    num_turned_away: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Carrier {
    http: reqwest::Client,
    upstream: ServerAddress,
    fault: Arc<Mutex<Fault>>,
    num_turned_away: Arc<AtomicU64>,
    /// The first rules of operators that were carried.
    first_rules: Arc<OnceLock<Bytes>>,
}

impl Proxy {
    /// Starts without a fault.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(upstream: &ServerAddress) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address: SocketAddr = listener.local_addr()?;
        let fault = Arc::new(Mutex::new(Fault::None));
        let num_turned_away = Arc::new(AtomicU64::new(0));
        let http = reqwest::Client::builder().no_proxy().build()?;
        let carrier = Carrier {
            http,
            upstream: upstream.clone(),
            fault: Arc::clone(&fault),
            num_turned_away: Arc::clone(&num_turned_away),
            first_rules: Arc::default(),
        };
        let router = axum::Router::new().fallback(carry).with_state(carrier);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the proxy ended: {error}");
            }
        });
        Ok(Self {
            url: format!("http://{address}"),
            fault,
            num_turned_away,
            task,
        })
    }

    /// Where pages reach the server through it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Requests that were answered with 503.
    #[must_use]
    pub fn num_turned_away(&self) -> u64 {
        self.num_turned_away.load(Ordering::Relaxed)
    }

    /// From now on, also on streams that are open already.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Carrier {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self, request: Request) -> anyhow::Result<Response> {
        let (parts, body) = request.into_parts();
        if parts.uri.path() == "/v1/events" && self.fault() == Fault::BusyForFeedback {
            self.num_turned_away.fetch_add(1, Ordering::Relaxed);
            return Ok(busy());
        }
        let path = parts
            .uri
            .path_and_query()
            .context("a request has a path")?
            .as_str();
        let path = asked_path(path, self.fault());
        let is_stream = parts.uri.path().ends_with("/watch");
        let is_blob = parts.uri.path().starts_with("/v1/blobs/");
        let is_rules = parts.uri.path().ends_with("/moderation");
        let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await?;
        let mut upstream = self
            .http
            .request(parts.method, self.upstream.path(&path))
            .body(body);
        if let Some(content_type) = parts.headers.get(header::CONTENT_TYPE) {
            upstream = upstream.header(header::CONTENT_TYPE, content_type);
        }
        let answer = upstream.send().await?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::TRANSFER_ENCODING);
        let body = if is_stream {
            Body::from_stream(self.stream(answer))
        } else {
            let bytes = answer.bytes().await?;
            Body::from(if is_blob {
                damaged_blob(bytes, self.fault())
            } else if is_rules {
                self.carried_rules(bytes)
            } else {
                bytes
            })
        };
        Ok((status, headers, body).into_response())
    }

    fn carried_rules(&self, bytes: Bytes) -> Bytes {
        let first = self.first_rules.get_or_init(|| bytes.clone()).clone();
        match self.fault() {
            Fault::ForgedRules => String::from_utf8_lossy(&bytes)
                .replacen("block", "blocc", 1)
                .into(),
            Fault::OlderRules => first,
            Fault::None
            | Fault::TruncatedBlobs
            | Fault::FlippedBlobs
            | Fault::FlippedInlineDeltas
            | Fault::PlansOfAnotherBase
            | Fault::ForgedManifests
            | Fault::BusyForFeedback => bytes,
        }
    }

    /// Announcements, each damaged by the fault of its moment.
    fn stream(
        self,
        answer: reqwest::Response,
    ) -> impl futures_util::Stream<Item = anyhow::Result<Bytes>> {
        let mut parser = SseParser::default();
        answer.bytes_stream().map(move |piece| {
            let events = parser.push(&piece?)?;
            let mut text = String::from(":\n\n"); // a comment, so that a silent stream stays alive
            for event in events {
                text.push_str(&carried_event(&event, self.fault())?);
            }
            Ok(Bytes::from(text))
        })
    }
}

/// As the server says it, which every origin may read.
fn busy() -> Response {
    let headers = [
        (header::RETRY_AFTER, "1"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "retry-after"),
    ];
    (StatusCode::SERVICE_UNAVAILABLE, headers).into_response()
}

async fn carry(State(carrier): State<Carrier>, request: Request) -> Response {
    match carrier.answer(request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn asked_path(path: &str, fault: Fault) -> String {
    let Some((before, base)) = path.split_once("/plan?base=") else {
        return path.to_owned();
    };
    let (base, rest) = base.split_at(base.find('&').unwrap_or(base.len()));
    match (fault, base.parse::<u64>()) {
        (Fault::PlansOfAnotherBase, Ok(base)) => {
            format!("{before}/plan?base={}{rest}", base.saturating_sub(1))
        }
        (_, _) => path.to_owned(),
    }
}

fn damaged_blob(bytes: Bytes, fault: Fault) -> Bytes {
    match fault {
        Fault::TruncatedBlobs => bytes.slice(..bytes.len() / 2),
        Fault::FlippedBlobs => flipped(&bytes),
        Fault::None
        | Fault::FlippedInlineDeltas
        | Fault::PlansOfAnotherBase
        | Fault::ForgedManifests
        | Fault::ForgedRules
        | Fault::OlderRules
        | Fault::BusyForFeedback => bytes,
    }
}

fn carried_event(event: &SseEvent, fault: Fault) -> anyhow::Result<String> {
    if event.name != "version" {
        let data = String::from_utf8_lossy(&event.data);
        return Ok(format!("event: {}\ndata: {data}\n\n", event.name));
    }
    let mut announcement: Value = serde_json::from_slice(&event.data)?;
    match fault {
        Fault::None | Fault::BusyForFeedback | Fault::ForgedRules | Fault::OlderRules => {}
        Fault::FlippedInlineDeltas => {
            if let Some(delta) = announcement["delta"].as_str() {
                announcement["delta"] = STANDARD.encode(flipped(&STANDARD.decode(delta)?)).into();
            }
        }
        Fault::ForgedManifests => {
            let signed = announcement["manifest"].as_str().unwrap_or_default();
            announcement["manifest"] = signed
                .replacen("learned_through", "learned_thrown", 1)
                .into();
        }
        Fault::TruncatedBlobs | Fault::FlippedBlobs | Fault::PlansOfAnotherBase => {
            announcement["delta"] = Value::Null
        }
    }
    Ok(format!("event: {}\ndata: {announcement}\n\n", event.name))
}

/// One other bit in the last quarter, which is behind the header and before the end of the coder.
fn flipped(bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    let position = bytes.len() * 7 / 8;
    if let Some(byte) = bytes.get_mut(position) {
        *byte ^= 0x10;
    }
    Bytes::from(bytes)
}
