//! What an experiment has shown: users and means by arm, differences with bounds that hold at any time, and a verdict
//! in words.
//!
//! A user counts once the window after the first impression is over, in the order of those impressions, so that every
//! user is seen once. Not here: where users come from (`tally`), mathematics (`sequential`).

use schemars::JsonSchema;
use serde::Serialize;

use super::sequential::{Comparison, ShareCheck};
use super::tally::{Tally, Unit};
use super::{Design, Experiment, Phase};

const DAY_MILLIS: f64 = 86_400_000.0;

/// The state of an experiment at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Report {
    /// Milliseconds since 1970-01-01 UTC.
    pub as_of: i64,
    /// Days since the beginning, up to the end where there is one.
    pub days: f64,
    /// By arm; one for both where lists are interleaved.
    pub arms: Vec<ArmFigures>,
    /// Every arm but the first against the first.
    pub comparisons: Vec<Difference>,
    /// Whether users are in the arms as the shares say.
    pub are_shares_sound: bool,
    /// Factor by which what was seen speaks against the shares; 100 settles it.
    pub share_evidence: f64,
    /// Impressions whose arm is not the one of their user.
    pub num_misassigned: u64,
    /// Impressions of users who came when there were too many to keep.
    pub num_left_out: u64,
    /// The same in words, a sentence each.
    pub verdict: Vec<String>,
}

/// An arm.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ArmFigures {
    /// Its name; both with `+` between them where lists are interleaved.
    pub name: String,
    /// Users who have entered.
    pub num_users: u64,
    /// Of them, those whose window is over.
    pub num_counted: u64,
    /// Mean outcome of these: events per user, at most `metric.count_max` of each.
    pub mean: Option<f64>,
}

/// An arm against the first.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Difference {
    /// The arm.
    pub arm: String,
    /// The first one.
    pub against: String,
    /// Users that count here.
    pub num_users: u64,
    /// Of the mean outcomes; interleaved, the mean share of clicks that favour the arm, −1 to 1.
    pub difference: Option<f64>,
    /// It is at least this,
    pub lower: f64,
    /// and at most this, at all times at once with probability `1 − alpha`.
    pub upper: f64,
    /// Whether it is above 0, where that can be told.
    pub is_better: Option<bool>,
}

impl Report {
    /// Of all users of an experiment.
    #[must_use]
    pub fn of(experiment: &Experiment, tally: &Tally, now_millis: i64) -> Self {
        let metric = &experiment.asked.metric;
        let newest = now_millis.saturating_sub(metric.window_millis());
        let counted = tally.units.iter().filter(|unit| unit.entered_at < newest);
        let counted: Vec<&Unit> = counted.collect();
        let end = experiment.stopped.map_or(now_millis, |stop| stop.at);
        let mut report = Self {
            as_of: now_millis,
            days: (end - experiment.began().since).max(0) as f64 / DAY_MILLIS, // far below 2^53
            arms: figures(experiment, &tally.units, &counted),
            comparisons: Vec::new(),
            are_shares_sound: true,
            share_evidence: 1.0,
            num_misassigned: tally.num_misassigned,
            num_left_out: tally.num_left_out,
            verdict: Vec::new(),
        };
        match experiment.asked.design {
            Design::Split => {
                report.comparisons = compared(experiment, &counted);
                let check = shares(experiment, &tally.units);
                report.are_shares_sound = check.is_sound();
                report.share_evidence = check.evidence();
            }
            Design::Interleave => report.comparisons.push(preferred(experiment, &counted)),
        }
        report.verdict = words(experiment, &report);
        report
    }
}

fn outcome(experiment: &Experiment, unit: &Unit) -> f64 {
    let count_max = experiment.asked.metric.count_max;
    f64::from(unit.counts[0].min(count_max)) / f64::from(count_max)
}

fn figures(experiment: &Experiment, units: &[Unit], counted: &[&Unit]) -> Vec<ArmFigures> {
    let arms = &experiment.asked.arms;
    if experiment.asked.design == Design::Interleave {
        return vec![ArmFigures {
            name: format!("{}+{}", arms[0].name, arms[1].name),
            num_users: units.len() as u64, // widening
            num_counted: counted.len() as u64,
            mean: None,
        }];
    }
    let figures = arms.iter().enumerate().map(|(arm_idx, arm)| {
        let own = counted.iter().filter(|unit| unit.arm_idx == arm_idx);
        let (num_counted, sum) = own.fold((0_u64, 0.0), |(count, sum), unit| {
            (count + 1, sum + outcome(experiment, unit))
        });
        let scale = f64::from(experiment.asked.metric.count_max);
        ArmFigures {
            name: arm.name.clone(),
            num_users: units.iter().filter(|unit| unit.arm_idx == arm_idx).count() as u64,
            num_counted,
            mean: (num_counted > 0).then(|| scale * sum / num_counted as f64), // exact below 2^53
        }
    });
    figures.collect()
}

