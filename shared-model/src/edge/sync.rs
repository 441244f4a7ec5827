//! Sync machine: follows the versions of one model, sans IO.
//!
//! It is told what arrived and says what it wants; it never fetches, sleeps or reads a clock.
//!
//! ```text
//!                  ┌────────── announcement of a newer version ◄─────────┐
//!                  ▼                                                      │
//!  new ──► plan wanted ──► plan asked ──► step 1 … step n ──► candidate ──► idle
//!                  ▲            │               │                 ▲
//!                  └─ failure ──┴───────────────┘                 │
//!            announcement whose inline delta starts from the live state
//! ```
//! What arrives is believed only as far as a manifest signed by a trusted key says: a plan and its blobs may be
//! anything, the state they lead to must have the hash of the manifest.
//! Any failure leaves the live version alone. After an error or [`EdgeSync::on_failure`], the caller waits a while
//! before it asks for the next request. Expiry needs a clock: [`EdgeSync::tell_time`].

mod belief;
mod error;
mod steps;
mod trust;

pub use error::EdgeError;
pub use trust::{
    CLOCK_SKEW_MILLIS_MAX, EDGE_STATE_BYTES_MAX, EdgeClock, EdgeState, KEY_SET_TRIES_MAX, Trust,
};

use ed25519_dalek::VerifyingKey;

use crate::codec::snapshot::decode_snapshot;
use crate::codec::state::CodeState;
use crate::ids::{BlobId, Version};
use crate::manifest::{self, BlobRef, Manifest, PlanStepKind, TextEncoderKind, UpdatePlan};
use steps::{Steps, verified};
use trust::Rooted;

/// Tries to reach a version whose content is bad, before the next version is waited for.
/// The first plan starts from the live version, later ones from nothing.
pub const CONTENT_TRIES_MAX: u32 = 3;

/// Failed fetches of one blob before a new plan is asked for.
pub const BLOB_TRIES_MAX: u32 = 3;

/// Something to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeRequest {
    /// The signed key sets, where a root is pinned.
    KeySet,
    /// The update plan from a version, or from nothing.
    Plan {
        /// The version at hand.
        base: Option<Version>,
    },
    /// A blob.
    Blob {
        /// Its id and length.
        blob: BlobRef,
    },
}

/// A state whose hash is the one that a trusted manifest names.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedVersion {
    /// The codes.
    pub state: CodeState,
    /// What was signed.
    pub manifest: Manifest,
    /// The signed manifest itself, to be kept in a cache beside a snapshot.
    pub signed_manifest: Vec<u8>,
}

/// A verified version that has not passed its self-test yet.
pub type Candidate = VerifiedVersion;

/// The version that is ranked with.
pub type Live = VerifiedVersion;

/// The machine; see the module documentation.
#[derive(Debug)]
pub struct EdgeSync {
    model: String,
    keys: Vec<VerifyingKey>,
    pins_first_key: bool,
    /// Where a root is pinned; `keys` are those of its newest set.
    rooted: Option<Rooted>,
    clock: Option<EdgeClock>,
    /// Newest time that a trusted key has signed.
    signed_at: i64,
    /// Newest version seen before a reload: nothing older goes live, although it is not known any more how to get there.
    seen: Option<(Version, BlobId)>,
    live: Option<Live>,
    candidate: Option<Candidate>,
    fetch: Fetch,
    /// Newest version heard of, with its state.
    newest: Option<(Version, BlobId)>,
    /// This version and all before are not tried again.
    refused_through: Option<Version>,
    /// Bad content in a row, on the way to the newest version.
    num_content_failures: u32,
}

/// What is under way. Idle while there is a candidate.
#[derive(Debug)]
enum Fetch {
    Idle,
    PlanWanted,
    PlanAsked,
    Steps(Box<Steps>),
}

