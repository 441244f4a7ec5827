//! Tables of our own columns, by name and in any order: TSV, CSV and Parquet.
//!
//! ```text
//! events  user_id  item_id  timestamp (seconds or a moment) | occurred_at (milliseconds)
//!         [kind]  [rating | quantity | value]  [event_id]  [impression_id]  [position]  [propensity]  [model_version]
//! items   item_id  title  [text]  [year]  [genres, "|" between]  [available]  [attributes, vectors: JSON]
//!         [anything else → attribute]
//! ```
//!
//! A `rating` makes ratings, a `quantity` makes purchases of that amount, neither makes clicks, and
//! `kind` overrides both. Values are checked later, by the same rules as over HTTP.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::moment;
use super::report::hash_of;
use super::rows::Row;

/// Columns that mean something in events.
pub(super) const EVENT_COLUMNS: [&str; 14] = [
    "event_id",
    "kind",
    "user_id",
    "item_id",
    "timestamp",
    "occurred_at",
    "rating",
    "quantity",
    "value",
    "impression_id",
    "position",
    "propensity",
    "model_version",
    "arm",
];

/// Columns that mean something in items.
pub(super) const ITEM_COLUMNS: [&str; 8] = [
    "item_id",
    "title",
    "text",
    "year",
    "genres",
    "available",
    "attributes",
    "vectors",
];

/// Ids for events that have none: hashes of what the event says and of how many equal ones came before it in the
/// file, so that importing a file again, or a longer one, adds no event twice.
#[derive(Debug, Default)]
pub(super) struct EventIds {
    seen: HashMap<u64, u32>,
}

impl EventIds {
    /// Gives the event an id, unless it has one.
    pub(super) fn name(&mut self, event: &mut Value) {
        let Some(fields) = event.as_object_mut() else {
            return;
        };
        if fields.get("event_id").is_some_and(|id| !id.is_null()) {
            return;
        }
        let mut content = String::new();
        for name in EVENT_COLUMNS {
            if let Some(value) = fields.get(name) {
                content.push_str(&format!("{name}={value}\n"));
            }
        }
        let ordinal = self.seen.entry(hash_of(&content)).or_default();
        content.push_str(&ordinal.to_string());
        *ordinal += 1;
        let mut id = blake3::hash(content.as_bytes()).to_hex().to_string();
        id.truncate(32);
        fields.insert("event_id".to_owned(), id.into());
    }
}

/// An event in HTTP shape.
///
/// # Errors
/// A number or moment that is none, with its column.
pub(super) fn event(row: &Row) -> Result<Value, String> {
    let (mut event, mut kind) = (Map::new(), json!("click"));
    for (name, value) in row {
        if is_empty(value) {
            continue;
        }
        let field = match name.as_str() {
            "timestamp" => json!(moment::from_secs(name, value)?),
            "occurred_at" => json!(moment::from_millis(name, value)?),
            "rating" | "quantity" | "value" | "propensity" => json!(number(name, value)?),
            "position" | "model_version" => json!(count(name, value)?),
            name if EVENT_COLUMNS.contains(&name) => text(value),
            _ => continue,
        };
        match name.as_str() {
            "timestamp" => event.insert("occurred_at".to_owned(), field),
            "rating" | "quantity" => {
                kind = json!(if name == "rating" {
                    "rating"
                } else {
                    "purchase"
                });
                event.insert("value".to_owned(), field)
            }
            name => event.insert(name.to_owned(), field),
        };
    }
    event.entry("kind").or_insert(kind);
    Ok(Value::Object(event))
}

/// An item in HTTP shape.
///
/// # Errors
/// A cell that is not what its column holds, with its column.
pub(super) fn item(row: &Row) -> Result<Value, String> {
    let (mut item, mut attributes) = (Map::new(), Map::new());
    let mut parts = Vec::new();
    for (name, value) in row {
        if is_empty(value) {
            continue;
        }
        match name.as_str() {
            "item_id" | "title" => {
                item.insert(name.clone(), text(value));
            }
            "text" => parts.push((0, plain(value))),
            "year" => parts.push((1, plain(value))),
            "genres" => parts.push((2, plain(value).replace('|', ", "))),
            "available" => {
                item.insert(name.clone(), truth(name, value)?);
            }
            "attributes" => attributes.extend(object(name, value)?),
            "vectors" => {
                item.insert(name.clone(), object(name, value)?.into());
            }
            _ => {
                attributes.insert(name.clone(), value.clone());
            }
        }
    }
    parts.sort(); // text, year, genres, in whatever order the columns are
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    if !parts.is_empty() {
        item.insert("text".to_owned(), parts.join(", ").into());
    }
    item.insert("attributes".to_owned(), attributes.into());
    Ok(Value::Object(item))
}

