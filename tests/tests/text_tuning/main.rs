//! Claims about the text encoder that learns from feedback: what it learns, when it is published, what a restart keeps.
//!
//! On a tiny encoder of made-up weights. Not here: the gradient of the encoder alone (`shared_model::text::low_rank`),
//! and files that are damaged (`checkpoint::text`).
//!
//! * `in_page`: Chromium.
//! * `over_http`: a server process and a page.
//! * `recipe`: the smaller encoder of pages follows.

mod in_page;
mod over_http;
mod recipe;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use harness::people::{TOPICS, World};
use harness::scene::{HOUR_MILLIS, START_MILLIS};
use harness::tiny_encoder::tiny_encoder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::codec::state::CodeState;
use shared_model::event::{EventKind, Item};
use shared_model::ids::ItemId;
use shared_model::model::parameters::ParameterSet;
use shared_model::text::{BertTextEncoder, LowRankChange};
use trainer_server::checkpoint::text as text_files;
use trainer_server::config::Config;
use trainer_server::config::load::{Sources, load};
use trainer_server::event_log::{LogRecord, StoredEvent};
use trainer_server::learner::{Learner, ReleaseTraining};
use trainer_server::preprocess::Preprocessor;
use trainer_server::text_source::CachedTextEncoder;
use trainer_server::train::count_history::CountHistory;
use trainer_server::train::init::init_parameters;
use trainer_server::train::text_step::{TextStepConfig, TextStepInputs, TextTuner};
use trainer_server::train::windows::{Example, Window};

/// Central differences of a loss in f32 with this step keep about three digits.
const DIFFERENCE_STEP: f32 = 1e-2;
const GRADIENT_TOLERANCE: f32 = 3e-3;

/// A Ranker that knows the texts of a catalogue and nothing else, and what a step needs beside it.
struct Shelf {
    encoder: BertTextEncoder,
    texts: Vec<String>,
    parameters: ParameterSet,
    history: CountHistory,
}

impl Shelf {
    fn new() -> anyhow::Result<Self> {
        let world = World::new(3);
        let encoder = tiny_encoder()?.as_bert().context("a network")?.clone();
        let texts: Vec<String> = world.items.iter().map(Item::full_text).collect();
        let spec = config(&[])?.model.spec(encoder.dim() as u32); // 32
        let mut parameters = init_parameters(&spec, texts.len(), 1);
        *parameters.tensor_mut("item.text") = encoder.embed(&texts)?;
        let half_lives = &spec.half_lives_secs;
        let history = CountHistory::of([].iter(), texts.len(), half_lives, START_MILLIS);
        Ok(Self {
            encoder,
            texts,
            parameters,
            history,
        })
    }

    fn with_inputs<T>(&self, run: impl FnOnce(TextStepInputs<'_>) -> T) -> T {
        run(TextStepInputs {
            encoder: &self.encoder,
            parameters: &self.parameters,
            history: &self.history,
            text_of: &|item_idx| self.texts[item_idx as usize].clone(),
        })
    }
}

/// Someone who has taken four items of one topic takes one of the topic five further next: the texts say otherwise.
fn contrary(num_users: usize, rng: &mut StdRng) -> Vec<Window> {
    let num_topics = TOPICS.len() as u32; // ten
    let mut windows = Vec::new();
    for _ in 0..num_users {
        let topic = rng.random_range(0..num_topics);
        let other = (topic + num_topics / 2) % num_topics;
        let topics = [topic, topic, topic, topic, other];
        let examples = topics.into_iter().zip(0..).map(|(topic, place)| Example {
            item_idx: topic * 20 + rng.random_range(0..20),
            kind: EventKind::Click,
            occurred_at: START_MILLIS + place * HOUR_MILLIS,
            target_weight: 1.0,
            share: 1.0,
            click: None,
            rating: None,
        });
        windows.push(Window {
            examples: examples.collect(),
            first_target: 4,
        });
    }
    windows
}

fn loss_of(shelf: &Shelf, tuner: &TextTuner, windows: &[Window]) -> anyhow::Result<f32> {
    let mut rng = StdRng::seed_from_u64(17);
    let gradient = shelf.with_inputs(|inputs| tuner.gradient(inputs, windows, 200, &mut rng));
    Ok(gradient?.context("there are targets")?.loss)
}

#[test]
fn gradients_through_the_ranker_equal_differences_of_its_loss() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    let mut rng = StdRng::seed_from_u64(2);
    let windows = contrary(6, &mut rng);
    let config = shelf.encoder.encoder().config().clone();
    let mut change = LowRankChange::new(&config, 2, || 0.0)?;
    let len = change.num_values();
    let flat: Vec<f32> = (0..len).map(|_| rng.random::<f32>() - 0.5).collect();
    change.set_flat(&flat);
    let gradient = |flat: &[f32]| {
        let mut change = change.clone();
        change.set_flat(flat);
        let tuner = TextTuner::from_change(change);
        // The same negatives every time.
        let mut rng = StdRng::seed_from_u64(9);
        let gradient = shelf.with_inputs(|inputs| tuner.gradient(inputs, &windows, 24, &mut rng));
        gradient?.context("there are targets")
    };
    let values = gradient(&flat)?.values;
    let largest = values.iter().fold(0.0_f32, |max, g| g.abs().max(max));
    assert!(largest > 10.0 * GRADIENT_TOLERANCE, "{largest} says little");
    for idx in (0..flat.len()).step_by(11) {
        let loss_at = |by: f32| {
            let mut moved = flat.clone();
            moved[idx] += by;
            gradient(&moved).map(|gradient| gradient.loss)
        };
        let difference =
            (loss_at(DIFFERENCE_STEP)? - loss_at(-DIFFERENCE_STEP)?) / (2.0 * DIFFERENCE_STEP);
        assert!(
            (difference - values[idx]).abs() < GRADIENT_TOLERANCE * (1.0 + difference.abs()),
            "value {idx}: {difference} and {}",
            values[idx]
        );
    }
    Ok(())
}

