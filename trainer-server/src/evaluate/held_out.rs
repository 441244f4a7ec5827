//! Protocols without a stream: `time-split` and `leave-one-out`, learned once and frozen.
//!
//! ```text
//! time-split     first 80 % by time ─► fit ─► every event of the last 20 % is ranked, nothing is learned
//! leave-one-out  all but each user's last event ─► fit ─► each last event is ranked
//! ```
//!
//! Histories are what each user had done before the event, learned or not, as a page keeps them.
//! Under leave-one-out the item prior counts what was learned of the time before the event, as a page of that
//! moment would: counts of the end of the log would say what is popular after it.
//! Not here: learning from the stream, which is `prequential`.

use serde_json::json;

use super::document::{header, object, systems_document};
use super::offline::{Offline, baselines};
use super::outcomes::Outcomes;
use super::prequential::Evaluation;
use super::systems::{SYSTEMS, Systems};
use super::table::table;
use crate::baselines::Learning;
use crate::baselines::popularity::{PopularityWindow, WEEK_MILLIS};
use crate::baselines::ranked::Ranked;
use crate::baselines::timelines::{Query, Timelines};
use crate::dataset::{Dataset, DatasetEvent};
use crate::replay::scoring::{RankModel, score_chunk};
use crate::replay::walk::FrozenVersion;
use crate::replay::{ReplayError, bar, report};
use crate::train::count_history::CountHistory;

/// Which events are held out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldOut {
    /// The events from this one on.
    TimeSplit {
        /// Index of the first that is not learned.
        split: usize,
    },
    /// The last event of every user.
    LeaveOneOut,
}

/// Events that are ranked together.
const CHUNK_LEN: usize = 128;
/// The same where the counts are those of the first of them.
const CHUNK_LEN_OF_MOMENT: usize = 16;

impl HeldOut {
    /// As it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TimeSplit { .. } => "time-split",
            Self::LeaveOneOut => "leave-one-out",
        }
    }

    /// By event of the dataset: whether it is held out.
    #[must_use]
    pub fn marks(self, dataset: &Dataset) -> Vec<bool> {
        let events = &dataset.events;
        match self {
            Self::TimeSplit { split } => (0..events.len()).map(|idx| idx >= split).collect(),
            Self::LeaveOneOut => {
                let mut last = vec![usize::MAX; dataset.users.len()];
                for (idx, event) in events.iter().enumerate() {
                    last[event.user_idx as usize] = idx;
                }
                let of_user = |event: &DatasetEvent| last[event.user_idx as usize];
                let events = events.iter().enumerate();
                events.map(|(idx, event)| of_user(event) == idx).collect()
            }
        }
    }

    fn notes(self, tie_seed: u64) -> Vec<String> {
        let own = match self {
            Self::TimeSplit { .. } => {
                "the first 80 % of the events by time are learned by a warm fit, the last 20 % are ranked; \
                 nothing is learned from them, by no system, but histories go on as pages keep them"
            }
            Self::LeaveOneOut => {
                "the last event of every user is ranked, all others are learned by a warm fit; what other users \
                 did later is among them, so all systems but popularity_7d know the future; freshet's item prior \
                 counts what came before the event"
            }
        };
        vec![
            own.to_owned(),
            format!(
                "events of the same second are in a random order, seed {tie_seed}; all items are in the catalogue"
            ),
            "headline: items new to the user, ranked among all items without those the user already had; \
             repeats are ranked among all items and reported apart"
                .to_owned(),
            "ties in score go to the lower item index; item_knn and text_only rank nothing without a history, \
             which counts as a miss"
                .to_owned(),
        ]
    }
}

/// Runs the protocol and prints the table.
///
/// # Errors
/// Nothing is left to learn or to rank, or learning or scoring failed.
pub async fn run(
    dataset: &Dataset,
    held_out: HeldOut,
    offline: &Offline,
    seed: u64,
) -> Result<Evaluation, ReplayError> {
    let started_at = std::time::Instant::now();
    let marks = held_out.marks(dataset);
    let learned = select(dataset, &marks, false);
    if learned.is_empty() || learned.len() == dataset.events.len() {
        return Err(ReplayError::NothingHeldOut {
            protocol: held_out.name(),
            num_learned: learned.len(),
            num_events: dataset.events.len(),
        });
    }
    let progress = bar(0, "warm fit");
    let (version, counts) = offline.fit_with_counts(dataset, learned.iter().copied(), &progress)?;
    progress.finish();
    let fit_secs = started_at.elapsed().as_secs_f64();
    let outcomes = rank(dataset, held_out, &marks, &version, &counts).await?;
    let systems = Systems::of(&outcomes, &SYSTEMS, seed, |name| match name {
        "frozen" => {
            "it is freshet itself, since nothing is learned from the held-out events".to_owned()
        }
        "refit_daily" | "sasrec" => "it is part of the prequential protocol alone".to_owned(),
        name => report::absence(name),
    });
    println!(
        "\n{} · {} · {} events ranked",
        dataset.name,
        held_out.name(),
        outcomes.asked().len()
    );
    print!("{}", table(&systems));
    let mut document = header(dataset, held_out.name(), held_out.notes(dataset.tie_seed));
    document.extend(object(json!({
        "dataset_counts": {
            "users": dataset.users.len(), "items": dataset.items.len(), "events": dataset.events.len(),
            "learned_events": learned.len(), "held_out_events": outcomes.asked().len(),
        },
        "fit_secs": fit_secs,
        "total_secs": started_at.elapsed().as_secs_f64(),
    })));
    document.extend(systems_document(&systems));
    Ok(Evaluation {
        document,
        systems,
        outcomes,
    })
}

