//! The parts of a server, built from its configuration in one place.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::sealing::{Sealer, SealingError};
use crate::audit::{AuditEntry, AuditRecord, Denials};
use crate::clock::{Clock, SystemClock, millis};
use crate::config::{Config, Secrets};
use crate::connection_limit::ConnectionLimit;
use crate::encryption::AnswerCipher;
use crate::event_feed::{self, EventFeed};
use crate::funnels::{FunnelError, FunnelLibrary};
use crate::http::events::STREAMS_PER_KEY;
use crate::http::sessions::HANDOFFS_PER_MINUTE;
use crate::http::sync::{COMMANDS_AT_ONCE, COMMANDS_PER_SECOND};
use crate::keys::KeyRing;
use crate::keys::source::KeySource;
use crate::legacy_cookie::LegacyCookies;
use crate::mode::{self, Mode};
use crate::principal::Authenticator;
use crate::rate_limit::{AddressLimit, RequestLimits};
use crate::service_keys::{self, ServiceKeys};
use crate::sessions::{Announcements, RewrapWalk, Sessions, Tiers};
use crate::shared_cache::{CacheEvent, SettingsError, SharedCache};
use crate::store::{
    self, ChangeListener, DatabaseHealth, DatabaseUrl, GuardedStore, Guards, ListenerEvent, OpenError, SessionKey,
    Settling, Store,
};
use crate::telemetry::{self, TelemetryError};
use crate::tenant::TenantId;
use crate::token::TokenIssuer;
use crate::webhooks::delivery::Deliverer;
use crate::webhooks::dispatcher::{self, Dispatcher};
use crate::webhooks::worker::Tools;

/// How often what has gone stale is forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// How often sessions are looked for whose time is over.
const OVERDUE: Duration = Duration::from_secs(1);

/// How often the audit log is sealed.
const SEALING: Duration = Duration::from_secs(1);

/// How often what was missed or left behind by others is made up for.
const MAKE_UP: Duration = Duration::from_secs(1);

/// How many announcements of other servers may wait.
const ANNOUNCEMENTS: usize = 4096;

/// Every how many rounds of housekeeping the table of answers is swept: once an hour.
const ROUNDS_PER_SWEEP: u32 = 60;

/// How many lifecycle events of a tenant are forgotten in one statement.
const FORGOTTEN_AT_ONCE: u32 = 5_000;

/// How often the key ring is read again.
const KEYS_READ_AGAIN: Duration = Duration::from_secs(30);

/// How long bringing sessions under a new key rests after each few: buyers come first.
const REWRAP_REST: Duration = Duration::from_millis(100);

