//! The options of `throughline serve`: one list for flags, environment and file.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Deserializer};

use super::ConfigError;
use crate::http::origin::AllowedOrigin;
use crate::network::Network;
use crate::rest_client::ServerUrl;
use crate::tenant::TenantId;

/// What holds where nothing else is said, as a file of options.
pub(super) const DEFAULTS: &str = include_str!("defaults.toml");

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line, for machines.
    Json,
}

/// When a change counts as acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DurabilityChoice {
    /// As each command's kind says.
    #[default]
    Relaxed,
    /// Always after the database has it.
    Strict,
}

/// A number of bytes: `65536`, `64KiB` or `1MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub usize);

/// A text that is not a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a number of bytes; write for example 65536, 64KiB or 1MiB")]
pub struct ByteSizeError {
    text: String,
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let (digits, unit) = match text.trim() {
            text if text.ends_with("KiB") => (text.trim_end_matches("KiB"), 1024),
            text if text.ends_with("MiB") => (text.trim_end_matches("MiB"), 1024 * 1024),
            text => (text, 1),
        };
        let size = digits.trim().parse::<usize>().ok().and_then(|count| count.checked_mul(unit));
        size.map(Self).ok_or_else(|| ByteSizeError { text: text.to_owned() })
    }
}

/// When what failed is tried again: after each of these times in its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule(pub Vec<Duration>);

/// A text that is no such times.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a list of times; write for example 5s,1m,30m,2h")]
pub struct RetryScheduleError {
    text: String,
}

impl FromStr for RetrySchedule {
    type Err = RetryScheduleError;

    fn from_str(text: &str) -> Result<Self, RetryScheduleError> {
        let times = text.split(',').map(|time| humantime::parse_duration(time.trim()));
        let times = times.collect::<Result<Vec<_>, _>>().ok().filter(|times| times.iter().all(|time| !time.is_zero()));
        times.map(Self).ok_or_else(|| RetryScheduleError { text: text.to_owned() })
    }
}

