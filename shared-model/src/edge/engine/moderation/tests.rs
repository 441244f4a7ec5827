//! Claims about the rules of operators, on made-up codes.

use ed25519_dalek::SigningKey;

use super::*;
use crate::codec::state::CodeState;
use crate::edge::engine::made_up::{NOW_MILLIS, history, made_up_state, pollster, ready};
use crate::edge::engine::rules::{Rules, RulesForm};
use crate::edge::engine::{RankOptions, SearchRequest, Shelf, ShelfRequest, SimilarRequest};
use crate::edge::sync::Trust;
use crate::event::HistoryEvent;
use crate::ids::Version;
use crate::manifest::{FORMAT_VERSION, ItemPoints, ModerationNote, PinnedItem};
use crate::model::scorer::Padding;

const K: usize = 6;
const OPTIONS: RankOptions = RankOptions {
    k: K,
    exclude_seen: false,
};

fn item(idx: u32) -> ItemId {
    ItemId::new(format!("i{idx}")).expect("short")
}

fn block(idx: u32) -> ModerationRules {
    ModerationRules {
        block: vec![item(idx)],
        ..ModerationRules::default()
    }
}

fn pin(idx: u32, position: u32) -> ModerationRules {
    let item_id = item(idx);
    ModerationRules {
        pin: vec![PinnedItem { item_id, position }],
        ..ModerationRules::default()
    }
}

struct Scene {
    state: CodeState,
    ready: ReadyVersion,
    history: Vec<HistoryEvent>,
}

impl Scene {
    fn new() -> Self {
        let state = made_up_state(7);
        Self {
            ready: ready(&state, Padding::Longest),
            state,
            history: history(4, 3),
        }
    }

    fn rank<'a>(
        &'a self,
        moderation: Option<&'a ModerationRules>,
        candidates: Option<&'a [ItemId]>,
    ) -> RankRequest<'a> {
        RankRequest {
            history: &self.history,
            candidates,
            options: &OPTIONS,
            now_millis: NOW_MILLIS,
            moderation,
        }
    }

    /// With rules of the page, as it passes them.
    fn shelf(&self, rank: RankRequest<'_>, page_rules: &str) -> Shelf {
        let form: RulesForm = serde_json::from_str(page_rules).expect("well-formed");
        let request = ShelfRequest {
            rank,
            rules: &Rules::try_from(form).expect("within limits"),
            diversity: None,
            exploration: None,
            personal: None,
        };
        pollster(self.ready.shelf(&self.state, Version(3), &request)).expect("finite")
    }

    fn order(&self, rules: &ModerationRules, page_rules: &str) -> Vec<ItemId> {
        let shelf = self.shelf(self.rank(Some(rules), None), page_rules);
        shelf.items.into_iter().map(|item| item.item_id).collect()
    }

    /// Rows from best to worst, with a place more than a list has.
    fn best(&self) -> Vec<u32> {
        let scored = self.ready.score_all(&self.state, &self.history, NOW_MILLIS);
        let scores = pollster(scored).expect("finite");
        let all = (0..scores.len() as u32).collect(); // thirty
        super::super::top_k(all, &scores, K + 1)
    }
}

#[test]
fn a_blocked_item_stands_in_no_list_and_the_next_one_moves_up() {
    let scene = Scene::new();
    let best = scene.best();
    let rules = block(best[1]);
    let expected: Vec<ItemId> = [0, 2, 3, 4, 5, 6].map(|at| item(best[at])).to_vec();
    assert_eq!(scene.order(&rules, "{}"), expected);
    let required = format!(
        r#"{{"require": [{{"itemId": "i{}", "position": 0}}]}}"#,
        best[1]
    );
    let shelf = scene.shelf(scene.rank(Some(&rules), None), &required);
    assert_eq!(shelf.missing, [item(best[1])]);
    let request = scene.rank(Some(&rules), None);
    let ranked = pollster(scene.ready.rank(&scene.state, &request)).expect("finite");
    assert!(ranked.iter().all(|ranked| ranked.item_id != item(best[1])));
}

