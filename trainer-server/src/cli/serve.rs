//! `freshet serve`: opens everything, runs until told to stop, closes everything within seconds.

#[cfg(unix)]
mod reload;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use burn::tensor::Device;
use clap::Args;
use shared_model::manifest::Manifest;
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;

use super::ConfigArgs;
use crate::access::{AccessError, Keys, LiveKeys};
use crate::audit::AuditLog;
use crate::canary::reports::Reports;
use crate::catalogue::Catalogue;
use crate::clock::now_millis;
use crate::config::Config;
use crate::cross_encoder;
use crate::erasure;
use crate::event_log::{EventLog, EventLogConfig};
use crate::experiment::store::Experiments;
use crate::http::{self, AppParts, AppState};
use crate::ladder::Recipe;
use crate::ledger::movement::Movement;
use crate::ledger::{Ledger, LedgerRow, Origin, Provenance, PublishedRow};
use crate::moderation::{self, Moderation};
use crate::observe::{self, Observer};
use crate::page_encoder::keeper::{self, KeeperParts};
use crate::page_encoder::packs::TextPacks;
use crate::page_encoder::recipe_of;
use crate::pseudonyms::Pseudonyms;
use crate::publish::{PublishError, Publisher, StoreLimits};
use crate::reserve::Reserve;
use crate::rollout::RolloutState;
use crate::telemetry::{LineFilter, Telemetry};
use crate::text_source::TextSource;
use crate::trainer::{self, TrainerHandle, TrainerParts};
use crate::visits::VisitTokens;

/// How long the trainer may take to stop; what it did not publish it learns again.
const TRAINER_STOP_TIMEOUT: Duration = Duration::from_millis(2000);
/// How often the operator is warned of keys that are about to expire.
const KEY_WARNING_INTERVAL: Duration = Duration::from_secs(86_400);
/// File handles for everything but connections.
const FILE_HANDLES: usize = 512;
/// Threads for requests; learning has its own.
const NUM_HTTP_THREADS: usize = 2;

/// Flags of `freshet serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Address to listen on [default: 127.0.0.1:7878]
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<SocketAddr>,
    /// Address of operators: /metrics and orders such as `freshet rollback` [default: 127.0.0.1:7879]
    #[arg(long, value_name = "ADDRESS")]
    pub admin_bind: Option<SocketAddr>,
    /// Folder to serve at /, for example a demo shop
    #[arg(long, value_name = "DIR")]
    pub static_dir: Option<PathBuf>,
    /// Print the effective configuration as TOML and exit
    #[arg(long)]
    pub print_config: bool,
}

