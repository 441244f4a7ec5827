//! What lasts of the rules, `moderation.json`, and which changes of it are allowed.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shared_model::ids::ItemId;

use super::rule::{Act, Action, Draft, Rule, RuleState, Source, Target};
use super::{HISTORY_LEN, ModerationError, OWN_PROPOSALS_MAX, RULES_MAX};
use crate::publish::files::write_whole;

const FILE_NAME: &str = "moderation.json";
/// More than all rules take: each was a body of 16 KiB at most, and texts may grow sixfold in JSON.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Who proposes and ends rules where nobody did.
pub(super) const SERVER_NAME: &str = "freshet";

/// The rules and their history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// Id of the newest rule.
    newest_id: u64,
    /// Of what holds.
    pub(super) revision: u64,
    /// Proposed and active, oldest first.
    pub(super) open: Vec<Rule>,
    /// Ended, oldest first.
    pub(super) ended: VecDeque<Rule>,
}

impl Kept {
    pub(super) fn read(dir: &Path) -> Result<Self, ModerationError> {
        let path = dir.join(FILE_NAME);
        let failed = |source| ModerationError::File {
            action: "reading the rules",
            source,
            path: path.clone(),
        };
        let found = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            found => found.map_err(failed)?,
        };
        if found.len() > FILE_BYTES_MAX {
            let message = format!("{} bytes, at most {FILE_BYTES_MAX} are read", found.len());
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, message)));
        }
        let bytes = fs::read(&path).map_err(failed)?;
        serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), ModerationError> {
        let bytes = serde_json::to_vec(self).expect("plain values always serialize");
        write_whole(dir, FILE_NAME, &bytes).map_err(|source| ModerationError::File {
            action: "writing the rules",
            source,
            path: dir.join(FILE_NAME),
        })
    }

    pub(super) fn active(&self) -> impl Iterator<Item = &Rule> + Clone {
        let open = self.open.iter();
        open.filter(|rule| rule.state == RuleState::Active)
    }

    /// A rule that is active here and was not in `before`.
    pub(super) fn newest_active_since(&self, before: &Self) -> Option<u64> {
        let was_active = |rule: &Rule| before.active().any(|other| other.id == rule.id);
        let mut fresh = self.active().filter(|rule| !was_active(rule));
        fresh.next().map(|rule| rule.id)
    }

    pub(super) fn raise_revision(&mut self, now_millis: i64) {
        let now = u64::try_from(now_millis).unwrap_or(0); // a clock before 1970 says nothing
        self.revision = now.max(self.revision + 1);
    }

    /// # Errors
    /// It is not proposed or active.
    pub(super) fn open_rule(&self, id: u64) -> Result<&Rule, ModerationError> {
        if let Some(rule) = self.open.iter().find(|rule| rule.id == id) {
            return Ok(rule);
        }
        let ended = self.ended.iter().find(|rule| rule.id == id);
        Err(match ended.map(|rule| rule.state) {
            Some(state) => ModerationError::WrongState { id, state },
            None => ModerationError::NotFound { id },
        })
    }

    /// Whether the server may propose to block an item: it has not done so for this reason, as far as is remembered,
    /// and does not fill the list.
    pub(super) fn has_room_for_own(&self, item_id: &ItemId, source: Source) -> bool {
        let is_same = |rule: &&Rule| {
            let target = &rule.draft.target;
            rule.source == source && matches!(target, Target::ItemIds(ids) if ids.contains(item_id))
        };
        let waiting = self
            .open
            .iter()
            .filter(|rule| rule.source != Source::Operator && rule.state == RuleState::Proposed);
        self.open.iter().chain(&self.ended).find(is_same).is_none()
            && waiting.count() < OWN_PROPOSALS_MAX
    }

    pub(super) fn propose(
        &mut self,
        draft: Draft,
        (source, evidence): (Source, Option<String>),
        now_millis: i64,
    ) -> Result<Rule, ModerationError> {
        if self.open.len() >= RULES_MAX {
            return Err(ModerationError::Full);
        }
        self.newest_id += 1;
        let rule = Rule {
            id: self.newest_id,
            draft,
            source,
            evidence,
            proposed_at: now_millis,
            state: RuleState::Proposed,
            approvals: Vec::new(),
            ended: None,
        };
        self.open.push(rule.clone());
        Ok(rule)
    }

    /// Adds an approval; with as many people behind it as are wanted, the rule holds.
    pub(super) fn approve(
        &mut self,
        id: u64,
        act: Act,
        num_people: u8,
    ) -> Result<Rule, ModerationError> {
        let mut rule = self.open_rule(id)?.clone();
        let state = rule.state;
        if state != RuleState::Proposed || rule.is_over(act.at) {
            return Err(ModerationError::WrongState { id, state });
        }
        self.check_place(&rule)?;
        if num_people > 1 && rule.people().contains(&act.by.trim().to_lowercase()) {
            return Err(ModerationError::SamePerson { id, by: act.by });
        }
        rule.approvals.push(act);
        if num_people < 2 || rule.people().len() >= usize::from(num_people) {
            rule.state = RuleState::Active;
        }
        self.put(rule.clone());
        Ok(rule)
    }

    /// Ends a rule; only a proposal can be rejected.
    pub(super) fn end(
        &mut self,
        id: u64,
        act: Act,
        state: RuleState,
    ) -> Result<Rule, ModerationError> {
        let mut rule = self.open_rule(id)?.clone();
        if state == RuleState::Rejected && rule.state != RuleState::Proposed {
            let state = rule.state;
            return Err(ModerationError::WrongState { id, state });
        }
        rule.state = state;
        rule.ended = Some(act);
        self.open.retain(|other| other.id != id);
        self.ended.push_back(rule.clone());
        if self.ended.len() > HISTORY_LEN {
            self.ended.pop_front();
        }
        Ok(rule)
    }

    /// Ends what is over.
    pub(super) fn expire(&mut self, now_millis: i64) -> Vec<Rule> {
        let over = self.open.iter().filter(|rule| rule.is_over(now_millis));
        let ids: Vec<u64> = over.map(|rule| rule.id).collect();
        let act = || Act {
            by: SERVER_NAME.to_owned(),
            at: now_millis,
        };
        let ended = ids
            .into_iter()
            .map(|id| self.end(id, act(), RuleState::Expired));
        ended.flatten().collect() // each is open, so none fails
    }

    /// # Errors
    /// An active rule pins another item to the place, or the item to another.
    fn check_place(&self, rule: &Rule) -> Result<(), ModerationError> {
        let Some((item_id, position)) = place_of(rule) else {
            return Ok(());
        };
        let mut others = self.active().filter(|other| {
            place_of(other).is_some_and(|(other, at)| other == item_id || at == position)
        });
        match others.next() {
            None => Ok(()),
            Some(other) => Err(ModerationError::PlaceTaken {
                id: rule.id,
                item_id: item_id.clone(),
                position,
                other: other.id,
            }),
        }
    }

    fn put(&mut self, rule: Rule) {
        for known in &mut self.open {
            if known.id == rule.id {
                *known = rule;
                return;
            }
        }
    }
}

/// Item and place of a pin.
fn place_of(rule: &Rule) -> Option<(&ItemId, u32)> {
    let (Action::Pin { position }, Target::ItemIds(ids)) = (&rule.draft.action, &rule.draft.target)
    else {
        return None;
    };
    Some((ids.first()?, *position))
}
