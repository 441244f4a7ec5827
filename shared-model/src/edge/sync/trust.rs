//! Whom a page believes, what time it is there, and what of this survives a reload.
//!
//! Time is told by the page and never decides alone. Three clocks are compared: that of the page, the `Date` of the
//! server's last answer, and the newest `created_at` that a trusted key has signed.
//!
//! * A signed time is a lower bound of the true time, so a page clock that lies before it is late, whatever the
//!   network says; expiry is judged by the signed time then, and ranking goes on.
//! * Past expiry, an update is refused. Where the `Date` says that the page's clock is wrong and nothing has expired,
//!   the refusal is called `clock_skew`; else it is called `expired`, because someone may be holding newer versions
//!   back. `Date` is not signed, so it chooses the name of the refusal and never turns it into trust.
//!
//! The live version keeps ranking in all these cases.

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::{EdgeError, EdgeSync, Fetch};
use crate::ids::{BlobId, Version};
use crate::manifest::{
    self, KEY_SET_BYTES_MAX, Manifest, ManifestError, ModerationNote, RootTrust, Stamp,
    TextEncoderNote,
};

/// Difference between two clocks that is taken for right.
pub const CLOCK_SKEW_MILLIS_MAX: i64 = 5 * 60 * 1000;

/// Times that a newer key set is asked for because of manifests that the known one does not cover, until one is.
pub const KEY_SET_TRIES_MAX: u32 = 3;

/// Largest state that survives a reload, in bytes: a signed key set as a JSON text, and some numbers.
pub const EDGE_STATE_BYTES_MAX: usize = 2 * KEY_SET_BYTES_MAX + 1024;

/// Version of the layout of [`EdgeState`].
const EDGE_STATE_FORMAT_VERSION: u32 = 1;

/// Whom manifests are believed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// From these keys.
    Keys(Vec<VerifyingKey>),
    /// From the first key given to [`EdgeSync::trust_key`].
    OnFirstUse,
    /// From the keys of the newest key set that this root, or one named by it, has signed.
    Root(VerifyingKey),
}

/// What the page knows about the time, milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeClock {
    /// By the page's own clock.
    pub page_millis: i64,
    /// By the `Date` of the server's last answer, moved on by the time since.
    pub server_millis: Option<i64>,
}

/// What has been seen, kept beside snapshot and manifest: nothing older is believed after a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeState {
    format_version: u32,
    /// Id of the pinned root.
    root: String,
    /// The newest key set, signed.
    key_set: Option<String>,
    /// The newest version seen in a trusted manifest, and its state.
    newest: Option<(Version, BlobId)>,
    /// Newest time signed by a trusted key.
    signed_at: i64,
}

/// The part of the machine that belongs to a pinned root.
#[derive(Debug)]
pub(super) struct Rooted {
    pub(super) trust: RootTrust,
    pub(super) is_wanted: bool,
    pub(super) is_asked: bool,
    num_tries: u32,
}

impl Rooted {
    pub(super) fn new(root: VerifyingKey) -> Self {
        Self {
            trust: RootTrust::new(root),
            is_wanted: true,
            is_asked: false,
            num_tries: 0,
        }
    }

    fn want_newer(&mut self) {
        if self.num_tries < KEY_SET_TRIES_MAX {
            self.num_tries += 1;
            self.is_wanted = true;
        }
    }
}

impl EdgeSync {
    /// Tells the time. Before it is told, nothing expires.
    pub fn tell_time(&mut self, clock: EdgeClock) {
        self.clock = Some(clock);
    }

    /// The answer to [`super::EdgeRequest::KeySet`] arrived.
    ///
    /// # Errors
    /// Its newest set is not believed; the set at hand stays, and where there is none, it is asked for again.
    pub fn on_key_set(&mut self, json: &[u8]) -> Result<(), EdgeError> {
        let outcome = self.take_key_set(json);
        if let Some(rooted) = &mut self.rooted {
            let is_asked = std::mem::take(&mut rooted.is_asked);
            rooted.is_wanted |= is_asked && outcome.is_err() && rooted.trust.key_set().is_none();
        }
        outcome
    }

