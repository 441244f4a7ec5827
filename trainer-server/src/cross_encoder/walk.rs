//! The incremental loop: a warm fit on what came first, then every chunk of the stream scored before it is learned.
//!
//! ```text
//! warm moments ─► fit ─► frozen copy (before)
//! chunk ─► scored by frozen and by tuned ─► a few steps on it and on a share of earlier pairs ─► next chunk
//! ```
//! Frozen and tuned see exactly the same events. Not here: figures of what they said (`figures`).

use std::time::Instant;

use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::text::cross_encoder::PairScore;
use shared_model::text::pairs::TokenizedPair;

use super::scene::{Moment, Scene};
use super::{CrossEncoderError, CrossScorer, LabelledPair, Schedule, TuneOptions, Tuner};

/// How to walk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WalkOptions {
    /// Of the warm fit.
    pub warm: TuneOptions,
    /// Passes of the warm fit.
    pub num_passes: usize,
    /// Highest learning rate of the warm fit.
    pub warm_rate: f64,
    /// Of the stream.
    pub stream: TuneOptions,
    /// Learning rate of the stream, constant.
    pub stream_rate: f64,
    /// Moments that are scored together, then learned.
    pub chunk_len: usize,
    /// Earlier pairs learned again with a chunk, per pair of it.
    pub replay_share: f64,
    /// Of dropout and order.
    pub seed: u64,
    /// The warm fit ends by then, done or not.
    pub warm_deadline: Instant,
    /// Chunks not begun by then are left out.
    pub deadline: Instant,
}

/// What was said of one moment of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// By the network as the warm fit left it, parallel to the candidates.
    pub frozen: Vec<PairScore>,
    /// By the network as it was at that moment.
    pub tuned: Vec<PairScore>,
    /// Logits of the list by the latter.
    pub list: Vec<f32>,
}

/// What the walk found.
#[derive(Debug)]
pub struct Walked {
    /// Parallel to the first moments of the stream; shorter where time was up.
    pub said: Vec<Said>,
    /// The network at the end.
    pub tuned: CrossScorer,
    /// Steps of the warm fit, and of the stream.
    pub num_steps: [usize; 2],
    /// Mean losses of the warm fit's passes.
    pub warm_losses: Vec<f32>,
    /// Seconds of the warm fit, of scoring, and of learning in the stream.
    pub secs: [f64; 3],
}

/// Walks with a network over a scene. `scorer` must know the scale of ratings already.
///
/// # Errors
/// A loss, a gradient or a score is not finite, or the device failed.
pub fn walk(
    scorer: &CrossScorer,
    scene: &Scene,
    options: &WalkOptions,
    progress: &ProgressBar,
) -> Result<Walked, CrossEncoderError> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    scorer.device().clone().autodiff().seed(options.seed);
    let started_at = Instant::now();
    let mut known = labelled(scorer, &scene.warm, &scene.item_texts)?;
    let mut tuner = new_tuner(scorer, options.warm);
    let warm_losses = warm_fit(&mut tuner, &known, options, &mut rng, progress)?;
    let num_warm_steps = tuner.num_steps();
    let frozen = scorer.with_model(tuner.merged());
    let warm_secs = started_at.elapsed().as_secs_f64();

    let mut tuner = new_tuner(&frozen, options.stream);
    let mut walked = Walked {
        said: Vec::with_capacity(scene.stream.len()),
        tuned: frozen.clone(),
        num_steps: [num_warm_steps, 0],
        warm_losses,
        secs: [warm_secs, 0.0, 0.0],
    };
    progress.set_message("stream");
    progress.set_length(scene.stream.len() as u64); // usize fits u64
    progress.set_position(0);
    let schedule = Schedule::constant(options.stream_rate);
    for chunk in scene.stream.chunks(options.chunk_len.max(1)) {
        if Instant::now() >= options.deadline {
            break;
        }
        let scoring_at = Instant::now();
        let said = say(&frozen, &walked.tuned, chunk, &scene.item_texts)?;
        walked.said.extend(said);
        let learning_at = Instant::now();
        walked.secs[1] += (learning_at - scoring_at).as_secs_f64();
        let fresh = labelled(scorer, chunk, &scene.item_texts)?;
        let mut lesson = fresh.clone();
        let num_again = (fresh.len() as f64 * options.replay_share).round() as usize; // a chunk is small
        for _ in 0..num_again.min(known.len()) {
            lesson.push(known[rng.random_range(0..known.len())].clone());
        }
        tuner.pass(&lesson, &schedule, 0, &mut rng, |_| true)?;
        known.extend(fresh);
        walked.tuned = frozen.with_model(tuner.merged());
        walked.secs[2] += learning_at.elapsed().as_secs_f64();
        progress.inc(chunk.len() as u64); // usize fits u64
    }
    walked.num_steps[1] = tuner.num_steps();
    Ok(walked)
}

