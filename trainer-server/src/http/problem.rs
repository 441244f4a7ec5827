//! RFC 9457 problem documents, the one shape of every error.
//!
//! Texts here go outside: they name what the sender can change and nothing of the inside.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::limiter::Exceeded;
use crate::event_log::EventLogError;
use crate::ingest::{BodyError, Fault};

/// A problem document.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Problem {
    /// Stable name of the kind of problem, as a relative URI.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The kind in words.
    pub title: &'static str,
    /// HTTP status.
    pub status: u16,
    /// This occurrence in words.
    pub detail: String,
    /// What is wrong where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemError>,
    /// Seconds after which trying again makes sense.
    #[serde(skip)]
    pub retry_after_secs: Option<u32>,
    /// The limit that was exceeded.
    #[serde(skip)]
    pub exceeded: Option<Exceeded>,
}

/// One place that is wrong.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ProblemError {
    /// JSON pointer into the body, or the name of a query parameter.
    pub pointer: String,
    /// Stable code.
    pub code: &'static str,
    /// In words.
    pub detail: String,
}

impl Problem {
    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let status = status.as_u16();
        let detail = detail.into();
        Self {
            kind,
            title,
            status,
            detail,
            errors: Vec::new(),
            retry_after_secs: None,
            exceeded: None,
        }
    }

    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        let (kind, title) = ("/problems/unauthorized", "Unauthorized");
        Self::new(StatusCode::UNAUTHORIZED, kind, title, detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        let (kind, title) = ("/problems/forbidden", "Forbidden");
        Self::new(StatusCode::FORBIDDEN, kind, title, detail)
    }

    pub(super) fn too_many(exceeded: Exceeded) -> Self {
        let (kind, title) = ("/problems/too-many-requests", "Too many requests");
        let (name, (quota, window_secs)) = (exceeded.name, exceeded.quota());
        let detail = format!("the limit {name} is {quota} in {window_secs} seconds");
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, kind, title, detail);
        problem.retry_after_secs = Some(exceeded.retry_after_secs);
        problem.exceeded = Some(exceeded);
        problem
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "/problems/not-found",
            "Not found",
            detail,
        )
    }

    pub(super) fn method_not_allowed(detail: impl Into<String>) -> Self {
        let (kind, title) = ("/problems/method-not-allowed", "Method not allowed");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, kind, title, detail)
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        let (kind, title) = ("/problems/conflict", "Conflict");
        Self::new(StatusCode::CONFLICT, kind, title, detail)
    }

    pub(super) fn not_published() -> Self {
        let detail = "no version of this model is published yet";
        let mut problem = Self::new(
            StatusCode::NOT_FOUND,
            "/problems/not-published",
            "Not published",
            detail,
        );
        problem.retry_after_secs = Some(1);
        problem
    }

    pub(super) fn not_ready(detail: impl Into<String>) -> Self {
        let (kind, title) = ("/problems/not-ready", "Not ready");
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail);
        problem.retry_after_secs = Some(2);
        problem
    }

    pub(super) fn malformed_body(error: BodyError) -> Self {
        let (kind, title) = ("/problems/malformed-body", "Malformed body");
        let detail = match error.pointer.as_str() {
            "" => format!("the body is not what was expected: {}", error.detail),
            pointer => format!("{pointer}: {}", error.detail),
        };
        let mut problem = Self::new(StatusCode::BAD_REQUEST, kind, title, detail);
        let BodyError { pointer, detail } = error;
        problem.errors.push(ProblemError {
            pointer,
            code: "malformed",
            detail,
        });
        problem
    }

    pub(super) fn invalid_request(fault: Fault) -> Self {
        let (kind, title) = ("/problems/invalid-request", "Invalid request");
        let detail = format!("{}: {}", fault.pointer, fault.detail);
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, kind, title, detail);
        let code = fault.code.as_str();
        problem.errors.push(ProblemError {
            pointer: fault.pointer,
            code,
            detail: fault.detail,
        });
        problem
    }

    pub(super) fn invalid_query(name: &str, detail: impl Into<String>) -> Self {
        let (kind, title) = ("/problems/invalid-query", "Invalid query");
        let detail = detail.into();
        let mut problem = Self::new(
            StatusCode::BAD_REQUEST,
            kind,
            title,
            format!("{name}: {detail}"),
        );
        problem.errors.push(ProblemError {
            pointer: name.to_owned(),
            code: "malformed",
            detail,
        });
        problem
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        let (kind, title) = ("/problems/too-large", "Too large");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, kind, title, detail)
    }

    pub(super) fn unsupported_media_type(detail: impl Into<String>) -> Self {
        let (kind, title) = ("/problems/unsupported-media-type", "Unsupported media type");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, kind, title, detail)
    }

    pub(super) fn timeout(detail: impl Into<String>) -> Self {
        let (kind, title) = ("/problems/timeout", "Timeout");
        Self::new(StatusCode::REQUEST_TIMEOUT, kind, title, detail)
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        let (kind, title) = ("/problems/unavailable", "Unavailable");
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail);
        problem.retry_after_secs = Some(1);
        problem
    }

    /// Nothing of the request was stored.
    fn storage_full() -> Self {
        let (kind, title) = ("/problems/storage-full", "Storage full");
        let detail = "the disk of the event log is full; nothing was stored, send again later";
        let mut problem = Self::new(StatusCode::INSUFFICIENT_STORAGE, kind, title, detail);
        problem.retry_after_secs = Some(10);
        problem
    }

    pub(super) fn internal() -> Self {
        let (kind, title) = ("/problems/internal", "Internal error");
        let detail = "the server failed; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, kind, title, detail)
    }

    pub(super) fn range_not_satisfiable(num_bytes: usize) -> Self {
        let (kind, title) = ("/problems/range-not-satisfiable", "Range not satisfiable");
        let detail = format!("the blob has {num_bytes} bytes");
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, kind, title, detail)
    }
}

