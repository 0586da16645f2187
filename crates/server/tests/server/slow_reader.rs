//! Followers that do not read what they are sent.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use throughline_core::json::{JsonObject, JsonValue};
use throughline_core::sync::{
    ClientFrame, Confirmation, ErrorCode, Output, Replica, Restored, ServerFrame, StorageChange,
};
use throughline_core::{ClientId, Command, Session, SessionId, Timestamp};
use throughline_test_services::fleet::{Fleet, Node};
use throughline_test_services::promises;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::fleets::*;

/// How much is on its way to a follower before the server's queue for it begins to fill: what the operating system
/// keeps at both ends, of which this is the most that Linux does unless it is told otherwise.
const ON_THE_WAY: usize = 4 * 1024 * 1024;

/// How many frames the server keeps for a follower.
const QUEUE: usize = throughline_server::sessions::PEER_QUEUE;

/// How large changes are that fill the way.
const LARGE: usize = 15 * 1024;

/// How long a server waits for one message to be taken.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// Nobody waits longer than this for anything because of somebody else.
const SOON: Duration = Duration::from_secs(2);

/// The protocol's client from the core, which reads only when it is told to.
struct Client {
    replica: Replica,
    socket: WebSocketStream<TcpStream>,
    accepted: u64,
}

/// How a conversation ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The server said why, and closed with this code.
    Closed(Option<ErrorCode>, u16),
    /// The connection broke.
    Broken,
}

async fn connect(node: &Node, has_room: bool) -> WebSocketStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    if !has_room {
        // As little as the operating system allows.
        socket.set_recv_buffer_size(1).unwrap();
    }
    let stream = socket.connect(node.address.parse().unwrap()).await.unwrap();
    let mut request = format!("ws://{}/v1/sync", node.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("throughline.v1"));
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

impl Client {
    /// Follows a session from here on. `has_room`: for what is on its way.
    async fn follow(node: &Node, (id, token): (&str, &str), name: &str, has_room: bool) -> Self {
        let restored = Restored { token: Some(token.to_owned()), ..Restored::default() };
        let replica = Replica::new(SessionId::new(id).unwrap(), ClientId::new(name).unwrap(), restored);
        let mut client = Self { replica, socket: connect(node, has_room).await, accepted: 0 };
        client.greet().await;
        client
    }

    /// The same on a new connection.
    async fn come_back(&mut self, node: &Node) {
        self.replica.disconnected();
        self.socket = connect(node, true).await;
        self.greet().await;
    }

    async fn greet(&mut self) {
        self.replica.connected();
        self.perform().await;
    }

    /// Carries out what the replica wants.
    async fn perform(&mut self) {
        loop {
            let outputs = self.replica.take_outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Send(frame) => self.send(&frame).await,
                    Output::Store { changes, .. } => {
                        let stored = changes.iter().filter_map(|change| match change {
                            StorageChange::PutCommand(_, command) => Some(command.seq),
                            _ => None,
                        });
                        let client_id = self.replica.client_id().clone();
                        stored.max().into_iter().for_each(|seq| self.replica.commands_stored(&client_id, seq));
                    }
                    Output::Confirmed { seq, confirmation: Confirmation::Accepted(_), .. } => self.accepted = seq,
                    Output::Confirmed { confirmation: Confirmation::Rejected { reason, .. }, .. } => {
                        panic!("{reason:?}")
                    }
                    _ => {}
                }
            }
        }
    }

    async fn send(&mut self, frame: &ClientFrame) {
        self.socket.send(Message::text(serde_json::to_string(frame).unwrap())).await.unwrap();
    }

    /// Reads what comes next.
    async fn read(&mut self) -> Result<(), End> {
        let mut said = None;
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text).unwrap() {
                    ServerFrame::Error { code, .. } => said = Some(code),
                    frame => {
                        self.replica.handle(frame);
                        self.perform().await;
                        return Ok(());
                    }
                },
                Some(Ok(Message::Close(Some(close)))) => return Err(End::Closed(said, close.code.into())),
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Err(End::Broken),
                Some(Ok(_)) => {}
            }
        }
    }

    /// Reads until it has this version.
    async fn reach(&mut self, version: u64) {
        let reached = async {
            while self.replica.confirmed_version() < version {
                self.read().await.unwrap();
            }
        };
        tokio::time::timeout(LONG, reached).await.expect("it catches up");
    }

    /// Reads until the end.
    async fn drain(&mut self) -> End {
        let ended = async {
            loop {
                if let Err(end) = self.read().await {
                    return end;
                }
            }
        };
        tokio::time::timeout(LONG, ended).await.expect("it ends")
    }

    /// Changes something and waits until it is accepted.
    async fn change(&mut self, number: usize, bytes: usize) {
        let text = format!("{number:0>bytes$}");
        let metadata = JsonObject::from([("change".to_owned(), JsonValue::String(text))]);
        let seq = self.replica.submit(Command::SetMetadata { metadata }, now()).unwrap();
        let accepted = async {
            self.perform().await;
            while self.accepted < seq {
                self.read().await.unwrap();
            }
        };
        tokio::time::timeout(LONG, accepted).await.expect("it is accepted");
    }

    fn session(&self) -> &Session {
        self.replica.session().unwrap()
    }
}

