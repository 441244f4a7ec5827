//! Merged deltas on demand: from a version that some page has to the newest one, in one step.
//!
//! ```text
//! plan wanted ─► would merging save enough? ─no──────────────────────► cheapest way of now
//!                        │yes                                               ▲
//!                        ▼                                                  │ done, or waited enough
//!           queue of bases (bounded, each once) ─► one thread: walk to the base's state,
//!           encode to the newest, apply and compare, store the blob, add the edge
//! ```
//!
//! A merged delta is an edge like any other: once the newest version has moved on, the chain goes on
//! from where it ends, until merging anew would save enough again.
//! Nothing here is needed after a restart, so nothing is listed on disk: recovery removes the blobs
//! as orphans, and a page whose plan named one asks for another plan.
//! Not here: which way is the cheapest (`graph`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use shared_model::ids::{BlobId, Version};
use shared_model::manifest::{BlobRef, Channel, PlanStep, PlanStepKind};
use tokio::sync::watch;

use super::graph::Edge;
use super::press::checked_delta;
use super::states::HashedState;
use super::{PublishError, Published, Shared, recover};

/// Bases that may wait for their merged delta; further ones are answered with what is there.
const WAITING_MAX: usize = 32;

/// Pairs remembered as not worth merging; the oldest targets are forgotten first.
const FRUITLESS_MAX: usize = 4096;

/// Who waits, what was made, and what is not worth trying.
pub(super) struct Composer {
    desk: Mutex<Desk>,
    /// Told whenever a base leaves the desk.
    done: watch::Sender<()>,
}

#[derive(Default)]
struct Desk {
    has_worker: bool,
    waiting: VecDeque<Order>,
    current: Option<(Version, Channel)>,
    /// By target, then base.
    fruitless: BTreeSet<(Version, Version)>,
    made: BTreeMap<BlobId, Made>,
}

impl Desk {
    fn is_pending(&self, base: Version, channel: Channel) -> bool {
        let is_it = |order: &Order| (order.base, order.channel) == (base, channel);
        self.current == Some((base, channel)) || self.waiting.iter().any(is_it)
    }
}

/// A merged delta that is wanted.
#[derive(Clone, Copy)]
struct Order {
    base: Version,
    /// Whose newest version it is to lead to.
    channel: Channel,
    now_millis: i64,
}

/// A merged delta that is kept.
#[derive(Clone, Copy)]
struct Made {
    base: Version,
    target: Version,
    bytes: u64,
    made_at: i64,
}

impl Composer {
    pub(super) fn new() -> Self {
        Self {
            desk: Mutex::default(),
            done: watch::Sender::new(()),
        }
    }

    /// Follows the end of compositions.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.done.subscribe()
    }

    /// Whether the merged delta from this base is being made or waits for its turn.
    pub(super) fn is_pending(&self, base: Version, channel: Channel) -> bool {
        self.desk().is_pending(base, channel)
    }

    /// Number and bytes of the merged deltas that are kept.
    pub(super) fn kept(&self) -> (usize, u64) {
        let desk = self.desk();
        let bytes = desk.made.values().map(|made| made.bytes).sum();
        (desk.made.len(), bytes)
    }

    /// Forgets merged deltas whose version is gone.
    pub(super) fn forget(&self, is_gone: impl Fn(BlobId) -> bool) {
        self.desk().made.retain(|id, _| !is_gone(*id));
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next base; without one the worker's time is over.
    fn next(&self) -> Option<Order> {
        let mut desk = self.desk();
        let order = desk.waiting.pop_front();
        desk.current = order.map(|order| (order.base, order.channel));
        desk.has_worker = order.is_some();
        order
    }

    fn finish(&self) {
        self.desk().current = None;
        self.done.send_replace(());
    }

    fn is_fruitless(&self, base: Version, target: Version) -> bool {
        self.desk().fruitless.contains(&(target, base))
    }

    fn note_fruitless(&self, base: Version, target: Version) {
        let mut desk = self.desk();
        desk.fruitless.insert((target, base));
        while desk.fruitless.len() > FRUITLESS_MAX {
            desk.fruitless.pop_first();
        }
    }
}

