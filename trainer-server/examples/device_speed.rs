//! What training costs on the CPU and on a graphics card: `train.device` as `flex` and as `wgpu`, side by side.
//!
//! `device_speed [ENCODER_DIR]` writes a table of milliseconds. With a folder of a text encoder (`freshet text fetch`
//! says where it puts one) it also times embedding texts, text steps and steps of a CrossEncoder; weights drawn by
//! chance take as long. Batches are drawn from a seed. That both devices compute the same is claimed by `parity`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use burn::tensor::Device;
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::event::EventKind;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::ModelSpec;
use shared_model::text::cross_encoder::TrainedPart;
use trainer_server::config::{Config, DeviceChoice, TextEncoderChoice};
use trainer_server::cross_encoder::scorer::CrossScorer;
use trainer_server::cross_encoder::tuner::{LabelledPair, TuneOptions, Tuner};
use trainer_server::device;
use trainer_server::evaluate::sasrec;
use trainer_server::text_source::{TextSource, load, read_encoder_files};
use trainer_server::train::count_history::CountHistory;
use trainer_server::train::full_optimizer::FullOptimizer;
use trainer_server::train::full_step::{FullStepConfig, full_step};
use trainer_server::train::init::init_parameters;
use trainer_server::train::text_step::{TextStepConfig, TextStepInputs, TextTuner};
use trainer_server::train::windows::{Example, Window};

const SEED: u64 = 1;
const NUM_BATCHES: usize = 4;
/// Compiling shaders and the first pages of memory are not what is timed.
const NUM_WARM_UP_CALLS: usize = 3;
const NUM_CALLS_MIN: usize = 3;
const NUM_CALLS_MAX: usize = 100;
/// For one row and one device.
const PATIENCE: Duration = Duration::from_secs(4);

/// One shape of a training step.
struct Shape {
    name: &'static str,
    spec: ModelSpec,
    num_items: usize,
    num_windows: usize,
    /// Events of a window.
    window_len: usize,
    config: FullStepConfig,
}

fn main() -> anyhow::Result<()> {
    let encoder_dir = std::env::args().nth(1);
    let devices = [
        Device::flex(),
        device::choose(DeviceChoice::Wgpu)
            .context("nothing to compare with")?
            .device,
    ];
    println!(
        "| work | flex: ms, median (min to max) | wgpu: ms, median (min to max) | flex / wgpu |"
    );
    println!("| --- | --- | --- | --- |");
    for shape in shapes() {
        row(shape.name, &devices, |device| step_of(&shape, device))?;
    }
    let Some(dir) = encoder_dir else {
        return Ok(());
    };
    let dir = Path::new(&dir);
    row("embed 256 texts of some 64 tokens", &devices, |device| {
        embed_of(dir, device)
    })?;
    row(
        "text step, 16 windows of 11 events, 64 negatives",
        &devices,
        |device| text_step_of(dir, device),
    )?;
    let parts = [
        ("CrossEncoder, 16 pairs, all weights", TrainedPart::Full),
        (
            "CrossEncoder, 16 pairs, LoRA of rank 8",
            TrainedPart::Lora {
                rank: 8,
                alpha: 16.0,
            },
        ),
    ];
    for (name, part) in parts {
        row(name, &devices, |device| cross_step_of(dir, part, device))?;
    }
    Ok(())
}

/// Times `make(device)`'s calls on both devices and writes a line of the table.
fn row<F: FnMut() -> anyhow::Result<()>>(
    name: &str,
    devices: &[Device; 2],
    mut make: impl FnMut(&Device) -> anyhow::Result<F>,
) -> anyhow::Result<()> {
    let mut cells = Vec::new();
    let mut medians = Vec::new();
    for device in devices {
        match make(device).and_then(times) {
            Ok(times) => {
                let median = times[times.len() / 2];
                cells.push(format!(
                    "{median:.2} ({:.2} to {:.2})",
                    times[0],
                    times[times.len() - 1]
                ));
                medians.push(median);
            }
            Err(error) => cells.push(format!("failed: {error:#}")),
        }
    }
    let ratio = match medians.as_slice() {
        [flex, wgpu] => format!("{:.2}", flex / wgpu),
        _ => "–".to_owned(),
    };
    println!("| {name} | {} | {ratio} |", cells.join(" | "));
    Ok(())
}

