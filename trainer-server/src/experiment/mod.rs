//! Experiments: strategies of ranking tried beside each other on users, and what the log says of them.
//!
//! ```text
//! store   what runs where, in experiments.json
//! assign  user → arm, by a hash that the page computes as well; nothing about a user is kept
//! serve   an arm as a request to the recommender; interleave merges the lists of two arms
//! held    codes of the versions that arms rank by
//! tally   log → what every user saw first and did within the window
//! verdict users → shares, differences with bounds that hold at any time, words
//! estimate, replayed   what a strategy would have earned, from logged propensities
//! ```
//!
//! An experiment belongs to a *place*, such as a shelf of the home page; one runs at a place at a time, so a user is in
//! one experiment per place. Impressions carry the arm back in their `arm` field, as `experiment/arm`.
//! Not here: HTTP (`http::experiments`), mathematics of bets (`betting`).

pub mod assign;
pub mod estimate;
pub mod held;
pub mod interleave;
pub mod replayed;
pub mod sequential;
pub mod serve;
pub mod store;
pub mod tally;
pub mod verdict;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::edge::explore::{Exploration, ExplorationError};
use shared_model::event::EventKind;
use shared_model::ids::{LogOffset, Version};

use assign::SHARE_SUM_MAX;

/// Longest name of an experiment, an arm or a place, in bytes.
pub const NAME_BYTES_MAX: usize = 48;
const ARMS_MAX: usize = 8;
/// 90 days.
const WINDOW_SECS_MAX: u64 = 90 * 86_400;
const COUNT_MAX: u32 = 1000;
const DAY_SECS: u64 = 86_400;

/// What an arm ranks by. As JSON `"model"`, `"popularity"`, `{"version": 12}`, `{"exploration": {"temperature": 0.5}}`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The newest version, best first.
    Model,
    /// Decayed counts of the newest version.
    Popularity,
    /// A version that is kept.
    Version(Version),
    /// The newest version, places drawn by chance.
    Exploration(ExplorationSettings),
}

/// How places are drawn; one of `temperature` and `epsilon`, as in a request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplorationSettings {
    /// Of Plackett and Luce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Of epsilon-greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// How many of the best items take part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<u64>,
}

impl ExplorationSettings {
    /// For one list.
    ///
    /// # Errors
    /// Names the field that is out of range.
    pub fn seeded(&self, seed: u64) -> Result<Exploration, ExplorationError> {
        Exploration::from_fields(self.temperature, self.epsilon, self.pool, seed)
    }
}

/// One of the strategies that are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Unique in its experiment.
    pub name: String,
    /// Percent of the users at the place; of no meaning where lists are interleaved.
    #[serde(default)]
    pub share: u32,
    /// What it ranks by.
    pub strategy: Strategy,
}

/// How arms are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Design {
    /// Every user has one arm.
    #[default]
    Split,
    /// Every list holds the items of both arms.
    Interleave,
}

/// What a user's outcome is: how many events of these kinds, up to a count, came within the window after the first
/// impression of the experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metric {
    /// Kinds that count.
    pub kinds: BTreeSet<EventKind>,
    /// A user counts once it is over.
    pub window_secs: u64,
    /// More events than these count as these; 1: whether there was any.
    pub count_max: u32,
}

impl Default for Metric {
    fn default() -> Self {
        Self {
            kinds: BTreeSet::from([EventKind::Click]),
            window_secs: DAY_SECS,
            count_max: 1,
        }
    }
}

impl Metric {
    /// The window in milliseconds.
    #[must_use]
    pub fn window_millis(&self) -> i64 {
        i64::try_from(self.window_secs.saturating_mul(1000)).unwrap_or(i64::MAX) // checked to be far below
    }

    fn check(&self) -> Result<(), ExperimentFault> {
        if self.kinds.is_empty() || self.kinds.contains(&EventKind::Impression) {
            let detail = "expected kinds of what users do, at least one, not impression";
            return Err(fault("/metric/kinds", detail));
        }
        in_range("/metric/window_secs", self.window_secs, 1, WINDOW_SECS_MAX)?;
        let count_max = u64::from(self.count_max);
        in_range("/metric/count_max", count_max, 1, u64::from(COUNT_MAX))
    }
}

