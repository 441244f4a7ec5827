//! Ablation: what each technique adds, as the difference between a variant and the reference on the same events.
//!
//! Variants come from a TOML file, the first of them is the reference:
//!
//! ```toml
//! [[variant]]
//! name = "defaults"
//! [[variant]]
//! name = "no neighbours"
//! set = { "model.num_neighbours" = 0 }
//! [[variant]]
//! name = "weights as trained"
//! published = "float32"
//! ```

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::StudyError;
use super::settings::{Settings, written};
use super::stream::Published;
use super::trial::{Outcome, Study, ranked};
use crate::evaluate::bootstrap::{Difference, Interval, NUM_RESAMPLES, intervals};
use crate::evaluate::document::header;
use crate::evaluate::figures::{Slice, figures};

/// Most variants of one file.
const NUM_VARIANTS_MAX: usize = 1000;

/// Settings with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// As it stands in the table.
    pub name: String,
    /// What differs from the defaults.
    pub settings: Settings,
    /// How its weights reach pages.
    pub published: Published,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    variant: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    set: toml::Table,
    #[serde(default)]
    published: Published,
}

/// Reads variants.
///
/// # Errors
/// The file cannot be read or understood, or names a variant twice.
pub fn read_variants(path: &Path) -> Result<Vec<Variant>, StudyError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| StudyError::file(path, format!("cannot be read: {error}")))?;
    let file: File = toml::from_str(&text)
        .map_err(|error| StudyError::file(path, format!("cannot be read: {error}")))?;
    let num_variants = file.variant.len();
    if !(1..=NUM_VARIANTS_MAX).contains(&num_variants) {
        let reason = format!("it has {num_variants} variants, expected 1 to {NUM_VARIANTS_MAX}");
        return Err(StudyError::file(path, reason));
    }
    let mut variants: Vec<Variant> = Vec::new();
    for entry in file.variant {
        if variants.iter().any(|variant| variant.name == entry.name) {
            let reason = format!("variant {:?} stands in it twice", entry.name);
            return Err(StudyError::file(path, reason));
        }
        let settings = entry.set.iter();
        variants.push(Variant {
            name: entry.name,
            published: entry.published,
            settings: settings
                .map(|(key, value)| (key.clone(), written(value)))
                .collect(),
        });
    }
    Ok(variants)
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What was set.
    pub variant: Variant,
    /// What came of it.
    pub outcome: Outcome,
    /// HR@10 and NDCG@10 over items new to the user, and HR@10 of cold items.
    pub figures: [Option<f64>; 3],
    /// Intervals of HR@10 and NDCG@10.
    pub intervals: Option<[Interval; 2]>,
    /// The variant minus the reference.
    pub difference: Option<Difference>,
}

/// Checks all variants, runs those that are not there yet, and compares them.
///
/// # Errors
/// A trial failed.
pub fn run(study: &Study, variants: &[Variant], seed: u64) -> Result<Vec<Row>, StudyError> {
    let mut outcomes = study.outcomes();
    for variant in variants {
        study.check_files(&variant.name, &variant.settings)?;
    }
    let mut rows = Vec::new();
    for variant in variants {
        let outcome = study.run(&variant.name, &variant.settings, variant.published)?;
        outcomes.answer(&variant.name, &ranked(&outcome));
        let figures = figures(&outcomes, &variant.name);
        let cold = figures.as_ref().map(|all| all.slices[&Slice::ColdItem]);
        let headline = figures.map(|all| all.headline);
        let row = Row {
            variant: variant.clone(),
            figures: [
                headline.and_then(|headline| headline.hr_at_10),
                headline.and_then(|headline| headline.ndcg_at_10),
                cold.and_then(|cold| cold.hr_at_10),
            ],
            outcome,
            intervals: None,
            difference: None,
        };
        eprint!("{}", line(&row));
        rows.push(row);
    }
    let names: Vec<&str> = variants
        .iter()
        .map(|variant| variant.name.as_str())
        .collect();
    match intervals(&outcomes, &names, seed) {
        Ok(found) => {
            for row in &mut rows {
                let of = found.get(&row.variant.name);
                row.intervals = of.map(|of| [of.hr_at_10_interval, of.ndcg_at_10_interval]);
                row.difference = of.and_then(|of| of.minus_freshet);
            }
        }
        Err(why) => eprintln!("no intervals: {why}"),
    }
    Ok(rows)
}