/// Milliseconds of some calls, ascending.
fn times(mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    for _ in 0..NUM_WARM_UP_CALLS {
        call()?;
    }
    let started_at = Instant::now();
    let mut times = Vec::new();
    while times.len() < NUM_CALLS_MIN
        || (times.len() < NUM_CALLS_MAX && started_at.elapsed() < PATIENCE)
    {
        let asked_at = Instant::now();
        call()?;
        times.push(asked_at.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn shapes() -> Vec<Shape> {
    let config = Config::default();
    let train = &config.train;
    let warm = FullStepConfig {
        learning_rate: train.warm_learning_rate,
        row_learning_rate: train.warm_row_learning_rate,
        bias_learning_rate: train.warm_bias_learning_rate,
        prior_learning_rate: train.warm_prior_learning_rate,
        id_dropout: f64::from(train.id_dropout),
        weight_decay: train.weight_decay,
        dropout: f64::from(train.dropout),
        num_negatives: train.num_negatives,
        gradient_norm_max: 5.0,
        ..FullStepConfig::still()
    };
    let whole_catalogue = FullStepConfig {
        num_negatives: usize::MAX,
        ..sasrec::step()
    };
    let default_spec = config.model.spec(384);
    let large_spec = ModelSpec {
        embedding_dim: 256,
        num_layers: 4,
        num_heads: 4,
        ff_dim: 1024,
        num_neighbours: 0,
        ..default_spec.clone()
    };
    let shape = |name, spec: &ModelSpec, num_items, num_windows, window_len, config| Shape {
        name,
        spec: spec.clone(),
        num_items,
        num_windows,
        window_len,
        config,
    };
    vec![
        shape(
            "default model, 64 windows of 11 events, 1,024 negatives of 4,000 items",
            &default_spec,
            4000,
            64,
            11,
            warm.clone(),
        ),
        shape(
            "default model, 64 windows of 51 events, 1,024 negatives of 4,000 items",
            &default_spec,
            4000,
            64,
            51,
            warm.clone(),
        ),
        shape(
            "default model, 512 windows of 51 events, 1,024 negatives of 4,000 items",
            &default_spec,
            4000,
            512,
            51,
            warm.clone(),
        ),
        shape(
            "`sasrec`, 128 windows of 51 events, all 4,000 items",
            &sasrec::spec(),
            4000,
            128,
            51,
            whole_catalogue.clone(),
        ),
        shape(
            "width 256, 4 layers, 128 windows of 51 events, 4,096 negatives of 20,000 items",
            &large_spec,
            20_000,
            128,
            51,
            FullStepConfig {
                num_negatives: 4096,
                ..warm
            },
        ),
        shape(
            "width 256, 4 layers, 256 windows of 51 events, all 20,000 items",
            &large_spec,
            20_000,
            256,
            51,
            whole_catalogue,
        ),
    ]
}

fn step_of<'a>(
    shape: &'a Shape,
    device: &Device,
) -> anyhow::Result<impl FnMut() -> anyhow::Result<()> + use<'a>> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut parameters = parameters(&shape.spec, shape.num_items, &mut rng);
    let batches: Vec<Vec<Window>> = (0..NUM_BATCHES)
        .map(|_| {
            windows(
                shape.num_windows,
                shape.window_len,
                shape.num_items,
                &mut rng,
            )
        })
        .collect();
    let history = counts(&shape.spec, shape.num_items);
    let mut optimizer = FullOptimizer::new(&parameters);
    let device = device.clone().autodiff();
    let mut batches = (0..NUM_BATCHES)
        .cycle()
        .map(move |idx| batches[idx].clone());
    Ok(move || {
        let batch = batches.next().context("a cycle has no end")?;
        full_step(
            &mut parameters,
            &mut optimizer,
            &batch,
            &history,
            &shape.config,
            &device,
            &mut rng,
        )?;
        Ok(())
    })
}

fn parameters(spec: &ModelSpec, num_items: usize, rng: &mut StdRng) -> ParameterSet {
    let mut parameters = init_parameters(spec, num_items, SEED);
    for name in ["item.id_rows", "item.text"] {
        if name == "item.text" && spec.text_dim == 0 {
            continue;
        }
        for value in parameters.tensor_mut(name) {
            *value = rng.random_range(-0.05..0.05);
        }
    }
    parameters
}

fn counts(spec: &ModelSpec, num_items: usize) -> CountHistory {
    CountHistory::of(std::iter::empty(), num_items, &spec.half_lives_secs, 0)
}

/// Clicks on random items, a minute apart, every one a target.
fn windows(
    num_windows: usize,
    window_len: usize,
    num_items: usize,
    rng: &mut StdRng,
) -> Vec<Window> {
    let mut window = || Window {
        examples: (0..window_len)
            .map(|place| Example {
                item_idx: rng.random_range(0..num_items as u32), // fits: NUM_ITEMS_MAX is 2^20
                kind: EventKind::Click,
                occurred_at: 60_000 * place as i64, // some dozens
                target_weight: 1.0,
                share: 1.0,
                click: None,
                rating: None,
            })
            .collect(),
        first_target: 0,
    };
    (0..num_windows).map(|_| window()).collect()
}

/// A sentence of some 64 tokens.
fn text(rng: &mut StdRng) -> String {
    const WORDS: [&str; 12] = [
        "lamp", "glass", "garden", "wooden", "light", "blue", "paper", "boots", "warm", "metal",
        "story", "kitchen",
    ];
    let words: Vec<&str> = (0..62)
        .map(|_| WORDS[rng.random_range(0..WORDS.len())])
        .collect();
    words.join(" ")
}

fn source(dir: &Path) -> TextSource {
    TextSource {
        choice: TextEncoderChoice::Pretrained,
        dir: Some(dir.to_owned()),
        cache_dir: dir.to_owned(),
    }
}

fn embed_of(
    dir: &Path,
    device: &Device,
) -> anyhow::Result<impl FnMut() -> anyhow::Result<()> + use<>> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let encoder = load(&source(dir), device, &ProgressBar::hidden())?;
    let texts: Vec<String> = (0..256).map(|_| text(&mut rng)).collect();
    Ok(move || {
        encoder.embed(&texts)?;
        Ok(())
    })
}

