//! Claims about the pretrained encoder that need no weights file: a tiny network of made-up weights.

use burn::tensor::Device;

use super::batch::{BatchLimits, TokenizedText};
use super::config::BertConfig;
use super::config::tests::{tiny, tiny_with_pruned_heads};
use super::encoder::TextEncoder;
use super::host::HostTextEncoder;
use super::parameters::NamedTensor;
use super::{AnyTextEncoder, TextError};
use crate::kernels::Form;

/// Padding changes the order of f32 sums and nothing else.
const PADDING_TOLERANCE: f32 = 1e-5;

/// Every tensor of a BERT checkpoint of these sizes, as `(name, shape)`.
fn checkpoint_shapes(config: &BertConfig) -> Vec<(String, Vec<usize>)> {
    let (dim, inner) = (config.hidden_size, config.intermediate_size);
    let attention = config.attention_size();
    let mut shapes = vec![
        (
            "embeddings.word_embeddings.weight".to_owned(),
            vec![config.vocab_size, dim],
        ),
        (
            "embeddings.position_embeddings.weight".to_owned(),
            vec![config.max_position_embeddings, dim],
        ),
        (
            "embeddings.token_type_embeddings.weight".to_owned(),
            vec![config.type_vocab_size, dim],
        ),
        ("embeddings.LayerNorm.weight".to_owned(), vec![dim]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![dim]),
    ];
    for layer in 0..config.num_hidden_layers {
        let linear = [
            ("attention.self.query", attention, dim),
            ("attention.self.key", attention, dim),
            ("attention.self.value", attention, dim),
            ("attention.output.dense", dim, attention),
            ("intermediate.dense", inner, dim),
            ("output.dense", dim, inner),
        ];
        for (name, d_out, d_in) in linear {
            shapes.push((
                format!("encoder.layer.{layer}.{name}.weight"),
                vec![d_out, d_in],
            ));
            shapes.push((format!("encoder.layer.{layer}.{name}.bias"), vec![d_out]));
        }
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            shapes.push((format!("encoder.layer.{layer}.{name}.weight"), vec![dim]));
            shapes.push((format!("encoder.layer.{layer}.{name}.bias"), vec![dim]));
        }
    }
    shapes
}

pub(super) fn checkpoint(config: &BertConfig) -> Vec<NamedTensor> {
    let shapes = checkpoint_shapes(config);
    let tensor = |(tensor_idx, (name, shape)): (usize, (String, Vec<usize>))| {
        let len: usize = shape.iter().product();
        let values = (0..len)
            .map(|idx| ((idx * 7 + tensor_idx * 13) as f32).sin())
            .collect();
        NamedTensor {
            name,
            shape,
            values,
        }
    };
    shapes.into_iter().enumerate().map(tensor).collect()
}

fn build(tensors: Vec<NamedTensor>) -> Result<TextEncoder, TextError> {
    TextEncoder::from_named(tiny(), tensors, &Device::flex())
}

fn text(token_ids: &[u32]) -> TokenizedText {
    TokenizedText {
        token_ids: token_ids.to_vec(),
    }
}

/// The tensor whose name ends so.
fn find<'a>(tensors: &'a mut [NamedTensor], end: &str) -> &'a mut NamedTensor {
    tensors
        .iter_mut()
        .find(|tensor| tensor.name.ends_with(end))
        .expect("the checkpoint has it")
}

#[test]
fn padding_changes_no_embedding() {
    let texts = [
        text(&[1, 2, 3]),
        text(&[4]),
        text(&[1, 5, 6, 7, 8, 9, 10, 11]),
    ];
    let exact = build(checkpoint(&tiny())).expect("complete");
    let padded = build(checkpoint(&tiny()))
        .expect("complete")
        .with_batch_limits(BatchLimits::BUCKETS);
    let exact = exact.encode(&texts).expect("encodes");
    let padded = padded.encode(&texts).expect("encodes");
    assert_eq!(exact.len(), 3 * tiny().hidden_size);
    for (exact, padded) in exact.iter().zip(&padded) {
        assert!(
            (exact - padded).abs() < PADDING_TOLERANCE,
            "{exact} and {padded}"
        );
    }
}

#[test]
fn rows_come_back_in_the_order_given() {
    let encoder = build(checkpoint(&tiny())).expect("complete");
    let together = encoder
        .encode(&[text(&[1, 2, 3, 4]), text(&[5]), text(&[6, 7])])
        .expect("encodes");
    let alone = encoder.encode(&[text(&[5])]).expect("encodes");
    let dim = encoder.dim();
    assert_eq!(together[dim..2 * dim], alone);
}

