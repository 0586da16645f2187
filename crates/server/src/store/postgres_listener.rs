//! Servers of one PostgreSQL database telling each other which sessions changed.
//!
//! A notification is a hint: it can be lost with a connection. Whoever is told [`ListenerEvent::Down`] and then
//! [`ListenerEvent::Up`] has to ask for the versions of what it holds.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgListener, PgPool, PgPoolOptions, Postgres};
use sqlx::query::Query;
use sqlx::{Executor as _, query};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::postgres_connect::{Connector, PostgresAddress};
use super::{SessionKey, StoreFault};
use crate::problem::chain;

/// Where changes are announced.
pub(super) const CHANNEL: &str = "throughline_changes";

/// The longest payload, in bytes. PostgreSQL takes less than 8,000.
const MAX_PAYLOAD_BYTES: usize = 7_900;

/// After this long without a notification the connection is asked whether it lives, and has this long to answer.
const QUIET: Duration = Duration::from_millis(500);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Between attempts at connecting, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What a listener is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerEvent {
    /// From now on changes are told. What happened before was not.
    Up,
    /// From now on changes are missed, until the next [`Up`](Self::Up).
    Down,
    /// A session changed.
    Changed {
        /// Which one.
        key: SessionKey,
        /// The version that it is at.
        version: u64,
    },
}

/// Listens on a connection of its own until it is dropped.
#[derive(Debug)]
pub struct ChangeListener {
    _task: AbortOnDropHandle<()>,
}

impl ChangeListener {
    /// Starts listening. At most `capacity` events wait; a reader that is slower than that slows down the listening, and
    /// misses nothing.
    #[must_use]
    pub fn start(address: &PostgresAddress, capacity: usize) -> (Self, mpsc::Receiver<ListenerEvent>) {
        let (events, received) = mpsc::channel(capacity.max(1));
        let connector = Connector::without_limit(address, CONNECT_LIMIT);
        let task = AbortOnDropHandle::new(tokio::spawn(run(connector, events)));
        (Self { _task: task }, received)
    }
}

/// Ends when nobody reads the events any more.
async fn run(connector: Connector, events: mpsc::Sender<ListenerEvent>) {
    let (shortest, longest) = PAUSES;
    let mut pause = shortest;
    let mut told_down = false;
    while !events.is_closed() {
        let fault = match subscribe(&connector).await {
            Ok(listener) => {
                if events.send(ListenerEvent::Up).await.is_err() {
                    return;
                }
                (pause, told_down) = (shortest, false);
                listen(listener, &events).await
            }
            Err(fault) => fault,
        };
        if !told_down {
            tracing::warn!(error = %chain(&fault), "changes of other servers are not heard; connecting again");
            if events.send(ListenerEvent::Down).await.is_err() {
                return;
            }
            told_down = true;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// A listener with a connection and a pool of its own: sqlx's listeners need a pool, and one that hung is not used again.
/// When such a listener is dropped, sqlx says goodbye in a task that ends with the connection: one for each outage.
async fn subscribe(connector: &Connector) -> Result<PgListener, StoreFault> {
    const DURING: &str = "listening to PostgreSQL";
    let connected = async {
        let options = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool: PgPool = options.acquire_timeout(CONNECT_LIMIT).connect_lazy_with(connector.options().clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    match timeout(CONNECT_LIMIT, connected).await {
        Ok(outcome) => outcome.map_err(|error| StoreFault::new(DURING, error)),
        Err(late) => Err(StoreFault::new(DURING, late)),
    }
}

/// Hands on what is heard, until the connection is lost; answers why.
async fn listen(mut listener: PgListener, events: &mpsc::Sender<ListenerEvent>) -> StoreFault {
    const DURING: &str = "listening to PostgreSQL";
    loop {
        match timeout(QUIET, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                for (key, version) in notification.payload().lines().filter_map(parse) {
                    if events.send(ListenerEvent::Changed { key, version }).await.is_err() {
                        return StoreFault::new(DURING, "nobody listens any more");
                    }
                }
            }
            Ok(Ok(None)) => return StoreFault::new(DURING, "the connection was closed"),
            Ok(Err(error)) => return StoreFault::new(DURING, error),
            Err(_) => match timeout(ANSWER_LIMIT, listener.execute("SELECT 1")).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return StoreFault::new(DURING, error),
                Err(late) => return StoreFault::new(DURING, late),
            },
        }
        if events.is_closed() {
            return StoreFault::new(DURING, "nobody listens any more");
        }
    }
}

/// The statement that announces: it takes effect with the transaction that it stands in.
pub(super) fn notify(payloads: Vec<String>) -> Query<'static, Postgres, PgArguments> {
    query("SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload").bind(CHANNEL).bind(payloads)
}

/// Changes as lines of text, as many in each payload as PostgreSQL takes.
pub(super) fn payloads<'a>(changes: impl IntoIterator<Item = (&'a SessionKey, u64)>) -> Vec<String> {
    let mut payloads: Vec<String> = Vec::new();
    for (SessionKey { tenant, session_id }, version) in changes {
        let line = format!("{tenant}\t{session_id}\t{version}", tenant = tenant.as_str());
        // No client can choose such an id; a hint that tells of it would be lost or taken for another one.
        if line.len() > MAX_PAYLOAD_BYTES || session_id.contains(['\t', '\n', '\r']) {
            continue;
        }
        match payloads.last_mut() {
            Some(payload) if payload.len() + 1 + line.len() <= MAX_PAYLOAD_BYTES => {
                payload.push('\n');
                payload.push_str(&line);
            }
            _ => payloads.push(line),
        }
    }
    payloads
}

fn parse(line: &str) -> Option<(SessionKey, u64)> {
    let mut parts = line.split('\t');
    let (tenant, session_id, version) = (parts.next()?, parts.next()?, parts.next()?);
    let key = SessionKey { tenant: tenant.parse().ok()?, session_id: session_id.to_owned() };
    Some((key, version.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::session;

    #[test]
    fn payloads_are_short_enough_and_hold_every_change() {
        let keys: Vec<_> = (0..1_000).map(|number| session("shop", &format!("ws_{number}"))).collect();
        let payloads = payloads(keys.iter().map(|key| (key, 7)));
        assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.len() <= MAX_PAYLOAD_BYTES));
        let read: Vec<_> =
            payloads.iter().flat_map(|payload| payload.lines()).map(|line| parse(line).unwrap()).collect();
        assert_eq!(read, keys.into_iter().map(|key| (key, 7)).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_change_is_passed_over() {
        for line in ["", "shop", "shop\tws_1", "shop\tws_1\tmany", "Not A Tenant\tws_1\t1"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
        assert!(payloads([(&session("shop", "a\nb"), 1)]).is_empty());
    }
}
