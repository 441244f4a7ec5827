//! Which experiments there are, in `experiments.json`: every change is on disk before it is in memory.
//!
//! A stopped experiment stays in the list, so that its results can be read for as long as the log has them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use shared_model::event::Event;
use shared_model::ids::LogOffset;

use super::assign::SHARE_SUM_MAX;
use super::{Design, Experiment, ExperimentFault, NewExperiment, Phase, Stop, check_shares};
use crate::publish::files::write_whole;

/// Name of the file in the data folder.
pub const FILE_NAME: &str = "experiments.json";
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Experiments that are kept, running or not.
const EXPERIMENTS_MAX: usize = 1000;
/// Changes of shares of one experiment.
const PHASES_MAX: usize = 100;

/// Why an experiment was not begun or changed.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// A field is wrong.
    #[error(transparent)]
    Fault(#[from] ExperimentFault),
    /// There is none of that name.
    #[error("there is no experiment {0:?}")]
    Unknown(String),
    /// It does not fit what there is.
    #[error("{0}")]
    Conflict(String),
    /// The file cannot be read or written; nothing has changed.
    #[error("{action} failed: {source}, {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
        /// The file.
        path: PathBuf,
    },
}

/// Handle of the list; clones share it.
#[derive(Debug, Clone)]
pub struct Experiments {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// One change at a time.
    changing: Mutex<()>,
    kept: RwLock<Arc<Kept>>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// In the order in which they began.
    experiments: Vec<Arc<Experiment>>,
}

impl Experiments {
    /// Reads the list in `data_dir`; empty where there is none.
    ///
    /// # Errors
    /// The file cannot be read: going on without it would mix up users.
    pub fn open(data_dir: &Path) -> Result<Self, ExperimentError> {
        let path = data_dir.join(FILE_NAME);
        let kept = read(&path).map_err(|source| ExperimentError::Io {
            action: "reading the experiments",
            source,
            path,
        })?;
        let shared = Shared {
            dir: data_dir.to_owned(),
            changing: Mutex::new(()),
            kept: RwLock::new(Arc::new(kept)),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// All, in the order in which they began.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Experiment>> {
        self.kept().experiments.clone()
    }

    /// The one of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(&self, name: &str) -> Result<Arc<Experiment>, ExperimentError> {
        let kept = self.kept();
        let found = kept.experiments.iter().find(|one| one.asked.name == name);
        let unknown = || ExperimentError::Unknown(name.to_owned());
        found.cloned().ok_or_else(unknown)
    }

    /// Of an impression with an arm that is taken in at `offset`: the phase in which its experiment gives that arm to its
    /// user; `None` for any other event, or where it never does.
    #[must_use]
    pub fn phase_of(&self, event: &Event, offset: LogOffset) -> Option<u32> {
        let arm = event.arm.as_ref().filter(|_| !event.kind.is_history())?;
        let (name, arm_name) = arm.as_str().split_once('/')?;
        let experiment = self.named(name).ok()?; // one that is not known gives no arm
        let arms = &experiment.asked.arms;
        let arm_idx = arms.iter().position(|arm| arm.name == arm_name)?;
        let phase_idx = experiment.phase_with(offset, event.user_id.as_str(), arm_idx)?;
        u32::try_from(phase_idx).ok() // phases are few
    }

    /// The one that runs at a place.
    #[must_use]
    pub fn at(&self, place: &str) -> Option<Arc<Experiment>> {
        let kept = self.kept();
        let mut running = kept.experiments.iter().filter(|one| one.stopped.is_none());
        running.find(|one| one.asked.place == place).cloned()
    }

