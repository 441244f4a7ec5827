//! Which ways lead from one version to another, and the cheapest of them.
//!
//! Versions are nodes; a delta is an edge from its base to its target, a snapshot an edge from
//! nothing. Every edge goes upwards, so one pass in order of versions finds the cheapest way:
//!
//! ```text
//! cost(v) = 0                                          if v is the base
//!         = min over edges e into v of cost(e.base) + price(e)   otherwise
//! ```
//!
//! Beside the chain of single deltas there are merged ones over fixed strides, so that a page that
//! slept for n versions needs about log(n) steps, and those made on demand (`compose`).
//! The price of an edge is its bytes and, in bytes too, what any step costs: a round trip and a decode.
//! Not here: encoding and files.

use std::collections::{BTreeMap, BTreeSet};

use shared_model::ids::{BlobId, Version};
use shared_model::manifest::{BlobRef, PlanStep, PlanStepKind};

/// A delta (`base` is a version) or a snapshot (`base` is `None`).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Edge {
    pub(super) base: Option<Version>,
    pub(super) blob: BlobRef,
}

/// All edges, by the version they lead to.
#[derive(Debug, Clone)]
pub(super) struct VersionGraph {
    step_cost_bytes: u64,
    edges: BTreeMap<Version, Vec<Edge>>,
    /// Times of publication, by the clock of whoever published.
    created: BTreeMap<Version, i64>,
    /// Versions of the canary channel.
    canaries: BTreeSet<Version>,
}

impl VersionGraph {
    /// No versions yet.
    pub(super) fn new(step_cost_bytes: u64) -> Self {
        Self {
            step_cost_bytes,
            edges: BTreeMap::new(),
            created: BTreeMap::new(),
            canaries: BTreeSet::new(),
        }
    }

    /// Notes when a version was published.
    pub(super) fn note_created(&mut self, version: Version, created_at: i64) {
        self.created.insert(version, created_at);
    }

    /// Notes that a version is of the canary channel.
    pub(super) fn note_canary(&mut self, version: Version) {
        self.canaries.insert(version);
    }

    /// The oldest version that was published after `at`.
    pub(super) fn first_after(&self, at: i64) -> Option<Version> {
        let mut created = self.created.iter();
        created
            .find(|(_, created_at)| **created_at > at)
            .map(|(version, _)| *version)
    }

    /// The oldest version.
    pub(super) fn first(&self) -> Option<Version> {
        self.edges.keys().next().copied()
    }

    pub(super) fn contains(&self, version: Version) -> bool {
        self.edges.contains_key(&version)
    }

    /// Adds an edge to a version that is there; `false` where it is not.
    pub(super) fn insert_beside(&mut self, target: Version, edge: Edge) -> bool {
        let Some(edges) = self.edges.get_mut(&target) else {
            return false;
        };
        edges.push(edge);
        true
    }

    /// Removes one edge; whether another one is made of the same blob.
    pub(super) fn remove_edge(&mut self, target: Version, base: Version, id: BlobId) -> bool {
        if let Some(edges) = self.edges.get_mut(&target) {
            let is_it = |edge: &Edge| edge.base == Some(base) && edge.blob.id == id;
            if let Some(edge_idx) = edges.iter().position(is_it) {
                edges.remove(edge_idx);
            }
        }
        self.blobs().any(|named| named == id)
    }

    pub(super) fn insert(&mut self, target: Version, edges: impl IntoIterator<Item = Edge>) {
        self.edges.entry(target).or_default().extend(edges);
    }

    /// Removes a version and the edges into it.
    pub(super) fn remove(&mut self, version: Version) {
        self.edges.remove(&version);
        self.created.remove(&version);
        self.canaries.remove(&version);
    }

    /// Removes every edge made of this blob.
    pub(super) fn remove_blob(&mut self, id: BlobId) {
        for edges in self.edges.values_mut() {
            edges.retain(|edge| edge.blob.id != id);
        }
    }

