//! One run from a dataset to its tables: scene, network, walk, comparison.
//!
//! Here are the defaults of the recipe: learning rates by strategy, passes, chunk, replay share.
//! Clock and device come from the command line.

use std::time::Instant;

use burn::tensor::Device;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use shared_model::text::cross_encoder::TrainedPart;

use super::compare::{Comparison, ItemVectors, compare};
use super::scene::{Moment, Scene, SceneOptions};
use super::walk::{WalkOptions, walk};
use super::{CrossEncoderError, CrossScorer, TuneOptions, ranker_base};
use crate::config::TextEncoderChoice;
use crate::dataset::Dataset;
use crate::text_source::{self, TextSource, TextSourceError};

/// Inner size of the adapters, and their weight (`alpha / rank` = 2, as is usual).
const LORA: TrainedPart = TrainedPart::Lora {
    rank: 8,
    alpha: 16.0,
};
/// Moments scored together, then learned.
const CHUNK_LEN: usize = 64;
/// Earlier pairs learned again per pair of a chunk.
const REPLAY_SHARE: f64 = 0.25;
/// Highest learning rate of the heads, unless the rest has a higher one.
const HEAD_RATE: f64 = 1e-3;
/// Learning rate of the stream beside that of the warm fit.
const STREAM_SHARE: f64 = 0.5;

/// Which weights learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Heads and adapters.
    Lora,
    /// All but the word embeddings.
    Full,
    /// Heads, biases and shifts.
    Bitfit,
    /// Heads.
    Head,
}

/// What ranks the lists that are reranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Item-kNN, kept up to date.
    ItemKnn,
    /// The Ranker as a warm fit leaves it.
    Ranker,
}

/// Rates and passes; what is absent follows from the strategy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tempo {
    /// Passes of the warm fit.
    pub num_passes: Option<usize>,
    /// Highest rate of the warm fit.
    pub warm_rate: Option<f64>,
    /// Rate of the stream.
    pub stream_rate: Option<f64>,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Where the network comes from.
    pub source: TextSource,
    /// Which weights learn.
    pub strategy: Strategy,
    /// What ranks the lists.
    pub base: Base,
    /// How moments are drawn.
    pub scene: SceneOptions,
    /// Most tokens of a pair.
    pub tokens_max: usize,
    /// Rates and passes.
    pub tempo: Tempo,
    /// Of first weights, dropout and order.
    pub seed: u64,
    /// When the warm fit ends at the latest.
    pub warm_deadline: Instant,
    /// When the stream ends at the latest.
    pub deadline: Instant,
}

/// What came of it.
#[derive(Debug)]
pub struct Found {
    /// The network at the end.
    pub tuned: CrossScorer,
    comparison: Comparison,
    facts: Facts,
}

/// What the tables are about.
#[derive(Debug)]
struct Facts {
    dataset: String,
    network: &'static str,
    strategy: Strategy,
    base: Base,
    options: WalkOptions,
    num_warm: usize,
    num_stream: usize,
    num_eligible: [usize; 2],
    num_left_out: usize,
    num_steps: [usize; 2],
    warm_losses: Vec<f32>,
    secs: [f64; 3],
    mean_tokens: f64,
}

impl Strategy {
    /// As it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Full => "full",
            Self::Bitfit => "bitfit",
            Self::Head => "head",
        }
    }

    fn part(self) -> TrainedPart {
        match self {
            Self::Lora => LORA,
            Self::Full => TrainedPart::Full,
            Self::Bitfit => TrainedPart::Bitfit,
            Self::Head => TrainedPart::Head,
        }
    }

    /// Of the classic recipe for all weights; the fewer learn, the further each has to go.
    fn warm_rate(self) -> f64 {
        match self {
            Self::Full => 2e-5,
            Self::Lora => 1e-3,
            Self::Bitfit => 5e-4,
            Self::Head => 1e-3,
        }
    }
}

impl Base {
    fn name(self) -> &'static str {
        match self {
            Self::ItemKnn => "item_knn",
            Self::Ranker => "ranker (frozen)",
        }
    }
}

