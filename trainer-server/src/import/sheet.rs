//! Tab-separated files: columns by name, in any order.
//!
//! ```text
//! events  user_id  item_id  timestamp (seconds)  [rating | quantity]  [kind]
//! items   item_id  title  [text]  [year]  [genres, "|" between]  [anything else → attribute]
//! ```
//!
//! A `rating` makes ratings, a `quantity` makes purchases of that amount, neither makes clicks, and
//! `kind` overrides both. Such files carry no event ids, so a line's id is the hash of its text and
//! of how many equal lines came before it: importing a file again, or a longer one, adds no event twice.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// The header of a file.
#[derive(Debug)]
pub struct Columns {
    names: Vec<String>,
}

/// How often each line was seen, by hash.
#[derive(Debug, Default)]
pub struct EventIds {
    seen: HashMap<[u8; 16], u64>,
}

impl EventIds {
    /// The id of a line: stable over runs, different for equal lines of one file.
    fn next(&mut self, text: &str) -> String {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        let ordinal = self.seen.entry(key).or_default();
        let mut hasher = blake3::Hasher::new();
        hasher.update(text.as_bytes());
        hasher.update(&ordinal.to_le_bytes());
        *ordinal += 1;
        let mut id = hasher.finalize().to_hex().to_string();
        id.truncate(32);
        id
    }
}

impl Columns {
    /// Reads a header.
    #[must_use]
    pub fn new(header: &str) -> Self {
        Self {
            names: header
                .split('\t')
                .map(|name| name.trim().to_owned())
                .collect(),
        }
    }

    /// Whether a column of that name is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|column| column == name)
    }

    fn fields<'a>(&'a self, text: &'a str) -> Result<Vec<(&'a str, &'a str)>, String> {
        let fields: Vec<&str> = text.split('\t').collect();
        if fields.len() != self.names.len() {
            return Err(format!(
                "{} fields, the header has {}",
                fields.len(),
                self.names.len()
            ));
        }
        Ok(self.names.iter().map(String::as_str).zip(fields).collect())
    }

    /// An event in HTTP shape; its values are checked later, by the same rules as over HTTP.
    ///
    /// # Errors
    /// Another number of fields than the header, or a number that is none.
    pub fn event(&self, text: &str, ids: &mut EventIds) -> Result<Value, String> {
        let (mut event, mut kind, mut named_kind) = (Map::new(), "click", None);
        for (name, field) in self.fields(text)? {
            match name {
                "user_id" | "item_id" => {
                    event.insert(name.to_owned(), field.into());
                }
                "timestamp" => {
                    let millis = number(name, field)? * 1000.0;
                    #[expect(
                        clippy::cast_possible_truncation,
                        reason = "`as` saturates, fractions of a millisecond are dropped"
                    )]
                    event.insert("occurred_at".to_owned(), (millis as i64).into());
                }
                "rating" | "quantity" => {
                    kind = if name == "rating" {
                        "rating"
                    } else {
                        "purchase"
                    };
                    event.insert("value".to_owned(), json!(number(name, field)?));
                }
                "kind" => named_kind = Some(field),
                _ => {}
            }
        }
        event.insert("kind".to_owned(), named_kind.unwrap_or(kind).into());
        event.insert("event_id".to_owned(), ids.next(text).into());
        Ok(Value::Object(event))
    }

    /// An item in HTTP shape; its values are checked later, by the same rules as over HTTP.
    ///
    /// # Errors
    /// Another number of fields than the header.
    pub fn item(&self, text: &str) -> Result<Value, String> {
        let (mut item, mut attributes) = (Map::new(), Map::new());
        let mut parts = Vec::new();
        for (name, field) in self.fields(text)? {
            match name {
                "item_id" | "title" => {
                    item.insert(name.to_owned(), field.into());
                }
                "text" | "year" => parts.push(field),
                "genres" => parts.extend(field.split('|')),
                _ if field.is_empty() => {}
                _ => {
                    attributes.insert(name.to_owned(), field.into());
                }
            }
        }
        parts.retain(|part| !part.is_empty());
        if !parts.is_empty() {
            item.insert("text".to_owned(), parts.join(", ").into());
        }
        item.insert("attributes".to_owned(), attributes.into());
        Ok(Value::Object(item))
    }
}

fn number(name: &str, field: &str) -> Result<f64, String> {
    match field.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("{name} is `{field}`, expected a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_decide_kind_and_value() {
        let mut ids = EventIds::default();
        let mut event = |header: &str, line: &str| Columns::new(header).event(line, &mut ids);
        let rating =
            event("user_id\titem_id\trating\ttimestamp", "u\ti\t6\t1362062307").expect("valid");
        assert_eq!(
            (&rating["kind"], &rating["value"]),
            (&json!("rating"), &json!(6.0))
        );
        assert_eq!(rating["occurred_at"], json!(1_362_062_307_000_i64));
        let bought = event("user_id\titem_id\tquantity\ttimestamp", "u\ti\t8\t1").expect("valid");
        assert_eq!(
            (&bought["kind"], &bought["value"]),
            (&json!("purchase"), &json!(8.0))
        );
        let clicked = event("timestamp\tuser_id\titem_id", "1\tu\ti").expect("valid");
        assert_eq!(
            (&clicked["kind"], clicked.get("value")),
            (&json!("click"), None)
        );
        assert!(event("user_id\titem_id\ttimestamp", "u\ti\tnan").is_err());
        assert!(event("user_id\titem_id\ttimestamp", "u\ti").is_err());
    }

    #[test]
    fn ids_are_stable_over_runs_and_tell_equal_lines_apart() {
        let ids = |lines: &[&str]| -> Vec<String> {
            let mut ids = EventIds::default();
            lines.iter().map(|line| ids.next(line)).collect()
        };
        let first = ids(&["a", "b", "a"]);
        let longer = ids(&["a", "b", "a", "a"]);
        assert_eq!(first, longer[..3]);
        assert_eq!(std::collections::BTreeSet::from_iter(&longer).len(), 4);
    }

    #[test]
    fn year_and_genres_become_text_and_the_rest_attributes() {
        let columns = Columns::new("item_id\ttitle\tyear\tgenres\tprice");
        let item = columns
            .item("i\tThe Bank\t1915\tComedy|Short\t0.65")
            .expect("valid");
        assert_eq!(item["text"], json!("1915, Comedy, Short"));
        assert_eq!(item["attributes"], json!({ "price": "0.65" }));
    }
}