impl From<EventLogError> for Problem {
    fn from(error: EventLogError) -> Self {
        match error {
            EventLogError::Backpressure { queue_batches_max } => {
                let (kind, title) = ("/problems/backpressure", "Too many events");
                let detail = format!("{queue_batches_max} batches are waiting, send again later");
                let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail);
                problem.retry_after_secs = Some(1);
                problem
            }
            EventLogError::Closed => Self::unavailable("the server is stopping"),
            EventLogError::RecordTooLarge { record_idx, actual } => {
                Self::too_large(format!("element {record_idx} takes {actual} bytes"))
            }
            EventLogError::Storage(_) if error.is_disk_full() => {
                tracing::error!(%error, "the disk is full, the log refused a request");
                Self::storage_full()
            }
            EventLogError::Malformed { .. }
            | EventLogError::Reopening
            | EventLogError::Format { .. }
            | EventLogError::Directory { .. }
            | EventLogError::InUse
            | EventLogError::Pseudonyms
            | EventLogError::Storage(_) => {
                tracing::error!(%error, "the log refused a request");
                Self::unavailable("the event log cannot be written right now")
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("built from a status code");
        let body = serde_json::to_vec(&self).expect("texts and numbers always serialize");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        let content_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if let Some(exceeded) = &self.exceeded {
            add_rate_limit(headers, exceeded);
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"freshet\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Quota `q` in a window of `w` seconds, `r` left of it, more in `t` seconds (draft-ietf-httpapi-ratelimit-headers-10).
fn add_rate_limit(headers: &mut HeaderMap, exceeded: &Exceeded) {
    let (quota, window_secs) = exceeded.quota();
    let Exceeded {
        name,
        retry_after_secs,
        ..
    } = exceeded;
    let fields = [
        (
            "ratelimit-policy",
            format!("\"{name}\";q={quota};w={window_secs}"),
        ),
        ("ratelimit", format!("\"{name}\";r=0;t={retry_after_secs}")),
    ];
    for (field, value) in fields {
        let value = HeaderValue::try_from(value).expect("a name of ours and numbers");
        headers.insert(HeaderName::from_static(field), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_503_with_the_time_to_come_back() {
        let error = EventLogError::Backpressure {
            queue_batches_max: 4,
        };
        let response = Problem::from(error).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
    }
}
