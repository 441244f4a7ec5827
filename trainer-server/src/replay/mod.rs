//! Replay: a dataset streamed through a real server into real pages, and what came of it in figures.
//!
//! ```text
//! dataset ─ first 80 % by time ─► log ─► server process: warm fit ─► first version (also kept frozen)
//!         └ last 20 % ─► walk: rank, then post, chunk by chunk ─► quality, bytes, versions
//!                        steady phase: planted events ─► freshness
//! ```
//!
//! `freshet replay` runs all of it, `freshet evaluate` all but the steady phase.
//! Everything goes over HTTP and server-sent events, with the edge engine that browser pages run.
//! Not here: the server itself, which is another process.

pub mod api;
pub mod background;
pub mod browser;
pub mod durability;
pub mod effect;
pub mod followers;
pub mod machine;
pub mod quality;
pub(crate) mod report;
pub mod scoring;
pub mod server_process;
pub mod steady;
pub(crate) mod summary;
pub mod walk;
mod warm;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use burn::tensor::Device;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use shared_model::edge::engine::EngineError;
use shared_model::ids::{EventId, IdError};
use shared_model::model::scorer::ScoreError;

use crate::baselines::timelines::Timelines;
use crate::config::ConfigError;
use crate::dataset::{Dataset, DatasetError};
use crate::evaluate::cpu;
use crate::evaluate::systems::{SYSTEMS, Systems};
use crate::learner::LearnError;
use crate::page_client::{Applied, PageClient, PageError, PageKind};
use crate::publish::PublishError;
use crate::text_source::TextSourceError;
use api::ApiError;
use browser::{BrowserError, BrowserPage};
use durability::{Audit, Kills};
use followers::{FollowerRecord, Followers};
use server_process::{ServerProcess, ServerProcessError, ServerSetup};
use steady::{Steady, SteadyOptions, SteadyOutcome};
use walk::{FrozenVersion, Walk, WalkOptions, WalkOutcome};
use warm::Warm;

