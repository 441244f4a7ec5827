//! Rollout: what an operator may order of the versions that go out, and what of it must last.
//!
//! An order goes over a bounded channel to the trainer thread, which alone publishes. Kept in
//! `rollout.json` are the pin and the rollbacks: the log offsets that each of them set aside. Events at these
//! offsets are left out whenever the log is read to learn from it: they enter no history, no count, no neighbours
//! and no window of a release or refit. Items are kept, since their order is that of the log.
//!
//! A rollback is written before its version. Where a crash came between the two, there is no version of its
//! number, and [`RolloutState::settle`] forgets it. Not here: how a version is restored (`trainer`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::codec::state::CodeState;
use shared_model::ids::{ItemId, LogOffset, Version};
use tokio::sync::oneshot;

use crate::event_log::LogRecord;
use crate::publish::files::write_whole;

const FILE_NAME: &str = "rollout.json";
/// Far more than [`ROLLBACKS_MAX`] rollbacks take.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Rollbacks whose offsets are kept aside at the same time.
const ROLLBACKS_MAX: usize = 1000;
/// Orders that may wait for the trainer.
const ORDERS_MAX: usize = 16;
/// How long the trainer may take: it listens between two steps, and a rollback reads the log again.
const ORDER_TIMEOUT: Duration = Duration::from_secs(120);

/// What an operator orders; as JSON `{"order": "rollback", "version": 7}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Publish the codes of an earlier version again and set aside what was learned since.
    Rollback {
        /// The version to return to.
        version: Version,
    },
    /// Neither learn nor publish until `Unpin`; events are still taken in, and wait.
    Pin,
    /// Go on after `Pin`.
    Unpin,
    /// Begin a release now.
    Publish,
    /// End the trial of the release that is waiting, and publish it by what the trial has said so far.
    Promote,
}

/// What the trainer is asked to do.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    /// An order.
    Order(Order),
    /// Publish these codes, if the gate lets them.
    Given(Box<GivenCodes>),
}

/// Codes of an operator, from a snapshot.
#[derive(Debug, Clone)]
pub struct GivenCodes {
    /// The version that the snapshot names.
    pub version: Version,
    /// Its codes.
    pub state: CodeState,
}

/// Longest name of an operator, in characters.
pub const OPERATOR_NAME_LEN_MAX: usize = 64;

/// As a regular expression: no control characters.
pub const OPERATOR_NAME_PATTERN: &str = r"^[^\x00-\x1f\x7f-\x9f]+$";

/// Whether an operator may be called so: not empty, not long, nothing that would break a line of the ledger's readers.
#[must_use]
pub fn is_operator_name(name: &str) -> bool {
    let len = name.chars().count();
    (1..=OPERATOR_NAME_LEN_MAX).contains(&len) && !name.chars().any(char::is_control)
}

/// What has become of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Obeyed {
    /// The newest version, after it.
    pub version: Version,
    /// Whether versions are pinned.
    pub is_pinned: bool,
    /// Offsets that a rollback has set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<Rollback>,
}

/// Why an order was not obeyed; but for [`Self::NotStored`], nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Too many orders wait, or the trainer did not come to this one.
    #[error("the trainer is busy, send the order again later")]
    Busy,
    /// The trainer has stopped.
    #[error("the trainer has stopped")]
    Stopped,
    /// There is no version yet.
    #[error("no version is published yet")]
    NotPublished,
    /// Not a version to return to.
    #[error("version {version} is not kept or not older than {newest}")]
    NotKept {
        /// The version asked for.
        version: Version,
        /// The newest one.
        newest: Version,
    },
    /// Its texts were embedded by another encoder than the one that is loaded.
    #[error("version {version} has the text encoder {actual:08x}, the newest has {expected:08x}")]
    OtherEncoder {
        /// The version asked for.
        version: Version,
        /// Its generation.
        actual: u32,
        /// The generation that is live.
        expected: u32,
    },
    /// Nothing goes out while versions are pinned.
    #[error("versions are pinned, unpin first")]
    Pinned,
    /// Private rounds begin by the clock, which is what their cost after a restored backup is told by.
    #[error("privacy.enabled is true: rounds begin by the clock, every privacy.interval_secs")]
    Private,
    /// No release is waiting.
    #[error("no release is on trial")]
    NoRelease,
    /// The gate refused the release.
    #[error("the gate refused the release")]
    Refused,
    /// The gate refused the codes of an operator.
    #[error("the gate refused the codes: {reason}")]
    GivenRefused {
        /// What it said.
        reason: String,
    },
    /// The codes of an operator are of a model of another shape.
    #[error("the codes are of a model of another shape than the newest version")]
    OtherSpec,
    /// The codes of an operator are of another catalogue.
    #[error("item {item_idx} of the codes is {actual}, in the newest version it is {}", expected.as_ref().map_or("none", ItemId::as_str))]
    OtherItems {
        /// Row of the first item that differs.
        item_idx: usize,
        /// In the codes.
        actual: ItemId,
        /// In the newest version, where it has so many.
        expected: Option<ItemId>,
    },
    /// It could not be written. No version came out, and of what was begun only the end of a canary stands.
    #[error("the order could not be carried out: {detail}")]
    NotStored {
        /// Why not.
        detail: String,
    },
    /// The list of rollbacks is full.
    #[error("{ROLLBACKS_MAX} rollbacks are kept aside already")]
    TooMany,
}