#[test]
fn prefixed_names_and_unused_tensors_are_accepted_and_change_nothing() {
    let plain = build(checkpoint(&tiny())).expect("complete");
    let mut tensors = checkpoint(&tiny());
    for tensor in &mut tensors {
        tensor.name = format!("bert.{}", tensor.name);
    }
    for name in [
        "bert.pooler.dense.weight",
        "embeddings.position_ids",
        "cls.predictions.bias",
    ] {
        tensors.push(NamedTensor {
            name: name.to_owned(),
            shape: vec![1],
            values: vec![f32::NAN],
        });
    }
    let prefixed = build(tensors).expect("complete");
    assert_eq!(prefixed.fingerprint(), plain.fingerprint());
}

#[test]
fn a_wrong_shape_is_named_in_the_layout_of_the_file() {
    let mut tensors = checkpoint(&tiny());
    let tensor = find(&mut tensors, "layer.1.intermediate.dense.weight");
    tensor.shape.reverse();
    let expected = TextError::ShapeMismatch {
        tensor: "encoder.layer.1.intermediate.dense.weight".to_owned(),
        expected: vec![6, 8],
        actual: vec![8, 6],
    };
    assert_eq!(build(tensors).err(), Some(expected));
}

#[test]
fn missing_extra_and_repeated_tensors_are_named() {
    let name = "encoder.layer.0.output.LayerNorm.bias";
    let mut tensors = checkpoint(&tiny());
    tensors.retain(|tensor| tensor.name != name);
    assert_eq!(
        build(tensors).err(),
        Some(TextError::TensorMissing {
            tensor: name.to_owned()
        })
    );

    let mut tensors = checkpoint(&tiny());
    let twice = find(&mut tensors, name).clone();
    tensors.push(twice.clone());
    assert_eq!(
        build(tensors).err(),
        Some(TextError::TensorTwice {
            tensor: name.to_owned()
        })
    );

    let mut tensors = checkpoint(&tiny());
    let extra = "encoder.layer.2.output.LayerNorm.bias".to_owned();
    tensors.push(NamedTensor {
        name: extra.clone(),
        ..twice
    });
    assert_eq!(
        build(tensors).err(),
        Some(TextError::TensorUnexpected { tensor: extra })
    );
}

#[test]
fn values_that_do_not_fill_the_shape_or_are_not_finite_are_refused() {
    let mut tensors = checkpoint(&tiny());
    find(&mut tensors, "word_embeddings.weight").values.pop();
    assert!(matches!(
        build(tensors),
        Err(TextError::LengthMismatch { actual: 95, .. })
    ));

    let mut tensors = checkpoint(&tiny());
    find(&mut tensors, "layer.0.attention.self.key.bias").values[3] = f32::INFINITY;
    assert!(matches!(
        build(tensors),
        Err(TextError::TensorNotFinite { .. })
    ));

    let mut tensors = checkpoint(&tiny());
    find(&mut tensors, "layer.0.attention.self.key.bias").shape = vec![usize::MAX, 2];
    assert!(matches!(
        build(tensors),
        Err(TextError::LengthMismatch { .. })
    ));
}

#[test]
fn tokens_without_an_embedding_or_a_position_are_refused() {
    let encoder = build(checkpoint(&tiny())).expect("complete");
    let unknown = encoder.encode(&[text(&[1]), text(&[12])]);
    assert_eq!(
        unknown,
        Err(TextError::TokenUnknown {
            token_id: 12,
            vocab_size: 12
        })
    );
    assert_eq!(
        encoder.encode(&[text(&[])]),
        Err(TextError::SequenceLen {
            actual: 0,
            len_max: 16
        })
    );
    assert_eq!(
        encoder.encode(&[text(&[1; 17])]),
        Err(TextError::SequenceLen {
            actual: 17,
            len_max: 16
        })
    );
    assert!(encoder.encode(&[text(&[1; 16])]).is_ok());
    assert_eq!(encoder.encode(&[]), Ok(Vec::new()));
}

#[test]
fn another_weight_is_another_fingerprint() {
    let before = build(checkpoint(&tiny())).expect("complete").fingerprint();
    let mut tensors = checkpoint(&tiny());
    find(&mut tensors, "layer.1.output.dense.bias").values[0] += 1.0;
    assert_ne!(build(tensors).expect("complete").fingerprint(), before);
}

#[test]
fn encoders_can_be_shared_between_threads() {
    fn assert_shareable<T: Send + Sync>() {}
    assert_shareable::<AnyTextEncoder>();
}

