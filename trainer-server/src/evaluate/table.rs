//! The table of systems for a terminal. Not here: the figures (`systems`), and the same as a page (`html`).

use super::bootstrap::Interval;
use super::figures::Slice;
use super::systems::Systems;

/// The table with intervals, then the slices, as lines.
#[must_use]
pub fn table(systems: &Systems) -> String {
    let mut text = format!(
        "{:<14} {:>24} {:>24} {:>7} {:>7} {:>9} {:>8} {:>26}\n",
        "system", "HR@10", "NDCG@10", "MRR", "AUC", "log loss", "coverage", "HR@10 minus freshet"
    );
    for (name, entry) in systems.scored() {
        let (figures, headline) = (&entry.figures, &entry.figures.headline);
        let intervals = entry.intervals.as_ref();
        let difference = intervals.and_then(|intervals| intervals.minus_freshet);
        text.push_str(&format!(
            "{name:<14} {:>24} {:>24} {:>7} {:>7} {:>9} {:>8} {:>26}\n",
            with_interval(
                headline.hr_at_10,
                intervals.map(|all| all.hr_at_10_interval)
            ),
            with_interval(
                headline.ndcg_at_10,
                intervals.map(|all| all.ndcg_at_10_interval)
            ),
            decimals(headline.mrr, 4),
            decimals(headline.auc, 4),
            decimals(headline.log_loss, 3),
            decimals(figures.coverage_at_10, 3),
            difference.map_or_else(
                || "-".to_owned(),
                |difference| {
                    let [low, high] = difference.hr_at_10_interval;
                    format!("{:+.4} [{low:+.4}, {high:+.4}]", difference.hr_at_10)
                }
            ),
        ));
    }
    for (name, why) in absent(systems) {
        text.push_str(&format!("{name:<14} not scored: {why}\n"));
    }
    text.push_str(&slices(systems));
    if let Some(why) = &systems.intervals_why {
        text.push_str(&format!("no intervals: {why}\n"));
    }
    text
}

/// Systems that were not scored, with the reason.
pub(super) fn absent(systems: &Systems) -> impl Iterator<Item = (&'static str, &str)> {
    let entries = systems.list.iter();
    entries.filter_map(|(name, entry)| Some((*name, entry.as_ref().err()?.as_str())))
}

/// HR@10 by slice, with the number of events of each.
fn slices(systems: &Systems) -> String {
    let Some((_, first)) = systems.scored().next() else {
        return String::new();
    };
    let mut text = format!("\n{:<14}", "HR@10 of");
    for slice in Slice::ALL {
        text.push_str(&format!(" {:>12}", slice.title()));
    }
    text.push_str(&format!("\n{:<14}", "events"));
    for slice in Slice::ALL {
        text.push_str(&format!(" {:>12}", first.figures.slices[&slice].num_scored));
    }
    for (name, entry) in systems.scored() {
        text.push_str(&format!("\n{name:<14}"));
        for slice in Slice::ALL {
            let hit_rate = entry.figures.slices[&slice].hr_at_10;
            text.push_str(&format!(" {:>12}", decimals(hit_rate, 4)));
        }
    }
    text.push('\n');
    text
}

fn with_interval(value: Option<f64>, interval: Option<Interval>) -> String {
    match (value, interval) {
        (Some(value), Some([low, high])) => format!("{value:.4} [{low:.4}, {high:.4}]"),
        (value, _) => decimals(value, 4),
    }
}

/// A dash where there is no value.
pub(super) fn decimals(value: Option<f64>, num_decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.num_decimals$}"))
}
