//! What happens to the rules by itself: time passes, attributes change, and the server proposes what it has seen.
//!
//! Nothing that the server proposes holds before somebody has approved it.

use std::time::Duration;

use shared_model::ids::ItemId;
use tokio::sync::watch;

use super::{Moderation, ModerationError, Rule, Source};
use crate::audit::{AuditLog, AuditRow};
use crate::catalogue::Catalogue;

/// How often it looks: a rule ends within so long after its time, and an attribute counts.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks until the server stops.
pub async fn keep(
    moderation: Moderation,
    catalogue: Catalogue,
    audit: AuditLog,
    clock: fn() -> i64,
    mut stopping: watch::Receiver<bool>,
) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    let mut num_changes = None;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopping.changed() => return,
        }
        let now_millis = clock();
        // Read once: what changes from here on is looked at the next time.
        let seen = catalogue.num_changes();
        let (looking, is_changed) = (moderation.clone(), num_changes != Some(seen));
        let looked = tokio::task::spawn_blocking(move || {
            let mut acts = Vec::new();
            let done = looking.look(is_changed, now_millis, &mut acts);
            (acts, done)
        });
        let (acts, done) = match looked.await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::error!(%error, "looking at the rules panicked");
                continue;
            }
        };
        for act in acts {
            audit.add(row(act, now_millis)).await;
        }
        match done {
            Ok(()) => num_changes = Some(seen),
            Err(error) => tracing::error!(%error, "the rules stay as they are"),
        }
    }
}

fn row(what: String, at: i64) -> AuditRow {
    AuditRow {
        at,
        role: None,
        client: None,
        what,
        outcome: "done".to_owned(),
        untold: 0,
    }
}

impl Moderation {
    /// Does what is due, and says in `acts` what was done, up to an error.
    pub(super) fn look(
        &self,
        is_catalogue_changed: bool,
        now_millis: i64,
        acts: &mut Vec<String>,
    ) -> Result<(), ModerationError> {
        let is_over = |rule: &Rule| rule.is_over(now_millis);
        if is_catalogue_changed || self.kept().open.iter().any(is_over) {
            let ended = self.refresh(now_millis)?;
            acts.extend(ended.iter().map(|rule| format!("rule {} expired", rule.id)));
        }
        let bursts = self.bursts().ended(now_millis);
        for burst in bursts {
            acts.extend(self.suggest(
                &burst.item_id,
                Source::Burst,
                &burst.evidence,
                now_millis,
            )?);
        }
        if is_catalogue_changed {
            let evidence = format!("`{}` is true", self.shared.config.review_attribute);
            for item in self.marked() {
                acts.extend(self.suggest(&item.item_id, Source::Marked, &evidence, now_millis)?);
            }
        }
        Ok(())
    }

    fn suggest(
        &self,
        item_id: &ItemId,
        source: Source,
        evidence: &str,
        now_millis: i64,
    ) -> Result<Option<String>, ModerationError> {
        let proposed = self.propose_own(item_id, source, evidence, now_millis)?;
        Ok(proposed.map(|rule| format!("rule {} proposed: block {item_id}, {evidence}", rule.id)))
    }
}
