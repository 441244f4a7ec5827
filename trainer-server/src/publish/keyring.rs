//! The keys of a data directory: what signs, and what is served so that pages can believe it.
//!
//! ```text
//! signing.key         the one key of a server without a root, made on first start
//! keys/KEY_ID.key     secret online keys, 64 hexadecimal digits and a line end, readable by the owner only
//! keys/set-NNNNNN.json  signed key sets, ascending; the last one counts
//! ```
//! Read here only; [`super::ceremony`] writes. Root keys never lie in the data directory.

use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::{SigningKey, VerifyingKey};
use shared_model::manifest::{
    KEY_SET_BYTES_MAX, KEY_SETS_MAX, KeyList, KeySet, KeySetError, PublicKey, RootTrust, key_id,
};

use super::{files, signing_key};

/// Folder of keys and key sets in the data directory.
pub(super) const KEYS_DIR: &str = "keys";

/// Most files in that folder; beyond it, something else has been put there.
const FILES_MAX: usize = 4096;

/// What is left of a key's or a set's time when the operator is warned.
pub const WARN_BEFORE_MILLIS: i64 = 30 * 86_400_000;

/// Why keys could not be read, made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file system failed, or a secret key is damaged.
    #[error("{action}: {source}: {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key set that does not hold, or does not follow from the one before.
    #[error("{source}: {}", path.display())]
    KeySet {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeySetError,
    },
    /// No online key may sign.
    #[error(
        "key set {number} names no key that may sign at {at} and whose secret is here; run `freshet keys rotate`"
    )]
    NoKey {
        /// Number of the set.
        number: u64,
        /// The time asked for.
        at: i64,
    },
    /// The newest set has expired.
    #[error("{0}; run `freshet keys rotate`")]
    SetExpired(KeySetError),
    /// There is no key set.
    #[error("there is no key set here; run `freshet keys init` first: {}", .0.display())]
    NoSet(PathBuf),
    /// There is a key set already.
    #[error("there is a key set already; run `freshet keys rotate` to replace the key: {}", .0.display())]
    HasSet(PathBuf),
    /// The root at hand does not sign for this data directory.
    #[error("root {actual} may not sign the next key set, {expected} may")]
    OtherRoot {
        /// Id of the root at hand.
        actual: String,
        /// Ids of those that may.
        expected: String,
    },
    /// No such key.
    #[error("key set {number} holds no key {key_id}")]
    UnknownKey {
        /// Number of the set.
        number: u64,
        /// The id asked for.
        key_id: String,
    },
}

/// Keys and sets, read at one moment.
#[derive(Debug)]
pub struct Keyring {
    /// All secrets here, also of keys that have left the set: what they signed stays readable.
    secrets: Vec<SigningKey>,
    trust: Option<RootTrust>,
    /// Sets that changed the root, and the newest.
    served: Vec<String>,
}

impl Keyring {
    /// Reads the keys; makes `signing.key` where there is neither a key nor a set.
    ///
    /// # Errors
    /// A file cannot be read, is damaged, or does not follow from the one before.
    pub fn open(data_dir: &Path) -> Result<Self, KeyringError> {
        let mut keyring = Self::read(data_dir)?;
        if keyring.trust.is_none() && keyring.secrets.is_empty() {
            let made = signing_key::open(data_dir)
                .map_err(io_at("cannot make the signing key", data_dir))?;
            keyring.secrets.push(made);
        }
        Ok(keyring)
    }

