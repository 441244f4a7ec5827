//! Claims about a disk that is really full: events that were acknowledged are there, the last version stays, and
//! versions go on by themselves once there is room.
//!
//! The disk is a small file system in memory, which only root may mount; without that the test says so and skips.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use harness::native_page::NativePage;
use harness::people::{Person, World};
use harness::server::{Server, Setup};
use harness::wait;
use reqwest::Method;
use serde_json::json;
use shared_model::event::Event;
use shared_model::ids::{EventId, LogOffset};
use shared_model::manifest::Manifest;
use trainer_server::event_log::LogRecord;

const SEED: u64 = 47;
const DISK: &str = "size=64m";
const RESERVE_BYTES: &str = "4194304";
const START_MILLIS: i64 = 1_700_000_000_000;
const HOUR_MILLIS: i64 = 3_600_000;
const BATCH_LEN: usize = 200;
/// Far more than fit into the reserve.
const NUM_BATCHES_MAX: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A file system of its own; unmounted when dropped.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, and a word about it, where nothing can be mounted.
    fn mount() -> anyhow::Result<Option<Self>> {
        let dir = tempfile::Builder::new().prefix("freshet-disk-").tempdir()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", DISK, "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Some(Self { dir })),
            Ok(output) => {
                println!(
                    "skipped: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                Ok(None)
            }
            Err(error) => {
                println!("skipped: mount cannot be run: {error}");
                Ok(None)
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }

    /// Takes all the room that is left.
    fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())?;
        for piece_bytes in [1 << 20, 1 << 12, 1] {
            let piece = vec![1; piece_bytes];
            while file.write_all(&piece).is_ok() {}
        }
        Ok(())
    }

    fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(self.dir.path())
            .status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("{} stays mounted", self.dir.path().display());
        }
    }
}

/// Who clicks, and what of it was acknowledged.
struct Crowd {
    world: World,
    people: Vec<Person>,
    acked: Vec<Event>,
}

impl Crowd {
    fn batch(&mut self) -> Vec<Event> {
        let (world, people) = (&mut self.world, &mut self.people);
        let num_people = people.len();
        let click =
            |idx| world.next_click(&mut people[idx % num_people], START_MILLIS + HOUR_MILLIS);
        (0..BATCH_LEN).map(click).collect()
    }

    /// Posts a batch; its status.
    async fn post(&mut self, server: &Server) -> anyhow::Result<u16> {
        let batch = self.batch();
        let body = json!({ "events": batch }).to_string();
        let answer = server.api.send(Method::POST, "/v1/events", body).await?;
        if answer.status == 200 {
            ensure!(answer.body["accepted"] == BATCH_LEN, "{answer:?}");
            self.acked.extend(batch);
        } else {
            ensure!(
                answer.content_type == "application/problem+json",
                "{answer:?}"
            );
        }
        Ok(answer.status)
    }

    /// Posts until nothing more is taken.
    async fn use_up_reserve(&mut self, server: &Server) -> anyhow::Result<()> {
        let mut num_posted = 0;
        let refused = loop {
            let status = self.post(server).await?;
            if status != 200 {
                break status;
            }
            num_posted += 1;
            ensure!(num_posted < NUM_BATCHES_MAX, "the reserve has no end");
        };
        println!("{num_posted} batches of {BATCH_LEN} went into the reserve, then {refused}");
        ensure!(refused == 507, "a full disk has a status of its own");
        Ok(())
    }
}

/// Each of `events` is in the log once.
fn check_stored<'a>(
    server: &Server,
    events: impl Iterator<Item = &'a Event>,
) -> anyhow::Result<()> {
    let mut stored: BTreeMap<EventId, u32> = BTreeMap::new();
    for record in server.log_records()? {
        if let LogRecord::Event(event) = record {
            *stored.entry(event.event.event_id).or_default() += 1;
        }
    }
    for event in events {
        let id = &event.event_id;
        assert_eq!(stored.get(id), Some(&1), "{id:?}");
    }
    Ok(())
}

async fn why_paused(server: &Server) -> anyhow::Result<Option<String>> {
    let status = server.api.status().await?;
    let phase = &status.trainer["phase"];
    ensure!(
        phase != "stopped",
        "the trainer stopped: {}",
        status.trainer
    );
    Ok(status.trainer["paused"].as_str().map(str::to_owned))
}

