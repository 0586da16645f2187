//! A private PostgreSQL: its own folder, its own port, ended with its owner.
//!
//! Everything blocks: tests call this before and between what they measure. PostgreSQL refuses to run as root, so root
//! starts it as the user `postgres`, which the distributions' packages create.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::small_disk::SmallDisk;

/// The superuser of every private server; it needs no password.
pub const USER: &str = "postgres";

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one attempt at talking to the server may take.
const TALK: Duration = Duration::from_secs(10);

/// Between two looks at whether something has happened.
const LOOK: Duration = Duration::from_millis(10);

/// How often another port is tried when somebody else took the one that was free.
const PORTS: u32 = 5;

/// How a private PostgreSQL is set up.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    fsync: bool,
    disk: Option<u64>,
    settings: Vec<(String, String)>,
}

impl PostgresOptions {
    /// Whether commits reach the disk before they are acknowledged. Off unless it is asked for: only tests that kill
    /// the server need it.
    #[must_use]
    pub fn fsync(mut self, on: bool) -> Self {
        self.fsync = on;
        self
    }

    /// Puts everything that it stores on a disk of its own of so many bytes, which [`Postgres::fill_disk`] fills. In memory,
    /// so nothing outlives the machine.
    ///
    /// The start fails with [`io::ErrorKind::PermissionDenied`] where we may not mount anything.
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }

    /// Sets one of PostgreSQL's own settings, such as `max_connections`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it. Returns when it answers queries.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or did not start.
    pub fn start(self) -> io::Result<Postgres> {
        let binaries = find_binaries()?;
        let owner = owner()?;
        let folder = tempfile::Builder::new().prefix("throughline-postgres-").tempdir()?;
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group))?;
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
        let disk = self.disk.map(|bytes| SmallDisk::mount(folder.path().join("data"), bytes, owner)).transpose()?;
        let mut postgres = Postgres { binaries, owner, disk, folder, options: self, port: 0, process: None };
        postgres.initialize()?;
        postgres.start_again()?;
        Ok(postgres)
    }
}

/// A running (or, in between, stopped) private PostgreSQL. Dropping it ends its processes and removes its folder.
#[derive(Debug)]
pub struct Postgres {
    binaries: PathBuf,
    /// As whom it runs, when that is not who we are.
    owner: Option<(u32, u32)>,
    /// Has to go before the folder that it is mounted in.
    disk: Option<SmallDisk>,
    folder: TempDir,
    options: PostgresOptions,
    port: u16,
    process: Option<Child>,
}

/// A table that nobody else can read or write, until this is dropped.
#[derive(Debug)]
pub struct LockedTable {
    _session: TcpStream,
}

impl Postgres {
    /// Starts one with the usual options.
    ///
    /// # Errors
    /// See [`PostgresOptions::start`].
    pub fn start() -> io::Result<Self> {
        Self::options().start()
    }

    /// What can be chosen before the start.
    #[must_use]
    pub fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    /// The address of one of its databases, for a client.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// The folder of PostgreSQL's own programs, such as `pg_dump`.
    ///
    /// # Errors
    /// When PostgreSQL is not installed.
    pub fn program_folder() -> io::Result<PathBuf> {
        find_binaries()
    }

    /// The folder with the data of all its databases.
    #[must_use]
    pub fn data_folder(&self) -> PathBuf {
        self.data()
    }

    /// Gives the folder with the data, which somebody has put there, to whom it runs as.
    ///
    /// # Errors
    /// When that is refused.
    pub fn own_data_folder(&self) -> io::Result<()> {
        fs::set_permissions(self.data(), fs::Permissions::from_mode(0o700))?;
        let Some((user, group)) = self.owner else { return Ok(()) };
        let status = Command::new("chown").arg("-R").arg(format!("{user}:{group}")).arg(self.data()).status()?;
        status.success().then_some(()).ok_or_else(|| io::Error::other(format!("chown: {status}")))
    }

