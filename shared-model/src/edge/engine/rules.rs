//! Business rules: what a shop says about a list, whatever the model thinks of it.
//!
//! A list is made in this order, and what comes earlier cannot be undone by what comes later:
//!
//! 1. `exclude`: these items stand nowhere.
//! 2. `require`: these items stand at their positions, whether they are candidates, seen, boosted or buried or not.
//! 3. `boost` and `bury`: points are added to and taken from the score; all rules that name an item count.
//! 4. What is not required fills the free places in the order of these scores, or as diversity and chance want it.
//!
//! Scores are logits, so a boost of `p` points multiplies an item's odds against every other item by `e^p`: 0.7 doubles
//! them, and 100 is more than any two scores differ by. Points add up, so a boost of 2 and a bury of 2 cancel; more than
//! 100 either way count as 100, since f32 would no longer tell scores apart.
//!
//! A list for a smaller `k` is the beginning of the list for a larger one; so a position behind the end is not moved
//! up, and its item is missing. Only where items run out do required items follow right behind the last one.
//! An item that the version does not hold, or that is not available, is missing too; what of the required is missing
//! is told. Everywhere else unknown items are passed over, as they are among candidates.
//!
//! Not here: rules by what an item is (brand, category), since a version holds ids and availability alone;
//! whoever knows these passes the ids. What operators of the server have approved comes before all of this
//! (`moderation`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{RankRequest, ReadyVersion};
use crate::codec::state::CodeState;
use crate::edge::explore::Placed;
use crate::ids::ItemId;
pub use crate::manifest::POINTS_MAX;

/// Most rules of one kind.
pub const RULES_MAX: usize = 1000;
/// Most ids in all rules together.
pub const RULE_ITEMS_MAX: usize = 100_000;
/// Most required items.
pub const REQUIRED_MAX: usize = 300;

/// Rules of one list; checked. Empty by default, and then nothing changes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(try_from = "RulesForm")]
pub struct Rules {
    form: RulesForm,
}

/// `{"boost": [{"itemIds": ["a"], "points": 1}], "bury": […], "require": [{"itemId": "b", "position": 0}],
/// "exclude": ["c"]}`, each if wanted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulesForm {
    /// Points for items.
    pub boost: Vec<PointRule>,
    /// Points against items.
    pub bury: Vec<PointRule>,
    /// Items with a place of their own.
    pub require: Vec<Requirement>,
    /// Items without any place.
    pub exclude: Vec<ItemId>,
}

/// Points for, or against, some items.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PointRule {
    /// Which items.
    pub item_ids: Vec<ItemId>,
    /// How many, above 0, at most [`POINTS_MAX`].
    pub points: f64,
}

/// An item and where it stands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Requirement {
    /// Which item.
    pub item_id: ItemId,
    /// Zero-based position.
    pub position: u32,
}

/// Why rules were refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field} is {actual}, expected {expected}")]
pub struct RuleError {
    /// Where, for example `rules.boost[2].points`.
    pub field: String,
    /// What stands there.
    pub actual: String,
    /// What is allowed.
    pub expected: &'static str,
}

impl TryFrom<RulesForm> for Rules {
    type Error = RuleError;
    fn try_from(form: RulesForm) -> Result<Self, RuleError> {
        check_counts(&form)?;
        for (name, rules) in [("boost", &form.boost), ("bury", &form.bury)] {
            for (rule_idx, rule) in rules.iter().enumerate() {
                if !(rule.points > 0.0 && rule.points <= POINTS_MAX) {
                    return Err(RuleError {
                        field: format!("rules.{name}[{rule_idx}].points"),
                        actual: rule.points.to_string(),
                        expected: "a number above 0, at most 100",
                    });
                }
            }
        }
        check_requirements(&form.require)?;
        Ok(Self { form })
    }
}

