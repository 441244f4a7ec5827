//! Who may do what: the keys of `[access]`, the roles they give, and when a start without them is refused.
//!
//! Of a key only the hash is kept, and hashes are compared in constant time. Not here: which route wants which role
//! (`http::guard`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::Serialize;

use crate::config::{AccessConfig, Config};

/// Shortest key, in characters.
pub const KEY_LEN_MIN: usize = 16;
/// Longest key, in characters.
pub const KEY_LEN_MAX: usize = 512;
/// Random bytes of a key made here.
const FRESH_KEY_BYTES: usize = 24;

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Posting events and fault reports.
    Ingest,
    /// Recommendations, scores, explanations, status.
    Read,
    /// Everything.
    Admin,
}

impl Role {
    /// All, weakest first.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Read, Self::Admin];

    /// The setting that holds its key.
    #[must_use]
    pub fn setting(self) -> &'static str {
        match self {
            Self::Ingest => "ingest_key",
            Self::Read => "read_key",
            Self::Admin => "admin_token",
        }
    }

    /// The setting that holds the key before it.
    fn previous_setting(self) -> &'static str {
        match self {
            Self::Ingest => "ingest_key_previous",
            Self::Read => "read_key_previous",
            Self::Admin => "admin_token_previous",
        }
    }

    fn configured(self, config: &AccessConfig) -> Configured<'_> {
        let (key, previous, file) = match self {
            Self::Ingest => (
                &config.ingest_key,
                &config.ingest_key_previous,
                &config.ingest_key_file,
            ),
            Self::Read => (
                &config.read_key,
                &config.read_key_previous,
                &config.read_key_file,
            ),
            Self::Admin => (
                &config.admin_token,
                &config.admin_token_previous,
                &config.admin_token_file,
            ),
        };
        Configured {
            key: key.reveal(),
            previous: previous.reveal(),
            file: file.as_deref(),
        }
    }
}

/// What is set of a role; empty texts where there is nothing.
struct Configured<'a> {
    key: &'a str,
    previous: &'a str,
    file: Option<&'a Path>,
}

/// Why the server does not start with these keys.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Both a text and a file.
    #[error("`access.{0}` and `access.{0}_file` are both set, expected one of them")]
    Both(&'static str),
    /// The file could not be read.
    #[error("`access.{setting}_file` cannot be read: {source}: {}", path.display())]
    Unreadable {
        /// The key.
        setting: &'static str,
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Too short, too long, or with other characters.
    #[error(
        "{place} has {actual} characters, expected {KEY_LEN_MIN} to {KEY_LEN_MAX} letters, digits or `-._~`"
    )]
    Unusable {
        /// Setting or file that holds the key.
        place: String,
        /// Its length.
        actual: usize,
    },
    /// One key in two places.
    #[error("`access.{0}` and `access.{1}` are the same, expected different keys")]
    Same(&'static str, &'static str),
    /// A key before one that is not there.
    #[error("`access.{0}_previous` is set without `access.{0}`, expected both or neither")]
    PreviousAlone(&'static str),
    /// A file of more than the key and the one before it.
    #[error(
        "the file of `access.{setting}_file` has {actual} lines, expected the key, and below it at most the one before: {}",
        path.display()
    )]
    Lines {
        /// The key.
        setting: &'static str,
        /// Its file.
        path: PathBuf,
        /// Its lines.
        actual: usize,
    },
    /// Everyone could do what only operators should.
    #[error(
        "{setting} is {address}, which others can reach, but no key is set for: {}",
        names(missing)
    )]
    Exposed {
        /// The setting of the address.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// Whose keys it needs and has not.
        missing: Vec<Role>,
    },
    /// A key that is asked for would be asked for no longer.
    #[error("no key is set any more for: {}; taking a key away takes a restart", names(.0))]
    TakenAway(Vec<Role>),
    /// The system gave no random bytes.
    #[error("no key can be made: {0}")]
    Random(String),
}

