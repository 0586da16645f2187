//! The database: PostgreSQL, or a file of SQLite.

use std::path::Path;
use std::time::Duration;

use super::{Finding, LIMIT, clock, latency, machine};
use crate::config::Config;
use crate::keys::KeyRing;
use crate::problem::chain;
use crate::store::inspection::{PostgresInspection, folder_of, inspect_postgres, inspect_sqlite};
use crate::store::postgres::PostgresAddress;
use crate::store::{DatabaseUrl, MigrationError, survey};

/// The oldest PostgreSQL that this is meant for: older ones get no more security fixes.
const OLDEST_POSTGRES: i32 = 14;

/// From here on a strict command is felt as slow.
const SLOW: Duration = Duration::from_millis(10);

/// Free space below which something should be done, and below which commits may soon fail.
const LITTLE_SPACE: u64 = 1 << 30;
const NO_SPACE: u64 = 64 << 20;

/// `ring`: the key ring, if there is one to compare.
pub(super) async fn check(config: &Config, servers: usize, ring: Option<&KeyRing>) -> Vec<Finding> {
    match &config.database.url {
        DatabaseUrl::Postgres(address) => postgres(config, address, servers, ring).await,
        DatabaseUrl::Sqlite(file) => sqlite(config, file, servers, ring).await,
    }
}

/// Whether all sessions can be read with the keys of the ring.
fn keys(ring: Option<&KeyRing>, used: &[String]) -> Option<Finding> {
    const CHECK: &str = "database keys";
    let ring = ring?;
    let missing: Vec<&str> = used.iter().map(String::as_str).filter(|id| ring.reads(id).is_none()).collect();
    Some(if missing.is_empty() {
        Finding::ok(CHECK, "the key ring has the keys of all sessions")
    } else {
        let message = format!("sessions are under keys that the key ring does not have: {}", missing.join(", "));
        let remedy = "put them back into the key ring, or give the ring of this database (docs/operations/keys.md)";
        Finding::error(CHECK, message, remedy)
    })
}

async fn postgres(config: &Config, address: &PostgresAddress, servers: usize, ring: Option<&KeyRing>) -> Vec<Finding> {
    // A little sooner than everything together, so that what was found out is told.
    let found = match inspect_postgres(address, LIMIT.mul_f32(0.9)).await {
        Ok(found) => found,
        Err(fault) => {
            let message = format!("{address} cannot be used: {}", chain(&fault));
            let remedy = "look whether it runs and is reached from here (psql with the same address), and at the user's name, password and rights";
            return vec![Finding::error("database", message, remedy)];
        }
    };
    let mut findings = vec![
        version(&found, address),
        tables(found.tables.as_ref().err(), config.database.auto_migrate),
        durability(&found),
        isolation(&found),
        connections(&found, config.database.connections, servers),
        clock("database clock", "its clock", found.clock_ahead_ms),
        latency(
            "database latency",
            found.latency,
            SLOW,
            "put the servers and PostgreSQL into the same data centre; each strict command waits for it",
        ),
    ];
    findings.extend(writable(&found));
    findings.extend(keys(ring, &found.root_keys));
    if found.is_exposed {
        let message = "what is sent to it can be read and changed on the way";
        findings.push(Finding::warning(
            "database TLS",
            message,
            "add ?sslmode=verify-full to its address, and sslrootcert=FILE for an authority of your own",
        ));
    }
    findings
}

fn version(found: &PostgresInspection, address: &PostgresAddress) -> Finding {
    let message = format!("{address} is PostgreSQL {}", found.version);
    if found.version_number / 10_000 < OLDEST_POSTGRES {
        return Finding::error("database", message, format!("upgrade it to {OLDEST_POSTGRES} or newer"));
    }
    Finding::ok("database", message)
}

fn tables(error: Option<&MigrationError>, auto_migrate: bool) -> Finding {
    const CHECK: &str = "database tables";
    match error {
        None => Finding::ok(CHECK, "up to date"),
        Some(MigrationError::Outdated { .. }) if auto_migrate => Finding::warning(
            CHECK,
            "older than this version needs, or not there yet; the server brings them up to date when it starts",
            "run `throughline migrate` before, to see how long it takes",
        ),
        Some(error @ MigrationError::Outdated { .. }) => {
            Finding::error(CHECK, chain(error), "run `throughline migrate` with the same options")
        }
        Some(error @ MigrationError::Newer { .. }) => {
            Finding::error(CHECK, chain(error), "install the version that the other servers run")
        }
        Some(error) => {
            Finding::error(CHECK, chain(error), "look whether this is the right database, and at the user's rights")
        }
    }
}

