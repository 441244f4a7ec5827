//! Systems: what is reported of each, with intervals, or the reason why there is nothing.
//!
//! Input: `outcomes`. Not here: how it is shown (`table`, `html`) and what surrounds it in a document.

use serde_json::{Map, Value, json};

use super::bootstrap::{SystemIntervals, intervals};
use super::figures::{SystemFigures, figures};
use super::outcomes::Outcomes;

/// Systems in the order in which they are shown; the first is what all others are compared with.
pub const SYSTEMS: [&str; 8] = [
    "freshet",
    "frozen",
    "popularity",
    "popularity_7d",
    "item_knn",
    "text_only",
    "refit_daily",
    "sasrec",
];

/// Why there is no headline.
const NOTHING_NEW: &str = "no user took an item that was new to them; repeats are under slices";

/// One system that was scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Means.
    pub figures: SystemFigures,
    /// How sure they are; absent where resampling users makes no sense.
    pub intervals: Option<SystemIntervals>,
}

/// All systems over the same events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Systems {
    /// In order; the words say why a system was not scored.
    pub list: Vec<(&'static str, Result<Entry, String>)>,
    /// Why there are no intervals.
    pub intervals_why: Option<String>,
    /// Users who were asked about.
    pub num_users: usize,
}

impl Systems {
    /// Figures and intervals of `names`; `absence` says why one that is not in the outcomes is not.
    #[must_use]
    pub fn of(
        outcomes: &Outcomes,
        names: &[&'static str],
        seed: u64,
        absence: impl Fn(&str) -> String,
    ) -> Self {
        let scored: Vec<&'static str> = names
            .iter()
            .copied()
            .filter(|name| outcomes.answers(name).is_some())
            .collect();
        let (intervals, intervals_why) = match intervals(outcomes, &scored, seed) {
            Ok(intervals) => (intervals, None),
            Err(why) => (std::collections::BTreeMap::new(), Some(why)),
        };
        let entry = |name: &'static str| match figures(outcomes, name) {
            Some(figures) => Ok(Entry {
                figures,
                intervals: intervals.get(name).copied(),
            }),
            None if outcomes.asked().is_empty() => Err("no event was streamed".to_owned()),
            None => Err(absence(name)),
        };
        Self {
            list: names.iter().map(|name| (*name, entry(name))).collect(),
            intervals_why,
            num_users: outcomes.num_users(),
        }
    }

    /// Those that were scored.
    pub fn scored(&self) -> impl Iterator<Item = (&'static str, &Entry)> {
        let entries = self.list.iter();
        entries.filter_map(|(name, entry)| Some((*name, entry.as_ref().ok()?))) // absent ones have a reason instead
    }

    /// As it is written into a report, by name.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let systems = self.list.iter().map(|(name, entry)| {
            let value = match entry {
                Ok(entry) => self.entry_json(entry),
                Err(why) => json!({"hr_at_10": null, "ndcg_at_10": null, "why": why}),
            };
            ((*name).to_owned(), value)
        });
        Value::Object(systems.collect())
    }

    fn entry_json(&self, entry: &Entry) -> Value {
        let object = |value: Result<Value, serde_json::Error>| match value {
            Ok(Value::Object(object)) => object,
            Ok(_) | Err(_) => unreachable!("a struct of numbers is an object"),
        };
        let mut fields: Map<String, Value> = object(serde_json::to_value(&entry.figures));
        if entry.figures.headline.num_scored == 0 {
            fields.insert("why".to_owned(), NOTHING_NEW.into());
        }
        match &entry.intervals {
            Some(intervals) => fields.extend(object(serde_json::to_value(intervals))),
            None => {
                for name in ["hr_at_10_interval", "ndcg_at_10_interval"] {
                    fields.insert(name.to_owned(), Value::Null);
                }
                fields.insert("interval_why".to_owned(), json!(self.intervals_why));
            }
        }
        Value::Object(fields)
    }
}
