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
const ALGORITHM: &[u8] = b"freshet text pack 3";
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
#[derive(Debug, PartialEq)]
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

    /// Writes it in place of all others but `beside`, where that takes no room that the log needs; else the next start
    /// makes it again.
    pub(super) fn keep(&self, data_dir: &Path, name: &str, beside: &str, reserve: &Reserve) {
        match self.write(data_dir, name, reserve) {
            Ok(()) => forget_others(data_dir, &[name, beside]),
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

/// Files of other generations are in memory where they are still wanted, and made anew after a restart; unfinished ones
/// are what a stop has left.
fn forget_others(data_dir: &Path, kept: &[&str]) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let finished = name.strip_prefix(TEMP_PREFIX).unwrap_or(&name);
        let is_ours = finished.starts_with(FILE_PREFIX) && finished.ends_with(FILE_EXTENSION);
        if is_ours
            && !kept.contains(&name.as_str())
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
        made(b"bytes").keep(dir, &other, &beside, &reserve);
        assert!(!path.exists() && dir.join(&other).exists() && dir.join(&beside).exists());
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
