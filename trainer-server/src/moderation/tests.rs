//! Claims about the rules of a server, without one.

use serde_json::json;
use shared_model::event::Item;
use shared_model::ids::LogOffset;

use super::*;

const NOW_MILLIS: i64 = 1_800_000_000_000;

fn item(id: &str) -> ItemId {
    ItemId::new(id).expect("short")
}

fn catalogue() -> Catalogue {
    let catalogue = Catalogue::default();
    put(&catalogue, 0, "a", json!({ "brand": "Acme" }));
    put(&catalogue, 1, "b", json!({ "brand": "Other" }));
    catalogue
}

fn put(catalogue: &Catalogue, offset: u64, id: &str, attributes: serde_json::Value) {
    let item = json!({ "item_id": id, "title": id, "attributes": attributes });
    let item: Item = serde_json::from_value(item).expect("an item");
    catalogue.put(LogOffset(offset), item);
}

fn config(approvals: u8) -> ModerationConfig {
    ModerationConfig {
        approvals,
        review_attribute: "review".to_owned(),
        burst_window_secs: 1,
        burst_events_min: 10,
        burst_factor: 2.0,
    }
}

fn open_at(dir: &Path, approvals: u8, now_millis: i64) -> Moderation {
    Moderation::open(dir, &config(approvals), catalogue(), now_millis).expect("opens")
}

fn draft(action: Action, id: &str) -> Draft {
    Draft {
        action,
        target: Target::ItemIds(vec![item(id)]),
        reason: "a reason".to_owned(),
        by: "anna".to_owned(),
        expires_at: None,
    }
}

fn approve(moderation: &Moderation, id: u64, by: &str) -> Result<RuleState, ModerationError> {
    let rule = moderation.decide(id, Decision::Approve, by, NOW_MILLIS);
    rule.map(|rule| rule.state)
}

#[test]
fn a_rule_holds_from_its_approval_to_its_withdrawal_and_is_remembered() {
    let dir = tempfile::tempdir().expect("a folder");
    let moderation = open_at(dir.path(), 1, NOW_MILLIS);
    let mut revisions = moderation.subscribe();
    let rule = moderation
        .propose(draft(Action::Block, "a"), NOW_MILLIS)
        .expect("room");
    assert_eq!(moderation.effect().rules, ModerationRules::default());
    assert!(!revisions.has_changed().expect("open"));
    assert_eq!(
        moderation.preview(rule.id).expect("open").block,
        [item("a")]
    );

    assert_eq!(
        approve(&moderation, rule.id, "anna").expect("alone"),
        RuleState::Active
    );

    assert_eq!(moderation.effect().rules.block, [item("a")]);
    assert_eq!(*revisions.borrow_and_update(), moderation.effect().revision);
    assert_eq!(moderation.about(&item("a"))[0].approvals[0].by, "anna");
    assert_eq!(moderation.about(&item("b")), []);
    assert_eq!(moderation.preview(rule.id).expect("open").block, []);
    let again = approve(&moderation, rule.id, "ben")
        .expect_err("active")
        .to_string();
    assert_eq!(again, "rule 1 is active");
    let error = moderation.decide(rule.id, Decision::Reject, "ben", NOW_MILLIS);
    assert_eq!(error.expect_err("active").to_string(), "rule 1 is active");

    let (before, ended) = (moderation.effect().revision, Decision::Withdraw);
    moderation
        .decide(rule.id, ended, "ben", NOW_MILLIS)
        .expect("written");
    assert!(moderation.effect().revision > before);
    assert_eq!(moderation.effect().rules, ModerationRules::default());
    let history = moderation.listed().history;
    assert_eq!(history[0].ended.as_ref().map(|act| &*act.by), Some("ben"));
    let gone = approve(&moderation, rule.id, "ben")
        .expect_err("ended")
        .to_string();
    assert_eq!(gone, "rule 1 is withdrawn");
    assert_eq!(
        approve(&moderation, 9, "ben")
            .expect_err("none")
            .to_string(),
        "there is no rule 9"
    );
}