impl AccessError {
    /// Keys made just now for those that are missing, in words; nothing where another thing is wrong. For the terminal of
    /// whoever starts the server, not for its log.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn proposal(&self) -> Result<Option<String>, Self> {
        let Self::Exposed { missing, .. } = self else {
            return Ok(None);
        };
        let (mut variables, mut lines, mut files) = (String::new(), String::new(), Vec::new());
        for role in missing {
            let (name, key) = (role.setting(), fresh_key()?);
            let variable = name.to_uppercase();
            variables.push_str(&format!("FRESHET__ACCESS__{variable}={key}\n"));
            lines.push_str(&format!("{name} = \"{key}\"\n"));
            files.push(format!("access.{name}_file"));
        }
        Ok(Some(format!(
            "Keep these, made just now, as variables, for example in the file of `docker run --env-file` or of systemd's \
             EnvironmentFile (in a shell, put `export ` before each):\n\n{variables}\n\
             or in the file of --config:\n\n[access]\n{lines}\n\
             or each in a file of its own, named by {}",
            files.join(", ")
        )))
    }
}

fn names(roles: &[Role]) -> String {
    let names: Vec<&str> = roles.iter().map(|role| role.setting()).collect();
    names.join(", ")
}

/// What to do about an answer of that status on the command line; empty where it is not about keys.
#[must_use]
pub fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => "; give it with --token or FRESHET_TOKEN",
        _ => "",
    }
}

/// The keys of a server, as hashes.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// In the order of [`Role::ALL`].
    held: [KeyPair; Role::ALL.len()],
}

/// The key of a role, and the one before it while that is still taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct KeyPair {
    current: Option<blake3::Hash>,
    previous: Option<blake3::Hash>,
}

impl Keys {
    /// Reads the keys and their files, and refuses addresses that everyone could reach without one.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn from_config(config: &Config) -> Result<Self, AccessError> {
        let mut keys = Self::default();
        for role in Role::ALL {
            keys.held[role as usize] = read(role, &config.access)?; // declaration order is the order of `ALL`
        }
        keys.check_different()?;
        let server = &config.server;
        keys.check_exposure("server.bind", Some(server.bind), &Role::ALL)?;
        keys.check_exposure("server.admin_bind", server.admin_bind, &[Role::Admin])?;
        Ok(keys)
    }

    /// Whether a key is asked for.
    #[must_use]
    pub fn asks_for(&self, role: Role) -> bool {
        self.held[role as usize].current.is_some()
    }

    /// Whose key it is; takes as long whatever is shown.
    #[must_use]
    pub fn role_of(&self, shown: &str) -> Option<Role> {
        if shown.len() > KEY_LEN_MAX {
            return None;
        }
        let shown = Some(blake3::hash(shown.as_bytes()));
        let mut found = None;
        for role in Role::ALL {
            let KeyPair { current, previous } = self.held[role as usize];
            // Hashes are compared in constant time, and both are.
            if (current == shown) | (previous == shown) {
                found = Some(role);
            }
        }
        found
    }

    /// What is different in `other`, in words without keys; empty where nothing is.
    #[must_use]
    pub fn changes_to(&self, other: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for role in Role::ALL {
            let [ours, theirs] = [self, other].map(|keys| keys.held[role as usize]);
            let pairs = [
                (role.setting(), ours.current, theirs.current),
                (role.previous_setting(), ours.previous, theirs.previous),
            ];
            for (setting, before, after) in pairs {
                let what = match (before, after) {
                    (None, Some(_)) => "set",
                    (Some(_), None) => "taken away",
                    (before, after) if before != after => "replaced",
                    (_, _) => continue,
                };
                changes.push(format!("{setting} {what}"));
            }
        }
        changes
    }

    fn check_different(&self) -> Result<(), AccessError> {
        let mut seen: Vec<(&str, blake3::Hash)> = Vec::new();
        for role in Role::ALL {
            let KeyPair { current, previous } = self.held[role as usize];
            for (setting, hash) in [
                (role.setting(), current),
                (role.previous_setting(), previous),
            ] {
                let Some(hash) = hash else { continue };
                if let Some((other, _)) = seen.iter().find(|(_, other)| *other == hash) {
                    return Err(AccessError::Same(*other, setting));
                }
                seen.push((setting, hash));
            }
        }
        Ok(())
    }

    fn check_exposure(
        &self,
        setting: &'static str,
        address: Option<SocketAddr>,
        needed: &[Role],
    ) -> Result<(), AccessError> {
        let Some(address) = address.filter(|address| !address.ip().is_loopback()) else {
            return Ok(());
        };
        let missing = needed.iter().copied().filter(|role| !self.asks_for(*role));
        let missing: Vec<Role> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(AccessError::Exposed {
            setting,
            address,
            missing,
        })
    }
}

