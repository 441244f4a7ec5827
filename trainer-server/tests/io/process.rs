//! Claims about the real binary as a process: it loses nothing when killed, and ends when told to.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared_model::ids::LogOffset;
use trainer_server::clock::now_millis;
use trainer_server::config::Config;
use trainer_server::event_log::{EventLog, EventLogConfig, LogRecord};

/// A running `freshet serve`; killed on drop.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl Process {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    pub(crate) fn start_with(dir: &Path, args: &[&str]) -> Self {
        Self::start_on("127.0.0.1:0", dir, args, Stdio::null())
    }

    /// Listens on `bind`, and logs to `log`.
    pub(crate) fn start_on(bind: &str, dir: &Path, args: &[&str], log: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_freshet"))
            .env_remove("RUST_LOG")
            .args(["serve", "--bind", bind, "--set", "model.text_encoder=small"])
            .args(["--set", "train.device=flex", "--set", "server.admin_bind="])
            .arg("--data-dir")
            .arg(dir)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let url = line
            .trim()
            .strip_prefix("freshet listens on ")
            .expect("its address")
            .to_owned();
        Self { child, url }
    }

    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn put_items(client: &reqwest::Client, url: &str) {
    let items: Vec<_> = (0..20)
        .map(|item| json!({ "item_id": item.to_string(), "title": "Tea pot" }))
        .collect();
    let body = json!({ "items": items });
    let response = client
        .put(format!("{url}/v1/items"))
        .json(&body)
        .send()
        .await;
    assert_eq!(response.expect("an answer").status(), 200);
}

fn batch(name: &str) -> Value {
    let now_millis = now_millis();
    let event = |idx: usize| {
        json!({
            "event_id": format!("{name}-{idx}"), "kind": "click", "user_id": format!("u{idx}"),
            "item_id": (idx % 20).to_string(), "occurred_at": now_millis,
        })
    };
    json!({ "events": (0..10).map(event).collect::<Vec<_>>() })
}

/// Posts batches until the server is gone; keeps the names of those that were acknowledged.
async fn post_until_gone(
    client: reqwest::Client,
    url: String,
    prefix: String,
    acked: Arc<Mutex<Vec<String>>>,
) {
    for batch_idx in 0.. {
        let name = format!("{prefix}-{batch_idx}");
        let request = client.post(format!("{url}/v1/events")).json(&batch(&name));
        let Ok(response) = request.send().await else {
            return;
        };
        if response.status() == 200 && response.bytes().await.is_ok() {
            acked.lock().expect("no panic").push(name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_no_acknowledged_event_and_stores_none_twice() {
    let dir = tempfile::tempdir().expect("temp dir");
    let client = reqwest::Client::new();
    let acked = Arc::new(Mutex::new(Vec::new()));
    for cycle in 0..4 {
        let mut process = Process::start(dir.path());
        put_items(&client, &process.url).await;
        let before = acked.lock().expect("no panic").len();
        let posters: Vec<_> = (0..4)
            .map(|poster| {
                let prefix = format!("{cycle}-{poster}");
                let acked = Arc::clone(&acked);
                tokio::spawn(post_until_gone(
                    client.clone(),
                    process.url.clone(),
                    prefix,
                    acked,
                ))
            })
            .collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        while acked.lock().expect("no panic").len() < before + 40 {
            assert!(Instant::now() < deadline, "too slow");
            tokio::task::yield_now().await;
        }
        process.kill();
        for poster in posters {
            poster.await.expect("no panic");
        }
    }

    let config = EventLogConfig::from(&Config::default());
    let log = EventLog::open(dir.path(), &config).expect("opens after a kill");
    let records = log.read(LogOffset(0), usize::MAX).expect("read");
    assert_eq!(records.len() as u64, log.end().0, "offsets are dense");
    let mut stored = std::collections::BTreeSet::new();
    for (_, record) in records {
        let LogRecord::Event(event) = record else {
            continue;
        };
        assert!(
            stored.insert(event.event.event_id.as_str().to_owned()),
            "stored twice"
        );
    }
    for name in acked.lock().expect("no panic").iter() {
        for event_idx in 0..10 {
            assert!(
                stored.contains(&format!("{name}-{event_idx}")),
                "lost {name}-{event_idx}"
            );
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn it_ends_within_seconds_when_terminated_under_load_and_keeps_everything() {
    let dir = tempfile::tempdir().expect("temp dir");
    let client = reqwest::Client::new();
    let mut process = Process::start(dir.path());
    put_items(&client, &process.url).await;
    let watching = client
        .get(format!("{}/v1/models/main/watch", process.url))
        .send()
        .await;
    let acked = Arc::new(Mutex::new(Vec::new()));
    let poster = post_until_gone(
        client.clone(),
        process.url.clone(),
        "p".to_owned(),
        Arc::clone(&acked),
    );
    let poster = tokio::spawn(poster);
    let deadline = Instant::now() + Duration::from_secs(20);
    while acked.lock().expect("no panic").len() < 10 {
        assert!(Instant::now() < deadline, "too slow");
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    let id = process.child.id().to_string();
    let sent = Command::new("kill")
        .args(["-TERM", &id])
        .status()
        .expect("kill runs");
    assert!(sent.success());
    let status = tokio::task::spawn_blocking(move || {
        let status = process.child.wait().expect("ended");
        (status, started.elapsed())
    });
    let (status, elapsed) = status.await.expect("no panic");
    assert!(status.success(), "{status}");
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    drop(watching);
    poster.await.expect("no panic");

    let config = EventLogConfig::from(&Config::default());
    let log = EventLog::open(dir.path(), &config).expect("opens");
    let num_acked = acked.lock().expect("no panic").len() as u64;
    assert!(log.end().0 >= 20 + 10 * num_acked);
}

#[test]
fn what_is_wrong_is_said_in_one_line_on_the_command_line() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_freshet"))
            .args(args)
            .output()
            .expect("runs");
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let unknown = run(&["serve", "--set", "server.bnd=127.0.0.1:1"]);
    assert!(
        unknown.starts_with("error: ") && unknown.contains("`server.bind`"),
        "{unknown}"
    );
    let dir = tempfile::tempdir().expect("temp dir");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let data_dir = dir.path().display().to_string();
    let in_use = run(&["serve", "--data-dir", &data_dir, "--bind", &address]);
    assert!(
        in_use.contains(&format!("cannot listen on {address}")) && in_use.contains("server.bind"),
        "{in_use}"
    );
    let free = ["serve", "--data-dir", &data_dir, "--bind", "127.0.0.1:0"];
    let in_use = run(&[&free[..], &["--admin-bind", &address]].concat());
    assert!(
        in_use.contains(&address) && in_use.contains("server.admin_bind"),
        "{in_use}"
    );
    let open = run(&["serve", "--data-dir", &data_dir, "--bind", "0.0.0.0:0"]);
    assert!(
        open.contains("\nFRESHET__ACCESS__ADMIN_TOKEN=") && open.contains("[access]"),
        "{open}"
    );
    let missing = run(&[
        "import",
        "--data-dir",
        &data_dir,
        "--items",
        "no-such-file.tsv",
    ]);
    assert!(missing.contains("no-such-file.tsv"), "{missing}");
    assert!(run(&["import"]).contains("--items"));
}
