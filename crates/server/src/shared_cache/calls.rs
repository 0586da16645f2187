//! Calls to Redis: each within its time limit, never too many at once, and none at all while
//! Redis is away.
//!
//! One task keeps the connection. A call that finds none waits for it as long as its own limit
//! allows; a call that finds the connection broken says so, and the task makes a new one.
//!
//! In a cluster each partition has a breaker of its own, so that one dead node does not take the
//! others with it. Partitions that fail are probed through a connection of their own: where a
//! node hangs, the crate lets all calls of a connection wait while it tries to reach it. The
//! same connection knows the cluster as it is now, so when a probe through it succeeds, it
//! becomes the one for all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::connection::{Connected, Connection, Connector};
use super::envelope::{self, NodeId};
use super::fault::{CacheFault, ConnectFault};
use super::partition::{Names, PARTITIONS, Partition};
use super::scripts::{self, Script};
use super::settings::SharedCacheSettings;
use crate::breaker::{Attempt, Breaker, BreakerSettings};
use crate::problem::chain;

/// How long after a failed connection the next is tried.
const RECONNECT_AFTER: Duration = Duration::from_millis(250);

/// How often the health of a cluster's partitions is looked at.
const LOOK_AT_PARTITIONS_EVERY: Duration = Duration::from_millis(500);

/// How often the connection for probes is made anew while partitions of a cluster fail: a
/// connection finds out by itself that slots moved, but not that a node hangs and another one
/// took its place.
const RENEW_PROBING_EVERY: Duration = Duration::from_secs(2);

/// What a script is called with.
pub(super) struct Call {
    pub(super) partition: Partition,
    pub(super) script: &'static Script,
    pub(super) keys: Vec<String>,
    pub(super) arguments: Vec<Vec<u8>>,
}

/// What a script answered: a status, how many foreign values it met, and the rest.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: String,
    pub(super) foreign: u64,
    pub(super) rest: Vec<Value>,
}

pub(super) struct Calls {
    connector: Arc<Connector>,
    names: Names,
    node: NodeId,
    limit: Duration,
    concurrent: usize,
    permits: Semaphore,
    state: watch::Sender<State>,
    /// For probes of a cluster's partitions, while some fail.
    probing: Mutex<Option<Live>>,
    /// Somebody found the connection broken.
    given_up: Notify,
    next_id: AtomicU64,
    breakers: OnceLock<Breakers>,
    closed: CancellationToken,
}

struct Breakers {
    /// For the connection, and for all calls where there is only one Redis.
    whole: Breaker,
    /// For the calls to a partition in a cluster.
    partitions: Vec<Breaker>,
}

#[derive(Clone)]
enum State {
    Connecting,
    Up(Live),
    Down(Arc<ConnectFault>),
}

#[derive(Clone)]
struct Live {
    id: u64,
    connected: Connected,
}

impl Calls {
    pub(super) fn new(settings: &SharedCacheSettings, connector: Arc<Connector>, node: NodeId) -> Arc<Self> {
        let calls = Arc::new(Self {
            connector,
            names: Names::new(&settings.prefix),
            node,
            limit: settings.operation_limit,
            concurrent: settings.concurrent_operations,
            permits: Semaphore::new(settings.concurrent_operations),
            state: watch::Sender::new(State::Connecting),
            probing: Mutex::default(),
            given_up: Notify::new(),
            next_id: AtomicU64::new(1),
            breakers: OnceLock::new(),
            closed: CancellationToken::new(),
        });
        calls.guard();
        tokio::spawn(Arc::clone(&calls).keep_connected());
        calls
    }

    /// Makes the breakers. Their probes do what the calls do, so that they close only when
    /// calls will work; they must not keep the calls alive.
    fn guard(self: &Arc<Self>) {
        let breaker = |partition: Option<Partition>| {
            let calls = Arc::downgrade(self);
            let settings = BreakerSettings {
                // The probe has the same limit, and should be the one to notice.
                probe_limit: self.limit * 2,
                announced: partition.is_none(),
                ..BreakerSettings::new("redis")
            };
            Breaker::new(settings, move || {
                let calls = calls.upgrade();
                async move {
                    match calls {
                        Some(calls) => calls.probe(partition).await,
                        None => false,
                    }
                }
            })
        };
        let breakers = Breakers {
            whole: breaker(None),
            partitions: Partition::all().map(|partition| breaker(Some(partition))).collect(),
        };
        // It is empty: nobody else has the new value yet.
        let _ = self.breakers.set(breakers);
    }

