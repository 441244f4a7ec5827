//! Claims about what operators order: pages return to an earlier version within seconds, and what was learned
//! since does not come back, not with the next version and not after a restart.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use harness::ranking::place_of;
use harness::scene::{NOW_MILLIS, Scene};
use harness::server::{Server, freshet_program};
use harness::wait;
use serde_json::{Value, json};
use shared_model::codec::snapshot::encode_snapshot;
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
/// Batches within which a learner that goes astray is found out.
const NUM_BATCHES_MAX: usize = 500;

/// A port that was free a moment ago.
fn free_address() -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

/// Gives an order as an operator would; the error is what is printed.
async fn order(admin: &str, words: &[&str]) -> anyhow::Result<Obeyed> {
    Ok(serde_json::from_value(ask(admin, words).await?)?)
}

/// Runs `freshet WORDS… --admin … --json`.
async fn ask(admin: &str, words: &[&str]) -> anyhow::Result<Value> {
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

/// Runs `freshet inspect`, which prints a row of the ledger.
async fn inspect(admin: &str, version: Version) -> anyhow::Result<Value> {
    ask(admin, &["inspect", &version.to_string()]).await
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
    let row = inspect(&admin, bad.version).await?;
    let moved = row["movement"]["moved_most"]
        .as_array()
        .context("rows moved")?;
    assert!(
        moved.iter().any(|item| item["item_id"] == planted.as_str()),
        "{row}"
    );
    let row = inspect(&admin, back.version).await?;
    assert_eq!(row["origin"]["rollback"]["restored"], good.version.0);
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

#[tokio::test(flavor = "multi_thread")]
async fn codes_from_a_file_go_out_through_the_gate_and_the_ledger_says_by_whom()
-> anyhow::Result<()> {
    let admin = free_address()?;
    let settings = [
        ("clock.mode", "event_time"),
        ("server.admin_bind", &*admin),
        ("gate.log_loss_rise_max", "1.5"), // in a small world the newest events are learned by heart
    ];
    let mut scene = Scene::start(8, &settings).await?;
    let (good, good_state) = scene.server.api.newest_version().await?;
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (good_file, bad_file) = (path("good.snapshot"), path("bad.snapshot"));
    std::fs::write(&good_file, encode_snapshot(&good_state, good.version)?)?;
    let mut bad_state = good_state.clone();
    let biases = bad_state.tensor_mut("item.bias").context("in the spec")?;
    for (item_idx, code) in biases.codes.iter_mut().enumerate() {
        *code = if item_idx % 2 == 0 { 127 } else { -127 };
    }
    biases.exponents.fill(-3); // up to 16 nats apart, whoever asks
    std::fs::write(&bad_file, encode_snapshot(&bad_state, Version(1))?)?;
    scene.clicks(20).await?;
    let (before, _) = scene.server.api.newest_version().await?;

    let refusal = order(&admin, &["publish", &bad_file, "--by", "Jörg"]).await;
    let refusal = refusal.expect_err("it is bad").to_string();
    assert!(
        refusal.contains("the gate refused the codes: log loss"),
        "{refusal}"
    );
    let (newest, _) = scene.server.api.newest_version().await?;
    assert_eq!(newest.version, before.version);

    let mut damaged = std::fs::read(&good_file)?;
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    for bytes in [Vec::new(), b"FRSN".to_vec(), damaged] {
        let file = path("damaged.snapshot");
        std::fs::write(&file, bytes)?;
        let refusal = order(&admin, &["publish", &file]).await;
        let refusal = refusal.expect_err("no snapshot").to_string();
        assert!(
            refusal.contains("the body is not what was expected"),
            "{refusal}"
        );
    }

    let obeyed = order(&admin, &["publish", &good_file, "--by", "Jörg"]).await?;
    let (given, state) = scene.server.api.newest_version().await?;
    assert_eq!(given.version, obeyed.version);
    for shape in state.shapes().iter().filter(|shape| shape.is_trained()) {
        assert_eq!(state.tensor(&shape.name), good_state.tensor(&shape.name));
    }
    let row = inspect(&admin, given.version).await?;
    assert_eq!(
        (&row["origin"], &row["by"]),
        (&json!("uploaded"), &json!("Jörg"))
    );
    assert!(row["gate"]["log_loss"].is_number(), "{row}");
    let rows = ask(
        &admin,
        &[
            "diff",
            &good.version.to_string(),
            &given.version.to_string(),
        ],
    )
    .await?;
    let tensors = rows["tensors"].as_array().context("tensors")?;
    let trained = tensors
        .iter()
        .find(|tensor| tensor["name"] == "item.id_rows");
    assert_eq!(trained.context("listed")?["codes_changed"], 0);
    let listed = ask_versions(&admin).await?;
    let refused = listed.iter().find(|row| row["row"] == "refused");
    let reason = refused.context("the refusal has a row")?["reason"].as_str();
    assert!(reason.is_some_and(|reason| reason.contains("log loss")));

    let next = scene.clicks(5).await?;
    assert!(
        next > given.version,
        "learning goes on from the given codes"
    );
    Ok(())
}

/// The newest rows of the ledger.
async fn ask_versions(admin: &str) -> anyhow::Result<Vec<Value>> {
    let url = format!("http://{admin}/v1/versions?limit=1000");
    let mut answer: Value = reqwest::get(url).await?.json().await?;
    Ok(serde_json::from_value(answer["rows"].take())?)
}

async fn is_pinned(server: &Server) -> anyhow::Result<()> {
    wait::until("the trainer says that it is pinned", PATIENCE, async || {
        let phase = &server.api.status().await?.trainer["phase"];
        Ok((phase == "pinned").then_some(()))
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

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_goes_astray_returns_to_its_anchor_by_itself_and_then_waits_for_an_operator()
-> anyhow::Result<()> {
    let admin = free_address()?;
    // Steps far too long, and a gate that lets everything through.
    let settings = [
        ("clock.mode", "event_time"),
        ("server.admin_bind", &*admin),
        ("train.fast_learning_rate", "10"),
        ("train.fast_bias_learning_rate", "10"),
        ("gate.log_loss_rise_max", "1000"),
        ("gate.earlier_rise_max", "1000"),
        ("gate.agreement_min", "0"),
        ("gate.watch_alpha", "0.1"),
    ];
    let mut scene = Scene::start(6, &settings).await?;
    let anchor = scene.server.api.newest_version().await?;
    let mut last = Value::Null;
    for _ in 0..NUM_BATCHES_MAX {
        let people = scene.people.iter_mut();
        let clicks: Vec<Event> = people
            .map(|person| scene.world.next_click(person, NOW_MILLIS))
            .collect();
        scene.server.api.post_events(&clicks).await?;
        let api = &scene.server.api;
        let what = "the batch is learned, or nothing is any more";
        last = wait::until(what, PATIENCE, async || {
            let status = api.status().await?;
            let is_pinned = status.trainer["phase"] == "pinned";
            let has_learned = status.learned_through == Some(status.log_offset);
            Ok((is_pinned || has_learned).then_some(status.trainer))
        })
        .await?;
        if last["phase"] == "pinned" {
            break;
        }
    }
    println!("{}", last["last_alarm"]);
    ensure!(last["phase"] == "pinned", "{last}");
    ensure!(last["rollbacks"] == 1, "once by itself: {last}");
    ensure!(last["alarms"] == 2, "the second time it waits: {last}");
    let kept = std::fs::read(scene.server.data_dir().join("rollout.json"))?;
    let kept: Value = serde_json::from_slice(&kept)?;
    ensure!(
        kept["rollbacks"][0]["restored"] == anchor.0.version.0,
        "{kept}"
    );
    ensure!(!order(&admin, &["unpin"]).await?.is_pinned);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_cannot_be_written_sets_nothing_aside_and_learning_goes_on()
-> anyhow::Result<()> {
    let admin = free_address()?;
    let settings = [("clock.mode", "event_time"), ("server.admin_bind", &*admin)];
    let mut scene = Scene::start(8, &settings).await?;
    let (good, _) = scene.server.api.newest_version().await?;
    scene.clicks(2).await?;
    scene.server.has_learned_all().await?;
    let (before, _) = scene.server.api.newest_version().await?;
    let dir = scene.server.data_dir();
    let file = format!(".unfinished-{:020}.json", before.version.next().0);
    let in_the_way = dir.join("manifests").join(file);
    std::fs::create_dir(&in_the_way)?;

    let answered = order(&admin, &["rollback", &good.version.to_string()]).await;

    let said = answered
        .expect_err("no version could be written")
        .to_string();
    ensure!(said.contains("could not be carried out"), "{said}");
    scene.server.kill9().await?;
    std::fs::remove_dir(&in_the_way)?;
    scene.server.restart().await?;
    let kept: Value = serde_json::from_slice(&std::fs::read(dir.join("rollout.json"))?)?;
    ensure!(kept["rollbacks"] == json!([]), "{kept}");
    let (newest, _) = scene.server.api.newest_version().await?;
    ensure!(newest.learned_through == before.learned_through);
    scene.clicks(2).await?;
    scene.server.has_learned_all().await?;
    let kept: Value = serde_json::from_slice(&std::fs::read(dir.join("rollout.json"))?)?;
    ensure!(
        kept["rollbacks"] == json!([]),
        "its number came to another version: {kept}"
    );
    Ok(())
}
