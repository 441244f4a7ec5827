//! What the log holds of those who are forgotten: hashes, and never a user or an event.
//!
//! A hash of 16 bytes is the beginning of the BLAKE3 hash of an id. Whoever can guess an id can recognize its hash,
//! so these are pseudonyms; they are kept for no longer than they are needed.

use std::fmt;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shared_model::ids::{LogOffset, UserId};

/// First 16 bytes of the BLAKE3 hash of an id; 32 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
#[schemars(extend("pattern" = "^[0-9a-f]{32}$"))]
pub struct IdHash(#[schemars(with = "String")] pub [u8; 16]);

impl IdHash {
    /// Of an id.
    #[must_use]
    pub fn of(id: &str) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
        Self(short)
    }

    /// Of a user.
    #[must_use]
    pub fn of_user(user_id: &UserId) -> Self {
        Self::of(user_id.as_str())
    }
}

impl fmt::Display for IdHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for IdHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for IdHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IdHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| is_hex);
        let number = number.ok_or_else(|| {
            D::Error::custom(format!("expected 32 hexadecimal digits, found {text}"))
        })?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// Of an event that was taken out: enough to know it again when it is sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedId {
    /// Of the event's id.
    pub id_hash: IdHash,
    /// When the event was taken in, in milliseconds since 1970-01-01 UTC.
    pub received_at: i64,
}

/// An order to forget a user: all events before it in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserErasure {
    /// Of the user's id.
    pub user_hash: IdHash,
    /// When it was ordered, in milliseconds since 1970-01-01 UTC.
    pub erased_at: i64,
}

/// What was done to the log when it was rewritten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rewritten {
    /// Events of erased users that became tombstones.
    pub num_erased: u64,
    /// Events beyond their retention that became tombstones.
    pub num_expired: u64,
    /// One past the last record that was copied.
    pub end: LogOffset,
}
