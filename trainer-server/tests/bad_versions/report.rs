//! Which check refused what, in words and as a table.

use trainer_server::gate::{GateError, GateFigures, PairedLoss};

/// One kind of bad version and what became of it.
pub(crate) struct Line {
    kind: String,
    outcome: Result<GateFigures, GateError>,
}

/// What became of every kind.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    pub(crate) fn add(&mut self, kind: &str, outcome: Result<GateFigures, GateError>) {
        let kind = kind.to_owned();
        self.lines.push(Line { kind, outcome });
    }

    /// Prints the table and fails where one was let through.
    pub(crate) fn expect_all_refused(&self, num_kinds: usize) {
        let mut passed = Vec::new();
        for Line { kind, outcome } in &self.lines {
            match outcome {
                Ok(figures) => {
                    println!("{kind:<48} PASSED     {}", words(figures));
                    passed.push(kind);
                }
                Err(error) => println!("{kind:<48} {:<10} {error}", check(error)),
            }
        }
        assert_eq!(self.lines.len(), num_kinds, "every kind was tried");
        assert!(passed.is_empty(), "the gate let through: {passed:?}");
    }
}

/// Figures in one line: rises of log loss in percent, then shares.
pub(crate) fn words(figures: &GateFigures) -> String {
    let rise = |loss: Option<PairedLoss>| match loss {
        Some(loss) => format!("{:+.2} %", 100.0 * loss.rise()),
        None => "–".to_owned(),
    };
    let share = |value: Option<f32>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
    format!(
        "newest {}, earlier {}, trained {}, entered {}, agreement {}",
        rise(figures.newest()),
        rise(figures.earlier),
        rise(figures.trained),
        share(figures.entered),
        share(figures.agreement)
    )
}

/// Name of the check that refused.
pub(crate) fn check(error: &GateError) -> &'static str {
    match error {
        GateError::Score(_) => "finite",
        GateError::Codes(_) => "codes",
        GateError::LogLoss { .. } => "newest",
        GateError::Earlier { .. } => "earlier",
        GateError::Trained { .. } => "trained",
        GateError::Intruder { .. } => "lists",
        GateError::Agreement { .. } => "agreement",
        GateError::SelfTest(_) => "self-test",
    }
}
