//! Layering of configuration sources, and errors that name the nearest known key.

use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError, DEFAULT_TOML, Preset};

/// Prefix of environment variables that set a key: `FRESHET__SERVER__BIND`.
pub const ENV_PREFIX: &str = "FRESHET__";

/// What is laid over `default.toml`.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// Settings for a kind of application.
    pub preset: Option<Preset>,
    /// The operator's file.
    pub file: Option<&'a Path>,
    /// Environment variables; those without [`ENV_PREFIX`] are ignored.
    pub env: Vec<(String, String)>,
    /// Flags, as `section.key` and a value written as in TOML or, for texts, bare.
    pub flags: Vec<(String, String)>,
}

/// Reads all sources, later ones winning, and checks the result.
///
/// # Errors
/// An unreadable file, bad TOML, an unknown key, a wrong type, a value out of range.
pub fn load(sources: &Sources<'_>) -> Result<Config, ConfigError> {
    let mut table = defaults();
    if let Some(preset) = sources.preset {
        let origin = format!("the preset {}", preset.name());
        let layer = parse_layer(preset.toml(), &origin)?;
        merge(&mut table, layer, "", &origin)?;
    }
    if let Some(path) = sources.file {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let origin = path.display().to_string();
        let layer = parse_layer(&text, &origin)?;
        merge(&mut table, layer, "", &origin)?;
    }
    for (name, text) in &sources.env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        let key = rest.replace("__", ".").to_ascii_lowercase();
        set(&mut table, &key, text, &format!("the variable {name}"))?;
    }
    for (key, text) in &sources.flags {
        set(&mut table, key, text, "the flags")?;
    }
    let config: Config = Value::Table(table).try_into().map_err(ConfigError::Type)?;
    config.check()?;
    Ok(config)
}

fn parse_layer(text: &str, origin: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|error| {
        let until = error.span().map_or(0, |span| span.start);
        let before = text.bytes().take(until);
        ConfigError::Syntax {
            origin: origin.to_owned(),
            line: 1 + before.filter(|byte| *byte == b'\n').count(),
            reason: error.message().to_owned(),
        }
    })
}

impl Default for Config {
    fn default() -> Self {
        load(&Sources::default()).expect("the embedded defaults are valid, a test holds them to it")
    }
}

fn defaults() -> Table {
    DEFAULT_TOML
        .parse()
        .expect("the embedded defaults are valid TOML, a test holds them to it")
}

fn merge(base: &mut Table, layer: Table, prefix: &str, origin: &str) -> Result<(), ConfigError> {
    for (name, value) in layer {
        let key = format!("{prefix}{name}");
        match (base.get_mut(&name), value) {
            (Some(Value::Table(section)), Value::Table(inner)) => {
                merge(section, inner, &format!("{key}."), origin)?;
            }
            (Some(slot), value) => *slot = value,
            (None, _) => return Err(unknown_key(key, origin)),
        }
    }
    Ok(())
}

fn set(table: &mut Table, key: &str, text: &str, origin: &str) -> Result<(), ConfigError> {
    let mut names: Vec<&str> = key.split('.').collect();
    let last = names.pop().unwrap_or_default();
    let mut section = table;
    for name in names {
        let Some(Value::Table(inner)) = section.get_mut(name) else {
            return Err(unknown_key(key.to_owned(), origin));
        };
        section = inner;
    }
    let Some(slot) = section.get_mut(last) else {
        return Err(unknown_key(key.to_owned(), origin));
    };
    let is_quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    let is_text = slot.is_str();
    *slot = if is_text && !is_quoted {
        Value::String(text.to_owned())
    } else if is_text {
        parse_value(text, &format!("`{key}` in {origin}"))? // not shown: it may be a secret
    } else {
        let read = parse_value(text, key).ok(); // whatever is no TOML is no value of any type
        let read = read.filter(|value| is_alike(slot, value));
        read.ok_or_else(|| ConfigError::Value {
            key: key.to_owned(),
            actual: text.to_owned(),
            origin: origin.to_owned(),
            expected: expected(slot),
        })?
    };
    Ok(())
}

