//! A buyer: the protocol's client from the core, on a real socket, with a storage that survives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use throughline_core::json::{JsonObject, JsonValue};
use throughline_core::sync::{ClientFrame, Confirmation, Output, Replica, Restored, ServerFrame, StorageChange};
use throughline_core::{ClientId, Command, Funnel, SessionId, StepId, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// How long a connection may take, and how long one that says nothing is believed in.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const SILENCE_LIMIT: Duration = Duration::from_secs(3);

/// What a buyer was told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// How many changes were issued.
    pub issued: u64,
    /// Numbers of changes that a server accepted.
    pub accepted: BTreeSet<u64>,
    /// Numbers of changes that the database was said to have.
    pub durable: BTreeSet<u64>,
    /// Numbers of changes that were refused.
    pub rejected: BTreeSet<u64>,
    /// The highest version that was said to be durable.
    pub durable_version: u64,
    /// Frames that told of less than that, whoever sent them.
    pub went_back: u64,
    /// How often it connected.
    pub connections: u64,
    /// How often it could not connect.
    pub failed_connections: u64,
    /// The session as it was shown at the end, if there was one.
    pub shown: Option<serde_json::Value>,
    /// How long a change took to be accepted, each time.
    pub accepted_after: Vec<Duration>,
}

/// Someone who goes on changing a session, whatever happens to the servers.
#[derive(Debug)]
pub struct Buyer {
    /// The session.
    pub session_id: String,
    told: Arc<Mutex<Told>>,
    wishes: watch::Sender<Wishes>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Wishes {
    servers: Vec<String>,
    every: Option<Duration>,
    stop: bool,
}

/// Who a buyer is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The session.
    pub session_id: String,
    /// The secret with which it was created.
    pub claim: String,
    /// The client.
    pub client_id: String,
}

impl Identity {
    /// Somebody new, who will create a session.
    #[must_use]
    pub fn new() -> Self {
        let session_id = SessionId::generate(now(), random()).to_string();
        let claim = random().iter().chain(&random()).map(|byte| format!("{byte:02x}")).collect();
        Self { session_id, claim, client_id: ClientId::generate(random()).to_string() }
    }