/// Probability of an arm among users of it and of the first.
fn odds(phase: &Phase, arm_idx: usize) -> f64 {
    let [control, arm] = [0, arm_idx].map(|idx| f64::from(phase.shares[idx]));
    arm / (arm + control)
}

fn compared(experiment: &Experiment, counted: &[&Unit]) -> Vec<Difference> {
    let num_arms = experiment.asked.arms.len();
    let alpha = experiment.asked.alpha / (num_arms - 1) as f64; // few; Bonferroni
    let one = |arm_idx: usize| {
        let phases = &experiment.phases;
        let all: Vec<f64> = phases.iter().map(|phase| odds(phase, arm_idx)).collect();
        let mut comparison = Comparison::new(alpha);
        for unit in counted {
            if unit.arm_idx == 0 || unit.arm_idx == arm_idx {
                let odds = all[unit.phase_idx];
                comparison.observe(unit.arm_idx == arm_idx, odds, outcome(experiment, unit));
            }
        }
        let scale = f64::from(experiment.asked.metric.count_max);
        difference(experiment, arm_idx, &comparison, scale)
    };
    (1..num_arms).map(one).collect()
}

/// Users who clicked, by which arm's items they clicked more.
fn preferred(experiment: &Experiment, counted: &[&Unit]) -> Difference {
    let mut comparison = Comparison::new(experiment.asked.alpha);
    for unit in counted {
        let [first, second] = unit.counts.map(f64::from);
        if first + second > 0.0 {
            comparison.observe_difference((second - first) / (first + second), 1.0);
        }
    }
    difference(experiment, 1, &comparison, 1.0)
}

fn difference(
    experiment: &Experiment,
    arm_idx: usize,
    comparison: &Comparison,
    scale: f64,
) -> Difference {
    let arms = &experiment.asked.arms;
    let [lower, upper] = comparison.bounds().map(|bound| bound * scale);
    Difference {
        arm: arms[arm_idx].name.clone(),
        against: arms[0].name.clone(),
        num_users: comparison.num_observed(),
        difference: comparison.mean().map(|mean| mean * scale),
        lower,
        upper,
        is_better: comparison.decision(),
    }
}

fn shares(experiment: &Experiment, units: &[Unit]) -> ShareCheck {
    let promised = |phase: &Phase| {
        let sum: u32 = phase.shares.iter().sum();
        let share = |share: &u32| f64::from(*share) / f64::from(sum);
        phase.shares.iter().map(share).collect()
    };
    let promised: Vec<Vec<f64>> = experiment.phases.iter().map(promised).collect();
    let mut check = ShareCheck::new(experiment.asked.arms.len());
    for unit in units {
        check.observe(unit.arm_idx, &promised[unit.phase_idx]);
    }
    check
}

fn words(experiment: &Experiment, report: &Report) -> Vec<String> {
    let mut words = Vec::new();
    if !report.are_shares_sound {
        words.push(
            "Users are not in the arms as the shares say: one arm loses users or impressions, so do not trust the \
             differences before you know why."
                .to_owned(),
        );
    }
    for compared in &report.comparisons {
        words.push(sentence(experiment, compared));
    }
    let days_min = experiment.asked.min_run_secs as f64 / 86_400.0; // checked to be small
    if report.days < days_min {
        words.push(format!(
            "It has run for {:.1} of {days_min:.1} days: the bounds hold, but for the users and days so far.",
            report.days
        ));
    }
    words
}

