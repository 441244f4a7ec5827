//! Hyper-parameter search: a budget of trials on the validation stretch, resumable, deterministic by its seed.
//!
//! The first trial is the defaults, the next ones and later every other one are drawn at random (Bergstra & Bengio
//! 2012), the rest are random changes of the best so far. A proposal follows from the seed and the outcomes before it alone, and outcomes
//! lie in the study's folder, so a search that was stopped proposes the same again and goes on.
//!
//! ```toml
//! "train.fast_learning_rate" = { low = 0.001, high = 0.1, log = true }
//! "release.steps" = { low = 20, high = 200, whole = true }
//! "release.strategy" = { choices = ["full", "lora"] }
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;

use super::StudyError;
use super::settings::{Settings, written};
use super::stream::Published;
use super::trial::Study;

/// Trials that are drawn without looking at outcomes; after them every other one is.
const NUM_RANDOM: usize = 8;
/// Reach of a change, as a share of a range.
const CHANGE: f64 = 0.2;
/// Chance that a key changes at all.
const CHANGE_CHANCE: f64 = 0.5;
/// Most keys of a space.
const NUM_KEYS_MAX: usize = 100;

/// What may be tried, by key.
pub type Space = BTreeMap<String, Axis>;

/// Values of one key.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Axis {
    /// One of a list.
    Choices {
        /// The list.
        choices: Vec<toml::Value>,
    },
    /// A number within bounds.
    Range {
        /// The least.
        low: f64,
        /// The greatest.
        high: f64,
        /// Whether it is drawn evenly by its logarithm.
        #[serde(default)]
        log: bool,
        /// Whether it is a whole number.
        #[serde(default)]
        whole: bool,
    },
}

/// A trial of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// What was set.
    pub settings: Settings,
    /// NDCG@10 on the validation stretch, items new to the user; `None` where the trial failed.
    pub ndcg_at_10: Option<f64>,
    /// Why it failed.
    pub why: Option<String>,
}

/// Reads a space.
///
/// # Errors
/// The file cannot be read or understood, or an axis holds no value.
pub fn read_space(path: &Path) -> Result<Space, StudyError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| StudyError::file(path, format!("cannot be read: {error}")))?;
    let space: Space = toml::from_str(&text)
        .map_err(|error| StudyError::file(path, format!("cannot be read: {error}")))?;
    if !(1..=NUM_KEYS_MAX).contains(&space.len()) {
        let reason = format!(
            "it names {} keys, expected 1 to {NUM_KEYS_MAX}",
            space.len()
        );
        return Err(StudyError::file(path, reason));
    }
    for (key, axis) in &space {
        let wrong = match axis {
            Axis::Choices { choices } if choices.is_empty() => Some("choices is empty".to_owned()),
            Axis::Range {
                low,
                high,
                log,
                whole,
            } => {
                let is_range = low.is_finite() && high.is_finite() && low < high;
                let is_positive = !log || *low > 0.0;
                let is_whole = !whole || (low.fract() == 0.0 && high.fract() == 0.0);
                (!(is_range && is_positive && is_whole)).then(|| {
                    format!(
                        "low is {low} and high is {high}, expected low < high, above 0 where log, whole where whole"
                    )
                })
            }
            Axis::Choices { .. } => None,
        };
        if let Some(wrong) = wrong {
            return Err(StudyError::file(path, format!("`{key}`: {wrong}")));
        }
    }
    Ok(space)
}

impl Axis {
    /// The value at `place` of 0 to 1.
    fn at(&self, place: f64) -> String {
        match self {
            Self::Choices { choices } => {
                let idx = (place * choices.len() as f64) as usize; // place is below 1, but for rounding
                written(&choices[idx.min(choices.len() - 1)])
            }
            Self::Range {
                low,
                high,
                log,
                whole,
            } => {
                let value = if *log {
                    (low.ln() + place * (high.ln() - low.ln())).exp()
                } else {
                    low + place * (high - low)
                };
                if *whole {
                    format!("{:.0}", value.round().clamp(*low, *high))
                } else {
                    format!("{value:.6e}")
                }
            }
        }
    }
}

