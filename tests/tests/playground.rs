//! Claims about the demo's playground, in Chromium, under the content security policy that it names itself.
//!
//! Not here: what the calls mean (`page_api.rs`) and what the snippets name (`edge-wasm/npm/test/guide.test.js`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use harness::browser::{Browser, BrowserPage};
use harness::people::World;
use harness::scene::Scene;
use harness::{wait, workspace};
use serde_json::{Value, json};

const SEED: u64 = 31;
/// Longest time to a first list.
const PATIENCE: Duration = Duration::from_secs(60);

/// Put before the page's own script: remembers what nobody caught and what the policy refused.
const WATCH_SCRIPT: &str = r"
window.uncaught = [];
addEventListener('error', ({ message }) => uncaught.push(message));
addEventListener('unhandledrejection', ({ reason }) => uncaught.push(String(reason)));
addEventListener('securitypolicyviolation', ({ violatedDirective }) => uncaught.push(violatedDirective));
";

/// Sets fields of the form as a hand does, then looks at the page.
const SET_SCRIPT: &str = r"
const [fields, done] = arguments;
const form = document.getElementById('form');
for (const [name, value] of Object.entries(fields)) {
  const field = form.elements[name];
  if (field.type === 'checkbox') field.checked = value;
  else field.value = value;
}
if (Object.keys(fields).length > 0) form.dispatchEvent(new Event('input', { bubbles: true }));
done({ value: null });
";

const SEEN_SCRIPT: &str = r"
const [done] = arguments;
const text = (id) => document.getElementById(id).textContent;
done({ value: {
  items: [...document.querySelectorAll('#results > li')].map((row) => row.dataset.itemId ?? row.textContent),
  code: text('code'), error: text('error'), millis: text('status-millis'), history: text('history-count'),
  hasErrors: !document.getElementById('error').hidden, log: text('events'), uncaught: window.uncaught,
} });
";

/// Presses what a selector finds.
const PRESS_SCRIPT: &str = r"
const [selector, done] = arguments;
document.querySelector(selector).click();
done({ value: null });
";

/// The demo's site, of links into the checkout, with a catalogue of `world`.
fn site(dir: &Path, world: &World) -> anyhow::Result<()> {
    let page_dir = workspace::root().join("web-demo/page");
    for entry in fs::read_dir(&page_dir)? {
        let path: PathBuf = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        std::os::unix::fs::symlink(&path, dir.join(name))?;
    }
    std::os::unix::fs::symlink(workspace::root().join("edge-wasm/npm"), dir.join("freshet"))?;
    let watched = "<script src=\"watch.js\"></script><script type=\"module\"";
    let html = fs::read_to_string(page_dir.join("playground.html"))?;
    let html = html.replacen("<script type=\"module\"", watched, 1);
    fs::remove_file(dir.join("playground.html"))?;
    fs::write(dir.join("playground.html"), html)?;
    fs::write(dir.join("watch.js"), WATCH_SCRIPT)?;
    let items = world.items.iter().map(
        |item| json!({ "item_id": item.item_id, "title": item.title, "price": 0, "category": "" }),
    );
    fs::write(dir.join("items.json"), items.collect::<Value>().to_string())?;
    Ok(())
}

async fn set(page: &BrowserPage, fields: Value) -> anyhow::Result<()> {
    page.run(SET_SCRIPT, vec![fields]).await?;
    Ok(())
}

/// What the page shows, once that is so.
async fn shown(
    page: &BrowserPage,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let mut last = Value::Null;
    let seen = wait::until(what, PATIENCE, async || {
        last = page.run(SEEN_SCRIPT, Vec::new()).await?;
        Ok(is_so(&last).then(|| last.clone()))
    });
    let seen = seen.await;
    seen.with_context(|| last.to_string())
}

fn num_items(seen: &Value) -> usize {
    seen["items"].as_array().map_or(0, Vec::len)
}

fn has_code(seen: &Value, code: &str) -> bool {
    seen["code"]
        .as_str()
        .is_some_and(|shown| shown.contains(code))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_control_changes_the_list_and_the_lines_that_make_it() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let site_dir = tempfile::tempdir()?;
    site(site_dir.path(), &World::new(SEED))?;
    let static_dir = site_dir.path().to_str().context("a path in UTF-8")?;
    let scene = Scene::start(SEED, &[("server.static_dir", static_dir)]).await?;
    let url = &scene.server.address().url;
    let page = browser
        .open_url(&format!("{url}/playground.html?backend=cpu"))
        .await?;

    let first = shown(&page, "ten items", |seen| num_items(seen) == 10).await?;
    assert!(
        first["millis"]
            .as_str()
            .is_some_and(|text| text.ends_with(" ms"))
    );
    let items = first["items"].as_array().context("a list")?;

    set(&page, json!({ "k": 3, "exclude": items[0] })).await?;
    let excluded = shown(&page, "three items", |seen| num_items(seen) == 3).await?;
    assert_eq!(excluded["items"], json!(items[1..4]));
    assert!(has_code(&excluded, "k: 3") && has_code(&excluded, "exclude: ["));

    let fields = json!({ "exclude": "", "require": items[4], "isExploring": true });
    set(&page, fields).await?;
    let required = shown(&page, "the required item", |seen| {
        seen["items"][0] == items[4]
    });
    assert!(has_code(
        &required.await?,
        "exploration: { temperature: 0.5, seed: 7 }"
    ));

    let fields = json!({ "call": "similar", "similarTo": items[0] });
    set(&page, fields).await?;
    shown(&page, "similar items", |seen| {
        has_code(seen, "freshet.similar(") && num_items(seen) == 3
    })
    .await?;
    set(&page, json!({ "call": "search", "text": "a warm lantern" })).await?;
    let found = shown(&page, "what was found", |seen| {
        has_code(seen, "freshet.search(") && num_items(seen) == 3 && seen["hasErrors"] == false
    });
    found.await?;

    let press = json!("#results > li button");
    page.run(PRESS_SCRIPT, vec![press]).await?;
    shown(
        &page,
        "the click in the history and at the server",
        |seen| {
            let log = seen["log"].as_str().unwrap_or_default();
            seen["history"] == "1 event" && log.contains("accepted")
        },
    )
    .await?;

    set(&page, json!({ "call": "explain", "explained": "gone" })).await?;
    let refused = shown(&page, "an error", |seen| seen["hasErrors"] == true).await?;
    let error = refused["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("unknown_item: "), "{error}");
    assert_eq!(refused["uncaught"], json!([]));
    browser.close().await
}
