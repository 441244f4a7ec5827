//! Claims about SIGHUP: limits and origins follow the file, and a file that cannot be used changes nothing.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::Process;

const LOW: &str = "[limits]\nclient_requests_per_sec = 1\nclient_requests_burst = 3\n[server]\ncors_origins = [\"https://shop.example\"]\n";

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
    let deadline = Instant::now() + Duration::from_secs(20);
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
