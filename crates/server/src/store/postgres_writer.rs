//! A connection that writes batches to PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, query};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::StoreFault;
use super::group_commit::{self, BatchWriter};
use super::postgres_batch::{self, Approach, BatchError, Outcome, Work};
use super::postgres_connect::{Cause, Connector};
use crate::problem::chain;
use crate::telemetry::spans;

/// How often what others were in the way of is tried.
const ATTEMPTS: u32 = 4;

/// How long a batch waits for a new connection when its old one turns out to be gone: as long as connecting takes when
/// PostgreSQL was merely started again. Without one at hand a batch fails at once.
const RECONNECT_PATIENCE: Duration = Duration::from_millis(250);

/// Between attempts at connecting, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// How long closing may take.
const CLOSE_LIMIT: Duration = Duration::from_millis(200);

/// One caller's share of a batch.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    /// When its caller stops waiting.
    pub(super) deadline: Instant,
    pub(super) tell: oneshot::Sender<Result<Outcome, StoreFault>>,
}

impl Job {
    // A caller that went away does not want to know; what was written stays written.
    fn tell(self, outcome: Result<Outcome, StoreFault>) {
        let _ = self.tell.send(outcome);
    }
}

/// Writes batches of jobs, each in one transaction if nothing goes wrong.
#[derive(Debug)]
pub(super) struct PostgresWriter {
    connector: Connector,
    limit: Duration,
    link: Link,
}

#[derive(Debug)]
enum Link {
    Open(PgConnection),
    /// Somebody else is connecting, so that no batch has to wait for it.
    Opening {
        opened: AbortOnDropHandle<PgConnection>,
        fault: StoreFault,
    },
    Closed,
}

/// Why a transaction did not commit.
enum Failure {
    /// Others were in the way; nothing was written.
    Contention(StoreFault),
    /// Somebody holds something in it for too long; nothing was written.
    Held(StoreFault),
    /// The database refused something in it; nothing was written.
    Refused(StoreFault),
    /// The connection was gone before anything could have been committed.
    NotBegun(StoreFault),
    /// There is no connection, which was told when it was lost.
    Away(StoreFault),
    /// Anything else. When it happened during the commit, its outcome is not known.
    Final(StoreFault),
}

impl PostgresWriter {
    pub(super) fn new(connector: Connector, connection: PgConnection, limit: Duration) -> Self {
        Self { connector, limit, link: Link::Open(connection) }
    }

    /// Starts to connect again. What was open is closed by being dropped.
    fn reconnect(&mut self, fault: StoreFault) {
        let opened = AbortOnDropHandle::new(tokio::spawn(connect_again(self.connector.clone())));
        self.link = Link::Opening { opened, fault };
    }

    /// The connection, if there is one within `patience`.
    async fn connection(&mut self, patience: Duration) -> Result<&mut PgConnection, StoreFault> {
        if let Link::Opening { opened, fault } = &mut self.link {
            let fault = fault.clone();
            match timeout(patience, opened).await {
                Ok(Ok(connection)) => self.link = Link::Open(connection),
                Ok(Err(_)) => {
                    // The task that connects was ended from outside; there is no other way for it to fail.
                    self.reconnect(fault.clone());
                    return Err(fault);
                }
                Err(_) => return Err(fault),
            }
        }
        match &mut self.link {
            Link::Open(connection) => Ok(connection),
            Link::Opening { fault, .. } => Err(fault.clone()),
            Link::Closed => Err(StoreFault::new("writing a batch", "the store is closed")),
        }
    }

    /// Writes `jobs` in one transaction.
    async fn transaction(
        &mut self,
        jobs: &[Job],
        approach: Approach,
        deadline: Instant,
        patience: Duration,
    ) -> Result<Vec<Outcome>, Failure> {
        const DURING: &str = "writing a batch";
        let works: Vec<&Work> = jobs.iter().map(|job| &job.work).collect();
        let connection = self.connection(patience).await.map_err(Failure::Away)?;
        let mut committing = false;
        let run = async {
            query("BEGIN").execute(&mut *connection).await?;
            let outcomes = postgres_batch::write(connection, &works, approach).await?;
            committing = true;
            query("COMMIT").execute(&mut *connection).await?;
            Ok::<_, BatchError>(outcomes)
        };
        let error = match timeout_at(deadline, run).await {
            Ok(Ok(outcomes)) => return Ok(outcomes),
            Ok(Err(error)) => error,
            Err(late) => {
                let fault = StoreFault::new(DURING, late);
                self.reconnect(fault.clone());
                return Err(Failure::Final(fault));
            }
        };
        let cause = match &error {
            BatchError::Overtaken => Cause::Contention,
            BatchError::Database(error) => Cause::of(error),
        };
        let fault = match error {
            BatchError::Overtaken => StoreFault::new(DURING, "another server created one of its sessions"),
            BatchError::Database(error) => StoreFault::new(DURING, error),
        };
        match cause {
            Cause::Contention if self.roll_back(deadline).await => Err(Failure::Contention(fault)),
            Cause::Held if self.roll_back(deadline).await => Err(Failure::Held(fault)),
            Cause::Refused if self.roll_back(deadline).await => Err(Failure::Refused(fault)),
            cause => {
                self.reconnect(fault.clone());
                let not_begun = cause == Cause::Connection && !committing;
                Err(if not_begun { Failure::NotBegun(fault) } else { Failure::Final(fault) })
            }
        }
    }

