//! Shapes of what is read and of what is answered, made ready for the document.

use std::collections::BTreeSet;

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

pub(super) const PLACE: &str = "#/components/schemas/";
/// Behind the name of a type as it is read, where it is answered otherwise.
const READ: &str = "Request";

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

/// All shapes by name. A type that is read otherwise than it is answered, as one with defaults is, has two: `paths` ask for
/// `NAMERequest` then, and so does whatever is read and holds it.
pub(super) fn joined(
    read: Map<String, Value>,
    mut answered: Map<String, Value>,
    paths: &mut Value,
) -> Map<String, Value> {
    let renamed = read_otherwise(&read, &answered);
    for (name, mut shape) in read {
        rename(&mut shape, &renamed);
        let name = if renamed.contains(&name) {
            format!("{name}{READ}")
        } else {
            name
        };
        answered.insert(name, shape);
    }
    let methods = paths.as_object_mut().into_iter().flatten();
    let operations = methods.flat_map(|(_, methods)| methods.as_object_mut().into_iter().flatten());
    for (_, operation) in operations {
        for part in ["requestBody", "parameters"] {
            if let Some(part) = operation.get_mut(part) {
                rename(part, &renamed);
            }
        }
    }
    answered
}

/// Names of the types that differ, themselves or through what they hold.
fn read_otherwise(read: &Map<String, Value>, answered: &Map<String, Value>) -> BTreeSet<String> {
    let mut renamed = BTreeSet::new();
    loop {
        let differs = |(name, shape): &(&String, &Value)| {
            let mut shape = (*shape).clone();
            rename(&mut shape, &renamed);
            !renamed.contains(*name) && answered.get(*name).is_some_and(|known| *known != shape)
        };
        let more: Vec<String> = read
            .iter()
            .filter(differs)
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return renamed;
        }
        renamed.extend(more);
    }
}

/// Lets references to these types lead to their shapes as they are read.
fn rename(value: &mut Value, renamed: &BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && let Some(name) = reference.strip_prefix(PLACE)
                && renamed.contains(name)
            {
                reference.push_str(READ);
            }
            fields.values_mut().for_each(|field| rename(field, renamed));
        }
        Value::Array(list) => list.iter_mut().for_each(|element| rename(element, renamed)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_is_read_otherwise_has_two_shapes_and_so_has_what_holds_it() {
        let named = |name: &str| json!({ "$ref": format!("{PLACE}{name}") });
        let shapes = |required: Value| {
            let arm = json!({ "type": "object", "required": required });
            let list = json!({ "type": "array", "items": named("Arm") });
            let all = json!({ "Arm": arm, "Arms": list, "Same": { "type": "string" } });
            all.as_object().expect("an object").clone()
        };
        let mut paths = json!({ "/x": { "post": {
            "requestBody": named("Arms"), "responses": named("Arms"), "parameters": [named("Same")],
        }}});
        let all = joined(shapes(json!([])), shapes(json!(["share"])), &mut paths);
        let names: Vec<&String> = all.keys().collect();
        assert_eq!(names, ["Arm", "ArmRequest", "Arms", "ArmsRequest", "Same"]);
        assert_eq!(all["ArmsRequest"]["items"], named("ArmRequest"));
        assert_eq!(all["Arms"]["items"], named("Arm"));
        let operation = &paths["/x"]["post"];
        assert_eq!(operation["requestBody"], named("ArmsRequest"));
        assert_eq!(operation["responses"], named("Arms"));
        assert_eq!(operation["parameters"], json!([named("Same")]));
    }
}
