//! A private Redis, alone or as a cluster: own folders, own ports, ended with their owner.
//!
//! Everything blocks: tests call this before and between what they measure.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long one answer may take.
const TALK: Duration = Duration::from_secs(5);

/// Between two looks at whether something has happened.
const LOOK: Duration = Duration::from_millis(5);

/// How often other ports are tried when somebody else took those that were free.
const TRIES: u32 = 5;

/// How a private Redis is set up.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    append_only: bool,
    password: Option<String>,
    tls: bool,
    settings: Vec<(String, String)>,
}

impl RedisOptions {
    /// Whether it writes an append-only file, synchronously, and so survives being killed.
    #[must_use]
    pub fn append_only(mut self, on: bool) -> Self {
        self.append_only = on;
        self
    }

    /// Asks for a password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Listens with TLS too, with a certificate of an authority made for this server.
    #[must_use]
    pub fn tls(mut self, on: bool) -> Self {
        self.tls = on;
        self
    }

    /// Sets one of Redis' own settings, such as `maxmemory`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start; with what it logged.
    pub fn start(self) -> io::Result<Redis> {
        Redis::start_with(self)
    }
}

/// One `redis-server`.
#[derive(Debug)]
pub struct Redis {
    folder: TempDir,
    options: RedisOptions,
    port: u16,
    tls_port: Option<u16>,
    cluster_port: Option<u16>,
    process: Option<Child>,
}

impl Redis {
    /// Starts one that keeps everything in memory only, without a password.
    ///
    /// # Errors
    /// When it does not start; with what it logged.
    pub fn start() -> io::Result<Self> {
        RedisOptions::default().start()
    }

    /// Starts one that listens with TLS too; see [`Redis::tls_url`] and [`Redis::ca_file`].
    ///
    /// # Errors
    /// When it does not start; with what it logged.
    pub fn start_with_tls() -> io::Result<Self> {
        RedisOptions::default().tls(true).start()
    }

