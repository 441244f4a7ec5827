//! Publishing: from a code state to what pages can fetch, and back again after a restart.
//!
//! ```text
//! publish: delta, snapshot ──► blobs/ (synced) ──► manifests/ (synced: the commit point) ──► watch
//! open:    newest manifest whose blobs lead to its state, verified by hash
//! plan:    cheapest way from a page's version to the newest one, merged on demand where it pays
//! ```
//!
//! Invariants: a version is announced only after its manifest is synced, its manifest is written
//! only after its blobs are; a version number is never given twice; what cannot be restored is put
//! aside and the version before it is served. Not here: whether a state is good enough (`gate`).

mod blob_store;
pub mod ceremony;
mod channels;
mod compose;
mod error;
pub(crate) mod files;
mod graph;
pub mod keyring;
mod manifest_store;
mod press;
mod recover;
mod room;
pub(crate) mod signing_key;
mod states;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use base64::Engine;
use schemars::JsonSchema;
use serde::Serialize;
use shared_model::codec::state::CodeState;
use shared_model::ids::{BlobId, LogOffset, Version};
use shared_model::manifest::{
    self, Announcement, Channel, Manifest, SelfTest, UpdatePlan, VersionKind,
};
use tokio::sync::watch;

use crate::config::PublishConfig;
pub use blob_store::{BlobError, BlobStore};
use channels::{Channels, Reach, again};
use compose::{Composer, HandedOut};
pub use error::PublishError;
use graph::VersionGraph;
use keyring::Keyring;
use manifest_store::ManifestStore;
pub(crate) use manifest_store::keep_used;
pub use room::{StoreLimits, StoreUse};
use states::StateCache;

/// A state to be published, with what its manifest has to say.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Fast or release.
    pub kind: VersionKind,
    /// The codes.
    pub state: Arc<CodeState>,
    /// First log offset learned since the version before.
    pub learned_from: LogOffset,
    /// One past the last log offset learned.
    pub learned_through: LogOffset,
    /// Newest event time learned.
    pub event_time_millis: i64,
    /// Time of publication, by the caller's clock.
    pub created_at: i64,
    /// Probe and expected scores.
    pub self_test: SelfTest,
}

/// A version that is out.
#[derive(Debug)]
pub struct Published {
    /// Its manifest.
    pub manifest: Manifest,
    /// The manifest as signed text, byte for byte what pages get.
    pub signed: String,
    /// Its codes.
    pub state: Arc<CodeState>,
    /// The delta from the version before, where it is small enough to ride along.
    pub inline_delta: Option<Vec<u8>>,
    /// JSON of the [`Announcement`].
    pub announcement: String,
}

impl Published {
    fn new(
        manifest: Manifest,
        signed: String,
        state: Arc<CodeState>,
        inline_delta: Option<Vec<u8>>,
    ) -> Self {
        let base64 = base64::engine::general_purpose::STANDARD;
        let announcement = Announcement {
            version: manifest.version,
            kind: manifest.kind,
            learned_through: manifest.learned_through,
            manifest: signed.clone(),
            delta: inline_delta.as_ref().map(|delta| base64.encode(delta)),
        };
        let announcement =
            serde_json::to_string(&announcement).expect("plain values always serialize");
        Self {
            manifest,
            signed,
            state,
            inline_delta,
            announcement,
        }
    }
}

/// What was published since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PublishCounters {
    /// Versions published since start.
    pub num_versions: u64,
    /// Bytes of their deltas.
    pub delta_bytes: u64,
    /// Bytes of their snapshots.
    pub snapshot_bytes: u64,
    /// Merged deltas made on demand since start.
    pub num_composed: u64,
    /// Bytes of them.
    pub composed_bytes: u64,
}

