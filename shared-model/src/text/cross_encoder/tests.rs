//! Claims about the CrossEncoder with a tiny network of made-up weights.

use burn::module::{ModuleMapper, Param};
use burn::optim::{AdamWConfig, GradientsParams};

use super::*;
use crate::text::config::tests::tiny;

/// Padding and merging change the order of f32 sums and nothing else.
const REORDER_TOLERANCE: f32 = 1e-5;
/// Central differences of a loss in f32 with this step keep about three digits.
const DIFFERENCE_STEP: f32 = 1e-2;
const GRADIENT_TOLERANCE: f32 = 2e-3;

fn config() -> CrossEncoderConfig {
    CrossEncoderConfig {
        dropout: 0.0,
        rating_center: 7.0,
        rating_scale: 2.0,
        ..CrossEncoderConfig::pretrained(tiny(), 16)
    }
}

/// Weights that follow from their position alone, small enough for tanh to have a slope.
fn model(config: &CrossEncoderConfig) -> CrossEncoder {
    let mut tensors = config.init(&Device::flex()).to_named().expect("on the CPU");
    for (tensor_idx, tensor) in tensors.iter_mut().enumerate() {
        for (idx, value) in tensor.values.iter_mut().enumerate() {
            *value = 0.5 * ((idx * 7 + tensor_idx * 13) as f32).sin();
        }
    }
    config
        .init_named(tensors, &Device::flex())
        .expect("complete")
}

fn pair(token_ids: &[u32], num_first: usize) -> TokenizedPair {
    TokenizedPair {
        token_ids: token_ids.to_vec(),
        num_first,
    }
}

fn pairs() -> Vec<TokenizedPair> {
    vec![
        pair(&[1, 5, 2, 6, 2], 3),
        pair(&[1, 7, 8, 2, 9, 10, 2], 4),
        pair(&[1, 2, 2], 2),
    ]
}

fn forward(model: &CrossEncoder, device: &Device) -> CrossOutput {
    model.forward_batch(&PairBatch::of(&pairs(), &[0, 1, 2]), device)
}

/// A loss that both heads have a part in.
fn loss(output: CrossOutput) -> Tensor<1> {
    output.click.tanh().sum() + (output.rating - 0.3).powi_scalar(2).sum()
}

fn loss_of(model: &CrossEncoder) -> f32 {
    let values = read_back(loss(forward(model, &Device::flex())));
    values.expect("on the CPU")[0]
}

/// The gradient of the parameter whose path in the file ends so.
fn gradient_of(name: &str, model: &CrossEncoder) -> Vec<f32> {
    let trained = model.clone().trained_in(TrainedPart::Full);
    let device = Device::flex().autodiff();
    let gradients = loss(forward(&trained, &device)).backward();
    let weight = match name {
        "click.weight" => trained.click.weight.val(),
        "rating.weight" => trained.rating.weight.val(),
        _ => trained.pooler.weight.val(),
    };
    let gradient = weight.grad(&gradients).expect("it learns");
    // Linear layers lie transposed in the file.
    let gradient = gradient.transpose().into_data();
    gradient.try_into_vec::<f32>().expect("f32")
}

#[test]
fn gradients_of_the_heads_equal_differences_of_the_loss() {
    let config = config();
    let model = model(&config);
    for name in ["click.weight", "rating.weight", "pooler.weight"] {
        let gradient = gradient_of(name, &model);
        for idx in [0, 3, gradient.len() - 1] {
            let moved = |by: f32| {
                let mut tensors = model.to_named().expect("on the CPU");
                let found = tensors.iter_mut().find(|tensor| tensor.name == name);
                found.expect("a head").values[idx] += by;
                let moved = config.init_named(tensors, &Device::flex());
                loss_of(&moved.expect("complete"))
            };
            let difference =
                (moved(DIFFERENCE_STEP) - moved(-DIFFERENCE_STEP)) / (2.0 * DIFFERENCE_STEP);
            assert!(
                (difference - gradient[idx]).abs() < GRADIENT_TOLERANCE * (1.0 + difference.abs()),
                "{name}[{idx}]: {difference} and {}",
                gradient[idx]
            );
        }
    }
}

/// One step of an optimizer, so that adapters are no longer zero.
fn step(model: CrossEncoder) -> CrossEncoder {
    let device = Device::flex().autodiff();
    let gradients = loss(forward(&model, &device)).backward();
    let gradients = GradientsParams::from_grads(gradients, &model);
    AdamWConfig::new().init().step(0.05, model, gradients)
}

