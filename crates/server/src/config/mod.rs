//! What the operator asked for: flags, then the environment, then a file, then defaults.

mod options;
pub mod reference;
mod secrets;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::client_address::TrustedProxies;
use crate::http::origin::AllowedOrigins;
use crate::network::Networks;
use crate::rate_limit::RequestRates;
use crate::sessions::{Retention, SessionLimits};
use crate::shared_cache::SharedCacheSettings;
use crate::store::group_commit::GroupCommitLimits;
use crate::store::{DatabaseSettings, DatabaseUrl, DatabaseUrlError};
use crate::telemetry::TracingSettings;
use crate::tls::TlsFiles;
use crate::token::Lifetimes;
use crate::webhooks::WebhookSettings;

pub use options::{ByteSize, ByteSizeError, DurabilityChoice, LogFormat, ServeOptions};
pub use secrets::{Secrets, SecretsError, key_source};

/// Everything that is not secret, read and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Which database, and how it is used.
    pub database: DatabaseSettings,
    /// Which Redis, if any.
    pub shared_cache: Option<SharedCacheSettings>,
    /// How sessions are held.
    pub sessions: SessionLimits,
    /// How often what is ahead of the database is brought there.
    pub flush_interval: Duration,
    /// How long sessions are kept after they are over; for ever where nothing is said.
    pub retention: Retention,
    /// How long lifecycle events are kept.
    pub event_retention: Duration,
    /// How webhooks are delivered.
    pub webhooks: WebhookSettings,
    /// The folder of funnel definitions, if there is one beside the built-in funnel.
    pub funnels: Option<PathBuf>,
    /// Which web pages may talk to this server.
    pub allowed_origins: AllowedOrigins,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// How long session tokens live.
    pub lifetimes: Lifetimes,
    /// How many sessions one address may create without a credential.
    pub session_creations_per_minute: NonZeroU32,
    /// The largest request body, in bytes.
    pub body_limit: usize,
    /// How long answering one request may take.
    pub request_timeout: Duration,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// How long a connection may be open without a request, after its first one.
    pub idle_timeout: Duration,
    /// The certificate and key to speak TLS with; without them, the server does not.
    pub tls: Option<TlsFiles>,
    /// How large the head of a request may be.
    pub head: HeadLimits,
    /// The largest message on a socket, in bytes.
    pub frame_limit: usize,
    /// How many arrays and objects may lie in each other in JSON.
    pub json_depth_limit: usize,
    /// How many requests whoever asks may send a minute.
    pub rates: RequestRates,
    /// Open connections in all; more wait to be accepted.
    pub max_connections: usize,
    /// Requests under way at a time; more are answered 503 at once.
    pub max_requests: usize,
    /// Open connections of one address; more are closed.
    pub max_connections_per_address: usize,
    /// Open sockets of one session, and requests instead of them.
    pub max_sockets_per_session: usize,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines there are.
    pub log_filter: String,
    /// How long a server that was told to stop still takes connections, while it says that it is not ready.
    pub drain_delay: Duration,
    /// Where spans go, if anywhere.
    pub tracing: Option<TracingSettings>,
    /// How long a stopping server waits for what is under way.
    pub shutdown_grace: Duration,
    /// Whether `/metrics` is for everyone.
    pub open_metrics: bool,
    /// Whether this process runs on a developer's machine.
    pub dev: bool,
}

/// How large the head of a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// The bytes of all headers.
    pub header_bytes: usize,
    /// How many headers there may be.
    pub headers: usize,
    /// The bytes of path and query.
    pub url_bytes: usize,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {file:?} cannot be read; check the path and its permissions")]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file does not say what it should.
    #[error("the configuration file {file:?} is wrong at line {line}: {message}")]
    File {
        /// Which file.
        file: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What is wrong. Never the text of the line: it may be a secret in the wrong place.
        message: String,
    },
    /// The database's address is wrong.
    #[error("`database_url` is wrong")]
    DatabaseUrl(#[from] DatabaseUrlError),
    /// A value is of the right form and cannot work.
    #[error("`{option}` is wrong: {why}")]
    OutOfRange {
        /// Which option.
        option: &'static str,
        /// What would work.
        why: &'static str,
    },
}

