//! The programs that the server is compared with, as processes.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Where the peers are.
#[derive(Debug, Clone)]
pub struct Peers {
    /// Folder with the compiled ones.
    pub binaries: PathBuf,
    /// Folder with those for Node.js.
    pub scripts: PathBuf,
}

/// A running peer; ends with this value.
#[derive(Debug)]
pub struct Peer {
    /// `HOST:PORT`.
    pub address: String,
    _process: Child,
}

impl Peers {
    /// Starts one that was compiled.
    pub async fn binary(&self, name: &str, arguments: &[&str]) -> Result<Peer> {
        start(Command::new(self.binaries.join(name)).args(arguments), name).await
    }

    /// Starts one for Node.js.
    pub async fn script(&self, name: &str, arguments: &[&str]) -> Result<Peer> {
        let mut node = Command::new("node");
        node.arg(self.scripts.join(name)).args(arguments).env("NODE_ENV", "production");
        start(&mut node, name).await
    }
}

async fn start(command: &mut Command, name: &str) -> Result<Peer> {
    let mut process =
        command.stdout(Stdio::piped()).kill_on_drop(true).spawn().with_context(|| format!("starting {name}"))?;
    let output = process.stdout.take().context("it has no output")?;
    let line = BufReader::new(output).lines().next_line().await?;
    match line.as_deref().and_then(|line| line.strip_prefix("listening on http://")) {
        Some(address) => Ok(Peer { address: address.to_owned(), _process: process }),
        None => bail!("{name} does not listen: {line:?}"),
    }
}

/// What `pgbench -N` (simple update) reaches with so many clients, in transactions a second.
pub async fn pgbench(port: u16, database: &str, clients: usize, seconds: u64) -> Result<f64> {
    let program = pgbench_program().context("pgbench is not there; it comes with PostgreSQL")?;
    let connection = ["-h".to_owned(), "127.0.0.1".to_owned(), "-p".to_owned(), port.to_string()];
    let user = ["-U", throughline_test_services::postgres::USER];
    let made =
        Command::new(&program).args(&connection).args(user).args(["-i", "-q", "-s", "10", database]).output().await?;
    if !made.status.success() {
        bail!("pgbench -i: {}", String::from_utf8_lossy(&made.stderr));
    }
    let run = Command::new(&program)
        .args(&connection)
        .args(user)
        .args(["-N", "-c", &clients.to_string(), "-j", "2", "-T", &seconds.to_string(), database])
        .output()
        .await?;
    let text = String::from_utf8_lossy(&run.stdout);
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    tps.with_context(|| format!("pgbench said {text} {}", String::from_utf8_lossy(&run.stderr)))
}

fn pgbench_program() -> Option<PathBuf> {
    let on_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin"));
    on_path.chain(debian).map(|folder: PathBuf| folder.join("pgbench")).find(|file: &PathBuf| Path::is_file(file))
}
