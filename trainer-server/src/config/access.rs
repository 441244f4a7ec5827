//! `[access]` and `[limits]`: keys as they are configured, and what one client may do.
//!
//! Not here: which key opens what (`access`), and the counting (`http::limiter`).

use std::path::PathBuf;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::optional;

/// A key in clear; prints as `set`, wherever it is printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The key; the empty text where there is none.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn shown(&self) -> &'static str {
        if self.0.is_empty() { "" } else { "set" }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}", self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Of a wrong type only that is told: what was given may be the key.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer) {
            Ok(toml::Value::String(text)) => Ok(Self(text)),
            _ => Err(D::Error::custom(
                "a key of [access] is not a text in quotes",
            )),
        }
    }
}

/// `[access]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessConfig {
    pub ingest_key: Secret,
    pub ingest_key_previous: Secret,
    #[serde(with = "optional")]
    pub ingest_key_file: Option<PathBuf>,
    pub read_key: Secret,
    pub read_key_previous: Secret,
    #[serde(with = "optional")]
    pub read_key_file: Option<PathBuf>,
    pub admin_token: Secret,
    pub admin_token_previous: Secret,
    #[serde(with = "optional")]
    pub admin_token_file: Option<PathBuf>,
    pub visit_secs: u64,
}

impl AccessConfig {
    /// Whether a key comes from a file.
    #[must_use]
    pub fn has_file(&self) -> bool {
        let files = [
            &self.ingest_key_file,
            &self.read_key_file,
            &self.admin_token_file,
        ];
        files.into_iter().any(Option::is_some)
    }
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    pub client_requests_per_sec: u64,
    pub client_requests_burst: u64,
    pub client_events_per_sec: u64,
    pub client_events_burst: u64,
    pub key_requests_per_sec: u64,
    pub key_requests_burst: u64,
    pub key_events_per_sec: u64,
    pub key_events_burst: u64,
    pub client_visits_per_hour: u64,
    pub client_connections_max: usize,
    pub trusted_proxies: Vec<Network>,
    pub body_timeout_secs: u64,
    pub body_bytes_per_sec_min: u64,
    pub bodies_bytes_max: u64,
    pub answer_stall_secs: u64,
}

/// An address, or all addresses with the same first bits: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(ipnet::IpNet);

impl Network {
    /// Whether it holds this address.
    #[must_use]
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let network = text
            .parse()
            .or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from)); // a network, or one address
        network.map(Self).map_err(|_: std::net::AddrParseError| {
            D::Error::custom(format!(
                "limits.trusted_proxies has `{text}`, expected an address or a network such as 10.0.0.0/8"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::{Sources, load};
    use super::super::{Config, ConfigError};

    const KEY: &str = "a-key-that-nobody-may-see";

    fn flag(key: &str, value: &str) -> Result<Config, ConfigError> {
        let flags = vec![(key.to_owned(), value.to_owned())];
        load(&Sources {
            flags,
            ..Sources::default()
        })
    }

    #[test]
    fn a_key_is_printed_nowhere() {
        let config = flag("access.read_key", KEY).expect("a key");
        assert_eq!(config.access.read_key.reveal(), KEY);
        let printed = [
            toml::to_string(&config).expect("prints"),
            serde_json::to_string(&config).expect("prints"),
            format!("{config:?}"),
        ];
        for text in printed {
            assert!(text.contains("read_key") && !text.contains(KEY), "{text}");
        }
        for broken in [format!("\"{KEY}\\q\""), format!("\"{KEY}\" x\"")] {
            let error = flag("access.read_key", &broken).expect_err("no text");
            let said = format!("{error} {error:?}");
            assert!(
                said.contains("access.read_key") && !said.contains(KEY),
                "{said}"
            );
        }
        let file = tempfile::NamedTempFile::new().expect("temp file");
        for line in [
            "123456789012345678",
            "\"123456789012345678",
            "[\"123456789012345678\"]",
        ] {
            std::fs::write(file.path(), format!("[access]\nread_key = {line}\n")).expect("written");
            let error = load(&Sources {
                file: Some(file.path()),
                ..Sources::default()
            })
            .expect_err("no text");
            let said = format!("{error} {error:?}");
            assert!(!said.contains("123456789012345678"), "{said}");
        }
    }

    #[test]
    fn proxies_are_addresses_or_networks() {
        let config = flag(
            "limits.trusted_proxies",
            r#"["127.0.0.1", "10.0.0.0/8", "::1"]"#,
        )
        .expect("valid");
        let trusts = |address: &str| {
            let address = address.parse().expect("an address");
            config
                .limits
                .trusted_proxies
                .iter()
                .any(|proxy| proxy.contains(address))
        };
        assert!(trusts("127.0.0.1") && trusts("10.9.8.7") && trusts("::1"));
        assert!(!trusts("127.0.0.2") && !trusts("11.0.0.1"));
        let error = flag("limits.trusted_proxies", r#"["nginx"]"#)
            .expect_err("a name")
            .to_string();
        assert!(
            error.contains("limits.trusted_proxies") && error.contains("nginx"),
            "{error}"
        );
    }
}
