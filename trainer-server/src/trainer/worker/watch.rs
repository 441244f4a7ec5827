//! Watch over the versions of late: which one they are compared with, and what follows when they are worse.
//!
//! The anchor is the last release, or the newest version once `gate.watch_events` were asked about. A rollback to it is
//! what an operator would order; where the anchor is itself the result of such a rollback, what is wrong still goes on
//! and nothing is published until an operator has looked. Not here: how versions are compared (`learner::watch`).

use shared_model::ids::Version;

use super::Worker;
use crate::canary::Reason;
use crate::config::WorseChoice;
use crate::learner::WatchFigures;
use crate::trainer::TrainerError;

/// Whom the newest version is compared with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Anchor {
    version: Version,
    /// Whether it is what the watch itself returned to.
    is_fallback: bool,
}

impl Worker {
    /// Makes the live version the anchor.
    pub(super) fn watch_from(&mut self, version: Version) {
        self.learner.watch_from_here();
        self.anchor = Anchor {
            version,
            is_fallback: false,
        };
    }

    /// Whether the anchor is old enough to be relieved.
    pub(super) fn is_anchor_old(&self) -> bool {
        let watched = self.learner.watched();
        watched.is_some_and(|figures| figures.num_events >= self.config.gate.watch_events)
    }

    /// Acts where the versions of late are worse than the anchor.
    pub(super) fn heed_watch(&mut self) -> Result<(), TrainerError> {
        let Some(figures) = self.learner.watched() else {
            return Ok(());
        };
        self.serving.update(|status| status.watch = Some(figures));
        if !figures.is_worse || self.rollout.is_pinned() {
            return Ok(());
        }
        let Some(newest) = self.published_version() else {
            return Ok(());
        };
        self.raise_alarm(newest, figures);
        match self.config.gate.on_worse {
            WorseChoice::Rollback if !self.anchor.is_fallback && self.anchor.version < newest => {
                let by = Some("the watch over versions that creep".to_owned());
                match self.roll_back(self.anchor.version, newest, by)? {
                    Ok(rollback) => {
                        tracing::warn!("returned to version {} by itself", rollback.restored);
                        self.anchor.is_fallback = true;
                        Ok(())
                    }
                    Err(error) => {
                        tracing::error!(%error, "no way back, so nothing is published until an operator unpins");
                        self.hold()
                    }
                }
            }
            WorseChoice::Rollback | WorseChoice::Pin => self.hold(),
            WorseChoice::Off => Ok(()),
        }
    }

    fn hold(&mut self) -> Result<(), TrainerError> {
        self.rollout.pin(true)?;
        let version = self.published_version().unwrap_or_default();
        self.watch_from(version); // an operator who unpins has looked
        self.take_back_canary(Reason::Watch, None) // what is undecided does not stay out
    }

    fn raise_alarm(&self, newest: Version, figures: WatchFigures) {
        let anchor = self.anchor.version;
        let (mean, num_events) = (figures.mean, figures.num_events);
        let alarm = format!(
            "version {newest} is worse than version {anchor}: {mean:.3} nats on {num_events} events"
        );
        tracing::error!("{alarm}");
        self.serving.update(|status| {
            status.alarms += 1;
            status.last_alarm = Some(alarm);
        });
    }
}
