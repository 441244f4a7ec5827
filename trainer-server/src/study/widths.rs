//! Widths: what quality costs in the bits of published codes, and whether versions drift that change little by little.
//!
//! The reference publishes every weight as it was trained (f32). Beside it stand all widths of id rows, text rows and
//! shared matrices, published as a server does. Versions drift if each is right beside the one before and wrong
//! beside the weights: so the narrowest and the widest codes are also published anew in each version, from the same
//! weights, and compared over the versions that follow the first hundred.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::StudyError;
use super::ablation::{Row, Variant, document, run};
use super::settings::Settings;
use super::stream::{CHUNK_LEN, Published};
use super::sweep::{BUDGET, Change, DEAD_ZONE, UNLIMITED, settings};
use super::trial::{Study, ranked};
use crate::evaluate::bootstrap::intervals;
use crate::evaluate::figures::figures;
use crate::evaluate::svg::curves::{Curve, Point, curves};

/// Kinds of codes and the setting of each.
const KINDS: [(&str, &str); 3] = [
    ("ids", "model.id_code_bits"),
    ("texts", "model.text_code_bits"),
    ("matrices", "model.matrix_code_bits"),
];
/// Where versions are cut: 100 of them, and what comes after.
const NUM_VERSIONS: usize = 100;
const REFERENCE: &str = "every weight as f32";
const ANEW: &str = ", each version anew";

/// Bits of id rows, text rows and matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Widths([u8; KINDS.len()]);

impl Widths {
    const NARROWEST: Self = Self([4; KINDS.len()]);
    const WIDEST: Self = Self([8; KINDS.len()]);

    /// All of them, the widest first.
    fn all() -> impl Iterator<Item = Self> {
        (0..1_u8 << KINDS.len()).map(|narrow| {
            let mut place = 0;
            Self([(); KINDS.len()].map(|()| {
                let is_narrow = narrow >> place & 1 == 1;
                place += 1;
                if is_narrow { 4 } else { 8 }
            }))
        })
    }

    fn name(self) -> String {
        match self {
            Self::WIDEST => "all 8 bits".to_owned(),
            Self::NARROWEST => "all 4 bits".to_owned(),
            Self(bits) => {
                let narrow = KINDS.iter().zip(bits).filter(|(_, bits)| *bits == 4);
                let names: Vec<&str> = narrow.map(|((name, _), _)| *name).collect();
                format!("{} 4 bits", names.join(" and "))
            }
        }
    }

    fn settings(self) -> Settings {
        let bits = self.0.map(|bits| bits.to_string());
        let pairs = KINDS.iter().zip(&bits);
        settings(
            &pairs
                .map(|((_, key), bits)| (*key, bits.as_str()))
                .collect::<Vec<_>>(),
        )
    }

    fn variant(self, published: Published) -> Variant {
        let anew = match published {
            Published::Recompressed => ANEW,
            Published::Codes | Published::Float32 => "",
        };
        Variant {
            name: format!("{}{anew}", self.name()),
            settings: self.settings(),
            published,
        }
    }
}

/// The reference, all widths, and those that are published anew.
#[must_use]
pub fn variants() -> Vec<Variant> {
    let reference = Variant {
        name: REFERENCE.to_owned(),
        settings: settings(&[(BUDGET, UNLIMITED), (DEAD_ZONE, "0.5")]),
        published: Published::Float32,
    };
    let anew = [Widths::WIDEST, Widths::NARROWEST];
    let codes = Widths::all().map(|widths| widths.variant(Published::Codes));
    let anew = anew.map(|widths| widths.variant(Published::Recompressed));
    std::iter::once(reference)
        .chain(codes)
        .chain(anew)
        .collect()
}

/// How far versions are from such as were compressed anew, over the events of some versions.
#[derive(Debug, Clone, PartialEq)]
struct Drift {
    name: String,
    /// First version, and the one after the last.
    versions: [usize; 2],
    /// NDCG@10 relative to that of the versions anew, in per cent.
    ndcg: Change,
}

/// Widths that were tried.
#[derive(Debug, Clone)]
pub struct WidthSweep {
    /// The reference first.
    pub rows: Vec<Row>,
    drifts: Vec<Drift>,
}

impl WidthSweep {
    /// Runs every trial that is not in the study yet.
    ///
    /// # Errors
    /// A trial failed.
    pub fn run(study: &Study, seed: u64) -> Result<Self, StudyError> {
        let rows = run(study, &variants(), seed)?;
        let drifts = drifts(study, &rows, seed);
        Ok(Self { rows, drifts })
    }

    /// The smallest snapshot whose NDCG@10 is at most so many per cent below the reference, by the middle of its
    /// interval; published as a server does.
    #[must_use]
    pub fn smallest_within(&self, loss_percent_max: f64) -> Option<&Row> {
        let reference = self.rows.first()?;
        let published = self.rows.iter();
        let published = published.filter(|row| row.variant.published == Published::Codes);
        published
            .filter(|row| {
                Change::of_row(row, reference)
                    .is_some_and(|[_, ndcg]| -ndcg.value <= loss_percent_max)
            })
            .min_by_key(|row| row.outcome.snapshot_bytes)
    }

