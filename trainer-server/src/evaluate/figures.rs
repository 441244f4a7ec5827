//! Figures: means over the outcomes of one system. Definitions and sources stand in `docs/evaluation.md`.
//!
//! Input: `outcomes`. Every mean is over events with equal weight; nothing scored gives no figure, never zero.
//! Not here: how sure the figures are (`bootstrap`).

use std::collections::BTreeMap;

use serde::Serialize;
use shared_model::metrics::{hit_rate_at_k, mrr, ndcg_at_k, ranking_auc};

use super::outcomes::{Answers, Asked, Outcomes};
use crate::baselines::ranked::{Ranked, TOP_LEN};

/// Cut-offs of recall.
pub const RECALL_CUTS: [usize; 5] = [1, 5, 10, 20, 50];
/// Parts of the stream in [`SystemFigures::hr_at_10_by_tenth_of_the_stream`].
pub const NUM_PARTS: usize = 10;

/// Which events a figure is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Slice {
    /// Items that the user had before.
    Repeat,
    /// Items new to the user that the part learned before the stream has no event of.
    ColdItem,
    /// The other items new to the user.
    WarmItem,
    /// Items new to the user, of users who had done nothing before.
    ColdUser,
    /// Items new to the user, of all other users.
    KnownUser,
}

impl Slice {
    /// All of them; the headline, items new to the user, is none of them but holds the last four.
    pub const ALL: [Self; 5] = [
        Self::Repeat,
        Self::ColdItem,
        Self::WarmItem,
        Self::ColdUser,
        Self::KnownUser,
    ];

    /// Whether an event belongs to it.
    #[must_use]
    pub fn holds(self, asked: &Asked) -> bool {
        match self {
            Self::Repeat => !asked.is_new,
            Self::ColdItem => asked.is_new && asked.is_cold_item,
            Self::WarmItem => asked.is_new && !asked.is_cold_item,
            Self::ColdUser => asked.is_new && asked.is_cold_user,
            Self::KnownUser => asked.is_new && !asked.is_cold_user,
        }
    }

    /// For people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Repeat => "repeat",
            Self::ColdItem => "cold item",
            Self::WarmItem => "warm item",
            Self::ColdUser => "cold user",
            Self::KnownUser => "known user",
        }
    }
}

/// Means over the events of a slice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct SliceFigures {
    /// Share of events whose item was among the first ten.
    pub hr_at_10: Option<f64>,
    /// Mean discounted gain.
    pub ndcg_at_10: Option<f64>,
    /// Mean reciprocal rank.
    pub mrr: Option<f64>,
    /// Mean share of the other candidates behind the item.
    pub auc: Option<f64>,
    /// Mean `−ln` of the item's probability; absent where a system gives none.
    pub log_loss: Option<f64>,
    /// Events behind them.
    pub num_scored: u64,
}

/// Everything about one system but intervals.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SystemFigures {
    /// Over the items new to the user: the headline.
    #[serde(flatten)]
    pub headline: SliceFigures,
    /// Why there is no log loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_loss_why: Option<&'static str>,
    /// Share of events whose item was among the first `k`, by `k`.
    pub recall_at_k: BTreeMap<usize, Option<f64>>,
    /// Share of the catalogue that was ever in a top ten.
    pub coverage_at_10: Option<f64>,
    /// Inequality of the number of times that items were in a top ten.
    pub gini: Option<f64>,
    /// `popularity_of_recommended − popularity_of_taken`.
    pub popularity_bias: Option<f64>,
    /// Mean `log2(1 + events so far)` of the recommended items.
    pub popularity_of_recommended: Option<f64>,
    /// The same of the items that were taken.
    pub popularity_of_taken: Option<f64>,
    /// By slice.
    pub slices: BTreeMap<Slice, SliceFigures>,
    /// HR@10 of the headline by tenth of the stream: whether a system gains or loses ground.
    pub hr_at_10_by_tenth_of_the_stream: [Option<f64>; NUM_PARTS],
}

/// Sums behind [`SliceFigures`].
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    num: u64,
    hits: f64,
    gain: f64,
    reciprocal: f64,
    auc: f64,
    num_with_auc: u64,
    log_loss: f64,
}

impl Sums {
    fn add(&mut self, ranked: &Ranked) {
        let position = position_of(ranked);
        self.num += 1;
        self.hits += hit_rate_at_k(position, TOP_LEN);
        self.gain += ndcg_at_k(position, TOP_LEN);
        self.reciprocal += mrr(position);
        // A system that ranks nothing has no candidates of its own; it is worst whatever their number.
        let num_candidates = ranked.rank.map_or(2, |_| ranked.num_candidates as usize);
        if let Some(auc) = ranking_auc(position, num_candidates) {
            self.auc += auc;
            self.num_with_auc += 1;
        }
        self.log_loss += f64::from(ranked.log_loss);
    }

