//! One rule of an operator, as it is proposed, kept and listed, and how a proposal is read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared_model::event::Item;
use shared_model::ids::ItemId;
use shared_model::manifest::POINTS_MAX;

use crate::ingest::{Fault, Fields, RejectCode};
use crate::rollout::{OPERATOR_NAME_LEN_MAX, is_operator_name};

/// Largest body of a proposal, in bytes: all texts and ids of a rule are in it.
pub const DRAFT_BYTES_MAX: usize = 16 << 10;
/// Last position that an item may be pinned to.
const POSITION_MAX: u64 = 299;
/// Longest reason, in characters.
const REASON_LEN_MAX: usize = 500;
/// Longest name and value of an attribute, in characters.
const ATTRIBUTE_LEN_MAX: usize = 256;

/// What is done to items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// They stand in no list.
    Block,
    /// The item stands at this place, zero-based.
    Pin {
        /// The place.
        #[schemars(range(max = POSITION_MAX))]
        position: u32,
    },
    /// Their scores rise.
    Boost {
        /// By how much, above 0, at most 100.
        #[schemars(extend("exclusiveMinimum" = 0, "maximum" = POINTS_MAX))]
        points: f64,
    },
    /// Their scores fall.
    Bury {
        /// By how much, above 0, at most 100.
        #[schemars(extend("exclusiveMinimum" = 0, "maximum" = POINTS_MAX))]
        points: f64,
    },
}

/// Which items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// These.
    ItemIds(#[schemars(length(min = 1))] Vec<ItemId>),
    /// All whose attribute has this value, now and later.
    Attribute {
        /// Of the attribute.
        #[schemars(length(min = 1, max = ATTRIBUTE_LEN_MAX))]
        name: String,
        /// As a text; an attribute that is a list has each of its values.
        #[schemars(length(min = 1, max = ATTRIBUTE_LEN_MAX))]
        value: String,
    },
}

/// What is proposed, and by whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Draft {
    /// What is done.
    #[serde(flatten)]
    pub action: Action,
    /// To which items.
    #[serde(flatten)]
    pub target: Target,
    /// Why.
    #[schemars(length(min = 1, max = REASON_LEN_MAX))]
    pub reason: String,
    /// The name that the proposer gave.
    #[schemars(length(min = 1, max = OPERATOR_NAME_LEN_MAX))]
    pub by: String,
    /// When it ends by itself, milliseconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// Where a proposal came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Somebody with the admin token.
    Operator,
    /// The server: an item whose share rose fast (`bursts`).
    Burst,
    /// The server: an item whose attribute asks for a review.
    Marked,
}

/// Where a rule stands; it has an effect only while it is [`Self::Active`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleState {
    /// Waits for approval.
    Proposed,
    /// Approved.
    Active,
    /// Never approved.
    Rejected,
    /// Taken back, before or after it was approved.
    Withdrawn,
    /// Its time has passed.
    Expired,
}

/// Who did something, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// The name that they gave; `freshet` is the server itself.
    pub by: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub at: i64,
}

/// A rule and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    /// Counts from 1 and is never given twice.
    pub id: u64,
    /// What was proposed.
    #[serde(flatten)]
    pub draft: Draft,
    /// Where it came from.
    pub source: Source,
    /// What the server saw, where the proposal is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// When it was proposed, milliseconds since 1970-01-01 UTC.
    pub proposed_at: i64,
    /// Where it stands.
    pub state: RuleState,
    /// Who approved it.
    pub approvals: Vec<Act>,
    /// Who ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Act>,
}

impl Rule {
    /// Whether it is about this item.
    #[must_use]
    pub fn is_about(&self, item: &Item) -> bool {
        match &self.draft.target {
            Target::ItemIds(ids) => ids.contains(&item.item_id),
            Target::Attribute { name, value } => has_value(item, name, value),
        }
    }

    /// The people behind it, in lower case: who proposed it, unless that is the server, and who approved it.
    pub(super) fn people(&self) -> Vec<String> {
        let proposer = (self.source == Source::Operator).then_some(&self.draft.by);
        let approvers = self.approvals.iter().map(|act| &act.by);
        let people = proposer.into_iter().chain(approvers);
        people.map(|name| name.trim().to_lowercase()).collect()
    }

    /// Whether its time has passed.
    #[must_use]
    pub fn is_over(&self, now_millis: i64) -> bool {
        self.draft.expires_at.is_some_and(|at| at <= now_millis)
    }
}

