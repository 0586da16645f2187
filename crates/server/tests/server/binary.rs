//! Starting the binary.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub struct Server {
    pub process: Child,
    pub lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    pub folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The binary, without anything from the environment that the tests run in.
pub fn throughline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throughline"));
    command.args(arguments);
    for (name, _) in std::env::vars() {
        if name.starts_with("THROUGHLINE_") {
            command.env_remove(name);
        }
    }
    command
}

pub fn start(folder: tempfile::TempDir, more: &[&str]) -> Server {
    start_with(folder, more, &[])
}

/// The same with these variables in its environment.
pub fn start_with(folder: tempfile::TempDir, more: &[&str], variables: &[(&str, &str)]) -> Server {
    let url = format!("sqlite:{}", folder.path().join("data/t.db").display());
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--database-url", &url];
    arguments.extend(more);
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut command = throughline(&arguments);
    command.envs(variables.iter().copied());
    let mut process = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    Server { process, lines, folder }
}

impl Server {
    pub fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub fn stop(&mut self) -> (std::process::ExitStatus, Duration) {
        let started = Instant::now();
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        (self.process.wait().unwrap(), started.elapsed())
    }
}

pub fn address(line: &str) -> &str {
    line.strip_prefix("listening on http://").unwrap()
}

/// Sends `bytes` as they are and reads until the server closes the connection.
pub fn raw(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A server that refuses before all was read may reset the connection after its answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The value of a header of an answer as it came.
pub fn header_of<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value))
}

pub fn request(address: &str, path: &str, headers: &str) -> String {
    ask(address, path, headers).unwrap()
}

/// The answer, or what went wrong on the way: the server may refuse the connection.
pub fn try_request(address: &str, path: &str) -> std::io::Result<String> {
    ask(address, path, "")
}

fn ask(address: &str, path: &str, headers: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{headers}\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub fn failure(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// A server in development mode, with its address and service key.
pub struct Dev {
    pub server: Server,
    pub address: String,
    pub service_key: String,
}

pub fn dev(more: &[&str]) -> Dev {
    dev_with(more, &[])
}

/// The same with these variables in its environment.
pub fn dev_with(more: &[&str], variables: &[(&str, &str)]) -> Dev {
    let mut arguments = vec!["--dev"];
    arguments.extend(more);
    let mut server = start_with(tempfile::tempdir().unwrap(), &arguments, variables);
    let service_key = server.line().strip_prefix("dev service key: ").unwrap().to_owned();
    let address = address(&server.line()).to_owned();
    Dev { server, address, service_key }
}
