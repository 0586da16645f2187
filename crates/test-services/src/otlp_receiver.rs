//! A receiver of spans: what a collector of OpenTelemetry is to a server.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::future::select;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span as ReceivedSpan;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// A span, with its ids as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace: String,
    /// The span.
    pub id: String,
    /// The one it is a part of; empty where it is none's.
    pub parent: String,
    /// What it is called.
    pub name: String,
    /// What it says of itself.
    pub attributes: BTreeMap<String, String>,
    /// The spans, with their traces, that it is linked to.
    pub links: Vec<(String, String)>,
    /// Whether it says that something went wrong.
    pub is_error: bool,
    /// Of which service.
    pub service: String,
}

impl Span {
    /// An attribute; empty where there is none.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Whether it is a part of `parent`.
    #[must_use]
    pub fn is_of(&self, parent: &Self) -> bool {
        self.trace == parent.trace && self.parent == parent.id
    }

    /// Whether it is linked to `other`.
    #[must_use]
    pub fn is_linked_to(&self, other: &Self) -> bool {
        self.links.iter().any(|(trace, id)| *trace == other.trace && *id == other.id)
    }

    fn to_json(&self) -> Value {
        let links: Vec<Value> = self.links.iter().map(|(trace, id)| json!({ "trace": trace, "id": id })).collect();
        json!({
            "trace": self.trace, "id": self.id, "parent": self.parent, "name": self.name,
            "attributes": self.attributes, "links": links, "isError": self.is_error, "service": self.service,
        })
    }
}

/// It takes spans at `/v1/traces`, and shows them as JSON at `/spans`, until it is dropped.
#[derive(Debug)]
pub struct OtlpReceiver {
    /// What a server sends its spans to.
    pub url: String,
    spans: Arc<Mutex<Vec<Span>>>,
    /// It ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

impl OtlpReceiver {
    /// Starts one on a free port, in a thread of its own: a test may wait for its server's end, which waits for the receiver.
    ///
    /// # Errors
    /// When there is none.
    pub fn start() -> io::Result<Self> {
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let app =
            Router::new().route("/v1/traces", post(receive)).route("/spans", get(show)).with_state(Arc::clone(&spans));
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                let serving = std::pin::pin!(axum::serve(listener, app).into_future());
                // An error means that its owner is gone.
                let _ = select(stopped, serving).await;
            });
        });
        Ok(Self { url, spans, _stop: stop })
    }

    /// What has come so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn receive(State(spans): State<Arc<Mutex<Vec<Span>>>>, body: Bytes) -> impl IntoResponse {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST.into_response() };
    let mut received = Vec::new();
    for resource in request.resource_spans {
        let said = resource.resource.map(|resource| attributes(resource.attributes)).unwrap_or_default();
        let service = said.get("service.name").cloned().unwrap_or_default();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            received.push(read(span, &service));
        }
    }
    spans.lock().unwrap_or_else(PoisonError::into_inner).extend(received);
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    ([(header::CONTENT_TYPE, "application/x-protobuf")], answer).into_response()
}

async fn show(State(spans): State<Arc<Mutex<Vec<Span>>>>) -> Json<Vec<Value>> {
    Json(spans.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Span::to_json).collect())
}

fn read(span: ReceivedSpan, service: &str) -> Span {
    let links = span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect();
    Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name,
        attributes: attributes(span.attributes),
        links,
        // `Error` in OTLP.
        is_error: span.status.is_some_and(|status| status.code == 2),
        service: service.to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(list: Vec<KeyValue>) -> BTreeMap<String, String> {
    list.into_iter().map(|KeyValue { key, value, .. }| (key, value.map(text).unwrap_or_default())).collect()
}

fn text(AnyValue { value }: AnyValue) -> String {
    match value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}
