//! The baseline `refit_daily`: a full fit of the log so far every few days of event time, ranked with until the next.
//!
//! It walks the stream that the incremental server has walked, afterwards and offline, with the learner's own
//! warm fit from nothing. CPU seconds of all fits are counted, so that quality can be held against cost.

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::cpu;
use super::offline::Offline;
use crate::baselines::ranked::Ranked;
use crate::baselines::timelines::{Query, Timelines};
use crate::dataset::Dataset;
use crate::replay::ReplayError;
use crate::replay::scoring::{RankModel, score_chunk};
use crate::replay::walk::FrozenVersion;

const DAY_MILLIS: i64 = 86_400_000;

/// When to refit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefitOptions {
    /// Days of event time between two refits; at least one.
    pub every_days: u32,
    /// Events ranked together.
    pub chunk_len: usize,
}

/// Answers and what they cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RefitOutcome {
    /// Parallel to the queries.
    pub ranked: Vec<Ranked>,
    /// Refits done.
    pub num_refits: usize,
    /// CPU seconds of all of them.
    pub cpu_secs: Option<f64>,
    /// Why these are not known.
    pub cpu_why: Option<String>,
    /// Seconds by the clock.
    pub secs: f64,
}

/// Ranks `queries`, which are the events of `dataset` from `split` on, by `first` until the first refit is due.
///
/// # Errors
/// A fit or scoring failed.
pub async fn run(
    dataset: &Dataset,
    split: usize,
    first: &FrozenVersion,
    (queries, timelines): (&[Query], &Timelines),
    offline: &Offline,
    options: RefitOptions,
) -> Result<RefitOutcome, ReplayError> {
    let mut outcome = RefitOutcome {
        cpu_secs: Some(0.0),
        ..RefitOutcome::default()
    };
    let mut version = first.clone();
    let stretches = stretches(queries, options.every_days);
    let progress = crate::replay::bar(stretches.len(), "refits");
    for (stretch_idx, stretch) in stretches.iter().enumerate() {
        if stretch_idx > 0 {
            let started_at = std::time::Instant::now();
            let before = cpu::own_secs();
            let learned = &dataset.events[..split + stretch.start];
            version = offline.fit(dataset, learned, &ProgressBar::hidden())?;
            outcome.num_refits += 1;
            outcome.secs += started_at.elapsed().as_secs_f64();
            outcome.add_cpu(before, cpu::own_secs());
            let (done, secs) = (outcome.num_refits, outcome.secs);
            eprintln!(
                "[{secs:7.1} s of refits] refit {done} of {}",
                stretches.len() - 1
            );
        }
        let model = RankModel {
            ready: &version.ready,
            state: &version.state,
            rows: &version.rows,
            kind: dataset.kind,
        };
        for chunk in queries[stretch.clone()].chunks(options.chunk_len) {
            let ranked = score_chunk(model, chunk, timelines).await?;
            outcome.ranked.extend(ranked);
        }
        progress.inc(1);
    }
    progress.finish();
    Ok(outcome)
}

impl RefitOutcome {
    fn add_cpu(&mut self, before: Result<f64, String>, after: Result<f64, String>) {
        let spent = before.and_then(|before| Ok(after? - before));
        match spent {
            Ok(spent) => self.cpu_secs = self.cpu_secs.map(|sum| sum + spent),
            Err(why) => {
                self.cpu_secs = None;
                self.cpu_why = Some(why);
            }
        }
    }

    /// As it stands in the report.
    #[must_use]
    pub fn cost(&self, every_days: u32) -> Value {
        json!({
            "every_days": every_days,
            "num_refits": self.num_refits,
            "cpu_secs": self.cpu_secs,
            "why": self.cpu_why,
            "secs": self.secs,
        })
    }
}

/// Stretches of queries between two refits. Refits are due at every `every_days`-th midnight (UTC) of event
/// time after the first query; days without an event need none.
fn stretches(queries: &[Query], every_days: u32) -> Vec<std::ops::Range<usize>> {
    let period_of = |query: &Query, first: &Query| {
        let day = |query: &Query| query.occurred_at.div_euclid(DAY_MILLIS);
        (day(query) - day(first)).div_euclid(i64::from(every_days.max(1)))
    };
    let Some(first) = queries.first() else {
        return Vec::new();
    };
    let mut stretches = Vec::new();
    let mut start = 0;
    for idx in 1..queries.len() {
        if period_of(&queries[idx], first) != period_of(&queries[start], first) {
            stretches.push(start..idx);
            start = idx;
        }
    }
    stretches.push(start..queries.len());
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queries(hours: &[i64]) -> Vec<Query> {
        let query = |hour: &i64| Query {
            user_idx: 0,
            item_idx: 0,
            occurred_at: hour * 3_600_000,
            num_known: 0,
            num_distinct: 0,
            is_new: true,
        };
        hours.iter().map(query).collect()
    }

    #[test]
    fn a_refit_is_due_at_midnight_and_days_without_events_need_none() {
        let queries = queries(&[20, 23, 24, 30, 47, 120, 121]);
        assert_eq!(stretches(&queries, 1), vec![0..2, 2..5, 5..7]);
        assert_eq!(stretches(&queries, 2), vec![0..5, 5..7]);
        assert_eq!(
            stretches(&queries, 30),
            vec![0..7],
            "no refit in so short a stream"
        );
        assert!(stretches(&[], 1).is_empty());
    }

    #[test]
    fn unknown_cpu_seconds_are_null_with_a_reason() {
        let mut outcome = RefitOutcome {
            cpu_secs: Some(1.0),
            ..RefitOutcome::default()
        };
        outcome.add_cpu(Ok(2.0), Ok(5.0));
        assert_eq!(outcome.cpu_secs, Some(4.0));
        outcome.add_cpu(Ok(5.0), Err("gone".to_owned()));
        assert_eq!(outcome.cost(1)["cpu_secs"], Value::Null);
        assert_eq!(outcome.cost(1)["why"], "gone");
    }
}