    fn take_key_set(&mut self, json: &[u8]) -> Result<(), EdgeError> {
        let clock = self.clock;
        let Some(rooted) = self.rooted.as_mut().filter(|rooted| rooted.is_asked) else {
            return Err(EdgeError::Unexpected { what: "a key set" });
        };
        let sets = manifest::parse_key_sets(json)?;
        if sets.is_empty() {
            return Err(EdgeError::NoKeySet);
        }
        let mut trust = rooted.trust.clone();
        let is_newer = trust.adopt(&sets)?;
        let set = trust.key_set().ok_or(EdgeError::NoKeySet)?;
        let signed_at = self.signed_at.max(set.created_at);
        if let Some(clock) = clock {
            let expired = |error| explained(clock, set.expires_at, EdgeError::KeySet(error));
            let now_millis = clock.page_millis.max(signed_at);
            set.check_expiry(now_millis).map_err(expired)?;
        }
        let keys = set.online_keys()?;
        rooted.trust = trust;
        self.keys = keys;
        self.signed_at = signed_at;
        if is_newer {
            rooted.num_tries = 0;
            if self.candidate.is_none() && matches!(self.fetch, Fetch::Idle) {
                // What was refused for want of this set may be believed now.
                self.fetch = Fetch::PlanWanted;
            }
        }
        Ok(())
    }

    /// Asks for the newest key set, for example when the stream of announcements was opened again.
    pub fn refresh_key_set(&mut self) {
        if let Some(rooted) = &mut self.rooted {
            rooted.is_wanted = true;
            rooted.num_tries = 0;
        }
    }

    pub(super) fn key_set_failed(&mut self) {
        if let Some(rooted) = &mut self.rooted {
            rooted.is_wanted |= std::mem::take(&mut rooted.is_asked);
        }
    }

    /// Whether what ranks may still be trusted. It ranks on in any case: this is what to tell.
    ///
    /// # Errors
    /// It or the key set has expired, or the page's clock is wrong.
    pub fn check_freshness(&self) -> Result<(), EdgeError> {
        let (Some(clock), Some(live)) = (self.clock, &self.live) else {
            return Ok(());
        };
        if clock.page_millis < self.signed_at - CLOCK_SKEW_MILLIS_MAX {
            return Err(EdgeError::ClockSkew {
                page_millis: clock.page_millis,
                true_millis: clock.server_millis.unwrap_or(self.signed_at),
            });
        }
        self.check_time(&live.manifest)
    }

    /// What is to be kept beside snapshot and manifest; without a pinned root there is nothing.
    #[must_use]
    pub fn edge_state(&self) -> Option<Vec<u8>> {
        let rooted = self.rooted.as_ref()?;
        let state = EdgeState {
            format_version: EDGE_STATE_FORMAT_VERSION,
            root: manifest::key_id(rooted.trust.pinned()),
            key_set: rooted.trust.signed_key_set().map(str::to_owned),
            newest: self.newest.max(self.seen),
            signed_at: self.signed_at,
        };
        Some(serde_json::to_vec(&state).expect("texts and numbers always serialize"))
    }

    /// Takes over what [`Self::edge_state`] gave before a reload; before [`Self::restore`].
    ///
    /// # Errors
    /// It is malformed, of another root, or its key set does not hold. Nothing is taken over then.
    pub fn resume(&mut self, state: &[u8]) -> Result<(), EdgeError> {
        let Some(rooted) = &mut self.rooted else {
            return Err(EdgeError::Unexpected {
                what: "a state of a pinned root",
            });
        };
        let state: EdgeState = manifest::parse_bounded("edge state", state, EDGE_STATE_BYTES_MAX)?;
        if state.format_version != EDGE_STATE_FORMAT_VERSION {
            return Err(EdgeError::Inconsistent {
                what: "the edge state has another format",
            });
        }
        if state.root != manifest::key_id(rooted.trust.pinned()) {
            return Err(EdgeError::Inconsistent {
                what: "the edge state is of another root",
            });
        }
        if let Some(signed) = &state.key_set {
            let mut trust = rooted.trust.clone();
            trust.resume(signed)?;
            let set = trust.key_set().ok_or(EdgeError::NoKeySet)?;
            self.keys = set.online_keys()?;
            rooted.trust = trust;
        }
        self.seen = state.newest;
        self.signed_at = self.signed_at.max(state.signed_at);
        Ok(())
    }

