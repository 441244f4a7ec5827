//! What a page has of an encoder that has learned: the file of the one before with a change beside it, and, for
//! comparison, a file of its own and the file of the one before alone.
//!
//! `text_change ENCODER_DIR DATASET_DIR [RANK [STUDENT]]` prints JSON. Changes of the rank (4) are drawn, small to large: what is
//! asked is how exactly pages get a change, not what a change is good for. Every title of the dataset is embedded by the
//! changed encoder in f32 and as pages would; what is compared: `baselines::text_fidelity`.
//! With a packed file of a smaller encoder, made for the encoder as it was, that follows by a change of the rank, too.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use shared_model::ids::BlobId;
use shared_model::text::{LowRankChange, PackedEncoder};
use trainer_server::baselines::text_fidelity::TextQuestions;
use trainer_server::dataset::Dataset;
use trainer_server::ladder::{Recipe, Workshop};
use trainer_server::text_pack::{PackSource, pack};

const LEN_MAX: usize = 128;
const BYTES_MAX: usize = 7_500_000;
const RANK: usize = 4;
const SEED: u64 = 1;
/// A quarter of the steps that built-in recipes distil by.
const FOLLOW_STEPS: usize = 150;
/// Largest values of the second factors.
const SIZES: [f32; 3] = [0.01, 0.03, 0.1];

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let encoder_dir = arguments.next().context("the folder of an encoder")?;
    let dataset_dir = arguments.next().context("the folder of a dataset")?;
    let rank = arguments.next().map(|rank| rank.to_string_lossy().parse());
    let rank = rank.transpose()?.unwrap_or(RANK);
    let student = arguments.next().map(fs::read).transpose()?;
    let dataset = Dataset::load(&dataset_dir, 1)?;
    let texts: Vec<String> = dataset.items.iter().map(|item| item.full_text()).collect();
    let questions = TextQuestions::of(&dataset);
    let source = PackSource::read(&encoder_dir, LEN_MAX)?;
    let tokens = source.tokens(&texts)?;
    let device = Device::flex();
    let bert = source.encoder(&device)?;
    let as_loaded = bert.embed(&texts)?;
    let file = pack(source.clone(), texts.iter(), BYTES_MAX)?;
    let id = BlobId::of(&file);
    let packed = PackedEncoder::from_bytes(file.clone())?;
    let embed = |packed: PackedEncoder| anyhow::Ok(packed.open()?.1.encode(&tokens)?);
    let alone = embed(packed.clone())?;
    let mut rows = Vec::new();
    for size in SIZES {
        let changed = bert.changed_by(drawn(&source, rank, size)?)?;
        let change = changed.encoder().change().context("it was changed")?;
        let expected = changed.embed(&texts)?;
        let compared = |actual: &[f32]| {
            let fidelity = questions.fidelity(&expected, actual);
            anyhow::Ok(serde_json::to_value(fidelity.context("other sizes")?)?)
        };
        let bytes = change.to_packed_bytes(id);
        let read = LowRankChange::from_packed_bytes(&bytes, id, &packed.config)?;
        let started = Instant::now();
        let with_change = packed.clone().changed_by(&read)?;
        let apply_seconds = started.elapsed().as_secs_f64();
        let tensors = changed.encoder().to_named()?;
        let own = PackSource {
            tensors,
            ..source.clone()
        };
        let own = pack(own, texts.iter(), BYTES_MAX)?;
        let own_file = embed(PackedEncoder::from_bytes(own.clone())?)?;
        let mut row = json!({
            "size": size,
            "as_loaded": compared(&as_loaded)?,
            "file_before": named(compared(&alone)?, file.len()),
            "file_and_change": named(compared(&embed(with_change)?)?, bytes.len()),
            "file_of_its_own": named(compared(&own_file)?, own.len()),
            "apply_seconds": apply_seconds,
        });
        if let Some(file) = &student {
            let before = PackedEncoder::from_bytes(file.clone())?;
            row["student_before"] = compared(&embedded(before.clone(), &texts)?)?;
            let tuned = PackSource {
                tensors: changed.encoder().to_named()?,
                ..source.clone()
            };
            let started = Instant::now();
            let mut workshop = Workshop::new(&tuned, &texts, &device);
            let recipe = Recipe {
                follow_steps: Some(FOLLOW_STEPS),
                ..Recipe::default()
            };
            let learned = workshop.follow(&recipe, rank, before.clone(), None, |_| true)?;
            row["follow_seconds"] = json!(started.elapsed().as_secs_f64());
            let bytes = learned.to_packed_bytes(id).len();
            let followed = embedded(before.changed_by(&learned)?, &texts)?;
            row["student_and_change"] = named(compared(&followed)?, bytes);
        }
        rows.push(row);
    }
    let report = json!({ "dataset": dataset.name, "rank": rank, "rows": rows });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

/// By tokens of its own.
fn embedded(packed: PackedEncoder, texts: &[String]) -> anyhow::Result<Vec<f32>> {
    let (tokenizer, network) = packed.open()?;
    let tokens = texts.iter().map(|text| tokenizer.tokenize(text));
    Ok(network.encode(&tokens.collect::<Result<Vec<_>, _>>()?)?)
}

/// With the bytes that a page downloads that had the file before.
fn named(mut fidelity: Value, bytes: usize) -> Value {
    fidelity["bytes"] = json!(bytes);
    fidelity
}

/// First factors as those of a new change, second ones of up to `size` either way.
fn drawn(source: &PackSource, rank: usize, size: f32) -> anyhow::Result<LowRankChange> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut change = LowRankChange::new(&source.config, rank, || rng.random_range(-1.7..1.7))?;
    let factors: Vec<f32> = change
        .factors()
        .iter()
        .flat_map(|factor| {
            let is_second = factor.name.ends_with(".b");
            factor.values.iter().map(move |value| (is_second, *value))
        })
        .map(|(is_second, value)| match is_second {
            true => rng.random_range(-size..size),
            false => value,
        })
        .collect();
    change.set_flat(&factors);
    Ok(change)
}
