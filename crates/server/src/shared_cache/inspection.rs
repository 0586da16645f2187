//! How Redis is set up: what its operator has decided, and whether it can be used like that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, ConnectionInfo};

use super::connection::{Connector, ask, info_field};
use super::fault::ConnectFault;
use super::settings::{SettingsError, SharedCacheSettings};
use crate::clock::{Clock as _, SystemClock};
use crate::problem::chain;

/// How often it is asked, to tell how long it takes to answer.
const QUESTIONS: usize = 5;

/// A Redis server, as it says itself.
#[derive(Debug)]
pub struct RedisInspection {
    /// Its version.
    pub version: String,
    /// `master` or `slave`, as it calls itself.
    pub role: String,
    /// What it does when its memory is full.
    pub maxmemory_policy: String,
    /// How much memory it may use; 0 means as much as there is.
    pub maxmemory: u64,
    /// How much memory it uses.
    pub used_memory: u64,
    /// How much memory its machine has.
    pub system_memory: u64,
    /// Whether it writes an append-only file.
    pub append_only_file: bool,
    /// Whether it writes snapshots by itself; `None` where it does not say.
    pub snapshots: Option<bool>,
    /// Whether its last attempt to write to its disk failed.
    pub write_failed: bool,
    /// The state of its cluster, and how many slots are served; `None` where it is no cluster.
    pub cluster: Option<(String, u64)>,
    /// By how much its clock is ahead of ours, in milliseconds.
    pub clock_ahead_ms: i64,
    /// How long it takes to answer.
    pub latency: Duration,
}

/// One of the addresses that were given.
#[derive(Debug)]
pub struct InspectedNode {
    /// Host and port.
    pub address: String,
    /// Whether the traffic is encrypted.
    pub has_tls: bool,
    /// Whether the traffic stays on this machine.
    pub is_local: bool,
    /// What it says, or why it does not, with a word on what to do.
    pub told: Result<RedisInspection, String>,
}

/// Asks each of the addresses how it is set up. Changes nothing.
///
/// # Errors
/// See [`SettingsError`].
pub async fn inspect(settings: &SharedCacheSettings) -> Result<Vec<InspectedNode>, SettingsError> {
    let connector = Connector::new(settings)?;
    let nodes = connector.seeds().iter().map(|seed| inspect_node(&connector, seed));
    Ok(futures_util::future::join_all(nodes).await)
}

async fn inspect_node(connector: &Connector, node: &ConnectionInfo) -> InspectedNode {
    let (host, has_tls) = match node.addr() {
        ConnectionAddr::TcpTls { host, .. } => (host.as_str(), true),
        ConnectionAddr::Tcp(host, _) => (host.as_str(), false),
        _ => ("", false),
    };
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    let is_local = host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(is_loopback);
    let told = look(connector, node).await.map_err(|fault| chain(&fault));
    InspectedNode { address: node.addr().to_string(), has_tls, is_local, told }
}

async fn look(connector: &Connector, node: &ConnectionInfo) -> Result<RedisInspection, ConnectFault> {
    let connected = connector.connect(node, Arc::new(|_| ())).await?;
    let mut connection = connected.connection;
    let info: String = ask(&mut connection, &redis::cmd("INFO")).await.map_err(ConnectFault::Connection)?;
    let mut best = (Duration::MAX, 0);
    for _ in 0..QUESTIONS {
        let (asked_ms, asked) = (SystemClock.now_ms(), Instant::now());
        let (seconds, microseconds): (i64, i64) =
            ask(&mut connection, &redis::cmd("TIME")).await.map_err(ConnectFault::Connection)?;
        let took = asked.elapsed();
        if took < best.0 {
            best = (took, seconds * 1000 + microseconds / 1000 - asked_ms - crate::clock::millis(took / 2));
        }
    }
    // Who rents a Redis often may not ask for its configuration.
    let saves = ask::<Vec<String>>(&mut connection, redis::cmd("CONFIG").arg("GET").arg("save")).await;
    let snapshots = saves.ok().and_then(|saves| saves.get(1).map(|rules| !rules.is_empty()));
    let cluster = if connected.cluster {
        let state: String =
            ask(&mut connection, redis::cmd("CLUSTER").arg("INFO")).await.map_err(ConnectFault::Connection)?;
        let slots = info_field(&state, "cluster_slots_ok").and_then(|slots| slots.parse().ok()).unwrap_or(0);
        Some((info_field(&state, "cluster_state").unwrap_or("unknown").to_owned(), slots))
    } else {
        None
    };
    let text = |name: &str| info_field(&info, name).unwrap_or("unknown").to_owned();
    let number = |name: &str| info_field(&info, name).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let is_bad = |name: &str| info_field(&info, name).is_some_and(|status| status != "ok");
    Ok(RedisInspection {
        version: connected.version,
        role: text("role"),
        maxmemory_policy: text("maxmemory_policy"),
        maxmemory: number("maxmemory"),
        used_memory: number("used_memory"),
        system_memory: number("total_system_memory"),
        append_only_file: text("aof_enabled") == "1",
        snapshots,
        write_failed: is_bad("rdb_last_bgsave_status") || is_bad("aof_last_write_status"),
        cluster,
        clock_ahead_ms: best.1,
        latency: best.0,
    })
}
