//! The canary of a release: begun, kept up with everyone's rows, judged, and ended.
//!
//! While it runs, everyone's fast versions go on as ever, and no other release is trained. Input: the release before it
//! was ended, which its promotion ends once more by the weights of then. What cannot be written leaves it as it was:
//! one that is to be promoted runs on, one that is taken back waits ([`Leaving`]) and goes before anything else is
//! published. Not here: the verdict (`canary`), channels and numbers (`publish`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::ids::Version;
use shared_model::manifest::VersionKind;

use super::Worker;
use super::publishing::self_test_history;
use super::releases::Ended;
use crate::canary::composition::composed;
use crate::canary::{Evidence, Outcome, Reason, bets, judge};
use crate::clock::now_millis;
use crate::gate;
use crate::learner::ReleaseTraining;
use crate::ledger::movement::movement;
use crate::ledger::{LedgerRow, Origin, Provenance, PublishedRow};
use crate::publish::NewVersion;
use crate::trainer::TrainerError;

/// A release that a part of the pages tries.
pub(super) struct Canary {
    /// As it was before it was ended, with the bets on its rise.
    pub(super) release: ReleaseTraining,
    origin: Origin,
    by: Option<String>,
    /// The codes that passed the gate.
    released: Arc<CodeState>,
    /// What the cohort has now.
    state: Arc<CodeState>,
    ready: ReadyVersion,
    /// The stable version whose rows it has.
    composed_from: Version,
    versions: BTreeSet<Version>,
    started: Instant,
    published: Instant,
}

/// A canary that is taken back, and why.
pub(super) struct Leaving {
    canary: Canary,
    reason: Reason,
    by: Option<String>,
}

impl Worker {
    /// Whether a part of the pages is there to try a release, and can: one with a new text encoder shares no texts with
    /// the rows that go on learning.
    pub(super) fn can_try(&self, release: &ReleaseTraining) -> bool {
        let has_cohort =
            self.config.rollout.canary_share > 0 && self.publisher.num_cohort_pages() > 0;
        has_cohort && !release.carries_texts()
    }

    /// Publishes a release that has passed the gate to the cohort.
    pub(super) fn begin_canary(
        &mut self,
        mut release: ReleaseTraining,
        share_kept: f32,
        passed: Provenance,
        state: CodeState,
        ready: ReadyVersion,
    ) -> Result<(), TrainerError> {
        release.begin_canary(share_kept, bets(&self.config.rollout));
        let Some(stable) = self.publisher.latest() else {
            return Ok(()); // a release follows a first version
        };
        let state = Arc::new(state);
        let (origin, by) = (passed.origin, passed.by.clone());
        let base = Arc::clone(&stable.state);
        let version = self.publish_canary(VersionKind::Release, passed, &base, &state, &ready)?;
        tracing::info!(
            num_pages = self.publisher.num_cohort_pages(),
            "a release begins as canary version {version}"
        );
        let now = Instant::now();
        self.canary = Some(Canary {
            release,
            origin,
            by,
            released: Arc::clone(&state),
            state,
            ready,
            composed_from: stable.manifest.version,
            versions: BTreeSet::from([version]),
            started: now,
            published: now,
        });
        Ok(())
    }

    /// Ends the canary if it is decided, else brings its cohort what everyone has learned since.
    pub(super) fn canary_slice(&mut self) -> Result<(), TrainerError> {
        let Some(canary) = &self.canary else {
            return Ok(());
        };
        let Some(rise) = canary.release.rise() else {
            return Ok(()); // every canary has bets
        };
        let elapsed = canary.started.elapsed().saturating_sub(self.paused_for());
        let elapsed_secs = elapsed.as_secs_f64();
        let evidence = self.evidence(canary);
        match judge(rise, &evidence, elapsed_secs, &self.config.rollout) {
            Some((Outcome::Promoted, reason)) => self.promote_canary(reason, None).map(|_| ()),
            Some((Outcome::TakenBack, reason)) => self.take_back_canary(reason, None),
            None => self.follow_with_canary(),
        }
    }

    /// Everyone gets the release of the canary, as trained, if the gate lets it still.
    pub(super) fn promote_canary(
        &mut self,
        reason: Reason,
        by: Option<String>,
    ) -> Result<Ended, TrainerError> {
        let Some(canary) = self.canary.take() else {
            return Ok(Ended::Refused);
        };
        let origin = match reason {
            Reason::Operator => Origin::Promoted,
            _ => canary.origin,
        };
        let ordered_by = by.clone().or_else(|| canary.by.clone());
        let ended = match self.end_release(canary.release.clone(), origin, ordered_by, None) {
            Ok(ended) => ended,
            Err(error) => {
                self.canary = Some(canary); // its cohort has it still
                return Err(error);
            }
        };
        self.last_release = Instant::now();
        if ended == Ended::Live {
            self.note_end(&canary, Outcome::Promoted, reason, by);
        } else {
            let (reason, by) = (Reason::Gate, None);
            self.leaving = Some(Leaving { canary, reason, by });
            self.leave_canary()?;
        }
        Ok(ended)
    }

