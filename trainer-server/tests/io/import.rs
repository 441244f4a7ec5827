//! Claims about `freshet import` and `freshet export` as commands.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared_model::ids::LogOffset;
use trainer_server::config::Config;
use trainer_server::event_log::{EventLog, EventLogConfig, LogRecord};

use crate::harness::TestServer;

const ITEMS: &str = "item_id\ttitle\n1\tTea pot\n2\tBalloons\n";
const EVENTS: &str = "user_id\titem_id\trating\ttimestamp\n\
    7\t1\t8\t1291191960\n8\t9\t1\t1291191961\n8\t2\t3\t1291191962\n";

fn freshet(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freshet"));
    command.args(args);
    command
}

/// What a command prints that succeeds.
fn text(output: Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

fn run(command: &mut Command) -> String {
    text(command.output().expect("runs"))
}

/// Records of a log without the times at which they came.
fn records(dir: &Path) -> Vec<LogRecord> {
    let log = EventLog::open(dir, &EventLogConfig::from(&Config::default())).expect("opens");
    let records = log.read(LogOffset(0), usize::MAX).expect("readable");
    let records = records.into_iter().map(|(_, mut record)| {
        if let LogRecord::Event(event) = &mut record {
            event.received_at = 0;
        }
        record
    });
    records.collect()
}

#[tokio::test]
async fn files_are_imported_over_http_once_and_refused_lines_are_named() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let (items, events) = (dir.path().join("items.tsv"), dir.path().join("events.tsv"));
    std::fs::write(&items, ITEMS).expect("written");
    std::fs::write(&events, EVENTS).expect("written");
    let import = |flags: &[&str]| {
        let mut command = freshet(&["import", "--server", &format!("{}/", server.url), "--items"]);
        command.arg(&items).arg("--events").arg(&events).args(flags);
        tokio::task::spawn_blocking(move || text(command.output().expect("runs")))
    };

    let tried = import(&["--dry-run"]).await.expect("no panic");
    assert!(
        tried.contains("events.tsv: 2 accepted, 0 known already, 1 refused (dry run"),
        "{tried}"
    );
    assert_eq!(server.log.end().0, 0, "nothing is kept");
    let first = import(&[]).await.expect("no panic");
    assert!(
        first.contains("items.tsv: 2 accepted, 0 known already, 0 refused"),
        "{first}"
    );
    assert!(
        first.contains("events.tsv: 2 accepted, 0 known already, 1 refused"),
        "{first}"
    );
    assert!(first.contains("line 3: unknown_item"), "{first}");
    let second = import(&[]).await.expect("no panic");
    assert!(
        second.contains("events.tsv: 0 accepted, 2 known already, 1 refused"),
        "{second}"
    );
    assert_eq!(server.log.end().0, 4);
}

