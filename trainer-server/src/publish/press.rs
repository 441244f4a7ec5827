//! The press: how one version becomes blobs, a manifest and an announcement, and how old ones go.
//!
//! Runs on the publishing thread only; readers see the graph and the newest version swapped whole.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use shared_model::codec::CodecError;
use shared_model::codec::delta::{apply_delta_to, encode_delta};
use shared_model::codec::snapshot::encode_snapshot;
use shared_model::codec::state::CodeState;
use shared_model::ids::{BlobId, Version};
use shared_model::manifest::{self, BlobRef, Channel, DeltaRef, Manifest, VersionKind};

use super::channels::Reach;
use super::graph::{Edge, VersionGraph};
use super::{NewVersion, Press, PublishError, Published, Shared, check_offsets};

impl Shared {
    /// Writes blobs and manifest of the next version; `written` are its blobs so far, whatever happens.
    pub(super) fn press_version(
        &self,
        press: &mut Press,
        channel: Channel,
        new: NewVersion,
        written: &mut Vec<BlobId>,
    ) -> Result<Arc<Published>, PublishError> {
        let previous = self.channels.newest(channel);
        let version = Version(self.next_version.load(Ordering::Acquire));
        check_offsets(version, &new, previous.as_deref())?;

        let delta = self.encode_delta(version, &new.state, previous.as_deref())?;
        let planned = previous
            .as_ref()
            .zip(delta.as_ref())
            .map(|(previous, bytes)| DeltaRef {
                base_version: previous.manifest.version,
                blob: BlobRef {
                    id: BlobId::of(bytes),
                    bytes: bytes.len() as u64, // widening
                },
            });
        let snapshot = if self.needs_snapshot(version, new.kind, channel, planned.as_ref()) {
            let bytes = encode_snapshot(&new.state, version);
            Some(bytes.map_err(|source| PublishError::Encode { version, source })?)
        } else {
            None
        };
        let num_bytes = [&delta, &snapshot]
            .into_iter()
            .flatten()
            .map(Vec::len)
            .sum::<usize>();
        self.make_room_for(num_bytes as u64, new.created_at)?; // widening
        let mut put = |bytes: &Vec<u8>| {
            written.push(BlobId::of(bytes));
            self.blobs.put(bytes)
        };
        if planned.is_some() {
            delta.as_ref().map(&mut put).transpose()?;
        }
        let snapshot = snapshot.as_ref().map(&mut put).transpose()?;

        let keyring = self.keyring();
        let key = keyring.signer(new.created_at)?;
        // From here on the number may be on disk: it is used, whatever happens.
        self.next_version.store(version.next().0, Ordering::Release);
        let state = Arc::clone(&new.state);
        let previous = previous.as_deref();
        let mut manifest = self.manifest(version, new, channel, planned, snapshot, previous);
        manifest.key_set = keyring.number();
        manifest
            .check()
            .map_err(|source| PublishError::Manifest { version, source })?;
        let signed = manifest::sign(&manifest, key);
        let signed = String::from_utf8(signed).expect("a signed manifest is JSON");
        if let Err(source) = self.manifests.write(version, &signed) {
            press.unclear = Some(version);
            return Err(self.io("cannot write a manifest", source));
        }
        let inline_max = self.config.inline_delta_bytes_max;
        let inline_delta = delta.filter(|bytes| bytes.len() <= inline_max);
        let published = Published::new(manifest, signed, state, inline_delta);
        Ok(Arc::new(published))
    }

    /// After a version that failed: what it wrote goes at once where it can, else before the next one is written.
    pub(super) fn clear_up(&self, press: &mut Press, written: &[BlobId]) {
        if let Err(error) = self.settle_unclear(press) {
            tracing::warn!(%error, "it is removed before another version is written");
        }
        self.sweep(written);
    }

    /// Removes a manifest of which it is not known whether it was written.
    pub(super) fn settle_unclear(&self, press: &mut Press) -> Result<(), PublishError> {
        if let Some(version) = press.unclear {
            let removed = self.manifests.remove_unclear(version);
            removed.map_err(|source| self.io("cannot remove a manifest that failed", source))?;
            press.unclear = None;
        }
        Ok(())
    }

    /// The delta from the version before, checked by applying it; `None` where no delta leads from
    /// there (no version, another spec, another encoder, another order of items).
    pub(super) fn encode_delta(
        &self,
        version: Version,
        target: &CodeState,
        previous: Option<&Published>,
    ) -> Result<Option<Vec<u8>>, PublishError> {
        let Some(previous) = previous else {
            return Ok(None);
        };
        let base = (&*previous.state, previous.manifest.state);
        checked_delta(base, previous.manifest.version, target, version)
    }