/// Whether an attribute of an item, or one of a list, has this value as a text.
pub(super) fn has_value(item: &Item, name: &str, value: &str) -> bool {
    let is_it = |found: &Value| match found {
        Value::String(text) => text == value,
        Value::Number(_) | Value::Bool(_) => found.to_string() == value,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    };
    match item.attributes.get(name) {
        Some(Value::Array(list)) => list.iter().any(is_it),
        found => found.is_some_and(is_it),
    }
}

/// Reads a proposal; `is_known` says whether an item is in the catalogue.
///
/// # Errors
/// The first field that is missing or out of bounds, with its value.
pub fn read_draft(
    body: &Value,
    is_known: impl Fn(&ItemId) -> bool,
    now_millis: i64,
) -> Result<Draft, Fault> {
    let fields = Fields::new(body, "")?;
    let action = read_action(&fields)?;
    let target = read_target(&fields, is_known)?;
    if let (Action::Pin { .. }, Target::ItemIds(ids)) = (&action, &target)
        && ids.len() != 1
    {
        let detail = format!("expected one item to pin, found {}", ids.len());
        return Err(fields.fault(RejectCode::Malformed, "item_ids", detail));
    }
    if let (Action::Pin { .. }, Target::Attribute { name, .. }) = (&action, &target) {
        let detail =
            format!("expected `item_ids` with one item to pin, found the attribute {name}");
        return Err(fields.fault(RejectCode::Malformed, "attribute", detail));
    }
    let expires_at = fields.i64("expires_at")?;
    if let Some(at) = expires_at.filter(|at| *at <= now_millis) {
        let detail = format!("expected a time after {now_millis}, found {at}");
        return Err(fields.fault(RejectCode::Malformed, "expires_at", detail));
    }
    Ok(Draft {
        action,
        target,
        reason: text(&fields, "reason", REASON_LEN_MAX)?,
        by: read_name(&fields)?,
        expires_at,
    })
}

/// The name of whoever acts, which is always wanted.
///
/// # Errors
/// It is missing or no name.
pub fn read_name(fields: &Fields<'_>) -> Result<String, Fault> {
    let by = fields.required("by", fields.text("by")?)?;
    if is_operator_name(by) && !by.trim().is_empty() {
        return Ok(by.to_owned());
    }
    let detail = format!(
        "expected 1 to {OPERATOR_NAME_LEN_MAX} characters without control characters, found {by:?}"
    );
    Err(fields.fault(RejectCode::Malformed, "by", detail))
}

fn read_action(fields: &Fields<'_>) -> Result<Action, Fault> {
    let points = || {
        let points = fields.required("points", fields.f64("points")?)?;
        if points > 0.0 && points <= POINTS_MAX {
            return Ok(points);
        }
        let detail = format!("expected above 0 and at most {POINTS_MAX}, found {points}");
        Err(fields.fault(RejectCode::Malformed, "points", detail))
    };
    match fields.required("action", fields.text("action")?)? {
        "block" => Ok(Action::Block),
        "boost" => Ok(Action::Boost { points: points()? }),
        "bury" => Ok(Action::Bury { points: points()? }),
        "pin" => {
            let position = fields.required("position", fields.u64("position")?)?;
            let in_range = u32::try_from(position).ok();
            let in_range = in_range.filter(|_| position <= POSITION_MAX);
            let detail = format!("expected 0 to {POSITION_MAX}, found {position}");
            let fault = || fields.fault(RejectCode::Malformed, "position", detail);
            Ok(Action::Pin {
                position: in_range.ok_or_else(fault)?,
            })
        }
        other => {
            let detail = format!("expected block, pin, boost or bury, found {other:?}");
            Err(fields.fault(RejectCode::Malformed, "action", detail))
        }
    }
}

fn read_target(fields: &Fields<'_>, is_known: impl Fn(&ItemId) -> bool) -> Result<Target, Fault> {
    let (ids, attribute) = (fields.list("item_ids")?, fields.get("attribute"));
    match (ids, attribute) {
        (Some(list), None) => read_ids(fields, list, is_known).map(Target::ItemIds),
        (None, Some(attribute)) => {
            let fields = Fields::new(attribute, "/attribute")?;
            Ok(Target::Attribute {
                name: text(&fields, "name", ATTRIBUTE_LEN_MAX)?,
                value: text(&fields, "value", ATTRIBUTE_LEN_MAX)?,
            })
        }
        (Some(_), Some(_)) | (None, None) => {
            let detail = "expected either `item_ids` or `attribute`";
            Err(fields.fault(RejectCode::Malformed, "item_ids", detail))
        }
    }
}

