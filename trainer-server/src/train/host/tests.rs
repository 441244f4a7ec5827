//! The host executor against burn's autodiff, against finite differences, and under dropout.

use std::sync::Arc;

use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::event::EventKind;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::ModelSpec;

use crate::train::count_history::CountHistory;
use crate::train::full_batch::Batch;
use crate::train::full_step::{FullStepConfig, HostGradients, differentiate_on_device};
use crate::train::host;
use crate::train::objective::Objective;
use crate::train::windows::{Example, Window};

/// Relative to the largest gradient of a tensor: both executors add thousands of f32 in another order.
const TOLERANCE: f32 = 1e-4;
/// Below this a tensor's gradients are nothing but rounding.
const GRADIENT_FLOOR: f32 = 1e-3;

/// Full softmax, both heads, no dropout.
fn plain() -> FullStepConfig {
    FullStepConfig {
        click_weight: 0.3,
        rating_weight: 0.2,
        ..FullStepConfig::still()
    }
}

/// A model of random weights, a batch of random windows, and how it is learned.
struct Case {
    parameters: ParameterSet,
    batch: Batch,
    config: FullStepConfig,
}

impl Case {
    /// Windows are of 1 to `history_len + 1` events, or all of `len`.
    fn new(spec: &ModelSpec, num_items: usize, config: FullStepConfig, len: Option<usize>) -> Self {
        let mut rng = StdRng::seed_from_u64(num_items as u64 + u64::from(spec.num_layers)); // small
        let mut parameters = ParameterSet::zeros(spec, num_items);
        for tensor in &mut parameters.tensors {
            for value in tensor.iter_mut() {
                *value = rng.random_range(-0.4..0.4);
            }
        }
        let windows: Vec<Window> = (0..9)
            .map(|idx| {
                let longest = spec.history_len as usize + 1;
                let len = len.unwrap_or(1 + idx * 5 % longest);
                window(&mut rng, len, num_items)
            })
            .collect();
        let examples = windows.iter().flat_map(|window| &window.examples);
        let history = CountHistory::of(examples, num_items, &spec.half_lives_secs, 0);
        let num_negatives = config.num_negatives;
        let batch = Batch::new(&windows, &history, num_items, num_negatives, &mut rng);
        Self {
            parameters,
            batch,
            config,
        }
    }

    fn on_host(&self) -> (f32, HostGradients) {
        host::differentiate(&self.parameters, &self.batch, &self.config)
    }

    fn loss(&self) -> f32 {
        self.on_host().0
    }

    fn assert_equals_burn(&self, case: &str) {
        let device = Device::flex().autodiff();
        let (expected_loss, expected) =
            differentiate_on_device(&self.parameters, &self.batch, &self.config, &device, 0)
                .expect("a finite loss");
        let (loss, actual) = self.on_host();
        assert!(
            (loss - expected_loss).abs() < TOLERANCE * expected_loss.abs(),
            "{case}: loss {loss}, burn {expected_loss}"
        );
        let shapes = self.parameters.shapes();
        let slow = shapes
            .iter()
            .filter(|shape| shape.group == shared_model::spec::TensorGroup::Slow);
        for (shape, (expected, actual)) in slow.zip(expected.slow.iter().zip(&actual.slow)) {
            match (expected, actual) {
                (Some(expected), Some(actual)) => assert_close(case, &shape.name, expected, actual),
                (expected, actual) => assert_eq!(
                    (expected.is_some(), actual.is_some()),
                    (false, false),
                    "{case}: {}",
                    shape.name
                ),
            }
        }
        assert_eq!(expected.slow.len(), actual.slow.len());
        assert_close(case, "item.id_rows", &expected.id_rows, &actual.id_rows);
        assert_close(case, "item.bias", &expected.bias, &actual.bias);
        assert_close(case, "prior.weights", &expected.prior, &actual.prior);
    }
}

fn assert_close(case: &str, name: &str, expected: &[f32], actual: &[f32]) {
    assert_eq!(expected.len(), actual.len(), "{case}: {name}");
    let largest = expected
        .iter()
        .fold(GRADIENT_FLOOR, |largest, value| largest.max(value.abs()));
    for (idx, (expected, actual)) in expected.iter().zip(actual).enumerate() {
        assert!(
            (expected - actual).abs() <= TOLERANCE * largest,
            "{case}: {name}[{idx}] is {actual}, burn says {expected}, the largest is {largest}"
        );
    }
}

