//! Observe: what happened of late, moment by moment, for the dashboard and for freshness.
//!
//! ```text
//! log.watch ──► (end, when) … waiting ──► publisher.subscribe: learned_through ≥ end ──► freshness
//! counters, trainer, manifest ──► one sample per second ──► 15 minutes of seconds, a day of half minutes
//! ```
//!
//! Freshness is the time from the sync of an event to the version that learned from it. Everything here is in memory
//! and bounded; a start begins anew. Not here: totals since start (`http::counters`), versions of before (`ledger`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use shared_model::ids::LogOffset;
use tokio::sync::watch;

use crate::event_log::EventLog;
use crate::publish::Publisher;

const SECOND: Duration = Duration::from_secs(1);
/// Samples of a second that are kept: a quarter of an hour.
const NUM_SECONDS: usize = 900;
/// Seconds in a coarse sample.
const COARSE_SECS: usize = 30;
/// Coarse samples that are kept: a day.
const NUM_COARSE: usize = 2880;
/// Ends of the log that wait for their version; those of one instant count as one.
const NUM_WAITING_MAX: usize = 100_000;
const SAME_INSTANT: Duration = Duration::from_millis(20);
/// Upper bounds of the buckets of freshness, in seconds.
pub const FRESHNESS_BUCKETS_SECS: [f64; 8] = [0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0];

/// Totals since start, as they are at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Events accepted.
    pub accepted: u64,
    /// Events seen before.
    pub duplicates: u64,
    /// Events and items refused.
    pub rejected: u64,
    /// Events that teach nothing.
    pub set_aside: u64,
    /// Bytes of published deltas.
    pub delta_bytes: u64,
    /// Records that no version has learned from yet.
    pub lag: u64,
    /// Newest version, 0 before the first.
    pub version: u64,
    /// Smoothed share of events that the live version had in its top 10.
    pub hit_rate_at_10: Option<f64>,
    /// The same of the 10 most popular items.
    pub popularity_hit_rate_at_10: Option<f64>,
    /// Smoothed log loss of the live version.
    pub log_loss: Option<f64>,
}

impl Totals {
    /// Takes the figures of the trainer out of its status.
    #[must_use]
    pub fn with_trainer(mut self, status: &Value) -> Self {
        self.set_aside = status["events_set_aside"].as_u64().unwrap_or(0);
        self.hit_rate_at_10 = status["hit_rate_at_10"].as_f64();
        self.popularity_hit_rate_at_10 = status["popularity_hit_rate_at_10"].as_f64();
        self.log_loss = status["log_loss"].as_f64();
        self
    }
}

/// What happened in one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
pub struct Sample {
    /// Its end, in milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// Events accepted in it.
    pub accepted: u64,
    /// Events seen before.
    pub duplicates: u64,
    /// Events and items refused.
    pub rejected: u64,
    /// Events that teach nothing.
    pub set_aside: u64,
    /// Bytes of deltas published in it.
    pub delta_bytes: u64,
    /// Records behind, at its end.
    pub lag: u64,
    /// Newest version at its end.
    pub version: u64,
    /// Longest freshness in it, in milliseconds; absent where nothing waited for a version.
    pub freshness_millis: Option<u64>,
    /// As in [`Totals`], at its end.
    pub hit_rate_at_10: Option<f64>,
    /// As in [`Totals`], at its end.
    pub popularity_hit_rate_at_10: Option<f64>,
    /// As in [`Totals`], at its end.
    pub log_loss: Option<f64>,
}

impl Sample {
    /// Both stretches as one; `later` follows.
    fn joined(self, later: Self) -> Self {
        Self {
            accepted: self.accepted + later.accepted,
            duplicates: self.duplicates + later.duplicates,
            rejected: self.rejected + later.rejected,
            set_aside: self.set_aside + later.set_aside,
            delta_bytes: self.delta_bytes + later.delta_bytes,
            freshness_millis: self.freshness_millis.max(later.freshness_millis),
            ..later
        }
    }
}

/// Freshness since start, for `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FreshnessCounts {
    /// Per bound of [`FRESHNESS_BUCKETS_SECS`]: how many were at most that.
    pub at_most: [u64; FRESHNESS_BUCKETS_SECS.len()],
    /// All of them.
    pub count: u64,
    /// Their sum, in seconds.
    pub sum_secs: f64,
}

/// Handle of what was observed; clones share it.
#[derive(Clone, Default)]
pub struct Observer {
    observed: Arc<Mutex<Observed>>,
}

#[derive(Default)]
struct Observed {
    seconds: VecDeque<Sample>,
    coarse: VecDeque<Sample>,
    /// The coarse sample under way and how many seconds are in it.
    open: Option<(Sample, usize)>,
    last: Totals,
    waiting: VecDeque<(LogOffset, Instant)>,
    /// Longest since the last sample.
    longest: Option<Duration>,
    freshness: FreshnessCounts,
}

impl Observer {
    /// The samples of a second each, oldest first.
    #[must_use]
    pub fn seconds(&self) -> Vec<Sample> {
        self.observed().seconds.iter().copied().collect()
    }

    /// The samples of half a minute each, oldest first.
    #[must_use]
    pub fn coarse(&self) -> Vec<Sample> {
        self.observed().coarse.iter().copied().collect()
    }

    /// Freshness since start.
    #[must_use]
    pub fn freshness(&self) -> FreshnessCounts {
        self.observed().freshness
    }