impl ServeArgs {
    fn load_config(&self) -> anyhow::Result<Config> {
        let flags = [
            ("server.bind", self.bind.map(|bind| bind.to_string())),
            (
                "server.admin_bind",
                self.admin_bind.map(|bind| bind.to_string()),
            ),
            (
                "server.static_dir",
                self.static_dir
                    .as_ref()
                    .map(|dir| dir.display().to_string()),
            ),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        self.config.load(given.collect())
    }
}

/// Runs the command.
///
/// # Errors
/// Bad settings, a port or folder in use, or a damaged log.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    let config = Arc::new(args.load_config()?);
    if args.print_config {
        print!("{}", toml::to_string(&*config)?);
        return Ok(());
    }
    let keys = Keys::from_config(&config).map_err(refusal)?;
    let telemetry = Telemetry::start(&config.telemetry)?;
    tracing::info!(config = %serde_json::to_string(&*config)?, "effective configuration");
    allow_connections(config.server.connections_max);
    // What would only stop the trainer later is heard of now.
    cross_encoder::teacher::from_config(&config, &Device::flex())
        .context("release.teacher_dir cannot be used")?;
    TextSource::of(&config)
        .check_folder()
        .context("model.text_encoder_dir cannot be used")?;
    let text_recipe = recipe_of(&config).context("publish.text_recipe cannot be used")?;
    // Taken first: a port in use should be heard of before a model is built.
    let listeners = Listeners::bind(&config)?;
    let data_dir = &config.server.data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
    let audit = AuditLog::open(data_dir)
        .with_context(|| format!("cannot open audit.jsonl in {}", data_dir.display()))?;
    let reserve = Arc::new(Reserve::open(data_dir, config.store.reserve_bytes));
    let log_config = EventLogConfig::from(&*config);
    let log = EventLog::open_with(data_dir, &log_config, Some(Arc::clone(&reserve)))
        .with_context(|| format!("cannot open the event log in {}", data_dir.display()))?;
    let pseudonyms = Pseudonyms::open(data_dir, config.log.pseudonymous_ids, &log)?;
    let catalogue = Catalogue::from_log(&log)?;
    let limits = StoreLimits {
        disk_bytes_max: config.store.disk_bytes_max,
        reserve: Some(Arc::clone(&reserve)),
    };
    let publisher = Publisher::open_within(data_dir, &config.model.name, &config.publish, limits)?;
    publisher
        .keyring()
        .check(now_millis())
        .context("the keys cannot be used")?;
    tracing::info!(
        log_end = log.end().0,
        num_items = catalogue.num_items(),
        model_version = publisher.latest().map(|latest| latest.manifest.version.0),
        "opened {}",
        data_dir.display()
    );
    let rows_max = config.rollout.ledger_rows_max;
    let ledger = Ledger::open(data_dir, rows_max, &publisher.manifests()?)
        .with_context(|| format!("cannot open the ledger in {}", data_dir.display()))?;
    if let Err(error) = take_back_canary(data_dir, &publisher, &ledger) {
        tracing::warn!(
            "a canary that was cut off stays until the trainer can take it back: {error:#}"
        );
    }
    let moderation = Moderation::open(
        data_dir,
        &config.moderation,
        catalogue.clone(),
        now_millis(),
    )
    .context("the rules of moderation cannot be used")?;
    let experiments = Experiments::open(data_dir)?;
    let visits = VisitTokens::open(data_dir)
        .with_context(|| format!("cannot open visits.key in {}", data_dir.display()))?;
    let reports = Reports::default();
    let text_packs = TextPacks::default();
    let observer = Observer::default();
    let trainer = trainer::start(TrainerParts {
        config: Arc::clone(&config),
        log: log.clone(),
        publisher: publisher.clone(),
        ledger: ledger.clone(),
        reports: reports.clone(),
        catalogue: catalogue.clone(),
    })?;