/// Whether a cell has nothing in it.
pub(super) fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}

/// A text; numbers as they are written.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => {
            number.to_string().trim_end_matches(".0").to_owned()
        }
        other => other.to_string(),
    }
}

fn text(value: &Value) -> Value {
    plain(value).into()
}

/// A finite number.
pub(super) fn number(name: &str, value: &Value) -> Result<f64, String> {
    let number = match value {
        Value::String(text) => text.trim().parse::<f64>().ok(), // a text that is no number
        other => other.as_f64(),
    };
    let number = number.filter(|number| number.is_finite());
    number.ok_or_else(|| format!("{name} is {}, expected a number", shown(value)))
}

fn count(name: &str, value: &Value) -> Result<u64, String> {
    let count = match value {
        Value::String(text) => text.trim().parse().ok(), // a text that is no number
        other => other.as_u64(),
    };
    count.ok_or_else(|| {
        format!(
            "{name} is {}, expected a whole number of at least 0",
            shown(value)
        )
    })
}

fn truth(name: &str, value: &Value) -> Result<Value, String> {
    match plain(value).to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(Value::Bool(true)),
        "false" | "0" => Ok(Value::Bool(false)),
        _ => Err(format!(
            "{name} is {}, expected true or false",
            shown(value)
        )),
    }
}

fn object(name: &str, value: &Value) -> Result<Row, String> {
    let object = match value {
        Value::String(text) => serde_json::from_str(text).ok(), // a text that is no object
        Value::Object(object) => Some(object.clone()),
        _ => None,
    };
    object.ok_or_else(|| format!("{name} is {}, expected a JSON object", shown(value)))
}

/// A value for a message.
pub(super) fn shown(value: &Value) -> String {
    format!("`{:.60}`", plain(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(names: &str, cells: &str) -> Row {
        let names = names.split(' ').map(str::to_owned);
        names.zip(cells.split(' ').map(Value::from)).collect()
    }

    #[test]
    fn columns_decide_kind_and_value() {
        let rating = event(&row("user_id item_id rating timestamp", "u i 6 1362062307"));
        let rating = rating.expect("valid");
        assert_eq!(
            (&rating["kind"], &rating["value"]),
            (&json!("rating"), &json!(6.0))
        );
        assert_eq!(rating["occurred_at"], json!(1_362_062_307_000_i64));
        let bought = event(&row("user_id item_id quantity timestamp", "u i 8 1")).expect("valid");
        assert_eq!(
            (&bought["kind"], &bought["value"]),
            (&json!("purchase"), &json!(8.0))
        );
        let clicked = event(&row("timestamp user_id item_id", "1 u i")).expect("valid");
        assert_eq!(
            (&clicked["kind"], clicked.get("value")),
            (&json!("click"), None)
        );
        let error = event(&row("user_id item_id timestamp", "u i nan")).expect_err("no time");
        assert!(error.starts_with("timestamp is `nan`, expected"), "{error}");
        let error = event(&row("position", "-1")).expect_err("no place");
        assert_eq!(
            error,
            "position is `-1`, expected a whole number of at least 0"
        );
    }

    #[test]
    fn ids_are_stable_over_runs_and_tell_equal_events_apart() {
        let ids = |users: &[&str]| -> Vec<Value> {
            let mut ids = EventIds::default();
            let named = users.iter().map(|user| {
                let mut event = json!({ "user_id": user });
                ids.name(&mut event);
                event["event_id"].take()
            });
            named.collect()
        };
        let first = ids(&["a", "b", "a"]);
        let longer = ids(&["a", "b", "a", "a"]);
        assert_eq!(first, longer[..3]);
        let distinct: std::collections::BTreeSet<_> = longer.iter().map(Value::as_str).collect();
        assert_eq!(distinct.len(), 4);
        let mut named = json!({ "event_id": "e" });
        EventIds::default().name(&mut named);
        assert_eq!(named["event_id"], "e");
    }

    #[test]
    fn year_and_genres_become_text_and_the_rest_attributes() {
        let cells = [
            ("genres", "Comedy|Short"),
            ("year", "1915"),
            ("title", "The Bank"),
            ("price", "0.65"),
            ("available", "false"),
            ("attributes", r#"{"reel": 2}"#),
        ];
        let row = cells.map(|(name, cell)| (name.to_owned(), Value::from(cell)));
        let item = item(&row.into_iter().collect()).expect("valid");
        assert_eq!(item["text"], json!("1915, Comedy, Short"));
        assert_eq!(item["attributes"], json!({ "price": "0.65", "reel": 2 }));
        assert_eq!(item["available"], json!(false));
    }
}