    fn start_with(options: RedisOptions) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("throughline-redis-").tempdir()?;
        if options.tls {
            make_certificates(&folder)?;
        }
        let mut redis = Self { folder, options, port: 0, tls_port: None, cluster_port: None, process: None };
        let clustered = redis.options.settings.iter().any(|(name, _)| name == "cluster-enabled");
        let mut tried = 1;
        loop {
            redis.port = free_port()?;
            redis.tls_port = if redis.options.tls { Some(free_port()?) } else { None };
            redis.cluster_port = if clustered { Some(free_port()?) } else { None };
            match redis.start_again() {
                Err(_) if tried < TRIES => tried += 1,
                outcome => return outcome.map(|()| redis),
            }
        }
    }

    /// The folder with everything that it writes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where it listens without TLS.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// How it is reached, with the password.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_through(self.address())
    }

    /// The same through a proxy.
    #[must_use]
    pub fn url_through(&self, address: SocketAddr) -> String {
        match &self.options.password {
            Some(password) => format!("redis://:{password}@{address}"),
            None => format!("redis://{address}"),
        }
    }

    /// How it is reached with TLS, if it is. Its certificate is for the name `localhost`.
    #[must_use]
    pub fn tls_url(&self) -> Option<String> {
        self.tls_port.map(|port| format!("rediss://localhost:{port}"))
    }

    /// The certificate of the authority that signed its own.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// When the system does not do it.
    pub fn kill(&mut self) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.kill()?;
        process.wait().map(drop)
    }

    /// Starts it after [`Redis::kill`], on the same ports: empty, unless it writes an append-only file.
    ///
    /// # Errors
    /// When it does not start; with what it logged.
    pub fn start_again(&mut self) -> io::Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let log = File::create(self.log_file())?;
        let mut command = Command::new("redis-server");
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        let (append_only, sync) = if self.options.append_only { ("yes", "always") } else { ("no", "no") };
        command.args(["--appendonly", append_only, "--appendfsync", sync]);
        if let Some(password) = &self.options.password {
            command.args(["--requirepass", password]);
        }
        if let Some(port) = self.tls_port {
            command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
            command.args(["--tls-cert-file", "server.pem", "--tls-key-file", "server-key.pem"]);
            command.args(["--tls-ca-cert-file", "ca.pem"]);
        }
        if let Some(port) = self.cluster_port {
            command.args(["--cluster-port", &port.to_string()]);
        }
        for (name, value) in &self.options.settings {
            command.args([format!("--{name}"), value.clone()]);
        }
        let process = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("redis-server does not start ({error}); is it installed?"))
        })?;
        self.process = Some(process);
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Our own process, not whoever else may listen on this port.
            if let Some(process) = &mut self.process
                && process.try_wait()?.is_some()
            {
                self.process = None;
                return Err(self.failed("Redis ended while it started"));
            }
            if self.command(&["PING"]).is_ok_and(|answer| answer == "PONG") {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let _ = self.kill();
                return Err(self.failed("Redis does not answer"));
            }
            thread::sleep(LOOK);
        }
    }

    /// Stops it in the middle of whatever it does (SIGSTOP): a hang.
    ///
    /// # Errors
    /// When the system does not do it.
    pub fn pause(&self) -> io::Result<()> {
        self.signal("-STOP")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When the system does not do it.
    pub fn resume(&self) -> io::Result<()> {
        self.signal("-CONT")
    }

    /// Sends a command over a connection of its own. The elements of an array follow each other
    /// in lines.
    ///
    /// # Errors
    /// When it does not answer, or answers with an error.
    pub fn command(&self, words: &[&str]) -> io::Result<String> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.command_bytes(&words)
    }

    /// The same with arguments that are no text.
    ///
    /// # Errors
    /// When it does not answer, or answers with an error.
    pub fn command_bytes(&self, words: &[&[u8]]) -> io::Result<String> {
        let stream = TcpStream::connect_timeout(&self.address(), TALK)?;
        stream.set_read_timeout(Some(TALK))?;
        stream.set_write_timeout(Some(TALK))?;
        let mut answers = BufReader::new(&stream);
        if let Some(password) = &self.options.password {
            (&stream).write_all(&request(&[b"AUTH", password.as_bytes()]))?;
            answer(&mut answers)?;
        }
        (&stream).write_all(&request(words))?;
        answer(&mut answers)
    }

    fn signal(&self, name: &str) -> io::Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        let status = Command::new("kill").args([name, &process.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other("the signal was not sent")) }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("redis.log")
    }

    fn failed(&self, what: &str) -> io::Error {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        io::Error::other(format!("{what}; its log says:\n{log}"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too.
        let _ = self.kill();
    }
}

/// Several `redis-server` that share the slots of one cluster, without replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts `count` nodes, and waits until each knows that all slots are served. A node that
    /// fails takes only its own slots away.
    ///
    /// # Errors
    /// When the nodes do not start or do not find each other.
    pub fn start(count: u16) -> io::Result<Self> {
        const SLOTS: u32 = 16384;
        let nodes = (0..count)
            .map(|_| {
                RedisOptions::default()
                    .setting("cluster-enabled", "yes")
                    .setting("cluster-node-timeout", "1000")
                    .setting("cluster-require-full-coverage", "no")
                    .start()
            })
            .collect::<io::Result<Vec<_>>>()?;
        let cluster = Self { nodes };
        let (first, total) = (cluster.nodes.first(), u32::from(count));
        for (index, node) in (0..).zip(&cluster.nodes) {
            let (from, to) = (SLOTS * index / total, SLOTS * (index + 1) / total - 1);
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()])?;
            if let Some(Redis { port, cluster_port: Some(bus), .. }) = first {
                node.command(&["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), &bus.to_string()])?;
            }
        }
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// Waits until each node knows that all slots are served.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_until_whole(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let known = format!("cluster_known_nodes:{}\r\n", self.nodes.len());
        for node in &self.nodes {
            loop {
                let info = node.command(&["CLUSTER", "INFO"])?;
                if ["cluster_state:ok\r\n", "cluster_slots_ok:16384\r\n", &known].iter().all(|line| info.contains(line))
                {
                    break;
                }
                if Instant::now() >= deadline {
                    return Err(node.failed(&format!("the cluster is not whole:\n{info}")));
                }
                thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    /// The URLs of all nodes, separated by commas.
    #[must_use]
    pub fn url(&self) -> String {
        self.nodes.iter().map(Redis::url).collect::<Vec<_>>().join(",")
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// Its nodes, to be killed and started again.
    pub fn nodes_mut(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }
}

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    request
}

/// Reads one answer: the lines of what it holds.
fn answer(stream: &mut BufReader<&TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.trim_end();
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("not an answer of Redis: {line:?}"));
    let (kind, rest) = line.split_at_checked(1).ok_or_else(invalid)?;
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "-" => Err(io::Error::other(rest.to_owned())),
        "$" => {
            let Ok(length) = rest.parse::<usize>() else { return Ok(String::new()) };
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" => {
            let elements: usize = rest.parse().unwrap_or(0);
            let lines = (0..elements).map(|_| answer(stream)).collect::<io::Result<Vec<_>>>()?;
            Ok(lines.join("\n"))
        }
        _ => Err(invalid()),
    }
}

/// An authority, and a certificate of it for `localhost`.
fn make_certificates(folder: &TempDir) -> io::Result<()> {
    let make = || -> Result<[(&'static str, String); 3], rcgen::Error> {
        let authority_key = rcgen::KeyPair::generate()?;
        let mut authority = rcgen::CertificateParams::new(Vec::new())?;
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "Throughline tests");
        let authority_certificate = authority.self_signed(&authority_key)?.pem();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let server_key = rcgen::KeyPair::generate()?;
        let server = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&server_key, &issuer)?;
        Ok([
            ("ca.pem", authority_certificate),
            ("server.pem", server.pem()),
            ("server-key.pem", server_key.serialize_pem()),
        ])
    };
    for (name, pem) in make().map_err(io::Error::other)? {
        fs::write(folder.path().join(name), pem)?;
    }
    Ok(())
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_its_data_over_a_kill_only_with_an_append_only_file() -> io::Result<()> {
        for (append_only, expected) in [(true, "kept"), (false, "")] {
            let mut redis = RedisOptions::default().append_only(append_only).password("secret").start()?;
            redis.command(&["SET", "name", "kept"])?;
            redis.kill()?;
            assert!(redis.command(&["PING"]).is_err());
            redis.start_again()?;
            assert_eq!(redis.command(&["GET", "name"])?, expected);
        }
        Ok(())
    }

    #[test]
    fn a_paused_one_hangs_until_it_is_resumed() -> io::Result<()> {
        let redis = Redis::start()?;
        redis.pause()?;
        let stream = TcpStream::connect(redis.address())?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        (&stream).write_all(&request(&[b"PING"]))?;
        assert!(answer(&mut BufReader::new(&stream)).is_err());
        redis.resume()?;
        assert_eq!(redis.command(&["PING"])?, "PONG");
        Ok(())
    }

    #[test]
    fn the_nodes_of_a_cluster_share_its_slots() -> io::Result<()> {
        let cluster = RedisCluster::start(3)?;
        let moved = cluster.nodes.iter().filter(|node| node.command(&["SET", "name", "value"]).is_err()).count();
        assert_eq!(moved, 2, "one of them has the slot");
        Ok(())
    }
}
