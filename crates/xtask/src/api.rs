//! The API as it describes itself: schemathesis sends the running server what its description allows and what it does
//! not, and compares each answer with the description.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{announce, program, status};
use crate::provision;
use crate::workspace;

/// The cases are the same at each run.
const SEED: u32 = 20_261_128;

/// How many cases are made up for each route, beside those that its description leads to one by one.
const EXAMPLES: u32 = 25;

/// What is compared, and what it means to be refused, which no description can say of each case.
const SETTINGS: &str = "crates/xtask/schemathesis.toml";

/// Ends the server when it is dropped.
struct Server {
    process: Child,
    address: String,
    key: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, of which the requests that failed have told.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// With a database of its own, which is gone with `folder`.
    fn start(folder: &Path) -> Result<Self> {
        let log = fs::File::create(folder.join("log"))?;
        let database = format!("sqlite:{}", folder.join("sessions.db").display());
        let mut command = program(workspace::built_program("debug", "throughline")?);
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--database-url", &database]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("THROUGHLINE_") {
                command.env_remove(name);
            }
        }
        let mut process = command.stdout(Stdio::piped()).stderr(log).spawn().context("could not start the server")?;
        let lines = BufReader::new(process.stdout.take().context("the server's output was not piped")?).lines();
        let mut server = Self { process, address: String::new(), key: String::new() };
        for line in lines {
            let line = line?;
            if let Some(key) = line.strip_prefix("dev service key: ") {
                key.clone_into(&mut server.key);
            }
            if let Some(address) = line.strip_prefix("listening on ") {
                address.clone_into(&mut server.address);
                return Ok(server);
            }
        }
        bail!("the server did not start:\n{}", fs::read_to_string(folder.join("log")).unwrap_or_default())
    }
}

/// Runs it; the report is in JUnit's format.
pub fn test(report: &Path) -> Result<ExitStatus> {
    let schemathesis = provision::python_program("schemathesis", "crates/xtask/schemathesis.txt")?;
    announce("building the server");
    workspace::build_programs(&["throughline"])?;
    announce("the API, as its description says");
    let folder = workspace::path("target/api-test");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let server = Server::start(&folder)?;
    let mut command = program(schemathesis);
    command
        .arg("--config-file")
        .arg(workspace::path(SETTINGS))
        .arg("run")
        .arg(format!("{}/openapi.json", server.address))
        .args(["--header", &format!("Authorization: Bearer {}", server.key)])
        .args(["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"])
        // A deleted session leaves a tombstone without personal data, which can be read, so that nothing revives it.
        .args(["--exclude-checks", "use_after_free"])
        .args(["--seed", &SEED.to_string(), "--max-examples", &EXAMPLES.to_string()])
        .args(["--generation-database", "none", "--no-color"])
        .args(["--report", "junit"])
        .arg("--report-junit-path")
        .arg(report)
        // Where it keeps what it remembers between runs.
        .current_dir(&folder);
    status(&mut command)
}