/// Places of all keys in their axes.
type Places = BTreeMap<String, f64>;

fn settings_at(space: &Space, places: &Places) -> Settings {
    let axes = space.iter();
    axes.map(|(key, axis)| (key.clone(), axis.at(places[key])))
        .collect()
}

fn drawn(space: &Space, rng: &mut StdRng) -> Places {
    let keys = space.keys();
    keys.map(|key| (key.clone(), rng.random::<f64>())).collect()
}

/// Some keys elsewhere, at least one.
fn changed(places: &Places, rng: &mut StdRng) -> Places {
    let sure = rng.random_range(0..places.len());
    let keys = places.iter().enumerate();
    keys.map(|(idx, (key, place))| {
        let moves = idx == sure || rng.random::<f64>() < CHANGE_CHANCE;
        let by = CHANGE * (2.0 * rng.random::<f64>() - 1.0);
        let place = if moves {
            (place + by).clamp(0.0, 1.0)
        } else {
            *place
        };
        (key.clone(), place)
    })
    .collect()
}

/// Tries `budget` settings, the defaults first, and returns all of them in order; `score` says how good one is.
///
/// # Errors
/// What `score` refuses to go on after.
pub fn search(
    space: &Space,
    budget: usize,
    seed: u64,
    mut score: impl FnMut(usize, &Settings) -> Result<Tried, StudyError>,
) -> Result<Vec<Tried>, StudyError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut tried = Vec::new();
    let mut best: Option<(f64, Places)> = None;
    for trial_idx in 0..budget {
        let places = match &best {
            Some((_, places)) if trial_idx > NUM_RANDOM && trial_idx % 2 == 0 => {
                changed(places, &mut rng)
            }
            _ => drawn(space, &mut rng),
        };
        let settings = if trial_idx == 0 {
            Settings::new()
        } else {
            settings_at(space, &places)
        };
        let one = score(trial_idx, &settings)?;
        let is_better = |score: f64| best.as_ref().is_none_or(|(before, _)| score > *before);
        // Defaults have no place in the space, so nothing can start from them.
        if let Some(score) = one
            .ndcg_at_10
            .filter(|score| trial_idx > 0 && is_better(*score))
        {
            best = Some((score, places));
        }
        tried.push(one);
    }
    Ok(tried)
}

/// The best of them.
#[must_use]
pub fn best(tried: &[Tried]) -> Option<&Tried> {
    let scored = tried.iter().filter(|one| one.ndcg_at_10.is_some());
    scored.max_by(|a, b| {
        let score = |one: &Tried| one.ndcg_at_10.unwrap_or(f64::NEG_INFINITY);
        score(a).total_cmp(&score(b))
    })
}

/// Checks that both ends of every axis, and every choice, are valid settings, before hours are spent.
///
/// # Errors
/// Names the key and what is wrong with it.
pub fn check_space(study: &Study, space: &Space) -> Result<(), StudyError> {
    for (key, axis) in space {
        let values = match axis {
            Axis::Choices { choices } => choices.iter().map(written).collect(),
            Axis::Range { .. } => vec![axis.at(0.0), axis.at(1.0)],
        };
        for value in values {
            study.check(key, &Settings::from([(key.clone(), value)]))?;
        }
    }
    Ok(())
}

/// Runs one trial of a study; a trial that fails is a result, and the search goes on.
///
/// # Errors
/// A file of the study.
pub fn try_settings(study: &Study, name: &str, settings: &Settings) -> Result<Tried, StudyError> {
    let (ndcg_at_10, why) = match study.run(name, settings, Published::Codes) {
        Ok(outcome) => {
            let figures = study.figures(&outcome);
            (figures.and_then(|all| all.headline.ndcg_at_10), None)
        }
        Err(error @ (StudyError::File { .. } | StudyError::Config { .. })) => return Err(error),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Tried {
        settings: settings.clone(),
        ndcg_at_10,
        why,
    })
}

