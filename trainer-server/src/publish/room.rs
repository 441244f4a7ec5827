//! Room: how much of the disk published versions may take, and what a version that failed leaves behind.
//!
//! Before a version is written the reserve of the log must be in place, and blobs and manifests with it stay within
//! `store.disk_bytes_max`. Where they would not, what retention allows by now goes first, then merged deltas that no
//! page was told of lately; where that is not enough the version fails and the caller comes back later.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use shared_model::ids::BlobId;
use shared_model::manifest::Channel;

use super::{PublishError, Shared};
use crate::reserve::Reserve;

/// What a manifest and the list of merged deltas beside it take, rounded up.
const MANIFEST_BYTES: u64 = 16 << 10;

/// How much may be taken.
#[derive(Debug, Clone, Default)]
pub struct StoreLimits {
    /// Bytes of blobs and manifests together; 0 for no limit.
    pub disk_bytes_max: u64,
    /// Kept free for the log.
    pub reserve: Option<Arc<Reserve>>,
}

/// What is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StoreUse {
    /// Bytes of blobs and manifests.
    pub used_bytes: u64,
    /// Their limit; 0 for none.
    #[serde(rename = "disk_bytes_max")]
    pub bytes_max: u64,
    /// Whether the reserve of the log is in place.
    pub is_reserve_held: bool,
}

impl Shared {
    /// What published versions take.
    pub(super) fn store_use(&self) -> StoreUse {
        StoreUse {
            used_bytes: self.blobs.bytes() + self.manifests.bytes(),
            bytes_max: self.limits.disk_bytes_max,
            is_reserve_held: self
                .limits
                .reserve
                .as_ref()
                .is_none_or(|reserve| reserve.is_held()),
        }
    }

    /// Makes room for a version whose blobs have `blob_bytes`.
    pub(super) fn make_room_for(
        &self,
        blob_bytes: u64,
        now_millis: i64,
    ) -> Result<(), PublishError> {
        if let Some(reserve) = &self.limits.reserve {
            reserve
                .take()
                .map_err(|source| PublishError::NoReserve { source })?;
        }
        let needed_bytes = blob_bytes + MANIFEST_BYTES;
        if self.has_room_for(needed_bytes) {
            return Ok(());
        }
        if let Some(latest) = self.channels.newest(Channel::Stable) {
            self.retire(latest.manifest.version, now_millis);
        }
        if !self.has_room_for(needed_bytes) {
            self.drop_merged(now_millis);
        }
        if self.has_room_for(needed_bytes) {
            return Ok(());
        }
        Err(self.disk_limit(needed_bytes))
    }

    /// Why so many more bytes cannot be written.
    pub(super) fn disk_limit(&self, needed_bytes: u64) -> PublishError {
        let StoreUse {
            used_bytes,
            bytes_max,
            ..
        } = self.store_use();
        PublishError::DiskLimit {
            used_bytes,
            needed_bytes,
            bytes_max,
        }
    }

    /// What [`Publisher::check_room`](super::Publisher::check_room) says.
    pub(super) fn check_room(&self, now_millis: i64) -> Result<(), PublishError> {
        self.make_room_for(0, now_millis)
    }

    /// Whether so many bytes more stay within the limit.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        let StoreUse {
            used_bytes,
            bytes_max,
            ..
        } = self.store_use();
        bytes_max == 0 || used_bytes.saturating_add(bytes) <= bytes_max
    }

    /// Removes blobs that were written for a version which failed, where no other names them.
    pub(super) fn sweep(&self, written: &[BlobId]) {
        let _tidy = self.tidy();
        self.remove_unnamed(written.iter().copied());
    }

    /// Removes blobs that no version and no plan of late names. The caller holds [`Shared::tidy`].
    pub(super) fn remove_unnamed(&self, ids: impl Iterator<Item = BlobId>) {
        let graph = self.graph();
        for id in ids {
            let is_named = graph.blobs().any(|named| named == id) || self.handed.last(id).is_some();
            if !is_named {
                self.remove_blob(id);
            }
        }
    }
}
