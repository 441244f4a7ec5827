//! Pause: what the trainer does while a version cannot be written.
//!
//! ```text
//! turn ──a write failed──► pause (1 s, then twice as long each time, at most 30 s) ──► turn again
//! ```
//! Meanwhile events are stored and wait, pages keep the version they have, and orders are heard. What was learned
//! before the failure is in the weights and goes out with the first version after it, under one manifest with what
//! waited. A canary runs on, and its time stands still: no events speak for or against it.
//! Not here: what makes room (`publish::room`, `reserve`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shared_model::manifest::VersionKind;

use super::{IDLE_WAIT, Worker};
use crate::clock::now_millis;
use crate::ledger::Provenance;
use crate::trainer::TrainerError;
use crate::trainer::serving::Serving;

const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// When to try again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    began: Instant,
    delay: Duration,
    retry_at: Instant,
}

impl Pause {
    /// The first, or the one after `before`.
    fn after(before: Option<Self>, now: Instant) -> Self {
        let delay = before.map_or(DELAY_MIN, |before| (before.delay * 2).min(DELAY_MAX));
        Self {
            began: before.map_or(now, |before| before.began),
            delay,
            retry_at: now + delay,
        }
    }
}

impl Worker {
    /// Whether it is too early to try again.
    pub(super) fn is_paused(&self) -> bool {
        self.pause
            .is_some_and(|pause| Instant::now() < pause.retry_at)
    }

    /// Notes that a write failed.
    pub(super) fn begin_pause(&mut self, why: &TrainerError) {
        let pause = Pause::after(self.pause, Instant::now());
        self.pause = Some(pause);
        let retry_secs = pause.delay.as_secs();
        tracing::error!(error = %why, retry_secs, "publishing pauses; events are still taken, versions are still served");
        self.serving.paused(&why.to_string());
    }

    /// Listens to orders while there is nothing else to do.
    pub(super) fn wait_paused(&mut self) -> Result<(), TrainerError> {
        self.obey_orders()?;
        std::thread::sleep(IDLE_WAIT);
        Ok(())
    }

    /// Sends out what was learned before the pause; there may be no event to begin a round with.
    pub(super) fn catch_up_publishing(&mut self) -> Result<(), TrainerError> {
        if self.pause.is_none() {
            return Ok(());
        }
        self.publisher.check_room(now_millis())?;
        if self.rollout.is_pinned() {
            return Ok(()); // an operator has pinned meanwhile
        }
        let bytes_budget = self.config.publish.delta_bytes_budget;
        if self.committed < self.position
            && self.learner.live().is_some()
            && let Some((state, ready, figures)) = self.gated_candidate(bytes_budget)
        {
            let passed = Provenance::automatic(Some(figures));
            self.publish(VersionKind::Fast, passed, state, ready)?;
        }
        Ok(())
    }

    /// How long a pause that has not ended yet has lasted.
    pub(super) fn paused_for(&self) -> Duration {
        self.pause
            .map_or(Duration::ZERO, |pause| pause.began.elapsed())
    }

    /// Notes that everything is written.
    pub(super) fn end_pause(&mut self) {
        if let Some(pause) = self.pause.take() {
            self.delay_canary(pause.began);
            tracing::info!("publishing goes on");
            self.serving.resumed();
        }
    }
}

/// Does what a start cannot do without, and tries again as after a failed write for as long as that may help.
///
/// # Errors
/// Trying again does not help.
pub(super) fn patiently(
    serving: &Serving,
    stop: &AtomicBool,
    mut step: impl FnMut() -> Result<(), TrainerError>,
) -> Result<(), TrainerError> {
    let mut pause: Option<Pause> = None;
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if pause.is_none_or(|pause| pause.retry_at <= now) {
            match step() {
                Ok(()) => break,
                Err(error) if error.may_pass() => {
                    tracing::error!(%error, "the trainer cannot start yet");
                    serving.paused(&error.to_string());
                    pause = Some(Pause::after(pause, now));
                }
                Err(error) => return Err(error),
            }
        }
        std::thread::sleep(IDLE_WAIT);
    }
    if pause.is_some() {
        serving.resumed();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_twice_as_long_as_the_one_before_up_to_a_limit_and_all_count_from_the_first() {
        let began = Instant::now();
        let mut pause = None;
        let mut delays = Vec::new();
        for _ in 0..7 {
            let next = Pause::after(pause, pause.map_or(began, |pause: Pause| pause.retry_at));
            delays.push(next.delay.as_secs());
            pause = Some(next);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pause.map(|pause| pause.began), Some(began));
    }
}
