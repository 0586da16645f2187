//! Log lines and metrics. Neither ever holds personal data, tokens or keys.

use std::io::IsTerminal as _;

use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

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

/// Sends log lines to standard error, and tells where a panic happened.
///
/// # Errors
/// When `filter` is not a filter.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter_of =
        EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    // Colours are for people at a terminal, not for files.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter_of)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // The first one stays: tests start several servers in one process.
    let _ = match format {
        LogFormat::Pretty => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
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
    let seconds = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
    let jobs = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &seconds)?
        .set_buckets_for_metric(Matcher::Suffix("_jobs".to_owned()), &jobs)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Recorder)?;
    describe();
    Ok(known.insert(handle).clone())
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("throughline_http_requests_total", "Requests answered.");
    describe_histogram!("throughline_http_request_seconds", "Time to answer a request.");
    describe_counter!("throughline_panics_total", "Requests that ended in a panic.");
    describe_counter!("throughline_store_transactions_total", "Database transactions that wrote.");
    describe_histogram!("throughline_store_batch_jobs", "Writes that shared a transaction.");
    describe_gauge!("throughline_store_queue_jobs", "Writes that wait.");
    describe_counter!("throughline_store_failed_batches_total", "Transactions that failed.");
    describe_gauge!("throughline_connections", "Open connections.");
    describe_counter!("throughline_connections_refused_total", "Connections over a limit.");
}
