//! Claims about clients that ask for too much, open too much, or are slow: they are held back, and others are not.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{TestServer, event};

const PATIENCE: Duration = Duration::from_secs(20);
const ADMIN: &str = "admin-token-of-the-test";
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

async fn connect(server: &TestServer) -> TcpStream {
    let address = server.url.trim_start_matches("http://");
    TcpStream::connect(address).await.expect("connects")
}

/// What comes until the server closes; a connection that is reset is closed, too.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _closed = read.expect("the connection is still open");
    String::from_utf8(answer).expect("text")
}

/// Whether a request is answered, on a connection of its own.
async fn is_served(server: &TestServer) -> bool {
    let mut stream = connect(server).await;
    let mut start = [0; 15];
    stream.write_all(HEALTH).await.is_ok()
        && stream.read_exact(&mut start).await.is_ok()
        && &start == b"HTTP/1.1 200 OK"
}

async fn wait_until_served(server: &TestServer) {
    let deadline = Instant::now() + PATIENCE;
    while !is_served(server).await {
        assert!(Instant::now() < deadline, "nobody else is served");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn beyond_the_limit_of_a_client_it_is_429_with_the_time_to_come_back() {
    let dir = tempfile::tempdir().expect("temp dir");
    let flags = [
        ("limits.client_requests_per_sec", "1"),
        ("limits.client_requests_burst", "3"),
        ("access.admin_token", ADMIN),
    ];
    let server = TestServer::start(dir.path(), &flags).await;
    let mut refused = server.get("/v1/status").await;
    let deadline = Instant::now() + PATIENCE;
    while refused.status() == 200 {
        assert!(Instant::now() < deadline, "nothing is refused");
        refused = server.get("/v1/status").await;
    }
    assert_eq!(refused.status(), 429);
    let headers = refused.headers();
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(headers["ratelimit"], "\"client-requests\";r=0;t=1");
    assert_eq!(headers["ratelimit-policy"], "\"client-requests\";q=3;w=3");
    let problem: Value = refused.json().await.expect("a problem document");
    assert_eq!(problem["type"], "/problems/too-many-requests");
    for _ in 0..5 {
        assert_eq!(server.get("/healthz").await.status(), 200);
        let status = server.client.get(format!("{}/v1/status", server.url));
        let status = status.bearer_auth(ADMIN).send().await.expect("an answer");
        assert_eq!(status.status(), 200, "operators have no limit");
    }
}

#[tokio::test]
async fn events_have_a_limit_of_their_own_and_a_refused_batch_stores_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let flags = [
        ("limits.client_events_per_sec", "1"),
        ("limits.client_events_burst", "3"),
    ];
    let server = TestServer::start(dir.path(), &flags).await;
    let items = json!({ "items": [{ "item_id": "a", "title": "Tea pot" }] });
    server
        .send(reqwest::Method::PUT, "/v1/items", items.to_string())
        .await;
    let batch = |names: [&str; 3]| json!({ "events": names.map(event) }).to_string();
    let (status, answer) = server.post("/v1/events", batch(["a", "b", "c"])).await;
    assert_eq!((status, &answer["accepted"]), (200, &3.into()));
    let end = server.log.end();
    let (status, problem) = server.post("/v1/events", batch(["d", "e", "f"])).await;
    assert_eq!(
        (status, &problem["title"]),
        (429, &"Too many requests".into())
    );
    assert_eq!(server.log.end(), end);
}

#[tokio::test]
async fn behind_a_trusted_proxy_every_visitor_has_a_limit_of_its_own() {
    let dir = tempfile::tempdir().expect("temp dir");
    let flags = [
        ("limits.client_requests_per_sec", "1"),
        ("limits.client_requests_burst", "1"),
        ("limits.trusted_proxies", "[\"127.0.0.1\"]"),
    ];
    let server = TestServer::start(dir.path(), &flags).await;
    let get = async |client: &str| {
        let request = server.client.get(format!("{}/v1/status", server.url));
        let request = request.header("x-forwarded-for", client);
        request.send().await.expect("an answer").status().as_u16()
    };
    for visitor in 0..10 {
        assert_eq!(get(&format!("192.0.2.{visitor}")).await, 200);
    }
    let deadline = Instant::now() + PATIENCE;
    while get("192.0.2.77").await == 200 {
        assert!(Instant::now() < deadline, "nothing is refused");
    }
}

#[tokio::test]
async fn a_client_has_a_bounded_number_of_connections() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[("limits.client_connections_max", "2")]).await;
    let first = connect(&server).await;
    let _second = connect(&server).await;
    let mut third = connect(&server).await;
    assert_eq!(read_to_end(&mut third).await, "");
    drop(first);
    wait_until_served(&server).await;
}

#[tokio::test]
async fn silent_and_idle_connections_are_closed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[("server.header_timeout_millis", "200")]).await;
    let mut silent = connect(&server).await;
    let mut idle = connect(&server).await;
    idle.write_all(HEALTH).await.expect("sent");
    assert_eq!(read_to_end(&mut silent).await, "");
    let answers = read_to_end(&mut idle).await;
    assert!(answers.starts_with("HTTP/1.1 200 OK"), "{answers}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_with_408() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[("limits.body_timeout_secs", "1")]).await;
    let mut stream = connect(&server).await;
    let head = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"events\"";
    stream.write_all(head).await.expect("sent");
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("/problems/timeout"), "{answer}");
}

#[tokio::test]
async fn bodies_on_their_way_take_a_bounded_memory() {
    let dir = tempfile::tempdir().expect("temp dir");
    let flags = [("limits.bodies_bytes_max", "1048576")];
    let server = TestServer::start(dir.path(), &flags).await;
    let mut waiting = connect(&server).await;
    let head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n";
    waiting.write_all(head.as_bytes()).await.expect("sent");
    waiting
        .write_all(&vec![b' '; 1_000_000])
        .await
        .expect("sent");
    let body = || format!("{}{{\"events\": []}}", " ".repeat(100_000));
    let deadline = Instant::now() + PATIENCE;
    while server.post("/v1/events", body()).await.0 != 503 {
        assert!(Instant::now() < deadline, "everything is taken");
    }
    drop(waiting);
    while server.post("/v1/events", body()).await.0 != 200 {
        assert!(Instant::now() < deadline, "nothing is taken any more");
    }
}

#[tokio::test]
async fn who_does_not_take_its_answer_is_cut_off() {
    let dir = tempfile::tempdir().expect("temp dir");
    let files = tempfile::tempdir().expect("temp dir");
    let large = std::fs::File::create(files.path().join("large")).expect("made");
    large
        .set_len(256 << 20)
        .expect("more than any buffer of a socket");
    let static_dir = files.path().display().to_string();
    let flags = [
        ("server.static_dir", &*static_dir),
        ("limits.answer_stall_secs", "1"),
        ("limits.client_connections_max", "1"),
    ];
    let server = TestServer::start(dir.path(), &flags).await;
    let mut stalled = connect(&server).await;
    let request = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n";
    stalled.write_all(request).await.expect("sent");
    stalled.readable().await.expect("the answer begins");
    assert!(!is_served(&server).await, "it holds the only connection");
    wait_until_served(&server).await;
}