    /// As [`Self::open`], and makes nothing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read(data_dir: &Path) -> Result<Self, KeyringError> {
        let mut secrets = Vec::new();
        let single = data_dir.join(signing_key::KEY_FILE_NAME);
        if single.exists() {
            secrets.push(read_secret(&single)?);
        }
        let dir = data_dir.join(KEYS_DIR);
        let (mut trust, mut served) = (None, Vec::new());
        for name in list(&dir)? {
            let path = dir.join(&name);
            if name.ends_with(".key") {
                secrets.push(read_secret(&path)?);
            } else if name.starts_with("set-") {
                follow(&mut trust, &mut served, &path)?;
            }
        }
        // The last one is served as the newest, and once only.
        let newest = trust.as_ref().and_then(RootTrust::signed_key_set);
        if let Some(newest) =
            newest.filter(|newest| served.last().is_none_or(|last| last != newest))
        {
            served.push(newest.to_owned());
        }
        let surplus = served.len().saturating_sub(KEY_SETS_MAX);
        served.drain(..surplus);
        Ok(Self {
            secrets,
            trust,
            served,
        })
    }

    /// The newest key set.
    #[must_use]
    pub fn key_set(&self) -> Option<&KeySet> {
        self.trust.as_ref().and_then(RootTrust::key_set)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.key_set().map(|set| set.number)
    }

    /// The newest key that may sign at `at`, milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// [`KeyringError::NoKey`].
    pub fn signer(&self, at: i64) -> Result<&SigningKey, KeyringError> {
        let Some(set) = self.key_set() else {
            return Ok(self
                .secrets
                .first()
                .expect("a key is made where there is no set"));
        };
        let valid = set.keys.iter().rev().filter(|key| key.is_valid_at(at));
        let mut here = valid.filter_map(|key| self.secret(&key.key_id));
        here.next().ok_or(KeyringError::NoKey {
            number: set.number,
            at,
        })
    }

    /// Whether the secret of this key is here.
    #[must_use]
    pub fn has_secret(&self, id: &str) -> bool {
        self.secret(id).is_some()
    }

    fn secret(&self, id: &str) -> Option<&SigningKey> {
        let mut secrets = self.secrets.iter();
        secrets.find(|secret| key_id(&secret.verifying_key()) == id)
    }

    /// Keys that what lies in this directory was signed with, at one time or another.
    #[must_use]
    pub fn own_keys(&self) -> Vec<VerifyingKey> {
        self.secrets.iter().map(SigningKey::verifying_key).collect()
    }

    /// What pages are given: keys that sign now or later, and the key sets.
    #[must_use]
    pub fn key_list(&self) -> KeyList {
        let keys = match self.key_set() {
            Some(set) => set
                .keys
                .iter()
                .rev()
                .map(|key| PublicKey {
                    key_id: key.key_id.clone(),
                    public_key: key.public_key.clone(),
                })
                .collect(),
            None => self
                .own_keys()
                .first()
                .map(PublicKey::from)
                .into_iter()
                .collect(),
        };
        KeyList {
            keys,
            key_sets: self.served.clone(),
        }
    }

    /// Checks that the server can sign at `now_millis`, and says what is about to expire.
    ///
    /// # Errors
    /// The set has expired, or no key may sign.
    pub fn check(&self, now_millis: i64) -> Result<Option<String>, KeyringError> {
        let signer = key_id(&self.signer(now_millis)?.verifying_key());
        let Some(set) = self.key_set() else {
            return Ok(None);
        };
        set.check_expiry(now_millis)
            .map_err(KeyringError::SetExpired)?;
        let soon = now_millis.saturating_add(WARN_BEFORE_MILLIS);
        let days = |until: i64| (until - now_millis) / 86_400_000;
        if set.expires_at < soon {
            let (number, days) = (set.number, days(set.expires_at));
            return Ok(Some(format!(
                "key set {number} expires in {days} days; run `freshet keys rotate`"
            )));
        }
        let key = set
            .keys
            .iter()
            .find(|key| key.key_id == signer && key.expires_at < soon);
        Ok(key.map(|key| {
            let days = days(key.expires_at);
            format!("signing key {signer} expires in {days} days; run `freshet keys rotate`")
        }))
    }
}

/// Takes the next set over, and keeps it for pages if it changes the root.
fn follow(
    trust: &mut Option<RootTrust>,
    served: &mut Vec<String>,
    path: &Path,
) -> Result<(), KeyringError> {
    let refused = |source| KeyringError::KeySet {
        path: path.to_owned(),
        source,
    };
    let io = io_at("cannot read a key set", path);
    let length = std::fs::metadata(path).map_err(&io)?.len();
    if length > KEY_SET_BYTES_MAX as u64 {
        let too_long = io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{length} bytes, at most {KEY_SET_BYTES_MAX} are allowed"),
        );
        return Err(io(too_long));
    }
    let signed = std::fs::read_to_string(path).map_err(&io)?;
    let Some(known) = trust else {
        *trust = Some(RootTrust::of_own(&signed).map_err(refused)?);
        return Ok(());
    };
    let roots = known.key_set().map(|set| set.roots.clone());
    known
        .adopt(std::slice::from_ref(&signed))
        .map_err(refused)?;
    if known.key_set().map(|set| set.roots.clone()) != roots {
        served.push(signed);
    }
    Ok(())
}

fn list(dir: &Path) -> Result<Vec<String>, KeyringError> {
    let io = io_at("cannot list the keys", dir);
    let names = match files::list_names(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(&io)?,
    };
    if names.len() > FILES_MAX {
        return Err(io(io::Error::other(format!(
            "{} files, at most {FILES_MAX} are read",
            names.len()
        ))));
    }
    Ok(names)
}

/// Reads a secret key.
///
/// # Errors
/// It cannot be read, or is not 64 hexadecimal digits.
pub fn read_secret(path: &Path) -> Result<SigningKey, KeyringError> {
    signing_key::read(path).map_err(io_at("cannot read a secret key", path))
}

pub(super) fn io_at(
    action: &'static str,
    path: &Path,
) -> impl Fn(io::Error) -> KeyringError + use<> {
    let path = path.to_owned();
    move |source| KeyringError::Io {
        action,
        path: path.clone(),
        source,
    }
}