fn window(rng: &mut StdRng, len: usize, num_items: usize) -> Window {
    let mut occurred_at = rng.random_range(0..1_000_000);
    let examples = (0..len).map(|_| {
        occurred_at += rng.random_range(0..100_000);
        Example {
            item_idx: rng.random_range(0..num_items as u32), // small
            kind: EventKind::ALL[rng.random_range(0..EventKind::ALL.len())],
            occurred_at,
            target_weight: [0.0, 0.5, 1.0][rng.random_range(0..3)],
            share: 1.0,
            click: [None, Some(false), Some(true)][rng.random_range(0..3)],
            rating: rng.random_bool(0.3).then(|| rng.random_range(1.0..5.0)),
        }
    });
    Window {
        examples: examples.collect(),
        first_target: rng.random_range(0..len),
    }
}

fn spec(num_layers: u32) -> ModelSpec {
    ModelSpec {
        embedding_dim: 24,
        text_dim: 0,
        feature_dim: 0,
        history_len: 13,
        num_layers,
        num_heads: 2,
        ff_dim: 20,
        half_lives_secs: vec![60, 600],
        num_neighbours: 0,
        adapter_dim: 0,
        has_taste_weight: true,
        ..ModelSpec::default()
    }
}

#[test]
fn gradients_are_those_of_burn() {
    for num_layers in [1, 2] {
        for (text_dim, feature_dim) in [(0, 0), (10, 0), (0, 5), (10, 5)] {
            for num_negatives in [usize::MAX, 17] {
                let spec = ModelSpec {
                    text_dim,
                    feature_dim,
                    ..spec(num_layers)
                };
                let config = FullStepConfig {
                    num_negatives,
                    ..plain()
                };
                let case =
                    format!("{num_layers} layers, {text_dim}, {feature_dim}, {num_negatives}");
                Case::new(&spec, 40, config, None).assert_equals_burn(&case);
            }
        }
    }
}

#[test]
fn gradients_are_those_of_burn_at_the_sizes_of_practice() {
    let spec = ModelSpec {
        text_dim: 384,
        history_len: 50,
        num_layers: 2,
        ..ModelSpec::default()
    };
    let config = FullStepConfig {
        num_negatives: 700,
        ..plain()
    };
    Case::new(&spec, 1500, config, None).assert_equals_burn("sampled");
    Case::new(&spec, 600, plain(), None).assert_equals_burn("full");
}

#[test]
fn gradients_are_those_of_burn_with_any_number_of_half_lives_and_heads() {
    for num_half_lives in 1..=5 {
        let spec = ModelSpec {
            half_lives_secs: (1..=num_half_lives).map(|hours| hours * 3600).collect(),
            num_heads: [1, 2, 3, 4, 6][num_half_lives as usize - 1], // at most 5
            ..spec(1)
        };
        Case::new(&spec, 40, plain(), None)
            .assert_equals_burn(&format!("{num_half_lives} half-lives"));
    }
}

#[test]
fn windows_of_one_event_and_losses_without_weight_reach_as_much_as_in_burn() {
    Case::new(&spec(1), 40, plain(), Some(1)).assert_equals_burn("one event");
    let config = FullStepConfig {
        click_weight: 0.0,
        rating_weight: 0.0,
        ..plain()
    };
    Case::new(&spec(2), 40, config, None).assert_equals_burn("next item alone");
}

#[test]
fn any_number_of_threads_gives_the_same_to_the_bit() {
    let spec = ModelSpec {
        history_len: 200,
        ..spec(2)
    };
    let case = Case::new(&spec, 40, plain(), Some(200));
    let with_threads = |num_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(num_threads)
            .build()
            .expect("threads");
        pool.install(|| case.on_host())
    };
    assert!(super::num_lanes(&super::pack(&case.batch)) > 1);
    let one = with_threads(1);
    assert_eq!(with_threads(2), one);
    assert_eq!(with_threads(5), one);
}

/// Items of all popularities, a third of which do harm.
fn objective(num_items: usize) -> Arc<Objective> {
    let num_events: Vec<usize> = (0..num_items).map(|idx| idx * idx % 17).collect();
    let harm: Vec<f32> = (0..num_items).map(|idx| [0.0, 0.3, 1.0][idx % 3]).collect();
    Arc::new(Objective::new(&num_events, 0.8, &harm, 3.0))
}

#[test]
fn gradients_are_those_of_burn_with_popularity_and_harm() {
    for num_negatives in [usize::MAX, 17] {
        let config = FullStepConfig {
            num_negatives,
            objective: objective(30), // ten items are newer
            ..plain()
        };
        let with = Case::new(&spec(1), 40, config, None);
        with.assert_equals_burn(&format!("objective, {num_negatives}"));
        let without = Case::new(
            &spec(1),
            40,
            FullStepConfig {
                num_negatives,
                ..plain()
            },
            None,
        );
        assert!((with.loss() - without.loss()).abs() > 0.1);
    }
}

