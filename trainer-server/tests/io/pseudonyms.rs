//! Claims about pseudonymous ids: no file holds an id that was sent, whoever sends it notices nothing, and no user becomes two.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared_model::ids::LogOffset;
use shared_model::manifest::VersionKind;
use trainer_server::backup::verify::files_with;
use trainer_server::event_log::LogRecord;
use trainer_server::experiment::assign::assign;
use trainer_server::page_encoder::packs::TextPack;

use crate::harness::{NOW_MILLIS, TestServer, event, new_version};
use crate::lifecycle::{CANARY, Process, freshet, post_to, run};

const ON: (&str, &str) = ("log.pseudonymous_ids", "true");
const PATIENCE: Duration = Duration::from_secs(60);

fn set() -> [String; 2] {
    ["--set".to_owned(), format!("{}={}", ON.0, ON.1)]
}

fn start(dir: &Path, args: &[String]) -> Process {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Process::start_with(dir, &args)
}

/// What a start that fails says.
fn refusal(dir: &Path, args: &[String]) -> String {
    let mut command = freshet(&[
        "serve",
        "--bind",
        "127.0.0.1:0",
        "--set",
        "server.admin_bind=",
    ]);
    command.arg("--data-dir").arg(dir).args(args);
    let output = command.output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("text")
}

async fn put_items(process: &Process) {
    let items =
        ["a", "b", "c"].map(|id| json!({ "item_id": id, "title": format!("Tea pot {id}") }));
    let url = format!("{}/v1/items", process.url);
    let put = reqwest::Client::new()
        .put(url)
        .json(&json!({ "items": items }));
    assert_eq!(put.send().await.expect("an answer").status(), 200);
}

