//! Claims about what comes in wrong: it is refused with a reason that names the place, and the server goes on.

use std::process::Command;

use anyhow::Context;
use harness::people::World;
use harness::server::{Server, Setup, freshet_program};
use reqwest::Method;
use serde_json::{Value, json};
use trainer_server::clock::now_millis;

const BODY_BYTES_MAX: usize = 64 << 10;
const NUM_EVENTS_MAX: usize = 100;

/// A server with a catalogue, and its end of the log.
async fn server_with_items() -> anyhow::Result<(Server, World, u64)> {
    let world = World::new(41);
    let setup = Setup::default()
        .set("server.body_bytes_max", &BODY_BYTES_MAX.to_string())
        .set("server.batch_events_max", &NUM_EVENTS_MAX.to_string());
    let server = Server::start(setup).await?;
    for items in world.items.chunks(NUM_EVENTS_MAX) {
        server.api.put_items(items).await?;
    }
    let status = server.has_learned_all().await?;
    Ok((server, world, status.log_offset.0))
}

fn event(event_id: &str) -> Value {
    json!({ "event_id": event_id, "kind": "click", "user_id": "someone", "item_id": "kettle-0", "occurred_at": now_millis() })
}

fn with(event_id: &str, field: &str, value: Value) -> Value {
    let mut event = event(event_id);
    event[field] = value;
    event
}

/// A request that is refused as a whole.
struct Refused {
    method: Method,
    path: String,
    body: String,
    status: u16,
    /// Pointer of the first error; `None` where the request has no parts.
    pointer: Option<String>,
    /// What the words have to name.
    names: String,
}

/// Method, path, body; status, pointer, and what the words have to name.
type RequestRow<'a> = (Method, &'a str, &'a str, u16, Option<&'a str>, &'a str);

