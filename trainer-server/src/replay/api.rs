//! The requests of whoever feeds a server: items, events, status.
//!
//! Every event keeps its id over retries, so that a batch whose answer was lost counts once.

use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use shared_model::event::{Event, Item};
use shared_model::ids::LogOffset;

use crate::page_client::ServerAddress;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Tries of one request before giving up; the pauses between them add up to about 20 s.
const NUM_TRIES: u32 = 12;
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// Items or events per request: below the server's default limits on count and body size.
pub const BATCH_LEN_MAX: usize = 500;

/// Why the server did not take something.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection or no answer, after all tries.
    #[error("{action} failed after {NUM_TRIES} tries")]
    Transport {
        /// What was tried.
        action: &'static str,
        /// The last failure.
        source: reqwest::Error,
    },
    /// Refused, or overloaded at every try.
    #[error("{action}: the server answered {status}: {body}")]
    Status {
        /// What was tried.
        action: &'static str,
        /// Its status.
        status: StatusCode,
        /// Start of its body.
        body: String,
    },
}

/// One refused event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rejected {
    /// Position in the batch.
    pub index: usize,
    /// Stable code.
    pub code: String,
    /// In words.
    #[serde(default)]
    pub detail: String,
}

/// What became of a batch of events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Receipt {
    /// New ones.
    pub accepted: u64,
    /// Known ones.
    #[serde(default)]
    pub duplicates: u64,
    /// Refused ones.
    #[serde(default)]
    pub rejected: Vec<Rejected>,
    /// End of the log once the batch was in it.
    pub offset: LogOffset,
}

/// A connection to one server.
#[derive(Debug, Clone)]
pub struct ServerApi {
    http: reqwest::Client,
    address: ServerAddress,
}

#[derive(Serialize)]
struct EventBatch<'a> {
    events: &'a [Event],
}

#[derive(Serialize)]
struct ItemBatch<'a> {
    items: &'a [Item],
}

impl ServerApi {
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(address: &ServerAddress) -> Result<Self, ApiError> {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|source| ApiError::Transport {
                action: "building the HTTP client",
                source,
            })?;
        Ok(Self {
            http,
            address: address.clone(),
        })
    }

    /// The server this talks to.
    #[must_use]
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// Puts a whole catalogue.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn put_items(&self, items: &[Item]) -> Result<(), ApiError> {
        let url = self.address.path("/v1/items");
        for batch in items.chunks(BATCH_LEN_MAX) {
            let request = self.http.put(&url).json(&ItemBatch { items: batch });
            send("putting items", request).await?;
        }
        Ok(())
    }

    /// Posts events, at most [`BATCH_LEN_MAX`] of them per request; receipts are added up.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn post_events(&self, events: &[Event]) -> Result<Receipt, ApiError> {
        let url = self.address.path("/v1/events");
        let mut sum = Receipt {
            accepted: 0,
            duplicates: 0,
            rejected: Vec::new(),
            offset: LogOffset(0),
        };
        for (batch_idx, batch) in events.chunks(BATCH_LEN_MAX).enumerate() {
            let request = self.http.post(&url).json(&EventBatch { events: batch });
            let response = send("posting events", request).await?;
            let receipt: Receipt = response
                .json()
                .await
                .map_err(|source| ApiError::Transport {
                    action: "reading a receipt",
                    source,
                })?;
            sum.accepted += receipt.accepted;
            sum.duplicates += receipt.duplicates;
            sum.offset = sum.offset.max(receipt.offset);
            let first = batch_idx * BATCH_LEN_MAX;
            sum.rejected
                .extend(receipt.rejected.into_iter().map(|one| Rejected {
                    index: first + one.index,
                    ..one
                }));
        }
        Ok(sum)
    }

    /// Whether the server answers at all.
    pub async fn is_healthy(&self) -> bool {
        let answer = self.http.get(self.address.path("/healthz")).send().await;
        answer.is_ok_and(|response| response.status() == StatusCode::OK)
    }

    /// The status document, for people to look at; `None` when there is no answer.
    pub async fn status(&self) -> Option<serde_json::Value> {
        let response = self
            .http
            .get(self.address.path("/v1/status"))
            .send()
            .await
            .ok()?; // shown again in a second
        response.json().await.ok() // likewise
    }
}

/// Sends until it is answered; waits as told when the server is overloaded.
async fn send(
    action: &'static str,
    request: RequestBuilder,
) -> Result<reqwest::Response, ApiError> {
    let mut pause = PAUSE_MIN;
    let mut try_idx = 1;
    loop {
        let attempt = request.try_clone().expect("a JSON body can be cloned");
        let is_last = try_idx == NUM_TRIES;
        match attempt.send().await {
            Ok(response) if response.status() == StatusCode::OK => return Ok(response),
            Ok(response) => {
                let status = response.status();
                let is_overload = status == StatusCode::SERVICE_UNAVAILABLE
                    || status == StatusCode::TOO_MANY_REQUESTS;
                if !is_overload || is_last {
                    let body = response
                        .text()
                        .await
                        .unwrap_or_default()
                        .chars()
                        .take(500)
                        .collect();
                    return Err(ApiError::Status {
                        action,
                        status,
                        body,
                    });
                }
                pause = retry_after(&response).unwrap_or(pause);
            }
            Err(source) if is_last => return Err(ApiError::Transport { action, source }),
            Err(_retried) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        try_idx += 1;
    }
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let secs: u64 = response
        .headers()
        .get("retry-after")?
        .to_str()
        .ok()?
        .parse()
        .ok()?; // anything else is not in seconds
    Some(Duration::from_secs(secs).min(PAUSE_MAX))
}