#[test]
fn merged_adapters_score_as_the_network_beside_them_and_moved_it() {
    let config = config();
    let base = model(&config);
    let part = TrainedPart::Lora {
        rank: 2,
        alpha: 4.0,
    };
    let tuned = step(step(base.clone().trained_in(part)));
    let beside = forward(&tuned, &Device::flex().autodiff());
    let merged = forward(&tuned.merged(), &Device::flex());
    let before = forward(&base, &Device::flex());
    let values = |tensor: Tensor<1>| read_back(tensor).expect("on the CPU");
    let (beside, merged, before) = (
        values(beside.click),
        values(merged.click),
        values(before.click),
    );
    for ((beside, merged), before) in beside.iter().zip(&merged).zip(&before) {
        assert!((beside - merged).abs() < REORDER_TOLERANCE);
        assert!((merged - before).abs() > 1e-3, "two steps move it");
    }
    let query = |model: &CrossEncoder| {
        let tensors = model.to_named().expect("on the CPU");
        let name = "bert.encoder.layer.0.attention.self.query.weight";
        let found = tensors.into_iter().find(|tensor| tensor.name == name);
        found.expect("a weight of the encoder").values
    };
    assert_ne!(query(&tuned.merged()), query(&base), "merged into it");
}

/// Numbers of weights that have a gradient.
#[derive(Default)]
struct Trained(Vec<usize>);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.base().is_require_grad() {
            self.0.push(param.lazy_shape().num_elements());
        }
    }
}

fn num_trained(part: TrainedPart) -> usize {
    let mut trained = Trained::default();
    model(&config()).trained_in(part).visit(&mut trained);
    trained.0.iter().sum()
}

#[test]
fn each_part_trains_the_weights_it_names() {
    let config = tiny();
    let (dim, inner, layers) = (config.hidden_size, config.intermediate_size, 2);
    let heads = 2 * dim * dim + dim + 2 * (dim + 1);
    let words = config.vocab_size * dim;
    let all = model(&super::tests::config()).num_params();
    assert_eq!(num_trained(TrainedPart::FullWithWords), all);
    assert_eq!(num_trained(TrainedPart::Full), all - words);
    assert_eq!(num_trained(TrainedPart::Head), heads);
    let biases = layers * (5 * dim + inner + 2 * dim) + dim;
    assert_eq!(num_trained(TrainedPart::Bitfit), heads + biases);
    let part = TrainedPart::Lora {
        rank: 3,
        alpha: 6.0,
    };
    assert_eq!(num_trained(part), heads + layers * 2 * (2 * dim * 3));
}

#[test]
fn saved_weights_load_again_bit_by_bit() {
    let config = config();
    let model = model(&config);
    let tensors = model.to_named().expect("on the CPU");
    let again = config
        .init_named(tensors.clone(), &Device::flex())
        .expect("complete");
    assert_eq!(again.to_named().expect("on the CPU"), tensors);
    let score = |model: &CrossEncoder| model.score(&pairs(), &config, &Device::flex());
    assert_eq!(score(&again), score(&model));

    let mut short = tensors.clone();
    short.retain(|tensor| tensor.name != "rating.bias");
    let refused = config.init_named(short, &Device::flex()).err();
    let expected = TextError::TensorMissing {
        tensor: "rating.bias".to_owned(),
    };
    assert_eq!(refused, Some(expected));

    let json = serde_json::to_vec(&config).expect("plain values");
    assert_eq!(CrossEncoderConfig::from_json(&json), Ok(config));
}

#[test]
fn pretrained_weights_reach_the_encoder_and_leave_the_heads() {
    let config = config();
    let source = model(&config);
    let tensors = source.to_named().expect("on the CPU");
    let encoder: Vec<NamedTensor> = tensors
        .iter()
        .filter(|tensor| tensor.name.starts_with("bert."))
        .cloned()
        .collect();
    let loaded = config
        .init_pretrained(encoder.clone(), &Device::flex())
        .expect("complete");
    let loaded = loaded.to_named().expect("on the CPU");
    for tensor in &encoder {
        assert!(loaded.contains(tensor), "{} differs", tensor.name);
    }
    assert_eq!(loaded.len(), encoder.len() + 6);
}

