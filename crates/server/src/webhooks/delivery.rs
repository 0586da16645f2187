//! One try of delivering one event.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use reqwest::{Client, StatusCode, redirect};
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

/// The longest pause that a receiver may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Sends messages.
#[derive(Debug, Clone)]
pub struct Deliverer {
    /// For addresses with TLS, and for those without.
    encrypted: Client,
    plain: Client,
    networks: Networks,
}

/// Messages can't be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum DelivererError {
    /// The TLS library refuses what it should take.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
    /// The HTTP library does.
    #[error("the HTTP client can't be set up")]
    Client(#[from] reqwest::Error),
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
        Self { what: what.into(), pause: None, is_gone: false }
    }
}

impl Deliverer {
    /// Sends as these settings say.
    ///
    /// # Errors
    /// See [`DelivererError`].
    pub fn new(settings: &WebhookSettings) -> Result<Self, DelivererError> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = |is_encrypted| {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(Arc::new(PublicNames { is_encrypted, networks: settings.networks.clone() }))
                // Nothing between this server and the address decides for it where messages go.
                .no_proxy()
                .redirect(redirect::Policy::none())
                // Whoever asks for it twice does so by the outbox.
                .retry(reqwest::retry::never())
                .timeout(settings.timeout)
                .pool_idle_timeout(IDLE)
                .build()
        };
        Ok(Self { encrypted: client(true)?, plain: client(false)?, networks: settings.networks.clone() })
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
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("Throughline/", env!("CARGO_PKG_VERSION")))
            .header(ID, message.id)
            .header(TIMESTAMP, (now_ms / 1000).to_string())
            .header(SIGNATURE, secrets.sign(message.id, now_ms, message.body))
            .body(message.body.to_owned());
        let answer = request.send().await.map_err(|error| (None, Failure::of(why(&error))))?;
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

/// Why there was no answer. Without the address, which may hold a secret, and in words that tell a receiver from this server.
fn why(error: &reqwest::Error) -> String {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let mut innermost = String::new();
    while let Some(known) = cause {
        if let Some(refused) = known.downcast_ref::<DestinationError>() {
            return refused.to_string();
        }
        innermost = known.to_string();
        cause = known.source();
    }
    if error.is_timeout() {
        "it did not answer in time".to_owned()
    } else if error.is_connect() {
        format!("it can't be connected to: {innermost}")
    } else {
        format!("the connection ended before it answered: {innermost}")
    }
}

/// Looks names up, and gives those of their addresses that may be connected to.
#[derive(Debug)]
struct PublicNames {
    is_encrypted: bool,
    networks: Networks,
}

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        let (is_encrypted, networks) = (self.is_encrypted, self.networks.clone());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found = found.map_err(|_| DestinationError::Unknown)?.map(|address| address.ip());
            let usable = reachable(found, is_encrypted, &networks)?;
            let addresses: Addrs = Box::new(usable.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
