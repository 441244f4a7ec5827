//! Claims about shelves, on made-up codes: rules, diversity and chance, and what they are together.
//!
//! Not here: that draws are as frequent as their propensities say (`diversity`, `edge::explore`).

use super::*;
use crate::edge::engine::RankOptions;
use crate::edge::engine::diversity::cosine;
use crate::edge::engine::made_up::{
    NOW_MILLIS, NUM_ITEMS, history, made_up_state, pollster, ready,
};
use crate::edge::engine::rules::RulesForm;
use crate::event::HistoryEvent;
use crate::model::scorer::Padding;

/// A version, a visitor, and what the page asks for.
struct Ask {
    state: CodeState,
    ready: ReadyVersion,
    history: Vec<HistoryEvent>,
    candidates: Option<Vec<ItemId>>,
    options: RankOptions,
    rules: Rules,
    diversity: Option<Diversity>,
    exploration: Option<Exploration>,
}

impl Ask {
    fn new(k: usize) -> Self {
        let mut state = made_up_state(7);
        state.items[5].available = false;
        Self {
            ready: ready(&state, Padding::Longest),
            state,
            history: history(4, 3),
            candidates: None,
            options: RankOptions {
                k,
                exclude_seen: false,
            },
            rules: Rules::default(),
            diversity: None,
            exploration: None,
        }
    }

    /// Rules in JSON, as a page passes them.
    fn with_rules(mut self, json: &str) -> Self {
        let form: RulesForm = serde_json::from_str(json).expect("well-formed");
        self.rules = Rules::try_from(form).expect("within limits");
        self
    }

    fn with_diversity(mut self, lambda: f64, pool: u64) -> Self {
        self.diversity = Some(Diversity::new(lambda, Some(pool)).expect("in range"));
        self
    }

    fn with_temperature(mut self, temperature: f64, pool: u64, seed: u64) -> Self {
        let drawn = Exploration::from_fields(Some(temperature), None, Some(pool), seed);
        self.exploration = Some(drawn.expect("in range"));
        self
    }

    fn rank(&self) -> RankRequest<'_> {
        RankRequest {
            history: &self.history,
            candidates: self.candidates.as_deref(),
            options: &self.options,
            now_millis: NOW_MILLIS,
            moderation: None,
        }
    }

    fn shelf(&self) -> Shelf {
        let request = ShelfRequest {
            rank: self.rank(),
            rules: &self.rules,
            diversity: self.diversity.as_ref(),
            exploration: self.exploration.as_ref(),
            personal: None,
        };
        pollster(self.ready.shelf(&self.state, Version(3), &request)).expect("finite")
    }

    fn order(&self) -> Vec<String> {
        let items = self.shelf().items;
        items.iter().map(|item| item.item_id.to_string()).collect()
    }

    /// Available items by score plus `points` of a row, best first.
    fn sorted(&self, points: impl Fn(usize) -> f32) -> Vec<String> {
        let scored = self.ready.score_all(&self.state, &self.history, NOW_MILLIS);
        let scores = pollster(scored).expect("finite");
        let mut rows: Vec<usize> = (0..NUM_ITEMS).filter(|idx| *idx != 5).collect();
        let adjusted = |idx: usize| scores[idx] + points(idx);
        rows.sort_by(|a, b| adjusted(*b).total_cmp(&adjusted(*a)));
        rows.into_iter().map(|idx| format!("i{idx}")).collect()
    }
}

#[test]
fn without_wishes_a_shelf_is_the_ranking() {
    let ask = Ask::new(12);
    let ranked = pollster(ask.ready.rank(&ask.state, &ask.rank())).expect("finite");
    let shelf = ask.shelf();
    assert_eq!(shelf.items.len(), 12);
    for (ranked, item) in ranked.iter().zip(&shelf.items) {
        assert_eq!((&ranked.item_id, ranked.score), (&item.item_id, item.score));
        assert_eq!(
            (item.points, item.propensity, item.required),
            (0.0, 1.0, false)
        );
    }
    assert_eq!(shelf.missing, vec![]);
}