fn new_tuner(scorer: &CrossScorer, options: TuneOptions) -> Tuner {
    let (model, config) = (scorer.model().clone(), scorer.config().clone());
    Tuner::new(model, config, options, scorer.device())
}

fn warm_fit(
    tuner: &mut Tuner,
    pairs: &[LabelledPair],
    options: &WalkOptions,
    rng: &mut StdRng,
    progress: &ProgressBar,
) -> Result<Vec<f32>, CrossEncoderError> {
    let num_batches = pairs.len().div_ceil(options.warm.batch_size.max(1));
    let num_steps = num_batches * options.num_passes;
    let schedule = Schedule::warm(options.warm_rate, num_steps);
    progress.set_message("warm fit");
    progress.set_length(num_steps as u64); // usize fits u64
    let mut losses = Vec::with_capacity(options.num_passes);
    for pass in 0..options.num_passes {
        let loss = tuner.pass(pairs, &schedule, pass * num_batches, rng, |_| {
            progress.inc(1);
            Instant::now() < options.warm_deadline
        })?;
        losses.extend(loss);
        if Instant::now() >= options.warm_deadline {
            break;
        }
    }
    Ok(losses)
}

/// Every candidate of the moments with what came of it.
fn labelled(
    scorer: &CrossScorer,
    moments: &[Moment],
    item_texts: &[String],
) -> Result<Vec<LabelledPair>, CrossEncoderError> {
    let mut pairs = Vec::new();
    for moment in moments {
        for (place, candidate) in moment.candidates.iter().enumerate() {
            let item_text = &item_texts[candidate.item_idx as usize];
            let grade = moment.grade.filter(|_| place == 0);
            pairs.push(LabelledPair {
                tokens: scorer.tokenize(&moment.user_text, item_text)?,
                click: Some(place == 0),
                rating: grade.map(|grade| grade.actual as f32), // grades are small numbers
            });
        }
    }
    Ok(pairs)
}

/// Scores a chunk by both networks, and its lists by the tuned one.
fn say(
    frozen: &CrossScorer,
    tuned: &CrossScorer,
    chunk: &[Moment],
    item_texts: &[String],
) -> Result<Vec<Said>, CrossEncoderError> {
    let mut candidates = Vec::new();
    let mut lists = Vec::new();
    for moment in chunk {
        let pair = |item_idx: u32| {
            let item_text = &item_texts[item_idx as usize];
            frozen.tokenize(&moment.user_text, item_text)
        };
        for candidate in &moment.candidates {
            candidates.push(pair(candidate.item_idx)?);
        }
        for (item_idx, _) in &moment.list {
            lists.push(pair(*item_idx)?);
        }
    }
    let by_frozen = frozen.score(&candidates)?;
    // Together, so that batches of one length are longer.
    let num_candidates = candidates.len();
    let together: Vec<TokenizedPair> = candidates.into_iter().chain(lists).collect();
    let by_tuned = tuned.score(&together)?;
    let (by_tuned, of_lists) = by_tuned.split_at(num_candidates);

    let (mut next, mut next_listed) = (0, 0);
    let mut said = Vec::with_capacity(chunk.len());
    for moment in chunk {
        let end = next + moment.candidates.len();
        let end_listed = next_listed + moment.list.len();
        let listed = &of_lists[next_listed..end_listed];
        said.push(Said {
            frozen: by_frozen[next..end].to_vec(),
            tuned: by_tuned[next..end].to_vec(),
            list: listed.iter().map(|score| score.click_logit).collect(),
        });
        (next, next_listed) = (end, end_listed);
    }
    Ok(said)
}
