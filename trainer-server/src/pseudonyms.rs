//! Pseudonymous ids: in place of the user ids that are sent, the server keeps keyed hashes of them.
//!
//! ```text
//! pseudonym = "p-" base64url( first 16 bytes of BLAKE3 keyed with users.key ( user_id ) )
//! ```
//!
//! They are made at the door, before anything is stored, counted or logged, and whoever asks for a user comes through the
//! same door, so no sender notices. The log says that its ids are pseudonyms and of which key: where the setting or the
//! key is another one, a user would be two, and the log is not opened. Two of a billion users have one pseudonym with a
//! probability of 1e-21.
//! Not here: how they come into a log that has plain ids (`event_log`, by [`migrate`]).

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use shared_model::event::Event;
use shared_model::ids::{LogOffset, UserId};

use crate::event_log::{EventLog, EventLogError, StoredEvent};
use crate::experiment::store::{ExperimentError, Experiments};
use crate::publish::signing_key;

/// Name of the key's file in the data directory.
pub const KEY_FILE_NAME: &str = "users.key";
const PREFIX: &str = "p-";
const HASH_BYTES: usize = 16;
/// Separates the name of a key from all other uses of it.
const NAME_CONTEXT: &str = "freshet 2026-11-28 name of a key of pseudonyms";
/// A name in a JSON number, whoever reads it.
const NAME_BYTES: usize = 6;

/// Why user ids can be taken neither as they are nor as pseudonyms.
#[derive(Debug, thiserror::Error)]
pub enum PseudonymError {
    /// The setting is on and there are plain ids.
    #[error(
        "`log.pseudonymous_ids` is true, but the log holds user ids as they were sent; \
         `freshet pseudonymize --data-dir {}` replaces them for good", .0.display()
    )]
    PlainIds(PathBuf),
    /// The setting is off and there are pseudonyms.
    #[error(
        "`log.pseudonymous_ids` is false, but the log holds pseudonyms, beside which everyone would go on as somebody \
         new; set it to true: {}", .0.display()
    )]
    Unwanted(PathBuf),
    /// The key is not there.
    #[error(
        "{KEY_FILE_NAME} is missing, and without it everyone would go on as somebody new; copy it there, or, if it is \
         lost, accept that by `freshet pseudonymize --new-key`: {}", .0.display()
    )]
    NoKey(PathBuf),
    /// The key is another one.
    #[error(
        "{KEY_FILE_NAME} is not the key of the pseudonyms in the log, beside which everyone would go on as somebody \
         new; put the right one there: {}", .0.display()
    )]
    OtherKey(PathBuf),
    /// The key can be neither read nor written.
    #[error("{KEY_FILE_NAME} cannot be used: {source}: {}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing to replace.
    #[error("the log holds pseudonyms already: {}", .0.display())]
    Done(PathBuf),
    /// There is no key to give up.
    #[error("the log holds no pseudonyms, so there is no key that could be lost: {}", .0.display())]
    NoPseudonyms(PathBuf),
    /// The key is not lost.
    #[error("{KEY_FILE_NAME} is there; only a key that is lost is given up: {}", .0.display())]
    KeyIsThere(PathBuf),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] EventLogError),
    /// Arms of users are found from the ids that were sent, and the experiments cannot be read.
    #[error(transparent)]
    Experiments(#[from] ExperimentError),
}

/// The key of pseudonyms.
#[derive(Clone, Copy)]
struct Key([u8; blake3::KEY_LEN]);

impl Key {
    fn read(data_dir: &Path) -> io::Result<Self> {
        let key = signing_key::read(&data_dir.join(KEY_FILE_NAME))?;
        Ok(Self(key.to_bytes()))
    }

    fn make(data_dir: &Path) -> io::Result<Self> {
        let key = signing_key::random()?;
        signing_key::write(&data_dir.join(KEY_FILE_NAME), &key)?;
        Ok(Self(key.to_bytes()))
    }

