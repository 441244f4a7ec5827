//! Shapes of what is read and of what is answered, made ready for the document and put side by side.
//!
//! A type that is read and answered may have two shapes: a field with a default need not be sent, and is always answered.
//! The shape of the answer then has a name of its own.

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

pub(super) const PLACE: &str = "#/components/schemas/";

/// The shapes that a generator was asked for.
pub(super) fn definitions(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut shapes = json!(generator.take_definitions(true));
    tidy(&mut shapes);
    match shapes {
        Value::Object(shapes) => shapes,
        _ => unreachable!("a map is an object"),
    }
}

/// Words as a page shows them, and the bounds of numbers.
pub(super) fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(words)) = object.get_mut("description") {
                *words = plain(words);
            }
            if let Some(format) = object.get("format").and_then(Value::as_str) {
                for (bound, limit) in bounds(format) {
                    object.entry(bound).or_insert(limit);
                }
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Doc comments are wrapped, and name types in brackets.
fn plain(words: &str) -> String {
    let paragraphs = words.split("\n\n");
    let joined: Vec<_> = paragraphs
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect();
    joined.join("\n\n").replace("[`", "`").replace("`]", "`")
}

/// What the type of a number can hold.
fn bounds(format: &str) -> Vec<(&'static str, Value)> {
    match format {
        "uint64" | "uint" => vec![("minimum", json!(0)), ("maximum", json!(u64::MAX))],
        "uint32" => vec![("minimum", json!(0)), ("maximum", json!(u32::MAX))],
        "int64" => vec![("minimum", json!(i64::MIN)), ("maximum", json!(i64::MAX))],
        _ => Vec::new(),
    }
}

/// In what is read, a field that need not be there may be null.
pub(super) fn allow_null(shapes: &mut Map<String, Value>) {
    for shape in shapes.values_mut() {
        let required = shape["required"].as_array().cloned().unwrap_or_default(); // none is none
        let Some(Value::Object(fields)) = shape.get_mut("properties") else {
            continue;
        };
        for (name, field) in fields {
            let kind = field["type"].clone();
            if kind.is_string() && !required.contains(&json!(name)) {
                field["type"] = json!([kind, "null"]);
            }
        }
    }
}

/// All shapes by name; `paths` is where those of the answers are used.
pub(super) fn joined(
    mut read: Map<String, Value>,
    mut answered: Map<String, Value>,
    paths: &mut Value,
) -> Map<String, Value> {
    loop {
        let other = answered.iter().find(|(name, shape)| {
            let is_other = read.get(*name).is_some_and(|known| known != *shape);
            is_other
        });
        let Some(name) = other.map(|(name, _)| name.clone()) else {
            break;
        };
        let new_name = format!("{name}Answer");
        let shape = answered.remove(&name).expect("found above");
        answered.insert(new_name.clone(), shape);
        let (before, after) = (format!("{PLACE}{name}"), format!("{PLACE}{new_name}"));
        answered
            .values_mut()
            .for_each(|shape| lead(shape, &before, &after));
        for operation in operations(paths) {
            lead(&mut operation["responses"], &before, &after);
        }
    }
    read.append(&mut answered);
    read
}

fn operations(paths: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = paths.as_object_mut().into_iter().flatten();
    paths.flat_map(|(_, methods)| {
        methods
            .as_object_mut()
            .into_iter()
            .flatten()
            .map(|(_, operation)| operation)
    })
}

/// References to `before` lead to `after`.
fn lead(value: &mut Value, before: &str, after: &str) {
    match value {
        Value::Object(object) => {
            if object
                .get("$ref")
                .is_some_and(|reference| reference == before)
            {
                object.insert("$ref".to_owned(), after.into());
            }
            for value in object.values_mut() {
                lead(value, before, after);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| lead(value, before, after)),
        _ => {}
    }
}