fn writable(found: &PostgresInspection) -> Option<Finding> {
    const CHECK: &str = "database writes";
    if found.is_standby {
        let message = "it is a standby: it only follows another server";
        return Some(Finding::error(CHECK, message, "give the address of the primary"));
    }
    if found.read_only == "on" {
        let remedy = "ALTER ROLE … RESET default_transaction_read_only (or ALTER DATABASE …)";
        return Some(Finding::error(CHECK, "default_transaction_read_only is on", remedy));
    }
    found.writable.as_ref().map(|writable| match writable {
        Ok(()) => Finding::ok(CHECK, "rows can be written"),
        Err(fault) => Finding::error(
            CHECK,
            chain(fault),
            "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO the user, and look at its free space",
        ),
    })
}

fn durability(found: &PostgresInspection) -> Finding {
    const CHECK: &str = "database durability";
    let PostgresInspection { fsync, synchronous_commit, full_page_writes, .. } = found;
    let message =
        format!("fsync {fsync}, synchronous_commit {synchronous_commit}, full_page_writes {full_page_writes}");
    if fsync != "on" {
        let remedy = "set fsync = on in postgresql.conf: without it a crash of its machine destroys the database";
        return Finding::error(CHECK, message, remedy);
    }
    if synchronous_commit == "off" {
        let remedy = "set synchronous_commit = on, also for the user (ALTER ROLE … SET): without it a crash loses what was acknowledged";
        return Finding::error(CHECK, message, remedy);
    }
    if full_page_writes != "on" {
        let remedy = "set full_page_writes = on, unless its file system never writes half a page (ZFS)";
        return Finding::warning(CHECK, message, remedy);
    }
    Finding::ok(CHECK, message)
}

fn isolation(found: &PostgresInspection) -> Finding {
    const CHECK: &str = "database isolation";
    let message = format!("default_transaction_isolation is {}", found.isolation);
    if found.isolation == "read committed" {
        return Finding::ok(CHECK, message);
    }
    let remedy = "ALTER ROLE … SET default_transaction_isolation = 'read committed': the server locks what it writes itself, and stricter levels only make it try again";
    Finding::warning(CHECK, message, remedy)
}

fn connections(found: &PostgresInspection, ours: usize, servers: usize) -> Finding {
    const CHECK: &str = "database connections";
    // One more of each server listens for changes, and questions about many sessions have their own.
    let beside = 1 + survey::AT_ONCE as usize;
    let wanted = (ours + beside).saturating_mul(servers);
    let allowed = usize::try_from(found.connections_allowed).unwrap_or(0);
    let message = format!(
        "{servers} servers want {wanted} connections; it allows {allowed}, and has {} just now",
        found.connections_used
    );
    if wanted > allowed {
        let each = (allowed / servers.max(1)).saturating_sub(beside);
        let remedy = match each {
            0 | 1 => "raise max_connections there: so many servers can't share so few connections".to_owned(),
            _ => format!("raise max_connections there, or set database_connections to {each} at most here"),
        };
        return Finding::error(CHECK, message, remedy);
    }
    // Two versions run beside each other during a deployment, and people want to look as well.
    if wanted.saturating_mul(4) > allowed.saturating_mul(3) {
        let remedy = "raise max_connections there: a deployment starts new servers before the old ones end, and others want to connect as well";
        return Finding::warning(CHECK, message, remedy);
    }
    Finding::ok(CHECK, message)
}

async fn sqlite(config: &Config, file: &Path, servers: usize, ring: Option<&KeyRing>) -> Vec<Finding> {
    let folder = folder_of(file);
    let mut findings = vec![machine::writable(&folder).await];
    if servers > 1 {
        let message = format!("{file:?} is a file for one server, and there shall be {servers}");
        findings.push(Finding::error(
            "database",
            message,
            "use PostgreSQL: database_url = \"postgres://USER@HOST/DATABASE\"",
        ));
    }
    findings.extend(machine::free_space(&folder, LITTLE_SPACE, NO_SPACE));
    let exists = tokio::fs::try_exists(file).await.unwrap_or(false);
    if !exists {
        findings
            .push(Finding::ok("database", format!("{file:?} is not there yet; the server creates it when it starts")));
        return findings;
    }
    match inspect_sqlite(file).await {
        Ok(found) => {
            findings.push(Finding::ok("database", format!("{file:?} can be opened")));
            findings.push(tables(found.tables.as_ref().err(), config.database.auto_migrate));
            findings.extend(keys(ring, &found.root_keys));
            let message = format!("journal_mode {}, synchronous {}", found.journal_mode, found.synchronous);
            findings.push(if found.journal_mode == "wal" && found.synchronous >= 2 {
                Finding::ok("database durability", message)
            } else {
                let remedy = "put the file onto a local disk: network file systems cannot share what WAL needs";
                Finding::error("database durability", message, remedy)
            });
        }
        Err(fault) => {
            let remedy = "look at its owner and permissions, and whether it is a SQLite file";
            findings.push(Finding::error("database", format!("{file:?}: {}", chain(&fault)), remedy));
        }
    }
    findings
}
