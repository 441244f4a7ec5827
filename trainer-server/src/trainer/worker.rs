//! The rounds of the trainer thread.

mod backlog;
mod beginning;
mod canary;
mod checkpoints;
mod orders;
mod pause;
mod private;
mod publishing;
mod refits;
mod releases;
pub(super) mod skipped;
mod texts;
mod watch;

pub(super) use private::PrivacyStatus;
pub(crate) use texts::encoder_of;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::ids::{LogOffset, Version};
use shared_model::manifest::VersionKind;

use self::backlog::Backlog;
use self::canary::{Canary, Leaving};
use self::skipped::{Line, Span};
use super::serving::Serving;
use super::{BACKLOG_ROUNDS_MAX, TrainerError, TrainerParts};
use crate::canary::reports::Reports;
use crate::clock::now_millis;
use crate::compress::allowance::ByteAllowance;
use crate::config::{ClockMode, Config};
use crate::cross_encoder;
use crate::device;
use crate::event_log::{EventLog, LogRecord};
use crate::gate::GateFigures;
use crate::learner::{LearnError, Learner, ReleaseTraining};
use crate::ledger::{Ledger, Origin, Provenance};
use crate::preprocess::{Batch, Preprocessor};
use crate::publish::Publisher;
use crate::rollout::{RolloutState, Waiting};
use pause::Pause;
use private::Private;
use watch::Anchor;

/// Longest wait for events in one round; bounds how late a stop is noticed.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// Records read at once when nothing is to be learned from them.
const CATCH_UP_RECORDS: usize = 20_000;

/// How records are taken in.
type Ingest = fn(&mut Learner, &mut Preprocessor, &[LogRecord]) -> Result<Batch, LearnError>;

pub(super) struct Worker {
    config: Arc<Config>,
    log: EventLog,
    publisher: Publisher,
    serving: Arc<Serving>,
    stop: Arc<AtomicBool>,
    learner: Learner,
    /// One past the last record taken in.
    position: LogOffset,
    /// One past the last record that a published version has learned.
    committed: LogOffset,
    release: Option<ReleaseTraining>,
    /// When the last step of the release was taken.
    trial_start: Instant,
    last_release: Instant,
    last_publish: Instant,
    /// What fast versions may still cost.
    allowance: ByteAllowance,
    last_checkpoint: Instant,
    /// Target events taken in since the last release.
    events_since_release: u64,
    /// Events that no refit has learned yet.
    backlog: Backlog,
    /// From operators.
    orders: Receiver<Waiting>,
    rollout: RolloutState,
    ledger: Ledger,
    reports: Reports,
    /// A release that a part of the pages tries.
    canary: Option<Canary>,
    /// One that is taken back as soon as that can be written.
    leaving: Option<Leaving>,
    /// Whether an operator wants a release before it is due.
    is_release_ordered: bool,
    /// The name that the operator gave who ordered the release.
    release_by: Option<String>,
    anchor: Anchor,
    /// While a version cannot be written.
    pause: Option<Pause>,
    /// Whether the warm fit before the first version is done.
    is_fitted: bool,
    /// Present where events reach versions by private rounds alone.
    private: Option<Private>,
}

