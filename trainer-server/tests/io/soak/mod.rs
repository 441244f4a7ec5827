//! A thousand versions, two hundred pages that come, skip, sleep, break off and come back.
//!
//! The publisher and the edge's sync machine are the real ones; a tenth of the pages fetches over
//! HTTP, the others ask the publisher in this process. The stream is generated (`stream`): 4,000
//! items, vectors and texts of 64. `FRESHET_SOAK_JSON=FILE` writes the report there.

mod page;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use shared_model::ids::{BlobId, LogOffset, Version};
use shared_model::manifest::{BlobRef, VersionKind};
use trainer_server::publish::{NewVersion, Published, Publisher};

use crate::harness::{NOW_MILLIS, TestServer, new_version};
use page::{Oracle, Page};
use stream::Stream;

const SEED: u64 = 20_260;
const NUM_VERSIONS: u64 = 1000;
const NUM_PAGES: usize = 200;
/// One page of so many fetches over HTTP.
const REMOTE_EVERY: usize = 10;
/// Share of fetches that go wrong.
const FAULT_RATE: f64 = 0.05;
/// Share of wakings that begin with a reload of the page.
const RELOAD_RATE: f64 = 0.05;
const VERSION_MILLIS: i64 = 500;

const FLAGS: [(&str, &str); 5] = [
    ("publish.compose_wait_millis", "10000"),
    ("publish.compose_share_max", "1.0"),
    ("publish.keep_versions_min", "400"),
    ("publish.keep_secs_min", "60"),
    ("publish.handed_out_grace_secs", "60"),
];

/// What the soak has seen.
#[derive(Default)]
pub(super) struct Report {
    num_hash_mismatches: u64,
    num_stuck: u64,
    num_joins: u64,
    join_bytes: u64,
    num_updates: u64,
    update_bytes: u64,
    best_bytes: u64,
    chain_bytes: u64,
    num_plans: u64,
    num_faults: u64,
    num_refused: u64,
    num_resumed: u64,
    num_gone: u64,
    num_reloads: u64,
}

/// The server's side, and what the test knows of it.
pub(super) struct World {
    server: TestServer,
    publisher: Publisher,
    oracle: Oracle,
    state_hashes: BTreeMap<Version, BlobId>,
    now_millis: i64,
}

impl World {
    fn newest(&self) -> Arc<Published> {
        self.publisher.latest().expect("published")
    }

    fn publish(&mut self, stream: &mut Stream) {
        let (kind, state) = stream.next();
        self.now_millis += VERSION_MILLIS;
        let learned = LogOffset(self.state_hashes.len() as u64); // widening
        let new = NewVersion {
            kind,
            state: Arc::new(state),
            learned_from: learned,
            learned_through: learned,
            created_at: self.now_millis,
            ..new_version(VersionKind::Fast, 1)
        };
        let published = self.publisher.publish(new).expect("published");
        let manifest = &published.manifest;
        self.state_hashes.insert(manifest.version, manifest.state);
        if let Some(delta) = &manifest.delta {
            self.oracle
                .deltas
                .insert(manifest.version, delta.blob.bytes);
        }
        if let Some(snapshot) = &manifest.snapshot {
            self.oracle
                .snapshots
                .insert(manifest.version, snapshot.bytes);
        }
    }

    async fn plan(&self, base: Option<Version>, is_remote: bool) -> Vec<u8> {
        if !is_remote {
            let plan = self.publisher.plan_for_page(base, self.now_millis).await;
            return serde_json::to_vec(&plan.expect("a plan")).expect("plain values");
        }
        let query = base.map_or(String::new(), |base| format!("?base={base}"));
        let response = self
            .server
            .get(&format!("/v1/models/main/plan{query}"))
            .await;
        response.bytes().await.expect("a body").to_vec()
    }

