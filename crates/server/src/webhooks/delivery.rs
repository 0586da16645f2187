//! One try of delivering one event.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};

use super::WebhookSettings;
use super::destination::{DestinationError, destination, reachable};
use super::signature::Secrets;
use crate::network::Networks;

/// The headers of a message, by the Standard Webhooks specification.
const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// How long a connection is kept for the next message.
const IDLE: Duration = Duration::from_secs(20);

/// How much is told of a failure, in characters.
const MOST_TOLD: usize = 300;

/// The longest pause that a receiver may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

type HttpClient = Client<HttpsConnector<HttpConnector<PublicNames>>, Full<Bytes>>;

/// Sends messages. Redirects are not followed, and no proxy decides where messages go.
#[derive(Debug, Clone)]
pub struct Deliverer {
    /// For addresses with TLS, and for those without.
    encrypted: HttpClient,
    plain: HttpClient,
    networks: Networks,
    timeout: Duration,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Where to.
    pub url: &'a str,
    /// Names the event: `webhook-id`.
    pub id: &'a str,
    /// The event, as JSON.
    pub body: &'a str,
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened, for people.
    pub what: String,
    /// For how long the receiver wants to be left alone, where it says so.
    pub pause: Option<Duration>,
    /// Whether the receiver wants nothing any more.
    pub is_gone: bool,
}

impl Failure {
    fn of(what: impl Into<String>) -> Self {
        // A certificate that fits no name may quote all that it has.
        let what = what.into().chars().take(MOST_TOLD).collect();
        Self { what, pause: None, is_gone: false }
    }
}

impl Deliverer {
    /// Sends as these settings say.
    ///
    /// # Errors
    /// When the TLS library refuses what it should take.
    pub fn new(settings: &WebhookSettings) -> Result<Self, rustls::Error> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = |is_encrypted| {
            let names = PublicNames { is_encrypted, networks: settings.networks.clone() };
            let mut connector = HttpConnector::new_with_resolver(names);
            // What is above it sees to that.
            connector.enforce_http(false);
            connector.set_nodelay(true);
            let secured = HttpsConnectorBuilder::new().with_tls_config(tls.clone());
            let connector = secured.https_or_http().enable_http1().wrap_connector(connector);
            let mut client = Client::builder(TokioExecutor::new());
            client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).retry_canceled_requests(false);
            client.build(connector)
        };
        let (networks, timeout) = (settings.networks.clone(), settings.timeout);
        Ok(Self { encrypted: client(true), plain: client(false), networks, timeout })
    }

    /// Sends one message, signed at this time in milliseconds since 1970.
    pub async fn deliver(&self, message: Message<'_>, secrets: &Secrets, now_ms: i64) -> Delivered {
        let begun = Instant::now();
        let (status, failure) = match self.send(message, secrets, now_ms).await {
            Ok(status) => (Some(status.as_u16()), None),
            Err((status, failure)) => (status.map(|status| status.as_u16()), Some(failure)),
        };
        Delivered { status, took: begun.elapsed(), failure }
    }

    async fn send(
        &self,
        message: Message<'_>,
        secrets: &Secrets,
        now_ms: i64,
    ) -> Result<StatusCode, (Option<StatusCode>, Failure)> {
        // The rules may be others than when the address was entered.
        let url = destination(message.url, &self.networks).map_err(|error| (None, Failure::of(error.to_string())))?;
        let client = if url.scheme() == "https" { &self.encrypted } else { &self.plain };
        let request = Request::post(url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("Throughline/", env!("CARGO_PKG_VERSION")))
            .header(ID, message.id)
            .header(TIMESTAMP, (now_ms / 1000).to_string())
            .header(SIGNATURE, secrets.sign(message.id, now_ms, message.body))
            .body(Full::new(Bytes::copy_from_slice(message.body.as_bytes())))
            .map_err(|_| (None, Failure::of(DestinationError::Form.to_string())))?;
        let answer = tokio::time::timeout(self.timeout, client.request(request)).await;
        let answer = answer.map_err(|_| (None, Failure::of("it did not answer in time")))?;
        let answer = answer.map_err(|error| (None, Failure::of(why(&error))))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(status);
        }
        let what = match status {
            status if status.is_redirection() => {
                format!("it answered {status}; redirects are not followed, so enter the address that it leads to")
            }
            StatusCode::GONE => format!("it answered {status}: it wants no more messages"),
            _ => format!("it answered {status}"),
        };
        let pause = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let pause = pause.map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
        Err((Some(status), Failure { what, pause, is_gone: status == StatusCode::GONE }))
    }
}

/// Why there was no answer. Without the address, which may hold a secret.
fn why(error: &ClientError) -> String {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let mut innermost = String::new();
    while let Some(known) = cause {
        if let Some(refused) = known.downcast_ref::<DestinationError>() {
            return refused.to_string();
        }
        innermost = known.to_string();
        cause = known.source();
    }
    if error.is_connect() {
        format!("it can't be connected to: {innermost}")
    } else {
        format!("the connection ended before it answered: {innermost}")
    }
}

/// Looks names up, and gives those of their addresses that may be connected to.
#[derive(Debug, Clone)]
struct PublicNames {
    is_encrypted: bool,
    networks: Networks,
}

impl tower::Service<Name> for PublicNames {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = DestinationError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DestinationError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DestinationError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (is_encrypted, networks) = (self.is_encrypted, self.networks.clone());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found = found.map_err(|_| DestinationError::Unknown)?.map(|address| address.ip());
            let usable = reachable(found, is_encrypted, &networks)?;
            Ok(usable.into_iter().map(|address| SocketAddr::new(address, 0)).collect::<Vec<_>>().into_iter())
        })
    }
}
