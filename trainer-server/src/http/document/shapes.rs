//! Shapes of what is read and of what is answered, made ready for the document.

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

pub(super) const PLACE: &str = "#/components/schemas/";

/// The shapes that a generator was asked for.
pub(super) fn definitions(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut shapes = generator.take_definitions(true);
    shapes.values_mut().for_each(tidy);
    shapes
}

/// Words as a page shows them, and the bounds of numbers.
pub(super) fn tidy(value: &mut Value) {
    if let Some(list) = value.as_array_mut() {
        list.iter_mut().for_each(tidy);
    }
    let Some(object) = value.as_object_mut() else {
        return;
    };
    if let Some(Value::String(words)) = object.get_mut("description") {
        *words = plain(words);
    }
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default"); // says no more than that the field may be left out
    }
    if let Some(format) = object.get("format").and_then(Value::as_str) {
        for (bound, limit) in bounds(format) {
            object.entry(bound).or_insert(limit);
        }
    }
    object.values_mut().for_each(tidy);
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

/// All shapes by name.
///
/// # Panics
/// If a type has one shape where it is read and another where it is answered, as a field with a default would: an answer of
/// that address needs a type of its own.
pub(super) fn joined(
    read: Map<String, Value>,
    mut answered: Map<String, Value>,
) -> Map<String, Value> {
    for (name, shape) in read {
        let known = answered.get(&name);
        assert!(
            known.is_none_or(|known| *known == shape),
            "{name} has two shapes"
        );
        answered.insert(name, shape);
    }
    answered
}