    fn figures(&self) -> SliceFigures {
        let log_loss = mean(self.log_loss, self.num);
        SliceFigures {
            hr_at_10: mean(self.hits, self.num),
            ndcg_at_10: mean(self.gain, self.num),
            mrr: mean(self.reciprocal, self.num),
            auc: mean(self.auc, self.num_with_auc),
            log_loss: log_loss.filter(|loss| !loss.is_nan()),
            num_scored: self.num,
        }
    }
}

/// Zero-based position of the taken item.
pub(super) fn position_of(ranked: &Ranked) -> Option<usize> {
    ranked.rank.map(|rank| rank as usize - 1) // ranks count from 1
}

fn mean(sum: f64, num: u64) -> Option<f64> {
    (num > 0).then(|| sum / num as f64) // counts fit f64
}

/// Figures of a system; `None` if it was not asked about every event.
#[must_use]
pub fn figures(outcomes: &Outcomes, name: &str) -> Option<SystemFigures> {
    let answers = outcomes.answers(name)?;
    let asked = outcomes.asked();
    let mut headline = Sums::default();
    let mut slices: BTreeMap<Slice, Sums> = Slice::ALL.map(|slice| (slice, Sums::default())).into();
    let mut parts = [Sums::default(); NUM_PARTS];
    let mut recall: BTreeMap<usize, f64> = RECALL_CUTS.map(|k| (k, 0.0)).into();
    for (idx, (asked_one, ranked)) in asked.iter().zip(&answers.ranked).enumerate() {
        for (slice, sums) in &mut slices {
            if slice.holds(asked_one) {
                sums.add(ranked);
            }
        }
        if asked_one.is_new {
            headline.add(ranked);
            parts[idx * NUM_PARTS / asked.len()].add(ranked);
            for (k, sum) in &mut recall {
                *sum += hit_rate_at_k(position_of(ranked), *k);
            }
        }
    }
    let num_listed = listed(outcomes, answers);
    let (recommended, taken) = popularity(outcomes, answers);
    let headline = headline.figures();
    let has_loss = headline.log_loss.is_some() || headline.num_scored == 0;
    Some(SystemFigures {
        log_loss_why: (!has_loss).then_some("its scores give an order, not probabilities"),
        recall_at_k: recall
            .into_iter()
            .map(|(k, sum)| (k, mean(sum, headline.num_scored)))
            .collect(),
        headline,
        coverage_at_10: coverage(&num_listed),
        gini: gini(&num_listed),
        popularity_bias: recommended
            .zip(taken)
            .map(|(recommended, taken)| recommended - taken),
        popularity_of_recommended: recommended,
        popularity_of_taken: taken,
        slices: slices
            .into_iter()
            .map(|(slice, sums)| (slice, sums.figures()))
            .collect(),
        hr_at_10_by_tenth_of_the_stream: parts.map(|sums| sums.figures().hr_at_10),
    })
}

/// How often each item was in a top ten of the headline.
fn listed(outcomes: &Outcomes, answers: &Answers) -> Vec<u64> {
    let mut num_listed = vec![0; outcomes.num_items()];
    for (_, ranked) in headline(outcomes, &answers.ranked) {
        for item_idx in ranked.top {
            if let Some(num) = num_listed.get_mut(item_idx as usize) {
                *num += 1; // anything beyond the catalogue is NO_ITEM
            }
        }
    }
    num_listed
}

/// Means over the headline, of what was recommended and of what was taken.
fn popularity(outcomes: &Outcomes, answers: &Answers) -> (Option<f64>, Option<f64>) {
    let (mut recommended, mut taken, mut num) = (0.0, 0.0, 0);
    for (asked, popularity) in headline(outcomes, &answers.popularity) {
        if popularity.is_nan() {
            continue; // nothing was recommended, so there is nothing to compare with what was taken
        }
        recommended += f64::from(*popularity);
        taken += f64::from(asked.popularity);
        num += 1;
    }
    (mean(recommended, num), mean(taken, num))
}

fn headline<'a, T>(
    outcomes: &'a Outcomes,
    answers: &'a [T],
) -> impl Iterator<Item = (&'a Asked, &'a T)> {
    let all = outcomes.asked().iter().zip(answers);
    all.filter(|(asked, _)| asked.is_new)
}

/// Share of items listed at least once; `None` where nothing was ever listed.
fn coverage(num_listed: &[u64]) -> Option<f64> {
    let num_covered = num_listed.iter().filter(|num| **num > 0).count();
    (num_covered > 0).then(|| num_covered as f64 / num_listed.len() as f64) // counts fit f64
}