#[test]
fn where_two_people_are_wanted_the_second_is_another_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let moderation = open_at(dir.path(), 2, NOW_MILLIS);
    let rule = moderation
        .propose(draft(Action::Block, "a"), NOW_MILLIS)
        .expect("room");
    let error = approve(&moderation, rule.id, " Anna ").expect_err("the same");
    assert!(
        matches!(error, ModerationError::SamePerson { .. }),
        "{error}"
    );
    assert_eq!(
        approve(&moderation, rule.id, "ben").expect("another"),
        RuleState::Active
    );

    let own = moderation.propose_own(&item("b"), Source::Burst, "90 %", NOW_MILLIS);
    let own = own.expect("written").expect("new").id;
    assert_eq!(
        approve(&moderation, own, "anna").expect("first"),
        RuleState::Proposed
    );
    assert!(approve(&moderation, own, "anna").is_err());
    assert_eq!(
        approve(&moderation, own, "ben").expect("second"),
        RuleState::Active
    );
}

#[test]
fn rules_survive_a_restart_and_the_revision_rises_with_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let moderation = open_at(dir.path(), 1, NOW_MILLIS);
    let mut timed = draft(Action::Bury { points: 2.0 }, "a");
    timed.expires_at = Some(NOW_MILLIS + 10);
    for draft in [
        timed,
        draft(Action::Pin { position: 0 }, "b"),
        draft(Action::Block, "b"),
    ] {
        moderation.propose(draft, NOW_MILLIS).expect("room");
    }
    approve(&moderation, 1, "ben").expect("alone");
    approve(&moderation, 2, "ben").expect("alone");
    let before = (moderation.listed(), moderation.effect());
    drop(moderation);

    let again = open_at(dir.path(), 1, NOW_MILLIS - 5_000);

    assert_eq!(again.listed().rules, before.0.rules);
    assert_eq!(again.effect().rules, before.1.rules);
    assert!(
        again.effect().revision > before.1.revision,
        "also by a clock that went back"
    );
    assert!(
        again
            .refresh(NOW_MILLIS + 9)
            .expect("nothing to write")
            .is_empty()
    );
    let ended = again.refresh(NOW_MILLIS + 10).expect("written");
    assert_eq!((ended[0].id, ended[0].state), (1, RuleState::Expired));
    assert_eq!(again.effect().rules.points, []);
    assert_eq!(again.effect().rules.pin.len(), 1);

    std::fs::write(dir.path().join("moderation.json"), "{").expect("written");
    let damaged = Moderation::open(dir.path(), &config(1), catalogue(), NOW_MILLIS);
    assert!(matches!(damaged.err(), Some(ModerationError::File { .. })));
}

#[test]
fn what_cannot_be_written_does_not_hold() {
    let dir = tempfile::tempdir().expect("a folder");
    let moderation = open_at(&dir.path().join("missing"), 1, NOW_MILLIS);
    let before = moderation.listed();
    let error = moderation.propose(draft(Action::Block, "a"), NOW_MILLIS);
    assert!(matches!(error, Err(ModerationError::File { .. })));
    assert_eq!(moderation.listed(), before);
}

#[test]
fn a_place_is_given_once_and_an_item_one_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let moderation = open_at(dir.path(), 1, NOW_MILLIS);
    for (id, position) in [("a", 0), ("b", 0), ("a", 1), ("b", 1)] {
        let draft = draft(Action::Pin { position }, id);
        moderation.propose(draft, NOW_MILLIS).expect("room");
    }
    approve(&moderation, 1, "ben").expect("free");
    for id in [2, 3] {
        let error = approve(&moderation, id, "ben").expect_err("taken");
        assert!(
            matches!(error, ModerationError::PlaceTaken { other: 1, .. }),
            "{error}"
        );
    }
    approve(&moderation, 4, "ben").expect("free");
    assert_eq!(moderation.effect().rules.check(), Ok(()));
}

