//! Moments of a dataset: what a CrossEncoder would have read when an item was taken, and what the baselines said.
//!
//! ```text
//! events in time order ─► moment (texts, taken item, negatives, 7-day counts, grades, list) ─► everything learns it
//! ```
//! Moments are events of users with a past on items new to them, drawn at random: from the first 80 % of the
//! events for the warm fit, from the rest for the stream. Users without a past are left out, since there is no
//! text of them. All events count for the baselines, drawn or not.

use std::collections::HashSet;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use shared_model::event::EventKind;

use super::negatives::NegativeSampler;
use super::rating_means::{GradeBaselines, RatingMeans};
use super::texts::{item_text, rating_word, user_text};
use crate::baselines::item_knn::ItemKnn;
use crate::baselines::popularity::{PopularityWindow, WEEK_MILLIS};
use crate::baselines::timelines::{Query, Timelines};
use crate::dataset::Dataset;

/// Share of the events before the stream.
pub const WARM_SHARE: f64 = 0.8;

/// How moments are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SceneOptions {
    /// Most moments of the warm fit.
    pub num_warm: usize,
    /// Most moments of the stream.
    pub num_stream: usize,
    /// Of these, most that get a list to be reranked.
    pub num_lists: usize,
    /// Items in such a list.
    pub list_len: usize,
    /// Negatives per moment.
    pub num_negatives: usize,
    /// Items that a user's text names.
    pub history_len: usize,
    /// Of draws and negatives.
    pub seed: u64,
}

/// An item that is scored at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Index of the item.
    pub item_idx: u32,
    /// Its events of the last 7 days.
    pub count_7d: f32,
}

/// A grade that was given, and what could be said of it before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grade {
    /// As given.
    pub actual: f64,
    pub(super) baselines: GradeBaselines,
}

/// One event, as it looked before it was known.
#[derive(Debug, Clone)]
pub struct Moment {
    /// User, item and time, and how much of the timeline was known.
    pub query: Query,
    /// What is read of the user.
    pub user_text: String,
    /// Items of that text, newest first.
    pub history: Vec<u32>,
    /// The item taken, then the negatives.
    pub candidates: Vec<Candidate>,
    /// The grade, where the dataset has grades and there was one before.
    pub grade: Option<Grade>,
    /// Items ranked by the base with their scores, best first; empty where the moment has no list.
    pub list: Vec<(u32, f32)>,
    /// Whether it gets a list.
    pub has_list: bool,
}

/// All moments.
#[derive(Debug)]
pub struct Scene {
    /// Of the warm fit, in time order.
    pub warm: Vec<Moment>,
    /// Of the stream, in time order.
    pub stream: Vec<Moment>,
    /// Texts of all items.
    pub item_texts: Vec<String>,
    /// What all users had done.
    pub timelines: Timelines,
    /// Events that could have been moments: before the split, and after.
    pub num_eligible: [usize; 2],
}

/// What learns while the events go by.
struct Observers {
    timelines: Timelines,
    negatives: NegativeSampler,
    window: PopularityWindow,
    means: RatingMeans,
    knn: Option<ItemKnn>,
    /// By user, parallel to the timelines: words for grades.
    words: Vec<Vec<Option<&'static str>>>,
    rng: StdRng,
}

impl Scene {
    /// Goes through the dataset once. `on_event` hears of every event.
    #[must_use]
    pub fn of(dataset: &Dataset, options: SceneOptions, mut on_event: impl FnMut()) -> Self {
        let split = dataset.split_at(WARM_SHARE);
        let [warm, stream] = eligible(dataset, split);
        let num_eligible = [warm.len(), stream.len()];
        let mut rng = StdRng::seed_from_u64(options.seed);
        let warm = draw(&warm, options.num_warm, &mut rng);
        let stream = draw(&stream, options.num_stream, &mut rng);
        let mut in_order: Vec<usize> = stream.iter().copied().collect();
        in_order.sort_unstable();
        let with_list = draw(&in_order, options.num_lists, &mut rng);

        let grade_max = grade_max(dataset);
        let mut scene = Self {
            warm: Vec::with_capacity(warm.len()),
            stream: Vec::with_capacity(stream.len()),
            item_texts: dataset.items.iter().map(item_text).collect(),
            timelines: Timelines::new(0),
            num_eligible,
        };
        let mut observers = Observers::new(dataset, rng);
        for (event_idx, event) in dataset.events.iter().enumerate() {
            let query = observers.timelines.push(event);
            let grade = event.value.filter(|_| grade_max.is_some());
            observers.window.expire(event.occurred_at);
            let has_list = with_list.contains(&event_idx);
            if warm.contains(&event_idx) {
                let moment = observers.moment(query, grade, options, false, &scene.item_texts);
                scene.warm.push(moment);
            } else if stream.contains(&event_idx) {
                let moment = observers.moment(query, grade, options, has_list, &scene.item_texts);
                scene.stream.push(moment);
            }
            let word = grade
                .zip(grade_max)
                .map(|(grade, max)| rating_word(grade, max));
            observers.learn(&query, grade, word);
            on_event();
        }
        scene.timelines = observers.timelines;
        scene
    }
}

