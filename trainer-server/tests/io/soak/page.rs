//! One simulated page: `EdgeSync`, a transport that fails at a rate, and what its updates cost.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;
use shared_model::codec::delta::encode_delta;
use shared_model::codec::snapshot::{encode_snapshot, encode_snapshot_at_once};
use shared_model::codec::state::CodeState;
use shared_model::edge::sync::{BLOB_TRIES_MAX, EdgeRequest, EdgeSync, Trust};
use shared_model::ids::Version;
use shared_model::manifest::BlobRef;

use super::{Report, World};

/// Requests of one waking; more mean that the page is stuck.
pub(super) const REQUESTS_MAX: usize = 600;

pub(super) struct Page {
    pub(super) sync: EdgeSync,
    pub(super) wakes_at: u64,
    /// Whether it fetches over HTTP, or calls the publisher in this process.
    is_remote: bool,
    /// A download that was cut off, with what had arrived.
    partial: Option<(BlobRef, Vec<u8>)>,
    update: Option<Update>,
}

/// What is under way.
struct Update {
    base: Option<Version>,
    planned_bytes: u64,
}

/// What the network does to one fetch.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Weather {
    Fine,
    Fails,
    Truncates,
    Damages,
    /// The page goes to sleep in the middle of the download.
    Aborts,
}

impl Weather {
    fn drawn(rng: &mut StdRng, fault_rate: f64) -> Self {
        if !rng.random_bool(fault_rate) {
            return Self::Fine;
        }
        match rng.random_range(0..4) {
            0 => Self::Fails,
            1 => Self::Truncates,
            2 => Self::Damages,
            _ => Self::Aborts,
        }
    }
}

impl Page {
    pub(super) fn new(world: &World, is_remote: bool, wakes_at: u64) -> Self {
        Self {
            sync: EdgeSync::new("main", Trust::Keys(world.publisher.keyring().own_keys())),
            wakes_at,
            is_remote,
            partial: None,
            update: None,
        }
    }

    pub(super) fn version(&self) -> Option<Version> {
        self.sync.live().map(|live| live.manifest.version)
    }

    /// Starts anew from what a page keeps in its cache.
    pub(super) fn reload(&mut self, world: &World, report: &mut Report) {
        let Some(live) = self.sync.live() else { return };
        let snapshot = encode_snapshot_at_once(&live.state, live.manifest.version).expect("sound");
        let signed = live.signed_manifest.clone();
        *self = Self::new(world, self.is_remote, self.wakes_at);
        let restored = self.sync.restore(&signed, &snapshot);
        report.num_hash_mismatches += u64::from(restored.is_err());
        report.num_reloads += 1;
    }

    /// Hears of the newest version, then fetches until there is nothing to fetch or it is cut off.
    pub(super) async fn wake(
        &mut self,
        world: &mut World,
        rng: &mut StdRng,
        fault_rate: f64,
        report: &mut Report,
    ) {
        let base = self.version();
        let announcement = world.newest().announcement.clone();
        if let Err(error) = self.sync.on_announcement(announcement.as_bytes()) {
            panic!("an honest announcement was refused: {error}");
        }
        if self.sync.candidate().is_some() {
            let inline = world.newest().inline_delta.as_ref().map_or(0, Vec::len);
            let planned_bytes = inline as u64; // widening
            self.update = Some(Update {
                base,
                planned_bytes,
            });
        }
        for _ in 0..REQUESTS_MAX {
            if self.sync.candidate().is_some() {
                self.accept(world, report);
                continue;
            }
            let weather = Weather::drawn(rng, fault_rate);
            if let Some((blob, held)) = self.partial.take() {
                report.num_resumed += 1;
                self.take_blob(world, blob, held, Weather::Fine, report)
                    .await;
                continue;
            }
            match self.sync.next_request() {
                None => return,
                Some(EdgeRequest::Plan { base }) if weather == Weather::Fails => {
                    report.num_faults += 1;
                    self.sync.on_failure(&EdgeRequest::Plan { base });
                }
                Some(EdgeRequest::Plan { base }) => self.take_plan(world, base, report).await,
                Some(EdgeRequest::KeySet) => unreachable!("only a pinned root asks for key sets"),
                Some(EdgeRequest::Blob { blob }) if weather == Weather::Aborts => {
                    report.num_faults += 1;
                    let whole = world.blob(blob, 0, self.is_remote).await;
                    let whole = whole.expect("named a moment ago");
                    let cut = rng.random_range(0..whole.len());
                    self.partial = Some((blob, whole[..cut].to_vec()));
                    return;
                }
                Some(EdgeRequest::Blob { blob }) => {
                    self.take_blob(world, blob, Vec::new(), weather, report)
                        .await;
                }
            }
        }
        report.num_stuck += 1;
    }