/// Leaves the desk in order even when the worker panics.
struct AtDesk<'a>(&'a Composer);

impl Drop for AtDesk<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return; // another worker may be at the desk by now
        }
        let mut desk = self.0.desk();
        desk.has_worker = false;
        desk.current = None;
        desk.waiting.clear();
        drop(desk);
        self.0.done.send_replace(());
    }
}

/// The largest share of a way's cost that one delta in its place could save.
///
/// A merged delta is hardly smaller than the largest delta it replaces; what replaces a snapshot may be.
fn saving_max(steps: &[PlanStep], step_cost_bytes: u64) -> f64 {
    let cost = cost_of(steps, step_cost_bytes);
    let has_snapshot = steps.iter().any(|step| step.kind == PlanStepKind::Snapshot);
    let largest = steps.iter().map(|step| step.blob.bytes).max();
    let floor = largest.filter(|_| !has_snapshot).unwrap_or(0) + step_cost_bytes;
    if cost <= floor {
        return 0.0;
    }
    (cost - floor) as f64 / cost as f64 // sizes are far below 2^53
}

fn cost_of(steps: &[PlanStep], step_cost_bytes: u64) -> u64 {
    steps
        .iter()
        .map(|step| step.blob.bytes + step_cost_bytes)
        .sum()
}

impl Shared {
    /// Asks for the merged delta that a page with this version, or with nothing, would be served best
    /// by: from its version or, where its way begins with a snapshot, from there. The version it
    /// starts from, while it is being made.
    pub(super) fn order_for(
        self: &Arc<Self>,
        base: Option<Version>,
        channel: Channel,
        now_millis: i64,
    ) -> Option<Version> {
        if let Some(base) = base
            && self.order(base, channel, now_millis)
        {
            return Some(base);
        }
        let target = self.channels.newest(channel)?.manifest.version;
        let steps = self.graph().way(base, target, self.config.chain_len_max)?;
        let first = steps.first()?;
        let begins_anew = first.kind == PlanStepKind::Snapshot;
        (begins_anew && self.order(first.target_version, channel, now_millis))
            .then_some(first.target_version)
    }

    /// Asks for a merged delta from `base` where it may pay. Whether one is being made now.
    fn order(self: &Arc<Self>, base: Version, channel: Channel, now_millis: i64) -> bool {
        let Some(latest) = self.channels.newest(channel) else {
            return false;
        };
        let target = latest.manifest.version;
        if self.composer.is_pending(base, channel) {
            return true;
        }
        if self.composer.is_fruitless(base, target)
            || self.way_worth_merging(base, target).is_none()
        {
            return false;
        }
        let mut desk = self.composer.desk();
        if desk.waiting.len() >= WAITING_MAX {
            return false;
        }
        if !desk.is_pending(base, channel) {
            desk.waiting.push_back(Order {
                base,
                channel,
                now_millis,
            });
        }
        if desk.has_worker {
            return true;
        }
        let shared = Arc::clone(self);
        let worker = std::thread::Builder::new()
            .name("compose".to_owned())
            .spawn(move || shared.compose_waiting());
        match worker {
            Ok(_) => desk.has_worker = true,
            Err(error) => {
                desk.waiting.clear();
                tracing::warn!(%error, "no thread for merged deltas");
            }
        }
        desk.has_worker
    }

    /// The way of now from a kept base, where one delta in its place could save enough.
    fn way_worth_merging(&self, base: Version, target: Version) -> Option<Vec<PlanStep>> {
        let graph = self.graph();
        if base >= target || !graph.contains(base) {
            return None;
        }
        let steps = graph.way(Some(base), target, self.config.chain_len_max)?;
        let saving = saving_max(&steps, self.config.step_cost_bytes);
        (saving >= f64::from(self.config.compose_saving_min)).then_some(steps)
    }

