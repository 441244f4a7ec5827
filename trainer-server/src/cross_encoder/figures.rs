//! Figures of several systems over the same events, with intervals by a bootstrap over users.
//!
//! Users are drawn with replacement, as in `evaluate::bootstrap`; a draw is a weight per event, so that
//! figures that are no means, like AUC, are made anew for every draw. Differences are paired: both systems
//! over the same draw. Not here: what the systems said (`walk`, `compare`).

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use serde_json::{Map, Value, json};
use shared_model::metrics::labels::{
    Classification, Graded, Labelled, Regression, ascending, classification, regression,
};

use crate::evaluate::bootstrap::{Interval, NUM_RESAMPLES, percentiles};

/// One figure of one system.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// Over all events; absent where it cannot be had.
    pub value: Option<f64>,
    /// 95 % of the draws lie between.
    pub interval: Option<Interval>,
    /// The first system of the table minus this one; absent for the first.
    pub first_minus_this: Option<f64>,
    /// Its interval over the same draws.
    pub first_minus_this_interval: Option<Interval>,
}

/// Figures by system, then by name, in the order in which they are to be shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Names of the figures.
    pub names: &'static [&'static str],
    /// Every system with its figures, parallel to the names.
    pub systems: Vec<(&'static str, Vec<Figure>)>,
    /// Events.
    pub num_events: usize,
    /// Their users.
    pub num_users: usize,
    /// Why some figures are absent, in words.
    pub notes: Vec<String>,
}

/// By system, then by figure.
type SystemFigures = Vec<Vec<Option<f64>>>;

/// Names of the figures of clicks.
pub const CLICK_FIGURES: &[&str] = &["auc", "log_loss", "accuracy", "precision", "recall", "f1"];
/// Names of the figures of ratings.
pub const RATING_FIGURES: &[&str] = &["mse", "rmse", "mae"];
/// Name of the figure of lists.
pub const LIST_FIGURES: &[&str] = &["ndcg_at_10"];