/// The keys that hold now, replaced whole: a request sees one set of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LiveKeys(Arc<RwLock<Arc<Keys>>>);

impl LiveKeys {
    /// Begins with these.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(keys))))
    }

    /// Those that hold now.
    #[must_use]
    pub fn now(&self) -> Arc<Keys> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)) // whole at any time
    }

    /// The keys that `config` names in the place of these, for [`Self::replace`]. A key that is asked for cannot be taken
    /// away: behind a proxy on this machine every address is loopback, and a file that lost its keys would open it.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn successor(&self, config: &Config) -> Result<Keys, AccessError> {
        let keys = Keys::from_config(config)?;
        let ours = self.now();
        let is_lost = |role: &Role| ours.asks_for(*role) && !keys.asks_for(*role);
        let lost: Vec<Role> = Role::ALL.into_iter().filter(is_lost).collect();
        if lost.is_empty() {
            Ok(keys)
        } else {
            Err(AccessError::TakenAway(lost))
        }
    }

    /// From the next request on these hold.
    pub fn replace(&self, keys: Keys) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

fn read(role: Role, config: &AccessConfig) -> Result<KeyPair, AccessError> {
    let setting = role.setting();
    let Configured {
        key,
        previous,
        file,
    } = role.configured(config);
    if file.is_some() && !key.is_empty() {
        return Err(AccessError::Both(setting));
    }
    let Some(path) = file else {
        if key.is_empty() && !previous.is_empty() {
            return Err(AccessError::PreviousAlone(setting));
        }
        return Ok(KeyPair {
            current: hash_unless_empty(key, &format!("`access.{setting}`"))?,
            previous: hash_unless_empty(previous, &format!("`access.{setting}_previous`"))?,
        });
    };
    let text = read_file(setting, path)?;
    let mut lines = text.split('\n');
    let (key, second) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    if lines.next().is_some() {
        return Err(AccessError::Lines {
            setting,
            path: path.to_owned(),
            actual: text.split('\n').count(),
        });
    }
    if !second.is_empty() && !previous.is_empty() {
        return Err(AccessError::Both(role.previous_setting()));
    }
    let place = format!("the file of `access.{setting}_file`, {},", path.display());
    let previous = if second.is_empty() { previous } else { second };
    let previous_place = if second.is_empty() {
        format!("`access.{setting}_previous`")
    } else {
        format!("line 2 of {place}")
    };
    Ok(KeyPair {
        current: Some(hash(key.trim_end_matches('\r'), &place)?),
        previous: hash_unless_empty(previous, &previous_place)?,
    })
}

fn hash_unless_empty(key: &str, place: &str) -> Result<Option<blake3::Hash>, AccessError> {
    if key.is_empty() {
        return Ok(None);
    }
    hash(key, place).map(Some)
}

fn hash(key: &str, place: &str) -> Result<blake3::Hash, AccessError> {
    let is_key_char = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    if !(KEY_LEN_MIN..=KEY_LEN_MAX).contains(&key.len()) || !key.chars().all(is_key_char) {
        let (place, actual) = (place.to_owned(), key.chars().count());
        return Err(AccessError::Unusable { place, actual });
    }
    Ok(blake3::hash(key.as_bytes()))
}

/// The text of a file without the line breaks at its end.
fn read_file(setting: &'static str, path: &Path) -> Result<String, AccessError> {
    let text = std::fs::read_to_string(path).map_err(|source| AccessError::Unreadable {
        setting,
        path: path.to_owned(),
        source,
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn fresh_key() -> Result<String, AccessError> {
    let mut bytes = [0; FRESH_KEY_BYTES];
    OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| AccessError::Random(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests;
