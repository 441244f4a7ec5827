//! Attackers in a real stream, with `[influence]` off and on: the example `poisoning` of the server crate, on every
//! stream that `FRESHET_DATA` holds.
//!
//! Here the figures that the aims are about: the share of NDCG@10 that honest clients lose, and the exposure of the
//! pushed item beside that after as many honest clients took it. Not here: the streams and attacks.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::inputs::{Stream, streams};
use crate::process::{cargo, run_to_end, step};
use crate::workspace::Workspace;

/// Honest events that are ranked, where `FRESHET_POISON_EVENTS` says nothing else.
const NUM_EVENTS: usize = 20_000;
const SIDES: [&str; 2] = ["undefended", "defended"];
/// Attacks that push an item.
const PUSHES: [&str; 3] = ["push", "bandwagon", "fresh_clients"];

/// All streams.
///
/// # Errors
/// No stream is there, or the example cannot be built or run.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Value> {
    let num_events = match std::env::var("FRESHET_POISON_EVENTS") {
        Ok(text) => text
            .parse()
            .with_context(|| format!("FRESHET_POISON_EVENTS is {text:?}, expected a number"))?,
        Err(_) => NUM_EVENTS,
    };
    let streams = streams()?;
    ensure!(
        !streams.is_empty(),
        "FRESHET_DATA holds no folder with events.tsv"
    );
    step("building", || {
        run_to_end(
            cargo()
                .args(["build", "--workspace", "--example", "poisoning"])
                .current_dir(workspace.root()),
        )
    })?;
    let mut numbers = serde_json::Map::new();
    for stream in streams {
        let found = step(&stream.name, || run(workspace, &stream, num_events))?;
        numbers.insert(stream.name, summed_up(found)?);
    }
    Ok(Value::Object(numbers))
}

fn run(workspace: &Workspace, stream: &Stream, num_events: usize) -> anyhow::Result<Value> {
    let output = Command::new(workspace.target_dir().join("debug/examples/poisoning"))
        .arg(&stream.dir)
        .arg(num_events.to_string())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the example poisoning")?;
    ensure!(output.status.success(), "poisoning: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Adds the shares lost and the lifts to what the example found.
fn summed_up(mut found: Value) -> anyhow::Result<Value> {
    let streams = &found["streams"];
    let figure = |side: &str, attack: &str, name: &str| {
        let value = streams[format!("{side} {attack}")][name].as_f64();
        value.with_context(|| format!("no {name} of {side} {attack}"))
    };
    let mut summary = serde_json::Map::new();
    for side in SIDES {
        let clean = figure(side, "none", "ndcg_at_10")?;
        let honest = figure(side, "honest", "exposure")?;
        for attack in PUSHES.iter().chain(&["nuke"]) {
            let exposure = figure(side, attack, "exposure")?;
            let before = figure(side, attack, "exposure_without")?;
            let is_push = PUSHES.contains(attack);
            let row = json!({
                "ndcg_at_10_change": figure(side, attack, "minus_none")? / clean,
                "lift": ratio(exposure, before),
                "lift_over_honest": if is_push { ratio(exposure, honest) } else { None },
            });
            summary.insert(format!("{side} {attack}"), row);
        }
    }
    found["summary"] = Value::Object(summary);
    Ok(found)
}

/// None where nothing can be told.
fn ratio(exposure: f64, reference: f64) -> Option<f64> {
    (reference > 0.0).then(|| exposure / reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shares_of_the_stream_without_an_attack_and_lifts_are_over_honest_clients() {
        let row = |minus_none: f64, exposure: f64| json!({ "ndcg_at_10": 0.2, "minus_none": minus_none, "exposure": exposure, "exposure_without": 0.0 });
        let mut streams = serde_json::Map::new();
        for side in SIDES {
            for attack in PUSHES.iter().chain(&["none", "nuke"]) {
                streams.insert(format!("{side} {attack}"), row(-0.01, 6.0));
            }
            streams.insert(format!("{side} honest"), row(0.0, 4.0));
        }
        let found = summed_up(json!({ "streams": streams })).expect("complete");
        let push = &found["summary"]["defended push"];
        assert_eq!(push["lift_over_honest"], 1.5);
        assert_eq!(push["lift"], Value::Null);
        let change = push["ndcg_at_10_change"].as_f64().expect("a number");
        assert!((change + 0.05).abs() < 1e-12);
        assert!(summed_up(json!({ "streams": {} })).is_err());
    }
}
