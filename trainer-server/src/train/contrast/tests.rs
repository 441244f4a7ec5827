//! Claims about contrastive pretraining: the formula, its gradient, and that it tells users apart.

use super::*;
use crate::train::init::init_parameters;
use crate::train::windows::Example;
use shared_model::event::EventKind;
use shared_model::spec::{ModelSpec, TensorGroup};

const NUM_ITEMS: usize = 20;

fn config() -> ContrastConfig {
    ContrastConfig {
        step: FullStepConfig {
            learning_rate: 0.01,
            row_learning_rate: 0.01,
            ..FullStepConfig::still()
        },
        num_epochs: 12,
        batch_size: 8,
        temperature: 0.2,
        seed: 3,
    }
}

/// Windows of users who each keep to four neighbouring items.
fn toy() -> (ParameterSet, Vec<Window>, CountHistory) {
    let spec = ModelSpec {
        embedding_dim: 8,
        text_dim: 0,
        history_len: 10,
        ff_dim: 8,
        half_lives_secs: vec![3600],
        ..ModelSpec::default()
    };
    let mut parameters = init_parameters(&spec, NUM_ITEMS, 1);
    let mut rng = StdRng::seed_from_u64(2);
    for value in parameters.tensor_mut("item.id_rows") {
        *value = rng.random::<f32>() - 0.5;
    }
    let mut window = |user: u32| Window {
        examples: (0..9)
            .map(|idx| Example {
                item_idx: (user * 4 + rng.random_range(0..4)) % NUM_ITEMS as u32,
                kind: EventKind::Purchase,
                occurred_at: idx * 7_000,
                target_weight: 1.0,
                share: 1.0,
                click: None,
                rating: None,
            })
            .collect(),
        first_target: 0,
    };
    let windows: Vec<Window> = (0..10).map(&mut window).collect();
    let examples = windows.iter().flat_map(|window| &window.examples);
    let history = CountHistory::of(examples, NUM_ITEMS, &spec.half_lives_secs, 0);
    (parameters, windows, history)
}

#[test]
fn the_loss_is_that_of_the_formula() {
    let device = Device::flex();
    // Two windows, whose views point along (1, 0) and (0, 1) whatever their length.
    let views = [3.0, 0.0, 0.0, 0.5, 1.0, 0.0, 0.0, 2.0];
    let loss = info_nce(matrix(&views, 4, 2, &device), 0.5, &device);
    let loss = read(loss.reshape([1]), 0).expect("a loss")[0];
    let expected = (2.0_f32.exp() + 2.0).ln() - 2.0; // itself is left out: e^2 + e^0 + e^0
    assert!((loss - expected).abs() < 1e-5, "{loss} is not {expected}");
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let (mut parameters, windows, history) = toy();
    let device = Device::flex().autodiff();
    let windows: Vec<&Window> = windows.iter().take(4).collect();
    let mut rng = StdRng::seed_from_u64(5);
    let batch = batch_of_views(&windows, &history, NUM_ITEMS, &mut rng);
    let (_, gradients) =
        differentiate(&parameters, &batch, &config(), &device, 0).expect("a finite loss");
    const STEP: f32 = 1e-2;
    let mut num_checked = 0;
    let shapes = parameters.shapes();
    let slow = shapes.iter().enumerate();
    let slow = slow.filter(|(_, shape)| shape.group == TensorGroup::Slow);
    for ((tensor, shape), gradient) in slow.zip(&gradients.slow) {
        let Some(gradient) = gradient else { continue };
        let cells = gradient.iter().enumerate();
        let Some((cell, largest)) = cells.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())) else {
            continue;
        };
        let mut moved = |distance: f32| {
            parameters.tensors[tensor][cell] += distance;
            let loss = differentiate(&parameters, &batch, &config(), &device, 0);
            parameters.tensors[tensor][cell] -= distance;
            loss.expect("a finite loss").0
        };
        let difference = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        assert!(
            (difference - largest).abs() < 0.03 * largest.abs() + 2e-3,
            "{}[{cell}]: {difference} by differences, {largest} by autodiff",
            shape.name
        );
        num_checked += usize::from(largest.abs() > 1e-2);
    }
    assert!(
        num_checked > 5,
        "{num_checked} gradients were worth checking"
    );
}

fn pretrain_to_the_end(
    parameters: &mut ParameterSet,
    windows: &[Window],
    history: &CountHistory,
    device: &Device,
) -> Result<Vec<f32>, TrainError> {
    pretrain(parameters, windows, history, &config(), device, |_| true)
}

#[test]
fn pretraining_lowers_the_loss_and_leaves_heads_and_prior_alone() {
    let (mut parameters, windows, history) = toy();
    let before = parameters.clone();
    let device = Device::flex().autodiff();
    // The same views before and after: those of the passes are other ones each time.
    let mut rng = StdRng::seed_from_u64(9);
    let all: Vec<&Window> = windows.iter().collect();
    let batch = batch_of_views(&all, &history, NUM_ITEMS, &mut rng);
    let loss = |parameters: &ParameterSet| {
        let found = differentiate(parameters, &batch, &config(), &device, 0);
        found.expect("a finite loss").0
    };
    let losses = pretrain_to_the_end(&mut parameters, &windows, &history, &device);
    assert_eq!(losses.expect("finite losses").len(), 12);
    let (first, last) = (loss(&before), loss(&parameters));
    assert!(last < 0.8 * first, "{first} before, {last} after");
    for name in ["prior.weights", "item.bias"] {
        assert_eq!(parameters.tensor(name), before.tensor(name), "{name}");
    }
    assert_ne!(
        parameters.tensor("item.id_rows"),
        before.tensor("item.id_rows")
    );
}

#[test]
fn windows_too_short_for_two_views_teach_nothing() {
    let (mut parameters, mut windows, history) = toy();
    for window in &mut windows {
        window.examples.truncate(EVENTS_MIN - 1);
    }
    let before = parameters.clone();
    let device = Device::flex().autodiff();
    let losses = pretrain_to_the_end(&mut parameters, &windows, &history, &device);
    assert_eq!(losses.expect("nothing failed"), Vec::<f32>::new());
    assert_eq!(parameters, before);
}