    pub(super) fn needs_snapshot(
        &self,
        version: Version,
        kind: VersionKind,
        channel: Channel,
        delta: Option<&DeltaRef>,
    ) -> bool {
        let Some(delta) = delta else { return true };
        if kind == VersionKind::Release {
            return true;
        }
        let graph = self.graph();
        let snapshots = match channel {
            Channel::Stable => graph.stable_snapshots(),
            Channel::Canary => graph.snapshots(),
        };
        let Some(last) = snapshots.last().copied() else {
            return true;
        };
        if version.0 - last.0 >= self.config.snapshot_every_versions {
            return true;
        }
        let steps_max = self.config.chain_len_max;
        let way = graph.way(None, delta.base_version, steps_max);
        way.is_none_or(|steps| steps.len() >= steps_max)
    }

    pub(super) fn manifest(
        &self,
        version: Version,
        new: NewVersion,
        channel: Channel,
        delta: Option<DeltaRef>,
        snapshot: Option<BlobRef>,
        previous: Option<&Published>,
    ) -> Manifest {
        let ttl_millis = i64::try_from(self.config.manifest_ttl_secs)
            .unwrap_or(i64::MAX)
            .saturating_mul(1000);
        Manifest {
            format_version: manifest::FORMAT_VERSION,
            model: self.model.clone(),
            version,
            kind: new.kind,
            channel,
            state: new.state.hash(),
            spec_hash: new.state.spec.spec_hash(),
            encoder_generation: new.state.encoder_generation,
            learned_from: new.learned_from,
            learned_through: new.learned_through,
            event_time_millis: new.event_time_millis,
            created_at: new.created_at,
            expires_at: new.created_at.saturating_add(ttl_millis),
            previous: previous.map(|previous| BlobId::of(previous.signed.as_bytes())),
            delta,
            snapshot,
            key_set: None, // whoever signs fills it in
            learned_code_bytes: new.state.learned_code_bytes() as u64, // widening
            self_test: new.self_test,
        }
    }

    pub(super) fn announce(&self, published: &Arc<Published>, reach: Reach) {
        let manifest = &published.manifest;
        let mut graph = self.graph_mut();
        graph.insert(manifest.version, edges_of(manifest));
        graph.note_created(manifest.version, manifest.created_at);
        if manifest.channel == Channel::Canary {
            graph.note_canary(manifest.version);
        }
        drop(graph);
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.num_versions += 1;
        counters.delta_bytes += manifest.delta.as_ref().map_or(0, |delta| delta.blob.bytes);
        counters.snapshot_bytes += manifest.snapshot.as_ref().map_or(0, |blob| blob.bytes);
        drop(counters);
        self.channels.announce(published, reach);
    }

    /// Writes merged deltas over the strides that end in this version. Failing costs bytes only.
    pub(super) fn write_skips(&self, press: &mut Press, published: &Published) {
        let version = published.manifest.version;
        let _tidy = self.tidy();
        let mut skips = Vec::new();
        for (stride, anchor) in self.config.skip_strides.iter().zip(&mut press.anchors) {
            if !version.0.is_multiple_of(*stride) {
                continue;
            }
            let next = Some((version, Arc::clone(&published.state)));
            let Some((base_version, base)) = std::mem::replace(anchor, next) else {
                continue;
            };
            match self.merge_delta(&base, base_version, published) {
                Ok(blob) => skips.push(DeltaRef { base_version, blob }),
                Err(error) => {
                    tracing::warn!(%error, %base_version, "no merged delta to version {version}");
                }
            }
        }
        if skips.is_empty() {
            return;
        }
        match self.manifests.write_skips(version, &skips) {
            Ok(()) => {
                let mut graph = self.graph_mut();
                graph.insert(version, skips.into_iter().map(skip_edge));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot list merged deltas of version {version}");
                self.remove_unnamed(skips.iter().map(|skip| skip.blob.id));
            }
        }
    }

    fn merge_delta(
        &self,
        base: &CodeState,
        base_version: Version,
        published: &Published,
    ) -> Result<BlobRef, PublishError> {
        let version = published.manifest.version;
        let bytes = encode_delta(base, base_version, &published.state, version)
            .map_err(|source| PublishError::Encode { version, source })?;
        let needed_bytes = bytes.len() as u64; // widening
        if !self.has_room_for(needed_bytes) {
            return Err(self.disk_limit(needed_bytes));
        }
        Ok(self.blobs.put(&bytes)?)
    }