#[test]
fn feedback_that_contradicts_the_texts_is_learned_for_users_never_seen() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    let mut rng = StdRng::seed_from_u64(4);
    let held_out = contrary(40, &mut rng);
    let mut tuner = TextTuner::new(&shelf.encoder, 4, &mut rng)?;
    let before = loss_of(&shelf, &tuner, &held_out)?;
    let config = TextStepConfig {
        learning_rate: 0.02,
        num_negatives: 24,
        gradient_norm_max: 5.0,
    };
    for _ in 0..150 {
        let windows = contrary(8, &mut rng);
        shelf.with_inputs(|inputs| tuner.step(inputs, &windows, &config, &mut rng))?;
    }
    let after = loss_of(&shelf, &tuner, &held_out)?;
    println!("loss on held-out users: {before} before, {after} after");
    assert!(after < 0.9 * before, "{before} before, {after} after");
    Ok(())
}

/// Settings of a learner whose encoder learns in rounds of four steps.
fn config(settings: &[(&str, &str)]) -> anyhow::Result<Arc<Config>> {
    let mut flags = vec![
        ("model.embedding_dim", "16"),
        ("model.ff_dim", "32"),
        ("model.history_len", "8"),
        ("train.warm_epochs", "2"),
        ("train.warm_batch_size", "16"),
        ("release.steps", "3"),
        ("clock.mode", "event_time"),
        ("text_tuning.steps", "4"),
        ("text_tuning.learning_rate", "0.01"),
        ("text_tuning.move_min", "0.00001"),
    ];
    flags.extend(settings);
    let flags = flags.into_iter();
    Ok(Arc::new(load(&Sources {
        flags: flags
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        ..Sources::default()
    })?))
}

struct Shop {
    learner: Learner,
    preprocessor: Preprocessor,
    world: World,
}

impl Shop {
    /// A first version after a warm fit, and recent events that the gate can ask about.
    async fn open(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let config = config(settings)?;
        let mut world = World::new(51);
        let mut people = world.people(30);
        let encoder = CachedTextEncoder::new(tiny_encoder()?, None);
        let mut preprocessor = Preprocessor::new(&config);
        let mut learner = Learner::new(config, Device::flex(), encoder);
        let items = world.items.iter().cloned().map(LogRecord::ItemPut);
        learner.ingest(&mut preprocessor, &items.collect::<Vec<_>>())?;
        let mut events = |until| {
            let past = world.past(&mut people, 6, HOUR_MILLIS, until);
            past.into_iter().map(|event| {
                LogRecord::Event(StoredEvent {
                    event,
                    received_at: START_MILLIS,
                    is_vouched: false,
                    arm_phase: None,
                })
            })
        };
        let past: Vec<LogRecord> = events(START_MILLIS).collect();
        let stream: Vec<LogRecord> = events(START_MILLIS + 24 * HOUR_MILLIS).collect();
        learner.ingest(&mut preprocessor, &past)?;
        learner.warm_fit(&preprocessor, |_| true)?;
        let first = learner.candidate();
        let ready = learner.ready(&first);
        learner.went_live(Arc::new(first), ready);
        let batch = learner.ingest(&mut preprocessor, &stream)?;
        learner.learn(&preprocessor, &batch, None).await?;
        Ok(Self {
            learner,
            preprocessor,
            world,
        })
    }

