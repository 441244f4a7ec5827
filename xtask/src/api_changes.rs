//! Changes of the API that break a client: the kept documents of an earlier commit against those of the work tree.
//!
//! A client is broken where it may ask for less than before or must send more, and where an answer lacks what was always
//! there or holds what never was. Words, order, and what is new beside the old break nobody.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::workspace::Workspace;

const DOCUMENTS: [&str; 2] = ["docs/openapi/public.json", "docs/openapi/admin.json"];

/// Prints what breaks clients of `revision`, and fails where anything does.
///
/// # Errors
/// Something breaks them, or a document cannot be read.
pub(crate) fn check(workspace: &Workspace, revision: &str) -> anyhow::Result<()> {
    let mut num_breaking = 0;
    for path in DOCUMENTS {
        let object = format!("{revision}:{path}");
        let mut git = Command::new("git");
        let output = git
            .args(["show", &object])
            .current_dir(workspace.root())
            .output()?;
        ensure!(output.status.success(), "git has no {object}");
        let before = serde_json::from_slice(&output.stdout)?;
        let after =
            fs::read(workspace.path(path)).with_context(|| format!("cannot read {path}"))?;
        let after = serde_json::from_slice(&after)?;
        for change in breaking(&before, &after) {
            println!("{path}: {change}");
            num_breaking += 1;
        }
    }
    ensure!(
        num_breaking == 0,
        "{num_breaking} changes break clients of {revision}"
    );
    println!("nothing breaks clients of {revision}");
    Ok(())
}

/// Who makes the value: what a client sends may not become less, what it is answered not more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Maker {
    Client,
    Server,
}

struct Comparison<'a> {
    before: &'a Value,
    after: &'a Value,
    /// Shapes that were compared already, which may hold themselves.
    seen: BTreeSet<(Maker, String)>,
    found: Vec<String>,
}

fn breaking(before: &Value, after: &Value) -> Vec<String> {
    let mut comparison = Comparison {
        before,
        after,
        seen: BTreeSet::new(),
        found: Vec::new(),
    };
    for (path, methods) in entries(&before["paths"]) {
        for (method, about) in entries(methods) {
            let at = format!("{} {path}", method.to_uppercase());
            match after["paths"][path].get(method) {
                Some(now) => comparison.operation(about, now, &at),
                None => comparison.found.push(format!("{at} is gone")),
            }
        }
    }
    comparison.found
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let target = value["$ref"]
        .as_str()
        .and_then(|reference| document.pointer(reference.trim_start_matches('#')));
    target.unwrap_or(value)
}

/// The types that a shape allows; empty for any.
fn kinds(schema: &Value) -> Vec<&Value> {
    let kind = &schema["type"];
    match kind.as_array() {
        Some(kinds) => kinds.iter().collect(),
        None => Some(kind)
            .filter(|kind| !kind.is_null())
            .into_iter()
            .collect(),
    }
}

