//! A body `{"events": […]}`, or one element on each line, into its elements, so that one broken element does not take
//! the rest down.
//!
//! Sound JSON is parsed once. When that fails (a bare `NaN`, a number out of range), the text is cut
//! at the commas of the list and each element is parsed on its own; only text that cannot be cut,
//! such as a body that ends early, is refused as a whole.

use serde_json::{Map, Value};

use super::{Fault, RejectCode, type_name};

/// Why a whole body was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct BodyError {
    /// JSON pointer of what is wrong; empty for the body itself.
    pub pointer: String,
    /// What is wrong, with line and column where it is not JSON.
    pub detail: String,
}

/// The elements of the list and the other fields of the body.
#[derive(Debug)]
pub struct Elements {
    /// Each element, or why it is not JSON.
    pub list: Vec<Result<Value, Fault>>,
    /// Fields beside the list.
    pub others: Map<String, Value>,
}

/// Splits `body`; `name` is the name of the list.
///
/// # Errors
/// Not JSON and not to be cut, not an object, or no list of that name.
pub fn elements(body: &[u8], name: &str) -> Result<Elements, BodyError> {
    let refused = |pointer: &str, detail: String| BodyError {
        pointer: pointer.to_owned(),
        detail,
    };
    let value = match serde_json::from_slice::<Value>(body) {
        Ok(value) => value,
        Err(error) => {
            return cut(body, name).ok_or_else(|| refused("", error.to_string()));
        }
    };
    let Value::Object(mut others) = value else {
        return Err(refused(
            "",
            format!("expected an object, found {}", type_name(&value)),
        ));
    };
    let pointer = format!("/{name}");
    match others.remove(name) {
        Some(Value::Array(list)) => Ok(Elements {
            list: list.into_iter().map(Ok).collect(),
            others,
        }),
        Some(other) => Err(refused(
            &pointer,
            format!("expected a list, found {}", type_name(&other)),
        )),
        None => Err(refused(&pointer, "the field is missing".to_owned())),
    }
}

/// Splits a body with one element on each line; blank lines are none. Pointers begin with the number of the element.
#[must_use]
pub fn lines(body: &[u8]) -> Elements {
    let lines = body.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.trim_ascii().is_empty());
    let parse = |(line_idx, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|error| {
            let code = std::str::from_utf8(line).map_or(RejectCode::Malformed, code_of);
            let detail = format!("the line is not JSON: {error}");
            Fault::new(code, format!("/{line_idx}"), detail)
        })
    };
    Elements {
        list: lines.enumerate().map(parse).collect(),
        others: Map::new(),
    }
}

/// Cuts the list of that name out of text that is not sound JSON. What is left around it must be
/// sound, and so must one element at least, or its numbers must be what is wrong.
fn cut(body: &[u8], name: &str) -> Option<Elements> {
    let text = std::str::from_utf8(body).ok()?; // text that is not UTF-8 cannot be cut
    let key = format!("\"{name}\"");
    let after_key = text.get(text.find(&key)? + key.len()..)?;
    let list = after_key
        .trim_start()
        .strip_prefix(':')?
        .trim_start()
        .strip_prefix('[')?;
    let (parts, rest) = split_at_commas(list)?;
    let before = text.get(..text.len() - list.len())?;
    let frame: Value = serde_json::from_str(&format!("{before}{rest}")).ok()?; // the caller reports
    let Value::Object(mut others) = frame else {
        return None;
    };
    others.remove(name)?;

    let mut list = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        list.push(serde_json::from_str(part).map_err(|error| {
            let code = code_of(part);
            let detail = format!("the element is not JSON: {error}");
            Fault::new(code, format!("/{name}/{index}"), detail)
        }));
    }
    let is_worth_it = list
        .iter()
        .any(|element: &Result<Value, Fault>| match element {
            Ok(_) => true,
            Err(fault) => fault.code == RejectCode::InvalidValue,
        });
    is_worth_it.then_some(Elements { list, others })
}

