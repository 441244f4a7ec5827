//! What a configuration must satisfy beyond its types.

mod compose;
mod influence;
mod labels;
mod limits;
mod privacy;
mod rollout;

use std::ops::RangeInclusive;

use shared_model::manifest::{INLINE_DELTA_BYTES_MAX, PLAN_STEPS_MAX};
use shared_model::text::low_rank::RANK_MAX;

use super::{Config, ConfigError, StrategyChoice, TextEncoderChoice};
use crate::preprocess::TIMELINE_LEN_MAX;

/// Ids must be remembered for at least this long.
const ID_MEMORY_SECS_MIN: u64 = 7 * 86_400;

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_counts()?;
        limits::check(&self.limits)?;
        influence::check(&self.influence)?;
        privacy::check(self)?;
        in_range("access.visit_secs", self.access.visit_secs, 60..=1 << 30)?;
        self.check_shares()?;
        self.telemetry.check()?;
        if self.release.strategy == StrategyChoice::Adapter && self.model.adapter_dim == 0 {
            let expected = "another than adapter while model.adapter_dim is 0";
            return Err(out_of_range("release.strategy", &"adapter", expected));
        }
        if self.release.teacher_dir.is_some() && self.release.distillation == 0.0 {
            let expected = "above 0 while release.teacher_dir names a teacher";
            return Err(out_of_range("release.distillation", &0.0, expected));
        }
        let num_versions = self.release.ensemble_versions;
        in_range("release.ensemble_versions", num_versions.into(), 1..=8)?;
        if num_versions > 1 && self.release.distillation == 0.0 {
            let expected = "above 0 while release.ensemble_versions is more than 1";
            return Err(out_of_range("release.distillation", &0.0, expected));
        }
        self.check_text_tuning()?;
        labels::check(&self.labels)?;
        self.check_objective()?;
        self.check_import()?;
        let name = &self.model.name;
        let is_name_char =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        let is_name = (1..=64).contains(&name.len()) && name.chars().all(is_name_char);
        if !is_name {
            let expected = "1 to 64 lower-case letters, digits, `-` or `_`";
            return Err(out_of_range("model.name", name, expected));
        }
        let strides = &self.publish.skip_strides;
        let is_ascending = strides.windows(2).all(|pair| pair[0] < pair[1]);
        if strides.len() > 4 || !is_ascending || strides.first().is_some_and(|stride| *stride < 2) {
            let actual = format!("{strides:?}");
            let expected = "at most 4 ascending values of at least 2";
            return Err(out_of_range("publish.skip_strides", &actual, expected));
        }
        self.model
            .spec(0)
            .check()
            .map_err(|error| ConfigError::Range {
                key: model_key(error.field),
                actual: error.actual,
                expected: error.expected.to_owned(),
            })
    }

    fn check_counts(&self) -> Result<(), ConfigError> {
        // Every `as u64` here widens.
        let Self {
            server,
            log,
            clock,
            train,
            release,
            publish,
            labels,
            ..
        } = self;
        in_range(
            "server.body_bytes_max",
            server.body_bytes_max as u64,
            1024..=1 << 30,
        )?;
        in_range(
            "server.batch_events_max",
            server.batch_events_max as u64,
            1..=100_000,
        )?;
        in_range(
            "server.queue_batches_max",
            server.queue_batches_max as u64,
            1..=65_536,
        )?;
        in_range(
            "server.connections_max",
            server.connections_max as u64,
            1..=1 << 20,
        )?;
        in_range("server.backlog", server.backlog.into(), 1..=65_535)?;
        in_range(
            "server.header_timeout_millis",
            server.header_timeout_millis,
            100..=600_000,
        )?;
        in_range("server.keep_alive_secs", server.keep_alive_secs, 1..=600)?;
        in_range(
            "log.id_memory_secs",
            log.id_memory_secs,
            ID_MEMORY_SECS_MIN..=1 << 32,
        )?;
        in_range("log.retention_days", log.retention_days.into(), 0..=36_500)?;
        in_range(
            "log.commit_records_max",
            log.commit_records_max as u64,
            1..=1 << 20,
        )?;
        in_range("log.cache_bytes", log.cache_bytes as u64, 1 << 20..=1 << 40)?;
        in_range("clock.future_secs_max", clock.future_secs_max, 0..=86_400)?;
        in_range("train.num_threads", train.num_threads as u64, 0..=1024)?;
        in_range("train.niceness", u64::from(train.niceness), 0..=19)?;
        in_range(
            "train.fast_interval_millis",
            train.fast_interval_millis,
            10..=3_600_000,
        )?;
        in_range(
            "train.fast_events_max",
            train.fast_events_max as u64,
            1..=1 << 20,
        )?;
        in_range("train.warm_epochs", u64::from(train.warm_epochs), 1..=1000)?;
        in_range(
            "train.warm_batch_size",
            train.warm_batch_size as u64,
            1..=65_536,
        )?;
        in_range(
            "train.num_negatives",
            train.num_negatives as u64,
            1..=1 << 20,
        )?;
        in_range(
            "train.accumulation_steps",
            u64::from(train.accumulation_steps),
            1..=1024,
        )?;
        in_range(
            "train.adversarial_steps",
            u64::from(train.adversarial_steps),
            1..=32,
        )?;
        in_range(
            "release.refit_passes",
            u64::from(release.refit_passes),
            1..=100,
        )?;
        in_range(
            "release.refit_windows_max",
            release.refit_windows_max as u64,
            1..=1 << 24,
        )?;
        in_range("release.lora_rank", u64::from(release.lora_rank), 1..=64)?;
        in_range(
            "release.interval_events",
            release.interval_events,
            1..=1 << 40,
        )?;
        in_range("release.interval_secs", release.interval_secs, 1..=1 << 32)?;
        in_range("release.steps", u64::from(release.steps), 1..=1_000_000)?;
        in_range(
            "publish.delta_bytes_budget",
            publish.delta_bytes_budget as u64,
            64..=1 << 30,
        )?;
        in_range(
            "publish.bytes_per_sec_max",
            publish.bytes_per_sec_max,
            0..=1 << 40,
        )?;
        in_range("publish.block_len", publish.block_len as u64, 0..=512)?;
        in_range(
            "publish.inline_delta_bytes_max",
            publish.inline_delta_bytes_max as u64,
            0..=INLINE_DELTA_BYTES_MAX as u64,
        )?;
        in_range(
            "publish.chain_len_max",
            publish.chain_len_max as u64,
            2..=PLAN_STEPS_MAX as u64,
        )?;
        in_range(
            "publish.snapshot_every_versions",
            publish.snapshot_every_versions,
            1..=1 << 20,
        )?;
        in_range(
            "publish.manifest_ttl_secs",
            publish.manifest_ttl_secs,
            60..=1 << 32,
        )?;
        in_range("publish.key_poll_secs", publish.key_poll_secs, 1..=86_400)?;
        in_range(
            "publish.keep_versions_min",
            publish.keep_versions_min,
            2..=1 << 20,
        )?;
        compose::check(publish)?;
        rollout::check(&self.rollout, &self.moderation)?;
        in_range(
            "store.disk_bytes_max",
            self.store.disk_bytes_max,
            0..=1 << 50,
        )?;
        in_range("store.reserve_bytes", self.store.reserve_bytes, 0..=1 << 40)?;
        in_range(
            "labels.burst_events_max",
            labels.burst_events_max as u64,
            0..=TIMELINE_LEN_MAX as u64,
        )?;
        in_range(
            "labels.burst_window_secs",
            labels.burst_window_secs,
            1..=1 << 32,
        )?;
        in_range("labels.repeat_secs", labels.repeat_secs, 0..=1 << 32)?;
        in_range(
            "labels.join_window_secs",
            labels.join_window_secs,
            1..=1 << 32,
        )
    }

    /// What popularity, harm, pretraining, text views and pseudo-labels may be set to.
    fn check_objective(&self) -> Result<(), ConfigError> {
        let (train, release) = (&self.train, &self.release);
        let bounded = [
            (
                "train.popularity_correction",
                train.popularity_correction,
                2.0,
                "0 to 2",
            ),
            (
                "train.harm_penalty",
                train.harm_penalty,
                1000.0,
                "0 to 1000",
            ),
        ];
        for (key, actual, max, expected) in bounded {
            if !(0.0..=max).contains(&actual) {
                return Err(out_of_range(key, &actual, expected));
            }
        }
        let temperature = train.contrast_temperature;
        if !(0.01..=10.0).contains(&temperature) {
            let key = "train.contrast_temperature";
            return Err(out_of_range(key, &temperature, "0.01 to 10"));
        }
        let epochs = u64::from(train.contrast_epochs);
        in_range("train.contrast_epochs", epochs, 0..=1000)?;
        // Each view holds as much as all texts of the catalogue.
        in_range("train.text_views", u64::from(train.text_views), 1..=16)?;
        in_range(
            "release.pseudo_events_max",
            release.pseudo_events_max as u64, // widening
            1..=TIMELINE_LEN_MAX as u64,      // likewise
        )
    }

    fn check_import(&self) -> Result<(), ConfigError> {
        let import = &self.import;
        let columns = [
            ("import.user_column", &import.user_column),
            ("import.item_column", &import.item_column),
            ("import.quantity_column", &import.quantity_column),
            ("import.price_column", &import.price_column),
            ("import.time_column", &import.time_column),
        ];
        for (key, name) in columns {
            if name.is_empty() {
                return Err(out_of_range(key, &"empty", "the name of a column"));
            }
        }
        // A bare "*" would name every item.
        if import
            .fees
            .iter()
            .any(|fee| fee.trim_matches('*').is_empty())
        {
            let actual = format!("{:?}", import.fees);
            let expected = "names of items, or their beginnings and `*`";
            return Err(out_of_range("import.fees", &actual, expected));
        }
        let bounds = [
            ("import.price_min", import.price_min),
            ("import.quantity_max", import.quantity_max),
        ];
        for (key, actual) in bounds {
            if !(0.0..=1e12).contains(&actual) {
                return Err(out_of_range(key, &actual, "0 to 10^12"));
            }
        }
        Ok(())
    }

    fn check_text_tuning(&self) -> Result<(), ConfigError> {
        let tuning = &self.text_tuning;
        in_range("text_tuning.steps", u64::from(tuning.steps), 0..=1_000_000)?;
        if tuning.steps > 0 && self.model.text_encoder == TextEncoderChoice::Small {
            let expected = "0 while model.text_encoder is \"small\", which has no weights";
            return Err(out_of_range("text_tuning.steps", &tuning.steps, expected));
        }
        let rank_max = RANK_MAX as u64; // widens
        in_range("text_tuning.rank", u64::from(tuning.rank), 1..=rank_max)?;
        let rate = tuning.learning_rate;
        if !(rate > 0.0 && rate <= 10.0) {
            let expected = "above 0 and at most 10";
            return Err(out_of_range("text_tuning.learning_rate", &rate, expected));
        }
        if !(0.0..=2.0).contains(&tuning.move_min) {
            let actual = tuning.move_min;
            return Err(out_of_range("text_tuning.move_min", &actual, "0 to 2"));
        }
        Ok(())
    }

    fn check_shares(&self) -> Result<(), ConfigError> {
        let rates = [
            ("train.fast_learning_rate", self.train.fast_learning_rate),
            (
                "train.fast_bias_learning_rate",
                self.train.fast_bias_learning_rate,
            ),
            ("train.warm_learning_rate", self.train.warm_learning_rate),
            (
                "train.warm_row_learning_rate",
                self.train.warm_row_learning_rate,
            ),
            (
                "train.warm_bias_learning_rate",
                self.train.warm_bias_learning_rate,
            ),
            (
                "train.warm_prior_learning_rate",
                self.train.warm_prior_learning_rate,
            ),
            ("release.learning_rate", self.release.learning_rate),
        ];
        for (key, actual) in rates {
            if !(actual > 0.0 && actual <= 10.0) {
                return Err(out_of_range(key, &actual, "above 0 and at most 10"));
            }
        }
        let memory = self.train.shared_memory_events;
        in_range("train.shared_memory_events", memory, 100..=1_000_000_000)?;
        let (events, secs) = (self.release.trial_events, self.release.trial_secs_max);
        in_range("release.trial_events", events, 0..=1_000_000)?;
        in_range("release.trial_secs_max", secs, 1..=86_400)?;
        let cold_boost = self.train.fast_cold_boost;
        if !(0.0..=1000.0).contains(&cold_boost) {
            return Err(out_of_range(
                "train.fast_cold_boost",
                &cold_boost,
                "0 to 1000",
            ));
        }
        let shares = [
            ("train.id_dropout", self.train.id_dropout),
            ("train.weight_decay", self.train.weight_decay),
            ("train.augment_crop", self.train.augment_crop),
            ("train.augment_reorder", self.train.augment_reorder),
            ("release.pseudo_weight", self.release.pseudo_weight),
            (
                "release.pseudo_confidence_min",
                self.release.pseudo_confidence_min,
            ),
            ("release.recent_share", self.release.recent_share),
            ("release.refit_rate", self.release.refit_rate),
            ("gate.agreement_min", self.gate.agreement_min),
        ];
        for (key, actual) in shares {
            if !(0.0..=1.0).contains(&actual) {
                return Err(out_of_range(key, &actual, "0 to 1"));
            }
        }
        let proper_shares = [
            ("train.dropout", self.train.dropout),
            ("train.augment_mask", self.train.augment_mask),
            ("train.text_drop", self.train.text_drop),
            ("release.averaging", self.release.averaging),
            ("release.refit_blend", self.release.refit_blend),
            ("release.soup_share", self.release.soup_share),
        ];
        for (key, actual) in proper_shares {
            if !(0.0..1.0).contains(&actual) {
                return Err(out_of_range(key, &actual, "0 or more and below 1"));
            }
        }
        let factors = [
            ("train.adversarial_epsilon", self.train.adversarial_epsilon),
            ("release.projection_rate", self.release.projection_rate),
            (
                "release.refit_skipped_share",
                self.release.refit_skipped_share,
            ),
            ("release.sequence_rate", self.release.sequence_rate),
            ("release.heads_rate", self.release.heads_rate),
            ("release.l2_sp", self.release.l2_sp),
            ("release.ewc", self.release.ewc),
            ("release.distillation", self.release.distillation),
        ];
        for (key, actual) in factors {
            if !(0.0..=1e6).contains(&actual) {
                return Err(out_of_range(key, &actual, "0 to 1000000"));
            }
        }
        if !(0.5..=16.0).contains(&self.publish.dead_zone) {
            return Err(out_of_range(
                "publish.dead_zone",
                &self.publish.dead_zone,
                "0.5 to 16",
            ));
        }
        let gate = &self.gate;
        let rises = [
            ("gate.log_loss_rise_max", gate.log_loss_rise_max),
            ("gate.earlier_rise_max", gate.earlier_rise_max),
            ("gate.trial_rise_max", gate.trial_rise_max),
        ];
        for (key, actual) in rises {
            if !(actual.is_finite() && actual >= 0.0) {
                return Err(out_of_range(key, &actual, "0 or more"));
            }
        }
        if !(0.0..1.0).contains(&gate.watch_margin) {
            let actual = gate.watch_margin;
            return Err(out_of_range(
                "gate.watch_margin",
                &actual,
                "0 or more and below 1",
            ));
        }
        if !(1e-12..=0.1).contains(&gate.watch_alpha) {
            let actual = gate.watch_alpha;
            return Err(out_of_range("gate.watch_alpha", &actual, "1e-12 to 0.1"));
        }
        in_range("gate.watch_events", gate.watch_events, 100..=1 << 40)?;
        let weights =
            shared_model::event::EventKind::ALL.map(|kind| self.labels.next_item_weight.of(kind));
        match weights
            .iter()
            .find(|weight| !(0.0..=100.0).contains(*weight))
        {
            Some(weight) => Err(out_of_range("labels.next_item_weight", weight, "0 to 100")),
            None => Ok(()),
        }
    }
}

fn in_range(key: &'static str, actual: u64, range: RangeInclusive<u64>) -> Result<(), ConfigError> {
    if range.contains(&actual) {
        return Ok(());
    }
    Err(out_of_range(
        key,
        &actual,
        &format!("{} to {}", range.start(), range.end()),
    ))
}

fn out_of_range(key: &'static str, actual: &dyn std::fmt::Display, expected: &str) -> ConfigError {
    ConfigError::Range {
        key,
        actual: actual.to_string(),
        expected: expected.to_owned(),
    }
}

fn model_key(field: &'static str) -> &'static str {
    match field {
        "embedding_dim" => "model.embedding_dim",
        "feature_dim" => "model.feature_dim",
        "history_len" => "model.history_len",
        "num_layers" => "model.num_layers",
        "num_heads" => "model.num_heads",
        "ff_dim" => "model.ff_dim",
        "num_neighbours" => "model.num_neighbours",
        "adapter_dim" => "model.adapter_dim",
        "half_lives_secs" => "model.half_lives_secs",
        "id_code_bits" => "model.id_code_bits",
        "text_code_bits" => "model.text_code_bits",
        "matrix_code_bits" => "model.matrix_code_bits",
        other => other,
    }
}
