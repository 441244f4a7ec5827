//! Claims about the npm package in Chromium, on the CPU: it follows, agrees, survives, and refuses damage.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::browser::{Browser, BrowserPage, PageStatus};
use harness::proxy::{Fault, Proxy};
use harness::scene::{NOW_MILLIS, Scene};
use harness::wait;
use serde_json::json;
use shared_model::ids::Version;
use shared_model::manifest::{Manifest, VersionKind};

const NUM_DELTAS: usize = 100;
/// Time for a refusal to be told.
const PATIENCE: Duration = Duration::from_secs(30);

/// Statuses of the page after every swap, one per version.
async fn updates(page: &BrowserPage) -> anyhow::Result<BTreeMap<Version, PageStatus>> {
    let mut updates = BTreeMap::new();
    for detail in page.log("update").await? {
        let status: PageStatus = serde_json::from_value(detail)?;
        if let Some(version) = status.version {
            updates.insert(version, status);
        }
    }
    Ok(updates)
}

fn check_hashes(
    updates: &BTreeMap<Version, PageStatus>,
    manifests: &[Manifest],
) -> anyhow::Result<()> {
    for (version, status) in updates {
        let manifest = manifests
            .iter()
            .find(|manifest| manifest.version == *version);
        let manifest = manifest.with_context(|| format!("version {version} has no manifest"))?;
        ensure!(
            status.state_hash == Some(manifest.state.to_hex()),
            "version {version}: {status:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_follows_a_hundred_deltas_and_a_release_and_ranks_as_the_server_does()
-> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let settings = [
        ("release.interval_events", "60"),
        ("release.trial_events", "8"),
        ("release.steps", "3"),
        ("train.fast_interval_millis", "20"),
    ];
    let mut scene = Scene::start(11, &settings).await?;
    let page = browser
        .open(&scene.server.address().url, &[("backend", "cpu")])
        .await?;
    page.is_connected().await?;

    for _ in 0..NUM_DELTAS {
        let version = scene.clicks(1).await?;
        page.has_version(version).await?;
    }
    let updates = updates(&page).await?;
    let manifests = scene.server.manifests().await?;
    check_hashes(&updates, &manifests)?;
    let is_delta =
        |manifest: &&Manifest| updates.contains_key(&manifest.version) && manifest.delta.is_some();
    let num_deltas = manifests.iter().filter(is_delta).count();
    let num_releases = manifests
        .iter()
        .filter(is_delta)
        .filter(|manifest| manifest.kind == VersionKind::Release)
        .count();
    println!("the page followed {num_deltas} deltas, {num_releases} of them releases");
    assert!(
        num_deltas >= NUM_DELTAS && num_releases >= 1,
        "the log of the server:\n{}",
        scene.server.log_text()
    );

    scene.page_ranks_as_the_server(&page, 5).await?;
    scene.page_holds_the_newest_codes(&page).await?;
    assert_eq!(page.status().await?.backend.as_deref(), Some("cpu"));
    assert_eq!(page.log("error").await?, Vec::<serde_json::Value>::new());
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_of_a_page_is_learned_and_comes_back_to_all_its_tabs() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let scene = Scene::start(12, &[]).await?;
    let query = [("backend", "cpu"), ("consent", "granted")];
    let page = browser.open(&scene.server.address().url, &query).await?;
    let other_tab = browser.open(&scene.server.address().url, &query).await?;
    page.is_connected().await?;
    other_tab.is_connected().await?;

    let before = page.status().await?;
    let item_id = &scene.world.items[0].item_id;
    let delivery = page
        .call("feedback", json!([{ "kind": "click", "itemId": item_id }]))
        .await?;
    assert_eq!(delivery["status"], "accepted", "{delivery}");
    let offset = delivery["offset"]
        .as_u64()
        .context("an accepted event has an offset")?;
    for tab in [&page, &other_tab] {
        let learned = |status: &PageStatus| {
            status
                .learned_through
                .is_some_and(|learned| learned.0 >= offset)
        };
        let status = tab
            .status_when("the tab has learned the click", learned)
            .await?;
        assert!(status.version > before.version);
        assert_eq!(tab.uncaught().await?, Vec::<String>::new());
    }
    scene.page_holds_the_newest_codes(&page).await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_ranks_on_without_a_server_also_after_a_reload_and_follows_again_when_it_is_back()
-> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let mut scene = Scene::start(13, &[]).await?;
    let page = browser
        .open(&scene.server.address().url, &[("backend", "cpu")])
        .await?;
    page.is_connected().await?;
    let version = scene.clicks(5).await?;
    page.has_version(version).await?;
    let history = scene.people[0].history.clone();
    let before = page.rank(&history, 10, NOW_MILLIS).await?;
    let cached = page.cached_version().await?;
    assert_eq!(cached.version, before.model_version);

    scene.server.kill9().await?;
    page.status_when("the page notices", |status| !status.is_online)
        .await?;
    assert_eq!(
        page.rank(&history, 10, NOW_MILLIS).await?,
        before,
        "the last good version ranks on"
    );

    page.reload().await?;
    page.is_connected()
        .await
        .context("from the cache, without a server")?;
    let status = page.status().await?;
    assert_eq!(status.version, Some(before.model_version));
    assert_eq!(status.state_hash, Some(cached.state.hash().to_hex()));
    assert_eq!(
        page.rank(&history, 10, NOW_MILLIS).await?,
        before,
        "and so does the cached one"
    );

    scene.server.restart().await?;
    let version = scene.clicks(5).await?;
    assert!(version > before.model_version);
    page.has_version(version).await?;
    scene.page_ranks_as_the_server(&page, 5).await?;
    scene.page_holds_the_newest_codes(&page).await?;
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_blobs_and_deltas_of_another_base_are_refused_with_a_code_and_the_page_goes_on()
-> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let mut scene = Scene::start(14, &[]).await?;
    let proxy = Proxy::start(scene.server.address()).await?;
    proxy.set(Fault::FlippedBlobs);
    let query = [("backend", "cpu"), ("cache", "0"), ("timeout", "3000")];
    let page = browser.open(proxy.url(), &query).await?;
    let refused = page.first_outcome().await?;
    assert_eq!(
        (&refused["ok"], &refused["code"]),
        (&json!(false), &json!("corrupt_blob")),
        "{refused}"
    );
    proxy.set(Fault::None);
    let connected = page
        .call("connect", json!([{ "timeoutMillis": 30_000 }]))
        .await?;
    assert_eq!(connected["ok"], true, "{connected}");

    let faults = [
        (Fault::TruncatedBlobs, "corrupt_blob"),
        (Fault::FlippedBlobs, "corrupt_blob"),
        (Fault::FlippedInlineDeltas, "corrupt_blob"),
        (Fault::PlansOfAnotherBase, "wrong_base"),
        (Fault::ForgedManifests, "bad_signature"),
    ];
    for (fault, code) in faults {
        let version = scene.clicks(3).await?;
        let good = page.has_version(version).await?;
        let num_errors = page.log("error").await?.len();
        proxy.set(fault);
        scene.clicks(3).await?;
        wait::until(
            &format!("{fault:?} is refused as {code}"),
            PATIENCE,
            async || {
                let errors = page.log("error").await?;
                Ok(errors[num_errors..]
                    .iter()
                    .any(|error| error["code"] == code)
                    .then_some(()))
            },
        )
        .await?;
        if fault != Fault::FlippedInlineDeltas {
            // A bad inline delta is fetched as a blob right after, so only then another version may be live.
            let ranking = page.rank(&scene.people[0].history, 10, NOW_MILLIS).await?;
            assert_eq!(Some(ranking.model_version), good.version, "{fault:?}");
        }
        proxy.set(Fault::None);
        let version = scene.clicks(3).await?;
        page.has_version(version).await?;
        scene
            .page_ranks_as_the_server(&page, 5)
            .await
            .with_context(|| format!("after {fault:?}"))?;
    }
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}
