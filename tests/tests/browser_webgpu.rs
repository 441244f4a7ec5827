//! Claims about the npm package on WebGPU in Chromium. The adapter is a software one, so everything is small.

use anyhow::Context;
use harness::browser::{Browser, BrowserPage, PageStatus, for_page};
use harness::people::Person;
use harness::scene::{NOW_MILLIS, Scene};
use serde_json::{Value, json};
use shared_model::event::HistoryEvent;
use shared_model::ids::ItemId;

/// Watches what the page's graphics devices do; the page ranks by itself, without a worker. With its first argument the
/// adapter has no timers.
const SPY_SCRIPT: &str = r"
const [lacksTimers, done] = arguments;
const gpu = (window.gpu = { devices: [], asked: [], shaders: [], readBytes: [], bufferBytes: 0, bufferBytesMax: 0 });
const before = (type, name, body) => {
  const original = type.prototype[name];
  type.prototype[name] = function (...args) {
    body.apply(this, args);
    return original.apply(this, args);
  };
};
const { requestDevice } = GPUAdapter.prototype;
GPUAdapter.prototype.requestDevice = async function (descriptor) {
  gpu.asked.push([...descriptor.requiredFeatures]);
  const device = await requestDevice.call(this, descriptor);
  gpu.devices.push(device);
  return device;
};
before(GPUDevice, 'createShaderModule', ({ label }) => gpu.shaders.push(label));
before(GPUDevice, 'createBuffer', ({ size }) => {
  gpu.bufferBytes += size;
  gpu.bufferBytesMax = Math.max(gpu.bufferBytesMax, gpu.bufferBytes);
});
before(GPUBuffer, 'destroy', function () { gpu.bufferBytes -= this.size; });
before(GPUCommandEncoder, 'copyBufferToBuffer', (_from, _fromOffset, to, _toOffset, size) => {
  if (to.usage & GPUBufferUsage.MAP_READ) gpu.readBytes.push(size);
});
const { get } = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, 'features');
const withoutTimers = function () { return new Set([...get.call(this)].filter((name) => name !== 'timestamp-query')); };
if (lacksTimers) Object.defineProperty(GPUAdapter.prototype, 'features', { get: withoutTimers });
done({ value: null });
";

/// What was counted so far.
const COUNTS_SCRIPT: &str = r"
const [done] = arguments;
const { devices, ...counts } = window.gpu;
done({ value: { ...counts, numDevices: devices.length } });
";

/// Takes the newest graphics device away, as a driver does that is reset.
const LOSE_SCRIPT: &str = r"
const [done] = arguments;
window.gpu.devices.at(-1).destroy();
done({ value: null });
";

fn is_on(backend: &'static str) -> impl Fn(&PageStatus) -> bool {
    move |status| status.backend.as_deref() == Some(backend)
}

/// A page without a worker whose graphics devices are watched, ranking on WebGPU.
async fn watched_page(
    browser: &Browser,
    scene: &Scene,
    lacks_timers: bool,
) -> anyhow::Result<BrowserPage> {
    let query = [("backend", "webgpu"), ("worker", "0"), ("connect", "0")];
    let page = browser.open(&scene.server.address().url, &query).await?;
    page.is_connected().await?;
    page.run(SPY_SCRIPT, vec![json!(lacks_timers)]).await?;
    let connected = page.call("connect", json!([])).await?;
    anyhow::ensure!(connected["ok"] == true, "{connected}");
    page.status_when("the page ranks on webgpu", is_on("webgpu"))
        .await?;
    Ok(page)
}

async fn counts(page: &BrowserPage) -> anyhow::Result<Value> {
    page.run(COUNTS_SCRIPT, Vec::new()).await
}

