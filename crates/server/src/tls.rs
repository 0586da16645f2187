//! TLS of the listener: which certificate, and what becomes of it when its files change.
//!
//! The files are read every minute and at SIGHUP. Their content is compared and not their times: some of the tools that
//! renew certificates exchange a link, others keep the time. What can't be used changes nothing: the server goes on
//! with the certificate that it has, and says so.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use crate::clock::{Clock, rfc3339};
use crate::problem::chain;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The files with the certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Why TLS can't be spoken with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("`{option}`: the file {file:?} cannot be read; check the path and its permissions")]
    Unreadable {
        /// The option that names it.
        option: &'static str,
        /// Which file.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// There is no certificate.
    #[error(
        "`tls_certificate_file`: there is no certificate in {file:?}; it has to hold PEM (-----BEGIN CERTIFICATE-----)"
    )]
    NoCertificate {
        /// Which file.
        file: PathBuf,
    },
    /// Something there is no certificate.
    #[error("`tls_certificate_file`: a certificate in {file:?} is damaged: {why}")]
    BadCertificate {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no key.
    #[error(
        "`tls_key_file`: there is no private key in {file:?}; it has to hold PEM (-----BEGIN PRIVATE KEY-----), and not be encrypted"
    )]
    NoKey {
        /// Which file.
        file: PathBuf,
    },
    /// The key is of no use.
    #[error(
        "`tls_key_file`: the private key in {file:?} can't be used; ECDSA (P-256, P-384), Ed25519 and RSA keys from 2048 bits on can"
    )]
    BadKey {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// The key is another one's.
    #[error(
        "the private key in {key:?} does not belong to the first certificate in {certificate:?}; the server's own certificate has to come first"
    )]
    Mismatch {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        certificate: PathBuf,
    },
    /// The library refuses its settings.
    #[error("TLS can't be set up")]
    Settings(#[source] rustls::Error),
    /// SIGHUP can't be listened for.
    #[error("the operating system does not let the server listen for SIGHUP")]
    Signal(#[source] io::Error),
}

/// Whether a certificate can be used at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// It can.
    Valid,
    /// Its time has not begun.
    NotYet,
    /// Its time is over.
    Expired,
}

/// A certificate with its key, as two files have it.
#[derive(Debug)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    not_before_ms: i64,
    not_after_ms: i64,
    digest: [u8; 32],
}

impl Identity {
    /// Reads it.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Self::of(files, &Content::read(files)?)
    }

    fn of(files: &TlsFiles, content: &Content) -> Result<Self, TlsError> {
        let (certificate, key) = (|| files.certificate.clone(), || files.key.clone());
        let bad = |why: String| TlsError::BadCertificate { file: certificate(), why };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content.certificate).collect();
        let certificates = certificates.map_err(|error| bad(error.to_string()))?;
        let Some(own) = certificates.first() else {
            return Err(TlsError::NoCertificate { file: certificate() });
        };
        let (_, parsed) = x509_parser::parse_x509_certificate(own).map_err(|error| bad(error.to_string()))?;
        let validity = parsed.validity();
        let (not_before_ms, not_after_ms) =
            (ms_of(validity.not_before.timestamp()), ms_of(validity.not_after.timestamp()));
        let private = PrivateKeyDer::from_pem_slice(&content.key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey { file: key() },
            error => TlsError::BadKey { file: key(), source: rustls::Error::General(error.to_string()) },
        })?;
        let certified = CertifiedKey::from_der(certificates.clone(), private, &default_provider());
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { key: key(), certificate: certificate() }
            }
            rustls::Error::InvalidCertificate(why) => bad(why.to_string()),
            source => TlsError::BadKey { file: key(), source },
        })?;
        Ok(Self { certified: Arc::new(certified), not_before_ms, not_after_ms, digest: content.digest() })
    }

    /// Whether it can be used at this time.
    #[must_use]
    pub fn validity(&self, now_ms: i64) -> Validity {
        match now_ms {
            now_ms if now_ms < self.not_before_ms => Validity::NotYet,
            now_ms if now_ms > self.not_after_ms => Validity::Expired,
            _ => Validity::Valid,
        }
    }

    /// When its time is over.
    #[must_use]
    pub fn not_after_ms(&self) -> i64 {
        self.not_after_ms
    }

    fn measure(&self) {
        metrics::gauge!("throughline_tls_certificate_expires_seconds").set(self.not_after_ms as f64 / 1e3);
    }
}

