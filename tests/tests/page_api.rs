//! Claims about what a page can ask for beyond a ranking, in Chromium: rules, diversity, similar items, pinning.
//!
//! Not here: what these mean (unit tests of `shared-model`), and what the script refuses (`edge-wasm/npm/test`).

use anyhow::{Context, ensure};
use burn::tensor::Device;
use harness::browser::{Browser, BrowserPage, for_page};
use harness::people::Person;
use harness::ranking::check_close;
use harness::scene::{HOUR_MILLIS, NOW_MILLIS, Scene};
use serde_json::{Value, json};
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::{
    Diversity, RankOptions, RankRequest, ReadyVersion, Rules, Shelf, ShelfRequest, SimilarRequest,
};
use shared_model::edge::explore::Exploration;
use shared_model::event::{EventKind, HistoryEvent};
use shared_model::ids::{ItemId, Version};
use shared_model::model::scorer::Padding;

/// Another CPU instruction set adds up in another order; see `parity.rs`.
const TOLERANCE: f64 = 1e-5;

fn close(expected: f64, actual: &Value) -> anyhow::Result<()> {
    check_close(TOLERANCE, expected, actual)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_makes_shelves_and_finds_similar_items_as_the_engine_does_here() -> anyhow::Result<()>
{
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let scene = Scene::start(31, &[]).await?;
    let page = browser.open_on_cpu(&scene.server.address().url).await?;
    let (manifest, state) = scene.server.api.newest_version().await?;
    page.has_version(manifest.version).await?;
    let ready = ReadyVersion::new(&state, &Device::flex(), Padding::Longest);
    let id = |idx: usize| state.items[idx].item_id.clone();
    let rules = json!({ "require": [{ "itemId": id(3), "position": 2 }, { "itemId": "gone", "position": 0 }],
                        "boost": [{ "itemIds": [id(5), id(6)], "points": 1.5 }],
                        "bury": [{ "itemIds": [id(6)], "points": 3 }], "exclude": [id(8)] });
    let wishes = [
        json!({}),
        json!({ "diversity": { "lambda": 0.4, "pool": 25 } }),
        json!({ "exploration": { "temperature": 0.8, "seed": 5 } }),
        json!({ "diversity": { "lambda": 0.4 }, "exploration": { "epsilon": 0.3, "seed": 5 } }),
    ];
    for (person, wish) in scene.people.iter().zip(wishes) {
        let expected = shelf_here(&ready, &state, person, &rules, &wish).await?;
        let mut ask = wish.clone();
        ask["history"] = for_page(&person.history);
        ask["rules"] = rules.clone();
        ask["k"] = json!(12);
        ask["excludeSeen"] = json!(true);
        ask["nowMillis"] = json!(NOW_MILLIS);
        let actual = page.called("rank", json!([ask])).await?;
        assert_eq!(actual["missing"], json!(["gone"]), "{wish}");
        assert_eq!(actual["items"][2]["itemId"], json!(id(3)), "{wish}");
        assert_eq!(actual["items"][2]["isRequired"], json!(true));
        for (place, item) in expected.items.iter().enumerate() {
            let actual = &actual["items"][place];
            assert_eq!(
                actual["itemId"],
                json!(item.item_id),
                "{wish}, place {place}"
            );
            close(f64::from(item.score), &actual["score"])?;
            close(item.points, &actual["points"])?;
            close(item.propensity, &actual["propensity"])?;
        }
    }
    similar_items_agree(&page, &ready, &state).await?;
    only_what_the_filter_lets_through(&page, &state).await?;
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

/// A shelf of twelve unseen items, made here from what the page is asked.
async fn shelf_here(
    ready: &ReadyVersion,
    state: &CodeState,
    person: &Person,
    rules: &Value,
    wish: &Value,
) -> anyhow::Result<Shelf> {
    let rules: Rules = serde_json::from_value(rules.clone())?;
    let diversity: Option<Diversity> = serde_json::from_value(wish["diversity"].clone())?;
    let exploration: Option<Exploration> = serde_json::from_value(wish["exploration"].clone())?;
    let options = RankOptions {
        k: 12,
        exclude_seen: true,
    };
    let rank = RankRequest {
        history: &person.history,
        candidates: None,
        options: &options,
        now_millis: NOW_MILLIS,
        moderation: None,
    };
    let request = ShelfRequest {
        rank,
        rules: &rules,
        diversity: diversity.as_ref(),
        exploration: exploration.as_ref(),
        personal: None,
    };
    Ok(ready.shelf(state, Version(0), &request).await?)
}

async fn similar_items_agree(
    page: &BrowserPage,
    ready: &ReadyVersion,
    state: &CodeState,
) -> anyhow::Result<()> {
    let asked = [
        state.items[3].item_id.clone(),
        state.items[9].item_id.clone(),
    ];
    for asked in [&asked[..1], &asked[..]] {
        let options = RankOptions {
            k: 8,
            exclude_seen: false,
        };
        let request = SimilarRequest {
            item_ids: asked,
            candidates: None,
            history: &[],
            options: &options,
            moderation: None,
        };
        let expected = ready.similar(state, &request).await?;
        let actual = page.called("similar", json!([asked, { "k": 8 }])).await?;
        for (place, item) in expected.iter().enumerate() {
            let actual = &actual["items"][place];
            assert_eq!(actual["itemId"], json!(item.item_id));
            close(f64::from(item.score), &actual["similarity"])?;
        }
    }
    let refused = page.call("similar", json!(["gone", {}])).await?;
    assert_eq!(refused["code"], json!("unknown_item"), "{refused}");
    Ok(())
}

async fn only_what_the_filter_lets_through(
    page: &BrowserPage,
    state: &CodeState,
) -> anyhow::Result<()> {
    let allowed: Vec<&ItemId> = [2, 4, 7].map(|idx| &state.items[idx].item_id).to_vec();
    let options =
        json!({ "rules": { "require": [{ "itemId": state.items[1].item_id, "position": 0 }] } });
    let actual = page
        .called("rankFiltered", json!([options, allowed]))
        .await?;
    let listed = actual["items"].as_array().context("a list")?.iter();
    let mut listed: Vec<&str> = listed.filter_map(|item| item["itemId"].as_str()).collect();
    listed.sort_unstable();
    let mut expected: Vec<String> = allowed.iter().map(ToString::to_string).collect();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    assert_eq!(actual["missing"], json!([state.items[1].item_id]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_page_keeps_its_version_until_it_is_unpinned_or_loaded_anew() -> anyhow::Result<()>
{
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let mut scene = Scene::start(31, &[]).await?;
    let page = browser.open_on_cpu(&scene.server.address().url).await?;
    let other = browser.open_on_cpu(&scene.server.address().url).await?;
    let pinned = page.called("pin", json!([])).await?["version"].clone();
    let newest = scene.clicks(40).await?;
    ensure!(
        json!(newest) != pinned,
        "there is something to be held from"
    );
    other.has_version(newest).await?;
    let status = page.call("status", json!([])).await?;
    assert_eq!(
        (&status["version"], &status["isPinned"]),
        (&pinned, &json!(true))
    );
    let ranked = page.called("rank", json!([{ "k": 3 }])).await?;
    assert_eq!(ranked["modelVersion"], pinned);
    assert_eq!(
        other.call("status", json!([])).await?["isPinned"],
        json!(false)
    );

    page.called("unpin", json!([])).await?;
    page.has_version(newest).await?;
    assert_eq!(
        page.call("status", json!([])).await?["isPinned"],
        json!(false)
    );

    page.called("pin", json!([])).await?;
    let newest = scene.clicks(40).await?;
    other.has_version(newest).await?;
    page.reload().await?;
    page.is_connected().await?;
    page.has_version(newest).await?;
    assert_eq!(
        page.call("status", json!([])).await?["isPinned"],
        json!(false)
    );
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_learns_of_its_visitor_as_the_engine_does_here_and_anew_for_each_version()
-> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let mut scene = Scene::start(31, &[]).await?;
    let page = browser.open_on_cpu(&scene.server.address().url).await?;
    // Three items over and over, two hours apart.
    let event = |idx: usize| HistoryEvent {
        item_id: scene.world.items[idx % 3].item_id.clone(),
        kind: EventKind::Purchase,
        occurred_at: NOW_MILLIS - 2 * HOUR_MILLIS * (12 - idx as i64), // a handful
    };
    let history: Vec<HistoryEvent> = (0..12).map(event).collect();
    let ask = json!({ "history": for_page(&history), "k": 12, "nowMillis": NOW_MILLIS });
    let plain = page.called("rank", json!([ask])).await?;
    assert_eq!(plain["isPersonal"], json!(false));
    assert_eq!(
        page.call("status", json!([])).await?["personal"],
        Value::Null
    );

    let mut ask = ask;
    ask["personal"] = json!(true);
    let mut gains = Vec::new();
    for _ in 0..2 {
        let newest = scene.clicks(40).await?;
        page.has_version(newest).await?;
        let (_, state) = scene.server.api.newest_version().await?;
        let ready = ReadyVersion::new(&state, &Device::flex(), Padding::Longest);
        let expected = ready.personal(&state, &history, NOW_MILLIS).await?;
        let points = ready.personal_points(&expected, &history, NOW_MILLIS);
        let ranked = page.called("rank", json!([ask])).await?;
        assert_eq!(ranked["isPersonal"], json!(true));
        let status = &page.call("status", json!([])).await?["personal"];
        assert_eq!(status["eventsLearned"], json!(12));
        close(expected.status().gain, &status["gain"])?;
        for item in ranked["items"].as_array().context("a list")? {
            let of_item = |(idx, _): &&(u32, f64)| {
                json!(state.items[*idx as usize].item_id) == item["itemId"]
            };
            let expected = points.iter().find(of_item);
            close(expected.map_or(0.0, |(_, points)| *points), &item["points"])?;
        }
        gains.push(expected.status().gain);
    }
    assert_ne!(gains[0], gains[1], "the newer version teaches otherwise");
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_history_comes_back_by_import_and_stays() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let scene = Scene::start(31, &[]).await?;
    let page = browser.open_on_cpu(&scene.server.address().url).await?;
    for item in &scene.world.items[..3] {
        let event = json!({ "kind": "click", "itemId": item.item_id });
        page.call("send", json!([event])).await?;
    }
    let exported = page.call("exportHistory", json!([])).await?;
    page.call("clearHistory", json!([])).await?;
    assert_eq!(page.call("history", json!([])).await?, json!([]));
    let imported = page.called("importHistory", json!([exported])).await?;
    assert_eq!(imported["numAdded"], json!(3));
    page.reload().await?;
    page.is_connected().await?;
    let kept = page.call("history", json!([])).await?;
    assert_eq!(kept, exported["events"]);
    assert_eq!(kept.as_array().map(Vec::len), Some(3));
    let other = json!([{ "format": "other" }]);
    let refused = page.call("importHistory", other).await?;
    assert_eq!(refused["code"], json!("invalid_option"));
    browser.close().await
}