    /// Versions with a snapshot, ascending.
    pub(super) fn snapshots(&self) -> Vec<Version> {
        let has_snapshot = |edges: &[Edge]| edges.iter().any(|edge| edge.base.is_none());
        let with_snapshot = self.edges.iter().filter(|(_, edges)| has_snapshot(edges));
        with_snapshot.map(|(version, _)| *version).collect()
    }

    /// Versions of the stable channel with a snapshot, ascending.
    pub(super) fn stable_snapshots(&self) -> Vec<Version> {
        let mut snapshots = self.snapshots();
        snapshots.retain(|version| !self.canaries.contains(version));
        snapshots
    }

    /// Versions below `floor`, ascending.
    pub(super) fn versions_below(&self, floor: Version) -> Vec<Version> {
        self.edges
            .range(..floor)
            .map(|(version, _)| *version)
            .collect()
    }

    /// Blobs of all edges, with repetitions.
    pub(super) fn blobs(&self) -> impl Iterator<Item = BlobId> {
        self.edges.values().flatten().map(|edge| edge.blob.id)
    }

    /// The way to `target` that costs least; the one with the fewest steps where that one is longer
    /// than `steps_max`. Empty when the base is the target, `None` when no way leads there.
    pub(super) fn way(
        &self,
        base: Option<Version>,
        target: Version,
        steps_max: usize,
    ) -> Option<Vec<PlanStep>> {
        let price = |edge: &Edge| edge.blob.bytes + self.step_cost_bytes;
        let by_bytes = self.cheapest(base, target, price)?;
        if by_bytes.len() <= steps_max {
            return Some(by_bytes);
        }
        self.shortest(base, target)
    }

    /// The way to `target` with the fewest steps.
    pub(super) fn shortest(&self, base: Option<Version>, target: Version) -> Option<Vec<PlanStep>> {
        self.cheapest(base, target, |_| 1)
    }

    fn cheapest(
        &self,
        base: Option<Version>,
        target: Version,
        price: impl Fn(&Edge) -> u64,
    ) -> Option<Vec<PlanStep>> {
        if base == Some(target) {
            return Some(Vec::new());
        }
        let mut costs: BTreeMap<Version, (u64, Option<&Edge>)> = BTreeMap::new();
        if let Some(base) = base {
            costs.insert(base, (0, None));
        }
        for (version, edges) in self.edges.range(..=target) {
            for edge in edges {
                let before = match edge.base {
                    Some(edge_base) => costs.get(&edge_base).map(|(cost, _)| *cost),
                    None => Some(0),
                };
                let Some(before) = before else { continue };
                let cost = before.saturating_add(price(edge));
                if costs.get(version).is_none_or(|(known, _)| cost < *known) {
                    costs.insert(*version, (cost, Some(edge)));
                }
            }
        }
        walk_back(&costs, target)
    }
}

