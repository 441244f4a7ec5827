//! Request bodies: size, time and type are checked before a byte is parsed; the time by `pace`.

use std::error::Error;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
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
        Ok(Self(read(request, state, body_bytes_max).await?))
    }
}

/// A body of at most so many bytes that must be called `application/json`: a page of another origin cannot send that
/// unasked.
pub(super) struct StrictJson<T, const BYTES_MAX: usize>(pub(super) T);

impl<T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<AppState>
    for StrictJson<T, BYTES_MAX>
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        check_called(request.headers(), "application/json")?;
        let bytes = read(request, state, BYTES_MAX).await?;
        without_null(&bytes).map(Self).map_err(not_json)
    }
}

/// Reads a value in which a field that is null is as good as left out.
fn without_null<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let error = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let mut value: Value = serde_json::from_slice(bytes)?;
    match drop_null(&mut value) {
        true => serde_json::from_value(value).map_err(|_| error), // it says where
        false => Err(error),
    }
}

/// Whether any field was null.
fn drop_null(value: &mut Value) -> bool {
    match value {
        Value::Object(fields) => {
            let num_fields = fields.len();
            fields.retain(|_, field| !field.is_null());
            let dropped = fields.len() < num_fields;
            fields
                .values_mut()
                .map(drop_null)
                .fold(dropped, |any, one| any | one)
        }
        Value::Array(values) => values
            .iter_mut()
            .map(drop_null)
            .fold(false, |any, one| any | one),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Reads a body of at most so many bytes.
pub(super) async fn read(
    mut request: Request,
    state: &AppState,
    bytes_max: usize,
) -> Result<Bytes, Problem> {
    DefaultBodyLimit::max(bytes_max).apply(&mut request);
    let rejection = match Bytes::from_request(request, state).await {
        Ok(bytes) => return Ok(bytes),
        Err(rejection) => rejection,
    };
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let detail = format!("at most {bytes_max} bytes are allowed");
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

/// Refuses a body that is called something else, or is compressed.
pub(super) fn check_called(headers: &HeaderMap, expected: &str) -> Result<(), Problem> {
    check_plain(headers)?;
    let found = headers.get(header::CONTENT_TYPE).map_or("none", essence);
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let detail = format!("expected the type {expected}, found {found}");
    Err(Problem::unsupported_media_type(detail))
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
        serde_json::from_slice(&self.0).map_err(not_json)
    }
}

pub(super) fn not_json(error: serde_json::Error) -> Problem {
    Problem::malformed_body(BodyError {
        pointer: String::new(),
        detail: error.to_string(),
    })
}

fn check_plain(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::unsupported_media_type(
            "compressed bodies are not read",
        ));
    }
    Ok(())
}

/// The type without its parameters.
fn essence(content_type: &HeaderValue) -> &str {
    let text = content_type.to_str().unwrap_or_default(); // a type that is no text is none
    text.split(';').next().unwrap_or_default().trim()
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    check_plain(headers)?;
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = essence(content_type);
    let is_json = ["application/json", "text/plain"]
        .iter()
        .any(|accepted| essence.eq_ignore_ascii_case(accepted));
    if is_json {
        return Ok(());
    }
    let detail = format!("expected application/json or text/plain, found {essence}");
    Err(Problem::unsupported_media_type(detail))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        name: String,
        #[serde(default)]
        secs: u64,
        #[serde(default)]
        parts: Vec<Option<u8>>,
    }

    #[test]
    fn a_field_that_is_null_is_left_out_and_errors_say_where_all_the_same() {
        let read =
            |text: &str| without_null::<Order>(text.as_bytes()).map_err(|error| error.to_string());
        let order = Order {
            name: "a".to_owned(),
            secs: 0,
            parts: vec![None],
        };
        assert_eq!(
            read(r#"{"name":"a","secs":null,"parts":[null]}"#),
            Ok(order)
        );
        let error = read(r#"{"name":null}"#).expect_err("it must be there");
        assert!(error.contains("line 1 column"), "{error}");
        assert!(read(r#"{"name":"a","name":"b"}"#).is_err_and(|error| error.contains("duplicate")));
        assert!(read("{").is_err());
    }
}