/// The highest grade of a dataset of ratings, where it is above zero.
fn grade_max(dataset: &Dataset) -> Option<f64> {
    if dataset.kind != EventKind::Rating {
        return None;
    }
    let grades = dataset.events.iter().filter_map(|event| event.value);
    let largest = grades.fold(0.0, f64::max);
    (largest > 0.0).then_some(largest)
}

/// Events of users with a past on items new to them, before the split and after.
fn eligible(dataset: &Dataset, split: usize) -> [Vec<usize>; 2] {
    let mut timelines = Timelines::new(dataset.users.len());
    let mut parts = [Vec::new(), Vec::new()];
    for (event_idx, event) in dataset.events.iter().enumerate() {
        let query = timelines.push(event);
        if query.is_new && query.num_known > 0 {
            parts[usize::from(event_idx >= split)].push(event_idx);
        }
    }
    parts
}

fn draw(from: &[usize], num_max: usize, rng: &mut StdRng) -> HashSet<usize> {
    let drawn = sample(rng, from.len(), num_max.min(from.len()));
    drawn.into_iter().map(|place| from[place]).collect()
}

impl Observers {
    fn new(dataset: &Dataset, rng: StdRng) -> Self {
        let (num_users, num_items) = (dataset.users.len(), dataset.items.len());
        Self {
            timelines: Timelines::new(num_users),
            negatives: NegativeSampler::new(num_items),
            window: PopularityWindow::new(num_items, WEEK_MILLIS),
            means: RatingMeans::new(num_users, num_items),
            knn: ItemKnn::new(num_items),
            words: vec![Vec::new(); num_users],
            rng,
        }
    }

    fn moment(
        &mut self,
        query: Query,
        grade: Option<f64>,
        options: SceneOptions,
        has_list: bool,
        item_texts: &[String],
    ) -> Moment {
        let num_known = query.num_known;
        let seen = self.timelines.history(&query);
        let words = &self.words[query.user_idx as usize][..num_known];
        let newest = seen.iter().zip(words).rev().take(options.history_len);
        let history: Vec<u32> = newest.clone().map(|(seen, _)| seen.item_idx).collect();
        let read = newest.map(|(seen, word)| (item_texts[seen.item_idx as usize].as_str(), *word));
        let user_text = user_text(read);

        let had = self.timelines.distinct(&query);
        let negatives =
            self.negatives
                .draw(options.num_negatives, had, query.item_idx, &mut self.rng);
        let candidate = |item_idx| Candidate {
            item_idx,
            count_7d: self.window.count(item_idx),
        };
        let candidates = std::iter::once(query.item_idx)
            .chain(negatives)
            .map(candidate)
            .collect();
        let baselines = self.means.predict(query.user_idx, query.item_idx);
        let grade = grade
            .zip(baselines)
            .map(|(actual, baselines)| Grade { actual, baselines });
        let list = if has_list {
            self.list(&query, options.list_len)
        } else {
            Vec::new()
        };
        Moment {
            query,
            user_text,
            history,
            candidates,
            grade,
            list,
            has_list,
        }
    }

    /// Top of item-kNN among the items that the user had not.
    fn list(&mut self, query: &Query, len: usize) -> Vec<(u32, f32)> {
        let scores = self
            .knn
            .as_mut()
            .and_then(|knn| knn.scores(query, &self.timelines));
        top(scores.unwrap_or(&[]), self.timelines.removed(query), len)
            .into_iter()
            .filter(|(_, score)| *score > 0.0)
            .collect()
    }

    fn learn(&mut self, query: &Query, grade: Option<f64>, word: Option<&'static str>) {
        self.negatives.learn(query.item_idx);
        self.window.learn(query);
        if let Some(grade) = grade {
            self.means.learn(query.user_idx, query.item_idx, grade);
        }
        if let Some(knn) = &mut self.knn {
            knn.learn(query, &self.timelines);
        }
        self.words[query.user_idx as usize].push(word);
    }
}

