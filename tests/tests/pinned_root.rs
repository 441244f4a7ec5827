//! Claims about pages that pin a root: they follow through a rotation and a revocation, believe no other root, and
//! find out by themselves that what they rank with must not be trusted any more.

use std::time::Duration;

use anyhow::ensure;
use harness::browser::{Browser, BrowserPage};
use harness::native_page::NativePage;
use harness::root::Root;
use harness::scene::{NOW_MILLIS, Scene};
use harness::wait;
use serde_json::{Value, json};

/// Time for a key set to be picked up and told.
const PATIENCE: Duration = Duration::from_secs(30);
/// The settings of a server that looks for another key set every second.
const QUICK_KEYS: (&str, &str) = ("publish.key_poll_secs", "1");

/// Makes every clock that scripts can read run ahead by 400 days: beyond the manifest and the key set.
const AHEAD_SCRIPT: &str = r"
const [done] = arguments;
const now = Date.now.bind(Date);
Date.now = () => now() + 400 * 86400000;
window.dispatchEvent(new Event('online'));
done({ value: true });
";

/// Id of the key that signs now.
async fn signer(scene: &Scene) -> anyhow::Result<String> {
    let signed = scene.server.api.plan(None).await?.manifest;
    let envelope: Value = serde_json::from_str(&signed)?;
    Ok(envelope["key_id"].as_str().unwrap_or_default().to_owned())
}

async fn is_signed_by_another(scene: &Scene, before: &str) -> anyhow::Result<String> {
    wait::until("another key signs", PATIENCE, async || {
        let now = signer(scene).await?;
        Ok((now != before).then_some(now))
    })
    .await
}

async fn follows_a_click(scene: &mut Scene, page: &mut NativePage) -> anyhow::Result<()> {
    scene.clicks(1).await?;
    let (newest, _) = scene.server.api.newest_version().await?;
    page.has_learned(newest.learned_through).await
}

async fn has_error(page: &BrowserPage, codes: &[&str]) -> anyhow::Result<Value> {
    wait::until("the page tells an error", PATIENCE, async || {
        let errors = page.log("error").await?;
        let is_one = |error: &Value| codes.iter().any(|code| error["code"] == *code);
        Ok(errors.into_iter().find(is_one))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_page_follows_through_rotation_and_revocation() -> anyhow::Result<()> {
    let root = Root::make()?;
    let mut scene = Scene::rooted(21, &[QUICK_KEYS], &root).await?;
    let mut page = NativePage::with_root(scene.server.address(), root.verifying_key()?)?;
    follows_a_click(&mut scene, &mut page).await?;

    let first = signer(&scene).await?;
    let data_dir = scene.server.data_dir();
    root.ceremony(&["rotate"], &data_dir)?;
    let second = is_signed_by_another(&scene, &first).await?;
    follows_a_click(&mut scene, &mut page).await?;

    root.ceremony(&["revoke", &second], &data_dir)?;
    is_signed_by_another(&scene, &second).await?;
    follows_a_click(&mut scene, &mut page).await?;
    ensure!(page.versions().is_sorted(), "{:?}", page.versions());

    let stranger = Root::make()?;
    let mut other = NativePage::with_root(scene.server.address(), stranger.verifying_key()?)?;
    let refused = tokio::time::timeout(
        Duration::from_secs(3),
        other.has_learned(page.live()?.manifest.learned_through),
    );
    ensure!(
        refused.await.is_err(),
        "a page that pins another root believed the server"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_page_follows_its_root_and_finds_out_that_everything_has_expired()
-> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let root = Root::make()?;
    let mut scene = Scene::rooted(22, &[QUICK_KEYS], &root).await?;
    let url = scene.server.address().url.clone();
    // Without a worker, so that the script can turn the clock that the host reads.
    let pinned = [("backend", "cpu"), ("worker", "0"), ("connect", "0")];
    let page = browser.open(&url, &pinned).await?;
    let connected = page
        .call("connect", json!([{ "rootKey": root.public_key }]))
        .await?;
    ensure!(connected["ok"] == true, "{connected}");

    let first = signer(&scene).await?;
    root.ceremony(&["rotate"], &scene.server.data_dir())?;
    is_signed_by_another(&scene, &first).await?;
    let version = scene.clicks(1).await?;
    page.has_version(version).await?;
    // The first announcement by the new key comes before the set that names it: told once, then followed.
    let errors = page.log("error").await?;
    let is_first = |error: &Value| error["code"] == "unknown_key";
    ensure!(errors.iter().all(is_first), "{errors:?}");

    page.reload().await?;
    let again = page
        .call("connect", json!([{ "rootKey": root.public_key }]))
        .await?;
    ensure!(again["ok"] == true, "from the cache: {again}");
    let version = scene.clicks(1).await?;
    page.has_version(version).await?;

    let stranger = Root::make()?;
    let other = browser.open(&url, &pinned).await?;
    let refused =
        json!([{ "rootKey": stranger.public_key, "cache": false, "timeoutMillis": 3000 }]);
    let refused = other.call("connect", refused).await?;
    ensure!(
        refused["ok"] == false,
        "another root was believed: {refused}"
    );

    page.run(AHEAD_SCRIPT, Vec::new()).await?;
    let told = has_error(&page, &["clock_skew", "expired", "key_set_expired"]).await?;
    println!("a page whose clock runs ahead says {told}");
    let ranked = page.rank(&scene.people[0].history, 5, NOW_MILLIS).await?;
    ensure!(ranked.items.len() == 5, "it ranks on with what it has");
    browser.close().await
}
