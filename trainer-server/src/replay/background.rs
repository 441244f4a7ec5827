//! Background of the steady phase: the end of the stream again and again, at a constant rate, with
//! new ids and with times that go on after the end of the stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::ReplayError;
use super::api::ServerApi;
use super::steady::SteadyOptions;
use crate::dataset::Dataset;

/// Events that are repeated: the newest ones.
const LOOP_LEN_MAX: usize = 20_000;
/// Batches per second.
const BATCHES_PER_SEC: f64 = 10.0;

/// Event time that goes on at the speed of the clock after the newest event of the dataset.
#[derive(Debug, Clone, Copy)]
pub struct EventClock {
    start_millis: i64,
    started_at: Instant,
}

impl EventClock {
    /// Starts now, one second after the newest event.
    #[must_use]
    pub fn after(dataset: &Dataset) -> Self {
        let newest = dataset.events.last().map_or(0, |event| event.occurred_at);
        Self {
            start_millis: newest + 1000,
            started_at: Instant::now(),
        }
    }

    /// The present in event time.
    #[must_use]
    pub fn now_millis(&self) -> i64 {
        let elapsed = i64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(i64::MAX); // minutes
        self.start_millis.saturating_add(elapsed)
    }
}

/// What was posted.
#[derive(Debug, Clone, Default)]
pub struct BackgroundOutcome {
    /// Events acknowledged.
    pub num_posted: usize,
    /// Time from sending a batch to its acknowledgement.
    pub ack_millis: Vec<f64>,
    /// Duration.
    pub secs: f64,
    /// Why it ended early, if it did.
    pub failure: Option<String>,
}

/// The task that posts.
#[derive(Debug)]
pub struct Background {
    task: JoinHandle<BackgroundOutcome>,
    is_stopping: Arc<AtomicBool>,
}

impl Background {
    /// Starts posting.
    #[must_use]
    pub fn start(
        api: &ServerApi,
        dataset: &Arc<Dataset>,
        clock: EventClock,
        options: &SteadyOptions,
    ) -> Self {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let poster = Poster {
            api: api.clone(),
            dataset: Arc::clone(dataset),
            clock,
            batch_len: (options.rate / BATCHES_PER_SEC).round().max(1.0) as usize, // a few hundred at most
            run_id: options.run_id.clone(),
            is_stopping: Arc::clone(&is_stopping),
        };
        Self {
            task: tokio::spawn(poster.run(options.rate)),
            is_stopping,
        }
    }

    /// Ends after the batch under way.
    pub async fn stop(self) -> BackgroundOutcome {
        self.is_stopping.store(true, Ordering::Relaxed);
        match self.task.await {
            Ok(outcome) => outcome,
            Err(error) => BackgroundOutcome {
                failure: Some(error.to_string()),
                ..BackgroundOutcome::default()
            },
        }
    }
}

struct Poster {
    api: ServerApi,
    dataset: Arc<Dataset>,
    clock: EventClock,
    batch_len: usize,
    run_id: String,
    is_stopping: Arc<AtomicBool>,
}

impl Poster {
    async fn run(self, rate: f64) -> BackgroundOutcome {
        let mut outcome = BackgroundOutcome::default();
        let mut ticks =
            tokio::time::interval(Duration::from_secs_f64(self.batch_len as f64 / rate)); // small
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let started_at = Instant::now();
        while !self.is_stopping.load(Ordering::Relaxed) {
            ticks.tick().await;
            let sent_at = Instant::now();
            if let Err(error) = self.post(outcome.num_posted).await {
                outcome.failure = Some(super::with_causes(&error));
                break;
            }
            outcome.num_posted += self.batch_len;
            outcome
                .ack_millis
                .push(sent_at.elapsed().as_secs_f64() * 1000.0);
        }
        outcome.secs = started_at.elapsed().as_secs_f64();
        outcome
    }

    async fn post(&self, num_posted: usize) -> Result<(), ReplayError> {
        let repeated =
            &self.dataset.events[self.dataset.events.len().saturating_sub(LOOP_LEN_MAX)..];
        let occurred_at = self.clock.now_millis();
        let mut events = Vec::with_capacity(self.batch_len);
        for (idx, event) in repeated
            .iter()
            .cycle()
            .skip(num_posted % repeated.len())
            .take(self.batch_len)
            .enumerate()
        {
            let event_id = super::event_id(&self.run_id, "background", num_posted + idx)?;
            let mut event = self.dataset.to_event(event, event_id);
            event.occurred_at = occurred_at;
            events.push(event);
        }
        self.api.post_events(&events).await?;
        Ok(())
    }
}
