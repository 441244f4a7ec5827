//! Trainer: the thread that turns the log into versions.
//!
//! One round: read what is new, score it, learn, compress, gate, publish. In idle slices it trains the
//! next release. It talks to the log and the publisher only; HTTP reads what it shares behind `Arc`s.
//!
//! Overload (live clock only): when more waits than [`BACKLOG_ROUNDS_MAX`] rounds can take, the newest
//! events are learned first; the older ones still enter histories and item counts, and the counts of neighbours in idle
//! slices; their offsets are written to `skipped.jsonl`, and a refit learns them once they are many (`worker::backlog`).
//!
//! A write that fails, as on a full disk, is no end: the trainer pauses and tries again (`worker::pause`).

mod serving;
mod worker;

pub(crate) use serving::MODELS_MAX;
pub(crate) use worker::encoder_of;
pub(crate) use worker::skipped::passed_over;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::canary::reports::Reports;
use crate::catalogue::Catalogue;
use crate::checkpoint::CheckpointError;
use crate::config::Config;
use crate::device::DeviceError;
use crate::event_log::{EventLog, EventLogError};
use crate::http::Recommender;
use crate::learner::{LearnError, RestoreError};
use crate::ledger::Ledger;
use crate::privacy::SpendError;
use crate::publish::{PublishError, Publisher};
use crate::rollout::{Operator, RolloutError};
use serving::Serving;
use worker::Worker;

/// Rounds' worth of waiting events above which the oldest are no longer learned one by one.
const BACKLOG_ROUNDS_MAX: usize = 16;

/// Everything the trainer works with.
pub struct TrainerParts {
    /// Settings.
    pub config: Arc<Config>,
    /// Where events come from.
    pub log: EventLog,
    /// Where versions go.
    pub publisher: Publisher,
    /// Rows about versions, shared with HTTP.
    pub ledger: Ledger,
    /// What pages say of versions, shared with HTTP.
    pub reports: Reports,
    /// Known items, shared with HTTP.
    pub catalogue: Catalogue,
}

/// Why the trainer stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// The thread could not be started.
    #[error("the trainer thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// No device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// No text encoder.
    #[error(transparent)]
    TextSource(#[from] crate::text_source::TextSourceError),
    /// The teacher of releases cannot be loaded.
    #[error("release.teacher_dir cannot be used: {0}")]
    Teacher(#[from] crate::cross_encoder::CrossEncoderError),
    /// The text encoder that is configured is not the one that has learned.
    #[error(
        "generation {generation:08x} of the text encoder learned from the weights {expected}, but those of model.text_encoder_dir or the cache are {actual}"
    )]
    TextBase {
        /// What is published.
        generation: u32,
        /// Fingerprint of the weights that it changed.
        expected: String,
        /// Of those that were loaded.
        actual: String,
    },
    /// The log failed.
    #[error(transparent)]
    Log(#[from] EventLogError),
    /// Learning failed.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// The published version does not fit the log or the configuration.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A version could not be written.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// What an operator ordered could not be read or kept.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// A checkpoint could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A version could not be scored for its self-test.
    #[error(transparent)]
    Score(#[from] shared_model::model::scorer::ScoreError),
    /// A rollback was published, but the log could not be read again; a restart goes on from it.
    #[error("the log could not be read again after a rollback, start again: {0}")]
    HalfRead(Box<TrainerError>),
    /// What private training has spent could not be read or kept, or the folder is none of a private server.
    #[error(transparent)]
    Privacy(#[from] SpendError),
    /// The list of skipped offsets could not be read or written.
    #[error("the list of skipped offsets cannot be used: {source}, {path}")]
    Skipped {
        /// Why.
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
}

impl TrainerError {
    /// Whether the same may work later, as when a disk was full.
    fn may_pass(&self) -> bool {
        match self {
            Self::Publish(error) => error.may_pass(),
            Self::Log(error) => {
                matches!(error, EventLogError::Storage(_) | EventLogError::Reopening)
            }
            Self::Checkpoint(error) => matches!(error, CheckpointError::Io { .. }),
            Self::Privacy(error) => matches!(error, SpendError::Io { .. }),
            Self::Rollout(_) | Self::Skipped { .. } => true,
            Self::Thread(_)
            | Self::Device(_)
            | Self::TextSource(_)
            | Self::Teacher(_)
            | Self::TextBase { .. }
            | Self::Learn(_)
            | Self::Restore(_)
            | Self::Score(_)
            | Self::HalfRead(_) => false,
        }
    }
}

/// A running trainer.
pub struct TrainerHandle {
    serving: Arc<Serving>,
    stop: Arc<AtomicBool>,
    operator: Operator,
    thread: JoinHandle<()>,
}

/// Starts the thread. Loading the encoder, recovery and a warm fit happen on it, so this returns at once.
///
/// # Errors
/// The thread could not be started.
pub fn start(parts: TrainerParts) -> Result<TrainerHandle, TrainerError> {
    let serving = Arc::new(Serving::new(&parts.config, parts.publisher.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    let (thread_serving, thread_stop) = (Arc::clone(&serving), Arc::clone(&stop));
    let (operator, orders) = Operator::channel();
    let train = parts.config.train.clone();
    let run = move || {
        crate::priority::stand_back(train.niceness);
        let worked = || {
            let (serving, stop) = (Arc::clone(&thread_serving), Arc::clone(&thread_stop));
            Worker::open(parts, serving, stop, orders)?.run()
        };
        let outcome = threads(train.num_threads).and_then(|threads| threads.install(worked));
        if let Err(error) = outcome {
            tracing::error!(%error, "the trainer stopped; events are still taken, versions are still served");
            thread_serving.failed(&error.to_string());
        }
    };
    let thread = std::thread::Builder::new()
        .name("trainer".to_owned())
        .spawn(run)?;
    Ok(TrainerHandle {
        serving,
        stop,
        operator,
        thread,
    })
}

/// The threads of the numeric code; they stand back as far as the caller.
fn threads(num_threads: usize) -> Result<ThreadPool, TrainerError> {
    let threads = ThreadPoolBuilder::new().num_threads(num_threads); // 0: as many as cores
    let threads = threads.thread_name(|thread_idx| format!("trainer-{thread_idx}"));
    threads
        .build()
        .map_err(|error| TrainerError::Thread(io::Error::other(error)))
}

impl TrainerHandle {
    /// Who ranks on the server.
    #[must_use]
    pub fn recommender(&self) -> Arc<dyn Recommender> {
        Arc::clone(&self.serving) as Arc<dyn Recommender>
    }

    /// Who takes orders about versions.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// Finishes the round under way, writes a checkpoint, ends the thread.
    pub fn shutdown(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the trainer thread panicked");
        }
    }
}
