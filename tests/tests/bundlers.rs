//! Claims about the packed package in other people's bundlers: built without a configuration for it, opened in Chromium.

use std::time::Duration;

use anyhow::ensure;
use harness::browser::Browser;
use harness::bundled::{Fixture, Served};
use harness::scene::Scene;
use harness::wait;
use serde_json::{Value, json};

/// Longest time to a first ranking.
const PATIENCE: Duration = Duration::from_secs(60);
/// For bundlers that make no page.
const PAGE: &str = "<!doctype html><html lang=en><title>Freshet</title><p id=out></p>\
                    <script type=module src=main.js></script></html>";
const SEEN_SCRIPT: &str = r"
const done = arguments[arguments.length - 1];
done({ value: document.querySelector('#out')?.textContent ?? '' });
";

/// A page of the fixture beside a server with a model: it ranks on the CPU; where, it says.
async fn runs_in(browser: &Browser, served: &Served) -> anyhow::Result<String> {
    let scene = Scene::start(31, &[]).await?;
    let url = format!("?server={}", scene.server.address().url);
    let page = browser.open_url(&served.url(&url)).await?;
    let seen = wait::until("the page shows something", PATIENCE, async || {
        let text = page.run(SEEN_SCRIPT, Vec::new()).await?;
        let text = text.as_str().unwrap_or_default();
        Ok((!text.is_empty()).then(|| serde_json::from_str::<Value>(text)))
    });
    let seen = seen.await??;
    ensure!(seen["numItems"] == json!(3), "it could not rank: {seen}");
    ensure!(seen["status"]["backend"] == json!("cpu"), "{seen}");
    let place = seen["status"]["runsIn"].as_str();
    Ok(place.unwrap_or_default().to_owned())
}

/// A built fixture and a browser, where this machine can have both.
async fn built(name: &str) -> anyhow::Result<Option<(Fixture, Browser)>> {
    let Some(fixture) = Fixture::install(name).await? else {
        return Ok(None);
    };
    fixture.build().await?;
    Ok(Browser::start().await?.map(|browser| (fixture, browser)))
}

/// Built, and while it is being written, when Vite puts the page together by other rules.
#[tokio::test(flavor = "multi_thread")]
async fn vite_finds_worker_and_modules() -> anyhow::Result<()> {
    let Some((fixture, browser)) = built("vite").await? else {
        return Ok(());
    };
    let built = fixture.serve_files("dist", PAGE).await?;
    assert_eq!(runs_in(&browser, &built).await?, "worker");
    let arguments = ["--port", "PORT", "--host", "127.0.0.1"];
    let developed = fixture.serve_by("node_modules/vite/bin/vite.js", &arguments);
    assert_eq!(runs_in(&browser, &developed.await?).await?, "worker");
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn webpack_finds_worker_and_modules() -> anyhow::Result<()> {
    let Some((fixture, browser)) = built("webpack").await? else {
        return Ok(());
    };
    let served = fixture.serve_files("dist", PAGE).await?;
    assert_eq!(runs_in(&browser, &served).await?, "worker");
    browser.close().await
}

/// It copies no files, so the module comes with the script and ranks in the page.
#[tokio::test(flavor = "multi_thread")]
async fn esbuild_ranks_in_the_page_without_any_file_beside_the_script() -> anyhow::Result<()> {
    let Some((fixture, browser)) = built("esbuild").await? else {
        return Ok(());
    };
    let served = fixture.serve_files("dist", PAGE).await?;
    assert_eq!(runs_in(&browser, &served).await?, "page");
    browser.close().await
}

/// Under the hash that the page names, with calls that were there before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_tag_is_enough() -> anyhow::Result<()> {
    let Some((fixture, browser)) = built("script-tag").await? else {
        return Ok(());
    };
    let served = fixture.serve_files("site", PAGE).await?;
    assert_eq!(runs_in(&browser, &served).await?, "worker");
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn next_renders_on_the_server_and_ranks_in_the_browser() -> anyhow::Result<()> {
    let Some((fixture, browser)) = built("next").await? else {
        return Ok(());
    };
    let arguments = ["start", "--port", "PORT", "--hostname", "127.0.0.1"];
    let served = fixture.serve_by("node_modules/next/dist/bin/next", &arguments);
    assert_eq!(runs_in(&browser, &served.await?).await?, "worker");
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn sveltekit_renders_on_the_server_and_ranks_in_the_browser() -> anyhow::Result<()> {
    let Some((fixture, browser)) = built("sveltekit").await? else {
        return Ok(());
    };
    let arguments = ["preview", "--port", "PORT", "--host", "127.0.0.1"];
    let served = fixture.serve_by("node_modules/vite/bin/vite.js", &arguments);
    assert_eq!(runs_in(&browser, &served.await?).await?, "worker");
    browser.close().await
}

/// React, Vue and Svelte themselves, in node: on a server, and with a document and an engine that are made up.
#[tokio::test]
async fn bindings_open_one_engine_after_rendering_and_rank_again_where_they_should()
-> anyhow::Result<()> {
    match Fixture::install("bindings").await? {
        Some(fixture) => fixture.build().await,
        None => Ok(()),
    }
}

/// publint and attw find nothing to say, and a page in strict TypeScript compiles.
#[tokio::test]
async fn description_and_types_of_the_package_pass_the_checks_of_others() -> anyhow::Result<()> {
    match Fixture::install("checks").await? {
        Some(fixture) => fixture.build().await,
        None => Ok(()),
    }
}

/// typedoc reads the declarations; a name without a doc comment is an error. `cargo xtask docs` writes the same pages.
#[tokio::test]
async fn every_exported_name_of_the_declarations_is_documented() -> anyhow::Result<()> {
    match Fixture::install("reference").await? {
        Some(fixture) => fixture.build().await,
        None => Ok(()),
    }
}