fn sentence(experiment: &Experiment, compared: &Difference) -> String {
    let Difference {
        arm,
        against,
        num_users,
        lower,
        upper,
        ..
    } = compared;
    let what = match experiment.asked.design {
        Design::Interleave => "of preference, -1 to 1".to_owned(),
        Design::Split if experiment.asked.metric.count_max == 1 => {
            "in the share of users".to_owned()
        }
        Design::Split => "events per user".to_owned(),
    };
    let bounds = format!("{lower:+.4} to {upper:+.4} {what}, {num_users} users");
    match compared.is_better {
        Some(true) => format!("{arm} is better than {against}: {bounds}."),
        Some(false) => format!("{arm} is worse than {against}: {bounds}."),
        None => format!("No difference of {arm} and {against} can be told yet: {bounds}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::tally::tests::experiment;
    use shared_model::ids::LogOffset;

    fn unit(arm_idx: usize, phase_idx: usize, entered_at: i64, counts: [u32; 2]) -> Unit {
        Unit::new(arm_idx, phase_idx, entered_at, counts)
    }

    #[test]
    fn users_count_once_their_window_is_over() {
        let units = vec![unit(0, 0, 0, [1, 0]), unit(1, 0, 500, [0, 0])];
        let tally = Tally {
            units,
            ..Tally::default()
        };
        let report = Report::of(&experiment("split"), &tally, 1200);
        let figures: Vec<_> = report
            .arms
            .iter()
            .map(|arm| (arm.num_users, arm.num_counted, arm.mean))
            .collect();
        assert_eq!(figures, [(1, 1, Some(1.0)), (1, 0, None)]);
        assert_eq!(report.comparisons[0].num_users, 1);
        assert!(
            report.verdict[0].starts_with("No difference of b and a"),
            "{:?}",
            report.verdict
        );
        assert!(
            report.verdict[1].contains("of 7.0 days"),
            "{:?}",
            report.verdict
        );
    }

    #[test]
    fn a_clear_difference_is_told_with_bounds_around_it_also_when_shares_have_changed() {
        let mut experiment = experiment("split");
        experiment.phases.push(Phase {
            from: LogOffset(9),
            since: 0,
            shares: vec![10, 90],
        });
        // Three of four in the arm, one of four in the control; one of ten in the control in the second phase.
        let even = (0..2000_usize).map(|idx| {
            let is_in_arm = idx % 2 == 1;
            let has_clicked = (idx / 2 % 4 == 0) != is_in_arm;
            unit(usize::from(is_in_arm), 0, 0, [u32::from(has_clicked), 0])
        });
        let uneven = (0..4000_usize).map(|idx| {
            let is_in_arm = idx % 10 != 0;
            let has_clicked = (idx / 10 % 4 == 0) != is_in_arm;
            unit(usize::from(is_in_arm), 1, 0, [u32::from(has_clicked), 0])
        });
        let tally = Tally {
            units: even.chain(uneven).collect(),
            ..Tally::default()
        };
        let report = Report::of(&experiment, &tally, 10_000);
        assert!(report.are_shares_sound, "{report:?}");
        let compared = &report.comparisons[0];
        assert_eq!(compared.is_better, Some(true));
        assert!(
            compared.lower > 0.2 && compared.lower < 0.5 && compared.upper > 0.5,
            "{compared:?}"
        );
        assert!(
            report.verdict[0].starts_with("b is better than a: +0."),
            "{:?}",
            report.verdict
        );
    }

    #[test]
    fn lost_users_are_told_before_anything_else() {
        let lost = (0..1000_usize).map(|idx| unit(usize::from(idx % 3 == 0), 0, 0, [0, 0]));
        let tally = Tally {
            units: lost.collect(),
            ..Tally::default()
        };
        let report = Report::of(&experiment("split"), &tally, 10_000);
        assert!(!report.are_shares_sound && report.share_evidence > 100.0);
        assert!(report.verdict[0].starts_with("Users are not in the arms"));
    }

    #[test]
    fn interleaved_users_vote_once_each_and_those_without_a_click_not_at_all() {
        let votes = (0..4000).map(|idx| match idx % 4 {
            0 => unit(0, 0, 0, [1, 0]),
            1 => unit(0, 0, 0, [0, 0]),
            _ => unit(0, 0, 0, [1, 9]),
        });
        let tally = Tally {
            units: votes.collect(),
            ..Tally::default()
        };
        let report = Report::of(&experiment("interleave"), &tally, 10_000);
        let compared = &report.comparisons[0];
        assert_eq!(compared.num_users, 3000);
        assert!((compared.difference.expect("seen") - (-1.0 + 2.0 * 0.8) / 3.0).abs() < 1e-9);
        assert_eq!(compared.is_better, Some(true), "{compared:?}");
    }
}