    /// The folder with everything that it writes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Creates an empty database.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub fn create_database(&self, name: &str) -> io::Result<()> {
        self.execute("postgres", &format!("CREATE DATABASE {}", quoted(name)))
    }

    /// Creates a database that is a copy of `template`, which nobody may be connected to.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub fn copy_database(&self, name: &str, template: &str) -> io::Result<()> {
        self.execute("postgres", &format!("CREATE DATABASE {} TEMPLATE {}", quoted(name), quoted(template)))
    }

    /// Runs a statement in `database` as the superuser, and drops the rows that it answers with.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub fn execute(&self, database: &str, statement: &str) -> io::Result<()> {
        let mut stream = self.connect(database)?;
        let mut body = statement.as_bytes().to_vec();
        body.push(0);
        stream.write_all(&message(Some(b'Q'), &body))?;
        read_until_ready(&mut stream)
    }

    /// Keeps everybody from reading and writing a table; they wait.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub fn lock_table(&self, database: &str, table: &str) -> io::Result<LockedTable> {
        let mut session = self.connect(database)?;
        let statement = format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE\0", quoted(table));
        session.write_all(&message(Some(b'Q'), statement.as_bytes()))?;
        read_until_ready(&mut session)?;
        Ok(LockedTable { _session: session })
    }

    /// Takes all the place that is left on its disk.
    ///
    /// # Errors
    /// When it was not started with a disk of its own, or something else is wrong with that.
    pub fn fill_disk(&self) -> io::Result<()> {
        self.disk.as_ref().ok_or_else(|| io::Error::other("it has no disk of its own"))?.fill()
    }

    /// Gives back what [`Postgres::fill_disk`] took.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free_disk(&self) -> io::Result<()> {
        self.disk.as_ref().ok_or_else(|| io::Error::other("it has no disk of its own"))?.free()
    }

    /// Stops it in an orderly way: clients are cut off, everything is written down.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_fast(&mut self) -> io::Result<()> {
        self.stop("-INT")
    }

    /// Stops it at once; the next start recovers from the log.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_immediate(&mut self) -> io::Result<()> {
        self.stop("-QUIT")
    }

    /// Kills all its processes with SIGKILL, as the kernel does when memory runs out.
    ///
    /// # Errors
    /// When its processes cannot be found or do not end.
    pub fn kill(&mut self) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let family = family(process.id());
        // Even when the family is not known the postmaster must not stay; its children end without it.
        let killed = process.kill();
        let family = family?;
        let _ = signal("-KILL", &family);
        process.wait()?;
        killed?;
        wait_for("killed processes of PostgreSQL to end", || Ok(!any_alive(&family)?))
    }

    /// Starts it after a stop, or after it has ended by itself, with the same data and the same port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&mut self) -> io::Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        let keeps_port = self.port != 0;
        let mut attempt = 1;
        loop {
            if !keeps_port {
                self.port = free_port()?;
            }
            match self.start_once() {
                Err(_) if attempt < PORTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// Whether it was started and has not ended, be it by itself.
    ///
    /// # Errors
    /// When the system can't tell.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.process.as_mut().map(Child::try_wait).transpose()?.is_some_and(|ended| ended.is_none()))
    }

    /// Freezes all its processes (SIGSTOP): connections stay open, and nothing answers.
    ///
    /// # Errors
    /// When its processes cannot be found.
    pub fn pause(&self) -> io::Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        // The postmaster first, so that it starts nothing more; it alone does not hold its children.
        signal("-STOP", &[process.id()])?;
        signal("-STOP", &family(process.id())?)
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    /// When its processes cannot be found.
    pub fn resume(&self) -> io::Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        signal("-CONT", &family(process.id())?)
    }

    /// What the server wrote to its log, to be shown when a test fails.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn initialize(&self) -> io::Result<()> {
        let mut command = self.command("initdb");
        command.arg("-D").arg(self.data()).args(["-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8"]);
        let output = command.args(["--locale=C", "--no-instructions"]).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr))))
    }

    fn start_once(&mut self) -> io::Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.log_file())?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string());
        command.arg("-k").arg(self.folder.path());
        let fsync = if self.options.fsync { "fsync=on" } else { "fsync=off" };
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", fsync, "-c", "shared_buffers=32MB"]);
        command.args(["-c", "unix_socket_permissions=0700", "-c", "max_connections=200"]);
        for (name, value) in &self.options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn()?);
        let answers = wait_for("PostgreSQL to answer", || {
            if let Some(status) = self.process.as_mut().map(Child::try_wait).transpose()?.flatten() {
                return Err(io::Error::other(format!("PostgreSQL ended with {status}")));
            }
            Ok(self.connect("postgres").is_ok())
        });
        answers.map_err(|error| {
            let _ = self.kill();
            io::Error::other(format!("{error}; its log says:\n{}", self.log()))
        })
    }

    fn stop(&mut self, how: &str) -> io::Result<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        signal(how, &[process.id()])?;
        wait_for("PostgreSQL to stop", || Ok(process.try_wait()?.is_some()))?;
        self.process = None;
        Ok(())
    }

    /// One of PostgreSQL's programs, as the user that owns the folder.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command.current_dir(self.folder.path());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Opens a connection and waits until it can take a query.
    fn connect(&self, database: &str) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.address(), TALK)?;
        stream.set_read_timeout(Some(TALK))?;
        stream.set_write_timeout(Some(TALK))?;
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for text in ["user", USER, "database", database] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        stream.write_all(&message(None, &body))?;
        read_until_ready(&mut stream)?;
        Ok(stream)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A frozen process dies of SIGKILL as well. There is nobody to tell what failed here.
        let _ = self.kill();
    }
}

