//! Claims about the server as a whole: problems, limits of connections, its end.

use std::time::{Duration, Instant};

use serde_json::Value;
use shared_model::manifest::VersionKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trainer_server::http::Address;

use crate::api::routes;
use crate::harness::{TestServer, new_version};

#[tokio::test]
async fn routes_of_operators_are_not_for_everyone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let public = routes(Address::Only);
    for (route, _) in routes(Address::Admin) {
        if public.iter().all(|(known, _)| *known != route) {
            let request = server.client.post(format!("{}{route}", server.url));
            let status = request.send().await.expect("an answer").status();
            assert_eq!(status, 404, "{route}");
        }
    }
}

#[tokio::test]
async fn whatever_is_not_there_is_a_problem_document() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/v1/events", 405),
        ("PATCH", "/v1/items", 405),
    ] {
        let method = method.parse().expect("a method");
        let request = server
            .client
            .request(method, format!("{}{path}", server.url));
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), status);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let problem: Value = response.json().await.expect("JSON");
        assert_eq!(problem["status"], status);
    }
}

#[tokio::test]
async fn a_static_folder_is_served_beside_the_api_and_nothing_outside_of_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let shop = tempfile::tempdir().expect("temp dir");
    std::fs::write(shop.path().join("index.html"), "<h1>Shop</h1>").expect("written");
    let static_dir = shop.path().display().to_string();
    let server = TestServer::start(dir.path(), &[("server.static_dir", &static_dir)]).await;
    assert_eq!(
        server.get("/").await.text().await.expect("body"),
        "<h1>Shop</h1>"
    );
    assert_eq!(server.get("/healthz").await.status(), 200);
    for path in ["/missing.js", "/..%2f..%2fetc/passwd", "/v1/nothing"] {
        let response = server.get(path).await;
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_post_events_and_not_change_the_catalogue() {
    let dir = tempfile::tempdir().expect("temp dir");
    let flags = [("server.cors_origins", "[\"https://shop.example\"]")];
    let server = TestServer::start(dir.path(), &flags).await;
    let preflight = |path: &'static str, origin: &'static str, method: &'static str| {
        let request = server
            .client
            .request(reqwest::Method::OPTIONS, format!("{}{path}", server.url));
        let request = request.header("origin", origin);
        request
            .header("access-control-request-method", method)
            .send()
    };
    let response = preflight("/v1/events", "https://shop.example", "POST")
        .await
        .expect("an answer");
    assert_eq!(
        response.headers()["access-control-allow-origin"],
        "https://shop.example"
    );
    let methods = response.headers()["access-control-allow-methods"]
        .to_str()
        .expect("text");
    let headers = &response.headers()["access-control-allow-headers"];
    assert!(headers.to_str().expect("text").contains("authorization"));
    assert!(methods.contains("POST") && !methods.contains("PUT") && !methods.contains("DELETE"));
    let response = preflight("/v1/events", "https://other.example", "POST")
        .await
        .expect("an answer");
    assert!(
        !response
            .headers()
            .contains_key("access-control-allow-origin")
    );
}

#[tokio::test]
async fn metrics_and_status_tell_what_happened() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    assert_eq!(
        server.get("/readyz").await.status(),
        503,
        "items, but no version yet"
    );
    server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    assert_eq!(server.get("/readyz").await.status(), 200);
    let body = r#"{"events": [{"event_id": "e", "kind": "click", "user_id": "u", "item_id": "zzz", "occurred_at": 1}]}"#;
    server.post("/v1/events", body).await;

    let metrics = server.get("/metrics").await.text().await.expect("body");
    for line in [
        "freshet_rejected_total{reason=\"unknown_item\"} 1",
        "freshet_events_accepted_total 0",
        "freshet_log_end_offset 2",
        "freshet_model_version 1",
        "freshet_learned_through_offset 1",
        "freshet_versions_published_total 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} in\n{metrics}"
        );
    }
    let status: Value = server.get("/v1/status").await.json().await.expect("JSON");
    assert_eq!(status["log_offset"], 2);
    assert_eq!(
        (&status["version"], &status["device"]),
        (&1.into(), &"stand-in".into())
    );
}

#[tokio::test]
async fn metrics_move_to_the_admin_address_where_there_is_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[("server.admin_bind", "127.0.0.1:7879")]).await;
    assert_eq!(server.get("/metrics").await.status(), 404);
    assert_eq!(server.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn a_header_that_never_ends_is_cut_off() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[("server.header_timeout_millis", "200")]).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("connects");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .await
        .expect("sent");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn it_stops_within_seconds_although_pages_watch() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    let mut watching = server.get("/v1/models/main/watch").await;
    watching
        .chunk()
        .await
        .expect("bytes")
        .expect("the first announcement");
    let address = server.url.trim_start_matches("http://").to_owned();
    let _idle = tokio::net::TcpStream::connect(address)
        .await
        .expect("connects");

    let started = Instant::now();
    server.tell_to_stop();
    while watching.chunk().await.expect("a clean end").is_some() {}
    server.stop().await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}