    fn compose_waiting(&self) {
        let _at_desk = AtDesk(&self.composer);
        let share = f64::from(self.config.compose_share_max);
        while let Some(order) = self.composer.next() {
            let started = Instant::now();
            if let Err(error) = self.compose(order) {
                tracing::warn!(%error, "no merged delta from version {}", order.base);
            }
            self.composer.finish();
            // So that merging never takes more than its share of a core from training.
            std::thread::sleep(started.elapsed().mul_f64(1.0 / share - 1.0));
        }
    }

    /// Makes, checks and keeps the delta from the base to the version that is the newest now.
    fn compose(&self, order: Order) -> Result<(), PublishError> {
        let base = order.base;
        let Some(latest) = self.channels.newest(order.channel) else {
            return Ok(());
        };
        let target = latest.manifest.version;
        let Some(steps) = self.way_worth_merging(base, target) else {
            return Ok(());
        };
        // Until it is kept, so that neither a failure nor a large delta is tried again and again.
        self.composer.note_fruitless(base, target);
        let Some(bytes) = self.merged(base, &latest)? else {
            return Ok(());
        };
        let cost = bytes.len() as u64 + self.config.step_cost_bytes; // widening
        if cost < cost_of(&steps, self.config.step_cost_bytes) {
            self.keep_merged(order, target, &bytes)?;
        }
        Ok(())
    }

    /// The delta from a kept version to the newest, checked by applying it; `None` where no delta
    /// leads from there.
    fn merged(&self, base: Version, latest: &Published) -> Result<Option<Vec<u8>>, PublishError> {
        let target = latest.manifest.version;
        let from = self.state_of(base)?;
        self.states.insert(
            target,
            HashedState {
                state: Arc::clone(&latest.state),
                hash: latest.manifest.state,
            },
        );
        checked_delta((&*from.state, from.hash), base, &latest.state, target)
    }

    /// The state of a kept version, from the nearest state at hand or from a snapshot.
    fn state_of(&self, version: Version) -> Result<HashedState, PublishError> {
        let (start, steps) = {
            let graph = self.graph();
            let mut best = graph.shortest(None, version).map(|steps| (None, steps));
            for (known, state) in self.states.all() {
                let Some(steps) = graph.shortest(Some(known), version) else {
                    continue;
                };
                let from_here = steps
                    .first()
                    .is_none_or(|step| step.kind == PlanStepKind::Delta);
                if from_here && best.as_ref().is_none_or(|(_, now)| steps.len() < now.len()) {
                    best = Some((Some(state), steps));
                }
            }
            best.ok_or_else(|| PublishError::NoState {
                version,
                detail: "no way leads there".to_owned(),
            })?
        };
        let reached = recover::walk(&self.blobs, start, &steps).map_err(|bad| {
            let detail = format!("blob {}: {}", bad.id, bad.detail);
            PublishError::NoState { version, detail }
        })?;
        self.states.insert(version, reached.clone());
        Ok(reached)
    }

    /// Stores a merged delta and adds it to the graph, unless there is no room for it.
    fn keep_merged(&self, order: Order, target: Version, bytes: &[u8]) -> Result<(), PublishError> {
        let num_bytes = bytes.len() as u64; // widening
        let _tidy = self.tidy();
        if !self.make_room(num_bytes, order.now_millis) || !self.has_room_for(num_bytes) {
            return Ok(());
        }
        let blob = self.blobs.put(bytes)?;
        let edge = Edge {
            base: Some(order.base),
            blob,
        };
        if !self.graph_mut().insert_beside(target, edge) {
            return Ok(self.blobs.remove(blob.id)?); // its version was retired meanwhile
        }
        let made = Made {
            base: order.base,
            target,
            bytes: num_bytes,
            made_at: order.now_millis,
        };
        self.composer.desk().made.insert(blob.id, made);
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.num_composed += 1;
        counters.composed_bytes += num_bytes;
        Ok(())
    }