    pub(super) fn breaker(&self) -> Option<&Breaker> {
        self.breakers.get().map(|breakers| &breakers.whole)
    }

    fn breaker_of(&self, partition: Partition) -> Option<&Breaker> {
        self.breakers.get().and_then(|breakers| breakers.partitions.get(partition.index()))
    }

    /// Whether calls about this partition are begun at all.
    pub(super) fn is_available(&self, partition: Partition) -> bool {
        let open = |breaker: Option<&Breaker>| breaker.is_some_and(Breaker::is_open);
        !(open(self.breaker()) || (self.is_cluster() && open(self.breaker_of(partition))))
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(live) if live.connected.connection.is_cluster())
    }

    /// Waits until the first connection was made or failed.
    pub(super) async fn first_connection(&self) {
        let mut state = self.state.subscribe();
        // Cannot fail: the sender is in `self`.
        let _ = state.wait_for(|state| !matches!(state, State::Connecting)).await;
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Runs a script.
    pub(super) async fn run(&self, call: Call) -> Result<Reply, CacheFault> {
        let operation = call.script.operation;
        let begun = Instant::now();
        let ended = self.guarded(call).await;
        let outcome = match &ended {
            Ok(_) => "ok",
            Err(CacheFault::Away) => "away",
            Err(CacheFault::TimedOut { .. }) => "timed_out",
            Err(CacheFault::Failed { .. }) => "failed",
            Err(CacheFault::Overloaded { .. }) => "overloaded",
            Err(CacheFault::Malformed { .. } | CacheFault::Closed) => "refused",
        };
        metrics::counter!("throughline_cache_calls_total", "operation" => operation, "outcome" => outcome).increment(1);
        metrics::histogram!("throughline_cache_call_seconds", "operation" => operation)
            .record(begun.elapsed().as_secs_f64());
        ended
    }

    async fn guarded(&self, call: Call) -> Result<Reply, CacheFault> {
        if self.closed.is_cancelled() {
            return Err(CacheFault::Closed);
        }
        let whole = admit(self.breaker())?;
        let part = if self.is_cluster() { admit(self.breaker_of(call.partition))? } else { None };
        let Ok(_permit) = self.permits.try_acquire() else {
            return Err(CacheFault::Overloaded { calls: self.concurrent });
        };
        let during = call.script.operation;
        let (id, ended) = match tokio::time::timeout(self.limit, self.execute(&call)).await {
            Ok(ended) => ended,
            Err(_) => (None, Err(CacheFault::TimedOut { during, limit: self.limit })),
        };
        self.judge(part.or(whole), id, &ended);
        ended
    }

    /// Tells the breaker how a call ended, and gives up the connection when it is of no use.
    fn judge(&self, attempt: Option<Attempt>, id: Option<u64>, ended: &Result<Reply, CacheFault>) {
        let Some(attempt) = attempt else { return };
        match ended {
            Ok(_) => attempt.succeeded(),
            Err(fault) => {
                let opened = attempt.failed(fault);
                // A connection that hangs is not told from one that is slow, until the breaker
                // opens. Then it goes, with everything that still waits in it.
                if opened && !self.is_cluster() {
                    self.give_up(id.or_else(|| self.current_id()));
                }
            }
        }
    }

    async fn execute(&self, call: &Call) -> (Option<u64>, Result<Reply, CacheFault>) {
        let live = match self.live().await {
            Ok(live) => live,
            Err(fault) => return (None, Err(fault)),
        };
        let during = call.script.operation;
        let mut connection = live.connected.connection.clone();
        let reply = evaluate(&mut connection, call).await.and_then(reply);
        if let Err(error) = &reply
            && error.is_unrecoverable_error()
        {
            self.give_up(Some(live.id));
        }
        let reply = reply.map_err(|error| {
            if error.is_timeout() {
                CacheFault::TimedOut { during, limit: self.limit }
            } else {
                CacheFault::failed(during, error)
            }
        });
        (Some(live.id), reply)
    }

    /// The connection; waits for it while it is being made.
    async fn live(&self) -> Result<Live, CacheFault> {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match state.as_deref() {
            Ok(State::Up(live)) => Ok(live.clone()),
            Ok(State::Down(fault)) => {
                Err(CacheFault::Failed { during: "connecting to Redis", cause: Arc::clone(fault) as _ })
            }
            Ok(State::Connecting) | Err(_) => Err(CacheFault::Closed),
        }
    }

    fn current_id(&self) -> Option<u64> {
        match &*self.state.borrow() {
            State::Up(live) => Some(live.id),
            State::Connecting | State::Down(_) => None,
        }
    }

    /// Lets go of a connection, unless it was replaced already. The cluster connection mends itself.
    fn give_up(&self, id: Option<u64>) {
        let gone = self.state.send_if_modified(|state| match state {
            State::Up(live) if Some(live.id) == id && !live.connected.connection.is_cluster() => {
                *state = State::Connecting;
                true
            }
            _ => false,
        });
        if gone {
            self.given_up.notify_one();
        }
    }

    /// A heartbeat on the partition's channel. It writes, so it fails where other calls would.
    pub(super) fn heartbeat(&self, partition: Partition) -> Call {
        Call {
            partition,
            script: &scripts::PUBLISH,
            keys: vec![self.names.sequence(partition), self.names.channel(partition)],
            arguments: vec![envelope::heartbeat(self.node)],
        }
    }

    /// Does what a call does, but past the breaker.
    async fn probe(&self, partition: Option<Partition>) -> bool {
        let probing = match partition {
            Some(_) if self.is_cluster() => self.probing().clone(),
            // Its breaker guards nothing where there is only one Redis.
            Some(_) => return true,
            None => self.live().await.ok(),
        };
        let Some(live) = probing else { return false };
        let mut connection = live.connected.connection.clone();
        let heartbeat = match partition {
            Some(partition) => Some(partition),
            // In a cluster the whole is there when any node answers.
            None if connection.is_cluster() => None,
            None => Some(Partition::first()),
        };
        let asking = async {
            match heartbeat {
                Some(partition) => evaluate(&mut connection, &self.heartbeat(partition)).await,
                None => connection.ask_any(redis::cmd("PING")).await,
            }
        };
        let answered = matches!(tokio::time::timeout(self.limit, asking).await, Ok(Ok(_)));
        match (answered, partition) {
            (true, Some(_)) => self.promote(live),
            // It may be this connection that is dead, without Redis being so.
            (false, None) => self.give_up(Some(live.id)),
            _ => {}
        }
        answered
    }

    fn probing(&self) -> MutexGuard<'_, Option<Live>> {
        // Nothing panics while it is held; if something did, the value would still be whole.
        self.probing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the connection that reached a partition the one for all.
    fn promote(&self, live: Live) {
        self.state.send_if_modified(|state| match state {
            State::Up(current) if current.id != live.id => {
                *current = live;
                true
            }
            _ => false,
        });
    }

    /// Sends a command that is about no key, through the breaker and within the limit.
    pub(super) async fn ask_any(&self, during: &'static str, command: redis::Cmd) -> Result<Value, CacheFault> {
        if self.closed.is_cancelled() {
            return Err(CacheFault::Closed);
        }
        let attempt = admit(self.breaker())?;
        let asking = async {
            let mut live = self.live().await?;
            live.connected.connection.ask_any(command).await.map_err(|error| CacheFault::failed(during, error))
        };
        let ended = match tokio::time::timeout(self.limit, asking).await {
            Ok(ended) => ended,
            Err(_) => Err(CacheFault::TimedOut { during, limit: self.limit }),
        };
        match (&ended, attempt) {
            (Ok(_), Some(attempt)) => attempt.succeeded(),
            (Err(fault), Some(attempt)) => {
                attempt.failed(fault);
            }
            (_, None) => {}
        }
        ended
    }

    async fn keep_connected(self: Arc<Self>) {
        let closed = self.closed.clone();
        tokio::select! {
            () = closed.cancelled() => {}
            () = self.keep() => {}
        }
        // Lets go of the connection; calls that still wait for one end.
        self.state.send_replace(State::Down(Arc::new(ConnectFault::Closed)));
    }

    async fn keep(&self) {
        loop {
            match self.connector.connect(None).await {
                Ok(connected) => {
                    let cluster = connected.connection.is_cluster();
                    tracing::info!(version = connected.version, cluster, "connected to Redis");
                    self.install(connected);
                    if cluster { self.look_after_cluster().await } else { self.given_up.notified().await }
                }
                Err(fault) => {
                    tracing::debug!(error = %chain(&fault), "no connection to Redis");
                    if let Some(breaker) = self.breaker() {
                        breaker.trip(&fault);
                    }
                    self.state.send_replace(State::Down(Arc::new(fault)));
                    tokio::time::sleep(RECONNECT_AFTER).await;
                }
            }
        }
    }

    fn name(&self, connected: Connected) -> Live {
        Live { id: self.next_id.fetch_add(1, Ordering::Relaxed), connected }
    }

    fn install(&self, connected: Connected) {
        self.state.send_replace(State::Up(self.name(connected)));
        if let Some(breaker) = self.breaker() {
            breaker.probe_now();
        }
    }

    /// Tells of partitions that stop and begin to answer, and keeps the connection that they
    /// are probed through.
    async fn look_after_cluster(&self) {
        let mut failing_before = 0;
        let mut renewed: Option<Instant> = None;
        loop {
            tokio::time::sleep(LOOK_AT_PARTITIONS_EVERY).await;
            let failing = self.failing_partitions();
            #[allow(clippy::cast_precision_loss)] // At most 64.
            metrics::gauge!("throughline_cache_partitions_away").set(failing as f64);
            match (failing_before, failing) {
                (0, 1..) => tracing::warn!(failing, of = PARTITIONS, "partitions of the Redis cluster do not answer"),
                (1.., 0) => tracing::info!("all partitions of the Redis cluster answer again"),
                _ => {}
            }
            failing_before = failing;
            if failing == 0 {
                *self.probing() = None;
                renewed = None;
                continue;
            }
            let promoted = self.probing().as_ref().is_some_and(|probing| Some(probing.id) == self.current_id());
            if promoted || renewed.is_none_or(|renewed| renewed.elapsed() >= RENEW_PROBING_EVERY) {
                self.renew_probing(failing).await;
                renewed = Some(Instant::now());
            }
        }
    }

    async fn renew_probing(&self, failing: usize) {
        match self.connector.connect(None).await {
            Ok(connected) => {
                *self.probing() = Some(self.name(connected));
                for breaker in self.breakers.get().iter().flat_map(|breakers| &breakers.partitions) {
                    breaker.probe_now();
                }
            }
            Err(fault) => {
                tracing::debug!(error = %chain(&fault), "no connection to probe the Redis cluster through");
                if failing == PARTITIONS
                    && let Some(breaker) = self.breaker()
                {
                    breaker.trip(&fault);
                }
            }
        }
    }

    pub(super) fn failing_partitions(&self) -> usize {
        self.breakers.get().map_or(0, |breakers| breakers.partitions.iter().filter(|part| part.is_open()).count())
    }
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("limit", &self.limit).finish_non_exhaustive()
    }
}

