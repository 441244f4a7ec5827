//! Claims about keys: which route asks for which, what a refusal says, and what is written down of it.

use std::path::Path;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use shared_model::manifest::VersionKind;
use trainer_server::http::Address;

use crate::api::routes;
use crate::harness::{TestServer, event, new_version};

const INGEST: &str = "ingest-key-of-the-test";
const READ: &str = "read-key-of-the-test";
const ADMIN: &str = "admin-token-of-the-test";
const KEYS: [(&str, &str); 3] = [
    ("access.ingest_key", INGEST),
    ("access.read_key", READ),
    ("access.admin_token", ADMIN),
];
/// Who may ask for what, beside whoever has the admin token; what is not here is the admin's alone.
const OPEN: [&str; 11] = [
    "/v1/models/{model}/manifest",
    "/v1/models/{model}/plan",
    "/v1/models/{model}/watch",
    "/v1/models/{model}/keys",
    "/v1/models/{model}/text-encoder",
    "/v1/models/{model}/moderation",
    "/v1/models/{model}/experiments",
    "/v1/blobs/{hash}",
    "/healthz",
    "/readyz",
    "/openapi.json",
];
const FOR_INGEST: [&str; 3] = ["/v1/events", "/v1/visits", "/v1/models/{model}/reports"];
const FOR_READ: [&str; 7] = [
    "/v1/events/{event_id}",
    "/v1/recommend",
    "/v1/score",
    "/v1/search",
    "/v1/explain",
    "/v1/explore",
    "/v1/status",
];

async fn start(dir: &Path) -> TestServer {
    let server = TestServer::start(dir, &KEYS).await;
    let version = new_version(VersionKind::Release, 1);
    server.publisher.publish(version).expect("published");
    server
}

async fn ask(
    server: &TestServer,
    method: &str,
    url: String,
    key: Option<&str>,
    body: Value,
) -> Response {
    let method: Method = method.to_uppercase().parse().expect("a method");
    let mut request = server.client.request(method, url).json(&body);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    request.send().await.expect("an answer")
}

fn path_of(route: &str) -> String {
    let path = route.replace("{model}", "main").replace("{hash}", "00");
    let path = path.replace("{version}", "1").replace("{name}", "e");
    path.replace("{user_id}", "u")
}

/// The refusal that a key gets, if any.
fn refusal(key: Option<&str>, needed: Option<&str>) -> Option<u16> {
    match (key, needed) {
        (_, None) => None,
        (Some(key), Some(needed)) if key == needed || key == ADMIN => None,
        (Some(READ | INGEST), _) => Some(403),
        _ => Some(401),
    }
}

#[tokio::test]
async fn every_route_asks_for_the_key_of_its_role() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = start(dir.path()).await;
    let needed = |route: &str| match route {
        route if OPEN.contains(&route) => None,
        route if FOR_INGEST.contains(&route) => Some(INGEST),
        route if FOR_READ.contains(&route) => Some(READ),
        _ => Some(ADMIN),
    };
    let public = routes(Address::Only);
    for listed in OPEN.iter().chain(&FOR_INGEST).chain(&FOR_READ) {
        assert!(
            public.iter().any(|(route, _)| route == listed),
            "{listed} is no route"
        );
    }
    let of_admin = |route: &str| match route {
        "/healthz" | "/readyz" | "/openapi.json" => None,
        _ => Some(ADMIN),
    };
    let public = public.into_iter().map(|(route, methods)| {
        let needed = needed(&route);
        (&server.url, route, methods, needed)
    });
    let admin = routes(Address::Admin).into_iter().map(|(route, methods)| {
        let needed = of_admin(&route);
        (&server.admin_url, route, methods, needed)
    });
    for (base, route, methods, needed) in public.chain(admin) {
        for method in &methods {
            for key in [
                None,
                Some("some-other-key-of-nobody"),
                Some(INGEST),
                Some(READ),
                Some(ADMIN),
            ] {
                let url = format!("{base}{}", path_of(&route));
                let status = ask(&server, method, url, key, Value::Null)
                    .await
                    .status()
                    .as_u16();
                let refused = Some(status).filter(|status| matches!(status, 401 | 403));
                assert_eq!(
                    refused,
                    refusal(key, needed),
                    "{method} {route} with {key:?}: {status}"
                );
            }
        }
    }
}

#[tokio::test]
async fn in_a_url_the_ingest_key_alone_counts_and_for_posts_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = start(dir.path()).await;
    let events = json!({ "events": [] });
    for (path, status) in [
        (format!("/v1/events?key={INGEST}"), 200),
        (format!("/v1/events?a=b&key={INGEST}"), 200),
        (format!("/v1/events?key={ADMIN}"), 401),
        (format!("/v1/events?key={INGEST}x"), 401),
        ("/v1/events?key=".to_owned(), 401),
        (format!("/v1/score?key={READ}"), 401),
        (format!("/v1/score?key={INGEST}"), 401),
    ] {
        let url = format!("{}{path}", server.url);
        let response = ask(&server, "post", url, None, events.clone()).await;
        assert_eq!(response.status(), status, "{path}");
    }
}

