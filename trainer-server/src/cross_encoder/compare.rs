//! What the CrossEncoder said beside what the baselines would have: the tables of a run.
//!
//! ```text
//! clicks    tuned · frozen · popularity_7d · text_cosine
//! ratings   tuned · frozen · user_item_bias · item_mean · global_mean
//! lists     fused · base · cross                              the second half of the lists
//! ```
//! Counts and cosines become probabilities by Platt scaling on the moments of the warm fit.
//! Input: `scene` and `walk`.

use std::collections::BTreeSet;

use shared_model::metrics::labels::{Graded, Labelled};
use shared_model::text::{AnyTextEncoder, TextError};

use super::figures::{Table, clicks, lists, ratings};
use super::platt::Platt;
use super::rerank::{ScoredList, choose_weight};
use super::scene::{Candidate, Moment, Scene};
use super::walk::Said;

/// The tables of a run.
#[derive(Debug)]
pub struct Comparison {
    /// Clicks.
    pub clicks: Table,
    /// Ratings, where the dataset has them.
    pub ratings: Option<Table>,
    /// Lists, where there are any.
    pub lists: Option<ListComparison>,
}

/// Lists reranked.
#[derive(Debug)]
pub struct ListComparison {
    /// The weight chosen on the first half.
    pub weight: f32,
    /// Lists it was chosen on.
    pub num_chosen_on: usize,
    /// Share of the lists that hold the item taken, of those reported on.
    pub share_with_taken: f64,
    /// NDCG@10 over the second half.
    pub table: Table,
}

/// Embeddings of the items that a scene names, by item.
pub struct ItemVectors {
    dim: usize,
    rows: Vec<Option<usize>>,
    values: Vec<f32>,
}

impl ItemVectors {
    /// Embeds every item that a moment names.
    ///
    /// # Errors
    /// As [`AnyTextEncoder::embed`].
    pub fn of(scene: &Scene, encoder: &AnyTextEncoder) -> Result<Self, TextError> {
        let moments = scene.warm.iter().chain(&scene.stream);
        let named: BTreeSet<u32> = moments
            .flat_map(|moment| {
                let candidates = moment.candidates.iter();
                let candidates = candidates.map(|candidate| candidate.item_idx);
                candidates.chain(moment.history.iter().copied())
            })
            .collect();
        let mut rows = vec![None; scene.item_texts.len()];
        for (row, item_idx) in named.iter().enumerate() {
            rows[*item_idx as usize] = Some(row);
        }
        let text = |item_idx: &u32| scene.item_texts[*item_idx as usize].clone();
        let texts: Vec<String> = named.iter().map(text).collect();
        Ok(Self {
            dim: encoder.dim(),
            rows,
            values: encoder.embed(&texts)?,
        })
    }

    fn vector(&self, item_idx: u32) -> &[f32] {
        let row = self.rows[item_idx as usize];
        let row = row.expect("every item that a moment names was embedded");
        &self.values[row * self.dim..(row + 1) * self.dim]
    }

    /// Cosine of an item with the mean of a history; 0 where either has no words.
    fn cosine(&self, history: &[u32], item_idx: u32) -> f64 {
        let mut mean = vec![0.0_f32; self.dim];
        for seen in history {
            for (sum, value) in mean.iter_mut().zip(self.vector(*seen)) {
                *sum += value;
            }
        }
        let dot = |left: &[f32], right: &[f32]| -> f64 {
            let products = left.iter().zip(right);
            products.map(|(left, right)| f64::from(left * right)).sum()
        };
        let item = self.vector(item_idx);
        let norms = (dot(&mean, &mean) * dot(item, item)).sqrt();
        if norms > 0.0 {
            dot(&mean, item) / norms
        } else {
            0.0
        }
    }
}

/// The tables of a run; `said` is parallel to the first moments of the stream.
#[must_use]
pub fn compare(scene: &Scene, said: &[Said], vectors: &ItemVectors, seed: u64) -> Comparison {
    let moments = &scene.stream[..said.len().min(scene.stream.len())];
    Comparison {
        clicks: compare_clicks(scene, moments, said, vectors, seed),
        ratings: compare_ratings(moments, said, seed),
        lists: compare_lists(moments, said, seed),
    }
}

