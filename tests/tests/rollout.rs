//! Claims about what operators order: pages return to an earlier version within seconds, and what was learned
//! since does not come back, not with the next version and not after a restart.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use harness::ranking::place_of;
use harness::scene::{NOW_MILLIS, Scene};
use harness::server::{Server, freshet_program};
use harness::wait;
use serde_json::Value;
use shared_model::codec::state::CodeState;
use shared_model::event::Event;
use shared_model::ids::{ItemId, Version};
use shared_model::manifest::VersionKind;
use trainer_server::page_client::{PageClient, PageKind, ServerAddress};
use trainer_server::rollout::Obeyed;

/// Pages that are open, every tenth of which ranks.
const NUM_PAGES: usize = 50;
/// Pages that a rollback must have reached in time.
const NUM_PAGES_MIN: usize = NUM_PAGES * 95 / 100 + 1;
const IN_TIME: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that was free a moment ago.
fn free_address() -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

/// Runs `freshet ORDER… --admin … --json` as an operator would; the error is what it prints.
async fn order(admin: &str, words: &[&str]) -> anyhow::Result<Obeyed> {
    let admin = format!("http://{admin}");
    let mut command = tokio::process::Command::new(freshet_program()?);
    let output = command
        .args(words)
        .args(["--admin", &admin, "--json"])
        .output()
        .await?;
    let (said, error) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{words:?}: {error}");
    Ok(serde_json::from_slice(&said)?)
}

/// A page that has the version `from` or a newer one.
async fn open_page(
    address: &ServerAddress,
    page_idx: usize,
    from: Version,
) -> anyhow::Result<PageClient> {
    let kind = match page_idx % 10 {
        0 => PageKind::Ranking(Device::flex()),
        _ => PageKind::Following,
    };
    let mut page = PageClient::connect(address, kind).await?;
    follow(&mut page, from).await?;
    Ok(page)
}

async fn follow(page: &mut PageClient, until: Version) -> anyhow::Result<()> {
    while page.live().is_none_or(|live| live.manifest.version < until) {
        let arrived = tokio::time::timeout(PATIENCE, page.next_version()).await;
        let applied = arrived.with_context(|| format!("version {until} did not arrive"))?;
        ensure!(applied.hash_matches, "another hash than the manifest names");
    }
    Ok(())
}

/// How long each page took to have a version after `base`, counted from now.
fn time_of_next(
    pages: Vec<PageClient>,
    base: Version,
) -> Vec<tokio::task::JoinHandle<anyhow::Result<Duration>>> {
    let started = Instant::now();
    let next = |mut page: PageClient| {
        tokio::spawn(async move {
            follow(&mut page, base.next()).await?;
            Ok(started.elapsed())
        })
    };
    pages.into_iter().map(next).collect()
}

fn counts_of(state: &CodeState, item_id: &ItemId) -> Vec<i16> {
    let mut items = state.items.iter();
    let item_idx = items
        .position(|item| item.item_id == *item_id)
        .expect("in the catalogue");
    let counts = state.tensor("item.counts").expect("in the spec");
    counts.row(item_idx).to_vec()
}

/// Everyone clicks one item that nobody asked for.
fn poison(scene: &mut Scene, item_id: &ItemId) -> Vec<Event> {
    let (world, people) = (&mut scene.world, &mut scene.people);
    let clicks = people.iter_mut().map(|person| {
        let mut stranger = person.clone(); // the person's own history is what is ranked for
        world.click(&mut stranger, item_id, NOW_MILLIS)
    });
    clicks.collect()
}

