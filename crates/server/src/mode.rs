//! In which mode the server works: with all of its tiers, or without some of them.

use std::fmt;
use std::time::Duration;

use crate::shared_cache::SharedCache;
use crate::store::DatabaseHealth;

/// How often the mode is looked at, for the log.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Which tiers there are just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everything that is configured.
    Normal,
    /// Redis is away: every command waits for the database.
    WithoutRedis,
    /// The database is away: what may be accepted ahead of it goes on, the rest is refused for now.
    WithoutDatabase,
    /// Nothing can be stored: sessions in memory can be read, marked as stale where others may have changed them, and
    /// nothing is accepted.
    MemoryOnly,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Normal, Self::WithoutRedis, Self::WithoutDatabase, Self::MemoryOnly];

    /// The mode just now.
    #[must_use]
    pub fn now(database: &DatabaseHealth, cache: Option<&SharedCache>) -> Self {
        let has_database = !database.is_away();
        match cache.map(SharedCache::is_available) {
            Some(true) if has_database => Self::Normal,
            None if has_database => Self::Normal,
            Some(false) if has_database => Self::WithoutRedis,
            Some(true) => Self::WithoutDatabase,
            Some(false) | None => Self::MemoryOnly,
        }
    }

    /// The mode as it is called in answers, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::WithoutRedis => "withoutRedis",
            Self::WithoutDatabase => "withoutDatabase",
            Self::MemoryOnly => "memoryOnly",
        }
    }

    /// Whether commands are accepted at all.
    #[must_use]
    pub const fn accepts_commands(self) -> bool {
        !matches!(self, Self::MemoryOnly)
    }

    /// Says once that the mode is another one now.
    pub fn announce(self) {
        let mode = self.as_str();
        match self {
            Self::Normal => tracing::info!(mode, "all tiers are there"),
            Self::WithoutRedis => tracing::warn!(mode, "Redis is away: every command waits for the database"),
            Self::WithoutDatabase => tracing::error!(
                mode,
                "the database is away: what may be accepted ahead of it goes on, the rest is answered 503"
            ),
            Self::MemoryOnly => tracing::error!(
                mode,
                "nothing can be stored: what can be read is shown, as stale where others may have changed it, and everything \
                 else is answered 503"
            ),
        }
        self.measure();
    }

    /// Sets the gauge that tells the mode.
    pub fn measure(self) {
        for mode in Self::ALL {
            let value = if mode == self { 1.0 } else { 0.0 };
            metrics::gauge!("throughline_mode", "mode" => mode.as_str()).set(value);
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
