//! Spend: what private rounds have cost so far, in `privacy.json`, and whether a data folder is private at all.
//!
//! A round is added, and the file is on the disk, before the first of its steps draws any noise: what was begun counts
//! as spent, whether or not a version came of it. A folder is private from its first version on or not at all, since
//! what one version has told cannot be taken back: [`Spend::open`] refuses to make a private folder of another one, or
//! to go on without privacy in a private one.
//!
//! A restored backup does not know of rounds after it. [`mark_restored`] leaves a note, and the next start adds one
//! round for each `interval_secs` since the last one that the backup knows, as many as can have been.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::accountant::{Mechanism, epsilon};
use crate::config::PrivacyConfig;
use crate::publish::files::{sync_dir, write_whole};

/// Name of the file in the data folder.
pub const FILE_NAME: &str = "privacy.json";
/// Name of the note that the folder comes from a backup.
const RESTORED_NAME: &str = "privacy.restored";
/// Layout of the file.
const FORMAT: u32 = 1;
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most pairs of noise and sampling rate that are kept apart.
const MECHANISMS_MAX: usize = 1000;

/// Why the spend could not be read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum SpendError {
    /// The file system failed.
    #[error("{action} failed: {source}, {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
        /// On which file.
        path: PathBuf,
    },
    /// The file is not as it was written. It is never made anew: it is all that is known of what was spent.
    #[error("what private training has spent cannot be read: {reason}, {}", path.display())]
    Malformed {
        /// What is wrong, with the field.
        reason: String,
        /// The file.
        path: PathBuf,
    },
    /// Versions were published that no noise protects.
    #[error(
        "privacy.enabled is true, but the versions in data_dir were made without it, for there is no {FILE_NAME}; start with a new data_dir"
    )]
    NotPrivate,
    /// Versions were published under a guarantee that the next one would break.
    #[error(
        "privacy.enabled is false, but the versions in data_dir were made with it; set it to true, start with a new \
         data_dir, or remove {FILE_NAME} there, which ends the guarantee for good"
    )]
    IsPrivate,
    /// Settings were changed too often.
    #[error(
        "{MECHANISMS_MAX} pairs of privacy.noise_multiplier and privacy.sampling_rate were used, no more are kept"
    )]
    TooMany,
}

/// What was spent; every change is on the disk before it is here.
#[derive(Debug, Clone, PartialEq)]
pub struct Spend {
    path: PathBuf,
    kept: Kept,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: u32,
    spent: Vec<Spent>,
    num_rounds: u64,
    /// When the last round was begun, in milliseconds since 1970-01-01 UTC.
    last_round_at: Option<i64>,
    /// Events of the log that it had before it.
    last_round_events: u64,
}

/// Steps of one mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spent {
    mechanism: Mechanism,
    steps: u64,
}

impl Spend {
    /// Opens the spend of a data folder; `None` where privacy is off there. `has_versions`: whether anything was
    /// published from it.
    ///
    /// # Errors
    /// The folder is not what the configuration says, or the file cannot be read or written.
    pub fn open(
        data_dir: &Path,
        config: &PrivacyConfig,
        has_versions: bool,
        now_millis: i64,
    ) -> Result<Option<Self>, SpendError> {
        let path = data_dir.join(FILE_NAME);
        let known = read(&path)?;
        let mut spend = match (known, config.enabled) {
            (None, false) => return Ok(None),
            (Some(_), false) => return Err(SpendError::IsPrivate),
            (None, true) if has_versions => return Err(SpendError::NotPrivate),
            (None, true) => {
                let kept = Kept {
                    format: FORMAT,
                    ..Kept::default()
                };
                let spend = Self { path, kept };
                spend.write(&spend.kept)?; // before the first version
                spend
            }
            (Some(kept), true) => Self { path, kept },
        };
        spend.charge_restored(config, now_millis)?;
        Ok(Some(spend))
    }

    /// Adds a round of `config`, begun at `now_millis` over so many events.
    ///
    /// # Errors
    /// It could not be written; then the round must not begin.
    pub fn begin_round(
        &mut self,
        config: &PrivacyConfig,
        now_millis: i64,
        num_events: u64,
    ) -> Result<(), SpendError> {
        let mut next = self.kept.clone();
        next.add_rounds(config, 1)?;
        next.last_round_at = Some(now_millis);
        next.last_round_events = num_events;
        self.write(&next)?;
        self.kept = next;
        Ok(())
    }