    /// All figures.
    #[must_use]
    pub fn document(&self, study: &Study) -> Value {
        let mut document = document(study, &self.rows);
        let drifts = self.drifts.iter().map(|drift| {
            json!({
                "name": drift.name,
                "versions": drift.versions,
                "relative_ndcg_percent": drift.ndcg.value,
                "relative_ndcg_percent_interval": drift.ndcg.interval,
            })
        });
        if let Value::Object(fields) = &mut document {
            fields.insert("protocol".to_owned(), json!("widths"));
            fields.insert("drift".to_owned(), Value::Array(drifts.collect()));
            let within = self.smallest_within(1.0).map(|row| &row.variant.name);
            fields.insert("smallest_within_1_percent".to_owned(), json!(within));
        }
        document
    }

    /// NDCG@10 against bytes of a snapshot.
    #[must_use]
    pub fn chart(&self) -> String {
        let Some(reference) = self.rows.first() else {
            return String::new();
        };
        let curve = |place: usize, name: &'static str, published: Published| {
            let of_curve = self
                .rows
                .iter()
                .filter(|row| row.variant.published == published);
            let mut points: Vec<Point> = of_curve
                .filter_map(|row| {
                    let [_, change] = Change::of_row(row, reference)?;
                    Some(Point {
                        x: row.outcome.snapshot_bytes as f64, // far below 2^52
                        y: change.value,
                        interval: Some(change.interval),
                        label: row.variant.name.clone(),
                    })
                })
                .collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            Curve {
                name,
                place,
                points,
            }
        };
        curves(
            &[
                curve(0, "as published", Published::Codes),
                curve(1, "anew", Published::Recompressed),
            ],
            "bytes of a first model",
            "NDCG@10 against every weight as f32, %",
        )
    }

    /// Both tables in Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| codes | snapshot, bytes | fast bytes per 1,000 events | HR@10 | NDCG@10 | HR@10 against f32, % \
             | NDCG@10 against f32, % |\n| --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for row in &self.rows {
            let figure =
                |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
            let changes = self
                .rows
                .first()
                .and_then(|reference| Change::of_row(row, reference));
            let [hr, ndcg] = changes.map_or_else(
                || ["-".to_owned(), "-".to_owned()],
                |both| both.map(|change| change.to_string()),
            );
            // Writing into a String cannot fail.
            let _infallible = writeln!(
                text,
                "| {} | {} | {:.0} | {} | {} | {hr} | {ndcg} |",
                row.variant.name,
                row.outcome.snapshot_bytes,
                row.outcome.fast_bytes_per_1000_events,
                figure(row.figures[0]),
                figure(row.figures[1]),
            );
        }
        text.push_str(
            "\n| codes | versions | NDCG@10 against versions compressed anew, % |\n| --- | --- | --- |\n",
        );
        for drift in &self.drifts {
            let [first, end] = drift.versions;
            let _infallible = writeln!(
                text,
                "| {} | {} to {end} | {} |",
                drift.name,
                first + 1,
                drift.ndcg
            );
        }
        text
    }
}

/// Of those that were published both ways, over the first hundred versions and over those after.
fn drifts(study: &Study, rows: &[Row], seed: u64) -> Vec<Drift> {
    let by_name = |name: &str| rows.iter().find(|row| row.variant.name == name);
    let mut drifts = Vec::new();
    for widths in [Widths::WIDEST, Widths::NARROWEST] {
        let name = widths.name();
        let (Some(codes), Some(anew)) = (by_name(&name), by_name(&format!("{name}{ANEW}"))) else {
            continue;
        };
        let num_events = codes.outcome.ranks.len();
        let num_versions = num_events.div_ceil(CHUNK_LEN);
        for versions in [
            [0, NUM_VERSIONS.min(num_versions)],
            [NUM_VERSIONS, num_versions],
        ] {
            let events = versions.map(|version| (version * CHUNK_LEN).min(num_events));
            if events[0] >= events[1] {
                continue;
            }
            let mut outcomes = study.outcomes_of(events[0]..events[1]);
            for row in [anew, codes] {
                let answers = ranked(&row.outcome);
                outcomes.answer(&row.variant.name, &answers[events[0]..events[1]]);
            }
            let names = [anew, codes].map(|row| row.variant.name.as_str());
            let found = intervals(&outcomes, &names, seed);
            let difference = found.ok().and_then(|found| found[&name].minus_freshet);
            let base = figures(&outcomes, &anew.variant.name);
            let base = base.and_then(|figures| figures.headline.ndcg_at_10);
            if let (Some(difference), Some(base)) = (difference, base) {
                let interval = difference.ndcg_at_10_interval;
                drifts.push(Drift {
                    name: name.clone(),
                    versions,
                    ndcg: Change::of(difference.ndcg_at_10, interval, base),
                });
            }
        }
    }
    drifts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::settings::config;

    #[test]
    fn every_width_is_a_valid_configuration_with_a_name_of_its_own() {
        let variants = variants();
        let names: std::collections::BTreeSet<_> =
            variants.iter().map(|variant| &variant.name).collect();
        assert_eq!(names.len(), variants.len());
        assert_eq!(variants.len(), 1 + 8 + 2);
        for variant in &variants {
            let loaded = config(&Settings::new(), &variant.settings);
            assert!(loaded.is_ok(), "{}: {:?}", variant.name, loaded.err());
        }
        assert_eq!(variants[1].name, "all 8 bits");
        assert_eq!(variants[2].name, "ids 4 bits");
        assert_eq!(variants[8].name, "all 4 bits");
        assert_eq!(variants[8].settings["model.matrix_code_bits"], "4");
        assert_eq!(variants[10].name, "all 4 bits, each version anew");
    }
}
