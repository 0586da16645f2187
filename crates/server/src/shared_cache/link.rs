//! The link: what other servers say, and whether anything of it may have been missed.
//!
//! Each partition has a channel. Every message on it carries the partition's next number, and
//! a partition that is silent gets a heartbeat, so both a lost message and a dead connection
//! are found within a second even where the socket looks fine. A partition's link is *up* while
//! neither happened. When it is interrupted, its generation grows, and whatever was cached
//! under the old generation is worth nothing.
//!
//! A connection with the subscriptions of some partitions is a *strand*; usually there is one
//! to each node. Partitions that stay silent are carried by the node's strand if others are heard
//! over it, and by a new one if not; a strand without partitions is dropped. A message counts only if it comes from the
//! strand that its partition belongs to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, ErrorKind, PushInfo, PushKind, RedisError, ServerErrorKind, Value};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::calls::{Calls, node_name};
use super::connection::{Connector, ask};
use super::corruption::{Corruption, Kind};
use super::envelope::{self, NodeId};
use super::fault::ConnectFault;
use super::partition::{Names, PARTITIONS, Partition};
use crate::problem::chain;
use crate::store::SessionKey;

/// Silence that interrupts a partition's link.
pub const SILENCE: Duration = Duration::from_secs(1);

/// Silence after which a heartbeat is sent.
pub const HEARTBEAT_AFTER: Duration = Duration::from_millis(400);

/// How often the partitions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long subscribing to all of a strand's channels may take.
const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(1);

/// The wait after an attempt at a new strand; doubles up to the longest while they fail.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Whether everything that is said about a session is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether nothing was missed since the generation began.
    pub up: bool,
    /// Grows with each interruption.
    pub generation: u64,
}

/// What the tier reports by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheEvent {
    /// Another server published something about a session.
    Message {
        /// The session.
        key: SessionKey,
        /// What was published.
        payload: Bytes,
    },
    /// Messages of a partition may have been missed. None arrive until it is restored.
    Interrupted {
        /// Which partition.
        partition: Partition,
    },
    /// From here on, no message of the partition is missed.
    Restored {
        /// Which partition.
        partition: Partition,
    },
}

pub(super) struct LinkBoard {
    names: Names,
    node: NodeId,
    started: Instant,
    partitions: Vec<Part>,
    events: mpsc::Sender<CacheEvent>,
    strands: Mutex<HashMap<u64, Strand>>,
    last_strand: AtomicU64,
    corruption: Arc<Corruption>,
}

/// A connection with subscriptions.
#[derive(Clone)]
struct Strand {
    node: String,
    connection: MultiplexedConnection,
}

/// One partition. What is asked on every cached read is in atomics.
#[derive(Default)]
struct Part {
    /// `generation * 2 + up`.
    state: AtomicU64,
    /// When the last message arrived, in milliseconds after `started`.
    heard_ms: AtomicU64,
    /// Redis' time when the link came up.
    up_since_us: AtomicU64,
    hearing: Mutex<Hearing>,
}

#[derive(Default)]
struct Hearing {
    /// Whose messages count; 0 for no one's.
    strand: u64,
    /// When it was subscribed to, in milliseconds after `started`.
    subscribed_ms: u64,
    /// The last message's incarnation and number. `None` after an interruption: whatever comes
    /// next is the beginning.
    last: Option<(u64, u64)>,
    /// Who receives the events was not yet told of an interruption, for want of space.
    owes_interruption: bool,
    /// Whether who receives the events believes it to be up.
    told_up: bool,
}

impl LinkBoard {
    pub(super) fn new(
        names: Names,
        node: NodeId,
        event_queue: usize,
        corruption: Arc<Corruption>,
    ) -> (Arc<Self>, mpsc::Receiver<CacheEvent>) {
        let (events, receiver) = mpsc::channel(event_queue.max(1));
        let board = Self {
            names,
            node,
            started: Instant::now(),
            partitions: (0..PARTITIONS).map(|_| Part::default()).collect(),
            events,
            strands: Mutex::default(),
            last_strand: AtomicU64::new(0),
            corruption,
        };
        (Arc::new(board), receiver)
    }

    #[allow(clippy::cast_possible_truncation)] // Half a billion years.
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn part(&self, partition: Partition) -> &Part {
        // A partition's number is below the number of partitions.
        &self.partitions[partition.index()]
    }

