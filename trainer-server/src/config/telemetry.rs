//! `[telemetry]`: what the process says of itself, to whom. Not here: the saying (`telemetry`).

use serde::{Deserialize, Serialize};

use super::{ConfigError, optional};

/// How a line of the process log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineFormat {
    /// For people.
    Text,
    /// An object per line, for programs that gather logs.
    Json,
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    pub format: LineFormat,
    pub filter: String,
    #[serde(with = "optional")]
    pub otlp_endpoint: Option<String>,
    pub trace_share: f32,
}

impl TelemetryConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let range = |key, actual: String, expected: &str| ConfigError::Range {
            key,
            actual,
            expected: expected.to_owned(),
        };
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.filter) {
            let expected =
                format!("levels such as `info` or `info,freshet::request=debug` ({error})");
            return Err(range("telemetry.filter", self.filter.clone(), &expected));
        }
        if let Some(endpoint) = &self.otlp_endpoint {
            let url = reqwest::Url::parse(endpoint).ok();
            let is_http = url.is_some_and(|url| url.scheme() == "http" && url.has_host());
            if !is_http {
                let expected = "the address of a collector as http://HOST:PORT, or \"\" for none";
                return Err(range("telemetry.otlp_endpoint", endpoint.clone(), expected));
            }
        }
        if !(0.0..=1.0).contains(&self.trace_share) {
            let actual = self.trace_share.to_string();
            return Err(range("telemetry.trace_share", actual, "0 to 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name_and_value() {
        let good = TelemetryConfig {
            format: LineFormat::Text,
            filter: "info,freshet::request=debug".to_owned(),
            otlp_endpoint: Some("http://127.0.0.1:4318".to_owned()),
            trace_share: 0.5,
        };
        good.check().expect("it is right");
        let refused = |change: &dyn Fn(&mut TelemetryConfig)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad.check().expect_err("it is wrong").to_string()
        };
        let filter = refused(&|bad| bad.filter = "freshet=loud".to_owned());
        assert!(
            filter.starts_with("`telemetry.filter` is freshet=loud, expected"),
            "{filter}"
        );
        for endpoint in ["127.0.0.1:4318", "ftp://collector", "https://collector", ""] {
            let said = refused(&|bad| bad.otlp_endpoint = Some(endpoint.to_owned()));
            assert!(said.starts_with("`telemetry.otlp_endpoint` is "), "{said}");
        }
        for share in [-0.1, 1.1, f32::NAN] {
            let said = refused(&|bad| bad.trace_share = share);
            assert!(said.ends_with("expected 0 to 1"), "{said}");
        }
    }
}
