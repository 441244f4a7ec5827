//! `[influence]`: how much one client may teach.

use serde::{Deserialize, Serialize};

/// What an event teaches that has no valid visit token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutToken {
    /// As any other.
    Teaches,
    /// As one of a newcomer, however long its client is known.
    Newcomer,
    /// Nothing.
    Nothing,
}

/// `[influence]`; `crate::influence` has the formulas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InfluenceConfig {
    pub clients_min: u32,
    pub half_life_secs: u64,
    pub burst_half_life_secs: u64,
    pub mean_factor: f32,
    pub events_min: u32,
    pub share_factor: f32,
    pub eager_half_life_secs: u64,
    pub eager_floor: u32,
    pub eager_factor: f32,
    pub item_repeat_secs: u64,
    pub item_kinds_max: usize,
    pub newcomer_secs: u64,
    pub newcomer_events: u32,
    pub newcomer_floor: u32,
    pub newcomer_factor: f32,
    pub item_clients_min: usize,
    pub without_token: WithoutToken,
}