    /// Begins an experiment at the log's end.
    ///
    /// # Errors
    /// It is not sound, its name or place is taken, there are too many, or the disk failed.
    pub fn begin(
        &self,
        asked: NewExperiment,
        end: LogOffset,
        now_millis: i64,
    ) -> Result<Arc<Experiment>, ExperimentError> {
        asked.check()?;
        let shares = asked.shares();
        let phases = vec![Phase {
            from: end,
            since: now_millis,
            shares,
        }];
        let begun = Arc::new(Experiment {
            asked,
            phases,
            stopped: None,
        });
        let _changing = self.changing();
        let mut kept = Kept::clone(&self.kept());
        let NewExperiment { name, place, .. } = &begun.asked;
        let conflict = if kept.experiments.len() >= EXPERIMENTS_MAX {
            Some(format!("{EXPERIMENTS_MAX} experiments are kept already"))
        } else if kept.experiments.iter().any(|one| one.asked.name == *name) {
            Some(format!("there is an experiment {name:?} already"))
        } else {
            let other = self.at(place);
            other.map(|other| format!("{:?} runs at {place:?}, stop it first", other.asked.name))
        };
        if let Some(conflict) = conflict {
            return Err(ExperimentError::Conflict(conflict));
        }
        kept.experiments.push(Arc::clone(&begun));
        self.keep(kept)?;
        Ok(begun)
    }

    /// Changes the shares of a running split from the log's end on.
    ///
    /// # Errors
    /// It does not run, is interleaved, the shares do not fit its arms, or the disk failed.
    pub fn share(
        &self,
        name: &str,
        shares: Vec<u32>,
        end: LogOffset,
        now_millis: i64,
    ) -> Result<Arc<Experiment>, ExperimentError> {
        self.change(name, |experiment| {
            if experiment.asked.design == Design::Interleave {
                let detail = "interleaved lists have no shares";
                return Err(ExperimentError::Conflict(detail.to_owned()));
            }
            check_shares(&shares)?;
            let num_arms = experiment.asked.arms.len();
            if shares.len() != num_arms || experiment.phases.len() >= PHASES_MAX {
                let detail = format!(
                    "expected {num_arms} shares and fewer than {PHASES_MAX} changes, found {} and {}",
                    shares.len(),
                    experiment.phases.len() - 1
                );
                return Err(ExperimentError::Conflict(detail));
            }
            check_change(experiment, &shares)?;
            for (arm, share) in experiment.asked.arms.iter_mut().zip(&shares) {
                arm.share = *share;
            }
            experiment.phases.push(Phase {
                from: end,
                since: now_millis,
                shares,
            });
            Ok(())
        })
    }

    /// Ends an experiment at the log's end.
    ///
    /// # Errors
    /// It does not run, or the disk failed.
    pub fn stop(
        &self,
        name: &str,
        end: LogOffset,
        now_millis: i64,
    ) -> Result<Arc<Experiment>, ExperimentError> {
        self.change(name, |experiment| {
            experiment.stopped = Some(Stop {
                through: end,
                at: now_millis,
            });
            Ok(())
        })
    }

    fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut Experiment) -> Result<(), ExperimentError>,
    ) -> Result<Arc<Experiment>, ExperimentError> {
        let _changing = self.changing();
        let mut experiment = Experiment::clone(&*self.named(name)?);
        if experiment.stopped.is_some() {
            return Err(ExperimentError::Conflict(format!("{name:?} is stopped")));
        }
        change(&mut experiment)?;
        let changed = Arc::new(experiment);
        let mut kept = Kept::clone(&self.kept());
        for one in &mut kept.experiments {
            if one.asked.name == name {
                *one = Arc::clone(&changed);
            }
        }
        self.keep(kept)?;
        Ok(changed)
    }

    fn keep(&self, kept: Kept) -> Result<(), ExperimentError> {
        let bytes = serde_json::to_vec(&kept).expect("plain values always serialize");
        let dir = &self.shared.dir;
        write_whole(dir, FILE_NAME, &bytes).map_err(|source| ExperimentError::Io {
            action: "writing the experiments",
            source,
            path: dir.join(FILE_NAME),
        })?;
        let swapped = &self.shared.kept;
        *swapped.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(kept);
        Ok(())
    }

    fn kept(&self) -> Arc<Kept> {
        let kept = self.shared.kept.read();
        Arc::clone(&kept.unwrap_or_else(PoisonError::into_inner))
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        let changing = self.shared.changing.lock();
        changing.unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> io::Result<Kept> {
    let bytes = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(error),
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            let message = format!("{} bytes, at most {FILE_BYTES_MAX} are read", found.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(_) => fs::read(path)?,
    };
    let kept: Kept = serde_json::from_slice(&bytes)?;
    for experiment in &kept.experiments {
        let is_whole = |phase: &Phase| phase.shares.len() == experiment.asked.arms.len();
        let is_sound = experiment.asked.check().is_ok() && !experiment.phases.is_empty();
        if !is_sound || !experiment.phases.iter().all(is_whole) {
            let message = format!("experiment {:?} is damaged", experiment.asked.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
    Ok(kept)
}

/// Users whom the shares left over come again, and enter by a hash that is known to have missed: they are spread as the
/// new shares say only where those have the ratio of the old ones, or where nobody was left over.
fn check_change(experiment: &Experiment, shares: &[u32]) -> Result<(), ExperimentError> {
    let sum = |phase: &Phase| phase.shares.iter().sum::<u32>();
    let has_left_over = experiment
        .phases
        .iter()
        .any(|phase| sum(phase) < SHARE_SUM_MAX);
    let now = experiment.shares();
    let is_scaled = shares
        .iter()
        .zip(now)
        .all(|(new, old)| new * now[0] == old * shares[0]);
    if has_left_over && !is_scaled {
        let detail = "users without an arm have come already: keep the ratio of the shares, or begin another experiment";
        return Err(ExperimentError::Conflict(detail.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(name: &str, place: &str) -> NewExperiment {
        let asked = json!({ "name": name, "place": place, "arms": [
            { "name": "a", "share": 10, "strategy": "model" },
            { "name": "b", "share": 10, "strategy": "popularity" },
        ]});
        serde_json::from_value(asked).expect("sound")
    }

    #[test]
    fn what_was_begun_shared_out_anew_and_stopped_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("temp dir");
        let experiments = Experiments::open(dir.path()).expect("nothing there yet");
        let begin = |name, place| experiments.begin(asked(name, place), LogOffset(5), 1);
        begin("one", "home").expect("begun");
        experiments
            .share("one", vec![50, 50], LogOffset(9), 2)
            .expect("changed");
        let error = begin("two", "home").expect_err("the place is taken");
        assert!(
            error.to_string().contains("\"one\" runs at \"home\""),
            "{error}"
        );
        experiments.stop("one", LogOffset(20), 3).expect("stopped");
        begin("two", "home").expect("the place is free");
        assert!(begin("one", "other").is_err(), "names are unique for good");

        let again = Experiments::open(dir.path()).expect("readable");

        let one = again.named("one").expect("kept");
        let shares = [8, 9, 20].map(|at| one.shares_at(LogOffset(at)).to_vec());
        assert_eq!(shares, [[10, 10], [50, 50], [50, 50]]);
        assert_eq!(one.stopped.map(|stop| stop.through), Some(LogOffset(20)));
        assert_eq!(again.at("home").expect("runs").asked.name, "two");
        assert!(again.share("one", vec![1, 1], LogOffset(30), 4).is_err());
        assert!(again.share("two", vec![1], LogOffset(30), 4).is_err());
        assert!(again.stop("three", LogOffset(30), 4).is_err());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_one_that_cannot_be_written_changes_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join(FILE_NAME), "{\"experiments\": [").expect("written");
        assert!(Experiments::open(dir.path()).is_err());
        fs::remove_file(dir.path().join(FILE_NAME)).expect("removed");
        let experiments = Experiments::open(dir.path()).expect("opens");
        fs::remove_dir_all(dir.path()).expect("removed");
        let begun = experiments.begin(asked("one", "home"), LogOffset(0), 0);
        assert!(matches!(begun, Err(ExperimentError::Io { .. })));
        assert!(experiments.at("home").is_none());
    }
}
