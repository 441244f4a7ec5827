//! Coverage: which items the lists of users hold, beside what users do, so that bias is seen.
//!
//! For the users that were active lately, each with the list that the live version makes for them now, what they had
//! left out:
//!
//! ```text
//! exposure   e_i = Σ over lists 1/log2(1 + place), places from 1, as shares of all exposure
//! events     n_i = decayed count at the longest half-life, as shares of all events
//! coverage   share of the available items that are in any list
//! gini       Σ (2·r − N − 1)·e_r / (N·Σ e), e ascending, r from 1: 0 where all items have the same, 1 where one has all
//! ```
//!
//! Exposure discounts places as DCG does (Singh & Joachims 2018, "Fairness of Exposure in Rankings"). Items are put
//! into tenths by their events, most popular first; where the tenths of exposure are steeper than those of events, the
//! model makes popular items more popular. Not here: the choice of users and their histories (`trainer::serving`).

use schemars::JsonSchema;
use serde::Serialize;
use shared_model::ids::{ItemId, Version};

/// Users whose lists are looked at.
pub const NUM_USERS: usize = 256;
/// Places of a list.
pub const NUM_PLACES: usize = 10;
/// Groups of items by popularity.
const NUM_TENTHS: usize = 10;
/// Items named.
const NUM_NAMED: usize = 20;

/// What the lists hold.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CoverageReport {
    /// The version that ranked.
    pub model_version: Version,
    /// Users whose lists these are.
    pub num_users: usize,
    /// Items that could be in a list.
    pub num_items: usize,
    /// Of them, those in any list.
    pub num_listed: usize,
    /// `num_listed / num_items`.
    pub coverage: f64,
    /// Of exposure over items.
    pub gini_exposure: f64,
    /// Of events over items.
    pub gini_events: f64,
    /// Share of exposure that items have which have no events yet.
    pub exposure_without_events: f64,
    /// By popularity, most popular first.
    pub tenths: Vec<Tenth>,
    /// The most exposed items.
    pub most_exposed: Vec<Exposed>,
}

/// A tenth of the items.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Tenth {
    /// Its share of exposure.
    pub exposure: f64,
    /// Its share of events.
    pub events: f64,
}

/// An item with what it gets and what it earns.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Exposed {
    /// The item.
    pub item_id: ItemId,
    /// Its share of exposure.
    pub exposure: f64,
    /// Its share of events.
    pub events: f64,
}

/// An item that could be in a list.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The item.
    pub item_id: ItemId,
    /// Decayed count of its events.
    pub num_events: f64,
}

/// The report on `lists`, positions in `candidates` each, best first.
#[must_use]
pub fn report(
    model_version: Version,
    candidates: &[Candidate],
    lists: &[Vec<usize>],
) -> CoverageReport {
    let mut exposure = vec![0.0; candidates.len()];
    for list in lists {
        for (place, item) in list.iter().enumerate() {
            exposure[*item] += 1.0 / (place as f64 + 2.0).log2();
        }
    }
    let num_listed = exposure.iter().filter(|share| **share > 0.0).count();
    let exposure = shares(exposure);
    let events = shares(candidates.iter().map(|item| item.num_events).collect());
    let without: f64 = candidates
        .iter()
        .zip(&exposure)
        .filter(|(item, _)| item.num_events <= 0.0)
        .map(|(_, share)| share)
        .sum();
    CoverageReport {
        model_version,
        num_users: lists.len(),
        num_items: candidates.len(),
        num_listed,
        coverage: num_listed as f64 / candidates.len().max(1) as f64,
        gini_exposure: gini(&exposure),
        gini_events: gini(&events),
        exposure_without_events: without,
        tenths: tenths(&exposure, &events),
        most_exposed: most_exposed(candidates, &exposure, &events),
    }
}

fn shares(mut values: Vec<f64>) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    if sum > 0.0 {
        values.iter_mut().for_each(|value| *value /= sum);
    }
    values
}

/// Of shares, which sum to 1, or of zeros.
fn gini(shares: &[f64]) -> f64 {
    let mut ascending = shares.to_vec();
    ascending.sort_by(f64::total_cmp);
    let num = ascending.len() as f64;
    let weighted = |(rank, share): (usize, &f64)| (2.0 * (rank as f64 + 1.0) - num - 1.0) * share;
    let sum: f64 = ascending.iter().enumerate().map(weighted).sum();
    sum / num.max(1.0)
}

fn tenths(exposure: &[f64], events: &[f64]) -> Vec<Tenth> {
    let mut by_events: Vec<usize> = (0..events.len()).collect();
    by_events.sort_by(|a, b| events[*b].total_cmp(&events[*a]));
    let bound = |tenth: usize| tenth * events.len() / NUM_TENTHS;
    let sum = |shares: &[f64], tenth: usize| {
        let items = &by_events[bound(tenth)..bound(tenth + 1)];
        items.iter().map(|item| shares[*item]).sum()
    };
    (0..NUM_TENTHS)
        .map(|tenth| Tenth {
            exposure: sum(exposure, tenth),
            events: sum(events, tenth),
        })
        .collect()
}

fn most_exposed(candidates: &[Candidate], exposure: &[f64], events: &[f64]) -> Vec<Exposed> {
    let mut named: Vec<usize> = (0..candidates.len()).collect();
    named.sort_by(|a, b| exposure[*b].total_cmp(&exposure[*a]));
    named.truncate(NUM_NAMED);
    let row = |item: usize| Exposed {
        item_id: candidates[item].item_id.clone(),
        exposure: exposure[item],
        events: events[item],
    };
    named
        .into_iter()
        .filter(|item| exposure[*item] > 0.0)
        .map(row)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(num_events: [f64; 4]) -> Vec<Candidate> {
        let item = |(idx, num_events)| Candidate {
            item_id: ItemId::new(format!("i{idx}")).expect("short"),
            num_events,
        };
        num_events.into_iter().enumerate().map(item).collect()
    }

    #[test]
    fn the_figures_of_a_small_catalogue() {
        let lists = [vec![0, 3], vec![0, 3]];
        let report = report(Version(7), &candidates([6.0, 2.0, 0.0, 0.0]), &lists);
        assert_eq!((report.num_listed, report.coverage), (2, 0.5));
        let first = 1.0 / (1.0 + 1.0 / 3.0_f64.log2());
        let named: Vec<_> = report
            .most_exposed
            .iter()
            .map(|row| (row.item_id.as_str(), row.exposure, row.events))
            .collect();
        assert_eq!(named[0].0, "i0");
        assert!((named[0].1 - first).abs() < 1e-12 && (named[0].2 - 0.75).abs() < 1e-12);
        assert!((report.exposure_without_events - (1.0 - first)).abs() < 1e-12);
        // 0, 0, 1/4, 3/4: (1·1/4 + 3·3/4)/4.
        assert!((report.gini_events - 0.625).abs() < 1e-12);
    }

    #[test]
    fn an_even_list_has_no_gini_and_every_item_is_in_one_tenth() {
        let lists = [vec![0], vec![1], vec![2], vec![3]];
        let report = report(Version(1), &candidates([4.0, 3.0, 2.0, 1.0]), &lists);
        assert!(report.gini_exposure.abs() < 1e-12);
        let sum: f64 = report.tenths.iter().map(|tenth| tenth.events).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{:?}", report.tenths);
    }

    #[test]
    fn nothing_is_a_report_too() {
        let report = report(Version(1), &[], &[]);
        assert_eq!((report.coverage, report.gini_exposure), (0.0, 0.0));
        assert!(report.most_exposed.is_empty());
    }
}
