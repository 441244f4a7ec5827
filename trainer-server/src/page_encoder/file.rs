//! The file of a generation in the data folder, so that a start need not make it again.

use std::fs;
use std::io;
use std::path::Path;

use axum::body::Bytes;
use shared_model::ids::BlobId;

use crate::ladder::Recipe;
use crate::publish::files::{TEMP_PREFIX, write_whole};
use crate::reserve::Reserve;

const FILE_PREFIX: &str = "text-page-";
const FILE_EXTENSION: &str = ".bin";
/// Another rounding makes another file of the same encoder: to be raised then, or with the layout of the file.
const ALGORITHM: &[u8] = b"freshet text pack 4";
/// Digits of a hash in hexadecimal that a name has: a quarter of them.
const NAME_HEX: usize = 16;
/// Bytes of the number of items before a file: what it was fitted to.
const COUNT_BYTES: usize = 8;

/// What pages of a generation get where this recipe is followed.
pub(super) fn file_name(generation: u32, recipe: &Recipe) -> String {
    let recipe = serde_json::to_vec(recipe).expect("a struct of numbers serializes");
    let key = BlobId::of(&[ALGORITHM, &generation.to_le_bytes(), &recipe].concat());
    format!("{FILE_PREFIX}{}{FILE_EXTENSION}", &key.to_hex()[..NAME_HEX])
}

/// A file as it lies in the data folder: `hash · num_items u64, little-endian · bytes`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) id: BlobId,
    pub(super) num_items: usize,
    pub(super) bytes: Bytes,
}

impl Found {
    /// One that is whole.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let bytes = Bytes::from(fs::read(path).ok()?); // one that is not there or cannot be read is made anew
        let id = BlobId(*bytes.first_chunk()?);
        let num_items = u64::from_le_bytes(*bytes[id.0.len()..].first_chunk()?);
        let bytes = bytes.slice(id.0.len() + COUNT_BYTES..);
        if BlobId::of(&bytes) != id {
            tracing::warn!(
                "a packed text encoder is damaged and is made anew: {}",
                path.display()
            );
            return None;
        }
        Some(Self {
            id,
            num_items: usize::try_from(num_items).unwrap_or(usize::MAX), // such a count is damaged: good for ever
            bytes,
        })
    }

    /// One of the data folder by its hash, whatever it is called.
    pub(super) fn by_id(data_dir: &Path, wanted: BlobId) -> Option<Self> {
        let mut entries = fs::read_dir(data_dir).ok()?.flatten();
        entries.find_map(|entry| {
            let is_ours = is_ours(&entry.file_name().to_string_lossy());
            let found = is_ours.then(|| Self::read(&entry.path())).flatten();
            found.filter(|found| found.id == wanted)
        })
    }

    /// Writes it in place of all others but those of `beside`, where that takes no room that the log needs; else the next
    /// start makes it again.
    pub(super) fn keep(&self, data_dir: &Path, name: &str, beside: Beside<'_>, reserve: &Reserve) {
        match self.write(data_dir, name, reserve) {
            Ok(()) => forget_others(data_dir, name, beside),
            Err(error) => tracing::warn!(
                %error,
                "the packed text encoder is made again at the next start: it cannot be written to {}",
                data_dir.join(name).display()
            ),
        }
    }

    fn write(&self, data_dir: &Path, name: &str, reserve: &Reserve) -> io::Result<()> {
        reserve.take()?;
        let num_items = (self.num_items as u64).to_le_bytes(); // widening
        write_whole(
            data_dir,
            name,
            &[&self.id.0, &num_items[..], &self.bytes].concat(),
        )
    }
}

/// Files that another one does not replace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside<'a> {
    /// Name of the encoder's as it was loaded.
    pub(super) name: &'a str,
    /// Hashes of those that are handed out, or that changes belong to.
    pub(super) ids: &'a [BlobId],
}

fn is_ours(name: &str) -> bool {
    name.starts_with(FILE_PREFIX) && name.ends_with(FILE_EXTENSION)
}

/// Unfinished files are what a stop has left.
fn forget_others(data_dir: &Path, kept: &str, beside: Beside<'_>) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let finished = name.strip_prefix(TEMP_PREFIX).unwrap_or(&name);
        let is_wanted = || {
            let found = Found::read(&entry.path());
            found.is_some_and(|found| beside.ids.contains(&found.id))
        };
        if is_ours(finished)
            && name != kept
            && name != beside.name
            && !is_wanted()
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(%error, "an old packed text encoder stays on disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes_max: usize) -> Recipe {
        Recipe {
            bytes_max,
            ..Recipe::default()
        }
    }

    #[test]
    fn a_file_is_read_where_it_is_whole_and_leftovers_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let (dir, name) = (dir.path(), file_name(1, &whole(10)));
        let path = dir.join(&name);
        let made = |bytes: &'static [u8]| Found {
            id: BlobId::of(b"bytes"),
            num_items: 300,
            bytes: Bytes::from_static(bytes),
        };
        let reserve = Reserve::open(dir, 10);
        assert_eq!(Found::read(&path), None);
        made(b"bytes").write(dir, &name, &reserve).expect("written");
        assert_eq!(Found::read(&path), Some(made(b"bytes")));
        made(b"bytez").write(dir, &name, &reserve).expect("written");
        assert_eq!(Found::read(&path), None);
        fs::write(&path, [0; 35]).expect("written");
        assert_eq!(Found::read(&path), None);
        let (other, beside) = (file_name(1, &whole(11)), file_name(0, &whole(10)));
        for name in [&other, &beside, &format!("{TEMP_PREFIX}{name}")] {
            fs::write(dir.join(name), b"").expect("written");
        }
        let base = Found {
            id: BlobId::of(b"base"),
            ..made(b"base")
        };
        let base_name = file_name(7, &whole(10));
        base.write(dir, &base_name, &reserve).expect("written");
        assert_eq!(Found::by_id(dir, base.id), Some(base.clone()));
        assert_eq!(Found::by_id(dir, BlobId::of(b"none")), None);
        let mut kept = Beside {
            name: &beside,
            ids: &[base.id],
        };
        made(b"bytes").keep(dir, &other, kept, &reserve);
        assert!(!path.exists() && dir.join(&other).exists() && dir.join(&beside).exists());
        assert!(dir.join(&base_name).exists());
        kept.ids = &[];
        made(b"bytes").keep(dir, &other, kept, &reserve);
        assert!(!dir.join(&base_name).exists());
        assert!(!dir.join(format!("{TEMP_PREFIX}{name}")).exists());
    }

    #[test]
    fn a_file_that_would_take_the_room_of_the_log_is_not_written() {
        let dir = tempfile::tempdir().expect("a folder");
        // Nowhere to be held, as on a full disk.
        let reserve = Reserve::open(&dir.path().join("missing"), 10);
        let made = Found {
            id: BlobId::of(b"bytes"),
            num_items: 1,
            bytes: Bytes::from_static(b"bytes"),
        };
        assert!(made.write(dir.path(), "text-page-a.bin", &reserve).is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
    }
}