#[test]
fn points_beyond_a_hundred_count_as_a_hundred_so_that_scores_still_decide_among_equals() {
    let rules: Vec<String> = (0..900)
        .map(|_| r#"{"itemIds": ["i3", "i8", "i20"], "points": 100}"#.to_owned())
        .collect();
    let bury = r#"{"itemIds": ["i20"], "points": 50}"#;
    let text = format!(r#"{{"boost": [{}], "bury": [{bury}]}}"#, rules.join(", "));
    let ask = Ask::new(NUM_ITEMS).with_rules(&text);
    let points = |idx: usize| {
        if [3, 8, 20].contains(&idx) {
            100.0
        } else {
            0.0
        }
    };
    assert_eq!(ask.order(), ask.sorted(points));
    let shelf = ask.shelf();
    let boosted: Vec<f64> = shelf.items[..3].iter().map(|item| item.points).collect();
    assert_eq!(
        boosted,
        [100.0, 100.0, 100.0],
        "also where a bury takes from many boosts"
    );
}

#[test]
fn points_of_all_rules_add_up_and_unknown_items_are_passed_over() {
    let rules = r#"{"boost": [{"itemIds": ["i3", "i8", "gone"], "points": 2}, {"itemIds": ["i8", "i8"], "points": 1.5}],
                    "bury": [{"itemIds": ["i3"], "points": 2}, {"itemIds": ["i20"], "points": 100}]}"#;
    let ask = Ask::new(NUM_ITEMS).with_rules(rules);
    let points = |idx: usize| match idx {
        8 => 3.5,
        20 => -100.0,
        _ => 0.0,
    };
    assert_eq!(ask.order(), ask.sorted(points));
    let shelf = ask.shelf();
    let of = |id: &str| {
        shelf
            .items
            .iter()
            .find(|item| item.item_id.to_string() == id)
    };
    assert_eq!(of("i8").map(|item| item.points), Some(3.5));
    assert_eq!(of("i3").map(|item| item.points), Some(0.0));
    let plain = Ask::new(NUM_ITEMS).shelf();
    let unchanged = plain
        .items
        .iter()
        .find(|item| item.item_id.to_string() == "i8");
    assert_eq!(
        of("i8").map(|item| item.score),
        unchanged.map(|item| item.score),
        "the score stays the model's"
    );
}

#[test]
fn required_items_stand_at_their_positions_whatever_else_is_said_of_them() {
    let mut ask = Ask::new(6).with_rules(
        r#"{"require": [{"itemId": "i2", "position": 4}, {"itemId": "i9", "position": 0}],
            "bury": [{"itemIds": ["i9"], "points": 50}]}"#,
    );
    ask.candidates = Some(
        ask.state.items[10..]
            .iter()
            .map(|item| item.item_id.clone())
            .collect(),
    );
    ask.options.exclude_seen = true;
    ask.history[0].item_id = ItemId::new("i9").expect("short");
    let order = ask.order();
    assert_eq!((order[0].as_str(), order[4].as_str()), ("i9", "i2"));
    let by_score = Ask {
        rules: Rules::default(),
        ..ask
    }
    .order();
    let free: Vec<&String> = order
        .iter()
        .filter(|id| *id != "i9" && *id != "i2")
        .collect();
    assert_eq!(free, by_score[..4].iter().collect::<Vec<_>>());
}

