//! How PostgreSQL is reached: its address, and connections that are bounded in time.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use tokio::time::Instant;

use super::{DatabaseUrlError, StoreFault};

/// The parameters of an address that mean something. `options` is not one: the server sets its own limits.
const PARAMETERS: [&str; 8] =
    ["application_name", "host", "port", "sslcert", "sslkey", "sslmode", "sslrootcert", "user"];
const PARAMETER_NAMES: &str = "application_name, host, port, sslcert, sslkey, sslmode, sslrootcert and user";

/// Where a PostgreSQL database is, and who we are to it. Prints without the password.
#[derive(Clone)]
pub struct PostgresAddress {
    options: Box<PgConnectOptions>,
}

impl PostgresAddress {
    /// Whether somebody on the way could read what is sent, or pretend to be the database.
    pub(super) fn is_exposed(&self) -> bool {
        let host = self.options.get_host().trim_matches(['[', ']']);
        let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let is_verified = matches!(self.options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        self.options.get_socket().is_none() && !is_local && !is_verified
    }
}

impl PostgresAddress {
    /// Connections to a database of somebody else, in which nothing can be changed. Times are UTC.
    pub(crate) fn for_reading(&self, name: &str, limit: Duration) -> PgConnectOptions {
        self.for_writing(name, limit).options([("default_transaction_read_only", "on")])
    }

    /// Connections to a database of somebody else. Times are UTC.
    pub(crate) fn for_writing(&self, name: &str, limit: Duration) -> PgConnectOptions {
        let limit = limit.as_millis().max(1).to_string();
        let options = [("timezone", "UTC"), ("statement_timeout", limit.as_str())];
        self.options.as_ref().clone().application_name(name).options(options)
    }
}

impl fmt::Display for PostgresAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        let database = options.get_database().unwrap_or_default();
        match options.get_socket() {
            Some(folder) => write!(formatter, "postgres://{}@{folder:?}/{database}", options.get_username()),
            None => {
                let (user, host, port) = (options.get_username(), options.get_host(), options.get_port());
                write!(formatter, "postgres://{user}@{host}:{port}/{database}")
            }
        }
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for PostgresAddress {
    type Err = DatabaseUrlError;

    fn from_str(url: &str) -> Result<Self, DatabaseUrlError> {
        // sqlx only warns about a parameter that it does not know, and shows its value.
        let query = url.split_once('?').map_or("", |(_, query)| query);
        for name in query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split('=').next().unwrap_or(pair))
        {
            if !PARAMETERS.contains(&name) {
                return Err(DatabaseUrlError::Parameter { name: name.to_owned(), allowed: PARAMETER_NAMES });
            }
        }
        let before_query = url.split_once('?').map_or(url, |(address, _)| address);
        let options: PgConnectOptions = url.parse().map_err(|error| match error {
            // Of a wrong address nothing is repeated; the values of the parameters above are no secrets.
            sqlx::Error::Configuration(cause) if before_query.parse::<PgConnectOptions>().is_ok() => {
                DatabaseUrlError::ParameterValue { why: cause.to_string() }
            }
            _ => DatabaseUrlError::Form,
        })?;
        if options.get_database().is_none() {
            return Err(DatabaseUrlError::NoDatabase);
        }
        // Statements hold no values, yet a log line for each would drown the rest; and what PostgreSQL merely remarks, such as
        // that a table is there already, says nothing to whoever reads our log.
        let options = options.disable_statement_logging().options([("client_min_messages", "warning")]);
        Ok(Self { options: Box::new(options) })
    }
}

/// Opens connections.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    address: PostgresAddress,
    limit: Duration,
}