fn ms_of(seconds: i64) -> i64 {
    seconds.saturating_mul(1000)
}

/// What the two files say.
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Content {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |option, file: &Path| {
            std::fs::read(file).map_err(|source| TlsError::Unreadable { option, file: file.to_owned(), source })
        };
        let certificate = read("tls_certificate_file", &files.certificate)?;
        Ok(Self { certificate, key: read("tls_key_file", &files.key)? })
    }

    fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update((self.certificate.len() as u64).to_be_bytes());
        hasher.update(&self.certificate);
        hasher.update(&self.key);
        hasher.finalize().into()
    }
}

/// What became of a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Unchanged,
    Renewed,
}

/// TLS with a certificate that can be exchanged while connections are accepted.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<Identity>>,
    clock: Arc<dyn Clock>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(files: TlsFiles, clock: Arc<dyn Clock>) -> Result<Arc<Self>, TlsError> {
        let identity = Identity::load(&files)?;
        identity.measure();
        let tls = Self { files, current: RwLock::new(Arc::new(identity)), clock };
        warn_unless_valid(&tls.current(), tls.clock.now_ms());
        Ok(Arc::new(tls))
    }

    /// Greets connections with whichever certificate there is then. TLS 1.2 and 1.3, without early data, which could be
    /// replayed; HTTP/1.1 is what is spoken afterwards.
    ///
    /// # Errors
    /// When the library refuses its settings.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).map_err(TlsError::Settings)?;
        let mut config =
            builder.with_no_client_auth().with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn current(&self) -> Arc<Identity> {
        // It is exchanged as a whole, so a panic elsewhere leaves nothing half done.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files, and takes over what they hold.
    fn look(&self) -> Result<Look, TlsError> {
        let content = Content::read(&self.files)?;
        if content.digest() == self.current().digest {
            return Ok(Look::Unchanged);
        }
        let identity = Identity::of(&self.files, &content)?;
        identity.measure();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
        Ok(Look::Renewed)
    }

    /// Starts listening for SIGHUP: from here on it does not end the process.
    ///
    /// # Errors
    /// When the operating system does not let it.
    pub fn hangups() -> Result<Signal, TlsError> {
        signal(SignalKind::hangup()).map_err(TlsError::Signal)
    }

    /// Looks at the files every minute and at each of `hangups`, for ever.
    pub async fn watch(self: Arc<Self>, mut hangups: Signal) {
        let mut validity = self.current().validity(self.clock.now_ms());
        loop {
            let asked = tokio::select! {
                _ = hangups.recv() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let tls = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || tls.look()).await;
            let now_ms = self.clock.now_ms();
            let identity = self.current();
            match looked {
                Ok(Ok(Look::Renewed)) => {
                    let until = rfc3339(identity.not_after_ms);
                    tracing::info!(%until, "the certificate was exchanged; new connections get the new one");
                    validity = Validity::Valid;
                }
                Ok(Ok(Look::Unchanged)) if asked => tracing::info!("the certificate's files have not changed"),
                Ok(Ok(Look::Unchanged)) => {}
                Ok(Err(error)) => {
                    metrics::counter!("throughline_tls_renewals_failed_total").increment(1);
                    tracing::error!(error = %chain(&error), "the certificate in use is kept, because the new one can't be used");
                }
                // Nothing was exchanged, and the next look is in a minute.
                Err(error) => tracing::error!(%error, "the certificate's files were not looked at"),
            }
            if std::mem::replace(&mut validity, identity.validity(now_ms)) != validity {
                warn_unless_valid(&identity, now_ms);
            }
        }
    }
}

