//! For operators: `/healthz`, `/readyz`, `/metrics`.

use std::fmt::Write;

use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;

use super::document::Api;
use super::{AppState, Problem};
use crate::influence::Reason;
use crate::observe::{FRESHNESS_BUCKETS_SECS, FreshnessCounts};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Of both addresses.
pub(super) fn routes(api: &mut Api) {
    api.add(Method::GET, "/healthz", get(healthz))
        .named("getHealth", "The process answers")
        .text(TEXT_TYPE, "It does.");
    api.add(Method::GET, "/readyz", get(readyz))
        .named(
            "getReadiness",
            "Events can be taken in, and a version is published or none is possible yet",
        )
        .text(TEXT_TYPE, "Ready.")
        .problems(&[503]);
}

/// Of the address of operators.
pub(super) fn metrics_route(api: &mut Api) {
    api.add(Method::GET, "/metrics", get(metrics))
        .named("getMetrics", "Prometheus metrics")
        .text(METRICS_TYPE, "Text format 0.0.4.");
}

/// The process answers.
async fn healthz() -> &'static str {
    "ok\n"
}

/// Events can be taken in, and there is a version or there cannot be one yet. A trainer that pauses is said, but a server
/// that ranks and takes events is ready all the same. Why it pauses names files, and is for `/v1/status`.
async fn readyz(State(state): State<AppState>) -> Result<String, Problem> {
    if *state.stopping.borrow() {
        return Err(Problem::unavailable("the server is stopping"));
    }
    if !state.log.is_writable() {
        return Err(Problem::unavailable("the event log cannot be written"));
    }
    if state.publisher.latest().is_some() {
        return Ok(match state.recommender.status()["paused"].as_str() {
            Some(_) => "ready, but nothing is published: no version can be written\n".to_owned(),
            None => "ready\n".to_owned(),
        });
    }
    if state.recommender.status()["error"].is_string() {
        let detail = "there is no version, and the trainer stopped";
        return Err(Problem::unavailable(detail));
    }
    if state.catalogue.num_items() > 0 {
        return Err(Problem::unavailable(
            "the first version is not published yet",
        ));
    }
    Ok("ready\n".to_owned())
}

