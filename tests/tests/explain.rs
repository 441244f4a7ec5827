//! Claims about explanations and exploration across the wire: page and server say the same, and the page needs no request.
//!
//! Not here: what the numbers mean (unit tests of `shared-model`) and how faithful they are (`docs/explanations.md`).

use anyhow::{Context, ensure};
use harness::browser::{Browser, PageStatus, for_page};
use harness::ranking::check_close;
use harness::scene::{NOW_MILLIS, Scene};
use reqwest::Method;
use serde_json::{Value, json};

/// Another CPU instruction set adds up in another order; see `parity.rs`.
const TOLERANCE: f64 = 1e-5;
/// On a GPU exponentials and roots come from another library; see `parity.rs`.
const GPU_TOLERANCE: f64 = 1e-4;
/// Explanations timed.
const NUM_TIMED: usize = 20;

fn close(expected: &Value, actual: &Value) -> anyhow::Result<()> {
    close_within(TOLERANCE, expected, actual)
}

fn close_within(tolerance: f64, expected: &Value, actual: &Value) -> anyhow::Result<()> {
    let expected = expected.as_f64().context("a number of the server")?;
    check_close(tolerance, expected, actual)
}

#[tokio::test(flavor = "multi_thread")]
async fn page_and_server_explain_and_explore_alike() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let scene = Scene::start(31, &[]).await?;
    let page = browser
        .open(&scene.server.address().url, &[("backend", "cpu")])
        .await?;
    page.is_connected().await?;
    let item_id = &scene.world.items[3].item_id;
    for person in scene.people.iter().take(3) {
        let ask =
            json!({ "item_id": item_id, "history": person.history, "k": 4, "now": NOW_MILLIS });
        let api = &scene.server.api;
        let expected = api
            .send(Method::POST, "/v1/explain", ask.to_string())
            .await?;
        ensure!(expected.status == 200, "{expected:?}");
        let expected = expected.body;
        let history = for_page(&person.history);
        let options = json!({ "history": history, "k": 4, "nowMillis": NOW_MILLIS });
        let actual = page.call("explain", json!([item_id, options])).await?;
        ensure!(actual["ok"] == true, "{actual}");
        close(&expected["score"], &actual["score"])?;
        close(&expected["text_effect"], &actual["textEffect"])?;
        close(&expected["parts"]["id_row"], &actual["parts"]["idRow"])?;
        close(&expected["parts"]["prior"], &actual["parts"]["prior"])?;
        close(&expected["average"]["taste"], &actual["average"]["taste"])?;
        for event_idx in 0..4 {
            let (expected, actual) = (&expected["events"][event_idx], &actual["events"][event_idx]);
            close(&expected["effect"], &actual["effect"])?;
        }

        let wish = json!({ "temperature": 0.5, "seed": 77 });
        let ask = json!({ "history": person.history, "k": 10, "exclude_seen": false,
                          "exploration": wish, "now": NOW_MILLIS });
        let expected = api
            .send(Method::POST, "/v1/recommend", ask.to_string())
            .await?;
        let options = json!({ "history": for_page(&person.history), "k": 10, "exploration": wish,
                              "nowMillis": NOW_MILLIS });
        let actual = page.call("rank", json!([options])).await?;
        for place in 0..10 {
            let (expected, actual) = (&expected.body["items"][place], &actual["items"][place]);
            ensure!(
                expected["item_id"] == actual["itemId"],
                "{expected} {actual}"
            );
            close(&expected["propensity"], &actual["propensity"])?;
        }
    }
    let actual = page.call("explain", json!(["nowhere", {}])).await?;
    assert_eq!(actual["code"], "unknown_item", "{actual}");
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_explains_a_full_history_on_its_own() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let mut scene = Scene::start(32, &[("model.history_len", "50")]).await?;
    let page = browser
        .open(&scene.server.address().url, &[("backend", "cpu")])
        .await?;
    page.is_connected().await?;
    let mut person = scene.people[0].clone();
    while person.history.len() < 50 {
        scene.world.next_click(&mut person, NOW_MILLIS);
    }
    scene.server.kill9().await?;
    let item_id = &scene.world.items[5].item_id;
    let options = json!({ "history": for_page(&person.history), "k": 50, "nowMillis": NOW_MILLIS });
    let answer = page
        .call("explain", json!([item_id, options.clone()]))
        .await?;
    assert_eq!(
        answer["events"].as_array().map(Vec::len),
        Some(50),
        "{answer}"
    );
    let timed = json!([item_id, options, NUM_TIMED]);
    let mut millis: Vec<f64> = serde_json::from_value(page.call("timeExplanations", timed).await?)?;
    millis.sort_by(f64::total_cmp);
    println!(
        "explaining one of {} items from 50 events: median {:.1} ms, slowest {:.1} ms",
        scene.world.items.len(),
        millis[NUM_TIMED / 2],
        millis[NUM_TIMED - 1]
    );
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_on_webgpu_explains_as_the_server_does() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let scene = Scene::start(33, &[]).await?;
    let page = browser
        .open(&scene.server.address().url, &[("backend", "webgpu")])
        .await?;
    page.is_connected().await?;
    let is_moved = |status: &PageStatus| status.backend.as_deref() == Some("webgpu");
    page.status_when("the page ranks on webgpu", is_moved)
        .await?;
    let item_id = &scene.world.items[3].item_id;
    for history in [&scene.people[0].history[..], &[]] {
        let ask = json!({ "item_id": item_id, "history": history, "k": 20, "now": NOW_MILLIS });
        let api = &scene.server.api;
        let expected = api
            .send(Method::POST, "/v1/explain", ask.to_string())
            .await?;
        let options = json!({ "history": for_page(history), "k": 20, "nowMillis": NOW_MILLIS });
        let actual = page.call("explain", json!([item_id, options])).await?;
        close_within(GPU_TOLERANCE, &expected.body["score"], &actual["score"])?;
        // Equal effects may change places by rounding, so they are compared as a sum.
        let sum = |events: &Value| -> Option<f64> {
            let effects = events.as_array()?.iter();
            effects.map(|event| event["effect"].as_f64()).sum()
        };
        let expected = sum(&expected.body["events"]).context("effects")?;
        let actual = sum(&actual["events"]).context("effects")?;
        close_within(20.0 * GPU_TOLERANCE, &json!(expected), &json!(actual))?;
    }
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}