/// A message of PostgreSQL's protocol. The first one of a connection has no kind.
fn message(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// Reads messages until the server is ready for the next query. An error that it tells is returned.
fn read_until_ready(stream: &mut TcpStream) -> io::Result<()> {
    let mut refused = None;
    loop {
        let mut head = [0; 5];
        if let Err(error) = stream.read_exact(&mut head) {
            // After a fatal error the server closes the connection instead of becoming ready.
            return Err(refused.unwrap_or(error));
        }
        let [kind, length @ ..] = head;
        let length = u64::from(u32::from_be_bytes(length)).saturating_sub(4);
        let mut body = Vec::new();
        stream.take(length).read_to_end(&mut body)?;
        match kind {
            b'E' => refused = Some(io::Error::other(String::from_utf8_lossy(&body).replace('\0', " "))),
            b'Z' => return refused.map_or(Ok(()), Err),
            _ => {}
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The folder of `initdb` and `postgres`.
fn find_binaries() -> io::Result<PathBuf> {
    let is_there = |folder: &PathBuf| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(folder) = std::env::split_paths(&path).find(is_there) {
        return Ok(folder);
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        if is_there(&folder) {
            return Ok(folder);
        }
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).filter(is_there).collect();
    folders.sort();
    folders.pop().ok_or_else(|| {
        let text = "PostgreSQL is not installed: `apt-get install postgresql`, or put its `bin` folder into PATH";
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

/// As whom PostgreSQL must run: nobody else, unless we are root.
fn owner() -> io::Result<Option<(u32, u32)>> {
    let root = fs::metadata("/proc/self").or_else(|_| fs::metadata(Path::new(".")))?.uid() == 0;
    if !root {
        return Ok(None);
    }
    let id = |of: &str| -> io::Result<u32> {
        let output = Command::new("id").args([of, USER]).output()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().map_err(|_| {
            io::Error::other(
                "PostgreSQL does not run as root, and there is no user `postgres` to run it as; create one",
            )
        })
    };
    Ok(Some((id("-u")?, id("-g")?)))
}

/// A port that nobody listens on right now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The process and its children. PostgreSQL's children are sessions of their own, so no process group holds them.
fn family(parent: u32) -> io::Result<Vec<u32>> {
    let output = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let children = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (process, of) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        (of == parent).then_some(process)
    });
    Ok(std::iter::once(parent).chain(children).collect())
}

fn any_alive(processes: &[u32]) -> io::Result<bool> {
    let list: Vec<String> = processes.iter().map(u32::to_string).collect();
    let output = Command::new("ps").args(["-o", "stat=", "-p", &list.join(",")]).output()?;
    // What is dead and not collected yet counts as gone.
    Ok(String::from_utf8_lossy(&output.stdout).lines().any(|state| !state.trim_start().starts_with('Z')))
}

/// Sends a signal. A process that is gone already is as good as told.
fn signal(name: &str, processes: &[u32]) -> io::Result<()> {
    let list = processes.iter().map(u32::to_string);
    Command::new("kill").arg(name).args(list).stderr(Stdio::null()).status().map(drop)
}

fn wait_for(what: &str, mut happened: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !happened()? {
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("gave up waiting for {what}")));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_freezes_dies_and_comes_back_with_its_data() {
        let mut postgres = Postgres::start().unwrap();
        postgres.create_database("shop").unwrap();
        postgres.execute("shop", "CREATE TABLE kept (id INT)").unwrap();
        assert!(postgres.execute("shop", "CREATE TABLE kept (id INT)").unwrap_err().to_string().contains("kept"));

        postgres.pause().unwrap();
        let mut frozen = TcpStream::connect(postgres.address()).unwrap();
        frozen.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        frozen.write_all(&message(None, &80_877_103_u32.to_be_bytes())).unwrap();
        assert!(frozen.read(&mut [0]).is_err(), "a frozen server answers nothing");
        postgres.resume().unwrap();
        postgres.execute("shop", "SELECT * FROM kept").unwrap();

        postgres.kill().unwrap();
        assert!(TcpStream::connect(postgres.address()).is_err());
        postgres.start_again().unwrap();
        postgres.execute("shop", "SELECT * FROM kept").unwrap();
        postgres.stop_fast().unwrap();
        postgres.start_again().unwrap();
        postgres.stop_immediate().unwrap();
        postgres.start_again().unwrap();
        postgres.execute("shop", "SELECT * FROM kept").unwrap();

        let (folder, address) = (postgres.folder.path().to_owned(), postgres.address());
        drop(postgres);
        assert!(!folder.exists() && TcpStream::connect(address).is_err());
    }
}
