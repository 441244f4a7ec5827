//! Claims about the life of a data folder: backup and restore, erasure, retention, formats.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared_model::ids::{LogOffset, UserId};
use shared_model::manifest::VersionKind;
use trainer_server::backup::restore::restore;
use trainer_server::backup::verify::{files_with, verify_backup, verify_data_dir};
use trainer_server::clock::now_millis;
use trainer_server::config::Config;
use trainer_server::event_log::{EventLog, EventLogConfig, LogRecord, downgrade};

use crate::harness::{NOW_MILLIS, TestServer, event, new_version};

pub(crate) const CANARY: &str = "canary-user-5f0c";

fn log_config() -> EventLogConfig {
    EventLogConfig::from(&Config::default())
}

async fn start(dir: &Path) -> TestServer {
    let data_dir = dir.display().to_string();
    let server = TestServer::start(dir, &[("server.data_dir", &data_dir)]).await;
    let items = json!({ "items": [{ "item_id": "a", "title": "Tea pot" }] });
    let (status, _) = server
        .send(reqwest::Method::PUT, "/v1/items", items.to_string())
        .await;
    assert_eq!(status, 200);
    server
}

/// Posts `num_events` events of a user.
async fn post(server: &TestServer, name: &str, user_id: &str, num_events: usize) {
    let events = (0..num_events).map(|idx| {
        let mut event = event(&format!("{name}-{idx}"));
        event["user_id"] = json!(user_id);
        event
    });
    let body = json!({ "events": events.collect::<Vec<_>>() });
    let (status, answer) = server.post("/v1/events", body.to_string()).await;
    assert_eq!((status, &answer["rejected"]), (200, &json!([])), "{answer}");
}

async fn admin(server: &TestServer, method: reqwest::Method, path: &str) -> (u16, Value) {
    let url = format!("{}{path}", server.admin_url);
    let response = server.client.request(method, url).send().await;
    let response = response.expect("an answer");
    (
        response.status().as_u16(),
        response.json().await.expect("JSON"),
    )
}

/// A backup over HTTP as the bytes of an archive; `base` as in the API.
async fn archive(server: &TestServer, base: &Value) -> Vec<u8> {
    let url = format!("{}/v1/backup", server.admin_url);
    let request = server.client.post(url).json(&json!({ "base": base }));
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.bytes().await.expect("whole").to_vec()
}

