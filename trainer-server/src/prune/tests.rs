//! A small network with parts that do nothing, or that others can stand in for; and tokenizer files, sound and not.

use serde_json::{Value, json};
use shared_model::text::packed::{self, TensorKind};
use shared_model::text::{BertConfig, HostTextEncoder, NamedTensor};

use super::surgeon::Surgeon;
use super::*;
use crate::text_pack::moments::SecondMoments;

const DIM: usize = 24;
const NUM_NEURONS: usize = 32;
const NUM_HEADS: usize = 4;
const HEAD_SIZE: usize = DIM / NUM_HEADS;
const SPECIAL: [&str; 5] = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]"];
const PIECES: [&str; 8] = [
    "red", "blue", "mug", "lamp", "##shade", "the", "green", "shade",
];

/// Special tokens, characters, then words.
fn tokens() -> Vec<String> {
    let special = SPECIAL.into_iter().map(str::to_owned);
    let letters = ('a'..='z').flat_map(|letter| [letter.to_string(), format!("##{letter}")]);
    let pieces = PIECES.into_iter().map(str::to_owned);
    special.chain(letters).chain(pieces).collect()
}

fn tokenizer() -> Value {
    let vocab: serde_json::Map<String, Value> =
        tokens().into_iter().zip((0..).map(Value::from)).collect();
    let added = |id: usize| {
        json!({"id": id, "content": SPECIAL[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let special = |id: usize| json!({"id": SPECIAL[id], "ids": [id], "tokens": [SPECIAL[id]]});
    let token = |id: usize| json!({"SpecialToken": {"id": SPECIAL[id], "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    json!({
        "version": "1.0", "truncation": null,
        "padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [added(0), added(2), added(3), added(4)],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token(3), text.clone(), token(4)], "pair": [token(3), text, token(4)],
            "special_tokens": {"[CLS]": special(3), "[SEP]": special(4)},
        },
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

fn config() -> BertConfig {
    let config = json!({
        "vocab_size": tokens().len(), "hidden_size": DIM, "num_hidden_layers": 3, "num_attention_heads": NUM_HEADS,
        "intermediate_size": NUM_NEURONS, "max_position_embeddings": 32, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    });
    BertConfig::from_json(config.to_string().as_bytes()).expect("a small config")
}

/// Weights around zero, norms around one, the same in every run.
pub(crate) fn parts() -> PackSource {
    let mut state = 11_u64;
    let mut draw = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    let types = TensorKind::Matrix {
        num_rows: 2,
        num_cols: DIM,
    };
    let types = ("embeddings.token_type_embeddings.weight".to_owned(), types);
    let tensor = |(name, kind): (String, TensorKind)| {
        let shape = kind.shape();
        let (center, width) = match kind {
            TensorKind::Vector { .. } if name.ends_with("LayerNorm.weight") => (1.0, 0.1),
            TensorKind::Vector { .. } => (0.0, 0.1),
            TensorKind::Matrix { .. } => (0.0, 0.4),
        };
        let values = (0..shape.iter().product())
            .map(|_| center + width * draw())
            .collect();
        NamedTensor {
            name,
            shape,
            values,
        }
    };
    PackSource {
        config: config(),
        tokenizer_json: tokenizer().to_string().into_bytes(),
        tensors: packed::layout(&config())
            .into_iter()
            .chain([types])
            .map(tensor)
            .collect(),
        len_max: 32,
    }
}

fn values<'a>(parts: &'a mut PackSource, name: &str) -> &'a mut Vec<f32> {
    let tensor = parts.tensors.iter_mut().find(|tensor| tensor.name == name);
    &mut tensor.expect("the network has it").values
}

/// Strings of pieces and letters.
fn texts() -> Vec<String> {
    let word = |text: usize, place: usize| match (text * 7 + place * 5 + text * place) % 13 {
        piece @ 0..8 => PIECES[piece].trim_start_matches("##").to_owned(),
        other => char::from(b'a' + ((other * 3 + text) % 26) as u8).to_string(),
    };
    (0..90)
        .map(|text| {
            (0..2 + text % 6)
                .map(|place| word(text, place))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

fn embeddings(parts: &PackSource, texts: &[String]) -> Vec<f32> {
    let tokenizer = TextTokenizer::from_bytes(&parts.tokenizer_json, parts.len_max).expect("sound");
    let tokens: Vec<_> = texts
        .iter()
        .map(|text| tokenizer.tokenize(text).expect("tokens"))
        .collect();
    let network = HostTextEncoder::from_named(parts.config.clone(), parts.tensors.clone());
    network.expect("complete").encode(&tokens).expect("finite")
}

fn mean_cosine(a: &PackSource, b: &PackSource) -> f32 {
    let texts = texts();
    let (a, b) = (embeddings(a, &texts), embeddings(b, &texts));
    a.iter().zip(&b).map(|(a, b)| a * b).sum::<f32>() / texts.len() as f32
}

#[test]
fn a_layer_that_does_nothing_goes_first() {
    let mut whole = parts();
    // Post-norm: a layer whose halves add nothing only norms what is normed already.
    for half in ["attention.output", "output"] {
        values(&mut whole, &format!("encoder.layer.1.{half}.dense.weight")).fill(0.0);
        values(&mut whole, &format!("encoder.layer.1.{half}.dense.bias")).fill(0.0);
        values(
            &mut whole,
            &format!("encoder.layer.1.{half}.LayerNorm.weight"),
        )
        .fill(1.0);
        values(
            &mut whole,
            &format!("encoder.layer.1.{half}.LayerNorm.bias"),
        )
        .fill(0.0);
    }
    values(&mut whole, "encoder.layer.0.output.LayerNorm.weight").fill(1.0);
    values(&mut whole, "encoder.layer.0.output.LayerNorm.bias").fill(0.0);
    let kept = layers_that_matter(&whole, &texts(), 2).expect("measured");
    assert_eq!(kept, [0, 2]);
    let pruned = layers(whole.clone(), &kept).expect("a choice");
    assert_eq!(pruned.config.num_hidden_layers, 2);
    assert!(mean_cosine(&whole, &pruned) > 0.999);
}

#[test]
fn a_choice_of_layers_must_be_one() {
    for keep in [vec![], vec![1, 0], vec![0, 0], vec![0, 3]] {
        let error = layers(parts(), &keep).expect_err("no choice");
        assert_eq!(
            error,
            PruneError::Layers {
                keep,
                num_layers: 3
            }
        );
    }
}

#[test]
fn silent_and_doubled_neurons_can_go_without_a_loss() {
    let mut whole = parts();
    for layer in 0..3 {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        // The second half of the neurons repeats the first but for the last four, which are always the same.
        for (part, width) in [
            ("intermediate.dense.weight", DIM),
            ("intermediate.dense.bias", 1),
        ] {
            let values = values(&mut whole, &name(part));
            let half = values.len() / 2;
            values.copy_within(..half, half);
            let constant = values.len() - 4 * width;
            values[constant..].fill(if width == 1 { 1.0 } else { 0.0 });
        }
    }
    let pruned = neurons(whole.clone(), &texts(), NUM_NEURONS / 2).expect("pruned");
    assert_eq!(pruned.config.intermediate_size, NUM_NEURONS / 2);
    assert!(
        mean_cosine(&whole, &pruned) > 0.999,
        "{}",
        mean_cosine(&whole, &pruned)
    );
}

#[test]
fn a_head_that_gives_nothing_goes_and_what_others_gave_is_fitted() {
    let mut whole = parts();
    for layer in 0..3 {
        let name = format!("encoder.layer.{layer}.attention.output.dense.weight");
        for row in values(&mut whole, &name).chunks_exact_mut(DIM) {
            row[layer * HEAD_SIZE..][..HEAD_SIZE].fill(0.0);
        }
    }
    let pruned = heads(whole.clone(), &texts(), 3).expect("pruned");
    assert_eq!(pruned.config.num_attention_heads, 3);
    assert_eq!(pruned.config.attention_head_size, Some(HEAD_SIZE));
    assert!(mean_cosine(&whole, &pruned) > 0.999);
    let pruned = heads(parts(), &texts(), NUM_HEADS).expect("all are kept");
    assert_eq!(pruned.config, config());
    assert!(mean_cosine(&parts(), &pruned) > 0.999);
}

#[test]
fn fitted_outputs_are_nearer_than_the_same_inputs_cut_away() {
    let pruned = neurons(parts(), &texts(), NUM_NEURONS / 2).expect("pruned");
    let mut cut = pruned.clone();
    let (mut whole, mut found) = (parts(), 0);
    for layer in 0..3 {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let source = name("intermediate.dense.weight");
        let kept: Vec<usize> = {
            let rows = values(&mut whole, &source).clone();
            let kept = values(&mut cut, &source).chunks_exact(DIM);
            kept.filter_map(|row| rows.chunks_exact(DIM).position(|other| other == row))
                .collect()
        };
        found += kept.len();
        let output = values(&mut whole, &name("output.dense.weight")).clone();
        let rows = output.chunks_exact(NUM_NEURONS);
        *values(&mut cut, &name("output.dense.weight")) = rows
            .flat_map(|row| kept.iter().map(|neuron| row[*neuron]))
            .collect();
        *values(&mut cut, &name("output.dense.bias")) =
            values(&mut whole, &name("output.dense.bias")).clone();
    }
    assert_eq!(found, 3 * NUM_NEURONS / 2, "neurons are kept as they are");
    let (fitted, cut) = (mean_cosine(&whole, &pruned), mean_cosine(&whole, &cut));
    assert!(1.0 - fitted < 0.5 * (1.0 - cut), "{fitted} and {cut}");
}

/// Squared error of `inputs · weights`, `[inputs, outputs]`.
fn error(inputs: &[f32], weights: &[Vec<f64>], other: &[Vec<f64>]) -> f64 {
    let rows = inputs.chunks_exact(weights.len());
    let of_output = |row: &[f32], output: usize| {
        let terms = row.iter().enumerate();
        let terms = terms.map(|(i, x)| f64::from(*x) * (weights[i][output] - other[i][output]));
        terms.sum::<f64>().powi(2)
    };
    rows.map(|row| {
        (0..weights[0].len())
            .map(|output| of_output(row, output))
            .sum::<f64>()
    })
    .sum()
}

#[test]
fn the_group_that_goes_is_the_one_that_others_replace_best() {
    const NUM: usize = 6;
    let mut inputs: Vec<f32> = (0..200 * NUM)
        .map(|idx| ((idx * idx) as f32 * 0.37).sin())
        .collect();
    // The second pair of inputs gives most, and is nearly the sum of both others.
    for row in inputs.chunks_exact_mut(NUM) {
        for member in 0..2 {
            row[2 + member] = row[member] + row[4 + member] + 0.05 * row[2 + member];
        }
    }
    let weight = |i: usize, j: usize| {
        let of_pair = if i / 2 == 1 { 0.8 } else { 1.0 };
        of_pair * ((i * 3 + j) as f64).cos()
    };
    let weights: Vec<Vec<f64>> = (0..NUM)
        .map(|i| (0..3).map(|j| weight(i, j)).collect())
        .collect();
    let mut moments = SecondMoments::new(NUM);
    moments.add(&inputs);
    let mut surgeon = Surgeon::new(weights.clone(), moments.inverse(1e-9), 2, 3);
    surgeon.keep(2);
    assert_eq!(surgeon.inputs(), [0, 1, 4, 5]);
    let fitted = surgeon.weights();
    assert_eq!(fitted[2..4], [[0.0; 3], [0.0; 3]]);
    // No small change of the weights that are left makes the outputs better.
    let least = error(&inputs, &weights, fitted);
    for input in surgeon.inputs() {
        for step in [-1e-3, 1e-3] {
            let mut moved = fitted.to_vec();
            moved[input][1] += step;
            assert!(error(&inputs, &weights, &moved) > least);
        }
    }
}

#[test]
fn more_than_there_is_cannot_be_kept_and_nothing_neither() {
    for wanted in [0, 33] {
        let error = neurons(parts(), &texts(), wanted).expect_err("refused");
        let expected = PruneError::Kept {
            field: "intermediate_size",
            actual: wanted,
            most: 32,
        };
        assert_eq!(error, expected);
    }
    assert!(matches!(
        heads(parts(), &texts(), 5),
        Err(PruneError::Kept { most: 4, .. })
    ));
    assert_eq!(heads(parts(), &[], 2).err(), Some(PruneError::NoTexts));
    assert!(matches!(
        layers_that_matter(&parts(), &texts(), 4),
        Err(PruneError::Kept { most: 3, .. })
    ));
}

fn pieces(parts: &PackSource, text: &str) -> Vec<String> {
    let file: Value = serde_json::from_slice(&parts.tokenizer_json).expect("JSON");
    let vocab = file["model"]["vocab"]
        .as_object()
        .expect("a vocabulary")
        .clone();
    let tokenizer = TextTokenizer::from_bytes(&parts.tokenizer_json, parts.len_max).expect("sound");
    let ids = tokenizer.tokenize(text).expect("tokens").token_ids;
    let name = |id: &u32| {
        vocab
            .iter()
            .find(|(_, of)| **of == json!(id))
            .expect("known")
            .0
            .clone()
    };
    ids.iter().map(name).collect()
}

#[test]
fn texts_keep_their_pieces_and_other_words_are_spelled() {
    let known = ["Red mugs".to_owned(), "blue lampshade".to_owned()];
    let pruned = vocabulary(parts(), &known, 1).expect("cut");
    for text in &known {
        assert_eq!(pieces(&pruned, text), pieces(&parts(), text));
    }
    assert_eq!(pieces(&parts(), "green"), ["[CLS]", "green", "[SEP]"]);
    let spelled = ["[CLS]", "g", "##r", "##e", "##e", "##n", "[SEP]"];
    assert_eq!(pieces(&pruned, "green"), spelled);
    assert_eq!(
        pieces(&pruned, "the"),
        ["[CLS]", "the", "[SEP]"],
        "the first of the others"
    );
    assert_eq!(
        pieces(&pruned, "ж"),
        pieces(&parts(), "ж"),
        "unknown before and after"
    );

    let file: Value = serde_json::from_slice(&pruned.tokenizer_json).expect("JSON");
    let vocab = file["model"]["vocab"].as_object().expect("a vocabulary");
    let mut ids: Vec<u64> = vocab.values().filter_map(Value::as_u64).collect();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(0..pruned.config.vocab_size as u64));
    assert!(!vocab.contains_key("[unused0]") && !vocab.contains_key("green"));
    let texts = known.to_vec();
    assert_eq!(embeddings(&pruned, &texts), embeddings(&parts(), &texts));
}

#[test]
fn everything_can_be_kept() {
    let pruned = vocabulary(parts(), &texts(), usize::MAX).expect("nothing to cut but one");
    assert_eq!(pruned.config.vocab_size, tokens().len() - 1);
    assert!(mean_cosine(&parts(), &pruned) > 0.9999);
}

#[test]
fn an_unsound_tokenizer_is_refused_by_its_field() {
    let last = tokens().len() as u64;
    let changes: [(&str, Value, &str); 8] = [
        ("/model/type", json!("BPE"), "model.type"),
        ("/model/vocab/mug", json!(last), "model.vocab.mug"),
        ("/model/vocab/mug", json!(0), "has the id 0, as"),
        ("/model/unk_token", json!("[NONE]"), "model.unk_token"),
        (
            "/added_tokens/1/id",
            json!(1_u64 << 31),
            "added_tokens.1.id",
        ),
        ("/padding/pad_id", json!(last), "padding.pad_id"),
        (
            "/post_processor/special_tokens/[SEP]/ids/0",
            json!(last),
            "special_tokens.[SEP].ids",
        ),
        (
            "/post_processor",
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}),
            "post_processor.type",
        ),
    ];
    for (field, value, named) in changes {
        let mut file = tokenizer();
        *file.pointer_mut(field).expect("a field") = value;
        let mut parts = parts();
        parts.tokenizer_json = file.to_string().into_bytes();
        let error = vocabulary(parts, &texts(), 0).expect_err(named).to_string();
        assert!(error.contains(named), "{error}");
    }
    let whole = tokenizer().to_string().into_bytes();
    for len in (0..whole.len()).step_by(101) {
        let mut parts = parts();
        parts.tokenizer_json = whole[..len].to_vec();
        assert!(vocabulary(parts, &texts(), 0).is_err(), "{len}");
    }
}

#[test]
fn all_prunings_go_together() {
    let texts = texts();
    let kept = layers_that_matter(&parts(), &texts, 2).expect("measured");
    let pruned = vocabulary(parts(), &texts, 0).and_then(|parts| layers(parts, &kept));
    let pruned = pruned.and_then(|parts| neurons(parts, &texts, 24));
    let pruned = pruned
        .and_then(|parts| heads(parts, &texts, 3))
        .expect("pruned");
    assert_eq!(embeddings(&pruned, &texts).len(), texts.len() * DIM);
}