    /// The same buyer in another tab.
    #[must_use]
    pub fn another_tab(&self) -> Self {
        Self { client_id: ClientId::generate(random()).to_string(), ..self.clone() }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random numbers");
    bytes
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn funnel() -> Funnel {
    toml::from_str(include_str!("../../core/funnels/default.toml")).expect("the default funnel is one")
}

impl Buyer {
    /// Starts changing a session, one change each `every`, through any of `servers`.
    #[must_use]
    pub fn start(identity: &Identity, servers: &[String], every: Duration) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let (wishes, wished) = watch::channel(Wishes { servers: servers.to_vec(), every: Some(every), stop: false });
        let life = Life::new(identity, Arc::clone(&told), wished);
        let task = tokio::spawn(life.live());
        Self { session_id: identity.session_id.clone(), told, wishes, task }
    }

    /// What it was told so far.
    #[must_use]
    pub fn told(&self) -> Told {
        lock(&self.told).clone()
    }

    /// From the next connection on it uses these servers.
    pub fn use_servers(&self, servers: &[String]) {
        self.wishes.send_modify(|wishes| wishes.servers = servers.to_vec());
    }

    /// It issues no more changes, and goes on until each is settled; `false` where that takes longer than `limit`.
    pub async fn settle(&self, limit: Duration) -> bool {
        self.wishes.send_modify(|wishes| wishes.every = None);
        let deadline = Instant::now() + limit;
        loop {
            {
                let told = lock(&self.told);
                let settled = told.durable.union(&told.rejected).count() as u64;
                if settled == told.issued {
                    return true;
                }
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// It goes away for good; what it was told.
    pub async fn leave(self) -> Told {
        self.wishes.send_modify(|wishes| wishes.stop = true);
        let _ = self.task.await;
        lock(&self.told).clone()
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

struct Life {
    replica: Replica,
    told: Arc<Mutex<Told>>,
    wished: watch::Receiver<Wishes>,
    /// The number of the change that each command made, and when it was issued.
    changes: BTreeMap<u64, (u64, Instant)>,
    next_change: u64,
    next_server: usize,
    retry_at: Option<Instant>,
}

impl Life {
    fn new(identity: &Identity, told: Arc<Mutex<Told>>, wished: watch::Receiver<Wishes>) -> Self {
        let session_id = SessionId::new(identity.session_id.as_str()).expect("it was generated");
        let client_id = ClientId::new(identity.client_id.as_str()).expect("it was generated");
        let restored = Restored { claim: Some(identity.claim.clone()), ..Restored::default() };
        let mut replica = Replica::new(session_id, client_id, restored);
        replica.set_funnel(funnel(), String::new());
        let next_server = usize::from(random()[0]);
        Self { replica, told, wished, changes: BTreeMap::new(), next_change: 0, next_server, retry_at: None }
    }

    async fn live(mut self) {
        loop {
            let wishes = self.wished.borrow().clone();
            if wishes.stop {
                let shown = self.replica.session().and_then(|session| serde_json::to_value(session).ok());
                lock(&self.told).shown = shown;
                return;
            }
            self.next_server = self.next_server.wrapping_add(1);
            let server = &wishes.servers[self.next_server % wishes.servers.len()];
            match tokio::time::timeout(CONNECT_LIMIT, connect(server)).await {
                Ok(Ok(socket)) => {
                    lock(&self.told).connections += 1;
                    self.converse(socket).await;
                    self.replica.disconnected();
                }
                _ => {
                    lock(&self.told).failed_connections += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            self.replica.take_outputs();
        }
    }

    /// One connection, until it ends.
    async fn converse(&mut self, mut socket: Socket) {
        self.replica.connected();
        let mut heard = Instant::now();
        let mut due = tokio::time::Instant::now();
        let mut asked = Instant::now();
        loop {
            if !self.perform(&mut socket).await {
                return;
            }
            let wishes = self.wished.borrow().clone();
            if wishes.stop {
                let _ = socket.close(None).await;
                return;
            }
            // The clock looks for silence and for retries even where nothing is to be issued.
            let tick = Duration::from_millis(50);
            let issue_at = wishes.every.map_or(tokio::time::Instant::now() + tick, |_| due);
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        heard = Instant::now();
                        match serde_json::from_str::<ServerFrame>(&text) {
                            Ok(frame) => self.handle(frame),
                            Err(error) => panic!("a server sent {text}: {error}"),
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => heard = Instant::now(),
                },
                () = tokio::time::sleep_until(issue_at) => {
                    if let Some(every) = wishes.every {
                        // Never to catch up: on a busy machine that would be more work the less gets done.
                        due = tokio::time::Instant::now() + every;
                        self.issue();
                    }
                }
            }
            if self.retry_at.is_some_and(|at| Instant::now() >= at) {
                self.retry_at = None;
                self.replica.retry();
            }
            if heard.elapsed() > SILENCE_LIMIT {
                return;
            }
            if asked.elapsed() > SILENCE_LIMIT / 3 {
                asked = Instant::now();
                if send(&mut socket, &ClientFrame::Ping {}).await.is_err() {
                    return;
                }
            }
        }
    }

    fn handle(&mut self, frame: ServerFrame) {
        // What was only accepted may lose against another history, which a snapshot then tells; going back by that is no
        // fault. What is durable is part of the session for ever, whoever tells of it: no snapshot may have less.
        let mut told = lock(&self.told);
        match &frame {
            ServerFrame::Durable { version } => {
                told.went_back += u64::from(*version < told.durable_version);
                told.durable_version = told.durable_version.max(*version);
            }
            ServerFrame::Snapshot { state } => told.went_back += u64::from(state.version() < told.durable_version),
            _ => {}
        }
        drop(told);
        self.replica.handle(frame);
    }

    fn issue(&mut self) {
        let command = match self.replica.session() {
            None => Command::Create(Box::default()),
            Some(session) if self.next_change % 7 == 6 => {
                // Something strict in between, and back.
                let is_checkout = session.current_step.as_str() == "checkout";
                let step = StepId::new("checkout").expect("it is one");
                if is_checkout { self.change() } else { Command::GoToStep { step } }
            }
            Some(_) => self.change(),
        };
        let is_change = matches!(command, Command::SetMetadata { .. });
        let Ok(seq) = self.replica.submit(command, now()) else { return };
        if is_change {
            self.changes.insert(seq, (self.next_change, Instant::now()));
            self.next_change += 1;
            lock(&self.told).issued += 1;
        }
    }

    /// Sets a metadata key of its own, named after the change.
    fn change(&self) -> Command {
        let text = format!("{}-{}", self.replica.client_id(), self.next_change);
        Command::SetMetadata { metadata: JsonObject::from([("change".to_owned(), JsonValue::String(text))]) }
    }

    /// Carries out what the replica wants; `false` when the connection is over.
    async fn perform(&mut self, socket: &mut Socket) -> bool {
        loop {
            let outputs = self.replica.take_outputs();
            if outputs.is_empty() {
                return true;
            }
            for output in outputs {
                match output {
                    Output::Send(frame) => {
                        if send(socket, &frame).await.is_err() {
                            return false;
                        }
                    }
                    // This storage never fails.
                    Output::Store { changes, .. } => {
                        let stored = changes.iter().filter_map(|change| match change {
                            StorageChange::PutCommand(_, command) => Some(command.seq),
                            _ => None,
                        });
                        if let Some(seq) = stored.max() {
                            let client_id = self.replica.client_id().clone();
                            self.replica.commands_stored(&client_id, seq);
                        }
                    }
                    Output::Confirmed { seq, confirmation, .. } => self.note(seq, &confirmation),
                    Output::RetryAfter(after) => self.retry_at = Some(Instant::now() + Duration::from_millis(after)),
                    Output::Refused { retry_after_ms, .. } => {
                        tokio::time::sleep(Duration::from_millis(retry_after_ms.unwrap_or(100).min(1000))).await;
                        return false;
                    }
                    // It has no other tabs.
                    Output::Announce { .. } | Output::Relay { .. } | Output::Missing(_) => {}
                    Output::Changed
                    | Output::Applied(_)
                    | Output::ServerTime(_)
                    | Output::Token(_)
                    | Output::CookieDue => {}
                }
            }
        }
    }

    fn note(&self, seq: u64, confirmation: &Confirmation) {
        let Some((change, issued)) = self.changes.get(&seq).copied() else { return };
        let mut told = lock(&self.told);
        match confirmation {
            Confirmation::Accepted(_) => {
                if told.accepted.insert(change) {
                    told.accepted_after.push(issued.elapsed());
                }
            }
            Confirmation::Durable(_) => drop(told.durable.insert(change)),
            Confirmation::Rejected { .. } => drop(told.rejected.insert(change)),
        }
    }
}

async fn connect(server: &str) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
    let mut request = format!("ws://{server}/v1/sync").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("throughline.v1"));
    Ok(tokio_tungstenite::connect_async(request).await?.0)
}

async fn send(socket: &mut Socket, frame: &ClientFrame) -> Result<(), ()> {
    let text = serde_json::to_string(frame).map_err(drop)?;
    socket.send(Message::text(text)).await.map_err(drop)
}
