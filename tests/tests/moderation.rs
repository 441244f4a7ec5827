//! Claims about the rules of operators in an open page, in Chromium.
//!
//! Not here: what each kind of rule does (`shared_model`), and the rules of a server (`trainer-server`).

use std::time::Duration;

use anyhow::ensure;
use harness::browser::{Browser, BrowserPage};
use harness::proxy::{Fault, Proxy};
use harness::scene::{NOW_MILLIS, Scene};
use harness::server::freshet_program;
use harness::wait;
use serde_json::Value;
use shared_model::event::HistoryEvent;
use shared_model::ids::ItemId;

const SEED: u64 = 61;
const PATIENCE: Duration = Duration::from_secs(20);
/// Items of the list that is looked at.
const K: usize = 3;

/// Runs `freshet rules WORDS… --by anna`; the answer is the rule.
async fn rules(admin: &str, words: &[&str]) -> anyhow::Result<Value> {
    let mut command = tokio::process::Command::new(freshet_program()?);
    let command = command.arg("rules").args(words);
    let command = command.args(["--by", "anna", "--json", "--admin", admin]);
    let output = command.output().await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}: {error}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

async fn block(admin: &str, item_id: &ItemId) -> anyhow::Result<String> {
    let item = ["--block", "--item", item_id.as_str()];
    let words = ["propose", "--reason", "recalled"];
    let rule = rules(admin, &[&words[..], &item[..]].concat()).await?;
    let id = rule["id"].to_string();
    let rule = rules(admin, &["approve", &id]).await?;
    ensure!(rule["state"] == "active", "{rule}");
    Ok(id)
}

async fn listed(page: &BrowserPage, history: &[HistoryEvent]) -> anyhow::Result<Vec<ItemId>> {
    let ranking = page.rank(history, K, NOW_MILLIS).await?;
    let ids = ranking.items.into_iter().map(|item| item.item_id);
    Ok(ids.collect())
}

/// Waits until the page was told of an error with this code.
async fn has_refused(page: &BrowserPage, code: &str) -> anyhow::Result<()> {
    wait::until(code, PATIENCE, async || {
        let errors = page.log("error").await?;
        Ok(errors
            .iter()
            .any(|error| error["code"] == code)
            .then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_item_leaves_an_open_page_and_comes_back_and_bad_rules_change_nothing()
-> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let address = address.to_string();
    let scene = Scene::start(SEED, &[("server.admin_bind", &address)]).await?;
    let admin = format!("http://{address}");
    let proxy = Proxy::start(scene.server.address()).await?;
    let page = browser.open(proxy.url(), &[("backend", "cpu")]).await?;
    page.is_connected().await?;
    let history = &scene.people[0].history;
    let first = listed(&page, history).await?;
    let shows = async |expected: &[&ItemId]| {
        wait::until("another list", PATIENCE, async || {
            let listed = listed(&page, history).await?;
            let is_it = listed[..expected.len()].iter().eq(expected.iter().copied());
            Ok(is_it.then_some(()))
        })
        .await
    };

    let rule = block(&admin, &first[0]).await?;
    shows(&[&first[1], &first[2]]).await?;
    let of_server = scene.server.api.recommend(history, K, NOW_MILLIS).await?;
    assert_eq!(of_server.items[0].item_id, first[1]);
    assert_eq!(page.log("moderation").await?.len(), 1, "the page was told");

    proxy.set(Fault::ForgedRules);
    let other = block(&admin, &first[1]).await?;
    has_refused(&page, "bad_signature").await?;
    assert_eq!(listed(&page, history).await?[..2], first[1..]);

    proxy.set(Fault::OlderRules);
    rules(&admin, &["withdraw", &other]).await?;
    has_refused(&page, "stale").await?;
    assert_eq!(listed(&page, history).await?[..2], first[1..]);

    proxy.set(Fault::None);
    rules(&admin, &["withdraw", &rule]).await?;
    shows(&[&first[0], &first[1], &first[2]]).await?;
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    Ok(())
}