#[test]
fn what_is_required_and_cannot_stand_there_is_told() {
    let ask = Ask::new(4).with_rules(
        r#"{"require": [{"itemId": "i1", "position": 9}, {"itemId": "gone", "position": 1},
                        {"itemId": "i5", "position": 2}, {"itemId": "i7", "position": 3},
                        {"itemId": "i4", "position": 0}],
            "exclude": ["i7", "gone too"]}"#,
    );
    let shelf = ask.shelf();
    let missing: Vec<String> = shelf.missing.iter().map(ItemId::to_string).collect();
    assert_eq!(missing, ["i1", "gone", "i5", "i7"]);
    let expected: Vec<String> = ask
        .sorted(|_| 0.0)
        .into_iter()
        .filter(|id| !["i1", "i7", "i4"].contains(&id.as_str()))
        .take(3)
        .collect();
    let order = ask.order();
    assert_eq!(order[0], "i4");
    assert_eq!(order[1..], expected);
}

#[test]
fn a_shorter_shelf_is_the_beginning_of_a_longer_one() {
    let rules = r#"{"require": [{"itemId": "i2", "position": 1}, {"itemId": "i9", "position": 7}],
                    "boost": [{"itemIds": ["i11"], "points": 3}]}"#;
    for lambda in [None, Some(0.4)] {
        let ask = |k| {
            let ask = Ask::new(k).with_rules(rules);
            match lambda {
                Some(lambda) => ask.with_diversity(lambda, 15),
                None => ask,
            }
        };
        let longest = ask(20).order();
        for k in [0, 1, 2, 5, 8, 13] {
            assert_eq!(ask(k).order(), longest[..k], "k = {k}, lambda {lambda:?}");
        }
    }
}

#[test]
fn where_items_run_out_required_ones_follow_right_behind() {
    let mut ask = Ask::new(10).with_rules(
        r#"{"require": [{"itemId": "i2", "position": 8}, {"itemId": "i9", "position": 5}]}"#,
    );
    ask.candidates = Some(vec![ask.state.items[0].item_id.clone()]);
    assert_eq!(ask.order(), ["i0", "i9", "i2"]);
    assert_eq!(ask.shelf().missing, vec![]);
}

/// MMR by its definition: at every place everything is computed anew.
fn reference(ask: &Ask, lambda: f64, pool_len: usize, required: &[(usize, u32)]) -> Vec<String> {
    let row = |id: &String| ask.ready.item_idx(&ItemId::new(id.clone()).expect("short"));
    let by_score: Vec<u32> = ask.sorted(|_| 0.0).iter().filter_map(row).collect();
    let is_free = |idx: &u32| required.iter().all(|(_, other)| other != idx);
    let free: Vec<u32> = by_score.into_iter().filter(is_free).collect();
    let mut pool: Vec<u32> = free[..pool_len].to_vec();
    let mut behind = free[pool_len..].iter();
    let all: Vec<u32> = (0..NUM_ITEMS as u32).collect(); // 30
    let vectors = pollster(vectors_of(&ask.ready.scorer, &all)).expect("finite");
    let vector = |idx: u32| &vectors[idx as usize * 8..(idx as usize + 1) * 8];
    let scored = ask.ready.score_all(&ask.state, &ask.history, NOW_MILLIS);
    let scores = pollster(scored).expect("finite");
    let score = |idx: u32| f64::from(scores[idx as usize]);
    let (max, min) = (score(pool[0]), score(pool[pool_len - 1]));
    let mut list: Vec<u32> = Vec::new();
    while list.len() < ask.options.k {
        if let Some((_, idx)) = required.iter().find(|(place, _)| *place == list.len()) {
            list.push(*idx);
            continue;
        }
        let value = |idx: u32| {
            let cosines = list
                .iter()
                .map(|placed| cosine(vector(idx), vector(*placed)));
            let nearest = cosines.reduce(f64::max).unwrap_or(0.0);
            lambda * ((score(idx) - min) / (max - min)) - (1.0 - lambda) * nearest
        };
        let Some(best) = (0..pool.len()).reduce(|best, other| {
            let is_better = value(pool[other]) > value(pool[best]);
            if is_better { other } else { best }
        }) else {
            list.extend(behind.next());
            continue;
        };
        list.push(pool.remove(best));
    }
    list.iter().map(|idx| format!("i{idx}")).collect()
}

