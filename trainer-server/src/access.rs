//! Who may do what: the keys of `[access]`, the roles they give, and when a start without them is refused.
//!
//! Of a key only the hash is kept, and hashes are compared in constant time. Not here: which route wants which role
//! (`http::guard`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::Serialize;

use crate::config::{AccessConfig, Config, Secret};

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

    fn configured(self, config: &AccessConfig) -> (&Secret, Option<&Path>) {
        match self {
            Self::Ingest => (&config.ingest_key, config.ingest_key_file.as_deref()),
            Self::Read => (&config.read_key, config.read_key_file.as_deref()),
            Self::Admin => (&config.admin_token, config.admin_token_file.as_deref()),
        }
    }
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
    /// One key for two roles.
    #[error("`access.{0}` and `access.{1}` are the same, expected different keys")]
    Same(&'static str, &'static str),
    /// Everyone could do what only operators should.
    #[error("{0}")]
    Exposed(String),
    /// The system gave no random bytes.
    #[error("no key can be made: {0}")]
    Random(String),
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
    hashes: [Option<blake3::Hash>; Role::ALL.len()],
}

impl Keys {
    /// Reads the keys and their files, and refuses addresses that everyone could reach without one.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn from_config(config: &Config) -> Result<Self, AccessError> {
        let mut keys = Self::default();
        for role in Role::ALL {
            let hash = read(role, &config.access)?;
            for other in Role::ALL {
                if hash.is_some() && keys.hashes[other as usize] == hash {
                    return Err(AccessError::Same(other.setting(), role.setting()));
                }
            }
            keys.hashes[role as usize] = hash; // declaration order is the order of `ALL`
        }
        let server = &config.server;
        keys.check_exposure("server.bind", Some(server.bind), &Role::ALL)?;
        keys.check_exposure("server.admin_bind", server.admin_bind, &[Role::Admin])?;
        Ok(keys)
    }

    /// Whether a key is asked for.
    #[must_use]
    pub fn asks_for(&self, role: Role) -> bool {
        self.hashes[role as usize].is_some()
    }

    /// Whose key it is; takes as long whatever is shown.
    #[must_use]
    pub fn role_of(&self, shown: &str) -> Option<Role> {
        if shown.len() > KEY_LEN_MAX {
            return None;
        }
        let shown = blake3::hash(shown.as_bytes());
        let mut found = None;
        for role in Role::ALL {
            if self.hashes[role as usize] == Some(shown) {
                found = Some(role);
            }
        }
        found
    }

    fn check_exposure(
        &self,
        setting: &str,
        address: Option<SocketAddr>,
        needed: &[Role],
    ) -> Result<(), AccessError> {
        let Some(address) = address.filter(|address| !address.ip().is_loopback()) else {
            return Ok(());
        };
        let missing: Vec<&str> = needed
            .iter()
            .filter(|role| !self.asks_for(**role))
            .map(|role| role.setting())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut said = format!(
            "{setting} is {address}, which others can reach, but no key is set for: {}\n\n\
             Keep these, made just now, as variables, for example in the file of `docker run --env-file` or of systemd's \
             EnvironmentFile (in a shell, put `export ` before each):\n\n",
            missing.join(", ")
        );
        let (mut lines, mut files) = (String::new(), Vec::new());
        for name in missing {
            let key = fresh_key()?;
            let variable = name.to_uppercase();
            said.push_str(&format!("FRESHET__ACCESS__{variable}={key}\n"));
            lines.push_str(&format!("{name} = \"{key}\"\n"));
            files.push(format!("access.{name}_file"));
        }
        said.push_str(&format!(
            "\nor in the file of --config:\n\n[access]\n{lines}\n\
             or each in a file of its own, named by {}",
            files.join(", ")
        ));
        Err(AccessError::Exposed(said))
    }
}

fn read(role: Role, config: &AccessConfig) -> Result<Option<blake3::Hash>, AccessError> {
    let setting = role.setting();
    let (secret, file) = role.configured(config);
    let (key, place) = match (secret.reveal(), file) {
        ("", None) => return Ok(None),
        (key, None) => (key.to_owned(), format!("`access.{setting}`")),
        ("", Some(path)) => {
            let place = format!("the file of `access.{setting}_file`, {},", path.display());
            (read_file(setting, path)?, place)
        }
        (_, Some(_)) => return Err(AccessError::Both(setting)),
    };
    let is_key_char = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    if !(KEY_LEN_MIN..=KEY_LEN_MAX).contains(&key.len()) || !key.chars().all(is_key_char) {
        let actual = key.chars().count();
        return Err(AccessError::Unusable { place, actual });
    }
    Ok(Some(blake3::hash(key.as_bytes())))
}