/// Figures of clicks; every system has one event per user of `users`.
#[must_use]
pub fn clicks(users: &[u32], systems: &[(&'static str, Vec<Labelled>)], seed: u64) -> Table {
    let orders: Vec<Vec<usize>> = systems
        .iter()
        .map(|(_, events)| ascending(events))
        .collect();
    let mut table = tabulate(
        users,
        systems,
        CLICK_FIGURES,
        seed,
        |system_idx, weights| {
            let (_, events) = &systems[system_idx];
            let Classification {
                accuracy,
                precision,
                recall,
                f1,
                auc,
                log_loss,
            } = classification(events, &orders[system_idx], weights);
            vec![auc, log_loss, accuracy, precision, recall, f1]
        },
    );
    let mut labels = systems
        .iter()
        .flat_map(|(_, events)| events)
        .map(|event| event.label);
    let first = labels.next();
    if first.is_some_and(|first| labels.all(|label| label == first)) {
        let note = "all labels are equal, so there is nothing to tell apart and no AUC";
        table.notes.push(note.to_owned());
    }
    table
}

/// Figures of ratings.
#[must_use]
pub fn ratings(users: &[u32], systems: &[(&'static str, Vec<Graded>)], seed: u64) -> Table {
    tabulate(
        users,
        systems,
        RATING_FIGURES,
        seed,
        |system_idx, weights| {
            let Regression { mse, rmse, mae } = regression(&systems[system_idx].1, weights);
            vec![mse, rmse, mae]
        },
    )
}

/// Means of a figure of single events.
#[must_use]
pub fn lists(users: &[u32], systems: &[(&'static str, Vec<f64>)], seed: u64) -> Table {
    tabulate(users, systems, LIST_FIGURES, seed, |system_idx, weights| {
        let total: f64 = weights.iter().sum();
        let values = systems[system_idx].1.iter().zip(weights);
        let sum: f64 = values.map(|(value, weight)| value * weight).sum();
        vec![(total > 0.0).then(|| sum / total)]
    })
}

/// `figures_of` gives the figures of a system under weights of the events, parallel to `names`.
fn tabulate<T>(
    users: &[u32],
    systems: &[(&'static str, T)],
    names: &'static [&'static str],
    seed: u64,
    figures_of: impl Fn(usize, &[f64]) -> Vec<Option<f64>>,
) -> Table {
    let (users, num_users) = dense(users);
    let all_of = |weights: &[f64]| -> SystemFigures {
        (0..systems.len())
            .map(|idx| figures_of(idx, weights))
            .collect()
    };
    let plain = all_of(&vec![1.0; users.len()]);
    let mut notes = Vec::new();
    let mut draws = Vec::new();
    if num_users < 2 {
        notes.push(format!(
            "resampling users needs two, there are {num_users}, so there are no intervals"
        ));
    } else {
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..NUM_RESAMPLES {
            let mut times_drawn = vec![0.0; num_users];
            for _ in 0..num_users {
                times_drawn[rng.random_range(0..num_users)] += 1.0;
            }
            let weights: Vec<f64> = users.iter().map(|&user| times_drawn[user]).collect();
            draws.push(all_of(&weights));
        }
    }
    let over = |figure: &dyn Fn(&SystemFigures) -> Option<f64>| {
        let drawn: Option<Vec<f64>> = draws.iter().map(figure).collect();
        drawn
            .filter(|drawn| !drawn.is_empty())
            .map(|drawn| percentiles(drawn.into_iter()))
    };
    let figure = |system: usize, name: usize| {
        let minus = |all: &SystemFigures| Some(all[0][name]? - all[system][name]?);
        Figure {
            value: plain[system][name],
            interval: over(&|all| all[system][name]),
            first_minus_this: minus(&plain).filter(|_| system > 0),
            first_minus_this_interval: over(&minus).filter(|_| system > 0),
        }
    };
    let row = |(system_idx, (name, _)): (usize, &(&'static str, T))| {
        let figures = (0..names.len()).map(|name_idx| figure(system_idx, name_idx));
        (*name, figures.collect())
    };
    Table {
        names,
        systems: systems.iter().enumerate().map(row).collect(),
        num_events: users.len(),
        num_users,
        notes,
    }
}

/// Users numbered in the order in which they come, and how many there are.
fn dense(users: &[u32]) -> (Vec<usize>, usize) {
    let mut number_of: HashMap<u32, usize> = HashMap::new();
    let numbers = users
        .iter()
        .map(|user| {
            let next = number_of.len();
            *number_of.entry(*user).or_insert(next)
        })
        .collect();
    (numbers, number_of.len())
}

impl Table {
    /// As JSON: by system, then by figure.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let systems: Map<String, Value> = self
            .systems
            .iter()
            .map(|(system, figures)| {
                let figures: Map<String, Value> = self
                    .names
                    .iter()
                    .zip(figures)
                    .map(|(name, figure)| ((*name).to_owned(), json!(figure)))
                    .collect();
                ((*system).to_owned(), Value::Object(figures))
            })
            .collect();
        json!({
            "events": self.num_events, "users": self.num_users,
            "systems": systems, "notes": self.notes,
        })
    }

    /// As a Markdown table: values with intervals, and the difference of the first figure.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let first_system = self.systems.first().map_or("", |(name, _)| *name);
        let first_name = self.names.first().copied().unwrap_or("");
        let header = self.names.join(" | ");
        let mut text = format!("| system | {header} | {first_name} of {first_system} minus it |\n");
        text.push_str(&format!("|{}\n", " --- |".repeat(self.names.len() + 2)));
        for (system, figures) in &self.systems {
            let cells: Vec<String> = figures
                .iter()
                .map(|figure| with_interval(figure.value, figure.interval))
                .collect();
            let difference = figures.first().map_or("–".to_owned(), |figure| {
                with_interval(figure.first_minus_this, figure.first_minus_this_interval)
            });
            text.push_str(&format!(
                "| {system} | {} | {difference} |\n",
                cells.join(" | ")
            ));
        }
        for note in &self.notes {
            text.push_str(&format!("{note}\n"));
        }
        text
    }
}

fn with_interval(value: Option<f64>, interval: Option<Interval>) -> String {
    match (value, interval) {
        (None, _) => "–".to_owned(),
        (Some(value), None) => format!("{value:.4}"),
        (Some(value), Some([low, high])) => format!("{value:.4} [{low:.4}, {high:.4}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(probabilities: &[f64], labels: &[bool]) -> Vec<Labelled> {
        let pairs = probabilities.iter().zip(labels);
        pairs
            .map(|(&probability, &label)| Labelled { probability, label })
            .collect()
    }

    #[test]
    fn a_better_system_has_a_paired_difference_above_zero() {
        let users: Vec<u32> = (0..200).map(|idx| idx / 2).collect();
        let labels: Vec<bool> = (0..200).map(|idx| idx % 2 == 0).collect();
        let good: Vec<f64> = (0..200)
            .map(|idx| if idx % 2 == 0 { 0.8 } else { 0.3 })
            .collect();
        let systems = [
            ("good", labelled(&good, &labels)),
            ("even", labelled(&[0.5; 200], &labels)),
        ];
        let table = clicks(&users, &systems, 7);
        assert_eq!((table.num_events, table.num_users), (200, 100));
        let auc = |system: usize| table.systems[system].1[0];
        assert_eq!((auc(0).value, auc(1).value), (Some(1.0), Some(0.5)));
        assert_eq!(auc(1).first_minus_this, Some(0.5));
        assert_eq!(auc(1).first_minus_this_interval, Some([0.5, 0.5]));
        assert_eq!(auc(0).first_minus_this, None);
        assert_eq!(table, clicks(&users, &systems, 7));
        assert!(
            table
                .to_markdown()
                .contains("| even | 0.5000 [0.5000, 0.5000]")
        );
    }

    #[test]
    fn equal_labels_and_one_user_leave_gaps_with_reasons() {
        let systems = [("only", labelled(&[0.2, 0.9], &[true, true]))];
        let table = clicks(&[3, 3], &systems, 1);
        let auc = table.systems[0].1[0];
        assert_eq!((auc.value, auc.interval), (None, None));
        assert_eq!(table.systems[0].1[4].value, Some(0.5), "recall is there");
        assert!(table.notes.iter().any(|note| note.contains("no AUC")));
        assert!(table.notes.iter().any(|note| note.contains("there are 1")));
        assert_eq!(
            table.to_json()["systems"]["only"]["auc"]["value"],
            Value::Null
        );
    }

    #[test]
    fn means_of_lists_and_errors_of_grades_have_intervals() {
        let table = lists(&[0, 1, 2, 3], &[("base", vec![1.0, 0.0, 1.0, 0.0])], 1);
        let ndcg = table.systems[0].1[0];
        assert_eq!(ndcg.value, Some(0.5));
        let [low, high] = ndcg.interval.expect("four users");
        assert!(low < 0.5 && high > 0.5);
        let graded = vec![
            Graded {
                predicted: 7.0,
                actual: 5.0
            };
            2
        ];
        let table = ratings(&[0, 1], &[("mean", graded)], 1);
        assert_eq!(table.systems[0].1[1].value, Some(2.0));
        assert_eq!(
            ratings(&[], &[("mean", vec![])], 1).systems[0].1[0].value,
            None
        );
    }
}
