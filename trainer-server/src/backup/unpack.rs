//! Reading a backup, folder or archive: every file once, in order, each checked against what is listed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use shared_model::ids::BlobId;

use super::{BackupError, CONTENTS_BYTES_MAX, CONTENTS_NAME, Contents, Folder, Hashed, check_path};

/// What is done with a file: its path, and its bytes.
pub type Visit<'a> = &'a mut dyn FnMut(&str, &mut Hashed<'_>) -> Result<(), BackupError>;

/// Reads the backup at `path`; what `visit` saw is to be trusted only once this returns.
///
/// # Errors
/// A file is damaged or missing, or `visit` failed.
pub fn unpack(path: &Path, visit: Visit<'_>) -> Result<Contents, BackupError> {
    if path.is_dir() {
        return unpack_folder(path, visit);
    }
    let file = File::open(path).map_err(BackupError::io("cannot open", path))?;
    let (contents, seen) = unpack_archive(BufReader::new(file), path, visit)?;
    let missing = contents
        .files
        .iter()
        .find(|file| !seen.contains(&file.path));
    match missing {
        Some(file) => Err(BackupError::Missing {
            path: file.path.clone(),
        }),
        None => Ok(contents),
    }
}

fn unpack_folder(path: &Path, visit: Visit<'_>) -> Result<Contents, BackupError> {
    let missing = |path: String| BackupError::Missing { path };
    let contents_path = path.join(CONTENTS_NAME);
    if !contents_path.exists() {
        return Err(missing(contents_path.display().to_string()));
    }
    let folder = Folder::open(path)?;
    let contents = folder.contents()?;
    let contents = contents.ok_or_else(|| missing(contents_path.display().to_string()))?;
    for file in &contents.files {
        let mut object = match folder.object(file.blake3) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(missing(file.path.clone()));
            }
            object => object.map_err(BackupError::io("cannot open", Path::new(&file.path)))?,
        };
        let metadata = object.metadata();
        let bytes = metadata
            .map_err(BackupError::io("cannot read", Path::new(&file.path)))?
            .len();
        let mut hashed = Hashed::new(&mut object, bytes);
        visit(&file.path, &mut hashed)?;
        let found = finish(&file.path, &mut hashed)?;
        check(&file.path, found, (file.bytes, file.blake3))?;
    }
    Ok(contents)
}

/// Reads an archive; returns what is in it and the paths that it had. What is listed and was not in it is the caller's
/// to find elsewhere.
///
/// # Errors
/// As [`unpack`], or the archive was cut off.
pub fn unpack_archive(
    reader: impl Read,
    at: &Path,
    visit: Visit<'_>,
) -> Result<(Contents, HashSet<String>), BackupError> {
    let cannot_read = |error| BackupError::io("cannot read the archive", at)(error);
    let mut archive = tar::Archive::new(reader);
    let mut found = HashMap::new();
    for entry in archive.entries().map_err(cannot_read)? {
        let mut entry = entry.map_err(cannot_read)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        check_path(&path)?;
        let bytes = entry.size();
        if path == CONTENTS_NAME {
            let contents = read_contents(&mut entry, bytes)?;
            let seen = check_all(&contents, found)?;
            return Ok((contents, seen));
        }
        let mut hashed = Hashed::new(&mut entry, bytes);
        visit(&path, &mut hashed)?;
        let file = finish(&path, &mut hashed)?;
        found.insert(path, file);
    }
    Err(BackupError::Missing {
        path: format!("{CONTENTS_NAME} at the end of the archive"),
    })
}

fn read_contents(entry: &mut dyn Read, bytes: u64) -> Result<Contents, BackupError> {
    if bytes > CONTENTS_BYTES_MAX {
        return Err(BackupError::Malformed {
            path: CONTENTS_NAME.to_owned(),
            detail: format!("{bytes} bytes, at most {CONTENTS_BYTES_MAX}"),
        });
    }
    let mut json = Vec::new();
    let read = entry.take(bytes).read_to_end(&mut json);
    read.map_err(BackupError::io("cannot read", Path::new(CONTENTS_NAME)))?;
    Contents::parse(&json)
}

fn check_all(
    contents: &Contents,
    mut found: HashMap<String, (u64, BlobId)>,
) -> Result<HashSet<String>, BackupError> {
    let mut seen = HashSet::new();
    for file in &contents.files {
        if let Some(found) = found.remove(&file.path) {
            check(&file.path, found, (file.bytes, file.blake3))?;
            seen.insert(file.path.clone());
        }
    }
    match found.into_keys().next() {
        Some(path) => Err(BackupError::Malformed {
            path,
            detail: "it is in the archive and not listed".to_owned(),
        }),
        None => Ok(seen),
    }
}

fn finish(path: &str, hashed: &mut Hashed<'_>) -> Result<(u64, BlobId), BackupError> {
    hashed
        .finish()
        .map_err(BackupError::io("cannot read", Path::new(path)))
}

fn check(path: &str, actual: (u64, BlobId), expected: (u64, BlobId)) -> Result<(), BackupError> {
    if actual == expected {
        return Ok(());
    }
    Err(BackupError::Damaged {
        path: path.to_owned(),
        actual_bytes: actual.0,
        actual: actual.1,
        expected_bytes: expected.0,
        expected: expected.1,
    })
}