impl Comparison<'_> {
    fn operation(&mut self, before: &Value, after: &Value, at: &str) {
        for key in list(&before["security"]) {
            if !list(&after["security"]).is_empty() && !list(&after["security"]).contains(key) {
                self.found
                    .push(format!("{at} no longer takes the key {key}"));
            }
        }
        if list(&before["security"]).is_empty() && !list(&after["security"]).is_empty() {
            self.found.push(format!("{at} wants a key now"));
        }
        for parameter in list(&after["parameters"]) {
            let known = list(&before["parameters"])
                .iter()
                .find(|known| known["name"] == parameter["name"]);
            let at = format!("{at}, parameter {}", parameter["name"]);
            if parameter["required"] == true && known.is_none_or(|known| known["required"] != true)
            {
                self.found.push(format!("{at} is needed now"));
            }
            if let Some(known) = known {
                self.schema(Maker::Client, &known["schema"], &parameter["schema"], &at);
            }
        }
        self.content(
            Maker::Client,
            &before["requestBody"],
            &after["requestBody"],
            &format!("{at}, body"),
        );
        for (status, answer) in entries(&before["responses"]) {
            let at = format!("{at}, answer {status}");
            match after["responses"].get(status) {
                Some(now) => {
                    let (answer, now) = (resolved(self.before, answer), resolved(self.after, now));
                    self.content(Maker::Server, answer, now, &at);
                }
                None if status.starts_with('2') => self.found.push(format!("{at} is gone")),
                None => {}
            }
        }
    }

    fn content(&mut self, maker: Maker, before: &Value, after: &Value, at: &str) {
        for (content_type, content) in entries(&before["content"]) {
            let at = format!("{at} as {content_type}");
            match after["content"].get(content_type) {
                Some(now) => self.schema(maker, &content["schema"], &now["schema"], &at),
                None => self.found.push(format!("{at} is gone")),
            }
        }
    }

    fn schema(&mut self, maker: Maker, before: &Value, after: &Value, at: &str) {
        if let Some(reference) = before["$ref"].as_str()
            && !self.seen.insert((maker, reference.to_owned()))
        {
            return;
        }
        let (before, after) = (resolved(self.before, before), resolved(self.after, after));
        self.kind(maker, before, after, at);
        self.bounds(maker, before, after, at);
        let (wanted, always) = match maker {
            Maker::Client => (&after["required"], &before["required"]),
            Maker::Server => (&before["required"], &after["required"]),
        };
        for name in list(wanted)
            .iter()
            .filter(|name| !list(always).contains(name))
        {
            let said = if maker == Maker::Client {
                "is needed now"
            } else {
                "may be missing now"
            };
            self.found.push(format!("{at}: {name} {said}"));
        }
        for (name, field) in entries(&before["properties"]) {
            match after["properties"].get(name) {
                Some(now) => self.schema(maker, field, now, &format!("{at}: {name}")),
                None => self.found.push(format!("{at}: {name} is gone")),
            }
        }
        if before.get("items").is_some() {
            self.schema(
                maker,
                &before["items"],
                &after["items"],
                &format!("{at}, element"),
            );
        }
        for choices in ["anyOf", "oneOf", "allOf"] {
            for (before, after) in list(&before[choices]).iter().zip(list(&after[choices])) {
                self.schema(maker, before, after, at);
            }
        }
    }

    /// Types and choices: none that a client may send goes, none that it does not know is answered.
    fn kind(&mut self, maker: Maker, before: &Value, after: &Value, at: &str) {
        for (before, after) in [
            (kinds(before), kinds(after)),
            (
                list(&before["enum"]).iter().collect(),
                list(&after["enum"]).iter().collect(),
            ),
        ] {
            let (narrow, wide) = if maker == Maker::Client {
                (after, before)
            } else {
                (before, after)
            };
            let is_within = !wide.is_empty() && wide.iter().all(|choice| narrow.contains(choice));
            if narrow.is_empty() || is_within {
                continue; // anything goes, or no more than before
            }
            let said = if maker == Maker::Client {
                "allows less"
            } else {
                "may be something else"
            };
            self.found.push(format!("{at} {said} now"));
        }
    }

    fn bounds(&mut self, maker: Maker, before: &Value, after: &Value, at: &str) {
        if maker == Maker::Server {
            return;
        }
        for (bound, is_upper) in [
            ("maximum", true),
            ("maxLength", true),
            ("maxItems", true),
            ("minimum", false),
            ("minLength", false),
        ] {
            let Some(now) = after[bound].as_f64() else {
                continue;
            };
            let then = before[bound].as_f64();
            if then.is_none_or(|then| if is_upper { now < then } else { now > then }) {
                self.found
                    .push(format!("{at} has the bound {bound} {now} now"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        let item = json!({ "type": "object", "required": ["id"], "properties": {
            "id": { "type": "string", "maxLength": 128 }, "note": { "type": ["string", "null"] },
        } });
        let content =
            json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Item" } } });
        json!({
            "components": { "schemas": { "Item": item } },
            "paths": { "/items": { "post": {
                "security": [{ "adminToken": [] }],
                "requestBody": { "content": content },
                "responses": { "200": { "content": content } },
            } } },
        })
    }

    #[test]
    fn what_is_new_beside_the_old_breaks_nobody() {
        let before = document();
        let mut after = document();
        after["paths"]["/items"]["get"] = json!({ "responses": {} });
        after["components"]["schemas"]["Item"]["properties"]["price"] = json!({ "type": "number" });
        after["components"]["schemas"]["Item"]["description"] = json!("An item.");
        assert_eq!(breaking(&before, &after), Vec::<String>::new());
        assert_eq!(breaking(&after, &after), Vec::<String>::new());
    }

    #[test]
    fn what_a_client_relies_on_is_named_where_it_goes() {
        let item = "/components/schemas/Item";
        let cases = [
            (
                "/paths/~1items/post",
                Value::Null,
                "POST /items, body as application/json is gone",
            ),
            (
                &format!("{item}/required"),
                json!(["id", "note"]),
                "body as application/json: \"note\" is needed now",
            ),
            (
                &format!("{item}/required"),
                json!([]),
                "answer 200 as application/json: \"id\" may be missing now",
            ),
            (
                &format!("{item}/properties/note/type"),
                json!("string"),
                "body as application/json: note allows less now",
            ),
            (
                &format!("{item}/properties/id/maxLength"),
                json!(64),
                "body as application/json: id has the bound maxLength 64 now",
            ),
            (
                "/paths/~1items/post/security",
                json!([{ "readKey": [] }]),
                "no longer takes the key {\"adminToken\":[]}",
            ),
        ];
        for (place, value, expected) in cases {
            let mut after = document();
            *after.pointer_mut(place).expect("there") = value;
            let found = breaking(&document(), &after);
            assert!(
                found.iter().any(|change| change.ends_with(expected)),
                "{expected} in {found:?}"
            );
        }
    }
}