fn warn_unless_valid(identity: &Identity, now_ms: i64) {
    match identity.validity(now_ms) {
        Validity::Valid => {}
        Validity::Expired => {
            let since = rfc3339(identity.not_after_ms);
            tracing::warn!(%since, "the certificate has expired, so browsers refuse it: renew it and replace its files");
        }
        Validity::NotYet => {
            let from = rfc3339(identity.not_before_ms);
            tracing::warn!(%from, "the certificate's time has not begun, so browsers refuse it: look at this machine's clock");
        }
    }
}

impl ResolvesServerCert for Tls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().certified))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const NOW_MS: i64 = 1_795_165_200_000;

    struct Files {
        folder: tempfile::TempDir,
        files: TlsFiles,
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn files(certificate: &str, key: &str) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles { certificate: folder.path().join("c.pem"), key: folder.path().join("k.pem") };
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        Files { folder, files }
    }

    fn refused(certificate: &str, key: &str) -> String {
        let Files { folder: _folder, files } = files(certificate, key);
        chain(&Identity::load(&files).unwrap_err())
    }

    #[test]
    fn what_can_not_be_used_is_named_with_its_file_and_reason() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        for (certificate, key, said) in [
            ("", key.as_str(), ["no certificate in", "c.pem"]),
            (key.as_str(), key.as_str(), ["no certificate in", "c.pem"]),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key.as_str(), ["damaged", "c.pem"]),
            (certificate.as_str(), "", ["no private key in", "k.pem"]),
            (certificate.as_str(), certificate.as_str(), ["no private key in", "k.pem"]),
            (certificate.as_str(), other.as_str(), ["does not belong to", "k.pem"]),
            (
                certificate.as_str(),
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                ["can't be used", "k.pem"],
            ),
        ] {
            let text = refused(certificate, key);
            assert!(said.iter().all(|said| text.contains(said)), "{text}");
            assert!(!text.contains(key.lines().nth(1).unwrap_or("AAAA")), "the key is not repeated: {text}");
        }
        let Files { folder, files } = files(&certificate, &key);
        let missing = TlsFiles { key: folder.path().join("nowhere"), ..files };
        let text = chain(&Identity::load(&missing).unwrap_err());
        assert!(text.contains("`tls_key_file`") && text.contains("nowhere") && text.contains("No such file"), "{text}");
    }

    #[test]
    fn a_certificate_is_valid_from_its_first_to_its_last_moment() {
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 12, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().pem();
        let Files { folder: _folder, files } = files(&certificate, &key.serialize_pem());
        let identity = Identity::load(&files).unwrap();
        assert_eq!(rfc3339(identity.not_after_ms()), "2026-12-31T00:00:00.000Z");
        let (first, last) = (identity.not_before_ms, identity.not_after_ms);
        for (now_ms, validity) in [
            (first - 1, Validity::NotYet),
            (first, Validity::Valid),
            (last, Validity::Valid),
            (last + 1, Validity::Expired),
        ] {
            assert_eq!(identity.validity(now_ms), validity, "{now_ms}");
        }
    }

    #[test]
    fn a_new_certificate_is_taken_over_and_a_bad_one_is_not() {
        let (certificate, key) = pair();
        let Files { folder: _folder, files } = files(&certificate, &key);
        let tls = Tls::open(files.clone(), Arc::new(ManualClock::at(NOW_MS))).unwrap();
        let shown = || tls.current().certified.cert.clone();
        let first = shown();
        assert_eq!(tls.look().unwrap(), Look::Unchanged);
        let (certificate, key) = pair();
        // Between the two writes they do not belong together.
        std::fs::write(&files.certificate, &certificate).unwrap();
        assert!(matches!(tls.look(), Err(TlsError::Mismatch { .. })));
        assert_eq!(shown(), first);
        std::fs::write(&files.key, &key).unwrap();
        assert_eq!(tls.look().unwrap(), Look::Renewed);
        assert_ne!(shown(), first);
        std::fs::remove_file(&files.key).unwrap();
        assert!(matches!(tls.look(), Err(TlsError::Unreadable { option: "tls_key_file", .. })));
        assert_ne!(shown(), first);
    }
}
