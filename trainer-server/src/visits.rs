//! Visit tokens: the server's word that it handed a user id out, for events to carry.
//!
//! ```text
//! token = base64url( expires_at: u64, seconds, big-endian | BLAKE3 keyed with the key of ( expires_at | user_id ) )
//! ```
//!
//! The key is `visits.key` in the data directory, made on first start; without it tokens are worth nothing, and the
//! next are made with another. Not here: who may have how many (`http`), and what an event without one teaches
//! (`influence`).

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use shared_model::ids::UserId;

use crate::publish::signing_key;

const KEY_FILE_NAME: &str = "visits.key";
const EXPIRY_BYTES: usize = 8;
/// Characters of a token: 40 bytes.
const TOKEN_LEN: usize = 54;

/// Makes tokens and checks them.
pub struct VisitTokens {
    key: [u8; blake3::KEY_LEN],
}

impl VisitTokens {
    /// With the key of the data directory, which is made where there is none.
    ///
    /// # Errors
    /// The key can be neither read nor written, or is none.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(KEY_FILE_NAME);
        let key = match signing_key::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = signing_key::random()?;
                signing_key::write(&path, &key)?;
                key
            }
            read => read?,
        };
        Ok(Self {
            key: key.to_bytes(),
        })
    }

    /// A token for a user, good until `expires_at`, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn mint(&self, user_id: &UserId, expires_at: u64) -> String {
        let expiry = expires_at.to_be_bytes();
        let mac = self.mac(expiry, user_id);
        URL_SAFE_NO_PAD.encode([expiry.as_slice(), mac.as_bytes()].concat())
    }

    /// Whether the token was made here for this user and is still good.
    #[must_use]
    pub fn vouches(&self, token: &str, user_id: &UserId, now_millis: i64) -> bool {
        if token.len() != TOKEN_LEN {
            return false;
        }
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else {
            return false;
        };
        let Some((expiry, mac)) = bytes.split_first_chunk::<EXPIRY_BYTES>() else {
            return false;
        };
        let Ok(mac) = <[u8; blake3::OUT_LEN]>::try_from(mac) else {
            return false;
        };
        let now_secs = u64::try_from(now_millis / 1000).unwrap_or(0); // before 1970
        // Hashes are compared in constant time.
        u64::from_be_bytes(*expiry) > now_secs && self.mac(*expiry, user_id) == mac
    }

    fn mac(&self, expiry: [u8; EXPIRY_BYTES], user_id: &UserId) -> blake3::Hash {
        let signed = [expiry.as_slice(), user_id.as_str().as_bytes()].concat();
        blake3::keyed_hash(&self.key, &signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_user_and_time_and_the_same_after_a_restart() {
        let dir = tempfile::tempdir().expect("temp dir");
        let user = |id: &str| UserId::new(id).expect("valid");
        let tokens = VisitTokens::open(dir.path()).expect("made");
        let token = tokens.mint(&user("ann"), 1000);
        assert_eq!(token.len(), TOKEN_LEN);
        let again = VisitTokens::open(dir.path()).expect("read");
        assert!(again.vouches(&token, &user("ann"), 999_999));
        assert!(!again.vouches(&token, &user("ann"), 1_000_000));
        assert!(!again.vouches(&token, &user("bob"), 0));
        let other = tempfile::tempdir().expect("temp dir");
        let stranger = VisitTokens::open(other.path()).expect("made");
        assert!(!stranger.vouches(&token, &user("ann"), 0));
    }

    #[test]
    fn a_token_with_any_character_changed_or_missing_is_worth_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let user = UserId::new("ann").expect("valid");
        let tokens = VisitTokens::open(dir.path()).expect("made");
        let token = tokens.mint(&user, 1000);
        for idx in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[idx] = if changed[idx] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(!tokens.vouches(&changed, &user, 0), "{idx}");
            assert!(!tokens.vouches(&token[..idx], &user, 0), "{idx}");
        }
        assert!(!tokens.vouches(&"ä".repeat(27), &user, 0));
    }
}
