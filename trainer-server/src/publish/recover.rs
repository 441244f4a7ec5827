//! Opening what an earlier run published: the newest version whose blobs lead to its state.
//!
//! Whatever is damaged is put aside, never trusted and never a reason not to start.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use shared_model::codec::delta::{apply_delta_to, read_delta_header};
use shared_model::codec::snapshot::decode_snapshot;
use shared_model::codec::state::CodeState;
use shared_model::ids::{BlobId, Version};
use shared_model::manifest::{self, Channel, Manifest, PlanStep, PlanStepKind};

use super::graph::{Edge, VersionGraph};
use super::manifest_store::ManifestStore;
use super::press::{edges_of, skip_edge};
use super::states::HashedState;
use super::{BlobError, BlobStore, PublishError, Published};

/// What was found.
pub(super) struct Recovered {
    pub(super) published: Option<Published>,
    pub(super) graph: VersionGraph,
    /// The highest version number ever used.
    pub(super) highest: Version,
}

/// Why nothing could be recovered.
#[derive(Debug)]
pub(super) enum RecoverError {
    Io(io::Error),
    Blob(BlobError),
    OtherModel { actual: String, expected: String },
}

impl RecoverError {
    pub(super) fn at(self, path: &Path) -> PublishError {
        match self {
            Self::Io(source) => PublishError::Io {
                action: "cannot read what was published",
                path: path.to_owned(),
                source,
            },
            Self::Blob(error) => PublishError::Blob(error),
            Self::OtherModel { actual, expected } => PublishError::OtherModel { actual, expected },
        }
    }
}

impl From<io::Error> for RecoverError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A manifest that was read and whose signature holds.
struct Candidate {
    manifest: Manifest,
    signed: String,
}

pub(super) fn recover(
    blobs: &BlobStore,
    manifests: &ManifestStore,
    trusted: &[VerifyingKey],
    model: &str,
    step_cost_bytes: u64,
) -> Result<Recovered, RecoverError> {
    let (versions, highest) = manifests.list()?;
    let mut graph = VersionGraph::new(step_cost_bytes);
    let mut candidates = BTreeMap::new();
    for version in versions {
        let Some(candidate) = read_manifest(manifests, trusted, version)? else {
            continue;
        };
        if candidate.manifest.model != model {
            let (actual, expected) = (candidate.manifest.model, model.to_owned());
            return Err(RecoverError::OtherModel { actual, expected });
        }
        let skips = manifests.read_skips(version).into_iter().map(skip_edge);
        let edges = edges_of(&candidate.manifest).into_iter().chain(skips);
        let present: Vec<Edge> = edges.filter(|edge| blobs.contains(&edge.blob)).collect();
        graph.insert(version, present);
        graph.note_created(version, candidate.manifest.created_at);
        if candidate.manifest.channel == Channel::Canary {
            graph.note_canary(version);
            continue; // pages may come from it, but no run goes on from it
        }
        candidates.insert(version, candidate);
    }
    let mut published = None;
    while let Some((version, candidate)) = candidates.pop_last() {
        if let Some(state) = restore(blobs, &mut graph, &candidate.manifest) {
            let inline_delta = None; // pages that reconnect after a restart ask for a plan
            let Candidate { manifest, signed } = candidate;
            published = Some(Published::new(
                manifest,
                signed,
                Arc::new(state),
                inline_delta,
            ));
            break;
        }
        tracing::warn!("version {version} is incomplete and put aside");
        graph.remove(version);
        manifests.set_aside(version)?;
    }
    remove_orphans(blobs, &graph)?;
    if let Some(oldest) = graph.first() {
        manifests.prune(oldest)?;
    }
    Ok(Recovered {
        published,
        graph,
        highest,
    })
}

fn read_manifest(
    manifests: &ManifestStore,
    trusted: &[VerifyingKey],
    version: Version,
) -> Result<Option<Candidate>, RecoverError> {
    let signed = manifests.read(version)?;
    let refusal = match manifest::verify(signed.as_bytes(), trusted) {
        Ok(manifest) if manifest.version == version => {
            return Ok(Some(Candidate { manifest, signed }));
        }
        Ok(manifest) => format!("it names version {}", manifest.version),
        Err(error) => error.to_string(),
    };
    tracing::warn!(%refusal, "the manifest of version {version} is put aside");
    manifests.set_aside(version)?;
    Ok(None)
}

/// The state of a manifest, by the cheapest way whose blobs are sound; `None` where there is none.
pub(super) fn restore(
    blobs: &BlobStore,
    graph: &mut VersionGraph,
    manifest: &Manifest,
) -> Option<CodeState> {
    while let Some(steps) = graph.way(None, manifest.version, usize::MAX) {
        match walk(blobs, None, &steps) {
            Ok(reached) if reached.hash == manifest.state => {
                return Some(Arc::unwrap_or_clone(reached.state));
            }
            Ok(_) => return None,
            Err(BadStep { id, detail }) => {
                tracing::warn!(%detail, "blob {id} is not used");
                graph.remove_blob(id);
            }
        }
    }
    None
}

/// A step that cannot be taken.
pub(super) struct BadStep {
    pub(super) id: BlobId,
    pub(super) detail: String,
}

/// Applies steps to a state, or to nothing where they begin with a snapshot.
pub(super) fn walk(
    blobs: &BlobStore,
    start: Option<HashedState>,
    steps: &[PlanStep],
) -> Result<HashedState, BadStep> {
    let mut reached = start;
    let mut last = BlobId::default();
    for step in steps {
        last = step.blob.id;
        let bad = |detail: String| BadStep { id: last, detail };
        let bytes = match blobs.get(last) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(bad("it is missing".to_owned())),
            Err(error) => return Err(bad(error.to_string())),
        };
        reached = Some(stepped(step.kind, reached, &bytes).map_err(bad)?);
    }
    reached.ok_or_else(|| BadStep {
        id: last,
        detail: "the way is empty".to_owned(),
    })
}

fn stepped(
    kind: PlanStepKind,
    reached: Option<HashedState>,
    bytes: &[u8],
) -> Result<HashedState, String> {
    let (state, hash) = match (kind, reached) {
        (PlanStepKind::Snapshot, _) => {
            let (_, state) = decode_snapshot(bytes).map_err(|error| error.to_string())?;
            let hash = state.hash();
            (state, hash)
        }
        (PlanStepKind::Delta, Some(base)) => {
            let header = read_delta_header(bytes).map_err(|error| error.to_string())?;
            let state =
                apply_delta_to(&base.state, base.hash, bytes).map_err(|error| error.to_string())?;
            (state, header.target) // applying has compared them
        }
        (PlanStepKind::Delta, None) => return Err("a delta without a base".to_owned()),
    };
    Ok(HashedState {
        state: Arc::new(state),
        hash,
    })
}

/// Removes blobs that no version names: written before a crash cut the manifest off.
fn remove_orphans(blobs: &BlobStore, graph: &VersionGraph) -> Result<(), RecoverError> {
    let named: BTreeSet<BlobId> = graph.blobs().collect();
    for id in blobs.list()? {
        if !named.contains(&id) {
            blobs.remove(id).map_err(RecoverError::Blob)?;
        }
    }
    Ok(())
}