/// Settings as a configuration file.
#[must_use]
pub fn as_toml(settings: &Settings) -> String {
    let mut sections: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, value) in settings {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let is_bare = value.parse::<f64>().is_ok() || value == "true" || value == "false";
        let is_list = value.starts_with('[');
        let value = if is_bare || is_list {
            value.clone()
        } else {
            format!("{value:?}")
        };
        let lines = sections.entry(section).or_default();
        lines.push(format!("{name} = {value}"));
    }
    let sections = sections.into_iter();
    let texts = sections.map(|(section, lines)| format!("[{section}]\n{}\n", lines.join("\n")));
    texts.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        toml::from_str(
            "\"train.fast_learning_rate\" = { low = 0.001, high = 0.1, log = true }\n\
             \"release.steps\" = { low = 20, high = 200, whole = true }\n\
             \"release.strategy\" = { choices = [\"full\", \"lora\"] }\n",
        )
        .expect("a space")
    }

    /// Best at a rate of 0.01 and with "lora".
    fn score(_: usize, settings: &Settings) -> Result<Tried, StudyError> {
        let rate = settings.get("train.fast_learning_rate");
        let rate: f64 = rate.map_or(0.1, |rate| rate.parse().expect("a number"));
        let is_lora = settings
            .get("release.strategy")
            .is_some_and(|kind| kind == "lora");
        Ok(Tried {
            settings: settings.clone(),
            ndcg_at_10: Some(f64::from(u8::from(is_lora)) - (rate / 0.01).ln().abs()),
            why: None,
        })
    }

    #[test]
    fn it_finds_what_is_good_and_the_seed_decides() {
        let tried = search(&space(), 60, 1, score).expect("scores");
        assert_eq!(tried[0].settings, Settings::new(), "the defaults first");
        let best = best(&tried).expect("a best");
        assert_eq!(best.settings["release.strategy"], "lora");
        let rate: f64 = best.settings["train.fast_learning_rate"]
            .parse()
            .expect("a number");
        assert!((0.008..0.0125).contains(&rate), "{rate}");
        assert_eq!(search(&space(), 60, 1, score).expect("scores"), tried);
        assert_ne!(search(&space(), 60, 2, score).expect("scores"), tried);
        let steps = tried[1..].iter().map(|one| &one.settings["release.steps"]);
        assert!(steps.into_iter().all(|steps| {
            let steps: u32 = steps.parse().expect("a whole number");
            (20..=200).contains(&steps)
        }));
    }

    #[test]
    fn a_larger_budget_goes_on_where_a_smaller_one_ended() {
        let small = search(&space(), 20, 1, score).expect("scores");
        let large = search(&space(), 40, 1, score).expect("scores");
        assert_eq!(large[..20], small);
    }

    #[test]
    fn a_failed_trial_is_no_best() {
        let failed = |idx: usize, settings: &Settings| {
            let mut tried = score(idx, settings)?;
            if idx % 2 == 0 {
                tried.ndcg_at_10 = None;
            }
            Ok(tried)
        };
        let tried = search(&space(), 20, 1, failed).expect("scores");
        assert!(best(&tried).expect("a best").ndcg_at_10.is_some());
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn the_best_is_written_as_a_configuration_that_loads() {
        let tried = search(&space(), 5, 1, score).expect("scores");
        let text = as_toml(&tried[4].settings);
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("best.toml");
        std::fs::write(&path, text).expect("writable");
        let sources = crate::config::load::Sources {
            file: Some(&path),
            ..Default::default()
        };
        let config = crate::config::load::load(&sources).expect("it loads");
        let steps = &tried[4].settings["release.steps"];
        assert_eq!(&config.release.steps.to_string(), steps);
    }

    #[test]
    fn a_bad_space_is_refused_by_key() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("space.toml");
        for text in [
            "\"train.seed\" = { low = 3, high = 1 }",
            "\"train.seed\" = { low = 0, high = 1, log = true }",
            "\"train.seed\" = { choices = [] }",
        ] {
            std::fs::write(&path, text).expect("writable");
            let error = read_space(&path).expect_err("refused").to_string();
            assert!(error.contains("`train.seed`"), "{error}");
        }
    }
}
