//! Connections to one Redis or to a cluster, made within a time limit.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, ProtocolVersion, PushInfo, RedisError, RedisFuture,
    TlsCertificates, Value,
};

use super::fault::ConnectFault;
use super::settings::{Endpoints, SettingsError, SharedCacheSettings};

/// Receives what Redis sends unasked. Must not block.
pub(super) type PushHandler = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// A connection that many callers use at a time.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A connection, and who is at its other end.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: Connection,
    pub(super) version: String,
}

impl Connection {
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Sends a command that is about no key: to the one Redis, or to any node of a cluster.
    pub(super) async fn ask_any(&mut self, command: Cmd) -> Result<Value, RedisError> {
        match self {
            Self::Single(connection) => connection.send_packed_command(&command).await?.extract_error(),
            Self::Cluster(connection) => {
                let anywhere = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
                connection.route_command(command, anywhere).await?.extract_error()
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// Makes connections.
pub(super) struct Connector {
    nodes: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
    operation_limit: Duration,
    connect_limit: Duration,
}

impl Connector {
    pub(super) fn new(settings: &SharedCacheSettings) -> Result<Self, SettingsError> {
        let Endpoints { nodes, certificates } = settings.endpoints()?;
        let resp3 = |node: ConnectionInfo| {
            // Only RESP3 lets one connection both subscribe and ask.
            let redis = node.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            node.set_redis_settings(redis)
        };
        let connector = Self {
            nodes: nodes.into_iter().map(resp3).collect(),
            certificates: certificates.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) }),
            operation_limit: settings.operation_limit,
            connect_limit: settings.connect_limit,
        };
        // The crate takes the process' provider, and panics where several could be meant. That one
        // was installed before is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Whatever is wrong without asking Redis is found now.
        if let Some(first) = connector.nodes.first() {
            connector.client(first).map_err(SettingsError::Client)?;
        }
        Ok(connector)
    }

    /// Connects, and checks that the other end can do what is needed.
    pub(super) async fn connect(&self, pushes: Option<PushHandler>) -> Result<Connected, ConnectFault> {
        match self.nodes.as_slice() {
            [node] => {
                let mut connection = self.connect_to(node, pushes.clone()).await?;
                let info = within(self.connect_limit, info(&mut connection)).await?;
                if info.cluster { self.connect_to_cluster(pushes).await } else { checked(connection, info) }
            }
            _ => self.connect_to_cluster(pushes).await,
        }
    }

    fn client(&self, node: &ConnectionInfo) -> Result<Client, RedisError> {
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(node.clone(), certificates.clone()),
            None => Client::open(node.clone()),
        }
    }

    async fn connect_to(&self, node: &ConnectionInfo, pushes: Option<PushHandler>) -> Result<Connection, ConnectFault> {
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_limit))
            .set_response_timeout(Some(self.operation_limit));
        if let Some(pushes) = pushes {
            config = config.set_push_sender(sender(pushes));
        }
        let client = self.client(node).map_err(ConnectFault::Connection)?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        Ok(Connection::Single(within(self.connect_limit, connecting).await?))
    }

    async fn connect_to_cluster(&self, pushes: Option<PushHandler>) -> Result<Connected, ConnectFault> {
        // The nodes are connected to at the same time, first the seeds and then the rest. While the
        // crate connects to a node again, all calls wait for it: less than their own limit.
        let node_limit = (self.connect_limit / 2).min(self.operation_limit / 2);
        let mut builder = ClusterClientBuilder::new(self.nodes.iter().cloned())
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(node_limit)
            .response_timeout(self.operation_limit)
            .overall_response_timeout(Some(self.operation_limit))
            // For redirections after slots moved, no more.
            .retries(2)
            .min_retry_wait(5)
            .max_retry_wait(20);
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        if let Some(pushes) = pushes {
            builder = builder.push_sender(sender(pushes));
        }
        let client = builder.build().map_err(ConnectFault::Connection)?;
        let connecting = async { client.get_async_connection().await };
        let connection = within(self.connect_limit * 2, connecting).await.map_err(|fault| match fault {
            ConnectFault::Connection(error) if error.to_string().contains("cluster support disabled") => {
                ConnectFault::NotACluster
            }
            fault => fault,
        })?;
        let mut connection = Connection::Cluster(connection);
        let info = within(self.connect_limit, info(&mut connection)).await?;
        checked(connection, info)
    }
}

fn sender(pushes: PushHandler) -> impl Fn(PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync + 'static {
    move |push| {
        pushes(push);
        Ok(())
    }
}

async fn within<T>(limit: Duration, doing: impl Future<Output = Result<T, RedisError>>) -> Result<T, ConnectFault> {
    match tokio::time::timeout(limit, doing).await {
        Ok(done) => done.map_err(ConnectFault::Connection),
        Err(_) => Err(ConnectFault::TimedOut { limit }),
    }
}

struct Info {
    version: String,
    cluster: bool,
}

async fn info(connection: &mut Connection) -> Result<Info, RedisError> {
    let mut command = redis::cmd("INFO");
    command.arg("server");
    let text: String = redis::from_redis_value(connection.ask_any(command).await?)?;
    Ok(Info {
        version: info_field(&text, "redis_version").unwrap_or("of an unknown version").to_owned(),
        cluster: info_field(&text, "redis_mode") == Some("cluster"),
    })
}

/// One line of what `INFO` answers.
pub(super) fn info_field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn checked(connection: Connection, info: Info) -> Result<Connected, ConnectFault> {
    let major = info.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major < 7 => Err(ConnectFault::TooOld { version: info.version }),
        // An unknown version gets its chance; it fails soon if it knows no sharded channels.
        _ => Ok(Connected { connection, version: info.version }),
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
}
