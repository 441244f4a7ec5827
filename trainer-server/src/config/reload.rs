//! Reload: what of a configuration may change while the server runs.
//!
//! `[limits]` and `server.cors_origins`: they hold for the next request, and nothing that was taken in depends on them.

use serde_json::Value;

use super::Config;

/// `running` with what may change taken from `read`, and the other keys that are different there: they wait for a start.
#[must_use]
pub fn reloaded(running: &Config, read: &Config) -> (Config, Vec<String>) {
    let mut taken = running.clone();
    taken.limits = read.limits.clone();
    taken.server.cors_origins = read.server.cors_origins.clone();
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
    if taken.access != read.access {
        waiting.push("the keys of [access]".to_owned()); // they are told by no value
    }
    (taken, waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_origins_change_and_everything_else_is_named_and_waits() {
        let running = Config::default();
        let mut read = Config::default();
        read.limits.client_requests_per_sec += 1;
        read.server.cors_origins = vec!["https://shop.example".to_owned()];
        assert_eq!(reloaded(&running, &read), (read.clone(), Vec::new()));
        read.server.backlog += 1;
        let (taken, waiting) = reloaded(&running, &read);
        assert_eq!(waiting, ["server.backlog"]);
        assert_eq!(taken.server.backlog, running.server.backlog);
        assert_eq!(taken.limits, read.limits);
    }
}