/// A new session, and its token.
async fn session(fleet: &Fleet, node: &Node) -> (String, String) {
    let answer = post(fleet, node, "/v1/sessions", &json!({})).send().await.unwrap().json::<Value>().await.unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&answer["session"]["id"]), text(&answer["token"]))
}

async fn sockets(node: &Node) -> f64 {
    node.metric("throughline_sockets").await.unwrap()
}

#[tokio::test]
async fn a_follower_that_does_not_read_is_cut_off_disturbs_nobody_and_catches_up() {
    let fleet = fleet();
    let (here, there) = (fleet.node("here", &[]).unwrap(), fleet.node("there", &[]).unwrap());
    let (id, token) = session(&fleet, &here).await;
    let of = (&*id, &*token);
    let mut writer = Client::follow(&there, of, "writer", true).await;
    writer.reach(1).await;
    let mut neighbour = Client::follow(&here, of, "neighbour", true).await;
    neighbour.reach(1).await;
    let (sockets_before, connections_before) =
        (sockets(&here).await, here.metric("throughline_connections").await.unwrap());
    let mut late = Client::follow(&here, of, "late", false).await;
    late.reach(1).await;
    let mut never = Client::follow(&here, of, "never", false).await;
    never.reach(1).await;
    assert_eq!(sockets(&here).await, sockets_before + 2.0);

    // More than fits into the way and the queue. The neighbour, at the same server, sees each change at once.
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    let filling = ON_THE_WAY / LARGE;
    let changes = filling + QUEUE;
    for number in 1..=changes {
        let changed = Instant::now();
        writer.change(number, if number <= filling { LARGE } else { 0 }).await;
        neighbour.reach(writer.replica.confirmed_version()).await;
        slowest = slowest.max(changed.elapsed());
    }
    assert!(slowest < SOON, "the slowest change took {slowest:?}");
    let latest = writer.replica.confirmed_version();
    assert_eq!(neighbour.replica.confirmed_version(), latest);

    // One that begins to read is told why it has lost its queue, and that it may come back.
    let is_in_time = begun.elapsed() < SEND_LIMIT;
    let end = late.drain().await;
    let is_told = end == End::Closed(Some(ErrorCode::SlowReader), 1008);
    assert!(is_told || (end == End::Broken && !is_in_time), "{end:?}");
    assert!(late.replica.confirmed_version() < latest, "it had lost something");
    // One that never does is not waited for.
    until("its socket is closed", SEND_LIMIT + SOON, async || sockets(&here).await == sockets_before).await;
    until("its connection is closed", SOON, async || {
        here.metric("throughline_connections").await.unwrap() <= connections_before
    })
    .await;
    assert_eq!(never.drain().await, End::Broken);
    assert!(never.replica.confirmed_version() < latest);

    // The others go on, and whoever comes back has what they have.
    writer.change(changes + 1, 0).await;
    let latest = writer.replica.confirmed_version();
    for client in [&mut late, &mut never] {
        client.come_back(&here).await;
        client.reach(latest).await;
        assert_eq!(client.session(), writer.session());
    }
    for node in [&here, &there] {
        let shown = promises::session(&fleet, node, &id).await.unwrap();
        assert_eq!(shown["version"], latest);
        assert_eq!(shown["metadata"]["change"], *(changes + 1).to_string());
    }
}