impl Connector {
    /// Connections on which the server gives up by itself shortly before `limit`, when we would.
    pub(super) fn with_limit(address: &PostgresAddress, limit: Duration) -> Self {
        let mut address = address.clone();
        let milliseconds = |duration: Duration| duration.as_millis().max(1).to_string();
        address.options = Box::new(address.options.options([
            // A frozen server answers nothing, so our own limit is what counts; this one ends what nobody waits for.
            ("statement_timeout", milliseconds(limit.mul_f32(0.9))),
            // Rows that a frozen or unreachable server of ours has locked are free again before others give up.
            ("idle_in_transaction_session_timeout", milliseconds(limit.mul_f32(0.4))),
            // What time is left has to do for writing the others.
            ("lock_timeout", milliseconds(limit.mul_f32(0.2))),
        ]));
        Self { address, limit }
    }

    /// Connections on which PostgreSQL takes rows in the order of their keys, as an array or an index has them, and not in the
    /// order of the table or of a hash.
    pub(super) fn in_key_order(mut self) -> Self {
        let options = self.address.options.options([("enable_hashjoin", "off"), ("enable_seqscan", "off")]);
        self.address.options = Box::new(options);
        self
    }

    /// Connections whose statements may take as long as they need: for migrations, and for listening.
    pub(super) fn without_limit(address: &PostgresAddress, connect_limit: Duration) -> Self {
        Self { address: address.clone(), limit: connect_limit }
    }

    pub(super) fn address(&self) -> &PostgresAddress {
        &self.address
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.address.options
    }

    /// Opens one. Takes no longer than the limit, and not beyond `deadline`.
    pub(super) async fn connect(&self, deadline: Option<Instant>) -> Result<PgConnection, StoreFault> {
        const DURING: &str = "connecting to PostgreSQL";
        let latest = Instant::now() + self.limit;
        let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
        match tokio::time::timeout_at(deadline, self.address.options.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(StoreFault::new(DURING, error)),
            Err(late) => Err(StoreFault::new(DURING, late)),
        }
    }
}

/// What an error of the database means for what was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Others were in the way: the same again may succeed.
    Contention,
    /// Somebody holds a lock for too long: the same without what is locked may succeed.
    Held,
    /// Something that was to be written is refused: the same without it may succeed.
    Refused,
    /// The connection is of no use any more.
    Connection,
    /// The server could not, for a reason of its own.
    Server,
}

impl Cause {
    pub(super) fn of(error: &sqlx::Error) -> Self {
        let database = match error {
            sqlx::Error::Database(database) => database,
            sqlx::Error::Encode(_) => return Self::Refused,
            _ => return Self::Connection,
        };
        let code = database.code().unwrap_or_default();
        match &*code {
            // serialization failure, deadlock
            "40001" | "40P01" => Self::Contention,
            // a read-only server: a standby that we reached before a failover was complete
            "25006" => Self::Connection,
            // idle in transaction for too long: the server has ended the connection
            "25P03" => Self::Connection,
            // a key that another server has added meanwhile
            "23505" => Self::Contention,
            // lock not available
            "55P03" => Self::Held,
            _ => match code.get(..2) {
                // data exceptions, broken constraints, limits of a row
                Some("22" | "23" | "54") => Self::Refused,
                // connection exceptions, shutting down and starting up
                Some("08" | "57") if &*code != "57014" => Self::Connection,
                _ => Self::Server,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_verified_or_local_connection_is_not_exposed() {
        for (url, exposed) in [
            ("postgres://ada@db.internal/shop", true),
            ("postgres://ada@db.internal/shop?sslmode=require", true),
            ("postgres://ada@db.internal/shop?sslmode=verify-full", false),
            ("postgres://ada@10.0.0.1/shop", true),
            ("postgres://ada@127.0.0.1/shop", false),
            ("postgres://ada@[::1]/shop", false),
            ("postgres://ada@localhost/shop", false),
            ("postgres:///shop?user=ada&host=/var/run/postgresql", false),
            ("postgres://ada@%2Fvar%2Frun%2Fpostgresql/shop", false),
        ] {
            assert_eq!(url.parse::<PostgresAddress>().unwrap().is_exposed(), exposed, "{url}");
        }
    }
}
