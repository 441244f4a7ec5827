//! What became of a file: counts, the first refused rows of each reason, what the rows say, and what to fix.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use super::Content;

/// Refused rows of one reason that a report names; beyond them only counts are kept.
const NAMED_PER_CODE_MAX: usize = 5;
/// Refused rows that a report names in all.
const NAMED_MAX: usize = 50;

/// A row that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Line number, from 1.
    pub line: usize,
    /// The reason's code.
    pub code: String,
    /// The reason in words.
    pub detail: String,
}

/// What became of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows that were read. A row may be several events, or none.
    pub rows: u64,
    /// New events or items.
    pub accepted: u64,
    /// Those that the log had already.
    pub duplicates: u64,
    /// Refused ones, by code.
    pub refused: BTreeMap<String, u64>,
    /// The first of them.
    pub named: Vec<Refusal>,
    /// Events by kind, refused ones among them.
    pub kinds: BTreeMap<String, u64>,
    /// First and last moment of events, in milliseconds since 1970-01-01 UTC.
    pub span_millis: Option<(i64, i64)>,
    users: HashSet<u64>,
    items: HashSet<u64>,
    unknown_items: HashSet<u64>,
}

impl Report {
    /// Number of refused rows.
    #[must_use]
    pub fn num_refused(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Distinct users, distinct items, and those of the items that are in no catalogue.
    #[must_use]
    pub fn num_distinct(&self) -> [usize; 3] {
        [&self.users, &self.items, &self.unknown_items].map(HashSet::len)
    }

    /// Keeps what an event or item says of itself, sound or not.
    pub(super) fn note(&mut self, content: Content, value: &Value) {
        if let Some(item_id) = value["item_id"].as_str() {
            self.items.insert(hash_of(item_id));
        }
        if content == Content::Items {
            return;
        }
        if let Some(user_id) = value["user_id"].as_str() {
            self.users.insert(hash_of(user_id));
        }
        if let Some(kind) = value["kind"].as_str().filter(|kind| kind.len() < 64) {
            // Names of kinds are few; what is none of them is refused.
            if self.kinds.len() < 64 || self.kinds.contains_key(kind) {
                *self.kinds.entry(kind.to_owned()).or_default() += 1;
            }
        }
        if let Some(at) = value["occurred_at"].as_i64() {
            let (first, last) = self.span_millis.unwrap_or((at, at));
            self.span_millis = Some((first.min(at), last.max(at)));
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let count = self.refused.entry(refusal.code.clone()).or_default();
        *count += 1;
        if *count <= NAMED_PER_CODE_MAX as u64 && self.named.len() < NAMED_MAX {
            self.named.push(refusal);
        }
    }

    /// [`Self::refuse`] of an event or item that was sent.
    pub(super) fn refuse_sent(&mut self, refusal: Refusal, value: &Value) {
        if refusal.code == "unknown_item"
            && let Some(item_id) = value["item_id"].as_str()
        {
            self.unknown_items.insert(hash_of(item_id));
        }
        self.refuse(refusal);
    }

    /// What to do about refused rows.
    #[must_use]
    pub fn advice(&self) -> Vec<String> {
        let codes = self.refused.keys();
        let advice = codes.filter_map(|code| {
            Some(match code.as_str() {
                "unknown_item" => format!(
                    "items in no catalogue: {}; import theirs first, or with the same command",
                    self.unknown_items.len()
                ),
                "malformed" => "what cannot be read may be called otherwise: --map FIELD=COLUMN names columns, \
                                --kind OURS=THEIRS kinds of events"
                    .to_owned(),
                "time_in_future" => {
                    "moments lie ahead of the clock here: look at their unit and zone".to_owned()
                }
                "invalid_value" => "a rating needs a number, in `rating` or `value`".to_owned(),
                "repeated_item" => {
                    "of an item that is in a file twice the first row counts: keep one".to_owned()
                }
                "too_large" => "texts are longer than an item may hold: shorten them".to_owned(),
                _ => return None,
            })
        });
        advice.collect()
    }

    /// As JSON.
    #[must_use]
    pub fn document(&self, file: &str, content: Content, is_dry_run: bool) -> Value {
        let [num_users, num_items, num_unknown] = self.num_distinct();
        let examples = self
            .named
            .iter()
            .map(|named| json!({ "line": named.line, "code": named.code, "detail": named.detail }));
        let mut document = json!({
            "file": file,
            "content": content.as_str(),
            "is_dry_run": is_dry_run,
            "rows": self.rows,
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "rejected": self.refused,
            "examples": examples.collect::<Vec<_>>(),
            "num_items": num_items,
            "advice": self.advice(),
        });
        if content == Content::Events {
            document["num_users"] = json!(num_users);
            document["num_items_without_entry"] = json!(num_unknown);
            document["first_occurred_at"] = json!(self.span_millis.map(|(first, _)| first));
            document["last_occurred_at"] = json!(self.span_millis.map(|(_, last)| last));
            document["kinds"] = json!(self.kinds);
        }
        document
    }
}

/// A short hash, for counts: of a billion texts a few share one.
pub(super) fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
