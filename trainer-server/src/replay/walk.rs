//! The prequential walk: every event of the stream is ranked by the live version before it is posted.
//!
//! ```text
//! chunk ─► rank with the live version ─► POST ─► rank with the frozen version and the baselines
//!                 ▲                                          │ (the server learns meanwhile)
//!                 └── wait until a version has learned through the returned offset ◄┘
//! ```
//!
//! With a rate, chunks are posted by the clock instead, and ranked by whatever is live then.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::ids::LogOffset;

use super::ReplayError;
use super::api::ServerApi;
use super::durability::Kills;
use super::scoring::{ItemRows, RankModel, score_chunk};
use crate::baselines::timelines::{Query, Timelines};
use crate::baselines::{Baselines, Learning};
use crate::dataset::{Dataset, DatasetEvent};
use crate::evaluate::outcomes::Outcomes;
use crate::page_client::{Applied, PageClient};

/// How to walk.
#[derive(Debug, Clone)]
pub struct WalkOptions {
    /// Events ranked and posted together.
    pub chunk_len: usize,
    /// Events per second; `None` is as fast as they are learned.
    pub rate: Option<f64>,
    /// Events not begun by then are left out.
    pub deadline: Instant,
    /// How long to wait for a chunk to be learned before going on without.
    pub learn_wait_max: Duration,
    /// Start of every event id.
    pub run_id: String,
}

/// What the walk found.
#[derive(Debug, Clone, Default)]
pub struct WalkOutcome {
    /// Every answer of every system.
    pub outcomes: Outcomes,
    /// What was predicted, for systems that walk the same stream afterwards.
    pub queries: Vec<Query>,
    /// Versions that became live in the ranking page, in order.
    pub applied: Vec<Applied>,
    /// Events ranked and posted.
    pub num_streamed: usize,
    /// Events left out because time was up.
    pub num_left_out: usize,
    /// The first refusal in words.
    pub first_rejection: Option<String>,
    /// Chunks that were not learned in time.
    pub num_waits_given_up: usize,
    /// Bytes that the page downloaded meanwhile.
    pub downloaded_bytes: u64,
    /// Positions in the stream of the events that the server refused.
    pub rejected: BTreeSet<usize>,
    /// End of the log after the last chunk.
    pub end: LogOffset,
    /// Duration.
    pub secs: f64,
    /// Seconds of it spent on ranking by the live and the frozen version and by the baselines.
    pub scoring_secs: f64,
}

/// Everything the walk works with.
pub struct Walk<'a> {
    /// The whole dataset.
    pub dataset: &'a Dataset,
    /// What users had done before the stream.
    pub timelines: &'a mut Timelines,
    /// Baselines that learned what came before the stream.
    pub baselines: &'a mut Baselines,
    /// A ranking page with a live version.
    pub page: &'a mut PageClient,
    /// The first version, kept.
    pub frozen: FrozenVersion,
    /// The server.
    pub api: &'a ServerApi,
    /// Shows how far it is.
    pub progress: ProgressBar,
}

/// A version that is kept while the server goes on.
#[derive(Debug, Clone)]
pub struct FrozenVersion {
    /// Scorer and index.
    pub ready: ReadyVersion,
    /// Codes.
    pub state: CodeState,
    /// Rows of the dataset's items.
    pub rows: ItemRows,
}

impl FrozenVersion {
    /// Keeps what is live in a ranking page; `None` if nothing is.
    #[must_use]
    pub fn of(page: &mut PageClient, dataset: &Dataset) -> Option<Self> {
        let engine = page.engine_mut()?;
        let ready = engine.ready()?.clone();
        let state = engine.sync().live()?.state.clone();
        let rows = ItemRows::new(dataset, &ready);
        Some(Self { ready, state, rows })
    }
}

