//! The parts of a report that every protocol shares: where it comes from, and what was found per system.
//!
//! A figure that could not be taken is null, with a `why` beside it.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::bootstrap::NUM_RESAMPLES;
use super::systems::Systems;
use crate::dataset::Dataset;
use crate::replay::machine;

/// Dataset, machine, command, commit and moment.
#[must_use]
pub fn header(dataset: &Dataset, protocol: &str, notes: Vec<String>) -> Map<String, Value> {
    let created_at = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let commit = machine::commit();
    object(json!({
        "dataset": dataset.name,
        "protocol": protocol,
        "protocol_notes": notes,
        "machine": machine::machine(),
        "command": machine::command(),
        "commit": commit.as_ref().ok(),
        "commit_why": commit.as_ref().err(),
        "created_at": u64::try_from(created_at).unwrap_or(u64::MAX),
    }))
}

/// All systems, and how their intervals were made.
#[must_use]
pub fn systems_document(systems: &Systems) -> Map<String, Value> {
    let num_scored = systems
        .scored()
        .next()
        .map_or(0, |(_, entry)| entry.figures.headline.num_scored);
    object(json!({
        "num_scored": num_scored,
        "num_users_scored": systems.num_users,
        "interval_notes": format!(
            "95 % percentile intervals over {NUM_RESAMPLES} resamples of users with replacement; \
             minus_freshet is the system minus freshet on the same resamples"
        ),
        "systems": systems.to_json(),
    }))
}

/// The fields of a literal.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("only called with the literal of an object")
        }
    }
}
