//! Moderation: rules over every list, made by people or proposed by the server, which hold once somebody has approved
//! them.
//!
//! ```text
//! proposed ──approve──► active ──withdraw / time over──► history
//!     └──────reject / withdraw / time over───────────────►
//! ```
//! Kept in `moderation.json`; a change is on the disk before it is in memory, and memory holds it before anyone is
//! answered. What the active rules come to (`effect`) has a revision, which only grows: by one, or to the time where that
//! is more, and anew at every start, so that a folder from a backup is not behind what pages have seen.
//! Not here: what a rule does to a list (`shared_model::edge::engine::moderation`), and who may ask (`http::moderation`).

mod bursts;
mod effect;
mod kept;
mod preview;
mod rule;
pub mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::event::{EventKind, Item};
use shared_model::ids::ItemId;
use shared_model::manifest::ModerationRules;
use tokio::sync::watch as channel;

use crate::catalogue::Catalogue;
use crate::config::ModerationConfig;
use bursts::Bursts;
pub use effect::Effect;
use effect::resolve;
use kept::Kept;
pub use preview::{NUM_PLACES, NUM_USERS, Preview};
pub use rule::{
    Act, Action, DRAFT_BYTES_MAX, Draft, Rule, RuleState, Source, Target, read_draft, read_name,
};

/// Most rules that are proposed or active.
pub const RULES_MAX: usize = 300;
/// Most of them that the server has proposed and nobody has answered: the others are for people.
pub const OWN_PROPOSALS_MAX: usize = 50;
/// Ended rules that are remembered, the newest.
pub const HISTORY_LEN: usize = 300;

/// What somebody decides about a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Let a proposal hold.
    Approve,
    /// End a proposal that is not to hold.
    Reject,
    /// Take back a proposal, or end a rule that holds.
    Withdraw,
}

/// Why nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ModerationError {
    /// No such rule.
    #[error("there is no rule {id}")]
    NotFound {
        /// The id asked for.
        id: u64,
    },
    /// It is not in a state for this.
    #[error("rule {id} is {}", format!("{state:?}").to_lowercase())]
    WrongState {
        /// The rule.
        id: u64,
        /// Where it stands.
        state: RuleState,
    },
    /// Two people are wanted, and this is the first of them again.
    #[error(
        "rule {id} wants the approval of somebody else than {by} (`moderation.approvals` is 2)"
    )]
    SamePerson {
        /// The rule.
        id: u64,
        /// The name given.
        by: String,
    },
    /// Another rule has the place, or the item has another.
    #[error(
        "rule {id} pins item {item_id} to position {position}, and active rule {other} is in its way"
    )]
    PlaceTaken {
        /// The rule.
        id: u64,
        /// Its item.
        item_id: ItemId,
        /// Its place.
        position: u32,
        /// The rule that is active.
        other: u64,
    },
    /// Too many rules are proposed or active.
    #[error("{RULES_MAX} rules are proposed or active already")]
    Full,
    /// The items of all rules together are more than pages are told.
    #[error("with rule {id}, {num_left_out} items have no room in what pages are told")]
    TooManyItems {
        /// The rule.
        id: u64,
        /// How many.
        num_left_out: usize,
    },
    /// The file cannot be read or written.
    #[error("{action} failed: {source}, {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
        /// The file.
        path: PathBuf,
    },
}

/// All rules, as operators see them.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Listed {
    /// Of what holds.
    pub revision: u64,
    /// People who must be behind a rule.
    pub approvals: u8,
    /// Items of active rules that have no room in what pages are told.
    pub num_left_out: usize,
    /// Proposed and active ones, oldest first.
    pub rules: Vec<Rule>,
    /// Ended ones, newest first.
    pub history: Vec<Rule>,
}

/// The rules of a server; cheap to clone.
#[derive(Clone)]
pub struct Moderation {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    config: ModerationConfig,
    catalogue: Catalogue,
    kept: Mutex<Kept>,
    effect: RwLock<Arc<Effect>>,
    revision: channel::Sender<u64>,
    bursts: Mutex<Bursts>,
}

