//! What can go wrong in the engine.

use crate::edge::sync::EdgeError;
use crate::ids::{ItemId, Version};
use crate::model::scorer::ScoreError;

/// Why the engine could not rank or swap. The live version is untouched by any of these.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// What arrived was refused.
    #[error(transparent)]
    Sync(#[from] EdgeError),
    /// No version has arrived yet.
    #[error("no model version has arrived yet")]
    NoModel,
    /// The device failed.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The candidate computes other scores here than on the server.
    #[error(
        "self-test of version {version}: item {item_id} scored {actual}, the manifest expects {expected} ± {tolerance}"
    )]
    SelfTest {
        /// Refused version.
        version: Version,
        /// First item that differs.
        item_id: ItemId,
        /// Score on this device.
        actual: f32,
        /// Score in the manifest.
        expected: f32,
        /// Allowed difference.
        tolerance: f32,
    },
    /// An item that the live version does not hold.
    #[error("the live version has no item {item_id}")]
    UnknownItem {
        /// Its id.
        item_id: ItemId,
    },
    /// A list of a request is longer than one call may bring.
    #[error("{field} is {actual} long, at most {max} are accepted")]
    TooLong {
        /// Which list.
        field: &'static str,
        /// Its length.
        actual: usize,
        /// The limit.
        max: usize,
    },
    /// A text is embedded by another encoder than the version's, or the version has no texts.
    #[error("a text is {actual} wide, those of the live version are {expected} wide")]
    TextWidth {
        /// Its width.
        actual: usize,
        /// Width of the version's texts; 0 where it has none.
        expected: usize,
    },
    /// The manifest's self-test names an item that the state does not hold.
    #[error("self-test of version {version} names the unknown item {item_id}")]
    SelfTestItem {
        /// Refused version.
        version: Version,
        /// The unknown item.
        item_id: ItemId,
    },
}

impl EngineError {
    /// Stable code for callers that act on it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Sync(error) => error.code(),
            Self::NoModel => "no_model",
            Self::Score(_) => "backend_failed",
            Self::UnknownItem { .. } => "unknown_item",
            Self::TooLong { .. } => "too_long",
            Self::TextWidth { .. } => "no_texts",
            Self::SelfTest { .. } | Self::SelfTestItem { .. } => "self_test_failed",
        }
    }
}
