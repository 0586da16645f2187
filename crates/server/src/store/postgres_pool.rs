//! Connections to PostgreSQL for single statements.
//!
//! sqlx has a pool, but it asks a connection whether it still lives before it takes it back, without a limit in time
//! and with the permit in hand: a server that hangs eats the pool, a permit with each statement. Here a connection goes
//! back only after it has answered. One that did not answer in time, or whose caller went away, is closed by being
//! dropped, and its permit with it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::query::Query;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use super::postgres_connect::{Cause, Connector, PostgresAddress};
use super::{ReadError, StoreFault};

/// An unused connection is not kept longer: firewalls forget silently.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// After a failure everybody is refused at once for this long, instead of waiting for the next failure.
const DOWN_PAUSE: Duration = Duration::from_millis(200);

/// What a caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long closing may take.
const CLOSE_LIMIT: Duration = Duration::from_millis(200);

/// A bounded number of connections, each opened when it is needed.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    limit: Duration,
    /// How long to wait for a connection. The rest of the limit is left for the statement, so that a busy pool is
    /// not taken for a server that hangs.
    slot_limit: Duration,
    slots: Semaphore,
    state: Mutex<State>,
    /// Whether the gauges of the pool tell of this one.
    is_measured: bool,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<(PgConnection, Instant)>,
    down: Option<(StoreFault, Instant)>,
}

/// Counted in a gauge for as long as it lives, also when its caller goes away.
struct Counted(metrics::Gauge);

impl Counted {
    fn in_gauge(gauge: metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Pool {
    /// A pool of `size` connections. A statement takes no longer than `limit`, waiting for a connection included.
    pub(super) fn new(address: &PostgresAddress, size: usize, limit: Duration) -> Self {
        let slot_limit = limit / 3;
        let connector = Connector::with_limit(address, limit - slot_limit);
        let (slots, state) = (Semaphore::new(size.max(1)), Mutex::default());
        Self { connector, limit, slot_limit, slots, state, is_measured: false }
    }

    /// Lets the gauges of the pool tell of this one.
    pub(super) fn measured(mut self) -> Self {
        self.is_measured = true;
        metrics::gauge!("throughline_pool_connections_limit").set(self.slots.available_permits() as f64);
        self
    }

    fn measure(&self, state: &State) {
        if self.is_measured {
            metrics::gauge!("throughline_pool_connections", "state" => "idle").set(state.idle.len() as f64);
        }
    }

    fn counted(&self, gauge: metrics::Gauge) -> Option<Counted> {
        self.is_measured.then(|| Counted::in_gauge(gauge))
    }

    /// Opens a connection to have it at hand, and to find out whether that works.
    pub(super) async fn warm_up(&self) -> Result<(), StoreFault> {
        let connection = self.connector.connect(None).await?;
        self.give_back(connection);
        Ok(())
    }

    /// Runs the statement that `make` makes, and gives all its rows. It must be one that may run twice, when the answer
    /// to the first one was lost.
    pub(super) async fn rows<'q>(
        &self,
        during: &'static str,
        make: impl Fn() -> Query<'q, Postgres, PgArguments> + Send + Sync,
    ) -> Result<Vec<PgRow>, ReadError> {
        let deadline = Instant::now() + self.limit;
        let _slot = self.slot(during).await?;
        let _busy = self.counted(metrics::gauge!("throughline_pool_connections", "state" => "busy"));
        if let Some(mut connection) = self.take_idle() {
            let outcome = timeout_at(deadline, make().fetch_all(&mut connection)).await;
            if !matches!(&outcome, Ok(Err(error)) if Cause::of(error) == Cause::Connection) {
                return self.settle(during, connection, outcome);
            }
            // It ended while nobody looked, and so did most likely the others: PostgreSQL was started again.
            self.lock().idle.clear();
        }
        let mut connection = self.connector.connect(Some(deadline)).await.map_err(|fault| self.failed(fault))?;
        let outcome = timeout_at(deadline, make().fetch_all(&mut connection)).await;
        self.settle(during, connection, outcome)
    }

    /// Connections that nobody uses, opened or not.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.slots.available_permits()
    }

    /// Lets go of all connections; later statements are refused.
    pub(super) async fn close(&self) {
        self.slots.close();
        let idle = std::mem::take(&mut self.lock().idle);
        for (connection, _) in idle {
            // Closing only spares the server a line in its log.
            let _ = timeout(CLOSE_LIMIT, connection.close()).await;
        }
    }

    async fn slot(&self, during: &'static str) -> Result<SemaphorePermit<'_>, ReadError> {
        self.refuse_while_down()?;
        let begun = Instant::now();
        let waiting = self.counted(metrics::gauge!("throughline_pool_waiting"));
        let acquired = timeout(self.slot_limit, self.slots.acquire()).await;
        drop(waiting);
        if self.is_measured {
            metrics::histogram!("throughline_pool_wait_seconds").record(begun.elapsed());
        }
        let slot = match acquired {
            Ok(Ok(slot)) => slot,
            Ok(Err(closed)) => return Err(ReadError::Unavailable { fault: StoreFault::new(during, closed) }),
            Err(_) => return Err(ReadError::Overloaded { retry_after: RETRY_AFTER }),
        };
        // Whoever had the slot before may have found out.
        self.refuse_while_down()?;
        Ok(slot)
    }

    fn refuse_while_down(&self) -> Result<(), ReadError> {
        match &self.lock().down {
            Some((fault, until)) if Instant::now() < *until => Err(ReadError::Unavailable { fault: fault.clone() }),
            _ => Ok(()),
        }
    }

    /// The connection that was used last; the others may rest until they are too old.
    fn take_idle(&self) -> Option<PgConnection> {
        let mut state = self.lock();
        state.idle.retain(|(_, since)| since.elapsed() < IDLE_LIMIT);
        let taken = state.idle.pop().map(|(connection, _)| connection);
        self.measure(&state);
        taken
    }

    fn settle(
        &self,
        during: &'static str,
        connection: PgConnection,
        outcome: Result<Result<Vec<PgRow>, sqlx::Error>, tokio::time::error::Elapsed>,
    ) -> Result<Vec<PgRow>, ReadError> {
        match outcome {
            Ok(Ok(rows)) => {
                self.give_back(connection);
                Ok(rows)
            }
            Ok(Err(error)) if Cause::of(&error) == Cause::Connection => {
                Err(self.failed(StoreFault::new(during, error)))
            }
            // The server answered, if only with a refusal: it is there.
            Ok(Err(error)) => {
                self.give_back(connection);
                Err(ReadError::Unavailable { fault: StoreFault::new(during, error) })
            }
            Err(late) => Err(self.failed(StoreFault::new(during, late))),
        }
    }

    fn give_back(&self, connection: PgConnection) {
        let mut state = self.lock();
        state.down = None;
        if !self.slots.is_closed() {
            state.idle.push((connection, Instant::now()));
            self.measure(&state);
        }
    }

    fn failed(&self, fault: StoreFault) -> ReadError {
        let mut state = self.lock();
        state.idle.clear();
        self.measure(&state);
        state.down = Some((fault.clone(), Instant::now() + DOWN_PAUSE));
        ReadError::Unavailable { fault }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Each change is a single push, pop or assignment, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
