//! Gorse, as its dashboard exports data (`importExportItems` and `importExportFeedback` in its master/rest.go).
//!
//! ```text
//! feedback.csv  feedback_type,user_id,item_id,time_stamp[,value]
//! items.csv     item_id,is_hidden,categories (a|b),time_stamp,labels (JSON, or a|b in old ones),description
//! ```
//!
//! A type of feedback is a kind of ours by the same name, `read` a view and `star` a like; others want `--kind`. The
//! title of an item is its description, or its id. Labels of users have no place here.

use serde_json::{Map, Value, json};

use super::{Candidate, Content, Part, Row, Shape, item, need};
use crate::import::{Mapping, moment, sheet};

pub(super) const EXPECTED: &str =
    "feedback.csv and items.csv as the dashboard exports them, or their folder";

pub(super) fn part(candidate: &Candidate<'_>) -> Option<Part> {
    let comma = Shape::Csv(b',');
    if candidate.has_columns(&["feedback_type", "user_id", "item_id", "time_stamp"]) {
        let mapping = candidate.mapping.clone();
        let event = move |row: Row, records: &mut Vec<Value>| event(&row, &mapping, records);
        return Some(candidate.part(Content::Events, comma, None, event));
    }
    if candidate.has_columns(&["item_id", "is_hidden", "categories", "time_stamp"]) {
        return Some(candidate.part(Content::Items, comma, None, product));
    }
    None
}

fn event(row: &Row, mapping: &Mapping, records: &mut Vec<Value>) -> Result<(), String> {
    let kind = sheet::plain(need(row, "feedback_type")?);
    let kind = match mapping.kind(&kind).as_str() {
        Some("read") => "view".into(),
        Some("star") => "like".into(),
        _ => mapping.kind(&kind),
    };
    let time = sheet::plain(need(row, "time_stamp")?);
    let Some(occurred_at) = moment::from_text(&time) else {
        return Err(format!(
            "time_stamp is `{time:.60}`, expected a moment like 2020-01-01 01:01:01 +0000 UTC"
        ));
    };
    let mut event = json!({
        "kind": kind,
        "user_id": sheet::plain(need(row, "user_id")?),
        "item_id": sheet::plain(need(row, "item_id")?),
        "occurred_at": occurred_at,
    });
    if kind == "rating" {
        event["value"] = json!(sheet::number("value", need(row, "value")?)?);
    }
    records.push(event);
    Ok(())
}

fn product(row: Row, records: &mut Vec<Value>) -> Result<(), String> {
    let text = |name: &str| row.get(name).map(sheet::plain).unwrap_or_default();
    let id = sheet::plain(need(&row, "item_id")?);
    let categories = text("categories").replace('|', ", ");
    let labels = match text("labels").as_str() {
        "" | "null" => Value::Null,
        labels => {
            serde_json::from_str(labels).unwrap_or_else(|_not_json| labels.split('|').collect())
        }
    };
    let mut attributes = Map::new();
    for (name, value) in [
        ("categories", categories.as_str().into()),
        ("labels", labels),
    ] {
        if !sheet::is_empty(&value) {
            attributes.insert(name.to_owned(), value);
        }
    }
    let description = text("description");
    let mut product = item(&id, &description, &categories, attributes);
    product["available"] = (text("is_hidden") != "true").into();
    records.push(product);
    Ok(())
}
