//! Claims about private steps: what one client can do, where the noise lies, and what is left without both.

use shared_model::event::EventKind;
use shared_model::spec::ModelSpec;

use super::*;
use crate::train::full_step::gradients;
use crate::train::init::init_parameters;
use crate::train::windows::Example;

const NUM_ITEMS: usize = 40;
const DIM: usize = 8;
/// Below the gradient of any window here, so that all are clipped.
const CLIP_NORM: f64 = 0.05;

fn parameters() -> ParameterSet {
    let spec = ModelSpec {
        embedding_dim: DIM as u32,
        num_heads: 1,
        ff_dim: 16,
        text_dim: 6,
        history_len: 50,
        ..ModelSpec::default()
    };
    let mut parameters = init_parameters(&spec, NUM_ITEMS, 1);
    for (idx, value) in parameters.tensor_mut("item.text").iter_mut().enumerate() {
        *value = ((idx * 7 % 13) as f32 - 6.0) / 10.0;
    }
    parameters
}

/// Events of one client, one after another on items from `first` on.
fn window(first: u32, num_events: u32) -> Window {
    let example = |idx: u32| Example {
        item_idx: (first + idx * idx) % NUM_ITEMS as u32,
        kind: EventKind::Click,
        occurred_at: 1_700_000_000_000 + i64::from(idx) * 60_000,
        target_weight: 1.0,
        share: 1.0,
        click: Some(true),
        rating: None,
    };
    Window {
        examples: (0..num_events).map(example).collect(),
        first_target: 0,
    }
}

fn config() -> PrivateStepConfig {
    PrivateStepConfig {
        step: FullStepConfig {
            learning_rate: 0.01,
            row_learning_rate: 0.01,
            bias_learning_rate: 0.01,
            click_weight: 0.1,
            ..FullStepConfig::still()
        },
        clip_norm: CLIP_NORM,
        noise_multiplier: 0.0,
        clients_per_step: 1.0,
    }
}

fn sum_of(clients: &[Window], config: &PrivateStepConfig) -> ClippedSum {
    let parameters = parameters();
    let mut sum = ClippedSum::new(&parameters);
    let mut rng = StdRng::seed_from_u64(3);
    let device = Device::flex().autodiff();
    sum.add(&parameters, clients, config, &device, &mut rng);
    sum
}

fn all(sum: &ClippedSum) -> Vec<f64> {
    let slow = sum.slow.iter().flatten();
    slow.chain(&sum.id_rows).chain(&sum.bias).copied().collect()
}

fn distance(left: &ClippedSum, right: &ClippedSum) -> f64 {
    let pairs = all(left).into_iter().zip(all(right));
    pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}

#[test]
fn a_client_moves_the_sum_by_the_clip_norm_at_most_however_much_it_did() {
    let others: Vec<Window> = (0..70).map(|user| window(user, 5)).collect();
    let busy = Window {
        examples: window(3, 10_000).examples[9_949..].to_vec(), // what a timeline of so many gives to a step
        first_target: 0,
    };
    for busy in [busy, window(3, 51), window(9, 1)] {
        let mut with = others.clone();
        with.push(busy);
        let (with, without) = (sum_of(&with, &config()), sum_of(&others, &config()));
        let moved = distance(&with, &without);
        assert!(moved <= CLIP_NORM, "{moved}");
        assert!(moved > 0.9 * CLIP_NORM, "{moved}: nothing was clipped");
    }
}

#[test]
fn a_client_with_targets_of_any_weight_moves_it_no_further() {
    for weight in [1e-6, 1e6, f32::MAX] {
        let mut heavy = window(3, 20);
        for example in &mut heavy.examples {
            example.target_weight = weight;
        }
        let (with, without) = (sum_of(&[heavy], &config()), sum_of(&[], &config()));
        assert!(distance(&with, &without) <= CLIP_NORM);
    }
}

#[test]
fn without_clip_and_noise_it_is_the_mean_of_the_gradients_of_clients() {
    let clients: Vec<Window> = (0..3).map(|user| window(user, 4 + user)).collect();
    let unbounded = PrivateStepConfig {
        clip_norm: f64::INFINITY,
        clients_per_step: 3.0,
        ..config()
    };
    let noised = sum_of(&clients, &unbounded).noised(&unbounded, &mut StdRng::seed_from_u64(1));
    let parameters = parameters();
    let (mut slow, mut bias) = (vec![Vec::new(); noised.slow.len()], vec![0.0; NUM_ITEMS]);
    let mut id_rows = vec![0.0; NUM_ITEMS * DIM];
    let mut seeds = StdRng::seed_from_u64(3);
    for client in &clients {
        let mut rng = StdRng::seed_from_u64(seeds.random());
        let (history, device) = (no_counts(&parameters), Device::flex().autodiff());
        let windows = std::slice::from_ref(client);
        let own = gradients(
            &parameters,
            windows,
            &history,
            &unbounded.step,
            &device,
            &mut rng,
        );
        let (_, own) = own.expect("finite").expect("targets");
        for (sum, own) in slow.iter_mut().zip(&own.slow) {
            let own = own.as_deref().unwrap_or_default();
            sum.resize(sum.len().max(own.len()), 0.0);
            add_scaled(sum, own, 1.0 / 3.0);
        }
        add_scaled(&mut id_rows, &own.id_rows, 1.0 / 3.0); // the full softmax has all rows
        add_scaled(&mut bias, &own.bias, 1.0 / 3.0);
    }
    let near = |actual: &[f32], expected: &[f64]| {
        let pairs = actual.iter().zip(expected);
        pairs
            .map(|(a, b)| (f64::from(*a) - b).abs())
            .fold(0.0, f64::max)
            < 1e-6
    };
    for (actual, expected) in noised.slow.iter().flatten().zip(&slow) {
        assert!(near(actual, expected));
    }
    assert!(near(&noised.id_rows, &id_rows) && near(&noised.bias, &bias));
    assert!(
        bias.iter().any(|value| value.abs() > 1e-3),
        "something was learned"
    );
}

