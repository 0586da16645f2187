//! Asking a server that runs, for commands that change what only servers may change: one request, one connection.
//!
//! Redirects are not followed: the service key would go to wherever somebody says.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::service_key::PREFIX;

/// How long a connection may take until a request can be sent.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// How long an answer may take: one request may be about thousands of sessions.
const ANSWERED_WITHIN: Duration = Duration::from_secs(600);

/// Where a server is: `https://HOST[:PORT]`, with a path where a proxy has it under one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    is_tls: bool,
    host: String,
    port: u16,
    authority: String,
    prefix: String,
}

/// Why a text does not say where a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the address of a server such as https://checkout.example, without a user, a password or a query")]
pub struct ServerUrlError;

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let uri: Uri = text.parse().map_err(|_| ServerUrlError)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(ServerUrlError),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(ServerUrlError)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || uri.query().is_some() {
            return Err(ServerUrlError);
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().map_err(|_| ServerUrlError)?,
            None if is_tls => 443,
            None => 80,
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { is_tls, host, port, authority: authority.as_str().to_owned(), prefix })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.authority, self.prefix)
    }
}

impl ServerUrl {
    /// Whether what is sent there can be read on the way.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        !self.is_tls && !self.is_loopback()
    }

    /// Whether TLS is spoken there.
    pub(crate) const fn is_tls(&self) -> bool {
        self.is_tls
    }

    async fn connect(&self, tls: Option<&Arc<ClientConfig>>) -> io::Result<Box<dyn Connection>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    }

    /// Sends `request` there over a connection of its own; the answer, whatever its status, where its body is not longer than
    /// `most` bytes.
    pub(crate) async fn exchange(
        &self,
        tls: Option<&Arc<ClientConfig>>,
        mut request: Request<Bytes>,
        most: usize,
    ) -> io::Result<Response<Bytes>> {
        if let Some(path) = request.uri().path_and_query().cloned() {
            *request.uri_mut() = path.into();
        }
        let host = HeaderValue::from_str(&self.authority).map_err(io::Error::other)?;
        request.headers_mut().insert(HOST, host);
        let connection = TokioIo::new(self.connect(tls).await?);
        let (mut sender, driver) = http1::handshake(connection).await.map_err(io::Error::other)?;
        tokio::spawn(driver);
        let answer = sender.send_request(request.map(Full::new)).await.map_err(io::Error::other)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(io::Error::other)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// A service key that somebody gave to a command.
pub struct GivenKey(Zeroizing<String>);

impl fmt::Debug for GivenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenKey([secret])")
    }
}

impl GivenKey {
    /// The first line of `text` that is no comment: `throughline service-keys create` prints such text.
    #[must_use]
    pub fn first_of(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.next().map(|line| Self(Zeroizing::new(line.to_owned())))
    }

    /// Whether it has the form of a service key.
    #[must_use]
    pub fn is_service_key(&self) -> bool {
        self.0.starts_with(PREFIX)
    }
}

/// Why there is no answer of the kind that was asked for. No variant holds the service key.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// A file with certificates can't be used.
    #[error("the certificates in {file:?} can't be used; the file has to hold PEM (-----BEGIN CERTIFICATE-----)")]
    CaFile {
        /// Which file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The key can't be sent.
    #[error("the service key holds what no key holds; give it as `throughline service-keys create` has printed it")]
    Key,
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
    /// Nobody is there.
    #[error("the server at {server} can't be reached; is it running, and is its address right?")]
    Unreachable {
        /// Where.
        server: ServerUrl,
        /// What the operating system, or TLS, said.
        #[source]
        source: io::Error,
    },
    /// The connection ended.
    #[error(
        "the connection to {server} ended before its answer; whether anything was done is not known: send the same again"
    )]
    Ended {
        /// Where.
        server: ServerUrl,
        /// What was wrong.
        #[source]
        source: hyper::Error,
    },
    /// No answer.
    #[error(
        "the server at {server} did not answer within {} s; whether anything was done is not known: send the same again",
        ANSWERED_WITHIN.as_secs()
    )]
    Silent {
        /// Where.
        server: ServerUrl,
    },
    /// The server refuses.
    #[error("{0}")]
    Refused(Box<ToldProblem>),
    /// Somebody else answers.
    #[error(
        "what answers at {server} (with {status}) is no Throughline server; give the address of one, and of no proxy that answers by itself"
    )]
    Stranger {
        /// Where.
        server: ServerUrl,
        /// With which status.
        status: StatusCode,
    },
    /// The request can't be made.
    #[error("the request can't be made")]
    Request(#[from] axum::http::Error),
}

