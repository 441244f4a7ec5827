//! Claims about private training in the real server: events reach pages by paid rounds alone, and no restart forgets
//! what was spent.

use std::time::Duration;

use anyhow::ensure;
use harness::api::Status;
use harness::server::{Server, Setup};
use harness::wait;
use serde_json::json;
use shared_model::codec::state::{COUNTS_TENSOR, CodeState, NEIGHBOURS_TENSOR, NEVER_CODE};
use shared_model::event::{Event, Item};
use trainer_server::privacy::{Mechanism, epsilon};

const NUM_ITEMS: usize = 30;
const NUM_USERS: usize = 40;
const START_MILLIS: i64 = 1_700_000_000_000;
const PATIENCE: Duration = Duration::from_secs(90);
const DELTA: f64 = 1e-6;
const MECHANISM: Mechanism = Mechanism {
    noise_multiplier: 4.0,
    sampling_rate: 0.5,
};

fn item(number: usize) -> anyhow::Result<Item> {
    let item = json!({ "item_id": format!("i{number}"), "title": format!("item {number}") });
    Ok(serde_json::from_value(item)?)
}

fn items() -> anyhow::Result<Vec<Item>> {
    (0..NUM_ITEMS).map(item).collect()
}

/// Clicks of all users in turn, numbered from `first` on.
fn events(first: usize, num_events: usize) -> anyhow::Result<Vec<Event>> {
    let event = |number: usize| {
        let event = json!({
            "event_id": format!("e{number}"),
            "kind": "click",
            "user_id": format!("u{}", number % NUM_USERS),
            "item_id": format!("i{}", number * number % NUM_ITEMS),
            "occurred_at": START_MILLIS + number as i64 * 60_000,
        });
        Ok(serde_json::from_value(event)?)
    };
    (first..first + num_events).map(event).collect()
}

/// Rounds of so many steps, at most one in so many seconds.
fn private(steps: u64, interval_secs: u64, epsilon_max: f64) -> anyhow::Result<Setup<'static>> {
    let setup = Setup::default().with_log(&items()?, &events(0, 200)?);
    Ok(setup
        .set("privacy.enabled", "true")
        .set("privacy.noise_multiplier", "4.0")
        .set("privacy.sampling_rate", "0.5")
        .set("privacy.clients_per_step", "20.0")
        .set("privacy.row_learning_rate", "0.01")
        .set("privacy.delta", "1e-6")
        .set("privacy.steps", &steps.to_string())
        .set("privacy.interval_secs", &interval_secs.to_string())
        .set("privacy.epsilon_max", &epsilon_max.to_string()))
}

fn cost_of(steps: u64) -> f64 {
    epsilon([(MECHANISM, steps)].into_iter(), DELTA)
}

async fn until(
    server: &Server,
    what: &str,
    mut holds: impl FnMut(&Status) -> bool,
) -> anyhow::Result<Status> {
    wait::until(what, PATIENCE, async || {
        let status = server.api.status().await?;
        let is_stopped = status.trainer["phase"] == "stopped";
        ensure!(!is_stopped, "the trainer stopped: {}", status.trainer);
        Ok(holds(&status).then_some(status))
    })
    .await
}

/// Waits until the trainer has read the whole log.
async fn has_read_all(server: &Server) -> anyhow::Result<Status> {
    until(server, "the trainer has read the whole log", |status| {
        status.trainer["learned_through"].as_u64() == Some(status.log_offset.0)
    })
    .await
}

fn spent(status: &Status) -> (u64, u64, f64) {
    let privacy = &status.trainer["privacy"];
    let number = |field: &str| privacy[field].as_u64().unwrap_or(u64::MAX);
    let epsilon = privacy["epsilon"].as_f64().unwrap_or(f64::NAN);
    (number("rounds"), number("steps"), epsilon)
}