fn admit(breaker: Option<&Breaker>) -> Result<Option<Attempt>, CacheFault> {
    match breaker.map(Breaker::admit) {
        None => Ok(None),
        Some(Ok(attempt)) => Ok(Some(attempt)),
        Some(Err(_)) => Err(CacheFault::Away),
    }
}

async fn evaluate(connection: &mut Connection, call: &Call) -> Result<Value, RedisError> {
    match send(connection, "EVALSHA", call.script.hash(), call).await {
        // Redis was restarted, or never saw it. `EVAL` goes to the same node and loads it there.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            send(connection, "EVAL", call.script.code, call).await
        }
        answer => answer,
    }
}

async fn send(connection: &mut Connection, command: &str, script: &str, call: &Call) -> Result<Value, RedisError> {
    let mut command = redis::cmd(command);
    command.arg(script).arg(call.keys.len()).arg(&call.keys).arg(&call.arguments);
    connection.req_packed_command(&command).await?.extract_error()
}

fn reply(value: Value) -> Result<Reply, RedisError> {
    let mut values = redis::from_redis_value::<Vec<Value>>(value)?.into_iter();
    let (Some(status), Some(foreign)) = (values.next(), values.next()) else {
        return Err((ErrorKind::UnexpectedReturnType, "a script answered with too little").into());
    };
    Ok(Reply {
        status: redis::from_redis_value(status)?,
        foreign: redis::from_redis_value(foreign)?,
        rest: values.collect(),
    })
}
