//! What becomes of texts, and of the ranking by them alone, when a text encoder is made smaller.
//!
//! Embeddings are compared with those of the encoder as it is in f32: by cosine, by nearest texts, and by the NDCG@10 of
//! `baselines::text_only` over the last fifth of a dataset's stream, items new to the user, not sampled.
//! The examples `text_pack` and `prune` print them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use serde_json::{Value, json};
use shared_model::text::{BertConfig, TextEncoder, TextTokenizer, TokenizedText};
use trainer_server::baselines::text_only::TextOnly;
use trainer_server::baselines::timelines::{Query, Timelines};
use trainer_server::dataset::Dataset;
use trainer_server::text_pack::PackSource;
use trainer_server::text_source::read_encoder_files;

const LEN_MAX: usize = 128;
const NUM_NEIGHBOURS: usize = 10;

/// The items of a dataset as they should be embedded, and the part of its stream that is asked about.
pub struct TextFigures {
    expected: Vec<f32>,
    num_items: usize,
    timelines: Timelines,
    queries: Vec<Query>,
}

impl TextFigures {
    /// # Shapes
    /// `expected`: `[items, dim]`.
    #[must_use]
    pub fn new(dataset: &Dataset, expected: Vec<f32>) -> Self {
        let first = dataset.split_at(0.8);
        let mut timelines = Timelines::new(dataset.users.len());
        let mut queries = Vec::new();
        for (idx, event) in dataset.events.iter().enumerate() {
            let query = timelines.push(event);
            if idx >= first && query.is_new {
                queries.push(query);
            }
        }
        Self {
            expected,
            num_items: dataset.items.len(),
            timelines,
            queries,
        }
    }

    /// Embeddings as they should be, `[items, dim]`.
    #[must_use]
    pub fn expected(&self) -> &[f32] {
        &self.expected
    }

    /// # Errors
    /// The embeddings have other sizes.
    pub fn of(&self, name: &str, actual: &[f32]) -> Result<Value> {
        let (expected, num_items) = (&self.expected, self.num_items);
        ensure!(expected.len() == actual.len(), "other sizes");
        let dim = actual.len() / num_items;
        let mut cosines = cosines(expected, actual, dim);
        let mean = cosines.iter().sum::<f32>() / num_items as f32;
        cosines.sort_by(f32::total_cmp);
        let stride = num_items.div_ceil(300);
        let kept: Vec<f64> = (0..num_items)
            .step_by(stride)
            .map(|item_idx| {
                let before = nearest(expected, dim, item_idx);
                let after = nearest(actual, dim, item_idx);
                let kept = before.iter().filter(|item| after.contains(item)).count();
                kept as f64 / NUM_NEIGHBOURS as f64
            })
            .collect();
        Ok(json!({
            "name": name,
            "cosine": { "mean": mean, "p5": cosines[num_items / 20], "min": cosines[0] },
            "neighbours_kept": kept.iter().sum::<f64>() / kept.len() as f64,
            "ndcg_at_10": self.ndcg_at_10(actual)?,
            "num_queries": self.queries.len(),
        }))
    }

    fn ndcg_at_10(&self, actual: &[f32]) -> Result<f64> {
        let text_only =
            TextOnly::new(actual, self.num_items, &Device::flex()).context("no rows")?;
        let mut gain = 0.0;
        for queries in self.queries.chunks(512) {
            for ranked in text_only.ranked(queries, &self.timelines) {
                if let Some(rank) = ranked.rank.filter(|rank| (1..=10).contains(rank)) {
                    gain += (f64::from(rank) + 1.0).log2().recip();
                }
            }
        }
        Ok(gain / self.queries.len() as f64)
    }
}

/// The encoder of a folder.
///
/// # Errors
/// A file is missing or not sound.
pub fn read_parts(dir: &Path) -> Result<PackSource> {
    let wanted = |name: &str| !shared_model::text::parameters::is_unused(name);
    let files = read_encoder_files(dir, wanted)?;
    Ok(PackSource {
        config: BertConfig::from_json(&files.config_json)?,
        tokenizer_json: files.tokenizer_json,
        tensors: files.tensors,
        len_max: LEN_MAX,
    })
}

/// Texts as the tokens of an encoder.
///
/// # Errors
/// The tokenizer is not sound.
pub fn tokens_of(parts: &PackSource, texts: &[String]) -> Result<Vec<TokenizedText>> {
    let tokenizer = TextTokenizer::from_bytes(&parts.tokenizer_json, parts.len_max)?;
    let tokens = texts.iter().map(|text| tokenizer.tokenize(text));
    Ok(tokens.collect::<Result<_, _>>()?)
}

/// Embeddings by burn in f32, `[texts, dim]`.
///
/// # Errors
/// The encoder is not sound.
pub fn embed(parts: &PackSource, texts: &[String]) -> Result<Vec<f32>> {
    let (config, tensors) = (parts.config.clone(), parts.tensors.clone());
    let network = TextEncoder::from_named(config, tensors, &Device::flex())?;
    Ok(network.encode(&tokens_of(parts, texts)?)?)
}

/// Of rows of length 1.
#[must_use]
pub fn cosines(a: &[f32], b: &[f32], dim: usize) -> Vec<f32> {
    let rows = a.chunks_exact(dim).zip(b.chunks_exact(dim));
    rows.map(|(a, b)| dot(a, b)).collect()
}

/// The items with the nearest texts, the item itself left out.
fn nearest(rows: &[f32], dim: usize, item_idx: usize) -> Vec<usize> {
    let of = |idx: usize| &rows[idx * dim..][..dim];
    let mut others: Vec<(usize, f32)> = (0..rows.len() / dim)
        .filter(|idx| *idx != item_idx)
        .map(|idx| (idx, dot(of(item_idx), of(idx))))
        .collect();
    others.sort_by(|a, b| b.1.total_cmp(&a.1));
    others.truncate(NUM_NEIGHBOURS);
    others.into_iter().map(|(idx, _)| idx).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