#[test]
fn searches_and_similar_items_know_blocks_and_no_pins_or_points() {
    let scene = Scene::new();
    let similar = |moderation: Option<&ModerationRules>| {
        let asked = [item(3)];
        let request = SimilarRequest {
            item_ids: &asked,
            candidates: None,
            history: &[],
            options: &OPTIONS,
            moderation,
        };
        let found = pollster(scene.ready.similar(&scene.state, &request)).expect("known");
        let ids = found.into_iter().map(|found| found.item_id);
        ids.collect::<Vec<_>>()
    };
    let search = |moderation: Option<&ModerationRules>| {
        let request = SearchRequest {
            text: &[0.3, -0.2, 0.9, 0.1, 0.4],
            taste: 0.0,
            rank: scene.rank(moderation, None),
        };
        let found = pollster(scene.ready.search(&scene.state, &request)).expect("texts");
        let ids = found.into_iter().map(|found| found.item_id);
        ids.collect::<Vec<_>>()
    };
    for list in [
        &similar as &dyn Fn(Option<&ModerationRules>) -> Vec<ItemId>,
        &search,
    ] {
        let free = list(None);
        let blocked = ModerationRules {
            block: vec![free[0].clone()],
            ..ModerationRules::default()
        };
        assert_eq!(list(Some(&blocked))[..K - 1], free[1..]);
        let worst = ModerationRules {
            pin: pin(29, 0).pin,
            points: vec![ItemPoints {
                item_ids: vec![free[0].clone()],
                points: -100.0,
            }],
            ..ModerationRules::default()
        };
        assert_eq!(list(Some(&worst)), free);
    }
}

#[test]
fn a_pinned_item_stands_at_its_place_wherever_it_may_stand_at_all() {
    let scene = Scene::new();
    let best = scene.best();
    let (free, pinned) = (best[0], best[6]);
    let rules = pin(pinned, 2);
    let expected: Vec<ItemId> = [0, 1, 6, 2, 3, 4].map(|at| item(best[at])).to_vec();
    assert_eq!(scene.order(&rules, "{}"), expected);
    let shelf = scene.shelf(scene.rank(Some(&rules), None), "{}");
    let required: Vec<bool> = shelf.items.iter().map(|item| item.required).collect();
    assert_eq!(required, [false, false, true, false, false, false]);

    let others: Vec<ItemId> = best[..5].iter().map(|idx| item(*idx)).collect();
    let shelf = scene.shelf(scene.rank(Some(&rules), Some(&others)), "{}");
    assert!(shelf.items.iter().all(|item| !item.required));
    let excluded = format!(r#"{{"exclude": ["i{pinned}"]}}"#);
    assert!(!scene.order(&rules, &excluded).contains(&item(pinned)));
    assert!(
        !scene
            .order(&pin(pinned, K as u32), "{}")
            .contains(&item(pinned))
    ); // six
    let same_place = format!(r#"{{"require": [{{"itemId": "i{free}", "position": 2}}]}}"#);
    let shelf = scene.shelf(scene.rank(Some(&rules), None), &same_place);
    assert_eq!(shelf.items[2].item_id, item(pinned));
    assert_eq!(shelf.missing, [item(free)]);
}

#[test]
fn points_of_operators_and_of_the_page_add_up() {
    let scene = Scene::new();
    let best = scene.best();
    let rules = ModerationRules {
        points: vec![ItemPoints {
            item_ids: vec![item(best[0]), item(best[2])],
            points: -100.0,
        }],
        ..ModerationRules::default()
    };
    let expected: Vec<ItemId> = [1, 3, 4, 5, 6].map(|at| item(best[at])).to_vec();
    assert_eq!(scene.order(&rules, "{}")[..5], expected);
    let boost = format!(
        r#"{{"boost": [{{"itemIds": ["i{}"], "points": 100}}]}}"#,
        best[0]
    );
    let shelf = scene.shelf(scene.rank(Some(&rules), None), &boost);
    assert_eq!(shelf.items[0].item_id, item(best[0]));
    assert_eq!(shelf.items[0].points, 0.0);
}

#[test]
fn an_engine_takes_newer_rules_and_refuses_older_ones_and_those_of_strangers() {
    let key = |seed: u8| SigningKey::from_bytes(&[seed; 32]);
    let note = |revision: u64, rules: ModerationRules| ModerationNote {
        format_version: FORMAT_VERSION,
        model: "shop".to_owned(),
        revision,
        created_at: 1_700_000_000_000,
        key_set: None,
        rules,
    };
    let trust = Trust::Keys(vec![key(1).verifying_key()]);
    let mut engine = EdgeEngine::on_host("shop", trust);
    assert_eq!(engine.moderation_revision(), None);
    let empty = note(4, ModerationRules::default()).sign(&key(1));
    assert_eq!(engine.moderate(&empty), Ok(false));
    assert_eq!(engine.moderate(&note(5, block(3)).sign(&key(1))), Ok(true));
    assert!(engine.is_blocked(&item(3)) && !engine.is_blocked(&item(4)));

    let error = engine.moderate(&empty).expect_err("older");
    assert_eq!(error.code(), "stale");
    assert_eq!(
        error.to_string(),
        "revision 4 of the rules is older than the known 5"
    );
    let error = engine.moderate(&note(6, block(4)).sign(&key(2)));
    assert_eq!(error.expect_err("a stranger").code(), "unknown_key");
    assert!(engine.is_blocked(&item(3)) && !engine.is_blocked(&item(4)));
    assert_eq!(engine.moderate(&note(5, block(3)).sign(&key(1))), Ok(false));
}
