//! Encoding: MiniLM in the page's own modules beside onnxruntime-web, int8 and f32.
//!
//! Every side embeds the same token sequences of 64; how near each comes to burn's f32 is told as a cosine.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use harness::browser::BrowserPage;
use serde_json::{Value, json};
use shared_model::ids::BlobId;
use shared_model::text::parameters::is_unused;
use shared_model::text::{BertConfig, TextEncoder, TextTokenizer, TokenizedText};
use trainer_server::config::Config;
use trainer_server::text_pack::{PackSource, pack};
use trainer_server::text_source::{
    default_cache_dir, fetch_pretrained, read_encoder_files, spinner,
};

use crate::ranking::spread;

const NUM_TOKENS: usize = 64;
const NUM_CALLS: usize = 60;
const NUM_WARM_UP_CALLS: usize = 15;
/// What a quantized encoder of ours must reach.
const COSINE_MIN: f64 = 0.999;
/// As a page downloads it.
const PACKED_FILE: &str = "encoder.ftxt";
/// As visitors type them.
const QUERIES: [&str; 3] = [
    "warm lamp",
    "gift for a gardener",
    "blue and white china teapot",
];
const SCRIPT: &str = include_str!("encoding.js");
/// As shops describe what they sell; each has more than 64 tokens.
const TEXTS: [&str; 4] = [
    "White hanging heart tea light holder made of powder-coated metal wire, with a glass cup for one candle. Hangs from \
     a satin ribbon on a hook, a branch or a curtain rail. For indoor and sheltered outdoor use; do not leave burning \
     candles unattended. Height 21 cm, weight 340 g, gift box included, wipe clean with a damp cloth.",
    "Waterproof hiking boots for women with a breathable lining, a cushioned midsole and a deep rubber tread for wet \
     rock and mud. The padded collar protects the ankle on long descents. Available in grey, plum and navy; runs half a \
     size small. Re-proof the leather after cleaning, dry away from heat, replace the insoles every year.",
    "A quiet detective story set in a harbour town in the nineteen-fifties: a retired pilot finds the diary of a \
     customs officer who vanished during a storm, and the people who remember him each remember someone else. Paperback, \
     384 pages, translated from the Norwegian, with an afterword by the author and a map of the islands.",
    "Stainless steel espresso maker for three cups, suitable for gas, electric and induction hobs. Heat-resistant handle, \
     safety valve, replaceable silicone seal and filter funnel. Fill the lower part with cold water up to the valve, add \
     finely ground coffee without pressing it, and take it off the heat as soon as it begins to gurgle.",
];

/// Puts the weights into `dir`, from where page and Python read them.
///
/// # Errors
/// They cannot be had, or not be copied.
pub(crate) fn prepare(dir: &Path) -> anyhow::Result<()> {
    let source = fetch_pretrained(&default_cache_dir(), &spinner())?;
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(source.join(file), dir.join(file))
            .with_context(|| format!("cannot copy {file}"))?;
    }
    let files = read_encoder_files(dir, |name| !is_unused(name))?;
    let source = PackSource {
        config: BertConfig::from_json(&files.config_json)?,
        tokenizer_json: files.tokenizer_json,
        tensors: files.tensors,
        len_max: 128,
    };
    let bytes_max = Config::default().publish.text_bytes_max;
    let packed = pack(source, TEXTS.iter(), bytes_max)?;
    fs::write(dir.join(PACKED_FILE), packed).context("cannot write the packed encoder")
}

/// Times and cosines of all sides.
///
/// # Errors
/// A side fails, or one of ours embeds otherwise than burn.
pub(crate) async fn measure(page: &BrowserPage, dir: &Path) -> anyhow::Result<Value> {
    let files = read_encoder_files(dir, |name| !is_unused(name))?;
    let config = BertConfig::from_json(&files.config_json)?;
    let len_max = config.max_position_embeddings;
    let texts = tokenized(&TextTokenizer::from_bytes(&files.tokenizer_json, len_max)?)?;
    let burn = TextEncoder::from_named(config, files.tensors, &Device::flex())?;
    let expected = burn.encode(&texts)?;
    let packed = fs::read(dir.join(PACKED_FILE)).context("cannot read the packed encoder")?;
    let calls: Vec<&Vec<u32>> = texts.iter().map(|text| &text.token_ids).collect();
    let input = json!({
        "calls": calls,
        "num_calls": NUM_CALLS,
        "num_warm_up_calls": NUM_WARM_UP_CALLS,
        "packed": { "id": BlobId::of(&packed).to_hex(), "queries": QUERIES },
    });
    let measured = page.run(SCRIPT, vec![input]).await?;
    let mut numbers = json!({ "num_tokens": NUM_TOKENS });
    let names = [
        ("freshet_text", "encode64"),
        ("freshet_text_relaxed", "encode64_relaxed"),
        ("ort_q8", "encode64_ort_q8"),
        ("ort_f32", "encode64_ort_f32"),
    ];
    for (side, name) in names {
        let Some(embeddings) = measured["embeddings"][side].as_array() else {
            continue; // this browser has no relaxed SIMD
        };
        let cosine = least_cosine(embeddings, &expected, burn.dim())?;
        if side.starts_with("freshet") {
            ensure!(
                cosine >= COSINE_MIN,
                "{side} has a cosine of {cosine} to burn's f32"
            );
        }
        numbers[format!("{name}_ms")] = spread(&measured["times"][side])?;
        numbers[format!("{name}_cosine_min")] = json!(cosine);
    }
    numbers["packed_bytes"] = json!(packed.len());
    for (side, times) in measured["packed"].as_object().context("times")? {
        let search = json!({
            "ready_ms": times["ready"],
            "longest_piece_ms": times["longest_piece"],
            "embed_query_ms": spread(&times["embed"])?,
        });
        numbers[format!("packed_{side}")] = search;
    }
    numbers["quantize_weights_ms"] = measured["builds"].clone();
    Ok(numbers)
}

/// Sequences of exactly [`NUM_TOKENS`]: the first ones of a text, its end marked as the tokenizer marks it.
fn tokenized(tokenizer: &TextTokenizer) -> anyhow::Result<Vec<TokenizedText>> {
    let mut texts = Vec::new();
    for text in TEXTS {
        let mut token_ids = tokenizer.tokenize(text)?.token_ids;
        ensure!(
            token_ids.len() >= NUM_TOKENS,
            "{} tokens: {text}",
            token_ids.len()
        );
        let end = token_ids.last().copied().context("never empty")?;
        token_ids.truncate(NUM_TOKENS - 1);
        token_ids.push(end);
        texts.push(TokenizedText { token_ids });
    }
    Ok(texts)
}

/// Of unit vectors with those that are expected.
fn least_cosine(embeddings: &[Value], expected: &[f32], dim: usize) -> anyhow::Result<f64> {
    let mut least = f64::INFINITY;
    for (embedding, expected) in embeddings.iter().zip(expected.chunks_exact(dim)) {
        let embedding = embedding.as_array().context("expected a list")?;
        ensure!(
            embedding.len() == dim,
            "an embedding has {} numbers",
            embedding.len()
        );
        let products = embedding.iter().zip(expected);
        let products = products.map(|(x, y)| x.as_f64().unwrap_or(f64::NAN) * f64::from(*y));
        least = least.min(products.sum());
    }
    ensure!(least.is_finite(), "an embedding is not finite");
    Ok(least)
}