    pub(super) fn link(&self, partition: Partition) -> Link {
        let part = self.part(partition);
        let state = part.state.load(Ordering::Acquire);
        // Whoever looks after the silence may itself be late.
        let silent = self.now_ms().saturating_sub(part.heard_ms.load(Ordering::Acquire)) >= millis(SILENCE);
        Link { up: state & 1 == 1 && !silent, generation: state >> 1 }
    }

    /// Redis' time when the partition's link came up, while it is up.
    pub(super) fn up_since_us(&self, partition: Partition) -> Option<u64> {
        self.link(partition).up.then(|| self.part(partition).up_since_us.load(Ordering::Acquire))
    }

    pub(super) fn partitions_up(&self) -> usize {
        Partition::all().filter(|partition| self.link(*partition).up).count()
    }

    fn received(&self, strand: u64, push: PushInfo) {
        match push.kind {
            PushKind::SMessage => {
                let mut data = push.data.into_iter();
                let (Some(Value::BulkString(channel)), Some(Value::BulkString(body))) = (data.next(), data.next())
                else {
                    return;
                };
                let Some(partition) = self.names.partition_of_channel(&channel) else { return };
                match envelope::open(body) {
                    Some(envelope) => self.heard(partition, strand, envelope),
                    // It has no number, so nothing is missing because of it.
                    None => self.corruption.found(Kind::Message, partition),
                }
            }
            // The partition's slot moved to another node.
            PushKind::SUnsubscribe => {
                if let Some(Value::BulkString(channel)) = push.data.first()
                    && let Some(partition) = self.names.partition_of_channel(channel)
                {
                    self.let_go(partition, strand);
                }
            }
            PushKind::Disconnection => self.disconnected(strand),
            _ => {}
        }
    }

    fn heard(&self, partition: Partition, strand: u64, envelope: envelope::Envelope) {
        let part = self.part(partition);
        let mut hearing = part.hearing();
        if hearing.strand != strand {
            return;
        }
        let now_ms = self.now_ms();
        let silent = now_ms.saturating_sub(part.heard_ms.load(Ordering::Acquire)) >= millis(SILENCE);
        let follows = hearing.last.is_none_or(|(incarnation, number)| {
            !silent && envelope.incarnation == incarnation && Some(envelope.number) == number.checked_add(1)
        });
        if !follows {
            self.interrupt(partition, part, &mut hearing);
        }
        hearing.last = Some((envelope.incarnation, envelope.number));
        part.heard_ms.store(now_ms, Ordering::Release);
        if !hearing.told_up && !self.bring_up(partition, part, &mut hearing, envelope.sent_us) {
            hearing.last = None;
            return;
        }
        if let Some((key, payload)) = envelope.message
            && envelope.node != self.node
            && self.events.try_send(CacheEvent::Message { key, payload }).is_err()
        {
            metrics::counter!("throughline_cache_events_lost_total").increment(1);
            self.interrupt(partition, part, &mut hearing);
        }
    }

    /// Tells the receiver what it has not heard yet, and then counts the link as up. Not when
    /// there is no space for that: the next message tries again.
    fn bring_up(&self, partition: Partition, part: &Part, hearing: &mut Hearing, sent_us: u64) -> bool {
        if hearing.owes_interruption {
            if self.events.try_send(CacheEvent::Interrupted { partition }).is_err() {
                return false;
            }
            hearing.owes_interruption = false;
        }
        if self.events.try_send(CacheEvent::Restored { partition }).is_err() {
            return false;
        }
        hearing.told_up = true;
        part.up_since_us.store(sent_us, Ordering::Release);
        part.state.fetch_or(1, Ordering::AcqRel);
        true
    }

    /// Does nothing for a partition that is down: it has been interrupted, or was never up.
    fn interrupt(&self, partition: Partition, part: &Part, hearing: &mut Hearing) {
        hearing.last = None;
        if !hearing.told_up {
            return;
        }
        hearing.told_up = false;
        // The next generation, and not up. Only this lock's holder changes it.
        let state = part.state.load(Ordering::Acquire);
        part.state.store(((state >> 1) + 1) << 1, Ordering::Release);
        hearing.owes_interruption = self.events.try_send(CacheEvent::Interrupted { partition }).is_err();
        metrics::counter!("throughline_cache_link_interruptions_total").increment(1);
    }

    /// The strand no longer carries the partition.
    fn let_go(&self, partition: Partition, strand: u64) {
        let part = self.part(partition);
        let mut hearing = part.hearing();
        if hearing.strand == strand {
            hearing.strand = 0;
            self.interrupt(partition, part, &mut hearing);
        }
    }