impl EdgeSync {
    /// Follows `model`, with nothing at hand yet.
    #[must_use]
    pub fn new(model: &str, trusted: Trust) -> Self {
        let (keys, pins_first_key, rooted) = match trusted {
            Trust::Keys(keys) => (keys, false, None),
            Trust::OnFirstUse => (Vec::new(), true, None),
            Trust::Root(root) => (Vec::new(), false, Some(Rooted::new(root))),
        };
        Self {
            model: model.to_owned(),
            keys,
            pins_first_key,
            rooted,
            clock: None,
            signed_at: 0,
            seen: None,
            live: None,
            candidate: None,
            fetch: Fetch::PlanWanted,
            newest: None,
            refused_through: None,
            num_content_failures: 0,
        }
    }

    /// Offers a public key; with [`Trust::OnFirstUse`] the first one is pinned.
    ///
    /// # Errors
    /// It is not among the trusted ones.
    pub fn trust_key(&mut self, key: VerifyingKey) -> Result<(), EdgeError> {
        if self.pins_first_key && self.keys.is_empty() {
            self.keys.push(key);
        }
        if !self.keys.contains(&key) {
            return Err(EdgeError::UntrustedKey {
                key_id: manifest::key_id(&key),
            });
        }
        Ok(())
    }

    /// Keys that manifests are believed from; none before the first use.
    #[must_use]
    pub fn trusted_keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// What the server says of the text encoder of the live version; nothing where none is live.
    ///
    /// # Errors
    /// The note is not believed, as a manifest is not, or is about another model or generation. Where a newer key set
    /// may help, [`Self::next_request`] asks for it.
    pub fn text_encoder(&mut self, note: &[u8]) -> Result<Option<TextEncoderKind>, EdgeError> {
        let Some(live) = &self.live else {
            return Ok(None);
        };
        let (generation, since) = (live.manifest.encoder_generation, live.manifest.created_at);
        let note = self.signed_note(note, generation, since)?;
        Ok(Some(note.text_encoder))
    }

    /// Goes live with what a cache has kept, unless it is not newer than what is live.
    ///
    /// # Errors
    /// Not signed by a trusted key, not the state of the manifest, or not newer.
    pub fn restore(&mut self, signed_manifest: &[u8], snapshot: &[u8]) -> Result<(), EdgeError> {
        let manifest = self.verified_manifest(signed_manifest)?;
        if let Some(live) = &self.live
            && manifest.version == live.manifest.version
        {
            return Ok(());
        }
        let (version, state) = decode_snapshot(snapshot)?;
        if version != manifest.version {
            return Err(EdgeError::Inconsistent {
                what: "snapshot and manifest are of different versions",
            });
        }
        let hash = state.hash();
        self.hear_of(&manifest);
        self.live = Some(verified(manifest, signed_manifest.to_vec(), hash, state)?);
        Ok(())
    }

    /// What to fetch now; each request is handed out once.
    pub fn next_request(&mut self) -> Option<EdgeRequest> {
        if let Some(rooted) = &mut self.rooted
            && rooted.is_wanted
        {
            rooted.is_wanted = false;
            rooted.is_asked = true;
            return Some(EdgeRequest::KeySet);
        }
        if self.keys.is_empty() {
            return None;
        }
        match &mut self.fetch {
            Fetch::PlanWanted => {
                self.fetch = Fetch::PlanAsked;
                let from_nothing = self.num_content_failures > 1;
                let live = self.live.as_ref().filter(|_| !from_nothing);
                Some(EdgeRequest::Plan {
                    base: live.map(|live| live.manifest.version),
                })
            }
            Fetch::Steps(steps) if !steps.is_asked => {
                steps.is_asked = true;
                Some(EdgeRequest::Blob {
                    blob: steps.current().blob,
                })
            }
            Fetch::Steps(_) | Fetch::PlanAsked | Fetch::Idle => None,
        }
    }

