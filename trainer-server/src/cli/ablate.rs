//! `freshet ablate`: what each technique adds on a dataset, with intervals.

use std::path::PathBuf;

use anyhow::ensure;

use crate::replay::{check_can_write, write_json, write_text};
use crate::study::ablation::{document, read_variants, run as run_variants, table};
use crate::study::settings::Settings;
use crate::study::trial::{Stretch, Study};

/// Flags that every study has.
#[derive(Debug, Clone, clap::Args)]
pub struct StudyArgs {
    /// Folder with events.tsv and items.tsv
    #[arg(long, value_name = "DIR")]
    pub dataset: PathBuf,
    /// Folder of the study; one that is there goes on
    #[arg(long, value_name = "DIR")]
    pub study: PathBuf,
    /// A setting of all trials, for example --set train.seed=7; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Rank only the first so many events of the stretch
    #[arg(long, value_name = "COUNT")]
    pub events_max: Option<usize>,
}

impl StudyArgs {
    /// The study of these flags.
    ///
    /// # Errors
    /// A flag is malformed, or the study cannot be opened.
    pub fn open(&self, stretch: Stretch) -> anyhow::Result<Study> {
        ensure!(
            self.events_max != Some(0),
            "--events-max is 0, expected 1 or more"
        );
        let mut base = Settings::new();
        for setting in &self.set {
            let (key, value) = super::parse_setting(setting)?;
            base.insert(key, value);
        }
        let (dir, dataset, events_max) = (&self.study, &self.dataset, self.events_max);
        Ok(Study::open(dir, dataset, stretch, base, events_max)?)
    }
}

/// Flags of `freshet ablate`.
#[derive(Debug, Clone, clap::Args)]
pub struct AblateArgs {
    #[command(flatten)]
    pub study: StudyArgs,
    /// TOML file with [[variant]] tables: a name, and what it sets; the first is the reference
    #[arg(long, value_name = "FILE")]
    pub variants: PathBuf,
    /// Which events are ranked
    #[arg(long, value_enum, default_value_t = Stretch::Test)]
    pub stretch: Stretch,
    /// Where to write the figures, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where to write the table, as Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Seed of the resamples behind the intervals
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Runs the command.
///
/// # Errors
/// Bad flags, a bad file, or what went wrong on the way.
pub fn run(args: AblateArgs) -> anyhow::Result<()> {
    for path in [&args.json, &args.markdown].into_iter().flatten() {
        check_can_write(path)?;
    }
    let variants = read_variants(&args.variants)?;
    let study = args.study.open(args.stretch)?;
    let rows = run_variants(&study, &variants, args.seed)?;
    let table = table(&rows);
    print!("{table}");
    if let Some(path) = &args.json {
        write_json(path, &document(&study, &rows))?;
        println!("{:<34} {}", "figures", path.display());
    }
    if let Some(path) = &args.markdown {
        write_text(path, &table)?;
        println!("{:<34} {}", "table", path.display());
    }
    Ok(())
}
