//! Publishing: from a candidate that passed to a version that pages have, and a row of it in the ledger.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::event::{EventKind, HistoryEvent};
use shared_model::ids::Version;
use shared_model::manifest::VersionKind;

use super::Worker;
use crate::clock::now_millis;
use crate::gate;
use crate::learner::LiveModel;
use crate::ledger::movement::movement;
use crate::ledger::{LedgerRow, Provenance, PublishedRow};
use crate::publish::NewVersion;
use crate::trainer::TrainerError;

/// Events in the history of a self-test.
const SELF_TEST_EVENTS: usize = 5;

impl Worker {
    #[tracing::instrument(skip_all, fields(version = tracing::field::Empty))]
    pub(super) fn publish(
        &mut self,
        kind: VersionKind,
        provenance: Provenance,
        state: CodeState,
        ready: ReadyVersion,
    ) -> Result<(), TrainerError> {
        let event_time_millis = self.event_time_millis();
        let next = self.publisher.next_version();
        let history = self_test_history(&state, next, event_time_millis);
        let self_test = pollster::block_on(gate::make_self_test(
            &ready,
            &state,
            history,
            event_time_millis,
        ))?;
        let state = Arc::new(state);
        let new = NewVersion {
            kind,
            state: Arc::clone(&state),
            learned_from: self.committed,
            learned_through: self.position,
            event_time_millis,
            created_at: now_millis(),
            self_test,
        };
        // A canary is of weights that a release replaces, its own promotion included.
        let published = match kind {
            VersionKind::Fast => self.publisher.publish(new)?,
            VersionKind::Release => self.publisher.publish_for_all(new)?,
        };
        self.committed = self.position;
        self.last_publish = Instant::now();
        if kind == VersionKind::Fast {
            let delta = &published.manifest.delta;
            let bytes = delta.as_ref().map_or(0, |delta| delta.blob.bytes);
            self.allowance.spend(bytes);
        }
        let base = self.learner.live().map(|live| Arc::clone(&live.state));
        self.learner.went_live(Arc::clone(&state), ready);
        let version = published.manifest.version;
        tracing::Span::current().record("version", version.0);
        self.share_live(version);
        if kind == VersionKind::Release || self.is_anchor_old() {
            self.watch_from(version);
        }
        if kind == VersionKind::Release {
            tracing::info!("published release version {}", published.manifest.version);
        }
        let moved = base.map(|base| movement(&base, &state));
        let row = PublishedRow::new(&published.manifest, Some(provenance), moved);
        self.note(LedgerRow::Published(row));
        Ok(())
    }

    /// The newest event time, or that of the clock before there is one.
    ///
    /// Where training is private always that of the clock: no client's event tells pages the time.
    pub(super) fn event_time_millis(&self) -> i64 {
        if self.private.is_some() {
            return now_millis();
        }
        let preprocessor = self
            .serving
            .preprocessor
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let watermark = preprocessor.watermark_millis();
        watermark.unwrap_or_else(now_millis)
    }

    pub(super) fn share_live(&self, version: Version) {
        if let Some(LiveModel { state, ready }) = self.learner.live() {
            self.serving.set_live(
                version,
                LiveModel {
                    state: Arc::clone(state),
                    ready: ready.clone(),
                },
            );
        }
        self.serving.phase("learning");
    }
}

/// A made-up history that walks through the catalogue with the version: real ones are nobody's business.
pub(super) fn self_test_history(
    state: &CodeState,
    version: Version,
    now_millis: i64,
) -> Vec<HistoryEvent> {
    let num_items = state.items.len().max(1) as u64;
    let events = (0..SELF_TEST_EVENTS.min(state.items.len())).map(|idx| {
        let item_idx = (version.0 * 7_919 + idx as u64 * 104_729) % num_items; // two primes, so that the walk spreads
        HistoryEvent {
            item_id: state.items[item_idx as usize].item_id.clone(),
            kind: EventKind::Click,
            occurred_at: now_millis - (SELF_TEST_EVENTS - idx) as i64 * 60_000,
        }
    });
    events.collect()
}