    /// What people do on the day after, in batches that try a release before they are learned.
    async fn try_out(&mut self, release: &mut ReleaseTraining) -> anyhow::Result<()> {
        let mut people = self.world.people(20);
        let until = START_MILLIS + 48 * HOUR_MILLIS;
        let next = self.world.past(&mut people, 4, HOUR_MILLIS, until);
        let record = |event| {
            LogRecord::Event(StoredEvent {
                event,
                received_at: START_MILLIS,
                is_vouched: false,
                arm_phase: None,
            })
        };
        let records: Vec<LogRecord> = next.into_iter().map(record).collect();
        let batch = self.learner.ingest(&mut self.preprocessor, &records)?;
        let learning = self
            .learner
            .learn(&self.preprocessor, &batch, Some(release));
        learning.await?;
        Ok(())
    }

    /// A whole round, with the catalogue embedded again where that is due.
    fn round(&mut self) -> anyhow::Result<()> {
        self.learner.start_text_round(&self.preprocessor);
        while self.learner.text_slice(&self.preprocessor)? {}
        Ok(())
    }

    /// A release, live unless the gate refuses it; whether it is.
    async fn release(&mut self) -> anyhow::Result<bool> {
        let mut release = self.learner.start_release(&self.preprocessor);
        while !release.is_complete() {
            self.learner
                .release_step(&mut release, &self.preprocessor)?;
        }
        let Ok((state, ready)) = self.learner.finish_release(&mut release).await else {
            return Ok(false);
        };
        self.learner.went_live(Arc::new(state), ready);
        self.learner.release_went_live(&release);
        Ok(true)
    }

    fn state(&self) -> anyhow::Result<Arc<CodeState>> {
        let live = self.learner.live().context("a version is live")?;
        Ok(Arc::clone(&live.state))
    }

    fn texts(&self) -> Vec<f32> {
        self.learner.parameters().tensor("item.text").to_vec()
    }
}

#[tokio::test]
async fn a_trial_that_goes_against_a_release_takes_back_what_the_encoder_learned()
-> anyhow::Result<()> {
    // One leap of all slow weights: whatever the texts say, it is worse.
    let astray = [
        ("release.strategy", "full"),
        ("release.steps", "1"),
        ("release.learning_rate", "10"),
        ("release.trial_events", "20"),
        ("gate.agreement_min", "0.0"),
    ];
    let mut shop = Shop::open(&astray).await?;
    let (generation, rows_before) = (shop.learner.encoder_generation(), shop.texts());
    let untaught = shop.learner.text_checkpoint();
    shop.round()?;
    ensure!(shop.learner.text_checkpoint() != untaught, "it learned");
    let mut release = shop.learner.start_release(&shop.preprocessor);
    while !release.is_complete() {
        shop.learner
            .release_step(&mut release, &shop.preprocessor)?;
    }
    ensure!(release.carries_texts());
    shop.try_out(&mut release).await?;
    ensure!(release.is_tried());
    let (state, ready) = shop.learner.finish_release(&mut release).await?;
    assert_eq!(release.share_kept(), 1.0);
    assert_eq!(state.encoder_generation, generation);
    shop.learner.went_live(Arc::new(state), ready);
    shop.learner.release_went_live(&release);
    assert_eq!(shop.texts()[..rows_before.len()], rows_before);
    assert_eq!(shop.learner.encoder_generation(), generation);
    assert_eq!(shop.learner.text_checkpoint(), untaught);
    shop.round()?;
    assert!(
        shop.learner
            .text_tuning()
            .is_some_and(|report| report.embedded == Some(1.0))
    );
    Ok(())
}

fn text_codes(state: &CodeState) -> Vec<i16> {
    let tensor = state.tensor("item.text").expect("in the spec");
    tensor.codes.clone()
}