/// What every handler can reach.
#[derive(Debug)]
pub struct ServerState {
    /// What the operator asked for.
    pub config: Config,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where sessions and answers are kept.
    pub store: Arc<dyn Store>,
    /// Whether the database is away.
    pub database: DatabaseHealth,
    /// The shared tier, if there is one.
    pub cache: Option<Arc<SharedCache>>,
    /// The funnel definitions.
    pub funnels: Arc<FunnelLibrary>,
    /// The sessions in use.
    pub sessions: Sessions,
    /// What everything secret is derived from.
    pub keys: KeyRing,
    /// Where that is read again.
    key_source: Option<KeySource>,
    /// Who is who, and the keys that tokens are issued with.
    pub authenticator: Authenticator,
    /// Which cookies of the old shop are taken.
    pub legacy_cookies: LegacyCookies,
    /// With what kept answers are encrypted.
    pub answers: AnswerCipher,
    /// What was not allowed, until the audit log has it.
    pub denials: Denials,
    /// How often anybody may ask for anything.
    pub request_limits: RequestLimits,
    /// How often one address may create a session without a credential.
    pub creations_per_address: AddressLimit,
    /// How often one address may exchange a handoff code.
    pub handoffs_per_address: AddressLimit,
    /// How many commands one address may send without a socket.
    pub polled_commands_per_address: AddressLimit,
    /// How many connections one address holds.
    pub connections_per_address: ConnectionLimit<IpAddr>,
    /// How many sockets and polls one session holds.
    pub sockets_per_session: ConnectionLimit<SessionKey>,
    /// How far the outbox of lifecycle events can be read.
    pub event_feed: EventFeed,
    /// What sends webhooks.
    pub deliverer: Deliverer,
    /// Told when somebody has changed a webhook here.
    pub webhooks_changed: Notify,
    /// How many streams of events one service key holds.
    pub event_streams_per_key: ConnectionLimit<String>,
    /// What was measured.
    pub metrics: PrometheusHandle,
    /// Told when the server is to read its keys again.
    pub reload: Notify,
    /// Told when it has, and sessions may have to follow.
    rewrap: Notify,
    /// Cancelled when the server is told to stop. It goes on for a while, and says that it is not ready any more.
    pub draining: CancellationToken,
    /// Cancelled when the server stops. Sockets say goodbye and close then, and polls are answered.
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
    /// The database is of a build before sessions were encrypted.
    #[error(
        "the database holds sessions that a build before 0.1.0 wrote without encryption, which can't be read any more: give another --database-url, or take the old one away"
    )]
    NotEncrypted,
    /// The key ring can read nothing of what is there.
    #[error(
        "all sessions in the database are under keys that the key ring does not have ({missing}): give the ring of this database (docs/operations/keys.md), or another --database-url"
    )]
    KeysOfAnother {
        /// The public names of the keys.
        missing: String,
    },
    /// No shared tier.
    #[error(transparent)]
    SharedCache(#[from] SettingsError),
    /// No funnels.
    #[error(transparent)]
    Funnels(#[from] FunnelError),
    /// Webhooks can't be sent.
    #[error("TLS can't be set up for webhooks")]
    Webhooks(#[from] rustls::Error),
    /// No metrics.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
}

/// Refuses a key ring that is another database's: what is written with it could be read by nobody else.
async fn check_keys(store: &dyn Store, keys: &KeyRing) -> Result<(), WiringError> {
    let used = match store.root_keys().await {
        Ok(used) => used,
        Err(error) => {
            tracing::warn!(error = %crate::problem::chain(&error), "whether the key ring is the database's can't be found out now");
            return Ok(());
        }
    };
    if used.iter().any(String::is_empty) {
        return Err(WiringError::NotEncrypted);
    }
    let (known, missing): (Vec<String>, Vec<String>) = used.into_iter().partition(|id| keys.reads(id).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    if known.is_empty() {
        return Err(WiringError::KeysOfAnother { missing: missing.join(", ") });
    }
    tracing::error!(
        missing = missing.join(", "),
        "sessions are under keys that the key ring does not have, and can't be read; put these back into it"
    );
    Ok(())
}

/// Reads the service keys of the database for the first time. Where that fails, they are refused until it is done.
async fn read_service_keys(store: &dyn Store, service_keys: &ServiceKeys) {
    if let Err(error) = service_keys.read_again(store).await {
        tracing::warn!(error = %crate::problem::chain(&error), "the service keys of the database can't be read now");
    } else if service_keys.has_none() {
        tracing::warn!(
            "there is no service key, so no back end can authenticate: make one with `throughline service-keys create`"
        );
    }
}

/// Where what other servers tell arrives.
struct TierEvents {
    listener: Option<ChangeListener>,
    announced: Option<mpsc::Receiver<ListenerEvent>>,
    told: Option<mpsc::Receiver<CacheEvent>>,
}

/// Opens the database, and the shared tier if there is to be one.
async fn open_tiers(config: &Config, keys: KeyRing) -> Result<(Tiers, TierEvents), WiringError> {
    let store = store::open(&config.database).await?;
    let mut events = TierEvents { listener: None, announced: None, told: None };
    let guards = match &config.database.url {
        DatabaseUrl::Postgres(_) => Guards::Everything,
        DatabaseUrl::Sqlite(_) => Guards::Writing,
    };
    let guarded = GuardedStore::new(store, guards);
    let mut tiers = Tiers { database: guarded.health(), ..Tiers::single(Arc::new(guarded), keys) };
    if let DatabaseUrl::Postgres(address) = &config.database.url {
        let (listener, announced) = ChangeListener::start(address, ANNOUNCEMENTS);
        events = TierEvents { listener: Some(listener), announced: Some(announced), ..events };
        tiers.announcements = Some(Arc::new(Announcements::default()));
    }
    if let Some(settings) = &config.shared_cache {
        let (cache, told) = SharedCache::open(settings.clone()).await?;
        tiers.cache = Some(cache);
        events.told = Some(told);
    }
    Ok((tiers, events))
}

impl ServerState {
    /// Opens the tiers and builds everything around them.
    ///
    /// # Errors
    /// See [`WiringError`].
    pub async fn build(config: Config, secrets: Secrets) -> Result<Arc<Self>, WiringError> {
        // First of all: what is measured before is lost.
        telemetry::metrics()?;
        let (tiers, events) = open_tiers(&config, secrets.keys.clone()).await?;
        check_keys(&*tiers.store, &secrets.keys).await?;
        read_service_keys(&*tiers.store, &secrets.service_keys).await;
        let state = Self::with(config, secrets, tiers, Arc::new(SystemClock))?;
        state.start_listening(events);
        Ok(state)
    }

    /// Builds everything around given tiers and a given clock. For tests.
    ///
    /// # Errors
    /// See [`WiringError`].
    pub fn with(
        config: Config,
        secrets: Secrets,
        tiers: Tiers,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, WiringError> {
        let metrics = telemetry::metrics()?;
        // It was read at the start.
        metrics::gauge!("throughline_key_ring_readable").set(1.0);
        metrics::gauge!("throughline_service_keys_readable").set(1.0);
        let funnels = Arc::new(FunnelLibrary::load(config.funnels.as_deref())?);
        let tasks = TaskTracker::new();
        let (store, database, cache) = (Arc::clone(&tiers.store), tiers.database.clone(), tiers.cache.clone());
        let hosting = (Arc::clone(&funnels), Arc::clone(&clock), tasks.clone());
        Ok(Arc::new(Self {
            sessions: Sessions::new(tiers, config.sessions, hosting.0, hosting.1, hosting.2),
            funnels,
            clock,
            store,
            database,
            cache,
            legacy_cookies: secrets.legacy_cookies,
            authenticator: Authenticator::new(TokenIssuer::new(secrets.keys.clone()), secrets.service_keys),
            answers: AnswerCipher::new(secrets.keys.clone()),
            keys: secrets.keys,
            key_source: secrets.key_source,
            denials: Denials::default(),
            request_limits: RequestLimits::new(config.rates),
            creations_per_address: AddressLimit::per_minute(config.session_creations_per_minute),
            handoffs_per_address: AddressLimit::per_minute(HANDOFFS_PER_MINUTE),
            polled_commands_per_address: AddressLimit::per_second(COMMANDS_PER_SECOND, COMMANDS_AT_ONCE),
            connections_per_address: ConnectionLimit::new(config.max_connections_per_address),
            sockets_per_session: ConnectionLimit::new(config.max_sockets_per_session),
            event_feed: EventFeed::default(),
            deliverer: Deliverer::new(&config.webhooks)?,
            webhooks_changed: Notify::new(),
            event_streams_per_key: ConnectionLimit::new(STREAMS_PER_KEY),
            metrics,
            reload: Notify::new(),
            rewrap: Notify::new(),
            draining: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            tasks,
            config,
        }))
    }

    /// Starts hearing what other servers tell. These tasks end with the process: a stopping server still hears.
    fn start_listening(self: &Arc<Self>, events: TierEvents) {
        let TierEvents { listener, announced, told } = events;
        if let Some(announced) = announced {
            let state = Arc::clone(self);
            tokio::spawn(async move {
                let _listener = listener;
                state.sessions.listen_to_database(announced).await;
            });
        }
        if let Some(told) = told {
            let state = Arc::clone(self);
            tokio::spawn(async move { state.sessions.listen_to_cache(told).await });
        }
    }

    /// Starts the tasks that end what is overdue and forget what is stale, until the server stops.
    pub fn start_background_tasks(self: &Arc<Self>) {
        self.start_housekeeping();
        self.start_deleting();
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut mode = Mode::Normal;
            mode.measure();
            while state.goes_on_after(mode::LOOK_EVERY).await {
                let now = state.mode();
                if std::mem::replace(&mut mode, now) != now {
                    now.announce();
                }
            }
        });
        self.start_following_keys();
        self.start_sealing();
        self.start_following_service_keys();
        self.start_looking_for_events();
        self.start_delivering();
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            while state.goes_on_after(state.config.flush_interval).await {
                state.sessions.flush();
            }
        });
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            while state.goes_on_after(MAKE_UP).await {
                // Often: until then each value that a histogram was given is kept. A busy server has given them so many that
                // no request should have to wait for it.
                let metrics = state.metrics.clone();
                let _ = tokio::task::spawn_blocking(move || metrics.run_upkeep()).await;
                state.sessions.make_up().await;
            }
        });
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            while state.goes_on_after(OVERDUE).await {
                if let Err(error) = state.sessions.end_overdue().await {
                    tracing::warn!(error = %crate::problem::chain(&error), "overdue sessions stay for now");
                }
            }
        });
    }

    /// Starts the tasks that read the key ring again, and bring sessions under its newest key.
    fn start_following_keys(self: &Arc<Self>) {
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                let goes_on = tokio::select! {
                    goes_on = state.goes_on_after(KEYS_READ_AGAIN) => goes_on,
                    () = state.reload.notified() => true,
                };
                if !goes_on {
                    return;
                }
                state.read_keys_again().await;
                state.rewrap.notify_one();
            }
        });
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut walk = RewrapWalk::default();
            loop {
                let more = state.sessions.rewrap_some(&mut walk).await.unwrap_or_else(|error| {
                    tracing::warn!(error = %crate::problem::chain(&error), "sessions stay under an older key for now");
                    false
                });
                let goes_on = tokio::select! {
                    goes_on = state.goes_on_after(if more { REWRAP_REST } else { KEYS_READ_AGAIN }) => goes_on,
                    () = state.rewrap.notified() => true,
                };
                if !goes_on {
                    return;
                }
            }
        });
    }

    /// Starts the task that writes down denials, and seals the audit log.
    fn start_sealing(self: &Arc<Self>) {
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut sealer = Sealer::new(Arc::clone(&state.store), state.keys.clone());
            loop {
                let goes_on = state.goes_on_after(SEALING).await;
                // Once more when the server stops: what was denied until then is not lost.
                if !state.database.is_away()
                    && let Err(error) = sealer.work(&state.denials, state.clock.now_ms()).await
                {
                    tracing::warn!(error = %crate::problem::chain(&error), "the audit log is not sealed for now");
                }
                if !goes_on {
                    return;
                }
            }
        });
    }

    /// Starts the task that finds out how far the outbox of lifecycle events can be read, and the one that forgets the oldest.
    fn start_looking_for_events(self: &Arc<Self>) {
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut settling = Settling::default();
            while state.goes_on_after(event_feed::ASK_EVERY).await {
                state.event_feed.look(&*state.store, &mut settling).await;
            }
        });
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            let kept = state.config.event_retention;
            // A short retention is for trying things out: then nobody wants to wait for a minute.
            while state.goes_on_after(kept.min(HOUSEKEEPING)).await {
                let before_ms = state.clock.now_ms().saturating_sub(millis(kept));
                loop {
                    match state.store.forget_events(before_ms, FORGOTTEN_AT_ONCE).await {
                        Ok(forgotten) if forgotten >= u64::from(FORGOTTEN_AT_ONCE) => {}
                        Ok(_) => break,
                        Err(error) => {
                            tracing::warn!(error = %crate::problem::chain(&error), "old events stay for now");
                            break;
                        }
                    }
                }
            }
        });
    }

    /// Starts the task that has webhooks delivered, until the server stops.
    fn start_delivering(self: &Arc<Self>) {
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut dispatcher = Dispatcher::new(Tools {
                store: Arc::clone(&state.store),
                keys: state.keys.clone(),
                clock: Arc::clone(&state.clock),
                settings: state.config.webhooks.clone(),
                deliverer: state.deliverer.clone(),
                server: format!("{:032x}", fastrand::u128(..)),
            });
            loop {
                if !state.database.is_away()
                    && let Err(error) = dispatcher.work(&state.event_feed).await
                {
                    tracing::debug!(error = %crate::problem::chain(&error), "webhooks are not looked at now");
                }
                let goes_on = tokio::select! {
                    goes_on = state.goes_on_after(dispatcher::RENEW_EVERY) => goes_on,
                    () = state.webhooks_changed.notified() => true,
                };
                if !goes_on {
                    return dispatcher.end().await;
                }
            }
        });
    }

    /// Starts the task that reads the service keys of the database again, and writes down their use.
    fn start_following_service_keys(self: &Arc<Self>) {
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut is_readable = true;
            while state.goes_on_after(service_keys::READ_EVERY).await {
                let known = state.authenticator.service_keys();
                let read = known.read_again(&*state.store).await;
                metrics::gauge!("throughline_service_keys_readable").set(if read.is_ok() { 1.0 } else { 0.0 });
                let was_readable = std::mem::replace(&mut is_readable, read.is_ok());
                if let Err(error) = &read
                    && was_readable
                {
                    tracing::warn!(error = %crate::problem::chain(error), "the service keys of the database can't be read; those that are known stay good for a while");
                }
                known.look_for_ends(state.clock.now_ms());
                if read.is_ok()
                    && let Err(error) = known.note_uses(&*state.store).await
                {
                    tracing::debug!(error = %crate::problem::chain(&error), "when service keys were used is not written down now");
                }
            }
        });
    }

    /// Goes over to what the key ring is now. Where it can't be read, the one that is known stays.
    async fn read_keys_again(&self) {
        let Some(source) = self.key_source.clone().filter(KeySource::can_change) else { return };
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let replaced = match read {
            Ok(Ok(text)) => self.keys.replace(text).map_err(|error| crate::problem::chain(&error)),
            Ok(Err(error)) => Err(crate::problem::chain(&error)),
            Err(error) => Err(error.to_string()),
        };
        metrics::gauge!("throughline_key_ring_readable").set(if replaced.is_ok() { 1.0 } else { 0.0 });
        match replaced {
            Ok(true) => {
                let (keys, current) = (self.keys.all().len(), self.keys.current(self.clock.now_ms()));
                tracing::info!(keys, current = current.id(), "the key ring has changed");
                self.audit_key_ring(current.id()).await;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error, "the key ring can't be read again; the one that is known stays in use")
            }
        }
    }

    /// Notes down that this server goes by other keys from now on.
    async fn audit_key_ring(&self, current: &str) {
        let now_ms = self.clock.now_ms();
        let entry = AuditEntry::done(TenantId::single(), "keyRingChanged", now_ms);
        let entry = AuditEntry { subject: Some(current.to_owned()), ..entry };
        if let Err(error) = self.audit(&entry).await {
            tracing::warn!(error = %crate::problem::chain(&error), "the audit log does not tell that the key ring has changed");
        }
    }

    /// Writes down what somebody has done that changes no session.
    ///
    /// # Errors
    /// See [`SealingError`].
    pub async fn audit(&self, entry: &AuditEntry) -> Result<(), SealingError> {
        let record = AuditRecord::new(entry, &self.keys, self.clock.now_ms())?;
        Ok(self.store.audit(vec![record]).await?)
    }

    /// Starts the task that deletes what was kept for long enough, until the server stops.
    fn start_deleting(self: &Arc<Self>) {
        let retention = self.config.retention;
        let Some(shortest) = retention.shortest() else { return };
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            // A short retention is for trying things out: then nobody wants to wait for a minute.
            while state.goes_on_after(shortest.min(HOUSEKEEPING)).await {
                match state.sessions.delete_kept_for(retention).await {
                    Ok(0) => {}
                    Ok(sessions) => tracing::info!(sessions, "sessions that were over for long enough are deleted"),
                    Err(error) => {
                        tracing::warn!(error = %crate::problem::chain(&error), "sessions that are over stay for now");
                    }
                }
            }
        });
    }

    /// In which mode the server works just now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        Mode::now(&self.database, self.cache.as_deref())
    }

    /// Waits; `false` when the server stops.
    async fn goes_on_after(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.shutdown.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Starts the task that sweeps the table of answers, until the server stops.
    fn start_housekeeping(self: &Arc<Self>) {
        let state = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut round: u32 = 0;
            while state.goes_on_after(HOUSEKEEPING).await {
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