/// The best `len` items that are not removed, best first, ties by lower index.
#[must_use]
pub fn top(scores: &[f32], removed: &[u32], len: usize) -> Vec<(u32, f32)> {
    let removed: HashSet<u32> = removed.iter().copied().collect();
    let mut ranked: Vec<(u32, f32)> = (0_u32..)
        .zip(scores.iter().copied())
        .filter(|(item_idx, score)| score.is_finite() && !removed.contains(item_idx))
        .collect();
    ranked.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
    ranked.truncate(len);
    ranked
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::dataset::DatasetEvent;
    use shared_model::event::Item;
    use shared_model::ids::UserId;

    /// Users with an even index take even items in turn, others odd ones; grades are 9 and 4.
    pub(in super::super) fn dataset(num_users: u32, num_rounds: u32, kind: EventKind) -> Dataset {
        let num_items = 40;
        let item = |idx: u32| -> Item {
            let title = format!(
                "{} thing{idx}",
                if idx.is_multiple_of(2) { "red" } else { "blue" }
            );
            serde_json::from_value(
                serde_json::json!({"item_id": format!("i{idx}"), "title": title}),
            )
            .expect("item")
        };
        let mut events = Vec::new();
        for round in 0..num_rounds {
            for user_idx in 0..num_users {
                let item_idx = (user_idx % 2 + 2 * (user_idx + round)) % num_items;
                let grade = if item_idx.is_multiple_of(4) { 9.0 } else { 4.0 };
                events.push(DatasetEvent {
                    user_idx,
                    item_idx,
                    occurred_at: i64::from(round * num_users + user_idx) * 60_000,
                    value: (kind == EventKind::Rating).then_some(grade),
                });
            }
        }
        let user = |idx| UserId::new(format!("u{idx}")).expect("id");
        Dataset {
            name: "toy".to_owned(),
            kind,
            items: (0..num_items).map(item).collect(),
            users: (0..num_users).map(user).collect(),
            events,
            tie_seed: 1,
        }
    }

    pub(in super::super) const OPTIONS: SceneOptions = SceneOptions {
        num_warm: 100,
        num_stream: 40,
        num_lists: 10,
        list_len: 5,
        num_negatives: 2,
        history_len: 3,
        seed: 1,
    };

    #[test]
    fn a_moment_knows_what_came_before_it_alone() {
        let dataset = dataset(12, 15, EventKind::Rating);
        let scene = Scene::of(&dataset, OPTIONS, || ());
        assert_eq!((scene.warm.len(), scene.stream.len()), (100, 36));
        let lists = scene.stream.iter().filter(|moment| moment.has_list);
        assert_eq!(lists.count(), 10);
        let split = dataset.events[dataset.split_at(WARM_SHARE)].occurred_at;
        assert!(
            scene
                .warm
                .iter()
                .all(|moment| moment.query.occurred_at < split)
        );
        for moment in scene.warm.iter().chain(&scene.stream) {
            let had = scene.timelines.distinct(&moment.query);
            assert_eq!(moment.candidates[0].item_idx, moment.query.item_idx);
            for candidate in &moment.candidates {
                assert!(!had.contains(&candidate.item_idx), "had already");
            }
            for (item_idx, _) in &moment.list {
                assert!(!had.contains(item_idx), "had already");
            }
            let last = scene.timelines.history(&moment.query).last();
            let last = last.expect("a past").item_idx;
            assert_eq!(moment.history[0], last);
            let word = if last % 4 == 0 { "loved" } else { "disliked" };
            let start = format!("{word} {}", scene.item_texts[last as usize]);
            assert!(moment.user_text.starts_with(&start), "{}", moment.user_text);
            assert!(moment.grade.is_some());
        }
    }

    #[test]
    fn clicks_have_neither_grades_nor_words_and_one_event_gives_no_moment() {
        let scene = Scene::of(&dataset(4, 5, EventKind::Purchase), OPTIONS, || ());
        let moment = &scene.warm[0];
        assert!(moment.grade.is_none());
        assert!(!moment.user_text.contains("liked"), "{}", moment.user_text);
        let alone = Scene::of(&dataset(1, 1, EventKind::Purchase), OPTIONS, || ());
        assert!(alone.warm.is_empty() && alone.stream.is_empty());
    }

    #[test]
    fn the_top_leaves_out_what_is_removed_and_what_is_no_number() {
        let ranked = top(&[1.0, 3.0, f32::NAN, 3.0, 2.0], &[1], 2);
        assert_eq!(ranked, vec![(3, 3.0), (4, 2.0)]);
    }
}
