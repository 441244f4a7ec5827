//! Ranges of `[privacy]`, and settings that private training does not go with.

use super::{ConfigError, in_range, out_of_range};
use crate::config::{AdversarialChoice, Config};

/// Below it one step alone tells too much for the accountant's orders to say how much.
const NOISE_MULTIPLIER_MIN: f64 = 0.1;

pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let privacy = &config.privacy;
    let bounded = [
        (
            "privacy.epsilon_max",
            privacy.epsilon_max,
            0.001,
            1000.0,
            "0.001 to 1000",
        ),
        ("privacy.delta", privacy.delta, 1e-15, 0.01, "1e-15 to 0.01"),
        (
            "privacy.noise_multiplier",
            privacy.noise_multiplier,
            NOISE_MULTIPLIER_MIN,
            1e4,
            "0.1 to 10000",
        ),
        (
            "privacy.clip_norm",
            privacy.clip_norm,
            1e-6,
            1e6,
            "0.000001 to 1000000",
        ),
        (
            "privacy.sampling_rate",
            privacy.sampling_rate,
            1e-9,
            1.0,
            "1e-9 to 1",
        ),
        (
            "privacy.clients_per_step",
            privacy.clients_per_step,
            1.0,
            1e9,
            "1 to 10^9",
        ),
    ];
    for (key, actual, min, max, expected) in bounded {
        if !(min..=max).contains(&actual) {
            return Err(out_of_range(key, &actual, expected));
        }
    }
    in_range("privacy.steps", u64::from(privacy.steps), 1..=100_000)?;
    in_range("privacy.interval_secs", privacy.interval_secs, 1..=1 << 32)?;
    let num_negatives = privacy.num_negatives as u64; // widening
    in_range("privacy.num_negatives", num_negatives, 1..=1 << 20)?;
    let rates = [
        ("privacy.learning_rate", privacy.learning_rate),
        ("privacy.row_learning_rate", privacy.row_learning_rate),
        ("privacy.bias_learning_rate", privacy.bias_learning_rate),
    ];
    for (key, actual) in rates {
        if !(0.0..=10.0).contains(&actual) {
            return Err(out_of_range(key, &actual, "0 to 10"));
        }
    }
    if rates.iter().all(|(_, rate)| *rate == 0.0) {
        let expected =
            "above 0 for one of privacy.learning_rate, row_learning_rate and bias_learning_rate";
        return Err(out_of_range("privacy.learning_rate", &0.0, expected));
    }
    if privacy.enabled {
        check_others(config)
    } else {
        Ok(())
    }
}

/// What would let one client change what others teach, or is no part of a private step.
fn check_others(config: &Config) -> Result<(), ConfigError> {
    let (train, release) = (&config.train, &config.release);
    let unused = [
        ("labels.propensity_cap", config.labels.propensity_cap),
        ("train.popularity_correction", train.popularity_correction),
        ("train.harm_penalty", train.harm_penalty),
        ("train.contrast_epochs", train.contrast_epochs as f32), // at most 1000
        ("train.text_drop", train.text_drop),
        ("train.id_dropout", train.id_dropout),
        ("release.pseudo_weight", release.pseudo_weight),
        ("release.distillation", release.distillation),
        ("release.ewc", release.ewc),
        ("release.l2_sp", release.l2_sp),
        ("release.averaging", release.averaging),
        (
            "release.refit_every_releases",
            release.refit_every_releases as f32,
        ), // whole numbers keep being above 0
        ("text_tuning.steps", config.text_tuning.steps as f32), // likewise
    ];
    for (key, actual) in unused {
        if actual != 0.0 {
            return Err(out_of_range(
                key,
                &actual,
                "0 while privacy.enabled is true",
            ));
        }
    }
    if train.adversarial != AdversarialChoice::None {
        let actual = format!("{:?}", train.adversarial).to_lowercase();
        return Err(out_of_range(
            "train.adversarial",
            &actual,
            "none while privacy.enabled is true",
        ));
    }
    if let Some(path) = &config.publish.text_recipe {
        // Whether the robustness gate lets its encoder pass is decided by events.
        return Err(out_of_range(
            "publish.text_recipe",
            &path.display(),
            "none while privacy.enabled is true",
        ));
    }
    let clients_min = config.influence.item_clients_min;
    if clients_min != 1 {
        let expected = "1 while privacy.enabled is true";
        return Err(out_of_range(
            "influence.item_clients_min",
            &clients_min,
            expected,
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        match check(&config) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_refused_setting_is_named_with_its_value() {
        assert_eq!(refusal(|_| ()), "");
        assert_eq!(refusal(|config| config.privacy.enabled = true), "");
        let refused = refusal(|config| config.privacy.noise_multiplier = 0.0);
        assert_eq!(
            refused,
            "`privacy.noise_multiplier` is 0, expected 0.1 to 10000"
        );
        let refused = refusal(|config| config.privacy.delta = f64::NAN);
        assert_eq!(refused, "`privacy.delta` is NaN, expected 1e-15 to 0.01");
        let refused = refusal(|config| config.privacy.sampling_rate = 1.5);
        assert_eq!(
            refused,
            "`privacy.sampling_rate` is 1.5, expected 1e-9 to 1"
        );
        let refused = refusal(|config| config.privacy.steps = 0);
        assert_eq!(refused, "`privacy.steps` is 0, expected 1 to 100000");
    }

    #[test]
    fn what_lets_clients_change_what_others_teach_is_refused_while_privacy_is_on() {
        let change = |config: &mut Config| config.labels.propensity_cap = 10.0;
        assert_eq!(refusal(change), "", "off");
        let refused = refusal(|config| {
            config.privacy.enabled = true;
            change(config);
        });
        let expected = "`labels.propensity_cap` is 10, expected 0 while privacy.enabled is true";
        assert_eq!(refused, expected);
        let refused = refusal(|config| {
            config.privacy.enabled = true;
            config.publish.text_recipe = Some("recipe.json".into());
        });
        assert!(
            refused.starts_with("`publish.text_recipe` is recipe.json"),
            "{refused}"
        );
        let refused = refusal(|config| {
            config.privacy.enabled = true;
            config.influence.item_clients_min = 10;
        });
        assert!(
            refused.starts_with("`influence.item_clients_min` is 10"),
            "{refused}"
        );
    }
}
