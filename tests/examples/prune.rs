//! What pruning does to a text encoder before anything is trained again: sizes, embeddings, the ranking by text alone.
//!
//! `prune ENCODER_DIR DATASET_DIR [NAME …]` prints a line of JSON for every encoder, or for those whose names begin so.
//! The encoder is pruned for the titles of the dataset, each way alone and all together, and every title is embedded by
//! burn in f32. The figures are those of
//! `baselines::text_fidelity`. `spelled` rows cut the vocabulary to what half of the
//! titles use and compare the others, as far as words of theirs were cut.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use serde_json::{Value, json};
use shared_model::text::HostTextEncoder;
use shared_model::text::packed::{TensorKind, layout};
use trainer_server::baselines::text_fidelity::{TextQuestions, cosines};
use trainer_server::dataset::Dataset;
use trainer_server::prune;
use trainer_server::text_pack::PackSource;

const LEN_MAX: usize = 128;

/// The titles of a dataset as they should be embedded, and what is asked about them.
struct Titles {
    texts: Vec<String>,
    questions: TextQuestions,
    expected: Vec<f32>,
}

/// What an encoder is cut to; nothing of what is not named.
#[derive(Default)]
struct Recipe {
    num_more_tokens: Option<usize>,
    num_layers: Option<usize>,
    num_neurons: Option<usize>,
    num_heads: Option<usize>,
}

impl Recipe {
    fn name(&self) -> String {
        let parts = [
            ("vocabulary", self.num_more_tokens),
            ("layers", self.num_layers),
            ("neurons", self.num_neurons),
            ("heads", self.num_heads),
        ];
        let named = parts
            .iter()
            .filter_map(|(name, num)| Some(format!("{name} {}", (*num)?)));
        named.collect::<Vec<_>>().join(", ")
    }

    fn apply(&self, mut parts: PackSource, texts: &[String]) -> anyhow::Result<PackSource> {
        if let Some(num_more) = self.num_more_tokens {
            parts = prune::vocabulary(parts, texts, num_more)?;
        }
        if let Some(num) = self.num_layers {
            let kept = prune::layers_that_matter(&parts, texts, num)?;
            eprintln!("layers {kept:?}");
            parts = prune::layers(parts, &kept)?;
        }
        if let Some(width) = self.num_neurons {
            parts = prune::neurons(parts, texts, width)?;
        }
        if let Some(num) = self.num_heads {
            parts = prune::heads(parts, texts, num)?;
        }
        Ok(parts)
    }
}

fn recipes() -> Vec<Recipe> {
    let vocabulary = |num| Recipe {
        num_more_tokens: Some(num),
        ..Recipe::default()
    };
    let layers = |num| Recipe {
        num_layers: Some(num),
        ..Recipe::default()
    };
    let neurons = |num| Recipe {
        num_neurons: Some(num),
        ..Recipe::default()
    };
    let together = |num_layers, num_neurons| Recipe {
        num_more_tokens: Some(2000),
        num_layers: Some(num_layers),
        num_neurons: Some(num_neurons),
        num_heads: Some(8),
    };
    vec![
        layers(3),
        layers(2),
        neurons(768),
        neurons(576),
        Recipe {
            num_heads: Some(8),
            ..Recipe::default()
        },
        vocabulary(2000),
        Recipe {
            num_layers: None,
            ..together(6, 768)
        },
        together(3, 768),
        together(2, 576),
    ]
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let encoder_dir = arguments.next().context("the folder of an encoder")?;
    let dataset_dir = arguments.next().context("the folder of a dataset")?;
    let names: Vec<String> = arguments
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let is_asked =
        |name: &str| names.is_empty() || names.iter().any(|asked| name.starts_with(asked));
    let dataset = Dataset::load(&dataset_dir, 1)?;
    let texts: Vec<String> = dataset.items.iter().map(|item| item.full_text()).collect();
    let whole = PackSource::read(&encoder_dir, LEN_MAX)?;
    let titles = Titles {
        questions: TextQuestions::of(&dataset),
        expected: embed(&whole, &texts)?,
        texts,
    };
    if is_asked("whole") {
        println!("{}", row("whole", &whole, &titles)?);
    }
    for recipe in recipes()
        .into_iter()
        .filter(|recipe| is_asked(&recipe.name()))
    {
        let started = Instant::now();
        let pruned = recipe.apply(whole.clone(), &titles.texts)?;
        let seconds = started.elapsed().as_secs_f64();
        let mut row = row(&recipe.name(), &pruned, &titles)?;
        row["prune_seconds"] = json!(seconds);
        println!("{row}");
    }
    for num_more in [0, 2000, 8000] {
        if is_asked("spelled") {
            println!("{}", spelled(&whole, &titles, num_more)?);
        }
    }
    Ok(())
}

