//! Commands over WebSockets, and what an idle socket costs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use throughline_test_services::buyer::Identity;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

type Stream = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A socket that follows a session.
pub struct Socket {
    stream: Stream,
    client_id: String,
    seq: u64,
}

impl Socket {
    /// Opens one and says hello; creates the session where that is wanted.
    pub async fn open(address: &str, identity: &Identity, creates: bool) -> Result<Self> {
        let mut request = format!("ws://{address}/v1/sync").into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("throughline.v1"));
        let (stream, _) = tokio_tungstenite::connect_async(request).await?;
        let mut socket = Self { stream, client_id: identity.client_id.clone(), seq: 0 };
        let hello = json!({ "type": "hello", "protocol": 1, "sessionId": identity.session_id, "clientId": identity.client_id,
            "knownVersion": 0, "claim": identity.claim });
        socket.send(&hello).await?;
        socket.next("welcome").await?;
        if creates {
            socket.command(json!({ "type": "create" })).await?;
        }
        Ok(socket)
    }

    async fn send(&mut self, frame: &Value) -> Result<()> {
        Ok(self.stream.send(Message::text(frame.to_string())).await?)
    }

    async fn next(&mut self, wanted: &str) -> Result<()> {
        loop {
            match self.stream.next().await.context("the socket was closed")?? {
                Message::Text(text) => {
                    // Without reading the whole frame: that is not what is measured.
                    let kind = text.split_once("\"type\":\"").and_then(|(_, rest)| rest.split('"').next());
                    match kind {
                        Some(kind) if kind == wanted => return Ok(()),
                        Some("error" | "rejected" | "busy") => bail!("{text}"),
                        _ => {}
                    }
                }
                Message::Close(frame) => bail!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Sends a command and waits until it is accepted.
    pub async fn command(&mut self, command: Value) -> Result<()> {
        self.seq += 1;
        let mut numbered = json!({ "clientId": self.client_id, "seq": self.seq });
        if let (Some(all), Value::Object(more)) = (numbered.as_object_mut(), command) {
            all.extend(more);
        }
        self.send(&json!({ "type": "submit", "commands": [numbered] })).await?;
        self.next("accepted").await
    }

    /// Reads whatever comes, so that pings are answered, until the socket ends.
    pub async fn idle(mut self) {
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}

/// Each of so many sockets sends a command as soon as the one before was accepted.
pub async fn commands(address: &str, sockets: usize, duration: Duration) -> Result<(f64, Histogram<u64>)> {
    let mut opened = Vec::new();
    for _ in 0..sockets {
        opened.push(Socket::open(address, &Identity::new(), true).await?);
    }
    let started = Instant::now();
    let mut tasks = Vec::new();
    for mut socket in opened {
        tasks.push(tokio::spawn(async move {
            let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
            let mut number = 0_u64;
            while started.elapsed() < duration {
                number += 1;
                let asked = Instant::now();
                socket.command(json!({ "type": "setEmail", "email": format!("ada-{number}@example.com") })).await?;
                latencies.record(asked.elapsed().as_nanos() as u64)?;
            }
            Ok::<_, anyhow::Error>(latencies)
        }));
    }
    let mut latencies = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    for task in tasks {
        latencies.add(task.await??)?;
    }
    Ok((latencies.len() as f64 / started.elapsed().as_secs_f64(), latencies))
}

/// What a process holds in memory, in bytes.
pub fn resident(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("there is no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024.0)
}

/// Memory of the server for each socket that follows a session and does nothing, in bytes. 25 sockets share a session.
pub async fn idle_bytes(address: &str, process: u32, sockets: usize) -> Result<f64> {
    const SHARED_BY: usize = 25;
    let mut identities = Vec::new();
    // The sessions first, so that only the sockets are counted.
    for _ in 0..sockets.div_ceil(SHARED_BY) {
        let identity = Identity::new();
        drop(Socket::open(address, &identity, true).await?);
        identities.push(identity);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = resident(process)?;
    let mut tasks = Vec::new();
    for number in 0..sockets {
        let identity = identities[number / SHARED_BY].another_tab();
        let socket = Socket::open(address, &identity, false).await?;
        tasks.push(tokio::spawn(socket.idle()));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = resident(process)? - before;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(grown / sockets as f64)
}
