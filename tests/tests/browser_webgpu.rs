//! Claims about the npm package on WebGPU in Chromium. The adapter is a software one, so everything is small.

use harness::browser::{Browser, PageStatus};
use harness::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_moves_to_webgpu_follows_there_and_ranks_as_the_server_does() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let mut scene = Scene::start(21, &[]).await?;
    let url = &scene.server.address().url;
    let page = browser.open(url, &[("backend", "webgpu")]).await?;
    page.is_connected().await?;
    let is_moved = |status: &PageStatus| status.backend.as_deref() == Some("webgpu");
    let status = page
        .status_when("the page ranks on webgpu", is_moved)
        .await?;
    println!("{}", status.backend_reason);

    for _ in 0..3 {
        let version = scene.clicks(1).await?;
        page.has_version(version).await?;
    }
    scene.page_ranks_as_the_server(&page, 2).await?;
    scene.page_holds_the_newest_codes(&page).await?;

    let status = page.status().await?;
    assert!(is_moved(&status), "it stays there: {status:?}");
    assert_eq!(page.log("restart").await?, Vec::<serde_json::Value>::new());
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}