/// Whether a value may take the place of a default; numbers are told apart by the types of the configuration.
fn is_alike(default: &Value, value: &Value) -> bool {
    let is_number = |value: &Value| value.is_integer() || value.is_float();
    default.same_type(value) || (is_number(default) && is_number(value))
}

fn expected(default: &Value) -> &'static str {
    match default {
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list such as [\"a\", \"b\"]",
        Value::Table(_) => "SECTION.KEY=VALUE, as this is a section",
        Value::String(_) | Value::Datetime(_) => "a text",
    }
}

/// A value as in TOML.
fn parse_value(text: &str, origin: &str) -> Result<Value, ConfigError> {
    let mut table = parse_layer(&format!("value = {text}"), origin)?;
    Ok(table
        .remove("value")
        .expect("the line that was parsed sets `value`"))
}

fn unknown_key(key: String, origin: &str) -> ConfigError {
    let mut known = Vec::new();
    list_keys(&defaults(), "", &mut known);
    let last_name = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |candidate: &String| {
        let whole = edit_distance(&key, candidate);
        let name = edit_distance(&last_name(&key), &last_name(candidate)) + 1; // right name, wrong section
        whole.min(name)
    };
    let nearest = known
        .into_iter()
        .min_by_key(distance)
        .filter(|best| distance(best) <= 6);
    ConfigError::UnknownKey {
        key,
        origin: origin.to_owned(),
        nearest,
    }
}

fn list_keys(table: &Table, prefix: &str, keys: &mut Vec<String>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        if let Value::Table(section) = value {
            list_keys(section, &format!("{key}."), keys);
        }
        keys.push(key);
    }
}