    async fn roll_back(&mut self, deadline: Instant) -> bool {
        let Link::Open(connection) = &mut self.link else { return false };
        matches!(timeout_at(deadline, query("ROLLBACK").execute(connection)).await, Ok(Ok(_)))
    }

    /// Writes `jobs`, by halves if one of them is refused, and tells each caller. Returns how many transactions it took.
    async fn write_all(&mut self, jobs: Vec<Job>, deadline: Instant) -> u64 {
        let mut begun = 0;
        let mut waiting = vec![jobs];
        let mut attempt = 1;
        let mut patience = Duration::ZERO;
        let mut approach = Approach::Expecting;
        while let Some(mut jobs) = waiting.pop() {
            if Instant::now() >= deadline {
                fail(jobs, &StoreFault::new("writing a batch", "there was no time left for it"));
                continue;
            }
            begun += 1;
            let span = spans::transaction(jobs.len(), approach.as_str());
            let written = self.transaction(&jobs, approach, deadline, patience).instrument(span.clone()).await;
            spans::ended(&span, if written.is_ok() { "ok" } else { "undone" }, false);
            match written {
                Ok(outcomes) => {
                    for (job, outcome) in jobs.into_iter().zip(outcomes) {
                        job.tell(Ok(outcome));
                    }
                    attempt = 1;
                }
                // Some session was not as expected, or somebody is in the way.
                Err(Failure::Contention(fault) | Failure::Held(fault)) if approach == Approach::Expecting => {
                    note_retry(&fault, attempt);
                    approach = Approach::Locking;
                    waiting.push(jobs);
                }
                Err(Failure::Contention(fault)) if attempt < ATTEMPTS => {
                    note_retry(&fault, attempt);
                    tokio::time::sleep(Duration::from_millis(5 * u64::from(attempt))).await;
                    attempt += 1;
                    waiting.push(jobs);
                }
                Err(Failure::Held(fault)) if approach == Approach::Locking => {
                    note_retry(&fault, attempt);
                    approach = Approach::PassingBy;
                    waiting.push(jobs);
                }
                Err(Failure::NotBegun(_)) if patience.is_zero() => {
                    patience = RECONNECT_PATIENCE;
                    waiting.push(jobs);
                }
                // Some job of these is at fault; in halves the others find their way past it, in their order.
                Err(Failure::Refused(_) | Failure::Contention(_) | Failure::Held(_)) if jobs.len() > 1 => {
                    let second = jobs.split_off(jobs.len() / 2);
                    waiting.push(second);
                    waiting.push(jobs);
                    attempt = 1;
                }
                Err(Failure::Away(fault)) => fail(jobs, &fault),
                Err(
                    Failure::Contention(fault)
                    | Failure::Held(fault)
                    | Failure::Refused(fault)
                    | Failure::NotBegun(fault)
                    | Failure::Final(fault),
                ) => {
                    let probes_only = jobs.iter().all(|job| matches!(job.work, Work::Probe));
                    group_commit::log_failure(&fault, jobs.len(), probes_only);
                    fail(jobs, &fault);
                    attempt = 1;
                }
            }
        }
        begun
    }
}

#[async_trait]
impl BatchWriter for PostgresWriter {
    type Job = Job;

    async fn write(&mut self, batch: Vec<Job>) -> u64 {
        let now = Instant::now();
        // Nobody waits any more for what stood in the queue for too long: their callers were told that the outcome is
        // not known, and what they did since then may not be mixed with it.
        let (waited_for, late): (Vec<_>, Vec<_>) = batch.into_iter().partition(|job| job.deadline > now);
        for job in late {
            job.tell(Err(StoreFault::new("waiting for the writer", "it was not begun in time")));
        }
        if waited_for.is_empty() {
            return 0;
        }
        self.write_all(waited_for, now + self.limit).await
    }

    async fn between(&mut self) -> Option<Duration> {
        None
    }

    async fn finish(&mut self) {
        if let Link::Open(connection) = std::mem::replace(&mut self.link, Link::Closed) {
            // Closing only spares the server a line in its log.
            let _ = timeout(CLOSE_LIMIT, connection.close()).await;
        }
    }
}

fn note_retry(fault: &StoreFault, attempt: u32) {
    tracing::debug!(error = %chain(fault), attempt, "a batch of commits is written again");
    metrics::counter!("throughline_store_retried_batches_total").increment(1);
}

fn fail(jobs: Vec<Job>, fault: &StoreFault) {
    metrics::counter!("throughline_store_failed_batches_total").increment(1);
    for job in jobs {
        job.tell(Err(fault.clone()));
    }
}

/// Connects, however long it takes until PostgreSQL is there.
async fn connect_again(connector: Connector) -> PgConnection {
    let (mut pause, longest) = PAUSES;
    let mut warned = false;
    loop {
        match connector.connect(None).await {
            Ok(connection) => return connection,
            Err(fault) if !warned => {
                tracing::warn!(error = %chain(&fault), "there is no connection for writing; trying on");
                warned = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
