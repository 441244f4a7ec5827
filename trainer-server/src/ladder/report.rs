//! Reports of a ladder: a table, a chart of quality by milliseconds, and JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Rung, Target, frontier};
use crate::evaluate::svg::curves::{Curve, Point, curves};

/// In Markdown, what was chosen in bold; `whole_ms` is the time of the encoder that is only packed.
#[must_use]
pub fn table(rungs: &[Rung], chosen: &[usize], whole_ms: f64) -> String {
    let mut text = String::from(
        "| encoder | bytes | of NDCG@10 in f32 | cosine, mean | times as fast | frontier | robustness |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (place, (rung, is_frontier)) in rungs.iter().zip(frontier(rungs)).enumerate() {
        let bold = if chosen.contains(&place) { "**" } else { "" };
        let [low, high] = rung.relative_ndcg_interval.map(|end| 100.0 * end);
        let on_frontier = if is_frontier { "yes" } else { "" };
        let reasons = rung.robustness.reasons();
        let verdict = match reasons.is_empty() {
            true => "passes".to_owned(),
            false => reasons.join("; "),
        };
        let _ = writeln!(
            // a text takes everything
            text,
            "| {bold}{}{bold} | {} | {:.1} % [{low:.1}, {high:.1}] | {:.4} | {:.2} | {on_frontier} | {verdict} |",
            rung.name,
            rung.bytes,
            100.0 * rung.relative_ndcg,
            rung.cosine.mean,
            whole_ms / rung.native_ms,
        );
    }
    text
}

/// NDCG@10 in percent of the parent's by milliseconds: those that pass the gate, and those that it refuses.
#[must_use]
pub fn chart(rungs: &[Rung]) -> String {
    let curve = |place: usize, name: &'static str, passes: bool| {
        let of_curve = rungs
            .iter()
            .filter(|rung| rung.robustness.passes() == passes);
        let mut points: Vec<Point> = of_curve
            .map(|rung| Point {
                x: rung.native_ms,
                y: 100.0 * (rung.relative_ndcg - 1.0),
                interval: Some(rung.relative_ndcg_interval.map(|end| 100.0 * (end - 1.0))),
                label: rung.name.clone(),
            })
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        Curve {
            name,
            place,
            points,
        }
    };
    let both = [
        curve(0, "passes the gate", true),
        curve(3, "refused", false),
    ];
    let drawn = both.into_iter().filter(|curve| !curve.points.is_empty());
    curves(
        &drawn.collect::<Vec<_>>(),
        "milliseconds for a text of 32 tokens",
        "NDCG@10 against the encoder in f32, %",
    )
}

/// Everything; `chosen` has the place of a rung by target.
#[must_use]
pub fn document(
    dataset: &str,
    parent_ndcg: f64,
    rungs: &[Rung],
    chosen: &[(Target, Option<usize>)],
) -> Value {
    let rows = rungs
        .iter()
        .zip(frontier(rungs))
        .map(|(rung, is_frontier)| {
            let mut row =
                serde_json::to_value(rung).expect("a struct of numbers and texts serializes");
            row["is_on_frontier"] = json!(is_frontier);
            row["passes"] = json!(rung.robustness.passes());
            row["reasons"] = json!(rung.robustness.reasons());
            row
        });
    let chosen = chosen.iter().map(|(target, place)| {
        let name = place.map(|place| &rungs[place].name);
        json!({ "bytes": target.bytes, "time_share": target.time_share, "chosen": name })
    });
    json!({
        "dataset": dataset,
        "parent_ndcg_at_10": parent_ndcg,
        "rungs": rows.collect::<Vec<_>>(),
        "targets": chosen.collect::<Vec<_>>(),
    })
}