#[test]
fn a_dry_run_reports_what_is_wrong_with_packed_csv_of_other_names_and_keeps_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(
        path("items.csv"),
        "sku,title\r\n1,\"Tea pot, blue\"\r\n2,\"Two\nlines\"\r\n",
    )
    .expect("written");
    let events = "who,sku,when,action\n\
        ada,1,2024-05-01T12:00:00Z,bought\n\
        ada,1,soon,bought\n\
        bob,9,2024-05-02 12:00:00,bought\n\
        bob,2,1714650000,glance\n";
    let packed = zstd::encode_all(events.as_bytes(), 0).expect("packed");
    std::fs::write(path("events.csv.zst"), packed).expect("written");
    let data_dir = path("data");
    let mut flags = vec!["import", "--data-dir", &data_dir];
    let (items, events) = (path("items.csv"), path("events.csv.zst"));
    flags.extend([
        "--items",
        &items,
        "--events",
        &events,
        "--map",
        "item_id=sku",
    ]);
    flags.extend([
        "--map",
        "user_id=who",
        "--map",
        "timestamp=when",
        "--map",
        "kind=action",
    ]);
    flags.extend(["--kind", "purchase=bought", "--json", "-"]);

    let tried = run(freshet(&flags).arg("--dry-run"));
    assert!(!Path::new(&data_dir).exists(), "nothing is kept");
    let report: Value = serde_json::from_str(&tried).expect("JSON alone");
    let events = &report["files"][1];
    assert_eq!(
        (&events["rows"], &events["accepted"], &events["rejected"]),
        (
            &json!(4),
            &json!(1),
            &json!({ "malformed": 2, "unknown_item": 1 })
        )
    );
    assert_eq!(
        (&events["num_users"], &events["num_items_without_entry"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(events["first_occurred_at"], json!(1_714_564_800_000_i64));
    assert_eq!(events["kinds"], json!({ "purchase": 2, "glance": 1 }));
    let told: Vec<_> = events["examples"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|example| (example["line"].as_u64(), example["detail"].as_str()))
        .collect();
    assert!(
        told[0]
            .1
            .expect("words")
            .starts_with("timestamp is `soon`, expected seconds")
    );
    assert_eq!(
        told.iter()
            .filter_map(|(line, _)| *line)
            .collect::<Vec<_>>(),
        [3, 4, 5]
    );

    let kept = run(&mut freshet(&flags));
    let mut expected = report.clone();
    for file in expected["files"].as_array_mut().expect("a list") {
        file["is_dry_run"] = json!(false);
    }
    let kept: Value = serde_json::from_str(&kept).expect("JSON");
    assert_eq!(kept, expected, "a dry run says what will be");
    let again: Value = serde_json::from_str(&run(&mut freshet(&flags))).expect("JSON");
    assert_eq!(
        (
            &again["files"][0]["duplicates"],
            &again["files"][1]["duplicates"]
        ),
        (&json!(2), &json!(1))
    );
    assert_eq!(records(Path::new(&data_dir)).len(), 3);
}

#[test]
fn an_import_that_is_killed_and_begun_again_leaves_the_same_log() {
    const NUM_EVENTS: usize = 25_000;
    let dir = tempfile::tempdir().expect("temp dir");
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("items.tsv"), ITEMS).expect("written");
    let lines = (0..NUM_EVENTS).map(|line| {
        let (user, item) = (line % 7919, 1 + line % 2);
        format!("{user},{item},{}\n", 1_600_000_000 + line / 3)
    });
    let events = format!("user_id,item_id,timestamp\n{}", lines.collect::<String>());
    std::fs::write(path("events.csv"), events).expect("written");
    let import = |data_dir: &str| {
        let mut command = freshet(&["import", "--data-dir", data_dir, "--items"]);
        command.args([&path("items.tsv"), "--events", &path("events.csv")]);
        command
    };
    let (whole, killed) = (path("whole"), path("killed"));
    run(&mut import(&whole));

    let mut child = import(&killed)
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let log = Path::new(&killed).join("events.redb");
    let num_bytes = || std::fs::metadata(&log).map_or(0, |file| file.len());
    let deadline = Instant::now() + Duration::from_secs(60);
    let half = std::fs::metadata(Path::new(&whole).join("events.redb"))
        .expect("there")
        .len()
        / 2;
    while num_bytes() < half {
        assert!(Instant::now() < deadline, "too slow");
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(
        records(Path::new(&killed)).len() < 2 + NUM_EVENTS,
        "it was not killed in the middle"
    );
    run(&mut import(&killed));
    assert_eq!(records(Path::new(&killed)), records(Path::new(&whole)));
}

#[test]
fn files_of_another_system_are_imported_by_its_name_and_exported_as_parquet() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/import/formats/fixtures/movielens"
    );
    let said = run(&mut freshet(&[
        "import",
        "--from",
        "movielens",
        fixture,
        "--data-dir",
        &path("a"),
    ]));
    assert!(
        said.contains("ratings.csv: 2 accepted, 0 known already, 1 refused"),
        "{said}"
    );
    assert!(
        said.contains("not read: ") && said.contains("tags.csv"),
        "{said}"
    );
    assert!(said.contains("to do: items in no catalogue: 1"), "{said}");
    let wrong = freshet(&[
        "import",
        "--from",
        "mind",
        fixture,
        "--data-dir",
        &path("a"),
    ])
    .output();
    let wrong = String::from_utf8(wrong.expect("runs").stderr).expect("text");
    assert!(
        wrong.contains("expected behaviors.tsv and news.tsv"),
        "{wrong}"
    );

    let (items, events) = (path("items.parquet"), path("events.parquet"));
    let mut export = freshet(&["export", "--format", "parquet", "--data-dir", &path("a")]);
    let written = run(export.args(["--items", &items, "--events", &events, "--json"]));
    let written: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(
        (&written["items"]["rows"], &written["events"]["rows"]),
        (&json!(2), &json!(2))
    );
    let back = [
        "import",
        "--items",
        &items,
        "--events",
        &events,
        "--data-dir",
        &path("b"),
    ];
    run(&mut freshet(&back));
    assert_eq!(
        records(&dir.path().join("a")),
        records(&dir.path().join("b"))
    );
}