impl Walk<'_> {
    /// Walks through `stream`, which is in time order and follows what was learned before; `kills` are of the
    /// server that it is posted to.
    ///
    /// # Errors
    /// The server refused a whole batch or went away for good, or the device failed.
    pub async fn run(
        &mut self,
        stream: &[DatasetEvent],
        options: &WalkOptions,
        mut kills: Option<&mut Kills<'_>>,
    ) -> Result<WalkOutcome, ReplayError> {
        let num_before = self.dataset.events.len() - stream.len();
        let mut outcome = WalkOutcome {
            outcomes: Outcomes::new(self.dataset.items.len(), &self.dataset.events[..num_before]),
            ..WalkOutcome::default()
        };
        let mut rows = self.frozen.rows.clone();
        let started_at = Instant::now();
        let downloaded_before = self.page.downloads().total_bytes();
        for (chunk_idx, chunk) in stream.chunks(options.chunk_len).enumerate() {
            if Instant::now() >= options.deadline {
                break;
            }
            let queries: Vec<Query> = chunk
                .iter()
                .map(|event| self.timelines.push(event))
                .collect();
            outcome.outcomes.ask(&queries);
            outcome.queries.extend(&queries);
            self.rank_live(&queries, &mut rows, &mut outcome).await?;
            let strike = async {
                match &mut kills {
                    Some(kills) => kills.strike(chunk_idx).await.map_err(ReplayError::from),
                    None => Ok(()),
                }
            };
            tokio::try_join!(self.post(chunk, &options.run_id, &mut outcome), strike)?;
            self.rank_others(&queries, &mut outcome).await?;
            match options.rate {
                None => {
                    self.wait_until_learned(options.learn_wait_max, &mut outcome)
                        .await
                }
                Some(rate) => {
                    let due =
                        started_at + Duration::from_secs_f64(outcome.num_streamed as f64 / rate); // counts fit f64
                    self.follow_until(due, &mut outcome).await;
                }
            }
            self.progress.inc(chunk.len() as u64); // usize fits u64
        }
        outcome.num_left_out = stream.len() - outcome.num_streamed;
        outcome.downloaded_bytes = self.page.downloads().total_bytes() - downloaded_before;
        outcome.secs = started_at.elapsed().as_secs_f64();
        self.progress.finish();
        Ok(outcome)
    }

    async fn rank_live(
        &mut self,
        queries: &[Query],
        rows: &mut ItemRows,
        outcome: &mut WalkOutcome,
    ) -> Result<(), ReplayError> {
        let began_at = Instant::now();
        let engine = self.page.engine_mut().ok_or(ReplayError::NoVersion)?;
        let (Some(ready), Some(live)) = (engine.ready(), engine.sync().live()) else {
            return Err(ReplayError::NoVersion);
        };
        rows.refresh(self.dataset, ready);
        let model = RankModel {
            ready,
            state: &live.state,
            rows,
            kind: self.dataset.kind,
        };
        let ranked = score_chunk(model, queries, self.timelines).await?;
        outcome.outcomes.answer("freshet", &ranked);
        outcome.scoring_secs += began_at.elapsed().as_secs_f64();
        Ok(())
    }

    async fn rank_others(
        &mut self,
        queries: &[Query],
        outcome: &mut WalkOutcome,
    ) -> Result<(), ReplayError> {
        let began_at = Instant::now();
        let frozen = &self.frozen;
        let model = RankModel {
            ready: &frozen.ready,
            state: &frozen.state,
            rows: &frozen.rows,
            kind: self.dataset.kind,
        };
        let ranked = score_chunk(model, queries, self.timelines).await?;
        outcome.outcomes.answer("frozen", &ranked);
        let learning = Learning::EventByEvent;
        for (name, ranked) in self.baselines.rank(queries, self.timelines, learning) {
            outcome.outcomes.answer(name, &ranked);
        }
        outcome.scoring_secs += began_at.elapsed().as_secs_f64();
        Ok(())
    }

    async fn post(
        &self,
        chunk: &[DatasetEvent],
        run_id: &str,
        outcome: &mut WalkOutcome,
    ) -> Result<(), ReplayError> {
        let mut events = Vec::with_capacity(chunk.len());
        for (idx, event) in chunk.iter().enumerate() {
            let event_id = super::event_id(run_id, "stream", outcome.num_streamed + idx)?;
            events.push(self.dataset.to_event(event, event_id));
        }
        let receipt = self.api.post_events(&events).await?;
        let rejected = receipt
            .rejected
            .iter()
            .map(|one| outcome.num_streamed + one.index);
        outcome.rejected.extend(rejected);
        outcome.num_streamed += chunk.len();
        outcome.end = receipt.offset;
        if let (None, Some(first)) = (&outcome.first_rejection, receipt.rejected.first()) {
            outcome.first_rejection = Some(format!("{}: {}", first.code, first.detail));
        }
        Ok(())
    }

    async fn wait_until_learned(&mut self, wait_max: Duration, outcome: &mut WalkOutcome) {
        let deadline = tokio::time::Instant::now() + wait_max;
        let is_learned = |page: &PageClient, end| {
            page.live()
                .is_some_and(|live| live.manifest.learned_through >= end)
        };
        while !is_learned(self.page, outcome.end) {
            match tokio::time::timeout_at(deadline, self.page.next_version()).await {
                Ok(applied) => outcome.applied.push(applied),
                Err(_elapsed) => {
                    outcome.num_waits_given_up += 1;
                    return;
                }
            }
        }
    }

    async fn follow_until(&mut self, due: Instant, outcome: &mut WalkOutcome) {
        while let Ok(applied) = tokio::time::timeout_at(due.into(), self.page.next_version()).await
        {
            outcome.applied.push(applied);
        }
    }
}