/// The last events of a history, as the page takes them.
fn wire(history: &[HistoryEvent], len: usize) -> Value {
    for_page(&history[history.len().saturating_sub(len)..])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_moves_to_webgpu_follows_there_and_ranks_as_the_server_does() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let mut scene = Scene::start(21, &[]).await?;
    let url = &scene.server.address().url;
    let page = browser.open(url, &[("backend", "webgpu")]).await?;
    page.is_connected().await?;
    let status = page
        .status_when("the page ranks on webgpu", is_on("webgpu"))
        .await?;
    println!("{}", status.backend_reason);

    for _ in 0..3 {
        let version = scene.clicks(1).await?;
        page.has_version(version).await?;
    }
    scene.page_ranks_as_the_server(&page, 2).await?;
    scene.page_holds_the_newest_codes(&page).await?;

    let status = page.status().await?;
    assert!(is_on("webgpu")(&status), "it stays there: {status:?}");
    assert_eq!(page.log("restart").await?, Vec::<serde_json::Value>::new());
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

/// Everything that a page may ask, in several sizes.
async fn ask_everything(page: &BrowserPage, person: &Person) -> anyhow::Result<()> {
    let item_id = &person.history.last().context("ten clicks")?.item_id;
    let items: Vec<_> = person.history.iter().map(|event| &event.item_id).collect();
    let mut asked = vec![
        ("similar", json!([item_id, { "k": 3 }])),
        ("similar", json!([items, { "k": 3 }])),
        ("rank", json!([{ "k": 3, "candidates": items }])),
        ("rank", json!([{ "k": 5, "diversity": { "lambda": 0.5 } }])),
    ];
    let history = wire(&person.history, 10);
    asked.push(("rank", json!([{ "history": history, "personal": true }])));
    for len in [0, 1, 4, 10] {
        let history = wire(&person.history, len);
        asked.push(("rank", json!([{ "history": history, "k": 5 }])));
        asked.push(("explain", json!([item_id, { "history": history }])));
    }
    for (name, arguments) in asked {
        let outcome = page.call(name, arguments).await?;
        anyhow::ensure!(outcome["ok"] == true, "{name}: {outcome}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_shader_is_compiled_once_webgpu_ranks_and_scores_alone_are_read_back()
-> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let mut scene = Scene::start(22, &[]).await?;
    let page = watched_page(&browser, &scene, false).await?;
    let warm = counts(&page).await?;
    println!("{} bytes of buffers", warm["bufferBytesMax"]);
    assert!(
        warm["shaders"].as_array().map_or(0, Vec::len) > 10,
        "the spy sees them: {warm}"
    );

    let person = scene.people[0].clone();
    ask_everything(&page, &person).await?;
    let mut late = scene.world.items[0].clone();
    late.item_id = ItemId::new("late").context("short")?;
    scene.server.api.put_items(&[late]).await?;
    let version = scene.clicks(1).await?;
    page.has_version(version).await?;
    ask_everything(&page, &person).await?;
    let asked = counts(&page).await?;
    println!("{} bytes once it was asked", asked["bufferBytesMax"]);
    assert_eq!(asked["shaders"], warm["shaders"]);

    let num_reads = |counts: &Value| counts["readBytes"].as_array().map_or(0, Vec::len);
    let before = num_reads(&asked);
    page.rank(&person.history, 10, NOW_MILLIS).await?;
    let after = counts(&page).await?;
    assert_eq!(num_reads(&after), before + 1, "one read for a ranking");
    let num_items = scene.server.api.newest_version().await?.1.items.len() as u64;
    assert_eq!(num_items, 1 + scene.world.items.len() as u64);
    let num_rows = num_items.next_multiple_of(256);
    assert_eq!(after["readBytes"][before], 4 * num_rows, "its scores");
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_device_is_survived_twice_and_then_the_cpu_ranks() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let scene = Scene::start(23, &[]).await?;
    let page = watched_page(&browser, &scene, false).await?;
    for num_losses in 1..=3 {
        page.run(LOSE_SCRIPT, Vec::new()).await?;
        // Asked in the moment of the loss: answered all the same.
        scene.page_ranks_as_the_server(&page, 1).await?;
        let backend = if num_losses < 3 { "webgpu" } else { "cpu" };
        page.status_when(&format!("after loss {num_losses}"), |status| {
            let is_decided = !status.backend_reason.is_empty();
            is_on(backend)(status) && is_decided
        })
        .await?;
        let restarts = page.log("restart").await?;
        assert_eq!(restarts.len(), num_losses, "{restarts:?}");
        assert_eq!(restarts[num_losses - 1]["code"], "device_lost");
    }
    let status = page.status().await?;
    println!("{}", status.backend_reason);
    assert!(status.backend_reason.contains("lost"), "{status:?}");
    assert_eq!(counts(&page).await?["numDevices"], 3);
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_without_timers_is_used() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let scene = Scene::start(24, &[]).await?;
    let page = watched_page(&browser, &scene, true).await?;
    scene.page_ranks_as_the_server(&page, 2).await?;
    let counts = counts(&page).await?;
    let features = counts["asked"][0].as_array().context("a device was made")?;
    assert!(
        !features.contains(&json!("timestamp-query")),
        "{features:?}"
    );
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_catalogue_stays_on_the_cpu_and_loads_nothing_of_webgpu() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let scene = Scene::start(25, &[]).await?;
    let query = [("backend", "auto"), ("worker", "0")];
    let page = browser.open(&scene.server.address().url, &query).await?;
    page.is_connected().await?;
    let is_decided = |status: &PageStatus| !status.backend_reason.is_empty();
    let status = page.status_when("a backend is chosen", is_decided).await?;
    println!("{}", status.backend_reason);
    assert!(is_on("cpu")(&status));
    assert!(status.backend_reason.contains("ms"), "{status:?}");
    let loaded = page
        .run(
            "const [done] = arguments; done({ value: performance.getEntriesByType('resource').map(({ name }) => name) });",
            Vec::new(),
        )
        .await?;
    let loaded = loaded.to_string();
    assert!(loaded.contains("freshet_cpu_bg.wasm"), "{loaded}");
    assert!(!loaded.contains("freshet_webgpu"), "{loaded}");
    browser.close().await
}
