//! The attribute by which an operator says that an item does harm: `"penalized"`, in `true`, `false` or 0 to 1.
//!
//! Not here: what training does about it (`train::objective`).

use serde_json::{Map, Value};

/// Name of the attribute.
pub(super) const ATTRIBUTE: &str = "penalized";

/// Harm of an item in 0 to 1, 0 where nothing is said; numbers may be texts, as tables have them. `None` where
/// what is said is neither.
#[must_use]
pub fn harm(attributes: &Map<String, Value>) -> Option<f32> {
    let harm = match attributes.get(ATTRIBUTE) {
        None | Some(Value::Null) => 0.0,
        Some(Value::Bool(is_harmful)) => f32::from(u8::from(*is_harmful)),
        Some(Value::Number(number)) => number.as_f64()? as f32, // rounded
        Some(Value::String(text)) if text.trim().is_empty() => 0.0,
        Some(Value::String(text)) => text.trim().parse().ok()?, // the caller quotes the text
        Some(Value::Array(_) | Value::Object(_)) => return None,
    };
    (0.0..=1.0).contains(&harm).then_some(harm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: Value) -> Option<f32> {
        let mut attributes = Map::new();
        attributes.insert(ATTRIBUTE.to_owned(), value);
        harm(&attributes)
    }

    #[test]
    fn harm_is_a_flag_or_a_share_and_nothing_else() {
        assert_eq!(harm(&Map::new()), Some(0.0));
        for (value, expected) in [
            (json!(true), Some(1.0)),
            (json!(false), Some(0.0)),
            (json!(0.25), Some(0.25)),
            (json!("0.25"), Some(0.25)),
            (json!(""), Some(0.0)),
            (json!(1.5), None),
            (json!(-0.1), None),
            (json!("NaN"), None),
            (json!("bad"), None),
            (json!([1]), None),
        ] {
            assert_eq!(of(value.clone()), expected, "{value}");
        }
    }
}