#[test]
fn diversity_is_maximal_marginal_relevance_to_the_item() {
    let rules =
        r#"{"require": [{"itemId": "i2", "position": 1}, {"itemId": "i9", "position": 3}]}"#;
    let mut orders = std::collections::BTreeSet::new();
    for lambda in [0.0, 0.2, 0.5, 0.8, 1.0] {
        for pool in [1, 6, 20] {
            let ask = Ask::new(22).with_diversity(lambda, pool as u64);
            assert_eq!(
                ask.order(),
                reference(&ask, lambda, pool, &[]),
                "{lambda} {pool}"
            );
            orders.insert(ask.order());
            let ask = ask.with_rules(rules);
            let required = [(1, 2), (3, 9)];
            assert_eq!(
                ask.order(),
                reference(&ask, lambda, pool, &required),
                "{lambda} {pool}"
            );
        }
    }
    assert!(orders.len() > 6, "the settings differ: {}", orders.len());
    let ask = Ask::new(22).with_diversity(1.0, 20);
    assert_eq!(
        ask.order(),
        Ask::new(22).order(),
        "λ = 1 is the order of scores"
    );
}

#[test]
fn boosts_count_for_diversity_and_pools_larger_than_the_catalogue_are_fine() {
    let ask = Ask::new(3).with_rules(r#"{"boost": [{"itemIds": ["i21"], "points": 60}]}"#);
    assert_eq!(ask.with_diversity(0.9, 1000).order()[0], "i21");
}

#[test]
fn propensities_are_those_of_the_draws_among_what_rules_leave_free() {
    let rules = r#"{"require": [{"itemId": "i2", "position": 1}], "exclude": ["i3"],
                    "boost": [{"itemIds": ["i11"], "points": 2}]}"#;
    let by_score: Vec<String> = Ask::new(1).sorted(|idx| if idx == 11 { 2.0 } else { 0.0 });
    let is_free = |id: &&String| *id != "i2" && *id != "i3";
    let pool: Vec<String> = by_score.iter().filter(is_free).take(6).cloned().collect();
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let ask = Ask::new(8).with_rules(rules).with_temperature(1.5, 6, seed);
        let shelf = ask.shelf();
        assert!(shelf.items[1].required);
        assert_eq!(shelf.items[1].propensity, 1.0, "a required item is certain");
        let weight = |item: &ShelfItem| ((f64::from(item.score) + item.points) / 1.5).exp();
        let drawn: Vec<&ShelfItem> = shelf.items.iter().filter(|item| !item.required).collect();
        for place in 0..6 {
            let sum: f64 = drawn[place..6].iter().map(|item| weight(item)).sum();
            let expected = weight(drawn[place]) / sum;
            assert!((drawn[place].propensity - expected).abs() < 1e-5);
            assert!(pool.contains(&drawn[place].item_id.to_string()));
        }
        assert_eq!(drawn[6].propensity, 1.0, "behind the pool nothing is drawn");
        orders.insert(ask.order());
    }
    assert!(orders.len() > 10, "{} orders", orders.len());
}

#[test]
fn at_lambda_one_draws_have_the_propensities_of_plain_exploration() {
    let ask = Ask::new(5)
        .with_temperature(1.5, 6, 9)
        .with_diversity(1.0, 6);
    let shelf = ask.shelf();
    let scored = ask.ready.score_all(&ask.state, &ask.history, NOW_MILLIS);
    let scores = pollster(scored).expect("finite");
    let weight = |id: &ItemId| {
        let idx = ask.ready.item_idx(id).expect("known");
        (f64::from(scores[idx as usize]) / 1.5).exp()
    };
    let mut left: f64 = ask.sorted(|_| 0.0)[..6]
        .iter()
        .map(|id| weight(&ItemId::new(id.clone()).expect("short")))
        .sum();
    for item in &shelf.items {
        let weight = weight(&item.item_id);
        assert!((item.propensity - weight / left).abs() < 1e-5);
        left -= weight;
    }
}
