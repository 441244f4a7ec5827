//! The evaluation as one page: table, charts, notes. It loads nothing, so it can be mailed and kept.
//!
//! Input: an [`Evaluation`]. Not here: how charts are drawn (`svg`).

use serde_json::Value;

use super::bootstrap::Interval;
use super::figures::{NUM_PARTS, Slice};
use super::prequential::Evaluation;
use super::svg::{Bar, Series, bars, escape, groups, lines};
use super::systems::{Entry, SYSTEMS, Systems};
use super::table::{absent, decimals};

/// Style sheet of the page and of its charts.
pub const STYLE: &str = include_str!("html.css");

/// The whole page.
#[must_use]
pub fn page(evaluation: &Evaluation) -> String {
    let document = &evaluation.document;
    let systems = &evaluation.systems;
    let field = |name: &str| {
        escape(
            document
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or("unknown"),
        )
    };
    let (dataset, protocol) = (field("dataset"), field("protocol"));
    let num_scored = document
        .get("num_scored")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{dataset}, {protocol}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>{dataset}: {protocol}</h1>\n\
         <p>{num_scored} events whose item was new to the user, of {} users. \
         Brackets and whiskers are 95 % intervals over users.</p>\n\
         {}{}\
         <h2>Notes</h2>\n<ul>{}</ul>\n\
         <p class=\"origin\">Command <code>{}</code>, commit <code>{}</code>.</p>\n</body>\n</html>\n",
        systems.num_users,
        table(systems),
        charts(systems, &protocol),
        notes(document.get("protocol_notes"), systems),
        field("command"),
        field("commit"),
    )
}

/// Scored systems with the place that decides their colour.
fn placed(systems: &Systems) -> impl Iterator<Item = (usize, &'static str, &Entry)> {
    systems.scored().map(|(name, entry)| {
        let place = SYSTEMS.iter().position(|known| *known == name);
        (place.unwrap_or(0), name, entry)
    })
}

fn table(systems: &Systems) -> String {
    let mut rows = String::new();
    for (place, name, entry) in placed(systems) {
        let (figures, headline) = (&entry.figures, &entry.figures.headline);
        let intervals = entry.intervals.as_ref();
        let difference = intervals.and_then(|all| all.minus_freshet);
        let cells = [
            with_interval(
                headline.hr_at_10,
                intervals.map(|all| all.hr_at_10_interval),
            ),
            with_interval(
                headline.ndcg_at_10,
                intervals.map(|all| all.ndcg_at_10_interval),
            ),
            difference.map_or_else(
                || "–".to_owned(),
                |one| {
                    let [low, high] = one.hr_at_10_interval;
                    format!(
                        "{:+.4} <small>[{low:+.4}, {high:+.4}]</small>",
                        one.hr_at_10
                    )
                },
            ),
            decimals(headline.mrr, 4),
            decimals(figures.recall_at_k[&1], 4),
            decimals(figures.recall_at_k[&50], 4),
            decimals(headline.auc, 4),
            decimals(headline.log_loss, 3),
            decimals(figures.coverage_at_10, 3),
            decimals(figures.gini, 3),
            figures
                .popularity_bias
                .map_or_else(|| "-".to_owned(), |bias| format!("{bias:+.2}")),
        ];
        let cells: String = cells
            .iter()
            .map(|cell| format!("<td>{cell}</td>"))
            .collect();
        rows.push_str(&format!(
            "<tr><th class=\"name s{place}\">{name}</th>{cells}</tr>\n"
        ));
    }
    for (name, why) in absent(systems) {
        rows.push_str(&format!(
            "<tr class=\"absent\"><th>{name}</th><td colspan=\"11\">{}</td></tr>\n",
            escape(why)
        ));
    }
    format!(
        "<div class=\"wide\"><table>\n<thead><tr><th>system</th><th>HR@10</th><th>NDCG@10</th>\
         <th>HR@10 minus freshet</th><th>MRR</th><th>recall@1</th><th>recall@50</th><th>AUC</th><th>log loss</th>\
         <th>coverage@10</th><th>Gini</th><th>popularity bias</th></tr></thead>\n<tbody>{rows}</tbody></table></div>\n"
    )
}

fn charts(systems: &Systems, protocol: &str) -> String {
    let bars_of = |value: fn(&Entry) -> Option<f64>, interval: fn(&Entry) -> Option<Interval>| {
        let all = placed(systems).filter_map(|(place, name, entry)| {
            Some(Bar {
                name,
                place,
                value: value(entry)?,
                interval: interval(entry),
            })
        });
        all.collect::<Vec<_>>()
    };
    let hits = bars_of(
        |entry| entry.figures.headline.hr_at_10,
        |entry| entry.intervals.map(|all| all.hr_at_10_interval),
    );
    let gains = bars_of(
        |entry| entry.figures.headline.ndcg_at_10,
        |entry| entry.intervals.map(|all| all.ndcg_at_10_interval),
    );
    let by_tenth = series(systems, |entry| {
        entry.figures.hr_at_10_by_tenth_of_the_stream.to_vec()
    });
    let by_slice = series(systems, |entry| {
        let slices = Slice::ALL.map(|slice| entry.figures.slices[&slice].hr_at_10);
        slices.to_vec()
    });
    let names = Slice::ALL.map(|slice| {
        let first = systems.scored().next();
        let num = first.map_or(0, |(_, entry)| entry.figures.slices[&slice].num_scored);
        format!("{} ({num})", slice.title())
    });
    let over = if protocol == "leave-one-out" {
        "tenth of the held-out events, by time"
    } else {
        "tenth of the stream"
    };
    debug_assert!(by_tenth.iter().all(|one| one.values.len() == NUM_PARTS));
    format!(
        "<h2>Quality</h2>\n{}{}<h2>Over the stream</h2>\n{}<h2>By slice</h2>\n\
         <p>All but <em>repeat</em> are items new to the user; the number of events is in brackets.</p>\n{}",
        bars(&hits, "HR@10, items new to the user"),
        bars(&gains, "NDCG@10, items new to the user"),
        lines(&by_tenth, over, "HR@10"),
        groups(&by_slice, &names, "HR@10"),
    )
}

fn series(systems: &Systems, values: impl Fn(&Entry) -> Vec<Option<f64>>) -> Vec<Series> {
    let all = placed(systems).map(|(place, name, entry)| Series {
        name,
        place,
        values: values(entry),
    });
    all.collect()
}

fn notes(notes: Option<&Value>, systems: &Systems) -> String {
    let known = notes.and_then(Value::as_array).into_iter().flatten();
    let mut lines: Vec<&str> = known.filter_map(Value::as_str).collect();
    lines.extend(systems.intervals_why.as_deref());
    lines
        .iter()
        .map(|line| format!("<li>{}</li>\n", escape(line)))
        .collect()
}

fn with_interval(value: Option<f64>, interval: Option<Interval>) -> String {
    match (value, interval) {
        (Some(value), Some([low, high])) => {
            format!("{value:.4} <small>[{low:.4}, {high:.4}]</small>")
        }
        (value, _) => decimals(value, 4),
    }
}
