//! Effect of a plant: from the acknowledgement of its events to the rank in a page.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use shared_model::edge::engine::{K_MAX, RankOptions, RankRequest};
use shared_model::event::HistoryEvent;
use shared_model::ids::{ItemId, LogOffset, UserId, Version};

use super::ReplayError;
use super::background::EventClock;
use super::browser::{BrowserError, BrowserPage};
use super::followers::FollowerRecord;
use crate::page_client::{Applied, PageClient};

/// When an effect is given up.
pub const EFFECT_SECS_MAX: f64 = 10.0;
/// How often a Chromium page is asked; it notes the moment itself, so this costs no accuracy.
const BROWSER_POLL: Duration = Duration::from_millis(250);

/// Position below which an item counts as far down; half the list where that is shorter.
pub(super) const FAR_DOWN: usize = 500;
/// Largest share of the items far down that may rise as far as a planted one for it to count as an effect
/// and not as the drift that background events and releases give to all.
pub(super) const PEER_SHARE_MAX: f64 = 0.01;

/// A ranking just before a plant, against which rises are measured.
#[derive(Debug)]
pub(super) struct Before {
    /// Item and position of everything far down, the planted item included.
    far_down: HashMap<ItemId, usize>,
    /// Position of the planted item, from 1.
    pub(super) position: usize,
}

impl Before {
    pub(super) fn new(ranking: &[ItemId], planted: &ItemId) -> Self {
        let first = far_down_from(ranking.len());
        let far_down = ranking.iter().zip(1..).skip(first);
        Self {
            far_down: far_down
                .map(|(item_id, position)| (item_id.clone(), position))
                .collect(),
            position: position_of(ranking, planted),
        }
    }

    /// Whether the planted item has risen in `ranking`, and further than all but [`PEER_SHARE_MAX`] of its peers.
    fn has_effect(&self, ranking: &[ItemId], planted: &ItemId) -> bool {
        let rise = self.position.saturating_sub(position_of(ranking, planted));
        if rise == 0 {
            return false;
        }
        let as_far = ranking.iter().zip(1..).filter(|(item_id, position)| {
            let before = self.far_down.get(*item_id);
            *item_id != planted && before.is_some_and(|before| *before >= position + rise)
        });
        as_far.count() as f64 <= PEER_SHARE_MAX * self.far_down.len() as f64 // counts fit f64
    }
}

/// Number of items that are not far down.
pub(super) fn far_down_from(ranking_len: usize) -> usize {
    FAR_DOWN.min(ranking_len / 2)
}

/// Users with one history, and the item they will take.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) item_id: ItemId,
    pub(super) history: Vec<HistoryEvent>,
    pub(super) users: Vec<UserId>,
}

/// The acknowledgement of planted events: its moment on both clocks, and where they lie in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acked {
    /// End of the log once they were in it.
    pub(super) end: LogOffset,
    /// How many they are.
    pub(super) num_events: u64,
    pub(super) at: Instant,
    pub(super) system_millis: i64,
}

impl Acked {
    pub(super) fn now(end: LogOffset, num_events: usize) -> Self {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let system_millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX); // fits for ages
        let num_events = num_events as u64; // usize fits u64
        Self {
            end,
            num_events,
            at: Instant::now(),
            system_millis,
        }
    }

    /// Whether a version has learned any of the events, so that what it shows can be their effect.
    fn is_touched_by(self, version: &Applied) -> bool {
        version.learned_through > self.first_planted()
    }

    /// Offset of the first of the events.
    fn first_planted(self) -> LogOffset {
        LogOffset(self.end.0.saturating_sub(self.num_events))
    }

    fn deadline(self) -> Instant {
        self.at + Duration::from_secs_f64(EFFECT_SECS_MAX)
    }
}

/// What became of one plant.
#[derive(Debug, Clone)]
pub struct PlantOutcome {
    /// When its events were acknowledged.
    pub acked_at: Instant,
    /// Position just before, in the first page.
    pub position_before: usize,
    /// The best position that the first page saw afterwards.
    pub position_after: usize,
    /// Seconds until the first page had a version that learned all planted events, if it came.
    pub learned_secs: Option<f64>,
    /// Per ranking page the seconds until the effect; `None` where it was lost.
    pub effect_secs: Vec<Option<f64>>,
    /// The same for the Chromium pages.
    pub browser_secs: Vec<Option<f64>>,
    /// First version in which any ranking page saw the effect.
    pub effective_version: Option<Version>,
}

/// Seconds until each following page had the version with the effect; `None` where it never did.
#[must_use]
pub fn following_secs(plant: &PlantOutcome, followers: &[FollowerRecord]) -> Vec<Option<f64>> {
    let secs_of = |follower: &FollowerRecord| {
        let effective = plant.effective_version?;
        let first = follower
            .applied
            .iter()
            .find(|applied| applied.version >= effective)?;
        let secs = first
            .at
            .saturating_duration_since(plant.acked_at)
            .as_secs_f64();
        (secs <= EFFECT_SECS_MAX).then_some(secs)
    };
    followers.iter().map(secs_of).collect()
}

/// What one page saw.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// Seconds until the effect; `None` where it was lost.
    pub(super) secs: Option<f64>,
    /// The version that showed it.
    pub(super) version: Option<Version>,
    /// Seconds until a version had learned all planted events.
    pub(super) learned_secs: Option<f64>,
    /// Best position seen.
    pub(super) position_after: Option<usize>,
    /// Every version that was applied meanwhile.
    pub(super) applied: Vec<Applied>,
}

