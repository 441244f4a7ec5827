//! Tests of the bets: false alarms under peeking, power, and what holds for every stream.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const NUM_STREAMS: u64 = 2_000;
const STREAM_LEN: usize = 1_000;
const ALPHA: f64 = 0.05;

/// Streams of 2,000 in which the claim "at most `m`" was ever refuted, looked at after every observation.
fn num_alarms(m: f64, draw: impl Fn(&mut StdRng, usize) -> f64) -> u64 {
    let is_alarm = |seed: &u64| {
        let mut rng = StdRng::seed_from_u64(*seed);
        let mut betting = Betting::new(ALPHA, 1, &[m]);
        (0..STREAM_LEN).any(|step| {
            betting.observe(draw(&mut rng, step));
            betting.lower() >= m
        })
    };
    (0..NUM_STREAMS).filter(is_alarm).count() as u64 // fits
}

/// `α` of the streams. Seeds are fixed, so the count is the same every time.
const ALARMS_MAX: u64 = 100; // ALPHA · NUM_STREAMS

#[test]
fn coins_at_the_claimed_mean_raise_no_more_than_alpha_false_alarms_under_peeking() {
    for mean in [0.05, 0.3, 0.5, 0.9] {
        let alarms = num_alarms(mean, |rng, _| f64::from(rng.random::<f64>() < mean));
        assert!(alarms <= ALARMS_MAX, "{alarms} of {NUM_STREAMS} at {mean}");
        assert!(
            alarms > 0,
            "a test that never alarms has no power at {mean}"
        );
    }
}

#[test]
fn small_differences_around_the_claimed_mean_raise_no_more_than_alpha_false_alarms() {
    // as differences of log losses are: nearly all close to nothing, a few large
    let draw = |rng: &mut StdRng, _| {
        let size = if rng.random::<f64>() < 0.05 {
            0.4
        } else {
            0.02
        };
        0.5 + size * (rng.random::<f64>() * 2.0 - 1.0)
    };
    let alarms = num_alarms(0.5, draw);
    assert!(alarms <= ALARMS_MAX, "{alarms} of {NUM_STREAMS}");
}

#[test]
fn a_spread_that_changes_along_the_stream_raises_no_more_than_alpha_false_alarms() {
    let draw = |rng: &mut StdRng, step: usize| {
        let size = if step % 200 < 150 { 0.01 } else { 0.5 };
        0.5 + size * (rng.random::<f64>() * 2.0 - 1.0)
    };
    let alarms = num_alarms(0.5, draw);
    assert!(alarms <= ALARMS_MAX, "{alarms} of {NUM_STREAMS}");
}

#[test]
fn a_mean_above_the_claim_is_found_out() {
    let draw = |rng: &mut StdRng, _| (0.55 + 0.2 * (rng.random::<f64>() * 2.0 - 1.0)).min(1.0);
    let found = num_alarms(0.5, draw);
    assert!(found >= NUM_STREAMS * 99 / 100, "{found} of {NUM_STREAMS}");
}

#[test]
fn both_bounds_close_in_on_the_mean() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut betting = Betting::new(ALPHA, 200, &[]);
    for _ in 0..20_000 {
        betting.observe(f64::from(rng.random::<f64>() < 0.3));
    }
    let (lower, upper) = (betting.lower(), betting.upper());
    assert!(lower <= 0.3 && upper >= 0.3, "{lower} to {upper}");
    assert!(upper - lower < 0.05, "{lower} to {upper}");
}

#[test]
fn a_mean_difference_says_below_above_or_nothing_yet() {
    let mut rng = StdRng::seed_from_u64(9);
    let mut draw = |mean: f64| mean + 0.3 * (rng.random::<f64>() * 2.0 - 1.0);
    let (threshold, bound) = (0.02, 1.0);
    let new = || MeanDifference::new(ALPHA, bound, &[threshold]);

    let (mut better, mut worse, mut same) = (new(), new(), new());
    for _ in 0..2_000 {
        better.observe(draw(-0.05));
        worse.observe(draw(0.1));
        same.observe(draw(threshold));
    }

    assert!(better.is_below(threshold) && !better.is_above(threshold));
    assert!(worse.is_above(threshold) && !worse.is_below(threshold));
    assert!(!same.is_above(threshold) && !same.is_below(threshold));
    assert!(better.lower() <= -0.05 && better.upper() >= -0.05);
}

#[test]
fn a_difference_that_is_no_number_counts_as_the_largest() {
    let mut rise = MeanDifference::new(ALPHA, 2.0, &[0.0]);
    rise.observe(f64::NAN);
    assert_eq!(rise.mean(), Some(2.0));
    rise.observe(f64::NEG_INFINITY);
    assert_eq!(rise.mean(), Some(0.0));
}

#[test]
fn wealth_stays_a_number_over_a_long_certain_stream() {
    let mut betting = Betting::new(ALPHA, 10, &[]);
    for _ in 0..5_000 {
        betting.observe(1.0);
    }
    assert!(betting.wealth_against_at_most(0.1).is_finite());
    assert_eq!(betting.wealth_against_at_least(0.5), 0.0);
    assert_eq!((betting.lower(), betting.upper()), (0.9, 1.0));
}

proptest! {
    #[test]
    fn bounds_only_narrow_and_wealth_falls_as_the_claim_grows(
        observations in prop::collection::vec(0.0..=1.0f64, 1..200),
    ) {
        let mut betting = Betting::new(0.1, 20, &[0.123]);
        let (mut lower, mut upper) = (0.0, 1.0);
        for x in observations {
            betting.observe(x);
            prop_assert!(betting.lower() >= lower && betting.upper() <= upper);
            (lower, upper) = (betting.lower(), betting.upper());
            for pair in betting.claims.windows(2) {
                prop_assert!(pair[0].against_at_most >= pair[1].against_at_most);
                prop_assert!(pair[0].against_at_least <= pair[1].against_at_least);
            }
        }
    }

    #[test]
    fn a_stream_and_its_mirror_have_mirrored_bounds(
        observations in prop::collection::vec(0.0..=1.0f64, 1..200),
    ) {
        let (mut betting, mut mirrored) = (Betting::new(0.1, 16, &[]), Betting::new(0.1, 16, &[]));
        for x in observations {
            betting.observe(x);
            mirrored.observe(1.0 - x);
        }
        prop_assert_eq!(betting.lower(), 1.0 - mirrored.upper());
        prop_assert_eq!(betting.upper(), 1.0 - mirrored.lower());
    }
}
