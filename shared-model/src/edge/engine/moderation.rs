//! Rules of the server's operators over the lists of a page and of the server, before those of the shop's page (`rules`).
//!
//! * A blocked item stands in no list: not in a ranking, a shelf, a search or among similar items, whatever a page requires.
//! * A pinned item stands at its place in rankings and shelves in which it may stand: where it is available, not blocked,
//!   among the candidates, not left out as seen and not excluded by the page. A page's own wish for that place gives way.
//! * Points are added to the score as those of a page's `boost` and `bury` are, and together with them.
//!
//! Searches and similar items know blocks alone: they are ordered by likeness, in which a score's points mean nothing.
//!
//! A page is told the rules by a signed note (`manifest::moderation`). Where it has none it goes without; one with an
//! older revision than that at hand is refused, and the version that ranks has nothing to do with it.

use std::collections::BTreeMap;

use super::{EdgeEngine, EngineError, RankRequest, ReadyVersion};
use crate::edge::sync::EdgeError;
use crate::ids::ItemId;
use crate::manifest::ModerationRules;

/// The rules of a revision.
pub(super) fn rules_of(known: Option<&(u64, ModerationRules)>) -> Option<&ModerationRules> {
    known.map(|(_, rules)| rules)
}

impl<'a> RankRequest<'a> {
    /// The same under these rules.
    pub(super) fn moderated(&self, known: Option<&'a (u64, ModerationRules)>) -> RankRequest<'a> {
        RankRequest {
            moderation: rules_of(known),
            ..*self
        }
    }
}

impl ReadyVersion {
    /// Rows that stand in no list.
    pub(super) fn blocked<'a>(
        &'a self,
        rules: Option<&'a ModerationRules>,
    ) -> impl Iterator<Item = u32> + 'a {
        let blocked = rules.into_iter().flat_map(|rules| &rules.block);
        blocked.filter_map(|item_id| self.item_idx(item_id))
    }

    /// Position and row of the pinned items of a list of `k`; `free` are the rows that may stand in it, ascending.
    pub(super) fn pinned(
        &self,
        rules: Option<&ModerationRules>,
        free: &[u32],
        k: usize,
    ) -> Vec<(usize, u32)> {
        let pins = rules.into_iter().flat_map(|rules| &rules.pin);
        let placed = pins.filter_map(|pin| {
            let item_idx = self.item_idx(&pin.item_id)?;
            let position = pin.position as usize;
            let is_placed = position < k && free.binary_search(&item_idx).is_ok();
            is_placed.then_some((position, item_idx))
        });
        placed.collect()
    }

    /// Points by row.
    pub(super) fn moderated_points(&self, rules: Option<&ModerationRules>) -> BTreeMap<u32, f64> {
        let mut points = BTreeMap::new();
        for rule in rules.into_iter().flat_map(|rules| &rules.points) {
            for item_idx in rule.item_ids.iter().filter_map(|id| self.item_idx(id)) {
                *points.entry(item_idx).or_insert(0.0) += rule.points;
            }
        }
        points
    }
}

impl EdgeEngine {
    /// Goes by the rules of a signed note from now on, where it is not older than those at hand. Says whether anything
    /// is different.
    ///
    /// # Errors
    /// The note is not believed, as a manifest is not, or is older. Where a newer key set may help, the sync machine asks
    /// for it.
    pub fn moderate(&mut self, note: &[u8]) -> Result<bool, EngineError> {
        let note = self.sync.signed_rules(note)?;
        let actual = note.revision;
        if let Some((known, _)) = self.moderation
            && actual < known
        {
            return Err(EdgeError::OlderRules { known, actual }.into());
        }
        let before = rules_of(self.moderation.as_ref());
        let is_changed = before.unwrap_or(&ModerationRules::default()) != &note.rules;
        self.moderation = Some((actual, note.rules));
        Ok(is_changed)
    }

    /// Revision of the rules at hand.
    #[must_use]
    pub fn moderation_revision(&self) -> Option<u64> {
        self.moderation.as_ref().map(|(revision, _)| *revision)
    }

    /// Whether the item stands in no list.
    #[must_use]
    pub fn is_blocked(&self, item_id: &ItemId) -> bool {
        rules_of(self.moderation.as_ref()).is_some_and(|rules| rules.block.contains(item_id))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
