//! A small network there and back, and files that are not right.

use super::*;
use crate::ids::BlobId;
use crate::text::low_rank::{LowRankChange, RANK_MAX};
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

/// The network of these sizes in f32.
fn network(config: &BertConfig) -> TextEncoder {
    let tensors = weights(config).into_iter().chain([(
        "embeddings.token_type_embeddings.weight".to_owned(),
        vec![0.0; 2 * 24],
    )]);
    let kinds: BTreeMap<_, _> = layout(config).into_iter().collect();
    let tensors = tensors.map(|(name, values)| {
        let shape = kinds.get(&name).map_or(vec![2, 24], |kind| kind.shape());
        NamedTensor {
            name,
            shape,
            values,
        }
    });
    let reference = TextEncoder::from_named(config.clone(), tensors.collect(), &Device::flex());
    reference
        .expect("a network")
        .with_batch_limits(BatchLimits::EXACT)
}

fn assert_embeds_as_the_network(config: BertConfig) {
    let reference = network(&config);
    let bytes = packed_of(config).to_bytes().expect("complete");
    let packed = PackedEncoder::from_bytes(bytes).expect("sound");
    assert_embeds_as(&reference, packed);
}

fn assert_embeds_as(reference: &TextEncoder, packed: PackedEncoder) {
    let (tokenizer, encoder) = packed.open().expect("sound");
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

/// One that moves embeddings a good deal.
fn change(config: &BertConfig, rank: usize) -> LowRankChange {
    let mut change = LowRankChange::new(config, rank, || 0.0).expect("a rank");
    let drawn: Vec<f32> = values("change", change.num_values());
    change.set_flat(&drawn);
    change
}

const BASE: BlobId = BlobId([3; 32]);

#[test]
fn a_change_beside_a_file_embeds_as_the_network_with_the_change() {
    for config in [config(), config_with_pruned_heads()] {
        let change = change(&config, 2);
        let bytes = change.to_packed_bytes(BASE);
        let read = LowRankChange::from_packed_bytes(&bytes, BASE, &config).expect("sound");
        let reference = network(&config).changed_by(change).expect("its sizes");
        let packed = packed_of(config).changed_by(&read).expect("its sizes");
        assert_embeds_as(&reference, packed);
    }
}

#[test]
fn a_change_is_added_to_the_matrices_as_the_network_adds_it() {
    let config = config();
    let change = change(&config, 3);
    let base = network(&config);
    let changed = base.changed_by(change.clone()).expect("its sizes");
    let named = |encoder: &TextEncoder| encoder.to_named().expect("read back");
    let (before, after) = (named(&base), named(&changed));
    let is_changed =
        |name: &str| name.ends_with("self.query.weight") || name.ends_with("self.value.weight");
    let pairs = before
        .iter()
        .zip(&after)
        .filter(|(before, _)| is_changed(&before.name));
    let mut products = change.products(&config).expect("its sizes");
    let mut num_changed = 0;
    for ((before, after), product) in pairs.zip(&mut products) {
        for ((before, after), moved) in before.values.iter().zip(&after.values).zip(product) {
            assert!(
                (after - before - moved).abs() < 1e-5,
                "{before} {after} {moved}"
            );
        }
        num_changed += 1;
    }
    assert_eq!(num_changed, 4);
    assert!(products.next().is_none());
    drop(products);
    for (num_hidden_layers, hidden_size) in [(1, 24), (3, 24), (2, 48)] {
        let other = BertConfig {
            num_hidden_layers,
            hidden_size,
            ..config.clone()
        };
        assert!(
            change.products(&other).is_err(),
            "{num_hidden_layers} {hidden_size}"
        );
    }
    let mut huge = change.clone();
    huge.set_flat(&vec![1e30; change.num_values()]);
    let refused = packed_of(config).changed_by(&huge);
    assert!(matches!(refused, Err(TextError::TensorNotFinite { .. })));
}

#[test]
fn a_change_that_is_damaged_or_of_another_file_is_refused() {
    let config = config();
    let bytes = change(&config, 2).to_packed_bytes(BASE);
    let read = |bytes: &[u8]| LowRankChange::from_packed_bytes(bytes, BASE, &config);
    let reason = |bytes: &[u8]| read(bytes).expect_err("refused").to_string();
    assert!(read(&bytes).is_ok());
    for len in 0..bytes.len() {
        assert!(read(&bytes[..len]).is_err(), "{len}");
    }
    assert!(read(&[&bytes[..], &[0]].concat()).is_err());
    let of_another = LowRankChange::from_packed_bytes(&bytes, BlobId([4; 32]), &config);
    assert!(
        of_another
            .expect_err("refused")
            .to_string()
            .contains("another file")
    );
    for (at, value, part) in [
        (0, b'X', "no change"),
        (4, 9, "unknown format version"),
        (37, 0, "unsupported rank"),
        (37, RANK_MAX as u8 + 1, "unsupported rank"),
    ] {
        let mut other = bytes.clone();
        other[at] = value;
        assert!(reason(&other).contains(part), "{at}");
    }
    // Its hash protects it; without it a flipped bit must not do worse than another change or an error.
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        drop(read(&flipped));
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