    /// An SSE event `version` arrived.
    ///
    /// # Errors
    /// It is not believed, or its inline delta is bad; a plan is asked for then.
    pub fn on_announcement(&mut self, json: &[u8]) -> Result<(), EdgeError> {
        let announcement = manifest::parse_announcement(json)?;
        let signed_manifest = announcement.manifest.into_bytes();
        let manifest = self.verified_manifest(&signed_manifest)?;
        if announcement.version != manifest.version {
            return Err(EdgeError::Inconsistent {
                what: "announcement and manifest are of different versions",
            });
        }
        self.check_arrival(&manifest)?;
        if self.renews_live(&manifest, &signed_manifest) {
            return Ok(());
        }
        self.hear_of(&manifest);
        let is_busy =
            self.candidate.is_some() || matches!(self.fetch, Fetch::PlanAsked | Fetch::Steps(_));
        if is_busy || !self.is_behind() {
            return Ok(());
        }
        self.fetch = Fetch::PlanWanted;
        let Some(delta) = announcement.delta else {
            return Ok(());
        };
        match self.applied_inline(manifest, signed_manifest, &delta) {
            Ok(Some(candidate)) => self.propose(candidate),
            Ok(None) => {} // starts from another state, so the plan that is wanted now will tell
            Err(error) => return Err(self.with_bad_content(error)),
        }
        Ok(())
    }

    /// The plan that was asked for arrived.
    ///
    /// # Errors
    /// It is not believed or cannot be carried out; it is asked for again.
    pub fn on_plan(&mut self, json: &[u8]) -> Result<(), EdgeError> {
        if !matches!(self.fetch, Fetch::PlanAsked) {
            return Err(EdgeError::Unexpected { what: "a plan" });
        }
        self.fetch = Fetch::PlanWanted;
        let UpdatePlan {
            target_version,
            manifest,
            steps,
            total_bytes: _,
        } = manifest::parse_plan(json)?;
        let signed_manifest = manifest.into_bytes();
        let manifest = self.verified_manifest(&signed_manifest)?;
        if target_version != manifest.version {
            return Err(EdgeError::Inconsistent {
                what: "plan and manifest are of different versions",
            });
        }
        self.check_arrival(&manifest)?;
        let is_refused = self
            .refused_through
            .is_some_and(|refused| manifest.version <= refused);
        if is_refused || self.renews_live(&manifest, &signed_manifest) {
            // The server has nothing better; the next announcement will.
            self.newest = Some((manifest.version, manifest.state));
            self.fetch = Fetch::Idle;
            return Ok(());
        }
        self.hear_of(&manifest);
        let Some(first) = steps.first() else {
            return Err(EdgeError::Inconsistent {
                what: "a plan to a newer version has no steps",
            });
        };
        if first.kind == PlanStepKind::Delta && self.live.is_none() {
            return Err(EdgeError::Inconsistent {
                what: "a plan from nothing starts with a delta",
            });
        }
        self.fetch = Fetch::Steps(Box::new(Steps {
            manifest,
            signed_manifest,
            steps,
            step_idx: 0,
            is_asked: false,
            num_fetch_failures: 0,
            reached: None,
        }));
        Ok(())
    }

    /// The blob that was asked for arrived.
    ///
    /// # Errors
    /// It is not the one, or leads nowhere; a new plan is asked for, up to [`CONTENT_TRIES_MAX`] times.
    pub fn on_blob(&mut self, id: BlobId, bytes: &[u8]) -> Result<(), EdgeError> {
        let unexpected = EdgeError::Unexpected { what: "a blob" };
        let fetch = std::mem::replace(&mut self.fetch, Fetch::Idle);
        let Fetch::Steps(mut steps) = fetch else {
            self.fetch = fetch;
            return Err(unexpected);
        };
        if !steps.is_asked || steps.current().blob.id != id {
            self.fetch = Fetch::Steps(steps);
            return Err(unexpected);
        }
        let reached = match steps.applied(self.live.as_ref(), bytes) {
            Ok(reached) => reached,
            Err(error) => return Err(self.with_bad_content(error)),
        };
        steps.step_idx += 1;
        if steps.step_idx < steps.steps.len() {
            steps.is_asked = false;
            steps.num_fetch_failures = 0;
            steps.reached = Some(reached);
            self.fetch = Fetch::Steps(steps);
            return Ok(());
        }
        let (hash, state) = reached;
        match verified(steps.manifest, steps.signed_manifest, hash, state) {
            Ok(candidate) => self.propose(candidate),
            Err(error) => return Err(self.with_bad_content(error)),
        }
        Ok(())
    }

