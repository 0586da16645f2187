//! The demo: the server, the shop's page and its payment service, started together and ended together.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{announce, program, run as run_program, without_task_environment};
use crate::workspace::{self, NpmProject};
use crate::{npm, provision, wasm};

const START_LIMIT: Duration = Duration::from_secs(30);
/// How long an ended process may take to tidy up before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
const SERVICE_KEY_LINE: &str = "dev service key: ";

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Where the server listens.
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// The shop's port, on the server's address.
    #[arg(long, default_value_t = 5173)]
    shop_port: u16,
    /// The demo payment service's port, on the server's address.
    #[arg(long, default_value_t = 8788)]
    payment_port: u16,
}

impl Options {
    fn shop(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.shop_port)
    }

    /// The origins that the shop's page may have.
    fn shop_origins(&self) -> String {
        format!("http://{},http://localhost:{}", self.shop(), self.shop_port)
    }

    fn payment(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.payment_port)
    }
}

/// Builds and starts the demo, and stays until Ctrl-C or until one of its processes ends.
pub fn run(options: &Options) -> Result<()> {
    // Before minutes of building, not after.
    free(options.listen, "the server", "--listen")?;
    free(options.shop(), "the shop", "--shop-port")?;
    free(options.payment(), "the payment service", "--payment-port")?;

    npm::assemble(&wasm::Options::default())?;
    build_page_for(options.listen.port(), options.payment_port)?;
    announce("building the server");
    workspace::build_programs(&["throughline"])?;

    let (tell, events) = channel();
    let ctrl_c = tell.clone();
    ctrlc::set_handler(move || drop(ctrl_c.send(Event::Interrupted))).context("watching for Ctrl-C")?;

    let mut running = Running::default();
    announce("starting the server");
    let stdout = running.start_piped("the server", &mut server(options)?)?;
    read_service_key(stdout, tell);
    let key = match running.wait(&events, Some(START_LIMIT))? {
        Event::ServiceKey(key) => key,
        Event::Interrupted => return Ok(()),
    };
    announce("starting the payment service and the shop");
    running.start("the payment service", &mut payment_service(options, &key))?;
    running.start("the shop", &mut shop(options))?;
    announce(&format!("the server is at http://{}; its service key: {key}", options.listen));
    announce(&format!("the shop is open at http://{}/ (Ctrl-C ends everything)", options.shop()));
    running.wait(&events, None)?;
    announce("ending the demo");
    Ok(())
}

/// Builds the shop's page for the usual ports. The package has to be packed already.
pub fn build_page() -> Result<()> {
    build_page_for(8787, 8788)
}

/// Builds the shop's page to be compiled into the server, with its texts packed beside them.
pub fn build_embedded() -> Result<()> {
    npm::assemble(&wasm::Options::default())?;
    build_page()?;
    announce("packing the shop");
    run_program(program("node").arg("pack.mjs").current_dir(NpmProject::Demo.path()))
}

fn build_page_for(server_port: u16, payment_port: u16) -> Result<()> {
    provision::npm(NpmProject::Demo)?;
    announce("building the shop");
    run_program(
        program(NpmProject::Demo.program("vite"))
            .args(["build", "--logLevel", "warn"])
            .env("VITE_SERVER_PORT", server_port.to_string())
            .env("VITE_PAYMENT_PORT", payment_port.to_string())
            .current_dir(NpmProject::Demo.path()),
    )
}

fn free(address: SocketAddr, name: &str, option: &str) -> Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!(
                "{address}, the address of {name}, is taken: end the program that uses it, or choose another with {option}"
            )
        }
        Err(error) => Err(error).with_context(|| format!("{name} cannot listen on {address}")),
    }
}

fn server(options: &Options) -> Result<Command> {
    std::fs::create_dir_all(workspace::path("data")).context("making the folder for the database")?;
    let mut command = program(workspace::built_program("debug", "throughline")?);
    without_task_environment(&mut command);
    command.args(["serve", "--dev", "--listen", &options.listen.to_string()]);
    command.args(["--database-url", "sqlite:data/throughline.db"]);
    command.args(["--allowed-origins", &options.shop_origins()]);
    Ok(command)
}

fn payment_service(options: &Options, key: &str) -> Command {
    let mut command = program("node");
    command
        .arg("payment-service/main.mjs")
        .current_dir(NpmProject::Demo.path())
        // By environment: arguments can be read by everyone on the machine.
        .env("THROUGHLINE_SERVICE_KEY", key)
        .env("THROUGHLINE_URL", format!("http://{}", options.listen))
        .env("PAYMENT_LISTEN", options.payment().to_string())
        .env("SHOP_ORIGINS", options.shop_origins());
    command
}

fn shop(options: &Options) -> Command {
    let mut command = program(NpmProject::Demo.program("vite"));
    command.args(["preview", "--strictPort", "--logLevel", "warn", "--host", &options.listen.ip().to_string()]);
    command.args(["--port", &options.shop_port.to_string()]).current_dir(NpmProject::Demo.path());
    command
}

enum Event {
    ServiceKey(String),
    Interrupted,
}

/// Passes on what the server prints and looks for its key in it.
fn read_service_key(stdout: ChildStdout, tell: Sender<Event>) {
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            match line.split_once(SERVICE_KEY_LINE) {
                Some((_, key)) => drop(tell.send(Event::ServiceKey(key.trim().to_owned()))),
                None => println!("{line}"),
            }
        }
    });
}

/// The demo's processes; dropped, it ends them, the last started first.
#[derive(Default)]
struct Running(Vec<(&'static str, Child)>);

impl Running {
    fn start(&mut self, name: &'static str, command: &mut Command) -> Result<()> {
        let path = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.with_context(|| format!("starting {name}, {}", path.display()))?;
        self.0.push((name, child));
        Ok(())
    }

    fn start_piped(&mut self, name: &'static str, command: &mut Command) -> Result<ChildStdout> {
        self.start(name, command.stdout(Stdio::piped()))?;
        let (_, child) = self.0.last_mut().context("nothing was started")?;
        child.stdout.take().context("standard output was not piped")
    }

    /// Waits for an event; fails where a process ends first, or nothing happens within the limit.
    fn wait(&mut self, events: &Receiver<Event>, limit: Option<Duration>) -> Result<Event> {
        let started = Instant::now();
        loop {
            match events.recv_timeout(POLL) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("nothing is left to wait for"),
            }
            for (name, child) in &mut self.0 {
                if let Some(status) = child.try_wait()? {
                    bail!("{name} ended by itself: {status}");
                }
            }
            if limit.is_some_and(|limit| started.elapsed() > limit) {
                bail!("the server did not say that it is ready within {} s", START_LIMIT.as_secs());
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for (_, child) in self.0.iter_mut().rev() {
            // Once waited for, its number may belong to another process.
            if let (Ok(None), Ok(id)) = (child.try_wait(), i32::try_from(child.id())) {
                let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
            }
        }
        let deadline = Instant::now() + STOP_LIMIT;
        for (_, child) in self.0.iter_mut().rev() {
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    let _ = child.kill();
                    let _ = child.wait();
                } else {
                    thread::sleep(POLL);
                }
            }
        }
    }
}