    /// ε of all rounds so far, at `config.delta`.
    #[must_use]
    pub fn epsilon(&self, config: &PrivacyConfig) -> f64 {
        self.kept.epsilon(config)
    }

    /// Whether one more round would exceed `config.epsilon_max`.
    #[must_use]
    pub fn is_exhausted(&self, config: &PrivacyConfig) -> bool {
        let mut next = self.kept.clone();
        next.add_rounds(config, 1).is_err() || next.epsilon(config) > config.epsilon_max
    }

    /// Rounds begun.
    #[must_use]
    pub fn num_rounds(&self) -> u64 {
        self.kept.num_rounds
    }

    /// Steps of all rounds begun.
    #[must_use]
    pub fn num_steps(&self) -> u64 {
        self.kept.spent.iter().map(|spent| spent.steps).sum()
    }

    /// When the last round was begun and how many events the log had; `None` before the first.
    #[must_use]
    pub fn last_round(&self) -> Option<(i64, u64)> {
        let at = self.kept.last_round_at?;
        Some((at, self.kept.last_round_events))
    }

    /// Adds what can have been spent between a backup and its restoration.
    fn charge_restored(&mut self, config: &PrivacyConfig, now: i64) -> Result<(), SpendError> {
        let Some(dir) = self.path.parent() else {
            return Ok(()); // a file always has one
        };
        let note = dir.join(RESTORED_NAME);
        if !note.exists() {
            return Ok(());
        }
        let secs = self
            .kept
            .last_round_at
            .map_or(0, |at| now.abs_diff(at) / 1000);
        let num_rounds = 1 + secs / config.interval_secs;
        let mut next = self.kept.clone();
        next.add_rounds(config, num_rounds)?;
        self.write(&next)?;
        self.kept = next;
        tracing::warn!(
            num_rounds,
            "restored from a backup: rounds that may have been since count as spent"
        );
        let io = |source| SpendError::Io {
            action: "removing the note of a restoration",
            source,
            path: note.clone(),
        };
        fs::remove_file(&note).map_err(io)?;
        sync_dir(dir).map_err(io)
    }

    fn write(&self, kept: &Kept) -> Result<(), SpendError> {
        let bytes = serde_json::to_vec_pretty(kept).expect("plain values always serialize");
        let dir = self.path.parent().unwrap_or(Path::new("."));
        write_whole(dir, FILE_NAME, &bytes).map_err(|source| SpendError::Io {
            action: "writing what private training has spent",
            source,
            path: self.path.clone(),
        })
    }
}

impl Kept {
    fn add_rounds(&mut self, config: &PrivacyConfig, num_rounds: u64) -> Result<(), SpendError> {
        let mechanism = config.mechanism();
        let steps = num_rounds.saturating_mul(u64::from(config.steps));
        let is_full = self.spent.len() >= MECHANISMS_MAX;
        let known = self
            .spent
            .iter_mut()
            .find(|spent| spent.mechanism == mechanism);
        match known {
            Some(spent) => spent.steps = spent.steps.saturating_add(steps),
            None if is_full => return Err(SpendError::TooMany),
            None => self.spent.push(Spent { mechanism, steps }),
        }
        self.num_rounds = self.num_rounds.saturating_add(num_rounds);
        Ok(())
    }

    fn epsilon(&self, config: &PrivacyConfig) -> f64 {
        let steps = self
            .spent
            .iter()
            .map(|spent| (spent.mechanism, spent.steps));
        epsilon(steps, config.delta)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!(
                "format is {}, this build reads {FORMAT}",
                self.format
            ));
        }
        if self.spent.len() > MECHANISMS_MAX {
            return Err(format!(
                "spent has {} entries, at most {MECHANISMS_MAX}",
                self.spent.len()
            ));
        }
        for Spent { mechanism, .. } in &self.spent {
            let (sigma, q) = (mechanism.noise_multiplier, mechanism.sampling_rate);
            if !(sigma > 0.0 && sigma.is_finite()) {
                return Err(format!("noise_multiplier is {sigma}, expected above 0"));
            }
            if !(q > 0.0 && q <= 1.0) {
                return Err(format!(
                    "sampling_rate is {q}, expected above 0 and at most 1"
                ));
            }
        }
        Ok(())
    }
}

/// Notes in a restored folder that its spend may be older than what pages have seen; nothing where there is none.
///
/// # Errors
/// The note cannot be written.
pub fn mark_restored(data_dir: &Path) -> io::Result<()> {
    if !data_dir.join(FILE_NAME).exists() {
        return Ok(());
    }
    write_whole(data_dir, RESTORED_NAME, b"restored from a backup\n")
}