    async fn take_plan(&mut self, world: &World, base: Option<Version>, report: &mut Report) {
        let json = world.plan(base, self.is_remote).await;
        if let Err(error) = self.sync.on_plan(&json) {
            panic!("an honest plan was refused: {error}");
        }
        let plan = shared_model::manifest::parse_plan(&json).expect("taken a moment ago");
        report.num_plans += 1;
        self.update = Some(Update {
            base,
            planned_bytes: plan.total_bytes,
        });
    }

    async fn take_blob(
        &mut self,
        world: &World,
        blob: BlobRef,
        mut held: Vec<u8>,
        weather: Weather,
        report: &mut Report,
    ) {
        if weather != Weather::Fine {
            report.num_faults += 1;
        }
        if weather == Weather::Fails {
            self.sync.on_failure(&EdgeRequest::Blob { blob });
            return;
        }
        let rest = world.blob(blob, held.len(), self.is_remote).await;
        let Some(rest) = rest else {
            // Its grace was over before the page came back: the plan is asked for anew.
            report.num_gone += 1;
            for _ in 0..BLOB_TRIES_MAX {
                self.sync.on_failure(&EdgeRequest::Blob { blob });
            }
            return;
        };
        held.extend(rest);
        let middle = held.len() / 2;
        match weather {
            Weather::Truncates => held.truncate(middle),
            Weather::Damages => held[middle] ^= 0x10,
            Weather::Fine | Weather::Fails | Weather::Aborts => {}
        }
        let taken = self.sync.on_blob(blob.id, &held);
        match (taken, weather) {
            (Ok(()), Weather::Fine) => {}
            (Ok(()), _) => report.num_hash_mismatches += 1,
            (Err(_), Weather::Truncates | Weather::Damages) => report.num_refused += 1,
            (Err(error), _) => {
                println!("page at {:?}: {error}", self.version());
                report.num_hash_mismatches += 1;
            }
        }
    }

    fn accept(&mut self, world: &mut World, report: &mut Report) {
        let update = self
            .update
            .take()
            .expect("a candidate comes from an update");
        let candidate = self.sync.candidate().expect("seen by the caller");
        let target = candidate.manifest.version;
        if world.state_hashes.get(&target) != Some(&candidate.state.hash()) {
            report.num_hash_mismatches += 1;
        }
        match (update.base, self.sync.live()) {
            (Some(base), Some(live)) => {
                let best = world
                    .oracle
                    .best(base, &live.state, target, &candidate.state);
                report.num_updates += 1;
                report.update_bytes += update.planned_bytes;
                report.best_bytes += best.min(update.planned_bytes);
                report.chain_bytes += world.oracle.chain(base, target).unwrap_or(best);
            }
            _ => {
                report.num_joins += 1;
                report.join_bytes += update.planned_bytes;
            }
        }
        self.sync.accept();
    }
}

/// The fewest bytes from one version to another, by looking at all ways at once.
#[derive(Default)]
pub(super) struct Oracle {
    /// Sizes of published deltas and snapshots, by version.
    pub(super) deltas: BTreeMap<Version, u64>,
    pub(super) snapshots: BTreeMap<Version, u64>,
    known: BTreeMap<(Version, Version), u64>,
}

impl Oracle {
    /// The sum of single deltas, where they lead there.
    fn chain(&self, base: Version, target: Version) -> Option<u64> {
        let versions = base.0 + 1..=target.0;
        versions
            .map(|version| self.deltas.get(&Version(version)))
            .sum()
    }

    /// The least of the direct delta, the chain, and a snapshot of the target.
    fn best(
        &mut self,
        base: Version,
        base_state: &CodeState,
        target: Version,
        target_state: &CodeState,
    ) -> u64 {
        if let Some(known) = self.known.get(&(base, target)) {
            return *known;
        }
        let size = |bytes: Vec<u8>| bytes.len() as u64; // widening
        // Where no delta leads, a snapshot of the target is what is left.
        let direct = encode_delta(base_state, base, target_state, target);
        let direct = direct
            .or_else(|_| encode_snapshot(target_state, target))
            .map(size);
        let ways = [
            direct.ok(),
            self.chain(base, target),
            self.snapshots.get(&target).copied(),
        ];
        let best = ways
            .into_iter()
            .flatten()
            .min()
            .expect("a snapshot can be made");
        self.known.insert((base, target), best);
        best
    }
}
