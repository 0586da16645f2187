//! One Redis process: its connection, and the breaker that guards it.
//!
//! A task keeps the connection. A call that finds none waits for it as long as its own limit
//! allows; one that finds it broken says so, and the task makes a new one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use redis::{ConnectionInfo, ErrorKind, PushInfo, PushKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::{Connected, Connector, ask};
use super::fault::{CacheFault, ConnectFault};
use super::partition::Partition;
use super::scripts::Script;
use crate::breaker::{Attempt, Breaker, BreakerSettings, Kind};
use crate::problem::chain;

/// How long after a failed connection the next is tried.
const RECONNECT_AFTER: Duration = Duration::from_millis(250);

/// What a script is called with.
#[derive(Clone)]
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

/// Why a node did not do what it was asked.
pub(super) enum NodeFault {
    /// The node works, but the partition is somewhere else, or on its way there.
    Elsewhere(RedisError),
    Failed(CacheFault),
}

pub(super) struct Node {
    info: ConnectionInfo,
    limit: Duration,
    state: watch::Sender<State>,
    /// Somebody found the connection broken.
    given_up: Arc<Notify>,
    next_id: AtomicU64,
    breaker: OnceLock<Breaker>,
    /// What a probe calls; without one it only asks for a sign of life.
    probe: Mutex<Option<Call>>,
    /// Ends the tasks with the node.
    _gone: DropGuard,
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

impl Node {
    /// `changed` is notified whenever the breaker opens or closes.
    pub(super) fn start(
        connector: Arc<Connector>,
        info: ConnectionInfo,
        name: String,
        limit: Duration,
        changed: Arc<Notify>,
        closed: &CancellationToken,
    ) -> Arc<Self> {
        let gone = closed.child_token();
        let node = Arc::new(Self {
            info,
            limit,
            state: watch::Sender::new(State::Connecting),
            given_up: Arc::default(),
            next_id: AtomicU64::new(1),
            breaker: OnceLock::new(),
            probe: Mutex::default(),
            _gone: gone.clone().drop_guard(),
        });
        // A probe has the node's own limit; the breaker's is only there in case of a mistake.
        let settings = BreakerSettings { probe_limit: limit * 2, ..BreakerSettings::new(name) };
        let probed = Arc::downgrade(&node);
        let breaker = Breaker::new(settings, move || {
            let node = probed.upgrade();
            async move {
                match node {
                    Some(node) => node.answers_probe().await,
                    None => false,
                }
            }
        });
        let mut watch = breaker.watch();
        // Nobody else has the node yet, so this is the first time.
        let _ = node.breaker.set(breaker);
        let ended = gone.clone();
        tokio::spawn(async move {
            let following = async {
                while watch.changed().await.is_ok() {
                    changed.notify_one();
                }
            };
            tokio::select! {
                () = ended.cancelled() => {}
                () = following => {}
            }
        });
        tokio::spawn(Self::keep_connected(Arc::downgrade(&node), connector, gone));
        node
    }

    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    pub(super) fn is_away(&self) -> bool {
        self.breaker.get().is_some_and(Breaker::is_open)
    }

    /// What a probe must be able to do.
    pub(super) fn set_probe(&self, call: Option<Call>) {
        *self.probe.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }

    /// Asks the breaker whether something may begin.
    pub(super) fn admit(&self) -> Result<Option<Attempt>, CacheFault> {
        match self.breaker.get().map(|breaker| breaker.admit(Kind::Writing)) {
            None => Ok(None),
            Some(Ok(attempt)) => Ok(Some(attempt)),
            Some(Err(_)) => Err(CacheFault::Away),
        }
    }

    /// Tells the breaker how an attempt ended. A connection that hangs is not told from one that
    /// is slow, until the breaker opens. Then it goes, with everything that still waits in it.
    pub(super) fn judge(&self, attempt: Option<Attempt>, failed: Option<&CacheFault>) {
        match (attempt, failed) {
            (Some(attempt), None) => attempt.succeeded(),
            (Some(attempt), Some(fault)) => {
                if attempt.failed(fault) {
                    self.give_up(None);
                }
            }
            (None, _) => {}
        }
    }

    /// Waits until the first connection was made or failed.
    pub(super) async fn first_connection(&self) {
        let mut state = self.state.subscribe();
        // Cannot fail: the sender is in `self`.
        let _ = state.wait_for(|state| !matches!(state, State::Connecting)).await;
    }

    /// The name of the process at the other end; `None` while there is no connection.
    pub(super) fn run_id(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Up(live) => Some(live.connected.run_id.clone()),
            State::Connecting | State::Down(_) => None,
        }
    }

    /// Whether it belongs to a cluster, if that is known.
    pub(super) fn is_cluster(&self) -> Option<bool> {
        match &*self.state.borrow() {
            State::Up(live) => Some(live.connected.cluster),
            State::Connecting | State::Down(_) => None,
        }
    }

