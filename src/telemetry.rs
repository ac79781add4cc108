//! Log lines and traces: set up once, before the runtime, and flushed at the end.

use std::collections::HashMap;

use adapters_console::style::Style;
use anyhow::{Context, Result};
use opentelemetry::{propagation::TextMapPropagator, trace::TracerProvider};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::config::{Config, LogFormat};

/// Keeps traces going out; flushes what waits when it is dropped.
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // The collector may be gone; then its spans are lost, and that is all.
            let _ = provider.shutdown();
        }
    }
}

/// Begins to log, and to trace when an endpoint is configured. Not inside a runtime: the exporter
/// has a thread of its own.
pub(crate) fn start(config: &Config) -> Result<Telemetry> {
    let filter = EnvFilter::try_new(&config.log)
        .with_context(|| format!("log: `{}` is not a filter of log lines", config.log))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(Style::stderr().is_on()).boxed(),
    };
    let provider = config.otlp_endpoint.as_deref().map(exporter).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer().with_tracer(provider.tracer("skyledger")).with_filter(ours())
    });
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces)
        .try_init()
        .context("logging was set up twice")?;
    Ok(Telemetry(provider))
}

/// Our own spans. Those of libraries are many, and the exporter's own calls would make some, which
/// would be exported, without end.
fn ours() -> Targets {
    Targets::new()
        .with_target("adapters_", LevelFilter::INFO)
        .with_target("commands", LevelFilter::INFO)
        .with_target("skyledger", LevelFilter::INFO)
}

/// Makes a span the child of a caller's (W3C `traceparent`). What does not read is passed over.
pub(crate) fn adopt(span: &tracing::Span, parent: &str) {
    let carrier = HashMap::from([("traceparent".to_owned(), parent.to_owned())]);
    let parent = TraceContextPropagator::new().extract(&carrier);
    // Refused where nothing is traced, or the span has begun: then it stands alone.
    let _ = span.set_parent(parent);
}

fn exporter(endpoint: &str) -> Result<SdkTracerProvider> {
    let endpoint = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(&endpoint)
        .build()
        .with_context(|| format!("otlp_endpoint: cannot export to {endpoint}"))?;
    let resource = Resource::builder().with_service_name("skyledger").build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}