fn text_step_of(
    dir: &Path,
    device: &Device,
) -> anyhow::Result<impl FnMut() -> anyhow::Result<()> + use<>> {
    const NUM_ITEMS: usize = 1000;
    let mut rng = StdRng::seed_from_u64(SEED);
    let encoder = load(&source(dir), device, &ProgressBar::hidden())?;
    let encoder = encoder.as_bert().context("a pretrained encoder")?.clone();
    let config = Config::default();
    let spec = config.model.spec(encoder.dim() as u32); // some hundred
    let parameters = parameters(&spec, NUM_ITEMS, &mut rng);
    let history = counts(&spec, NUM_ITEMS);
    let texts: Vec<String> = (0..NUM_ITEMS).map(|_| text(&mut rng)).collect();
    let mut tuner = TextTuner::new(&encoder, 8, &mut rng)?;
    let step = TextStepConfig {
        learning_rate: 1e-4,
        num_negatives: 64,
        gradient_norm_max: 5.0,
    };
    Ok(move || {
        let inputs = TextStepInputs {
            encoder: &encoder,
            parameters: &parameters,
            history: &history,
            text_of: &|item_idx| texts[item_idx as usize].clone(),
        };
        let batch = windows(16, 11, NUM_ITEMS, &mut rng);
        tuner.step(inputs, &batch, &step, &mut rng)?;
        Ok(())
    })
}

fn cross_step_of(
    dir: &Path,
    part: TrainedPart,
    device: &Device,
) -> anyhow::Result<impl FnMut() -> anyhow::Result<()> + use<>> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let files = read_encoder_files(dir, |name| !shared_model::text::parameters::is_unused(name))?;
    let scorer = CrossScorer::pretrained(files, 128, SEED, device)?;
    let pairs: Vec<LabelledPair> = (0..16)
        .map(|idx| {
            Ok(LabelledPair {
                tokens: scorer.tokenize(&text(&mut rng), &text(&mut rng))?,
                click: Some(idx % 2 == 0),
                rating: None,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let config = scorer.config().clone();
    let options = TuneOptions::classic(part);
    let mut tuner = Tuner::new(scorer.model().clone(), config, options, device);
    Ok(move || {
        let batch: Vec<&LabelledPair> = pairs.iter().collect();
        tuner.step(&batch, 1e-4)?;
        Ok(())
    })
}
