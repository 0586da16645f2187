//! Servers of one shop, on one PostgreSQL and one Redis.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use crate::postgres::Postgres;
use crate::redis::Redis;

/// A shop: its services, and the keys that all of its servers have.
#[derive(Debug)]
pub struct Fleet {
    /// The database that all servers use.
    pub postgres: Postgres,
    /// The Redis that all servers use.
    pub redis: Redis,
    /// A service key that all servers know.
    pub service_key: String,
    binary: PathBuf,
    folder: tempfile::TempDir,
}

/// A server process.
#[derive(Debug)]
pub struct Node {
    /// `HOST:PORT`, the same after it was started again.
    pub address: String,
    arguments: Vec<String>,
    binary: PathBuf,
    log: PathBuf,
    process: Child,
}

fn other(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

impl Fleet {
    /// Starts the services and makes the keys. `binary` is the server to start later.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(binary: impl Into<PathBuf>) -> io::Result<Self> {
        Self::with(binary, Postgres::options().fsync(true).start()?, Redis::start()?)
    }

    /// The same with services that are there already.
    ///
    /// # Errors
    /// When no keys can be made.
    pub fn with(binary: impl Into<PathBuf>, postgres: Postgres, redis: Redis) -> io::Result<Self> {
        let binary = binary.into();
        postgres.create_database("shop")?;
        let folder = tempfile::Builder::new().prefix("throughline-fleet-").tempdir()?;
        let made = command(&binary).args(["keys", "generate", "--operator"]).output()?;
        let made = String::from_utf8(made.stdout).map_err(io::Error::other)?;
        let value = |name: &str| made.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| other(name));
        std::fs::write(folder.path().join("keys"), value("THROUGHLINE_KEYS=")?)?;
        std::fs::write(folder.path().join("service-key-hashes"), value("THROUGHLINE_SERVICE_KEY_HASHES=")?)?;
        let service_key = value("# service key, give it to the shop's back end: ")?.to_owned();
        Ok(Self { postgres, redis, service_key, binary, folder })
    }

    /// The file with the key ring that all servers read.
    #[must_use]
    pub fn keys_file(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// Runs another command of the binary; what it printed.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn run(&self, arguments: &[&str]) -> io::Result<String> {
        let done = command(&self.binary).args(arguments).output()?;
        if !done.status.success() {
            return Err(other(String::from_utf8_lossy(&done.stderr)));
        }
        String::from_utf8(done.stdout).map_err(io::Error::other)
    }

    /// A server on both services.
    ///
    /// # Errors
    /// When it does not start; with what it logged.
    pub fn node(&self, name: &str, more: &[&str]) -> io::Result<Node> {
        self.node_on(name, &self.postgres.url("shop"), Some(&self.redis.url()), more)
    }

    /// A server on services at these addresses, which may be those of proxies in between.
    ///
    /// # Errors
    /// When it does not start; with what it logged.
    pub fn node_on(&self, name: &str, database: &str, redis: Option<&str>, more: &[&str]) -> io::Result<Node> {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let (keys, hashes) = (file("keys"), file("service-key-hashes"));
        let mut arguments: Vec<String> = ["serve", "--listen", "127.0.0.1:0", "--open-metrics", "true"]
            .into_iter()
            .chain(["--keys-file", &keys, "--service-key-hashes-file", &hashes, "--database-url", database])
            .chain(["--session-creations-per-minute", "1000000", "--max-connections-per-address", "20000"])
            // One machine is all buyers and back ends, and as fast as it can be.
            .chain(RATES.into_iter().flat_map(|rate| [rate, "1000000000"]))
            .map(str::to_owned)
            .collect();
        arguments.extend(redis.into_iter().flat_map(|url| ["--redis-url".to_owned(), url.to_owned()]));
        arguments.extend(more.iter().map(|&more| more.to_owned()));
        let log = self.folder.path().join(format!("{name}.log"));
        let (process, address) = spawn(&self.binary, &arguments, &log)?;
        // It comes back where its clients look for it.
        let listen = arguments.iter_mut().find(|argument| *argument == "127.0.0.1:0");
        if let Some(listen) = listen {
            listen.clone_from(&address);
        }
        Ok(Node { address, arguments, binary: self.binary.clone(), log, process })
    }
}

/// What limits how often buyers and back ends may ask.
const RATES: [&str; 5] = [
    "--requests-per-minute-per-address",
    "--requests-per-minute-without-credential",
    "--requests-per-minute-per-session",
    "--requests-per-minute-per-service-key",
    "--requests-per-minute-per-tenant",
];

/// The binary, without anything from the environment that the tests run in.
fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("THROUGHLINE_")) {
        command.env_remove(name);
    }
    command
}

fn spawn(binary: &Path, arguments: &[String], log: &Path) -> io::Result<(Child, String)> {
    let appended = File::options().create(true).append(true).open(log)?;
    let mut process = command(binary).args(arguments).stdout(Stdio::piped()).stderr(appended).spawn()?;
    let said = process.stdout.take().ok_or_else(|| other("it has no output"))?;
    let line = BufReader::new(said).lines().next().transpose()?;
    match line.as_deref().and_then(|line| line.strip_prefix("listening on http://")) {
        Some(address) => Ok((process, address.to_owned())),
        None => {
            let _ = process.kill();
            let _ = process.wait();
            Err(other(format!("it does not listen: {line:?}; {}", std::fs::read_to_string(log).unwrap_or_default())))
        }
    }
}

impl Node {
    fn signal(&self, name: &str) -> io::Result<()> {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args([name, &id]).status()?;
        status.success().then_some(()).ok_or_else(|| other(format!("kill {name} {id}: {status}")))
    }

    /// Kills it: no chance to do anything.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait().map(drop)
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        self.signal("-TERM")?;
        self.process.wait()
    }

    /// Asks it to stop, and does not wait.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn ask_to_stop(&self) -> io::Result<()> {
        self.signal("-TERM")
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system can't tell.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// Starts it at the same address, after it was killed or stopped.
    ///
    /// # Errors
    /// When it does not start; with what it logged.
    pub fn start_again(&mut self) -> io::Result<()> {
        let (process, _) = spawn(&self.binary, &self.arguments, &self.log)?;
        self.process = process;
        Ok(())
    }

    /// Freezes it.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn pause(&self) -> io::Result<()> {
        self.signal("-STOP")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn resume(&self) -> io::Result<()> {
        self.signal("-CONT")
    }

    /// Has it read its keys again.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn reload(&self) -> io::Result<()> {
        self.signal("-HUP")
    }

    /// Its process's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything that it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What `/readyz` says, with its status.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn readiness(&self) -> reqwest::Result<(u16, Value)> {
        let answer = reqwest::get(format!("http://{}/readyz", self.address)).await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// The sum of all series of a metric.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, name: &str) -> reqwest::Result<f64> {
        self.metric_of(name, &[]).await
    }

    /// The sum of those series of a metric that have these labels.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric_of(&self, name: &str, labels: &[(&str, &str)]) -> reqwest::Result<f64> {
        let text = reqwest::get(format!("http://{}/metrics", self.address)).await?.text().await?;
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let is_it = |line: &&str| {
            let is_named = line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
            is_named && labels.iter().all(|label| line.contains(label))
        };
        Ok(text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What the server had to say is what explains a test that fails.
        if std::thread::panicking() {
            eprintln!("--- log of {}, {:?}:\n{}", self.address, self.process.try_wait(), self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
