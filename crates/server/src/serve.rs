//! Accepting connections, and stopping without losing what is under way.
//!
//! hyper is driven directly because `axum::serve` cannot set its time limits: without a timer
//! a client may take for ever to send a request's head. Only HTTP/1.1 is spoken, with TLS or
//! without; for HTTP/2 a proxy stands in front.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::client_address::limited_network;
use crate::config::HeadLimits;
use crate::connection_limit::ConnectionPermit;
use crate::connection_time::{TimeLimits, TimedStream};
use crate::wiring::ServerState;

/// So much more than a head may have is read of one, so that whoever sends too much can be told so by a problem
/// (`layers.rs`). Of what is larger still, hyper tells by the status alone.
const MORE_HEAD_BYTES: usize = 16 * 1024;
const MORE_HEADERS: usize = 36;

/// How long to pause when the operating system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long bringing to the database what it does not have yet may take.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// How long the store may take to write what is waiting.
const STORE_CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// A request extension that keeps its connection counted. A socket's task holds on to it:
/// otherwise the connection would no longer count from its upgrade on.
#[derive(Debug, Clone)]
pub struct OpenConnection {
    _counted: Arc<Counted>,
}

#[derive(Debug)]
struct Counted {
    _of_all: OwnedSemaphorePermit,
    _of_address: Option<ConnectionPermit<std::net::IpAddr>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("throughline_connections").decrement(1.0);
    }
}

/// What is said on a connection, and whether in secret.
#[derive(Clone)]
struct Speaking {
    app: Router,
    tls: Option<TlsAcceptor>,
}

/// Serves `app`, over `tls` if given, until `stop` resolves and load balancers had the time to notice, then lets what is
/// under way finish within the grace time, and closes the store.
pub async fn serve(
    state: &Arc<ServerState>,
    app: Router,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    stop: impl Future<Output = ()>,
) {
    accept(state, &Speaking { app, tls }, listener, drained(state, stop)).await;
    tracing::info!(grace_ms = state.config.shutdown_grace.as_millis(), "stopping");
    state.shutdown.cancel();
    state.tasks.close();
    if tokio::time::timeout(state.config.shutdown_grace, state.tasks.wait()).await.is_err() {
        tracing::warn!(tasks = state.tasks.len(), "the grace time is over; what is left is cut off");
    }
    let unflushed = state.sessions.flush_all(FLUSH_LIMIT).await;
    if unflushed > 0 {
        tracing::error!(
            commands = unflushed,
            "the database did not take everything; another server finds the rest in Redis"
        );
    }
    if let Some(cache) = &state.cache {
        cache.close();
    }
    // What handlers have handed to the store is written even if nobody waits for it.
    if tokio::time::timeout(STORE_CLOSE_LIMIT, state.store.close()).await.is_err() {
        tracing::error!("the store did not close in time; what it acknowledged is on the disk");
    }
    tracing::info!("stopped");
}

/// Resolves when the server was told to stop, and those who ask `/readyz` had their time to find out.
async fn drained(state: &ServerState, stop: impl Future<Output = ()>) {
    stop.await;
    state.draining.cancel();
    let delay = state.config.drain_delay;
    if !delay.is_zero() {
        tracing::info!(delay_ms = delay.as_millis(), "draining: load balancers are told to send nobody here any more");
        tokio::time::sleep(delay).await;
    }
}

async fn accept(state: &Arc<ServerState>, speaking: &Speaking, listener: TcpListener, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(state.config.max_connections.min(Semaphore::MAX_PERMITS)));
    let mut stop = std::pin::pin!(stop);
    loop {
        // A place first: when all are taken, new connections wait in the operating system.
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, peer) = listener.accept().await?;
            Ok::<_, io::Error>((place, stream, peer))
        };
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok((place, stream, peer)) => admit(state, speaking, place, stream, peer),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; is the limit of open files too low?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

