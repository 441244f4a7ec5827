//! Claims about SIGHUP: limits, origins, keys and log levels follow the files, and what cannot be used changes nothing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::Process;

const LOW: &str = "[limits]\nclient_requests_per_sec = 1\nclient_requests_burst = 3\n[server]\ncors_origins = [\"https://shop.example\"]\n";
const PATIENCE: Duration = Duration::from_secs(20);
const READ: &str = "read-key-of-the-test";
const NEXT: &str = "read-key-of-tomorrow";
const OTHERS: &str =
    "ingest_key = \"ingest-key-of-the-test\"\nadmin_token = \"admin-token-of-the-test\"\n";

/// A server whose configuration and log are files.
struct Configured {
    dir: tempfile::TempDir,
    process: Process,
}

impl Configured {
    fn start(bind: &str, config: &str) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("freshet.toml");
        std::fs::write(&file, config).expect("written");
        let file = file.display().to_string();
        Self::start_in(dir, bind, &["--config", &file])
    }

    fn start_in(dir: tempfile::TempDir, bind: &str, args: &[&str]) -> Self {
        let log = File::create(dir.path().join("log")).expect("made");
        let data_dir = dir.path().join("data");
        let process = Process::start_on(bind, &data_dir, args, Stdio::from(log));
        Self { dir, process }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("readable")
    }

    /// Changes the configuration and says so.
    fn change(&self, config: &str) {
        std::fs::write(self.path("freshet.toml"), config).expect("written");
        hang_up(&self.process);
    }

    /// What `/v1/status` answers to whoever shows this key.
    async fn status(&self, key: &str) -> u16 {
        let url = format!("{}/v1/status", self.process.url);
        let asked = reqwest::Client::new().get(url).bearer_auth(key).send();
        asked.await.expect("an answer").status().as_u16()
    }

    async fn answers(&self, key: &str, expected: u16) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(key).await;
            if status == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{status}, expected {expected}");
        }
    }

    async fn logs(&self, expected: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.read("log").contains(expected) {
            assert!(
                Instant::now() < deadline,
                "no {expected:?} in {}",
                self.read("log")
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the audit log says of keys, and what came of it.
    fn audited(&self) -> Vec<(String, String)> {
        let text = self.read("data/audit.jsonl");
        let rows = text.lines().map(|line| {
            let row: Value = serde_json::from_str(line).expect("JSON");
            let text = |name: &str| row[name].as_str().expect("a text").to_owned();
            (text("what"), text("outcome"))
        });
        rows.filter(|(what, _)| what.starts_with("SIGHUP"))
            .collect()
    }
}

fn hang_up(process: &Process) {
    let id = process.child.id().to_string();
    let sent = Command::new("kill").args(["-HUP", &id]).status();
    assert!(sent.expect("kill runs").success());
}

async fn origin(process: &Process) -> (u16, Option<String>) {
    let request = reqwest::Client::new().get(format!("{}/openapi.json", process.url));
    let request = request.header("origin", "https://other.example");
    let answer = request.send().await.expect("an answer");
    let allowed = answer.headers().get("access-control-allow-origin");
    let allowed = allowed.map(|allowed| allowed.to_str().expect("text").to_owned());
    (answer.status().as_u16(), allowed)
}

async fn until(process: &Process, expected: (u16, Option<&str>)) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, allowed) = origin(process).await;
        if (status, allowed.as_deref()) == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{status} {allowed:?}, expected {expected:?}"
        );
    }
}

#[tokio::test]
async fn limits_and_origins_follow_the_file_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("freshet.toml");
    let write = |text: &str| std::fs::write(Path::new(&file), text).expect("written");
    write("");
    let config = file.display().to_string();
    let process = Process::start_with(&dir.path().join("data"), &["--config", &config]);
    until(&process, (200, Some("*"))).await;
    write(LOW);
    hang_up(&process);
    until(&process, (429, None)).await;
    write("[limits]\nclient_requests_per_sec = \"many\"\n");
    hang_up(&process);
    until(&process, (429, None)).await;
    write("");
    hang_up(&process);
    until(&process, (200, Some("*"))).await;
}

