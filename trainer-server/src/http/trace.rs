//! A name for every request: in its answer, in every line that is logged for it, and in its trace.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Instrument, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Holds the name of a request: that of the sender where it is one, else ours.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_LEN_MAX: usize = 64;
/// Lines about whole requests; by `freshet::request=debug` all of them are written, else those that failed here.
const TARGET: &str = "freshet::request";

pub(super) async fn traced(request: Request, next: Next) -> Response {
    let started_at = Instant::now();
    let (id, header) = request_id(request.headers());
    let span = span_of(&request, &id);
    let mut response = next.run(request).instrument(span.clone()).await;
    response.headers_mut().insert(REQUEST_ID, header);
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    let _entered = span.enter();
    let millis = started_at.elapsed().as_secs_f64() * 1000.0;
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        tracing::warn!(target: TARGET, status = status.as_u16(), millis, "failed");
    } else {
        tracing::debug!(target: TARGET, status = status.as_u16(), millis, "answered");
    }
    response
}

/// A span below the trace that the sender names in `traceparent`, if it does (W3C Trace Context).
fn span_of(request: &Request, id: &str) -> Span {
    let method = request.method().as_str();
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or("", MatchedPath::as_str); // nothing there: any text might stand in its path
    let span = tracing::info_span!(
        target: TARGET,
        "request",
        id,
        method,
        route,
        otel.name = format!("{method} {route}").trim_end(),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.response.status_code = field::Empty,
    );
    let sender = TraceContextPropagator::new().extract(&Headers(request.headers()));
    span.set_parent(sender).ok(); // no traces are gathered
    span
}

/// The request's name and the header that tells it.
fn request_id(headers: &HeaderMap) -> (String, HeaderValue) {
    let given = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let id = match given.filter(|given| is_id(given)) {
        Some(given) => given.to_owned(),
        None => format!("{:032x}", rand::random::<u128>()),
    };
    let header = HeaderValue::from_str(&id).expect("letters and digits make a header");
    (id, header)
}

/// Nothing that could be taken for another line or field of a log.
fn is_id(given: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=REQUEST_ID_LEN_MAX).contains(&given.len()) && given.bytes().all(is_plain)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_over_where_it_is_one_and_made_where_not() {
        let named = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(value));
            request_id(&headers).0
        };
        assert_eq!(named("order-17_b.2"), "order-17_b.2");
        for bad in ["", "two words", "a\tb", "quote\"", &"x".repeat(65)] {
            let made = named(bad.to_owned().leak());
            assert_eq!(made.len(), 32, "{bad}");
            assert_ne!(made, bad);
        }
        let empty = HeaderMap::new();
        assert_ne!(request_id(&empty).0, request_id(&empty).0);
    }
}