fn admit(
    state: &Arc<ServerState>,
    speaking: &Speaking,
    place: OwnedSemaphorePermit,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let address = peer.ip().to_canonical();
    // A trusted proxy carries everyone's connections; counting them as one address's would
    // lock the whole shop out.
    let of_address = if state.config.trusted_proxies.trusts(address) {
        None
    } else {
        match state.connections_per_address.open(limited_network(address)) {
            Ok(permit) => Some(permit),
            Err(_) => {
                metrics::counter!("throughline_connections_refused_total").increment(1);
                return;
            }
        }
    };
    metrics::gauge!("throughline_connections").increment(1.0);
    let counted = Arc::new(Counted { _of_all: place, _of_address: of_address });
    let open = OpenConnection { _counted: counted };
    let (state, speaking) = (Arc::clone(state), speaking.clone());
    let tasks = state.tasks.clone();
    tasks.spawn(async move { greet(&state, speaking, stream, peer, open).await });
}

/// The TLS handshake, if there is to be one. It is as much a beginning as a head is, and may take as long.
async fn greet(state: &ServerState, speaking: Speaking, stream: TcpStream, peer: SocketAddr, open: OpenConnection) {
    // Small frames must not wait to be joined; a connection that is gone cannot tell us.
    let _ = stream.set_nodelay(true);
    let Speaking { app, tls } = speaking;
    let Some(tls) = tls else { return converse(state, app, stream, peer, open).await };
    let greeting = tokio::time::timeout(state.config.header_timeout, tls.accept(stream));
    // Whoever is silent so far is not waited for by a server that stops.
    let reason = match state.shutdown.run_until_cancelled(greeting).await {
        Some(Ok(Ok(stream))) => return converse(state, app, stream, peer, open).await,
        Some(Ok(Err(error))) => error.to_string(),
        Some(Err(_)) => "it took too long".to_owned(),
        None => return,
    };
    // Anybody can cause it, and browsers do it on purpose, for example to find out what is spoken.
    metrics::counter!("throughline_tls_handshakes_failed_total").increment(1);
    tracing::debug!(reason, "a TLS handshake failed");
}