/// The table in Markdown, with what follows from it for defaults.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| variant | HR@10 | NDCG@10 | HR@10 minus the reference | NDCG@10 minus the reference | cold HR@10 \
         | forgetting | CPU s of fit + stream | bytes: fast, release, per 1,000 events |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        text.push_str(&line(row));
    }
    text
}

fn line(row: &Row) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
    let bytes = |value: Option<usize>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
    let secs = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.0}"));
    let change = |of: fn(&Difference) -> (f64, Interval)| match &row.difference {
        Some(difference) => {
            let (value, [low, high]) = of(difference);
            format!("{value:+.4} [{low:+.4}, {high:+.4}]")
        }
        None => "-".to_owned(),
    };
    let mut text = String::new();
    let outcome = &row.outcome;
    let refused = match outcome.num_refused {
        0 => String::new(),
        num => format!(", {num} releases refused"),
    };
    // Writing into a String cannot fail.
    let _infallible = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {} | {} + {} | {}, {}, {:.0}{refused} |",
        row.variant.name,
        number(row.figures[0]),
        number(row.figures[1]),
        change(|d| (d.hr_at_10, d.hr_at_10_interval)),
        change(|d| (d.ndcg_at_10, d.ndcg_at_10_interval)),
        number(row.figures[2]),
        outcome
            .forgetting
            .map_or_else(|| "-".to_owned(), |v| format!("{v:+.4}")),
        secs(outcome.warm_cpu_secs),
        secs(outcome.stream_cpu_secs),
        bytes(outcome.fast_bytes_median),
        bytes(outcome.release_bytes_median),
        outcome.bytes_per_1000_events,
    );
    text
}

/// Everything as JSON; ranks by event are left to the study's folder.
#[must_use]
pub fn document(study: &Study, rows: &[Row]) -> Value {
    let notes = vec![
        "offline: every chunk of 128 events is ranked by the live version, then learned; releases by count of events"
            .to_owned(),
        format!("95 % percentile intervals over {NUM_RESAMPLES} resamples of users, differences on the same resamples"),
    ];
    let mut document = header(study.dataset(), "ablation", notes);
    let row = |row: &Row| {
        let outcome = &row.outcome;
        json!({
            "name": row.variant.name,
            "settings": row.variant.settings,
            "hr_at_10": row.figures[0],
            "ndcg_at_10": row.figures[1],
            "cold_item_hr_at_10": row.figures[2],
            "log_loss": outcome.log_loss,
            "forgetting": outcome.forgetting,
            "hr_at_10_interval": row.intervals.map(|both| both[0]),
            "ndcg_at_10_interval": row.intervals.map(|both| both[1]),
            "minus_reference": row.difference,
            "warm_fit_cpu_secs": outcome.warm_cpu_secs,
            "stream_cpu_secs": outcome.stream_cpu_secs,
            "published": row.variant.published,
            "snapshot_bytes": outcome.snapshot_bytes,
            "fast_bytes_per_1000_events": outcome.fast_bytes_per_1000_events,
            "fast_delta_bytes_median": outcome.fast_bytes_median,
            "release_delta_bytes_median": outcome.release_bytes_median,
            "bytes_per_1000_events": outcome.bytes_per_1000_events,
            "releases": outcome.num_releases,
            "releases_refused": outcome.num_refused,
            "steps_skipped": outcome.num_skipped,
        })
    };
    document.insert(
        "variants".to_owned(),
        Value::Array(rows.iter().map(row).collect()),
    );
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Variant>, StudyError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("variants.toml");
        std::fs::write(&path, text).expect("writable");
        read_variants(&path)
    }

    #[test]
    fn variants_are_read_in_order_with_values_as_settings_are_written() {
        let text = "[[variant]]\nname = \"defaults\"\n[[variant]]\nname = \"other\"\n\
                    set = { \"release.strategy\" = \"lora\", \"train.seed\" = 3 }\n";
        let variants = read(text).expect("valid");
        assert_eq!(variants[0].settings, Settings::new());
        assert_eq!(variants[1].settings["release.strategy"], "lora");
        assert_eq!(variants[1].settings["train.seed"], "3");
    }

    #[test]
    fn twice_the_same_name_none_and_unknown_keys_are_refused() {
        let twice = "[[variant]]\nname = \"a\"\n[[variant]]\nname = \"a\"\n";
        let error = read(twice).expect_err("twice").to_string();
        assert!(error.contains("\"a\" stands in it twice"), "{error}");
        assert!(read("variant = []").is_err());
        let error = read("[[variant]]\nname = \"a\"\nsets = {}\n").expect_err("typo");
        assert!(error.to_string().contains("sets"), "{error}");
    }
}
