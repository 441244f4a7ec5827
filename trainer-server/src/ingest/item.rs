//! One catalogue item from JSON, and the limits it must keep.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use shared_model::event::Item;

use super::harm::{ATTRIBUTE, harm};
use super::{Fault, Fields, RejectCode, type_name};

/// Longest title, in bytes.
const TITLE_BYTES_MAX: usize = 1024;
/// Longest text, in bytes; the encoder reads far less.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Largest attributes, in bytes of JSON.
const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;
/// Most named vectors of one item.
const NUM_VECTORS_MAX: usize = 8;
/// Longest vector.
const VECTOR_LEN_MAX: usize = 2048;

/// Reads an item that stands at `pointer`.
///
/// # Errors
/// The first field that is missing, of the wrong type or too large.
pub fn item_from_json(value: &Value, pointer: &str) -> Result<Item, Fault> {
    let fields = Fields::new(value, pointer)?;
    let title = fields.required("title", fields.text("title")?)?;
    check_len(&fields, "title", title.len(), TITLE_BYTES_MAX)?;
    let text = fields.text("text")?;
    check_len(&fields, "text", text.map_or(0, str::len), TEXT_BYTES_MAX)?;
    Ok(Item {
        item_id: fields.required("item_id", fields.id("item_id")?)?,
        title: title.to_owned(),
        text: text.map(str::to_owned),
        attributes: attributes(&fields)?,
        vectors: vectors(&fields)?,
        available: fields.bool("available")?.unwrap_or(true),
    })
}

fn check_len(fields: &Fields<'_>, name: &str, actual: usize, max: usize) -> Result<(), Fault> {
    if actual > max {
        let detail = format!("{actual} long, at most {max} are allowed");
        return Err(fields.fault(RejectCode::TooLarge, name, detail));
    }
    Ok(())
}

fn object<'a>(fields: &Fields<'a>, name: &str) -> Result<Option<&'a Map<String, Value>>, Fault> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => {
            let detail = format!("expected an object, found {}", type_name(other));
            Err(fields.fault(RejectCode::Malformed, name, detail))
        }
    }
}

fn attributes(fields: &Fields<'_>) -> Result<Map<String, Value>, Fault> {
    let Some(attributes) = object(fields, "attributes")? else {
        return Ok(Map::new());
    };
    let num_bytes = serde_json::to_vec(attributes).map_or(usize::MAX, |bytes| bytes.len());
    check_len(fields, "attributes", num_bytes, ATTRIBUTES_BYTES_MAX)?;
    if harm(attributes).is_none() {
        let said = &attributes[ATTRIBUTE];
        let detail = format!("`{ATTRIBUTE}` is {said}, expected true, false or 0 to 1");
        return Err(fields.fault(RejectCode::Malformed, "attributes", detail));
    }
    Ok(attributes.clone())
}

fn vectors(fields: &Fields<'_>) -> Result<BTreeMap<String, Vec<f32>>, Fault> {
    let Some(named) = object(fields, "vectors")? else {
        return Ok(BTreeMap::new());
    };
    check_len(fields, "vectors", named.len(), NUM_VECTORS_MAX)?;
    let mut vectors = BTreeMap::new();
    for (name, value) in named {
        let pointer = fields
            .pointer(&format!("vectors/{name}"))
            .replace("~1", "/");
        vectors.insert(name.clone(), vector(value, &pointer)?);
    }
    Ok(vectors)
}

fn vector(value: &Value, pointer: &str) -> Result<Vec<f32>, Fault> {
    let Some(numbers) = value.as_array() else {
        let detail = format!("expected a list of numbers, found {}", type_name(value));
        return Err(Fault::new(RejectCode::Malformed, pointer, detail));
    };
    if numbers.len() > VECTOR_LEN_MAX {
        let detail = format!(
            "{} long, at most {VECTOR_LEN_MAX} are allowed",
            numbers.len()
        );
        return Err(Fault::new(RejectCode::TooLarge, pointer, detail));
    }
    let mut vector = Vec::with_capacity(numbers.len());
    for (number_idx, number) in numbers.iter().enumerate() {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounding is meant, overflow is checked"
        )]
        let component = number.as_f64().map(|number| number as f32);
        match component {
            Some(component) if component.is_finite() => vector.push(component),
            _ => {
                let pointer = format!("{pointer}/{number_idx}");
                let detail = format!("{number} is not a finite number in f32");
                return Err(Fault::new(RejectCode::InvalidValue, pointer, detail));
            }
        }
    }
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_serde_reads() {
        let value = json!({
            "item_id": "i", "title": "Tea pot", "text": "Blue", "available": false,
            "attributes": { "price": 3 }, "vectors": { "image": [0.5, -1] },
        });
        let expected: Item = serde_json::from_value(value.clone()).expect("valid");
        assert_eq!(item_from_json(&value, "/items/0"), Ok(expected));
        let least = json!({ "item_id": "i", "title": "Tea pot" });
        assert!(item_from_json(&least, "/items/0").expect("valid").available);
    }

    #[test]
    fn every_bad_field_is_named_with_its_code() {
        let cases = [
            (
                "title",
                json!("x".repeat(1025)),
                RejectCode::TooLarge,
                "/items/0/title",
            ),
            (
                "title",
                Value::Null,
                RejectCode::Malformed,
                "/items/0/title",
            ),
            (
                "item_id",
                json!("a\nb"),
                RejectCode::Malformed,
                "/items/0/item_id",
            ),
            (
                "text",
                json!("x".repeat(16_385)),
                RejectCode::TooLarge,
                "/items/0/text",
            ),
            (
                "attributes",
                json!([1]),
                RejectCode::Malformed,
                "/items/0/attributes",
            ),
            (
                "vectors",
                json!({ "v": [1e39] }),
                RejectCode::InvalidValue,
                "/items/0/vectors/v/0",
            ),
            (
                "vectors",
                json!({ "v": ["1"] }),
                RejectCode::InvalidValue,
                "/items/0/vectors/v/0",
            ),
            (
                "vectors",
                json!({ "v": vec![0; 2049] }),
                RejectCode::TooLarge,
                "/items/0/vectors/v",
            ),
            (
                "available",
                json!("yes"),
                RejectCode::Malformed,
                "/items/0/available",
            ),
        ];
        for (name, value, code, pointer) in cases {
            let mut item = json!({ "item_id": "i", "title": "Tea pot" });
            item[name] = value;
            let fault = item_from_json(&item, "/items/0").expect_err(name);
            assert_eq!((fault.code, fault.pointer.as_str()), (code, pointer));
        }
    }
}