/// A problem as a server tells of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToldProblem {
    /// What kind of problem.
    pub title: String,
    /// Its stable name.
    pub code: String,
    /// What was wrong this time, and how to mend it.
    #[serde(default)]
    pub detail: Option<String>,
    /// Who can.
    #[serde(default)]
    pub mendable_by: Option<String>,
    /// When a retry makes sense.
    #[serde(default)]
    pub retry_after_seconds: Option<u64>,
    /// Under which name the server's log tells of it.
    #[serde(default)]
    pub request_id: Option<String>,
}

impl fmt::Display for ToldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.title, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        match (self.mendable_by.as_deref(), self.retry_after_seconds) {
            (Some("retry"), Some(seconds)) => write!(f, "; it may work in {seconds} s")?,
            (Some("retry"), None) => f.write_str("; it may work later")?,
            (Some("forbidden"), _) => f.write_str("; nobody can with this service key")?,
            (Some("staleVersion"), _) => f.write_str("; read the session again")?,
            (Some("buyerInput"), _) => f.write_str("; give something else")?,
            (Some("permanent"), _) => f.write_str("; the same will be refused again")?,
            _ => {}
        }
        self.request_id.iter().try_for_each(|id| write!(f, " [request {id}]"))
    }
}

/// Asks one server, with one service key or without.
#[derive(Debug)]
pub struct RestClient {
    server: ServerUrl,
    authorization: Option<HeaderValue>,
    tls: Option<Arc<ClientConfig>>,
}

impl RestClient {
    /// One that believes the public certificate authorities, or those in `ca_file` alone.
    ///
    /// # Errors
    /// See [`RestError`].
    pub fn new(server: ServerUrl, key: &GivenKey, ca_file: Option<&Path>) -> Result<Self, RestError> {
        let bearer = Zeroizing::new(format!("Bearer {}", key.0.as_str()));
        let mut authorization = HeaderValue::from_str(&bearer).map_err(|_| RestError::Key)?;
        authorization.set_sensitive(true);
        Ok(Self { authorization: Some(authorization), ..Self::without_key(server, ca_file)? })
    }

    /// One that asks what everybody may.
    ///
    /// # Errors
    /// See [`RestError`].
    pub fn without_key(server: ServerUrl, ca_file: Option<&Path>) -> Result<Self, RestError> {
        let tls = if server.is_tls { Some(tls_settings(ca_file)?) } else { None };
        Ok(Self { server, authorization: None, tls })
    }

    /// Sends `body` to `path`; the answer's body, where that is a success.
    ///
    /// # Errors
    /// See [`RestError`].
    pub async fn post(&self, path: &str, body: &Value, accept: &'static str) -> Result<Bytes, RestError> {
        self.ask(Method::POST, path, Some(body), accept).await
    }

    /// Sends a request, with `body` where there is one, to `path`; the answer's body, where that is a success.
    ///
    /// # Errors
    /// See [`RestError`].
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        accept: &'static str,
    ) -> Result<Bytes, RestError> {
        let (status, body) = self.exchange(method, path, body, accept).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(match serde_json::from_slice(&body) {
            Ok(problem) => RestError::Refused(Box::new(problem)),
            Err(_) => self.stranger(status),
        })
    }

    /// Sends a request; the answer, whatever its status.
    ///
    /// # Errors
    /// See [`RestError`].
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        accept: &'static str,
    ) -> Result<(StatusCode, Bytes), RestError> {
        let server = &self.server;
        let request = self.request(method, path, body, accept)?;
        let unreachable = |source| RestError::Unreachable { server: server.clone(), source };
        let connecting = timeout(CONNECTED_WITHIN, server.connect(self.tls.as_ref())).await;
        let connection = connecting.map_err(|late| unreachable(late.into()))?.map_err(unreachable)?;
        let answering = timeout(ANSWERED_WITHIN, exchange(connection, request)).await;
        let answer = answering.map_err(|_| RestError::Silent { server: server.clone() })?;
        answer.map_err(|source| RestError::Ended { server: server.clone(), source })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        accept: &'static str,
    ) -> Result<Request<Full<Bytes>>, axum::http::Error> {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.server.prefix));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request
            .header(HOST, &self.server.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, accept)
            .header(USER_AGENT, concat!("throughline/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
    }

    /// Which server it asks.
    #[must_use]
    pub const fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// A connection for many requests, one after the other.
    ///
    /// # Errors
    /// When nobody is there.
    pub(crate) async fn keep(&self) -> Result<KeptConnection, RestError> {
        let unreachable = |source| RestError::Unreachable { server: self.server.clone(), source };
        let connection = self.server.connect(self.tls.as_ref()).await.map_err(unreachable)?;
        let shaken = http1::handshake(TokioIo::new(connection)).await;
        let (sender, driver) = shaken.map_err(|source| RestError::Ended { server: self.server.clone(), source })?;
        tokio::spawn(driver);
        Ok(KeptConnection(sender))
    }

    /// The status and body of the answer, whatever it is.
    ///
    /// # Errors
    /// When the connection ends before it.
    pub(crate) async fn ask_on(
        &self,
        connection: &mut KeptConnection,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), RestError> {
        let request = self.request(method, path, body, "application/json")?;
        let ended = |source| RestError::Ended { server: self.server.clone(), source };
        connection.0.ready().await.map_err(ended)?;
        let (head, body) = connection.0.send_request(request).await.map_err(ended)?.into_parts();
        Ok((head.status, body.collect().await.map_err(ended)?.to_bytes()))
    }

    /// That an answer with this status is none that a server gives.
    #[must_use]
    pub fn stranger(&self, status: StatusCode) -> RestError {
        RestError::Stranger { server: self.server.clone(), status }
    }
}

