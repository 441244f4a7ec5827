//! A small network there and back, and files that are not right.

use super::*;
use crate::text::{BatchLimits, NamedTensor, TextEncoder, TokenizedText};
use burn::tensor::Device;

const TOKENIZER: &[u8] = br###"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":null,"decoder":null,
"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
"vocab":{"[UNK]":0,"red":1,"mug":2,"##s":3,"blue":4,"lamp":5}}}"###;

fn config() -> BertConfig {
    let json = br#"{"vocab_size":2100,"hidden_size":24,"num_hidden_layers":2,"num_attention_heads":3,
        "intermediate_size":40,"max_position_embeddings":16,"type_vocab_size":2,"layer_norm_eps":1e-12}"#;
    BertConfig::from_json(json).expect("a small config")
}

/// Two of the three heads, as they are left when one was cut away.
fn config_with_pruned_heads() -> BertConfig {
    BertConfig {
        num_attention_heads: 2,
        attention_head_size: Some(8),
        ..config()
    }
}

/// Numbers that look like weights, the same on every machine.
fn values(name: &str, len: usize) -> Vec<f32> {
    let seed = crate::ids::BlobId::of(name.as_bytes()).0;
    let mut state = u64::from_le_bytes(seed[..8].try_into().expect("8 bytes")) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    (0..len).map(|_| next() + next()).collect()
}

fn weights(config: &BertConfig) -> BTreeMap<String, Vec<f32>> {
    let tensors = layout(config).into_iter().map(|(name, kind)| {
        let len = kind.shape().iter().product();
        let mut values = values(&name, len);
        if name.ends_with("LayerNorm.weight") {
            values
                .iter_mut()
                .for_each(|value| *value = 1.0 + 0.1 * *value);
        }
        (name, values)
    });
    tensors.collect()
}

/// With codes as fine as they get.
fn packed() -> PackedEncoder {
    packed_of(config())
}

fn packed_of(config: BertConfig) -> PackedEncoder {
    let kinds: BTreeMap<_, _> = layout(&config).into_iter().collect();
    let tensors = weights(&config).into_iter().map(|(name, values)| {
        let tensor = match kinds[&name] {
            TensorKind::Vector { .. } => PackedTensor::Vector(values),
            TensorKind::Matrix { num_rows, num_cols } => {
                let row_steps = (0..num_rows).map(|row| u8::from(row % 3 == 0)).collect();
                let steps = vec![1.0 / 127.0, 1.0 / 126.0];
                PackedTensor::Matrix(CodedMatrix::nearest(&values, num_cols, steps, row_steps))
            }
        };
        (name, tensor)
    });
    PackedEncoder {
        config,
        tokenizer_json: TOKENIZER.to_vec(),
        tensors: tensors.collect(),
    }
}