#[tokio::test]
async fn another_method_is_answered_405_to_whoever_may_use_the_route() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = start(dir.path()).await;
    for (method, path, key, allowed) in [
        ("get", "/v1/recommend", READ, "POST"),
        ("get", "/v1/events", INGEST, "POST"),
        ("post", "/v1/status", READ, "GET,HEAD"),
    ] {
        let url = format!("{}{path}", server.url);
        let other = ask(&server, method, url.clone(), None, Value::Null).await;
        assert_eq!(other.status(), 401, "{method} {path}");
        let answer = ask(&server, method, url, Some(key), Value::Null).await;
        assert_eq!(answer.status(), 405, "{method} {path}");
        assert_eq!(answer.headers()["allow"], allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn a_key_that_is_not_set_is_not_asked_for() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &KEYS[2..]).await;
    let events = json!({ "events": [] }).to_string();
    assert_eq!(server.post("/v1/events", events).await.0, 200);
    assert_eq!(server.get("/v1/status").await.status(), 200);
    assert_eq!(server.get("/metrics").await.status(), 401);
}

#[tokio::test]
async fn a_refusal_says_what_is_wanted_and_never_a_key() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = start(dir.path()).await;
    let url = format!("{}/v1/status", server.url);
    let wrong = "wrong-key-of-somebody";
    for (key, status) in [(None, 401), (Some(wrong), 401), (Some(INGEST), 403)] {
        let response = ask(&server, "get", url.clone(), key, Value::Null).await;
        assert_eq!(response.status(), status);
        let challenge = response.headers().get("www-authenticate").cloned();
        assert_eq!(
            challenge.is_some_and(|value| value == "Bearer realm=\"freshet\""),
            status == 401
        );
        let problem: Value = response.json().await.expect("a problem document");
        let said = problem["detail"].as_str().expect("a text");
        assert!(said.contains("read_key"), "{said}");
        assert_eq!(said.contains("is unknown"), key == Some(wrong), "{said}");
        assert!(!said.contains(wrong) && !said.contains(INGEST), "{said}");
    }
    let rows = audit(dir.path());
    let refused: Vec<_> = rows
        .iter()
        .map(|row| (&row["what"], &row["role"]))
        .collect();
    let what = Value::from("GET /v1/status");
    let none = Value::Null;
    assert_eq!(
        refused,
        [(&what, &none), (&what, &none), (&what, &"ingest".into())]
    );
    assert!(!format!("{rows:?}").contains(wrong));
}

#[tokio::test]
async fn orders_and_deletions_are_written_down_with_what_came_of_them() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = start(dir.path()).await;
    let items = format!("{}/v1/items", server.url);
    let tea = json!({ "items": [{ "item_id": "a", "title": "Tea pot" }] });
    assert_eq!(
        ask(&server, "put", items.clone(), Some(ADMIN), tea)
            .await
            .status(),
        200
    );
    let event = json!({ "events": [event("e1")] });
    let events = format!("{}/v1/events", server.url);
    assert_eq!(
        ask(&server, "post", events, Some(INGEST), event)
            .await
            .status(),
        200
    );
    let gone = json!({ "item_ids": ["a"] });
    assert_eq!(
        ask(&server, "delete", items, Some(ADMIN), gone)
            .await
            .status(),
        200
    );
    let order = json!({ "order": "rollback", "version": 1, "by": "anna" });
    let rollout = format!("{}/v1/rollout", server.admin_url);
    assert_eq!(
        ask(&server, "post", rollout, Some(ADMIN), order)
            .await
            .status(),
        503
    );

    let rows = audit(dir.path());

    let [deletion, order] = rows.as_slice() else {
        panic!("two lines are expected: {rows:?}");
    };
    let deleted = r#"DELETE /v1/items {"count":1,"item_ids":["a"]}"#;
    assert_eq!(
        (&deletion["what"], &deletion["outcome"]),
        (&deleted.into(), &"done".into())
    );
    let what = order["what"].as_str().expect("a text");
    assert!(what.contains("rollback") && what.contains("anna"), "{what}");
    assert_eq!(order["outcome"], "there is no trainer to give orders to");
    for row in &rows {
        assert_eq!(
            (&row["role"], &row["client"]),
            (&"admin".into(), &"127.0.0.1".into())
        );
    }
}

fn audit(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("audit.jsonl")).expect("there");
    let rows = text.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>().expect("JSON Lines")
}

/// A page whose name was made to lead here after it was loaded sends its name.
#[tokio::test]
async fn without_a_token_orders_are_taken_at_addresses_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let named = async |url: String, host: &'static str| {
        let request = server.client.get(url).header("host", host);
        request.send().await.expect("an answer").status().as_u16()
    };
    for host in ["127.0.0.1:7879", "localhost:7879"] {
        let url = format!("{}/v1/versions", server.admin_url);
        assert_eq!(named(url, host).await, 200, "{host}");
    }
    let rebound = "evil.example:7879";
    for path in ["/v1/versions", "/v1/status", "/metrics", "/v1/catalogue"] {
        let url = format!("{}{path}", server.admin_url);
        assert_eq!(named(url, rebound).await, 403, "{path}");
    }
    // Pages of a shop come under the shop's name.
    let url = format!("{}/v1/models/main/keys", server.url);
    assert_eq!(named(url, rebound).await, 200);
    let url = format!("{}/v1/items", server.url);
    let put = server.client.put(url).header("host", rebound);
    let put = put.json(&json!({ "items": [] })).send().await;
    assert_eq!(put.expect("an answer").status(), 403);

    let dir = tempfile::tempdir().expect("temp dir");
    let server = start(dir.path()).await;
    let url = format!("{}/v1/versions", server.admin_url);
    let request = server.client.get(url).header("host", rebound);
    let answer = request.bearer_auth(ADMIN).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
}
