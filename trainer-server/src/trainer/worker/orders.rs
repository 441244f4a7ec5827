//! Orders of an operator, carried out between two rounds.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use shared_model::codec::state::CodeState;
use shared_model::ids::{LogOffset, Version};
use shared_model::manifest::{Channel, VersionKind};

use super::releases::Ended;
use super::{CATCH_UP_RECORDS, IDLE_WAIT, Worker};
use crate::canary::Reason;
use crate::clock::now_millis;
use crate::gate::GateError;
use crate::learner::{with_items_of, with_weights_of};
use crate::ledger::{LedgerRow, Origin, Provenance};
use crate::preprocess::Preprocessor;
use crate::rollout::{GivenCodes, Obeyed, Order, OrderError, Rollback, Waiting, Wish};
use crate::trainer::TrainerError;

impl Worker {
    /// Carries out the orders that wait.
    pub(super) fn obey_orders(&mut self) -> Result<(), TrainerError> {
        while let Ok(waiting) = self.orders.try_recv() {
            self.obey(waiting)?;
        }
        Ok(())
    }

    /// While versions are pinned there is nothing else to do than to wait for the next order.
    pub(super) fn wait_pinned(&mut self) -> Result<(), TrainerError> {
        self.serving.phase("pinned");
        match self.orders.recv_timeout(IDLE_WAIT) {
            Ok(waiting) => self.obey(waiting),
            Err(_) => Ok(()), // nothing came
        }
    }

    fn obey(&mut self, waiting: Waiting) -> Result<(), TrainerError> {
        let Waiting { wish, by, reply } = waiting;
        if reply.is_closed() {
            return Ok(()); // whoever sent it has been told that it will not be carried out
        }
        let order = match &wish {
            Wish::Order(order) => Some(*order),
            Wish::Given(_) => None, // no order: codes
        };
        let outcome = match self.fulfil(wish, by) {
            Ok(outcome) => outcome,
            Err(error) => {
                let detail = error.to_string();
                reply.send(Err(OrderError::NotStored { detail })).ok(); // the sender hung up; the log has it
                return Err(error);
            }
        };
        match &outcome {
            Ok(obeyed) => tracing::info!(?order, version = obeyed.version.0, "obeyed an order"),
            Err(error) => tracing::warn!(?order, %error, "an order was refused"),
        }
        reply.send(outcome).ok(); // the sender hung up; the log has it
        Ok(())
    }

    /// The inner error is the operator's, the outer one pauses or stops the trainer.
    fn fulfil(
        &mut self,
        wish: Wish,
        by: Option<String>,
    ) -> Result<Result<Obeyed, OrderError>, TrainerError> {
        self.settle_rollout()?;
        match wish {
            Wish::Order(order) => self.carry_out(order, by),
            Wish::Given(given) => self.publish_given(*given, by),
        }
    }

    /// Forgets a rollback that never came out, before another version takes the number that it was to have.
    pub(super) fn settle_rollout(&mut self) -> Result<(), TrainerError> {
        let newest = self.published_version().unwrap_or_default();
        Ok(self.rollout.settle(newest)?)
    }

    /// The errors are as those of [`Self::fulfil`].
    fn carry_out(
        &mut self,
        order: Order,
        by: Option<String>,
    ) -> Result<Result<Obeyed, OrderError>, TrainerError> {
        let (Some(newest), Some(_)) = (self.published_version(), self.learner.live()) else {
            return Ok(Err(OrderError::NotPublished));
        };
        let is_pinned = self.rollout.is_pinned();
        let mut set_aside = None;
        match order {
            Order::Rollback { version } => match self.roll_back(version, newest, by)? {
                Ok(rollback) => set_aside = Some(rollback),
                Err(error) => return Ok(Err(error)),
            },
            Order::Pin | Order::Unpin => {
                self.rollout.pin(order == Order::Pin)?;
                self.serving.phase("learning"); // `wait_pinned` says otherwise
                // What is undecided does not stay out; where that cannot be written now, it goes before anything else.
                match self.take_back_canary(Reason::Operator, by) {
                    Err(error) if error.may_pass() => {
                        tracing::warn!(%error, "the canary is taken back as soon as that can be written");
                    }
                    taken_back => taken_back?,
                }
            }
            Order::Publish | Order::Promote if is_pinned => return Ok(Err(OrderError::Pinned)),
            Order::Publish if self.private.is_some() => return Ok(Err(OrderError::Private)),
            Order::Publish => {
                self.is_release_ordered = true;
                self.release_by = by;
            }
            Order::Promote if self.canary.is_some() => {
                if self.promote_canary(Reason::Operator, by)? == Ended::Refused {
                    return Ok(Err(OrderError::Refused));
                }
            }
            Order::Promote => {
                let release = self.release.as_ref();
                if !release.is_some_and(|release| release.is_complete()) {
                    return Ok(Err(OrderError::NoRelease));
                }
                if self.publish_release(Origin::Promoted, by)? == Ended::Refused {
                    return Ok(Err(OrderError::Refused));
                }
            }
        }
        Ok(Ok(self.obeyed(newest, set_aside)))
    }