/// An experiment as an operator asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewExperiment {
    /// Unique for good.
    pub name: String,
    /// Where it runs: what requests and pages call the place.
    pub place: String,
    /// The first is what the others are compared with.
    pub arms: Vec<Arm>,
    /// How they are compared.
    #[serde(default)]
    pub design: Design,
    /// What is compared.
    #[serde(default)]
    pub metric: Metric,
    /// Chance of a false alarm, whenever one looks, over all comparisons.
    #[serde(default = "alpha_default")]
    pub alpha: f64,
    /// Time before which the verdict says that it is early; a week has all days.
    #[serde(default = "min_run_secs_default")]
    pub min_run_secs: u64,
    /// What the hash of users begins with; the name where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
}

fn alpha_default() -> f64 {
    0.05
}

fn min_run_secs_default() -> u64 {
    7 * DAY_SECS
}

/// What is wrong with an experiment, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct ExperimentFault {
    /// JSON pointer.
    pub pointer: String,
    /// In words.
    pub detail: String,
}

/// Shares of the arms from a log offset on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// First log offset under them.
    pub from: LogOffset,
    /// Since when, in milliseconds since 1970-01-01 UTC.
    pub since: i64,
    /// Percent by arm.
    pub shares: Vec<u32>,
}

/// The end of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// One past the last log offset at which users may enter.
    pub through: LogOffset,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at: i64,
}

/// An experiment that runs or ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Experiment {
    /// As it was asked for; shares are those of now.
    #[serde(flatten)]
    pub asked: NewExperiment,
    /// Oldest first, at least one.
    pub phases: Vec<Phase>,
    /// Where it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stop>,
}

impl Experiment {
    /// What the hash of users begins with.
    #[must_use]
    pub fn salt(&self) -> &str {
        self.asked.salt.as_deref().unwrap_or(&self.asked.name)
    }

    /// The arm of a unit under these shares; `None` where it is in none.
    #[must_use]
    pub fn arm_of(&self, unit: &str, shares: &[u32]) -> Option<usize> {
        let names = self.asked.arms.iter().map(|arm| arm.name.as_str());
        assign::assign(self.salt(), unit, names.zip(shares.iter().copied()))
    }

    /// The newest phase up to `offset` in which a unit has the arm: a list may be shown after shares have changed.
    #[must_use]
    pub fn phase_with(&self, offset: LogOffset, unit: &str, arm_idx: usize) -> Option<usize> {
        let phases = self.phases.iter().enumerate().rev();
        let mut begun = phases.filter(|(_, phase)| phase.from <= offset);
        let has_arm = |shares: &[u32]| self.arm_of(unit, shares) == Some(arm_idx);
        let found = begun.find(|(_, phase)| has_arm(&phase.shares));
        found.map(|(phase_idx, _)| phase_idx)
    }

    /// Shares at a log offset; those of the beginning before it.
    #[must_use]
    pub fn shares_at(&self, offset: LogOffset) -> &[u32] {
        let behind = self.phases.partition_point(|phase| phase.from <= offset);
        &self.phases[behind.saturating_sub(1)].shares
    }

    /// Shares now.
    #[must_use]
    pub fn shares(&self) -> &[u32] {
        &self.phases[self.phases.len() - 1].shares
    }

    /// Where the log begins to tell of it.
    #[must_use]
    pub fn began(&self) -> &Phase {
        &self.phases[0]
    }

    /// What impressions of an arm carry.
    #[must_use]
    pub fn label(&self, arm_idx: usize) -> String {
        format!("{}/{}", self.asked.name, self.asked.arms[arm_idx].name)
    }
}

/// Whether experiments, arms and places may be called so.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}

impl NewExperiment {
    /// Checks what its type cannot.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), ExperimentFault> {
        check_name("/name", &self.name)?;
        check_name("/place", &self.place)?;
        if let Some(salt) = &self.salt {
            check_name("/salt", salt)?;
        }
        self.check_arms()?;
        self.metric.check()?;
        in_range("/min_run_secs", self.min_run_secs, 0, WINDOW_SECS_MAX)?;
        if !(0.001..=0.2).contains(&self.alpha) {
            let detail = format!("expected 0.001 to 0.2, found {}", self.alpha);
            return Err(fault("/alpha", detail));
        }
        Ok(())
    }

    fn check_arms(&self) -> Result<(), ExperimentFault> {
        let num_max = match self.design {
            Design::Split => ARMS_MAX,
            Design::Interleave => 2,
        };
        if !(2..=num_max).contains(&self.arms.len()) {
            let detail = format!("expected 2 to {num_max} arms, found {}", self.arms.len());
            return Err(fault("/arms", detail));
        }
        for (arm_idx, arm) in self.arms.iter().enumerate() {
            check_name(&format!("/arms/{arm_idx}/name"), &arm.name)?;
            if self.arms[..arm_idx].iter().any(|one| one.name == arm.name) {
                let detail = format!("there is an arm {:?} before it", arm.name);
                return Err(fault(format!("/arms/{arm_idx}/name"), detail));
            }
            if let Strategy::Exploration(settings) = &arm.strategy {
                settings.seeded(0).map_err(|error| {
                    let pointer = format!("/arms/{arm_idx}/strategy/exploration/{}", error.field);
                    let detail = format!("expected {}, found {}", error.expected, error.actual);
                    fault(pointer, detail)
                })?;
            }
        }
        match self.design {
            Design::Split => check_shares(&self.shares()),
            Design::Interleave => Ok(()),
        }
    }

    /// Shares by arm.
    #[must_use]
    pub fn shares(&self) -> Vec<u32> {
        self.arms.iter().map(|arm| arm.share).collect()
    }
}

