//! The ed25519 key that signs manifests: `signing.key` in the data directory, made on first start.
//!
//! 64 hexadecimal digits of the seed and a line end, readable by its owner only.

use std::io::{self, Read};
use std::path::Path;

use ed25519_dalek::SigningKey;
use rand::TryRngCore;
use rand::rngs::OsRng;

use super::files;

pub(super) const KEY_FILE_NAME: &str = "signing.key";

/// Longest file of a key, in bytes: 64 digits and white space.
const KEY_FILE_BYTES_MAX: u64 = 128;

/// Reads the key, or makes one where there is none.
pub(super) fn open(data_dir: &Path) -> io::Result<SigningKey> {
    std::fs::create_dir_all(data_dir)?;
    let path = data_dir.join(KEY_FILE_NAME);
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(data_dir),
        read => read,
    }
}

/// Reads a secret key; what is longer than a key is refused unread.
pub(crate) fn read(path: &Path) -> io::Result<SigningKey> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(KEY_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    parse(text.trim_end())
}

/// Writes a secret key whole, readable by its owner only; fails where there is a file already.
pub(crate) fn write(path: &Path, key: &SigningKey) -> io::Result<()> {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str);
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut text: String = key
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    text.push('\n');
    files::write_new(dir.unwrap_or(Path::new(".")), name, text.as_bytes(), true)
}

/// A new secret key, from the randomness of the system.
pub(crate) fn random() -> io::Result<SigningKey> {
    let mut seed = [0; 32];
    OsRng.try_fill_bytes(&mut seed).map_err(io::Error::other)?;
    Ok(SigningKey::from_bytes(&seed))
}

fn create(data_dir: &Path) -> io::Result<SigningKey> {
    let key = random()?;
    write(&data_dir.join(KEY_FILE_NAME), &key)?;
    tracing::info!(
        "made a signing key: {}",
        data_dir.join(KEY_FILE_NAME).display()
    );
    Ok(key)
}

fn parse(text: &str) -> io::Result<SigningKey> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "expected 64 hexadecimal digits");
    if text.len() != 64 || !text.is_ascii() {
        return Err(malformed());
    }
    let mut seed = [0; 32];
    for (byte, pair) in seed.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(pair).expect("checked to be ASCII");
        // Any malformed digit means the same: this is not a key.
        *byte = u8::from_str_radix(digits, 16).ok().ok_or_else(malformed)?;
    }
    Ok(SigningKey::from_bytes(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().expect("temp dir");
        let made = open(dir.path()).expect("made");
        let read = open(dir.path()).expect("read");
        assert_eq!(made.to_bytes(), read.to_bytes());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let meta = std::fs::metadata(dir.path().join(KEY_FILE_NAME)).expect("there");
            assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_key_is_an_error_and_not_replaced() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join(KEY_FILE_NAME), "zz").expect("write");
        assert!(open(dir.path()).is_err());
        assert_eq!(
            std::fs::read_to_string(dir.path().join(KEY_FILE_NAME)).expect("there"),
            "zz"
        );
    }
}