    /// A blob from `start` on; `None` where it is gone.
    async fn blob(&self, blob: BlobRef, start: usize, is_remote: bool) -> Option<Vec<u8>> {
        if !is_remote {
            let bytes = self.publisher.blobs().get(blob.id).expect("sound");
            return bytes.map(|bytes| bytes[start..].to_vec());
        }
        let url = format!("{}/v1/blobs/{}", self.server.url, blob.id);
        let ask = self
            .server
            .client
            .get(url)
            .header("range", format!("bytes={start}-"));
        let response = ask.send().await.expect("an answer");
        if response.status() == 404 {
            return None;
        }
        assert_eq!(response.status(), 206);
        Some(response.bytes().await.expect("a body").to_vec())
    }
}

/// Versions that a page sleeps: mostly some tens, at times hundreds.
fn sleep(rng: &mut StdRng) -> u64 {
    match rng.random_range(0..10) {
        0 => 1,
        1..=7 => rng.random_range(10..80),
        _ => rng.random_range(80..350),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_stay_true_and_cheap_through_a_thousand_versions() {
    let started = Instant::now();
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &FLAGS).await;
    let mut world = World {
        publisher: server.publisher.clone(),
        server,
        oracle: Oracle::default(),
        state_hashes: BTreeMap::new(),
        now_millis: NOW_MILLIS,
    };
    let mut stream = Stream::new(SEED);
    let mut rng = StdRng::seed_from_u64(SEED + 1);
    let mut report = Report::default();
    let mut pages: Vec<Page> = (0..NUM_PAGES)
        .map(|page_idx| {
            let joins_at = rng.random_range(1..NUM_VERSIONS / 2);
            Page::new(&world, page_idx % REMOTE_EVERY == 0, joins_at)
        })
        .collect();
    for version in 1..=NUM_VERSIONS {
        world.publish(&mut stream);
        for page in pages.iter_mut().filter(|page| page.wakes_at <= version) {
            if rng.random_bool(RELOAD_RATE) {
                page.reload(&world, &mut report);
            }
            page.wake(&mut world, &mut rng, FAULT_RATE, &mut report)
                .await;
            page.wakes_at = version + sleep(&mut rng);
        }
    }
    // A page that met bad content three times waits for the next version: here it is.
    world.publish(&mut stream);
    for page in &mut pages {
        page.wake(&mut world, &mut rng, 0.0, &mut report).await;
    }
    let newest = world.newest().manifest.version;
    let behind = pages.iter().filter(|page| page.version() != Some(newest));
    report.num_stuck += behind.count() as u64; // widening
    finish(&world, &report, started);
    world.server.stop().await;
}

fn finish(world: &World, report: &Report, started: Instant) {
    let counters = world.publisher.counters();
    let overhead = report.update_bytes as f64 / report.best_bytes as f64 - 1.0;
    let text = json!({
        "versions": counters.num_versions, "pages": NUM_PAGES,
        "hash_mismatches": report.num_hash_mismatches, "stuck": report.num_stuck,
        "joins": report.num_joins, "join_bytes": report.join_bytes,
        "updates": report.num_updates, "update_bytes": report.update_bytes,
        "best_possible_bytes": report.best_bytes, "over_best": overhead,
        "chain_bytes": report.chain_bytes,
        "plans": report.num_plans, "faults": report.num_faults, "refused": report.num_refused,
        "resumed": report.num_resumed, "gone": report.num_gone, "reloads": report.num_reloads,
        "composed": counters.num_composed, "composed_bytes": counters.composed_bytes,
        "secs": started.elapsed().as_secs_f64(),
    });
    println!("{text:#}");
    if let Ok(path) = std::env::var("FRESHET_SOAK_JSON") {
        std::fs::write(path, format!("{text:#}\n")).expect("the report is written");
    }
    assert_eq!((report.num_hash_mismatches, report.num_stuck), (0, 0));
    assert!(report.num_updates > 1000 && report.num_faults > 50 && report.num_resumed > 5);
    assert!(overhead <= 0.1, "{overhead} over the best possible");
}