#[test]
fn a_file_comes_back_as_it_was() {
    let packed = packed();
    let bytes = packed.to_bytes().expect("complete");
    let back = PackedEncoder::from_bytes(bytes.clone()).expect("sound");
    assert_eq!(
        (&back.config, &back.tokenizer_json),
        (&packed.config, &packed.tokenizer_json)
    );
    for (name, tensor) in &packed.tensors {
        match (tensor, &back.tensors[name]) {
            (PackedTensor::Matrix(matrix), back) => {
                assert_eq!(&PackedTensor::Matrix(matrix.clone()), back)
            }
            (PackedTensor::Vector(values), PackedTensor::Vector(back)) => {
                for (value, back) in values.iter().zip(back) {
                    assert!(
                        (value - back).abs() <= value.abs() / 256.0,
                        "{name}: {value} {back}"
                    );
                }
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(
        back.to_bytes().expect("complete"),
        bytes,
        "once rounded, nothing changes any more"
    );
}

#[test]
fn embeddings_are_those_of_the_network() {
    for config in [config(), config_with_pruned_heads()] {
        assert_embeds_as_the_network(config);
    }
}

fn assert_embeds_as_the_network(config: BertConfig) {
    let tensors = weights(&config).into_iter().chain([(
        "embeddings.token_type_embeddings.weight".to_owned(),
        vec![0.0; 2 * 24],
    )]);
    let kinds: BTreeMap<_, _> = layout(&config).into_iter().collect();
    let tensors = tensors.map(|(name, values)| {
        let shape = kinds.get(&name).map_or(vec![2, 24], |kind| kind.shape());
        NamedTensor {
            name,
            shape,
            values,
        }
    });
    let reference = TextEncoder::from_named(config.clone(), tensors.collect(), &Device::flex());
    let reference = reference
        .expect("a network")
        .with_batch_limits(BatchLimits::EXACT);
    let bytes = packed_of(config).to_bytes().expect("complete");
    let (tokenizer, encoder) = PackedEncoder::from_bytes(bytes)
        .and_then(PackedEncoder::open)
        .expect("sound");
    let texts =
        ["red mugs", "blue lamp lamp", "mug"].map(|text| tokenizer.tokenize(text).expect("words"));
    assert_eq!(
        texts[0],
        TokenizedText {
            token_ids: vec![1, 2, 3]
        }
    );
    let (expected, actual) = (
        reference.encode(&texts).expect("sound"),
        encoder.encode(&texts).expect("sound"),
    );
    for (expected, actual) in expected.chunks_exact(24).zip(actual.chunks_exact(24)) {
        let cosine: f32 = expected.iter().zip(actual).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.9995, "{cosine}");
    }
}

#[test]
fn what_is_missing_or_of_another_shape_is_named() {
    let mut missing = packed();
    missing.tensors.remove(POSITIONS);
    let error = missing.to_bytes().expect_err("no positions");
    assert_eq!(
        error,
        TextError::TensorMissing {
            tensor: POSITIONS.to_owned()
        }
    );

    let mut short = packed();
    short
        .tensors
        .insert(POSITIONS.to_owned(), PackedTensor::Vector(vec![0.0; 7]));
    let error = short.to_bytes().expect_err("another shape").to_string();
    assert!(error.contains("shape [7], expected [16, 24]"), "{error}");

    let mut more = packed();
    more.tensors
        .insert("pooler".to_owned(), PackedTensor::Vector(vec![0.0]));
    let error = more.to_bytes().expect_err("unexpected").to_string();
    assert!(error.contains("pooler"), "{error}");
}

#[test]
fn a_network_too_large_for_a_page_is_refused_before_its_weights_are_read() {
    let mut large = packed();
    large.config.vocab_size = 1 << 20;
    large.config.hidden_size = 240;
    let refused = |outcome| matches!(outcome, Err(TextError::TooManyCodes { num_codes }) if num_codes > 240 << 20);
    assert!(refused(large.to_bytes().map(drop)));
    let header = Header {
        config: large.config,
        tokenizer_bytes: 0,
        tokenizer_deflated_bytes: 0,
    };
    let mut bytes = [MAGIC.as_slice(), &[FORMAT_VERSION]].concat();
    put_section(
        &mut bytes,
        &serde_json::to_vec(&header).expect("plain fields"),
    );
    assert!(refused(PackedReader::new(bytes).map(drop)));
}

#[test]
fn damage_is_an_error_wherever_it_is() {
    let bytes = packed().to_bytes().expect("complete");
    for len in (0..bytes.len()).step_by(97) {
        assert!(
            PackedEncoder::from_bytes(bytes[..len].to_vec()).is_err(),
            "{len}"
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(PackedEncoder::from_bytes(longer).is_err());
    // Its hash protects the file; without it a flipped bit must not do worse than another embedding or an error.
    for idx in (0..bytes.len()).step_by(89) {
        let mut flipped = bytes.clone();
        flipped[idx] ^= 0x10;
        drop(PackedEncoder::from_bytes(flipped).and_then(PackedEncoder::open));
    }
}
