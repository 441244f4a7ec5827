//! Claims about tuning, saving and teaching with the small network on made-up texts.

use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::metrics::labels::{Labelled, ascending, classification};
use shared_model::text::cross_encoder::TrainedPart;

use super::teacher::CrossTeacher;
use super::*;
use crate::config::load::{Sources, load};
use crate::train::teacher::TextTeacher;

const TOKENS_MAX: usize = 24;
const COLOURS: [&str; 4] = ["red", "green", "blue", "white"];
const THINGS: [&str; 6] = ["mug", "bag", "clock", "lamp", "towel", "plate"];

fn small() -> CrossScorer {
    CrossScorer::small(TOKENS_MAX, 3, &Device::flex()).expect("in bounds")
}

/// Users have one colour, and take things of that colour; red things are graded 9 and others 5.
fn toy(scorer: &CrossScorer, num_pairs: usize, seed: u64) -> Vec<LabelledPair> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut pairs = Vec::new();
    for pair_idx in 0..num_pairs {
        let own = rng.random_range(0..COLOURS.len());
        let is_taken = pair_idx % 2 == 0;
        let other = (own + rng.random_range(1..COLOURS.len())) % COLOURS.len();
        let colour = COLOURS[if is_taken { own } else { other }];
        let mut thing = || THINGS[rng.random_range(0..THINGS.len())];
        let user = format!("{0} {1}, {0} {2}", COLOURS[own], thing(), thing());
        let item = format!("{colour} {}", thing());
        pairs.push(LabelledPair {
            tokens: scorer.tokenize(&user, &item).expect("hashes"),
            click: Some(is_taken),
            rating: Some(if colour == "red" { 9.0 } else { 5.0 }),
        });
    }
    pairs
}

fn auc(scorer: &CrossScorer, pairs: &[LabelledPair]) -> f64 {
    let tokens: Vec<_> = pairs.iter().map(|pair| pair.tokens.clone()).collect();
    let scores = scorer.score(&tokens).expect("finite");
    let events: Vec<Labelled> = scores
        .iter()
        .zip(pairs)
        .map(|(score, pair)| Labelled {
            probability: f64::from(score.click_probability),
            label: pair.click.expect("labelled"),
        })
        .collect();
    let weights = vec![1.0; events.len()];
    let figures = classification(&events, &ascending(&events), &weights);
    figures.auc.expect("both labels")
}

fn tuner(scorer: &CrossScorer, part: TrainedPart) -> Tuner {
    let options = TuneOptions::classic(part);
    Tuner::new(
        scorer.model().clone(),
        scorer.config().clone(),
        options,
        scorer.device(),
    )
}

/// Passes over `pairs` with the whole schedule of a warm fit.
fn fit(tuner: &mut Tuner, pairs: &[LabelledPair], num_passes: usize, peak: f64) {
    let num_batches = pairs.len().div_ceil(16);
    let schedule = Schedule::warm(peak, num_passes * num_batches);
    let mut rng = StdRng::seed_from_u64(5);
    for pass in 0..num_passes {
        tuner
            .pass(pairs, &schedule, pass * num_batches, &mut rng, |_| true)
            .expect("finite");
    }
}

#[test]
fn learns_clicks_and_ratings_that_the_text_decides() {
    let mut scorer = small();
    scorer.set_rating_scale(6.0, 2.0).expect("in bounds");
    let (learned, held_out) = (toy(&scorer, 1600, 1), toy(&scorer, 400, 2));
    let before = auc(&scorer, &held_out);
    let mut tuner = tuner(&scorer, TrainedPart::FullWithWords);
    fit(&mut tuner, &learned, 7, 3e-3);
    let tuned = scorer.with_model(tuner.merged());
    let after = auc(&tuned, &held_out);
    assert!(before < 0.75, "nothing is known at first: {before}");
    assert!(
        after > 0.85,
        "dropout draws differ from run to run, the lesson does not: {after}"
    );
    let scores = tuned
        .score_items("red mug, red bag", &["red lamp", "blue lamp"])
        .expect("finite");
    assert!(scores[0].rating > scores[1].rating + 2.0, "{scores:?}");
}