    /// A fetch failed; the request is handed out again, or a new plan is asked for.
    pub fn on_failure(&mut self, request: &EdgeRequest) {
        match (request, &mut self.fetch) {
            (EdgeRequest::Plan { .. }, Fetch::PlanAsked) => self.fetch = Fetch::PlanWanted,
            (EdgeRequest::Blob { blob }, Fetch::Steps(steps)) if steps.current().blob == *blob => {
                steps.is_asked = false;
                steps.num_fetch_failures += 1;
                if steps.num_fetch_failures >= BLOB_TRIES_MAX {
                    self.fetch = Fetch::PlanWanted;
                }
            }
            (EdgeRequest::KeySet, _) => self.key_set_failed(),
            (EdgeRequest::Plan { .. } | EdgeRequest::Blob { .. }, _) => {} // of a plan given up since
        }
    }

    /// A verified version that waits for its self-test.
    #[must_use]
    pub fn candidate(&self) -> Option<&Candidate> {
        self.candidate.as_ref()
    }

    /// The version that is ranked with.
    #[must_use]
    pub fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// The version that is being reached or waits for its self-test: whose failure the next failure is.
    #[must_use]
    pub fn version_under_way(&self) -> Option<Version> {
        let candidate = self.candidate.as_ref().map(|one| one.manifest.version);
        candidate.or_else(|| match &self.fetch {
            Fetch::Steps(steps) => Some(steps.manifest.version),
            Fetch::Idle | Fetch::PlanWanted | Fetch::PlanAsked => self.newest_version(),
        })
    }

    /// Newest version heard of; how far [`Self::live`] is behind it is the staleness.
    #[must_use]
    pub fn newest_version(&self) -> Option<Version> {
        self.newest.map(|(version, _)| version)
    }

    /// The candidate passed its self-test: it goes live.
    pub fn accept(&mut self) {
        if let Some(candidate) = self.candidate.take() {
            self.live = Some(candidate);
            self.num_content_failures = 0;
            self.catch_up();
        }
    }

    /// The candidate failed its self-test: it is not tried again, a newer one is.
    pub fn refuse(&mut self) {
        if let Some(candidate) = self.candidate.take() {
            self.refuse_version(candidate.manifest.version);
            self.catch_up();
        }
    }

    /// Whether a version was heard of that is newer than the live and the refused ones.
    fn is_behind(&self) -> bool {
        let live = self.live.as_ref().map(|live| live.manifest.version);
        self.newest_version() > live.max(self.refused_through)
    }

    fn catch_up(&mut self) {
        self.fetch = if self.is_behind() {
            Fetch::PlanWanted
        } else {
            Fetch::Idle
        };
    }

    fn propose(&mut self, candidate: Candidate) {
        self.candidate = Some(candidate);
        self.fetch = Fetch::Idle;
    }

    fn refuse_version(&mut self, version: Version) {
        self.refused_through = self.refused_through.max(Some(version));
    }

    /// Counts bad content on the way to the newest version and decides whether it is tried again.
    fn with_bad_content(&mut self, error: EdgeError) -> EdgeError {
        self.num_content_failures += 1;
        if self.num_content_failures >= CONTENT_TRIES_MAX
            && let Some((newest, _)) = self.newest
        {
            self.refuse_version(newest);
        }
        self.catch_up();
        error
    }
}