/// Publishes versions and answers for them; clones share one publisher.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    model: String,
    dir: PathBuf,
    config: PublishConfig,
    keyring: RwLock<Arc<Keyring>>,
    blobs: BlobStore,
    manifests: ManifestStore,
    limits: StoreLimits,
    channels: Channels,
    graph: RwLock<VersionGraph>,
    counters: Mutex<PublishCounters>,
    composer: Composer,
    states: StateCache,
    handed: HandedOut,
    /// Held while blobs of the graph are added beside the newest version or removed, so that none is
    /// removed between being stored and being named; readers never wait for it.
    /// Inside: blobs that no version names any more, but a plan of late.
    tidy: Mutex<BTreeSet<BlobId>>,
    /// Held by whoever publishes; readers never wait for it.
    press: Mutex<Press>,
    /// The number that the next version will have; changed under `press` alone.
    next_version: AtomicU64,
    /// Held while nothing may be renewed: see [`Publisher::hold_renewals`].
    renewals: Mutex<()>,
}

impl Shared {
    fn graph(&self) -> RwLockReadGuard<'_, VersionGraph> {
        self.graph.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn graph_mut(&self) -> RwLockWriteGuard<'_, VersionGraph> {
        self.graph.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a blob stays after a plan has named it.
    fn grace_millis(&self) -> i64 {
        let secs = i64::try_from(self.config.handed_out_grace_secs).unwrap_or(i64::MAX);
        secs.saturating_mul(1000)
    }

    fn tidy(&self) -> MutexGuard<'_, BTreeSet<BlobId>> {
        self.tidy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What only the publishing thread needs.
struct Press {
    /// A version whose manifest could not be written but may lie on disk all the same: it is removed before another
    /// is written, since nobody was told of it and what it learned is learned again.
    unclear: Option<Version>,
    /// For each skip stride, the last version that is a multiple of it, and its state.
    anchors: Vec<Option<(Version, Arc<CodeState>)>>,
}

impl Publisher {
    /// Opens the data directory: makes the signing key, removes half-written files, and restores the
    /// newest version that is complete.
    ///
    /// # Errors
    /// The file system failed, or the directory belongs to a model of another name.
    pub fn open(
        data_dir: &Path,
        model: &str,
        config: &PublishConfig,
    ) -> Result<Self, PublishError> {
        Self::open_within(data_dir, model, config, StoreLimits::default())
    }

    /// [`Self::open`] with limits on what is taken of the disk.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_within(
        data_dir: &Path,
        model: &str,
        config: &PublishConfig,
        limits: StoreLimits,
    ) -> Result<Self, PublishError> {
        let at = |action| {
            move |source| PublishError::Io {
                action,
                path: data_dir.to_owned(),
                source,
            }
        };
        std::fs::create_dir_all(data_dir).map_err(at("cannot make the data directory"))?;
        let keyring = Keyring::open(data_dir)?;
        let blobs =
            BlobStore::open(&data_dir.join("blobs")).map_err(at("cannot open the blobs"))?;
        let manifests = ManifestStore::open(&data_dir.join("manifests"))
            .map_err(at("cannot open the manifests"))?;
        let recovered = recover::recover(
            &blobs,
            &manifests,
            &keyring.own_keys(),
            model,
            config.step_cost_bytes,
        )
        .map_err(|error| error.at(data_dir))?;
        let anchors = vec![None; config.skip_strides.len()];
        let shared = Shared {
            model: model.to_owned(),
            dir: data_dir.to_owned(),
            config: config.clone(),
            keyring: RwLock::new(Arc::new(keyring)),
            blobs,
            manifests,
            limits,
            channels: Channels::new(recovered.published.map(Arc::new), recovered.highest),
            graph: RwLock::new(recovered.graph),
            counters: Mutex::default(),
            composer: Composer::new(),
            states: StateCache::new(config.compose_states_bytes_max),
            handed: HandedOut::default(),
            tidy: Mutex::default(),
            press: Mutex::new(Press {
                unclear: None,
                anchors,
            }),
            next_version: AtomicU64::new(recovered.highest.next().0),
            renewals: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Publishes a state as the next version: blobs, then the manifest, then the announcement.
    ///
    /// # Errors
    /// The file system failed or has no room, the state cannot be encoded, or the offsets run backwards. Nothing is
    /// announced then, nothing of it stays on disk, and the version before stays the newest.
    pub fn publish(&self, new: NewVersion) -> Result<Arc<Published>, PublishError> {
        self.publish_to(Reach::Stable, new)
    }

    fn publish_to(&self, reach: Reach, new: NewVersion) -> Result<Arc<Published>, PublishError> {
        let shared = &self.shared;
        let mut press = shared.press.lock().unwrap_or_else(PoisonError::into_inner);
        shared.settle_unclear(&mut press)?;
        let mut written = Vec::new();
        let published = shared.press_version(&mut press, reach.channel(), new, &mut written);
        let published = published.inspect_err(|_| shared.clear_up(&mut press, &written))?;
        shared.announce(&published, reach);
        if reach != Reach::Canary {
            shared.write_skips(&mut press, &published);
        }
        let manifest = &published.manifest;
        shared.retire(manifest.version, manifest.created_at);
        Ok(published)
    }

    /// Whether there is room for a small version, after what may go has gone.
    ///
    /// # Errors
    /// There is none.
    pub fn check_room(&self, now_millis: i64) -> Result<(), PublishError> {
        self.shared.check_room(now_millis)
    }

    /// What published versions take of the disk.
    #[must_use]
    pub fn store_use(&self) -> StoreUse {
        self.shared.store_use()
    }

    /// Publishes the newest state again with a new expiry, once less than half of its time is left or there is another
    /// key set than it was signed under.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn renew(&self, created_at: i64) -> Result<Option<Arc<Published>>, PublishError> {
        let _held = self.hold_renewals();
        let Some(latest) = self.latest() else {
            return Ok(None);
        };
        let manifest = &latest.manifest;
        let is_of_keys = manifest.key_set == self.keyring().number();
        if is_of_keys
            && created_at < manifest.created_at + (manifest.expires_at - manifest.created_at) / 2
        {
            return Ok(None);
        }
        self.publish(again(&latest, created_at)).map(Some)
    }

    /// The newest version for everyone.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<Published>> {
        self.newest(Channel::Stable)
    }