/// Sends orders to the trainer; cheap to clone.
#[derive(Debug, Clone)]
pub struct Operator {
    sender: SyncSender<Waiting>,
}

/// An order whose sender waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) wish: Wish,
    /// The name that the operator gave.
    pub(crate) by: Option<String>,
    pub(crate) reply: oneshot::Sender<Result<Obeyed, OrderError>>,
}

impl Operator {
    /// The two ends of the channel.
    pub(crate) fn channel() -> (Self, Receiver<Waiting>) {
        let (sender, receiver) = sync_channel(ORDERS_MAX);
        (Self { sender }, receiver)
    }

    /// Waits until the trainer has obeyed; an order that was given up is not begun. `by` is the operator's name.
    ///
    /// # Errors
    /// Why it did not.
    pub async fn order(&self, order: Order, by: Option<String>) -> Result<Obeyed, OrderError> {
        self.ask(Wish::Order(order), by).await
    }

    /// Asks for these codes to be published, through the gate; as [`Self::order`].
    ///
    /// # Errors
    /// Why they are not.
    pub async fn publish_given(
        &self,
        given: GivenCodes,
        by: Option<String>,
    ) -> Result<Obeyed, OrderError> {
        self.ask(Wish::Given(Box::new(given)), by).await
    }

    async fn ask(&self, wish: Wish, by: Option<String>) -> Result<Obeyed, OrderError> {
        let (reply, answer) = oneshot::channel();
        match self.sender.try_send(Waiting { wish, by, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(OrderError::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(OrderError::Stopped),
        }
        match tokio::time::timeout(ORDER_TIMEOUT, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(OrderError::Stopped), // the thread ended with the order in its hands
            Err(_) => Err(OrderError::Busy),
        }
    }
}

/// A rollback, and the log offsets whose events it set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The version that it published.
    pub version: Version,
    /// The version whose codes that has.
    pub restored: Version,
    /// First offset set aside.
    pub from: LogOffset,
    /// One past the last.
    pub through: LogOffset,
}

impl Rollback {
    fn covers(&self, offset: LogOffset) -> bool {
        self.from <= offset && offset < self.through
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    is_pinned: bool,
    rollbacks: Vec<Rollback>,
}

/// Why the state of the rollout could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed: {source}, {}", path.display())]
pub struct RolloutError {
    action: &'static str,
    source: io::Error,
    path: PathBuf,
}

/// What lasts of the orders; every change is on disk before it is in memory.
#[derive(Debug)]
pub struct RolloutState {
    dir: PathBuf,
    kept: Kept,
}

impl RolloutState {
    /// Reads the state in `data_dir`; where there is none, nothing is pinned or set aside.
    ///
    /// # Errors
    /// The file cannot be read. It is no aid: going on without it would learn again what was taken back.
    pub fn open(data_dir: &Path) -> Result<Self, RolloutError> {
        let path = data_dir.join(FILE_NAME);
        let failed = |source| RolloutError {
            action: "reading the state of the rollout",
            source,
            path: path.clone(),
        };
        let kept = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(failed(error)),
            Ok(found) if found.len() > FILE_BYTES_MAX => {
                let message = format!("{} bytes, at most {FILE_BYTES_MAX} are read", found.len());
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, message)));
            }
            Ok(_) => {
                let bytes = fs::read(&path).map_err(failed)?;
                serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?
            }
        };
        Ok(Self {
            dir: data_dir.to_owned(),
            kept,
        })
    }

    /// Whether versions are pinned.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.kept.is_pinned
    }

    /// The newest rollback that stands.
    #[must_use]
    pub fn newest(&self) -> Option<Rollback> {
        self.kept.rollbacks.last().copied()
    }

    /// The rollback that set aside what lies at `offset`, if one did.
    #[must_use]
    pub fn set_aside_by(&self, offset: LogOffset) -> Option<Rollback> {
        let mut rollbacks = self.kept.rollbacks.iter();
        rollbacks.find(|one| one.covers(offset)).copied()
    }

    /// Whether a rollback went back behind a version.
    #[must_use]
    pub fn undid(&self, version: Version) -> bool {
        let mut rollbacks = self.kept.rollbacks.iter();
        rollbacks.any(|one| one.restored < version && version < one.version)
    }

    /// Records without the events that were set aside.
    #[must_use]
    pub fn without_set_aside(&self, read: Vec<(LogOffset, LogRecord)>) -> Vec<LogRecord> {
        let is_kept = |(offset, record): &(LogOffset, LogRecord)| {
            let is_event = matches!(record, LogRecord::Event(_));
            !is_event || self.set_aside_by(*offset).is_none()
        };
        let kept = read.into_iter().filter(is_kept);
        kept.map(|(_, record)| record).collect()
    }

    /// Whether another rollback has room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.kept.rollbacks.len() < ROLLBACKS_MAX
    }

    /// Pins or unpins.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed.
    pub fn pin(&mut self, is_pinned: bool) -> Result<(), RolloutError> {
        let rollbacks = self.kept.rollbacks.clone();
        self.keep(Kept {
            is_pinned,
            rollbacks,
        })
    }

    /// Notes a rollback that is about to be published.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed.
    pub fn begin(&mut self, rollback: Rollback) -> Result<(), RolloutError> {
        let mut kept = self.kept.clone();
        kept.rollbacks.push(rollback);
        self.keep(kept)
    }

    /// Forgets rollbacks whose version never came out, `newest` being the newest that did, and those that a later
    /// one went back behind: their offsets are either learned by the version that it restored, or set aside by it.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed.
    pub fn settle(&mut self, newest: Version) -> Result<(), RolloutError> {
        let mut standing: Vec<Rollback> = Vec::new();
        let published = self.kept.rollbacks.iter();
        for rollback in published.filter(|rollback| rollback.version <= newest) {
            standing.retain(|earlier| earlier.version <= rollback.restored);
            standing.push(*rollback);
        }
        if standing == self.kept.rollbacks {
            return Ok(());
        }
        self.keep(Kept {
            is_pinned: self.kept.is_pinned,
            rollbacks: standing,
        })
    }

    fn keep(&mut self, kept: Kept) -> Result<(), RolloutError> {
        let bytes = serde_json::to_vec(&kept).expect("plain values always serialize");
        write_whole(&self.dir, FILE_NAME, &bytes).map_err(|source| RolloutError {
            action: "writing the state of the rollout",
            source,
            path: self.dir.join(FILE_NAME),
        })?;
        self.kept = kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollback(version: u64, restored: u64, from: u64, through: u64) -> Rollback {
        Rollback {
            version: Version(version),
            restored: Version(restored),
            from: LogOffset(from),
            through: LogOffset(through),
        }
    }

    #[test]
    fn what_was_set_aside_survives_a_restart_and_a_rollback_without_its_version_does_not() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut state = RolloutState::open(dir.path()).expect("nothing is there yet");
        state.begin(rollback(9, 4, 40, 80)).expect("written");
        state.pin(true).expect("written");
        let mut again = RolloutState::open(dir.path()).expect("readable");
        assert!(again.is_pinned());
        assert_eq!(again.newest(), Some(rollback(9, 4, 40, 80)));

        again.settle(Version(8)).expect("written");

        let again = RolloutState::open(dir.path()).expect("readable");
        assert_eq!(again.newest(), None);
    }

    #[test]
    fn a_rollback_behind_an_earlier_one_takes_its_place_and_one_after_it_stands_beside() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut state = RolloutState::open(dir.path()).expect("nothing is there yet");
        state.begin(rollback(9, 4, 40, 80)).expect("written");
        state.begin(rollback(15, 12, 120, 150)).expect("written");
        state.settle(Version(15)).expect("written");
        assert_eq!(state.kept.rollbacks.len(), 2);

        state.begin(rollback(20, 7, 70, 200)).expect("written");
        state.settle(Version(20)).expect("written");

        assert_eq!(state.kept.rollbacks, [rollback(20, 7, 70, 200)]);
        let covered = [69, 70, 199, 200].map(|at| state.kept.rollbacks[0].covers(LogOffset(at)));
        assert_eq!(covered, [false, true, true, false]);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join(FILE_NAME), b"{\"is_pinned\": tr").expect("written");
        assert!(RolloutState::open(dir.path()).is_err());
    }
}