/// Which database `throughline migrate` works on: the one that a server with the same options would open.
///
/// # Errors
/// See [`ConfigError`].
pub fn database_of(options: ServeOptions) -> Result<DatabaseUrl, ConfigError> {
    let options = merged(options)?.or(ServeOptions::defaults()?);
    Ok(given("database_url", &options.database_url)?.parse()?)
}

/// How a server with these options would use its database.
///
/// # Errors
/// See [`ConfigError`].
pub fn database_settings(options: ServeOptions) -> Result<DatabaseSettings, ConfigError> {
    Ok(Config::resolve(options)?.0.database)
}

/// How long tokens of a server with these options live.
///
/// # Errors
/// See [`ConfigError`].
pub fn token_lifetimes(options: ServeOptions) -> Result<Lifetimes, ConfigError> {
    Ok(Config::resolve(options)?.0.lifetimes)
}

/// The options, and those of the file that they name.
///
/// # Errors
/// See [`ConfigError`].
pub fn merged(flags: ServeOptions) -> Result<ServeOptions, ConfigError> {
    match flags.config.clone() {
        Some(file) => Ok(flags.or(ServeOptions::read(&file)?)),
        None => Ok(flags),
    }
}

/// The value of an option that has a default.
fn given<T: Clone>(option: &'static str, value: &Option<T>) -> Result<T, ConfigError> {
    value.clone().ok_or(ConfigError::OutOfRange { option, why: "it has no default value; give one" })
}