impl Experiment {
    /// Runs it on `device`.
    ///
    /// # Errors
    /// The encoder cannot be read, nothing can be learned, or learning gave up.
    pub fn run(
        &self,
        dataset: &Dataset,
        device: &Device,
        progress: &ProgressBar,
    ) -> Result<Found, CrossEncoderError> {
        progress.set_message("reading");
        progress.set_length(dataset.events.len() as u64); // usize fits u64
        let mut scene = Scene::of(dataset, self.scene, || progress.inc(1));
        progress.set_position(0);
        if scene.warm.is_empty() || scene.stream.is_empty() {
            return Err(CrossEncoderError::NothingToLearn {
                num_warm: scene.warm.len(),
                num_stream: scene.stream.len(),
            });
        }
        if self.base == Base::Ranker {
            progress.set_message("ranker");
            ranker_base::rank(dataset, &mut scene, self.scene.list_len, progress)?;
            progress.set_position(0);
        }
        let (mut scorer, network) = self.scorer(device)?;
        let (center, scale) = rating_scale(&scene.warm);
        scorer.set_rating_scale(center, scale)?;
        let is_small = network == "small";
        let options = self.walk_options(is_small);
        let walked = walk(&scorer, &scene, &options, progress)?;

        progress.set_message("comparing");
        let encoder = text_source::load(&self.source, device, progress)?;
        let vectors = ItemVectors::of(&scene, &encoder)?;
        let comparison = compare(&scene, &walked.said, &vectors, self.seed);
        Ok(Found {
            facts: Facts {
                dataset: dataset.name.clone(),
                network,
                strategy: self.strategy,
                base: self.base,
                options,
                num_warm: scene.warm.len(),
                num_stream: walked.said.len(),
                num_eligible: scene.num_eligible,
                num_left_out: scene.stream.len() - walked.said.len(),
                num_steps: walked.num_steps,
                warm_losses: walked.warm_losses,
                secs: walked.secs,
                mean_tokens: mean_tokens(&scorer, &scene)?,
            },
            tuned: walked.tuned,
            comparison,
        })
    }

    /// The network before it learned anything of this dataset.
    fn scorer(&self, device: &Device) -> Result<(CrossScorer, &'static str), CrossEncoderError> {
        let small = || CrossScorer::small(self.tokens_max, self.seed, device);
        if self.source.choice == TextEncoderChoice::Small {
            return Ok((small()?, "small"));
        }
        match text_source::read_pretrained(&self.source)? {
            Some(files) => {
                let scorer = CrossScorer::pretrained(files, self.tokens_max, self.seed, device)?;
                Ok((scorer, "pretrained"))
            }
            None if self.source.choice == TextEncoderChoice::Pretrained => {
                let looked_in = self.source.folder();
                Err(TextSourceError::Missing { looked_in }.into())
            }
            None => Ok((small()?, "small")),
        }
    }

    fn walk_options(&self, is_small: bool) -> WalkOptions {
        // A network that knows nothing has to learn everything at first.
        let (warm_part, warm_rate, num_passes) = if is_small {
            (TrainedPart::FullWithWords, 1e-3, 8)
        } else {
            (self.strategy.part(), self.strategy.warm_rate(), 1)
        };
        let stream_part = if is_small && self.strategy == Strategy::Full {
            TrainedPart::FullWithWords
        } else {
            self.strategy.part()
        };
        let warm_rate = self.tempo.warm_rate.unwrap_or(warm_rate);
        let tune = |part| TuneOptions {
            head_factor: (HEAD_RATE / warm_rate).max(1.0),
            ..TuneOptions::classic(part)
        };
        WalkOptions {
            warm: tune(warm_part),
            num_passes: self.tempo.num_passes.unwrap_or(num_passes),
            warm_rate,
            stream: tune(stream_part),
            stream_rate: self.tempo.stream_rate.unwrap_or(warm_rate * STREAM_SHARE),
            chunk_len: CHUNK_LEN,
            replay_share: REPLAY_SHARE,
            seed: self.seed,
            warm_deadline: self.warm_deadline,
            deadline: self.deadline,
        }
    }
}

