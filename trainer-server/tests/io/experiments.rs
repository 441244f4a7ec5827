//! Claims about experiments over HTTP: who gets which arm, what the log says of them, and what is refused.

use serde_json::{Value, json};
use shared_model::manifest::VersionKind;

use crate::harness::{NOW_MILLIS, TestServer, new_version};

async fn admin(server: &TestServer, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}{path}", server.admin_url);
    let method = method.parse().expect("a method");
    let mut request = server.client.request(method, url);
    if !body.is_null() {
        request = request.json(body);
    }
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

fn split() -> Value {
    json!({ "name": "shelf-1", "place": "home", "metric": { "window_secs": 3600 }, "arms": [
        { "name": "control", "share": 50, "strategy": "model" },
        { "name": "popular", "share": 50, "strategy": "popularity" },
    ]})
}

async fn recommend(server: &TestServer, more: Value) -> Value {
    let mut body = json!({ "candidates": ["a", "bb"], "place": "home", "user_id": "u" });
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    let (status, answer) = server.post("/v1/recommend", body.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn users_have_one_arm_each_which_ranks_for_them_and_pages_learn_what_they_need_for_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let (status, begun) = admin(&server, "POST", "/v1/experiments", &split()).await;
    assert_eq!(status, 200, "{begun}");
    let mut arms = std::collections::BTreeSet::new();
    for user in 0..20 {
        let user_id = format!("user-{user}");
        let answer = recommend(&server, json!({ "user_id": user_id })).await;
        let again = recommend(&server, json!({ "user_id": user_id, "k": 1 })).await;
        assert_eq!(answer["arm"], again["arm"]);
        let arm = answer["arm"].as_str().expect("an arm");
        let best = if arm == "shelf-1/popular" { "a" } else { "bb" };
        assert_eq!(answer["items"][0]["item_id"], best, "{arm}");
        arms.insert(arm.to_owned());
    }
    assert_eq!(arms.len(), 2, "{arms:?}");
    for elsewhere in [
        json!({ "place": "cart" }),
        json!({ "place": null }),
        json!({ "user_id": null }),
    ] {
        let answer = recommend(&server, elsewhere).await;
        assert!(answer["arm"].is_null(), "{answer}");
    }
    let running = server.get("/v1/models/main/experiments").await;
    assert_eq!(running.headers()["cache-control"], "max-age=60");
    let running: Value = running.json().await.expect("JSON");
    let arms = &begun["arms"];
    let expected = json!({ "name": "shelf-1", "place": "home", "salt": "shelf-1", "arms": arms });
    assert_eq!(running["experiments"], json!([expected]));

    let (status, _) = admin(
        &server,
        "PATCH",
        "/v1/experiments/shelf-1",
        &json!({ "stop": true }),
    )
    .await;
    assert_eq!(status, 200);
    assert!(recommend(&server, json!({})).await["arm"].is_null());
    let running = server.get("/v1/models/main/experiments").await;
    let running: Value = running.json().await.expect("JSON");
    assert_eq!(running["experiments"], json!([]));
}

#[tokio::test]
async fn impressions_that_carry_the_arm_back_are_counted_from_the_log() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    admin(&server, "POST", "/v1/experiments", &split()).await;
    let mut events = Vec::new();
    for user in 0..40 {
        let user_id = format!("user-{user}");
        let arm = &recommend(&server, json!({ "user_id": user_id })).await["arm"];
        let event = |id: &str, kind: &str| {
            json!({ "event_id": format!("{id}{user}"), "kind": kind, "user_id": user_id, "item_id": "a",
                    "occurred_at": NOW_MILLIS })
        };
        let mut impression = event("i", "impression");
        impression["arm"] = arm.clone();
        events.push(impression);
        if arm == "shelf-1/popular" {
            events.push(event("c", "click"));
        }
    }
    let (status, _) = server
        .post("/v1/events", json!({ "events": events }).to_string())
        .await;
    assert_eq!(status, 200);
    let (_, shown) = admin(&server, "GET", "/v1/experiments/shelf-1", &Value::Null).await;
    let report = &shown["report"];
    let users: Vec<_> = [0, 1]
        .map(|arm| report["arms"][arm]["num_users"].as_u64())
        .into();
    assert_eq!(users.iter().flatten().sum::<u64>(), 40, "{report}");
    assert_eq!(
        report["arms"][0]["num_counted"], 0,
        "no window is over: the clock stands still"
    );
    assert_eq!(
        (&report["num_misassigned"], &report["are_shares_sound"]),
        (&json!(0), &json!(true))
    );
}

#[tokio::test]
async fn interleaved_lists_hold_items_of_both_arms_and_say_whose_each_is() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let mut asked = split();
    asked["design"] = json!("interleave");
    assert_eq!(
        admin(&server, "POST", "/v1/experiments", &asked).await.0,
        200
    );
    let mut first = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let answer = recommend(&server, json!({})).await;
        assert!(answer["arm"].is_null());
        let arms: Vec<_> = [0, 1]
            .map(|place| answer["items"][place]["arm"].clone())
            .into();
        assert_ne!(arms[0], arms[1]);
        first.insert(arms[0].to_string());
    }
    assert_eq!(first.len(), 2, "a coin says who begins");
}

