//! The training step that `cargo xtask bench train` times, beside the same model in PyTorch.
//!
//! `training_step EXPORT_FILE full | training_step EXPORT_FILE stream DATASET_DIR`
//!
//! Builds weights and batches from a seed, writes them with a loss and its gradients to `EXPORT_FILE`
//! (safetensors), and then answers every line `N` of standard input by the milliseconds of `N` steps, as JSON:
//! `{"millis": […], "cpu_millis": …}`, the latter of all threads and all `N`.
//! The model is that of the baseline `sasrec` with the softmax over the whole catalogue: events have no times,
//! so the item prior has nothing to say and PyTorch needs none.
//! Not here: the other side (`xtask/bench/train_pytorch.py`) and what is made of both (`xtask`).

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use shared_model::event::EventKind;
use shared_model::model::parameters::ParameterSet;
use shared_model::model::sequence::{Sequence, SequenceBatch};
use shared_model::spec::TensorGroup;
use trainer_server::dataset::Dataset;
use trainer_server::evaluate::cpu;
use trainer_server::evaluate::sasrec::{spec, step};
use trainer_server::train::count_history::CountHistory;
use trainer_server::train::full_optimizer::FullOptimizer;
use trainer_server::train::full_step::{FullStepConfig, full_step, gradients};
use trainer_server::train::init::init_parameters;
use trainer_server::train::windows::{Example, Window, cut};

const SEED: u64 = 1;
const BATCH_SIZE: usize = 128;
const NUM_BATCHES: usize = 8;
/// Of the shape `full`.
const NUM_ITEMS: usize = 4000;
const HISTORY_LEN: usize = 50;

