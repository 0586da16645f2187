//! The parts of a server, built from its configuration in one place.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Secrets};
use crate::connection_limit::ConnectionLimit;
use crate::funnels::{FunnelError, FunnelLibrary};
use crate::principal::Authenticator;
use crate::rate_limit::AddressLimit;
use crate::sessions::Sessions;
use crate::store::{self, OpenError, SessionKey, Store};
use crate::telemetry::{self, TelemetryError};

/// How often what has gone stale is forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// How often sessions are looked for whose time is over.
const OVERDUE: Duration = Duration::from_secs(1);

/// Every how many rounds of housekeeping the table of answers is swept: once an hour.
const ROUNDS_PER_SWEEP: u32 = 60;

/// What every handler can reach.
#[derive(Debug)]
pub struct ServerState {
    /// What the operator asked for.
    pub config: Config,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where sessions and answers are kept.
    pub store: Arc<dyn Store>,
    /// The funnel definitions.
    pub funnels: Arc<FunnelLibrary>,
    /// The sessions in use.
    pub sessions: Sessions,
    /// Who is who, and the keys that tokens are issued with.
    pub authenticator: Authenticator,
    /// How often one address may create a session without a credential.
    pub creations_per_address: AddressLimit,
    /// How many connections one address holds.
    pub connections_per_address: ConnectionLimit<IpAddr>,
    /// How many sockets one session holds.
    pub sockets_per_session: ConnectionLimit<SessionKey>,
    /// What was measured.
    pub metrics: PrometheusHandle,
    /// Cancelled when the server is told to stop. Sockets say goodbye and close then.
    pub shutdown: CancellationToken,
    /// What a stopping server waits for. A socket's task must be tracked here: the
    /// connection that it came from counts as finished from its upgrade on.
    pub tasks: TaskTracker,
}

/// Why a server could not be built.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// No database.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// No funnels.
    #[error(transparent)]
    Funnels(#[from] FunnelError),
    /// No metrics.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
}

impl ServerState {
    /// Opens the database and builds everything around it.
    ///
    /// # Errors
    /// See [`WiringError`].
    pub async fn build(config: Config, secrets: Secrets) -> Result<Arc<Self>, WiringError> {
        let store = store::open(&config.database).await?;
        Self::with(config, secrets, store, Arc::new(SystemClock))
    }

    /// Builds everything around a given store and clock. For tests.
    ///
    /// # Errors
    /// See [`WiringError`].
    pub fn with(
        config: Config,
        secrets: Secrets,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, WiringError> {
        let funnels = Arc::new(FunnelLibrary::load(config.funnels.as_deref())?);
        let tasks = TaskTracker::new();
        let hosting = (Arc::clone(&store), Arc::clone(&funnels), Arc::clone(&clock), tasks.clone());
        Ok(Arc::new(Self {
            sessions: Sessions::new(hosting.0, hosting.1, hosting.2, hosting.3),
            funnels,
            clock,
            store,
            authenticator: Authenticator::new(secrets.tokens, secrets.service_keys),
            creations_per_address: AddressLimit::per_minute(config.session_creations_per_minute),
            connections_per_address: ConnectionLimit::new(config.max_connections_per_address),
            sockets_per_session: ConnectionLimit::new(config.max_sockets_per_session),
            metrics: telemetry::metrics()?,
            shutdown: CancellationToken::new(),
            tasks,
            config,
        }))
    }

    /// Starts the tasks that end what is overdue and forget what is stale, until the server stops.
    pub fn start_background_tasks(self: &Arc<Self>) {
        self.start_housekeeping();
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = state.shutdown.cancelled() => return,
                    () = tokio::time::sleep(OVERDUE) => {}
                }
                if let Err(error) = state.sessions.end_overdue().await {
                    tracing::warn!(error = %crate::problem::chain(&error), "overdue sessions stay for now");
                }
            }
        });
    }

    /// Starts the task that forgets what has gone stale, until the server stops.
    fn start_housekeeping(self: &Arc<Self>) {
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut round: u32 = 0;
            loop {
                tokio::select! {
                    () = state.shutdown.cancelled() => return,
                    () = tokio::time::sleep(HOUSEKEEPING) => {}
                }
                state.creations_per_address.forget_idle();
                state.sessions.forget_idle();
                state.metrics.run_upkeep();
                if round.is_multiple_of(ROUNDS_PER_SWEEP)
                    && let Err(error) = state.store.sweep(state.clock.now_ms()).await
                {
                    tracing::warn!(error = %crate::problem::chain(&error), "old answers stay for now");
                }
                round = round.wrapping_add(1);
            }
        });
    }
}
