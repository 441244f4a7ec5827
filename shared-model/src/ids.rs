//! Newtypes for identifiers, versions and offsets, checked where they enter.
//!
//! Not here: what the identifiers point to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest identifier accepted from outside, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// Why an identifier was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing in it.
    #[error("identifier is empty")]
    Empty,
    /// Longer than [`ID_BYTES_MAX`].
    #[error("identifier has {actual} bytes, at most {ID_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length in bytes.
        actual: usize,
    },
    /// A control character in it.
    #[error("identifier holds the control character {character:?}")]
    Control {
        /// The offending character.
        character: char,
    },
}

/// Checks what every identifier must satisfy.
///
/// # Errors
/// Empty, longer than [`ID_BYTES_MAX`], or holding a control character.
pub fn check_id(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong { actual: text.len() });
    }
    match text.chars().find(|character| character.is_control()) {
        Some(character) => Err(IdError::Control { character }),
        None => Ok(()),
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "schema", schemars(extend("minLength" = 1, "maxLength" = ID_BYTES_MAX, "pattern" = r"^[^\x00-\x1f\x7f-\x9f]+$")))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// # Errors
            /// See [`check_id`].
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check_id(&text)?;
                Ok(Self(text))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// Chosen by the sender; an event is learned from once per id.
    EventId
);
text_id!(
    /// Pseudonymous id of a visitor.
    UserId
);
text_id!(
    /// Id of a catalogue item.
    ItemId
);
text_id!(
    /// Arm of an experiment, as `experiment/arm`.
    ArmId
);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
        )]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

number_id!(
    /// Number of a published version, rising by one; 0 is the empty state before the first.
    Version
);
number_id!(
    /// Position in the event log, in records; "learned through 5" means records 0 to 4 are learned.
    LogOffset
);

/// BLAKE3 hash of some bytes: the name of a blob, and of a code state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(extend("pattern" = "^[0-9a-f]{64}$"))
)]
pub struct BlobId(#[cfg_attr(feature = "schema", schemars(with = "String"))] pub [u8; 32]);

impl BlobId {
    /// Hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Reads what [`Self::to_hex`] wrote; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        blake3::Hash::from_hex(text)
            .ok()
            .map(|hash| Self(*hash.as_bytes())) // any malformed text means "not an id"
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_hex())
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BlobId({self})")
    }
}

impl Serialize for BlobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom("expected 64 lower-case hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_empty_long_and_control_ids() {
        assert_eq!(ItemId::new(""), Err(IdError::Empty));
        assert_eq!(
            ItemId::new("x".repeat(129)),
            Err(IdError::TooLong { actual: 129 })
        );
        assert_eq!(
            ItemId::new("a\nb"),
            Err(IdError::Control { character: '\n' })
        );
        assert!(ItemId::new("x".repeat(128)).is_ok());
    }

    #[test]
    fn blob_id_survives_hex_and_refuses_other_text() {
        let id = BlobId::of(b"freshet");
        assert_eq!(BlobId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(BlobId::from_hex("00"), None);
        assert_eq!(BlobId::from_hex(&id.to_hex().to_uppercase()), None);
    }
}
