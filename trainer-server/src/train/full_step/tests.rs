//! Claims about full steps on a toy: parts, adversarial moves, distillation, strategies.

use super::*;
use crate::train::init::init_parameters;
use crate::train::strategy::{Strategy, StrategyKind};
use crate::train::teacher::TextTeacher;
use crate::train::windows::Example;
use rand::{Rng, SeedableRng};
use shared_model::event::EventKind;
use shared_model::spec::ModelSpec;

const NUM_ITEMS: usize = 12;

fn toy() -> (ParameterSet, Vec<Window>, CountHistory) {
    let spec = ModelSpec {
        embedding_dim: 8,
        text_dim: 0,
        history_len: 6,
        ff_dim: 8,
        half_lives_secs: vec![3600],
        adapter_dim: 2,
        ..ModelSpec::default()
    };
    let mut parameters = init_parameters(&spec, NUM_ITEMS, 1);
    let mut rng = StdRng::seed_from_u64(2);
    for value in parameters.tensor_mut("item.id_rows") {
        *value = rng.random::<f32>() - 0.5;
    }
    let mut window = |user: i64| Window {
        examples: (0..5)
            .map(|idx| Example {
                item_idx: rng.random_range(0..NUM_ITEMS as u32),
                kind: EventKind::Purchase,
                occurred_at: user * 1000 + idx * 7_000,
                target_weight: 1.0,
                share: 1.0,
                click: None,
                rating: None,
            })
            .collect(),
        first_target: 0,
    };
    let windows: Vec<Window> = (0..8).map(&mut window).collect();
    let examples = windows.iter().flat_map(|window| &window.examples);
    let history = CountHistory::of(examples, NUM_ITEMS, &spec.half_lives_secs, 0);
    (parameters, windows, history)
}

fn moving() -> FullStepConfig {
    FullStepConfig {
        learning_rate: 0.01,
        row_learning_rate: 0.01,
        bias_learning_rate: 0.01,
        prior_learning_rate: 0.01,
        ..FullStepConfig::still()
    }
}

/// Parameters and loss after `num_steps` steps.
fn stepped(config: &FullStepConfig, strategy: Strategy, num_steps: usize) -> (ParameterSet, f32) {
    let (mut parameters, windows, history) = toy();
    let mut optimizer = FullOptimizer::with_strategy(&parameters, strategy, 1);
    let mut rng = StdRng::seed_from_u64(4);
    let device = Device::flex().autodiff();
    let mut loss = f32::NAN;
    for _ in 0..num_steps {
        let report = full_step(
            &mut parameters,
            &mut optimizer,
            &windows,
            &history,
            config,
            &device,
            &mut rng,
        );
        loss = report.expect("a step on a toy").loss;
    }
    (parameters, loss)
}