async fn converse<S>(state: &ServerState, app: Router, stream: S, peer: SocketAddr, open: OpenConnection)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = TimeLimits { head: state.config.header_timeout, idle: state.config.idle_timeout };
    let stream = TimedStream::new(stream, limits);
    let progress = stream.progress();
    let service = service_fn(move |request: Request<Incoming>| {
        progress.request_has_come();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(open.clone());
        let (answering, progress) = (app.clone().oneshot(request), progress.clone());
        let draining = &state.draining;
        async move {
            let mut answer = answering.await?;
            let becomes_socket = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            // Whoever keeps connections, as proxies do, has none left here when the server closes them.
            if draining.is_cancelled() && !becomes_socket {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(answer.map(|body| progress.answer(body, becomes_socket)))
        }
    });
    let HeadLimits { header_bytes, headers, url_bytes } = state.config.head;
    let connection = http1::Builder::new()
        // `TimedStream` sees to both times. hyper has to have one of its own as well: only then it reads on after an answer,
        // and not just when there is something to be read.
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head.saturating_add(limits.idle))
        .max_buf_size(header_bytes + url_bytes + MORE_HEAD_BYTES)
        .max_headers(headers + MORE_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = state.shutdown.cancelled() => {
            // Finishes the answer that is under way, and closes an idle connection at once.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Resolves when the operating system asks the process to stop.
///
/// # Errors
/// When signals cannot be listened for.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::{Notify, oneshot};

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::{Config, Secrets, ServeOptions};
    use crate::sessions::Tiers;
    use crate::store::memory::MemoryStore;

    /// Far longer than `/slow` takes on a busy machine.
    const GRACE: Duration = Duration::from_secs(2);

    struct Running {
        state: Arc<ServerState>,
        address: SocketAddr,
        /// A request for `/slow` or `/hang` has reached its handler.
        entered: Arc<Notify>,
        stop: oneshot::Sender<()>,
        served: tokio::task::JoinHandle<()>,
    }

    async fn running(options: ServeOptions) -> Running {
        let options = ServeOptions { dev: true, shutdown_grace: Some(GRACE.into()), ..options };
        let (config, options) = Config::resolve(options).unwrap();
        let secrets = Secrets::load(&options, |_| None).unwrap();
        let keys = secrets.keys.clone();
        let (store, clock) = (Arc::new(MemoryStore::default()), Arc::new(SystemClock));
        let state = ServerState::with(config, secrets, Tiers::single(store, keys), clock).unwrap();
        let entered = Arc::new(Notify::new());
        let (slow, hang) = (Arc::clone(&entered), Arc::clone(&entered));
        let slow = async move || {
            slow.notify_one();
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let hang = async move || {
            hang.notify_one();
            std::future::pending::<()>().await;
        };
        let features = Router::new().route("/slow", get(slow)).route("/hang", get(hang));
        let app = crate::http::app(&state, features);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = {
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                let stopped = async { drop(stopped.await) };
                serve(&state, app, listener, None, stopped).await;
            })
        };
        Running { state, address, entered, stop, served }
    }

    async fn ask(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_before_the_server_stops() {
        let Running { state, address, entered, stop, served } = running(ServeOptions::default()).await;
        let under_way = ask(address, "/slow").await;
        entered.notified().await;
        stop.send(()).unwrap();
        served.await.unwrap();
        // Without waiting: it has to be there by now.
        let mut status = [0; 12];
        std::io::Read::read_exact(&mut under_way.into_std().unwrap(), &mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        assert!(state.shutdown.is_cancelled());
        assert!(TcpStream::connect(address).await.is_err(), "nothing listens any more");
    }

    #[tokio::test]
    async fn more_requests_than_can_be_answered_are_told_to_come_back() {
        let options = ServeOptions { max_requests: Some(1), ..ServeOptions::default() };
        let Running { address, entered, stop: _stop, .. } = running(options).await;
        let under_way = ask(address, "/hang").await;
        entered.notified().await;
        let head = async |path: &str| {
            let mut answer = [0; 512];
            let read = ask(address, path).await.read(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer[..read]).to_lowercase()
        };
        let refused = head("/slow").await;
        assert!(refused.starts_with("http/1.1 503") && refused.contains("retry-after: 1"), "{refused}");
        assert!(head("/livez").await.starts_with("http/1.1 200"), "the operator is let in");
        drop(under_way);
        // The place is given back when the client is gone.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !head("/slow").await.starts_with("http/1.1 200") {
            assert!(Instant::now() < deadline, "the place was not given back");
        }
    }

    #[tokio::test]
    async fn the_grace_time_is_the_longest_that_a_stop_takes() {
        let Running { address, entered, stop, served, .. } = running(ServeOptions::default()).await;
        let _hanging = ask(address, "/hang").await;
        entered.notified().await;
        let started = Instant::now();
        stop.send(()).unwrap();
        served.await.unwrap();
        let took = started.elapsed();
        assert!(took >= GRACE && took < 5 * GRACE, "{took:?}");
    }

    #[tokio::test]
    async fn a_tracked_task_is_told_of_the_stop_and_waited_for() {
        let Running { state, stop, served, .. } = running(ServeOptions::default()).await;
        let (shutdown, (said, mut heard)) = (state.shutdown.clone(), oneshot::channel());
        state.tasks.spawn(async move {
            shutdown.cancelled().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            said.send("goodbye").unwrap();
        });
        stop.send(()).unwrap();
        served.await.unwrap();
        assert_eq!(heard.try_recv().unwrap(), "goodbye");
    }

    #[tokio::test]
    async fn connections_over_the_limit_wait_until_another_ends() {
        let options = ServeOptions { max_connections: Some(1), ..ServeOptions::default() };
        let Running { address, stop, served, state, .. } = running(options).await;
        let mut byte = [0; 1];
        let first = ask(address, "/livez").await;
        assert_eq!(first.peek(&mut byte).await.unwrap(), 1, "it has its place");
        let second = ask(address, "/livez").await;
        assert_eq!(state.connections_per_address.keys(), 1);
        let waited = tokio::time::timeout(Duration::from_millis(200), second.peek(&mut byte)).await;
        assert!(waited.is_err(), "the second one is not answered yet");
        drop(first);
        let answered = tokio::time::timeout(Duration::from_secs(10), second.peek(&mut byte)).await;
        assert_eq!(answered.unwrap().unwrap(), 1);
        drop(second);
        stop.send(()).unwrap();
        served.await.unwrap();
        assert_eq!(state.connections_per_address.keys(), 0, "every connection was given back");
    }
}
