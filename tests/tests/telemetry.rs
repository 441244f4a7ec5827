//! Claims about what the server tells of a request and of an event: by its name in the log, by its trace, by its state.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use harness::scene::{HOUR_MILLIS, NOW_MILLIS, Scene};
use harness::wait;
use reqwest::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// A collector that keeps the bodies it is sent.
#[derive(Clone, Default)]
struct Collector {
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    async fn start() -> anyhow::Result<(Self, String)> {
        let collector = Self::default();
        let router = Router::new().route("/v1/traces", post(Self::take));
        let router = router.with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok((collector, url))
    }

    async fn take(State(collector): State<Self>, body: Bytes) {
        collector.lock().push(body);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Bytes>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names in protobuf are their bytes.
    fn has(&self, wanted: &[u8]) -> bool {
        let is_in = |body: &Bytes| body.windows(wanted.len()).any(|window| window == wanted);
        self.lock().iter().any(is_in)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_a_name_in_its_answer_in_the_log_and_in_the_trace_of_its_sender()
-> anyhow::Result<()> {
    let (collector, url) = Collector::start().await?;
    let settings = [
        ("clock.mode", "event_time"),
        ("telemetry.format", "json"),
        ("telemetry.filter", "info,freshet::request=debug"),
        ("telemetry.otlp_endpoint", &url),
    ];
    let Scene {
        mut world,
        mut people,
        server,
    } = Scene::start(5, &settings).await?; // its first version is there: what comes now is learned in a round
    let clicked = world.items[0].item_id.clone();
    let event = world.click(&mut people[0], &clicked, NOW_MILLIS);

    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let response = reqwest::Client::new()
        .post(server.address().path("/v1/events"))
        .header("x-request-id", "checkout-17")
        .header("traceparent", format!("00-{trace_id}-00f067aa0ba902b7-01"))
        .json(&json!({ "events": [event] }))
        .send()
        .await?;
    ensure!(response.status() == 200);
    ensure!(response.headers()["x-request-id"] == "checkout-17");

    let line = wait::until("the line of the request", PATIENCE, async || {
        let text = server.log_text();
        Ok(text.lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?; // what the process prints besides is no line of the log
            (line["target"] == "freshet::request" && line["span"]["id"] == "checkout-17")
                .then_some(line)
        }))
    });
    let line = line.await?;
    ensure!(
        line["status"] == 200 && line["span"]["route"] == "/v1/events",
        "{line}"
    );

    server.has_learned_all().await?;
    let trace_bytes = u128::from_str_radix(trace_id, 16)?.to_be_bytes();
    let wanted: [&[u8]; 5] = [
        &trace_bytes,
        b"POST /v1/events",
        b"sync",
        b"learn",
        b"publish",
    ];
    let traced = wait::until("the traces", PATIENCE, async || {
        Ok(wanted.iter().all(|name| collector.has(name)).then_some(()))
    });
    traced.await.with_context(|| {
        let missing = wanted.iter().find(|name| !collector.has(name));
        let missing = missing.map(|name| String::from_utf8_lossy(name));
        format!("no trace with {missing:?}")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_followed_from_the_log_into_the_version_that_was_the_first_to_learn_it()
-> anyhow::Result<()> {
    let mut scene = Scene::start(2, &[("clock.mode", "event_time")]).await?;
    scene.server.has_learned_all().await?;
    let clicked = scene.world.items[0].item_id.clone();
    let event = scene
        .world
        .click(&mut scene.people[0], &clicked, NOW_MILLIS + HOUR_MILLIS);
    let api = &scene.server.api;
    let path = format!("/v1/events/{}", event.event_id);
    let before = api.send(Method::GET, &path, "").await?;
    ensure!(before.status == 404, "{before:?}");

    let receipt = api.post_events(&[event.clone()]).await?;
    let waiting_or_learned = api.send(Method::GET, &path, "").await?;
    let state = waiting_or_learned.body["state"].clone();
    ensure!(
        state == "waiting" || state == "learned",
        "{waiting_or_learned:?}"
    );
    scene.server.has_learned_all().await?;
    let learned = api.send(Method::GET, &path, "").await?.body;
    ensure!(learned["state"] == "learned", "{learned}");
    ensure!(
        learned["offset"] == json!(receipt.offset.0 - 1),
        "{learned}"
    );
    let first = learned["first_version"]["version"]
        .as_u64()
        .context("a version")?;
    let manifests = scene.server.manifests().await?;
    let manifest = manifests
        .iter()
        .find(|manifest| manifest.version.0 == first);
    let manifest = manifest.context("the version is published")?;
    let (from, through) = (manifest.learned_from, manifest.learned_through);
    ensure!(
        from < receipt.offset && receipt.offset <= through,
        "{from} {through}"
    );
    Ok(())
}
