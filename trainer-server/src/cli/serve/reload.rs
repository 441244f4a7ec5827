//! SIGHUP: the configuration is read again, and what may change takes hold at once.
//!
//! One that cannot be used is refused whole, and everything stays as it is. What may change: `config::reload`.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::ServeArgs;
use crate::config::Config;
use crate::config::reload::reloaded;
use crate::http::AppState;

/// Until the server stops.
pub(super) async fn on_hangup(args: ServeArgs, state: AppState) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            return tracing::warn!(%error, "SIGHUP cannot be heard, settings are read at a start alone");
        }
    };
    let mut stopping = state.stopping.clone();
    let mut running = Arc::clone(&state.config);
    loop {
        tokio::select! {
            heard = hangups.recv() => if heard.is_none() { return },
            _ = stopping.changed() => return,
        }
        if let Some(config) = take_over(&args, &running, &state) {
            running = Arc::new(config);
        }
    }
}

fn take_over(args: &ServeArgs, running: &Config, state: &AppState) -> Option<Config> {
    if args.config.config.is_none() {
        tracing::warn!("there is no file to read again: --config names one");
        return None;
    }
    let read = match args.load_config() {
        Ok(read) => read,
        Err(error) => {
            tracing::error!("the configuration stays as it is: {error:#}");
            return None;
        }
    };
    let (taken, waiting) = reloaded(running, &read);
    state.reload(&taken);
    tracing::info!("limits and origins are those of the configuration as it is now");
    if !waiting.is_empty() {
        tracing::warn!("these take hold at the next start: {}", waiting.join(", "));
    }
    Some(taken)
}
