//! A small network packed: the size that is asked for, and embeddings that stay near.

use super::*;

const DIM: usize = 48;
const VOCAB_SIZE: usize = 600;

fn config() -> BertConfig {
    let json = format!(
        r#"{{"vocab_size":{VOCAB_SIZE},"hidden_size":{DIM},"num_hidden_layers":2,"num_attention_heads":4,
        "intermediate_size":96,"max_position_embeddings":64,"type_vocab_size":2,"layer_norm_eps":1e-12}}"#
    );
    BertConfig::from_json(json.as_bytes()).expect("a small config")
}

/// Words `w0`, `w1`, …
fn tokenizer_json() -> Vec<u8> {
    let vocab: serde_json::Map<_, _> = (0..VOCAB_SIZE)
        .map(|idx| (format!("w{idx}"), idx.into()))
        .collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "w0" },
    });
    serde_json::to_vec(&tokenizer).expect("JSON")
}

/// Weights that mix their inputs, with some inputs much larger than others, as trained networks have them.
fn source() -> PackSource {
    let mut state = 7_u64;
    let mut normal = || {
        let mut sum = -6.0;
        for _ in 0..12 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            sum += (state >> 40) as f32 / (1_u64 << 24) as f32;
        }
        sum
    };
    let mut tensors = Vec::new();
    let types = (
        TOKEN_TYPES.to_owned(),
        TensorKind::Matrix {
            num_rows: 2,
            num_cols: DIM,
        },
    );
    for (name, kind) in packed::layout(&config()).into_iter().chain([types]) {
        let (shape, scale) = match kind {
            TensorKind::Matrix { num_rows, num_cols } => (vec![num_rows, num_cols], 0.15),
            TensorKind::Vector { len } => (vec![len], 0.02),
        };
        let mut values: Vec<f32> = (0..shape.iter().product())
            .map(|_| scale * normal())
            .collect();
        if name.ends_with("LayerNorm.weight") {
            values = (0..DIM)
                .map(|idx| if idx % 8 == 0 { 4.0 } else { 0.7 })
                .collect();
        }
        tensors.push(NamedTensor {
            name,
            shape,
            values,
        });
    }
    PackSource {
        config: config(),
        tokenizer_json: tokenizer_json(),
        tensors,
        len_max: 32,
    }
}

/// Sentences over the words below `num_words`.
fn sentences(num: usize, num_words: usize, seed: usize) -> Vec<String> {
    let word = |text: usize, place: usize| {
        format!(
            "w{}",
            (text * 31 + place * 17 + seed * 101 + text * place) % num_words
        )
    };
    (0..num)
        .map(|text| {
            (0..4 + text % 6)
                .map(|place| word(text, place))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

/// Mean cosine of what a file embeds with what the network embeds.
fn mean_cosine(bytes: Vec<u8>, texts: &[String]) -> f32 {
    let source = source();
    let reference = HostTextEncoder::from_named(source.config, source.tensors).expect("a network");
    let (tokenizer, encoder) = PackedEncoder::from_bytes(bytes)
        .and_then(PackedEncoder::open)
        .expect("sound");
    let tokenized: Vec<TokenizedText> = texts
        .iter()
        .map(|text| tokenizer.tokenize(text).expect("words"))
        .collect();
    let (expected, actual) = (reference.encode(&tokenized), encoder.encode(&tokenized));
    let (expected, actual) = (expected.expect("sound"), actual.expect("sound"));
    let products = expected.iter().zip(&actual).map(|(a, b)| a * b);
    products.sum::<f32>() / texts.len() as f32
}

#[test]
fn a_file_keeps_its_budget_and_embeds_nearly_the_same() {
    let texts = sentences(120, 300, 0);
    let unseen = sentences(60, 300, 1);
    let mut cosines = Vec::new();
    for bytes_max in [100_000, 45_000, 35_000] {
        let bytes = pack(source(), texts.iter(), bytes_max).expect("fits");
        assert!(bytes.len() <= bytes_max, "{} of {bytes_max}", bytes.len());
        let is_near = bytes.len() * 10 > bytes_max * 8 || bytes_max == 100_000;
        assert!(
            is_near,
            "{} bytes leave much of {bytes_max} unused",
            bytes.len()
        );
        cosines.push(mean_cosine(bytes, &unseen));
    }
    assert!(
        cosines[0] > 0.999 && cosines.is_sorted_by(|a, b| a > b),
        "{cosines:?}"
    );
    assert!(cosines[1] > 0.9, "{cosines:?}");
}

#[test]
fn rounding_that_makes_up_for_itself_is_nearer_than_rounding_alone() {
    let source = source();
    let tokenizer = TextTokenizer::from_bytes(&source.tokenizer_json, 32).expect("sound");
    let texts = sentences(200, 300, 0);
    let Calibration { texts, is_used } =
        Calibration::of(&tokenizer, texts.iter(), VOCAB_SIZE).expect("words");
    let network = HostTextEncoder::from_named(source.config.clone(), source.tensors.clone())
        .expect("a network");
    let moments = Moments::of(&network, &texts).expect("short texts");
    let nothing = Moments::of(&network, &[]).expect("nothing to refuse");
    let mut config = source.config;
    config.max_position_embeddings = 32;
    let weights = Weights::new(&config, source.tensors, is_used).expect("complete");
    let steps = Steps::of_share(0.0).for_budget(&weights, source.tokenizer_json.len(), 40_000);
    let cosine = |moments: &Moments| {
        let packed = PackedEncoder {
            config: config.clone(),
            tokenizer_json: source.tokenizer_json.clone(),
            tensors: weights.rounded(moments, &steps),
        };
        mean_cosine(packed.to_bytes().expect("complete"), &sentences(60, 300, 1))
    };
    let (with, without) = (cosine(&moments), cosine(&nothing));
    assert!(1.0 - with < 0.6 * (1.0 - without), "{with} {without}");
}

#[test]
fn few_texts_of_a_large_catalogue_are_kept_and_all_its_words_are_known() {
    let tokenizer = TextTokenizer::from_bytes(&tokenizer_json(), 32).expect("sound");
    let num_texts = 3 * NUM_CALIBRATION_TEXTS + 1;
    let texts = (0..num_texts).map(|idx| format!("w{}", idx % VOCAB_SIZE));
    let calibration = Calibration::of(&tokenizer, texts, VOCAB_SIZE).expect("words");
    let first_words = calibration.texts.iter().map(|text| text.token_ids[0]);
    let expected = (0..num_texts)
        .step_by(4)
        .map(|idx| (idx % VOCAB_SIZE) as u32); // 600 words
    assert!(first_words.eq(expected));
    assert!(calibration.is_used.iter().all(|is_used| *is_used));
}

#[test]
fn what_cannot_be_so_small_is_refused_with_both_numbers() {
    let error = pack(source(), sentences(20, 300, 0).iter(), 3_000).expect_err("too small");
    let PackError::TooSmall {
        bytes_max: 3_000,
        least,
    } = error
    else {
        panic!("{error}");
    };
    assert!(least > 3_000);
}

#[test]
fn without_texts_weights_are_rounded_all_the_same() {
    let bytes = pack(source(), [""; 0].iter(), 60_000).expect("fits");
    assert!(mean_cosine(bytes, &sentences(60, 300, 1)) > 0.9);
}
