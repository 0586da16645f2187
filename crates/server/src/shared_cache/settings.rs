//! What the operator says about Redis.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// How Redis is reached and used.
#[derive(Clone)]
pub struct SharedCacheSettings {
    /// `redis://` or `rediss://` (TLS). More than one means the seed nodes of a cluster; a
    /// single one that answers as a node of a cluster is used as its seed.
    pub urls: Vec<String>,
    /// What every key and channel begins with; keeps several deployments in one Redis apart.
    pub prefix: String,
    /// A PEM file with the certificate authorities to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// How long one operation may take, with everything.
    pub operation_limit: Duration,
    /// How long making a connection may take.
    pub connect_limit: Duration,
    /// How many operations may wait for Redis at a time. Those beyond fail at once.
    pub concurrent_operations: usize,
    /// How long an entry without a tail is kept after it was last written.
    pub entry_lifetime: Duration,
    /// How long it is remembered that the database has at least a certain version.
    pub floor_lifetime: Duration,
    /// How many events may wait for the receiver. A message that finds no place is an interruption.
    pub event_queue: usize,
}

impl SharedCacheSettings {
    /// The settings for the Redis at `url`, which may be several URLs separated by commas.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            urls: url.split(',').map(|url| url.trim().to_owned()).collect(),
            prefix: "throughline".to_owned(),
            ca_file: None,
            operation_limit: Duration::from_millis(250),
            connect_limit: Duration::from_secs(1),
            concurrent_operations: 1024,
            entry_lifetime: Duration::from_secs(3600),
            floor_lifetime: Duration::from_secs(60),
            event_queue: 4096,
        }
    }

    /// Reads what can be read without Redis.
    pub(super) fn endpoints(&self) -> Result<Endpoints, SettingsError> {
        if self.prefix.is_empty() || self.prefix.contains(['{', '}']) {
            return Err(SettingsError::Prefix { prefix: self.prefix.clone() });
        }
        let mut nodes = Vec::with_capacity(self.urls.len());
        for (index, url) in self.urls.iter().enumerate() {
            let number = index + 1;
            // The crate's own error might quote the URL, and with it the password.
            let node: ConnectionInfo =
                url.as_str().into_connection_info().map_err(|_| SettingsError::Url { number })?;
            if !matches!(node.addr(), ConnectionAddr::Tcp(..) | ConnectionAddr::TcpTls { .. }) {
                return Err(SettingsError::Url { number });
            }
            nodes.push(node);
        }
        let Some(first) = nodes.first() else { return Err(SettingsError::NoUrl) };
        let tls = |node: &ConnectionInfo| matches!(node.addr(), ConnectionAddr::TcpTls { .. });
        let alike = |node: &ConnectionInfo| {
            tls(node) == tls(first)
                && node.redis_settings().username() == first.redis_settings().username()
                && node.redis_settings().password() == first.redis_settings().password()
                && node.redis_settings().db() == first.redis_settings().db()
        };
        if !nodes.iter().all(alike) {
            return Err(SettingsError::Mixed);
        }
        let certificates = match &self.ca_file {
            None => None,
            Some(_) if !tls(first) => return Err(SettingsError::CaWithoutTls),
            Some(path) => {
                Some(std::fs::read(path).map_err(|cause| SettingsError::CaFile { path: path.clone(), cause })?)
            }
        };
        Ok(Endpoints { nodes, certificates })
    }
}

impl fmt::Debug for SharedCacheSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCacheSettings")
            .field("urls", &self.urls.iter().map(|url| without_credentials(url)).collect::<Vec<_>>())
            .field("prefix", &self.prefix)
            .field("ca_file", &self.ca_file)
            .field("operation_limit", &self.operation_limit)
            .field("connect_limit", &self.connect_limit)
            .field("concurrent_operations", &self.concurrent_operations)
            .field("entry_lifetime", &self.entry_lifetime)
            .field("floor_lifetime", &self.floor_lifetime)
            .field("event_queue", &self.event_queue)
            .finish()
    }
}

/// The scheme, host and port of a URL: what may be shown of it.
fn without_credentials(url: &str) -> String {
    match url.into_connection_info() {
        Ok(node) => node.addr().to_string(),
        Err(_) => "(not a URL)".to_owned(),
    }
}

/// Where Redis is, as far as it is known without asking.
pub(super) struct Endpoints {
    pub(super) nodes: Vec<ConnectionInfo>,
    pub(super) certificates: Option<Vec<u8>>,
}

/// Why settings cannot work, whatever Redis says.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No URL.
    #[error("no Redis URL was given; write `redis://host:port`, or leave `--redis-url` away to run without Redis")]
    NoUrl,
    /// One of the URLs is malformed. It is not shown, because it may hold a password.
    #[error(
        "Redis URL number {number} is not one; write `redis://[user:password@]host[:port][/database]`, \
         or `rediss://` for TLS, with special characters of the password percent-encoded"
    )]
    Url {
        /// Which one, from 1.
        number: usize,
    },
    /// The nodes of a cluster differ in what they must share.
    #[error(
        "several Redis URLs mean the nodes of one cluster, which share scheme, user, password and database; \
         these differ"
    )]
    Mixed,
    /// The prefix would break the hash tags.
    #[error("the Redis prefix {prefix:?} must not be empty, and must not hold `{{` or `}}`")]
    Prefix {
        /// What was given.
        prefix: String,
    },
    /// Trust for a connection without certificates.
    #[error("`--redis-ca-file` says whom to trust, but the URL has no TLS; write `rediss://`")]
    CaWithoutTls,
    /// The file with the certificate authorities cannot be read.
    #[error("the file {} of `--redis-ca-file` cannot be read", path.display())]
    CaFile {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// The system gives no random bytes, which the server's name among the others is made of.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The client refuses the settings, for example because the file holds no certificate.
    #[error("these Redis settings cannot be used; check that the file of `--redis-ca-file` holds PEM certificates")]
    Client(#[source] redis::RedisError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        match SharedCacheSettings::new(url).endpoints() {
            Ok(_) => panic!("{url} was taken"),
            Err(error) => format!("{error} {error:?}"),
        }
    }

    #[test]
    fn what_cannot_work_is_refused_and_no_password_is_shown() {
        assert!(refused("http://user:hunter2@host").contains("number 1"));
        assert!(refused("redis://a,redis://:hunter2@[").contains("number 2"));
        assert!(refused("").contains("number 1"));
        assert!(refused("redis://:hunter2@a,redis://:hunter3@b").contains("differ"));
        assert!(refused("redis://a,rediss://b").contains("differ"));
        assert!(refused("unix:///tmp/socket").contains("number 1"));
        for url in ["http://user:hunter2@host", "redis://a,redis://:hunter2@[", "redis://:hunter2@a,redis://:hunter3@b"]
        {
            assert!(!refused(url).contains("hunter"), "{}", refused(url));
        }
        let settings = SharedCacheSettings { prefix: "a{b".to_owned(), ..SharedCacheSettings::new("redis://a") };
        assert!(settings.endpoints().is_err_and(|error| error.to_string().contains("a{b")));
        let settings =
            SharedCacheSettings { ca_file: Some("/nowhere".into()), ..SharedCacheSettings::new("rediss://a") };
        assert!(settings.endpoints().is_err_and(|error| error.to_string().contains("/nowhere")));
    }

    #[test]
    fn settings_are_shown_without_their_passwords() {
        let settings = SharedCacheSettings::new("redis://user:hunter2@one:7000/0,redis://user:hunter2@two:7001/0");
        let shown = format!("{settings:?}");
        assert!(shown.contains("one:7000") && shown.contains("two:7001"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
