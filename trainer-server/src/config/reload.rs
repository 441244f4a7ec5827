//! Reload: what of a configuration may change while the server runs.
//!
//! `[limits]`, `server.cors_origins` and the keys of `[access]`: they hold for the next request, and nothing that was taken
//! in depends on them; `telemetry.filter`: it holds for the next line. Not here: whether the keys can be used (`access`).

use serde_json::Value;

use super::{AccessConfig, Config};

/// `running` with what may change taken from `read`, and the other keys that are different there: they wait for a start.
#[must_use]
pub fn reloaded(running: &Config, read: &Config) -> (Config, Vec<String>) {
    let mut taken = running.clone();
    taken.limits = read.limits.clone();
    taken.server.cors_origins = read.server.cors_origins.clone();
    taken.telemetry.filter.clone_from(&read.telemetry.filter);
    taken.access = AccessConfig {
        visit_secs: running.access.visit_secs, // of the tokens that are made, not of who may ask
        ..read.access.clone()
    };
    let mut waiting = Vec::new();
    let [ours, theirs] =
        [&taken, read].map(|config| serde_json::to_value(config).unwrap_or_default()); // plain values
    for (section, keys) in ours.as_object().into_iter().flatten() {
        for (key, value) in keys.as_object().into_iter().flatten() {
            if theirs[section].get(key).unwrap_or(&Value::Null) != value {
                waiting.push(format!("{section}.{key}"));
            }
        }
    }
    (taken, waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_origins_keys_and_log_levels_change_and_everything_else_is_named_and_waits() {
        let running = Config::default();
        let mut read = Config::default();
        read.limits.client_requests_per_sec += 1;
        read.server.cors_origins = vec!["https://shop.example".to_owned()];
        read.telemetry.filter = "debug".to_owned();
        read.access.read_key_file = Some("read.key".into());
        assert_eq!(reloaded(&running, &read), (read.clone(), Vec::new()));
        read.server.backlog += 1;
        read.access.visit_secs += 1;
        read.telemetry.trace_share = 0.5;
        let (taken, waiting) = reloaded(&running, &read);
        let expected = [
            "access.visit_secs",
            "server.backlog",
            "telemetry.trace_share",
        ];
        assert_eq!(waiting, expected);
        assert_eq!(taken.access.visit_secs, running.access.visit_secs);
        assert_eq!(taken.server.backlog, running.server.backlog);
        assert_eq!(taken.limits, read.limits);
    }
}
