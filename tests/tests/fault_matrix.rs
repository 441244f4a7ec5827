//! The fault matrix: whatever is wrong with browser, network, server or page, it ends in a ranking or in a typed error
//! within a second, and nothing is uncaught.
//!
//! One row per fault, in Chromium and with a real server behind a network that misbehaves. Every row has an origin of its
//! own, so nothing is in a cache that it did not put there. `FRESHET_FAULTS_MD=FILE` writes the table.

mod faults;

use std::fmt::Write;

use anyhow::ensure;
use faults::{ROWS, Row, Stage, When};
use harness::browser::Browser;
use harness::workspace;
use serde_json::json;

/// From the fault to the ranking or the error.
const LIMIT_MILLIS: f64 = 1000.0;
/// What a page waits at most for its first ranking, beyond what a load without any fault takes.
const PATIENCE_MILLIS: f64 = 900.0;
const OUT_VARIABLE: &str = "FRESHET_FAULTS_MD";
const COMMAND: &str = "FRESHET_FAULTS_MD=docs/faults.md cargo test --workspace --test fault_matrix";
const CLEAN_LOADS: usize = 5;
/// Browsers that share the rows: most of a row is waiting.
const NUM_LANES: usize = 2;

/// What became of a row.
struct Seen {
    row: &'static Row,
    /// What a load without any fault takes in its browser.
    clean_millis: f64,
    ends: String,
    millis: f64,
    message: Option<String>,
    /// Codes of the errors that the page was told, without repetitions.
    told: Vec<String>,
    uncaught: Vec<String>,
}

impl Seen {
    fn problem(&self) -> Option<String> {
        let limit = match self.row.when {
            When::First => LIMIT_MILLIS + self.clean_millis,
            When::Again | When::Later => LIMIT_MILLIS,
        } * f64::from(self.row.times);
        let (name, ends, millis) = (self.row.name, &self.ends, self.millis);
        if ends != self.row.ends {
            let (expected, message) = (self.row.ends, &self.message);
            return Some(format!(
                "{name}: ended by {ends}, expected {expected}: {message:?}"
            ));
        }
        if millis > limit {
            return Some(format!(
                "{name}: {millis:.0} ms, at most {limit:.0} expected"
            ));
        }
        let uncaught = (!self.uncaught.is_empty()).then_some(&self.uncaught);
        uncaught.map(|uncaught| format!("{name}: uncaught {uncaught:?}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_ends_in_a_ranking_or_a_typed_error() -> anyhow::Result<()> {
    let Some([one, other]) = Browser::start_two().await? else {
        return Ok(());
    };
    let (first, second) = tokio::try_join!(play_lane(&one, 0), play_lane(&other, 1))?;
    other.close().await?;
    one.close().await?;
    ensure!(
        first.len() + second.len() == ROWS.len(),
        "a row was left out"
    );
    let mut lanes = [first.into_iter(), second.into_iter()];
    let in_turn = (0..ROWS.len()).filter_map(|row_idx| lanes[row_idx % NUM_LANES].next());
    let all: Vec<Seen> = in_turn.collect();
    if let Some(path) = std::env::var_os(OUT_VARIABLE) {
        std::fs::write(workspace::root().join(path), page_of(&all)?)?;
    }
    let problems: Vec<_> = all.iter().filter_map(Seen::problem).collect();
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// Plays every [`NUM_LANES`]th row in a browser.
async fn play_lane(browser: &Browser, lane_idx: usize) -> anyhow::Result<Vec<Seen>> {
    let mut stage = Stage::build(browser).await?;
    let clean_millis = clean_load(&stage).await?;
    stage.patience_millis = clean_millis + PATIENCE_MILLIS;
    println!("a load without any fault takes {clean_millis:.0} ms");
    let mut all = Vec::new();
    for row in ROWS.iter().skip(lane_idx).step_by(NUM_LANES) {
        let mut seen = play(&mut stage, row, clean_millis).await?;
        if let Some(problem) = seen.problem() {
            // Another process may have had the processor for half a second.
            println!("played once more: {problem}");
            seen = play(&mut stage, row, clean_millis).await?;
        }
        println!("{}", line_of(&seen));
        all.push(seen);
    }
    Ok(all)
}

/// Median of several loads, each by an origin that was never seen.
async fn clean_load(stage: &Stage<'_>) -> anyhow::Result<f64> {
    let mut millis = Vec::new();
    for _ in 0..CLEAN_LOADS {
        let visit = stage.visit().await?;
        let ending = visit.load(stage, &[]).await?;
        ensure!(
            ending.ends == "ranking",
            "without any fault: {}",
            ending.ends
        );
        millis.push(ending.millis);
        visit.page.close().await?;
    }
    millis.sort_by(f64::total_cmp);
    Ok(millis[CLEAN_LOADS / 2])
}

async fn play(stage: &mut Stage<'_>, row: &'static Row, clean_millis: f64) -> anyhow::Result<Seen> {
    let visit = stage.visit().await?;
    let ending = row.play(stage, &visit).await?;
    let page = visit.page.clone();
    let mut told: Vec<String> = Vec::new();
    for error in page.log("error").await? {
        let code = error["code"].as_str().unwrap_or("none").to_owned();
        if !told.contains(&code) {
            told.push(code);
        }
    }
    page.call("dispose", json!([])).await?;
    let mut uncaught = page.uncaught().await?;
    uncaught.extend(page.uncaught_in_console().await?);
    page.close().await?;
    Ok(Seen {
        row,
        clean_millis,
        ends: ending.ends,
        millis: ending.millis,
        message: ending.message,
        told,
        uncaught,
    })
}

fn line_of(seen: &Seen) -> String {
    let Row {
        name, when, what, ..
    } = seen.row;
    let (when, place) = (when.name(), what.place());
    let (ends, millis, told) = (&seen.ends, seen.millis, seen.told.join(", "));
    format!("| {name} | {place} | {when} | {ends} | {millis:.0} | {told} |")
}

fn page_of(all: &[Seen]) -> anyhow::Result<String> {
    let slowest = all.iter().map(|seen| seen.clean_millis).fold(0.0, f64::max);
    let mut page = format!("{}\n", include_str!("faults/head.md"));
    writeln!(page, "```text\n{COMMAND}\n```\n")?;
    writeln!(
        page,
        "{} faults, {} uncaught exceptions; a load without any fault takes {slowest:.0} ms here, \
         from `open` to the first ranking.\n",
        all.len(),
        all.iter().map(|seen| seen.uncaught.len()).sum::<usize>()
    )?;
    writeln!(
        page,
        "| fault | where | when | ends by | ms | errors told |\n| --- | --- | --- | --- | ---: | --- |"
    )?;
    for seen in all {
        writeln!(page, "{}", line_of(seen))?;
    }
    Ok(page)
}
