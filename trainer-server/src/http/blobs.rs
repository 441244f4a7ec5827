//! `GET /v1/blobs/{hash}`: immutable bytes, cacheable for ever, resumable by range.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing;
use serde_json::json;
use shared_model::ids::BlobId;

use super::document::Api;
use super::query::Path;
use super::{AppState, Problem};

/// Bytes of a blob never change: whoever has them need not ask again for a year.
const BYTES_TYPE: &str = "application/octet-stream";
const EXAMPLE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

pub(super) fn routes(api: &mut Api) {
    let text = json!({ "type": "string" });
    let bytes = || Some((BYTES_TYPE, json!({ "type": "string", "format": "binary" })));
    api.add(Method::GET, "/v1/blobs/{hash}", routing::get(get))
        .named("getBlob", "Bytes of a delta, a snapshot or a text encoder")
        .about("Immutable: cacheable for ever. Single ranges are served.")
        .path::<BlobId>("hash", "BLAKE3 of the bytes.", EXAMPLE)
        .header(
            "Range",
            "Which bytes are wanted, as `bytes=0-1023`.",
            text.clone(),
        )
        .header(
            "If-Range",
            "The `ETag` of the blob that the range is of.",
            text.clone(),
        )
        .header(
            "If-None-Match",
            "The `ETag` of the blob that is known.",
            text,
        )
        .answer(200, "The bytes.", bytes())
        .answer(206, "The range that was asked for.", bytes())
        .answer(304, "The blob is known: it never changes.", None)
        .problems(&[404, 416, 500]);
}

async fn get(
    State(state): State<AppState>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(id) = BlobId::from_hex(&hash) else {
        return Err(Problem::not_found(
            "a blob is named by 64 lower-case hexadecimal digits",
        ));
    };
    let bytes = match state.text_packs.file(id) {
        Some(bytes) => bytes,
        None => read(&state, id).await?,
    };
    let etag = format!("\"{id}\"");
    let cache = [
        (header::ETAG, etag.as_str()),
        (header::CACHE_CONTROL, IMMUTABLE),
    ];
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known == etag.as_str())
    {
        return Ok((StatusCode::NOT_MODIFIED, cache).into_response());
    }
    let kind = [
        (header::CONTENT_TYPE, BYTES_TYPE),
        (header::ACCEPT_RANGES, "bytes"),
    ];
    // What a condition names must be this very blob, or the whole is sent (RFC 9110, 13.1.5).
    let is_other = headers
        .get(header::IF_RANGE)
        .is_some_and(|known| known != etag.as_str());
    let range = headers
        .get(header::RANGE)
        .filter(|_| !is_other)
        .and_then(|range| range.to_str().ok()); // no text, no range
    match range.map_or(Range::Whole, |range| parse_range(range, bytes.len())) {
        Range::Whole => Ok((cache, kind, bytes).into_response()),
        Range::Part { start, end } => {
            let content_range = format!("bytes {start}-{}/{}", end - 1, bytes.len());
            let part = [(header::CONTENT_RANGE, content_range)];
            let bytes = bytes.slice(start..end);
            Ok((StatusCode::PARTIAL_CONTENT, cache, kind, part, bytes).into_response())
        }
        Range::Beyond => Err(Problem::range_not_satisfiable(bytes.len())),
    }
}

async fn read(state: &AppState, id: BlobId) -> Result<Bytes, Problem> {
    let publisher = state.publisher.clone();
    match tokio::task::spawn_blocking(move || publisher.blobs().get(id)).await {
        Ok(Ok(Some(bytes))) => Ok(Bytes::from(bytes)),
        Ok(Ok(None)) => Err(Problem::not_found(
            "there is no such blob, ask for a new plan",
        )),
        Ok(Err(error)) => {
            tracing::error!(%error, "a blob cannot be served");
            Err(Problem::internal())
        }
        Err(error) => {
            tracing::error!(%error, "reading a blob panicked");
            Err(Problem::internal())
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// No range, or one that is not understood: the whole is sent, as RFC 9110 wants it.
    Whole,
    /// From `start` up to `end`, which is not in it; never empty.
    Part { start: usize, end: usize },
    /// Starts behind the last byte.
    Beyond,
}

/// A single range `bytes=a-b`, `bytes=a-` or `bytes=-n`.
fn parse_range(text: &str, num_bytes: usize) -> Range {
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Range::Whole;
    };
    let (start, end) = match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
        (Ok(start), Ok(last)) if start <= last => (start, last.saturating_add(1).min(num_bytes)),
        (Ok(start), Err(_)) if last.trim().is_empty() => (start, num_bytes),
        (Err(_), Ok(suffix)) if first.trim().is_empty() => {
            (num_bytes - suffix.min(num_bytes), num_bytes)
        }
        _ => return Range::Whole,
    };
    if start >= num_bytes || start >= end {
        return Range::Beyond;
    }
    Range::Part { start, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_blob_and_nonsense_is_the_whole() {
        let part = |start, end| Range::Part { start, end };
        assert_eq!(parse_range("bytes=0-3", 10), part(0, 4));
        assert_eq!(parse_range("bytes=4-", 10), part(4, 10));
        assert_eq!(parse_range("bytes=-3", 10), part(7, 10));
        assert_eq!(parse_range("bytes=8-99", 10), part(8, 10));
        assert_eq!(parse_range("bytes=-99", 10), part(0, 10));
        assert_eq!(parse_range("bytes=10-", 10), Range::Beyond);
        assert_eq!(parse_range("bytes=-0", 10), Range::Beyond);
        assert_eq!(parse_range("bytes=0-", 0), Range::Beyond);
        for nonsense in [
            "",
            "bytes=",
            "bytes=-",
            "bytes=3-1",
            "bytes=a-b",
            "items=0-1",
            "bytes=0-1,4-5",
        ] {
            assert_eq!(parse_range(nonsense, 10), Range::Whole, "{nonsense}");
        }
        assert_eq!(parse_range("bytes=0-18446744073709551615", 10), part(0, 10));
    }
}
