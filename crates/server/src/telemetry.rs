//! Log lines, traces and metrics. None of them ever holds personal data, tokens or keys.

pub mod catalogue;
mod log_limit;
mod log_lines;
mod sampling;
mod span_export;
pub mod spans;

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::catalogue::{Kind, METRICS, Metric};
use self::log_lines::LogLines;
use crate::config::LogFormat;

pub use self::span_export::{SpanExport, TracingError, TracingSettings};

/// Why there are no log lines or metrics.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("`log` is wrong: {filter:?} is not a filter; write for example info or info,throughline_server=debug")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Metrics cannot be collected.
    #[error("metrics cannot be collected")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// Someone else collects metrics in this process.
    #[error("metrics are collected by something else in this process")]
    Recorder,
}

/// Sends log lines to standard error, and tells where a panic happened; spans go where `traces` says.
///
/// # Errors
/// When `filter` is not a filter.
pub fn start_logging(
    format: LogFormat,
    filter: &str,
    traces: Option<(&SpanExport, &TracingSettings)>,
) -> Result<(), TelemetryError> {
    // Not `EnvFilter`, which follows every span as well.
    let wanted: Targets =
        filter.parse().map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    // Colours are for people at a terminal, not for files.
    let ansi = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_ansi(ansi).with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Pretty => {
            // Also where a line is written to be added to.
            lines.with_target(false).map_event_format(|lines| LogLines::new(lines.with_ansi(ansi), false)).boxed()
        }
        LogFormat::Json => {
            lines.json().flatten_event(true).map_event_format(|lines| LogLines::new(lines, true)).boxed()
        }
    };
    // The first one stays: tests start several servers in one process.
    let _ = match traces {
        None => registry().with(lines).with(wanted).try_init(),
        Some((export, settings)) => {
            let is_traced = filter_fn(|metadata| metadata.is_span() && metadata.target() == spans::TARGET);
            let traces = tracing_opentelemetry::layer()
                .with_tracer(export.tracer())
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_tracked_inactivity(false)
                .with_filter(is_traced);
            // Spans first: while a line is written, another one may be, which tells of those withheld.
            let lines = lines.with_filter(wanted.with_target(spans::TARGET, LevelFilter::OFF));
            let begun = registry().with(traces.and_then(lines)).try_init();
            begun.map(|()| spans::turn_on(settings.database))
        }
    };
    log_panics();
    Ok(())
}

/// A panic's message may have been made from a customer's data; only one that was written
/// in the source as it is can be logged.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("withheld");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(message, place, "panic");
    }));
}

/// The process's metrics. The first call begins to collect them.
///
/// # Errors
/// When they cannot be collected.
pub fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    // Held while the recorder is set, so that of two callers one sets it and the other waits.
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut known = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = known.as_ref() {
        return Ok(handle.clone());
    }
    let mut builder = PrometheusBuilder::new();
    for Metric { name, kind, .. } in METRICS {
        if let Kind::Histogram(scale) = kind {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), scale.buckets())?;
        }
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Recorder)?;
    catalogue::describe();
    Ok(known.insert(handle).clone())
}