/// Follows and ranks until the effect is there or given up.
pub(super) async fn wait_for_effect(
    page: &mut PageClient,
    probe: &Probe,
    before: &Before,
    acked: Acked,
    clock: EventClock,
) -> Result<Effect, ReplayError> {
    let mut effect = Effect::default();
    while let Ok(version) =
        tokio::time::timeout_at(acked.deadline().into(), page.next_version()).await
    {
        effect.applied.push(version);
        if effect.learned_secs.is_none() && version.learned_through >= acked.end {
            effect.learned_secs = Some(acked.at.elapsed().as_secs_f64());
        }
        let ranking = rank_all(page, &probe.history, clock.now_millis()).await?;
        let position = position_of(&ranking, &probe.item_id);
        effect.position_after = effect.position_after.into_iter().chain([position]).min();
        if acked.is_touched_by(&version) && before.has_effect(&ranking, &probe.item_id) {
            effect.secs = Some(acked.at.elapsed().as_secs_f64());
            effect.version = Some(version.version);
            break;
        }
    }
    Ok(effect)
}

/// `rank()` of a page over all items.
pub(super) async fn rank_all(
    page: &mut PageClient,
    history: &[HistoryEvent],
    now_millis: i64,
) -> Result<Vec<ItemId>, ReplayError> {
    let options = RankOptions {
        k: K_MAX,
        exclude_seen: true,
    };
    let engine = page.engine_mut().ok_or(ReplayError::NoVersion)?;
    let request = RankRequest {
        history,
        candidates: None,
        options: &options,
        now_millis,
        moderation: None,
    };
    let ranking = engine.rank(&request).await?;
    Ok(ranking
        .items
        .into_iter()
        .map(|ranked| ranked.item_id)
        .collect())
}

/// Position from 1; one past the end where it is not ranked.
pub(super) fn position_of(ranking: &[ItemId], item_id: &ItemId) -> usize {
    ranking
        .iter()
        .position(|ranked| ranked == item_id)
        .unwrap_or(ranking.len())
        + 1
}

/// Seconds until a Chromium page saw the effect; `None` where it was lost.
pub(super) async fn wait_for_browser(
    browser: &BrowserPage,
    acked: Acked,
) -> Result<Option<f64>, BrowserError> {
    browser.acked(acked.first_planted()).await?;
    while Instant::now() < acked.deadline() {
        if let Some(seen_at) = browser.seen_at_millis().await? {
            let secs = (seen_at - acked.system_millis) as f64 / 1000.0; // milliseconds of an hour fit
            return Ok((secs <= EFFECT_SECS_MAX).then_some(secs));
        }
        tokio::time::sleep(BROWSER_POLL).await;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_model::ids::LogOffset;
    use shared_model::manifest::VersionKind;

    #[test]
    fn following_pages_are_timed_by_the_version_with_the_effect() {
        let acked_at = Instant::now();
        let applied = |version, millis| Applied {
            version: Version(version),
            kind: VersionKind::Fast,
            learned_through: LogOffset(0),
            delta_bytes: None,
            delta_bytes_downloaded: None,
            announcement_bytes: None,
            at: acked_at + Duration::from_millis(millis),
            hash_matches: true,
        };
        let follower = |applied| FollowerRecord {
            applied,
            ..FollowerRecord::default()
        };
        let followers = [
            follower(vec![applied(4, 100), applied(5, 600)]),
            follower(vec![applied(4, 100), applied(7, 900)]),
            follower(vec![applied(4, 100)]),
            follower(vec![applied(5, 10_001)]),
        ];
        let plant = |effective_version| PlantOutcome {
            acked_at,
            position_before: 900,
            position_after: 100,
            learned_secs: None,
            effect_secs: Vec::new(),
            browser_secs: Vec::new(),
            effective_version,
        };
        assert_eq!(
            following_secs(&plant(Some(Version(5))), &followers),
            vec![Some(0.6), Some(0.9), None, None]
        );
        assert_eq!(following_secs(&plant(None), &followers), vec![None; 4]);
    }

    fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<ItemId> {
        let id = |number| ItemId::new(format!("item-{number}")).expect("a short id");
        numbers.into_iter().map(id).collect()
    }

    #[test]
    fn a_rise_counts_when_it_is_further_than_that_of_the_peers() {
        let ranking = ids(0..200);
        let planted = ranking[150].clone();
        let before = Before::new(&ranking, &planted);
        assert_eq!((before.position, before.far_down.len()), (151, 100));
        assert!(!before.has_effect(&ranking, &planted), "nothing moved");

        let alone = ids([150].into_iter().chain(0..150).chain(151..200));
        assert!(before.has_effect(&alone, &planted));

        // Ten far-down items go to the front together: each rose, none more than the others.
        let together = ids((145..155).chain(0..145).chain(155..200));
        assert!(!before.has_effect(&together, &planted));

        let fallen = ids((0..150).chain(151..200).chain([150]));
        assert!(!before.has_effect(&fallen, &planted));
    }

    #[test]
    fn an_unranked_item_is_one_past_the_end() {
        let ids: Vec<ItemId> = ["a", "b"].map(|id| ItemId::new(id).expect("id")).to_vec();
        assert_eq!(position_of(&ids, &ids[1]), 2);
        assert_eq!(position_of(&ids, &ItemId::new("c").expect("id")), 3);
    }
}