/// The parts between the commas of a list, and the text from the `]` on that closes it.
fn split_at_commas(list: &str) -> Option<(Vec<&str>, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut depth, mut in_text, mut is_escaped) = (0, 0_u32, false, false);
    for (byte_idx, byte) in list.bytes().enumerate() {
        if in_text {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => depth += 1,
            b',' if depth == 0 => {
                parts.push(list.get(start..byte_idx)?);
                start = byte_idx + 1;
            }
            b']' if depth == 0 => {
                parts.push(list.get(start..byte_idx)?);
                return Some((parts, list.get(byte_idx..)?));
            }
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// Tells elements that fail because of a number (`NaN`, an infinity, out of range) from others.
fn code_of(part: &str) -> RejectCode {
    let is_out_of_range = serde_json::from_str::<Value>(part)
        .is_err_and(|error| error.to_string().starts_with("number out of range"));
    let finite = part
        .replace("-Infinity", "0")
        .replace("Infinity", "0")
        .replace("NaN", "0");
    if is_out_of_range || serde_json::from_str::<Value>(&finite).is_ok() {
        RejectCode::InvalidValue
    } else {
        RejectCode::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(body: &str) -> Vec<Option<RejectCode>> {
        let elements = elements(body.as_bytes(), "events").expect("splits");
        elements
            .list
            .into_iter()
            .map(|element| element.err().map(|fault| fault.code))
            .collect()
    }

    #[test]
    fn sound_json_is_split_with_its_other_fields() {
        let body = br#"{"sent_at": 5, "events": [1, {"a": [2]}]}"#;
        let elements = elements(body, "events").expect("splits");
        assert_eq!(elements.list.len(), 2);
        assert_eq!(elements.others["sent_at"], 5);
    }

    #[test]
    fn one_element_that_is_not_json_does_not_take_the_rest_down() {
        let invalid = Some(RejectCode::InvalidValue);
        let body = r#"{"events": [{"value": NaN}, {"value": 1}], "sent_at": 5}"#;
        assert_eq!(codes(body), [invalid, None]);
        assert_eq!(
            elements(body.as_bytes(), "events").expect("splits").others["sent_at"],
            5
        );
        assert_eq!(
            codes(r#"{"events": [{"a": "],}"}, {"value": 1e999}]}"#),
            [None, invalid]
        );
        assert_eq!(codes(r#"{"events": [{"value": -Infinity}]}"#), [invalid]);
        assert_eq!(
            codes(r#"{"events": [{"a": "\"]"}, {a: 1}]}"#),
            [None, Some(RejectCode::Malformed)]
        );
    }

    #[test]
    fn each_line_is_an_element_and_broken_ones_are_named_by_their_number() {
        let elements = lines(b"{\"a\": 1}\r\n\n {\"value\": NaN}\n[1\n\xff\n3");
        let faults: Vec<_> = elements
            .list
            .into_iter()
            .map(|element| element.err().map(|fault| (fault.code, fault.pointer)))
            .collect();
        let fault = |code, pointer: &str| Some((code, pointer.to_owned()));
        let expected = [
            None,
            fault(RejectCode::InvalidValue, "/1"),
            fault(RejectCode::Malformed, "/2"),
            fault(RejectCode::Malformed, "/3"),
            None,
        ];
        assert_eq!(faults, expected);
        assert!(lines(b" \n\n").list.is_empty());
    }

    #[test]
    fn a_body_that_cannot_be_cut_is_refused_with_line_and_pointer() {
        let refusal = |body: &str| elements(body.as_bytes(), "events").expect_err(body);
        assert!(
            refusal("{\"events\": [\n{\"a\": 1}, ")
                .detail
                .contains("line 2")
        );
        assert_eq!(refusal("[1]").pointer, "");
        assert_eq!(refusal(r#"{"events": 3}"#).pointer, "/events");
        assert_eq!(refusal(r#"{"event": []}"#).pointer, "/events");
        assert_eq!(refusal("").pointer, "");
        assert_eq!(refusal(r#"{"events": [{a: 1}, {b: 2}]}"#).pointer, "");
        assert_eq!(refusal(r#"{"events": [{"a": NaN}] "#).pointer, "");
        assert_eq!(
            elements(b"\xff\xfe", "events")
                .expect_err("not text")
                .pointer,
            ""
        );
    }

    #[test]
    fn every_truncation_of_a_body_is_refused_or_split_without_a_panic() {
        let body = r#"{"events": [{"a": "é\"]"}, {"value": NaN}, []]}"#;
        for (end, _) in body.char_indices() {
            drop(elements(&body.as_bytes()[..end], "events"));
        }
    }
}