fn embed(parts: &PackSource, texts: &[String]) -> anyhow::Result<Vec<f32>> {
    Ok(parts.encoder(&Device::flex())?.embed(texts)?)
}

fn row(name: &str, parts: &PackSource, titles: &Titles) -> anyhow::Result<Value> {
    let actual = embed(parts, &titles.texts)?;
    let fidelity = titles.questions.fidelity(&titles.expected, &actual);
    let mut row = serde_json::to_value(fidelity.context("other sizes")?)?;
    row["name"] = json!(name);
    let num_weights = layout(&parts.config)
        .into_iter()
        .map(|(_, kind)| match kind {
            TensorKind::Matrix { num_rows, num_cols } => num_rows * num_cols,
            TensorKind::Vector { len } => len,
        });
    row["num_weights"] = json!(num_weights.sum::<usize>());
    row["vocab_size"] = json!(parts.config.vocab_size);
    let network = HostTextEncoder::from_named(parts.config.clone(), parts.tensors.clone())?;
    let tokens = parts.tokens(&titles.texts[..titles.texts.len().min(500)])?;
    let started = Instant::now();
    network.encode(&tokens)?;
    row["int8_millis_per_text"] =
        json!(started.elapsed().as_secs_f64() * 1e3 / tokens.len() as f64);
    Ok(row)
}

/// The vocabulary of every second text, and what it makes of the others.
fn spelled(whole: &PackSource, titles: &Titles, num_more: usize) -> anyhow::Result<Value> {
    let texts = &titles.texts;
    let known: Vec<String> = texts.iter().step_by(2).cloned().collect();
    let pruned = prune::vocabulary(whole.clone(), &known, num_more)?;
    let lens = |parts: &PackSource| -> anyhow::Result<Vec<usize>> {
        let tokens = parts.tokens(texts)?;
        Ok(tokens.iter().map(|text| text.token_ids.len()).collect())
    };
    let (before, after) = (lens(whole)?, lens(&pruned)?);
    let (dim, actual) = (whole.config.hidden_size, embed(&pruned, texts)?);
    let cosine_of = |idx: usize| {
        let row = idx * dim..(idx + 1) * dim;
        cosines(&titles.expected[row.clone()], &actual[row], dim).map(|cosines| cosines.mean)
    };
    let mut changed = Vec::new();
    let mut num_pieces = 0;
    for idx in (0..texts.len()).filter(|idx| before[*idx] != after[*idx]) {
        changed.push(cosine_of(idx).context("other sizes")?);
        num_pieces += after[idx] - before[idx];
    }
    Ok(json!({
        "name": format!("spelled, vocabulary {num_more}"),
        "vocab_size": pruned.config.vocab_size,
        "num_other_texts": texts.len() - known.len(),
        "num_changed": changed.len(),
        "pieces_added_per_changed_text": num_pieces as f64 / changed.len() as f64,
        "mean_cosine_of_changed": changed.iter().sum::<f32>() / changed.len() as f32,
    }))
}