    /// One that is there is used: a crash may have come between it and the log.
    fn read_or_make(data_dir: &Path) -> io::Result<Self> {
        match Self::read(data_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(data_dir),
            read => read,
        }
    }

    /// Names it in the log and in backups, and tells nothing of it; never 0.
    fn name(&self) -> u64 {
        let hash = blake3::derive_key(NAME_CONTEXT, &self.0);
        let mut name = [0; 8];
        name[..NAME_BYTES].copy_from_slice(&hash[..NAME_BYTES]);
        u64::from_le_bytes(name).max(1)
    }
}

/// The door: what the server calls a user.
#[derive(Clone, Copy, Default)]
pub struct Pseudonyms {
    /// Without one, users are called as they are sent.
    key: Option<Key>,
}

impl Pseudonyms {
    /// For a server or an import. A log without events takes either; the key is made where there is none.
    ///
    /// # Errors
    /// A user would be two; see [`PseudonymError`].
    pub fn open(data_dir: &Path, is_wanted: bool, log: &EventLog) -> Result<Self, PseudonymError> {
        let key_name = log.view()?.pseudonyms()?;
        match (is_wanted, key_name) {
            (false, 0) => Ok(Self::default()),
            (false, _) => Err(PseudonymError::Unwanted(data_dir.to_owned())),
            (true, 0) if log.has_events()? => Err(PseudonymError::PlainIds(data_dir.to_owned())),
            (true, 0) => {
                let key = Key::read_or_make(data_dir).map_err(io_at(data_dir))?;
                log.mark_pseudonyms(key.name())?;
                Ok(Self { key: Some(key) })
            }
            (true, _) => Self::of_log(data_dir, log),
        }
    }

    /// For commands that read a log as it is, whatever is set.
    ///
    /// # Errors
    /// It holds pseudonyms and its key is not there.
    pub fn of_log(data_dir: &Path, log: &EventLog) -> Result<Self, PseudonymError> {
        let key_name = log.view()?.pseudonyms()?;
        if key_name == 0 {
            return Ok(Self::default());
        }
        let key = match Key::read(data_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PseudonymError::NoKey(data_dir.to_owned()));
            }
            read => read.map_err(io_at(data_dir))?,
        };
        if key.name() != key_name {
            return Err(PseudonymError::OtherKey(data_dir.to_owned()));
        }
        Ok(Self { key: Some(key) })
    }

    /// By the key in a folder, whatever else is in it; `None` where there is none.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn in_folder(dir: &Path) -> Result<Option<Self>, PseudonymError> {
        match Key::read(dir) {
            Ok(key) => Ok(Some(Self { key: Some(key) })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None), // an archive
            Err(error) => Err(io_at(dir)(error)),
        }
    }

    /// What a user is called here.
    #[must_use]
    pub fn of(&self, user_id: UserId) -> UserId {
        let Some(Key(key)) = &self.key else {
            return user_id;
        };
        let hash = blake3::keyed_hash(key, user_id.as_str().as_bytes());
        let short = URL_SAFE_NO_PAD.encode(&hash.as_bytes()[..HASH_BYTES]);
        UserId::new(format!("{PREFIX}{short}")).expect("24 letters, digits, `-` and `_`")
    }

    /// An event as it is stored. What the id that was sent decides about an experiment is kept beside it; `offset` is
    /// where the log has it, or any later one.
    #[must_use]
    pub fn stored(
        &self,
        mut event: Event,
        received_at: i64,
        is_vouched: bool,
        experiments: &Experiments,
        offset: LogOffset,
    ) -> StoredEvent {
        let mut arm_phase = None;
        if self.key.is_some() {
            arm_phase = experiments.phase_of(&event, offset);
            event.user_id = self.of(event.user_id);
        }
        StoredEvent {
            event,
            received_at,
            is_vouched,
            arm_phase,
        }
    }
}

fn io_at(data_dir: &Path) -> impl FnOnce(io::Error) -> PseudonymError {
    let path = data_dir.to_owned();
    move |source| PseudonymError::Io { path, source }
}