    fn disconnected(&self, strand: u64) {
        for partition in Partition::all() {
            self.let_go(partition, strand);
        }
    }

    /// Interrupts what is silent; tells which partitions need a new strand, and which a heartbeat.
    fn look(&self) -> (Vec<Partition>, Vec<Partition>) {
        let now_ms = self.now_ms();
        let (mut unheard, mut quiet) = (Vec::new(), Vec::new());
        for partition in Partition::all() {
            let part = self.part(partition);
            let mut hearing = part.hearing();
            let heard_ms = part.heard_ms.load(Ordering::Acquire);
            let silent_ms = now_ms.saturating_sub(heard_ms);
            if silent_ms >= millis(SILENCE) {
                self.interrupt(partition, part, &mut hearing);
                if now_ms.saturating_sub(hearing.subscribed_ms) >= millis(SILENCE) {
                    hearing.strand = 0;
                }
            }
            if hearing.strand == 0 {
                unheard.push(partition);
            }
            // Heartbeats are also how a node is found to be away while nobody asks it anything.
            if silent_ms >= millis(HEARTBEAT_AFTER) {
                quiet.push(partition);
            }
        }
        (unheard, quiet)
    }

    fn strands(&self) -> MutexGuard<'_, HashMap<u64, Strand>> {
        // Nothing panics while it is held; if something did, the map would still be whole.
        self.strands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_empty_strands(&self) {
        let used: Vec<u64> = self.partitions.iter().map(|part| part.hearing().strand).collect();
        self.strands().retain(|strand, _| used.contains(strand));
    }

    /// The strand to a node that something was heard over just now, if there is one.
    fn live_strand(&self, node: &str) -> Option<(u64, MultiplexedConnection)> {
        let heard = Partition::all().filter(|partition| self.link(*partition).up);
        let ids: Vec<u64> = heard.map(|partition| self.part(partition).hearing().strand).collect();
        let strands = self.strands();
        let (id, strand) = strands.iter().find(|(id, strand)| strand.node == node && ids.contains(id))?;
        Some((*id, strand.connection.clone()))
    }

    /// Has `partitions` carried by a strand to their node: the one that works, or a new one.
    /// Those that could be subscribed to belong to it then.
    async fn carry(
        self: &Arc<Self>,
        node: &ConnectionInfo,
        partitions: &[Partition],
        connector: &Connector,
    ) -> Result<Vec<Partition>, ConnectFault> {
        let name = node_name(node);
        let (strand, connection) = match self.live_strand(&name) {
            Some(live) => live,
            None => {
                let strand = self.last_strand.fetch_add(1, Ordering::Relaxed) + 1;
                let board: Weak<Self> = Arc::downgrade(self);
                let pushes = Arc::new(move |push: PushInfo| {
                    if let Some(board) = board.upgrade() {
                        board.received(strand, push);
                    }
                });
                (strand, connector.connect(node, pushes).await?.connection)
            }
        };
        let subscribing = partitions.iter().map(|partition| {
            let mut connection = connection.clone();
            async move {
                {
                    // Before Redis is asked: messages may follow on its answer at once.
                    let mut hearing = self.part(*partition).hearing();
                    hearing.strand = strand;
                    hearing.subscribed_ms = self.now_ms();
                    hearing.last = None;
                }
                let mut command = redis::cmd("SSUBSCRIBE");
                command.arg(self.names.channel(*partition));
                let subscribed = ask::<Value>(&mut connection, &command).await;
                if subscribed.is_err() {
                    self.let_go(*partition, strand);
                }
                subscribed.map(|_| *partition)
            }
        });
        let outcomes = match tokio::time::timeout(SUBSCRIBE_LIMIT, futures_util::future::join_all(subscribing)).await {
            Ok(outcomes) => outcomes,
            Err(_) => {
                for partition in partitions {
                    self.let_go(*partition, strand);
                }
                return Err(ConnectFault::TimedOut { limit: SUBSCRIBE_LIMIT });
            }
        };
        // Not before it carries something: without that it would be dropped.
        self.strands().insert(strand, Strand { node: name, connection });
        let subscribed = outcomes.iter().flatten().copied().collect();
        match outcomes.into_iter().find_map(Result::err) {
            // Some stay with the strand all the same; the others are tried again.
            Some(error) => Err(ConnectFault::Connection(error)),
            None => Ok(subscribed),
        }
    }
}

