//! What distillation makes of an encoder with fewer layers: likeness to the teacher, ranking by text alone, seconds.
//!
//! `distill_study ENCODER_DIR DATASET_DIR [KEY=VALUE …]` prints JSON. Every tenth title is kept out of what is learned.
//! The student starts with layers of the teacher; its feed-forward layers keep their first neurons, its vocabulary the
//! first words (`trainer_server::prune` chooses better). Keys, with what holds where they are left out:
//!
//! ```text
//! layers=0,2,5   width=1536      words=30522     views=3         steps=1500      rate=0.0005     tokens=512
//! cosine=1       score=0.1       hidden=1        temperature=0.1 seed=1          rounding=0      last=0.3
//! ```
//! `rounding` is the step of a matrix as a share of its deviation for the `last` part of the steps; 0 rounds nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, bail};
use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use shared_model::text::packed::WORDS;
use shared_model::text::{BertConfig, BertTextEncoder, NamedTensor, TextEncoder, TextTokenizer};
use trainer_server::baselines::text_fidelity::{TextQuestions, cosines};
use trainer_server::dataset::Dataset;
use trainer_server::distill::{
    DistillOptions, Distiller, Lessons, LossWeights, Rounding, query_of,
};
use trainer_server::text_pack::PackSource;
use trainer_server::text_source::read_encoder_files;

const LEN_MAX: usize = 128;
const KEPT_OUT_EVERY: usize = 10;
const QUERY_WORDS: usize = 2;
const STEPS_PER_LINE: usize = 100;

/// Settings of the command line; what was asked for is taken out.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn read(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut settings = BTreeMap::new();
        for argument in arguments {
            let pair = argument.split_once('=');
            let (key, value) = pair.with_context(|| format!("{argument} is not KEY=VALUE"))?;
            settings.insert(key.to_owned(), value.to_owned());
        }
        Ok(Self(settings))
    }

    fn take<T: FromStr>(&mut self, key: &str, default: T) -> anyhow::Result<T> {
        let Some(value) = self.0.remove(key) else {
            return Ok(default);
        };
        let parsed = value.parse();
        parsed.map_err(|_| anyhow::anyhow!("{key}={value} cannot be read"))
    }

    fn end(self) -> anyhow::Result<()> {
        match self.0.into_keys().next() {
            Some(key) => bail!("there is no setting {key}"),
            None => Ok(()),
        }
    }
}

/// What of the teacher a student starts with.
struct Kept {
    layers: Vec<usize>,
    width: usize,
    num_words: usize,
}

impl Kept {
    fn of(settings: &mut Settings, config: &BertConfig) -> anyhow::Result<Self> {
        let layers = settings.take("layers", "0,2,5".to_owned())?;
        let layers = layers
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            layers,
            width: settings.take("width", config.intermediate_size)?,
            num_words: settings.take("words", config.vocab_size)?,
        })
    }

    fn student(&self, mut parts: PackSource) -> anyhow::Result<PackSource> {
        let old_width = parts.config.intermediate_size;
        parts.config.num_hidden_layers = self.layers.len();
        parts.config.intermediate_size = self.width;
        parts.config.vocab_size = self.num_words;
        let tensors = std::mem::take(&mut parts.tensors);
        parts.tensors = tensors
            .into_iter()
            .filter_map(|tensor| self.tensor(tensor, old_width))
            .collect();
        let mut tokenizer: Value = serde_json::from_slice(&parts.tokenizer_json)?;
        let vocab = tokenizer["model"]["vocab"]
            .as_object_mut()
            .context("a vocabulary")?;
        vocab.retain(|_, id| id.as_u64().is_some_and(|id| id < self.num_words as u64));
        parts.tokenizer_json = serde_json::to_vec(&tokenizer)?;
        Ok(parts)
    }

    /// A tensor of the teacher as the student has it; `None` where its layer goes.
    fn tensor(&self, mut tensor: NamedTensor, old_width: usize) -> Option<NamedTensor> {
        if let Some(rest) = tensor.name.strip_prefix("encoder.layer.") {
            let (layer, rest) = rest.split_once('.')?;
            let layer: usize = layer.parse().ok()?;
            let place = self.layers.iter().position(|kept| *kept == layer)?;
            tensor.name = format!("encoder.layer.{place}.{rest}");
        }
        let name = tensor.name.as_str();
        if name == WORDS {
            keep_rows(&mut tensor, self.num_words);
        } else if name.contains(".intermediate.") {
            keep_rows(&mut tensor, self.width);
        } else if name.ends_with("output.dense.weight") && !name.contains("attention") {
            let rows = tensor.values.chunks_exact(old_width);
            tensor.values = rows.flat_map(|row| &row[..self.width]).copied().collect();
            tensor.shape[1] = self.width;
        }
        Some(tensor)
    }
}

fn keep_rows(tensor: &mut NamedTensor, num_rows: usize) {
    let num_cols: usize = tensor.shape[1..].iter().product();
    tensor.values.truncate(num_rows * num_cols);
    tensor.shape[0] = num_rows;
}

