//! Why the shared tier did not do what it was asked.

use std::sync::Arc;
use std::time::Duration;

/// Why a call to the shared tier failed. Each of them means: go on with the database.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheFault {
    /// Redis failed before, and is not asked again until it answers a probe.
    #[error("Redis does not answer and is not asked until it does")]
    Away,
    /// Redis did not answer in time. Whether it did what it was asked is not known.
    #[error("Redis did not answer to {during} within {} ms", limit.as_millis())]
    TimedOut {
        /// What was being done.
        during: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection or Redis itself failed. Whether it did what it was asked is not known.
    #[error("{during} failed")]
    Failed {
        /// What was being done.
        during: &'static str,
        /// What went wrong, for the log.
        #[source]
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// As many calls as are allowed are waiting for Redis. This one was not even begun.
    #[error("{calls} calls are waiting for Redis, which is as many as are allowed")]
    Overloaded {
        /// How many.
        calls: usize,
    },
    /// The call contradicts itself: a mistake in the calling code.
    #[error("the call makes no sense: {detail}")]
    Malformed {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The tier was closed.
    #[error("the connection to Redis was closed, because the server stops")]
    Closed,
}

impl CacheFault {
    pub(super) fn failed(during: &'static str, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed { during, cause: Arc::new(cause) }
    }
}

/// Why no connection was made. Never holds a password.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum ConnectFault {
    #[error("Redis could not be reached or did not let us in; check `--redis-url` and that it runs")]
    Connection(#[source] redis::RedisError),
    #[error("Redis did not finish the connection within {} ms", limit.as_millis())]
    TimedOut { limit: Duration },
    #[error(
        "Redis {version} is too old: sharded channels (SPUBLISH, SSUBSCRIBE) need Redis 7.0 or newer; \
         upgrade it, or run without `--redis-url`"
    )]
    TooOld { version: String },
    #[error(
        "several URLs were given, which means a cluster, but Redis answers that it is not one; \
         give one URL, or enable its cluster mode"
    )]
    NotACluster,
    #[error("the connection to Redis was closed, because the server stops")]
    Closed,
}
