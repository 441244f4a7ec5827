//! SIGHUP: the configuration is read again, and what may change takes hold at once.
//!
//! One that cannot be used is refused whole, and everything stays as it is. What may change: `config::reload`.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Reread;
use crate::audit::AuditRow;
use crate::config::Config;
use crate::config::reload::reloaded;
use crate::http::AppState;

/// From now on SIGHUP ends nothing.
pub(super) fn hangups() -> Option<Signal> {
    signal(SignalKind::hangup())
        .inspect_err(|error| {
            tracing::warn!(%error, "SIGHUP cannot be heard, settings are read at a start alone");
        })
        .ok() // the server goes on without
}

/// Until the server stops.
pub(super) async fn on_hangup(hangups: Option<Signal>, reread: Reread, state: AppState) {
    let Some(mut hangups) = hangups else {
        return;
    };
    let mut stopping = state.stopping.clone();
    let mut running = Arc::clone(&state.config);
    loop {
        tokio::select! {
            heard = hangups.recv() => if heard.is_none() { return },
            _ = stopping.changed() => return,
        }
        if let Some(config) = take_over(&reread, &running, &state).await {
            running = Arc::new(config);
        }
    }
}

async fn take_over(reread: &Reread, running: &Config, state: &AppState) -> Option<Config> {
    let has_file = reread.args.config.config.is_some() || running.access.has_file();
    if !has_file {
        tracing::warn!("there is no file to read again: --config names one");
        return None;
    }
    let read = match reread.args.load_config() {
        Ok(read) => read,
        Err(error) => {
            tracing::error!("the configuration stays as it is: {error:#}");
            return None;
        }
    };
    let (taken, waiting) = reloaded(running, &read);
    let keys = match state.keys.successor(&taken) {
        Ok(keys) => keys,
        Err(error) => {
            tracing::error!("the configuration stays as it is: {error}");
            note(state, "the keys of [access]".to_owned(), &error.to_string()).await;
            return None;
        }
    };
    let changes = state.keys.now().changes_to(&keys);
    // Nothing after this can fail.
    state.keys.replace(keys);
    state.reload(&taken);
    if running.telemetry.filter != taken.telemetry.filter {
        reread.filter.change(&taken.telemetry.filter);
    }
    tracing::info!(
        "limits, origins, keys and log levels are those of the configuration as it is now"
    );
    if !changes.is_empty() {
        let changes = changes.join(", ");
        tracing::info!("keys: {changes}");
        note(state, changes, "done").await;
    }
    if !waiting.is_empty() {
        tracing::warn!("these take hold at the next start: {}", waiting.join(", "));
    }
    Some(taken)
}

/// Writes down what became of keys; it was whoever may signal this process.
async fn note(state: &AppState, keys: String, outcome: &str) {
    let row = AuditRow {
        at: (state.clock)(),
        role: None,
        client: None,
        what: format!("SIGHUP: {keys}"),
        outcome: outcome.to_owned(),
        untold: 0,
    };
    state.audit.add(row).await;
}