fn options(settings: &mut Settings) -> anyhow::Result<DistillOptions> {
    let known = DistillOptions::default();
    let step_share = settings.take("rounding", 0.0)?;
    let last_share = settings.take("last", 0.3)?;
    Ok(DistillOptions {
        num_steps: settings.take("steps", known.num_steps)?,
        num_views: settings.take("views", known.num_views)?,
        seed: settings.take("seed", known.seed)?,
        weights: LossWeights {
            cosine: settings.take("cosine", known.weights.cosine)?,
            score: settings.take("score", known.weights.score)?,
            hidden: settings.take("hidden", known.weights.hidden)?,
        },
        temperature: settings.take("temperature", known.temperature)?,
        learning_rate: settings.take("rate", known.learning_rate)?,
        num_tokens: settings.take("tokens", known.num_tokens)?,
        rounding: (step_share > 0.0).then_some(Rounding {
            step_share,
            last_share,
        }),
        ..known
    })
}

fn encoder(parts: PackSource) -> anyhow::Result<BertTextEncoder> {
    let tokenizer = TextTokenizer::from_bytes(&parts.tokenizer_json, parts.len_max)?;
    let encoder = TextEncoder::from_named(parts.config, parts.tensors, &Device::flex())?;
    Ok(BertTextEncoder::new(tokenizer, encoder)?)
}

/// Texts to be embedded, and what the teacher made of them.
struct Asked {
    questions: TextQuestions,
    titles: Vec<String>,
    queries: Vec<String>,
    expected: Vec<f32>,
    expected_of_queries: Vec<f32>,
    dim: usize,
}

impl Asked {
    fn new(dataset: &Dataset, teacher: &BertTextEncoder) -> anyhow::Result<Self> {
        let titles: Vec<String> = dataset.items.iter().map(|item| item.full_text()).collect();
        let mut rng = StdRng::seed_from_u64(99);
        let kept_out = titles.iter().step_by(KEPT_OUT_EVERY);
        let queries: Vec<String> = kept_out
            .map(|title| query_of(title, QUERY_WORDS, &mut rng))
            .collect();
        Ok(Self {
            questions: TextQuestions::of(dataset),
            expected: teacher.embed(&titles)?,
            expected_of_queries: teacher.embed(&queries)?,
            dim: teacher.dim(),
            titles,
            queries,
        })
    }

    fn learned(&self) -> Vec<String> {
        let titles = self.titles.iter().enumerate();
        let learned = titles.filter(|(idx, _)| idx % KEPT_OUT_EVERY != 0);
        learned.map(|(_, title)| title.clone()).collect()
    }

    fn row(&self, name: &str, student: &PackSource) -> anyhow::Result<Value> {
        let encoder = encoder(student.clone())?;
        let actual = encoder.embed(&self.titles)?;
        let of_queries = encoder.embed(&self.queries)?;
        let fidelity = self
            .questions
            .fidelity(&self.expected, &actual)
            .context("sizes differ")?;
        let part = |is_kept_out: bool| {
            let rows = |values: &[f32]| -> Vec<f32> {
                let rows = values.chunks_exact(self.dim).enumerate();
                let rows = rows.filter(|(idx, _)| (idx % KEPT_OUT_EVERY == 0) == is_kept_out);
                rows.flat_map(|(_, row)| row).copied().collect()
            };
            cosines(&rows(&self.expected), &rows(&actual), self.dim)
        };
        Ok(json!({
            "name": name,
            "cosine_learned": part(false),
            "cosine_kept_out": part(true),
            "cosine_queries": cosines(&self.expected_of_queries, &of_queries, self.dim),
            "ndcg_at_10": fidelity.ndcg_at_10,
            "neighbours_kept": fidelity.neighbours_kept,
        }))
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let encoder_dir = PathBuf::from(arguments.next().context("the folder of an encoder")?);
    let dataset_dir = PathBuf::from(arguments.next().context("the folder of a dataset")?);
    let mut settings = Settings::read(arguments)?;
    let dataset = Dataset::load(&dataset_dir, 1)?;
    let wanted = |name: &str| !shared_model::text::parameters::is_unused(name);
    let files = read_encoder_files(&encoder_dir, wanted)?;
    let parts = PackSource {
        config: BertConfig::from_json(&files.config_json)?,
        tokenizer_json: files.tokenizer_json.clone(),
        tensors: files.tensors.clone(),
        len_max: LEN_MAX,
    };
    let kept = Kept::of(&mut settings, &parts.config)?;
    let options = options(&mut settings)?;
    settings.end()?;

    let teacher = encoder(parts.clone())?;
    let asked = Asked::new(&dataset, &teacher)?;
    let student = kept.student(parts)?;
    let mut rows = vec![asked.row("cut", &student)?];

    let started = Instant::now();
    let lessons = Lessons::make(&teacher, &asked.learned(), &options, |_, _| true)?;
    let lesson_seconds = started.elapsed().as_secs_f64();
    let mut distiller = Distiller::new(student, &options, &Device::flex())?;
    let started = Instant::now();
    distiller.learn(&lessons, |report| {
        if report.step % STEPS_PER_LINE == 0 {
            eprintln!("{:.0} s {report:?}", started.elapsed().as_secs_f64());
        }
        true
    })?;
    let step_seconds = started.elapsed().as_secs_f64();
    rows.push(asked.row("distilled", &distiller.parts()?)?);
    let teacher_ndcg = asked.questions.ndcg_at_10(&asked.expected);
    let report = json!({
        "dataset": dataset.name,
        "layers": kept.layers,
        "width": kept.width,
        "words": kept.num_words,
        "options": format!("{options:?}"),
        "num_lessons": lessons.num_texts(),
        "lesson_seconds": lesson_seconds,
        "step_seconds": step_seconds,
        "teacher_ndcg_at_10": teacher_ndcg,
        "rows": rows,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