    /// Takes the totals of now; what is new since the last call becomes a sample.
    pub fn sample(&self, at: i64, totals: Totals) {
        let mut observed = self.observed();
        let last = std::mem::replace(&mut observed.last, totals);
        let longest = observed.longest.take();
        let sample = Sample {
            at,
            accepted: totals.accepted.saturating_sub(last.accepted),
            duplicates: totals.duplicates.saturating_sub(last.duplicates),
            rejected: totals.rejected.saturating_sub(last.rejected),
            set_aside: totals.set_aside.saturating_sub(last.set_aside),
            delta_bytes: totals.delta_bytes.saturating_sub(last.delta_bytes),
            lag: totals.lag,
            version: totals.version,
            freshness_millis: longest.map(|longest| longest.as_millis() as u64), // years fit
            hit_rate_at_10: totals.hit_rate_at_10,
            popularity_hit_rate_at_10: totals.popularity_hit_rate_at_10,
            log_loss: totals.log_loss,
        };
        push(&mut observed.seconds, sample, NUM_SECONDS);
        let (joined, num_seconds) = match observed.open.take() {
            Some((open, num_seconds)) => (open.joined(sample), num_seconds + 1),
            None => (sample, 1),
        };
        if num_seconds == COARSE_SECS {
            push(&mut observed.coarse, joined, NUM_COARSE);
        } else {
            observed.open = Some((joined, num_seconds));
        }
    }

    /// The log ends at `end` since `now`.
    fn appended(&self, end: LogOffset, now: Instant) {
        let waiting = &mut self.observed().waiting;
        if let Some((newest, since)) = waiting.back_mut()
            && now - *since < SAME_INSTANT
        {
            *newest = end;
        } else if waiting.len() < NUM_WAITING_MAX {
            waiting.push_back((end, now)); // beyond that, hours behind, the oldest say so
        }
    }

    /// A version that learned through `learned_through` is out since `now`.
    fn published(&self, learned_through: LogOffset, now: Instant) {
        let mut observed = self.observed();
        while let Some((end, since)) = observed.waiting.front().copied()
            && end <= learned_through
        {
            observed.waiting.pop_front();
            let freshness = now - since;
            observed.longest = observed.longest.max(Some(freshness));
            let secs = freshness.as_secs_f64();
            let counts = &mut observed.freshness;
            counts.count += 1;
            counts.sum_secs += secs;
            for (count, bound) in counts.at_most.iter_mut().zip(FRESHNESS_BUCKETS_SECS) {
                *count += u64::from(secs <= bound);
            }
        }
    }

    fn observed(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push(ring: &mut VecDeque<Sample>, sample: Sample, len_max: usize) {
    if ring.len() == len_max {
        ring.pop_front();
    }
    ring.push_back(sample);
}

/// Follows log and publisher and samples `totals` every second until `stopping` turns true.
pub async fn follow(
    observer: Observer,
    log: EventLog,
    publisher: Publisher,
    clock: fn() -> i64,
    totals: impl Fn() -> Totals,
    mut stopping: watch::Receiver<bool>,
) {
    let (mut ends, mut versions) = (log.watch(), publisher.subscribe());
    let mut seconds = tokio::time::interval(SECOND);
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            moved = ends.changed() => {
                if moved.is_err() {
                    return; // the log is gone, and with it all that could be observed
                }
                observer.appended(*ends.borrow_and_update(), Instant::now());
            }
            moved = versions.changed() => {
                if moved.is_err() {
                    return;
                }
                let newest = versions.borrow_and_update().clone();
                if let Some(newest) = newest {
                    observer.published(newest.manifest.learned_through, Instant::now());
                }
            }
            _ = seconds.tick() => observer.sample(clock(), totals()),
            _ = stopping.changed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_differences_and_half_minutes_are_their_sums() {
        let observer = Observer::default();
        for second in 1..=60_u64 {
            let totals = Totals {
                accepted: 10 * second,
                lag: second,
                ..Totals::default()
            };
            observer.sample(second as i64 * 1000, totals);
        }
        let seconds = observer.seconds();
        assert_eq!(seconds.len(), 60);
        assert!(seconds.iter().all(|sample| sample.accepted == 10));
        let coarse = observer.coarse();
        let figures: Vec<_> = coarse.iter().map(|s| (s.at, s.accepted, s.lag)).collect();
        assert_eq!(figures, [(30_000, 300, 30), (60_000, 300, 60)]);
    }

    #[test]
    fn only_so_many_samples_are_kept() {
        let observer = Observer::default();
        for second in 0..2000 {
            observer.sample(second, Totals::default());
        }
        let seconds = observer.seconds();
        assert_eq!((seconds.len(), seconds[0].at), (NUM_SECONDS, 1100));
    }

    #[test]
    fn freshness_is_from_the_sync_to_the_version_that_covers_it() {
        let (observer, start) = (Observer::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        observer.appended(LogOffset(5), at(0));
        observer.appended(LogOffset(7), at(10)); // the same instant
        observer.appended(LogOffset(9), at(300));
        observer.published(LogOffset(6), at(400)); // covers neither of both wholly
        assert_eq!(observer.freshness().count, 0);
        observer.published(LogOffset(9), at(700));
        let counts = observer.freshness();
        assert_eq!(counts.count, 2);
        assert!((counts.sum_secs - 1.1).abs() < 1e-9);
        assert_eq!(counts.at_most, [0, 1, 2, 2, 2, 2, 2, 2]);
        observer.sample(1000, Totals::default());
        observer.sample(2000, Totals::default());
        let longest: Vec<_> = observer
            .seconds()
            .iter()
            .map(|sample| sample.freshness_millis)
            .collect();
        assert_eq!(longest, [Some(700), None]);
    }
}