/// Share of the events, by time, that is learned before the stream.
pub const WARM_SHARE: f64 = 0.8;
/// Background of the steady phase, events per second.
pub const STEADY_RATE: f64 = 200.0;
/// What the time budget keeps back for the steady phase beside its own length.
const STEADY_MARGIN_SECS: u64 = 30;
/// How many of the systems, from the first, the walk itself scores.
pub(crate) const NUM_WALKED: usize = 6;
/// A chunk that is not learned by then is passed over.
const LEARN_WAIT_MAX: Duration = Duration::from_secs(20);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The dataset was refused.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The teacher of releases cannot be loaded.
    #[error("release.teacher_dir cannot be used: {0}")]
    Teacher(Box<crate::cross_encoder::CrossEncoderError>),
    /// Our own server could not be run.
    #[error(transparent)]
    Server(#[from] ServerProcessError),
    /// The server did not take something.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A page could not be opened.
    #[error(transparent)]
    Page(#[from] PageError),
    /// Bulk scoring failed.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// A page could not rank.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A Chromium page failed.
    #[error(transparent)]
    Browser(#[from] BrowserError),
    /// What the server left behind cannot be read.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// An id of ours is too long, because the run id is.
    #[error(transparent)]
    Id(#[from] IdError),
    /// No version is live where one is needed.
    #[error("no version is live in the page")]
    NoVersion,
    /// The server published nothing that holds the warm part.
    #[error("no version learned the first events within {secs} s{trouble}")]
    WarmFit {
        /// How long was waited.
        secs: u64,
        /// What the page last complained about, if anything.
        trouble: String,
    },
    /// Too few events to hold any back.
    #[error("{num_events} events are too few to stream the last of them")]
    NoStream {
        /// How many there are.
        num_events: usize,
    },
    /// No user has a history to probe with.
    #[error("no user has a history to probe with")]
    NoProbe,
    /// The protocol leaves nothing to learn from or nothing to rank.
    #[error(
        "{protocol} learns {num_learned} of {num_events} events, which leaves no part to learn or none to rank"
    )]
    NothingHeldOut {
        /// Its name.
        protocol: &'static str,
        /// Events that it would learn.
        num_learned: usize,
        /// Events in all.
        num_events: usize,
    },
    /// The text encoder or its cache failed.
    #[error(transparent)]
    Text(#[from] TextSourceError),
    /// Learning outside of the server failed.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// A private fit gave codes that are not what was trained.
    #[error(transparent)]
    PrivateFit(Box<crate::gate::GateError>),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A temporary folder could not be made.
    #[error("making a temporary folder failed")]
    Folder {
        /// The reason.
        source: std::io::Error,
    },
    /// The report could not be written.
    #[error("cannot write the report {}", path.display())]
    Report {
        /// Where to.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}

/// What to replay, and how.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// Folder with `events.tsv` and `items.tsv`.
    pub dataset_dir: PathBuf,
    /// A server that runs already; `None` starts one.
    pub server_url: Option<String>,
    /// Model to follow there.
    pub model: String,
    /// Configuration of the server that is started; defaults where absent.
    pub config_file: Option<PathBuf>,
    /// Events per second of the stream; `None` is as fast as they are learned.
    pub rate: Option<f64>,
    /// Native pages in all.
    pub num_pages: usize,
    /// How many of them rank; the others follow.
    pub num_ranking_pages: usize,
    /// Chromium pages beside them.
    pub num_browser_pages: usize,
    /// Folder of the built npm package, served to them.
    pub package_dir: PathBuf,
    /// Length of the steady phase.
    pub steady_secs: u64,
    /// Events ranked and posted together.
    pub chunk_len: usize,
    /// The stream is cut so that everything ends within this time.
    pub time_budget_secs: u64,
    /// Seed of tie-breaking and of every other choice.
    pub seed: u64,
    /// How often the server is killed during the stream; only where it is ours.
    pub num_kills: usize,
    /// Only the first so many events of the dataset.
    pub num_events_max: Option<usize>,
}

/// Everything measured, before it is written down.
pub(crate) struct Measured {
    pub(crate) options: ReplayOptions,
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) split: usize,
    pub(crate) first: Applied,
    pub(crate) snapshot_bytes: Option<u64>,
    pub(crate) learned_code_bytes: u64,
    pub(crate) warm_secs: f64,
    pub(crate) walk: WalkOutcome,
    /// The first version, and what users had done by the end of the stream.
    pub(crate) frozen: FrozenVersion,
    pub(crate) timelines: Timelines,
    pub(crate) server_cpu: Result<ServerCpu, String>,
    pub(crate) steady: Result<SteadyOutcome, String>,
    pub(crate) followers: Vec<FollowerRecord>,
    /// After each kill, until the server answered again.
    pub(crate) restart_secs: Vec<f64>,
    pub(crate) audit: Result<Audit, String>,
    pub(crate) total_secs: f64,
}

/// CPU seconds of our own server process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ServerCpu {
    /// Until the first version was live.
    pub(crate) warm_secs: f64,
    /// From then to the end of the stream.
    pub(crate) stream_secs: f64,
}

/// Runs the whole replay and returns the report.
///
/// # Errors
/// See [`ReplayError`]; a steady phase that fails is a null with a reason in the report instead.
pub async fn replay(options: ReplayOptions) -> Result<Value, ReplayError> {
    let measured = Box::pin(measure(options, true)).await?;
    let names = &SYSTEMS[..NUM_WALKED];
    let seed = measured.options.seed;
    let systems = Systems::of(&measured.walk.outcomes, names, seed, report::absence);
    summary::print(&measured, &systems);
    Ok(report::replay_report(&measured, &systems))
}

/// Whether a report can be written there later: asked before work that takes long.
///
/// # Errors
/// It cannot.
pub fn check_can_write(path: &Path) -> Result<(), ReplayError> {
    let partial = path.with_extension("partial");
    std::fs::File::create(&partial)
        .and_then(|_| std::fs::remove_file(&partial))
        .map_err(|source| ReplayError::Report {
            path: path.to_owned(),
            source,
        })
}

/// Writes a document, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_json(path: &Path, document: &Value) -> Result<(), ReplayError> {
    write_text(path, &format!("{document:#}\n"))
}