async fn wait_until_paused(server: &Server) -> anyhow::Result<String> {
    wait::until("publishing pauses", PATIENCE, async || {
        why_paused(server).await
    })
    .await
}

fn unfinished(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(".unfinished") {
            names.push(name);
        }
    }
    Ok(names)
}

fn check_tiles(manifests: &[Manifest], end: LogOffset) {
    let mut learned = LogOffset(0);
    for manifest in manifests {
        assert_eq!(
            manifest.learned_from, learned,
            "version {}",
            manifest.version
        );
        learned = manifest.learned_through;
    }
    assert_eq!(learned, end);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_acked_events_stay_the_last_version_stays_and_both_go_on_with_room()
-> anyhow::Result<()> {
    let Some(disk) = SmallDisk::mount()? else {
        return Ok(());
    };
    let mut world = World::new(SEED);
    let mut people = world.people(20);
    let past = world.past(&mut people, 10, HOUR_MILLIS, START_MILLIS);
    let setup = Setup::default()
        .in_dir(disk.dir.path())
        .with_log(&world.items, &past)
        .set("store.reserve_bytes", RESERVE_BYTES);
    let mut server = Server::start(setup).await?;
    server.has_learned_all().await?;
    let mut crowd = Crowd {
        world,
        people,
        acked: Vec::new(),
    };
    ensure!(crowd.post(&server).await? == 200, "the disk is empty");
    let before = server.has_learned_all().await?;
    let mut page = NativePage::open(server.address()).await?;
    page.has_learned(before.log_offset).await?;

    disk.fill()?;
    ensure!(
        crowd.post(&server).await? == 200,
        "the reserve is there for events"
    );
    let why = wait_until_paused(&server).await?;
    println!("paused: {why}");
    ensure!(
        crowd.post(&server).await? == 200,
        "events go on while nothing is published"
    );
    let during = server.api.status().await?;
    ensure!(during.version == before.version, "nothing was published");
    let ready = reqwest::get(format!("{}/readyz", server.address().url)).await?;
    ensure!(ready.status() == 200, "it ranks and takes events");
    ensure!(
        ready.text().await?.contains("nothing is published"),
        "and says what it does not"
    );
    page.rank(&[], 5, START_MILLIS).await?;

    server.kill9().await?;
    server.restart().await?;
    let why = wait_until_paused(&server).await?;
    println!("paused after kill -9: {why}");
    ensure!(server.api.newest_version().await?.0.version == before.version.unwrap_or_default());

    crowd.use_up_reserve(&server).await?;
    ensure!(crowd.post(&server).await? == 507, "and keeps it");
    let full = server.api.status().await?;
    ensure!(full.version == before.version, "nothing was published");

    server.kill9().await?;
    disk.fill()?; // what a kill has freed, too
    server.restart().await?;
    wait_until_paused(&server).await?;
    ensure!(crowd.post(&server).await? == 507, "it starts all the same");
    page.rank(&[], 5, START_MILLIS).await?;

    server.kill9().await?;
    disk.free()?;
    server.restart().await?;
    ensure!(crowd.post(&server).await? == 200, "there is room again");
    let after = server.has_learned_all().await?;
    ensure!(after.version > before.version, "versions go on");

    disk.fill()?;
    ensure!(
        crowd.post(&server).await? == 200,
        "the reserve is in place again"
    );
    wait_until_paused(&server).await?;
    disk.free()?;
    let healed = server.has_learned_all().await?;
    wait::until("it goes on by itself", PATIENCE, async || {
        Ok(why_paused(&server).await?.is_none().then_some(()))
    })
    .await?;
    page.has_learned(healed.log_offset).await?;
    check_tiles(&server.manifests().await?, healed.log_offset);
    for folder in ["blobs", "manifests"] {
        ensure!(
            unfinished(&server.data_dir().join(folder))?.is_empty(),
            "{folder}"
        );
    }

    server.kill9().await?;
    check_stored(&server, past.iter().chain(&crowd.acked))?;
    println!("{} acknowledged events are there once", crowd.acked.len());
    Ok(())
}
