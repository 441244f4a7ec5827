//! A backup as a folder: files under their hashes, `backup.json` beside them.
//!
//! Files never change, so the backup that is there stays whole until the new `backup.json` takes its place.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use shared_model::ids::BlobId;

use super::{BackupError, CONTENTS_BYTES_MAX, CONTENTS_NAME, Contents, Hashed, Sink};
use crate::publish::files::{TEMP_PREFIX, sync_dir, write_whole};

const OBJECTS_DIR: &str = "objects";

/// A folder that holds a backup or is to hold one.
pub struct Folder {
    dir: PathBuf,
    objects: PathBuf,
}

impl Folder {
    /// Opens or makes it.
    ///
    /// # Errors
    /// The file system failed.
    pub fn open(dir: &Path) -> Result<Self, BackupError> {
        let objects = dir.join(OBJECTS_DIR);
        fs::create_dir_all(&objects)
            .map_err(BackupError::io("cannot make the folder", &objects))?;
        Ok(Self {
            dir: dir.to_owned(),
            objects,
        })
    }

    /// What is in it; `None` before the first backup.
    ///
    /// # Errors
    /// `backup.json` cannot be read or is malformed.
    pub fn contents(&self) -> Result<Option<Contents>, BackupError> {
        let path = self.dir.join(CONTENTS_NAME);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(file) if file.len() > CONTENTS_BYTES_MAX => {
                return Err(BackupError::Malformed {
                    path: path.display().to_string(),
                    detail: format!("{} bytes, at most {CONTENTS_BYTES_MAX}", file.len()),
                });
            }
            Ok(_) | Err(_) => {}
        }
        let bytes = fs::read(&path).map_err(BackupError::io("cannot read", &path))?;
        Contents::parse(&bytes).map(Some)
    }

    /// Opens a file by its hash.
    ///
    /// # Errors
    /// The file system failed.
    pub(super) fn object(&self, hash: BlobId) -> io::Result<File> {
        File::open(self.objects.join(hash.to_hex()))
    }

    /// Makes `contents` what is in it, once all its files are there, and removes the files of those before.
    ///
    /// # Errors
    /// A file is missing; what was in it before still is.
    pub fn finish(&self, contents: &Contents) -> Result<(), BackupError> {
        let mut named = BTreeSet::new();
        for file in &contents.files {
            let name = file.blake3.to_hex();
            let is_there = fs::metadata(self.objects.join(&name))
                .is_ok_and(|object| object.len() == file.bytes);
            if !is_there {
                return Err(BackupError::Missing {
                    path: file.path.clone(),
                });
            }
            named.insert(name);
        }
        let io = BackupError::io;
        sync_dir(&self.objects).map_err(io("cannot sync", &self.objects))?;
        let bytes = contents.to_json();
        write_whole(&self.dir, CONTENTS_NAME, &bytes).map_err(io("cannot write", &self.dir))?;
        for entry in fs::read_dir(&self.objects).map_err(io("cannot list", &self.objects))? {
            let entry = entry.map_err(io("cannot list", &self.objects))?;
            if !named.contains(&*entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).map_err(io("cannot remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}

impl Sink for Folder {
    fn file(&mut self, _path: &str, reader: &mut Hashed<'_>) -> io::Result<()> {
        let temp = self.objects.join(format!("{TEMP_PREFIX}object"));
        let mut file = File::create(&temp)?;
        io::copy(reader, &mut file)?;
        let (_, hash) = reader.finish()?;
        file.sync_all()?;
        fs::rename(&temp, self.objects.join(hash.to_hex()))
    }
}