/// Gini coefficient `2·Σ i·x_i / (n·Σ x_i) − (n + 1)/n`, `x` ascending, `i` from 1: 0 for all alike,
/// `1 − 1/n` for one item alone.
fn gini(num_listed: &[u64]) -> Option<f64> {
    let mut sorted = num_listed.to_vec();
    sorted.sort_unstable();
    let n = sorted.len() as f64; // counts fit f64
    let sum: f64 = sorted.iter().map(|x| *x as f64).sum();
    let weighted: f64 = sorted
        .iter()
        .enumerate()
        .map(|(idx, x)| (idx + 1) as f64 * *x as f64)
        .sum();
    (sum > 0.0).then(|| 2.0 * weighted / (n * sum) - (n + 1.0) / n)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::baselines::ranked::{NO_ITEM, Scores};
    use crate::baselines::timelines::Timelines;
    use crate::dataset::DatasetEvent;

    pub(in crate::evaluate) fn event(user_idx: u32, item_idx: u32) -> DatasetEvent {
        DatasetEvent {
            user_idx,
            item_idx,
            occurred_at: 0,
            value: None,
        }
    }

    /// Four items, item 0 warm; user 0 takes items 0, 1, 0 and user 1 takes 2. Scores prefer low indices.
    fn toy() -> Outcomes {
        let mut outcomes = Outcomes::new(4, &[event(9, 0)]);
        let mut timelines = Timelines::new(10);
        let queries: Vec<_> = [event(0, 0), event(0, 1), event(0, 0), event(1, 2)]
            .iter()
            .map(|event| timelines.push(event))
            .collect();
        outcomes.ask(&queries);
        let scores = [3.0, 2.0, 1.0, 0.0];
        let ranked: Vec<Ranked> = queries
            .iter()
            .map(|query| {
                let removed = timelines.removed(query).iter().copied();
                Ranked::of(&scores, Some(query.item_idx), removed, Scores::Logits)
            })
            .collect();
        outcomes.answer("freshet", &ranked);
        outcomes.answer("empty", &[Ranked::NOTHING; 4]);
        outcomes
    }

    fn assert_near(actual: Option<f64>, expected: f64) {
        let actual = actual.expect("a figure");
        assert!(
            (actual - expected).abs() < 1e-6,
            "{actual} is not {expected}"
        );
    }

    #[test]
    fn figures_are_those_computed_by_hand() {
        let figures = figures(&toy(), "freshet").expect("answered");
        // New: ranks 1 of 4, 1 of 3, 3 of 4. The repeat of item 0 is rank 1 of 4.
        assert_eq!(figures.headline.num_scored, 3);
        assert_near(figures.headline.hr_at_10, 1.0);
        assert_near(figures.headline.ndcg_at_10, (1.0 + 1.0 + 0.5) / 3.0);
        assert_near(figures.headline.mrr, (1.0 + 1.0 + 1.0 / 3.0) / 3.0);
        assert_near(figures.headline.auc, (1.0 + 1.0 + 1.0 / 3.0) / 3.0);
        assert_near(figures.recall_at_k[&1], 2.0 / 3.0);
        assert_near(figures.recall_at_k[&5], 1.0);
        let e = |x: f64| x.exp();
        let of_four = e(3.0) + e(2.0) + e(1.0) + 1.0;
        let losses = [
            (of_four / e(3.0)).ln(),
            ((e(2.0) + e(1.0) + 1.0) / e(2.0)).ln(),
            (of_four / e(1.0)).ln(),
        ];
        assert_near(figures.headline.log_loss, losses.iter().sum::<f64>() / 3.0);
        assert_near(figures.slices[&Slice::Repeat].mrr, 1.0);
        assert_eq!(figures.slices[&Slice::ColdItem].num_scored, 2);
        assert_eq!(figures.slices[&Slice::ColdUser].num_scored, 2);
        assert_near(figures.slices[&Slice::KnownUser].mrr, 1.0);
        assert_near(figures.slices[&Slice::WarmItem].mrr, 1.0);
        // Listed: items 0 to 3, 1 to 3, 0 to 3, so 2, 3, 3, 3 times.
        assert_near(figures.coverage_at_10, 1.0);
        let weighted = 2.0 + 2.0 * 3.0 + 3.0 * 3.0 + 4.0 * 3.0;
        assert_near(figures.gini, 2.0 * weighted / (4.0 * 11.0) - 5.0 / 4.0);
        // Events so far of items 0 to 3: (1,0,0,0), (2,0,0,0) without item 0, (3,1,0,0).
        assert_near(figures.popularity_of_recommended, (0.25 + 0.0 + 0.75) / 3.0);
        assert_near(figures.popularity_of_taken, 1.0 / 3.0);
        assert_near(figures.popularity_bias, 0.0);
    }

    #[test]
    fn a_system_that_ranks_nothing_is_worst_and_lists_nothing() {
        let figures = figures(&toy(), "empty").expect("answered");
        assert_near(figures.headline.hr_at_10, 0.0);
        assert_near(figures.headline.auc, 0.0);
        assert_eq!(figures.headline.log_loss, None);
        assert!(figures.log_loss_why.is_some());
        assert_eq!((figures.coverage_at_10, figures.gini), (None, None));
        assert_eq!(figures.popularity_bias, None);
        assert_eq!(Ranked::NOTHING.top, [NO_ITEM; TOP_LEN]);
    }

    #[test]
    fn gini_is_zero_for_all_alike_and_near_one_for_one_alone() {
        assert_near(gini(&[5, 5, 5, 5]), 0.0);
        assert_near(gini(&[0, 0, 0, 7]), 0.75);
        assert_eq!(gini(&[0, 0]), None);
        assert_eq!(gini(&[]), None);
    }
}
