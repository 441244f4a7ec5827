//! Reserve: a file beside the log that holds nothing, given up when the disk is full so that events can be synced.
//!
//! ```text
//! held ──the log meets a full disk──► given up: the log goes on, nothing is published
//!  ▲                                        │
//!  └──── before the next version: written again, whole ◄┘ (fails while there is no room)
//! ```
//! So what is published never takes the room that events need, and publishing goes on by itself once the disk has
//! room for both. Its bytes are no zeros, since a file system may keep those for free.
//! Not here: who writes the log (`event_log`) and who publishes (`publish`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::publish::files::sync_dir;

const FILE_NAME: &str = "reserve";
const UNFINISHED_NAME: &str = ".unfinished-reserve";
/// Written at once; between two pieces the reserve can be given up.
const PIECE_BYTES: usize = 1 << 20;

/// The reserve of one data directory.
#[derive(Debug)]
pub struct Reserve {
    dir: PathBuf,
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    is_held: bool,
    /// Raised whenever it is given up: whoever writes it meanwhile stops.
    times_given_up: u64,
}

impl Reserve {
    /// Takes the reserve of `data_dir`, of `bytes`; 0 for none. Where there is no room it is not held, which is no
    /// error: events come first.
    #[must_use]
    pub fn open(data_dir: &Path, bytes: u64) -> Self {
        let reserve = Self {
            dir: data_dir.to_owned(),
            bytes,
            state: Mutex::default(),
        };
        if let Err(error) = reserve.take() {
            tracing::warn!(%error, "there is no room for a reserve of {bytes} bytes");
        }
        reserve
    }

    /// Whether the log can count on it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state().is_held
    }

    /// Makes room for the log; whether there was any to make.
    pub fn give_up(&self) -> bool {
        let mut state = self.state();
        state.times_given_up += 1;
        let was_held = std::mem::take(&mut state.is_held);
        for name in [UNFINISHED_NAME, FILE_NAME] {
            // One that is not there is what is wanted, and of one that cannot be removed nobody is helped by hearing.
            fs::remove_file(self.dir.join(name)).ok();
        }
        was_held && self.bytes > 0
    }

    /// Writes the reserve, where it is not held.
    ///
    /// # Errors
    /// There is no room, or the file system failed; nothing is left of it then.
    pub fn take(&self) -> io::Result<()> {
        let times_given_up = {
            let mut state = self.state();
            if state.is_held {
                return Ok(());
            }
            let path = self.dir.join(FILE_NAME);
            let found = fs::metadata(&path).ok().map(|file| file.len());
            if found.is_some_and(|bytes| bytes != self.bytes) {
                fs::remove_file(&path)?; // of another setting: beside the new one it would take its room
            }
            if self.bytes == 0 || found == Some(self.bytes) {
                state.is_held = true;
                return Ok(());
            }
            state.times_given_up
        };
        let written = self.write(times_given_up);
        let mut state = self.state();
        let is_wanted = state.times_given_up == times_given_up;
        let written = written.and_then(|()| {
            if !is_wanted {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            fs::rename(self.dir.join(UNFINISHED_NAME), self.dir.join(FILE_NAME))?;
            sync_dir(&self.dir)
        });
        if written.is_err() {
            fs::remove_file(self.dir.join(UNFINISHED_NAME)).ok(); // the error that is told is the first one
        }
        state.is_held = written.is_ok();
        written
    }

    fn write(&self, times_given_up: u64) -> io::Result<()> {
        let mut file = File::create(self.dir.join(UNFINISHED_NAME))?;
        let mut noise = blake3::Hasher::new().finalize_xof();
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = self.bytes;
        while left > 0 && self.state().times_given_up == times_given_up {
            let len = left.min(PIECE_BYTES as u64) as usize; // fits by the min
            noise.fill(&mut piece[..len]);
            file.write_all(&piece[..len])?;
            left -= len as u64; // widening
        }
        file.sync_all()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_given_up_and_taken_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let bytes = PIECE_BYTES as u64 + 5;
        let reserve = Reserve::open(dir.path(), bytes);
        let len = || fs::metadata(dir.path().join(FILE_NAME)).map(|file| file.len());
        assert!(reserve.is_held());
        assert_eq!(len().expect("there"), bytes);
        assert!(reserve.give_up());
        assert!(!reserve.is_held() && len().is_err());
        assert!(!reserve.give_up(), "there is no more to give");
        reserve.take().expect("there is room");
        assert!(reserve.is_held());
        assert!(
            Reserve::open(dir.path(), bytes).is_held(),
            "found as it was left"
        );
        assert!(Reserve::open(dir.path(), 7).is_held());
        assert_eq!(len().expect("there"), 7, "made anew for another setting");
    }

    #[test]
    fn without_room_it_is_not_held_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let missing = dir.path().join("missing");
        let reserve = Reserve::open(&missing, 10);
        assert!(!reserve.is_held());
        assert!(reserve.take().is_err());
        assert!(Reserve::open(&missing, 0).is_held(), "no reserve is wanted");
    }
}