/// Prometheus text format, version 0.0.4.
async fn metrics(State(state): State<AppState>) -> Response {
    let mut text = Metrics::default();
    let ingest = &state.counters;
    text.counter(
        "events_accepted_total",
        "Events accepted",
        ingest.num_accepted(),
    );
    text.counter(
        "events_duplicate_total",
        "Events seen before",
        ingest.num_duplicates(),
    );
    let full = "Requests turned away because the queue was full";
    text.counter("ingest_backpressure_total", full, ingest.num_backpressure());
    text.head(
        "rejected_total",
        "Events and items refused, by reason",
        "counter",
    );
    for (code, count) in ingest.num_rejected() {
        text.line(
            &format!("rejected_total{{reason=\"{}\"}}", code.as_str()),
            count,
        );
    }
    let refused = "Requests turned away, by status of the answer";
    text.head("requests_refused_total", refused, "counter");
    for (status, count) in state.refusals.by_status() {
        let status = status.as_str();
        text.line(
            &format!("requests_refused_total{{status=\"{status}\"}}"),
            count,
        );
    }
    text.gauge(
        "log_end_offset",
        "One past the last record of the log",
        state.log.end().0,
    );
    let is_writable = u64::from(state.log.is_writable());
    text.gauge(
        "log_writable",
        "Whether the log can be written",
        is_writable,
    );
    let num_items = state.catalogue.num_items() as u64; // widening on every supported target
    text.gauge("catalogue_items", "Items in the catalogue", num_items);
    if let Some(latest) = state.publisher.latest() {
        let manifest = &latest.manifest;
        text.gauge("model_version", "Newest version", manifest.version.0);
        let through = "One past the last record learned from";
        text.gauge(
            "learned_through_offset",
            through,
            manifest.learned_through.0,
        );
        let created_at = u64::try_from(manifest.created_at).unwrap_or(0) / 1000;
        let published = "Time of the newest version, since 1970-01-01";
        text.gauge("version_published_timestamp_seconds", published, created_at);
        let delta_bytes = manifest.delta.as_ref().map_or(0, |delta| delta.blob.bytes);
        text.gauge("last_delta_bytes", "Size of the newest delta", delta_bytes);
    }
    text.histogram(
        "freshness_seconds",
        "Time from the sync of an event to the version that learned from it",
        &state.observer.freshness(),
    );
    let store = state.publisher.store_use();
    let used = "Bytes of blobs and manifests";
    text.gauge("store_bytes", used, store.used_bytes);
    let held = "Whether the room that is kept free for the log is in place";
    text.gauge("reserve_held", held, u64::from(store.is_reserve_held));
    let trainer = state.recommender.status();
    let skipped = "Events passed over under overload: counted, not learned one by one";
    let num_skipped = trainer["events_skipped"].as_u64().unwrap_or(0); // a stand-in tells none
    text.counter("events_skipped_total", skipped, num_skipped);
    let waiting = "Events passed over that no refit has learned yet";
    let num_waiting = trainer["events_to_refit"].as_u64().unwrap_or(0);
    text.gauge("events_to_refit", waiting, num_waiting);
    let refit = "Whether a refit is in training or on trial";
    let num_steps = trainer["refit_steps_total"].as_u64().unwrap_or(0);
    text.gauge("refit_running", refit, u64::from(num_steps > 0));
    text.head(
        "events_set_aside_total",
        "Events that teach nothing, by why",
        "counter",
    );
    for reason in Reason::ALL {
        let reason = reason.as_str();
        let count = trainer["set_aside"][reason].as_u64().unwrap_or(0); // those that never occurred
        text.line(
            &format!("events_set_aside_total{{reason=\"{reason}\"}}"),
            count,
        );
    }
    of_privacy(&trainer["privacy"], &mut text);
    let is_paused = trainer["paused"].is_string();
    let paused = "Whether versions cannot be written at the moment";
    text.gauge("publishing_paused", paused, u64::from(is_paused));
    let published = state.publisher.counters();
    text.counter(
        "versions_published_total",
        "Versions published",
        published.num_versions,
    );
    text.counter(
        "delta_bytes_total",
        "Bytes of published deltas",
        published.delta_bytes,
    );
    let snapshot = "Bytes of published snapshots";
    text.counter("snapshot_bytes_total", snapshot, published.snapshot_bytes);
    let composed = "Deltas merged on demand";
    text.counter("composed_deltas_total", composed, published.num_composed);
    let composed = "Bytes of deltas merged on demand";
    text.counter("composed_bytes_total", composed, published.composed_bytes);
    text.head(
        "fault_reports_total",
        "Reports of pages that could not take a version, by what failed",
        "counter",
    );
    for (code, count) in state.reports.by_code() {
        let code = code.as_str();
        text.line(&format!("fault_reports_total{{code=\"{code}\"}}"), count);
    }
    let pages = state.publisher.num_cohort_pages() as u64; // usize fits u64
    text.gauge(
        "canary_pages",
        "Pages of the canary's cohort that watch",
        pages,
    );
    ([(header::CONTENT_TYPE, METRICS_TYPE)], text.0).into_response()
}

/// What private training has told, where training is private.
fn of_privacy(privacy: &Value, text: &mut Metrics) {
    for (name, help, field) in [
        (
            "privacy_epsilon",
            "What private training has told of any one client, at most",
            "epsilon",
        ),
        (
            "privacy_epsilon_max",
            "Beyond it no private round begins",
            "epsilon_max",
        ),
        (
            "privacy_delta",
            "Chance that epsilon does not hold",
            "delta",
        ),
    ] {
        if let Some(value) = privacy[field].as_f64() {
            text.fraction(name, help, value);
        }
    }
}

#[derive(Default)]
struct Metrics(String);

impl Metrics {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        writeln!(
            self.0,
            "# HELP freshet_{name} {help}.\n# TYPE freshet_{name} {kind}"
        )
        .expect("writing to a String cannot fail");
    }

    fn line(&mut self, series: &str, value: u64) {
        writeln!(self.0, "freshet_{series} {value}").expect("writing to a String cannot fail");
    }

    fn histogram(&mut self, name: &str, help: &str, counts: &FreshnessCounts) {
        self.head(name, help, "histogram");
        for (bound, count) in FRESHNESS_BUCKETS_SECS.iter().zip(counts.at_most) {
            self.line(&format!("{name}_bucket{{le=\"{bound}\"}}"), count);
        }
        self.line(&format!("{name}_bucket{{le=\"+Inf\"}}"), counts.count);
        writeln!(self.0, "freshet_{name}_sum {}", counts.sum_secs)
            .expect("writing to a String cannot fail");
        self.line(&format!("{name}_count"), counts.count);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(name, value);
    }

    fn fraction(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        writeln!(self.0, "freshet_{name} {value}").expect("writing to a String cannot fail");
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.line(name, value);
    }
}
