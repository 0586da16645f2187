//! Keys: from the environment or from files, never from flags (everyone on the machine can
//! read a process's arguments) and never from the configuration file (it gets committed).

use std::path::{Path, PathBuf};

use super::ServeOptions;
use crate::email_lookup::{EmailLookup, LookupKeyError, NoRandomLookupKey};
use crate::service_key::{KnownKey, KnownKeyError, Scope, ServiceKey, ServiceKeyError, ServiceKeys};
use crate::tenant::TenantId;
use crate::token::{KeyRingError, TokenKey, TokenKeyError, TokenKeyRing};

const TOKEN_KEY: &str = "THROUGHLINE_TOKEN_KEY";
const SERVICE_KEY_HASHES: &str = "THROUGHLINE_SERVICE_KEY_HASHES";
const LOOKUP_KEY: &str = "THROUGHLINE_LOOKUP_KEY";

/// The keys that a server works with.
#[derive(Debug)]
pub struct Secrets {
    /// For session tokens.
    pub tokens: TokenKeyRing,
    /// Which service keys are known.
    pub service_keys: ServiceKeys,
    /// For finding sessions by email address. Without it they are stored without what it takes to find them.
    pub email_lookup: Option<EmailLookup>,
    /// The service key that was made for this process, with `--dev` only.
    pub dev_service_key: Option<ServiceKey>,
}

