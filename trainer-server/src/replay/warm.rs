//! Up to the first version: a server that has learned the first part of the dataset.
//!
//! Our own server finds that part in its log and starts with a warm fit.
//! A server that runs already gets it over HTTP and learns it as it learns everything.

use std::time::{Duration, Instant};

use burn::tensor::Device;
use indicatif::ProgressBar;
use shared_model::event::Event;
use shared_model::ids::{IdError, LogOffset};

use super::api::ServerApi;
use super::server_process::ServerProcess;
use super::walk::FrozenVersion;
use super::{ReplayError, ReplayOptions, ServerSetup, bar, event_id};
use crate::baselines::Baselines;
use crate::baselines::timelines::{Query, Timelines};
use crate::dataset::Dataset;
use crate::evaluate::offline;
use crate::page_client::{Applied, PageClient, PageKind, ServerAddress};

/// When a warm fit is given up.
const WARM_FIT_SECS_MAX: u64 = 1800;

/// A server with a first version, and a ranking page that follows it.
pub(super) struct Warm {
    /// Killed on drop; absent where the server is not ours.
    pub(super) process: Option<ServerProcess>,
    pub(super) api: ServerApi,
    pub(super) page: PageClient,
    pub(super) first: Applied,
    pub(super) timelines: Timelines,
    queries: Vec<Query>,
}

impl Warm {
    /// Starts or fills the server and waits until a version holds the first `split` events.
    ///
    /// # Errors
    /// The server cannot be started or filled, or publishes nothing in time.
    pub(super) async fn start(
        options: &ReplayOptions,
        dataset: &Dataset,
        split: usize,
        run_id: &str,
    ) -> Result<Self, ReplayError> {
        let (mut process, api, learned_end) = match &options.server_url {
            Some(url) => {
                let api = ServerApi::new(&ServerAddress::new(url, &options.model))?;
                let end = post_warm(&api, dataset, split, run_id).await?;
                (None, api, end)
            }
            None => {
                let (mut process, end) = start_process(options, dataset, split, run_id).await?;
                process.wait_until_healthy().await?;
                let api = ServerApi::new(&process.address())?;
                (Some(process), api, end)
            }
        };
        let mut timelines = Timelines::new(dataset.users.len());
        let queries = dataset.events[..split]
            .iter()
            .map(|event| timelines.push(event))
            .collect();
        let mut page =
            PageClient::connect(api.address(), PageKind::Ranking(Device::flex())).await?;
        let first = wait_for_version(&mut page, &mut process, &api, learned_end).await?;
        Ok(Self {
            process,
            api,
            page,
            first,
            timelines,
            queries,
        })
    }

    /// Baselines that have seen the first part, with the text embeddings that pages have.
    pub(super) fn baselines(&self, dataset: &Dataset, frozen: &FrozenVersion) -> Baselines {
        offline::baselines(dataset, frozen, &self.queries, &self.timelines)
    }
}

fn warm_events<'a>(
    dataset: &'a Dataset,
    split: usize,
    run_id: &str,
) -> Result<impl Iterator<Item = Event> + 'a, IdError> {
    event_id(run_id, "warm", split)?; // the longest: if it is an id, all are
    let run_id = run_id.to_owned();
    let events = dataset.events[..split].iter().enumerate();
    Ok(events.map(move |(idx, event)| {
        let event_id = event_id(&run_id, "warm", idx).expect("shorter than one that was accepted");
        dataset.to_event(event, event_id)
    }))
}

async fn start_process(
    options: &ReplayOptions,
    dataset: &Dataset,
    split: usize,
    run_id: &str,
) -> Result<(ServerProcess, LogOffset), ReplayError> {
    let static_dir = (options.num_browser_pages > 0).then(|| options.package_dir.clone());
    let setup = ServerSetup {
        config_file: options.config_file.clone(),
        static_dir,
    };
    let events = warm_events(dataset, split, run_id)?;
    let progress = bar(dataset.items.len() + split, "import");
    let started = ServerProcess::start(&setup, &dataset.items, events, &progress).await?;
    progress.finish();
    Ok(started)
}

async fn post_warm(
    api: &ServerApi,
    dataset: &Dataset,
    split: usize,
    run_id: &str,
) -> Result<LogOffset, ReplayError> {
    api.put_items(&dataset.items).await?;
    let progress = bar(split, "import");
    let events: Vec<Event> = warm_events(dataset, split, run_id)?.collect();
    let mut end = LogOffset(0);
    for batch in events.chunks(super::api::BATCH_LEN_MAX) {
        end = api.post_events(batch).await?.offset;
        progress.inc(batch.len() as u64); // usize fits u64
    }
    progress.finish();
    Ok(end)
}

/// Waits for a version that has learned through `end`, and shows what the server says meanwhile.
async fn wait_for_version(
    page: &mut PageClient,
    process: &mut Option<ServerProcess>,
    api: &ServerApi,
    end: LogOffset,
) -> Result<Applied, ReplayError> {
    let spinner = bar(0, "warm fit");
    let deadline = Instant::now() + Duration::from_secs(WARM_FIT_SECS_MAX);
    while Instant::now() < deadline {
        match tokio::time::timeout(Duration::from_secs(1), page.next_version()).await {
            Ok(applied) if applied.learned_through >= end => {
                spinner.finish();
                return Ok(applied);
            }
            Ok(applied) => spinner.set_position(applied.learned_through.0),
            Err(_elapsed) => {}
        }
        if let Some(process) = process {
            process.check_alive()?;
        }
        show_status(&spinner, api).await;
    }
    let trouble = page
        .troubles()
        .last
        .as_ref()
        .map(|last| format!("; the page last met: {last}"));
    Err(ReplayError::WarmFit {
        secs: WARM_FIT_SECS_MAX,
        trouble: trouble.unwrap_or_default(),
    })
}

async fn show_status(spinner: &ProgressBar, api: &ServerApi) {
    if let Some(status) = api.status().await {
        let text: String = status.to_string().chars().take(100).collect();
        spinner.set_message(text);
    }
}
