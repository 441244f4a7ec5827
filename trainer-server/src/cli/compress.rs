//! `freshet compress`: tries recipes for a smaller text encoder, reports what each is worth, and keeps the best that fits.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::Device;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::TextEncoderChoice;
use crate::dataset::Dataset;
use crate::evaluate::html::STYLE;
use crate::evaluate::svg::standalone;
use crate::ladder::{
    RECIPE_BYTES_MAX, Recipe, Rung, Scene, Stage, Target, Workshop, candidates, chart, choose,
    document, table,
};
use crate::replay::{check_can_write, write_bytes, write_json, write_text};
use crate::text_pack::PackSource;
use crate::text_source::{TextSource, default_cache_dir};

/// Tokens read of a text, as pages read them.
const LEN_MAX: usize = 128;
const SEED: u64 = 1;

/// Flags of `freshet compress`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  freshet compress --dataset data/shop --target-bytes 4000000 --recipe-out recipe.json
  freshet compress --dataset data/shop --target-bytes 8000000 --target-time 0.33 --json frontier.json --svg frontier.svg
  freshet compress --dataset data/shop --recipe recipe.json --encoder-out encoder.ftxt")]
pub struct CompressArgs {
    /// Folder with events.tsv and items.tsv: the last fifth of the stream is ranked, all titles but those of items that are new in it are learned from
    #[arg(long, value_name = "DIR")]
    pub dataset: PathBuf,
    /// Folder of the encoder [default: the pretrained one in the cache]
    #[arg(long, value_name = "DIR")]
    pub encoder_dir: Option<PathBuf>,
    /// Bytes of the file that pages download, at most; may be repeated, outputs are of the first
    #[arg(long, value_name = "BYTES", default_value = "4000000")]
    pub target_bytes: Vec<usize>,
    /// Time to encode a text over that of the encoder that is only packed, at most; 0.33 for three times as fast
    #[arg(long, value_name = "SHARE")]
    pub target_time: Option<f64>,
    /// Updates by which candidates learn from the encoder
    #[arg(long, value_name = "STEPS", default_value_t = 600)]
    pub distill_steps: usize,
    /// Try this recipe instead of the built-in ones; may be repeated
    #[arg(long, value_name = "FILE")]
    pub recipe: Vec<PathBuf>,
    /// Where the chosen recipe is written, for `--recipe`
    #[arg(long, value_name = "FILE")]
    pub recipe_out: Option<PathBuf>,
    /// Where the chosen encoder is written as pages download it
    #[arg(long, value_name = "FILE")]
    pub encoder_out: Option<PathBuf>,
    /// Folder that all encoders are written into, named by their place in the figures
    #[arg(long, value_name = "DIR")]
    pub encoders_dir: Option<PathBuf>,
    /// Where all figures are written
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where the frontier is drawn
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// An input is missing or not sound, a file cannot be written, or no recipe fits and passes.
pub fn run(args: &CompressArgs) -> anyhow::Result<()> {
    let outputs = [&args.recipe_out, &args.encoder_out, &args.json, &args.svg];
    for path in outputs.into_iter().flatten() {
        check_can_write(path)?;
    }
    if let Some(share) = args.target_time
        && !(share > 0.0 && share <= 100.0)
    {
        bail!("--target-time is {share}, expected above 0 and at most 100");
    }
    let parent = PackSource::read(&encoder_dir(args), LEN_MAX)?;
    let recipes = recipes(args, &parent)?;
    let dataset = Dataset::load(&args.dataset, SEED)?;
    let scene = Scene::new(&dataset)?;
    let device = Device::flex();
    let answers = scene.of_parts(&parent, &device)?;
    let mut workshop = Workshop::new(&parent, scene.known_titles(), &device);
    let (mut rungs, mut files) = (Vec::new(), Vec::new());
    for (place, recipe) in recipes.iter().enumerate() {
        let title = format!("{}/{} {}", place + 1, recipes.len(), recipe.name());
        let mut shown = Shown::new(title);
        let made = workshop.make(recipe, None, |stage| {
            shown.stage(stage);
            true
        });
        shown.bar.finish_and_clear();
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                eprintln!("{}: {error}", recipe.name());
                continue;
            }
        };
        let rung = Rung::measured(&scene, &answers, recipe, &made, &device)?;
        eprintln!(
            "{}: {:.1} % of NDCG@10, {} bytes",
            rung.name,
            100.0 * rung.relative_ndcg,
            rung.bytes
        );
        rungs.push(rung);
        files.push(made.packed);
    }
    let whole = rungs.iter().find(|rung| rung.recipe.is_whole());
    let whole_ms = match (whole.or(rungs.first()), args.target_time) {
        (None, _) => bail!("no recipe made an encoder"),
        (Some(_), Some(_)) if whole.is_none() => {
            bail!(
                "--target-time compares with the encoder that is only packed: none of the recipes is that one"
            )
        }
        (Some(rung), _) => rung.native_ms,
    };
    let chosen: Vec<(Target, Option<usize>)> = args
        .target_bytes
        .iter()
        .map(|bytes| {
            let target = Target {
                bytes: *bytes,
                time_share: args.target_time,
            };
            (target, choose(&rungs, target, whole_ms))
        })
        .collect();
    let places: Vec<usize> = chosen.iter().filter_map(|(_, place)| *place).collect();
    print!("{}", table(&rungs, &places, whole_ms));
    if let Some(path) = &args.json {
        let parent_ndcg = scene.ndcg_at_10(&answers);
        write_json(path, &document(&dataset.name, parent_ndcg, &rungs, &chosen))?;
    }
    if let Some(path) = &args.svg {
        write_text(path, &standalone(&chart(&rungs), STYLE))?;
    }
    if let Some(dir) = &args.encoders_dir {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        for (place, bytes) in files.iter().enumerate() {
            write_bytes(&dir.join(format!("{place}.ftxt")), bytes)?;
        }
    }
    for (target, place) in &chosen {
        match place {
            Some(place) => println!("at most {} bytes: {}", target.bytes, rungs[*place].name),
            None => println!(
                "at most {} bytes: none fits and passes the robustness gate",
                target.bytes
            ),
        }
    }
    let Some((_, Some(first))) = chosen.first() else {
        bail!("nothing was chosen, so no recipe and no encoder was written");
    };
    if let Some(path) = &args.recipe_out {
        write_json(path, &serde_json::to_value(&rungs[*first].recipe)?)?;
    }
    if let Some(path) = &args.encoder_out {
        write_bytes(path, &files[*first])?;
    }
    Ok(())
}