    /// Removes the merged deltas that were handed out longest ago until `bytes` fit; `false` where
    /// the rest may still be on the way to pages.
    fn make_room(&self, bytes: u64, now_millis: i64) -> bool {
        loop {
            let (_, kept) = self.composer.kept();
            if kept + bytes <= self.config.composed_bytes_max {
                return true;
            }
            if !self.drop_oldest_merged(now_millis) {
                return false;
            }
        }
    }

    /// Removes all merged deltas that are not on their way to a page.
    pub(super) fn drop_merged(&self, now_millis: i64) {
        let _tidy = self.tidy();
        while self.drop_oldest_merged(now_millis) {}
    }

    /// Removes the merged delta that was handed out longest ago; `false` where there is none, or it may still be on
    /// its way to a page.
    fn drop_oldest_merged(&self, now_millis: i64) -> bool {
        let made = self.composer.desk().made.clone();
        let last_use = |id: BlobId, made: &Made| self.handed.last(id).unwrap_or(made.made_at);
        let oldest = made.iter().min_by_key(|(id, made)| last_use(**id, made));
        let Some((id, made)) = oldest else {
            return false;
        };
        let (id, made) = (*id, *made);
        // Plans are marked under the graph's lock: none can name the blob from here on.
        let mut graph = self.graph_mut();
        let handed_at = self.handed.last(id);
        if handed_at.is_some_and(|at| now_millis < at.saturating_add(self.grace_millis())) {
            return false;
        }
        let is_still_named = graph.remove_edge(made.target, made.base, id);
        drop(graph);
        self.composer.desk().made.remove(&id);
        if !is_still_named && let Err(error) = self.blobs.remove(id) {
            tracing::warn!(%error, "cannot remove a merged delta");
        }
        true
    }
}

/// Blobs that were named to pages, and when last.
#[derive(Default)]
pub(super) struct HandedOut {
    at: Mutex<BTreeMap<BlobId, i64>>,
}

impl HandedOut {
    pub(super) fn mark<'a>(&self, blobs: impl IntoIterator<Item = &'a BlobRef>, now_millis: i64) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        for blob in blobs {
            let last = at.entry(blob.id).or_insert(now_millis);
            *last = (*last).max(now_millis);
        }
    }

    pub(super) fn last(&self, id: BlobId) -> Option<i64> {
        let at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.get(&id).copied()
    }

    /// Forgets what was named before `floor`: whoever asked then is done or asks again.
    pub(super) fn forget_before(&self, floor: i64) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.retain(|_, last| *last >= floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(sizes: &[u64], kind: PlanStepKind) -> Vec<PlanStep> {
        let step = |(idx, bytes): (usize, &u64)| PlanStep {
            kind,
            blob: BlobRef {
                id: BlobId::default(),
                bytes: *bytes,
            },
            target_version: Version(idx as u64 + 2),
        };
        sizes.iter().enumerate().map(step).collect()
    }

    #[test]
    fn one_delta_cannot_be_bettered_and_a_long_chain_or_a_snapshot_can() {
        let saving = |sizes: &[u64], kind| saving_max(&steps(sizes, kind), 2000);
        assert_eq!(saving(&[3000], PlanStepKind::Delta), 0.0);
        assert_eq!(saving(&[], PlanStepKind::Delta), 0.0);
        assert_eq!(saving(&[3000, 3000], PlanStepKind::Delta), 0.5);
        assert!(saving(&[98_000, 1000], PlanStepKind::Delta) < 0.05);
        assert!(saving(&[98_000], PlanStepKind::Snapshot) > 0.9);
    }

    #[test]
    fn the_last_time_counts_and_old_times_are_forgotten() {
        let handed = HandedOut::default();
        let [a, b] = [b"a", b"b"].map(|name| BlobRef {
            id: BlobId::of(name),
            bytes: 1,
        });
        handed.mark([&a, &b], 10);
        handed.mark([&a], 30);
        handed.mark([&a], 20);
        assert_eq!(handed.last(a.id), Some(30));
        handed.forget_before(11);
        assert_eq!((handed.last(a.id), handed.last(b.id)), (Some(30), None));
    }
}
