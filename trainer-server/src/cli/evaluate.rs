//! `freshet evaluate`: quality of what pages run on a dataset, beside the baselines.

use std::path::PathBuf;

use serde_json::Value;

use super::ablate::StudyArgs;
use crate::evaluate::held_out::{self, HeldOut};
use crate::evaluate::html::{STYLE, page};
use crate::evaluate::offline::{self, Offline};
use crate::evaluate::prequential::{self, Evaluation, Extras};
use crate::evaluate::svg::standalone;
use crate::evaluate::tensorboard;
use crate::replay::{self, ReplayError, ReplayOptions, check_can_write, write_json, write_text};
use crate::study::sweep::Sweep;
use crate::study::trial::Stretch;
use crate::study::widths::WidthSweep;

/// How events are held out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// The last 20 % by time, each ranked before it is learned
    Prequential,
    /// The last 20 % by time, ranked by what was learned before, and nothing is learned from them
    TimeSplit,
    /// The last event of every user, ranked by what was learned from all others
    LeaveOneOut,
}

/// What is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SweepOf {
    /// What a fast version carries: quality against bytes, without a server
    Bytes,
    /// Bits of published codes: quality against bytes of a first model, and drift over a hundred versions
    Widths,
}

/// Flags of `freshet evaluate`.
#[derive(Debug, Clone, clap::Args)]
pub struct EvaluateArgs {
    /// Folder with events.tsv and items.tsv
    #[arg(long, value_name = "DIR")]
    pub dataset: PathBuf,
    /// How events are held out
    #[arg(long, value_enum, default_value_t = Protocol::Prequential)]
    pub protocol: Protocol,
    /// Vary settings over one warm fit instead: one trial of minutes for each point
    #[arg(long, value_enum, value_name = "WHAT")]
    pub sweep: Option<SweepOf>,
    /// Folder of a sweep's trials, where a sweep that was stopped goes on; by default beside the figures
    #[arg(long, value_name = "DIR", requires = "sweep")]
    pub study: Option<PathBuf>,
    /// Where to write the chart of a sweep
    #[arg(long, value_name = "FILE", requires = "sweep")]
    pub svg: Option<PathBuf>,
    /// A setting of all trials of a sweep, for example --set train.seed=7; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE", requires = "sweep")]
    pub set: Vec<String>,
    /// Where to write the figures, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: PathBuf,
    /// Where to write the same as a page with charts
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Where to write curves as TensorBoard event files, one folder per system
    #[arg(long, value_name = "DIR")]
    pub tensorboard: Option<PathBuf>,
    /// Also score a full refit every so many days of event time; each takes as long as a warm fit
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    pub refit_days: Option<u32>,
    /// Also train and score a plain SASRec, which takes minutes
    #[arg(long)]
    pub sasrec: bool,
    /// Configuration of the server that is started
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Events that are ranked and posted together
    #[arg(long, default_value_t = 128)]
    pub chunk: usize,
    /// Cut the stream so that everything ends within so many seconds
    #[arg(long, default_value_t = 3600)]
    pub time_budget_secs: u64,
    /// Seed of tie-breaking
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Take only the first so many events of the dataset
    #[arg(long, value_name = "COUNT")]
    pub events_max: Option<usize>,
}