async fn place(scene: &Scene, item_id: &ItemId) -> anyhow::Result<usize> {
    let history = &scene.people[0].history;
    let num_items = scene.world.items.len();
    let ranking = scene.server.api.recommend(history, num_items, NOW_MILLIS);
    Ok(place_of(&ranking.await?.items, item_id))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_reaches_open_pages_in_seconds_and_what_it_took_back_stays_away()
-> anyhow::Result<()> {
    let admin = free_address()?;
    let settings = [("clock.mode", "event_time"), ("server.admin_bind", &*admin)];
    let mut scene = Scene::start(5, &settings).await?;
    let (good, good_state) = scene.server.api.newest_version().await?;
    let address = scene.server.address().clone();
    let mut pages = Vec::with_capacity(NUM_PAGES);
    for page_idx in 0..NUM_PAGES {
        pages.push(open_page(&address, page_idx, good.version).await?);
    }
    let history = scene.people[0].history.clone();
    let num_items = scene.world.items.len();
    let ranking = scene.server.api.recommend(&history, num_items, NOW_MILLIS);
    let planted = ranking.await?.items[num_items - 1].item_id.clone();
    let before = place(&scene, &planted).await?;

    for _ in 0..5 {
        let events = poison(&mut scene, &planted);
        scene.server.api.post_events(&events).await?;
        scene.server.has_learned_all().await?;
    }
    let (bad, _) = scene.server.api.newest_version().await?;
    let poisoned = place(&scene, &planted).await?;
    assert!(poisoned < before / 2, "{before} to {poisoned}: no poison");
    for page in &mut pages {
        follow(page, bad.version).await?;
    }

    let times = time_of_next(pages, bad.version);
    let good_version = good.version.to_string();
    let obeyed = order(&admin, &["rollback", &good_version]).await?;
    let mut in_time = Vec::new();
    for time in times {
        in_time.push(time.await??);
    }
    in_time.sort_unstable();
    let num_in_time = in_time.iter().filter(|time| **time <= IN_TIME).count();
    println!(
        "{num_in_time} of {NUM_PAGES} pages in time, the first after {:?}, the last after {:?}",
        in_time[0],
        in_time[NUM_PAGES - 1]
    );
    assert!(num_in_time >= NUM_PAGES_MIN, "{in_time:?}");
    let (back, _) = scene.server.api.newest_version().await?;
    assert_eq!(back.version, obeyed.version);
    assert_eq!(back.state, good.state, "the very codes of before");
    assert!(back.delta.is_some(), "it travels as a delta");
    let set_aside = obeyed.set_aside.context("a rollback sets aside")?;
    assert_eq!(
        (set_aside.from, set_aside.through),
        (good.learned_through, bad.learned_through)
    );

    for is_restarted in [false, true] {
        if is_restarted {
            scene.server.kill9().await?;
            scene.server.restart().await?;
        }
        scene.clicks(1).await?;
        let (next, state) = scene.server.api.newest_version().await?;
        assert!(next.version > back.version);
        let after = place(&scene, &planted).await?;
        println!("places: {before}, poisoned {poisoned}, then {after}");
        assert!(after > before * 3 / 4, "it came back to place {after}");
        assert_eq!(
            counts_of(&state, &planted),
            counts_of(&good_state, &planted)
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_versions_stay_over_a_restart_and_what_waited_is_learned_after() -> anyhow::Result<()>
{
    let admin = free_address()?;
    let settings = [("clock.mode", "event_time"), ("server.admin_bind", &*admin)];
    let mut scene = Scene::start(6, &settings).await?;
    let obeyed = order(&admin, &["pin"]).await?;
    assert!(obeyed.is_pinned);
    let refusal = order(&admin, &["publish"]).await;
    let refusal = refusal.expect_err("nothing goes out").to_string();
    assert!(refusal.contains("unpin first"), "{refusal}");

    let planted = scene.world.items[0].item_id.clone();
    let events = poison(&mut scene, &planted);
    scene.server.api.post_events(&events).await?;
    scene.server.kill9().await?;
    scene.server.restart().await?;
    is_pinned(&scene.server).await?;
    let status = scene.server.api.status().await?;
    assert_eq!(status.version, Some(obeyed.version));
    assert!(status.learned_through < Some(status.log_offset));

    assert!(!order(&admin, &["unpin"]).await?.is_pinned);
    let status = scene.server.has_learned_all().await?;
    assert!(status.version > Some(obeyed.version));
    Ok(())
}

async fn is_pinned(server: &Server) -> anyhow::Result<()> {
    wait::until("the trainer says that it is pinned", PATIENCE, async || {
        let phase = &server.api.status().await?.trainer["phase"];
        Ok((*phase == Value::from("pinned")).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_made_on_order_and_promoted_before_its_trial_ends() -> anyhow::Result<()> {
    let admin = free_address()?;
    let settings = [
        ("clock.mode", "event_time"),
        ("server.admin_bind", &*admin),
        ("release.steps", "4"),
        ("release.trial_events", "100000"),
        ("release.trial_secs_max", "3600"),
        ("gate.log_loss_rise_max", "1.0"), // what the gate says of a release is not the claim
    ];
    let scene = Scene::start(7, &settings).await?;
    let (first, _) = scene.server.api.newest_version().await?;
    let refusal = order(&admin, &["promote"]).await;
    let refusal = refusal.expect_err("none is there").to_string();
    assert!(refusal.contains("no release is on trial"), "{refusal}");
    let refusal = order(&admin, &["rollback", "999"]).await;
    let refusal = refusal.expect_err("no such version").to_string();
    assert!(refusal.contains("version 999 is not kept"), "{refusal}");

    order(&admin, &["publish"]).await?;
    let obeyed = wait::until("the release is promoted", PATIENCE, async || {
        match order(&admin, &["promote"]).await {
            Ok(obeyed) => Ok(Some(obeyed)),
            Err(error) if error.to_string().contains("no release") => Ok(None), // still in training
            Err(error) => Err(error),
        }
    })
    .await?;
    let (release, _) = scene.server.api.newest_version().await?;
    assert_eq!(
        (release.version, release.kind),
        (obeyed.version, VersionKind::Release)
    );
    assert!(release.version > first.version);
    Ok(())
}