#[test]
fn lists_are_bounded_and_the_server_leaves_room_for_people() {
    let dir = tempfile::tempdir().expect("a folder");
    let moderation = open_at(dir.path(), 1, NOW_MILLIS);
    let own = |idx: usize| {
        let id = item(&format!("i{idx}"));
        let proposed = moderation.propose_own(&id, Source::Marked, "marked", NOW_MILLIS);
        proposed.expect("written").map(|rule| rule.id)
    };
    assert_eq!((own(0), own(0)), (Some(1), None), "once for each item");
    for idx in 1..OWN_PROPOSALS_MAX {
        assert!(own(idx).is_some());
    }
    assert_eq!(own(OWN_PROPOSALS_MAX), None);
    assert_eq!(moderation.effect().rules, ModerationRules::default());
    let mut kept = moderation.kept();
    let template = kept.open[0].clone();
    kept.open.resize(RULES_MAX, template);
    drop(kept);
    let full = moderation.propose(draft(Action::Block, "a"), NOW_MILLIS);
    assert!(matches!(full, Err(ModerationError::Full)));
}

#[test]
fn a_rule_by_an_attribute_follows_the_catalogue() {
    let (dir, catalogue) = (tempfile::tempdir().expect("a folder"), catalogue());
    let opened = Moderation::open(dir.path(), &config(1), catalogue.clone(), NOW_MILLIS);
    let moderation = opened.expect("opens");
    let mut by_brand = draft(Action::Block, "a");
    by_brand.target = Target::Attribute {
        name: "brand".to_owned(),
        value: "Acme".to_owned(),
    };
    moderation.propose(by_brand, NOW_MILLIS).expect("room");
    approve(&moderation, 1, "ben").expect("alone");
    assert_eq!(moderation.effect().rules.block, [item("a")]);
    let before = moderation.effect().revision;

    put(&catalogue, 2, "c", json!({ "brand": "Acme" }));
    moderation.refresh(NOW_MILLIS).expect("written");

    assert_eq!(moderation.effect().rules.block, [item("a"), item("c")]);
    assert!(moderation.effect().revision > before);
}

#[test]
fn the_server_proposes_what_is_marked_and_what_bursts_once_and_ends_what_is_over() {
    let (dir, catalogue) = (tempfile::tempdir().expect("a folder"), catalogue());
    let opened = Moderation::open(dir.path(), &config(1), catalogue.clone(), NOW_MILLIS);
    let moderation = opened.expect("opens");
    let look = |secs: i64| {
        let mut acts = Vec::new();
        let looked = moderation.look(true, NOW_MILLIS + 1000 * secs, &mut acts);
        looked.expect("written");
        acts
    };
    let clicks = |id: &str, num: usize| {
        let id = item(id);
        moderation.count((0..num).map(|_| (&id, EventKind::Click)));
    };
    put(&catalogue, 2, "c", json!({ "review": true }));
    put(&catalogue, 3, "d", json!({ "review": "no" }));
    let expected = ["rule 1 proposed: block c, `review` is true"];
    assert_eq!(look(0), expected);
    assert_eq!(look(0), Vec::<String>::new());

    clicks("a", 200);
    clicks("b", 10);
    assert_eq!(look(1), Vec::<String>::new(), "there was no past");
    clicks("a", 20);
    clicks("b", 20);
    let acts = look(2);
    assert_eq!(acts.len(), 1, "{acts:?}");
    assert!(
        acts[0].starts_with("rule 2 proposed: block b, 20 of 40 clicks"),
        "{acts:?}"
    );
    assert_eq!(moderation.effect().rules, ModerationRules::default());
    assert_eq!(moderation.listed().rules[1].source, Source::Burst);

    let mut timed = draft(Action::Block, "a");
    timed.expires_at = Some(NOW_MILLIS + 3000);
    moderation.propose(timed, NOW_MILLIS).expect("room");
    approve(&moderation, 3, "ben").expect("alone");
    assert_eq!(look(3), ["rule 3 expired"]);
    assert_eq!(moderation.effect().rules, ModerationRules::default());
}