fn walk_back(
    costs: &BTreeMap<Version, (u64, Option<&Edge>)>,
    target: Version,
) -> Option<Vec<PlanStep>> {
    let mut steps = Vec::new();
    let mut version = target;
    while let (_, Some(edge)) = costs.get(&version)? {
        let kind = match edge.base {
            Some(_) => PlanStepKind::Delta,
            None => PlanStepKind::Snapshot,
        };
        steps.push(PlanStep {
            kind,
            blob: edge.blob.clone(),
            target_version: version,
        });
        let Some(edge_base) = edge.base else { break };
        version = edge_base;
    }
    steps.reverse();
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(base: Option<u64>, name: &str, bytes: u64) -> Edge {
        let id = BlobId::of(name.as_bytes());
        Edge {
            base: base.map(Version),
            blob: BlobRef { id, bytes },
        }
    }

    /// A snapshot of 100,000 bytes at 1, then deltas of 1,000 bytes up to 40.
    fn chain() -> VersionGraph {
        let mut graph = VersionGraph::new(400);
        graph.insert(Version(1), [edge(None, "s1", 100_000)]);
        for version in 2..=40 {
            graph.insert(
                Version(version),
                [edge(Some(version - 1), &format!("d{version}"), 1000)],
            );
        }
        graph
    }

    fn targets(steps: &[PlanStep]) -> Vec<u64> {
        steps.iter().map(|step| step.target_version.0).collect()
    }

    #[test]
    fn a_near_base_takes_the_chain_and_no_base_the_snapshot() {
        let graph = chain();
        let way = graph
            .way(Some(Version(38)), Version(40), 64)
            .expect("a way");
        assert_eq!(targets(&way), [39, 40]);
        let way = graph.way(None, Version(3), 64).expect("a way");
        assert_eq!(targets(&way), [1, 2, 3]);
        assert_eq!(way[0].kind, PlanStepKind::Snapshot);
        assert_eq!(
            graph.way(Some(Version(40)), Version(40), 64),
            Some(Vec::new())
        );
    }

    #[test]
    fn a_snapshot_that_costs_less_than_the_chain_is_taken() {
        let mut graph = chain();
        graph.insert(Version(39), [edge(None, "s39", 5000)]);
        assert_eq!(
            targets(&graph.way(Some(Version(2)), Version(40), 64).expect("a way")),
            [39, 40]
        );
        assert_eq!(
            targets(
                &graph
                    .way(Some(Version(36)), Version(40), 64)
                    .expect("a way")
            )
            .len(),
            4
        );
    }

    #[test]
    fn merged_deltas_shorten_the_way() {
        let mut graph = chain();
        graph.insert(Version(16), [edge(Some(1), "m16", 4000)]);
        graph.insert(Version(32), [edge(Some(16), "m32", 4000)]);
        let way = graph.way(Some(Version(1)), Version(34), 64).expect("a way");
        assert_eq!(targets(&way), [16, 32, 33, 34]);
    }

    #[test]
    fn a_way_that_is_too_long_gives_way_to_the_shortest() {
        let mut graph = chain();
        graph.insert(Version(39), [edge(None, "s39", 90_000)]);
        let way = graph.way(Some(Version(2)), Version(40), 10).expect("a way");
        assert_eq!(targets(&way), [39, 40]);
    }

    #[test]
    fn a_dear_step_is_saved_at_the_price_of_some_bytes() {
        let mut graph = chain();
        graph.insert(Version(40), [edge(Some(36), "m40", 6000)]);
        let way = graph.way(Some(Version(36)), Version(40), 64);
        assert_eq!(targets(&way.expect("a way")).len(), 4);
        graph.step_cost_bytes = 2000;
        let way = graph.way(Some(Version(36)), Version(40), 64);
        assert_eq!(targets(&way.expect("a way")), [40]);
    }

    #[test]
    fn a_blob_of_two_edges_stays_named_until_both_are_gone() {
        let mut graph = chain();
        let merged = edge(Some(24), "m40", 5000);
        assert!(graph.insert_beside(Version(40), merged.clone()));
        assert!(graph.insert_beside(Version(40), merged.clone()));
        assert!(!graph.insert_beside(Version(41), merged.clone()));
        assert!(graph.remove_edge(Version(40), Version(24), merged.blob.id));
        assert!(!graph.remove_edge(Version(40), Version(24), merged.blob.id));
    }

    #[test]
    fn an_unknown_base_and_a_hole_lead_to_the_snapshot_or_nowhere() {
        let mut graph = chain();
        assert_eq!(
            targets(&graph.way(Some(Version(99)), Version(2), 64).expect("a way")),
            [1, 2]
        );
        graph.remove_blob(BlobId::of(b"d3"));
        assert_eq!(graph.way(None, Version(3), 64), None);
        assert_eq!(graph.way(Some(Version(2)), Version(3), 64), None);
    }
}