/// Writes a text, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<(), ReplayError> {
    write_bytes(path, text.as_bytes())
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), ReplayError> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|source| ReplayError::Report {
            path: path.to_owned(),
            source,
        })
}

pub(crate) async fn measure(
    options: ReplayOptions,
    has_steady: bool,
) -> Result<Measured, ReplayError> {
    let started_at = Instant::now();
    let (dataset, split) = load(&options)?;
    let run_id = run_id();
    let mut warm = Warm::start(&options, &dataset, split, &run_id).await?;
    let warm_secs = started_at.elapsed().as_secs_f64();
    phase(
        started_at,
        &format!("version {} is live", warm.first.version),
    );

    let num_following = options.num_pages.saturating_sub(options.num_ranking_pages);
    let followers = Followers::start(warm.api.address(), num_following).await?;
    let live = warm.page.live().ok_or(ReplayError::NoVersion)?;
    let snapshot_bytes = live
        .manifest
        .snapshot
        .as_ref()
        .map(|snapshot| snapshot.bytes);
    let learned_code_bytes = live.manifest.learned_code_bytes;
    let walk_options = walk_options(&options, has_steady, started_at, &run_id);
    let warm_cpu = server_cpu_secs(&warm, options.num_kills);
    let (walk, frozen, restart_secs) =
        run_walk(&dataset, split, &mut warm, &walk_options, options.num_kills).await?;
    phase(
        started_at,
        &format!("{} events streamed", walk.num_streamed),
    );

    let all_cpu = server_cpu_secs(&warm, options.num_kills);
    let server_cpu = warm_cpu.and_then(|warm_secs| {
        let stream_secs = all_cpu? - warm_secs;
        Ok(ServerCpu {
            warm_secs,
            stream_secs,
        })
    });
    let steady = if has_steady {
        run_steady(&options, &dataset, &mut warm, &run_id)
            .await
            .map_err(|error| with_causes(&error))
    } else {
        Err("evaluate has no steady phase".to_owned())
    };
    let followers = followers.stop();
    let audit = audit_server(warm.process.take(), &run_id, split, &walk);
    phase(started_at, "done");
    Ok(Measured {
        restart_secs,
        audit,
        first: warm.first,
        timelines: warm.timelines,
        frozen,
        server_cpu,
        options,
        split,
        snapshot_bytes,
        learned_code_bytes,
        warm_secs,
        walk,
        steady,
        followers,
        total_secs: started_at.elapsed().as_secs_f64(),
        dataset,
    })
}

fn walk_options(
    options: &ReplayOptions,
    has_steady: bool,
    started_at: Instant,
    run_id: &str,
) -> WalkOptions {
    let reserved_secs = if has_steady {
        options.steady_secs + STEADY_MARGIN_SECS
    } else {
        0
    };
    let budget_secs = options.time_budget_secs.saturating_sub(reserved_secs);
    WalkOptions {
        chunk_len: options.chunk_len,
        rate: options.rate,
        deadline: started_at + Duration::from_secs(budget_secs),
        learn_wait_max: LEARN_WAIT_MAX,
        run_id: run_id.to_owned(),
    }
}

/// CPU seconds of our own server process so far.
fn server_cpu_secs(warm: &Warm, num_kills: usize) -> Result<f64, String> {
    let process = warm.process.as_ref().ok_or("the server is not ours")?;
    if num_kills > 0 {
        return Err("the server was killed, and its next process counts from zero".to_owned());
    }
    cpu::process_secs(process.id())
}

/// The dataset, and where its stream begins.
pub(crate) fn load(options: &ReplayOptions) -> Result<(Arc<Dataset>, usize), ReplayError> {
    let mut dataset = Dataset::load(&options.dataset_dir, options.seed)?;
    dataset
        .events
        .truncate(options.num_events_max.unwrap_or(usize::MAX));
    let split = dataset.split_at(WARM_SHARE);
    if split == 0 || split == dataset.events.len() {
        return Err(ReplayError::NoStream {
            num_events: dataset.events.len(),
        });
    }
    Ok((Arc::new(dataset), split))
}

