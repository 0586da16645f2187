//! Keys: from the environment, from files, or from a command, never from flags (everyone on the machine can read a
//! process's arguments) and never from the configuration file (it gets committed).

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::ServeOptions;
use crate::keys::ring_text::VARIABLE as KEYS;
use crate::keys::source::{KeySource, KeySourceError};
use crate::keys::{KeyRing, KeyRingError, RootKeyError};
use crate::legacy_cookie::{LegacyCookies, LegacySecretError};
use crate::service_key::{BootstrapRole, KnownKey, KnownKeyError, ServiceKey, ServiceKeyError};
use crate::service_keys::ServiceKeys;
use crate::tenant::TenantId;

const SERVICE_KEY_HASHES: &str = "THROUGHLINE_SERVICE_KEY_HASHES";
const LEGACY_COOKIE_SECRET: &str = "THROUGHLINE_LEGACY_COOKIE_SECRET";

/// The keys that a server works with.
#[derive(Debug)]
pub struct Secrets {
    /// What tokens, data keys and everything else secret are derived from.
    pub keys: KeyRing,
    /// Where that is read again; `None` where it was made for this process.
    pub key_source: Option<KeySource>,
    /// Which service keys are known: those of the configuration, until the database has been read.
    pub service_keys: ServiceKeys,
    /// Which cookies of the old shop are taken.
    pub legacy_cookies: LegacyCookies,
    /// The service key that was made for this process, with `--dev` only.
    pub dev_service_key: Option<ServiceKey>,
}