#[test]
fn a_saved_network_loads_again_and_scores_bit_by_bit() {
    let mut scorer = small();
    scorer.set_rating_scale(6.5, 1.5).expect("in bounds");
    let part = TrainedPart::Lora {
        rank: 2,
        alpha: 4.0,
    };
    let mut tuner = tuner(&scorer, part);
    fit(&mut tuner, &toy(&scorer, 64, 1), 1, 1e-2);
    let tuned = scorer.with_model(tuner.merged());
    let dir = tempfile::tempdir().expect("tempdir");
    tuned.save(dir.path()).expect("writes");
    let loaded = CrossScorer::load(dir.path(), &Device::flex()).expect("reads");
    let score = |scorer: &CrossScorer| {
        scorer
            .score_items("red mug", &["red bag", "", "white clock"])
            .expect("finite")
    };
    assert_eq!(score(&loaded), score(&tuned));
    assert_eq!(loaded.config(), tuned.config());

    std::fs::write(dir.path().join("config.json"), b"{}").expect("writes");
    assert!(CrossScorer::load(dir.path(), &Device::flex()).is_err());
    std::fs::remove_file(dir.path().join("config.json")).expect("removes");
    let missing = CrossScorer::load(dir.path(), &Device::flex());
    assert!(matches!(missing, Err(CrossEncoderError::Files(_))));
}