async fn run_walk(
    dataset: &Dataset,
    split: usize,
    warm: &mut Warm,
    options: &WalkOptions,
    num_kills: usize,
) -> Result<(WalkOutcome, FrozenVersion, Vec<f64>), ReplayError> {
    let frozen = FrozenVersion::of(&mut warm.page, dataset).ok_or(ReplayError::NoVersion)?;
    let mut baselines = warm.baselines(dataset, &frozen);
    let stream = &dataset.events[split..];
    let num_chunks = stream.len().div_ceil(options.chunk_len);
    let mut kills = warm
        .process
        .as_mut()
        .map(|process| Kills::new(process, num_kills, num_chunks, dataset.tie_seed));
    let mut walk = Walk {
        dataset,
        timelines: &mut warm.timelines,
        baselines: &mut baselines,
        page: &mut warm.page,
        frozen,
        api: &warm.api,
        progress: bar(stream.len(), "stream"),
    };
    let outcome = walk.run(stream, options, kills.as_mut()).await?;
    Ok((
        outcome,
        walk.frozen,
        kills.map_or_else(Vec::new, |kills| kills.restart_secs),
    ))
}

/// Ends our server for good and looks at what it left on disk.
fn audit_server(
    process: Option<ServerProcess>,
    run_id: &str,
    split: usize,
    walk: &WalkOutcome,
) -> Result<Audit, String> {
    let mut process = process.ok_or("the disk of a server that is not ours is not looked at")?;
    let mut audited = || -> Result<Audit, ReplayError> {
        process.kill()?;
        let warm = (0..split).map(|idx| event_id(run_id, "warm", idx));
        let streamed = (0..walk.num_streamed)
            .filter(|idx| !walk.rejected.contains(idx))
            .map(|idx| event_id(run_id, "stream", idx));
        let acked = warm.chain(streamed).collect::<Result<Vec<_>, _>>()?;
        durability::audit(process.config(), acked)
    };
    audited().map_err(|error| with_causes(&error))
}

async fn run_steady(
    options: &ReplayOptions,
    dataset: &Arc<Dataset>,
    warm: &mut Warm,
    run_id: &str,
) -> Result<SteadyOutcome, ReplayError> {
    let address = warm.api.address().clone();
    let num_ranking = options.num_ranking_pages.min(options.num_pages).max(1);
    let mut pages = Vec::with_capacity(num_ranking);
    for _ in 0..num_ranking {
        let mut page = PageClient::connect(&address, PageKind::Ranking(Device::flex())).await?;
        let first_version = tokio::time::timeout(LEARN_WAIT_MAX, page.next_version()).await;
        first_version.map_err(|_elapsed| ReplayError::NoVersion)?;
        pages.push(page);
    }
    let mut browsers = Vec::with_capacity(options.num_browser_pages);
    for _ in 0..options.num_browser_pages {
        browsers.push(BrowserPage::open(&address).await?);
    }
    let mut steady = Steady {
        dataset,
        timelines: &warm.timelines,
        pages: &mut pages,
        browsers: &browsers,
        api: &warm.api,
        progress: bar(0, "steady: plants"),
    };
    let steady_options = SteadyOptions {
        secs: options.steady_secs,
        rate: STEADY_RATE,
        seed: options.seed,
        run_id: run_id.to_owned(),
    };
    steady.run(&steady_options).await
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// An id that is unique over runs against one server.
fn event_id(run_id: &str, phase: &str, idx: usize) -> Result<EventId, IdError> {
    EventId::new(format!("{run_id}-{phase}-{idx}"))
}

fn run_id() -> String {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("replay-{:x}", since.as_millis())
}

/// A line on standard error at the end of each phase, for logs that show no bars.
fn phase(started_at: Instant, what: &str) {
    eprintln!("[{:7.1} s] {what}", started_at.elapsed().as_secs_f64());
}

pub(crate) fn bar(len: usize, label: &'static str) -> ProgressBar {
    let template = "{prefix:>16} {wide_bar} {pos}/{len} {per_sec} {msg} {elapsed}";
    let style = ProgressStyle::with_template(template).expect("the template is ours and valid");
    let bar = match len {
        0 => ProgressBar::no_length(),
        len => ProgressBar::new(len as u64), // usize fits u64
    };
    bar.with_style(style).with_prefix(label)
}
