//! Claims about what the package leaves behind: memory after many lives and many versions, and long tasks on the main
//! thread. Figures are those of Chromium after a collection of garbage.

use std::time::Duration;

use anyhow::{Context, ensure};
use harness::browser::{Browser, BrowserPage};
use harness::scene::{HOUR_MILLIS, START_MILLIS, Scene};
use harness::wait;
use serde_json::{Value, json};

const MEGABYTE: f64 = 1e6;
/// Lives and versions before the first look, in which everything is compiled and grows to its size.
const WARM_CYCLES: u32 = 20;
const WARM_UPDATES: u64 = 500;
const CYCLES: u32 = 1000;
/// So many on any machine: what every life leaves must not hide below the limit.
const CYCLES_MIN: u32 = 200;
/// Fewer cycles where all of them would take longer.
const CYCLES_MILLIS_MAX: f64 = 60_000.0;
/// A module's memory goes with the garbage, and a browser has address space for some hundred of them.
const CYCLES_AT_ONCE: u32 = 50;
const UPDATES: u64 = 1000;
/// Updates between two looks.
const ROUND_UPDATES: u64 = 500;
/// So often a module may need room that it did not need before.
const ROUNDS_MAX: usize = 5;
/// Events that are posted between two looks at the page: of every look, the driver leaves its answer in the page's heap.
const EVENTS_PER_LOOK: usize = 50;
/// For some hundred versions, on a busy machine.
const UPDATES_PATIENCE: Duration = Duration::from_secs(180);

/// What a page holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    heap_bytes: f64,
    num_workers: f64,
    num_listeners: f64,
    num_wasm_memories: f64,
    wasm_bytes: f64,
}

impl Held {
    async fn by(page: &BrowserPage) -> anyhow::Result<Self> {
        page.devtools("Performance.enable", json!({})).await?;
        for _ in 0..2 {
            page.devtools("HeapProfiler.collectGarbage", json!({}))
                .await?;
        }
        let answer = page.devtools("Performance.getMetrics", json!({})).await?;
        let metrics = answer["metrics"].as_array().context("metrics")?;
        let metric = |name: &str| {
            let found = metrics.iter().find(|metric| metric["name"] == name);
            found
                .and_then(|metric| metric["value"].as_f64())
                .with_context(|| format!("no {name}"))
        };
        let lengths = wasm_memories(page).await?;
        Ok(Self {
            heap_bytes: metric("JSHeapUsedSize")?,
            num_workers: metric("WorkerGlobalScopes")?,
            num_listeners: metric("JSEventListeners")?,
            num_wasm_memories: lengths.len() as f64, // a few
            wasm_bytes: lengths.iter().fold(0.0, |sum, length| sum + length),
        })
    }
}

/// Lengths of the wasm memories that the page itself holds, in bytes.
async fn wasm_memories(page: &BrowserPage) -> anyhow::Result<Vec<f64>> {
    let asked = json!({ "expression": "WebAssembly.Memory.prototype", "objectGroup": "leaks" });
    let prototype = page.devtools("Runtime.evaluate", asked).await?;
    let asked =
        json!({ "prototypeObjectId": prototype["result"]["objectId"], "objectGroup": "leaks" });
    let found = page.devtools("Runtime.queryObjects", asked).await?;
    let asked = json!({ "objectId": found["objects"]["objectId"], "returnByValue": true,
                        "functionDeclaration": "function () { return this.map(({ buffer }) => buffer.byteLength); }" });
    let lengths = page.devtools("Runtime.callFunctionOn", asked).await?;
    let group = json!({ "objectGroup": "leaks" });
    page.devtools("Runtime.releaseObjectGroup", group).await?;
    Ok(serde_json::from_value(lengths["result"]["value"].clone())?)
}

async fn cycles(page: &BrowserPage, num_cycles: u32) -> anyhow::Result<f64> {
    let millis = page.call("cycles", json!([num_cycles])).await?;
    millis.as_f64().context("a number")
}