/// What may be said on the command line, in the environment and in the file.
///
/// Each option is `--some-option`, `THROUGHLINE_SOME_OPTION` and `some_option`. What holds without it stands in
/// `defaults.toml`, or, where it is no value, in the option's own words.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeOptions {
    /// A TOML file with any of the options below, except `dev`
    #[arg(long, help_heading = "General", env = "THROUGHLINE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Make a service key with all scopes for this process and print it, and a key ring beside the SQLite file unless one is given. Never for
    /// production
    #[arg(long, help_heading = "General", env = "THROUGHLINE_DEV", value_parser = BoolishValueParser::new())]
    #[serde(skip)]
    pub dev: bool,

    /// Where to listen
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_LISTEN", value_name = "ADDRESS:PORT")]
    #[serde(deserialize_with = "text")]
    pub listen: Option<SocketAddr>,

    /// Origins of web pages that may talk to this server, exactly as browsers send them. Without it, no web
    /// page may. What a page of `https://shop-a.example=shop-a` begins without a credential is of the tenant `shop-a`
    #[arg(
        long,
        help_heading = "Listening",
        env = "THROUGHLINE_ALLOWED_ORIGINS",
        value_name = "ORIGIN,…",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "texts")]
    pub allowed_origins: Option<Vec<AllowedOrigin>>,

    /// Proxies whose X-Forwarded-For is believed: addresses or networks. Without it, none
    #[arg(
        long,
        help_heading = "Listening",
        env = "THROUGHLINE_TRUSTED_PROXIES",
        value_name = "CIDR,…",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "texts")]
    pub trusted_proxies: Option<Vec<Network>>,

    /// Open connections in all; more wait
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_MAX_CONNECTIONS", value_name = "COUNT")]
    pub max_connections: Option<usize>,

    /// Requests under way at a time; more are answered 503 at once
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_MAX_REQUESTS", value_name = "COUNT")]
    pub max_requests: Option<usize>,

    /// Open connections of one address; more are closed
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_MAX_CONNECTIONS_PER_ADDRESS", value_name = "COUNT")]
    pub max_connections_per_address: Option<usize>,

    /// How long a client may take to send a request's head
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_HEADER_TIMEOUT", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub header_timeout: Option<humantime::Duration>,

    /// How long answering one request may take, the arrival of its body included
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_REQUEST_TIMEOUT", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub request_timeout: Option<humantime::Duration>,

    /// How long a server that was told to stop goes on as before, while `/readyz` answers 503 and each connection ends after its
    /// answer, so that load balancers send requests elsewhere before it takes none. Longer than they need to notice
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_DRAIN_DELAY", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub drain_delay: Option<humantime::Duration>,

    /// How long a stopping server waits for what is under way
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_SHUTDOWN_GRACE", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub shutdown_grace: Option<humantime::Duration>,

    /// How long a connection may be open without a request after its first one, or without taking what it is sent
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_IDLE_TIMEOUT", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub idle_timeout: Option<humantime::Duration>,

    /// A PEM file with the certificate of this server and those that lead to its authority: with it, and with
    /// `tls_key_file`, the server speaks TLS. Both are read again when they change, within a minute or at SIGHUP
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_TLS_CERTIFICATE_FILE", value_name = "FILE")]
    pub tls_certificate_file: Option<PathBuf>,

    /// A PEM file with the private key of the certificate
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,

    /// The largest head of a request without its URL, in bytes; a larger one is answered 431. At least 1KiB
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_HEADER_LIMIT", value_name = "SIZE")]
    #[serde(deserialize_with = "text")]
    pub header_limit: Option<ByteSize>,

    /// The most headers of a request; more are answered 431. 16 to 1000
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_MAX_HEADERS", value_name = "COUNT")]
    pub max_headers: Option<usize>,

    /// The longest URL of a request, path and query together; a longer one is answered 414. 256 bytes to 32KiB
    #[arg(long, help_heading = "Listening", env = "THROUGHLINE_URL_LIMIT", value_name = "SIZE")]
    #[serde(deserialize_with = "text")]
    pub url_limit: Option<ByteSize>,

    /// The database: sqlite:FILE for one server, postgres://USER@HOST/DATABASE for several. A password is better set
    /// as PGPASSWORD or in the variable than as a flag
    #[arg(
        long,
        help_heading = "Database",
        env = "THROUGHLINE_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database_url: Option<String>,

    /// Bring the database's tables up to date at the start. With false, run `throughline migrate`
    #[arg(long, help_heading = "Database", env = "THROUGHLINE_AUTO_MIGRATE", value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub auto_migrate: Option<bool>,

    /// Connections to PostgreSQL in all, beside one that listens for changes and up to 2 for lists and statistics; at
    /// least 2
    #[arg(long, help_heading = "Database", env = "THROUGHLINE_DATABASE_CONNECTIONS", value_name = "COUNT")]
    pub database_connections: Option<usize>,

    /// How many of them write, each its own sessions; at least one connection is left for reading
    #[arg(long, help_heading = "Database", env = "THROUGHLINE_DATABASE_WRITERS", value_name = "COUNT")]
    pub database_writers: Option<usize>,

    /// How long PostgreSQL may take to answer, before a request fails: 50ms to 60s
    #[arg(long, help_heading = "Database", env = "THROUGHLINE_DATABASE_TIMEOUT", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub database_timeout: Option<humantime::Duration>,

    /// Connections that read a SQLite file
    #[arg(long, help_heading = "Database", env = "THROUGHLINE_READ_CONNECTIONS", value_name = "COUNT")]
    pub read_connections: Option<NonZeroU32>,

    /// Commits that may wait, 1000000 at most; more are answered 503 at once
    #[arg(long, help_heading = "Database", env = "THROUGHLINE_COMMIT_QUEUE", value_name = "COUNT")]
    pub commit_queue: Option<usize>,

    /// Commits that share one transaction at most
    #[arg(long, help_heading = "Database", env = "THROUGHLINE_COMMIT_BATCH", value_name = "COUNT")]
    pub commit_batch: Option<usize>,

    /// The Redis that several servers share, with PostgreSQL below it; several addresses name the nodes of a cluster.
    /// For example redis://cache.internal:6379, or rediss:// with TLS. Without it, every command waits for the database
    #[arg(long, help_heading = "Redis", env = "THROUGHLINE_REDIS_URL", value_name = "URL,…", hide_env_values = true)]
    pub redis_url: Option<String>,

    /// What everything in Redis begins with, so that several deployments can share one
    #[arg(long, help_heading = "Redis", env = "THROUGHLINE_REDIS_PREFIX", value_name = "PREFIX")]
    pub redis_prefix: Option<String>,

    /// A PEM file with the authorities to trust for rediss://, instead of the public ones
    #[arg(long, help_heading = "Redis", env = "THROUGHLINE_REDIS_CA_FILE", value_name = "FILE")]
    pub redis_ca_file: Option<PathBuf>,

    /// How long Redis may take to answer before the database is used instead
    #[arg(long, help_heading = "Redis", env = "THROUGHLINE_REDIS_TIMEOUT", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub redis_timeout: Option<humantime::Duration>,

    /// When a change counts: `relaxed` acknowledges what may be once Redis and this server hold it, and
    /// brings it to the database within a second; `strict` waits for the database
    #[arg(long, help_heading = "Durability and memory", env = "THROUGHLINE_DURABILITY", value_name = "CLASS")]
    pub durability: Option<DurabilityChoice>,

    /// How often what is ahead of the database is brought there: 1ms to 1s
    #[arg(long, help_heading = "Durability and memory", env = "THROUGHLINE_FLUSH_INTERVAL", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub flush_interval: Option<humantime::Duration>,

    /// How many commands may be ahead of the database; beyond that each waits for it
    #[arg(long, help_heading = "Durability and memory", env = "THROUGHLINE_BACKLOG_LIMIT", value_name = "COUNT")]
    pub backlog_limit: Option<usize>,

    /// How much memory sessions may take that nobody uses just now
    #[arg(long, help_heading = "Durability and memory", env = "THROUGHLINE_SESSION_MEMORY", value_name = "SIZE")]
    #[serde(deserialize_with = "text")]
    pub session_memory: Option<ByteSize>,

    /// A folder of funnel definitions, TOML or JSON, one in each file. Without it, only the built-in funnel is known
    #[arg(long, help_heading = "Sessions and limits", env = "THROUGHLINE_FUNNELS", value_name = "FOLDER")]
    pub funnels: Option<PathBuf>,

    /// Sessions that one address may create a minute without a credential
    #[arg(
        long,
        help_heading = "Sessions and limits",
        env = "THROUGHLINE_SESSION_CREATIONS_PER_MINUTE",
        value_name = "COUNT"
    )]
    pub session_creations_per_minute: Option<NonZeroU32>,

    /// How long sessions are kept after they are over (completed, failed or expired, and unchanged since); at least
    /// `token_max_age`. Without it, for ever
    #[arg(long, help_heading = "Sessions and limits", env = "THROUGHLINE_RETENTION", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub retention: Option<humantime::Duration>,

    /// How long completed sessions are kept, where that is not `retention`
    #[arg(
        long,
        help_heading = "Sessions and limits",
        env = "THROUGHLINE_RETENTION_COMPLETED",
        value_name = "DURATION"
    )]
    #[serde(deserialize_with = "text")]
    pub retention_completed: Option<humantime::Duration>,

    /// How long failed sessions are kept, where that is not `retention`
    #[arg(long, help_heading = "Sessions and limits", env = "THROUGHLINE_RETENTION_FAILED", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub retention_failed: Option<humantime::Duration>,

    /// How long expired sessions are kept, where that is not `retention`
    #[arg(long, help_heading = "Sessions and limits", env = "THROUGHLINE_RETENTION_EXPIRED", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub retention_expired: Option<humantime::Duration>,

    /// How long lifecycle events are kept, for streams that take up where they ended and for webhooks; at least 1h
    #[arg(long, help_heading = "Events and webhooks", env = "THROUGHLINE_EVENT_RETENTION", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub event_retention: Option<humantime::Duration>,

    /// After which time a webhook that failed is tried again: the second try, the third, and so on. An event that fails after the
    /// last one is given up, unless all fail
    #[arg(long, help_heading = "Events and webhooks", env = "THROUGHLINE_WEBHOOK_RETRIES", value_name = "DURATION,…")]
    #[serde(deserialize_with = "text")]
    pub webhook_retries: Option<RetrySchedule>,

    /// How long a webhook's receiver may take to answer: 1s to 1m
    #[arg(long, help_heading = "Events and webhooks", env = "THROUGHLINE_WEBHOOK_TIMEOUT", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub webhook_timeout: Option<humantime::Duration>,

    /// A webhook that has failed for this long is disabled
    #[arg(
        long,
        help_heading = "Events and webhooks",
        env = "THROUGHLINE_WEBHOOK_DISABLE_AFTER",
        value_name = "DURATION"
    )]
    #[serde(deserialize_with = "text")]
    pub webhook_disable_after: Option<humantime::Duration>,

    /// Networks that are not public and that webhooks may be delivered to all the same, also without TLS. Without it, none: an
    /// address that somebody enters must not open what is behind the firewall
    #[arg(
        long,
        help_heading = "Events and webhooks",
        env = "THROUGHLINE_WEBHOOK_NETWORKS",
        value_name = "CIDR,…",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "texts")]
    pub webhook_networks: Option<Vec<Network>>,

    /// The largest request body. All that are not answered yet may have as much as `max_requests` of that size, beyond 4 KiB each
    #[arg(long, help_heading = "Sessions and limits", env = "THROUGHLINE_BODY_LIMIT", value_name = "SIZE")]
    #[serde(deserialize_with = "text")]
    pub body_limit: Option<ByteSize>,

    /// Open sockets of one session, and requests instead of them; more are refused
    #[arg(
        long,
        help_heading = "Sessions and limits",
        env = "THROUGHLINE_MAX_SOCKETS_PER_SESSION",
        value_name = "COUNT"
    )]
    pub max_sockets_per_session: Option<usize>,

    /// The largest message on a socket, and the largest body of a request instead of it: 4KiB to 1MiB. A larger one ends
    /// the conversation
    #[arg(long, help_heading = "Sessions and limits", env = "THROUGHLINE_FRAME_LIMIT", value_name = "SIZE")]
    #[serde(deserialize_with = "text")]
    pub frame_limit: Option<ByteSize>,

    /// How many arrays and objects may lie in each other in JSON, in bodies and on sockets: 16 to 100
    #[arg(long, help_heading = "Sessions and limits", env = "THROUGHLINE_JSON_DEPTH_LIMIT", value_name = "COUNT")]
    pub json_depth_limit: Option<usize>,

    /// Requests that one address may send a minute, to this server; more are answered 429 with Retry-After, as for all
    /// of these limits. An address behind a trusted proxy is its own, an IPv6 network of 64 bits counts as one
    #[arg(
        long,
        help_heading = "Sessions and limits",
        env = "THROUGHLINE_REQUESTS_PER_MINUTE_PER_ADDRESS",
        value_name = "COUNT"
    )]
    pub requests_per_minute_per_address: Option<NonZeroU32>,

    /// Those of one address that prove nothing, because no credential came with them or a wrong one; sockets and the
    /// requests instead of them, whose credential comes later, are among them
    #[arg(
        long,
        help_heading = "Sessions and limits",
        env = "THROUGHLINE_REQUESTS_PER_MINUTE_WITHOUT_CREDENTIAL",
        value_name = "COUNT"
    )]
    pub requests_per_minute_without_credential: Option<NonZeroU32>,

    /// Requests a minute with the tokens of one session; on sockets, greetings
    #[arg(
        long,
        help_heading = "Sessions and limits",
        env = "THROUGHLINE_REQUESTS_PER_MINUTE_PER_SESSION",
        value_name = "COUNT"
    )]
    pub requests_per_minute_per_session: Option<NonZeroU32>,

    /// Requests a minute with one service key or operator key
    #[arg(
        long,
        help_heading = "Sessions and limits",
        env = "THROUGHLINE_REQUESTS_PER_MINUTE_PER_SERVICE_KEY",
        value_name = "COUNT"
    )]
    pub requests_per_minute_per_service_key: Option<NonZeroU32>,

    /// Requests a minute for all sessions and keys of one tenant
    #[arg(
        long,
        help_heading = "Sessions and limits",
        env = "THROUGHLINE_REQUESTS_PER_MINUTE_PER_TENANT",
        value_name = "COUNT"
    )]
    pub requests_per_minute_per_tenant: Option<NonZeroU32>,

    /// A file with the key ring, as `throughline keys generate` writes it. It is read again every 30 s and at SIGHUP.
    /// Instead of it: the variable THROUGHLINE_KEYS
    #[arg(long, help_heading = "Keys and tokens", env = "THROUGHLINE_KEYS_FILE", value_name = "FILE")]
    pub keys_file: Option<PathBuf>,

    /// A command that prints the key ring, run by `sh -c` like the file is read: for keys that a secret store hands out.
    /// It may take 10 s
    #[arg(long, help_heading = "Keys and tokens", env = "THROUGHLINE_KEYS_COMMAND", value_name = "COMMAND")]
    pub keys_command: Option<String>,

    /// A file with hashes of bootstrap service keys, one a line; other service keys are in the database.
    /// Instead of it: the variable THROUGHLINE_SERVICE_KEY_HASHES, separated by commas
    #[arg(long, help_heading = "Keys and tokens", env = "THROUGHLINE_SERVICE_KEY_HASHES_FILE", value_name = "FILE")]
    pub service_key_hashes_file: Option<PathBuf>,

    /// A file with the secret that signed the old shop's `upsell_session` cookies, one a line where it was changed: they are
    /// exchanged for tokens, once each. Instead of it: the variable THROUGHLINE_LEGACY_COOKIE_SECRET
    #[arg(long, help_heading = "Keys and tokens", env = "THROUGHLINE_LEGACY_COOKIE_SECRET_FILE", value_name = "FILE")]
    pub legacy_cookie_secret_file: Option<PathBuf>,

    /// The tenant whose old shop signed those cookies
    #[arg(long, help_heading = "Keys and tokens", env = "THROUGHLINE_LEGACY_COOKIE_TENANT", value_name = "TENANT")]
    pub legacy_cookie_tenant: Option<TenantId>,

    /// How long a session token lives without a renewal; at most `token_max_age`
    #[arg(long, help_heading = "Keys and tokens", env = "THROUGHLINE_TOKEN_TTL", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub token_ttl: Option<humantime::Duration>,

    /// How long a session token can be renewed at all
    #[arg(long, help_heading = "Keys and tokens", env = "THROUGHLINE_TOKEN_MAX_AGE", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub token_max_age: Option<humantime::Duration>,

    /// How log lines look
    #[arg(long, help_heading = "Logging and metrics", env = "THROUGHLINE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Which log lines there are, for example info,throughline_server=debug
    #[arg(long, help_heading = "Logging and metrics", env = "THROUGHLINE_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// Answer /metrics without a key. Without it, false, and true with --dev
    #[arg(long, help_heading = "Logging and metrics", env = "THROUGHLINE_OPEN_METRICS", value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub open_metrics: Option<bool>,

    /// Where spans are sent to as OTLP over HTTP, such as http://127.0.0.1:4318: `/v1/traces` is appended. Headers that the
    /// receiver asks for are in the variable OTEL_EXPORTER_OTLP_HEADERS. Without it, nothing is traced
    #[arg(long, help_heading = "Tracing", env = "THROUGHLINE_OTLP_ENDPOINT", value_name = "RECEIVER")]
    #[serde(deserialize_with = "text")]
    pub otlp_endpoint: Option<ServerUrl>,

    /// A PEM file with the authorities to trust where spans go to https://, instead of the public ones
    #[arg(long, help_heading = "Tracing", env = "THROUGHLINE_OTLP_CA_FILE", value_name = "FILE")]
    pub otlp_ca_file: Option<PathBuf>,

    /// Which part of the traces that begin at this server is kept: 0 for none, 1 for all. Whoever sends a `traceparent` has
    /// decided about its trace
    #[arg(long, help_heading = "Tracing", env = "THROUGHLINE_TRACE_SAMPLING", value_name = "RATIO")]
    pub trace_sampling: Option<f64>,
}

