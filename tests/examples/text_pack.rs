//! What packing does to a text encoder: bytes, seconds, embeddings, and the ranking by text alone.
//!
//! `text_pack ENCODER_DIR DATASET_DIR [BYTES_MAX …]` prints JSON. The encoder is packed for the titles of the dataset, and
//! every title is embedded by burn in f32, by the int8 kernels from the weights as they are, and from each packed file.
//! NDCG@10 is that of `baselines::text_only` over the last fifth of the stream, items new to the user, not sampled.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use serde_json::{Value, json};
use shared_model::text::{
    BatchLimits, BertConfig, HostTextEncoder, PackedEncoder, TextEncoder, TextTokenizer,
};
use trainer_server::baselines::text_only::TextOnly;
use trainer_server::baselines::timelines::{Query, Timelines};
use trainer_server::dataset::Dataset;
use trainer_server::text_pack::{PackSource, pack};
use trainer_server::text_source::read_encoder_files;

const LEN_MAX: usize = 128;
const DEFAULT_BYTES_MAX: [usize; 3] = [7_500_000, 5_500_000, 4_000_000];
const NUM_NEIGHBOURS: usize = 10;

/// The part of the stream that is asked about.
struct Asked {
    timelines: Timelines,
    queries: Vec<Query>,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let encoder_dir = arguments.next().context("the folder of an encoder")?;
    let dataset_dir = arguments.next().context("the folder of a dataset")?;
    let mut budgets = Vec::new();
    for argument in arguments {
        budgets.push(argument.to_string_lossy().parse()?);
    }
    if budgets.is_empty() {
        budgets.extend(DEFAULT_BYTES_MAX);
    }
    let dataset = Dataset::load(&dataset_dir, 1)?;
    let texts: Vec<String> = dataset.items.iter().map(|item| item.full_text()).collect();
    let asked = asked(&dataset);

    let wanted = |name: &str| !shared_model::text::parameters::is_unused(name);
    let files = read_encoder_files(&encoder_dir, wanted)?;
    let config = BertConfig::from_json(&files.config_json)?;
    let tokenizer = TextTokenizer::from_bytes(&files.tokenizer_json, LEN_MAX)?;
    let tokens = texts.iter().map(|text| tokenizer.tokenize(text));
    let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
    let reference =
        TextEncoder::from_named(config.clone(), files.tensors.clone(), &Device::flex())?;
    let expected = reference
        .with_batch_limits(BatchLimits::EXACT)
        .encode(&tokens)?;
    let int8 = HostTextEncoder::from_named(config.clone(), files.tensors.clone())?;
    let int8 = int8.encode(&tokens)?;
    let mut rows = vec![
        compared("f32", &expected, &expected, &asked, texts.len())?,
        compared("int8", &expected, &int8, &asked, texts.len())?,
    ];
    for bytes_max in budgets {
        let source = PackSource {
            config: config.clone(),
            tokenizer_json: files.tokenizer_json.clone(),
            tensors: files.tensors.clone(),
            len_max: LEN_MAX,
        };
        let started = Instant::now();
        let bytes = pack(source, texts.iter(), bytes_max)?;
        let seconds = started.elapsed().as_secs_f64();
        let num_bytes = bytes.len();
        let started = Instant::now();
        let (_, packed) = PackedEncoder::from_bytes(bytes)?.open()?;
        let open_seconds = started.elapsed().as_secs_f64();
        let actual = packed.encode(&tokens)?;
        let mut row = compared(
            &format!("packed {bytes_max}"),
            &expected,
            &actual,
            &asked,
            texts.len(),
        )?;
        row["bytes"] = json!(num_bytes);
        row["pack_seconds"] = json!(seconds);
        row["open_seconds"] = json!(open_seconds);
        rows.push(row);
    }
    println!(
        "{}",
        serde_json::to_string_pretty(&json!({ "dataset": dataset.name, "rows": rows }))?
    );
    Ok(())
}

/// Queries of the last fifth whose item is new to the user.
fn asked(dataset: &Dataset) -> Asked {
    let first = dataset.split_at(0.8);
    let mut timelines = Timelines::new(dataset.users.len());
    let mut queries = Vec::new();
    for (idx, event) in dataset.events.iter().enumerate() {
        let query = timelines.push(event);
        if idx >= first && query.is_new {
            queries.push(query);
        }
    }
    Asked { timelines, queries }
}

fn compared(
    name: &str,
    expected: &[f32],
    actual: &[f32],
    asked: &Asked,
    num_items: usize,
) -> anyhow::Result<Value> {
    ensure!(expected.len() == actual.len(), "other sizes");
    let dim = actual.len() / num_items;
    let rows = || expected.chunks_exact(dim).zip(actual.chunks_exact(dim));
    let mut cosines: Vec<f32> = rows().map(|(a, b)| dot(a, b)).collect();
    let mean = cosines.iter().sum::<f32>() / num_items as f32;
    cosines.sort_by(f32::total_cmp);
    let stride = num_items.div_ceil(300);
    let kept: Vec<f64> = (0..num_items)
        .step_by(stride)
        .map(|item_idx| {
            let before = nearest(expected, dim, item_idx);
            let after = nearest(actual, dim, item_idx);
            before.iter().filter(|item| after.contains(item)).count() as f64 / NUM_NEIGHBOURS as f64
        })
        .collect();
    let text_only = TextOnly::new(actual, num_items, &Device::flex()).context("rows")?;
    let mut gain = 0.0;
    for queries in asked.queries.chunks(512) {
        for ranked in text_only.ranked(queries, &asked.timelines) {
            if let Some(rank) = ranked.rank.filter(|rank| (1..=10).contains(rank)) {
                gain += (f64::from(rank) + 1.0).log2().recip();
            }
        }
    }
    Ok(json!({
        "name": name,
        "cosine": { "mean": mean, "p5": cosines[num_items / 20], "min": cosines[0] },
        "neighbours_kept": kept.iter().sum::<f64>() / kept.len() as f64,
        "ndcg_at_10": gain / asked.queries.len() as f64,
        "num_queries": asked.queries.len(),
    }))
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
