//! `freshet cross-encoder`: tunes a CrossEncoder along a dataset and reports what that is worth.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::TextEncoderChoice;
use crate::cross_encoder::experiment::{Base, Experiment, Strategy, Tempo};
use crate::cross_encoder::scene::SceneOptions;
use crate::dataset::Dataset;
use crate::replay::{check_can_write, write_json};
use crate::text_source::{self, TextSource};

/// Which weights learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StrategyArg {
    /// Heads and low-rank adapters on queries and values
    Lora,
    /// Everything but the word embeddings
    Full,
    /// Heads, biases and shifts of norms
    Bitfit,
    /// Heads alone
    Head,
}

/// Which network is tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EncoderArg {
    /// The pretrained one where its files are found, else the small one
    Auto,
    /// all-MiniLM-L6-v2, or the folder of --encoder-dir
    Pretrained,
    /// 2 layers, width 64, hashed words, learned from nothing
    Small,
}

/// What ranks the lists that are reranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BaseArg {
    /// Users in common with the last ten items, kept up to date
    ItemKnn,
    /// The Ranker as a warm fit over the first 80 % leaves it, which takes minutes
    Ranker,
}

/// Flags of `freshet cross-encoder`.
#[derive(Debug, Clone, Args)]
pub struct CrossEncoderArgs {
    /// Folder with events.tsv and items.tsv
    #[arg(long, value_name = "DIR")]
    pub dataset: PathBuf,
    /// Which weights learn
    #[arg(long, value_enum, default_value_t = StrategyArg::Lora)]
    pub strategy: StrategyArg,
    /// Which network is tuned
    #[arg(long, value_enum, default_value_t = EncoderArg::Auto)]
    pub encoder: EncoderArg,
    /// Folder of a pretrained encoder of your own
    #[arg(long, value_name = "DIR")]
    pub encoder_dir: Option<PathBuf>,
    /// Most events of the last 20 % that are scored, then learned
    #[arg(long, value_name = "COUNT", default_value_t = 3000)]
    pub events_max: usize,
    /// Most events of the first 80 % for the warm fit
    #[arg(long, value_name = "COUNT", default_value_t = 6000)]
    pub warm_max: usize,
    /// Most events whose list is reranked
    #[arg(long, value_name = "COUNT", default_value_t = 800)]
    pub lists_max: usize,
    /// Items in such a list
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub list_len: usize,
    /// What ranks these lists
    #[arg(long, value_enum, default_value_t = BaseArg::ItemKnn)]
    pub base: BaseArg,
    /// Items not taken per item taken
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub negatives: usize,
    /// Items that a user's text names
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub history_len: usize,
    /// Most tokens of a pair
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    pub tokens_max: usize,
    /// Passes of the warm fit [default: 1, for the small network 8]
    #[arg(long, value_name = "COUNT")]
    pub passes: Option<usize>,
    /// Highest learning rate of the warm fit [default: full 2e-5, lora 1e-3, bitfit 5e-4, head 1e-3; small 1e-3]
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<f64>,
    /// Learning rate of the stream [default: half of the warm fit's]
    #[arg(long, value_name = "RATE")]
    pub stream_learning_rate: Option<f64>,
    /// End warm fit (at half of it) and stream early so that they take at most about so many seconds
    #[arg(long, default_value_t = 1400)]
    pub time_budget_secs: u64,
    /// Seed of draws, first weights, dropout and ties
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where to write the figures, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Folder for the tuned network: model.safetensors, config.json, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Bad flags, a dataset or an encoder that cannot be read, or learning gave up.
pub fn run(args: CrossEncoderArgs) -> anyhow::Result<()> {
    let started_at = Instant::now();
    check(&args)?;
    if let Some(path) = &args.json {
        check_can_write(path)?;
    }
    let dataset = Dataset::load(&args.dataset, args.seed)?;
    let experiment = experiment(&args, started_at);
    let progress = bar();
    let found = experiment.run(&dataset, &Device::flex(), &progress)?;
    progress.finish_and_clear();
    print!("{}", found.to_markdown());
    println!("{:<34} {:.0} s", "time", started_at.elapsed().as_secs_f64());
    if let Some(path) = &args.json {
        write_json(path, &found.to_json())?;
        println!("{:<34} {}", "figures", path.display());
    }
    if let Some(dir) = &args.save {
        let saved = found.tuned.save(dir);
        saved.with_context(|| format!("the network cannot be saved in {}", dir.display()))?;
        println!("{:<34} {}", "network", dir.display());
    }
    Ok(())
}

fn check(args: &CrossEncoderArgs) -> anyhow::Result<()> {
    let bounded = [
        ("--events-max", args.events_max, 1, 10_000_000),
        ("--warm-max", args.warm_max, 1, 10_000_000),
        ("--lists-max", args.lists_max, 0, 10_000_000),
        ("--list-len", args.list_len, 2, 1000),
        ("--negatives", args.negatives, 1, 100),
        ("--history-len", args.history_len, 1, 100),
        ("--tokens-max", args.tokens_max, 8, 512),
        ("--passes", args.passes.unwrap_or(1), 1, 1000),
    ];
    for (flag, actual, min, max) in bounded {
        let is_inside = (min..=max).contains(&actual);
        ensure!(is_inside, "{flag} is {actual}, expected {min} to {max}");
    }
    for (flag, rate) in [
        ("--learning-rate", args.learning_rate),
        ("--stream-learning-rate", args.stream_learning_rate),
    ] {
        if let Some(rate) = rate {
            let is_inside = rate > 0.0 && rate <= 1.0;
            ensure!(
                is_inside,
                "{flag} is {rate}, expected above 0 and at most 1"
            );
        }
    }
    Ok(())
}

fn experiment(args: &CrossEncoderArgs, started_at: Instant) -> Experiment {
    let strategy = match args.strategy {
        StrategyArg::Lora => Strategy::Lora,
        StrategyArg::Full => Strategy::Full,
        StrategyArg::Bitfit => Strategy::Bitfit,
        StrategyArg::Head => Strategy::Head,
    };
    let choice = match args.encoder {
        EncoderArg::Auto => TextEncoderChoice::Auto,
        EncoderArg::Pretrained => TextEncoderChoice::Pretrained,
        EncoderArg::Small => TextEncoderChoice::Small,
    };
    Experiment {
        source: TextSource {
            choice,
            dir: args.encoder_dir.clone(),
            cache_dir: text_source::default_cache_dir(),
        },
        strategy,
        base: match args.base {
            BaseArg::ItemKnn => Base::ItemKnn,
            BaseArg::Ranker => Base::Ranker,
        },
        scene: SceneOptions {
            num_warm: args.warm_max,
            num_stream: args.events_max,
            num_lists: args.lists_max,
            list_len: args.list_len,
            num_negatives: args.negatives,
            history_len: args.history_len,
            seed: args.seed,
        },
        tokens_max: args.tokens_max,
        tempo: Tempo {
            num_passes: args.passes,
            warm_rate: args.learning_rate,
            stream_rate: args.stream_learning_rate,
        },
        seed: args.seed,
        warm_deadline: started_at + Duration::from_secs(args.time_budget_secs / 2),
        deadline: started_at + Duration::from_secs(args.time_budget_secs),
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:<12} {wide_bar} {pos}/{len} {eta}");
    let progress = ProgressBar::new(0);
    progress.set_style(style.expect("the template is well formed"));
    progress
}