/// Mean and deviation of the grades of the warm fit; a scale of its own where there are none.
fn rating_scale(moments: &[Moment]) -> (f32, f32) {
    let grades: Vec<f64> = moments
        .iter()
        .filter_map(|moment| Some(moment.grade?.actual))
        .collect();
    if grades.is_empty() {
        return (0.0, 1.0);
    }
    let num = grades.len() as f64; // counts far below 2^53
    let mean = grades.iter().sum::<f64>() / num;
    let variance = grades
        .iter()
        .map(|grade| (grade - mean).powi(2))
        .sum::<f64>()
        / num;
    (mean as f32, variance.sqrt().max(0.1) as f32) // grades are small numbers
}

fn mean_tokens(scorer: &CrossScorer, scene: &Scene) -> Result<f64, CrossEncoderError> {
    let mut sum = 0;
    for moment in &scene.stream {
        let item_text = &scene.item_texts[moment.query.item_idx as usize];
        sum += scorer
            .tokenize(&moment.user_text, item_text)?
            .token_ids
            .len();
    }
    Ok(sum as f64 / scene.stream.len().max(1) as f64) // counts far below 2^53
}

impl Found {
    /// The tables, with a line on what they are about.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let facts = &self.facts;
        let [warm_steps, stream_steps] = facts.num_steps;
        let [warm_secs, scoring_secs, learning_secs] = facts.secs;
        let mut text = format!(
            "\n{} · {} · {} · {:.0} tokens per pair\n\
             warm fit: {} of {} events, {warm_steps} steps, {warm_secs:.0} s, mean loss {:?}\n\
             stream: {} of {} events, {stream_steps} steps; scoring {scoring_secs:.0} s, learning {learning_secs:.0} s\n",
            facts.dataset,
            facts.network,
            facts.strategy.name(),
            facts.mean_tokens,
            facts.num_warm,
            facts.num_eligible[0],
            facts.warm_losses,
            facts.num_stream,
            facts.num_eligible[1],
        );
        if facts.num_left_out > 0 {
            let line = format!("time was up: {} events left out\n", facts.num_left_out);
            text.push_str(&line);
        }
        let table = &self.comparison.clicks;
        text.push_str(&format!(
            "\nclicks: {} pairs of {} users\n\n{}",
            table.num_events,
            table.num_users,
            table.to_markdown()
        ));
        if let Some(table) = &self.comparison.ratings {
            text.push_str(&format!(
                "\nratings: {} of {} users\n\n{}",
                table.num_events,
                table.num_users,
                table.to_markdown()
            ));
        }
        if let Some(lists) = &self.comparison.lists {
            text.push_str(&format!(
                "\nlists of {}: {} of {} users, {:.3} hold the item taken, weight {} chosen on {} lists before\n\n{}",
                facts.base.name(),
                lists.table.num_events,
                lists.table.num_users,
                lists.share_with_taken,
                lists.weight,
                lists.num_chosen_on,
                lists.table.to_markdown()
            ));
        }
        text
    }

    /// The same as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let facts = &self.facts;
        let lists = self.comparison.lists.as_ref().map(|lists| {
            json!({
                "base": facts.base.name(), "weight": lists.weight, "chosen_on": lists.num_chosen_on,
                "share_with_taken": lists.share_with_taken, "figures": lists.table.to_json(),
            })
        });
        json!({
            "dataset": facts.dataset, "network": facts.network, "strategy": facts.strategy.name(),
            "seed": facts.options.seed,
            "warm": {
                "events": facts.num_warm, "eligible": facts.num_eligible[0], "steps": facts.num_steps[0],
                "passes": facts.options.num_passes, "learning_rate": facts.options.warm_rate,
                "losses": facts.warm_losses, "secs": facts.secs[0],
            },
            "stream": {
                "events": facts.num_stream, "eligible": facts.num_eligible[1], "left_out": facts.num_left_out,
                "steps": facts.num_steps[1], "learning_rate": facts.options.stream_rate,
                "chunk": facts.options.chunk_len, "replay_share": facts.options.replay_share,
                "scoring_secs": facts.secs[1], "learning_secs": facts.secs[2],
            },
            "tokens_per_pair": facts.mean_tokens,
            "clicks": self.comparison.clicks.to_json(),
            "ratings": self.comparison.ratings.as_ref().map(super::figures::Table::to_json),
            "lists": lists,
        })
    }
}
