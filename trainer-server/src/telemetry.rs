//! The process log and, where a collector is named, traces: what happened to a request and to what it brought.
//!
//! Spans are made where the work is (`http::trace`, the trainer); this decides where they go. A trace that cannot be
//! delivered is lost and nothing waits for it. Not here: metrics (`http::ops`) and who ordered what (`audit`).

use std::io::IsTerminal;

use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{LineFormat, TelemetryConfig};

/// Spans that are traced: ours, and nothing of the libraries below.
const TRACED: &str = "trainer_server=info,freshet=info";

/// Delivers what is left when dropped.
#[must_use]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    filter: LineFilter,
}

/// Says which lines are logged; cheap to clone.
#[derive(Clone)]
pub struct LineFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    /// `RUST_LOG` decides, whatever is configured.
    is_of_environment: bool,
}

impl LineFilter {
    /// Logs by this filter from the next line on, which was checked to be one. `RUST_LOG` still comes before it.
    pub fn change(&self, filter: &str) {
        if self.is_of_environment {
            return tracing::warn!("telemetry.filter says nothing: RUST_LOG comes before it");
        }
        let changed = EnvFilter::try_new(filter)
            .map_err(|error| error.to_string())
            .and_then(|filter| {
                self.handle
                    .reload(filter)
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = changed {
            tracing::error!("log levels stay as they are: {error}");
        }
    }
}

impl Telemetry {
    /// Starts the log of this process, once. `RUST_LOG` comes before the configured filter.
    ///
    /// # Errors
    /// The collector's address cannot be used, or a log was started before.
    pub fn start(config: &TelemetryConfig) -> anyhow::Result<Self> {
        let of_environment = EnvFilter::try_from_default_env().ok(); // none, or a bad one
        let is_of_environment = of_environment.is_some();
        let filter = match of_environment {
            Some(filter) => filter,
            None => {
                EnvFilter::try_new(&config.filter).context("telemetry.filter cannot be used")?
            }
        };
        let (filter, handle) = reload::Layer::new(filter);
        let traces = match &config.otlp_endpoint {
            Some(endpoint) => Some(traces_to(endpoint, config.trace_share)?),
            None => None,
        };
        let traced = traces.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("freshet"))
                .with_location(false)
                .with_threads(false)
                .with_filter(EnvFilter::new(TRACED))
        });
        tracing_subscriber::registry()
            .with(lines(config.format).with_filter(filter))
            .with(traced)
            .try_init()
            .context("the log of this process cannot start")?;
        let filter = LineFilter {
            handle,
            is_of_environment,
        };
        Ok(Self { traces, filter })
    }

    /// Says which lines are logged.
    #[must_use]
    pub fn filter(&self) -> LineFilter {
        self.filter.clone()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.traces.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "the last traces were not delivered");
        }
    }
}

/// Lines that cannot be written, as into a file on a full disk, are lost, and nothing else is. Coloured on a terminal
/// alone, and not where `NO_COLOR` is set (no-color.org).
fn lines(format: LineFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    let wants_color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(wants_color && std::io::stderr().is_terminal())
        .log_internal_errors(false); // it would print them to where it could not write, and panic
    match format {
        LineFormat::Text => lines.boxed(),
        LineFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// Traces by OTLP over HTTP, in batches, from a thread of their own.
fn traces_to(endpoint: &str, share: f32) -> anyhow::Result<SdkTracerProvider> {
    let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(url)
        .build()
        .context("telemetry.otlp_endpoint cannot be used")?;
    let resource = Resource::builder()
        .with_service_name("freshet")
        .with_attribute(opentelemetry::KeyValue::new(
            "service.version",
            env!("CARGO_PKG_VERSION"),
        ))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share.into())));
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler)
        .with_resource(resource)
        .build())
}