#[tokio::test]
async fn a_key_that_was_replaced_ends_with_the_next_request_unless_it_is_kept_for_a_while() {
    let with = |keys: &str| format!("[access]\n{OTHERS}{keys}\n");
    let server = Configured::start("127.0.0.1:0", &with(&format!("read_key = \"{READ}\"")));
    assert_eq!(server.status(READ).await, 200);
    assert_eq!(server.status(NEXT).await, 401);
    let both = format!("read_key = \"{NEXT}\"\nread_key_previous = \"{READ}\"");
    server.change(&with(&both));
    server.answers(NEXT, 200).await;
    assert_eq!(server.status(READ).await, 200, "for a while");
    server.change(&with(&format!("read_key = \"{NEXT}\"")));
    server.answers(READ, 401).await;
    assert_eq!(server.status(NEXT).await, 200);
    let changes = [
        "read_key replaced, read_key_previous set",
        "read_key_previous taken away",
    ];
    let done = changes.map(|change| (format!("SIGHUP: {change}"), "done".to_owned()));
    server.logs(changes[1]).await;
    assert_eq!(server.audited(), done);
    let told = server.read("log") + &server.read("data/audit.jsonl");
    assert!(!told.contains(READ) && !told.contains(NEXT), "{told}");
}

#[tokio::test]
async fn a_configuration_that_loses_a_key_is_refused_whole() {
    let keys = format!("[access]\n{OTHERS}read_key = \"{READ}\"\n");
    for (bind, reason) in [
        (
            "0.0.0.0:0",
            "server.bind is 0.0.0.0:0, which others can reach, but no key is set for: read_key",
        ),
        (
            "127.0.0.1:0",
            "no key is set any more for: read_key; taking a key away takes a restart",
        ),
    ] {
        let server = Configured::start(bind, &keys);
        server.answers(READ, 200).await; // by then it hears the signal
        server.change(&format!("[access]\n{OTHERS}{LOW}"));
        server.logs(reason).await;
        for _ in 0..10 {
            assert_eq!(
                server.status(READ).await,
                200,
                "the limits are those of before, too"
            );
            assert_eq!(server.status("nobody-has-this-key").await, 401);
        }
        let row = ("SIGHUP: the keys of [access]".to_owned(), reason.to_owned());
        assert_eq!(server.audited(), [row]);
        assert!(
            !server.read("log").contains("FRESHET__ACCESS__"),
            "no fresh key is logged"
        );
        server.change(&keys.replace(READ, NEXT));
        server.answers(NEXT, 200).await;
    }
}

#[tokio::test]
async fn a_key_in_a_file_of_its_own_is_read_again_without_a_configuration_file() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("read.key");
    std::fs::write(&file, format!("{READ}\n")).expect("written");
    let flag = format!("access.read_key_file={}", file.display());
    let server = Configured::start_in(dir, "127.0.0.1:0", &["--set", &flag]);
    server.answers(READ, 200).await;
    let write_again = |text: &str| {
        std::fs::write(&file, text).expect("written");
        hang_up(&server.process);
    };
    write_again(&format!("{NEXT}\n{READ}\n"));
    server.answers(NEXT, 200).await;
    assert_eq!(server.status(READ).await, 200, "the second line");
    write_again("");
    server.logs("has 0 characters").await;
    assert_eq!(server.status(NEXT).await, 200);
    write_again(&format!("{NEXT}\n"));
    server.answers(READ, 401).await;
    assert_eq!(server.status(NEXT).await, 200);
}

#[tokio::test]
async fn log_levels_follow_the_file() {
    let server = Configured::start("127.0.0.1:0", "[telemetry]\nfilter = \"error\"\n");
    server.answers("none", 200).await;
    assert_eq!(server.read("log"), "");
    server.change("[telemetry]\nfilter = \"info,freshet::request=debug\"\n");
    server.logs("log levels are those").await;
    server.answers("none", 200).await;
    server.logs("/v1/status").await;
    server.change("[telemetry]\nfilter = \"freshet=loud\"\n");
    server.logs("`telemetry.filter` is freshet=loud").await;
    server.change("[telemetry]\nfilter = \"error\"\n[server]\ncors_origins = []\n");
    until(&server.process, (200, None)).await;
    let before = server.read("log");
    for _ in 0..20 {
        server.answers("none", 200).await;
    }
    assert_eq!(server.read("log"), before);
}
