//! Claims about parity: one code state ranks alike on every backend, and gradients agree between devices.
//!
//! The reference is the CPU of the server (`flex`, native). Compared with it: `wgpu` native (a software Vulkan where
//! there is no card), and both modules of the npm package in Chromium. Each test prints its table.

use anyhow::Context;
use burn::tensor::Device;
use harness::browser::{Browser, BrowserPage, PageStatus};
use harness::people::{Person, World};
use harness::scene::{HOUR_MILLIS, NOW_MILLIS, START_MILLIS, Scene};
use harness::workspace;
use rand::SeedableRng;
use rand::rngs::StdRng;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::{RankOptions, RankRequest, RankedItem, ReadyVersion};
use shared_model::model::parameters::ParameterSet;
use trainer_server::config::DeviceChoice;
use trainer_server::device;
use trainer_server::learner::padding_of;
use trainer_server::train::count_history::CountHistory;
use trainer_server::train::full_optimizer::FullOptimizer;
use trainer_server::train::full_step::{FullStepConfig, HostGradients, full_step, gradients};
use trainer_server::train::windows::{Example, Window};

/// Same sums on another CPU instruction set: f32 sums of some hundred terms of order one, in another order, differ by
/// about 1e-6.
const CPU_SCORE_TOLERANCE: f32 = 1e-5;
/// On a GPU also exponentials and roots come from another library. A version's self-test allows a hundred times this.
const GPU_SCORE_TOLERANCE: f32 = 1e-4;
/// Of the largest gradient of a tensor. burn 0.22 derives the tanh form of gelu on wgpu and the erf form on flex, whose
/// derivatives differ by up to 5e-4; without that it would be rounding.
const GRADIENT_TOLERANCE: f32 = 1e-3;
/// Gradients below this are rounding noise of a sum that should be zero.
const GRADIENT_FLOOR: f32 = 1e-5;

/// Steps of a training curve.
const CURVE_STEPS: usize = 60;
/// Of a loss on the curve: AdamW divides by the size of gradients, so where those are noise, so is what they move.
const CURVE_TOLERANCE: f32 = 0.02;

/// Items compared by place.
const TOP: usize = 10;
/// Histories scored: empty, short, longer than the model attends to.
const HISTORY_LENS: [usize; 4] = [0, 1, 7, 30];

/// How far one backend is from the reference.
struct Row {
    backend: String,
    max_difference: f32,
    /// Mean share of the reference's best items among this one's.
    agreement: f32,
    tolerance: f32,
}

impl Row {
    fn new(
        backend: &str,
        reference: &[Vec<RankedItem>],
        rankings: &[Vec<RankedItem>],
        tolerance: f32,
    ) -> Self {
        let (mut max_difference, mut num_common) = (0.0_f32, 0);
        for (expected, actual) in reference.iter().zip(rankings) {
            assert_eq!(
                expected.len(),
                actual.len(),
                "{backend} ranks another number of items"
            );
            for item in expected {
                let twin = actual.iter().find(|other| other.item_id == item.item_id);
                let score = twin.map_or(f32::INFINITY, |twin| twin.score);
                max_difference = max_difference.max((score - item.score).abs());
            }
            let is_common = |item: &&RankedItem| {
                actual[..TOP]
                    .iter()
                    .any(|other| other.item_id == item.item_id)
            };
            num_common += expected[..TOP].iter().filter(is_common).count();
        }
        let agreement = num_common as f32 / (TOP * reference.len()) as f32;
        Self {
            backend: backend.to_owned(),
            max_difference,
            agreement,
            tolerance,
        }
    }
}

fn histories(people: &[Person]) -> Vec<Person> {
    let cut = people
        .iter()
        .zip(HISTORY_LENS)
        .map(|(person, history_len)| {
            let mut person = person.clone();
            let start = person.history.len().saturating_sub(history_len);
            person.history.drain(..start);
            person
        });
    cut.collect()
}

async fn native_rankings(
    state: &CodeState,
    device: &Device,
    people: &[Person],
) -> anyhow::Result<Vec<Vec<RankedItem>>> {
    let ready = ReadyVersion::new(state, device, padding_of(device));
    let options = RankOptions {
        k: state.items.len(),
        exclude_seen: false,
    };
    let mut rankings = Vec::new();
    for person in people {
        let request = RankRequest {
            history: &person.history,
            candidates: None,
            options: &options,
            now_millis: NOW_MILLIS,
            moderation: None,
        };
        rankings.push(ready.rank(state, &request).await?);
    }
    Ok(rankings)
}

async fn page_rankings(
    page: &BrowserPage,
    num_items: usize,
    people: &[Person],
) -> anyhow::Result<Vec<Vec<RankedItem>>> {
    let mut rankings = Vec::new();
    for person in people {
        rankings.push(
            page.rank(&person.history, num_items, NOW_MILLIS)
                .await?
                .items,
        );
    }
    Ok(rankings)
}

