//! The robustness gate: a smaller encoder beside its parent where an average hides a loss.
//!
//! Slices of the stream, texts as people and cheats write them, how sure it is, and what its lists favour. What falls
//! further than the limits blocks it, with the reason. A slice's loss must also be outside of chance: 95 % of resampled
//! users lose.

use serde::Serialize;

use super::Noise;
use super::figures::Compared;
use super::scene::{Answers, Scene, dot};
use crate::baselines::timelines::Query;

/// A user is rare who had taken at most so many items.
const RARE_KNOWN_MAX: usize = 3;
/// A history is long from so many events on.
const LONG_KNOWN_MIN: usize = 30;
/// Nearest titles by which likeness is calibrated.
const NUM_NEAREST: usize = 10;

/// How far a child may fall behind its parent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// Of the NDCG@10 of a slice, relative.
    pub slice_loss_max: f64,
    /// Of the share of spoiled texts that find their item.
    pub found_loss_max: f64,
    /// Between the mean cosines of near titles.
    pub calibration_max: f64,
    /// Of the Gini coefficient of exposure.
    pub gini_rise_max: f64,
    /// Of the popularity of what is recommended, in doublings.
    pub popularity_rise_max: f64,
    /// Of the share of the catalogue that is ever recommended.
    pub coverage_loss_max: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slice_loss_max: 0.05,
            found_loss_max: 0.05,
            calibration_max: 0.03,
            gini_rise_max: 0.03,
            popularity_rise_max: 0.1,
            coverage_loss_max: 0.05,
        }
    }
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What is compared.
    pub name: String,
    /// The parent's figure.
    pub parent: f64,
    /// The child's.
    pub child: f64,
    /// By which it is worse; below 0 where it is better.
    pub loss: f64,
    /// What is allowed.
    pub loss_max: f64,
    /// Whether it blocks.
    pub blocks: bool,
}

/// All comparisons.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Robustness {
    /// In the order in which they are told.
    pub checks: Vec<Check>,
}

impl Robustness {
    /// Compares a child with its parent, by the default limits.
    pub(super) fn of(scene: &Scene, parent: &Answers, child: &Answers, all: &Compared) -> Self {
        let limits = Limits::default();
        let mut checks = slices(scene, parent, child, limits.slice_loss_max);
        for noise in Noise::ALL {
            let found = |answers: &Answers| scene.found(&parent.rows, &answers.spoiled[&noise]);
            let name = format!("{} find their item", noise.title());
            checks.push(check(
                name,
                found(parent),
                found(child),
                Worse::Lower,
                limits.found_loss_max,
            ));
        }
        checks.push(calibration(scene, parent, child, limits.calibration_max));
        checks.extend(bias(all, &limits));
        Self { checks }
    }

    /// Why it is blocked, one sentence per reason; empty where it is not.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let blocking = self.checks.iter().filter(|check| check.blocks);
        let told = blocking.map(|check| {
            let Check {
                name,
                parent,
                child,
                loss,
                loss_max,
                ..
            } = check;
            format!(
                "{name}: {child:.4} after {parent:.4}, worse by {loss:.3}, allowed is {loss_max}"
            )
        });
        told.collect()
    }

    /// Whether nothing blocks it.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.checks.iter().all(|check| !check.blocks)
    }
}

/// What is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worse {
    Lower,
    Higher,
    Apart,
}

fn check(name: impl Into<String>, parent: f64, child: f64, worse: Worse, loss_max: f64) -> Check {
    let loss = match worse {
        Worse::Lower => parent - child,
        Worse::Higher => child - parent,
        Worse::Apart => (child - parent).abs(),
    };
    Check {
        name: name.into(),
        parent,
        child,
        loss,
        loss_max,
        blocks: loss > loss_max,
    }
}

/// NDCG@10 by slice; slices without two users are left out.
fn slices(scene: &Scene, parent: &Answers, child: &Answers, loss_max: f64) -> Vec<Check> {
    let mut counts = vec![0_u32; scene.num_items];
    for event in scene.past {
        counts[event.item_idx as usize] += 1;
    }
    let is_cold = |query: &Query| counts[query.item_idx as usize] == 0;
    let of: [(&str, &dyn Fn(&Query) -> bool); 4] = [
        ("NDCG@10 of cold items", &is_cold),
        ("NDCG@10 of warm items", &|query| !is_cold(query)),
        ("NDCG@10 of rare users", &|query| {
            query.num_known <= RARE_KNOWN_MAX
        }),
        ("NDCG@10 of long histories", &|query| {
            query.num_known >= LONG_KNOWN_MIN
        }),
    ];
    let checks = of.iter().filter_map(|(name, holds)| {
        let compared = Compared::over(scene, parent, child, |place| holds(&scene.queries()[place]));
        let compared = compared.ok()?; // too few users to say anything
        let [before, after] = compared.ndcgs();
        let [_, high] = compared.relative_interval();
        let loss = 1.0 - compared.relative();
        Some(Check {
            name: (*name).to_owned(),
            parent: before,
            child: after,
            loss,
            loss_max,
            blocks: loss > loss_max && high < 1.0,
        })
    });
    checks.collect()
}

/// Mean cosine of titles with those nearest to them by the parent, rows of the parent against rows of each: whoever
/// compares with a threshold, or mixes likeness with scores, relies on it.
fn calibration(scene: &Scene, parent: &Answers, child: &Answers, loss_max: f64) -> Check {
    let dim = parent.rows.len() / scene.num_items;
    let row = |rows: &[f32], item: usize| rows[item * dim..][..dim].to_vec();
    let (mut before, mut after) = (0.0, 0.0);
    for item in &scene.spoiled_items {
        let own = row(&parent.rows, *item);
        let childs = row(&child.rows, *item);
        let mut near: Vec<(f32, usize)> = (0..scene.num_items)
            .filter(|other| other != item)
            .map(|other| (dot(&own, &parent.rows[other * dim..][..dim]), other))
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (cosine, other) in near.into_iter().take(NUM_NEAREST) {
            before += f64::from(cosine);
            after += f64::from(dot(&childs, &parent.rows[other * dim..][..dim]));
        }
    }
    let num = (scene.spoiled_items.len() * NUM_NEAREST) as f64; // counts fit f64
    check(
        "mean cosine of near titles",
        before / num,
        after / num,
        Worse::Apart,
        loss_max,
    )
}

/// What lists favour.
fn bias(all: &Compared, limits: &Limits) -> Vec<Check> {
    let (parent, child) = (&all.parent, &all.child);
    let figures = [
        (
            "Gini of exposure",
            parent.gini,
            child.gini,
            Worse::Higher,
            limits.gini_rise_max,
        ),
        (
            "popularity of what is recommended",
            parent.popularity_of_recommended,
            child.popularity_of_recommended,
            Worse::Higher,
            limits.popularity_rise_max,
        ),
        (
            "coverage of the catalogue",
            parent.coverage_at_10,
            child.coverage_at_10,
            Worse::Lower,
            limits.coverage_loss_max,
        ),
    ];
    let told = figures
        .into_iter()
        .filter_map(|(name, before, after, worse, loss_max)| {
            Some(check(name, before?, after?, worse, loss_max)) // nothing was recommended
        });
    told.collect()
}
