//! Channels: the newest version of every page, and that of the cohort that tries a release first.
//!
//! ```text
//! stable  ──► everyone                  ──► everyone            ──► everyone
//! canary         └── cohort ──► cohort ──┘ (a stable version with a higher number)
//! ```
//! Both channels take their numbers from one counter, so a page that changes channel never goes back in number:
//! the cohort leaves the canary when a stable version comes out after it. While no canary runs, the cohort hears what
//! everyone hears. A canary ends with the announcement that ends it and not before: where that version cannot be
//! written, the cohort keeps what it has. Not here: who is of the cohort (`http`), and how long a canary runs (`canary`).

use std::sync::{Arc, Mutex, PoisonError};

use shared_model::ids::Version;
use shared_model::manifest::{Channel, VersionKind};
use tokio::sync::watch;

use super::{NewVersion, PublishError, Published, Publisher};

/// Whom a version reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everyone but the cohort of a canary that runs.
    Stable,
    /// The cohort; the first begins a canary.
    Canary,
    /// Everyone: a canary that runs ends with it.
    All,
}

impl Reach {
    pub(super) fn channel(self) -> Channel {
        match self {
            Self::Stable | Self::All => Channel::Stable,
            Self::Canary => Channel::Canary,
        }
    }
}

/// A watched newest version.
type Newest = watch::Sender<Option<Arc<Published>>>;

pub(super) struct Channels {
    stable: Newest,
    /// What pages of the cohort are to have.
    cohort: Newest,
    /// First version of the canary that runs.
    canary_since: Mutex<Option<Version>>,
}

impl Channels {
    /// After a start. Where a number above the newest stable version was used, up to `highest`, pages may have a
    /// canary that nobody watches any more: it counts as one that runs until it is taken back.
    pub(super) fn new(newest: Option<Arc<Published>>, highest: Version) -> Self {
        let version = newest.as_ref().map(|newest| newest.manifest.version);
        let cut_off = version.filter(|version| *version < highest);
        Self {
            stable: watch::Sender::new(newest.clone()),
            cohort: watch::Sender::new(newest),
            canary_since: Mutex::new(cut_off.map(Version::next)),
        }
    }

    /// What pages are to have, of everyone or of the cohort.
    pub(super) fn newest(&self, channel: Channel) -> Option<Arc<Published>> {
        self.of(channel).borrow().clone()
    }

    pub(super) fn subscribe(&self, channel: Channel) -> watch::Receiver<Option<Arc<Published>>> {
        self.of(channel).subscribe()
    }

    /// Pages of the cohort that watch now.
    pub(super) fn num_cohort_pages(&self) -> usize {
        self.cohort.receiver_count()
    }

    /// First version of the canary that runs.
    pub(super) fn canary_since(&self) -> Option<Version> {
        *self
            .canary_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the canary: the cohort is told of what everyone has already.
    pub(super) fn join(&self, latest: &Arc<Published>) {
        *self
            .canary_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        let version = |published: &Published| published.manifest.version;
        self.cohort.send_if_modified(|newest| {
            let is_there = newest.as_deref().map(version) == Some(version(latest));
            *newest = Some(Arc::clone(latest));
            !is_there
        });
    }

    /// Tells of a version those it reaches.
    pub(super) fn announce(&self, published: &Arc<Published>, reach: Reach) {
        let mut since = self
            .canary_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match reach {
            Reach::All => *since = None,
            Reach::Canary => *since = since.or(Some(published.manifest.version)),
            Reach::Stable => {}
        }
        let newest = || Some(Arc::clone(published));
        if reach != Reach::Canary {
            self.stable.send_replace(newest());
        }
        if reach != Reach::Stable || since.is_none() {
            self.cohort.send_replace(newest());
        }
    }

    fn of(&self, channel: Channel) -> &Newest {
        match channel {
            Channel::Stable => &self.stable,
            Channel::Canary => &self.cohort,
        }
    }
}

impl Publisher {
    /// Publishes a state for the cohort alone, from what the cohort has now; the first begins a canary.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_canary(&self, new: NewVersion) -> Result<Arc<Published>, PublishError> {
        self.publish_to(Reach::Canary, new)
    }

    /// Publishes a state for everyone. A canary that runs ends with it: for a release whose canary went well, and for
    /// what must not be undecided.
    ///
    /// # Errors
    /// As [`Self::publish`]; the cohort keeps the canary then.
    pub fn publish_for_all(&self, new: NewVersion) -> Result<Arc<Published>, PublishError> {
        self.publish_to(Reach::All, new)
    }

    /// Takes a canary back, of this run or of one that a crash ended: the newest stable codes under a number above its
    /// versions, for everyone. `None` where the newest stable version is the newer one already: the cohort is told of it.
    ///
    /// # Errors
    /// As [`Self::publish`]; the cohort keeps the canary then.
    pub fn take_back_canary(
        &self,
        created_at: i64,
    ) -> Result<Option<Arc<Published>>, PublishError> {
        let Some(latest) = self.latest() else {
            return Ok(None);
        };
        if self.next_version() == latest.manifest.version.next() {
            self.shared.channels.join(&latest);
            return Ok(None);
        }
        self.publish_for_all(again(&latest, created_at)).map(Some)
    }

    /// Whether the cohort has other versions than everyone, or may have some of before the start.
    #[must_use]
    pub fn has_canary(&self) -> bool {
        self.shared.channels.canary_since().is_some()
    }

    /// Pages of the cohort that watch now.
    #[must_use]
    pub fn num_cohort_pages(&self) -> usize {
        self.shared.channels.num_cohort_pages()
    }

    /// What pages are to have now: everyone, or the cohort.
    #[must_use]
    pub fn newest(&self, channel: Channel) -> Option<Arc<Published>> {
        self.shared.channels.newest(channel)
    }

    /// Follows [`Self::newest`]; a slow reader sees only the newest.
    #[must_use]
    pub fn subscribe_to(&self, channel: Channel) -> watch::Receiver<Option<Arc<Published>>> {
        self.shared.channels.subscribe(channel)
    }
}

/// The same codes once more.
pub(super) fn again(published: &Published, created_at: i64) -> NewVersion {
    let manifest = &published.manifest;
    NewVersion {
        kind: VersionKind::Fast,
        state: Arc::clone(&published.state),
        learned_from: manifest.learned_through,
        learned_through: manifest.learned_through,
        event_time_millis: manifest.event_time_millis,
        created_at,
        self_test: manifest.self_test.clone(),
    }
}