fn read_ids(
    fields: &Fields<'_>,
    list: &[Value],
    is_known: impl Fn(&ItemId) -> bool,
) -> Result<Vec<ItemId>, Fault> {
    if list.is_empty() {
        return Err(fields.fault(
            RejectCode::Malformed,
            "item_ids",
            "expected at least one item",
        ));
    }
    let mut ids = Vec::new();
    for (idx, value) in list.iter().enumerate() {
        let fault = |code, detail: String| Fault::new(code, format!("/item_ids/{idx}"), detail);
        let text = value.as_str().unwrap_or_default(); // refused as an empty id
        let id = ItemId::new(text)
            .map_err(|error| fault(RejectCode::Malformed, format!("{error}, found {value}")))?;
        if !is_known(&id) {
            let detail = format!("no item {id} in the catalogue");
            return Err(fault(RejectCode::UnknownItem, detail));
        }
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

fn text(fields: &Fields<'_>, name: &str, len_max: usize) -> Result<String, Fault> {
    let text = fields.required(name, fields.text(name)?)?;
    let len = text.chars().count();
    if text.trim().is_empty() || len > len_max {
        let detail = format!("expected 1 to {len_max} characters, found {len}");
        return Err(fields.fault(RejectCode::Malformed, name, detail));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW_MILLIS: i64 = 1000;

    fn body(changed: &[(&str, Value)]) -> Value {
        let mut body = json!({ "action": "bury", "points": 2.5, "item_ids": ["a"], "reason": "broken", "by": "anna" });
        for (name, value) in changed {
            body[name] = value.clone();
        }
        body
    }

    fn read(body: &Value) -> Result<Draft, Fault> {
        read_draft(body, |id| id.as_str().len() == 1, NOW_MILLIS)
    }

    #[test]
    fn a_proposal_is_kept_as_it_is_read() {
        let attribute = json!({ "name": "brand", "value": "Acme" });
        for changed in [
            body(&[]),
            body(&[("expires_at", json!(NOW_MILLIS + 1))]),
            body(&[("action", json!("pin")), ("position", json!(299))]),
            body(&[("item_ids", Value::Null), ("attribute", attribute)]),
        ] {
            let draft = read(&changed).expect("sound");
            let kept = serde_json::to_value(&draft).expect("serializes");
            assert_eq!(serde_json::from_value::<Draft>(kept).expect("read"), draft);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value() {
        let long = "x".repeat(REASON_LEN_MAX + 1);
        for (changed, pointer, part) in [
            (("action", json!("hide")), "/action", "found \"hide\""),
            (("points", json!(0)), "/points", "found 0"),
            (("points", json!(100.5)), "/points", "found 100.5"),
            (
                ("points", json!("2")),
                "/points",
                "expected a number, found \"2\"",
            ),
            (("points", Value::Null), "/points", "missing"),
            (("item_ids", json!([])), "/item_ids", "at least one"),
            (("item_ids", json!(["a", 7])), "/item_ids/1", "found 7"),
            (("item_ids", json!(["bb"])), "/item_ids/0", "no item bb"),
            (("attribute", json!({})), "/item_ids", "either"),
            (("reason", json!(" ")), "/reason", "found 1"),
            (("reason", json!(long)), "/reason", "found 501"),
            (("by", json!("a\nb")), "/by", "found \"a\\nb\""),
            (("by", Value::Null), "/by", "missing"),
            (
                ("expires_at", json!(NOW_MILLIS)),
                "/expires_at",
                "found 1000",
            ),
        ] {
            let fault = read(&body(&[changed])).expect_err(part);
            assert_eq!(fault.pointer, pointer);
            assert!(fault.detail.contains(part), "{}", fault.detail);
        }
        let pin = ("action", json!("pin"));
        for (changed, pointer) in [
            (("position", json!(300)), "/position"),
            (("item_ids", json!(["a", "b"])), "/item_ids"),
        ] {
            let changed = body(&[("position", json!(1)), pin.clone(), changed]);
            assert_eq!(read(&changed).expect_err("refused").pointer, pointer);
        }
    }

    #[test]
    fn an_attribute_is_compared_as_a_text_and_a_list_has_each_of_its_values() {
        let attributes = json!({ "brand": "Acme", "year": 1999, "tags": ["a", "b"], "of": null });
        let item = json!({ "item_id": "i", "title": "t", "attributes": attributes });
        let item: Item = serde_json::from_value(item).expect("an item");
        for (name, value, expected) in [
            ("brand", "Acme", true),
            ("brand", "acme", false),
            ("year", "1999", true),
            ("tags", "b", true),
            ("tags", "ab", false),
            ("of", "null", false),
            ("gone", "", false),
        ] {
            assert_eq!(has_value(&item, name, value), expected, "{name} {value}");
        }
    }
}