fn select<'a>(dataset: &'a Dataset, marks: &[bool], is_held_out: bool) -> Vec<&'a DatasetEvent> {
    let events = dataset.events.iter().zip(marks);
    let wanted = events.filter(|(_, mark)| **mark == is_held_out);
    wanted.map(|(event, _)| event).collect()
}

/// All systems over the held-out events.
async fn rank(
    dataset: &Dataset,
    held_out: HeldOut,
    marks: &[bool],
    version: &FrozenVersion,
    counts: &CountHistory,
) -> Result<Outcomes, ReplayError> {
    let mut timelines = Timelines::new(dataset.users.len());
    let (mut learned, mut asked) = (Vec::new(), Vec::new());
    for (event, is_held_out) in dataset.events.iter().zip(marks) {
        let query = timelines.push(event);
        if *is_held_out {
            asked.push(query);
        } else {
            learned.push(query);
        }
    }
    let mut baselines = baselines(dataset, version, &learned, &timelines);
    let mut outcomes = Outcomes::new(dataset.items.len(), select(dataset, marks, false));
    let progress = bar(asked.len(), "rank");
    let is_of_moment = held_out == HeldOut::LeaveOneOut;
    let chunk_len = if is_of_moment {
        CHUNK_LEN_OF_MOMENT
    } else {
        CHUNK_LEN
    };
    let mut ready = version.ready.clone();
    for chunk in asked.chunks(chunk_len) {
        if is_of_moment {
            let codes = counts.codes(chunk[0].occurred_at);
            ready.scorer = version.ready.scorer.with_counts(&codes);
        }
        let model = RankModel {
            ready: &ready,
            state: &version.state,
            rows: &version.rows,
            kind: dataset.kind,
        };
        outcomes.ask(chunk);
        outcomes.answer("freshet", &score_chunk(model, chunk, &timelines).await?);
        for (name, ranked) in baselines.rank(chunk, &timelines, Learning::Stopped) {
            let knows_its_week = name != "popularity_7d" || !is_of_moment;
            if knows_its_week {
                outcomes.answer(name, &ranked);
            }
        }
        progress.inc(chunk.len() as u64); // usize fits u64
    }
    progress.finish();
    if is_of_moment {
        let ranked = last_weeks(dataset, marks, &timelines, &learned, &asked);
        outcomes.answer("popularity_7d", &ranked);
    }
    Ok(outcomes)
}

/// Popularity of the week before each held-out event, counted from the events that are learned.
fn last_weeks(
    dataset: &Dataset,
    marks: &[bool],
    timelines: &Timelines,
    learned: &[Query],
    asked: &[Query],
) -> Vec<Ranked> {
    let mut window = PopularityWindow::new(dataset.items.len(), WEEK_MILLIS);
    let (mut learned, mut asked) = (learned.iter(), asked.iter());
    let mut ranked = Vec::with_capacity(asked.len());
    for is_held_out in marks {
        if !is_held_out {
            window.learn(learned.next().expect("one query per mark"));
            continue;
        }
        let query = asked.next().expect("one query per mark");
        window.expire(query.occurred_at);
        ranked.push(window.rank(query, timelines));
    }
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_model::event::EventKind;
    use shared_model::ids::UserId;

    const DAY_MILLIS: i64 = 86_400_000;

    /// Two users over three items; the days are 0, 1, 2 and 20.
    fn dataset() -> Dataset {
        let event = |(user_idx, item_idx, day): (u32, u32, i64)| DatasetEvent {
            user_idx,
            item_idx,
            occurred_at: day * DAY_MILLIS,
            value: None,
        };
        let item = |idx: u32| {
            let text = serde_json::json!({"item_id": format!("i{idx}"), "title": ""});
            serde_json::from_value(text).expect("an item")
        };
        Dataset {
            name: "toy".to_owned(),
            kind: EventKind::Click,
            items: (0..3).map(item).collect(),
            users: ["a", "b"]
                .map(|id| UserId::new(id).expect("an id"))
                .to_vec(),
            events: [(0, 1, 0), (1, 2, 1), (0, 2, 2), (1, 0, 20)]
                .map(event)
                .to_vec(),
            tie_seed: 1,
        }
    }

    #[test]
    fn the_last_event_of_each_user_or_the_last_part_is_held_out() {
        let dataset = dataset();
        assert_eq!(
            HeldOut::LeaveOneOut.marks(&dataset),
            [false, false, true, true]
        );
        let by_time = HeldOut::TimeSplit { split: 3 };
        assert_eq!(by_time.marks(&dataset), [false, false, false, true]);
    }

    #[test]
    fn the_week_of_leave_one_out_ends_at_the_event_and_forgets() {
        let dataset = dataset();
        let marks = HeldOut::LeaveOneOut.marks(&dataset);
        let mut timelines = Timelines::new(2);
        let queries: Vec<Query> = dataset
            .events
            .iter()
            .map(|event| timelines.push(event))
            .collect();
        let ranked = last_weeks(&dataset, &marks, &timelines, &queries[..2], &queries[2..]);
        let ranks: Vec<Option<u32>> = ranked.iter().map(|one| one.rank).collect();
        // Day 2: item 2 was taken the day before, item 0 never. Day 20: item 1 is forgotten, so item 0 comes first.
        assert_eq!(ranks, [Some(1), Some(1)]);
    }
}