#[rustfmt::skip] // one request a line
fn refused_requests() -> Vec<Refused> {
    let too_many: Vec<Value> = (0..=NUM_EVENTS_MAX).map(|idx| event(&format!("many-{idx}"))).collect();
    let too_many = json!({ "events": too_many }).to_string();
    let too_large = json!({ "events": [with("large", "user_id", json!("x".repeat(BODY_BYTES_MAX)))] }).to_string();
    let mut half = json!({ "events": [event("half-1"), event("half-2")] }).to_string();
    half.truncate(half.len() - 10);
    let no_kind = r#"{"history": [{"item_id": "kettle-0", "kind": "glance", "occurred_at": 0}]}"#;
    let no_blob = "/v1/blobs/00000000000000000000000000000000000000000000000000000000000000aa";
    let requests: [RequestRow; 21] = [
        (Method::POST, "/v1/events", &half, 400, Some(""), "EOF"),
        (Method::POST, "/v1/events", "\u{0}\u{1}", 400, Some(""), "line 1"),
        (Method::POST, "/v1/events", r#"{"events": 3}"#, 400, Some("/events"), "a number"),
        (Method::POST, "/v1/events", "[]", 400, Some(""), "a list"),
        (Method::POST, "/v1/events", r#"{"sent_at": "now", "events": []}"#, 422, Some("/sent_at"), "now"),
        (Method::POST, "/v1/events", &too_many, 413, None, "101"),
        (Method::POST, "/v1/events", &too_large, 413, None, "65536"),
        (Method::PUT, "/v1/events", "{}", 405, None, "PUT"),
        (Method::PUT, "/v1/items", r#"{"items": "all"}"#, 400, Some("/items"), "a text"),
        (Method::POST, "/v1/recommend", r#"{"k": 0}"#, 422, Some("/k"), "0"),
        (Method::POST, "/v1/recommend", r#"{"k": 1001}"#, 422, Some("/k"), "1001"),
        (Method::POST, "/v1/recommend", r#"{"k": "ten"}"#, 422, Some("/k"), "ten"),
        (Method::POST, "/v1/recommend", r#"{"k": NaN}"#, 400, Some(""), "line 1"),
        (Method::POST, "/v1/recommend", no_kind, 422, Some("/history/0/kind"), "glance"),
        (Method::POST, "/v1/score", r#"{"item_ids": ["kettle-0", "nothing"]}"#, 422, Some("/item_ids/1"), "no such item"),
        (Method::GET, "/v1/models/nobody/manifest", "", 404, None, "no model"),
        (Method::GET, "/v1/models/nobody/watch", "", 404, None, "no model"),
        (Method::GET, "/v1/models/main/plan?base=first", "", 400, Some("base"), "version number"),
        (Method::GET, "/v1/blobs/nothing", "", 404, None, "64 lower-case hexadecimal digits"),
        (Method::GET, no_blob, "", 404, None, "no such blob"),
        (Method::GET, "/v1/nothing", "", 404, None, "/v1/nothing"),
    ];
    let refused = requests.map(|(method, path, body, status, pointer, names)| Refused {
        method, path: path.to_owned(), body: body.to_owned(), status,
        pointer: pointer.map(str::to_owned), names: names.to_owned(),
    });
    refused.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_request_gets_a_problem_document_and_leaves_no_trace() -> anyhow::Result<()> {
    let (server, _, log_offset) = server_with_items().await?;
    for case in refused_requests() {
        let name = format!("{} {} {:.60}", case.method, &case.path, case.body);
        let answer = server
            .api
            .send(case.method, &case.path, case.body)
            .await
            .with_context(|| name.clone())?;
        assert_eq!(
            (answer.status, answer.content_type.as_str()),
            (case.status, "application/problem+json"),
            "{name}: {answer:?}"
        );
        assert_eq!(answer.body["status"], case.status, "{name}");
        let has_words = ["type", "title", "detail"]
            .iter()
            .all(|field| answer.body[*field].is_string());
        assert!(has_words, "{name}: {}", answer.body);
        if let Some(pointer) = case.pointer {
            assert_eq!(
                answer.body["errors"][0]["pointer"], pointer,
                "{name}: {}",
                answer.body
            );
        }
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert!(
            detail.contains(&case.names),
            "{name}: {detail:?} does not name {:?}",
            case.names
        );
    }
    let status = server.has_learned_all().await?;
    assert_eq!(
        status.log_offset.0, log_offset,
        "nothing of a refused request is stored"
    );
    goes_on(&server, log_offset).await
}

/// An event, its code, the field that is wrong in it, and what the reason has to name.
type RejectedEvent = (Value, &'static str, &'static str, &'static str);

#[rustfmt::skip] // one event a line
fn rejected_events() -> Vec<RejectedEvent> {
    let hour_millis = 3_600_000;
    let mut without_kind = event("r0");
    if let Some(fields) = without_kind.as_object_mut() {
        fields.remove("kind");
    }
    vec![
        (without_kind, "malformed", "/kind", "missing"),
        (with("r1", "item_id", json!("unicorn")), "unknown_item", "/item_id", "unicorn"),
        (with("r2", "occurred_at", json!(now_millis() + hour_millis)), "time_in_future", "/occurred_at", "ms ahead"),
        (with("r3", "occurred_at", json!("yesterday")), "malformed", "/occurred_at", "yesterday"),
        (with("r4", "occurred_at", json!(-5)), "malformed", "/occurred_at", "-5"),
        (with("r5", "kind", json!("glance")), "malformed", "/kind", "glance"),
        (with("r6", "kind", json!("rating")), "invalid_value", "/value", "value"),
        (with("r7", "user_id", json!(["someone"])), "malformed", "/user_id", "someone"),
        (with("r8", "user_id", json!("")), "malformed", "/user_id", "empty"),
        (with("r9", "user_id", json!("x".repeat(129))), "malformed", "/user_id", "129"),
        (with("r10", "user_id", json!("some\none")), "malformed", "/user_id", "control"),
        (with("r11", "value", json!("much")), "malformed", "/value", "much"),
        (with("r12", "position", json!(-1)), "malformed", "/position", "-1"),
        (with("r13", "propensity", json!(1.5)), "invalid_propensity", "/propensity", "1.5"),
        (json!("no event"), "malformed", "", "a text"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_event_is_rejected_by_field_and_value_and_its_neighbours_are_kept()
-> anyhow::Result<()> {
    let (server, _, log_offset) = server_with_items().await?;
    let cases = rejected_events();
    let mut events = Vec::new();
    for (case_idx, (bad, ..)) in cases.iter().enumerate() {
        events.push(bad.clone());
        events.push(event(&format!("good-{case_idx}")));
    }
    let body = json!({ "events": events }).to_string();
    let answer = server.api.send(Method::POST, "/v1/events", body).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["accepted"], cases.len());
    let rejected = answer.body["rejected"].as_array().context("a list")?;
    assert_eq!(rejected.len(), cases.len(), "{}", answer.body);
    for (case_idx, ((bad, code, field, names), rejection)) in cases.iter().zip(rejected).enumerate()
    {
        let index = 2 * case_idx;
        assert_eq!(rejection["index"], index, "{bad}");
        assert_eq!(rejection["code"], *code, "{bad}: {rejection}");
        assert_eq!(
            rejection["pointer"],
            format!("/events/{index}{field}"),
            "{bad}"
        );
        let detail = rejection["detail"].as_str().unwrap_or_default();
        assert!(
            detail.contains(names),
            "{bad}: {detail:?} does not name {names:?}"
        );
    }

    // What JSON cannot say at all takes nothing else down.
    let nan = with("nan", "value", json!(1))
        .to_string()
        .replace("\"value\":1", "\"value\":NaN");
    assert!(nan.contains("NaN"));
    let body = format!("{{\"events\": [{}, {nan}]}}", event("good-beside-nan"));
    let answer = server.api.send(Method::POST, "/v1/events", body).await?;
    assert_eq!(
        (answer.status, &answer.body["accepted"]),
        (200, &json!(1)),
        "{answer:?}"
    );
    let rejection = &answer.body["rejected"][0];
    assert_eq!(
        (&rejection["code"], &rejection["pointer"]),
        (&json!("invalid_value"), &json!("/events/1")),
        "{rejection}"
    );

    let expected = log_offset + cases.len() as u64 + 1;
    assert_eq!(
        server.has_learned_all().await?.log_offset.0,
        expected,
        "exactly the good events are stored"
    );
    goes_on(&server, expected).await
}

/// The server takes the next event, learns it, ranks, and has never panicked.
async fn goes_on(server: &Server, log_offset: u64) -> anyhow::Result<()> {
    let body = json!({ "events": [event("afterwards")] }).to_string();
    let answer = server.api.send(Method::POST, "/v1/events", body).await?;
    assert_eq!(
        answer.body,
        json!({ "accepted": 1, "duplicates": 0, "rejected": [], "offset": log_offset + 1 })
    );
    server.has_learned_all().await?;
    let ranking = server.api.recommend(&[], 10, now_millis()).await?;
    assert_eq!(ranking.items.len(), 10);
    assert!(
        !server.log_text().contains("panicked"),
        "{}",
        server.log_text()
    );
    Ok(())
}

#[test]
fn a_dataset_is_made_of_raw_purchases_alone() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(freshet_program()?);
    let output = command
        .current_dir(dir.path())
        .args(["import", "--items", "items.tsv", "--to-dataset", "out"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "--to-dataset was taken");
    assert!(
        said.contains("--to-dataset") && said.contains("--purchases"),
        "{said:?}"
    );
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "nothing is made");
    Ok(())
}

#[test]
fn a_wrong_setting_stops_the_start_and_is_named_with_what_is_wrong() -> anyhow::Result<()> {
    let cases = [
        ("train.sed=1", ["train.sed", "train.seed"]),
        ("nothing.at_all=1", ["nothing", "unknown key"]),
        (
            "train.fast_interval_millis=1",
            ["train.fast_interval_millis", "is 1"],
        ),
        ("train.dropout=2", ["train.dropout", "below 1"]),
        ("train.seed=soon", ["seed", "soon"]),
        ("model.num_heads=7", ["model.num_heads", "embedding_dim"]),
        ("server.bind=everywhere", ["server.bind", "socket address"]),
        (
            "release.distillation=0.5 release.teacher_dir=/no/teacher",
            ["release.teacher_dir", "/no/teacher"],
        ),
        (
            "model.text_encoder_dir=/no/encoder",
            ["model.text_encoder_dir", "/no/encoder"],
        ),
    ];
    for (setting, names) in cases {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new(freshet_program()?);
        let output = command
            .arg("serve")
            .args(setting.split(' ').flat_map(|one| ["--set", one]))
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{setting} was taken");
        for name in names {
            assert!(
                said.contains(name),
                "{setting}: {said:?} does not name {name:?}"
            );
        }
        assert!(
            !dir.path().join("data").exists(),
            "{setting}: nothing is made before the settings are right"
        );
    }
    Ok(())
}