    fn obeyed(&self, newest: Version, set_aside: Option<Rollback>) -> Obeyed {
        Obeyed {
            version: self.published_version().unwrap_or(newest),
            is_pinned: self.rollout.is_pinned(),
            set_aside,
        }
    }

    /// Publishes the trained codes that an operator gave, under the items, texts and counts of now, where the gate lets
    /// them; the learner goes on from them. The errors are as those of [`Self::fulfil`].
    fn publish_given(
        &mut self,
        given: GivenCodes,
        by: Option<String>,
    ) -> Result<Result<Obeyed, OrderError>, TrainerError> {
        let (Some(newest), Some(live)) = (self.published_version(), self.learner.live()) else {
            return Ok(Err(OrderError::NotPublished));
        };
        if self.rollout.is_pinned() {
            return Ok(Err(OrderError::Pinned));
        }
        if let Err(error) = check_given(&given, &live.state) {
            return Ok(Err(error));
        }
        let state = with_weights_of(given.state, &live.state);
        let ready = self.learner.ready(&state);
        let gate = match pollster::block_on(self.learner.check_given(&ready)) {
            Ok(figures) => Some(figures),
            Err(error) => {
                self.note_refusal(VersionKind::Release, &error);
                let reason = error.to_string();
                return Ok(Err(OrderError::GivenRefused { reason }));
            }
        };
        self.take_back_canary(Reason::Operator, by.clone())?; // of weights that are to go
        let origin = Origin::Uploaded;
        let provenance = Provenance { origin, by, gate };
        self.publish(VersionKind::Release, provenance, state, ready)?;
        self.drop_release();
        if let Some(latest) = self.publisher.latest() {
            self.learner.adopt(Arc::clone(&latest.state))?;
            self.share_live(latest.manifest.version);
            self.save_checkpoint(latest.manifest.version); // the one at hand holds what was trained before
        }
        Ok(Ok(self.obeyed(newest, None)))
    }

    /// A release in training is of weights that are gone.
    fn drop_release(&mut self) {
        self.release = None;
        self.drop_private_round();
        self.backlog.drop_refit();
        self.share_refit();
        self.is_release_ordered = false;
        self.release_by = None;
        self.events_since_release = 0;
        self.last_release = Instant::now();
    }

