//! Claims about who may teach how much.

use super::*;
use crate::config::Config;

const DAY_MILLIS: i64 = 86_400_000;

fn config() -> InfluenceConfig {
    InfluenceConfig {
        clients_min: 10,
        burst_half_life_secs: 30 * 86_400,
        mean_factor: 5.0,
        events_min: 10,
        ..Config::default().influence
    }
}

fn click(user_idx: u32, item_idx: u32, arrived_at: i64) -> Act {
    Act {
        user_idx,
        item_idx,
        kind: EventKind::Click,
        arrived_at,
        is_vouched: false,
    }
}

/// Forty clients, a day and more old, that have each clicked on five items in two days.
fn crowd(config: InfluenceConfig) -> Influence {
    let mut influence = Influence::new(config);
    for idx in 0..200 {
        let at_millis = i64::from(idx / 100) * 2 * DAY_MILLIS;
        influence
            .judge(click(idx % 40, idx, at_millis))
            .expect("an honest event");
    }
    influence
}

const NOW: i64 = 2 * DAY_MILLIS;

/// How many of a client's clicks on distinct items, from `first_item` on, teach.
fn num_taught(influence: &mut Influence, user_idx: u32, num_events: u32, at: i64) -> usize {
    (1000..1000 + num_events)
        .map(|item_idx| influence.judge(click(user_idx, item_idx, at)))
        .filter(Result::is_ok)
        .count()
}

#[test]
fn a_flood_of_one_client_teaches_a_few_times_what_a_usual_one_does() {
    let mut influence = crowd(config());
    let mean = influence.crowd().events_per_client;
    let taught = num_taught(&mut influence, 0, 1000, NOW);
    assert!(taught >= 5 && taught as f64 <= 6.0 * mean, "{taught}");
    let refused = influence.judge(click(0, 5000, NOW));
    assert_eq!(refused, Err(Reason::Client));
    assert!(influence.judge(click(1, 5000, NOW)).is_ok());
    let standing = influence.standing(0).expect("known");
    assert!(standing.influence <= standing.influence_max.expect("a crowd"));
}

#[test]
fn a_burst_is_refused_where_the_long_run_would_still_take_it() {
    let patient = InfluenceConfig {
        burst_half_life_secs: 3600,
        ..config()
    };
    let mut influence = crowd(patient);
    let later = NOW + 7 * DAY_MILLIS;
    for user_idx in 0..38 {
        assert!(influence.judge(click(user_idx, 900, later)).is_ok());
    }
    num_taught(&mut influence, 39, 12, later);
    let refused = influence.judge(click(39, 5000, later));
    assert_eq!(refused, Err(Reason::Burst));
    let tomorrow = later + DAY_MILLIS;
    assert!(influence.judge(click(39, 5000, tomorrow)).is_ok());
}

#[test]
fn a_client_teaches_one_thing_about_an_item_once_and_a_backward_clock_changes_nothing() {
    let mut influence = crowd(config());
    let mut judge = |kind, at| {
        influence.judge(Act {
            kind,
            ..click(3, 900, at)
        })
    };
    assert!(judge(EventKind::Click, NOW).is_ok());
    assert_eq!(
        judge(EventKind::Click, NOW + DAY_MILLIS),
        Err(Reason::Repeat)
    );
    assert_eq!(
        judge(EventKind::Click, NOW - 400 * DAY_MILLIS),
        Err(Reason::Repeat)
    );
    assert!(judge(EventKind::AddToCart, NOW).is_ok());
    assert!(judge(EventKind::Purchase, NOW).is_ok());
    assert_eq!(
        judge(EventKind::Like, NOW),
        Err(Reason::Repeat),
        "a fourth kind"
    );
    assert!(judge(EventKind::Click, NOW + 32 * DAY_MILLIS).is_ok());
}

#[test]
fn new_clients_together_teach_about_an_item_what_usually_comes_from_new_ones() {
    let mut influence = crowd(config());
    let new_clients = 100..400;
    let taught = new_clients
        .map(|user_idx| influence.judge(click(user_idx, 900, NOW)))
        .filter(Result::is_ok)
        .count();
    let floor = config().newcomer_floor as usize;
    assert!((floor..4 * floor).contains(&taught), "{taught}");
    let refused = influence.judge(click(400, 900, NOW));
    assert_eq!(refused, Err(Reason::Newcomers));
    assert!(influence.judge(click(0, 900, NOW)).is_ok());
}