/// The graphics device, or a software one; `None` where the machine has neither and CI does not require it.
fn wgpu() -> anyhow::Result<Option<Device>> {
    match device::choose(DeviceChoice::Wgpu) {
        Ok(chosen) => Ok(Some(chosen.device)),
        Err(error) => {
            workspace::skip(&error.to_string())?;
            Ok(None)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_version_ranks_alike_on_every_backend() -> anyhow::Result<()> {
    // A fast version on top of the warm fit, so that id rows, biases and prior weights are in it.
    let mut scene = Scene::start(61, &[]).await?;
    for _ in 0..20 {
        scene.clicks(scene.people.len()).await?;
    }
    let server = &scene.server;
    let (manifest, state) = server.api.newest_version().await?;
    let people = histories(&scene.people);

    let reference = native_rankings(&state, &Device::flex(), &people).await?;
    let mut rows = vec![Row::new("flex, native", &reference, &reference, 0.0)];
    if let Some(device) = wgpu()? {
        let rankings = native_rankings(&state, &device, &people).await?;
        rows.push(Row::new(
            "wgpu, native",
            &reference,
            &rankings,
            GPU_SCORE_TOLERANCE,
        ));
    }
    if let Some(browser) = Browser::start().await? {
        for (backend, tolerance) in [
            ("cpu", CPU_SCORE_TOLERANCE),
            ("webgpu", GPU_SCORE_TOLERANCE),
        ] {
            let page = browser
                .open(
                    &server.address().url,
                    &[("backend", backend), ("cache", "0")],
                )
                .await?;
            page.is_connected().await?;
            let is_there = |status: &PageStatus| status.backend.as_deref() == Some(backend);
            page.status_when(&format!("the page ranks on {backend}"), is_there)
                .await?;
            page.has_version(manifest.version).await?;
            let rankings = page_rankings(&page, state.items.len(), &people).await?;
            rows.push(Row::new(
                &format!("{backend}, Chromium"),
                &reference,
                &rankings,
                tolerance,
            ));
        }
        browser.close().await?;
    }
    println!(
        "{:20} {:>14} {:>12} {:>10}",
        "backend", "max |Δscore|", "top 10 alike", "tolerance"
    );
    for row in &rows {
        println!(
            "{:20} {:>14.2e} {:>12.3} {:>10.0e}",
            row.backend, row.max_difference, row.agreement, row.tolerance
        );
    }
    for row in rows {
        assert!(
            row.max_difference <= row.tolerance,
            "{}: {}",
            row.backend,
            row.max_difference
        );
        // A near tie at the tenth place may swap one item in one history.
        let agreement_min = 1.0 - 1.0 / (TOP * reference.len()) as f32;
        assert!(
            row.agreement >= agreement_min,
            "{}: {}",
            row.backend,
            row.agreement
        );
    }
    Ok(())
}

/// Windows as the warm fit cuts them, with every kind of label in them.
fn windows(world: &mut World, num_windows: usize, history_len: usize) -> Vec<Window> {
    let mut people = world.people(num_windows);
    world.past(&mut people, history_len + 1, HOUR_MILLIS, START_MILLIS);
    let row_of =
        |world: &World, item_id| world.items.iter().position(|item| item.item_id == item_id);
    let mut windows = Vec::new();
    for person in people {
        let examples = person
            .history
            .into_iter()
            .enumerate()
            .map(|(idx, event)| Example {
                item_idx: row_of(world, event.item_id).map_or(0, |row| row as u32), // 200 items
                kind: event.kind,
                occurred_at: event.occurred_at,
                target_weight: 1.0,
                share: 1.0,
                click: (idx % 3 == 0).then_some(idx % 2 == 0),
                rating: (idx % 4 == 0).then_some(idx as f32 / 4.0), // a few events
            });
        windows.push(Window {
            examples: examples.collect(),
            first_target: 0,
        });
    }
    windows
}

/// Largest difference of a tensor's gradients, as a share of its largest gradient.
fn relative_difference(expected: &[f32], actual: &[f32]) -> f32 {
    assert_eq!(expected.len(), actual.len());
    let largest = expected
        .iter()
        .fold(GRADIENT_FLOOR, |largest, value| largest.max(value.abs()));
    let differences = expected
        .iter()
        .zip(actual)
        .map(|(expected, actual)| (expected - actual).abs());
    differences.fold(0.0_f32, f32::max) / largest
}

/// What a training step wants.
struct Training {
    parameters: ParameterSet,
    windows: Vec<Window>,
    history: CountHistory,
    config: FullStepConfig,
}

impl Training {
    /// On the first version of a server.
    async fn new(seed: u64, num_windows: usize) -> anyhow::Result<Self> {
        let mut scene = Scene::start(seed, &[]).await?;
        let server = &scene.server;
        let (_, state) = server.api.newest_version().await?;
        let parameters = ParameterSet::from_state(&state);
        let windows = windows(
            &mut scene.world,
            num_windows,
            state.spec.history_len as usize,
        );
        let history = CountHistory::of(
            windows.iter().flat_map(|window| &window.examples),
            parameters.num_items,
            &state.spec.half_lives_secs,
            state.landmark_millis,
        );
        let config = FullStepConfig {
            // No dropout of any kind: each device draws its own.
            num_negatives: 64,
            click_weight: 0.1,
            rating_weight: 0.05,
            ..FullStepConfig::still()
        };
        Ok(Self {
            parameters,
            windows,
            history,
            config,
        })
    }

    /// Loss of every step, from the same weights with the same negatives on any device.
    fn curve(&self, device: &Device, num_steps: usize) -> anyhow::Result<Vec<f32>> {
        let mut parameters = self.parameters.clone();
        let mut optimizer = FullOptimizer::new(&parameters);
        let config = FullStepConfig {
            learning_rate: 0.002,
            row_learning_rate: 0.01,
            bias_learning_rate: 0.01,
            prior_learning_rate: 0.01,
            ..self.config.clone()
        };
        let mut rng = StdRng::seed_from_u64(1);
        let windows: Vec<&[Window]> = self.windows.chunks(16).collect();
        let mut losses = Vec::new();
        for idx in 0..num_steps {
            let report = full_step(
                &mut parameters,
                &mut optimizer,
                windows[idx % windows.len()],
                &self.history,
                &config,
                &device.clone().autodiff(),
                &mut rng,
            )?;
            losses.push(report.loss);
        }
        Ok(losses)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn training_follows_the_same_curve_on_flex_and_wgpu() -> anyhow::Result<()> {
    let Some(device) = wgpu()? else { return Ok(()) };
    let training = Training::new(63, 64).await?;
    let expected = training.curve(&Device::flex(), CURVE_STEPS)?;
    let actual = training.curve(&device, CURVE_STEPS)?;
    println!("step   flex      wgpu");
    let mut largest = 0.0_f32;
    for (idx, (expected, actual)) in expected.iter().zip(&actual).enumerate() {
        largest = largest.max((expected - actual).abs() / expected);
        if idx % 10 == 0 || idx + 1 == CURVE_STEPS {
            println!("{idx:4} {expected:8.5} {actual:9.5}");
        }
    }
    println!("largest difference of a loss: {largest:.1e} of it");
    assert!(expected[CURVE_STEPS - 1] < 0.8 * expected[0], "it learns");
    assert!(largest <= CURVE_TOLERANCE, "{largest}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gradients_of_a_training_step_agree_between_flex_and_wgpu() -> anyhow::Result<()> {
    let Some(device) = wgpu()? else { return Ok(()) };
    let training = Training::new(62, 8).await?;
    let parameters = &training.parameters;
    let of = |device: &Device| -> anyhow::Result<(f32, HostGradients)> {
        let found = gradients(
            parameters,
            &training.windows,
            &training.history,
            &training.config,
            &device.clone().autodiff(),
            &mut StdRng::seed_from_u64(1),
        )?;
        found.context("the windows hold targets")
    };
    let (expected_loss, expected) = of(&Device::flex())?;
    let (actual_loss, actual) = of(&device)?;

    let names = parameters
        .shapes()
        .into_iter()
        .filter(|shape| shape.group == shared_model::spec::TensorGroup::Slow);
    let mut pairs: Vec<(String, f32)> = vec![
        (
            "item.id_rows".to_owned(),
            relative_difference(&expected.id_rows, &actual.id_rows),
        ),
        (
            "item.bias".to_owned(),
            relative_difference(&expected.bias, &actual.bias),
        ),
        (
            "prior.weights".to_owned(),
            relative_difference(&expected.prior, &actual.prior),
        ),
    ];
    for (shape, (expected, actual)) in names.zip(expected.slow.iter().zip(&actual.slow)) {
        match (expected, actual) {
            (Some(expected), Some(actual)) => {
                pairs.push((shape.name, relative_difference(expected, actual)))
            }
            (None, None) => {}
            _ => anyhow::bail!("only one device has a gradient of {}", shape.name),
        }
    }
    pairs.sort_by(|left, right| right.1.total_cmp(&left.1));
    println!("loss {expected_loss} on flex, {actual_loss} on wgpu; relative gradient differences:");
    for (name, difference) in &pairs {
        println!("{name:32} {difference:.2e}");
    }
    assert!((expected_loss - actual_loss).abs() <= GPU_SCORE_TOLERANCE);
    assert!(pairs.len() > 10, "the loss reaches the slow weights");
    for (name, difference) in pairs {
        assert!(difference <= GRADIENT_TOLERANCE, "{name}: {difference}");
    }
    Ok(())
}