    /// Follows [`Self::latest`]; a slow reader sees only the newest.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Published>>> {
        self.subscribe_to(Channel::Stable)
    }

    /// The number that the next version will have, of either channel.
    #[must_use]
    pub fn next_version(&self) -> Version {
        Version(self.shared.next_version.load(Ordering::Acquire))
    }

    /// While this is held nothing is renewed, so that the only other publisher, the trainer, gets the number that
    /// [`Self::next_version`] has told it.
    #[must_use]
    pub fn hold_renewals(&self) -> MutexGuard<'_, ()> {
        let renewals = self.shared.renewals.lock();
        renewals.unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Self::plan`], for a page: where a delta merged on demand may save enough it is waited
    /// for, at most `publish.compose_wait_millis`, and the blobs that the plan names stay for
    /// `publish.handed_out_grace_secs`.
    pub async fn plan_for_page(
        &self,
        base: Option<Version>,
        now_millis: i64,
    ) -> Option<UpdatePlan> {
        self.plan_for(Channel::Stable, base, now_millis).await
    }

    /// As [`Self::plan_for_page`], for a page of the channel.
    pub async fn plan_for(
        &self,
        channel: Channel,
        base: Option<Version>,
        now_millis: i64,
    ) -> Option<UpdatePlan> {
        let shared = &self.shared;
        if let Some(base) = shared.order_for(base, channel, now_millis) {
            let wait = Duration::from_millis(shared.config.compose_wait_millis);
            let mut done = shared.composer.subscribe();
            let made = done.wait_for(|()| !shared.composer.is_pending(base, channel));
            // Late or not: the answer is the cheapest way of then.
            drop(tokio::time::timeout(wait, made).await);
        }
        let latest = self.newest(channel)?;
        let graph = shared.graph();
        let plan = self.plan_to(&latest, &graph, base)?;
        // Marked before the graph is let go, so that no blob is removed in between.
        let blobs = plan.steps.iter().map(|step| &step.blob);
        shared.handed.mark(blobs, now_millis);
        Some(plan)
    }

    /// The cheapest way of now from a page's version (`None`: it has nothing) to the newest one;
    /// `None` where nothing is published.
    #[must_use]
    pub fn plan(&self, base: Option<Version>) -> Option<UpdatePlan> {
        let latest = self.latest()?;
        self.plan_to(&latest, &self.shared.graph(), base)
    }

    fn plan_to(
        &self,
        latest: &Published,
        graph: &VersionGraph,
        base: Option<Version>,
    ) -> Option<UpdatePlan> {
        let target = latest.manifest.version;
        let steps = graph.way(base, target, self.shared.config.chain_len_max)?;
        let total_bytes = steps.iter().map(|step| step.blob.bytes).sum();
        let manifest = latest.signed.clone();
        Some(UpdatePlan {
            target_version: target,
            manifest,
            steps,
            total_bytes,
        })
    }

    /// Manifests of all versions that are kept, ascending.
    ///
    /// # Errors
    /// The file system failed, or a stored manifest is not signed by our key.
    pub fn manifests(&self) -> Result<Vec<Manifest>, PublishError> {
        let store = &self.shared.manifests;
        let unreadable = |source| PublishError::Io {
            action: "cannot read the manifests",
            path: self.shared.dir.clone(),
            source,
        };
        let trusted = self.keyring().own_keys();
        let (versions, _) = store.list().map_err(unreadable)?;
        let read = |version| {
            let signed = store.read(version)?;
            manifest::verify(signed.as_bytes(), &trusted).map_err(io::Error::other)
        };
        versions
            .into_iter()
            .map(|version| read(version).map_err(unreadable))
            .collect()
    }

    /// The manifest and the codes of a version that is kept; `None` where it is not, or no longer leads to its codes.
    ///
    /// # Errors
    /// As [`Self::manifests`].
    pub fn kept(&self, version: Version) -> Result<Option<(Manifest, CodeState)>, PublishError> {
        let unreadable = |source| PublishError::Io {
            action: "cannot read a manifest",
            path: self.shared.dir.clone(),
            source,
        };
        let signed = match self.shared.manifests.read(version) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            signed => signed.map_err(unreadable)?,
        };
        let trusted = self.keyring().own_keys();
        let manifest = manifest::verify(signed.as_bytes(), &trusted);
        let manifest = manifest.map_err(|error| unreadable(io::Error::other(error)))?;
        let graph = self.shared.graph.read();
        let mut graph = graph.unwrap_or_else(PoisonError::into_inner).clone();
        let state = recover::restore(&self.shared.blobs, &mut graph, &manifest);
        Ok(state.map(|state| (manifest, state)))
    }

    /// The blobs.
    #[must_use]
    pub fn blobs(&self) -> &BlobStore {
        &self.shared.blobs
    }

    /// The keys at hand.
    #[must_use]
    pub fn keyring(&self) -> Arc<Keyring> {
        self.shared.keyring()
    }

    /// Reads the keys again; answers the number of the key set if it is another than before. The caller renews then.
    ///
    /// # Errors
    /// A file cannot be read or is damaged; the keys at hand stay.
    pub fn reload_keys(&self) -> Result<Option<u64>, PublishError> {
        let shared = &self.shared;
        let read = Keyring::read(&shared.dir)?;
        let number = read
            .number()
            .filter(|_| read.number() != shared.keyring().number());
        if number.is_some() {
            let mut keyring = shared
                .keyring
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *keyring = Arc::new(read);
        }
        Ok(number)
    }

    /// Name of the model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.shared.model
    }

    /// Counts since start.
    #[must_use]
    pub fn counters(&self) -> PublishCounters {
        *self
            .shared
            .counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_offsets(
    version: Version,
    new: &NewVersion,
    previous: Option<&Published>,
) -> Result<(), PublishError> {
    let published_through =
        previous.map_or(LogOffset(0), |previous| previous.manifest.learned_through);
    let (learned_from, learned_through) = (new.learned_from, new.learned_through);
    if learned_from < published_through || learned_through < learned_from {
        return Err(PublishError::LearnedBackwards {
            version,
            learned_from,
            learned_through,
            published_through,
        });
    }
    Ok(())
}
