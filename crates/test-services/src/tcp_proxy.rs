//! A TCP proxy that can delay, freeze and cut what passes.
//!
//! It blocks, in threads of its own: tests steer it between what they measure. What it was told
//! holds when the call returns.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Stands between a client and a server.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    cut: bool,
    frozen: bool,
    ended: bool,
    delay: Duration,
    /// Both ends of everything that passes, to be shut down.
    sockets: Vec<TcpStream>,
}

impl TcpProxy {
    /// Listens on a free port and passes everything on to `target`.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub fn to(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (cut, frozen, ended, delay, sockets) = (false, false, false, Duration::ZERO, Vec::new());
        let state = State { target, cut, frozen, ended, delay, sockets };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Ok(Self { address, shared })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections, and new ones as soon as they are made.
    pub fn cut(&self) {
        let mut state = self.shared.state();
        state.cut = true;
        state.close_all();
        self.shared.changed.notify_all();
    }

    /// Closes all connections; new ones lead to another server: a failover.
    pub fn redirect(&self, target: SocketAddr) {
        let mut state = self.shared.state();
        state.target = target;
        state.close_all();
        self.shared.changed.notify_all();
    }

    /// Takes connections, but passes nothing: what hangs.
    pub fn freeze(&self) {
        self.shared.state().frozen = true;
    }

    /// Passes again what waited.
    pub fn thaw(&self) {
        self.shared.state().frozen = false;
        self.shared.changed.notify_all();
    }

    /// Holds back for a while whatever passes, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.shared.state().delay = delay;
    }

    /// Undoes everything: new connections pass at once.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.cut = false;
        state.frozen = false;
        state.delay = Duration::ZERO;
        self.shared.changed.notify_all();
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.ended = true;
            state.close_all();
            self.shared.changed.notify_all();
        }
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn close_all(&mut self) {
        for socket in self.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.state().ended {
                return;
            }
            if let Ok(client) = client {
                // A connection that fails is closed, which is all that its client has to know.
                let _ = self.pass(client);
            }
        }
    }

    fn pass(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let mut state = self.state();
        if state.cut {
            return Ok(());
        }
        let server = TcpStream::connect(state.target)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        // Connections that ended are closed by then; only their numbers are left to forget.
        state.sockets.retain(|socket| socket.peer_addr().is_ok());
        state.sockets.extend([client.try_clone()?, server.try_clone()?]);
        let (upwards, downwards) = (Arc::clone(self), Arc::clone(self));
        let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || upwards.pump(from_client, to_server));
        thread::spawn(move || downwards.pump(server, client));
        Ok(())
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if !self.wait_for_passage() || to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Waits while it is frozen, and for the delay. Tells whether anything may pass at all.
    fn wait_for_passage(&self) -> bool {
        let mut state = self.state();
        while state.frozen && !state.cut && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (delay, pass) = (state.delay, !state.cut && !state.ended);
        drop(state);
        if pass && !delay.is_zero() {
            thread::sleep(delay);
        }
        pass
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        address
    }

    fn client(proxy: &TcpProxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).expect("the proxy listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
        stream
    }

    fn answers(mut stream: &TcpStream) -> bool {
        let mut answer = [0];
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut answer).is_ok()
    }

    #[test]
    fn what_it_is_told_holds() {
        let proxy = TcpProxy::to(echo()).expect("a proxy");
        let stream = client(&proxy);
        assert!(answers(&stream));

        proxy.delay(Duration::from_millis(30));
        let sent = Instant::now();
        assert!(answers(&stream));
        assert!(sent.elapsed() >= Duration::from_millis(60), "there and back");
        proxy.heal();

        proxy.freeze();
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
        assert!(!answers(&stream));
        proxy.thaw();
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
        assert!(answers(&stream), "what waited passes");

        proxy.cut();
        let mut rest = Vec::new();
        let _ = (&stream).read_to_end(&mut rest);
        assert!(!answers(&stream));
        assert!(!answers(&client(&proxy)), "nor does a new one");
        proxy.heal();
        assert!(answers(&client(&proxy)));
    }
}