#[tokio::test]
async fn a_release_carries_the_rows_of_a_round_that_moved_enough() -> anyhow::Result<()> {
    let mut shop = Shop::open(&[]).await?;
    let (before, rows_before) = (shop.state()?, shop.texts());
    shop.round()?;
    let report = shop.learner.text_tuning().context("it learns")?.clone();
    assert_eq!((report.num_steps, report.num_refused), (4, 0));
    assert_eq!(report.embedded, Some(1.0));
    assert_eq!(shop.texts(), rows_before, "beside the live rows");

    assert!(shop.release().await?, "the gate lets it pass");
    let after = shop.state()?;
    assert_ne!(after.encoder_generation, before.encoder_generation);
    assert_eq!(after.encoder_generation, shop.learner.encoder_generation());
    assert_ne!(text_codes(&after), text_codes(&before));
    assert_ne!(shop.texts(), rows_before);
    Ok(())
}

#[tokio::test]
async fn below_the_threshold_nothing_is_published_and_the_next_round_goes_on() -> anyhow::Result<()>
{
    let mut shop = Shop::open(&[("text_tuning.move_min", "2.0")]).await?;
    let (before, rows_before) = (shop.state()?, shop.texts());
    let learned = |shop: &Shop| shop.learner.text_checkpoint().map(|saved| saved.tuner);
    shop.round()?;
    let first = learned(&shop);
    shop.release().await?;
    shop.round()?;
    assert_ne!(learned(&shop), first, "it learned on");
    let report = shop.learner.text_tuning().context("it learns")?;
    assert!(report.moved.is_some_and(|moved| moved > 0.0), "{report:?}");
    assert_eq!(report.embedded, None);
    let after = shop.state()?;
    assert_eq!(after.encoder_generation, before.encoder_generation);
    assert_eq!(text_codes(&after), text_codes(&before));
    assert_eq!(shop.texts(), rows_before);
    Ok(())
}

#[tokio::test]
async fn a_refused_release_leaves_encoder_rows_and_what_was_learned_as_they_were()
-> anyhow::Result<()> {
    // No model agrees with another in all of its top 10 after rounding.
    let refusing = [
        ("gate.log_loss_rise_max", "0.0"),
        ("gate.agreement_min", "1.0"),
    ];
    let mut shop = Shop::open(&refusing).await?;
    let (before, rows_before) = (shop.state()?, shop.texts());
    let untaught = shop.learner.text_checkpoint();
    shop.round()?;
    ensure!(shop.learner.text_checkpoint() != untaught, "it learned");
    assert!(!shop.release().await?, "the gate refuses it");
    assert_eq!(shop.state()?.hash(), before.hash());
    assert_eq!(shop.texts(), rows_before);
    assert_eq!(shop.learner.encoder_generation(), before.encoder_generation);
    assert_eq!(shop.learner.text_checkpoint(), untaught);
    Ok(())
}

#[tokio::test]
async fn items_that_come_while_rows_are_embedded_have_the_live_generation_and_then_the_new_one()
-> anyhow::Result<()> {
    let mut shop = Shop::open(&[]).await?;
    shop.learner.start_text_round(&shop.preprocessor);
    // Four steps, the measurement, and a part of the catalogue.
    for _ in 0..6 {
        ensure!(shop.learner.text_slice(&shop.preprocessor)?, "under way");
    }
    let item = |name: &str, title: &str| {
        let template = shop.world.items[0].clone();
        LogRecord::ItemPut(Item {
            item_id: ItemId::new(name).expect("short and printable"),
            title: title.to_owned(),
            ..template
        })
    };
    let early = item("early", "violin number 40");
    let renamed = {
        let known = shop.world.items[2].item_id.clone();
        item(known.as_str(), "easel number 41")
    };
    let late = item("late", "tent number 42");
    let live = shop.learner.encoder_generation();
    shop.learner
        .ingest(&mut shop.preprocessor, &[early, renamed])?;
    let state = shop.learner.candidate();
    assert_eq!(state.encoder_generation, live);
    while shop.learner.text_slice(&shop.preprocessor)? {}
    let mut release = shop.learner.start_release(&shop.preprocessor);
    shop.learner.ingest(&mut shop.preprocessor, &[late])?;
    while !release.is_complete() {
        shop.learner
            .release_step(&mut release, &shop.preprocessor)?;
    }
    let (state, ready) = shop.learner.finish_release(&mut release).await?;
    let texts = shop.learner.carried_texts(&release).context("it carries")?;
    shop.learner.went_live(Arc::new(state), ready);
    shop.learner.release_went_live(&release);

    let changed = CachedTextEncoder::new(tiny_encoder()?, None);
    let changed = changed.changed_by(texts.tuner.change().clone())?;
    let items = shop.preprocessor.items();
    assert_eq!(items.len(), shop.world.items.len() + 2);
    let all: Vec<String> = items.iter().map(|item| item.text.clone()).collect();
    assert_eq!(shop.texts(), changed.embed(&all)?);
    Ok(())
}

