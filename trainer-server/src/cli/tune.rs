//! `freshet tune`: looks for better settings on the validation stretch of a dataset.

use std::path::PathBuf;

use super::ablate::StudyArgs;
use crate::replay::write_text;
use crate::study::trial::Stretch;
use crate::study::tune::{as_toml, best, check_space, read_space, search, try_settings};

/// Flags of `freshet tune`.
#[derive(Debug, Clone, clap::Args)]
pub struct TuneArgs {
    #[command(flatten)]
    pub study: StudyArgs,
    /// TOML file with what may be tried, by key: low, high, log, whole or choices
    #[arg(long, value_name = "FILE")]
    pub space: PathBuf,
    /// Trials, those of earlier runs included; the first is the defaults
    #[arg(long, value_name = "TRIALS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub budget: u32,
    /// Seed of the search
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where to write the best settings, as a configuration file [default: best.toml in the study]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Bad flags, a bad file, or what went wrong on the way.
pub fn run(args: TuneArgs) -> anyhow::Result<()> {
    let space = read_space(&args.space)?;
    let study = args.study.open(Stretch::Validation)?;
    check_space(&study, &space)?;
    let budget = args.budget as usize; // u32 fits
    let tried = search(&space, budget, args.seed, |trial_idx, settings| {
        let name = format!("trial {} of {budget}", trial_idx + 1);
        let one = try_settings(&study, &name, settings)?;
        let listed: Vec<String> = settings
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let score = match (&one.ndcg_at_10, &one.why) {
            (Some(score), _) => format!("{score:.4}"),
            (None, why) => format!(
                "failed: {}",
                why.as_deref().unwrap_or("nothing new was taken")
            ),
        };
        println!("{name:<16} NDCG@10 {score}  {}", listed.join(" "));
        Ok(one)
    })?;
    let Some(best) = best(&tried) else {
        anyhow::bail!("no trial of {budget} could be scored");
    };
    let path = args.out.unwrap_or_else(|| study.dir().join("best.toml"));
    let (score, default) = (best.ndcg_at_10.unwrap_or(f64::NAN), tried[0].ndcg_at_10);
    let default = default.map_or_else(|| "-".to_owned(), |score| format!("{score:.4}"));
    println!("best NDCG@10 {score:.4}, defaults {default}");
    write_text(&path, &as_toml(&study.all_settings(&best.settings)))?;
    println!("{:<34} {}", "best settings", path.display());
    Ok(())
}