fn read(path: &Path) -> Result<Option<Kept>, SpendError> {
    let io = |source| SpendError::Io {
        action: "reading what private training has spent",
        source,
        path: path.to_owned(),
    };
    let malformed = |reason: String| SpendError::Malformed {
        reason,
        path: path.to_owned(),
    };
    let bytes = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
        Ok(file) if file.len() > FILE_BYTES_MAX => {
            let reason = format!("{} bytes, at most {FILE_BYTES_MAX} are read", file.len());
            return Err(malformed(reason));
        }
        Ok(_) => fs::read(path).map_err(io)?,
    };
    let kept: Kept =
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    kept.check().map_err(malformed)?;
    Ok(Some(kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const DAY_MILLIS: i64 = 86_400_000;

    fn config() -> PrivacyConfig {
        PrivacyConfig {
            enabled: true,
            noise_multiplier: 4.0,
            sampling_rate: 0.2,
            steps: 100,
            interval_secs: 86_400,
            delta: 1e-6,
            epsilon_max: 5.0,
            ..Config::default().privacy
        }
    }

    fn open(dir: &Path, has_versions: bool, now: i64) -> Result<Option<Spend>, SpendError> {
        Spend::open(dir, &config(), has_versions, now)
    }

    #[test]
    fn what_was_begun_is_known_after_a_restart_and_the_budget_ends() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut spend = open(dir.path(), false, 0)
            .expect("writable")
            .expect("private");
        assert_eq!(spend.epsilon(&config()), 0.0);
        assert_eq!(spend.last_round(), None);
        let mut before = 0.0;
        while !spend.is_exhausted(&config()) {
            spend.begin_round(&config(), 7, 11).expect("written");
            assert!(spend.epsilon(&config()) > before && spend.epsilon(&config()) <= 5.0);
            before = spend.epsilon(&config());
        }
        assert_eq!(
            spend.num_rounds(),
            3,
            "4.64 after three rounds, 5.5 after four"
        );
        let again = open(dir.path(), true, 0)
            .expect("readable")
            .expect("private");
        assert_eq!(again, spend);
        assert_eq!(again.last_round(), Some((7, 11)));
        assert_eq!(again.num_steps(), 300);
    }

    #[test]
    fn a_folder_is_private_from_its_first_version_on_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a folder");
        let off = PrivacyConfig {
            enabled: false,
            ..config()
        };
        assert_eq!(
            Spend::open(dir.path(), &off, true, 0).expect("nothing"),
            None
        );
        let refused = open(dir.path(), true, 0).expect_err("versions without noise");
        assert!(matches!(refused, SpendError::NotPrivate));
        assert!(refused.to_string().contains("privacy.enabled is true"));
        open(dir.path(), false, 0).expect("no version yet");
        let refused = Spend::open(dir.path(), &off, true, 0).expect_err("private versions");
        assert!(matches!(refused, SpendError::IsPrivate));
    }

    #[test]
    fn a_file_that_was_cut_or_changed_is_no_empty_spend() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(FILE_NAME);
        let mut spend = open(dir.path(), false, 0)
            .expect("writable")
            .expect("private");
        spend.begin_round(&config(), 0, 0).expect("written");
        let whole = fs::read_to_string(&path).expect("readable");
        for damaged in [
            whole[..whole.len() / 2].to_owned(),
            whole.replace("\"format\": 1", "\"format\": 9"),
            whole.replace("4.0", "0.0"),
            whole.replace("0.2", "1.5"),
            String::new(),
        ] {
            fs::write(&path, &damaged).expect("written");
            let refused = open(dir.path(), true, 0).expect_err("damaged");
            assert!(
                matches!(refused, SpendError::Malformed { .. }),
                "{damaged}: {refused}"
            );
        }
    }

    #[test]
    fn a_restored_folder_pays_for_the_rounds_that_can_have_been_since() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut spend = open(dir.path(), false, 0)
            .expect("writable")
            .expect("private");
        spend
            .begin_round(&config(), DAY_MILLIS, 5)
            .expect("written");
        mark_restored(dir.path()).expect("written");
        let now = 4 * DAY_MILLIS + 1;
        let restored = open(dir.path(), true, now)
            .expect("readable")
            .expect("private");
        assert_eq!(
            restored.num_rounds(),
            1 + 4,
            "days 2, 3 and 4, and one that may be under way"
        );
        let again = open(dir.path(), true, now)
            .expect("readable")
            .expect("private");
        assert_eq!(again, restored, "once");
    }
}