    let (stop, stopping) = watch::channel(false);
    let state = AppState::new(AppParts {
        config: Arc::clone(&config),
        keys: LiveKeys::new(keys),
        audit,
        log: log.clone(),
        catalogue,
        publisher,
        experiments,
        recommender: trainer.recommender(),
        ledger,
        reports,
        observer,
        moderation,
        text_packs,
        visits,
        pseudonyms,
        operator: Some(trainer.operator()),
        clock: now_millis,
        stopping,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NUM_HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()?;
    let reread = Reread {
        args,
        filter: telemetry.filter(),
    };
    let served = runtime.block_on(serve(
        reread,
        listeners,
        state,
        (reserve, text_recipe),
        stop,
    ));
    runtime.shutdown_timeout(Duration::from_millis(200));
    stop_trainer(trainer);
    log.shutdown();
    tracing::info!("stopped");
    served
}

/// What reading the configuration again needs.
struct Reread {
    args: ServeArgs,
    filter: LineFilter,
}

/// Why there is no start, with fresh keys where some are missing.
fn refusal(error: AccessError) -> anyhow::Error {
    let said = "the server does not start with these keys";
    match error.proposal() {
        Ok(Some(proposal)) => anyhow::anyhow!("{said}: {error}\n\n{proposal}"),
        Ok(None) => anyhow::Error::new(error).context(said),
        Err(random) => anyhow::Error::new(random).context(said),
    }
}

/// A canary that a stop or a crash cut off has nobody left who watches it, so its pages come back before they ask.
fn take_back_canary(data_dir: &Path, publisher: &Publisher, ledger: &Ledger) -> anyhow::Result<()> {
    let newest = publisher.latest().map(|latest| latest.manifest.version);
    // A rollback that never came out must not be taken for the version that takes its number here.
    RolloutState::open(data_dir)?.settle(newest.unwrap_or_default())?;
    if let Some(published) = publisher.take_back_canary(now_millis())? {
        let version = published.manifest.version;
        tracing::warn!(
            "pages may have a version above the newest whole one, a canary that was cut off or one that was put \
             aside: version {version} brings them back"
        );
        note_again(ledger, &published.manifest, Origin::TakenBack);
    }
    Ok(())
}

struct Listeners {
    public: TcpListener,
    admin: Option<TcpListener>,
}

impl Listeners {
    fn bind(config: &Config) -> anyhow::Result<Self> {
        let server = &config.server;
        let bind = |address, advice| {
            let listener = listener(address, server.backlog);
            listener.with_context(|| format!("cannot listen on {address}; {advice}"))
        };
        let public = bind(server.bind, "server.bind (--bind) chooses another address")?;
        let other = "server.admin_bind (--admin-bind) chooses another address, --set server.admin_bind= none";
        let admin = server.admin_bind.map(|address| bind(address, other));
        Ok(Self {
            public,
            admin: admin.transpose()?,
        })
    }
}

/// As the one of the standard library, which has no say in the backlog.
fn listener(address: SocketAddr, backlog: u32) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // After a restart the address is free at once. Elsewhere the option would let others take it.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.cast_signed())?; // checked to be far below the largest
    Ok(socket.into())
}

/// Each connection is a file handle, of which systems give a process few unless it asks.
fn allow_connections(connections_max: usize) {
    let wanted = (connections_max + FILE_HANDLES) as u64; // widening
    match rlimit::increase_nofile_limit(wanted) {
        Ok(allowed) if allowed < wanted => tracing::warn!(
            "server.connections_max is {connections_max}, but the system allows {allowed} file handles; \
             raise its limit (ulimit -n, LimitNOFILE)"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of file handles stays as it is"),
    }
}

/// Serves until a signal comes, then drains for a bounded time.
async fn serve(
    reread: Reread,
    listeners: Listeners,
    state: AppState,
    (reserve, text_recipe): (Arc<Reserve>, Option<Recipe>),
    stop: watch::Sender<bool>,
) -> anyhow::Result<()> {
    // Before anybody is told that the server listens.
    #[cfg(unix)]
    let hangups = reload::hangups();
    let address = listeners.public.local_addr()?;
    let public = tokio::net::TcpListener::from_std(listeners.public)?;
    let router = http::router(state.clone());
    // In one write: who starts the server may listen no longer than to the first line.
    let mut said = format!("freshet listens on http://{address}\n");
    let mut parts = tokio::task::JoinSet::new();
    if let Some(admin) = listeners.admin {
        said += &format!("and for operators on http://{}\n", admin.local_addr()?);
        let admin = tokio::net::TcpListener::from_std(admin)?;
        let (router, state) = (http::admin_router(state.clone()), state.clone());
        parts.spawn(async move {
            http::server::serve(admin, router, &state).await;
        });
    }
    let key_poll = Duration::from_secs(state.config.publish.key_poll_secs);
    parts.spawn(renew(
        state.publisher.clone(),
        state.ledger.clone(),
        key_poll,
        state.stopping.clone(),
    ));
    let totals = state.clone();
    parts.spawn(observe::follow(
        state.observer.clone(),
        state.log.clone(),
        state.publisher.clone(),
        state.clock,
        move || totals.totals(),
        state.stopping.clone(),
    ));
    parts.spawn(erasure::keep(
        state.log.clone(),
        state.config.log.retention_days,
        state.clock,
        state.stopping.clone(),
    ));
    parts.spawn(moderation::watch::keep(
        state.moderation.clone(),
        state.catalogue.clone(),
        state.audit.clone(),
        state.clock,
        state.stopping.clone(),
    ));
    let keeper = KeeperParts {
        packs: state.text_packs.clone(),
        config: Arc::clone(&state.config),
        recipe: text_recipe,
        log: state.log.clone(),
        catalogue: state.catalogue.clone(),
        publisher: state.publisher.clone(),
        reserve,
    };
    parts.spawn(keeper::keep(keeper, state.stopping.clone()));
    print!("{said}");
    let signal = tokio::spawn(async move {
        let signal = signal().await;
        tracing::info!("stopping: {signal}");
        stop.send_replace(true);
    });
    #[cfg(unix)]
    parts.spawn(reload::on_hangup(hangups, reread, state.clone()));
    http::server::serve(public, router, &state).await;
    while parts.join_next().await.is_some() {}
    signal.await?;
    Ok(())
}

/// Picks up another key set, and publishes the newest version again when its manifest is about to expire on the pages
/// or was signed under another key set. Warns of keys that are about to expire.
async fn renew(
    publisher: Publisher,
    ledger: Ledger,
    key_poll: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    let mut interval = tokio::time::interval(key_poll);
    let mut warned_at: Option<std::time::Instant> = None;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopping.changed() => return,
        }
        let (publisher, ledger) = (publisher.clone(), ledger.clone());
        if warned_at.is_none_or(|at| at.elapsed() >= KEY_WARNING_INTERVAL) {
            warned_at = Some(std::time::Instant::now());
            warn_of_keys(&publisher);
        }
        let reloaded = move || {
            match publisher.reload_keys() {
                Ok(Some(number)) => tracing::info!("signs under key set {number}"),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "the keys cannot be read again"),
            }
            let renewed = publisher.renew(now_millis())?;
            if let Some(renewed) = &renewed {
                note_again(&ledger, &renewed.manifest, Origin::Renewed);
            }
            Ok::<_, PublishError>(renewed)
        };
        match tokio::task::spawn_blocking(reloaded).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(renewed))) => {
                tracing::info!("renewed as version {}", renewed.manifest.version);
            }
            Ok(Err(error)) => tracing::error!(%error, "the newest version cannot be renewed"),
            Err(error) => tracing::error!(%error, "renewing panicked"),
        }
    }
}

