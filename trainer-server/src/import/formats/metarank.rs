//! Metarank's events in JSON Lines (doc/event-schema.md and doc/timestamp-formats.md of metarank/metarank).
//!
//! Rankings become impressions at their places, interactions events of the kind that their type names, and items are
//! put together of all their events in the file, later fields over earlier ones: the title is the field `title` or
//! `name`, the text `description` or `text`, and the others are attributes. Events of users have no place here. Who
//! has no `user` is the `session`.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{Candidate, Content, Mapper, Part, Row, Shape, item, joined, need, need_one};
use crate::import::{Mapping, moment, sheet};

pub(super) const EXPECTED: &str =
    "lines of JSON with `event` (item, user, ranking or interaction) and `timestamp`";

/// Most items of a file, as many as a model may have.
const ITEMS_MAX: usize = shared_model::spec::NUM_ITEMS_MAX;

/// The file is read twice: items come before events, wherever they stand.
pub(super) fn parts(candidate: &Candidate<'_>) -> Vec<Part> {
    let fields = candidate.peeked.fields(&[]);
    let has = |name: &str| fields.iter().any(|field| field == name);
    if !has("event") || !has("timestamp") || has("event_id") {
        return Vec::new();
    }
    let mapping = candidate.mapping.clone();
    let event = move |row: Row, records: &mut Vec<Value>| event(&row, &mapping, records);
    vec![
        candidate.part(Content::Items, Shape::JsonLines, None, Items::default()),
        candidate.part(Content::Events, Shape::JsonLines, None, event),
    ]
}

fn event(row: &Row, mapping: &Mapping, records: &mut Vec<Value>) -> Result<(), String> {
    let name = sheet::plain(need(row, "event")?);
    match name.as_str() {
        "item" | "user" => return Ok(()),
        "ranking" | "interaction" => {}
        _ => {
            return Err(format!(
                "event is `{name:.60}`, expected item, user, ranking or interaction"
            ));
        }
    }
    let id = sheet::plain(need(row, "id")?);
    let user = sheet::plain(need_one(row, &["user", "session"])?);
    let occurred_at = moment::from_millis("timestamp", need(row, "timestamp")?)?;
    if name == "interaction" {
        let kind = mapping.kind(&sheet::plain(need(row, "type")?));
        records.push(json!({
            "event_id": id,
            "kind": kind,
            "user_id": user,
            "item_id": sheet::plain(need(row, "item")?),
            "occurred_at": occurred_at,
            "impression_id": row.get("ranking"),
        }));
        return Ok(());
    }
    let Some(shown) = need(row, "items")?.as_array() else {
        return Err("items is no list".to_owned());
    };
    for (position, shown) in shown.iter().enumerate() {
        let Some(item_id) = shown.get("id") else {
            return Err(format!("items has no `id` at place {position}"));
        };
        records.push(json!({
            "event_id": format!("{id}-{position}"),
            "kind": "impression",
            "user_id": user,
            "item_id": sheet::plain(item_id),
            "occurred_at": occurred_at,
            "impression_id": id,
            "position": position,
        }));
    }
    Ok(())
}

/// Items in the making, in the order in which they were first named.
#[derive(Default)]
struct Items {
    ids: Vec<String>,
    fields: HashMap<String, Map<String, Value>>,
}

impl Mapper for Items {
    fn map(&mut self, row: Row, _records: &mut Vec<Value>) -> Result<(), String> {
        if *need(&row, "event")? != "item" {
            return Ok(());
        }
        let id = sheet::plain(need(&row, "item")?);
        if !self.fields.contains_key(&id) {
            if self.ids.len() == ITEMS_MAX {
                return Err(format!("more than {ITEMS_MAX} items"));
            }
            self.ids.push(id.clone());
        }
        let fields = self.fields.entry(id).or_default();
        let named = row
            .get("fields")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for field in named {
            let name = field["name"]
                .as_str()
                .ok_or("fields has one without a name")?;
            fields.insert(name.to_owned(), field["value"].clone());
        }
        Ok(())
    }

    fn finish(&mut self, records: &mut Vec<Value>) {
        for id in self.ids.drain(..) {
            let mut fields = self.fields.remove(&id).unwrap_or_default();
            let mut take = |names: [&str; 2]| {
                let value = names.iter().find_map(|name| fields.remove(*name));
                joined(value.as_ref(), ", ")
            };
            let (title, text) = (take(["title", "name"]), take(["description", "text"]));
            records.push(item(&id, &title, &text, fields));
        }
    }
}
