//! The machine: folders, disk, port, clock, open files.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::Finding;
use crate::client_address::TrustedProxies;
use crate::clock::{Clock as _, SystemClock, rfc3339};
use crate::config::Config;
use crate::problem::chain;
use crate::tls::{Identity, Validity};

/// A clock before this was never set: 2026-01-01.
const EARLIEST_MS: i64 = 1_767_225_600_000;

/// Certificates are mostly renewed when they have some weeks left.
const EXPIRES_SOON_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// Open files beside connections of clients: Redis, logs, funnels, and some room.
const OTHER_FILES: usize = 64;

/// How long a server on our port may take to say that it is one of us.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = vec![listen(config.listen).await, secrecy(config)];
    findings.extend(certificate(config));
    findings.extend([open_files(config), clock()]);
    findings
}

/// Whether tokens and keys can be read on their way here.
fn secrecy(config: &Config) -> Finding {
    const CHECK: &str = "secrecy";
    if config.tls.is_some() {
        return Finding::ok(CHECK, "this server speaks TLS");
    }
    if config.listen.ip().is_loopback() {
        return Finding::ok(CHECK, "only this machine reaches the server, which speaks no TLS");
    }
    if config.trusted_proxies != TrustedProxies::default() {
        return Finding::ok(CHECK, "the server speaks no TLS; the trusted proxies have to");
    }
    Finding::warning(
        CHECK,
        format!("others reach {} without TLS: tokens and keys travel in the clear", config.listen),
        "give --tls-certificate-file and --tls-key-file; or, where a proxy in front speaks TLS, name it with --trusted-proxies",
    )
}

/// Whether TLS can be spoken, and for how long.
fn certificate(config: &Config) -> Option<Finding> {
    const CHECK: &str = "certificate";
    let files = config.tls.as_ref()?;
    let identity = match Identity::load(files) {
        Ok(identity) => identity,
        Err(error) => {
            let remedy = "mend or replace the files; the server does not start with these";
            return Some(Finding::error(CHECK, chain(&error), remedy));
        }
    };
    let (now_ms, until) = (SystemClock.now_ms(), rfc3339(identity.not_after_ms()));
    let renew = "renew it; a running server takes over what its files hold within a minute";
    Some(match identity.validity(now_ms) {
        Validity::NotYet => Finding::warning(
            CHECK,
            "its time has not begun, so browsers refuse it",
            "look at this machine's clock, or use the certificate from before",
        ),
        Validity::Expired => Finding::warning(CHECK, format!("it expired at {until}, so browsers refuse it"), renew),
        Validity::Valid if identity.validity(now_ms.saturating_add(EXPIRES_SOON_MS)) == Validity::Expired => {
            Finding::warning(CHECK, format!("it expires at {until}"), renew)
        }
        Validity::Valid => Finding::ok(CHECK, format!("it and its key belong together, and it is valid until {until}")),
    })
}

