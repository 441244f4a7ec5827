//! Claims about feedback on its way from Chromium: it arrives, once, whatever becomes of pages, network and server.
//!
//! Not here: the script's own rules (`edge-wasm/npm/test`), and what is learned from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::browser::{Browser, BrowserPage};
use harness::proxy::{Fault, Proxy};
use harness::scene::Scene;
use harness::server::Server;
use harness::wait;
use serde_json::{Value, json};
use shared_model::event::{Event, EventKind};
use trainer_server::event_log::LogRecord;

/// Part of what was given that has to arrive, in thousandths.
const ARRIVED_MIN_PERMILLE: usize = 995;
/// Time for everything to arrive once nothing is in its way: the longest pause of a sender, and to spare.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events that are given in the moment before a page is left; the last are more than a beacon holds.
const LEFT_WITH: [usize; 8] = [1, 3, 10, 30, 60, 100, 200, 400];
const NUM_TABS: usize = 20;
const BURST_LEN: usize = 15;
/// The first tab sends for all; it dies among others.
const CRASHED_TABS: [usize; 3] = [0, 7, 13];
const CLOSED_TABS: [usize; 3] = [3, 8, 19];

/// What was given, by the beginning of its ids.
#[derive(Default)]
struct Given(BTreeMap<&'static str, usize>);

impl Given {
    /// The beginning of ids that no other burst of the case has.
    fn burst(&mut self, case: &'static str, num_events: usize) -> String {
        let given = self.0.entry(case).or_default();
        *given += num_events;
        format!("{case}-{given}")
    }

    fn num_events(&self) -> usize {
        self.0.values().sum()
    }
}

/// The tabs of one visitor, and what was given in them.
struct Visitor {
    browser: Browser,
    scene: Scene,
    given: Given,
    num_records_before: usize,
}

impl Visitor {
    async fn start() -> anyhow::Result<Option<Self>> {
        let Some(browser) = Browser::start().await? else {
            return Ok(None);
        };
        let scene = Scene::start(41, &[]).await?;
        let num_records_before = num_records(&scene.server).await?;
        Ok(Some(Self {
            browser,
            scene,
            given: Given::default(),
            num_records_before,
        }))
    }

    async fn open(&self, url: &str) -> anyhow::Result<BrowserPage> {
        let query = [("backend", "cpu"), ("consent", "granted")];
        let page = self.browser.open(url, &query).await?;
        page.is_connected().await?;
        Ok(page)
    }

    fn arguments(&mut self, case: &'static str, num_events: usize) -> Value {
        let items = self.scene.world.items.iter().take(5);
        let items: Vec<_> = items.map(|item| item.item_id.clone()).collect();
        json!([self.given.burst(case, num_events), num_events, items])
    }

    async fn give(
        &mut self,
        page: &BrowserPage,
        case: &'static str,
        num_events: usize,
    ) -> anyhow::Result<()> {
        let arguments = self.arguments(case, num_events);
        page.call("sendMany", arguments).await?;
        Ok(())
    }

    /// Waits until as many events are stored as were given; what does not come is counted at the end.
    async fn has_sent(&self) -> anyhow::Result<()> {
        let expected = self.num_records_before + self.given.num_events();
        let arrived = wait::until("everything arrived", PATIENCE, async || {
            let stored = num_records(&self.scene.server).await?;
            Ok((stored >= expected).then_some(()))
        });
        if let Err(error) = arrived.await {
            println!("{error}");
        }
        Ok(())
    }
}

async fn num_records(server: &Server) -> anyhow::Result<usize> {
    Ok(usize::try_from(server.api.status().await?.log_offset.0)?)
}

/// The events of the log in order; ends the server.
async fn events_of(server: &mut Server) -> anyhow::Result<Vec<Event>> {
    server.kill9().await?;
    let events = server.log_records()?.into_iter();
    let events = events.filter_map(|record| match record {
        LogRecord::Event(stored) => Some(stored.event),
        LogRecord::ItemPut(_)
        | LogRecord::ItemDelete(_)
        | LogRecord::Tombstone(_)
        | LogRecord::UserErased(_) => None,
    });
    Ok(events.collect())
}

/// Pages are left in the moment in which feedback is given, by navigating away and by closing the tab in turn.
async fn pages_are_left(visitor: &mut Visitor) -> anyhow::Result<()> {
    let url = visitor.scene.server.address().url.clone();
    let mut num_without_a_visit = 0;
    for (idx, num_events) in LEFT_WITH.into_iter().enumerate() {
        let page = visitor.open(&url).await?;
        let before = num_records(&visitor.scene.server).await?;
        if idx % 2 == 0 {
            let arguments = visitor.arguments("unload", num_events);
            page.call_and_leave("sendMany", arguments).await?;
        } else {
            visitor.give(&page, "unload", num_events).await?;
            page.close().await?;
        }
        let come = wait::until("it came", Duration::from_millis(500), async || {
            let come = num_records(&visitor.scene.server).await? - before;
            Ok((come >= num_events).then_some(come))
        });
        num_without_a_visit += match come.await {
            Ok(come) => come,
            Err(_) => num_records(&visitor.scene.server).await? - before, // the rest waits for the next visit
        };
    }
    let num_given = visitor.given.num_events();
    println!("unload: {num_without_a_visit} of {num_given} came without another visit");
    assert!(num_without_a_visit * 2 >= num_given, "beacons are taken");
    let page = visitor.open(&url).await?;
    visitor.has_sent().await?;
    page.close().await
}

/// Feedback is given without a network, and one page is closed before it comes back.
async fn the_network_goes(visitor: &mut Visitor) -> anyhow::Result<()> {
    let url = visitor.scene.server.address().url.clone();
    let (page, closed) = (visitor.open(&url).await?, visitor.open(&url).await?);
    page.set_offline(true).await?;
    closed.set_offline(true).await?;
    for _ in 0..4 {
        visitor.give(&page, "offline", 30).await?;
        visitor.give(&closed, "offline", 30).await?;
    }
    closed.close().await?;
    let before = num_records(&visitor.scene.server).await?;
    assert_eq!(
        before + 240,
        visitor.num_records_before + visitor.given.num_events(),
        "nothing arrives without a network"
    );
    page.set_offline(false).await?;
    visitor.has_sent().await?;
    page.close().await
}

/// The server is busy for a while and says when to come back.
async fn the_server_is_busy(visitor: &mut Visitor) -> anyhow::Result<()> {
    let proxy = Proxy::start(visitor.scene.server.address()).await?;
    let (page, other) = (
        visitor.open(proxy.url()).await?,
        visitor.open(proxy.url()).await?,
    );
    proxy.set(Fault::BusyForFeedback);
    for _ in 0..5 {
        let before = proxy.num_turned_away();
        visitor.give(&page, "busy", 20).await?;
        visitor.give(&other, "busy", 20).await?;
        wait::until("it is turned away", PATIENCE, async || {
            Ok((proxy.num_turned_away() > before).then_some(()))
        })
        .await?;
    }
    let num_turned_away = proxy.num_turned_away();
    println!("busy: {num_turned_away} requests were turned away");
    assert!(
        num_turned_away < 20,
        "one tab asks, and not before it was told to"
    );
    proxy.set(Fault::None);
    visitor.has_sent().await?;
    page.close().await?;
    other.close().await
}

/// Many tabs, some of which die or are closed, and a server that is killed while they give feedback.
async fn tabs_and_server_die(visitor: &mut Visitor) -> anyhow::Result<()> {
    let url = visitor.scene.server.address().url.clone();
    let mut tabs = Vec::with_capacity(NUM_TABS);
    for _ in 0..NUM_TABS {
        tabs.push(visitor.open(&url).await?);
    }
    for tab in &tabs {
        visitor.give(tab, "tabs", BURST_LEN).await?;
    }
    visitor.scene.server.kill9().await?;
    for tab in &tabs {
        visitor.give(tab, "tabs", BURST_LEN).await?;
    }
    let mut left = Vec::new();
    for (idx, tab) in tabs.into_iter().enumerate() {
        if CRASHED_TABS.contains(&idx) {
            tab.crash().await?;
        } else if CLOSED_TABS.contains(&idx) {
            tab.close().await?;
        } else {
            left.push(tab);
        }
    }
    visitor.scene.server.restart().await?;
    for tab in &left {
        visitor.give(tab, "tabs", BURST_LEN).await?;
    }
    visitor.has_sent().await
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_arrives_and_counts_once_through_unload_offline_503_and_20_tabs()
-> anyhow::Result<()> {
    let Some(mut visitor) = Visitor::start().await? else {
        return Ok(());
    };
    pages_are_left(&mut visitor).await?;
    the_network_goes(&mut visitor).await?;
    the_server_is_busy(&mut visitor).await?;
    tabs_and_server_die(&mut visitor).await?;

    let mut stored: BTreeMap<String, usize> = BTreeMap::new();
    for event in events_of(&mut visitor.scene.server).await? {
        *stored.entry(event.event_id.to_string()).or_default() += 1;
    }
    let num_twice = stored.values().filter(|count| **count > 1).count();
    for (case, num_given) in &visitor.given.0 {
        let begins = format!("{case}-");
        let num_arrived = stored.keys().filter(|id| id.starts_with(&begins)).count();
        println!("{case}: {num_arrived} of {num_given} arrived");
        ensure!(
            num_arrived * 1000 >= num_given * ARRIVED_MIN_PERMILLE,
            "{case}: too few arrived"
        );
    }
    println!("{num_twice} are stored twice");
    assert_eq!(num_twice, 0);
    visitor.browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn consent_withdrawn_in_one_tab_while_feedback_is_under_way_leaves_nothing_in_any()
-> anyhow::Result<()> {
    let Some(mut visitor) = Visitor::start().await? else {
        return Ok(());
    };
    let proxy = Proxy::start(visitor.scene.server.address()).await?;
    let (page, other) = (
        visitor.open(proxy.url()).await?,
        visitor.open(proxy.url()).await?,
    );
    proxy.set(Fault::BusyForFeedback);
    visitor.give(&page, "withdrawn", 30).await?;
    visitor.give(&other, "withdrawn", 30).await?;
    let stored = other.call("stored", json!([])).await?;
    assert_eq!(stored["eventIds"].as_array().map(Vec::len), Some(60));
    assert!(keys_of_visitor(&stored).contains("freshet:user"));

    let outcome = other.call("setConsent", json!(["denied"])).await?;
    ensure!(outcome["ok"] == true, "{outcome}");
    for tab in [&page, &other] {
        wait::until("the tab has no consent", PATIENCE, async || {
            let status = tab.call("status", json!([])).await?;
            let is_denied = status["consent"] == "denied" && status["eventsWaiting"] == 0;
            Ok(is_denied.then_some(()))
        })
        .await?;
        let stored = tab.call("stored", json!([])).await?;
        assert_eq!(stored["eventIds"], json!([]));
        assert_eq!(keys_of_visitor(&stored), BTreeSet::new());
    }
    let item_id = &visitor.scene.world.items[0].item_id;
    let event = json!([{ "kind": "click", "itemId": item_id }]);
    assert_eq!(page.call("feedback", event).await?["status"], "withheld");
    proxy.set(Fault::None);
    page.reload().await?;
    page.is_connected().await?;

    let events = events_of(&mut visitor.scene.server).await?.into_iter();
    let mut late = events.filter(|event| event.event_id.to_string().starts_with("withdrawn"));
    assert_eq!(late.next(), None);
    visitor.browser.close().await
}

/// Keys of local storage that are about the visitor.
fn keys_of_visitor(stored: &Value) -> BTreeSet<&str> {
    let keys = stored["keys"].as_array().into_iter().flatten();
    let keys = keys.filter_map(Value::as_str);
    keys.filter(|key| key.starts_with("freshet:user") || key.starts_with("freshet:history"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_seen_of_a_list_is_logged_once_with_position_and_propensity() -> anyhow::Result<()>
{
    let Some(mut visitor) = Visitor::start().await? else {
        return Ok(());
    };
    let page = visitor
        .open(&visitor.scene.server.address().url.clone())
        .await?;
    page.bring_to_front().await?;
    let options = json!([{ "k": 5, "exploration": { "temperature": 1, "seed": 3 } }]);
    let ranking = page.call("showList", options).await?;
    let items = ranking["items"].as_array().context("a ranking")?;
    let logs = async |num_impressions: usize| {
        wait::until("what is seen is logged", PATIENCE, async || {
            let stored = num_records(&visitor.scene.server).await?;
            Ok((stored >= visitor.num_records_before + num_impressions).then_some(()))
        })
        .await
    };
    // The first card and two thirds of the second; then the last and two thirds of the one before.
    logs(2).await?;
    page.call("scrollToEnd", json!([])).await?;
    logs(4).await?;

    let events = events_of(&mut visitor.scene.server).await?.into_iter();
    let impressions = events.filter(|event| event.kind == EventKind::Impression);
    let mut impressions: Vec<Event> = impressions.collect();
    impressions.sort_by_key(|event| event.position);
    let positions: Vec<_> = impressions
        .iter()
        .filter_map(|event| event.position)
        .collect();
    assert_eq!(positions, [0, 1, 3, 4], "the third was passed by");
    for event in &impressions {
        let position = event.position.context("a position")?;
        let item = &items[usize::try_from(position)?];
        assert_eq!(json!(event.item_id), item["itemId"]);
        assert_eq!(json!(event.propensity), item["propensity"]);
        assert_eq!(json!(event.model_version), ranking["modelVersion"]);
    }
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    visitor.browser.close().await
}