    /// Publishes the codes of an earlier version as a new one, then becomes what had learned just these.
    pub(super) fn roll_back(
        &mut self,
        version: Version,
        newest: Version,
        by: Option<String>,
    ) -> Result<Result<Rollback, OrderError>, TrainerError> {
        let Some(live) = self.learner.live().filter(|_| version < newest) else {
            return Ok(Err(OrderError::NotKept { version, newest }));
        };
        let kept = self.publisher.kept(version)?;
        let of_everyone = kept.filter(|(manifest, _)| manifest.channel == Channel::Stable);
        let Some((manifest, earlier)) = of_everyone else {
            return Ok(Err(OrderError::NotKept { version, newest }));
        };
        let (actual, expected) = (earlier.encoder_generation, live.state.encoder_generation);
        if actual != expected || earlier.spec != live.state.spec {
            return Ok(Err(OrderError::OtherEncoder {
                version,
                actual,
                expected,
            }));
        }
        if !self.rollout.has_room() {
            return Ok(Err(OrderError::TooMany));
        }
        let state = with_items_of(earlier, &live.state);
        let ready = self.learner.ready(&state);
        self.take_back_canary(Reason::Operator, by.clone())?; // of weights that are to go
        let publisher = self.publisher.clone();
        let held = publisher.hold_renewals(); // until the version that is announced now is out
        let rollback = Rollback {
            version: self.publisher.next_version(),
            restored: version,
            from: manifest.learned_through,
            through: self.position,
        };
        self.rollout.begin(rollback)?;
        let provenance = Provenance {
            origin: Origin::Rollback { restored: version },
            by,
            gate: None, // what the operator returns to has been live before
        };
        // Pages first: reading the log again takes longer.
        let published = self.publish(VersionKind::Release, provenance, state, ready);
        drop(held);
        let settled = self
            .rollout
            .settle(self.published_version().unwrap_or(newest));
        published?;
        if let Err(error) = settled {
            // Pages have it, so the weights go back too; it is settled before the next order or version.
            tracing::warn!(%error, "a rollback came out and is not settled yet");
        }
        self.drop_release();
        self.read_log_again()
            .map_err(|error| TrainerError::HalfRead(Box::new(error)))?;
        self.serving.update(|status| status.rollbacks += 1);
        Ok(Ok(rollback))
    }

    /// Counts a refusal and gives it a row.
    pub(super) fn note_refusal(&self, kind: VersionKind, error: &GateError) {
        self.serving.refused(error);
        let newest = self.published_version().unwrap_or_default();
        let (reason, figures) = (error.to_string(), error.figures());
        let row = LedgerRow::refused(newest, kind, now_millis(), &reason, figures);
        self.note(row);
    }

    /// A row that cannot be written stops nothing: the manifest has what matters, and the next start fills it in.
    pub(super) fn note(&self, row: LedgerRow) {
        if let Err(error) = self.ledger.add(row) {
            tracing::warn!(%error, "a row of the ledger cannot be written");
        }
    }

    /// Forgets everything and takes in the log up to here without what is set aside, then the weights that are live.
    fn read_log_again(&mut self) -> Result<(), TrainerError> {
        let Some(latest) = self.publisher.latest() else {
            return Ok(());
        };
        self.serving.phase("restoring");
        let mut preprocessor = Preprocessor::new(&self.config);
        self.learner.forget();
        self.backlog = self.open_backlog()?;
        let mut at = LogOffset(0);
        while at < self.position {
            let wanted = (self.position.0 - at.0).min(CATCH_UP_RECORDS as u64) as usize; // fits by the min
            let read = self.log.read(at, wanted)?;
            if read.is_empty() {
                break;
            }
            at = LogOffset(at.0 + read.len() as u64);
            self.backlog.count(&read, &self.rollout);
            let records = self.rollout.without_set_aside(read);
            self.learner.ingest(&mut preprocessor, &records)?;
        }
        self.share_backlog();
        self.learner.restore(Arc::clone(&latest.state), None)?;
        let serving = &self.serving;
        *serving
            .preprocessor
            .write()
            .unwrap_or_else(PoisonError::into_inner) = preprocessor;
        let version = latest.manifest.version;
        self.share_live(version);
        self.watch_from(version);
        self.save_checkpoint(version);
        self.start_text_round();
        Ok(())
    }
}

/// Whether codes fit the model and the catalogue of the newest version.
fn check_given(given: &GivenCodes, live: &CodeState) -> Result<(), OrderError> {
    if given.state.spec != live.spec {
        return Err(OrderError::OtherSpec);
    }
    let (actual, expected) = (given.state.encoder_generation, live.encoder_generation);
    if actual != expected {
        let version = given.version;
        return Err(OrderError::OtherEncoder {
            version,
            actual,
            expected,
        });
    }
    for (item_idx, entry) in given.state.items.iter().enumerate() {
        let expected = live.items.get(item_idx).map(|live| &live.item_id);
        if expected != Some(&entry.item_id) {
            return Err(OrderError::OtherItems {
                item_idx,
                actual: entry.item_id.clone(),
                expected: expected.cloned(),
            });
        }
    }
    Ok(())
}