impl Config {
    /// Reads the file that `flags` name, if any, and fills what is left with defaults.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn resolve(flags: ServeOptions) -> Result<(Self, ServeOptions), ConfigError> {
        let merged = merged(flags)?;
        Ok((Self::of(&merged)?, merged))
    }

    fn of(options: &ServeOptions) -> Result<Self, ConfigError> {
        let dev = options.dev;
        let has_writers = options.database_writers.is_some();
        let options = &options.clone().or(ServeOptions::defaults()?);
        let period =
            |option: &'static str, value: &Option<humantime::Duration>| given(option, value).map(Duration::from);
        let positive = |option: &'static str, value: &Option<humantime::Duration>| {
            let value = period(option, value)?;
            if value.is_zero() {
                let why = "it must be longer than nothing, for example 10s";
                return Err(ConfigError::OutOfRange { option, why });
            }
            Ok(value)
        };
        let count = |option: &'static str, value: Option<usize>| {
            let value = given(option, &value)?;
            if value == 0 {
                return Err(ConfigError::OutOfRange { option, why: "it must be at least 1" });
            }
            Ok(value)
        };
        let within =
            |option: &'static str, value: usize, bounds: std::ops::RangeInclusive<usize>, why: &'static str| {
                if bounds.contains(&value) { Ok(value) } else { Err(ConfigError::OutOfRange { option, why }) }
            };
        let size = |option: &'static str, value: Option<ByteSize>| given(option, &value).map(|size| size.0);
        let lifetimes = Lifetimes {
            idle: positive("token_ttl", &options.token_ttl)?,
            absolute: positive("token_max_age", &options.token_max_age)?,
        };
        if lifetimes.idle > lifetimes.absolute {
            let why = "a token cannot live longer than `token_max_age` allows all its renewals";
            return Err(ConfigError::OutOfRange { option: "token_ttl", why });
        }
        let kept = |own: Option<humantime::Duration>| own.or(options.retention).map(Duration::from);
        let retention = Retention {
            completed: kept(options.retention_completed),
            failed: kept(options.retention_failed),
            expired: kept(options.retention_expired),
        };
        if retention.shortest().is_some_and(|retention| retention < lifetimes.absolute) {
            // A browser that still has its token could begin the session anew under its old id.
            let why = "it must be at least `token_max_age`, so that no token outlives its session";
            return Err(ConfigError::OutOfRange { option: "retention", why });
        }
        let event_retention = period("event_retention", &options.event_retention)?;
        if !options.dev && event_retention < Duration::from_secs(60 * 60) {
            let why = "it must be at least 1h: a stream that is taken up again has to find what it missed";
            return Err(ConfigError::OutOfRange { option: "event_retention", why });
        }
        let webhook_timeout = period("webhook_timeout", &options.webhook_timeout)?;
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&webhook_timeout) {
            let why = "it must be from 1s to 1m";
            return Err(ConfigError::OutOfRange { option: "webhook_timeout", why });
        }
        let webhooks = WebhookSettings {
            retries: given("webhook_retries", &options.webhook_retries)?.0,
            timeout: webhook_timeout,
            disable_after: positive("webhook_disable_after", &options.webhook_disable_after)?,
            networks: Networks::new(options.webhook_networks.clone().unwrap_or_default()),
        };
        let connections = count("database_connections", options.database_connections)?;
        let mut writers = count("database_writers", options.database_writers)?;
        if !has_writers {
            // Few connections that somebody chose should not need a second choice.
            writers = writers.min(connections - 1).max(1);
        }
        if connections < 2 {
            let why = "it must be at least 2: one connection writes and one reads";
            return Err(ConfigError::OutOfRange { option: "database_connections", why });
        }
        if writers >= connections {
            let why = "it must be less than `database_connections`, so that a connection is left for reading";
            return Err(ConfigError::OutOfRange { option: "database_writers", why });
        }
        let url = given("database_url", &options.database_url)?.parse()?;
        let tracing = tracing(options, &url)?;
        let flush_interval = period("flush_interval", &options.flush_interval)?;
        if flush_interval.is_zero() || flush_interval > Duration::from_secs(1) {
            let why = "what is ahead of the database has to get there within a second: between 1ms and 1s";
            return Err(ConfigError::OutOfRange { option: "flush_interval", why });
        }
        let timeout = period("database_timeout", &options.database_timeout)?;
        if !(Duration::from_millis(50)..=Duration::from_secs(60)).contains(&timeout) {
            let why = "it must be from 50ms to 60s";
            return Err(ConfigError::OutOfRange { option: "database_timeout", why });
        }
        let queue = count("commit_queue", options.commit_queue)?;
        let batch = count("commit_batch", options.commit_batch)?;
        if queue > 1_000_000 {
            let why = "more than 1000000 waiting commits would outlive every caller's patience";
            return Err(ConfigError::OutOfRange { option: "commit_queue", why });
        }
        Ok(Self {
            listen: given("listen", &options.listen)?,
            shared_cache: shared_cache(options, &url)?,
            sessions: SessionLimits {
                memory_bytes: count("session_memory", options.session_memory.map(|size| size.0))? as u64,
                backlog: count("backlog_limit", options.backlog_limit)?,
                relaxed: given("durability", &options.durability)? == DurabilityChoice::Relaxed,
            },
            flush_interval,
            retention,
            event_retention,
            webhooks,
            database: DatabaseSettings {
                url,
                read_connections: given("read_connections", &options.read_connections)?.get(),
                connections,
                writers,
                timeout,
                group_commit: GroupCommitLimits { queue, batch },
                auto_migrate: given("auto_migrate", &options.auto_migrate)?,
            },
            funnels: options.funnels.clone(),
            allowed_origins: AllowedOrigins::new(options.allowed_origins.clone().unwrap_or_default()).map_err(
                |_| {
                    let why = "an origin is listed for two tenants; nobody could tell whose sessions its pages create";
                    ConfigError::OutOfRange { option: "allowed_origins", why }
                },
            )?,
            trusted_proxies: TrustedProxies::new(options.trusted_proxies.clone().unwrap_or_default()),
            lifetimes,
            session_creations_per_minute: given("session_creations_per_minute", &options.session_creations_per_minute)?,
            body_limit: count("body_limit", options.body_limit.map(|size| size.0))?,
            request_timeout: positive("request_timeout", &options.request_timeout)?,
            header_timeout: positive("header_timeout", &options.header_timeout)?,
            idle_timeout: positive("idle_timeout", &options.idle_timeout)?,
            tls: tls_files(options)?,
            head: HeadLimits {
                header_bytes: within(
                    "header_limit",
                    size("header_limit", options.header_limit)?,
                    1024..=1024 * 1024,
                    "it must be from 1KiB to 1MiB: browsers send several hundred bytes of headers with every request",
                )?,
                headers: within(
                    "max_headers",
                    count("max_headers", options.max_headers)?,
                    16..=1000,
                    "it must be from 16 to 1000: browsers send about 15 headers with every request",
                )?,
                url_bytes: within(
                    "url_limit",
                    size("url_limit", options.url_limit)?,
                    256..=32 * 1024,
                    "it must be from 256 bytes to 32KiB",
                )?,
            },
            frame_limit: within(
                "frame_limit",
                size("frame_limit", options.frame_limit)?,
                4096..=1024 * 1024,
                "it must be from 4KiB to 1MiB: a greeting and a command have to fit",
            )?,
            json_depth_limit: within(
                "json_depth_limit",
                count("json_depth_limit", options.json_depth_limit)?,
                16..=100,
                "it must be from 16 to 100: metadata alone may have 8 levels within a command within a request",
            )?,
            rates: RequestRates {
                per_address: given("requests_per_minute_per_address", &options.requests_per_minute_per_address)?,
                without_credential: given(
                    "requests_per_minute_without_credential",
                    &options.requests_per_minute_without_credential,
                )?,
                per_session: given("requests_per_minute_per_session", &options.requests_per_minute_per_session)?,
                per_service_key: given(
                    "requests_per_minute_per_service_key",
                    &options.requests_per_minute_per_service_key,
                )?,
                per_tenant: given("requests_per_minute_per_tenant", &options.requests_per_minute_per_tenant)?,
            },
            max_connections: count("max_connections", options.max_connections)?,
            max_requests: count("max_requests", options.max_requests)?.min(Semaphore::MAX_PERMITS),
            max_connections_per_address: count("max_connections_per_address", options.max_connections_per_address)?,
            max_sockets_per_session: count("max_sockets_per_session", options.max_sockets_per_session)?,
            log_format: given("log_format", &options.log_format)?,
            log_filter: given("log", &options.log)?,
            drain_delay: period("drain_delay", &options.drain_delay)?,
            tracing,
            shutdown_grace: period("shutdown_grace", &options.shutdown_grace)?,
            open_metrics: options.open_metrics.unwrap_or(dev),
            dev,
        })
    }
}