/// The first line of a file; it may end with a line break.
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
mod tests {
    use super::*;
    use crate::config::load::{Sources, load};

    const INGEST: &str = "ingest-0123456789";
    const READ: &str = "read-0123456789ab";

    fn keys(flags: &[(&str, &str)]) -> Result<Keys, AccessError> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let config = load(&Sources {
            flags: flags.iter().map(owned).collect(),
            ..Sources::default()
        });
        Keys::from_config(&config.expect("valid settings"))
    }

    #[test]
    fn a_key_gives_its_role_and_anything_else_none() {
        let keys = keys(&[("access.ingest_key", INGEST), ("access.read_key", READ)]).expect("fine");
        assert_eq!(keys.role_of(INGEST), Some(Role::Ingest));
        assert_eq!(keys.role_of(READ), Some(Role::Read));
        let long = INGEST.repeat(100);
        for shown in ["", "ingest-012345678", "ingest-0123456789a", &*long, "é"] {
            assert_eq!(keys.role_of(shown), None, "{shown}");
        }
        assert!(keys.asks_for(Role::Read) && !keys.asks_for(Role::Admin));
    }

    #[test]
    fn a_key_from_a_file_may_end_with_a_line_break() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), format!("{READ}\n")).expect("written");
        let path = file.path().display().to_string();
        let from_file = keys(&[("access.read_key_file", &path)]).expect("fine");
        assert_eq!(from_file.role_of(READ), Some(Role::Read));
        let both = keys(&[("access.read_key_file", &path), ("access.read_key", READ)]);
        assert!(
            matches!(both, Err(AccessError::Both("read_key"))),
            "{both:?}"
        );
        let missing = keys(&[("access.read_key_file", "/no/such/key")]);
        let said = missing.expect_err("no file").to_string();
        assert!(
            said.contains("read_key_file") && said.contains("/no/such/key"),
            "{said}"
        );
        std::fs::write(file.path(), "\n").expect("written");
        let empty = keys(&[("access.read_key_file", &path)]).expect_err("empty");
        let start = format!("the file of `access.read_key_file`, {path}, has 0 characters");
        assert!(empty.to_string().starts_with(&start), "{empty}");
    }

    #[test]
    fn weak_and_equal_keys_are_refused_without_being_told() {
        for weak in ["fifteen-letters", "has a space in it ", "umlaut-äöü-umlaut"] {
            let said = keys(&[("access.admin_token", weak)])
                .expect_err("weak")
                .to_string();
            assert!(
                said.contains("access.admin_token") && !said.contains(weak),
                "{said}"
            );
        }
        let same = keys(&[("access.ingest_key", READ), ("access.read_key", READ)]);
        let said = same.expect_err("the same").to_string();
        assert!(
            said.contains("ingest_key") && said.contains("read_key"),
            "{said}"
        );
    }

    #[test]
    fn an_address_that_others_reach_wants_keys_and_the_refusal_brings_some() {
        assert!(keys(&[("server.bind", "[::1]:7878")]).is_ok());
        let open = [("server.bind", "0.0.0.0:7878"), ("access.read_key", READ)];
        let said = keys(&open).expect_err("two are missing").to_string();
        let proposed = |name: &str| {
            let start = format!("FRESHET__ACCESS__{name}=");
            said.lines().find_map(|line| line.strip_prefix(&start))
        };
        assert_eq!(proposed("READ_KEY"), None);
        let ingest = proposed("INGEST_KEY").expect("a key");
        let admin = proposed("ADMIN_TOKEN").expect("a key");
        assert!(
            said.contains(&format!("ingest_key = \"{ingest}\"")),
            "{said}"
        );
        let given = [
            ("access.ingest_key", ingest),
            ("access.admin_token", admin),
            open[0],
            open[1],
        ];
        assert!(keys(&given).is_ok(), "what was proposed is taken");
        let admin_alone = keys(&[("server.admin_bind", "0.0.0.0:7879")]).expect_err("no token");
        let said = admin_alone.to_string();
        assert!(
            said.contains("server.admin_bind") && !said.contains("INGEST_KEY"),
            "{said}"
        );
    }
}