#[tokio::test]
async fn what_was_published_and_what_learns_come_back_from_disk_to_the_bit() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut shop = Shop::open(&[]).await?;
    shop.round()?;
    let mut release = shop.learner.start_release(&shop.preprocessor);
    while !release.is_complete() {
        shop.learner
            .release_step(&mut release, &shop.preprocessor)?;
    }
    let (state, ready) = shop.learner.finish_release(&mut release).await?;
    let carried = shop.learner.carried_texts(&release).context("it carries")?;
    text_files::save_published(dir.path(), &carried)?;
    shop.learner.went_live(Arc::new(state), ready);
    shop.learner.release_went_live(&release);
    shop.learner.start_text_round(&shop.preprocessor);
    for _ in 0..2 {
        shop.learner.text_slice(&shop.preprocessor)?;
    }
    let learns = shop.learner.text_checkpoint().context("it learns")?;
    text_files::save_tuner(dir.path(), &learns)?;

    let (rows, generation) = restarted(dir.path(), &shop)?;
    assert_eq!(rows, shop.texts());
    assert_eq!(generation, shop.state()?.encoder_generation);
    let sizes = shop.learner.learning_encoder().context("a network")?;
    let read = text_files::load_tuner(dir.path(), sizes)?.context("saved")?;
    assert_eq!(read, learns);
    assert!(
        shop.learner.resume_texts(read.clone()),
        "of this generation"
    );
    let other = text_files::TextCheckpoint {
        generation: generation ^ 1,
        ..read
    };
    assert!(!shop.learner.resume_texts(other));
    Ok(())
}

/// Rows and generation of an encoder that is loaded anew.
fn restarted(dir: &Path, shop: &Shop) -> anyhow::Result<(Vec<f32>, u32)> {
    let encoder = CachedTextEncoder::new(tiny_encoder()?, None);
    let sizes = encoder.as_bert().context("a network")?.encoder().config();
    let generation = shop.state()?.encoder_generation;
    let saved = text_files::load_published(dir, generation, sizes)?.context("saved")?;
    let encoder = encoder.changed_by(saved.tuner.change().clone())?;
    let items = shop.preprocessor.items().iter();
    let texts: Vec<String> = items.map(|item| item.text.clone()).collect();
    Ok((encoder.embed(&texts)?, encoder.generation()))
}

#[tokio::test]
async fn a_start_without_the_published_change_says_which_file_is_missing() -> anyhow::Result<()> {
    let mut shop = Shop::open(&[]).await?;
    shop.round()?;
    ensure!(shop.release().await?, "the gate lets it pass");
    let mut restarted = Shop::open(&[]).await?.learner;
    let error = restarted
        .restore(shop.state()?, None)
        .expect_err("as loaded");
    let name = format!(
        "text-encoder-{:08x}.safetensors",
        shop.state()?.encoder_generation
    );
    assert!(error.to_string().contains(&name), "{error}");
    Ok(())
}

#[tokio::test]
async fn the_same_seed_learns_the_same_change() -> anyhow::Result<()> {
    let learned = async |seed| {
        let mut shop = Shop::open(&[("train.seed", seed)]).await?;
        shop.round()?;
        let saved = shop.learner.text_checkpoint().context("it learns")?;
        anyhow::Ok(saved.tuner.change().fingerprint())
    };
    let first = learned("7").await?;
    assert_eq!(learned("7").await?, first);
    assert_ne!(learned("8").await?, first);
    Ok(())
}

#[test]
fn an_encoder_without_weights_cannot_learn_and_the_message_names_key_and_value() {
    let error = config(&[("model.text_encoder", "small")]).expect_err("nothing to learn");
    let message = error.to_string();
    assert!(
        message.contains("`text_tuning.steps` is 4") && message.contains("model.text_encoder"),
        "{message}"
    );
}