    /// Runs a script, past the breaker. The caller sets the time limit.
    pub(super) async fn execute(&self, call: &Call) -> Result<Reply, NodeFault> {
        let during = call.script.operation;
        let mut live = self.live().await.map_err(NodeFault::Failed)?;
        let answer = evaluate(&mut live, call).await.and_then(reply);
        answer.map_err(|error| self.sort(during, &live, error))
    }

    /// Sends a command that is about no key, past the breaker.
    pub(super) async fn ask(&self, during: &'static str, command: &redis::Cmd) -> Result<Value, NodeFault> {
        let mut live = self.live().await.map_err(NodeFault::Failed)?;
        let answer = ask(&mut live.connected.connection, command).await;
        answer.map_err(|error| self.sort(during, &live, error))
    }

    fn sort(&self, during: &'static str, live: &Live, error: RedisError) -> NodeFault {
        use ServerErrorKind::{Ask, ClusterDown, Moved, ReadOnly, TryAgain};
        if let ErrorKind::Server(Moved | Ask | TryAgain | ClusterDown) = error.kind() {
            return NodeFault::Elsewhere(error);
        }
        // One that became a replica stays one, and the address may lead elsewhere by now.
        if error.is_unrecoverable_error() || error.kind() == ErrorKind::Server(ReadOnly) {
            self.give_up(Some(live.id));
        }
        NodeFault::Failed(if error.is_timeout() {
            CacheFault::TimedOut { during, limit: self.limit }
        } else {
            CacheFault::failed(during, error)
        })
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

    /// Lets go of a connection, or of whichever there is. Not of one that replaced it already.
    fn give_up(&self, id: Option<u64>) {
        let gone = self.state.send_if_modified(|state| match state {
            State::Up(live) if id.is_none_or(|id| id == live.id) => {
                *state = State::Connecting;
                true
            }
            _ => false,
        });
        if gone {
            self.given_up.notify_one();
        }
    }

    /// Does what a call does: it writes, so it fails where calls would.
    async fn answers_probe(&self) -> bool {
        let call = self.probe.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let probing = async {
            match &call {
                Some(call) => self.execute(call).await.map(drop),
                None => self.ask("ping", &redis::cmd("PING")).await.map(drop),
            }
        };
        match tokio::time::timeout(self.limit, probing).await {
            // A node that knows better who has the partition is alive.
            Ok(Ok(()) | Err(NodeFault::Elsewhere(_))) => true,
            Ok(Err(NodeFault::Failed(_))) => false,
            Err(_) => {
                // It may be this connection that is dead, without Redis being so.
                self.give_up(None);
                false
            }
        }
    }

    async fn keep_connected(node: Weak<Self>, connector: Arc<Connector>, gone: CancellationToken) {
        tokio::select! {
            () = gone.cancelled() => {}
            () = Self::keep(&node, &connector) => {}
        }
        // Lets go of the connection; calls that still wait for one end.
        if let Some(node) = node.upgrade() {
            node.state.send_replace(State::Down(Arc::new(ConnectFault::Closed)));
        }
    }

    async fn keep(node: &Weak<Self>, connector: &Connector) {
        loop {
            let Some((info, id)) = node.upgrade().map(|node| (node.info.clone(), node.next_id())) else { return };
            let dropped = node.clone();
            let pushes = move |push: PushInfo| {
                if push.kind == PushKind::Disconnection
                    && let Some(node) = dropped.upgrade()
                {
                    node.give_up(Some(id));
                }
            };
            let outcome = connector.connect(&info, Arc::new(pushes)).await;
            let Some(this) = node.upgrade() else { return };
            match outcome {
                Ok(connected) => {
                    tracing::info!(address = %info.addr(), version = connected.version, "connected to Redis");
                    this.state.send_replace(State::Up(Live { id, connected }));
                    if let Some(breaker) = this.breaker.get() {
                        breaker.probe_now();
                    }
                    let given_up = Arc::clone(&this.given_up);
                    // Not held while waiting: the node goes when nobody else has it.
                    drop(this);
                    given_up.notified().await;
                }
                Err(fault) => {
                    tracing::debug!(address = %info.addr(), error = %chain(&fault), "no connection to Redis");
                    if let Some(breaker) = this.breaker.get() {
                        breaker.trip(&fault);
                    }
                    this.state.send_replace(State::Down(Arc::new(fault)));
                    drop(this);
                    tokio::time::sleep(RECONNECT_AFTER).await;
                }
            }
        }
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

async fn evaluate(live: &mut Live, call: &Call) -> Result<Value, RedisError> {
    match send(live, "EVALSHA", call.script.hash(), call).await {
        // Redis was restarted, or never saw it. `EVAL` loads it too.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            send(live, "EVAL", call.script.code, call).await
        }
        answer => answer,
    }
}

async fn send(live: &mut Live, command: &str, script: &str, call: &Call) -> Result<Value, RedisError> {
    let mut command = redis::cmd(command);
    command.arg(script).arg(call.keys.len()).arg(&call.keys).arg(&call.arguments);
    live.connected.connection.send_packed_command(&command).await?.extract_error()
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
