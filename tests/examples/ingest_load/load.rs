//! Batches over several connections: as fast as they are answered (closed loop), or at planned times (open loop).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::batches::Batches;
use crate::connection::Connection;
use crate::server::Server;
use crate::sleep_until;

/// Between two looks at what has been learned; freshness is no finer.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long the last events may take to be learned.
const LEARN_PATIENCE: Duration = Duration::from_secs(30);

/// A batch that was acknowledged.
pub(crate) struct Acked {
    pub(crate) batch_idx: usize,
    /// From sending, or in an open loop from the planned time of sending.
    pub(crate) latency: Duration,
    acked_at: Instant,
    /// What must be learned through until all of it is learned.
    offset: u64,
}

/// Batches and how long each took to be part of a published version.
pub(crate) struct Learned {
    pub(crate) acked: Vec<Acked>,
    pub(crate) freshness: Vec<Duration>,
}

pub(crate) struct Load<'a> {
    address: &'a str,
    batches: &'a Batches,
}

/// One stretch of load.
struct Stretch<'a> {
    phase: &'a str,
    batch_len: usize,
    held: Duration,
    /// Between two batches, in an open loop.
    interval: Option<Duration>,
    start: Instant,
    next_idx: AtomicUsize,
}

impl<'a> Load<'a> {
    pub(crate) fn new(address: &'a str, batches: &'a Batches) -> Self {
        Self { address, batches }
    }

    /// Every connection sends as soon as it is answered.
    pub(crate) fn closed(
        &mut self,
        phase: &str,
        batch_len: usize,
        num_connections: usize,
        held: Duration,
    ) -> anyhow::Result<Vec<Acked>> {
        self.run(phase, batch_len, num_connections, held, None)
    }

    /// Batches are due at fixed times, whatever became of those before.
    pub(crate) fn open(
        &mut self,
        phase: &str,
        batch_len: usize,
        num_connections: usize,
        events_per_sec: f64,
        held: Duration,
    ) -> anyhow::Result<Vec<Acked>> {
        let interval = Duration::from_secs_f64(batch_len as f64 / events_per_sec);
        self.run(phase, batch_len, num_connections, held, Some(interval))
    }

    fn run(
        &mut self,
        phase: &str,
        batch_len: usize,
        num_connections: usize,
        held: Duration,
        interval: Option<Duration>,
    ) -> anyhow::Result<Vec<Acked>> {
        let stretch = Stretch {
            phase,
            batch_len,
            held,
            interval,
            start: Instant::now(),
            next_idx: AtomicUsize::new(0),
        };
        let acked = std::thread::scope(|scope| {
            let send = || self.send(&stretch);
            let senders: Vec<_> = (0..num_connections).map(|_| scope.spawn(send)).collect();
            let joined = senders.into_iter().map(|sender| {
                let acked = sender.join().ok().context("a sender panicked")?;
                acked
            });
            joined.collect::<anyhow::Result<Vec<_>>>()
        })?;
        Ok(acked.into_iter().flatten().collect())
    }

    /// One connection of a stretch; what is answered after its end does not count.
    fn send(&self, stretch: &Stretch<'_>) -> anyhow::Result<Vec<Acked>> {
        let mut connection = Connection::open(self.address)?;
        let end = stretch.start + stretch.held;
        let mut list = Vec::new();
        loop {
            let batch_idx = stretch.next_idx.fetch_add(1, Ordering::Relaxed);
            let body = self
                .batches
                .body(stretch.phase, batch_idx, stretch.batch_len);
            let sent_at = match stretch.interval {
                Some(interval) => stretch.start + interval * u32::try_from(batch_idx)?,
                None => Instant::now(),
            };
            if sent_at >= end {
                return Ok(list);
            }
            sleep_until(sent_at);
            let answer = connection.send("POST", "/v1/events", &body)?;
            let acked_at = Instant::now();
            ensure!(
                answer["accepted"] == stretch.batch_len,
                "a batch was not accepted: {answer}"
            );
            // In an open loop the latency of a late answer is what one wants to know.
            if acked_at < end || stretch.interval.is_some() {
                list.push(Acked {
                    batch_idx,
                    latency: acked_at - sent_at,
                    acked_at,
                    offset: answer["offset"].as_u64().context("an offset")?,
                });
            }
        }
    }

    /// Looks all the while how far versions have learned.
    pub(crate) fn with_learned(
        &mut self,
        server: &Server,
        run: impl FnOnce(&mut Self) -> anyhow::Result<Vec<Acked>>,
    ) -> anyhow::Result<Learned> {
        let is_done = AtomicBool::new(false);
        let (acked, looks) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| watch(server, &is_done));
            let acked = run(self).and_then(|acked| {
                server.wait_until_learned(LEARN_PATIENCE)?;
                Ok(acked)
            });
            is_done.store(true, Ordering::Relaxed);
            let looks = watch.join().ok().context("the watcher panicked")?;
            anyhow::Ok((acked?, looks?))
        })?;
        let freshness = acked.iter().map(|batch| {
            let learned = looks.iter().find(|(_, through)| *through >= batch.offset);
            let (seen_at, _) = learned.context("a batch was never learned")?;
            Ok(seen_at.saturating_duration_since(batch.acked_at))
        });
        let freshness = freshness.collect::<anyhow::Result<_>>()?;
        Ok(Learned { acked, freshness })
    }
}

/// When versions had learned through where.
fn watch(server: &Server, is_done: &AtomicBool) -> anyhow::Result<Vec<(Instant, u64)>> {
    let mut connection = Connection::open(&server.address)?;
    let mut looks = Vec::new();
    let mut is_last = false;
    while !is_last {
        is_last = is_done.load(Ordering::Relaxed);
        let status = connection.send("GET", "/v1/status", "")?;
        looks.push((
            Instant::now(),
            status["learned_through"].as_u64().unwrap_or(0),
        ));
        sleep_until(Instant::now() + LOOK_INTERVAL);
    }
    Ok(looks)
}
