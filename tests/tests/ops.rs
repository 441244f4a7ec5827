//! Claims about what operators switch on, against a real server: visit tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use harness::browser::{Browser, BrowserPage};
use harness::scene::Scene;
use serde_json::{Value, json};

/// Clicks on one item in a page.
const NUM_CLICKS: usize = 20;

/// Clicks on an item in a page of its own, until the server has stored and learned them.
async fn clicks_in_a_page(
    scene: &Scene,
    browser: &Browser,
    query: &[(&str, &str)],
    item_id: &str,
) -> anyhow::Result<BrowserPage> {
    let query = [&[("backend", "cpu"), ("consent", "granted")], query].concat();
    let page = browser.open(&scene.server.address().url, &query).await?;
    page.is_connected().await?;
    for _ in 0..NUM_CLICKS {
        let click = json!([{ "kind": "click", "itemId": item_id }]);
        let receipt = page.call("feedback", click).await?;
        ensure!(receipt["status"] == "accepted", "{receipt}");
    }
    scene.server.has_learned_all().await?;
    Ok(page)
}

/// Events that taught nothing for want of a token.
async fn num_without_token(scene: &Scene) -> anyhow::Result<u64> {
    let trainer = scene.server.api.status().await?.trainer;
    Ok(trainer["set_aside"]["no_token"].as_u64().unwrap_or(0)) // those that never occurred
}

/// All items, best first, for somebody without a history.
async fn ranked(scene: &Scene) -> anyhow::Result<Vec<String>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let num_items = scene.world.items.len();
    let ranking = scene
        .server
        .api
        .recommend(&[], num_items, i64::try_from(now)?)
        .await?;
    let items = ranking.items.into_iter();
    Ok(items.map(|item| item.item_id.to_string()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_page_with_visit_tokens_teaches_where_the_server_wants_them() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let scene = Scene::start(61, &[("influence.without_token", "nothing")]).await?;
    let before = ranked(&scene).await?;
    let last = before.last().context("items")?.clone();
    let without_token = num_without_token(&scene).await?;

    let page = clicks_in_a_page(&scene, &browser, &[], &last).await?;
    let clicks = NUM_CLICKS as u64; // widening
    assert_eq!(num_without_token(&scene).await?, without_token + clicks);
    assert_eq!(ranked(&scene).await?, before, "they taught nothing");
    page.close().await?;

    let query = [("visitTokens", "1")];
    let page = clicks_in_a_page(&scene, &browser, &query, &last).await?;
    assert_eq!(num_without_token(&scene).await?, without_token + clicks);
    let after = ranked(&scene).await?;
    let place = after.iter().position(|item_id| *item_id == last);
    let place = place.context("it is ranked")?;
    assert!(place < before.len() * 9 / 10, "they taught: {place}");
    let stored = page.call("stored", json!([])).await?;
    let keys = stored["keys"].as_array().context("keys")?;
    let is_of_visit = |key: &&Value| {
        key.as_str()
            .is_some_and(|key| key.starts_with("freshet:visit "))
    };
    assert_eq!(keys.iter().filter(is_of_visit).count(), 1, "{stored}");

    page.call("setConsent", json!(["denied"])).await?;
    let stored = page.call("stored", json!([])).await?;
    let keys = stored["keys"].as_array().context("keys")?;
    assert_eq!(keys.iter().filter(is_of_visit).count(), 0, "{stored}");
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}