#[test]
fn finite_differences_agree_also_with_dropout() {
    let config = FullStepConfig {
        dropout: 0.3,
        id_dropout: 0.3,
        num_negatives: 17,
        ..plain()
    };
    assert_finite_differences(config);
}

#[test]
fn finite_differences_agree_with_popularity_and_harm() {
    for num_negatives in [usize::MAX, 17] {
        let config = FullStepConfig {
            num_negatives,
            objective: objective(40),
            ..plain()
        };
        assert_finite_differences(config);
    }
}

/// The largest gradient of every slow tensor, of the biases and of the prior.
fn assert_finite_differences(config: FullStepConfig) {
    let spec = ModelSpec {
        text_dim: 10,
        ..spec(2)
    };
    let mut case = Case::new(&spec, 40, config, None);
    let (_, gradients) = case.on_host();
    let shapes = case.parameters.shapes();
    let first_slow = shapes
        .iter()
        .position(|shape| shape.group == shared_model::spec::TensorGroup::Slow)
        .expect("there are slow tensors");
    const STEP: f32 = 2e-2;
    let tensor = |name: &str| {
        let mut shapes = shapes.iter();
        shapes
            .position(|shape| shape.name == name)
            .expect("a tensor")
    };
    let mut bias = vec![0.0; 40];
    for (row, gradient) in case.batch.rows.iter().zip(&gradients.bias) {
        bias[*row as usize] = *gradient; // small
    }
    let slow = gradients.slow.iter().enumerate();
    let slow = slow.map(|(idx, gradient)| (first_slow + idx, gradient.clone()));
    let fast = [
        (tensor("item.bias"), Some(bias)),
        (tensor("prior.weights"), Some(gradients.prior.clone())),
    ];
    for (tensor_idx, gradient) in slow.chain(fast) {
        let Some(gradient) = gradient else { continue };
        let (idx, _) = gradient
            .iter()
            .enumerate()
            .max_by(|left, right| left.1.abs().total_cmp(&right.1.abs()))
            .expect("no tensor is empty");
        let mut moved = |distance: f32| {
            let value = &mut case.parameters.tensors[tensor_idx][idx];
            let before = *value;
            *value += distance;
            let loss = case.loss();
            case.parameters.tensors[tensor_idx][idx] = before;
            loss
        };
        let difference = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        let name = &shapes[tensor_idx].name;
        assert!(
            (difference - gradient[idx]).abs() < 0.03 * gradient[idx].abs() + 2e-4,
            "{name}[{idx}]: {difference} by differences, {} by the executor",
            gradient[idx]
        );
    }
}

#[test]
fn with_dropout_the_mean_gradient_of_many_draws_is_that_of_burn() {
    const NUM_DRAWS: u32 = 600;
    let config = FullStepConfig {
        dropout: 0.2,
        ..plain()
    };
    let mut case = Case::new(&spec(1), 40, config, None);
    let device = Device::flex().autodiff();
    device.seed(1);
    let len = case.batch.rows.len() * 24;
    let (mut on_host, mut on_burn) = (vec![0.0; len], vec![0.0; len]);
    let (mut host_loss, mut burn_loss) = (0.0, 0.0);
    for draw in 0..NUM_DRAWS {
        case.batch.dropout_seed = u64::from(draw);
        let (loss, gradients) = case.on_host();
        host_loss += loss / NUM_DRAWS as f32;
        super::elementwise::add_multiple(&mut on_host, 1.0 / NUM_DRAWS as f32, &gradients.id_rows);
        let (loss, gradients) =
            differentiate_on_device(&case.parameters, &case.batch, &case.config, &device, 0)
                .expect("a finite loss");
        burn_loss += loss / NUM_DRAWS as f32;
        super::elementwise::add_multiple(&mut on_burn, 1.0 / NUM_DRAWS as f32, &gradients.id_rows);
    }
    assert!(
        (host_loss - burn_loss).abs() < 0.02 * burn_loss,
        "{host_loss} and {burn_loss}"
    );
    let norm = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
    let differences: Vec<f32> = on_host.iter().zip(&on_burn).map(|(a, b)| a - b).collect();
    let share = norm(&differences) / norm(&on_burn);
    assert!(
        share < 0.08,
        "mean gradients differ by {share} of their length"
    );
}

#[test]
fn weights_that_are_not_finite_give_a_loss_that_is_not() {
    let mut case = Case::new(&spec(1), 40, plain(), None);
    let row = case.batch.rows[3] as usize; // small
    case.parameters.tensor_mut("item.id_rows")[row * 24] = f32::NAN;
    assert!(!case.loss().is_finite());
}