/// # Errors
/// A list is too long.
fn check_counts(form: &RulesForm) -> Result<(), RuleError> {
    let within = |field: &str, actual: usize, max: usize, expected| {
        let refused = RuleError {
            field: field.to_owned(),
            actual: format!("{actual} long"),
            expected,
        };
        if actual <= max { Ok(()) } else { Err(refused) }
    };
    within(
        "rules.boost",
        form.boost.len(),
        RULES_MAX,
        "at most 1000 rules",
    )?;
    within(
        "rules.bury",
        form.bury.len(),
        RULES_MAX,
        "at most 1000 rules",
    )?;
    let num_required = form.require.len();
    within(
        "rules.require",
        num_required,
        REQUIRED_MAX,
        "at most 300 items",
    )?;
    let by_points = form.boost.iter().chain(&form.bury);
    let num_items = by_points.fold(form.exclude.len(), |sum, rule| sum + rule.item_ids.len());
    let expected = "at most 100000 ids in boost, bury and exclude together";
    within("rules", num_items, RULE_ITEMS_MAX, expected)
}

/// # Errors
/// Two items are to stand at one place, or one at two.
fn check_requirements(require: &[Requirement]) -> Result<(), RuleError> {
    let mut item_ids = BTreeSet::new();
    let mut positions = BTreeSet::new();
    for (rule_idx, requirement) in require.iter().enumerate() {
        let refused = |field, actual, expected| RuleError {
            field: format!("rules.require[{rule_idx}].{field}"),
            actual,
            expected,
        };
        if !item_ids.insert(&requirement.item_id) {
            let actual = requirement.item_id.to_string();
            return Err(refused("itemId", actual, "an item not required before"));
        }
        if !positions.insert(requirement.position) {
            let actual = requirement.position.to_string();
            return Err(refused("position", actual, "a position not given before"));
        }
    }
    Ok(())
}

/// Rules for the rows of one version.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Applied {
    /// Rows that fill the free places, ascending.
    pub(super) free: Vec<u32>,
    /// Rows with points, and how many: at most [`POINTS_MAX`] either way.
    pub(super) points: BTreeMap<u32, f64>,
    /// Position and row, ascending; all positions are below `k`.
    pub(super) required: Vec<(usize, u32)>,
}

impl Applied {
    /// The scores with the points of the rules.
    pub(super) fn adjusted(&self, scores: &[f32]) -> Vec<f32> {
        let mut adjusted = scores.to_vec();
        for (item_idx, points) in &self.points {
            let score = &mut adjusted[*item_idx as usize];
            *score = (f64::from(*score) + points) as f32; // rounds: the order of scores is one of f32
        }
        adjusted
    }

    /// The list of at most `k`: required items at their places, between them what `next` says of the list so far.
    pub(super) fn fill(
        &self,
        k: usize,
        mut next: impl FnMut(&[Placed]) -> Option<Placed>,
    ) -> Vec<Placed> {
        let certain = |(_, item_idx): (usize, u32)| Placed {
            item_idx,
            propensity: 1.0,
        };
        let mut list: Vec<Placed> = Vec::new();
        let mut waiting = self.required.iter().copied().peekable();
        while list.len() < k {
            let is_here = |(position, _): &(usize, u32)| *position == list.len();
            if let Some(required) = waiting.next_if(is_here) {
                list.push(certain(required));
                continue;
            }
            // Where nothing else is left, required items follow right behind.
            match next(&list).or_else(|| waiting.next().map(certain)) {
                Some(placed) => list.push(placed),
                None => break,
            }
        }
        list
    }
}

impl Rules {
    /// The required items that are missing in a list, in the order of the rules.
    pub(super) fn missing(&self, listed: impl Fn(&ItemId) -> bool) -> Vec<ItemId> {
        let required = self.form.require.iter().map(|rule| &rule.item_id);
        required
            .filter(|item_id| !listed(item_id))
            .cloned()
            .collect()
    }
}