#[test]
fn empty_texts_score_and_soft_scores_sum_to_one_in_the_order_of_the_logits() {
    let scorer = small();
    let candidates = ["red mug", "", "blue lamp"];
    let soft = scorer.soft_scores("", &candidates, 2.0).expect("finite");
    assert!((soft.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    let scores = scorer.score_items("", &candidates).expect("finite");
    let odds = (soft[0] / soft[2]).ln();
    let expected = (scores[0].click_logit - scores[2].click_logit) / 2.0;
    assert!((odds - expected).abs() < 1e-4, "{odds} is not {expected}");
    assert_eq!(
        scorer.soft_scores("", &[], 1.0).expect("nothing"),
        Vec::<f32>::new()
    );
    assert!(matches!(
        scorer.soft_scores("", &candidates, 0.0),
        Err(CrossEncoderError::Option {
            field: "temperature",
            ..
        })
    ));
}

#[test]
fn batches_without_labels_or_with_labels_that_are_not_finite_leave_the_weights_alone() {
    let scorer = small();
    let mut pairs = toy(&scorer, 2, 1);
    let mut tuner = tuner(&scorer, TrainedPart::Head);
    pairs[0].rating = Some(f32::NAN);
    let refused = tuner.step(&[&pairs[0]], 0.1);
    assert!(matches!(
        refused,
        Err(CrossEncoderError::LossNotFinite { step: 0, .. })
    ));
    pairs[0].rating = None;
    pairs[0].click = None;
    let refused = tuner.step(&[&pairs[0]], 0.1);
    assert!(matches!(
        refused,
        Err(CrossEncoderError::NoLabels { num_pairs: 1 })
    ));
    let weights = |model: &shared_model::text::CrossEncoder| model.to_named().expect("on the CPU");
    assert_eq!(weights(&tuner.merged()), weights(scorer.model()));
    let mut rng = StdRng::seed_from_u64(1);
    let schedule = Schedule::constant(0.1);
    let nothing = tuner.pass(&[], &schedule, 0, &mut rng, |_| true);
    assert_eq!(nothing.expect("nothing to do"), None);
}

#[test]
fn equal_labels_teach_the_share_and_frozen_weights_stay() {
    let scorer = small();
    let mut pairs = toy(&scorer, 64, 1);
    for pair in &mut pairs {
        pair.click = Some(true);
        pair.rating = None;
    }
    let mut tuner = tuner(&scorer, TrainedPart::Head);
    fit(&mut tuner, &pairs, 20, 0.02);
    let tuned = scorer.with_model(tuner.merged());
    let score = tuned
        .score_items("red mug", &["blue lamp"])
        .expect("finite");
    assert!(score[0].click_probability > 0.9, "{score:?}");
    let encoder = |scorer: &CrossScorer| {
        let mut tensors = scorer.model().to_named().expect("on the CPU");
        tensors.retain(|tensor| tensor.name.starts_with("bert."));
        tensors
    };
    assert_eq!(encoder(&tuned), encoder(&scorer));
}

#[test]
fn heads_move_by_their_own_rate_and_a_pass_ends_when_it_is_told_to() {
    let scorer = small();
    let options = TuneOptions {
        head_factor: 10.0,
        weight_decay: 0.0,
        ..TuneOptions::classic(TrainedPart::Full)
    };
    let (model, config) = (scorer.model().clone(), scorer.config().clone());
    let mut tuner = Tuner::new(model, config, options, scorer.device());
    let (mut rng, schedule) = (StdRng::seed_from_u64(1), Schedule::constant(1e-4));
    let pairs = toy(&scorer, 64, 1);
    tuner
        .pass(&pairs, &schedule, 0, &mut rng, |_| false)
        .expect("finite");
    assert_eq!(tuner.num_steps(), 1);
    let before = scorer.model().to_named().expect("on the CPU");
    let after = tuner.merged().to_named().expect("on the CPU");
    let moved = |is_asked: &dyn Fn(&str) -> bool| {
        let both = before.iter().zip(&after);
        both.filter(|(before, _)| is_asked(&before.name))
            .flat_map(|(before, after)| before.values.iter().zip(&after.values))
            .map(|(before, after)| (before - after).abs())
            .fold(0.0, f32::max)
    };
    // The first step of Adam is as long as the rate.
    let (heads, rest) = (
        moved(&|name| name.starts_with("click.")),
        moved(&|name| name.starts_with("bert.encoder")),
    );
    assert!((heads - 1e-3).abs() < 1e-4, "{heads}");
    assert!((rest - 1e-4).abs() < 1e-5, "{rest}");
    assert_eq!(moved(&|name| name.contains("word_embeddings")), 0.0);
}

#[test]
fn the_step_of_a_steep_batch_is_bounded() {
    let scorer = small();
    let pairs = toy(&scorer, 8, 1);
    let steep: Vec<LabelledPair> = pairs
        .iter()
        .map(|pair| LabelledPair {
            rating: Some(1e6),
            ..pair.clone()
        })
        .collect();
    let mut tuner = tuner(&scorer, TrainedPart::Head);
    let batch: Vec<&LabelledPair> = steep.iter().collect();
    let report = tuner.step(&batch, 1e-3).expect("finite");
    assert!(report.gradient_norm > 1e3);
    let moved = tuner.merged().to_named().expect("on the CPU");
    let before = scorer.model().to_named().expect("on the CPU");
    let largest = moved
        .iter()
        .zip(&before)
        .flat_map(|(moved, before)| moved.values.iter().zip(&before.values))
        .map(|(moved, before)| (moved - before).abs())
        .fold(0.0, f32::max);
    assert!(largest > 0.0 && largest < 2e-3, "{largest}");
}

#[test]
fn a_teacher_reads_the_newest_of_a_history_and_gives_probabilities() {
    let texts = ["red mug", "blue lamp", "red bag", "green mug", "red lamp"];
    let scorer = small();
    let teacher = CrossTeacher::new(scorer.clone(), texts.map(str::to_owned).to_vec());
    let shares = teacher.shares(&[1, 0, 2, 3], &[4, 1]).expect("finite");
    assert!(
        (shares.iter().sum::<f32>() - 1.0).abs() < 1e-5,
        "{shares:?}"
    );
    let newest_three = "green mug; red bag; red mug";
    let expected = scorer.soft_scores(newest_three, &["red lamp", "blue lamp"], 1.0);
    assert_eq!(shares, expected.expect("finite"));
}

#[test]
fn the_teacher_of_a_configuration_is_the_saved_network_or_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = |dir: &Path| {
        let flags = [
            ("release.teacher_dir", dir.display().to_string()),
            ("release.distillation", "0.5".to_owned()),
        ];
        load(&Sources {
            flags: flags.map(|(key, value)| (key.to_owned(), value)).to_vec(),
            ..Sources::default()
        })
        .expect("valid")
    };
    let saved = small();
    saved.save(dir.path()).expect("writable");
    let found = teacher::from_config(&config(dir.path()), &Device::flex());
    let found = found.expect("readable").expect("there is one");
    let pair = ("red mug", ["red lamp"]);
    assert_eq!(
        found.score_items(pair.0, &pair.1).expect("finite"),
        saved.score_items(pair.0, &pair.1).expect("finite")
    );
    let missing = dir.path().join("nowhere");
    let error = teacher::from_config(&config(&missing), &Device::flex()).expect_err("no files");
    assert!(error.to_string().contains("nowhere"), "{error}");
}