/// Opens, ranks and disposes many times; where the engine runs is said by `query`.
async fn nothing_stays(
    scene: &Scene,
    browser: &Browser,
    query: &[(&str, &str)],
) -> anyhow::Result<()> {
    let query = [&[("connect", "0"), ("backend", "cpu")], query].concat();
    let page = browser.open(&scene.server.address().url, &query).await?;
    page.first_outcome().await?;
    let connected = page.call("connect", json!([])).await?;
    ensure!(connected["ok"] == true, "{connected}");
    let alive = Held::by(&page).await?;
    ensure!(
        alive.num_workers + alive.num_wasm_memories >= 1.0,
        "one that lives is seen: {alive:?}"
    );
    page.call("dispose", json!([])).await?;
    let warm_millis = cycles(&page, WARM_CYCLES).await? / f64::from(WARM_CYCLES);
    let affordable = (CYCLES_MILLIS_MAX / warm_millis) as u32; // some thousands at most
    let num_cycles = affordable.clamp(CYCLES_MIN, CYCLES);
    let before = Held::by(&page).await?;
    let mut left = num_cycles;
    let mut millis = 0.0;
    while left > 0 {
        let some = left.min(CYCLES_AT_ONCE);
        millis += cycles(&page, some).await?;
        left -= some;
        page.devtools("HeapProfiler.collectGarbage", json!({}))
            .await?;
    }
    let after = Held::by(&page).await?;
    let grown = after.heap_bytes - before.heap_bytes;
    println!(
        "{num_cycles} lives of {:.0} ms each, {query:?}: the heap grew by {grown:.0} bytes; before {before:?}, after {after:?}",
        millis / f64::from(num_cycles)
    );
    ensure!(
        grown <= MEGABYTE,
        "the heap grew by {grown} bytes over {num_cycles} lives"
    );
    ensure!(
        after.num_workers <= before.num_workers,
        "workers stay: {after:?}"
    );
    ensure!(
        after.num_listeners <= before.num_listeners,
        "listeners stay: {after:?}"
    );
    ensure!(
        after.num_wasm_memories <= before.num_wasm_memories,
        "wasm memories stay: {after:?}"
    );
    ensure!(page.uncaught().await?.is_empty());
    page.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_lives_leave_nothing_behind() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let scene = Scene::start(51, &[]).await?;
    nothing_stays(&scene, &browser, &[("worker", "0")]).await?;
    nothing_stays(&scene, &browser, &[]).await?;
    browser.close().await
}

/// People click until the page has taken `num_updates` versions since it was opened.
async fn updates(scene: &mut Scene, page: &BrowserPage, num_updates: u64) -> anyhow::Result<()> {
    let mut person_idx = 0;
    let num_taken = async || {
        for _ in 0..EVENTS_PER_LOOK {
            person_idx = (person_idx + 1) % scene.people.len();
            let person = &mut scene.people[person_idx];
            let event = scene.world.next_click(person, START_MILLIS + HOUR_MILLIS);
            scene.server.api.post_events(&[event]).await?;
        }
        let num_taken = page.call("numOf", json!(["update"])).await?.as_u64();
        Ok(num_taken.filter(|num_taken| *num_taken >= num_updates))
    };
    wait::until("the page takes versions", UPDATES_PATIENCE, num_taken).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_updates_grow_neither_the_heap_nor_the_memory_of_the_module()
-> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let mut scene = Scene::start(52, &[("train.fast_interval_millis", "10")]).await?;
    let query = [("backend", "cpu"), ("worker", "0"), ("log", "0")];
    let page = browser.open(&scene.server.address().url, &query).await?;
    page.is_connected().await?;
    updates(&mut scene, &page, WARM_UPDATES).await?;
    let before = Held::by(&page).await?;
    let mut after = before;
    let mut wasm_bytes = vec![before.wasm_bytes];
    let mut num_updates = 0;
    let mut is_steady = false;
    for _ in 0..ROUNDS_MAX {
        num_updates += ROUND_UPDATES;
        updates(&mut scene, &page, WARM_UPDATES + num_updates).await?;
        let held = Held::by(&page).await?;
        is_steady = held.wasm_bytes <= after.wasm_bytes;
        after = held;
        wasm_bytes.push(after.wasm_bytes);
        if is_steady && num_updates >= UPDATES {
            break;
        }
    }
    let grown = after.heap_bytes - before.heap_bytes;
    println!(
        "{num_updates} updates: the heap grew by {grown:.0} bytes, the module has {wasm_bytes:?}: {after:?}"
    );
    // Its memory grows in pages of 64 KiB, also by a delta over many versions after a pause; what is lost with every
    // update, 132 bytes or more, takes a page in every round.
    ensure!(is_steady, "the module's memory grows: {wasm_bytes:?}");
    ensure!(
        after.wasm_bytes - before.wasm_bytes <= MEGABYTE,
        "the module's memory grew: {wasm_bytes:?}"
    );
    ensure!(grown <= MEGABYTE, "the heap grew by {grown} bytes");
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_following_and_ranking_bring_no_long_task_to_the_page() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let mut scene = Scene::start(53, &[]).await?;
    let page = browser
        .open(&scene.server.address().url, &[("backend", "cpu")])
        .await?;
    page.is_connected().await?;
    for _ in 0..20 {
        let version = scene.clicks(1).await?;
        page.has_version(version).await?;
        page.call("timeRanks", json!([{ "k": 10 }, 10])).await?;
    }
    let tasks: Vec<Value> = serde_json::from_value(page.call("longTasks", json!([])).await?)?;
    println!("tasks over 50 ms on the main thread: {tasks:?}");
    ensure!(tasks.is_empty(), "tasks over 50 ms: {tasks:?}");
    browser.close().await
}
