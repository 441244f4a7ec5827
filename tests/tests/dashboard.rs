//! Claims about the dashboard, in Chromium, on the admin address of a real server.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context;
use harness::browser::{Browser, BrowserPage};
use harness::scene::Scene;
use harness::server::{Server, Setup};
use harness::wait;
use serde_json::{Value, json};
use trainer_server::http::{Address, document};

const SEED: u64 = 47;
const PATIENCE: Duration = Duration::from_secs(60);

/// Goes to a page of the dashboard.
const GO_SCRIPT: &str = r"
const [hash, done] = arguments;
window.uncaught ??= (() => {
  const uncaught = [];
  addEventListener('error', ({ message }) => uncaught.push(message));
  addEventListener('unhandledrejection', ({ reason }) => uncaught.push(String(reason)));
  addEventListener('securitypolicyviolation', ({ violatedDirective }) => uncaught.push(violatedDirective));
  return uncaught;
})();
location.hash = hash;
done({ value: null });
";

const SEEN_SCRIPT: &str = r"
const [done] = arguments;
const all = (selector) => [...document.querySelectorAll(selector)];
done({ value: {
  tab: all('nav a[aria-current]').map((tab) => tab.getAttribute('href')).join(),
  state: document.getElementById('state').textContent,
  tiles: Object.fromEntries(all('.tile').map((tile) => [tile.querySelector('dt').textContent, tile.querySelector('dd').textContent])),
  headings: all('main h2').map((heading) => heading.textContent),
  rows: all('tbody tr').map((row) => row.textContent),
  lists: all('ul.list').map((list) => [...list.children].map((row) => row.textContent)),
  lines: all('.chart path').map((path) => path.getAttribute('d').length),
  alerts: all('[role=alert]').map((alert) => alert.textContent),
  uncaught: window.uncaught ?? [],
} });
";

/// Presses the first button with this text.
const PRESS_SCRIPT: &str = r"
const [text, done] = arguments;
window.confirm = () => true;
[...document.querySelectorAll('main button')].find((button) => button.textContent === text).click();
done({ value: null });
";

async fn go(page: &BrowserPage, hash: &str) -> anyhow::Result<()> {
    page.run(GO_SCRIPT, vec![json!(hash)]).await.map(drop)
}

async fn press(page: &BrowserPage, text: &str) -> anyhow::Result<()> {
    page.run(PRESS_SCRIPT, vec![json!(text)]).await.map(drop)
}

/// Waits for what is seen on a page of the dashboard.
async fn seen(
    page: &BrowserPage,
    tab: &str,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let mut last = Value::Null;
    let found = wait::until(what, PATIENCE, async || {
        last = page.run(SEEN_SCRIPT, vec![]).await?;
        let is_there = last["tab"] == format!("#{tab}") && holds(&last);
        Ok(is_there.then(|| last.clone()))
    });
    let found = found.await;
    found.with_context(|| last.to_string())
}

fn has_row(seen: &Value, text: &str) -> bool {
    let rows = seen["rows"].as_array();
    rows.is_some_and(|rows| {
        rows.iter()
            .any(|row| row.as_str().is_some_and(|row| row.contains(text)))
    })
}

fn len(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_shows_what_the_server_knows_and_orders_are_obeyed() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let admin = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let mut scene = Scene::start(SEED, &[("server.admin_bind", &admin)]).await?;
    let page = browser.open_url(&format!("http://{admin}/")).await?;
    go(&page, "live").await?;
    scene.clicks(40).await?;
    let live = seen(&page, "live", "clicks and freshness", |seen| {
        let lines = seen["lines"].as_array();
        let is_drawn = lines.is_some_and(|lines| lines.len() == 6);
        is_drawn && seen["tiles"]["Freshness"] != "–" && seen["tiles"]["Behind"] == "0"
    })
    .await?;
    assert!(
        live["state"]
            .as_str()
            .is_some_and(|state| state.starts_with("learning · version ")),
        "{live}"
    );

    go(&page, "learning").await?;
    seen(&page, "learning", "both hit rates", |seen| {
        seen["tiles"]["Hit rate at 10"] != "–" && seen["tiles"]["Popularity alone"] != "–"
    })
    .await?;

    go(&page, "quality").await?;
    let quality = seen(&page, "quality", "shares", |seen| {
        seen["tiles"]["Accepted"] == "100.0\u{a0}%"
    });
    assert_eq!(quality.await?["tiles"]["Received"], "40");

    go(&page, "simulator").await?;
    seen(&page, "simulator", "items", |seen| {
        len(&seen["lists"][0]) == 12
    })
    .await?;
    press(&page, "Add").await?;
    seen(&page, "simulator", "recommended", |seen| {
        len(&seen["lists"][1]) == 1 && len(&seen["lists"][2]) == 12
    })
    .await?;
    press(&page, "Why").await?;
    seen(&page, "simulator", "the event that speaks", |seen| {
        len(&seen["lists"][3]) == 1
    })
    .await?;

    go(&page, "bias").await?;
    seen(&page, "bias", "coverage", |seen| {
        seen["tiles"]["Catalogue coverage"]
            .as_str()
            .is_some_and(|text| text != "0.0\u{a0}%")
            && len(&seen["rows"]) > 5
    })
    .await?;

    go(&page, "uncertain").await?;
    seen(&page, "uncertain", "items", |seen| len(&seen["rows"]) > 10).await?;

    go(&page, "versions").await?;
    seen(&page, "versions", "versions", |seen| {
        has_row(seen, "release") && has_row(seen, "fast")
    })
    .await?;
    press(&page, "Compare").await?;
    seen(&page, "versions", "a comparison", |seen| {
        has_row(seen, "item.id")
    })
    .await?;
    press(&page, "Pin").await?;
    wait::until("the trainer is pinned", PATIENCE, async || {
        let state = page.run(SEEN_SCRIPT, vec![]).await?;
        let is_pinned = state["state"]
            .as_str()
            .is_some_and(|state| state.contains("pinned"));
        Ok(is_pinned.then_some(()))
    })
    .await?;
    let last = page.run(SEEN_SCRIPT, vec![]).await?;
    assert_eq!(
        (&last["uncaught"], &last["alerts"]),
        (&json!([]), &json!([]))
    );
    browser.close().await
}

const REFERENCE_SCRIPT: &str = r"
const [done] = arguments;
const headings = [...document.querySelectorAll('main section h2')].map((heading) => heading.textContent);
done({ value: { headings, links: [...document.querySelectorAll('main a')].filter((link) => !document.getElementById(link.hash.slice(1))).length } });
";

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_lists_every_operation_and_leads_nowhere_else() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let server = Server::start(Setup::default()).await?;
    let page = browser
        .open_url(&format!("{}/docs", server.address().url))
        .await?;
    let shown = wait::until("the reference", PATIENCE, async || {
        let shown = page.run(REFERENCE_SCRIPT, vec![]).await?;
        Ok((len(&shown["headings"]) > 0).then_some(shown))
    });
    let shown = shown.await?;
    let document = document(Address::Only);
    for (path, methods) in document["paths"].as_object().context("an object")? {
        for method in methods.as_object().context("an object")?.keys() {
            let heading = json!(format!("{} {path}", method.to_uppercase()));
            let headings = shown["headings"].as_array().context("a list")?;
            assert!(headings.contains(&heading), "{heading}");
        }
    }
    assert_eq!(shown["links"], 0, "every object that is named is described");
    browser.close().await
}