/// What [`migrate`] and [`give_up_key`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Migrated {
    /// Events whose users are pseudonyms now.
    pub num_events: u64,
    /// One past the last record of the log.
    pub log_end: LogOffset,
}

/// Replaces the user ids of a log that no server uses by pseudonyms, for good. Copies the log and swaps; a crash leaves
/// it as it was.
///
/// # Errors
/// It holds pseudonyms already, the key can be neither read nor made, or there is no room for a second log.
pub fn migrate(data_dir: &Path, log: &EventLog) -> Result<Migrated, PseudonymError> {
    if log.view()?.pseudonyms()? != 0 {
        return Err(PseudonymError::Done(data_dir.to_owned()));
    }
    let experiments = Experiments::open(data_dir)?;
    let key = Key::read_or_make(data_dir).map_err(io_at(data_dir))?;
    let pseudonyms = Pseudonyms { key: Some(key) };
    let num_events = log.rename_users(key.name(), |offset, stored| {
        let StoredEvent {
            event,
            received_at,
            is_vouched,
            ..
        } = stored;
        pseudonyms.stored(event, received_at, is_vouched, &experiments, offset)
    })?;
    Ok(Migrated {
        num_events,
        log_end: log.end(),
    })
}

/// Goes on with a new key where that of a log is lost: everyone is somebody new from then on.
///
/// # Errors
/// There are no pseudonyms, or the key is there.
pub fn give_up_key(data_dir: &Path, log: &EventLog) -> Result<Migrated, PseudonymError> {
    if log.view()?.pseudonyms()? == 0 {
        return Err(PseudonymError::NoPseudonyms(data_dir.to_owned()));
    }
    let key = match Key::make(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(PseudonymError::KeyIsThere(data_dir.to_owned()));
        }
        made => made.map_err(io_at(data_dir))?,
    };
    log.mark_pseudonyms(key.name())?;
    Ok(Migrated {
        num_events: 0,
        log_end: log.end(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::event_log::tombstone::{IdHash, UserErasure};
    use crate::event_log::{EventLogConfig, LogRecord, downgrade};
    use serde_json::json;

    fn open_log(dir: &Path) -> EventLog {
        EventLog::open(dir, &EventLogConfig::from(&Config::default())).expect("opens")
    }

    fn user(id: &str) -> UserId {
        UserId::new(id).expect("valid")
    }

    fn click(event_id: &str, user_id: &str) -> LogRecord {
        let event = json!({ "event_id": event_id, "kind": "click", "user_id": user_id, "item_id": "i", "occurred_at": 1 });
        LogRecord::Event(StoredEvent {
            event: serde_json::from_value(event).expect("valid"),
            received_at: 1,
            is_vouched: true,
            arm_phase: None,
        })
    }

    fn users(log: &EventLog) -> Vec<String> {
        let records = log.read(LogOffset(0), 100).expect("readable").into_iter();
        let users = records.filter_map(|(_, record)| match record {
            LogRecord::Event(stored) => Some(stored.event.user_id.to_string()),
            LogRecord::ItemPut(_)
            | LogRecord::ItemDelete(_)
            | LogRecord::Tombstone(_)
            | LogRecord::UserErased(_) => None,
        });
        users.collect()
    }

    #[test]
    fn a_pseudonym_is_the_same_after_a_restart_another_for_each_user_and_key_and_tells_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let log = open_log(dir.path());
        let door = Pseudonyms::open(dir.path(), true, &log).expect("made");
        let ann = door.of(user("ann"));
        let pattern = |id: &UserId| id.as_str().starts_with(PREFIX) && id.as_str().len() == 24;
        assert!(pattern(&ann), "{ann}");
        let again = Pseudonyms::open(dir.path(), true, &log).expect("read");
        assert_eq!(again.of(user("ann")), ann);
        assert_ne!(again.of(user("bob")), ann);
        assert_ne!(
            again.of(ann.clone()),
            ann,
            "a pseudonym that is sent is an id like any other"
        );
        let other_dir = tempfile::tempdir().expect("temp dir");
        let other = open_log(other_dir.path());
        let other = Pseudonyms::open(other_dir.path(), true, &other).expect("made");
        assert_ne!(other.of(user("ann")), ann);
        assert_eq!(Pseudonyms::default().of(user("ann")), user("ann"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let key = std::fs::metadata(dir.path().join(KEY_FILE_NAME)).expect("there");
            assert_eq!(key.permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn no_setting_and_no_key_makes_two_of_a_user() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path();
        let log = open_log(path);
        let open = |is_wanted| Pseudonyms::open(path, is_wanted, &log).map(|_| ());
        log.append_blocking(&[click("e1", "ann")]).expect("kept");
        open(false).expect("plain ids");
        assert!(matches!(open(true), Err(PseudonymError::PlainIds(_))));
        let done = migrate(path, &log).expect("replaced");
        assert_eq!(done.num_events, 1);
        assert!(matches!(migrate(path, &log), Err(PseudonymError::Done(_))));
        open(true).expect("pseudonyms");
        assert!(matches!(open(false), Err(PseudonymError::Unwanted(_))));
        let key = path.join(KEY_FILE_NAME);
        assert!(matches!(
            give_up_key(path, &log),
            Err(PseudonymError::KeyIsThere(_))
        ));
        std::fs::rename(&key, path.join("away")).expect("moved");
        assert!(matches!(open(true), Err(PseudonymError::NoKey(_))));
        signing_key::write(&key, &signing_key::random().expect("random")).expect("written");
        assert!(matches!(open(true), Err(PseudonymError::OtherKey(_))));
        std::fs::remove_file(&key).expect("removed");
        give_up_key(path, &log).expect("a new key");
        open(true).expect("everyone is somebody new");
        let plain = tempfile::tempdir().expect("temp dir");
        let refused = give_up_key(plain.path(), &open_log(plain.path()));
        assert!(matches!(refused, Err(PseudonymError::NoPseudonyms(_))));
    }

    #[test]
    fn a_log_is_migrated_whole_and_stays_so_through_erasure_and_reopening() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path();
        let log = open_log(path);
        let erasure = UserErasure {
            user_hash: IdHash::of("carl"),
            erased_at: 1,
        };
        let records = [
            click("e1", "ann"),
            click("e2", "carl"),
            click("e3", "bob"),
            LogRecord::UserErased(erasure), // ordered, and not carried out yet
            click("e4", "ann"),
        ];
        log.append_blocking(&records).expect("kept");
        let done = migrate(path, &log).expect("replaced");
        assert_eq!((done.num_events, done.log_end), (3, LogOffset(5)));
        let door = Pseudonyms::of_log(path, &log).expect("a key");
        let [ann, bob] = ["ann", "bob"].map(|id| door.of(user(id)).to_string());
        assert_eq!(users(&log), [ann.clone(), bob.clone(), ann.clone()]);
        let name = log.view().expect("a view").pseudonyms().expect("read");
        crate::erasure::erase(&log, path, &door.of(user("bob")), 2).expect("erased");
        assert_eq!(users(&log), [ann.clone(), ann.clone()]);
        log.shutdown();
        drop(log);
        let config = EventLogConfig::from(&Config::default());
        let refused = downgrade(path, &config);
        assert!(
            matches!(refused, Err(EventLogError::Pseudonyms)),
            "{refused:?}"
        );
        let log = open_log(path);
        let view = log.view().expect("a view");
        assert_eq!(
            (
                view.format().expect("read"),
                view.pseudonyms().expect("read")
            ),
            (3, name)
        );
        drop(view);
        let outcomes = log.append_blocking(&[click("e1", "p")]).expect("answered");
        assert!(matches!(
            outcomes[0],
            crate::event_log::AppendOutcome::Duplicate(LogOffset(0))
        ));
    }
}
