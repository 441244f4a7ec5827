//! Request bodies: size, time and type are checked before a byte is parsed; the time by `pace`.

use std::error::Error;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use super::pace::BodyCut;
use super::{AppState, Problem};
use crate::ingest::BodyError;

/// Bodies up to this size are worked on where they arrive: that takes well under a millisecond.
const INLINE_BODY_BYTES_MAX: usize = 16 * 1024;

/// Runs `work` on a body of `num_bytes`, on another thread when that would hold up other requests.
pub(super) async fn work_on<T: Send + 'static>(
    num_bytes: usize,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if num_bytes <= INLINE_BODY_BYTES_MAX {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            tracing::error!(%error, "working on a body panicked");
            Err(Problem::internal())
        })
}

/// Runs `work` to its end even when the sender hangs up, which would otherwise drop it half-way.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "working on a request panicked");
        Err(Problem::internal())
    })
}

/// A body that holds JSON, as `application/json` or, for `navigator.sendBeacon`, `text/plain`.
pub(super) struct JsonBytes(pub(super) Bytes);

impl FromRequest<AppState> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        check_type(request.headers())?;
        let body_bytes_max = state.config.server.body_bytes_max;
        let rejection = match Bytes::from_request(request, state).await {
            Ok(bytes) => return Ok(Self(bytes)),
            Err(rejection) => rejection,
        };
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("at most {body_bytes_max} bytes are allowed");
            return Err(Problem::too_large(detail));
        }
        match cut_of(&rejection) {
            Some(cut @ BodyCut::TooSlow) => return Err(Problem::timeout(cut.to_string())),
            Some(cut @ BodyCut::NoRoom) => return Err(Problem::unavailable(cut.to_string())),
            Some(BodyCut::Broken(_)) | None => {}
        }
        Err(Problem::malformed_body(BodyError {
            pointer: String::new(),
            detail: rejection.body_text(),
        }))
    }
}

/// Why the body was cut off, if it was.
fn cut_of<'a>(rejection: &'a (dyn Error + 'static)) -> Option<&'a BodyCut> {
    let mut cause = Some(rejection);
    while let Some(error) = cause {
        if let Some(cut) = error.downcast_ref() {
            return Some(cut);
        }
        cause = error.source();
    }
    None
}

impl JsonBytes {
    /// Parses the whole body.
    pub(super) fn value(&self) -> Result<Value, Problem> {
        serde_json::from_slice(&self.0).map_err(|error| {
            Problem::malformed_body(BodyError {
                pointer: String::new(),
                detail: error.to_string(),
            })
        })
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::unsupported_media_type(
            "compressed bodies are not read",
        ));
    }
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let content_type = content_type.to_str().unwrap_or_default(); // a type that is no text is none
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let is_json = ["application/json", "text/plain"]
        .iter()
        .any(|accepted| essence.eq_ignore_ascii_case(accepted));
    if is_json {
        return Ok(());
    }
    let detail = format!("expected application/json or text/plain, found {content_type}");
    Err(Problem::unsupported_media_type(detail))
}