fn largest_difference(left: &ParameterSet, right: &ParameterSet) -> f32 {
    let pairs = left
        .tensors
        .iter()
        .flatten()
        .zip(right.tensors.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_batch_in_parts_is_the_same_step() {
    // Uneven parts, and the full softmax, so that no draw differs.
    let whole = stepped(&moving(), Strategy::default(), 1);
    let config = FullStepConfig {
        num_parts: 3,
        ..moving()
    };
    let parts = stepped(&config, Strategy::default(), 1);
    assert!((whole.1 - parts.1).abs() < 1e-5, "{} {}", whole.1, parts.1);
    // AdamW's first step is the sign of the gradient, so tiny gradients may differ; the loss after many must not.
    let whole = stepped(&moving(), Strategy::default(), 20).1;
    let parts = stepped(&config, Strategy::default(), 20).1;
    assert!((whole - parts).abs() < 0.02 * whole, "{whole} {parts}");
}

#[test]
fn adversarial_steps_learn_too_and_leave_no_move_behind() {
    let start = stepped(&moving(), Strategy::default(), 1).1;
    for adversarial in [
        Adversarial::Fgm { epsilon: 0.1 },
        Adversarial::Pgd {
            epsilon: 0.1,
            num_steps: 3,
        },
    ] {
        let config = FullStepConfig {
            adversarial,
            ..moving()
        };
        let end = stepped(&config, Strategy::default(), 30).1;
        assert!(end < 0.8 * start, "{adversarial:?}: {start} → {end}");
        let still = FullStepConfig {
            adversarial,
            ..FullStepConfig::still()
        };
        let (unmoved, _) = stepped(&still, Strategy::default(), 3);
        assert_eq!(unmoved, toy().0, "{adversarial:?}");
    }
}

#[test]
fn the_loss_at_moved_rows_is_higher() {
    let (mut parameters, windows, history) = toy();
    let device = Device::flex().autodiff();
    let mut rng = StdRng::seed_from_u64(4);
    let config = FullStepConfig::still();
    let of = |parameters: &ParameterSet, rng: &mut StdRng| {
        gradients(parameters, &windows, &history, &config, &device, rng)
            .expect("a toy")
            .expect("targets")
    };
    let (clean, gradients) = of(&parameters, &mut rng);
    let rows: Vec<u32> = (0..NUM_ITEMS as u32).collect();
    let moved = Moved::new(&parameters, &rows);
    moved.push(&mut parameters, &gradients.id_rows, 0.1, 0.1);
    let (worse, _) = of(&parameters, &mut rng);
    assert!(worse > clean + 0.01, "{clean} clean, {worse} moved");
}

#[test]
fn an_ensemble_of_a_version_with_itself_teaches_what_the_version_does() {
    let (teacher, windows, history) = toy();
    let device = Device::flex().autodiff();
    let taught_by = |versions: Vec<Arc<ParameterSet>>| {
        let config = FullStepConfig {
            distillation: Some(Distillation {
                teacher: Teacher::Versions(versions),
                weight: 3.0,
            }),
            ..FullStepConfig::still()
        };
        let mut student = teacher.clone();
        student.tensor_mut("item.bias")[0] += 0.5;
        let mut rng = StdRng::seed_from_u64(4);
        gradients(&student, &windows, &history, &config, &device, &mut rng)
            .expect("a toy")
            .expect("targets")
            .0
    };
    let alone = Arc::new(teacher.clone());
    let mut other = teacher.clone();
    other.tensor_mut("item.bias")[1] += 4.0;
    let other = Arc::new(other);
    let one = taught_by(vec![Arc::clone(&alone)]);
    let twice = taught_by(vec![Arc::clone(&alone), Arc::clone(&alone)]);
    assert!((one - twice).abs() < 1e-5, "{one} and {twice}");
    // The cross-entropy is linear in the teacher's probabilities, so an ensemble is worth the mean of its members.
    let both = taught_by(vec![Arc::clone(&alone), Arc::clone(&other)]);
    let mean = 0.5 * (one + taught_by(vec![other]));
    assert!((both - mean).abs() < 1e-4, "{both} and {mean}");
    assert!(
        (both - one).abs() > 1e-2,
        "{both} says nothing of the other one"
    );
}

#[test]
fn a_taught_student_stays_nearer_to_its_teacher() {
    let (teacher, windows, history) = toy();
    let distance = |weight: f32| {
        let config = FullStepConfig {
            distillation: Some(Distillation {
                teacher: Teacher::Versions(vec![Arc::new(teacher.clone())]),
                weight,
            }),
            ..moving()
        };
        let (student, _) = stepped(&config, Strategy::default(), 30);
        let device = Device::flex().autodiff();
        let rng = StdRng::seed_from_u64(4);
        let still = FullStepConfig::still();
        let of = |parameters| {
            gradients(
                parameters,
                &windows,
                &history,
                &still,
                &device,
                &mut rng.clone(),
            )
            .expect("a toy")
            .expect("targets")
            .0
        };
        (of(&teacher) - of(&student)).abs()
    };
    let (free, taught) = (distance(0.0), distance(20.0));
    assert!(taught < 0.5 * free, "{taught} taught, {free} free");
}

/// Is sure that everybody wants item 3.
#[derive(Debug)]
struct Fan;

impl TextTeacher for Fan {
    fn shares(&self, history: &[u32], candidates: &[u32]) -> Result<Vec<f32>, String> {
        assert!(!history.is_empty(), "who had nothing has no text");
        Ok(candidates
            .iter()
            .map(|idx| f32::from(u8::from(*idx == 3)))
            .collect())
    }
}

/// Says too little.
#[derive(Debug)]
struct Silent;

impl TextTeacher for Silent {
    fn shares(&self, _history: &[u32], _candidates: &[u32]) -> Result<Vec<f32>, String> {
        Ok(Vec::new())
    }
}

#[test]
fn a_teacher_of_texts_is_followed_and_one_that_does_not_answer_leaves_the_weights() {
    let taught_by = |teacher: Arc<dyn TextTeacher>, weight| FullStepConfig {
        distillation: Some(Distillation {
            teacher: Teacher::Texts(teacher),
            weight,
        }),
        ..moving()
    };
    let (_, windows, history) = toy();
    let share_of_3 = |weight| {
        let (student, _) = stepped(&taught_by(Arc::new(Fan), weight), Strategy::default(), 30);
        exposure(&student, &windows, &history)[3]
    };
    let (free, taught) = (share_of_3(0.0), share_of_3(5.0));
    assert!(taught > 1.5 * free, "{taught} taught, {free} free");

    let (mut parameters, windows, history) = toy();
    let before = parameters.clone();
    let mut optimizer = FullOptimizer::new(&parameters);
    let stepped = full_step(
        &mut parameters,
        &mut optimizer,
        &windows,
        &history,
        &taught_by(Arc::new(Silent), 1.0),
        &Device::flex().autodiff(),
        &mut StdRng::seed_from_u64(1),
    );
    assert!(matches!(stepped, Err(TrainError::Teacher { .. })));
    assert_eq!(parameters, before);
}

/// Softmax over all items at the last target of every window, mean, `[NUM_ITEMS]`.
fn exposure(parameters: &ParameterSet, windows: &[Window], history: &CountHistory) -> Vec<f32> {
    let device = Device::flex().autodiff();
    let still = FullStepConfig::still();
    let loss = |item_idx: u32| -> Vec<f32> {
        let asked = windows.iter().map(|window| {
            let mut window = window.clone();
            window.first_target = window.examples.len() - 1;
            if let Some(last) = window.examples.last_mut() {
                last.item_idx = item_idx;
            }
            let mut rng = StdRng::seed_from_u64(1);
            gradients(parameters, &[window], history, &still, &device, &mut rng)
                .expect("a toy")
                .expect("a target")
                .0
        });
        asked.collect()
    };
    let mean = |losses: Vec<f32>| {
        let shares = losses.iter().map(|loss| (-loss).exp());
        shares.sum::<f32>() / losses.len() as f32
    };
    (0..NUM_ITEMS as u32).map(|item| mean(loss(item))).collect()
}

#[test]
fn a_penalty_takes_exposure_from_harmful_items_alone() {
    let (_, windows, history) = toy();
    let mut harm = vec![0.0; NUM_ITEMS];
    harm[..4].fill(1.0);
    let exposed = |penalty: f32| {
        let config = FullStepConfig {
            objective: Arc::new(Objective::new(&history.num_events(), 0.0, &harm, penalty)),
            ..moving()
        };
        let (parameters, _) = stepped(&config, Strategy::default(), 40);
        let exposure = exposure(&parameters, &windows, &history);
        assert!((exposure.iter().sum::<f32>() - 1.0).abs() < 1e-3);
        exposure[..4].iter().sum::<f32>()
    };
    let (free, penalised) = (exposed(0.0), exposed(10.0));
    assert!(penalised < 0.5 * free, "{penalised} penalised, {free} free");
}

#[test]
fn a_correction_takes_popularity_out_of_the_scores() {
    let (_, windows, history) = toy();
    // As if the first items had been had far more often than the windows say.
    let num_events: Vec<usize> = (0..NUM_ITEMS).map(|item| [400, 4][item / 6]).collect();
    let exposed = |correction: f32| {
        let config = FullStepConfig {
            objective: Arc::new(Objective::new(&num_events, correction, &[], 0.0)),
            ..moving()
        };
        let (parameters, _) = stepped(&config, Strategy::default(), 40);
        exposure(&parameters, &windows, &history)[..6]
            .iter()
            .sum::<f32>()
    };
    let (plain, corrected) = (exposed(0.0), exposed(1.0));
    assert!(
        corrected < 0.6 * plain,
        "{corrected} corrected, {plain} plain"
    );
}

#[test]
fn every_strategy_moves_its_tensors_alone_and_lowers_the_loss() {
    let start = toy().0;
    let config = FullStepConfig {
        learning_rate: 0.02,
        ..FullStepConfig::still()
    };
    let first = stepped(&FullStepConfig::still(), Strategy::default(), 1).1;
    for kind in [
        StrategyKind::Full,
        StrategyKind::Lora { rank: 2 },
        StrategyKind::Adapter,
        StrategyKind::BitFit,
        StrategyKind::Head,
    ] {
        let strategy = Strategy {
            kind,
            ..Strategy::default()
        };
        let (end, loss) = stepped(&config, strategy, 40);
        assert!(loss < first - 0.02, "{kind:?}: {first} → {loss}");
        let moved: Vec<String> = start
            .shapes()
            .into_iter()
            .zip(start.tensors.iter().zip(&end.tensors))
            .filter(|(_, (before, after))| before != after)
            .map(|(shape, _)| shape.name)
            .collect();
        let is_allowed = |name: &String| match kind {
            StrategyKind::Adapter => name.starts_with("adapters."),
            StrategyKind::BitFit => name.contains("norm") || name.ends_with("bias"),
            StrategyKind::Head => name == "final_norm",
            StrategyKind::Full | StrategyKind::Lora { .. } | StrategyKind::Tables => true,
        };
        assert!(
            !moved.is_empty() && moved.iter().all(is_allowed),
            "{kind:?}: {moved:?}"
        );
        assert!(
            !moved.iter().any(|name| name.starts_with("item.")),
            "{moved:?}"
        );
    }
    let tables = Strategy {
        kind: StrategyKind::Tables,
        ..Strategy::default()
    };
    assert_eq!(
        largest_difference(&stepped(&config, tables, 3).0, &start),
        0.0
    );
}
