//! Channels: the newest version of every page, and that of the cohort that tries a release first.
//!
//! ```text
//! stable  ──► everyone                  ──► everyone            ──► everyone
//! canary         └── cohort ──► cohort ──┘ (a stable version with a higher number)
//! ```
//! Both channels take their numbers from one counter, so a page that changes channel never goes back in number:
//! the cohort leaves the canary when a stable version comes out after it. While no canary runs, the cohort hears what
//! everyone hears. Not here: who is of the cohort (`http`), and how long a canary runs (`canary`).

use std::sync::{Arc, Mutex, PoisonError};

use shared_model::ids::Version;
use shared_model::manifest::{Channel, VersionKind};
use tokio::sync::watch;

use super::{NewVersion, PublishError, Published, Publisher};

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
    pub(super) fn new(newest: Option<Arc<Published>>) -> Self {
        Self {
            stable: watch::Sender::new(newest.clone()),
            cohort: watch::Sender::new(newest),
            canary_since: Mutex::default(),
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

    /// From now on the cohort hears what everyone hears, beginning with the next stable version.
    pub(super) fn close_canary(&self) {
        *self
            .canary_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Tells the cohort of what everyone has already.
    pub(super) fn join(&self, latest: &Arc<Published>) {
        let version = |published: &Published| published.manifest.version;
        self.cohort.send_if_modified(|newest| {
            let is_there = newest.as_deref().map(version) == Some(version(latest));
            *newest = Some(Arc::clone(latest));
            !is_there
        });
    }

    /// Undoes [`Self::close_canary`], where nothing came out after it.
    pub(super) fn reopen_canary(&self, since: Version) {
        *self
            .canary_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(since);
    }

    /// Tells of a version those it is for.
    pub(super) fn announce(&self, published: &Arc<Published>) {
        let mut since = self
            .canary_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match published.manifest.channel {
            Channel::Stable => {
                self.stable.send_replace(Some(Arc::clone(published)));
                if since.is_none() {
                    self.cohort.send_replace(Some(Arc::clone(published)));
                }
            }
            Channel::Canary => {
                since.get_or_insert(published.manifest.version);
                self.cohort.send_replace(Some(Arc::clone(published)));
            }
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
        self.publish_to(Channel::Canary, new)
    }

    /// Takes a canary back, of this run or of one that a crash ended: the newest stable codes under a number above its
    /// versions, for everyone. `None` where the newest stable version is
    /// the newer one already: the cohort is told of it.
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
            self.close_canary();
            self.shared.channels.join(&latest);
            return Ok(None);
        }
        let since = self.shared.channels.canary_since();
        self.close_canary();
        let published = self.publish(again(&latest, created_at));
        if published.is_err()
            && let Some(since) = since
        {
            self.shared.channels.reopen_canary(since);
        }
        published.map(Some)
    }

    /// From now on the cohort hears what everyone hears, beginning with the next stable version: for a release whose
    /// canary went well.
    pub fn close_canary(&self) {
        self.shared.channels.close_canary();
    }

    /// Whether the cohort has other versions than everyone.
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
