//! The prequential protocol: the walk over HTTP, then the systems that walk the same stream offline.
//!
//! The walk itself lies in `replay`. Systems that are expensive and need no server are asked about the same
//! events afterwards, so that they slow nothing down that is timed.

use serde_json::{Map, Value};

use super::systems::{SYSTEMS, Systems};
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

/// Runs it and prints the table.
///
/// # Errors
/// See [`ReplayError`].
pub async fn run(options: ReplayOptions) -> Result<Evaluation, ReplayError> {
    let measured: Measured = Box::pin(replay::measure(options, false)).await?;
    let seed = measured.options.seed;
    let systems = Systems::of(&measured.walk.outcomes, &SYSTEMS, seed, |name| match name {
        "refit_daily" => {
            "it costs a warm fit per refit and was not asked for (--refit-days)".to_owned()
        }
        "sasrec" => "it takes minutes and was not asked for (--sasrec)".to_owned(),
        name => report::absence(name),
    });
    summary::print(&measured, &systems);
    Ok(Evaluation {
        document: report::evaluation(&measured, &systems),
        systems,
        outcomes: measured.walk.outcomes,
    })
}