impl ReadyVersion {
    /// What the rules say of the rows of this version, for a list of `k`.
    pub(super) fn apply(
        &self,
        state: &CodeState,
        request: &RankRequest<'_>,
        rules: &Rules,
        k: usize,
    ) -> Applied {
        let form = &rules.form;
        let rows = |item_ids: &[ItemId]| -> BTreeSet<u32> {
            let known = item_ids.iter().filter_map(|item_id| self.item_idx(item_id));
            known.collect()
        };
        let excluded = rows(&form.exclude);
        let mut free = self.eligible(state, request);
        free.retain(|item_idx| !excluded.contains(item_idx));
        let mut points = self.moderated_points(request.moderation);
        let mut required = self.pinned(request.moderation, &free, k);
        let mut taken: BTreeSet<u32> = required.iter().map(|(_, item_idx)| *item_idx).collect();
        let blocked: BTreeSet<u32> = self.blocked(request.moderation).collect();
        for requirement in &form.require {
            let Some(item_idx) = self.item_idx(&requirement.item_id) else {
                continue;
            };
            let is_new = taken.insert(item_idx);
            let position = requirement.position as usize;
            let is_place_free = required.iter().all(|(other, _)| *other != position);
            let is_shown = state.items[item_idx as usize].available
                && !excluded.contains(&item_idx)
                && !blocked.contains(&item_idx);
            if is_new && is_shown && is_place_free && position < k {
                required.push((position, item_idx));
            }
        }
        required.sort_unstable();
        for (rules, sign) in [(&form.boost, 1.0), (&form.bury, -1.0)] {
            for rule in rules {
                for item_idx in rows(&rule.item_ids) {
                    *points.entry(item_idx).or_insert(0.0) += sign * rule.points;
                }
            }
        }
        for points in points.values_mut() {
            *points = points.clamp(-POINTS_MAX, POINTS_MAX);
        }
        free.retain(|item_idx| !taken.contains(item_idx));
        Applied {
            free,
            points,
            required,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let refused = serde_json::from_str::<Rules>(text).map_err(|error| error.to_string());
        refused.expect_err("refused")
    }

    #[test]
    fn a_refused_rule_is_named_with_its_value() {
        for (text, part) in [
            (
                r#"{"boost": [{"itemIds": ["a"], "points": 1}, {"itemIds": ["a"], "points": 0}]}"#,
                "rules.boost[1].points is 0",
            ),
            (
                r#"{"bury": [{"itemIds": ["a"], "points": 100.5}]}"#,
                "rules.bury[0].points is 100.5",
            ),
            (
                r#"{"require": [{"itemId": "a", "position": 2}, {"itemId": "b", "position": 2}]}"#,
                "rules.require[1].position is 2",
            ),
            (
                r#"{"require": [{"itemId": "a", "position": 2}, {"itemId": "a", "position": 3}]}"#,
                "rules.require[1].itemId is a",
            ),
            (
                r#"{"require": [{"itemId": "a", "position": -1}]}"#,
                "invalid value: integer `-1`",
            ),
            (r#"{"promote": []}"#, "unknown field `promote`"),
        ] {
            assert!(refusal(text).contains(part), "{text}: {}", refusal(text));
        }
    }

    #[test]
    fn lists_longer_than_their_limits_are_refused_and_those_at_them_are_not() {
        let item = |idx: usize| ItemId::new(format!("i{idx}")).expect("short");
        let exclude = |num: usize| RulesForm {
            exclude: (0..num).map(item).collect(),
            boost: vec![PointRule {
                item_ids: vec![item(0)],
                points: 1.0,
            }],
            ..RulesForm::default()
        };
        assert!(Rules::try_from(exclude(RULE_ITEMS_MAX - 1)).is_ok());
        let error = Rules::try_from(exclude(RULE_ITEMS_MAX)).expect_err("one more");
        assert_eq!(
            (error.field.as_str(), error.actual.as_str()),
            ("rules", "100001 long")
        );
        let require = |num: u32| RulesForm {
            require: (0..num)
                .map(|position| Requirement {
                    item_id: item(position as usize),
                    position,
                })
                .collect(),
            ..RulesForm::default()
        };
        assert!(Rules::try_from(require(300)).is_ok());
        let error = Rules::try_from(require(301)).expect_err("one more");
        assert_eq!(error.field, "rules.require");
        let bury = RulesForm {
            bury: vec![
                PointRule {
                    item_ids: vec![],
                    points: 1.0
                };
                RULES_MAX + 1
            ],
            ..RulesForm::default()
        };
        assert_eq!(
            Rules::try_from(bury).expect_err("one more").field,
            "rules.bury"
        );
    }
}
