//! Byte sweep: what quality costs in bytes, by the settings that decide what a fast version carries.
//!
//! The reference publishes every weight as it was trained (f32). Every other point is one setting of the budget, the
//! dead zone, the width of a code or the part of a row that competes. All share one warm fit and learn from the same
//! events, so that the difference is what compression did.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::StudyError;
use super::ablation::{Row, Variant, document, run};
use super::settings::Settings;
use super::stream::Published;
use super::trial::Study;
use crate::evaluate::svg::curves::{Curve, Point, curves};

/// Budget that nothing reaches.
pub(super) const UNLIMITED: &str = "1073741824";
pub(super) const BUDGET: &str = "publish.delta_bytes_budget";
pub(super) const DEAD_ZONE: &str = "publish.dead_zone";

/// One kind of settings, tried at several sizes.
struct Axis {
    name: &'static str,
    /// Set at all its points.
    set: &'static [(&'static str, &'static str)],
    /// What moves from point to point.
    key: &'static str,
    values: &'static [&'static str],
}

const AXES: [Axis; 7] = [
    Axis {
        name: "budget",
        set: &[],
        key: BUDGET,
        values: &["300", "600", "1200", "3000", "6000", UNLIMITED],
    },
    Axis {
        name: "dead zone",
        set: &[(BUDGET, UNLIMITED)],
        key: DEAD_ZONE,
        values: &["0.5", "1.5", "3", "6"],
    },
    Axis {
        name: "budget, dead zone 3",
        set: &[(DEAD_ZONE, "3")],
        key: BUDGET,
        values: &["600", "1200", "3000"],
    },
    Axis {
        name: "same, blocks of 16",
        set: &[(DEAD_ZONE, "3"), ("publish.block_len", "16")],
        key: BUDGET,
        values: &["600", "1200"],
    },
    Axis {
        name: "4-bit ids",
        set: &[("model.id_code_bits", "4")],
        key: BUDGET,
        values: &["300", "1200", UNLIMITED],
    },
    Axis {
        name: "blocks of 16",
        set: &[("publish.block_len", "16")],
        key: BUDGET,
        values: &["300", "1200", "3000"],
    },
    Axis {
        name: "8-bit texts",
        set: &[],
        key: "model.text_code_bits",
        values: &["8"],
    },
];

/// The reference, then every point of every axis.
#[must_use]
pub fn variants() -> Vec<Variant> {
    let exact = [(BUDGET, UNLIMITED), (DEAD_ZONE, "0.5")];
    let mut variants = vec![Variant {
        name: "every weight as f32".to_owned(),
        settings: settings(&exact),
        published: Published::Float32,
    }];
    for axis in &AXES {
        for value in axis.values {
            let mut all = settings(axis.set);
            all.insert(axis.key.to_owned(), (*value).to_owned());
            variants.push(Variant {
                name: format!("{}: {}", axis.name, label(value)),
                settings: all,
                published: Published::Codes,
            });
        }
    }
    variants
}

pub(super) fn settings(pairs: &[(&str, &str)]) -> Settings {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn label(value: &str) -> &str {
    if value == UNLIMITED {
        "no limit"
    } else {
        value
    }
}

/// A sweep that was run.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The reference first.
    pub rows: Vec<Row>,
}

impl Sweep {
    /// Runs every point that is not in the study yet.
    ///
    /// # Errors
    /// A trial failed.
    pub fn run(study: &Study, seed: u64) -> Result<Self, StudyError> {
        let rows = run(study, &variants(), seed)?;
        Ok(Self { rows })
    }

    /// All figures.
    #[must_use]
    pub fn document(&self, study: &Study) -> Value {
        let mut document = document(study, &self.rows);
        if let Value::Object(fields) = &mut document {
            fields.insert("protocol".to_owned(), json!("bytes"));
        }
        document
    }

    /// NDCG@10 against bytes, one line per axis.
    #[must_use]
    pub fn chart(&self) -> String {
        let mut all = Vec::new();
        for (place, axis) in AXES.iter().enumerate() {
            let prefix = format!("{}: ", axis.name);
            let of_axis = self.rows.iter().filter_map(|row| {
                let label = row.variant.name.strip_prefix(&prefix)?;
                let [_, change] = self.change(row)?;
                Some(Point {
                    x: row.outcome.fast_bytes_per_1000_events,
                    y: change.value,
                    interval: Some(change.interval),
                    label: label.to_owned(),
                })
            });
            let mut points: Vec<Point> = of_axis.collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            all.push(Curve {
                name: axis.name,
                place,
                points,
            });
        }
        curves(
            &all,
            "bytes of fast deltas per 1,000 events",
            "NDCG@10 against every weight as f32, %",
        )
    }

    fn change(&self, row: &Row) -> Option<[Change; 2]> {
        Change::of_row(row, self.rows.first()?)
    }

    /// The table in Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| setting | median fast delta, bytes | fast bytes per 1,000 events | snapshot, bytes | HR@10 | NDCG@10 \
             | HR@10 against f32, % | NDCG@10 against f32, % |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for row in &self.rows {
            let outcome = &row.outcome;
            let figure =
                |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
            let median = outcome.fast_bytes_median;
            let [hr, ndcg] = self.change(row).map_or_else(
                || ["-".to_owned(), "-".to_owned()],
                |both| both.map(|change| change.to_string()),
            );
            // Writing into a String cannot fail.
            let _infallible = writeln!(
                text,
                "| {} | {} | {:.0} | {} | {} | {} | {hr} | {ndcg} |",
                row.variant.name,
                median.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
                outcome.fast_bytes_per_1000_events,
                outcome.snapshot_bytes,
                figure(row.figures[0]),
                figure(row.figures[1]),
            );
        }
        text
    }
}

/// A difference as a share of the reference, in per cent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Change {
    pub(super) value: f64,
    pub(super) interval: [f64; 2],
}

impl Change {
    /// HR@10 and NDCG@10 of a row whose difference is to `reference`.
    pub(super) fn of_row(row: &Row, reference: &Row) -> Option<[Self; 2]> {
        let [hr, ndcg, _] = reference.figures;
        let difference = row.difference?;
        Some([
            Self::of(difference.hr_at_10, difference.hr_at_10_interval, hr?),
            Self::of(difference.ndcg_at_10, difference.ndcg_at_10_interval, ndcg?),
        ])
    }

    pub(super) fn of(value: f64, [low, high]: [f64; 2], reference: f64) -> Self {
        let scale = 100.0 / reference;
        Self {
            value: value * scale,
            interval: [low * scale, high * scale],
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, high] = self.interval;
        write!(f, "{:+.2} [{low:+.2}, {high:+.2}]", self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::settings::config;

    #[test]
    fn every_point_is_a_valid_configuration_and_has_a_name_of_its_own() {
        let variants = variants();
        let names: std::collections::BTreeSet<_> =
            variants.iter().map(|variant| &variant.name).collect();
        assert_eq!(names.len(), variants.len());
        for variant in &variants {
            let loaded = config(&Settings::new(), &variant.settings);
            assert!(loaded.is_ok(), "{}: {:?}", variant.name, loaded.err());
        }
        assert_eq!(variants[0].published, Published::Float32);
    }
}
