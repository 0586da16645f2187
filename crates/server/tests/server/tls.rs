//! TLS, spoken by a client that believes one certificate only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::binary::*;

/// Nobody waits longer than this, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

struct Made {
    certificate: CertificateDer<'static>,
    pem: String,
    key: String,
}

fn make() -> Made {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    Made { certificate: made.cert.der().clone(), pem: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

struct Secret {
    server: Server,
    address: String,
}

/// A server with TLS: its files are `certificate.pem` and `key.pem` in its folder.
fn secret(made: &Made, more: &[&str]) -> Secret {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write(&folder, "certificate.pem", &made.pem);
    let key = write(&folder, "key.pem", &made.key);
    let mut arguments = vec!["--dev", "--tls-certificate-file", &certificate, "--tls-key-file", &key];
    arguments.extend(more);
    let mut server = start(folder, &arguments);
    server.line();
    let line = server.line();
    let address = line.strip_prefix("listening on https://").unwrap().to_owned();
    Secret { server, address }
}

/// A client that believes this certificate, whose authority is itself, and speaks these versions.
fn connector(certificate: &CertificateDer<'static>, versions: &[&'static SupportedProtocolVersion]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn connect_with(
    address: &str,
    certificate: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    tokio::time::timeout(PATIENCE, connector(certificate, versions).connect(name, stream)).await.unwrap()
}

async fn connect(secret: &Secret, certificate: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    connect_with(&secret.address, certificate, rustls::ALL_VERSIONS).await
}

async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn requests_are_answered_over_tls_1_2_and_1_3_and_nothing_else() {
    let made = make();
    let secret = secret(&made, &[]);
    for (version, name) in [
        (&rustls::version::TLS12, rustls::ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, rustls::ProtocolVersion::TLSv1_3),
    ] {
        let mut stream = connect_with(&secret.address, &made.certificate, &[version]).await.unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!((session.protocol_version(), session.alpn_protocol()), (Some(name), Some(&b"http/1.1"[..])));
        let answer = get(&mut stream, "/livez").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // Whoever speaks without TLS is not understood, and hears nothing of what is inside.
    let plain = raw(&secret.address, b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n");
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
    assert!(connect(&secret, &make().certificate).await.is_err(), "another certificate is not believed");
}

#[tokio::test]
async fn asvs_4_4_1_a_socket_opens_over_tls() {
    let made = make();
    let secret = secret(&made, &[]);
    let stream = connect(&secret, &made.certificate).await.unwrap();
    let mut request = "wss://localhost/v1/sync".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("throughline.v1"));
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let hello = r#"{"type":"hello","protocol":1,"sessionId":"ws_tls_1","clientId":"first","knownVersion":0,"claim":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}"#;
    socket.send(Message::text(hello)).await.unwrap();
    let answered = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(answered.to_text().unwrap().contains(r#""type":"welcome""#), "{answered}");
}

#[tokio::test]
async fn a_silent_handshake_is_ended_and_counts_as_a_connection() {
    let made = make();
    let secret = secret(&made, &["--header-timeout", "1s", "--max-connections-per-address", "1"]);
    let mut silent = TcpStream::connect(&secret.address).await.unwrap();
    let mut refused = TcpStream::connect(&secret.address).await.unwrap();
    let mut byte = [0; 1];
    let read = async |stream: &mut TcpStream, byte: &mut [u8]| {
        tokio::time::timeout(PATIENCE, stream.read(byte)).await.expect("it is not ended").unwrap_or(0)
    };
    assert_eq!(read(&mut refused, &mut byte).await, 0, "there is one place, and the silent one has it");
    assert_eq!(read(&mut silent, &mut byte).await, 0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(mut stream) = connect(&secret, &made.certificate).await {
            assert!(get(&mut stream, "/livez").await.starts_with("HTTP/1.1 200"));
            return;
        }
        assert!(Instant::now() < deadline, "the place was not given back");
    }
}

/// Asks again until it is so: the server does it in its own time.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_over_at_sighup_and_a_bad_one_is_not() {
    let (first, second) = (make(), make());
    let mut secret = secret(&first, &[]);
    let id = secret.server.process.id().to_string();
    let hang_up = || assert!(std::process::Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
    let mut open = connect(&secret, &first.certificate).await.unwrap();

    write(&secret.server.folder, "key.pem", "nothing of use");
    hang_up();
    until("the bad key is not told of", async || secret.server.log().contains("there is no private key in")).await;
    assert!(connect(&secret, &first.certificate).await.is_ok(), "the old one is still used");

    write(&secret.server.folder, "certificate.pem", &second.pem);
    write(&secret.server.folder, "key.pem", &second.key);
    hang_up();
    until("the new one is not used", async || connect(&secret, &second.certificate).await.is_ok()).await;
    assert!(connect(&secret, &first.certificate).await.is_err());
    assert!(get(&mut open, "/livez").await.starts_with("HTTP/1.1 200"), "what was open goes on");
    let metrics = get(&mut connect(&secret, &second.certificate).await.unwrap(), "/metrics").await;
    assert!(metrics.contains("throughline_tls_renewals_failed_total 1\n"), "{metrics}");
    assert!(secret.server.stop().0.success());
}

#[test]
fn files_that_can_not_be_used_keep_the_server_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let (made, other) = (make(), make());
    let certificate = write(&folder, "certificate.pem", &made.pem);
    let key = write(&folder, "other.pem", &other.key);
    let database = format!("sqlite:{}", folder.path().join("t.db").display());
    let start = |files: &[&str]| {
        let arguments = [&["serve", "--dev", "--listen", "127.0.0.1:0", "--database-url", &database], files].concat();
        failure(&throughline(&arguments).output().unwrap())
    };
    let text = start(&["--tls-certificate-file", &certificate, "--tls-key-file", &key]);
    assert!(text.contains("other.pem") && text.contains("does not belong to"), "{text}");
    let text = start(&["--tls-certificate-file", "/nowhere/c.pem", "--tls-key-file", &key]);
    assert!(text.contains("/nowhere/c.pem") && text.contains("No such file"), "{text}");
    let text = start(&["--tls-certificate-file", &certificate]);
    assert!(text.contains("`tls_key_file`"), "{text}");
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_used_and_warned_of() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let certificate = parameters.self_signed(&key).unwrap();
    let made = Made { certificate: certificate.der().clone(), pem: certificate.pem(), key: key.serialize_pem() };
    let secret = secret(&made, &[]);
    let refused = connect(&secret, &made.certificate).await.unwrap_err().to_string();
    assert!(refused.to_lowercase().contains("expired"), "{refused}");
    assert!(secret.server.log().contains("the certificate has expired"), "{}", secret.server.log());
}
