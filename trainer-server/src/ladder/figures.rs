//! What a rung is worth: bytes, milliseconds, embeddings beside those of the parent, and the ranking by text alone.

use std::time::Instant;

use burn::tensor::Device;
use serde::Serialize;
use shared_model::text::packed::{TensorKind, layout};
use shared_model::text::{BertConfig, TokenizedText};

use super::scene::{Answers, Scene, opened};
use super::{LadderError, Made, Recipe, Robustness};
use crate::baselines::text_fidelity::{Cosines, cosines};
use crate::evaluate::bootstrap::{Interval, intervals};
use crate::evaluate::figures::{SystemFigures, figures};
use crate::evaluate::outcomes::Outcomes;

/// Tokens of a text that is timed, as a short description has them.
const NUM_TIMED_TOKENS: usize = 32;
const NUM_TIMED_CALLS: usize = 40;
const SEED: u64 = 1;
/// Names of the two that are compared.
const PARENT: &str = "parent";
const CHILD: &str = "child";

/// One rung of the ladder, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rung {
    /// For people.
    pub name: String,
    /// How it was made.
    pub recipe: Recipe,
    /// Of the file that pages download; its weights are entropy coded, so it compresses no further.
    pub bytes: usize,
    /// Numbers in matrices.
    pub num_weights: usize,
    /// Words with an embedding.
    pub vocab_size: usize,
    /// Median time of this machine's own int8 kernels for a text of 32 tokens, on one core.
    pub native_ms: f64,
    /// Over events whose item is new to the user, by texts alone.
    pub ndcg_at_10: f64,
    /// 95 % of resampled users.
    pub ndcg_at_10_interval: Interval,
    /// NDCG@10 over the parent's.
    pub relative_ndcg: f64,
    /// 95 % of resampled users, the difference from the parent over the parent's NDCG@10, plus 1.
    pub relative_ndcg_interval: Interval,
    /// With the parent's embeddings.
    pub cosine: Cosines,
    /// What the gate says.
    pub robustness: Robustness,
}

impl Rung {
    /// Measures what a recipe made beside the answers of its parent.
    ///
    /// # Errors
    /// It cannot be opened, or too few users took something new.
    pub fn measured(
        scene: &Scene,
        parent: &Answers,
        recipe: &Recipe,
        made: &Made,
        device: &Device,
    ) -> Result<Self, LadderError> {
        let child = scene.of_packed(&made.packed, device)?;
        let compared = Compared::new(scene, parent, &child)?;
        let dim = made.parts.config.hidden_size;
        Ok(Self {
            name: recipe.name(),
            recipe: recipe.clone(),
            bytes: made.packed.len(),
            num_weights: num_weights(&made.parts.config),
            vocab_size: made.parts.config.vocab_size,
            native_ms: native_ms(scene, &made.packed)?,
            ndcg_at_10: compared.ndcg_at_10,
            ndcg_at_10_interval: compared.interval,
            relative_ndcg: compared.relative(),
            relative_ndcg_interval: compared.relative_interval(),
            cosine: cosines(&parent.rows, &child.rows, dim).expect("both embed the same titles"),
            robustness: Robustness::of(scene, parent, &child, &compared),
        })
    }
}

/// A child beside its parent over the queries of a scene, or some of them.
pub(super) struct Compared {
    pub(super) parent: SystemFigures,
    pub(super) child: SystemFigures,
    parent_ndcg: f64,
    ndcg_at_10: f64,
    interval: Interval,
    difference: Interval,
}

impl Compared {
    pub(super) fn new(
        scene: &Scene,
        parent: &Answers,
        child: &Answers,
    ) -> Result<Self, LadderError> {
        Self::over(scene, parent, child, |_| true)
    }

    /// Over the queries of these places alone.
    pub(super) fn over(
        scene: &Scene,
        parent: &Answers,
        child: &Answers,
        is_meant: impl Fn(usize) -> bool,
    ) -> Result<Self, LadderError> {
        let places: Vec<usize> = (0..scene.queries().len())
            .filter(|place| is_meant(*place))
            .collect();
        let queries: Vec<_> = places.iter().map(|place| scene.queries()[*place]).collect();
        let mut outcomes = Outcomes::new(scene.num_items, scene.past);
        outcomes.ask(&queries);
        for (name, answers) in [(PARENT, parent), (CHILD, child)] {
            let ranked: Vec<_> = places.iter().map(|place| answers.ranked[*place]).collect();
            outcomes.answer(name, &ranked);
        }
        let nothing = |reason: String| LadderError::NothingToCompare { reason };
        let found = intervals(&outcomes, &[PARENT, CHILD], SEED).map_err(nothing)?;
        let of = |name: &str| figures(&outcomes, name).expect("every query was answered");
        let (parent, child) = (of(PARENT), of(CHILD));
        let ndcg = |figures: &SystemFigures| figures.headline.ndcg_at_10.unwrap_or(0.0); // some were asked
        let difference = found[CHILD].minus_freshet.as_ref();
        let difference = difference.map_or([0.0; 2], |difference| difference.ndcg_at_10_interval);
        Ok(Self {
            parent_ndcg: ndcg(&parent),
            ndcg_at_10: ndcg(&child),
            interval: found[CHILD].ndcg_at_10_interval,
            difference,
            parent,
            child,
        })
    }

    pub(super) fn relative(&self) -> f64 {
        self.ndcg_at_10 / self.parent_ndcg.max(f64::MIN_POSITIVE)
    }

    pub(super) fn relative_interval(&self) -> Interval {
        let of_parent = self.parent_ndcg.max(f64::MIN_POSITIVE);
        self.difference.map(|end| 1.0 + end / of_parent)
    }

    /// NDCG@10 of both.
    pub(super) fn ndcgs(&self) -> [f64; 2] {
        [self.parent_ndcg, self.ndcg_at_10]
    }
}

fn num_weights(config: &BertConfig) -> usize {
    let tensors = layout(config).into_iter().map(|(_, kind)| match kind {
        TensorKind::Matrix { num_rows, num_cols } => num_rows * num_cols,
        TensorKind::Vector { .. } => 0,
    });
    tensors.sum()
}

/// Median of single calls; titles are put together until there are enough tokens.
fn native_ms(scene: &Scene, packed: &[u8]) -> Result<f64, LadderError> {
    let (tokenizer, network) = opened(packed)?;
    let together = scene
        .titles
        .iter()
        .map(String::as_str)
        .take(NUM_TIMED_TOKENS);
    let mut text = tokenizer.tokenize(&together.collect::<Vec<_>>().join(" "))?;
    text.token_ids.truncate(NUM_TIMED_TOKENS);
    let text: [TokenizedText; 1] = [text];
    let mut times = Vec::with_capacity(NUM_TIMED_CALLS);
    for _ in 0..NUM_TIMED_CALLS {
        let started = Instant::now();
        network.encode(&text)?;
        times.push(1000.0 * started.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[NUM_TIMED_CALLS / 2])
}