/// What is learned or counted of items in a version, for the first so many.
fn told(state: &CodeState, num_items: usize) -> Vec<(String, Vec<i16>)> {
    let shapes = state.shapes().into_iter().zip(&state.tensors);
    let told = shapes.map(|(shape, tensor)| {
        let num_rows = if shape.per_item {
            num_items
        } else {
            shape.num_rows
        };
        (
            shape.name,
            tensor.codes[..num_rows * shape.num_cols].to_vec(),
        )
    });
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_change_no_version_but_by_a_round_and_no_count_goes_out() -> anyhow::Result<()> {
    let server = Server::start(private(4, 1 << 20, 100.0)?).await?;
    let status = until(&server, "a private round is live", |status| {
        status.trainer["releases"] == 1
    })
    .await?;
    assert_eq!(spent(&status), (1, 4, cost_of(4)));
    let (first, before) = server.api.newest_version().await?;

    server.api.post_events(&events(200, 100)?).await?;
    has_read_all(&server).await?;
    let (unchanged, _) = server.api.newest_version().await?;
    assert_eq!(
        unchanged.version, first.version,
        "events alone bring no version"
    );

    server.api.put_items(&[item(NUM_ITEMS)?]).await?;
    let status = until(&server, "a version has the new item", |status| {
        status.version > Some(first.version)
    })
    .await?;
    let (_, after) = server.api.newest_version().await?;
    assert_eq!(after.items.len(), NUM_ITEMS + 1);
    assert_eq!(told(&after, NUM_ITEMS), told(&before, NUM_ITEMS));
    assert_eq!(spent(&status).0, 1, "the catalogue costs nothing");
    assert_eq!(after.landmark_millis, 0);
    let of = |name: &str| &after.tensor(name).expect("in the spec").codes;
    assert!(of(COUNTS_TENSOR).iter().all(|code| *code == NEVER_CODE));
    assert!(of(NEIGHBOURS_TENSOR).iter().all(|code| *code == 0));
    let rows = of("item.id_rows").chunks(16).take(NUM_ITEMS);
    for row in rows {
        assert!(row.iter().any(|code| *code != 0), "noise is on every row");
    }

    let url = format!("{}/metrics", server.address().url);
    let metrics = reqwest::get(url).await?.text().await?;
    let expected = format!("freshet_privacy_epsilon {}\n", cost_of(4));
    assert!(metrics.contains(&expected), "{metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_ends_training_and_not_serving_and_a_kill_forgets_nothing() -> anyhow::Result<()>
{
    let mut server = Server::start(private(3, 1, cost_of(6))?).await?;
    let mut num_posted = 200;
    let status = wait::until("two rounds are live", PATIENCE, async || {
        server.api.post_events(&events(num_posted, 1)?).await?; // a round wants something new
        num_posted += 1;
        let status = server.api.status().await?;
        Ok((status.trainer["releases"] == 2).then_some(status))
    })
    .await?;
    assert_eq!(spent(&status), (2, 6, cost_of(6)));
    assert_eq!(status.trainer["privacy"]["is_exhausted"], true);
    assert!(server.log_text().contains("this is the last private round"));

    server.kill9().await?;
    server.restart().await?;
    server.api.post_events(&events(num_posted, 50)?).await?;
    let status = has_read_all(&server).await?;
    assert_eq!(spent(&status), (2, 6, cost_of(6)), "no third round");
    assert_eq!(status.trainer["privacy"]["is_exhausted"], true);
    let ranking = server.api.recommend(&[], 5, START_MILLIS).await?;
    assert_eq!(ranking.items.len(), 5, "it goes on serving");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_a_kill_cut_short_is_paid_and_does_not_begin_again_at_once()
-> anyhow::Result<()> {
    let mut server = Server::start(private(20_000, 1 << 20, 1000.0)?).await?;
    let status = until(&server, "a round is under way", |status| {
        status.trainer["privacy"]["round_steps"].as_u64() > Some(2)
    })
    .await?;
    let paid = spent(&status);
    assert_eq!((paid.0, paid.1), (1, 20_000), "whole, before its end");

    server.kill9().await?;
    server.restart().await?;
    server.api.post_events(&events(200, 50)?).await?;
    let status = has_read_all(&server).await?;
    assert_eq!(spent(&status), paid);
    assert_eq!(
        status.trainer["privacy"]["round_steps_total"], 0,
        "none is under way"
    );
    assert_eq!(status.trainer["releases"], 0);
    Ok(())
}
