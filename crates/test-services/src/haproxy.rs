//! A private HAProxy: ports of its own, ended with its owner. It runs a configuration that takes addresses from the environment,
//! as `examples/deployment/proxy/haproxy.cfg` does.
//!
//! Starting blocks: tests do it before what they measure.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at whether something has happened.
const LOOK: Duration = Duration::from_millis(10);

/// How often other ports are tried when somebody else took those that were free.
const TRIES: u32 = 5;

/// A running HAProxy in front of two servers.
#[derive(Debug)]
pub struct HaProxy {
    address: SocketAddr,
    status: SocketAddr,
    process: Child,
    folder: TempDir,
}

/// What HAProxy says of one of its servers, or of all of them together.
#[derive(Debug, Clone)]
pub struct ServerStatus(BTreeMap<String, String>);

impl ServerStatus {
    /// Whether it gets requests.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.get("status").is_some_and(|status| status.starts_with("UP"))
    }

    /// The status of the answer to the last health check, if there was one.
    #[must_use]
    pub fn check_code(&self) -> Option<u16> {
        self.0.get("check_code")?.parse().ok()
    }

    /// One of the counters under HAProxy's own name for it, such as `wretr`.
    ///
    /// # Errors
    /// When HAProxy has no such counter.
    pub fn count(&self, name: &str) -> io::Result<u64> {
        let count = self.0.get(name).and_then(|text| text.parse().ok());
        count.ok_or_else(|| io::Error::other(format!("HAProxy tells no {name}: {:?}", self.0)))
    }
}

impl HaProxy {
    /// Starts it with this configuration, in front of servers at these addresses; returns when it listens.
    ///
    /// # Errors
    /// When HAProxy is not installed, or does not start; with what it logged.
    pub fn start(configuration: &Path, servers: [&str; 2]) -> io::Result<Self> {
        let binary = find_binary()?;
        let mut tried = 1;
        loop {
            match Self::start_once(&binary, configuration, servers) {
                Err(_) if tried < TRIES => tried += 1,
                outcome => return outcome,
            }
        }
    }

    /// Has a configuration judged without starting anything, with these variables more.
    ///
    /// # Errors
    /// When HAProxy is not installed, or has something against it; with what it said.
    pub fn judge(configuration: &Path, variables: &[(&str, &str)]) -> io::Result<()> {
        let mut command = Command::new(find_binary()?);
        command.arg("-c").arg("-f").arg(configuration).env_clear().envs(variables.iter().copied());
        for (name, port) in [("LISTEN", 1), ("STATUS_LISTEN", 2), ("SERVER_1", 3), ("SERVER_2", 4)] {
            command.env(name, format!("127.0.0.1:{port}"));
        }
        let said = command.output()?;
        let error = || io::Error::other(String::from_utf8_lossy(&said.stderr));
        said.status.success().then_some(()).ok_or_else(error)
    }

    fn start_once(binary: &Path, configuration: &Path, servers: [&str; 2]) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("throughline-haproxy-").tempdir()?;
        let (address, status) = (free_address()?, free_address()?);
        let log = File::create(folder.path().join("log"))?;
        let mut command = Command::new(binary);
        command.arg("-db").arg("-f").arg(configuration).env_clear();
        command.env("LISTEN", address.to_string()).env("STATUS_LISTEN", status.to_string());
        command.env("SERVER_1", servers[0]).env("SERVER_2", servers[1]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut proxy = Self { address, status, process: command.spawn()?, folder };
        let deadline = Instant::now() + PATIENCE;
        while [address, status].iter().any(|listens| TcpStream::connect(listens).is_err()) {
            let has_ended = proxy.process.try_wait()?.is_some();
            if has_ended || Instant::now() >= deadline {
                return Err(io::Error::other(format!("HAProxy does not listen; it said:\n{}", proxy.log())));
            }
            thread::sleep(LOOK);
        }
        Ok(proxy)
    }

    /// Where clients come.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What it says of a server; of all servers of a backend under the name `BACKEND`.
    ///
    /// # Errors
    /// When it does not answer, or has no such server.
    pub async fn server(&self, backend: &str, server: &str) -> Result<ServerStatus, String> {
        let answer = reqwest::get(format!("http://{}/stats;csv", self.status)).await;
        let table = answer.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())?;
        let mut lines = table.lines();
        let head: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
        let rows = lines.map(|line| -> BTreeMap<String, String> {
            head.iter().map(|&name| name.to_owned()).zip(line.split(',').map(str::to_owned)).collect()
        });
        let is = |row: &BTreeMap<String, String>, name: &str, value: &str| row.get(name).is_some_and(|is| is == value);
        let mut rows = rows.filter(|row| is(row, "pxname", backend) && is(row, "svname", server));
        rows.next().map(ServerStatus).ok_or_else(|| format!("HAProxy has no {server} in {backend}: {table}"))
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Debian has it where not everybody's `PATH` looks.
fn find_binary() -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders
        .map(|folder| folder.join("haproxy"))
        .find(|file| file.is_file())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "HAProxy is not installed: `apt-get install haproxy`"))
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
