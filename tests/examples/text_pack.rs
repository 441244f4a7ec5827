//! What packing does to a text encoder: bytes, seconds, embeddings, and the ranking by text alone.
//!
//! `text_pack ENCODER_DIR DATASET_DIR [BYTES_MAX …]` prints JSON. The encoder is packed for the titles of the dataset, and
//! every title is embedded by burn in f32, by the int8 kernels from the weights as they are, and from each packed file.
//! What is compared: `baselines::text_fidelity`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use serde_json::{Value, json};
use shared_model::text::{HostTextEncoder, PackedEncoder};
use trainer_server::baselines::text_fidelity::TextQuestions;
use trainer_server::dataset::Dataset;
use trainer_server::text_pack::{PackSource, pack};

const LEN_MAX: usize = 128;
const DEFAULT_BYTES_MAX: [usize; 3] = [7_500_000, 5_500_000, 4_000_000];

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
    let questions = TextQuestions::of(&dataset);

    let source = PackSource::read(&encoder_dir, LEN_MAX)?;
    let tokens = source.tokens(&texts)?;
    let expected = source.encoder(&Device::flex())?.embed(&texts)?;
    let int8 = HostTextEncoder::from_named(source.config.clone(), source.tensors.clone())?;
    let int8 = int8.encode(&tokens)?;
    let mut rows = vec![
        compared("f32", &expected, &expected, &questions)?,
        compared("int8", &expected, &int8, &questions)?,
    ];
    for bytes_max in budgets {
        let started = Instant::now();
        let bytes = pack(source.clone(), texts.iter(), bytes_max)?;
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
            &questions,
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

fn compared(
    name: &str,
    expected: &[f32],
    actual: &[f32],
    questions: &TextQuestions,
) -> anyhow::Result<Value> {
    let fidelity = questions.fidelity(expected, actual);
    let mut row = serde_json::to_value(fidelity.context("other sizes")?)?;
    row["name"] = json!(name);
    Ok(row)
}