fn tls_files(options: &ServeOptions) -> Result<Option<TlsFiles>, ConfigError> {
    let missing = |option, why| Err(ConfigError::OutOfRange { option, why });
    match (&options.tls_certificate_file, &options.tls_key_file) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate: certificate.clone(), key: key.clone() })),
        (None, None) => Ok(None),
        (Some(_), None) => {
            missing("tls_key_file", "`tls_certificate_file` is given: give the file with its key as well")
        }
        (None, Some(_)) => {
            missing("tls_certificate_file", "`tls_key_file` is given: give the file with its certificate as well")
        }
    }
}

fn tracing(options: &ServeOptions, database: &DatabaseUrl) -> Result<Option<TracingSettings>, ConfigError> {
    let sampling = given("trace_sampling", &options.trace_sampling)?;
    if !(0.0..=1.0).contains(&sampling) {
        return Err(ConfigError::OutOfRange { option: "trace_sampling", why: "it must be from 0 to 1" });
    }
    let Some(endpoint) = options.otlp_endpoint.clone() else { return Ok(None) };
    let database = match database {
        DatabaseUrl::Sqlite(_) => "sqlite",
        DatabaseUrl::Postgres(_) => "postgresql",
    };
    Ok(Some(TracingSettings { endpoint, ca_file: options.otlp_ca_file.clone(), sampling, database }))
}

