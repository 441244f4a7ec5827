//! Claims about `freshet import --server`.

use std::process::{Command, Output};

use crate::harness::TestServer;

const ITEMS: &str = "item_id\ttitle\n1\tTea pot\n2\tBalloons\n";
const EVENTS: &str = "user_id\titem_id\trating\ttimestamp\n\
    7\t1\t8\t1291191960\n8\t9\t1\t1291191961\n8\t2\t3\t1291191962\n";

#[tokio::test]
async fn files_are_imported_over_http_once_and_refused_lines_are_named() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let (items, events) = (dir.path().join("items.tsv"), dir.path().join("events.tsv"));
    std::fs::write(&items, ITEMS).expect("written");
    std::fs::write(&events, EVENTS).expect("written");
    let import = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_freshet"));
        command.args(["import", "--server", &format!("{}/", server.url), "--items"]);
        command.arg(&items).arg("--events").arg(&events);
        tokio::task::spawn_blocking(move || command.output())
    };
    let text = |output: Output| {
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    };

    let first = text(import().await.expect("no panic").expect("runs"));
    assert!(
        first.contains("items.tsv: 2 accepted, 0 known already, 0 refused"),
        "{first}"
    );
    assert!(
        first.contains("events.tsv: 2 accepted, 0 known already, 1 refused"),
        "{first}"
    );
    assert!(first.contains("line 3: unknown_item"), "{first}");
    let second = text(import().await.expect("no panic").expect("runs"));
    assert!(
        second.contains("events.tsv: 0 accepted, 2 known already, 1 refused"),
        "{second}"
    );
    assert_eq!(server.log.end().0, 4);
}