impl ServeOptions {
    /// Reads a file of options.
    pub(super) fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        Self::of_text(&text, file)
    }

    /// What holds where nothing else is said.
    pub(super) fn defaults() -> Result<Self, ConfigError> {
        Self::of_text(DEFAULTS, Path::new("defaults.toml"))
    }

    fn of_text(text: &str, file: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
            let mut message = error.message().to_owned();
            if message.contains("`keys`") || message.contains("`service_key_hashes`") {
                message.push_str(
                    "; secrets are taken from the environment or from a file of their own, never from this one",
                );
            }
            ConfigError::File { file: file.to_owned(), line, message }
        })
    }

    /// These options, and `other`'s where these say nothing.
    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            config: self.config,
            dev: self.dev,
            listen: self.listen.or(other.listen),
            database_url: self.database_url.or(other.database_url),
            redis_url: self.redis_url.or(other.redis_url),
            redis_prefix: self.redis_prefix.or(other.redis_prefix),
            redis_ca_file: self.redis_ca_file.or(other.redis_ca_file),
            redis_timeout: self.redis_timeout.or(other.redis_timeout),
            durability: self.durability.or(other.durability),
            flush_interval: self.flush_interval.or(other.flush_interval),
            backlog_limit: self.backlog_limit.or(other.backlog_limit),
            session_memory: self.session_memory.or(other.session_memory),
            funnels: self.funnels.or(other.funnels),
            keys_file: self.keys_file.or(other.keys_file),
            keys_command: self.keys_command.or(other.keys_command),
            retention: self.retention.or(other.retention),
            event_retention: self.event_retention.or(other.event_retention),
            webhook_retries: self.webhook_retries.or(other.webhook_retries),
            webhook_timeout: self.webhook_timeout.or(other.webhook_timeout),
            webhook_disable_after: self.webhook_disable_after.or(other.webhook_disable_after),
            webhook_networks: self.webhook_networks.or(other.webhook_networks),
            retention_completed: self.retention_completed.or(other.retention_completed),
            retention_failed: self.retention_failed.or(other.retention_failed),
            retention_expired: self.retention_expired.or(other.retention_expired),
            service_key_hashes_file: self.service_key_hashes_file.or(other.service_key_hashes_file),
            legacy_cookie_secret_file: self.legacy_cookie_secret_file.or(other.legacy_cookie_secret_file),
            legacy_cookie_tenant: self.legacy_cookie_tenant.or(other.legacy_cookie_tenant),
            allowed_origins: self.allowed_origins.or(other.allowed_origins),
            trusted_proxies: self.trusted_proxies.or(other.trusted_proxies),
            token_ttl: self.token_ttl.or(other.token_ttl),
            token_max_age: self.token_max_age.or(other.token_max_age),
            session_creations_per_minute: self.session_creations_per_minute.or(other.session_creations_per_minute),
            body_limit: self.body_limit.or(other.body_limit),
            request_timeout: self.request_timeout.or(other.request_timeout),
            header_timeout: self.header_timeout.or(other.header_timeout),
            max_connections: self.max_connections.or(other.max_connections),
            max_requests: self.max_requests.or(other.max_requests),
            max_connections_per_address: self.max_connections_per_address.or(other.max_connections_per_address),
            max_sockets_per_session: self.max_sockets_per_session.or(other.max_sockets_per_session),
            auto_migrate: self.auto_migrate.or(other.auto_migrate),
            database_connections: self.database_connections.or(other.database_connections),
            database_writers: self.database_writers.or(other.database_writers),
            database_timeout: self.database_timeout.or(other.database_timeout),
            read_connections: self.read_connections.or(other.read_connections),
            commit_queue: self.commit_queue.or(other.commit_queue),
            commit_batch: self.commit_batch.or(other.commit_batch),
            drain_delay: self.drain_delay.or(other.drain_delay),
            shutdown_grace: self.shutdown_grace.or(other.shutdown_grace),
            open_metrics: self.open_metrics.or(other.open_metrics),
            log_format: self.log_format.or(other.log_format),
            log: self.log.or(other.log),
            otlp_endpoint: self.otlp_endpoint.or(other.otlp_endpoint),
            otlp_ca_file: self.otlp_ca_file.or(other.otlp_ca_file),
            trace_sampling: self.trace_sampling.or(other.trace_sampling),
            idle_timeout: self.idle_timeout.or(other.idle_timeout),
            tls_certificate_file: self.tls_certificate_file.or(other.tls_certificate_file),
            tls_key_file: self.tls_key_file.or(other.tls_key_file),
            header_limit: self.header_limit.or(other.header_limit),
            max_headers: self.max_headers.or(other.max_headers),
            url_limit: self.url_limit.or(other.url_limit),
            frame_limit: self.frame_limit.or(other.frame_limit),
            json_depth_limit: self.json_depth_limit.or(other.json_depth_limit),
            requests_per_minute_per_address: self
                .requests_per_minute_per_address
                .or(other.requests_per_minute_per_address),
            requests_per_minute_without_credential: self
                .requests_per_minute_without_credential
                .or(other.requests_per_minute_without_credential),
            requests_per_minute_per_session: self
                .requests_per_minute_per_session
                .or(other.requests_per_minute_per_session),
            requests_per_minute_per_service_key: self
                .requests_per_minute_per_service_key
                .or(other.requests_per_minute_per_service_key),
            requests_per_minute_per_tenant: self
                .requests_per_minute_per_tenant
                .or(other.requests_per_minute_per_tenant),
        }
    }
}

/// Reads a TOML string as whatever the flag of the same name reads.
fn text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn texts<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parsed: Result<Vec<T>, _> = texts.iter().map(|text| text.parse()).collect();
    parsed.map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        assert_eq!("65536".parse(), Ok(ByteSize(65536)));
        assert_eq!("64KiB".parse(), Ok(ByteSize(65536)));
        assert_eq!("2 MiB".parse(), Ok(ByteSize(2 * 1024 * 1024)));
        for bad in ["", "64KB", "-1", "99999999999999999999MiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