/// Cosines of the host's embeddings with burn's.
fn cosines(form: Form, config: &BertConfig, texts: &[TokenizedText]) -> Vec<f32> {
    let weights = || (config.clone(), checkpoint(config));
    let (same, tensors) = weights();
    let burn = TextEncoder::from_named(same, tensors, &Device::flex()).expect("complete");
    let (same, tensors) = weights();
    let host = HostTextEncoder::in_form(form, same, tensors).expect("complete");
    let (burn, host) = (burn.encode(texts), host.encode(texts));
    let (burn, host) = (burn.expect("encodes"), host.expect("encodes"));
    let dim = config.hidden_size;
    let pairs = burn.chunks_exact(dim).zip(host.chunks_exact(dim));
    pairs
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum())
        .collect()
}

#[test]
fn the_host_embeds_as_burn_does_but_for_rounding() {
    let texts = [
        text(&[1, 2, 3]),
        text(&[4]),
        text(&[1, 5, 6, 7, 8, 9, 10, 11]),
    ];
    for config in [tiny(), tiny_with_pruned_heads()] {
        for form in [Form::Pairs, Form::Fours] {
            for cosine in cosines(form, &config, &texts) {
                assert!(cosine > 0.999, "{config:?} {form:?}: {cosine}");
            }
        }
    }
}

#[test]
fn a_head_that_gives_nothing_can_be_cut_away() {
    let texts = [text(&[1, 2, 3]), text(&[4, 5])];
    let pruned = BertConfig {
        num_attention_heads: 1,
        attention_head_size: Some(4),
        ..tiny()
    };
    let (mut whole, mut cut) = (checkpoint(&tiny()), checkpoint(&pruned));
    for (whole, cut) in whole.iter_mut().zip(&mut cut) {
        let is_output = whole.name.ends_with("attention.output.dense.weight");
        if is_output {
            for row in whole.values.chunks_exact_mut(8) {
                row[4..].fill(0.0);
            }
            let rows = whole.values.chunks_exact(8);
            cut.values = rows.flat_map(|row| row[..4].to_vec()).collect();
        } else {
            cut.values = whole.values[..cut.values.len()].to_vec();
        }
    }
    let whole = build(whole).expect("complete").encode(&texts);
    let cut = TextEncoder::from_named(pruned, cut, &Device::flex()).expect("complete");
    let (whole, cut) = (
        whole.expect("encodes"),
        cut.encode(&texts).expect("encodes"),
    );
    for (whole, cut) in whole.iter().zip(&cut) {
        assert!((whole - cut).abs() < PADDING_TOLERANCE, "{whole} and {cut}");
    }
}

#[test]
fn the_host_refuses_what_burn_refuses() {
    let host = |tensors| HostTextEncoder::from_named(tiny(), tensors).map(|_| ());
    let burn = |tensors| build(tensors).map(|_| ());
    let mut broken = Vec::new();
    let mut missing = checkpoint(&tiny());
    missing.pop();
    broken.push(missing);
    let mut reshaped = checkpoint(&tiny());
    find(&mut reshaped, "intermediate.dense.weight")
        .shape
        .reverse();
    broken.push(reshaped);
    let mut unexpected = checkpoint(&tiny());
    unexpected[0].name = "embeddings.other.weight".to_owned();
    unexpected.push(checkpoint(&tiny()).swap_remove(0));
    broken.push(unexpected);
    let mut infinite = checkpoint(&tiny());
    find(&mut infinite, "output.dense.bias").values[0] = f32::INFINITY;
    broken.push(infinite);
    for tensors in broken {
        let refused = burn(tensors.clone());
        assert!(refused.is_err());
        assert_eq!(host(tensors), refused);
    }
    let encoder = HostTextEncoder::from_named(tiny(), checkpoint(&tiny())).expect("complete");
    let too_long = vec![1; tiny().max_position_embeddings + 1];
    for token_ids in [Vec::new(), vec![tiny().vocab_size as u32], too_long] {
        assert!(encoder.encode(&[TokenizedText { token_ids }]).is_err());
    }
}

#[test]
fn the_mean_of_the_hidden_states_is_the_embedding() {
    let encoder = build(checkpoint(&tiny())).expect("complete");
    let texts =
        [vec![1, 5, 2], vec![3, 4], vec![7, 8, 9]].map(|token_ids| TokenizedText { token_ids });
    let embeddings = encoder.encode(&texts).expect("known tokens");
    let states = encoder.hidden_states(&texts).expect("known tokens");
    let dim = encoder.dim();
    for ((text, states), embedding) in texts.iter().zip(&states).zip(embeddings.chunks_exact(dim)) {
        assert_eq!(states.len(), text.token_ids.len() * dim);
        let mean: Vec<f32> = (0..dim)
            .map(|col| states.iter().skip(col).step_by(dim).sum())
            .collect();
        let norm = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
        for (value, expected) in mean.iter().zip(embedding) {
            assert!((value / norm - expected).abs() < 1e-5);
        }
    }
}
