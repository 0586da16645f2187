//! Connections to single nodes, made within a time limit.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ProtocolVersion, PushInfo, RedisError,
    TlsCertificates,
};

use super::fault::ConnectFault;
use super::settings::{Endpoints, SettingsError, SharedCacheSettings};

/// Receives what Redis sends unasked, and learns when the connection ends. Must not block.
pub(super) type PushHandler = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// A connection that many callers use at a time, and who is at its other end.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) version: String,
    /// The name of its process: another one after each start.
    pub(super) run_id: String,
    /// Whether it is a node of a cluster.
    pub(super) cluster: bool,
}

/// Makes connections. Password, database and TLS are the same for all nodes.
pub(super) struct Connector {
    seeds: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
    operation_limit: Duration,
    connect_limit: Duration,
}

impl Connector {
    pub(super) fn new(settings: &SharedCacheSettings) -> Result<Self, SettingsError> {
        let Endpoints { nodes, certificates } = settings.endpoints()?;
        let resp3 = |node: ConnectionInfo| {
            // What a connection is sent unasked, it can tell from answers only in RESP3.
            let redis = node.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            node.set_redis_settings(redis)
        };
        let connector = Self {
            seeds: nodes.into_iter().map(resp3).collect(),
            certificates: certificates.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) }),
            operation_limit: settings.operation_limit,
            connect_limit: settings.connect_limit,
        };
        // The crate takes the process' provider, and panics where several could be meant. That one
        // was installed before is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Whatever is wrong without asking Redis is found now.
        for seed in &connector.seeds {
            connector.client(seed).map_err(SettingsError::Client)?;
        }
        Ok(connector)
    }

    /// The nodes that the operator named.
    pub(super) fn seeds(&self) -> &[ConnectionInfo] {
        &self.seeds
    }

    /// Another node of the same cluster.
    pub(super) fn node_at(&self, host: &str, port: u16) -> Option<ConnectionInfo> {
        let seed = self.seeds.first()?;
        let address = match seed.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        Some(seed.clone().set_addr(address))
    }

    /// Connects, and checks that the other end can do what is needed.
    pub(super) async fn connect(&self, node: &ConnectionInfo, pushes: PushHandler) -> Result<Connected, ConnectFault> {
        let limit = self.connect_limit;
        match tokio::time::timeout(limit, self.connect_and_check(node, pushes)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectFault::TimedOut { limit }),
        }
    }

    fn client(&self, node: &ConnectionInfo) -> Result<Client, RedisError> {
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(node.clone(), certificates.clone()),
            None => Client::open(node.clone()),
        }
    }

    async fn connect_and_check(&self, node: &ConnectionInfo, pushes: PushHandler) -> Result<Connected, ConnectFault> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_limit))
            .set_response_timeout(Some(self.operation_limit))
            .set_push_sender(move |push| {
                pushes(push);
                Ok::<_, redis::aio::SendError>(())
            });
        let client = self.client(node).map_err(ConnectFault::Connection)?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(ConnectFault::Connection)?;
        let info: String =
            ask(&mut connection, redis::cmd("INFO").arg("server")).await.map_err(ConnectFault::Connection)?;
        let version = info_field(&info, "redis_version").unwrap_or("of an unknown version");
        check_version(version)?;
        let cluster = info_field(&info, "redis_mode") == Some("cluster");
        if self.seeds.len() > 1 && !cluster {
            return Err(ConnectFault::NotACluster);
        }
        let run_id = info_field(&info, "run_id").unwrap_or_default().to_owned();
        Ok(Connected { connection, version: version.to_owned(), run_id, cluster })
    }
}

/// Sends a command, and reads its answer.
pub(super) async fn ask<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<T, RedisError> {
    let answer = connection.send_packed_command(command).await?.extract_error()?;
    Ok(redis::from_redis_value(answer)?)
}

/// One line of what `INFO` answers.
pub(super) fn info_field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// An unknown version gets its chance; it fails soon if it knows no sharded channels.
fn check_version(version: &str) -> Result<(), ConnectFault> {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major < 7 => Err(ConnectFault::TooOld { version: version.to_owned() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_info_are_found_by_their_whole_name() {
        let text = "# Server\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\nmode:x\r\n";
        assert_eq!(info_field(text, "redis_version"), Some("7.0.15"));
        assert_eq!(info_field(text, "mode"), Some("x"));
        assert_eq!(info_field(text, "redis"), None);
    }

    #[test]
    fn a_version_without_sharded_channels_is_refused_by_name() {
        for version in ["7.0.0", "7.2.4", "8.4.0", "of an unknown version"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
        for version in ["6.2.14", "5.0.7"] {
            let told = check_version(version).map_err(|fault| fault.to_string());
            assert!(told.is_err_and(|told| told.contains(version) && told.contains("7.0")), "{version}");
        }
    }
}