/// A connection that is kept from one request to the next.
pub(crate) struct KeptConnection(http1::SendRequest<Full<Bytes>>);

/// A stream, with TLS or without.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for S {}

async fn exchange(
    connection: Box<dyn Connection>,
    request: Request<Full<Bytes>>,
) -> hyper::Result<(StatusCode, Bytes)> {
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await?;
    // Ends with the connection; what goes wrong with it is told to the sender.
    tokio::spawn(driver);
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok((head.status, body.collect().await?.to_bytes()))
}

/// TLS with the public certificate authorities, or those in `ca_file` alone.
///
/// # Errors
/// See [`RestError`].
pub(crate) fn tls_settings(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, RestError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            let unusable = |source| RestError::CaFile { file: file.to_owned(), source };
            let certificates = CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.into()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unusable(error.into()))?;
                roots.add(certificate).map_err(|error| unusable(error.into()))?;
            }
            if roots.is_empty() {
                return Err(unusable("there is no certificate in it".into()));
            }
        }
    }
    let builder =
        ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_address_has_a_scheme_and_a_host_and_no_secrets() {
        for (text, host, port, prefix) in [
            ("https://checkout.example", "checkout.example", 443, ""),
            ("http://127.0.0.1:8787/", "127.0.0.1", 8787, ""),
            ("https://shop.example/checkout/", "shop.example", 443, "/checkout"),
            ("http://[::1]:80", "::1", 80, ""),
        ] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.port, url.prefix.as_str()), (host, port, prefix), "{text}");
        }
        for bad in
            ["", "checkout.example", "ftp://a.example", "https://a:b@c.example", "https://a.example/?q", "https://"]
        {
            assert_eq!(bad.parse::<ServerUrl>(), Err(ServerUrlError), "{bad}");
        }
    }

    #[test]
    fn only_what_leaves_the_machine_without_tls_is_in_the_clear() {
        for (text, is_in_the_clear) in [
            ("http://checkout.internal", true),
            ("http://127.0.0.2:8787", false),
            ("http://[::1]", false),
            ("http://localhost:1", false),
            ("https://checkout.example", false),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().is_in_the_clear(), is_in_the_clear, "{text}");
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_printed_and_never_shown() {
        let key = GivenKey::first_of("\n# a comment\n tls_abc \n# shown this once\n").unwrap();
        assert_eq!(key.0.as_str(), "tls_abc");
        assert!(!format!("{key:?}").contains("abc"));
        assert!(GivenKey::first_of(" \n# nothing\n").is_none());
        let odd = GivenKey::first_of("tls_\u{7f}").unwrap();
        let refused = RestClient::new("http://127.0.0.1".parse().unwrap(), &odd, None).unwrap_err();
        assert!(matches!(refused, RestError::Key));
    }

    #[test]
    fn a_problem_says_what_was_wrong_and_who_can_mend_it() {
        let told = |members: &str| {
            let document =
                format!(r#"{{"type": "x", "status": 403, "title": "Forbidden", "code": "missing", {members}}}"#);
            serde_json::from_str::<ToldProblem>(&document).unwrap().to_string()
        };
        assert_eq!(
            told(r#""detail": "it asks for the scope privacy", "mendableBy": "forbidden""#),
            "Forbidden (missing): it asks for the scope privacy; nobody can with this service key"
        );
        assert_eq!(
            told(r#""mendableBy": "retry", "retryAfterSeconds": 3, "requestId": "r1""#),
            "Forbidden (missing); it may work in 3 s [request r1]"
        );
    }
}