/// Shares of the arms of a split.
///
/// # Errors
/// One is 0, or they are more than there is.
pub fn check_shares(shares: &[u32]) -> Result<(), ExperimentFault> {
    for (arm_idx, share) in shares.iter().enumerate() {
        let pointer = format!("/arms/{arm_idx}/share");
        in_range(&pointer, u64::from(*share), 1, u64::from(SHARE_SUM_MAX))?;
    }
    let sum: u32 = shares.iter().sum();
    if sum > SHARE_SUM_MAX {
        let detail = format!("shares sum to {sum}, expected at most {SHARE_SUM_MAX} percent");
        return Err(fault("/arms", detail));
    }
    Ok(())
}

fn check_name(pointer: &str, name: &str) -> Result<(), ExperimentFault> {
    if is_name(name) {
        return Ok(());
    }
    let detail = format!("expected 1 to {NAME_BYTES_MAX} letters, digits, or `-_.`");
    Err(fault(pointer, detail))
}

fn in_range(pointer: &str, actual: u64, min: u64, max: u64) -> Result<(), ExperimentFault> {
    if (min..=max).contains(&actual) {
        return Ok(());
    }
    Err(fault(
        pointer,
        format!("expected {min} to {max}, found {actual}"),
    ))
}

fn fault(pointer: impl Into<String>, detail: impl Into<String>) -> ExperimentFault {
    ExperimentFault {
        pointer: pointer.into(),
        detail: detail.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn asked() -> Value {
        json!({ "name": "shelf-1", "place": "home", "arms": [
            { "name": "control", "share": 50, "strategy": "model" },
            { "name": "bold", "share": 50, "strategy": { "exploration": { "temperature": 0.5 } } },
        ]})
    }

    fn checked(value: Value) -> Result<NewExperiment, String> {
        let asked: NewExperiment =
            serde_json::from_value(value).map_err(|error| error.to_string())?;
        asked.check().map_err(|fault| fault.to_string())?;
        Ok(asked)
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let asked = checked(asked()).expect("sound");
        assert_eq!(asked.metric, Metric::default());
        assert_eq!((asked.alpha, asked.min_run_secs), (0.05, 604_800));
        let again = serde_json::to_value(&asked).expect("serializes");
        assert_eq!(checked(again).expect("sound"), asked);
    }

    #[test]
    fn every_bad_field_is_named() {
        let cases = [
            ("/name", json!("a/b"), "/name"),
            ("/place", json!(""), "/place"),
            ("/arms/1/name", json!("control"), "/arms/1/name"),
            ("/arms/1/share", json!(0), "/arms/1/share"),
            ("/arms/1/share", json!(51), "/arms: shares sum to 101"),
            ("/arms/1/strategy", json!("best"), "unknown variant `best`"),
            (
                "/arms/1/strategy/exploration",
                json!({ "epsilon": 2.0 }),
                "/arms/1/strategy/exploration/epsilon",
            ),
            ("/arms", json!([]), "/arms: expected 2 to 8"),
            ("/metric", json!({ "kinds": [] }), "/metric/kinds"),
            (
                "/metric",
                json!({ "window_secs": 0 }),
                "/metric/window_secs",
            ),
            ("/metric", json!({ "count_max": 0 }), "/metric/count_max"),
            (
                "/metric",
                json!({ "kind": "click" }),
                "unknown field `kind`",
            ),
            ("/alpha", json!(0.5), "/alpha"),
        ];
        for (pointer, value, expected) in cases {
            let mut bad = asked();
            match bad.pointer_mut(pointer) {
                Some(place) => *place = value,
                None => bad[&pointer[1..]] = value,
            }
            let error = checked(bad).expect_err(pointer);
            assert!(error.contains(expected), "{error}");
        }
    }
}