/// A row that cannot be written stops nothing: the next start fills it in.
fn note_again(ledger: &Ledger, manifest: &Manifest, origin: Origin) {
    let provenance = Provenance {
        origin,
        by: None,
        gate: None, // the codes are those of before
    };
    let row = PublishedRow::new(manifest, Some(provenance), Some(Movement::default()));
    if let Err(error) = ledger.add(LedgerRow::Published(row)) {
        tracing::warn!(%error, "a row of the ledger cannot be written");
    }
}

fn warn_of_keys(publisher: &Publisher) {
    match publisher.keyring().check(now_millis()) {
        Ok(None) => {}
        Ok(Some(warning)) => tracing::warn!("{warning}"),
        Err(error) => tracing::error!(%error, "nothing can be signed"),
    }
}

#[cfg(unix)]
async fn signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return interrupt().await;
    };
    tokio::select! {
        name = interrupt() => name,
        _ = terminate.recv() => "terminated",
    }
}

#[cfg(not(unix))]
async fn signal() -> &'static str {
    interrupt().await
}

async fn interrupt() -> &'static str {
    match tokio::signal::ctrl_c().await {
        Ok(()) => "interrupted",
        Err(error) => {
            tracing::warn!(%error, "interrupts cannot be heard");
            std::future::pending().await
        }
    }
}

/// Gives the trainer a bounded time: a step under way may be longer than anyone wants to wait.
fn stop_trainer(trainer: TrainerHandle) {
    let (done, stopped) = mpsc::channel();
    let stopper = std::thread::spawn(move || {
        trainer.shutdown();
        done.send(()).ok(); // the receiver is gone when the wait was given up
    });
    match stopped.recv_timeout(TRAINER_STOP_TIMEOUT) {
        Ok(()) => drop(stopper.join()),
        Err(_) => tracing::warn!(
            "the trainer did not stop in time; it will learn again what it had not published"
        ),
    }
}