    /// The manifest, if a trusted key has signed it in its time and under a key set that is known.
    pub(super) fn signed_by_trusted(&mut self, signed: &[u8]) -> Result<Manifest, EdgeError> {
        let verified = manifest::verify_signer(signed, &self.keys);
        let verified = verified.map(|(manifest, signer)| (manifest, *signer));
        self.covered(verified, Manifest::stamp)
    }

    /// The note on the text encoder of a generation, if a trusted key has signed it in its time and under a key set
    /// that is known, and not before `since`: a key that had expired then cannot have signed it.
    pub(super) fn signed_note(
        &mut self,
        signed: &[u8],
        generation: u32,
        since: i64,
    ) -> Result<TextEncoderNote, EdgeError> {
        let verified = TextEncoderNote::verify(signed, &self.keys, &self.model, generation);
        let note = self.covered(verified, TextEncoderNote::stamp)?;
        if note.created_at < since.saturating_sub(CLOCK_SKEW_MILLIS_MAX) {
            return Err(EdgeError::Inconsistent {
                what: "the note on the text encoder is older than the version that ranks",
            });
        }
        Ok(note)
    }

    /// The rules of the operators, if a trusted key has signed them in its time and under a key set that is known.
    pub(crate) fn signed_rules(&mut self, signed: &[u8]) -> Result<ModerationNote, EdgeError> {
        let verified = ModerationNote::verify(signed, &self.keys, &self.model);
        self.covered(verified, ModerationNote::stamp)
    }

    /// What one of the keys has signed, if it did so in its time and under a key set that is known. Where a newer set
    /// may help, it is asked for.
    fn covered<T>(
        &mut self,
        verified: Result<(T, VerifyingKey), ManifestError>,
        stamp: fn(&T) -> Stamp,
    ) -> Result<T, EdgeError> {
        let Some(rooted) = &mut self.rooted else {
            return Ok(verified?.0);
        };
        if let Err(ManifestError::UnknownKey { .. }) = &verified {
            rooted.want_newer();
        }
        let (signed, signer) = verified?;
        let stamp = stamp(&signed);
        if !rooted.trust.covers(stamp, &signer)? {
            rooted.want_newer();
            return Err(EdgeError::StaleKeySet {
                known: rooted.trust.key_set().map_or(0, |set| set.number),
                needed: stamp.key_set.unwrap_or(0),
            });
        }
        Ok(signed)
    }

    /// Refuses what is older than anything seen or has expired, and remembers the time that was signed.
    /// A version from the cache may be older than what was seen: the next plan starts from it.
    pub(super) fn check_arrival(&mut self, manifest: &Manifest) -> Result<(), EdgeError> {
        if let Some((seen, _)) = self.seen
            && manifest.version < seen
        {
            return Err(EdgeError::OlderThanSeen {
                seen,
                actual: manifest.version,
            });
        }
        self.signed_at = self.signed_at.max(manifest.created_at);
        self.check_time(manifest)
    }

    fn check_time(&self, manifest: &Manifest) -> Result<(), EdgeError> {
        let Some(clock) = self.clock else {
            return Ok(());
        };
        let now_millis = clock.page_millis.max(self.signed_at);
        if let Err(error) = manifest.check_expiry(now_millis) {
            return Err(explained(clock, manifest.expires_at, error.into()));
        }
        let set = self
            .rooted
            .as_ref()
            .and_then(|rooted| rooted.trust.key_set());
        if let Some(set) = set
            && let Err(error) = set.check_expiry(now_millis)
        {
            return Err(explained(clock, set.expires_at, error.into()));
        }
        Ok(())
    }
}

/// Tells a wrong clock from something that has really expired; see the module documentation.
fn explained(clock: EdgeClock, expires_at: i64, expired: EdgeError) -> EdgeError {
    let page_millis = clock.page_millis;
    match clock.server_millis {
        Some(true_millis)
            if true_millis <= expires_at
                && page_millis.saturating_sub(true_millis) > CLOCK_SKEW_MILLIS_MAX =>
        {
            EdgeError::ClockSkew {
                page_millis,
                true_millis,
            }
        }
        _ => expired,
    }
}