#[test]
fn the_noise_has_its_deviation_on_rows_that_nobody_touched_as_on_others() {
    let touching_few = PrivateStepConfig {
        step: FullStepConfig {
            num_negatives: 1,
            ..config().step
        },
        noise_multiplier: 3.0,
        clients_per_step: 10.0,
        ..config()
    };
    let clients = [window(2, 3)];
    let plain = PrivateStepConfig {
        noise_multiplier: 0.0,
        ..touching_few.clone()
    };
    let (mut touched, mut untouched, mut slow) = (Vec::new(), Vec::new(), Vec::new());
    let mut rng = StdRng::seed_from_u64(8);
    let sum = sum_of(&clients, &touching_few);
    let clean = sum.clone().noised(&plain, &mut rng);
    for _ in 0..300 {
        let noised = sum.clone().noised(&touching_few, &mut rng);
        let rows = noised.id_rows.chunks(DIM).zip(clean.id_rows.chunks(DIM));
        for (noised, clean) in rows {
            let is_touched = clean.iter().any(|value| *value != 0.0);
            let into = if is_touched {
                &mut touched
            } else {
                &mut untouched
            };
            into.extend(noised.iter().zip(clean).map(|(a, b)| a - b));
        }
        let tensors = noised
            .slow
            .iter()
            .flatten()
            .zip(clean.slow.iter().flatten());
        for (noised, clean) in tensors {
            assert!(
                noised.iter().zip(clean).all(|(a, b)| a != b),
                "noise on every weight"
            );
            slow.extend(noised.iter().zip(clean).map(|(a, b)| a - b).take(1));
        }
    }
    let expected = 3.0 * CLIP_NORM as f32 / 10.0; // a small decimal
    for draws in [&touched, &untouched, &slow] {
        assert!(draws.len() > 2000, "{}", draws.len());
        let mean = draws.iter().sum::<f32>() / draws.len() as f32;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / draws.len() as f32;
        // Five standard errors of 2,000 draws.
        assert!(
            (variance.sqrt() / expected - 1.0).abs() < 0.08,
            "{}",
            variance.sqrt()
        );
        assert!(
            mean.abs() < 5.0 * expected / (draws.len() as f32).sqrt(),
            "{mean}"
        );
    }
}

#[test]
fn what_has_no_rate_takes_no_room_in_the_norm_and_stays_to_the_bit() {
    let biases_only = PrivateStepConfig {
        step: FullStepConfig {
            learning_rate: 0.0,
            row_learning_rate: 0.0,
            ..config().step
        },
        noise_multiplier: 2.0,
        ..config()
    };
    let sum = sum_of(&[window(1, 9)], &biases_only);
    assert!(
        sum.slow
            .iter()
            .flatten()
            .chain(&sum.id_rows)
            .all(|value| *value == 0.0)
    );
    let start = parameters();
    let (mut moved, mut optimizer) = (start.clone(), FullOptimizer::new(&start));
    let mut rng = StdRng::seed_from_u64(2);
    let device = Device::flex().autodiff();
    private_step(
        &mut moved,
        &mut optimizer,
        [window(1, 9)].into_iter(),
        &biases_only,
        &device,
        &mut rng,
    );
    let bias = moved.tensor("item.bias");
    assert!(bias.iter().all(|value| *value != 0.0), "every item's moves");
    let mut back = moved.clone();
    back.tensor_mut("item.bias")
        .clone_from(&start.tensor("item.bias").to_vec());
    assert_eq!(back, start);
}

#[test]
fn a_step_without_any_client_moves_everything_all_the_same() {
    let start = parameters();
    let (mut moved, mut optimizer) = (start.clone(), FullOptimizer::new(&start));
    let noisy = PrivateStepConfig {
        noise_multiplier: 1.0,
        ..config()
    };
    let device = Device::flex().autodiff();
    let mut rng = StdRng::seed_from_u64(2);
    let nobody = std::iter::empty();
    private_step(
        &mut moved,
        &mut optimizer,
        nobody,
        &noisy,
        &device,
        &mut rng,
    );
    for name in ["item.id_rows", "item.bias", "text.projection", "head.click"] {
        let pairs = moved.tensor(name).iter().zip(start.tensor(name));
        assert!(pairs.into_iter().all(|(a, b)| a != b), "{name}");
    }
}