#[test]
fn scores_come_in_order_and_padding_changes_none() {
    let config = config();
    let model = model(&config);
    let scores = model
        .score(&pairs(), &config, &Device::flex())
        .expect("in bounds");
    let together = read_back(forward(&model, &Device::flex()).click).expect("on the CPU");
    for (score, logit) in scores.iter().zip(together) {
        assert!((score.click_logit - logit).abs() < REORDER_TOLERANCE);
    }
    let alone = model.score(&pairs()[1..2], &config, &Device::flex());
    assert_eq!(alone.expect("in bounds")[0], scores[1]);
    assert_eq!(model.score(&[], &config, &Device::flex()), Ok(Vec::new()));
}

#[test]
fn every_pooling_scores_without_regard_to_padding() {
    for pooling in [Pooling::First, Pooling::Mean, Pooling::Segments] {
        let config = CrossEncoderConfig {
            pooling,
            ..config()
        };
        let model = model(&config);
        let scores = model.score(&pairs(), &config, &Device::flex());
        let padded = read_back(forward(&model, &Device::flex()).rating).expect("on the CPU");
        for (score, units) in scores.expect("in bounds").iter().zip(padded) {
            assert!((score.rating - (7.0 + 2.0 * units)).abs() < 10.0 * REORDER_TOLERANCE);
        }
    }
}

#[test]
fn a_pair_of_one_text_alone_is_finite() {
    let config = config();
    let alone = [pair(&[1, 5, 2], 3), pair(&[1, 5, 2], 0)];
    let scores = model(&config).score(&alone, &config, &Device::flex());
    assert!(scores.is_ok(), "{scores:?}");
}

#[test]
fn the_same_tokens_split_elsewhere_score_differently() {
    let config = config();
    let scores = model(&config)
        .score(
            &[pair(&[1, 5, 2, 6, 2], 3), pair(&[1, 5, 2, 6, 2], 2)],
            &config,
            &Device::flex(),
        )
        .expect("in bounds");
    assert_ne!(scores[0].click_logit, scores[1].click_logit);
}

/// Zeroes every weight, so that only the scale of ratings is left.
struct Zero;

impl ModuleMapper for Zero {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.zeros_like())
    }
}

#[test]
fn a_head_of_zeros_gives_even_odds_and_the_center() {
    let config = config();
    let scores = model(&config)
        .map(&mut Zero)
        .score(&pairs(), &config, &Device::flex())
        .expect("in bounds");
    assert_eq!(scores[0].click_probability, 0.5);
    assert_eq!(scores[0].rating, 7.0);
}

#[test]
fn pairs_and_configs_out_of_bounds_are_refused_by_name() {
    let config = config();
    let refused = check_pairs(&[pair(&[1; 17], 3)], &config);
    let expected = TextError::SequenceLen {
        actual: 17,
        len_max: 16,
    };
    assert_eq!(refused, Err(expected));
    assert!(matches!(
        check_pairs(&[pair(&[1, 12], 1)], &config),
        Err(TextError::TokenUnknown { token_id: 12, .. })
    ));
    let field = |config: CrossEncoderConfig| match config.check() {
        Err(TextError::ConfigField { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let mut one_type = config.clone();
    one_type.bert.type_vocab_size = 1;
    assert_eq!(field(one_type), "type_vocab_size");
    let tokens_max = 17;
    assert_eq!(
        field(CrossEncoderConfig {
            tokens_max,
            ..config.clone()
        }),
        "tokens_max"
    );
    let dropout = f64::NAN;
    assert_eq!(
        field(CrossEncoderConfig {
            dropout,
            ..config.clone()
        }),
        "dropout"
    );
    let rating_scale = 0.0;
    assert_eq!(
        field(CrossEncoderConfig {
            rating_scale,
            ..config
        }),
        "rating_scale"
    );
}

#[test]
fn dropout_falls_on_training_alone() {
    let config = CrossEncoderConfig {
        dropout: 0.5,
        ..config()
    };
    let model = model(&config);
    let score = |model: &CrossEncoder| {
        model
            .score(&pairs(), &config, &Device::flex())
            .expect("in bounds")
    };
    let plain = score(&model);
    let trained = model.trained_in(TrainedPart::Head);
    assert_eq!(score(&trained.merged()), plain);
    let device = Device::flex().autodiff();
    let logits = |_| read_back(forward(&trained, &device).click).expect("on the CPU");
    let draws: Vec<Vec<f32>> = (0..8).map(logits).collect();
    assert!(draws.iter().any(|draw| draw != &draws[0]));
}