fn shared_cache(options: &ServeOptions, database: &DatabaseUrl) -> Result<Option<SharedCacheSettings>, ConfigError> {
    let Some(url) = options.redis_url.as_deref() else { return Ok(None) };
    if let DatabaseUrl::Sqlite(_) = database {
        let why = "Redis is what several servers share, and a SQLite file is for one: give a `database_url` of PostgreSQL as well, or leave Redis out";
        return Err(ConfigError::OutOfRange { option: "redis_url", why });
    }
    let mut settings = SharedCacheSettings::new(url);
    settings.prefix = given("redis_prefix", &options.redis_prefix)?;
    settings.operation_limit = given("redis_timeout", &options.redis_timeout)?.into();
    if settings.operation_limit.is_zero() {
        return Err(ConfigError::OutOfRange { option: "redis_timeout", why: "it must be longer than nothing" });
    }
    settings.ca_file.clone_from(&options.redis_ca_file);
    Ok(Some(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::NamedTempFile, ServeOptions) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let options = ServeOptions { config: Some(file.path().to_owned()), ..ServeOptions::default() };
        (file, options)
    }

    #[test]
    fn without_any_option_the_defaults_hold() {
        let (config, _) = Config::resolve(ServeOptions::default()).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8787");
        assert_eq!(config.lifetimes.idle, Duration::from_secs(1800));
        assert!(!config.dev && !config.open_metrics);
    }

    #[test]
    fn a_file_sets_what_no_flag_sets() {
        let (_file, mut options) = file(
            "listen = \"0.0.0.0:1\"\ntoken_ttl = \"15m\"\nbody_limit = \"128KiB\"\n\
             allowed_origins = [\"https://shop.example\"]\ntrusted_proxies = [\"10.0.0.0/8\"]",
        );
        options.listen = Some("127.0.0.1:2".parse().unwrap());
        let (config, _) = Config::resolve(options).unwrap();
        assert_eq!(config.listen.port(), 2, "the flag wins");
        assert_eq!(config.lifetimes.idle, Duration::from_secs(900));
        assert_eq!(config.body_limit, 128 * 1024);
        assert!(config.trusted_proxies.trusts("10.9.9.9".parse().unwrap()));
        assert_eq!(config.allowed_origins.values().count(), 1);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let (_file, options) = file("listen = \"0.0.0.0:1\"\ntoken_tll = \"15m\"");
        let error = Config::resolve(options).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("`token_tll`"), "{error}");
    }

    #[test]
    fn a_secret_in_the_file_is_refused_without_being_repeated() {
        let (_file, options) = file("keys = \"tlr_hunter2\"");
        let error = Config::resolve(options).unwrap_err().to_string();
        assert!(error.contains("`keys`") && error.contains("environment"), "{error}");
        assert!(!error.contains("hunter2"));
    }

    #[test]
    fn a_file_cannot_switch_on_the_development_mode() {
        let (_file, options) = file("dev = true");
        assert!(Config::resolve(options).unwrap_err().to_string().contains("`dev`"));
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        for (text, option) in [
            ("token_ttl = \"0s\"", "token_ttl"),
            ("token_ttl = \"48h\"", "token_ttl"),
            ("retention = \"23h\"", "retention"),
            ("max_connections = 0", "max_connections"),
            ("commit_queue = 2000000", "commit_queue"),
            ("database_connections = 1", "database_connections"),
            ("database_connections = 4\ndatabase_writers = 4", "database_writers"),
            ("database_timeout = \"1ms\"", "database_timeout"),
            ("idle_timeout = \"0s\"", "idle_timeout"),
            ("header_limit = \"1023\"", "header_limit"),
            ("max_headers = 15", "max_headers"),
            ("url_limit = \"33KiB\"", "url_limit"),
            ("frame_limit = \"4095\"", "frame_limit"),
            ("json_depth_limit = 101", "json_depth_limit"),
            ("trace_sampling = 1.5", "trace_sampling"),
            ("trace_sampling = nan", "trace_sampling"),
            ("tls_certificate_file = \"a.pem\"", "tls_key_file"),
            ("tls_key_file = \"a.pem\"", "tls_certificate_file"),
            ("allowed_origins = [\"https://a.example=a\", \"https://a.example=b\"]", "allowed_origins"),
        ] {
            let (_file, options) = file(text);
            let error = Config::resolve(options).unwrap_err();
            assert!(matches!(error, ConfigError::OutOfRange { option: named, .. } if named == option), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let options = ServeOptions { config: Some("/nowhere/t.toml".into()), ..Default::default() };
        assert!(Config::resolve(options).unwrap_err().to_string().contains("/nowhere/t.toml"));
    }
}