/// Why there are no keys. No variant holds a key or a part of one.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// No token key.
    #[error(
        "there is no token key, and there is no default one: make keys with `throughline keys generate`, then set {TOKEN_KEY} or --token-key-file. To try things out, `--dev` makes keys that live as long as the process"
    )]
    NoTokenKey,
    /// No service key.
    #[error(
        "there is no service key, so no back end could authenticate: make keys with `throughline keys generate`, then set {SERVICE_KEY_HASHES} or --service-key-hashes-file"
    )]
    NoServiceKey,
    /// Two sources for the same thing.
    #[error("both {variable} and {flag} are set; keep the one that is meant")]
    Ambiguous {
        /// The variable.
        variable: &'static str,
        /// The flag.
        flag: &'static str,
    },
    /// A key file cannot be read.
    #[error("the key file {file:?} cannot be read; check the path and its permissions")]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A token key is not one.
    #[error("token key number {number} is wrong")]
    TokenKey {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: TokenKeyError,
    },
    /// The keys do not make a ring.
    #[error("the token keys cannot be used together")]
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
    /// The look-up key is not one.
    #[error("the look-up key is wrong")]
    LookupKey(#[from] LookupKeyError),
    /// More than one look-up key.
    #[error(
        "there is more than one look-up key in {LOOKUP_KEY} or --lookup-key-file; keep the one that the sessions were stored with"
    )]
    SeveralLookupKeys,
    /// No key could be made for `--dev`.
    #[error("no look-up key could be made for this process")]
    NoRandomLookupKey(#[from] NoRandomLookupKey),
    /// No key could be made for `--dev`.
    #[error("no token key could be made for this process")]
    NoRandomTokenKey(#[source] TokenKeyError),
    /// No key could be made for `--dev`.
    #[error("no service key could be made for this process")]
    NoRandomServiceKey(#[from] ServiceKeyError),
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
        let token_keys =
            entries(environment(TOKEN_KEY), (TOKEN_KEY, "--token-key-file"), options.token_key_file.as_deref())?;
        let hashes = entries(
            environment(SERVICE_KEY_HASHES),
            (SERVICE_KEY_HASHES, "--service-key-hashes-file"),
            options.service_key_hashes_file.as_deref(),
        )?;
        let lookup_keys =
            entries(environment(LOOKUP_KEY), (LOOKUP_KEY, "--lookup-key-file"), options.lookup_key_file.as_deref())?;
        let mut email_lookup = match lookup_keys.as_slice() {
            [] => None,
            [key] => Some(key.parse::<EmailLookup>()?),
            _ => return Err(SecretsError::SeveralLookupKeys),
        };
        let mut keys = Vec::new();
        for (number, text) in (1..).zip(&token_keys) {
            let key = TokenKey::parse(text).map_err(|source| SecretsError::TokenKey { number, source })?;
            keys.push(key);
        }
        let mut known = Vec::new();
        for (number, text) in (1..).zip(&hashes) {
            let key = text.parse::<KnownKey>().map_err(|source| SecretsError::ServiceKeyHash { number, source })?;
            known.push(key);
        }
        let mut dev_service_key = None;
        if options.dev {
            if keys.is_empty() {
                keys.push(TokenKey::generate().map_err(SecretsError::NoRandomTokenKey)?);
            }
            if email_lookup.is_none() {
                email_lookup = Some(EmailLookup::generate()?);
            }
            let key = ServiceKey::generate()?;
            known.push(key.known_as(TenantId::single(), Scope::Service));
            dev_service_key = Some(key);
        }
        if keys.is_empty() {
            return Err(SecretsError::NoTokenKey);
        }
        if known.is_empty() {
            return Err(SecretsError::NoServiceKey);
        }
        let service_keys = ServiceKeys::new(known);
        Ok(Self { tokens: TokenKeyRing::new(keys)?, service_keys, email_lookup, dev_service_key })
    }
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

    fn load(token_key: Option<&str>, hashes: Option<&str>, options: &ServeOptions) -> Result<Secrets, SecretsError> {
        Secrets::load(options, |name| match name {
            TOKEN_KEY => token_key.map(str::to_owned),
            SERVICE_KEY_HASHES => hashes.map(str::to_owned),
            _ => None,
        })
    }

    fn hash() -> String {
        let key = ServiceKey::generate().unwrap();
        key.known_as(TenantId::single(), Scope::Service).to_string()
    }

    fn token_key() -> String {
        TokenKey::generate().unwrap().reveal().unwrap()
    }

    #[test]
    fn there_is_no_default_key() {
        let options = ServeOptions::default();
        assert!(matches!(load(None, None, &options), Err(SecretsError::NoTokenKey)));
        assert!(matches!(load(Some(" "), Some(&hash()), &options), Err(SecretsError::NoTokenKey)));
        let no_service = load(Some(&token_key()), None, &options);
        assert!(matches!(no_service, Err(SecretsError::NoServiceKey)));
    }

    #[test]
    fn the_development_mode_makes_keys_that_nobody_knows() {
        let options = ServeOptions { dev: true, ..ServeOptions::default() };
        let secrets = load(None, None, &options).unwrap();
        let key = secrets.dev_service_key.unwrap();
        assert!(secrets.service_keys.recognise(key.reveal()).is_some());
        assert!(!format!("{key:?}").contains(key.reveal()));
    }

    #[test]
    fn keys_come_from_the_environment_separated_by_commas() {
        let (tokens, hashes) = (format!("{},{}", token_key(), token_key()), format!("{},{}", hash(), hash()));
        assert!(load(Some(&tokens), Some(&hashes), &ServeOptions::default()).is_ok());
    }

    #[test]
    fn keys_come_from_a_file_with_comments() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("# new\n{TOKEN_KEY}={}\n\n{}\n", token_key(), token_key())).unwrap();
        let options = ServeOptions { token_key_file: Some(file.path().to_owned()), ..Default::default() };
        assert!(load(None, Some(&hash()), &options).is_ok());
        let both = load(Some(&token_key()), Some(&hash()), &options);
        assert!(matches!(both, Err(SecretsError::Ambiguous { .. })));
    }

    #[test]
    fn a_look_up_key_is_optional_one_and_not_repeated_when_it_is_wrong() {
        let options = ServeOptions::default();
        let (token_key, hash) = (token_key(), hash());
        let load = |lookup_key: Option<&str>| {
            Secrets::load(&options, |name| match name {
                TOKEN_KEY => Some(token_key.clone()),
                SERVICE_KEY_HASHES => Some(hash.clone()),
                _ => lookup_key.map(str::to_owned),
            })
        };
        assert!(load(None).unwrap().email_lookup.is_none());
        let key = EmailLookup::generate().unwrap().reveal();
        assert_eq!(load(Some(&key)).unwrap().email_lookup.unwrap().reveal(), key);
        assert!(matches!(load(Some(&format!("{key},{key}"))), Err(SecretsError::SeveralLookupKeys)));
        let error = load(Some("hunter2")).unwrap_err();
        assert!(!crate::problem::chain(&error).contains("hunter2"));
    }

    #[test]
    fn a_wrong_key_is_counted_and_not_repeated() {
        let tokens = format!("{},hunter2", token_key());
        let error = load(Some(&tokens), Some(&hash()), &ServeOptions::default()).unwrap_err();
        assert!(matches!(error, SecretsError::TokenKey { number: 2, .. }));
        assert!(!crate::problem::chain(&error).contains("hunter2"));
    }
}
