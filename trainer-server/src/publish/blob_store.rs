//! Immutable files named by the BLAKE3 hash of their bytes: `blobs/<64 hex digits>`.
//!
//! Checked when written and again whenever read. Not here: which blobs are needed (`publish`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use shared_model::ids::BlobId;
use shared_model::manifest::BlobRef;

use super::files;

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file system failed.
    #[error("blob {id}: {source}")]
    Io {
        /// The blob.
        id: BlobId,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes on disk are not those that were written.
    #[error("blob {expected} is damaged, its bytes hash to {actual}")]
    Damaged {
        /// Its name.
        expected: BlobId,
        /// Hash of what is there.
        actual: BlobId,
    },
}

/// The folder of blobs.
#[derive(Debug)]
pub struct BlobStore {
    dir: PathBuf,
    /// Bytes of all files.
    bytes: AtomicU64,
}

impl BlobStore {
    /// Opens or creates the folder and removes half-written files.
    ///
    /// # Errors
    /// The file system failed.
    pub fn open(dir: &Path) -> io::Result<Self> {
        files::prepare_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            bytes: AtomicU64::new(files::sum_of_lens(dir)?),
        })
    }

    /// Stores `bytes` durably; bytes that are there already are not written again.
    ///
    /// # Errors
    /// The file system failed.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobRef, BlobError> {
        let id = BlobId::of(bytes);
        if !matches!(self.get(id), Ok(Some(_))) {
            let replaced = files::len(&self.path(id)); // damaged
            let written = files::write_whole(&self.dir, &id.to_hex(), bytes);
            // Also where it failed: the file may be there, and is taken off when it goes.
            let present = files::len(&self.path(id));
            self.bytes.fetch_add(present, Ordering::Relaxed);
            self.bytes.fetch_sub(replaced, Ordering::Relaxed);
            written.map_err(|source| BlobError::Io { id, source })?;
        }
        Ok(BlobRef {
            id,
            bytes: bytes.len() as u64,
        }) // widening on every supported target
    }

    /// Reads a blob and checks its hash; `None` where it does not exist.
    ///
    /// # Errors
    /// Damaged bytes, or the file system failed.
    pub fn get(&self, id: BlobId) -> Result<Option<Vec<u8>>, BlobError> {
        let bytes = match std::fs::read(self.path(id)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(BlobError::Io { id, source }),
        };
        let actual = BlobId::of(&bytes);
        if actual != id {
            return Err(BlobError::Damaged {
                expected: id,
                actual,
            });
        }
        Ok(Some(bytes))
    }

    /// Whether a file of the right size is there; its bytes are not looked at.
    #[must_use]
    pub fn contains(&self, blob: &BlobRef) -> bool {
        std::fs::metadata(self.path(blob.id)).is_ok_and(|meta| meta.len() == blob.bytes)
    }

    /// Removes a blob; one that is not there is fine.
    ///
    /// # Errors
    /// The file system failed.
    pub fn remove(&self, id: BlobId) -> Result<(), BlobError> {
        let removed = files::remove(&self.dir, &id.to_hex());
        let bytes = removed.map_err(|source| BlobError::Io { id, source })?;
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes of all blobs.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// All blobs in the folder, in order of their names.
    ///
    /// # Errors
    /// The file system failed.
    pub fn list(&self) -> io::Result<Vec<BlobId>> {
        let names = files::list_names(&self.dir)?;
        Ok(names
            .iter()
            .filter_map(|name| BlobId::from_hex(name))
            .collect())
    }

    fn path(&self, id: BlobId) -> PathBuf {
        self.dir.join(id.to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_bytes_are_seen_when_read_and_healed_when_put_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = BlobStore::open(dir.path()).expect("opens");
        let blob = store.put(b"freshet").expect("written");
        std::fs::write(dir.path().join(blob.id.to_hex()), b"freshes").expect("write");
        assert!(store.contains(&blob));
        assert!(matches!(store.get(blob.id), Err(BlobError::Damaged { .. })));
        store.put(b"freshet").expect("written");
        assert_eq!(store.bytes(), 7);
        assert_eq!(
            store.get(blob.id).expect("read").as_deref(),
            Some(b"freshet".as_slice())
        );
    }

    #[test]
    fn half_written_files_are_removed_on_open() {
        let dir = tempfile::tempdir().expect("temp dir");
        let id = BlobId::of(b"freshet");
        let torn = dir.path().join(format!(".unfinished-{id}"));
        std::fs::write(&torn, b"fres").expect("write");
        let store = BlobStore::open(dir.path()).expect("opens");
        assert!(!torn.exists());
        assert_eq!(store.bytes(), 0);
        assert_eq!(store.list().expect("list"), []);
        assert_eq!(store.get(id).expect("read"), None);
    }
}