    /// Nobody gets the release of the canary; its cohort comes back to what everyone has.
    pub(super) fn take_back_canary(
        &mut self,
        reason: Reason,
        by: Option<String>,
    ) -> Result<(), TrainerError> {
        if let Some(canary) = self.canary.take() {
            self.last_release = Instant::now();
            self.leaving = Some(Leaving { canary, reason, by });
        }
        self.leave_canary()
    }

    /// Brings the cohort back to what everyone has, where its canary is taken back or was cut off by the end of a run.
    pub(super) fn leave_canary(&mut self) -> Result<(), TrainerError> {
        let is_cut_off = self.canary.is_none() && self.publisher.has_canary();
        if self.leaving.is_none() && !is_cut_off {
            return Ok(());
        }
        if let Some(published) = self.publisher.take_back_canary(now_millis())? {
            self.last_publish = Instant::now();
            self.share_live(published.manifest.version);
            let provenance = Provenance {
                origin: Origin::TakenBack,
                by: self.leaving.as_ref().and_then(|one| one.by.clone()),
                gate: None, // everyone has these codes
            };
            let row = PublishedRow::new(&published.manifest, Some(provenance), None);
            self.note(LedgerRow::Published(row));
        }
        if let Some(Leaving { canary, reason, by }) = self.leaving.take() {
            self.note_end(&canary, Outcome::TakenBack, reason, by);
        }
        Ok(())
    }

    /// A pause that began at `paused` says nothing about a canary.
    pub(super) fn delay_canary(&mut self, paused: Instant) {
        if let Some(canary) = self.canary.as_mut().filter(|one| one.started < paused) {
            canary.started += paused.elapsed();
        }
    }

    /// A version of the canary with the rows of everyone's newest, not too often.
    fn follow_with_canary(&mut self) -> Result<(), TrainerError> {
        let interval = Duration::from_millis(self.config.rollout.canary_interval_millis);
        let (Some(canary), Some(stable)) = (&self.canary, self.publisher.latest()) else {
            return Ok(());
        };
        let is_behind = stable.manifest.version > canary.composed_from;
        if !is_behind || canary.published.elapsed() < interval {
            return Ok(());
        }
        let is_refit = canary.release.is_refit();
        let state = Arc::new(composed(&stable.state, &canary.released, is_refit));
        let ready = canary.ready.updated(&canary.state, &state);
        let base = Arc::clone(&canary.state);
        let passed = Provenance::automatic(None); // both of its parts have passed
        let published = self.publish_canary(VersionKind::Fast, passed, &base, &state, &ready);
        let version = match published {
            Ok(version) => version,
            Err(TrainerError::Score(error)) => {
                tracing::warn!(%error, "a canary does not score");
                return self.take_back_canary(Reason::Gate, None);
            }
            Err(error) => return Err(error),
        };
        if let Some(canary) = &mut self.canary {
            canary.versions.insert(version);
            canary.composed_from = stable.manifest.version;
            canary.published = Instant::now();
            (canary.state, canary.ready) = (state, ready);
        }
        Ok(())
    }

    /// Publishes codes to the cohort. They have learned what everyone's newest version has, and nothing more.
    fn publish_canary(
        &self,
        kind: VersionKind,
        provenance: Provenance,
        base: &CodeState,
        state: &Arc<CodeState>,
        ready: &ReadyVersion,
    ) -> Result<Version, TrainerError> {
        let stable = self.publisher.latest();
        let learned = stable.map_or(self.committed, |stable| stable.manifest.learned_through);
        let event_time_millis = self.event_time_millis();
        let history = self_test_history(state, self.publisher.next_version(), event_time_millis);
        let self_test = gate::make_self_test(ready, state, history, event_time_millis);
        let published = self.publisher.publish_canary(NewVersion {
            kind,
            state: Arc::clone(state),
            learned_from: learned,
            learned_through: learned,
            event_time_millis,
            created_at: now_millis(),
            self_test: pollster::block_on(self_test)?,
        })?;
        let moved = movement(base, state);
        let row = PublishedRow::new(&published.manifest, Some(provenance), Some(moved));
        self.note(LedgerRow::Published(row));
        Ok(published.manifest.version)
    }

    fn evidence(&self, canary: &Canary) -> Evidence {
        let num_faults = self
            .reports
            .of(|version| canary.versions.contains(&version));
        let num_pages = self.publisher.num_cohort_pages() as u64; // usize fits u64
        match canary.release.rise() {
            Some(rise) => Evidence::of(rise, num_faults, num_pages),
            None => Evidence::default(), // every canary has bets
        }
    }

    fn note_end(&self, canary: &Canary, outcome: Outcome, reason: Reason, by: Option<String>) {
        let evidence = self.evidence(canary);
        let first = canary.versions.first().copied().unwrap_or_default();
        tracing::info!(
            ?outcome,
            ?reason,
            ?evidence,
            "the canary from version {first} on has ended"
        );
        self.serving.update(|status| match outcome {
            Outcome::Promoted => status.canaries_promoted += 1,
            Outcome::TakenBack => status.canaries_taken_back += 1,
        });
        self.note(LedgerRow::Canary {
            first,
            newest: self.published_version().unwrap_or_default(),
            at: now_millis(),
            outcome,
            reason,
            by,
            evidence,
        });
    }
}
