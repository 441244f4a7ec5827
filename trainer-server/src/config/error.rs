//! Why a configuration was refused, in words that name key and value.

use std::path::PathBuf;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file: {source}: {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML; the line itself is not told, it may hold a key.
    #[error("{origin} is not valid TOML: line {line}: {reason}")]
    Syntax {
        /// File, variable or flag.
        origin: String,
        /// From 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}` in {origin}{}", hint(nearest.as_deref()))]
    UnknownKey {
        /// The key with its sections.
        key: String,
        /// File, variable or flag.
        origin: String,
        /// The most similar known key.
        nearest: Option<String>,
    },
    /// A variable or flag that is no value of its key's type.
    #[error("`{key}` is `{actual}` in {origin}, expected {expected}")]
    Value {
        /// The key with its section.
        key: String,
        /// What was given.
        actual: String,
        /// Variable or flag.
        origin: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// A value of the wrong type.
    #[error("{}", in_words(.0))]
    Type(toml::de::Error),
    /// A value out of its range.
    #[error("`{key}` is {actual}, expected {expected}")]
    Range {
        /// The key with its section.
        key: &'static str,
        /// Its value.
        actual: String,
        /// What is allowed.
        expected: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(key) => format!("; did you mean `{key}`?"),
        None => String::new(),
    }
}

/// The key first, and its type in words: what the parser says names it last and as Rust does.
fn in_words(error: &toml::de::Error) -> String {
    let told = error.to_string();
    let told = told.trim();
    let (reason, place) = told.rsplit_once("\nin ").unwrap_or((told, ""));
    let mut reason = reason.trim_end().to_owned();
    for (types, words) in [
        (
            &["u64", "u32", "u16", "u8", "usize"][..],
            "a whole number of at least 0",
        ),
        (&["i64", "i32"], "a whole number"),
        (&["f64", "f32"], "a number"),
        (&["a sequence"], "a list such as [\"a\", \"b\"]"),
    ] {
        for name in types {
            reason = reason.replace(&format!("expected {name}"), &format!("expected {words}"));
        }
    }
    match place {
        "" => reason,
        place => format!("{place}: {reason}"),
    }
}