/// Why there are no keys. No variant holds a key or a part of one.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// No key ring.
    #[error(
        "there is no key ring, and there is no default one: make one with `throughline keys generate`, then set {KEYS}, --keys-file or --keys-command. To try things out, `--dev` makes keys of its own"
    )]
    NoKeys,
    /// Two sources for the same thing.
    #[error("both {variable} and {flag} are set; keep the one that is meant")]
    Ambiguous {
        /// The variable.
        variable: &'static str,
        /// The flag.
        flag: &'static str,
    },
    /// A file with hashes cannot be read.
    #[error("the file {file:?} cannot be read; check the path and its permissions")]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The old shop's secret proves nothing.
    #[error(transparent)]
    LegacySecret(#[from] LegacySecretError),
    /// The key ring can't be read.
    #[error(transparent)]
    KeySource(#[from] KeySourceError),
    /// The keys do not make a ring.
    #[error("the keys cannot be used together")]
    Ring(#[from] KeyRingError),
    /// A hash is not one.
    #[error("service key hash number {number} is wrong")]
    ServiceKeyHash {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: KnownKeyError,
    },
    /// No key could be made for `--dev`.
    #[error("no key could be made for this process")]
    NoRandomKey(#[source] RootKeyError),
    /// No key could be made for `--dev`.
    #[error("no service key could be made for this process")]
    NoRandomServiceKey(#[from] ServiceKeyError),
}

/// Where `options` and the environment say that the key ring is.
///
/// # Errors
/// When they say so more than once.
pub fn key_source(
    options: &ServeOptions,
    environment: impl Fn(&'static str) -> Option<String>,
) -> Result<Option<KeySource>, KeySourceError> {
    KeySource::choose(environment(KEYS), options.keys_file.as_deref(), options.keys_command.as_deref())
}

impl Secrets {
    /// Reads the keys that `options` and the environment name.
    ///
    /// # Errors
    /// See [`SecretsError`]; without keys and without `--dev` there is always one.
    pub fn load(
        options: &ServeOptions,
        environment: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, SecretsError> {
        let key_source = key_source(options, &environment)?;
        let hashes = entries(
            environment(SERVICE_KEY_HASHES),
            (SERVICE_KEY_HASHES, "--service-key-hashes-file"),
            options.service_key_hashes_file.as_deref(),
        )?;
        let keys = match &key_source {
            Some(source) => KeyRing::of(source.read()?)?,
            None if options.dev => KeyRing::generate().map_err(SecretsError::NoRandomKey)?,
            None => return Err(SecretsError::NoKeys),
        };
        let mut known = Vec::new();
        for (number, text) in (1..).zip(&hashes) {
            let key = text.parse::<KnownKey>().map_err(|source| SecretsError::ServiceKeyHash { number, source })?;
            known.push(key);
        }
        let mut dev_service_key = None;
        if options.dev {
            let key = ServiceKey::generate()?;
            known.push(key.known_as(TenantId::single(), BootstrapRole::Operator));
            dev_service_key = Some(key);
        }
        let secrets = legacy_secrets(environment(LEGACY_COOKIE_SECRET), options.legacy_cookie_secret_file.as_deref())?;
        let legacy_cookies =
            LegacyCookies::signed_with(secrets, options.legacy_cookie_tenant.clone().unwrap_or_default())?;
        Ok(Self { keys, key_source, service_keys: ServiceKeys::new(known), legacy_cookies, dev_service_key })
    }
}

/// The secrets of the old shop's cookies. A comma may be part of one.
fn legacy_secrets(variable: Option<String>, file: Option<&Path>) -> Result<Vec<Zeroizing<String>>, SecretsError> {
    let text = match (variable.filter(|text| !text.trim().is_empty()), file) {
        (Some(_), Some(_)) => {
            let (variable, flag) = (LEGACY_COOKIE_SECRET, "--legacy-cookie-secret-file");
            return Err(SecretsError::Ambiguous { variable, flag });
        }
        (Some(text), None) => return Ok(vec![Zeroizing::new(text)]),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|source| SecretsError::Unreadable { file: file.to_owned(), source })?,
        (None, None) => return Ok(Vec::new()),
    };
    let lines = Zeroizing::new(text);
    Ok(lines.lines().filter(|line| !line.is_empty()).map(|line| Zeroizing::new(line.to_owned())).collect())
}

/// The entries of a variable or of a file, without comments and empty ones.
fn entries(
    variable: Option<String>,
    (name, flag): (&'static str, &'static str),
    file: Option<&Path>,
) -> Result<Vec<String>, SecretsError> {
    let variable = variable.filter(|text| !text.trim().is_empty());
    let text = match (variable, file) {
        (Some(_), Some(_)) => return Err(SecretsError::Ambiguous { variable: name, flag }),
        (Some(text), None) => text,
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|source| SecretsError::Unreadable { file: file.to_owned(), source })?,
        (None, None) => String::new(),
    };
    Ok(text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(','))
        .map(|entry| strip_name(entry.trim(), name))
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect())
}

/// `keys generate` prints `NAME=value`; a file that holds that whole line works as well.
fn strip_name<'a>(entry: &'a str, name: &str) -> &'a str {
    entry.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).unwrap_or(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::RootKey;

    fn load(keys: Option<&str>, hashes: Option<&str>, options: &ServeOptions) -> Result<Secrets, SecretsError> {
        Secrets::load(options, |name| match name {
            KEYS => keys.map(str::to_owned),
            SERVICE_KEY_HASHES => hashes.map(str::to_owned),
            _ => None,
        })
    }

    fn hash() -> String {
        let key = ServiceKey::generate().unwrap();
        key.known_as(TenantId::single(), BootstrapRole::Service).to_string()
    }

    fn key() -> String {
        RootKey::generate(None).unwrap().reveal().to_string()
    }

    #[test]
    fn asvs_13_3_1_there_is_no_default_key() {
        let options = ServeOptions::default();
        assert!(matches!(load(None, None, &options), Err(SecretsError::NoKeys)));
        assert!(matches!(load(Some(" "), Some(&hash()), &options), Err(SecretsError::NoKeys)));
        let secrets = load(Some(&key()), None, &options).unwrap();
        assert!(secrets.service_keys.has_none() && secrets.dev_service_key.is_none());
    }

    #[test]
    fn the_development_mode_makes_keys_that_nobody_knows() {
        let options = ServeOptions { dev: true, ..ServeOptions::default() };
        let secrets = load(None, None, &options).unwrap();
        let key = secrets.dev_service_key.unwrap();
        assert!(secrets.service_keys.recognise(key.reveal(), 0).is_ok());
        assert!(!format!("{key:?}").contains(key.reveal()));
    }

    #[test]
    fn keys_come_from_the_environment_separated_by_commas() {
        let (keys, hashes) = (format!("{},{}", key(), key()), format!("{},{}", hash(), hash()));
        let secrets = load(Some(&keys), Some(&hashes), &ServeOptions::default()).unwrap();
        assert_eq!(secrets.keys.all().len(), 2);
        assert!(!format!("{secrets:?}").contains(&keys[..20]));
    }

    #[test]
    fn keys_come_from_a_file_with_comments() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("# new\n{KEYS}={}\n\n{}\n", key(), key())).unwrap();
        let options = ServeOptions { keys_file: Some(file.path().to_owned()), ..Default::default() };
        assert_eq!(load(None, Some(&hash()), &options).unwrap().keys.all().len(), 2);
        let both = load(Some(&key()), Some(&hash()), &options);
        assert!(matches!(both, Err(SecretsError::KeySource(KeySourceError::Ambiguous { .. }))));
    }

    #[test]
    fn a_wrong_key_is_counted_and_not_repeated() {
        let keys = format!("{},hunter2", key());
        let error = load(Some(&keys), Some(&hash()), &ServeOptions::default()).unwrap_err();
        let told = crate::problem::chain(&error);
        assert!(told.contains("entry 2") && !told.contains("hunter2"), "{told}");
    }
}