#[tokio::test]
async fn what_is_refused_names_the_field_or_what_is_in_the_way() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let with = |pointer: &str, value: Value| {
        let mut asked = split();
        *asked.pointer_mut(pointer).expect("there") = value;
        asked
    };
    for (asked, status, named) in [
        (with("/arms/0/share", json!(60)), 422, "shares sum to 110"),
        (
            with("/arms/0/strategy", json!({ "version": 9 })),
            422,
            "version 9 is not kept",
        ),
        (
            with("/metric", json!({ "window": 1 })),
            400,
            "unknown field `window`",
        ),
        (with("/name", json!("two words")), 422, "/name"),
    ] {
        let (actual, problem) = admin(&server, "POST", "/v1/experiments", &asked).await;
        assert_eq!(actual, status, "{problem}");
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains(named)),
            "{problem}"
        );
    }
    assert_eq!(
        admin(&server, "POST", "/v1/experiments", &split()).await.0,
        200
    );
    assert_eq!(
        admin(&server, "POST", "/v1/experiments", &split()).await.0,
        409
    );
    let shares = json!({ "shares": [10, 10] });
    let (status, changed) = admin(&server, "PATCH", "/v1/experiments/shelf-1", &shares).await;
    assert_eq!((status, &changed["arms"][0]["share"]), (200, &json!(10)));
    for bad in [
        json!({ "shares": [0, 1] }),
        json!({ "stop": false }),
        json!({}),
    ] {
        let (status, problem) = admin(&server, "PATCH", "/v1/experiments/shelf-1", &bad).await;
        assert_eq!(status, 422, "{problem}");
    }
    assert_eq!(
        admin(&server, "GET", "/v1/experiments/none", &Value::Null)
            .await
            .0,
        404
    );
    let (status, problem) = server.post("/v1/recommend", r#"{"place": "a/b"}"#).await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (422, &json!("/place"))
    );
}

#[tokio::test]
async fn an_estimate_without_propensities_is_refused_with_what_is_missing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let ask = json!({ "strategy": "popularity" });
    assert_eq!(
        admin(&server, "POST", "/v1/estimates", &ask).await.0,
        404,
        "no version is there"
    );
    server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    let impression = json!({ "events": [{ "event_id": "i", "kind": "impression", "user_id": "u", "item_id": "a",
                                          "occurred_at": NOW_MILLIS, "position": 0 }] });
    assert_eq!(
        server.post("/v1/events", impression.to_string()).await.0,
        200
    );
    let (status, problem) = admin(&server, "POST", "/v1/estimates", &ask).await;
    assert_eq!(status, 409);
    let detail = problem["detail"].as_str().expect("a text");
    assert!(
        detail.contains("of 1 impressions 1 have position 0 and 0 of these a propensity"),
        "{detail}"
    );
    let (status, problem) = admin(
        &server,
        "POST",
        "/v1/estimates",
        &json!({ "strategy": "model", "clip": 0 }),
    )
    .await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (422, &json!("/clip"))
    );
}

#[tokio::test]
async fn an_estimate_from_logged_propensities_is_what_the_strategy_earns_where_it_was_shown() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    // Of four users two are shown each item; of those shown `bb`, which the model thinks best, three of five click.
    let mut events = Vec::new();
    for user in 0..600 {
        let (item, is_clicked) = if user % 2 == 0 {
            ("bb", user / 2 % 5 < 3)
        } else {
            ("a", user / 2 % 5 == 0)
        };
        let event = |id: &str, kind: &str| {
            json!({ "event_id": format!("{id}{user}"), "kind": kind, "user_id": format!("u{user}"), "item_id": item,
                    "occurred_at": NOW_MILLIS })
        };
        let mut impression = event("i", "impression");
        impression["position"] = json!(0);
        impression["propensity"] = json!(0.5);
        events.push(impression);
        if is_clicked {
            events.push(event("c", "click"));
        }
    }
    let posted = json!({ "events": events }).to_string();
    assert_eq!(server.post("/v1/events", posted).await.0, 200);
    let (status, found) = admin(
        &server,
        "POST",
        "/v1/estimates",
        &json!({ "strategy": "model" }),
    )
    .await;
    assert_eq!(status, 200, "{found}");
    let value = |name: &str| found[name]["value"].as_f64().expect("a number");
    assert!((value("logged") - 0.4).abs() < 1e-9, "{found}");
    for name in ["ips", "snips", "dr"] {
        assert!((value(name) - 0.6).abs() < 0.02, "{name}: {found}");
        assert!(
            found[name]["lower"].as_f64() < Some(0.6) && found[name]["upper"].as_f64() > Some(0.6)
        );
    }
    assert_eq!(
        (&found["num_decisions"], &found["effective_decisions"]),
        (&json!(600), &json!(300.0))
    );
    assert_eq!(found["notes"], json!([]));
    // Half of the time by chance, so half of what lies between.
    let even = json!({ "strategy": { "exploration": { "epsilon": 1.0 } }, "decisions_max": 100 });
    let (_, found) = admin(&server, "POST", "/v1/estimates", &even).await;
    assert_eq!(
        found["ips"], found["logged"],
        "the newest hundred, and all weights are 1"
    );
}