#[test]
fn among_few_clients_or_switched_off_everything_teaches() {
    let off = InfluenceConfig {
        clients_min: 0,
        ..config()
    };
    for mut influence in [Influence::new(config()), crowd(off)] {
        for _ in 0..100 {
            assert!(influence.judge(click(0, 7, NOW)).is_ok());
        }
    }
}

#[test]
fn an_item_is_not_learned_before_enough_clients_acted_on_it() {
    let anonymous = InfluenceConfig {
        item_clients_min: 3,
        ..config()
    };
    let mut influence = Influence::new(anonymous);
    let acts = [0, 0, 1, 1, 2, 0].map(|user| influence.judge(click(user, 5, NOW)));
    let few = Err(Reason::FewClients);
    assert_eq!(acts, [few, few, few, few, Ok(1.0), Ok(1.0)]);
}

#[test]
fn what_is_forgotten_of_a_client_is_all() {
    let mut influence = crowd(config());
    assert!(influence.standing(3).is_some());
    influence.forget(3);
    assert_eq!(influence.standing(3), None);
    assert_eq!(influence.standing(5000), None);
}

#[test]
fn every_reason_is_written_as_it_is_named() {
    for reason in Reason::ALL {
        let written = serde_json::to_value(reason).expect("a text");
        assert_eq!(written, reason.as_str());
    }
}

#[test]
fn events_without_a_token_teach_as_the_setting_says() {
    let with = |without_token| InfluenceConfig {
        without_token,
        ..config()
    };
    let vouched = Act {
        is_vouched: true,
        ..click(0, 900, NOW)
    };
    let mut strict = crowd(config());
    strict.config = with(WithoutToken::Nothing);
    assert_eq!(strict.judge(click(0, 900, NOW)), Err(Reason::NoToken));
    assert!(strict.judge(vouched).is_ok());

    let mut wary = crowd(config());
    wary.config = with(WithoutToken::Newcomer);
    let known = (0..40).map(|user_idx| wary.judge(click(user_idx, 900, NOW)));
    let refused = known.filter(|judged| *judged == Err(Reason::Newcomers));
    assert!(refused.count() > 10, "known clients count as newcomers");
    let with_token = Act {
        item_idx: 901,
        ..vouched
    };
    assert!(wary.judge(with_token).is_ok());
}

#[test]
fn events_of_a_client_count_less_and_less_and_never_more_than_those_of_a_few() {
    let mut influence = crowd(config());
    let most = f64::from(config().share_factor) * influence.crowd().events_per_client;
    let judged = (1000..1020).map(|item_idx| influence.judge(click(0, item_idx, NOW)));
    let shares: Vec<f32> = judged.map(|share| share.expect("within bounds")).collect();
    assert!(shares[0] < 1.0, "five events came before: {shares:?}");
    assert!(shares.is_sorted_by(|a, b| a > b), "{shares:?}");
    assert!(f64::from(shares.iter().sum::<f32>()) < most, "{shares:?}");
}

#[test]
fn what_eager_clients_do_with_an_item_is_learned_as_far_as_is_usual() {
    let mut influence = crowd(config());
    for user_idx in 0..8 {
        num_taught(&mut influence, user_idx, 10, NOW);
    }
    let of_eager = (0..8).map(|user_idx| influence.judge(click(user_idx, 900, NOW)));
    let of_eager: Vec<Result<f32, Reason>> = of_eager.collect();
    assert!(of_eager[0].is_ok_and(|share| share < 0.5), "{of_eager:?}");
    assert_eq!(of_eager[7], Err(Reason::Eager), "few together");
    for user_idx in 20..39 {
        let calm = influence.judge(click(user_idx, 900, NOW));
        assert!(calm.is_ok_and(|share| share >= 0.5), "{calm:?}");
    }
    assert!(
        influence.judge(click(8, 900, NOW)).is_ok(),
        "everybody likes it"
    );
}