impl Moderation {
    /// Reads the rules in `data_dir`, if any.
    ///
    /// # Errors
    /// The file cannot be read. It is no aid: going on without it would show what was blocked.
    pub fn open(
        data_dir: &Path,
        config: &ModerationConfig,
        catalogue: Catalogue,
        now_millis: i64,
    ) -> Result<Self, ModerationError> {
        let mut kept = Kept::read(data_dir)?;
        kept.raise_revision(now_millis);
        // Pages are told it; were the clock ahead now and right at the next start, they would refuse that one's.
        if let Err(error) = kept.write(data_dir) {
            tracing::warn!(%error, "the revision of the rules is not kept");
        }
        let (rules, num_left_out) = resolve(kept.active(), &catalogue);
        let effect = Effect {
            revision: kept.revision,
            rules,
            num_left_out,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                dir: data_dir.to_owned(),
                config: config.clone(),
                catalogue,
                revision: channel::Sender::new(kept.revision),
                kept: Mutex::new(kept),
                effect: RwLock::new(Arc::new(effect)),
                bursts: Mutex::new(Bursts::new(config, now_millis)),
            }),
        })
    }

    /// What holds.
    #[must_use]
    pub fn effect(&self) -> Arc<Effect> {
        let effect = self.shared.effect.read();
        Arc::clone(&effect.unwrap_or_else(PoisonError::into_inner))
    }

    /// The revision of what holds, and each later one.
    #[must_use]
    pub fn subscribe(&self) -> channel::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// All rules.
    #[must_use]
    pub fn listed(&self) -> Listed {
        let (kept, effect) = (self.kept(), self.effect());
        Listed {
            revision: effect.revision,
            approvals: self.shared.config.approvals,
            num_left_out: effect.num_left_out,
            rules: kept.open.clone(),
            history: kept.ended.iter().rev().cloned().collect(),
        }
    }

    /// The active rules that are about an item.
    #[must_use]
    pub fn about(&self, item_id: &ItemId) -> Vec<Rule> {
        let Some(item) = self.shared.catalogue.get(item_id) else {
            return Vec::new();
        };
        let kept = self.kept();
        let about = kept.active().filter(|rule| rule.is_about(&item));
        about.cloned().collect()
    }

    /// What would hold if a proposal were approved, or an active rule withdrawn.
    ///
    /// # Errors
    /// There is no such rule that is proposed or active.
    pub fn preview(&self, id: u64) -> Result<ModerationRules, ModerationError> {
        let kept = self.kept().clone();
        let turned = kept.open_rule(id)?;
        let is_proposed = turned.state == RuleState::Proposed;
        let rules = kept.open.iter().filter(|rule| match rule.id == id {
            true => is_proposed,
            false => rule.state == RuleState::Active,
        });
        Ok(resolve(rules, &self.shared.catalogue).0)
    }

    /// Takes in a proposal of a person.
    ///
    /// # Errors
    /// There are too many, or it cannot be written.
    pub fn propose(&self, draft: Draft, now_millis: i64) -> Result<Rule, ModerationError> {
        self.change(now_millis, |kept| {
            kept.propose(draft, (Source::Operator, None), now_millis)
        })
    }

    /// Takes in a proposal of the server itself, unless the same was proposed before and is open or remembered.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn propose_own(
        &self,
        item_id: &ItemId,
        source: Source,
        evidence: &str,
        now_millis: i64,
    ) -> Result<Option<Rule>, ModerationError> {
        if !self.kept().has_room_for_own(item_id, source) {
            return Ok(None);
        }
        let draft = Draft {
            action: Action::Block,
            target: Target::ItemIds(vec![item_id.clone()]),
            reason: match source {
                Source::Burst => "its share rose fast".to_owned(),
                Source::Marked | Source::Operator => "it is marked for review".to_owned(),
            },
            by: kept::SERVER_NAME.to_owned(),
            expires_at: None,
        };
        let origin = (source, Some(evidence.to_owned()));
        let proposed = self.change(now_millis, |kept| kept.propose(draft, origin, now_millis));
        match proposed {
            Err(ModerationError::Full) => Ok(None),
            proposed => proposed.map(Some),
        }
    }

    /// Approves, rejects or withdraws.
    ///
    /// # Errors
    /// There is no such rule, it is in no state for this, somebody else must approve it, an active rule is in its way,
    /// its items have no room, or it cannot be written.
    pub fn decide(
        &self,
        id: u64,
        decision: Decision,
        by: &str,
        now_millis: i64,
    ) -> Result<Rule, ModerationError> {
        let act = Act {
            by: by.to_owned(),
            at: now_millis,
        };
        let approvals = self.shared.config.approvals;
        self.change(now_millis, |kept| match decision {
            Decision::Approve => kept.approve(id, act, approvals),
            Decision::Reject => kept.end(id, act, RuleState::Rejected),
            Decision::Withdraw => kept.end(id, act, RuleState::Withdrawn),
        })
    }

    /// Ends rules whose time has passed, and follows what attributes say now. Answers with the ended ones.
    ///
    /// # Errors
    /// The file cannot be written; they hold on.
    pub(crate) fn refresh(&self, now_millis: i64) -> Result<Vec<Rule>, ModerationError> {
        self.change(now_millis, |kept| Ok(kept.expire(now_millis)))
    }

    /// Counts what users did and saw.
    pub(crate) fn count<'a>(&self, events: impl Iterator<Item = (&'a ItemId, EventKind)>) {
        let mut bursts = self.bursts();
        for (item_id, kind) in events {
            bursts.count(item_id, kind);
        }
    }

    fn bursts(&self) -> MutexGuard<'_, Bursts> {
        let bursts = self.shared.bursts.lock();
        bursts.unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        let kept = self.shared.kept.lock();
        kept.unwrap_or_else(PoisonError::into_inner)
    }

    /// Items whose attribute asks for a review.
    fn marked(&self) -> Vec<Arc<Item>> {
        let name = &self.shared.config.review_attribute;
        if name.is_empty() {
            return Vec::new();
        }
        let mut items = self.shared.catalogue.items();
        items.retain(|item| rule::has_value(item, name, "true"));
        items
    }

    /// Changes a copy, writes it, and puts it in the place of what there was.
    fn change<T>(
        &self,
        now_millis: i64,
        change: impl FnOnce(&mut Kept) -> Result<T, ModerationError>,
    ) -> Result<T, ModerationError> {
        let mut kept = self.kept();
        let mut changed = kept.clone();
        let outcome = change(&mut changed)?;
        let before = self.effect();
        let (rules, num_left_out) = resolve(changed.active(), &self.shared.catalogue);
        let newest = changed.newest_active_since(&kept);
        if let Some(id) = newest.filter(|_| num_left_out > before.num_left_out) {
            return Err(ModerationError::TooManyItems { id, num_left_out });
        }
        let is_new = rules != before.rules;
        if is_new {
            changed.raise_revision(now_millis);
        }
        if changed == *kept {
            return Ok(outcome);
        }
        changed.write(&self.shared.dir)?;
        let effect = Effect {
            revision: changed.revision,
            rules,
            num_left_out,
        };
        *kept = changed;
        *self
            .shared
            .effect
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(effect);
        if is_new {
            self.shared.revision.send_replace(kept.revision);
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