/// Ids of the events of a log.
fn event_ids(dir: &Path) -> Vec<String> {
    let log = EventLog::open(dir, &log_config()).expect("opens");
    let records = log.read(LogOffset(0), usize::MAX).expect("readable");
    assert_eq!(records.len() as u64, log.end().0, "offsets are dense");
    let mut ids = Vec::new();
    for (_, record) in records {
        if let LogRecord::Event(stored) = record {
            ids.push(stored.event.event_id.as_str().to_owned());
        }
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_while_events_come_restores_all_that_was_accepted_before_it() {
    let (dir, other) = (
        tempfile::tempdir().expect("dir"),
        tempfile::tempdir().expect("dir"),
    );
    let server = start(dir.path()).await;
    let version = new_version(VersionKind::Release, 1);
    server.publisher.publish(version).expect("published");
    post(&server, "before", "u", 900).await;
    let end_before = server.log.end();
    let posting = async {
        for round in 0..10 {
            post(&server, &format!("during-{round}"), "u", 100).await;
        }
    };
    let (bytes, ()) = tokio::join!(archive(&server, &Value::Null), posting);
    post(&server, "after", "u", 100).await;
    server.stop().await;

    let file = other.path().join("freshet.tar");
    std::fs::write(&file, &bytes).expect("written");
    let verified = verify_backup(&file, &mut |_| {}).expect("sound");
    assert!(verified.log_end >= end_before, "{verified:?}");
    assert_eq!(verified.num_versions, 1);
    let restored = other.path().join("restored");
    let done = restore(&file, &restored, &log_config(), None, &mut |_| {}).expect("restored");
    assert_eq!((done.log_end, done.has_keys), (verified.log_end, false));
    assert!(
        !restored.join("signing.key").exists(),
        "no secret goes with it unasked"
    );
    let ids = event_ids(&restored);
    assert_eq!(ids.len() as u64, verified.num_events);
    assert_eq!(
        ids,
        event_ids(dir.path())[..ids.len()],
        "no event is lost up to its end"
    );
    assert!(
        restore(&file, &restored, &log_config(), None, &mut |_| {}).is_err(),
        "it is not empty"
    );
}

#[tokio::test]
async fn damage_anywhere_in_a_backup_is_found_and_nothing_is_restored_from_it() {
    let (dir, other) = (
        tempfile::tempdir().expect("dir"),
        tempfile::tempdir().expect("dir"),
    );
    let server = start(dir.path()).await;
    let version = new_version(VersionKind::Release, 1);
    server.publisher.publish(version).expect("published");
    post(&server, "e", "u", 20).await;
    let whole = archive(&server, &Value::Null).await;
    server.stop().await;
    let file = other.path().join("freshet.tar");
    let target = other.path().join("restored");
    // One bit in the first byte of every file, and an archive that was cut off in every block.
    let mut damaged = Vec::new();
    for at in (512..whole.len() - 1024).step_by(512) {
        damaged.push(whole[..at].to_vec());
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        if whole[at] != 0 {
            damaged.push(flipped);
        }
    }
    for bytes in damaged {
        std::fs::write(&file, &bytes).expect("written");
        let sound = verify_backup(&file, &mut |_| {});
        assert!(sound.is_err(), "{} bytes", bytes.len());
    }
    assert!(restore(&file, &target, &log_config(), None, &mut |_| {}).is_err());
    assert!(!target.exists());
}

#[tokio::test]
async fn an_erased_user_is_in_no_byte_of_the_folder_and_all_others_stay() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = start(dir.path()).await;
    for round in 0..20 {
        post(&server, &format!("kept-{round}"), "u", 50).await;
        post(&server, &format!("gone-{round}"), CANARY, 10).await;
    }
    let path = format!("/v1/users/{CANARY}");
    let (status, export) = admin(&server, reqwest::Method::GET, &path).await;
    assert_eq!(status, 200);
    let events = export["events"].as_array().expect("a list");
    assert_eq!(events.len(), 200);
    assert_eq!(events[0]["event"]["event_id"], "gone-0-0");
    assert_eq!(events[0]["received_at"], NOW_MILLIS);
    let canary = UserId::new(CANARY).expect("valid");
    assert!(
        !files_with(dir.path(), &canary)
            .expect("readable")
            .is_empty()
    );

    let end = server.log.end();
    let (status, erased) = admin(&server, reqwest::Method::DELETE, &path).await;
    assert_eq!(
        (status, &erased["log_offset"], &erased["num_events"]),
        (200, &json!(end.0), &json!(200)),
        "{erased}"
    );
    let found = files_with(dir.path(), &canary).expect("readable");
    assert_eq!(found, [""; 0], "also while the server runs");
    let (_, export) = admin(&server, reqwest::Method::GET, &path).await;
    assert_eq!(export["events"], json!([]));
    let again = json!({ "events": [event("gone-3-3")] });
    let (_, answer) = server.post("/v1/events", again.to_string()).await;
    assert_eq!(answer["duplicates"], 1, "ids stay known: {answer}");
    post(&server, "later", CANARY, 1).await;
    server.stop().await;

    let ids = event_ids(dir.path());
    assert_eq!(
        ids.len(),
        20 * 50 + 1,
        "others stay, and so does what comes later"
    );
    let verified = verify_data_dir(dir.path(), &log_config()).expect("sound");
    assert_eq!((verified.num_tombstones, verified.num_events), (200, 1001));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_came_after_the_backup_is_carried_out_by_the_restore() {
    let (dir, other) = (
        tempfile::tempdir().expect("dir"),
        tempfile::tempdir().expect("dir"),
    );
    let server = start(dir.path()).await;
    post(&server, "kept", "u", 5).await;
    post(&server, "gone", CANARY, 5).await;
    let file = other.path().join("freshet.tar");
    std::fs::write(&file, archive(&server, &Value::Null).await).expect("written");
    let path = format!("/v1/users/{CANARY}");
    let (status, _) = admin(&server, reqwest::Method::DELETE, &path).await;
    assert_eq!(status, 200);
    server.stop().await;

    let erasures = dir.path().join("erasures.jsonl");
    let target = other.path().join("restored");
    let config = log_config();
    let restored = tokio::task::block_in_place(|| {
        restore(&file, &target, &config, Some(&erasures), &mut |_| {})
    });
    let done = restored.expect("restored");
    assert_eq!(done.num_erasures, 1);
    let canary = UserId::new(CANARY).expect("valid");
    assert_eq!(files_with(&target, &canary).expect("readable"), [""; 0]);
    assert_eq!(event_ids(&target).len(), 5);
}

#[test]
fn events_beyond_their_retention_go_and_offsets_stay() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = EventLog::open(dir.path(), &log_config()).expect("opens");
    let day = 86_400_000;
    let records: Vec<_> = (0..10)
        .map(|idx| stored(&format!("e{idx}"), idx * day))
        .collect();
    log.append_blocking(&records).expect("written");
    assert_eq!(
        log.rewrite(Some(day)).expect("done").num_expired,
        0,
        "not for a day's worth"
    );
    let done = log.rewrite(Some(4 * day)).expect("done");
    assert_eq!((done.num_expired, done.end), (4, LogOffset(10)));
    assert_eq!(
        log.rewrite(Some(4 * day)).expect("done").num_expired,
        0,
        "once is enough"
    );
    log.append_blocking(&[stored("e10", 10 * day)])
        .expect("the log goes on");
    drop(log);
    assert_eq!(
        event_ids(dir.path()),
        ["e4", "e5", "e6", "e7", "e8", "e9", "e10"]
    );
}

fn stored(event_id: &str, received_at: i64) -> LogRecord {
    let event = event(event_id);
    serde_json::from_value(json!({ "event": { "event": event, "received_at": received_at } }))
        .expect("a record")
}

/// As it lies on the disk: opening the log would move it up.
fn format_of(dir: &Path) -> u64 {
    let database = redb::Database::open(dir.join("events.redb")).expect("opens");
    let view = redb::ReadableDatabase::begin_read(&database).expect("read");
    let meta = view.open_table(redb::TableDefinition::<&str, u64>::new("meta"));
    let format = meta.expect("there").get("format").expect("read");
    format.expect("in every log").value()
}

#[test]
fn a_log_of_the_format_before_moves_up_when_it_is_opened_and_back_down() {
    let dir = tempfile::tempdir().expect("temp dir");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/io/fixtures/log-format-1.redb");
    std::fs::copy(fixture, dir.path().join("events.redb")).expect("copied");
    assert_eq!(format_of(dir.path()), 1);
    let before = event_ids(dir.path());
    assert_eq!((before.len(), format_of(dir.path())), (60, 2));
    let log = EventLog::open(dir.path(), &log_config()).expect("opens");
    let user = UserId::new("user-1").expect("valid");
    trainer_server::erasure::erase(&log, dir.path(), &user, NOW_MILLIS).expect("erased");
    assert_eq!(log.items().expect("readable").len(), 3);
    log.shutdown();
    drop(log);

    let lost = downgrade(dir.path(), &log_config()).expect("written");
    assert_eq!((lost.num_tombstones, lost.num_erasures), (15, 1));
    assert_eq!(format_of(dir.path()), 1);
    let log = EventLog::open(dir.path(), &log_config()).expect("opens");
    assert_eq!(log.end(), LogOffset(64));
    drop(log);
    assert_eq!(event_ids(dir.path()).len(), 45);
}

/// The real binary with an admin address; killed on drop.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
    pub(crate) admin: String,
}