async fn listen(address: SocketAddr) -> Finding {
    const CHECK: &str = "listen";
    match TcpListener::bind(address).await {
        Ok(_) => Finding::ok(CHECK, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => match is_throughline(address).await {
            true => Finding::ok(CHECK, format!("a throughline server listens on {address} already")),
            false => Finding::error(
                CHECK,
                format!("another program listens on {address}"),
                format!("find it with `ss -ltnp 'sport = :{}'`, or choose another port with --listen", address.port()),
            ),
        },
        Err(error) => {
            let remedy = match error.kind() {
                ErrorKind::PermissionDenied => "choose a port from 1024 on, or give the program CAP_NET_BIND_SERVICE",
                ErrorKind::AddrNotAvailable => "choose an address that this machine has, or 0.0.0.0 for all of them",
                _ => "choose another address with --listen",
            };
            Finding::error(CHECK, format!("nothing can listen on {address}: {error}"), remedy)
        }
    }
}

/// Whether what listens there answers `/livez` as we do.
async fn is_throughline(address: SocketAddr) -> bool {
    let here = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let asking = async {
        let mut stream = TcpStream::connect((here, address.port())).await?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: doctor\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(16 * 1024).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answered = tokio::time::timeout(ANSWER_LIMIT, asking).await;
    let Ok(Ok(answer)) = answered else { return false };
    let text = String::from_utf8_lossy(&answer);
    text.starts_with("HTTP/1.1 200") && text.contains(r#"{"status":"live"}"#)
}

fn open_files(config: &Config) -> Finding {
    const CHECK: &str = "open files";
    let limit = getrlimit(Resource::Nofile).current;
    let others = config.database.connections + OTHER_FILES;
    let wanted = config.max_connections.saturating_add(others);
    let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
        return Finding::ok(CHECK, "no limit");
    };
    let message = format!("{limit} are allowed, and max_connections = {} wants {wanted}", config.max_connections);
    if limit >= wanted {
        return Finding::ok(CHECK, message);
    }
    let remedy = format!(
        "LimitNOFILE={wanted} in the unit of systemd, `ulimit -n {wanted}` in a shell, or --max-connections {}",
        limit.saturating_sub(others).max(1)
    );
    Finding::warning(CHECK, message, remedy)
}

fn clock() -> Finding {
    let now_ms = SystemClock.now_ms();
    let message = format!("it is {} (UTC, as in every log and token)", rfc3339(now_ms));
    if now_ms < EARLIEST_MS {
        let remedy = "set it, and let it follow a time service: tokens would be refused, and sessions would end at the wrong time";
        return Finding::error("clock", message, remedy);
    }
    Finding::ok("clock", message)
}

/// A warning where everybody on this machine may read a file of secrets.
pub(super) fn readable_by_all(file: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| {
        let message = format!("everybody on this machine may read {file:?}");
        Finding::warning("keys", message, "chmod o= on it (defaultMode: 0440 for a secret of Kubernetes)")
    })
}

/// Whether files can be created in a folder, or in the one that is there of those above it.
pub(super) async fn writable(folder: &Path) -> Finding {
    const CHECK: &str = "database folder";
    let wanted = folder.to_owned();
    let trying = tokio::task::spawn_blocking(move || {
        let folder = existing(&wanted);
        try_writing(&folder).map_err(|error| (folder, error))
    });
    match trying.await {
        Ok(Ok(())) => Finding::ok(CHECK, format!("{folder:?} can be written to")),
        Ok(Err((existing, error))) => Finding::error(
            CHECK,
            format!("nothing can be created in {existing:?}: {error}"),
            "give it to the user that the server runs as (chown), mount it for writing, or choose another place with --database-url",
        ),
        Err(_) => Finding::error(CHECK, format!("{folder:?} could not be looked at"), "look at its file system"),
    }
}

/// The folder itself, or the nearest above it that is there.
fn existing(folder: &Path) -> PathBuf {
    folder.ancestors().find(|folder| folder.is_dir()).map_or_else(|| PathBuf::from("."), Path::to_owned)
}

fn try_writing(folder: &Path) -> std::io::Result<()> {
    let file = folder.join(format!(".throughline-doctor-{}", std::process::id()));
    std::fs::File::create_new(&file)?;
    std::fs::remove_file(file)
}

/// How much space is left; nothing where the system does not say.
pub(super) fn free_space(folder: &Path, little: u64, none: u64) -> Option<Finding> {
    const CHECK: &str = "disk space";
    let found = rustix::fs::statvfs(existing(folder)).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let message = format!("{} MiB are free for the database", free >> 20);
    let remedy = "make room, or move the database: when the disk is full, commits fail";
    Some(match free {
        free if free < none => Finding::error(CHECK, message, remedy),
        free if free < little => Finding::warning(CHECK, message, remedy),
        _ => Finding::ok(CHECK, message),
    })
}
