//! Claims about power loss: the server is killed under load at random moments, and nothing is lost or done twice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness::api::Api;
use harness::native_page::NativePage;
use harness::people::{Person, World};
use harness::ranking::place_of;
use harness::server::{Server, Setup};
use harness::wait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use shared_model::event::Event;
use shared_model::ids::{EventId, LogOffset};
use shared_model::manifest::Manifest;
use trainer_server::event_log::LogRecord;

const SEED: u64 = 31;
const NUM_KILLS: usize = 15;
const NUM_POSTERS: usize = 3;
/// Batches acknowledged before a kill, drawn anew for each.
const ACKED_BATCHES: std::ops::Range<usize> = 1..120;
const BATCH_LEN: usize = 8;
const START_MILLIS: i64 = 1_700_000_000_000;
const HOUR_MILLIS: i64 = 3_600_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Batches on their way: those still to be posted, and those whose receipt came.
#[derive(Clone, Default)]
struct Mail {
    waiting: Arc<Mutex<VecDeque<Vec<Event>>>>,
    acked: Arc<Mutex<Vec<Vec<Event>>>>,
}

impl Mail {
    fn num_acked(&self) -> usize {
        self.acked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Posts until the server is gone. What has no receipt then may or may not be stored.
    async fn post_until_gone(self, api: Api) {
        loop {
            let next = self
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(batch) = next else { return };
            if api.post_events(&batch).await.is_err() {
                return;
            }
            self.acked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(batch);
        }
    }
}

/// From the first record to `end` without overlap and without a gap: nothing is trained twice, nothing left out.
fn check_tiles(manifests: &[Manifest], end: LogOffset) {
    let mut learned = LogOffset(0);
    for manifest in manifests {
        assert_eq!(
            manifest.learned_from, learned,
            "version {} does not start where the one before ends",
            manifest.version
        );
        learned = manifest.learned_through;
    }
    assert_eq!(learned, end);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kills_at_random_moments_no_acked_event_is_lost_or_trained_twice_and_pages_follow_on()
-> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut world = World::new(SEED);
    let mut people = world.people(30);
    let past = world.past(&mut people, 8, HOUR_MILLIS, START_MILLIS);
    let setup = Setup::default()
        .with_log(&world.items, &past)
        .set("train.fast_interval_millis", "20");
    let mut server = Server::start(setup).await?;
    let mut page = NativePage::open(server.address()).await?;
    let mail = Mail::default();

    for kill_idx in 0..NUM_KILLS {
        let batches = (0..NUM_POSTERS + mail.num_acked() + ACKED_BATCHES.end).map(|_| {
            (0..BATCH_LEN)
                .map(|idx| world.next_click(&mut people[idx], START_MILLIS + HOUR_MILLIS))
                .collect()
        });
        *mail.waiting.lock().unwrap_or_else(PoisonError::into_inner) = batches.collect();
        let target = mail.num_acked() + rng.random_range(ACKED_BATCHES);
        let posters: Vec<_> = (0..NUM_POSTERS)
            .map(|_| tokio::spawn(mail.clone().post_until_gone(server.api.clone())))
            .collect();
        // The page follows all the while; it never gets as far as this.
        let everything = LogOffset(u64::MAX);
        tokio::select! {
            loaded = wait::until("enough is acked", PATIENCE, async || Ok((mail.num_acked() >= target).then_some(()))) => loaded?,
            followed = page.has_learned(everything) => followed?,
        }
        server.kill9().await?;
        for poster in posters {
            poster.await?;
        }

        server.restart().await?;
        let status = server.has_learned_all().await?;
        page.has_learned(status.log_offset).await?;
        let (manifest, state) = server.api.newest_version().await?;
        assert_eq!(page.live()?.state.hash(), manifest.state, "kill {kill_idx}");
        assert_eq!(page.live()?.state, state);
        println!(
            "kill {kill_idx} after {target} batches: version {}, learned through {}",
            manifest.version, manifest.learned_through
        );
    }

    let acked = std::mem::take(&mut *mail.acked.lock().unwrap_or_else(PoisonError::into_inner));
    for batch in &acked {
        let receipt = server.api.post_events(batch).await?;
        assert_eq!(
            (receipt.accepted, receipt.duplicates),
            (0, BATCH_LEN as u64),
            "an acked batch was not stored whole"
        );
    }
    let status = server.has_learned_all().await?;
    check_tiles(&server.manifests().await?, status.log_offset);
    assert_eq!(status.trainer["events_skipped"], 0);
    println!("the page went through {} versions", page.versions().len());

    server.kill9().await?;
    let mut stored: BTreeMap<EventId, u32> = BTreeMap::new();
    let records = server.log_records()?;
    assert_eq!(records.len() as u64, status.log_offset.0);
    for record in records {
        if let LogRecord::Event(event) = record {
            *stored.entry(event.event.event_id).or_default() += 1;
        }
    }
    for event in past.iter().chain(acked.iter().flatten()) {
        assert_eq!(
            stored.get(&event.event_id),
            Some(&1),
            "{:?}",
            event.event_id
        );
    }
    assert!(
        stored.values().all(|count| *count == 1),
        "an event without receipt is stored once or not at all"
    );
    Ok(())
}

/// Clicks out of a hundred that are among the first ten.
async fn hits(server: &Server, world: &mut World, people: &[Person]) -> anyhow::Result<usize> {
    let mut num_hits = 0;
    for person in people.iter().cycle().take(100) {
        let wanted = world.wanted(person);
        let now = START_MILLIS + HOUR_MILLIS;
        let ranking = server.api.recommend(&person.history, 10, now).await?;
        num_hits += usize::from(place_of(&ranking.items, &wanted) < 10);
    }
    Ok(num_hits)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_that_was_passed_over_is_learned_by_a_refit_even_after_a_kill() -> anyhow::Result<()>
{
    let mut world = World::new(SEED);
    let mut people = world.people(30);
    let past = world.past(&mut people, 8, HOUR_MILLIS, START_MILLIS);
    let setup = Setup::default()
        .with_log(&world.items, &past)
        .set("train.fast_events_max", "8")
        .set("train.fast_interval_millis", "500")
        .set("train.warm_epochs", "6")
        .set("release.trial_secs_max", "3");
    let mut server = Server::start(setup).await?;
    server.has_learned_all().await?;
    world.change_fashion();
    for person in &mut people {
        world.change_taste(person);
    }
    let flood = world.past(&mut people, 60, 60_000, START_MILLIS + HOUR_MILLIS);
    for batch in flood.chunks(900) {
        server.api.post_events(batch).await?;
    }
    let passed_over = async || {
        let status = server.api.status().await?;
        let is_over = status.trainer["events_to_refit"].as_u64() > Some(1_000);
        Ok(is_over.then_some(status))
    };
    wait::until("the flood is passed over", PATIENCE, passed_over).await?;
    let before = hits(&server, &mut world, &people).await?;

    server.kill9().await?;
    server.restart().await?;
    let refitted = async || {
        let status = server.api.status().await?;
        let waiting = &status.trainer["events_to_refit"];
        let is_done = status.trainer["releases"] == 1 && *waiting == 0;
        Ok(is_done.then_some(status))
    };
    let status = wait::until("a refit is live", PATIENCE, refitted).await?;

    let after = hits(&server, &mut world, &people).await?;
    println!("{before} hits before the refit, {after} after it");
    assert!(after > before + 10, "{before} before, {after} after");
    assert_eq!(status.trainer["refit_steps_total"], 0, "none is training");
    let path = format!("/v1/events/{}", flood[900].event_id.as_str());
    let fate = server.api.send(Method::GET, &path, "").await?.body;
    assert_eq!(fate["state"], "learned", "{fate}");
    assert_eq!(fate["first_version"]["kind"], "release", "{fate}");
    Ok(())
}
