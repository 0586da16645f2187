//! Sending spans to a receiver of OTLP. It never makes a request wait: spans go into a bounded queue, a thread of its own sends
//! them, and those for which there is no room are lost.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, RetryPolicy, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::sampling::Sampling;
use crate::problem::chain;
use crate::rest_client::{RestError, ServerUrl, tls_settings};

/// How long one request to the receiver may take.
const SENT_WITHIN: Duration = Duration::from_secs(5);

/// The longest answer of the receiver that is read, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// How long a server that stops waits for its last spans to be sent.
const LAST_SENT_WITHIN: Duration = Duration::from_secs(3);

/// Where spans go, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct TracingSettings {
    /// The receiver; `/v1/traces` is appended.
    pub endpoint: ServerUrl,
    /// The authorities to trust for `https`, instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// The part of the traces that begin here that is kept.
    pub sampling: f64,
    /// `db.system.name` of the database.
    pub database: &'static str,
}

/// Why no spans can be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracingError {
    /// TLS can't be set up.
    #[error("`otlp_ca_file` can't be used")]
    Tls(#[source] RestError),
    /// A variable of OpenTelemetry holds what it can't.
    #[error("spans can't be sent; is one of the variables OTEL_EXPORTER_OTLP_… wrong?")]
    Exporter(#[from] ExporterBuildError),
}

/// Sends spans until it is closed.
#[derive(Debug, Clone)]
pub struct SpanExport {
    provider: SdkTracerProvider,
}

impl SpanExport {
    /// Begins to send, from tasks on `runtime`.
    ///
    /// # Errors
    /// See [`TracingError`].
    pub fn start(settings: &TracingSettings, runtime: Handle) -> Result<Self, TracingError> {
        let TracingSettings { endpoint, ca_file, sampling, .. } = settings;
        let tls =
            if endpoint.is_tls() { Some(tls_settings(ca_file.as_deref()).map_err(TracingError::Tls)?) } else { None };
        let client = Client { receiver: endpoint.clone(), tls, runtime };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_timeout(SENT_WITHIN)
            // The next spans come soon enough, and those that wait meanwhile have their place in the queue.
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        let exporter = Told { exporter, receiver: endpoint.clone(), is_away: AtomicBool::new(false) };
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampling::new(*sampling))
            .with_resource(resource())
            .with_span_processor(BatchSpanProcessor::builder(exporter).build())
            .build();
        Ok(Self { provider })
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("throughline")
    }

    /// Sends what is left, for a moment.
    pub async fn close(self) {
        let closing = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(LAST_SENT_WITHIN));
        if let Ok(Err(error)) = closing.await {
            tracing::debug!(error = %chain(&error), "the last spans were not sent");
        }
    }
}

/// What sends: its name and version, and what the variables OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say.
fn resource() -> Resource {
    let named = Resource::builder().build().get(&Key::from_static_str("service.name"));
    // What the library says where nobody has said anything.
    let is_named = named.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let builder = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if is_named { builder } else { builder.with_service_name("throughline") }.build()
}

/// Tells in the log once that the receiver is away, and once that it is back.
struct Told<E> {
    exporter: E,
    receiver: ServerUrl,
    is_away: AtomicBool,
}

impl<E> fmt::Debug for Told<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("receiver", &self.receiver).field("is_away", &self.is_away).finish_non_exhaustive()
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let sent = self.exporter.export(batch).await;
        let outcome = if sent.is_ok() { "sent" } else { "lost" };
        metrics::counter!("throughline_spans_total", "outcome" => outcome).increment(spans);
        let was_away = self.is_away.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !was_away => tracing::warn!(
                error = %chain(error),
                receiver = %self.receiver,
                "spans can't be sent; they are lost until the receiver takes them again"
            ),
            Ok(()) if was_away => tracing::info!(receiver = %self.receiver, "spans are sent again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(limit)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// One request, one connection: there is one every few seconds.
#[derive(Debug)]
struct Client {
    receiver: ServerUrl,
    tls: Option<Arc<ClientConfig>>,
    /// The thread that sends has none of its own.
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (receiver, tls) = (self.receiver.clone(), self.tls.clone());
        let sending = async move {
            // Begun on the runtime: there is no clock outside of it.
            timeout(SENT_WITHIN, receiver.exchange(tls.as_ref(), request, LONGEST_ANSWER)).await
        };
        Ok(self.runtime.spawn(sending).await???)
    }
}