impl Worker {
    /// Loads device and encoder, and continues from the newest published version.
    pub(super) fn open(
        parts: TrainerParts,
        serving: Arc<Serving>,
        stop: Arc<AtomicBool>,
        orders: Receiver<Waiting>,
    ) -> Result<Self, TrainerError> {
        let choice = parts.config.train.device;
        let of_texts = device::choose(choice)?;
        let of_ranker = device::of_ranker(choice, &of_texts);
        let latest = parts.publisher.latest();
        let newest = latest.as_ref().map(|latest| latest.manifest.version);
        let private = Private::open(&parts.config, newest.is_some())?;
        let mut rollout = RolloutState::open(&parts.config.server.data_dir)?;
        // Before anything is read or published: a rollback that never came out must set nothing aside.
        pause::patiently(&serving, &stop, || {
            Ok(rollout.settle(newest.unwrap_or_default())?)
        })?;
        let published = latest.map(|latest| latest.manifest.encoder_generation);
        let encoder = texts::open_encoder(&parts.config, &of_texts, published)?;
        let encoder_name = texts::encoder_name(&encoder);
        serving.update(|status| {
            of_ranker.name.clone_into(&mut status.device);
            encoder_name.clone_into(&mut status.text_encoder);
        });
        tracing::info!(
            device = of_ranker.name,
            text_device = of_texts.name,
            text_encoder = encoder_name,
            "the trainer starts"
        );
        let teacher = cross_encoder::teacher::from_config(&parts.config, &of_texts.device)?;
        let learner = Learner::new(Arc::clone(&parts.config), of_ranker.device, encoder);
        let learner = learner.taught_by(teacher);
        let now = Instant::now();
        let publish = &parts.config.publish;
        let (rate, burst) = (publish.bytes_per_sec_max, publish.delta_bytes_budget);
        let allowance = ByteAllowance::new(rate, burst, now_millis());
        let mut worker = Self {
            config: parts.config,
            log: parts.log,
            publisher: parts.publisher,
            serving,
            stop,
            learner,
            position: LogOffset(0),
            committed: LogOffset(0),
            release: None,
            trial_start: now,
            last_release: now,
            last_publish: now,
            allowance,
            last_checkpoint: now,
            events_since_release: 0,
            backlog: Backlog::default(),
            orders,
            rollout,
            ledger: parts.ledger,
            reports: parts.reports,
            canary: None,
            leaving: None,
            is_release_ordered: false,
            release_by: None,
            anchor: Anchor::default(),
            pause: None,
            is_fitted: false,
            private,
        };
        worker.share_privacy();
        // A log that cannot be read, as on a full disk, is read on from where it failed.
        let (serving, stop) = (Arc::clone(&worker.serving), Arc::clone(&worker.stop));
        pause::patiently(&serving, &stop, || worker.restore())?;
        Ok(worker)
    }

    /// Turns until told to stop. One that could not write is tried again later.
    pub(super) fn run(&mut self) -> Result<(), TrainerError> {
        while !self.is_stopped() {
            let is_paused = self.is_paused();
            let turned = if is_paused {
                self.wait_paused()
            } else {
                self.turn()
            };
            match turned {
                Ok(()) if is_paused => {}
                Ok(()) => self.end_pause(),
                Err(error) if error.may_pass() => self.begin_pause(&error),
                Err(error) => return Err(error),
            }
        }
        if let Some(version) = self
            .published_version()
            .filter(|_| self.learner.live().is_some())
        {
            self.save_checkpoint(version);
        }
        Ok(())
    }