    /// Removes versions that neither a late page nor a restart needs, and the blobs only they had.
    ///
    /// Kept are the newest `keep_versions_min` versions, those younger than `keep_secs_min`, and all
    /// from the last snapshot but one on, so that one damaged snapshot is survived.
    /// Blobs that a plan has named lately leave only when their grace is over.
    pub(super) fn retire(&self, version: Version, now_millis: i64) {
        let mut leaving = self.tidy();
        let floor = now_millis.saturating_sub(self.grace_millis());
        self.handed.forget_before(floor);
        let mut graph = self.graph_mut();
        let retired = self.due_to_retire(&graph, version, now_millis);
        if retired.is_empty() && leaving.is_empty() {
            return; // as after most versions: nothing below looks at all blobs for nothing
        }
        let before: BTreeSet<_> = graph.blobs().collect();
        for version in &retired {
            graph.remove(*version);
        }
        let after: BTreeSet<_> = graph.blobs().collect();
        drop(graph);
        for version in retired {
            if let Err(error) = self.manifests.remove(version) {
                tracing::warn!(%error, "cannot remove the manifest of version {version}");
            }
        }
        self.composer.forget(|id| !after.contains(&id));
        leaving.extend(before.difference(&after));
        leaving.retain(|id| {
            let is_named = after.contains(id);
            let is_on_its_way = self.handed.last(*id).is_some();
            if !is_named && !is_on_its_way {
                self.remove_blob(*id);
            }
            !is_named && is_on_its_way
        });
    }

    fn due_to_retire(
        &self,
        graph: &VersionGraph,
        version: Version,
        now_millis: i64,
    ) -> Vec<Version> {
        let snapshots = graph.stable_snapshots();
        let Some(backup) = snapshots.iter().rev().nth(1).copied() else {
            return Vec::new();
        };
        let by_number = Version(version.0.saturating_sub(self.config.keep_versions_min));
        let keep_secs = i64::try_from(self.config.keep_secs_min).unwrap_or(i64::MAX);
        let since = now_millis.saturating_sub(keep_secs.saturating_mul(1000));
        let by_age = graph.first_after(since).unwrap_or(version);
        // The snapshot that a running canary began with is what its new pages start from.
        let by_canary = self.channels.canary_since().unwrap_or(version);
        graph.versions_below(backup.min(by_number).min(by_age).min(by_canary))
    }

    pub(super) fn remove_blob(&self, id: BlobId) {
        if let Err(error) = self.blobs.remove(id) {
            tracing::warn!(%error, "cannot remove a blob");
        }
    }

    pub(super) fn io(&self, action: &'static str, source: io::Error) -> PublishError {
        PublishError::Io {
            action,
            path: self.dir.clone(),
            source,
        }
    }
}

/// The delta from a state, given with its hash, to another, checked by applying it; `None` where none leads from there
/// (another spec, another encoder, another order of items).
pub(super) fn checked_delta(
    (base, base_hash): (&CodeState, BlobId),
    base_version: Version,
    target: &CodeState,
    version: Version,
) -> Result<Option<Vec<u8>>, PublishError> {
    let failed = |source| PublishError::Encode { version, source };
    let bytes = match encode_delta(base, base_version, target, version) {
        Ok(bytes) => bytes,
        Err(
            CodecError::SpecChanged { .. }
            | CodecError::EncoderGenerationChanged { .. }
            | CodecError::ItemsChanged { .. },
        ) => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let reproduced = apply_delta_to(base, base_hash, &bytes).map_err(failed)?;
    if reproduced != *target {
        let (expected, actual) = (target.hash(), reproduced.hash());
        return Err(PublishError::NotReproduced {
            version,
            expected,
            actual,
        });
    }
    Ok(Some(bytes))
}

pub(super) fn skip_edge(skip: DeltaRef) -> Edge {
    Edge {
        base: Some(skip.base_version),
        blob: skip.blob,
    }
}

pub(super) fn edges_of(manifest: &Manifest) -> Vec<Edge> {
    let delta = manifest.delta.clone().map(skip_edge);
    let snapshot = manifest
        .snapshot
        .clone()
        .map(|blob| Edge { base: None, blob });
    delta.into_iter().chain(snapshot).collect()
}