/// A step of the baseline over the whole catalogue.
fn config() -> FullStepConfig {
    FullStepConfig {
        num_negatives: usize::MAX,
        ..step()
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut rng = StdRng::seed_from_u64(SEED);
    let (export_path, num_items, batches) = match arguments.as_slice() {
        [path, shape] if shape == "full" => (path, NUM_ITEMS, full_batches(&mut rng)),
        [path, shape, dataset_dir] if shape == "stream" => {
            let dataset = Dataset::load(Path::new(dataset_dir), SEED)?;
            (
                path,
                dataset.items.len(),
                stream_batches(&dataset, &mut rng),
            )
        }
        _ => bail!("wanted: EXPORT_FILE full | EXPORT_FILE stream DATASET_DIR"),
    };
    let mut parameters = init_parameters(&spec(), num_items, SEED);
    for value in parameters.tensor_mut("item.id_rows") {
        *value = rng.random_range(-0.05..0.05);
    }
    let history = CountHistory::of(std::iter::empty(), num_items, &[86_400], 0);
    let device = Device::flex().autodiff();
    export(Path::new(export_path), &parameters, &batches, &history)?;

    let mut optimizer = FullOptimizer::new(&parameters);
    let mut batches = batches.iter().cycle();
    for line in std::io::stdin().lock().lines() {
        let num_steps: usize = line?.trim().parse().context("a number of steps")?;
        let mut millis = Vec::with_capacity(num_steps.min(1 << 16));
        let cpu_secs_before = cpu::own_secs();
        for windows in batches.by_ref().take(num_steps) {
            let started_at = Instant::now();
            full_step(
                &mut parameters,
                &mut optimizer,
                windows,
                &history,
                &config(),
                &device,
                &mut rng,
            )?;
            millis.push(started_at.elapsed().as_secs_f64() * 1e3);
        }
        let cpu_secs = cpu::own_secs().and_then(|after| Ok(after - cpu_secs_before?));
        let cpu_millis = cpu_secs.ok().map(|secs| secs * 1e3); // null where the system does not tell
        println!("{}", json!({ "millis": millis, "cpu_millis": cpu_millis }));
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn example(item_idx: u32) -> Example {
    Example {
        item_idx,
        kind: EventKind::Click,
        occurred_at: 0,
        target_weight: 1.0,
        share: 1.0,
        click: None,
        rating: None,
    }
}

/// Windows of the full length, every position a target: packing gains nothing.
fn full_batches(rng: &mut StdRng) -> Vec<Vec<Window>> {
    let mut window = || Window {
        examples: (0..=HISTORY_LEN)
            .map(|_| example(rng.random_range(0..NUM_ITEMS as u32))) // fits
            .collect(),
        first_target: 0,
    };
    (0..NUM_BATCHES)
        .map(|_| (0..BATCH_SIZE).map(|_| window()).collect())
        .collect()
}

/// Shuffled windows of everyone's events, as a warm fit takes them.
fn stream_batches(dataset: &Dataset, rng: &mut StdRng) -> Vec<Vec<Window>> {
    let mut timelines: BTreeMap<u32, Vec<Example>> = BTreeMap::new();
    for event in &dataset.events {
        let timeline = timelines.entry(event.user_idx).or_default();
        timeline.push(example(event.item_idx));
    }
    let mut windows: Vec<Window> = timelines
        .values()
        .flat_map(|timeline| cut(timeline, HISTORY_LEN))
        .collect();
    windows.shuffle(rng);
    let batches = windows.chunks_exact(BATCH_SIZE).take(NUM_BATCHES);
    batches.map(<[Window]>::to_vec).collect()
}

/// Everything that the other side needs to compute the same, and what must come out for the first batch.
fn export(
    path: &Path,
    parameters: &ParameterSet,
    batches: &[Vec<Window>],
    history: &CountHistory,
) -> anyhow::Result<()> {
    let first = batches.first().context("too few windows for a batch")?;
    let without_dropout = FullStepConfig {
        dropout: 0.0,
        ..config()
    };
    let (loss, expected) = gradients(
        parameters,
        first,
        history,
        &without_dropout,
        &Device::flex().autodiff(),
        &mut StdRng::seed_from_u64(SEED),
    )?
    .context("the first batch holds no target")?;
    let dim = spec().embedding_dim as usize; // u32 fits
    let mut tensors = vec![
        floats("loss".to_owned(), vec![1], &[loss]),
        floats(
            "gradient.item.id_rows".to_owned(),
            vec![parameters.num_items, dim],
            &expected.id_rows,
        ),
        floats(
            "gradient.item.bias".to_owned(),
            vec![parameters.num_items, 1],
            &expected.bias,
        ),
    ];
    let mut slow = expected.slow.iter();
    for (shape, values) in parameters.shapes().iter().zip(&parameters.tensors) {
        let sizes = vec![shape.num_rows, shape.num_cols];
        if shape.group == TensorGroup::Slow
            && let Some(Some(gradient)) = slow.next()
        {
            tensors.push(floats(
                format!("gradient.{}", shape.name),
                sizes.clone(),
                gradient,
            ));
        }
        tensors.push(floats(shape.name.clone(), sizes, values));
    }
    for (batch_idx, windows) in batches.iter().enumerate() {
        tensors.extend(integers(batch_idx, windows));
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, sizes, bytes)| {
            Ok((name, TensorView::new(*dtype, sizes.clone(), bytes)?))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    safetensors::serialize_to_file(views, Some(metadata(batches.len())), path)
        .with_context(|| format!("cannot write {}", path.display()))
}

type Exported = (String, Dtype, Vec<usize>, Vec<u8>);

fn floats(name: String, sizes: Vec<usize>, values: &[f32]) -> Exported {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    (name, Dtype::F32, sizes, bytes.collect())
}

/// Padded to the longest window: what every position reads, and the item that comes next where it is learned, else −1.
fn integers(batch_idx: usize, windows: &[Window]) -> Vec<Exported> {
    let sequences: Vec<Sequence> = windows.iter().map(Window::sequence).collect();
    let batch = SequenceBatch::new(&sequences, 0);
    let (num_events, num_positions) = (batch.num_events, batch.num_positions());
    let mut targets = vec![-1_i32; windows.len() * num_positions];
    for (window, targets) in windows.iter().zip(targets.chunks_exact_mut(num_positions)) {
        for (position, example) in window.targets() {
            targets[position] = example.item_idx as i32; // fits: NUM_ITEMS_MAX is 2^20
        }
    }
    let tensor = |name: &str, num_cols: usize, values: &[i32]| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        let sizes = vec![windows.len(), num_cols];
        (
            format!("batch.{batch_idx}.{name}"),
            Dtype::I32,
            sizes,
            bytes.collect(),
        )
    };
    vec![
        tensor("items", num_events, &batch.item_rows),
        tensor("kinds", num_events, &batch.kinds),
        tensor("gaps", num_events, &batch.gaps),
        tensor("targets", num_positions, &targets),
    ]
}

fn metadata(num_batches: usize) -> HashMap<String, String> {
    let (spec, config) = (spec(), config());
    let pairs = [
        ("num_batches", num_batches.to_string()),
        ("num_layers", spec.num_layers.to_string()),
        ("num_heads", spec.num_heads.to_string()),
        ("dropout", config.dropout.to_string()),
        ("learning_rate", config.learning_rate.to_string()),
        ("weight_decay", config.weight_decay.to_string()),
        ("gradient_norm_max", config.gradient_norm_max.to_string()),
    ];
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}
