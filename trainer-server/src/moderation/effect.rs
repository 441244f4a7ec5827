//! What the active rules come to, item by item, within the bytes that a page is ready to take.
//!
//! Attributes are known to the server alone, so a rule by an attribute becomes the ids that have it. Where all of them
//! together are too long for a note, the last are left out: blocks come first, then pins, then points.

use std::collections::BTreeSet;
use std::sync::Arc;

use shared_model::event::Item;
use shared_model::ids::ItemId;
use shared_model::manifest::{
    ItemPoints, MODERATION_NOTE_BYTES_MAX, ModerationRules, POINTS_MAX, PinnedItem,
};

use super::rule::{Action, Rule, Target};
use crate::catalogue::Catalogue;

/// Bytes of a note that are not ids: envelope, stamp, and the braces around each rule.
const NOTE_OVERHEAD_BYTES: usize = 48 << 10;

/// What holds, and since which revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effect {
    /// Rises with every change of the rules below, and with every start of the server.
    pub revision: u64,
    /// By item, as pages are told.
    pub rules: ModerationRules,
    /// Items of active rules that had no room; 0 but for rules by attributes that many items have.
    pub num_left_out: usize,
}

/// What these rules come to, and how many items had no room.
pub(super) fn resolve<'a>(
    rules: impl Iterator<Item = &'a Rule> + Clone,
    catalogue: &Catalogue,
) -> (ModerationRules, usize) {
    let is_by_attribute = |rule: &Rule| matches!(rule.draft.target, Target::Attribute { .. });
    let items = match rules.clone().any(is_by_attribute) {
        true => catalogue.items(),
        false => Vec::new(),
    };
    let mut room = Room::default();
    let mut resolved = ModerationRules::default();
    let mut blocked = BTreeSet::new();
    for rule in rules
        .clone()
        .filter(|rule| rule.draft.action == Action::Block)
    {
        blocked.extend(room.fitting(ids_of(rule, &items)));
    }
    for rule in rules.clone() {
        if let Action::Pin { position } = rule.draft.action {
            for item_id in room.fitting(ids_of(rule, &items)) {
                resolved.pin.push(PinnedItem { item_id, position });
            }
        }
    }
    for rule in rules {
        let points = match rule.draft.action {
            Action::Boost { points } => points,
            Action::Bury { points } => -points,
            Action::Block | Action::Pin { .. } => continue,
        };
        let item_ids = room.fitting(ids_of(rule, &items));
        let points = points.clamp(-POINTS_MAX, POINTS_MAX);
        resolved.points.push(ItemPoints { item_ids, points });
    }
    resolved.block = blocked.into_iter().collect();
    (resolved, room.num_left_out)
}

fn ids_of(rule: &Rule, items: &[Arc<Item>]) -> Vec<ItemId> {
    if let Target::ItemIds(ids) = &rule.draft.target {
        return ids.clone();
    }
    let meant = items.iter().filter(|item| rule.is_about(item));
    meant.map(|item| item.item_id.clone()).collect()
}

/// Bytes of a note that are taken.
#[derive(Default)]
struct Room {
    bytes: usize,
    num_left_out: usize,
}

impl Room {
    fn fitting(&mut self, ids: Vec<ItemId>) -> Vec<ItemId> {
        let mut fitting = Vec::new();
        for id in ids {
            // An id is a JSON text inside a JSON text; each quote and backslash of the inner one has a backslash.
            let quoted = serde_json::to_string(&id).expect("a text");
            let escapes = quoted.bytes().filter(|byte| b"\"\\".contains(byte)).count();
            let bytes = quoted.len() + escapes + 1;
            if self.bytes + bytes > MODERATION_NOTE_BYTES_MAX - NOTE_OVERHEAD_BYTES {
                self.num_left_out += 1;
                continue;
            }
            self.bytes += bytes;
            fitting.push(id);
        }
        fitting
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use serde_json::json;
    use shared_model::ids::LogOffset;
    use shared_model::manifest::{FORMAT_VERSION, ModerationNote};

    use super::*;

    fn catalogue(num_items: u64) -> Catalogue {
        let catalogue = Catalogue::default();
        for idx in 0..num_items {
            let item = json!({ "item_id": format!("item-\"{idx:09}\""), "title": "t", "attributes": { "brand": "Acme" } });
            let item = serde_json::from_value(item).expect("an item");
            catalogue.put(LogOffset(idx), item);
        }
        catalogue
    }

    fn rule(id: u64, action: &str) -> Rule {
        let rule = json!({
            "id": id, "action": action, "points": 1.0, "position": id, "attribute": { "name": "brand", "value": "Acme" },
            "reason": "r", "by": "anna", "source": "operator", "proposed_at": 0, "state": "active", "approvals": [],
        });
        serde_json::from_value(rule).expect("a rule")
    }

    #[test]
    fn a_rule_by_an_attribute_becomes_the_items_that_have_it() {
        let rules = [rule(1, "bury"), rule(2, "block")];
        let (resolved, num_left_out) = resolve(rules.iter(), &catalogue(3));
        assert_eq!((resolved.block.len(), num_left_out), (3, 0));
        assert_eq!(resolved.points[0].points, -1.0);
        assert_eq!(resolved.points[0].item_ids, resolved.block);
    }

    #[test]
    fn a_note_of_more_items_than_it_holds_is_within_its_limit_and_says_how_many_are_missing() {
        let rules: Vec<Rule> = (1..=300).map(|id| rule(id, "boost")).collect();
        let (resolved, num_left_out) = resolve(rules.iter(), &catalogue(1000));
        let fitting = resolved.points.iter().map(|rule| rule.item_ids.len());
        assert_eq!(fitting.sum::<usize>() + num_left_out, 300 * 1000);
        let note = ModerationNote {
            format_version: FORMAT_VERSION,
            model: "m".repeat(128),
            revision: u64::MAX,
            created_at: i64::MAX,
            key_set: Some(u64::MAX),
            rules: resolved,
        };
        let bytes = note.sign(&SigningKey::from_bytes(&[1; 32])).len();
        assert!(bytes <= MODERATION_NOTE_BYTES_MAX, "{bytes}");
        assert!(bytes > MODERATION_NOTE_BYTES_MAX * 3 / 4, "{bytes}");
    }
}
