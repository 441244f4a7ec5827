//! The prequential protocol: the walk over HTTP, then the systems that walk the same stream offline.
//!
//! The walk itself lies in `replay`. Systems that are expensive and need no server are asked about the same
//! events afterwards, so that they slow nothing down that is timed.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::document::object;
use super::offline::{self, Offline};
use super::refit::{self, RefitOptions, RefitOutcome};
use super::sasrec::SasRec;
use super::systems::{SYSTEMS, Systems};
use crate::baselines::ranked::Ranked;
use crate::replay::{self, Measured, ReplayError, ReplayOptions, report, summary};

/// What an evaluation found.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// As it is written down.
    pub document: Map<String, Value>,
    /// The systems in it.
    pub systems: Systems,
    /// Every answer behind them.
    pub outcomes: super::outcomes::Outcomes,
}

/// Systems that are expensive, and asked for one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extras {
    /// Days of event time between two full refits of the baseline `refit_daily`.
    pub refit_days: Option<u32>,
    /// Whether the baseline `sasrec` is trained.
    pub has_sasrec: bool,
}

/// Runs it and prints the table.
///
/// # Errors
/// See [`ReplayError`].
pub async fn run(options: ReplayOptions, extras: Extras) -> Result<Evaluation, ReplayError> {
    let mut measured: Measured = Box::pin(replay::measure(options, false)).await?;
    let mut costs = object(json!({ "freshet": server_cost(&measured) }));
    if let Some(every_days) = extras.refit_days {
        let outcome = refit(&measured, every_days).await?;
        costs.insert("refit_daily".to_owned(), outcome.cost(every_days));
        measured
            .walk
            .outcomes
            .answer("refit_daily", &outcome.ranked);
    }
    if extras.has_sasrec {
        let started_at = Instant::now();
        let ranked = sasrec(&measured).await?;
        costs.insert(
            "sasrec".to_owned(),
            json!({"secs": started_at.elapsed().as_secs_f64()}),
        );
        measured.walk.outcomes.answer("sasrec", &ranked);
    }
    let seed = measured.options.seed;
    let systems = Systems::of(&measured.walk.outcomes, &SYSTEMS, seed, |name| match name {
        "refit_daily" => {
            "it costs a warm fit per refit and was not asked for (--refit-days)".to_owned()
        }
        "sasrec" => "it takes minutes and was not asked for (--sasrec)".to_owned(),
        name => report::absence(name),
    });
    summary::print(&measured, &systems);
    print_costs(&costs);
    let mut document = report::evaluation(&measured, &systems);
    document.insert("costs".to_owned(), Value::Object(costs));
    Ok(Evaluation {
        document,
        systems,
        outcomes: measured.walk.outcomes,
    })
}

async fn refit(measured: &Measured, every_days: u32) -> Result<RefitOutcome, ReplayError> {
    let config = offline::config(measured.options.config_file.as_deref())?;
    let options = RefitOptions {
        every_days,
        chunk_len: measured.options.chunk_len,
    };
    refit::run(
        &measured.dataset,
        measured.split,
        &measured.frozen,
        (&measured.walk.queries, &measured.timelines),
        &Offline::new(config)?,
        options,
    )
    .await
}

async fn sasrec(measured: &Measured) -> Result<Vec<Ranked>, ReplayError> {
    let progress = replay::bar(0, "sasrec: fit");
    let (dataset, seed) = (&measured.dataset, measured.options.seed);
    let mut model = SasRec::fit(dataset, measured.split, seed, &progress)?;
    progress.finish();
    let queries = &measured.walk.queries;
    let progress = replay::bar(queries.len(), "sasrec: stream");
    let chunk_len = measured.options.chunk_len;
    let ranked = model
        .walk(queries, &measured.timelines, chunk_len, &progress)
        .await;
    progress.finish();
    ranked
}

/// What the server process spent, all of it: taking in, learning, compressing, publishing, serving.
fn server_cost(measured: &Measured) -> Value {
    match &measured.server_cpu {
        Ok(cpu) => json!({"warm_fit_cpu_secs": cpu.warm_secs, "stream_cpu_secs": cpu.stream_secs}),
        Err(why) => json!({"warm_fit_cpu_secs": null, "stream_cpu_secs": null, "why": why}),
    }
}

fn print_costs(costs: &Map<String, Value>) {
    let secs = |system: &str, field: &str| costs.get(system)?.get(field)?.as_f64();
    if let Some(stream) = secs("freshet", "stream_cpu_secs") {
        println!("{:<34} {stream:.1} s", "CPU of the server over the stream");
    }
    if let Some(refits) = secs("refit_daily", "cpu_secs") {
        println!("{:<34} {refits:.1} s", "CPU of all refits");
    }
}
