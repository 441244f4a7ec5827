//! Honest traffic: events are posted and the manifest is read at a steady pace, over connections that stay open.

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

const NUM_CLIENTS: u32 = 4;
/// Between two requests of one client: 100 requests per second of all of them.
const PERIOD: Duration = Duration::from_millis(40);
const EVENTS_PER_REQUEST: u32 = 10;
const NUM_ITEMS: u32 = 100;
const MANIFEST: &str = "/v1/models/main/manifest";
const FIRST_VERSION_MAX: Duration = Duration::from_secs(60);

/// Times from when a request was due until its answer was read, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latency {
    pub(super) num_requests: usize,
    pub(super) p50_millis: f64,
    pub(super) p99_millis: f64,
    pub(super) max_millis: f64,
}

impl Latency {
    fn of(mut millis: Vec<f64>) -> anyhow::Result<Self> {
        millis.sort_by(f64::total_cmp);
        let max = millis.last().copied().context("nothing was answered")?;
        let percentile =
            |percent: usize| millis[(millis.len() * percent / 100).min(millis.len() - 1)];
        Ok(Self {
            num_requests: millis.len(),
            p50_millis: percentile(50),
            p99_millis: percentile(99),
            max_millis: max,
        })
    }

    pub(super) fn to_json(self) -> Value {
        json!({
            "requests": self.num_requests, "p50_ms": self.p50_millis, "p99_ms": self.p99_millis, "max_ms": self.max_millis,
        })
    }
}

/// A connection that is kept.
struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and reads the whole answer, which must be a success.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
        let num_bytes = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {num_bytes}\r\n\r\n{body}"
        );
        self.0.write_all(request.as_bytes()).await?;
        let mut status = String::new();
        self.0.read_line(&mut status).await?;
        ensure!(
            status.starts_with("HTTP/1.1 200"),
            "{method} {path}: {status:?}"
        );
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).await?;
        Ok(())
    }
}

/// Fills the catalogue.
pub(super) async fn put_items(address: &str) -> anyhow::Result<()> {
    let item = |number: u32| json!({ "item_id": number.to_string(), "title": format!("Tea pot {number}") });
    let items: Vec<Value> = (0..NUM_ITEMS).map(item).collect();
    let body = json!({ "items": items }).to_string();
    let mut connection = Connection::open(address).await?;
    connection.ask("PUT", "/v1/items", &body).await
}

/// Returns once there is a version, which the first items bring about.
pub(super) async fn wait_for_version(address: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + FIRST_VERSION_MAX;
    loop {
        let mut connection = Connection::open(address).await?;
        let asked = connection.ask("GET", MANIFEST, "").await;
        if asked.is_ok() || Instant::now() > deadline {
            return asked;
        }
        sleep_until(Instant::now() + PERIOD).await;
    }
}

/// Sends for so long, on a thread that does nothing else.
pub(super) async fn run(address: &str, duration: Duration) -> anyhow::Result<Latency> {
    let address = address.to_owned();
    let measured = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(send_all(&address, duration))
    });
    Latency::of(measured.await??)
}

async fn send_all(address: &str, duration: Duration) -> anyhow::Result<Vec<f64>> {
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..NUM_CLIENTS {
        let address = address.to_owned();
        clients.spawn(async move { send(&address, client, duration).await });
    }
    let mut millis = Vec::new();
    while let Some(sent) = clients.join_next().await {
        millis.extend(sent??);
    }
    Ok(millis)
}

/// A request that waits for the one before counts from when it was due.
async fn send(address: &str, client: u32, duration: Duration) -> anyhow::Result<Vec<f64>> {
    let mut connection = Connection::open(address).await?;
    let start = Instant::now() + PERIOD * client / NUM_CLIENTS;
    let mut millis = Vec::new();
    for number in 0.. {
        let due = start + PERIOD * number;
        if due > start + duration {
            break;
        }
        sleep_until(due).await;
        if number % 2 == 0 {
            let body = events(client, number);
            connection.ask("POST", "/v1/events", &body).await?;
        } else {
            connection.ask("GET", MANIFEST, "").await?;
        }
        millis.push(due.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(millis)
}

fn events(client: u32, number: u32) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_millis = now.map_or(0, |since| since.as_millis()) as u64; // far below 2^64
    let event = |idx: u32| {
        let item = (number * 7 + idx * 13 + client) % NUM_ITEMS;
        json!({
            "event_id": format!("{client}-{number}-{idx}-{now_millis}"), "kind": "click",
            "user_id": format!("u{}", (number + idx) % 50), "item_id": item.to_string(), "occurred_at": now_millis,
        })
    };
    let events: Vec<Value> = (0..EVENTS_PER_REQUEST).map(event).collect();
    json!({ "events": events }).to_string()
}