    /// Orders, then a round, a slice of a canary, of a release or of texts, or a short wait.
    fn turn(&mut self) -> Result<(), TrainerError> {
        self.settle_rollout()?;
        self.leave_canary()?;
        self.catch_up_publishing()?;
        self.obey_orders()?;
        if self.learner.live().is_none() {
            return self.first_version();
        }
        if self.rollout.is_pinned() {
            return self.wait_pinned();
        }
        self.canary_slice()?;
        let interval = Duration::from_millis(self.config.train.fast_interval_millis);
        let is_due = self.last_publish.elapsed() >= interval;
        let has_events = self.log.end() > self.position;
        let bytes_budget = self.config.publish.delta_bytes_budget;
        let granted = self.allowance.grant(now_millis(), bytes_budget);
        if let Some(bytes_budget) = granted.filter(|_| has_events && is_due) {
            self.round(bytes_budget)?;
        } else if !self.learner.count_passed_over()
            && !self.release_slice()?
            && !self.text_slice()?
        {
            let left = interval.saturating_sub(self.last_publish.elapsed());
            if has_events && granted.is_none() {
                std::thread::sleep(IDLE_WAIT);
            } else if has_events {
                std::thread::sleep(left.min(IDLE_WAIT));
            } else {
                // The returned end is read again at the top.
                let _end = self.log.wait_beyond(self.position, IDLE_WAIT);
            }
        }
        self.checkpoint_if_due();
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn published_version(&self) -> Option<Version> {
        self.publisher
            .latest()
            .map(|latest| latest.manifest.version)
    }

    /// Histories, counts and items up to `end`; nothing is trained.
    fn catch_up(&mut self, end: LogOffset) -> Result<Vec<Batch>, TrainerError> {
        self.pass_to(end, Learner::ingest)
    }

    fn pass_to(&mut self, end: LogOffset, ingest: Ingest) -> Result<Vec<Batch>, TrainerError> {
        let mut batches = Vec::new();
        while self.position < end && !self.is_stopped() {
            let wanted = (end.0 - self.position.0).min(CATCH_UP_RECORDS as u64) as usize; // fits by the min
            let read = self.log.read(self.position, wanted)?;
            if read.is_empty() {
                break;
            }
            batches.push(self.take_in(read, ingest)?);
        }
        Ok(batches)
    }

    /// The next records of the log, which the position moves past.
    fn take_in(
        &mut self,
        read: Vec<(LogOffset, LogRecord)>,
        ingest: Ingest,
    ) -> Result<Batch, TrainerError> {
        self.position = LogOffset(self.position.0 + read.len() as u64);
        self.backlog.count(&read, &self.rollout);
        let records = self.rollout.without_set_aside(read);
        let mut preprocessor = self
            .serving
            .preprocessor
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(ingest(&mut self.learner, &mut preprocessor, &records)?)
    }

    /// One round: records → learn → candidate of so many bytes → gate → publish.
    fn round(&mut self, bytes_budget: usize) -> Result<(), TrainerError> {
        self.serving.phase("learning");
        let started = Instant::now();
        self.skip_old_events()?;
        let Some(batch) = self.take_batch()? else {
            return Ok(());
        };
        let _span = tracing::info_span!("round", through = self.position.0).entered();
        let serving = Arc::clone(&self.serving);
        {
            let _span = tracing::info_span!("learn").entered();
            let preprocessor = serving
                .preprocessor
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let tried = self.canary.as_mut().map(|canary| &mut canary.release);
            let release = tried.or(self.release.as_mut());
            let learning = self.learner.learn(&preprocessor, &batch, release);
            let report = pollster::block_on(learning)?;
            self.events_since_release += report.num_learned as u64;
            self.serving.learned(&report, self.position);
        }
        // Where training is private, what events taught waits for a round; the catalogue is public.
        let is_news = self.private.is_none() || !batch.changed_items.is_empty();
        let candidate = if is_news {
            self.gated_candidate(bytes_budget)
        } else {
            None
        };
        if let Some((state, ready, figures)) = candidate {
            let passed = Provenance::automatic(Some(figures));
            self.publish(VersionKind::Fast, passed, state, ready)?;
        }
        if !is_news {
            self.last_publish = Instant::now(); // so that private steps have their turn beside a stream of events
        }
        let round_millis = started.elapsed().as_millis() as u64; // fits for 500 million years
        self.serving.set_aside(&batch.set_aside);
        self.serving
            .update(|status| status.round_millis = round_millis);
        self.heed_watch()
    }

    /// A candidate that passed; where the gate refused one, without the newest learning, then without all learning
    /// that is not live.
    #[tracing::instrument(name = "candidate", skip_all)]
    fn gated_candidate(
        &mut self,
        bytes_budget: usize,
    ) -> Option<(CodeState, ReadyVersion, GateFigures)> {
        for attempt in 0..3 {
            let state = self.learner.candidate_within(bytes_budget);
            let ready = self.learner.ready(&state);
            let error = match pollster::block_on(self.learner.check(&state, &ready)) {
                Ok(figures) => return Some((state, ready, figures)),
                Err(error) => error,
            };
            tracing::warn!(%error, attempt, "the gate refused a version");
            self.note_refusal(VersionKind::Fast, &error);
            match attempt {
                0 => self.learner.undo_last(),
                1 => {
                    self.learner.return_to_live();
                    self.serving.update(|status| status.learner_resets += 1);
                }
                _ => {} // counts alone: the next events may judge them otherwise
            }
        }
        None
    }

    /// The next run of item records or of others; they are not mixed, so that an item is
    /// published before an event of it is learned.
    fn take_batch(&mut self) -> Result<Option<Batch>, TrainerError> {
        let read = self
            .log
            .read(self.position, self.config.train.fast_events_max)?;
        let is_item =
            |record: &LogRecord| matches!(record, LogRecord::ItemPut(_) | LogRecord::ItemDelete(_));
        let Some(first_is_item) = read.first().map(|(_, record)| is_item(record)) else {
            return Ok(None);
        };
        let run = read
            .into_iter()
            .take_while(|(_, record)| is_item(record) == first_is_item);
        self.take_in(run.collect(), Learner::ingest).map(Some)
    }

    /// Under overload, takes in the oldest waiting records without learning them.
    fn skip_old_events(&mut self) -> Result<(), TrainerError> {
        let round_len = self.config.train.fast_events_max as u64;
        let waiting = self.log.end().0 - self.position.0;
        if self.config.clock.mode != ClockMode::Live
            || waiting <= round_len * BACKLOG_ROUNDS_MAX as u64
        {
            return Ok(());
        }
        let (from, through) = (self.position, LogOffset(self.log.end().0 - round_len));
        if self.private.is_some() {
            self.pass_to(through, Learner::ingest)?; // nothing would be learned from them now anyway
            return Ok(());
        }
        let span = Span { from, through };
        skipped::note(&self.config.server.data_dir, Line::PassedOver(span))?;
        self.backlog.pass_over(span);
        for batch in self.pass_to(through, Learner::ingest_skipped)? {
            self.serving.set_aside(&batch.set_aside);
        }
        let outlook = self.outlook();
        tracing::warn!("overloaded: log offsets {from} to {through} are passed over; {outlook}");
        self.serving
            .update(|status| status.events_skipped += through.0 - from.0);
        self.share_backlog();
        Ok(())
    }

    /// A step towards the next release where one is due; whether anything was done.
    fn release_slice(&mut self) -> Result<bool, TrainerError> {
        if self.private.is_some() {
            return self.private_slice();
        }
        if self.canary.is_some() {
            return Ok(false); // one after the other
        }
        let config = &self.config.release;
        let by_time = self.last_release.elapsed() >= Duration::from_secs(config.interval_secs);
        let by_events = self.events_since_release >= config.interval_events;
        let is_due = (by_time || by_events) && self.events_since_release > 0;
        let is_refit_due = self.backlog.is_due(config.refit_skipped_share);
        if self.release.is_none() && !is_due && !is_refit_due && !self.is_release_ordered {
            return Ok(false);
        }
        let trial_secs_max = Duration::from_secs(config.trial_secs_max);
        let serving = Arc::clone(&self.serving);
        let preprocessor = serving
            .preprocessor
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if self.release.is_none() {
            self.start_release(&preprocessor);
        }
        let Some(release) = &mut self.release else {
            return Ok(false); // one was started
        };
        if !release.is_complete() {
            if let Err(error) = self.learner.release_step(release, &preprocessor) {
                tracing::warn!(%error, "a step of the release was skipped");
            }
            self.trial_start = Instant::now();
            self.share_refit();
            return Ok(true);
        }
        if !release.is_tried() && self.trial_start.elapsed() < trial_secs_max {
            return Ok(false); // the next events are to judge it
        }
        drop(preprocessor);
        let origin = if self.is_release_ordered {
            Origin::Ordered
        } else {
            Origin::Automatic
        };
        self.publish_release(origin, None)?;
        Ok(true)
    }
}