/// Runs the command.
///
/// # Errors
/// Bad flags, or what went wrong on the way.
pub fn run(args: EvaluateArgs) -> anyhow::Result<()> {
    if let Some(of) = args.sweep {
        return sweep(args, of);
    }
    anyhow::ensure!(
        (1..=10_000).contains(&args.chunk),
        "--chunk is {}, expected 1 to 10000",
        args.chunk
    );
    let options = ReplayOptions {
        dataset_dir: args.dataset,
        server_url: None,
        model: "main".to_owned(),
        config_file: args.config,
        rate: None,
        num_pages: 0,
        num_ranking_pages: 0,
        num_browser_pages: 0,
        package_dir: PathBuf::new(),
        steady_secs: 0,
        chunk_len: args.chunk,
        time_budget_secs: args.time_budget_secs,
        seed: args.seed,
        num_kills: 0,
        num_events_max: args.events_max,
    };
    let extras = Extras {
        refit_days: args.refit_days,
        has_sasrec: args.sasrec,
    };
    anyhow::ensure!(
        args.protocol == Protocol::Prequential || extras == Extras::default(),
        "--refit-days and --sasrec learn from a stream, which only --protocol prequential has"
    );
    let is_private = offline::config(options.config_file.as_deref())?
        .privacy
        .enabled;
    anyhow::ensure!(
        !is_private || args.protocol == Protocol::TimeSplit,
        "privacy.enabled is true, which goes with --protocol time-split alone: one private round over the first 80 %"
    );
    for path in [Some(&args.json), args.html.as_ref()].into_iter().flatten() {
        check_can_write(path)?;
    }
    let evaluation = super::replay::block_on(evaluate(args.protocol, options, extras))?;
    write_json(&args.json, &Value::Object(evaluation.document.clone()))?;
    println!("{:<34} {}", "figures", args.json.display());
    if let Some(path) = &args.html {
        write_text(path, &page(&evaluation))?;
        println!("{:<34} {}", "page", path.display());
    }
    if let Some(dir) = &args.tensorboard {
        tensorboard::write(dir, &evaluation.outcomes, &evaluation.systems)?;
        println!("{:<34} {}", "curves", dir.display());
    }
    Ok(())
}

/// `--sweep`.
fn sweep(args: EvaluateArgs, of: SweepOf) -> anyhow::Result<()> {
    let others = [
        ("--html", args.html.is_some()),
        ("--tensorboard", args.tensorboard.is_some()),
        ("--refit-days", args.refit_days.is_some()),
        ("--sasrec", args.sasrec),
        ("--config", args.config.is_some()),
        ("--protocol", args.protocol != Protocol::Prequential),
    ];
    for (flag, is_given) in others {
        anyhow::ensure!(
            !is_given,
            "{flag} does not go with --sweep, which has --set and --svg"
        );
    }
    for path in [Some(&args.json), args.svg.as_ref()].into_iter().flatten() {
        check_can_write(path)?;
    }
    let beside = || args.json.with_extension("study");
    let study = StudyArgs {
        dataset: args.dataset,
        study: args.study.unwrap_or_else(beside),
        set: args.set,
        events_max: args.events_max,
    };
    let study = study.open(Stretch::Test)?;
    let (table, document, chart) = match of {
        SweepOf::Bytes => {
            let sweep = Sweep::run(&study, args.seed)?;
            (sweep.table(), sweep.document(&study), sweep.chart())
        }
        SweepOf::Widths => {
            let sweep = WidthSweep::run(&study, args.seed)?;
            (sweep.table(), sweep.document(&study), sweep.chart())
        }
    };
    print!("{table}");
    write_json(&args.json, &document)?;
    println!("{:<34} {}", "figures", args.json.display());
    if let Some(path) = &args.svg {
        write_text(path, &standalone(&chart, STYLE))?;
        println!("{:<34} {}", "chart", path.display());
    }
    Ok(())
}

async fn evaluate(
    protocol: Protocol,
    options: ReplayOptions,
    extras: Extras,
) -> Result<Evaluation, ReplayError> {
    if protocol == Protocol::Prequential {
        return prequential::run(options, extras).await;
    }
    let (dataset, split) = replay::load(&options)?;
    let held_out = match protocol {
        Protocol::Prequential | Protocol::TimeSplit => HeldOut::TimeSplit { split },
        Protocol::LeaveOneOut => HeldOut::LeaveOneOut,
    };
    let config = offline::config(options.config_file.as_deref())?;
    held_out::run(&dataset, held_out, &Offline::new(config)?, options.seed).await
}
