//! Golden files of what a page embeds texts with: the note that names a file, and the file.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use shared_model::ids::BlobId;
use shared_model::manifest::{BlobRef, FORMAT_VERSION, TextEncoderKind, TextEncoderNote};
use shared_model::text::packed::{CodedMatrix, PackedTensor, TensorKind, layout};
use shared_model::text::{BertConfig, LowRankChange, PackedEncoder};

use crate::fixtures::MODEL;
use crate::golden::{assert_golden, golden};

const FILE: &str = "encoder.v1.ftxt";
const CHANGE: &str = "change.v1.ftxc";
const TOKENIZER: &[u8] =
    br#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
"model":{"type":"WordLevel","vocab":{"[UNK]":0,"red":1,"mug":2},"unk_token":"[UNK]"}}"#;

/// More words than a piece of a matrix has rows, and numbers that bfloat16 holds.
fn encoder() -> PackedEncoder {
    let json = br#"{"vocab_size":2100,"hidden_size":4,"num_hidden_layers":1,"num_attention_heads":1,
        "intermediate_size":3,"max_position_embeddings":8,"type_vocab_size":2,"layer_norm_eps":1e-12}"#;
    let config = BertConfig::from_json(json).expect("a small config");
    let tensor = |(idx, (name, kind)): (usize, (String, TensorKind))| {
        let tensor = match kind {
            TensorKind::Matrix { num_rows, num_cols } => PackedTensor::Matrix(CodedMatrix {
                num_cols,
                steps: vec![0.25, 0.5],
                row_steps: (0..num_rows).map(|row| u8::from(row % 3 == 0)).collect(),
                codes: (0..num_rows * num_cols)
                    .map(|at| ((37 * at + 11 * idx) % 255) as u8 as i8) // any but −128 is a code
                    .map(|code| code.max(-127))
                    .collect(),
            }),
            TensorKind::Vector { len } => {
                PackedTensor::Vector((0..len).map(|at| 0.5 + at as f32 / 8.0).collect())
            }
        };
        (name, tensor)
    };
    let tensors: BTreeMap<_, _> = layout(&config)
        .into_iter()
        .enumerate()
        .map(tensor)
        .collect();
    PackedEncoder {
        config,
        tokenizer_json: TOKENIZER.to_vec(),
        tensors,
    }
}

#[test]
fn the_packed_encoder_is_golden() {
    let encoder = encoder();
    // Deflating may change with its crate, and only then: the file before must be read all the same.
    assert_golden(FILE, &encoder.to_bytes().expect("complete"));
    let read = PackedEncoder::from_bytes(golden(FILE));
    assert_eq!(read.as_ref(), Ok(&encoder));
    let (tokenizer, network) = encoder.open().expect("a sound network");
    let words = tokenizer.tokenize("red mug").expect("words");
    let embedded = network.encode(&[words]).expect("a sound network");
    let length: f32 = embedded.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-4, "{embedded:?}");
}

#[test]
fn the_change_of_a_packed_encoder_is_golden() {
    let config = encoder().config;
    let mut change = LowRankChange::new(&config, 2, || 0.0).expect("a rank");
    let values: Vec<f32> = (0..change.num_values())
        .map(|at| ((37 * at) % 255) as f32 / 127.0 - 1.0) // codes of a step of 1/127
        .collect();
    change.set_flat(&values);
    let base = BlobId::of(&golden(FILE));
    assert_golden(CHANGE, &change.to_packed_bytes(base));
    let read = LowRankChange::from_packed_bytes(&golden(CHANGE), base, &config);
    let read = read.expect("sound").to_flat();
    for (value, read) in values.iter().zip(&read) {
        assert!((value - read).abs() <= 0.5 / 127.0 + 1e-6, "{value} {read}");
    }
}

#[test]
fn the_note_on_the_text_encoder_is_golden() {
    let blob = |id: u8, bytes: u64| BlobRef {
        id: BlobId([id; 32]),
        bytes,
    };
    let changed = TextEncoderKind::Changed {
        base: blob(5, 7_500_000),
        change: blob(6, 34_000),
    };
    for (name, text_encoder) in [
        ("text-note", TextEncoderKind::Packed(blob(5, 7_500_000))),
        ("text-note-changed", changed),
    ] {
        let note = TextEncoderNote {
            format_version: FORMAT_VERSION,
            model: MODEL.to_owned(),
            encoder_generation: 7,
            created_at: 1_700_000_001_000,
            key_set: Some(3),
            text_encoder,
        };
        let key = SigningKey::from_bytes(&[7; 32]);
        let signed = note.sign(&key);
        assert_golden(&format!("{name}.v{FORMAT_VERSION}.json"), &signed);
        let trusted = [key.verifying_key()];
        let verified = TextEncoderNote::verify(&signed, &trusted, MODEL, 7);
        assert_eq!(verified, Ok((note, trusted[0])));
    }
}