impl Process {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    pub(crate) fn start_with(dir: &Path, args: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let admin = free.local_addr().expect("bound").to_string();
        drop(free);
        let mut child = freshet(&["serve", "--bind", "127.0.0.1:0", "--admin-bind", &admin])
            .args([
                "--set",
                "model.text_encoder=small",
                "--set",
                "train.device=flex",
                "--data-dir",
            ])
            .arg(dir)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
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
        let admin = format!("http://{admin}");
        Self { child, url, admin }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    pub(crate) fn run(&self, args: &[&str]) -> Value {
        run(&[args, &["--admin", &self.admin, "--json"]].concat())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn freshet(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freshet"));
    command.args(args);
    command
}

/// Runs a command to its end; its JSON.
pub(crate) fn run(args: &[&str]) -> Value {
    let output = freshet(args).output().expect("runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Posts events of several users, the canary among them; returns their ids.
pub(crate) async fn post_to(process: &Process, name: &str, num_events: usize) -> Vec<String> {
    let events: Vec<Value> = (0..num_events)
        .map(|idx| {
            let mut event = event(&format!("{name}-{idx}"));
            event["user_id"] = json!(if idx % 4 == 0 { CANARY } else { "u" });
            event["occurred_at"] = json!(now_millis() - 1000);
            event
        })
        .collect();
    let ids = events
        .iter()
        .map(|event| event["event_id"].as_str().expect("text").to_owned());
    let ids = ids.collect();
    let url = format!("{}/v1/events", process.url);
    let body = json!({ "events": events });
    let response = reqwest::Client::new()
        .post(url)
        .json(&body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200);
    ids
}

async fn kept_history(process: &Process) -> usize {
    let url = format!("{}/v1/users/{CANARY}", process.admin);
    let response = reqwest::get(url).await.expect("an answer");
    let export: Value = response.json().await.expect("JSON");
    export["derived"]["history"]
        .as_array()
        .expect("a list")
        .len()
}

async fn newest_version(process: &Process) -> Option<u64> {
    let url = format!("{}/v1/status", process.url);
    let response = reqwest::get(url).await.expect("an answer");
    let status: Value = response.json().await.expect("JSON");
    status["version"].as_u64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_binary_backs_up_under_load_and_after_a_kill_the_restored_folder_has_every_event() {
    let (dir, other) = (
        tempfile::tempdir().expect("dir"),
        tempfile::tempdir().expect("dir"),
    );
    let mut process = Process::start(dir.path());
    let items = json!({ "items": [{ "item_id": "a", "title": "Tea pot" }] });
    let put = reqwest::Client::new()
        .put(format!("{}/v1/items", process.url))
        .json(&items);
    assert_eq!(put.send().await.expect("an answer").status(), 200);
    let mut acked = post_to(&process, "before", 400).await;
    let folder = other.path().join("backup");
    let to = folder.display().to_string();
    process.run(&["backup", "--to", &to]);
    acked.extend(post_to(&process, "between", 400).await);
    let (done, ()) = tokio::join!(
        async { tokio::task::block_in_place(|| process.run(&["backup", "--to", &to])) },
        async { drop(post_to(&process, "during", 400).await) },
    );
    process.kill();
    let verified = run(&["verify", &to, "--json"]);
    assert_eq!(verified["log_end"], done["log_end"]);

    let restored = other.path().join("restored");
    let target = restored.display().to_string();
    run(&["restore", &to, "--data-dir", &target, "--json"]);
    let ids = event_ids(&restored);
    assert_eq!(ids[..acked.len()], acked, "0 events are lost");
    std::fs::copy(dir.path().join("signing.key"), restored.join("signing.key")).expect("copied");
    let process = Process::start(&restored);
    post_to(&process, "again", 4).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while kept_history(&process).await == 0 {
        assert!(Instant::now() < deadline, "the trainer reads on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Histories are there before the next version is; numbers of others are not given again.
    while newest_version(&process).await <= Some(10_000_000) {
        assert!(
            Instant::now() < deadline,
            "the next version has a new number"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    process.run(&["erase", CANARY]);
    run(&["verify", "--absent", CANARY, &target, "--json"]);
    while kept_history(&process).await > 0 {
        assert!(Instant::now() < deadline, "the trainer forgets");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    process.run(&["backup", "--to", &to]);
    run(&["verify", "--absent", CANARY, &to, "--json"]);
}