fn encoder_dir(args: &CompressArgs) -> PathBuf {
    let source = TextSource {
        choice: TextEncoderChoice::Pretrained,
        dir: args.encoder_dir.clone(),
        cache_dir: default_cache_dir(),
    };
    source.folder()
}

fn recipes(args: &CompressArgs, parent: &PackSource) -> anyhow::Result<Vec<Recipe>> {
    if args.recipe.is_empty() {
        let built_in = candidates(&parent.config, &args.target_bytes, args.distill_steps);
        for recipe in &built_in {
            recipe.check(Some(&parent.config))?;
        }
        return Ok(built_in);
    }
    args.recipe
        .iter()
        .map(|path| read_recipe(path, parent))
        .collect()
}

fn read_recipe(path: &Path, parent: &PackSource) -> anyhow::Result<Recipe> {
    let at = || format!("recipe {}", path.display());
    let num_bytes = fs::metadata(path).with_context(at)?.len();
    if num_bytes > RECIPE_BYTES_MAX as u64 {
        bail!(
            "{}: {num_bytes} bytes, at most {RECIPE_BYTES_MAX} are read",
            at()
        );
    }
    let recipe = Recipe::from_json(&fs::read(path).with_context(at)?).with_context(at)?;
    recipe.check(Some(&parent.config)).with_context(at)?;
    Ok(recipe)
}

/// A bar on a terminal, else a line per stage and tenth.
struct Shown {
    bar: ProgressBar,
    told: Option<(&'static str, usize)>,
}

impl Shown {
    fn new(title: String) -> Self {
        let style = ProgressStyle::with_template(
            "{spinner} {prefix}: {msg} [{bar:30}] {pos}/{len} ({eta})",
        )
        .expect("a template that was tried");
        let bar = ProgressBar::new(1).with_style(style);
        if bar.is_hidden() {
            eprintln!("{title}");
        }
        bar.set_prefix(title);
        Self { bar, told: None }
    }

    fn stage(&mut self, stage: Stage) {
        let (what, done, of) = match stage {
            Stage::Pruning => ("pruning", 0, 1),
            Stage::Asking(done, of) => ("asking the encoder", done, of),
            Stage::Learning(done, of) => ("learning", done, of),
            Stage::Packing => ("packing", 0, 1),
        };
        self.bar.set_message(what);
        self.bar.set_length(of as u64); // usize fits u64
        self.bar.set_position(done as u64); // likewise
        let tenth = 10 * done / of.max(1);
        if self.bar.is_hidden() && self.told != Some((what, tenth)) {
            eprintln!("  {what}, {} %", 10 * tenth);
            self.told = Some((what, tenth));
        }
    }
}