/// What is held of a user, once the trainer has read it.
async fn export(process: &Process, user_id: &str, num_events: usize) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let url = format!("{}/v1/users/{user_id}", process.admin);
        let answer = reqwest::get(url).await.expect("an answer");
        let export: Value = answer.json().await.expect("JSON");
        let history = export["derived"]["history"].as_array().expect("a list");
        if history.len() == num_events {
            return export;
        }
        assert!(Instant::now() < deadline, "{export}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An answer of 200, once there is a version.
async fn ask(process: &Process, path: &str, body: Value) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let url = format!("{}{path}", process.url);
        let asked = reqwest::Client::new().post(url).json(&body).send().await;
        let answer = asked.expect("an answer");
        let status = answer.status().as_u16();
        let answer: Value = answer.json().await.expect("JSON");
        if status == 200 {
            return answer;
        }
        assert!(
            status == 503 && Instant::now() < deadline,
            "{status} {answer}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn recommended(process: &Process, user_id: &str) -> BTreeSet<String> {
    let answer = ask(
        process,
        "/v1/recommend",
        json!({ "user_id": user_id, "k": 10 }),
    )
    .await;
    let items = answer["items"].as_array().expect("a list").iter();
    let ids = items.map(|item| item["item_id"].as_str().expect("an id").to_owned());
    ids.collect()
}

/// Files that hold the id as it is sent.
fn found(dir: &Path, id: &str) -> Vec<String> {
    let id = shared_model::ids::UserId::new(id).expect("valid");
    files_with(dir, &id).expect("readable")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_holds_an_id_that_was_sent_and_whoever_sends_it_is_known() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut process = start(dir.path(), &set());
    put_items(&process).await;
    post_to(&process, "first", 40).await; // every fourth event is the canary's, all of item `a`
    let held = export(&process, CANARY, 10).await;
    let pseudonym = held["user_id"].as_str().expect("text").to_owned();
    assert!(
        pseudonym.starts_with("p-") && !held.to_string().contains(CANARY),
        "{held}"
    );
    let events = held["events"].as_array().expect("a list");
    assert!(
        events
            .iter()
            .all(|stored| stored["event"]["user_id"] == pseudonym)
    );
    let ids = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(
        recommended(&process, CANARY).await,
        ids(&["b", "c"]),
        "what they had is left out"
    );
    assert_eq!(recommended(&process, "nobody").await, ids(&["a", "b", "c"]));
    assert_eq!(
        recommended(&process, &pseudonym).await,
        ids(&["a", "b", "c"]),
        "an id like any other"
    );
    let explained = ask(
        &process,
        "/v1/explain",
        json!({ "user_id": CANARY, "item_id": "b" }),
    )
    .await;
    assert_eq!(explained["events"][0]["item_id"], "a", "{explained}");

    assert_eq!(found(dir.path(), CANARY), Vec::<String>::new());
    assert!(
        !found(dir.path(), &pseudonym).is_empty(),
        "the scan finds what is there"
    );
    let path = dir.path().display().to_string();
    run(&["verify", "--absent", CANARY, "--as-sent", &path, "--json"]);
    let both = freshet(&["verify", "--absent", CANARY, &path])
        .output()
        .expect("runs");
    assert_eq!(both.status.code(), Some(1), "the pseudonym is there");

    process.kill();
    let mut process = start(dir.path(), &set());
    export(&process, CANARY, 10).await;
    let erased = process.run(&["erase", CANARY]);
    assert_eq!(erased["num_events"], 10);
    run(&["verify", "--absent", CANARY, &path, "--json"]);
    process.kill();
    assert_eq!(found(dir.path(), CANARY), Vec::<String>::new());
    let said = refusal(dir.path(), &[]);
    assert!(
        said.contains("`log.pseudonymous_ids` is false, but the log holds pseudonyms"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_plain_ids_is_refused_until_it_is_migrated_and_a_backup_needs_its_key() {
    let (dir, other) = (
        tempfile::tempdir().expect("dir"),
        tempfile::tempdir().expect("dir"),
    );
    let path = dir.path().display().to_string();
    let mut process = start(dir.path(), &[]);
    put_items(&process).await;
    post_to(&process, "plain", 8).await;
    export(&process, CANARY, 2).await;
    process.kill();
    assert!(!found(dir.path(), CANARY).is_empty());
    let said = refusal(dir.path(), &set());
    assert!(said.contains("freshet pseudonymize --data-dir"), "{said}");

    let done = run(&["pseudonymize", "--data-dir", &path, "--json"]);
    assert_eq!(done["num_events"], 8);
    assert_eq!(found(dir.path(), CANARY), Vec::<String>::new());
    let mut process = start(dir.path(), &set());
    post_to(&process, "after", 8).await;
    export(&process, CANARY, 4).await; // one user, before and after
    process.kill();

    let [backup, restored] = ["backup", "restored"].map(|name| other.path().join(name));
    let (to, target) = (backup.display().to_string(), restored.display().to_string());
    run(&[
        "backup",
        "--offline",
        "--data-dir",
        &path,
        "--to",
        &to,
        "--json",
    ]);
    assert_eq!(found(&backup, CANARY), Vec::<String>::new());
    run(&["restore", &to, "--data-dir", &target, "--json"]);
    let said = refusal(&restored, &set());
    assert!(said.contains("users.key is missing"), "{said}");
    std::fs::copy(dir.path().join("users.key"), restored.join("users.key")).expect("copied");
    let process = start(&restored, &set());
    export(&process, CANARY, 4).await;
    drop(process);
    std::fs::remove_file(restored.join("users.key")).expect("removed");
    run(&["pseudonymize", "--new-key", "--data-dir", &target, "--json"]);
    let process = start(&restored, &set());
    export(&process, CANARY, 0).await; // somebody new

    let with_keys = other.path().join("keys.tar").display().to_string();
    let args = [
        "backup",
        "--offline",
        "--with-keys",
        "--data-dir",
        &path,
        "--to",
        &with_keys,
        "--json",
    ];
    run(&args);
    let whole = other.path().join("whole");
    run(&[
        "restore",
        &with_keys,
        "--data-dir",
        &whole.display().to_string(),
        "--json",
    ]);
    let process = start(&whole, &set());
    export(&process, CANARY, 4).await;
}

#[tokio::test]
async fn every_route_calls_a_user_by_the_same_pseudonym() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::set_with_items(dir.path(), &[ON]).await;
    let mut posted = event("e");
    posted["user_id"] = json!("ann");
    posted["token"] = server
        .post("/v1/visits", json!({ "user_id": "ann" }).to_string())
        .await
        .1["token"]
        .clone();
    let (_, answer) = server
        .post("/v1/events", json!({ "events": [posted] }).to_string())
        .await;
    assert_eq!(
        (&answer["accepted"], answer.get("invalid_tokens")),
        (&json!(1), None)
    );
    let records = server.log.read(LogOffset(2), 1).expect("readable");
    let [(_, LogRecord::Event(stored))] = &records[..] else {
        panic!("{records:?}")
    };
    assert!(stored.is_vouched, "the token is of the id that was sent");
    let pseudonym = stored.event.user_id.clone();
    let version = new_version(VersionKind::Release, 1);
    server.publisher.publish(version).expect("published");
    server.text_packs.put(0, TextPack::Small);
    for (path, body) in [
        (
            "/v1/recommend",
            json!({ "user_id": "ann", "candidates": ["a"] }),
        ),
        ("/v1/score", json!({ "user_id": "ann", "item_ids": ["a"] })),
        (
            "/v1/explain",
            json!({ "user_id": "ann", "item_id": "a", "history": [] }),
        ),
        (
            "/v1/search",
            json!({ "user_id": "ann", "text": "a lamp", "candidates": ["a"] }),
        ),
    ] {
        let (status, answer) = server.post(path, body.to_string()).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    let url = format!("{}/v1/users/ann", server.admin_url);
    let export = server.client.get(&url).send().await.expect("an answer");
    let export: Value = export.json().await.expect("JSON");
    assert_eq!(
        export["events"].as_array().map(Vec::len),
        Some(1),
        "{export}"
    );
    let asked = server.users.lock().expect("no panic").clone();
    assert_eq!(
        asked,
        vec![pseudonym; 6],
        "history and influence of the export, too"
    );
}

#[tokio::test]
async fn experiments_give_arms_by_the_id_that_is_sent_and_count_them_by_pseudonym() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::set_with_items(dir.path(), &[ON]).await;
    let experiment = json!({ "name": "shelf-1", "place": "home", "metric": { "window_secs": 3600 }, "arms": [
        { "name": "control", "share": 50, "strategy": "model" },
        { "name": "popular", "share": 50, "strategy": "popularity" },
    ]});
    let admin = format!("{}/v1/experiments", server.admin_url);
    let begun = server.client.post(&admin).json(&experiment).send().await;
    assert_eq!(begun.expect("an answer").status(), 200);
    let mut events = Vec::new();
    for user in 0..40 {
        let user_id = format!("user-{user}");
        let body = json!({ "candidates": ["a", "bb"], "place": "home", "user_id": user_id });
        let (_, answer) = server.post("/v1/recommend", body.to_string()).await;
        let of_page = assign(
            "shelf-1",
            &user_id,
            [("control", 50), ("popular", 50)].into_iter(),
        );
        let arm = ["shelf-1/control", "shelf-1/popular"][of_page.expect("an arm")];
        assert_eq!(answer["arm"], arm, "as the page finds it");
        let reported = if user == 0 { "shelf-1/made-up" } else { arm };
        events.push(
            json!({ "event_id": format!("i{user}"), "kind": "impression", "user_id": user_id,
            "item_id": "a", "occurred_at": NOW_MILLIS, "arm": reported }),
        );
    }
    let other = if events[1]["arm"] == "shelf-1/control" {
        "popular"
    } else {
        "control"
    };
    events[1]["arm"] = json!(format!("shelf-1/{other}"));
    let (status, _) = server
        .post("/v1/events", json!({ "events": events }).to_string())
        .await;
    assert_eq!(status, 200);
    let shown = server.client.get(format!("{admin}/shelf-1")).send().await;
    let shown: Value = shown.expect("an answer").json().await.expect("JSON");
    let report = &shown["report"];
    let users = [0, 1].map(|arm| report["arms"][arm]["num_users"].as_u64().expect("a count"));
    assert_eq!(
        (users[0] + users[1], &report["num_misassigned"]),
        (38, &json!(2)),
        "{report}"
    );
}
