//! Redis, alone or as a cluster.

use std::time::Duration;

use super::{Finding, clock, latency};
use crate::config::Config;
use crate::problem::chain;
use crate::shared_cache::inspection::{InspectedNode, RedisInspection, inspect};
use crate::store::DatabaseUrl;

/// From here on a relaxed command is felt as slow.
const SLOW: Duration = Duration::from_millis(5);

/// How many slots a whole cluster serves.
const SLOTS: u64 = 16_384;

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let Some(settings) = &config.shared_cache else {
        let message = match config.database.url {
            DatabaseUrl::Postgres(_) => "none: every command waits for the database",
            DatabaseUrl::Sqlite(_) => "none, and none is needed for one server",
        };
        return vec![Finding::ok("redis", message)];
    };
    match inspect(settings).await {
        Ok(nodes) => nodes.iter().flat_map(node).collect(),
        Err(error) => vec![Finding::error("redis", chain(&error), "mend redis_url or redis_ca_file")],
    }
}

fn node(node: &InspectedNode) -> Vec<Finding> {
    let InspectedNode { address, has_tls, is_local, told } = node;
    let found = match told {
        Ok(found) => found,
        Err(why) => {
            let remedy = "look whether it runs and is reached from here (redis-cli -u with the same address); until then every command waits for the database";
            return vec![Finding::error("redis", format!("{address}: {why}"), remedy)];
        }
    };
    let mut findings = vec![
        Finding::ok("redis", format!("{address} is Redis {}", found.version)),
        policy(found),
        memory(found),
        persistence(found),
        clock("redis clock", "its clock", found.clock_ahead_ms),
        latency(
            "redis latency",
            found.latency,
            SLOW,
            "put the servers and Redis into the same data centre; each command waits for it",
        ),
    ];
    if found.role == "slave" {
        findings.push(Finding::error(
            "redis role",
            format!("{address} is a replica"),
            "give the address of the primary",
        ));
    }
    if let Some((state, slots)) = &found.cluster {
        let message = format!("cluster_state {state}, {slots} of {SLOTS} slots are served");
        findings.push(if state == "ok" && *slots == SLOTS {
            Finding::ok("redis cluster", message)
        } else {
            let remedy = "look with `redis-cli --cluster check`, and mend it with `--cluster fix`; sessions in the other slots go without Redis";
            Finding::error("redis cluster", message, remedy)
        });
    }
    if !has_tls && !is_local {
        let message = "what is sent to it, with customers' data, can be read and changed on the way";
        findings.push(Finding::warning(
            "redis TLS",
            message,
            "write rediss:// (and redis_ca_file for an authority of your own)",
        ));
    }
    findings
}

fn policy(found: &RedisInspection) -> Finding {
    const CHECK: &str = "redis eviction";
    let message = format!("maxmemory-policy is {}", found.maxmemory_policy);
    match found.maxmemory_policy.as_str() {
        policy if policy.starts_with("allkeys-") => Finding::error(
            CHECK,
            message,
            "CONFIG SET maxmemory-policy volatile-lru, and the same in redis.conf: it may throw away changes that the database does not have yet",
        ),
        policy if policy.starts_with("volatile-") || policy == "noeviction" => Finding::ok(CHECK, message),
        _ => Finding::warning(CHECK, message, "it should be volatile-lru; ask whoever runs this Redis"),
    }
}

fn memory(found: &RedisInspection) -> Finding {
    const CHECK: &str = "redis memory";
    let mebibytes = |bytes: u64| bytes >> 20;
    let used = mebibytes(found.used_memory);
    if found.maxmemory == 0 {
        let message =
            format!("uses {used} MiB, and as much as its machine has ({} MiB)", mebibytes(found.system_memory));
        let remedy = "set maxmemory, so that it lets go of old sessions before its machine ends it";
        return Finding::warning(CHECK, message, remedy);
    }
    let message = format!("uses {used} of {} MiB", mebibytes(found.maxmemory));
    if found.used_memory.saturating_mul(10) > found.maxmemory.saturating_mul(9) {
        let remedy = if found.maxmemory_policy == "noeviction" {
            "raise maxmemory, or set maxmemory-policy volatile-lru: when it is full it refuses to write"
        } else {
            "raise maxmemory if throughline_tier_reads_total shows many misses; it lets go of old sessions"
        };
        return Finding::warning(CHECK, message, remedy);
    }
    Finding::ok(CHECK, message)
}

fn persistence(found: &RedisInspection) -> Finding {
    const CHECK: &str = "redis persistence";
    let snapshots = match found.snapshots {
        Some(true) => "on",
        Some(false) => "off",
        None => "unknown",
    };
    let message = format!("appendonly {}, snapshots {snapshots}", if found.append_only_file { "yes" } else { "no" });
    if found.write_failed {
        let remedy = "look at its log and its disk: what it has is not on it";
        return Finding::error(CHECK, format!("{message}; its last write to the disk failed"), remedy);
    }
    if found.append_only_file {
        return Finding::ok(CHECK, message);
    }
    let remedy = "CONFIG SET appendonly yes, and the same in redis.conf: without it, losing Redis and a server at once loses up to a second of relaxed changes";
    Finding::warning(CHECK, message, remedy)
}