fn compare_clicks(
    scene: &Scene,
    moments: &[Moment],
    said: &[Said],
    vectors: &ItemVectors,
    seed: u64,
) -> Table {
    let count = |_: &Moment, candidate: &Candidate| f64::from(candidate.count_7d).ln_1p();
    let cosine = |moment: &Moment, candidate: &Candidate| {
        vectors.cosine(&moment.history, candidate.item_idx)
    };
    let users: Vec<u32> = moments
        .iter()
        .flat_map(|moment| vec![moment.query.user_idx; moment.candidates.len()])
        .collect();
    let by_network = |of: fn(&Said) -> &Vec<shared_model::text::cross_encoder::PairScore>| {
        let scores = said.iter().flat_map(|said| of(said).iter().enumerate());
        scores
            .map(|(place, score)| Labelled {
                probability: f64::from(score.click_probability),
                label: place == 0,
            })
            .collect::<Vec<_>>()
    };
    let systems = [
        ("tuned", by_network(|said| &said.tuned)),
        ("frozen", by_network(|said| &said.frozen)),
        ("popularity_7d", scaled(scene, moments, count)),
        ("text_cosine", scaled(scene, moments, cosine)),
    ];
    clicks(&users, &systems, seed)
}

/// A score as a probability, by its scale on the moments of the warm fit.
fn scaled(
    scene: &Scene,
    moments: &[Moment],
    score: impl Fn(&Moment, &Candidate) -> f64,
) -> Vec<Labelled> {
    let scores_of = |moments: &[Moment]| -> Vec<(f64, bool)> {
        let scored = moments.iter().flat_map(|moment| {
            let candidates = moment.candidates.iter().enumerate();
            candidates
                .map(|(place, candidate)| (score(moment, candidate), place == 0))
                .collect::<Vec<_>>()
        });
        scored.collect()
    };
    let platt = Platt::fit(&scores_of(&scene.warm));
    scores_of(moments)
        .into_iter()
        .map(|(score, label)| Labelled {
            probability: platt.probability(score),
            label,
        })
        .collect()
}

fn compare_ratings(moments: &[Moment], said: &[Said], seed: u64) -> Option<Table> {
    let graded: Vec<_> = moments
        .iter()
        .zip(said)
        .filter_map(|(moment, said)| Some((moment, moment.grade?, said)))
        .collect();
    if graded.is_empty() {
        return None;
    }
    let users: Vec<u32> = graded
        .iter()
        .map(|(moment, ..)| moment.query.user_idx)
        .collect();
    let by = |predict: &dyn Fn(&super::scene::Grade, &Said) -> f64| -> Vec<Graded> {
        let predicted = graded.iter().map(|(_, grade, said)| Graded {
            predicted: predict(grade, said),
            actual: grade.actual,
        });
        predicted.collect()
    };
    let systems = [
        ("tuned", by(&|_, said| f64::from(said.tuned[0].rating))),
        ("frozen", by(&|_, said| f64::from(said.frozen[0].rating))),
        (
            "user_item_bias",
            by(&|grade, _| grade.baselines.user_item_bias),
        ),
        ("item_mean", by(&|grade, _| grade.baselines.item_mean)),
        ("global_mean", by(&|grade, _| grade.baselines.global_mean)),
    ];
    Some(ratings(&users, &systems, seed))
}

fn compare_lists(moments: &[Moment], said: &[Said], seed: u64) -> Option<ListComparison> {
    let mut users = Vec::new();
    let mut scored = Vec::new();
    for (moment, said) in moments
        .iter()
        .zip(said)
        .filter(|(moment, _)| moment.has_list)
    {
        users.push(moment.query.user_idx);
        scored.push(ScoredList {
            base: moment.list.iter().map(|(_, score)| *score).collect(),
            cross: said.list.clone(),
            taken: moment
                .list
                .iter()
                .position(|(item_idx, _)| *item_idx == moment.query.item_idx),
        });
    }
    let (chosen_on, reported) = scored.split_at(scored.len() / 2);
    if reported.is_empty() {
        return None;
    }
    let weight = choose_weight(chosen_on);
    let by = |weight: f32| {
        reported
            .iter()
            .map(|list| list.ndcg(weight))
            .collect::<Vec<f64>>()
    };
    let systems = [("fused", by(weight)), ("base", by(0.0)), ("cross", by(1.0))];
    let num_with_taken = reported.iter().filter(|list| list.taken.is_some()).count();
    Some(ListComparison {
        weight,
        num_chosen_on: chosen_on.len(),
        share_with_taken: num_with_taken as f64 / reported.len() as f64, // counts far below 2^53
        table: lists(&users[chosen_on.len()..], &systems, seed),
    })
}
