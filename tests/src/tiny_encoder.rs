//! A pretrained text encoder small enough for tests: two layers, width 32, the words of the made-up world.
//!
//! Its weights are drawn from a fixed seed, so that its texts are the same in every run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use shared_model::text::{
    AnyTextEncoder, BertConfig, BertTextEncoder, NamedTensor, TextEncoder, TextTokenizer,
};

use crate::people::TOPICS;

const SEED: u64 = 5;
const TOKENS_MAX: usize = 16;
const SPECIAL: [&str; 3] = ["[UNK]", "[CLS]", "[SEP]"];
/// Numbers in titles.
const NUMBERS: usize = 64;

fn words() -> Vec<String> {
    let named = SPECIAL.into_iter().chain(TOPICS).chain(["number"]);
    let named = named.map(str::to_owned);
    named
        .chain((0..NUMBERS).map(|number| number.to_string()))
        .collect()
}

fn config_json() -> Value {
    json!({
        "vocab_size": words().len(), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": TOKENS_MAX, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    })
}

fn tokenizer_json() -> Value {
    let special = |id: usize| json!({"id": SPECIAL[id], "ids": [id], "tokens": [SPECIAL[id]]});
    let token = |id: usize| json!({"SpecialToken": {"id": SPECIAL[id], "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let vocabulary: BTreeMap<String, usize> = words().into_iter().zip(0..).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token(1), text.clone(), token(2)],
            "pair": [token(1), text, token(2)],
            "special_tokens": {"[CLS]": special(1), "[SEP]": special(2)},
        },
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    })
}

/// Norms start neutral, biases at zero, all else is drawn from −a to a.
fn tensors(config: &BertConfig) -> Vec<NamedTensor> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let (dim, inner) = (config.hidden_size, config.intermediate_size);
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, half_width: f32| {
        let len = shape.iter().product();
        let neutral = if name.ends_with("LayerNorm.weight") {
            1.0
        } else {
            0.0
        };
        let draw = |rng: &mut StdRng| neutral + half_width * (2.0 * rng.random::<f32>() - 1.0);
        let values = (0..len).map(|_| draw(&mut rng)).collect();
        tensors.push(NamedTensor {
            name,
            shape,
            values,
        });
    };
    let embedding = |name: &str| format!("embeddings.{name}_embeddings.weight");
    add(embedding("word"), vec![config.vocab_size, dim], 1.0);
    add(embedding("position"), vec![TOKENS_MAX, dim], 0.1);
    add(
        embedding("token_type"),
        vec![config.type_vocab_size, dim],
        0.1,
    );
    let mut prefixes = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..config.num_hidden_layers {
        let prefix = format!("encoder.layer.{layer}");
        let linear = [
            ("attention.self.query", dim, dim),
            ("attention.self.key", dim, dim),
            ("attention.self.value", dim, dim),
            ("attention.output.dense", dim, dim),
            ("intermediate.dense", inner, dim),
            ("output.dense", dim, inner),
        ];
        for (name, d_out, d_in) in linear {
            add(format!("{prefix}.{name}.weight"), vec![d_out, d_in], 0.3);
            add(format!("{prefix}.{name}.bias"), vec![d_out], 0.0);
        }
        prefixes.push(format!("{prefix}.attention.output.LayerNorm"));
        prefixes.push(format!("{prefix}.output.LayerNorm"));
    }
    for prefix in prefixes {
        add(format!("{prefix}.weight"), vec![dim], 0.0);
        add(format!("{prefix}.bias"), vec![dim], 0.0);
    }
    tensors
}

/// The encoder, on the CPU.
///
/// # Errors
/// Its parts do not fit together.
pub fn tiny_encoder() -> Result<AnyTextEncoder> {
    let config = BertConfig::from_json(config_json().to_string().as_bytes())?;
    let tokenizer = tokenizer_json().to_string();
    let tokenizer = TextTokenizer::from_bytes(tokenizer.as_bytes(), TOKENS_MAX)?;
    let tensors = tensors(&config);
    let encoder = TextEncoder::from_named(config, tensors, &Device::flex())?;
    let encoder = BertTextEncoder::new(tokenizer, encoder)?;
    Ok(AnyTextEncoder::Bert(Box::new(encoder)))
}

/// Writes its three files into `dir`, for `model.text_encoder_dir`.
///
/// # Errors
/// A file cannot be written.
pub fn write_tiny_encoder(dir: &Path) -> Result<()> {
    let config = BertConfig::from_json(config_json().to_string().as_bytes())?;
    let tensors = tensors(&config);
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| {
            let values = tensor.values.iter();
            values.flat_map(|value| value.to_le_bytes()).collect()
        })
        .collect();
    let mut views = Vec::new();
    for (tensor, bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?;
        views.push((tensor.name.as_str(), view));
    }
    let weights = safetensors::serialize(views, None)?;
    let files = [
        ("config.json", config_json().to_string().into_bytes()),
        ("tokenizer.json", tokenizer_json().to_string().into_bytes()),
        ("model.safetensors", weights),
    ];
    for (name, bytes) in files {
        std::fs::write(dir.join(name), bytes).with_context(|| name.to_owned())?;
    }
    Ok(())
}
