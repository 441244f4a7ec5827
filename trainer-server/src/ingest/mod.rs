//! From outside bytes to checked events and items, with a reason for everything that is refused.
//!
//! Used by `http` and by `import`, so that both refuse the same things with the same codes.
//! Not here: what was seen before (`event_log`), and whether an event looks like a robot (`preprocess`).

mod event;
mod fields;
mod harm;
mod item;
mod split;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

pub(crate) use event::kind_from_name;
pub use event::{EventRules, event_from_json};
pub use fields::Fields;
pub use harm::harm;
pub use item::item_from_json;
pub use split::{BodyError, Elements, elements, lines};

/// Why one event or item was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RejectCode {
    /// A field is missing, of the wrong type, or not a valid identifier.
    Malformed,
    /// The item is not in the catalogue.
    UnknownItem,
    /// `occurred_at` is further in the future than allowed.
    TimeInFuture,
    /// `value` is not a finite number, or a rating has none.
    InvalidValue,
    /// `propensity` is not in (0, 1].
    InvalidPropensity,
    /// A text or vector is longer than allowed.
    TooLarge,
    /// The catalogue holds as many items as a model may have.
    CatalogueFull,
}

impl RejectCode {
    /// All codes.
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::UnknownItem,
        Self::TimeInFuture,
        Self::InvalidValue,
        Self::InvalidPropensity,
        Self::TooLarge,
        Self::CatalogueFull,
    ];

    /// As on the wire and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownItem => "unknown_item",
            Self::TimeInFuture => "time_in_future",
            Self::InvalidValue => "invalid_value",
            Self::InvalidPropensity => "invalid_propensity",
            Self::TooLarge => "too_large",
            Self::CatalogueFull => "catalogue_full",
        }
    }
}

/// A refusal with the place it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} at {pointer}: {detail}", code.as_str())]
pub struct Fault {
    /// The reason.
    pub code: RejectCode,
    /// JSON pointer of the field.
    pub pointer: String,
    /// The reason in words, with the values.
    pub detail: String,
}

impl Fault {
    /// A fault.
    #[must_use]
    pub fn new(code: RejectCode, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            code,
            pointer: pointer.into(),
            detail: detail.into(),
        }
    }
}

/// One entry of `rejected` in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Rejection {
    /// Position in the batch.
    pub index: usize,
    /// The reason.
    pub code: RejectCode,
    /// JSON pointer into the body.
    pub pointer: String,
    /// The reason in words.
    pub detail: String,
}

impl Rejection {
    /// The fault of element `index`.
    #[must_use]
    pub fn new(index: usize, fault: Fault) -> Self {
        let Fault {
            code,
            pointer,
            detail,
        } = fault;
        Self {
            index,
            code,
            pointer,
            detail,
        }
    }
}

/// What kind of JSON value this is, in words.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