/// Levenshtein distance in characters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (left_idx, left_char) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = left_idx + 1;
        for (right_idx, right_char) in right.iter().enumerate() {
            let replace = diagonal + usize::from(left_char != *right_char);
            diagonal = row[right_idx + 1];
            row[right_idx + 1] = replace.min(diagonal + 1).min(row[right_idx] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), text).expect("write");
        load(&Sources {
            file: Some(file.path()),
            ..Sources::default()
        })
    }

    fn flag(key: &str, value: &str) -> Result<Config, ConfigError> {
        let flags = vec![(key.to_owned(), value.to_owned())];
        load(&Sources {
            flags,
            ..Sources::default()
        })
    }

    #[test]
    fn embedded_defaults_are_complete_and_valid() {
        let config = Config::default();
        assert_eq!(config.server.bind.to_string(), "127.0.0.1:7878");
        let admin_bind = config.server.admin_bind.map(|bind| bind.to_string());
        assert_eq!(admin_bind.as_deref(), Some("127.0.0.1:7879"));
        let printed = toml::to_string(&config).expect("prints");
        assert_eq!(with_file(&printed).expect("reads back"), config);
    }

    #[test]
    fn every_preset_is_valid_and_the_file_wins_over_it() {
        for preset in Preset::ALL {
            let sources = Sources {
                preset: Some(preset),
                ..Default::default()
            };
            let config = load(&sources).expect("a valid preset");
            assert_ne!(config, Config::default(), "{}", preset.name());
        }
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("own.toml");
        std::fs::write(&path, "[labels]\njoin_window_secs = 77\n").expect("writable");
        let sources = Sources {
            preset: Some(Preset::News),
            file: Some(&path),
            ..Default::default()
        };
        let config = load(&sources).expect("valid");
        assert_eq!(config.labels.join_window_secs, 77);
        assert_eq!(config.model.history_len, 30, "of the preset");
    }

    #[test]
    fn flags_win_over_variables_over_the_file() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(
            file.path(),
            "[train]\nseed = 2\nwarm_epochs = 3\ndropout = 0.3\n",
        )
        .expect("write");
        let env = vec![
            ("FRESHET__TRAIN__SEED".to_owned(), "4".to_owned()),
            ("FRESHET__TRAIN__WARM_EPOCHS".to_owned(), "5".to_owned()),
            ("PATH".to_owned(), "/bin".to_owned()),
        ];
        let flags = vec![("train.seed".to_owned(), "6".to_owned())];
        let config = load(&Sources {
            file: Some(file.path()),
            env,
            flags,
            ..Sources::default()
        })
        .expect("valid");
        assert_eq!((config.train.seed, config.train.warm_epochs), (6, 5));
        assert!((config.train.dropout - 0.3).abs() < 1e-6);
    }

    #[test]
    fn unknown_key_names_the_nearest_known_one() {
        let error = with_file("[server]\nbindd = \"x\"\n")
            .expect_err("unknown")
            .to_string();
        assert!(
            error.contains("`server.bindd`") && error.contains("`server.bind`"),
            "{error}"
        );
        let error = flag("server.seed", "1").expect_err("unknown").to_string();
        assert!(error.contains("did you mean `train.seed`"), "{error}");
        let error = with_file("[completely_other_thing]\nx = 1\n")
            .expect_err("unknown")
            .to_string();
        assert!(!error.contains("did you mean"), "{error}");
    }

    #[test]
    fn wrong_types_and_ranges_are_refused_with_the_key() {
        let error = with_file("[train]\nseed = \"x\"\n")
            .expect_err("type")
            .to_string();
        assert!(error.contains("seed"), "{error}");
        for (key, value, expected) in [
            (
                "train.seed",
                "abc",
                "`train.seed` is `abc` in the flags, expected a number",
            ),
            (
                "train.seed",
                "-1",
                "`train.seed`: invalid value: integer `-1`, expected a whole number of at least 0",
            ),
            (
                "server.bind",
                "foo",
                "`server.bind`: `foo`, invalid socket address syntax",
            ),
            (
                "server.admin_bind",
                "foo",
                "`server.admin_bind`: `foo`, invalid socket address syntax",
            ),
            (
                "server.cors_origins",
                "3",
                "`server.cors_origins` is `3` in the flags, expected a list such as [\"a\", \"b\"]",
            ),
        ] {
            let error = flag(key, value).expect_err("no such value").to_string();
            assert_eq!(error, expected);
        }
        let error = flag("train.dropout", "nan").expect_err("range").to_string();
        assert!(error.contains("train.dropout"), "{error}");
        let error = flag("model.num_heads", "3").expect_err("range").to_string();
        assert!(error.contains("model.num_heads"), "{error}");
        let error = flag("log.id_memory_secs", "60")
            .expect_err("range")
            .to_string();
        assert!(error.contains("log.id_memory_secs"), "{error}");
        for cap in ["0.5", "-1.0", "nan", "10001.0"] {
            let error = flag("labels.propensity_cap", cap).expect_err("range");
            assert!(error.to_string().contains("labels.propensity_cap"), "{cap}");
        }
        for cap in ["0.0", "1.0", "100.0"] {
            assert!(flag("labels.propensity_cap", cap).is_ok(), "{cap}");
        }
        for (key, value) in [
            ("text_tuning.rank", "65"),
            ("text_tuning.learning_rate", "0.0"),
            ("text_tuning.move_min", "nan"),
        ] {
            let error = flag(key, value).expect_err("range").to_string();
            assert!(error.contains(key), "{error}");
        }
        assert!(flag("server.cors_origins", "[\"https://shop.example\"]").is_ok());
        for dir in ["./shop", "\"./shop\""] {
            let config = flag("server.static_dir", dir).expect("a text with or without quotes");
            let dir = config.server.static_dir.expect("set");
            assert_eq!(dir, std::path::Path::new("./shop"));
        }
    }
}
