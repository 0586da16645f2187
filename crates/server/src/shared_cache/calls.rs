//! Calls to Redis: each within its time limit, never too many at once, and none at all to a
//! node that is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, ConnectionInfo, Value};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use super::connection::{Connector, ask};
use super::envelope::{self, NodeId};
use super::fault::CacheFault;
use super::node::{Call, Node, NodeFault, Reply};
use super::partition::{Names, Partition};
use super::scripts;
use super::settings::SharedCacheSettings;
use super::topology::{Served, Topology, read_slots};

/// How often a cluster is asked for its slots while a node is away: another may take its place.
const ASK_AGAIN_EVERY: Duration = Duration::from_secs(1);

/// How often it is asked at most, however many calls were told that a slot moved.
const ASK_AT_MOST_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Calls {
    connector: Arc<Connector>,
    names: Names,
    node: NodeId,
    limit: Duration,
    concurrent: usize,
    permits: Semaphore,
    topology: watch::Sender<Arc<Topology>>,
    /// A node said that somebody else serves a partition.
    outdated: Notify,
    /// A node's breaker opened or closed.
    node_changed: Arc<Notify>,
    away: watch::Sender<bool>,
    /// Set for good once it is known.
    cluster: AtomicBool,
    closed: CancellationToken,
}

impl Calls {
    pub(super) fn new(settings: &SharedCacheSettings, connector: Arc<Connector>, node: NodeId) -> Arc<Self> {
        let closed = CancellationToken::new();
        let node_changed = Arc::new(Notify::new());
        let start = |seed: &ConnectionInfo| {
            // Alone it is simply Redis.
            let name = match connector.seeds() {
                [_] => "redis".to_owned(),
                _ => node_name(seed),
            };
            let (connector, changed) = (Arc::clone(&connector), Arc::clone(&node_changed));
            Node::start(connector, seed.clone(), name, settings.operation_limit, changed, &closed)
        };
        let topology = Topology::unknown(connector.seeds().iter().map(start).collect());
        let calls = Arc::new(Self {
            connector: Arc::clone(&connector),
            names: Names::new(&settings.prefix),
            node,
            limit: settings.operation_limit,
            concurrent: settings.concurrent_operations,
            permits: Semaphore::new(settings.concurrent_operations),
            topology: watch::Sender::new(Arc::new(topology)),
            outdated: Notify::new(),
            node_changed,
            away: watch::Sender::new(false),
            cluster: AtomicBool::new(connector.seeds().len() > 1),
            closed,
        });
        calls.give_probes();
        tokio::spawn(Arc::clone(&calls).look_after());
        calls
    }

    fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.borrow())
    }

    /// Whether no node can be asked.
    pub(super) fn is_away(&self) -> bool {
        self.topology.borrow().nodes.iter().all(|node| node.is_away())
    }

    pub(super) fn watch_away(&self) -> watch::Receiver<bool> {
        self.away.subscribe()
    }

    /// Whether calls about this partition are begun at all.
    pub(super) fn is_available(&self, partition: Partition) -> bool {
        self.topology.borrow().node_of(partition).is_some_and(|node| !node.is_away())
    }

    /// Where the partition is, as far as it is known.
    pub(super) fn node_info(&self, partition: Partition) -> Option<ConnectionInfo> {
        self.topology.borrow().node_of(partition).map(|node| node.info().clone())
    }

    /// Names the Redis processes that are talked to, in an order of their own; empty where there is none.
    pub(super) fn processes(&self) -> String {
        let mut processes: Vec<String> = self.topology().nodes.iter().filter_map(|node| node.run_id()).collect();
        processes.sort_unstable();
        processes.join(" ")
    }

    pub(super) fn partitions_away(&self) -> usize {
        Partition::all().filter(|partition| !self.is_available(*partition)).count()
    }

    /// Waits until it is known for the first time where everything is, or that Redis is away.
    pub(super) async fn first_connection(&self) {
        for node in &self.topology().nodes {
            node.first_connection().await;
        }
        if self.topology().nodes.iter().any(|node| node.is_cluster() == Some(true)) {
            self.know_more().await;
        }
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// A heartbeat on the partition's channel.
    pub(super) fn heartbeat(&self, partition: Partition) -> Call {
        Call {
            partition,
            script: &scripts::PUBLISH,
            keys: vec![self.names.sequence(partition), self.names.channel(partition)],
            arguments: vec![envelope::heartbeat(self.node)],
        }
    }

    /// Runs a script where its partition is.
    pub(super) async fn run(&self, call: Call) -> Result<Reply, CacheFault> {
        let operation = call.script.operation;
        let begun = Instant::now();
        let ended = self.run_within_limits(call).await;
        let outcome = match &ended {
            Ok(_) => "ok",
            Err(CacheFault::Away) => "away",
            Err(CacheFault::TimedOut { .. }) => "timed_out",
            Err(CacheFault::Failed { .. }) => "failed",
            Err(CacheFault::Overloaded { .. }) => "overloaded",
            Err(CacheFault::Malformed { .. } | CacheFault::Closed) => "refused",
        };
        metrics::counter!("throughline_cache_calls_total", "operation" => operation, "outcome" => outcome).increment(1);
        metrics::histogram!("throughline_tier_seconds", "tier" => "redis", "operation" => operation)
            .record(begun.elapsed().as_secs_f64());
        ended
    }

    async fn run_within_limits(&self, call: Call) -> Result<Reply, CacheFault> {
        let deadline = tokio::time::Instant::now() + self.limit;
        let _permit = self.permit()?;
        let during = call.script.operation;
        let mut told_once = false;
        loop {
            let topology = self.topology();
            let node = topology.node_of(call.partition).ok_or_else(|| {
                let cause = std::io::Error::other("no node of the Redis cluster serves the slot");
                CacheFault::failed(during, cause)
            })?;
            let attempt = node.admit()?;
            match timeout_at(deadline, node.execute(&call)).await {
                Ok(Ok(reply)) => {
                    node.judge(attempt, None);
                    return Ok(reply);
                }
                Ok(Err(NodeFault::Elsewhere(error))) => {
                    node.judge(attempt, None);
                    // A slot that is just being moved is not followed; the database has it meanwhile.
                    if told_once || timeout_at(deadline, self.know_more()).await.is_err() {
                        self.outdated.notify_one();
                        return Err(CacheFault::failed(during, error));
                    }
                    told_once = true;
                }
                Ok(Err(NodeFault::Failed(fault))) => {
                    node.judge(attempt, Some(&fault));
                    return Err(fault);
                }
                Err(_) => {
                    let fault = CacheFault::TimedOut { during, limit: self.limit };
                    node.judge(attempt, Some(&fault));
                    return Err(fault);
                }
            }
        }
    }

    /// Sends a command that is about no key to any node that works.
    pub(super) async fn ask_any(&self, during: &'static str, command: redis::Cmd) -> Result<Value, CacheFault> {
        let _permit = self.permit()?;
        let topology = self.topology();
        let node = topology.nodes.iter().find(|node| !node.is_away()).ok_or(CacheFault::Away)?;
        let attempt = node.admit()?;
        let ended = match tokio::time::timeout(self.limit, node.ask(during, &command)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(NodeFault::Elsewhere(error))) => Err(CacheFault::failed(during, error)),
            Ok(Err(NodeFault::Failed(fault))) => Err(fault),
            Err(_) => Err(CacheFault::TimedOut { during, limit: self.limit }),
        };
        node.judge(attempt, ended.as_ref().err());
        ended
    }

    fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, CacheFault> {
        if self.closed.is_cancelled() {
            return Err(CacheFault::Closed);
        }
        self.permits.try_acquire().map_err(|_| CacheFault::Overloaded { calls: self.concurrent })
    }

    /// Has the cluster asked for its slots, and waits for what it says.
    pub(super) async fn know_more(&self) {
        let mut topology = self.topology.subscribe();
        self.outdated.notify_one();
        // Cannot fail: the sender is in `self`.
        let _ = topology.changed().await;
    }

    async fn look_after(self: Arc<Self>) {
        let closed = self.closed.clone();
        let looking = async { tokio::join!(self.watch_nodes(), self.follow_cluster()) };
        tokio::select! {
            () = closed.cancelled() => {}
            _ = looking => {}
        }
    }

    async fn watch_nodes(&self) {
        loop {
            self.node_changed.notified().await;
            self.away.send_if_modified(|away| std::mem::replace(away, self.is_away()) != *away);
            #[allow(clippy::cast_precision_loss)] // At most 64.
            metrics::gauge!("throughline_cache_partitions_away").set(self.partitions_away() as f64);
        }
    }

    /// Keeps the topology of a cluster true.
    async fn follow_cluster(&self) {
        loop {
            let again = tokio::time::timeout(ASK_AGAIN_EVERY, self.outdated.notified()).await;
            let some_away = self.topology.borrow().nodes.iter().any(|node| node.is_away());
            // Whoever was told of a move waits for an answer, even if it is the old one.
            if again.is_ok() || (some_away && self.cluster.load(Ordering::Relaxed)) {
                self.ask_for_slots().await;
                tokio::time::sleep(ASK_AT_MOST_EVERY).await;
            }
        }
    }

    /// Asks the nodes that work, and then those that the operator named.
    async fn ask_for_slots(&self) {
        let topology = self.topology();
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        for node in topology.nodes.iter().filter(|node| !node.is_away()) {
            if let Ok(Ok(answer)) = tokio::time::timeout(self.limit, node.ask("slots", &command)).await
                && let Some(served) = read_slots(answer, host_of(node.info()))
            {
                self.adopt(&topology, served);
                return;
            }
        }
        for seed in self.connector.seeds() {
            let asking = async {
                let mut connected = self.connector.connect(seed, Arc::new(|_| ())).await.ok()?;
                ask::<Value>(&mut connected.connection, &command).await.ok()
            };
            if let Some(answer) = asking.await
                && let Some(served) = read_slots(answer, host_of(seed))
            {
                self.adopt(&topology, served);
                return;
            }
        }
        tracing::debug!("no node of the Redis cluster could be asked for its slots");
        // Nothing new, but who waits must not wait longer.
        self.topology.send_modify(|_| ());
    }

    /// Goes over to what the cluster says. Nodes that stay keep their connection and breaker.
    fn adopt(&self, before: &Topology, served: Served) {
        let node = |(host, port): &(String, u16)| {
            let info = self.connector.node_at(host, *port)?;
            let name = node_name(&info);
            let kept = before.nodes.iter().find(|node| node_name(node.info()) == name);
            Some(kept.cloned().unwrap_or_else(|| {
                let (connector, changed) = (Arc::clone(&self.connector), Arc::clone(&self.node_changed));
                Node::start(connector, info, name, self.limit, changed, &self.closed)
            }))
        };
        let Some(nodes) = served.addresses.iter().map(node).collect::<Option<Vec<_>>>() else { return };
        if nodes.is_empty() {
            return;
        }
        self.cluster.store(true, Ordering::Relaxed);
        self.topology.send_replace(Arc::new(Topology::new(nodes, served.served_by)));
        self.give_probes();
        self.node_changed.notify_one();
    }

    /// A node is probed with one of its own partitions.
    fn give_probes(&self) {
        let topology = self.topology();
        for node in &topology.nodes {
            let serves =
                |partition: &Partition| topology.node_of(*partition).is_some_and(|other| Arc::ptr_eq(other, node));
            node.set_probe(Partition::all().find(serves).map(|partition| self.heartbeat(partition)));
        }
    }
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("limit", &self.limit).field("away", &self.is_away()).finish_non_exhaustive()
    }
}

/// What a node of a cluster is called in logs and metrics.
pub(super) fn node_name(info: &ConnectionInfo) -> String {
    format!("redis {}", info.addr())
}

fn host_of(info: &ConnectionInfo) -> &str {
    match info.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
        _ => "",
    }
}
