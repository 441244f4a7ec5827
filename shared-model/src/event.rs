//! Events and catalogue items as both sides and the wire see them.
//!
//! Not here: validation against a catalogue or a clock (the server's `preprocess`).

use serde::{Deserialize, Serialize};

use crate::ids::{ArmId, EventId, ItemId, UserId};

/// What a user did or saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Item shown at a position.
    Impression,
    /// Item page opened.
    View,
    /// Item clicked in a list.
    Click,
    /// Item put into the basket.
    AddToCart,
    /// Item bought.
    Purchase,
    /// Explicit liking.
    Like,
    /// Explicit disliking.
    Dislike,
    /// Explicit grade in `value`.
    Rating,
    /// Passed over on purpose.
    Skip,
    /// Watched or listened to; `value` is the share completed, where known.
    Watch,
}

impl EventKind {
    /// All kinds; the position in this list is the row of the kind embedding.
    pub const ALL: [Self; 10] = [
        Self::Impression,
        Self::View,
        Self::Click,
        Self::AddToCart,
        Self::Purchase,
        Self::Like,
        Self::Dislike,
        Self::Rating,
        Self::Skip,
        Self::Watch,
    ];

    /// Row of the kind embedding.
    #[must_use]
    pub fn idx(self) -> usize {
        self as usize // fits: declaration order is the order of `ALL`
    }

    /// Whether the event belongs into a user's history (what the model attends to).
    /// Impressions say what the server chose, not what the user did.
    #[must_use]
    pub fn is_history(self) -> bool {
        self != Self::Impression
    }
}

/// One event as posted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Unique id chosen by the sender.
    pub event_id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// Who did it.
    pub user_id: UserId,
    /// To which item.
    pub item_id: ItemId,
    /// Milliseconds since 1970-01-01 UTC, by the sender's clock.
    pub occurred_at: i64,
    /// Grade (needed for a rating), share watched or amount; finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Version that ranked the impression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_version: Option<u64>,
    /// Impression that this event answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impression_id: Option<EventId>,
    /// Zero-based position at which the item was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// Probability with which it was shown there, in (0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))
    )]
    pub propensity: Option<f64>,
    /// Arm of an experiment that the list with it was of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<ArmId>,
}

/// One entry of a history: what the page keeps itself and ranks from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HistoryEvent {
    /// The item.
    pub item_id: ItemId,
    /// What was done to it.
    pub kind: EventKind,
    /// Milliseconds since 1970-01-01 UTC.
    pub occurred_at: i64,
}

/// A catalogue item as put by the operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Item {
    /// Its id.
    pub item_id: ItemId,
    /// Shown name, at most 1,024 bytes; the first part of the text that is embedded.
    pub title: String,
    /// Longer description, at most 16,384 bytes, embedded after the title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Anything else, kept and given back, not learned from but for `penalized`, by which an operator marks harm.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// Dense features by name (image or knowledge-graph vectors), 8 of up to 2,048 numbers at most.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub vectors: std::collections::BTreeMap<String, Vec<f32>>,
    /// Whether it may be recommended.
    #[serde(default = "available_by_default")]
    pub available: bool,
}

fn available_by_default() -> bool {
    true
}

impl Item {
    /// The text that the encoder reads.
    #[must_use]
    pub fn full_text(&self) -> String {
        match &self.text {
            Some(text) => format!("{}. {text}", self.title),
            None => self.title.clone(),
        }
    }
}