impl std::fmt::Debug for LinkBoard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkBoard").field("partitions_up", &self.partitions_up()).finish_non_exhaustive()
    }
}

impl Part {
    fn hearing(&self) -> MutexGuard<'_, Hearing> {
        // Nothing panics while it is held; if something did, the next message would find a gap.
        self.hearing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(clippy::cast_possible_truncation)] // Constants of a second or less.
const fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// Looks after the link until the tier is closed.
pub(super) async fn look_after(board: Arc<LinkBoard>, calls: Arc<Calls>, connector: Arc<Connector>) {
    let closed = calls.closed().clone();
    let looking = async {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut making: HashMap<String, Making> = HashMap::new();
        let beating = Arc::new(AtomicBool::new(false));
        loop {
            ticks.tick().await;
            let (unheard, quiet) = board.look();
            board.drop_empty_strands();
            #[allow(clippy::cast_precision_loss)] // At most 64.
            metrics::gauge!("throughline_cache_partitions_linked").set(board.partitions_up() as f64);
            let mut by_node: HashMap<String, (ConnectionInfo, Vec<Partition>)> = HashMap::new();
            for partition in unheard {
                if let Some(node) = calls.node_info(partition) {
                    by_node.entry(node_name(&node)).or_insert((node, Vec::new())).1.push(partition);
                }
            }
            making.retain(|node, making| by_node.contains_key(node) || making.is_running());
            for (name, (node, partitions)) in by_node {
                making.entry(name).or_default().begin(&board, &calls, &connector, node, partitions);
            }
            if !quiet.is_empty() {
                beat(&calls, &beating, quiet);
            }
        }
    };
    tokio::select! {
        () = closed.cancelled() => {}
        () = looking => {}
    }
    board.strands().clear();
}

/// Attempts at new strands to one node: one at a time, with growing waits between those that fail.
#[derive(Default, Clone)]
struct Making(Arc<Mutex<Attempts>>);

#[derive(Default)]
struct Attempts {
    running: bool,
    not_before: Option<Instant>,
    wait: Duration,
}

impl Making {
    fn is_running(&self) -> bool {
        self.attempts().running
    }

    fn begin(
        &self,
        board: &Arc<LinkBoard>,
        calls: &Arc<Calls>,
        connector: &Arc<Connector>,
        node: ConnectionInfo,
        unheard: Vec<Partition>,
    ) {
        {
            let mut attempts = self.attempts();
            if attempts.running || attempts.not_before.is_some_and(|instant| Instant::now() < instant) {
                return;
            }
            attempts.running = true;
        }
        let (making, board) = (self.clone(), Arc::clone(board));
        let (calls, connector) = (Arc::clone(calls), Arc::clone(connector));
        tokio::spawn(async move {
            let closed = calls.closed().clone();
            let made = tokio::select! {
                () = closed.cancelled() => return,
                made = board.carry(&node, &unheard, &connector) => made,
            };
            making.end(made.is_ok());
            match made {
                // The first message brings a partition up: not to wait until it is due.
                Ok(subscribed) => heartbeats(&calls, subscribed).await,
                Err(fault) => {
                    tracing::debug!(node = %node.addr(), error = %chain(&fault), "a link to Redis was not made");
                    if matches!(&fault, ConnectFault::Connection(error) if moved(error)) {
                        calls.know_more().await;
                    }
                }
            }
        });
    }

    fn end(&self, made: bool) {
        let mut attempts = self.attempts();
        attempts.running = false;
        attempts.wait = if made { SHORTEST_WAIT } else { (attempts.wait * 2).clamp(SHORTEST_WAIT, LONGEST_WAIT) };
        attempts.not_before = Some(Instant::now() + attempts.wait);
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        // Nothing panics while it is held; if something did, the fields would still be sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn moved(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::Moved)
}

/// Sends heartbeats, unless some are still under way.
fn beat(calls: &Arc<Calls>, beating: &Arc<AtomicBool>, quiet: Vec<Partition>) {
    if beating.swap(true, Ordering::AcqRel) {
        return;
    }
    let (calls, beating) = (Arc::clone(calls), Arc::clone(beating));
    tokio::spawn(async move {
        heartbeats(&calls, quiet).await;
        beating.store(false, Ordering::Release);
    });
}

async fn heartbeats(calls: &Calls, partitions: Vec<Partition>) {
    // Each fails by itself, and what that means is the breaker's concern.
    let beats = partitions.into_iter().map(|partition| calls.run(calls.heartbeat(partition)));
    futures_util::future::join_all(beats).await;
}
