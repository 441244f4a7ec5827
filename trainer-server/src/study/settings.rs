//! Settings of one trial: what differs from a base, by key, and the configuration that results.

use std::collections::BTreeMap;

use crate::config::load::{Sources, load};
use crate::config::{Config, ConfigError, ModelConfig};

/// Values by `section.key`, written as in TOML.
pub type Settings = BTreeMap<String, String>;

/// The defaults with `base` laid over them and `settings` over that, in event time.
///
/// # Errors
/// As for any configuration; and a study shares warm fits, which private training has none of.
pub fn config(base: &Settings, settings: &Settings) -> Result<Config, ConfigError> {
    let flag = |(key, value): (&String, &String)| (key.clone(), value.clone());
    let mut flags = vec![("clock.mode".to_owned(), "event_time".to_owned())];
    flags.extend(base.iter().map(flag));
    flags.extend(settings.iter().map(flag));
    let config = load(&Sources {
        flags,
        ..Sources::default()
    })?;
    if config.privacy.enabled {
        return Err(ConfigError::Range {
            key: "privacy.enabled",
            actual: "true".to_owned(),
            expected: "false in a study".to_owned(),
        });
    }
    Ok(config)
}

/// A TOML value as it is written in a setting: texts bare, the rest as in the file.
#[must_use]
pub fn written(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The part of a configuration that a warm fit depends on: two that agree in it share one.
#[must_use]
pub fn warm_part(config: &Config) -> Config {
    let defaults = Config::default();
    let mut train = config.train.clone();
    let plain = &defaults.train;
    train.num_threads = plain.num_threads;
    train.fast_interval_millis = plain.fast_interval_millis;
    train.fast_events_max = plain.fast_events_max;
    train.fast_learning_rate = plain.fast_learning_rate;
    train.fast_bias_learning_rate = plain.fast_bias_learning_rate;
    train.fast_cold_boost = plain.fast_cold_boost;
    train.shared_memory_events = plain.shared_memory_events;
    train.warm_fit_min_events = plain.warm_fit_min_events;
    let model = ModelConfig {
        id_code_bits: defaults.model.id_code_bits,
        text_code_bits: defaults.model.text_code_bits,
        matrix_code_bits: defaults.model.matrix_code_bits,
        ..config.model.clone()
    };
    Config {
        clock: config.clock.clone(),
        model,
        labels: config.labels.clone(),
        influence: config.influence.clone(),
        train,
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_trial_wins_over_its_base_and_a_wrong_key_is_named() {
        let base = settings(&[("train.seed", "7"), ("release.steps", "5")]);
        let found = config(&base, &settings(&[("release.steps", "9")])).expect("valid");
        assert_eq!((found.train.seed, found.release.steps), (7, 9));
        let error = config(&base, &settings(&[("release.stepps", "9")])).expect_err("no such key");
        assert!(error.to_string().contains("release.steps"), "{error}");
    }

    #[test]
    fn only_what_a_warm_fit_depends_on_tells_two_apart() {
        let plain = warm_part(&config(&Settings::new(), &Settings::new()).expect("valid"));
        let same = settings(&[
            ("release.strategy", "lora"),
            ("train.fast_learning_rate", "0.5"),
            ("publish.dead_zone", "1.0"),
            ("model.id_code_bits", "4"),
            ("model.matrix_code_bits", "4"),
        ]);
        assert_eq!(
            warm_part(&config(&Settings::new(), &same).expect("valid")),
            plain
        );
        let other = settings(&[("train.augment_crop", "0.5")]);
        assert_ne!(
            warm_part(&config(&Settings::new(), &other).expect("valid")),
            plain
        );
    }
}
